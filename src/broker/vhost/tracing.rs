//! The firehose: while it is on, a copy of each message that a client publishes or gets, for
//! `amq.rabbitmq.trace`.
//!
//! Owns: the switch of one vhost. Off, it costs one look at a flag for each message.
//! Copies of copies are not made: what came from the exchange itself is not traced.
//! Spec: RabbitMQ's firehose tracer; `spec/amqp.md`, "Firehose".

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use crate::amqp::field::{FieldArray, FieldTable, FieldValue, ShortString};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};

use super::super::message::Message;
use super::super::outbox::Wakes;
use super::super::route::{Route, more_keys};
use super::{Connection, Vhost};

/// The exchange that copies go to.
pub(super) const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";

/// A delivery that is traced.
#[derive(Clone, Copy, Debug)]
pub struct TracedDelivery<'a> {
    /// The channel that it goes to.
    pub channel: u16,
    /// The queue that it came from.
    pub queue: &'a [u8],
    /// The message.
    pub message: &'a Message,
    /// Whether it was handed to anybody before.
    pub redelivered: bool,
}

impl Vhost {
    /// Turns the firehose on or off, for this run; `VhostDetails` keep it for the next.
    pub fn set_tracing(&self, is_on: bool) {
        self.is_tracing.store(is_on, Ordering::Relaxed);
    }

    /// Whether the firehose is on.
    #[inline]
    #[must_use]
    pub fn is_tracing(&self) -> bool {
        self.is_tracing.load(Ordering::Relaxed)
    }

    /// Copies a message that a consumer or `basic.get` is handed.
    // req: TRACE-1
    pub fn trace_delivery(
        &self,
        to: &Connection,
        delivery: TracedDelivery<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let redelivered = FieldValue::LongInt(delivery.redelivered.into());
        let more = [("redelivered", redelivered)];
        let key = [b"deliver.", delivery.queue].concat();
        self.trace(
            to,
            delivery.channel,
            delivery.message,
            &key,
            more,
            now,
            wakes,
        );
    }

    /// Names of the queues of a route, for [`Self::trace_publish`].
    pub(super) fn traced_queues(route: &Route) -> FieldArray {
        let names = route
            .queues
            .iter()
            .map(|queue| text(queue.name().as_bytes()));
        names.collect()
    }

    /// Copies a message that was published.
    // req: TRACE-1
    pub(super) fn trace_publish(
        &self,
        by: &Connection,
        channel: u16,
        message: &Message,
        queues: FieldArray,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let key = [b"publish.", message.exchange()].concat();
        let more = [("routed_queues", FieldValue::Array(queues))];
        self.trace(by, channel, message, &key, more, now, wakes);
    }

    #[allow(clippy::too_many_arguments)] // all of them are in the copy
    fn trace<const COUNT: usize>(
        &self,
        connection: &Connection,
        channel: u16,
        message: &Message,
        key: &[u8],
        more: [(&'static str, FieldValue); COUNT],
        now: Instant,
        wakes: &mut Wakes,
    ) {
        if message.exchange() == TRACE_EXCHANGE.as_bytes() {
            return;
        }
        let Some(exchange) = self.exchange(TRACE_EXCHANGE.as_bytes()) else {
            return;
        };
        let content = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: 0,
            raw: Bytes::copy_from_slice(message.header()),
        };
        let properties = content.properties().unwrap_or_default();
        let mut headers = FieldTable::default();
        let mut put = |name: &'static str, value: FieldValue| {
            headers.insert(ShortString::from_static(name), value);
        };
        put("exchange_name", text(message.exchange()));
        put("routing_keys", routing_keys(message, &properties));
        put("properties", FieldValue::Table(describe(properties)));
        put("node", text(self.shared.node.as_bytes()));
        put("vhost", text(self.name.as_bytes()));
        put("connection", text(connection.name().as_bytes()));
        put("channel", FieldValue::LongInt(channel.into()));
        put("user", text(connection.user.name().as_bytes()));
        for (name, value) in more {
            put(name, value);
        }
        let own = Properties {
            headers: Some(headers),
            ..Properties::default()
        };
        let key = key.get(..255).unwrap_or(key);
        self.publish_own(&exchange, key, &own, message.owned_body(), now, wakes);
    }
}

/// The key, and those that `CC` and `BCC` added.
fn routing_keys(message: &Message, properties: &Properties) -> FieldValue {
    let copies = properties.headers.as_ref().and_then(|headers| {
        let (keys, _) = more_keys(headers).ok()?;
        Some(keys)
    });
    let keys = std::iter::once(text(message.routing_key()))
        .chain(copies.iter().flatten().map(|key| text(key.as_bytes())))
        .chain(message.hidden_keys().map(text));
    FieldValue::Array(keys.collect())
}

/// The properties that a message has, under RabbitMQ's names.
fn describe(properties: Properties) -> FieldTable {
    let mut table = FieldTable::default();
    let mut put = |name: &'static str, value: Option<FieldValue>| {
        if let Some(value) = value {
            table.insert(ShortString::from_static(name), value);
        }
    };
    let short = |value: Option<ShortString>| value.map(|value| text(value.as_bytes()));
    let number = |value: Option<u8>| value.map(|value| FieldValue::LongInt(value.into()));
    put("content_type", short(properties.content_type));
    put("content_encoding", short(properties.content_encoding));
    put("headers", properties.headers.map(FieldValue::Table));
    put("delivery_mode", number(properties.delivery_mode));
    put("priority", number(properties.priority));
    put("correlation_id", short(properties.correlation_id));
    put("reply_to", short(properties.reply_to));
    put("expiration", short(properties.expiration));
    put("message_id", short(properties.message_id));
    put(
        "timestamp",
        properties.timestamp.map(|seconds| {
            i32::try_from(seconds).map_or_else(
                |_| FieldValue::LongLongInt(i64::try_from(seconds).unwrap_or(i64::MAX)),
                FieldValue::LongInt,
            )
        }),
    );
    put("type", short(properties.message_type));
    put("user_id", short(properties.user_id));
    put("app_id", short(properties.app_id));
    put("cluster_id", short(properties.cluster_id));
    table
}

fn text(octets: &[u8]) -> FieldValue {
    FieldValue::LongString(Bytes::copy_from_slice(octets))
}
