//! `mailrace log prune` and `mailrace log offsets`

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use super::{select::ShardArgs, text::human_size};
use crate::{
    consumer::lowest_needed,
    log::{Bound, Log, Needs, Range, Retention},
};

#[derive(Args, Debug)]
pub(super) struct PruneArgs {
    #[command(flatten)]
    shards: ShardArgs,
    /// Delete sealed segments whose records all lie before this: an offset, @TIME, -N, end
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    before: Range,
    /// Say what would go, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct OffsetsArgs {
    #[command(flatten)]
    shards: ShardArgs,
    /// A time: @2026-11-22, @-1h; or any other bound of a RANGE
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    at: Range,
}

struct Files<'a> {
    log: &'a Log,
    /// Nothing is known of a server's messages in progress: what is recent stays.
    segments_from: u64,
}

impl Needs for Files<'_> {
    fn offset(&self, shard: u16) -> io::Result<Option<u64>> {
        lowest_needed(self.log.dir(), shard)
    }

    fn segments_from(&self, _: u16) -> u64 {
        self.segments_from
    }
}

/// A message is in progress for no longer than this: `limits.timeout.data` at its default, doubled.
const IN_PROGRESS: Duration = Duration::from_secs(3_600);

pub(super) fn prune(
    log: &Log,
    args: &PruneArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let bound = one_bound(args.before)?;
    let mut retention = Retention::new(log)?;
    for shard in args.shards.of(log)? {
        let before = log.resolve(shard, bound)?;
        let needs = Files { log, segments_from: first_recent(log, shard)? };
        let pass = retention.prune(shard, before, &needs, args.dry_run)?;
        let segments: u64 = pass.deleted.values().sum();
        if json {
            let line = serde_json::json!({
                "shard": shard,
                "before": before,
                "segments": segments,
                "bytes": pass.bytes,
                "needed": pass.needed,
                "dry_run": args.dry_run,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let verb = if args.dry_run { "would be deleted" } else { "deleted" };
        let bytes = human_size(pass.bytes);
        write!(out, "shard {shard}: {segments} segments, {bytes}, {verb}")?;
        match pass.needed {
            0 => writeln!(out)?,
            needed => writeln!(
                out,
                "; {needed} more kept: a group, a dead letter or a later record needs them, or \
                 they are younger than an hour"
            )?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The first segment that a message in progress may have mail data in.
fn first_recent(log: &Log, shard: u16) -> io::Result<u64> {
    let since = crate::log::unix_micros() - IN_PROGRESS.as_micros() as i64;
    for segment in log.segments(shard)? {
        if log.last_written(&segment)?.is_none_or(|at| at >= since) {
            return Ok(segment.number);
        }
    }
    Ok(u64::MAX)
}

pub(super) fn offsets(
    log: &Log,
    args: &OffsetsArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let bound = one_bound(args.at)?;
    if !json {
        writeln!(out, "SHARD       OFFSET")?;
    }
    for shard in args.shards.of(log)? {
        let offset = log.resolve(shard, bound)?;
        match json {
            true => writeln!(out, "{}", serde_json::json!({ "shard": shard, "offset": offset }))?,
            false => writeln!(out, "{shard:>5} {offset:>12}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn one_bound(range: Range) -> io::Result<Bound> {
    match range.to {
        None => Ok(range.from),
        Some(_) => {
            let what = "one side of a range is meant here, such as 725, @-1h or end";
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    }
}
