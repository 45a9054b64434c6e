//! Files and directories that hold mail: complete or absent, and readable as their mode says.
//!
//! The mode is set explicitly, so that neither the umask nor what somebody has left under the name
//! counts. While a file is written only its owner can read it.

#![cfg_attr(not(any(feature = "files", feature = "store")), allow(dead_code))]

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use mailrace_log::sync_dir;

use crate::{ErrorClass, FileMode, Record, SinkError};

/// A file that is whole and synced, but not yet under its name.
pub(crate) struct Staged {
    part: PathBuf,
    path: PathBuf,
}

pub(crate) fn part_name(name: &str) -> String {
    format!(".{name}.part")
}

pub(crate) fn stage(
    part: PathBuf,
    path: PathBuf,
    octets: &[u8],
    mode: FileMode,
) -> io::Result<Staged> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(octets)?;
        file.set_permissions(Permissions::from_mode(mode.of_file()))?;
        file.sync_all()
    };
    write().map_err(|error| at(&part, &error))?;
    Ok(Staged { part, path })
}

pub(crate) fn publish(dir: &Path, staged: Vec<Staged>) -> io::Result<()> {
    for Staged { part, path } in staged {
        fs::rename(&part, &path).map_err(|error| at(&path, &error))?;
    }
    sync_dir(dir).map_err(|error| at(dir, &error))
}

/// Writes a whole file under its name. Blocks.
pub(crate) fn put_file(dir: &Path, name: &str, octets: &[u8], mode: FileMode) -> io::Result<()> {
    publish(dir, vec![stage(dir.join(part_name(name)), dir.join(name), octets, mode)?])
}

/// Writes a whole file under its name, as the records' files are, for its owner alone. Blocks.
///
/// # Errors
/// What the file system says, with the path.
pub fn replace_file(dir: &Path, name: &str, octets: &[u8]) -> io::Result<()> {
    put_file(dir, name, octets, FileMode::default())
}

/// Makes a directory, and missing ones above it, for those who may read files of this mode. An
/// existing one stays as it is.
pub(crate) fn make_dirs(dir: &Path, mode: FileMode) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_dirs(above, mode)?;
    }
    let made = match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode.of_dir())).and_then(|()| {
            // A file within is durable only once its directory is.
            match dir.parent() {
                Some(above) if above.as_os_str().is_empty() => sync_dir(Path::new(".")),
                Some(above) => sync_dir(above),
                None => Ok(()),
            }
        }),
        // Another lane was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    };
    made.map_err(|error| at(dir, &error))
}

/// `<node>-<shard>-<first>-<last>`, spelled as in record ids.
pub(crate) fn batch_name(records: &[Record]) -> String {
    match (records.first(), records.last()) {
        (Some(first), Some(last)) => format!("{}-{:016x}", first.id, last.id.offset.get()),
        _ => String::new(),
    }
}

/// What the file system says, as a sink says it.
pub(crate) fn sink_error(error: io::Error) -> SinkError {
    let class = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorClass::Missing,
        io::ErrorKind::PermissionDenied => ErrorClass::Auth,
        _ => ErrorClass::Other,
    };
    SinkError::new(class, error)
}

pub(crate) fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
