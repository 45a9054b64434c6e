//! Records which segments of a shard were made, before a segment can be used, so that a segment
//! that disappears before it was ever sealed is noticed too.
//!
//! ```text
//! DIR/shard-000/shard.meta
//!   block 0   magic "MRSHARD1"; an earlier version made this block alone
//!   block 1, block 2   two slots, written in turn; the valid one of the higher generation counts
//!     0   8  magic "MRBEGUN1"
//!     8   8  generation, from 1
//!    16   8  number of the segment that was made last
//!    24   8  octets of its file
//!    32   8  number of the segment from which on each one was recorded
//!    40   4  CRC-32C of the 40 octets before
//! ```

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::{
    Operation, ReadError,
    frame::{BLOCK, crc},
    private::private_file,
    recovery::Octets,
};
use mailrace_stage::{FileOp, act};

const MAGIC: &[u8; 8] = b"MRSHARD1";
const SLOT: &[u8; 8] = b"MRBEGUN1";
const SUMMED: usize = 40;

/// The segments of a shard that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Begun {
    /// Number of the first that was written down; those up to the last were as well.
    pub(super) from: u64,
    /// Number of the last.
    pub(super) number: u64,
    /// Octets of its file: all of them were allocated before it was used. So it is with those
    /// before it that have no seal yet, which the same process made.
    pub(super) bytes: u64,
}

impl Begun {
    /// Whether a segment was made.
    pub(super) fn covers(self, number: u64) -> bool {
        (self.from..=self.number).contains(&number)
    }
}

/// Makes the file where it is missing or too short, all its blocks written (D9).
pub(super) fn make_meta(dir: &Path) -> io::Result<()> {
    let path = dir.join("shard.meta");
    if std::fs::metadata(&path).map_or(0, |facts| facts.len()) >= BLOCK as u64 {
        return Ok(());
    }
    let mut blocks = [0; 3 * BLOCK];
    blocks[..8].copy_from_slice(MAGIC);
    let file = act(FileOp::Make, &path, || {
        private_file().create(true).truncate(false).write(true).open(&path)
    })?;
    act(FileOp::Write, &path, || file.write_all_at(&blocks, 0))?;
    act(FileOp::Sync, &path, || file.sync_all())
}

/// What was written down last; `None`: nothing, as in a directory of an earlier version.
pub(super) fn last_begun(dir: &Path) -> Result<Option<Begun>, ReadError> {
    let path = dir.join("shard.meta");
    match File::open(&path) {
        Ok(file) => {
            let newest = newest(&file).map_err(ReadError::io(Operation::Read, &path))?;
            Ok(newest.map(|(_, begun)| begun))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ReadError::io(Operation::Open, &path)(error)),
    }
}

/// Writes a segment down, durably. One writer: the shard, or a tool in its place.
pub(super) fn begin(dir: &Path, number: u64, bytes: u64) -> io::Result<()> {
    record(dir, |newest| {
        // The same number once more: the try before failed after this was written.
        let onward = newest.filter(|last| last.number + 1 == number || last.number == number);
        Some(Begun { from: onward.map_or(number, |last| last.from), number, bytes })
    })
}

/// Writes down which segments a copy of a log holds.
pub(super) fn write_begun(dir: &Path, begun: Begun) -> io::Result<()> {
    record(dir, |_| Some(begun))
}

/// The last number is not made after all. Whatever else was written down stays.
pub(super) fn give_back(dir: &Path, number: u64) -> io::Result<()> {
    record(dir, |newest| {
        let last = newest.filter(|last| last.number == number)?;
        // Where it was the first as well, what is left covers no number.
        Some(Begun { number: number.saturating_sub(1), ..last })
    })
}

/// Writes down what `next` makes of the last entry; nothing where that is `None`.
fn record(dir: &Path, next: impl FnOnce(Option<Begun>) -> Option<Begun>) -> io::Result<()> {
    let path = dir.join("shard.meta");
    let file = act(FileOp::Make, &path, || {
        private_file().create(true).truncate(false).read(true).write(true).open(&path)
    })?;
    let newest = newest(&file)?;
    let generation = newest.map_or(1, |(generation, _)| generation + 1);
    let Some(Begun { from, number, bytes }) = next(newest.map(|(_, last)| last)) else {
        return Ok(());
    };
    let mut block = [0; BLOCK];
    block[..8].copy_from_slice(SLOT);
    block[8..16].copy_from_slice(&generation.to_le_bytes());
    block[16..24].copy_from_slice(&number.to_le_bytes());
    block[24..32].copy_from_slice(&bytes.to_le_bytes());
    block[32..40].copy_from_slice(&from.to_le_bytes());
    let sum = crc(&block[..SUMMED]);
    block[SUMMED..SUMMED + 4].copy_from_slice(&sum.to_le_bytes());
    let at = (1 + generation % 2) * BLOCK as u64;
    act(FileOp::Write, &path, || file.write_all_at(&block, at))?;
    act(FileOp::Sync, &path, || file.sync_data())
}

fn newest(file: &File) -> io::Result<Option<(u64, Begun)>> {
    let mut octets = [0; 2 * BLOCK];
    Octets::read_at(file, BLOCK as u64, &mut octets)?;
    let (first, second) = octets.split_at(BLOCK);
    let slots = [decode(first, 0), decode(second, 1)];
    Ok(slots.into_iter().flatten().max_by_key(|(generation, _)| *generation))
}

fn decode(block: &[u8], place: u64) -> Option<(u64, Begun)> {
    let number = |at: usize| {
        block.get(at..at + 8).and_then(|octets| octets.try_into().ok()).map(u64::from_le_bytes)
    };
    let sum = u32::from_le_bytes(block.get(SUMMED..SUMMED + 4)?.try_into().ok()?);
    if block.get(..8)? != SLOT || crc(block.get(..SUMMED)?) != sum {
        return None;
    }
    let generation = number(8)?;
    let begun = Begun { from: number(32)?, number: number(16)?, bytes: number(24)? };
    // A slot in the other's place is a misdirected write.
    (generation % 2 == place).then_some((generation, begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_segment_outlives_a_torn_slot() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_begun(dir.path()).unwrap(), None);
        make_meta(dir.path()).unwrap();
        assert_eq!(last_begun(dir.path()).unwrap(), None, "as an earlier version left it");
        let begun = |number| Begun { from: 1, number, bytes: number << 20 };
        for number in 1..8 {
            begin(dir.path(), number, number << 20).unwrap();
            assert_eq!(last_begun(dir.path()).unwrap(), Some(begun(number)));
        }
        let path = dir.path().join("shard.meta");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), 3 * BLOCK);
        // Generation 7 lies in the last block, 6 in the one before.
        for (block, left) in [(1, Some(begun(7))), (2, Some(begun(6)))] {
            let mut torn = whole.clone();
            torn[block * BLOCK + 20] ^= 1;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(last_begun(dir.path()).unwrap(), left);
        }
        std::fs::write(&path, &whole).unwrap();
        begin(dir.path(), 7, 7 << 20).unwrap();
        assert_eq!(last_begun(dir.path()).unwrap(), Some(begun(7)), "a failed try is made again");
        begin(dir.path(), 100, 5).unwrap();
        let jumped = Begun { from: 100, number: 100, bytes: 5 };
        assert_eq!(last_begun(dir.path()).unwrap(), Some(jumped), "those between were never made");
        assert!(jumped.covers(100) && !jumped.covers(99) && begun(7).covers(1));
        std::fs::write(&path, &whole[..BLOCK]).unwrap();
        assert_eq!(last_begun(dir.path()).unwrap(), None);
    }
}
