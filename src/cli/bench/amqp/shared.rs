//! What producers, consumers and the one who measures share: counters, the clock, the window.
//!
//! Owns: atomics alone; there is no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::check::Filling;

/// What all tasks of a run share.
pub(super) struct Shared {
    start: Instant,
    /// Times in nanoseconds of the clock between which messages were to leave that count for latency.
    measured_from: AtomicU64,
    measured_to: AtomicU64,
    published: AtomicU64,
    confirmed: AtomicU64,
    consumed: AtomicU64,
    /// Of each sender, what it may have sent.
    sent: Vec<AtomicU64>,
    /// Deliveries that may be awaited; `None` is no bound.
    in_flight_max: Option<u64>,
    fan_out: u64,
    /// Wakes producers that wait for the window.
    progress: Notify,
    pub(super) filling: Filling,
    /// Producers end.
    pub(super) stop: CancellationToken,
    /// Consumers end.
    pub(super) drained: CancellationToken,
    /// The run is over, or has failed: producers end wherever they are.
    pub(super) over: CancellationToken,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) confirmed: u64,
    pub(super) consumed: u64,
}

impl Shared {
    pub(super) fn new(senders: usize, fan_out: u64, in_flight_max: Option<u64>) -> Self {
        Self {
            start: Instant::now(),
            measured_from: AtomicU64::new(u64::MAX),
            measured_to: AtomicU64::new(u64::MAX),
            published: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            sent: (0..senders).map(|_| AtomicU64::new(0)).collect(),
            in_flight_max,
            fan_out,
            progress: Notify::new(),
            filling: Filling::default(),
            stop: CancellationToken::new(),
            drained: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }

    /// The run's clock, in nanoseconds.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn measure_from(&self, at: u64) {
        self.measured_from.store(at, Ordering::Relaxed);
    }

    pub(super) fn measure_to(&self, at: u64) {
        self.measured_to.store(at, Ordering::Relaxed);
    }

    /// The times between which a message was to leave that counts for latency.
    pub(super) fn measured(&self) -> std::ops::Range<u64> {
        self.measured_from.load(Ordering::Relaxed)..self.measured_to.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Counts {
        // In this order: what is consumed was published before.
        let consumed = self.consumed.load(Ordering::Acquire);
        let confirmed = self.confirmed.load(Ordering::Acquire);
        Counts {
            published: self.published.load(Ordering::Acquire),
            confirmed,
            consumed,
        }
    }

    /// Deliveries that all that was published makes.
    pub(super) fn expected(&self) -> u64 {
        self.published.load(Ordering::Acquire) * self.fan_out
    }

    /// Takes leave to publish 1 to `wanted` messages; waits while the window is full. 0 when the run ends.
    pub(super) async fn reserve(&self, sender: usize, wanted: u64, is_bounded: bool) -> u64 {
        loop {
            let progress = self.progress.notified();
            if self.stop.is_cancelled() {
                return 0;
            }
            let granted = self.try_reserve(wanted, is_bounded);
            if granted > 0 {
                if let Some(sent) = self.sent.get(sender) {
                    sent.fetch_add(granted, Ordering::Release);
                }
                return granted;
            }
            tokio::select! {
                () = progress => {}
                () = self.stop.cancelled() => return 0,
            }
        }
    }

    fn try_reserve(&self, wanted: u64, is_bounded: bool) -> u64 {
        let bound = self.in_flight_max.filter(|_| is_bounded);
        let mut published = self.published.load(Ordering::Relaxed);
        loop {
            let granted = match bound {
                None => wanted,
                Some(max) => {
                    let consumed = self.consumed.load(Ordering::Acquire);
                    let in_flight = (published * self.fan_out).saturating_sub(consumed);
                    let room = max.saturating_sub(in_flight) / self.fan_out;
                    // Not for every little room: batches are what makes this cheap.
                    let worthwhile = wanted.min(max / self.fan_out / 4).max(1);
                    if room < worthwhile {
                        0
                    } else {
                        room.min(wanted)
                    }
                }
            };
            if granted == 0 {
                return 0;
            }
            match self.published.compare_exchange_weak(
                published,
                published + granted,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return granted,
                Err(now) => published = now,
            }
        }
    }

    /// Counts deliveries, of which none was there before.
    pub(super) fn consumed(&self, count: u64) {
        self.consumed.fetch_add(count, Ordering::AcqRel);
        self.progress.notify_waiters();
    }

    pub(super) fn confirmed(&self, count: u64) {
        self.confirmed.fetch_add(count, Ordering::AcqRel);
    }

    /// What a sender may have sent so far.
    pub(super) fn sent(&self, sender: usize) -> u64 {
        let sent = self.sent.get(sender);
        sent.map_or(0, |sent| sent.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No more is granted than the window has room for, times the fan-out; consuming makes room.
    #[test]
    fn window_bounds_what_is_in_flight() {
        let shared = Shared::new(1, 3, Some(30));
        assert_eq!(shared.try_reserve(8, true), 8);
        assert_eq!(shared.try_reserve(8, true), 2);
        assert_eq!(shared.try_reserve(8, true), 0);
        shared.consumed(5);
        assert_eq!(
            shared.try_reserve(8, true),
            0,
            "a room of one is not worth a batch"
        );
        shared.consumed(1);
        assert_eq!(shared.try_reserve(8, true), 2);
        assert_eq!(shared.try_reserve(8, false), 8, "a backlog has no bound");
        assert_eq!(shared.expected(), 60);
    }
}
