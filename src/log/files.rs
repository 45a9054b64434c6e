//! The data directory: names, the lock, the node's id, creation of segment files.
//!
//! ```text
//! DIR/LOCK                       held by the one server, and so is DIR itself: one may be lost
//! DIR/node                       12 hexadecimal digits, drawn when the directory was made
//! DIR/in-progress                segments that hold mail still being received, see `retention`
//! DIR/shard-000/shard.meta       the segment that was made last, see `meta`
//! DIR/shard-000/manifest         seals, appended, see `manifest`
//! DIR/shard-000/0000000001.seg   segments, numbered
//! DIR/shard-000/0000000001.idx   sparse index of one: a hint, never the truth
//! DIR/shard-000/0000000001.ver   verdicts on the records of one, see `verdicts`
//! DIR/shard-000/verdicts.offset  which records have one, see `verdicts`
//! DIR/refusals/shard-000/0000000001.ref   what was not taken, see `refusals`
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::SystemTime,
};

use super::{
    IndexEntry, Operation, ReadError, Spare,
    adopt::{Evidence, hex, write_node},
    buffer::AlignedBuffer,
    frame::crc,
    meta::{begin, give_back, make_meta},
    offset::parse_node,
    private::{make_private_dir, private_file, tighten},
};
use mailrace_stage::{self as stage, FileOp, act};

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
pub(crate) fn segment_numbers(dir: &Path) -> Result<Vec<u64>, ReadError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(ReadError::io(Operation::List, dir))? {
        let name = entry.map_err(ReadError::io(Operation::List, dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        let number = number.and_then(|digits| {
            let number = digits.parse::<u64>().ok()?;
            // Any other spelling is none of ours, and would name the same file twice.
            (number > 0 && digits == format!("{number:010}")).then_some(number)
        });
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes a directory's entries durable.
///
/// # Errors
/// What the file system says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    act(FileOp::SyncDir, dir, || File::open(dir)?.sync_all())
}

/// Holds a data directory exclusively.
#[derive(Debug)]
pub struct DirLock {
    /// Of the file `LOCK`, which earlier versions look at, and of the directory itself, which nobody
    /// can delete and make again meanwhile.
    _locks: [File; 2],
}

impl DirLock {
    /// Takes it.
    ///
    /// # Errors
    /// `WouldBlock` where another process holds it; what the file system says.
    pub fn take(path: &Path) -> io::Result<Self> {
        let lock = |file: File| {
            // SAFETY: a descriptor of ours; the lock goes with it.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                return Ok(file);
            }
            let error = io::Error::last_os_error();
            let what = format!("{} is in use by another process: {error}", path.display());
            Err(io::Error::new(error.kind(), what))
        };
        let name = path.join("LOCK");
        let file = private_file().create(true).truncate(false).write(true).open(name)?;
        let file = lock(file)?;
        Ok(Self { _locks: [file, lock(File::open(path)?)?] })
    }
}

/// The data directory of a running server, which has it exclusively.
#[derive(Debug)]
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// The node's id.
    pub node: [u8; 6],
    /// It was made just now.
    pub fresh: bool,
    /// What an operator should know of it, a sentence each.
    pub notices: Vec<String>,
    _lock: DirLock,
}

impl DataDir {
    /// Opens or creates a data directory and locks it. Files that others could read become private.
    ///
    /// # Errors
    /// `WouldBlock` where another process holds it; `InvalidData` where the node's id is lost, or is
    /// not that of the segments; what the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        make_private_dir(path)?;
        let lock = DirLock::take(path)?;
        let evidence = Evidence::gather(path)?;
        let mut fresh = false;
        let refuse = |what: String| {
            let what = format!(
                "{}: {what}: put the file back, or run `mailrace log adopt --dir {}`, which \
                 restores the id from the segments",
                path.join("node").display(),
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        };
        let node = match read_node(path) {
            Ok(node) if evidence.nodes.is_empty() || evidence.nodes.contains_key(&node) => node,
            Ok(node) => {
                let list = evidence.list();
                return refuse(format!(
                    "it holds {}, but the log belongs to node {list}",
                    hex(node)
                ));
            }
            Err(error) if error.is_not_found() && evidence.is_empty() => {
                fresh = true;
                let node: [u8; 6] = random()?;
                write_node(path, node)?;
                node
            }
            Err(error) if error.is_not_found() => {
                let list = evidence.list();
                return refuse(format!(
                    "the file is missing, but there is a log that belongs to \
                     node {list}"
                ));
            }
            Err(ReadError::NodeDamaged { .. }) if !evidence.is_empty() => {
                let list = evidence.list();
                return refuse(format!(
                    "it holds no node id, but there is a log that belongs to \
                     node {list}"
                ));
            }
            Err(error) => return Err(error.into()),
        };
        let notices = tighten(path)?;
        Ok(Self { path: path.to_owned(), node, fresh, notices, _lock: lock })
    }

    /// Creates a shard's directory if it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make_shard(&self, shard: u16) -> io::Result<PathBuf> {
        let dir = shard_dir(&self.path, shard);
        make_private_dir(&dir)?;
        make_meta(&dir)?;
        sync_dir(&dir)?;
        sync_dir(&self.path)?;
        Ok(dir)
    }
}

/// The node's id of a data directory.
///
/// # Errors
/// [`ReadError::NodeDamaged`] where the id is not one; [`ReadError::Io`] where the file cannot be
/// read, as where `path` is no data directory.
pub fn read_node(path: &Path) -> Result<[u8; 6], ReadError> {
    let path = path.join("node");
    let text = fs::read(&path).map_err(ReadError::io(Operation::Read, &path))?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    parse_node(text.trim()).ok_or(ReadError::NodeDamaged { path })
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let Some(random) = stage::random() else { return mailrace_sys::random() };
    let mut octets = [0; N];
    octets.iter_mut().zip(random.to_le_bytes().iter().cycle()).for_each(|(to, &at)| *to = at);
    Ok(octets)
}

/// Makes a segment file: allocated in full, its directory entry durable, and written down as made.
/// Blocks.
///
/// # Errors
/// What the file system says; a file begun is removed again. `AlreadyExists`: something has that
/// name and stays as it is, and the caller takes the next number.
pub fn prepare_segment(dir: &Path, number: u64, bytes: u64) -> io::Result<Spare> {
    let path = segment_path(dir, number);
    let nonce = random()?;
    let opened = act(FileOp::Make, &path, || {
        private_file().read(true).write(true).create_new(true).open(&path)
    });
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Written down as well, so that there is no gap in what is. A try before may have left
            // the file with a name that is not durable: power must not take what is written down.
            sync_dir(dir)?;
            begin(dir, number, bytes)?;
            return Err(error);
        }
        opened => opened?,
    };
    let made = (|| {
        let len = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        act(FileOp::Write, &path, || {
            // SAFETY: a descriptor of ours.
            match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        })?;
        act(FileOp::Sync, &path, || file.sync_all())?;
        sync_dir(dir)?;
        begin(dir, number, bytes)
    })();
    if let Err(error) = made {
        let _ = discard_segment(dir, number);
        return Err(error);
    }
    Ok(Spare { number, nonce, bytes })
}

/// Takes back a segment file that was made, or partly, and never handed over: its number is written
/// down as not made before the file goes, so that nobody misses it. Blocks.
///
/// # Errors
/// What the file system says; the file stays then, and the next segment passes its number over.
pub fn discard_segment(dir: &Path, number: u64) -> io::Result<()> {
    give_back(dir, number)?;
    let path = segment_path(dir, number);
    act(FileOp::Remove, &path, || fs::remove_file(&path))
}

/// Microseconds since 1970, by the wall clock: for people, nothing in the log depends on it (D14).
#[must_use]
pub fn unix_micros() -> i64 {
    if let Some(micros) = stage::unix_micros() {
        return micros;
    }
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

/// Writes zeros over a part of a segment, so that a later sync has no metadata to write. Blocks.
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
        let (zeros, _) = BUFFER.octets().split_at(step);
        std::os::unix::fs::FileExt::write_all_at(file, zeros, position + done)?;
        done += step as u64;
    }
    Ok(())
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
    let mut file =
        act(FileOp::Make, &path, || private_file().create(true).append(true).open(&path))?;
    act(FileOp::Write, &path, || file.write_all(&octets))
}

/// Where to begin looking for an offset: a hint from the sparse index.
#[must_use]
pub(crate) fn look_up_index(dir: &Path, segment: u64, offset: u64) -> Option<u64> {
    let (entries, _) = read_index(dir, segment)?;
    entries.iter().filter(|entry| entry.offset <= offset).map(|entry| entry.position).max()
}

/// The good entries of a segment's sparse index, and how many octets are no entry; `None` where
/// there is no index.
#[must_use]
pub(crate) fn read_index(dir: &Path, segment: u64) -> Option<(Vec<IndexEntry>, usize)> {
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
