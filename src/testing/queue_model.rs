//! The broker's queues against a model that says plainly what they must do.
//!
//! Owns: commands made from bytes, the model, and the comparison after each command. A property test
//! and the fuzz target `queue_ops` feed it.
//! What is checked: each message goes out once until it comes back; always the first that waits; marked
//! as redelivered exactly if somebody had it; to a consumer that may have it, of the highest priority;
//! never waiting while somebody may have it; counts agree; whoever has something to send is woken; what
//! stands first is gone when its time is over, on a made-up clock; what dies is dead-lettered once, with
//! its reason, from the queue that it died in; priorities decide what is first, and where one consumer is
//! served alone, it is the right one; a queue that drops duplicates has each key once; a look at a queue
//! shows what waits.
//! Panics at the first difference, with what was expected.

mod model;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use crate::broker::{
    AckMode, Body, BodyRef, Broker, BrokerLimits, BrokerSettings, Connection, Consume, Consumer,
    Delivery, Error, Get, Message, MessageTraits, Origin, OutboxItem, Peek, Prefetch, Publish,
    PublishOutcome, Publisher, Queue, QueueDeclare, QueueDelete, RunOutcome, Settle, SpillSettings,
    Template, Waker, Wakes,
};

use super::disk::SimDisk;

use model::{Bound, ModelChannel, ModelConsumer, ModelQueue, Outstanding, Waiting};

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

    fn step(&mut self, kind: u8, a: usize, b: usize, c: usize) {
        let queue = a % QUEUE_NAMES.len();
        let channel = b % CHANNEL_COUNT;
        match kind % 19 {
            0..=2 => self.publish(queue, c),
            3 => (0..c % 20).for_each(|_| {
                self.publish(queue, c);
                self.wakes.wake_all();
                self.drain();
            }),
            4..=6 => self.consume(queue, channel, a / 2, c),
            7 => self.cancel(a),
            8 | 9 => self.get(queue, channel, c),
            10..=12 => self.settle(channel, a, c),
            13 => self.purge(queue),
            14 => self.set_qos(channel, c % 5),
            15..=17 => self.pass(c as u64 % 24),
            _ => match c % 4 {
                0 => self.close_channel(channel),
                1 => self.delete(queue),
                _ => self.settle(channel, a, c),
            },
        }
        self.wakes.wake_all();
        self.drain();
        self.check();
        self.check_dead();
    }

    /// Time passes, and the broker does what is due.
    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        while self
            .broker
            .poll_timeout()
            .is_some_and(|next| next <= self.now)
        {
            self.broker.handle_timeout(self.now, &mut self.wakes);
        }
    }

    /// Milliseconds since the start.
    fn now_ms(&self) -> u64 {
        self.now.duration_since(self.start).as_millis() as u64
    }

    /// Publishes a message, which may expire by itself.
    fn publish(&mut self, queue: usize, c: usize) {
        let now_ms = self.now_ms();
        let goes_at_once = self.queues[queue].ready.is_empty()
            && (0..self.consumers.len())
                .any(|at| self.consumers[at].queue == queue && self.may_take(at));
        let model = &mut self.queues[queue];
        let number = model.published_count;
        model.published_count += 1;
        let priority = (c / 4 % 4) as u8;
        let expiration_ms = c.is_multiple_of(4).then_some(c as u64 % 30);
        let lives_ms = [model.ttl_ms, expiration_ms].into_iter().flatten().min();
        let key = (c / 16 % 4) as u8;
        let is_duplicate = self.has_key(queue, key);
        let model = &mut self.queues[queue];
        if model.has_keys && key > 0 && !is_duplicate {
            model.keys.insert(number, key);
        }
        let is_refused = !is_duplicate && model.refuses();
        let expected = match is_refused {
            true => PublishOutcome::Rejected,
            false => PublishOutcome::Routed { wait_for: None },
        };
        if is_duplicate {
            // It is nowhere.
        } else if !is_refused {
            let waiting = Waiting {
                redelivered: false,
                deadline_ms: lives_ms.map(|lives_ms| now_ms + lives_ms),
                goes_at_once,
            };
            let rank = model.rank(priority, number);
            model.ready.insert(rank, waiting);
        } else if model.bound == Some(Bound::RejectPublishDlx) {
            model.dead.push(("maxlen", number));
        }
        if !goes_at_once && !is_duplicate {
            model.drop_excess();
            model.expire(now_ms);
        }
        let properties = Properties {
            expiration: expiration_ms.map(|ms| ShortString::truncated(ms.to_string())),
            priority: Some(priority),
            headers: (key > 0).then(|| {
                let key = FieldValue::from(i64::from(key));
                FieldTable::from([("x-deduplication-header", key)])
            }),
            ..Properties::default()
        };
        let content = ContentHeader::new(8, &properties);
        let publish = Publish {
            exchange: b"",
            routing_key: QUEUE_NAMES[queue],
            header: &content.raw,
            properties: &content.properties_ref().expect("just written"),
            body: Body::Inline(Bytes::copy_from_slice(&number.to_be_bytes())),
        };
        let connection = &self.connection;
        let (vhost, key) = (connection.vhost(), QUEUE_NAMES[queue]);
        // Every other message goes the way of those that repeat themselves, if it may.
        let goes_in_a_run = number.is_multiple_of(2);
        if goes_in_a_run && let Some(route) = vhost.way_of_run(&mut self.publisher, b"", key) {
            let traits = MessageTraits::of(publish.properties);
            let mut template = Template::new(b"", key, publish.header, traits);
            let body = Bytes::copy_from_slice(&number.to_be_bytes());
            let mut messages = vec![template.message(&body, &body)];
            let mut outcome = RunOutcome::default();
            vhost
                .publish_run(
                    route,
                    &mut messages,
                    self.now,
                    &mut self.wakes,
                    &mut outcome,
                )
                .expect("nothing is journalled");
            assert_eq!(outcome.outcomes().collect::<Vec<_>>(), [expected]);
            return;
        }
        let published = connection.vhost().publish(
            connection,
            &mut self.publisher,
            publish,
            self.now,
            &mut self.wakes,
        );
        assert_eq!(published.expect("the default exchange").outcome, expected);
    }

    /// Whether a message with this key waits or is out in a queue that drops duplicates.
    fn has_key(&self, queue: usize, key: u8) -> bool {
        let model = &self.queues[queue];
        let out = self
            .channels
            .iter()
            .flat_map(|channel| &channel.outstanding);
        let out = out
            .filter(|out| out.queue == queue && out.life == model.life)
            .map(|out| out.rank.number);
        let mut there = model.ready.keys().map(|rank| rank.number).chain(out);
        there.any(|number| model.keys.get(&number) == Some(&key))
    }

    fn consume(&mut self, queue: usize, channel: usize, mode: usize, c: usize) {
        let alive = self.consumers.iter().filter(|consumer| consumer.is_alive);
        if alive.clone().count() >= CONSUMER_COUNT_MAX {
            return;
        }
        let others = alive.filter(|other| other.queue == queue);
        let (exclusive, priority) = (mode % 8 == 7, (c / 8) as i64 % 3);
        let is_single_active = self.queues[queue].is_single_active;
        let is_refused = others.clone().any(|other| other.exclusive)
            || (exclusive && (is_single_active || others.count() > 0));
        let ack_mode = match mode % 3 {
            0 => AckMode::Automatic,
            _ => AckMode::Manual,
        };
        let arguments = FieldTable::from([("x-priority", FieldValue::from(priority))]);
        let consume = Consume {
            queue: QUEUE_NAMES[queue],
            channel: channel as u16 + 1,
            tag: b"tag",
            ack_mode,
            exclusive,
            arguments: &arguments,
            prefetch: Prefetch::of((c % 4) as u16),
            limiter: &self.channels[channel].limiter,
        };
        let vhost = self.connection.vhost();
        match vhost.consume(&self.connection, &consume, self.now, &mut self.wakes) {
            Ok(handle) => {
                assert!(!is_refused, "an exclusive consumer has company");
                self.consumers.push(ModelConsumer {
                    handle,
                    queue,
                    channel,
                    ack_mode,
                    exclusive,
                    prefetch_count_max: c % 4,
                    priority,
                    is_alive: true,
                });
                let active = &mut self.queues[queue].active;
                *active = active.or(is_single_active.then_some(self.consumers.len() - 1));
            }
            Err(error) => {
                assert!(matches!(error, Error::ExclusiveUse { .. }), "{error}");
                assert!(is_refused, "nobody has the queue to himself");
            }
        }
    }

    fn cancel(&mut self, a: usize) {
        if self.consumers.is_empty() {
            return;
        }
        let at = a % self.consumers.len();
        let consumer = &mut self.consumers[at];
        consumer.is_alive = false;
        let handle = Arc::clone(&consumer.handle);
        self.choose_active();
        let vhost = self.connection.vhost();
        vhost
            .cancel(&handle, self.now, &mut self.wakes)
            .expect("no journal to fail");
    }

    /// Where the one that was served is gone, the next one is by priority, then by arrival.
    fn choose_active(&mut self) {
        for (at, queue) in self.queues.iter_mut().enumerate() {
            if queue
                .active
                .is_some_and(|active| !self.consumers[active].is_alive)
            {
                let consumers = self.consumers.iter().enumerate();
                let alive = consumers.filter(|(_, other)| other.queue == at && other.is_alive);
                let next = alive.max_by_key(|(index, other)| (other.priority, Reverse(*index)));
                queue.active = next.map(|(index, _)| index);
            }
        }
    }

    fn get(&mut self, queue: usize, channel: usize, c: usize) {
        let ack_mode = match c % 2 {
            0 => AckMode::Automatic,
            _ => AckMode::Manual,
        };
        let get = Get {
            queue: QUEUE_NAMES[queue],
            ack_mode,
        };
        let vhost = self.connection.vhost();
        let (handle, got) = vhost
            .get(&self.connection, get, self.now, &mut self.wakes)
            .expect("the queue is there");
        let now_ms = self.now_ms();
        self.queues[queue].expire(now_ms);
        let expected = self.queues[queue].ready.pop_first();
        self.queues[queue].expire(now_ms);
        let found = got
            .as_ref()
            .map(|got| (number_of(&got.message), got.redelivered));
        let seen = expected.map(|(rank, waiting)| (rank.number, waiting.redelivered));
        assert_eq!(found, seen, "get takes the first that waits");
        let (Some(got), Some((rank, waiting))) = (got, expected) else {
            return;
        };
        let remaining_count = self.queues[queue].ready.len();
        match self.has_spill {
            false => assert_eq!(got.remaining_count, remaining_count),
            // What lies on disk and is dead counts until it is read.
            true => assert!(got.remaining_count >= remaining_count),
        }
        if ack_mode == AckMode::Manual {
            self.channels[channel].outstanding.push(Outstanding {
                queue,
                life: self.queues[queue].life,
                rank,
                deadline_ms: waiting.deadline_ms,
                handle,
                seq: got.seq,
                consumer: None,
            });
        }
    }

    fn settle(&mut self, channel: usize, a: usize, c: usize) {
        let outstanding = &mut self.channels[channel].outstanding;
        if outstanding.is_empty() {
            return;
        }
        let at = a % outstanding.len();
        let settled: Vec<_> = match c % 2 {
            0 => vec![outstanding.remove(at)],
            _ => outstanding.drain(..=at).collect(),
        };
        let how = match c / 2 % 3 {
            0 => Settle::Ack,
            1 => Settle::Discard,
            _ => Settle::Requeue,
        };
        // One queue after the other, as a session does; room in the channel counts at once.
        let mut by_handle: Vec<(Arc<Queue>, Vec<Outstanding>)> = Vec::new();
        for out in settled {
            let same = |(handle, _): &&mut (Arc<Queue>, _)| Arc::ptr_eq(handle, &out.handle);
            match by_handle.iter_mut().find(same) {
                Some((_, of_queue)) => of_queue.push(out),
                None => by_handle.push((Arc::clone(&out.handle), vec![out])),
            }
        }
        for (handle, of_queue) in by_handle {
            for out in &of_queue {
                let queue = &mut self.queues[out.queue];
                if queue.life != out.life {
                    continue;
                }
                match how {
                    Settle::Ack => {}
                    Settle::Discard => queue.dead.push(("rejected", out.rank.number)),
                    Settle::Requeue | Settle::Return | Settle::Untouched => {
                        queue.ready.insert(out.rank, out.back());
                    }
                }
            }
            for queue in &mut self.queues {
                queue.drop_excess();
            }
            let seqs: Vec<_> = of_queue.iter().map(|out| out.seq).collect();
            handle.settle(&seqs, how, self.now, &mut self.wakes);
            self.wakes.wake_all();
            self.drain();
        }
    }

    fn purge(&mut self, queue: usize) {
        let expected = std::mem::take(&mut self.queues[queue].ready).len();
        let vhost = self.connection.vhost();
        let purged = vhost.queue_purge(&self.connection, QUEUE_NAMES[queue]);
        assert_eq!(purged.expect("the queue is there") as usize, expected);
    }

    fn set_qos(&mut self, channel: usize, count_max: usize) {
        let channel = &mut self.channels[channel];
        channel.count_max = count_max as u32;
        channel
            .limiter
            .set(count_max as u32, 0, self.now, &mut self.wakes);
    }

    fn close_channel(&mut self, channel: usize) {
        let mut handles = Vec::new();
        for consumer in &mut self.consumers {
            if consumer.channel == channel && consumer.is_alive {
                consumer.is_alive = false;
                handles.push(Arc::clone(&consumer.handle));
            }
        }
        self.choose_active();
        let model = std::mem::take(&mut self.channels[channel]);
        for out in &model.outstanding {
            let queue = &mut self.queues[out.queue];
            if queue.life == out.life {
                queue.ready.insert(out.rank, out.back());
            }
        }
        for queue in &mut self.queues {
            queue.drop_excess();
        }
        let unsettled = model
            .outstanding
            .iter()
            .map(|out| (Arc::clone(&out.handle), out.seq));
        let unsettled: Vec<_> = unsettled.collect();
        let number = channel as u16 + 1;
        let vhost = self.connection.vhost();
        vhost
            .close_channel(
                &self.connection,
                number,
                &handles,
                &unsettled,
                self.now,
                &mut self.wakes,
            )
            .expect("no journal to fail");
    }

    fn delete(&mut self, queue: usize) {
        let model = &mut self.queues[queue];
        let expected = std::mem::take(&mut model.ready).len();
        model.life += 1;
        model.published_count = 0;
        model.keys.clear();
        model.active = None;
        for (at, consumer) in self.consumers.iter_mut().enumerate() {
            if consumer.queue == queue && consumer.is_alive {
                consumer.is_alive = false;
                self.cancelled_expected.push(at);
            }
        }
        let delete = QueueDelete {
            name: QUEUE_NAMES[queue],
            if_unused: false,
            if_empty: false,
        };
        let vhost = self.connection.vhost();
        let deleted = vhost.queue_delete(&self.connection, &delete, &mut self.wakes);
        assert_eq!(deleted.expect("no condition") as usize, expected);
        self.declare(queue);
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

    /// Compares what can be seen from outside.
    fn check(&mut self) {
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
            let out = self
                .channels
                .iter()
                .flat_map(|channel| &channel.outstanding);
            let out = out
                .filter(|out| out.queue == at && out.life == model.life)
                .count();
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
    fn check_dead(&mut self) {
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
    fn finish(mut self) {
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

fn number_of(message: &Message) -> u64 {
    match message.body() {
        BodyRef::Inline(bytes) => u64::from_be_bytes(bytes.try_into().expect("eight octets")),
        BodyRef::Payload(_) => panic!("only short bodies were published"),
    }
}

#[cfg(test)]
mod tests;
