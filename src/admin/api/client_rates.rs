//! What clients do: the counters of channels, connections and vhosts under RabbitMQ's names, with their rates.
//!
//! Owns: which number stands under which name, and the numbers of one look at all clients. Sessions are asked for theirs
//! only while somebody looks at channels; what else is here is read from counters.
//! Bounds: a fixed count of numbers for each channel, connection and vhost.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::broker::{Broker, ClientCounts, ClientStatistics, Name, Vhost};
use crate::server::registry::{ConnectionEntry, Registry, Traffic};
use crate::session::ChannelView;

use super::connections::Seen;

/// A channel: the number of its connection, and its own.
type ChannelKey = (u64, u16);

/// Counters of a `T` with their names.
type Counters<T, const N: usize> = [(&'static str, fn(&T) -> u64); N];

const OF_CHANNEL: Counters<ChannelView, 12> = [
    ("ack", |channel| channel.delivered.acked),
    ("confirm", |channel| channel.published.confirmed),
    ("deliver", |channel| channel.delivered.delivered),
    ("deliver_get", |channel| channel.delivered.handed_over()),
    ("deliver_no_ack", |channel| {
        channel.delivered.delivered_no_ack
    }),
    ("drop_unroutable", |channel| channel.published.dropped),
    ("get", |channel| channel.delivered.fetched),
    ("get_empty", |channel| channel.delivered.fetched_empty),
    ("get_no_ack", |channel| channel.delivered.fetched_no_ack),
    ("publish", |channel| channel.published.received),
    ("redeliver", |channel| channel.delivered.redelivered),
    ("return_unroutable", |channel| channel.published.returned),
];

const OF_CONNECTION: Counters<Traffic, 2> = [
    ("recv_oct", |traffic| traffic.received_bytes),
    ("send_oct", |traffic| traffic.sent_bytes),
];

const OF_VHOST: Counters<ClientCounts, 3> = [
    ("confirm", |counts| counts.confirmed),
    ("drop_unroutable", |counts| counts.dropped),
    ("return_unroutable", |counts| counts.returned),
];

const TRAFFIC_OF_VHOST: Counters<ClientCounts, 2> = [
    ("recv_oct", |counts| counts.received_bytes),
    ("send_oct", |counts| counts.sent_bytes),
];

// req: MGMT-13
/// The numbers of all clients at one moment.
#[derive(Debug, Default)]
pub(super) struct ClientLook {
    channels: HashMap<ChannelKey, [u64; OF_CHANNEL.len()]>,
    connections: HashMap<u64, [u64; OF_CONNECTION.len()]>,
    vhosts: HashMap<Name, ClientCounts>,
}

impl ClientLook {
    /// Reads everything; `seen` are the sessions that were asked.
    pub(super) fn of(broker: &Broker, registry: &Registry, seen: &[Seen]) -> Self {
        let channels = seen.iter().flat_map(|(entry, view)| {
            let channels = view.channels.iter();
            channels.map(|channel| (key_of(entry, channel), numbers(&OF_CHANNEL, channel)))
        });
        let connections = registry.connections().into_iter();
        let connections =
            connections.map(|entry| (entry.id(), numbers(&OF_CONNECTION, &entry.traffic())));
        let traffic = TrafficByVhost::of(registry);
        let vhosts = broker.vhosts().into_iter();
        Self {
            channels: channels.collect(),
            connections: connections.collect(),
            vhosts: vhosts
                .map(|vhost| (vhost.name().clone(), traffic.counts(&vhost)))
                .collect(),
        }
    }
}

fn key_of(entry: &ConnectionEntry, channel: &ChannelView) -> ChannelKey {
    (entry.id(), channel.number)
}

fn numbers<T, const N: usize>(counters: &Counters<T, N>, of: &T) -> [u64; N] {
    counters.each_ref().map(|(_, read)| read(of))
}

/// What went over the sockets of all connections, to be told by vhost.
#[derive(Debug)]
pub(super) struct TrafficByVhost(HashMap<*const ClientStatistics, Traffic>);

impl TrafficByVhost {
    pub(super) fn of(registry: &Registry) -> Self {
        Self(registry.traffic_by_vhost())
    }

    /// What a vhost's clients did, with what those that are connected sent and got so far.
    pub(super) fn counts(&self, vhost: &Vhost) -> ClientCounts {
        let statistics = vhost.client_statistics();
        let mut counts = statistics.counts();
        if let Some(traffic) = self.0.get(&Arc::as_ptr(statistics)) {
            counts.received_bytes += traffic.received_bytes;
            counts.sent_bytes += traffic.sent_bytes;
        }
        counts
    }
}

/// The last two looks at all clients, with the time between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLooks<'a> {
    pub(super) last: &'a ClientLook,
    pub(super) before: &'a ClientLook,
    pub(super) seconds: Option<f64>,
}

impl ClientLooks<'_> {
    /// `message_stats` of a channel.
    pub(super) fn channel(&self, entry: &ConnectionEntry, channel: &ChannelView) -> Value {
        let key = key_of(entry, channel);
        let between = (self.last.channels.get(&key)).zip(self.before.channels.get(&key));
        let mut stats = Map::new();
        self.put(&mut stats, &OF_CHANNEL, channel, between);
        Value::Object(stats)
    }

    /// Adds what went over a connection's socket.
    pub(super) fn put_traffic(
        &self,
        object: &mut Map<String, Value>,
        entry: &ConnectionEntry,
        traffic: &Traffic,
    ) {
        let id = entry.id();
        let between = (self.last.connections.get(&id)).zip(self.before.connections.get(&id));
        self.put(object, &OF_CONNECTION, traffic, between);
    }

    /// Adds what a vhost's publishers were told to its `message_stats`.
    pub(super) fn put_told(
        &self,
        stats: &mut Map<String, Value>,
        vhost: &Vhost,
        now: &ClientCounts,
    ) {
        self.put_of_vhost(stats, &OF_VHOST, vhost, now);
    }

    /// Adds what went over the sockets of a vhost's connections.
    pub(super) fn put_traffic_of_vhost(
        &self,
        object: &mut Map<String, Value>,
        vhost: &Vhost,
        now: &ClientCounts,
    ) {
        self.put_of_vhost(object, &TRAFFIC_OF_VHOST, vhost, now);
    }

    fn put_of_vhost<const N: usize>(
        &self,
        object: &mut Map<String, Value>,
        counters: &Counters<ClientCounts, N>,
        vhost: &Vhost,
        now: &ClientCounts,
    ) {
        let at = |look: &ClientLook| Some(numbers(counters, look.vhosts.get(vhost.name())?));
        let (last, before) = (at(self.last), at(self.before));
        self.put(object, counters, now, last.as_ref().zip(before.as_ref()));
    }

    /// Adds each counter, and its rate between the two looks.
    fn put<T, const N: usize>(
        &self,
        object: &mut Map<String, Value>,
        counters: &Counters<T, N>,
        now: &T,
        between: Option<(&[u64; N], &[u64; N])>,
    ) {
        // What counts from 0 again is another of the same number or name, whose rate is not known yet.
        let between = between.filter(|(last, before)| {
            let mut pairs = last.iter().zip(before.iter());
            pairs.all(|(last, before)| last >= before)
        });
        for (at, (name, read)) in counters.iter().enumerate() {
            let rate = match between {
                Some((last, before)) => super::rates::rate(last[at], before[at], self.seconds),
                None => 0.0,
            };
            object.insert((*name).to_owned(), read(now).into());
            object.insert(format!("{name}_details"), json!({ "rate": rate }));
        }
    }
}
