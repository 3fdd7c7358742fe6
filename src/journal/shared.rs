//! What all handles of a journal and its sync thread share.
//!
//! Owns: the appender behind its lock, the durable position as others see it, the listeners, the
//! failure that ends everything. Knows nothing of how the sync thread writes.
//! Locks: the appender's lock covers memory work only; no other lock is taken while it is held, but
//! the ledger's by the sync thread.
//! Spec: `spec/journal.md`, "Commit", JOURNAL-2, JOURNAL-22.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use crate::disk::ReadFrom;

use super::append::{Appender, Part};
use super::books::Books;
use super::error::{JournalError, StorageFailure};
use super::lead::SharedCommitter;
use super::scrub::Scrubbed;
use super::settings::JournalSettings;
use super::types::{Location, Lsn};

/// Running ──close──> Stopping ──sync thread──> Stopped; a dropped handle leads to Stopping too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    Running,
    Stopping,
    Stopped,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) appender: Appender,
    pub(crate) stop: Stop,
    /// Whether the sync thread sleeps until something is appended.
    sleeping: bool,
    /// Whether it does so without an end.
    sleeps_long: bool,
    /// Whether another thread has committed since it fell asleep.
    was_led: bool,
    /// Set while the sync thread lets more come before it commits: until this record, or for a moment.
    awaits: Option<Lsn>,
}

impl State {
    /// Whether the sync thread sleeps and nobody has woken it.
    pub(crate) fn is_asleep(&self) -> bool {
        self.sleeping
    }

    /// The record that the sync thread lets come before it commits, if it does.
    #[cfg(test)]
    pub(super) fn awaited(&self) -> Option<Lsn> {
        self.awaits
    }
}

type Listener<T> = RwLock<Option<Arc<dyn Fn(T) + Send + Sync>>>;

pub(crate) struct Shared {
    pub(crate) settings: JournalSettings,
    state: Mutex<State>,
    /// Wakes the sync thread.
    work: Condvar,
    /// Wakes who waits for room or for a durable position.
    progress: Condvar,
    durable: AtomicU64,
    failure: OnceLock<StorageFailure>,
    pub(crate) commit_listener: Listener<super::DurableLsn>,
    pub(crate) failure_listener: Listener<StorageFailure>,
    pub(crate) space_listener: Listener<bool>,
    pub(crate) books: Books,
    /// What the sync thread and those who commit in its place share; not set without a thread.
    pub(super) committer: OnceLock<SharedCommitter>,
    /// The first number that was given since the store was opened.
    pub(crate) opened_at: Lsn,
    /// Whether the run before this one ended cleanly.
    pub(crate) was_clean: bool,
    pub(crate) scrubbed: Mutex<Scrubbed>,
    /// Wakes the scrubber when the journal ends.
    ended: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        settings: JournalSettings,
        appender: Appender,
        durable: Lsn,
        books: Books,
        was_clean: bool,
    ) -> Self {
        Self {
            settings,
            state: Mutex::new(State {
                appender,
                stop: Stop::Running,
                sleeping: false,
                sleeps_long: false,
                was_led: false,
                awaits: None,
            }),
            committer: OnceLock::new(),
            work: Condvar::new(),
            progress: Condvar::new(),
            durable: AtomicU64::new(durable.0),
            failure: OnceLock::new(),
            commit_listener: RwLock::new(None),
            failure_listener: RwLock::new(None),
            space_listener: RwLock::new(None),
            books,
            opened_at: durable,
            was_clean,
            scrubbed: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    pub(crate) fn failure(&self) -> Option<&StorageFailure> {
        self.failure.get()
    }

    pub(crate) fn durable_lsn(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    // req: JOURNAL-22
    fn check_open(&self, state: &State) -> Result<(), JournalError> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone().into());
        }
        match state.stop {
            Stop::Running => Ok(()),
            Stop::Stopping | Stop::Stopped => Err(JournalError::Closed),
        }
    }

    /// Refuses a record over half a segment, in bytes.
    pub(crate) fn check_size(&self, record_bytes: usize) -> Result<(), JournalError> {
        let max_bytes = u64::from(self.settings.segment_bytes / 2);
        let got_bytes = record_bytes as u64;
        if got_bytes > max_bytes {
            return Err(JournalError::RecordTooLarge {
                got_bytes,
                max_bytes,
            });
        }
        Ok(())
    }

    /// Runs `append` under the lock once there is room, then wakes the sync thread if it sleeps.
    pub(crate) fn append<T>(
        &self,
        append: impl FnOnce(&mut Appender) -> T,
    ) -> Result<T, JournalError> {
        let mut state = self.state.lock();
        self.check_open(&state)?;
        while state.appender.pending_bytes() > self.settings.pending_bytes_max {
            self.wake(&mut state);
            self.progress.wait(&mut state);
            self.check_open(&state)?;
        }
        let result = append(&mut state.appender);
        let has_come = state.awaits.is_some_and(|lsn| lsn <= state.appender.last());
        if has_come {
            state.awaits = None;
        }
        let wake = has_come || (!self.is_gathering() && std::mem::take(&mut state.sleeping));
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(result)
    }

    /// Wakes the sync thread if it sleeps, or lets more come, while something is pending: somebody is about to block
    /// until that is durable.
    fn wake(&self, state: &mut State) {
        if !state.appender.is_empty() {
            state.sleeping |= state.awaits.take().is_some();
            self.wake_sleeping(state);
        }
    }

    fn wake_sleeping(&self, state: &mut State) {
        if !state.appender.is_empty() && std::mem::take(&mut state.sleeping) {
            self.work.notify_one();
        }
    }

    /// Wakes the sync thread if it sleeps while something is pending.
    pub(crate) fn wake_if_pending(&self) {
        self.wake_sleeping(&mut self.state.lock());
    }

    /// Another thread has committed in place of the sync thread, which has work left if `has_more`.
    ///
    /// It must wake at the latest when it is to write the closing mark.
    pub(crate) fn was_led(&self, has_more: bool) {
        let mut state = self.state.lock();
        state.was_led = true;
        if (has_more || state.sleeps_long) && std::mem::take(&mut state.sleeping) {
            self.work.notify_one();
        }
    }

    /// Appends one record that needs `record_bytes`.
    pub(crate) fn append_one(
        &self,
        record_bytes: usize,
        encode: impl FnOnce(&mut Vec<u8>, Lsn),
    ) -> Result<(Lsn, Location), JournalError> {
        self.check_size(record_bytes)?;
        self.append(|appender| appender.append(record_bytes, encode))
    }

    /// Asks the sync thread to write what is pending and to end; the first caller may append last words.
    pub(crate) fn begin_stop(&self, last_words: impl FnOnce(&mut Appender)) {
        let mut state = self.state.lock();
        if state.stop == Stop::Running {
            if self.failure.get().is_none() {
                last_words(&mut state.appender);
            }
            state.stop = Stop::Stopping;
        }
        state.sleeping = false;
        drop(state);
        self.work.notify_one();
        self.progress.notify_all();
        self.ended.notify_all();
    }

    /// Waits for `time`, or until the journal is to stop.
    pub(crate) fn rest(&self, time: Duration) -> Stop {
        let mut state = self.state.lock();
        if state.stop == Stop::Running && self.failure.get().is_none() {
            let _ = self.ended.wait_for(&mut state, time);
        }
        if self.failure.get().is_some() {
            return Stop::Stopped;
        }
        state.stop
    }

    // ---- for the sync thread ----

    pub(crate) fn take_parts(&self) -> Vec<Part> {
        self.state.lock().appender.take()
    }

    /// Sleeps until something is appended, the journal is to stop, or `timeout` has passed; gives whether it was
    /// quiet for that long.
    pub(crate) fn sleep(&self, timeout: Option<Duration>) -> (Stop, bool) {
        let mut state = self.state.lock();
        let mut is_quiet = false;
        if state.appender.is_empty() && state.stop == Stop::Running {
            state.sleeping = true;
            state.sleeps_long = timeout.is_none();
            state.was_led = false;
            match timeout {
                Some(timeout) => loop {
                    let has_waited = self.work.wait_for(&mut state, timeout).timed_out();
                    // Whoever has something for this thread takes `sleeping`, also if its call came after the time.
                    is_quiet = has_waited && state.sleeping;
                    // It was not quiet for so long yet if another thread has committed meanwhile.
                    if !is_quiet || !std::mem::take(&mut state.was_led) {
                        break;
                    }
                },
                None => self.work.wait(&mut state),
            }
            state.sleeping = false;
        }
        (state.stop, is_quiet)
    }

    /// Lets `count` more records come, for `timeout` at most, unless more than `bytes_max` is pending; who blocks a
    /// thread until its record is durable ends it. Gives whether the journal is to stop.
    pub(crate) fn await_more(&self, count: u64, bytes_max: usize, timeout: Duration) -> Stop {
        let mut state = self.state.lock();
        if state.stop == Stop::Running && state.appender.pending_bytes() <= bytes_max {
            state.awaits = Some(Lsn(state.appender.last().0.saturating_add(count)));
            let _ = self.work.wait_for(&mut state, timeout);
            state.awaits = None;
        }
        state.stop
    }

    /// Sleeps for `timeout`, unless the journal is to stop.
    pub(crate) fn pause(&self, timeout: Duration) -> Stop {
        let mut state = self.state.lock();
        if state.stop == Stop::Running {
            let _ = self.work.wait_for(&mut state, timeout);
        }
        state.stop
    }

    /// Publishes a durable position; the caller then tells the listener.
    // req: JOURNAL-2
    pub(crate) fn set_durable(&self, lsn: Lsn) -> bool {
        let before = self.durable.fetch_max(lsn.0, Ordering::AcqRel);
        self.tell_waiting();
        before < lsn.0
    }

    /// Lets who waits for room or for a durable position look again.
    pub(crate) fn tell_waiting(&self) {
        drop(self.state.lock());
        self.progress.notify_all();
    }

    pub(crate) fn set_stopped(&self) {
        self.state.lock().stop = Stop::Stopped;
        self.progress.notify_all();
        self.ended.notify_all();
    }

    /// Ends everything: nothing is confirmed any more.
    // req: JOURNAL-22
    pub(crate) fn fail(&self, failure: &StorageFailure) {
        if self.failure.set(failure.clone()).is_err() {
            return;
        }
        self.tell_waiting();
        self.ended.notify_all();
        let listener = self.failure_listener.read().clone();
        if let Some(listener) = listener {
            listener(failure.clone());
        }
    }

    /// Whether all that was appended before the call is durable, or becomes so within `timeout`.
    pub(crate) fn wait_all_durable(&self, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        self.wake(&mut state);
        let last = state.appender.last();
        loop {
            if last <= self.durable_lsn() {
                return true;
            }
            if self.failure.get().is_some()
                || state.stop == Stop::Stopped
                || self.progress.wait_for(&mut state, timeout).timed_out()
            {
                return last <= self.durable_lsn();
            }
        }
    }

    /// Blocks until `lsn` is durable.
    pub(crate) fn wait_durable(&self, lsn: Lsn) -> Result<(), JournalError> {
        self.wait_written(lsn, true)
    }

    /// Blocks until `lsn` can be read; not for space on the disk, since who reads makes it.
    // req: JOURNAL-45
    pub(crate) fn wait_readable(&self, lsn: Lsn) -> Result<(), JournalError> {
        self.wait_written(lsn, false)
    }

    /// As [`Self::wait_readable`], if `from` allows to wait.
    pub(crate) fn check_readable(&self, lsn: Lsn, from: ReadFrom) -> Result<(), JournalError> {
        match from {
            ReadFrom::Disk => self.wait_readable(lsn),
            ReadFrom::Cache if lsn <= self.durable_lsn() => Ok(()),
            ReadFrom::Cache => Err(JournalError::WouldWait),
        }
    }

    fn wait_written(&self, lsn: Lsn, waits_for_space: bool) -> Result<(), JournalError> {
        if lsn <= self.durable_lsn() {
            return Ok(());
        }
        let mut state = self.state.lock();
        self.wake(&mut state);
        loop {
            if lsn <= self.durable_lsn() {
                return Ok(());
            }
            if let Some(failure) = self.failure.get() {
                // It may have become durable just before the failure, and after the look above.
                return match lsn <= self.durable_lsn() {
                    true => Ok(()),
                    false => Err(failure.clone().into()),
                };
            }
            if lsn > state.appender.last() {
                return Err(JournalError::NotFound { lsn });
            }
            if state.stop == Stop::Stopped {
                return Err(JournalError::Closed);
            }
            if !waits_for_space && state.appender.is_stalled() {
                return Err(JournalError::WaitsForSpace { lsn });
            }
            self.progress.wait(&mut state);
        }
    }
}
