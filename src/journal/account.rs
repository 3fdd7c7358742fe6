//! The account of one segment: what each queue still holds in it, and what it is needed for.
//!
//! Owns: the counts, and while the segment is written the lists of its messages, which then go into its
//! footer. Knows nothing of files or of other segments.
//! Bound: about 100 bytes for each queue with messages in the segment, and what is gone of them
//! (`PlaceSet`); of a segment that is being written also its lists, a few bytes per message.
//! Spec: `spec/journal.md`, "Deleting and compaction", "Footer: byte map".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::definitions::Changes;
use super::footer::{Frozen, HeldPayload, ListRef, QueueSummary, Summary, encode_list};
use super::list::{List, ListEntry, ListForm, Piles};
use super::places::PlaceSet;
use super::runs::RunSet;
use super::types::{Lsn, QueueId};

/// The lists of a queue in a segment that is being written.
#[derive(Debug)]
pub(crate) struct OpenLists {
    pub(crate) native: List,
    pub(crate) moved: Piles,
}

/// Open ──segment is full──> Sealed.
#[derive(Debug)]
pub(crate) enum Lists {
    /// In memory, and growing.
    Open(Box<OpenLists>),
    /// In the footer.
    Sealed {
        native: Option<ListRef>,
        moved: Option<Box<ListRef>>,
    },
}

/// What a queue has in a segment.
#[derive(Debug)]
pub(crate) struct Share {
    /// Messages that it still holds.
    pub(crate) live: u32,
    /// The lowest record number in the lists, counted from the segment's first; records below it that
    /// name the queue are gone.
    pub(crate) first_number: u32,
    /// Inline bodies of all messages in the lists, gone or not, in bytes.
    pub(crate) body_bytes: u64,
    /// Record numbers of those that left.
    pub(crate) gone: PlaceSet,
    pub(crate) lists: Lists,
}

impl Share {
    /// Whether it holds the record `number`, which names its queue.
    pub(crate) fn holds(&self, number: u32) -> bool {
        self.live > 0 && number >= self.first_number && !self.gone.contains(number)
    }

    /// The first and the last message in a list, gone or not; `None` if it is empty.
    pub(crate) fn ends(&self, form: ListForm) -> Option<(Lsn, Lsn)> {
        let (first, last) = match (&self.lists, form) {
            (Lists::Open(lists), ListForm::Native) => (lists.native.first(), lists.native.last()),
            (Lists::Open(lists), ListForm::Moved) => {
                let piles = lists.moved.lists();
                let first = piles.iter().map(List::first).min()?;
                (first, piles.iter().map(List::last).max()?)
            }
            (Lists::Sealed { native, .. }, ListForm::Native) => {
                let list = native.as_ref()?;
                (list.first, list.last)
            }
            (Lists::Sealed { moved, .. }, ListForm::Moved) => {
                let list = moved.as_ref()?;
                (list.first, list.last)
            }
        };
        (last > Lsn::ZERO).then_some((first, last))
    }

    /// Forgets everything, as all of it is gone; only while the lists are in memory.
    fn reset(&mut self) {
        if let Lists::Open(lists) = &mut self.lists {
            lists.native.clear();
            lists.moved.clear();
        }
        self.live = 0;
        self.body_bytes = 0;
        self.first_number = u32::MAX;
        self.gone = PlaceSet::default();
    }
}

/// What a segment that is being written says about others and about definitions.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// What acks in it took from earlier segments.
    pub(crate) acks: BTreeMap<u32, HashMap<QueueId, PlaceSet>>,
    pub(crate) moved_from: BTreeSet<u32>,
    pub(crate) deletes: BTreeSet<QueueId>,
    pub(crate) released: Vec<u32>,
    pub(crate) delivered: HashMap<QueueId, RunSet>,
    pub(crate) payloads: Vec<HeldPayload>,
    pub(crate) definitions: Changes,
    pub(crate) last_kind: u8,
    pub(crate) has_batch_end: bool,
    pub(crate) batch_open: Lsn,
    pub(crate) queue_max: QueueId,
}

/// Where a segment's footer is.
///
/// None ──segment is full──> Memory ──written──> File; without room for it in the file it stays in memory, and
/// too much of that leads back to None: whoever needs its lists makes them again from the records.
#[derive(Clone, Debug)]
pub(crate) enum FooterPlace {
    /// Nowhere: the segment is being written, or its footer had no room on the disk and none in memory.
    None,
    /// In the file, from this byte on.
    File { base: u32 },
    /// Made and not written, or there was no room to write it.
    Memory(Arc<Frozen>),
}

/// The list of all messages that were copied into a segment.
#[derive(Debug)]
pub(crate) enum MovedList {
    Open(Piles),
    Sealed(Option<ListRef>),
}

/// What one segment is needed for.
#[derive(Debug)]
pub(crate) struct SegmentAccount {
    pub(crate) first: Lsn,
    /// The number behind the last record in it.
    pub(crate) end: Lsn,
    /// Length of its file, in bytes.
    pub(crate) file_bytes: u64,
    pub(crate) shares: HashMap<QueueId, Share>,
    /// Queues whose last message here left after the segment was sealed.
    pub(crate) emptied: BTreeSet<QueueId>,
    /// Deleted queues that had messages here.
    pub(crate) deleted: BTreeSet<QueueId>,
    /// Earlier segments on which acks and queue deletes in this one work.
    pub(crate) acks_on: BTreeSet<u32>,
    pub(crate) has_definitions: bool,
    /// Numbers noted of messages, by queue and number.
    pub(crate) notes: HashMap<QueueId, BTreeMap<u32, RunSet>>,
    /// Whether messages were copied from here to later segments.
    pub(crate) is_moved_from: bool,
    pub(crate) moved: MovedList,
    pub(crate) footer: FooterPlace,
    /// `None` once sealed.
    pub(crate) contents: Option<Box<Contents>>,
    /// Message references ever, and still there; bytes of message records ever.
    pub(crate) references: u64,
    pub(crate) references_live: u64,
    pub(crate) message_bytes: u64,
}

impl SegmentAccount {
    /// A segment that is being written and whose first record will be `first`.
    pub(crate) fn new(first: Lsn, file_bytes: u64) -> Self {
        Self {
            first,
            end: first,
            file_bytes,
            shares: HashMap::new(),
            emptied: BTreeSet::new(),
            deleted: BTreeSet::new(),
            acks_on: BTreeSet::new(),
            has_definitions: false,
            notes: HashMap::new(),
            is_moved_from: false,
            moved: MovedList::Open(Piles::new(first)),
            footer: FooterPlace::None,
            contents: Some(Box::default()),
            references: 0,
            references_live: 0,
            message_bytes: 0,
        }
    }

    /// A sealed segment, from its footer; what its acks work on and its notes are the ledger's business.
    pub(crate) fn from_summary(summary: &Summary, file_bytes: u64, footer: FooterPlace) -> Self {
        let mut account = Self {
            end: summary.end,
            moved: MovedList::Sealed(summary.moved),
            footer,
            contents: None,
            references: summary.references,
            message_bytes: summary.message_bytes,
            has_definitions: !summary.definitions.is_empty(),
            ..Self::new(summary.first, file_bytes)
        };
        let span = account.span();
        for queue in &summary.queues {
            let count = |list: Option<&ListRef>| list.map_or(0, |list| list.count);
            let held = count(queue.native.as_ref()).saturating_add(count(queue.moved.as_ref()));
            let live = held.saturating_sub(queue.gone.count(span));
            if live == 0 {
                continue;
            }
            account.references_live += u64::from(live);
            account.shares.insert(
                queue.queue,
                Share {
                    live,
                    first_number: queue.first_number,
                    body_bytes: queue.body_bytes,
                    gone: queue.gone.clone(),
                    lists: Lists::Sealed {
                        native: queue.native,
                        moved: queue.moved.map(Box::new),
                    },
                },
            );
        }
        account
    }

    /// How many records it has.
    pub(crate) fn span(&self) -> u32 {
        u32::try_from(self.end.0.saturating_sub(self.first.0)).unwrap_or(u32::MAX)
    }

    /// A record's number counted from the segment's first.
    pub(crate) fn number(&self, lsn: Lsn) -> u32 {
        u32::try_from(lsn.0.saturating_sub(self.first.0)).unwrap_or(u32::MAX)
    }

    /// An estimate of the bytes of messages that some queue still holds.
    pub(crate) fn live_bytes(&self) -> u64 {
        if self.references == 0 {
            return 0;
        }
        let product = u128::from(self.message_bytes) * u128::from(self.references_live);
        u64::try_from(product / u128::from(self.references)).unwrap_or(u64::MAX)
    }

    /// What its lists take in memory while it is written, in bytes.
    pub(crate) fn list_bytes(&self) -> usize {
        if self.contents.is_none() {
            return 0;
        }
        let shares = self.shares.values().map(|share| match &share.lists {
            Lists::Open(lists) => lists.native.held_bytes() + lists.moved.held_bytes(),
            Lists::Sealed { .. } => 0,
        });
        let moved = match &self.moved {
            MovedList::Open(piles) => piles.held_bytes(),
            MovedList::Sealed(_) => 0,
        };
        shares.sum::<usize>() + moved
    }

    /// What its footer takes in memory until it is written, in bytes.
    pub(crate) fn footer_bytes(&self) -> usize {
        match &self.footer {
            FooterPlace::Memory(frozen) => frozen.body.len(),
            FooterPlace::None | FooterPlace::File { .. } => 0,
        }
    }

    /// Whether no queue holds a message here.
    pub(crate) fn is_dead(&self) -> bool {
        self.references_live == 0
    }

    /// Whether `queue` holds the record `number`, which names it.
    pub(crate) fn holds(&self, queue: QueueId, number: u32) -> bool {
        self.shares
            .get(&queue)
            .is_some_and(|share| share.holds(number))
    }

    /// A message was written for `queue`.
    pub(crate) fn add(&mut self, queue: QueueId, form: ListForm, entry: ListEntry) {
        // Queue numbers are not used again, so this queue's messages are gone already.
        if self.deleted.contains(&queue) {
            return;
        }
        let first = self.first;
        let share = self.shares.entry(queue).or_insert_with(|| Share {
            live: 0,
            first_number: u32::MAX,
            body_bytes: 0,
            gone: PlaceSet::default(),
            lists: Lists::Open(Box::new(OpenLists {
                native: List::new(ListForm::Native, first),
                moved: Piles::new(first),
            })),
        });
        let Lists::Open(lists) = &mut share.lists else {
            debug_assert!(false, "nothing is written into a sealed segment");
            return;
        };
        match form {
            // A queue that a damaged record names twice.
            ListForm::Native if entry.lsn <= lists.native.last() => return,
            ListForm::Native => lists.native.push(entry),
            ListForm::Moved => lists.moved.push(entry),
        }
        share.live += 1;
        share.first_number = share.first_number.min(entry.number);
        share.body_bytes += u64::from(entry.body_bytes);
        self.references += 1;
        self.references_live += 1;
    }

    /// Records from `start` to before `end` left `queue`. Gives whether any of them was there, and
    /// whether the queue has nothing left here.
    pub(crate) fn take(&mut self, queue: QueueId, start: u32, end: u32) -> (bool, bool) {
        let span = self.span();
        let Some(share) = self.shares.get_mut(&queue) else {
            return (false, true);
        };
        let start = start.max(share.first_number);
        let end = end.min(span);
        let taken = share.gone.insert_run(start, end).min(share.live);
        share.live -= taken;
        self.references_live = self.references_live.saturating_sub(u64::from(taken));
        let is_empty = share.live == 0;
        if is_empty {
            self.empty(queue);
        }
        (taken > 0, is_empty)
    }

    /// All of a queue's messages left.
    pub(crate) fn take_all(&mut self, queue: QueueId) -> bool {
        let Some(share) = self.shares.get_mut(&queue) else {
            return false;
        };
        let taken = std::mem::take(&mut share.live);
        self.references_live = self.references_live.saturating_sub(u64::from(taken));
        self.empty(queue);
        taken > 0
    }

    fn empty(&mut self, queue: QueueId) {
        if self.contents.is_some() {
            // Kept, as more may come.
            if let Some(share) = self.shares.get_mut(&queue) {
                share.reset();
            }
        } else {
            self.shares.remove(&queue);
            self.emptied.insert(queue);
        }
    }

    /// Ends the writing: what is in memory becomes a footer.
    // req: JOURNAL-26
    pub(crate) fn freeze(&mut self) {
        let Some(contents) = self.contents.take() else {
            return;
        };
        self.shares.retain(|_, share| share.live > 0);
        let mut body = Vec::new();
        let mut queues = Vec::with_capacity(self.shares.len());
        let mut held: Vec<_> = self.shares.iter_mut().collect();
        held.sort_unstable_by_key(|(queue, _)| **queue);
        for (queue, share) in held {
            let sealed = Lists::Sealed {
                native: None,
                moved: None,
            };
            let Lists::Open(lists) = std::mem::replace(&mut share.lists, sealed) else {
                continue;
            };
            let native = encode_list(&mut body, &lists.native);
            let moved = encode_list(&mut body, &lists.moved.merged());
            share.lists = Lists::Sealed {
                native,
                moved: moved.map(Box::new),
            };
            queues.push(QueueSummary {
                queue: *queue,
                body_bytes: share.body_bytes,
                first_number: share.first_number,
                gone: share.gone.clone(),
                native,
                moved,
            });
        }
        let no_list = MovedList::Sealed(None);
        let moved = match std::mem::replace(&mut self.moved, no_list) {
            MovedList::Open(piles) if piles.count() > 0 => encode_list(&mut body, &piles.merged()),
            MovedList::Open(_) | MovedList::Sealed(_) => None,
        };
        self.moved = MovedList::Sealed(moved);
        let contents = *contents;
        let payloads = contents
            .payloads
            .into_iter()
            .filter(|held| self.shares.contains_key(&held.queue))
            .collect();
        let acks = contents.acks.into_iter().flat_map(|(target, queues)| {
            queues
                .into_iter()
                .map(move |(queue, places)| (target, queue, places))
        });
        let notes = self.notes.iter().flat_map(|(queue, notes)| {
            notes
                .iter()
                .map(move |(note, runs)| (*queue, *note, runs.clone()))
        });
        let summary = Summary {
            first: self.first,
            end: self.end,
            last_kind: contents.last_kind,
            has_batch_end: contents.has_batch_end,
            batch_open: contents.batch_open,
            queue_max: contents.queue_max,
            references: self.references,
            message_bytes: self.message_bytes,
            queues,
            moved,
            moved_from: contents.moved_from.into_iter().collect(),
            acks: acks.collect(),
            deletes: contents.deletes.into_iter().collect(),
            released: contents.released,
            delivered: contents.delivered.into_iter().collect(),
            notes: notes.collect(),
            payloads,
            definitions: contents.definitions,
        };
        let frozen = Frozen::new(body, &summary);
        debug_assert!(frozen.is_some(), "a footer is shorter than its segment");
        self.footer = frozen.map_or(FooterPlace::None, |frozen| {
            FooterPlace::Memory(Arc::new(frozen))
        });
    }
}
