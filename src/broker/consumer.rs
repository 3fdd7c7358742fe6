//! One consumer, and the limit that a channel's consumers share.
//!
//! Owns: what never changes about a consumer, and the count behind `basic.qos` with `global`.
//! A consumer's own prefetch count is kept by its queue (`queue/consumers.rs`).
//! Spec: RabbitMQ's reading of `basic.qos`: not global means each consumer started afterwards,
//! global means the channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::amqp::field::FieldTable;

use super::name::Name;
use super::outbox::{Outbox, Wakes};
use super::queue::{self, Queue};

/// Whether a consumer acknowledges what it gets (`no-ack`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AckMode {
    /// Each delivery stays unacknowledged until settled.
    Manual,
    /// A delivery is settled when it is handed over (`no-ack`).
    Automatic,
}

/// A consumer of one queue, from `basic.consume` on.
#[derive(Debug)]
pub struct Consumer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) limiter: Arc<ChannelLimiter>,
    pub(crate) id: ConsumerId,
    pub(crate) channel: u16,
    /// Its channel's name in events, and its user's.
    pub(crate) by: (Box<str>, Name),
    pub(crate) tag: Name,
    pub(crate) ack_mode: AckMode,
    pub(crate) exclusive: bool,
    pub(crate) prefetch_count_max: u32,
    pub(crate) priority: i64,
    pub(crate) arguments: FieldTable,
}

/// A consumer's place in its queue, and a number that tells it from later ones in the same place.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct ConsumerId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

impl Consumer {
    /// The queue it consumes.
    #[must_use]
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The channel of its connection.
    #[must_use]
    pub fn channel(&self) -> u16 {
        self.channel
    }

    /// Its tag, unique on its channel.
    #[must_use]
    pub fn tag(&self) -> &Name {
        &self.tag
    }

    /// Whether its deliveries must be settled.
    #[must_use]
    pub fn ack_mode(&self) -> AckMode {
        self.ack_mode
    }

    /// Whether it wants the queue to itself.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// How many unsettled deliveries it may hold; 0 for no limit.
    #[must_use]
    pub fn prefetch_count_max(&self) -> u32 {
        self.prefetch_count_max
    }

    /// `x-priority`; 0 if it gave none.
    #[must_use]
    pub fn priority(&self) -> i64 {
        self.priority
    }

    /// The arguments of `basic.consume`.
    #[must_use]
    pub fn arguments(&self) -> &FieldTable {
        &self.arguments
    }
}

/// The limit that all acknowledging consumers of one channel share (`basic.qos` with `global`).
///
/// Counts from the first delivery on, so that a limit set later is exact.
#[derive(Debug, Default)]
pub struct ChannelLimiter {
    /// Deliveries out.
    used_count: AtomicU32,
    /// 0 for no limit.
    count_max: AtomicU32,
    stalled: Mutex<Vec<Arc<Consumer>>>,
}

impl ChannelLimiter {
    /// No limit, nothing out.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the limit; 0 lifts it. Takes effect at once.
    pub fn set_count_max(&self, count_max: u32, now: Instant, wakes: &mut Wakes) {
        self.count_max.store(count_max, Ordering::SeqCst);
        self.resume_stalled(now, wakes);
    }

    /// The limit; 0 for none.
    #[must_use]
    pub fn count_max(&self) -> u32 {
        self.count_max.load(Ordering::SeqCst)
    }

    /// Counts one delivery, or notes that `consumer` waits for room. Called under its queue's and its
    /// outbox's lock.
    pub(crate) fn acquire(&self, consumer: &Arc<Consumer>) -> bool {
        if self.count_max.load(Ordering::SeqCst) == 0 {
            self.used_count.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        // Under the lock, so that a release between the test and the note is not missed.
        let mut stalled = self.stalled.lock();
        if self.has_room() {
            self.used_count.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        stalled.push(Arc::clone(consumer));
        false
    }

    /// Takes back counts of settled deliveries and lets waiting consumers try again. No lock may be held.
    pub(crate) fn release(&self, count: u32, now: Instant, wakes: &mut Wakes) {
        let before = self.used_count.fetch_sub(count, Ordering::SeqCst);
        debug_assert!(before >= count, "released what was never acquired");
        // Nobody waits without a limit: lifting it lets all of them go.
        if self.count_max.load(Ordering::SeqCst) != 0 {
            self.resume_stalled(now, wakes);
        }
    }

    /// Drops a consumer that left its queue while it was stalled.
    pub(crate) fn forget(&self, consumer: &Arc<Consumer>) {
        let mut stalled = self.stalled.lock();
        stalled.retain(|stalled| !Arc::ptr_eq(stalled, consumer));
    }

    fn resume_stalled(&self, now: Instant, wakes: &mut Wakes) {
        if !self.has_room() {
            return;
        }
        let resumed = std::mem::take(&mut *self.stalled.lock());
        queue::resume(resumed, now, wakes);
    }

    fn has_room(&self) -> bool {
        let count_max = self.count_max.load(Ordering::SeqCst);
        count_max == 0 || self.used_count.load(Ordering::SeqCst) < count_max
    }
}
