//! RabbitMQ's families about queues, channels and connections, as `families.rs` has those about the node.

use super::families::{counter, gauge};
use super::gather::{ChannelRow, ConnectionRow, QueueRow};
use super::text::{Columns, Family};
use crate::broker::DeliveryCounts;
use crate::session::PublishOutcomes;

/// A family about queues and what it shows of one.
pub(super) type OfQueue = (Family, fn(&QueueRow) -> u64);
/// A family about channels and what it shows of one.
pub(super) type OfChannel = (Family, fn(&ChannelRow) -> u64);
/// A family about connections and what it shows of one.
pub(super) type OfConnection = (Family, fn(&ConnectionRow) -> u64);

/// `queue_coarse_metrics`
pub(super) const QUEUE_COARSE: &[OfQueue] = &[
    (
        gauge(
            "queue_messages_ready",
            "Messages ready to be delivered to consumers",
        ),
        |queue| queue.depth.ready_count as u64,
    ),
    (
        gauge(
            "queue_messages_unacked",
            "Messages delivered to consumers but not yet acknowledged",
        ),
        |queue| queue.depth.unacked_count as u64,
    ),
    (
        gauge(
            "queue_messages",
            "Sum of ready and unacknowledged messages - total queue depth",
        ),
        QueueRow::message_count,
    ),
    (
        counter(
            "queue_process_reductions_total",
            "Total number of queue process reductions",
        ),
        |_| 0,
    ),
];

/// `queue_consumer_count`
pub(super) const QUEUE_CONSUMERS: &[OfQueue] =
    &[(gauge("queue_consumers", "Consumers on a queue"), |queue| {
        queue.depth.consumer_count as u64
    })];

/// The rest of `queue_metrics`.
pub(super) const QUEUE: &[OfQueue] = &[
    (
        gauge("queue_consumer_capacity", "Consumer capacity"),
        QueueRow::consumer_capacity,
    ),
    (
        gauge("queue_consumer_utilisation", "Same as consumer capacity"),
        QueueRow::consumer_capacity,
    ),
    (
        gauge(
            "queue_process_memory_bytes",
            "Memory in bytes used by the Erlang queue process",
        ),
        |_| 0,
    ),
    (
        gauge(
            "queue_messages_ram",
            "Ready and unacknowledged messages stored in memory",
        ),
        QueueRow::message_count,
    ),
    (
        gauge(
            "queue_messages_ram_bytes",
            "Size of ready and unacknowledged messages stored in memory",
        ),
        QueueRow::message_bytes,
    ),
    (
        gauge(
            "queue_messages_ready_ram",
            "Ready messages stored in memory",
        ),
        |queue| queue.depth.ready_count as u64,
    ),
    (
        gauge(
            "queue_messages_unacked_ram",
            "Unacknowledged messages stored in memory",
        ),
        |queue| queue.depth.unacked_count as u64,
    ),
    (
        gauge("queue_messages_persistent", "Persistent messages"),
        QueueRow::kept_count,
    ),
    (
        gauge(
            "queue_messages_persistent_bytes",
            "Size in bytes of persistent messages",
        ),
        QueueRow::kept_bytes,
    ),
    (
        gauge(
            "queue_messages_bytes",
            "Size in bytes of ready and unacknowledged messages",
        ),
        QueueRow::message_bytes,
    ),
    (
        gauge(
            "queue_messages_ready_bytes",
            "Size in bytes of ready messages",
        ),
        |queue| queue.depth.ready_bytes,
    ),
    (
        gauge(
            "queue_messages_unacked_bytes",
            "Size in bytes of all unacknowledged messages",
        ),
        |queue| queue.depth.unacked_bytes,
    ),
    (
        gauge("queue_messages_paged_out", "Messages paged out to disk"),
        |_| 0,
    ),
    (
        gauge(
            "queue_messages_paged_out_bytes",
            "Size in bytes of messages paged out to disk",
        ),
        |_| 0,
    ),
    (
        counter(
            "queue_disk_reads_total",
            "Total number of times queue read messages from disk",
        ),
        |_| 0,
    ),
    (
        counter(
            "queue_disk_writes_total",
            "Total number of times queue wrote messages to disk",
        ),
        |_| 0,
    ),
];

/// `channel_metrics`
pub(super) const CHANNEL: &[OfChannel] = &[
    (
        gauge("channel_consumers", "Consumers on a channel"),
        |channel| channel.consumer_count,
    ),
    (
        gauge(
            "channel_messages_unacked",
            "Delivered but not yet acknowledged messages",
        ),
        |channel| channel.unacked_count,
    ),
    (
        gauge(
            "channel_messages_unconfirmed",
            "Published but not yet confirmed messages",
        ),
        |channel| channel.unconfirmed_count,
    ),
    (
        gauge(
            "channel_messages_uncommitted",
            "Messages received in a transaction but not yet committed",
        ),
        |channel| channel.uncommitted_count,
    ),
    (
        gauge(
            "channel_acks_uncommitted",
            "Message acknowledgements in a transaction not yet committed",
        ),
        |channel| channel.uncommitted_ack_count,
    ),
    (
        gauge(
            "consumer_prefetch",
            "Limit of unacknowledged messages for each consumer",
        ),
        |channel| channel.prefetch_count,
    ),
    (
        gauge(
            "channel_prefetch",
            "Total limit of unacknowledged messages for all consumers on a channel",
        ),
        |channel| channel.global_prefetch_count,
    ),
];

/// `channel_process_metrics`
pub(super) const CHANNEL_PROCESS: &[OfChannel] = &[(
    counter(
        "channel_process_reductions_total",
        "Total number of channel process reductions",
    ),
    |_| 0,
)];

/// `channel_exchange_metrics`
pub(super) const CHANNEL_EXCHANGE: &Columns<PublishOutcomes> = &[
    (
        counter(
            "channel_messages_published_total",
            "Total number of messages published into an exchange on a channel",
        ),
        |counts| counts.published,
    ),
    (
        counter(
            "channel_messages_confirmed_total",
            "Total number of messages published into an exchange and confirmed on the channel",
        ),
        |counts| counts.confirmed,
    ),
    (
        counter(
            "channel_messages_unroutable_returned_total",
            "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable",
        ),
        |counts| counts.returned,
    ),
    (
        counter(
            "channel_messages_unroutable_dropped_total",
            "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
        ),
        |counts| counts.dropped,
    ),
];

/// `channel_queue_metrics`
pub(super) const CHANNEL_QUEUE: &Columns<DeliveryCounts> = &[
    (
        counter(
            "channel_get_ack_total",
            "Total number of messages fetched with basic.get in manual acknowledgement mode",
        ),
        |counts| counts.fetched,
    ),
    (
        counter(
            "channel_get_total",
            "Total number of messages fetched with basic.get in automatic acknowledgement mode",
        ),
        |counts| counts.fetched_no_ack,
    ),
    (
        counter(
            "channel_messages_delivered_ack_total",
            "Total number of messages delivered to consumers in manual acknowledgement mode",
        ),
        |counts| counts.delivered,
    ),
    (
        counter(
            "channel_messages_delivered_total",
            "Total number of messages delivered to consumers in automatic acknowledgement mode",
        ),
        |counts| counts.delivered_no_ack,
    ),
    (
        counter(
            "channel_messages_redelivered_total",
            "Total number of messages redelivered to consumers",
        ),
        |counts| counts.redelivered,
    ),
    (
        counter(
            "channel_messages_acked_total",
            "Total number of messages acknowledged by consumers",
        ),
        |counts| counts.acked,
    ),
    (
        counter(
            "channel_get_empty_total",
            "Total number of times basic.get operations fetched no message",
        ),
        |counts| counts.fetched_empty,
    ),
];

/// `connection_coarse_metrics`
pub(super) const CONNECTION_COARSE: &[OfConnection] = &[
    (
        counter(
            "connection_incoming_bytes_total",
            "Total number of bytes received on a connection",
        ),
        |connection| connection.traffic.received_bytes,
    ),
    (
        counter(
            "connection_outgoing_bytes_total",
            "Total number of bytes sent on a connection",
        ),
        |connection| connection.traffic.sent_bytes,
    ),
    (
        counter(
            "connection_process_reductions_total",
            "Total number of connection process reductions",
        ),
        |_| 0,
    ),
];

/// `connection_metrics`
pub(super) const CONNECTION: &[OfConnection] = &[
    (
        counter(
            "connection_incoming_packets_total",
            "Total number of packets received on a connection",
        ),
        |connection| connection.traffic.reads,
    ),
    (
        counter(
            "connection_outgoing_packets_total",
            "Total number of packets sent on a connection",
        ),
        |connection| connection.traffic.writes,
    ),
    (
        gauge(
            "connection_pending_packets",
            "Number of packets waiting to be sent on a connection",
        ),
        |_| 0,
    ),
    (
        gauge("connection_channels", "Channels on a connection"),
        |connection| connection.channel_count,
    ),
];

/// `channel_queue_exchange_metrics`
pub(super) const PUBLISHED_TO_QUEUE: &Columns<u64> = &[(
    counter(
        "queue_messages_published_total",
        "Total number of messages published to queues",
    ),
    |published| *published,
)];

/// The last of `queue_metrics`: of queues whose first message tells it.
pub(super) const HEAD_TIMESTAMP: Family = gauge(
    "queue_head_message_timestamp",
    "Timestamp of the first message in the queue, if any",
);
