//! The highest rate that keeps a threshold.
//!
//! The rate doubles until a try misses, then the gap between the last that held and the first that
//! missed is halved until it is narrower than five percent. A try also misses where messages failed
//! or were skipped, or less than 98 % of the rate was reached.

use super::report::Try;

const FIRST: f64 = 500.0;
const NARROW: f64 = 1.05;
const TRIES_MAX: usize = 24;

/// The next rate to try; `None` when the search is over.
pub(super) fn next(tries: &[Try]) -> Option<f64> {
    let held = tries.iter().filter(|one| one.holds).map(|one| one.asked_per_second);
    let missed = tries.iter().filter(|one| !one.holds).map(|one| one.asked_per_second);
    let best = held.fold(0.0, f64::max);
    let worst = missed.fold(f64::INFINITY, f64::min);
    if tries.len() >= TRIES_MAX || worst < best * NARROW || worst < 1.0 {
        return None;
    }
    match (best > 0.0, worst.is_finite()) {
        (false, false) => Some(FIRST),
        (true, false) => Some(best * 2.0),
        (false, true) => Some(worst / 2.0),
        (true, true) => Some(f64::midpoint(best, worst)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_in_on_the_limit() {
        for limit in [3.0, 80.0, 700.0, 12_345.0, 900_000.0] {
            let mut tries = Vec::new();
            while let Some(rate) = next(&tries) {
                tries.push(Try {
                    asked_per_second: rate,
                    got_per_second: rate,
                    p99: 0.0,
                    holds: rate <= limit,
                });
            }
            let held = tries.iter().filter(|one| one.holds).map(|one| one.asked_per_second);
            let best = held.fold(0.0, f64::max);
            assert!(best <= limit && best > limit / 1.06, "{limit}: {best} of {}", tries.len());
        }
    }
}
