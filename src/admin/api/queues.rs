//! `/queues`: what there is, declaring, purging and deleting.

use std::sync::Arc;

use axum::http::Method;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use crate::broker::limits::NAME_BYTES_MAX;
use crate::broker::{
    ConsumerState, Durability, Queue, QueueDeclare, QueueDelete, QueueDepth, QueueKind, Vhost,
};

use super::call::{Call, flag, text};
use super::error::ApiError;
use super::paging::Fields;
use super::rates::Statistics;
use super::{
    Answer, Level, Reply, Route, bindings, channels, json as convert, paging, policies, route,
    slow_route, time,
};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/queues", Level::Management, list),
    route(Method::GET, "/queues/detailed", Level::Management, list),
    route(
        Method::GET,
        "/queues/{vhost}",
        Level::Management,
        list_in_vhost,
    ),
    slow_route(
        Method::GET,
        "/queues/{vhost}/{name}",
        Level::Management,
        get,
    ),
    route(
        Method::PUT,
        "/queues/{vhost}/{name}",
        Level::Management,
        put,
    ),
    route(
        Method::DELETE,
        "/queues/{vhost}/{name}",
        Level::Management,
        delete,
    ),
    route(
        Method::DELETE,
        "/queues/{vhost}/{name}/contents",
        Level::Management,
        purge,
    ),
    route(
        Method::POST,
        "/queues/{vhost}/{name}/actions",
        Level::Administrator,
        act,
    ),
    route(
        Method::GET,
        "/queues/{vhost}/{name}/bindings",
        Level::Management,
        bindings_to,
    ),
    route(
        Method::POST,
        "/rebalance/queues",
        Level::Administrator,
        rebalance,
    ),
];

fn list(call: &Call) -> Answer {
    let vhosts = call.visible_vhosts();
    let queues = vhosts.iter().flat_map(queues_of);
    answer(call, queues.collect())
}

fn list_in_vhost(call: &Call) -> Answer {
    answer(call, queues_of(&call.vhost()?))
}

/// A queue and where it is.
type Place = (Arc<Vhost>, Arc<Queue>);

fn queues_of(vhost: &Arc<Vhost>) -> Vec<Place> {
    let mut queues = vhost.queues();
    queues.sort_unstable_by(|left, right| left.name().cmp(right.name()));
    let places = queues.into_iter().map(|queue| (Arc::clone(vhost), queue));
    places.collect()
}

/// Of very many queues only those on the page that is asked for are described.
fn answer(call: &Call, places: Vec<Place>) -> Answer {
    let fields = Fields {
        name: &|(_, queue): &Place| queue.name().to_string(),
        field: &|place, path| field(call, place, path),
    };
    paging::list_by(call, places, &fields, |(vhost, queue)| {
        Value::Object(describe(call, &vhost, &queue))
    })
}

/// What lists are sorted by, for the usual fields without describing the queue.
fn field(call: &Call, (vhost, queue): &Place, path: &str) -> Option<Value> {
    let depth = |read: fn(&QueueDepth) -> u64| Some(read(&queue.depth()).into());
    match path {
        "name" => Some(queue.name().to_string().into()),
        "vhost" => Some(vhost.name().to_string().into()),
        "type" => Some(kind_name(queue.kind()).into()),
        "consumers" => depth(|depth| depth.consumer_count as u64),
        "messages" => depth(|depth| (depth.ready_count + depth.unacked_count) as u64),
        "messages_ready" => depth(|depth| depth.ready_count as u64),
        "messages_unacknowledged" => depth(|depth| depth.unacked_count as u64),
        "message_bytes" => depth(|depth| depth.ready_bytes + depth.unacked_bytes),
        path => match path.strip_prefix("message_stats.") {
            Some(path) => {
                let stats = Value::Object(call.api.rates.queue(queue).message_stats());
                paging::field(&stats, path).cloned()
            }
            None => {
                let described = Value::Object(describe(call, vhost, queue));
                paging::field(&described, path).cloned()
            }
        },
    }
}

fn get(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let vhost = call.vhost()?;
        let queue = vhost.queue(call.name("name").as_bytes());
        let queue = queue.ok_or_else(ApiError::not_found)?;
        let mut object = describe(call, &vhost, &queue);
        let states = queue.consumer_states();
        // Sessions are asked only if there is something to ask.
        let seen = match states.is_empty() {
            true => Vec::new(),
            false => call.api.registry.views().await,
        };
        let consumers = channels::consumers_at(call, &states, &seen);
        object.insert("consumer_details".to_owned(), consumers);
        object.insert("deliveries".to_owned(), json!([]));
        object.insert("incoming".to_owned(), json!([]));
        paging::one(call, Value::Object(object))
    }
    .boxed()
}

/// The type as `x-queue-type` names it.
pub(super) fn kind_name(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Classic => "classic",
        QueueKind::Quorum => "quorum",
        QueueKind::Stream => "stream",
    }
}

fn describe(call: &Call, vhost: &Vhost, queue: &Queue) -> Map<String, Value> {
    let statistics = call.api.rates.queue(queue);
    let depth = statistics.depth();
    let policy = vhost.queue_policy(queue);
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("name", queue.name().to_string().into());
    put("vhost", vhost.name().to_string().into());
    put("type", kind_name(queue.kind()).into());
    put(
        "durable",
        (queue.durability() == Durability::Durable).into(),
    );
    put("auto_delete", queue.is_auto_delete().into());
    put("exclusive", queue.owner().is_some().into());
    put("arguments", convert::from_table(queue.arguments()));
    put("node", call.api.facts.node.clone().into());
    put("state", "running".into());
    put("policy", policies::name_of(policy.policy.as_ref()));
    put(
        "operator_policy",
        policies::name_of(policy.operator_policy.as_ref()),
    );
    put(
        "effective_policy_definition",
        policies::definition(&policy.definition()),
    );
    let consumers = queue.consumer_states();
    put("consumers", consumers.len().into());
    put(
        "exclusive_consumer_tag",
        tag_of(&consumers, |state| state.consumer.is_exclusive()),
    );
    put(
        "single_active_consumer_tag",
        tag_of(&consumers, channels::is_single_active),
    );
    // A consumer that takes everything at once is what both of these mean by 1.
    let is_drained = !consumers.is_empty() && depth.ready_count == 0;
    put("consumer_capacity", u8::from(is_drained).into());
    put("consumer_utilisation", u8::from(is_drained).into());
    let (count, bytes) = (
        depth.ready_count + depth.unacked_count,
        depth.ready_bytes + depth.unacked_bytes,
    );
    let is_durable = queue.durability() == Durability::Durable;
    // Which of a durable queue's messages are persistent is not counted.
    let (kept_count, kept_bytes) = if is_durable { (count, bytes) } else { (0, 0) };
    for (name, number) in [
        ("messages_ram", count as u64),
        ("messages_ready_ram", depth.ready_count as u64),
        ("messages_unacknowledged_ram", depth.unacked_count as u64),
        ("messages_persistent", kept_count as u64),
        ("messages_paged_out", 0),
        ("message_bytes", bytes),
        ("message_bytes_ready", depth.ready_bytes),
        ("message_bytes_unacknowledged", depth.unacked_bytes),
        ("message_bytes_ram", bytes),
        ("message_bytes_persistent", kept_bytes),
        ("message_bytes_paged_out", 0),
        ("memory", 0),
        ("reductions", 0),
    ] {
        put(name, number.into());
    }
    put("reductions_details", json!({ "rate": 0.0 }));
    put("message_stats", Value::Object(statistics.message_stats()));
    if queue.kind() == QueueKind::Classic {
        let timestamp = queue.head_timestamp();
        put(
            "head_message_timestamp",
            timestamp.map_or(Value::Null, Value::from),
        );
    }
    if let Some(since) = call.api.rates.idle_since(queue) {
        put("idle_since", time::of_unix_ms(since).into());
    }
    put("garbage_collection", no_garbage());
    if queue.kind() == QueueKind::Classic {
        put(
            "backing_queue_status",
            backing_queue(queue, &depth, &statistics),
        );
        put("recoverable_slaves", Value::Null);
    }
    if queue.kind() != QueueKind::Classic {
        let node = &call.api.facts.node;
        put("leader", node.clone().into());
        put("members", json!([node]));
        put("online", json!([node]));
        match queue.kind() {
            QueueKind::Quorum => {
                put("open_files", json!({ node.as_str(): 0 }));
                put("messages_dlx", 0.into());
                put("message_bytes_dlx", 0.into());
                put("single_active_consumer_ctag", Value::Null);
            }
            QueueKind::Classic | QueueKind::Stream => {
                put("readers", json!({ node.as_str(): 0 }));
            }
        }
    }
    statistics.put_depth(&mut object);
    object
}

/// What RabbitMQ says of the inside of a classic queue, as far as there is something like it here.
fn backing_queue(queue: &Queue, depth: &QueueDepth, statistics: &Statistics) -> Value {
    let published = statistics.published_count();
    let mut status = json!({
        "mode": "default",
        "version": 1,
        "q1": 0, "q2": 0, "delta": ["delta", "undefined", 0, 0, "undefined"], "q3": 0,
        "q4": depth.ready_count,
        "len": depth.ready_count,
        "target_ram_count": "infinity",
        "next_seq_id": published,
        "next_deliver_seq_id": published,
        "avg_ingress_rate": 0.0, "avg_egress_rate": 0.0,
        "avg_ack_ingress_rate": 0.0, "avg_ack_egress_rate": 0.0,
    });
    if let (Some(lengths), Value::Object(status)) = (queue.priority_lengths(), &mut status) {
        let lengths = lengths.into_iter().enumerate();
        let lengths = lengths.map(|(priority, count)| (priority.to_string(), count.into()));
        let lengths = Value::Object(lengths.collect());
        status.insert("priority_lengths".to_owned(), lengths);
    }
    status
}

/// What RabbitMQ says of an Erlang process' memory; there are none here.
pub(super) fn no_garbage() -> Value {
    json!({
        "fullsweep_after": 0, "max_heap_size": 0, "min_bin_vheap_size": 0, "min_heap_size": 0,
        "minor_gcs": 0,
    })
}

fn tag_of(consumers: &[ConsumerState], is_it: impl Fn(&ConsumerState) -> bool) -> Value {
    let found = consumers.iter().find(|state| is_it(state));
    found.map_or(Value::Null, |state| state.consumer.tag().to_string().into())
}

fn put(call: &Call) -> Answer {
    let object = call.object()?;
    let arguments = convert::to_table(object.get("arguments"))?;
    let vhost = call.vhost()?;
    if call.name("name").len() > NAME_BYTES_MAX {
        let bytes = call.name("name").len();
        let reason = format!("queue should be less than 255 bytes, actually was {bytes}\n");
        return Err(ApiError::bad_request(reason));
    }
    let name = call.broker_name("name")?;
    let node = text(&object, "node")?;
    if !node.is_empty() && node != call.api.facts.node {
        let reason = format!("Node {node} could not be contacted");
        return Err(ApiError::bad_request(reason));
    }
    let connection = call.connect()?;
    let is_new = vhost.queue(name.as_bytes()).is_none();
    let declare = QueueDeclare {
        name: name.as_bytes(),
        passive: false,
        durable: flag(&object, "durable")?,
        exclusive: false,
        auto_delete: flag(&object, "auto_delete")?,
        arguments: &arguments,
    };
    vhost.queue_declare(&connection, &declare, call.now)?;
    Ok(match is_new {
        true => Reply::Created(None),
        false => Reply::NoContent,
    })
}

fn delete(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let name = call.name("name").as_bytes();
    vhost.queue(name).ok_or_else(ApiError::not_found)?;
    let connection = call.connect()?;
    let is_set = |flag: &str| call.query.get(flag).is_some_and(|value| value == "true");
    let delete = QueueDelete {
        name,
        if_unused: is_set("if-unused"),
        if_empty: is_set("if-empty"),
    };
    call.waking(|wakes| vhost.queue_delete(&connection, &delete, wakes))?;
    Ok(Reply::NoContent)
}

fn purge(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let name = call.name("name").as_bytes();
    vhost.queue(name).ok_or_else(ApiError::not_found)?;
    let connection = call.connect()?;
    vhost.queue_purge(&connection, name)?;
    Ok(Reply::NoContent)
}

/// `sync` and `cancel_sync` are about mirrors, of which there are none: nothing is left to do.
fn act(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    vhost
        .queue(call.name("name").as_bytes())
        .ok_or_else(ApiError::not_found)?;
    let object = call.object_with(&["action"])?;
    match object.get("action").and_then(Value::as_str) {
        Some("sync" | "cancel_sync") => Ok(Reply::NoContent),
        _ => Err(ApiError::bad_term(
            "unknown",
            object.get("action").cloned().unwrap_or_default(),
        )),
    }
}

/// All queues are at home on the only node.
fn rebalance(_: &Call) -> Answer {
    Ok(Reply::NoContent)
}

fn bindings_to(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    vhost
        .queue(call.name("name").as_bytes())
        .ok_or_else(ApiError::not_found)?;
    bindings::list_to_queue(call, &vhost, call.name("name"))
}
