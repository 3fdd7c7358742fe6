//! `/bindings`: what is bound to what, binding and unbinding.
//!
//! A binding's place is its routing key and, if it has arguments, a hash over them: `key~hash`; `~` alone
//! stands for neither. Queues are bound to the default exchange by their names without being listed there
//! by the broker; they are listed here, as RabbitMQ does.

use axum::http::Method;
use base64::Engine as _;
use serde_json::{Value, json};

use crate::amqp::field::FieldTable;
use crate::broker::{BindingRequest, ResourceKind, Vhost};

use super::call::{Call, text};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, json as convert, paging, route};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/bindings", Level::Management, list),
    route(
        Method::GET,
        "/bindings/{vhost}",
        Level::Management,
        list_in_vhost,
    ),
    route(
        Method::GET,
        "/bindings/{vhost}/e/{source}/{kind}/{destination}",
        Level::Management,
        list_between,
    ),
    route(
        Method::POST,
        "/bindings/{vhost}/e/{source}/{kind}/{destination}",
        Level::Management,
        bind,
    ),
    route(
        Method::GET,
        "/bindings/{vhost}/e/{source}/{kind}/{destination}/{props}",
        Level::Management,
        get,
    ),
    route(
        Method::DELETE,
        "/bindings/{vhost}/e/{source}/{kind}/{destination}/{props}",
        Level::Management,
        unbind,
    ),
];

/// Octets of the hash over arguments.
const HASH_BYTES: usize = 6;

/// One end of a binding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Source,
    Destination,
}

/// What is listed of a binding.
struct Bound {
    source: String,
    kind: ResourceKind,
    destination: String,
    routing_key: String,
    arguments: FieldTable,
}

impl Bound {
    fn describe(&self, vhost: &Vhost) -> Value {
        json!({
            "source": self.source,
            "vhost": vhost.name().to_string(),
            "destination": self.destination,
            "destination_type": self.kind.to_string(),
            "routing_key": self.routing_key,
            "arguments": convert::from_table(&self.arguments),
            "properties_key": self.properties_key(),
        })
    }

    fn properties_key(&self) -> String {
        properties_key(&self.routing_key, &self.arguments)
    }
}

fn properties_key(routing_key: &str, arguments: &FieldTable) -> String {
    let key = convert::percent_encode(routing_key);
    let key = key.replace('~', "%7E").replace("%20", "+");
    if arguments.is_empty() {
        return if key.is_empty() { "~".to_owned() } else { key };
    }
    let hash = blake3::hash(arguments.elements());
    let hash = hash.as_bytes().get(..HASH_BYTES).unwrap_or_default();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    format!("{key}~{}", engine.encode(hash))
}

/// All of a vhost, those of the default exchange first.
fn all(vhost: &Vhost) -> impl Iterator<Item = Bound> {
    let mut queues = vhost.queues();
    queues.sort_unstable_by(|left, right| left.name().cmp(right.name()));
    let by_name = queues.into_iter().map(|queue| Bound {
        source: String::new(),
        kind: ResourceKind::Queue,
        destination: queue.name().to_string(),
        routing_key: queue.name().to_string(),
        arguments: FieldTable::default(),
    });
    let bound = vhost.bindings().into_iter().map(|binding| Bound {
        source: binding.source().to_string(),
        kind: binding.destination().kind,
        destination: binding.destination().name.to_string(),
        routing_key: binding.routing_key().to_string(),
        arguments: binding.arguments().clone(),
    });
    by_name.chain(bound)
}

fn listed(call: &Call, vhost: &Vhost, is_meant: impl Fn(&Bound) -> bool) -> Answer {
    let meant = all(vhost)
        .filter(is_meant)
        .map(|bound| bound.describe(vhost));
    paging::list(call, meant.collect())
}

/// Bindings to a queue.
pub(super) fn list_to_queue(call: &Call, vhost: &Vhost, name: &str) -> Answer {
    listed(call, vhost, |bound| {
        bound.kind == ResourceKind::Queue && bound.destination == name
    })
}

/// Bindings from or to an exchange.
pub(super) fn list_of_exchange(call: &Call, vhost: &Vhost, name: &str, end: End) -> Answer {
    listed(call, vhost, |bound| match end {
        End::Source => bound.source == name,
        End::Destination => bound.kind == ResourceKind::Exchange && bound.destination == name,
    })
}

fn list(call: &Call) -> Answer {
    let vhosts = call.visible_vhosts();
    let described = vhosts.iter().flat_map(|vhost| {
        all(vhost)
            .map(|bound| bound.describe(vhost))
            .collect::<Vec<_>>()
    });
    paging::list(call, described.collect())
}

fn list_in_vhost(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    listed(call, &vhost, |_| true)
}

/// What the path says of both ends; both must be there.
fn ends(call: &Call, vhost: &Vhost) -> Result<ResourceKind, ApiError> {
    let (source, destination) = (call.exchange_name("source"), call.name("destination"));
    let kind = match call.name("kind") {
        "q" => ResourceKind::Queue,
        "e" => ResourceKind::Exchange,
        _ => return Err(ApiError::not_found()),
    };
    if vhost.exchange(source.as_bytes()).is_none() {
        let reason = format!("no exchange '{source}' in vhost '{}'", vhost.name());
        return Err(ApiError::missing(reason));
    }
    let is_there = match kind {
        ResourceKind::Queue => vhost.queue(destination.as_bytes()).is_some(),
        ResourceKind::Exchange => vhost.exchange(destination.as_bytes()).is_some(),
    };
    match is_there {
        true => Ok(kind),
        false => Err(ApiError::missing(format!(
            "no {kind} '{destination}' in vhost '{}'",
            vhost.name()
        ))),
    }
}

fn is_between(call: &Call, kind: ResourceKind, bound: &Bound) -> bool {
    bound.source == call.exchange_name("source")
        && bound.kind == kind
        && bound.destination == call.name("destination")
}

/// Between ends that are not there is nothing.
fn list_between(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let kind = match call.name("kind") {
        "q" => ResourceKind::Queue,
        "e" => ResourceKind::Exchange,
        _ => return Err(ApiError::not_found()),
    };
    listed(call, &vhost, |bound| is_between(call, kind, bound))
}

fn found(call: &Call, vhost: &Vhost) -> Result<Bound, ApiError> {
    let kind = ends(call, vhost)?;
    // The path is decoded by now; a key with odd characters was encoded twice.
    let props = call.name("props");
    let is_meant = |bound: &Bound| {
        let key = bound.properties_key();
        key == props
            || convert::percent_decode(&key, convert::Plus::IsSpace).as_deref() == Some(props)
    };
    all(vhost)
        .find(|bound| is_between(call, kind, bound) && is_meant(bound))
        .ok_or_else(ApiError::not_found)
}

fn get(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let bound = found(call, &vhost)?;
    paging::one(call, bound.describe(&vhost))
}

fn bind(call: &Call) -> Answer {
    let object = call.object()?;
    let arguments = convert::to_table(object.get("arguments"))?;
    let routing_key = text(&object, "routing_key")?;
    let vhost = call.vhost()?;
    let kind = ends(call, &vhost)?;
    let connection = call.connect()?;
    let request = BindingRequest {
        source: call.exchange_name("source").as_bytes(),
        destination: call.name("destination").as_bytes(),
        routing_key: routing_key.as_bytes(),
        arguments: &arguments,
    };
    if routing_key.len() > crate::broker::limits::NAME_BYTES_MAX {
        return Err(ApiError::bad_request("a routing key may have 255 bytes"));
    }
    call.waking(|wakes| match kind {
        ResourceKind::Queue => vhost.queue_bind(&connection, &request, call.now, wakes),
        ResourceKind::Exchange => vhost.exchange_bind(&connection, &request, call.now, wakes),
    })?;
    let props = properties_key(routing_key, &arguments);
    let destination = convert::percent_encode(call.name("destination"));
    let place = format!("{destination}/{}", convert::percent_encode(&props));
    Ok(Reply::Created(Some(place)))
}

fn unbind(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let bound = found(call, &vhost)?;
    let connection = call.connect()?;
    let request = BindingRequest {
        source: bound.source.as_bytes(),
        destination: bound.destination.as_bytes(),
        routing_key: bound.routing_key.as_bytes(),
        arguments: &bound.arguments,
    };
    match bound.kind {
        ResourceKind::Queue => vhost.queue_unbind(&connection, &request)?,
        ResourceKind::Exchange => vhost.exchange_unbind(&connection, &request)?,
    }
    Ok(Reply::NoContent)
}
