//! A consumer group's committed offset in one shard (D11).
//!
//! ```text
//! DIR/groups/NAME/shard-000.offset
//!   block 0, block 1   two slots, written in turn; the valid one of the higher generation counts
//!     0   8  magic "MRGRP001"
//!     8   8  generation, from 1
//!    16   8  committed offset: the next record wanted
//!    24   8  replayed until: records below it were sent before
//!    32   8  when, microseconds since 1970
//!    40   4  CRC-32C of the 40 octets before
//! ```
//!
//! A crash in the middle of a save tears the older slot; the other stays valid. If both are bad,
//! the group begins at the log start again (duplicates, never loss).
//!
//! A save holds the file's lock and first checks whether another process has saved since, so that
//! an operator's seek and a running consumer do not overwrite each other. The consumer sees that it
//! was moved and continues from there.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use super::{
    files::{sync_dir, unix_micros},
    frame::{BLOCK, crc},
    private::{make_private_dir, private_file},
    recovery::Octets,
};
use mailrace_stage::{FileOp, act};

const MAGIC: &[u8; 8] = b"MRGRP001";
const SUMMED: usize = 40;

/// A group's place in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The next record wanted: one past the highest contiguous one that is done.
    pub offset: u64,
    /// Records below this offset were sent before: sending them is a replay.
    pub replayed_until: u64,
    /// When it was saved, microseconds since 1970.
    pub saved_at: i64,
}

/// What a save, or a look, found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// It is durable.
    Done,
    /// Nothing was written: somebody else has moved the group meanwhile.
    Moved(Committed),
}

/// What an offset file held when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing yet.
    Fresh,
    /// A place.
    Committed(Committed),
    /// Two slots, neither of them good.
    Damaged,
}

/// See the module's page. Lives as long as a consumer; its methods block.
#[derive(Debug)]
pub struct CommittedOffset {
    file: File,
    path: PathBuf,
    generation: u64,
    /// Generation and offset of a save that failed: it may be there all the same, and is no move of
    /// somebody else's.
    failed: Option<(u64, u64)>,
}

impl CommittedOffset {
    /// Opens or makes an offset file, both blocks allocated (D9), its directory entry durable.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<(Self, Found)> {
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        make_private_dir(dir)?;
        let mut file = private_file();
        let file = act(FileOp::Make, path, || {
            file.create(true).truncate(false).read(true).write(true).open(path)
        })?;
        let _lock = Lock::take(&file)?;
        if file.metadata()?.len() < 2 * BLOCK as u64 {
            // Zeros written, not a hole: a full disk must not stand in the way of a save.
            act(FileOp::Write, path, || file.write_all_at(&[0; 2 * BLOCK], 0))?;
            act(FileOp::Sync, path, || file.sync_all())?;
            sync_dir(dir)?;
            for above in dir.ancestors().skip(1).take(2) {
                sync_dir(above)?;
            }
        }
        let slots = read(&file)?;
        let found = match slots.best() {
            Some((_, committed)) => Found::Committed(committed),
            None if slots.blank => Found::Fresh,
            None => Found::Damaged,
        };
        let generation = slots.best().map_or(0, |(generation, _)| generation);
        Ok((Self { file, path: path.to_owned(), generation, failed: None }, found))
    }

    /// Reads an offset file without opening it for good; `None` where it is missing or holds no
    /// good slot.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(path: &Path) -> io::Result<Option<Committed>> {
        match File::open(path) {
            Ok(file) => Ok(read(&file)?.best().map(|(_, committed)| committed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a new offset durable, unless another process has moved the group since. `saved_at` is
    /// set here.
    ///
    /// # Errors
    /// What the file system says; the old offset remains then, or the new one.
    pub fn save(&mut self, committed: Committed) -> io::Result<Saved> {
        let _lock = Lock::take(&self.file)?;
        if let Some(moved) = self.newer()? {
            return Ok(Saved::Moved(moved));
        }
        self.write(committed)?;
        Ok(Saved::Done)
    }

    /// Makes a new offset durable, even if another process has moved the group: an operator's seek.
    ///
    /// # Errors
    /// What the file system says.
    pub fn seek(&mut self, to: impl FnOnce(Option<Committed>) -> Committed) -> io::Result<()> {
        let _lock = Lock::take(&self.file)?;
        let now = read(&self.file)?.best();
        self.generation = now.map_or(self.generation, |(generation, _)| generation);
        self.write(to(now.map(|(_, committed)| committed)))
    }

    /// Checks whether another process has moved the group.
    ///
    /// # Errors
    /// What the file system says.
    pub fn look(&mut self) -> io::Result<Option<Committed>> {
        let _lock = Lock::take(&self.file)?;
        self.newer()
    }

    fn newer(&mut self) -> io::Result<Option<Committed>> {
        let Some((generation, committed)) = read(&self.file)?.best() else { return Ok(None) };
        if generation <= self.generation {
            return Ok(None);
        }
        self.generation = generation;
        let own = self.failed.take() == Some((generation, committed.offset));
        Ok((!own).then_some(committed))
    }

    fn write(&mut self, committed: Committed) -> io::Result<()> {
        let generation = self.generation + 1;
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(MAGIC);
        block[8..16].copy_from_slice(&generation.to_le_bytes());
        block[16..24].copy_from_slice(&committed.offset.to_le_bytes());
        block[24..32].copy_from_slice(&committed.replayed_until.to_le_bytes());
        block[32..40].copy_from_slice(&unix_micros().to_le_bytes());
        let sum = crc(&block[..SUMMED]);
        block[SUMMED..SUMMED + 4].copy_from_slice(&sum.to_le_bytes());
        let at = generation % 2 * BLOCK as u64;
        self.failed = Some((generation, committed.offset));
        act(FileOp::Write, &self.path, || self.file.write_all_at(&block, at))?;
        act(FileOp::Sync, &self.path, || self.file.sync_data())?;
        self.failed = None;
        self.generation = generation;
        Ok(())
    }
}

struct Slots {
    slots: [Option<(u64, Committed)>; 2],
    /// Nothing was ever written.
    blank: bool,
}

impl Slots {
    fn best(&self) -> Option<(u64, Committed)> {
        self.slots.iter().flatten().copied().max_by_key(|(generation, _)| *generation)
    }
}

fn read(file: &File) -> io::Result<Slots> {
    let mut octets = [0; 2 * BLOCK];
    Octets::read_at(file, 0, &mut octets)?;
    let (first, second) = octets.split_at(BLOCK);
    let blank = octets.iter().all(|&octet| octet == 0);
    Ok(Slots { slots: [decode(first, 0), decode(second, 1)], blank })
}

fn decode(block: &[u8], place: u64) -> Option<(u64, Committed)> {
    let number = |at: usize| block.get(at..at + 8).and_then(|octets| octets.try_into().ok());
    let sum = u32::from_le_bytes(block.get(SUMMED..SUMMED + 4)?.try_into().ok()?);
    if block.get(..8)? != MAGIC || crc(block.get(..SUMMED)?) != sum {
        return None;
    }
    let generation = u64::from_le_bytes(number(8)?);
    let committed = Committed {
        offset: u64::from_le_bytes(number(16)?),
        replayed_until: u64::from_le_bytes(number(24)?),
        saved_at: i64::from_le_bytes(number(32)?),
    };
    // A slot in the other's place is a misdirected write.
    (generation % 2 == place).then_some((generation, committed))
}

/// The lock of an open file; goes with its value.
pub(super) struct Lock(File);

impl Lock {
    pub(super) fn take(file: &File) -> io::Result<Self> {
        // SAFETY: a descriptor of ours.
        while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        // Another descriptor of the same open file: the lock belongs to both.
        Ok(Self(file.try_clone()?))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: a descriptor of ours.
        let _ = unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn at(offset: u64) -> Committed {
        Committed { offset, ..Committed::default() }
    }

    fn offset(found: Found) -> Option<u64> {
        match found {
            Found::Committed(committed) => Some(committed.offset),
            _ => None,
        }
    }

    #[test]
    fn what_was_saved_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("groups/g/shard-000.offset");
        let (mut file, found) = CommittedOffset::open(&path).unwrap();
        assert_eq!(found, Found::Fresh);
        for step in 1..10 {
            assert_eq!(file.save(at(step * 7)).unwrap(), Saved::Done);
            let (_, found) = CommittedOffset::open(&path).unwrap();
            assert_eq!(offset(found), Some(step * 7));
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 8_192);
    }

    /// T12: each slot torn at each octet of its content, each bit flipped, both bad.
    #[test]
    fn a_torn_slot_leaves_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g/shard-000.offset");
        let (mut file, _) = CommittedOffset::open(&path).unwrap();
        file.save(at(100)).unwrap();
        file.save(at(200)).unwrap();
        let whole = fs::read(&path).unwrap();
        // Generation 1 lies in the second block, 2 in the first.
        for (block, left) in [(0, 100), (1, 200)] {
            for octet in 0..44 {
                for bit in 0..8 {
                    let mut torn = whole.clone();
                    torn[block * BLOCK + octet] ^= 1 << bit;
                    fs::write(&path, &torn).unwrap();
                    let (_, found) = CommittedOffset::open(&path).unwrap();
                    assert_eq!(offset(found), Some(left), "block {block} octet {octet}");
                }
                let mut torn = whole.clone();
                torn[block * BLOCK + octet..(block + 1) * BLOCK].fill(0);
                fs::write(&path, &torn).unwrap();
                let found = offset(CommittedOffset::open(&path).unwrap().1).unwrap();
                assert!(found == left || torn == whole, "block {block} cut at {octet}: {found}");
            }
        }
        let mut both = whole.clone();
        both[20] ^= 1;
        both[BLOCK + 20] ^= 1;
        fs::write(&path, &both).unwrap();
        let (mut file, found) = CommittedOffset::open(&path).unwrap();
        assert_eq!(found, Found::Damaged);
        file.save(at(5)).unwrap();
        assert_eq!(offset(CommittedOffset::open(&path).unwrap().1), Some(5));
        // The slots swapped: misdirected writes count as damage.
        let mut swapped = whole[BLOCK..].to_vec();
        swapped.extend_from_slice(&whole[..BLOCK]);
        fs::write(&path, &swapped).unwrap();
        assert_eq!(CommittedOffset::open(&path).unwrap().1, Found::Damaged);
    }

    #[test]
    fn a_seek_wins_over_a_running_consumer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g/shard-000.offset");
        let (mut consumer, _) = CommittedOffset::open(&path).unwrap();
        consumer.save(at(50)).unwrap();
        assert_eq!(consumer.look().unwrap(), None);
        let (mut operator, _) = CommittedOffset::open(&path).unwrap();
        operator
            .seek(|now| Committed { offset: 10, replayed_until: now.unwrap().offset, saved_at: 0 })
            .unwrap();
        let Saved::Moved(moved) = consumer.save(at(60)).unwrap() else { panic!("overwritten") };
        assert_eq!((moved.offset, moved.replayed_until), (10, 50));
        assert_eq!(consumer.save(at(11)).unwrap(), Saved::Done);
        assert_eq!(CommittedOffset::read(&path).unwrap().unwrap().offset, 11);
    }
}
