//! Many seeds on several threads, and what they add up to.

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Found, Mode, Plan, Summary, replay};
use crate::stage::Bug;

/// Seeds to run.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Which.
    pub seeds: Range<u64>,
    /// How they become runs.
    pub mode: Mode,
    /// A bug that is planted in each.
    pub bug: Option<Bug>,
    /// Threads.
    pub jobs: u64,
    /// Each of so many is run twice, and the traces are compared; 0: none.
    pub twice: u64,
    /// A seed that fails does not end it.
    pub keep_going: bool,
}

/// Gets a call for each seed that is done, from any thread: with the seed and the violation, where
/// there is one.
pub type Hear<'a> = dyn Fn(Option<(u64, &str)>) + Sync + 'a;

/// What the runs add up to.
#[derive(Debug, Default)]
pub struct Sums {
    /// Seeds that were run.
    pub seeds: u64,
    /// Submissions and completions.
    pub steps: u64,
    /// Mails acknowledged.
    pub acknowledged: u64,
    /// Tries refused.
    pub refused: u64,
    /// Crashes.
    pub crashes: u64,
    /// Seeds that were run twice.
    pub twice: u64,
    /// Those that failed, in their order.
    pub found: Vec<Found>,
}

impl Sums {
    fn add(&mut self, run: &Summary) {
        self.seeds += 1;
        self.steps += run.steps;
        self.acknowledged += run.acknowledged;
        self.refused += run.refused;
        self.crashes += run.crashes;
    }
}

impl Batch {
    /// Runs them.
    pub fn run(&self, hear: &Hear<'_>) -> Sums {
        let (next, stop) = (AtomicU64::new(self.seeds.start), AtomicBool::new(false));
        let sums: Mutex<Sums> = Mutex::default();
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.seeds.end {
                    return;
                }
                let plan = Plan::new(seed, self.mode);
                let run = replay(&plan, self.bug, false);
                let again = self.twice > 0 && seed.is_multiple_of(self.twice);
                let differs = again && replay(&plan, self.bug, false).hash != run.hash;
                let differs = differs.then(|| "the same seed twice: another trace".to_owned());
                let violation = run.violation.clone().or(differs);
                if violation.is_some() && !self.keep_going {
                    stop.store(true, Ordering::Relaxed);
                }
                hear(violation.as_deref().map(|violation| (seed, violation)));
                let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
                sums.add(&run);
                sums.twice += u64::from(again);
                sums.found.extend(violation.map(|violation| Found { plan, violation }));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(work);
            }
        });
        let mut sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        sums.found.sort_by_key(|found| found.plan.seed);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(keep_going: bool) -> Batch {
        let bug = Some(Bug::ReplyBeforeSync);
        Batch { seeds: 1..5, mode: Mode::Calm, bug, jobs: 1, twice: 0, keep_going }
    }

    /// Each of these seeds finds the bug.
    #[test]
    fn a_seed_that_fails_ends_the_batch_unless_it_keeps_going() {
        let heard = AtomicU64::new(0);
        let hear = |found: Option<(u64, &str)>| {
            heard.fetch_add(found.map_or(0, |(seed, _)| seed), Ordering::Relaxed);
        };
        let sums = batch(false).run(&hear);
        assert_eq!((sums.seeds, sums.found.len()), (1, 1));
        let sums = batch(true).run(&hear);
        let seeds: Vec<_> = sums.found.iter().map(|found| found.plan.seed).collect();
        assert_eq!((sums.seeds, seeds), (4, vec![1, 2, 3, 4]));
        assert_eq!(heard.into_inner(), 1 + (1 + 2 + 3 + 4), "each failure is heard of");
    }
}
