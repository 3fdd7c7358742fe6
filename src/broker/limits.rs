//! The broker's bounds, each with its unit, its origin and what happens beyond it.
//!
//! Those that an operator may change are fields of [`BrokerLimits`]; RELIABILITY section 6.

/// Longest name and routing key, in bytes (short string, AMQP 0-9-1 §4.2.5.3).
pub const NAME_BYTES_MAX: usize = 255;

/// Message of at most this many bytes (header and body) is kept in one allocation of its own,
/// copied out of the read buffer at once: that costs no more than sharing the buffer would.
pub const PACKED_BYTES_MAX: usize = 4_096;

/// Inline body below this many bytes is copied out of the read buffer when its message stays queued,
/// so that a short message cannot pin a long buffer. A longer one is most of its buffer anyway.
pub const BODY_COPY_BYTES_MAX: usize = 65_536;

/// Longest body that is kept in memory in the place of the payload store, in bytes: what RabbitMQ takes for a message
/// unless told otherwise. A longer one goes into a file of its own.
pub const BODY_MEMORY_SIZE_BYTES_MAX: u64 = 16 * 1_024 * 1_024;

/// Longest body that is in a file and no payload, in bytes: 1 GiB. If it must be stored after all, hashing and syncing it
/// holds up whoever needs that, for seconds where the disk is slow. A longer one is stored while it comes in.
pub const BODY_FILE_SIZE_BYTES_MAX: u64 = 1_024 * 1_024 * 1_024;

/// What an item of an outbox counts beside its message's bytes: frames, method and bookkeeping.
pub const OUTBOX_ITEM_BYTES: usize = 64;

/// Unsent deliveries of one connection, in bytes; beyond it its consumers stop drawing.
pub const OUTBOX_BYTES_DEFAULT: usize = 512 * 1_024;

/// Answers by direct reply-to that one connection has not taken, in bytes; more are dropped. They have no
/// queue to wait in, so this is far above the outbox's own bound.
pub const REPLY_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Exchanges that one message may pass on its way; more are not looked at.
pub const ROUTE_EXCHANGES_MAX: usize = 10_000;

/// Messages that a recent-history exchange keeps unless it says otherwise (the plugin's default).
pub const HISTORY_COUNT_DEFAULT: usize = 20;

/// What a recent-history exchange keeps in memory, in bytes; beyond it the oldest messages go.
pub const HISTORY_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Longest `x-delay`, in milliseconds (RabbitMQ's timer); a longer one counts as none, as in the plugin.
pub const DELAY_MS_MAX: u64 = 4_294_967_295;

/// Messages that one delayed exchange keeps whole in memory, in bytes; beyond it they are read back from
/// the journal when their time has come.
pub const DELAYED_HELD_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Messages of one delayed exchange whose order is in memory, the next ones, at 24 bytes each; those that are due
/// later lie on disk, and as many wait to be written there.
pub const DELAYED_NEAR_COUNT_MAX: usize = 65_536;
/// The same where `queue.memory` leaves less.
pub const DELAYED_NEAR_COUNT_MIN: usize = 16;
/// Delayed messages in one page of the spill directory, at 24 bytes each.
pub const DELAYED_PAGE_COUNT: usize = 2_048;
/// Delayed messages that go out in one go, before others have their turn.
pub const DELAYED_AT_ONCE_MAX: usize = 256;

/// Events that wait to be published; more are lost and counted.
pub const EVENTS_WAITING_MAX: usize = 10_000;

/// Events that are published in one go, before others have their turn.
pub const EVENTS_AT_ONCE_MAX: usize = 256;

/// Keys that an exchange remembers to tell duplicates, unless it says otherwise.
pub const DEDUP_KEYS_DEFAULT: usize = 10_000;

/// Keys that a queue remembers, unless it says otherwise; it has no more than messages.
pub const DEDUP_QUEUE_KEYS_DEFAULT: usize = 1_000_000;
/// Most keys that one exchange or queue may remember, about 100 bytes each; beyond it 406.
pub const DEDUP_KEYS_MAX: usize = 10_000_000;

/// What one look at a queue's messages gives, in bytes, unless it asks for another bound.
pub const PEEK_BYTES_DEFAULT: usize = 16 * 1_024 * 1_024;
/// Routes that one channel remembers.
pub const ROUTE_CACHE_SLOTS: usize = 32;

/// Highest `x-max-priority` (RabbitMQ); beyond it 406.
pub const PRIORITY_MAX: i64 = 255;

/// Longest TTL or expiry, in milliseconds: ten years (RabbitMQ); beyond it 406.
pub const EXPIRY_MS_MAX: i64 = 315_360_000_000;

/// Most bytes of a stream's segment (RabbitMQ); beyond it 406.
pub const STREAM_SEGMENT_BYTES_MAX: u64 = 3_000_000_000;

/// Bytes of a stream's segment if it says nothing (RabbitMQ): what retention removes at once.
pub const STREAM_SEGMENT_BYTES_DEFAULT: u64 = 500_000_000;

/// Bytes of a stream's newest messages that stay in memory for consumers that keep up; more only while
/// they are not on disk.
pub const STREAM_TAIL_BYTES_MAX: usize = 1 << 20;

/// What each of them counts besides the message, in bytes.
pub const STREAM_TAIL_ITEM_BYTES: usize = 64;

/// Messages that one read of the journal gives a stream's consumer.
pub const STREAM_PAGE_COUNT_MAX: usize = 128;

/// Bytes of their bodies together, beyond which no more is read.
pub const STREAM_PAGE_BYTES_MAX: usize = 256 * 1_024;

/// Pages that one call reads before it leaves the rest to a timer.
pub const STREAM_READS_AT_ONCE_MAX: usize = 16;

/// Messages of a stream that are noted as gone in one record.
pub const STREAM_FORGET_COUNT_MAX: usize = 4_096;

/// Failed deliveries of one message of a quorum queue before it is dead-lettered, if the queue says
/// nothing (RabbitMQ 4; in 3.10 there was no limit).
pub const DELIVERY_LIMIT_DEFAULT: u32 = 20;

/// Bounds that an operator may change; 0 is not a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BrokerLimits {
    /// Unsent deliveries of one connection, in bytes. Beyond it nothing more is delivered to it.
    pub outbox_bytes_max: usize,
    /// Queues of one vhost. Beyond it: 406.
    pub queues_per_vhost_max: usize,
    /// Exchanges of one vhost. Beyond it: 406.
    pub exchanges_per_vhost_max: usize,
    /// Bindings of one vhost. Beyond it: 406.
    pub bindings_per_vhost_max: usize,
    /// Vhosts of the broker.
    pub vhosts_max: usize,
    /// Consumers of one queue. Beyond it: 406.
    pub consumers_per_queue_max: usize,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            outbox_bytes_max: OUTBOX_BYTES_DEFAULT,
            queues_per_vhost_max: 1_000_000,
            exchanges_per_vhost_max: 1_000_000,
            bindings_per_vhost_max: 10_000_000,
            vhosts_max: 10_000,
            consumers_per_queue_max: 100_000,
        }
    }
}

const _: () = assert!(PACKED_BYTES_MAX < BODY_COPY_BYTES_MAX);

/// Most timers that one call of the broker handles; the rest is left to the next call.
pub(crate) const TIMERS_AT_ONCE_MAX: usize = 256;

/// Most messages that expire in one call of a queue; its timer does the rest, so that no call takes long.
pub(crate) const EXPIRED_AT_ONCE_MAX: usize = 1_024;

/// Dead letters that the death of one batch of messages may lead to, beyond themselves. Queues that
/// bury in each other make more of them with each step; what is beyond is dropped, and an error logged.
pub(crate) const LETTERS_AT_ONCE_MAX: usize = 10_000;

/// Deaths that a message tells of; older ones are forgotten, so that its headers stay what a client may
/// send and every reader takes.
pub(crate) const DEATHS_KEPT_MAX: usize = 128;
