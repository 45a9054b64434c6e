//! `mailrace group replay`: redeliver records by recipient. The committed offset stays; the request
//! is written to the journal of dead letters, which the exporter reads each second.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use clap::Args;
use serde_json::json;

use crate::{
    config::plural,
    consumer::{Group, GroupError},
    export::{REPLAY, RcptPattern},
    log::{DeadLetter, DeadLetters, Log, Range},
};

/// Entries of one write.
const LETTERS_AT_ONCE: usize = 1_000;

#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// Name of the group
    pub(super) group: String,
    /// Only records with this forward-path in the envelope (RCPT TO); `*` stands for any
    /// characters, as in '*@example.org'
    #[arg(long, value_name = "PATTERN")]
    rcpt: RcptPattern,
    /// RANGE, as with `log cat`; records that the group has not reached yet are never included
    #[arg(short = 'o', long = "range", value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<Range>,
    /// Only these shards
    #[arg(long, value_delimiter = ',', value_name = "N,N")]
    shard: Vec<u16>,
    /// Print what would be done without changing anything
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn replay(
    group: &Group,
    log: &Log,
    args: &ReplayArgs,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), GroupError> {
    let bad = |what: String| GroupError::Io(io::Error::new(io::ErrorKind::InvalidInput, what));
    let shards = log.shards_among(&args.shard)?;
    let range = args.range.unwrap_or(Range::ALL);
    if range.is_reversed() {
        return Err(bad("the range is empty: it ends before it starts".to_owned()));
    }
    for shard in shards {
        let (start, end) = log.ends(shard)?;
        let committed = group.committed(shard)?.map_or(start, |committed| committed.offset);
        let from = log.resolve(shard, range.from)?.max(start);
        let to = range.to.map_or(Ok(end), |to| log.resolve(shard, to))?.min(committed);
        let mut letters = group.dead_letters(shard)?;
        let (mut wanted, mut dead) = (Vec::new(), 0_u64);
        let noted: BTreeSet<u64> = letters.requeued().into_iter().collect();
        if from < to {
            log.walk(shard, from, to, &mut |offset, record| {
                if record.forward_paths().any(|path| args.rcpt.matches(path)) {
                    // Its letter says what is still to be done; another one would hide that.
                    match letters.get(offset) {
                        // What a crash left of an earlier note.
                        Some(letter) if letter.class == REPLAY && !noted.contains(&offset) => {
                            wanted.push(offset);
                        }
                        Some(_) => dead += 1,
                        None => wanted.push(offset),
                    }
                }
                Ok(true)
            })?;
        }
        if !args.dry_run {
            for offsets in wanted.chunks(LETTERS_AT_ONCE) {
                note(&mut letters, offsets, &args.rcpt)?;
            }
        }
        let found = wanted.len() as u64;
        if as_json {
            let line = json!({
                "group": group.name(),
                "shard": shard,
                "rcpt": args.rcpt.to_string(),
                "redelivered": found,
                "dead_letters": dead,
                "dry_run": args.dry_run,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let would = if args.dry_run { "would be" } else { "will be" };
        write!(out, "shard {shard}: {} {would} redelivered", plural(found, "record"))?;
        if dead > 0 {
            let dead = plural(dead, "dead letter");
            write!(out, "; not counted: {dead}, which `mailrace group dead requeue` redelivers")?;
        }
        writeln!(out)?;
    }
    if !args.dry_run && !as_json && !group.is_active()? {
        writeln!(
            out,
            "group {} has no active consumer: the records wait until it has one",
            group.name()
        )?;
    }
    Ok(())
}

fn note(letters: &mut DeadLetters, offsets: &[u64], rcpt: &RcptPattern) -> io::Result<()> {
    letters.add_requeued(offsets.iter().map(|&offset| DeadLetter {
        offset,
        at: 0,
        class: REPLAY.to_owned(),
        text: format!("to be redelivered to {rcpt}"),
        attempts: 0,
        rcpt: Some(rcpt.to_string()),
    }))
}
