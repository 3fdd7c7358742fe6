//! The file of a complete payload, whose pieces are hashed once before they are given out.
//!
//! Owns: the open file, and which pieces this process knows to be right: those that it wrote itself, and
//! those that it has read. Bits may rot while a payload lies on a disk between two runs.
//! Bound: 32 bytes and a bit for each piece, while a reader is open and not all was read.
//! Spec: `spec/payload-store.md` STORE-21.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::DiskFile;
use crate::payload::bitfield::Bitfield;
use crate::payload::geometry::Geometry;
use crate::payload::id::{PayloadId, PieceHash};
use crate::payload::manifest::Manifest;
use crate::payload::store::error::StoreError;
use crate::payload::store::reader::{hash_piece_of, pieces_of_range};

/// A file open for reading.
#[derive(Debug)]
pub(super) struct CheckedFile {
    file: Arc<dyn DiskFile>,
    /// None when all is known to be right.
    doubt: Option<Doubt>,
}

#[derive(Debug)]
struct Doubt {
    piece_hashes: Vec<PieceHash>,
    checked: Mutex<Bitfield>,
}

/// What a read came to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Checked {
    /// It was the last piece that was in doubt.
    All,
    /// Nothing new, or not all yet.
    Some,
}

impl CheckedFile {
    /// A file that this process wrote or has read whole.
    pub(super) fn trusted(file: Arc<dyn DiskFile>) -> Self {
        Self { file, doubt: None }
    }

    /// A file that was there when this process began.
    pub(super) fn doubted(file: Arc<dyn DiskFile>, manifest: &Manifest) -> Self {
        let doubt = Some(Doubt {
            piece_hashes: manifest.piece_hashes().to_vec(),
            checked: Mutex::new(Bitfield::empty(manifest.geometry())),
        });
        Self { file, doubt }
    }

    /// Fills `buffer`; hashes pieces of the range that were not read before, and refuses a wrong one.
    pub(super) fn read_at(
        &self,
        id: PayloadId,
        geometry: &Geometry,
        buffer: &mut [u8],
        offset_bytes: u64,
    ) -> Result<Checked, StoreError> {
        let read_error = |source| StoreError::Read { id, source };
        let mut outcome = Checked::Some;
        if let Some(doubt) = &self.doubt {
            for piece in pieces_of_range(geometry, offset_bytes, buffer.len()) {
                if doubt.checked.lock().has(piece) {
                    continue;
                }
                // req: STORE-21
                let hash = hash_piece_of(&*self.file, geometry, piece).map_err(read_error)?;
                if hash.is_none() || hash.as_ref() != doubt.piece_hashes.get(piece.as_usize()) {
                    tracing::error!(
                        payload = %format_args!("{id:.10}"), piece = piece.get(),
                        "a piece of a stored payload is damaged on disk"
                    );
                    return Err(StoreError::Damaged {
                        id,
                        reason: "a piece is not what its hash says",
                    });
                }
                let mut checked = doubt.checked.lock();
                if checked.set(piece) && checked.is_full() {
                    outcome = Checked::All;
                }
            }
        }
        self.file
            .read_exact_at(buffer, offset_bytes)
            .map_err(read_error)?;
        Ok(outcome)
    }
}
