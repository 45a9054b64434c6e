//! One shard of a backup: its segments, its manifest, its verdicts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    Progress, Tally, copy_offset, copy_small, copy_whole_lines,
    place::{Placed, Source, copy, named, remove_if_there},
};
use crate::{
    Committed, Condition, End, FaultKind, Log, Manifest, Seal, Seals,
    files::{segment_path, shard_dir, sync_dir},
    inventory::Item,
    manifest::read_seals,
    meta::{Begun, make_meta, write_begun},
    private::make_private_dir,
    recovery::walk,
};

/// A break that a running server leaves behind while it is looked at is gone when one looks again.
const LOOKS: u32 = 3;

#[derive(Debug)]
pub(super) struct ShardCopy<'a> {
    pub(super) log: &'a Log,
    pub(super) shard: u16,
    /// The backup that is being made.
    pub(super) work: &'a Path,
    /// The one before, if all in it is sound.
    pub(super) trusted: Option<&'a Path>,
}

impl ShardCopy<'_> {
    /// Returns the segments that are to be verified.
    pub(super) fn make(
        &self,
        judged: Option<Committed>,
        tally: &mut Tally,
        progress: &mut Progress<'_>,
    ) -> io::Result<BTreeSet<u64>> {
        let from = shard_dir(self.log.dir(), self.shard);
        let into = shard_dir(self.work, self.shard);
        make_private_dir(&into)?;
        let (inventory, mut seals) = self.log.inventory(self.shard)?;
        let before = self.before()?;
        let (mut held, mut fresh) = (BTreeSet::new(), BTreeSet::new());
        let last = inventory.items.iter().filter(|item| item.header.is_some());
        let last = last.map(|item| item.number).max().unwrap_or(0);
        for item in &inventory.items {
            let (number, same) = (item.number, same_before(item, &before));
            let known = same.is_some();
            let to = segment_path(&into, number);
            let placed = match way(item) {
                Way::Leave => continue,
                Way::Blank if number > last => continue,
                way => place(way, item, &segment_path(&from, number), same, &to, progress)?,
            };
            match placed {
                Placed::Gone => continue,
                Placed::Kept => tally.kept += 1,
                Placed::Linked => tally.linked += 1,
                Placed::Copied => tally.copied += 1,
            }
            if placed != Placed::Kept || !known {
                fresh.insert(number);
            }
            held.insert(number);
            let from = segment_path(&from, number);
            copy_small(&from.with_extension("idx"), &to.with_extension("idx"))?;
            copy_whole_lines(&from.with_extension("ver"), &to.with_extension("ver"))?;
        }
        forget(&into, &held)?;
        // Retention records what it deletes before it deletes it.
        let now = read_seals(&from.join("manifest"))?;
        for seal in &mut seals.all {
            let gone = !held.contains(&seal.number);
            seal.removed |= gone && now.find(seal.number).is_some_and(|seal| seal.removed);
        }
        self.write_manifest(&into, &seals)?;
        write_meta(&into, inventory.begun, &seals.all, &held)?;
        let offset = into.join("verdicts.offset");
        remove_if_there(&offset)?;
        if judged.is_some() {
            copy_offset(judged, &offset)?;
        }
        sync_dir(&into)?;
        Ok(fresh)
    }

    /// The segments of the backup before, by number: seal and file.
    fn before(&self) -> io::Result<BTreeMap<u64, (Seal, PathBuf)>> {
        let Some(trusted) = self.trusted else { return Ok(BTreeMap::new()) };
        let dir = shard_dir(trusted, self.shard);
        let seals = read_seals(&dir.join("manifest"))?.all;
        Ok(seals
            .into_iter()
            .map(|seal| (seal.number, (seal, segment_path(&dir, seal.number))))
            .collect())
    }

    fn write_manifest(&self, into: &Path, seals: &Seals) -> io::Result<()> {
        let path = into.join("manifest");
        remove_if_there(&path)?;
        let mut manifest = Manifest::open(&path)?;
        if seals.owner.is_some() {
            manifest.mark(self.log.identity(self.shard))?;
        }
        manifest.append_all(&seals.all)
    }
}

/// The same segment in the backup before.
fn same_before(item: &Item, before: &BTreeMap<u64, (Seal, PathBuf)>) -> Option<PathBuf> {
    let (seal, (known, path)) = (item.seal?, before.get(&item.number)?);
    let same = (known.nonce, known.end_position) == (seal.nonce, seal.end_position);
    (same && path.exists()).then(|| path.clone())
}

fn place(
    way: Way,
    item: &Item,
    from: &Path,
    before: Option<PathBuf>,
    to: &Path,
    progress: &mut Progress<'_>,
) -> io::Result<Placed> {
    match way {
        Way::Leave => Ok(Placed::Gone),
        Way::Blank => copy(io::empty(), 0, item.bytes, to).map(|()| Placed::Copied),
        Way::Open => copy_open(from, to, progress),
        Way::Sealed => Source { file: from, before }.place(to, progress),
    }
}

fn way(item: &Item) -> Way {
    match item.condition {
        Condition::Good if item.seal.is_some_and(|seal| seal.removed) => Way::Leave,
        Condition::Good => Way::Sealed,
        Condition::Open if item.header.is_some() => Way::Open,
        Condition::Open => Way::Blank,
        // What is left of it may be read.
        Condition::Faulty(FaultKind::Truncated | FaultKind::Header) => Way::Sealed,
        Condition::Faulty(_) | Condition::Gone | Condition::Leftover => Way::Leave,
    }
}

/// Removes what an interrupted backup left of segments that are gone.
fn forget(into: &Path, held: &BTreeSet<u64>) -> io::Result<()> {
    for entry in fs::read_dir(into)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if number.is_some_and(|number| !held.contains(&number)) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Segments made ahead are not in the backup, and are not to be missed.
fn write_meta(
    into: &Path,
    begun: Option<Begun>,
    seals: &[Seal],
    held: &BTreeSet<u64>,
) -> io::Result<()> {
    remove_if_there(&into.join("shard.meta"))?;
    let Some(begun) = begun else { return Ok(()) };
    make_meta(into)?;
    let sealed = seals.iter().map(|seal| seal.number).max();
    let last = sealed.max(held.last().copied()).unwrap_or(0);
    let number = begun.number.min(last).max(begun.from.saturating_sub(1));
    write_begun(into, Begun { number, ..begun })
}

/// How a segment is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Leave,
    /// Made ahead and not used.
    Blank,
    /// It may still be written.
    Open,
    Sealed,
}

/// Copies the whole groups of a segment that may be in use: what is behind them was not acknowledged
/// when the copy began.
fn copy_open(path: &Path, to: &Path, progress: &mut Progress<'_>) -> io::Result<Placed> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Placed::Gone),
        Err(error) => return Err(named(path, error)),
    };
    let bytes = file.metadata()?.len();
    let mut walked = walk(&file, bytes).map_err(|error| named(path, error))?;
    for _ in 1..LOOKS {
        match walked {
            Some(found) if matches!(found.end, End::Damaged { .. }) => {
                walked = walk(&file, bytes).map_err(|error| named(path, error))?;
            }
            _ => break,
        }
    }
    let Some(walked) = walked else { return Ok(Placed::Gone) };
    let first = match walked.end {
        // All of it, so that what is lost is named.
        End::Damaged { .. } => bytes,
        End::Clean | End::Torn => walked.end_position,
    };
    progress(first);
    copy(file, first, bytes, to)?;
    Ok(Placed::Copied)
}
