//! Heartbeats both ways: when to send one, and when the client counts as gone.
//!
//! Owns: the two moments of last traffic. Any octet counts as a sign of life.
//! Spec: AMQP 0-9-1 §4.2.7; timing as RabbitMQ's: sent after half an interval of silence, cut off
//! after two intervals and a check.

use std::time::{Duration, Instant};

/// The heartbeats of one connection, once tuned.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// The negotiated interval; `None` switches heartbeats off.
    interval: Option<Duration>,
    last_received: Instant,
    last_sent: Instant,
}

impl Heartbeat {
    /// No heartbeats yet.
    pub(super) fn off(now: Instant) -> Self {
        Self {
            interval: None,
            last_received: now,
            last_sent: now,
        }
    }

    /// Starts with what the client chose at `tune-ok`; 0 seconds is none.
    pub(super) fn start(&mut self, seconds: u16, now: Instant) {
        self.interval = (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)));
        self.last_received = now;
        self.last_sent = now;
    }

    /// The interval; zero is none.
    pub(super) fn interval(&self) -> Duration {
        self.interval.unwrap_or_default()
    }

    /// Octets came.
    pub(super) fn received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// Octets left.
    pub(super) fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// Whether one is to be sent now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.send_at().is_some_and(|at| at <= now)
    }

    /// Whether the client was silent for too long.
    pub(super) fn is_missed(&self, now: Instant) -> bool {
        self.missed_at().is_some_and(|at| at <= now)
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.send_at().into_iter().chain(self.missed_at()).min()
    }

    fn send_at(&self) -> Option<Instant> {
        self.interval.map(|interval| self.last_sent + interval / 2)
    }

    fn missed_at(&self) -> Option<Instant> {
        self.interval
            .map(|interval| self.last_received + interval * 5 / 2)
    }
}

#[allow(clippy::disallowed_methods)]
#[cfg(test)]
mod tests {
    use super::*;

    /// Half an interval of own silence makes one due; any traffic puts it off.
    #[test]
    fn one_is_due_after_half_an_interval_of_silence() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::off(start);
        assert_eq!(heartbeat.next(), None);
        heartbeat.start(10, start);
        assert!(!heartbeat.is_due(start + Duration::from_secs(4)));
        assert!(heartbeat.is_due(start + Duration::from_secs(5)));
        heartbeat.sent(start + Duration::from_secs(5));
        assert!(!heartbeat.is_due(start + Duration::from_secs(9)));
    }

    /// Between two and three intervals of silence the client counts as gone.
    #[test]
    fn a_silent_client_counts_as_gone() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::off(start);
        heartbeat.start(1, start);
        assert!(!heartbeat.is_missed(start + Duration::from_secs(2)));
        assert!(heartbeat.is_missed(start + Duration::from_secs(3)));
        heartbeat.received(start + Duration::from_secs(2));
        assert!(!heartbeat.is_missed(start + Duration::from_secs(4)));
    }
}
