//! Recovery: segments to what the broker must know again.
//!
//! Owns: telling a torn tail from damage, and writing the surviving tail again. Changes nothing before
//! it is sure that the store is whole.
//! Segments with a footer are not read: only the last one is, unless it was closed cleanly.
//! Bound: the accounts of all segments, what one batch holds, and one reading window; of segments whose
//! records are read also their lists, until the store is open.
//! Spec: `spec/journal.md`, "Recovery", JOURNAL-8 to JOURNAL-15, JOURNAL-26 to JOURNAL-29.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;

use super::account::FooterPlace;
use super::books::Books;
use super::commit::Committer;
use super::error::JournalError;
use super::footer::{Summary, Trailer};
use super::inspect::Verified;
use super::read::ReadFiles;
use super::record::{CatalogEntry, Kind, decode_released, mark_durable};
use super::replay::{Held, Replay};
use super::restart::restart;
use super::sabotage::{self, Sabotage};
use super::segment::{FileRole, OpenSegment, Scan, Scanned, SegmentDir, io_error};
use super::settings::{JournalSettings, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use super::types::{Location, Lsn, Recovered};

/// Opens or creates the store and gives the sync thread's state and what was found.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    path: &Path,
    settings: JournalSettings,
) -> Result<(Committer, Recovered), JournalError> {
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&settings.segment_bytes) {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "segment_bytes is out of range");
        return Err(JournalError::Io {
            doing: "open",
            path: path.to_path_buf(),
            source,
        });
    }
    let dir = SegmentDir {
        disk,
        path: path.to_path_buf(),
    };
    prepare_dir(&dir)?;
    let listing = Listing::read(&dir)?;
    let store = read_store(&dir, &listing, Trust::Footers)?;
    restart(dir, &listing, settings, store)
}

fn prepare_dir(dir: &SegmentDir) -> Result<(), JournalError> {
    dir.disk
        .create_dir_all(&dir.path)
        .map_err(io_error("create", &dir.path))?;
    if let Some(parent) = dir
        .path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        dir.disk
            .sync_dir(parent)
            .map_err(io_error("sync", parent))?;
    }
    Ok(())
}

/// The files of the directory, by what they are.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: BTreeSet<u32>,
    pub(super) spares: Vec<u64>,
    pub(super) unfinished: Vec<String>,
}

impl Listing {
    pub(super) fn read(dir: &SegmentDir) -> Result<Self, JournalError> {
        let mut listing = Self::default();
        for entry in dir
            .disk
            .list(&dir.path)
            .map_err(io_error("read", &dir.path))?
        {
            match SegmentDir::role(&entry.name) {
                FileRole::Segment(number) => {
                    listing.segments.insert(number);
                }
                FileRole::Spare(number) => listing.spares.push(number),
                FileRole::New => listing.unfinished.push(entry.name),
                FileRole::Other => {}
            }
        }
        Ok(listing)
    }
}

/// Whether segments that have footers are read nevertheless.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trust {
    /// What a footer says is believed.
    Footers,
    /// Only records are.
    Records,
}

/// What reading all segments gave.
pub(super) struct Store {
    pub(super) replay: Replay,
    pub(super) store_id: Option<[u8; 16]>,
    /// The segments that stay.
    pub(super) catalog: Vec<CatalogEntry>,
    /// Whole records that no mark names, to be written again; the first has the number `cut`.
    pub(super) tail: Vec<Held>,
    /// The number of the first record that is not yet safe; all below are.
    pub(super) cut: Lsn,
    /// The last segment.
    pub(super) last: Option<LastSegment>,
    /// Segments whose records were read, and where they end in bytes: they get a footer.
    pub(super) scanned: Vec<(u32, u64)>,
}

/// What is known of the last segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LastSegment {
    pub(super) number: u32,
    pub(super) first: Lsn,
    /// Where its whole records end, in bytes.
    pub(super) end: u64,
    /// Whether it was closed cleanly and has a footer.
    pub(super) is_closed: bool,
}

/// A segment's footer.
struct Footer {
    trailer: Trailer,
    summary: Summary,
}

impl Footer {
    /// Reads the footer of a segment; `None` if it has none that is whole.
    // req: JOURNAL-27
    fn read(segment: &OpenSegment) -> Result<Option<Self>, JournalError> {
        let Some((trailer, bytes)) = segment.footer_parts()? else {
            return Ok(None);
        };
        let summary = Summary::decode(&bytes)
            .filter(|summary| summary.first == segment.header.first && summary.end == trailer.end);
        Ok(summary.map(|summary| Self { trailer, summary }))
    }
}

/// What must be known of the last segment before the others are read.
struct Ahead {
    /// The segments that its records release.
    // req: JOURNAL-14
    released: BTreeSet<u32>,
    has_batch_end: bool,
    footer: Option<Footer>,
}

impl Ahead {
    fn look(last: &OpenSegment, trust: Trust) -> Result<Self, JournalError> {
        // req: JOURNAL-29
        if trust == Trust::Footers
            && let Some(footer) = Footer::read(last)?
            && footer.trailer.is_closed
            && footer.summary.batch_open == Lsn::ZERO
        {
            return Ok(Self {
                released: footer.summary.released.iter().copied().collect(),
                has_batch_end: footer.summary.has_batch_end,
                footer: Some(footer),
            });
        }
        let mut ahead = Self {
            released: BTreeSet::new(),
            has_batch_end: false,
            footer: None,
        };
        let mut scan = Scan::new(last);
        while let Scanned::Record { record, .. } = scan.next()? {
            ahead.has_batch_end |= record.head.kind.is_numbered() && !record.head.more;
            if record.head.kind == Kind::Released
                && let Some(number) = decode_released(record.body)
            {
                ahead.released.insert(number);
            }
        }
        Ok(ahead)
    }
}

pub(super) fn read_store(
    dir: &SegmentDir,
    listing: &Listing,
    trust: Trust,
) -> Result<Store, JournalError> {
    let mut store = Store {
        replay: Replay::new(Books::new(ReadFiles::new(dir.clone()))),
        store_id: None,
        catalog: Vec::new(),
        tail: Vec::new(),
        cut: Lsn(1),
        last: None,
        scanned: Vec::new(),
    };
    let Some(&last_number) = listing.segments.last() else {
        return Ok(store);
    };
    let last = OpenSegment::open(dir, last_number)?;
    store.store_id = Some(last.header.store_id);
    store.cut = last.header.first;
    let ahead = Ahead::look(&last, trust)?;
    let mut older = Vec::new();
    for entry in last.catalog()? {
        if ahead.released.contains(&entry.number) {
            continue;
        }
        // req: JOURNAL-13
        if !listing.segments.contains(&entry.number) {
            return Err(JournalError::SegmentMissing {
                path: dir.segment_path(entry.number),
            });
        }
        older.push(store.open_older(dir, entry, trust)?);
    }
    let footers = believable(older, &ahead, last.header.first);
    for (entry, segment, footer) in footers {
        store.read_older(&entry, &segment, footer)?;
        store.catalog.push(entry);
    }
    match ahead.footer {
        Some(footer) => store.believe_last(&last, footer)?,
        None => store.read_last(&last)?,
    }
    Ok(store)
}

/// An older segment: as the catalog lists it, open, and its footer if it has one that can be believed.
type Older = (CatalogEntry, OpenSegment, Option<Footer>);

/// Takes the footers away that say something of an atomic batch whose end is not in the store.
// req: JOURNAL-11
fn believable(mut older: Vec<Older>, ahead: &Ahead, last_first: Lsn) -> Vec<Older> {
    let mut is_ended_later = ahead.has_batch_end;
    let mut next_first = last_first;
    for (entry, _, footer) in older.iter_mut().rev() {
        let goes_on = footer
            .as_ref()
            .is_some_and(|footer| footer.summary.batch_open != Lsn::ZERO);
        // A released segment between the two held the end of the batch: the batch was whole.
        let has_gap = entry.end != next_first;
        let has_end = footer
            .as_ref()
            .is_some_and(|footer| footer.summary.has_batch_end);
        if goes_on && !is_ended_later && !has_gap {
            *footer = None;
        }
        is_ended_later |= has_end;
        next_first = entry.first;
    }
    older
}

impl Store {
    /// What the store holds, if nothing is opened.
    pub(super) fn verified(mut self, dir: &SegmentDir) -> Result<Verified, JournalError> {
        let mut last = Lsn(self.cut.0 - 1);
        if let Some(LastSegment { number, .. }) = self.last {
            let segment = OpenSegment::open(dir, number)?;
            for held in std::mem::take(&mut self.tail) {
                last = held.lsn;
                self.replay.take_held(&segment, held)?;
            }
            let mut ledger = self.replay.books.ledger();
            ledger.end_records(number, last.next());
        }
        let recovered = self.replay.recovered()?;
        let queues = recovered.queues.values();
        Ok(Verified {
            segment_count: self.catalog.len() + usize::from(self.last.is_some()),
            last,
            queue_count: recovered.queues.len(),
            message_count: queues.map(|queue| queue.count).sum(),
            definition_count: recovered.definitions.len(),
            clean: recovered.clean,
            end: self
                .last
                .map(|last| (dir.segment_path(last.number), last.end)),
        })
    }

    fn open_older(
        &self,
        dir: &SegmentDir,
        entry: CatalogEntry,
        trust: Trust,
    ) -> Result<Older, JournalError> {
        let segment = OpenSegment::open(dir, entry.number)?;
        if Some(segment.header.store_id) != self.store_id {
            return Err(segment.damaged(0, "it belongs to another store"));
        }
        if segment.header.first != entry.first {
            return Err(segment.damaged(0, "the header does not agree with the catalog"));
        }
        let footer = match trust {
            // It was made for more records than count now if recovery has written the last ones again.
            Trust::Footers => {
                Footer::read(&segment)?.filter(|footer| footer.summary.end == entry.end)
            }
            Trust::Records => None,
        };
        Ok((entry, segment, footer))
    }

    /// Reads a segment before the last one: all of its records up to `entry.end` must be there.
    fn read_older(
        &mut self,
        entry: &CatalogEntry,
        segment: &OpenSegment,
        footer: Option<Footer>,
    ) -> Result<(), JournalError> {
        let previous_end = self.catalog.last().map_or(Lsn(1), |previous| previous.end);
        if let Some(footer) = footer {
            let Footer { trailer, summary } = footer;
            let place = FooterPlace::File { base: trailer.base };
            return self
                .replay
                .take_footer(segment, summary, place, previous_end);
        }
        self.replay
            .begin_segment(segment, entry.first, previous_end)?;
        let mut scan = Scan::new(segment);
        let mut next = entry.first;
        while next < entry.end {
            match scan.next()? {
                Scanned::Record {
                    offset,
                    record,
                    bytes,
                } => {
                    if !record.head.kind.is_numbered() {
                        continue;
                    }
                    if record.head.lsn != next {
                        let what = format!("record {} where {next} belongs", record.head.lsn);
                        return Err(segment.damaged(u64::from(offset), &what));
                    }
                    let location = Location {
                        segment: entry.number,
                        offset,
                    };
                    self.replay.take(segment, &record, bytes, location)?;
                    next = next.next();
                }
                // req: JOURNAL-9
                Scanned::Bad { offset } => {
                    if sabotage::is(Sabotage::TruncateAtFirstBad) {
                        break;
                    }
                    let what = format!("record {next} is not whole");
                    return Err(segment.damaged(offset, &what));
                }
            }
        }
        self.scanned.push((entry.number, scan.position()));
        self.replay
            .books
            .ledger()
            .end_records(entry.number, entry.end);
        Ok(())
    }

    /// Takes the last segment as its footer tells, which was written after all of it was synced.
    // req: JOURNAL-29
    fn believe_last(&mut self, segment: &OpenSegment, footer: Footer) -> Result<(), JournalError> {
        let previous_end = self.catalog.last().map_or(Lsn(1), |previous| previous.end);
        let Footer { trailer, summary } = footer;
        self.cut = summary.end;
        self.last = Some(LastSegment {
            number: segment.header.number,
            first: segment.header.first,
            end: u64::from(trailer.records_end),
            is_closed: true,
        });
        let place = FooterPlace::File { base: trailer.base };
        self.replay
            .take_footer(segment, summary, place, previous_end)
    }

    /// Reads the last segment, whose tail may be torn.
    // req: JOURNAL-9 JOURNAL-10
    fn read_last(&mut self, segment: &OpenSegment) -> Result<(), JournalError> {
        let header = segment.header;
        let previous_end = self.catalog.last().map_or(Lsn(1), |previous| previous.end);
        self.replay
            .begin_segment(segment, header.first, previous_end)?;
        let mut tail: Vec<Held> = Vec::new();
        let mut scan = Scan::new(segment);
        let mut next = header.first;
        while let Scanned::Record {
            offset,
            record,
            bytes,
        } = scan.next()?
        {
            match record.head.kind {
                Kind::Mark => {
                    let durable = mark_durable(record.body).unwrap_or_default();
                    let count = tail.iter().take_while(|held| held.lsn <= durable).count();
                    for held in tail.drain(..count) {
                        self.replay.take_held(segment, held)?;
                    }
                }
                Kind::Catalog => {}
                _ if record.head.lsn != next => break,
                _ => {
                    let location = Location {
                        segment: header.number,
                        offset,
                    };
                    let more = record.head.more;
                    tail.push(Held {
                        location,
                        bytes: bytes.to_vec(),
                        lsn: next,
                        more,
                    });
                    next = next.next();
                }
            }
        }
        if !sabotage::is(Sabotage::TruncateAtFirstBad)
            && let Some(mark_at) = scan.find_cover(next)?
        {
            let what = format!(
                "record {next} is not whole, and the sync mark at byte {mark_at} covers it"
            );
            return Err(segment.damaged(scan.position(), &what));
        }
        self.last = Some(LastSegment {
            number: header.number,
            first: header.first,
            end: scan.position(),
            is_closed: false,
        });
        self.scanned.push((header.number, scan.position()));
        self.cut_tail(tail, next);
        Ok(())
    }

    /// Drops an atomic batch that has no end, and settles where the safe records end.
    // req: JOURNAL-11 JOURNAL-12
    fn cut_tail(&mut self, mut tail: Vec<Held>, next: Lsn) {
        self.cut = tail.first().map_or(next, |held| held.lsn);
        let whole = tail
            .iter()
            .rposition(|held| !held.more)
            .map_or(0, |index| index + 1);
        tail.truncate(whole);
        if tail.is_empty()
            && let Some(first) = self.replay.held.first()
        {
            self.cut = first.lsn;
            self.replay.held.clear();
        }
        self.tail = tail;
    }
}
