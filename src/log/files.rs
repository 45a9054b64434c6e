//! The data directory: names, the lock, the node's id, the making of segment files, the manifest.
//!
//! ```text
//! DIR/LOCK                       held by the one server
//! DIR/node                       12 hexadecimal digits, drawn when the directory was made
//! DIR/shard-000/shard.meta       one block
//! DIR/shard-000/manifest         seals, appended
//! DIR/shard-000/0000000001.seg   segments, numbered
//! DIR/shard-000/0000000001.idx   sparse index of one: advice, never truth
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::SystemTime,
};

use super::{
    IndexEntry, Spare,
    buffer::AlignedBuffer,
    frame::{BLOCK, crc},
    offset::parse_node,
    recovery::Octets,
};

/// Directory of a shard's log.
#[must_use]
pub fn shard_dir(dir: &Path, shard: u16) -> PathBuf {
    dir.join(format!("shard-{shard:03}"))
}

/// File of a segment.
#[must_use]
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.seg"))
}

/// Numbers of the segments of a shard, in order.
///
/// # Errors
/// What the file system says.
pub fn segment_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        numbers.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes a directory's entries durable.
///
/// # Errors
/// What the file system says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The data directory of a running server: nobody else may have it open.
#[derive(Debug)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// The node's id.
    pub node: [u8; 6],
    /// It was made just now.
    pub fresh: bool,
    _lock: File,
}

impl DataDir {
    /// Opens or makes a data directory and locks it.
    ///
    /// # Errors
    /// `WouldBlock` where another process holds it; what the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(path.join("LOCK"))?;
        // SAFETY: a descriptor of ours; the lock goes with it.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(
                error.kind(),
                format!("{} is in use by another process: {error}", path.display()),
            ));
        }
        let name = path.join("node");
        let mut fresh = false;
        let node = match read_node(path) {
            Ok(node) => node,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fresh = true;
                let node: [u8; 6] = random()?;
                let text: String = node.iter().map(|octet| format!("{octet:02x}")).collect();
                let new = path.join("node.new");
                let mut file = File::create(&new)?;
                writeln!(file, "{text}")?;
                file.sync_all()?;
                fs::rename(&new, &name)?;
                sync_dir(path)?;
                node
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), node, fresh, _lock: lock })
    }

    /// Makes a shard's directory where it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make_shard(&self, shard: u16) -> io::Result<PathBuf> {
        let dir = shard_dir(&self.path, shard);
        fs::create_dir_all(&dir)?;
        let meta = dir.join("shard.meta");
        if fs::metadata(&meta).map_or(0, |facts| facts.len()) < BLOCK as u64 {
            let mut block = vec![0; BLOCK];
            block[..8].copy_from_slice(b"MRSHARD1");
            let mut file = File::create(&meta)?;
            file.write_all(&block)?;
            file.sync_all()?;
        }
        sync_dir(&dir)?;
        sync_dir(&self.path)?;
        Ok(dir)
    }
}

/// The node's id of a data directory.
///
/// # Errors
/// `NotFound` where it is none; `InvalidData` where the id is not one.
pub fn read_node(path: &Path) -> io::Result<[u8; 6]> {
    let text = fs::read(path.join("node"))?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    parse_node(text.trim()).ok_or_else(|| {
        let what = format!("{}: not a node id", path.join("node").display());
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(octets)
}

/// Makes a segment file: allocated in full, its directory entry durable. Blocks.
///
/// # Errors
/// What the file system says; a file begun is removed again.
pub fn prepare_segment(dir: &Path, number: u64, bytes: u64) -> io::Result<Spare> {
    let path = segment_path(dir, number);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let made = (|| {
        let len = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: a descriptor of ours.
        let error = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        file.sync_all()?;
        sync_dir(dir)
    })();
    if let Err(error) = made {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(Spare { number, nonce: random()?, bytes })
}

/// Microseconds since 1970, by the wall clock: for people, nothing in the log depends on it (D14).
#[must_use]
pub fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Room on the file system of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// Octets that this process may still use.
    pub free: u64,
    /// Octets in all.
    pub size: u64,
    /// Less than one inode in a hundred is free.
    pub inodes_low: bool,
}

impl FreeSpace {
    /// Free octets under which mail is refused (D9): `low`, but at least a twentieth of the disk or
    /// 4 GiB, whichever is less.
    #[must_use]
    pub fn threshold(&self, low: u64) -> u64 {
        low.max((self.size / 20).min(4 << 30))
    }
}

/// Asks for the room on a directory's file system. Blocks.
///
/// # Errors
/// What the file system says.
pub fn free_space(dir: &Path) -> io::Result<FreeSpace> {
    let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes())?;
    let mut facts = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: a terminated path and room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded; all-zero is a valid value besides.
    let facts = unsafe { facts.assume_init() };
    Ok(FreeSpace {
        free: facts.f_bavail * facts.f_frsize,
        size: facts.f_blocks * facts.f_frsize,
        inodes_low: facts.f_files > 0 && facts.f_favail < facts.f_files / 100,
    })
}

/// Octets of one write of zeros: enough for the device's sequential rate.
const ZEROS: usize = 1 << 20;

/// Writes zeros over a part of a segment, so that a later sync has nothing to tell the file system.
/// Blocks.
///
/// # Errors
/// What the file system says.
pub fn fill_zeros(file: &File, position: u64, bytes: u64) -> io::Result<()> {
    // Never written to, so it stays zero; one for the process, for its pages are cleared once.
    static BUFFER: LazyLock<AlignedBuffer> = LazyLock::new(|| {
        let mut zeros = AlignedBuffer::new(ZEROS);
        zeros.extend_zeroed(ZEROS);
        zeros
    });
    let mut done = 0;
    while done < bytes {
        let step = usize::try_from(bytes - done).map_or(ZEROS, |left| left.min(ZEROS));
        std::os::unix::fs::FileExt::write_all_at(file, &BUFFER.octets()[..step], position + done)?;
        done += step as u64;
    }
    Ok(())
}

/// What is known of a segment that will not be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Number of the segment.
    pub number: u64,
    /// Its nonce.
    pub nonce: [u8; 16],
    /// Of its first record.
    pub first_offset: u64,
    /// Behind its last record.
    pub end_offset: u64,
    /// Behind its last group.
    pub end_position: u64,
    /// Acknowledged records are lost behind the end.
    pub damaged: bool,
    /// Offsets behind the last record that are left out for good: they were, or may have been,
    /// given to records that are not there. The next segment begins behind them.
    pub skipped: u32,
    /// First segment that holds mail data of its records: its own number where that is all in it.
    /// `None`: not known, as with a segment that recovery sealed.
    pub reach: Option<u64>,
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
        at[4] = u8::from(self.damaged);
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
            damaged: at[4] != 0,
            skipped: u32::from_le_bytes(at[56..60].try_into().ok()?),
        })
    }
}

/// The seals of a shard's segments: appended, each with its checksum. A torn one is left out, and
/// its segment is judged anew with the same answer.
#[derive(Debug)]
pub struct Manifest {
    file: File,
    seals: Vec<Seal>,
    end: u64,
}

impl Manifest {
    /// Opens or makes a manifest.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let seals = read_seals(&file)?;
        let end = (seals.len() * SEAL_BYTES) as u64;
        Ok(Self { file, seals, end })
    }

    /// The seal of a segment.
    #[must_use]
    pub fn find(&self, number: u64) -> Option<&Seal> {
        self.seals.iter().rev().find(|seal| seal.number == number)
    }

    /// Every seal, those of deleted segments as well, in the order they were made.
    #[must_use]
    pub fn seals(&self) -> &[Seal] {
        &self.seals
    }

    /// Adds a seal and makes it durable. Blocks.
    ///
    /// # Errors
    /// What the file system says; the seal may or may not be there.
    pub fn append(&mut self, seal: &Seal) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, &seal.encode(), self.end)?;
        self.file.sync_data()?;
        self.end += SEAL_BYTES as u64;
        self.seals.push(*seal);
        Ok(())
    }
}

/// Reads the seals of a manifest up to the first that is not whole.
///
/// # Errors
/// What the file system says.
pub fn read_seals(file: &File) -> io::Result<Vec<Seal>> {
    let mut octets = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    let read = file.read_at(0, &mut octets)?;
    let (seals, _) = octets.get(..read).unwrap_or_default().as_chunks::<SEAL_BYTES>();
    Ok(seals.iter().map_while(Seal::decode).collect())
}

const INDEX_BYTES: usize = 20;

/// Adds an entry to a segment's sparse index. Blocks; not durable, and need not be.
///
/// # Errors
/// What the file system says.
pub fn append_index(dir: &Path, entry: &IndexEntry) -> io::Result<()> {
    let path = segment_path(dir, entry.segment).with_extension("idx");
    let mut octets = [0; INDEX_BYTES];
    octets[..8].copy_from_slice(&entry.offset.to_le_bytes());
    octets[8..16].copy_from_slice(&entry.position.to_le_bytes());
    let sum = crc(&octets[..16]);
    octets[16..].copy_from_slice(&sum.to_le_bytes());
    OpenOptions::new().create(true).append(true).open(path)?.write_all(&octets)
}

/// Where to begin looking for an offset: a hint from the sparse index.
#[must_use]
pub fn look_up_index(dir: &Path, segment: u64, offset: u64) -> Option<u64> {
    let (entries, _) = read_index(dir, segment)?;
    entries.iter().filter(|entry| entry.offset <= offset).map(|entry| entry.position).max()
}

/// The good entries of a segment's sparse index, and how many octets are no entry; `None` where
/// there is no index.
#[must_use]
pub fn read_index(dir: &Path, segment: u64) -> Option<(Vec<IndexEntry>, usize)> {
    let octets = fs::read(segment_path(dir, segment).with_extension("idx")).ok()?;
    let (chunks, rest) = octets.as_chunks::<INDEX_BYTES>();
    let entries: Vec<_> = chunks
        .iter()
        .filter_map(|entry| {
            let offset = u64::from_le_bytes(entry[..8].try_into().ok()?);
            let position = u64::from_le_bytes(entry[8..16].try_into().ok()?);
            let good = crc(&entry[..16]).to_le_bytes() == entry[16..];
            good.then_some(IndexEntry { segment, offset, position })
        })
        .collect();
    let bad = (chunks.len() - entries.len()) * INDEX_BYTES + rest.len();
    Some((entries, bad))
}
