//! Who alone waits for the disk commits for itself: without waking one thread to be woken by it.
//!
//! Owns: when a connection may block its thread for a sync. The disk must not be slow: who connects meanwhile, and the
//! connection's own next frames, wait for it. Whether others are served on the thread knows the connection.
//! Spec: `spec/journal.md`, JOURNAL-42.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::journal::{Gathering, Journal};

/// After a sync that took longer than this no connection blocks its thread, ...
const SLOW: Duration = Duration::from_millis(20);
/// ... for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// The journal, for connections that may commit what they append.
#[derive(Debug)]
pub(super) struct Leader {
    journal: Journal,
    started: Instant,
    /// Nobody leads before this, in milliseconds since the start.
    paused_until_ms: AtomicU64,
}

impl Leader {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            started: Instant::now(),
            paused_until_ms: AtomicU64::new(0),
        }
    }

    /// Lets this thread gather what it appends from now on, if it may commit it.
    pub(super) fn gather(&self) -> Option<Gathering<'_>> {
        let is_slow = self.now_ms() < self.paused_until_ms.load(Ordering::Relaxed);
        (!is_slow).then(|| self.journal.gather())
    }

    /// Commits it, or leaves it to the journal's own thread: then `false`.
    pub(super) fn commit(&self, gathering: Gathering<'_>) -> bool {
        let begun = Instant::now();
        let has_led = gathering.commit();
        if begun.elapsed() > SLOW {
            let until = self.now_ms().saturating_add(PAUSE.as_millis() as u64);
            self.paused_until_ms.store(until, Ordering::Relaxed);
        }
        has_led
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
