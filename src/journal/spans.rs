//! A queue's messages in spans: what a log needs to know its offsets without reading what lies there.
//!
//! Owns: the sum of each segment's share, where the shares are whole and apart from each other; elsewhere
//! their lists are gone through, a few bytes for each message. No message is read.
//! Bound: a span for each segment, or for each `bytes_max` of bodies.
//! Spec: `spec/journal.md`, "Reading", JOURNAL-37.

use crate::disk::ReadFrom;

use super::backlog::Merge;
use super::books::Books;
use super::error::JournalError;
use super::list::ListForm;
use super::types::{Lsn, QueueId, Span};

/// Messages of a span that is made from lists, at most.
const SPAN_COUNT_MAX: u64 = 65_536;

/// What one segment has of a queue.
#[derive(Clone, Copy, Debug)]
struct Part {
    span: Span,
    /// All that was ever in it is there.
    is_whole: bool,
}

/// The live messages behind a number, in order. Spec: [`super::Journal::spans`].
// req: JOURNAL-37
pub(crate) fn spans(
    books: &Books,
    queue: QueueId,
    after: Lsn,
    bytes_max: u64,
) -> Result<Vec<Span>, JournalError> {
    let parts = parts(books, queue);
    let mut spans = Vec::new();
    let mut after = after;
    let mut rest = parts.as_slice();
    while let Some((first, others)) = rest.split_first() {
        // Those that overlap are taken together.
        let mut last = first.span.last;
        let mut together_count = 1;
        for other in others {
            if other.span.first > last {
                break;
            }
            last = last.max(other.span.last);
            together_count += 1;
        }
        rest = rest.get(together_count..).unwrap_or_default();
        if last <= after {
            continue;
        }
        let is_apart = together_count == 1 && first.is_whole && first.span.first > after;
        if is_apart && first.span.body_bytes <= bytes_max {
            spans.push(first.span);
        } else {
            from_lists(books, queue, (after, last), bytes_max, &mut spans)?;
        }
        after = last;
    }
    Ok(spans)
}

fn parts(books: &Books, queue: QueueId) -> Vec<Part> {
    let ledger = books.ledger();
    let parts = ledger.segments().filter_map(|(_, account)| {
        let share = account.shares.get(&queue).filter(|share| share.live > 0)?;
        let ends = [ListForm::Moved, ListForm::Native].map(|form| share.ends(form));
        Some(Part {
            span: Span {
                first: ends.iter().flatten().map(|(first, _)| *first).min()?,
                last: ends.iter().flatten().map(|(_, last)| *last).max()?,
                count: u64::from(share.live),
                body_bytes: share.body_bytes,
            },
            is_whole: share.gone.is_empty(),
        })
    });
    let mut parts: Vec<Part> = parts.collect();
    parts.sort_unstable_by_key(|part| part.span.first);
    parts
}

/// Goes through the lists between two numbers, the second one included.
fn from_lists(
    books: &Books,
    queue: QueueId,
    (after, last): (Lsn, Lsn),
    bytes_max: u64,
    spans: &mut Vec<Span>,
) -> Result<(), JournalError> {
    let mut merge = Merge::new(books, queue, after, ReadFrom::Disk);
    let mut open: Option<Span> = None;
    while let Some(entry) = merge.next_entry()?
        && entry.lsn <= last
    {
        let bytes = u64::from(entry.body_bytes);
        match &mut open {
            Some(span) if span.count < SPAN_COUNT_MAX && span.body_bytes < bytes_max => {
                span.last = entry.lsn;
                span.count += 1;
                span.body_bytes = span.body_bytes.saturating_add(bytes);
            }
            Some(_) | None => spans.extend(open.replace(Span {
                first: entry.lsn,
                last: entry.lsn,
                count: 1,
                body_bytes: bytes,
            })),
        }
    }
    spans.extend(open);
    Ok(())
}
