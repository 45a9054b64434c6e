//! One thread's share of the work.

/// `index` of `of` threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Invariant: below `of`.
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Share {
    /// How many of `count` things are this thread's; the shares add up to all of them.
    pub(super) fn part(self, count: usize) -> usize {
        count / self.of + usize::from(self.index < count % self.of)
    }

    /// The number among all threads' things of this thread's `own`th, both from 0: threads take
    /// turns, so no number is given twice.
    pub(super) fn number(self, own: u64) -> u64 {
        own * self.of as u64 + self.index as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_numbers_differ() {
        for of in 1..6 {
            let shares = (0..of).map(|index| Share { index, of }).collect::<Vec<_>>();
            for count in 0..20 {
                assert_eq!(shares.iter().map(|share| share.part(count)).sum::<usize>(), count);
            }
            let mut numbers = (0..10)
                .flat_map(|own| shares.iter().map(move |share| share.number(own)))
                .collect::<Vec<_>>();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..10 * of as u64));
        }
    }
}
