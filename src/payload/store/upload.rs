//! A payload on its way in whose id is not known yet, and the steps by which a file becomes a payload.
//!
//! Owns: one temporary file, which goes away with the upload unless it is finished.
//! Spec: `spec/payload-store.md` STORE-1, STORE-2, STORE-6, STORE-7.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{DiskFile, OpenMode};
use crate::payload::geometry::Geometry;
use crate::payload::id::{AccessKey, PayloadId, PieceHash, ScopeId};
use crate::payload::manifest::{Hints, Manifest, ManifestParts};
use crate::payload::store::error::StoreError;
use crate::payload::store::paths::Key;
use crate::payload::store::reserve::Reservation;
use crate::payload::store::{Content, Entry, Inner, PayloadReference, StoredPayload};
use crate::payload::writer::{PayloadWriter, WriteError};
use crate::sabotage::{self, Sabotage};

/// A payload being stored; dropped before [`Upload::finish`], it leaves nothing.
pub struct Upload {
    inner: Arc<Inner>,
    scope: ScopeId,
    key: AccessKey,
    geometry: Geometry,
    writer: PayloadWriter,
    file: Arc<dyn DiskFile>,
    place: Place,
}

/// Reads what was written of an upload, also while it goes on and after it was finished or given up.
#[derive(Clone, Debug)]
pub struct UploadReader {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl UploadReader {
    /// Fills `buffer` from `offset_bytes`; only what was written has meaning. Blocks on the file.
    ///
    /// # Errors
    /// If the file does not give it.
    pub fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<(), StoreError> {
        let read = self.file.read_exact_at(buffer, offset_bytes);
        read.map_err(|source| StoreError::io("read", &self.path, source))
    }
}

/// Where a body lies that is no payload yet: a file among the uploads, which goes away with this, and its space.
pub(super) struct Place {
    temporary: Temporary,
    /// Until it is a stored payload's.
    reservation: Option<Reservation>,
    is_sync_failed: bool,
}

/// All of a body, in a file, on its way to be a payload.
pub(super) struct Written<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) scope: ScopeId,
    pub(super) key: AccessKey,
    pub(super) geometry: Geometry,
    pub(super) file: &'a dyn DiskFile,
    pub(super) place: &'a Mutex<Place>,
}

/// Removes the file when dropped, unless it was moved away.
pub(super) struct Temporary {
    inner: Arc<Inner>,
    path: PathBuf,
    is_moved: bool,
}

impl Upload {
    pub(super) fn begin(
        inner: &Arc<Inner>,
        scope: ScopeId,
        size_bytes: u64,
        key: AccessKey,
    ) -> Result<Self, StoreError> {
        let geometry = Geometry::for_payload(size_bytes)?;
        let (place, file) = Place::create(inner, scope, size_bytes)?;
        Ok(Self {
            inner: Arc::clone(inner),
            scope,
            key,
            geometry,
            writer: PayloadWriter::new(geometry),
            file,
            place,
        })
    }

    /// Takes the next bytes, in portions of any size. After an error, drop the upload.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let before_bytes = self.writer.written_bytes();
        let outcome = self.writer.write(bytes, &*self.file);
        let new_bytes = self.writer.written_bytes() - before_bytes;
        self.place.written(new_bytes);
        outcome.map_err(|error| self.place.explain(error))
    }

    /// Writes and hashes what waits for more: then [`Upload::piece_hashes`] has every whole piece that came.
    ///
    /// # Errors
    /// As [`Upload::write`].
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let before_bytes = self.writer.written_bytes();
        let outcome = self.writer.flush(&*self.file);
        let new_bytes = self.writer.written_bytes() - before_bytes;
        self.place.written(new_bytes);
        outcome.map_err(|error| self.place.explain(error))
    }

    /// The hashes of the pieces that are whole and written so far, from the first on.
    pub fn piece_hashes(&self) -> &[PieceHash] {
        self.writer.piece_hashes()
    }

    /// Its size and the size of its pieces.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// A reader of what was written.
    pub fn reader(&self) -> UploadReader {
        UploadReader {
            path: self.place.path().to_owned(),
            file: Arc::clone(&self.file),
        }
    }

    /// Size that was declared, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.geometry.size_bytes()
    }

    /// Bytes taken so far.
    pub fn taken_bytes(&self) -> u64 {
        self.writer.taken_bytes()
    }

    /// Makes the payload durable and known; after this it survives power loss. Spec: STORE-1.
    pub fn finish(self) -> Result<StoredPayload, StoreError> {
        let Self {
            inner,
            scope,
            key,
            geometry,
            writer,
            file,
            place,
        } = self;
        let hashes = writer
            .finish(&*file)
            .map_err(|error| place.explain(error))?;
        let written = Written {
            inner: &inner,
            scope,
            key,
            geometry,
            file: &*file,
            place: &Mutex::new(place),
        };
        written.store(hashes)
    }
}

impl Place {
    /// Takes space, and creates a file that is not there yet.
    pub(super) fn create(
        inner: &Arc<Inner>,
        scope: ScopeId,
        size_bytes: u64,
    ) -> Result<(Self, Arc<dyn DiskFile>), StoreError> {
        // req: STORE-6
        let reservation = Reservation::take(inner, size_bytes)?;
        let (temporary, file) = Temporary::create(inner, scope)?;
        let place = Self {
            temporary,
            reservation: Some(reservation),
            is_sync_failed: false,
        };
        Ok((place, file))
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Tells that so many bytes more are on the disk.
    pub(super) fn written(&mut self, bytes: u64) {
        if let Some(reservation) = self.reservation.as_mut().filter(|_| bytes > 0) {
            reservation.written(bytes);
        }
    }

    fn explain(&self, error: WriteError) -> StoreError {
        match error {
            WriteError::TooLong { declared_bytes } => StoreError::UploadTooLong { declared_bytes },
            WriteError::TooShort {
                declared_bytes,
                got_bytes,
            } => StoreError::UploadTooShort {
                declared_bytes,
                got_bytes,
            },
            WriteError::Io(source) => StoreError::io("write", self.path(), source),
        }
    }
}

impl Written<'_> {
    /// Makes it a durable and known payload, unless an equal one is there; only then it has its place no more.
    pub(super) fn store(
        self,
        (id, piece_hashes): (PayloadId, Vec<PieceHash>),
    ) -> Result<StoredPayload, StoreError> {
        let Self {
            inner,
            scope,
            key,
            geometry,
            file,
            place,
        } = self;
        let manifest = Manifest::new(ManifestParts {
            id,
            geometry,
            piece_hashes,
            peers: Vec::new(),
            key: key.clone(),
            name: None,
            content_type: None,
            hints: Hints::default(),
        })?;
        let store_key = Key { scope, id };
        let reference = PayloadReference::take(inner, store_key);
        let busy = inner.busy(store_key);
        // req: STORE-2
        if let Some(entry) = inner.state.lock().entries.get(&store_key)
            && matches!(entry.content, Content::Complete { .. })
        {
            return Ok(StoredPayload {
                id,
                geometry: entry.geometry,
                reference,
            });
        }
        let path = place.lock().path().to_owned();
        // req: STORE-18
        if place.lock().is_sync_failed {
            let source = io::Error::other("an earlier sync of it failed");
            return Err(StoreError::io("sync", &path, source));
        }
        if !sabotage::is(Sabotage::PayloadUnsynced) {
            file.sync_data().map_err(|source| {
                place.lock().is_sync_failed = true;
                StoreError::io("sync", &path, source)
            })?;
        }
        let modified = file
            .modified()
            .map_err(|source| StoreError::io("look at", &path, source))?;
        inner.commit(store_key, &manifest, &path)?;
        let reservation = {
            let mut place = place.lock();
            place.temporary.is_moved = true;
            place.reservation.take()
        };
        let entry = Entry {
            geometry,
            key,
            is_pinned: false,
            idle_since: None,
            content: Content::Complete {
                open: None,
                checked_at: Some(modified),
            },
        };
        let replaced = {
            let mut state = inner.state.lock();
            if let Some(reservation) = reservation {
                reservation.keep(&mut state);
            }
            let replaced = state.entries.insert(store_key, entry);
            if let Some(Entry {
                content: Content::Partial { .. },
                geometry,
                ..
            }) = &replaced
            {
                state.stored_bytes -= geometry.size_bytes();
            }
            replaced
        };
        if let Some(Entry {
            content: Content::Partial { .. },
            ..
        }) = replaced
        {
            // Best effort: a partial file beside the complete one is removed at the next start.
            let _ = inner.remove_partial_files(store_key);
        }
        drop(busy);
        Ok(StoredPayload {
            id,
            geometry,
            reference,
        })
    }
}

impl Temporary {
    /// A file among the uploads that is not there yet.
    pub(super) fn create(
        inner: &Arc<Inner>,
        scope: ScopeId,
    ) -> Result<(Self, Arc<dyn DiskFile>), StoreError> {
        inner.ensure_folder(&inner.paths.upload_folder(scope))?;
        let path = inner.paths.upload(scope, inner.next_upload());
        let file = inner
            .disk
            .open(&path, OpenMode::CreateNew)
            .map_err(|source| StoreError::io("create", &path, source))?;
        let temporary = Self {
            inner: Arc::clone(inner),
            path,
            is_moved: false,
        };
        Ok((temporary, Arc::from(file)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the file, which is nobody's to remove from then on.
    pub(super) fn move_to(&mut self, to: &Path) -> Result<(), StoreError> {
        self.inner.rename(&self.path, to)?;
        self.is_moved = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_moved
            && let Err(error) = self.inner.remove_if_there(&self.path)
        {
            tracing::warn!(%error, "cannot remove an upload that was given up");
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Upload")
            .field("scope", &self.scope)
            .field("geometry", &self.geometry)
            .field("taken_bytes", &self.taken_bytes())
            .finish_non_exhaustive()
    }
}
