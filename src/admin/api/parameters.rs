//! `/parameters` and `/global-parameters`: values kept for plugins and tools.

use axum::http::Method;
use serde_json::{Value, json};

use crate::broker::{Broker, Name, Parameter};

use super::call::Call;
use super::definitions::{self, Named};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, paging, route};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/parameters", Level::Policymaker, list),
    route(
        Method::GET,
        "/parameters/{component}",
        Level::Policymaker,
        list,
    ),
    route(
        Method::GET,
        "/parameters/{component}/{vhost}",
        Level::Policymaker,
        list,
    ),
    route(
        Method::GET,
        "/parameters/{component}/{vhost}/{name}",
        Level::Policymaker,
        get,
    ),
    route(
        Method::PUT,
        "/parameters/{component}/{vhost}/{name}",
        Level::Policymaker,
        put,
    ),
    route(
        Method::DELETE,
        "/parameters/{component}/{vhost}/{name}",
        Level::Policymaker,
        delete,
    ),
    route(
        Method::GET,
        "/global-parameters",
        Level::Policymaker,
        list_global,
    ),
    route(
        Method::GET,
        "/global-parameters/{name}",
        Level::Policymaker,
        get_global,
    ),
    route(
        Method::PUT,
        "/global-parameters/{name}",
        Level::Policymaker,
        put_global,
    ),
    route(
        Method::DELETE,
        "/global-parameters/{name}",
        Level::Policymaker,
        delete_global,
    ),
    route(
        Method::GET,
        "/cluster-name",
        Level::Management,
        cluster_name,
    ),
    route(
        Method::PUT,
        "/cluster-name",
        Level::Administrator,
        set_cluster_name,
    ),
];

/// The global parameter that holds the cluster's name.
pub(super) const CLUSTER_NAME: &str = "cluster_name";

/// The value that a parameter holds; what the broker keeps was JSON when it came.
pub(super) fn value_of(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or(Value::Null)
}

pub(super) fn describe(parameter: &Parameter) -> Value {
    let value = value_of(&parameter.value);
    match &parameter.vhost {
        Some(vhost) => json!({
            "value": value,
            "vhost": vhost.to_string(),
            "component": parameter.component,
            "name": parameter.name,
        }),
        None => json!({ "name": parameter.name, "value": value }),
    }
}

/// Of vhosts that the caller may look into; also what RabbitMQ keeps as parameters: operator policies and limits.
fn list(call: &Call) -> Answer {
    let vhosts = match call.names.contains_key("vhost") {
        true => vec![call.vhost()?],
        false => call.visible_vhosts(),
    };
    let component = call.name("component");
    let all = vhosts
        .iter()
        .flat_map(|vhost| definitions::export_parameters(call, vhost, Named::Yes));
    let is_meant = |parameter: &Value| {
        component.is_empty()
            || parameter.get("component").and_then(Value::as_str) == Some(component)
    };
    paging::list(call, all.filter(is_meant).collect())
}

fn find(call: &Call, vhost: Option<Name>) -> Result<Parameter, ApiError> {
    let (component, name) = (call.name("component"), call.name("name"));
    let value = call
        .broker()
        .parameters()
        .get(vhost.as_ref(), component, name);
    Ok(Parameter {
        vhost,
        component: component.to_owned(),
        name: name.to_owned(),
        value: value.ok_or_else(ApiError::not_found)?,
    })
}

fn get(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let all = definitions::export_parameters(call, &vhost, Named::Yes);
    let is = |parameter: &Value, field: &str| {
        parameter.get(field).and_then(Value::as_str) == Some(call.name(field))
    };
    let mut all = all.into_iter();
    let found = all.find(|parameter| is(parameter, "component") && is(parameter, "name"));
    paging::one(call, found.ok_or_else(ApiError::not_found)?)
}

fn get_global(call: &Call) -> Answer {
    if call.name("name") == CLUSTER_ID {
        return paging::one(call, cluster_id(call));
    }
    paging::one(call, describe(&find(call, None)?))
}

fn put_value(call: &Call, vhost: Option<Name>) -> Answer {
    let object = call.object_with(&["value"])?;
    let value = object.get("value").cloned().unwrap_or(Value::Null);
    let put = call.broker().parameters().put(Parameter {
        vhost,
        component: call.name("component").to_owned(),
        name: call.name("name").to_owned(),
        value: value.to_string(),
    })?;
    Ok(Reply::put(put))
}

/// Components whose values tools keep here; of RabbitMQ's own, policies and limits have paths of their own.
const COMPONENTS: [&str; 3] = ["shovel", "federation-upstream", "federation-upstream-set"];

fn put(call: &Call) -> Answer {
    let vhost = call.vhost()?.name().clone();
    call.object_with(&["value"])?;
    let component = call.name("component");
    if !COMPONENTS.contains(&component) {
        let reason = format!("Validation failed\n\ncomponent {component} not found\n");
        return Err(ApiError::bad_request(reason));
    }
    put_value(call, Some(vhost))
}

fn put_global(call: &Call) -> Answer {
    put_value(call, None)
}

fn delete_value(call: &Call, vhost: Option<Name>) -> Answer {
    let (component, name) = (call.name("component"), call.name("name"));
    let parameters = call.broker().parameters();
    match parameters.delete(vhost.as_ref(), component, name)? {
        true => Ok(Reply::NoContent),
        false => Err(ApiError::not_found()),
    }
}

fn delete(call: &Call) -> Answer {
    let vhost = call.vhost()?.name().clone();
    delete_value(call, Some(vhost))
}

fn delete_global(call: &Call) -> Answer {
    delete_value(call, None)
}

fn list_global(call: &Call) -> Answer {
    let all = global(call).into_iter().chain([cluster_id(call)]);
    paging::list(call, all.collect())
}

/// Those that were set: what a definitions file takes to other brokers.
pub(super) fn global(call: &Call) -> Vec<Value> {
    let all = call.broker().parameters().all();
    let set = all.iter().filter(|parameter| parameter.vhost.is_none());
    set.map(describe).collect()
}

fn cluster_id(call: &Call) -> Value {
    json!({ "name": CLUSTER_ID, "value": call.api.facts.cluster_id })
}

/// The global parameter that tells clusters apart; it is computed and cannot be set.
pub(super) const CLUSTER_ID: &str = "internal_cluster_id";

/// The name that was set, or the one that the settings give.
pub(super) fn cluster_name_of(call: &Call) -> Value {
    let set = set_cluster_name_of(call.broker());
    set.unwrap_or_else(|| call.api.facts.cluster_name.clone())
        .into()
}

/// The name that an operator gave.
pub(in crate::admin) fn set_cluster_name_of(broker: &Broker) -> Option<String> {
    let set = broker.parameters().get(None, "", CLUSTER_NAME)?;
    value_of(&set).as_str().map(str::to_owned)
}

fn cluster_name(call: &Call) -> Answer {
    Ok(Reply::Json(json!({ "name": cluster_name_of(call) })))
}

fn set_cluster_name(call: &Call) -> Answer {
    let object = call.object_with(&["name"])?;
    let Some(Value::String(name)) = object.get("name") else {
        return Err(ApiError::bad_request("name is not a string"));
    };
    call.broker().parameters().put(Parameter {
        vhost: None,
        component: String::new(),
        name: CLUSTER_NAME.to_owned(),
        value: Value::from(name.as_str()).to_string(),
    })?;
    Ok(Reply::NoContent)
}
