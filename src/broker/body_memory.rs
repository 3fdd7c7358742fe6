//! Large bodies that need not survive, in memory in the place of the payload store.
//!
//! Owns: blocks of memory that are used again and again, since the first touch of fresh memory costs more than all else
//! that is done with a body; what of them is promised to bodies that are coming in; and the octets of one such body.
//! Knows nothing of messages.
//! Bounds: one budget for the whole broker (the setting `payload.memory`), taken before the first octet comes, and
//! [`BODY_MEMORY_SIZE_BYTES_MAX`] for one body. What does not fit goes into a file of its own (`payload::store::BodyFile`).
//! Spec: `spec/payload-store.md` MEMBODY-1 to MEMBODY-4.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::limits::BODY_MEMORY_SIZE_BYTES_MAX;

/// Bytes of one block: a few frames as most clients send them, so that little of the last block of a body is left empty.
const BLOCK_BYTES: usize = 256 * 1024;

/// The memory for bodies of one broker.
#[derive(Default)]
pub(crate) struct BodyMemory {
    block_count_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Blocks that bodies have or may still ask for.
    promised_count: usize,
    /// Blocks that nobody has; the last one was used last, and is taken first while processors have it in their caches.
    free: Vec<Vec<u8>>,
    /// How many of `free` nobody has taken since [`BodyMemory::trim`].
    idle_count: usize,
}

/// A block that goes back when it is dropped.
struct Block {
    octets: Vec<u8>,
    memory: Arc<BodyMemory>,
}

/// A body on its way in, whose memory is promised. Dropped, it gives all of it back.
pub(crate) struct Filling {
    size_bytes: u64,
    pieces: Vec<Bytes>,
    /// The block that the next octets go to.
    block: Option<Block>,
    promise: Promise,
}

/// Blocks that may still be asked for.
struct Promise {
    memory: Arc<BodyMemory>,
    count: usize,
}

/// The octets of a body in memory, in pieces of 256 KiB; the last one may be shorter.
#[derive(Clone)]
pub struct BodyPieces(Arc<[Bytes]>);

impl BodyMemory {
    /// So much memory at most, in bytes; 0 is none.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let block_count_max = bytes_max / BLOCK_BYTES as u64;
        Self {
            block_count_max: usize::try_from(block_count_max).unwrap_or(usize::MAX),
            state: Mutex::default(),
        }
    }

    /// Whether there is any, taken or not: whoever sets none wants all bodies stored.
    pub(crate) fn is_any(&self) -> bool {
        self.block_count_max > 0
    }

    /// Promises memory to a body of this size; none if there is not so much, or the body is too large for any.
    // req: MEMBODY-2
    pub(crate) fn promise(self: &Arc<Self>, size_bytes: u64) -> Option<Filling> {
        if size_bytes > BODY_MEMORY_SIZE_BYTES_MAX {
            return None;
        }
        let count = usize::try_from(size_bytes.div_ceil(BLOCK_BYTES as u64)).ok()?;
        let mut state = self.state.lock();
        let promised_count = state.promised_count + count;
        if promised_count > self.block_count_max {
            return None;
        }
        state.promised_count = promised_count;
        drop(state);
        let memory = Arc::clone(self);
        Some(Filling {
            size_bytes,
            pieces: Vec::with_capacity(count),
            block: None,
            promise: Promise { memory, count },
        })
    }

    /// Gives blocks that nobody has taken since the last call back to the system. Call it now and then.
    // req: MEMBODY-2
    pub(crate) fn trim(&self) {
        let mut state = self.state.lock();
        let idle_count = state.idle_count.min(state.free.len());
        // Those at the front were used longest ago.
        let idle: Vec<Vec<u8>> = state.free.drain(..idle_count).collect();
        state.idle_count = state.free.len();
        drop(state);
        drop(idle);
    }

    /// What bodies have or may still ask for, in bytes.
    pub(crate) fn promised_bytes(&self) -> u64 {
        (self.state.lock().promised_count * BLOCK_BYTES) as u64
    }

    /// A block of those that were promised.
    fn take(self: &Arc<Self>) -> Block {
        let free = {
            let mut state = self.state.lock();
            let free = state.free.pop();
            state.idle_count = state.idle_count.min(state.free.len());
            free
        };
        Block {
            octets: free.unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES)),
            memory: Arc::clone(self),
        }
    }
}

impl fmt::Debug for BodyMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BodyMemory")
            .field("promised_bytes", &self.promised_bytes())
            .finish_non_exhaustive()
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut octets = std::mem::take(&mut self.octets);
        octets.clear();
        let mut state = self.memory.state.lock();
        state.promised_count -= 1;
        state.free.push(octets);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.memory.state.lock().promised_count -= self.count;
    }
}

impl Filling {
    /// Octets that are there.
    pub(crate) fn len_bytes(&self) -> u64 {
        let block_bytes = self.block.as_ref().map_or(0, |block| block.octets.len());
        (self.pieces.len() * BLOCK_BYTES + block_bytes) as u64
    }

    /// Adds octets; all of them together are no more than was announced.
    pub(crate) fn push(&mut self, mut octets: &[u8]) {
        assert!(
            self.len_bytes() + octets.len() as u64 <= self.size_bytes,
            "memory is promised for the size that was announced"
        );
        while !octets.is_empty() {
            let promise = &mut self.promise;
            let block = self.block.get_or_insert_with(|| {
                promise.count -= 1;
                promise.memory.take()
            });
            let room_bytes = BLOCK_BYTES - block.octets.len();
            let (now, later) = octets.split_at(room_bytes.min(octets.len()));
            block.octets.extend_from_slice(now);
            octets = later;
            if block.octets.len() == BLOCK_BYTES {
                self.pieces.extend(self.block.take().map(Bytes::from_owner));
            }
        }
    }

    /// The body, of which all is there.
    pub(crate) fn finish(mut self) -> BodyPieces {
        debug_assert_eq!(self.len_bytes(), self.size_bytes, "the session counted");
        self.pieces.extend(self.block.take().map(Bytes::from_owner));
        BodyPieces(std::mem::take(&mut self.pieces).into())
    }
}

impl fmt::Debug for Filling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Filling")
            .field("size_bytes", &self.size_bytes)
            .field("len_bytes", &self.len_bytes())
            .finish_non_exhaustive()
    }
}

impl BodyPieces {
    /// All of it, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter()
    }

    /// A range of it, in bytes from its beginning, as slices that follow each other.
    pub fn range(&self, range: Range<u64>) -> impl Iterator<Item = Bytes> {
        let block = BLOCK_BYTES as u64;
        let first = usize::try_from(range.start / block).unwrap_or(usize::MAX);
        let starts = (0..).map(move |at| (range.start / block + at) * block);
        let pieces = self.0.iter().skip(first).zip(starts);
        pieces
            .take_while(move |(_, start)| *start < range.end)
            .map(move |(piece, start)| {
                let within = |place: u64| {
                    let place = place.saturating_sub(start);
                    usize::try_from(place).map_or(piece.len(), |place| place.min(piece.len()))
                };
                piece.slice(within(range.start)..within(range.end))
            })
    }
}

impl fmt::Debug for BodyPieces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BodyPieces")
            .field("count", &self.0.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;

    fn pattern(size_bytes: u64) -> Vec<u8> {
        (0..size_bytes).map(|at| (at % 251) as u8).collect()
    }

    /// A body of this size, pushed in portions of so many bytes.
    fn body(memory: &Arc<BodyMemory>, size_bytes: u64, portion_bytes: usize) -> BodyPieces {
        let mut filling = memory.promise(size_bytes).expect("room");
        for portion in pattern(size_bytes).chunks(portion_bytes) {
            filling.push(portion);
        }
        assert_eq!(filling.len_bytes(), size_bytes);
        filling.finish()
    }

    fn joined<B: AsRef<[u8]>>(pieces: impl Iterator<Item = B>) -> Vec<u8> {
        pieces.fold(Vec::new(), |mut all, piece| {
            all.extend_from_slice(piece.as_ref());
            all
        })
    }

    /// What does not fit into the budget, or is longer than any body may be, gets no promise; what is given back is
    /// there for others, also of a body that never came to its end.
    // req: MEMBODY-2
    #[test]
    fn memory_is_promised_as_far_as_it_goes() {
        let memory = Arc::new(BodyMemory::new(4 * BLOCK + BLOCK / 2));
        assert!(memory.promise(4 * BLOCK + 1).is_none());
        assert!(memory.promise(u64::MAX).is_none());
        let whole = body(&memory, 2 * BLOCK + 1, 1000);
        assert!(memory.promise(BLOCK + 1).is_none());
        let mut begun = memory.promise(BLOCK).expect("the last block");
        begun.push(&[1; 1000]);
        assert_eq!(memory.promised_bytes(), 4 * BLOCK);
        drop(begun);
        assert_eq!(memory.promised_bytes(), 3 * BLOCK);
        let slice = whole.range(5..6).next();
        drop(whole);
        assert_eq!(memory.promised_bytes(), BLOCK, "a slice keeps its block");
        drop(slice);
        assert_eq!(memory.promised_bytes(), 0);
        assert!(BodyMemory::new(0).block_count_max == 0);
        let large = Arc::new(BodyMemory::new(u64::MAX));
        assert!(large.promise(BODY_MEMORY_SIZE_BYTES_MAX).is_some());
        assert!(large.promise(BODY_MEMORY_SIZE_BYTES_MAX + 1).is_none());
    }

    /// Blocks are used again; those that were idle from one look to the next go back to the system.
    // req: MEMBODY-2
    #[test]
    fn idle_blocks_go_back_to_the_system() {
        let memory = Arc::new(BodyMemory::new(8 * BLOCK));
        let free_count = || memory.state.lock().free.len();
        drop(body(&memory, 6 * BLOCK, BLOCK_BYTES));
        assert_eq!(free_count(), 6);
        drop(body(&memory, 2 * BLOCK, BLOCK_BYTES));
        assert_eq!(free_count(), 6, "the same blocks");
        memory.trim();
        drop(body(&memory, 2 * BLOCK, BLOCK_BYTES));
        memory.trim();
        assert_eq!(free_count(), 2, "as many as were in use at once");
        memory.trim();
        assert_eq!(free_count(), 0);
    }

    proptest! {
        /// However a body comes in, it is what came, whole and in every range, and its memory is free behind it.
        #[test]
        fn a_body_is_what_came(
            size_bytes in 1..=3 * BLOCK + 1,
            portion_bytes in 1_000..3 * BLOCK_BYTES,
            (start, length) in (0..3 * BLOCK, 0..2 * BLOCK),
        ) {
            let memory = Arc::new(BodyMemory::new(4 * BLOCK));
            let octets = pattern(size_bytes);
            let body = body(&memory, size_bytes, portion_bytes);
            prop_assert!(joined(body.iter()) == octets);
            let start = start.min(size_bytes);
            let end = (start + length).min(size_bytes);
            let range = joined(body.range(start..end));
            prop_assert!(range == octets[start as usize..end as usize]);
            drop(body);
            prop_assert_eq!(memory.promised_bytes(), 0);
        }
    }
}
