//! The manifest of a shard: an appended seal for each segment that will not be written again, each
//! of 64 octets with a checksum.
//!
//! The last seal of a number counts. A deleted segment gets one more, marked *removed*, and is
//! unlinked once that is durable: every segment whose last seal is not so marked must have a file.
//! A crash in between leaves the file; it is still part of the log, until it is deleted again.
//!
//! A seal of number 0 belongs to no segment: it says whose manifest this is, and that deletions are
//! recorded in it. An earlier version recorded none; what its retention deleted was missing from
//! the front, and counts as deleted until recovery has recorded it. Earlier versions read both
//! marks as seals of segments that do not exist, which changes nothing for them.
//!
//! The shard appends, and so do retention and `log prune`, from other threads and processes. Each
//! of them holds the file's lock while it appends, and continues where the last one ended.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    Identity, Operation, ReadError, committed::Lock, frame::crc, private::private_file,
    recovery::Octets,
};
use mailrace_stage::{FileOp, act};

/// What is known of a segment that will not be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Number of the segment.
    pub number: u64,
    /// Its nonce.
    pub nonce: [u8; 16],
    /// Of its first record.
    pub first_offset: u64,
    /// Offset after its last record.
    pub end_offset: u64,
    /// Position after its last group.
    pub end_position: u64,
    /// Acknowledged records are lost after the end.
    pub damaged: bool,
    /// Offsets after the last record that are left out for good: they were, or may have been, given
    /// to records that are not there. The next segment begins after them.
    pub skipped: u32,
    /// First segment that holds mail data of its records: its own number where that is all in it.
    /// `None`: not known, as with a segment that recovery sealed.
    pub reach: Option<u64>,
    /// Its file was deleted on purpose, or is about to be: it is not missed.
    pub removed: bool,
}

const SEAL_BYTES: usize = 64;

impl Seal {
    /// First offset that a later segment may use.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.end_offset.saturating_add(u64::from(self.skipped))
    }

    fn encode(&self) -> [u8; SEAL_BYTES] {
        let mut at = [0; SEAL_BYTES];
        at[..4].copy_from_slice(b"MRS1");
        at[4] = u8::from(self.damaged) | u8::from(self.removed) << 1;
        // Segments back, plus one; what does not fit is not known.
        let back = self.reach.map(|reach| self.number.saturating_sub(reach) + 1);
        let back = back.filter(|&back| back < 1 << 24).unwrap_or(0);
        at[5..8].copy_from_slice(&back.to_le_bytes()[..3]);
        at[8..16].copy_from_slice(&self.number.to_le_bytes());
        at[16..32].copy_from_slice(&self.nonce);
        at[32..40].copy_from_slice(&self.first_offset.to_le_bytes());
        at[40..48].copy_from_slice(&self.end_offset.to_le_bytes());
        at[48..56].copy_from_slice(&self.end_position.to_le_bytes());
        at[56..60].copy_from_slice(&self.skipped.to_le_bytes());
        let sum = crc(&at[..60]);
        at[60..].copy_from_slice(&sum.to_le_bytes());
        at
    }

    fn decode(at: &[u8; SEAL_BYTES]) -> Option<Self> {
        let number = |from: usize| -> Option<u64> {
            Some(u64::from_le_bytes(at.get(from..from + 8)?.try_into().ok()?))
        };
        let sum = u32::from_le_bytes(at[60..].try_into().ok()?);
        if &at[..4] != b"MRS1" || crc(&at[..60]) != sum {
            return None;
        }
        let back = u64::from(u32::from_le_bytes([at[5], at[6], at[7], 0]));
        let reach = back.checked_sub(1).and_then(|back| number(8)?.checked_sub(back));
        Some(Self {
            reach,
            number: number(8)?,
            nonce: at[16..32].try_into().ok()?,
            first_offset: number(32)?,
            end_offset: number(40)?,
            end_position: number(48)?,
            damaged: at[4] & 1 != 0,
            removed: at[4] & 2 != 0,
            skipped: u32::from_le_bytes(at[56..60].try_into().ok()?),
        })
    }

    /// Whether it was written without a segment: it says that a number was never used, or that
    /// nobody knows what its segment held.
    pub(super) fn is_of_no_segment(&self) -> bool {
        self.nonce == [0; 16]
    }

    /// Says whose manifest it is, and that deletions are recorded in it.
    fn mark(identity: Identity) -> Self {
        let mut nonce = [0; 16];
        nonce[..6].copy_from_slice(&identity.node);
        nonce[6..8].copy_from_slice(&identity.shard.to_le_bytes());
        Self {
            number: 0,
            nonce,
            first_offset: 0,
            end_offset: 0,
            end_position: 0,
            damaged: false,
            skipped: 0,
            reach: None,
            removed: true,
        }
    }

    fn marked(&self) -> Identity {
        let mut node = [0; 6];
        node.copy_from_slice(&self.nonce[..6]);
        Identity { node, shard: u16::from_le_bytes([self.nonce[6], self.nonce[7]]) }
    }
}

/// What a manifest holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seals {
    /// In the order they were made; those of deleted segments as well.
    pub all: Vec<Seal>,
    /// Whose manifest it is, as it says itself; `None`: an earlier version wrote it.
    pub owner: Option<Identity>,
    /// Records in its middle that fail their checksum: the segments they sealed are judged again.
    pub damaged: u64,
    /// Where the next record goes.
    end: u64,
}

impl Seals {
    /// The last seal of a number.
    #[must_use]
    pub fn find(&self, number: u64) -> Option<&Seal> {
        self.all.iter().rev().find(|seal| seal.number == number)
    }

    /// Reads on from where it ended. A torn record at the end is left out, and written over.
    fn read_on(&mut self, file: &File) -> io::Result<()> {
        let len = file.metadata()?.len().saturating_sub(self.end);
        let mut octets = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = Octets::read_at(file, self.end, &mut octets)?;
        let (records, _) = octets.get(..read).unwrap_or_default().as_chunks::<SEAL_BYTES>();
        let mut bad = 0;
        let mut good = 0;
        for (at, record) in records.iter().enumerate() {
            let Some(seal) = Seal::decode(record) else {
                bad += 1;
                continue;
            };
            self.damaged += std::mem::take(&mut bad);
            good = (at + 1) * SEAL_BYTES;
            match seal.number {
                0 => self.owner = Some(seal.marked()),
                _ => self.all.push(seal),
            }
        }
        self.end += good as u64;
        Ok(())
    }
}

/// Reads the manifest at a path; an empty one where there is none.
///
/// # Errors
/// What the file system says.
pub(crate) fn read_seals(path: &Path) -> Result<Seals, ReadError> {
    let mut seals = Seals::default();
    match File::open(path) {
        Ok(file) => seals.read_on(&file).map_err(ReadError::io(Operation::Read, path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(ReadError::io(Operation::Open, path)(error)),
    }
    Ok(seals)
}

/// A manifest open for more seals. A torn one at its end is left out, and its segment is judged
/// again with the same answer.
#[derive(Debug)]
pub struct Manifest {
    file: File,
    path: PathBuf,
    seals: Seals,
    /// Up to here a sync has covered it for certain.
    durable: u64,
}

impl Manifest {
    /// Opens or makes a manifest.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = act(FileOp::Make, path, || {
            private_file().create(true).truncate(false).read(true).write(true).open(path)
        })?;
        let mut seals = Seals::default();
        seals.read_on(&file)?;
        Ok(Self { file, path: path.to_owned(), seals, durable: 0 })
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last seal of a segment.
    #[must_use]
    pub fn find(&self, number: u64) -> Option<&Seal> {
        self.seals.find(number)
    }

    /// Every seal, those of deleted segments as well, in the order they were made.
    #[must_use]
    pub fn seals(&self) -> &[Seal] {
        &self.seals.all
    }

    /// What it holds.
    #[must_use]
    pub fn content(&self) -> &Seals {
        &self.seals
    }

    /// Adds a seal and makes it durable. Blocks.
    ///
    /// # Errors
    /// What the file system says; the seal may or may not be there.
    pub fn append(&mut self, seal: &Seal) -> io::Result<()> {
        self.append_all(&[*seal])
    }

    /// Adds seals and makes them durable, with one sync. Blocks.
    ///
    /// # Errors
    /// What the file system says; each of the seals may or may not be there.
    pub fn append_all(&mut self, seals: &[Seal]) -> io::Result<()> {
        if seals.is_empty() && self.durable == self.seals.end {
            return Ok(());
        }
        self.append_by(|_| seals.to_vec())
    }

    /// Appends what `make` wants of what the manifest holds by then, and makes all of it durable.
    fn append_by(&mut self, make: impl FnOnce(&Seals) -> Vec<Seal>) -> io::Result<()> {
        let _lock = Lock::take(&self.file)?;
        // Retention, or the shard, may have appended since.
        self.seals.read_on(&self.file)?;
        let seals = make(&self.seals);
        if seals.is_empty() && self.durable == self.seals.end {
            return Ok(());
        }
        // What a process left that died before its sync, or whose sync failed, can be read and may
        // be lost all the same. A later sync alone need not write it: it is written again.
        let again = usize::try_from(self.seals.end - self.durable).unwrap_or(0);
        let mut octets = vec![0; again];
        self.file.read_exact_at(&mut octets, self.durable)?;
        octets.extend(seals.iter().flat_map(|seal| seal.encode()));
        act(FileOp::Write, &self.path, || self.file.write_all_at(&octets, self.durable))?;
        act(FileOp::Sync, &self.path, || self.file.sync_data())?;
        self.seals.read_on(&self.file)?;
        self.durable = self.seals.end;
        Ok(())
    }

    /// Makes durable what it holds: only then may a file go that it says is deleted.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn make_durable(&mut self) -> io::Result<()> {
        self.append_all(&[])
    }

    /// Says whose it is and that deletions are recorded from now on, where it does not say so yet.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn mark(&mut self, identity: Identity) -> io::Result<()> {
        match self.seals.owner {
            Some(_) => Ok(()),
            None => self.append(&Seal::mark(identity)),
        }
    }

    /// An orderly end: seals what is not sealed yet, and records that segments which were made ready,
    /// up to `next`, were not used, so that nobody misses them. Recovery leaves out no offsets then.
    ///
    /// # Errors
    /// What the file system says.
    pub fn close(&mut self, seals: &[Seal], next: u64) -> io::Result<()> {
        self.append_all(seals)?;
        let last = self.seals().iter().map(|seal| seal.number).max().unwrap_or(0);
        let unused: Vec<u64> = (last + 1..next).collect();
        self.remove(&unused)
    }

    /// Records that these segments are deleted on purpose; their files may go once this returns.
    /// A number without a seal was never used.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&mut self, numbers: &[u64]) -> io::Result<()> {
        self.append_by(|seals| {
            let removed = |&number: &u64| match seals.find(number) {
                Some(seal) if seal.removed => None,
                Some(seal) => Some(Seal { removed: true, ..*seal }),
                None => Some(Seal { number, ..Seal::mark(Identity { node: [0; 6], shard: 0 }) }),
            };
            numbers.iter().filter_map(removed).collect()
        })
    }
}
