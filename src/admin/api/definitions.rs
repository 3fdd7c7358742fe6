//! `/definitions`: everything that survives a restart but messages, as one document, out and in.
//!
//! Spec: RabbitMQ, "Definition Export and Import".

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use crate::broker::policy::PolicyKind;
use crate::broker::{Durability, Exchange, Vhost};

use super::call::{Call, Caller};
use super::error::ApiError;
use super::{
    Answer, Api, Level, Reply, Route, import, json as convert, overview, parameters, permissions,
    policies, queues, route, slow_route, users, vhosts,
};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/definitions", Level::Administrator, export),
    slow_route(
        Method::POST,
        "/definitions",
        Level::Administrator,
        import_all,
    ),
    route(
        Method::GET,
        "/definitions/{vhost}",
        Level::Administrator,
        export_vhost,
    ),
    slow_route(
        Method::POST,
        "/definitions/{vhost}",
        Level::Administrator,
        import_vhost,
    ),
];

/// Whether objects say which vhost they are of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Named {
    Yes,
    No,
}

fn with_vhost(vhost: &Vhost, named: Named, mut object: Value) -> Value {
    if let Value::Object(object) = &mut object {
        match named {
            Named::Yes => drop(object.insert("vhost".to_owned(), vhost.name().to_string().into())),
            Named::No => drop(object.remove("vhost")),
        }
    }
    object
}

fn export_queues(vhost: &Vhost, named: Named) -> Vec<Value> {
    let mut queues = vhost.queues();
    queues.retain(|queue| queue.owner().is_none());
    queues.sort_unstable_by(|left, right| left.name().cmp(right.name()));
    let exported = queues.iter().map(|queue| {
        let object = json!({
            "name": queue.name().to_string(),
            "type": queues::kind_name(queue.kind()),
            "durable": queue.durability() == Durability::Durable,
            "auto_delete": queue.is_auto_delete(),
            "arguments": convert::from_table(queue.arguments()),
        });
        with_vhost(vhost, named, object)
    });
    exported.collect()
}

/// Whether it is there in every vhost without being declared.
fn is_predeclared(exchange: &Exchange) -> bool {
    let name = exchange.name().as_bytes();
    name.is_empty() || name.starts_with(b"amq.")
}

fn export_exchanges(vhost: &Vhost, named: Named) -> Vec<Value> {
    let mut exchanges = vhost.exchanges();
    exchanges.retain(|exchange| !is_predeclared(exchange));
    exchanges.sort_unstable_by(|left, right| left.name().cmp(right.name()));
    let exported = exchanges.iter().map(|exchange| {
        let object = json!({
            "name": exchange.name().to_string(),
            "type": exchange.kind().name(),
            "durable": exchange.durability() == Durability::Durable,
            "auto_delete": exchange.is_auto_delete(),
            "internal": exchange.is_internal(),
            "arguments": convert::from_table(exchange.arguments()),
        });
        with_vhost(vhost, named, object)
    });
    exported.collect()
}

fn export_bindings(vhost: &Vhost, named: Named) -> Vec<Value> {
    let bindings = vhost.bindings();
    let is_of_exclusive = |name: &crate::broker::DestinationName| {
        name.kind == crate::broker::ResourceKind::Queue
            && vhost
                .queue(name.name.as_bytes())
                .is_none_or(|queue| queue.owner().is_some())
    };
    let exported = bindings
        .iter()
        .filter(|binding| !is_of_exclusive(binding.destination()))
        .map(|binding| {
            let object = json!({
                "source": binding.source().to_string(),
                "destination": binding.destination().name.to_string(),
                "destination_type": binding.destination().kind.to_string(),
                "routing_key": binding.routing_key().to_string(),
                "arguments": convert::from_table(binding.arguments()),
            });
            with_vhost(vhost, named, object)
        });
    exported.collect()
}

fn export_policies(vhost: &Vhost, named: Named) -> Vec<Value> {
    let policies = vhost.policies(PolicyKind::User);
    let exported = policies
        .iter()
        .map(|policy| with_vhost(vhost, named, policies::describe(vhost.name(), policy)));
    exported.collect()
}

/// Parameters, and what RabbitMQ keeps as parameters: operator policies and limits.
pub(super) fn export_parameters(call: &Call, vhost: &Vhost, named: Named) -> Vec<Value> {
    let all = call.broker().parameters().all();
    let own = all
        .iter()
        .filter(|parameter| parameter.vhost.as_ref() == Some(vhost.name()));
    let mut exported: Vec<Value> = own.map(parameters::describe).collect();
    for policy in vhost.policies(PolicyKind::Operator) {
        let mut value = policies::describe(vhost.name(), &policy);
        if let Value::Object(value) = &mut value {
            value.remove("vhost");
            value.remove("name");
        }
        exported.push(json!({
            "component": "operator_policy", "name": policy.name().to_string(), "value": value,
        }));
    }
    let limits = &vhost.details().limits;
    if !limits.is_empty() {
        let value = users::describe_limits(limits);
        exported.push(json!({ "component": "vhost-limits", "name": "limits", "value": value }));
    }
    let exported = exported.into_iter();
    exported
        .map(|object| with_vhost(vhost, named, object))
        .collect()
}

fn head(call: &Call) -> Map<String, Value> {
    let mut object = Map::new();
    let facts = &call.api.facts;
    object.insert(
        "rabbit_version".to_owned(),
        overview::RABBITMQ_VERSION.into(),
    );
    object.insert(
        "rabbitmq_version".to_owned(),
        overview::RABBITMQ_VERSION.into(),
    );
    object.insert("product_name".to_owned(), facts.product.clone().into());
    object.insert("product_version".to_owned(), facts.version.clone().into());
    object
}

/// The document with a tag over it, so that who has it already need not take it again.
fn tagged(object: Map<String, Value>) -> Answer {
    let object = Value::Object(object);
    let hash = blake3::hash(object.to_string().as_bytes());
    let tag = HeaderValue::try_from(format!("\"{}\"", hash.to_hex()));
    Ok(match tag {
        Ok(tag) => Reply::Tagged(object, tag),
        Err(_) => Reply::Json(object),
    })
}

fn export(call: &Call) -> Answer {
    let broker = call.broker();
    let vhosts = broker.vhosts();
    let each = |list: &dyn Fn(&Vhost) -> Vec<Value>| -> Value {
        vhosts.iter().flat_map(|vhost| list(vhost)).collect()
    };
    let mut object = head(call);
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("rabbitmq_definition_format", "cluster".into());
    let users = broker.users();
    put(
        "users",
        users
            .users()
            .iter()
            .map(|user| users::describe(user))
            .collect(),
    );
    put(
        "vhosts",
        vhosts.iter().map(|vhost| vhosts::export(vhost)).collect(),
    );
    let rights = users.all_permissions();
    let rights = rights
        .iter()
        .map(|(user, vhost, rights)| permissions::describe(user, vhost, rights));
    put("permissions", rights.collect());
    let topics = users.topic_permissions();
    put(
        "topic_permissions",
        topics.iter().map(permissions::describe_topic).collect(),
    );
    put(
        "parameters",
        each(&|vhost| export_parameters(call, vhost, Named::Yes)),
    );
    put("global_parameters", parameters::global(call).into());
    put(
        "policies",
        each(&|vhost| export_policies(vhost, Named::Yes)),
    );
    put("queues", each(&|vhost| export_queues(vhost, Named::Yes)));
    put(
        "exchanges",
        each(&|vhost| export_exchanges(vhost, Named::Yes)),
    );
    put(
        "bindings",
        each(&|vhost| export_bindings(vhost, Named::Yes)),
    );
    tagged(object)
}

fn export_vhost(call: &Call) -> Answer {
    let vhost = call.vhost();
    let vhost = vhost.map_err(|_| ApiError::bad_request("vhost_not_found"))?;
    let mut object = head(call);
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("rabbitmq_definition_format", "single_virtual_host".into());
    put("original_vhost_name", vhost.name().to_string().into());
    put(
        "parameters",
        export_parameters(call, &vhost, Named::Yes).into(),
    );
    // RabbitMQ names the vhost of parameters and policies here too.
    put("policies", export_policies(&vhost, Named::Yes).into());
    put("queues", export_queues(&vhost, Named::No).into());
    put("exchanges", export_exchanges(&vhost, Named::No).into());
    put("bindings", export_bindings(&vhost, Named::No).into());
    tagged(object)
}

fn document(call: &Call) -> Result<Map<String, Value>, ApiError> {
    let document = call.object();
    document.map_err(|_| ApiError::bad_request("failed_to_parse_json"))
}

impl Api {
    /// Brings a document in as an import does, by the broker itself. Blocks while passwords are hashed.
    ///
    /// # Errors
    /// What is wrong with which entry; what came before it stays.
    pub(in crate::admin) fn bring_in(&self, document: &Map<String, Value>) -> Result<(), String> {
        let call = Call {
            api: self.clone(),
            caller: Some(Caller::internal()),
            names: HashMap::new(),
            query: HashMap::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            now: self.broker.time(Instant::now()),
            from: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        import::import(&call, None, document).map_err(|error| error.reason().to_string())
    }
}

fn import_all(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let document = document(call)?;
        import::import(call, None, &document)?;
        Ok(Reply::NoContent)
    }
    .boxed()
}

fn import_vhost(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let vhost = call.vhost()?;
        let document = document(call)?;
        import::import(call, Some(&vhost), &document)?;
        Ok(Reply::NoContent)
    }
    .boxed()
}
