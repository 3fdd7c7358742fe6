//! `/queues/{vhost}/{name}/move`: messages go from the front of one queue to the end of another of its vhost.
//!
//! Each message is published to the other queue through the default exchange before it is acknowledged in its own, in
//! the caller's name and with its rights: whatever happens in between, it is in one of the two, or in both; never in
//! none. What the other queue refuses stays where it was, and moving ends there.
//! Bounds: [`MESSAGES_MAX`] messages of one request and [`BYTES_MAX`] of their bodies; callers ask again for more.

use std::sync::Arc;

use axum::http::Method;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::broker::{
    AckMode, BodyRef, Connection, Get, Message, PublishOutcome, Queue, Settle, Vhost, Wakes,
};
use crate::journal::Lsn;

use super::call::{Call, text};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, slow_route};

pub(super) const ROUTES: &[Route] = &[slow_route(
    Method::POST,
    "/queues/{vhost}/{name}/move",
    Level::Management,
    move_messages,
)];

/// Most messages of one request.
const MESSAGES_MAX: u64 = 1_000;
/// Bodies that one request moves, in bytes; no further message is taken beyond it. Content in the payload store is not
/// touched and does not count.
const BYTES_MAX: u64 = 16 << 20;

/// Moves at most `count` messages to the queue `destination`; says how many went.
// req: MGMT-3
fn move_messages(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let (moved, wait_for) = run(call)?;
        call.api.wait_durable(wait_for).await?;
        Ok(Reply::Json(json!({ "moved": moved })))
    }
    .boxed()
}

/// Moves; gives how many went and where the journal has the last of them.
fn run(call: &Call) -> Result<(u64, Option<Lsn>), ApiError> {
    let object = call.object_with(&["destination"])?;
    let destination = text(&object, "destination")?;
    let count = match object.get("count") {
        None | Some(Value::Null) => MESSAGES_MAX,
        Some(count) => {
            let count = count.as_u64();
            count.ok_or_else(|| ApiError::bad_request("count is not a number"))?
        }
    };
    let vhost = call.vhost()?;
    let source = vhost.queue(call.name("name").as_bytes());
    let source = source.ok_or_else(ApiError::not_found)?;
    let destination = vhost.queue(destination.as_bytes()).ok_or_else(|| {
        let reason = format!("no queue '{destination}' in vhost '{}'", vhost.name());
        ApiError::missing(reason)
    })?;
    if destination.name() == source.name() {
        return Err(ApiError::bad_request("the destination is the queue itself"));
    }
    let connection = call.connect()?;
    let (mut moved, mut bytes, mut wait_for) = (0, 0, None);
    while moved < count.min(MESSAGES_MAX) && bytes < BYTES_MAX {
        let get = Get {
            queue: source.name().as_bytes(),
            ack_mode: AckMode::Manual,
        };
        let (_, got) = call.waking(|wakes| vhost.get(&connection, get, call.now, wakes))?;
        let Some(got) = got else { break };
        if let BodyRef::Inline(body) = got.message.body() {
            bytes += body.len() as u64;
        }
        let sent = call.waking(|wakes| {
            let message = &got.message;
            let sent = send(call, &vhost, &connection, &destination, message, wakes);
            let settle = match sent {
                Ok(_) => Settle::Ack,
                Err(_) => Settle::Untouched,
            };
            source.settle(&[got.seq], settle, call.now, wakes);
            sent
        });
        match sent {
            Ok(lsn) => wait_for = lsn.max(wait_for),
            // What went before is moved: that is said first, and the reason to whoever asks again.
            Err(_) if moved > 0 => break,
            Err(error) => return Err(error),
        }
        moved += 1;
    }
    Ok((moved, wait_for))
}

/// Publishes a message to a queue as it is, and to no other.
fn send(
    call: &Call,
    vhost: &Vhost,
    connection: &Connection,
    destination: &Arc<Queue>,
    message: &Message,
    wakes: &mut Wakes,
) -> Result<Option<Lsn>, ApiError> {
    let outcome = vhost.publish_to_queue(connection, destination, message, call.now, wakes)?;
    let destination = destination.name();
    match outcome {
        PublishOutcome::Routed { wait_for } => Ok(wait_for),
        PublishOutcome::Rejected => Err(ApiError::bad_request(format!(
            "queue '{destination}' is full and refuses messages"
        ))),
        PublishOutcome::Unroutable => Err(ApiError::missing(format!(
            "queue '{destination}' is no longer there"
        ))),
    }
}
