//! `/exchanges`: what there is, declaring and deleting. Publishing is in `messages.rs`.

use axum::http::Method;
use serde_json::{Value, json};

use crate::broker::{Durability, Exchange, ExchangeCounts, ExchangeDeclare, ExchangeDelete, Vhost};

use super::call::{Call, flag, text};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, bindings, json as convert, paging, policies, route};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/exchanges", Level::Management, list),
    route(
        Method::GET,
        "/exchanges/{vhost}",
        Level::Management,
        list_in_vhost,
    ),
    route(
        Method::GET,
        "/exchanges/{vhost}/{name}",
        Level::Management,
        get,
    ),
    route(
        Method::PUT,
        "/exchanges/{vhost}/{name}",
        Level::Management,
        put,
    ),
    route(
        Method::DELETE,
        "/exchanges/{vhost}/{name}",
        Level::Management,
        delete,
    ),
    route(
        Method::GET,
        "/exchanges/{vhost}/{name}/bindings/source",
        Level::Management,
        from,
    ),
    route(
        Method::GET,
        "/exchanges/{vhost}/{name}/bindings/destination",
        Level::Management,
        to,
    ),
];

fn list(call: &Call) -> Answer {
    let vhosts = call.visible_vhosts();
    let exchanges = vhosts.iter().flat_map(|vhost| describe_all(vhost));
    paging::list(call, exchanges.collect())
}

fn list_in_vhost(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    paging::list(call, describe_all(&vhost))
}

fn describe_all(vhost: &Vhost) -> Vec<Value> {
    let mut exchanges = vhost.exchanges();
    exchanges.sort_unstable_by(|left, right| left.name().cmp(right.name()));
    let described = exchanges.iter().map(|exchange| describe(vhost, exchange));
    described.collect()
}

fn describe(vhost: &Vhost, exchange: &Exchange) -> Value {
    let policy = vhost.exchange_policy(exchange);
    json!({
        "name": exchange.name().to_string(),
        "vhost": vhost.name().to_string(),
        "type": exchange.kind().name(),
        "durable": exchange.durability() == Durability::Durable,
        "auto_delete": exchange.is_auto_delete(),
        "internal": exchange.is_internal(),
        "arguments": convert::from_table(exchange.arguments()),
        "policy": policies::name_of(policy.policy.as_ref()),
        "user_who_performed_action": maker(exchange),
        "message_stats": message_stats(&exchange.counts()),
    })
}

/// Who made it is not kept; what is there without being declared nobody made.
fn maker(exchange: &Exchange) -> &'static str {
    let name = exchange.name().as_bytes();
    match name.is_empty() || name.starts_with(b"amq.") {
        true => "rmq-internal",
        false => "unknown",
    }
}

/// What came to the exchange and what went from it; no rates are kept of it.
fn message_stats(counts: &ExchangeCounts) -> Value {
    let no_rate = json!({ "rate": 0.0 });
    json!({
        "publish_in": counts.came, "publish_in_details": no_rate,
        "publish_out": counts.went, "publish_out_details": no_rate,
    })
}

fn get(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let exchange = vhost.exchange(call.exchange_name("name").as_bytes());
    let mut object = describe(&vhost, &*exchange.ok_or_else(ApiError::not_found)?);
    if let Value::Object(object) = &mut object {
        object.insert("incoming".to_owned(), json!([]));
        object.insert("outgoing".to_owned(), json!([]));
    }
    paging::one(call, object)
}

fn put(call: &Call) -> Answer {
    let object = call.object()?;
    let arguments = convert::to_table(object.get("arguments"))?;
    let vhost = call.vhost()?;
    let name = call.broker_name("name")?;
    let connection = call.connect()?;
    let kind = match text(&object, "type")? {
        "" => "direct",
        kind => kind,
    };
    let is_new = vhost.exchange(name.as_bytes()).is_none();
    let declare = ExchangeDeclare {
        name: name.as_bytes(),
        kind: kind.as_bytes(),
        passive: false,
        durable: flag(&object, "durable")?,
        auto_delete: flag(&object, "auto_delete")?,
        internal: flag(&object, "internal")?,
        arguments: &arguments,
    };
    vhost.exchange_declare(&connection, &declare)?;
    Ok(match is_new {
        true => Reply::Created(None),
        false => Reply::NoContent,
    })
}

fn delete(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let name = call.exchange_name("name").as_bytes();
    vhost.exchange(name).ok_or_else(ApiError::not_found)?;
    let connection = call.connect()?;
    let delete = ExchangeDelete {
        name,
        if_unused: call
            .query
            .get("if-unused")
            .is_some_and(|value| value == "true"),
    };
    vhost.exchange_delete(&connection, &delete)?;
    Ok(Reply::NoContent)
}

fn from(call: &Call) -> Answer {
    bindings_of(call, bindings::End::Source)
}

fn to(call: &Call) -> Answer {
    bindings_of(call, bindings::End::Destination)
}

/// An exchange that is not there has none.
fn bindings_of(call: &Call, end: bindings::End) -> Answer {
    let vhost = call.vhost()?;
    let name = call.exchange_name("name");
    bindings::list_of_exchange(call, &vhost, name, end)
}
