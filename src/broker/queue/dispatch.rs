//! Who gets what waits: messages go to consumers in turn, as long as there are both.
//!
//! Owns: the hand-over under the queue's lock, which restores the queue's invariant: when the lock is free, nothing
//! waits, or nobody is ready, or the first that waits is being read from disk. Whose turn it is, `consumers.rs` knows;
//! what stands first, `priorities.rs`; a stream's consumers are fed by `feed.rs`.
//! Bound: [`EXPIRED_AT_ONCE_MAX`] messages that are found dead on the way in one call.

use std::sync::Arc;
use std::time::Instant;

use crate::journal::Lsn;

use super::super::consumer::{AckMode, Consumer};
use super::super::limits::EXPIRED_AT_ONCE_MAX;
use super::super::outbox::{Delivery, Handing, Pushed, Wakes};
use super::super::stamp::DELIVERY_COUNT;
use super::arguments::QueueKind;
use super::consumers::Unsettled;
use super::ready::Front;
use super::unacked::Out;
use super::{After, Entry, MessageSeq, Queue, State};

impl Queue {
    /// Hands over what can go, after another consumer became the active one.
    pub(crate) fn draw(self: &Arc<Self>, now: Instant, wakes: &mut Wakes) {
        self.resume(&[], now, wakes);
    }

    /// Consumers of this queue that stalled may have room again. All of them enter the round before
    /// anything is handed over, so that priorities hold.
    fn resume(self: &Arc<Self>, consumers: &[Arc<Consumer>], now: Instant, wakes: &mut Wakes) {
        let mut after = After::default();
        {
            let mut state = self.lock();
            for consumer in consumers {
                state.consumers.resume(consumer.id);
            }
            self.dispatch(&mut state, &mut after, now, wakes);
            after.wants_page = !consumers.is_empty() && state.ready.ask_load();
        }
        self.finish(after, now, wakes);
    }

    /// Restores the invariant: hands over what waits and lives, as long as anybody is ready.
    pub(super) fn dispatch(
        self: &Arc<Self>,
        state: &mut State,
        after: &mut After,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        if state.stream.is_some() {
            return self.feed(state, after, wakes);
        }
        let next = |state: &mut State, after: &mut After| loop {
            if after.expired_count >= EXPIRED_AT_ONCE_MAX {
                return None;
            }
            let Front::Message(seq, entry) = state.ready.pop_front() else {
                return None;
            };
            if !entry.deadline.has_come(now, &self.spec.timers) {
                return Some((seq, entry));
            }
            self.expired(state, entry, after);
        };
        if let Some((seq, entry)) = self.hand_over(state, next, after, wakes) {
            state.ready.untake(seq, entry);
        }
        if !state.ready.is_empty() {
            self.expire(state, after, now);
        }
    }

    /// Gives messages to whose turn it is, as long as somebody can take them and `next` has one; gives back
    /// the one that nobody could take.
    ///
    /// An outbox is held for as long as its consumer has the turn. A queue that drops duplicates lets go of it
    /// for each message, since what leaves makes room for its next of the same key.
    pub(super) fn hand_over(
        self: &Arc<Self>,
        state: &mut State,
        mut next: impl FnMut(&mut State, &mut After) -> Option<(MessageSeq, Entry)>,
        after: &mut After,
        wakes: &mut Wakes,
    ) -> Option<(MessageSeq, Entry)> {
        let mut left = None;
        while let Some(consumer) = state.consumers.front() {
            let consumer = Arc::clone(consumer);
            let (mut seq, mut entry) = match left.take() {
                Some(left) => left,
                None => next(state, after)?,
            };
            let mut handing = consumer.outbox.begin(&consumer);
            loop {
                let key_to_forget = match consumer.ack_mode {
                    AckMode::Automatic => self.key_of(&entry.message),
                    AckMode::Manual => None,
                };
                if let Some(entry) = self.hand_to(&mut handing, state, seq, entry, after, wakes) {
                    state.consumers.front_stalled();
                    left = Some((seq, entry));
                    break;
                }
                if self.keys.is_some() {
                    drop(handing);
                    self.forget(key_to_forget);
                    break;
                }
                if !state.consumers.is_front(&consumer) {
                    break;
                }
                (seq, entry) = next(state, after)?;
            }
        }
        left
    }

    /// Gives a message to a consumer whose outbox is held; gives it back if it cannot take it.
    #[inline]
    fn hand_to(
        &self,
        handing: &mut Handing<'_>,
        state: &mut State,
        seq: MessageSeq,
        mut entry: Entry,
        after: &mut After,
        wakes: &mut Wakes,
    ) -> Option<Entry> {
        let number = match self.spec.settings.kind {
            // A first delivery says nothing (RabbitMQ); `basic.get` always does.
            QueueKind::Quorum if entry.return_count > 0 => Some(entry.return_count),
            QueueKind::Quorum | QueueKind::Classic | QueueKind::Stream => None,
        };
        let consumer = handing.consumer();
        let (message, kept) = match (number, consumer.ack_mode) {
            (Some(count), _) => {
                let stamped = entry.message.with_number(DELIVERY_COUNT, count.into());
                (stamped, Some(entry.message))
            }
            (None, AckMode::Manual) => (entry.message.clone(), Some(entry.message)),
            (None, AckMode::Automatic) => {
                after.hold(&entry.message);
                (entry.message, None)
            }
        };
        let delivery = Delivery {
            message,
            seq,
            redelivered: entry.redelivered,
        };
        match handing.push(delivery, wakes) {
            Pushed::Taken => {
                state.counts.delivery.redelivered += u64::from(entry.redelivered);
                match (consumer.ack_mode, kept) {
                    (AckMode::Manual, Some(message)) => {
                        state.counts.delivery.delivered += 1;
                        state.consumers.front_took(Unsettled::Counts);
                        let consumer = Some(Arc::clone(consumer));
                        let entry = Entry { message, ..entry };
                        state.unacked.insert(seq, Out { entry, consumer });
                    }
                    (AckMode::Automatic, _) | (AckMode::Manual, None) => {
                        state.counts.delivery.delivered_no_ack += 1;
                        state.consumers.front_took(Unsettled::Free);
                        after
                            .left
                            .extend(Some(entry.lsn).filter(|lsn| *lsn != Lsn::ZERO));
                    }
                }
                None
            }
            Pushed::Stalled(delivery) | Pushed::Closed(delivery) => {
                entry.message = kept.unwrap_or(delivery.message);
                Some(entry)
            }
        }
    }
}

/// Lets stalled consumers draw again: whoever made room calls this, without a lock.
pub(crate) fn resume(mut stalled: Vec<Arc<Consumer>>, now: Instant, wakes: &mut Wakes) {
    stalled.sort_by_key(|consumer| consumer.queue.id());
    for of_queue in stalled.chunk_by(|one, other| one.queue.id() == other.queue.id()) {
        if let [first, ..] = of_queue {
            first.queue.resume(of_queue, now, wakes);
        }
    }
}
