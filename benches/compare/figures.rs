//! What is measured, and how rounds become one figure.

use crate::median::median;

/// One run of one case on one server, or the medians of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Messages a second.
    pub(crate) rate: f64,
    /// CPU of the server and its descendants, microseconds a message.
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// Seconds from the start of a message to its final reply.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// CPU share of the loader's core; near 1 the loader sets the rate. `NAN` where not known.
    pub(crate) loader: f64,
    pub(crate) messages: f64,
    pub(crate) seconds: f64,
    /// Figures of one case alone, by name.
    pub(crate) more: Vec<(&'static str, f64)>,
}

impl Figures {
    pub(crate) fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }

    pub(crate) fn more(&self, name: &str) -> Option<f64> {
        self.more.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }
}

/// The medians, figure by figure; `None` of no rounds.
pub(crate) fn medians(rounds: &[Figures]) -> Option<Figures> {
    let first = rounds.first()?;
    let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure));
    // User and system come from the round with the median sum, so that they add up to it.
    let mut by_cpu: Vec<&Figures> = rounds.iter().collect();
    by_cpu.sort_by(|a, b| a.cpu_us().total_cmp(&b.cpu_us()));
    let middle = by_cpu.get((by_cpu.len() - 1) / 2).copied().unwrap_or(first);
    Some(Figures {
        rate: of(|f| f.rate),
        user_us: middle.user_us,
        system_us: middle.system_us,
        p50: of(|f| f.p50),
        p99: of(|f| f.p99),
        p999: of(|f| f.p999),
        loader: of(|f| f.loader),
        messages: of(|f| f.messages),
        seconds: of(|f| f.seconds),
        more: first
            .more
            .iter()
            .map(|(name, _)| (*name, median(rounds.iter().filter_map(|f| f.more(name)))))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn user_and_system_stay_together() {
        let round = |user_us, system_us, rate| Figures {
            user_us,
            system_us,
            rate,
            more: vec![("x", rate * 2.0)],
            ..Figures::default()
        };
        let all = [round(9.0, 1.0, 5.0), round(1.0, 7.0, 6.0), round(2.0, 3.0, 9.0)];
        let middle = medians(&all).unwrap();
        assert_eq!((middle.user_us, middle.system_us, middle.rate), (1.0, 7.0, 6.0));
        assert_eq!(middle.more("x"), Some(12.0));
        assert_eq!(medians(&[]), None);
    }
}
