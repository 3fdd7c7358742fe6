//! The middle of a long list: pages on disk, and what recovery found and nobody has read yet.
//!
//! Owns: which pages there are, in order, and what must stay in memory for each: 56 bytes, its
//! payloads' references, and all of it until it is written. Reads and writes nothing itself.
//! Spec: `spec/spill.md`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use crate::journal::Lsn;

use super::super::super::payloads::PayloadBody;
use super::super::super::spill::{Area, Extent};
use super::super::{Entry, MessageSeq};
use super::line::Line;

/// One page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    /// Of no meaning until it is written.
    pub(crate) extent: Extent,
    /// Tells it from all other pages of its list.
    number: u32,
    pub(crate) count: u32,
    /// The sum of its bodies, payloads included.
    pub(crate) bytes: u64,
    pub(crate) first: MessageSeq,
    /// The lowest and the highest number in the journal, [`Lsn::ZERO`] if none is there.
    pub(crate) lsns: (Lsn, Lsn),
    /// Whether somebody has seen one of its messages.
    pub(crate) has_redelivered: bool,
}

const _: () = assert!(size_of::<Page>() <= 56);

impl Page {
    fn of(number: u32, line: &Line) -> Option<Self> {
        let (first, _) = line.front()?;
        let mut page = Self {
            extent: Extent::default(),
            number,
            count: u32::try_from(line.len()).ok()?,
            bytes: 0,
            first,
            lsns: (Lsn::ZERO, Lsn::ZERO),
            has_redelivered: false,
        };
        for (_, entry) in line.iter() {
            page.bytes += entry.message.size_bytes();
            page.has_redelivered |= entry.redelivered;
            if entry.lsn != Lsn::ZERO {
                let (first, last) = page.lsns;
                let first = if page.has_references() {
                    first.min(entry.lsn)
                } else {
                    entry.lsn
                };
                page.lsns = (first, last.max(entry.lsn));
            }
        }
        Some(page)
    }

    /// Whether the journal has one of its messages.
    pub(crate) fn has_references(&self) -> bool {
        self.lsns.0 != Lsn::ZERO
    }
}

/// Messages on their way to disk; still a part of their list.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) area: Arc<Area>,
    number: u32,
    pub(crate) line: Line,
}

/// Something to be read.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) area: Arc<Area>,
    pub(crate) source: Source,
    /// Of the page's messages that have one, in order.
    pub(crate) payloads: Arc<[PayloadBody]>,
}

/// Where it is to be read from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// A page of messages that came back.
    Returned(Page),
    /// A page of messages that were never taken.
    Page(Page),
    /// The journal, behind `after` and up to `last`; as much as costs `memory_bytes_max`.
    Recovered {
        after: Lsn,
        last: Lsn,
        memory_bytes_max: usize,
    },
}

/// What was read.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// A page's messages; some may be missing.
    Page(VecDeque<(MessageSeq, Entry)>),
    /// Messages in order of their numbers; none if there are no more.
    Recovered(VecDeque<Entry>),
}

impl Loaded {
    /// The messages in order.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = Entry> {
        let (page, recovered) = match self {
            Self::Page(entries) => (entries, VecDeque::new()),
            Self::Recovered(entries) => (VecDeque::new(), entries),
        };
        let page = page.into_iter().map(|(_, entry)| entry);
        page.chain(recovered)
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) entries: VecDeque<(MessageSeq, Entry)>,
    pub(super) expected_count: usize,
    pub(super) found_count: usize,
    pub(super) expected_bytes: u64,
    pub(super) found_bytes: u64,
}

/// What recovery found: messages in the journal that nobody has read yet.
#[derive(Debug)]
pub(crate) struct RecoveredZone {
    /// All up to here were read, or are not this queue's.
    pub(crate) after: Lsn,
    /// The last one's number.
    pub(crate) last: Lsn,
    pub(crate) count: usize,
    pub(crate) bytes: u64,
    /// The number in the queue of the first of them.
    pub(crate) seq_next: u64,
    /// What keeps their payloads, with their numbers in the journal, ascending.
    pub(crate) payloads: VecDeque<(Lsn, PayloadBody)>,
}

/// Where a page's messages are.
pub(super) enum Look<'a> {
    InMemory(&'a Line),
    OnDisk(Load),
}

/// The middle.
#[derive(Debug)]
pub(super) struct Deep {
    pub(super) area: Arc<Area>,
    pub(super) recovered: Option<RecoveredZone>,
    /// Of messages that came back, by the first of each; they may overlap.
    pub(super) returned_pages: BTreeMap<MessageSeq, Page>,
    /// Of messages that were never taken, in order.
    pub(super) pages: VecDeque<Page>,
    /// What is not written yet, or could not be, by page number.
    unwritten: BTreeMap<u32, Arc<Batch>>,
    unwritten_memory_bytes: usize,
    payloads: BTreeMap<u32, Arc<[PayloadBody]>>,
    page_next: u32,
    /// Whether the last page could not be read.
    pub(super) is_stalled: bool,
}

impl Deep {
    pub(super) fn new(area: Arc<Area>) -> Self {
        Self {
            area,
            recovered: None,
            returned_pages: BTreeMap::new(),
            pages: VecDeque::new(),
            unwritten: BTreeMap::new(),
            unwritten_memory_bytes: 0,
            payloads: BTreeMap::new(),
            page_next: 0,
            is_stalled: false,
        }
    }

    /// Whether these are this list's pages, and not those of one before.
    pub(super) fn has(&self, area: &Arc<Area>) -> bool {
        Arc::ptr_eq(&self.area, area)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let pages = self.pages.len() + self.returned_pages.len();
        self.unwritten_memory_bytes + pages * size_of::<Page>()
    }

    /// Whether nothing stands between head and tail.
    pub(super) fn is_middle_empty(&self) -> bool {
        self.recovered.is_none() && self.pages.is_empty()
    }

    pub(super) fn add_page(&mut self, line: Line) -> Option<Arc<Batch>> {
        let (page, batch) = self.make_page(line)?;
        self.pages.push_back(page);
        Some(batch)
    }

    pub(super) fn add_returned_page(&mut self, line: Line) -> Option<Arc<Batch>> {
        let (page, batch) = self.make_page(line)?;
        self.returned_pages.insert(page.first, page);
        Some(batch)
    }

    fn make_page(&mut self, line: Line) -> Option<(Page, Arc<Batch>)> {
        let number = self.page_next;
        self.page_next = number.wrapping_add(1);
        let page = Page::of(number, &line)?;
        let payloads = line.iter().filter_map(|(_, entry)| entry.message.payload());
        let payloads: Arc<[PayloadBody]> = payloads.cloned().collect();
        if !payloads.is_empty() {
            self.payloads.insert(number, payloads);
        }
        self.unwritten_memory_bytes += line.memory_bytes();
        let area = Arc::clone(&self.area);
        let batch = Arc::new(Batch { area, number, line });
        self.unwritten.insert(number, Arc::clone(&batch));
        Some((page, batch))
    }

    /// Notes where a batch was written. One that was not stays in memory; one that was taken meanwhile
    /// leaves its place.
    pub(super) fn written(&mut self, batch: &Batch, result: io::Result<Extent>) {
        let Ok(extent) = result else { return };
        if self.unwritten.remove(&batch.number).is_none() {
            self.area.release(extent);
            return;
        }
        self.unwritten_memory_bytes -= batch.line.memory_bytes();
        let first = batch.line.front().map(|(first, _)| first);
        let returned = first.and_then(|first| self.returned_pages.get_mut(&first));
        let page = match returned.filter(|page| page.number == batch.number) {
            Some(page) => Some(page),
            // They are in order of their numbers, of which only a few may be missing.
            None => {
                let pages = self.pages.iter_mut().rev();
                pages.into_iter().find(|page| page.number == batch.number)
            }
        };
        match page {
            Some(page) => page.extent = extent,
            None => self.area.release(extent),
        }
    }

    /// The first message of a page that is not written yet.
    pub(super) fn unwritten_front(&self, page: &Page) -> Option<(MessageSeq, &Entry)> {
        self.unwritten.get(&page.number)?.line.front()
    }

    /// Takes the messages of the first page, if they are still in memory.
    pub(super) fn take_unwritten(&mut self) -> Option<VecDeque<(MessageSeq, Entry)>> {
        if self.recovered.is_some() {
            return None;
        }
        let number = self.pages.front()?.number;
        let entries = self.take_batch(number)?;
        self.pages.pop_front();
        Some(entries)
    }

    /// The same of the first page of messages that came back.
    pub(super) fn take_unwritten_returned(&mut self) -> Option<VecDeque<(MessageSeq, Entry)>> {
        let number = self.returned_pages.first_key_value()?.1.number;
        let entries = self.take_batch(number)?;
        self.returned_pages.pop_first();
        Some(entries)
    }

    fn take_batch(&mut self, number: u32) -> Option<VecDeque<(MessageSeq, Entry)>> {
        let batch = self.unwritten.remove(&number)?;
        self.payloads.remove(&number);
        self.unwritten_memory_bytes -= batch.line.memory_bytes();
        Some(match Arc::try_unwrap(batch) {
            Ok(batch) => batch.line.into_chunk(),
            // It is being written at this moment.
            Err(batch) => {
                let entries = batch.line.iter();
                entries.map(|(seq, entry)| (seq, entry.clone())).collect()
            }
        })
    }

    /// What is to be read first.
    pub(super) fn next_load(
        &mut self,
        returned: bool,
        middle: bool,
        memory_bytes_max: usize,
    ) -> Option<Load> {
        let page = self.returned_pages.values().next().copied();
        if let Some(page) = page.filter(|page| returned && self.is_written(page)) {
            return Some(self.load(Source::Returned(page), page.number));
        }
        if !middle {
            return None;
        }
        if let Some(recovered) = &self.recovered {
            let source = Source::Recovered {
                after: recovered.after,
                last: recovered.last,
                memory_bytes_max,
            };
            return Some(self.load(source, u32::MAX));
        }
        let page = *self.pages.front()?;
        self.is_written(&page)
            .then(|| self.load(Source::Page(page), page.number))
    }

    fn is_written(&self, page: &Page) -> bool {
        !self.unwritten.contains_key(&page.number)
    }

    /// A page, to be looked at.
    pub(super) fn look(&self, page: &Page) -> Look<'_> {
        match self.unwritten.get(&page.number) {
            Some(batch) => Look::InMemory(&batch.line),
            None => Look::OnDisk(self.load(Source::Page(*page), page.number)),
        }
    }

    /// The list's pages, those of messages that came back first.
    pub(super) fn all_pages(&self) -> impl Iterator<Item = &Page> {
        self.returned_pages.values().chain(&self.pages)
    }

    /// The next of what recovery found, to be looked at: `count` messages, behind all that is known.
    pub(super) fn look_recovered(&self) -> Option<Load> {
        let recovered = self.recovered.as_ref()?;
        let source = Source::Recovered {
            after: recovered.after,
            last: recovered.last,
            memory_bytes_max: usize::MAX,
        };
        Some(self.load(source, u32::MAX))
    }

    fn load(&self, source: Source, number: u32) -> Load {
        Load {
            area: Arc::clone(&self.area),
            source,
            payloads: self.payloads.get(&number).cloned().unwrap_or_default(),
        }
    }

    /// Takes out what was loaded, if it is still what stands first.
    pub(super) fn install(&mut self, source: &Source, loaded: Loaded) -> Option<Installed> {
        let (entries, expected_count, expected_bytes) = match (source, loaded) {
            (Source::Returned(page), Loaded::Page(entries)) => {
                let found = self.returned_pages.get(&page.first)?;
                if found.number != page.number {
                    return None;
                }
                self.returned_pages.remove(&page.first);
                self.forget(page);
                (entries, page.count as usize, page.bytes)
            }
            (Source::Page(page), Loaded::Page(entries)) => {
                if self.recovered.is_some() || self.pages.front()?.number != page.number {
                    return None;
                }
                self.pages.pop_front();
                self.forget(page);
                (entries, page.count as usize, page.bytes)
            }
            (Source::Recovered { after, .. }, Loaded::Recovered(entries)) => {
                return self.install_recovered(*after, entries);
            }
            (Source::Returned(_) | Source::Page(_), Loaded::Recovered(_))
            | (Source::Recovered { .. }, Loaded::Page(_)) => return None,
        };
        let found_bytes = entries.iter().map(|(_, entry)| entry.message.size_bytes());
        Some(Installed {
            expected_count,
            found_count: entries.len(),
            expected_bytes,
            found_bytes: found_bytes.sum(),
            entries,
        })
    }

    fn install_recovered(&mut self, after: Lsn, found: VecDeque<Entry>) -> Option<Installed> {
        let zone = self.recovered.as_mut().filter(|zone| zone.after == after)?;
        let found_count = found.len();
        let bytes = found.iter().map(|entry| entry.message.size_bytes());
        let found_bytes: u64 = bytes.sum();
        let last = found.back().map(|entry| entry.lsn);
        let number = |(at, entry)| (MessageSeq(zone.seq_next + at as u64), entry);
        let entries = found.into_iter().enumerate().map(number).collect();
        zone.seq_next += found_count as u64;
        // The bytes of a message are known for sure only when it is read.
        let (mut expected_count, mut expected_bytes) = (found_count, found_bytes.min(zone.bytes));
        match last {
            Some(last) if found_count < zone.count => {
                zone.after = last;
                zone.count -= found_count;
                zone.bytes -= expected_bytes;
                while zone.payloads.front().is_some_and(|(lsn, _)| *lsn <= last) {
                    zone.payloads.pop_front();
                }
            }
            // All was read, or there is less than was counted.
            Some(_) | None => {
                (expected_count, expected_bytes) = (zone.count, zone.bytes);
                self.recovered = None;
            }
        }
        Some(Installed {
            entries,
            expected_count,
            found_count,
            expected_bytes,
            found_bytes,
        })
    }

    fn forget(&mut self, page: &Page) {
        self.payloads.remove(&page.number);
        self.area.release(page.extent);
    }
}
