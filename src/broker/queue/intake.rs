//! How a published message comes into a queue: to a consumer, behind those that wait, or not at all.
//!
//! Owns: the order of the decisions: gone, refused, handed over, kept, dropped, expired.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::journal::Appended;

use super::super::dead_letter::{Dead, DeathReason};
use super::super::message::Message;
use super::super::outbox::Wakes;
use super::arguments::{Overflow, QueueKind, QueueSettings};
use super::expiry::Deadline;
use super::{After, Enqueued, Entry, MessageSeq, Queue, State, overflow};

impl Queue {
    /// Takes a published message: to a consumer at once, or behind those that wait.
    ///
    /// `message` is copied out of the read buffer if it stays, so that the next queue shares the copy.
    /// What dies of it, or is refused and wants a dead-letter exchange, is added to `dead`: the caller
    /// buries it once it has gone through all of its queues.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        message: &mut Message,
        record: Appended,
        now: Instant,
        dead: &mut Vec<Dead>,
        wakes: &mut Wakes,
    ) -> Enqueued {
        let mut after = After::default();
        let mut enqueued = Enqueued::Taken;
        {
            let mut state = self.lock();
            if state.deleted {
                after.leave(self, record.lsn, message);
                enqueued = Enqueued::Gone;
            } else if state.stream.is_some() {
                self.publish_to_stream(&mut state, message, record, &mut after, now, wakes);
            } else if overflow::refuses(&state.settings, &state.ready, message.size_bytes()) {
                enqueued = Enqueued::Rejected;
                self.refuse(&mut state, message, record, &mut after);
            } else {
                self.accept(&mut state, message, record, &mut after, now, wakes);
            }
        }
        let has_excess = after.has_excess;
        dead.append(&mut self.finish_but_dead(after));
        if has_excess {
            self.drop_from_disk(now, dead, wakes);
        }
        enqueued
    }

    /// Adds a message that a full queue does not refuse.
    #[inline]
    fn accept(
        self: &Arc<Self>,
        state: &mut State,
        message: &mut Message,
        record: Appended,
        after: &mut After,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let seq = MessageSeq(state.seq_next);
        state.seq_next += 1;
        state.counts.published += 1;
        let entry = Entry {
            message: message.clone(),
            lsn: record.lsn,
            location: record.location,
            redelivered: false,
            return_count: 0,
            deadline: self.deadline(state, message, now),
        };
        // Somebody may be ready while something waits only if that is still being read from disk.
        let kept = match state.ready.is_empty() {
            true => self.hand_over(state, seq, entry, after, wakes),
            false => Some(entry),
        };
        let Some(entry) = kept else { return };
        if is_for_now_only(&state.settings) {
            state.counts.expired += 1;
            return after.leave(self, entry.lsn, &entry.message);
        }
        drop(entry.message);
        message.detach();
        let message = message.clone();
        let deadline = entry.deadline;
        state.ready.push_back(seq, Entry { message, ..entry });
        let has_dropped = self.drop_excess(state, after);
        if has_dropped || deadline != Deadline::NEVER {
            self.expire(state, after, now);
        }
    }

    /// Turns a message away; with `reject-publish-dlx` it is a dead letter.
    // req: LENGTH-3
    fn refuse(
        self: &Arc<Self>,
        state: &mut State,
        message: &mut Message,
        record: Appended,
        after: &mut After,
    ) {
        state.counts.rejected += 1;
        if state.settings.overflow != Overflow::RejectPublishDlx {
            return after.leave(self, record.lsn, message);
        }
        message.detach();
        let entry = Entry {
            message: message.clone(),
            lsn: record.lsn,
            location: record.location,
            redelivered: false,
            return_count: 0,
            deadline: Deadline::NEVER,
        };
        after.bury(self, &state.settings, entry, DeathReason::MaxLength);
    }
}

/// Whether a message that nobody takes at once is not kept, wherever it would stand: a TTL of 0 and no
/// dead-letter exchange. A quorum queue looks at its front only (RabbitMQ).
// req: TTL-8
#[inline]
fn is_for_now_only(settings: &QueueSettings) -> bool {
    settings.message_ttl == Some(Duration::ZERO)
        && settings.dead_letter_exchange.is_none()
        && settings.kind == QueueKind::Classic
}
