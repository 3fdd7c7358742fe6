//! What a call of a queue leaves to do once the queue's lock is gone.
//!
//! Owns: the journal numbers of messages that left, those that died and want a dead-letter exchange, and
//! whether a timer was set that comes before all others. Nothing of it may happen under the lock: a dead
//! letter goes into other queues, or into this one.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::disk::ReadFrom;
use crate::journal::{Lsn, QueueId};

use super::super::consumer::{Consumer, Share};
use super::super::dead_letter::{Dead, DeathReason};
use super::super::message::Message;
use super::super::outbox::Wakes;
use super::super::payloads::PayloadBody;
use super::arguments::QueueSettings;
use super::stream::{PageRead, Truncated};
use super::{Entry, Queue};

/// See above.
#[derive(Debug, Default)]
pub(super) struct After {
    /// Of messages that are gone for good.
    pub(super) left: SmallVec<[Lsn; 8]>,
    /// Payloads of those: they stay referred to until it is noted that the messages are gone, so that
    /// whoever sees a payload without references can wait for the journal (STORE-19).
    payloads: Vec<PayloadBody>,
    /// Of messages that came back and how often each did.
    pub(super) returns: SmallVec<[(Lsn, u32); 2]>,
    /// Pages that consumers of a stream wait for.
    pub(super) reads: Vec<PageRead>,
    /// Where a stream begins now, if it forgot something.
    pub(super) truncated: Option<Truncated>,
    /// Oldest first.
    pub(super) dead: Vec<Dead>,
    /// How many of them expired in this call, also without a dead-letter exchange.
    pub(super) expired_count: usize,
    /// More waits than may, and what is to be dropped must be read from disk first.
    pub(super) has_excess: bool,
    /// The timers' waiter is to be woken.
    pub(super) wake_timers: bool,
    /// A page is to be read, and the pager was not asked to.
    pub(super) wants_page: bool,
}

impl After {
    /// Notes that a message is gone for good.
    #[inline]
    pub(super) fn leave(&mut self, queue: &Queue, lsn: Lsn, message: &Message) {
        queue.forget_key(message);
        if lsn != Lsn::ZERO {
            self.left.push(lsn);
            self.hold(message);
        }
    }

    /// Keeps a message's payload, if it has one, until all is noted.
    #[inline]
    pub(super) fn hold(&mut self, message: &Message) {
        if let Some(payload) = message.payload() {
            self.payloads.push(payload.clone());
        }
    }

    /// Notes that a message came back for the `count`th time.
    pub(super) fn come_back(&mut self, lsn: Lsn, count: u32) {
        if lsn != Lsn::ZERO {
            self.returns.push((lsn, count));
        }
    }

    /// Notes that a message died; without a dead-letter exchange it is gone.
    pub(super) fn bury(
        &mut self,
        queue: &Arc<Queue>,
        settings: &Arc<QueueSettings>,
        entry: Entry,
        reason: DeathReason,
    ) {
        if settings.dead_letter_exchange.is_none() {
            return self.leave(queue, entry.lsn, &entry.message);
        }
        queue.forget_key(&entry.message);
        self.dead.push(Dead {
            queue: Arc::clone(queue),
            settings: Arc::clone(settings),
            message: entry.message,
            lsn: entry.lsn,
            reason,
        });
    }
}

/// Channels whose limit gets room once the lock is gone, each by one of its consumers; and consumers with a
/// window of their own.
pub(super) type Releases = SmallVec<[(Arc<Consumer>, Share); 2]>;

/// Deliveries that are settled in memory, before the journal knows and what follows is done.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(super) queue: Arc<Queue>,
    pub(super) after: After,
    pub(super) limiters: Releases,
}

impl Settled {
    /// Takes out the journal numbers of what is gone for good: the caller tells the journal.
    pub(crate) fn take_left(&mut self) -> (QueueId, Vec<Lsn>) {
        let left = std::mem::take(&mut self.after.left);
        (self.queue.id(), left.into_vec())
    }

    /// Does the rest. No lock may be held.
    pub(crate) fn finish(self, now: Instant, wakes: &mut Wakes) {
        self.queue.finish(self.after, now, wakes);
        for (consumer, share) in self.limiters {
            consumer.release(share, now, wakes);
        }
    }
}

impl Queue {
    /// Does what a call left to do. No lock may be held.
    pub(super) fn finish(self: &Arc<Self>, mut after: After, now: Instant, wakes: &mut Wakes) {
        let reads = std::mem::take(&mut after.reads);
        let has_excess = after.has_excess;
        let wants_page = after.wants_page;
        let mut dead = self.finish_but_dead(after);
        if !reads.is_empty() {
            self.read_pages(reads, now, wakes);
        }
        if has_excess {
            self.drop_from_disk(now, &mut dead, wakes);
        }
        self.bury(dead, now, wakes);
        if wants_page {
            self.load(ReadFrom::Cache, now, wakes);
        }
    }

    /// Publishes what died to its dead-letter exchange. No lock may be held.
    pub(super) fn bury(&self, dead: Vec<Dead>, now: Instant, wakes: &mut Wakes) {
        if !dead.is_empty()
            && let Some(vhost) = self.spec.home.upgrade()
        {
            vhost.bury(dead, now, wakes);
        }
    }

    /// As [`Self::finish`], but leaves the dead to the caller.
    #[inline]
    pub(super) fn finish_but_dead(&self, after: After) -> Vec<Dead> {
        self.journal_returns(&after.returns);
        if let Some(truncated) = after.truncated
            && let Some(vhost) = self.spec.home.upgrade()
        {
            vhost.forget_in_stream(self, truncated);
        }
        self.journal_left(&after.left);
        if after.wake_timers {
            self.spec.timers.wake();
        }
        after.dead
    }

    /// Notes in the journal how often messages came back, so that a restart does not forget it.
    fn journal_returns(&self, returns: &[(Lsn, u32)]) {
        let Some(journal) = &self.spec.journal else {
            return;
        };
        for same in returns.chunk_by(|(_, one), (_, other)| one == other) {
            let lsns: SmallVec<[Lsn; 8]> = same.iter().map(|(lsn, _)| *lsn).collect();
            if let Some((_, count)) = same.first()
                && let Err(error) = journal.append_noted(self.spec.id, &lsns, *count)
            {
                tracing::debug!(queue = %self.spec.name, %error, "returns were not journalled");
            }
        }
    }

    /// Notes in the journal that messages are gone. A failed journal ends the broker by its own way, so
    /// nobody waits for this and an error changes nothing here.
    pub(crate) fn journal_left(&self, left: &[Lsn]) {
        if let Some(journal) = &self.spec.journal
            && !left.is_empty()
            && let Err(error) = journal.append_acks(self.spec.id, left)
        {
            tracing::debug!(queue = %self.spec.name, %error, "acknowledgements were not journalled");
        }
    }
}
