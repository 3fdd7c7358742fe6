//! How much a node sends in a day, and at all.
//!
//! Owns: what was sent since the quota's day began. Knows no calendar: a day is 24 h from its first byte.
//! Spec: `spec/peer-protocol.md` SWARM-33.

use std::time::{Duration, Instant};

/// A day of the quota.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Block bytes that a node sends at most; `None` is no bound.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UploadQuota {
    /// In 24 h.
    pub day_bytes: Option<u64>,
    /// Since it was first counted.
    pub total_bytes: Option<u64>,
}

/// What was used of a quota; lasting nodes keep it over a restart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QuotaUse {
    /// Block bytes sent in the running day.
    pub day_bytes: u64,
    /// How old the running day is.
    pub day_age: Duration,
    /// Block bytes sent since it was first counted.
    pub total_bytes: u64,
}

/// A quota and its use.
#[derive(Debug)]
pub(crate) struct Quota {
    allowed: UploadQuota,
    day_bytes: u64,
    day_began: Instant,
    total_bytes: u64,
}

impl Quota {
    pub(crate) fn new(allowed: UploadQuota, now: Instant) -> Self {
        Self {
            allowed,
            day_bytes: 0,
            day_began: now,
            total_bytes: 0,
        }
    }

    pub(crate) fn set(&mut self, allowed: UploadQuota) {
        self.allowed = allowed;
    }

    /// What an earlier run had used.
    pub(crate) fn restore(&mut self, used: QuotaUse, now: Instant) {
        self.total_bytes = self.total_bytes.saturating_add(used.total_bytes);
        if used.day_age < DAY {
            // A clock that is younger than the day begins it anew, with what was used.
            self.day_began = now.checked_sub(used.day_age).unwrap_or(now);
            self.day_bytes = self.day_bytes.saturating_add(used.day_bytes);
        }
    }

    pub(crate) fn used(&self, now: Instant) -> QuotaUse {
        QuotaUse {
            day_bytes: self.day_bytes,
            day_age: now.saturating_duration_since(self.day_began),
            total_bytes: self.total_bytes,
        }
    }

    pub(crate) fn charge(&mut self, bytes: u64, now: Instant) {
        self.begin_day(now);
        self.day_bytes = self.day_bytes.saturating_add(bytes);
        self.total_bytes = self.total_bytes.saturating_add(bytes);
    }

    /// Whether nothing more may be sent now.
    pub(crate) fn is_spent(&mut self, now: Instant) -> bool {
        // req: SWARM-33
        self.begin_day(now);
        self.is_day_spent() || self.is_total_spent()
    }

    /// When there will be something again.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        (self.is_day_spent() && !self.is_total_spent()).then(|| self.day_began + DAY)
    }

    fn is_day_spent(&self) -> bool {
        self.allowed
            .day_bytes
            .is_some_and(|most| self.day_bytes >= most)
    }

    fn is_total_spent(&self) -> bool {
        self.allowed
            .total_bytes
            .is_some_and(|most| self.total_bytes >= most)
    }

    fn begin_day(&mut self, now: Instant) {
        if now.saturating_duration_since(self.day_began) >= DAY {
            self.day_began = now;
            self.day_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day's quota comes back with the next day, a total one does not; use lasts over a restart.
    // req: SWARM-33
    #[test]
    fn day_ends_and_total_does_not() {
        let mut now = Instant::now() + 2 * DAY;
        let allowed = UploadQuota {
            day_bytes: Some(100),
            total_bytes: Some(150),
        };
        let mut quota = Quota::new(allowed, now);
        quota.charge(100, now);
        assert!(quota.is_spent(now));
        now += Duration::from_secs(3600);
        let mut later = Quota::new(allowed, now);
        later.restore(quota.used(now), now);
        assert!(later.is_spent(now));
        now = later.timeout().expect("the day ends");
        assert!(!later.is_spent(now));
        later.charge(50, now);
        assert!(later.is_spent(now));
        assert_eq!(later.timeout(), None);
        later.set(UploadQuota::default());
        assert!(!later.is_spent(now));
    }
}
