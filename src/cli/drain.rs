//! `mailrace drain`

use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;

use super::{AdminArgs, EXIT_FAILED, status::list};
use crate::{
    admin::{self, ClientError},
    config::{format_duration, parse_duration, plural},
};

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Progress is shown at most this often.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// For one answer.
const WAIT: Duration = Duration::from_secs(20);

/// A server that does not answer for so long is gone.
const GONE: Duration = Duration::from_secs(3);

/// For `drain --help`.
pub(super) const NOTES: &str = "\
With --until-exported the server stays: SMTP is closed, /readyz is 503, and its exporters continue
until they, and every consumer group that retention waits for (log.retention.require_consumed), have
passed the end of the log. SIGTERM, or a further `mailrace drain`, stops it. Ending this command
does not end the drain. Dead letters count as passed; they are named.

Exit codes: 0 drained, with --until-exported only if all is exported; 1 failed, or --timeout is over";

#[derive(Args, Debug)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Keep the server running without SMTP, and wait until all is exported
    #[arg(long)]
    until_exported: bool,
    /// Stop waiting after this time, for example 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "until_exported")]
    timeout: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running server to drain, and prints when its ports close.
pub(super) fn run(args: &DrainArgs) -> ExitCode {
    let (address, token) = match args.admin.find() {
        Ok(place) => place,
        Err(code) => return code,
    };
    let path = if args.until_exported { "/v1/drain?stay=1" } else { "/v1/drain" };
    match admin::post(address, token.as_deref(), path) {
        Ok(_) if args.until_exported => wait(args, address, token.as_deref()),
        Ok(answer) if args.json => super::print(&answer),
        Ok(answer) => {
            let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
            let lead = answer["lead_seconds"].as_f64().filter(|lead| *lead > 0.0);
            let when = match lead {
                // Whole milliseconds: the server has counted some down already.
                Some(lead) => {
                    let lead = Duration::from_millis((lead * 1000.0).round() as u64);
                    format!("in {}", format_duration(lead))
                }
                None => "now".to_owned(),
            };
            super::print(&format!(
                "draining: the ports close {when}, open sessions finish, then the server stops\n"
            ))
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &ClientError) -> ExitCode {
    for line in error.to_string().lines() {
        crate::cli::complain!("mailrace: {line}");
    }
    ExitCode::from(EXIT_FAILED)
}

/// Waits until all is exported, and shows what is left meanwhile.
fn wait(args: &DrainArgs, address: SocketAddr, token: Option<&str>) -> ExitCode {
    let began = Instant::now();
    let mut shown = Shown::new(args.json);
    let mut last = Value::Null;
    let mut answered = Instant::now();
    loop {
        match admin::get(address, token, "/v1/drain", WAIT) {
            Ok(answer) => {
                last = serde_json::from_str(&answer).unwrap_or_default();
                answered = Instant::now();
                shown.show(&last);
            }
            Err(ClientError::Unreachable(..)) if answered.elapsed() < GONE => {}
            Err(error) => {
                shown.clear();
                crate::cli::complain!("mailrace: the server is gone before all was exported");
                name_rest(&last);
                return failed(&error);
            }
        }
        if last["exported"] == true {
            shown.clear();
            return exported(&last, args.json);
        }
        if let Some(timeout) = args.timeout.filter(|timeout| began.elapsed() >= *timeout) {
            shown.clear();
            return too_late(&last, timeout, args.json);
        }
        let left = args.timeout.map_or(ASK_EVERY, |most| most.saturating_sub(began.elapsed()));
        thread::sleep(left.min(ASK_EVERY));
    }
}

fn exported(last: &Value, json: bool) -> ExitCode {
    name_dead(last);
    if json {
        return super::print(&format!("{last}\n"));
    }
    let what = match list(&last["waits_for"]).len() {
        0 => "there is no exporter and no consumer group to wait for",
        _ => "every record is exported",
    };
    super::print(&format!("drained: {what}; the server stays until SIGTERM or `mailrace drain`\n"))
}

fn too_late(last: &Value, timeout: Duration, json: bool) -> ExitCode {
    let timeout = format_duration(timeout);
    crate::cli::complain!("mailrace: not exported after {timeout}: {}", summary(last));
    name_rest(last);
    name_dead(last);
    if json {
        super::print(&format!("{last}\n"));
    }
    ExitCode::from(EXIT_FAILED)
}

/// A line for each group and shard that is not at the end.
fn name_rest(last: &Value) {
    for place in list(&last["left"]) {
        let (group, shard) = (place["group"].as_str().unwrap_or("-"), &place["shard"]);
        let (committed, end) = (&place["committed"], &place["end"]);
        let left = plural(place["left"].as_u64().unwrap_or(0), "record");
        crate::cli::complain!("  {group}, shard {shard}: {left} left, {committed} of {end}");
    }
}

fn name_dead(last: &Value) {
    for of in list(&last["dead_letters"]) {
        let group = of["group"].as_str().unwrap_or("-");
        let dead = plural(of["dead"].as_u64().unwrap_or(0), "dead letter");
        crate::cli::complain!("mailrace: {group} has {dead}: `mailrace group dead ls {group}`");
    }
}

/// What it waits for, in a line.
fn summary(last: &Value) -> String {
    let sessions = last["sessions"].as_u64().unwrap_or(0);
    let left = last["records_left"].as_u64().unwrap_or(0);
    let mut groups: Vec<(&str, u64)> = Vec::new();
    for place in list(&last["left"]) {
        let of = place["group"].as_str().unwrap_or("-");
        let more = place["left"].as_u64().unwrap_or(0);
        match groups.iter_mut().find(|(name, _)| *name == of) {
            Some((_, sum)) => *sum += more,
            None => groups.push((of, more)),
        }
    }
    let ports = match last["phase"].as_str() {
        Some("lead" | "serving") => "the ports are still open, ",
        _ => "",
    };
    let open = match sessions {
        0 if last["phase"] == "sessions" => "the log is being closed, ".to_owned(),
        0 => String::new(),
        open => format!("{} open, ", plural(open, "session")),
    };
    let each: Vec<_> = groups.iter().map(|(group, left)| format!("{group} {left}")).collect();
    let each = if each.is_empty() { String::new() } else { format!(" ({})", each.join(", ")) };
    format!("{ports}{open}{} left{each}", plural(left, "record"))
}

/// What was shown: on a terminal a line that changes, elsewhere a line for each change.
struct Shown {
    quiet: bool,
    terminal: bool,
    last: Option<(String, Instant)>,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        Self { quiet, terminal: io::stderr().is_terminal(), last: None }
    }

    fn show(&mut self, progress: &Value) {
        let line = summary(progress);
        let wait = |(shown, at): &(String, Instant)| *shown == line || at.elapsed() < SHOW_EVERY;
        if self.quiet || progress["exported"] == true || self.last.as_ref().is_some_and(wait) {
            return;
        }
        match self.terminal {
            // Over the line before, whatever its length.
            true => crate::cli::complain_on!("\r\x1b[Kdraining: {line}"),
            false => crate::cli::complain!("draining: {line}"),
        }
        self.last = Some((line, Instant::now()));
    }

    /// Makes room for what is said last.
    fn clear(&self) {
        if self.terminal && self.last.is_some() {
            crate::cli::complain_on!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_says_what_is_left() {
        let place = |group: &str, left: u64| json!({"group": group, "shard": 0, "left": left});
        let all = json!({
            "phase": "lead", "sessions": 1, "records_left": 8,
            "left": [place("a", 5), place("b", 1), place("a", 2)],
        });
        let line = "the ports are still open, 1 session open, 8 records left (a 7, b 1)";
        assert_eq!(summary(&all), line);
        let none = json!({"phase": "sessions", "sessions": 0, "records_left": 0});
        assert_eq!(summary(&none), "the log is being closed, 0 records left");
        let one = json!({"phase": "closed", "records_left": 1, "left": [place("a", 1)]});
        assert_eq!(summary(&one), "1 record left (a 1)");
        assert_eq!(
            summary(&json!({"phase": "sessions", "sessions": 2})),
            "2 sessions open, 0 records left"
        );
    }
}
