//! How a file gets into a backup, or out of one: as a hard link, or as a copy that has its name only
//! once it is whole and synced.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::Progress;
use crate::private::private_file;

/// Where a segment may come from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    /// The same segment in the backup before.
    pub(super) before: Option<PathBuf>,
}

/// How it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It is the one of the backup before, or was there from an interrupted try.
    Kept,
    Linked,
    Copied,
    /// The source is not there any more.
    Gone,
}

impl Source<'_> {
    /// Puts a file that never changes again to its place.
    pub(super) fn place(&self, to: &Path, progress: &mut Progress<'_>) -> io::Result<Placed> {
        let facts = match fs::metadata(self.file) {
            Ok(facts) => facts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Placed::Gone),
            Err(error) => return Err(named(self.file, error)),
        };
        let same = |path: &Path| {
            fs::metadata(path)
                .is_ok_and(|other| (other.dev(), other.ino()) == (facts.dev(), facts.ino()))
        };
        let before = self.before.as_deref().filter(|before| {
            // On another file system: by its length; number and nonce were compared.
            same(before) || fs::metadata(before).is_ok_and(|other| other.len() == facts.len())
        });
        if same(to) {
            return Ok(Placed::Kept);
        }
        remove_if_there(to)?;
        progress(facts.len());
        match fs::hard_link(self.file, to) {
            Ok(()) if before.is_some_and(same) => return Ok(Placed::Kept),
            Ok(()) => return Ok(Placed::Linked),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.file.exists() => {
                return Ok(Placed::Gone);
            }
            // Another file system, or one without links.
            Err(_) => {}
        }
        if let Some(before) = before
            && fs::hard_link(before, to).is_ok()
        {
            return Ok(Placed::Kept);
        }
        match File::open(self.file) {
            Ok(file) => copy(file, facts.len(), facts.len(), to)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Placed::Gone),
            Err(error) => return Err(named(self.file, error)),
        }
        Ok(Placed::Copied)
    }
}

/// Copies the first octets of a file; the copy has so many octets in all, the rest zero.
pub(super) fn copy(file: impl Read, first: u64, all: u64, to: &Path) -> io::Result<()> {
    let part = part(to);
    let copied = (|| {
        let mut into = private_file().create(true).truncate(true).write(true).open(&part)?;
        io::copy(&mut file.take(first), &mut into)?;
        into.set_len(all)?;
        into.sync_all()?;
        fs::rename(&part, to)
    })();
    copied.map_err(|error| {
        // Room for what comes next.
        let _ = fs::remove_file(&part);
        named(to, error)
    })
}

/// Copies a file that is small and may still change; where it is missing, so is the copy.
pub(super) fn copy_small(from: &Path, to: &Path) -> io::Result<()> {
    match fs::read(from) {
        Ok(octets) => write(to, &octets),
        Err(error) if error.kind() == io::ErrorKind::NotFound => remove_if_there(to),
        Err(error) => Err(named(from, error)),
    }
}

/// As [`copy_small`], up to the last end of a line: the next may be half written.
pub(super) fn copy_whole_lines(from: &Path, to: &Path) -> io::Result<()> {
    match fs::read(from) {
        Ok(octets) => {
            let end = octets.iter().rposition(|&octet| octet == b'\n').map_or(0, |at| at + 1);
            write(to, octets.get(..end).unwrap_or_default())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => remove_if_there(to),
        Err(error) => Err(named(from, error)),
    }
}

fn write(to: &Path, octets: &[u8]) -> io::Result<()> {
    let part = part(to);
    let written = (|| {
        let mut file = private_file().create(true).truncate(true).write(true).open(&part)?;
        file.write_all(octets)?;
        file.sync_all()?;
        fs::rename(&part, to)
    })();
    written.map_err(|error| named(to, error))
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(path, error)),
        _ => Ok(()),
    }
}

fn part(to: &Path) -> PathBuf {
    to.with_extension("part")
}

pub(super) fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
