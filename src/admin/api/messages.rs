//! Publishing to an exchange, and taking or looking at messages of a queue.
//!
//! Bounds: [`MESSAGES_MAX`] messages of one answer, [`ANSWER_BYTES_MAX`] of their bodies. Content in the payload
//! store shows as its id and size: nobody reads ten gigabytes in a page.

use std::sync::Arc;

use axum::http::Method;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use crate::amqp::field::ShortString;
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};
use crate::amqp::reply::ReplyCode;
use crate::broker::{
    AckMode, Body, BodyRef, Get, Message, Peek, Publish, PublishOutcome, Publisher, Settle, Vhost,
};
use crate::journal::Lsn;
use crate::server::slowly;
use crate::session::check_message;

use super::call::{Call, text};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, json as convert, route, slow_route};

pub(super) const ROUTES: &[Route] = &[
    slow_route(
        Method::POST,
        "/exchanges/{vhost}/{name}/publish",
        Level::Management,
        publish,
    ),
    route(
        Method::POST,
        "/queues/{vhost}/{name}/get",
        Level::Management,
        get,
    ),
    route(
        Method::POST,
        "/queues/{vhost}/{name}/peek",
        Level::Management,
        peek,
    ),
];

/// Most messages of one answer.
const MESSAGES_MAX: usize = 1_000;
/// Bodies of one answer, in bytes; no more messages are taken beyond it.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Publishes one message; the answer comes when a confirm would.
// req: MGMT-10
fn publish(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let (is_routed, wait_for) = publish_one(call)?;
        call.api.wait_durable(wait_for).await?;
        Ok(Reply::Json(json!({ "routed": is_routed })))
    }
    .boxed()
}

/// Publishes; gives whether a queue took it, and where the journal has it.
fn publish_one(call: &Call) -> Result<(bool, Option<Lsn>), ApiError> {
    let keys = ["properties", "routing_key", "payload", "payload_encoding"];
    let object = call.object_with(&keys)?;
    let vhost = vhost_or_refused(call)?;
    let properties = match object.get("properties") {
        Some(Value::Object(properties)) => convert::to_properties(properties)?,
        // As some clients write an empty object.
        Some(Value::Array(array)) if array.is_empty() => convert::to_properties(&Map::new())?,
        _ => return Err(ApiError::bad_request("properties are not an object")),
    };
    let payload = object.get("payload").and_then(Value::as_str);
    let payload = payload.ok_or_else(|| ApiError::bad_request("payload_not_string"))?;
    let body = match text(&object, "payload_encoding")? {
        "string" => Bytes::copy_from_slice(payload.as_bytes()),
        "base64" => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(payload);
            Bytes::from(decoded.map_err(|_| ApiError::bad_term("not_base64", payload))?)
        }
        other => return Err(ApiError::bad_term("unsupported_encoding", other)),
    };
    let routing_key = text(&object, "routing_key")?;
    if routing_key.len() > crate::broker::limits::NAME_BYTES_MAX {
        return Err(ApiError::bad_request("a routing key may have 255 bytes"));
    }
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: body.len() as u64,
        raw: properties.encode(),
    };
    // RabbitMQ lets these pass; here memory and disk stay within their bounds whatever clients do.
    if let Some(reason) = call.broker().alarms().reason() {
        return Err(ApiError::short_of(reason));
    }
    let checked = check_message(&content, call.user()?, &vhost, call.api.message_bytes_max());
    checked.map_err(|(code, text)| refused_publish(code, &text))?;
    let connection = call.connect()?;
    let properties = content
        .properties_ref()
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let publish = Publish {
        exchange: call.exchange_name("name").as_bytes(),
        routing_key: routing_key.as_bytes(),
        header: &content.raw,
        properties: &properties,
        body: Body::Inline(body),
    };
    let published = call.waking(|wakes| {
        let publisher = &mut Publisher::new();
        vhost.publish(&connection, publisher, publish, call.now, wakes)
    });
    match published {
        Ok(published) => match published.outcome {
            PublishOutcome::Routed { wait_for } => Ok((true, wait_for)),
            PublishOutcome::Unroutable => Ok((false, None)),
            PublishOutcome::Rejected => {
                let reason = "rejected Unable to publish message. Check queue limits.";
                Err(ApiError::bad_request(reason))
            }
        },
        Err(error) => {
            let code = error.reply_code();
            Err(refused_publish(code, &code.text(&error)))
        }
    }
}

/// RabbitMQ opens the vhost before it looks at anything in it, and tells no more of one that is not there.
fn vhost_or_refused(call: &Call) -> Result<Arc<Vhost>, ApiError> {
    call.vhost().map_err(|_| ApiError::access_refused())
}

/// RabbitMQ shows what its channel was closed with.
fn refused_publish(code: ReplyCode, text: &ShortString) -> ApiError {
    ApiError::bad_request(format!("{} {text}", code.number()))
}

/// How bodies are to be shown.
struct Shown {
    as_base64: bool,
    truncate_bytes: usize,
}

impl Shown {
    fn of(object: &Map<String, Value>) -> Result<Self, ApiError> {
        let as_base64 = match text(object, "encoding")? {
            "auto" | "" => false,
            "base64" => true,
            _ => {
                let reason = "Unsupported encoding. Please use auto or base64.";
                return Err(ApiError::bad_request(reason));
            }
        };
        let truncate = object.get("truncate").and_then(|bytes| match bytes {
            Value::String(text) => text.parse().ok(),
            bytes => bytes.as_u64(),
        });
        let truncate = truncate.and_then(|bytes| usize::try_from(bytes).ok());
        Ok(Self {
            as_base64,
            truncate_bytes: truncate.unwrap_or(usize::MAX),
        })
    }

    fn message(&self, message: &Message, redelivered: bool, behind_count: usize) -> Value {
        let header = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: message.size_bytes(),
            raw: Bytes::copy_from_slice(message.header()),
        };
        let properties = header.properties_ref();
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
        put("payload_bytes", message.size_bytes().into());
        put("redelivered", redelivered.into());
        put("exchange", convert::lossy(message.exchange()).into());
        put("routing_key", convert::lossy(message.routing_key()).into());
        put("message_count", behind_count.into());
        let properties =
            properties.map_or_else(|_| json!({}), |read| convert::from_properties(&read));
        put("properties", properties);
        match message.body() {
            BodyRef::Inline(body) => {
                let shown = body.get(..self.truncate_bytes).unwrap_or(body);
                match std::str::from_utf8(shown) {
                    Ok(text) if !self.as_base64 => {
                        put("payload", text.into());
                        put("payload_encoding", "string".into());
                    }
                    Ok(_) | Err(_) => {
                        let engine = base64::engine::general_purpose::STANDARD;
                        put("payload", engine.encode(shown).into());
                        put("payload_encoding", "base64".into());
                    }
                }
            }
            BodyRef::Payload(payload) => {
                put("payload", "".into());
                put("payload_encoding", "string".into());
                // Who asks sees what it would be stored as, and so it is.
                match slowly(|| payload.store()) {
                    Ok(id) => put("payload_id", id.to_string().into()),
                    Err(error) => tracing::debug!(%error, "a large body is shown without its id"),
                }
            }
        }
        Value::Object(object)
    }
}

/// How many are asked for. RabbitMQ counts down to 0, so that below it there are as many as may be.
fn count(object: &Map<String, Value>) -> Result<usize, ApiError> {
    let asked = object.get("count").unwrap_or(&Value::Null);
    let count = match asked {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let count = count.ok_or_else(|| ApiError::bad_term("not_integer", asked.clone()))?;
    if count < 0.0 {
        return Ok(MESSAGES_MAX);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not below 0, and beyond the largest it is the largest"
    )]
    let count = count.ceil() as usize;
    Ok(count.min(MESSAGES_MAX))
}

fn get(call: &Call) -> Answer {
    let object = call.object_with(&["ackmode", "count", "encoding"])?;
    if text(&object, "ackmode")? == "peek" {
        return peek(call);
    }
    let (ack_mode, settle) = match text(&object, "ackmode")? {
        "ack_requeue_true" => (AckMode::Manual, Some(Settle::Requeue)),
        "reject_requeue_true" => (AckMode::Manual, Some(Settle::Requeue)),
        "reject_requeue_false" => (AckMode::Manual, Some(Settle::Discard)),
        "ack_requeue_false" => (AckMode::Automatic, None),
        other => return Err(ApiError::bad_request(format!("unknown ackmode {other}"))),
    };
    let (shown, count) = (Shown::of(&object)?, count(&object)?);
    let vhost = vhost_or_refused(call)?;
    let name = call.name("name").as_bytes();
    if vhost.queue(name).is_none() {
        let (name, vhost) = (call.name("name"), vhost.name());
        let reason = format!("NOT_FOUND - no queue '{name}' in vhost '{vhost}'");
        return Err(ApiError::missing(reason));
    }
    let connection = call.connect()?;
    let (mut messages, mut seqs) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    while messages.len() < count && bytes < ANSWER_BYTES_MAX {
        let get = Get {
            queue: name,
            ack_mode,
        };
        let got = call.waking(|wakes| vhost.get(&connection, get, call.now, wakes));
        // RabbitMQ shows the code of what its connection was closed with.
        let got = got.map_err(|error| match error.reply_code() {
            code @ ReplyCode::NotImplemented => {
                ApiError::bad_request(format!("{} {error}", code.number()))
            }
            _ => error.into(),
        });
        let (_, Some(got)) = got? else { break };
        seqs.push(got.seq);
        if let BodyRef::Inline(body) = got.message.body() {
            bytes += body.len() as u64;
        }
        messages.push(shown.message(&got.message, got.redelivered, got.remaining_count));
    }
    if let (Some(settle), Some(queue)) = (settle, vhost.queue(name)) {
        call.waking(|wakes| queue.settle(&seqs, settle, call.now, wakes));
    }
    Ok(Reply::Json(messages.into()))
}

/// Looks at messages from `offset` on without touching them.
fn peek(call: &Call) -> Answer {
    let object = call.object_with(&["count"])?;
    let (shown, count) = (Shown::of(&object)?, count(&object)?);
    let offset = object.get("offset").and_then(Value::as_u64).unwrap_or(0);
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let vhost = call.vhost()?;
    let queue = vhost.queue(call.name("name").as_bytes());
    let queue = queue.ok_or_else(ApiError::not_found)?;
    let connection = call.connect()?;
    vhost.check_read(&connection, queue.name().as_bytes())?;
    let waiting_count = queue.depth().ready_count;
    let peeked = queue.peek(Peek {
        body_bytes_max: shown.truncate_bytes,
        answer_bytes_max: usize::try_from(ANSWER_BYTES_MAX).unwrap_or(usize::MAX),
        ..Peek::new(offset, count)
    });
    let shown = peeked.iter().enumerate().map(|(index, peeked)| {
        let behind_count = waiting_count.saturating_sub(offset.saturating_add(index + 1));
        let mut object = shown.message(&peeked.message, peeked.redelivered, behind_count);
        if let Some(object) = object.as_object_mut() {
            object.insert("payload_bytes".to_owned(), peeked.size_bytes.into());
        }
        object
    });
    Ok(Reply::Json(shown.collect()))
}
