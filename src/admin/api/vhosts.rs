//! `/vhosts`.

use axum::http::Method;
use serde_json::{Map, Value, json};

use crate::broker::{Name, Permissions, Put, Vhost};

use super::call::{Call, flag, text};
use super::client_rates::TrafficByVhost;
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, connections, paging, route, users};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/vhosts", Level::Management, list),
    route(Method::GET, "/vhosts/{vhost}", Level::Management, get),
    route(Method::PUT, "/vhosts/{vhost}", Level::Administrator, put),
    route(
        Method::DELETE,
        "/vhosts/{vhost}",
        Level::Administrator,
        delete,
    ),
    route(
        Method::POST,
        "/vhosts/{vhost}/start/{node}",
        Level::Administrator,
        start,
    ),
    route(
        Method::POST,
        "/vhosts/{vhost}/deletion/protection",
        Level::Administrator,
        protect,
    ),
    route(
        Method::DELETE,
        "/vhosts/{vhost}/deletion/protection",
        Level::Administrator,
        unprotect,
    ),
];

fn describe(call: &Call, vhost: &Vhost, traffic: &TrafficByVhost) -> Value {
    let details = vhost.details();
    let statistics = call.api.rates.vhost(vhost);
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("name", vhost.name().to_string().into());
    put("description", details.description.clone().into());
    put("tags", details.tags.clone().into());
    let kind = details.default_queue_type.as_deref();
    put("default_queue_type", kind.unwrap_or("undefined").into());
    put("metadata", metadata(vhost));
    put("tracing", details.tracing.into());
    put(
        "protected_from_deletion",
        details.protected_from_deletion.into(),
    );
    put(
        "cluster_state",
        json!({ call.api.facts.node.as_str(): "running" }),
    );
    let clients = traffic.counts(vhost);
    let mut stats = statistics.message_stats();
    call.api.rates.clients(|looks| {
        looks.put_told(&mut stats, vhost, &clients);
        looks.put_traffic_of_vhost(&mut object, vhost, &clients);
    });
    object.insert("message_stats".to_owned(), Value::Object(stats));
    statistics.put_depth(&mut object);
    Value::Object(object)
}

fn metadata(vhost: &Vhost) -> Value {
    let details = vhost.details();
    let mut metadata = Map::new();
    metadata.insert("description".to_owned(), details.description.clone().into());
    metadata.insert("tags".to_owned(), details.tags.clone().into());
    if let Some(kind) = &details.default_queue_type {
        metadata.insert("default_queue_type".to_owned(), kind.clone().into());
    }
    if details.protected_from_deletion {
        metadata.insert(PROTECTED.to_owned(), true.into());
    }
    Value::Object(metadata)
}

/// As definitions files have it.
pub(super) fn export(vhost: &Vhost) -> Value {
    let details = vhost.details();
    let mut object = Map::new();
    object.insert("name".to_owned(), vhost.name().to_string().into());
    if !details.description.is_empty() || !details.tags.is_empty() {
        object.insert("description".to_owned(), details.description.clone().into());
        object.insert("tags".to_owned(), details.tags.clone().into());
    }
    object.insert("metadata".to_owned(), metadata(vhost));
    Value::Object(object)
}

fn list(call: &Call) -> Answer {
    let vhosts = call.known_vhosts();
    let traffic = TrafficByVhost::of(&call.api.registry);
    let described = vhosts.iter().map(|vhost| describe(call, vhost, &traffic));
    paging::list(call, described.collect())
}

fn get(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let traffic = TrafficByVhost::of(&call.api.registry);
    paging::one(call, describe(call, &vhost, &traffic))
}

/// Makes or changes a vhost from an object as requests and definitions files write it. Who makes one may do
/// everything in it.
pub(super) fn put_vhost(
    call: &Call,
    name: &Name,
    object: &Map<String, Value>,
) -> Result<Put, ApiError> {
    let metadata = match object.get("metadata") {
        Some(Value::Object(metadata)) => Some(metadata),
        _ => None,
    };
    let said = |key: &str| object.get(key).or_else(|| metadata?.get(key));
    let description = match said("description") {
        Some(Value::String(description)) => Some(description.clone()),
        _ => None,
    };
    let tags = match said("tags") {
        None => None,
        tags => Some(users::tags(tags)?),
    };
    let queue_type = match said("default_queue_type") {
        Some(Value::String(kind)) if kind == "undefined" || kind.is_empty() => None,
        Some(Value::String(kind)) if ["classic", "quorum", "stream"].contains(&kind.as_str()) => {
            Some(kind.clone())
        }
        Some(Value::Null) | None => None,
        Some(other) => {
            return Err(ApiError::bad_request(format!("invalid queue type {other}")));
        }
    };
    let tracing = match object.contains_key("tracing") {
        true => Some(flag(object, "tracing")?),
        false => None,
    };
    let says_protected = |object: &&Map<String, Value>| object.contains_key(PROTECTED);
    let is_protected = [Some(object), metadata].into_iter().flatten();
    let is_protected = is_protected
        .filter(says_protected)
        .map(|object| flag(object, PROTECTED))
        .next()
        .transpose()?;
    let broker = call.broker();
    let before = broker.vhost(name.as_bytes());
    let vhost = broker.create_vhost(name)?;
    vhost.change_details(|details| {
        details.description = description.unwrap_or_default();
        details.tags = tags.unwrap_or_default();
        details.default_queue_type = queue_type;
        details.tracing = tracing.unwrap_or(details.tracing);
        details.protected_from_deletion = is_protected.unwrap_or(details.protected_from_deletion);
    })?;
    if before.is_none() {
        let user = call.user()?.name();
        broker
            .users()
            .put_permissions(user, name, Permissions::all())?;
    }
    Ok(before.map_or(Put::Created, |_| Put::Replaced))
}

fn put(call: &Call) -> Answer {
    let object = call.object()?;
    text(&object, "description")?;
    put_vhost(call, &call.broker_name("vhost")?, &object).map(Reply::put)
}

fn delete(call: &Call) -> Answer {
    let name = call.broker_name("vhost")?;
    match call.waking(|wakes| call.broker().delete_vhost(name.as_bytes(), wakes))? {
        true => {
            tracing::info!(vhost = %name, "a vhost is deleted");
            connections::close_of_vhost(&call.api.registry, &name);
            Ok(Reply::NoContent)
        }
        false => Err(ApiError::not_found()),
    }
}

/// Nobody can delete it until somebody says otherwise.
// req: VHOST-1
fn protect(call: &Call) -> Answer {
    set_protected(call, true)
}

fn unprotect(call: &Call) -> Answer {
    set_protected(call, false)
}

fn set_protected(call: &Call, is_protected: bool) -> Answer {
    let vhost = call.vhost()?;
    vhost.change_details(|details| details.protected_from_deletion = is_protected)?;
    Ok(Reply::NoContent)
}

/// What RabbitMQ calls it.
const PROTECTED: &str = "protected_from_deletion";

/// A vhost that exists runs.
fn start(call: &Call) -> Answer {
    call.vhost()?;
    let node = call.name("node");
    if node != call.api.facts.node {
        let reason = format!("Request to node {node} failed with nodedown");
        return Err(ApiError::bad_request(reason));
    }
    Ok(Reply::NoContent)
}
