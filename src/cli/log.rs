//! `mailrace log`: reads the data directory, safe beside a running server.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};

use super::EXIT_FAILED;
use crate::log::{
    Bound, Log, Offset, Range, RecordId, RecordView, SegmentFacts, WalkEnd, format_time,
};

/// Corruption was found.
const EXIT_CORRUPT: u8 = 3;

/// How often `tail -f` looks for new records.
const FOLLOW: Duration = Duration::from_millis(100);

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
    Cat(Selection),
    /// The last records; with -f also those to come
    Tail {
        /// Go on as records arrive
        #[arg(short, long)]
        follow: bool,
        /// How many to begin with
        #[arg(short = 'n', default_value_t = 10)]
        count: u64,
    },
    /// Records and octets of each shard
    Stats,
    /// Check every checksum; exit code 3 where one fails
    Verify,
}

#[derive(Args, Debug)]
struct Selection {
    /// start, end, N, N:M, +N, -N, :M, @TIME, @-1h, @T1:T2
    #[arg(short = 'o', long = "range", default_value = "start", allow_hyphen_values = true)]
    range: Range,
    /// At most so many records
    #[arg(short = 'n')]
    count: Option<u64>,
    /// Only these shards
    #[arg(long, value_delimiter = ',')]
    shard: Vec<u16>,
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
        LogCommand::Cat(selection) => {
            let mut left = selection.count.unwrap_or(u64::MAX);
            for shard in log.shards()? {
                if selection.shard.is_empty() || selection.shard.contains(&shard) {
                    let ends = ends(&log, shard)?;
                    let from = resolve(&log, shard, selection.range.from, ends)?;
                    let to = match selection.range.to {
                        Some(to) => resolve(&log, shard, to, ends)?,
                        None => u64::MAX,
                    };
                    print(&log, shard, from, to, &mut left, &mut out, args.json)?;
                }
            }
        }
        LogCommand::Tail { follow, count } => {
            let mut next = Vec::new();
            for shard in log.shards()? {
                let (start, end) = ends(&log, shard)?;
                next.push((shard, end.saturating_sub(*count).max(start)));
            }
            loop {
                for (shard, from) in &mut next {
                    let mut left = u64::MAX;
                    *from = print(&log, *shard, *from, u64::MAX, &mut left, &mut out, args.json)?;
                }
                out.flush()?;
                if !follow {
                    break;
                }
                std::thread::sleep(FOLLOW);
            }
        }
        LogCommand::Stats => {
            for shard in log.shards()? {
                let segments = log.segments(shard)?;
                let (start, end) = ends(&log, shard)?;
                let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
                let count = segments.len();
                if args.json {
                    let line = serde_json::json!({
                        "shard": shard, "segments": count, "bytes": bytes,
                        "log_start_offset": start, "log_end_offset": end,
                    });
                    writeln!(out, "{line}")?;
                } else {
                    writeln!(
                        out,
                        "shard {shard}: offsets {start}..{end}, {count} segments, {bytes} octets"
                    )?;
                }
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

/// Log start offset and log end offset of a shard.
fn ends(log: &Log, shard: u16) -> io::Result<(u64, u64)> {
    let segments = log.segments(shard)?;
    let start = segments.first().map_or(0, |segment| segment.base_offset);
    let mut end = start;
    if let Some(last) = segments.last() {
        end = last.base_offset;
        log.walk_segment(last, None, 0, &mut |offset, _| {
            end = offset + 1;
            Ok(true)
        })?;
    }
    Ok((start, end))
}

/// The offset a bound means in one shard's log.
fn resolve(log: &Log, shard: u16, bound: Bound, (start, end): (u64, u64)) -> io::Result<u64> {
    let time = match bound {
        Bound::At(offset) => return Ok(offset),
        Bound::AfterStart(count) => return Ok(start.saturating_add(count)),
        Bound::BeforeEnd(count) => return Ok(end.saturating_sub(count).max(start)),
        Bound::Time(time) => time,
        Bound::Ago(ago) => now().saturating_sub(ago),
    };
    let mut found = None;
    for segment in log.segments(shard)? {
        log.walk_segment(&segment, None, 0, &mut |offset, record| {
            if record.received_at() >= time {
                found = Some(offset);
            }
            Ok(found.is_none())
        })?;
        if found.is_some() {
            break;
        }
    }
    Ok(found.unwrap_or(end))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Prints the records `from..to` of a shard; returns the offset behind the last.
fn print(
    log: &Log,
    shard: u16,
    from: u64,
    to: u64,
    left: &mut u64,
    out: &mut impl Write,
    json: bool,
) -> io::Result<u64> {
    let segments = log.segments(shard)?;
    let first = segments.partition_point(|segment| segment.base_offset <= from).saturating_sub(1);
    let mut next = from;
    for segment in segments.get(first..).unwrap_or_default() {
        let end = log.walk_segment(segment, None, from, &mut |offset, record| {
            if *left == 0 || offset >= to {
                return Ok(false);
            }
            *left -= 1;
            next = offset + 1;
            let id = RecordId { node: log.node(), shard, offset: Offset::new(offset) };
            line(out, &id, record, json)?;
            Ok(true)
        })?;
        match end {
            WalkEnd::Stopped => break,
            WalkEnd::End => {}
            WalkEnd::Corrupt { offset, position } => {
                eprintln!("mailrace: corrupt: {shard}:{offset} position {position}");
            }
        }
    }
    Ok(next)
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
            "received_at": format_time(record.received_at()),
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
        format_time(record.received_at()),
        id.shard,
        id.offset,
        record.bytes(),
        record.mail_from().escape_debug(),
        first.escape_debug(),
    )
}
