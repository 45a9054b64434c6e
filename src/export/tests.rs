//! The runner against scripted sinks: what is delivered, in which order, and what is committed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{plane::start_with, *};
use mailrace_log::consumer::Group;
use mailrace_log::{DataDir, Fate, HighWaterMarks, Log, Waiters, Writer, testing::mail};
use mailrace_metrics::ExportMetrics;

const NAME: &str = "main";

/// A log that grows, and the plane over it.
struct Stand {
    dir: tempfile::TempDir,
    writers: Vec<Writer>,
    _data: DataDir,
    marks: Arc<HighWaterMarks>,
    plane: Option<Plane>,
    metrics: ExportMetrics,
}

impl Stand {
    fn new(shards: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let writers: Vec<_> = (0..shards)
            .map(|shard| Writer::open(&data, shard, 1 << 20).unwrap().without_sync())
            .collect();
        let (marks, _) = HighWaterMarks::new(usize::from(shards));
        let marks = Arc::new(marks);
        Self { dir, writers, _data: data, marks, plane: None, metrics: ExportMetrics::new() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn group(&self) -> Group {
        Group::new(self.path(), NAME).unwrap()
    }

    /// Appends messages to a shard and publishes the mark, as a shard does.
    fn append(&mut self, shard: u16, count: usize) {
        self.append_sized(shard, count, 300);
    }

    fn append_sized(&mut self, shard: u16, count: usize, bytes: usize) {
        let writer = &mut self.writers[usize::from(shard)];
        for number in 0..count {
            let listener = if number % 3 == 0 { "mx" } else { "submission" };
            let data: Vec<u8> = (0..bytes).map(|at| b'a' + ((at + number) % 26) as u8).collect();
            writer.append(&mail(listener), &data).unwrap();
            if number % 7 == 6 {
                writer.commit().unwrap();
            }
        }
        writer.commit().unwrap();
        self.marks.publish(shard, writer.high_water_mark());
    }

    fn start(&mut self, options: ExportOptions, sink: &Arc<Script>) {
        let shards = self.writers.len();
        // A plane has its own listener; the marks of the writers are carried over.
        let (marks, listener) = HighWaterMarks::new(shards);
        for shard in 0..shards as u16 {
            marks.publish(shard, self.marks.get(shard));
        }
        self.marks = Arc::new(marks);
        let options = PlaneOptions {
            log: Log::open(self.path()).unwrap(),
            shards: shards as u16,
            marks: self.marks.clone(),
            listener,
            exporters: vec![options],
            metrics: self.metrics.clone(),
            verdicts: Arc::default(),
            waiters: Waiters::default(),
        };
        let sink = sink.clone();
        let make = move |_: &ExportOptions| Ok(Box::new(Handle(sink.clone())) as Box<dyn Sink>);
        self.plane = Some(start_with(options, &make).unwrap());
    }

    fn stop(&mut self) {
        self.plane.take().unwrap().shut_down();
    }

    fn committed(&self, shard: u16) -> u64 {
        self.group().committed(shard).unwrap().map_or(0, |committed| committed.offset)
    }
}

fn options() -> ExportOptions {
    ExportOptions {
        name: NAME.to_owned(),
        sink: SinkOptions::Blackhole,
        document: testing::document(),
        start: Start::Committed,
        batch: BatchOptions { records: 10, bytes: 1 << 16, delay: Duration::ZERO },
        retry: RetryOptions {
            initial: Duration::from_millis(1),
            max: Duration::from_millis(4),
            give_up_after: None,
        },
        in_flight: 1,
        timeout: Duration::from_secs(5),
        filter: Filter::default(),
        wait_verdict: None,
        replay_rate: None,
    }
}

/// A sink that does as it is told, and remembers what it took.
#[derive(Default)]
struct Script {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Delivered: shard, offset, replayed.
    taken: Vec<(u16, u64, bool)>,
    /// Those it has acknowledged.
    acked: BTreeSet<(u16, u64)>,
    bytes: u64,
    /// How the next batches go; empty: well.
    plan: VecDeque<Fault>,
    refuse: Vec<u64>,
    held: bool,
    waiting: usize,
    largest_batch: usize,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing is taken.
    Down(ErrorClass),
    /// Taken, and the answer is lost.
    AckLost,
    /// The first half is taken.
    Half,
    /// Every other record is taken.
    Holes,
    /// Asks for patience.
    Throttled,
    /// No answer at all.
    Hang,
}

struct Handle(Arc<Script>);

impl Sink for Handle {
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(async { Ok(()) })
    }

    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            loop {
                {
                    let mut state = self.0.state.lock().unwrap();
                    if !state.held {
                        break;
                    }
                    state.waiting = state.waiting.max(records.len());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let fault = self.0.state.lock().unwrap().plan.pop_front();
            if matches!(fault, Some(Fault::Hang)) {
                std::future::pending::<()>().await;
            }
            let mut state = self.0.state.lock().unwrap();
            state.largest_batch = state.largest_batch.max(records.len());
            let retry = |class| Outcome::Retry(SinkError::new(class, "scripted"));
            let mut outcomes = Vec::new();
            for (at, record) in records.iter().enumerate() {
                let offset = record.id.offset.get();
                if state.refuse.contains(&offset) {
                    let error = SinkError::new(ErrorClass::Refused, "no such user");
                    outcomes.push(Outcome::Refused(error));
                    continue;
                }
                let (take, outcome) = match fault {
                    None => (true, Outcome::Delivered),
                    Some(Fault::Down(class)) => (false, retry(class)),
                    Some(Fault::AckLost) => (true, retry(ErrorClass::Timeout)),
                    Some(Fault::Half) if at >= records.len() / 2 => {
                        (false, retry(ErrorClass::Connect))
                    }
                    Some(Fault::Holes) if at % 2 == 1 => (false, retry(ErrorClass::Other)),
                    Some(Fault::Half | Fault::Holes) => (true, Outcome::Delivered),
                    Some(Fault::Throttled) => {
                        let retry_after = Some(Duration::from_millis(3));
                        let (class, text) = (ErrorClass::Throttled, "slow down".to_owned());
                        (false, Outcome::Retry(SinkError { class, text, retry_after }))
                    }
                    Some(Fault::Hang) => unreachable!("does not get here"),
                };
                if take {
                    state.taken.push((record.id.shard, offset, record.replay));
                    state.bytes += record.data.len() as u64;
                }
                if outcome == Outcome::Delivered {
                    state.acked.insert((record.id.shard, offset));
                }
                outcomes.push(outcome);
            }
            outcomes
        })
    }
}

impl Script {
    fn offsets(&self, shard: u16) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        let of_shard = state.taken.iter().filter(|(at, _, _)| *at == shard);
        of_shard.map(|(_, offset, _)| *offset).collect()
    }

    fn count(&self) -> usize {
        self.state.lock().unwrap().taken.len()
    }
}

/// Waits for something other threads do.
#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn records_are_delivered_once_in_order_and_committed() {
    let mut stand = Stand::new(2);
    stand.append(0, 100);
    let sink = Arc::new(Script::default());
    stand.start(options(), &sink);
    until("those that were there", || sink.count() == 100);
    stand.append(1, 50);
    stand.append(0, 20);
    until("those that come", || sink.count() == 170);
    assert_eq!(sink.offsets(0), (0..120).collect::<Vec<_>>());
    assert_eq!(sink.offsets(1), (0..50).collect::<Vec<_>>());
    until("the commit", || (stand.committed(0), stand.committed(1)) == (120, 50));
    stand.stop();
    // Nothing is sent twice after a shutdown.
    stand.append(0, 5);
    stand.start(options(), &sink);
    until("five more", || sink.count() == 175);
    stand.stop();
    assert_eq!(sink.offsets(0), (0..125).collect::<Vec<_>>());
    assert_eq!(stand.committed(0), 125, "saved at shutdown");
}

#[test]
fn nothing_above_the_mark_is_shown() {
    let mut stand = Stand::new(1);
    stand.append(0, 10);
    let sink = Arc::new(Script::default());
    stand.start(options(), &sink);
    until("ten", || sink.count() == 10);
    // Written, and not told to be synced.
    let writer = &mut stand.writers[0];
    for _ in 0..5 {
        writer.append(&mail("mx"), b"x").unwrap();
    }
    writer.commit().unwrap();
    let mark = writer.high_water_mark();
    // A full look around of the lane, by its own clock.
    let committed = Instant::now();
    until("a second", || committed.elapsed() > Duration::from_millis(1_200));
    assert_eq!(sink.count(), 10);
    stand.marks.publish(0, mark);
    until("five more", || sink.count() == 15);
    stand.stop();
}

#[test]
fn the_committed_offset_is_contiguous_with_many_in_flight() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    // The first batch hangs until its timeout, later ones go through.
    sink.state.lock().unwrap().plan.push_back(Fault::Hang);
    let options = ExportOptions { in_flight: 4, timeout: Duration::from_millis(200), ..options() };
    stand.append(0, 60);
    stand.start(options, &sink);
    until("three others", || sink.count() >= 30);
    assert_eq!(stand.committed(0), 0, "the first is not settled");
    assert!(!sink.offsets(0).contains(&0));
    until("all", || sink.count() == 60);
    stand.stop();
    assert_eq!(stand.committed(0), 60);
}

#[test]
fn a_refused_record_is_a_dead_letter_and_can_be_requeued() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    sink.state.lock().unwrap().refuse = vec![3, 17];
    stand.append(0, 30);
    stand.start(options(), &sink);
    until("the rest", || sink.count() == 28);
    until("the commit", || stand.committed(0) == 30);
    let mut letters = stand.group().dead_letters(0).unwrap();
    let dead: Vec<_> = letters.pending().map(|letter| letter.offset).collect();
    assert_eq!(dead, [3, 17]);
    assert_eq!(letters.pending().next().unwrap().text, "no such user");
    // Still refused: dead again. Then not.
    letters.settle(&[17], Fate::Requeued).unwrap();
    until("another try", || stand.group().dead_letters(0).unwrap().requeued().is_empty());
    sink.state.lock().unwrap().refuse.clear();
    letters.settle(&[3, 17], Fate::Requeued).unwrap();
    until("delivered after all", || sink.count() == 30);
    until("settled", || stand.group().dead_letters(0).unwrap().pending().count() == 0);
    stand.stop();
}

#[test]
fn a_record_that_is_given_up_is_a_dead_letter() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    sink.state.lock().unwrap().plan.extend([Fault::Down(ErrorClass::Connect); 1_000]);
    let mut options = options();
    options.retry.give_up_after = Some(Duration::from_millis(30));
    stand.append(0, 5);
    stand.start(options, &sink);
    until("dead letters", || stand.group().dead_letters(0).unwrap().pending().count() == 5);
    stand.stop();
    assert_eq!((stand.committed(0), sink.count()), (5, 0));
}

#[test]
fn a_seek_replays_and_says_so() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    stand.append(0, 40);
    stand.start(options(), &sink);
    until("the commit", || stand.committed(0) == 40);
    stand.group().seek(0, 25).unwrap();
    until("fifteen again", || sink.count() == 55);
    stand.append(0, 2);
    until("two new ones", || sink.count() == 57);
    stand.stop();
    let state = sink.state.lock().unwrap();
    let replayed: Vec<_> = state.taken.iter().filter(|(_, _, r)| *r).map(|(_, o, _)| *o).collect();
    assert_eq!(replayed, (25..40).collect::<Vec<_>>());
    drop(state);
    assert_eq!(stand.committed(0), 42);
}

#[test]
fn a_replay_keeps_its_rate() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    let options = ExportOptions { replay_rate: Some(100), ..options() };
    stand.append(0, 50);
    stand.start(options, &sink);
    until("the commit", || stand.committed(0) == 50);
    let began = Instant::now();
    stand.group().seek(0, 0).unwrap();
    until("all again", || sink.count() == 100);
    // 50 at 100 a second; the last batch of ten goes without a wait behind it.
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    stand.stop();
}

#[test]
fn the_filter_passes_over_and_commits() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    let mut options = options();
    options.filter.listener = vec!["mx".to_owned()];
    options.filter.rcpt_domain = vec!["y.test".to_owned()];
    stand.append(0, 30);
    stand.start(options.clone(), &sink);
    until("the commit", || stand.committed(0) == 30);
    stand.stop();
    assert_eq!(sink.offsets(0), (0..30).step_by(3).collect::<Vec<_>>());
    options.name = "other".to_owned();
    options.filter.rcpt_domain = vec!["nobody.test".to_owned()];
    stand.start(options, &sink);
    let group = Group::new(stand.path(), "other").unwrap();
    until("passed over", || group.committed(0).unwrap().is_some_and(|c| c.offset == 30));
    stand.stop();
    assert_eq!(sink.count(), 10);
}

#[test]
fn large_records_go_alone_and_whole() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    stand.append(0, 5);
    stand.append_sized(0, 6, 200_000);
    stand.append(0, 5);
    stand.start(ExportOptions { in_flight: 8, ..options() }, &sink);
    until("all", || sink.count() == 16);
    stand.stop();
    assert_eq!(sink.state.lock().unwrap().bytes, 10 * 300 + 6 * 200_000);
    assert_eq!(stand.committed(0), 16);
}

/// Crash between ack and save (D4 4): what was acknowledged since the last save comes again, and
/// nothing is missing.
#[test]
fn a_crash_before_the_commit_repeats_and_loses_nothing() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    stand.append(0, 30);
    stand.start(options(), &sink);
    until("the commit", || stand.committed(0) == 30);
    let saved = std::fs::read(stand.group().offset_path(0)).unwrap();
    stand.append(0, 30);
    until("thirty more", || sink.count() == 60);
    stand.stop();
    std::fs::write(stand.group().offset_path(0), saved).unwrap();
    stand.start(options(), &sink);
    until("again", || sink.count() == 90);
    stand.stop();
    let offsets = sink.offsets(0);
    assert_eq!(offsets[60..], (30..60).collect::<Vec<_>>());
}

#[test]
fn both_slots_damaged_begin_at_the_start() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    stand.append(0, 10);
    stand.start(options(), &sink);
    until("the commit", || stand.committed(0) == 10);
    stand.stop();
    std::fs::write(stand.group().offset_path(0), [7; 8_192]).unwrap();
    stand.start(options(), &sink);
    until("all again", || sink.count() == 20);
    stand.stop();
}

#[test]
fn an_offset_beyond_the_log_does_not_hide_new_mail() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    stand.append(0, 10);
    stand.group().seek(0, 1_000).unwrap();
    stand.start(options(), &sink);
    stand.append(0, 3);
    until("the new ones", || sink.count() == 3);
    stand.stop();
    assert_eq!(sink.offsets(0), [10, 11, 12]);
}

/// D10: flipped bits in a sealed segment are dead letters, everything else is delivered.
#[test]
fn damage_is_told_and_passed() {
    let mut stand = Stand::new(1);
    // Sealed segments of 1 MiB.
    stand.append_sized(0, 60, 50_000);
    let path = mailrace_log::segment_path(stand.writers[0].dir(), 1);
    let mut octets = std::fs::read(&path).unwrap();
    let at = octets.len() / 2;
    octets[at] ^= 0x40;
    std::fs::write(&path, octets).unwrap();
    let sink = Arc::new(Script::default());
    stand.start(options(), &sink);
    until("the commit", || stand.committed(0) == 60);
    stand.stop();
    let dead = stand.group().dead_letters(0).unwrap();
    let dead: Vec<_> = dead.pending().cloned().collect();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].class, "corrupt");
    let mut all = sink.offsets(0);
    all.push(dead[0].offset);
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<_>>(), "the damaged record alone is missing");
    let text = prometheus::TextEncoder::new().encode_to_string(&stand.metrics.gather()).unwrap();
    for line in ["export_corrupt_records_total 1\n", "result=\"dead_lettered\"} 1\n"] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    let read = stand.metrics.log.facts().corrupt.count(mailrace_metrics::CorruptStage::Read);
    assert_eq!(read, 1);
}

#[test]
fn a_sink_that_is_gone_stops_the_exporter_at_its_place() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    stand.append(0, 10);
    stand.start(options(), &sink);
    until("the commit", || stand.committed(0) == 10);
    sink.state.lock().unwrap().plan.push_back(Fault::Down(ErrorClass::Gone));
    stand.append(0, 10);
    until("the fault", || sink.state.lock().unwrap().plan.is_empty());
    stand.append(0, 10);
    let began = Instant::now();
    until("a while", || began.elapsed() > Duration::from_millis(300));
    stand.stop();
    assert_eq!((sink.count(), stand.committed(0)), (10, 10));
}

/// T13, with the sink's side scripted: outage, half-open connections, lost acks, partial batches,
/// throttling, expired credentials; restarts in between. I5: everything arrives. I6: a record comes
/// twice only where an ack was lost or the exporter was stopped before its commit.
#[test]
fn faults_of_every_kind_lose_nothing() {
    for seed in 0..80_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut stand = Stand::new(1 + next(3) as u16);
        let sink = Arc::new(Script::default());
        let shards = stand.writers.len() as u16;
        let mut expected = BTreeMap::new();
        let mut lost_acks = false;
        for _round in 0..2 {
            let plan: VecDeque<_> = (0..next(12))
                .map(|_| match next(7) {
                    0 => Fault::AckLost,
                    1 => Fault::Half,
                    2 => Fault::Holes,
                    3 => Fault::Throttled,
                    4 => Fault::Hang,
                    5 => Fault::Down(ErrorClass::Auth),
                    _ => Fault::Down(ErrorClass::Connect),
                })
                .collect();
            lost_acks |= plan.iter().any(|fault| matches!(fault, Fault::AckLost));
            sink.state.lock().unwrap().plan = plan;
            let mut options = options();
            options.in_flight = 1 + next(3) as usize;
            options.timeout = Duration::from_millis(2);
            for shard in 0..shards {
                let count = next(40);
                stand.append(shard, count as usize);
                *expected.entry(shard).or_insert(0) += count;
            }
            stand.start(options, &sink);
            let total: u64 = expected.values().sum();
            until("all records", || sink.state.lock().unwrap().acked.len() as u64 == total);
            stand.stop();
            for shard in 0..shards {
                assert_eq!(stand.committed(shard), expected[&shard], "seed {seed} shard {shard}");
            }
        }
        for (shard, count) in expected {
            let mut offsets = sink.offsets(shard);
            let taken = offsets.len();
            offsets.sort_unstable();
            offsets.dedup();
            assert_eq!(offsets, (0..count).collect::<Vec<_>>(), "seed {seed} shard {shard}");
            assert!(taken as u64 == count || lost_acks, "seed {seed}: duplicates without a cause");
        }
    }
}

/// A lost segment is passed over, the others are delivered: a dead letter names what is missing, and
/// keeps nothing from deletion.
#[test]
fn a_missing_segment_is_a_dead_letter_and_stops_nobody() {
    let mut stand = Stand::new(1);
    stand.append_sized(0, 60, 50_000);
    let log = Log::open(stand.dir.path()).unwrap();
    let (second, third) = {
        let segments = log.segments(0).unwrap();
        (segments[1].base_offset, segments[2].base_offset)
    };
    std::fs::remove_file(mailrace_log::segment_path(stand.writers[0].dir(), 2)).unwrap();
    let sink = Arc::new(Script::default());
    stand.start(options(), &sink);
    until("the commit", || stand.committed(0) == 60);
    let text = prometheus::TextEncoder::new().encode_to_string(&stand.metrics.gather()).unwrap();
    stand.stop();
    let there = (0..60).filter(|at| !(second..third).contains(at)).collect::<Vec<_>>();
    assert_eq!(sink.offsets(0), there);
    let group = Group::list(stand.dir.path()).unwrap().remove(0);
    let letters = group.dead_letters(0).unwrap();
    let letters: Vec<_> = letters.pending().collect();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].offset, letters[0].class.as_str()), (second, "missing"));
    let what = format!("records {second}..{third} are lost: segment 2 is missing");
    assert_eq!(letters[0].text, what);
    let needed = mailrace_log::consumer::lowest_needed(stand.dir.path(), 0).unwrap();
    assert_eq!(needed, Some(60), "there is nothing to keep");
    assert!(text.contains("result=\"dropped\"} 0\n"), "lost is not deleted: {text}");
}

/// What retention deleted before an exporter had it is counted, by the records and not by the gaps
/// that failed writes leave.
#[test]
fn records_deleted_before_their_delivery_are_counted() {
    let mut stand = Stand::new(1);
    stand.append_sized(0, 60, 50_000);
    let log = Log::open(stand.dir.path()).unwrap();
    let second = log.segments(0).unwrap()[1].base_offset;
    assert!(second > 0);
    let dir = stand.writers[0].dir().to_owned();
    mailrace_log::Manifest::open(&dir.join("manifest")).unwrap().remove(&[1]).unwrap();
    std::fs::remove_file(mailrace_log::segment_path(&dir, 1)).unwrap();
    for is_new in [false, true] {
        let name = if is_new { "new" } else { NAME };
        let group = Group::new(stand.path(), name).unwrap();
        if !is_new {
            // It was there when they were.
            group.seek(0, 0).unwrap();
        }
        let sink = Arc::new(Script::default());
        stand.start(ExportOptions { name: name.to_owned(), ..options() }, &sink);
        until("the commit", || group.committed(0).unwrap().is_some_and(|at| at.offset == 60));
        let gathered = stand.metrics.gather();
        let text = prometheus::TextEncoder::new().encode_to_string(&gathered).unwrap();
        stand.stop();
        assert_eq!(sink.offsets(0), (second..60).collect::<Vec<_>>());
        let dropped = if is_new { 0 } else { second };
        let line = format!("{{exporter=\"{name}\",result=\"dropped\"}} {dropped}\n");
        assert!(text.contains(&line), "{line} is missing in {text}");
    }
}

/// A lost segment at the front is missing in a new group as well.
#[test]
fn a_new_group_reports_a_lost_front_segment() {
    let mut stand = Stand::new(1);
    stand.append_sized(0, 60, 50_000);
    let second = Log::open(stand.dir.path()).unwrap().segments(0).unwrap()[1].base_offset;
    std::fs::remove_file(mailrace_log::segment_path(stand.writers[0].dir(), 1)).unwrap();
    let sink = Arc::new(Script::default());
    stand.start(options(), &sink);
    until("the commit", || stand.committed(0) == 60);
    stand.stop();
    let letters = stand.group().dead_letters(0).unwrap();
    let letters: Vec<_> = letters.pending().map(|l| (l.offset, l.class.as_str())).collect();
    assert_eq!((letters, sink.count() as u64), (vec![(0, "missing")], 60 - second));
}

/// What was read before an error of the disk's is kept with its mail data, and comes once.
#[test]
fn a_batch_is_whole_when_a_later_segment_fails() {
    let mut stand = Stand::new(1);
    stand.append_sized(0, 60, 50_000);
    let log = Log::open(stand.dir.path()).unwrap();
    let second = log.segments(0).unwrap()[1].base_offset;
    let path = mailrace_log::segment_path(stand.writers[0].dir(), 2);
    let aside = stand.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    let reader = mailrace_log::consumer::Reader::open(stand.path(), 0, 0).unwrap();
    let all = BatchOptions { records: 1_000, bytes: 1 << 30, delay: Duration::ZERO };
    let large_records = batch::LargeRecords::new();
    let mut reader = batch::BatchReader::new(reader, all, Filter::default(), large_records);
    let mut batch = batch::Batch::default();
    let error = reader.fill(&mut batch).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(batch.records.len() as u64, second);
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    reader.fill(&mut batch).unwrap();
    let offsets: Vec<_> = batch.records.iter().map(|record| record.id.offset.get()).collect();
    assert_eq!(offsets, (0..60).collect::<Vec<_>>());
    assert!(batch.records.iter().all(|record| record.data.len() == 50_000));
}

/// A batch that waits for more is sent at an orderly stop, and committed: with a delay of minutes
/// the next start would deliver it again otherwise.
#[test]
fn what_waits_for_a_full_batch_is_sent_at_a_stop() {
    let mut stand = Stand::new(2);
    let sink = Arc::new(Script::default());
    let slow = ExportOptions {
        batch: BatchOptions { records: 1_000, bytes: 1 << 20, delay: Duration::from_secs(3_600) },
        ..options()
    };
    stand.append(0, 7);
    stand.start(slow.clone(), &sink);
    stand.append(1, 3);
    // A full look around of the lanes.
    let began = Instant::now();
    until("a second", || began.elapsed() > Duration::from_millis(1_200));
    assert_eq!((sink.count(), stand.committed(0), stand.committed(1)), (0, 0, 0), "they wait");
    stand.stop();
    assert_eq!(sink.count(), 10);
    assert_eq!((stand.committed(0), stand.committed(1)), (7, 3));
    // A sink that is away does not hold the stop up, and loses nothing.
    stand.append(0, 1);
    sink.state.lock().unwrap().plan.push_back(Fault::Down(ErrorClass::Connect));
    let away = ExportOptions {
        retry: RetryOptions { initial: Duration::from_secs(60), ..options().retry },
        ..options()
    };
    stand.start(away, &sink);
    until("the failure", || sink.state.lock().unwrap().plan.is_empty());
    let began = Instant::now();
    stand.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((sink.count(), stand.committed(0)), (10, 7));
    stand.start(slow, &sink);
    stand.stop();
    assert_eq!((sink.count(), stand.committed(0)), (11, 8));
}

/// Served again by recipient: only those records, marked, and the committed offset stays.
#[test]
fn a_replay_by_recipient_leaves_the_offset_alone() {
    let mut stand = Stand::new(1);
    let sink = Arc::new(Script::default());
    stand.append(0, 30);
    stand.start(options(), &sink);
    until("all", || sink.count() == 30 && stand.committed(0) == 30);
    let mut letters = stand.group().dead_letters(0).unwrap();
    let wanted = [4, 9, 11];
    letters
        .add(wanted.map(|offset| mailrace_log::DeadLetter {
            offset,
            at: 0,
            class: REPLAY.to_owned(),
            text: String::new(),
            attempts: 0,
            rcpt: Some("*@y.test".to_owned()),
        }))
        .unwrap();
    letters.settle(&wanted, Fate::Requeued).unwrap();
    until("three again", || sink.count() == 33);
    stand.append(0, 1);
    until("one more", || sink.count() == 34);
    stand.stop();
    let taken = sink.state.lock().unwrap().taken.clone();
    let again: Vec<u64> =
        taken.iter().filter(|(_, _, replay)| *replay).map(|taken| taken.1).collect();
    assert_eq!(again, wanted);
    assert_eq!(stand.committed(0), 31);
    assert_eq!(stand.group().dead_letters(0).unwrap().pending().count(), 0);
}
