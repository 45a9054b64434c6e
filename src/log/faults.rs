//! What is wrong with a shard's log, in words: faults that recovery continues with, and those that
//! it refuses.

use std::{fs, path::Path};

use super::{
    Condition, Fault, FaultKind, Identity, Manifest, Operation, ReadError, Seal, Seals,
    files::{segment_path, sync_dir},
    inventory::{Inventory, Item, owner},
    meta::last_begun,
};
use mailrace_stage::{FileOp, act};

/// Opens the manifest. Another log's is set aside; a missing one is made, and said to be missing
/// where segments were made since deletions are recorded.
pub(super) fn open_manifest(
    dir: &Path,
    identity: Identity,
) -> Result<(Manifest, Vec<Fault>, Vec<String>), ReadError> {
    let path = dir.join("manifest");
    let (mut damage, mut notices) = (Vec::new(), Vec::new());
    let mut fault = |what: String| {
        let (shard, kind) = (identity.shard, FaultKind::Manifest);
        damage.push(Fault { shard, segment: 0, offset: 0, kind, what });
    };
    let judged = "the segments were checked again by their contents; segments that are missing \
                  cannot be detected";
    let named = path.display();
    let missing = !path.exists();
    let begun = last_begun(dir)?.is_some();
    let mut manifest = Manifest::open(&path).map_err(ReadError::io(Operation::Open, &path))?;
    match manifest.content().owner {
        Some(whose) if whose != identity => {
            // A directory that holds another log stays as it is.
            check_readable(dir, identity, &Inventory::take(dir, identity, &Seals::default())?)?;
            let aside = (1..)
                .map(|count| dir.join(format!("manifest.foreign-{count}")))
                .find(|aside| !aside.exists())
                .unwrap_or_else(|| dir.join("manifest.foreign"));
            act(FileOp::Rename, &path, || fs::rename(&path, &aside))
                .and_then(|()| sync_dir(dir))
                .map_err(ReadError::io(Operation::Change, &path))?;
            manifest = Manifest::open(&path).map_err(ReadError::io(Operation::Open, &path))?;
            let (theirs, aside) = (owner(whose), aside.display());
            fault(format!("{named} belongs to {theirs}: it was renamed to {aside}, and {judged}"));
        }
        Some(_) => {}
        None if missing && begun => fault(format!("{named} was missing: {judged}")),
        None if begun && manifest.seals().is_empty() => {
            fault(format!("{named} was empty: {judged}"));
        }
        None => {}
    }
    if manifest.content().damaged > 0 {
        let bad = manifest.content().damaged;
        notices.push(format!(
            "{named}: {bad} damaged records in it are skipped; their segments were checked again \
             by their contents"
        ));
    }
    if manifest.content().owner.is_some() && !begun {
        let meta = dir.join("shard.meta");
        notices.push(format!(
            "{} was missing or damaged: it will be rewritten with the next segment",
            meta.display()
        ));
    }
    Ok((manifest, damage, notices))
}

/// Nothing is concluded from a directory that holds another log, nor where mail that is not sealed
/// yet cannot be read.
pub(super) fn check_readable(
    dir: &Path,
    identity: Identity,
    inventory: &Inventory,
) -> Result<(), ReadError> {
    let ours = |item: &&Item| item.header.is_some_and(|header| header.identity == identity);
    let foreign = |item: &&Item| item.condition == Condition::Faulty(FaultKind::Foreign);
    if let Some(header) = inventory.items.iter().find(foreign).and_then(|item| item.header)
        && !inventory.items.iter().any(|item| ours(&item))
    {
        let (dir, theirs) = (dir.to_owned(), header.identity);
        return Err(ReadError::OtherLog { dir, theirs, ours: identity });
    }
    // What was made later than anything written down was never used.
    let used = |number: u64| inventory.begun.is_none_or(|begun| number <= begun.number);
    let unreadable = inventory.items.iter().find(|item| {
        let unreadable = item.condition == Condition::Faulty(FaultKind::Unreadable);
        unreadable && item.seal.is_none() && used(item.number)
    });
    match unreadable {
        None => Ok(()),
        Some(item) => Err(ReadError::Unsealed {
            path: segment_path(dir, item.number),
            why: item.error.clone().unwrap_or_default(),
        }),
    }
}

/// What is wrong with a segment, and how many records are lost with it at most.
pub(super) fn fault_of(
    dir: &Path,
    shard: u16,
    inventory: &Inventory,
    item: &Item,
) -> (Option<Fault>, u64) {
    let held = item.seal.map_or(0, |seal| seal.end_offset - seal.first_offset);
    let skipped = item.seal.filter(|seal| seal.damaged).map_or(0, |seal| u64::from(seal.skipped));
    match (item.condition, item.seal) {
        (Condition::Faulty(FaultKind::Copy | FaultKind::Foreign), None) => {
            (inventory.fault(item), 0)
        }
        (Condition::Faulty(_), _) => (inventory.fault(item), held + skipped),
        (Condition::Good, Some(seal)) if seal.damaged => {
            let what = format!(
                "{}: damaged at position {}: acknowledged records from offset {} on are lost; \
                 offsets below {} are not used again",
                segment_path(dir, seal.number).display(),
                seal.end_position,
                seal.end_offset,
                seal.end_offset + u64::from(seal.skipped),
            );
            let (segment, offset) = (seal.number, seal.end_offset);
            (Some(Fault { shard, segment, offset, kind: FaultKind::Corrupt, what }), skipped)
        }
        _ => (None, 0),
    }
}

/// Segments that claim offsets which an earlier one holds.
pub(super) fn overlaps(shard: u16, inventory: &Inventory) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut before: Option<Seal> = None;
    let there = inventory.items.iter().filter(|item| item.condition == Condition::Good);
    for seal in there.filter_map(|item| item.seal).filter(|s| s.end_offset > s.first_offset) {
        if let Some(earlier) = before.filter(|earlier| earlier.end_offset > seal.first_offset) {
            let what = format!(
                "it claims offsets {}..{}, but segment {} holds {}..{}: move away the one that is \
                 not this log's",
                seal.first_offset,
                seal.end_offset,
                earlier.number,
                earlier.first_offset,
                earlier.end_offset
            );
            let (segment, offset, kind) = (seal.number, seal.first_offset, FaultKind::Overlap);
            faults.push(Fault { shard, segment, offset, kind, what });
        }
        before = Some(match before {
            Some(earlier) if earlier.end_offset > seal.end_offset => earlier,
            _ => seal,
        });
    }
    faults
}
