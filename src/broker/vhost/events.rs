//! The events of a vhost's own things, and the publish of all that waits.
//!
//! Spec: `spec/amqp.md`, "Events"; keys and headers as RabbitMQ 3.10.8 sends them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::Properties;

use super::super::binding::{Binding, Bindings};
use super::super::consumer::{AckMode, Consumer};
use super::super::definitions::PolicyRecord;
use super::super::events::{EVENT_EXCHANGE, EventHeaders, INTERNAL_USER, describe_binding};
use super::super::exchange::{Exchange, RouteInput};
use super::super::limits::EVENTS_AT_ONCE_MAX;
use super::super::message::{Body, Message, MessageTraits};
use super::super::outbox::Wakes;
use super::super::policy::PolicyValue;
use super::super::queue::{Durability, Queue};
use super::super::route::walk;
use super::{Connection, Vhost};

impl Vhost {
    /// Tells those who listen to `amq.rabbitmq.event` what happened. Costs one look at a flag while nobody
    /// listens.
    pub fn emit(&self, event: &'static str, fill: impl FnOnce(&mut EventHeaders)) {
        self.shared.events.emit(event, fill);
    }

    /// Publishes events that wait, some of them; the rest stays due.
    // req: EVENT-1
    pub(crate) fn publish_events(&self, now: Instant, wakes: &mut Wakes) {
        let Some(exchange) = self.exchange(EVENT_EXCHANGE.as_bytes()) else {
            return;
        };
        let unix_ms = self.unix_ms(now);
        for event in self.shared.events.take(EVENTS_AT_ONCE_MAX) {
            let mut headers = event.headers;
            headers.number("timestamp_in_ms", unix_ms);
            let properties = Properties {
                headers: Some(headers.into_table()),
                delivery_mode: Some(2),
                timestamp: Some(unix_ms / 1_000),
                ..Properties::default()
            };
            self.publish_own(
                &exchange,
                event.name.as_bytes(),
                &properties,
                Body::Inline(Bytes::new()),
                now,
                wakes,
            );
        }
    }

    /// Publishes a message of the broker's own. What no queue wants is gone.
    pub(super) fn publish_own(
        &self,
        exchange: &Arc<Exchange>,
        key: &[u8],
        properties: &Properties,
        body: Body,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let header = properties.encode();
        let traits = MessageTraits::of_header(&header);
        let message = Message::new(exchange.name().as_bytes(), key, &header, traits, body);
        let keys = [key];
        let input = RouteInput {
            message: Some(&message),
            unix_ms: self.unix_ms(now),
            ..RouteInput::new(&keys, properties.headers.as_ref())
        };
        let walked = walk(self, exchange, input);
        if let Err(error) = self.deliver_walked(message, walked, now, wakes) {
            tracing::debug!(exchange = %exchange.name(), %error, "the broker's own message was not kept");
        }
    }

    /// A binding was made; the first one from the event exchange turns events on.
    pub(super) fn binding_came(&self, topology: &Bindings, binding: &Binding, user: &[u8]) {
        self.watch_events(topology, binding);
        self.emit("binding.created", |headers| {
            describe_binding(headers, binding, self.name.as_bytes(), user);
        });
    }

    /// A binding is gone; the last one from the event exchange turns events off.
    pub(super) fn binding_went(&self, topology: &Bindings, binding: &Binding, user: &[u8]) {
        self.emit("binding.deleted", |headers| {
            describe_binding(headers, binding, self.name.as_bytes(), user);
        });
        self.watch_events(topology, binding);
    }

    /// Turns events on with the first binding from their exchange, and off with the last.
    pub(super) fn watch_events(&self, topology: &Bindings, binding: &Binding) {
        if binding.source().as_bytes() == EVENT_EXCHANGE.as_bytes() {
            let is_on = topology.has_source(binding.source());
            self.shared.events.set_on(is_on);
        }
    }

    pub(super) fn exchange_came(&self, exchange: &Exchange, user: &[u8]) {
        self.emit("exchange.created", |headers| {
            headers
                .text("name", exchange.name().as_bytes())
                .text("vhost", self.name.as_bytes())
                .text("type", exchange.kind().name())
                .put("durable", exchange.durability() == Durability::Durable)
                .put("auto_delete", exchange.is_auto_delete())
                .put("internal", exchange.is_internal())
                .terms("arguments", exchange.arguments())
                .text("policy", "")
                .text("user_who_performed_action", user);
        });
    }

    pub(super) fn exchange_went(&self, exchange: &Exchange, user: &[u8]) {
        self.emit("exchange.deleted", |headers| {
            headers
                .text("name", exchange.name().as_bytes())
                .text("vhost", self.name.as_bytes())
                .text("user_who_performed_action", user);
        });
    }

    pub(super) fn queue_came(&self, queue: &Queue, by: &Connection) {
        self.emit("queue.created", |headers| {
            let owner = match queue.owner() {
                Some(_) => by.pid(),
                None => String::new(),
            };
            headers
                .text("name", queue.name().as_bytes())
                .text("vhost", self.name.as_bytes())
                .put("durable", queue.durability() == Durability::Durable)
                .put("auto_delete", queue.is_auto_delete())
                .terms("arguments", queue.arguments())
                .text("owner_pid", owner)
                .put("exclusive", queue.owner().is_some())
                .text("user_who_performed_action", by.user.name().as_bytes());
        });
    }

    pub(super) fn queue_went(&self, queue: &Queue, user: &[u8]) {
        self.emit("queue.deleted", |headers| {
            headers
                .text("name", queue.name().as_bytes())
                .text("vhost", self.name.as_bytes())
                .text("user_who_performed_action", user);
        });
    }

    pub(super) fn consumer_came(&self, consumer: &Consumer) {
        self.emit("consumer.created", |headers| {
            self.describe_consumer(headers, consumer);
            headers
                .put("exclusive", consumer.is_exclusive())
                .put("ack_required", consumer.ack_mode() == AckMode::Manual)
                .number("prefetch_count", consumer.prefetch_count_max.into())
                .terms("arguments", consumer.arguments());
        });
    }

    /// A consumer is gone, by itself or with its channel or queue.
    pub(super) fn consumer_went(&self, consumer: &Consumer) {
        self.emit("consumer.deleted", |headers| {
            self.describe_consumer(headers, consumer);
        });
    }

    fn describe_consumer(&self, headers: &mut EventHeaders, consumer: &Consumer) {
        let (channel, user) = &consumer.by;
        headers
            .text("consumer_tag", consumer.tag().as_bytes())
            .text("channel", channel.as_bytes())
            .text("queue", consumer.queue().name().as_bytes())
            .text("vhost", self.name.as_bytes())
            .text("user_who_performed_action", user.as_bytes());
    }

    pub(super) fn policy_came(&self, record: &PolicyRecord) {
        if record.is_operator {
            return;
        }
        self.emit("policy.set", |headers| {
            let definition = record.definition.iter().map(|(key, value)| {
                let key = ShortString::truncated(key.clone());
                (key, policy_value(value))
            });
            headers
                .text("name", &record.name)
                .text("vhost", &record.vhost)
                .text("pattern", &record.pattern)
                .text("apply-to", &record.applies_to)
                .put("priority", record.priority)
                .put("definition", definition.collect::<FieldTable>())
                .text("user_who_performed_action", INTERNAL_USER);
        });
    }

    pub(super) fn policy_went(&self, name: &[u8], is_operator: bool) {
        if is_operator {
            return;
        }
        self.emit("policy.cleared", |headers| {
            headers
                .text("name", name)
                .text("vhost", self.name.as_bytes())
                .text("user_who_performed_action", INTERNAL_USER);
        });
    }
}

fn policy_value(value: &PolicyValue) -> FieldValue {
    match value {
        PolicyValue::Flag(flag) => FieldValue::Boolean(*flag),
        PolicyValue::Integer(number) => FieldValue::LongLongInt(*number),
        other => FieldValue::from(other.to_string()),
    }
}

impl Connection {
    /// Names the connection in events, as RabbitMQ names the process of one.
    #[must_use]
    pub fn pid(&self) -> String {
        format!("<{}.{}.0>", self.vhost.shared.node, self.id.0)
    }

    /// Names one of its channels in events.
    #[must_use]
    pub fn channel_pid(&self, channel: u16) -> String {
        format!("<{}.{}.{channel}>", self.vhost.shared.node, self.id.0)
    }

    /// What it is called, `127.0.0.1:1234 -> 127.0.0.1:5672`; empty until [`Self::set_name`].
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.get().map_or("", String::as_str)
    }

    /// Says what it is called, once.
    pub fn set_name(&self, name: String) {
        let first = self.name.set(name);
        debug_assert!(first.is_ok(), "a connection has one name");
    }
}
