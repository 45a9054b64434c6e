//! A backup becomes a data directory again.
//!
//! It is made in `DIR/.restore`, recovered and verified there, and then moved up name by name, `node`
//! last. Where that is interrupted there is a `.restore` and no `node`: no server starts over it, and
//! the next restore begins anew.
//!
//! The node may have taken mail after its backup: those messages had ids, and consumers have seen them.
//! So the offsets of each shard go on far above all that can have been given out ([`JUMP`]).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Backup, Damage, INCOMPLETE, MARKER, Progress, copy_small, groups, place::Source, read_marker,
    whole,
};
use crate::{
    CommittedOffset, DirLock, Identity, Log, Seal,
    adopt::write_node,
    files::{segment_numbers, segment_path, shard_dir, sync_dir},
    frame::{BLOCK, SegmentHeader},
    manifest::read_seals,
    offset::parse_node,
    private::make_private_dir,
    recovery::{Octets, recover},
    verify::verify,
};

const STAGING: &str = ".restore";

/// Offsets that a restored shard leaves out: at a million messages a second, more than twelve days of
/// them. Of 64 bits they may be used up 16 million times.
const JUMP: u64 = 1 << 40;

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The backup it was made of.
    pub from: PathBuf,
    /// What that says of itself.
    pub backup: Backup,
    /// Records verified.
    pub records: u64,
    /// What is damaged or missing, a sentence each.
    pub damage: Vec<String>,
    /// Nothing was restored because of that.
    pub refused: bool,
    /// The next offset of each shard.
    pub next: Vec<(u16, u64)>,
}

/// Makes a data directory of the newest backup in `from`, or of the backup that `from` is. Where
/// something in it is damaged, only with `accept_damage`. Blocks.
///
/// # Errors
/// `InvalidInput` where `from` holds no backup, or `dir` holds a log with records; `WouldBlock` where
/// a server runs over `dir`; what the file system says.
pub fn restore(
    from: &Path,
    dir: &Path,
    accept_damage: bool,
    progress: &mut Progress<'_>,
) -> io::Result<Restored> {
    let from = find(from)?;
    let backup = read_marker(&from)?;
    let node = parse_node(&backup.node)
        .ok_or_else(|| invalid(format!("{}: no node id", from.join(MARKER).display())))?;
    make_private_dir(dir)?;
    let (source, target) = (from.canonicalize()?, dir.canonicalize()?);
    if source.starts_with(&target) || target.starts_with(&source) {
        let (source, target) = (source.display(), target.display());
        return Err(invalid(format!("the backup {source} and {target} lie within each other")));
    }
    let _lock = DirLock::take(dir)?;
    let staging = dir.join(STAGING);
    let interrupted = staging.exists() && !dir.join("node").exists();
    if !interrupted && let Some(what) = holds(dir)? {
        let dir = dir.display();
        return Err(invalid(format!(
            "{dir} holds a log already ({what}): move it away, or restore to another directory"
        )));
    }
    clear(dir)?;
    copy_tree(&from, &staging, progress)?;
    let log = Log::at(&staging, node);
    let (mut damage, mut next) = (Vec::new(), Vec::new());
    for shard in log.shards()? {
        next.push((shard, reopen(&staging, Identity { node, shard }, &mut damage)?));
    }
    let checked = verify(&log, &log.shards()?, &mut Damage { found: &mut damage })?;
    let refused = !damage.is_empty() && !accept_damage;
    if refused {
        fs::remove_dir_all(&staging)?;
    } else {
        move_up(&staging, dir)?;
        write_node(dir, node)?;
        fs::remove_dir_all(&staging)?;
        sync_dir(dir)?;
    }
    Ok(Restored { from, backup, records: checked.records, damage, refused, next })
}

/// Octets of the segments that a restore from here would put in place; 0 where there is nothing.
#[must_use]
pub fn bytes_in(from: &Path) -> u64 {
    find(from).and_then(|from| read_marker(&from)).map_or(0, |backup| backup.bytes)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The backup itself, or the newest of a place.
fn find(from: &Path) -> io::Result<PathBuf> {
    if from.join(MARKER).exists() {
        return Ok(from.to_owned());
    }
    let all = whole(from)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", from.display())))?;
    all.last().map(|(_, path)| path.clone()).ok_or_else(|| {
        let from_there = from.display();
        let what = match from.join(INCOMPLETE).exists() {
            true => "only one that was interrupted",
            false => "`mailrace backup` makes one",
        };
        invalid(format!("{from_there} holds no backup: {what}"))
    })
}

/// What a data directory holds that must not be lost; `None`: it is new, or took no mail yet.
fn holds(dir: &Path) -> io::Result<Option<String>> {
    let log = Log::at(dir, [0; 6]);
    for shard in log.shards()? {
        let from = shard_dir(dir, shard);
        let given = read_seals(&from.join("manifest"))?.all.iter().map(Seal::next_offset).max();
        if let Some(next) = given.filter(|&next| next > 0) {
            return Ok(Some(format!("shard {shard} gave out offsets up to {next}")));
        }
        for number in segment_numbers(&from)? {
            let mut block = [0; BLOCK];
            fs::File::open(segment_path(&from, number))?.read_at(0, &mut block)?;
            if SegmentHeader::decode(&block).is_some() || block.iter().any(|&octet| octet != 0) {
                return Ok(Some(format!("shard {shard}, segment {number}")));
            }
        }
    }
    for group in groups(dir)? {
        for entry in fs::read_dir(&group)? {
            let path = entry?.path();
            let is_offset = path.extension().is_some_and(|extension| extension == "offset");
            if is_offset && CommittedOffset::read(&path)?.is_some_and(|found| found.offset > 0) {
                return Ok(Some(format!("{} is a committed offset", path.display())));
            }
        }
    }
    Ok(None)
}

/// Removes a log without records, or what an interrupted restore left.
fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("shard-") || [STAGING, "groups"].contains(&name) {
            fs::remove_dir_all(&path)?;
        } else if ["node", "node.new", "hostname", "in-progress"].contains(&name) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Segments as links where that can be, all else as copies.
fn copy_tree(from: &Path, to: &Path, progress: &mut Progress<'_>) -> io::Result<()> {
    make_private_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, into) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &into, progress)?;
        } else if path.extension().is_some_and(|extension| extension == "seg") {
            Source { file: &path, before: None }.place(&into, progress)?;
        } else {
            copy_small(&path, &into)?;
        }
    }
    sync_dir(to)
}

/// Judges what was in use when the backup was made, as a start of the server would, and leaves out what
/// may have been given out since. Returns the next offset.
fn reopen(staging: &Path, identity: Identity, damage: &mut Vec<String>) -> io::Result<u64> {
    let mut recovered = recover(&shard_dir(staging, identity.shard), identity)?;
    damage.extend(recovered.damage.iter().map(ToString::to_string));
    let next = recovered.next_offset.get();
    // Where no record was ever given an id there may have been some since: all the same.
    let first_offset = next.saturating_add(JUMP);
    recovered.manifest.append(&Seal {
        number: recovered.next_segment,
        nonce: [0; 16],
        first_offset,
        end_offset: first_offset,
        end_position: 0,
        damaged: false,
        skipped: 0,
        reach: None,
        removed: true,
    })?;
    Ok(first_offset)
}

/// Groups before logs: a log without its groups would be exported anew, and `node` is written after.
fn move_up(staging: &Path, dir: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(staging)? {
        names.push(entry?.file_name());
    }
    names.sort();
    for name in names {
        if name != MARKER && name != "node" {
            fs::rename(staging.join(&name), dir.join(&name))?;
        }
    }
    sync_dir(dir)
}
