//! `/permissions` and `/topic-permissions`, and both of one user or vhost.

use axum::http::Method;
use serde_json::{Map, Value, json};

use crate::broker::{Name, PatternError, Permissions, Put, TopicPermissionEntry, TopicPermissions};

use super::call::{Call, text};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, paging, route};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/permissions", Level::Administrator, list),
    route(
        Method::GET,
        "/permissions/{vhost}/{user}",
        Level::Administrator,
        get,
    ),
    route(
        Method::PUT,
        "/permissions/{vhost}/{user}",
        Level::Administrator,
        put,
    ),
    route(
        Method::DELETE,
        "/permissions/{vhost}/{user}",
        Level::Administrator,
        delete,
    ),
    route(
        Method::GET,
        "/topic-permissions",
        Level::Administrator,
        list_topic,
    ),
    route(
        Method::GET,
        "/topic-permissions/{vhost}/{user}",
        Level::Administrator,
        get_topic,
    ),
    route(
        Method::PUT,
        "/topic-permissions/{vhost}/{user}",
        Level::Administrator,
        put_topic,
    ),
    route(
        Method::DELETE,
        "/topic-permissions/{vhost}/{user}",
        Level::Administrator,
        delete_topic,
    ),
    route(
        Method::DELETE,
        "/topic-permissions/{vhost}/{user}/{exchange}",
        Level::Administrator,
        delete_topic,
    ),
    route(
        Method::GET,
        "/users/{user}/permissions",
        Level::Administrator,
        list_of_user,
    ),
    route(
        Method::GET,
        "/users/{user}/topic-permissions",
        Level::Administrator,
        list_topic_of_user,
    ),
    route(
        Method::GET,
        "/vhosts/{vhost}/permissions",
        Level::Administrator,
        list_of_vhost,
    ),
    route(
        Method::GET,
        "/vhosts/{vhost}/topic-permissions",
        Level::Administrator,
        list_topic_of_vhost,
    ),
];

pub(super) fn describe(user: &Name, vhost: &Name, permissions: &Permissions) -> Value {
    json!({
        "user": user.to_string(),
        "vhost": vhost.to_string(),
        "configure": permissions.configure(),
        "write": permissions.write(),
        "read": permissions.read(),
    })
}

pub(super) fn describe_topic(entry: &TopicPermissionEntry) -> Value {
    json!({
        "user": entry.user.to_string(),
        "vhost": entry.vhost.to_string(),
        "exchange": entry.exchange.to_string(),
        "write": entry.permissions.write(),
        "read": entry.permissions.read(),
    })
}

fn invalid(error: &PatternError) -> ApiError {
    ApiError::bad_request(format!("invalid_regexp: '{}' is {error}", error.pattern))
}

/// Sets permissions from an object as requests and definitions files write it.
pub(super) fn put_permissions(
    call: &Call,
    user: &Name,
    vhost: &Name,
    object: &Map<String, Value>,
) -> Result<Put, ApiError> {
    check_ends(call, user, vhost)?;
    let pattern = |key| text(object, key);
    let permissions = Permissions::new(pattern("configure")?, pattern("write")?, pattern("read")?);
    let users = call.broker().users();
    let before = users.permissions(user, vhost);
    users.put_permissions(user, vhost, permissions.map_err(|error| invalid(&error))?)?;
    Ok(before.map_or(Put::Created, |_| Put::Replaced))
}

/// Sets topic permissions from an object as requests and definitions files write it.
pub(super) fn put_topic_permissions(
    call: &Call,
    user: &Name,
    vhost: &Name,
    object: &Map<String, Value>,
) -> Result<Put, ApiError> {
    check_ends(call, user, vhost)?;
    let exchange = super::call::to_name(text(object, "exchange")?)?;
    let (write, read) = (text(object, "write")?, text(object, "read")?);
    let permissions = TopicPermissions::new(write, read, &user.to_string(), &vhost.to_string())
        .map_err(|error| invalid(&error))?;
    let users = call.broker().users();
    // As RabbitMQ answers, those for another exchange count too.
    let is_same = |entry: &TopicPermissionEntry| entry.user == *user && entry.vhost == *vhost;
    let before = users.topic_permissions().iter().any(is_same);
    users.put_topic_permissions(user, vhost, &exchange, permissions)?;
    Ok(match before {
        true => Put::Replaced,
        false => Put::Created,
    })
}

fn check_ends(call: &Call, user: &Name, vhost: &Name) -> Result<(), ApiError> {
    let broker = call.broker();
    if broker.vhost(vhost.as_bytes()).is_none() || broker.users().user(user.as_bytes()).is_none() {
        return Err(ApiError::bad_request("vhost_or_user_not_found"));
    }
    Ok(())
}

fn listed(call: &Call, is_meant: impl Fn(&Name, &Name) -> bool) -> Answer {
    let all = call.broker().users().all_permissions();
    let meant = all.iter().filter(|(user, vhost, _)| is_meant(user, vhost));
    let described = meant.map(|(user, vhost, permissions)| describe(user, vhost, permissions));
    paging::list(call, described.collect())
}

fn listed_topic(call: &Call, is_meant: impl Fn(&TopicPermissionEntry) -> bool) -> Answer {
    let all = call.broker().users().topic_permissions();
    let meant = all.iter().filter(|entry| is_meant(entry));
    paging::list(call, meant.map(describe_topic).collect())
}

fn list(call: &Call) -> Answer {
    listed(call, |_, _| true)
}

fn list_topic(call: &Call) -> Answer {
    listed_topic(call, |_| true)
}

fn user_in_path(call: &Call) -> Result<Name, ApiError> {
    let user = call.broker().users().user(call.name("user").as_bytes());
    Ok(user.ok_or_else(ApiError::not_found)?.name().clone())
}

fn list_of_user(call: &Call) -> Answer {
    let name = user_in_path(call)?;
    listed(call, |user, _| *user == name)
}

fn list_topic_of_user(call: &Call) -> Answer {
    let name = user_in_path(call)?;
    listed_topic(call, |entry| entry.user == name)
}

fn list_of_vhost(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    listed(call, |_, of| of == vhost.name())
}

fn list_topic_of_vhost(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    listed_topic(call, |entry| entry.vhost == *vhost.name())
}

fn get(call: &Call) -> Answer {
    let (user, vhost) = (call.broker_name("user")?, call.vhost()?);
    let permissions = call.broker().users().permissions(&user, vhost.name());
    let permissions = permissions.ok_or_else(ApiError::not_found)?;
    paging::one(call, describe(&user, vhost.name(), &permissions))
}

fn put(call: &Call) -> Answer {
    let (user, vhost) = (call.broker_name("user")?, call.broker_name("vhost")?);
    check_ends(call, &user, &vhost)?;
    let object = call.object_with(&["configure", "write", "read"])?;
    put_permissions(call, &user, &vhost, &object).map(Reply::put)
}

fn delete(call: &Call) -> Answer {
    let (user, vhost) = (call.broker_name("user")?, call.vhost()?);
    match call
        .broker()
        .users()
        .delete_permissions(&user, vhost.name())?
    {
        true => Ok(Reply::NoContent),
        false => Err(ApiError::not_found()),
    }
}

fn get_topic(call: &Call) -> Answer {
    let (user, vhost) = (call.broker_name("user")?, call.vhost()?);
    let is_meant =
        |entry: &TopicPermissionEntry| entry.user == user && entry.vhost == *vhost.name();
    let all = call.broker().users().topic_permissions();
    match all.iter().any(is_meant) {
        true => listed_topic(call, is_meant),
        false => Err(ApiError::not_found()),
    }
}

fn put_topic(call: &Call) -> Answer {
    let object = call.object_with(&["exchange", "write", "read"])?;
    let (user, vhost) = (call.broker_name("user")?, call.broker_name("vhost")?);
    put_topic_permissions(call, &user, &vhost, &object).map(Reply::put)
}

fn delete_topic(call: &Call) -> Answer {
    let (user, vhost) = (call.broker_name("user")?, call.vhost()?);
    let exchange = match call.names.contains_key("exchange") {
        true => Some(super::call::to_name(call.exchange_name("exchange"))?),
        false => None,
    };
    let users = call.broker().users();
    match users.delete_topic_permissions(&user, vhost.name(), exchange.as_ref())? {
        true => Ok(Reply::NoContent),
        false => Err(ApiError::not_found()),
    }
}
