//! When what a transfer holds is to be hashed again before it is served.
//!
//! Spec: `spec/peer-protocol.md` SWARM-38.

use std::time::{Duration, Instant};

/// What was verified so long ago is hashed again before it is served (RELIABILITY section 5).
const TRUSTED_TIME: Duration = Duration::from_secs(24 * 3600);
/// Accusations make a node hash what it serves again at most so often at first, counted from when it began.
const ACCUSED_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// How much what a transfer holds is trusted.
#[derive(Debug)]
pub(super) struct Doubt {
    /// When what is held was last to be hashed again.
    doubted: Instant,
    /// How long an accusation after that changes nothing.
    accused_interval: Duration,
}

impl Doubt {
    /// Of a transfer that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            doubted: now,
            accused_interval: ACCUSED_INTERVAL_MIN,
        }
    }

    /// A peer says that a piece is bad; answers whether everything is to be hashed again. The next time is later by twice as
    /// much, unless something is found.
    pub(super) fn accused(&mut self, now: Instant) -> bool {
        // req: SWARM-38
        let is_due = self.is_older(self.accused_interval, now);
        if is_due {
            self.doubted = now;
            self.accused_interval = (self.accused_interval * 2).min(TRUSTED_TIME);
        }
        is_due
    }

    /// Whether everything is to be hashed again since it was not for a day.
    pub(super) fn aged(&mut self, now: Instant) -> bool {
        // req: SWARM-38
        let is_due = self.is_older(TRUSTED_TIME, now);
        if is_due {
            *self = Self::new(now);
        }
        is_due
    }

    /// A piece was wrong: who says so is believed again.
    pub(super) fn found(&mut self) {
        self.accused_interval = ACCUSED_INTERVAL_MIN;
    }

    fn is_older(&self, age: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.doubted) >= age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accusations that come to nothing count ever more rarely; one that is right makes the next count at once; and
    /// after a day everything is as at the beginning.
    // req: SWARM-38
    #[test]
    fn false_accusations_count_ever_more_rarely() {
        let mut now = Instant::now();
        let mut doubt = Doubt::new(now);
        let mut heard = 0;
        for _ in 0..3_600 {
            now += Duration::from_secs(1);
            heard += u32::from(doubt.accused(now));
        }
        assert_eq!(heard, 11, "after 1, 2, 4 and so on to 1,024 seconds");
        doubt.found();
        now += Duration::from_secs(1);
        assert!(doubt.accused(now));
        now += Duration::from_secs(1);
        assert!(!doubt.accused(now));
        assert!(!doubt.aged(now));
        now += TRUSTED_TIME;
        assert!(doubt.aged(now));
        assert!(!doubt.aged(now));
        now += ACCUSED_INTERVAL_MIN;
        assert!(doubt.accused(now));
    }
}
