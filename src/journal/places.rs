//! A set of record numbers inside one segment, counted from its first.
//!
//! Owns: which of a queue's messages in a segment are gone. Two forms: runs of neighbours while they are
//! few, one bit per record once they are not; so a queue that is read in order costs one run, and the
//! worst order costs an eighth of a byte more per record than the best.
//! Bound: 8 bytes for each run, at most about an eighth of a byte for each record of the segment.
//! Spec: `spec/journal.md`, "Footer: byte map".

use super::record::{Input, encode_varint};

/// Runs are kept as runs while they take less room than this many records would as bits.
const BITS_PER_RUN: u64 = 64;
/// Runs that are always kept as runs.
const RUNS_MIN: usize = 16;

const FORM_RUNS: u8 = 0;
const FORM_BITS: u8 = 1;
const FORM_ALL: u8 = 2;

/// Numbers from 0 on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum PlaceSet {
    /// Every number there is.
    All,
    /// One bit per number.
    Bits(Vec<u64>),
    /// First number and the one behind the last; sorted, never touching each other.
    Runs(Vec<(u32, u32)>),
}

impl Default for PlaceSet {
    fn default() -> Self {
        Self::Runs(Vec::new())
    }
}

impl PlaceSet {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::All => false,
            Self::Bits(words) => words.iter().all(|word| *word == 0),
            Self::Runs(runs) => runs.is_empty(),
        }
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        match self {
            Self::All => true,
            Self::Bits(words) => words
                .get(number as usize / 64)
                .is_some_and(|word| word >> (number % 64) & 1 == 1),
            Self::Runs(runs) => {
                let behind = runs.partition_point(|(start, _)| *start <= number);
                behind
                    .checked_sub(1)
                    .and_then(|index| runs.get(index))
                    .is_some_and(|(_, end)| number < *end)
            }
        }
    }

    /// Whether all numbers below `span`, a multiple of 64, are in it.
    pub(crate) fn is_full(&self, span: u32) -> bool {
        match self {
            Self::All => true,
            Self::Bits(words) => {
                words.len() >= span as usize / 64 && words.iter().all(|word| *word == u64::MAX)
            }
            Self::Runs(runs) => matches!(runs.first(), Some((0, end)) if *end >= span),
        }
    }

    /// How many numbers below `span` are in it.
    pub(crate) fn count(&self, span: u32) -> u32 {
        match self {
            Self::All => span,
            Self::Bits(words) => words.iter().map(|word| word.count_ones()).sum(),
            Self::Runs(runs) => runs.iter().map(|(start, end)| end - start).sum(),
        }
    }

    /// Adds the numbers from `start` to before `end`; gives how many were not there.
    pub(crate) fn insert_run(&mut self, start: u32, end: u32) -> u32 {
        if start >= end {
            return 0;
        }
        let added = match self {
            Self::All => 0,
            Self::Bits(words) => set_bits(words, start, end),
            Self::Runs(runs) => insert_into_runs(runs, start, end),
        };
        self.settle();
        added
    }

    /// Adds all of `other` that is below `span`.
    pub(crate) fn insert_all(&mut self, other: &Self, span: u32) {
        match other {
            Self::All => *self = Self::All,
            Self::Bits(_) | Self::Runs(_) => {
                for (start, end) in other.runs(span) {
                    self.insert_run(start, end.min(span));
                }
            }
        }
    }

    /// Changes to bits once runs take more room.
    fn settle(&mut self) {
        let Self::Runs(runs) = self else { return };
        let end = runs.last().map_or(0, |(_, end)| *end);
        if runs.len() <= RUNS_MIN || runs.len() as u64 * BITS_PER_RUN <= u64::from(end) {
            return;
        }
        let mut words = Vec::new();
        for (start, end) in runs.iter() {
            set_bits(&mut words, *start, *end);
        }
        *self = Self::Bits(words);
    }

    /// The runs in order, as first number and the one behind the last; all of `0..span` for the full set.
    pub(crate) fn runs(&self, span: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut next_run = 0;
        let mut next_bit = 0;
        std::iter::from_fn(move || match self {
            Self::All => {
                let all = (next_run == 0).then_some((0, span));
                next_run = 1;
                all
            }
            Self::Bits(words) => {
                let start = find_bit(words, next_bit, true)?;
                let end = find_bit(words, start, false)
                    .unwrap_or_else(|| u32::try_from(words.len() * 64).unwrap_or(u32::MAX));
                next_bit = end;
                Some((start, end))
            }
            Self::Runs(runs) => {
                next_run += 1;
                runs.get(next_run - 1).copied()
            }
        })
    }

    /// Appends its bytes: form, then a count and the runs or words.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::All => out.push(FORM_ALL),
            Self::Bits(words) => {
                out.push(FORM_BITS);
                encode_varint(out, words.len() as u64);
                out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            }
            Self::Runs(runs) => {
                out.push(FORM_RUNS);
                encode_varint(out, runs.len() as u64);
                let mut last = 0;
                for (start, end) in runs {
                    encode_varint(out, u64::from(start - last));
                    encode_varint(out, u64::from(end - start));
                    last = *end;
                }
            }
        }
    }

    /// Reads what [`PlaceSet::encode`] wrote; `None` for anything else.
    pub(crate) fn decode(input: &mut Input<'_>) -> Option<Self> {
        let form = input.u8()?;
        if form == FORM_ALL {
            return Some(Self::All);
        }
        let count = usize::try_from(input.varint()?).ok()?;
        match form {
            FORM_BITS => {
                let bytes = input.bytes(count.checked_mul(8)?)?;
                let words = bytes.chunks_exact(8).map(|word| {
                    let word = word.try_into().unwrap_or_default();
                    u64::from_le_bytes(word)
                });
                Some(Self::Bits(words.collect()))
            }
            FORM_RUNS => {
                let mut runs = Vec::with_capacity(count.min(input.0.len()));
                let mut last = 0u32;
                for index in 0..count {
                    let gap = u32::try_from(input.varint()?).ok()?;
                    let len = u32::try_from(input.varint()?).ok()?;
                    let start = last.checked_add(gap)?;
                    let end = start.checked_add(len)?;
                    if len == 0 || (gap == 0 && index > 0) {
                        return None;
                    }
                    runs.push((start, end));
                    last = end;
                }
                Some(Self::Runs(runs))
            }
            _ => None,
        }
    }
}

fn insert_into_runs(runs: &mut Vec<(u32, u32)>, start: u32, end: u32) -> u32 {
    // Runs that overlap or touch the new one are joined with it.
    let from = runs.partition_point(|(_, run_end)| *run_end < start);
    let to = runs.partition_point(|(run_start, _)| *run_start <= end);
    let joined = runs.get(from..to).unwrap_or_default();
    let (Some(first), Some(last)) = (joined.first(), joined.last()) else {
        runs.insert(from, (start, end));
        return end - start;
    };
    let had: u32 = joined
        .iter()
        .map(|(run_start, run_end)| run_end - run_start)
        .sum();
    let whole = (start.min(first.0), end.max(last.1));
    let added = whole.1 - whole.0 - had;
    runs.splice(from..to, [whole]);
    added
}

fn set_bits(words: &mut Vec<u64>, start: u32, end: u32) -> u32 {
    let words_needed = (end as usize).div_ceil(64);
    if words.len() < words_needed {
        words.resize(words_needed, 0);
    }
    let mut added = 0;
    let mut at = start;
    while at < end {
        let bit = at % 64;
        let len = (64 - bit).min(end - at);
        let mask = (u64::MAX >> (64 - len)) << bit;
        if let Some(word) = words.get_mut(at as usize / 64) {
            added += (mask & !*word).count_ones();
            *word |= mask;
        }
        at += len;
    }
    added
}

/// The first bit from `from` on that is `wanted`; `None` at the end of the words.
fn find_bit(words: &[u64], from: u32, wanted: bool) -> Option<u32> {
    let mut index = from as usize / 64;
    let mut mask = u64::MAX << (from % 64);
    while let Some(word) = words.get(index) {
        let word = if wanted { *word } else { !*word };
        let found = word & mask;
        if found != 0 {
            return u32::try_from(index * 64)
                .ok()?
                .checked_add(found.trailing_zeros());
        }
        mask = u64::MAX;
        index += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers(set: &PlaceSet) -> Vec<u32> {
        set.runs(0).flat_map(|(start, end)| start..end).collect()
    }

    proptest! {
        /// It agrees with a plain set in whatever form it is, and comes back from its bytes.
        #[test]
        fn agrees_with_a_plain_set(
            runs in proptest::collection::vec((0u32..3_000, 1u32..20), 0..200),
        ) {
            let mut plain = BTreeSet::new();
            let mut set = PlaceSet::default();
            for (start, len) in runs {
                let added = (start..start + len).filter(|number| plain.insert(*number)).count();
                prop_assert_eq!(set.insert_run(start, start + len) as usize, added);
            }
            prop_assert_eq!(numbers(&set), plain.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count(0) as usize, plain.len());
            prop_assert_eq!(set.is_empty(), plain.is_empty());
            for number in 0..3_100 {
                prop_assert_eq!(set.contains(number), plain.contains(&number));
            }
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            let mut input = Input(&bytes);
            prop_assert_eq!(PlaceSet::decode(&mut input), Some(set));
            prop_assert!(input.0.is_empty());
        }

        /// No bytes make the decoder panic.
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(set) = PlaceSet::decode(&mut Input(&bytes)) {
                let _ = set.runs(5).take(100).count();
                let _ = set.contains(7);
            }
        }
    }

    /// Every second number costs a bit each, and the full set nothing.
    #[test]
    fn many_runs_become_bits() {
        let mut set = PlaceSet::default();
        for number in 0..10_000 {
            assert_eq!(set.insert_run(number * 2, number * 2 + 1), 1);
        }
        match &set {
            PlaceSet::Bits(words) => assert!(words.len() <= 320),
            other => panic!("{other:?}"),
        }
        assert_eq!((set.insert_run(18, 19), set.insert_run(18, 20)), (0, 1));
        set.insert_all(&PlaceSet::All, 5);
        assert_eq!(set, PlaceSet::All);
        assert_eq!(numbers(&PlaceSet::Runs(vec![(1, 2)])), [1]);
    }
}
