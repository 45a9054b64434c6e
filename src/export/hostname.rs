//! The server's name, kept in its data directory: tools that write mail out of a log name the
//! server that received it (RFC 5321 §4.4), and they may run on another machine.

use std::{fs, io, path::Path};

use super::place::replace_file;

const FILE: &str = "hostname";

/// Keeps the name of the server that works on a data directory (`server.hostname`).
///
/// # Errors
/// What the file system says, with the path.
pub fn save_hostname(data_dir: &Path, hostname: &str) -> io::Result<()> {
    match saved_hostname(data_dir) {
        Some(saved) if saved == hostname => Ok(()),
        _ => replace_file(data_dir, FILE, format!("{hostname}\n").as_bytes()),
    }
}

/// The name of the server that last worked on a data directory; `None` where none has kept it yet.
#[must_use]
pub fn saved_hostname(data_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(data_dir.join(FILE)).ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}
