//! Judges what a dead process left: a pure walk of a segment's octets, and around it the opening of
//! a shard's log.
//!
//! 1. The manifest, every segment file without a seal, and the directory are synced before anything
//!    is concluded: the dead process may have left completed but unflushed writes.
//! 2. The groups are walked from the header. A group counts only if nonce, number, chain and
//!    checksums hold.
//! 3. The first group that does not is a torn tail, unless a later block holds a valid group of the
//!    same nonce whose high-water mark lies beyond the break. Then acknowledged records are lost:
//!    that is damage.
//! 4. The verdict is sealed in the manifest, so that a second recovery gives the same answer. The
//!    segment file itself is never written again.
//!
//! Segments that are missing, cannot be read or belong to another log are found first, see
//! `inventory`: they are named at every start, and the log continues without them. This is D8 of
//! `docs/DURABILITY.md`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    ops::RangeInclusive,
    path::Path,
};

use super::{
    Condition, Fault, FaultKind, Identity, Manifest, Offset, Operation, ReadError, Seal,
    faults::{check_readable, fault_of, open_manifest, overlaps},
    files::{segment_path, sync_dir},
    frame::{BLOCK, GROUP_FRAME, GroupFrame, SegmentHeader, crc},
    inventory::{Inventory, Item},
};
use mailrace_stage::{Bug, FileOp, act, planted};

/// Octets by position: a file, or memory in tests.
pub trait Octets {
    /// Reads up to `into.len()` octets at `position`; less only at the end.
    ///
    /// # Errors
    /// What the storage says.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize>;
}

impl Octets for File {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match std::os::unix::fs::FileExt::read_at(self, rest, position + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl Octets for [u8] {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(self.len());
        let (_, octets) = self.split_at(from);
        let len = octets.len().min(into.len());
        into.split_at_mut(len).0.copy_from_slice(octets.split_at(len).0);
        Ok(len)
    }
}

/// Offsets left out after an end that was not orderly: more than records can have been under way
/// unsynced. A group holds 4 MiB, a record no less than 200 octets, and one group is written while the
/// next gathers.
///
/// A reader outside the server goes by the frames and may have seen such records. Where power takes
/// all of them nothing shows it, so the offsets are left out however the log ends: none of them comes
/// to name another record.
const TORN_GAP: u32 = 1 << 16;

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At a block of zeros, or the file's end.
    Clean,
    /// At a group that was never wholly written: not acknowledged, left out.
    Torn,
    /// At a group after which acknowledged records lie: `acknowledged` is their last known end.
    Damaged {
        /// High-water mark found after the break.
        acknowledged: u64,
    },
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Its header.
    pub header: SegmentHeader,
    /// Offset after the last record.
    pub end_offset: u64,
    /// Position after the last good group.
    pub end_position: u64,
    /// Highest mark in a good group: records below it were acknowledged.
    pub high_water_mark: u64,
    /// How it ends.
    pub end: End,
}

/// Walks a segment. `None`: no header, so nothing was ever acknowledged in it.
///
/// # Errors
/// A failed read: nothing is concluded from it.
pub fn walk(segment: &(impl Octets + ?Sized), bytes: u64) -> io::Result<Option<Walked>> {
    let mut block = vec![0; BLOCK];
    segment.read_at(0, &mut block)?;
    let Some((header, mut chain)) = SegmentHeader::decode(&block) else { return Ok(None) };
    let mut position = BLOCK as u64;
    let mut number = 0;
    let mut end_offset = header.first_offset;
    let mut high_water_mark = 0;
    let mut payload = Vec::new();
    let end = loop {
        if position >= bytes {
            break End::Clean;
        }
        block.fill(0);
        segment.read_at(position, &mut block)?;
        let good = match GroupFrame::decode(&block) {
            Some((frame, sum))
                if frame.nonce == header.nonce
                    && frame.number == number
                    && frame.chain == chain
                    && position + frame.span() <= bytes =>
            {
                payload.resize(frame.payload_bytes as usize, 0);
                let read = segment.read_at(position + GROUP_FRAME as u64, &mut payload)?;
                (read == payload.len() && crc(&payload) == frame.payload_crc)
                    .then_some((frame, sum))
            }
            _ => None,
        };
        match good {
            Some((frame, sum)) => {
                chain = sum;
                number += 1;
                position += frame.span();
                end_offset = frame.first_offset.saturating_add(u64::from(frame.records));
                high_water_mark = high_water_mark.max(frame.high_water_mark);
            }
            None => break judge(segment, bytes, &header, position, end_offset, &block)?,
        }
    };
    Ok(Some(Walked { header, end_offset, end_position: position, high_water_mark, end }))
}

/// Tells a clean end from a torn tail from damage.
pub(super) fn judge(
    segment: &(impl Octets + ?Sized),
    bytes: u64,
    header: &SegmentHeader,
    from: u64,
    end_offset: u64,
    first: &[u8],
) -> io::Result<End> {
    let mut end = if first.iter().all(|&octet| octet == 0) { End::Clean } else { End::Torn };
    // The highest mark behind the break: each group's own lies below its records.
    let mut acknowledged = end_offset;
    let mut chunk = vec![0; 256 * BLOCK];
    let mut position = from;
    while position < bytes {
        let read = segment.read_at(position, &mut chunk)?;
        for block in chunk.split_at(read).0.chunks(BLOCK) {
            let Some((frame, _)) = GroupFrame::decode(block) else { continue };
            if frame.nonce == header.nonce || planted(Bug::NonceUnchecked) {
                acknowledged = acknowledged.max(frame.high_water_mark);
                end = End::Torn;
            }
        }
        if read < chunk.len() {
            break;
        }
        position += read as u64;
    }
    Ok(if acknowledged > end_offset { End::Damaged { acknowledged } } else { end })
}

/// Looks through a segment whose header is missing. `None`: it holds no group either, so it was
/// prepared and never used. Otherwise the segment ends before its first record.
///
/// Without the header its nonce is unknown, and mail data may hold anything that looks like a
/// group. So a group counts only if its offset follows soon enough after `before`, which is where
/// the previous segments end: with their records, and with what is left out after them. It may
/// have begun between the two, where a recovery that left offsets out was interrupted. If all groups are others, nothing is concluded, and the file stays.
fn walk_headless(
    segment: &(impl Octets + ?Sized),
    bytes: u64,
    number: u64,
    identity: Identity,
    before: RangeInclusive<u64>,
) -> io::Result<Option<Walked>> {
    let (seen, before) = before.into_inner();
    let plausible = seen..=before.saturating_add(2 * u64::from(TORN_GAP) + held_at_most(bytes));
    let mut block = vec![0; GROUP_FRAME];
    let mut doubtful = None;
    for position in (BLOCK as u64..bytes).step_by(BLOCK) {
        segment.read_at(position, &mut block)?;
        let Some((frame, _)) = GroupFrame::decode(&block) else { continue };
        let first_offset = frame.first_offset;
        if !plausible.contains(&first_offset) {
            doubtful.get_or_insert(frame.nonce);
            continue;
        }
        let header = SegmentHeader { nonce: frame.nonce, identity, number, first_offset };
        let end = match judge(segment, bytes, &header, BLOCK as u64, first_offset, &[1])? {
            End::Damaged { acknowledged } => {
                let most = first_offset.saturating_add(held_at_most(bytes));
                End::Damaged { acknowledged: acknowledged.min(most) }
            }
            end => end,
        };
        return Ok(Some(Walked {
            header,
            end_offset: first_offset,
            end_position: 0,
            high_water_mark: 0,
            end,
        }));
    }
    // Whatever that is, it is kept, and named.
    Ok(doubtful.map(|nonce| Walked {
        header: SegmentHeader { nonce, identity, number, first_offset: before },
        end_offset: before,
        end_position: 0,
        high_water_mark: 0,
        end: End::Damaged { acknowledged: before },
    }))
}

/// What the later segments say about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Later {
    /// First offset of the next segment.
    first_offset: u64,
    /// Records below were acknowledged.
    acknowledged: u64,
}

/// What becomes of a segment: a pure function of its content and of what the later ones say.
///
/// | its end | later segments | lost | offsets left out |
/// |---|---|---|---|
/// | clean | none, sealed ones neither | none | [`TORN_GAP`] |
/// | clean | they tell of no mark beyond it | none | none |
/// | torn | none, or they tell of no mark beyond it | none | [`TORN_GAP`] |
/// | clean or torn | marks beyond it | up to the next segment | those |
/// | clean or torn | the next begins just [`TORN_GAP`] after it: an earlier recovery judged it | none | [`TORN_GAP`] |
/// | damaged | none | up to the mark found in it | those and [`TORN_GAP`] |
/// | damaged | any | up to the next segment | those |
fn judge_with(walked: &Walked, later: Option<Later>, is_last: bool) -> Verdict {
    let from = walked.end_offset;
    let told = later.map_or(from, |later| later.acknowledged.min(later.first_offset));
    let gap = u64::from(TORN_GAP);
    let judged_before = later.is_some_and(|later| later.first_offset == from.saturating_add(gap));
    match walked.end {
        End::Clean | End::Torn if judged_before => Verdict { lost: 0, skipped: gap },
        End::Clean | End::Torn if told > from => {
            Verdict { lost: told - from, skipped: told - from }
        }
        End::Clean if !is_last || planted(Bug::OffsetReusedAfterPowerCut) => {
            Verdict { lost: 0, skipped: 0 }
        }
        End::Clean | End::Torn => Verdict { lost: 0, skipped: gap },
        End::Damaged { acknowledged } => {
            let lost = acknowledged.max(told) - from;
            // Records behind the last known mark may have been acknowledged as well.
            Verdict { lost, skipped: if later.is_some() { lost } else { lost.saturating_add(gap) } }
        }
    }
}

/// See [`judge_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    /// Acknowledged records that are not there.
    lost: u64,
    /// Offsets after the last record that no later record may get.
    skipped: u64,
}

/// A shard's log, ready to be appended to.
#[derive(Debug)]
pub struct Recovery {
    /// Offset of the next record: never used before.
    pub next_offset: Offset,
    /// Number of the next segment.
    pub next_segment: u64,
    /// Octets of torn tails, left out.
    pub truncated_bytes: u64,
    /// Acknowledged records that are not there, at most.
    pub lost_records: u64,
    /// What is wrong; reported again at every start while the segment is kept.
    pub damage: Vec<Fault>,
    /// What an operator should know besides, a sentence each.
    pub notices: Vec<String>,
    /// Open for further seals.
    pub manifest: Manifest,
}

/// No record takes less of a segment file.
const RECORD_BYTES_MIN: u64 = 200;

/// Recovers the log of one shard: judges what has no seal, seals it, removes what was prepared and
/// never used.
///
/// # Errors
/// [`ReadError::OtherLog`] where the directory holds another log, [`ReadError::Unsealed`] where a
/// segment without a seal cannot be read, [`ReadError::Io`]; what was sealed so far stays sealed.
pub fn recover(dir: &Path, identity: Identity) -> Result<Recovery, ReadError> {
    let manifest_path = dir.join("manifest");
    let (mut manifest, mut damage, mut notices) = open_manifest(dir, identity)?;
    let inventory = Inventory::take(dir, identity, manifest.content())?;
    check_readable(dir, identity, &inventory)?;
    manifest.make_durable().map_err(changed(&manifest_path))?;
    if manifest.content().owner.is_none() {
        let earlier = record_earlier_deletions(&mut manifest, &inventory);
        notices.extend(earlier.map_err(changed(&manifest_path))?);
        manifest.mark(identity).map_err(changed(&manifest_path))?;
    }
    for item in unsealed(&inventory) {
        let path = segment_path(dir, item.number);
        act(FileOp::Sync, &path, || File::open(&path)?.sync_all()).map_err(changed(&path))?;
    }
    sync_dir(dir).map_err(changed(dir))?;
    let mut truncated_bytes = 0;
    let mut fresh = Vec::new();
    let mut unused = Vec::new();
    let mut lost = Vec::new();
    let mut later: Option<Later> = None;
    // From the last to the first: a later segment tells what was acknowledged in an earlier one.
    for item in unsealed(&inventory).rev() {
        let path = segment_path(dir, item.number);
        let cut = item.condition != Condition::Open;
        let before = || offset_before(dir, &manifest, &inventory, item.number);
        let Some((walked, bytes)) = open_unsealed(&path, item.number, identity, &before)? else {
            if cut { &mut lost } else { &mut unused }.push(item.number);
            continue;
        };
        // A sealed one may follow where its own seal was lost.
        let follows = |seal: &Seal| seal.number > item.number && seal.end_position > 0;
        let is_last = later.is_none() && !manifest.seals().iter().any(follows);
        let mut verdict = judge_with(&walked, later, is_last);
        let first_offset = walked.header.first_offset;
        if cut {
            // How much was written behind is not known.
            let most = match later {
                Some(later) => later.first_offset.saturating_sub(walked.end_offset),
                None => held_at_most(item.needed.saturating_sub(walked.end_position)),
            };
            verdict.lost = verdict.lost.max(most);
            verdict.skipped = verdict.skipped.max(most);
        }
        // Its header never reached the disk: no sync of it returned, so nothing in it or behind it
        // was acknowledged, and nothing can be read of it. It goes, with its offsets.
        let begun = walked.end_position == 0
            && walked.end == End::Torn
            && later.is_none_or(|later| later.acknowledged <= walked.end_offset)
            && verdict.lost == 0
            && !cut;
        if walked.end == End::Torn && verdict.lost == 0 {
            truncated_bytes += bytes - walked.end_position;
        }
        fresh.push(Seal {
            number: item.number,
            nonce: walked.header.nonce,
            first_offset,
            end_offset: walked.end_offset,
            end_position: walked.end_position,
            damaged: cut || verdict.lost > 0 || matches!(walked.end, End::Damaged { .. }),
            skipped: u32::try_from(verdict.skipped).unwrap_or(u32::MAX),
            reach: None,
            removed: begun,
        });
        if begun {
            unused.push(item.number);
            continue;
        }
        let acknowledged = later.map_or(0, |l| l.acknowledged).max(walked.high_water_mark);
        later = Some(Later { first_offset, acknowledged });
    }
    // Sealed from the first to the last: where this is interrupted, what is judged again needs
    // nothing of what was sealed.
    let mut settled = !fresh.is_empty();
    for seal in fresh.iter().rev() {
        manifest.append(seal).map_err(changed(&manifest_path))?;
    }
    // The last segment, gone before it was sealed: what it held, nothing tells.
    lost.extend(missing(&inventory).filter(|item| item.seal.is_none()).map(|item| item.number));
    for number in lost {
        let begun = inventory.begun.map_or(0, |begun| begun.bytes);
        let later =
            manifest.seals().iter().filter(|seal| seal.number > number && seal.end_position > 0);
        let seal = match later.map(|seal| seal.first_offset).min() {
            // What comes later has its offsets already.
            Some(first_offset) => lost_segment(number, first_offset, 0),
            None => lost_segment(number, next_offset(&manifest), held_at_most(begun)),
        };
        manifest.append(&seal).map_err(changed(&manifest_path))?;
        settled = true;
    }
    // Groups in a segment of which nothing reached the disk may have been seen as well.
    if let (false, Some(&number)) = (settled, unused.first()) {
        let seal = lost_segment(number, next_offset(&manifest), u64::from(TORN_GAP));
        let seal = Seal { damaged: false, removed: true, ..seal };
        manifest.append(&seal).map_err(changed(&manifest_path))?;
    }
    record_unknown(&mut manifest, &inventory).map_err(changed(&manifest_path))?;
    remove_unused(dir, identity, &mut manifest, &inventory, &unused)?;
    sync_dir(dir).map_err(changed(dir))?;
    // Looked at once more: what was judged has a seal now.
    let inventory = Inventory::take(dir, identity, manifest.content())?;
    let mut lost_records = 0;
    for item in &inventory.items {
        let (fault, lost) = fault_of(dir, identity.shard, &inventory, item);
        damage.extend(fault);
        lost_records += lost;
    }
    damage.extend(overlaps(identity.shard, &inventory));
    let next_segment = inventory.items.last().map_or(1, |last| last.number + 1);
    // Retention may have deleted every segment: the manifest remembers what was given out.
    let next_offset = Offset::new(next_offset(&manifest));
    Ok(Recovery {
        next_offset,
        next_segment,
        truncated_bytes,
        lost_records,
        damage,
        notices,
        manifest,
    })
}

/// Names the file or directory that recovery could not change.
fn changed(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    ReadError::io(Operation::Change, path)
}

/// The manifest was lost, and with it which of the segments that are not there were used: nobody is
/// to miss them, and their offsets are left out.
fn record_unknown(manifest: &mut Manifest, inventory: &Inventory) -> io::Result<()> {
    let Some(begun) = inventory.begun else { return Ok(()) };
    let known: BTreeSet<u64> = inventory
        .items
        .iter()
        .map(|item| item.number)
        .chain(manifest.seals().iter().map(|seal| seal.number))
        .collect();
    let last = next_offset(manifest);
    let skipped = |number| if number == begun.number { held_at_most(begun.bytes) } else { 0 };
    let seals: Vec<_> = (begun.from..=begun.number)
        .filter(|number| !known.contains(number))
        .map(|number| Seal { removed: true, ..lost_segment(number, last, skipped(number)) })
        .collect();
    manifest.append_all(&seals)
}

fn next_offset(manifest: &Manifest) -> u64 {
    let forgotten = |seal: &Seal| {
        planted(Bug::OffsetReusedAfterRetention)
            && manifest.find(seal.number).is_some_and(|last| last.removed)
    };
    let seals = manifest.seals().iter().filter(|seal| !forgotten(seal));
    let last = seals.map(Seal::next_offset).max().unwrap_or(0);
    if planted(Bug::OffsetReusedAfterRecovery) { last.saturating_sub(1) } else { last }
}

/// Where the log ends ahead of a segment, as far as it can be read: with its records, and with what
/// is left out after them.
fn offset_before(
    dir: &Path,
    manifest: &Manifest,
    inventory: &Inventory,
    number: u64,
) -> Result<RangeInclusive<u64>, ReadError> {
    let seals = || manifest.seals().iter().filter(|seal| seal.number < number);
    let mut seen = seals().map(|seal| seal.end_offset).max().unwrap_or(0);
    let mut before = seals().map(Seal::next_offset).max().unwrap_or(0);
    for item in unsealed(inventory).filter(|item| item.number < number) {
        let path = segment_path(dir, item.number);
        let walked = File::open(&path).and_then(|file| walk(&file, file.metadata()?.len()));
        let walked = walked.map_err(ReadError::io(Operation::Read, &path))?;
        let end = walked.map_or(0, |walked| walked.end_offset);
        (seen, before) = (seen.max(end), before.max(end));
    }
    Ok(seen..=before)
}

/// Segments that have a file and no seal, in order.
fn unsealed(inventory: &Inventory) -> impl DoubleEndedIterator<Item = &Item> {
    inventory.items.iter().filter(|item| {
        item.seal.is_none()
            && matches!(item.condition, Condition::Open | Condition::Faulty(FaultKind::Truncated))
    })
}

fn missing(inventory: &Inventory) -> impl Iterator<Item = &Item> {
    let missing = Condition::Faulty(FaultKind::Missing);
    inventory.items.iter().filter(move |item| item.condition == missing)
}

/// Records that so many octets of a segment can have held.
fn held_at_most(bytes: u64) -> u64 {
    bytes / RECORD_BYTES_MIN + 1
}

/// The seal of a segment of which nothing is left.
fn lost_segment(number: u64, first_offset: u64, at_most: u64) -> Seal {
    Seal {
        number,
        nonce: [0; 16],
        first_offset,
        end_offset: first_offset,
        end_position: 0,
        damaged: true,
        skipped: u32::try_from(at_most).unwrap_or(u32::MAX),
        reach: None,
        removed: false,
    }
}

/// An earlier version kept no record of what it deleted: what is missing from the front.
fn record_earlier_deletions(
    manifest: &mut Manifest,
    inventory: &Inventory,
) -> io::Result<Option<String>> {
    let gone = |item: &&Item| {
        item.condition == Condition::Gone && item.seal.is_some_and(|seal| !seal.removed)
    };
    let gone: Vec<u64> = inventory.items.iter().filter(gone).map(|item| item.number).collect();
    manifest.remove(&gone)?;
    let name = manifest.path().display();
    Ok(gone.last().map(|last| {
        format!(
            "{name}: {} segments up to {last} are missing; an earlier version kept no record of \
             what it deleted, so they count as deleted",
            gone.len()
        )
    }))
}

/// Deletes what was prepared and never used: recorded first, so that nobody misses it.
fn remove_unused(
    dir: &Path,
    identity: Identity,
    manifest: &mut Manifest,
    inventory: &Inventory,
    unused: &[u64],
) -> Result<(), ReadError> {
    let remove =
        |path: &Path| act(FileOp::Remove, path, || fs::remove_file(path)).map_err(changed(path));
    manifest.remove(unused).map_err(changed(&dir.join("manifest")))?;
    for &number in unused {
        remove(&segment_path(dir, number))?;
    }
    let recorded = inventory.items.iter().filter(|item| {
        let unread = item.header.is_none() && item.condition == Condition::Leftover;
        // A failed write ended it before its first sync.
        (unread || item.condition == Condition::Good) && item.error.is_none()
    });
    for item in recorded {
        let Some(seal) = item.seal.filter(|seal| seal.removed && seal.end_position == 0) else {
            continue;
        };
        let path = segment_path(dir, item.number);
        // Whatever is written down of it: a file that holds a group goes only where it was that
        // segment which was deleted.
        let before = || offset_before(dir, manifest, inventory, item.number);
        match open_unsealed(&path, item.number, identity, &before) {
            Ok(None) => remove(&path)?,
            Ok(Some((walked, _))) if walked.header.nonce == seal.nonce => remove(&path)?,
            Ok(Some(_)) | Err(_) => {}
        }
    }
    Ok(())
}

/// Walks a segment that has no seal. `None`: it was prepared and never used.
fn open_unsealed(
    path: &Path,
    number: u64,
    identity: Identity,
    before: &dyn Fn() -> Result<RangeInclusive<u64>, ReadError>,
) -> Result<Option<(Walked, u64)>, ReadError> {
    let reading = || ReadError::io(Operation::Read, path);
    let file = File::open(path).map_err(ReadError::io(Operation::Open, path))?;
    let bytes = file.metadata().map_err(reading())?.len();
    let walked = match walk(&file, bytes).map_err(reading())? {
        Some(walked) => Some(walked),
        None => walk_headless(&file, bytes, number, identity, before()?).map_err(reading())?,
    };
    let Some(walked) = walked else { return Ok(None) };
    assert!(
        walked.header.identity == identity && walked.header.number == number,
        "another log's segment was set apart before"
    );
    Ok(Some((walked, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict() {
        let walked = |end| Walked {
            header: SegmentHeader {
                nonce: [1; 16],
                identity: Identity { node: [0; 6], shard: 0 },
                number: 1,
                first_offset: 10,
            },
            end_offset: 20,
            end_position: 8192,
            high_water_mark: 18,
            end,
        };
        let gap = u64::from(TORN_GAP);
        let damaged = End::Damaged { acknowledged: 26 };
        let next = |first_offset, acknowledged| Some(Later { first_offset, acknowledged });
        for (end, later, lost, skipped) in [
            (End::Clean, None, 0, gap),
            (End::Torn, None, 0, gap),
            (damaged, None, 6, 6 + gap),
            // The next segment was begun before this one was synced, and tells of nothing.
            (End::Clean, next(30, 18), 0, 0),
            (End::Torn, next(30, 18), 0, gap),
            (damaged, next(30, 18), 6, 6),
            // It tells that this one was synced to its end.
            (End::Clean, next(30, 35), 10, 10),
            (End::Torn, next(30, 35), 10, 10),
            (damaged, next(30, 35), 10, 10),
            (End::Clean, next(20, 35), 0, 0),
            // It was begun by the recovery that left out what may have been seen.
            (End::Clean, next(20 + gap, 40 + gap), 0, gap),
            (End::Torn, next(20 + gap, 40 + gap), 0, gap),
        ] {
            let verdict = judge_with(&walked(end), later, later.is_none());
            assert_eq!(verdict, Verdict { lost, skipped }, "{end:?} {later:?}");
        }
    }
}
