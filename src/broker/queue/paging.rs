//! A long queue's pages: written by who fills them, read by the pager or by who cannot wait.
//!
//! Owns: what happens between a queue's state, its spill files and the journal. No file is touched
//! while the queue's lock is held: a batch stays a part of the queue while it is written, and what was
//! read is taken in only if it is still what stands first.
//!
//! A page is written by the publisher that filled it, after its publish: 256 KiB to the page cache take
//! about 0.1 microseconds a message, which is less than waking another thread would cost beside it, and
//! a disk that is behind slows down exactly who fills it, without a list of its own to bound. A page is
//! read before it is needed, by who makes room for it if it is in the system's cache, since nobody need
//! be woken for it then; otherwise by the pager's thread: consumers must not wait for it one by one.
//! Spec: `spec/spill.md`.

use std::collections::{HashSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::MutexGuard;

use crate::disk::ReadFrom;
use crate::journal::{
    Appended, BacklogRef, JournalError, Location, Lsn, PayloadRecord, RecoveredQueue, StoredRef,
};
use crate::payload::{PayloadId, ScopeId};

use super::super::dead_letter::Dead;
use super::super::message::Message;
use super::super::outbox::Wakes;
use super::super::pager::Pager;
use super::super::payloads::{PayloadBody, PayloadReferences};
use super::super::spill::page::{self, Content};
use super::super::spill::{Area, Spill};
use super::expiry::KeptDeadlines;
use super::priorities::Priorities;
use super::ready::{Batch, Load, Loaded, Outline, Outlined, Page, RecoveredZone, Source};
use super::{After, Entry, MessageSeq, Queue, State};

/// Messages that are read from a backlog in one go.
const RECOVERED_COUNT_MAX: usize = 4_096;
/// The same in bytes of their bodies, where no list says how much it has room for.
const RECOVERED_BYTES_MAX: usize = 1 << 20;

/// What long queues of a broker share.
#[derive(Debug, Default)]
pub(crate) struct Paging {
    /// Without it all of every queue stays in memory.
    pub(crate) spill: Option<Arc<Spill>>,
    pub(crate) pager: Arc<Pager>,
    pub(crate) payloads: Option<Arc<dyn PayloadReferences>>,
}

/// What came of reading a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LoadOutcome {
    /// A page was read; there may be more to read.
    Loaded,
    /// There was nothing to read.
    Nothing,
    /// It could not be read now.
    Failed,
}

/// A queue's state, locked. When it is let go, what is too much in memory is written, and the pager is
/// told what is wanted.
pub(super) struct Locked<'a> {
    queue: &'a Queue,
    /// There until the end.
    guard: Option<MutexGuard<'a, State>>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.guard
            .as_ref()
            .expect("it is locked until it is dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.guard
            .as_mut()
            .expect("it is locked until it is dropped")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(mut state) = self.guard.take() {
            let batch = self.queue.chores(&mut state);
            drop(state);
            if let Some(batch) = batch {
                self.queue.write_out(batch);
            }
        }
    }
}

impl Queue {
    /// Locks the state for a change.
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked {
            queue: self,
            guard: Some(self.state.lock()),
        }
    }

    /// What a change leaves to be done: asks for a page, gives what is to be written.
    fn chores(&self, state: &mut State) -> Option<Arc<Batch>> {
        if state.ready.ask_load() {
            self.spec.paging.pager.ask(self.me.clone());
        }
        state.ready.next_batch()
    }

    // req: SPILL-4
    fn write_out(&self, mut batch: Arc<Batch>) {
        loop {
            let line = &batch.line;
            let page = page::encode(line.iter(), line.memory_bytes());
            let written = batch.area.write(&page);
            let mut state = self.state.lock();
            state.ready.written(&batch, written);
            let next = self.chores(&mut state);
            drop(state);
            match next {
                Some(next) => batch = next,
                None => break,
            }
        }
        self.sweep();
    }

    /// Removes spill files of no use any more; no lock may be held.
    pub(super) fn sweep(&self) {
        if let Some(spill) = &self.spec.paging.spill {
            spill.sweep();
        }
    }

    /// Reads the next page, if one is wanted, and hands over what can go. Blocks on the disk if it is read from there;
    /// what is not in the cache is left to the pager.
    ///
    /// Goes on as long as more waits than the queue may hold: what is too much is dropped before anything
    /// is handed over.
    pub(crate) fn load(
        self: &Arc<Self>,
        from: ReadFrom,
        now: Instant,
        wakes: &mut Wakes,
    ) -> LoadOutcome {
        let mut has_excess = true;
        let mut outcome = LoadOutcome::Loaded;
        while has_excess && outcome == LoadOutcome::Loaded {
            let mut dead = Vec::new();
            (outcome, has_excess) = self.load_page(from, now, &mut dead, wakes);
            self.bury(dead, now, wakes);
        }
        outcome
    }

    /// Reads one page; says also whether there is still too much, so that nothing was handed over. What
    /// dies of it is added to `dead`.
    fn load_page(
        self: &Arc<Self>,
        from: ReadFrom,
        now: Instant,
        dead: &mut Vec<Dead>,
        wakes: &mut Wakes,
    ) -> (LoadOutcome, bool) {
        // Not a lock for a change: nothing is to be asked for again while this is read.
        let next = self.state.lock().ready.next_load();
        let Some(load) = next else {
            // It may have been in memory still, and stands at the front now.
            self.draw(now, wakes);
            return (LoadOutcome::Nothing, false);
        };
        let loaded = match self.read(from, &load) {
            Ok(loaded) => loaded,
            // req: SPILL-12
            Err(_) if from == ReadFrom::Cache => {
                // Still wanted, so the pager is asked; it sees what is wrong, too, if anything is.
                drop(self.lock());
                return (LoadOutcome::Failed, false);
            }
            Err(error) => {
                tracing::error!(
                    queue = %self.spec.name, %error,
                    "waiting messages cannot be read; they are tried again"
                );
                self.lock().ready.set_stalled(&load);
                // req: SPILL-11
                // Whoever read: a `basic.get` that failed must not leave the queue's consumers waiting for ever.
                self.spec.paging.pager.set_stalled(self.me.clone(), now);
                return (LoadOutcome::Failed, false);
            }
        };
        let mut after = After::default();
        {
            let mut state = self.lock();
            if let Some(lost_count) = state.ready.install(&load, loaded) {
                state.counts.lost += lost_count as u64;
                if lost_count > 0 {
                    // Better one twice than one that is refused though its first is gone.
                    self.forget_waiting(&state);
                }
                self.drop_excess(&mut state, &mut after);
                if !after.has_excess {
                    self.dispatch(&mut state, &mut after, now, wakes);
                }
            }
        }
        let has_excess = after.has_excess;
        dead.append(&mut self.finish_but_dead(after));
        self.sweep();
        (LoadOutcome::Loaded, has_excess)
    }

    /// Locks the state once the first message is in memory: read from disk if it lies there, and left
    /// there if it cannot be read. Blocks on the disk.
    pub(super) fn lock_with_front(self: &Arc<Self>, now: Instant, wakes: &mut Wakes) -> Locked<'_> {
        loop {
            let state = self.lock();
            if !state.ready.is_front_on_disk() {
                return state;
            }
            drop(state);
            if self.load(ReadFrom::Disk, now, wakes) == LoadOutcome::Failed {
                return self.lock();
            }
        }
    }

    /// Drops what is too much and lies on disk; blocks on it. What dies of it is added to `dead`, since
    /// the order of queues may be held, which its letters may go to.
    pub(super) fn drop_from_disk(
        self: &Arc<Self>,
        now: Instant,
        dead: &mut Vec<Dead>,
        wakes: &mut Wakes,
    ) {
        let (mut outcome, mut has_excess) = (LoadOutcome::Loaded, true);
        while has_excess && outcome == LoadOutcome::Loaded {
            (outcome, has_excess) = self.load_page(ReadFrom::Disk, now, dead, wakes);
        }
    }

    /// Lets a page that could not be read be tried again.
    pub(crate) fn retry_load(&self) {
        self.lock().ready.retry_stalled();
    }

    pub(super) fn read(&self, from: ReadFrom, load: &Load) -> Result<Loaded, Unreadable> {
        match &load.source {
            Source::Returned(page) | Source::Page(page) => {
                self.read_spilled(from, load, page).map(Loaded::Page)
            }
            Source::Recovered {
                after,
                last,
                memory_bytes_max,
            } => self.read_recovered(from, *after, *last, *memory_bytes_max),
        }
    }

    fn read_spilled(
        &self,
        from: ReadFrom,
        load: &Load,
        page: &Page,
    ) -> Result<VecDeque<(MessageSeq, Entry)>, Unreadable> {
        // What the page cache gives wrong once, it may give right again.
        let octets = match (load.area.read(from, page.extent), from) {
            (Err(_), ReadFrom::Disk) => load.area.read(from, page.extent),
            (read, ReadFrom::Disk | ReadFrom::Cache) => read,
        };
        let octets = octets.map_err(Unreadable::Page);
        let decoded = octets.as_ref().map(|octets| page::decode(octets));
        let decoded = match decoded {
            Ok(Some(decoded)) => decoded,
            Ok(None) | Err(_) if from == ReadFrom::Cache => return Err(Unreadable::Damaged),
            Ok(None) => return self.rebuild(load, page, &Unreadable::Damaged),
            Err(_) => {
                let why = octets.err().unwrap_or(Unreadable::Damaged);
                return self.rebuild(load, page, &why);
            }
        };
        let places = decoded.iter().filter_map(|found| match found.content {
            Content::Journal { lsn, location } => Some((lsn, location)),
            Content::Whole(_) => None,
        });
        let places: Vec<_> = places.collect();
        let mut referenced = self.read_references(from, &places)?.into_iter();
        let mut payloads = load.payloads.iter();
        let mut entries = VecDeque::with_capacity(decoded.len());
        for found in decoded {
            let payload = match found.has_payload {
                true => payloads.next().cloned(),
                false => None,
            };
            let (message, lsn, location) = match found.content {
                Content::Whole(image) => {
                    let none = Appended::NONE;
                    (Message::from_image(image, payload), none.lsn, none.location)
                }
                Content::Journal { lsn, location } => (referenced.next().flatten(), lsn, location),
            };
            if let Some(message) = message {
                let entry = Entry {
                    message,
                    lsn,
                    location,
                    redelivered: found.redelivered,
                    return_count: found.return_count,
                    deadline: found.deadline,
                };
                entries.push_back((found.seq, entry));
            }
        }
        Ok(entries)
    }

    /// Reads messages from the journal, in order; one that is damaged there is none.
    fn read_references(
        &self,
        from: ReadFrom,
        places: &[(Lsn, Location)],
    ) -> Result<Vec<Option<Message>>, Unreadable> {
        let mut messages = Vec::with_capacity(places.len());
        let Some(journal) = self.spec.journal.as_ref().filter(|_| !places.is_empty()) else {
            return Ok(messages);
        };
        let mut failure = None;
        journal.read_messages(places, from, |_, found| match found {
            Ok(stored) => messages.push(Some(self.message_of(&stored))),
            Err(error @ (JournalError::Damaged { .. } | JournalError::NotFound { .. })) => {
                tracing::error!(
                    queue = %self.spec.name, %error,
                    "a waiting message is passed over: the journal has it no more"
                );
                messages.push(None);
            }
            Err(error) => failure = Some(error),
        })?;
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(messages),
        }
    }

    /// What is left of a page that cannot be read: its messages in the journal, in the order of their
    /// numbers there. Its transient ones are lost.
    ///
    /// They are what the queue still has between the page's first and last number and does not hold
    /// elsewhere. Those of other pages in between come twice, which their redelivered flag announces.
    // req: SPILL-5
    fn rebuild(
        &self,
        load: &Load,
        page: &Page,
        why: &Unreadable,
    ) -> Result<VecDeque<(MessageSeq, Entry)>, Unreadable> {
        let mut entries = VecDeque::<Entry>::new();
        let deadlines = self.kept_deadlines();
        let (first, last) = page.lsns;
        let mut after = Lsn(first.0.saturating_sub(1));
        if let Some(journal) = &self.spec.journal {
            // What is not on the disk yet would not be found.
            journal.wait_readable(last)?;
        }
        while page.has_references() {
            let had_count = entries.len();
            self.visit_backlog(ReadFrom::Disk, after, last, RECOVERED_BYTES_MAX, |found| {
                entries.push_back(Entry {
                    redelivered: true,
                    ..self.recovered_entry(&found, &deadlines)
                });
            })?;
            match entries.back() {
                Some(behind) if entries.len() > had_count => after = behind.lsn,
                Some(_) | None => break,
            }
        }
        let (held, room) = {
            let state = self.state.lock();
            let out = state.unacked.iter().map(|(_, out)| out.entry.lsn);
            let mut held: HashSet<_> = state.ready.outline(Outline::All).lsns.into_iter().collect();
            held.extend(out);
            let room = state.seq_next.saturating_sub(page.first.0);
            (held, room.min(state.ready.room_of(load, page)))
        };
        entries.retain(|entry| !held.contains(&entry.lsn));
        entries.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        tracing::error!(
            queue = %self.spec.name, error = %why, count = page.count, found = entries.len(),
            "a page of a long queue is lost; what the journal has of it is read there"
        );
        let seqs = page.first.0..;
        Ok(seqs.map(MessageSeq).zip(entries).collect())
    }

    fn read_recovered(
        &self,
        from: ReadFrom,
        after: Lsn,
        last: Lsn,
        bytes_max: usize,
    ) -> Result<Loaded, Unreadable> {
        let deadlines = self.kept_deadlines();
        let mut entries = VecDeque::new();
        self.visit_backlog(from, after, last, bytes_max, |found| {
            entries.push_back(self.recovered_entry(&found, &deadlines));
        })?;
        Ok(Loaded::Recovered(entries))
    }

    /// Shows what the journal has of this queue behind `after` and up to `last`; nothing if there is no
    /// more.
    fn visit_backlog(
        &self,
        from: ReadFrom,
        after: Lsn,
        last: Lsn,
        bytes_max: usize,
        mut visit: impl FnMut(BacklogRef<'_>),
    ) -> Result<(), JournalError> {
        let Some(journal) = &self.spec.journal else {
            return Ok(());
        };
        let (id, count_max) = (self.spec.id, RECOVERED_COUNT_MAX);
        journal.visit_backlog(id, after, count_max, bytes_max, from, |found| {
            if found.lsn <= last {
                visit(found);
            }
        })
    }

    fn recovered_entry(&self, found: &BacklogRef<'_>, deadlines: &KeptDeadlines<'_>) -> Entry {
        let message = self.message_of(&found.message);
        let deadline = deadlines.of(&message, found.message.time_unix_ms);
        Entry {
            message,
            lsn: found.lsn,
            location: found.location,
            redelivered: found.was_delivered,
            return_count: found.note,
            deadline,
        }
    }

    /// The message that the journal has; refers to its payload.
    pub(super) fn message_of(&self, stored: &StoredRef<'_>) -> Message {
        Message::from_stored(stored, |payload| self.hold_payload(payload))
    }

    pub(super) fn hold_payload(&self, payload: &PayloadRecord) -> PayloadBody {
        PayloadBody::hold(
            self.spec.paging.payloads.clone(),
            ScopeId::new(payload.scope),
            PayloadId::from_bytes(payload.id),
            payload.size_bytes,
        )
    }

    // ---- a start ----

    /// Takes over what recovery found: it is read when it is needed, if the order of the queue allows
    /// that and there is a spill; otherwise now.
    // req: SPILL-7
    pub(crate) fn restore(&self, found: &RecoveredQueue) -> Result<(), JournalError> {
        let payloads = found.payloads.iter();
        let payload_bytes = payloads.clone().map(|(_, payload)| payload.size_bytes);
        let zone = RecoveredZone {
            after: Lsn::ZERO,
            last: found.last,
            count: usize::try_from(found.count).unwrap_or(usize::MAX),
            bytes: payload_bytes.fold(found.body_bytes, u64::saturating_add),
            seq_next: 0,
            payloads: payloads
                .map(|(lsn, payload)| (*lsn, self.hold_payload(payload)))
                .collect(),
        };
        {
            let mut state = self.lock();
            debug_assert_eq!(state.seq_next, 0, "nothing was published before");
            if state.ready.restore(zone) {
                state.seq_next = found.count;
                return Ok(());
            }
        }
        let deadlines = self.kept_deadlines();
        let mut after = Lsn::ZERO;
        loop {
            let mut entries = Vec::new();
            self.visit_backlog(
                ReadFrom::Disk,
                after,
                found.last,
                RECOVERED_BYTES_MAX,
                |found| {
                    entries.push(self.recovered_entry(&found, &deadlines));
                },
            )?;
            let Some(last) = entries.last() else {
                return Ok(());
            };
            after = last.lsn;
            let mut state = self.lock();
            for entry in entries {
                let seq = MessageSeq(state.seq_next);
                state.seq_next += 1;
                state.ready.push_back(seq, entry);
            }
        }
    }

    // ---- all of a queue ----

    /// Notes in the journal that all of `removed`, which is no queue's any more, is gone.
    pub(super) fn journal_removed(&self, removed: &Priorities) {
        let Some(journal) = &self.spec.journal else {
            return;
        };
        let outline = removed.outline(Outline::All);
        let each = self.each_lsn(&outline, |lsns| {
            self.journal_left(lsns);
            Ok(())
        });
        // What nobody has read since the start is told by its range.
        let cleared = outline.recovered.map_or(Ok(()), |(after, last)| {
            let cleared = journal.append_cleared(self.spec.id, &[(after.next(), last)]);
            cleared.map(drop).map_err(Unreadable::Journal)
        });
        if let Err(error) = each.and(cleared) {
            tracing::error!(
                queue = %self.spec.name, %error,
                "purged messages that could not be read come back after a restart"
            );
        }
    }

    /// Notes in the journal which waiting and unsettled messages somebody has seen, for a clean stop.
    pub(crate) fn note_delivered(&self) -> Result<(), JournalError> {
        let Some(journal) = &self.spec.journal else {
            return Ok(());
        };
        let (out, outline) = {
            let state = self.state.lock();
            let out = state.unacked.iter().map(|(_, out)| out.entry.lsn);
            let out: Vec<_> = out.filter(super::has_record).collect();
            (out, state.ready.outline(Outline::Delivered))
        };
        journal.append_delivered(self.spec.id, &out)?;
        if let Some((after, last)) = outline.recovered {
            journal.keep_delivered(self.spec.id, after.next(), last)?;
        }
        let note = |lsns: &[Lsn]| journal.append_delivered(self.spec.id, lsns).map(drop);
        match self.each_lsn(&outline, note) {
            Err(Unreadable::Journal(error)) => Err(error),
            Err(error @ (Unreadable::Page(_) | Unreadable::Damaged)) => {
                tracing::warn!(queue = %self.spec.name, %error, "some messages will not look redelivered");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Gives the journal numbers in parts, so that they are never all in memory, but for what recovery
    /// found and nobody has read.
    fn each_lsn(
        &self,
        outline: &Outlined,
        mut part: impl FnMut(&[Lsn]) -> Result<(), JournalError>,
    ) -> Result<(), Unreadable> {
        let mut result = Ok(());
        if !outline.lsns.is_empty() {
            part(&outline.lsns)?;
        }
        for (area, page) in &outline.pages {
            match read_lsns(area, page, outline.which) {
                Ok(lsns) => part(&lsns)?,
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

/// The journal numbers of a page's messages.
fn read_lsns(area: &Area, page: &Page, which: Outline) -> Result<Vec<Lsn>, Unreadable> {
    let octets = area
        .read(ReadFrom::Disk, page.extent)
        .map_err(Unreadable::Page)?;
    let decoded = page::decode(&octets).ok_or(Unreadable::Damaged)?;
    let wanted = decoded.iter().filter(|found| match which {
        Outline::All => true,
        Outline::Delivered => found.redelivered,
    });
    let lsns = wanted.filter_map(|found| match found.content {
        Content::Journal { lsn, .. } => Some(lsn),
        Content::Whole(_) => None,
    });
    Ok(lsns.collect())
}

/// Why messages of a long queue cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// The page is not what was written.
    #[error("a page in the spill directory is damaged")]
    Damaged,
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The page cannot be read.
    #[error("a page in the spill directory: {0}")]
    Page(#[source] std::io::Error),
}
