//! What can be seen of the broker from outside, held against the model.
//!
//! Owns: the comparison after each command, and what must be left when all has ended.

use std::sync::Arc;

use bytes::Bytes;

use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};
use crate::broker::{AckMode, BodyRef, Get, Message, Peek, Queue};

use super::model::{ModelQueue, Outstanding};
use super::{CHANNEL_COUNT, DEAD_QUEUE, QUEUE_NAMES, Run};

impl Run {
    /// What is out of a queue in its present life, on any channel.
    pub(super) fn outstanding_of(&self, queue: usize) -> impl Iterator<Item = &Outstanding> {
        let life = self.queues[queue].life;
        let out = self.channels.iter();
        out.flat_map(|channel| &channel.outstanding)
            .filter(move |out| out.queue == queue && out.life == life)
    }

    /// Compares what can be seen from outside.
    pub(super) fn check(&mut self) {
        let now_ms = self.now_ms();
        for queue in &mut self.queues {
            queue.expire(now_ms);
        }
        for (at, name) in QUEUE_NAMES.iter().enumerate() {
            let model = &self.queues[at];
            let queue = self
                .connection
                .vhost()
                .queue(name)
                .expect("the queue is there");
            let depth = queue.depth();
            assert_eq!(depth.ready_count, model.ready.len());
            let out = self.outstanding_of(at).count();
            assert_eq!(depth.unacked_count, out);
            assert_eq!(depth.ready_bytes, 8 * model.ready.len() as u64);
            assert_eq!(depth.unacked_bytes, 8 * out as u64);
            let mut alive = Vec::new();
            for (consumer, model_consumer) in self.consumers.iter().enumerate() {
                if model_consumer.queue == at && model_consumer.is_alive {
                    alive.push(consumer);
                }
            }
            assert_eq!(depth.consumer_count, alive.len());
            if !model.ready.is_empty() {
                let idle = alive.iter().find(|consumer| self.may_take(**consumer));
                assert_eq!(
                    idle, None,
                    "a message waits for a consumer that waits for it"
                );
            }
            self.check_peek(&queue, model);
        }
    }

    /// Compares what a look at the queue shows: all of it, and a part with its bodies cut.
    fn check_peek(&self, queue: &Queue, model: &ModelQueue) {
        let waiting = model.ready.iter();
        let waiting: Vec<_> = waiting
            .map(|(rank, waiting)| (rank.number, waiting.redelivered))
            .collect();
        let peeked = queue.peek(Peek::new(0, usize::MAX));
        let peeked = peeked.iter();
        let peeked = peeked.map(|peeked| (number_of(&peeked.message), peeked.redelivered));
        assert!(
            peeked.eq(waiting.iter().copied()),
            "a look shows what waits"
        );
        let part = Peek {
            body_bytes_max: 3,
            ..Peek::new(waiting.len() / 3, 2)
        };
        let peeked = queue.peek(part);
        let shown = peeked.iter().map(|peeked| match peeked.message.body() {
            BodyRef::Inline(body) => (body.len(), peeked.size_bytes, peeked.redelivered),
            BodyRef::Payload(_) => panic!("only short bodies were published"),
        });
        let expected = waiting.iter().skip(part.offset).take(part.count);
        assert!(shown.eq(expected.map(|(_, redelivered)| (3, 8, *redelivered))));
    }

    /// Compares what died in this step with the dead letters, which are taken out.
    pub(super) fn check_dead(&mut self) {
        let mut expected = Vec::new();
        for (at, queue) in self.queues.iter_mut().enumerate() {
            let name = String::from_utf8_lossy(QUEUE_NAMES[at]).into_owned();
            let dead = queue.dead.drain(..);
            expected.extend(dead.map(|(reason, number)| (reason.to_owned(), name.clone(), number)));
        }
        if !self.has_dead_letters {
            return;
        }
        let mut found = Vec::new();
        let get = Get {
            queue: DEAD_QUEUE,
            ack_mode: AckMode::Automatic,
        };
        let vhost = Arc::clone(self.connection.vhost());
        while let (_, Some(got)) = vhost
            .get(&self.connection, get, self.now, &mut self.wakes)
            .expect("the queue is there")
        {
            found.push(death_of(&got.message));
        }
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "what died is dead-lettered, once");
    }

    /// Ends everything and looks for what is left over.
    pub(super) fn finish(mut self) {
        for channel in 0..CHANNEL_COUNT {
            self.close_channel(channel);
            self.wakes.wake_all();
            self.drain();
            self.check();
        }
        let vhost = Arc::clone(self.connection.vhost());
        vhost
            .disconnect(&self.connection, self.now, &mut self.wakes)
            .expect("no journal to fail");
        for name in QUEUE_NAMES {
            let depth = vhost.queue(name).expect("the queue is there").depth();
            assert_eq!((depth.unacked_count, depth.consumer_count), (0, 0));
        }
        let consumers = std::mem::take(&mut self.consumers);
        drop(self);
        for consumer in consumers {
            // Otherwise it would live for ever, and its queue with it.
            assert_eq!(
                Arc::strong_count(&consumer.handle),
                1,
                "somebody still holds a consumer"
            );
        }
    }
}

/// Reason, queue and number of a message that died once.
fn death_of(message: &Message) -> (String, String, u64) {
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 8,
        raw: Bytes::copy_from_slice(message.header()),
    };
    let headers = content.headers().expect("it has a history");
    let text = |name: &str| {
        let value = headers.get(name).expect("a first death");
        value.as_str().expect("a text").to_owned()
    };
    assert_eq!(message.expiration(), None, "a dead letter does not expire");
    let (reason, queue) = (text("x-first-death-reason"), text("x-first-death-queue"));
    (reason, queue, number_of(message))
}

pub(super) fn number_of(message: &Message) -> u64 {
    match message.body() {
        BodyRef::Inline(bytes) => u64::from_be_bytes(bytes.try_into().expect("eight octets")),
        BodyRef::Payload(_) => panic!("only short bodies were published"),
    }
}
