//! Deliveries of one channel that the client has not settled, by delivery tag.
//!
//! Owns: the way from a tag back to the queue and the message's number there. Settling in order, the
//! usual case, takes from the front; a tag settled out of order leaves a gap until the front reaches it.
//! Bound: what prefetch allows, or what the client leaves unsettled; gaps are at most half of it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::{MessageSeq, Queue};

/// A delivery to be settled.
pub(super) type Owed = (Arc<Queue>, MessageSeq);

/// The unsettled deliveries of one channel.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// In the order of tags; `None` is settled already.
    entries: VecDeque<(u64, Option<Owed>)>,
    gap_count: usize,
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
    pub(super) fn push(&mut self, tag: u64, owed: Owed) {
        debug_assert!(
            self.entries.back().is_none_or(|(last, _)| *last < tag),
            "tags only grow"
        );
        self.entries.push_back((tag, Some(owed)));
    }

    /// Takes the delivery of this tag, if it is unsettled.
    #[inline]
    pub(super) fn take(&mut self, tag: u64) -> Option<Owed> {
        if self.entries.front().is_some_and(|(front, _)| *front == tag) {
            let owed = self.entries.pop_front().and_then(|(_, owed)| owed);
            self.drop_gaps_in_front();
            return owed;
        }
        let index = self
            .entries
            .binary_search_by_key(&tag, |(tag, _)| *tag)
            .ok()?;
        let owed = self.entries.get_mut(index)?.1.take()?;
        self.gap_count += 1;
        if self.gap_count > GAPS_KEPT_MAX.max(self.entries.len() / 2) {
            self.entries.retain(|(_, owed)| owed.is_some());
            self.gap_count = 0;
        }
        Some(owed)
    }

    /// Takes all up to and including this tag, oldest first; none unless the tag itself is unsettled.
    pub(super) fn take_up_to(&mut self, tag: u64) -> Option<Vec<(u64, Owed)>> {
        let index = self
            .entries
            .binary_search_by_key(&tag, |(tag, _)| *tag)
            .ok()?;
        self.entries.get(index)?.1.as_ref()?;
        let mut taken = Vec::with_capacity(index + 1);
        for (tag, owed) in self.entries.drain(..=index) {
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
            .filter_map(|(tag, owed)| owed.map(|owed| (tag, owed)))
            .collect()
    }

    /// Takes all, oldest first.
    pub(super) fn take_all(&mut self) -> Vec<Owed> {
        self.take_all_tagged()
            .into_iter()
            .map(|(_, owed)| owed)
            .collect()
    }

    /// Puts back what was taken, each to its place.
    pub(super) fn put_back(&mut self, taken: impl IntoIterator<Item = (u64, Owed)>) {
        let mut all = self.take_all_tagged();
        all.extend(taken);
        all.sort_by_key(|(tag, _)| *tag);
        self.entries = all
            .into_iter()
            .map(|(tag, owed)| (tag, Some(owed)))
            .collect();
    }

    fn drop_gaps_in_front(&mut self) {
        while self.entries.front().is_some_and(|(_, owed)| owed.is_none()) {
            self.entries.pop_front();
            self.gap_count -= 1;
        }
    }
}
