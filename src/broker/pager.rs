//! Who reads the pages of long queues that must come from the disk: the queues that asked, in turn.
//!
//! Owns: the list of queues that want a page, and of those whose last page could not be read. One
//! thread of the server lives in [`Pager::run`]; a test takes [`Pager::turn`]s by hand. Pages are
//! written by who fills them (`queue/paging.rs`).
//! Bound: each queue stands once in each of the lists.
//! Locks: its own is taken under a queue's, and nothing under it.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::disk::ReadFrom;

use super::outbox::Wakes;
use super::queue::Queue;

/// How long a page that could not be read is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The queues that want a page.
#[derive(Debug, Default)]
pub struct Pager {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: VecDeque<Weak<Queue>>,
    stalled: Vec<Weak<Queue>>,
    /// When the first of those that are stalled now became so.
    stalled_since: Option<Instant>,
    is_stopping: bool,
}

impl Pager {
    /// Notes that `queue` wants a page. Its lock may be held.
    pub(crate) fn ask(&self, queue: Weak<Queue>) {
        self.state.lock().asked.push_back(queue);
        self.work.notify_one();
    }

    /// Notes that a page of `queue` could not be read, by whomever: it is tried again in a while. No lock is held.
    pub(crate) fn set_stalled(&self, queue: Weak<Queue>, now: Instant) {
        let mut state = self.state.lock();
        if !state.stalled.iter().any(|other| other.ptr_eq(&queue)) {
            state.stalled.push(queue);
        }
        state.stalled_since.get_or_insert(now);
        // It may sleep without an end.
        self.work.notify_one();
    }

    /// Reads pages until [`Pager::stop`]; the body of a thread. `clock` gives the time.
    pub fn run(&self, clock: impl Fn() -> Instant) {
        loop {
            // Also while others ask all the time.
            self.retry_due(clock());
            if self.turn(clock()) {
                continue;
            }
            let mut state = self.state.lock();
            if state.is_stopping {
                return;
            }
            if !state.asked.is_empty() {
                continue;
            }
            if state.stalled.is_empty() {
                self.work.wait(&mut state);
            } else {
                let _ = self.work.wait_for(&mut state, RETRY_AFTER);
            }
        }
    }

    /// Lets pages be tried again that could not be read a while ago.
    pub(crate) fn retry_due(&self, now: Instant) {
        let since = self.state.lock().stalled_since;
        if since.is_some_and(|since| now.saturating_duration_since(since) >= RETRY_AFTER) {
            self.retry();
        }
    }

    /// Reads one page for whoever asked first; false if nobody did.
    pub fn turn(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.is_stopping {
            return false;
        }
        let Some(queue) = state.asked.pop_front() else {
            return false;
        };
        drop(state);
        let Some(queue) = queue.upgrade() else {
            return true;
        };
        queue.load(ReadFrom::Disk, now, &mut Wakes::new());
        true
    }

    /// Lets pages that could not be read be tried again.
    pub fn retry(&self) {
        let stalled = {
            let mut state = self.state.lock();
            state.stalled_since = None;
            std::mem::take(&mut state.stalled)
        };
        for queue in stalled.iter().filter_map(Weak::upgrade) {
            queue.retry_load();
        }
    }

    /// Ends [`Pager::run`]; nothing is read any more.
    pub fn stop(&self) {
        self.state.lock().is_stopping = true;
        self.work.notify_all();
    }
}
