//! `mailrace log verify`

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{EXIT_CORRUPT, select::ShardArgs, text::human_size};
use crate::config::plural;
use crate::log::{Checked, Finding, Log, Severity, Witness, verify};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_millis(250);

struct Printer<'a> {
    out: &'a mut dyn Write,
    json: bool,
    corrupt: bool,
    /// When the next progress is due; `None` where stderr is no terminal.
    due: Option<Instant>,
    begun: Instant,
}

pub(super) fn run(
    log: &Log,
    shards: &ShardArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let begun = Instant::now();
    let due = io::stderr().is_terminal().then_some(begun);
    let mut printer = Printer { out, json, corrupt: false, due, begun };
    let checked = verify(log, &shards.of(log)?, &mut printer)?;
    if printer.due.is_some() {
        crate::cli::complain_on!("\r\x1b[K");
    }
    let Printer { out, corrupt, .. } = printer;
    if json {
        let line = serde_json::json!({
            "kind": "summary",
            "segments": checked.segments,
            "groups": checked.groups,
            "records": checked.records,
            "fragments": checked.fragments,
            "bytes": checked.bytes,
            "corrupt": corrupt,
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{} verified", plural(checked.records, "record"))?;
    }
    Ok(if corrupt { ExitCode::from(EXIT_CORRUPT) } else { ExitCode::SUCCESS })
}

impl Witness for Printer<'_> {
    fn found(&mut self, finding: Finding) -> io::Result<()> {
        let kind = match finding.severity {
            Severity::Corrupt => "corrupt",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        self.corrupt |= finding.severity == Severity::Corrupt;
        let Finding { shard, segment, offset, position, what, .. } = finding;
        if self.json {
            let line = serde_json::json!({
                "kind": kind, "shard": shard, "segment": segment, "offset": offset,
                "position": position, "what": what,
            });
            return writeln!(self.out, "{line}");
        }
        let position = position.map_or_else(String::new, |at| format!(" position {at}"));
        writeln!(self.out, "{kind}: {shard}:{offset} segment {segment}{position}: {what}")
    }

    fn progress(&mut self, checked: &Checked) -> io::Result<()> {
        let Some(due) = &mut self.due else { return Ok(()) };
        let now = Instant::now();
        if now >= *due {
            *due = now + PROGRESS;
            let rate = checked.bytes as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
            crate::cli::complain_on!(
                "\r\x1b[K{} records, {} checked, {}/s",
                checked.records,
                human_size(checked.bytes),
                human_size(rate as u64)
            );
        }
        Ok(())
    }
}
