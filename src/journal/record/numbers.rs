//! Numbers in few bytes: varints, and runs of record numbers as acks name them.
//!
//! Owns: reading bytes piece by piece ([`Input`]), which never reads more than is there.
//! Spec: `spec/journal.md`, "Record: byte map", kinds 5, 13, 15 and 17.

use smallvec::SmallVec;

use super::super::types::Lsn;

/// Appends `lsns` as runs; sorts a copy first if they are not in order.
pub(crate) fn encode_runs(out: &mut impl Extend<u8>, lsns: &[Lsn]) {
    if lsns.is_sorted() {
        encode_sorted_runs(out, lsns.iter().copied().map(|lsn| (lsn, 1)));
    } else {
        let mut sorted: SmallVec<[Lsn; 32]> = SmallVec::from_slice(lsns);
        sorted.sort_unstable();
        encode_sorted_runs(out, sorted.iter().copied().map(|lsn| (lsn, 1)));
    }
}

/// Appends runs given as first number and length, in order; neighbours are joined.
pub(crate) fn encode_sorted_runs(
    out: &mut impl Extend<u8>,
    runs: impl Iterator<Item = (Lsn, u64)>,
) {
    let mut end_of_last = 0;
    let mut current: Option<(u64, u64)> = None;
    for (Lsn(first), len) in runs {
        match &mut current {
            Some((start, end)) if first <= *end => {
                debug_assert!(first >= *start, "runs come in order");
                *end = (*end).max(first + len);
            }
            _ => {
                if let Some((start, end)) = current.take() {
                    encode_run(out, &mut end_of_last, start, end);
                }
                current = Some((first, first + len));
            }
        }
    }
    if let Some((start, end)) = current {
        encode_run(out, &mut end_of_last, start, end);
    }
}

fn encode_run(out: &mut impl Extend<u8>, end_of_last: &mut u64, start: u64, end: u64) {
    encode_varint(out, start - *end_of_last);
    encode_varint(out, end - start - 1);
    *end_of_last = end;
}

pub(crate) fn encode_varint(out: &mut impl Extend<u8>, mut value: u64) {
    while value >= 0x80 {
        out.extend([value.to_le_bytes()[0] | 0x80]);
        value >>= 7;
    }
    out.extend([value.to_le_bytes()[0]]);
}

/// Reads runs as first number and length; ends early at bytes that make no sense.
#[derive(Clone, Debug)]
pub(crate) struct Runs<'a> {
    input: Input<'a>,
    end_of_last: u64,
}

impl<'a> Runs<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self {
            input: Input(body),
            end_of_last: 0,
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = (Lsn, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let gap = self.input.varint()?;
        let len = self.input.varint()?.checked_add(1)?;
        let start = self.end_of_last.checked_add(gap)?;
        self.end_of_last = start.checked_add(len)?;
        Some((Lsn(start), len))
    }
}

/// Bytes still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return None;
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Numbers in any order come back as the runs that they form.
        #[test]
        fn runs_round_trip(numbers in proptest::collection::btree_set(1u64..5_000, 0..300)) {
            let lsns: Vec<Lsn> = numbers.iter().rev().copied().map(Lsn).collect();
            let mut body = Vec::new();
            encode_runs(&mut body, &lsns);
            let back: Vec<u64> =
                Runs::new(&body).flat_map(|(Lsn(first), len)| first..first + len).collect();
            prop_assert_eq!(back, numbers.into_iter().collect::<Vec<_>>());
        }
    }
}
