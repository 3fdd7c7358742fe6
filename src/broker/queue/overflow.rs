//! Length limits: what a queue does when it is full.
//!
//! Owns: the decision, and the dropping. Only waiting messages count, not those that are out (RabbitMQ).
//! Drop-head lets a new message in and drops from the front until the limits hold, which may drop the
//! new one; a message that comes back to a full queue is at its front, and so goes first.
//! What is dropped, and what `reject-publish-dlx` refuses, is dead-lettered with reason `maxlen`.

use std::sync::Arc;

use super::super::dead_letter::DeathReason;
use super::arguments::{Overflow, QueueKind, QueueSettings};
use super::priorities::Priorities;
use super::ready::Front;
use super::{After, Queue, State};

impl Queue {
    /// Drops from the front what a full queue does not keep; says whether there was something.
    // req: LENGTH-2
    pub(super) fn drop_excess(self: &Arc<Self>, state: &mut State, after: &mut After) -> bool {
        let mut has_dropped = false;
        while is_excessive(&state.settings, &state.ready)
            && let Front::Message(_, entry) = state.ready.pop_front()
        {
            has_dropped = true;
            state.counts.dropped += 1;
            after.bury(self, &state.settings, entry, DeathReason::MaxLength);
        }
        after.has_excess = is_excessive(&state.settings, &state.ready);
        has_dropped
    }
}

/// Whether a new message must be refused, by the queue's limits before it is added.
pub(super) fn refuses(settings: &QueueSettings, ready: &Priorities, size_bytes: u64) -> bool {
    match settings.overflow {
        Overflow::DropHead => false,
        Overflow::RejectPublish | Overflow::RejectPublishDlx => {
            // A quorum queue learns that it is full when it is (RabbitMQ).
            let (more_count, more_bytes) = match settings.kind {
                QueueKind::Quorum => (0, 0),
                QueueKind::Classic | QueueKind::Stream => (1, size_bytes),
            };
            let count = ready.len() as u64 + more_count;
            let bytes = ready.bytes().saturating_add(more_bytes);
            is_over(settings, count, bytes)
        }
    }
}

/// Whether the front is too much and must be dropped.
// req: LENGTH-1
#[inline]
pub(super) fn is_excessive(settings: &QueueSettings, ready: &Priorities) -> bool {
    settings.overflow == Overflow::DropHead
        && (settings.length_count_max.is_some() || settings.length_bytes_max.is_some())
        && is_over(settings, ready.len() as u64, ready.bytes())
}

#[inline]
fn is_over(settings: &QueueSettings, count: u64, bytes: u64) -> bool {
    settings.length_count_max.is_some_and(|max| count > max)
        || settings.length_bytes_max.is_some_and(|max| bytes > max)
}
