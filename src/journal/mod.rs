//! The durable log: one order for messages, acknowledgements and definitions.
//!
//! Owns: the segment files of one directory and the thread that writes and syncs them. Knows nothing
//! of exchanges, consumers or sockets; definitions are keys and values to it.
//! Bound: appended but unwritten bytes (`pending_bytes_max`); a few bytes of account per segment and
//! queue; nothing per message.
//! Spec: `spec/journal.md`.

mod commit;
mod error;
mod settings;
mod types;

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;

pub use commit::DurableLsn;
pub use error::{JournalError, StorageFailure};
pub use settings::{JournalSettings, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SyncMode};
pub use types::{
    Appended, BodyRecord, Entry, Location, Lsn, NewMessage, PayloadRecord, QueueId, Recovered,
    RecoveredMessage, StoredBody, StoredMessage,
};

/// Called by the sync thread with each new durable position; must not append and must not block.
pub type CommitListener = Box<dyn Fn(DurableLsn) + Send + Sync>;
/// Called by the sync thread once, when the store fails.
pub type FailureListener = Box<dyn Fn(&StorageFailure) + Send + Sync>;
/// Called by the sync thread when space grows short (`true`) and when there is enough again (`false`).
pub type SpaceListener = Box<dyn Fn(bool) + Send + Sync>;

/// A handle to an open journal; clones share it.
///
/// Appends go to memory and return at once, unless `pending_bytes_max` bytes wait to be written: then
/// they wait for the disk. A record is durable when [`Journal::durable_lsn`] has reached its number.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<commit::Shared>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Journal")
            .field("durable", &self.durable_lsn())
            .finish_non_exhaustive()
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
        let _ = (disk, dir, settings);
        Err(JournalError::Closed)
    }

    /// Appends a message; it is safe once its number is durable.
    ///
    /// A caller that finds one of the queues deleted after this call must ack the message for it.
    pub fn append_message(&self, message: &NewMessage<'_>) -> Result<Appended, JournalError> {
        let _ = message;
        Err(JournalError::Closed)
    }

    /// Appends that messages left a queue: acknowledged, rejected, expired, purged, or dropped.
    ///
    /// `lsns` in any order, each at most once in the queue's life; runs of numbers take a few bytes, so
    /// that a purge is simply the acks of all that was ready.
    pub fn append_acks(&self, queue: QueueId, lsns: &[Lsn]) -> Result<Lsn, JournalError> {
        let _ = (queue, lsns);
        Err(JournalError::Closed)
    }

    /// Notes which messages of a queue have been delivered at least once; called before a clean stop.
    pub fn append_delivered(&self, queue: QueueId, lsns: &[Lsn]) -> Result<Lsn, JournalError> {
        let _ = (queue, lsns);
        Err(JournalError::Closed)
    }

    /// Appends that a queue and all its messages are gone; its id must not be used again.
    pub fn append_queue_delete(&self, queue: QueueId) -> Result<Lsn, JournalError> {
        let _ = queue;
        Err(JournalError::Closed)
    }

    /// Sets (`Some`) or removes (`None`) a definition.
    pub fn put_definition(&self, key: &[u8], value: Option<&[u8]>) -> Result<Lsn, JournalError> {
        let _ = (key, value);
        Err(JournalError::Closed)
    }

    /// Appends all entries as one: after a crash all are there or none. Gives one place per entry; the
    /// batch is safe once the last number is durable.
    pub fn append_batch(&self, entries: &[Entry<'_>]) -> Result<Vec<Appended>, JournalError> {
        let _ = entries;
        Err(JournalError::Closed)
    }

    /// How far the log is durable.
    pub fn durable_lsn(&self) -> DurableLsn {
        self.shared.durable()
    }

    /// Blocks until `lsn` is durable, or gives the failure that prevents it.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<DurableLsn, JournalError> {
        let _ = lsn;
        Err(JournalError::Closed)
    }

    /// Sets who hears of each new durable position. Called on the sync thread with no lock held.
    pub fn set_commit_listener(&self, listener: CommitListener) {
        drop(listener);
    }

    /// Sets who hears, once, that the store failed.
    pub fn set_failure_listener(&self, listener: FailureListener) {
        drop(listener);
    }

    /// Sets who hears that disk space is short, and that it no longer is.
    pub fn set_space_listener(&self, listener: SpaceListener) {
        drop(listener);
    }

    /// Reads a message back; blocks on the disk, and until the record is written.
    pub fn read_message(
        &self,
        lsn: Lsn,
        location: Location,
    ) -> Result<StoredMessage, JournalError> {
        let _ = location;
        Err(JournalError::NotFound { lsn })
    }

    /// The failure that stopped the store, if any.
    pub fn failed(&self) -> Option<StorageFailure> {
        None
    }

    /// Writes what is pending and the clean-stop mark, syncs, and ends the sync thread.
    ///
    /// Later appends give `Closed`. Without it the next open counts as unclean.
    pub fn close(&self) -> Result<(), JournalError> {
        Ok(())
    }
}
