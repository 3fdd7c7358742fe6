//! What can go wrong in the payload store, told by who must act.

use std::io;
use std::path::{Path, PathBuf};

use crate::payload::geometry::GeometryError;
use crate::payload::id::{PayloadId, ScopeId};
use crate::payload::manifest::ManifestError;

/// An error of one payload; the store and every other payload stay usable. Spec: STORE-18.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The adopted file is no longer what it was when it was hashed.
    #[error("'{}' changed while it was served; send it again", path.display())]
    Changed {
        /// The owner's file.
        path: PathBuf,
    },
    /// The payload's own files contradict each other or its id.
    #[error("payload {id} is damaged on disk: {reason}")]
    Damaged {
        /// Which payload.
        id: PayloadId,
        /// What does not fit.
        reason: &'static str,
    },
    /// The disk has not enough free space.
    #[error(
        "no space for {needed_bytes} bytes in the payload store: {free_bytes} free on its disk"
    )]
    DiskFull {
        /// Bytes that were to be written.
        needed_bytes: u64,
        /// Bytes free when it failed, less what must stay free or is promised to running uploads.
        free_bytes: u64,
    },
    /// A size that no payload may have.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The file system refused a step.
    #[error("cannot {step} '{}': {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Fields that make no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The range has a piece that is not held.
    #[error("payload {id}: piece {piece} is not held")]
    MissingPiece {
        /// Which payload.
        id: PayloadId,
        /// The first piece that is missing.
        piece: u32,
    },
    /// No such payload in this scope.
    #[error("no payload {id} in scope {scope}")]
    NotFound {
        /// Where it was looked for.
        scope: ScopeId,
        /// Which payload.
        id: PayloadId,
    },
    /// The range ends after the payload does.
    #[error("payload {id} of {size_bytes} bytes has no range up to {end_bytes}")]
    OutOfRange {
        /// Which payload.
        id: PayloadId,
        /// Its size.
        size_bytes: u64,
        /// Where the range would end.
        end_bytes: u64,
    },
    /// The same payload is being fetched with pieces of another size.
    #[error("payload {id} is being fetched with another piece size")]
    PieceSizeInUse {
        /// Which payload.
        id: PayloadId,
    },
    /// The quota is used up by payloads that are in use.
    #[error(
        "no room for {needed_bytes} bytes in the payload store: {used_bytes} of its quota of \
         {quota_bytes} are in use"
    )]
    QuotaExceeded {
        /// Bytes that were to be stored.
        needed_bytes: u64,
        /// Bytes in use that cannot be freed.
        used_bytes: u64,
        /// The quota.
        quota_bytes: u64,
    },
    /// The payload's file does not give its bytes.
    #[error("cannot read payload {id}: {source}")]
    Read {
        /// Which payload.
        id: PayloadId,
        /// What the system said.
        source: io::Error,
    },
    /// A message that was acknowledged may come back after a crash and need it; it goes a little later.
    #[error("payload {id} cannot be removed yet: an acknowledgement is not on disk")]
    StillNeeded {
        /// Which payload.
        id: PayloadId,
    },
    /// More bytes came than the upload declared.
    #[error("more than the declared {declared_bytes} bytes came")]
    UploadTooLong {
        /// Size given at the start.
        declared_bytes: u64,
    },
    /// The upload ended before all declared bytes came.
    #[error("{got_bytes} bytes came of {declared_bytes} declared")]
    UploadTooShort {
        /// Size given at the start.
        declared_bytes: u64,
        /// Bytes that came.
        got_bytes: u64,
    },
}

impl StoreError {
    /// Whether it is for want of space: the publisher may try again later.
    pub fn is_for_space(&self) -> bool {
        match self {
            Self::DiskFull { .. } | Self::QuotaExceeded { .. } | Self::StillNeeded { .. } => true,
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            _ => false,
        }
    }

    /// The error of one step on one file.
    pub(super) fn io(step: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            step,
            path: path.to_owned(),
            source,
        }
    }
}
