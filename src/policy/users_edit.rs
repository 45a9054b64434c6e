//! Changes to a users file: lines are replaced, added or removed, everything else stays as it is.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use argon2::{Algorithm, Argon2, Params, Version, password_hash};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::saslprep;
use super::users::{
    Entry, SALT_BYTES, SCRAM_ITERATIONS, Users, check_name, entry, format_credential, owasp,
};
use crate::{smtp::ScramCredential, sys::random};

/// A change.
pub enum Edit<'a> {
    /// Adds a user, or gives it another password.
    Set {
        /// Its name.
        name: &'a str,
        /// Its password as typed; it is prepared by SASLprep (RFC 4013).
        password: &'a str,
    },
    /// Takes a user away.
    Remove {
        /// Its name.
        name: &'a str,
    },
}

/// Why a file was not changed.
#[derive(Debug)]
pub enum EditError {
    /// The name, the password, or what is in the file already.
    Bad(String),
    /// The file has no user of this name.
    NotThere(PathBuf, String),
    /// The file cannot be read or written.
    Io(PathBuf, io::Error),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(message) => f.write_str(message),
            Self::NotThere(path, name) => {
                write!(f, "{}: there is no user {name}", path.display())
            }
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for EditError {}

/// Changes a users file, which is replaced as a whole: readers see it as it was or as it is. It is
/// made if it is not there, and is its owner's alone. Says whether the user was there before.
///
/// # Errors
/// See [`EditError`]; the file is as it was.
pub fn edit_users(path: &Path, edit: &Edit<'_>) -> Result<bool, EditError> {
    // A link stays one.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |error| EditError::Io(path.clone(), error);
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    // The directory, since the file itself is replaced; held until it is.
    let lock = File::open(dir).and_then(|dir| dir.lock().map(|()| dir)).map_err(failed)?;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Edit::Remove { .. } = edit {
                return Err(failed(error));
            }
            fresh().map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    checked(path, &text)?;
    let (text, was_there) = changed(path, &text, edit)?;
    replace(path, &text).and_then(|()| lock.sync_all()).map_err(failed)?;
    Ok(was_there)
}

/// A user of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// It can use SCRAM.
    pub scram: bool,
}

/// The users of a file, in its order.
///
/// # Errors
/// The file cannot be read, or a line of it is wrong.
pub fn list_users(path: &Path) -> Result<Vec<Listed>, EditError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| EditError::Io(path.to_owned(), error))?;
    checked(path, &text)?;
    let users = text.lines().filter_map(|line| match entry(line) {
        Entry::User { name, scram, .. } => {
            Some(Listed { name: name.to_owned(), scram: scram.is_some() })
        }
        _ => None,
    });
    Ok(users.collect())
}

fn checked(path: &Path, text: &str) -> Result<(), EditError> {
    Users::parse(text)
        .map(drop)
        .map_err(|(line, message)| EditError::Bad(format!("{}:{line}: {message}", path.display())))
}

/// An empty file.
fn fresh() -> io::Result<String> {
    let decoy: [u8; 32] = random()?;
    Ok(format!(
        "# Users of mailrace: see `mailrace user --help`.\n# Secret from which the salts of \
         unknown users are derived.\n!decoy:{}\n",
        STANDARD.encode(decoy)
    ))
}

fn changed(path: &Path, text: &str, edit: &Edit<'_>) -> Result<(String, bool), EditError> {
    let (name, line) = match edit {
        Edit::Set { name, password } => {
            check_name(name).map_err(EditError::Bad)?;
            let password = saslprep::prepare(password).map_err(EditError::Bad)?;
            (*name, Some(line_of(name, &password, &owasp(), SCRAM_ITERATIONS)?))
        }
        Edit::Remove { name } => (*name, None),
    };
    let mut out = String::with_capacity(text.len() + 256);
    let mut found = false;
    for old in text.lines() {
        let its = matches!(entry(old), Entry::User { name: of, .. } if of == name);
        found |= its;
        let kept = if its { line.as_deref() } else { Some(old) };
        if let Some(kept) = kept {
            out.push_str(kept);
            out.push('\n');
        }
    }
    match line {
        Some(line) if !found => {
            out.push_str(&line);
            out.push('\n');
        }
        None if !found => return Err(EditError::NotThere(path.to_owned(), name.to_owned())),
        _ => {}
    }
    Ok((out, found))
}

/// The line of a user; takes a tenth of a second with the parameters of every day.
pub(super) fn line_of(
    name: &str,
    password: &str,
    params: &Params,
    iterations: u32,
) -> Result<String, EditError> {
    let bad = |error: &dyn fmt::Display| EditError::Bad(format!("argon2id: {error}"));
    let salts: [u8; 2 * SALT_BYTES] =
        random().map_err(|error| EditError::Bad(format!("no random numbers: {error}")))?;
    let (salt, scram_salt) = salts.split_at(SALT_BYTES);
    let mut output = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into(password.as_bytes(), salt, &mut output)
        .map_err(|error| bad(&error))?;
    let salt = password_hash::SaltString::encode_b64(salt).map_err(|error| bad(&error))?;
    let hash = password_hash::PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: params.try_into().map_err(|error: password_hash::Error| bad(&error))?,
        salt: Some(salt.as_salt()),
        hash: Some(password_hash::Output::new(&output).map_err(|error| bad(&error))?),
    };
    let scram = ScramCredential::derive(password.as_bytes(), scram_salt, iterations);
    Ok(format!("{name}:{hash}:{}", format_credential(&scram)))
}

/// Writes another file next to it, syncs, and renames it over the old one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let beside = path.with_file_name(name);
    // Left behind by a crash: the lock is ours.
    let _ = std::fs::remove_file(&beside);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_made_changed_and_keeps_its_comments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let set = |name, password| edit_users(&path, &Edit::Set { name, password });
        assert!(!set("tim", "one").unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let first = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{first}# and\n\n")).unwrap();
        assert!(!set("tom", "two").unwrap());
        assert!(set("tim", "three").unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        let users = Users::parse(&text).unwrap();
        assert!(users.verify("tim", "three") && users.verify("tom", "two"));
        assert!(!users.verify("tim", "one"));
        let kinds: Vec<_> = text.lines().map(|line| line.get(..4).unwrap_or(line)).collect();
        assert_eq!(kinds, ["# Us", "# Se", "!dec", "tim:", "# an", "", "tom:"]);
        assert!(text.contains(":$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        edit_users(&path, &Edit::Remove { name: "tim" }).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("tim:") && text.contains("tom:") && text.contains("# and\n\n"));
        let gone = edit_users(&path, &Edit::Remove { name: "tim" });
        assert!(matches!(gone, Err(EditError::NotThere(..))));
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let set = |name, password| edit_users(&path, &Edit::Set { name, password }).unwrap_err();
        for (name, password, told) in [
            ("a:b", "x", "is not a user name"),
            ("", "x", "is not a user name"),
            ("a", "", "the password is empty"),
            ("a", "x\ny", "control characters"),
            ("a", "x\u{202e}y", "U+202E, which SASLprep (RFC 4013) does not allow"),
        ] {
            let error = set(name, password).to_string();
            assert!(error.contains(told), "{error}");
        }
        assert!(!path.exists());
        std::fs::write(&path, "nonsense\n").unwrap();
        let error = set("a", "x").to_string();
        assert!(error.contains(":1: not NAME:HASH"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nonsense\n");
    }
}
