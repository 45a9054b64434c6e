//! Appends refusals, and deletes the oldest files.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{Refusal, dir_of, file_numbers, named, path_of};
use crate::{checked_line, make_private_dir, private_file};

/// Files that share what a shard may have: what is deleted at a time is one of them.
const FILES: u64 = 8;

/// Writes the refusals of one shard. There is one; its methods block. Nothing is synced.
#[derive(Debug)]
pub struct RefusalWriter {
    dir: PathBuf,
    /// Octets of all files.
    bytes_max: u64,
    /// The newest file.
    number: u64,
    /// With its octets; `None` before the first line, and after an error.
    open: Option<(File, u64)>,
    lines: Vec<u8>,
}

impl RefusalWriter {
    /// Over the directory of a shard's refusals, which is made where it is missing; all files
    /// together have at most `bytes_max` octets.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path, shard: u16, bytes_max: u64) -> io::Result<Self> {
        let dir = dir_of(dir, shard);
        make_private_dir(&dir).map_err(|error| named(&dir, &error))?;
        let number = file_numbers(&dir)?.last().copied().unwrap_or(1);
        let writer = Self { dir, bytes_max, number, open: None, lines: Vec::new() };
        writer.make_room()?;
        Ok(writer)
    }

    /// Appends some, in order.
    ///
    /// # Errors
    /// What the file system says; some may have been written then.
    pub fn append(&mut self, refusals: &[Refusal]) -> io::Result<()> {
        self.lines.clear();
        for refusal in refusals {
            checked_line::encode(refusal, &mut self.lines)?;
            if self.lines.len() >= 1 << 20 {
                self.write()?;
            }
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let mut lines = std::mem::take(&mut self.lines);
        for part in parts(&lines, usize::try_from(self.share()).unwrap_or(usize::MAX)) {
            let (mut file, bytes) = self.file(part.len() as u64)?;
            // After an error the file is looked at again.
            file.write_all(part)?;
            self.open = Some((file, bytes + part.len() as u64));
        }
        lines.clear();
        self.lines = lines;
        Ok(())
    }

    /// Of one file.
    fn share(&self) -> u64 {
        self.bytes_max / FILES
    }

    /// A file that has room for so much.
    fn file(&mut self, wanted: u64) -> io::Result<(File, u64)> {
        let (file, bytes) = match self.open.take() {
            Some(open) => open,
            None => self.open_file()?,
        };
        if bytes == 0 || bytes + wanted <= self.share() {
            return Ok((file, bytes));
        }
        self.number += 1;
        self.make_room()?;
        self.open_file()
    }

    /// The newest file, whose last line is ended where a crash has torn it.
    fn open_file(&self) -> io::Result<(File, u64)> {
        let path = path_of(&self.dir, self.number);
        let file = private_file().create(true).append(true).read(true).open(&path);
        let mut file = file.map_err(|error| named(&path, &error))?;
        let mut bytes = file.metadata()?.len();
        let mut last = [b'\n'];
        if bytes > 0 {
            file.read_exact_at(&mut last, bytes - 1)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
            bytes += 1;
        }
        Ok((file, bytes))
    }

    /// Deletes the oldest files until what is left and a full newest one are within the bound.
    fn make_room(&self) -> io::Result<()> {
        let mut older = Vec::new();
        let mut held = self.share();
        for number in file_numbers(&self.dir)?.into_iter().filter(|number| *number < self.number) {
            let path = path_of(&self.dir, number);
            let bytes = fs::metadata(&path)?.len();
            held = held.saturating_add(bytes);
            older.push((path, bytes));
        }
        let newest = path_of(&self.dir, self.number);
        let newest = fs::metadata(newest).map_or(0, |facts| facts.len());
        held = held.saturating_add(newest.saturating_sub(self.share()));
        for (path, bytes) in older {
            if held <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            held -= bytes;
        }
        Ok(())
    }
}

/// Whole lines, as many at a time as fit; one that is longer alone.
fn parts(mut lines: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if lines.is_empty() {
            return None;
        }
        let within = lines.get(..most).unwrap_or(lines);
        let end = |octets: &[u8]| octets.iter().rposition(|&octet| octet == b'\n');
        let first = || lines.iter().position(|&octet| octet == b'\n');
        let at = end(within).or_else(first).map_or(lines.len(), |at| at + 1);
        let (part, rest) = lines.split_at(at.min(lines.len()));
        lines = rest;
        Some(part)
    })
}
