//! Backups of a data directory, taken while a server runs or not, and their restore.
//!
//! ```text
//! DIR/LOCK                          held by the one backup at work
//! DIR/000007-20261127T192228Z/      a whole backup: a data directory of its own
//! DIR/000007-.../backup.json        what it holds, see `Backup`; written last
//! DIR/.incomplete/                  one that is being made, or was interrupted
//! ```
//!
//! A backup gets its name by a rename once it is copied, verified and synced, so that nothing else
//! ever looks whole; the one before stays until then. Sealed segments are never written again, so they
//! are hard links; on another file system they are copied, or linked to the backup before. All else is
//! copied: it is small, or still changes.
//!
//! What a backup holds is consistent because of the order in which it is read: committed offsets, then
//! dead letters, then the log. So no group is ahead of the log, and no dead letter is missing that a
//! committed offset has passed. The log is cut at the last whole group of the segment in use: every
//! message that had its 250 when the backup began is in it.

mod place;
mod restore;
mod shard;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Committed, CommittedOffset, Finding, Log, Severity, Witness,
    adopt::{hex, write_node},
    files::{DirLock, shard_dir, sync_dir, unix_micros},
    private::{make_private_dir, private_file},
    range::format_time,
    verify::verify_segment,
};
use place::{copy_small, copy_whole_lines, remove_if_there};
pub use restore::{Restored, bytes_in, restore};
use shard::ShardCopy;

const MARKER: &str = "backup.json";
const INCOMPLETE: &str = ".incomplete";

/// Findings that are kept in words; the rest is counted by `log verify`.
const DAMAGE_MAX: usize = 20;

/// What one backup holds, as its `backup.json` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Of this file's format.
    pub version: u32,
    /// The node's id: twelve hexadecimal digits.
    pub node: String,
    /// When it was begun.
    pub taken_at: String,
    /// Octets of its segments.
    pub bytes: u64,
    /// What each shard's log holds.
    pub shards: Vec<Span>,
    /// What is damaged or missing in it, a sentence each.
    pub damage: Vec<String>,
}

/// The records of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The shard.
    pub shard: u16,
    /// First offset.
    pub start: u64,
    /// After the last record.
    pub end: u64,
    /// Records in between; offsets that recovery left out are none.
    #[serde(default)]
    pub records: u64,
}

/// How segments came into a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// They were in the backup before.
    pub kept: u64,
    /// New, as hard links.
    pub linked: u64,
    /// New, as copies.
    pub copied: u64,
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub backup: Backup,
    /// How its segments came there.
    pub tally: Tally,
    /// Earlier backups that were removed.
    pub removed: Vec<PathBuf>,
}

/// Hears how many octets of segments are done.
type Progress<'a> = dyn FnMut(u64) + 'a;

/// Takes a backup of a data directory into `to`, which is made where only its last part is missing,
/// and keeps the last `keep` backups there. Safe while a server runs; blocks.
///
/// # Errors
/// `InvalidInput` where `to` cannot be the place; `WouldBlock` where another backup is at work there;
/// what the file system says. Earlier backups stay.
pub fn back_up(log: &Log, to: &Path, keep: usize, progress: &mut Progress<'_>) -> io::Result<Made> {
    let taken_at = format_time(unix_micros());
    make_place(log.dir(), to)?;
    let _lock = DirLock::take(to)?;
    let before = whole(to)?;
    let (number, trusted) = match before.last() {
        None => (1, None),
        // Damage is looked at again.
        Some((number, path)) => {
            let sound = read_marker(path).is_ok_and(|backup| backup.damage.is_empty());
            (number + 1, sound.then_some(path.as_path()))
        }
    };
    let work = to.join(INCOMPLETE);
    make_private_dir(&work)?;
    remove_if_there(&work.join(MARKER))?;
    remove_if_there(&work.join("node"))?;
    let verdicts = judged(log)?;
    copy_groups(log.dir(), &work)?;
    copy_small(&log.dir().join("hostname"), &work.join("hostname"))?;
    let mut tally = Tally::default();
    let mut shards = Vec::new();
    for (shard, judged) in verdicts {
        let copy = ShardCopy { log, shard, work: &work, trusted };
        shards.push((shard, copy.make(judged, &mut tally, progress)?));
    }
    drop_other_shards(&work, &shards.iter().map(|(shard, _)| *shard).collect::<Vec<_>>())?;
    let copy = Log::at(&work, log.node());
    let mut backup = Backup { version: 1, node: hex(log.node()), taken_at, ..Backup::default() };
    let mut witness = Damage { found: &mut backup.damage };
    for (shard, fresh) in &shards {
        for fault in copy.faults(*shard)? {
            witness.tell(fault.to_string());
        }
        for segment in copy.segments(*shard)? {
            backup.bytes += segment.bytes;
            if fresh.contains(&segment.number) {
                verify_segment(&copy, &segment, &mut witness)?;
            }
        }
        let (start, end) = copy.ends(*shard)?;
        let records = end - start - copy.left_out(*shard)?.count(start..end);
        backup.shards.push(Span { shard: *shard, start, end, records });
    }
    let stamp: String = backup.taken_at.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = to.join(format!("{number:06}-{stamp}"));
    publish(&work, &path, log.node(), &backup)?;
    // What a damaged one lacks may be in those before it.
    let keep = if backup.damage.is_empty() { keep.max(1) } else { usize::MAX };
    let removed = remove_old(to, keep)?;
    Ok(Made { path, backup, tally, removed })
}

/// Collects what is damaged.
struct Damage<'a> {
    found: &'a mut Vec<String>,
}

impl Damage<'_> {
    fn tell(&mut self, what: String) {
        if self.found.len() < DAMAGE_MAX {
            self.found.push(what);
        }
    }
}

impl Witness for Damage<'_> {
    fn found(&mut self, finding: Finding) -> io::Result<()> {
        let Finding { severity, shard, segment, offset, what, .. } = finding;
        if severity == Severity::Corrupt {
            self.tell(format!("shard {shard}, segment {segment}, from offset {offset}: {what}"));
        }
        Ok(())
    }
}

/// The place is no data directory, is not within one, and what it lies in is there: the mount point of
/// a disk that is not mounted would be filled otherwise.
fn make_place(data: &Path, to: &Path) -> io::Result<()> {
    let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if let Err(error) = fs::create_dir(to) {
        match error.kind() {
            io::ErrorKind::AlreadyExists if to.is_dir() => {}
            io::ErrorKind::AlreadyExists => {
                return invalid(format!("{} is not a directory", to.display()));
            }
            io::ErrorKind::NotFound => {
                let what = format!(
                    "{}: the directory above it does not exist; is its disk mounted?",
                    to.display()
                );
                return invalid(what);
            }
            kind => return Err(io::Error::new(kind, format!("{}: {error}", to.display()))),
        }
    }
    if to.canonicalize()?.starts_with(data.canonicalize()?) {
        // Made just now, or empty before.
        let _ = fs::remove_dir(to);
        return invalid(format!(
            "{} is in the data directory {}: choose a place outside of it, best on another disk",
            to.display(),
            data.display()
        ));
    }
    if to.join("node").exists() {
        return invalid(format!(
            "{} is a data directory or a backup itself: choose a directory for backups",
            to.display()
        ));
    }
    Ok(())
}

/// Whole backups in a place, by number.
fn whole(place: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.split_once('-')?.0.parse::<u64>().ok());
        if let Some(number) = number
            && entry.path().join(MARKER).exists()
        {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn read_marker(backup: &Path) -> io::Result<Backup> {
    let path = backup.join(MARKER);
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let text = fs::read(&path).map_err(named)?;
    let marker: Backup = serde_json::from_slice(&text).map_err(|error| named(error.into()))?;
    match marker.version {
        1 => Ok(marker),
        version => Err(named(io::Error::other(format!(
            "a backup of format {version}, which this version does not know"
        )))),
    }
}

/// How far the verdicts of each shard are: read before the files that hold them.
fn judged(log: &Log) -> io::Result<Vec<(u16, Option<Committed>)>> {
    let one = |shard| {
        let path = shard_dir(log.dir(), shard).join("verdicts.offset");
        Ok((shard, CommittedOffset::read(&path)?))
    };
    log.shards()?.into_iter().map(one).collect()
}

/// The directories of all consumer groups.
fn groups(data: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(data.join("groups")) {
        Ok(entries) => {
            let paths: Vec<_> =
                entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Committed offsets first: a dead letter is durable before an offset passes it.
fn copy_groups(data: &Path, work: &Path) -> io::Result<()> {
    let into = work.join("groups");
    match fs::remove_dir_all(&into) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for from in groups(data)? {
        let Some(name) = from.file_name() else { continue };
        let dir = into.join(name);
        make_private_dir(&dir)?;
        let mut names = match fs::read_dir(&from) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()?,
            // Removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        names.sort_by_key(|name| !name.ends_with(".offset"));
        for name in names {
            let (from, to) = (from.join(&name), dir.join(&name));
            match name.rsplit_once('.').map(|(_, extension)| extension) {
                Some("offset") => copy_offset(CommittedOffset::read(&from)?, &to)?,
                Some("dead") => copy_whole_lines(&from, &to)?,
                _ if name == "active" => {}
                _ => copy_small(&from, &to)?,
            }
        }
        sync_dir(&dir)?;
    }
    if into.exists() {
        sync_dir(&into)?;
    }
    Ok(())
}

/// A file with one committed offset, or none yet.
fn copy_offset(committed: Option<Committed>, to: &Path) -> io::Result<()> {
    let (mut file, _) = CommittedOffset::open(to)?;
    match committed {
        Some(committed) => file.seek(|_| committed),
        None => Ok(()),
    }
}

/// What an interrupted backup left of shards that are gone.
fn drop_other_shards(work: &Path, shards: &[u16]) -> io::Result<()> {
    let log = Log::at(work, [0; 6]);
    for shard in log.shards()?.into_iter().filter(|shard| !shards.contains(shard)) {
        fs::remove_dir_all(shard_dir(work, shard))?;
    }
    Ok(())
}

/// From here on it is whole, whatever happens.
fn publish(work: &Path, path: &Path, node: [u8; 6], backup: &Backup) -> io::Result<()> {
    write_node(work, node)?;
    let marker = work.join(MARKER);
    let mut file = private_file().create(true).truncate(true).write(true).open(&marker)?;
    writeln!(file, "{}", serde_json::to_string_pretty(backup)?)?;
    file.sync_all()?;
    sync_dir(work)?;
    fs::rename(work, path)?;
    sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

/// Removes all but the last `keep`; each loses its name first.
fn remove_old(place: &Path, keep: usize) -> io::Result<Vec<PathBuf>> {
    let mut all = whole(place)?;
    all.truncate(all.len().saturating_sub(keep));
    let mut removed = Vec::new();
    for (_, path) in all {
        fs::remove_file(path.join(MARKER))?;
        File::open(&path)?.sync_all()?;
        fs::remove_dir_all(&path)?;
        removed.push(path);
    }
    Ok(removed)
}
