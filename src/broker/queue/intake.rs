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
use super::{After, Enqueued, Entry, MessageSeq, Queue, State, has_record, overflow};

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
        self.finish_intake(after, now, dead, wakes);
        enqueued
    }

    /// Takes messages that came one behind the other and go to the same queues, in order: as [`Self::enqueue`]
    /// for each, with what can be paid once. `records` has a place for each of them or for none; the places of
    /// refused ones are added to `refused`.
    ///
    /// A queue that is gone leaves the messages where they are.
    pub(crate) fn enqueue_run(
        self: &Arc<Self>,
        mut run: Run<'_>,
        records: &[Appended],
        refused: &mut Vec<usize>,
        now: Instant,
        dead: &mut Vec<Dead>,
        wakes: &mut Wakes,
    ) -> Enqueued {
        debug_assert!(!self.is_ordered(), "its messages come one by one");
        let mut after = After::default();
        let mut enqueued = Enqueued::Taken;
        {
            let mut state = self.lock();
            if state.deleted {
                enqueued = Enqueued::Gone;
                let left = records.iter().map(|record| record.lsn);
                after.left.extend(left.filter(has_record));
            } else {
                let mut next = run.start(records);
                let mut next = |state: &mut State, after: &mut After| loop {
                    let (at, mut message, record) = next()?;
                    if overflow::refuses(&state.settings, &state.ready, message.size_bytes()) {
                        self.refuse(state, &mut message, record, after);
                        refused.push(at);
                        continue;
                    }
                    return Some(self.admit(state, message, record, now));
                };
                // Somebody may be ready while something waits only if that is still being read from disk.
                let mut left = match state.ready.is_empty() && !state.consumers.is_empty() {
                    true => self.hand_over(&mut state, &mut next, &mut after, wakes),
                    false => None,
                };
                while let Some((seq, mut entry)) = left.or_else(|| next(&mut state, &mut after)) {
                    entry.message.detach();
                    self.keep(&mut state, seq, entry, &mut after, now);
                    left = None;
                }
            }
        }
        self.finish_intake(after, now, dead, wakes);
        enqueued
    }

    /// Does what taking messages left to be done once the lock is free; what dies is added to `dead`.
    #[inline]
    fn finish_intake(
        self: &Arc<Self>,
        after: After,
        now: Instant,
        dead: &mut Vec<Dead>,
        wakes: &mut Wakes,
    ) {
        let has_excess = after.has_excess;
        dead.append(&mut self.finish_but_dead(after));
        if has_excess {
            self.drop_from_disk(now, dead, wakes);
        }
    }

    /// Gives a message its number.
    #[inline]
    fn admit(
        &self,
        state: &mut State,
        message: Message,
        record: Appended,
        now: Instant,
    ) -> (MessageSeq, Entry) {
        let seq = MessageSeq(state.seq_next);
        state.seq_next += 1;
        state.counts.published += 1;
        let entry = Entry {
            deadline: self.deadline(state, &message, now),
            message,
            lsn: record.lsn,
            location: record.location,
            redelivered: false,
            return_count: 0,
        };
        (seq, entry)
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
        let admitted = self.admit(state, message.clone(), record, now);
        // Somebody may be ready while something waits only if that is still being read from disk.
        let kept = match state.ready.is_empty() && !state.consumers.is_empty() {
            true => {
                let mut only = Some(admitted);
                let left = self.hand_over(state, |_, _| only.take(), after, wakes);
                // Nobody was there to be given anything.
                left.or(only)
            }
            false => Some(admitted),
        };
        let Some((seq, entry)) = kept else { return };
        drop(entry.message);
        message.detach();
        let message = message.clone();
        self.keep(state, seq, Entry { message, ..entry }, after, now);
    }

    /// Puts a message that nobody takes at once behind those that wait.
    #[inline]
    fn keep(
        self: &Arc<Self>,
        state: &mut State,
        seq: MessageSeq,
        entry: Entry,
        after: &mut After,
        now: Instant,
    ) {
        if is_for_now_only(&state.settings) {
            state.counts.expired += 1;
            return after.leave(self, entry.lsn, &entry.message);
        }
        let deadline = entry.deadline;
        state.ready.push_back(seq, entry);
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

/// Messages that came one behind the other.
#[derive(Debug)]
pub(crate) enum Run<'a> {
    /// Other queues get them too.
    Shared(&'a [Message]),
    /// Nobody else wants them.
    Owned(&'a mut Vec<Message>),
}

impl Run<'_> {
    /// Gives them one by one, each with its place and its record.
    fn start<'a>(
        &'a mut self,
        records: &'a [Appended],
    ) -> impl FnMut() -> Option<(usize, Message, Appended)> + 'a {
        let (mut shared, mut owned) = match self {
            Run::Shared(messages) => (messages.iter(), None),
            Run::Owned(messages) => ([].iter(), Some(messages.drain(..))),
        };
        let mut places = 0..;
        move || {
            let message = match &mut owned {
                Some(owned) => owned.next()?,
                None => shared.next()?.clone(),
            };
            let at = places.next()?;
            let record = records.get(at).copied().unwrap_or(Appended::NONE);
            Some((at, message, record))
        }
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
