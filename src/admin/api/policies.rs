//! `/policies` and `/operator-policies`.

use std::sync::Arc;

use axum::http::Method;
use serde_json::{Map, Value, json};

use crate::broker::policy::{Definition, Policy, PolicyKind};
use crate::broker::{Name, Vhost};

use super::call::{Call, to_name};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, json as convert, paging, route};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/policies", Level::Management, list),
    route(
        Method::GET,
        "/policies/{vhost}",
        Level::Management,
        list_in_vhost,
    ),
    route(
        Method::GET,
        "/policies/{vhost}/{name}",
        Level::Policymaker,
        get,
    ),
    route(
        Method::PUT,
        "/policies/{vhost}/{name}",
        Level::Policymaker,
        put,
    ),
    route(
        Method::DELETE,
        "/policies/{vhost}/{name}",
        Level::Policymaker,
        delete,
    ),
    route(
        Method::GET,
        "/operator-policies",
        Level::Management,
        list_operator,
    ),
    route(
        Method::GET,
        "/operator-policies/{vhost}",
        Level::Management,
        list_operator_in_vhost,
    ),
    route(
        Method::GET,
        "/operator-policies/{vhost}/{name}",
        Level::Policymaker,
        get_operator,
    ),
    route(
        Method::PUT,
        "/operator-policies/{vhost}/{name}",
        Level::Administrator,
        put_operator,
    ),
    route(
        Method::DELETE,
        "/operator-policies/{vhost}/{name}",
        Level::Administrator,
        delete_operator,
    ),
];

/// The name of the policy in effect.
pub(super) fn name_of(policy: Option<&Arc<Policy>>) -> Value {
    policy.map_or(Value::Null, |policy| policy.name().to_string().into())
}

pub(super) fn definition(definition: &Definition) -> Value {
    let pairs = definition.iter();
    Value::Object(
        pairs
            .map(|(key, value)| (key.clone(), convert::from_policy(value)))
            .collect(),
    )
}

pub(super) fn describe(vhost: &Name, policy: &Policy) -> Value {
    json!({
        "vhost": vhost.to_string(),
        "name": policy.name().to_string(),
        "pattern": policy.pattern(),
        "apply-to": policy.applies_to().name(),
        "definition": definition(policy.definition()),
        "priority": policy.priority(),
    })
}

/// Reads a policy as requests and definitions files write it.
pub(super) fn read(
    kind: PolicyKind,
    name: &str,
    object: &Map<String, Value>,
) -> Result<Policy, ApiError> {
    // RabbitMQ escapes what its texts quote, for those that show them on a page.
    let invalid = |problem: String| ApiError::bad_request(escape(&problem));
    let failed = |problem: String| invalid(format!("Validation failed\n\n{problem}\n"));
    let pattern = match object.get("pattern") {
        Some(Value::String(pattern)) => pattern,
        Some(other) => {
            let term = convert::to_policy(other);
            return Err(failed(format!("pattern should be a binary but was {term}")));
        }
        None => return Err(ApiError::bad_request("[{key_missing,pattern}]")),
    };
    let definition = match object.get("definition") {
        Some(Value::Object(pairs)) => pairs
            .iter()
            .map(|(key, value)| (key.clone(), convert::to_policy(value)))
            .collect(),
        Some(_) => return Err(failed("definition should be an object".to_owned())),
        None => return Err(ApiError::bad_request("[{key_missing,definition}]")),
    };
    let priority = match object.get("priority") {
        None | Some(Value::Null) => 0,
        Some(Value::Number(number)) if convert::integer(number).is_some() => {
            convert::integer(number).unwrap_or_default()
        }
        Some(other) => {
            let term = convert::to_policy(other);
            return Err(failed(format!(
                "priority should be a number, actually was {term}"
            )));
        }
    };
    let applies_to = match object.get("apply-to") {
        None | Some(Value::Null) => "all",
        Some(Value::String(applies_to)) => applies_to,
        Some(other) => {
            let term = convert::to_policy(other);
            return Err(failed(format!(
                "apply-to should be a binary but was {term}"
            )));
        }
    };
    let name = to_name(name)?;
    Policy::new(kind, &name, pattern, applies_to, priority, definition)
        .map_err(|error| invalid(error.to_string()))
}

fn escape(text: &str) -> String {
    text.replace('<', "&lt;").replace('>', "&gt;")
}

fn list_all(call: &Call, kind: PolicyKind) -> Answer {
    let vhosts = call.visible_vhosts();
    let described = vhosts.iter().flat_map(|vhost| described(vhost, kind));
    paging::list(call, described.collect())
}

fn described(vhost: &Vhost, kind: PolicyKind) -> Vec<Value> {
    let policies = vhost.policies(kind);
    let described = policies.iter().map(|policy| describe(vhost.name(), policy));
    described.collect()
}

fn get_kind(call: &Call, kind: PolicyKind) -> Answer {
    let vhost = call.vhost()?;
    let policy = vhost.policy(kind, call.name("name").as_bytes());
    let policy = policy.ok_or_else(ApiError::not_found)?;
    paging::one(call, describe(vhost.name(), &policy))
}

fn put_kind(call: &Call, kind: PolicyKind) -> Answer {
    let vhost = call.vhost()?;
    let object = call.object_with(&["pattern", "definition"])?;
    let policy = read(kind, call.name("name"), &object)?;
    let put = call.waking(|wakes| vhost.put_policy(policy, call.now, wakes))?;
    Ok(Reply::put(put))
}

fn delete_kind(call: &Call, kind: PolicyKind) -> Answer {
    let vhost = call.vhost()?;
    let name = call.name("name").as_bytes();
    match call.waking(|wakes| vhost.delete_policy(kind, name, call.now, wakes))? {
        true => Ok(Reply::NoContent),
        false => Err(ApiError::not_found()),
    }
}

fn list(call: &Call) -> Answer {
    list_all(call, PolicyKind::User)
}

fn list_operator(call: &Call) -> Answer {
    list_all(call, PolicyKind::Operator)
}

fn list_in_vhost(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    paging::list(call, described(&vhost, PolicyKind::User))
}

fn list_operator_in_vhost(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    paging::list(call, described(&vhost, PolicyKind::Operator))
}

fn get(call: &Call) -> Answer {
    get_kind(call, PolicyKind::User)
}

fn get_operator(call: &Call) -> Answer {
    get_kind(call, PolicyKind::Operator)
}

fn put(call: &Call) -> Answer {
    put_kind(call, PolicyKind::User)
}

fn put_operator(call: &Call) -> Answer {
    put_kind(call, PolicyKind::Operator)
}

fn delete(call: &Call) -> Answer {
    delete_kind(call, PolicyKind::User)
}

fn delete_operator(call: &Call) -> Answer {
    delete_kind(call, PolicyKind::Operator)
}
