//! Room for new payloads: the quota, the disk, and what must go for them.
//!
//! Spec: `spec/payload-store.md` STORE-6, STORE-16, STORE-17.

use std::sync::Arc;

use crate::payload::store::error::StoreError;
use crate::payload::store::{Inner, State};

/// Space taken from the quota for a payload that is not stored yet; given back when dropped.
pub(super) struct Reservation {
    inner: Arc<Inner>,
    size_bytes: u64,
    unwritten_bytes: u64,
}

/// What becomes of payloads that nothing needs, where there is no room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Idle {
    Removed,
    Kept,
}

/// Whether a payload fits, and if not, which bound it meets.
enum Room {
    Enough,
    DiskFull { free_bytes: u64 },
    QuotaExceeded { quota_bytes: u64, used_bytes: u64 },
}

impl Reservation {
    /// Takes `size_bytes`, removing idle payloads for it where it must.
    pub(super) fn take(inner: &Arc<Inner>, size_bytes: u64) -> Result<Self, StoreError> {
        // req: STORE-16, STORE-17
        Self::take_with(inner, size_bytes, Idle::Removed)
    }

    /// Takes `size_bytes` if they are free; nothing is removed for it.
    pub(super) fn take_free(inner: &Arc<Inner>, size_bytes: u64) -> Result<Self, StoreError> {
        // req: STORE-23
        Self::take_with(inner, size_bytes, Idle::Kept)
    }

    fn take_with(inner: &Arc<Inner>, size_bytes: u64, idle: Idle) -> Result<Self, StoreError> {
        loop {
            let root = inner.paths.root();
            let free_bytes = inner
                .disk
                .free_bytes(root)
                .map_err(|source| StoreError::io("read the free space of", root, source))?;
            let mut state = inner.state.lock();
            let room = inner.room_for(&state, size_bytes, free_bytes);
            let refusal = match room {
                Room::Enough => {
                    state.reserved_bytes += size_bytes;
                    state.unwritten_bytes += size_bytes;
                    let inner = Arc::clone(inner);
                    return Ok(Self {
                        inner,
                        size_bytes,
                        unwritten_bytes: size_bytes,
                    });
                }
                Room::DiskFull { free_bytes } => StoreError::DiskFull {
                    needed_bytes: size_bytes,
                    free_bytes,
                },
                Room::QuotaExceeded {
                    quota_bytes,
                    used_bytes,
                } => {
                    let needed_bytes = size_bytes;
                    StoreError::QuotaExceeded {
                        needed_bytes,
                        used_bytes,
                        quota_bytes,
                    }
                }
            };
            let victim = match idle {
                Idle::Removed => state.longest_idle(),
                Idle::Kept => None,
            };
            let Some(victim) = victim else {
                return Err(refusal);
            };
            let taken = inner.take_out(&mut state, victim);
            drop(state);
            match taken {
                Some(removal) => removal.run().1?,
                None => return Err(refusal),
            }
        }
    }

    /// Tells that so many bytes more are on the disk.
    pub(super) fn written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unwritten_bytes);
        self.unwritten_bytes -= bytes;
        self.inner.state.lock().unwritten_bytes -= bytes;
    }

    /// Makes the space that of a stored payload; the caller adds the entry under the same lock.
    pub(super) fn keep(mut self, state: &mut State) {
        state.reserved_bytes -= self.size_bytes;
        state.unwritten_bytes -= self.unwritten_bytes;
        state.stored_bytes += self.size_bytes;
        (self.size_bytes, self.unwritten_bytes) = (0, 0);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Nothing is left after `keep`, which holds the lock.
        if self.size_bytes > 0 {
            let mut state = self.inner.state.lock();
            state.reserved_bytes -= self.size_bytes;
            state.unwritten_bytes -= self.unwritten_bytes;
        }
    }
}

impl Inner {
    fn room_for(&self, state: &State, size_bytes: u64, free_bytes: u64) -> Room {
        let used_bytes = state.stored_bytes + state.reserved_bytes;
        if let Some(quota_bytes) = self.settings.quota_bytes
            && used_bytes.saturating_add(size_bytes) > quota_bytes
        {
            return Room::QuotaExceeded {
                quota_bytes,
                used_bytes,
            };
        }
        let kept_bytes = self
            .settings
            .free_bytes_min
            .saturating_add(state.unwritten_bytes);
        let free_bytes = free_bytes.saturating_sub(kept_bytes);
        if size_bytes > free_bytes {
            return Room::DiskFull { free_bytes };
        }
        Room::Enough
    }
}
