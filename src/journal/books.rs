//! The ledger together with what the disk knows: lists that were sealed are read back here.
//!
//! Owns: the ledger behind its lock, the open files, and a few directories and blocks of lists that were
//! read last. Any thread may ask; only who commits and recovery change the ledger.
//! Locks: the ledger's lock covers memory work only; lists are read with no lock held.
//! Bound: [`CACHE_BYTES_MAX`], one block for each reader; a list that cannot be read in its footer is made
//! again from the records and kept in memory.
//! Spec: `spec/journal.md`, "Footer: byte map", JOURNAL-27, JOURNAL-28.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::disk::ReadFrom;

use super::account::{FooterPlace, Lists, MovedList, SegmentAccount};
use super::error::JournalError;
use super::footer::{Frozen, ListRef, Summary, decode_directory, encode_list};
use super::ledger::{Ledger, Search};
use super::list::{
    BLOCK_COUNT, Block, List, ListEntry, ListForm, Piles, block_behind, block_count, decode_block,
};
use super::read::ReadFiles;
use super::record::MessageView;
use super::runs::RunSet;
use super::segment::{Scan, Scanned, io_error};
use super::types::{Location, Lsn, QueueId};

/// Directories and blocks kept in memory, in bytes.
const CACHE_BYTES_MAX: usize = 2 << 20;

/// Directories and blocks by segment, place of the list, and block; the directory has no block.
#[derive(Debug, Default)]
struct Cache {
    directories: HashMap<(u32, u32), Arc<Vec<Block>>>,
    blocks: HashMap<(u32, u32, usize), Arc<Vec<ListEntry>>>,
    bytes: usize,
}

impl Cache {
    /// Makes room: everything goes, as what is in use is soon read again.
    fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes > CACHE_BYTES_MAX {
            self.directories.clear();
            self.blocks.clear();
            self.bytes = bytes;
        }
    }
}

/// The ledger, and how to read what it refers to.
#[derive(Debug)]
pub(crate) struct Books {
    ledger: Mutex<Ledger>,
    pub(crate) files: ReadFiles,
    cache: Mutex<Cache>,
}

/// Which list of a segment is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Of {
    /// All messages that were copied into it.
    Moved,
    /// Those of a queue, without what is gone.
    Queue(QueueId, ListForm),
}

/// A part of a list.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// In order; none means that the list has no more.
    pub(crate) entries: Vec<ListEntry>,
    /// The ledger's count of moves when it was read.
    pub(crate) moves: u64,
}

/// A list as the ledger knows it.
enum Found {
    /// What is behind the asked number, as far as one look goes.
    Open(Vec<ListEntry>),
    Sealed {
        list: ListRef,
        footer: FooterPlace,
        base: Lsn,
        form: ListForm,
    },
}

/// A list in a segment's footer, and what its reading may wait for.
#[derive(Clone, Copy)]
struct InFooter<'a> {
    segment: u32,
    list: &'a ListRef,
    footer: &'a FooterPlace,
    from: ReadFrom,
}

impl Books {
    pub(crate) fn new(files: ReadFiles) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new()),
            files,
            cache: Mutex::new(Cache::default()),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// The next entries of a list behind `after`, up to a block of them; [`JournalError::WouldWait`] if `from` does not
    /// allow to wait for the disk that has them.
    ///
    /// An empty page says that there are no more, or that the segment is gone.
    // req: JOURNAL-46
    pub(crate) fn page(
        &self,
        segment: u32,
        of: Of,
        after: Lsn,
        from: ReadFrom,
    ) -> Result<Page, JournalError> {
        let mut after = after;
        loop {
            let found = find_list(&self.ledger(), segment, of, after);
            let entries = match found {
                None => Vec::new(),
                Some(Found::Open(entries)) => entries,
                Some(Found::Sealed {
                    list,
                    footer,
                    base,
                    form,
                }) => {
                    let place = InFooter {
                        segment,
                        list: &list,
                        footer: &footer,
                        from,
                    };
                    match self.read_behind(place, base, form, after)? {
                        Some(entries) => entries,
                        None if from == ReadFrom::Cache => return Err(JournalError::WouldWait),
                        None => match self.after_bad_list(segment, &footer)? {
                            true => continue,
                            false => Vec::new(),
                        },
                    }
                }
            };
            let last = entries.last().map(|entry| entry.lsn);
            let ledger = self.ledger();
            let mut page = Page {
                entries,
                moves: ledger.moves,
            };
            let Some(account) = ledger.segment(segment) else {
                return Ok(Page::default());
            };
            if let Of::Queue(queue, _) = of {
                page.entries
                    .retain(|entry| account.holds(queue, entry.number));
            }
            match last {
                // All of them are gone: those behind may not be.
                Some(last) if page.entries.is_empty() => after = last,
                _ => return Ok(page),
            }
        }
    }

    /// The entries behind `after` in the block that has the first of them; `None` if it is damaged.
    fn read_behind(
        &self,
        place: InFooter<'_>,
        base: Lsn,
        form: ListForm,
        after: Lsn,
    ) -> Result<Option<Vec<ListEntry>>, JournalError> {
        let Some(directory) = self.directory(place)? else {
            return Ok(None);
        };
        let mut index = block_behind(&directory, after);
        while index < directory.len() {
            let Some(block) = self.block(place, &directory, index, |bytes, first| {
                let count = block_count(place.list.count, index);
                decode_block(form, base, first, count, bytes)
            })?
            else {
                return Ok(None);
            };
            let from = block.partition_point(|entry| entry.lsn <= after);
            if let Some(rest) = block.get(from..).filter(|rest| !rest.is_empty()) {
                return Ok(Some(rest.to_vec()));
            }
            index += 1;
        }
        Ok(Some(Vec::new()))
    }

    fn directory(&self, place: InFooter<'_>) -> Result<Option<Arc<Vec<Block>>>, JournalError> {
        let list = place.list;
        let key = (place.segment, list.at);
        if let Some(directory) = self.cache.lock().directories.get(&key) {
            return Ok(Some(Arc::clone(directory)));
        }
        let Some(bytes) = self.footer_bytes(place, u64::from(list.at), list.directory_bytes())?
        else {
            return Ok(None);
        };
        let Some(directory) = decode_directory(list, &bytes) else {
            return Ok(None);
        };
        let directory = Arc::new(directory);
        let mut cache = self.cache.lock();
        cache.grow(directory.len() * size_of::<Block>());
        cache.directories.insert(key, Arc::clone(&directory));
        Ok(Some(directory))
    }

    fn block(
        &self,
        place: InFooter<'_>,
        directory: &[Block],
        index: usize,
        decode: impl FnOnce(&[u8], Lsn) -> Option<Vec<ListEntry>>,
    ) -> Result<Option<Arc<Vec<ListEntry>>>, JournalError> {
        let list = place.list;
        let key = (place.segment, list.at, index);
        if let Some(block) = self.cache.lock().blocks.get(&key) {
            return Ok(Some(Arc::clone(block)));
        }
        let Some(block) = directory.get(index) else {
            return Ok(None);
        };
        let end = directory
            .get(index + 1)
            .map_or(list.bytes, |next| next.start);
        let (Some(len), Some(at)) = (
            end.checked_sub(block.start),
            u64::from(list.at).checked_add(list.directory_bytes() as u64 + u64::from(block.start)),
        ) else {
            return Ok(None);
        };
        let Some(bytes) = self.footer_bytes(place, at, len as usize)? else {
            return Ok(None);
        };
        if crc32c::crc32c(&bytes) != block.checksum && !super::sabotage::ignores_checksums() {
            return Ok(None);
        }
        let Some(entries) = decode(&bytes, block.first) else {
            return Ok(None);
        };
        let entries = Arc::new(entries);
        let mut cache = self.cache.lock();
        cache.grow(BLOCK_COUNT * size_of::<ListEntry>());
        cache.blocks.insert(key, Arc::clone(&entries));
        Ok(Some(entries))
    }

    /// Bytes of a footer; `None` if it has fewer, or its segment is gone.
    fn footer_bytes(
        &self,
        place: InFooter<'_>,
        at: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, JournalError> {
        match place.footer {
            FooterPlace::None => Ok(None),
            FooterPlace::Memory(frozen) => {
                let bytes = usize::try_from(at).ok().and_then(|at| {
                    let bytes = frozen.body.get(at..at.checked_add(len)?)?;
                    Some(bytes.to_vec())
                });
                Ok(bytes)
            }
            FooterPlace::File { base } => {
                let open = match self.files.open_from(place.from, place.segment) {
                    Ok(open) => open,
                    Err(error) if error.is_not_found() => return Ok(None),
                    Err(error) => return Err(error),
                };
                // The list must lie in the file: its length is not believed before.
                let Some(at) = at.checked_add(u64::from(*base)) else {
                    return Ok(None);
                };
                let file_bytes = open
                    .file
                    .len_bytes()
                    .map_err(io_error("read", &open.path))?;
                if at
                    .checked_add(len as u64)
                    .is_none_or(|end| end > file_bytes)
                {
                    return Ok(None);
                }
                let mut bytes = vec![0; len];
                open.fill(place.from, &mut bytes, at)?;
                Ok(Some(bytes))
            }
        }
    }

    /// A list could not be read. Gives whether it is worth trying again.
    // req: JOURNAL-28
    fn after_bad_list(&self, segment: u32, bad: &FooterPlace) -> Result<bool, JournalError> {
        self.files.forget(segment);
        {
            let ledger = self.ledger();
            let Some(account) = ledger.segment(segment) else {
                return Ok(false);
            };
            match (bad, &account.footer) {
                (FooterPlace::None, FooterPlace::None)
                | (FooterPlace::File { .. }, FooterPlace::File { .. }) => {}
                // One in memory was made here, and is never bad.
                (FooterPlace::Memory(_), FooterPlace::Memory(_)) => return Ok(false),
                // It was written, or made again, in the meantime.
                (
                    FooterPlace::None | FooterPlace::File { .. } | FooterPlace::Memory(_),
                    FooterPlace::None | FooterPlace::File { .. } | FooterPlace::Memory(_),
                ) => return Ok(true),
            }
        }
        tracing::warn!(
            segment,
            "a segment's footer is damaged; its records are read instead"
        );
        self.rebuild(segment)?;
        Ok(true)
    }

    /// Makes a sealed segment's lists again from its records.
    pub(crate) fn rebuild(&self, segment: u32) -> Result<(), JournalError> {
        let open = self.files.open(segment)?;
        let (first, end, wanted) = {
            let ledger = self.ledger();
            let Some(account) = ledger.segment(segment) else {
                return Ok(());
            };
            let wanted: HashMap<QueueId, u32> = account
                .shares
                .iter()
                .map(|(queue, share)| (*queue, share.first_number))
                .collect();
            (account.first, account.end, wanted)
        };
        let mut natives: HashMap<QueueId, List> = HashMap::new();
        let mut copies: HashMap<QueueId, Piles> = HashMap::new();
        let mut moved = Piles::new(first);
        let mut next = first;
        let mut scan = Scan::new(&open);
        while next < end {
            let (offset, record) = match scan.next()? {
                Scanned::Record { offset, record, .. } => (offset, record),
                Scanned::Bad { offset } => {
                    return Err(open.damaged(offset, "a record is not whole"));
                }
            };
            if !record.head.kind.is_numbered() {
                continue;
            }
            next = record.head.lsn.next();
            let Some(view) = MessageView::decode(&record) else {
                continue;
            };
            let entry = ListEntry {
                lsn: view.lsn,
                number: u32::try_from(record.head.lsn.0.saturating_sub(first.0))
                    .unwrap_or(u32::MAX),
                offset,
                body_bytes: u32::try_from(view.inline_bytes().unwrap_or(0)).unwrap_or(u32::MAX),
            };
            let is_copy = view.lsn != record.head.lsn;
            if is_copy {
                moved.push(entry);
            }
            for queue in &view.queues {
                if wanted.get(queue).is_none_or(|first| entry.number < *first) {
                    continue;
                }
                if is_copy {
                    let piles = copies.entry(*queue).or_insert_with(|| Piles::new(first));
                    piles.push(entry);
                } else {
                    let list = natives
                        .entry(*queue)
                        .or_insert_with(|| List::new(ListForm::Native, first));
                    if entry.lsn > list.last() {
                        list.push(entry);
                    }
                }
            }
        }
        let mut body = Vec::new();
        let mut refs = HashMap::new();
        for queue in wanted.keys() {
            let native = natives.remove(queue);
            let native = native.and_then(|list| encode_list(&mut body, &list));
            let piles = copies.remove(queue);
            let piles = piles.and_then(|piles| encode_list(&mut body, &piles.merged()));
            refs.insert(*queue, (native, piles));
        }
        let all_moved = encode_list(&mut body, &moved.merged());
        let Some(frozen) = Frozen::new(body, &Summary::default()) else {
            return Err(open.damaged(0, "its messages' lists are over 4 GiB"));
        };
        let mut ledger = self.ledger();
        if let Some(account) = ledger.segment_mut(segment) {
            account.footer = FooterPlace::Memory(Arc::new(frozen));
            account.moved = MovedList::Sealed(all_moved);
            for (queue, share) in &mut account.shares {
                if let Some((native, moved)) = refs.remove(queue) {
                    share.lists = Lists::Sealed {
                        native,
                        moved: moved.map(Box::new),
                    };
                }
            }
        }
        ledger.shed_footers(segment);
        drop(ledger);
        self.forget(segment);
        Ok(())
    }

    /// Forgets what was read of a segment: its files and lists are about to change.
    pub(crate) fn forget(&self, segment: u32) {
        self.files.forget(segment);
        let mut cache = self.cache.lock();
        cache
            .directories
            .retain(|(number, _), _| *number != segment);
        cache.blocks.retain(|(number, _, _), _| *number != segment);
    }

    // ---- searches ----

    /// Makes the searches that counting left.
    ///
    /// A list that cannot be read is an error; the messages that were looked for stay.
    pub(crate) fn search(&self) -> Result<(), JournalError> {
        let mut result = Ok(());
        loop {
            let Some(search) = self.ledger().searches.pop_front() else {
                return result;
            };
            let searched = self.search_one(&search);
            result = result.and(searched);
        }
    }

    fn search_one(&self, search: &Search) -> Result<(), JournalError> {
        for number in self.take_whole_shares(search) {
            let forms = [
                Some(ListForm::Moved),
                search.with_native.then_some(ListForm::Native),
            ];
            for form in forms.into_iter().flatten() {
                let mut after = Lsn(search.first.0.saturating_sub(1));
                loop {
                    let page =
                        self.page(number, Of::Queue(search.queue, form), after, ReadFrom::Disk)?;
                    let Some(last) = page.entries.last() else {
                        break;
                    };
                    after = last.lsn;
                    let mut ledger = self.ledger();
                    let inside = page.entries.iter().filter(|entry| entry.lsn < search.end);
                    for entry in inside {
                        let Some(account) = ledger.segment(number) else {
                            break;
                        };
                        let record = Lsn(account.first.0 + u64::from(entry.number));
                        ledger.take_place(search.queue, number, record, search.here);
                    }
                    if after.next() >= search.end {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what the search covers as a whole; gives the segments of which a part may be meant.
    fn take_whole_shares(&self, search: &Search) -> Vec<u32> {
        let mut ledger = self.ledger();
        let mut parts = Vec::new();
        let mut whole = Vec::new();
        for (number, account) in ledger.segments() {
            let Some(share) = account.shares.get(&search.queue) else {
                continue;
            };
            if number >= search.below || share.live == 0 {
                continue;
            }
            let native = share.ends(ListForm::Native);
            let moved = share.ends(ListForm::Moved);
            let meets = |ends: Option<(Lsn, Lsn)>| {
                ends.is_some_and(|(first, last)| search.first <= last && first < search.end)
            };
            let lies_in = |ends: Option<(Lsn, Lsn)>| {
                ends.is_none_or(|(first, last)| search.first <= first && last < search.end)
            };
            if search.with_native && lies_in(native) && lies_in(moved) {
                whole.push(number);
            } else if meets(moved) || (search.with_native && meets(native)) {
                parts.push(number);
            }
        }
        for number in whole {
            ledger.take_all(search.queue, number, search.here);
        }
        parts
    }

    /// Where a copy of the message lies, of those whose record is below `durable` the latest.
    pub(crate) fn find_copy(
        &self,
        lsn: Lsn,
        durable: Lsn,
    ) -> Result<Option<Location>, JournalError> {
        let homes = self.ledger().moved_homes_of(lsn);
        for segment in homes {
            let page = self.page(
                segment,
                Of::Moved,
                Lsn(lsn.0.saturating_sub(1)),
                ReadFrom::Disk,
            )?;
            let Some(entry) = page.entries.first().filter(|entry| entry.lsn == lsn) else {
                continue;
            };
            let ledger = self.ledger();
            let Some(account) = ledger.segment(segment) else {
                continue;
            };
            let record = Lsn(account.first.0 + u64::from(entry.number));
            if record <= durable {
                return Ok(Some(Location {
                    segment,
                    offset: entry.offset,
                }));
            }
            if let Some(origin) = ledger.origin_of(record) {
                return Ok(Some(origin));
            }
        }
        Ok(None)
    }

    /// Whether `queue` holds the message.
    fn is_live(&self, queue: QueueId, lsn: Lsn) -> Result<bool, JournalError> {
        let homes = {
            let ledger = self.ledger();
            if let Some(home) = ledger.native_home_of(lsn) {
                let is_moved_from = ledger
                    .segment(home)
                    .is_some_and(|account| account.is_moved_from);
                let holds = ledger.holds(home, queue, lsn);
                if holds || !is_moved_from {
                    return Ok(holds);
                }
            }
            ledger.moved_homes_of(lsn)
        };
        for segment in homes {
            let of = Of::Queue(queue, ListForm::Moved);
            let page = self.page(segment, of, Lsn(lsn.0.saturating_sub(1)), ReadFrom::Disk)?;
            if page.entries.first().is_some_and(|entry| entry.lsn == lsn) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is noted in a segment of messages that are still there.
    // req: JOURNAL-31
    pub(crate) fn live_notes(
        &self,
        segment: u32,
    ) -> Result<Vec<(QueueId, u32, RunSet)>, JournalError> {
        let end;
        let notes: Vec<(QueueId, u32, RunSet)> = {
            let ledger = self.ledger();
            end = ledger.end().0;
            let account = ledger.segment(segment);
            let notes = account.into_iter().flat_map(|account| &account.notes);
            let each = notes.flat_map(|(queue, notes)| {
                notes
                    .iter()
                    .map(|(note, runs)| (*queue, *note, runs.clone()))
            });
            each.collect()
        };
        let mut live = Vec::new();
        for (queue, note, runs) in notes {
            let mut kept = RunSet::default();
            for (Lsn(first), len) in runs.iter() {
                for lsn in first..first.saturating_add(len).min(end) {
                    if self.is_live(queue, Lsn(lsn))? {
                        kept.insert(Lsn(lsn));
                    }
                }
            }
            if !kept.is_empty() {
                live.push((queue, note, kept));
            }
        }
        Ok(live)
    }
}

/// Looks a list up; of one in memory gives the next entries at once.
fn find_list(ledger: &Ledger, segment: u32, of: Of, after: Lsn) -> Option<Found> {
    let account = ledger.segment(segment)?;
    match of {
        Of::Moved => match &account.moved {
            MovedList::Open(piles) => Some(Found::Open(behind_in(piles.lists(), after))),
            MovedList::Sealed(list) => Some(sealed(account, list.as_ref()?, ListForm::Moved)),
        },
        Of::Queue(queue, form) => {
            let share = account.shares.get(&queue)?;
            match (&share.lists, form) {
                (Lists::Open(lists), ListForm::Native) => Some(Found::Open(behind_in(
                    std::slice::from_ref(&lists.native),
                    after,
                ))),
                (Lists::Open(lists), ListForm::Moved) => {
                    Some(Found::Open(behind_in(lists.moved.lists(), after)))
                }
                (Lists::Sealed { native, .. }, ListForm::Native) => {
                    Some(sealed(account, native.as_ref()?, form))
                }
                (Lists::Sealed { moved, .. }, ListForm::Moved) => {
                    Some(sealed(account, moved.as_ref()?, form))
                }
            }
        }
    }
}

fn sealed(account: &SegmentAccount, list: &ListRef, form: ListForm) -> Found {
    Found::Sealed {
        list: *list,
        footer: account.footer.clone(),
        base: account.first,
        form,
    }
}

/// The next entries behind `after` of several lists in memory, in order, up to a block of each; what
/// might come before one that was not looked at is left out.
fn behind_in(lists: &[List], after: Lsn) -> Vec<ListEntry> {
    let mut entries = Vec::new();
    let mut limit = Lsn(u64::MAX);
    for list in lists {
        let mut index = block_behind(list.blocks(), after);
        while let Some(block) = list.block(index) {
            index += 1;
            let from = block.partition_point(|entry| entry.lsn <= after);
            if let Some(rest) = block.get(from..).filter(|rest| !rest.is_empty()) {
                if let (Some(last), true) = (rest.last(), index < list.blocks().len()) {
                    limit = limit.min(last.lsn);
                }
                entries.extend_from_slice(rest);
                break;
            }
        }
    }
    if lists.len() > 1 {
        entries.retain(|entry| entry.lsn <= limit);
        entries.sort_unstable_by_key(|entry| entry.lsn);
    }
    entries
}
