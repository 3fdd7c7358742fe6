//! Messages in memory, one behind the other.
//!
//! Owns: the chunks that they lie in, and what holding them costs. Chunks move between lines whole.
//! Bound: set by whoever fills it.

use std::collections::VecDeque;

use super::super::{Entry, MessageSeq};

/// Messages of one chunk.
const CHUNK_COUNT: usize = 128;

/// What holding a message costs beside its own octets: its place here and its allocation, in bytes.
pub(super) const ENTRY_BYTES: usize = 96;

/// Messages in the order of their queue.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// In chunks, so that growing never moves a long list.
    chunks: VecDeque<VecDeque<(MessageSeq, Entry)>>,
    count: usize,
    memory_bytes: usize,
}

/// What holding `entry` costs, in bytes.
pub(super) fn cost_bytes(entry: &Entry) -> usize {
    entry.message.memory_bytes() + ENTRY_BYTES
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What holding them costs, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub(super) fn push_back(&mut self, seq: MessageSeq, entry: Entry) {
        self.memory_bytes += cost_bytes(&entry);
        self.count += 1;
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_COUNT => {
                debug_assert!(chunk.back().is_none_or(|(last, _)| *last < seq));
                chunk.push_back((seq, entry));
            }
            Some(_) => {
                let mut chunk = VecDeque::with_capacity(CHUNK_COUNT);
                chunk.push_back((seq, entry));
                self.chunks.push_back(chunk);
            }
            // The first chunk grows as it must: most queues are short.
            None => self.chunks.push_back(VecDeque::from([(seq, entry)])),
        }
    }

    /// Adds messages that come behind all others, without copying them.
    pub(super) fn push_chunk(&mut self, chunk: VecDeque<(MessageSeq, Entry)>) {
        self.count += chunk.len();
        self.memory_bytes += chunk
            .iter()
            .map(|(_, entry)| cost_bytes(entry))
            .sum::<usize>();
        self.drop_empty_chunk();
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// Moves all of `other`'s messages behind these.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.count += std::mem::take(&mut other.count);
        self.memory_bytes += std::mem::take(&mut other.memory_bytes);
        self.drop_empty_chunk();
        self.chunks.append(&mut other.chunks);
    }

    pub(super) fn front(&self) -> Option<(MessageSeq, &Entry)> {
        let (seq, entry) = self.chunks.front()?.front()?;
        Some((*seq, entry))
    }

    pub(super) fn pop_front(&mut self) -> Option<(MessageSeq, Entry)> {
        let chunk = self.chunks.front_mut()?;
        let taken = chunk.pop_front()?;
        // The last chunk stays, so that a queue that is always nearly empty allocates nothing; but not
        // a large one, which only a long queue had.
        let (is_used_up, is_large) = (chunk.is_empty(), chunk.capacity() > CHUNK_COUNT);
        if is_used_up && (is_large || self.chunks.len() > 1) {
            self.chunks.pop_front();
        }
        self.count -= 1;
        self.memory_bytes -= cost_bytes(&taken.1);
        Some(taken)
    }

    /// Takes chunks from the front until they cost `memory_bytes_max`, one at least.
    pub(super) fn take_front(&mut self, memory_bytes_max: usize) -> Self {
        let mut taken = Self::default();
        while taken.memory_bytes < memory_bytes_max {
            let Some(mut chunk) = self.chunks.pop_front() else {
                break;
            };
            let fits = |cost: &mut usize, (_, entry): &(MessageSeq, Entry)| {
                let had = *cost;
                *cost += cost_bytes(entry);
                (had < memory_bytes_max).then_some(())
            };
            let fitting = chunk.iter().scan(taken.memory_bytes, fits).count();
            if fitting < chunk.len() {
                self.chunks.push_front(chunk.split_off(fitting));
            }
            taken.push_chunk(chunk);
        }
        self.count -= taken.count;
        self.memory_bytes -= taken.memory_bytes;
        taken
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (MessageSeq, &Entry)> {
        let entries = self.chunks.iter().flatten();
        entries.map(|(seq, entry)| (*seq, entry))
    }

    /// All of them, in one chunk.
    pub(super) fn into_chunk(self) -> VecDeque<(MessageSeq, Entry)> {
        self.chunks.into_iter().flatten().collect()
    }

    fn drop_empty_chunk(&mut self) {
        if self.chunks.back().is_some_and(VecDeque::is_empty) {
            self.chunks.pop_back();
        }
    }
}
