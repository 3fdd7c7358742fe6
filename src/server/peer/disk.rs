//! The threads that read, hash and write pieces, so that no task waits for a disk.
//!
//! Bound: jobs are at most what the engine allows in flight: pieces below its download bound, blocks below
//! its uplink bound, one completion for each payload. Threads end with [`DiskPool::stop`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::core::{self, Shared};
use super::transfer::TransferIo;
use crate::payload::store::PieceOutcome;
use crate::payload::{BlockRange, PieceIndex, StoreError};
use crate::swarm::TransferId;

/// Something that touches files.
pub(super) enum Job {
    /// Read a block and answer with its bytes.
    Read {
        transfer: Arc<TransferIo>,
        block: BlockRange,
        answer: oneshot::Sender<Vec<u8>>,
    },
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

/// The jobs that wait.
pub(super) struct DiskPool {
    queue: Mutex<Queue>,
    filled: Condvar,
}

struct Queue {
    jobs: VecDeque<Job>,
    stopped: bool,
}

/// What the engine is to be told of a piece.
struct Outcome {
    id: TransferId,
    piece: PieceIndex,
    result: Result<PieceOutcome, StoreError>,
}

impl DiskPool {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                stopped: false,
            }),
            filled: Condvar::new(),
        }
    }

    pub(super) fn push(&self, job: Job) {
        let mut queue = self.queue.lock();
        if !queue.stopped {
            queue.jobs.push_back(job);
            self.filled.notify_one();
        }
    }

    /// Ends the threads; jobs that wait are dropped.
    pub(super) fn stop(&self) {
        let mut queue = self.queue.lock();
        queue.stopped = true;
        queue.jobs.clear();
        self.filled.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            self.filled.wait(&mut queue);
        }
    }
}

/// Starts the threads of a swarm.
pub(super) fn start(shared: &Arc<Shared>, threads: usize) -> std::io::Result<()> {
    for number in 0..threads {
        let shared = Arc::clone(shared);
        std::thread::Builder::new()
            .name(format!("swarm-disk-{number}"))
            .spawn(move || run(&shared))?;
    }
    Ok(())
}

fn run(shared: &Arc<Shared>) {
    let mut piece_buffer = Vec::new();
    while let Some(job) = shared.disk.next() {
        match job {
            Job::Read {
                transfer,
                block,
                answer,
            } => {
                let mut buffer = shared.buffers.take(block.len_bytes() as usize);
                match transfer.read(block, &mut buffer) {
                    // Nobody waits if the connection has gone.
                    Ok(()) => drop(answer.send(buffer)),
                    Err(error) => {
                        tracing::warn!(%error, piece = block.piece().get(), "piece cannot be read");
                        shared.buffers.put(buffer);
                    }
                }
            }
            Job::Write {
                id,
                transfer,
                piece,
                blocks,
            } => {
                let result = write(&transfer, piece, &blocks, &mut piece_buffer);
                blocks
                    .into_iter()
                    .for_each(|block| shared.buffers.put_bytes(block));
                if result.is_ok() {
                    transfer.piece_done(piece);
                }
                tell(shared, Outcome { id, piece, result });
            }
            Job::Complete { id, transfer } => {
                if let Err(error) = transfer.complete() {
                    tracing::error!(%error, "payload cannot be completed");
                    core::with(shared, |core, now| {
                        core.engine.handle_storage_failed(id, now);
                    });
                }
            }
        }
    }
}

fn write(
    transfer: &TransferIo,
    piece: PieceIndex,
    blocks: &[Bytes],
    piece_buffer: &mut Vec<u8>,
) -> Result<PieceOutcome, StoreError> {
    match blocks {
        [only] => transfer.write(piece, only),
        several => {
            piece_buffer.clear();
            for block in several {
                piece_buffer.extend_from_slice(block);
            }
            transfer.write(piece, piece_buffer)
        }
    }
}

fn tell(shared: &Arc<Shared>, outcome: Outcome) {
    let Outcome { id, piece, result } = outcome;
    core::with(shared, |core, now: Instant| match result {
        Ok(PieceOutcome::Stored | PieceOutcome::AlreadyHeld) => {
            core.engine.handle_verified(id, piece, now);
        }
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
    });
}
