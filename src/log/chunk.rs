//! Reads a segment file, mostly in sequence, in large chunks through one buffer.
//!
//! A read through a cursor's frames touches each octet once, in order, but in pieces of 80 octets
//! to 4 MiB. With a system call for each piece, or with the kernel's readahead of 128 KiB alone, a
//! fast disk would be idle; so a chunk is read at once. A single record (`log get`) needs little:
//! the chunk starts small and doubles. Once it has, and the segment is sealed, reads bypass the
//! page cache (O_DIRECT): it would hold what nobody reads again while the server needs the memory,
//! and its copy costs as much as the checksums. Where the file system refuses O_DIRECT, reads
//! continue through the cache.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use super::{Operation, ReadError, buffer::AlignedBuffer, frame::BLOCK, recovery::Octets};

/// First read of a file: the header and a group or two.
const CHUNK_BYTES_MIN: usize = 64 << 10;

/// At 2 GB/s a chunk is 2 ms of the disk: far above the cost of a system call.
const CHUNK_BYTES_MAX: usize = 4 << 20;

/// A segment file with a window of it in memory. Life: one walk, or as long as a tail follows.
#[derive(Debug)]
pub(super) struct ChunkReader {
    file: File,
    path: PathBuf,
    buffer: AlignedBuffer,
    /// Of the window, in the file; a multiple of the block size.
    start: u64,
    /// Of the window.
    len: usize,
    /// Octets of the next read.
    chunk: usize,
    /// The segment is sealed, and will be read on and on.
    sealed: bool,
    direct: bool,
}

impl ChunkReader {
    /// Opens a file; `buffer` is memory to use again.
    pub(super) fn open(path: &Path, buffer: AlignedBuffer) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(ReadError::io(Operation::Open, path))?;
        let (path, chunk) = (path.to_owned(), CHUNK_BYTES_MIN);
        Ok(Self { file, path, buffer, start: 0, len: 0, chunk, sealed: false, direct: false })
    }

    /// Nothing will be written to the file any more.
    pub(super) fn sealed(&mut self) {
        self.sealed = true;
    }

    /// Size of the file now.
    pub(super) fn bytes(&self) -> Result<u64, ReadError> {
        let metadata = self.file.metadata().map_err(ReadError::io(Operation::Read, &self.path))?;
        Ok(metadata.len())
    }

    /// The memory, for the next reader.
    pub(super) fn into_buffer(self) -> AlignedBuffer {
        self.buffer
    }

    /// The octets at `position`; less than `len` only at the file's end.
    pub(super) fn read(&mut self, position: u64, len: usize) -> Result<&[u8], ReadError> {
        let window_end = self.start + self.len as u64;
        if position < self.start || position + len as u64 > window_end {
            self.fill(position, len).map_err(ReadError::io(Operation::Read, &self.path))?;
        }
        let from = usize::try_from(position - self.start).unwrap_or(usize::MAX).min(self.len);
        let to = from.saturating_add(len).min(self.len);
        Ok(self.buffer.octets().get(from..to).unwrap_or_default())
    }

    /// Moves the window to `position`; what it holds of that already is kept.
    fn fill(&mut self, position: u64, len: usize) -> io::Result<()> {
        let start = position - position % BLOCK as u64;
        let len = len + (position - start) as usize;
        let window_end = self.start + self.len as u64;
        // A block that the file's end cut short is read anew: it may have grown.
        let kept = match (self.start..window_end).contains(&start) {
            true => (window_end - start) as usize / BLOCK * BLOCK,
            false => 0,
        };
        let from = (start.saturating_sub(self.start)) as usize;
        if kept > 0 && from > 0 {
            self.buffer.octets_mut().copy_within(from..from + kept, 0);
        }
        let onward = start <= window_end && self.len > 0;
        self.chunk = if onward { (self.chunk * 2).min(CHUNK_BYTES_MAX) } else { CHUNK_BYTES_MIN };
        if self.sealed && !self.direct && self.chunk > CHUNK_BYTES_MIN {
            self.direct = go_direct(&self.file);
            self.sealed = self.direct;
        }
        let want = len.max(kept + self.chunk).next_multiple_of(BLOCK);
        if self.buffer.len() < want {
            self.buffer.set_len(want);
        }
        (self.start, self.len) = (start, kept);
        if let Some(room) = self.buffer.octets_mut().get_mut(kept..want) {
            self.len += self.file.read_at(start + kept as u64, room)?;
        }
        Ok(())
    }

    /// Forgets the window: the next read sees what the file holds by then.
    pub(super) fn forget(&mut self) {
        self.len = 0;
        self.chunk = CHUNK_BYTES_MIN;
    }

    /// Forgets the window and what the kernel keeps of `len` octets: the next read asks the disk.
    pub(super) fn forget_cached(&mut self, position: u64, len: u64) {
        self.forget();
        advise(&self.file, position, len, libc::POSIX_FADV_DONTNEED);
    }
}

/// Has the next reads leave the page cache aside; says whether they will.
fn go_direct(file: &File) -> bool {
    // SAFETY: a descriptor of ours; its flags are read and set.
    unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        flags >= 0 && libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT) == 0
    }
}

/// Advice only: where the kernel does not take it, reads are slower and nothing else.
fn advise(file: &File, position: u64, len: u64, advice: i32) {
    let (Ok(position), Ok(len)) = (position.try_into(), len.try_into()) else { return };
    // SAFETY: a descriptor of ours; advice touches no memory.
    let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), position, len, advice) };
}

/// Reads `into.len()` octets past the page cache's copy, after a checksum failed (D10).
pub(super) fn read_again(file: &File, position: u64, into: &mut [u8]) -> io::Result<usize> {
    advise(file, position, into.len() as u64, libc::POSIX_FADV_DONTNEED);
    file.read_at(position, into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn windows_show_what_the_file_holds() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let octets: Vec<u8> = (0..10 << 20).map(|at: u32| (at * 7 + (at >> 11)) as u8).collect();
        file.write_all(&octets).unwrap();
        let mut reader = ChunkReader::open(file.path(), AlignedBuffer::default()).unwrap();
        reader.sealed();
        let mut position = 0;
        let mut len = 1;
        while position < octets.len() {
            let end = (position + len).min(octets.len());
            let read = reader.read(position as u64, len).unwrap();
            assert!(read == &octets[position..end], "at {position}, {len} octets");
            position += len * 2 / 3 + 1;
            len = len * 5 % 3_000_001;
        }
        // Back, across the end, beyond it.
        assert_eq!(reader.read(5, 3).unwrap(), &octets[5..8]);
        assert_eq!(reader.read(octets.len() as u64 - 2, 9).unwrap(), &octets[octets.len() - 2..]);
        assert!(reader.read(octets.len() as u64 + 5, 9).unwrap().is_empty());
        assert!(reader.buffer.len() <= 6 << 20, "{}", reader.buffer.len());
    }

    #[test]
    fn what_was_forgotten_is_read_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8_192).unwrap();
        let mut reader = ChunkReader::open(file.path(), AlignedBuffer::default()).unwrap();
        assert_eq!(reader.read(4_096, 1).unwrap(), [0]);
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), b"x", 4_096).unwrap();
        assert_eq!(reader.read(4_096, 1).unwrap(), [0], "the window is kept");
        reader.forget();
        assert_eq!(reader.read(4_096, 1).unwrap(), b"x");
    }
}
