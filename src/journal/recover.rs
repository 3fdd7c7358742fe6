//! Recovery: segments to what the broker must know again.
//!
//! Owns: telling a torn tail from damage, and writing the surviving tail again. Changes nothing before
//! it is sure that the store is whole.
//! Bound: 24 bytes per message in a segment, what one batch holds, and one reading window.
//! Spec: `spec/journal.md`, "Recovery", JOURNAL-8 to JOURNAL-15.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, OpenMode};

use super::append::Appender;
use super::backlog::Backlog;
use super::commit::Committer;
use super::error::JournalError;
use super::files::{Files, Made, Plan};
use super::inspect::Verified;
use super::ledger::{Ledger, MovedMap};
use super::read::ReadFiles;
use super::record::{
    CatalogEntry, Head, Kind, MessageView, Record, Runs, decode_released, encode_mark,
    encode_plain, mark_durable, record_bytes, write_checksum,
};
use super::runs::RunSet;
use super::sabotage::{self, Sabotage};
use super::segment::{FileRole, OpenSegment, Scan, Scanned, SegmentDir, io_error, records_at};
use super::settings::{JournalSettings, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use super::shared::Shared;
use super::types::{Found, Location, Lsn, PayloadRecord, QueueId, Recovered, RecoveredQueue};

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
    let moved = MovedMap::default();
    let store = read_store(&dir, &listing, Arc::clone(&moved))?;
    restart(dir, &listing, settings, moved, store)
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
    spares: Vec<u64>,
    unfinished: Vec<String>,
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

/// What reading all segments gave.
pub(super) struct Store {
    replay: Replay,
    store_id: Option<[u8; 16]>,
    /// The segments that stay.
    catalog: Vec<CatalogEntry>,
    /// Whole records that no mark names, to be written again; the first has the number `cut`.
    tail: Vec<Held>,
    /// The number of the first record that is not yet safe; all below are.
    cut: Lsn,
    /// The number of the last segment, and where its whole records end.
    last: Option<(u32, u64)>,
}

/// A record that waits to be applied: for the end of its batch, or for its new place.
#[derive(Debug)]
struct Held {
    location: Location,
    bytes: Vec<u8>,
    lsn: Lsn,
    more: bool,
}

pub(super) fn read_store(
    dir: &SegmentDir,
    listing: &Listing,
    moved: MovedMap,
) -> Result<Store, JournalError> {
    let replay = Replay::new(moved);
    let Some(&last_number) = listing.segments.last() else {
        return Ok(Store {
            replay,
            store_id: None,
            catalog: Vec::new(),
            tail: Vec::new(),
            cut: Lsn(1),
            last: None,
        });
    };
    let last = OpenSegment::open(dir, last_number)?;
    let mut store = Store {
        replay,
        store_id: Some(last.header.store_id),
        catalog: Vec::new(),
        tail: Vec::new(),
        cut: last.header.first,
        last: None,
    };
    let released = find_released(&last)?;
    for entry in last.catalog()? {
        if released.contains(&entry.number) {
            continue;
        }
        // req: JOURNAL-13
        if !listing.segments.contains(&entry.number) {
            return Err(JournalError::SegmentMissing {
                path: dir.segment_path(entry.number),
            });
        }
        store.read_older(dir, &entry)?;
        store.catalog.push(entry);
    }
    store.read_last(&last)?;
    Ok(store)
}

/// The segments that records in the last segment release.
// req: JOURNAL-14
fn find_released(last: &OpenSegment) -> Result<BTreeSet<u32>, JournalError> {
    let mut released = BTreeSet::new();
    let mut scan = Scan::new(last);
    while let Scanned::Record { record, .. } = scan.next()? {
        if record.head.kind == Kind::Released
            && let Some(number) = decode_released(record.body)
        {
            released.insert(number);
        }
    }
    Ok(released)
}

impl Store {
    /// What the store holds, if nothing is opened.
    pub(super) fn verified(mut self, dir: &SegmentDir) -> Result<Verified, JournalError> {
        let mut last = Lsn(self.cut.0 - 1);
        if let Some((number, _)) = self.last {
            let segment = OpenSegment::open(dir, number)?;
            for held in std::mem::take(&mut self.tail) {
                last = held.lsn;
                self.replay.take_held(&segment, held)?;
            }
            self.replay.ledger.end_records(number, last.next());
        }
        let (recovered, _) = self.replay.recovered();
        Ok(Verified {
            segment_count: self.catalog.len() + usize::from(self.last.is_some()),
            last,
            queue_count: recovered.queues.len(),
            message_count: recovered.queues.values().map(|queue| queue.count).sum(),
            definition_count: recovered.definitions.len(),
            clean: recovered.clean,
            end: self
                .last
                .map(|(number, end)| (dir.segment_path(number), end)),
        })
    }

    /// Reads a segment before the last one: all of its records up to `entry.end` must be there.
    fn read_older(&mut self, dir: &SegmentDir, entry: &CatalogEntry) -> Result<(), JournalError> {
        let segment = OpenSegment::open(dir, entry.number)?;
        if Some(segment.header.store_id) != self.store_id {
            return Err(segment.damaged(0, "it belongs to another store"));
        }
        if segment.header.first != entry.first {
            return Err(segment.damaged(0, "the header does not agree with the catalog"));
        }
        let previous_end = self.catalog.last().map_or(Lsn(1), |previous| previous.end);
        self.replay
            .begin_segment(&segment, entry.first, previous_end)?;
        let mut scan = Scan::new(&segment);
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
                    self.replay.take(&segment, &record, bytes, location)?;
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
        self.replay.ledger.end_records(entry.number, entry.end);
        Ok(())
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
        self.last = Some((header.number, scan.position()));
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

/// Applies records in order and keeps a list of each queue's messages.
struct Replay {
    ledger: Ledger,
    queues: HashMap<QueueId, Vec<Found>>,
    payloads: HashMap<Lsn, PayloadRecord>,
    delivered: HashMap<QueueId, RunSet>,
    notes: HashMap<(QueueId, Lsn), u32>,
    /// The records of an atomic batch whose end has not come yet.
    held: Vec<Held>,
    last_kind: Option<Kind>,
}

impl Replay {
    fn new(moved: MovedMap) -> Self {
        Self {
            ledger: Ledger::new(moved),
            queues: HashMap::new(),
            payloads: HashMap::new(),
            delivered: HashMap::new(),
            notes: HashMap::new(),
            held: Vec::new(),
            last_kind: None,
        }
    }

    fn begin_segment(
        &mut self,
        segment: &OpenSegment,
        first: Lsn,
        previous_end: Lsn,
    ) -> Result<(), JournalError> {
        if first < previous_end {
            return Err(segment.damaged(0, "its records overlap with those of the one before"));
        }
        // A released segment between the two held the end of the batch: the batch was whole.
        if first != previous_end {
            self.flush(segment)?;
        }
        self.ledger
            .begin_segment(segment.header.number, first, segment.file_bytes);
        Ok(())
    }

    /// Applies a record, or holds it until its batch is whole.
    // req: JOURNAL-11
    fn take(
        &mut self,
        segment: &OpenSegment,
        record: &Record<'_>,
        bytes: &[u8],
        location: Location,
    ) -> Result<(), JournalError> {
        let more = record.head.more;
        if !more && self.held.is_empty() {
            return self.apply(segment, record, location);
        }
        let lsn = record.head.lsn;
        self.held.push(Held {
            location,
            bytes: bytes.to_vec(),
            lsn,
            more,
        });
        if more { Ok(()) } else { self.flush(segment) }
    }

    fn take_held(&mut self, segment: &OpenSegment, held: Held) -> Result<(), JournalError> {
        let more = held.more;
        self.held.push(held);
        if more { Ok(()) } else { self.flush(segment) }
    }

    fn flush(&mut self, segment: &OpenSegment) -> Result<(), JournalError> {
        for held in std::mem::take(&mut self.held) {
            let Some(head) = Head::decode(&held.bytes) else {
                return Err(segment.damaged(u64::from(held.location.offset), "no record"));
            };
            let record = Record {
                head,
                body: held_body(&held, &head),
            };
            self.apply(segment, &record, held.location)?;
        }
        Ok(())
    }

    fn apply(
        &mut self,
        segment: &OpenSegment,
        record: &Record<'_>,
        location: Location,
    ) -> Result<(), JournalError> {
        if !self.ledger.apply(record, location) {
            let what = "a record's content makes no sense";
            return Err(segment.damaged(u64::from(location.offset), what));
        }
        self.last_kind = Some(record.head.kind);
        match record.head.kind {
            Kind::Message | Kind::Moved => {
                let view = MessageView::decode(record).ok_or_else(|| {
                    segment.damaged(u64::from(location.offset), "a message makes no sense")
                })?;
                let bytes = view.inline_bytes();
                let message = Found {
                    lsn: view.lsn,
                    location,
                    body_bytes: bytes.and_then(|len| u32::try_from(len).ok()).unwrap_or(0),
                    was_delivered: false,
                };
                if let Some(payload) = view.payload() {
                    self.payloads.insert(view.lsn, payload);
                }
                for queue in &view.queues {
                    self.queues.entry(*queue).or_default().push(message);
                }
            }
            Kind::Delivered => {
                let delivered = self.delivered.entry(record.head.queue).or_default();
                for (first, len) in Runs::new(record.body) {
                    delivered.insert_run(first, len);
                }
            }
            Kind::Noted => {
                for (Lsn(first), len) in Runs::new(record.body) {
                    for lsn in first..first.saturating_add(len) {
                        let note = self.notes.entry((record.head.queue, Lsn(lsn))).or_default();
                        *note = (*note).max(record.head.extra);
                    }
                }
            }
            Kind::Mark
            | Kind::Catalog
            | Kind::Acks
            | Kind::QueueDelete
            | Kind::DefinitionPut
            | Kind::DefinitionRemove
            | Kind::DefinitionsReset
            | Kind::Released
            | Kind::CleanStop
            | Kind::Started => {}
        }
        Ok(())
    }

    /// What is alive, in order.
    fn recovered(&mut self) -> (Recovered, Backlog) {
        let mut backlog = Backlog {
            // req: JOURNAL-15
            clean: self.last_kind == Some(Kind::CleanStop),
            notes: std::mem::take(&mut self.notes),
            ..Backlog::default()
        };
        let mut queues = HashMap::with_capacity(self.queues.len());
        for (queue, mut messages) in std::mem::take(&mut self.queues) {
            let delivered = self.delivered.get(&queue);
            messages.retain_mut(|message| {
                message.was_delivered = delivered.is_some_and(|set| set.contains(message.lsn));
                self.ledger.is_live(queue, message.lsn, message.location)
            });
            if !messages.is_sorted_by_key(|message| message.lsn) {
                messages.sort_unstable_by_key(|message| message.lsn);
            }
            let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
                continue;
            };
            let mut recovered = RecoveredQueue {
                count: messages.len() as u64,
                first: first.lsn,
                last: last.lsn,
                ..RecoveredQueue::default()
            };
            for message in &messages {
                recovered.body_bytes += u64::from(message.body_bytes);
                if let Some(payload) = self.payloads.get(&message.lsn) {
                    recovered.payloads.push((message.lsn, *payload));
                }
            }
            messages.shrink_to_fit();
            queues.insert(queue, recovered);
            backlog.queues.insert(queue, messages);
        }
        let recovered = Recovered {
            definitions: self.ledger.definitions.to_vec(),
            queues,
            clean: backlog.clean,
            queue_id_max: self.ledger.queue_max,
        };
        (recovered, backlog)
    }
}

fn held_body<'a>(held: &'a Held, head: &Head) -> &'a [u8] {
    let body = held
        .bytes
        .get(super::record::HEAD_BYTES..)
        .unwrap_or_default();
    body.get(..head.body_bytes as usize).unwrap_or_default()
}

/// Makes the new last segment with the surviving tail, tidies the directory, and sets the writer up.
// req: JOURNAL-12
fn restart(
    dir: SegmentDir,
    listing: &Listing,
    settings: JournalSettings,
    moved: MovedMap,
    store: Store,
) -> Result<(Committer, Recovered), JournalError> {
    let Store {
        mut replay,
        store_id,
        catalog,
        tail,
        cut,
        last,
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
        .chain(last.map(|(number, _)| {
            CatalogEntry {
                number,
                first: replay
                    .ledger
                    .segment(number)
                    .map_or(cut, |account| account.first),
                end: cut,
            }
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
    tidy(&mut files, listing, &catalog, last, &mut replay.ledger)?;
    let segment = OpenSegment::open(&dir, number)?;
    for entry in &catalog {
        replay.ledger.end_records(entry.number, entry.end);
    }
    replay.begin_segment(&segment, cut, cut)?;
    let mut offset = records_at + super::record::MARK_BYTES as u32;
    for mut held in tail {
        held.location = Location {
            segment: number,
            offset,
        };
        offset += u32::try_from(held.bytes.len()).expect("a record is at most half a segment");
        replay.take_held(&segment, held)?;
    }
    let (recovered, backlog) = replay.recovered();
    let mut ledger = replay.ledger;
    ledger.end_records(number, started.next());

    let end = u32::try_from(end).map_err(|_| segment.damaged(0, "its tail is over 4 GiB"))?;
    let count = ledger.segment_count();
    let appender = Appender::new(started.next(), number, end, settings.segment_bytes, count);
    let readers = ReadFiles::new(dir);
    let shared = Arc::new(Shared::new(
        settings, appender, started, moved, readers, backlog,
    ));
    let marked = Lsn(cut.0 - 1);
    Ok((
        Committer::new(shared, ledger, files, current, started, marked),
        recovered,
    ))
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
    debug_assert_eq!(record_bytes(0), super::record::HEAD_BYTES);
    bytes
}

/// Removes what is not needed any more, and cuts the last segment off where its whole records end.
// req: JOURNAL-14
fn tidy(
    files: &mut Files,
    listing: &Listing,
    catalog: &[CatalogEntry],
    last: Option<(u32, u64)>,
    ledger: &mut Ledger,
) -> Result<(), JournalError> {
    let kept: BTreeMap<u32, CatalogEntry> =
        catalog.iter().map(|entry| (entry.number, *entry)).collect();
    let mut is_changed = false;
    for number in &listing.segments {
        if kept.contains_key(number) {
            continue;
        }
        files.discard(&files.dir.segment_path(*number))?;
        ledger.end_segment(*number);
        is_changed = true;
    }
    if let Some((number, end)) = last.filter(|(number, _)| kept.contains_key(number)) {
        let path = files.dir.segment_path(number);
        let file = files
            .dir
            .disk
            .open(&path, OpenMode::ReadWrite)
            .map_err(io_error("open", &path))?;
        file.truncate(end).map_err(io_error("write", &path))?;
        ledger.set_file_bytes(number, end);
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
