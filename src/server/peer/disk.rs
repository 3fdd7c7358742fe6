//! Reads, hashes and writes pieces, on the swarm's own threads.
//!
//! A piece is hashed and written by the task that received its last block, while its bytes are in the
//! processor's cache, and a block is read by the task that sends it: handing either to another thread
//! costs more than the work. Such a task may wait for a disk, which is why the swarm has threads of its own
//! (see [`super::SwarmSettings::threads`]); what waits long, a sync, goes to a thread for blocking work.
//! Bound: one piece and one block for each thread; one sync and one completion for each payload.

use std::sync::Arc;

use bytes::Bytes;

use super::core::{self, Shared};
use super::transfer::TransferIo;
use crate::payload::store::PieceOutcome;
use crate::payload::{PieceIndex, StoreError};
use crate::swarm::TransferId;

/// Something that touches files, to be done after the engine's lock was released.
pub(super) enum Job {
    /// Hash a piece, and write it if it is right.
    Write {
        id: TransferId,
        transfer: Arc<TransferIo>,
        piece: PieceIndex,
        blocks: Vec<Bytes>,
    },
    /// Make a payload of which all pieces came complete.
    Complete {
        id: TransferId,
        transfer: Arc<TransferIo>,
    },
}

/// Does jobs, or has them done, and tells the engine of all that was done.
pub(super) fn run(shared: &Arc<Shared>, jobs: Vec<Job>) {
    let done: Vec<Written> = jobs
        .into_iter()
        .flat_map(|job| run_one(shared, job))
        .collect();
    if !done.is_empty() {
        tell(shared, done);
    }
}

/// What became of a piece.
struct Written {
    id: TransferId,
    piece: PieceIndex,
    result: Result<PieceOutcome, StoreError>,
}

fn run_one(shared: &Arc<Shared>, job: Job) -> Vec<Written> {
    match job {
        Job::Write {
            id,
            transfer,
            piece,
            blocks,
        } => {
            let written = write(id, &transfer, piece, &blocks);
            blocks
                .into_iter()
                .for_each(|block| shared.buffers.put_bytes(block));
            for one in written.iter().filter(|one| one.result.is_ok()) {
                transfer.piece_done(one.piece);
            }
            if transfer.begin_sync() {
                let shared = Arc::clone(shared);
                let runtime = shared.runtime.clone();
                runtime.spawn_blocking(move || sync(&shared, id, &transfer));
            }
            written
        }
        Job::Complete { id, transfer } => {
            let shared = Arc::clone(shared);
            let runtime = shared.runtime.clone();
            runtime.spawn_blocking(move || {
                if let Err(error) = transfer.complete() {
                    tracing::error!(%error, "payload cannot be completed");
                    fail(&shared, id);
                }
            });
            Vec::new()
        }
    }
}

/// Hashes and writes a piece, or the pieces in a row that begin with it and are one block.
fn write(
    id: TransferId,
    transfer: &TransferIo,
    piece: PieceIndex,
    blocks: &[Bytes],
) -> Vec<Written> {
    let one = |piece, result| Written { id, piece, result };
    let results = match blocks {
        [run] if run.len() > transfer.piece_len_bytes(piece) => transfer.write_run(piece, run),
        blocks => transfer.write(piece, blocks).map(|outcome| vec![outcome]),
    };
    match results {
        Ok(outcomes) => {
            let pieces = transfer.pieces_from(piece);
            pieces
                .zip(outcomes)
                .map(|(piece, outcome)| one(piece, Ok(outcome)))
                .collect()
        }
        Err(error) => vec![one(piece, Err(error))],
    }
}

fn sync(shared: &Arc<Shared>, id: TransferId, transfer: &TransferIo) {
    if let Err(error) = transfer.sync() {
        tracing::error!(%error, "pieces cannot be synced");
        transfer.failed(error);
        fail(shared, id);
    }
}

fn fail(shared: &Arc<Shared>, id: TransferId) {
    core::with(shared, |core, now| {
        core.engine.handle_storage_failed(id, now);
    });
}

fn tell(shared: &Arc<Shared>, done: Vec<Written>) {
    core::with(shared, |core, now| {
        let mut right: Vec<(TransferId, PieceIndex)> = Vec::with_capacity(done.len());
        for Written { id, piece, result } in done {
            match result {
                Ok(PieceOutcome::Stored | PieceOutcome::AlreadyHeld) => right.push((id, piece)),
                Ok(PieceOutcome::NotKept) => core.engine.handle_not_kept(id, piece),
                Ok(PieceOutcome::Mismatch) => {
                    tracing::warn!(piece = piece.get(), "piece does not match its hash");
                    core.engine.handle_bad(id, piece, now);
                }
                Err(error) => {
                    tracing::error!(%error, piece = piece.get(), "piece cannot be written");
                    if let Some(io) = core.transfers.get(&id) {
                        io.failed(error);
                    }
                    core.engine.handle_storage_failed(id, now);
                }
            }
        }
        for of_one in right.chunk_by(|one, next| one.0 == next.0) {
            let pieces: Vec<PieceIndex> = of_one.iter().map(|(_, piece)| *piece).collect();
            if let Some((id, _)) = of_one.first() {
                core.engine.handle_verified(*id, &pieces, now);
            }
        }
    });
}
