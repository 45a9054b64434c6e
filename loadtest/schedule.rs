//! When messages are due, fixed before the run begins.
//!
//! A server that stalls does not slow the schedule down: the messages it delays are late by the
//! whole stall, and that shows in the response time, which counts from here. (A client that waits
//! before it asks again would leave them out: "coordinated omission".)

use super::{
    dialogue::Nanos,
    random::{fraction, mix},
    share::Share,
};

const SECOND: f64 = 1e9;

/// How messages are spread over a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Arrivals {
    /// At equal distances
    Constant,
    /// Independent of each other, as from many clients
    Poisson,
}

/// A stretch of time with one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stage {
    /// Nanoseconds; infinite for the last one of an endless schedule.
    pub(super) length: f64,
    /// Messages a second.
    pub(super) rate: f64,
}

/// The times at which messages are due, in order.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    stages: Vec<Stage>,
    arrivals: Arrivals,
    seed: u64,
    /// Every so manieth message is handed out.
    stride: usize,
    given: u64,
    stage: usize,
    stage_start: f64,
    /// Nanoseconds since the start of the run.
    next: f64,
}

impl Schedule {
    pub(super) fn new(stages: Vec<Stage>, arrivals: Arrivals, seed: u64) -> Self {
        let mut schedule = Self {
            stages,
            arrivals,
            seed,
            stride: 1,
            given: 0,
            stage: 0,
            stage_start: 0.0,
            next: 0.0,
        };
        if arrivals == Arrivals::Poisson {
            schedule.step();
        }
        schedule.settle(0.0);
        schedule
    }

    /// One thread's share, of a schedule nothing was taken off: the threads take turns, so that
    /// together they send each message at the time it had anyway.
    pub(super) fn share(mut self, share: Share) -> Self {
        self.skip(share.index);
        self.stride = share.of;
        self
    }

    /// When the next message is due.
    pub(super) fn peek(&self) -> Option<Nanos> {
        (self.stage < self.stages.len()).then_some(self.next as Nanos)
    }

    /// Takes the next message off the schedule.
    pub(super) fn pop(&mut self) -> Option<Nanos> {
        let due = self.peek()?;
        self.skip(self.stride);
        Some(due)
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.given += 1;
            self.step();
        }
    }

    /// Goes on by the distance to the next message: its share of an expected message is spent
    /// stage by stage, so that a change of the rate takes effect at once.
    fn step(&mut self) {
        let share = match self.arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => -(1.0 - fraction(mix(self.seed, self.given))).ln(),
        };
        self.settle(share);
    }

    fn settle(&mut self, mut share: f64) {
        while let Some(stage) = self.stages.get(self.stage) {
            let end = self.stage_start + stage.length;
            let due = self.next + share * SECOND / stage.rate;
            if due < end {
                self.next = due;
                return;
            }
            share -= (end - self.next) * stage.rate / SECOND;
            self.next = end;
            self.stage_start = end;
            self.stage += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(stages: &[(f64, f64)], arrivals: Arrivals) -> Vec<u64> {
        let stages = stages
            .iter()
            .map(|&(seconds, rate)| Stage { length: seconds * SECOND, rate })
            .collect();
        let mut schedule = Schedule::new(stages, arrivals, 3);
        std::iter::from_fn(|| schedule.pop()).take(1_000_000).collect()
    }

    #[test]
    fn constant_arrivals_keep_their_distance() {
        let times = times(&[(2.0, 1000.0)], Arrivals::Constant);
        assert_eq!(times.len(), 2000);
        assert_eq!(times[0], 0);
        for (number, time) in times.iter().enumerate() {
            assert!(time.abs_diff(number as u64 * 1_000_000) <= 1, "{number}: {time}");
        }
    }

    #[test]
    fn stages_change_the_rate() {
        let times = times(&[(1.0, 100.0), (1.0, 1000.0), (1.0, 100.0)], Arrivals::Constant);
        let within = |from: u64, to: u64| {
            times.iter().filter(|&&time| (from..to).contains(&(time / 1_000_000))).count()
        };
        assert_eq!(within(0, 1000), 100);
        assert!(within(1000, 2000).abs_diff(1000) <= 1);
        assert!(within(2000, 3000).abs_diff(100) <= 1);
        assert!(within(3000, u64::MAX) == 0);
    }

    #[test]
    fn poisson_arrivals_have_their_rate_and_spread() {
        let times = times(&[(20.0, 1000.0)], Arrivals::Poisson);
        assert!(times.len().abs_diff(20_000) < 600, "{}", times.len());
        assert!(times.is_sorted());
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect::<Vec<_>>();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of an exponential distribution the deviation is the mean.
        assert!((0.9..1.1).contains(&(variance.sqrt() / mean)), "{mean} {variance}");
    }

    #[test]
    fn shares_together_are_the_whole() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let whole = times(&[(1.0, 100.0), (1.0, 1000.0)], arrivals);
            for of in [1, 2, 3, 7] {
                let mut shared = Vec::new();
                for index in 0..of {
                    let stage = |rate| Stage { length: SECOND, rate };
                    let schedule = Schedule::new(vec![stage(100.0), stage(1000.0)], arrivals, 3);
                    let mut schedule = schedule.share(Share { index, of });
                    let taken: Vec<_> = std::iter::from_fn(|| schedule.pop()).collect();
                    assert!(taken.len().abs_diff(whole.len() / of) <= 1);
                    shared.extend(taken);
                }
                shared.sort_unstable();
                assert_eq!(shared, whole, "{of} {arrivals:?}");
            }
        }
    }

    #[test]
    fn an_endless_schedule_goes_on() {
        let stages = vec![Stage { length: f64::INFINITY, rate: 10.0 }];
        let mut schedule = Schedule::new(stages, Arrivals::Constant, 0);
        for _ in 0..1000 {
            assert!(schedule.pop().is_some());
        }
        assert_eq!(schedule.peek(), Some(100_000_000_000));
    }
}
