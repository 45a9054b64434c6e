//! Files that hold mail or names of people: only the server's user may read them.
//!
//! Whatever the umask, and even in a directory that somebody else made, each file of the data
//! directory gets mode 0600 and each directory 0700. Wider modes from an earlier version are
//! tightened at start.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

const FILE: u32 = 0o600;
const DIR: u32 = 0o700;

/// Directories below one of the top directory's entries: `groups/NAME/shard-000.offset`.
const DEEP: u32 = 2;

/// Options for a file of the data directory: where one is made, only its owner may open it.
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE);
    options
}

/// Makes a directory and those above it, where they are missing.
///
/// # Errors
/// What the file system says.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR).create(path)
}

/// Takes from others what they could read in a data directory; the top directory itself is its
/// owner's matter, and only named. Returns a sentence for each thing an operator should know.
///
/// # Errors
/// What the file system says where a directory cannot be listed.
pub(super) fn tighten(top: &Path) -> io::Result<Vec<String>> {
    let mut notices = Vec::new();
    let mode = fs::metadata(top)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let top = top.display();
        notices.push(format!(
            "{top} is accessible to other users (mode {mode:04o}); they cannot read its files, \
             but they see their names: chmod 700 {top}"
        ));
    }
    let mut counts = (0, 0);
    for entry in fs::read_dir(top)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ours = ["LOCK", "node", "node.new", "in-progress", ".probe"].contains(&name);
        if ours || ["groups", "refusals"].contains(&name) || name.starts_with("shard-") {
            tighten_tree(&path, DEEP, &mut counts);
        }
    }
    let (tightened, failed) = counts;
    if tightened > 0 {
        notices.push(format!(
            "{}: {tightened} files and directories were accessible to other users; their \
             permissions have been restricted",
            top.display()
        ));
    }
    if failed > 0 {
        notices.push(format!(
            "{}: {failed} files or directories are accessible to other users and belong to \
             another user: chown and chmod them, files to 600 and directories to 700",
            top.display()
        ));
    }
    Ok(notices)
}

/// `counts`: tightened, and failed. What cannot be looked at is somebody else's to report.
fn tighten_tree(path: &Path, deep: u32, counts: &mut (u64, u64)) {
    // A shard's directory may lie on another disk; any other link is none of ours.
    let facts = if deep == DEEP { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let Ok(facts) = facts else { return };
    if facts.mode() & 0o077 != 0 && (facts.is_dir() || facts.is_file()) {
        match fs::set_permissions(path, Permissions::from_mode(facts.mode() & 0o700)) {
            Ok(()) => counts.0 += 1,
            Err(_) => counts.1 += 1,
        }
    }
    if facts.is_dir() && deep > 0 {
        let Ok(entries) = fs::read_dir(path) else { return };
        for entry in entries.flatten() {
            tighten_tree(&entry.path(), deep - 1, counts);
        }
    }
}
