//! Collects what a page shows, at one moment.
//!
//! Owns: one row for each queue, channel and connection that a page names, or their sums. Queues are looked at once
//! each, under their own locks; sessions are asked only by pages that name channels.
//! Bounds: what there is of each.

use std::sync::Arc;
use std::time::Instant;

use crate::broker::{
    Alarm, Broker, ChurnCounts, CountsByKind, DiskState, Durability, MemoryState, PublishCounts,
    Queue, QueueCounts, QueueDepth, Vhost,
};
use crate::config::SyncMode;
use crate::payload::Store;
use crate::server::io_meter::{Area, AreaCounts, IoMeter};
use crate::server::peer::SwarmHandle;
use crate::server::registry::{Registry, Traffic};

use super::text::Labels;
use crate::admin::{api, process};

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
    pub(super) prefetch_count: u64,
    pub(super) global_prefetch_count: u64,
    pub(super) published: PublishCounts,
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
}

impl Clients {
    pub(super) async fn gather(registry: &Registry) -> Self {
        let mut clients = Self::default();
        for (entry, view) in registry.views().await {
            let Some(vhost) = &view.vhost else { continue };
            let name = entry.name();
            clients.connections.push(ConnectionRow {
                name: name.clone(),
                traffic: entry.traffic(),
                channel_count: view.channels.len() as u64,
            });
            let channels = view.channels.iter().map(|channel| ChannelRow {
                name: format!("{name} ({})", channel.number),
                vhost: vhost.to_string(),
                consumer_count: channel.consumers.len() as u64,
                unacked_count: channel.unsettled_count as u64,
                unconfirmed_count: channel.unconfirmed_count as u64,
                prefetch_count: channel.prefetch_count_max.into(),
                global_prefetch_count: channel.global_prefetch_count_max.into(),
                published: channel.published,
            });
            clients.channels.extend(channels);
        }
        clients
    }
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
    /// Looks at everything; `wanted` says of which vhosts queues are shown.
    pub(super) fn gather(sources: &Sources, form: Form, wanted: impl Fn(&str) -> bool) -> Self {
        let mut objects = Self::default();
        let broker = &sources.broker;
        let mut queue_count = 0;
        for vhost in broker.vhosts() {
            let name = vhost.name().to_string();
            let mut by_kind = vhost.counts_of_gone();
            let is_wanted = wanted(&name);
            for queue in vhost.queues() {
                queue_count += 1;
                let row = QueueRow::of(&vhost, &queue);
                by_kind.add(queue.kind(), &row.counts);
                objects.all.add(&row);
                if form == Form::PerObject && is_wanted {
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
            published: statistics.published(),
            ..ChannelRow::default()
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
            files_open: process::files_open() as f64,
            files_max: process::files_max() as f64,
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
        let mut counts = std::collections::HashMap::new();
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
