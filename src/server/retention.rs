//! Retention at work: every few seconds it looks for segments to delete (D12), and reports how far
//! back the log reaches. The scrub (D10) has a thread of its own: it takes hours for a large log,
//! and retention must not wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use crate::consumer::{Group, lowest_needed};
use crate::log::{
    Fault, FaultKind, HighWaterMarks, Log, Needs, Pace, Reason, Retention, Rules, Scrub,
    write_in_progress,
};
use crate::metrics::{CorruptStage, ExportMetrics, KeptLog, LogOp};
use crate::sys::{BACKGROUND, lower_priority};

const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often each segment is checked.
const SCRUB_EVERY: Duration = Duration::from_secs(86_400);

/// How often it is asked which are due; also how long after the start the first are.
const SCRUB_LOOK: Duration = Duration::from_secs(60);

/// Octets a second: a disk that is fit for a log hardly notices.
const SCRUB_RATE: u64 = 16 << 20;

/// Called with all that is wrong with the log.
pub(super) type Report = Box<dyn Fn(&[Fault]) + Send>;

/// What keeping the log is made from.
pub(super) struct KeeperOptions {
    /// The log.
    pub(super) log: Log,
    /// When segments go.
    pub(super) rules: Rules,
    /// Whether the disk is low.
    pub(super) disk_low: Box<dyn Fn() -> bool + Send>,
    /// First segment of a shard that messages without a seal need.
    pub(super) segments_from: Box<dyn Fn(u16) -> u64 + Send>,
    /// High-water marks.
    pub(super) marks: Arc<HighWaterMarks>,
    /// Groups whose lag is reported elsewhere: those of exporters.
    pub(super) told: Vec<String>,
    /// Where it counts.
    pub(super) metrics: ExportMetrics,
    /// What was wrong at the start.
    pub(super) faults: Vec<Fault>,
    /// Told of all that is wrong, at the start and after each scrub.
    pub(super) report: Report,
}

/// Both threads. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Keeper {
    live: Arc<Mutex<Live>>,
    metrics: ExportMetrics,
    stops: Vec<mpsc::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Keeper {
    /// Starts to look.
    ///
    /// # Errors
    /// What the file system says, or the system about a thread.
    pub(super) fn start(mut options: KeeperOptions) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (stop_scrub, scrub_stopped) = mpsc::channel();
        let report = std::mem::replace(&mut options.report, Box::new(|_| {}));
        let mut scrubber = Scrubber {
            scrub: Scrub::new(&options.log, SCRUB_EVERY),
            log: options.log.clone(),
            metrics: options.metrics.clone(),
            at_start: std::mem::take(&mut options.faults),
            report,
        };
        scrubber.begin();
        let mut retention = Retention::new(&options.log)?;
        let mut seen = Seen::default();
        // Before the first scrape.
        seen.measure(&options)?;
        let live = Live { rules: options.rules, told: options.told.clone() };
        let live = Arc::new(Mutex::new(live));
        let (keeper_live, metrics) = (live.clone(), options.metrics.clone());
        tell_age(&metrics, &options.rules);
        let thread = std::thread::Builder::new().name("retention".to_owned()).spawn(move || {
            lower_priority(BACKGROUND);
            loop {
                let now = live.lock().unwrap_or_else(PoisonError::into_inner).clone();
                look(&mut retention, &mut seen, &options, &now);
                if !matches!(stopped.recv_timeout(LOOK_EVERY), Err(mpsc::RecvTimeoutError::Timeout))
                {
                    return;
                }
            }
        })?;
        let scrub = std::thread::Builder::new().name("scrub".to_owned()).spawn(move || {
            lower_priority(BACKGROUND);
            let began = Instant::now();
            let timeout = mpsc::RecvTimeoutError::Timeout;
            let wait = |time| scrub_stopped.recv_timeout(time) == Err(timeout);
            let pace = Pace { now: &|| began.elapsed(), wait: &wait, rate: SCRUB_RATE };
            while wait(SCRUB_LOOK) {
                scrubber.turn(&pace);
            }
        })?;
        let (stops, threads) = (vec![stop, stop_scrub], vec![thread, scrub]);
        Ok(Self { live: keeper_live, metrics, stops, threads })
    }

    /// Uses other rules from the next look on, and leaves the lag of these groups to be reported
    /// elsewhere.
    pub(super) fn change(&self, rules: Rules, told: Vec<String>) {
        tell_age(&self.metrics, &rules);
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Live { rules, told };
    }
}

/// What may change while it runs.
#[derive(Clone, Debug)]
struct Live {
    rules: Rules,
    told: Vec<String>,
}

fn tell_age(metrics: &ExportMetrics, rules: &Rules) {
    metrics.retention.set(rules.age.map_or(0.0, |age| age.as_secs_f64()));
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stops.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("the retention or scrub thread panicked");
            }
        }
    }
}

/// The scrub, and where it reports to.
struct Scrubber {
    scrub: Scrub,
    log: Log,
    metrics: ExportMetrics,
    at_start: Vec<Fault>,
    report: Report,
}

impl Scrubber {
    fn begin(&self) {
        self.show(&self.at_start);
    }

    fn turn(&mut self, pace: &Pace<'_>) {
        let done = match self.scrub.turn(&Exported(&self.log), pace) {
            Ok(Some(done)) => done,
            Ok(None) => return,
            Err(error) => {
                self.metrics.log.error(LogOp::Scrub);
                tracing::error!(%error, "the scrub of the log failed and will be retried");
                return;
            }
        };
        for fault in &done.faults {
            tracing::error!(shard = fault.shard, segment = fault.segment, "scrub: {fault}");
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.scrub_segments.inc_by(done.segments);
        self.metrics.scrub_bytes.inc_by(done.bytes);
        for fault in &done.corrupt {
            self.metrics.log.corrupt(CorruptStage::Scrub);
            if fault.kind == FaultKind::Unreadable {
                self.metrics.log.error(LogOp::Scrub);
            }
        }
        self.metrics.scrub_last.set(now.as_secs_f64());
        // What was found of a manifest at the start stays so: nothing can show the contrary.
        let manifest = self.at_start.iter().filter(|fault| fault.kind == FaultKind::Manifest);
        let faults: Vec<_> = manifest.cloned().chain(done.faults).collect();
        self.show(&faults);
    }

    fn show(&self, faults: &[Fault]) {
        self.metrics.faulty(FaultKind::ALL.map(|kind| {
            let of_kind = faults.iter().filter(|fault| fault.kind == kind).count();
            (kind.name(), i64::try_from(of_kind).unwrap_or(i64::MAX))
        }));
        (self.report)(faults);
    }
}

/// What the groups still need, for the scrub.
struct Exported<'a>(&'a Log);

impl Needs for Exported<'_> {
    fn offset(&self, shard: u16) -> io::Result<Option<u64>> {
        Ok(lowest_needed(self.0.dir(), shard)?)
    }

    fn segments_from(&self, _: u16) -> u64 {
        u64::MAX
    }
}

struct Demand<'a>(&'a KeeperOptions);

impl Needs for Demand<'_> {
    fn offset(&self, shard: u16) -> io::Result<Option<u64>> {
        Ok(lowest_needed(self.0.log.dir(), shard)?)
    }

    fn segments_from(&self, shard: u16) -> u64 {
        (self.0.segments_from)(shard)
    }
}

fn look(retention: &mut Retention, seen: &mut Seen, options: &KeeperOptions, now: &Live) {
    let low = (options.disk_low)();
    match retention.pass(&now.rules, low, &Demand(options)) {
        Ok(pass) => {
            for (reason, segments) in pass.deleted {
                let (reason, bytes) = (Reason::name(reason), pass.bytes);
                tracing::info!(reason, segments, bytes, "segments deleted");
                options.metrics.deleted(reason, segments);
                seen.deleted += segments;
            }
        }
        Err(error) => {
            options.metrics.log.error(LogOp::Read);
            tracing::error!(%error, "retention failed and will be retried");
        }
    }
    match seen.measure(options) {
        // `mailrace log prune` is another process.
        Ok(elsewhere) => options.metrics.deleted(Reason::Manual.name(), elsewhere),
        Err(error) => {
            options.metrics.log.error(LogOp::Read);
            tracing::warn!(%error, "the log cannot be measured");
        }
    }
    if let Err(error) = seen.tell_in_progress(options) {
        options.metrics.log.error(LogOp::Write);
        tracing::warn!(%error, "the file `in-progress`, which `mailrace log prune` reads, cannot be written");
    }
    if let Err(error) = tell_groups(options, &now.told, &mut seen.groups) {
        options.metrics.log.error(LogOp::Read);
        tracing::warn!(%error, "the groups' lag cannot be measured");
    }
    match options.log.oldest_received() {
        Ok(oldest) => options.metrics.oldest_record.set(oldest.unwrap_or(0) as f64 / 1e6),
        Err(error) => {
            options.metrics.log.error(LogOp::Read);
            tracing::warn!(%error, "the oldest record cannot be read");
        }
    }
}

/// What was seen at the last look.
#[derive(Default)]
struct Seen {
    /// Segments, a (shard, number) each.
    segments: BTreeSet<(u16, u64)>,
    /// Of those, how many retention has deleted since.
    deleted: u64,
    /// Groups whose lag is reported here.
    groups: BTreeSet<String>,
    /// First segment without a seal of each shard, as it was.
    unsealed: BTreeMap<u16, u64>,
    /// The same, as of this look.
    found: Vec<(u16, u64)>,
}

impl Seen {
    /// Writes down which segments mail being received is in. What was not sealed at the last look is
    /// among them: what a shard says of its messages is not older than a look.
    fn tell_in_progress(&mut self, options: &KeeperOptions) -> io::Result<()> {
        let mut from = Vec::new();
        for &(shard, unsealed) in &self.found {
            let before = self.unsealed.insert(shard, unsealed).unwrap_or(0);
            from.push((shard, (options.segments_from)(shard).min(before)));
        }
        write_in_progress(options.log.dir(), &from)
    }

    /// Measures what is kept. Returns how many segments are gone that retention did not delete.
    fn measure(&mut self, options: &KeeperOptions) -> io::Result<u64> {
        let mut segments = BTreeSet::new();
        let mut kept = Vec::new();
        let mut unsealed = Vec::new();
        for shard in options.log.shards()? {
            let found = options.log.segments(shard)?;
            let open = found.iter().find(|segment| segment.seal.is_none());
            let after = found.last().map_or(1, |last| last.number + 1);
            unsealed.push((shard, open.map_or(after, |segment| segment.number)));
            let start = found.first().map(|first| first.base_offset);
            kept.push(KeptLog {
                shard: u32::from(shard),
                start_offset: start.unwrap_or_else(|| options.marks.get(shard)),
                segments: found.len() as u64,
                bytes: found.iter().map(|segment| segment.bytes).sum(),
            });
            segments.extend(found.iter().map(|segment| (shard, segment.number)));
        }
        options.metrics.log.set_kept(kept);
        self.found = unsealed;
        let gone = self.segments.difference(&segments).count() as u64;
        self.segments = segments;
        Ok(gone.saturating_sub(std::mem::take(&mut self.deleted)))
    }
}

/// Shows how far the groups of the stream's consumers are.
fn tell_groups(
    options: &KeeperOptions,
    told: &[String],
    known: &mut BTreeSet<String>,
) -> io::Result<()> {
    let shards = options.log.shards()?;
    let mut groups = Group::list(options.log.dir())?;
    groups.retain(|group| !told.iter().any(|name| name == group.name()));
    let present: BTreeSet<_> = groups.iter().map(|group| group.name().to_owned()).collect();
    for gone in known.difference(&present).filter(|name| !told.contains(*name)) {
        options.metrics.forget_group(gone);
    }
    *known = present;
    for group in groups {
        let (mut lags, mut oldest) = (Vec::new(), None::<i64>);
        for &shard in &shards {
            let at = group.committed(shard)?.map_or(0, |committed| committed.offset);
            let mark = options.marks.get(shard);
            let pending = options.log.pending(shard, at, mark)?;
            lags.push(pending.map_or(0, |pending| pending.records));
            oldest = [oldest, pending.map(|pending| pending.oldest)].into_iter().flatten().min();
        }
        let metrics = options.metrics.group(group.name());
        let signed = |lag: u64| i64::try_from(lag).unwrap_or(i64::MAX);
        metrics.lag.set(signed(lags.iter().sum()));
        metrics.lag_max.set(signed(lags.iter().copied().max().unwrap_or(0)));
        metrics.oldest_pending.set(oldest.unwrap_or(0) as f64 / 1e6);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, os::unix::fs::FileExt};

    use super::*;
    use crate::log::{DataDir, Writer, segment_path, shard_dir, testing::mail};

    fn options(dir: &std::path::Path, marks: HighWaterMarks) -> KeeperOptions {
        KeeperOptions {
            log: Log::open(dir).unwrap(),
            rules: Rules {
                age: None,
                size: None,
                require_consumed: true,
                retain_after_export: Duration::ZERO,
                hold: false,
            },
            disk_low: Box::new(|| false),
            segments_from: Box::new(|_| u64::MAX),
            marks: Arc::new(marks),
            told: Vec::new(),
            metrics: ExportMetrics::new(),
            faults: Vec::new(),
            report: Box::new(|_| {}),
        }
    }

    /// `log_start_offset`, `log_segments` and `log_size_bytes` are what the directory holds, and
    /// what another process deletes counts as deleted by hand.
    #[test]
    fn what_is_kept_is_measured_and_what_went_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let mut writer = Writer::open(&data, 0, 1 << 20).unwrap().without_sync();
        for _ in 0..50 {
            writer.append(&mail("mx"), &[b'x'; 60_000]).unwrap();
            writer.commit().unwrap();
        }
        let (marks, _listener) = HighWaterMarks::new(1);
        let options = options(dir.path(), marks);
        let mut seen = Seen::default();
        assert_eq!(seen.measure(&options).unwrap(), 0);
        let segments = options.log.segments(0).unwrap();
        let kept = |options: &KeeperOptions| options.metrics.log.facts().kept[0];
        let before = kept(&options);
        assert_eq!((before.start_offset, before.segments), (0, segments.len() as u64));
        assert_eq!(before.bytes, segments.len() as u64 * (1 << 20));
        std::fs::remove_file(segment_path(writer.dir(), 1)).unwrap();
        std::fs::remove_file(segment_path(writer.dir(), 2)).unwrap();
        // One of the two was retention's own.
        seen.deleted = 1;
        assert_eq!(seen.measure(&options).unwrap(), 1);
        let after = kept(&options);
        assert_eq!(after.start_offset, segments[2].base_offset);
        assert_eq!(after.segments, before.segments - 2);
        assert_eq!(after.bytes, before.bytes - (2 << 20));
        assert_eq!(seen.measure(&options).unwrap(), 0, "counted once");
    }

    #[test]
    fn a_group_that_is_gone_is_shown_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let _data = DataDir::open(dir.path()).unwrap();
        let (marks, _listener) = HighWaterMarks::new(1);
        let options = options(dir.path(), marks);
        let group = Group::new(dir.path(), "reports").unwrap();
        drop(group.activate().unwrap());
        let mut known = BTreeSet::new();
        let shown = |options: &KeeperOptions| {
            let families = options.metrics.gather();
            prometheus::TextEncoder::new().encode_to_string(&families).unwrap().contains("reports")
        };
        tell_groups(&options, &[], &mut known).unwrap();
        assert!(shown(&options));
        group.remove().unwrap();
        tell_groups(&options, &[], &mut known).unwrap();
        assert!(!shown(&options));
    }

    /// A log of some records, sealed by a second start.
    fn sealed_log(dir: &std::path::Path) {
        let data = DataDir::open(dir).unwrap();
        let mut writer = Writer::open(&data, 0, 1 << 20).unwrap().without_sync();
        for _ in 0..40 {
            writer.append(&mail("mx"), &[b'x'; 60_000]).unwrap();
            writer.commit().unwrap();
        }
        drop(writer);
        drop(Writer::open(&data, 0, 1 << 20).unwrap());
    }

    /// A scrub counts what it checked and found, and reports it; its clock is the test's.
    #[test]
    fn a_scrub_is_counted_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        sealed_log(dir.path());
        let log = Log::open(dir.path()).unwrap();
        let metrics = ExportMetrics::new();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let lost = Fault {
            shard: 0,
            segment: 0,
            offset: 0,
            kind: FaultKind::Manifest,
            what: "the manifest was missing".to_owned(),
        };
        let mut scrubber = Scrubber {
            scrub: Scrub::new(&log, SCRUB_EVERY),
            log: log.clone(),
            metrics: metrics.clone(),
            at_start: vec![lost],
            report: Box::new(move |faults| *heard.lock().unwrap() = faults.to_vec()),
        };
        let text = || prometheus::TextEncoder::new().encode_to_string(&metrics.gather()).unwrap();
        let faulty = |kind| format!("mailrace_log_faulty_segments{{kind=\"{kind}\"}} 1\n");
        scrubber.begin();
        assert!(text().contains(&faulty("manifest")), "{}", text());
        assert_eq!(told.lock().unwrap().len(), 1);
        let clock = Cell::new(Duration::ZERO);
        let wait = |time| {
            clock.set(clock.get() + time);
            true
        };
        let pace = Pace { now: &|| clock.get(), wait: &wait, rate: SCRUB_RATE };
        scrubber.turn(&pace);
        let segments = metrics.scrub_segments.get();
        assert!(segments > 0 && metrics.scrub_bytes.get() > 0 && metrics.scrub_last.get() > 0.0);
        let corrupt = || metrics.log.facts().corrupt.count(CorruptStage::Scrub);
        assert_eq!((corrupt(), told.lock().unwrap().len()), (0, 1));
        let first = log.segments(0).unwrap()[0].number;
        let path = segment_path(&shard_dir(dir.path(), 0), first);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"rotten", 4_200).unwrap();
        scrubber.turn(&pace);
        assert_eq!(metrics.scrub_segments.get(), segments, "nothing is due yet");
        clock.set(clock.get() + SCRUB_EVERY);
        scrubber.turn(&pace);
        assert_eq!(metrics.scrub_segments.get(), 2 * segments);
        assert_eq!(corrupt(), 1);
        assert!(text().contains(&faulty("corrupt")), "{}", text());
        assert_eq!(told.lock().unwrap().len(), 2);
        let errors = || metrics.log.facts().errors.count(LogOp::Scrub);
        assert_eq!(errors(), 0, "what is damaged was read");
        // A directory in the place of a segment can be opened, and not read.
        let second = log.segments(0).unwrap()[1].number;
        let path = segment_path(&shard_dir(dir.path(), 0), second);
        clock.set(clock.get() + SCRUB_EVERY);
        let was = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        scrubber.turn(&pace);
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, was).unwrap();
        let unreadable = errors();
        // Nor can a directory that is gone be listed.
        std::fs::rename(dir.path(), dir.path().with_extension("away")).unwrap();
        clock.set(clock.get() + SCRUB_EVERY);
        scrubber.turn(&pace);
        std::fs::rename(dir.path().with_extension("away"), dir.path()).unwrap();
        assert_eq!(errors(), unreadable + 1);
    }
}
