//! `mailrace status`

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use clap::Args;
use serde_json::Value;

use super::{
    AdminArgs, EXIT_FAILED,
    figures::{age, bytes},
    table::{Side, Table, Tone, paint, shows_colours},
};
use crate::{admin, config::plural};

/// Counting a long log takes a moment.
const WAIT: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running server how it is.
pub(super) fn run(args: &StatusArgs) -> ExitCode {
    let (address, token) = match args.admin.find() {
        Ok(place) => place,
        Err(code) => return code,
    };
    let answer = match admin::get(address, token.as_deref(), "/v1/status", WAIT) {
        Ok(answer) => answer,
        Err(error) => {
            crate::cli::complain!("mailrace: {}", error.to_string().trim_end());
            return ExitCode::from(EXIT_FAILED);
        }
    };
    if args.json {
        return super::print(&answer);
    }
    match serde_json::from_str(&answer) {
        Ok(status) => super::print(&text(&status, shows_colours())),
        Err(error) => {
            crate::cli::complain!(
                "mailrace: the answer from http://{address} is not a status: {error}"
            );
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The items of a list in an answer; none where it is no list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The page for people.
fn text(status: &Value, colours: bool) -> String {
    let mut out = String::new();
    let ready = status["ready"] == true;
    let state = match ready {
        true => paint("ready", Tone::Good, colours),
        false => paint("not ready", Tone::Bad, colours),
    };
    let up = age(number(&status["uptime_seconds"]));
    let (version, revision) = (word(&status["version"]), word(&status["revision"]));
    // Writing to a string cannot fail.
    let _ = writeln!(out, "mailrace {version} ({revision})   up {up}   {state}");
    let disk = &status["disk"];
    let _ = match disk["state"].as_str() {
        None => writeln!(out, "disk      unknown"),
        Some(word) => {
            let tone = match word {
                "ok" => Tone::Good,
                "low" => Tone::Fair,
                _ => Tone::Bad,
            };
            let [free, size] = ["free_bytes", "size_bytes"].map(|key| bytes(number(&disk[key])));
            writeln!(out, "disk      {}, {free} of {size} free", paint(word, tone, colours))
        }
    };
    let _ = writeln!(out, "sessions  {} open", number(&status["sessions"]));
    let _ = writeln!(out, "\n{}", shards(list(&status["by_shard"])).text(colours).trim_end());
    let groups = list(&status["groups"]);
    if groups.is_empty() {
        let _ = writeln!(out, "\nno exporter and no consumer group");
    } else {
        let _ = writeln!(out, "\n{}", table_of_groups(groups).text(colours).trim_end());
    }
    let warnings = warnings(status);
    if !warnings.is_empty() {
        let _ = writeln!(out, "\n{}:", plural(warnings.len() as u64, "warning"));
        for warning in warnings {
            let _ = writeln!(out, "  {warning}");
        }
    }
    out
}

fn shards(shards: &[Value]) -> Table {
    let mut table = Table::new(&[
        ("SHARD", Side::Right),
        ("STATE", Side::Left),
        ("START", Side::Right),
        ("END", Side::Right),
        ("SESSIONS", Side::Right),
    ]);
    for shard in shards {
        let state = word(&shard["state"]);
        let tone = match state {
            "serving" => Tone::Good,
            "failed" => Tone::Bad,
            _ => Tone::Fair,
        };
        let count = |key: &str| (number(&shard[key]).to_string(), Tone::Plain);
        table.row([
            count("shard"),
            (state.to_owned(), tone),
            count("start"),
            count("high_water_mark"),
            count("sessions"),
        ]);
    }
    table
}

fn table_of_groups(groups: &[Value]) -> Table {
    let mut table = Table::new(&[
        ("GROUP", Side::Left),
        ("KIND", Side::Left),
        ("STATE", Side::Left),
        ("LAG", Side::Right),
        ("OLDEST-PENDING", Side::Left),
        ("DEAD", Side::Right),
    ]);
    for group in groups {
        let kind = if group["exporter"] == true { "exporter" } else { "consumer" };
        let (state, tone) = match group["up"].as_bool() {
            Some(true) => ("up", Tone::Good),
            Some(false) => ("down", Tone::Bad),
            None => ("-", Tone::Plain),
        };
        let dead = number(&group["dead"]);
        table.row([
            (word(&group["group"]).to_owned(), Tone::Plain),
            (kind.to_owned(), Tone::Plain),
            (state.to_owned(), tone),
            (number(&group["lag"]).to_string(), Tone::Plain),
            (word(&group["oldest_pending"]).to_owned(), Tone::Plain),
            (dead.to_string(), Tone::Plain),
        ]);
    }
    table
}

/// What an operator should know, a line each.
fn warnings(status: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if status["not_durable"] == true {
        warnings.push("log.sync = \"none\": a crash loses acknowledged mail".to_owned());
    }
    for key in ["obstacles", "degraded"] {
        warnings.extend(list(&status[key]).iter().map(|line| word(line).to_owned()));
    }
    for (key, noun) in [("errors_logged", "error"), ("warnings_logged", "warning")] {
        let count = number(&status[key]);
        if count > 0 {
            warnings.push(format!("{} in the server's log since its start", plural(count, noun)));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_for_people() {
        let status = json!({
            "version": "1.2.3", "revision": "abc", "uptime_seconds": 93_600, "ready": false,
            "obstacles": ["draining"], "degraded": [], "not_durable": false,
            "warnings_logged": 1, "errors_logged": 2, "sessions": 3,
            "disk": {"state": "low", "free_bytes": 1536, "size_bytes": 4_u64 << 30, "reason": ""},
            "by_shard": [
                {"shard": 0, "state": "serving", "start": 5, "high_water_mark": 1725, "sessions": 3},
                {"shard": 1, "state": "left", "start": 0, "high_water_mark": 0, "sessions": 0},
            ],
            "groups": [
                {"group": "main", "exporter": true, "up": false, "lag": 12,
                 "oldest_pending": "2026-11-27T10:00:00Z", "dead": 1},
                {"group": "mine", "exporter": false, "up": null, "lag": 0,
                 "oldest_pending": null, "dead": 0},
            ],
        });
        let wanted = "\
mailrace 1.2.3 (abc)   up 1d 2h   not ready
disk      low, 1.5 KiB of 4.0 GiB free
sessions  3 open

SHARD  STATE    START   END  SESSIONS
    0  serving      5  1725         3
    1  left         0     0         0

GROUP  KIND      STATE  LAG  OLDEST-PENDING        DEAD
main   exporter  down    12  2026-11-27T10:00:00Z     1
mine   consumer  -        0  -                        0

3 warnings:
  draining
  2 errors in the server's log since its start
  1 warning in the server's log since its start
";
        assert_eq!(text(&status, false), wanted);
        let painted = text(&status, true);
        for word in ["31mnot ready", "33mlow", "32mserving", "33mleft", "31mdown"] {
            assert!(painted.contains(&format!("\x1b[{word}\x1b[0m")), "{word}: {painted:?}");
        }
        assert_eq!(painted.matches("\x1b[0m").count(), 5, "states alone");
    }
}
