//! A histogram of times: constant memory, constant work, each value within 1 % of itself.
//!
//! Owns: counts of nanoseconds in buckets that are exact below 128 and a 128th of an octave above.
//! Bound: [`BUCKET_COUNT`] counters, 58 KiB.

/// Buckets in an octave: a value is off by less than a 128th.
const BUCKETS_IN_OCTAVE: usize = 128;
/// How many bits that is.
const OCTAVE_BITS: u32 = BUCKETS_IN_OCTAVE.trailing_zeros();
/// One run of exact buckets, and one for each octave that a `u64` has above them.
const BUCKET_COUNT: usize = BUCKETS_IN_OCTAVE * (64 - OCTAVE_BITS as usize + 1);

/// Counts of times in nanoseconds.
#[derive(Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKET_COUNT],
            count: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one time.
    #[inline]
    pub(super) fn record(&mut self, nanoseconds: u64) {
        if let Some(bucket) = self.counts.get_mut(bucket_of(nanoseconds)) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Adds what another one counted.
    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, others) in self.counts.iter_mut().zip(&other.counts) {
            *mine += others;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many times were counted.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The largest of them, exactly, in nanoseconds.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// The time that a part of all, 0 to 1, did not exceed, in nanoseconds; 0 if there are none.
    ///
    /// At most a 128th above the true one, and never above the largest.
    pub(super) fn quantile(&self, part: f64) -> u64 {
        let wanted = ((self.count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(bucket).min(self.max);
            }
        }
        self.max
    }

    /// The figures that are reported, in microseconds; `null` if there are none.
    pub(super) fn to_json(&self) -> serde_json::Value {
        if self.count == 0 {
            return serde_json::Value::Null;
        }
        let microseconds = |nanoseconds: u64| (nanoseconds as f64 / 100.0).round() / 10.0;
        serde_json::json!({
            "count": self.count,
            "p50": microseconds(self.quantile(0.5)),
            "p90": microseconds(self.quantile(0.9)),
            "p99": microseconds(self.quantile(0.99)),
            "p999": microseconds(self.quantile(0.999)),
            "max": microseconds(self.max),
        })
    }
}

/// Values below 128 have a bucket each; above, the 7 bits behind the leading one choose it in their octave.
#[inline]
fn bucket_of(value: u64) -> usize {
    let octave = (u64::BITS - value.leading_zeros()).saturating_sub(OCTAVE_BITS + 1);
    let in_octave = (value >> octave) as usize & (2 * BUCKETS_IN_OCTAVE - 1);
    octave as usize * BUCKETS_IN_OCTAVE + in_octave
}

/// The largest value that falls into a bucket.
fn upper_end(bucket: usize) -> u64 {
    let octave = (bucket / BUCKETS_IN_OCTAVE).saturating_sub(1);
    let first = (bucket - octave * BUCKETS_IN_OCTAVE) as u64;
    let next = (u128::from(first) + 1) << octave;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buckets follow each other without gap or overlap, and each value lies in its own.
    #[test]
    fn buckets_cover_all_values_in_order() {
        let mut before = None;
        for bucket in 0..BUCKET_COUNT {
            let end = upper_end(bucket);
            assert_eq!(bucket_of(end), bucket);
            if let Some(before) = before {
                assert!(before < end);
                assert_eq!(bucket_of(before + 1), bucket);
            }
            before = Some(end);
        }
        assert_eq!(before, Some(u64::MAX));
    }

    /// Quantiles of known values are right within a 128th; the largest is exact.
    #[test]
    fn quantiles_are_within_a_hundredth() {
        let mut histogram = Histogram::default();
        for value in 1..=1_000_000 {
            histogram.record(value);
        }
        for part in [0.001, 0.5, 0.9, 0.99, 0.999] {
            let expected = part * 1e6;
            let found = histogram.quantile(part) as f64;
            assert!(found >= expected, "{part}: {found}");
            assert!(found <= expected * (1.0 + 1.0 / 127.0), "{part}: {found}");
        }
        assert_eq!(histogram.quantile(1.0), 1_000_000);
        assert_eq!(histogram.max(), 1_000_000);
    }

    /// Two that are merged are as one that saw both; an empty one has no figures.
    #[test]
    fn merging_is_counting_both() {
        let (mut odd, mut even, mut both) = <(Histogram, Histogram, Histogram)>::default();
        assert!(both.to_json().is_null());
        for value in (0..50_000).map(|value| value * 37) {
            let one = if value % 2 == 0 { &mut even } else { &mut odd };
            one.record(value);
            both.record(value);
        }
        odd.merge(&even);
        assert_eq!(odd.count(), 50_000);
        assert_eq!(odd.to_json(), both.to_json());
    }
}
