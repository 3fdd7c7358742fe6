//! A set of record numbers that costs memory per run of neighbours, not per number.
//!
//! Owns: the runs that were noted of one queue: of what was delivered, or given back.
//! Bound: one entry for each run; a run ends where a message is still there.

use std::collections::BTreeMap;

use super::types::Lsn;

/// Numbers as runs: first number to the number behind the last.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct RunSet(BTreeMap<u64, u64>);

impl RunSet {
    pub(crate) fn contains(&self, lsn: Lsn) -> bool {
        self.0
            .range(..=lsn.0)
            .next_back()
            .is_some_and(|(_, end)| lsn.0 < *end)
    }

    /// Adds a number; `false` if it was there.
    pub(crate) fn insert(&mut self, Lsn(lsn): Lsn) -> bool {
        let mut start = lsn;
        if let Some((&before, end)) = self.0.range_mut(..=lsn).next_back() {
            if lsn < *end {
                return false;
            }
            if lsn == *end {
                *end += 1;
                start = before;
            }
        }
        let end = self.0.remove(&(lsn + 1)).unwrap_or(lsn + 1);
        self.0.insert(start, end);
        true
    }

    /// Adds `len` numbers from `first` on.
    pub(crate) fn insert_run(&mut self, Lsn(first): Lsn, len: u64) {
        let (mut start, mut end) = (first, first.saturating_add(len));
        if let Some((&before, &before_end)) = self.0.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.0.range(start..=end).next() {
            end = end.max(next_end);
            self.0.remove(&next);
        }
        self.0.insert(start, end);
    }

    /// The runs in order, as first number and length.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Lsn, u64)> + '_ {
        self.0.iter().map(|(start, end)| (Lsn(*start), end - start))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whole runs, overlapping or not, come to the same as their numbers one by one.
        #[test]
        fn run_is_its_numbers(runs in proptest::collection::vec((0u64..60, 1u64..9), 0..40)) {
            let (mut whole, mut single) = (RunSet::default(), RunSet::default());
            for (first, len) in runs {
                whole.insert_run(Lsn(first), len);
                (first..first + len).for_each(|lsn| {
                    single.insert(Lsn(lsn));
                });
            }
            prop_assert_eq!(whole, single);
        }

        /// It agrees with a plain set, and neighbours are always one run.
        #[test]
        fn agrees_with_a_plain_set(numbers in proptest::collection::vec(0u64..60, 0..200)) {
            let mut plain = BTreeSet::new();
            let mut runs = RunSet::default();
            for number in numbers {
                prop_assert_eq!(runs.insert(Lsn(number)), plain.insert(number));
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
}
