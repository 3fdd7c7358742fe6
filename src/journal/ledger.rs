//! The account of what each segment is still needed for.
//!
//! Owns: per segment, how many messages each queue holds in it, which of them are gone, and on which
//! segments its acks work; the places of moved messages; the definitions. Fed with records in order, by
//! recovery and by the sync thread alike. Knows nothing of files.
//! Bound: per segment and queue a count and a few runs; one entry per live moved message.
//! Spec: `spec/journal.md`, "Deleting and compaction", JOURNAL-16 to JOURNAL-19.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::definitions::Definitions;
use super::record::{CatalogEntry, Kind, MessageView, Record, Runs};
use super::runs::RunSet;
use super::types::{Location, Lsn, QueueId};

/// A live message that lies elsewhere than where it was first written.
#[derive(Clone, Debug)]
pub(crate) struct Moved {
    pub(crate) location: Location,
    /// The queues that still hold it.
    pub(crate) queues: SmallVec<[QueueId; 2]>,
}

/// Moved messages by their number; readers look here when a place has grown stale.
pub(crate) type MovedMap = Arc<Mutex<HashMap<Lsn, Moved>>>;

/// What one segment is needed for.
#[derive(Debug, Default)]
pub(crate) struct SegmentAccount {
    pub(crate) first: Lsn,
    /// The number behind the last record in it.
    pub(crate) end: Lsn,
    /// Length of its file, in bytes.
    pub(crate) file_bytes: u64,
    /// Messages that each queue still holds here; no entry for none.
    live: HashMap<QueueId, u32>,
    /// Messages that left their queue, by the queue.
    gone: HashMap<QueueId, RunSet>,
    /// Messages that were moved to a later segment.
    moved_away: RunSet,
    /// Deleted queues that had messages here.
    deleted: BTreeSet<QueueId>,
    /// Earlier segments on which acks and queue deletes in this one work.
    acks_on: BTreeSet<u32>,
    has_definitions: bool,
    /// Message references ever, and still there; bytes of message records ever.
    references: u64,
    references_live: u64,
    message_bytes: u64,
}

impl SegmentAccount {
    /// An estimate of the bytes of messages that some queue still holds.
    pub(crate) fn live_bytes(&self) -> u64 {
        if self.references == 0 {
            return 0;
        }
        let product = u128::from(self.message_bytes) * u128::from(self.references_live);
        u64::try_from(product / u128::from(self.references)).unwrap_or(u64::MAX)
    }

    /// Whether no queue holds a message here.
    pub(crate) fn is_dead(&self) -> bool {
        self.live.is_empty()
    }

    fn add(&mut self, queue: QueueId) {
        // Queue numbers are not used again, so this queue's messages are gone already.
        if self.deleted.contains(&queue) {
            return;
        }
        *self.live.entry(queue).or_insert(0) += 1;
        self.references += 1;
        self.references_live += 1;
    }

    /// Whether `queue` holds the message `lsn`, which was written here.
    pub(crate) fn holds(&self, queue: QueueId, lsn: Lsn) -> bool {
        self.live.contains_key(&queue)
            && !self.moved_away.contains(lsn)
            && !self.gone.get(&queue).is_some_and(|gone| gone.contains(lsn))
    }

    /// Takes a reference away; `false` if it was not there.
    fn remove(&mut self, queue: QueueId, lsn: Lsn) -> bool {
        if !self.live.contains_key(&queue) || self.moved_away.contains(lsn) {
            return false;
        }
        if !self.gone.entry(queue).or_default().insert(lsn) {
            return false;
        }
        self.count_down(queue);
        true
    }

    fn count_down(&mut self, queue: QueueId) {
        self.references_live = self.references_live.saturating_sub(1);
        if let Some(count) = self.live.get_mut(&queue) {
            *count -= 1;
            if *count == 0 {
                self.live.remove(&queue);
            }
        }
    }
}

/// All segments, and what else must be known to release one.
#[derive(Debug)]
pub(crate) struct Ledger {
    segments: BTreeMap<u32, SegmentAccount>,
    by_first: BTreeMap<Lsn, u32>,
    moved: MovedMap,
    moved_count: usize,
    /// Whether a segment lost its last message.
    died: bool,
    pub(crate) definitions: Definitions,
    /// The highest queue number seen.
    pub(crate) queue_max: QueueId,
}

impl Ledger {
    pub(crate) fn new(moved: MovedMap) -> Self {
        Self {
            segments: BTreeMap::new(),
            by_first: BTreeMap::new(),
            moved,
            moved_count: 0,
            died: false,
            definitions: Definitions::default(),
            queue_max: QueueId(0),
        }
    }

    /// A segment begins whose first record will be `first`.
    pub(crate) fn begin_segment(&mut self, number: u32, first: Lsn, file_bytes: u64) {
        let account = SegmentAccount {
            first,
            end: first,
            file_bytes,
            ..SegmentAccount::default()
        };
        self.segments.insert(number, account);
        // Segments without records share their first number with the next; the later one wins, and
        // none of the earlier one's records can be asked for.
        self.by_first.insert(first, number);
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
    }

    pub(crate) fn segment(&self, number: u32) -> Option<&SegmentAccount> {
        self.segments.get(&number)
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = (u32, &SegmentAccount)> + '_ {
        self.segments
            .iter()
            .map(|(number, account)| (*number, account))
    }

    pub(crate) fn set_file_bytes(&mut self, number: u32, file_bytes: u64) {
        if let Some(account) = self.segments.get_mut(&number) {
            account.file_bytes = file_bytes;
        }
    }

    /// No record of the segment from `end` on counts.
    pub(crate) fn end_records(&mut self, number: u32, end: Lsn) {
        if let Some(account) = self.segments.get_mut(&number) {
            account.end = end;
        }
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The segments before `number`, as its catalog lists them.
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

    /// Counts one record that lies at `location`; `false` if its body makes no sense.
    pub(crate) fn apply(&mut self, record: &Record<'_>, location: Location) -> bool {
        let head = &record.head;
        if head.kind.is_numbered()
            && let Some(account) = self.segments.get_mut(&location.segment)
        {
            account.end = head.lsn.next();
        }
        match head.kind {
            Kind::Mark | Kind::Catalog => true,
            Kind::Released | Kind::CleanStop | Kind::Started => true,
            Kind::Message => self.apply_message(record, location),
            Kind::Moved => self.apply_moved(record, location),
            Kind::Acks => {
                self.apply_acks(head.queue, record.body, location.segment);
                true
            }
            Kind::Delivered | Kind::Noted => true,
            Kind::QueueDelete => {
                self.apply_queue_delete(head.queue, location.segment);
                true
            }
            Kind::DefinitionPut | Kind::DefinitionRemove | Kind::DefinitionsReset => {
                if let Some(account) = self.segments.get_mut(&location.segment) {
                    account.has_definitions = true;
                }
                self.definitions
                    .apply(head.kind, record.body, location.segment)
            }
        }
    }

    fn apply_message(&mut self, record: &Record<'_>, location: Location) -> bool {
        let Some(account) = self.segments.get_mut(&location.segment) else {
            return false;
        };
        account.message_bytes += record.head.record_bytes() as u64;
        if record.head.queue_count == 1 {
            account.add(record.head.queue);
            self.queue_max = self.queue_max.max(record.head.queue);
            return true;
        }
        let Some(view) = MessageView::decode(record) else {
            return false;
        };
        for queue in &view.queues {
            account.add(*queue);
            self.queue_max = self.queue_max.max(*queue);
        }
        true
    }

    // req: JOURNAL-19
    fn apply_moved(&mut self, record: &Record<'_>, location: Location) -> bool {
        let Some(view) = MessageView::decode(record) else {
            return false;
        };
        let from = self.home_of(view.lsn);
        if let Some(account) = from.and_then(|number| self.segments.get_mut(&number)) {
            for queue in &view.queues {
                if account.holds(*queue, view.lsn) {
                    account.count_down(*queue);
                }
            }
            account.moved_away.insert(view.lsn);
        }
        let Some(account) = self.segments.get_mut(&location.segment) else {
            return false;
        };
        account.message_bytes += record.head.record_bytes() as u64;
        for queue in &view.queues {
            account.add(*queue);
            self.queue_max = self.queue_max.max(*queue);
        }
        let queues = SmallVec::from_slice(&view.queues);
        let mut moved = self.moved.lock();
        moved.insert(view.lsn, Moved { location, queues });
        self.moved_count = moved.len();
        true
    }

    /// The segment in which the message lies now.
    fn home_of(&self, lsn: Lsn) -> Option<u32> {
        if self.moved_count > 0
            && let Some(moved) = self.moved.lock().get(&lsn)
        {
            return Some(moved.location.segment);
        }
        self.native_home_of(lsn)
    }

    fn native_home_of(&self, lsn: Lsn) -> Option<u32> {
        let (_, number) = self.by_first.range(..=lsn).next_back()?;
        self.segments
            .get(number)
            .filter(|account| lsn < account.end)
            .map(|_| *number)
    }

    fn apply_acks(&mut self, queue: QueueId, body: &[u8], here: u32) {
        for (Lsn(first), len) in Runs::new(body) {
            let mut lsn = first;
            let end = first.saturating_add(len);
            while lsn < end {
                // A run may reach over numbers whose segments are gone: go on at the next one there is.
                let Some(home) = self.home_of(Lsn(lsn)) else {
                    match self.next_known(Lsn(lsn)) {
                        Some(Lsn(next)) if next < end => lsn = next,
                        _ => break,
                    }
                    continue;
                };
                self.ack(queue, Lsn(lsn), home, here);
                lsn += 1;
            }
        }
    }

    /// The next number above `lsn` that may name a message.
    fn next_known(&self, lsn: Lsn) -> Option<Lsn> {
        let native = self
            .by_first
            .range(lsn.next()..)
            .next()
            .map(|(first, _)| *first);
        if self.moved_count == 0 {
            return native;
        }
        let moved = self
            .moved
            .lock()
            .keys()
            .copied()
            .filter(|moved| *moved > lsn)
            .min();
        native.into_iter().chain(moved).min()
    }

    fn ack(&mut self, queue: QueueId, lsn: Lsn, home: u32, here: u32) {
        if let Some(account) = self.segments.get_mut(&home)
            && account.remove(queue, lsn)
            && account.is_dead()
        {
            self.died = true;
        }
        if home != here
            && let Some(account) = self.segments.get_mut(&here)
        {
            account.acks_on.insert(home);
        }
        if self.moved_count > 0 {
            let mut moved = self.moved.lock();
            if let Some(entry) = moved.get_mut(&lsn) {
                entry.queues.retain(|held| *held != queue);
                if entry.queues.is_empty() {
                    moved.remove(&lsn);
                }
            }
            self.moved_count = moved.len();
        }
    }

    fn apply_queue_delete(&mut self, queue: QueueId, here: u32) {
        let mut works_on = BTreeSet::new();
        let mut had_moved = false;
        for (number, account) in &mut self.segments {
            let live = account.live.remove(&queue);
            let gone = account.gone.remove(&queue);
            if let Some(count) = live {
                account.references_live = account.references_live.saturating_sub(u64::from(count));
                had_moved = true;
                self.died = true;
            }
            if live.is_some() || gone.is_some() || account.deleted.contains(&queue) {
                account.deleted.insert(queue);
                if *number != here {
                    works_on.insert(*number);
                }
            }
        }
        if let Some(account) = self.segments.get_mut(&here) {
            account.acks_on.append(&mut works_on);
        }
        if had_moved && self.moved_count > 0 {
            let mut moved = self.moved.lock();
            moved.retain(|_, entry| {
                entry.queues.retain(|held| *held != queue);
                !entry.queues.is_empty()
            });
            self.moved_count = moved.len();
        }
    }

    /// Whether `queue` holds the message `lsn` by the record at `location`.
    pub(crate) fn is_live(&self, queue: QueueId, lsn: Lsn, location: Location) -> bool {
        if self.moved_count > 0
            && let Some(moved) = self.moved.lock().get(&lsn)
        {
            return moved.location == location && moved.queues.contains(&queue);
        }
        self.native_home_of(lsn) == Some(location.segment)
            && self
                .segments
                .get(&location.segment)
                .is_some_and(|account| account.holds(queue, lsn))
    }

    /// Whether the segment may be released at once, if it is not the last.
    // req: JOURNAL-16
    pub(crate) fn is_free(&self, number: u32) -> bool {
        self.segments.get(&number).is_some_and(|account| {
            account.is_dead()
                && account.acks_on.is_empty()
                && !(account.has_definitions && self.definitions.needs(number))
        })
    }

    /// Whether definition records in the segment must be replaced by a checkpoint before its release.
    pub(crate) fn needs_checkpoint(&self, number: u32) -> bool {
        self.segments
            .get(&number)
            .is_some_and(|account| account.has_definitions && self.definitions.needs(number))
    }

    /// Gives the acks and deletes that must be written again before `number` is released: per segment
    /// that they work on, each queue with its runs, and each deleted queue with `None`.
    // req: JOURNAL-18
    pub(crate) fn acks_to_keep(&self, number: u32) -> Vec<(QueueId, Option<&RunSet>)> {
        let Some(account) = self.segments.get(&number) else {
            return Vec::new();
        };
        let targets = account
            .acks_on
            .iter()
            .filter_map(|target| self.segments.get(target));
        let mut acks = Vec::new();
        for target in targets {
            acks.extend(target.gone.iter().map(|(queue, runs)| (*queue, Some(runs))));
            acks.extend(target.deleted.iter().map(|queue| (*queue, None)));
        }
        acks
    }

    /// The acks in segment `from` have been written again, into the segments `to`.
    ///
    /// What they work on is handed over as it is: a message that is gone can no longer be looked up.
    pub(crate) fn hand_over_acks(&mut self, from: u32, to: &BTreeSet<u32>) {
        let Some(account) = self.segments.get_mut(&from) else {
            return;
        };
        let acks_on = std::mem::take(&mut account.acks_on);
        for number in to {
            if let Some(account) = self.segments.get_mut(number) {
                account
                    .acks_on
                    .extend(acks_on.iter().filter(|target| *target != number));
            }
        }
    }

    /// Whether something became free, or nearly so, since this was asked last.
    pub(crate) fn take_died(&mut self) -> bool {
        std::mem::take(&mut self.died)
    }
}
