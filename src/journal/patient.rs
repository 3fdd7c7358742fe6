//! A segment as a repair reads it: the whole file, with a header made again where its own is damaged.
//!
//! Owns: what stands in for a header and a catalog that cannot be read: the segment's own records, the catalog of
//! the segment before, the catalog of the last one. Changes no file.
//! Bound: two segments in memory.
//! Spec: `spec/journal.md`, "Repair", JOURNAL-35, JOURNAL-40, JOURNAL-41.

use std::path::{Path, PathBuf};

use crate::disk::OpenMode;

use super::error::JournalError;
use super::record::{
    ALIGN_BYTES, CatalogEntry, HEAD_BYTES, Head, Kind, Record, decode, decode_released,
};
use super::recover::Listing;
use super::salvage::{salvage, salvage_empty};
use super::segment::{Header, OpenSegment, SegmentDir, io_error, records_at};
use super::types::Lsn;

/// Record numbers that no header is believed to begin at.
const LSN_MAX: Lsn = Lsn(u64::MAX / 2);

/// A header that was made again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rebuilt {
    /// The segment's file.
    pub path: PathBuf,
    /// What it was made from.
    pub source: RebuiltFrom,
}

/// What a header was made from, and so what is lost by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RebuiltFrom {
    /// The last segment's list of those before it, from the one before; its records are its own.
    Previous,
    /// Its own records and their list of segments: nothing.
    Records,
    /// Nothing of the last segment can be read: all that was written behind this number.
    Nothing {
        /// The number of the last record in the segment before.
        last: Lsn,
    },
}

/// A segment as it is read for a repair.
pub(super) struct Patient {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// The whole file, or a made-up one if it is gone.
    pub(super) bytes: Vec<u8>,
    /// The number behind the last record that counts; `None` for the last segment.
    pub(super) end: Option<Lsn>,
    /// Set if the header in `bytes` is not that of the file.
    pub(super) rebuilt: Option<RebuiltFrom>,
}

impl Patient {
    fn of(segment: &OpenSegment, end: Option<Lsn>) -> Result<Self, JournalError> {
        let mut bytes = vec![0; usize::try_from(segment.file_bytes).unwrap_or(0)];
        let read = segment.file.read_exact_at(&mut bytes, 0);
        read.map_err(io_error("read", &segment.path))?;
        Ok(Self {
            number: segment.header.number,
            path: segment.path.clone(),
            header: segment.header,
            bytes,
            end,
            rebuilt: None,
        })
    }

    /// Puts a header and a catalog before the records.
    fn put_header(
        &mut self,
        entries: &[CatalogEntry],
        source: RebuiltFrom,
    ) -> Result<(), JournalError> {
        let at = self.header.records_at as usize;
        if (records_at(entries.len()) as usize) > at {
            return Err(damaged(
                &self.path,
                "there is no room for its list of segments",
            ));
        }
        let header = self.header.encode_with_catalog(entries);
        if self.bytes.len() < at {
            self.bytes.resize(at, 0);
        }
        if let Some(place) = self.bytes.get_mut(..at) {
            place.copy_from_slice(&header);
        }
        self.rebuilt = Some(source);
        Ok(())
    }

    /// The next whole record from `at` on that may stand behind `next`: where, and how long it is.
    pub(super) fn next_record(&self, at: usize, next: Lsn) -> Option<(usize, Record<'_>, usize)> {
        let mut at = at.next_multiple_of(ALIGN_BYTES);
        while let Some(bytes) = self.bytes.get(at..).filter(|rest| rest.len() >= HEAD_BYTES) {
            if let Some(record) = decode(bytes, self.header.salt)
                && number_behind(&record.head) > next.0.saturating_sub(1)
            {
                return Some((at, record, record.head.record_bytes()));
            }
            at += ALIGN_BYTES;
        }
        None
    }

    /// The segments that its records release.
    pub(super) fn released(&self) -> Vec<u32> {
        let mut released = Vec::new();
        let mut at = self.header.records_at as usize;
        while let Some((found, record, len)) = self.next_record(at, Lsn::ZERO) {
            if record.head.kind == Kind::Released {
                released.extend(decode_released(record.body));
            }
            at = found + len;
        }
        released
    }

    /// The number behind its last whole record.
    fn records_end(&self) -> Lsn {
        let mut end = self.header.first;
        let mut at = self.header.records_at as usize;
        while let Some((found, record, len)) = self.next_record(at, end) {
            end = end.max(record.head.lsn.next());
            at = found + len;
        }
        end
    }
}

/// The number that the log had come to when the record was written: its own, or that of the next.
pub(super) fn number_behind(head: &Head) -> u64 {
    if head.kind.is_numbered() {
        head.lsn.0
    } else {
        head.lsn.0.saturating_add(1)
    }
}

/// Reads the last segment and the catalog that tells of the others, making again what of it is damaged.
///
/// # Errors
/// What nothing in the store tells again: the header of the only segment, of which no record can be read; and
/// damage to the segment before in addition.
// req: JOURNAL-41
pub(super) fn read_last(
    dir: &SegmentDir,
    listing: &Listing,
    number: u32,
) -> Result<(Patient, Vec<CatalogEntry>), JournalError> {
    let (patient, error) = match OpenSegment::open(dir, number) {
        Ok(segment) => {
            let patient = Patient::of(&segment, None)?;
            match segment.catalog() {
                Ok(catalog) => return Ok((patient, catalog)),
                Err(error) => (Some(patient), error),
            }
        }
        Err(error @ JournalError::Damaged { .. }) => (None, error),
        Err(error) => return Err(error),
    };
    let before = match listing.segments.range(..number).next_back() {
        Some(before) => {
            let segment = OpenSegment::open(dir, *before)?;
            Some((Patient::of(&segment, None)?, segment.catalog()?))
        }
        None => None,
    };
    match (patient, before) {
        (Some(patient), before) => with_catalog_of(patient, before, RebuiltFrom::Previous),
        (None, Some(before)) => rebuild_behind(dir, number, before),
        (None, None) => rebuild_alone(dir, number, error),
    }
}

/// Gives a segment whose header is right the catalog that the segment before it makes likely.
fn with_catalog_of(
    mut patient: Patient,
    before: Option<(Patient, Vec<CatalogEntry>)>,
    source: RebuiltFrom,
) -> Result<(Patient, Vec<CatalogEntry>), JournalError> {
    let first = patient.header.first;
    let mut entries = Vec::new();
    if let Some((before, catalog)) = before {
        let mut released = before.released();
        released.extend(patient.released());
        entries = catalog;
        entries.retain(|entry| !released.contains(&entry.number));
        entries.push(CatalogEntry {
            number: before.number,
            first: before.header.first,
            end: first,
        });
        for entry in &mut entries {
            entry.end = entry.end.min(first);
        }
        entries.retain(|entry| entry.first < entry.end);
    }
    patient.put_header(&entries, source)?;
    Ok((patient, entries))
}

/// Makes the last segment's header again with what its records say and with the segment before.
fn rebuild_behind(
    dir: &SegmentDir,
    number: u32,
    (before, catalog): (Patient, Vec<CatalogEntry>),
) -> Result<(Patient, Vec<CatalogEntry>), JournalError> {
    let mut bytes = read_file(dir, number)?;
    let entry = CatalogEntry {
        number: before.number,
        first: before.header.first,
        end: LSN_MAX,
    };
    let store_id = before.header.store_id;
    let found = salvage(&bytes, &(before.header.first..LSN_MAX));
    let found = found.or_else(|| salvage_empty(&bytes, entry));
    if let Some(found) = &found
        && let Some(own) = &found.catalog
    {
        let place = (own.first, own.records_at);
        let mut patient = made_up(dir, number, bytes, store_id, found.salt, place);
        patient.put_header(&own.entries, RebuiltFrom::Records)?;
        return Ok((patient, own.entries.clone()));
    }
    let end = before.records_end();
    let least = records_at(catalog.len() + 1) as usize;
    let (salt, place, source) = match found {
        Some(found) => {
            let missing = usize::try_from(found.next.0.saturating_sub(end.0)).unwrap_or(usize::MAX);
            let room = found.mark_at.saturating_sub(least) / HEAD_BYTES;
            // What lacks was here if there is room for it; otherwise the segment before lacks its end.
            let was_here = missing > 0 && missing <= room;
            let place = if was_here {
                (end, least)
            } else {
                (found.next, found.mark_at)
            };
            (found.salt, place, RebuiltFrom::Previous)
        }
        None => {
            bytes.fill(0);
            let last = Lsn(end.0.saturating_sub(1));
            let salt = before.header.salt ^ u64::from(number);
            (salt, (end, least), RebuiltFrom::Nothing { last })
        }
    };
    let patient = made_up(dir, number, bytes, store_id, salt, place);
    with_catalog_of(patient, Some((before, catalog)), source)
}

/// Makes the header of the only segment again; `error` tells why that is needed.
fn rebuild_alone(
    dir: &SegmentDir,
    number: u32,
    error: JournalError,
) -> Result<(Patient, Vec<CatalogEntry>), JournalError> {
    let bytes = read_file(dir, number)?;
    let Some(found) = salvage(&bytes, &(Lsn(1)..LSN_MAX)) else {
        return Err(error);
    };
    // All segments of a store must agree in it: alone, it may be anything.
    let id = bytes.get(16..32).and_then(|id| id.try_into().ok());
    let id = id.unwrap_or_default();
    if let Some(own) = &found.catalog {
        let place = (own.first, own.records_at);
        let mut patient = made_up(dir, number, bytes, id, found.salt, place);
        patient.put_header(&own.entries, RebuiltFrom::Records)?;
        return Ok((patient, own.entries.clone()));
    }
    // As many records as there was room for may have been before the first that can be read.
    let least = records_at(0) as usize;
    let room = found.mark_at.saturating_sub(least) / HEAD_BYTES;
    let first = Lsn(found.next.0.saturating_sub(room as u64).max(1));
    let place = if first < found.next {
        (first, least)
    } else {
        (first, found.mark_at)
    };
    let patient = made_up(dir, number, bytes, id, found.salt, place);
    with_catalog_of(patient, None, RebuiltFrom::Previous)
}

/// Reads a segment before the last one, which `entry` lists. One whose header is damaged gets one from its own
/// records; one that is gone, or of which no record can be told, is as if nothing in it could be read.
// req: JOURNAL-40
pub(super) fn read_older(
    dir: &SegmentDir,
    last: &Header,
    entry: &CatalogEntry,
) -> Result<Patient, JournalError> {
    let end = Some(entry.end);
    match OpenSegment::open(dir, entry.number) {
        Ok(segment) if segment.header.first == entry.first => return Patient::of(&segment, end),
        Ok(_) | Err(JournalError::Damaged { .. }) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let bytes = match read_file(dir, entry.number) {
        Err(error) if error.is_not_found() => Vec::new(),
        read => read?,
    };
    let store_id = last.store_id;
    if let Some(found) = salvage(&bytes, &(entry.first..entry.end)) {
        let (entries, at) = match found.catalog {
            Some(own) => (own.entries, own.records_at),
            None if found.next == entry.first => (Vec::new(), found.mark_at),
            None => (Vec::new(), records_at(0) as usize),
        };
        let place = (entry.first, at);
        let mut patient = made_up(dir, entry.number, bytes, store_id, found.salt, place);
        patient.end = end;
        patient.put_header(&entries, RebuiltFrom::Records)?;
        return Ok(patient);
    }
    // Its salt is lost with its header: no record can be told from other bytes.
    let salt = last.salt ^ u64::from(entry.number);
    let at = records_at(0) as usize;
    let count = usize::try_from(entry.end.0.saturating_sub(entry.first.0)).unwrap_or(0);
    let bytes = vec![0; at.saturating_add(count.saturating_mul(HEAD_BYTES))];
    let mut patient = made_up(dir, entry.number, bytes, store_id, salt, (entry.first, at));
    patient.end = end;
    patient.put_header(&[], RebuiltFrom::Records)?;
    // That it is lost is told of its records.
    patient.rebuilt = None;
    Ok(patient)
}

/// A patient with a header that is still to be put before its bytes.
fn made_up(
    dir: &SegmentDir,
    number: u32,
    bytes: Vec<u8>,
    store_id: [u8; 16],
    salt: u64,
    (first, records_at): (Lsn, usize),
) -> Patient {
    Patient {
        number,
        path: dir.segment_path(number),
        header: Header {
            number,
            store_id,
            first,
            salt,
            records_at: u32::try_from(records_at).unwrap_or(u32::MAX),
        },
        bytes,
        end: None,
        rebuilt: None,
    }
}

fn read_file(dir: &SegmentDir, number: u32) -> Result<Vec<u8>, JournalError> {
    let path = dir.segment_path(number);
    let file = dir.disk.open(&path, OpenMode::Read);
    let file = file.map_err(io_error("open", &path))?;
    let len = file.len_bytes().map_err(io_error("read", &path))?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)
        .map_err(io_error("read", &path))?;
    Ok(bytes)
}

fn damaged(path: &Path, what: &str) -> JournalError {
    JournalError::Damaged {
        path: path.to_path_buf(),
        offset: 0,
        what: what.to_owned(),
    }
}
