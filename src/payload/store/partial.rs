//! A payload of which some pieces are there.
//!
//! Owns: the file that pieces are written to in any order, and the record of which are verified.
//! The record has four bytes for each piece and says how sure it is:
//!
//! ```text
//! nothing ──piece written──> written ──file synced──> synced
//!    ^                          │
//!    └──────sync failed─────────┘
//! ```
//! After a crash a *synced* piece is held; what is neither that nor nothing is hashed again.
//! Bound: 8 KiB for the bitfield, at most 64 MiB of pieces in doubt.
//! Spec: `spec/payload-store.md` STORE-8 to STORE-11.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};

use crate::disk::{DiskFile, OpenMode};
use crate::payload::bitfield::Bitfield;
use crate::payload::geometry::{Geometry, PieceIndex};
use crate::payload::id::{PayloadId, ScopeId};
use crate::payload::manifest::Manifest;
use crate::payload::store::checked::{Checked, CheckedFile};
use crate::payload::store::error::StoreError;
use crate::payload::store::paths::{HAVE_ENDING, Key, META_ENDING, beside};
use crate::payload::store::reader::{hash_piece_of, pieces_of_range};
use crate::payload::store::reserve::Reservation;
use crate::payload::store::upload::Temporary;
use crate::payload::store::{Content, Entry, Inner, PayloadReference, StoredPayload};
use crate::payload::store::{meta, write_new};
use crate::sabotage::{self, Sabotage};

/// Bytes written after which the file is synced and its pieces become certain.
pub(super) const SYNC_BYTES: u64 = 64 * 1024 * 1024;
/// Size of one piece's mark in the record, in bytes.
const MARK_BYTES: usize = 4;

/// What [`crate::payload::store::Store::begin_partial`] found.
#[derive(Clone, Debug)]
pub enum BegunPartial {
    /// The payload is whole already.
    Complete(StoredPayload),
    /// Pieces are missing, or all came but [`PartialPayload::complete`] was not called.
    Partial(PartialPayload),
}

/// A payload being collected piece by piece, from any thread. Clones share it.
#[derive(Clone, Debug)]
pub struct PartialPayload {
    shared: Arc<PartialShared>,
    reference: PayloadReference,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PieceOutcome {
    /// It was there before; nothing was written.
    AlreadyHeld,
    /// It is not what the manifest says; nothing was written.
    Mismatch,
    /// It is right and written.
    Stored,
    /// It is right, and nobody keeps it any more; nothing was written.
    NotKept,
}

pub(super) struct PartialShared {
    inner: Arc<Inner>,
    key: Key,
    manifest: Manifest,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    have: Box<dyn DiskFile>,
    progress: Mutex<Progress>,
    /// Told when a sync has ended.
    sync_ended: Condvar,
    /// The same file once the payload is complete: from then on it may have another name.
    whole: OnceLock<Arc<CheckedFile>>,
}

struct Progress {
    held: Bitfield,
    /// Held pieces that this process wrote, or has hashed: bits may rot between two runs.
    checked: Bitfield,
    /// Held pieces that no sync has covered yet.
    unsynced: Vec<PieceIndex>,
    unsynced_bytes: u64,
    /// Syncs that run now; until they end, pieces that they cover may yet be lost.
    syncing_count: u32,
    /// The metadata of a payload that was begun by this process, until it is synced, and with it that the files
    /// are there.
    new_meta: Option<Box<dyn DiskFile>>,
}

impl Progress {
    /// Pieces that are there and in doubt.
    fn note_unsynced(&mut self, geometry: &Geometry, pieces: Vec<PieceIndex>) {
        let bytes = pieces
            .iter()
            .map(|piece| u64::from(geometry.piece_len_bytes(*piece)));
        self.unsynced_bytes = bytes.sum();
        self.unsynced = pieces;
    }
}

/// Pieces in order, cut where one is missing between two.
fn rows(pieces: &[PieceIndex]) -> impl Iterator<Item = &[PieceIndex]> {
    pieces.chunk_by(|piece, next| piece.get() + 1 == next.get())
}

#[derive(Clone, Copy)]
enum Mark {
    Written,
    Synced,
}

/// Opens the payload's partial file, or begins one.
pub(super) fn begin(
    inner: &Arc<Inner>,
    scope: ScopeId,
    manifest: &Manifest,
) -> Result<BegunPartial, StoreError> {
    let key = Key {
        scope,
        id: manifest.id(),
    };
    let reference = PayloadReference::take(inner, key);
    let _busy = inner.busy(key);
    let on_disk = {
        let state = inner.state.lock();
        match state.entries.get(&key) {
            None => None,
            Some(entry) => match &entry.content {
                Content::Adopted(_) | Content::Complete { .. } => {
                    let (id, geometry) = (key.id, entry.geometry);
                    return Ok(BegunPartial::Complete(StoredPayload {
                        id,
                        geometry,
                        reference,
                    }));
                }
                Content::Partial { open } => {
                    if let Some(shared) = open.as_ref().and_then(|open| open.upgrade()) {
                        if shared.manifest.geometry() != manifest.geometry() {
                            return Err(StoreError::PieceSizeInUse { id: key.id });
                        }
                        return Ok(BegunPartial::Partial(PartialPayload { shared, reference }));
                    }
                    Some(entry.geometry)
                }
            },
        }
    };
    if on_disk == Some(*manifest.geometry())
        && let Some(shared) = PartialShared::resume(inner, key, manifest)?
    {
        return Ok(BegunPartial::Partial(PartialPayload { shared, reference }));
    }
    if on_disk.is_some() {
        // req: STORE-11
        inner.remove_partial_files(key)?;
        let mut state = inner.state.lock();
        if let Some(entry) = state.entries.remove(&key) {
            state.stored_bytes -= entry.geometry.size_bytes();
        }
    }
    let size_bytes = manifest.geometry().size_bytes();
    let reservation = Reservation::take(inner, size_bytes)?;
    let none = Bitfield::empty(manifest.geometry());
    let make = |path: &Path| create_file(inner, path, size_bytes).map(Arc::from);
    let shared = PartialShared::create(inner, key, manifest, reservation, none, make)?;
    Ok(BegunPartial::Partial(PartialPayload { shared, reference }))
}

/// A file of verified pieces that becomes a manifest's partial payload.
pub(super) struct TakenOver {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) temporary: Temporary,
    pub(super) reservation: Reservation,
    pub(super) held: Bitfield,
}

/// Makes `early` the manifest's partial payload; `None` if the store has that payload already.
pub(super) fn take_over(
    inner: &Arc<Inner>,
    scope: ScopeId,
    manifest: &Manifest,
    early: TakenOver,
) -> Result<Option<PartialPayload>, StoreError> {
    let key = Key {
        scope,
        id: manifest.id(),
    };
    let reference = PayloadReference::take(inner, key);
    let _busy = inner.busy(key);
    if inner.state.lock().entries.contains_key(&key) {
        return Ok(None);
    }
    let TakenOver {
        file,
        mut temporary,
        reservation,
        held,
    } = early;
    let place = |path: &Path| {
        temporary.move_to(path)?;
        Ok(file)
    };
    let shared = PartialShared::create(inner, key, manifest, reservation, held, place)?;
    Ok(Some(PartialPayload { shared, reference }))
}

impl PartialPayload {
    /// Writes one piece if it is what the manifest says. Blocks on hashing and on the file.
    ///
    /// When this answers `Stored`, the piece is held again after kill -9. Spec: STORE-8, STORE-9.
    pub fn write_piece(&self, piece: PieceIndex, bytes: &[u8]) -> Result<PieceOutcome, StoreError> {
        let outcome = self.write_blocks(piece, &[bytes])?;
        if self.is_sync_due() {
            self.shared.sync_lasting()?;
        }
        Ok(outcome)
    }

    /// As [`PartialPayload::write_piece`], for a piece that came in blocks, in order; never syncs, which
    /// is left to the caller: [`PartialPayload::is_sync_due`].
    pub fn write_blocks(
        &self,
        piece: PieceIndex,
        blocks: &[impl AsRef<[u8]>],
    ) -> Result<PieceOutcome, StoreError> {
        self.shared.write_blocks(piece, blocks)
    }

    /// As [`PartialPayload::write_blocks`], for whole pieces in a row from `first` on, whose bytes are `bytes`: what
    /// is right and missing of them is written together. One outcome for each.
    pub fn write_run(
        &self,
        first: PieceIndex,
        bytes: &[u8],
    ) -> Result<Vec<PieceOutcome>, StoreError> {
        self.shared.write_run(first, bytes)
    }

    /// Whether enough was written since the last sync for another one.
    pub fn is_sync_due(&self) -> bool {
        self.shared.progress.lock().unsynced_bytes >= SYNC_BYTES
    }

    /// Fills `buffer` from `offset_bytes`; every piece of the range must be held.
    pub fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<(), StoreError> {
        self.shared.read_at(buffer, offset_bytes)
    }

    /// For who goes on reading the same file without keeping the payload.
    pub(super) fn shared(&self) -> Arc<PartialShared> {
        Arc::clone(&self.shared)
    }

    /// What is being collected.
    pub fn manifest(&self) -> &Manifest {
        &self.shared.manifest
    }

    /// Which pieces are held.
    pub fn held(&self) -> Bitfield {
        self.shared.held()
    }

    /// Whether every piece is held.
    pub fn is_complete(&self) -> bool {
        self.shared.progress.lock().held.is_full()
    }

    /// Makes the pieces written so far survive power loss; for a clean stop.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.shared.sync_lasting()
    }

    /// Makes the payload complete and durable. Fails if a piece is missing. Spec: STORE-10.
    ///
    /// May be called again, by any clone; later calls find the payload complete.
    pub fn complete(&self) -> Result<StoredPayload, StoreError> {
        self.shared.complete()?;
        let (id, geometry) = (self.shared.key.id, *self.shared.manifest.geometry());
        Ok(StoredPayload {
            id,
            geometry,
            reference: self.reference.clone(),
        })
    }
}

impl PartialShared {
    /// Makes the files, the payload's own by `make`; the metadata last, so that what has it is whole. What is
    /// `held` lies in the payload's file and was verified by this process.
    ///
    /// Nothing of it is synced before pieces are: files that a loss of power takes are fetched again.
    fn create(
        inner: &Arc<Inner>,
        key: Key,
        manifest: &Manifest,
        mut reservation: Reservation,
        held: Bitfield,
        make: impl FnOnce(&Path) -> Result<Arc<dyn DiskFile>, StoreError>,
    ) -> Result<Arc<Self>, StoreError> {
        let geometry = *manifest.geometry();
        let folder = inner.paths.partial_folder(key.scope);
        inner.ensure_folder(&folder)?;
        let path = inner.paths.partial(key);
        // Leftovers that the books do not know: a removal or a creation that failed half way. They are gone
        // for good before the names are used again: after a loss of power an old record of what is synced
        // would otherwise stand beside the new file.
        inner.forget_partial_files(key)?;
        let have_bytes = u64::from(geometry.piece_count()) * MARK_BYTES as u64;
        let made = make(&path).and_then(|file| {
            let have_path = beside(&path, HAVE_ENDING);
            let have = create_file(inner, &have_path, have_bytes)?;
            let meta_path = beside(&path, META_ENDING);
            for piece in held.held(&geometry) {
                let at = u64::from(piece.get()) * MARK_BYTES as u64;
                have.write_at(&Mark::Written.bytes(key.id, piece), at)
                    .map_err(|source| StoreError::io("write", &have_path, source))?;
            }
            let meta = create_file(inner, &meta_path, 0)?;
            meta.write_at(&meta::encode(manifest), 0)
                .map_err(|source| StoreError::io("write", &meta_path, source))?;
            Ok((file, have, meta))
        });
        let (file, have, meta) = match made {
            Ok(files) => files,
            Err(error) => {
                let _ = inner.remove_partial_files(key);
                return Err(error);
            }
        };
        reservation.written(geometry.size_bytes());
        let unsynced: Vec<PieceIndex> = held.held(&geometry).collect();
        let shared = Self::new(inner, key, manifest, file, have, (held.clone(), held));
        {
            let mut progress = shared.progress.lock();
            progress.note_unsynced(&geometry, unsynced);
            progress.new_meta = Some(meta);
        }
        let entry = Entry {
            geometry,
            key: manifest.key().clone(),
            is_pinned: false,
            idle_since: None,
            content: Content::Partial {
                open: Some(Arc::downgrade(&shared)),
            },
        };
        let mut state = inner.state.lock();
        reservation.keep(&mut state);
        state.entries.insert(key, entry);
        drop(state);
        Ok(shared)
    }

    /// Opens the files that an earlier process left; `None` if they are of no use.
    fn resume(
        inner: &Arc<Inner>,
        key: Key,
        manifest: &Manifest,
    ) -> Result<Option<Arc<Self>>, StoreError> {
        // req: STORE-9
        let geometry = *manifest.geometry();
        let path = inner.paths.partial(key);
        let have_path = beside(&path, HAVE_ENDING);
        let meta_path = beside(&path, META_ENDING);
        let open = |path| inner.disk.open(path, OpenMode::ReadWrite);
        let (Ok(file), Ok(have)) = (open(&path), open(&have_path)) else {
            return Ok(None);
        };
        let mut marks = vec![0; geometry.piece_count() as usize * MARK_BYTES];
        if have.read_exact_at(&mut marks, 0).is_err() {
            return Ok(None);
        }
        if meta::read_head(&*inner.disk, &meta_path, key.id)
            .map_or(true, |head| head.key != *manifest.key())
        {
            // The same payload under another access key: serve it under the one asked for now.
            inner.remove_if_there(&meta_path)?;
            write_new(&*inner.disk, &meta_path, &meta::encode(manifest))?;
        }
        let mut held = Bitfield::empty(&geometry);
        let mut checked = Bitfield::empty(&geometry);
        let mut unsynced = Vec::new();
        for (piece, mark) in geometry.pieces().zip(marks.as_chunks::<MARK_BYTES>().0) {
            if *mark == [0; MARK_BYTES] {
                continue;
            }
            if *mark == Mark::Synced.bytes(key.id, piece) {
                held.set(piece);
                continue;
            }
            let hash = hash_piece_of(&*file, &geometry, piece)
                .map_err(|source| StoreError::io("read", &path, source))?;
            if hash.is_some() && hash.as_ref() == manifest.piece_hashes().get(piece.as_usize()) {
                held.set(piece);
                checked.set(piece);
                unsynced.push(piece);
            }
        }
        let shared = Self::new(inner, key, manifest, Arc::from(file), have, (held, checked));
        {
            let mut progress = shared.progress.lock();
            progress.note_unsynced(&geometry, unsynced);
        }
        let mut state = inner.state.lock();
        if let Some(entry) = state.entries.get_mut(&key) {
            entry.key = manifest.key().clone();
            entry.content = Content::Partial {
                open: Some(Arc::downgrade(&shared)),
            };
        }
        drop(state);
        Ok(Some(shared))
    }

    fn new(
        inner: &Arc<Inner>,
        key: Key,
        manifest: &Manifest,
        file: Arc<dyn DiskFile>,
        have: Box<dyn DiskFile>,
        (held, checked): (Bitfield, Bitfield),
    ) -> Arc<Self> {
        let progress = Progress {
            held,
            checked,
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            syncing_count: 0,
            new_meta: None,
        };
        Arc::new(Self {
            inner: Arc::clone(inner),
            key,
            manifest: manifest.clone(),
            path: inner.paths.partial(key),
            file,
            have,
            progress: Mutex::new(progress),
            sync_ended: Condvar::new(),
            whole: OnceLock::new(),
        })
    }

    pub(super) fn held(&self) -> Bitfield {
        self.progress.lock().held.clone()
    }

    /// Nothing of what is held is known to be right any more.
    pub(super) fn doubt(&self) {
        self.progress.lock().checked = Bitfield::empty(self.geometry());
        if let Some(whole) = self.whole.get() {
            whole.doubt();
            self.inner.none_checked(self.key);
        }
    }

    fn geometry(&self) -> &Geometry {
        self.manifest.geometry()
    }

    fn write_blocks(
        &self,
        piece: PieceIndex,
        blocks: &[impl AsRef<[u8]>],
    ) -> Result<PieceOutcome, StoreError> {
        if self.progress.lock().held.has(piece) {
            return Ok(PieceOutcome::AlreadyHeld);
        }
        // req: STORE-8
        if !self.is_right(piece, blocks) {
            return Ok(PieceOutcome::Mismatch);
        }
        let mut position = self.geometry().piece_range(piece).start;
        for block in blocks {
            let bytes = block.as_ref();
            self.file
                .write_at(bytes, position)
                .map_err(|source| StoreError::io("write", &self.path, source))?;
            position += bytes.len() as u64;
        }
        self.mark(&[piece], |piece| Mark::Written.bytes(self.key.id, piece))?;
        Ok(self.stored(&mut self.progress.lock(), piece))
    }

    fn write_run(&self, first: PieceIndex, bytes: &[u8]) -> Result<Vec<PieceOutcome>, StoreError> {
        let geometry = self.geometry();
        let piece_bytes = geometry.piece_bytes().get() as usize;
        let parts = || geometry.pieces_from(first).zip(bytes.chunks(piece_bytes));
        let held = self.progress.lock().held.clone();
        // req: STORE-8
        let judge = |(piece, part): (PieceIndex, &[u8])| match held.has(piece) {
            true => PieceOutcome::AlreadyHeld,
            false if self.is_right(piece, &[part]) => PieceOutcome::Stored,
            false => PieceOutcome::Mismatch,
        };
        let mut outcomes: Vec<PieceOutcome> = parts().map(judge).collect();
        let new: Vec<PieceIndex> = parts()
            .zip(&outcomes)
            .filter(|(_, outcome)| **outcome == PieceOutcome::Stored)
            .map(|((piece, _), _)| piece)
            .collect();
        let begins = geometry.piece_range(first).start;
        for row in rows(&new) {
            let (Some(from), Some(to)) = (row.first(), row.last()) else {
                continue;
            };
            let range = geometry.piece_range(*from).start..geometry.piece_range(*to).end;
            let part = bytes.get((range.start - begins) as usize..(range.end - begins) as usize);
            self.file
                .write_at(part.unwrap_or_default(), range.start)
                .map_err(|source| StoreError::io("write", &self.path, source))?;
        }
        self.mark(&new, |piece| Mark::Written.bytes(self.key.id, piece))?;
        let mut progress = self.progress.lock();
        for ((piece, _), outcome) in parts().zip(&mut outcomes) {
            if *outcome == PieceOutcome::Stored {
                *outcome = self.stored(&mut progress, piece);
            }
        }
        Ok(outcomes)
    }

    /// Whether the manifest says that these are the bytes of `piece`.
    fn is_right(&self, piece: PieceIndex, blocks: &[impl AsRef<[u8]>]) -> bool {
        self.manifest.is_piece_of(piece, blocks) || sabotage::is(Sabotage::PieceUnchecked)
    }

    /// A piece was written and marked.
    fn stored(&self, progress: &mut Progress, piece: PieceIndex) -> PieceOutcome {
        if !progress.held.set(piece) {
            return PieceOutcome::AlreadyHeld;
        }
        progress.checked.set(piece);
        progress.unsynced.push(piece);
        progress.unsynced_bytes += u64::from(self.geometry().piece_len_bytes(piece));
        PieceOutcome::Stored
    }

    /// As [`Self::sync`], and sees to it that the files themselves are there after a loss of power.
    fn sync_lasting(&self) -> Result<(), StoreError> {
        let new_meta = self.progress.lock().new_meta.take();
        if let Some(meta) = new_meta
            && let Err(error) = self.sync_files(&*meta)
        {
            self.progress.lock().new_meta = Some(meta);
            return Err(error);
        }
        self.sync()
    }

    fn sync_files(&self, meta: &dyn DiskFile) -> Result<(), StoreError> {
        meta.sync_data()
            .map_err(|source| StoreError::io("sync", &beside(&self.path, META_ENDING), source))?;
        let folder = self.inner.paths.partial_folder(self.key.scope);
        self.inner
            .disk
            .sync_dir(&folder)
            .map_err(|source| StoreError::io("sync", &folder, source))
    }

    /// Syncs the file and marks what it covers. If the sync fails, those pieces are not held any
    /// more: the system may have dropped them while it says that they are clean.
    fn sync(&self) -> Result<(), StoreError> {
        let mut covered = {
            let mut progress = self.progress.lock();
            if progress.unsynced.is_empty() {
                return Ok(());
            }
            progress.unsynced_bytes = 0;
            progress.syncing_count += 1;
            std::mem::take(&mut progress.unsynced)
        };
        let outcome = if sabotage::is(Sabotage::PayloadUnsynced) {
            Ok(())
        } else {
            self.file.sync_data()
        };
        let mark_of = |piece| match outcome {
            Ok(()) => Mark::Synced.bytes(self.key.id, piece),
            Err(_) => [0; MARK_BYTES],
        };
        // req: STORE-18
        covered.sort_unstable();
        let marked = self.mark(&covered, mark_of);
        let mut progress = self.progress.lock();
        if outcome.is_err() {
            for piece in &covered {
                progress.held.clear(*piece);
            }
        }
        progress.syncing_count -= 1;
        drop(progress);
        self.sync_ended.notify_all();
        outcome.map_err(|source| StoreError::io("sync", &self.path, source))?;
        marked
    }

    /// Syncs, and waits for syncs that others have begun; then the first missing piece.
    fn sync_all(&self) -> Result<Option<PieceIndex>, StoreError> {
        self.sync()?;
        let mut progress = self.progress.lock();
        while progress.syncing_count > 0 {
            self.sync_ended.wait(&mut progress);
        }
        Ok(progress.held.missing(self.geometry()).next())
    }

    /// Marks pieces, which are in order; those in a row with one write.
    fn mark(
        &self,
        pieces: &[PieceIndex],
        mark_of: impl Fn(PieceIndex) -> [u8; MARK_BYTES],
    ) -> Result<(), StoreError> {
        for row in rows(pieces) {
            let Some(first) = row.first() else { continue };
            let marks: Vec<u8> = row.iter().flat_map(|piece| mark_of(*piece)).collect();
            self.have
                .write_at(&marks, u64::from(first.get()) * MARK_BYTES as u64)
                .map_err(|source| {
                    StoreError::io("write", &beside(&self.path, HAVE_ENDING), source)
                })?;
        }
        Ok(())
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<(), StoreError> {
        let id = self.key.id;
        let size_bytes = self.geometry().size_bytes();
        let end_bytes = offset_bytes.saturating_add(buffer.len() as u64);
        if end_bytes > size_bytes {
            return Err(StoreError::OutOfRange {
                id,
                size_bytes,
                end_bytes,
            });
        }
        // req: STORE-22
        if let Some(whole) = self.whole.get() {
            if let Checked::All(at) = whole.read_at(buffer, offset_bytes)? {
                self.inner.all_checked(self.key, at);
            }
            return Ok(());
        }
        let missing = {
            let progress = self.progress.lock();
            pieces_of_range(self.geometry(), offset_bytes, buffer.len())
                .find(|piece| !progress.held.has(*piece))
        };
        if let Some(piece) = missing {
            return Err(StoreError::MissingPiece {
                id,
                piece: piece.get(),
            });
        }
        for piece in pieces_of_range(self.geometry(), offset_bytes, buffer.len()) {
            self.check(piece)?;
        }
        self.file
            .read_exact_at(buffer, offset_bytes)
            .map_err(|source| StoreError::Read { id, source })
    }

    /// The file itself, if what the range touches is held and known to be right: such pieces are not written again.
    pub(super) fn right_file(
        &self,
        offset_bytes: u64,
        length_bytes: usize,
    ) -> Option<Arc<dyn DiskFile>> {
        // req: STORE-25
        if let Some(whole) = self.whole.get() {
            return whole.right_file(offset_bytes, length_bytes);
        }
        let progress = self.progress.lock();
        let mut pieces = pieces_of_range(self.geometry(), offset_bytes, length_bytes);
        pieces
            .all(|piece| progress.held.has(piece) && progress.checked.has(piece))
            .then(|| Arc::clone(&self.file))
    }

    /// Hashes a held piece unless this process knows that it is right; a wrong one is held no more.
    // req: STORE-21
    fn check(&self, piece: PieceIndex) -> Result<(), StoreError> {
        if self.progress.lock().checked.has(piece) {
            return Ok(());
        }
        let id = self.key.id;
        let hash = hash_piece_of(&*self.file, self.geometry(), piece)
            .map_err(|source| StoreError::Read { id, source })?;
        if hash.is_some() && hash.as_ref() == self.manifest.piece_hashes().get(piece.as_usize()) {
            self.progress.lock().checked.set(piece);
            return Ok(());
        }
        tracing::warn!(
            payload = %format_args!("{id:.10}"), piece = piece.get(),
            "a held piece is damaged on disk and will be fetched again"
        );
        self.mark(&[piece], |_| [0; MARK_BYTES])?;
        self.progress.lock().held.clear(piece);
        Err(StoreError::MissingPiece {
            id,
            piece: piece.get(),
        })
    }

    fn complete(&self) -> Result<(), StoreError> {
        let _busy = self.inner.busy(self.key);
        if let Some(Entry {
            content: Content::Complete { .. },
            ..
        }) = self.inner.state.lock().entries.get(&self.key)
        {
            return Ok(());
        }
        // req: STORE-10
        if let Some(piece) = self.sync_all()? {
            return Err(StoreError::MissingPiece {
                id: self.key.id,
                piece: piece.get(),
            });
        }
        for piece in self.geometry().pieces() {
            self.check(piece)?;
        }
        let modified = self
            .file
            .modified()
            .map_err(|source| StoreError::io("look at", &self.path, source))?;
        let file = Arc::clone(&self.file);
        let whole = CheckedFile::new(file, &self.manifest, Some(modified))
            .map_err(|source| StoreError::io("look at", &self.path, source))?;
        self.inner.commit(self.key, &self.manifest, &self.path)?;
        let whole = self.whole.get_or_init(|| Arc::new(whole));
        let mut state = self.inner.state.lock();
        if let Some(entry) = state.entries.get_mut(&self.key) {
            entry.content = Content::Complete {
                open: Some(Arc::downgrade(whole)),
                checked_at: Some(modified),
            };
        }
        drop(state);
        // The rest of the partial files; what stays is removed at the next start.
        let _ = self.inner.remove_partial_files(self.key);
        Ok(())
    }
}

impl Mark {
    /// Never all zero, which stands for no mark.
    fn bytes(self, id: PayloadId, piece: PieceIndex) -> [u8; MARK_BYTES] {
        let kind: &[u8] = match self {
            Self::Written => b"written",
            Self::Synced => b"synced",
        };
        let crc = crc32c::crc32c(id.as_bytes());
        let crc = crc32c::crc32c_append(crc, &piece.get().to_be_bytes());
        crc32c::crc32c_append(crc, kind).max(1).to_be_bytes()
    }
}

impl fmt::Debug for PartialShared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PartialPayload")
            .field("manifest", &self.manifest)
            .field("held_count", &self.progress.lock().held.held_count())
            .finish_non_exhaustive()
    }
}

/// Creates a file of this length.
fn create_file(
    inner: &Inner,
    path: &Path,
    len_bytes: u64,
) -> Result<Box<dyn DiskFile>, StoreError> {
    let file = inner
        .disk
        .open(path, OpenMode::CreateNew)
        .map_err(|source| StoreError::io("create", path, source))?;
    if len_bytes > 0 {
        file.allocate(len_bytes)
            .map_err(|source| StoreError::io("reserve space for", path, source))?;
    }
    Ok(file)
}
