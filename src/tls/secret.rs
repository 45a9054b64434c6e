//! Secrets in files of one line.

use std::{error::Error, fmt, path::Path};

/// What a file holds, without the line end an editor leaves. Reads a file: not for an executor's
/// thread.
///
/// # Errors
/// It cannot be read, or is empty; the text names the file, never what is in it.
pub fn read_secret(path: &Path) -> Result<String, SecretError> {
    let failed = |why: &dyn fmt::Display| SecretError(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(failed(&"empty"));
    }
    Ok(secret.to_owned())
}

/// A secret that cannot be had, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretError(String);

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for SecretError {}
