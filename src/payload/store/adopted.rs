//! A file of somebody else that is served as a payload where it lies.
//!
//! Owns: the open file, its manifest, and what is known about whether it is still the same. Its owner
//! may write to it at any time, so a piece is served only after it was hashed again since the file
//! was last seen to change.
//! Bound: 8 KiB for the bitfield; one buffer of 256 KiB while a piece is hashed.
//! Spec: `spec/payload-store.md` STORE-13.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::payload::bitfield::Bitfield;
use crate::payload::geometry::Geometry;
use crate::payload::hash::PayloadHasher;
use crate::payload::id::AccessKey;
use crate::payload::manifest::{Hints, Manifest, ManifestParts};
use crate::payload::store::error::StoreError;
use crate::payload::store::reader::{hash_piece_of, pieces_of_range};
use crate::payload::writer::WRITE_BYTES;

/// What shows cheaply that a file may have changed; read by the caller, compared here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileStamp {
    /// Length in bytes.
    pub len_bytes: u64,
    /// Modification time since 1970.
    pub modified: Duration,
}

/// What an adopted file's manifest says besides what its bytes do.
#[derive(Clone, Debug)]
pub struct Origin {
    /// What a peer proves to know before it is served; from a secure random source.
    pub key: AccessKey,
    /// Where peers begin, as `host:port`.
    pub peers: Vec<String>,
    /// The sender's name for the payload.
    pub name: Option<String>,
    /// The content type of the payload.
    pub content_type: Option<String>,
}

/// A file served in place.
#[derive(Debug)]
pub struct AdoptedFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    manifest: Manifest,
    trust: Mutex<Trust>,
}

#[derive(Debug)]
struct Trust {
    stamp: FileStamp,
    /// Pieces that were hashed again since the stamp last changed.
    checked: Bitfield,
}

impl AdoptedFile {
    /// Hashes the file at `path`, of which `stamp` was read just before; tells `on_progress` how many
    /// bytes were hashed so far, about every 1 MiB.
    pub fn hash(
        disk: &dyn Disk,
        path: &Path,
        stamp: FileStamp,
        origin: Origin,
        mut on_progress: impl FnMut(u64),
    ) -> Result<Self, StoreError> {
        let io = |source| StoreError::io("read", path, source);
        let changed = || StoreError::Changed {
            path: path.to_owned(),
        };
        let file = disk.open(path, OpenMode::Read).map_err(io)?;
        let size_bytes = file.len_bytes().map_err(io)?;
        if size_bytes != stamp.len_bytes {
            return Err(changed());
        }
        let geometry = Geometry::for_payload(size_bytes)?;
        let mut hasher = PayloadHasher::new(geometry);
        let buffer_bytes = usize::try_from(size_bytes)
            .unwrap_or(WRITE_BYTES)
            .min(WRITE_BYTES);
        let mut buffer = vec![0; buffer_bytes];
        let mut position = 0;
        while hasher.left_bytes() > 0 {
            let got = file.read_at(&mut buffer, position).map_err(io)?;
            if got == 0 {
                return Err(changed());
            }
            position += hasher.update(buffer.get(..got).unwrap_or(&buffer)) as u64;
            on_progress(position);
        }
        let (id, piece_hashes) = hasher.finish().ok_or_else(changed)?;
        let Origin {
            key,
            peers,
            name,
            content_type,
        } = origin;
        let manifest = Manifest::new(ManifestParts {
            id,
            geometry,
            piece_hashes,
            peers,
            key,
            name,
            content_type,
            hints: Hints::default(),
        })?;
        let checked = Bitfield::empty(&geometry);
        Ok(Self {
            path: path.to_owned(),
            file: Arc::from(file),
            manifest,
            trust: Mutex::new(Trust { stamp, checked }),
        })
    }

    /// The file's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the file's stamp as it is now; if it differs from the last, nothing is trusted any more.
    pub fn observe(&self, stamp: FileStamp) {
        // req: STORE-13
        let mut trust = self.trust.lock();
        if trust.stamp != stamp {
            trust.stamp = stamp;
            trust.checked = Bitfield::empty(self.manifest.geometry());
        }
    }

    /// Nothing of it is trusted any more.
    pub(super) fn doubt(&self) {
        self.trust.lock().checked = Bitfield::empty(self.manifest.geometry());
    }

    /// Fills `buffer` from `offset_bytes`; pieces not checked since the last change are hashed first.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<(), StoreError> {
        // req: STORE-13
        let geometry = self.manifest.geometry();
        let id = self.manifest.id();
        let read_error = |source| StoreError::Read { id, source };
        let changed = || StoreError::Changed {
            path: self.path.clone(),
        };
        if self.file.len_bytes().map_err(read_error)? != geometry.size_bytes() {
            return Err(changed());
        }
        for piece in pieces_of_range(geometry, offset_bytes, buffer.len()) {
            let stamp = {
                let trust = self.trust.lock();
                if trust.checked.has(piece) {
                    continue;
                }
                trust.stamp
            };
            let hash = hash_piece_of(&*self.file, geometry, piece).map_err(read_error)?;
            if hash.is_none() || hash.as_ref() != self.manifest.piece_hashes().get(piece.as_usize())
            {
                return Err(changed());
            }
            let mut trust = self.trust.lock();
            if trust.stamp == stamp {
                trust.checked.set(piece);
            }
        }
        self.file
            .read_exact_at(buffer, offset_bytes)
            .map_err(read_error)
    }
}
