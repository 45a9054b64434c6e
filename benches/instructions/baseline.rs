//! Figures as they are kept, and what others are to them.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// A count may be so many of a hundred above what was accepted.
const MORE_PERCENT: u64 = 3;

const PREFACE: &str = "\
# Instructions a message, counted under valgrind: benches/instructions/main.rs.
# Accept others: cargo run --release -p mailrace-instructions -- --accept
";

/// Instructions a message, by case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Baseline {
    pub(crate) compiler: String,
    counts: BTreeMap<String, u64>,
}

/// Begins the line with the compiler.
const COMPILER: &str = "compiler ";

/// What a comparison comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) lines: Vec<String>,
    pub(crate) fails: bool,
}

impl Baseline {
    pub(crate) fn of(compiler: String) -> Self {
        Self { compiler, ..Self::default() }
    }

    pub(crate) fn set(&mut self, case: &str, instructions: u64) {
        self.counts.insert(case.to_owned(), instructions);
    }

    /// Compares what was counted with what was accepted. A case that only one of them has fails as well.
    pub(crate) fn judge(&self, counted: &Self) -> Verdict {
        let mut verdict = Verdict { lines: Vec::new(), fails: false };
        for (case, now) in &counted.counts {
            let Some(before) = self.counts.get(case) else {
                verdict.lines.push(format!("{case}: {now}, and the baseline has none"));
                verdict.fails = true;
                continue;
            };
            let percent = (*now as f64 / *before as f64 - 1.0) * 100.0;
            let fails = now * 100 > before * (100 + MORE_PERCENT);
            let word = match () {
                () if fails => ": TOO MANY",
                () if now * 100 < before * (100 - MORE_PERCENT) => ": accept it, so that it stays",
                () => "",
            };
            verdict.lines.push(format!("{case}: {now}, baseline {before} ({percent:+.1} %){word}"));
            verdict.fails |= fails;
        }
        for case in self.counts.keys().filter(|case| !counted.counts.contains_key(*case)) {
            verdict.lines.push(format!("{case}: in the baseline, and not counted"));
            verdict.fails = true;
        }
        verdict
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFACE)?;
        writeln!(f, "{COMPILER}{}", self.compiler)?;
        self.counts.iter().try_for_each(|(case, count)| writeln!(f, "{case} {count}"))
    }
}

impl FromStr for Baseline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut baseline = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if let Some(compiler) = line.strip_prefix(COMPILER) {
                compiler.clone_into(&mut baseline.compiler);
                continue;
            }
            let parsed =
                line.split_once(' ').and_then(|(case, count)| Some((case, count.parse().ok()?)));
            let (case, count) =
                parsed.ok_or_else(|| format!("baseline: {line:?} is no case and count"))?;
            baseline.set(case, count);
        }
        Ok(baseline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(&str, u64)]) -> Baseline {
        let mut baseline = Baseline::default();
        counts.iter().for_each(|(case, count)| baseline.set(case, *count));
        baseline
    }

    #[test]
    fn more_than_three_percent_fails_and_less_is_to_be_kept() {
        let accepted = of(&[("a", 1_000), ("b", 1_000), ("c", 1_000)]);
        let Verdict { lines, fails } = accepted.judge(&of(&[("a", 1_030), ("b", 969), ("c", 970)]));
        assert!(!fails, "{lines:?}");
        assert_eq!(lines[0], "a: 1030, baseline 1000 (+3.0 %)");
        assert_eq!(lines[1], "b: 969, baseline 1000 (-3.1 %): accept it, so that it stays");
        assert_eq!(lines[2], "c: 970, baseline 1000 (-3.0 %)");
        let Verdict { lines, fails } = accepted.judge(&of(&[("a", 1_031), ("b", 1_000), ("c", 1)]));
        assert!(fails && lines[0].ends_with("TOO MANY"), "{lines:?}");
    }

    #[test]
    fn a_case_on_one_side_alone_fails() {
        assert!(of(&[("a", 1)]).judge(&of(&[("a", 1), ("b", 1)])).fails);
        assert!(of(&[("a", 1), ("b", 1)]).judge(&of(&[("a", 1)])).fails);
        assert!(!of(&[("a", 1)]).judge(&of(&[("a", 1)])).fails);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut baseline = of(&[("a", 1), ("b", 22_000)]);
        "rustc 1.95.0 (of a day)".clone_into(&mut baseline.compiler);
        assert_eq!(baseline.to_string().parse(), Ok(baseline));
        assert!("a x".parse::<Baseline>().is_err() && "a".parse::<Baseline>().is_err());
    }

    /// The file in the tree has each case.
    #[test]
    fn the_baseline_has_every_case() {
        let baseline: Baseline = include_str!("baseline.txt").parse().unwrap();
        let names: Vec<&str> = baseline.counts.keys().map(String::as_str).collect();
        let mut cases = crate::cases::NAMES;
        cases.sort_unstable();
        assert_eq!(names, cases);
        assert!(baseline.compiler.starts_with("rustc "), "{}", baseline.compiler);
    }
}
