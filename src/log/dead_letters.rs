//! Dead letters of a consumer group in one shard: records that its sink refuses for good, and
//! records that the disk has lost (D10). A journal of record ids and causes; the mail stays in its
//! segment.
//!
//! ```text
//! DIR/groups/NAME/shard-000.dead
//!   a line each, see `checked_line`
//! ```
//!
//! An entry is durable before the committed offset passes its record. An operator requests another
//! attempt with an entry of its own; the consumer reads it, tries, and writes the result. A torn
//! line at the end was never acknowledged and is cut by the next append. A damaged line followed by
//! good ones is skipped and counted: what it named is unknown.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    checked_line,
    files::{sync_dir, unix_micros},
    private::{make_private_dir, private_file},
};
use mailrace_stage::{Bug, FileOp, act, planted};

/// A record that was not exported, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Offset of the record.
    pub offset: u64,
    /// When, microseconds since 1970.
    pub at: i64,
    /// Closed set: the exporter's error classes, `corrupt`, `replay`, and `missing` where there is no
    /// file: such a letter keeps nothing from deletion.
    pub class: String,
    /// For people.
    pub text: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The forward-paths that it is to be delivered to, as a pattern; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcpt: Option<String>,
}

/// What has become of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// An operator wants another try.
    Requeued,
    /// It was delivered after all.
    Delivered,
    /// An operator gave it up.
    Dropped,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Dead(DeadLetter),
    Fate { offset: u64, fate: Fate },
}

/// See the module's page. Its methods block.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    /// Octets read.
    read: u64,
    /// By offset: those nobody has dealt with; `true` for those to be tried again.
    pending: BTreeMap<u64, (DeadLetter, bool)>,
    damaged: u64,
}

impl DeadLetters {
    /// Opens a journal; a missing one is empty, and made by the first entry.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut letters =
            Self { path: path.to_owned(), read: 0, pending: BTreeMap::new(), damaged: 0 };
        letters.refresh()?;
        Ok(letters)
    }

    /// Those that are not settled, by offset.
    pub fn pending(&self) -> impl Iterator<Item = &DeadLetter> {
        self.pending.values().map(|(letter, _)| letter)
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lines that are damaged: what they named is not known.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Offsets that are to be tried again.
    #[must_use]
    pub fn requeued(&self) -> Vec<u64> {
        let wanted = self.pending.iter().filter(|(_, (_, requeued))| *requeued);
        wanted.map(|(offset, _)| *offset).collect()
    }

    /// The letter of a record, if it is not settled.
    #[must_use]
    pub fn get(&self, offset: u64) -> Option<&DeadLetter> {
        self.pending.get(&offset).map(|(letter, _)| letter)
    }

    /// Takes notice of what others have appended.
    ///
    /// # Errors
    /// What the file system says.
    pub fn refresh(&mut self) -> io::Result<()> {
        match File::open(&self.path) {
            Ok(file) => self.read_on(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read_on(&mut self, file: &File) -> io::Result<()> {
        let len = file.metadata()?.len();
        let mut octets = vec![0; usize::try_from(len.saturating_sub(self.read)).unwrap_or(0)];
        file.read_exact_at(&mut octets, self.read)?;
        let (mut bad, mut bad_bytes) = (0, 0);
        for line in octets.split_inclusive(|&octet| octet == b'\n') {
            let Some(entry) = checked_line::decode(line) else {
                // Torn, or being written, unless a good line comes after it: looked at again next
                // time.
                bad += 1;
                bad_bytes += line.len() as u64;
                continue;
            };
            self.damaged += std::mem::take(&mut bad);
            self.read += std::mem::take(&mut bad_bytes) + line.len() as u64;
            match entry {
                Entry::Dead(letter) => {
                    self.pending.insert(letter.offset, (letter, false));
                }
                Entry::Fate { offset, fate: Fate::Requeued } => {
                    if let Some((_, requeued)) = self.pending.get_mut(&offset) {
                        *requeued = true;
                    }
                }
                Entry::Fate { offset, .. } => {
                    self.pending.remove(&offset);
                }
            }
        }
        Ok(())
    }

    /// Adds dead letters, durably. `at` is set here.
    ///
    /// # Errors
    /// What the file system says; the entries may or may not be there.
    pub fn add(&mut self, letters: impl IntoIterator<Item = DeadLetter>) -> io::Result<()> {
        if planted(Bug::DeadLetterForgotten) {
            return Ok(());
        }
        let at = unix_micros();
        let letters = letters.into_iter().map(|letter| Entry::Dead(DeadLetter { at, ..letter }));
        self.append(letters.collect())
    }

    /// Adds letters that are to be tried at once, durably, with one write and one sync.
    ///
    /// # Errors
    /// What the file system says; the letters may or may not be there.
    pub fn add_requeued(
        &mut self,
        letters: impl IntoIterator<Item = DeadLetter>,
    ) -> io::Result<()> {
        let at = unix_micros();
        let entries = letters.into_iter().flat_map(|letter| {
            let fate = Entry::Fate { offset: letter.offset, fate: Fate::Requeued };
            [Entry::Dead(DeadLetter { at, ..letter }), fate]
        });
        self.append(entries.collect())
    }

    /// Notes what has become of some, durably.
    ///
    /// # Errors
    /// What the file system says; the entries may or may not be there.
    pub fn settle(&mut self, offsets: &[u64], fate: Fate) -> io::Result<()> {
        self.append(offsets.iter().map(|&offset| Entry::Fate { offset, fate }).collect())
    }

    fn append(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let dir = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        make_private_dir(&dir)?;
        let fresh = !self.path.exists();
        let mut file = act(FileOp::Make, &self.path, || {
            private_file().create(true).append(true).read(true).open(&self.path)
        })?;
        // SAFETY: a descriptor of ours; the lock goes with it.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
            return Err(io::Error::last_os_error());
        }
        self.read_on(&file)?;
        if file.metadata()?.len() > self.read {
            act(FileOp::Write, &self.path, || file.set_len(self.read))?;
        }
        let mut lines = Vec::new();
        for entry in &entries {
            checked_line::encode(entry, &mut lines)?;
        }
        act(FileOp::Write, &self.path, || file.write_all(&lines))?;
        act(FileOp::Sync, &self.path, || file.sync_data())?;
        if fresh {
            sync_dir(&dir)?;
        }
        self.read_on(&file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: u64) -> DeadLetter {
        let (class, text) = ("refused".to_owned(), "550\nno \"such\" user".to_owned());
        DeadLetter { offset, at: 0, class, text, attempts: 3, rcpt: None }
    }

    fn offsets(letters: &DeadLetters) -> Vec<u64> {
        letters.pending().map(|letter| letter.offset).collect()
    }

    #[test]
    fn letters_to_be_tried_at_once_are_written_in_one_piece() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g/shard-000.dead");
        DeadLetters::open(&path).unwrap().add_requeued([letter(9), letter(4)]).unwrap();
        assert_eq!(DeadLetters::open(&path).unwrap().requeued(), [4, 9]);
        // Cut anywhere by a crash: at most the last one waits for another word.
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let letters = DeadLetters::open(&path).unwrap();
            assert!(letters.requeued().len() + 1 >= offsets(&letters).len(), "cut at {cut}");
        }
    }

    #[test]
    fn a_letter_is_tried_again_and_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g/shard-000.dead");
        let mut consumer = DeadLetters::open(&path).unwrap();
        consumer.add([letter(9), letter(4), letter(7)]).unwrap();
        let mut operator = DeadLetters::open(&path).unwrap();
        assert_eq!(offsets(&operator), [4, 7, 9]);
        assert_eq!(operator.pending().next().unwrap().text, letter(4).text);
        operator.settle(&[4, 9], Fate::Requeued).unwrap();
        operator.settle(&[7], Fate::Dropped).unwrap();
        assert!(consumer.requeued().is_empty());
        consumer.refresh().unwrap();
        assert_eq!(consumer.requeued(), [4, 9]);
        consumer.settle(&[4], Fate::Delivered).unwrap();
        consumer.add([letter(9)]).unwrap();
        assert!(consumer.requeued().is_empty(), "it died once more");
        assert_eq!(offsets(&DeadLetters::open(&path).unwrap()), [9]);
    }

    #[test]
    fn a_damaged_line_hides_none_of_those_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shard-000.dead");
        DeadLetters::open(&path).unwrap().add([letter(1), letter(2), letter(3)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|&octet| octet == b'\n').unwrap() + 1;
        let mut damaged = whole.clone();
        damaged[first + 20] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let mut letters = DeadLetters::open(&path).unwrap();
        assert_eq!((offsets(&letters), letters.damaged()), (vec![1, 3], 1));
        letters.add([letter(4)]).unwrap();
        let letters = DeadLetters::open(&path).unwrap();
        assert_eq!((offsets(&letters), letters.damaged()), (vec![1, 3, 4], 1), "nothing was cut");
    }

    #[test]
    fn a_torn_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shard-000.dead");
        DeadLetters::open(&path).unwrap().add([letter(1), letter(2)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|&octet| octet == b'\n').unwrap() + 1;
        for cut in first..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut letters = DeadLetters::open(&path).unwrap();
            assert_eq!(offsets(&letters), [1], "cut at {cut}");
            letters.add([letter(3)]).unwrap();
            assert_eq!(offsets(&DeadLetters::open(&path).unwrap()), [1, 3], "cut at {cut}");
        }
    }
}
