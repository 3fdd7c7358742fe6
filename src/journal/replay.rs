//! Recovery's hand: counts records and footers in order, and holds atomic batches back until they are whole.
//!
//! Owns: the books while the store is read, and the records of the batch that has no end yet.
//! Bound: what one batch holds; payload references are gathered, one for each message that has one.
//! Spec: `spec/journal.md`, JOURNAL-11.

use super::account::FooterPlace;
use super::backlog::summaries;
use super::books::Books;
use super::error::JournalError;
use super::footer::{HeldPayload, Summary};
use super::record::{HEAD_BYTES, Head, Kind, Record};
use super::segment::OpenSegment;
use super::types::{Location, Lsn, Recovered};

/// A record that waits to be applied: for the end of its batch, or for its new place.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) location: Location,
    pub(super) bytes: Vec<u8>,
    pub(super) lsn: Lsn,
    pub(super) more: bool,
}

impl Held {
    pub(super) fn body(&self, head: &Head) -> &[u8] {
        let body = self.bytes.get(HEAD_BYTES..).unwrap_or_default();
        body.get(..head.body_bytes as usize).unwrap_or_default()
    }
}

/// Applies records in order.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) books: Books,
    /// The records of an atomic batch whose end has not come yet.
    pub(super) held: Vec<Held>,
    /// Payload references that footers tell of, with their segment.
    payloads: Vec<(u32, HeldPayload)>,
}

impl Replay {
    pub(super) fn new(books: Books) -> Self {
        Self {
            books,
            held: Vec::new(),
            payloads: Vec::new(),
        }
    }

    pub(super) fn begin_segment(
        &mut self,
        segment: &OpenSegment,
        first: Lsn,
        previous_end: Lsn,
    ) -> Result<(), JournalError> {
        self.check_order(segment, first, previous_end)?;
        let number = segment.header.number;
        let mut ledger = self.books.ledger();
        ledger.begin_segment(number, first, segment.file_bytes);
        Ok(())
    }

    fn check_order(
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
        Ok(())
    }

    /// Applies a whole segment by its footer; a batch that was begun before ends in it or later.
    pub(super) fn take_footer(
        &mut self,
        segment: &OpenSegment,
        summary: Summary,
        place: FooterPlace,
        previous_end: Lsn,
    ) -> Result<(), JournalError> {
        let number = segment.header.number;
        self.check_order(segment, summary.first, previous_end)?;
        self.flush(segment)?;
        let payloads = summary.payloads.iter().map(|held| (number, *held));
        self.payloads.extend(payloads);
        let mut ledger = self.books.ledger();
        ledger.apply_footer(number, &summary, segment.file_bytes, place);
        Ok(())
    }

    /// Applies a record, or holds it until its batch is whole.
    // req: JOURNAL-11
    pub(super) fn take(
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

    pub(super) fn take_held(
        &mut self,
        segment: &OpenSegment,
        held: Held,
    ) -> Result<(), JournalError> {
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
                body: held.body(&head),
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
        let mut ledger = self.books.ledger();
        let is_sound = ledger.apply(record, location);
        let has_searches = !ledger.searches.is_empty();
        drop(ledger);
        if !is_sound {
            let what = "a record's content makes no sense";
            return Err(segment.damaged(u64::from(location.offset), what));
        }
        if has_searches {
            self.books.search()?;
        }
        Ok(())
    }

    /// What is alive.
    pub(super) fn recovered(&mut self) -> Result<Recovered, JournalError> {
        let mut queues = summaries(&self.books)?;
        let ledger = self.books.ledger();
        let mut payloads = std::mem::take(&mut self.payloads);
        for (number, account) in ledger.segments() {
            let contents = account.contents.iter();
            let held = contents.flat_map(|contents| &contents.payloads);
            payloads.extend(held.map(|held| (number, *held)));
        }
        for (number, held) in payloads {
            let account = ledger.segment(number);
            if account.is_some_and(|account| account.holds(held.queue, held.number))
                && let Some(queue) = queues.get_mut(&held.queue)
            {
                queue.payloads.push((held.lsn, held.payload));
            }
        }
        for queue in queues.values_mut() {
            queue.payloads.sort_unstable_by_key(|(lsn, _)| *lsn);
        }
        Ok(Recovered {
            definitions: ledger.definitions.to_vec(),
            queues,
            // req: JOURNAL-15
            clean: ledger.last_kind == Some(Kind::CleanStop),
            queue_id_max: ledger.queue_max,
        })
    }
}
