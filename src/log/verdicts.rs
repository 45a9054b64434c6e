//! Verdicts on records: found out after a record's commit, kept next to its segment, joined by offset.
//!
//! ```text
//! DIR/shard-000/0000000007.ver   of the records in segment 7
//!   a line each:  CRC-32C of what follows, 8 hexadecimal digits; a space; a JSON object; LF
//! DIR/shard-000/verdicts.offset  every record below has its verdict, or gets none (see `committed`)
//! ```
//!
//! What a crash does:
//!
//! 1. A line is written, then synced. Within the server nobody sees it before ([`VerdictMarks`]).
//! 2. Power goes in between: a torn line is cut by the next writer, and its record is judged again.
//! 3. Power goes after the sync and before the offset is saved: the lines say which records at or above
//!    the offset are judged ([`VerdictWriter::judged`]), and none is judged twice.
//!
//! Of two lines about one record the first counts. Retention deletes the file with its segment; one that
//! is left without is deleted at the next start ([`VerdictWriter::open`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{
    Committed, CommittedOffset, Found, Log, Verdict, checked_line,
    files::{segment_path, shard_dir, sync_dir},
    private::private_file,
};
use mailrace_stage::{FileOp, act};

/// Extension of a segment's verdicts.
pub(super) const VERDICTS: &str = "ver";

/// Files whose lines a reader remembers: one is read at a time, and records of two come in turn only
/// where a segment ends.
const FILES_MAX: usize = 4;

#[derive(Serialize, Deserialize)]
struct Line<V> {
    offset: u64,
    verdict: V,
}

/// How far the verdicts of each segment are synced, where the writer and readers of one process see
/// it.
#[derive(Debug, Default)]
pub struct VerdictMarks {
    marks: Mutex<Marks>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Marks {
    /// Octets of a segment's verdicts.
    synced: HashMap<(u16, u64), u64>,
    /// Of a shard, below which every record has its verdict or gets none.
    done: HashMap<u16, u64>,
}

impl VerdictMarks {
    fn publish(&self, shard: u16, segment: u64, bytes: u64) {
        self.lock().synced.insert((shard, segment), bytes);
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_done(&self, shard: u16, offset: u64) {
        self.lock().done.insert(shard, offset);
        self.moved.notify_all();
    }

    /// Whether a verdict on this record may still come.
    #[must_use]
    pub fn may_come(&self, shard: u16, offset: u64) -> bool {
        self.lock().done.get(&shard).is_some_and(|done| offset >= *done)
    }

    /// Octets of a file that may be looked at; `None`: all of it, since nobody writes it.
    fn of(&self, shard: u16, segment: u64) -> Option<u64> {
        self.lock().synced.get(&(shard, segment)).copied()
    }

    /// Waits until verdicts have come, or for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        drop(self.moved.wait_timeout(self.lock(), timeout));
    }
}

/// Writes the verdicts of one shard. There is one; its methods block.
#[derive(Debug)]
pub struct VerdictWriter {
    dir: PathBuf,
    shard: u16,
    marks: Arc<VerdictMarks>,
    offset: CommittedOffset,
    committed: Committed,
    saved: Instant,
    judged: BTreeSet<u64>,
    /// The file that was written last, and its octets.
    open: Option<(u64, File, u64)>,
}

impl VerdictWriter {
    /// Opens or makes the journal of a shard. A new one begins at `mark`: records before are not
    /// judged.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(log: &Log, shard: u16, mark: u64, marks: Arc<VerdictMarks>) -> io::Result<Self> {
        let dir = shard_dir(log.dir(), shard);
        sweep(&dir)?;
        let (mut offset, found) = CommittedOffset::open(&dir.join("verdicts.offset"))?;
        let committed = match found {
            Found::Committed(committed) if committed.offset <= mark => committed,
            // New, or damaged, or of a log that ends earlier now.
            _ => {
                let begin = Committed { offset: mark, ..Committed::default() };
                offset.seek(|_| begin)?;
                begin
            }
        };
        let segments = log.segments(shard)?;
        let first = segments.partition_point(|segment| segment.base_offset <= committed.offset);
        let mut judged = BTreeSet::new();
        for segment in segments.get(first.saturating_sub(1)..).unwrap_or_default() {
            let mut lines = Lines::default();
            lines.read(&path_of(&dir, segment.number), None)?;
            judged.extend(lines.places.range(committed.offset..).map(|(offset, _)| *offset));
        }
        marks.publish_done(shard, committed.offset);
        Ok(Self { dir, shard, marks, offset, committed, saved: Instant::now(), judged, open: None })
    }

    /// Every record below has its verdict or gets none.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed.offset
    }

    /// Whether a record has its verdict already: one at or above [`Self::committed`], from before a
    /// crash.
    #[must_use]
    pub fn judged(&self, offset: u64) -> bool {
        self.judged.contains(&offset)
    }

    /// Appends verdicts, each with segment and offset of its record; durable and visible once it
    /// returns. Those whose segment is gone are left out.
    ///
    /// # Errors
    /// What the file system says; the verdicts may or may not be there, and are not visible.
    pub fn append(&mut self, verdicts: &[(u64, u64, Verdict)]) -> io::Result<()> {
        let mut by_segment: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (segment, offset, verdict) in verdicts {
            let lines = by_segment.entry(*segment).or_default();
            checked_line::encode(&Line { offset: *offset, verdict }, lines)?;
        }
        for (segment, lines) in by_segment {
            if !segment_path(&self.dir, segment).exists() {
                continue;
            }
            let appended = self.append_lines(segment, &lines);
            if appended.is_err() {
                // What is behind the mark is cut when it is opened again.
                self.open = None;
            }
            appended?;
        }
        self.judged.extend(verdicts.iter().map(|(_, offset, _)| *offset));
        Ok(())
    }

    fn append_lines(&mut self, segment: u64, lines: &[u8]) -> io::Result<()> {
        let path = path_of(&self.dir, segment);
        let (file, bytes) = match self.open.take() {
            Some((number, file, bytes)) if number == segment => (file, bytes),
            _ => self.open_file(&path, segment)?,
        };
        act(FileOp::Write, &path, || file.write_all_at(lines, bytes))?;
        act(FileOp::Sync, &path, || file.sync_data())?;
        let bytes = bytes + lines.len() as u64;
        self.marks.publish(self.shard, segment, bytes);
        self.open = Some((segment, file, bytes));
        Ok(())
    }

    /// Cuts what a crash or a failed write has left behind the last whole line.
    fn open_file(&self, path: &Path, segment: u64) -> io::Result<(File, u64)> {
        let mut lines = Lines::default();
        lines.read(path, self.marks.of(self.shard, segment))?;
        // Readers see nothing beyond from here on, whatever is written.
        self.marks.publish(self.shard, segment, lines.read);
        let fresh = !path.exists();
        let file = act(FileOp::Make, path, || {
            private_file().create(true).truncate(false).read(true).write(true).open(path)
        })?;
        if file.metadata()?.len() > lines.read {
            act(FileOp::Write, path, || file.set_len(lines.read))?;
        }
        if fresh {
            sync_dir(&self.dir)?;
        }
        Ok((file, lines.read))
    }

    /// Saves that every record below `offset` is done, at most each second unless `now` is set.
    ///
    /// # Errors
    /// What the file system says.
    pub fn commit(&mut self, offset: u64, now: bool) -> io::Result<()> {
        self.marks.publish_done(self.shard, offset);
        let due = now || self.saved.elapsed() >= Duration::from_secs(1);
        if offset <= self.committed.offset || !due {
            return Ok(());
        }
        let committed = Committed { offset, ..self.committed };
        // Nobody else writes it: a place that was moved is not gone to.
        self.offset.seek(|_| committed)?;
        self.committed = committed;
        self.saved = Instant::now();
        self.judged = self.judged.split_off(&offset);
        Ok(())
    }
}

/// Deletes verdicts whose segment is gone.
fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|extension| extension == VERDICTS);
        if is_ours && !path.with_extension("seg").exists() {
            act(FileOp::Remove, &path, || fs::remove_file(&path))?;
        }
    }
    Ok(())
}

fn path_of(dir: &Path, segment: u64) -> PathBuf {
    segment_path(dir, segment).with_extension(VERDICTS)
}

/// Finds verdicts by segment and offset of their records.
#[derive(Debug)]
pub struct VerdictReader {
    log: PathBuf,
    marks: Option<Arc<VerdictMarks>>,
    files: Vec<((u16, u64), Lines)>,
}

impl VerdictReader {
    /// Over a data directory; `marks` within the server.
    #[must_use]
    pub fn new(log: &Log, marks: Option<Arc<VerdictMarks>>) -> Self {
        Self { log: log.dir().to_owned(), marks, files: Vec::new() }
    }

    /// The verdict on a record; `None`: there is none (yet).
    ///
    /// # Errors
    /// What the file system says.
    pub fn get(&mut self, shard: u16, segment: u64, offset: u64) -> io::Result<Option<Verdict>> {
        let path = path_of(&shard_dir(&self.log, shard), segment);
        let key = (shard, segment);
        let at = match self.files.iter().position(|(known, _)| *known == key) {
            Some(at) => at,
            None => {
                if self.files.len() >= FILES_MAX {
                    self.files.remove(0);
                }
                self.files.push((key, Lines::default()));
                self.files.len() - 1
            }
        };
        let Some((_, lines)) = self.files.get_mut(at) else { return Ok(None) };
        if !lines.places.contains_key(&offset) {
            let limit = self.marks.as_ref().and_then(|marks| marks.of(shard, segment));
            lines.read(&path, limit)?;
        }
        let Some(&(position, len)) = lines.places.get(&offset) else { return Ok(None) };
        let mut line = vec![0; len];
        File::open(&path)?.read_exact_at(&mut line, position)?;
        Ok(checked_line::decode::<Line<Verdict>>(&line).map(|line| line.verdict))
    }
}

/// What is known of one file.
#[derive(Debug, Default)]
struct Lines {
    /// Octets up to the end of the last whole line.
    read: u64,
    /// Of each record: position and octets of its line.
    places: BTreeMap<u64, (u64, usize)>,
}

impl Lines {
    /// Reads what has come since; a missing file has nothing.
    fn read(&mut self, path: &Path, limit: Option<u64>) -> io::Result<()> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let len = file.metadata()?.len().min(limit.unwrap_or(u64::MAX));
        let mut octets = vec![0; usize::try_from(len.saturating_sub(self.read)).unwrap_or(0)];
        file.read_exact_at(&mut octets, self.read)?;
        let mut at = self.read;
        for line in octets.split_inclusive(|&octet| octet == b'\n') {
            let position = at;
            at += line.len() as u64;
            // A damaged line is skipped if a good one follows; at the end it is torn.
            if let Some(decoded) = checked_line::decode::<Line<IgnoredAny>>(line) {
                self.places.entry(decoded.offset).or_insert((position, line.len()));
                self.read = at;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::written;

    fn verdict(number: i64) -> Verdict {
        Verdict { engine: "test".to_owned(), judged_at: number, ..Verdict::default() }
    }

    /// A log of so many records, with their segments.
    fn log(dir: &Path, records: usize) -> (Log, Vec<u64>) {
        written(dir, records);
        let log = Log::open(dir).unwrap();
        let mut segments = Vec::new();
        log.walk(0, 0, u64::MAX, &mut |_, record| {
            segments.push(record.segment());
            Ok(true)
        })
        .unwrap();
        (log, segments)
    }

    fn open(log: &Log, mark: u64) -> (VerdictWriter, VerdictReader) {
        let marks = Arc::<VerdictMarks>::default();
        let writer = VerdictWriter::open(log, 0, mark, marks.clone()).unwrap();
        (writer, VerdictReader::new(log, Some(marks)))
    }

    fn at(reader: &mut VerdictReader, segments: &[u64], offset: usize) -> Option<i64> {
        let found = reader.get(0, segments[offset], offset as u64).unwrap();
        found.map(|verdict| verdict.judged_at)
    }

    #[test]
    fn a_verdict_is_found_by_its_record_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let (log, segments) = log(dir.path(), 40);
        assert!(segments[0] > 0 && segments.last() > segments.first());
        let (mut writer, mut reader) = open(&log, 0);
        let all: Vec<_> = (0..40).rev().filter(|offset| offset % 3 != 0).collect();
        for some in all.chunks(5) {
            let some: Vec<_> = some
                .iter()
                .map(|&offset| (segments[offset], offset as u64, verdict(offset as i64)))
                .collect();
            writer.append(&some).unwrap();
        }
        let mut outside = VerdictReader::new(&log, None);
        for offset in 0..40 {
            let expected = (offset % 3 != 0).then_some(offset as i64);
            assert_eq!(at(&mut reader, &segments, offset), expected);
            assert_eq!(at(&mut outside, &segments, offset), expected);
        }
    }

    /// A new journal begins at the mark; one that was there continues.
    #[test]
    fn after_a_crash_each_record_is_judged_once() {
        let dir = tempfile::tempdir().unwrap();
        let (log, segments) = log(dir.path(), 6);
        let (mut writer, _) = open(&log, 2);
        assert_eq!(writer.committed(), 2);
        let one = |offset: usize, number| (segments[offset], offset as u64, verdict(number));
        writer.append(&[one(2, 20), one(3, 30)]).unwrap();
        writer.commit(4, true).unwrap();
        writer.append(&[one(5, 50)]).unwrap();
        drop(writer);
        // The line of record 4 was being written when the power went.
        let path = path_of(&shard_dir(dir.path(), 0), segments[4]);
        let whole = fs::read(&path).unwrap();
        for torn in ["0123", "00000000 {\"offset\":4}", "deadbeef {\"offset\":4,\"verdict\":{}}\n"]
        {
            fs::write(&path, [&whole, torn.as_bytes()].concat()).unwrap();
            let (mut writer, mut reader) = open(&log, 6);
            assert_eq!(writer.committed(), 4);
            let judged: Vec<_> = (4..6).filter(|offset| writer.judged(*offset)).collect();
            assert_eq!(judged, [5], "4 is to be judged again, 5 is not");
            writer.append(&[one(4, 40)]).unwrap();
            let seen: Vec<_> = (2..6).map(|offset| at(&mut reader, &segments, offset)).collect();
            assert_eq!(seen, [Some(20), Some(30), Some(40), Some(50)]);
        }
        // Of two lines the first counts.
        let (mut writer, mut reader) = open(&log, 6);
        writer.append(&[one(5, 51)]).unwrap();
        assert_eq!(at(&mut reader, &segments, 5), Some(50));
    }

    #[test]
    fn what_is_not_synced_is_not_visible() {
        let dir = tempfile::tempdir().unwrap();
        let (log, segments) = log(dir.path(), 2);
        let (mut writer, mut reader) = open(&log, 0);
        writer.append(&[(segments[0], 0, verdict(1))]).unwrap();
        let path = path_of(&shard_dir(dir.path(), 0), segments[0]);
        let mut octets = fs::read(&path).unwrap();
        checked_line::encode(&Line { offset: 1, verdict: verdict(2) }, &mut octets).unwrap();
        fs::write(&path, octets).unwrap();
        assert_eq!(at(&mut reader, &segments, 0), Some(1));
        assert_eq!(at(&mut reader, &segments, 1), None);
    }

    #[test]
    fn verdicts_go_with_their_segment() {
        let dir = tempfile::tempdir().unwrap();
        let (log, segments) = log(dir.path(), 2);
        let (mut writer, _) = open(&log, 0);
        writer.append(&[(segments[0], 0, verdict(1)), (99, 7, verdict(2))]).unwrap();
        let shard = shard_dir(dir.path(), 0);
        assert!(path_of(&shard, segments[0]).exists());
        assert!(!path_of(&shard, 99).exists(), "there is no such segment");
        fs::write(path_of(&shard, 98), b"x").unwrap();
        let _ = open(&log, 2);
        assert!(path_of(&shard, segments[0]).exists());
        assert!(!path_of(&shard, 98).exists(), "it is left without its segment");
    }
}
