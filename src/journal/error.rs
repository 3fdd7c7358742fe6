//! What can go wrong in the journal, split by who must act.
//!
//! Spec: `spec/journal.md`, "Failure".

use std::io;
use std::path::PathBuf;

/// Why the journal did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The store failed earlier: nothing more is written or confirmed. The process should end.
    #[error(transparent)]
    Failed(#[from] StorageFailure),
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
    /// One record would be larger than half a segment.
    #[error("a record of {got_bytes} bytes is over the limit of {max_bytes}")]
    RecordTooLarge {
        /// What the record would take, in bytes.
        got_bytes: u64,
        /// The bound, in bytes.
        max_bytes: u64,
    },
    /// The message is not in the store: it was acknowledged, or never was there.
    #[error("message {lsn} is not in the journal")]
    NotFound {
        /// The number asked for.
        lsn: super::Lsn,
    },
    /// The message was appended, but the disk is full: it cannot be read before it is written.
    #[error("message {lsn} is not on the disk yet, which is full")]
    WaitsForSpace {
        /// The number asked for.
        lsn: super::Lsn,
    },
    /// It cannot be read without waiting for the disk, and who asked does not wait.
    #[error("it cannot be read without waiting for the disk")]
    WouldWait,
    /// The store is damaged at a place that was durable. It is not opened; an operator must decide.
    #[error(
        "journal segment {path} is damaged at byte {offset}: {what}; \
         `warren journal repair` says what can be saved", path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The position in it, in bytes.
        offset: u64,
        /// What was found there.
        what: String,
    },
    /// A segment that must be there is missing.
    #[error(
        "journal segment {path} is missing; `warren journal repair` says what can be saved",
        path = path.display()
    )]
    SegmentMissing {
        /// The file that should exist.
        path: PathBuf,
    },
    /// The store was written by a later version, or is not a journal.
    #[error("{path} has journal format {version}, this program reads formats 1 and 2", path = path.display())]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// The format number found in it.
        version: u32,
    },
    /// A file could not be read or written while opening or reading.
    #[error("{doing} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: `open`, `read`, `write`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl JournalError {
    /// Whether a file is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A write or sync that failed: the page cache can no longer be trusted, so the store stops.
///
/// Nothing is retried. What was confirmed before stays true; nothing is confirmed afterwards.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the journal failed and confirms nothing more: {doing} {path}: {message}", path = path.display())]
pub struct StorageFailure {
    /// What was tried: `write`, `sync`, `rename`.
    pub doing: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's answer.
    pub message: String,
}
