//! A body in a file of the store that is no payload: nobody needs it once its message is gone.
//!
//! Owns: one file among the uploads, and its space. What is written is neither hashed nor synced, and never overwritten: a
//! socket that took a range of the file may still be sending it from the system's cache.
//! Bound: [`BODY_FILE_COUNT_MAX`] at once.
//!
//! ```text
//! NewBodyFile ──finish──> BodyFile ──store──> payload; dropped before that, either leaves nothing.
//! ```
//! Spec: `spec/payload-store.md` MEMBODY-5, MEMBODY-6.

use std::fmt;
use std::io::IoSlice;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::disk::DiskFile;
use crate::payload::geometry::Geometry;
use crate::payload::hash::PayloadHasher;
use crate::payload::id::{AccessKey, PayloadId, PieceHash, ScopeId};
use crate::payload::store::error::StoreError;
use crate::payload::store::reader::HASH_READ_BYTES;
use crate::payload::store::upload::{Place, Written};
use crate::payload::store::{Inner, StoredPayload};

/// Most bodies in files at once: each has a file descriptor as long as its message lives, of which a process that was
/// granted 256 has 64 for files.
pub const BODY_FILE_COUNT_MAX: usize = 32;

/// A body on its way into a file; dropped before [`NewBodyFile::finish`], it leaves nothing.
#[derive(Debug)]
pub struct NewBodyFile {
    body: BodyFile,
    written_bytes: u64,
}

/// A whole body in a file that is no payload; dropped, it leaves nothing, unless it was stored.
pub struct BodyFile {
    // In this order: the space is free when nobody has the file open, and its name is gone.
    file: Arc<dyn DiskFile>,
    place: Mutex<Place>,
    /// What it would be called as a payload, once somebody asked.
    id: OnceLock<PayloadId>,
    geometry: Geometry,
    scope: ScopeId,
    inner: Arc<Inner>,
    _seat: Seat,
}

/// One of the bodies in files that there may be; free again when dropped.
struct Seat(Arc<Inner>);

impl NewBodyFile {
    pub(super) fn begin(
        inner: &Arc<Inner>,
        scope: ScopeId,
        size_bytes: u64,
    ) -> Result<Option<Self>, StoreError> {
        // req: MEMBODY-5
        let Some(seat) = Seat::take(inner) else {
            return Ok(None);
        };
        let geometry = Geometry::for_payload(size_bytes)?;
        let (place, file) = Place::create(inner, scope, size_bytes)?;
        let body = BodyFile {
            file,
            place: Mutex::new(place),
            id: OnceLock::new(),
            geometry,
            scope,
            inner: Arc::clone(inner),
            _seat: seat,
        };
        Ok(Some(Self {
            body,
            written_bytes: 0,
        }))
    }

    /// Takes the next bytes, which may lie apart. After an error, drop the file.
    ///
    /// # Errors
    /// If there are more than were declared, or the file does not take them.
    pub fn write(&mut self, parts: &[IoSlice<'_>]) -> Result<(), StoreError> {
        let new_bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let declared_bytes = self.body.size_bytes();
        if new_bytes > declared_bytes - self.written_bytes {
            return Err(StoreError::UploadTooLong { declared_bytes });
        }
        let place = self.body.place.get_mut();
        let written = self.body.file.write_parts_at(parts, self.written_bytes);
        written.map_err(|source| StoreError::io("write", place.path(), source))?;
        self.written_bytes += new_bytes;
        place.written(new_bytes);
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// If not all of it came.
    pub fn finish(self) -> Result<BodyFile, StoreError> {
        let (declared_bytes, got_bytes) = (self.body.size_bytes(), self.written_bytes);
        if got_bytes < declared_bytes {
            return Err(StoreError::UploadTooShort {
                declared_bytes,
                got_bytes,
            });
        }
        Ok(self.body)
    }
}

impl BodyFile {
    /// Length of the body in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.geometry.size_bytes()
    }

    /// The file, which has the body and nothing else.
    pub fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Fills `buffer` with the body's bytes from `offset_bytes` on. Blocks on the file.
    ///
    /// # Errors
    /// If the file does not give them.
    pub fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<(), StoreError> {
        let read = self.file.read_exact_at(buffer, offset_bytes);
        read.map_err(|source| StoreError::io("read", self.place.lock().path(), source))
    }

    /// What the body is called if it becomes a payload. Reads all of it the first time, and blocks on the file then.
    ///
    /// # Errors
    /// If the file does not give its bytes.
    pub fn id(&self) -> Result<PayloadId, StoreError> {
        match self.id.get() {
            Some(id) => Ok(*id),
            None => self.hash().map(|(id, _)| id),
        }
    }

    /// Makes the body a payload, where it lies: hashed, synced and known. Called again, by others at the same time too, it
    /// finds that payload. `key` is as for [`super::Store::begin_upload`]. Blocks on the file.
    ///
    /// # Errors
    /// If the file system refuses a step; the body can be read as before.
    pub fn store(&self, key: AccessKey) -> Result<StoredPayload, StoreError> {
        // req: MEMBODY-6
        let hashes = self.hash()?;
        let written = Written {
            inner: &self.inner,
            scope: self.scope,
            key,
            geometry: self.geometry,
            file: &*self.file,
            place: &self.place,
        };
        written.store(hashes)
    }

    fn hash(&self) -> Result<(PayloadId, Vec<PieceHash>), StoreError> {
        let mut hasher = PayloadHasher::new(self.geometry);
        let mut buffer = vec![0; HASH_READ_BYTES];
        let mut place_bytes = 0;
        while hasher.left_bytes() > 0 {
            let left = usize::try_from(hasher.left_bytes()).unwrap_or(usize::MAX);
            let (portion, _) = buffer.split_at_mut(left.min(HASH_READ_BYTES));
            self.read_at(portion, place_bytes)?;
            hasher.update(portion);
            place_bytes += portion.len() as u64;
        }
        let hashes = hasher.finish().ok_or_else(|| StoreError::UploadTooShort {
            declared_bytes: self.size_bytes(),
            got_bytes: place_bytes,
        })?;
        // Somebody else may have been faster, with the same.
        let _ = self.id.set(hashes.0);
        Ok(hashes)
    }
}

impl Seat {
    fn take(inner: &Arc<Inner>) -> Option<Self> {
        let mut state = inner.state.lock();
        if state.body_file_count == BODY_FILE_COUNT_MAX {
            return None;
        }
        state.body_file_count += 1;
        Some(Self(Arc::clone(inner)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.state.lock().body_file_count -= 1;
    }
}

impl fmt::Debug for BodyFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BodyFile")
            .field("scope", &self.scope)
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}
