//! Is the second run better than the first, or is it noise?
//!
//! Each whole second of a run is one observation. The 95 % confidence interval of the change is the
//! percentile bootstrap (Efron 1979) of the ratio of means: both runs' seconds are drawn again with
//! replacement, 10,000 times, from a fixed seed. A change whose interval includes zero is called
//! not significant. Neighbouring seconds are assumed to be independent. On a server with slow
//! phases they are not, and the interval is too narrow: repeat the runs in turn.

use std::{fmt::Write, fs, io, path::Path};

use super::{
    random::{below, mix},
    report::Report,
    units::{show_count, show_seconds},
};

const RESAMPLES: u64 = 10_000;
/// Fewer seconds tell nothing of their spread.
const SECONDS_MIN: usize = 3;

/// A relative change with its confidence interval; 0.1 is ten percent more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Change {
    pub(super) fn is_significant(self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Reads a saved report.
///
/// # Errors
/// What the file system says; `InvalidData` where it is no report.
pub(super) fn load(path: &Path) -> io::Result<Report> {
    let name =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let text = fs::read(path).map_err(name)?;
    serde_json::from_slice(&text).map_err(|error| name(io::Error::other(error)))
}

/// A line for each run after the first.
pub(super) fn compare(first: &Report, others: &[Report]) -> String {
    let mut out = String::new();
    for other in others {
        let rate = seconds(first, |second| second.0);
        let rate = change(&rate, &seconds(other, |second| second.0));
        let p99 = change(&seconds(first, |second| second.1), &seconds(other, |second| second.1));
        let per_second =
            |report: &Report| show_count(report.rate.messages_per_second.round() as u64) + "/s";
        let latency = |report: &Report| show_seconds(report.latency.response.p99);
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "compare   rate {} -> {}  {}    p99 {} -> {}  {}    (95 % CI over 1 s intervals)",
            per_second(first),
            per_second(other),
            show(rate),
            latency(first),
            latency(other),
            show(p99),
        );
        if first.environment.config_hash != other.environment.config_hash {
            let _ = writeln!(out, "          the runs had different options");
        }
        if !(first.generator.valid && other.generator.valid) {
            let _ = writeln!(out, "          a run is marked invalid: its generator was the limit");
        }
    }
    out
}

fn show(change: Option<Change>) -> String {
    match change {
        None => format!("(fewer than {SECONDS_MIN} whole seconds)"),
        Some(change) => {
            let percent = |part: f64| format!("{:+.1}", part * 100.0);
            let (low, high) = (percent(change.low), percent(change.high));
            if change.is_significant() {
                format!("{} % [{low}, {high}]", percent(change.value))
            } else {
                format!("~ (not significant: [{low}, {high}] %)")
            }
        }
    }
}

/// Rate and response p99 of each whole second.
fn seconds(report: &Report, of: impl Fn((f64, f64)) -> f64) -> Vec<f64> {
    let whole = report.intervals.iter().filter(|interval| interval.length > 0.99);
    whole.map(|interval| of((interval.acked as f64 / interval.length, interval.p99))).collect()
}

/// The change of the mean from `before` to `after`; `None` where either is too short.
pub(super) fn change(before: &[f64], after: &[f64]) -> Option<Change> {
    if before.len().min(after.len()) < SECONDS_MIN {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    if mean(before) <= 0.0 {
        return None;
    }
    let draw = |values: &[f64], seed: u64| {
        let count = values.len() as u64;
        let sum: f64 =
            (0..count).map(|number| values[below(mix(seed, number), count) as usize]).sum();
        sum / count as f64
    };
    let mut ratios = (0..RESAMPLES)
        .filter_map(|sample| {
            let base = draw(before, 2 * sample);
            (base > 0.0).then(|| draw(after, 2 * sample + 1) / base - 1.0)
        })
        .collect::<Vec<_>>();
    ratios.sort_by(f64::total_cmp);
    let at = |part: f64| ratios[((ratios.len() - 1) as f64 * part).round() as usize];
    let value = mean(after) / mean(before) - 1.0;
    Some(Change { value, low: at(0.025), high: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_change_is_found_and_noise_is_not() {
        let noisy = |seed: u64, level: f64| {
            (0..30).map(|at| level + below(mix(seed, at), 100) as f64).collect::<Vec<_>>()
        };
        let better = change(&noisy(1, 1_000.0), &noisy(2, 1_200.0)).unwrap();
        assert!(better.is_significant() && better.low > 0.15 && better.high < 0.23, "{better:?}");
        let mut significant = 0;
        for seed in 10..40 {
            let same = change(&noisy(seed, 1_000.0), &noisy(seed + 100, 1_000.0)).unwrap();
            significant += u32::from(same.is_significant());
        }
        // One in twenty is expected.
        assert!(significant <= 5, "{significant} of 30");
        assert_eq!(change(&[1.0, 2.0], &[1.0, 2.0]), None);
    }
}
