//! Random numbers from a seed, the same everywhere.

/// xorshift64*, seeded through splitmix64: fast, and good enough to choose by.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Of a seed and what it is for: streams for different uses do not move each other.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32);
        for _ in 0..2 {
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
        }
        Self(mixed | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 up to, and without, `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        match end {
            0 => 0,
            _ => (self.next() >> 11) % end,
        }
    }

    /// From one number to another, both included.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True in one case of `of`.
    pub(super) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Mostly small, now and then large: each doubling is half as likely.
    pub(super) fn skewed(&mut self, from: u64, to: u64) -> u64 {
        let mut most = from.max(1);
        while most < to && self.one_in(2) {
            most = most.saturating_mul(3);
        }
        self.between(from, most.min(to).max(from))
    }
}
