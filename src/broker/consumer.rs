//! One consumer, and the limit that a channel's consumers share.
//!
//! Owns: what never changes about a consumer, the counts behind `basic.qos` with `global`, and windows of bytes
//! (`prefetch_size`), which are a consumer's own or its channel's.
//! A consumer's own prefetch count is kept by its queue (`queue/consumers.rs`).
//! Spec: RabbitMQ's reading of `basic.qos`: not global means each consumer started afterwards,
//! global means the channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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

/// What `basic.qos` without `global` limits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum QosScope {
    /// Each consumer that is started afterwards (RabbitMQ).
    #[default]
    Consumer,
    /// The channel, at once (the standard).
    Channel,
}

/// How much one consumer may hold unsettled.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Prefetch {
    /// Deliveries; 0 for no limit.
    pub count_max: u16,
    /// Bytes of bodies, when more is sent ahead; 0 for no limit.
    pub bytes_max: u32,
    /// Whether the channel's limit is what the client calls global, which some types of queues refuse.
    pub scope: QosScope,
}

impl Prefetch {
    /// So many deliveries, whatever their size.
    #[must_use]
    pub fn of(count_max: u16) -> Self {
        Self {
            count_max,
            ..Self::default()
        }
    }
}

/// A consumer of one queue, from `basic.consume` on.
#[derive(Debug)]
pub struct Consumer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) limiter: Arc<ChannelLimiter>,
    /// Its own window of bytes, if it has one: shared with nobody.
    pub(crate) window: Option<Arc<ChannelLimiter>>,
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

    /// How many bytes of bodies it may hold unsettled; 0 for no limit.
    #[must_use]
    pub fn prefetch_bytes_max(&self) -> u32 {
        self.window.as_ref().map_or(0, |window| window.bytes_max())
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

    /// Counts one delivery of a body of `bytes` where it counts, or notes that this consumer waits for room.
    /// Called under its queue's and its outbox's lock.
    // req: QOS-2
    pub(crate) fn acquire(self: &Arc<Self>, bytes: u64) -> bool {
        if let Some(window) = &self.window
            && !window.acquire(self, bytes)
        {
            return false;
        }
        let has_acquired = self.limiter.acquire(self, bytes);
        if !has_acquired && let Some(window) = &self.window {
            // Nobody else uses it, so nobody has to hear of this.
            window.take_back(Share::one(bytes));
        }
        has_acquired
    }

    /// Takes back what settled deliveries counted. No lock may be held.
    pub(crate) fn release(&self, share: Share, now: Instant, wakes: &mut Wakes) {
        if let Some(window) = &self.window {
            window.release(share, now, wakes);
        }
        self.limiter.release(share, now, wakes);
    }

    /// Whether deliveries of both count in the same places.
    pub(crate) fn shares_limits(&self, other: &Self) -> bool {
        let is_same_consumer = std::ptr::eq(self, other);
        let has_window = self.window.is_some() || other.window.is_some();
        is_same_consumer || (!has_window && Arc::ptr_eq(&self.limiter, &other.limiter))
    }

    /// It left its queue: nobody needs to tell it of room.
    pub(crate) fn forget_limits(self: &Arc<Self>) {
        self.limiter.forget(self);
        if let Some(window) = &self.window {
            window.forget(self);
        }
    }
}

/// What deliveries count against a limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Share {
    pub(crate) count: u32,
    /// Of their bodies, payloads included.
    pub(crate) bytes: u64,
}

impl Share {
    /// One delivery of a body of this size.
    pub(crate) fn one(bytes: u64) -> Self {
        Self { count: 1, bytes }
    }

    /// Another delivery.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Whether a limiter counts bytes beside messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum CountBytes {
    #[default]
    No,
    Yes,
}

/// The limit that all acknowledging consumers of one channel share (`basic.qos` with `global`), or the window of
/// bytes of one consumer.
///
/// Counts from the first delivery on, so that a limit set later is exact. A window of bytes holds back only
/// what is sent ahead: a message larger than it passes when nothing is out.
#[derive(Debug, Default)]
pub struct ChannelLimiter {
    count_bytes: CountBytes,
    /// Deliveries out.
    used_count: AtomicU32,
    /// Bytes of their bodies, if they are counted.
    used_bytes: AtomicU64,
    /// 0 for no limit.
    count_max: AtomicU32,
    /// 0 for no limit.
    bytes_max: AtomicU32,
    stalled: Mutex<Vec<Arc<Consumer>>>,
}

impl ChannelLimiter {
    /// No limit, nothing out; it counts messages only, and never has a limit of bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No limit, nothing out; it counts bytes too.
    #[must_use]
    pub fn counting_bytes() -> Self {
        Self {
            count_bytes: CountBytes::Yes,
            ..Self::default()
        }
    }

    /// A window of so many bytes.
    pub(crate) fn window(bytes_max: u32) -> Self {
        Self {
            bytes_max: AtomicU32::new(bytes_max),
            ..Self::counting_bytes()
        }
    }

    /// Sets the limits, messages and bytes of their bodies; 0 lifts one. Takes effect at once.
    pub fn set(&self, count_max: u32, bytes_max: u32, now: Instant, wakes: &mut Wakes) {
        debug_assert!(
            bytes_max == 0 || self.count_bytes == CountBytes::Yes,
            "what is limited is counted"
        );
        self.count_max.store(count_max, Ordering::SeqCst);
        self.bytes_max.store(bytes_max, Ordering::SeqCst);
        self.resume_stalled(now, wakes);
    }

    /// The limit of messages; 0 for none.
    #[must_use]
    pub fn count_max(&self) -> u32 {
        self.count_max.load(Ordering::SeqCst)
    }

    /// The limit of bytes; 0 for none.
    #[must_use]
    pub fn bytes_max(&self) -> u32 {
        self.bytes_max.load(Ordering::SeqCst)
    }

    /// Whether there is any limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.count_max() != 0 || self.bytes_max() != 0
    }

    fn acquire(&self, consumer: &Arc<Consumer>, bytes: u64) -> bool {
        if !self.is_limited() {
            self.take(bytes);
            return true;
        }
        // Under the lock, so that a release between the test and the note is not missed.
        let mut stalled = self.stalled.lock();
        if self.has_room_for(bytes) {
            self.take(bytes);
            return true;
        }
        stalled.push(Arc::clone(consumer));
        false
    }

    fn take(&self, bytes: u64) {
        if self.count_bytes == CountBytes::Yes {
            self.used_bytes.fetch_add(bytes, Ordering::SeqCst);
        }
        self.used_count.fetch_add(1, Ordering::SeqCst);
    }

    fn take_back(&self, share: Share) {
        if self.count_bytes == CountBytes::Yes {
            let before = self.used_bytes.fetch_sub(share.bytes, Ordering::SeqCst);
            debug_assert!(before >= share.bytes, "released what was never acquired");
        }
        let before = self.used_count.fetch_sub(share.count, Ordering::SeqCst);
        debug_assert!(before >= share.count, "released what was never acquired");
    }

    /// Lets waiting consumers try again once settled deliveries are taken back.
    fn release(&self, share: Share, now: Instant, wakes: &mut Wakes) {
        self.take_back(share);
        // Nobody waits without a limit: lifting it lets all of them go.
        if self.is_limited() {
            self.resume_stalled(now, wakes);
        }
    }

    fn forget(&self, consumer: &Arc<Consumer>) {
        let mut stalled = self.stalled.lock();
        stalled.retain(|stalled| !Arc::ptr_eq(stalled, consumer));
    }

    fn resume_stalled(&self, now: Instant, wakes: &mut Wakes) {
        // What each of them waits with may be of any size; the least is 0.
        if !self.has_room_for(0) {
            return;
        }
        let resumed = std::mem::take(&mut *self.stalled.lock());
        queue::resume(resumed, now, wakes);
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        let count_max = self.count_max.load(Ordering::SeqCst);
        let used_count = self.used_count.load(Ordering::SeqCst);
        if count_max != 0 && used_count >= count_max {
            return false;
        }
        let bytes_max = self.bytes_max.load(Ordering::SeqCst);
        let used_bytes = self.used_bytes.load(Ordering::SeqCst);
        bytes_max == 0 || used_count == 0 || used_bytes.saturating_add(bytes) <= bytes_max.into()
    }
}
