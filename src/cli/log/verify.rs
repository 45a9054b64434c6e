//! `mailrace log verify`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{EXIT_CORRUPT, select::ShardArgs};
use crate::{
    cli::progress::{Progress, Unit, bytes_of},
    config::plural,
    log::{Checked, Finding, Log, Severity, Witness, verify},
};

struct Printer<'a> {
    out: &'a mut dyn Write,
    json: bool,
    corrupt: bool,
    progress: Progress,
}

pub(super) fn run(
    log: &Log,
    shards: &ShardArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let shards = shards.of(log)?;
    let progress = Progress::new("verifying", Unit::Bytes, || bytes_of(log, &shards), json);
    let mut printer = Printer { out, json, corrupt: false, progress };
    let checked = verify(log, &shards, &mut printer)?;
    let Printer { out, corrupt, progress, .. } = printer;
    drop(progress);
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
        self.progress.set(checked.bytes);
        Ok(())
    }
}
