//! What a node counts, under RabbitMQ's names: disk, memory, files, and what came and went.
//!
//! Owns: which number stands under which name. What nothing here corresponds to (processes, garbage, Mnesia, the message
//! store) is 0: tools look for the names.

use std::time::Duration;

use crate::broker::{Broker, PublishCounts};
use crate::server::descriptors;
use crate::server::io_meter::{Area, AreaCounts, IoMeter};
use crate::server::registry::Registry;

/// A name with its number; each has a rate of its own.
pub(super) type Counter = (&'static str, u64);

/// Names of what a broker of this kind has none of.
const NONE: [&str; 15] = [
    "context_switches",
    "gc_bytes_reclaimed",
    "gc_num",
    "io_reopen_count",
    "io_seek_count",
    "io_file_handle_open_attempt_count",
    "mnesia_disk_tx_count",
    "mnesia_ram_tx_count",
    "msg_store_read_count",
    "msg_store_write_count",
    "proc_used",
    "queue_index_journal_write_count",
    "queue_index_read_count",
    "queue_index_write_count",
    "io_file_handle_open_attempt_avg_time",
];

/// Everything that is done with the disk.
pub(super) fn disk(meter: &IoMeter) -> AreaCounts {
    let mut all = AreaCounts::default();
    for area in [Area::Journal, Area::Payloads, Area::Spill] {
        all.add(&meter.counts(area));
    }
    all
}

/// All numbers at this moment, in no order.
pub(super) fn read(broker: &Broker, registry: &Registry, meter: &IoMeter) -> Vec<Counter> {
    let (io, churn) = (disk(meter), broker.statistics().churn());
    let (connections_created, connections_closed) = registry.churn();
    let alarms = broker.alarms();
    let mut all: Vec<Counter> = NONE.iter().map(|name| (*name, 0)).collect();
    all.extend([
        ("mem_used", alarms.memory().used_bytes),
        ("disk_free", alarms.disk().free_bytes),
        ("fd_used", descriptors::open_count() as u64),
        ("sockets_used", registry.len() as u64),
        ("io_read_count", io.reads.calls),
        ("io_read_bytes", io.reads.bytes),
        ("io_write_count", io.writes.calls),
        ("io_write_bytes", io.writes.bytes),
        ("io_sync_count", io.syncs.calls),
        ("connection_created", connections_created),
        ("connection_closed", connections_closed),
        ("channel_created", churn.channels_opened),
        ("channel_closed", churn.channels_closed),
        ("queue_declared", churn.queues_declared),
        ("queue_created", churn.queues_created),
        ("queue_deleted", churn.queues_deleted),
    ]);
    all
}

/// What publishers were told, beside what queues count.
pub(super) fn told(published: &PublishCounts) -> [Counter; 3] {
    [
        ("confirm", published.confirmed),
        ("drop_unroutable", published.dropped),
        ("return_unroutable", published.returned),
    ]
}

/// How long one call took on average, in milliseconds.
pub(super) fn average_ms(calls: u64, time: Duration) -> f64 {
    match calls {
        0 => 0.0,
        #[allow(
            clippy::cast_precision_loss,
            reason = "an average needs no exact count"
        )]
        calls => time.as_secs_f64() * 1000.0 / calls as f64,
    }
}
