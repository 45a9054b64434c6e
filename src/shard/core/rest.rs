//! When the next commit waits a moment for answers to the replies that the last one released.
//!
//! A client that sends one message at a time has the next one ready when its 250 arrives. A group
//! that is written in the same turn as those replies misses it, and clients split into two halves
//! that commit in turn. A write that rests until the replies have been answered carries both
//! halves: half as many writes and syncs for a message, and no longer wait, because no client has
//! to wait for a commit of the other half first.
//!
//! A rest is a few short turns. It ends as soon as more than half of the missing clients stay away.
//! After that (senders that keep to a schedule of their own, or need several exchanges for a
//! message) it is skipped for a while, ever longer, and tried again.

use std::time::Duration;

/// Longest wait of one turn: a client on the same machine answers within it.
const TURN: Duration = Duration::from_micros(60);

/// Most turns of one rest.
const TURNS_MAX: u32 = 4;

/// Most commits between two tries.
const SKIPPED_MAX: u32 = 63;

/// See the module's page. Counts records by offsets.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Replies released by the commit that it follows; 0 while there is no rest.
    released: u64,
    began: u64,
    seen: u64,
    turns: u32,
    /// Commits still to be passed over, and how many were the last time.
    skip: u32,
    skipped: u32,
}

impl Rest {
    pub(super) fn is_under_way(&self) -> bool {
        self.released > 0
    }

    /// How long the next turn waits, and for how many answers; `None` while there is no rest.
    pub(super) fn wait(&self) -> Option<(Duration, usize)> {
        let missing = self.missing();
        (missing > 0).then(|| (TURN, usize::try_from(missing).unwrap_or(usize::MAX)))
    }

    fn missing(&self) -> u64 {
        self.released.saturating_sub(self.seen - self.began)
    }

    /// A commit let `released` replies go; the log ends at `end`. A single sender is not waited
    /// for: nobody would go along.
    pub(super) fn after_commit(&mut self, released: u64, end: u64) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if released > 1 {
            *self = Self { released, began: end, seen: end, turns: 0, ..*self };
        }
    }

    /// A turn later the log ends at `end`.
    pub(super) fn after_turn(&mut self, end: u64) {
        let missing = self.missing();
        let came = end - self.seen;
        self.seen = end;
        self.turns += 1;
        if came >= missing {
            // All have answered.
            self.skipped = 0;
        } else if came * 2 >= missing {
            if self.turns < TURNS_MAX {
                return;
            }
            self.skipped = 0;
        } else if self.missing() * 4 > self.released {
            self.skipped = (self.skipped * 2 + 1).min(SKIPPED_MAX);
        }
        self.skip = self.skipped;
        self.released = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_ends_when_all_have_answered_or_most_stay_away() {
        let mut rest = Rest::default();
        assert_eq!(rest.wait(), None);
        rest.after_commit(20, 100);
        assert_eq!(rest.wait(), Some((TURN, 20)));
        rest.after_turn(110);
        assert_eq!(rest.wait(), Some((TURN, 10)));
        rest.after_turn(125);
        assert!(!rest.is_under_way(), "all have answered");
        rest.after_commit(20, 125);
        rest.after_turn(141);
        assert!(rest.is_under_way());
        rest.after_turn(142);
        assert!(!rest.is_under_way(), "most of them stay away");
        rest.after_commit(1600, 142);
        assert!(rest.is_under_way(), "most came the last time");
        for (turn, end) in (1..TURNS_MAX).zip([942, 1342, 1542]) {
            rest.after_turn(end);
            assert!(rest.is_under_way(), "turn {turn}");
        }
        rest.after_turn(1642);
        assert!(!rest.is_under_way(), "bounded");
    }

    #[test]
    fn senders_that_do_not_answer_are_waited_for_ever_more_seldom() {
        let mut rest = Rest::default();
        let mut rests = Vec::new();
        for commit in 0..500_u32 {
            rest.after_commit(20, 0);
            if rest.is_under_way() {
                rests.push(commit);
            }
            while rest.is_under_way() {
                rest.after_turn(0);
            }
        }
        assert_eq!(rests, [0, 2, 6, 14, 30, 62, 126, 190, 254, 318, 382, 446]);
        // One answer that is worth it, and it is done after each commit.
        while !rest.is_under_way() {
            rest.after_commit(20, 0);
        }
        rest.after_turn(20);
        rest.after_commit(20, 20);
        assert!(rest.is_under_way());
    }

    #[test]
    fn a_single_sender_is_not_waited_for() {
        let mut rest = Rest::default();
        rest.after_commit(1, 7);
        assert!(!rest.is_under_way());
    }
}
