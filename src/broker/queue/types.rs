//! What goes into a queue's calls and comes out of them, and what it counts.

use std::sync::Arc;
use std::time::Instant;

use crate::amqp::field::FieldTable;

use super::super::consumer::{AckMode, ChannelLimiter};
use super::super::message::Message;
use super::super::name::Name;
use super::super::outbox::Outbox;
use super::super::statistics::DeliveryCounts;
use super::MessageSeq;
use super::arguments::{QueueKind, StreamOffset};
use super::stream::Filter;

/// What happened in a queue since it was declared, for statistics. Numbers of messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueCounts {
    /// Messages that came in.
    pub published: u64,
    /// What its consumers got and acknowledged.
    pub delivery: DeliveryCounts,
    /// Rejected for good.
    pub discarded: u64,
    /// Put back.
    pub requeued: u64,
    /// Removed by a purge.
    pub purged: u64,
    /// Died of age.
    pub expired: u64,
    /// Dropped from the front of a full queue.
    pub dropped: u64,
    /// Refused because the queue was full.
    pub rejected: u64,
    /// Gone because a page of a long queue could not be read back: transient ones only, unless the
    /// journal is damaged too.
    pub lost: u64,
}

impl QueueCounts {
    /// Adds what happened in another queue.
    pub fn add(&mut self, other: &Self) {
        let Self {
            published,
            delivery,
            discarded,
            requeued,
            purged,
            expired,
            dropped,
            rejected,
            lost,
        } = other;
        self.published += published;
        self.delivery.add(delivery);
        self.discarded += discarded;
        self.requeued += requeued;
        self.purged += purged;
        self.expired += expired;
        self.dropped += dropped;
        self.rejected += rejected;
        self.lost += lost;
    }
}

/// What happened in queues, for each kind of queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CountsByKind([QueueCounts; 3]);

impl CountsByKind {
    /// The kinds, in the order of the counts.
    const KINDS: [QueueKind; 3] = [QueueKind::Classic, QueueKind::Quorum, QueueKind::Stream];

    /// Adds what happened in a queue of this kind.
    pub fn add(&mut self, kind: QueueKind, counts: &QueueCounts) {
        let pairs = self.0.iter_mut().zip(Self::KINDS);
        for (of_kind, _) in pairs.filter(|(_, known)| *known == kind) {
            of_kind.add(counts);
        }
    }

    /// Each kind with what happened in its queues.
    pub fn iter(&self) -> impl Iterator<Item = (QueueKind, &QueueCounts)> {
        Self::KINDS.into_iter().zip(&self.0)
    }
}

/// A queue's size at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueDepth {
    /// Messages that wait.
    pub ready_count: usize,
    /// Sum of their bodies in bytes, payloads included.
    pub ready_bytes: u64,
    /// Messages that are out and not settled.
    pub unacked_count: usize,
    /// Sum of their bodies in bytes, payloads included.
    pub unacked_bytes: u64,
    /// Consumers.
    pub consumer_count: usize,
}

/// A message fetched with `basic.get`.
#[derive(Debug)]
pub struct Got {
    /// The message.
    pub message: Message,
    /// Its number, for [`Queue::settle`](super::Queue::settle); of no use if it was fetched without acknowledgement.
    pub seq: MessageSeq,
    /// Whether it was handed to anybody before.
    pub redelivered: bool,
    /// How many messages wait behind it.
    pub remaining_count: usize,
}

/// Whether a queue took a published message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Enqueued {
    /// It did; it may have dropped it at once, if it is full.
    Taken,
    /// It is full and refuses.
    Rejected,
    /// It was deleted meanwhile: as if it had not been bound.
    Gone,
}

/// Why a consumer cannot be added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ConsumeRefused {
    /// Somebody has the queue to himself, or wants it and is not alone.
    InExclusiveUse,
    /// The queue was deleted meanwhile.
    Gone,
    /// `consumers_per_queue_max` is reached.
    TooMany,
}

/// What a new consumer is made of.
#[derive(Debug)]
pub(crate) struct NewConsumer {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) limiter: Arc<ChannelLimiter>,
    /// Its own window of bytes, if it has one.
    pub(crate) window: Option<Arc<ChannelLimiter>>,
    pub(crate) channel: u16,
    pub(crate) by: (Box<str>, Name),
    pub(crate) tag: Name,
    pub(crate) ack_mode: AckMode,
    pub(crate) exclusive: bool,
    pub(crate) prefetch_count_max: u32,
    pub(crate) priority: i64,
    pub(crate) arguments: FieldTable,
    pub(crate) consumer_count_max: usize,
    /// Where it begins to read, if the queue is a stream.
    pub(crate) offset: StreamOffset,
    /// And what it wants to see there.
    pub(crate) filter: Filter,
}

/// Why a conditional delete is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DeleteRefused {
    NotEmpty,
    InUse,
    /// Somebody else was faster.
    Gone,
}

/// What must hold for a queue to be deleted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct DeleteConditions {
    pub(crate) if_unused: bool,
    pub(crate) if_empty: bool,
    /// Only if it has been unused for its time at this moment.
    pub(crate) if_expired: Option<Instant>,
}

impl DeleteConditions {
    /// As an auto-delete queue goes.
    pub(crate) const IF_UNUSED: Self = Self {
        if_unused: true,
        if_empty: false,
        if_expired: None,
    };

    /// As a queue goes that nobody used for its time.
    pub(crate) fn expired(now: Instant) -> Self {
        Self {
            if_expired: Some(now),
            ..Self::IF_UNUSED
        }
    }
}
