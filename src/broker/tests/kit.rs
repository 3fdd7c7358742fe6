//! What the broker's own tests share: a client without frames.
//!
//! Owns: shorthands for the calls of one connection, with what a session would pass.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::amqp::field::FieldTable;
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};

use super::super::*;

static NO_ARGUMENTS: FieldTable = FieldTable::EMPTY;

/// The start of the made-up clock.
#[allow(clippy::disallowed_methods)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn settings() -> BrokerSettings {
    BrokerSettings::new([7; 32], start(), 1_700_000_000_000)
}

/// A broker that forgets.
pub(crate) fn broker() -> Arc<Broker> {
    Broker::open(settings(), None, None).expect("nothing to recover")
}

pub(crate) struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

/// One connection of guest, with one channel.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) publisher: Publisher,
    pub(crate) limiter: Arc<ChannelLimiter>,
    pub(crate) wakes: Wakes,
    pub(crate) now: Instant,
}

/// Flags of a queue or exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flag {
    Durable,
    Exclusive,
    AutoDelete,
    Internal,
    Passive,
}

impl Client {
    pub(crate) fn new(broker: &Arc<Broker>) -> Self {
        let user = broker
            .users()
            .authenticate(b"guest", b"guest", Origin::Loopback);
        let user = user.expect("the default user");
        let connection = broker.connect(&user, b"/", Arc::new(NoWaker));
        Self {
            connection: connection.expect("the default vhost"),
            publisher: Publisher::new(),
            limiter: Arc::new(ChannelLimiter::counting_bytes()),
            wakes: Wakes::new(),
            now: broker.shared.timers.started() + Duration::from_secs(1),
        }
    }

    pub(crate) fn vhost(&self) -> Arc<Vhost> {
        Arc::clone(self.connection.vhost())
    }

    pub(crate) fn queue(&self, name: &str) -> Arc<Queue> {
        self.vhost()
            .queue(name.as_bytes())
            .expect("the queue is there")
    }

    pub(crate) fn declare(&self, name: &str, flags: &[Flag]) -> Result<QueueDeclared, Error> {
        self.declare_with(name, flags, FieldTable::EMPTY)
    }

    pub(crate) fn declare_with(
        &self,
        name: &str,
        flags: &[Flag],
        arguments: FieldTable,
    ) -> Result<QueueDeclared, Error> {
        let declare = QueueDeclare {
            name: name.as_bytes(),
            passive: flags.contains(&Flag::Passive),
            durable: flags.contains(&Flag::Durable),
            exclusive: flags.contains(&Flag::Exclusive),
            auto_delete: flags.contains(&Flag::AutoDelete),
            arguments: &arguments,
        };
        self.vhost()
            .queue_declare(&self.connection, &declare, self.now)
    }

    pub(crate) fn exchange(
        &self,
        name: &str,
        kind: &str,
        flags: &[Flag],
        arguments: FieldTable,
    ) -> Result<(), Error> {
        let declare = ExchangeDeclare {
            name: name.as_bytes(),
            kind: kind.as_bytes(),
            passive: flags.contains(&Flag::Passive),
            durable: flags.contains(&Flag::Durable),
            auto_delete: flags.contains(&Flag::AutoDelete),
            internal: flags.contains(&Flag::Internal),
            arguments: &arguments,
        };
        self.vhost().exchange_declare(&self.connection, &declare)
    }

    pub(crate) fn delete_exchange(&self, name: &str) -> Result<(), Error> {
        let delete = ExchangeDelete {
            name: name.as_bytes(),
            if_unused: false,
        };
        self.vhost().exchange_delete(&self.connection, &delete)
    }

    pub(crate) fn delete_queue(&mut self, name: &str) -> Result<u32, Error> {
        let delete = QueueDelete {
            name: name.as_bytes(),
            if_unused: false,
            if_empty: false,
        };
        self.vhost()
            .queue_delete(&self.connection, &delete, &mut self.wakes)
    }

    pub(crate) fn bind(&self, source: &str, queue: &str, key: &str) -> Result<(), Error> {
        self.bind_with(source, queue, key, &FieldTable::EMPTY)
    }

    pub(crate) fn bind_with(
        &self,
        source: &str,
        queue: &str,
        key: &str,
        arguments: &FieldTable,
    ) -> Result<(), Error> {
        let request = request(source, queue, key, arguments);
        let mut wakes = Wakes::new();
        self.vhost()
            .queue_bind(&self.connection, &request, self.now, &mut wakes)
    }

    pub(crate) fn unbind(&self, source: &str, queue: &str, key: &str) -> Result<(), Error> {
        let request = request(source, queue, key, &NO_ARGUMENTS);
        self.vhost().queue_unbind(&self.connection, &request)
    }

    pub(crate) fn bind_exchange(&self, source: &str, target: &str, key: &str) -> Result<(), Error> {
        let request = request(source, target, key, &NO_ARGUMENTS);
        let mut wakes = Wakes::new();
        self.vhost()
            .exchange_bind(&self.connection, &request, self.now, &mut wakes)
    }

    /// Publishes a short body without properties.
    pub(crate) fn publish(&mut self, exchange: &str, key: &str, body: &str) -> PublishOutcome {
        let published = self.publish_with(exchange, key, Properties::default(), inline(body));
        published.expect("the exchange is there").outcome
    }

    /// Publishes a short body that must survive.
    pub(crate) fn publish_persistent(
        &mut self,
        exchange: &str,
        key: &str,
        body: &str,
    ) -> PublishOutcome {
        let properties = Properties {
            delivery_mode: Some(2),
            ..Properties::default()
        };
        let published = self.publish_with(exchange, key, properties, inline(body));
        published.expect("the exchange is there").outcome
    }

    pub(crate) fn publish_with(
        &mut self,
        exchange: &str,
        key: &str,
        properties: Properties,
        body: Body,
    ) -> Result<Published, Error> {
        let content = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: 0,
            raw: properties.encode(),
        };
        let publish = Publish {
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            header: &content.raw,
            properties: &content.properties_ref().expect("just written"),
            body,
        };
        let vhost = self.vhost();
        vhost.publish(
            &self.connection,
            &mut self.publisher,
            publish,
            self.now,
            &mut self.wakes,
        )
    }

    /// Takes one message for good: its body, and whether it was delivered before.
    pub(crate) fn take(&self, queue: &str) -> Option<(String, bool)> {
        let got = self.get(queue, AckMode::Automatic)?;
        Some((text(&got.message), got.redelivered))
    }

    /// The bodies of all that waits, taken for good.
    pub(crate) fn take_all(&self, queue: &str) -> Vec<String> {
        std::iter::from_fn(|| self.take(queue))
            .map(|(body, _)| body)
            .collect()
    }

    pub(crate) fn get(&self, queue: &str, ack_mode: AckMode) -> Option<Got> {
        let get = Get {
            queue: queue.as_bytes(),
            ack_mode,
        };
        let (_, got) = self
            .vhost()
            .get(&self.connection, get, self.now, &mut Wakes::new())
            .expect("the queue is there");
        got
    }

    pub(crate) fn consume(
        &mut self,
        queue: &str,
        tag: &str,
        prefetch: u16,
    ) -> Result<Arc<Consumer>, Error> {
        let consume = Consume {
            queue: queue.as_bytes(),
            channel: 1,
            tag: tag.as_bytes(),
            ack_mode: AckMode::Manual,
            exclusive: false,
            arguments: &FieldTable::EMPTY,
            prefetch: Prefetch::of(prefetch),
            limiter: &self.limiter,
        };
        let vhost = Arc::clone(self.connection.vhost());
        vhost.consume(&self.connection, &consume, self.now, &mut self.wakes)
    }

    /// What is in the outbox, as sent.
    pub(crate) fn drain(&mut self) -> Vec<OutboxItem> {
        let mut items = VecDeque::new();
        let outbox = Arc::clone(self.connection.outbox());
        outbox.take(&mut items);
        let sent = items.iter().map(|item| match item {
            OutboxItem::Deliver(deliveries) => deliveries.cost_bytes(),
            OutboxItem::Reply(reply) => reply.cost_bytes(),
            OutboxItem::ConsumerCancelled(_) => 0,
        });
        outbox.released(sent.sum(), self.now, &mut self.wakes);
        items.into()
    }

    /// What is in the outbox, as `tag:body` or `tag cancelled`.
    pub(crate) fn drain_texts(&mut self) -> Vec<String> {
        let items = self.drain();
        items.iter().flat_map(texts_of).collect()
    }
}

/// What an item of an outbox says, as `tag:body` or `tag cancelled`.
pub(crate) fn texts_of(item: &OutboxItem) -> Vec<String> {
    match item {
        OutboxItem::Deliver(deliveries) => {
            let tag = deliveries.consumer.tag();
            let messages = deliveries.messages.iter();
            messages
                .map(|delivery| format!("{tag}:{}", text(&delivery.message)))
                .collect()
        }
        OutboxItem::Reply(reply) => {
            vec![format!("{}:{}", reply.consumer.tag(), text(&reply.message))]
        }
        OutboxItem::ConsumerCancelled(consumer) => vec![format!("{} cancelled", consumer.tag())],
    }
}

/// The deliveries among the items of an outbox, to be settled.
pub(crate) fn owed(items: &[OutboxItem]) -> Vec<(Arc<Queue>, MessageSeq)> {
    let deliveries = items.iter().filter_map(|item| match item {
        OutboxItem::Deliver(deliveries) => Some(deliveries),
        OutboxItem::Reply(_) | OutboxItem::ConsumerCancelled(_) => None,
    });
    deliveries
        .flat_map(|deliveries| {
            let messages = deliveries.messages.iter();
            messages.map(|delivery| (Arc::clone(deliveries.queue()), delivery.seq))
        })
        .collect()
}

pub(crate) fn inline(body: &str) -> Body {
    Body::Inline(Bytes::copy_from_slice(body.as_bytes()))
}

pub(crate) fn text(message: &Message) -> String {
    match message.body() {
        BodyRef::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        BodyRef::Payload(payload) => format!("payload of {} bytes", payload.size_bytes()),
    }
}

fn request<'a>(
    source: &'a str,
    destination: &'a str,
    key: &'a str,
    arguments: &'a FieldTable,
) -> BindingRequest<'a> {
    BindingRequest {
        source: source.as_bytes(),
        destination: destination.as_bytes(),
        routing_key: key.as_bytes(),
        arguments,
    }
}
