//! Collects what a page shows, at one moment.
//!
//! Owns: one row for each queue, channel and connection that a page names, or their sums. Queues are looked at once
//! each, under their own locks; sessions are asked only by pages that name channels.
//! Bounds: what there is of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::admin::api;
use crate::broker::{
    Alarm, Broker, ChurnCounts, CountsByKind, DeliveryCounts, DiskState, Durability, MemoryState,
    Name, Queue, QueueCounts, QueueDepth, Vhost,
};
use crate::config::SyncMode;
use crate::journal::QueueId;
use crate::payload::Store;
use crate::server::descriptors;
use crate::server::io_meter::{Area, AreaCounts, IoMeter};
use crate::server::peer::SwarmHandle;
use crate::server::registry::{Registry, Traffic};
use crate::session::{ChannelView, PublishOutcomes};

use super::text::Labels;
use super::write::Wanted;

/// Where everything comes from.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Sources {
    pub(in crate::admin) broker: Arc<Broker>,
    pub(in crate::admin) registry: Arc<Registry>,
    pub(in crate::admin) meter: Arc<IoMeter>,
    pub(in crate::admin) store: Store,
    pub(in crate::admin) swarm: SwarmHandle,
    pub(in crate::admin) started: Instant,
    /// What confirms wait for.
    pub(in crate::admin) sync: SyncMode,
    pub(in crate::admin) node: String,
    pub(in crate::admin) cluster_name: String,
    pub(in crate::admin) cluster_id: String,
    pub(in crate::admin) version: String,
    pub(in crate::admin) product: String,
}

impl Sources {
    /// What the broker calls itself, unless an operator has said otherwise.
    pub(super) fn cluster_name(&self) -> String {
        let set = api::set_cluster_name_of(&self.broker);
        set.unwrap_or_else(|| self.cluster_name.clone())
    }
}

/// The process and the broker as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeRow {
    pub(super) churn: ChurnCounts,
    pub(super) memory: MemoryState,
    pub(super) disk: DiskState,
    pub(super) memory_alarm: f64,
    pub(super) disk_alarm: f64,
    pub(super) files_open: f64,
    pub(super) files_max: f64,
    pub(super) sockets_open: f64,
    pub(super) tasks: f64,
    pub(super) uptime_seconds: f64,
    /// All areas together.
    pub(super) io: AreaCounts,
    pub(super) journal_io: AreaCounts,
    pub(super) connection_count: f64,
    pub(super) channel_count: f64,
    pub(super) consumer_count: f64,
    pub(super) queue_count: f64,
}

/// A queue, or all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueRow {
    pub(super) vhost: String,
    pub(super) name: String,
    pub(super) depth: QueueDepth,
    pub(super) counts: QueueCounts,
    /// What durable queues hold.
    kept: (u64, u64),
    id: QueueId,
    /// When its first message was published, in seconds since 1970, if that is known.
    pub(super) head_timestamp: Option<u64>,
}

impl QueueRow {
    fn of(vhost: &Vhost, queue: &Queue) -> Self {
        let depth = queue.depth();
        let is_durable = queue.durability() == Durability::Durable;
        let mut row = Self {
            vhost: vhost.name().to_string(),
            name: queue.name().to_string(),
            depth,
            counts: queue.counts(),
            kept: (0, 0),
            id: queue.id(),
            head_timestamp: None,
        };
        if is_durable {
            row.kept = (row.message_count(), row.message_bytes());
        }
        row
    }

    fn add(&mut self, other: &Self) {
        let (depth, more) = (&mut self.depth, &other.depth);
        depth.ready_count += more.ready_count;
        depth.ready_bytes += more.ready_bytes;
        depth.unacked_count += more.unacked_count;
        depth.unacked_bytes += more.unacked_bytes;
        depth.consumer_count += more.consumer_count;
        self.counts.add(&other.counts);
        self.kept.0 += other.kept.0;
        self.kept.1 += other.kept.1;
    }

    pub(super) fn message_count(&self) -> u64 {
        (self.depth.ready_count + self.depth.unacked_count) as u64
    }

    pub(super) fn message_bytes(&self) -> u64 {
        self.depth.ready_bytes + self.depth.unacked_bytes
    }

    /// 1 if whoever consumes takes everything at once, as in `/api/queues`.
    pub(super) fn consumer_capacity(&self) -> u64 {
        u64::from(self.depth.consumer_count > 0 && self.depth.ready_count == 0)
    }

    /// Messages of durable queues: which of them are persistent is not counted.
    pub(super) fn kept_count(&self) -> u64 {
        self.kept.0
    }

    /// Their bytes.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept.1
    }

    /// What was got from it and published into it that no open channel has counted: by channels that are gone, and by the
    /// broker itself.
    pub(super) fn rest(&self, clients: &Clients) -> (DeliveryCounts, u64) {
        let (of_channels, published) = clients.by_queue.get(&self.id).copied().unwrap_or_default();
        let delivery = self.counts.delivery.without(&of_channels);
        (delivery, self.counts.published.saturating_sub(published))
    }

    fn labels(&self) -> String {
        Labels::of([("vhost", &self.vhost), ("queue", &self.name)])
    }
}

/// A channel, or all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct ChannelRow {
    /// RabbitMQ shows a process there; a name says more.
    pub(super) name: String,
    pub(super) vhost: String,
    pub(super) consumer_count: u64,
    pub(super) unacked_count: u64,
    pub(super) unconfirmed_count: u64,
    pub(super) uncommitted_count: u64,
    pub(super) uncommitted_ack_count: u64,
    pub(super) prefetch_count: u64,
    pub(super) global_prefetch_count: u64,
}

/// Counts with the labels that they stand at.
#[derive(Clone, Debug)]
pub(super) struct Labelled<Counts> {
    pub(super) vhost: String,
    /// The queue that they have to do with, if it is one.
    pub(super) queue: Option<Name>,
    pub(super) labels: String,
    pub(super) counts: Counts,
}

/// A connection, or all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionRow {
    pub(super) name: String,
    pub(super) traffic: Traffic,
    pub(super) channel_count: u64,
}

/// Channels and connections by name, from their sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    pub(super) channels: Vec<ChannelRow>,
    pub(super) connections: Vec<ConnectionRow>,
    /// What was published, by channel and exchange.
    pub(super) at_exchanges: Vec<Labelled<PublishOutcomes>>,
    /// What was got from queues, by channel and queue.
    pub(super) from_queues: Vec<Labelled<DeliveryCounts>>,
    /// What was published into queues, by channel, exchange and queue.
    pub(super) into_queues: Vec<Labelled<u64>>,
    /// The sums of the last two, by queue.
    pub(super) by_queue: HashMap<QueueId, (DeliveryCounts, u64)>,
}

impl Clients {
    pub(super) async fn gather(broker: &Broker, registry: &Registry) -> Self {
        let mut clients = Self::default();
        for (entry, view) in registry.views().await {
            let Some(vhost) = &view.vhost else { continue };
            let name = entry.name();
            clients.connections.push(ConnectionRow {
                name: name.clone(),
                traffic: entry.traffic(),
                channel_count: view.channels.len() as u64,
            });
            for channel in &view.channels {
                clients.add(broker, &name, vhost, channel);
            }
        }
        clients
    }

    fn add(&mut self, broker: &Broker, connection: &str, vhost: &Name, channel: &ChannelView) {
        let name = format!("{connection} ({})", channel.number);
        let vhost_name = vhost.to_string();
        let vhost = broker.vhost(vhost.as_bytes());
        // A queue that is gone takes what was counted with it, as in RabbitMQ.
        let is_there = |queue: &Name, id: QueueId| {
            let found = vhost
                .as_ref()
                .and_then(|vhost| vhost.queue(queue.as_bytes()));
            found.is_some_and(|queue| queue.id() == id)
        };
        for share in &channel.by_exchange {
            let exchange = share.exchange.to_string();
            self.at_exchanges.push(Labelled {
                vhost: vhost_name.clone(),
                queue: None,
                labels: Labels::of([
                    ("channel", &name),
                    ("vhost", &vhost_name),
                    ("exchange", &exchange),
                ]),
                counts: share.counts,
            });
        }
        for share in &channel.by_queue {
            if !is_there(&share.queue, share.queue_id) {
                continue;
            }
            self.by_queue
                .entry(share.queue_id)
                .or_default()
                .0
                .add(&share.counts);
            self.from_queues.push(Labelled {
                vhost: vhost_name.clone(),
                queue: Some(share.queue.clone()),
                labels: from_queue(&name, &vhost_name, &share.queue.to_string()),
                counts: share.counts,
            });
        }
        for share in &channel.into_queues {
            if !is_there(&share.queue, share.queue_id) {
                continue;
            }
            self.by_queue.entry(share.queue_id).or_default().1 += share.published;
            let (queue, exchange) = (share.queue.to_string(), share.exchange.to_string());
            self.into_queues.push(Labelled {
                vhost: vhost_name.clone(),
                queue: Some(share.queue.clone()),
                labels: into_queue(&name, &vhost_name, &queue, &exchange),
                counts: share.published,
            });
        }
        self.channels.push(ChannelRow {
            name,
            vhost: vhost_name,
            consumer_count: channel.consumers.len() as u64,
            unacked_count: channel.unsettled_count as u64,
            unconfirmed_count: channel.unconfirmed_count as u64,
            uncommitted_count: channel.uncommitted_count as u64,
            uncommitted_ack_count: channel.uncommitted_ack_count as u64,
            prefetch_count: channel.prefetch_count_max.into(),
            global_prefetch_count: channel.global_prefetch_count_max.into(),
        });
    }
}

/// The labels of what a channel got from a queue.
pub(super) fn from_queue(channel: &str, vhost: &str, queue: &str) -> String {
    Labels::of([("channel", channel), ("vhost", vhost), ("queue", queue)])
}

/// The labels of what a channel published at an exchange and a queue got.
pub(super) fn into_queue(channel: &str, vhost: &str, queue: &str, exchange: &str) -> String {
    Labels::of([
        ("channel", channel),
        ("queue_vhost", vhost),
        ("queue", queue),
        ("exchange_vhost", vhost),
        ("exchange", exchange),
    ])
}

/// An exchange with its number of bindings.
#[derive(Clone, Debug)]
pub(super) struct ExchangeRow {
    pub(super) labels: String,
    pub(super) binding_count: usize,
}

/// What is shown of the broker's own objects.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    pub(super) node: NodeRow,
    /// Sums over all queues; with what happened in those that are gone.
    pub(super) all: QueueRow,
    /// The same by kind of queue; what happened only.
    pub(super) by_kind: CountsByKind,
    /// Each queue, if it is wanted.
    pub(super) queues: Vec<QueueRow>,
    /// Their labels.
    pub(super) queue_labels: Vec<String>,
    /// All channels together, as far as their sums are known without asking.
    pub(super) channels: ChannelRow,
    pub(super) connections: ConnectionRow,
    /// What was published at all exchanges.
    pub(super) published: PublishOutcomes,
    pub(super) vhosts: Vec<String>,
}

/// Whether a page names each object, or shows sums.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Sums.
    Aggregated,
    /// Each by its name.
    PerObject,
}

impl Objects {
    /// Looks at everything; `wanted` says of which vhosts which queues are shown.
    pub(super) fn gather(sources: &Sources, wanted: &Wanted) -> Self {
        let form = wanted.form();
        let mut objects = Self::default();
        let broker = &sources.broker;
        let mut queue_count = 0;
        for vhost in broker.vhosts() {
            let name = vhost.name().to_string();
            let mut by_kind = vhost.counts_of_gone();
            let is_wanted = form == Form::PerObject && wanted.shows(&name);
            for queue in vhost.queues() {
                queue_count += 1;
                let mut row = QueueRow::of(&vhost, &queue);
                by_kind.add(queue.kind(), &row.counts);
                objects.all.add(&row);
                if is_wanted && wanted.shows_queue(queue.name()) {
                    row.head_timestamp = queue.head_timestamp();
                    objects.queue_labels.push(row.labels());
                    objects.queues.push(row);
                }
            }
            for (kind, counts) in by_kind.iter() {
                objects.by_kind.add(kind, counts);
            }
            objects.vhosts.push(name);
        }
        objects.all.counts = QueueCounts::default();
        for (_, counts) in objects.by_kind.iter() {
            objects.all.counts.add(counts);
        }
        let statistics = broker.statistics();
        let churn = statistics.churn();
        let open = |opened: u64, closed: u64| opened.saturating_sub(closed);
        let channel_count = open(churn.channels_opened, churn.channels_closed);
        let connection_count = open(churn.connections_opened, churn.connections_closed);
        objects.channels = ChannelRow {
            consumer_count: objects.all.depth.consumer_count as u64,
            unacked_count: objects.all.depth.unacked_count as u64,
            unconfirmed_count: statistics.unconfirmed_count(),
            ..ChannelRow::default()
        };
        let published = statistics.published();
        objects.published = PublishOutcomes {
            published: published.received,
            confirmed: published.confirmed,
            returned: published.returned,
            dropped: published.dropped,
        };
        objects.connections = ConnectionRow {
            traffic: sources.registry.traffic(),
            channel_count,
            ..ConnectionRow::default()
        };
        objects.node = NodeRow {
            churn,
            connection_count: connection_count as f64,
            channel_count: channel_count as f64,
            consumer_count: objects.all.depth.consumer_count as f64,
            queue_count: f64::from(u32::try_from(queue_count).unwrap_or(u32::MAX)),
            ..NodeRow::of(sources)
        };
        objects
    }
}

impl NodeRow {
    fn of(sources: &Sources) -> Self {
        let alarms = sources.broker.alarms();
        let is_on = |alarm| f64::from(u8::from(alarms.is_on(alarm)));
        let meter = &sources.meter;
        let journal_io = meter.counts(Area::Journal);
        let mut io = journal_io;
        io.add(&meter.counts(Area::Payloads));
        io.add(&meter.counts(Area::Spill));
        let tasks = tokio::runtime::Handle::try_current();
        Self {
            memory: alarms.memory(),
            disk: alarms.disk(),
            memory_alarm: is_on(Alarm::Memory),
            disk_alarm: is_on(Alarm::Disk).max(is_on(Alarm::JournalSpace)),
            files_open: descriptors::open_count() as f64,
            files_max: descriptors::max() as f64,
            sockets_open: sources.registry.len() as f64,
            tasks: tasks.map_or(0, |tasks| tasks.metrics().num_alive_tasks()) as f64,
            uptime_seconds: sources.started.elapsed().as_secs_f64(),
            io,
            journal_io,
            ..Self::default()
        }
    }
}

/// All exchanges of the vhosts that are wanted.
pub(super) fn exchanges(broker: &Broker, wanted: impl Fn(&str) -> bool) -> Vec<ExchangeRow> {
    let mut rows = Vec::new();
    for vhost in broker.vhosts() {
        let vhost_name = vhost.name().to_string();
        if !wanted(&vhost_name) {
            continue;
        }
        let mut counts = HashMap::new();
        for binding in vhost.bindings() {
            *counts.entry(binding.source().clone()).or_insert(0) += 1;
        }
        for exchange in vhost.exchanges() {
            let (name, kind) = (exchange.name().to_string(), exchange.kind().to_string());
            rows.push(ExchangeRow {
                labels: Labels::of([("vhost", &vhost_name), ("exchange", &name), ("type", &kind)]),
                binding_count: counts.get(exchange.name()).copied().unwrap_or(0),
            });
        }
    }
    rows
}
