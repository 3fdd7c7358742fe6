//! Repair: makes a store that a start refuses open again, and says before what is lost by it.
//!
//! Owns: finding every damaged stretch of the records that a start needs, and writing a segment that has
//! records without meaning in their place, so that all others keep their numbers.
//! The damaged file stays beside it under another name. Only an operator calls this.
//! Bound: two segments in memory, the last one and the one that is looked at.
//! Spec: `spec/journal.md`, "Repair", JOURNAL-35.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};

use super::error::JournalError;
use super::footer::{Summary, Trailer};
use super::list::{ListForm, block_count, decode_block};
use super::patient::{Patient, Rebuilt, number_behind, read_last, read_older};
use super::record::{ALIGN_BYTES, HEAD_BYTES, Head, Kind, encode_plain, find_mark, write_checksum};
use super::recover::Listing;
use super::segment::{HEADER_BYTES, SegmentDir, io_error};
use super::types::{Lsn, QueueId};

/// A stretch of a segment that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    /// The segment's file.
    pub path: PathBuf,
    /// The first byte of the stretch, and the one behind it.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// The numbers of the records in it: the first, and the one behind the last. None if they are equal.
    pub first: Lsn,
    /// See `first`.
    pub end: Lsn,
    /// Messages that are among them, by queue; `None` if the segment's footer cannot tell: then the
    /// records may have been anything.
    pub messages: Option<Vec<(QueueId, u64)>>,
}

/// What a repair would do, or did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Repair {
    /// What cannot be saved; with `rebuilt` empty if nothing is damaged that a repair can mend.
    pub losses: Vec<Loss>,
    /// Headers that are made again.
    pub rebuilt: Vec<Rebuilt>,
    /// Where damaged files were put aside.
    pub kept: Vec<PathBuf>,
}

/// Looks for what a start would be refused for, and, if `is_to_change`, makes a store that opens.
///
/// # Errors
/// What a repair cannot help: a store of one segment of which nothing can be read, damage to the headers of the last
/// two segments, or another program's store.
// req: JOURNAL-35
pub fn repair(disk: Arc<dyn Disk>, dir: &Path, is_to_change: bool) -> Result<Repair, JournalError> {
    let dir = SegmentDir {
        disk,
        path: dir.to_path_buf(),
    };
    let listing = Listing::read(&dir)?;
    let mut repair = Repair::default();
    let Some(&last_number) = listing.segments.last() else {
        return Ok(repair);
    };
    let (last, catalog) = read_last(&dir, &listing, last_number)?;
    let released = last.released();
    for entry in &catalog {
        if !released.contains(&entry.number) {
            let patient = read_older(&dir, &last.header, entry)?;
            repair.treat(&dir, patient, is_to_change)?;
        }
    }
    repair.treat(&dir, last, is_to_change)?;
    Ok(repair)
}

impl Repair {
    /// Mends one segment, in its file only if `is_to_change`, and notes what that takes.
    fn treat(
        &mut self,
        dir: &SegmentDir,
        mut patient: Patient,
        is_to_change: bool,
    ) -> Result<(), JournalError> {
        let losses = mend(&mut patient);
        if losses.is_empty() && patient.rebuilt.is_none() {
            return Ok(());
        }
        if is_to_change {
            self.kept.extend(replace(dir, &patient)?);
        }
        self.losses.extend(losses);
        self.rebuilt.extend(patient.rebuilt.map(|source| Rebuilt {
            path: patient.path,
            source,
        }));
        Ok(())
    }
}

/// Puts records without meaning in the place of what cannot be read; gives what that was.
fn mend(patient: &mut Patient) -> Vec<Loss> {
    let footer = footer_of(patient);
    let mut losses = Vec::new();
    let mut at = patient.header.records_at as usize;
    let mut next = patient.header.first;
    while patient.end.is_none_or(|end| next < end) {
        let found = patient.next_record(at, next);
        let found = found.map(|(found, record, len)| (found, record.head, len));
        match found {
            Some((found, head, len)) if found == at && number_behind(&head) == next.0 => {
                if head.kind.is_numbered() {
                    next = head.lsn.next();
                }
                at = found + len;
            }
            Some((found, head, _)) => {
                let behind = Lsn(number_behind(&head));
                let end = patient.end.map_or(behind, |end| behind.min(end));
                let count = usize::try_from(end.0 - next.0).unwrap_or(usize::MAX);
                let has_room = found - at >= count.max(1).saturating_mul(HEAD_BYTES);
                if !has_room || (patient.end.is_none() && !is_covered(patient, at, next)) {
                    break;
                }
                losses.push(loss(patient, &footer, (at, found), (next, end)));
                fill(patient, at, found, next, end);
                (at, next) = (found, end);
            }
            // Behind the last whole record: the last segment ends there, another lacks its end.
            None => {
                let Some(end) = patient.end else { break };
                let count = usize::try_from(end.0 - next.0).unwrap_or(0);
                let to = (at + count * HEAD_BYTES).max(patient.bytes.len());
                let to = to.next_multiple_of(ALIGN_BYTES);
                losses.push(loss(patient, &footer, (at, to), (next, end)));
                patient.bytes.resize(to, 0);
                fill(patient, at, to, next, end);
                next = end;
            }
        }
    }
    losses
}

/// Whether a later mark says that record `next` was durable: only then a start refuses the last segment.
fn is_covered(patient: &Patient, at: usize, next: Lsn) -> bool {
    let mut rest = patient.bytes.get(at..).unwrap_or_default();
    while let Some((found, durable)) = find_mark(rest, patient.header.salt) {
        if durable >= next {
            return true;
        }
        rest = rest.get(found + ALIGN_BYTES..).unwrap_or_default();
    }
    false
}

/// Writes the records `first..end`, which say nothing, into the bytes `from..to`.
fn fill(patient: &mut Patient, from: usize, to: usize, first: Lsn, end: Lsn) {
    let mut out = Vec::with_capacity(to - from);
    let mut lsn = first;
    // All but the last are empty; the last one takes the rest. A stretch without numbers is one mark's.
    while lsn.next() < end {
        encode_plain(&mut out, &Head::new(Kind::Started, lsn, 0), &[]);
        lsn = lsn.next();
    }
    let body = vec![0; (to - from).saturating_sub(out.len() + HEAD_BYTES)];
    let head = if first < end {
        Head::new(Kind::Started, lsn, body.len())
    } else {
        Head::new(Kind::Catalog, Lsn(first.0.saturating_sub(1)), body.len())
    };
    encode_plain(&mut out, &head, &body);
    let mut rest = out.as_mut_slice();
    while !rest.is_empty() {
        let (_, len) = write_checksum(rest, patient.header.salt);
        rest = rest.split_at_mut(len).1;
    }
    if let Some(place) = patient.bytes.get_mut(from..to)
        && place.len() == out.len()
    {
        place.copy_from_slice(&out);
    }
}

/// The footer, if it is whole: it tells which messages were in the stretch.
fn footer_of(patient: &Patient) -> Option<(Trailer, Summary)> {
    let trailer = Trailer::decode(&patient.bytes, patient.number, patient.header.salt)?;
    let at = (trailer.base as usize).checked_add(trailer.summary_at as usize)?;
    let summary = patient
        .bytes
        .get(at..at.checked_add(trailer.summary_bytes as usize)?)?;
    if crc32c::crc32c(summary) != trailer.summary_checksum {
        return None;
    }
    Some((trailer, Summary::decode(summary)?))
}

fn loss(
    patient: &Patient,
    footer: &Option<(Trailer, Summary)>,
    (from, to): (usize, usize),
    (first, end): (Lsn, Lsn),
) -> Loss {
    let messages = footer
        .as_ref()
        .and_then(|(trailer, summary)| messages_between(patient, trailer, summary, first, end));
    Loss {
        path: patient.path.clone(),
        from: from as u64,
        to: to as u64,
        first,
        end,
        messages,
    }
}

/// How many messages of each queue the records `first..end` were, as the footer has it.
fn messages_between(
    patient: &Patient,
    trailer: &Trailer,
    summary: &Summary,
    first: Lsn,
    end: Lsn,
) -> Option<Vec<(QueueId, u64)>> {
    let mut counts: BTreeMap<QueueId, u64> = BTreeMap::new();
    for queue in &summary.queues {
        let lists = [
            (ListForm::Native, queue.native),
            (ListForm::Moved, queue.moved),
        ];
        for (form, list) in lists {
            let Some(list) = list else { continue };
            let at = (trailer.base as usize).checked_add(list.at as usize)?;
            let blocks_at = at.checked_add(list.directory_bytes())?;
            let directory = patient.bytes.get(at..blocks_at)?;
            let blocks = super::footer::decode_directory(&list, directory)?;
            for (index, block) in blocks.iter().enumerate() {
                let block_end = blocks.get(index + 1).map_or(list.bytes, |next| next.start);
                let bytes = patient.bytes.get(
                    blocks_at.checked_add(block.start as usize)?
                        ..blocks_at.checked_add(block_end as usize)?,
                )?;
                let count = block_count(list.count, index);
                let entries = decode_block(form, summary.first, block.first, count, bytes)?;
                let lost = entries.iter().filter(|entry| {
                    let record = Lsn(summary.first.0 + u64::from(entry.number));
                    (first..end).contains(&record) && !queue.gone.contains(entry.number)
                });
                let lost = lost.count() as u64;
                if lost > 0 {
                    *counts.entry(queue.queue).or_default() += lost;
                }
            }
        }
    }
    Some(counts.into_iter().collect())
}

/// Writes the mended segment beside the damaged one, keeps that under another name, and takes its place.
fn replace(dir: &SegmentDir, patient: &Patient) -> Result<Option<PathBuf>, JournalError> {
    let new = dir.new_path(patient.number);
    let mut bytes = patient.bytes.clone();
    // The footer tells of messages that are lost: the next start makes another.
    let tail = bytes.len().saturating_sub(super::footer::TRAILER_BYTES);
    if footer_of(patient).is_some()
        && let Some(trailer) = bytes.get_mut(tail..)
    {
        trailer.fill(0);
    }
    drop(dir.disk.remove(&new));
    let file = dir
        .disk
        .open(&new, OpenMode::CreateNew)
        .map_err(io_error("create", &new))?;
    file.write_at(&bytes, 0).map_err(io_error("write", &new))?;
    file.sync_data().map_err(io_error("sync", &new))?;
    let mut kept = dir.path.join(format!("{:010}.damaged", patient.number));
    let mut serial = 1;
    while dir.disk.open(&kept, OpenMode::Read).is_ok() {
        serial += 1;
        kept = dir
            .path
            .join(format!("{:010}.{serial}.damaged", patient.number));
    }
    // A copy, so that at no moment the segment is without its name.
    let kept = match dir.disk.open(&patient.path, OpenMode::Read) {
        Ok(damaged) => {
            copy(dir, &*damaged, &patient.path, &kept)?;
            Some(kept)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error("open", &patient.path)(error)),
    };
    dir.disk
        .rename(&new, &patient.path)
        .map_err(io_error("rename", &new))?;
    dir.disk
        .sync_dir(&dir.path)
        .map_err(io_error("sync", &dir.path))?;
    debug_assert!(bytes.len() >= HEADER_BYTES, "a segment has a header");
    Ok(kept)
}

fn copy(
    dir: &SegmentDir,
    from: &dyn DiskFile,
    from_path: &Path,
    to_path: &Path,
) -> Result<(), JournalError> {
    let len = from.len_bytes().map_err(io_error("read", from_path))?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    from.read_exact_at(&mut bytes, 0)
        .map_err(io_error("read", from_path))?;
    let to = dir
        .disk
        .open(to_path, OpenMode::CreateNew)
        .map_err(io_error("create", to_path))?;
    to.write_at(&bytes, 0).map_err(io_error("write", to_path))?;
    to.sync_data().map_err(io_error("sync", to_path))?;
    dir.disk
        .sync_dir(&dir.path)
        .map_err(io_error("sync", &dir.path))
}
