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
const TORN_GAP: u64 = 1 << 16;

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
                end_offset = frame.first_offset + u64::from(frame.records);
            }
            None => break judge(segment, bytes, &header, position, end_offset, &block)?,
        }
    };
    Ok(Some(Walked { header, end_offset, end_position: position, end }))
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
    let mut chunk = vec![0; 256 * BLOCK];
    let mut position = from;
    while position < bytes {
        let read = segment.read_at(position, &mut chunk)?;
        for block in chunk[..read].chunks(BLOCK) {
            let Some((frame, _)) = GroupFrame::decode(block) else { continue };
            if frame.nonce == header.nonce {
                if frame.high_water_mark > end_offset {
                    return Ok(End::Damaged { acknowledged: frame.high_water_mark });
                }
                end = End::Torn;
            }
        }
        if read < chunk.len() {
            break;
        }
        position += read as u64;
    }
    Ok(end)
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
    /// What is damaged, a sentence each.
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
    let mut next_offset = 0;
    let mut truncated_bytes = 0;
    let mut damage = Vec::new();
    for &number in &numbers {
        if let Some(seal) = manifest.find(number) {
            next_offset = next_offset.max(seal.end_offset);
            continue;
        }
        let path = segment_path(dir, number);
        let file = File::open(&path)?;
        let bytes = file.metadata()?.len();
        let Some(walked) = walk(&file, bytes)? else {
            // Prepared and never written to.
            fs::remove_file(&path)?;
            continue;
        };
        if walked.header.identity != identity || walked.header.number != number {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: a segment of another log", path.display()),
            ));
        }
        let mut end_offset = walked.end_offset;
        if let End::Damaged { acknowledged } = walked.end {
            damage.push(format!(
                "{}: damaged at position {}, acknowledged records {}..{} are lost",
                path.display(),
                walked.end_position,
                walked.end_offset,
                acknowledged,
            ));
            end_offset = end_offset.max(acknowledged);
        }
        if walked.end == End::Torn {
            truncated_bytes += bytes - walked.end_position;
            // A reader may have seen records of the torn tail: their offsets are left out, so that
            // none comes to name something else.
            end_offset += TORN_GAP;
        }
        let seal = Seal {
            number,
            nonce: walked.header.nonce,
            first_offset: walked.header.first_offset,
            end_offset: walked.end_offset,
            end_position: walked.end_position,
            damaged: matches!(walked.end, End::Damaged { .. }),
        };
        manifest.append(&seal)?;
        next_offset = next_offset.max(end_offset);
    }
    sync_dir(dir)?;
    let next_segment = numbers.last().map_or(1, |last| last + 1);
    let next_offset = Offset::new(next_offset);
    Ok(Recovery { next_offset, next_segment, truncated_bytes, damage, manifest })
}
