//! Deadlines of a shard's connections, without a timer for each.
//!
//! A ring of coarse slots. A connection has at most one entry in it. When the slot's time comes,
//! the true deadline is checked, and a connection whose deadline has moved on is entered again. So
//! a command that arrives in time costs nothing here.
//!
//! Source of the idea: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987).

use std::time::Duration;

/// Width of a slot: how late a deadline may be seen.
pub(crate) const SLOT: Duration = Duration::from_millis(250);

const SLOTS: usize = 256;

/// See the module's page. `K` names a connection.
pub(crate) struct Wheel<K> {
    slots: Vec<Vec<K>>,
    /// Next slot to be looked at, as a count of slots since the start.
    next: u64,
}

impl<K: Copy> Wheel<K> {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), next: 0 }
    }

    /// Enters a key for a deadline. A deadline beyond the wheel's turn comes up early, which the
    /// caller's check makes harmless.
    pub(crate) fn enter(&mut self, key: K, deadline: Duration) {
        let slot = deadline.as_millis() as u64 / SLOT.as_millis() as u64 + 1;
        let slot = slot.clamp(self.next, self.next + SLOTS as u64 - 1);
        self.slots[slot as usize % SLOTS].push(key);
    }

    /// Moves every key whose slot has passed into `due`.
    pub(crate) fn advance(&mut self, now: Duration, due: &mut Vec<K>) {
        let current = now.as_millis() as u64 / SLOT.as_millis() as u64;
        while self.next <= current {
            due.append(&mut self.slots[self.next as usize % SLOTS]);
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_up_within_a_slot_after_its_deadline_and_never_before() {
        let mut wheel = Wheel::new();
        for ms in [0_u64, 1, 249, 250, 1_000, 30_000, 60_000] {
            wheel.enter(ms, Duration::from_millis(ms));
        }
        let mut seen = Vec::new();
        for now in (0..62_000).step_by(50) {
            let mut due = Vec::new();
            wheel.advance(Duration::from_millis(now), &mut due);
            for ms in due {
                assert!(now >= ms && now <= ms + 2 * SLOT.as_millis() as u64, "{ms} at {now}");
                seen.push(ms);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 249, 250, 1_000, 30_000, 60_000]);
    }

    #[test]
    fn a_deadline_beyond_the_turn_is_still_held() {
        let mut wheel = Wheel::new();
        wheel.enter(7, Duration::from_secs(1_000_000));
        let mut due = Vec::new();
        wheel.advance(Duration::from_secs(200), &mut due);
        assert_eq!(due, [7], "early, to be asked and entered again");
    }
}
