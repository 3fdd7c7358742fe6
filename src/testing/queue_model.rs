//! The broker's queues against a model that says plainly what they must do.
//!
//! Owns: one run, and what is delivered in it. The commands are in `queue_model/commands.rs`, the model in `model.rs`,
//! the comparison after each command in `compare.rs`. A property test and the fuzz target `queue_ops` feed it.
//! What is checked: each message goes out once until it comes back; always the first that waits; marked
//! as redelivered exactly if somebody had it; to a consumer that may have it, of the highest priority;
//! never waiting while somebody may have it; counts agree; whoever has something to send is woken; what
//! stands first is gone when its time is over, on a made-up clock; what dies is dead-lettered once, with
//! its reason, from the queue that it died in; priorities decide what is first, and where one consumer is
//! served alone, it is the right one; a queue that drops duplicates has each key once; a look at a queue
//! shows what waits.
//! Panics at the first difference, with what was expected.

mod commands;
mod compare;
mod model;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::broker::{
    AckMode, Broker, BrokerLimits, BrokerSettings, Connection, Consumer, Delivery, Origin,
    OutboxItem, Publisher, QueueDeclare, SpillSettings, Waker, Wakes,
};

use super::disk::SimDisk;

use compare::number_of;
use model::{Bound, ModelChannel, ModelConsumer, ModelQueue, Outstanding};

const QUEUE_NAMES: [&[u8]; 2] = [b"one", b"two"];
/// Where dead letters go, if the run has them.
const DEAD_QUEUE: &[u8] = b"dead";
/// Time to live in a queue that has one, in milliseconds.
const TTL_MS: u64 = 20;
/// How many runs differ by their first octet.
#[cfg(test)]
const KIND_COUNT: u8 = 3 * 4 * 3 * 2 * 3;
const CHANNEL_COUNT: usize = 3;
/// More consumers than this are not started.
const CONSUMER_COUNT_MAX: usize = 12;
/// Bound of a bounded queue.
const LENGTH_COUNT_MAX: usize = 3;
/// Highest priority of a queue that has priorities; some messages have a higher one.
const PRIORITY_MAX: u8 = 2;
/// What a queue keeps in memory in some runs, in bytes: two messages at either end.
const QUEUE_MEMORY_BYTES_MAX: usize = 500;
/// Octets that make one command.
const COMMAND_BYTES: usize = 4;

/// Runs the commands that `input` stands for and compares after each of them.
///
/// # Panics
/// If the broker does anything that the model does not.
pub fn run(input: &[u8], now: Instant) {
    let [first, second, commands @ ..] = input else {
        return;
    };
    // Some runs have outboxes that are full after one or two messages.
    let outbox_bytes_max = match first % 3 {
        0 => 1,
        1 => 200,
        _ => 100_000,
    };
    // And some have queues of bounded length, of either kind.
    let bounds = match first / 3 % 4 {
        0 => [None, None],
        1 => [Some(Bound::DropHead), Some(Bound::RejectPublish)],
        2 => [Some(Bound::RejectPublishDlx), Some(Bound::DropHead)],
        _ => [Some(Bound::RejectPublish), None],
    };
    // Some let messages expire, at once or later, and some have a place for what dies.
    let ttls = match first / 12 % 3 {
        0 => [None, None],
        1 => [Some(TTL_MS), None],
        _ => [Some(0), Some(TTL_MS)],
    };
    let has_dead_letters = first / 36 % 2 == 1;
    // Some have priorities, some a single active consumer, some both.
    let kinds = match first / 72 % 3 {
        0 => [(None, false), (None, false)],
        1 => [(Some(PRIORITY_MAX), false), (None, true)],
        _ => [(Some(PRIORITY_MAX), true), (None, false)],
    };
    let queue = |at: usize| ModelQueue {
        bound: bounds[at],
        ttl_ms: ttls[at],
        priority_max: kinds[at].0,
        is_single_active: kinds[at].1,
        has_keys: second / 3 % 2 == 1 && at == 0,
        ..ModelQueue::default()
    };
    let queues = [queue(0), queue(1)];
    // And some keep hardly anything in memory, on a disk that may be full.
    let spill_bytes_max = match second % 3 {
        0 => None,
        1 => Some(u64::MAX),
        _ => Some(400),
    };
    let mut run = Run::new(
        outbox_bytes_max,
        queues,
        has_dead_letters,
        spill_bytes_max,
        now,
    );
    for command in commands.chunks_exact(COMMAND_BYTES) {
        if let [kind, a, b, c] = *command {
            run.step(kind, a.into(), b.into(), c.into());
        }
    }
    run.finish();
}

#[derive(Debug, Default)]
struct WokenFlag(AtomicBool);

impl Waker for WokenFlag {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Run {
    broker: Arc<Broker>,
    connection: Connection,
    publisher: Publisher,
    woken: Arc<WokenFlag>,
    wakes: Wakes,
    start: Instant,
    now: Instant,
    has_dead_letters: bool,
    has_spill: bool,
    queues: [ModelQueue; 2],
    channels: [ModelChannel; CHANNEL_COUNT],
    consumers: Vec<ModelConsumer>,
    cancelled_expected: Vec<usize>,
}

impl Run {
    fn new(
        outbox_bytes_max: usize,
        queues: [ModelQueue; 2],
        has_dead_letters: bool,
        spill_bytes_max: Option<u64>,
        now: Instant,
    ) -> Self {
        let mut settings = BrokerSettings::new([7; 32], now, 0);
        settings.limits = BrokerLimits {
            outbox_bytes_max,
            ..BrokerLimits::default()
        };
        settings.spill = spill_bytes_max.map(|bytes_max| {
            let disk = SimDisk::new();
            disk.set_capacity(Some(bytes_max));
            SpillSettings {
                disk: Arc::new(disk),
                dir: "/spill".into(),
                queue_bytes_max: QUEUE_MEMORY_BYTES_MAX,
                total_bytes_max: usize::MAX,
            }
        });
        let broker = Broker::open(settings, None, None).expect("nothing to recover");
        let user = broker
            .users()
            .authenticate(b"guest", b"guest", Origin::Loopback);
        let user = user.expect("the default user");
        let woken = Arc::<WokenFlag>::default();
        let waker = Arc::clone(&woken) as Arc<dyn Waker>;
        let connection = broker
            .connect(&user, b"/", waker)
            .expect("the default vhost");
        let run = Self {
            broker,
            connection,
            publisher: Publisher::new(),
            woken,
            wakes: Wakes::new(),
            start: now,
            now,
            has_dead_letters,
            has_spill: spill_bytes_max.is_some(),
            queues,
            channels: Default::default(),
            consumers: Vec::new(),
            cancelled_expected: Vec::new(),
        };
        run.declare_as(DEAD_QUEUE, Vec::new());
        for queue in 0..QUEUE_NAMES.len() {
            run.declare(queue);
        }
        run
    }

    fn declare(&self, queue: usize) {
        let overflow = match self.queues[queue].bound {
            Some(Bound::DropHead) => Some("drop-head"),
            Some(Bound::RejectPublish) => Some("reject-publish"),
            Some(Bound::RejectPublishDlx) => Some("reject-publish-dlx"),
            None => None,
        };
        let mut arguments = Vec::new();
        if let Some(overflow) = overflow {
            let length = FieldValue::from(LENGTH_COUNT_MAX as i64);
            arguments.push(("x-max-length", length));
            arguments.push(("x-overflow", FieldValue::from(overflow)));
        }
        if let Some(ttl_ms) = self.queues[queue].ttl_ms {
            arguments.push(("x-message-ttl", FieldValue::from(ttl_ms as i64)));
        }
        if let Some(max) = self.queues[queue].priority_max {
            arguments.push(("x-max-priority", FieldValue::from(i64::from(max))));
        }
        if self.queues[queue].is_single_active {
            arguments.push(("x-single-active-consumer", FieldValue::from(true)));
        }
        if self.queues[queue].has_keys {
            arguments.push(("x-message-deduplication", FieldValue::from(true)));
        }
        if self.has_dead_letters {
            arguments.push(("x-dead-letter-exchange", FieldValue::from("")));
            arguments.push(("x-dead-letter-routing-key", FieldValue::from("dead")));
        }
        self.declare_as(QUEUE_NAMES[queue], arguments);
    }

    fn declare_as(&self, name: &[u8], arguments: Vec<(&'static str, FieldValue)>) {
        let arguments = arguments.into_iter();
        let arguments = arguments.map(|(name, value)| (ShortString::from_static(name), value));
        let arguments: FieldTable = arguments.collect();
        let declare = QueueDeclare {
            name,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: &arguments,
        };
        let vhost = self.connection.vhost();
        vhost
            .queue_declare(&self.connection, &declare, self.now)
            .expect("a plain queue");
    }

    /// Milliseconds since the start.
    fn now_ms(&self) -> u64 {
        self.now.duration_since(self.start).as_millis() as u64
    }

    /// Takes what is to be sent, as a session would, until nothing more comes.
    fn drain(&mut self) {
        let outbox = Arc::clone(self.connection.outbox());
        let mut items = VecDeque::new();
        loop {
            let was_woken = self.woken.0.swap(false, Ordering::SeqCst);
            outbox.take(&mut items);
            if items.is_empty() {
                // What is read from disk may be for somebody.
                if self.broker.pager().turn(self.now) {
                    continue;
                }
                break;
            }
            assert!(was_woken, "there was something to send and nobody was told");
            let mut sent_bytes = 0;
            for item in items.drain(..) {
                match item {
                    OutboxItem::Deliver(deliveries) => {
                        sent_bytes += deliveries.cost_bytes();
                        for delivery in deliveries.messages {
                            self.delivered(&deliveries.consumer, delivery);
                        }
                    }
                    OutboxItem::Reply(_) => unreachable!("nobody asks"),
                    OutboxItem::ConsumerCancelled(consumer) => self.cancelled(&consumer),
                }
            }
            outbox.released(sent_bytes, self.now, &mut self.wakes);
            self.wakes.wake_all();
        }
        assert_eq!(outbox.bytes(), 0, "all was sent");
        assert!(
            self.cancelled_expected.is_empty(),
            "a consumer was not told"
        );
    }

    fn delivered(&mut self, consumer: &Arc<Consumer>, delivery: Delivery) {
        let at = self.position(consumer);
        let consumer = &self.consumers[at];
        let queue = &mut self.queues[consumer.queue];
        let now_ms = self.now.duration_since(self.start).as_millis() as u64;
        queue.expire(now_ms);
        let expected = queue.ready.pop_first();
        // What comes to the front of it and is over dies at once, and counts for no bound any more (RabbitMQ).
        queue.expire(now_ms);
        let found = (number_of(&delivery.message), delivery.redelivered);
        let seen = expected.map(|(rank, waiting)| (rank.number, waiting.redelivered));
        assert_eq!(Some(found), seen, "a delivery is the first that waits");
        let Some((rank, waiting)) = expected else {
            return;
        };
        let deadline_ms = waiting.deadline_ms;
        assert!(
            self.may_take(at),
            "a delivery beyond a limit, or after the end"
        );
        let priority = self.consumers[at].priority;
        for other in self.rivals_of(at) {
            assert!(
                other.priority <= priority,
                "somebody of higher priority could take it"
            );
        }
        let consumer = &self.consumers[at];
        if consumer.ack_mode == AckMode::Manual {
            self.channels[consumer.channel]
                .outstanding
                .push(Outstanding {
                    queue: consumer.queue,
                    life: self.queues[consumer.queue].life,
                    rank,
                    deadline_ms,
                    handle: Arc::clone(consumer.handle.queue()),
                    seq: delivery.seq,
                    consumer: Some(at),
                });
        }
    }

    fn cancelled(&mut self, consumer: &Arc<Consumer>) {
        let at = self.position(consumer);
        let expected = self
            .cancelled_expected
            .iter()
            .position(|expected| *expected == at);
        let expected = expected.expect("only who lost its queue is told");
        self.cancelled_expected.remove(expected);
    }

    fn position(&self, handle: &Arc<Consumer>) -> usize {
        let same = |consumer: &ModelConsumer| Arc::ptr_eq(&consumer.handle, handle);
        self.consumers
            .iter()
            .position(same)
            .expect("a consumer that was started")
    }

    /// Consumers of the same queue that could take a message and whose channel sets no limit of its
    /// own: room that such a limit just got is noticed a little later.
    fn rivals_of(&self, at: usize) -> impl Iterator<Item = &ModelConsumer> {
        let queue = self.consumers[at].queue;
        let rivals = self
            .consumers
            .iter()
            .enumerate()
            .filter(move |(other, rival)| {
                rival.queue == queue
                    && self.channels[rival.channel].count_max == 0
                    && self.may_take(*other)
            });
        rivals.map(|(_, rival)| rival)
    }

    fn may_take(&self, at: usize) -> bool {
        let consumer = &self.consumers[at];
        let queue = &self.queues[consumer.queue];
        if !consumer.is_alive || (queue.is_single_active && queue.active != Some(at)) {
            return false;
        }
        if consumer.ack_mode == AckMode::Automatic {
            return true;
        }
        let channel = &self.channels[consumer.channel];
        let own = channel
            .outstanding
            .iter()
            .filter(|out| out.consumer == Some(at))
            .count();
        let has_credit = consumer.prefetch_count_max == 0 || own < consumer.prefetch_count_max;
        has_credit && channel.has_room()
    }
}

#[cfg(test)]
mod tests;
