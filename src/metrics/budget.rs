//! How many lines a second one kind of event may write: in a flood, one line stands for many and
//! says how many were left out.

use std::time::Duration;

/// A token bucket. Times are the caller's, since some moment of its choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Lines written of the budget, in millionths; it sinks with time.
    used: u64,
    at: Duration,
    /// Lines left out since the last one that was written.
    pub suppressed: u64,
    /// No line more, as of the last look.
    pub spent: bool,
}

impl Budget {
    /// Whether a line may be written; how many before it were not. `rate`: lines a second; twice as
    /// many at once.
    pub fn take(&mut self, rate: u32, now: Duration) -> Option<u64> {
        self.earn(rate, now);
        if self.spent {
            self.suppressed += 1;
            return None;
        }
        self.used += 1_000_000;
        // A driver that asks ahead of a refusal sees this one, and looks at the time at its tick.
        self.spent = self.is_spent(rate);
        Some(std::mem::take(&mut self.suppressed))
    }

    /// The budget grows with time.
    pub fn earn(&mut self, rate: u32, now: Duration) {
        let passed = now.saturating_sub(self.at).as_micros();
        let earned = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(u64::from(rate));
        self.used = self.used.saturating_sub(earned);
        self.at = now;
        self.spent = self.is_spent(rate);
    }

    fn is_spent(&self, rate: u32) -> bool {
        self.used + 1_000_000 > u64::from(rate) * 2_000_000
    }
}
