//! What a dead process left behind, judged: a pure walk of a segment's octets, and the opening of a
//! shard's log around it.
//!
//! 1. Every segment file without a seal, and the directory, is synced before it is read: the dead
//!    process may have left completed but unflushed writes.
//! 2. The groups are walked from the header. A group counts only if nonce, number, chain and
//!    checksums hold.
//! 3. At the first that does not: a torn tail, unless a later block holds a valid group of the same
//!    nonce whose high-water mark lies beyond the break. Then acknowledged records are lost: damage.
//! 4. The verdict is sealed in the manifest, so a second recovery says the same. The segment file
//!    itself is never written again.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{
    Identity, Manifest, Offset, Seal,
    files::{segment_numbers, segment_path, sync_dir},
    frame::{BLOCK, GROUP_FRAME, GroupFrame, SegmentHeader, crc},
};

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
        let octets = &self[from..];
        let len = octets.len().min(into.len());
        into[..len].copy_from_slice(&octets[..len]);
        Ok(len)
    }
}

/// More records than can have been under way unsynced: a group holds 4 MiB, a record no less than
/// 200 octets, and one group is written while the next gathers.
const TORN_GAP: u32 = 1 << 16;

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At a block of zeros, or the file's end.
    Clean,
    /// At a group that was never wholly written: not acknowledged, left out.
    Torn,
    /// At a group behind which acknowledged records lie: `acknowledged` is their last known end.
    Damaged {
        /// High-water mark found behind the break.
        acknowledged: u64,
    },
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Its header.
    pub header: SegmentHeader,
    /// Behind the last record.
    pub end_offset: u64,
    /// Behind the last good group.
    pub end_position: u64,
    /// Highest mark that a good group tells: records below it were acknowledged.
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
        for block in chunk[..read].chunks(BLOCK) {
            let Some((frame, _)) = GroupFrame::decode(block) else { continue };
            if frame.nonce == header.nonce {
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

/// Looks through a segment whose header is not there. `None`: it holds no group either, so it was
/// prepared and never used. Otherwise the segment ends before its first record.
fn walk_headless(
    segment: &(impl Octets + ?Sized),
    bytes: u64,
    number: u64,
    identity: Identity,
) -> io::Result<Option<Walked>> {
    let mut block = vec![0; GROUP_FRAME];
    for position in (BLOCK as u64..bytes).step_by(BLOCK) {
        segment.read_at(position, &mut block)?;
        let Some((frame, _)) = GroupFrame::decode(&block) else { continue };
        let first_offset = frame.first_offset;
        let header = SegmentHeader { nonce: frame.nonce, identity, number, first_offset };
        let end = judge(segment, bytes, &header, BLOCK as u64, first_offset, &[1])?;
        return Ok(Some(Walked {
            header,
            end_offset: first_offset,
            end_position: 0,
            high_water_mark: 0,
            end,
        }));
    }
    Ok(None)
}

/// What the segments behind one tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Later {
    /// First offset of the next segment.
    first_offset: u64,
    /// Records below were acknowledged.
    acknowledged: u64,
}

/// What becomes of a segment: a pure function of what it holds and what the later ones tell.
///
/// | its end | later segments | lost | offsets left out |
/// |---|---|---|---|
/// | clean or torn | none, or they tell of no mark beyond it | none | torn: [`TORN_GAP`] |
/// | clean or torn | marks beyond it | up to the next segment | those |
/// | torn | the next begins just [`TORN_GAP`] behind it: an earlier recovery judged it | none | [`TORN_GAP`] |
/// | damaged | none | up to the mark found in it | those and [`TORN_GAP`] |
/// | damaged | any | up to the next segment | those |
fn judge_with(walked: &Walked, later: Option<Later>) -> Verdict {
    let from = walked.end_offset;
    let told = later.map_or(from, |later| later.acknowledged.min(later.first_offset));
    let gap = u64::from(TORN_GAP);
    let judged_before = later.is_some_and(|later| later.first_offset == from.saturating_add(gap));
    match walked.end {
        End::Torn if judged_before => Verdict { lost: 0, skipped: gap },
        End::Clean | End::Torn if told > from => {
            Verdict { lost: told - from, skipped: told - from }
        }
        End::Clean => Verdict { lost: 0, skipped: 0 },
        // A reader may have seen records of the torn tail: their offsets are left out, so that
        // none comes to name something else.
        End::Torn => Verdict { lost: 0, skipped: gap },
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
    /// Offsets behind the last record that no later record may get.
    skipped: u64,
}

/// A shard's log, ready to be appended to.
#[derive(Debug)]
pub struct Recovery {
    /// Offset of the next record: never used before.
    pub next_offset: Offset,
    /// Number of the next segment.
    pub next_segment: u64,
    /// Octets behind torn tails, left out.
    pub truncated_bytes: u64,
    /// Acknowledged records that are not there, at most.
    pub lost_records: u64,
    /// What is damaged, a sentence each; told again at every start while the segment is kept.
    pub damage: Vec<String>,
    /// Open for further seals.
    pub manifest: Manifest,
}

/// Recovers the log of one shard: judges what has no seal, seals it, removes what was prepared and
/// never used.
///
/// # Errors
/// Where the directory or a file cannot be read or synced; what was sealed so far stays sealed.
pub fn recover(dir: &Path, identity: Identity) -> io::Result<Recovery> {
    let mut manifest = Manifest::open(&dir.join("manifest"))?;
    let numbers = segment_numbers(dir)?;
    for &number in &numbers {
        if manifest.find(number).is_none() {
            File::open(segment_path(dir, number))?.sync_all()?;
        }
    }
    sync_dir(dir)?;
    let mut truncated_bytes = 0;
    let mut fresh = Vec::new();
    let mut later: Option<Later> = None;
    // From the last to the first: a later segment tells what was acknowledged in an earlier one.
    for &number in numbers.iter().rev() {
        if manifest.find(number).is_some() {
            continue;
        }
        let path = segment_path(dir, number);
        let Some((walked, bytes)) = open_unsealed(&path, number, identity)? else {
            fs::remove_file(&path)?;
            continue;
        };
        let verdict = judge_with(&walked, later);
        if walked.end == End::Torn && verdict.lost == 0 {
            truncated_bytes += bytes - walked.end_position;
        }
        let first_offset = walked.header.first_offset;
        fresh.push(Seal {
            number,
            nonce: walked.header.nonce,
            first_offset,
            end_offset: walked.end_offset,
            end_position: walked.end_position,
            damaged: verdict.lost > 0 || matches!(walked.end, End::Damaged { .. }),
            skipped: u32::try_from(verdict.skipped).unwrap_or(u32::MAX),
            reach: None,
        });
        let acknowledged = later.map_or(0, |l| l.acknowledged).max(walked.high_water_mark);
        later = Some(Later { first_offset, acknowledged });
    }
    // Sealed from the first to the last: where this is interrupted, what is judged again needs
    // nothing of what was sealed.
    for seal in fresh.iter().rev() {
        manifest.append(seal)?;
    }
    sync_dir(dir)?;
    // Retention may have deleted every segment: the manifest remembers what was given out.
    let next_offset = manifest.seals().iter().map(Seal::next_offset).max().unwrap_or(0);
    let last_sealed = manifest.seals().iter().map(|seal| seal.number).max();
    let mut damage = Vec::new();
    let mut lost_records = 0;
    for seal in numbers.iter().filter_map(|&number| manifest.find(number)) {
        if seal.damaged {
            lost_records += u64::from(seal.skipped);
            damage.push(format!(
                "{}: damaged at position {}: acknowledged records are lost, {} at most, from \
                 offset {} on",
                segment_path(dir, seal.number).display(),
                seal.end_position,
                seal.skipped,
                seal.end_offset,
            ));
        }
    }
    let next_segment = numbers.last().copied().max(last_sealed).map_or(1, |last| last + 1);
    let next_offset = Offset::new(next_offset);
    Ok(Recovery { next_offset, next_segment, truncated_bytes, lost_records, damage, manifest })
}

/// Walks a segment that has no seal. `None`: it was prepared and never used.
fn open_unsealed(
    path: &Path,
    number: u64,
    identity: Identity,
) -> io::Result<Option<(Walked, u64)>> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let walked = match walk(&file, bytes)? {
        Some(walked) => Some(walked),
        None => walk_headless(&file, bytes, number, identity)?,
    };
    let Some(walked) = walked else { return Ok(None) };
    if walked.header.identity != identity || walked.header.number != number {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: a segment of another log", path.display()),
        ));
    }
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
            (End::Clean, None, 0, 0),
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
            // It was begun by the recovery that left the torn tail out.
            (End::Torn, next(20 + gap, 40 + gap), 0, gap),
        ] {
            let verdict = judge_with(&walked(end), later);
            assert_eq!(verdict, Verdict { lost, skipped }, "{end:?} {later:?}");
        }
    }
}
