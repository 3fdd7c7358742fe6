//! The messages of one queue that are out with consumers, or were fetched, and not yet settled.
//!
//! Owns: which they are and whom they count for. Taken mostly in order and settled mostly in order:
//! those live in a sorted line where the ends are reached at once; what is taken again after it came
//! back stands apart.
//! Bound: the sum of the prefetch counts; gaps are at most as many as messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::consumer::Consumer;
use super::{Entry, MessageSeq};

/// A message that is out.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) entry: Entry,
    /// Whose prefetch count and whose channel's limit it counts for, also after that consumer was
    /// cancelled; none for `basic.get`.
    pub(crate) consumer: Option<Arc<Consumer>>,
}

/// Unsettled messages by their number.
#[derive(Debug, Default)]
pub(crate) struct Unacked {
    /// Ascending; a gap is what was settled before those in front of it.
    line: VecDeque<(MessageSeq, Option<Out>)>,
    line_count: usize,
    /// Those that were out of order when they were taken.
    apart: BTreeMap<MessageSeq, Out>,
    bytes: u64,
}

impl Unacked {
    /// How many are out.
    pub(crate) fn len(&self) -> usize {
        self.line_count + self.apart.len()
    }

    /// The sum of their bodies in bytes, payloads included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes that a message is out.
    pub(crate) fn insert(&mut self, seq: MessageSeq, out: Out) {
        self.bytes += out.entry.message.size_bytes();
        if self.line.back().is_none_or(|(last, _)| *last < seq) {
            self.line.push_back((seq, Some(out)));
            self.line_count += 1;
        } else {
            self.apart.insert(seq, out);
        }
    }

    /// Takes out a message that is settled; none if it is not out.
    pub(crate) fn remove(&mut self, seq: MessageSeq) -> Option<Out> {
        let out = match self.remove_from_line(seq) {
            Some(out) => out,
            None => self.apart.remove(&seq)?,
        };
        self.bytes -= out.entry.message.size_bytes();
        Some(out)
    }

    /// The messages in order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (MessageSeq, &Out)> {
        let line = self.line.iter();
        let line = line.filter_map(|(seq, out)| out.as_ref().map(|out| (*seq, out)));
        line.chain(self.apart.iter().map(|(seq, out)| (*seq, out)))
    }

    fn remove_from_line(&mut self, seq: MessageSeq) -> Option<Out> {
        let first = self.line.front()?.0;
        // Mostly the line has no holes in its numbers, and the place is known.
        let guess = usize::try_from(seq.0.checked_sub(first.0)?).ok()?;
        let at = match self.line.get(guess) {
            Some((found, _)) if *found == seq => guess,
            _ => self
                .line
                .binary_search_by_key(&seq, |(found, _)| *found)
                .ok()?,
        };
        let out = self.line.get_mut(at)?.1.take()?;
        self.line_count -= 1;
        self.close_gaps();
        Some(out)
    }

    fn close_gaps(&mut self) {
        while let Some((_, None)) = self.line.front() {
            self.line.pop_front();
        }
        if self.line.len() > 64 && self.line.len() > 2 * self.line_count {
            self.line.retain(|(_, out)| out.is_some());
        }
    }
}
