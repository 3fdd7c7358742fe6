//! Importing definitions: adds and changes, never deletes.
//!
//! Owns: the order, in which nothing comes before what it refers to, and what is passed over: queues and
//! exchanges that exist with other properties stay as they are, as in RabbitMQ. Anything that is wrong ends
//! the import with its name; what came before it stays.
//! Bounds: those of each kind of thing; the document's size is the API's.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::broker::policy::PolicyKind;
use crate::broker::{BindingRequest, Connection, ExchangeDeclare, Parameter, QueueDeclare, Vhost};

use super::call::{Call, flag, text, to_name};
use super::error::ApiError;
use super::limits::{self, Subject};
use super::{json as convert, parameters, permissions, policies, users, vhosts};

type Object = Map<String, Value>;

/// Imports a document, into one vhost if that is given.
// req: MGMT-5
pub(super) fn import(
    call: &Call,
    into: Option<&Arc<Vhost>>,
    document: &Object,
) -> Result<(), ApiError> {
    if into.is_none() {
        each(document, "users", |user| import_user(call, user))?;
        each(document, "vhosts", |vhost| {
            let name = to_name(text(vhost, "name")?)?;
            vhosts::put_vhost(call, &name, vhost).map(|_| ())
        })?;
        each(document, "permissions", |entry| {
            let (user, vhost) = (
                to_name(text(entry, "user")?)?,
                to_name(text(entry, "vhost")?)?,
            );
            permissions::put_permissions(call, &user, &vhost, entry).map(|_| ())
        })?;
        each(document, "topic_permissions", |entry| {
            let (user, vhost) = (
                to_name(text(entry, "user")?)?,
                to_name(text(entry, "vhost")?)?,
            );
            permissions::put_topic_permissions(call, &user, &vhost, entry).map(|_| ())
        })?;
        each(document, "global_parameters", |parameter| {
            // What another cluster is called by its machines is not for this one.
            if text(parameter, "name")? == parameters::CLUSTER_ID {
                return Ok(());
            }
            put_parameter(call, None, "", parameter)
        })?;
    }
    let vhost_of = |object: &Object| match into {
        Some(vhost) => Ok(Arc::clone(vhost)),
        None => {
            let name = text(object, "vhost")?;
            let vhost = call.broker().vhost(name.as_bytes());
            vhost.ok_or_else(|| ApiError::bad_term("no_such_vhost", name))
        }
    };
    each(document, "parameters", |parameter| {
        let vhost = vhost_of(parameter)?;
        import_parameter(call, &vhost, parameter)
    })?;
    each(document, "policies", |policy| {
        let (vhost, name) = (vhost_of(policy)?, text(policy, "name")?);
        let policy = policies::read(PolicyKind::User, name, policy)?;
        call.waking(|wakes| vhost.put_policy(policy, call.now, wakes))?;
        Ok(())
    })?;
    let mut connections = Connections::new(call);
    each(document, "queues", |queue| {
        let vhost = vhost_of(queue)?;
        let by = connections.to(&vhost)?;
        import_queue(call, &by, queue)
    })?;
    each(document, "exchanges", |exchange| {
        let vhost = vhost_of(exchange)?;
        let by = connections.to(&vhost)?;
        import_exchange(&by, exchange)
    })?;
    each(document, "bindings", |binding| {
        let vhost = vhost_of(binding)?;
        let by = connections.to(&vhost)?;
        import_binding(call, &by, binding)
    })
}

/// One connection to each vhost, in the name of who imports.
struct Connections<'a> {
    call: &'a Call,
    open: Vec<Arc<Connection>>,
}

impl<'a> Connections<'a> {
    fn new(call: &'a Call) -> Self {
        Self {
            call,
            open: Vec::new(),
        }
    }

    fn to(&mut self, vhost: &Vhost) -> Result<Arc<Connection>, ApiError> {
        let is_to = |open: &&Arc<Connection>| open.vhost().name() == vhost.name();
        if let Some(open) = self.open.iter().find(is_to) {
            return Ok(Arc::clone(open));
        }
        let connection = Arc::new(self.call.connect_to(vhost)?);
        self.open.push(Arc::clone(&connection));
        Ok(connection)
    }
}

/// Runs `import` for each object of a list; says which one failed.
fn each(
    document: &Object,
    key: &str,
    mut import: impl FnMut(&Object) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let objects = match document.get(key) {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(objects)) => objects,
        Some(_) => return Err(ApiError::bad_request(format!("{key} is not a list"))),
    };
    for object in objects {
        let Value::Object(object) = object else {
            return Err(ApiError::bad_request(format!(
                "an entry of {key} is not an object"
            )));
        };
        import(object).map_err(|error| {
            if error.is_term() {
                return error;
            }
            let name = object.get("name").and_then(Value::as_str).unwrap_or("?");
            ApiError::bad_request(format!("{key}: '{name}': {}", error.reason()))
        })?;
    }
    Ok(())
}

fn import_user(call: &Call, user: &Object) -> Result<(), ApiError> {
    let name = to_name(text(user, "name")?)?;
    users::put_user(call, &name, user)?;
    if let Some(Value::Object(set)) = user.get("limits") {
        let mut limits = crate::broker::Limits::default();
        for (limit, value) in set {
            limits::set(&mut limits, Subject::User, limit, value)?;
        }
        call.broker()
            .users()
            .put_user_limits(name.as_bytes(), limits)?;
    }
    Ok(())
}

fn put_parameter(
    call: &Call,
    vhost: Option<&Vhost>,
    component: &str,
    parameter: &Object,
) -> Result<(), ApiError> {
    let value = parameter.get("value").unwrap_or(&Value::Null);
    call.broker().parameters().put(Parameter {
        vhost: vhost.map(|vhost| vhost.name().clone()),
        component: component.to_owned(),
        name: text(parameter, "name")?.to_owned(),
        value: value.to_string(),
    })?;
    Ok(())
}

/// A parameter, or what RabbitMQ keeps as one.
fn import_parameter(call: &Call, vhost: &Vhost, parameter: &Object) -> Result<(), ApiError> {
    let component = text(parameter, "component")?;
    let value = parameter.get("value");
    match (component, value) {
        ("operator_policy", Some(Value::Object(value))) => {
            let name = text(parameter, "name")?;
            let policy = policies::read(PolicyKind::Operator, name, value)?;
            call.waking(|wakes| vhost.put_policy(policy, call.now, wakes))?;
            Ok(())
        }
        ("vhost-limits", Some(Value::Object(value))) => {
            let mut limits = vhost.details().limits.clone();
            for (limit, value) in value {
                limits::set(&mut limits, Subject::Vhost, limit, value)?;
            }
            vhost.change_details(|details| details.limits = limits)?;
            Ok(())
        }
        // An empty list is how RabbitMQ exports no limits.
        ("vhost-limits", Some(Value::Array(none))) if none.is_empty() => Ok(()),
        (component, _) => put_parameter(call, Some(vhost), component, parameter),
    }
}

fn import_queue(call: &Call, by: &Connection, queue: &Object) -> Result<(), ApiError> {
    let name = to_name(text(queue, "name")?)?;
    let vhost = by.vhost();
    if vhost.queue(name.as_bytes()).is_some() {
        return Ok(());
    }
    let arguments = convert::to_table(queue.get("arguments"))?;
    let declare = QueueDeclare {
        name: name.as_bytes(),
        passive: false,
        durable: flag(queue, "durable")?,
        exclusive: false,
        auto_delete: flag(queue, "auto_delete")?,
        arguments: &arguments,
    };
    vhost.queue_declare(by, &declare, call.now)?;
    Ok(())
}

fn import_exchange(by: &Connection, exchange: &Object) -> Result<(), ApiError> {
    let name = to_name(text(exchange, "name")?)?;
    let vhost = by.vhost();
    if name.is_empty() || vhost.exchange(name.as_bytes()).is_some() {
        return Ok(());
    }
    let arguments = convert::to_table(exchange.get("arguments"))?;
    let declare = ExchangeDeclare {
        name: name.as_bytes(),
        kind: text(exchange, "type")?.as_bytes(),
        passive: false,
        durable: flag(exchange, "durable")?,
        auto_delete: flag(exchange, "auto_delete")?,
        internal: flag(exchange, "internal")?,
        arguments: &arguments,
    };
    vhost.exchange_declare(by, &declare)?;
    Ok(())
}

fn import_binding(call: &Call, by: &Connection, binding: &Object) -> Result<(), ApiError> {
    let source = to_name(text(binding, "source")?)?;
    if source.is_empty() {
        return Ok(());
    }
    let destination = to_name(text(binding, "destination")?)?;
    let routing_key = to_name(text(binding, "routing_key")?)?;
    let arguments = convert::to_table(binding.get("arguments"))?;
    let request = BindingRequest {
        source: source.as_bytes(),
        destination: destination.as_bytes(),
        routing_key: routing_key.as_bytes(),
        arguments: &arguments,
    };
    let vhost = by.vhost();
    match text(binding, "destination_type")? {
        "queue" => call.waking(|wakes| vhost.queue_bind(by, &request, call.now, wakes))?,
        "exchange" => call.waking(|wakes| vhost.exchange_bind(by, &request, call.now, wakes))?,
        other => {
            let reason = format!("destination_type cannot be '{other}'");
            return Err(ApiError::bad_request(reason));
        }
    }
    Ok(())
}
