//! `mailrace group`: consumer groups, their places and their dead letters. Works on the data
//! directory, beside a running server: an exporter that is moved goes on from there within a second.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::{EXIT_FAILED, EXIT_USAGE};
use crate::{
    consumer::{Group, GroupError},
    log::{Fate, Log, Range, RecordId, format_time, unix_micros},
};

#[derive(Args, Debug)]
pub(super) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
    /// Data directory
    #[arg(long, global = true, default_value = "./mailrace-data")]
    dir: PathBuf,
    /// One JSON object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// A line for each group: lag over all shards, oldest pending record, dead letters, at work or not
    Ls,
    /// A line for each shard of a group
    Describe {
        /// Name of the group
        group: String,
    },
    /// Move a group; what lies between is sent again (replay), or is left out
    Seek(SeekArgs),
    /// Remove a group that has no consumer at work: it keeps nothing from deletion any more
    Rm {
        /// Name of the group
        group: String,
    },
    /// Dead letters: records that a sink refused for good, or that the disk has lost
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
    /// Say what would be done, and do nothing
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
    /// A line for each: record id, when, cause
    Ls {
        /// Name of the group
        group: String,
    },
    /// Everything known of one; `mailrace log get` shows its mail
    Show {
        /// Name of the group
        group: String,
        /// The record's id
        id: RecordId,
    },
    /// Try again: the exporter takes them up within a second
    Requeue(WhichDead),
    /// Give up: they keep nothing from deletion any more
    Drop(WhichDead),
}

#[derive(Args, Debug)]
struct WhichDead {
    /// Name of the group
    group: String,
    /// Records
    #[arg(required_unless_present = "all")]
    ids: Vec<RecordId>,
    /// All of the group
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

pub(super) fn run(args: &GroupArgs) -> ExitCode {
    let mut out = io::stdout().lock();
    match answer(args, &mut out) {
        Ok(code) => code,
        Err(GroupError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mailrace: {error}");
            let usage = match &error {
                GroupError::BadName(_) => true,
                GroupError::Io(error) => error.kind() == io::ErrorKind::InvalidInput,
                _ => false,
            };
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}

fn answer(args: &GroupArgs, out: &mut dyn Write) -> Result<ExitCode, GroupError> {
    let log = Log::open(&args.dir)?;
    let named = |name: &str| Group::existing(&args.dir, name);
    match &args.command {
        GroupCommand::Ls => list(&log, args, out)?,
        GroupCommand::Describe { group } => describe(&named(group)?, &log, args.json, out)?,
        GroupCommand::Seek(seek) => return move_group(&named(&seek.group)?, &log, seek, out),
        GroupCommand::Rm { group } => {
            named(group)?.remove()?;
            writeln!(out, "group {group} removed")?;
        }
        GroupCommand::Dead(dead) => return dead_letters(&log, args, dead, out),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(log: &Log, args: &GroupArgs, out: &mut dyn Write) -> Result<(), GroupError> {
    if !args.json {
        writeln!(
            out,
            "{:<24} {:>12} {:>20} {:>6} AT WORK",
            "GROUP", "LAG", "OLDEST-PENDING", "DEAD"
        )?;
    }
    for group in Group::list(&args.dir)? {
        let shards = group.describe(log)?;
        let lag: u64 = shards.iter().map(|shard| shard.lag).sum();
        let oldest = shards.iter().filter_map(|shard| shard.oldest_pending).min();
        let dead: u64 = shards.iter().map(|shard| shard.dead).sum();
        let active = group.is_active()?;
        if args.json {
            let line = serde_json::json!({
                "group": group.name(),
                "lag": lag,
                "oldest_pending": oldest.map(format_time),
                "dead": dead,
                "active": active,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let (oldest, active) = (pending(oldest), if active { "yes" } else { "no" });
        writeln!(out, "{:<24} {lag:>12} {oldest:>20} {dead:>6} {active}", group.name())?;
    }
    Ok(())
}

fn pending(oldest: Option<i64>) -> String {
    oldest.map_or_else(|| "-".to_owned(), format_time)
}

fn describe(group: &Group, log: &Log, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if !json {
        writeln!(
            out,
            "{:>5} {:>12} {:>12} {:>12} {:>12} {:>20} {:>6}",
            "SHARD", "START", "COMMITTED", "END", "LAG", "OLDEST-PENDING", "DEAD"
        )?;
    }
    for facts in group.describe(log)? {
        if json {
            let line = serde_json::json!({
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
    out: &mut dyn Write,
) -> Result<ExitCode, GroupError> {
    if seek.to.to.is_some() {
        let what = "--to wants one side of a range, such as start, 725 or @-1h";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
    }
    let shards = log.shards()?;
    if let Some(missing) = seek.shard.iter().find(|shard| !shards.contains(shard)) {
        let what = format!("there is no shard {missing}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
    }
    for shard in shards {
        if !seek.shard.is_empty() && !seek.shard.contains(&shard) {
            continue;
        }
        let (start, end) = log.ends(shard)?;
        // An offset beyond the end would leave mail out that is yet to come.
        let to = log.resolve(shard, seek.to.from)?.clamp(start, end);
        let from = group.committed(shard)?.map_or(start, |committed| committed.offset);
        let what = match from.cmp(&to) {
            std::cmp::Ordering::Greater => format!("{} offsets are sent again", from - to),
            std::cmp::Ordering::Less => format!("{} offsets are left out", to - from),
            std::cmp::Ordering::Equal => "stays".to_owned(),
        };
        if !seek.dry_run && from != to {
            group.seek(shard, to)?;
        }
        let would = if seek.dry_run { "would go from " } else { "" };
        writeln!(out, "shard {shard}: {would}{from} -> {to}: {what}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn dead_letters(
    log: &Log,
    args: &GroupArgs,
    dead: &DeadArgs,
    out: &mut dyn Write,
) -> Result<ExitCode, GroupError> {
    let node = log.node();
    let id = |shard: u16, offset: u64| {
        crate::log::Identity { node, shard }.record_id(crate::log::Offset::new(offset))
    };
    match &dead.command {
        DeadCommand::Ls { group } | DeadCommand::Show { group, .. } => {
            let group = Group::existing(&args.dir, group)?;
            let only = match &dead.command {
                DeadCommand::Show { id, .. } => Some(*id),
                _ => None,
            };
            let mut shown = 0;
            for shard in log.shards()? {
                for letter in group.dead_letters(shard)?.pending() {
                    let id = id(shard, letter.offset);
                    if only.is_some_and(|only| only != id) {
                        continue;
                    }
                    shown += 1;
                    if args.json || only.is_some() {
                        let line = serde_json::json!({
                            "id": id.to_string(),
                            "at": format_time(letter.at),
                            "class": letter.class,
                            "text": letter.text,
                            "attempts": letter.attempts,
                        });
                        match args.json {
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
                let what = format!("{only} is no dead letter of {}", group.name());
                return Err(io::Error::new(io::ErrorKind::NotFound, what).into());
            }
        }
        DeadCommand::Requeue(which) => settle(log, args, which, Fate::Requeued, "requeued", out)?,
        DeadCommand::Drop(which) => settle(log, args, which, Fate::Dropped, "dropped", out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn settle(
    log: &Log,
    args: &GroupArgs,
    which: &WhichDead,
    fate: Fate,
    verb: &str,
    out: &mut dyn Write,
) -> Result<(), GroupError> {
    let group = Group::existing(&args.dir, &which.group)?;
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
    writeln!(out, "{found} dead letters {verb}")?;
    if found < which.ids.len() {
        let what = format!("{} of the ids name no dead letter", which.ids.len() - found);
        return Err(io::Error::new(io::ErrorKind::NotFound, what).into());
    }
    Ok(())
}
