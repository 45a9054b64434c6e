//! `mailrace group`: consumer groups, their committed offsets and their dead letters. Works on the
//! data directory, also while a server runs: an exporter that is moved continues from there within
//! a second.

mod replay;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    DirArgs, EXIT_FAILED, EXIT_USAGE,
    table::{Side, Table, Tone, shows_colours},
};
use crate::{
    config::plural,
    consumer::{Group, GroupError},
    log::{Fate, Log, Range, RecordId, format_time, unix_micros},
};

#[derive(Args, Debug)]
pub(super) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
    #[command(flatten)]
    dir: DirArgs,
    /// Print one JSON object per line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List the groups: lag over all shards, oldest pending record, dead letters, active or not
    Ls,
    /// Show a group's offsets, one line per shard
    Describe {
        /// Name of the group
        group: String,
    },
    /// Move a group's committed offset: back to redeliver records, forward to skip them
    Seek(SeekArgs),
    /// Redeliver records to selected recipients; the committed offset does not change
    ///
    /// The records are marked as replayed. An smtp or lmtp exporter sends them only to the matching
    /// recipients; other exporters deliver the whole record with its whole envelope. `mailrace
    /// group dead ls` lists the records that are still waiting, and `group dead drop` cancels them.
    Replay(replay::ReplayArgs),
    /// Remove a group that has no active consumer; retention no longer waits for it
    Rm {
        /// Name of the group
        group: String,
    },
    /// The dead-letter queue: records that a sink refused permanently, or that are damaged on disk
    Dead(DeadArgs),
}

#[derive(Args, Debug)]
struct SeekArgs {
    /// Name of the group
    group: String,
    /// start, end, an offset, +N, -N, @TIME, @-1h
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    to: Range,
    /// Only these shards
    #[arg(long, value_delimiter = ',', value_name = "N,N")]
    shard: Vec<u16>,
    /// Print what would be done without changing anything
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List dead letters: record id, time, cause
    Ls {
        /// Name of the group
        group: String,
    },
    /// Show one dead letter; `mailrace log get` prints its mail
    Show {
        /// Name of the group
        group: String,
        /// Record id
        id: RecordId,
    },
    /// Redeliver dead letters: the exporter retries them within a second
    Requeue(WhichDead),
    /// Discard dead letters; retention no longer waits for them
    Drop(WhichDead),
}

#[derive(Args, Debug)]
struct WhichDead {
    /// Name of the group
    group: String,
    /// Record ids
    #[arg(required_unless_present = "all")]
    ids: Vec<RecordId>,
    /// All dead letters of the group
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

pub(super) fn run(args: &GroupArgs) -> ExitCode {
    let mut out = io::stdout().lock();
    let dir = match args.dir.find() {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    match answer(args, &dir, &mut out) {
        Ok(code) => code,
        Err(GroupError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            crate::cli::complain!("mailrace: {error}");
            let usage = match &error {
                GroupError::BadName(_) => true,
                GroupError::Io(error) => error.kind() == io::ErrorKind::InvalidInput,
                _ => false,
            };
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}

fn answer(args: &GroupArgs, dir: &Path, out: &mut dyn Write) -> Result<ExitCode, GroupError> {
    let log = Log::open(dir)?;
    let named = |name: &str| Group::existing(dir, name);
    match &args.command {
        GroupCommand::Ls => list(&log, args.json, out)?,
        GroupCommand::Describe { group } => describe(&named(group)?, &log, args.json, out)?,
        GroupCommand::Seek(seek) => move_group(&named(&seek.group)?, &log, seek, args.json, out)?,
        GroupCommand::Replay(replay) => {
            let group = named(&replay.group)?;
            replay::replay(&group, &log, replay, args.json, out)?;
        }
        GroupCommand::Rm { group } => {
            named(group)?.remove()?;
            match args.json {
                true => writeln!(out, "{}", json!({ "group": group, "removed": true }))?,
                false => writeln!(out, "group {group} removed")?,
            }
        }
        GroupCommand::Dead(dead) => return dead_letters(&log, dir, args.json, dead, out),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(log: &Log, as_json: bool, out: &mut dyn Write) -> Result<(), GroupError> {
    let mut table = Table::new(&[
        ("GROUP", Side::Left),
        ("LAG", Side::Right),
        ("OLDEST-PENDING", Side::Right),
        ("DEAD", Side::Right),
        ("ACTIVE", Side::Left),
    ]);
    for group in Group::list(log.dir())? {
        let shards = group.describe(log)?;
        let lag: u64 = shards.iter().map(|shard| shard.lag).sum();
        let oldest = shards.iter().filter_map(|shard| shard.oldest_pending).min();
        let dead: u64 = shards.iter().map(|shard| shard.dead).sum();
        let active = group.is_active()?;
        if as_json {
            let line = json!({
                "group": group.name(),
                "lag": lag,
                "oldest_pending": oldest.map(format_time),
                "dead": dead,
                "active": active,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let tone = |bad: bool, tone| if bad { tone } else { Tone::Plain };
        // A group that nobody reads and that waits for somebody is to be looked at.
        let waits = lag > 0 && !active;
        table.row([
            (group.name().to_owned(), Tone::Plain),
            (lag.to_string(), tone(waits, Tone::Fair)),
            (pending(oldest), Tone::Plain),
            (dead.to_string(), tone(dead > 0, Tone::Bad)),
            (if active { "yes" } else { "no" }.to_owned(), tone(waits, Tone::Fair)),
        ]);
    }
    if !as_json {
        out.write_all(table.text(shows_colours()).as_bytes())?;
    }
    Ok(())
}

fn pending(oldest: Option<i64>) -> String {
    oldest.map_or_else(|| "-".to_owned(), format_time)
}

fn describe(group: &Group, log: &Log, as_json: bool, out: &mut dyn Write) -> io::Result<()> {
    if !as_json {
        writeln!(
            out,
            "{:>5} {:>12} {:>12} {:>12} {:>12} {:>20} {:>6}",
            "SHARD", "START", "COMMITTED", "END", "LAG", "OLDEST-PENDING", "DEAD"
        )?;
    }
    for facts in group.describe(log)? {
        if as_json {
            let line = json!({
                "shard": facts.shard,
                "start": facts.start,
                "committed": facts.committed,
                "end": facts.end,
                "lag": facts.lag,
                "oldest_pending": facts.oldest_pending.map(format_time),
                "oldest_pending_seconds":
                    facts.oldest_pending.map(|at| (unix_micros() - at) / 1_000_000),
                "dead": facts.dead,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let committed = facts.committed.map_or_else(|| "-".to_owned(), |at| at.to_string());
        writeln!(
            out,
            "{:>5} {:>12} {committed:>12} {:>12} {:>12} {:>20} {:>6}",
            facts.shard,
            facts.start,
            facts.end,
            facts.lag,
            pending(facts.oldest_pending),
            facts.dead,
        )?;
    }
    Ok(())
}

fn move_group(
    group: &Group,
    log: &Log,
    seek: &SeekArgs,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), GroupError> {
    if seek.to.to.is_some() {
        let what = "--to takes a single offset or time, such as start, 725 or @-1h";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
    }
    for shard in log.shards_among(&seek.shard)? {
        let (start, end) = log.ends(shard)?;
        // An offset beyond the end would leave mail out that is yet to come.
        let to = log.resolve(shard, seek.to.from)?.clamp(start, end);
        let from = group.committed(shard)?.map_or(start, |committed| committed.offset);
        let what = match from.cmp(&to) {
            std::cmp::Ordering::Greater => redelivered(from - to),
            std::cmp::Ordering::Less => format!("{} will be skipped", plural(to - from, "record")),
            std::cmp::Ordering::Equal => "stays".to_owned(),
        };
        if !seek.dry_run && from != to {
            group.seek(shard, to)?;
        }
        if as_json {
            let line = json!({
                "group": group.name(),
                "shard": shard,
                "from": from,
                "to": to,
                "redelivered": from.saturating_sub(to),
                "skipped": to.saturating_sub(from),
                "dry_run": seek.dry_run,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let would = if seek.dry_run { "would move from " } else { "" };
        writeln!(out, "shard {shard}: {would}{from} -> {to}: {what}")?;
    }
    Ok(())
}

fn redelivered(records: u64) -> String {
    format!("{} will be redelivered", plural(records, "record"))
}

fn dead_letters(
    log: &Log,
    dir: &Path,
    as_json: bool,
    dead: &DeadArgs,
    out: &mut dyn Write,
) -> Result<ExitCode, GroupError> {
    let node = log.node();
    let id = |shard: u16, offset: u64| {
        crate::log::Identity { node, shard }.record_id(crate::log::Offset::new(offset))
    };
    match &dead.command {
        DeadCommand::Ls { group } | DeadCommand::Show { group, .. } => {
            let group = Group::existing(dir, group)?;
            let only = match &dead.command {
                DeadCommand::Show { id, .. } => Some(*id),
                _ => None,
            };
            let mut shown = 0;
            for shard in log.shards()? {
                if let Some(fault) = group.dead_letters_fault(shard)? {
                    crate::cli::complain!("mailrace: {fault}");
                }
                for letter in group.dead_letters(shard)?.pending() {
                    let id = id(shard, letter.offset);
                    if only.is_some_and(|only| only != id) {
                        continue;
                    }
                    shown += 1;
                    if as_json || only.is_some() {
                        let line = json!({
                            "id": id.to_string(),
                            "at": format_time(letter.at),
                            "class": letter.class,
                            "text": letter.text,
                            "attempts": letter.attempts,
                        });
                        match as_json {
                            true => writeln!(out, "{line}")?,
                            false => writeln!(out, "{line:#}")?,
                        }
                    } else {
                        let (at, class) = (format_time(letter.at), &letter.class);
                        let text = letter.text.escape_debug();
                        writeln!(out, "{id} {at} {class} {text}")?;
                    }
                }
            }
            if let (Some(only), 0) = (only, shown) {
                let what = format!("{only} is not a dead letter of group {}", group.name());
                return Err(io::Error::new(io::ErrorKind::NotFound, what).into());
            }
        }
        DeadCommand::Requeue(which) => {
            settle(log, as_json, which, Fate::Requeued, "requeued", out)?
        }
        DeadCommand::Drop(which) => settle(log, as_json, which, Fate::Dropped, "dropped", out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn settle(
    log: &Log,
    as_json: bool,
    which: &WhichDead,
    fate: Fate,
    verb: &str,
    out: &mut dyn Write,
) -> Result<(), GroupError> {
    let group = Group::existing(log.dir(), &which.group)?;
    let mut found = 0;
    for shard in log.shards()? {
        let mut letters = group.dead_letters(shard)?;
        let meant = |offset: u64| {
            which.all
                || which.ids.iter().any(|id| {
                    id.node == log.node() && id.shard == shard && id.offset.get() == offset
                })
        };
        let offsets: Vec<u64> =
            letters.pending().map(|letter| letter.offset).filter(|&offset| meant(offset)).collect();
        letters.settle(&offsets, fate)?;
        found += offsets.len();
    }
    match as_json {
        true => writeln!(out, "{}", json!({ "group": group.name(), verb: found }))?,
        false => writeln!(out, "{} {verb}", plural(found as u64, "dead letter"))?,
    }
    if found < which.ids.len() {
        let missing = which.ids.len() - found;
        let what = format!("{missing} of the ids given are not dead letters of this group");
        return Err(io::Error::new(io::ErrorKind::NotFound, what).into());
    }
    Ok(())
}
