//! `mailrace log`: reads the data directory, safe beside a running server.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::EXIT_FAILED;
use crate::log::{Log, RecordId, RecordView, SegmentFacts, WalkEnd};

/// Corruption was found.
const EXIT_CORRUPT: u8 = 3;

#[derive(Args, Debug)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
    /// Data directory
    #[arg(long, global = true, default_value = "./mailrace-data")]
    dir: PathBuf,
    /// One JSON object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Print the mail data of one record, byte by byte as it was sent
    Get {
        /// Record id of the 250 reply
        id: RecordId,
        /// Print the envelope instead
        #[arg(long)]
        envelope: bool,
    },
    /// A line for each segment
    Ls,
    /// A line for each record
    Cat,
    /// Check every checksum; exit code 3 where one fails
    Verify,
}

pub(super) fn run(args: &LogArgs) -> ExitCode {
    match answer(args) {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mailrace: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn answer(args: &LogArgs) -> io::Result<ExitCode> {
    let log = Log::open(&args.dir)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut code = ExitCode::SUCCESS;
    match &args.command {
        LogCommand::Get { id, envelope: true } => {
            log.get(*id, |_, record| line(&mut out, id, record, true))?;
        }
        LogCommand::Get { id, envelope: false } => {
            log.get(*id, |log, record| {
                log.mail_data(id.shard, record, |chunk| out.write_all(chunk))
            })?;
        }
        LogCommand::Ls => {
            for segment in segments(&log)? {
                list(&mut out, &segment, args.json)?;
            }
        }
        LogCommand::Cat => {
            for segment in segments(&log)? {
                log.walk_segment(&segment, None, 0, &mut |offset, record| {
                    let id = RecordId {
                        node: log.node(),
                        shard: segment.shard,
                        offset: crate::log::Offset::new(offset),
                    };
                    line(&mut out, &id, record, args.json)?;
                    Ok(true)
                })?;
            }
        }
        LogCommand::Verify => {
            let mut records = 0_u64;
            for segment in segments(&log)? {
                let end = log.walk_segment(&segment, None, 0, &mut |_, record| {
                    records += 1;
                    log.mail_data(segment.shard, record, |_| Ok(()))?;
                    Ok(true)
                })?;
                if let WalkEnd::Corrupt { offset, position } = end {
                    code = ExitCode::from(EXIT_CORRUPT);
                    let (shard, number) = (segment.shard, segment.number);
                    writeln!(
                        out,
                        "corrupt: {shard}:{offset} segment {number} position {position}"
                    )?;
                }
            }
            writeln!(out, "{records} records verified")?;
        }
    }
    out.flush()?;
    Ok(code)
}

fn segments(log: &Log) -> io::Result<Vec<SegmentFacts>> {
    let mut all = Vec::new();
    for shard in log.shards()? {
        all.extend(log.segments(shard)?);
    }
    Ok(all)
}

fn list(out: &mut impl Write, segment: &SegmentFacts, json: bool) -> io::Result<()> {
    let records = segment.seal.map(|seal| seal.end_offset - seal.first_offset);
    if json {
        let line = serde_json::json!({
            "shard": segment.shard,
            "segment": segment.number,
            "base_offset": segment.base_offset,
            "records": records,
            "bytes": segment.bytes,
            "state": segment.state(),
        });
        return writeln!(out, "{line}");
    }
    let records = records.map_or_else(|| "-".to_owned(), |records| records.to_string());
    writeln!(
        out,
        "{:>5} {:>12} {:>10} {:>12} {}",
        segment.shard,
        segment.base_offset,
        records,
        segment.bytes,
        segment.state()
    )
}

/// One line for a record. What a client chose is escaped: one line a record, no control octets.
fn line(out: &mut impl Write, id: &RecordId, record: RecordView<'_>, json: bool) -> io::Result<()> {
    if json {
        let line = serde_json::json!({
            "id": id.to_string(),
            "received_at": record.received_at(),
            "listener": record.listener(),
            "mail_from": record.mail_from(),
            "rcpt_to": record.forward_paths().collect::<Vec<_>>(),
            "helo": record.helo(),
            "client": record.client().to_string(),
            "size": record.bytes(),
        });
        return writeln!(out, "{line}");
    }
    let first = record.forward_paths().next().unwrap_or_default();
    writeln!(
        out,
        "{} {}:{} {} {} -> {}",
        record.received_at(),
        id.shard,
        id.offset,
        record.bytes(),
        record.mail_from().escape_debug(),
        first.escape_debug(),
    )
}
