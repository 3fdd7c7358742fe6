//! Deliveries of one channel that the client has not settled, by delivery tag.
//!
//! Owns: the way from a tag back to the queue and the message's number there. Settling in order, the
//! usual case, takes from the front; a tag settled out of order leaves a gap until the front reaches it.
//! Bound: what prefetch allows, or what the client leaves unsettled; gaps are at most half of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{MessageSeq, Queue};

/// A delivery to be settled.
pub(super) type Owed = (Arc<Queue>, MessageSeq);

/// The unsettled deliveries of one channel.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// In the order of tags.
    entries: VecDeque<Entry>,
    gap_count: usize,
    /// When the first delivery was noted; the others count from it.
    begun: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    tag: u64,
    /// When it was delivered, in whole seconds since the first.
    since_seconds: u32,
    /// `None` is settled already.
    owed: Option<Owed>,
}

/// Fewer gaps than this are left to go by themselves.
const GAPS_KEPT_MAX: usize = 64;

impl Unsettled {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.gap_count
    }

    /// Notes a delivery; tags only grow.
    #[inline]
    pub(super) fn push(&mut self, tag: u64, owed: Owed, now: Instant) {
        debug_assert!(
            self.entries.back().is_none_or(|last| last.tag < tag),
            "tags only grow"
        );
        let since_seconds = self.seconds(now);
        self.entries.push_back(Entry {
            tag,
            since_seconds,
            owed: Some(owed),
        });
    }

    fn seconds(&mut self, now: Instant) -> u32 {
        let begun = *self.begun.get_or_insert(now);
        let seconds = now.saturating_duration_since(begun).as_secs();
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    /// The queue of the oldest delivery, and for how long it has been out, to the second.
    pub(super) fn oldest(&self, now: Instant) -> Option<(&Arc<Queue>, Duration)> {
        let oldest = self.entries.front()?;
        let (queue, _) = oldest.owed.as_ref()?;
        let delivered = self.begun? + Duration::from_secs(oldest.since_seconds.into());
        Some((queue, now.saturating_duration_since(delivered)))
    }

    /// Takes the delivery of this tag, if it is unsettled.
    #[inline]
    pub(super) fn take(&mut self, tag: u64) -> Option<Owed> {
        if self.entries.front().is_some_and(|front| front.tag == tag) {
            let owed = self.entries.pop_front().and_then(|front| front.owed);
            self.drop_gaps_in_front();
            return owed;
        }
        let index = self
            .entries
            .binary_search_by_key(&tag, |entry| entry.tag)
            .ok()?;
        let owed = self.entries.get_mut(index)?.owed.take()?;
        self.gap_count += 1;
        if self.gap_count > GAPS_KEPT_MAX.max(self.entries.len() / 2) {
            self.entries.retain(|entry| entry.owed.is_some());
            self.gap_count = 0;
        }
        Some(owed)
    }

    /// Takes all up to and including this tag, oldest first; none unless the tag itself is unsettled.
    pub(super) fn take_up_to(&mut self, tag: u64) -> Option<Vec<(u64, Owed)>> {
        let index = self
            .entries
            .binary_search_by_key(&tag, |entry| entry.tag)
            .ok()?;
        self.entries.get(index)?.owed.as_ref()?;
        let mut taken = Vec::with_capacity(index + 1);
        for Entry { tag, owed, .. } in self.entries.drain(..=index) {
            match owed {
                Some(owed) => taken.push((tag, owed)),
                None => self.gap_count -= 1,
            }
        }
        self.drop_gaps_in_front();
        Some(taken)
    }

    /// Takes all with their tags, oldest first.
    pub(super) fn take_all_tagged(&mut self) -> Vec<(u64, Owed)> {
        self.gap_count = 0;
        let entries = std::mem::take(&mut self.entries);
        entries
            .into_iter()
            .filter_map(|entry| entry.owed.map(|owed| (entry.tag, owed)))
            .collect()
    }

    /// Takes all, oldest first.
    pub(super) fn take_all(&mut self) -> Vec<Owed> {
        self.take_all_tagged()
            .into_iter()
            .map(|(_, owed)| owed)
            .collect()
    }

    /// Puts back what was taken, each to its place; it counts as delivered now.
    pub(super) fn put_back(&mut self, taken: impl IntoIterator<Item = (u64, Owed)>, now: Instant) {
        let since_seconds = self.seconds(now);
        self.gap_count = 0;
        self.entries.retain(|entry| entry.owed.is_some());
        self.entries
            .extend(taken.into_iter().map(|(tag, owed)| Entry {
                tag,
                since_seconds,
                owed: Some(owed),
            }));
        self.entries
            .make_contiguous()
            .sort_by_key(|entry| entry.tag);
    }

    fn drop_gaps_in_front(&mut self) {
        while self
            .entries
            .front()
            .is_some_and(|front| front.owed.is_none())
        {
            self.entries.pop_front();
            self.gap_count -= 1;
        }
    }
}
