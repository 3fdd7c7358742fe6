//! The account of what each segment is still needed for.
//!
//! Owns: all segments' accounts and the definitions. Fed with records in order, by recovery and by the
//! sync thread alike, or with whole footers. Knows nothing of files: what can only be told by reading a
//! list is left as a [`Search`], which `books` makes.
//! Bound: `account`'s for each segment; no message has an entry of its own, but in the lists of the
//! segment that is being written.
//! Spec: `spec/journal.md`, "Deleting and compaction", JOURNAL-16 to JOURNAL-19.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::account::{Contents, FooterPlace, MovedList, SegmentAccount};
use super::definitions::Definitions;
use super::footer::{HeldPayload, Summary};
use super::list::{List, ListEntry, ListForm};
use super::places::PlaceSet;
use super::record::{CatalogEntry, Kind, MessageView, Origin, Record, Runs, decode_released};
use super::runs::RunSet;
use super::types::{Location, Lsn, QueueId};

/// Footers of closed segments that wait in memory because the disk has no room for them, in bytes; the lists
/// of more are made again from the records when they are needed.
const FOOTER_BYTES_MAX: usize = 8 << 20;
/// What is kept of a copy that may not be durable, in bytes.
const ORIGIN_BYTES: usize = size_of::<(Lsn, Location)>();

/// Messages of a queue that leave, of which only the lists can tell where they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Search {
    pub(crate) queue: QueueId,
    /// The messages' numbers, from the first to before the end.
    pub(crate) first: Lsn,
    pub(crate) end: Lsn,
    /// The segment that holds the record which says so.
    pub(crate) here: u32,
    /// Only segments below this one are looked at.
    pub(crate) below: u32,
    /// Whether messages that never moved are looked for too.
    pub(crate) with_native: bool,
}

/// Acks that a segment's release would lose.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum KeptAcks {
    /// These records of a segment left the queue.
    Places {
        queue: QueueId,
        target: u32,
        places: PlaceSet,
    },
    /// The queue was deleted.
    QueueDelete(QueueId),
}

/// All segments, and what else must be known to release one.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    segments: BTreeMap<u32, SegmentAccount>,
    by_first: BTreeMap<Lsn, u32>,
    pub(crate) searches: VecDeque<Search>,
    /// [`FOOTER_BYTES_MAX`]; tests set less.
    pub(crate) footer_bytes_max: usize,
    /// All records of the segments below this one are on the disk: their lists can be made again.
    pub(crate) complete_below: u32,
    /// Where copied messages were before, by the number of the copy's record, until it is durable.
    origins: BTreeMap<Lsn, Location>,
    /// How often messages were copied; a reader that sees it change looks again.
    pub(crate) moves: u64,
    /// The first record of the atomic batch that is not complete yet.
    batch_open: Lsn,
    /// Whether a segment lost its last message.
    died: bool,
    pub(crate) definitions: Definitions,
    /// What was noted as delivered, by queue.
    pub(crate) delivered: HashMap<QueueId, RunSet>,
    /// The highest queue number seen.
    pub(crate) queue_max: QueueId,
    pub(crate) last_kind: Option<Kind>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            footer_bytes_max: FOOTER_BYTES_MAX,
            ..Self::default()
        }
    }

    /// A segment begins whose first record will be `first`; those before it are complete.
    pub(crate) fn begin_segment(&mut self, number: u32, first: Lsn, file_bytes: u64) {
        self.segments
            .insert(number, SegmentAccount::new(first, file_bytes));
        // Segments without records share their first number with the next; the later one wins, and
        // none of the earlier one's records can be asked for.
        self.by_first.insert(first, number);
    }

    /// Turns the lists of all segments before `number` into footers.
    pub(crate) fn freeze_before(&mut self, number: u32) {
        debug_assert!(self.searches.is_empty(), "searches are made before");
        for (_, account) in self.segments.range_mut(..number) {
            account.freeze();
        }
    }

    /// A segment's file is gone, durably.
    pub(crate) fn end_segment(&mut self, number: u32) {
        if let Some(account) = self.segments.remove(&number)
            && self.by_first.get(&account.first) == Some(&number)
        {
            self.by_first.remove(&account.first);
        }
        for account in self.segments.values_mut() {
            account.acks_on.remove(&number);
        }
        self.origins.retain(|_, origin| origin.segment != number);
    }

    pub(crate) fn segment(&self, number: u32) -> Option<&SegmentAccount> {
        self.segments.get(&number)
    }

    pub(crate) fn segment_mut(&mut self, number: u32) -> Option<&mut SegmentAccount> {
        self.segments.get_mut(&number)
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = (u32, &SegmentAccount)> + '_ {
        self.segments
            .iter()
            .map(|(number, account)| (*number, account))
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn set_file_bytes(&mut self, number: u32, file_bytes: u64) {
        if let Some(account) = self.segments.get_mut(&number) {
            account.file_bytes = file_bytes;
        }
    }

    pub(crate) fn set_footer(&mut self, number: u32, footer: FooterPlace) {
        if let Some(account) = self.segments.get_mut(&number) {
            account.footer = footer;
        }
    }

    /// Gives up footers that wait in memory, those of the oldest segments first, until no more than
    /// `footer_bytes_max` wait; that of `kept` stays.
    // req: JOURNAL-38
    pub(crate) fn shed_footers(&mut self, kept: u32) {
        let waiting = |(number, account): (&u32, &SegmentAccount)| {
            let bytes = account.footer_bytes();
            (bytes > 0).then_some((*number, bytes))
        };
        let complete = self.segments.range(..self.complete_below);
        let waiting = complete.filter_map(waiting);
        let waiting: Vec<(u32, usize)> = waiting.collect();
        let mut held: usize = waiting.iter().map(|(_, bytes)| bytes).sum();
        for (number, bytes) in waiting {
            if held <= self.footer_bytes_max {
                break;
            }
            if number != kept {
                self.set_footer(number, FooterPlace::None);
                held -= bytes;
            }
        }
    }

    /// What is in memory for single messages: lists of segments that are being written, footers that are not on
    /// the disk, and where copies were that may not be durable; in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let accounts = self.segments.values();
        let lists = accounts.map(|account| account.list_bytes() + account.footer_bytes());
        lists.sum::<usize>() + self.origins.len() * ORIGIN_BYTES
    }

    /// Cuts a segment's records off before `end`.
    pub(crate) fn end_records(&mut self, number: u32, end: Lsn) {
        if let Some(account) = self.segments.get_mut(&number) {
            account.end = end;
        }
    }

    /// The segments below `number` that exist, as a catalog lists them.
    pub(crate) fn catalog_before(&self, number: u32) -> Vec<CatalogEntry> {
        self.segments
            .range(..number)
            .map(|(number, account)| CatalogEntry {
                number: *number,
                first: account.first,
                end: account.end,
            })
            .collect()
    }

    // ---- records ----

    /// Counts one record that lies at `location`; `false` if its body makes no sense.
    ///
    /// The searches that it leaves must be made before the next record of another segment is counted.
    pub(crate) fn apply(&mut self, record: &Record<'_>, location: Location) -> bool {
        let head = &record.head;
        let here = location.segment;
        if head.kind.is_numbered() {
            self.batch_open = match (head.more, self.batch_open) {
                (false, _) => Lsn::ZERO,
                (true, Lsn::ZERO) => head.lsn,
                (true, first) => first,
            };
            self.last_kind = Some(head.kind);
            let batch_open = self.batch_open;
            if let Some(account) = self.segments.get_mut(&here) {
                account.end = head.lsn.next();
                if let Some(contents) = &mut account.contents {
                    contents.last_kind = head.kind as u8;
                    contents.has_batch_end |= !head.more;
                    contents.batch_open = batch_open;
                }
            }
        }
        match head.kind {
            Kind::Mark | Kind::Catalog | Kind::CleanStop | Kind::Started => true,
            Kind::Message | Kind::Moved | Kind::Copied => self.apply_message(record, location),
            Kind::Acks => {
                self.apply_acks(head.queue, record.body, here);
                true
            }
            Kind::PlaceAcks => self.apply_place_acks(head.queue, record.body, here),
            // req: JOURNAL-32
            Kind::Cleared => {
                for (first, len) in Runs::new(record.body) {
                    self.searches.push_back(Search {
                        queue: head.queue,
                        first,
                        // It says nothing of what comes after it.
                        end: Lsn(first.0.saturating_add(len)).min(head.lsn),
                        here,
                        below: u32::MAX,
                        with_native: true,
                    });
                }
                true
            }
            Kind::QueueDelete => {
                self.apply_queue_delete(head.queue, here);
                true
            }
            Kind::Delivered => {
                let runs = Runs::new(record.body);
                if let Some(contents) = self.contents(here) {
                    let noted = contents.delivered.entry(head.queue).or_default();
                    runs.clone()
                        .for_each(|(first, len)| noted.insert_run(first, len));
                }
                let noted = self.delivered.entry(head.queue).or_default();
                runs.for_each(|(first, len)| noted.insert_run(first, len));
                true
            }
            Kind::Noted => {
                if let Some(account) = self.segments.get_mut(&here) {
                    let notes = account.notes.entry(head.queue).or_default();
                    let noted = notes.entry(head.extra).or_default();
                    Runs::new(record.body).for_each(|(first, len)| noted.insert_run(first, len));
                }
                true
            }
            Kind::Released => {
                if let (Some(number), Some(contents)) =
                    (decode_released(record.body), self.contents(here))
                {
                    contents.released.push(number);
                }
                true
            }
            Kind::DefinitionPut | Kind::DefinitionRemove | Kind::DefinitionsReset => {
                let account = self.segments.get_mut(&here);
                let changes = account.and_then(|account| {
                    account.has_definitions = true;
                    account.contents.as_mut()
                });
                let changes = changes.map(|contents| &mut contents.definitions);
                self.definitions
                    .apply(head.kind, record.body, here, changes)
            }
        }
    }

    fn contents(&mut self, number: u32) -> Option<&mut Contents> {
        self.segments.get_mut(&number)?.contents.as_deref_mut()
    }

    fn apply_message(&mut self, record: &Record<'_>, location: Location) -> bool {
        let Some(view) = MessageView::decode(record) else {
            return false;
        };
        let is_copy = record.head.kind != Kind::Message;
        if is_copy {
            self.take_from_origin(&view, record.head.lsn, location.segment);
        }
        let Some(account) = self.segments.get_mut(&location.segment) else {
            return false;
        };
        let form = if is_copy {
            ListForm::Moved
        } else {
            ListForm::Native
        };
        let body_bytes = view.inline_bytes().unwrap_or(0);
        let entry = ListEntry {
            lsn: view.lsn,
            number: account.number(record.head.lsn),
            offset: location.offset,
            body_bytes: u32::try_from(body_bytes).unwrap_or(u32::MAX),
        };
        account.message_bytes += record.head.record_bytes() as u64;
        let mut queue_max = self.queue_max;
        for queue in &view.queues {
            account.add(*queue, form, entry);
            queue_max = queue_max.max(*queue);
        }
        if is_copy && let MovedList::Open(piles) = &mut account.moved {
            piles.push(entry);
        }
        if let Some(contents) = &mut account.contents {
            contents.queue_max = contents.queue_max.max(queue_max);
            if let Some(payload) = view.payload() {
                contents
                    .payloads
                    .extend(view.queues.iter().map(|queue| HeldPayload {
                        queue: *queue,
                        lsn: view.lsn,
                        number: entry.number,
                        payload,
                    }));
            }
        }
        self.queue_max = queue_max;
        true
    }

    /// A message was copied into segment `here`: its queues no longer hold it where it was.
    fn take_from_origin(&mut self, view: &MessageView<'_>, copy: Lsn, here: u32) {
        self.moves += 1;
        let Some(origin) = view.origin else {
            // Version 1 does not tell where it was.
            for queue in &view.queues {
                let native = self
                    .native_home_of(view.lsn)
                    .filter(|number| *number < here && self.holds(*number, *queue, view.lsn));
                if let Some(number) = native {
                    self.mark_moved_from(number, here);
                    self.take_place(*queue, number, view.lsn, here);
                } else {
                    self.searches.push_back(Search {
                        queue: *queue,
                        first: view.lsn,
                        end: view.lsn.next(),
                        here,
                        below: here,
                        with_native: false,
                    });
                }
            }
            return;
        };
        let Origin { location, record } = origin;
        self.mark_moved_from(location.segment, here);
        for queue in &view.queues {
            self.take_place(*queue, location.segment, record, here);
        }
        self.origins.insert(copy, location);
    }

    fn mark_moved_from(&mut self, number: u32, here: u32) {
        if let Some(account) = self.segments.get_mut(&number) {
            account.is_moved_from = true;
        }
        if let Some(contents) = self.contents(here) {
            contents.moved_from.insert(number);
        }
    }

    /// Whether `queue` holds the record `record` of segment `number`.
    pub(crate) fn holds(&self, number: u32, queue: QueueId, record: Lsn) -> bool {
        self.segments
            .get(&number)
            .is_some_and(|account| account.holds(queue, account.number(record)))
    }

    /// The segment in which the message was first written, if it exists.
    pub(crate) fn native_home_of(&self, lsn: Lsn) -> Option<u32> {
        let (_, number) = self.by_first.range(..=lsn).next_back()?;
        self.segments
            .get(number)
            .filter(|account| lsn < account.end)
            .map(|_| *number)
    }

    fn apply_acks(&mut self, queue: QueueId, body: &[u8], here: u32) {
        for (Lsn(first), len) in Runs::new(body) {
            let end = first.saturating_add(len);
            let mut lsn = first;
            while lsn < end {
                let home = self.native_home_of(Lsn(lsn));
                let until = match home.and_then(|number| self.segments.get(&number)) {
                    Some(account) => account.end.0.min(end),
                    // A run may reach over numbers whose segments are gone: up to the next there is.
                    None => self
                        .by_first
                        .range(Lsn(lsn).next()..)
                        .next()
                        .map_or(end, |(Lsn(next), _)| end.min(*next)),
                };
                self.ack_run(queue, home, Lsn(lsn), Lsn(until), here);
                lsn = until;
            }
        }
    }

    /// Messages of one segment, or of none that exists, left a queue.
    ///
    /// One search for the whole run, whatever its length: all of it left the queue, so that what it finds
    /// in the lists of copies did too.
    fn ack_run(&mut self, queue: QueueId, home: Option<u32>, first: Lsn, end: Lsn, here: u32) {
        let mut may_be_moved = true;
        if let Some(home) = home {
            let is_one_here = first.next() == end && self.holds(home, queue, first);
            self.take_places(queue, home, first, end, here);
            let account = self.segments.get(&home);
            may_be_moved = !is_one_here && account.is_some_and(|account| account.is_moved_from);
        }
        if may_be_moved {
            self.searches.push_back(Search {
                queue,
                first,
                end,
                here,
                below: u32::MAX,
                with_native: false,
            });
        }
    }

    /// One record of `target` left a queue, as a record in segment `here` says.
    pub(crate) fn take_place(&mut self, queue: QueueId, target: u32, record: Lsn, here: u32) {
        self.take_places(queue, target, record, record.next(), here);
    }

    fn take_places(&mut self, queue: QueueId, target: u32, first: Lsn, end: Lsn, here: u32) {
        let Some(account) = self.segments.get_mut(&target) else {
            return;
        };
        let (start, end) = (account.number(first), account.number(end.min(account.end)));
        let (is_taken, is_empty) = account.take(queue, start, end);
        self.died |= is_taken && account.is_dead();
        if is_taken {
            if is_empty && target != here {
                account.emptied.insert(queue);
            }
            self.note_taken(queue, target, here, |places| {
                if is_empty {
                    *places = PlaceSet::All;
                } else {
                    places.insert_run(start, end);
                }
            });
        }
    }

    /// All of a queue's messages in `target` left it.
    pub(crate) fn take_all(&mut self, queue: QueueId, target: u32, here: u32) {
        let Some(account) = self.segments.get_mut(&target) else {
            return;
        };
        let is_taken = account.take_all(queue);
        self.died |= is_taken && account.is_dead();
        if is_taken {
            if target != here {
                account.emptied.insert(queue);
            }
            self.note_taken(queue, target, here, |places| *places = PlaceSet::All);
        }
    }

    /// Keeps for `here`'s footer what it takes from an earlier segment.
    fn note_taken(
        &mut self,
        queue: QueueId,
        target: u32,
        here: u32,
        note: impl FnOnce(&mut PlaceSet),
    ) {
        if target == here {
            return;
        }
        let Some(account) = self.segments.get_mut(&here) else {
            return;
        };
        account.acks_on.insert(target);
        if let Some(contents) = &mut account.contents {
            let queues = contents.acks.entry(target).or_default();
            note(queues.entry(queue).or_default());
        }
    }

    /// Acks that were written again by the places of what they took; `false` if they make no sense.
    fn apply_place_acks(&mut self, queue: QueueId, body: &[u8], here: u32) -> bool {
        let Some((target, places)) = super::record::decode_place_acks(body) else {
            return false;
        };
        self.apply_places(queue, target, &places, here);
        true
    }

    fn apply_places(&mut self, queue: QueueId, target: u32, places: &PlaceSet, here: u32) {
        let Some(account) = self.segments.get_mut(&target) else {
            return;
        };
        if *places == PlaceSet::All {
            account.take_all(queue);
            account.emptied.insert(queue);
        } else {
            for (start, end) in places.runs(0) {
                if account.take(queue, start, end) == (true, true) {
                    account.emptied.insert(queue);
                }
            }
        }
        let is_dead = account.is_dead();
        let span = account.span();
        self.died |= is_dead;
        // Kept even if nothing was new: who said it before may be about to go.
        self.note_taken(queue, target, here, |kept| kept.insert_all(places, span));
    }

    fn apply_queue_delete(&mut self, queue: QueueId, here: u32) {
        let mut works_on = BTreeSet::new();
        for (number, account) in &mut self.segments {
            let had = account.shares.contains_key(&queue) || account.emptied.remove(&queue);
            if account.take_all(queue) {
                self.died |= account.is_dead();
            }
            account.shares.remove(&queue);
            account.emptied.remove(&queue);
            account.notes.remove(&queue);
            if had || account.deleted.contains(&queue) {
                account.deleted.insert(queue);
                if *number != here {
                    works_on.insert(*number);
                }
            }
        }
        self.delivered.remove(&queue);
        if let Some(account) = self.segments.get_mut(&here) {
            account.acks_on.append(&mut works_on);
            if let Some(contents) = &mut account.contents {
                contents.deletes.insert(queue);
                for queues in contents.acks.values_mut() {
                    queues.remove(&queue);
                }
            }
        }
    }

    // ---- footers ----

    /// Counts all records of a segment at once.
    pub(crate) fn apply_footer(
        &mut self,
        number: u32,
        summary: &Summary,
        file_bytes: u64,
        footer: FooterPlace,
    ) {
        let account = SegmentAccount::from_summary(summary, file_bytes, footer);
        self.segments.insert(number, account);
        self.by_first.insert(summary.first, number);
        self.queue_max = self.queue_max.max(summary.queue_max);
        self.last_kind = Kind::from_byte(summary.last_kind).or(self.last_kind);
        self.batch_open = summary.batch_open;
        for (target, queue, places) in &summary.acks {
            self.apply_places(*queue, *target, places, number);
        }
        for target in &summary.moved_from {
            self.mark_moved_from(*target, number);
        }
        for queue in &summary.deletes {
            self.apply_queue_delete(*queue, number);
        }
        for (queue, runs) in &summary.delivered {
            let noted = self.delivered.entry(*queue).or_default();
            runs.iter()
                .for_each(|(first, len)| noted.insert_run(first, len));
        }
        if let Some(account) = self.segments.get_mut(&number) {
            for (queue, note, runs) in &summary.notes {
                let notes = account.notes.entry(*queue).or_default();
                notes.insert(*note, runs.clone());
            }
        }
        self.definitions.apply_changes(&summary.definitions, number);
    }

    // ---- questions ----

    /// The greatest number noted of a message; 0 if none was.
    pub(crate) fn note_of(&self, queue: QueueId, lsn: Lsn) -> u32 {
        let notes = self
            .segments
            .values()
            .filter_map(|account| account.notes.get(&queue));
        let greatest = notes.filter_map(|notes| {
            let mut falling = notes.iter().rev();
            falling
                .find(|(_, runs)| runs.contains(lsn))
                .map(|(note, _)| *note)
        });
        greatest.max().unwrap_or(0)
    }

    /// The number behind the last record.
    pub(crate) fn end(&self) -> Lsn {
        let ends = self.segments.values().map(|account| account.end);
        ends.max().unwrap_or_default()
    }

    /// Whether anything is noted of a queue's messages.
    pub(crate) fn has_notes(&self, queue: QueueId) -> bool {
        let mut accounts = self.segments.values();
        accounts.any(|account| account.notes.contains_key(&queue))
    }

    /// Where the message was that was copied by record `copy`, as long as the copy may not be durable.
    pub(crate) fn origin_of(&self, copy: Lsn) -> Option<Location> {
        self.origins.get(&copy).copied()
    }

    /// All records up to `durable` are: their copies can be read.
    pub(crate) fn forget_origins(&mut self, durable: Lsn) {
        while let Some(entry) = self.origins.first_entry() {
            if *entry.key() > durable {
                break;
            }
            entry.remove();
        }
    }

    /// The segments into which a message with this number may have been copied, the latest first.
    pub(crate) fn moved_homes_of(&self, lsn: Lsn) -> Vec<u32> {
        let covers = |account: &SegmentAccount| match &account.moved {
            MovedList::Open(piles) => {
                let mut piles = piles.lists().iter();
                piles.any(|pile| covers_list(pile, lsn))
            }
            MovedList::Sealed(list) => {
                list.is_some_and(|list| list.first <= lsn && lsn <= list.last)
            }
        };
        let latest_first = self.segments.iter().rev();
        latest_first
            .filter(|(_, account)| covers(account))
            .map(|(number, _)| *number)
            .collect()
    }

    /// Whether the segment may be released at once, if it is not the last.
    // req: JOURNAL-16
    pub(crate) fn is_free(&self, number: u32) -> bool {
        self.segments.get(&number).is_some_and(|account| {
            account.is_dead()
                && account.acks_on.is_empty()
                && account.notes.is_empty()
                && !(account.has_definitions && self.definitions.needs(number))
        })
    }

    /// Whether definition records in the segment must be replaced by a checkpoint before its release.
    pub(crate) fn needs_checkpoint(&self, number: u32) -> bool {
        self.segments
            .get(&number)
            .is_some_and(|account| account.has_definitions && self.definitions.needs(number))
    }

    /// The acks and deletes that must be written again before `number` is released.
    // req: JOURNAL-18
    pub(crate) fn acks_to_keep(&self, number: u32) -> Vec<KeptAcks> {
        let Some(account) = self.segments.get(&number) else {
            return Vec::new();
        };
        let mut kept = Vec::new();
        let mut deleted = BTreeSet::new();
        for target in &account.acks_on {
            let Some(account) = self.segments.get(target) else {
                continue;
            };
            let keep = |queue: &QueueId, places: PlaceSet| KeptAcks::Places {
                queue: *queue,
                target: *target,
                places,
            };
            let gone = account.shares.iter();
            let gone = gone.filter(|(_, share)| !share.gone.is_empty());
            kept.extend(gone.map(|(queue, share)| keep(queue, share.gone.clone())));
            let emptied = account.emptied.iter();
            kept.extend(emptied.map(|queue| keep(queue, PlaceSet::All)));
            deleted.extend(account.deleted.iter().copied());
        }
        kept.extend(deleted.into_iter().map(KeptAcks::QueueDelete));
        kept
    }

    /// What `number` was needed for has been written again.
    pub(crate) fn hand_over(&mut self, number: u32) {
        if let Some(account) = self.segments.get_mut(&number) {
            account.acks_on.clear();
            account.notes.clear();
        }
    }

    /// Whether something became free, or nearly so, since this was asked last.
    pub(crate) fn take_died(&mut self) -> bool {
        std::mem::take(&mut self.died)
    }
}

fn covers_list(list: &List, lsn: Lsn) -> bool {
    list.first() <= lsn && lsn <= list.last()
}
