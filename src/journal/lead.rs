//! A commit by the thread that appended: who waits for the disk alone need not wait for another thread as well.
//!
//! Owns: when that may be. While a [`Gathering`] lives, what its thread appends does not wake the sync thread. Then
//! [`Gathering::commit`] takes the same steps here, if the sync thread sleeps, and what is pending is little and needs
//! no new segment; otherwise the sync thread is woken as ever. Cleaning, new segments and closing marks stay its own.
//! Locks: the committer's is held by whoever commits; the appender's is taken under it. Nobody waits for the
//! committer's but the sync thread.
//! Spec: `spec/journal.md`, "Commit", JOURNAL-42.

use std::cell::Cell;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Weak;

use parking_lot::Mutex;

use super::Journal;
use super::commit::Committer;
use super::error::StorageFailure;
use super::shared::{Shared, Stop};

/// More than this is pending only where others append too, or many wait: the sync thread's, in bytes.
const LED_BYTES_MAX: usize = 32 << 10;

thread_local! {
    /// The journal whose appends this thread gathers, by its address; 0 for none.
    static GATHERS: Cell<usize> = const { Cell::new(0) };
}

/// What a thread appends while this lives, it commits itself or leaves to the sync thread, which is woken at
/// the latest when this is dropped. Stays on its thread.
#[derive(Debug)]
pub struct Gathering<'a> {
    shared: &'a Shared,
    _here: PhantomData<*const ()>,
}

impl Journal {
    /// Begins to gather what this thread appends; for the time until whoever appends knows whether it waits
    /// for the disk. An append that must wait for room, and any wait for a durable record, wakes the sync
    /// thread nevertheless.
    pub fn gather(&self) -> Gathering<'_> {
        let shared = self.shared();
        GATHERS.set(shared.address());
        Gathering {
            shared,
            _here: PhantomData,
        }
    }
}

impl Gathering<'_> {
    /// Writes and syncs what is pending, blocking for it, and tells the commit listener; `false` if that is left
    /// to the sync thread. A failure is the journal's, as if it had met the sync thread.
    pub fn commit(self) -> bool {
        self.shared.lead()
    }
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        GATHERS.set(0);
        self.shared.wake_if_pending();
    }
}

impl Shared {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether this thread gathers what it appends.
    pub(super) fn is_gathering(&self) -> bool {
        GATHERS.get() == self.address()
    }

    /// Takes a commit's steps on this thread, if the sync thread sleeps and there is little to do.
    // req: JOURNAL-42
    fn lead(&self) -> bool {
        let Some(committer) = self.committer.get().and_then(Weak::upgrade) else {
            return false;
        };
        let Some(mut committer) = committer.try_lock() else {
            return false;
        };
        {
            let state = self.lock();
            let is_little = state.appender.is_within(LED_BYTES_MAX);
            if state.stop != Stop::Running || !state.is_asleep() || !is_little {
                return false;
            }
        }
        let end = LeadGuard(self);
        let led = committer.lead();
        std::mem::forget(end);
        drop(committer);
        let has_more = led.unwrap_or_else(|failure| {
            tracing::error!(error = %failure, "the journal failed");
            self.fail(&failure);
            true
        });
        self.was_led(has_more);
        true
    }
}

/// A panic in the middle of a commit leaves nothing that could be gone on with.
struct LeadGuard<'a>(&'a Shared);

impl Drop for LeadGuard<'_> {
    fn drop(&mut self) {
        self.0.fail(&StorageFailure {
            doing: "run",
            path: PathBuf::from("a commit"),
            message: "it panicked".to_owned(),
        });
    }
}

/// Where the sync thread's state is, for others: gone with the thread.
pub(super) type SharedCommitter = Weak<Mutex<Committer>>;
