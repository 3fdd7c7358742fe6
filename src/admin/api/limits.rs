//! `/vhost-limits` and `/user-limits`.

use axum::http::Method;
use serde_json::{Value, json};

use crate::broker::Limits;

use super::call::Call;
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, json as convert, paging, route, users};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/vhost-limits", Level::Management, list_vhosts),
    route(
        Method::GET,
        "/vhost-limits/{vhost}",
        Level::Management,
        list_vhost,
    ),
    route(
        Method::PUT,
        "/vhost-limits/{vhost}/{limit}",
        Level::Administrator,
        put_vhost,
    ),
    route(
        Method::DELETE,
        "/vhost-limits/{vhost}/{limit}",
        Level::Administrator,
        delete_vhost,
    ),
    route(Method::GET, "/user-limits", Level::Management, list_users),
    route(
        Method::GET,
        "/user-limits/{user}",
        Level::Management,
        list_user,
    ),
    route(
        Method::PUT,
        "/user-limits/{user}/{limit}",
        Level::Administrator,
        put_user,
    ),
    route(
        Method::DELETE,
        "/user-limits/{user}/{limit}",
        Level::Administrator,
        delete_user,
    ),
];

/// What limits are set of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Subject {
    Vhost,
    User,
}

/// Sets or lifts one limit; a negative one is none.
pub(super) fn set(
    limits: &mut Limits,
    subject: Subject,
    name: &str,
    value: &Value,
) -> Result<(), ApiError> {
    let place = match (subject, name) {
        (_, "max-connections") => &mut limits.connection_count_max,
        (Subject::Vhost, "max-queues") => &mut limits.queue_count_max,
        (Subject::User, "max-channels") => &mut limits.channel_count_max,
        (_, _) => {
            let term = format!("[{{<<\"{name}\">>,{}}}]", convert::to_policy(value));
            return Err(ApiError::bad_request(match subject {
                Subject::Vhost => {
                    format!("Validation failed\n\nUnrecognised terms {term} in limits\n")
                }
                Subject::User => format!("Unrecognised terms {term} in user-limits"),
            }));
        }
    };
    let Some(number) = value.as_number().and_then(convert::integer) else {
        let term = convert::to_policy(value);
        let problem = format!("{name} should be a number, actually was {term}");
        return Err(ApiError::bad_request(match subject {
            Subject::Vhost => format!("Validation failed\n\n{problem}\n"),
            Subject::User => problem,
        }));
    };
    *place = u64::try_from(number).ok();
    Ok(())
}

fn list_vhosts(call: &Call) -> Answer {
    let vhosts = call.known_vhosts().into_iter();
    let limited = vhosts.filter(|vhost| !vhost.details().limits.is_empty());
    let described = limited.map(|vhost| {
        let limits = users::describe_limits(&vhost.details().limits);
        json!({ "vhost": vhost.name().to_string(), "value": limits })
    });
    paging::list(call, described.collect())
}

fn list_vhost(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let details = vhost.details();
    let limits = users::describe_limits(&details.limits);
    let entry = json!({ "vhost": vhost.name().to_string(), "value": limits });
    let entries = (!details.limits.is_empty()).then_some(entry);
    paging::list(call, entries.into_iter().collect())
}

fn change_vhost(call: &Call, value: &Value) -> Answer {
    let vhost = call.vhost()?;
    let mut limits = vhost.details().limits.clone();
    set(&mut limits, Subject::Vhost, call.name("limit"), value)?;
    vhost.change_details(|details| details.limits = limits)?;
    Ok(Reply::NoContent)
}

fn value(call: &Call) -> Result<Value, ApiError> {
    let object = call.object_with(&["value"])?;
    Ok(object.get("value").cloned().unwrap_or(Value::Null))
}

fn put_vhost(call: &Call) -> Answer {
    change_vhost(call, &value(call)?)
}

/// A limit that there is not is none already.
fn is_limit(call: &Call) -> bool {
    ["max-connections", "max-queues", "max-channels"].contains(&call.name("limit"))
}

fn delete_vhost(call: &Call) -> Answer {
    if !is_limit(call) {
        return call.vhost().map(|_| Reply::NoContent);
    }
    change_vhost(call, &Value::from(-1))
}

fn list_users(call: &Call) -> Answer {
    let users = call.broker().users().users();
    let limited = users.iter().filter(|user| !user.limits().is_empty());
    let described = limited.map(|user| {
        json!({ "user": user.name().to_string(), "value": users::describe_limits(user.limits()) })
    });
    paging::list(call, described.collect())
}

fn list_user(call: &Call) -> Answer {
    let user = call.broker().users().user(call.name("user").as_bytes());
    let user = user.ok_or_else(ApiError::not_found)?;
    let limits = users::describe_limits(user.limits());
    let entry = json!({ "user": user.name().to_string(), "value": limits });
    let entries = (!user.limits().is_empty()).then_some(entry);
    paging::list(call, entries.into_iter().collect())
}

fn change_user(call: &Call, value: &Value) -> Answer {
    let users = call.broker().users();
    let name = call.name("user").as_bytes();
    let user = users.user(name);
    let user = user.ok_or_else(|| ApiError::bad_term("no_such_user", call.name("user")))?;
    let mut limits = user.limits().clone();
    set(&mut limits, Subject::User, call.name("limit"), value)?;
    match users.put_user_limits(name, limits)? {
        true => Ok(Reply::NoContent),
        false => Err(ApiError::not_found()),
    }
}

fn put_user(call: &Call) -> Answer {
    change_user(call, &value(call)?)
}

fn delete_user(call: &Call) -> Answer {
    if !is_limit(call) {
        return Ok(Reply::NoContent);
    }
    change_user(call, &Value::from(-1))
}
