//! What came out, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cases::{Case, Kind};
use crate::figures::{Figures, medians};
use crate::goals::{self, Goal};
use crate::peers::Peer;
use crate::table::{Table, number, seconds};

/// Everything that was found out.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) cases: Vec<Case>,
    pub(crate) peers: Vec<Peer>,
    /// Peers that are not here, and why.
    pub(crate) missing: Vec<(Peer, String)>,
    /// By case and peer, a round each.
    pub(crate) rounds: BTreeMap<(&'static str, Peer), Vec<Figures>>,
    /// Cases a peer cannot do.
    pub(crate) left_out: BTreeMap<(&'static str, Peer), String>,
    /// Runs that failed.
    pub(crate) failures: Vec<String>,
    /// By case and peer; see [`Report::close`].
    pub(crate) medians: BTreeMap<(&'static str, Peer), Figures>,
}

impl Report {
    /// To be called when the rounds are complete.
    pub(crate) fn close(&mut self) {
        let of =
            |(key, rounds): (&(&'static str, Peer), &Vec<Figures>)| Some((*key, medians(rounds)?));
        self.medians = self.rounds.iter().filter_map(of).collect();
    }

    pub(crate) fn of(&self, case: &str, peer: Peer) -> Option<&Figures> {
        let found = self.medians.iter().find(|((id, p), _)| *id == case && *p == peer);
        found.map(|(_, figures)| figures)
    }

    pub(crate) fn goals(&self) -> Vec<Goal> {
        goals::all(|case, peer| self.of(case, peer))
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        self.preface(&mut out, "", "");
        for case in &self.cases {
            let _ = writeln!(out, "\n{}: {}", case.id, self.describe(case));
            out.push_str(&self.table(case).text());
        }
        out.push_str("\ngoals\n");
        out.push_str(&self.goal_table().text());
        out
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from("# Comparison\n\n");
        self.preface(&mut out, "- ", "\n");
        for case in &self.cases {
            let _ = writeln!(out, "\n## {}: {}\n", case.id, self.describe(case));
            out.push_str(&self.table(case).markdown());
        }
        out.push_str("\n## Goals\n\n");
        out.push_str(&self.goal_table().markdown());
        out
    }

    fn preface(&self, out: &mut String, bullet: &str, gap: &str) {
        // Writing into a String cannot fail.
        for (name, value) in &self.facts {
            let _ = writeln!(out, "{bullet}{name}: {value}");
        }
        let _ = writeln!(out, "{gap}What each had on disk before its 250:{gap}");
        for peer in &self.peers {
            let _ = writeln!(out, "{bullet}{}: {}", peer.name(), peer.synced());
        }
        if !self.missing.is_empty() {
            let _ = writeln!(out, "{gap}Left out, as not here:{gap}");
        }
        for (peer, why) in &self.missing {
            let _ = writeln!(out, "{bullet}{}: {why}", peer.name());
        }
        if !self.failures.is_empty() {
            let _ = writeln!(out, "{gap}Failed runs:{gap}");
        }
        for failure in &self.failures {
            let _ = writeln!(out, "{bullet}{failure}");
        }
    }

    fn describe(&self, case: &Case) -> String {
        match case.kind {
            Kind::Idle => case.title.to_owned(),
            _ => format!("{}, {} connections", case.title, case.connections),
        }
    }

    fn table(&self, case: &Case) -> Table {
        match case.kind {
            Kind::Idle => self.idle_table(case),
            Kind::HalfPeak => self.half_table(case),
            Kind::Load | Kind::Shards => self.load_table(case),
        }
    }

    fn load_table(&self, case: &Case) -> Table {
        let mut table = Table::new(&[
            "",
            "messages/s",
            "CPU us",
            "user",
            "system",
            "p50",
            "p99",
            "p99.9",
            "x smtp-sink",
            "x echo",
            "loader",
        ]);
        let cpu_of = |peer| self.of(case.id, peer).map_or(f64::NAN, Figures::cpu_us);
        let (sink, echo) = (cpu_of(Peer::SmtpSink), cpu_of(Peer::Echo));
        self.fill(&mut table, case, |f| {
            let loader = if f.loader.is_nan() {
                "-".to_owned()
            } else {
                format!("{:.0}%", f.loader * 100.0)
            };
            vec![
                number(f.rate.round()),
                number(f.cpu_us()),
                number(f.user_us),
                number(f.system_us),
                seconds(f.p50),
                seconds(f.p99),
                seconds(f.p999),
                number(f.cpu_us() / sink),
                number(f.cpu_us() / echo),
                loader,
            ]
        });
        table
    }

    fn half_table(&self, case: &Case) -> Table {
        let mut table = Table::new(&[
            "",
            "messages/s",
            "CPU us",
            "final reply p50",
            "p99",
            "fdatasync p50",
            "p99",
            "p99 to p99",
        ]);
        self.fill(&mut table, case, |f| {
            let more = |name| f.more(name).unwrap_or(f64::NAN);
            vec![
                number(f.rate.round()),
                number(f.cpu_us()),
                seconds(more("ack_p50")),
                seconds(more("ack_p99")),
                seconds(more("sync_p50")),
                seconds(more("sync_p99")),
                number(more("ack_p99") / more("sync_p99")),
            ]
        });
        table
    }

    fn idle_table(&self, case: &Case) -> Table {
        let mut table = Table::new(&["", "connections", "octets each", "CPU ms/s"]);
        self.fill(&mut table, case, |f| {
            let more = |name| number(f.more(name).unwrap_or(f64::NAN));
            vec![more("connections"), more("bytes_each"), more("cpu_ms_per_second")]
        });
        table
    }

    /// A row for each peer that took part or says why it did not.
    fn fill(&self, table: &mut Table, case: &Case, cells: impl Fn(&Figures) -> Vec<String>) {
        let columns = table.header.len();
        for &peer in &self.peers {
            let mut row = match (self.of(case.id, peer), self.left_out.get(&(case.id, peer))) {
                (Some(figures), _) => cells(figures),
                (None, Some(_)) => vec!["-".to_owned(); columns - 1],
                (None, None) => continue,
            };
            let why = self.left_out.get(&(case.id, peer));
            let name = why.map_or(peer.name().to_owned(), |why| format!("{} ({why})", peer.name()));
            row.insert(0, name);
            table.rows.push(row);
        }
    }

    fn goal_table(&self) -> Table {
        let mut table = Table::new(&["goal", "at most", "measured", ""]);
        for goal in self.goals() {
            let show = |value: f64| format!("{} {}", number(value), goal.unit);
            table.rows.push(vec![
                goal.what.to_owned(),
                show(goal.most),
                goal.measured.map_or_else(|| "-".to_owned(), show),
                goal.verdict().to_owned(),
            ]);
        }
        table
    }

    pub(crate) fn json(&self) -> Value {
        let figures = |f: &Figures| {
            let more: serde_json::Map<_, _> =
                f.more.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            json!({
                "messages_per_second": f.rate,
                "cpu_us_per_message": f.cpu_us(),
                "user_us_per_message": f.user_us,
                "system_us_per_message": f.system_us,
                "p50_seconds": f.p50, "p99_seconds": f.p99, "p999_seconds": f.p999,
                "loader_cpu_share": f.loader,
                "messages": f.messages, "seconds": f.seconds, "more": more,
            })
        };
        let results: Vec<Value> = self
            .rounds
            .iter()
            .map(|((case, peer), rounds)| {
                json!({
                    "case": case, "peer": peer.name(),
                    "median": self.of(case, *peer).map(figures),
                    "rounds": rounds.iter().map(figures).collect::<Vec<_>>(),
                })
            })
            .collect();
        let goals: Vec<Value> = self
            .goals()
            .iter()
            .map(|goal| {
                json!({
                    "goal": goal.what, "unit": goal.unit, "at_most": goal.most,
                    "measured": goal.measured, "verdict": goal.verdict(),
                })
            })
            .collect();
        let pairs = |pairs: Vec<(String, String)>| pairs.into_iter().collect::<BTreeMap<_, _>>();
        let named = |(peer, why): &(Peer, String)| (peer.name().to_owned(), why.clone());
        json!({
            "schema": "mailrace.compare.v1",
            "facts": pairs(self.facts.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect()),
            "synced": pairs(
                self.peers.iter().map(|p| (p.name().to_owned(), p.synced().to_owned())).collect()
            ),
            "missing": pairs(self.missing.iter().map(named).collect()),
            "failures": self.failures,
            "cases": self.cases.iter().map(|case| json!({
                "id": case.id, "title": case.title, "connections": case.connections,
                "in_flight": case.depth, "octets": case.size,
                "echo_pattern": case.pattern().map(|pattern| pattern.to_string()),
            })).collect::<Vec<_>>(),
            "results": results,
            "goals": goals,
        })
    }
}
