//! Bytes in, a file and its piece hashes out.
//!
//! Owns: the one buffer between a publisher's portions and the file. Bytes are hashed as they leave
//! it, still in the processor's cache, and written in few large writes.
//! Bound: one buffer of 1 MiB at most, and 32 bytes for each piece.
//! Spec: `spec/payload-store.md` STORE-6, STORE-7.

use std::io;

use crate::disk::DiskFile;
use crate::payload::geometry::Geometry;
use crate::payload::hash::PayloadHasher;
use crate::payload::id::{PayloadId, PieceHash};

/// Size of the buffer and of each write but the last, in bytes.
pub const WRITE_BYTES: usize = 1024 * 1024;

/// Writes one payload of known size to a file and hashes it on the way.
#[derive(Debug)]
pub struct PayloadWriter {
    geometry: Geometry,
    hasher: PayloadHasher,
    buffer: Vec<u8>,
    written_bytes: u64,
}

/// Why a payload could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// More bytes came than were declared.
    #[error("more than the declared {declared_bytes} bytes came")]
    TooLong {
        /// Size given at the start.
        declared_bytes: u64,
    },
    /// The end came before all declared bytes.
    #[error("{got_bytes} bytes came of {declared_bytes} declared")]
    TooShort {
        /// Size given at the start.
        declared_bytes: u64,
        /// Bytes that came.
        got_bytes: u64,
    },
    /// The file refused a write.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

impl PayloadWriter {
    /// A writer for a payload of this size and division.
    pub fn new(geometry: Geometry) -> Self {
        // req: STORE-7
        let buffer_bytes = usize::try_from(geometry.size_bytes()).unwrap_or(WRITE_BYTES);
        Self {
            geometry,
            hasher: PayloadHasher::new(geometry),
            buffer: Vec::with_capacity(buffer_bytes.min(WRITE_BYTES)),
            written_bytes: 0,
        }
    }

    /// Takes the next bytes, in portions of any size.
    ///
    /// After an error the payload is lost; drop the writer and the file.
    pub fn write(&mut self, mut bytes: &[u8], file: &dyn DiskFile) -> Result<(), WriteError> {
        let declared_bytes = self.geometry.size_bytes();
        if bytes.len() as u64 > declared_bytes - self.taken_bytes() {
            return Err(WriteError::TooLong { declared_bytes });
        }
        while !bytes.is_empty() {
            if self.buffer.is_empty() && bytes.len() >= WRITE_BYTES {
                let (now, later) = bytes.split_at(bytes.len() - bytes.len() % WRITE_BYTES);
                self.put(now, file)?;
                bytes = later;
                continue;
            }
            let room = WRITE_BYTES - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == WRITE_BYTES {
                self.flush(file)?;
            }
        }
        Ok(())
    }

    /// Writes what is left and gives the id and the piece hashes; does not sync.
    pub fn finish(
        mut self,
        file: &dyn DiskFile,
    ) -> Result<(PayloadId, Vec<PieceHash>), WriteError> {
        self.flush(file)?;
        let (declared_bytes, got_bytes) = (self.geometry.size_bytes(), self.written_bytes);
        self.hasher.finish().ok_or(WriteError::TooShort {
            declared_bytes,
            got_bytes,
        })
    }

    /// Bytes taken so far, written or not.
    pub fn taken_bytes(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    /// Bytes that are in the file.
    pub const fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The hashes of the pieces that are whole and written, from the first on.
    pub fn piece_hashes(&self) -> &[PieceHash] {
        self.hasher.piece_hashes()
    }

    /// Writes what waits for more. Portions are as large as the buffer otherwise.
    ///
    /// # Errors
    /// As [`PayloadWriter::write`].
    pub fn flush(&mut self, file: &dyn DiskFile) -> Result<(), WriteError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.put(&buffer, file);
        buffer.clear();
        self.buffer = buffer;
        outcome
    }

    fn put(&mut self, bytes: &[u8], file: &dyn DiskFile) -> Result<(), WriteError> {
        let taken = self.hasher.update(bytes);
        debug_assert_eq!(
            taken,
            bytes.len(),
            "write() lets in no more than was declared"
        );
        file.write_at(bytes, self.written_bytes)?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }
}
