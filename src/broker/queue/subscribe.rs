//! Consumers of a queue come and go.
//!
//! Owns: who may consume beside whom, and what a cancel leaves behind.

use std::sync::Arc;
use std::time::Instant;

use super::super::consumer::Consumer;
use super::super::outbox::Wakes;
use super::super::timers::Earliest;
use super::consumers::Removed;
use super::types::{ConsumeRefused, NewConsumer};
use super::{After, Queue};

/// What a cancel found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cancelled {
    /// The consumer is gone and was the last one.
    Last,
    /// The consumer is gone; there are others.
    OthersRemain,
    /// It was the one that was served, and another took its place: let it draw ([`Queue::draw`]) once
    /// what comes back is back.
    TakenOver,
    /// It was not there.
    Unknown,
}

impl Queue {
    /// Adds a consumer and lets it draw.
    // req: SAC-2
    pub(crate) fn consume(
        self: &Arc<Self>,
        new: NewConsumer,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Arc<Consumer>, ConsumeRefused> {
        let mut after = After::default();
        let consumer = {
            let mut state = self.lock();
            if state.deleted {
                return Err(ConsumeRefused::Gone);
            }
            let is_single_active = self.spec.settings.single_active_consumer;
            let is_alone = state.consumers.is_empty() && !is_single_active;
            if state.consumers.has_exclusive() || (new.exclusive && !is_alone) {
                return Err(ConsumeRefused::InExclusiveUse);
            }
            if state.consumers.len() >= new.consumer_count_max {
                return Err(ConsumeRefused::TooMany);
            }
            let consumer = Arc::new(Consumer {
                queue: Arc::clone(self),
                outbox: new.outbox,
                limiter: new.limiter,
                window: new.window,
                id: state.consumers.next_id(),
                channel: new.channel,
                by: new.by,
                tag: new.tag,
                ack_mode: new.ack_mode,
                exclusive: new.exclusive,
                prefetch_count_max: new.prefetch_count_max,
                priority: new.priority,
                arguments: new.arguments,
            });
            state.consumers.add(Arc::clone(&consumer));
            if let Some(stream) = &mut state.stream {
                stream.add_reader(consumer.id, new.offset, new.filter, self.unix_ms(now));
            }
            self.dispatch(&mut state, &mut after, now, wakes);
            consumer
        };
        self.finish(after, now, wakes);
        Ok(consumer)
    }

    /// Takes a consumer out; what it holds unsettled stays out. Says whether it was the last one;
    /// a consumer that was gone already was nobody's last.
    pub(crate) fn cancel(self: &Arc<Self>, consumer: &Arc<Consumer>, now: Instant) -> Cancelled {
        let mut state = self.state.lock();
        let removed = state.consumers.remove(consumer.id);
        if let Some(stream) = &mut state.stream {
            stream.remove_reader(consumer.id);
        }
        let remaining_count = state.consumers.len();
        let is_last = removed != Removed::Unknown && remaining_count == 0;
        let earliest = match is_last {
            true => self.note_use(&mut state, now),
            false => Earliest::No,
        };
        drop(state);
        self.wake_timers(earliest);
        if removed == Removed::Unknown {
            return Cancelled::Unknown;
        }
        consumer.outbox.forget(consumer);
        consumer.forget_limits();
        match (remaining_count, removed) {
            (0, _) => Cancelled::Last,
            (_, Removed::Active) => Cancelled::TakenOver,
            (_, Removed::Other | Removed::Unknown) => Cancelled::OthersRemain,
        }
    }
}
