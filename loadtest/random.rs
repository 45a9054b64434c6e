//! Repeatable randomness: a function of seed and number, so that what was sent can be computed
//! again when the log is checked.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub(super) fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From 0 up to, not including, 1.
pub(super) fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// From 0 up to, not including, `bound`; the bias is below 2^-32 for bounds below 2^32.
pub(super) fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// Things chosen by weight.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Weighted<T> {
    /// With the sum of the weights up to and including it.
    items: Vec<(T, f64)>,
}

impl<T> Weighted<T> {
    /// `None` where nothing has a positive weight.
    pub(super) fn new(items: impl IntoIterator<Item = (T, f64)>) -> Option<Self> {
        let mut sum = 0.0;
        let items = items
            .into_iter()
            .filter(|(_, weight)| *weight > 0.0)
            .map(|(item, weight)| {
                sum += weight;
                (item, sum)
            })
            .collect::<Vec<_>>();
        (!items.is_empty()).then_some(Self { items })
    }

    pub(super) fn choose(&self, random: u64) -> &T {
        let last = self.items.len() - 1;
        let at = fraction(random) * self.items[last].1;
        let index = self.items.partition_point(|(_, sum)| *sum <= at);
        &self.items[index.min(last)].0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(item, _)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept() {
        let pool = Weighted::new([('a', 70.0), ('b', 25.0), ('c', 5.0), ('d', 0.0)]).unwrap();
        let mut counts = [0_u32; 4];
        for number in 0..100_000 {
            counts[(*pool.choose(mix(7, number)) as u8 - b'a') as usize] += 1;
        }
        assert!((69_000..71_000).contains(&counts[0]), "{counts:?}");
        assert!((24_000..26_000).contains(&counts[1]), "{counts:?}");
        assert!((4_500..5_500).contains(&counts[2]), "{counts:?}");
        assert_eq!(counts[3], 0);
        assert!(Weighted::new([('a', 0.0)]).is_none());
    }

    #[test]
    fn bounds_hold() {
        for number in 0..1_000 {
            assert!(below(mix(1, number), 10) < 10);
            assert!((0.0..1.0).contains(&fraction(mix(2, number))));
        }
        assert_eq!(below(u64::MAX, 10), 9);
    }
}
