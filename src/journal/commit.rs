//! Group commit: what came while the last sync ran goes with the next.
//!
//! Owns: the sync thread's work, the durable position, and the only way to make a [`DurableLsn`].
//! Bound: takes what is pending, which the appenders bound; work beside it is cut into steps.
//! Spec: `spec/journal.md`, "Commit", JOURNAL-1 to JOURNAL-7, JOURNAL-22 to JOURNAL-24.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::OpenMode;

use super::account::FooterPlace;
use super::append::Part;
use super::books::Books;
use super::compact::{Cleaning, Progress};
use super::error::{JournalError, StorageFailure};
use super::files::{Current, Files, FooterPlan, Made, Plan, failure, is_no_space};
use super::record::{self, ALIGN_BYTES, MARK_BYTES};
use super::sabotage::{self, Sabotage};
use super::settings::SyncMode;
use super::shared::{Shared, Stop};
use super::types::{Location, Lsn};

/// A position up to which every record is durable; only a commit makes one.
///
/// What releases confirms takes this type, so that nothing else can be mistaken for it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct DurableLsn(Lsn);

impl DurableLsn {
    /// The last durable record's number.
    pub fn lsn(self) -> Lsn {
        self.0
    }

    /// Whether the record `lsn` is durable.
    pub fn covers(self, lsn: Lsn) -> bool {
        lsn <= self.0
    }
}

impl Shared {
    /// What the sync thread published last.
    pub(crate) fn durable(&self) -> DurableLsn {
        DurableLsn(self.durable_lsn())
    }
}

/// How long the sync thread waits before it looks for space again.
const SPACE_RETRY_AFTER: Duration = Duration::from_millis(100);

/// A commit of at least so many records leaves many who were told, and who go on at once.
const COMPANY_COUNT_MIN: u64 = 12;

/// How long at most the next commit waits for them: about a sync of a fast disk, nothing beside one of a slow disk.
const COMPANY_TIME_MAX: Duration = Duration::from_micros(125);

/// With more pending than this a commit is worth its sync, in bytes.
const COMPANY_BYTES_MAX: usize = 256 << 10;

/// Searches that counting may leave before they are made.
const SEARCHES_MAX: usize = 4_096;

/// What a turn of the sync thread came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Turn {
    /// Something was written or cleaned; there may be more to do.
    Worked,
    /// Nothing was there to do.
    Idle,
    /// What is pending has no space on the disk.
    NoSpace,
}

/// The sync thread's state.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) files: Files,
    pub(super) current: Current,
    /// Parts that were taken and are not written yet, because the disk is full.
    stalled: VecDeque<Part>,
    /// The last record written, synced, and named by a mark on disk.
    pub(super) written: Lsn,
    synced: Lsn,
    marked: Lsn,
    pub(super) cleaning: Cleaning,
    pub(super) progress: Progress,
    /// Segments that could not be read when they were to be cleaned.
    pub(super) aside: BTreeSet<u32>,
    /// Whether there may be something to release or to move.
    pub(super) cleaning_due: bool,
    is_space_low: bool,
    /// Footers that there was no room for when their segments were full.
    footers_due: VecDeque<FooterPlan>,
    /// Whether the last segment has got its footer: the journal has ended.
    is_ended: bool,
}

impl Committer {
    /// Goes on behind `durable` in `current`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        files: Files,
        current: Current,
        durable: Lsn,
        marked: Lsn,
    ) -> Self {
        Self {
            shared,
            files,
            current,
            stalled: VecDeque::new(),
            written: durable,
            synced: durable,
            marked,
            cleaning: Cleaning::Idle,
            progress: Progress::default(),
            aside: BTreeSet::new(),
            cleaning_due: true,
            is_space_low: false,
            footers_due: VecDeque::new(),
            is_ended: false,
        }
    }

    /// The body of the sync thread. Others may commit with the same state while it sleeps.
    pub(crate) fn run(committer: &Mutex<Self>) {
        let shared = Arc::clone(&committer.lock().shared);
        let _end = EndGuard(Arc::clone(&shared));
        let (mut turn, mut quiet_time, mut company) = (Turn::Worked, None, 0);
        loop {
            let (stop, is_quiet) = match turn {
                // req: JOURNAL-43
                Turn::Worked if company >= COMPANY_COUNT_MIN => {
                    let stop = shared.await_more(company, COMPANY_BYTES_MAX, COMPANY_TIME_MAX);
                    (stop, false)
                }
                Turn::Worked => (shared.lock().stop, false),
                Turn::NoSpace => (shared.pause(SPACE_RETRY_AFTER), false),
                Turn::Idle => shared.sleep(quiet_time),
            };
            let mut committer = committer.lock();
            let synced = committer.synced;
            let result = match stop {
                Stop::Running => committer.turn(is_quiet),
                Stop::Stopping | Stop::Stopped => committer.finish(),
            };
            quiet_time = committer.quiet_time();
            company = committer.synced.0.saturating_sub(synced.0);
            drop(committer);
            match result {
                Ok(Turn::Idle) if stop != Stop::Running => break,
                Ok(Turn::NoSpace) if stop != Stop::Running => break,
                Ok(done) => turn = done,
                Err(error) => {
                    tracing::error!(%error, "the journal failed");
                    shared.fail(&error);
                    break;
                }
            }
        }
    }

    /// One commit of little, on another thread than the sync thread; gives whether there is work left for that.
    // req: JOURNAL-42
    pub(super) fn lead(&mut self) -> Result<bool, StorageFailure> {
        let turn = self.commit()?;
        let wants_spares = self.files.spare_count() < self.spares_wanted();
        Ok(turn == Turn::NoSpace || self.cleaning_due || self.is_space_low || wants_spares)
    }

    /// How long to sleep when there is nothing to do.
    fn quiet_time(&self) -> Option<Duration> {
        if self.needs_mark() {
            Some(self.shared.settings.closing_mark_after)
        } else {
            self.is_space_low.then_some(SPACE_RETRY_AFTER)
        }
    }

    /// One turn: commit what is pending, or clean a little, or, when it was quiet, close with a mark.
    pub(crate) fn turn(&mut self, was_quiet: bool) -> Result<Turn, StorageFailure> {
        let committed = self.commit()?;
        self.watch_space()?;
        let cleaned = (self.cleaning_due && self.clean()?) || self.write_due_footer()?;
        match committed {
            Turn::Idle if cleaned => Ok(Turn::Worked),
            Turn::Idle if was_quiet && self.needs_mark() => self.close_with_mark(),
            turn => Ok(turn),
        }
    }

    /// The last turns: everything pending, then a mark that covers it.
    pub(crate) fn finish(&mut self) -> Result<Turn, StorageFailure> {
        let committed = self.commit()?;
        if committed != Turn::Idle {
            return Ok(committed);
        }
        if self.needs_mark() {
            return self.close_with_mark();
        }
        self.end_last_segment()
    }

    /// Writes the last segment's footer, so that the next start need not read its records.
    ///
    /// The records are synced before: a footer that says so is true whatever a crash leaves of it.
    // req: JOURNAL-29
    fn end_last_segment(&mut self) -> Result<Turn, StorageFailure> {
        if self.is_ended {
            return Ok(Turn::Idle);
        }
        self.is_ended = true;
        self.sync_written()?;
        let number = self.current.number;
        self.shared
            .books
            .ledger()
            .freeze_before(number.saturating_add(1));
        if self.write_footer(true)? && !sabotage::is(Sabotage::SkipSync) {
            let synced = self.current.file.sync_data();
            synced.map_err(failure("sync", &self.current.path))?;
        }
        Ok(Turn::Worked)
    }

    /// Writes the footer of the current segment, of which all records are counted and written; `false`
    /// if there is none or no room for it. The caller syncs.
    // req: JOURNAL-26
    fn write_footer(&mut self, is_closed: bool) -> Result<bool, StorageFailure> {
        let segment = self.current.number;
        let footer = {
            let ledger = self.shared.books.ledger();
            ledger
                .segment(segment)
                .map(|account| account.footer.clone())
        };
        let Some(FooterPlace::Memory(frozen)) = footer else {
            return Ok(false);
        };
        let plan = FooterPlan {
            segment,
            salt: self.current.salt,
            records_end: self.current.end,
            hash: *self.current.hasher.finalize().as_bytes(),
            is_closed,
        };
        let (file, path) = (&*self.current.file, &self.current.path);
        let Some(written) = Files::write_footer(file, path, &frozen, &plan)? else {
            if !is_closed && !self.footers_due.iter().any(|due| due.segment == segment) {
                self.footers_due.push_back(plan);
            }
            return Ok(false);
        };
        self.footer_is_written(segment, written);
        Ok(true)
    }

    fn footer_is_written(&self, segment: u32, (base, file_bytes): (u32, u64)) {
        let mut ledger = self.shared.books.ledger();
        ledger.set_footer(segment, FooterPlace::File { base });
        ledger.set_file_bytes(segment, file_bytes);
        drop(ledger);
        self.shared.books.forget(segment);
    }

    /// Writes a footer that had no room, once the disk has space again, so that it need not stay in memory and
    /// the next start need not read the segment's records; `false` if none is due.
    ///
    /// As with the footers that a start writes, a crash leaves one that is whole or none.
    // req: JOURNAL-26 JOURNAL-38
    fn write_due_footer(&mut self) -> Result<bool, StorageFailure> {
        if self.is_space_low || !self.stalled.is_empty() {
            return Ok(false);
        }
        let Some(plan) = self.footers_due.pop_front() else {
            return Ok(false);
        };
        let footer = {
            let ledger = self.shared.books.ledger();
            let account = ledger.segment(plan.segment);
            account.map(|account| account.footer.clone())
        };
        // Its segment is gone, or the footer was given up.
        let Some(FooterPlace::Memory(frozen)) = footer else {
            return Ok(true);
        };
        let path = self.files.dir.segment_path(plan.segment);
        let file = match self.files.dir.disk.open(&path, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(error) => {
                // It only saves memory and time, and nothing was written yet.
                tracing::warn!(%error, segment = plan.segment, "a footer has to wait");
                self.footers_due.push_back(plan);
                return Ok(false);
            }
        };
        if let Some(written) = Files::write_footer(&*file, &path, &frozen, &plan)? {
            file.sync_data().map_err(failure("sync", &path))?;
            self.footer_is_written(plan.segment, written);
        }
        Ok(true)
    }

    /// Tells of damage that was found while running; what is damaged stays as it is.
    // req: JOURNAL-25
    pub(super) fn report_damage(&self, error: &JournalError) {
        tracing::error!(%error, "the journal is damaged");
    }

    /// Whether records wait because the disk is full.
    pub(super) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Whether the last records are not named by a mark.
    fn needs_mark(&self) -> bool {
        self.marked < self.written
    }

    /// Writes and syncs a mark that covers everything.
    // req: JOURNAL-4
    fn close_with_mark(&mut self) -> Result<Turn, StorageFailure> {
        self.sync_written()?;
        self.shared.lock().appender.append_mark();
        let turn = self.commit()?;
        if turn == Turn::Worked && self.shared.settings.sync == SyncMode::Os {
            self.sync()?;
        }
        Ok(turn)
    }

    /// Syncs if something is written that is not yet synced: only so when confirms do not wait for it.
    pub(super) fn sync_written(&mut self) -> Result<(), StorageFailure> {
        if self.synced < self.written {
            self.sync()
        } else {
            Ok(())
        }
    }

    /// Writes, syncs and publishes all that is pending.
    // req: JOURNAL-1 JOURNAL-22
    fn commit(&mut self) -> Result<Turn, StorageFailure> {
        if let Some(failure) = self.shared.failure() {
            return Err(failure.clone());
        }
        let was_stalled = !self.stalled.is_empty();
        if !was_stalled {
            self.stalled = self.shared.take_parts().into();
        }
        if self.stalled.is_empty() {
            return Ok(Turn::Idle);
        }
        let mut is_written = false;
        while let Some(mut part) = self.stalled.pop_front() {
            let has_segment = match part.begins {
                None => true,
                Some(begin) => {
                    self.begin_segment(&part, begin.first, u64::from(begin.file_bytes))?
                }
            };
            if has_segment {
                part.begins = None;
            }
            if !has_segment || !self.write(&mut part)? {
                self.stalled.push_front(part);
                return Ok(self.stall());
            }
            self.shared.lock().appender.reuse(part.bytes);
            is_written = true;
        }
        debug_assert!(is_written, "there was a part");
        if was_stalled {
            self.shared.lock().appender.set_stalled_bytes(0);
        }
        match self.shared.settings.sync {
            SyncMode::Disk => {
                if sabotage::is(Sabotage::ConfirmBeforeSync) {
                    self.publish(self.written);
                }
                self.sync()?;
                self.publish(self.synced);
            }
            SyncMode::Os => self.publish(self.written),
        }
        if self.shared.books.ledger().take_died() {
            self.cleaning_due = true;
        }
        Ok(Turn::Worked)
    }

    /// There is no space for what is left: it waits, and publishers are held. What was taken with it waits too, though
    /// it may be synced: an atomic batch may have begun there that has no end yet.
    // req: JOURNAL-11
    fn stall(&mut self) -> Turn {
        let bytes = self.stalled.iter().map(|part| part.bytes.len()).sum();
        self.shared.lock().appender.set_stalled_bytes(bytes);
        self.set_space_low(true);
        self.cleaning_due = true;
        self.shared.tell_waiting();
        Turn::NoSpace
    }

    /// Completes a part (durable number in its mark, checksums), counts its records, and writes it; `false` if the
    /// file system had no space for it, where it could not reserve any: then it may be written again.
    // req: JOURNAL-3 JOURNAL-7 JOURNAL-44
    fn write(&mut self, part: &mut Part) -> Result<bool, StorageFailure> {
        debug_assert_eq!(part.segment, self.current.number);
        record::patch_mark(&mut part.bytes, self.synced);
        if let Err(error) = count_records(part, &self.shared.books) {
            self.report_damage(&error);
        }
        let mut rest = part.bytes.as_mut_slice();
        while !rest.is_empty() {
            let (_, len) = record::write_checksum(rest, self.current.salt);
            rest = rest.split_at_mut(len).1;
        }
        debug_assert!(part.bytes.len().is_multiple_of(ALIGN_BYTES));
        let written = self
            .current
            .file
            .write_at(&part.bytes, u64::from(part.offset));
        match written {
            Ok(()) => {}
            Err(error) if is_no_space(&error) => return Ok(false),
            Err(error) => return Err(failure("write", &self.current.path)(error)),
        }
        self.current.hasher.update(&part.bytes);
        self.current.end = part.offset + u32::try_from(part.bytes.len()).expect("within a segment");
        self.written = part.last;
        self.marked = self.synced;
        Ok(true)
    }

    /// Makes everything written durable.
    fn sync(&mut self) -> Result<(), StorageFailure> {
        if !sabotage::is(Sabotage::SkipSync) {
            let mut result = self.current.file.sync_data();
            if result.is_err() && sabotage::is(Sabotage::RetryFailedSync) {
                result = self.current.file.sync_data();
            }
            result.map_err(failure("sync", &self.current.path))?;
        }
        self.synced = self.written;
        Ok(())
    }

    fn publish(&self, lsn: Lsn) {
        if self.shared.set_durable(lsn) {
            self.shared.books.ledger().forget_origins(lsn);
            let listener = self.shared.commit_listener.read().clone();
            if let Some(listener) = listener {
                listener(DurableLsn(lsn));
            }
        }
    }

    /// Syncs the current segment and makes the next one; `false` if there is no space for it.
    // req: JOURNAL-6
    fn begin_segment(
        &mut self,
        part: &Part,
        first: Lsn,
        file_bytes: u64,
    ) -> Result<bool, StorageFailure> {
        if let Err(error) = begin_account(part.segment, first, file_bytes, &self.shared.books) {
            self.report_damage(&error);
        }
        self.write_footer(false)?;
        self.sync()?;
        let mut catalog = self.shared.books.ledger().catalog_before(part.segment);
        // A segment that a durable record releases may be gone before the next catalog is written.
        if let Cleaning::Releasing { number, lsn } = self.cleaning
            && lsn < first
        {
            catalog.retain(|entry| entry.number != number);
        }
        let plan = Plan {
            number: part.segment,
            first,
            records_at: part.offset,
            file_bytes,
            catalog: &catalog,
            tail: &|_| Vec::new(),
        };
        match self.files.make(&plan)? {
            Made::Segment(current) => {
                self.current = current;
                let mut ledger = self.shared.books.ledger();
                ledger.complete_below = part.segment;
                ledger.shed_footers(part.segment.saturating_sub(1));
            }
            Made::NoSpace => return Ok(false),
        }
        let count = self.shared.books.ledger().segment_count();
        let mut state = self.shared.lock();
        state.appender.set_segment_count(count, part.segment);
        drop(state);
        self.cleaning_due = true;
        Ok(true)
    }

    /// Keeps the spares filled and raises or lowers the space alarm.
    // req: JOURNAL-24
    fn watch_space(&mut self) -> Result<(), StorageFailure> {
        let wanted = self.spares_wanted();
        if !self.cleaning_due && !self.is_space_low && self.files.spare_count() >= wanted {
            return Ok(());
        }
        let mut is_spare_missing = false;
        while self.files.spare_count() < wanted && !is_spare_missing {
            is_spare_missing = !self.files.add_spare()?;
        }
        let dir = &self.files.dir;
        // Not knowing the free space is no reason to stop; the allocation of segments decides.
        let free_bytes = dir.disk.free_bytes(&dir.path).unwrap_or(u64::MAX);
        let low = self.shared.settings.free_bytes_min;
        if is_spare_missing || free_bytes < low {
            self.set_space_low(true);
        } else if free_bytes >= low.saturating_mul(2) && self.stalled.is_empty() {
            self.set_space_low(false);
        }
        Ok(())
    }

    /// How many spares there should be: none while the store holds less than half a segment, then one, and
    /// all from a full segment on. They are in place before the segment that is written has no room.
    // req: JOURNAL-34
    fn spares_wanted(&self) -> usize {
        let most = self.shared.settings.spare_segments as usize;
        if self.files.spare_count() >= most {
            return most;
        }
        let closed: u64 = {
            let ledger = self.shared.books.ledger();
            let closed = ledger
                .segments()
                .filter(|(number, _)| *number < self.current.number);
            closed.map(|(_, account)| account.file_bytes).sum()
        };
        let held = closed + u64::from(self.current.end);
        let half = u64::from(self.shared.settings.segment_bytes / 2).max(1);
        most.min(usize::try_from(held / half).unwrap_or(most))
    }

    fn set_space_low(&mut self, is_low: bool) {
        if self.is_space_low == is_low {
            return;
        }
        self.is_space_low = is_low;
        if is_low {
            tracing::warn!(path = %self.files.dir.path.display(), "disk space is short");
        } else {
            tracing::info!(path = %self.files.dir.path.display(), "disk space is enough again");
        }
        let listener = self.shared.space_listener.read().clone();
        if let Some(listener) = listener {
            listener(is_low);
        }
    }
}

/// Tells everybody that the sync thread has ended, even if by a panic: nobody may wait for it then.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(&StorageFailure {
                doing: "run",
                path: PathBuf::from("the sync thread"),
                message: "it panicked".to_owned(),
            });
        }
        self.0.set_stopped();
    }
}

/// Begins the account of a segment, if it has none; the one before it is complete then.
fn begin_account(
    number: u32,
    first: Lsn,
    file_bytes: u64,
    books: &Books,
) -> Result<(), JournalError> {
    if books.ledger().segment(number).is_some() {
        return Ok(());
    }
    let searched = books.search();
    let mut ledger = books.ledger();
    ledger.begin_segment(number, first, file_bytes);
    ledger.freeze_before(number);
    searched
}

/// Counts the records of a part that the ledger has not counted yet.
///
/// An error says that a list could not be read: messages that it holds stay, though they were acked.
pub(super) fn count_records(part: &mut Part, books: &Books) -> Result<(), JournalError> {
    let mut result = Ok(());
    if let Some(begin) = part.begins {
        let file_bytes = u64::from(begin.file_bytes);
        result = begin_account(part.segment, begin.first, file_bytes, books);
    }
    let mut at = part.counted_bytes.max(MARK_BYTES);
    let mut ledger = books.ledger();
    while at < part.bytes.len() {
        if ledger.searches.len() > SEARCHES_MAX {
            drop(ledger);
            let searched = books.search();
            result = result.and(searched);
            ledger = books.ledger();
        }
        let record = record::decode_trusted(&part.bytes[at..]);
        let offset = part.offset + u32::try_from(at).expect("a part is at most a segment");
        let is_sound = ledger.apply(
            &record,
            Location {
                segment: part.segment,
                offset,
            },
        );
        assert!(is_sound, "what this program encodes it can read");
        at += record.head.record_bytes();
    }
    part.counted_bytes = at;
    drop(ledger);
    // With the appender held by compaction this may read the disk: a block, for acks of moved messages
    // that came since the last commit.
    let searched = books.search();
    result.and(searched)
}
