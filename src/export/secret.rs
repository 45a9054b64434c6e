//! Secrets in files of one line.

use std::path::Path;

use super::{ErrorClass, SinkError};

/// What a file holds, without the line end an editor leaves. Reads a file: not for an executor's
/// thread.
///
/// # Errors
/// It cannot be read, or is empty; the text names the file, never what is in it.
pub fn read_secret(path: &Path) -> Result<String, SinkError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        SinkError::new(ErrorClass::Auth, format!("{}: {error}", path.display()))
    })?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(SinkError::new(ErrorClass::Auth, format!("{}: empty", path.display())));
    }
    Ok(secret.to_owned())
}
