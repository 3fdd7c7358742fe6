//! A payload that is fetched before its manifest, and so its id, is known.
//!
//! Owns: one temporary file among the uploads, the piece hashes that were announced so far, and which pieces are there.
//! It goes away with its last owner unless a manifest takes it over.
//! Bound: 32 bytes for each piece; the payload's size is reserved.
//! Spec: `spec/early.md` EARLY-4 to EARLY-7, `spec/payload-store.md` STORE-23.

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::disk::DiskFile;
use crate::payload::bitfield::Bitfield;
use crate::payload::geometry::{Geometry, PieceIndex};
use crate::payload::hash;
use crate::payload::id::{PieceHash, ScopeId};
use crate::payload::manifest::Manifest;
use crate::payload::store::error::StoreError;
use crate::payload::store::partial::{
    self, PartialPayload, PartialShared, PieceOutcome, SYNC_BYTES,
};
use crate::payload::store::reserve::Reservation;
use crate::payload::store::upload::Temporary;
use crate::payload::store::{Inner, Store};

/// A payload of unknown id being collected, from any thread. Clones share it; the last one to go removes it.
#[derive(Clone, Debug)]
pub struct EarlyPayload {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<Inner>,
    scope: ScopeId,
    geometry: Geometry,
    file: Arc<dyn DiskFile>,
    state: Mutex<State>,
    /// Shared by who writes to the file, so that none does once it is a manifest's.
    file_owner: RwLock<FileOwner>,
    /// Held over a sync: what becomes of it is known before the file is taken over.
    syncing: Mutex<Synced>,
}

/// Whose the file is.
enum FileOwner {
    /// Its own; what makes it go away.
    Early(Temporary, Reservation),
    /// A manifest's, which was to take it over.
    Taken(Option<Arc<PartialShared>>),
}

/// How the syncs went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Synced {
    /// None failed.
    Well,
    /// One failed: the system may have dropped any byte while it says that all are clean, and tells so once.
    Failed,
}

struct State {
    /// Of the first pieces, as far as they were announced.
    hashes: Vec<PieceHash>,
    held: Bitfield,
    unsynced_bytes: u64,
}

impl Store {
    /// Begins to collect a payload of this geometry whose id is not known yet. Removes no other for it: fails if there
    /// is no room as it is.
    ///
    /// # Errors
    /// If the quota or the disk has no room, or the file cannot be made.
    pub fn begin_early(
        &self,
        scope: ScopeId,
        geometry: Geometry,
    ) -> Result<EarlyPayload, StoreError> {
        // req: STORE-23
        let inner = &self.inner;
        let mut reservation = Reservation::take_free(inner, geometry.size_bytes())?;
        let (temporary, file) = Temporary::create(inner, scope)?;
        file.allocate(geometry.size_bytes())
            .map_err(|source| StoreError::io("reserve space for", temporary.path(), source))?;
        reservation.written(geometry.size_bytes());
        let state = State {
            hashes: Vec::new(),
            held: Bitfield::empty(&geometry),
            unsynced_bytes: 0,
        };
        Ok(EarlyPayload {
            shared: Arc::new(Shared {
                inner: Arc::clone(inner),
                scope,
                geometry,
                file,
                state: Mutex::new(state),
                file_owner: RwLock::new(FileOwner::Early(temporary, reservation)),
                syncing: Mutex::new(Synced::Well),
            }),
        })
    }
}

impl EarlyPayload {
    /// Its size and the size of its pieces.
    pub fn geometry(&self) -> &Geometry {
        &self.shared.geometry
    }

    /// Takes the hashes of pieces from number `first` on; answers the pieces that can be asked for from now on.
    ///
    /// Hashes that do not follow on those that are known, or go beyond the payload, change nothing.
    pub fn announce(&self, first: u32, hashes: &[PieceHash]) -> Vec<PieceIndex> {
        // req: EARLY-5
        let geometry = &self.shared.geometry;
        let mut state = self.shared.state.lock();
        let count = geometry.piece_count() as usize;
        if state.hashes.len() != first as usize || state.hashes.len() + hashes.len() > count {
            return Vec::new();
        }
        state.hashes.extend_from_slice(hashes);
        let numbers = (first..).take(hashes.len());
        numbers
            .filter_map(|number| geometry.piece_index(number))
            .collect()
    }

    /// Which pieces are written.
    pub fn held(&self) -> Bitfield {
        self.shared.state.lock().held.clone()
    }

    /// Writes a piece that came in blocks, in order, if it has the hash that was announced for it. Blocks.
    ///
    /// `NotKept` once a manifest has taken the file over: it is not this one's to write to any more.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_blocks(
        &self,
        piece: PieceIndex,
        blocks: &[impl AsRef<[u8]>],
    ) -> Result<PieceOutcome, StoreError> {
        let geometry = &self.shared.geometry;
        let known = {
            let state = self.shared.state.lock();
            if state.held.has(piece) {
                return Ok(PieceOutcome::AlreadyHeld);
            }
            state.hashes.get(piece.as_usize()).copied()
        };
        // req: EARLY-5
        let got = hash::piece_hash(geometry, piece, blocks);
        if got.is_none() || got != known {
            return Ok(PieceOutcome::Mismatch);
        }
        // req: EARLY-6
        let owner = self.shared.file_owner.read();
        if matches!(*owner, FileOwner::Taken(_)) {
            return Ok(PieceOutcome::NotKept);
        }
        let mut position = geometry.piece_range(piece).start;
        for block in blocks {
            let bytes = block.as_ref();
            let written = self.shared.file.write_at(bytes, position);
            written.map_err(|source| self.failed("write", source))?;
            position += bytes.len() as u64;
        }
        let mut state = self.shared.state.lock();
        if !state.held.set(piece) {
            return Ok(PieceOutcome::AlreadyHeld);
        }
        state.unsynced_bytes += u64::from(geometry.piece_len_bytes(piece));
        Ok(PieceOutcome::Stored)
    }

    /// Fills `buffer` from `offset_bytes`; only what is held has meaning. Of what a manifest took over it is what the
    /// store gives out of that payload, which may lie under another name too (STORE-22).
    ///
    /// # Errors
    /// If the file does not give it, or it is not right any more.
    pub fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<(), StoreError> {
        // req: EARLY-8
        let taken = match &*self.shared.file_owner.read() {
            FileOwner::Taken(taken) => taken.clone(),
            FileOwner::Early(..) => None,
        };
        if let Some(taken) = taken {
            return taken.read_at(buffer, offset_bytes);
        }
        let read = self.shared.file.read_exact_at(buffer, offset_bytes);
        read.map_err(|source| self.failed("read", source))
    }

    /// Whether enough was written since the last sync for another one.
    pub fn is_sync_due(&self) -> bool {
        self.shared.state.lock().unsynced_bytes >= SYNC_BYTES
    }

    /// Has the system write what it keeps in memory of the file, so that taking it over does not wait for that. Does
    /// nothing once it is taken over: the system tells of a failure once, and that is for the payload to hear.
    ///
    /// # Errors
    /// If it cannot; then nothing is taken over any more.
    pub fn sync(&self) -> Result<(), StoreError> {
        // req: STORE-18
        let mut synced = self.shared.syncing.lock();
        if matches!(*self.shared.file_owner.read(), FileOwner::Taken(_)) {
            return Ok(());
        }
        self.shared.state.lock().unsynced_bytes = 0;
        let outcome = self.shared.file.sync_data();
        if outcome.is_err() {
            *synced = Synced::Failed;
        }
        outcome.map_err(|source| self.failed("sync", source))
    }

    /// Whether it is this manifest's payload, as far as its hashes are known; at least one must be.
    pub fn agrees(&self, manifest: &Manifest) -> bool {
        // req: EARLY-6
        let known = &self.shared.state.lock().hashes;
        self.shared.geometry == *manifest.geometry()
            && !known.is_empty()
            && manifest.piece_hashes().starts_with(known)
    }

    /// Makes it the partial payload of a manifest that it agrees with, and its pieces that payload's. Blocks.
    ///
    /// `None` if it does not agree, a sync of it failed, it was taken over before, or the store has the payload already,
    /// whole or in part. Waits for a sync that runs, and for who writes. What is held can be read here as before.
    ///
    /// # Errors
    /// If the files cannot be made; then nothing of it stays.
    pub fn take_over(&self, manifest: &Manifest) -> Result<Option<PartialPayload>, StoreError> {
        // req: EARLY-6, STORE-23
        if !self.agrees(manifest) {
            return Ok(None);
        }
        // req: STORE-18
        let synced = self.shared.syncing.lock();
        if *synced == Synced::Failed {
            return Ok(None);
        }
        let Some((temporary, reservation)) = self.shared.file_owner.write().give() else {
            return Ok(None);
        };
        let held = self.shared.state.lock().held.clone();
        let file = Arc::clone(&self.shared.file);
        let early = partial::TakenOver {
            file,
            temporary,
            reservation,
            held,
        };
        let partial = partial::take_over(&self.shared.inner, self.shared.scope, manifest, early)?;
        drop(synced);
        if let Some(partial) = &partial {
            *self.shared.file_owner.write() = FileOwner::Taken(Some(partial.shared()));
        }
        Ok(partial)
    }

    fn failed(&self, step: &'static str, source: std::io::Error) -> StoreError {
        let folder = self.shared.inner.paths.upload_folder(self.shared.scope);
        StoreError::io(step, &folder, source)
    }
}

impl FileOwner {
    /// Takes what makes the file go away, once.
    fn give(&mut self) -> Option<(Temporary, Reservation)> {
        match self {
            Self::Taken(_) => None,
            Self::Early(..) => match std::mem::replace(self, Self::Taken(None)) {
                Self::Early(temporary, reservation) => Some((temporary, reservation)),
                Self::Taken(_) => None,
            },
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        formatter
            .debug_struct("EarlyPayload")
            .field("geometry", &self.geometry)
            .field("known_count", &state.hashes.len())
            .field("held_count", &state.held.held_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
