//! From a store that was read to one that is written: a new last segment with what was not yet safe.
//!
//! Owns: the first writes of a run. Nothing was changed before.
//! Spec: `spec/journal.md`, "Recovery", JOURNAL-12, JOURNAL-14, JOURNAL-26.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::disk::OpenMode;

use super::account::FooterPlace;
use super::append::Appender;
use super::books::Books;
use super::commit::Committer;
use super::error::JournalError;
use super::files::{Files, FooterPlan, Made, Plan};
use super::record::{
    CatalogEntry, HEAD_BYTES, Head, Kind, MARK_BYTES, Record, encode_mark, encode_plain,
    record_bytes, write_checksum,
};
use super::recover::{LastSegment, Listing, Store};
use super::replay::Held;
use super::segment::{OpenSegment, SegmentDir, io_error, records_at};
use super::settings::JournalSettings;
use super::shared::Shared;
use super::types::{Location, Lsn, Recovered};

/// Makes the new last segment with the surviving tail, tidies the directory, and sets the writer up.
// req: JOURNAL-12
pub(super) fn restart(
    dir: SegmentDir,
    listing: &Listing,
    settings: JournalSettings,
    store: Store,
) -> Result<(Committer, Recovered), JournalError> {
    let Store {
        mut replay,
        store_id,
        catalog,
        tail,
        cut,
        last,
        scanned,
    } = store;
    for name in &listing.unfinished {
        let path = dir.path.join(name);
        dir.disk.remove(&path).map_err(io_error("remove", &path))?;
    }
    let store_id = store_id.unwrap_or_else(|| new_store_id(&settings.seed));
    let mut files = Files::new(
        dir.clone(),
        store_id,
        settings.seed,
        settings.segment_bytes,
        listing.spares.clone(),
        settings.spare_segments,
    );

    let catalog: Vec<CatalogEntry> = catalog
        .into_iter()
        .chain(last.map(|last| CatalogEntry {
            number: last.number,
            first: last.first,
            end: cut,
        }))
        .map(|entry| CatalogEntry {
            end: entry.end.min(cut),
            ..entry
        })
        .filter(|entry| entry.first < entry.end)
        .collect();
    let Some(number) = listing.segments.last().copied().unwrap_or(0).checked_add(1) else {
        let source = io::Error::other("the segment numbers are used up");
        return Err(JournalError::Io {
            doing: "open",
            path: dir.path,
            source,
        });
    };
    let records_at = records_at(catalog.len());
    let started = tail.last().map_or(cut, |held| held.lsn.next());
    let write_tail = |salt: u64| encode_tail(&tail, cut, started, salt);
    let tail_bytes = write_tail(0).len();
    let end = u64::from(records_at) + tail_bytes as u64;
    let file_bytes = end.max(u64::from(settings.segment_bytes));
    let plan = Plan {
        number,
        first: cut,
        records_at,
        file_bytes,
        catalog: &catalog,
        tail: &write_tail,
    };
    let current = match files.make(&plan)? {
        Made::Segment(current) => current,
        Made::NoSpace => {
            let source = io::ErrorKind::StorageFull.into();
            return Err(JournalError::Io {
                doing: "allocate",
                path: dir.path,
                source,
            });
        }
    };

    // From here on the store is the new one.
    tidy(&mut files, listing, &catalog, last, &replay.books)?;
    let segment = OpenSegment::open(&dir, number)?;
    for entry in &catalog {
        replay.books.ledger().end_records(entry.number, entry.end);
    }
    replay.begin_segment(&segment, cut, cut)?;
    let mut offset = records_at + MARK_BYTES as u32;
    for mut held in tail {
        held.location = Location {
            segment: number,
            offset,
        };
        offset += u32::try_from(held.bytes.len()).expect("a record is at most half a segment");
        replay.take_held(&segment, held)?;
    }
    let recovered = replay.recovered()?;
    let books = replay.books;
    {
        let mut ledger = books.ledger();
        let head = Head::new(Kind::Started, started, 0);
        let location = Location {
            segment: number,
            offset,
        };
        ledger.apply(&Record { head, body: &[] }, location);
        ledger.freeze_before(number);
        ledger.complete_below = number;
    }
    for (number, records_end) in scanned {
        seal(&dir, number, records_end, &books)?;
    }
    let end = u32::try_from(end).map_err(|_| segment.damaged(0, "its tail is over 4 GiB"))?;
    let count = books.ledger().segment_count();
    let appender = Appender::new(started.next(), number, end, settings.segment_bytes, count);
    let shared = Shared::new(settings, appender, started, books, recovered.clean);
    let marked = Lsn(cut.0 - 1);
    Ok((
        Committer::new(Arc::new(shared), files, current, started, marked),
        recovered,
    ))
}

/// Gives a segment whose records were read its footer, durably, so that the next start need not.
///
/// Without room for it the footer stays in memory, as far as such footers may.
// req: JOURNAL-26
fn seal(
    dir: &SegmentDir,
    number: u32,
    records_end: u64,
    books: &Books,
) -> Result<(), JournalError> {
    let frozen = match books
        .ledger()
        .segment(number)
        .map(|account| &account.footer)
    {
        Some(FooterPlace::Memory(frozen)) => Arc::clone(frozen),
        Some(FooterPlace::None | FooterPlace::File { .. }) | None => return Ok(()),
    };
    let segment = OpenSegment::open(dir, number)?;
    let Ok(end) = u32::try_from(records_end) else {
        return Ok(());
    };
    let plan = FooterPlan {
        segment: number,
        salt: segment.header.salt,
        records_end: end,
        hash: segment.hash(records_end)?,
        is_closed: false,
    };
    let path = &segment.path;
    let file = dir
        .disk
        .open(path, OpenMode::ReadWrite)
        .map_err(io_error("open", path))?;
    if let Some((base, file_bytes)) = Files::write_footer(&*file, path, &frozen, &plan)? {
        file.sync_data().map_err(io_error("sync", path))?;
        let mut ledger = books.ledger();
        ledger.set_footer(number, FooterPlace::File { base });
        ledger.set_file_bytes(number, file_bytes);
    } else {
        books.ledger().shed_footers(number);
    }
    books.forget(number);
    Ok(())
}

/// A mark, the tail with its old numbers, and the note that the store was opened.
fn encode_tail(tail: &[Held], cut: Lsn, started: Lsn, salt: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_mark(&mut bytes, Lsn(cut.0 - 1), Lsn(cut.0 - 1));
    for held in tail {
        bytes.extend_from_slice(&held.bytes);
    }
    encode_plain(&mut bytes, &Head::new(Kind::Started, started, 0), &[]);
    let mut rest = bytes.as_mut_slice();
    while !rest.is_empty() {
        let (_, len) = write_checksum(rest, salt);
        rest = rest.split_at_mut(len).1;
    }
    debug_assert_eq!(record_bytes(0), HEAD_BYTES);
    bytes
}

/// Removes what is not needed any more, and cuts the last segment off where its whole records end.
// req: JOURNAL-14
fn tidy(
    files: &mut Files,
    listing: &Listing,
    catalog: &[CatalogEntry],
    last: Option<LastSegment>,
    books: &Books,
) -> Result<(), JournalError> {
    let kept: BTreeMap<u32, CatalogEntry> =
        catalog.iter().map(|entry| (entry.number, *entry)).collect();
    let mut is_changed = files.drop_hollow_spares()?;
    for number in &listing.segments {
        if kept.contains_key(number) {
            continue;
        }
        files.discard(&files.dir.segment_path(*number))?;
        books.ledger().end_segment(*number);
        is_changed = true;
    }
    if let Some(last) = last.filter(|last| kept.contains_key(&last.number) && !last.is_closed) {
        let path = files.dir.segment_path(last.number);
        let file = files
            .dir
            .disk
            .open(&path, OpenMode::ReadWrite)
            .map_err(io_error("open", &path))?;
        file.truncate(last.end).map_err(io_error("write", &path))?;
        books.ledger().set_file_bytes(last.number, last.end);
        books.forget(last.number);
    }
    if is_changed {
        files.sync_dir()?;
    }
    Ok(())
}

fn new_store_id(seed: &[u8; 32]) -> [u8; 16] {
    let mut id = [0; 16];
    let mut hasher = blake3::Hasher::new_keyed(seed);
    hasher.update(b"warren journal store id");
    hasher.finalize_xof().fill(&mut id);
    id
}
