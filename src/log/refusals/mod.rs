//! Refusals: what was not taken, of whom and why, kept for a while in files of bounded size.
//!
//! ```text
//! DIR/refusals/shard-000/0000000007.ref   numbered; the oldest is deleted for a new one
//!   a line each, see `checked_line`: a checksum, a JSON object, LF
//! ```
//!
//! Nothing is promised of them: they are not synced, and a flood leaves some out. So a file may end in
//! the middle of a line after a crash; the next writer ends that line, and readers pass over it.

mod reader;
mod writer;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use reader::{RefusalAt, RefusalEntry, RefusalReader};
pub use writer::RefusalWriter;

/// Extension of a file of refusals.
const EXTENSION: &str = "ref";

/// Octets of each text that a client chose.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 320;

/// Octets of a line. The texts of one, all escaped, need less.
const LINE_BYTES_MAX: usize = 32 << 10;

/// One refusal. Mail data and credentials are never in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Microseconds since 1970.
    pub at: i64,
    /// Name of the listener.
    pub listener: String,
    /// The client; `None`: one on a unix socket.
    pub client: Option<SocketAddr>,
    /// Name that it gave in EHLO, HELO or LHLO; empty: none yet.
    pub helo: String,
    /// Reverse-path, once there is one; empty: the null path.
    pub mail_from: Option<String>,
    /// The forward-path that was refused.
    pub rcpt_to: Option<String>,
    /// `connect`, the name of a command, or `message` at the end of mail data.
    pub stage: String,
    /// Reply code.
    pub code: u16,
    /// Enhanced status code (RFC 3463); empty: none.
    pub enhanced: String,
    /// The reply's text.
    pub text: String,
    /// Why: the reply's text, or what that does not say.
    pub reason: String,
}

impl Refusal {
    /// With texts that are no longer than they may be.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.helo, &mut self.text, &mut self.reason] {
            cut(text);
        }
        for text in [&mut self.mail_from, &mut self.rcpt_to].into_iter().flatten() {
            cut(text);
        }
        self
    }
}

fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(REFUSAL_TEXT_BYTES_MAX));
}

/// Shards of which a data directory has refusals, in order.
///
/// # Errors
/// What the file system says; a directory that is not there has none.
pub fn refusal_shards(dir: &Path) -> io::Result<Vec<u16>> {
    let mut shards = numbers(&dir.join("refusals"), |name| name.strip_prefix("shard-"))?;
    shards.dedup();
    Ok(shards.into_iter().filter_map(|shard| u16::try_from(shard).ok()).collect())
}

fn dir_of(dir: &Path, shard: u16) -> PathBuf {
    dir.join("refusals").join(format!("shard-{shard:03}"))
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.{EXTENSION}"))
}

fn file_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    numbers(dir, |name| name.strip_suffix(EXTENSION)?.strip_suffix('.'))
}

/// Numbers in the names of a directory's entries, in order.
fn numbers(dir: &Path, digits: impl Fn(&str) -> Option<&str>) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| named(dir, &error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(&digits);
        found.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// With the path in the error's words.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(at: i64) -> Refusal {
        Refusal {
            at,
            listener: "mx".to_owned(),
            client: Some("192.0.2.7:2525".parse().unwrap()),
            helo: "mx.sender.example".to_owned(),
            mail_from: Some("a@sender.example".to_owned()),
            rcpt_to: Some("nobody@ours.example".to_owned()),
            stage: "rcpt".to_owned(),
            code: 550,
            enhanced: "5.1.1".to_owned(),
            text: "No such user here".to_owned(),
            reason: "No such user here".to_owned(),
        }
    }

    fn all(dir: &Path) -> (Vec<i64>, Vec<RefusalEntry>) {
        let mut reader = RefusalReader::open(dir, 0).unwrap();
        let (mut times, mut rest) = (Vec::new(), Vec::new());
        while let Some(entry) = reader.next().unwrap() {
            match entry {
                RefusalEntry::Whole { refusal, .. } => times.push(refusal.at),
                damaged => rest.push(damaged),
            }
        }
        rest.extend(reader.unfinished());
        (times, rest)
    }

    fn only_file(dir: &Path) -> PathBuf {
        path_of(&dir_of(dir, 0), 1)
    }

    #[test]
    fn what_was_written_is_read_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        for start in 0..3 {
            let mut writer = RefusalWriter::open(dir.path(), 0, 1 << 20).unwrap();
            for at in 0..10 {
                writer.append(&[refusal(start * 10 + at)]).unwrap();
            }
        }
        let (times, damage) = all(dir.path());
        assert_eq!((times, damage), ((0..30).collect(), Vec::new()));
        assert_eq!(refusal_shards(dir.path()).unwrap(), [0]);
        assert_eq!(file_numbers(&dir_of(dir.path(), 0)).unwrap(), [1], "restarts make no files");
        let mut reader = RefusalReader::open(dir.path(), 0).unwrap();
        let Some(RefusalEntry::Whole { refusal: first, .. }) = reader.next().unwrap() else {
            panic!("the first is whole")
        };
        assert_eq!(*first, refusal(0));
    }

    /// Number and size of the files are bounded, and what is left are the newest.
    #[test]
    fn the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = RefusalWriter::open(dir.path(), 0, 64 << 10).unwrap();
        for at in 0..4_000 {
            writer.append(&[refusal(at)]).unwrap();
        }
        drop(writer);
        let shard = dir_of(dir.path(), 0);
        let held = |shard: &Path| -> u64 {
            fs::read_dir(shard).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
        };
        assert!(held(&shard) <= 64 << 10, "{}", held(&shard));
        let (times, damage) = all(dir.path());
        assert_eq!(damage, []);
        assert!(times.len() > 100 && times[0] > 0);
        assert_eq!(times, (times[0]..4_000).collect::<Vec<_>>(), "without gaps, to the last");
        // A smaller bound holds from the next start on.
        RefusalWriter::open(dir.path(), 0, 16 << 10).unwrap().append(&[refusal(4_000)]).unwrap();
        assert!(held(&shard) <= 16 << 10, "{}", held(&shard));
        assert_eq!(all(dir.path()).0.last(), Some(&4_000));
    }

    #[test]
    fn damage_costs_its_lines_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<_> = (10..30).map(refusal).collect();
        RefusalWriter::open(dir.path(), 0, 1 << 20).unwrap().append(&lines).unwrap();
        let path = only_file(dir.path());
        let whole = fs::read(&path).unwrap();
        let line = whole.len() / 20;
        let mut flipped = whole.clone();
        flipped[line * 3 + line / 2] ^= 1;
        fs::write(&path, &flipped).unwrap();
        let (times, damage) = all(dir.path());
        assert_eq!(times.len(), 19);
        assert!(!times.contains(&13));
        let [RefusalEntry::Damaged { at, bytes }] = &damage[..] else { panic!("{damage:?}") };
        assert_eq!((at.file, at.position), (1, (whole.len() * 3 / 20) as u64));
        assert!(*bytes > 100);
        // Junk without any line end costs no memory.
        fs::write(&path, [&vec![b'x'; 3 << 20][..], b"\n", &whole].concat()).unwrap();
        let (times, damage) = all(dir.path());
        assert_eq!(times.len(), 20);
        let at = RefusalAt { file: 1, position: 0 };
        assert_eq!(damage, [RefusalEntry::Damaged { at, bytes: (3 << 20) + 1 }]);
        for end in [0, 1, line, line * 5 - 1, line * 5 + 7, whole.len() - 1] {
            fs::write(&path, &whole[..end]).unwrap();
            let (times, damage) = all(dir.path());
            let kept = whole[..end].iter().filter(|&&octet| octet == b'\n').count();
            assert_eq!(times.len(), kept, "cut at {end}");
            let rest = end - whole[..end].iter().rposition(|&o| o == b'\n').map_or(0, |at| at + 1);
            let cut: Vec<_> = damage
                .iter()
                .map(|entry| match entry {
                    RefusalEntry::Unfinished { bytes, .. } => *bytes,
                    other => panic!("{other:?}"),
                })
                .collect();
            let expected = if rest > 0 { vec![rest as u64] } else { Vec::new() };
            assert_eq!(cut, expected, "cut at {end}");
        }
        // The next writer ends the torn line, and loses nothing that comes after.
        fs::write(&path, &whole[..line * 5 + 7]).unwrap();
        RefusalWriter::open(dir.path(), 0, 1 << 20).unwrap().append(&[refusal(99)]).unwrap();
        let (times, damage) = all(dir.path());
        assert_eq!((times.len(), times.last()), (6, Some(&99)));
        assert!(matches!(damage[..], [RefusalEntry::Damaged { .. }]), "{damage:?}");
    }

    /// A reader that follows sees whole lines only, over the change of files.
    #[test]
    fn a_reader_follows() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = RefusalWriter::open(dir.path(), 0, 64 << 10).unwrap();
        let mut reader = RefusalReader::open(dir.path(), 0).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        for at in 0..2_000 {
            writer.append(&[refusal(at)]).unwrap();
            match reader.next().unwrap() {
                Some(RefusalEntry::Whole { refusal, .. }) => assert_eq!(refusal.at, at),
                other => panic!("{at}: {other:?}"),
            }
            assert_eq!(reader.next().unwrap(), None);
        }
    }

    #[test]
    fn hostile_texts_are_bounded_and_stay_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let hostile = Refusal {
            helo: "\u{1}\n\"\\\u{fffd}".repeat(10_000),
            mail_from: Some("ü\r\n".repeat(10_000)),
            ..refusal(1)
        }
        .bounded();
        assert!(hostile.helo.len() <= REFUSAL_TEXT_BYTES_MAX);
        let mut writer = RefusalWriter::open(dir.path(), 0, 1 << 20).unwrap();
        writer.append(std::slice::from_ref(&hostile)).unwrap();
        let mut reader = RefusalReader::open(dir.path(), 0).unwrap();
        let Some(RefusalEntry::Whole { refusal, .. }) = reader.next().unwrap() else {
            panic!("it is whole")
        };
        assert_eq!(*refusal, hostile);
        let text = fs::read_to_string(only_file(dir.path())).unwrap();
        assert_eq!(text.lines().count(), 1);
    }
}
