//! A segment whose header is damaged: what its records still tell of it.
//!
//! Owns: a salt under which the records are whole, though the one that they were written with is lost, and
//! where they begin. A checksum depends on the salt only through the 32 bits that the calculation has come to
//! behind it. One record gives them, by calculating backwards; a second one under the same salt proves it.
//! Knows nothing of files. Bound: the segment's bytes, gone through once.
//! Spec: `spec/journal.md`, "Repair", JOURNAL-40.

use std::ops::Range;

use super::record::{
    ALIGN_BYTES, CatalogEntry, HEAD_BYTES, Head, Kind, MARK_BYTES, MARK_MAGIC, decode,
    decode_catalog, find_mark,
};
use super::segment::HEADER_BYTES;
use super::types::Lsn;

/// CRC-32C as RFC 3720 has it, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What one byte adds to the calculation.
const FORWARD: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

/// Which byte's entry in [`FORWARD`] has this highest octet; each has another.
const BACKWARD: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[(FORWARD[byte] >> 24) as usize] = byte as u8;
        byte += 1;
    }
    table
};

fn forward(state: u32, byte: u8) -> u32 {
    FORWARD[usize::from(state.to_le_bytes()[0] ^ byte)] ^ (state >> 8)
}

/// The state before `byte` led to `state`.
fn backward(state: u32, byte: u8) -> u32 {
    let index = BACKWARD[usize::from(state.to_be_bytes()[0])];
    ((state ^ FORWARD[usize::from(index)]) << 8) | u32::from(index ^ byte)
}

/// A salt under which the record's checksum is right; `record` is its head and body. There is always one.
fn salt_of(record: &[u8]) -> Option<u64> {
    let stored = u32::from_le_bytes(record.get(4..8)?.try_into().ok()?);
    let (before, behind) = (record.get(..4)?, record.get(8..)?);
    let bytes = behind.iter().rev().chain(before.iter().rev());
    let behind_salt = bytes.fold(!stored, |state, byte| backward(state, *byte));
    // Four zeros, then the four octets that lead from there to the state: octets that are mixed in are the
    // difference of two states from which zeros go on.
    let zeros = [0; 4]
        .iter()
        .fold(u32::MAX, |state, byte| forward(state, *byte));
    let wanted = [0; 4]
        .iter()
        .fold(behind_salt, |state, byte| backward(state, *byte));
    Some(u64::from(zeros ^ wanted) << 32)
}

/// What the records of a segment tell of its header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Salvaged {
    /// Does what the lost one did.
    pub(super) salt: u64,
    /// Where the first sync mark is that can be read, in bytes; the end of the catalog if there is none.
    pub(super) mark_at: usize,
    /// The number of the record behind it.
    pub(super) next: Lsn,
    /// The segment's own catalog, if it is whole.
    pub(super) catalog: Option<SalvagedCatalog>,
}

/// The catalog of a segment whose header is damaged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SalvagedCatalog {
    pub(super) entries: Vec<CatalogEntry>,
    /// The number of the segment's first record.
    pub(super) first: Lsn,
    /// Where the first batch begins, in bytes.
    pub(super) records_at: usize,
}

/// Looks for the records of a segment under whatever salt; `next` bounds the number behind the first mark, so
/// that what a recycled file held before is not taken for them.
// req: JOURNAL-40
pub(super) fn salvage(bytes: &[u8], next: &Range<Lsn>) -> Option<Salvaged> {
    let magic = MARK_MAGIC.to_le_bytes();
    let mut at = HEADER_BYTES;
    while let Some(candidate) = bytes.get(at..at.checked_add(MARK_BYTES)?) {
        if candidate.ends_with(&magic)
            && let Some(head) = Head::decode(candidate)
            && head.kind == Kind::Mark
            && let Some(salt) = salt_of(candidate)
            && is_proven(
                bytes.get(at + MARK_BYTES..).unwrap_or_default(),
                salt,
                head.lsn,
            )
        {
            let behind = head.lsn.next();
            return next.contains(&behind).then(|| Salvaged {
                salt,
                mark_at: at,
                next: behind,
                catalog: catalog_in(bytes, salt, at),
            });
        }
        at += ALIGN_BYTES;
    }
    None
}

/// A segment that has a catalog and no record yet: the catalog alone tells, and names `before`.
pub(super) fn salvage_empty(bytes: &[u8], before: CatalogEntry) -> Option<Salvaged> {
    let record = bytes.get(HEADER_BYTES..)?;
    let len = HEAD_BYTES.checked_add(usize::try_from(Head::decode(record)?.body_bytes).ok()?)?;
    let salt = salt_of(record.get(..len)?)?;
    let catalog = catalog_in(bytes, salt, HEADER_BYTES + len)?;
    let is_known = |entry: &CatalogEntry| {
        (entry.number, entry.first) == (before.number, before.first) && entry.end == catalog.first
    };
    catalog.entries.iter().any(is_known).then_some(Salvaged {
        salt,
        mark_at: catalog.records_at,
        next: catalog.first,
        catalog: Some(catalog),
    })
}

/// Whether what stands behind a mark shows that `salt` is no accident: the next record, or another mark.
fn is_proven(behind: &[u8], salt: u64, before: Lsn) -> bool {
    let follows = decode(behind, salt).is_some_and(|record| {
        let wanted = if record.head.kind.is_numbered() {
            before.next()
        } else {
            before
        };
        record.head.lsn == wanted
    });
    follows || find_mark(behind, salt).is_some()
}

/// The catalog behind the header, if it is whole; records begin at the first octets behind it that are not
/// zero, and no later than `until`.
fn catalog_in(bytes: &[u8], salt: u64, until: usize) -> Option<SalvagedCatalog> {
    let record = decode(bytes.get(HEADER_BYTES..)?, salt)?;
    if record.head.kind != Kind::Catalog {
        return None;
    }
    let entries = decode_catalog(record.body)?;
    let mut records_at = HEADER_BYTES + record.head.record_bytes();
    while records_at < until && bytes.get(records_at..records_at + ALIGN_BYTES)? == [0; ALIGN_BYTES]
    {
        records_at += ALIGN_BYTES;
    }
    Some(SalvagedCatalog {
        entries,
        first: record.head.lsn.next(),
        records_at,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::{encode_mark, encode_plain, write_checksum};
    use super::*;

    proptest! {
        /// Whatever the salt was: one record gives another salt under which all records are whole.
        // req: JOURNAL-40
        #[test]
        fn one_record_gives_a_salt_for_all(
            salt in any::<u64>(),
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 2..6),
        ) {
            let records: Vec<Vec<u8>> = bodies.iter().zip(1..).map(|(body, number)| {
                let mut record = Vec::new();
                encode_plain(&mut record, &Head::new(Kind::DefinitionPut, Lsn(number), body.len()), body);
                write_checksum(&mut record, salt);
                record
            }).collect();
            let whole = HEAD_BYTES + bodies[0].len();
            let found = salt_of(&records[0][..whole]).unwrap();
            for record in &records {
                prop_assert!(decode(record, found).is_some());
            }
        }

        /// No bytes make it panic, and none are taken for records without a second one that agrees.
        #[test]
        fn any_bytes_are_searched(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(salvage(&bytes, &(Lsn(0)..Lsn(u64::MAX))), None);
            let entry = CatalogEntry { number: 1, first: Lsn(1), end: Lsn(2) };
            prop_assert_eq!(salvage_empty(&bytes, entry), None);
        }
    }

    /// A mark alone proves nothing, and one with numbers that cannot be is not believed.
    #[test]
    fn a_mark_needs_company_and_a_likely_number() {
        let mut bytes = vec![0; HEADER_BYTES];
        encode_mark(&mut bytes, Lsn(9), Lsn(9));
        write_checksum(&mut bytes[HEADER_BYTES..], 77);
        let all = Lsn(1)..Lsn(1_000);
        assert_eq!(salvage(&bytes, &all), None);
        let at = bytes.len();
        encode_plain(&mut bytes, &Head::new(Kind::Started, Lsn(10), 0), &[]);
        write_checksum(&mut bytes[at..], 77);
        let found = salvage(&bytes, &all).unwrap();
        assert_eq!(
            (found.mark_at, found.next, found.catalog),
            (HEADER_BYTES, Lsn(10), None)
        );
        assert_eq!(salvage(&bytes, &(Lsn(11)..Lsn(1_000))), None);
    }
}
