//! Buffers for blocks, used again and again: a page touched first costs more than hashing it.
//!
//! Bound: [`KEPT_BYTES_MAX`] are kept; what is in use is bounded by the engine.

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes of unused buffers that are kept.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Unused buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// A buffer of exactly `len` bytes, of any content.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.pop();
        buffer.resize(len, 0);
        buffer
    }

    /// A buffer of at least `len` bytes, of any content: where lengths change, what was longer once is not filled anew.
    pub(super) fn take_longer(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.pop();
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        buffer
    }

    fn pop(&self) -> Vec<u8> {
        let mut kept = self.kept.lock();
        let buffer = kept.buffers.pop().unwrap_or_default();
        kept.bytes -= buffer.capacity();
        buffer
    }

    /// Takes a buffer back.
    pub(super) fn put(&self, buffer: Vec<u8>) {
        let mut kept = self.kept.lock();
        if kept.bytes + buffer.capacity() <= KEPT_BYTES_MAX {
            kept.bytes += buffer.capacity();
            kept.buffers.push(buffer);
        }
    }

    /// Takes the buffer under `bytes` back, if nobody else holds it.
    pub(super) fn put_bytes(&self, bytes: Bytes) {
        if let Ok(buffer) = bytes.try_into_mut() {
            self.put(Vec::from(Bytes::from(buffer)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer that came back is handed out again, whatever length is asked for.
    #[test]
    fn buffers_are_used_again() {
        let buffers = Buffers::default();
        let first = buffers.take(100_000);
        let place = first.as_ptr();
        buffers.put_bytes(Bytes::from(first));
        let again = buffers.take(50_000);
        assert_eq!((again.as_ptr(), again.len()), (place, 50_000));
        let shared = Bytes::from(again);
        let other = shared.clone();
        buffers.put_bytes(shared);
        assert_eq!(
            buffers.kept.lock().buffers.len(),
            0,
            "still in use elsewhere"
        );
        drop(other);
    }
}
