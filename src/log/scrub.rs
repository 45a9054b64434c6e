//! Reads and checks sealed segments that are not exported yet, once a day (D10), so that what the
//! disk loses is found while there may still be a copy elsewhere.
//!
//! A turn checks the segments that are due, at a bounded rate, and takes the inventory of all
//! shards. Segments present at the start are due at once, those sealed later a day after they were
//! first seen. Times come from the caller (D14): a test supplies its own.

use std::{collections::BTreeMap, io, time::Duration};

use super::{
    Checked, Fault, FaultKind, Finding, Log, Needs, ReadError, SegmentFacts, Severity, Witness,
    verify::verify_segment,
};

/// The caller's clock, and how fast a scrub may read.
pub struct Pace<'a> {
    /// Time since some moment; it does not go back.
    pub now: &'a dyn Fn() -> Duration,
    /// Waits; false: the scrub is to stop.
    pub wait: &'a dyn Fn(Duration) -> bool,
    /// Octets a second.
    pub rate: u64,
}

/// What a turn did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Segments checked.
    pub segments: u64,
    /// Octets of them.
    pub bytes: u64,
    /// Damage found in them.
    pub corrupt: Vec<Fault>,
    /// All that is known to be wrong now, that damage as well.
    pub faults: Vec<Fault>,
}

/// Remembers what was checked when. Its methods block.
#[derive(Debug)]
pub struct Scrub {
    log: Log,
    every: Duration,
    /// When a segment is to be checked next.
    due: BTreeMap<(u16, u64), Duration>,
    begun: bool,
    inventory_due: Duration,
    /// Damage that was found, while its segment is there and not exported.
    corrupt: BTreeMap<(u16, u64), Fault>,
}

impl Scrub {
    /// Checks each segment so often.
    #[must_use]
    pub fn new(log: &Log, every: Duration) -> Self {
        Self {
            log: log.clone(),
            every,
            due: BTreeMap::new(),
            begun: false,
            inventory_due: Duration::ZERO,
            corrupt: BTreeMap::new(),
        }
    }

    /// Checks what is due; `None` if nothing is, or if it was stopped.
    ///
    /// # Errors
    /// What the file system says; what was checked until then counts.
    pub fn turn(&mut self, needs: &dyn Needs, pace: &Pace<'_>) -> io::Result<Option<Scrubbed>> {
        let now = (pace.now)();
        let due = self.look(needs, now)?;
        if due.is_empty() && now < self.inventory_due {
            return Ok(None);
        }
        let mut scrubbed = Scrubbed::default();
        let began = (pace.now)();
        for segment in due {
            let key = (segment.shard, segment.number);
            let mut reader =
                Paced { pace, began, before: scrubbed.bytes, stopped: false, fault: None };
            let checked = verify_segment(&self.log, &segment, &mut reader);
            let Paced { stopped, fault, .. } = reader;
            if stopped {
                return Ok(None);
            }
            scrubbed.segments += 1;
            // The others are checked all the same, and this one soon again: it may pass.
            let (fault, pause) = match checked {
                Ok(checked) => {
                    scrubbed.bytes += checked.bytes;
                    (fault, self.every)
                }
                Err(error) => (Some(unreadable(&segment, &error)), self.every / 24),
            };
            self.due.insert(key, (pace.now)() + pause);
            match fault {
                Some(fault) => {
                    scrubbed.corrupt.push(fault.clone());
                    self.corrupt.insert(key, fault);
                }
                None => drop(self.corrupt.remove(&key)),
            }
        }
        for shard in self.log.shards()? {
            scrubbed.faults.extend(self.log.faults(shard)?);
        }
        let known: Vec<_> = scrubbed.faults.iter().map(|f| (f.shard, f.segment)).collect();
        let corrupt = self.corrupt.iter().filter(|(key, _)| !known.contains(key));
        scrubbed.faults.extend(corrupt.map(|(_, fault)| fault.clone()));
        self.inventory_due = (pace.now)() + self.every;
        Ok(Some(scrubbed))
    }

    /// The segments that are due, and those that are not any more forgotten.
    fn look(&mut self, needs: &dyn Needs, now: Duration) -> io::Result<Vec<SegmentFacts>> {
        let mut due = Vec::new();
        let mut wanted = BTreeMap::new();
        for shard in self.log.shards()? {
            let exported = needs.offset(shard)?;
            for segment in self.log.segments(shard)? {
                let Some(seal) = segment.seal else { continue };
                if exported.is_some_and(|exported| seal.next_offset() <= exported) {
                    continue;
                }
                let key = (shard, segment.number);
                let first = if self.begun { now + self.every } else { now };
                let at = self.due.get(&key).copied().unwrap_or(first);
                wanted.insert(key, at);
                if at <= now {
                    due.push(segment);
                }
            }
        }
        self.begun = true;
        self.due = wanted;
        self.corrupt.retain(|key, _| self.due.contains_key(key));
        Ok(due)
    }
}

/// A segment that cannot be read to its end.
fn unreadable(segment: &SegmentFacts, error: &ReadError) -> Fault {
    Fault {
        shard: segment.shard,
        segment: segment.number,
        offset: segment.base_offset,
        kind: FaultKind::Unreadable,
        what: format!("cannot be checked: {error}"),
    }
}

/// Keeps to the rate, and remembers the first damage.
struct Paced<'a> {
    pace: &'a Pace<'a>,
    began: Duration,
    /// Octets read before this segment.
    before: u64,
    stopped: bool,
    fault: Option<Fault>,
}

impl Witness for Paced<'_> {
    fn found(&mut self, finding: Finding) -> io::Result<()> {
        if finding.severity == Severity::Corrupt && self.fault.is_none() {
            let Finding { shard, segment, offset, position, what, .. } = finding;
            let at = position.map_or_else(String::new, |at| format!(", position {at}"));
            let what = format!("damaged from offset {offset}{at} on: {what}");
            self.fault = Some(Fault { shard, segment, offset, kind: FaultKind::Corrupt, what });
        }
        Ok(())
    }

    fn progress(&mut self, checked: &Checked) -> io::Result<()> {
        let read = self.before + checked.bytes;
        let due = Duration::from_secs_f64(read as f64 / self.pace.rate.max(1) as f64);
        let wait = (self.began + due).saturating_sub((self.pace.now)());
        if !(self.pace.wait)(wait) {
            self.stopped = true;
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, os::unix::fs::FileExt};

    use super::*;
    use crate::{segment_path, shard_dir, tests::write_files};

    struct At(Option<u64>);

    impl Needs for At {
        fn offset(&self, _: u16) -> io::Result<Option<u64>> {
            Ok(self.0)
        }

        fn segments_from(&self, _: u16) -> u64 {
            u64::MAX
        }
    }

    /// Three runs, each sealed by the next one's start.
    fn three_runs(dir: &std::path::Path) -> Log {
        for count in [40, 40, 40, 0] {
            write_files(dir, count);
        }
        Log::open(dir).unwrap()
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_nobody_has_exported_is_checked_once_a_day_and_no_faster() {
        let dir = tempfile::tempdir().unwrap();
        let log = three_runs(dir.path());
        let sealed: Vec<_> = log.segments(0).unwrap();
        assert!(sealed.len() >= 3 && sealed.iter().all(|segment| segment.seal.is_some()));
        let clock = Cell::new(Duration::ZERO);
        let now = || clock.get();
        let wait = |time| {
            clock.set(clock.get() + time);
            true
        };
        let pace = Pace { now: &now, wait: &wait, rate: 1 << 20 };
        let mut scrub = Scrub::new(&log, DAY);
        let first = scrub.turn(&At(None), &pace).unwrap().unwrap();
        assert_eq!(first.segments, sealed.len() as u64);
        let used: u64 = sealed.iter().filter_map(|s| s.seal).map(|seal| seal.end_position).sum();
        assert!(first.bytes > used / 2 && first.faults.is_empty(), "{first:?}");
        let least = Duration::from_secs_f64(first.bytes as f64 / (1 << 20) as f64);
        assert!(clock.get() >= least, "{:?} for {} bytes", clock.get(), first.bytes);
        // Nothing is due before a day has gone by.
        clock.set(DAY / 2);
        assert_eq!(scrub.turn(&At(None), &pace).unwrap(), None);
        // Meanwhile a block rots, and a file is deleted by hand.
        let file = std::fs::File::options()
            .write(true)
            .open(segment_path(&shard_dir(dir.path(), 0), sealed[1].number))
            .unwrap();
        file.write_all_at(b"rotten", 4_200).unwrap();
        std::fs::remove_file(segment_path(&shard_dir(dir.path(), 0), sealed[0].number)).unwrap();
        clock.set(DAY * 2);
        let second = scrub.turn(&At(Some(1)), &pace).unwrap().unwrap();
        assert_eq!(second.segments, sealed.len() as u64 - 1);
        assert_eq!(second.corrupt.len(), 1, "{second:?}");
        assert_eq!(second.corrupt[0].segment, sealed[1].number);
        let kinds: Vec<_> = second.faults.iter().map(|fault| (fault.segment, fault.kind)).collect();
        let expected =
            [(sealed[0].number, FaultKind::Missing), (sealed[1].number, FaultKind::Corrupt)];
        assert_eq!(kinds, expected);
        // What is exported is nobody's worry any more.
        clock.set(DAY * 4);
        let third = scrub.turn(&At(Some(u64::MAX)), &pace).unwrap().unwrap();
        assert_eq!((third.segments, third.faults.len()), (0, 1), "{third:?}");
    }

    /// One that cannot be read is named, the others are checked, and it is looked at again soon.
    #[test]
    fn a_scrub_goes_on_past_a_segment_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let log = three_runs(dir.path());
        let sealed = log.segments(0).unwrap();
        let path = |at: usize| segment_path(&shard_dir(dir.path(), 0), sealed[at].number);
        let aside = dir.path().join("aside");
        std::fs::rename(path(0), &aside).unwrap();
        std::fs::create_dir(path(0)).unwrap();
        let file = std::fs::File::options().write(true).open(path(1)).unwrap();
        file.write_all_at(b"rotten", 4_200).unwrap();
        let clock = Cell::new(Duration::ZERO);
        let pace = Pace { now: &|| clock.get(), wait: &|_| true, rate: 1 << 20 };
        let mut scrub = Scrub::new(&log, DAY);
        let kinds = |done: &Scrubbed| {
            let kinds = done.faults.iter().map(|fault| (fault.segment, fault.kind));
            kinds.collect::<Vec<_>>()
        };
        let first = scrub.turn(&At(None), &pace).unwrap().unwrap();
        assert_eq!(first.segments, sealed.len() as u64);
        let corrupt = (sealed[1].number, FaultKind::Corrupt);
        assert_eq!(kinds(&first), [(sealed[0].number, FaultKind::Unreadable), corrupt]);
        std::fs::remove_dir(path(0)).unwrap();
        std::fs::rename(&aside, path(0)).unwrap();
        clock.set(DAY / 12);
        let second = scrub.turn(&At(None), &pace).unwrap().unwrap();
        assert_eq!((second.segments, kinds(&second)), (1, vec![corrupt]));
    }

    #[test]
    fn a_scrub_stops_when_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        write_files(dir.path(), 40);
        write_files(dir.path(), 0);
        let log = Log::open(dir.path()).unwrap();
        let pace = Pace { now: &|| Duration::ZERO, wait: &|_| false, rate: 1 };
        let mut scrub = Scrub::new(&log, DAY);
        assert_eq!(scrub.turn(&At(None), &pace).unwrap(), None);
        let pace = Pace { wait: &|_| true, ..pace };
        assert!(scrub.turn(&At(None), &pace).unwrap().unwrap().segments > 0, "it is still due");
    }
}
