//! Length limits: what a queue does when it is full.
//!
//! Owns: the decision. Only waiting messages count, not those that are out (RabbitMQ).
//! Drop-head lets a new message in and drops from the front until the limits hold, which may drop the
//! new one; a message that comes back to a full queue is at its front, and so goes first.
//! Place for what is not built yet: what is dropped, and what `reject-publish-dlx` refuses, is to be
//! dead-lettered with reason `maxlen`.

use super::arguments::{Overflow, QueueSettings};
use super::priorities::Priorities;
use super::ready::Front;
use super::{Left, note_left};

/// Whether a new message must be refused, by the queue's limits before it is added.
pub(super) fn refuses(settings: &QueueSettings, ready: &Priorities, size_bytes: u64) -> bool {
    match settings.overflow {
        Overflow::DropHead => false,
        Overflow::RejectPublish | Overflow::RejectPublishDlx => {
            let count = ready.len() as u64 + 1;
            let bytes = ready.bytes().saturating_add(size_bytes);
            is_over(settings, count, bytes)
        }
    }
}

/// Drops from the front what is too much. Gives the number of messages dropped.
pub(super) fn drop_excess(
    settings: &QueueSettings,
    ready: &mut Priorities,
    left: &mut Left,
) -> u64 {
    if settings.overflow != Overflow::DropHead {
        return 0;
    }
    let mut dropped_count = 0;
    while is_over(settings, ready.len() as u64, ready.bytes())
        && let Front::Message(_, entry) = ready.pop_front()
    {
        note_left(left, entry.lsn);
        dropped_count += 1;
    }
    dropped_count
}

fn is_over(settings: &QueueSettings, count: u64, bytes: u64) -> bool {
    settings.length_count_max.is_some_and(|max| count > max)
        || settings.length_bytes_max.is_some_and(|max| bytes > max)
}
