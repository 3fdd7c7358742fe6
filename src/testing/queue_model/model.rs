//! The state of the model: queues, channels and consumers as they must be.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::{AckMode, ChannelLimiter, Consumer, MessageSeq, Queue};

use super::LENGTH_COUNT_MAX;

/// What a queue does when [`LENGTH_COUNT_MAX`] messages wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bound {
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

/// One queue as it must be.
#[derive(Debug, Default)]
pub(super) struct ModelQueue {
    pub(super) bound: Option<Bound>,
    pub(super) ttl_ms: Option<u64>,
    pub(super) priority_max: Option<u8>,
    pub(super) is_single_active: bool,
    /// It drops duplicates.
    pub(super) has_keys: bool,
    /// Who is served, if it is one alone.
    pub(super) active: Option<usize>,
    /// What waits, in the order in which it goes.
    pub(super) ready: BTreeMap<Rank, Waiting>,
    /// What died and was not compared yet: reason and number.
    pub(super) dead: Vec<(&'static str, u64)>,
    pub(super) published_count: u64,
    /// By which duplicates are told, of all messages that came in, by their numbers.
    pub(super) keys: BTreeMap<u64, u8>,
    /// Counts deletions, so that what was out before one is told from what came after.
    pub(super) life: u32,
}

/// Where a message stands: higher priorities first, then lower numbers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Rank {
    pub(super) priority: Reverse<u8>,
    pub(super) number: u64,
}

/// A message that waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Waiting {
    pub(super) redelivered: bool,
    /// In milliseconds since the start.
    pub(super) deadline_ms: Option<u64>,
    /// It goes to a consumer before its time counts.
    pub(super) goes_at_once: bool,
}

impl ModelQueue {
    pub(super) fn rank(&self, priority: u8, number: u64) -> Rank {
        Rank {
            priority: Reverse(self.priority_max.map_or(0, |max| priority.min(max))),
            number,
        }
    }

    pub(super) fn drop_excess(&mut self) {
        while self.bound == Some(Bound::DropHead) && self.ready.len() > LENGTH_COUNT_MAX {
            if let Some((rank, _)) = self.ready.pop_first() {
                self.dead.push(("maxlen", rank.number));
            }
        }
    }

    pub(super) fn refuses(&self) -> bool {
        let refuses = matches!(
            self.bound,
            Some(Bound::RejectPublish | Bound::RejectPublishDlx)
        );
        refuses && self.ready.len() >= LENGTH_COUNT_MAX
    }

    /// Lets what stands first die if its time is over.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some(first) = self.ready.first_entry() {
            let waiting = first.get();
            if waiting.goes_at_once || waiting.deadline_ms.is_none_or(|at| at > now_ms) {
                return;
            }
            let (rank, _) = first.remove_entry();
            self.dead.push(("expired", rank.number));
        }
    }
}

#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) queue: usize,
    pub(super) life: u32,
    pub(super) rank: Rank,
    pub(super) deadline_ms: Option<u64>,
    pub(super) handle: Arc<Queue>,
    pub(super) seq: MessageSeq,
    pub(super) consumer: Option<usize>,
}

impl Outstanding {
    /// As it waits when it has come back.
    pub(super) fn back(&self) -> Waiting {
        Waiting {
            redelivered: true,
            deadline_ms: self.deadline_ms,
            goes_at_once: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct ModelChannel {
    pub(super) limiter: Arc<ChannelLimiter>,
    pub(super) count_max: u32,
    pub(super) outstanding: Vec<Outstanding>,
}

impl ModelChannel {
    pub(super) fn has_room(&self) -> bool {
        let used = self
            .outstanding
            .iter()
            .filter(|out| out.consumer.is_some())
            .count();
        self.count_max == 0 || used < self.count_max as usize
    }
}

#[derive(Debug)]
pub(super) struct ModelConsumer {
    pub(super) handle: Arc<Consumer>,
    pub(super) queue: usize,
    pub(super) channel: usize,
    pub(super) ack_mode: AckMode,
    pub(super) exclusive: bool,
    pub(super) prefetch_count_max: usize,
    pub(super) priority: i64,
    pub(super) is_alive: bool,
}
