//! `mailrace log ls` and `mailrace log stats`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;

use super::{
    select::{Selection, ShardArgs, Span},
    text::{human_age, human_size},
};
use crate::{
    cli::table::{Tone, paint, shows_colours},
    config::plural,
    log::{Extent, Log, SegmentFacts, unix_micros},
};

#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    /// Count only these records, by reading them: bytes of mail data and rate
    #[command(flatten)]
    selection: Selection,
}

pub(super) fn list(
    log: &Log,
    shards: &ShardArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    if !json {
        heading(out)?;
    }
    for shard in shards.of(log)? {
        for segment in log.segments(shard)? {
            line(&segment, &log.extent(&segment)?, json, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn heading(out: &mut dyn Write) -> io::Result<()> {
    let (base, age) = ("BASE", "AGE");
    writeln!(out, "SHARD SEGMENT {base:>12} {:>10} {:>9} {age:>5} STATE", "RECORDS", "BYTES")
}

fn line(
    segment: &SegmentFacts,
    extent: &Extent,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let age = extent.written.map(|(first, _)| unix_micros() - first);
    if json {
        let line = serde_json::json!({
            "shard": segment.shard,
            "segment": segment.number,
            "base_offset": segment.base_offset,
            "end_offset": extent.end_offset,
            "records": extent.records,
            "bytes": extent.bytes,
            "file_bytes": segment.bytes,
            "age_seconds": age.map(|age| age / 1_000_000),
            "state": segment.state(),
        });
        return writeln!(out, "{line}");
    }
    writeln!(
        out,
        "{:>5} {:>7} {:>12} {:>10} {:>9} {:>5} {}",
        segment.shard,
        segment.number,
        segment.base_offset,
        extent.records,
        human_size(extent.bytes),
        age.map_or_else(|| "-".to_owned(), human_age),
        state(segment),
    )
}

/// In its colour on a terminal.
fn state(segment: &SegmentFacts) -> String {
    let tone = match segment.seal {
        None => Tone::Good,
        Some(seal) if seal.damaged => Tone::Bad,
        Some(_) => Tone::Plain,
    };
    paint(segment.state(), tone, shows_colours())
}

/// Records over a span of time, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    records: u64,
    span: Option<(i64, i64)>,
}

impl Rate {
    fn add(&mut self, records: u64, span: Option<(i64, i64)>) {
        self.records += records;
        self.span = match (self.span, span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }

    /// Seconds from the first record to the last.
    fn seconds(&self) -> f64 {
        self.span.map_or(0.0, |(first, last)| (last - first) as f64 / 1e6)
    }

    /// Records per second; none where they came at one time.
    fn per_second(&self) -> Option<f64> {
        (self.seconds() > 0.0).then(|| (self.records as f64 / self.seconds() * 10.0).round() / 10.0)
    }
}

pub(super) fn stats(
    log: &Log,
    args: &StatsArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let selection = &args.selection;
    let selected = selection.range.is_some() || !selection.filter.is_empty();
    let mut total = Rate::default();
    let mut total_bytes = 0;
    for span in selection.spans(log)? {
        let shard = span.shard;
        let (mut rate, bytes) =
            if selected { walk(log, selection, span)? } else { (Rate::default(), 0) };
        let segments = log.segments(shard)?;
        let extents =
            segments.iter().map(|segment| log.extent(segment)).collect::<Result<Vec<_>, _>>()?;
        let octets: u64 = extents.iter().map(|extent| extent.bytes).sum();
        if !selected {
            let records = extents.iter().map(|extent| extent.records).sum();
            let first = extents.iter().find_map(|extent| extent.written);
            let last = segments.last().map(|last| log.last_written(last)).transpose()?.flatten();
            let last = last.or(extents.iter().rev().find_map(|e| e.written.map(|(_, at)| at)));
            rate.add(records, first.zip(last).map(|((first, _), last)| (first, last)));
        }
        let start = segments.first().map_or(0, |segment| segment.base_offset);
        let end = extents.last().map_or(start, |extent| extent.end_offset);
        total.add(rate.records, rate.span);
        total_bytes += if selected { bytes } else { octets };
        if json {
            let mut table = Vec::new();
            for (segment, extent) in segments.iter().zip(&extents) {
                line(segment, extent, true, &mut table)?;
            }
            let table: Vec<serde_json::Value> = serde_json::Deserializer::from_slice(&table)
                .into_iter()
                .collect::<Result<_, _>>()?;
            let line = serde_json::json!({
                "shard": shard,
                "segments": segments.len(),
                "bytes": octets,
                "log_start_offset": start,
                "log_end_offset": end,
                "records": rate.records,
                "mail_bytes": selected.then_some(bytes),
                "span_seconds": rate.seconds(),
                "records_per_second": rate.per_second(),
                "segment_table": table,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let count = plural(segments.len() as u64, "segment");
        let size = human_size(octets);
        writeln!(out, "shard {shard}: offsets {start}..{end}, {count}, {size}")?;
        heading(out)?;
        for (segment, extent) in segments.iter().zip(&extents) {
            line(segment, extent, false, out)?;
        }
    }
    if !json {
        let what = if selected { "of mail" } else { "of log" };
        let rate = total.per_second().map_or_else(String::new, |rate| {
            format!(", {rate} records/s over {:.0} s", total.seconds())
        });
        let (records, size) = (plural(total.records, "record"), human_size(total_bytes));
        writeln!(out, "total: {records}, {size} {what}{rate}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts a selection.
fn walk(log: &Log, selection: &Selection, span: Span) -> io::Result<(Rate, u64)> {
    let Span { shard, from, to } = span;
    let (mut rate, mut bytes) = (Rate::default(), 0);
    log.walk(shard, from, to, &mut |_, record| {
        if selection.filter.matches(record) {
            let at = record.received_at();
            rate.add(1, Some((at, at)));
            bytes += record.bytes();
        }
        Ok(true)
    })?;
    Ok((rate, bytes))
}
