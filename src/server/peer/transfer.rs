//! One payload's files and progress, and the handle that keeps it in its swarm.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::core::{self, Shared};
use super::doubt::Doubt;
use crate::disk::DiskFile;
use crate::payload::store::{
    EarlyPayload, PartialPayload, PayloadReader, PieceOutcome, UploadReader,
};
use crate::payload::{
    Bitfield, BlockRange, Geometry, PieceHash, PieceIndex, StoreError, StoredPayload,
};
use crate::swarm::{TransferId, TransferStats};

/// Why a payload was not fetched.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// This node's storage failed it.
    #[error("storage failed: {0}")]
    Storage(Arc<StoreError>),
    /// The swarm was shut down or the transfer stopped first.
    #[error("the transfer was stopped before it was complete")]
    Stopped,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Pieces verified and written.
    pub pieces_held: u32,
    /// Pieces of the payload.
    pub piece_count: u32,
    /// Bytes verified and written.
    pub held_bytes: u64,
    /// Bytes of the payload.
    pub size_bytes: u64,
}

/// Where a payload's bytes are.
pub(super) enum Source {
    /// All of it, served only.
    Whole(PayloadReader),
    /// All of it; it was to be fetched and is there.
    Stored(PayloadReader, StoredPayload),
    /// Some of it.
    Partial(PayloadReader, PartialPayload),
    /// Some of it, under no id yet.
    Early(EarlyPayload),
    /// What was written of it so far; served only.
    Growing(UploadReader),
}

/// What has become of a fetch.
#[derive(Clone, Debug)]
enum End {
    Running,
    Complete(Option<StoredPayload>),
    Failed(FetchError),
}

/// One payload's files and progress.
pub(super) struct TransferIo {
    source: Source,
    geometry: Geometry,
    progress: watch::Sender<Progress>,
    end: watch::Sender<End>,
    /// The first error of the disk.
    error: Mutex<Option<Arc<StoreError>>>,
    /// Whether a thread syncs what was written.
    is_syncing: AtomicBool,
    doubt: Mutex<Doubt>,
}

impl TransferIo {
    pub(super) fn new(
        source: Source,
        geometry: Geometry,
        have: &Bitfield,
    ) -> (Self, watch::Receiver<Progress>) {
        let held = have
            .held(&geometry)
            .map(|piece| u64::from(geometry.piece_len_bytes(piece)));
        let (progress, receiver) = watch::channel(Progress {
            pieces_held: have.held_count(),
            piece_count: geometry.piece_count(),
            held_bytes: held.sum(),
            size_bytes: geometry.size_bytes(),
        });
        let io = Self {
            source,
            geometry,
            progress,
            end: watch::Sender::new(End::Running),
            error: Mutex::new(None),
            is_syncing: AtomicBool::new(false),
            doubt: Mutex::new(Doubt::new(Instant::now())),
        };
        (io, receiver)
    }

    /// A peer says that a piece from here is bad.
    // req: SWARM-38
    pub(super) fn accused(&self, now: Instant) {
        let is_due = self.doubt.lock().accused(now);
        if is_due {
            self.trust_nothing();
        }
    }

    /// Has everything hashed again before it is served.
    fn trust_nothing(&self) {
        match &self.source {
            Source::Whole(reader) | Source::Stored(reader, _) | Source::Partial(reader, _) => {
                reader.doubt();
            }
            // They are hours old at most, and what they are will be decided by a manifest.
            Source::Early(_) | Source::Growing(_) => {}
        }
    }

    /// The file that a block lies in, if it can be sent from there past this process.
    pub(super) fn file_of(&self, block: BlockRange) -> Option<(Arc<dyn DiskFile>, Range<u64>)> {
        self.trust_for_a_day();
        let range = self.geometry.block_bytes(block);
        let file = match &self.source {
            Source::Whole(reader) | Source::Stored(reader, _) | Source::Partial(reader, _) => {
                reader.right_file(range.start, u64::from(block.len_bytes()))
            }
            Source::Early(_) | Source::Growing(_) => None,
        };
        let file = file.filter(|file| file.os_file().is_some())?;
        Some((file, range))
    }

    /// Has what was hashed a day ago hashed again before it is served.
    // req: SWARM-38
    fn trust_for_a_day(&self) {
        let is_due = self.doubt.lock().aged(Instant::now());
        if is_due {
            self.trust_nothing();
        }
    }

    /// Fills `buffer`, which is as long as the block, with its bytes.
    pub(super) fn read(&self, block: BlockRange, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.trust_for_a_day();
        let read = self.read_bytes(self.geometry.block_bytes(block).start, buffer);
        if let Err(StoreError::Damaged { .. } | StoreError::MissingPiece { .. }) = &read {
            self.doubt.lock().found();
        }
        read
    }

    fn read_bytes(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        match &self.source {
            Source::Whole(reader) | Source::Stored(reader, _) => reader.read_at(buffer, offset),
            Source::Partial(reader, _) => reader.read_at(buffer, offset),
            Source::Early(early) => early.read_at(buffer, offset),
            Source::Growing(upload) => upload.read_at(buffer, offset),
        }
    }

    /// Whether a piece is verified and written.
    fn holds(&self, piece: PieceIndex) -> bool {
        match &self.source {
            Source::Whole(_) | Source::Stored(..) => true,
            Source::Partial(_, partial) => partial.held().has(piece),
            Source::Early(early) => early.held().has(piece),
            Source::Growing(_) => piece.get() < self.progress.borrow().pieces_held,
        }
    }

    pub(super) fn write(
        &self,
        piece: PieceIndex,
        blocks: &[Bytes],
    ) -> Result<PieceOutcome, StoreError> {
        match &self.source {
            // Nothing is missing, so nothing is asked for.
            Source::Whole(_) | Source::Stored(..) | Source::Growing(_) => {
                Ok(PieceOutcome::AlreadyHeld)
            }
            Source::Partial(_, partial) => partial.write_blocks(piece, blocks),
            Source::Early(early) => early.write_blocks(piece, blocks),
        }
    }

    pub(super) fn piece_len_bytes(&self, piece: PieceIndex) -> usize {
        self.geometry.piece_len_bytes(piece) as usize
    }

    /// All pieces from `first` on.
    pub(super) fn pieces_from(
        &self,
        first: PieceIndex,
    ) -> impl Iterator<Item = PieceIndex> + use<> {
        self.geometry.pieces_from(first)
    }

    /// Writes whole pieces in a row, from `first` on; one outcome for each.
    pub(super) fn write_run(
        &self,
        first: PieceIndex,
        run: &Bytes,
    ) -> Result<Vec<PieceOutcome>, StoreError> {
        if let Source::Partial(_, partial) = &self.source {
            return partial.write_run(first, run);
        }
        let mut rest = run.clone();
        let pieces = self.pieces_from(first).map_while(|piece| {
            let len = self.geometry.piece_len_bytes(piece) as usize;
            (rest.len() >= len && len > 0).then(|| (piece, rest.split_to(len)))
        });
        pieces
            .map(|(piece, part)| self.write(piece, &[part]))
            .collect()
    }

    /// Whether it is time to sync and nobody does; then the caller is to see to [`TransferIo::sync`].
    pub(super) fn begin_sync(&self) -> bool {
        let is_due = match &self.source {
            Source::Whole(_) | Source::Stored(..) | Source::Growing(_) => false,
            Source::Partial(_, partial) => partial.is_sync_due(),
            Source::Early(early) => early.is_sync_due(),
        };
        is_due && !self.is_syncing.swap(true, Ordering::AcqRel)
    }

    /// Makes the pieces written so far durable. Blocks on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let outcome = match &self.source {
            Source::Whole(_) | Source::Stored(..) | Source::Growing(_) => Ok(()),
            Source::Partial(_, partial) => partial.sync(),
            Source::Early(early) => early.sync(),
        };
        self.is_syncing.store(false, Ordering::Release);
        outcome
    }

    pub(super) fn piece_done(&self, piece: PieceIndex) {
        let pieces_held = match &self.source {
            Source::Whole(_) | Source::Stored(..) | Source::Growing(_) => return,
            Source::Partial(_, partial) => partial.held().held_count(),
            Source::Early(early) => early.held().held_count(),
        };
        let len = u64::from(self.geometry.piece_len_bytes(piece));
        self.progress.send_if_modified(|progress| {
            let more = pieces_held > progress.pieces_held;
            if more {
                progress.held_bytes += len * u64::from(pieces_held - progress.pieces_held);
                progress.held_bytes = progress.held_bytes.min(progress.size_bytes);
                progress.pieces_held = pieces_held;
            }
            more
        });
    }

    /// So many pieces more were written by whoever writes them.
    pub(super) fn gained(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let piece_bytes = u64::from(self.geometry.piece_bytes().get());
        self.progress.send_modify(|progress| {
            let held = progress.pieces_held.saturating_add(count);
            progress.pieces_held = held.min(progress.piece_count);
            let bytes = u64::from(progress.pieces_held) * piece_bytes;
            progress.held_bytes = bytes.min(progress.size_bytes);
        });
    }

    /// Makes hashes known; answers the pieces that can be asked for.
    pub(super) fn announce(&self, first: u32, hashes: &[PieceHash]) -> Vec<PieceIndex> {
        match &self.source {
            Source::Early(early) => early.announce(first, hashes),
            Source::Whole(_) | Source::Stored(..) | Source::Partial(..) | Source::Growing(_) => {
                Vec::new()
            }
        }
    }

    /// Makes what was fetched complete and durable, and tells who waits.
    pub(super) fn complete(&self) -> Result<(), Arc<StoreError>> {
        let completed = match &self.source {
            Source::Whole(_) | Source::Growing(_) => Ok(None),
            Source::Early(early) => early.sync().map(|()| None),
            Source::Stored(_, stored) => Ok(Some(stored.clone())),
            Source::Partial(_, partial) => partial.complete().map(Some),
        };
        match completed {
            Ok(stored) => {
                self.progress.send_modify(|progress| {
                    progress.pieces_held = progress.piece_count;
                    progress.held_bytes = progress.size_bytes;
                });
                self.end.send_replace(End::Complete(stored));
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(super) fn failed(&self, error: StoreError) -> Arc<StoreError> {
        let error = Arc::clone(self.error.lock().get_or_insert_with(|| Arc::new(error)));
        self.end
            .send_replace(End::Failed(FetchError::Storage(Arc::clone(&error))));
        error
    }

    pub(super) fn stopped(&self) {
        self.end.send_if_modified(|end| {
            let running = matches!(end, End::Running);
            if running {
                *end = End::Failed(FetchError::Stopped);
            }
            running
        });
    }
}

/// A payload's part in its swarm: it ends when this is dropped.
pub struct SwarmTransfer {
    pub(super) shared: Arc<Shared>,
    pub(super) id: TransferId,
    pub(super) io: Arc<TransferIo>,
    progress: watch::Receiver<Progress>,
}

impl SwarmTransfer {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: TransferId,
        io: Arc<TransferIo>,
        progress: watch::Receiver<Progress>,
    ) -> Self {
        Self {
            shared,
            id,
            io,
            progress,
        }
    }

    /// How far it is; changes with every piece.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until every piece is verified, written and durable. May be called again.
    ///
    /// The stored payload carries a reference that keeps it in the store; `None` for a payload that was
    /// only served.
    ///
    /// # Errors
    /// If this node's storage failed, or the swarm was shut down first.
    pub async fn finished(&self) -> Result<Option<StoredPayload>, FetchError> {
        let mut end = self.io.end.subscribe();
        let ended = end.wait_for(|end| !matches!(end, End::Running)).await;
        match ended.as_deref() {
            Ok(End::Complete(stored)) => Ok(stored.clone()),
            Ok(End::Failed(error)) => Err(error.clone()),
            Ok(End::Running) | Err(_) => Err(FetchError::Stopped),
        }
    }

    /// Reads at `offset_bytes`, waiting for the piece there if it is not verified yet; at most to its end.
    ///
    /// What follows is fetched first from then on, if the payload is fetched in order. 0 bytes is the end.
    ///
    /// # Errors
    /// If this node's storage failed, or the swarm was shut down first.
    pub async fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<usize, FetchError> {
        // req: SWARM-35
        let geometry = self.io.geometry;
        let piece_bytes = u64::from(geometry.piece_bytes().get());
        let number = u32::try_from(offset_bytes / piece_bytes).unwrap_or(u32::MAX);
        let Some(piece) = geometry.piece_index(number) else {
            return Ok(0);
        };
        core::with(&self.shared, |core, _| {
            core.engine.set_read_position(self.id, offset_bytes);
        });
        let mut progress = self.progress.clone();
        let mut end = self.io.end.subscribe();
        while !self.io.holds(piece) {
            if let End::Failed(error) = &*end.borrow_and_update() {
                return Err(error.clone());
            }
            tokio::select! {
                changed = progress.changed() => changed.map_err(|_| FetchError::Stopped)?,
                changed = end.changed() => changed.map_err(|_| FetchError::Stopped)?,
            }
        }
        let begins = u64::from(number) * piece_bytes;
        let ends = begins + u64::from(geometry.piece_len_bytes(piece));
        let left = usize::try_from(ends - offset_bytes).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let (portion, _) = buffer.split_at_mut(count);
        let read = self.io.read_bytes(offset_bytes, portion);
        read.map_err(|error| FetchError::Storage(Arc::new(error)))?;
        Ok(count)
    }

    /// Knows one more address of a peer, for instance from its presence message.
    pub fn add_peer(&self, address: std::net::SocketAddr) {
        core::with(&self.shared, |core, now| {
            core.engine.add_address(self.id, address, now);
        });
    }

    /// Its figures, peers included.
    #[must_use]
    pub fn stats(&self) -> Option<TransferStats> {
        let core = self.shared.core.lock();
        core.engine.transfer_stats(self.id, Instant::now())
    }

    /// Leaves the swarm. Pieces that were verified stay in the store. The same as dropping it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for SwarmTransfer {
    fn drop(&mut self) {
        core::with(&self.shared, |core, now| {
            core.engine.forget(self.id, now);
            core.transfers.remove(&self.id);
        });
        self.io.stopped();
    }
}

impl fmt::Debug for SwarmTransfer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SwarmTransfer")
            .field("id", &self.id)
            .field("progress", &*self.progress.borrow())
            .finish_non_exhaustive()
    }
}
