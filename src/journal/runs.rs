//! A set of record numbers that costs little memory whether they are neighbours or not.
//!
//! Owns: the numbers that were noted of one queue: of what was delivered, or given back. They are kept by
//! chunks of [`CHUNK_COUNT`]: neighbouring chunks that are whole are one entry, and in one that is not its
//! numbers are runs or bits (`PlaceSet`), whatever is less.
//! Bound: one entry for each run of whole chunks; of any other chunk 8 bytes for each run, at most a bit for
//! each number.

use std::collections::BTreeMap;
use std::iter::Peekable;

use super::places::PlaceSet;
use super::types::Lsn;

/// Numbers of a chunk.
const CHUNK_COUNT: u32 = 1 << 16;

/// Record numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunSet {
    /// Whole chunks: the first to the one behind the last.
    whole: BTreeMap<u64, u64>,
    /// Chunks of which some numbers are in the set; none of them is in `whole`.
    parts: BTreeMap<u64, PlaceSet>,
}

/// Two sets are equal if the same numbers are in them, however they came there.
impl PartialEq for RunSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for RunSet {}

impl RunSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.parts.is_empty()
    }

    pub(crate) fn contains(&self, lsn: Lsn) -> bool {
        let (chunk, number) = place(lsn.0);
        self.is_whole(chunk)
            || self
                .parts
                .get(&chunk)
                .is_some_and(|part| part.contains(number))
    }

    fn is_whole(&self, chunk: u64) -> bool {
        let mut before = self.whole.range(..=chunk);
        before.next_back().is_some_and(|(_, end)| chunk < *end)
    }

    /// Adds a number.
    pub(crate) fn insert(&mut self, lsn: Lsn) {
        self.insert_run(lsn, 1);
    }

    /// Adds `len` numbers from `first` on.
    pub(crate) fn insert_run(&mut self, Lsn(first): Lsn, len: u64) {
        if len == 0 {
            return;
        }
        // Up to and with the last, so that it may be the last number that there is.
        let last = first.saturating_add(len - 1);
        let ((chunk, start), (last_chunk, last_number)) = (place(first), place(last));
        if chunk == last_chunk {
            return self.insert_part(chunk, start, last_number + 1);
        }
        self.insert_part(chunk, start, CHUNK_COUNT);
        if chunk + 1 < last_chunk {
            self.insert_whole(chunk + 1, last_chunk);
        }
        self.insert_part(last_chunk, 0, last_number + 1);
    }

    fn insert_part(&mut self, chunk: u64, start: u32, end: u32) {
        if self.is_whole(chunk) {
            return;
        }
        let part = self.parts.entry(chunk).or_default();
        part.insert_run(start, end);
        if part.is_full(CHUNK_COUNT) {
            self.insert_whole(chunk, chunk + 1);
        }
    }

    /// Adds all numbers of the chunks from `start` to before `end`.
    fn insert_whole(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start, end);
        while let Some((&chunk, _)) = self.parts.range(start..end).next() {
            self.parts.remove(&chunk);
        }
        if let Some((&before, &before_end)) = self.whole.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.whole.range(start..=end).next() {
            end = end.max(next_end);
            self.whole.remove(&next);
        }
        self.whole.insert(start, end);
    }

    /// The runs in order, as first number and length.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Lsn, u64)> + '_ {
        let count = u64::from(CHUNK_COUNT);
        let whole = self.whole.iter();
        let whole =
            whole.map(move |(start, end)| (start * count, (end - start).saturating_mul(count)));
        let parts = self.parts.iter().flat_map(move |(chunk, part)| {
            let runs = part.runs(CHUNK_COUNT);
            runs.map(move |(start, end)| (chunk * count + u64::from(start), u64::from(end - start)))
        });
        let (mut whole, mut parts) = (whole.peekable(), parts.peekable());
        let spans = std::iter::from_fn(move || match (whole.peek(), parts.peek()) {
            (Some((start, _)), Some((other, _))) if start < other => whole.next(),
            (Some(_), None) => whole.next(),
            (_, Some(_)) => parts.next(),
            (None, None) => None,
        });
        Joined(spans.peekable())
    }

    /// The runs, cut to what lies from `first` to `last`, as first and last number.
    pub(crate) fn between(&self, first: Lsn, last: Lsn) -> Vec<(Lsn, Lsn)> {
        let ends = self
            .iter()
            .map(|(start, len)| (start, Lsn(start.0.saturating_add(len - 1))));
        ends.map(|(start, end)| (start.max(first), end.min(last)))
            .filter(|(start, end)| start <= end)
            .collect()
    }
}

/// The chunk of a number, and which of its numbers it is.
fn place(lsn: u64) -> (u64, u32) {
    let count = u64::from(CHUNK_COUNT);
    let number = u32::try_from(lsn % count).unwrap_or_default();
    (lsn / count, number)
}

/// Runs that touch at the border of two chunks, as one.
struct Joined<I: Iterator<Item = (u64, u64)>>(Peekable<I>);

impl<I: Iterator<Item = (u64, u64)>> Iterator for Joined<I> {
    type Item = (Lsn, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let (start, mut len) = self.0.next()?;
        while let Some((_, more)) = self
            .0
            .next_if(|(next, _)| start.checked_add(len) == Some(*next))
        {
            len = len.saturating_add(more);
        }
        Some((Lsn(start), len))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whole runs, overlapping or not, come to the same as their numbers one by one; so at the border
        /// of two chunks.
        #[test]
        fn run_is_its_numbers(
            base in prop_oneof![Just(0), Just(u64::from(CHUNK_COUNT) - 30), Just(7 << 30)],
            runs in proptest::collection::vec((0u64..60, 1u64..9), 0..40),
        ) {
            let (mut whole, mut single) = (RunSet::default(), RunSet::default());
            for (first, len) in runs {
                let first = base + first;
                whole.insert_run(Lsn(first), len);
                (first..first + len).for_each(|lsn| {
                    single.insert(Lsn(lsn));
                });
            }
            prop_assert_eq!(whole, single);
        }

        /// Long runs, of which chunks become whole, agree with a plain list of runs, and so do what lies
        /// between two numbers and what is asked of one.
        #[test]
        fn long_runs_agree_with_plain_ones(
            runs in proptest::collection::vec((0u64..400_000, 1u64..200_000), 0..12),
            (first, last) in (0u64..500_000, 0u64..500_000),
            asked in proptest::collection::vec(0u64..600_000, 20),
        ) {
            let mut set = RunSet::default();
            let mut plain: Vec<(u64, u64)> = Vec::new();
            for (start, len) in runs {
                set.insert_run(Lsn(start), len);
                plain.push((start, start + len));
            }
            for lsn in asked {
                let is_in = plain.iter().any(|(start, end)| (*start..*end).contains(&lsn));
                prop_assert_eq!(set.contains(Lsn(lsn)), is_in);
            }
            plain.sort_unstable();
            let mut joined: Vec<(u64, u64)> = Vec::new();
            for (start, end) in plain {
                match joined.last_mut() {
                    Some((_, last)) if start <= *last => *last = end.max(*last),
                    _ => joined.push((start, end)),
                }
            }
            let found: Vec<_> = set.iter().map(|(Lsn(start), len)| (start, start + len)).collect();
            prop_assert_eq!(&found, &joined);
            let cut = joined.iter().map(|(start, end)| (*start.max(&first), (end - 1).min(last)));
            let cut: Vec<_> = cut.filter(|(start, end)| start <= end).collect();
            let between = set.between(Lsn(first), Lsn(last)).into_iter();
            prop_assert_eq!(between.map(|(start, end)| (start.0, end.0)).collect::<Vec<_>>(), cut);
        }

        /// It agrees with a plain set, and neighbours are always one run.
        #[test]
        fn agrees_with_a_plain_set(numbers in proptest::collection::vec(0u64..60, 0..200)) {
            let mut plain = BTreeSet::new();
            let mut runs = RunSet::default();
            for number in numbers {
                runs.insert(Lsn(number));
                plain.insert(number);
            }
            let back: Vec<u64> =
                runs.iter().flat_map(|(Lsn(first), len)| first..first + len).collect();
            prop_assert_eq!(&back, &plain.iter().copied().collect::<Vec<_>>());
            let breaks = back.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
            prop_assert_eq!(runs.iter().count(), breaks + usize::from(!back.is_empty()));
            for number in 0..61 {
                prop_assert_eq!(runs.contains(Lsn(number)), plain.contains(&number));
            }
        }
    }

    /// Every second of a million numbers takes about a bit for each number, not an entry for each run; the
    /// others make it one entry. The greatest number there is does no harm.
    #[test]
    fn gaps_cost_bits() {
        let mut set = RunSet::default();
        (0..1_000_000)
            .step_by(2)
            .for_each(|lsn| set.insert(Lsn(lsn)));
        assert_eq!(set.iter().count(), 500_000);
        let bits = set.parts.values().map(|part| match part {
            PlaceSet::Bits(words) => words.len() * 8,
            PlaceSet::All | PlaceSet::Runs(_) => panic!("it is full of gaps"),
        });
        assert!(bits.sum::<usize>() <= 1_000_000 / 8 + 8);
        (1..1_000_000)
            .step_by(2)
            .for_each(|lsn| set.insert(Lsn(lsn)));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(Lsn(0), 1_000_000)]);
        assert_eq!((set.whole.len(), set.parts.len()), (1, 1));
        set.insert_run(Lsn(10), u64::MAX);
        assert!(set.contains(Lsn(u64::MAX)) && !set.is_empty());
    }
}
