//! Time that a test sets: what a broker takes for now, when its user does not want to wait.
//!
//! Owns: how far a broker's time is from the time that comes in. It reads no clock: whoever calls the broker
//! turns its own `now` into the broker's with [`Broker::time`](super::Broker::time). What is the connection's own
//! business (heartbeats, the wait for a login) goes by the machine's time still, so that a jump of an hour ends no
//! connection.
//! Bound: [`TIMERS_MAX`] brokers go by one clock and hear when it jumps.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::timers::Timers;

/// Brokers that may go by one clock.
const TIMERS_MAX: usize = 1_024;

/// A clock in the hand of a test; clones are the same clock.
///
/// Everything in a broker that waits goes by it: message and queue TTLs, delays, retention of streams, memory of
/// duplicates, waits for acknowledgements.
#[derive(Clone)]
pub struct TestClock(Arc<State>);

struct State {
    runs: Runs,
    ahead_ns: AtomicU64,
    /// Where a clock that stands still stands: the start of its first broker.
    start: OnceLock<Instant>,
    timers: Mutex<Vec<Weak<Timers>>>,
}

/// Whether time passes by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Runs {
    Yes,
    No,
}

impl TestClock {
    /// A clock that goes as the machine's does, and can be set ahead.
    #[must_use]
    pub fn running() -> Self {
        Self::new(Runs::Yes)
    }

    /// A clock that stands still but for [`Self::advance`]: nothing expires by accident.
    #[must_use]
    pub fn stopped() -> Self {
        Self::new(Runs::No)
    }

    fn new(runs: Runs) -> Self {
        Self(Arc::new(State {
            runs,
            ahead_ns: AtomicU64::new(0),
            start: OnceLock::new(),
            timers: Mutex::default(),
        }))
    }

    /// Lets so much time pass at once, for all brokers that go by this clock. What is due then is done by their
    /// servers soon; about 584 years can pass in all.
    pub fn advance(&self, by: Duration) {
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let add = |ahead: u64| Some(ahead.saturating_add(by_ns));
        // It always gives a value, so nothing fails.
        let _ = self
            .0
            .ahead_ns
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        let timers: Vec<_> = self
            .0
            .timers
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for timers in timers {
            timers.wake();
        }
    }

    /// How far it was set ahead in all.
    #[must_use]
    pub fn advanced(&self) -> Duration {
        Duration::from_nanos(self.0.ahead_ns.load(Ordering::Acquire))
    }

    /// What it says when the machine's clock says `now`.
    pub(crate) fn time(&self, now: Instant) -> Instant {
        let base = match self.0.runs {
            Runs::Yes => now,
            Runs::No => *self.0.start.get().unwrap_or(&now),
        };
        base.checked_add(self.advanced()).unwrap_or(base)
    }

    /// A broker that started at `started` goes by it from now on; gives the start by this clock.
    pub(crate) fn start(&self, started: Instant) -> Instant {
        self.0.start.get_or_init(|| started);
        self.time(started)
    }

    /// Who waits for deadlines hears of jumps.
    pub(crate) fn tell(&self, timers: &Arc<Timers>) {
        let mut told = self.0.timers.lock();
        told.retain(|timers| timers.strong_count() > 0);
        if told.len() < TIMERS_MAX {
            told.push(Arc::downgrade(timers));
        }
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TestClock")
            .field("runs", &self.0.runs)
            .field("advanced", &self.advanced())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;

    /// One that runs adds to the machine's time, one that stands still ignores it.
    #[test]
    fn a_clock_runs_or_stands_still() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let running = TestClock::running();
        assert_eq!(running.start(now), now);
        running.advance(second);
        assert_eq!(running.time(now + second), now + 2 * second);
        let stopped = TestClock::stopped();
        assert_eq!(stopped.start(now), now);
        assert_eq!(stopped.time(now + second), now);
        stopped.advance(second);
        assert_eq!(stopped.time(now + 5 * second), now + second);
        assert_eq!(
            stopped.start(now + 9 * second),
            now + second,
            "a second broker"
        );
        stopped.advance(Duration::MAX);
        assert!(stopped.time(now) >= now, "it never overflows");
    }
}
