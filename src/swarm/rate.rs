//! How fast bytes have been moving lately.

use std::time::{Duration, Instant};

/// Time over which a rate forgets.
const MEMORY: Duration = Duration::from_secs(2);

/// A rate that follows what was added, with a memory of about two seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    weighted_bytes: f64,
    updated: Instant,
    began: Instant,
}

impl Rate {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            weighted_bytes: 0.0,
            updated: now,
            began: now,
        }
    }

    pub(crate) fn add(&mut self, bytes: u64, now: Instant) {
        if self.weighted_bytes < 1.0 {
            self.began = now;
        }
        self.weighted_bytes = self.decayed(now) + bytes as f64;
        self.updated = self.updated.max(now);
    }

    /// Bytes per second.
    pub(crate) fn bytes_per_second(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.began).as_secs_f64();
        let memory = MEMORY.as_secs_f64();
        // What a steady rate of 1 would have gathered since the beginning; less than the whole memory at first.
        let weight = memory * (1.0 - (-age / memory).exp());
        let rate = self.decayed(now) / weight.max(0.02);
        // Not negative, and saturating when cast.
        rate as u64
    }

    fn decayed(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.updated).as_secs_f64();
        self.weighted_bytes * (-age / MEMORY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A steady stream is measured within a few percent, from the first moments on, and forgotten.
    #[test]
    fn steady_rate_is_found_and_forgotten() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let mut now = start;
        for step in 0..1_000 {
            now += Duration::from_millis(10);
            rate.add(10_000, now);
            if step > 50 {
                let measured = rate.bytes_per_second(now);
                assert!(
                    (950_000..1_050_000).contains(&measured),
                    "{step}: {measured}"
                );
            }
        }
        assert!(rate.bytes_per_second(now + Duration::from_secs(30)) < 10);
    }
}
