//! Lists of a queue's messages in one segment, in a few bytes each.
//!
//! Owns: the bytes of a list: blocks of [`BLOCK_COUNT`] entries, each entry told by its difference from
//! the one before it, and a directory of the blocks, so that one can be read without the others.
//! The same bytes are in memory while a segment is written and in its footer afterwards.
//! Bound: 3 to 12 bytes for each message, 16 for each block.
//! Spec: `spec/journal.md`, "Footer: byte map".

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::record::{Input, encode_varint};
use super::types::Lsn;

/// Entries in a block; the last of a list may have fewer.
pub(crate) const BLOCK_COUNT: usize = 128;
/// One block in the directory of a list, in bytes.
pub(crate) const DIRECTORY_ENTRY_BYTES: usize = 16;

/// Whether the messages of a list were first written in this segment, or copied into it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum ListForm {
    /// Copies of older messages: the number of the copy's record is told.
    Moved,
    /// A message's own number is its record's number.
    Native,
}

/// A message in a list.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ListEntry {
    /// The message's own number.
    pub(crate) lsn: Lsn,
    /// The number of the record here, counted from the segment's first.
    pub(crate) number: u32,
    /// Where the record begins in the segment, in bytes.
    pub(crate) offset: u32,
    /// Length of the inline body in bytes; 0 for a payload.
    pub(crate) body_bytes: u32,
}

/// Where a block begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Block {
    /// The number of its first message.
    pub(crate) first: Lsn,
    /// Its first byte behind the directory.
    pub(crate) start: u32,
    /// Of its bytes, with the segment's salt; 0 while in memory.
    pub(crate) checksum: u32,
}

/// A list in memory, to which messages are added in the order of their numbers.
#[derive(Clone, Debug)]
pub(crate) struct List {
    form: ListForm,
    /// The number of the segment's first record.
    base: Lsn,
    blocks: Vec<Block>,
    bytes: Vec<u8>,
    count: u32,
    last: ListEntry,
}

impl List {
    /// An empty list for a segment whose first record is `base`.
    pub(crate) fn new(form: ListForm, base: Lsn) -> Self {
        Self {
            form,
            base,
            blocks: Vec::new(),
            bytes: Vec::new(),
            count: 0,
            last: ListEntry::default(),
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it takes in memory beside itself, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.len() + self.blocks.len() * size_of::<Block>()
    }

    /// The number of the first message; 0 if there is none.
    pub(crate) fn first(&self) -> Lsn {
        self.blocks.first().map_or(Lsn::ZERO, |block| block.first)
    }

    /// The number of the last message; 0 if there is none.
    pub(crate) fn last(&self) -> Lsn {
        self.last.lsn
    }

    /// Forgets all messages and keeps the room that they took.
    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
        self.bytes.clear();
        self.count = 0;
        self.last = ListEntry::default();
    }

    /// Adds a message whose number is above all that are there.
    pub(crate) fn push(&mut self, entry: ListEntry) {
        debug_assert!(entry.lsn > self.last.lsn, "lists are in order");
        if (self.count as usize).is_multiple_of(BLOCK_COUNT) {
            let start =
                u32::try_from(self.bytes.len()).expect("a list is shorter than its segment");
            self.blocks.push(Block {
                first: entry.lsn,
                start,
                checksum: 0,
            });
            self.last = ListEntry {
                lsn: entry.lsn,
                ..ListEntry::default()
            };
        }
        let out = &mut self.bytes;
        encode_varint(out, entry.lsn.0 - self.last.lsn.0);
        encode_difference(out, self.last.offset / 8, entry.offset / 8);
        if self.form == ListForm::Moved {
            encode_difference(out, self.last.number, entry.number);
        }
        encode_varint(out, u64::from(entry.body_bytes));
        self.last = entry;
        self.count += 1;
    }

    /// The entries of block `index`.
    pub(crate) fn block(&self, index: usize) -> Option<Vec<ListEntry>> {
        let block = self.blocks.get(index)?;
        let end = self
            .blocks
            .get(index + 1)
            .map_or(self.bytes.len(), |next| next.start as usize);
        let bytes = self.bytes.get(block.start as usize..end)?;
        decode_block(
            self.form,
            self.base,
            block.first,
            block_count(self.count, index),
            bytes,
        )
    }

    /// All entries, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = ListEntry> + '_ {
        (0..self.blocks.len()).flat_map(|index| self.block(index).unwrap_or_default())
    }
}

/// How many entries block `index` of a list of `count` has.
pub(crate) fn block_count(count: u32, index: usize) -> usize {
    (count as usize)
        .saturating_sub(index.saturating_mul(BLOCK_COUNT))
        .min(BLOCK_COUNT)
}

/// The block in which the first message behind `after` is, if it is in the list: index and whether there
/// is one.
pub(crate) fn block_behind(blocks: &[Block], after: Lsn) -> usize {
    blocks
        .partition_point(|block| block.first <= after)
        .saturating_sub(1)
}

/// Reads a block of `count` entries; `None` if its bytes make no sense.
pub(crate) fn decode_block(
    form: ListForm,
    base: Lsn,
    first: Lsn,
    count: usize,
    bytes: &[u8],
) -> Option<Vec<ListEntry>> {
    let mut input = Input(bytes);
    let mut entries = Vec::with_capacity(count.min(BLOCK_COUNT));
    let mut last = ListEntry {
        lsn: first,
        ..ListEntry::default()
    };
    for index in 0..count {
        let gap = input.varint()?;
        if (gap == 0) != (index == 0) {
            return None;
        }
        let lsn = Lsn(last.lsn.0.checked_add(gap)?);
        let offset = decode_difference(&mut input, last.offset / 8)?.checked_mul(8)?;
        let number = match form {
            ListForm::Moved => decode_difference(&mut input, last.number)?,
            ListForm::Native => u32::try_from(lsn.0.checked_sub(base.0)?).ok()?,
        };
        let body_bytes = u32::try_from(input.varint()?).ok()?;
        last = ListEntry {
            lsn,
            number,
            offset,
            body_bytes,
        };
        entries.push(last);
    }
    input.0.is_empty().then_some(entries)
}

fn encode_difference(out: &mut Vec<u8>, from: u32, to: u32) {
    let difference = i64::from(to) - i64::from(from);
    let folded = (difference << 1) ^ (difference >> 63);
    encode_varint(out, folded.cast_unsigned());
}

fn decode_difference(input: &mut Input<'_>, from: u32) -> Option<u32> {
    let folded = input.varint()?;
    let difference = (folded >> 1).cast_signed() ^ -((folded & 1).cast_signed());
    u32::try_from(i64::from(from).checked_add(difference)?).ok()
}

/// Lists of moved messages while they are gathered: compaction brings them from several segments, so
/// that they come in a few rising sequences, each a list of its own.
#[derive(Clone, Debug)]
pub(crate) struct Piles {
    base: Lsn,
    piles: Vec<List>,
}

impl Piles {
    pub(crate) fn new(base: Lsn) -> Self {
        Self {
            base,
            piles: Vec::new(),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.piles.clear();
    }

    pub(crate) fn count(&self) -> u32 {
        self.piles.iter().map(List::count).sum()
    }

    pub(crate) fn lists(&self) -> &[List] {
        &self.piles
    }

    /// Adds a message to the list that it goes on best.
    pub(crate) fn push(&mut self, entry: ListEntry) {
        let best = self
            .piles
            .iter_mut()
            .filter(|pile| pile.last() < entry.lsn)
            .max_by_key(|pile| pile.last());
        if let Some(pile) = best {
            pile.push(entry);
            return;
        }
        let mut pile = List::new(ListForm::Moved, self.base);
        pile.push(entry);
        self.piles.push(pile);
    }

    /// What they take in memory, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.piles.iter().map(List::held_bytes).sum()
    }

    /// All of them as one list. Holds one block of each while it merges.
    pub(crate) fn merged(mut self) -> List {
        if self.piles.len() == 1
            && let Some(pile) = self.piles.pop()
        {
            return pile;
        }
        let mut list = List::new(ListForm::Moved, self.base);
        let mut piles: Vec<_> = self
            .piles
            .iter()
            .map(|pile| pile.entries().peekable())
            .collect();
        let heads = piles.iter_mut().enumerate();
        let mut heads: BinaryHeap<Reverse<(Lsn, usize)>> = heads
            .filter_map(|(index, pile)| Some(Reverse((pile.peek()?.lsn, index))))
            .collect();
        while let Some(Reverse((lsn, index))) = heads.pop() {
            let Some(pile) = piles.get_mut(index) else {
                continue;
            };
            if let Some(entry) = pile.next()
                && lsn > list.last()
            {
                list.push(entry);
            }
            if let Some(next) = pile.peek() {
                heads.push(Reverse((next.lsn, index)));
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What goes into a list comes out, block by block, and a block is found by number.
        #[test]
        fn list_round_trip(
            entries in proptest::collection::btree_map(
                100u64..1_000_000, (0u32..1_000, 0u32..(1 << 20), any::<u32>()), 0..600,
            ),
            moved in any::<bool>(),
        ) {
            let form = if moved { ListForm::Moved } else { ListForm::Native };
            let mut list = List::new(form, Lsn(100));
            let entries: Vec<ListEntry> = entries.into_iter().map(|(lsn, (number, offset, body_bytes))| {
                ListEntry {
                    lsn: Lsn(lsn),
                    number: if moved { number } else { u32::try_from(lsn - 100).unwrap() },
                    offset: offset * 8,
                    body_bytes,
                }
            }).collect();
            for entry in &entries {
                list.push(*entry);
            }
            prop_assert_eq!(list.entries().collect::<Vec<_>>(), &entries[..]);
            for entry in &entries {
                let before = Lsn(entry.lsn.0 - 1);
                let index = block_behind(list.blocks(), before);
                let found = (index..index + 2).find_map(|index| {
                    list.block(index)?.into_iter().find(|found| found.lsn > before)
                });
                prop_assert_eq!(found, Some(*entry));
            }
        }

        /// Messages in any order, each once, come out as one list in order.
        #[test]
        fn piles_become_one_list(numbers in proptest::collection::hash_set(1u64..10_000, 0..400)) {
            let mut piles = Piles::new(Lsn(1));
            for (number, lsn) in (0u32..).zip(&numbers) {
                piles.push(ListEntry { lsn: Lsn(*lsn), number, ..ListEntry::default() });
            }
            let mut expected: Vec<_> = numbers.into_iter().map(Lsn).collect();
            expected.sort_unstable();
            let list = piles.merged();
            prop_assert_eq!(list.entries().map(|entry| entry.lsn).collect::<Vec<_>>(), expected);
        }

        /// No bytes make the decoder panic.
        #[test]
        fn any_bytes_are_read_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100), count in 0usize..20,
        ) {
            let _ = decode_block(ListForm::Native, Lsn(5), Lsn(7), count, &bytes);
            let _ = decode_block(ListForm::Moved, Lsn(5), Lsn(7), count, &bytes);
        }
    }
}
