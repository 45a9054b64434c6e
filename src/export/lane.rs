//! One exporter in one shard: a thread that reads batches, has them delivered on the runtime, and
//! commits what is settled, in order.
//!
//! ```text
//!  reader --> gathering --> under way (1..in_flight) --> settled, in order --> done --> committed
//!                            a task each on the runtime      dead letters first   each second, or
//!                                                                                 10,000 records
//! ```
//!
//! What a crash does: before the commit, the records from `committed` on are delivered again (D4,
//! case 4). Between dead letter and commit, the letter is written twice, which counts once.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use crossbeam::channel::{Receiver, Sender, select, unbounded};
use tokio::{runtime::Handle, sync::watch, time::Instant};

use super::{
    Flush, REPLAY, RcptPattern, SinkOptions, Start,
    batch::{Batch, BatchReader, Large, Verdicts},
    exporter::{Exporter, Place},
    settle::{Settled, settle},
};
use mailrace_log::consumer::{Group, Reader};
use mailrace_log::{
    Committed, CommittedOffset, DeadLetter, DeadLetters, Fate, Found, HighWaterMarks, LeftOut, Log,
    ReadError, Saved, VerdictMarks, Waiter, Waiters,
};
use mailrace_metrics::{CorruptStage, LogOp};
use mailrace_stage::{Bug, planted};

/// How often a sink that is not there is asked for while a batch gathers; one that is due sooner asks
/// by itself.
const LOOK_AHEAD: Duration = Duration::from_secs(5);

/// A committed offset is at most this old (D11); also how often an idle lane looks around.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// How often a lane looks for the verdict that its next record waits for.
const VERDICT_EVERY: Duration = Duration::from_millis(50);

/// Records settled and not committed at most (D11).
const COMMIT_RECORDS: u64 = 10_000;

/// For what is sent when it stops.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// After an error of the disk.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// What a lane is made from.
pub(super) struct Parts {
    pub(super) exporter: Arc<Exporter>,
    pub(super) log: Log,
    pub(super) group: Group,
    pub(super) shard: u16,
    pub(super) marks: Arc<HighWaterMarks>,
    pub(super) verdicts: Arc<VerdictMarks>,
    pub(super) runtime: Handle,
    /// True once the exporter is to stop.
    pub(super) stop: watch::Receiver<bool>,
    /// No batch is waited for any more.
    pub(super) flush: Flush,
}

/// See the module's page.
pub(super) struct Lane {
    parts: Parts,
    reader: BatchReader,
    offset: CommittedOffset,
    dead: DeadLetters,
    /// Its file is listed as one that must be there.
    dead_listed: bool,
    /// Everything below is settled.
    done: u64,
    /// As it was at the start: recovery is over by then.
    left_out: LeftOut,
    /// What the offset file holds.
    committed: Committed,
    committed_at: Instant,
    unsaved: u64,
    gathering: Batch,
    gathering_since: Option<Instant>,
    /// When the sink was last asked for while a batch gathers.
    looked_ahead: Option<Instant>,
    under_way: VecDeque<UnderWay>,
    number: u64,
    waiter: Waiter,
    /// Number of a batch, and how it ended.
    settled: (Sender<Answer>, Receiver<Answer>),
    halted: bool,
}

type Answer = (u64, Settled);

/// A batch that is being delivered.
struct UnderWay {
    number: u64,
    end: u64,
    records: u64,
    first_received: Option<i64>,
    settled: Option<Settled>,
    _large: Option<Large>,
}

/// Starts a lane's thread. It ends by `stop` alone.
pub(super) fn start(parts: Parts, waiters: &Waiters) -> io::Result<std::thread::JoinHandle<()>> {
    let name = format!("{}/{}", parts.exporter.name(), parts.shard);
    let waiter = waiters.register(&[parts.shard]);
    let mut lane = Lane::new(parts, waiter)?;
    std::thread::Builder::new().name(name).spawn(move || {
        mailrace_sys::lower_priority(mailrace_sys::BACKGROUND);
        lane.run();
    })
}

impl Lane {
    pub(super) fn new(parts: Parts, waiter: Waiter) -> io::Result<Self> {
        let (mut offset, found) = parts.group.offset(parts.shard)?;
        let committed = place(&parts, found)?;
        if !matches!(found, Found::Committed(at) if at.offset == committed.offset) {
            offset.seek(|_| committed)?;
            parts.group.list_file(offset.path())?;
        }
        if let Some(fault) = parts.group.dead_letters_fault(parts.shard)? {
            tracing::error!(exporter = parts.exporter.name(), shard = parts.shard, "{fault}");
        }
        let dead = parts.group.dead_letters(parts.shard)?;
        let reader = Reader::open(parts.log.dir(), parts.shard, committed.offset)?
            .below(parts.marks.clone());
        let options = &parts.exporter.options;
        let large_records = parts.exporter.large_records.clone();
        let verdicts = options
            .wait_verdict
            .map(|wait| Verdicts::new(&parts.log, parts.verdicts.clone(), wait));
        let mut reader =
            BatchReader::new(reader, options.batch, options.filter.clone(), large_records)
                .with_verdicts(verdicts);
        reader.seek(committed.offset, committed.replayed_until)?;
        Ok(Self {
            reader,
            offset,
            dead,
            dead_listed: false,
            done: committed.offset,
            left_out: parts.log.left_out(parts.shard)?,
            committed,
            committed_at: Instant::now(),
            unsaved: 0,
            gathering: Batch::default(),
            gathering_since: None,
            looked_ahead: None,
            under_way: VecDeque::new(),
            number: 0,
            waiter,
            settled: unbounded(),
            halted: false,
            parts,
        })
    }

    fn stopping(&self) -> bool {
        *self.parts.stop.borrow()
    }

    fn run(&mut self) {
        while !self.stopping() {
            if let Err(error) = self.turn() {
                let (exporter, shard) = (self.parts.exporter.name(), self.parts.shard);
                tracing::error!(exporter, shard, %error, "the exporter is paused and will retry");
                self.wait(DISK_PAUSE);
            }
        }
        // Tasks under way see `stop` as well and end soon; what is settled by then is committed.
        while self.is_under_way() {
            match self.settled.1.recv_timeout(Duration::from_secs(5)) {
                Ok((number, settled)) => self.note(number, settled),
                Err(_) => break,
            }
        }
        let done = self.end();
        self.parts.exporter.sum_up(true);
        if let Err(error) = done {
            let (exporter, shard) = (self.parts.exporter.name(), self.parts.shard);
            tracing::error!(exporter, shard, %error, "the last offset was not saved");
        }
    }

    /// Batches are being delivered.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.iter().any(|batch| batch.settled.is_none())
    }

    /// Takes what has been settled.
    #[cfg(feature = "sim")]
    pub(super) fn look(&mut self) {
        while let Ok((number, settled)) = self.settled.1.try_recv() {
            self.note(number, settled);
        }
    }

    /// What an orderly stop saves.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.take_settled()?;
        self.flush()?;
        self.commit(true)
    }

    /// Sends what waits for a full batch, so that an orderly stop leaves nothing of it to the next
    /// start. What the sink does not take within a few seconds is redelivered then.
    fn flush(&mut self) -> io::Result<()> {
        let exporter = self.parts.exporter.clone();
        if self.halted || !self.under_way.is_empty() || exporter.is_failing() || exporter.is_gone()
        {
            return Ok(());
        }
        if !self.gathering.full {
            self.reader.fill(&mut self.gathering)?;
        }
        self.pass_empty()?;
        let batch = std::mem::take(&mut self.gathering);
        let replays = batch.records.iter().any(|record| record.replay);
        if batch.records.is_empty() || replays && exporter.options.replay_rate.is_some() {
            return Ok(());
        }
        let (records, metrics) = (batch.records.len() as u64, exporter.metrics.clone());
        // The exporter's own sign is up already; time ends this one.
        let (_never, stop) = watch::channel(false);
        let work = settle(exporter, batch.records, stop);
        let work = async { tokio::time::timeout(FLUSH_PATIENCE, work).await };
        let settled = block_on(&self.parts.runtime, work);
        if let Ok(Settled::Done(letters)) = settled {
            self.dead.add(letters)?;
            metrics.filtered.inc_by(batch.filtered);
            self.done = self.done.max(batch.end.unwrap_or(self.done));
            self.unsaved += records + batch.filtered;
        }
        Ok(())
    }

    /// Reads, sends, commits what is due; then waits for something to happen.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.take_settled()?;
        let halted = self.halted || self.parts.exporter.is_gone();
        if !halted {
            if !self.gathering.full {
                let filled = self.reader.fill(&mut self.gathering);
                filled.map_err(|error| self.counted(LogOp::Read, error.into()))?;
            }
            self.pass_empty()?;
            let gathered = !self.gathering.records.is_empty();
            if gathered {
                self.gathering_since.get_or_insert_with(Instant::now);
            }
            if gathered && self.due() {
                self.send();
                self.tell();
                // There may be more at once.
                return self.commit(false);
            }
            if gathered {
                self.look_ahead();
            }
        }
        self.commit(false)?;
        self.tell();
        let wait = match self.gathering_since {
            Some(since) if self.has_room() => self.delay().saturating_sub(since.elapsed()),
            _ => COMMIT_EVERY,
        };
        let most = if self.reader.waits() { VERDICT_EVERY } else { COMMIT_EVERY };
        self.wait(wait.min(most));
        Ok(())
    }

    /// A batch may gather for minutes: whether its sink is there is found out meanwhile, so that the
    /// operator hears of trouble at once and not when the batch is due.
    fn look_ahead(&mut self) {
        let exporter = &self.parts.exporter;
        let soon = exporter.options.batch.delay < LOOK_AHEAD;
        let lately = self.looked_ahead.is_some_and(|at| at.elapsed() < LOOK_AHEAD);
        if soon || lately || exporter.is_ready() {
            return;
        }
        self.looked_ahead = Some(Instant::now());
        let exporter = exporter.clone();
        self.parts.runtime.spawn(async move {
            if let Err(error) = exporter.ready().await {
                exporter.failed(&error);
            }
        });
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < self.parts.exporter.options.in_flight.max(1)
    }

    fn due(&self) -> bool {
        let delay = self.delay();
        self.has_room()
            && (self.gathering.full
                || self.gathering_since.is_some_and(|since| since.elapsed() >= delay))
    }

    /// How long a batch gathers.
    fn delay(&self) -> Duration {
        match self.parts.flush.has_begun() {
            true => Duration::ZERO,
            false => self.parts.exporter.options.batch.delay,
        }
    }

    /// Nothing was meant for the sink: what was passed over is settled with the batch before.
    fn pass_empty(&mut self) -> io::Result<()> {
        self.note_deleted()?;
        self.note_damage()?;
        if !self.gathering.records.is_empty() {
            return Ok(());
        }
        let Some(end) = self.gathering.end.take() else { return Ok(()) };
        let passed = std::mem::take(&mut self.gathering.filtered);
        self.parts.exporter.metrics.filtered.inc_by(passed);
        match self.under_way.back_mut() {
            Some(last) => last.end = last.end.max(end),
            None => {
                self.done = self.done.max(end);
                self.unsaved += passed.max(1);
            }
        }
        Ok(())
    }

    /// D10: what the disk has lost is a dead letter before the offset passes it.
    fn note_damage(&mut self) -> io::Result<()> {
        if self.gathering.damage.is_empty() {
            return Ok(());
        }
        let letters = self.gathering.damage.iter().map(|damage| DeadLetter {
            offset: damage.offset,
            at: 0,
            class: if damage.missing { "missing" } else { "corrupt" }.to_owned(),
            text: damage.to_string(),
            attempts: 0,
            rcpt: None,
        });
        self.dead.add(letters)?;
        for damage in std::mem::take(&mut self.gathering.damage) {
            let (exporter, shard) = (self.parts.exporter.name(), self.parts.shard);
            let (offset, segment) = (damage.offset, damage.segment);
            tracing::error!(exporter, shard, offset, segment, "damaged records skipped: {damage}");
            let metrics = &self.parts.exporter.metrics;
            metrics.dead_lettered.inc();
            metrics.corrupt.inc();
            metrics.log.corrupt(CorruptStage::Read);
        }
        Ok(())
    }

    /// What retention has deleted before it was delivered (`require_consumed = false`) is said.
    fn note_deleted(&mut self) -> io::Result<()> {
        while let Some(&gap) = self.gathering.gaps.first() {
            let dropped = self.reader.deleted_of(gap)?;
            self.gathering.gaps.remove(0);
            if dropped == 0 {
                continue;
            }
            let (exporter, shard) = (self.parts.exporter.name(), self.parts.shard);
            let from = gap.0;
            tracing::error!(exporter, shard, from, dropped, "deleted before they were delivered");
            self.parts.exporter.metrics.dropped.inc_by(dropped);
        }
        Ok(())
    }

    /// Hands the gathered batch to the runtime.
    fn send(&mut self) {
        let mut batch = std::mem::take(&mut self.gathering);
        self.gathering_since = None;
        let replayed = batch.records.iter().filter(|record| record.replay).count() as u64;
        let wait = self.parts.exporter.replay_wait(replayed);
        if replayed > 0 && !wait.is_zero() {
            self.pause(wait);
        }
        self.parts.exporter.metrics.filtered.inc_by(batch.filtered);
        self.number += 1;
        let number = self.number;
        self.under_way.push_back(UnderWay {
            number,
            end: batch.end.unwrap_or(self.done),
            records: batch.records.len() as u64 + batch.filtered,
            first_received: batch.records.first().map(|record| record.received_at),
            settled: None,
            _large: batch.large.take(),
        });
        if planted(Bug::CommitBeforeAck)
            && let Some(last) = self.under_way.back()
        {
            self.done = last.end;
            self.unsaved += last.records;
        }
        let (exporter, stop) = (self.parts.exporter.clone(), self.parts.stop.clone());
        let settled = self.settled.0.clone();
        self.parts.runtime.spawn(async move {
            let outcome = settle(exporter, batch.records, stop).await;
            // The lane is gone only at the end of the process.
            let _ = settled.send((number, outcome));
        });
    }

    /// The disk's trouble: counted as the shards' own is.
    fn counted(&self, op: LogOp, error: io::Error) -> io::Error {
        self.parts.exporter.metrics.log.error(op);
        error
    }

    fn note(&mut self, number: u64, settled: Settled) {
        if let Some(batch) = self.under_way.iter_mut().find(|batch| batch.number == number) {
            batch.settled = Some(settled);
        }
    }

    /// Moves `done` over the batches that are settled, the first first.
    fn take_settled(&mut self) -> io::Result<()> {
        while let Ok((number, settled)) = self.settled.1.try_recv() {
            self.note(number, settled);
        }
        while let Some(batch) = self.under_way.front_mut() {
            match &mut batch.settled {
                None => break,
                Some(Settled::Stopped) => {
                    // Nothing behind it may be committed; a halted lane keeps its place.
                    self.halted = true;
                    break;
                }
                Some(Settled::Done(letters)) => {
                    if !letters.is_empty() {
                        // Durable before the offset passes them.
                        self.dead.add(letters.clone())?;
                        letters.clear();
                    }
                    self.done = self.done.max(batch.end);
                    self.unsaved += batch.records;
                    self.under_way.pop_front();
                }
            }
        }
        Ok(())
    }

    /// Saves the offset where that is due, and looks whether an operator has moved the group or
    /// wants dead letters tried again.
    fn commit(&mut self, last: bool) -> io::Result<()> {
        let tick = self.committed_at.elapsed() >= COMMIT_EVERY;
        if !last && !tick && self.unsaved < COMMIT_RECORDS {
            return Ok(());
        }
        self.committed_at = Instant::now();
        let mark = self.parts.marks.get(self.parts.shard);
        assert!(self.done <= mark.max(self.committed.offset), "committed <= high-water mark");
        let moved = if self.done > self.committed.offset {
            let next = Committed { offset: self.done, ..self.committed };
            let saved = self.offset.save(next);
            match saved.map_err(|error| self.counted(LogOp::Write, error))? {
                Saved::Done => {
                    self.committed = next;
                    self.unsaved = 0;
                    None
                }
                Saved::Moved(to) => Some(to),
            }
        } else {
            self.offset.look()?
        };
        if let Some(to) = moved {
            self.go_to(to)?;
        }
        if tick && !last {
            self.dead.refresh()?;
            if !self.dead_listed && self.dead.pending().next().is_some() {
                self.parts.group.list_file(self.dead.path())?;
                self.dead_listed = true;
            }
            let wanted = self.dead.requeued();
            if !wanted.is_empty() {
                self.try_again(&wanted)?;
            }
        }
        Ok(())
    }

    /// Somebody moved the group: what is under way is finished first, so that it is not sent after
    /// what comes from the new place.
    fn go_to(&mut self, to: Committed) -> io::Result<()> {
        let (exporter, shard) = (self.parts.exporter.name(), self.parts.shard);
        tracing::info!(exporter, shard, from = self.done, to = to.offset, "the group was moved");
        self.gathering = Batch::default();
        self.gathering_since = None;
        while self.under_way.iter().any(|batch| batch.settled.is_none()) && !self.stopping() {
            #[cfg(feature = "sim")]
            if super::staged::pass(COMMIT_EVERY) {
                self.look();
                continue;
            }
            if let Ok((number, settled)) = self.settled.1.recv_timeout(COMMIT_EVERY) {
                self.note(number, settled);
            }
        }
        self.take_settled()?;
        self.under_way.clear();
        self.done = to.offset;
        self.committed = to;
        self.unsaved = 0;
        Ok(self.reader.seek(to.offset, to.replayed_until)?)
    }

    /// Dead letters, and other records, that an operator wants delivered again. They take at most
    /// half of the lane's time.
    fn try_again(&mut self, offsets: &[u64]) -> io::Result<()> {
        let began = Instant::now();
        for &offset in offsets {
            if began.elapsed() > COMMIT_EVERY / 2 || self.stopping() {
                return Ok(());
            }
            let Some(letter) = self.dead.get(offset).cloned() else { continue };
            let mut record = match self.reader.single(offset) {
                Ok(record) => record,
                Err(error) => {
                    let class = match error {
                        ReadError::Missing { .. } | ReadError::Deleted { .. } => "missing",
                        _ => "corrupt",
                    };
                    let (class, text) =
                        (class.to_owned(), format!("can no longer be read: {error}"));
                    self.dead.add([DeadLetter { class, text, ..letter }])?;
                    continue;
                }
            };
            if letter.class == REPLAY {
                let wait = self.parts.exporter.replay_wait(1);
                self.pause(wait);
            }
            if let SinkOptions::Relay(_) = self.parts.exporter.options.sink
                && let Some(pattern) = letter.rcpt.as_deref().and_then(|text| text.parse().ok())
            {
                RcptPattern::narrow(&pattern, &mut record);
            }
            let (exporter, stop) = (self.parts.exporter.clone(), self.parts.stop.clone());
            match block_on(&self.parts.runtime, settle(exporter, vec![record], stop)) {
                Settled::Done(letters) if letters.is_empty() => {
                    self.dead.settle(&[offset], Fate::Delivered)?;
                }
                Settled::Done(letters) => {
                    let rcpt = letter.rcpt;
                    let again = |dead| DeadLetter { rcpt: rcpt.clone(), ..dead };
                    self.dead.add(letters.into_iter().map(again))?;
                }
                Settled::Stopped => return Ok(()),
            }
        }
        Ok(())
    }

    /// Shows how far the lane is.
    fn tell(&self) {
        self.parts.exporter.sum_up(false);
        let mark = self.parts.marks.get(self.parts.shard);
        let gathered = self.gathering.records.first().map(|record| record.received_at);
        let oldest = self.under_way.iter().filter_map(|batch| batch.first_received).next();
        let place = Place {
            lag: mark
                .saturating_sub(self.done)
                .saturating_sub(self.left_out.count(self.done..mark)),
            oldest_pending: oldest.or(gathered),
            dead: self.dead.pending().filter(|letter| letter.class != REPLAY).count() as u64,
        };
        self.parts.exporter.place(self.parts.shard, place);
    }

    /// Waits for a mark, a settled batch, or the time.
    fn wait(&mut self, most: Duration) {
        #[cfg(feature = "sim")]
        if super::staged::sleep(most) {
            return;
        }
        let mut found = None;
        select! {
            recv(self.waiter.woken) -> _ => {}
            recv(self.settled.1) -> settled => found = settled.ok(),
            default(most) => {}
        }
        if let Some((number, settled)) = found {
            self.note(number, settled);
        }
    }

    /// Waits, unless it is to stop.
    fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let _ = self.waiter.woken.recv_timeout(left.min(Duration::from_millis(100)));
        }
    }
}

/// Waits for a future of the exporter's runtime.
fn block_on<T>(runtime: &Handle, work: impl Future<Output = T>) -> T {
    #[cfg(feature = "sim")]
    let work = match super::staged::block_on(work) {
        Ok(done) => return done,
        Err(work) => work,
    };
    runtime.block_on(work)
}

/// Where a lane begins.
fn place(parts: &Parts, found: Found) -> io::Result<Committed> {
    let (shard, mark) = (parts.shard, parts.marks.get(parts.shard));
    let name = parts.exporter.name();
    let fresh = |offset| Committed { offset, ..Committed::default() };
    // Not 0: what was deleted before this group was there is not missing in it. What was lost is.
    let start = || {
        let there = parts.log.segments(shard)?.first().map(|first| first.base_offset);
        let gaps = parts.log.gaps(shard)?;
        let lost = gaps.iter().find(|gap| gap.next_offset() > gap.first_offset);
        let lost = lost.map(|gap| gap.first_offset);
        io::Result::Ok(there.into_iter().chain(lost).min().unwrap_or(mark).min(mark))
    };
    match found {
        Found::Committed(at) if at.offset > mark => {
            // A log that was put back from a copy, or lost its end: what comes now is new.
            let (offset, exporter) = (at.offset, name);
            tracing::error!(
                exporter,
                shard,
                offset,
                mark,
                "the committed offset is beyond the end of the log: starting at the end"
            );
            Ok(fresh(mark))
        }
        Found::Committed(at) => Ok(at),
        Found::Damaged => {
            tracing::error!(
                exporter = name,
                shard,
                "the offset file is missing or damaged: starting at the start of the log"
            );
            Ok(fresh(start()?))
        }
        Found::Fresh => Ok(fresh(match parts.exporter.options.start {
            Start::Committed | Start::Start => start()?,
            Start::End => mark,
            Start::Time(time) => parts.log.offset_at(shard, time)?.min(mark),
        })),
    }
}
