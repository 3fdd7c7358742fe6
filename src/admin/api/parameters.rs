//! `/parameters` and `/global-parameters`: values kept for plugins and tools.

use axum::http::Method;
use serde_json::{Value, json};

use crate::broker::{Broker, Name, Parameter};

use super::call::Call;
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
        Level::Administrator,
        put_global,
    ),
    route(
        Method::DELETE,
        "/global-parameters/{name}",
        Level::Administrator,
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

fn is_visible(call: &Call, parameter: &Parameter) -> bool {
    let vhost = parameter.vhost.as_ref();
    vhost.is_some_and(|vhost| {
        call.visible_vhosts()
            .iter()
            .any(|seen| seen.name() == vhost)
    })
}

fn list(call: &Call) -> Answer {
    if call.names.contains_key("vhost") {
        call.vhost()?;
    }
    let is_meant = |parameter: &Parameter| {
        let component = call.name("component");
        let vhost = call.name("vhost");
        is_visible(call, parameter)
            && (component.is_empty() || parameter.component == component)
            && (vhost.is_empty()
                || parameter.vhost.as_ref().map(Name::as_bytes) == Some(vhost.as_bytes()))
    };
    let all = call.broker().parameters().all();
    let meant = all.iter().filter(|parameter| is_meant(parameter));
    paging::list(call, meant.map(describe).collect())
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
    let vhost = call.vhost()?.name().clone();
    paging::one(call, describe(&find(call, Some(vhost))?))
}

fn get_global(call: &Call) -> Answer {
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

fn put(call: &Call) -> Answer {
    let vhost = call.vhost()?.name().clone();
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
    let all = call.broker().parameters().all();
    let global = all.iter().filter(|parameter| parameter.vhost.is_none());
    paging::list(call, global.map(describe).collect())
}

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
