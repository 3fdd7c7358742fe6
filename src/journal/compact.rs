//! Cleaning: segments that nothing needs are released, and mostly dead ones are emptied first.
//!
//! Owns: which segment is cleaned and how far that is. Runs on the sync thread, in steps.
//! Bound: a step reads and copies [`COPY_BYTES_MAX`] and one record; at most one segment is cleaned at a
//! time. The disk holds at most twice what is live and two segments more, as far as an estimate by the
//! number of messages goes.
//! Spec: `spec/journal.md`, "Deleting and compaction", JOURNAL-16 to JOURNAL-21, JOURNAL-25.

use std::sync::Arc;

use smallvec::SmallVec;

use super::append::Appender;
use super::books::Books;
use super::commit::{Committer, count_records};
use super::error::{JournalError, StorageFailure};
use super::ledger::KeptAcks;
use super::record::{
    Head, Kind, MessageView, Origin, encode_place_acks, encode_plain, encode_sorted_runs,
    record_bytes,
};
use super::segment::{OpenSegment, Scan, Scanned};
use super::types::{Location, Lsn, QueueId};

/// Read and copied in one step, in bytes.
const COPY_BYTES_MAX: u64 = 1 << 20;

/// Segments cleaned in a row without the disk getting emptier, while nobody else appends anything.
const ROUNDS_MAX: u32 = 8;

/// Whether cleaning gets anywhere.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Records that cleaning appended, and all others, when it was last looked at.
    records: u64,
    others: u64,
    /// The least that the segments took since others appended something, in bytes.
    held: u64,
    rounds: u32,
}

/// Idle ──mostly dead──> Copying ──end of segment──> Idle ──free──> Releasing ──durable──> Idle.
#[derive(Debug)]
pub(crate) enum Cleaning {
    Idle,
    /// Live messages of `segment` are being copied; `offset` is the next record to look at.
    Copying {
        segment: Arc<OpenSegment>,
        offset: u32,
    },
    /// The released record of `number` waits to be durable.
    Releasing {
        number: u32,
        lsn: Lsn,
    },
}

impl Committer {
    /// Does one step; `false` if there is nothing to do.
    ///
    /// While records wait for space nothing is appended behind them: it would wait too, in memory. A segment
    /// whose released record is durable is given up, which is what makes space.
    // req: JOURNAL-39
    pub(super) fn clean(&mut self) -> Result<bool, StorageFailure> {
        let is_stalled = self.is_stalled();
        match std::mem::replace(&mut self.cleaning, Cleaning::Idle) {
            waiting @ (Cleaning::Idle | Cleaning::Copying { .. }) if is_stalled => {
                self.cleaning = waiting;
                Ok(false)
            }
            Cleaning::Idle => Ok(self.choose()),
            Cleaning::Copying { segment, offset } => {
                self.copy_step(&segment, offset);
                Ok(true)
            }
            Cleaning::Releasing { number, lsn } if lsn <= self.written => {
                self.sync_written()?;
                self.shared.books.forget(number);
                self.files.release(number)?;
                self.shared.books.ledger().end_segment(number);
                self.shared.books.forget(number);
                tracing::debug!(segment = number, "segment released");
                Ok(true)
            }
            waiting @ Cleaning::Releasing { .. } => {
                self.cleaning = waiting;
                Ok(false)
            }
        }
    }

    /// Begins with the segment that is cheapest to get rid of, if one is worth it.
    fn choose(&mut self) -> bool {
        let last = self.current.number;
        let is_stuck = self.is_stuck();
        let dead = {
            let ledger = self.shared.books.ledger();
            let mut dead = ledger
                .segments()
                .filter(|(number, account)| *number < last && account.is_dead())
                .filter(|(number, _)| !self.aside.contains(number));
            dead.find(|(number, _)| !is_stuck || ledger.is_free(*number))
                .map(|(number, _)| number)
        };
        if is_stuck && dead.is_none() {
            self.cleaning_due = false;
            return false;
        }
        if let Some(number) = dead {
            self.release(number);
            return true;
        }
        let Some(number) = self.mostly_dead() else {
            self.cleaning_due = false;
            return false;
        };
        match self.shared.books.files.open(number) {
            Ok(segment) => {
                let offset = segment.header.records_at;
                self.cleaning = Cleaning::Copying { segment, offset };
            }
            Err(error) => self.set_aside(number, &error),
        }
        true
    }

    /// Whether cleaning only moves about what it wrote itself: acks, notes and definitions that must be
    /// written again may fill segments of their own.
    fn is_stuck(&mut self) -> bool {
        let appended = self.shared.lock().appender.last().0;
        let others = appended.saturating_sub(self.progress.records);
        let held: u64 = {
            let ledger = self.shared.books.ledger();
            ledger
                .segments()
                .map(|(_, account)| account.file_bytes)
                .sum()
        };
        let progress = &mut self.progress;
        if others != progress.others {
            *progress = Progress {
                records: progress.records,
                others,
                held,
                rounds: 0,
            };
        } else if held < progress.held {
            progress.held = held;
            progress.rounds = 0;
        } else {
            progress.rounds += 1;
        }
        progress.rounds > ROUNDS_MAX
    }

    /// The segment with the smallest live share, if the disk holds more than it should.
    // req: JOURNAL-17
    fn mostly_dead(&self) -> Option<u32> {
        let last = self.current.number;
        let ledger = self.shared.books.ledger();
        let closed = || ledger.segments().filter(move |(number, _)| *number < last);
        let held: u64 = closed().map(|(_, account)| account.file_bytes).sum();
        let live: u64 = closed().map(|(_, account)| account.live_bytes()).sum();
        let allowed = 2 * live + 2 * u64::from(self.shared.settings.segment_bytes);
        if held <= allowed {
            return None;
        }
        closed()
            .filter(|(number, _)| !self.aside.contains(number))
            .filter(|(_, account)| account.live_bytes() < account.file_bytes / 2)
            .min_by_key(|(_, account)| {
                (u128::from(account.live_bytes()) << 20) / u128::from(account.file_bytes.max(1))
            })
            .map(|(number, _)| number)
    }

    /// Writes again what the segment's acks, notes and definitions still mean, and that it is released.
    // req: JOURNAL-16 JOURNAL-18
    fn release(&mut self, number: u32) {
        let shared = Arc::clone(&self.shared);
        let books = &shared.books;
        let notes = match books.live_notes(number) {
            Ok(notes) => notes,
            Err(error) => return self.set_aside(number, &error),
        };
        let mut state = shared.lock();
        let appender = &mut state.appender;
        let counted_before = count_pending(appender, books);
        let before = appender.last();
        if books.ledger().needs_checkpoint(number) {
            books.ledger().definitions.checkpoint(|bytes, encode| {
                appender.append(bytes, encode);
            });
        }
        for kept in books.ledger().acks_to_keep(number) {
            append_kept_acks(appender, &kept);
        }
        for (queue, note, runs) in notes {
            let mut body = Vec::new();
            encode_sorted_runs(&mut body, runs.iter());
            append_for_queue(appender, (Kind::Noted, note), queue, &body);
        }
        let counted = count_pending(appender, books);
        books.ledger().hand_over(number);
        debug_assert!(books.ledger().is_free(number), "nothing holds it any more");
        let (lsn, _) = appender.append(record_bytes(4), |out, lsn| {
            encode_plain(
                out,
                &Head::new(Kind::Released, lsn, 4),
                &number.to_le_bytes(),
            );
        });
        drop(state);
        self.progress.records += lsn.0 - before.0;
        self.cleaning = Cleaning::Releasing { number, lsn };
        if let Err(error) = counted_before.and(counted) {
            self.report_damage(&error);
        }
    }

    /// Copies the next live messages of a segment to the end of the log.
    fn copy_step(&mut self, segment: &Arc<OpenSegment>, offset: u32) {
        let number = segment.header.number;
        let shared = Arc::clone(&self.shared);
        let books = &shared.books;
        let end = books
            .ledger()
            .segment(number)
            .map_or(Lsn::ZERO, |account| account.end);
        let mut scan = Scan::at(segment, offset);
        let mut copies: Vec<(Location, Vec<u8>)> = Vec::new();
        let mut is_done = false;
        while scan.position() < u64::from(offset) + COPY_BYTES_MAX {
            match scan.next() {
                Ok(Scanned::Record {
                    offset,
                    record,
                    bytes,
                }) => {
                    let location = Location {
                        segment: number,
                        offset,
                    };
                    if MessageView::decode(&record).is_some_and(|view| {
                        let ledger = books.ledger();
                        let mut queues = view.queues.iter();
                        queues.any(|queue| ledger.holds(number, *queue, record.head.lsn))
                    }) {
                        copies.push((location, bytes.to_vec()));
                    }
                    if record.head.kind.is_numbered() && record.head.lsn.next() >= end {
                        is_done = true;
                        break;
                    }
                }
                Ok(Scanned::Bad { offset }) => {
                    let error = segment.damaged(offset, "a record is not whole");
                    return self.set_aside(number, &error);
                }
                Err(error) => return self.set_aside(number, &error),
            }
        }
        self.append_copies(&copies, segment.header.salt);
        if !is_done {
            let offset = u32::try_from(scan.position()).unwrap_or(u32::MAX);
            self.cleaning = Cleaning::Copying {
                segment: Arc::clone(segment),
                offset,
            };
        }
    }

    /// Appends copies of what is still alive once everything that is pending has been counted.
    // req: JOURNAL-17 JOURNAL-19
    fn append_copies(&mut self, copies: &[(Location, Vec<u8>)], salt: u64) {
        if copies.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let books = &shared.books;
        let mut state = shared.lock();
        let appender = &mut state.appender;
        let counted_before = count_pending(appender, books);
        let before = appender.last();
        for (location, bytes) in copies {
            let Some(record) = super::record::decode(bytes, salt) else {
                continue;
            };
            let Some(view) = MessageView::decode(&record) else {
                continue;
            };
            let queues: SmallVec<[QueueId; 4]> = {
                let ledger = books.ledger();
                let queues = view.queues.iter().copied();
                queues
                    .filter(|queue| ledger.holds(location.segment, *queue, record.head.lsn))
                    .collect()
            };
            if queues.is_empty() {
                continue;
            }
            let origin = Origin {
                location: *location,
                record: record.head.lsn,
            };
            let len = record_bytes(view.copy_body_bytes(queues.len()));
            appender.append(len, |out, lsn| view.encode_copy(out, lsn, &queues, origin));
        }
        let counted = count_pending(appender, books);
        let copied = appender.last().0 - before.0;
        drop(state);
        self.progress.records += copied;
        if let Err(error) = counted_before.and(counted) {
            self.report_damage(&error);
        }
    }

    /// Leaves a segment that cannot be read as it is until the next start; the others are cleaned on.
    // req: JOURNAL-25
    fn set_aside(&mut self, number: u32, error: &JournalError) {
        self.report_damage(error);
        tracing::error!(
            segment = number,
            "a journal segment can no longer be compacted"
        );
        self.aside.insert(number);
    }
}

/// Counts all that is pending; no ack can come between as long as the appender is held.
fn count_pending(appender: &mut Appender, books: &Books) -> Result<(), JournalError> {
    let mut result = Ok(());
    for part in appender.parts_mut() {
        let counted = count_records(part, books);
        result = result.and(counted);
    }
    result
}

fn append_kept_acks(appender: &mut Appender, kept: &KeptAcks) {
    match kept {
        KeptAcks::Places {
            queue,
            target,
            places,
        } => {
            let body = encode_place_acks(*target, places);
            append_for_queue(appender, (Kind::PlaceAcks, 0), *queue, &body);
        }
        KeptAcks::QueueDelete(queue) => {
            append_for_queue(appender, (Kind::QueueDelete, 0), *queue, &[]);
        }
    }
}

fn append_for_queue(
    appender: &mut Appender,
    (kind, extra): (Kind, u32),
    queue: QueueId,
    body: &[u8],
) {
    appender.append(record_bytes(body.len()), |out, lsn| {
        let mut head = Head::new(kind, lsn, body.len());
        head.extra = extra;
        head.queue = queue;
        encode_plain(out, &head, body);
    });
}
