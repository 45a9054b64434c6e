//! Which sealed segments may be deleted, and their deletion (D12).
//!
//! A segment is deleted only if a rule asks for it, every consumer group's durable offset has
//! passed it, and the grace time after that is over. Without a group the rule alone decides. A full
//! disk never deletes what a group still needs (D9).
//!
//! No wall clock decides (D14). A segment's age is the time since its seal was first seen, by the
//! clock that counts from the machine's boot. It is kept next to the segments, with the boot's id,
//! so that it survives a restart of the server. A new boot starts it again: segments are kept
//! longer, never shorter.
//!
//! A deletion is recorded in the manifest before the file goes, so that a deleted segment can be
//! distinguished from a lost one. A crash in between leaves files that are deleted again later.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Log, Manifest, Operation, ReadError, Seal, SegmentFacts,
    files::{segment_path, shard_dir, sync_dir},
    frame::crc,
    private::private_file,
    verdicts::VERDICTS,
};
use mailrace_stage::{Bug, FileOp, act, planted, since_boot};

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Segments sealed for longer may go; `None`: age is no reason.
    pub age: Option<Duration>,
    /// Octets of all sealed segments together; the oldest beyond may go. `None`: no limit.
    pub size: Option<u64>,
    /// Keep what a group has not committed.
    pub require_consumed: bool,
    /// Wait so long after the last group has passed a segment.
    pub retain_after_export: Duration,
    /// Delete nothing at all.
    pub hold: bool,
}

/// One sealed segment, as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its shard.
    pub shard: u16,
    /// Its number.
    pub number: u64,
    /// Of the file.
    pub bytes: u64,
    /// Since its seal was first seen.
    pub age: Duration,
    /// For how long it has not been needed; `None`: it is still needed.
    pub consumed: Option<Duration>,
    /// Groups exist at all.
    pub grouped: bool,
    /// First segment that holds mail data of its records: those from there on stay as long as it
    /// does.
    pub reach: u64,
}

/// A seal must be this old before its segment may go: what the shard reports of its messages in
/// progress is no older.
const AGE_MIN: Duration = Duration::from_secs(5);

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is older than the rule allows.
    Age,
    /// All together are larger than the rule allows.
    Size,
    /// The disk is low, and nobody needs it any more.
    Disk,
    /// An operator asked.
    Manual,
}

impl Reason {
    /// The metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
            Self::Disk => "disk",
            Self::Manual => "manual",
        }
    }
}

/// Decides. `disk_low`: consumed segments may go before their time. Pure; the order of the answer is
/// that of deletion: oldest first, and a shard's log loses from its front only. `held_from` gives the
/// first segment of a shard that messages without a seal need.
#[must_use]
pub(crate) fn decide(
    rules: &Rules,
    mut sealed: Vec<Candidate>,
    disk_low: bool,
    held_from: &dyn Fn(u16) -> u64,
) -> Vec<(Candidate, Reason)> {
    if rules.hold {
        return Vec::new();
    }
    sealed.sort_by(|a, b| {
        b.age.cmp(&a.age).then(a.number.cmp(&b.number)).then(a.shard.cmp(&b.shard))
    });
    let mut total: u64 = sealed.iter().map(|segment| segment.bytes).sum();
    let mut kept = BTreeSet::new();
    let mut gone = Vec::new();
    for &segment in &sealed {
        let free = match segment.consumed {
            Some(since) => !segment.grouped || since >= rules.retain_after_export,
            None if planted(Bug::DeletedUnexported) => true,
            None => !rules.require_consumed,
        };
        let too_old = rules.age.is_some_and(|age| segment.age >= age);
        let too_much = rules.size.is_some_and(|size| total > size);
        let reason = match (too_old, too_much) {
            (true, _) => Some(Reason::Age),
            (_, true) => Some(Reason::Size),
            _ if disk_low && segment.grouped && segment.consumed.is_some() => Some(Reason::Disk),
            _ => None,
        };
        let settled = segment.age >= AGE_MIN;
        match reason.filter(|_| free && settled && !kept.contains(&segment.shard)) {
            Some(reason) => {
                total -= segment.bytes;
                gone.push((segment, reason));
            }
            None => {
                kept.insert(segment.shard);
            }
        }
    }
    // A large message's mail data may lie in segments before its record's: these stay together.
    let shards: BTreeSet<_> = gone.iter().map(|(segment, _)| segment.shard).collect();
    for shard in shards {
        if planted(Bug::FragmentDeletedEarly) {
            break;
        }
        let cut = cut(&sealed, &gone, shard, held_from(shard));
        gone.retain(|(segment, _)| segment.shard != shard || segment.number < cut);
    }
    gone
}

/// The segments of a shard below this number may go, as far as they are among `gone`: nothing that
/// stays has mail data in them.
fn cut(sealed: &[Candidate], gone: &[(Candidate, Reason)], shard: u16, held_from: u64) -> u64 {
    let of_shard = |segment: &&Candidate| segment.shard == shard;
    let last = gone.iter().map(|(segment, _)| segment).filter(of_shard).map(|s| s.number).max();
    let mut cut = last.map_or(0, |last| last + 1).min(held_from);
    loop {
        let staying = sealed.iter().filter(of_shard).filter(|segment| segment.number >= cut);
        let needed = staying.map(|segment| segment.reach).min().unwrap_or(u64::MAX);
        if needed >= cut {
            return cut;
        }
        cut = needed;
    }
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Segments deleted, by reason.
    pub deleted: BTreeMap<Reason, u64>,
    /// Octets they held.
    pub bytes: u64,
    /// Segments that a rule or a prune asked for and a group still needs.
    pub needed: u64,
    /// Of a prune: the sealed segments that it meant and that stay, with why.
    pub kept: Vec<Kept>,
}

/// A sealed segment that a prune meant and did not delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub number: u64,
    /// Its first offset.
    pub first_offset: u64,
    /// Behind its last record.
    pub end_offset: u64,
    /// Octets of its file.
    pub bytes: u64,
    /// What keeps it.
    pub why: KeptFor,
}

/// What keeps a segment from a prune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptFor {
    /// A group has not committed it, or a dead letter names a record of it or before it.
    Needed,
    /// A message that is being received may have mail data in it.
    InProgress,
    /// A record of this segment, which stays, has mail data in it.
    Reached(u64),
    /// This segment stays, and a log loses from its front only.
    After(u64),
}

/// Watches the segments of a data directory. One for each directory; its methods block.
#[derive(Debug)]
pub struct Retention {
    log: Log,
    clock: Clock,
    ages: BTreeMap<u16, Ages>,
    /// Since when every group has passed a segment, by that clock.
    consumed: BTreeMap<(u16, u64), Duration>,
    /// Of segments whose seal does not hold it.
    reaches: BTreeMap<(u16, u64), u64>,
    /// Open since something was first deleted: a manifest that is opened anew is written anew.
    manifests: BTreeMap<u16, Manifest>,
}

/// What keeps segments, shard by shard.
pub trait Needs {
    /// The lowest offset that a group or a dead letter still needs; `None` where there is no group.
    ///
    /// # Errors
    /// What the file system says.
    fn offset(&self, shard: u16) -> io::Result<Option<u64>>;

    /// First segment that holds mail data of messages without a seal; `u64::MAX`: there is none.
    fn segments_from(&self, shard: u16) -> u64;
}

impl Retention {
    /// Begins to watch.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(log: &Log) -> io::Result<Self> {
        let clock = Clock::read()?;
        Ok(Self {
            log: log.clone(),
            clock,
            ages: BTreeMap::new(),
            consumed: BTreeMap::new(),
            reaches: BTreeMap::new(),
            manifests: BTreeMap::new(),
        })
    }

    /// Looks at every sealed segment and deletes what may go.
    ///
    /// # Errors
    /// What the file system says; what was deleted until then stays deleted.
    pub fn pass(&mut self, rules: &Rules, disk_low: bool, needs: &dyn Needs) -> io::Result<Pass> {
        self.clock = Clock::read()?;
        let mut sealed = Vec::new();
        let mut held = BTreeMap::new();
        for shard in self.log.shards()? {
            // First: what is sealed behind this look is not among the sealed, but no longer held.
            held.insert(shard, needs.segments_from(shard));
            sealed.extend(self.candidates(shard, needs.offset(shard)?)?);
        }
        let mut pass = Pass { needed: 0, ..Pass::default() };
        let wanted = |segment: &&Candidate| {
            segment.consumed.is_none() && rules.age.is_some_and(|age| segment.age >= age)
        };
        pass.needed = sealed.iter().filter(wanted).count() as u64;
        let gone = decide(rules, sealed, disk_low, &|shard| held.get(&shard).copied().unwrap_or(0));
        self.delete(&gone)?;
        for (segment, reason) in gone {
            *pass.deleted.entry(reason).or_default() += 1;
            pass.bytes += segment.bytes;
        }
        Ok(pass)
    }

    /// Deletes the sealed segments of a shard whose records all lie below `offset`, at an operator's
    /// word: nothing that a group needs, and nothing that a later record has mail data in.
    ///
    /// # Errors
    /// What the file system says.
    pub fn prune(
        &mut self,
        shard: u16,
        offset: u64,
        needs: &dyn Needs,
        dry_run: bool,
    ) -> io::Result<Pass> {
        let mut pass = Pass::default();
        let needed = needs.offset(shard)?;
        let held_from = needs.segments_from(shard);
        let sealed = self.candidates(shard, needed)?;
        let seals: BTreeMap<u64, Seal> =
            self.log.seals(shard)?.into_iter().map(|seal| (seal.number, seal)).collect();
        let below = |segment: &Candidate| {
            seals.get(&segment.number).is_some_and(|seal| seal.end_offset <= offset)
        };
        let meant: Vec<_> = sealed.iter().copied().take_while(below).collect();
        let free = meant.iter().take_while(|segment| segment.consumed.is_some());
        let mut gone: Vec<_> = free.map(|&segment| (segment, Reason::Manual)).collect();
        let cut = cut(&sealed, &gone, shard, held_from);
        gone.retain(|(segment, _)| segment.number < cut);
        for segment in meant.iter().skip(gone.len()) {
            let reached = sealed.iter().filter(|other| {
                other.number >= cut.max(segment.number + 1) && other.reach <= segment.number
            });
            let why = match (segment.consumed, reached.map(|other| other.number).next()) {
                (None, _) => KeptFor::Needed,
                _ if segment.number >= held_from => KeptFor::InProgress,
                (_, Some(by)) => KeptFor::Reached(by),
                // The first of those that stay has one of the reasons above.
                _ => KeptFor::After(pass.kept.first().map_or(0, |first| first.number)),
            };
            let Some(seal) = seals.get(&segment.number) else { continue };
            let Seal { number, first_offset, end_offset, .. } = *seal;
            pass.kept.push(Kept { number, first_offset, end_offset, bytes: segment.bytes, why });
        }
        if !dry_run {
            self.delete(&gone)?;
        }
        for (segment, reason) in gone {
            *pass.deleted.entry(reason).or_default() += 1;
            pass.bytes += segment.bytes;
        }
        let needed = pass.kept.iter().filter(|kept| kept.why == KeptFor::Needed);
        pass.needed = needed.count() as u64;
        Ok(pass)
    }

    fn candidates(&mut self, shard: u16, needed: Option<u64>) -> io::Result<Vec<Candidate>> {
        let segments = self.log.segments(shard)?;
        let dir = shard_dir(self.log.dir(), shard);
        let ages = match self.ages.entry(shard) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Ages::read(&dir)),
        };
        let sealed: Vec<_> = segments.iter().filter(|facts| facts.seal.is_some()).collect();
        ages.update(&dir, &self.clock, sealed.iter().map(|facts| facts.number))?;
        let mut candidates = Vec::new();
        for facts in sealed {
            let Some(seal) = facts.seal else { continue };
            let age =
                self.ages.get(&shard).map_or(Duration::ZERO, |a| a.of(facts.number, &self.clock));
            let free = needed.is_none_or(|needed| seal.next_offset() <= needed);
            let key = (shard, facts.number);
            if !free {
                self.consumed.remove(&key);
            }
            let since = free.then(|| *self.consumed.entry(key).or_insert(self.clock.now));
            let consumed = since.map(|since| self.clock.now.saturating_sub(since));
            let SegmentFacts { shard, number, bytes, .. } = *facts;
            let reach = match seal.reach {
                Some(reach) => reach,
                None => self.scan(facts)?,
            };
            let grouped = needed.is_some();
            candidates.push(Candidate { shard, number, bytes, age, consumed, grouped, reach });
        }
        Ok(candidates)
    }

    /// Reads a segment for the reach that its seal does not hold.
    fn scan(&mut self, facts: &SegmentFacts) -> io::Result<u64> {
        let key = (facts.shard, facts.number);
        if let Some(&known) = self.reaches.get(&key) {
            return Ok(known);
        }
        let mut reach = facts.number;
        self.log.walk_segment(facts, None, 0, &mut |_, record| {
            reach = record.fragments().map(|at| at.segment).min().unwrap_or(reach).min(reach);
            Ok(true)
        })?;
        self.reaches.insert(key, reach);
        Ok(reach)
    }

    /// Deletes segments and their indexes: recorded first, and made durable last.
    ///
    /// The last segment goes first, and a segment with mail data of later ones only once their going
    /// is durable: when power is lost some of them may come back, and each must come back whole.
    fn delete(&mut self, gone: &[(Candidate, Reason)]) -> io::Result<()> {
        let shards: BTreeSet<u16> = gone.iter().map(|(segment, _)| segment.shard).collect();
        for shard in shards {
            let of_shard = || gone.iter().map(|(s, _)| s).filter(|segment| segment.shard == shard);
            let dir = shard_dir(self.log.dir(), shard);
            let numbers: Vec<u64> = of_shard().map(|segment| segment.number).collect();
            let path = dir.join("manifest");
            let named = |error| ReadError::io(Operation::Change, &path)(error);
            let manifest = match self.manifests.entry(shard) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(new) => new.insert(Manifest::open(&path).map_err(named)?),
            };
            manifest.remove(&numbers).map_err(named)?;
            let mut descending: Vec<_> = of_shard().collect();
            descending.sort_by_key(|segment| Reverse(segment.number));
            // The first segment that those deleted since the last sync have mail data in.
            let mut unsynced_reach = u64::MAX;
            for segment in descending {
                if unsynced_reach <= segment.number {
                    sync_dir(&dir)?;
                    unsynced_reach = u64::MAX;
                }
                unsynced_reach = unsynced_reach.min(segment.reach);
                let path = segment_path(&dir, segment.number);
                // The index is advice, and verdicts are about what goes: they go first, so that none is
                // left without its segment.
                let others = ["idx", VERDICTS].map(|extension| path.with_extension(extension));
                for path in others.into_iter().chain([path]) {
                    match act(FileOp::Remove, &path, || fs::remove_file(&path)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(ReadError::io(Operation::Change, &path)(error).into());
                        }
                        _ => {}
                    }
                }
                self.consumed.remove(&(shard, segment.number));
            }
            sync_dir(&dir)?;
        }
        Ok(())
    }
}

/// What a server says of mail that it is receiving is this old at most.
const IN_PROGRESS_AGE_MAX: Duration = Duration::from_secs(30);

/// Writes down for `log prune` which segments mail that is being received is in: for each shard the
/// first, and when that was. Not durable, and need not be.
///
/// # Errors
/// What the file system says.
pub fn write_in_progress(dir: &Path, from: &[(u16, u64)]) -> io::Result<()> {
    let Clock { boot, now } = Clock::read()?;
    let mut lines = String::new();
    for (shard, from) in from {
        let words = format!("{shard} {from} {boot} {}", now.as_secs());
        lines += &format!("{words:<IN_PROGRESS_WIDTH$} {:08x}\n", crc(words.as_bytes()));
    }
    // Written over in place: a full disk must not stand in the way.
    let path = dir.join("in-progress");
    let file = private_file().create(true).truncate(false).write(true).open(path)?;
    file.write_all_at(lines.as_bytes(), 0)?;
    file.set_len(lines.len() as u64)
}

/// Of a line of `in-progress`, so that each is written over by the next of its shard.
const IN_PROGRESS_WIDTH: usize = 110;

/// The first segment of a shard that mail being received may have mail data in, as the running server
/// said within the last half a minute; `None`: it did not.
///
/// A segment that was sealed since is not below it: what is in progress then was in progress before,
/// or began later, in a later segment.
///
/// # Errors
/// What the file system says.
pub fn read_in_progress(dir: &Path, shard: u16) -> io::Result<Option<u64>> {
    let text = match fs::read_to_string(dir.join("in-progress")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let clock = Clock::read()?;
    let fresh = |line: &str| {
        let (line, sum) = line.rsplit_once(' ')?;
        let line = line.trim_end();
        (format!("{:08x}", crc(line.as_bytes())) == sum).then_some(())?;
        let mut words = line.split(' ');
        let (of, from) = (words.next()?.parse::<u16>().ok()?, words.next()?.parse::<u64>().ok()?);
        let (boot, at) = (words.next()?, Duration::from_secs(words.next()?.parse().ok()?));
        let age = clock.now.checked_sub(at)?;
        (of == shard && boot == clock.boot && age <= IN_PROGRESS_AGE_MAX).then_some(from)
    };
    Ok(text.lines().find_map(fresh))
}

/// Time since boot, and which boot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clock {
    boot: String,
    now: Duration,
}

impl Clock {
    fn read() -> io::Result<Self> {
        if let Some((boot, seconds)) = since_boot() {
            return Ok(Self { boot, now: Duration::from_secs(seconds) });
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: room for the answer.
        if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Ok(Self { boot, now: Duration::from_secs(seconds) })
    }
}

/// When the seals of a shard were first seen: a line each, `number boot seconds`. Lost or damaged
/// lines begin an age again.
#[derive(Debug, Default)]
struct Ages(BTreeMap<u64, (String, u64)>);

impl Ages {
    fn path(dir: &Path) -> PathBuf {
        dir.join("ages")
    }

    fn read(dir: &Path) -> Self {
        let text = fs::read_to_string(Self::path(dir)).unwrap_or_default();
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let number = words.next()?.parse().ok()?;
            let boot = words.next()?.to_owned();
            Some((number, (boot, words.next()?.parse().ok()?)))
        };
        Self(text.lines().filter_map(parse).collect())
    }

    /// Adds what is new and forgets what is gone.
    fn update(
        &mut self,
        dir: &Path,
        clock: &Clock,
        sealed: impl Iterator<Item = u64>,
    ) -> io::Result<()> {
        let sealed: BTreeSet<_> = sealed.collect();
        let before = self.0.len();
        self.0.retain(|number, (boot, _)| sealed.contains(number) && *boot == clock.boot);
        let mut changed = self.0.len() != before;
        for number in sealed {
            self.0.entry(number).or_insert_with(|| {
                changed = true;
                (clock.boot.clone(), clock.now.as_secs())
            });
        }
        if changed {
            let lines = self.0.iter().map(|(number, (boot, at))| format!("{number} {boot} {at}\n"));
            let new = dir.join("ages.new");
            let mut file = act(FileOp::Make, &new, || {
                private_file().create(true).truncate(true).write(true).open(&new)
            })?;
            let lines = lines.collect::<String>();
            act(FileOp::Write, &new, || file.write_all(lines.as_bytes()))?;
            act(FileOp::Rename, &new, || fs::rename(&new, Self::path(dir)))?;
        }
        Ok(())
    }

    fn of(&self, number: u64, clock: &Clock) -> Duration {
        let seen = self.0.get(&number).map_or(clock.now, |(_, at)| Duration::from_secs(*at));
        clock.now.saturating_sub(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recover, tests::written};

    const DAY: Duration = Duration::from_secs(86_400);

    fn rules() -> Rules {
        Rules {
            age: Some(DAY),
            size: None,
            require_consumed: true,
            retain_after_export: Duration::from_secs(900),
            hold: false,
        }
    }

    fn candidate(number: u64, days: u32, consumed: Option<u64>) -> Candidate {
        let consumed = consumed.map(Duration::from_secs);
        let age = DAY * days + AGE_MIN;
        Candidate { shard: 0, number, bytes: 100, age, consumed, grouped: true, reach: number }
    }

    fn decide(rules: &Rules, sealed: Vec<Candidate>, disk_low: bool) -> Vec<(Candidate, Reason)> {
        super::decide(rules, sealed, disk_low, &|_| u64::MAX)
    }

    struct At(Option<u64>, u64);

    impl Needs for At {
        fn offset(&self, _: u16) -> io::Result<Option<u64>> {
            Ok(self.0)
        }

        fn segments_from(&self, _: u16) -> u64 {
            self.1
        }
    }

    fn numbers(gone: &[(Candidate, Reason)]) -> Vec<u64> {
        gone.iter().map(|(segment, _)| segment.number).collect()
    }

    #[test]
    fn every_condition_must_hold() {
        let decided = |rules: &Rules, one: Candidate| !decide(rules, vec![one], false).is_empty();
        assert!(decided(&rules(), candidate(1, 2, Some(900))));
        assert!(!decided(&rules(), candidate(1, 0, Some(900))), "too young");
        assert!(!decided(&rules(), candidate(1, 2, Some(899))), "within the grace");
        assert!(!decided(&rules(), candidate(1, 2, None)), "needed");
        assert!(!decided(&Rules { hold: true, ..rules() }, candidate(1, 2, Some(900))), "held");
        assert!(!decided(&Rules { age: None, ..rules() }, candidate(1, 2, Some(900))), "no rule");
        let lax = Rules { require_consumed: false, ..rules() };
        assert!(decided(&lax, candidate(1, 2, None)), "the operator said so");
        let lone = Candidate { grouped: false, ..candidate(1, 2, Some(0)) };
        assert!(decided(&rules(), lone), "without a group age alone decides");
    }

    #[test]
    fn size_takes_the_oldest_first_and_only_from_the_front() {
        let size = Rules { age: None, size: Some(250), ..rules() };
        let all =
            || (1..=5).map(|number| candidate(number, 6 - number as u32, Some(900))).collect();
        assert_eq!(numbers(&decide(&size, all(), false)), [1, 2, 3]);
        // A segment that somebody needs keeps those behind it.
        let mut kept: Vec<Candidate> = all();
        kept[1].consumed = None;
        assert_eq!(numbers(&decide(&size, kept, false)), [1]);
    }

    #[test]
    fn a_low_disk_takes_what_is_consumed_and_nothing_else() {
        let young = |consumed| vec![candidate(1, 0, consumed)];
        assert_eq!(numbers(&decide(&rules(), young(Some(900)), true)), [1]);
        assert!(decide(&rules(), young(None), true).is_empty());
        assert!(decide(&rules(), young(Some(900)), false).is_empty());
    }

    #[test]
    fn mail_data_stays_as_long_as_its_record() {
        let age = Rules { age: Some(DAY), ..rules() };
        let mut all: Vec<_> = (1..=6).map(|number| candidate(number, 2, Some(900))).collect();
        // The record in 5 has its mail data from 3 on, that in 6 from 5 on.
        all[4].reach = 3;
        all[5].reach = 5;
        assert_eq!(numbers(&decide(&age, all.clone(), false)), [1, 2, 3, 4, 5, 6]);
        all[5].age = Duration::ZERO;
        assert_eq!(numbers(&decide(&age, all.clone(), false)), [1, 2], "5 stays with 6, 3 with 5");
        let held = |_| 2;
        assert_eq!(numbers(&super::decide(&age, all, false, &held)), [1]);
    }

    #[test]
    fn offsets_are_not_reused_after_all_was_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let (data, mark) = written(dir.path(), 50);
        let identity = crate::Identity { node: data.node, shard: 0 };
        let shard = shard_dir(dir.path(), 0);
        let before = recover(&shard, identity).unwrap();
        let verdicts = segment_path(&shard, 1).with_extension(VERDICTS);
        fs::write(&verdicts, b"about what is in segment 1").unwrap();
        assert_eq!(before.next_offset.get(), mark);
        let log = Log::open(dir.path()).unwrap();
        let mut retention = Retention::new(&log).unwrap();
        // As if they had been sealed a while ago.
        retention.pass(&rules(), false, &At(None, 0)).unwrap();
        let ages = shard.join("ages");
        let backdated = fs::read_to_string(&ages).unwrap();
        let backdated =
            backdated.lines().map(|line| format!("{} 0\n", line.rsplit_once(' ').unwrap().0));
        fs::write(&ages, backdated.collect::<String>()).unwrap();
        let mut retention = Retention::new(&log).unwrap();
        let now = Rules { age: Some(Duration::ZERO), ..rules() };
        // A group in the middle keeps its segment and those behind.
        let pass = retention.pass(&now, false, &At(Some(20), u64::MAX)).unwrap();
        assert!(pass.deleted.is_empty(), "within the grace: {pass:?}");
        let no_grace = Rules { retain_after_export: Duration::ZERO, ..now };
        let pass = retention.pass(&no_grace, false, &At(Some(20), u64::MAX)).unwrap();
        let start = log.ends(0).unwrap().0;
        assert!(pass.deleted[&Reason::Age] == 1 && start > 0 && start <= 20, "{pass:?} {start}");
        assert!(pass.needed > 0);
        assert!(!verdicts.exists(), "verdicts go with their segment");
        let pass = retention.pass(&now, false, &At(None, u64::MAX)).unwrap();
        assert!(pass.deleted[&Reason::Age] > 0);
        assert!(log.segments(0).unwrap().is_empty(), "all were sealed by the recovery");
        let after = recover(&shard, identity).unwrap();
        assert_eq!(after.next_offset.get(), mark);
        let manifest = Manifest::open(&shard.join("manifest")).unwrap();
        let sealed = manifest.seals().iter().map(|seal| seal.number).max().unwrap();
        assert!(after.next_segment > sealed, "numbers are not used again");
        drop(data);
        let (_data, mark_after) = written(dir.path(), 3);
        assert_eq!(mark_after, mark + 3);
        assert_eq!(log.ends(0).unwrap(), (mark, mark + 3));
    }

    #[test]
    fn a_prune_says_what_keeps_each_segment() {
        let dir = tempfile::tempdir().unwrap();
        let (data, mark) = written(dir.path(), 100);
        drop(data);
        let (data, _) = written(dir.path(), 0);
        drop(data);
        let log = Log::open(dir.path()).unwrap();
        let segments = log.segments(0).unwrap();
        assert!(segments.len() >= 4 && segments.iter().all(|segment| segment.seal.is_some()));
        let third = segments[2].base_offset;
        let kept = |needs: &At| {
            let mut retention = Retention::new(&log).unwrap();
            let pass = retention.prune(0, mark, needs, true).unwrap();
            let needed = pass.kept.iter().filter(|kept| kept.why == KeptFor::Needed).count();
            assert_eq!(pass.needed, needed as u64);
            let gone = pass.deleted.values().sum::<u64>();
            assert_eq!(gone + pass.kept.len() as u64, segments.len() as u64);
            pass.kept.iter().map(|kept| (kept.number, kept.why)).collect::<Vec<_>>()
        };
        let (second, last) = (segments[1].number, segments.last().unwrap().number);
        assert_eq!(kept(&At(None, u64::MAX)), []);
        let needed = kept(&At(Some(third), u64::MAX));
        assert_eq!(needed[0], (segments[2].number, KeptFor::Needed));
        assert!(needed.iter().all(|(_, why)| *why == KeptFor::Needed), "{needed:?}");
        let receiving = kept(&At(None, second));
        assert_eq!(receiving[0], (second, KeptFor::InProgress));
        assert_eq!(receiving.last(), Some(&(last, KeptFor::InProgress)));
        // The record whose mail data begins in a segment that may go stays: so does the segment.
        let mut retention = Retention::new(&log).unwrap();
        retention.reaches.insert((0, last), second);
        for segment in &segments {
            retention.reaches.entry((0, segment.number)).or_insert(segment.number);
        }
        let mut sealed = retention.candidates(0, Some(u64::MAX)).unwrap();
        sealed.last_mut().unwrap().reach = second;
        let gone: Vec<_> =
            sealed[..sealed.len() - 1].iter().map(|&one| (one, Reason::Manual)).collect();
        assert_eq!(cut(&sealed, &gone, 0, u64::MAX), second);
    }

    #[test]
    fn what_is_in_progress_is_believed_for_half_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_in_progress(dir.path(), 0).unwrap(), None);
        write_in_progress(dir.path(), &[(0, 7), (1, u64::MAX), (2, 0)]).unwrap();
        write_in_progress(dir.path(), &[(0, 8), (1, 5)]).unwrap();
        let read = |shard| read_in_progress(dir.path(), shard).unwrap();
        assert_eq!((read(0), read(1), read(2)), (Some(8), Some(5), None));
        let path = dir.path().join("in-progress");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("0 8 ", "0 9 ", 1)).unwrap();
        assert_eq!((read(0), read(1)), (None, Some(5)), "a torn line");
        let Clock { boot, now } = Clock::read().unwrap();
        let words = format!("0 8 {boot} {}", now.as_secs().saturating_sub(60));
        fs::write(&path, format!("{words} {:08x}\n", crc(words.as_bytes()))).unwrap();
        assert_eq!(read(0), None, "too old");
    }

    #[test]
    fn ages_outlive_the_process_and_not_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        let clock =
            |boot: &str, now| Clock { boot: boot.to_owned(), now: Duration::from_secs(now) };
        let mut ages = Ages::default();
        ages.update(dir.path(), &clock("a", 100), [1, 2].into_iter()).unwrap();
        let mut ages = Ages::read(dir.path());
        ages.update(dir.path(), &clock("a", 160), [2, 3].into_iter()).unwrap();
        let of = |ages: &Ages, number, clock: &Clock| ages.of(number, clock).as_secs();
        assert_eq!(of(&ages, 2, &clock("a", 160)), 60);
        assert_eq!(of(&ages, 3, &clock("a", 160)), 0);
        let mut ages = Ages::read(dir.path());
        ages.update(dir.path(), &clock("b", 5), [2, 3].into_iter()).unwrap();
        assert_eq!(of(&ages, 2, &clock("b", 5)), 0);
    }
}
