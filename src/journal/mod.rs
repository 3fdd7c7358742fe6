//! The durable log: one order for messages, acknowledgements and definitions.
//!
//! Owns: the segment files of one directory and the thread that writes and syncs them. Knows nothing
//! of exchanges, consumers or sockets; definitions are keys and values to it.
//! Bound: appended but unwritten bytes (`pending_bytes_max`); about 100 bytes of account per segment and
//! queue, and what is gone of a segment's messages in runs or bits; the lists of the segment that is
//! written. Nothing per message.
//! Spec: `spec/journal.md`.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `types`, `settings`, `error` | what goes in, what comes out |
//! | `record`, `segment` | bytes and back |
//! | `append`, `shared` | records in memory, numbers and places, who waits |
//! | `commit`, `lead`, `files` | the sync thread: write, sync, publish; making and releasing files |
//! | `ledger`, `runs`, `definitions` | what each segment is still needed for |
//! | `recover`, `compact`, `read`, `read_many` | from files back to messages |
//! | `inspect`, `repair`, `patient`, `salvage` | a look into a store for an operator, and making a damaged one open again |

mod account;
mod append;
mod backlog;
mod books;
mod commit;
mod compact;
mod definitions;
mod error;
mod files;
mod footer;
mod inspect;
mod lead;
mod ledger;
mod list;
mod patient;
mod places;
mod read;
mod read_many;
mod record;
mod recover;
mod repair;
mod replay;
mod restart;
mod runs;
mod salvage;
mod scrub;
mod segment;
mod settings;
mod shared;
mod spans;
mod types;

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod footer_tests;
#[cfg(test)]
mod lead_tests;
#[cfg(test)]
mod repair_tests;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::disk::{Disk, ReadFrom};
use crate::sabotage;

use append::Appender;
use record::{Head, Kind, encode_definition, encode_plain, encode_runs, record_bytes};
use runs::RunSet;
use shared::Shared;

pub use commit::DurableLsn;
pub use error::{JournalError, StorageFailure};
pub use inspect::{ListedRecord, Verified, list, verify};
pub use lead::Gathering;
pub use patient::{Rebuilt, RebuiltFrom};
pub use repair::{Loss, Repair, repair};
pub use scrub::Scrubbed;
pub use settings::{JournalSettings, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SyncMode};
pub use types::{
    Appended, BacklogMessage, BacklogRef, BodyRecord, Entry, JournalUsage, Location, Lsn,
    NewMessage, PayloadRecord, QueueId, Recovered, RecoveredQueue, Span, StoredBody, StoredMessage,
    StoredRef,
};

/// Called by the sync thread with each new durable position; must not append and must not block.
pub type CommitListener = Box<dyn Fn(DurableLsn) + Send + Sync>;
/// Called by the sync thread once, when the store fails.
pub type FailureListener = Box<dyn Fn(&StorageFailure) + Send + Sync>;
/// Called by the sync thread when space grows short (`true`) and when there is enough again (`false`).
pub type SpaceListener = Box<dyn Fn(bool) + Send + Sync>;

/// The most bytes that a run of one number takes in an acks record.
const RUN_BYTES_MAX: usize = 20;
/// Messages that one record of acks, notes or ranges names at most, but in a batch: counting it holds something
/// for each in memory.
const RUNS_PER_RECORD_MAX: usize = 8_192;

/// A handle to an open journal; clones share it.
///
/// Appends go to memory and return at once, unless `pending_bytes_max` bytes wait to be written: then
/// they wait for the disk. A record is durable when [`Journal::durable_lsn`] has reached its number.
///
/// The last handle that is dropped writes what is pending and ends the sync thread, as
/// [`Journal::close`] does but without the clean-stop mark. A listener must not own a handle.
#[derive(Clone, Debug)]
pub struct Journal {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    /// The sync thread and the scrubber's. Empty once joined, or when a test drives the journal by hand.
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Handle {
    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.thread().id() != thread::current().id() {
                // A panic has been reported and made the journal's failure by the thread's end.
                drop(thread.join());
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.begin_stop(|_| ());
        self.join();
    }
}

impl Journal {
    /// Opens the journal in `dir`, or creates it, and starts its sync thread.
    ///
    /// Everything that is returned as recovered is durable. Blocks while it reads.
    /// `Damaged` and `SegmentMissing` leave the store as it was.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: JournalSettings,
    ) -> Result<(Self, Recovered), JournalError> {
        let (committer, recovered) = recover::open(disk, dir, settings)?;
        let handle = Arc::new(Handle {
            shared: Arc::clone(&committer.shared),
            threads: Mutex::default(),
        });
        let scrubber = scrub::Scrubber::new(Arc::clone(&committer.shared));
        let start = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
            thread.map_err(segment::io_error("start a thread for", dir))
        };
        // The handle is there already: if a thread cannot be started, it ends the other.
        let committer = Arc::new(Mutex::new(committer));
        // Set once, as the journal was just opened.
        let _ = handle.shared.committer.set(Arc::downgrade(&committer));
        let body = Box::new(move || commit::Committer::run(&committer));
        let thread = start("warren-journal", body)?;
        handle.threads.lock().push(thread);
        let thread = start("warren-scrub", Box::new(move || scrubber.run()))?;
        handle.threads.lock().push(thread);
        Ok((Self { handle }, recovered))
    }

    /// Opens the journal without a thread: the caller drives it, so that a test can repeat itself.
    #[cfg(any(test, feature = "testing"))]
    pub fn open_by_hand(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: JournalSettings,
    ) -> Result<(Self, Driver, Recovered), JournalError> {
        let (committer, recovered) = recover::open(disk, dir, settings)?;
        let shared = Arc::clone(&committer.shared);
        let handle = Arc::new(Handle {
            shared,
            threads: Mutex::default(),
        });
        let scrubber = scrub::Scrubber::new(Arc::clone(&handle.shared));
        let driver = Driver {
            committer,
            scrubber,
        };
        Ok((Self { handle }, driver, recovered))
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Appends a message; it is safe once its number is durable.
    ///
    /// A caller that finds one of the queues deleted after this call must ack the message for it.
    pub fn append_message(&self, message: &NewMessage<'_>) -> Result<Appended, JournalError> {
        let body_bytes = self.check_message(message)?;
        let (lsn, location) = self
            .shared()
            .append_one(record_bytes(body_bytes), |out, lsn| {
                record::encode_message(out, lsn, false, message, body_bytes);
            })?;
        Ok(Appended { lsn, location })
    }

    /// Appends messages in a row, as [`Self::append_message`] does for each, and adds where they are to `appended`:
    /// for all that could be appended before the first that could not.
    pub fn append_messages<'a>(
        &self,
        messages: impl Iterator<Item = NewMessage<'a>>,
        appended: &mut Vec<Appended>,
    ) -> Result<(), JournalError> {
        self.shared().append(|appender| {
            for message in messages {
                let body_bytes = self.check_message(&message)?;
                let bytes = record_bytes(body_bytes);
                let (lsn, location) = appender.append(bytes, |out, lsn| {
                    record::encode_message(out, lsn, false, &message, body_bytes);
                });
                appended.push(Appended { lsn, location });
            }
            Ok(())
        })?
    }

    fn check_message(&self, message: &NewMessage<'_>) -> Result<usize, JournalError> {
        let max_bytes = u64::from(self.shared().settings.segment_bytes / 2);
        let body_bytes =
            record::message_body_bytes(message).ok_or(JournalError::RecordTooLarge {
                got_bytes: u64::MAX,
                max_bytes,
            })?;
        self.shared().check_size(record_bytes(body_bytes))?;
        Ok(body_bytes)
    }

    /// Appends that messages left a queue: acknowledged, rejected, expired, purged, or dropped.
    ///
    /// `lsns` in any order, each at most once in the queue's life; runs of numbers take a few bytes, so
    /// that a purge is simply the acks of all that was ready. Gives the number of the last record.
    pub fn append_acks(&self, queue: QueueId, lsns: &[Lsn]) -> Result<Lsn, JournalError> {
        self.append_runs(Kind::Acks, queue, lsns, 0)
    }

    /// Notes which messages of a queue have been delivered at least once; called before a clean stop.
    pub fn append_delivered(&self, queue: QueueId, lsns: &[Lsn]) -> Result<Lsn, JournalError> {
        self.append_runs(Kind::Delivered, queue, lsns, 0)
    }

    /// Notes again what was known as delivered of a queue's messages from `first` to `last`, which nobody
    /// has read since the store was opened; called before a clean stop. Reads nothing.
    ///
    /// After an unclean stop that is all of them.
    pub fn keep_delivered(
        &self,
        queue: QueueId,
        first: Lsn,
        last: Lsn,
    ) -> Result<Lsn, JournalError> {
        if !self.shared().was_clean {
            return self.append_ranges(Kind::Delivered, queue, &[(first, last)]);
        }
        let noted = {
            let ledger = self.shared().books.ledger();
            let noted = ledger.delivered.get(&queue);
            noted.map_or_else(Vec::new, |noted| noted.between(first, last))
        };
        self.append_ranges(Kind::Delivered, queue, &noted)
    }

    /// Appends that every message of a queue whose number lies in one of the ranges (first to last) left
    /// it: a purge, or a stream's retention, without knowing the single numbers.
    ///
    /// Messages that are appended later are not meant, whatever the ranges say.
    pub fn append_cleared(
        &self,
        queue: QueueId,
        ranges: &[(Lsn, Lsn)],
    ) -> Result<Lsn, JournalError> {
        self.append_ranges(Kind::Cleared, queue, ranges)
    }

    fn append_ranges(
        &self,
        kind: Kind,
        queue: QueueId,
        ranges: &[(Lsn, Lsn)],
    ) -> Result<Lsn, JournalError> {
        let mut last = Lsn::ZERO;
        for ranges in ranges.chunks(self.runs_per_record()) {
            let body = ranges_body(ranges);
            (last, _) = self
                .shared()
                .append_one(record_bytes(body.len()), |out, lsn| {
                    encode_runs_record(out, (kind, 0), lsn, false, queue, &body);
                })?;
        }
        Ok(last)
    }

    /// Notes a small number of messages of a queue, such as how often they were given back.
    ///
    /// The greatest number noted of a message counts. It is kept until the message leaves the queue and
    /// given back with it by [`Journal::read_backlog`]. `lsns` in any order.
    pub fn append_noted(
        &self,
        queue: QueueId,
        lsns: &[Lsn],
        note: u32,
    ) -> Result<Lsn, JournalError> {
        self.append_runs(Kind::Noted, queue, lsns, note)
    }

    fn append_runs(
        &self,
        kind: Kind,
        queue: QueueId,
        lsns: &[Lsn],
        extra: u32,
    ) -> Result<Lsn, JournalError> {
        let mut last = Lsn::ZERO;
        for lsns in lsns.chunks(self.runs_per_record()) {
            let body = runs_body(lsns);
            (last, _) = self
                .shared()
                .append_one(record_bytes(body.len()), |out, lsn| {
                    encode_runs_record(out, (kind, extra), lsn, false, queue, &body);
                })?;
        }
        Ok(last)
    }

    fn runs_per_record(&self) -> usize {
        let fit = self.shared().settings.segment_bytes as usize / 2 - record::HEAD_BYTES;
        (fit / RUN_BYTES_MAX).min(RUNS_PER_RECORD_MAX)
    }

    /// Appends that a queue and all its messages are gone; its id must not be used again.
    pub fn append_queue_delete(&self, queue: QueueId) -> Result<Lsn, JournalError> {
        let (lsn, _) = self.shared().append_one(record_bytes(0), |out, lsn| {
            encode_runs_record(out, (Kind::QueueDelete, 0), lsn, false, queue, &[]);
        })?;
        Ok(lsn)
    }

    /// Sets (`Some`) or removes (`None`) a definition.
    pub fn put_definition(&self, key: &[u8], value: Option<&[u8]>) -> Result<Lsn, JournalError> {
        let entry = Entry::Definition { key, value };
        let appended = self.append_batch(std::slice::from_ref(&entry))?;
        Ok(appended.last().map_or(Lsn::ZERO, |appended| appended.lsn))
    }

    /// Appends all entries as one: after a crash all are there or none. Gives one place per entry; the
    /// batch is safe once the last number is durable. An entry of acks must fit one record.
    pub fn append_batch(&self, entries: &[Entry<'_>]) -> Result<Vec<Appended>, JournalError> {
        let mut prepared = Vec::with_capacity(entries.len());
        for entry in entries {
            let prepared_entry = self.prepare(entry)?;
            self.shared().check_size(prepared_entry.record_bytes())?;
            prepared.push(prepared_entry);
        }
        self.shared().append(|appender| {
            let mut left = prepared.len();
            let append = |entry: &Prepared<'_>| {
                left -= 1;
                let (lsn, location) = entry.append(appender, left > 0);
                Appended { lsn, location }
            };
            prepared.iter().map(append).collect()
        })
    }

    fn prepare<'a>(&self, entry: &Entry<'a>) -> Result<Prepared<'a>, JournalError> {
        Ok(match entry {
            Entry::Message(message) => Prepared::Message {
                message: *message,
                body_bytes: self.check_message(message)?,
            },
            Entry::Acks { queue, lsns } => Prepared::Plain {
                kind: Kind::Acks,
                extra: 0,
                queue: *queue,
                body: runs_body(lsns).to_vec(),
            },
            Entry::Cleared { queue, ranges } => Prepared::Plain {
                kind: Kind::Cleared,
                extra: 0,
                queue: *queue,
                body: ranges_body(ranges),
            },
            Entry::Noted { queue, lsns, note } => Prepared::Plain {
                kind: Kind::Noted,
                extra: *note,
                queue: *queue,
                body: runs_body(lsns).to_vec(),
            },
            Entry::QueueDelete(queue) => Prepared::Plain {
                kind: Kind::QueueDelete,
                extra: 0,
                queue: *queue,
                body: Vec::new(),
            },
            Entry::Definition { key, value } => {
                let kind = if value.is_some() {
                    Kind::DefinitionPut
                } else {
                    Kind::DefinitionRemove
                };
                let len = key.len().saturating_add(value.map_or(0, <[u8]>::len));
                self.shared().check_size(len)?;
                let mut body = Vec::with_capacity(4 + len);
                encode_definition(&mut body, key, *value);
                Prepared::Plain {
                    kind,
                    extra: 0,
                    queue: QueueId(0),
                    body,
                }
            }
        })
    }

    /// How far the log is durable.
    pub fn durable_lsn(&self) -> DurableLsn {
        self.shared().durable()
    }

    /// Blocks until `lsn` is durable, or gives the failure that prevents it.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<DurableLsn, JournalError> {
        self.shared().wait_durable(lsn)?;
        Ok(self.durable_lsn())
    }

    /// Blocks until the record can be read.
    ///
    /// # Errors
    /// As [`Journal::wait_durable`]; [`JournalError::WaitsForSpace`] while it waits for space on the disk.
    pub(crate) fn wait_readable(&self, lsn: Lsn) -> Result<(), JournalError> {
        self.shared().wait_readable(lsn)
    }

    /// Whether everything appended so far is durable, or becomes so within `timeout`; blocks for it.
    pub fn wait_all_durable(&self, timeout: Duration) -> bool {
        self.shared().wait_all_durable(timeout)
    }

    /// Sets who hears of each new durable position. Called on the thread that committed; it must not commit itself.
    pub fn set_commit_listener(&self, listener: CommitListener) {
        *self.shared().commit_listener.write() = Some(Arc::from(listener));
    }

    /// Sets who hears, once, that the store failed.
    pub fn set_failure_listener(&self, listener: FailureListener) {
        *self.shared().failure_listener.write() =
            Some(Arc::new(move |failure: StorageFailure| listener(&failure)));
    }

    /// Sets who hears that disk space is short, and that it no longer is.
    pub fn set_space_listener(&self, listener: SpaceListener) {
        *self.shared().space_listener.write() = Some(Arc::from(listener));
    }

    /// Reads a message back; blocks on the disk, and until the record is durable.
    pub fn read_message(
        &self,
        lsn: Lsn,
        location: Location,
    ) -> Result<StoredMessage, JournalError> {
        read::read_message(self.shared(), lsn, location)
    }

    /// Shows `visit` the messages at `places` in their order, with few reads of the disk if they lie near
    /// each other; blocks as [`Journal::read_message`] does. One that cannot be read is shown as its
    /// error, and the others go on.
    ///
    /// # Errors
    /// If waiting for the last of them failed: then none was shown. From the cache, [`JournalError::WouldWait`] if one
    /// cannot be read without waiting: then some may have been shown.
    pub fn read_messages(
        &self,
        places: &[(Lsn, Location)],
        from: ReadFrom,
        visit: impl FnMut(usize, Result<StoredRef<'_>, JournalError>),
    ) -> Result<(), JournalError> {
        read_many::read_messages(self.shared(), places, from, visit)
    }

    /// The next messages of a queue behind the number `after`, in the order of their numbers.
    ///
    /// At most `max_count`, and no more once their bodies are together over `max_bytes`, but one at least;
    /// none means that there are no more. A message that was acknowledged before the call is not among
    /// them, if its ack is durable. Any number of readers may read at once. Blocks on the disk.
    pub fn read_backlog(
        &self,
        queue: QueueId,
        after: Lsn,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<Vec<BacklogMessage>, JournalError> {
        backlog::read(self.shared(), queue, after, max_count, max_bytes)
    }

    /// As [`Journal::read_backlog`], but shows `visit` the messages where they were read instead of
    /// copying them. After an error some were shown. From the cache nothing waits for the disk: what would ends it
    /// with [`JournalError::WouldWait`].
    pub fn visit_backlog(
        &self,
        queue: QueueId,
        after: Lsn,
        max_count: usize,
        max_bytes: usize,
        from: ReadFrom,
        visit: impl FnMut(BacklogRef<'_>),
    ) -> Result<(), JournalError> {
        backlog::visit(
            self.shared(),
            queue,
            after,
            max_count,
            max_bytes,
            from,
            visit,
        )
    }

    /// The number of the live message of a queue that has `n` others before it; `None` if there are no
    /// more than `n`. With [`Journal::read_backlog`] this reads a queue from its `n`-th message on.
    pub fn nth_message(&self, queue: QueueId, n: u64) -> Result<Option<Lsn>, JournalError> {
        backlog::nth(&self.shared().books, queue, n)
    }

    /// As [`Journal::nth_message`], of the messages behind `after`. Goes through the lists from there on, so
    /// `n` should not be more than a segment holds.
    pub fn nth_message_behind(
        &self,
        queue: QueueId,
        after: Lsn,
        n: u64,
    ) -> Result<Option<Lsn>, JournalError> {
        backlog::nth_behind(&self.shared().books, queue, after, n)
    }

    /// A queue's live messages behind `after` in spans of at most about `bytes_max` bytes of bodies, in order.
    /// Reads no message, and the lists of a segment only where its account is not enough. To be called
    /// before anything else happens in the queue.
    pub fn spans(
        &self,
        queue: QueueId,
        after: Lsn,
        bytes_max: u64,
    ) -> Result<Vec<Span>, JournalError> {
        spans::spans(&self.shared().books, queue, after, bytes_max)
    }

    /// Bytes appended and not yet written: a measure of how far the disk is behind.
    pub fn pending_bytes(&self) -> usize {
        self.shared().lock().appender.pending_bytes()
    }

    /// How large the store is. Looks at each segment's account.
    pub fn usage(&self) -> JournalUsage {
        let mut usage = JournalUsage {
            durable_record: self.durable_lsn().lsn().0,
            ..JournalUsage::default()
        };
        let ledger = self.shared().books.ledger();
        usage.memory_bytes = ledger.memory_bytes() as u64;
        for (_, account) in ledger.segments() {
            usage.segment_count += 1;
            usage.file_bytes = usage.file_bytes.saturating_add(account.file_bytes);
            usage.live_bytes = usage.live_bytes.saturating_add(account.live_bytes());
        }
        usage
    }

    /// What the scrubber has read and found since the store was opened.
    pub fn scrubbed(&self) -> Scrubbed {
        self.shared().scrubbed.lock().clone()
    }

    /// The failure that stopped the store, if any.
    pub fn failed(&self) -> Option<StorageFailure> {
        self.shared().failure().cloned()
    }

    /// Writes what is pending and the clean-stop mark, syncs, and ends the sync thread.
    ///
    /// Later appends give `Closed`. Without it the next open counts as unclean.
    pub fn close(&self) -> Result<(), JournalError> {
        self.begin_close();
        self.handle.join();
        match self.failed() {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    fn begin_close(&self) {
        self.shared().begin_stop(|appender| {
            appender.append(record_bytes(0), |out, lsn| {
                encode_plain(out, &Head::new(Kind::CleanStop, lsn, 0), &[]);
            });
        });
    }
}

/// An entry of a batch, encoded as far as it can be before its number is known.
enum Prepared<'a> {
    Message {
        message: NewMessage<'a>,
        body_bytes: usize,
    },
    Plain {
        kind: Kind,
        extra: u32,
        queue: QueueId,
        body: Vec<u8>,
    },
}

impl Prepared<'_> {
    fn record_bytes(&self) -> usize {
        match self {
            Self::Message { body_bytes, .. } => record_bytes(*body_bytes),
            Self::Plain { body, .. } => record_bytes(body.len()),
        }
    }

    fn append(&self, appender: &mut Appender, more: bool) -> (Lsn, Location) {
        appender.append(self.record_bytes(), |out, lsn| match self {
            Self::Message {
                message,
                body_bytes,
            } => {
                record::encode_message(out, lsn, more, message, *body_bytes);
            }
            Self::Plain {
                kind,
                extra,
                queue,
                body,
            } => {
                encode_runs_record(out, (*kind, *extra), lsn, more, *queue, body);
            }
        })
    }
}

fn runs_body(lsns: &[Lsn]) -> SmallVec<[u8; 64]> {
    let mut body = SmallVec::new();
    encode_runs(&mut body, lsns);
    body
}

fn ranges_body(ranges: &[(Lsn, Lsn)]) -> Vec<u8> {
    let mut runs = RunSet::default();
    for (first, last) in ranges.iter().filter(|(first, last)| first <= last) {
        runs.insert_run(*first, (last.0 - first.0).saturating_add(1));
    }
    let mut body = Vec::new();
    record::encode_sorted_runs(&mut body, runs.iter());
    body
}

fn encode_runs_record(
    out: &mut Vec<u8>,
    (kind, extra): (Kind, u32),
    lsn: Lsn,
    more: bool,
    queue: QueueId,
    body: &[u8],
) {
    let mut head = Head::new(kind, lsn, body.len());
    head.more = more;
    head.extra = extra;
    head.queue = queue;
    encode_plain(out, &head, body);
}

/// Drives a journal without a thread. Spec: [`Journal::open_by_hand`].
#[cfg(any(test, feature = "testing"))]
#[derive(Debug)]
pub struct Driver {
    committer: commit::Committer,
    scrubber: scrub::Scrubber,
}

#[cfg(any(test, feature = "testing"))]
impl Driver {
    /// One turn of the sync thread: writes, syncs and publishes what is pending, or cleans a little.
    /// Gives whether there was something to do; a failure stops the journal as in the thread.
    pub fn turn(&mut self) -> Result<bool, StorageFailure> {
        let turn = self.committer.turn(false);
        self.settle(turn)
    }

    /// As [`Driver::turn`], as if it had been quiet for long enough to write the closing mark.
    pub fn quiet_turn(&mut self) -> Result<bool, StorageFailure> {
        let turn = self.committer.turn(true);
        self.settle(turn)
    }

    /// One step of the scrubber; `false` if it ended a round.
    pub fn scrub_step(&mut self) -> bool {
        self.scrubber.step()
    }

    /// Closes the journal cleanly.
    pub fn close(mut self, journal: &Journal) -> Result<(), StorageFailure> {
        journal.begin_close();
        loop {
            let turn = self.committer.finish();
            if !self.settle(turn)? {
                self.committer.shared.set_stopped();
                return Ok(());
            }
        }
    }

    fn settle(&self, turn: Result<commit::Turn, StorageFailure>) -> Result<bool, StorageFailure> {
        match turn {
            Ok(turn) => Ok(turn == commit::Turn::Worked),
            Err(failure) => {
                self.committer.shared.fail(&failure);
                Err(failure)
            }
        }
    }
}
