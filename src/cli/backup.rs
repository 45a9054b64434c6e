//! `mailrace backup` and `mailrace restore`

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{
    DirArgs, EXIT_CORRUPT, failed, figures,
    progress::{Progress, Unit, bytes_of},
};
use crate::{
    config::plural,
    log::{Log, Made, Restored, back_up, bytes_in, restore},
};

/// For `backup --help`.
pub(super) const BACKUP_NOTES: &str = "\
Each backup is a directory of its own in DIR, named by number and time: 000007-20261127T192228Z. It
holds all mail that had its 250 when the backup began, also that in the segments in use, with the
committed offsets of consumer groups, dead letters and verdicts. It gets its name once it is verified
and on disk; until then the backup before stays, and an interrupted one is named .incomplete.

Sealed segments are hard links, so a backup on the same file system costs next to nothing, and protects
from deletion and mistakes, not from the loss of the disk. On another file system they are copied once,
and linked from each backup to the next. Safe while the server runs. The configuration is not included.

Exit codes: 0 done; 1 failed; 2 DIR cannot be used; 3 done, and something in the log is damaged or
missing, so that earlier backups are kept as well";

/// For `restore --help`.
pub(super) const RESTORE_NOTES: &str = "\
DIR is a directory of backups, of which the newest is taken, or one backup. The data directory must
hold no log with records. All is verified before it is put in place. Ids of records stay the same;
new mail gets offsets far above all that the node can have given out since the backup. Run it as the
user of the server, while the server is stopped, and never run two servers over one node's mail.

Exit codes: 0 done; 1 failed; 2 DIR or the data directory cannot be used; 3 something is damaged or
missing: nothing was restored, unless --accept-damage is given";

#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    /// Directory for backups, best on another disk; made if only its last part is missing
    #[arg(value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    dir: DirArgs,
    /// Number of backups to keep; older ones are removed
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct RestoreArgs {
    /// Directory of backups, or one backup
    #[arg(value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    dir: DirArgs,
    /// Restore what is left if something in the backup is damaged
    #[arg(long)]
    accept_damage: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn backup(args: &BackupArgs) -> ExitCode {
    let data = match args.dir.find() {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    let made = Log::open(&data).map_err(io::Error::from).and_then(|log| {
        let shards = log.shards()?;
        let total = || bytes_of(&log, &shards);
        let progress = Progress::new("saving", Unit::Bytes, total, args.json);
        back_up(&log, &args.to, usize::from(args.keep), &mut |bytes| progress.add(bytes))
    });
    match made {
        Ok(made) => {
            let damage = &made.backup.damage;
            tell(damage, args.json);
            let code = if damage.is_empty() { ExitCode::SUCCESS } else { EXIT_CORRUPT.into() };
            print(&describe(&made, args.json), code)
        }
        Err(error) => failed("backup: ", &error),
    }
}

fn describe(made: &Made, json: bool) -> String {
    let Made { path, backup, tally, removed } = made;
    if json {
        let line = serde_json::json!({
            "path": path, "backup": backup, "segments": tally, "removed": removed,
        });
        return format!("{line}\n");
    }
    let shards = plural(backup.shards.len() as u64, "shard");
    let records: u64 = backup.shards.iter().map(|span| span.records).sum();
    let state = if backup.damage.is_empty() { "verified" } else { "DAMAGED, see above" };
    let mut text = format!(
        "{}: {} in {shards}, {}; segments: {} kept, {} linked, {} copied; {state}\n",
        path.display(),
        plural(records, "record"),
        figures::bytes(backup.bytes),
        tally.kept,
        tally.linked,
        tally.copied
    );
    for path in removed {
        text.push_str(&format!("removed: {}\n", path.display()));
    }
    text
}

pub(super) fn restore_from(args: &RestoreArgs) -> ExitCode {
    let data = match args.dir.find() {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    let progress = Progress::new("restoring", Unit::Bytes, || bytes_in(&args.from), args.json);
    let restored = restore(&args.from, &data, args.accept_damage, &mut |bytes| progress.add(bytes));
    drop(progress);
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => return failed("restore: ", &error),
    };
    let Restored { from, backup, records, damage, refused, next } = &restored;
    tell(damage, args.json);
    if let Some(notice) = foreign(&data).filter(|_| !refused) {
        crate::cli::complain!("mailrace: {notice}");
    }
    let code = if damage.is_empty() { ExitCode::SUCCESS } else { EXIT_CORRUPT.into() };
    if args.json {
        let next: Vec<_> = next
            .iter()
            .map(|(shard, offset)| serde_json::json!({ "shard": shard, "offset": offset }))
            .collect();
        let line = serde_json::json!({
            "from": from, "dir": data, "node": backup.node, "taken_at": backup.taken_at,
            "records": records, "damage": damage, "restored": !refused, "next": next,
        });
        return print(&format!("{line}\n"), code);
    }
    if *refused {
        crate::cli::complain!(
            "mailrace: {} is damaged, and nothing was restored: take an earlier backup, or what is \
             left with --accept-damage",
            from.display()
        );
        return code;
    }
    let text = format!(
        "{}: node {}, {} verified, from {} of {}\n",
        data.display(),
        backup.node,
        plural(*records, "record"),
        from.display(),
        backup.taken_at
    );
    print(&text, code)
}

/// Files that the owner of the directory, and so the server, cannot open.
fn foreign(data: &Path) -> Option<String> {
    let owner = fs::metadata(data).ok()?;
    let file = fs::metadata(data.join("node")).ok()?;
    (owner.uid() != file.uid()).then(|| {
        let dir = data.display();
        format!(
            "{dir} belongs to user {}, what was restored to user {}: chown -R --reference={dir} {dir}",
            owner.uid(),
            file.uid()
        )
    })
}

fn tell(damage: &[String], json: bool) {
    if !json {
        for what in damage {
            crate::cli::complain!("mailrace: {what}");
        }
    }
}

fn print(text: &str, code: ExitCode) -> ExitCode {
    let printed = io::Write::write_all(&mut io::stdout().lock(), text.as_bytes());
    super::finish(printed, code)
}
