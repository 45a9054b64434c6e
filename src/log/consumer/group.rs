//! Consumer groups: the committed offsets of a group's consumers, shard by shard (D11).
//!
//! ```text
//! DIR/groups/NAME/active             locked, shared, by each consumer that is at work
//! DIR/groups/NAME/shard-000.offset   committed offset, see `log::CommittedOffset`
//! DIR/groups/NAME/shard-000.dead     dead letters, see `log::DeadLetters`
//! DIR/groups/NAME/files              names of such files that were written, a line each
//! ```
//!
//! A file that is listed and missing was lost. Without the list it would look like one that was
//! never made. A group that lost its offset begins at the log start (duplicates, never loss),
//! wherever a new group would begin.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use mailrace_stage::{FileOp, act};

use crate::{
    Committed, CommittedOffset, DeadLetters, Found, Log, Operation, ReadError, make_private_dir,
    private_file, sync_dir,
};

/// A consumer group of one data directory. Cheap: it names files, and opens none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    dir: PathBuf,
    name: String,
}

/// What goes wrong with a group.
#[derive(Debug)]
pub enum GroupError {
    /// The name cannot be one.
    BadName(String),
    /// There is no group of this name.
    Missing(String),
    /// A consumer of it is at work.
    Active(String),
    /// The file system's answer.
    Io(io::Error),
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(name) => {
                write!(f, "{name:?} is not a group name: 1 to 64 letters, digits, '-', '_' or '.'")
            }
            Self::Missing(name) => {
                write!(f, "there is no group {name}; `mailrace group ls` lists them")
            }
            Self::Active(name) => write!(f, "group {name} has an active consumer: stop it first"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for GroupError {}

impl From<ReadError> for GroupError {
    fn from(error: ReadError) -> Self {
        Self::Io(error.into())
    }
}

impl From<io::Error> for GroupError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A group's place in one shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardGroup {
    /// The shard.
    pub shard: u16,
    /// Log start offset.
    pub start: u64,
    /// The next record wanted; `None`: nothing was committed yet.
    pub committed: Option<u64>,
    /// Log end offset.
    pub end: u64,
    /// Offsets from the first record wanted to the end.
    pub lag: u64,
    /// When the next record was received, microseconds since 1970; `None`: none is pending.
    pub oldest_pending: Option<i64>,
    /// Dead letters that are not settled.
    pub dead: u64,
}

/// Marks the group as having a consumer at work, for as long as it lives.
#[derive(Debug)]
pub struct Active {
    _lock: File,
}

impl Group {
    /// The group of a name, whether it exists or not.
    ///
    /// # Errors
    /// [`GroupError::BadName`].
    pub fn new(data_dir: &Path, name: &str) -> Result<Self, GroupError> {
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) || name.starts_with('.') {
            return Err(GroupError::BadName(name.to_owned()));
        }
        Ok(Self { dir: data_dir.join("groups").join(name), name: name.to_owned() })
    }

    /// The group of a name that must exist.
    ///
    /// # Errors
    /// [`GroupError::BadName`], [`GroupError::Missing`].
    pub fn existing(data_dir: &Path, name: &str) -> Result<Self, GroupError> {
        let group = Self::new(data_dir, name)?;
        match group.dir.is_dir() {
            true => Ok(group),
            false => Err(GroupError::Missing(name.to_owned())),
        }
    }

    /// All groups, by name.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn list(data_dir: &Path) -> Result<Vec<Self>, ReadError> {
        let dir = data_dir.join("groups");
        let listing = |error| ReadError::io(Operation::List, &dir)(error);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(listing(error)),
        };
        let mut groups = Vec::new();
        for entry in entries {
            let name = entry.map_err(listing)?.file_name();
            groups.extend(name.to_str().and_then(|name| Self::new(data_dir, name).ok()));
        }
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(groups)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// File of the committed offset of a shard.
    #[must_use]
    pub fn offset_path(&self, shard: u16) -> PathBuf {
        self.dir.join(format!("shard-{shard:03}.offset"))
    }

    /// Opens the committed offset of a shard; makes it where it is missing. One that was lost, or
    /// was cut short, is damaged.
    ///
    /// # Errors
    /// What the file system says.
    pub fn offset(&self, shard: u16) -> io::Result<(CommittedOffset, Found)> {
        let path = self.offset_path(shard);
        let (file, found) = CommittedOffset::open(&path)?;
        let found = match found {
            Found::Fresh if self.is_listed(&path)? => Found::Damaged,
            Found::Committed(_) => {
                self.list_file(&path)?;
                found
            }
            found => found,
        };
        Ok((file, found))
    }

    /// Lists a file that holds something now, so that it is missed if it is lost.
    ///
    /// # Errors
    /// What the file system says.
    pub fn list_file(&self, path: &Path) -> io::Result<()> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
        if self.is_listed(path)? {
            return Ok(());
        }
        let list = self.dir.join("files");
        let mut file =
            act(FileOp::Make, &list, || private_file().create(true).append(true).open(&list))?;
        // In front as well: the line before may be torn.
        act(FileOp::Write, &list, || file.write_all(format!("\n{name}\n").as_bytes()))?;
        act(FileOp::Sync, &list, || file.sync_data())?;
        sync_dir(&self.dir)
    }

    fn is_listed(&self, path: &Path) -> io::Result<bool> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match fs::read_to_string(self.dir.join("files")) {
            Ok(list) => Ok(list.lines().any(|line| line == name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is wrong with the dead letters of a shard, for an operator.
    ///
    /// # Errors
    /// What the file system says.
    pub fn dead_letters_fault(&self, shard: u16) -> io::Result<Option<String>> {
        let letters = self.dead_letters(shard)?;
        let path = letters.path();
        if !path.exists() && self.is_listed(path)? {
            let path = path.display();
            return Ok(Some(format!("{path} is missing: the dead letters in it are not known")));
        }
        Ok((letters.damaged() > 0).then(|| {
            let (path, damaged) = (path.display(), letters.damaged());
            format!("{path}: {damaged} damaged lines: the dead letters they named are not known")
        }))
    }

    /// The durable committed offset of a shard.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn committed(&self, shard: u16) -> Result<Option<Committed>, ReadError> {
        let path = self.offset_path(shard);
        CommittedOffset::read(&path).map_err(ReadError::io(Operation::Read, &path))
    }

    /// Opens the dead letters of a shard.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn dead_letters(&self, shard: u16) -> Result<DeadLetters, ReadError> {
        let path = self.dir.join(format!("shard-{shard:03}.dead"));
        DeadLetters::open(&path).map_err(ReadError::io(Operation::Read, &path))
    }

    /// Marks the group as having a consumer at work.
    ///
    /// # Errors
    /// [`GroupError::Active`] where the group is being removed; what the file system says.
    pub fn activate(&self) -> Result<Active, GroupError> {
        make_private_dir(&self.dir)?;
        Ok(Active { _lock: self.lock(libc::LOCK_SH)? })
    }

    /// Whether a consumer is at work.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_active(&self) -> Result<bool, GroupError> {
        match self.lock(libc::LOCK_EX) {
            Ok(_) => Ok(false),
            Err(GroupError::Active(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn lock(&self, how: i32) -> Result<File, GroupError> {
        let path = self.dir.join("active");
        let file = private_file().create(true).truncate(false).write(true).open(path)?;
        // SAFETY: a descriptor of ours; the lock goes with it.
        if unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) } == 0 {
            return Ok(file);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => {
                Err(GroupError::Active(self.name.clone()))
            }
            error => Err(error.into()),
        }
    }

    /// Moves the group in one shard. Records below its previous offset count as replayed from now
    /// on. A consumer at work continues from there within a second or so.
    ///
    /// # Errors
    /// What the file system says.
    pub fn seek(&self, shard: u16, offset: u64) -> io::Result<()> {
        let (mut file, _) = self.offset(shard)?;
        file.seek(|now| {
            let before = now.unwrap_or_default();
            let replayed_until = before.replayed_until.max(before.offset);
            Committed { offset, replayed_until, ..Committed::default() }
        })
    }

    /// Removes the group: it keeps nothing from deletion any more.
    ///
    /// # Errors
    /// [`GroupError::Active`] where a consumer is at work; what the file system says.
    pub fn remove(self) -> Result<(), GroupError> {
        let lock = self.lock(libc::LOCK_EX)?;
        fs::remove_dir_all(&self.dir)?;
        if let Some(above) = self.dir.parent() {
            sync_dir(above)?;
        }
        drop(lock);
        Ok(())
    }

    /// Where it is, shard by shard.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn describe(&self, log: &Log) -> Result<Vec<ShardGroup>, ReadError> {
        let mut facts = Vec::new();
        for shard in log.shards()? {
            let (start, end) = log.ends(shard)?;
            let committed = self.committed(shard)?.map(|committed| committed.offset);
            let at = committed.unwrap_or(start).max(start);
            let pending = log.pending(shard, at, end)?;
            let lag = pending.map_or(0, |pending| pending.records);
            let oldest_pending = pending.map(|pending| pending.oldest);
            let dead = self.dead_letters(shard)?.pending().count() as u64;
            facts.push(ShardGroup { shard, start, committed, end, lag, oldest_pending, dead });
        }
        Ok(facts)
    }
}

/// What a group still needs of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The group.
    pub group: String,
    /// Everything from this offset on.
    pub offset: u64,
    /// A dead letter needs it, not what the group has yet to read.
    pub dead: bool,
}

impl Group {
    /// What the groups of a data directory still need of a shard. A group that has committed nothing
    /// needs all.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn needs(data_dir: &Path, shard: u16) -> Result<Vec<Need>, ReadError> {
        let mut needs = Vec::new();
        for group in Self::list(data_dir)? {
            let committed = group.committed(shard)?.map_or(0, |committed| committed.offset);
            // Where a segment is missing there is nothing to keep.
            let letters = group.dead_letters(shard)?;
            let dead = letters.pending().find(|letter| letter.class != "missing");
            needs.push(Need { group: group.name.clone(), offset: committed, dead: false });
            if let Some(offset) = dead.map(|letter| letter.offset) {
                needs.push(Need { group: group.name.clone(), offset, dead: true });
            }
        }
        Ok(needs)
    }
}

/// The highest offset of a shard that a group has committed: all below it were given out.
///
/// # Errors
/// [`ReadError::Io`].
pub fn highest_committed(data_dir: &Path, shard: u16) -> Result<u64, ReadError> {
    let needs = Group::needs(data_dir, shard)?;
    Ok(needs.iter().filter(|need| !need.dead).map(|need| need.offset).max().unwrap_or(0))
}

/// The lowest offset of a shard that a group or one of its dead letters still needs; `None` where
/// there is no group. A group that has committed nothing needs all.
///
/// # Errors
/// [`ReadError::Io`].
pub fn lowest_needed(data_dir: &Path, shard: u16) -> Result<Option<u64>, ReadError> {
    Ok(Group::needs(data_dir, shard)?.iter().map(|need| need.offset).min())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeadLetter;

    fn group(dir: &Path) -> Group {
        let group = Group::new(dir, "g").unwrap();
        drop(group.activate().unwrap());
        group
    }

    #[test]
    fn a_lost_offset_is_no_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let group = group(dir.path());
        let path = group.offset_path(0);
        assert_eq!(group.offset(0).unwrap().1, Found::Fresh);
        assert_eq!(group.offset(0).unwrap().1, Found::Fresh, "nothing was committed");
        group.seek(0, 7).unwrap();
        assert!(matches!(group.offset(0).unwrap().1, Found::Committed(at) if at.offset == 7));
        for lost in [None, Some(0), Some(100)] {
            match lost {
                None => fs::remove_file(&path).unwrap(),
                Some(len) => File::options().write(true).open(&path).unwrap().set_len(len).unwrap(),
            }
            assert_eq!(group.offset(0).unwrap().1, Found::Damaged, "{lost:?}");
        }
        assert_eq!(group.offset(1).unwrap().1, Found::Fresh, "another shard's was never made");
    }

    #[test]
    fn lost_and_damaged_dead_letters_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let group = group(dir.path());
        assert_eq!(group.dead_letters_fault(0).unwrap(), None);
        let letter = |offset| DeadLetter {
            offset,
            at: 0,
            class: "refused".to_owned(),
            text: String::new(),
            attempts: 1,
            rcpt: None,
        };
        let mut letters = group.dead_letters(0).unwrap();
        letters.add([letter(1), letter(2)]).unwrap();
        group.list_file(letters.path()).unwrap();
        assert_eq!(group.dead_letters_fault(0).unwrap(), None);
        let mut octets = fs::read(letters.path()).unwrap();
        octets[12] ^= 1;
        fs::write(letters.path(), &octets).unwrap();
        let damaged = group.dead_letters_fault(0).unwrap().unwrap();
        assert!(damaged.contains("1 damaged lines"), "{damaged}");
        fs::remove_file(letters.path()).unwrap();
        let missing = group.dead_letters_fault(0).unwrap().unwrap();
        assert!(missing.contains("shard-000.dead is missing"), "{missing}");
    }

    #[test]
    fn an_offset_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let group = group(dir.path());
        let path = group.offset_path(0);
        fs::create_dir(&path).unwrap();
        let refused = group.committed(0).unwrap_err();
        assert!(matches!(&refused, ReadError::Io { path: named, .. } if *named == path));
        let text = GroupError::from(refused).to_string();
        assert!(text.starts_with(&format!("cannot read {}: ", path.display())), "{text}");
    }
}
