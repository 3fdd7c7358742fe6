//! Who reads the pages of long queues: the queues that asked, in turn.
//!
//! Owns: the list of queues that want a page, and of those whose last page could not be read. One
//! thread of the server lives in [`Pager::run`]; a test takes [`Pager::turn`]s by hand. Pages are
//! written by who fills them (`queue/paging.rs`).
//! Bound: each queue stands in the lists once.
//! Locks: its own is taken under a queue's, and nothing under it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::outbox::Wakes;
use super::queue::{LoadOutcome, Queue};

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
    is_stopping: bool,
}

impl Pager {
    /// Notes that `queue` wants a page. Its lock may be held.
    pub(crate) fn ask(&self, queue: Weak<Queue>) {
        self.state.lock().asked.push_back(queue);
        self.work.notify_one();
    }

    /// Reads pages until [`Pager::stop`]; the body of a thread. `clock` gives the time.
    pub fn run(&self, clock: impl Fn() -> Instant) {
        loop {
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
            } else if self.work.wait_for(&mut state, RETRY_AFTER).timed_out() {
                drop(state);
                self.retry();
            }
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
        match queue.load(now, &mut Wakes::new()) {
            LoadOutcome::Loaded | LoadOutcome::Nothing => {}
            LoadOutcome::Failed => self.state.lock().stalled.push(Arc::downgrade(&queue)),
        }
        true
    }

    /// Lets pages that could not be read be tried again.
    pub fn retry(&self) {
        let stalled = std::mem::take(&mut self.state.lock().stalled);
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
