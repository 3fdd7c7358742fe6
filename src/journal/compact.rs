//! Cleaning: segments that nothing needs are released, and mostly dead ones are emptied first.
//!
//! Owns: which segment is cleaned and how far that is. Runs on the sync thread, in steps.
//! Bound: a step reads and copies [`COPY_BYTES_MAX`] and one record; at most one segment is cleaned at a
//! time. The disk holds at most twice what is live and two segments more, as far as an estimate by the
//! number of messages goes.
//! Spec: `spec/journal.md`, "Deleting and compaction", JOURNAL-16 to JOURNAL-21, JOURNAL-25.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use super::append::Appender;
use super::commit::{Committer, count_records};
use super::error::{JournalError, StorageFailure};
use super::ledger::Ledger;
use super::record::{Head, Kind, MessageView, encode_plain, encode_sorted_runs, record_bytes};
use super::segment::{OpenSegment, Scan, Scanned};
use super::types::{Location, Lsn, QueueId};

/// Read and copied in one step, in bytes.
const COPY_BYTES_MAX: u64 = 1 << 20;

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
    /// Damage was found: nothing is cleaned until an operator has looked at it.
    Stopped,
}

impl Committer {
    /// Does one step; `false` if there is nothing to do.
    pub(super) fn clean(&mut self) -> Result<bool, StorageFailure> {
        match std::mem::replace(&mut self.cleaning, Cleaning::Idle) {
            Cleaning::Idle => Ok(self.choose()),
            Cleaning::Copying { segment, offset } => {
                self.copy_step(&segment, offset);
                Ok(true)
            }
            Cleaning::Releasing { number, lsn } if lsn <= self.written => {
                self.sync_written()?;
                self.shared.files.forget(number);
                self.files.release(number)?;
                self.ledger.end_segment(number);
                tracing::debug!(segment = number, "segment released");
                Ok(true)
            }
            waiting @ Cleaning::Releasing { .. } => {
                self.cleaning = waiting;
                Ok(false)
            }
            Cleaning::Stopped => {
                self.cleaning = Cleaning::Stopped;
                self.cleaning_due = false;
                Ok(false)
            }
        }
    }

    /// Begins with the segment that is cheapest to get rid of, if one is worth it.
    fn choose(&mut self) -> bool {
        let last = self.current.number;
        let dead = self
            .ledger
            .segments()
            .find(|(number, account)| *number < last && account.is_dead())
            .map(|(number, _)| number);
        if let Some(number) = dead {
            self.release(number);
            return true;
        }
        let Some(number) = self.mostly_dead() else {
            self.cleaning_due = false;
            return false;
        };
        match self.shared.files.open(number) {
            Ok(segment) => {
                let offset = segment.header.records_at;
                self.cleaning = Cleaning::Copying { segment, offset };
            }
            Err(error) => self.stop_cleaning(&error),
        }
        true
    }

    /// The segment with the smallest live share, if the disk holds more than it should.
    // req: JOURNAL-17
    fn mostly_dead(&self) -> Option<u32> {
        let last = self.current.number;
        let closed = || {
            self.ledger
                .segments()
                .filter(move |(number, _)| *number < last)
        };
        let held: u64 = closed().map(|(_, account)| account.file_bytes).sum();
        let live: u64 = closed().map(|(_, account)| account.live_bytes()).sum();
        let allowed = 2 * live + 2 * u64::from(self.shared.settings.segment_bytes);
        if held <= allowed {
            return None;
        }
        closed()
            .filter(|(_, account)| account.live_bytes() < account.file_bytes / 2)
            .min_by_key(|(_, account)| {
                (u128::from(account.live_bytes()) << 20) / u128::from(account.file_bytes.max(1))
            })
            .map(|(number, _)| number)
    }

    /// Writes again what the segment's acks and definitions still mean, and that it is released.
    // req: JOURNAL-16 JOURNAL-18
    fn release(&mut self, number: u32) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let appender = &mut state.appender;
        for part in appender.parts_mut() {
            count_records(part, &mut self.ledger);
        }
        if self.ledger.needs_checkpoint(number) {
            self.ledger.definitions.checkpoint(|bytes, encode| {
                appender.append(bytes, encode);
            });
            for part in appender.parts_mut() {
                count_records(part, &mut self.ledger);
            }
        }
        let written = write_acks_again(appender, &self.ledger, number);
        for part in appender.parts_mut() {
            count_records(part, &mut self.ledger);
        }
        self.ledger.hand_over_acks(number, &written);
        debug_assert!(self.ledger.is_free(number), "nothing holds it any more");
        let (lsn, _) = appender.append(record_bytes(4), |out, lsn| {
            encode_plain(
                out,
                &Head::new(Kind::Released, lsn, 4),
                &number.to_le_bytes(),
            );
        });
        self.cleaning = Cleaning::Releasing { number, lsn };
    }

    /// Copies the next live messages of a segment to the end of the log.
    fn copy_step(&mut self, segment: &Arc<OpenSegment>, offset: u32) {
        let number = segment.header.number;
        let end = self
            .ledger
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
                        view.queues
                            .iter()
                            .any(|queue| self.ledger.is_live(*queue, view.lsn, location))
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
                    return self.stop_cleaning(&error);
                }
                Err(error) => return self.stop_cleaning(&error),
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
        let mut state = shared.lock();
        let appender = &mut state.appender;
        for part in appender.parts_mut() {
            count_records(part, &mut self.ledger);
        }
        for (location, bytes) in copies {
            let Some(record) = super::record::decode(bytes, salt) else {
                continue;
            };
            let Some(view) = MessageView::decode(&record) else {
                continue;
            };
            let queues: SmallVec<[QueueId; 4]> = view
                .queues
                .iter()
                .copied()
                .filter(|queue| self.ledger.is_live(*queue, view.lsn, *location))
                .collect();
            if queues.is_empty() {
                continue;
            }
            let len = record_bytes(view.moved_body_bytes(queues.len()));
            appender.append(len, |out, lsn| view.encode_moved(out, lsn, &queues));
        }
        for part in appender.parts_mut() {
            count_records(part, &mut self.ledger);
        }
    }

    // req: JOURNAL-25
    fn stop_cleaning(&mut self, error: &JournalError) {
        tracing::error!(%error, "the journal can no longer be compacted");
        self.cleaning = Cleaning::Stopped;
        self.cleaning_due = false;
    }
}

/// Appends the acks of segment `number` that still work on other segments; gives where they went.
fn write_acks_again(appender: &mut Appender, ledger: &Ledger, number: u32) -> BTreeSet<u32> {
    let mut written = BTreeSet::new();
    for (queue, runs) in ledger.acks_to_keep(number) {
        let mut body = Vec::new();
        let kind = match runs {
            Some(runs) => {
                encode_sorted_runs(&mut body, runs.iter());
                Kind::Acks
            }
            None => Kind::QueueDelete,
        };
        let (_, location) = appender.append(record_bytes(body.len()), |out, lsn| {
            let mut head = Head::new(kind, lsn, body.len());
            head.queue = queue;
            encode_plain(out, &head, &body);
        });
        written.insert(location.segment);
    }
    written
}
