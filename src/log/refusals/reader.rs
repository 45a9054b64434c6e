//! Reads refusals, also while they are written.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{LINE_BYTES_MAX, Refusal, dir_of, file_numbers, named, path_of};
use crate::checked_line;

/// Octets that are read at a time.
const CHUNK: usize = 64 << 10;

/// Where a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalAt {
    /// Number of the file.
    pub file: u64,
    /// Position in it.
    pub position: u64,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalEntry {
    /// A refusal.
    Whole {
        /// Where it stands.
        at: RefusalAt,
        /// The refusal.
        refusal: Box<Refusal>,
    },
    /// Octets that cannot be read as one: passed over.
    Damaged {
        /// Where they begin.
        at: RefusalAt,
        /// How many.
        bytes: u64,
    },
    /// The end of the last file is no whole line: a server is about to write the rest, or went in the
    /// middle of it.
    Unfinished {
        /// Where it begins.
        at: RefusalAt,
        /// How many octets are there.
        bytes: u64,
    },
}

/// Reads the refusals of one shard, from the oldest on.
#[derive(Debug)]
pub struct RefusalReader {
    dir: PathBuf,
    file: Option<(u64, File)>,
    /// What is read and not shown yet, from `shown` on.
    octets: Vec<u8>,
    shown: usize,
    /// Of the first octet not shown.
    position: u64,
    /// Octets of a line that is too long, dropped so far.
    dropped: u64,
}

impl RefusalReader {
    /// Of a shard, which may have none yet.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path, shard: u16) -> io::Result<Self> {
        let dir = dir_of(dir, shard);
        let octets = Vec::new();
        Ok(Self { dir, file: None, octets, shown: 0, position: 0, dropped: 0 })
    }

    /// The next entry; `None`: none more by now.
    ///
    /// # Errors
    /// What the file system says.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> io::Result<Option<RefusalEntry>> {
        loop {
            if let Some(entry) = self.take_line() {
                return Ok(Some(entry));
            }
            if self.read()? {
                continue;
            }
            let Some(next) = self.successor()? else { return Ok(None) };
            // What came between the look at the end and the look for the next file.
            if self.read()? {
                continue;
            }
            let rest = self.unfinished();
            let file = match File::open(path_of(&self.dir, next)) {
                // Deleted meanwhile; the one after it is looked for.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(|error| named(&path_of(&self.dir, next), &error))?,
            };
            self.file = Some((next, file));
            self.octets.clear();
            (self.shown, self.position, self.dropped) = (0, 0, 0);
            if let Some(RefusalEntry::Unfinished { at, bytes }) = rest {
                // Nobody writes there any more.
                return Ok(Some(RefusalEntry::Damaged { at, bytes }));
            }
        }
    }

    /// What the last file ends with, where that is no whole line.
    #[must_use]
    pub fn unfinished(&self) -> Option<RefusalEntry> {
        let bytes = self.dropped + (self.octets.len() - self.shown) as u64;
        let at = RefusalAt { file: self.file.as_ref()?.0, position: self.position - self.dropped };
        (bytes > 0).then_some(RefusalEntry::Unfinished { at, bytes })
    }

    fn take_line(&mut self) -> Option<RefusalEntry> {
        let rest = self.octets.get(self.shown..)?;
        let Some(end) = rest.iter().position(|&octet| octet == b'\n') else {
            if rest.len() > LINE_BYTES_MAX {
                let bytes = rest.len() as u64;
                self.dropped += bytes;
                self.position += bytes;
                self.shown = self.octets.len();
            }
            return None;
        };
        let line = rest.get(..=end)?;
        let file = self.file.as_ref()?.0;
        let at = RefusalAt { file, position: self.position - self.dropped };
        let bytes = std::mem::take(&mut self.dropped) + line.len() as u64;
        let decoded = (bytes == line.len() as u64).then(|| checked_line::decode(line)).flatten();
        self.position += line.len() as u64;
        self.shown += line.len();
        Some(match decoded {
            Some(refusal) => RefusalEntry::Whole { at, refusal },
            None => RefusalEntry::Damaged { at, bytes },
        })
    }

    /// Whether more has come.
    fn read(&mut self) -> io::Result<bool> {
        let Some((number, file)) = &mut self.file else { return Ok(false) };
        self.octets.drain(..self.shown);
        self.shown = 0;
        let read = file.take(CHUNK as u64).read_to_end(&mut self.octets);
        Ok(read.map_err(|error| named(&path_of(&self.dir, *number), &error))? > 0)
    }

    fn successor(&self) -> io::Result<Option<u64>> {
        let present = self.file.as_ref().map_or(0, |(number, _)| *number);
        Ok(file_numbers(&self.dir)?.into_iter().find(|number| *number > present))
    }
}
