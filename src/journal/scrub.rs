//! The scrubber: reads full segments again, slowly, so that rot is found before it is needed.
//!
//! Owns: how far the round has come, and what was found. Changes nothing: damage is told, never cut away.
//! Bound: [`STEP_BYTES`] in memory and per step; of the damage found the first [`DAMAGE_COUNT_MAX`] places.
//! Spec: `spec/journal.md`, "Scrubbing", JOURNAL-33.

use std::sync::Arc;
use std::time::Duration;

use super::books::Books;
use super::error::JournalError;
use super::record::HEAD_BYTES;
use super::segment::{OpenSegment, Scan, Scanned, io_error};
use super::shared::{Shared, Stop};

/// Read in one step, in bytes.
pub(crate) const STEP_BYTES: usize = 1 << 20;
/// Places of damage that are kept; all are counted.
const DAMAGE_COUNT_MAX: usize = 16;
/// How long after a start the first round begins.
const FIRST_ROUND_AFTER: Duration = Duration::from_secs(600);

/// What the scrubber has done since the store was opened.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scrubbed {
    /// Rounds over all full segments.
    pub round_count: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Segments found damaged, each once a round.
    pub damage_count: u64,
    /// The first of them, as a reader would be told.
    pub damage: Vec<String>,
}

/// A segment whose bytes are being hashed.
#[derive(Debug)]
struct Reading {
    segment: OpenSegment,
    hasher: blake3::Hasher,
    hash: [u8; 32],
    /// Where the records end, and how far it has come, in bytes.
    end: u64,
    at: u64,
}

/// Waiting ──due──> segment by segment: Reading, or scanned if it has no footer ──last one──> Waiting.
#[derive(Debug)]
pub(crate) struct Scrubber {
    shared: Arc<Shared>,
    reading: Option<Reading>,
    /// The segment that was looked at last in this round.
    last: u32,
    buffer: Vec<u8>,
}

impl Scrubber {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            reading: None,
            last: 0,
            buffer: Vec::new(),
        }
    }

    /// The body of the scrubber's thread; ends when the journal does.
    pub(crate) fn run(mut self) {
        let Some(every) = self.shared.settings.scrub_every else {
            return;
        };
        let rate = self.shared.settings.scrub_bytes_per_second.max(1);
        let step_takes = Duration::from_secs_f64(STEP_BYTES as f64 / f64::from(rate));
        let mut pause = FIRST_ROUND_AFTER.min(every);
        while self.shared.rest(pause) == Stop::Running {
            pause = if self.step() { step_takes } else { every };
        }
    }

    /// Reads a little; `false` if that ended a round.
    // req: JOURNAL-33
    pub(crate) fn step(&mut self) -> bool {
        if self.reading.is_none() {
            let Some(number) = next_sealed(&self.shared.books, self.last) else {
                self.last = 0;
                self.shared.scrubbed.lock().round_count += 1;
                return false;
            };
            self.last = number;
            match self.begin(number) {
                Ok(reading) => self.reading = reading,
                Err(error) => self.found(&error),
            }
            return true;
        }
        if let Err(error) = self.read_on() {
            self.reading = None;
            self.found(&error);
        }
        true
    }

    /// Opens a segment. One without a footer has no hash: its records are checked at once.
    fn begin(&self, number: u32) -> Result<Option<Reading>, JournalError> {
        let segment = OpenSegment::open(&self.shared.books.files.dir, number)?;
        let Some((trailer, _)) = segment.footer_parts()? else {
            check_records(&self.shared.books, &segment)?;
            return Ok(None);
        };
        Ok(Some(Reading {
            segment,
            hasher: blake3::Hasher::new(),
            hash: trailer.hash,
            end: u64::from(trailer.records_end),
            at: 0,
        }))
    }

    fn read_on(&mut self) -> Result<(), JournalError> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        let left = usize::try_from(reading.end - reading.at).unwrap_or(STEP_BYTES);
        self.buffer.resize(left.min(STEP_BYTES), 0);
        let read = reading
            .segment
            .file
            .read_exact_at(&mut self.buffer, reading.at);
        read.map_err(io_error("read", &reading.segment.path))?;
        reading.hasher.update(&self.buffer);
        reading.at += self.buffer.len() as u64;
        self.shared.scrubbed.lock().bytes += self.buffer.len() as u64;
        if reading.at < reading.end {
            return Ok(());
        }
        let is_whole = *reading.hasher.finalize().as_bytes() == reading.hash;
        let segment = self.reading.take().map(|reading| reading.segment);
        match segment {
            Some(segment) if !is_whole => {
                // The record that is damaged is told, if it is one; otherwise it is header or catalog.
                check_records(&self.shared.books, &segment)?;
                Err(segment.damaged(0, "its bytes are not those that were written"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Tells of damage, unless the segment is not needed any more.
    // req: JOURNAL-25
    fn found(&self, error: &JournalError) {
        let is_needed = self.shared.books.ledger().segment(self.last).is_some();
        if !is_needed || error.is_not_found() {
            return;
        }
        tracing::error!(%error, "the journal is damaged; a start may be refused");
        let mut scrubbed = self.shared.scrubbed.lock();
        scrubbed.damage_count += 1;
        if scrubbed.damage.len() < DAMAGE_COUNT_MAX {
            scrubbed.damage.push(error.to_string());
        }
    }
}

/// The next full segment behind `last`.
fn next_sealed(books: &Books, last: u32) -> Option<u32> {
    let ledger = books.ledger();
    let mut sealed = ledger
        .segments()
        .filter(|(_, account)| account.contents.is_none());
    sealed
        .find(|(number, _)| *number > last)
        .map(|(number, _)| number)
}

/// Checks every record of a full segment.
fn check_records(books: &Books, segment: &OpenSegment) -> Result<(), JournalError> {
    let number = segment.header.number;
    let Some((mut next, end)) = books
        .ledger()
        .segment(number)
        .map(|account| (account.first, account.end))
    else {
        return Ok(());
    };
    let mut scan = Scan::new(segment);
    while next < end {
        match scan.next()? {
            Scanned::Record { record, .. } => {
                if record.head.kind.is_numbered() {
                    next = record.head.lsn.next();
                }
            }
            Scanned::Bad { offset } => {
                debug_assert!(
                    offset >= HEAD_BYTES as u64,
                    "records begin behind the header"
                );
                return Err(segment.damaged(offset, &format!("record {next} is not whole")));
            }
        }
    }
    Ok(())
}
