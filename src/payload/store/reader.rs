//! Reads ranges of one payload, wherever it lies.
//!
//! Owns: an open file and a reference. No lock is held while a file is read.
//! Spec: `spec/payload-store.md` STORE-12.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{self, DiskFile, OpenMode};
use crate::payload::bitfield::Bitfield;
use crate::payload::geometry::{Geometry, PieceIndex};
use crate::payload::hash::PieceHasher;
use crate::payload::id::{PayloadId, PieceHash, ScopeId};
use crate::payload::store::adopted::AdoptedFile;
use crate::payload::store::checked::{Checked, CheckedFile};
use crate::payload::store::error::StoreError;
use crate::payload::store::meta;
use crate::payload::store::partial::PartialShared;
use crate::payload::store::paths::{Key, META_ENDING, beside};
use crate::payload::store::{Content, Entry, Inner, PayloadReference};

/// Portion in which a file is read to be hashed, in bytes.
pub(super) const HASH_READ_BYTES: usize = 256 * 1024;

/// Reads ranges of one payload from any thread; keeps the payload in the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PayloadReader {
    id: PayloadId,
    geometry: Geometry,
    source: Source,
    reference: PayloadReference,
}

#[derive(Clone, Debug)]
enum Source {
    Adopted(Arc<AdoptedFile>),
    Complete(Arc<CheckedFile>),
    Partial(Arc<PartialShared>),
}

impl PayloadReader {
    pub(super) fn open(inner: &Arc<Inner>, key: Key) -> Result<Self, StoreError> {
        let reference = PayloadReference::take(inner, key);
        let not_found = || StoreError::NotFound {
            scope: key.scope,
            id: key.id,
        };
        let (geometry, source) = {
            let state = inner.state.lock();
            let Entry {
                geometry, content, ..
            } = state.entries.get(&key).ok_or_else(not_found)?;
            let source = match content {
                Content::Adopted(file) => Some(Source::Adopted(Arc::clone(file))),
                Content::Complete { open, .. } => open
                    .as_ref()
                    .and_then(|open| open.upgrade())
                    .map(Source::Complete),
                Content::Partial { open } => {
                    let open = open.as_ref().and_then(|open| open.upgrade());
                    Some(Source::Partial(open.ok_or_else(not_found)?))
                }
            };
            (*geometry, source)
        };
        let source = match source {
            Some(source) => source,
            None => Source::Complete(open_complete(inner, key)?),
        };
        Ok(Self {
            id: key.id,
            geometry,
            source,
            reference,
        })
    }

    /// The payload's name.
    pub fn id(&self) -> PayloadId {
        self.id
    }

    /// Its size and the size of its pieces.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Which pieces can be read now.
    pub fn held(&self) -> Bitfield {
        match &self.source {
            Source::Adopted(_) | Source::Complete(_) => Bitfield::full(&self.geometry),
            Source::Partial(partial) => partial.held(),
        }
    }

    /// The payload's file in the store, if it is complete and every byte is known to be right as of now:
    /// for who gives it one more name by a hard link.
    ///
    /// What is written under that name later is noticed at the next read. Spec: STORE-22.
    pub fn whole_file(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Complete(file) => file
                .is_right()
                .is_ok_and(|is_right| is_right)
                .then(|| self.reference.inner.paths.complete(self.reference.key)),
            Source::Adopted(_) | Source::Partial(_) => None,
        }
    }

    /// The payload's file, if what the range touches is held and known to be right as of now, and the file is the
    /// store's own: for a system call that takes the range past this process. That may wait for the disk.
    pub fn right_file(&self, offset_bytes: u64, length_bytes: u64) -> Option<Arc<dyn DiskFile>> {
        let end_bytes = offset_bytes.saturating_add(length_bytes);
        if end_bytes > self.geometry.size_bytes() {
            return None;
        }
        let length_bytes = usize::try_from(length_bytes).ok()?;
        match &self.source {
            Source::Complete(file) => file.right_file(offset_bytes, length_bytes),
            Source::Partial(partial) => partial.right_file(offset_bytes, length_bytes),
            // Whose file it is may write to it while the range is on its way.
            Source::Adopted(_) => None,
        }
    }

    /// As [`Self::right_file`], if the range lies in the system's cache. Waits for no disk.
    pub fn cached_file(&self, offset_bytes: u64, length_bytes: u64) -> Option<Arc<dyn DiskFile>> {
        let file = self.right_file(offset_bytes, length_bytes)?;
        let is_cached = |os| disk::is_cached(os, offset_bytes, length_bytes);
        file.os_file().is_some_and(is_cached).then_some(file)
    }

    /// In which scope it is.
    pub fn scope(&self) -> ScopeId {
        self.reference.scope()
    }

    /// Trusts no byte any more: each piece is hashed again before it is next given out.
    pub fn doubt(&self) {
        // req: STORE-24
        match &self.source {
            Source::Adopted(file) => file.doubt(),
            Source::Complete(file) => {
                file.doubt();
                self.reference.inner.none_checked(self.reference.key);
            }
            Source::Partial(partial) => partial.doubt(),
        }
    }

    /// Fills `buffer` with the payload's bytes from `offset_bytes` on. Blocks on the file.
    ///
    /// Fails if the range ends after the payload, has a piece that is not held, or the file does not
    /// give it; then what `buffer` holds is not to be used.
    pub fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<(), StoreError> {
        // req: STORE-12
        let size_bytes = self.geometry.size_bytes();
        let end_bytes = offset_bytes.saturating_add(buffer.len() as u64);
        if end_bytes > size_bytes {
            return Err(StoreError::OutOfRange {
                id: self.id,
                size_bytes,
                end_bytes,
            });
        }
        match &self.source {
            Source::Adopted(file) => file.read_at(buffer, offset_bytes),
            Source::Complete(file) => {
                if let Checked::All(at) = file.read_at(buffer, offset_bytes)? {
                    self.reference.inner.all_checked(self.reference.key, at);
                }
                Ok(())
            }
            Source::Partial(partial) => partial.read_at(buffer, offset_bytes),
        }
    }
}

/// Opens the file of a complete payload, once for all readers.
fn open_complete(inner: &Inner, key: Key) -> Result<Arc<CheckedFile>, StoreError> {
    let path = inner.paths.complete(key);
    let file = inner
        .disk
        .open(&path, OpenMode::Read)
        .map_err(|source| StoreError::io("open", &path, source))?;
    let file: Arc<dyn DiskFile> = Arc::from(file);
    let checked_at = match inner
        .state
        .lock()
        .entries
        .get(&key)
        .map(|entry| &entry.content)
    {
        Some(Content::Complete { checked_at, .. }) => *checked_at,
        Some(Content::Adopted(_) | Content::Partial { .. }) | None => None,
    };
    let meta = beside(&path, META_ENDING);
    let manifest = meta::read_manifest(&*inner.disk, &meta, key.id)?;
    let file = CheckedFile::new(file, &manifest, checked_at);
    let file = Arc::new(file.map_err(|source| StoreError::io("look at", &path, source))?);
    let mut state = inner.state.lock();
    if let Some(Entry {
        content: Content::Complete { open, .. },
        ..
    }) = state.entries.get_mut(&key)
    {
        match open.as_ref().and_then(|open| open.upgrade()) {
            Some(earlier) => return Ok(earlier),
            None => *open = Some(Arc::downgrade(&file)),
        }
    }
    Ok(file)
}

impl Inner {
    /// Nothing of a complete payload is known to be right any more.
    pub(super) fn none_checked(&self, key: Key) {
        if let Some(Entry {
            content: Content::Complete { checked_at, .. },
            ..
        }) = self.state.lock().entries.get_mut(&key)
        {
            *checked_at = None;
        }
    }

    /// All bytes of a complete payload were read and were right, in a file modified last `at`.
    pub(super) fn all_checked(&self, key: Key, at: Duration) {
        if let Some(Entry {
            content: Content::Complete { checked_at, .. },
            ..
        }) = self.state.lock().entries.get_mut(&key)
        {
            *checked_at = Some(at);
        }
    }
}

/// The pieces that `buffer_bytes` from `offset_bytes` touch.
pub(super) fn pieces_of_range(
    geometry: &Geometry,
    offset_bytes: u64,
    buffer_bytes: usize,
) -> impl Iterator<Item = PieceIndex> + use<> {
    let end_bytes = offset_bytes.saturating_add(buffer_bytes as u64);
    let first = geometry
        .piece_at(offset_bytes)
        .map_or(u32::MAX, PieceIndex::get);
    let last = end_bytes
        .checked_sub(1)
        .and_then(|last| geometry.piece_at(last));
    let last = last
        .filter(|_| buffer_bytes > 0)
        .map_or(0, |last| last.get() + 1);
    let geometry = *geometry;
    (first..last).filter_map(move |index| geometry.piece_index(index))
}

/// The hash of what a file holds where `piece` lies; `None` if the file is too short.
pub(super) fn hash_piece_of(
    file: &dyn DiskFile,
    geometry: &Geometry,
    piece: PieceIndex,
) -> std::io::Result<Option<PieceHash>> {
    let range = geometry.piece_range(piece);
    let mut hasher = PieceHasher::new(geometry, piece);
    let mut buffer = vec![0; HASH_READ_BYTES.min(geometry.piece_len_bytes(piece) as usize)];
    let mut position = range.start;
    while hasher.left_bytes() > 0 {
        let want = buffer.len().min(hasher.left_bytes() as usize);
        let (portion, _) = buffer.split_at_mut(want);
        match file.read_exact_at(portion, position) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        hasher.update(portion);
        position += want as u64;
    }
    Ok(hasher.finish())
}
