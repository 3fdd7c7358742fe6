//! The commands that a run is made of: each is done to the broker and to the model, which says what must come of it.
//!
//! Owns: what the octets of a command mean ([`Run::step`]).

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::{ContentHeader, Properties};
use crate::broker::{
    AckMode, Body, Consume, Error, Get, MessageTraits, Prefetch, Publish, PublishOutcome, Queue,
    QueueDelete, RunOutcome, Settle, Template,
};

use super::compare::number_of;
use super::model::{Bound, ModelConsumer, Outstanding, Waiting};
use super::{CHANNEL_COUNT, CONSUMER_COUNT_MAX, QUEUE_NAMES, Run};

impl Run {
    pub(super) fn step(&mut self, kind: u8, a: usize, b: usize, c: usize) {
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
        let out = self.outstanding_of(queue).map(|out| out.rank.number);
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

    pub(super) fn close_channel(&mut self, channel: usize) {
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
}
