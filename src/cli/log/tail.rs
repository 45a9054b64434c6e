//! `mailrace log tail`: the last records of all shards in order of time, then new ones as they
//! come.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use super::{
    EXIT_FAILED,
    format::{Format, Named},
    select::{Filter, Selection, Span},
};
use crate::log::{Follower, Log};

/// How often `-f` looks for new records: an idle look costs a read of 64 KiB a shard.
const FOLLOW: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub(super) struct TailArgs {
    /// Keep printing records as they arrive
    #[arg(short, long)]
    follow: bool,
    /// Number of records to start with [default: 10, or all of the range]
    #[arg(short = 'n', long = "count", value_name = "COUNT")]
    count: Option<usize>,
    #[command(flatten)]
    selection: Selection,
    /// How a record is printed
    #[arg(long, value_enum)]
    format: Option<Named>,
}

/// A record that was printed into memory, with what orders it.
type Line = ((i64, u16, u64), Vec<u8>);

pub(super) fn run(
    log: &Log,
    args: &TailArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let format = Format::new(args.format, None, json);
    let filter = &args.selection.filter;
    let count = args.count.unwrap_or(if args.selection.range.is_some() { usize::MAX } else { 10 });
    let mut followers = Vec::new();
    for Span { shard, from, to } in args.selection.spans(log)? {
        // The last of a range are found by walking it; without one, from the end.
        let ranged = args.selection.range.is_some();
        let begin = if ranged { from } else { begin(log, shard, filter, count as u64)? };
        followers.push((Follower::new(log, shard, begin)?, to));
    }
    let mut lines: Vec<Line> = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for (follower, to) in &mut followers {
        let own = lines.len();
        let shard = follower.shard();
        let damage = follower.poll(&mut |offset, record| {
            if offset < *to && filter.matches(record) {
                let mut line = Vec::new();
                format.print(log, shard, offset, record, &mut line)?;
                lines.push(((record.received_at(), shard, offset), line));
                // Twice as many as wanted are held, then the older half goes at once.
                if count < usize::MAX / 2 && lines.len() - own > 2 * count + 64 {
                    lines.drain(own..lines.len() - count);
                }
            }
            Ok(())
        })?;
        if !damage.is_empty() {
            code = ExitCode::from(EXIT_FAILED);
        }
        tell(shard, &damage);
    }
    lines.sort_by_key(|(key, _)| *key);
    for (_, line) in lines.get(lines.len().saturating_sub(count)..).unwrap_or_default() {
        out.write_all(line)?;
    }
    out.flush()?;
    if !args.follow {
        return Ok(code);
    }
    loop {
        std::thread::sleep(FOLLOW);
        for (follower, to) in &mut followers {
            let shard = follower.shard();
            let damage = follower.poll(&mut |offset, record| {
                if offset < *to && filter.matches(record) {
                    format.print(log, shard, offset, record, out)?;
                }
                Ok(())
            })?;
            tell(shard, &damage);
        }
        out.flush()?;
    }
}

fn tell(shard: u16, damage: &[crate::log::Damage]) {
    for at in damage {
        let (offset, segment, position) = (at.offset, at.segment, at.position);
        if at.end.is_some() {
            crate::cli::complain!("mailrace: damaged: {shard}:{offset}: {at}");
            continue;
        }
        crate::cli::complain!(
            "mailrace: damaged: {shard}:{offset} segment {segment} position {position}"
        );
    }
}

/// Where to begin so that the last `count` records of a shard that match are shown: goes back
/// segment by segment.
fn begin(log: &Log, shard: u16, filter: &Filter, count: u64) -> io::Result<u64> {
    let mut wanted = count;
    let segments = log.segments(shard)?;
    for segment in segments.iter().rev() {
        let mut held = 0;
        if filter.is_empty() {
            let end = log.end_of(segment)?;
            held = end - segment.base_offset.min(end);
            if held >= wanted {
                return Ok(end - wanted);
            }
        } else {
            log.walk_segment(segment, None, 0, &mut |_, record| {
                held += u64::from(filter.matches(record));
                Ok(true)
            })?;
            if held >= wanted {
                return Ok(segment.base_offset);
            }
        }
        wanted -= held;
    }
    Ok(segments.first().map_or(0, |segment| segment.base_offset))
}
