//! A distribution as a native histogram of Prometheus: buckets whose bounds grow by a factor of
//! 2^(1/8), of which only those that counted something are there.

use super::Distribution;

/// Bounds double with each 2 to this power buckets.
pub(super) const SCHEMA: i32 = 3;

/// See the module's page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Native {
    /// Values of 0.
    pub(super) zero: u64,
    /// Number of a bucket and what it counted, in their order. Bucket `i` has the values above
    /// 2^((i - 1) / 8) and up to 2^(i / 8).
    pub(super) buckets: Vec<(i32, u64)>,
}

impl Native {
    /// `unit`: how many of the distribution's steps are one of the histogram's (1e6 of microseconds
    /// for seconds). A value lands at most one slot of the distribution, which is less than 1 %,
    /// from its place.
    pub(super) fn of(distribution: &Distribution, unit: f64) -> Self {
        let mut native = Self::default();
        for (lowest, count) in distribution.slots() {
            if lowest == 0 {
                native.zero += count;
                continue;
            }
            let bucket = bucket(lowest as f64 / unit);
            match native.buckets.last_mut() {
                Some((last, so_far)) if *last == bucket => *so_far += count,
                _ => native.buckets.push((bucket, count)),
            }
        }
        native
    }
}

/// The number of a value's bucket.
fn bucket(value: f64) -> i32 {
    // Durations and sizes of a u64: the logarithm is far inside of an i32.
    (value.log2() * f64::from(1 << SCHEMA)).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn values_lie_in_their_buckets() {
        // Bounds of the protocol's own description: 2^(1/8) is 1.0905.
        for (value, wanted) in [(1.0, 0), (1.0001, 1), (1.09, 1), (1.0906, 2), (2.0, 8), (0.5, -8)]
        {
            assert_eq!(bucket(value), wanted, "{value}");
        }
        let mut durations = Distribution::of_durations();
        durations.record_duration(Duration::ZERO);
        for _ in 0..3 {
            durations.record_duration(Duration::from_millis(500));
        }
        durations.record_duration(Duration::from_secs(2));
        let native = Native::of(&durations, 1e6);
        assert_eq!(native.zero, 1);
        let counted: u64 = native.buckets.iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 4);
        assert_eq!(native.buckets.first(), Some(&(-8, 3)));
        assert_eq!(native.buckets.last().map(|(bucket, _)| *bucket), Some(8));
    }
}
