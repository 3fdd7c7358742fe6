//! `/queues/quorum`: the members of a quorum queue, of which there is one each: this node.
//!
//! Status is told as RabbitMQ tells it; a member more or less is an error that says why.

use axum::http::Method;
use serde_json::{Value, json};

use crate::broker::QueueKind;

use super::call::{Call, text};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, route};

pub(super) const ROUTES: &[Route] = &[
    route(
        Method::GET,
        "/queues/quorum/{vhost}/{name}/status",
        Level::Monitoring,
        status,
    ),
    route(
        Method::POST,
        "/queues/quorum/{vhost}/{name}/replicas/add",
        Level::Administrator,
        add,
    ),
    route(
        Method::DELETE,
        "/queues/quorum/{vhost}/{name}/replicas/delete",
        Level::Administrator,
        delete,
    ),
    route(
        Method::POST,
        "/queues/quorum/replicas/on/{node}/grow",
        Level::Administrator,
        grow,
    ),
    route(
        Method::DELETE,
        "/queues/quorum/replicas/on/{node}/shrink",
        Level::Administrator,
        shrink,
    ),
];

/// The queue that the path names, if it is a quorum queue.
fn check_queue(call: &Call) -> Result<(), ApiError> {
    let queue = call.vhost()?.queue(call.name("name").as_bytes());
    match queue.ok_or_else(ApiError::not_found)?.kind() {
        QueueKind::Quorum => Ok(()),
        QueueKind::Classic => Err(ApiError::bad_request("classic_queue_not_supported")),
        QueueKind::Stream => Err(ApiError::bad_request("stream_queue_not_supported")),
    }
}

/// Its one member leads it.
fn status(call: &Call) -> Answer {
    check_queue(call)?;
    Ok(Reply::Json(json!([{
        "Node Name": call.api.facts.node,
        "Raft State": "leader",
        "Membership": "voter",
        "Last Log Index": 0,
        "Last Written": 0,
        "Last Applied": 0,
        "Commit Index": 0,
        "Snapshot Index": 0,
        "Term": 1,
        "Machine Version": 0,
    }])))
}

/// The node that a body names.
fn named_node(call: &Call) -> Result<String, ApiError> {
    let object = call.object_with(&["node"])?;
    text(&object, "node").map(str::to_owned)
}

fn check_node(call: &Call, node: &str) -> Result<(), ApiError> {
    match node == call.api.facts.node {
        true => Ok(()),
        false => Err(ApiError::bad_request("node_not_running")),
    }
}

/// The only node there is has a member already.
fn add(call: &Call) -> Answer {
    check_queue(call)?;
    check_node(call, &named_node(call)?)?;
    Err(ApiError::bad_request("already_a_member"))
}

/// A queue without members would be none.
fn delete(call: &Call) -> Answer {
    check_queue(call)?;
    check_node(call, &named_node(call)?)?;
    Err(ApiError::bad_request("last_node"))
}

/// Everything has its member on the only node: nothing is left to do.
fn grow(call: &Call) -> Answer {
    check_node(call, call.name("node"))?;
    Ok(Reply::NoContent)
}

/// What could not be taken from the node: each quorum queue, since it has no other member.
fn shrink(call: &Call) -> Answer {
    check_node(call, call.name("node"))?;
    let vhosts = call.broker().vhosts();
    let queues = vhosts.iter().flat_map(|vhost| vhost.queues());
    let kept = queues.filter(|queue| queue.kind() == QueueKind::Quorum);
    let kept = kept.map(|queue| {
        json!({
            "vhost": queue.vhost().to_string(),
            "name": queue.name().to_string(),
            "result": "error",
            "reason": "last_node",
        })
    });
    Ok(Reply::Json(kept.collect::<Value>()))
}
