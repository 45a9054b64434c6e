//! The project's goals against what was measured.

use crate::figures::Figures;
use crate::peers::Peer;

/// A goal: a figure and the most it may be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) most: f64,
    /// `None` where the cases it needs did not run.
    pub(crate) measured: Option<f64>,
}

impl Goal {
    pub(crate) fn verdict(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(value) if value <= self.most => "met",
            // Also what is no number.
            Some(_) => "not met",
        }
    }
}

/// All goals; `of` gives the medians of a case on a peer.
pub(crate) fn all<'a>(of: impl Fn(&str, Peer) -> Option<&'a Figures>) -> Vec<Goal> {
    let ratio =
        |case: &str, to: Peer| Some(of(case, Peer::Mailrace)?.cpu_us() / of(case, to)?.cpu_us());
    let goal = |what, unit, most, measured| Goal { what, unit, most, measured };
    let half = of("half", Peer::Mailrace);
    let shards = || {
        let two = of("shards", Peer::MailraceTwo)?.cpu_us();
        Some(two / of("shards", Peer::Mailrace)?.cpu_us())
    };
    vec![
        goal(
            "4 KiB DATA, not pipelined: CPU per message to smtp-sink's",
            "x",
            0.65,
            ratio("data-4k", Peer::SmtpSink),
        ),
        goal(
            "4 KiB DATA, not pipelined: CPU per message to four echo exchanges",
            "x",
            1.4,
            ratio("data-4k", Peer::Echo),
        ),
        goal(
            "1 KiB BDAT in one write, 1 in flight: CPU per message to the echo",
            "x",
            1.6,
            ratio("bdat-1k", Peer::Echo),
        ),
        goal(
            "1 KiB BDAT in one write, 8 in flight: CPU per message",
            "us",
            4.0,
            of("bdat-1k-x8", Peer::Mailrace).map(Figures::cpu_us),
        ),
        goal(
            "1 MiB DATA: CPU per message to the echo of the same octets",
            "x",
            2.0,
            ratio("data-1m", Peer::Echo),
        ),
        goal(
            "one message per connection: CPU to the accept-reply-close echo",
            "x",
            1.5,
            ratio("connect", Peer::EchoClose),
        ),
        goal(
            "one message per connection: CPU to the echo of its whole dialogue",
            "x",
            1.5,
            ratio("connect", Peer::Echo),
        ),
        goal(
            "idle connection: resident memory",
            "octets",
            1024.0,
            of("idle", Peer::Mailrace).and_then(|figures| figures.more("bytes_each")),
        ),
        goal(
            "half the peak rate: final reply p99 to fdatasync p99",
            "x",
            2.0,
            half.and_then(|f| Some(f.more("ack_p99")? / f.more("sync_p99")?)),
        ),
        goal("two shards: CPU per message to one shard's", "x", 1.1, shards()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_met_at_their_limit_and_never_by_nothing() {
        let goal = |measured| Goal { what: "", unit: "x", most: 1.5, measured };
        assert_eq!(goal(Some(1.5)).verdict(), "met");
        assert_eq!(goal(Some(1.51)).verdict(), "not met");
        assert_eq!(goal(Some(f64::NAN)).verdict(), "not met");
        assert_eq!(goal(None).verdict(), "not measured");
    }

    #[test]
    fn ratios_are_mailrace_to_the_other() {
        let (ours, theirs) = (
            Figures { user_us: 3.0, ..Figures::default() },
            Figures { system_us: 2.0, ..Figures::default() },
        );
        let goals = all(|case, peer| match (case, peer) {
            ("bdat-1k", Peer::Mailrace) => Some(&ours),
            ("bdat-1k", Peer::Echo) => Some(&theirs),
            _ => None,
        });
        let measured: Vec<_> = goals.iter().filter_map(|goal| goal.measured).collect();
        assert_eq!(measured, [1.5]);
        assert_eq!(goals.len(), 10);
    }
}
