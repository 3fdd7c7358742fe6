//! A payload that is fetched before its manifest, and so its id, is known.
//!
//! Owns: one temporary file among the uploads, the piece hashes that were announced so far, and which pieces are there.
//! It goes away with its last owner unless a manifest takes it over.
//! Bound: 32 bytes for each piece; the payload's size is reserved.
//! Spec: `spec/early.md` EARLY-4 to EARLY-7, `spec/payload-store.md` STORE-23.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{DiskFile, OpenMode};
use crate::payload::bitfield::Bitfield;
use crate::payload::geometry::{Geometry, PieceIndex};
use crate::payload::hash;
use crate::payload::id::{PieceHash, ScopeId};
use crate::payload::manifest::Manifest;
use crate::payload::store::error::StoreError;
use crate::payload::store::partial::{self, PartialPayload, PieceOutcome, SYNC_BYTES};
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
}

struct State {
    /// Of the first pieces, as far as they were announced.
    hashes: Vec<PieceHash>,
    held: Bitfield,
    unsynced_bytes: u64,
    /// What makes it go away; `None` once a manifest has taken it over.
    own: Option<(Temporary, Reservation)>,
}

impl Store {
    /// Begins to collect a payload of this geometry whose id is not known yet. Fails if there is no room.
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
        let reservation = Reservation::take(inner, geometry.size_bytes())?;
        inner.ensure_folder(&inner.paths.upload_folder(scope))?;
        let path = inner.paths.upload(scope, inner.next_upload());
        let file = inner
            .disk
            .open(&path, OpenMode::CreateNew)
            .map_err(|source| StoreError::io("create", &path, source))?;
        let temporary = Temporary::new(inner, path);
        file.allocate(geometry.size_bytes())
            .map_err(|source| StoreError::io("reserve space for", temporary.path(), source))?;
        let mut reservation = reservation;
        reservation.written(geometry.size_bytes());
        let state = State {
            hashes: Vec::new(),
            held: Bitfield::empty(&geometry),
            unsynced_bytes: 0,
            own: Some((temporary, reservation)),
        };
        Ok(EarlyPayload {
            shared: Arc::new(Shared {
                inner: Arc::clone(inner),
                scope,
                geometry,
                file: Arc::from(file),
                state: Mutex::new(state),
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

    /// Fills `buffer` from `offset_bytes`; only what is held has meaning.
    ///
    /// # Errors
    /// If the file does not give it.
    pub fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<(), StoreError> {
        let read = self.shared.file.read_exact_at(buffer, offset_bytes);
        read.map_err(|source| self.failed("read", source))
    }

    /// Whether enough was written since the last sync for another one.
    pub fn is_sync_due(&self) -> bool {
        self.shared.state.lock().unsynced_bytes >= SYNC_BYTES
    }

    /// Has the system write what it keeps in memory of the file, so that taking it over does not wait for that.
    ///
    /// # Errors
    /// If it cannot.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.shared.state.lock().unsynced_bytes = 0;
        let synced = self.shared.file.sync_data();
        synced.map_err(|source| self.failed("sync", source))
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
    /// `None`, and nothing is changed, if it does not agree, was taken over before, or the store has the payload
    /// already, whole or in part. The file can be read here as before.
    ///
    /// # Errors
    /// If the files cannot be made; then nothing of it stays.
    pub fn take_over(&self, manifest: &Manifest) -> Result<Option<PartialPayload>, StoreError> {
        // req: EARLY-6, STORE-23
        if !self.agrees(manifest) {
            return Ok(None);
        }
        let (own, held) = {
            let mut state = self.shared.state.lock();
            (state.own.take(), state.held.clone())
        };
        let Some((temporary, reservation)) = own else {
            return Ok(None);
        };
        let file = Arc::clone(&self.shared.file);
        let early = partial::TakenOver {
            file,
            temporary,
            reservation,
            held,
        };
        partial::take_over(&self.shared.inner, self.shared.scope, manifest, early)
    }

    fn failed(&self, step: &'static str, source: std::io::Error) -> StoreError {
        let folder = self.shared.inner.paths.upload_folder(self.shared.scope);
        StoreError::io(step, &folder, source)
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
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::OsDisk;
    use crate::payload::store::{BegunPartial, StoreSettings};
    use crate::payload::{AccessKey, Hints, ManifestParts, PayloadHasher};

    const PIECE: usize = 16 * 1024;

    fn store(folder: &Path) -> Store {
        let settings = StoreSettings {
            free_bytes_min: 0,
            quota_bytes: Some(10 << 20),
            ..StoreSettings::default()
        };
        Store::open(Arc::new(OsDisk), folder, settings).expect("opens")
    }

    fn bytes(seed: u8) -> Vec<u8> {
        let bytes = (0..5 * PIECE + 100).map(|at| (at / 7) as u8 ^ seed);
        bytes.collect()
    }

    fn manifest(bytes: &[u8]) -> Manifest {
        let geometry = Geometry::for_payload(bytes.len() as u64).expect("valid");
        let mut hasher = PayloadHasher::new(geometry);
        hasher.update(bytes);
        let (id, piece_hashes) = hasher.finish().expect("all bytes came");
        let parts = ManifestParts {
            id,
            geometry,
            piece_hashes,
            peers: Vec::new(),
            key: AccessKey::from_bytes([9; 32]),
            name: None,
            content_type: None,
            hints: Hints::default(),
        };
        Manifest::new(parts).expect("valid")
    }

    /// Begins it, makes the first `known` hashes known, and writes the pieces of these numbers.
    fn collect(store: &Store, bytes: &[u8], known: usize, written: &[u32]) -> EarlyPayload {
        let manifest = manifest(bytes);
        let early = store.begin_early(ScopeId::NODE, *manifest.geometry());
        let early = early.expect("room");
        early.announce(0, &manifest.piece_hashes()[..known]);
        for number in written {
            let piece = manifest.piece_index(*number).expect("inside");
            let range = manifest.geometry().piece_range(piece);
            let part = &bytes[range.start as usize..range.end as usize];
            let outcome = early.write_blocks(piece, &[part]).expect("written");
            assert_eq!(outcome, PieceOutcome::Stored);
        }
        early
    }

    fn files(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        let count = entries.map(|entry| {
            let entry = entry.expect("an entry");
            match entry.file_type().expect("a type").is_dir() {
                true => files(&entry.path()),
                false => 1,
            }
        });
        count.sum()
    }

    /// Hashes come in order, each once; a piece without its hash, or with another, is not written.
    // req: EARLY-5
    #[test]
    fn only_announced_pieces_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        let bytes = bytes(0);
        let manifest = manifest(&bytes);
        let hashes = manifest.piece_hashes();
        let early = collect(&store, &bytes, 0, &[]);
        assert!(early.announce(1, &hashes[1..2]).is_empty(), "a gap");
        assert_eq!(early.announce(0, &hashes[..2]).len(), 2);
        assert!(early.announce(0, &hashes[..2]).is_empty(), "again");
        assert!(early.announce(2, &[hashes[2]; 5]).is_empty(), "too many");
        let piece = |number| manifest.piece_index(number).expect("inside");
        let write = |number, part: &[u8]| early.write_blocks(piece(number), &[part]);
        assert_eq!(
            write(2, &bytes[2 * PIECE..3 * PIECE]).expect("no error"),
            PieceOutcome::Mismatch
        );
        assert_eq!(
            write(1, &bytes[..PIECE]).expect("no error"),
            PieceOutcome::Mismatch
        );
        assert_eq!(
            write(1, &bytes[PIECE..2 * PIECE]).expect("no error"),
            PieceOutcome::Stored
        );
        assert_eq!(early.held().held_count(), 1);
    }

    /// A manifest that agrees takes the pieces over, and they are verified pieces of its payload, also for the next
    /// process; the file goes on being readable.
    // req: EARLY-6
    // req: STORE-23
    #[test]
    fn manifest_takes_pieces_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes = bytes(0);
        let wanted = manifest(&bytes);
        let held = {
            let store = store(folder.path());
            let early = collect(&store, &bytes, 4, &[0, 2, 3]);
            let partial = early.take_over(&wanted).expect("no error");
            let partial = partial.expect("it agrees");
            assert!(
                early.take_over(&wanted).expect("no error").is_none(),
                "once"
            );
            let mut read = vec![0; PIECE];
            early.read_at(&mut read, 0).expect("readable");
            assert!(read == bytes[..PIECE]);
            drop(early);
            assert_eq!(store.usage().reserved_bytes, 0);
            assert_eq!(store.usage().stored_bytes, bytes.len() as u64);
            partial.held()
        };
        assert_eq!(held.held_count(), 3);
        let store = store(folder.path());
        let begun = store.begin_partial(ScopeId::NODE, &wanted).expect("begins");
        let BegunPartial::Partial(partial) = begun else {
            panic!("it is not complete");
        };
        assert_eq!(partial.held(), held);
        for number in [1, 4, 5] {
            let piece = wanted.piece_index(number).expect("inside");
            let range = wanted.geometry().piece_range(piece);
            let part = &bytes[range.start as usize..range.end as usize];
            partial.write_piece(piece, part).expect("written");
        }
        let stored = partial.complete().expect("complete");
        let mut read = vec![0; bytes.len()];
        store
            .read_at(ScopeId::NODE, stored.id, &mut read, 0)
            .expect("readable");
        assert!(read == bytes);
    }

    /// What no manifest takes over leaves no file and no reservation: not if it is dropped, differs in one hash, or the
    /// payload is there already.
    // req: EARLY-7
    // req: STORE-23
    #[test]
    fn what_is_not_taken_over_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        let bytes = bytes(0);
        let early = collect(&store, &bytes, 6, &[0, 5]);
        assert_eq!(store.usage().reserved_bytes, bytes.len() as u64);
        let mut other = bytes.clone();
        other[3 * PIECE] ^= 1;
        assert!(!early.agrees(&manifest(&other)));
        assert!(
            early
                .take_over(&manifest(&other))
                .expect("no error")
                .is_none()
        );
        drop(early);
        assert_eq!((files(folder.path()), store.usage().reserved_bytes), (0, 0));
        let unknown = collect(&store, &bytes, 0, &[]);
        assert!(!unknown.agrees(&manifest(&bytes)), "nothing was announced");
        drop(unknown);
        let early = collect(&store, &bytes, 6, &[0]);
        let there = store.begin_partial(ScopeId::NODE, &manifest(&bytes));
        let there = there.expect("begins");
        let before = files(folder.path());
        assert!(
            early
                .take_over(&manifest(&bytes))
                .expect("no error")
                .is_none()
        );
        drop(early);
        assert_eq!(files(folder.path()), before - 1);
        drop(there);
        let cut_off = collect(&store, &bytes, 6, &[0]);
        std::mem::forget(cut_off);
        let again = self::store(folder.path());
        assert_eq!(again.usage().reserved_bytes, 0);
        assert_eq!(
            files(folder.path()),
            before - 1,
            "a start removes what was cut off"
        );
    }
}
