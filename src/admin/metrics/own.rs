//! Warren's own families: payloads, swarm, journal, and how long syncs take.
//!
//! Owns: their names, which begin with `warren_`; a name that is out stays, with its labels.

use crate::config::SyncMode;
use crate::server::io_meter::{Area, SYNC_BOUNDS_US};
use crate::swarm::{TransferCounts, TransferState};

use super::gather::Sources;
use super::text::{Columns, Family, Kind, Labels, Page, seconds};

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
    }
}

const SYNC_SECONDS: Family = Family {
    name: "disk_sync_seconds",
    kind: Kind::Histogram,
    help: "Time that syncs of files (fdatasync) took",
};

/// Areas of the disk with their names in labels.
const AREAS: [(Area, &str); 3] = [
    (Area::Journal, "journal"),
    (Area::Payloads, "payloads"),
    (Area::Spill, "spill"),
];

/// Writes all of them.
// req: PROM-4
pub(super) fn write(page: &mut Page, sources: &Sources) {
    payloads(page, sources);
    swarm(page, sources);
    disk(page, sources);
}

fn payloads(page: &mut Page, sources: &Sources) {
    let usage = sources.store.usage();
    for (family, value) in [
        (
            gauge("payloads", "Payloads in the store, complete and partial"),
            usage.payload_count,
        ),
        (
            gauge("payload_stored_bytes", "Bytes of payloads in the store"),
            usage.stored_bytes,
        ),
        (
            gauge(
                "payload_reserved_bytes",
                "Bytes promised to running uploads and of bodies in files",
            ),
            usage.reserved_bytes,
        ),
        (
            gauge(
                "payload_idle_bytes",
                "Bytes of payloads that nothing needs any more",
            ),
            usage.idle_bytes,
        ),
        (
            gauge(
                "payload_memory_bytes",
                "Memory for large bodies that are not stored",
            ),
            sources.broker.body_memory_bytes(),
        ),
    ] {
        page.single(&family, value);
    }
}

fn swarm(page: &mut Page, sources: &Sources) {
    let transfers = sources.swarm.stats();
    page.family(&gauge(
        "swarm_transfers",
        "Payloads that this node fetches or serves",
    ));
    for (state, name) in [
        (TransferState::Fetching, "fetching"),
        (TransferState::Complete, "complete"),
        (TransferState::Failed, "failed"),
    ] {
        let in_state = transfers.iter().filter(|transfer| transfer.state == state);
        page.sample(&Labels::of([("state", name)]), in_state.count());
    }
    let connection_count = sources.swarm.connection_count();
    let connections = gauge("swarm_peer_connections", "Open connections to peers");
    page.single(&connections, connection_count);
    // They are of the transfers that run: one that ends takes its numbers along, so these are gauges.
    let families: &Columns<TransferCounts> = &[
        (
            gauge(
                "swarm_received_bytes",
                "Bytes received from peers, by transfers that run",
            ),
            |counts| counts.down_bytes,
        ),
        (
            gauge(
                "swarm_sent_bytes",
                "Bytes sent to peers, by transfers that run",
            ),
            |counts| counts.up_bytes,
        ),
        (
            gauge(
                "swarm_duplicate_bytes",
                "Bytes received twice, by transfers that run",
            ),
            |counts| counts.duplicate_bytes,
        ),
        (
            gauge(
                "swarm_pieces_fetched",
                "Pieces received and verified, by transfers that run",
            ),
            |counts| counts.pieces_fetched.into(),
        ),
        (
            gauge(
                "swarm_bad_pieces",
                "Pieces that did not verify, by transfers that run",
            ),
            |counts| counts.bad_pieces.into(),
        ),
    ];
    for (family, read) in families {
        let sum: u64 = transfers
            .iter()
            .map(|transfer| read(&transfer.counts))
            .sum();
        page.single(family, sum);
    }
}

fn disk(page: &mut Page, sources: &Sources) {
    let areas =
        AREAS.map(|(area, name)| (Labels::of([("area", name)]), sources.meter.counts(area)));
    page.family(&SYNC_SECONDS);
    for (labels, counts) in &areas {
        let bounds = SYNC_BOUNDS_US.map(|micros| micros as f64 / 1e6);
        let sum = seconds(counts.syncs.time);
        page.histogram(labels, bounds, &counts.syncs_by_time, sum);
    }
    page.family(&counter(
        "disk_written_bytes_total",
        "Bytes written to files",
    ));
    for (labels, counts) in &areas {
        page.sample(labels, counts.writes.bytes);
    }
    page.family(&counter("disk_writes_total", "Writes to files"));
    for (labels, counts) in &areas {
        page.sample(labels, counts.writes.calls);
    }
    page.family(&counter("disk_read_bytes_total", "Bytes read from files"));
    for (labels, counts) in &areas {
        page.sample(labels, counts.reads.bytes);
    }
    page.family(&counter("disk_reads_total", "Reads from files"));
    for (labels, counts) in &areas {
        page.sample(labels, counts.reads.calls);
    }
    // req: MGMT-11
    let waits = gauge(
        "journal_waits_for_disk",
        "Whether confirms wait until the disk has a message (sync = \"disk\")",
    );
    page.single(&waits, u64::from(sources.sync == SyncMode::Disk));
    if let Some(journal) = sources.broker.journal_usage() {
        for (family, value) in [
            (
                gauge("journal_segments", "Segment files of the journal"),
                journal.segment_count,
            ),
            (
                gauge("journal_file_bytes", "Bytes of the journal's segment files"),
                journal.file_bytes,
            ),
            (
                gauge(
                    "journal_live_bytes",
                    "Bytes of records in the journal that still count",
                ),
                journal.live_bytes,
            ),
        ] {
            page.single(&family, value);
        }
        let durable = counter(
            "journal_durable_records_total",
            "Number of the last durable record",
        );
        page.single(&durable, journal.durable_record);
    }
}
