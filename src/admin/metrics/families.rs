//! RabbitMQ's families, with the names, kinds and help texts of RabbitMQ 3.10.8, and where each number comes from.
//!
//! Owns: the tables about the node and of global counters; `object_families.rs` has those of queues, channels and
//! connections. All go by the names that RabbitMQ's detailed endpoint has for them. What nothing here corresponds to (Erlang's
//! collector, Mnesia, Raft) stands at 0, because dashboards ask for it.
//! Spec: recorded from RabbitMQ's Prometheus plugin, `tests/prometheus/families.tsv`.

use crate::broker::{LetterCounts, PublishCounts, QueueCounts};

use super::gather::NodeRow;
use super::text::{Columns, Family, Kind};

pub(super) const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
    }
}

pub(super) const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
    }
}

const fn untyped(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Untyped,
        help,
    }
}

/// A family about the node and what it shows of it.
pub(super) type OfNode = (Family, fn(&NodeRow) -> f64);

/// Why messages die.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letters {
    pub(super) family: Family,
    /// Messages that died of it, with and without a dead-letter exchange.
    pub(super) died: fn(&QueueCounts) -> u64,
    /// Those that a dead-letter exchange got.
    pub(super) sent: fn(&LetterCounts) -> u64,
    /// Whether classic queues have it too.
    pub(super) of_classic: bool,
    /// Whether RabbitMQ tells the strategy at-least-once apart.
    pub(super) at_least_once: bool,
}

/// Alarms: 1 while one is on.
pub(super) const ALARMS: &[OfNode] = &[
    (
        untyped(
            "alarms_file_descriptor_limit",
            "is 1 if file descriptor limit alarm is in effect",
        ),
        |_| 0.0,
    ),
    (
        untyped(
            "alarms_free_disk_space_watermark",
            "is 1 if free disk space watermark alarm is in effect",
        ),
        |node| node.disk_alarm,
    ),
    (
        untyped(
            "alarms_memory_used_watermark",
            "is 1 if VM memory watermark alarm is in effect",
        ),
        |node| node.memory_alarm,
    ),
];

/// `connection_churn_metrics`
pub(super) const CHURN: &[OfNode] = &[
    (
        counter(
            "connections_opened_total",
            "Total number of connections opened",
        ),
        |node| node.churn.connections_opened as f64,
    ),
    (
        counter(
            "connections_closed_total",
            "Total number of connections closed or terminated",
        ),
        |node| node.churn.connections_closed as f64,
    ),
    (
        counter("channels_opened_total", "Total number of channels opened"),
        |node| node.churn.channels_opened as f64,
    ),
    (
        counter("channels_closed_total", "Total number of channels closed"),
        |node| node.churn.channels_closed as f64,
    ),
    (
        counter("queues_declared_total", "Total number of queues declared"),
        |node| node.churn.queues_declared as f64,
    ),
    (
        counter("queues_created_total", "Total number of queues created"),
        |node| node.churn.queues_created as f64,
    ),
    (
        counter("queues_deleted_total", "Total number of queues deleted"),
        |node| node.churn.queues_deleted as f64,
    ),
];

/// `node_coarse_metrics`
pub(super) const NODE_COARSE: &[OfNode] = &[
    (gauge("process_open_fds", "Open file descriptors"), |node| {
        node.files_open
    }),
    (
        gauge("process_open_tcp_sockets", "Open TCP sockets"),
        |node| node.sockets_open,
    ),
    (
        gauge("process_resident_memory_bytes", "Memory used in bytes"),
        |node| node.memory.used_bytes as f64,
    ),
    (
        gauge(
            "disk_space_available_bytes",
            "Disk space available in bytes",
        ),
        |node| node.disk.free_bytes as f64,
    ),
    (
        gauge("erlang_processes_used", "Erlang processes used"),
        |node| node.tasks,
    ),
    (
        counter(
            "erlang_gc_runs_total",
            "Total number of Erlang garbage collector runs",
        ),
        |_| 0.0,
    ),
    (
        counter(
            "erlang_gc_reclaimed_bytes_total",
            "Total number of bytes of memory reclaimed by Erlang garbage collector",
        ),
        |_| 0.0,
    ),
    (
        counter(
            "erlang_scheduler_context_switches_total",
            "Total number of Erlang scheduler context switches",
        ),
        |_| 0.0,
    ),
];

/// `node_metrics`
pub(super) const NODE: &[OfNode] = &[
    (
        gauge("process_max_fds", "Open file descriptors limit"),
        |node| node.files_max,
    ),
    (
        gauge("process_max_tcp_sockets", "Open TCP sockets limit"),
        |node| node.files_max,
    ),
    (
        gauge(
            "resident_memory_limit_bytes",
            "Memory high watermark in bytes",
        ),
        |node| node.memory.limit_bytes as f64,
    ),
    (
        gauge(
            "disk_space_available_limit_bytes",
            "Free disk space low watermark in bytes",
        ),
        |node| node.disk.limit_bytes as f64,
    ),
    (
        gauge("erlang_processes_limit", "Erlang processes limit"),
        |_| 1_048_576.0,
    ),
    (
        gauge("erlang_scheduler_run_queue", "Erlang scheduler run queue"),
        |_| 0.0,
    ),
    (
        gauge(
            "erlang_net_ticktime_seconds",
            "Inter-node heartbeat interval",
        ),
        |_| 60.0,
    ),
    (gauge("erlang_uptime_seconds", "Node uptime"), |node| {
        node.uptime_seconds
    }),
];

/// `node_persister_metrics`
pub(super) const PERSISTER: &[OfNode] = &[
    (
        counter("io_read_ops_total", "Total number of I/O read operations"),
        |node| node.io.reads.calls as f64,
    ),
    (
        counter("io_read_bytes_total", "Total number of I/O bytes read"),
        |node| node.io.reads.bytes as f64,
    ),
    (
        counter("io_write_ops_total", "Total number of I/O write operations"),
        |node| node.io.writes.calls as f64,
    ),
    (
        counter("io_write_bytes_total", "Total number of I/O bytes written"),
        |node| node.io.writes.bytes as f64,
    ),
    (
        counter("io_sync_ops_total", "Total number of I/O sync operations"),
        |node| node.io.syncs.calls as f64,
    ),
    (
        counter("io_seek_ops_total", "Total number of I/O seek operations"),
        |_| 0.0,
    ),
    (
        counter(
            "io_reopen_ops_total",
            "Total number of times files have been reopened",
        ),
        |_| 0.0,
    ),
    (
        counter(
            "schema_db_ram_tx_total",
            "Total number of Schema DB memory transactions",
        ),
        |_| 0.0,
    ),
    (
        counter(
            "schema_db_disk_tx_total",
            "Total number of Schema DB disk transactions",
        ),
        |_| 0.0,
    ),
    (
        counter(
            "msg_store_read_total",
            "Total number of Message Store read operations",
        ),
        |node| node.journal_io.reads.calls as f64,
    ),
    (
        counter(
            "msg_store_write_total",
            "Total number of Message Store write operations",
        ),
        |node| node.journal_io.writes.calls as f64,
    ),
    (
        counter(
            "queue_index_read_ops_total",
            "Total number of Queue Index read operations",
        ),
        |_| 0.0,
    ),
    (
        counter(
            "queue_index_write_ops_total",
            "Total number of Queue Index write operations",
        ),
        |_| 0.0,
    ),
    (
        counter("io_read_time_seconds_total", "Total I/O read time"),
        |node| node.io.reads.time.as_secs_f64(),
    ),
    (
        counter("io_write_time_seconds_total", "Total I/O write time"),
        |node| node.io.writes.time.as_secs_f64(),
    ),
    (
        counter("io_sync_time_seconds_total", "Total I/O sync time"),
        |node| node.io.syncs.time.as_secs_f64(),
    ),
    (
        counter("io_seek_time_seconds_total", "Total I/O seek time"),
        |_| 0.0,
    ),
];

/// `ra_metrics`: there is no Raft here.
pub(super) const RAFT: &[OfNode] = &[
    (
        counter("raft_term_total", "Current Raft term number"),
        |_| 0.0,
    ),
    (
        gauge("raft_log_snapshot_index", "Raft log snapshot index"),
        |_| 0.0,
    ),
    (
        gauge("raft_log_last_applied_index", "Raft log last applied index"),
        |_| 0.0,
    ),
    (
        gauge("raft_log_commit_index", "Raft log commit index"),
        |_| 0.0,
    ),
    (
        gauge("raft_log_last_written_index", "Raft log last written index"),
        |_| 0.0,
    ),
    (
        gauge(
            "raft_entry_commit_latency_seconds",
            "Time taken for a log entry to be committed",
        ),
        |_| 0.0,
    ),
];

/// What there is.
pub(super) const TOTALS: &[OfNode] = &[
    (gauge("connections", "Connections currently open"), |node| {
        node.connection_count
    }),
    (gauge("channels", "Channels currently open"), |node| {
        node.channel_count
    }),
    (
        gauge("consumers", "Consumers currently connected"),
        |node| node.consumer_count,
    ),
    (gauge("queues", "Queues available"), |node| node.queue_count),
];

/// Versions.
pub(super) const BUILD_INFO: Family = untyped("build_info", "RabbitMQ & Erlang/OTP version info");

/// Names.
pub(super) const IDENTITY_INFO: Family =
    untyped("identity_info", "RabbitMQ node & cluster identity info");

/// `vhost_status`
pub(super) const VHOST_STATUS: Family =
    gauge("cluster_vhost_status", "Whether a given vhost is running");

/// `exchange_bindings`
pub(super) const EXCHANGE_BINDINGS: Family = gauge(
    "cluster_exchange_bindings",
    "Number of bindings for an exchange. This value is cluster-wide.",
);

/// `exchange_names`
pub(super) const EXCHANGE_NAMES: Family = gauge(
    "cluster_exchange_name",
    "Enumerates exchanges without any additional info. This value is cluster-wide. A cheaper alternative to `exchange_bindings`",
);

/// Of all protocols.
pub(super) const GLOBAL_CONSUMERS: Family =
    gauge("global_consumers", "Current number of consumers");

/// Of all protocols.
pub(super) const GLOBAL_PUBLISHERS: Family =
    gauge("global_publishers", "Current number of publishers");

/// How logins went: all, let in, refused (`auth_attempt_metrics`).
pub(super) const LOGINS: [Family; 3] = [
    counter(
        "auth_attempts_total",
        "Total number of authorization attempts",
    ),
    counter(
        "auth_attempts_succeeded_total",
        "Total number of successful authentication attempts",
    ),
    counter(
        "auth_attempts_failed_total",
        "Total number of failed authentication attempts",
    ),
];

/// What all publishers did.
pub(super) const GLOBAL_PUBLISHED: &Columns<PublishCounts> = &[
    (
        counter(
            "global_messages_confirmed_total",
            "Total number of messages confirmed to publishers",
        ),
        |counts| counts.confirmed,
    ),
    (
        counter(
            "global_messages_received_confirm_total",
            "Total number of messages received from publishers expecting confirmations",
        ),
        |counts| counts.received_confirm,
    ),
    (
        counter(
            "global_messages_received_total",
            "Total number of messages received from publishers",
        ),
        |counts| counts.received,
    ),
    (
        counter(
            "global_messages_routed_total",
            "Total number of messages routed to queues or streams",
        ),
        |counts| counts.routed,
    ),
    (
        counter(
            "global_messages_unroutable_dropped_total",
            "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
        ),
        |counts| counts.dropped,
    ),
    (
        counter(
            "global_messages_unroutable_returned_total",
            "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable",
        ),
        |counts| counts.returned,
    ),
];

/// What happened in all queues of a kind.
pub(super) const GLOBAL_QUEUE: &Columns<QueueCounts> = &[
    (
        counter(
            "global_messages_acknowledged_total",
            "Total number of messages acknowledged by consumers",
        ),
        |counts| counts.delivery.acked,
    ),
    (
        counter(
            "global_messages_delivered_consume_auto_ack_total",
            "Total number of messages delivered to consumers using basic.consume with automatic acknowledgment",
        ),
        |counts| counts.delivery.delivered_no_ack,
    ),
    (
        counter(
            "global_messages_delivered_consume_manual_ack_total",
            "Total number of messages delivered to consumers using basic.consume with manual acknowledgment",
        ),
        |counts| counts.delivery.delivered,
    ),
    (
        counter(
            "global_messages_delivered_get_auto_ack_total",
            "Total number of messages delivered to consumers using basic.get with automatic acknowledgment",
        ),
        |counts| counts.delivery.fetched_no_ack,
    ),
    (
        counter(
            "global_messages_delivered_get_manual_ack_total",
            "Total number of messages delivered to consumers using basic.get with manual acknowledgment",
        ),
        |counts| counts.delivery.fetched,
    ),
    (
        counter(
            "global_messages_delivered_total",
            "Total number of messages delivered to consumers",
        ),
        |counts| counts.delivery.handed_over(),
    ),
    (
        counter(
            "global_messages_get_empty_total",
            "Total number of times basic.get operations fetched no message",
        ),
        |counts| counts.delivery.fetched_empty,
    ),
    (
        counter(
            "global_messages_redelivered_total",
            "Total number of messages redelivered to consumers",
        ),
        |counts| counts.delivery.redelivered,
    ),
];

/// Dead letters: of what is lost without a dead-letter exchange, and of what one got.
pub(super) const LETTERS: &[Letters] = &[
    Letters {
        family: counter(
            "global_messages_dead_lettered_delivery_limit_total",
            "Total number of messages dead-lettered due to delivery-limit exceeded",
        ),
        died: |_| 0,
        sent: |letters| letters.delivery_limit,
        of_classic: false,
        at_least_once: true,
    },
    Letters {
        family: counter(
            "global_messages_dead_lettered_expired_total",
            "Total number of messages dead-lettered due to message TTL exceeded",
        ),
        died: |counts| counts.expired,
        sent: |letters| letters.expired,
        of_classic: true,
        at_least_once: true,
    },
    Letters {
        family: counter(
            "global_messages_dead_lettered_maxlen_total",
            "Total number of messages dead-lettered due to overflow drop-head or reject-publish-dlx",
        ),
        died: |counts| counts.dropped,
        sent: |letters| letters.max_length,
        of_classic: true,
        at_least_once: false,
    },
    Letters {
        family: counter(
            "global_messages_dead_lettered_rejected_total",
            "Total number of messages dead-lettered due to basic.reject or basic.nack",
        ),
        died: |counts| counts.discarded,
        sent: |letters| letters.rejected,
        of_classic: true,
        at_least_once: true,
    },
];

/// With the strategy at-least-once, which is not told apart here.
pub(super) const LETTERS_CONFIRMED: Family = counter(
    "global_messages_dead_lettered_confirmed_total",
    "Total number of messages dead-lettered and confirmed by target queues",
);

/// The kind of memory that everything here counts as.
pub(super) const MEMORY_OF_ALL: &str = "memory_other_erlang_process_bytes";

/// RabbitMQ 4's kinds of memory (`/metrics/memory-breakdown`).
pub(super) const MEMORY: &[Family] = &[
    gauge("memory_code_module_bytes", "Bytes for compiled code"),
    gauge(
        "memory_client_connection_reader_bytes",
        "Bytes for reading from clients",
    ),
    gauge(
        "memory_client_connection_writer_bytes",
        "Bytes for writing to clients",
    ),
    gauge(
        "memory_client_connection_channel_bytes",
        "Bytes for channels of clients",
    ),
    gauge(
        "memory_client_connection_other_bytes",
        "Bytes for what else connections need",
    ),
    gauge(
        "memory_classic_queue_erlang_process_bytes",
        "Bytes for classic queues",
    ),
    gauge(
        "memory_quorum_queue_erlang_process_bytes",
        "Bytes for quorum queues",
    ),
    gauge(
        "memory_quorum_queue_dlx_erlang_process_bytes",
        "Bytes for dead letters of quorum queues",
    ),
    gauge("memory_stream_erlang_process_bytes", "Bytes for streams"),
    gauge(
        "memory_stream_replica_reader_erlang_process_bytes",
        "Bytes for readers of streams' replicas",
    ),
    gauge(
        "memory_stream_coordinator_erlang_process_bytes",
        "Bytes for the coordinator of streams",
    ),
    gauge("memory_plugin_bytes", "Bytes for plugins"),
    gauge(
        "memory_modern_metadata_store_bytes",
        "Bytes for the newer store of definitions",
    ),
    gauge(
        "memory_other_erlang_process_bytes",
        "Bytes for everything that is not told apart",
    ),
    gauge("memory_metrics_bytes", "Bytes for figures"),
    gauge(
        "memory_management_stats_db_bytes",
        "Bytes for the management interface's statistics",
    ),
    gauge(
        "memory_classic_metadata_store_bytes",
        "Bytes for the older store of definitions",
    ),
    gauge(
        "memory_quorum_queue_ets_table_bytes",
        "Bytes for tables of quorum queues",
    ),
    gauge(
        "memory_modern_metadata_store_ets_table_bytes",
        "Bytes for tables of the newer store of definitions",
    ),
    gauge("memory_other_ets_table_bytes", "Bytes for other tables"),
    gauge("memory_binary_heap_bytes", "Bytes for shared binaries"),
    gauge(
        "memory_message_index_bytes",
        "Bytes for the index of messages",
    ),
    gauge("memory_atom_table_bytes", "Bytes for atoms"),
    gauge(
        "memory_other_system_bytes",
        "Bytes for what else the runtime needs",
    ),
    gauge(
        "memory_runtime_allocated_unused_bytes",
        "Bytes for memory that was allocated and is not used",
    ),
    gauge(
        "memory_runtime_reserved_unallocated_bytes",
        "Bytes for memory that was reserved and is not allocated",
    ),
];
