//! The messages of one list that wait for a consumer, in order.
//!
//! Owns: order, and what of a long list is in memory: the front is what goes next, and a message that
//! comes back goes to the place it had. A short list knows nothing of disks; of a long one both ends
//! are in memory and the middle lies in pages ([`deep`]), which the queue writes and reads
//! (`queue/paging.rs`) while its lock is free.
//! Bound: the queue's length limit; in memory what [`Spill::list_bytes_max`] allows.
//!
//! ```text
//!  returned  │ pages of      │ what recovery │ head   │ pages │ tail
//!  in memory │ returned ones │ has not read  │        │       │  <── publish
//!  <── came back, any place ─┘ <── never taken since they came, or loaded ──
//! ```
//! All that came back stands before all that was never taken, but among themselves the first two zones
//! overlap: a page of them is loaded before anything behind its first message goes.
//! Spec: `spec/spill.md`.

mod deep;
mod line;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::journal::{Lsn, QueueId};

use super::super::spill::{Area, Extent, Spill};
use super::{Entry, MessageSeq, Peeked};

use deep::{Deep, Look};
use line::{ENTRY_BYTES, Line, cost_bytes};

pub(crate) use deep::{Batch, Load, Loaded, Page, RecoveredZone, Source};

/// What stands first.
#[derive(Debug)]
pub(crate) enum Front {
    /// A message; it is taken.
    Message(MessageSeq, Entry),
    /// A message that is still on disk: the queue goes on when it is loaded.
    Loading,
    /// Nothing waits.
    Empty,
}

/// Waiting messages, lowest number first.
#[derive(Debug)]
pub(crate) struct Ready {
    count: usize,
    bytes: u64,
    /// Messages that came back; all stand before `head`, since only the front was ever taken.
    returned: BTreeMap<MessageSeq, Entry>,
    returned_memory_bytes: usize,
    /// The first of those never taken.
    head: Line,
    /// The last of them. What stands between the two is in `deep`.
    tail: Line,
    /// How much of it may be in memory, in bytes; of no meaning without a spill.
    list_bytes_max: usize,
    /// What holding a message costs this list, in [`WHOLE`]ths of what it costs alone: other queues may hold
    /// it too. Looked up when the tail has grown by a page, before the first page is written.
    share: usize,
    /// What the spill was told that this list holds in memory, in bytes.
    reported_bytes: usize,
    queue: QueueId,
    spill: Option<Arc<Spill>>,
    deep: Option<Box<Deep>>,
}

/// How much of each zone may be in memory, in bytes.
#[derive(Clone, Copy, Debug)]
struct Limits {
    returned: usize,
    head: usize,
    /// Pages are loaded while the head holds no more than this.
    read_ahead: usize,
    page: usize,
}

/// A page holds at most so much of memory, in bytes, and one message.
const PAGE_MEMORY_BYTES_MAX: usize = 256 << 10;
/// Most that is read from disk ahead of its turn, in bytes of memory: a few pages hide the reading, and more
/// would fall out of the processor's caches before it is delivered.
const READ_AHEAD_BYTES_MAX: usize = 1 << 20;
/// A share of one.
const WHOLE: usize = 1 << 10;
/// A list reports what it holds when that changed by so much, in bytes.
const REPORT_BYTES: usize = 8 << 10;

impl Limits {
    const NONE: Self = Self {
        returned: usize::MAX,
        head: usize::MAX,
        read_ahead: usize::MAX,
        page: usize::MAX,
    };

    /// Shares out what one list may hold.
    fn of(list_bytes_max: usize) -> Self {
        let page = (list_bytes_max / 4).clamp(1, PAGE_MEMORY_BYTES_MAX);
        let rest = list_bytes_max.saturating_sub(page) / 2;
        Self {
            returned: rest,
            head: rest,
            read_ahead: (rest / 2).min(READ_AHEAD_BYTES_MAX),
            page,
        }
    }
}

impl Ready {
    /// An empty list of a queue; without a spill all of it stays in memory.
    pub(crate) fn new(queue: QueueId, spill: Option<Arc<Spill>>) -> Self {
        let list_bytes_max = spill.as_ref().map_or(0, |spill| spill.list_bytes_max());
        Self {
            count: 0,
            bytes: 0,
            returned: BTreeMap::new(),
            returned_memory_bytes: 0,
            head: Line::default(),
            tail: Line::default(),
            list_bytes_max,
            share: WHOLE,
            reported_bytes: 0,
            queue,
            spill,
            deep: None,
        }
    }

    /// An empty list of the same queue.
    pub(crate) fn sibling(&self) -> Self {
        Self::new(self.queue, self.spill.clone())
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The sum of their bodies in bytes, payloads included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn limits(&self) -> Limits {
        match self.spill {
            Some(_) => Limits::of(self.list_bytes_max),
            None => Limits::NONE,
        }
    }

    /// What is in memory, in bytes with what holding it costs this list.
    pub(crate) fn memory_bytes(&self) -> usize {
        let deep = self.deep.as_deref().map_or(0, Deep::memory_bytes);
        self.returned_memory_bytes
            + self.own(self.head.memory_bytes() + self.tail.memory_bytes())
            + deep
    }

    /// What of `memory_bytes` is this list's own, and not that of others who hold the same messages.
    fn own(&self, memory_bytes: usize) -> usize {
        match self.share {
            WHOLE => memory_bytes,
            share => memory_bytes / WHOLE * share,
        }
    }

    /// Adds a message behind all others; its number is higher than any before.
    pub(crate) fn push_back(&mut self, seq: MessageSeq, entry: Entry) {
        self.bytes += entry.message.size_bytes();
        self.count += 1;
        let joins_head = self.tail.is_empty()
            && self.head.memory_bytes() < self.limits().head
            && self.is_middle_empty();
        match joins_head {
            true => self.head.push_back(seq, entry),
            false => self.tail.push_back(seq, entry),
        }
        self.report();
    }

    /// Takes the first message.
    pub(crate) fn pop_front(&mut self) -> Front {
        self.reveal_front();
        if self.is_front_on_disk() {
            return Front::Loading;
        }
        let taken = match self.returned.pop_first() {
            Some((seq, entry)) => {
                self.returned_memory_bytes -= cost_bytes(&entry);
                Some((seq, entry))
            }
            None => self.head.pop_front(),
        };
        let Some((seq, entry)) = taken else {
            return Front::Empty;
        };
        self.bytes -= entry.message.size_bytes();
        self.count -= 1;
        if self.count == 0 {
            self.share = WHOLE;
        }
        self.report();
        Front::Message(seq, entry)
    }

    /// The first message, left where it is; none if there is none, or if it is still on disk.
    pub(crate) fn front(&self) -> Option<(MessageSeq, &Entry)> {
        if let Some(deep) = &self.deep
            && let Some((first, page)) = deep.returned_pages.first_key_value()
            && self.returned.keys().next().is_none_or(|seq| first < seq)
        {
            return deep.unwritten_front(page);
        }
        if let Some((seq, entry)) = self.returned.first_key_value() {
            return Some((*seq, entry));
        }
        if let Some(front) = self.head.front() {
            return Some(front);
        }
        match &self.deep {
            Some(deep) if deep.recovered.is_some() => None,
            Some(deep) if !deep.pages.is_empty() => deep.unwritten_front(deep.pages.front()?),
            Some(_) | None => self.tail.front(),
        }
    }

    /// Puts a message that was taken back to its place.
    pub(crate) fn put_back(&mut self, seq: MessageSeq, entry: Entry) {
        debug_assert!(
            self.head.front().is_none_or(|(first, _)| seq < first),
            "only the front is ever taken"
        );
        self.bytes += entry.message.size_bytes();
        self.count += 1;
        self.returned_memory_bytes += cost_bytes(&entry);
        let replaced = self.returned.insert(seq, entry);
        debug_assert!(replaced.is_none(), "a number is given once");
        self.report();
    }

    // ---- the middle ----

    /// The next messages that must leave the memory, if too many are in it. They stay a part of the list;
    /// the queue writes them and says so with [`Self::written`].
    pub(crate) fn next_batch(&mut self) -> Option<Arc<Batch>> {
        let limits = self.limits();
        let returned_is_full = self.returned_memory_bytes > limits.returned;
        if !returned_is_full && self.tail.memory_bytes() < limits.page {
            return None;
        }
        if self.is_middle_empty() {
            // A fan-out's message is held once for all its queues; to write it once for each would cost more
            // than it saves, as long as most of them have it.
            // req: SPILL-9
            self.share = share_of(&self.tail, limits.page);
            let held = self.head.memory_bytes() + self.tail.memory_bytes();
            if self.own(held) <= limits.head {
                self.head.append(&mut self.tail);
                if !returned_is_full {
                    return None;
                }
            }
        }
        let spill = self.spill.as_ref().filter(|spill| spill.may_write())?;
        let deep = (self.deep).get_or_insert_with(|| Box::new(Deep::new(spill.area(self.queue))));
        if returned_is_full {
            let (held, kept) = (self.returned_memory_bytes, limits.returned / 2);
            let line = last_of(&mut self.returned, held, kept, limits.page);
            self.returned_memory_bytes -= line.memory_bytes();
            let batch = deep.add_returned_page(line);
            if batch.is_some() {
                return batch;
            }
        }
        if self.tail.memory_bytes() < limits.page {
            return None;
        }
        let line = self.tail.take_front(limits.page);
        deep.add_page(line)
    }

    /// Whether `area` is this list's.
    pub(crate) fn has(&self, area: &Arc<Area>) -> bool {
        self.deep.as_ref().is_some_and(|deep| deep.has(area))
    }

    /// Notes where a batch was written; if it was not, it stays in memory.
    pub(crate) fn written(&mut self, batch: &Batch, result: io::Result<Extent>) {
        if let Some(deep) = self.deep.as_mut().filter(|deep| deep.has(&batch.area)) {
            deep.written(batch, result);
        }
        self.report();
    }

    /// Whether a page should be loaded now.
    pub(crate) fn wants_load(&self) -> bool {
        let Some(deep) = &self.deep else { return false };
        if deep.is_stalled {
            return false;
        }
        let wants_returned = !deep.returned_pages.is_empty()
            && (self.wants_returned() || self.is_returned_page_due());
        wants_returned || (!deep.is_middle_empty() && self.wants_head())
    }

    /// What is to be read next. The queue reads it with no lock held and brings it with
    /// [`Self::install`].
    pub(crate) fn next_load(&mut self) -> Option<Load> {
        self.reveal_front();
        let returned = self.is_returned_page_due() || self.wants_returned();
        let middle = self.wants_head();
        let memory_bytes_max = self.limits().page;
        let deep = self.deep.as_mut()?;
        deep.next_load(returned, middle, memory_bytes_max)
    }

    /// Takes in what was read, and gives how many of its messages were missing; nothing if it is of no
    /// use any more.
    pub(crate) fn install(&mut self, load: &Load, loaded: Loaded) -> Option<usize> {
        let deep = self.deep.as_mut().filter(|deep| deep.has(&load.area))?;
        let installed = deep.install(&load.source, loaded)?;
        let lost_count = installed
            .expected_count
            .saturating_sub(installed.found_count);
        // req: SPILL-5
        self.count = (self.count + installed.found_count).saturating_sub(installed.expected_count);
        self.bytes = (self.bytes + installed.found_bytes).saturating_sub(installed.expected_bytes);
        match load.source {
            Source::Returned(_) => {
                for (seq, entry) in installed.entries {
                    self.returned_memory_bytes += cost_bytes(&entry);
                    self.returned.insert(seq, entry);
                }
            }
            Source::Page(_) | Source::Recovered { .. } => self.head.push_chunk(installed.entries),
        }
        self.report();
        Some(lost_count)
    }

    /// Notes that something could not be read: nothing is asked for until [`Self::retry_stalled`].
    pub(crate) fn set_stalled(&mut self, load: &Load) {
        if let Some(deep) = self.deep.as_mut().filter(|deep| deep.has(&load.area)) {
            deep.is_stalled = true;
        }
    }

    /// Lets pages that could not be read be tried again.
    pub(crate) fn retry_stalled(&mut self) {
        if let Some(deep) = &mut self.deep {
            deep.is_stalled = false;
        }
    }

    /// Takes over what recovery found, as the first of an empty list; false if there is no spill, and so
    /// nobody who reads it.
    pub(crate) fn restore(&mut self, zone: RecoveredZone) -> bool {
        debug_assert!(self.is_empty(), "recovery comes first");
        let Some(spill) = &self.spill else {
            return false;
        };
        self.count = zone.count;
        self.bytes = zone.bytes;
        let mut deep = Deep::new(spill.area(self.queue));
        deep.recovered = Some(zone);
        self.deep = Some(Box::new(deep));
        true
    }

    // ---- looking at all of it ----

    /// Where its messages are, for going through their journal numbers.
    pub(crate) fn outline(&self, outlined: &mut Outlined) {
        let which = outlined.which;
        let wanted = |entry: &Entry| {
            let is_wanted = which == Outline::All || entry.redelivered;
            (is_wanted && entry.lsn != Lsn::ZERO).then_some(entry.lsn)
        };
        let returned = self.returned.values();
        let lines = self.head.iter().chain(self.tail.iter());
        let in_memory = returned.chain(lines.map(|(_, entry)| entry));
        outlined.lsns.extend(in_memory.filter_map(wanted));
        let Some(deep) = &self.deep else { return };
        for page in deep.all_pages().filter(|page| page.has_references()) {
            match deep.look(page) {
                Look::InMemory(line) => {
                    let entries = line.iter().map(|(_, entry)| entry);
                    outlined.lsns.extend(entries.filter_map(wanted));
                }
                Look::OnDisk(load) => {
                    if which == Outline::All || page.has_redelivered {
                        outlined.pages.push((load.area, *page));
                    }
                }
            }
        }
        if let Some(recovered) = &deep.recovered {
            outlined.recovered = Some((recovered.after, recovered.last));
        }
    }

    /// How many numbers there are for the messages of `page`, before those of what stands behind it.
    pub(crate) fn room_of(&self, page: &Page) -> u64 {
        let behind = |pages: &mut dyn Iterator<Item = MessageSeq>| {
            pages.filter(|first| *first > page.first).min()
        };
        let Some(deep) = &self.deep else { return 0 };
        let mut firsts = deep.all_pages().map(|page| page.first);
        let mut lists = [self.head.front(), self.tail.front()].into_iter();
        let mut lists = lists.by_ref().flatten().map(|(first, _)| first);
        let ends = [behind(&mut firsts), behind(&mut lists)];
        let end = ends.into_iter().flatten().min();
        end.map_or(u64::MAX, |end| end.0 - page.first.0)
    }

    /// Copies of messages, or where they are to be read, for what is left of a view.
    pub(crate) fn view(&self, view: &mut View) {
        let returned = self.returned.values();
        let Some(deep) = &self.deep else {
            view.messages(returned.len(), returned);
            for line in [&self.head, &self.tail] {
                view.messages(line.len(), line.iter().map(|(_, entry)| entry));
            }
            return;
        };
        view.returned(&self.returned, deep);
        view.messages(self.head.len(), self.head.iter().map(|(_, entry)| entry));
        if let (Some(load), Some(recovered)) = (deep.look_recovered(), &deep.recovered) {
            view.load(load, recovered.count);
        }
        for page in &deep.pages {
            view.page(deep.look(page), page);
        }
        view.messages(self.tail.len(), self.tail.iter().map(|(_, entry)| entry));
    }

    // ---- within ----

    /// Whether the head and the tail are next to each other.
    fn is_middle_empty(&self) -> bool {
        self.deep.as_deref().is_none_or(Deep::is_middle_empty)
    }

    /// Whether a page of messages that came back must be loaded before anything goes.
    fn is_returned_page_due(&self) -> bool {
        let Some(deep) = &self.deep else { return false };
        let first_page = deep.returned_pages.keys().next();
        let first = self.returned.keys().next();
        first_page.is_some_and(|page| first.is_none_or(|first| page < first))
    }

    fn is_front_on_disk(&self) -> bool {
        self.is_returned_page_due()
            || (self.returned.is_empty() && self.head.is_empty() && !self.is_middle_empty())
    }

    /// Brings to the front what stands there and is in memory already: the tail, or pages that are not
    /// written yet.
    fn reveal_front(&mut self) {
        if self.deep.is_some() {
            self.take_unwritten();
        }
        if self.head.is_empty() && self.is_middle_empty() {
            self.head.append(&mut self.tail);
        }
    }

    fn take_unwritten(&mut self) {
        while (self.is_returned_page_due() || self.wants_returned())
            && let Some(deep) = &mut self.deep
            && let Some(entries) = deep.take_unwritten_returned()
        {
            for (seq, entry) in entries {
                self.returned_memory_bytes += cost_bytes(&entry);
                self.returned.insert(seq, entry);
            }
        }
        while self.wants_head()
            && let Some(deep) = &mut self.deep
            && let Some(entries) = deep.take_unwritten()
        {
            self.head.push_chunk(entries);
        }
    }

    /// Whether there is room for a page of messages that came back.
    fn wants_returned(&self) -> bool {
        self.returned_memory_bytes <= self.limits().returned / 2
    }

    /// Whether there is room for a page of messages that were never taken.
    fn wants_head(&self) -> bool {
        self.head.memory_bytes() <= self.limits().read_ahead
    }

    /// Tells the spill what this list holds, if that has changed by much, and learns what it may hold.
    fn report(&mut self) {
        let Some(spill) = &self.spill else { return };
        let held = self.memory_bytes();
        if held.abs_diff(self.reported_bytes) >= REPORT_BYTES {
            spill.report(self.reported_bytes, held);
            self.reported_bytes = held;
            self.list_bytes_max = spill.list_bytes_max();
        }
    }
}

/// Which messages are gone through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outline {
    /// All of them.
    All,
    /// Those that somebody has seen.
    Delivered,
}

/// Where the messages of a queue are.
#[derive(Debug)]
pub(crate) struct Outlined {
    pub(crate) which: Outline,
    /// Journal numbers of those in memory.
    pub(crate) lsns: Vec<Lsn>,
    pub(crate) pages: Vec<(Arc<Area>, Page)>,
    /// Those behind the first and up to the last are still to be read by what recovery found.
    pub(crate) recovered: Option<(Lsn, Lsn)>,
}

impl Outlined {
    pub(crate) fn new(which: Outline) -> Self {
        Self {
            which,
            lsns: Vec::new(),
            pages: Vec::new(),
            recovered: None,
        }
    }
}

/// A part of a queue that somebody wants to look at.
#[derive(Debug)]
pub(crate) struct View {
    skip: usize,
    take: usize,
    pub(crate) pieces: Vec<Piece>,
}

/// Messages of a view, or where they are.
#[derive(Debug)]
pub(crate) enum Piece {
    Messages(Vec<Peeked>),
    /// Messages that came back: those of the pages stand among those that are known, by their numbers,
    /// and none before the first of its page.
    Returned {
        known: BTreeMap<MessageSeq, Peeked>,
        loads: Vec<(MessageSeq, Load)>,
        skip: usize,
        take: usize,
    },
    Load {
        load: Load,
        skip: usize,
        take: usize,
    },
}

impl View {
    /// `count` messages from the one at `offset` on.
    pub(crate) fn new(offset: usize, count: usize) -> Self {
        Self {
            skip: offset,
            take: count,
            pieces: Vec::new(),
        }
    }

    /// The next `count` messages of the queue.
    pub(crate) fn messages<'a>(&mut self, count: usize, entries: impl Iterator<Item = &'a Entry>) {
        let (skip, take) = self.next(count);
        if take > 0 {
            let messages = entries.skip(skip).take(take);
            let messages = messages.map(Peeked::of);
            self.pieces.push(Piece::Messages(messages.collect()));
        }
    }

    fn returned(&mut self, in_memory: &BTreeMap<MessageSeq, Entry>, deep: &Deep) {
        let pages = deep.returned_pages.values();
        let count = in_memory.len() + pages.map(|page| page.count as usize).sum::<usize>();
        let (skip, take) = self.next(count);
        if take == 0 {
            return;
        }
        let copy = |(seq, entry): (MessageSeq, &Entry)| (seq, Peeked::of(entry));
        let in_memory = in_memory.iter().map(|(seq, entry)| (*seq, entry));
        let mut known: BTreeMap<_, _> = in_memory.map(copy).collect();
        let mut loads = Vec::new();
        for page in deep.returned_pages.values() {
            match deep.look(page) {
                Look::InMemory(line) => known.extend(line.iter().map(copy)),
                Look::OnDisk(load) => loads.push((page.first, load)),
            }
        }
        self.pieces.push(Piece::Returned {
            known,
            loads,
            skip,
            take,
        });
    }

    fn page(&mut self, look: Look<'_>, page: &Page) {
        match look {
            Look::InMemory(line) => {
                self.messages(line.len(), line.iter().map(|(_, entry)| entry));
            }
            Look::OnDisk(load) => self.load(load, page.count as usize),
        }
    }

    fn load(&mut self, load: Load, count: usize) {
        let (skip, take) = self.next(count);
        if take > 0 {
            self.pieces.push(Piece::Load { load, skip, take });
        }
    }

    /// What of the next `count` messages is wanted.
    fn next(&mut self, count: usize) -> (usize, usize) {
        let skip = self.skip.min(count);
        let take = self.take.min(count - skip);
        self.skip -= skip;
        self.take -= take;
        (skip, take)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(spill) = &self.spill {
            spill.report(self.reported_bytes, 0);
        }
    }
}

/// What holding the first messages of a list costs, a page of them, if each of its holders bears as much.
fn share_of(line: &Line, page_bytes_max: usize) -> usize {
    let (mut alone, mut shared) = (0, 0);
    for (_, entry) in line.iter() {
        let cost = cost_bytes(entry);
        alone += cost;
        shared += ENTRY_BYTES + (cost - ENTRY_BYTES) / entry.message.holder_count().max(1);
        if alone >= page_bytes_max {
            break;
        }
    }
    match alone {
        0 => WHOLE,
        alone => (shared * WHOLE / alone).clamp(1, WHOLE),
    }
}

/// Takes the last messages of a map, which all cost `held_bytes`: until they cost `page_bytes_max`, and
/// as long as the rest costs more than `kept_bytes`.
///
/// So what is left wants no page at once, and the first stays: a page that is loaded because it holds the
/// front does not go out again.
fn last_of(
    map: &mut BTreeMap<MessageSeq, Entry>,
    held_bytes: usize,
    kept_bytes: usize,
    page_bytes_max: usize,
) -> Line {
    let mut taken_bytes = 0;
    let mut first = None;
    for (seq, entry) in map.iter().rev() {
        let with_it = taken_bytes + cost_bytes(entry);
        if taken_bytes >= page_bytes_max || held_bytes.saturating_sub(with_it) <= kept_bytes {
            break;
        }
        taken_bytes = with_it;
        first = Some(*seq);
    }
    let mut line = Line::default();
    if let Some(first) = first {
        line.push_chunk(map.split_off(&first).into_iter().collect());
    }
    line
}

#[cfg(test)]
mod tests;
