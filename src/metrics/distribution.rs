//! A histogram with its exact sum.

use hdrhistogram::Histogram;
use std::time::Duration;

/// Values of one kind, counted with two significant digits, with their exact sum.
///
/// A value above the range is counted at the range's end; its sum stays exact.
#[derive(Clone, Debug)]
pub struct Distribution {
    histogram: Histogram<u64>,
    sum: u64,
}

impl Distribution {
    /// Durations from 1 us to 60 s, counted in microseconds.
    pub fn of_durations() -> Self {
        Self::up_to(60_000_000)
    }

    /// Sizes in bytes up to 1 GiB.
    pub fn of_sizes() -> Self {
        Self::up_to(1 << 30)
    }

    /// Small counts (recipients, records in a batch) up to 100,000.
    pub fn of_counts() -> Self {
        Self::up_to(100_000)
    }

    fn up_to(value_max: u64) -> Self {
        // 2 digits: 256 sub-buckets, so 2 KiB for each doubling; 20 KiB for 1 us..60 s.
        let histogram = Histogram::new_with_bounds(1, value_max, 2)
            .expect("bounds are constants: low is 1, high is above 2, two digits");
        Self { histogram, sum: 0 }
    }

    /// Counts one duration, in microseconds.
    #[inline]
    pub fn record_duration(&mut self, duration: Duration) {
        self.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.histogram.saturating_record(value);
        self.sum = self.sum.saturating_add(value);
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Exact sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The value below which `quantile` (0.0..=1.0) of all values lie; 0 if nothing was counted.
    pub fn value_at_quantile(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }

    /// Adds another shard's values.
    pub fn merge(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("both come from the same constructor, so the range is the same");
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// What was counted since `earlier`, a former state of this distribution.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        since.sum = self.sum.saturating_sub(earlier.sum);
        if since.histogram.subtract(&earlier.histogram).is_err() {
            // It is none: nothing is known of what came in between.
            since.histogram.reset();
            since.sum = 0;
        }
        since
    }

    /// The smallest value of each slot that counted something, and how many it counted.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.histogram.iter_recorded().map(|slot| {
            let lowest = self.histogram.lowest_equivalent(slot.value_iterated_to());
            (lowest, slot.count_since_last_iteration())
        })
    }

    /// How many values are at most each bound; `bounds` ascend.
    ///
    /// A slot that straddles a bound counts under it: a value equal to a bound is always placed
    /// right, and what is placed wrong lies less than 1 % above the bound.
    pub fn cumulative(&self, bounds: &[u64]) -> Vec<u64> {
        let mut counts = vec![0_u64; bounds.len()];
        for (lowest, of_slot) in self.slots() {
            let index = bounds.partition_point(|bound| *bound < lowest);
            if let Some(count) = counts.get_mut(index) {
                *count += of_slot;
            }
        }
        let mut running = 0;
        for count in &mut counts {
            running += *count;
            *count = running;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_values_equal_to_them() {
        let mut sizes = Distribution::of_sizes();
        for value in [1, 1023, 1024, 1100, 1 << 20, 1 << 40] {
            sizes.record(value);
        }
        assert_eq!(sizes.cumulative(&[1, 1024, 4096, 1 << 20]), [1, 3, 4, 5]);
        assert_eq!(sizes.count(), 6);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let mut now = Distribution::of_durations();
        now.record(80);
        let earlier = now.clone();
        now.record(80);
        now.record(7_000);
        let since = now.since(&earlier);
        assert_eq!((since.count(), since.sum()), (2, 7_080));
        assert_eq!(earlier.since(&now).count(), 0, "that is not an earlier state");
    }

    #[test]
    fn merging_adds_counts_and_sums() {
        let (mut a, mut b) = (Distribution::of_durations(), Distribution::of_durations());
        a.record_duration(Duration::from_micros(80));
        b.record_duration(Duration::from_millis(7));
        b.record_duration(Duration::ZERO);
        a.merge(&b);
        assert_eq!((a.count(), a.sum()), (3, 7_080));
        assert_eq!(a.cumulative(&[100, 10_000]), [2, 3]);
    }
}
