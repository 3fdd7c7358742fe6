//! What a stream forgets: whole segments from its old end, by size and by age.
//!
//! Owns: the decision and the accounts. The segment that is written to always stays (RabbitMQ). What
//! goes is noted in the journal with no lock held: first where the stream begins now, then that the messages
//! left, so that a crash in between finds the beginning and lets the rest go again.

use std::time::Duration;

use crate::journal::Lsn;

use super::{Kept, Stream, tail_cost};

/// Where a stream begins after it forgot something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Truncated {
    /// Offset of the first message that is kept.
    pub(crate) first: u64,
    /// Numbers up to this one are gone.
    pub(crate) up_to: Lsn,
}

impl Stream {
    /// Forgets the oldest segments as far as size or age asks for it.
    // req: STREAM-5
    pub(crate) fn retain(
        &mut self,
        bytes_max: Option<u64>,
        age_max: Option<Duration>,
        now_unix_ms: u64,
    ) -> Option<Truncated> {
        let mut truncated = None;
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
        {
            let is_large = bytes_max.is_some_and(|max| self.bytes > max);
            let age_ms = now_unix_ms.saturating_sub(oldest.newest.unix_ms);
            let is_old = age_max.is_some_and(|max| u128::from(age_ms) > max.as_millis());
            if !is_large && !is_old {
                break;
            }
            let Some(gone) = self.segments.pop_front() else {
                break;
            };
            self.bytes -= gone.bytes;
            truncated = Some(Truncated {
                first: gone.first + gone.count,
                up_to: gone.newest.lsn,
            });
        }
        let truncated = truncated?;
        while self.tail_first() < truncated.first
            && let Some(kept) = self.tail.pop_front()
        {
            self.tail_bytes -= tail_cost(&kept);
        }
        self.payloads = self.payloads.split_off(&truncated.up_to.next());
        Some(truncated)
    }

    /// When the oldest segment is too old, in milliseconds since 1970; never while it is written to.
    pub(crate) fn ends_unix_ms(&self, age_max: Duration) -> Option<u64> {
        let oldest = self.segments.front()?;
        let age_ms = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
        (self.segments.len() > 1).then(|| {
            let ends = oldest.newest.unix_ms.saturating_add(age_ms);
            ends.saturating_add(1)
        })
    }

    /// Copies of `count` messages in memory from the offset on, if the first of them is there.
    pub(crate) fn peek_tail(&self, offset: u64, count: usize) -> Option<Vec<(u64, Kept)>> {
        self.in_tail(offset)?;
        let offsets = (offset..self.next).take(count);
        Some(
            offsets
                .filter_map(|offset| Some((offset, self.in_tail(offset)?.clone())))
                .collect(),
        )
    }

    /// Where messages from the offset on are to be read in the journal.
    pub(crate) fn place_of(&self, offset: u64) -> Option<(Lsn, u64)> {
        self.find(offset)
    }
}
