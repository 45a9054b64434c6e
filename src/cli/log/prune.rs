//! `mailrace log prune` and `mailrace log offsets`

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use super::{select::ShardArgs, text::human_size};
use crate::{
    config::plural,
    consumer::{Group, lowest_needed},
    log::{Bound, DirLock, Kept, KeptFor, Log, Needs, Range, Retention, read_in_progress},
};

#[derive(Args, Debug)]
pub(super) struct PruneArgs {
    #[command(flatten)]
    shards: ShardArgs,
    /// Delete sealed segments whose records all come before this: an offset, @TIME, -N, end
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    before: Range,
    /// Print what would be deleted without deleting anything
    #[arg(long)]
    dry_run: bool,
    /// Also delete segments younger than an hour, for example when the disk is full. They are kept
    /// because a running server may still be receiving mail into them, so with --force the server
    /// must report where that mail begins. Mail that a group has not exported is never deleted
    #[arg(long)]
    force: bool,
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
    /// First segment that mail being received may have mail data in.
    segments_from: u64,
}

impl Needs for Files<'_> {
    fn offset(&self, shard: u16) -> io::Result<Option<u64>> {
        Ok(lowest_needed(self.log.dir(), shard)?)
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
    // No server: nothing is in progress. It is kept from starting meanwhile.
    let stopped = DirLock::take(log.dir());
    let running = match &stopped {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
    };
    for shard in args.shards.of(log)? {
        let before = log.resolve(shard, bound)?;
        let segments_from = match (running, args.force) {
            (false, _) => u64::MAX,
            (true, false) => first_recent(log, shard)?,
            (true, true) => match read_in_progress(log.dir(), shard)? {
                Some(from) => from,
                None => {
                    let what = "the running server does not report which segments hold mail that \
                                is being received: stop it, or omit --force";
                    return Err(io::Error::other(what));
                }
            },
        };
        let pass = retention.prune(shard, before, &Files { log, segments_from }, args.dry_run)?;
        let segments: u64 = pass.deleted.values().sum();
        let kept = reasons(log, shard, before, &pass.kept)?;
        if json {
            let kept: Vec<_> = kept
                .iter()
                .map(|(segment, base, end, why)| {
                    serde_json::json!({
                        "segment": segment, "base_offset": base, "end_offset": end, "why": why,
                    })
                })
                .collect();
            let line = serde_json::json!({
                "shard": shard,
                "before": before,
                "segments": segments,
                "bytes": pass.bytes,
                "needed": pass.needed,
                "kept": kept,
                "dry_run": args.dry_run,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let verb = if args.dry_run { "would be deleted" } else { "deleted" };
        let (deleted, bytes) = (plural(segments, "segment"), human_size(pass.bytes));
        writeln!(out, "shard {shard}: {deleted}, {bytes}, {verb}")?;
        for (segment, base, end, why) in kept {
            writeln!(out, "  segment {segment}, records {base}..{end}: kept, {why}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Number, first offset, end offset of each segment that a prune meant and that stays, and why.
fn reasons(
    log: &Log,
    shard: u16,
    before: u64,
    kept: &[Kept],
) -> io::Result<Vec<(u64, u64, u64, String)>> {
    let mut reasons = Vec::new();
    let needs = Group::needs(log.dir(), shard)?;
    for &Kept { number, first_offset, end_offset, why, .. } in kept {
        let why = match why {
            KeptFor::Needed => {
                let needs = needs.iter().filter(|need| need.offset < end_offset);
                let needs: Vec<_> = needs
                    .map(|need| match need.dead {
                        false => format!("group {} is at {}", need.group, need.offset),
                        true => {
                            format!("group {} has a dead letter at {}", need.group, need.offset)
                        }
                    })
                    .collect();
                format!("not consumed: {}", needs.join(", "))
            }
            KeptFor::InProgress => {
                "younger than an hour: it may hold mail that is being received (see --force)"
                    .to_owned()
            }
            KeptFor::Reached(by) => format!("it holds mail data of a record in segment {by}"),
            KeptFor::After(first) => format!("it comes after segment {first}, which is kept"),
        };
        reasons.push((number, first_offset, end_offset, why));
    }
    for segment in log.segments(shard)?.iter().filter(|segment| segment.seal.is_none()) {
        let end = log.end_of(segment)?;
        if segment.base_offset < before {
            let why = "in use: the server is writing to it, or was when it crashed".to_owned();
            reasons.push((segment.number, segment.base_offset, end, why));
        }
    }
    Ok(reasons)
}

/// The first segment that a message in progress may have mail data in.
fn first_recent(log: &Log, shard: u16) -> io::Result<u64> {
    let since = crate::log::unix_micros() - IN_PROGRESS.as_micros() as i64;
    for segment in log.segments(shard)? {
        // What cannot be read is nobody's mail in progress.
        let written = match log.last_written(&segment) {
            Err(_) if segment.seal.is_some() => continue,
            written => written?,
        };
        if written.is_none_or(|at| at >= since) {
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
            let what = "a single offset or time is needed, such as 725, @-1h or end";
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    }
}
