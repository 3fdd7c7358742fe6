//! A seeded random source: SplitMix64, so that a seed printed today replays on any machine.
//!
//! Owns: 64 bits of state. Each worker has a source of its own, derived from the run's seed and the
//! worker's name, so that no worker's draws depend on how the threads interleave.

/// A reproducible stream of 64-bit numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream that `seed` names.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of one worker in the run with this seed.
    pub(crate) fn of(seed: u64, worker: &str) -> Self {
        let mut state = seed ^ 0xCBF2_9CE4_8422_2325;
        for byte in worker.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        let mut random = Self(state);
        random.next();
        random
    }

    /// The next number of the stream.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True with a probability of `percent` in 100.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of the given values.
    pub(crate) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        let index = self.below(values.len() as u64) as usize;
        values[index]
    }

    /// A number from `least` to `most`, spread evenly over their logarithms.
    pub(crate) fn log_uniform(&mut self, least: f64, most: f64) -> f64 {
        let part = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (least.ln() + part * (most.ln() - least.ln())).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same seed and worker give the same stream; another worker gives another.
    #[test]
    fn streams_repeat_and_workers_differ() {
        let draw = |seed, worker| {
            let mut random = Random::of(seed, worker);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(draw(7, "publisher 1"), draw(7, "publisher 1"));
        assert_ne!(draw(7, "publisher 1"), draw(7, "publisher 2"));
        assert_ne!(draw(7, "publisher 1"), draw(8, "publisher 1"));
    }

    /// Kill times stay within their range, and half of them lie below its geometric middle.
    #[test]
    fn log_uniform_stays_in_range_and_favours_no_decade() {
        let mut random = Random::new(1);
        let draws: Vec<f64> = (0..4_000)
            .map(|_| random.log_uniform(20.0, 2_000.0))
            .collect();
        assert!(draws.iter().all(|ms| (20.0..=2_000.0).contains(ms)));
        let low = draws.iter().filter(|ms| **ms < 200.0).count();
        assert!((1_800..2_200).contains(&low), "{low} of 4000 below 200 ms");
    }
}
