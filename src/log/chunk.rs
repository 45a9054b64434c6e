//! Reads of a segment file, mostly one behind the other, in large chunks through one buffer.
//!
//! A read through a cursor's frames touches each octet once, in order, but in pieces of 80 octets
//! to 4 MiB. Each piece as a system call of its own, or the kernel's readahead of 128 KiB alone,
//! keeps a fast disk idle; so a chunk is read at once, and while it is looked at the kernel fetches
//! the next. A single record (`log get`) wants little: the chunk starts small and doubles.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

use super::{frame::BLOCK, recovery::Octets};

/// First read of a file: the header and a group or two.
const CHUNK_BYTES_MIN: usize = 64 << 10;

/// At 2 GB/s a chunk is 1 ms of the disk: far above the cost of a system call, small enough to
/// stay in the second-level cache's reach while it is checked.
const CHUNK_BYTES_MAX: usize = 2 << 20;

/// A segment file with a window of it in memory. Life: one walk, or as long as a tail follows.
#[derive(Debug)]
pub(super) struct ChunkReader {
    file: File,
    buffer: Vec<u8>,
    /// Of the window, in the file.
    start: u64,
    /// Of the window.
    len: usize,
    /// Octets of the next read.
    chunk: usize,
    /// Up to here the kernel was asked to read ahead.
    ahead: u64,
    /// Nothing behind this is read ahead: the end of a sealed segment, 0 for an active one.
    ahead_end: u64,
}

impl ChunkReader {
    /// Opens a file; `buffer` is memory to use again.
    pub(super) fn open(path: &Path, buffer: Vec<u8>) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { file, buffer, start: 0, len: 0, chunk: CHUNK_BYTES_MIN, ahead: 0, ahead_end: 0 })
    }

    /// Allows reading ahead up to `end`.
    pub(super) fn read_ahead(&mut self, end: u64) {
        self.ahead_end = end;
    }

    /// Size of the file now.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The memory, for the next reader.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// The octets at `position`; less than `len` only at the file's end.
    pub(super) fn read(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let window_end = self.start + self.len as u64;
        if position < self.start || position + len as u64 > window_end {
            self.fill(position, len)?;
        }
        let from = usize::try_from(position - self.start).unwrap_or(usize::MAX).min(self.len);
        let to = from.saturating_add(len).min(self.len);
        Ok(self.buffer.get(from..to).unwrap_or_default())
    }

    /// Moves the window to `position`; what it holds of that already is kept.
    fn fill(&mut self, position: u64, len: usize) -> io::Result<()> {
        let window_end = self.start + self.len as u64;
        let kept = if (self.start..window_end).contains(&position) {
            let from = (position - self.start) as usize;
            self.buffer.copy_within(from..self.len, 0);
            self.len - from
        } else {
            0
        };
        let onward = position <= window_end && self.len > 0;
        self.chunk = if onward { (self.chunk * 2).min(CHUNK_BYTES_MAX) } else { CHUNK_BYTES_MIN };
        let want = len.max(kept + self.chunk).next_multiple_of(BLOCK);
        if self.buffer.len() < want {
            self.buffer.resize(want, 0);
        }
        (self.start, self.len) = (position, kept);
        let from = position + kept as u64;
        self.hint(from + (want - kept) as u64);
        if let Some(room) = self.buffer.get_mut(kept..want) {
            self.len += self.file.read_at(from, room)?;
        }
        Ok(())
    }

    /// Has the kernel fetch the chunk behind `from` while the one before is looked at.
    fn hint(&mut self, from: u64) {
        let end = (from + CHUNK_BYTES_MAX as u64).min(self.ahead_end);
        let from = from.max(self.ahead);
        if self.chunk == CHUNK_BYTES_MAX && from < end {
            advise(&self.file, from, end - from, libc::POSIX_FADV_WILLNEED);
            self.ahead = end;
        }
    }

    /// Forgets the window: the next read sees what the file holds by then.
    pub(super) fn forget(&mut self) {
        self.len = 0;
        self.chunk = CHUNK_BYTES_MIN;
    }

    /// Forgets the window and what the kernel keeps of `len` octets: the next read asks the disk.
    pub(super) fn forget_cached(&mut self, position: u64, len: u64) {
        self.forget();
        self.ahead = 0;
        advise(&self.file, position, len, libc::POSIX_FADV_DONTNEED);
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
        let mut reader = ChunkReader::open(file.path(), Vec::new()).unwrap();
        reader.read_ahead(octets.len() as u64);
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
        let mut reader = ChunkReader::open(file.path(), Vec::new()).unwrap();
        assert_eq!(reader.read(4_096, 1).unwrap(), [0]);
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), b"x", 4_096).unwrap();
        assert_eq!(reader.read(4_096, 1).unwrap(), [0], "the window is kept");
        reader.forget();
        assert_eq!(reader.read(4_096, 1).unwrap(), b"x");
    }
}
