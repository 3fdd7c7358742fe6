//! Rates: what happened between the last two looks at the counters.
//!
//! Owns: the task that looks every [`INTERVAL`], and RabbitMQ's `message_stats` of queues with their rates. Sessions are
//! asked only while somebody looks at channels, and for [`WATCH_TIME`] after that.
//! Bound: two samples for each queue and each client, and [`HISTORY_COUNT_MAX`] of the whole.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Name, Queue, QueueCounts, QueueDepth, Vhost};
use crate::server::io_meter::IoMeter;
use crate::server::registry::Registry;

use super::client_rates::{ClientLook, ClientLooks};
use super::connections::Seen;
use super::{Api, node_counters};

/// Time between two looks, as RabbitMQ's statistics have it.
const INTERVAL: Duration = Duration::from_secs(5);
/// Samples of the whole that are kept: ten minutes.
const HISTORY_COUNT_MAX: usize = 121;
/// For so long after somebody has looked at channels their sessions are asked at each look.
const WATCH_TIME: Duration = Duration::from_secs(30);

/// The last two looks.
#[derive(Debug, Default)]
pub(in crate::admin) struct Rates {
    looks: RwLock<Looks>,
    /// When somebody looked at channels last.
    watched: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Looks {
    /// Samples of the whole with their times, in milliseconds since 1970, the oldest first.
    history: VecDeque<(u64, Sample)>,
    last: Look,
    before: Look,
}

#[derive(Debug, Default)]
struct Look {
    at: Option<Instant>,
    at_unix_ms: u64,
    queues: HashMap<u64, Sample>,
    vhosts: HashMap<Name, Sample>,
    /// Since when queues have been as they are, in milliseconds since 1970: those in which nothing happened between
    /// two looks.
    idle: HashMap<u64, u64>,
    total: Sample,
    node: HashMap<&'static str, u64>,
    clients: ClientLook,
}

/// What is looked at.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Sampled {
    broker: Arc<Broker>,
    registry: Arc<Registry>,
    meter: Arc<IoMeter>,
}

impl Api {
    /// What its rates are of.
    pub(in crate::admin) fn sampled(&self) -> Sampled {
        Sampled {
            broker: Arc::clone(&self.broker),
            registry: Arc::clone(&self.registry),
            meter: Arc::clone(&self.meter),
        }
    }
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Sample {
    counts: QueueCounts,
    depth: QueueDepth,
}

/// Looks until the broker stops.
pub(in crate::admin) async fn sample(
    rates: Arc<Rates>,
    sampled: Sampled,
    stopping: CancellationToken,
) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stopping.cancelled() => return,
        }
        let sampled = sampled.clone();
        let seen = match rates.is_watched() {
            true => sampled.registry.views().await,
            false => Vec::new(),
        };
        // Many queues take a while.
        let Ok(look) = tokio::task::spawn_blocking(move || look(&sampled, &seen)).await else {
            return;
        };
        rates.looks.write().add(look);
    }
}

fn look(sampled: &Sampled, seen: &[Seen]) -> Look {
    let Sampled {
        broker,
        registry,
        meter,
    } = sampled;
    let mut node = node_counters::read(broker, registry, meter);
    node.extend(node_counters::told(&broker.statistics().published()));
    let mut look = Look {
        at: Some(Instant::now()),
        at_unix_ms: unix_ms(),
        node: node.into_iter().collect(),
        clients: ClientLook::of(broker, registry, seen),
        ..Look::default()
    };
    for vhost in broker.vhosts() {
        let mut all = Sample::of_gone(&vhost);
        for queue in vhost.queues() {
            let sample = Sample::of(&queue);
            all.add(&sample);
            look.queues.insert(queue.id().0, sample);
        }
        look.total.add(&all);
        look.vhosts.insert(vhost.name().clone(), all);
    }
    look
}

impl Sample {
    pub(super) fn of(queue: &Queue) -> Self {
        Self {
            counts: queue.counts(),
            depth: queue.depth(),
        }
    }

    /// What happened in queues of a vhost that are gone.
    fn of_gone(vhost: &Vhost) -> Self {
        let mut sample = Self::default();
        for (_, counts) in vhost.counts_of_gone().iter() {
            sample.counts.add(counts);
        }
        sample
    }

    fn of_vhost(vhost: &Vhost) -> Self {
        let mut sample = Self::of_gone(vhost);
        for queue in vhost.queues() {
            sample.add(&Self::of(&queue));
        }
        sample
    }

    fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.depth = add(self.depth, other.depth);
    }
}

impl Rates {
    /// Begins anew.
    pub(super) fn forget(&self) {
        *self.looks.write() = Looks::default();
    }

    /// Somebody looks at channels: from the next look on, theirs are counted.
    pub(super) fn watch(&self) {
        *self.watched.lock() = Some(Instant::now());
    }

    fn is_watched(&self) -> bool {
        let watched = *self.watched.lock();
        watched.is_some_and(|at| at.elapsed() < WATCH_TIME)
    }

    /// Tells what clients do, by what they did between the last two looks.
    pub(super) fn clients<T>(&self, tell: impl FnOnce(&ClientLooks<'_>) -> T) -> T {
        let looks = self.looks.read();
        tell(&ClientLooks {
            last: &looks.last.clients,
            before: &looks.before.clients,
            seconds: looks.seconds(),
        })
    }

    /// A queue's statistics, with rates once it was looked at twice.
    pub(super) fn queue(&self, queue: &Queue) -> Statistics {
        let looks = self.looks.read();
        let id = queue.id().0;
        let samples = looks.last.queues.get(&id).zip(looks.before.queues.get(&id));
        Statistics {
            history: Vec::new(),
            now: Sample::of(queue),
            between: samples.map(|(last, before)| (*last, *before)),
            seconds: looks.seconds(),
        }
    }

    /// Since when nothing has happened in a queue, in milliseconds since 1970; none while something does.
    pub(super) fn idle_since(&self, queue: &Queue) -> Option<u64> {
        let looks = self.looks.read();
        let id = queue.id().0;
        let is_same = looks.last.queues.get(&id) == Some(&Sample::of(queue));
        looks.last.idle.get(&id).copied().filter(|_| is_same)
    }

    /// Statistics of a vhost.
    pub(super) fn vhost(&self, vhost: &Vhost) -> Statistics {
        let looks = self.looks.read();
        let at = |look: &Look| look.vhosts.get(vhost.name()).copied();
        Statistics {
            history: Vec::new(),
            now: Sample::of_vhost(vhost),
            between: at(&looks.last).zip(at(&looks.before)),
            seconds: looks.seconds(),
        }
    }

    /// Statistics of everything.
    pub(super) fn total(&self, broker: &Broker) -> Statistics {
        let mut now = Sample::default();
        for vhost in broker.vhosts() {
            now.add(&Sample::of_vhost(&vhost));
        }
        let looks = self.looks.read();
        Statistics {
            history: Vec::new(),
            now,
            between: Some((looks.last.total, looks.before.total)),
            seconds: looks.seconds(),
        }
    }

    /// The rate of one of the node's counters.
    pub(super) fn node(&self, name: &str) -> f64 {
        let looks = self.looks.read();
        let count = |look: &Look| look.node.get(name).copied().unwrap_or_default();
        rate(count(&looks.last), count(&looks.before), looks.seconds())
    }
}

/// The wall clock, in milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

impl Looks {
    fn add(&mut self, mut look: Look) {
        self.keep(look.at_unix_ms, look.total);
        for (id, sample) in &look.queues {
            if self.last.queues.get(id) == Some(sample) {
                let since = self.last.idle.get(id).copied();
                look.idle.insert(*id, since.unwrap_or(self.last.at_unix_ms));
            }
        }
        self.before = std::mem::replace(&mut self.last, look);
    }

    fn keep(&mut self, at_unix_ms: u64, total: Sample) {
        if self.history.len() >= HISTORY_COUNT_MAX {
            self.history.pop_front();
        }
        self.history.push_back((at_unix_ms, total));
    }

    /// Time between the looks; none if there were not two.
    fn seconds(&self) -> Option<f64> {
        let passed = self.last.at?.saturating_duration_since(self.before.at?);
        Some(passed.as_secs_f64()).filter(|seconds| *seconds > 0.0)
    }
}

/// Statistics of a queue, or of many.
#[derive(Clone, Debug)]
pub(super) struct Statistics {
    /// What was before, the latest first; empty unless it was asked for.
    history: Vec<(u64, Sample)>,
    now: Sample,
    between: Option<(Sample, Sample)>,
    seconds: Option<f64>,
}

/// Counters with RabbitMQ's names.
type Counter = (&'static str, fn(&QueueCounts) -> u64);

/// Sizes with RabbitMQ's names.
type Reader = (&'static str, fn(&QueueDepth) -> u64);

const COUNTERS: [Counter; 9] = [
    ("ack", |counts| counts.delivery.acked),
    ("deliver", |counts| counts.delivery.delivered),
    ("deliver_get", |counts| counts.delivery.handed_over()),
    ("deliver_no_ack", |counts| counts.delivery.delivered_no_ack),
    ("get", |counts| counts.delivery.fetched),
    ("get_empty", |counts| counts.delivery.fetched_empty),
    ("get_no_ack", |counts| counts.delivery.fetched_no_ack),
    ("publish", |counts| counts.published),
    ("redeliver", |counts| counts.delivery.redelivered),
];

impl Statistics {
    pub(super) fn depth(&self) -> QueueDepth {
        self.now.depth
    }

    /// Messages that came since the queue was declared.
    pub(super) fn published_count(&self) -> u64 {
        self.now.counts.published
    }

    /// `message_stats`: each counter, and its rate.
    pub(super) fn message_stats(&self) -> Map<String, Value> {
        let mut stats = Map::new();
        for (name, read) in COUNTERS {
            let rate = self.rate(|sample| read(&sample.counts));
            stats.insert(name.to_owned(), read(&self.now.counts).into());
            let details = self.details(rate, |sample| read(&sample.counts));
            stats.insert(format!("{name}_details"), details);
        }
        stats
    }

    /// `messages`, `messages_ready` and `messages_unacknowledged`, and their rates.
    pub(super) fn put_depth(&self, object: &mut Map<String, Value>) {
        let readers: [Reader; 3] = [
            ("messages", |depth| {
                (depth.ready_count + depth.unacked_count) as u64
            }),
            ("messages_ready", |depth| depth.ready_count as u64),
            ("messages_unacknowledged", |depth| {
                depth.unacked_count as u64
            }),
        ];
        for (name, read) in readers {
            let rate = self.rate(|sample| read(&sample.depth));
            object.insert(name.to_owned(), read(&self.now.depth).into());
            let details = self.details(rate, |sample| read(&sample.depth));
            object.insert(format!("{name}_details"), details);
        }
    }

    /// The same with the samples of the last ten minutes.
    pub(super) fn with_history(mut self, rates: &Rates) -> Self {
        self.history = rates.looks.read().history.iter().rev().copied().collect();
        self
    }

    /// A counter's rate, and its samples if they were asked for.
    fn details(&self, rate: f64, read: impl Fn(&Sample) -> u64) -> Value {
        if self.history.is_empty() {
            return json!({ "rate": rate });
        }
        let samples = self.history.iter();
        let samples =
            samples.map(|(at, sample)| json!({ "sample": read(sample), "timestamp": at }));
        json!({ "rate": rate, "samples": samples.collect::<Value>() })
    }

    fn rate(&self, read: impl Fn(&Sample) -> u64) -> f64 {
        match &self.between {
            Some((last, before)) => rate(read(last), read(before), self.seconds),
            None => 0.0,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate needs no exact count")]
pub(super) fn rate(last: u64, before: u64, seconds: Option<f64>) -> f64 {
    match seconds {
        Some(seconds) => (last as f64 - before as f64) / seconds,
        None => 0.0,
    }
}

fn add(left: QueueDepth, right: QueueDepth) -> QueueDepth {
    QueueDepth {
        ready_count: left.ready_count + right.ready_count,
        ready_bytes: left.ready_bytes + right.ready_bytes,
        unacked_count: left.unacked_count + right.unacked_count,
        unacked_bytes: left.unacked_bytes + right.unacked_bytes,
        consumer_count: left.consumer_count + right.consumer_count,
    }
}
