//! Reading a queue's messages in the order of their numbers, from any number on.
//!
//! Owns: the merge of a queue's lists in all segments, and the counts that need them. Reads only what is
//! asked for: a list that lies behind is not opened.
//! Bound: one block of each list that lies at the place that is read, and what is given back.
//! Spec: `spec/journal.md`, "Reading", JOURNAL-30.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use crate::disk::ReadFrom;

use super::books::{Books, Of};
use super::error::JournalError;
use super::list::{ListEntry, ListForm};
use super::read_many::read_messages;
use super::shared::Shared;
use super::types::{BacklogMessage, BacklogRef, Location, Lsn, QueueId, RecoveredQueue};

/// One list of the merge.
#[derive(Debug)]
struct Cursor {
    segment: u32,
    form: ListForm,
    /// Read and not yet given; empty before the first look.
    entries: VecDeque<ListEntry>,
}

/// A message in a list, and where.
#[derive(Clone, Copy, Debug)]
struct Place {
    entry: ListEntry,
    segment: u32,
}

/// A queue's live messages behind a number, in order.
#[derive(Debug)]
pub(crate) struct Merge<'a> {
    books: &'a Books,
    queue: QueueId,
    after: Lsn,
    from: ReadFrom,
    cursors: Vec<Cursor>,
    /// The cursors by the least number that they may give next.
    order: BinaryHeap<Reverse<(Lsn, usize)>>,
    moves: u64,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(books: &'a Books, queue: QueueId, after: Lsn, from: ReadFrom) -> Self {
        let mut merge = Self {
            books,
            queue,
            after,
            from,
            cursors: Vec::new(),
            order: BinaryHeap::new(),
            moves: 0,
        };
        merge.begin();
        merge
    }

    fn begin(&mut self) {
        self.cursors.clear();
        self.order.clear();
        let ledger = self.books.ledger();
        self.moves = ledger.moves;
        for (segment, account) in ledger.segments() {
            let Some(share) = account.shares.get(&self.queue) else {
                continue;
            };
            if share.live == 0 {
                continue;
            }
            for form in [ListForm::Moved, ListForm::Native] {
                let Some((first, last)) = share.ends(form) else {
                    continue;
                };
                if last > self.after {
                    let at = first.max(self.after.next());
                    self.order.push(Reverse((at, self.cursors.len())));
                    self.cursors.push(Cursor {
                        segment,
                        form,
                        entries: VecDeque::new(),
                    });
                }
            }
        }
    }

    /// The next message's entry in its list.
    pub(crate) fn next_entry(&mut self) -> Result<Option<ListEntry>, JournalError> {
        Ok(self.next()?.map(|place| place.entry))
    }

    fn next(&mut self) -> Result<Option<Place>, JournalError> {
        loop {
            let Some(Reverse((_, index))) = self.order.pop() else {
                return Ok(None);
            };
            let Some(cursor) = self.cursors.get_mut(index) else {
                return Ok(None);
            };
            if let Some(entry) = cursor.entries.pop_front() {
                let segment = cursor.segment;
                let at = match cursor.entries.front() {
                    Some(next) => next.lsn,
                    None => entry.lsn.next(),
                };
                self.order.push(Reverse((at, index)));
                self.after = entry.lsn;
                return Ok(Some(Place { entry, segment }));
            }
            let of = Of::Queue(self.queue, cursor.form);
            let page = self.books.page(cursor.segment, of, self.after, self.from)?;
            if page.moves != self.moves {
                // A message may have gone to a list that is not looked at.
                self.begin();
                continue;
            }
            if let Some(first) = page.entries.first() {
                self.order.push(Reverse((first.lsn, index)));
                cursor.entries = page.entries.into();
            }
        }
    }
}

/// The next messages of a queue. Spec: [`super::Journal::read_backlog`].
pub(crate) fn read(
    shared: &Shared,
    queue: QueueId,
    after: Lsn,
    max_count: usize,
    max_bytes: usize,
) -> Result<Vec<BacklogMessage>, JournalError> {
    let mut messages = Vec::new();
    visit(
        shared,
        queue,
        after,
        max_count,
        max_bytes,
        ReadFrom::Disk,
        |found| {
            messages.push(found.to_message());
        },
    )?;
    Ok(messages)
}

/// Shows the next messages of a queue. Spec: [`super::Journal::visit_backlog`].
// req: JOURNAL-30
pub(crate) fn visit(
    shared: &Shared,
    queue: QueueId,
    after: Lsn,
    max_count: usize,
    max_bytes: usize,
    from: ReadFrom,
    mut visit: impl FnMut(BacklogRef<'_>),
) -> Result<(), JournalError> {
    let mut after = after;
    loop {
        let found = places(shared, queue, after, max_count, max_bytes, from)?;
        let Some((last, _)) = found.places.last() else {
            return Ok(());
        };
        after = *last;
        // All of them may have left the queue meanwhile; those behind have not been looked at.
        if show(shared, &found, from, &mut visit)? > 0 {
            return Ok(());
        }
    }
}

/// Messages that are to be read.
#[derive(Debug, Default)]
struct Places {
    places: Vec<(Lsn, Location)>,
    /// What is known of each but its message; empty if there is nothing to know of any.
    marks: Vec<Mark>,
}

/// What is known of a message beside what its record says.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    was_delivered: bool,
    note: u32,
}

/// Where the next durable messages lie.
fn places(
    shared: &Shared,
    queue: QueueId,
    after: Lsn,
    max_count: usize,
    max_bytes: usize,
    from: ReadFrom,
) -> Result<Places, JournalError> {
    let durable = shared.durable_lsn();
    let mut places = Vec::new();
    let mut records = Vec::new();
    let mut bytes = 0usize;
    let mut merge = Merge::new(&shared.books, queue, after, from);
    while places.len() < max_count.max(1) && (bytes < max_bytes || places.is_empty()) {
        let Some(Place { entry, segment }) = merge.next()? else {
            break;
        };
        if entry.lsn > durable {
            break;
        }
        bytes = bytes.saturating_add(entry.body_bytes as usize);
        let location = Location {
            segment,
            offset: entry.offset,
        };
        places.push((entry.lsn, location));
        records.push(entry.number);
    }
    let ledger = shared.books.ledger();
    let same_segment =
        |one: &(Lsn, Location), other: &(Lsn, Location)| one.1.segment == other.1.segment;
    let mut records = records.into_iter();
    for group in places.chunk_by_mut(same_segment) {
        let account = group
            .first()
            .and_then(|(_, place)| ledger.segment(place.segment));
        let first = account.map(|account| account.first);
        for ((_, location), number) in group.iter_mut().zip(&mut records) {
            // A copy that is not safe yet: the message is still where it was.
            let record = first.map(|first| Lsn(first.0 + u64::from(number)));
            if let Some(record) = record.filter(|record| *record > durable)
                && let Some(origin) = ledger.origin_of(record)
            {
                *location = origin;
            }
        }
    }
    let has_notes = ledger.has_notes(queue);
    let delivered = ledger.delivered.get(&queue);
    let is_new = places
        .first()
        .is_none_or(|(first, _)| *first >= shared.opened_at);
    let mut marks = Vec::new();
    if has_notes || delivered.is_some() || !(shared.was_clean || is_new) {
        marks.extend(places.iter().map(|(lsn, _)| Mark {
            was_delivered: (*lsn < shared.opened_at && !shared.was_clean)
                || delivered.is_some_and(|noted| noted.contains(*lsn)),
            note: match has_notes {
                true => ledger.note_of(queue, *lsn),
                false => 0,
            },
        }));
    }
    Ok(Places { places, marks })
}

/// Shows what is still there; says how many that were.
fn show(
    shared: &Shared,
    found: &Places,
    from: ReadFrom,
    visit: &mut impl FnMut(BacklogRef<'_>),
) -> Result<usize, JournalError> {
    let mut count = 0;
    let mut failed = None;
    read_messages(shared, &found.places, from, |at, message| {
        let Some((lsn, location)) = found.places.get(at) else {
            return;
        };
        let mark = found.marks.get(at).copied().unwrap_or_default();
        match message {
            Ok(message) => {
                count += 1;
                visit(BacklogRef {
                    lsn: *lsn,
                    location: *location,
                    was_delivered: mark.was_delivered,
                    note: mark.note,
                    message,
                });
            }
            // It left the queue after it was looked up.
            Err(JournalError::NotFound { .. }) => {}
            Err(error) => drop(failed.get_or_insert(error)),
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(count),
    }
}

/// The number of a queue's live message that has `n` before it. Spec: [`super::Journal::nth_message`].
pub(crate) fn nth(books: &Books, queue: QueueId, n: u64) -> Result<Option<Lsn>, JournalError> {
    let (after, left) = skip_whole_segments(books, queue, n);
    nth_behind(books, queue, after, left)
}

/// As [`nth`], of the messages behind `after`.
pub(crate) fn nth_behind(
    books: &Books,
    queue: QueueId,
    after: Lsn,
    n: u64,
) -> Result<Option<Lsn>, JournalError> {
    let mut left = n;
    let mut merge = Merge::new(books, queue, after, ReadFrom::Disk);
    while let Some(place) = merge.next()? {
        if left == 0 {
            return Ok(Some(place.entry.lsn));
        }
        left -= 1;
    }
    Ok(None)
}

/// Skips segments by their counts, as long as nothing in later ones belongs between; gives behind which
/// number to go on, and how many are left to skip.
fn skip_whole_segments(books: &Books, queue: QueueId, n: u64) -> (Lsn, u64) {
    let ledger = books.ledger();
    let mut spans: Vec<(Lsn, Lsn, u64)> = ledger
        .segments()
        .filter_map(|(_, account)| {
            let share = account.shares.get(&queue)?;
            let ends = [ListForm::Moved, ListForm::Native].map(|form| share.ends(form));
            let first = ends.iter().flatten().map(|(first, _)| *first).min()?;
            let last = ends.iter().flatten().map(|(_, last)| *last).max()?;
            Some((first, last, u64::from(share.live)))
        })
        .collect();
    spans.sort_unstable();
    let mut after = Lsn::ZERO;
    let mut left = n;
    for (index, (_, last, live)) in spans.iter().enumerate() {
        let is_apart = spans
            .get(index + 1)
            .is_none_or(|(next_first, _, _)| last < next_first);
        if *live > left || !is_apart {
            break;
        }
        left -= live;
        after = *last;
    }
    (after, left)
}

/// What each queue holds, all segments together; queues without messages have no entry.
pub(crate) fn summaries(books: &Books) -> Result<HashMap<QueueId, RecoveredQueue>, JournalError> {
    let mut queues: HashMap<QueueId, RecoveredQueue> = HashMap::new();
    let mut parts = Vec::new();
    {
        let ledger = books.ledger();
        for (segment, account) in ledger.segments() {
            for (queue, share) in account.shares.iter().filter(|(_, share)| share.live > 0) {
                let whole = queues.entry(*queue).or_insert_with(|| RecoveredQueue {
                    first: Lsn(u64::MAX),
                    ..RecoveredQueue::default()
                });
                whole.count += u64::from(share.live);
                if !share.gone.is_empty() {
                    parts.push((segment, *queue));
                    continue;
                }
                whole.body_bytes = whole.body_bytes.saturating_add(share.body_bytes);
                for form in [ListForm::Moved, ListForm::Native] {
                    if let Some((first, last)) = share.ends(form) {
                        whole.first = whole.first.min(first);
                        whole.last = whole.last.max(last);
                    }
                }
            }
        }
    }
    for (segment, queue) in parts {
        let Some(whole) = queues.get_mut(&queue) else {
            continue;
        };
        for form in [ListForm::Moved, ListForm::Native] {
            let mut after = Lsn::ZERO;
            loop {
                let page = books.page(segment, Of::Queue(queue, form), after, ReadFrom::Disk)?;
                let (Some(first), Some(last)) = (page.entries.first(), page.entries.last()) else {
                    break;
                };
                whole.first = whole.first.min(first.lsn);
                whole.last = whole.last.max(last.lsn);
                let bytes = page.entries.iter().map(|entry| u64::from(entry.body_bytes));
                whole.body_bytes = bytes.fold(whole.body_bytes, u64::saturating_add);
                after = last.lsn;
            }
        }
    }
    Ok(queues)
}
