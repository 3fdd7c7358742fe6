//! What becomes of messages that are out: acknowledged, rejected, or back in the queue.
//!
//! Owns: the ways of settling, and the place that a message gets that comes back (a quorum queue's are in
//! `quorum.rs`). What leaves for good goes to the journal and to the dead-letter exchange once the lock is gone
//! (`after.rs`); the limits of its consumers get room then.

use std::sync::Arc;
use std::time::Instant;

use super::super::consumer::{Consumer, Share};
use super::super::dead_letter::DeathReason;
use super::super::error::{Error, Resource, ResourceKind};
use super::super::outbox::Wakes;
use super::after::Releases;
use super::arguments::QueueKind;
use super::quorum::{self, Place};
use super::{After, Entry, MessageSeq, Queue, Settled, State};

/// What becomes of an unacknowledged message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settle {
    /// Done with: it leaves the queue.
    Ack,
    /// Rejected for good: it leaves the queue, for its dead-letter exchange if it has one.
    Discard,
    /// Back to the place that it had, marked as redelivered; a quorum queue has its own places.
    Requeue,
    /// As [`Self::Requeue`], because its channel ended and not because somebody said so.
    Return,
    /// Back to the place that it had, as if nobody had taken it: it does not count as having come back.
    Untouched,
}

impl Settle {
    /// Whether the message goes back to its queue.
    #[must_use]
    pub(crate) fn goes_back(self) -> bool {
        match self {
            Self::Ack | Self::Discard => false,
            Self::Requeue | Self::Return | Self::Untouched => true,
        }
    }
}

impl Queue {
    /// Whether this may be said of a message of this queue; `what` names the method.
    ///
    /// # Errors
    /// A stream's messages can only be acknowledged.
    pub fn check_settle(&self, how: Settle, what: &'static str) -> Result<(), Error> {
        match how {
            Settle::Ack | Settle::Return | Settle::Untouched => Ok(()),
            Settle::Discard | Settle::Requeue if self.kind() == QueueKind::Stream => {
                Err(Error::NotForStreams {
                    what,
                    resource: Resource {
                        kind: ResourceKind::Queue,
                        vhost: self.spec.vhost.clone(),
                        name: self.spec.name.clone(),
                    },
                })
            }
            Settle::Discard | Settle::Requeue => Ok(()),
        }
    }

    /// Settles messages that are out, in one go; numbers that are not out are passed over, since the
    /// session already knows which tags are outstanding.
    pub fn settle(
        self: &Arc<Self>,
        seqs: &[MessageSeq],
        how: Settle,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        self.settle_for_batch(seqs, how, now, wakes)
            .finish(now, wakes);
    }

    /// As [`Self::settle`], but leaves to the caller what is to be done without a lock, the journal first.
    #[inline]
    pub(crate) fn settle_for_batch(
        self: &Arc<Self>,
        seqs: &[MessageSeq],
        how: Settle,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Settled {
        let mut after = After::default();
        let mut limiters = Releases::new();
        {
            let mut state = self.lock();
            self.settle_in_stream(&mut state, seqs, &mut limiters);
            for seq in seqs {
                let Some(out) = state.unacked.remove(*seq) else {
                    continue;
                };
                if let Some(consumer) = &out.consumer {
                    state.consumers.settled(consumer.id);
                    note_release(&mut limiters, consumer, out.entry.message.size_bytes());
                }
                match how {
                    Settle::Ack => state.counts.delivery.acked += 1,
                    Settle::Discard => state.counts.discarded += 1,
                    Settle::Requeue | Settle::Return | Settle::Untouched => {
                        state.counts.requeued += 1;
                    }
                }
                if state.deleted {
                    continue;
                }
                match how {
                    Settle::Ack => after.leave(self, out.entry.lsn, &out.entry.message),
                    Settle::Discard => {
                        after.bury(self, &state.settings, out.entry, DeathReason::Rejected);
                    }
                    Settle::Requeue | Settle::Return | Settle::Untouched => {
                        self.take_back(&mut state, *seq, out.entry, how, &mut after);
                    }
                }
            }
            if how.goes_back() {
                self.drop_excess(&mut state, &mut after);
            }
            self.dispatch(&mut state, &mut after, now, wakes);
            // Who made room reads what fills it, if nothing waits for the disk: no other thread is woken for that.
            // req: SPILL-12
            after.wants_page = state.ready.ask_load();
        }
        Settled {
            queue: Arc::clone(self),
            after,
            limiters,
        }
    }

    /// Puts a message that was out where it belongs.
    fn take_back(
        self: &Arc<Self>,
        state: &mut State,
        seq: MessageSeq,
        mut entry: Entry,
        how: Settle,
        after: &mut After,
    ) {
        match quorum::come_back(&state.settings, &mut entry, how) {
            // Its deadline stays.
            // req: TTL-4
            Place::Old => state.ready.put_back(seq, entry),
            Place::First => state.ready.untake(seq, entry),
            Place::Returned => {
                after.come_back(entry.lsn, entry.return_count);
                state.ready.give_back(seq, entry);
            }
            Place::Last => {
                after.come_back(entry.lsn, entry.return_count);
                let seq = MessageSeq(state.seq_next);
                state.seq_next += 1;
                state.ready.push_back(seq, entry);
            }
            Place::Dead => after.bury(self, &state.settings, entry, DeathReason::DeliveryLimit),
        }
    }
}

/// Notes that a consumer has `bytes` fewer to settle.
pub(super) fn note_release(releases: &mut Releases, consumer: &Arc<Consumer>, bytes: u64) {
    let same = |other: &(Arc<Consumer>, Share)| other.0.shares_limits(consumer);
    match releases.iter().position(same) {
        Some(at) => releases[at].1.add(bytes),
        None => releases.push((Arc::clone(consumer), Share::one(bytes))),
    }
}
