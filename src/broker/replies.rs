//! Direct reply-to: answers that go straight to the channel that asked, without a queue.
//!
//! Owns: who waits for answers in a vhost, by the name that its requests carry. An answer is a message
//! published to the default exchange (or dead-lettered, or copied by `CC` there) with that name as key; it
//! is put into the asker's outbox, or dropped if the asker is gone. Names cannot be guessed and hold from
//! `basic.consume` of the pseudo-queue to its end.
//! Bound: [`REPLY_BYTES_MAX`](super::limits::REPLY_BYTES_MAX) of answers that an asker has not taken;
//! more are dropped.
//! Spec: RabbitMQ's `amq.rabbitmq.reply-to`; `spec/amqp.md` REPLYTO-1 to REPLYTO-4.

use std::sync::Arc;

use dashmap::DashMap;

use super::message::Message;
use super::name::Name;
use super::outbox::{Outbox, Wakes};

/// The pseudo-queue that a client consumes for answers, and names as `reply-to` of its requests.
pub const REPLY_QUEUE: &[u8] = b"amq.rabbitmq.reply-to";
/// What the names begin with that take its place in requests.
pub(crate) const REPLY_NAME_PREFIX: &str = "amq.rabbitmq.reply-to.";

/// Whether a queue's name belongs to direct reply-to: no real queue may have it.
#[must_use]
pub fn is_reply_queue(name: &[u8]) -> bool {
    name.starts_with(REPLY_QUEUE)
}

/// Whether a routing key is an asker's name.
pub(crate) fn is_reply_name(key: &[u8]) -> bool {
    key.starts_with(REPLY_NAME_PREFIX.as_bytes())
}

/// A channel that waits for answers.
#[derive(Debug)]
pub struct ReplyConsumer {
    name: Name,
    tag: Name,
    channel: u16,
    outbox: Arc<Outbox>,
}

impl ReplyConsumer {
    /// What its requests carry as `reply-to`.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its consumer tag.
    #[must_use]
    pub fn tag(&self) -> &Name {
        &self.tag
    }

    /// The channel of its connection.
    #[must_use]
    pub fn channel(&self) -> u16 {
        self.channel
    }

    /// Hands over an answer.
    pub(crate) fn answer(self: &Arc<Self>, message: &Message, wakes: &mut Wakes) {
        let taken = self
            .outbox
            .push_reply(Arc::clone(self), message.clone(), wakes);
        if !taken {
            tracing::debug!(consumer = %self.tag, "an answer is dropped: its asker is gone or does not read");
        }
    }
}

/// Who waits for answers in a vhost.
#[derive(Debug, Default)]
pub(crate) struct Replies(DashMap<Name, Arc<ReplyConsumer>>);

impl Replies {
    pub(crate) fn add(
        &self,
        name: Name,
        tag: Name,
        channel: u16,
        outbox: &Arc<Outbox>,
    ) -> Arc<ReplyConsumer> {
        let consumer = Arc::new(ReplyConsumer {
            name: name.clone(),
            tag,
            channel,
            outbox: Arc::clone(outbox),
        });
        self.0.insert(name, Arc::clone(&consumer));
        consumer
    }

    pub(crate) fn remove(&self, consumer: &ReplyConsumer) {
        self.0.remove(consumer.name.as_bytes());
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<Arc<ReplyConsumer>> {
        self.0.get(name).map(|consumer| Arc::clone(&consumer))
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::REPLY_BYTES_MAX;
    use super::super::tests::kit::{Client, broker};

    /// What an asker does not take is bounded; the rest is dropped, and what it takes makes room again.
    // req: REPLYTO-3
    #[test]
    fn answers_that_are_not_taken_are_bounded() {
        let broker = broker();
        let (mut asker, mut server) = (Client::new(&broker), Client::new(&broker));
        let vhost = asker.vhost();
        let consumer = vhost.consume_replies(&asker.connection, 1, b"tag");
        let name = consumer.name().to_string();
        let body = "x".repeat(100_000);
        for _ in 0..700 {
            server.publish("", &name, &body);
        }
        let bytes = asker.connection.outbox().bytes();
        let bounds = REPLY_BYTES_MAX..REPLY_BYTES_MAX + 2 * body.len();
        assert!(bounds.contains(&bytes), "{bytes}");
        assert!(asker.drain().len() < 700);
        assert_eq!(asker.connection.outbox().bytes(), 0);
        server.publish("", &name, "again");
        assert_eq!(asker.drain_texts(), ["tag:again"]);
        vhost.cancel_replies(&consumer);
        server.publish("", &name, "late");
        assert!(asker.drain().is_empty());
    }
}
