//! The shard's end of the log: records in, operations out, replies that wait for them, failures.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    time::Duration,
};

use super::{
    Key, Services, Submission,
    connection::{Connection, Phase},
    rest::Rest,
    supply::Supply,
};
use crate::{
    log::{Appender, GroupBuffer, LogEvent, Offset, Op, Seal, Spare},
    metrics::{LogOp, ShardState},
    shard::flight::Kind,
    smtp::Refusal,
};

/// Octets waiting for a sync at which reading stops, well below the 64 MiB that the log takes: what
/// is being received still finds room. A disk of 1 GB/s writes as much within a sync of 16 ms.
const BACKLOG_BYTES: usize = 16 << 20;

/// A message in the log whose 250 is held until its offset lies below the high-water mark.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) offset: Offset,
    pub(super) key: Key,
    pub(super) listener: u16,
    pub(super) ended: Duration,
    pub(super) began: Duration,
    pub(super) bytes: u64,
    pub(super) recipients: u64,
    pub(super) failed: bool,
}

/// The shard's log, and every message that is not durable yet: collected, or held.
pub(super) struct Commit {
    pub(super) appender: Appender,
    /// In the order of their offsets.
    waiting: VecDeque<Waiting>,
    rest: Rest,
    supply: Supply,
    /// Messages in progress that have mail data in the log, by the segment of its first.
    pub(super) unfinished: BTreeMap<u64, u32>,
    /// Seals that are not durable yet: number, and the first segment that holds mail data of its
    /// records. Until they are, retention cannot know that.
    pub(super) sealing: Vec<(u64, u64)>,
    /// Octets of memory that messages in progress hold.
    pub(super) collected_bytes: u64,
    /// Forward-paths of the message at hand, as the record has them.
    pub(super) packed: String,
    /// The last write with a sync linked to it, and that sync.
    linked: Option<(u64, u64)>,
    /// A sync that never begins: the write before it failed.
    cancelled: Option<u64>,
}

impl Commit {
    /// Nothing is under way.
    pub(super) fn new(appender: Appender, supply: Supply) -> Self {
        Self {
            appender,
            waiting: VecDeque::new(),
            rest: Rest::default(),
            supply,
            unfinished: BTreeMap::new(),
            sealing: Vec::new(),
            collected_bytes: 0,
            packed: String::new(),
            linked: None,
            cancelled: None,
        }
    }

    /// Octets received and not yet durable.
    pub(super) fn memory(&self) -> u64 {
        self.collected_bytes + self.appender.unsynced_bytes() as u64
    }

    /// No message in progress holds memory.
    pub(super) fn collects_nothing(&self) -> bool {
        self.collected_bytes == 0
    }

    /// The log gave up after repeated failures.
    pub(super) fn is_read_only(&self) -> bool {
        self.appender.read_only()
    }

    /// New mail is refused for want of space (D9).
    pub(super) fn is_disk_full(&self) -> bool {
        self.supply.disk_full
    }

    /// Octets that a message may have before the disk counts as full.
    pub(super) fn room(&self) -> u64 {
        self.supply.room
    }

    /// Whether the disk does not keep up: `turn` octets more may find no room. `false` where there
    /// will be no room: mail is read and refused then.
    pub(super) fn is_behind(&self, turn: u64) -> bool {
        let turn = turn.min(self.supply.bytes() / 4);
        self.appender.unsynced_bytes() > BACKLOG_BYTES
            || !self.appender.has_room(turn) && !self.is_read_only() && !self.is_disk_full()
    }

    /// Whether every record is synced, and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.appender.is_idle()
    }

    /// Holds the 250 of a message. Only [`super::Shard`] lets it go, as the mark moves.
    pub(super) fn hold(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// How long the next turn waits for answers, and for how many.
    pub(super) fn rests(&self) -> Option<(Duration, usize)> {
        self.rest.wait()
    }

    /// How long the older half of what waits for its sync has waited, at least.
    pub(super) fn wait_of_half(&self, now: Duration) -> Duration {
        let half = self.waiting.get(self.waiting.len() / 2);
        half.map_or(Duration::ZERO, |waiting| now.saturating_sub(waiting.ended))
    }

    /// The offsets whose messages have waited too long, `late` says for which. In order of arrival:
    /// the first that is in time ends the search.
    pub(super) fn overdue(&self, late: impl Fn(&Waiting) -> bool) -> Option<(Offset, Offset)> {
        let from = self.waiting.front()?.offset;
        let to = self.waiting.iter().take_while(|waiting| late(waiting)).last()?;
        Some((from, to.offset.next()))
    }

    /// The next message below the mark.
    pub(super) fn pop_below(&mut self, mark: Offset) -> Option<Waiting> {
        let waiting = self.waiting.pop_front_if(|waiting| waiting.offset < mark)?;
        // The promise (D1), at the end where the reply is let go.
        assert!(waiting.offset < self.appender.high_water_mark(), "a 250 is a synced record");
        Some(waiting)
    }

    /// Marks the next of these offsets as failed, from place `at` of the queue on, which moves past
    /// it; returns whose it is.
    pub(super) fn fail_next(&mut self, at: &mut usize, from: Offset, to: Offset) -> Option<Key> {
        let range = from..to;
        let mut waiting = self.waiting.iter_mut().enumerate().skip(*at);
        let (place, next) =
            waiting.find(|(_, waiting)| !waiting.failed && range.contains(&waiting.offset))?;
        *at = place + 1;
        next.failed = true;
        Some(next.key)
    }

    /// Nobody waits for what failed at the front of the queue.
    pub(super) fn drop_failed(&mut self, to: Offset) {
        while self.waiting.pop_front_if(|w| w.failed && w.offset < to).is_some() {}
    }

    /// Whether groups may be written in this turn; `released` replies were let go in it.
    pub(super) fn may_write(&mut self, released: u64) -> bool {
        let end = self.appender.log_end_offset().get();
        if self.rest.is_under_way() {
            self.rest.after_turn(end);
        } else if released > 0 {
            self.rest.after_commit(released, end);
        }
        !self.rest.is_under_way()
    }

    /// Whether the first segment is at hand.
    pub(super) fn has_segment(&self) -> bool {
        self.appender.has_segment()
    }

    /// Why the last segment could not be made.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.supply.take_failure()
    }

    /// The first segment that messages in progress, and those not in a sealed segment, need.
    pub(super) fn needs_from(&self) -> u64 {
        let unfinished = self.unfinished.first_key_value();
        let unfinished = unfinished.map_or(u64::MAX, |(segment, _)| *segment);
        let sealing = self.sealing.iter().map(|(_, reach)| *reach).min().unwrap_or(u64::MAX);
        unfinished.min(sealing).min(self.appender.reach())
    }

    /// Closes the log, where it is at rest.
    pub(super) fn finish(mut self) -> Finished {
        match self.appender.is_idle() {
            true => Finished::AtRest(self.appender.seal()),
            false => Finished::InTheMiddle,
        }
    }
}

/// How a shard leaves its log.
#[derive(Debug)]
pub enum Finished {
    /// Every record is synced; this seal is the last, where a segment was begun.
    AtRest(Option<Seal>),
    /// Operations are under way: recovery looks at the next start.
    InTheMiddle,
}

impl Services {
    /// Asks for a segment where one is wanted.
    pub(super) fn order_segment(&mut self) {
        if !self.commit.appender.wants_segment() {
            return;
        }
        let (number, failed) = self.commit.supply.want(self.now);
        if failed {
            self.counters.stats.log_errors.increment(LogOp::Allocate);
        }
        if let Some(number) = number {
            let bytes = self.commit.supply.bytes();
            self.submit(Submission::Prepare { number, bytes });
        }
    }

    /// Begins the log's operations.
    pub(super) fn write_groups(&mut self) {
        while let Some(op) = self.commit.appender.poll_op() {
            if let Op::Write { op, position, buffer, then_sync, .. } = &op {
                self.commit.linked = then_sync.map(|sync| (*op, sync)).or(self.commit.linked);
                if self.commit.supply.hurries(position + buffer.len() as u64) {
                    self.submit(Submission::Hurry);
                }
            }
            self.submit(Submission::Log(op));
        }
    }

    pub(super) fn written(
        &mut self,
        op: u64,
        buffer: GroupBuffer,
        result: io::Result<usize>,
        took: Duration,
    ) {
        // A short write is a failed one.
        let good = result.as_ref().is_ok_and(|written| *written == buffer.len());
        self.counters.written(buffer.len() as u64, took, good);
        self.record(Kind::Written, 0, u16::from(good), buffer.len() as u64);
        if let Some((write, sync)) = self.commit.linked
            && write == op
            && !good
        {
            self.commit.cancelled = Some(sync);
        }
        self.commit.appender.handle_write(op, buffer, result, self.now);
    }

    pub(super) fn synced(&mut self, op: u64, result: io::Result<()>, took: Duration) {
        if self.commit.cancelled != Some(op) {
            self.counters.synced(took, result.is_ok());
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.record(Kind::Synced, 0, u16::from(result.is_ok()), micros);
        }
        self.commit.appender.handle_sync(op, result, self.now);
    }

    /// A segment was made, or could not be.
    pub(super) fn segment_made(&mut self, made: io::Result<Spare>) {
        match self.commit.supply.made(made) {
            Some(spare) => self.commit.appender.handle_segment(spare),
            None => self.shared.disk(self.commit.supply.disk_full),
        }
    }

    /// The free space was looked at.
    pub(super) fn space(&mut self, full: bool, room: u64) {
        self.commit.supply.disk_full = full;
        self.commit.supply.room = room;
        self.shared.disk(full);
    }

    /// What the log's events ask for, those aside that concern held replies.
    pub(super) fn log_event(&mut self, event: LogEvent) -> Option<Moved> {
        match event {
            LogEvent::Advanced(mark) => {
                let end = self.commit.appender.log_end_offset();
                assert!(mark <= end, "high-water mark <= log end offset");
                return Some(Moved::Advanced(mark));
            }
            LogEvent::Failed { from, to } => return Some(Moved::Failed { from, to }),
            LogEvent::Sealed(seal) => {
                self.commit.sealing.push((seal.number, seal.reach.unwrap_or(0)));
                self.submit(Submission::Seal(Box::new(seal)));
            }
            LogEvent::Indexed(entry) => self.submit(Submission::Index(entry)),
            LogEvent::Poisoned { segment, error } => self.poisoned(segment, &error),
        }
        None
    }

    /// Releases the 250 of a message; `false`: its peer is gone. The record stays (RFC 1047
    /// describes the duplicate that this makes).
    pub(super) fn release(
        &mut self,
        connection: &mut Connection,
        waiting: Waiting,
        mark: Offset,
    ) -> bool {
        let Connection { link, dialogue, .. } = connection;
        if link.phase == Phase::Dead {
            return false;
        }
        let released = dialogue.replies.release(mark.get());
        let place = dialogue.place();
        self.counters.smtp[place].count_replies(250, released.replies as u64);
        link.released = true;
        let taken = &mut dialogue.taken;
        taken.messages = taken.messages.saturating_add(1);
        let recipients = u32::try_from(waiting.recipients).unwrap_or(u32::MAX);
        taken.recipients = taken.recipients.saturating_add(recipients);
        taken.bytes += waiting.bytes;
        self.counters.received(
            dialogue.place(),
            waiting.bytes,
            waiting.recipients,
            self.now.saturating_sub(waiting.ended),
            self.now.saturating_sub(waiting.began),
        );
        self.outgoing.touch(waiting.key, link);
        let (commit, took) = (waiting.ended, waiting.began);
        let since = |time: Duration| self.now.saturating_sub(time);
        self.mail_stored(dialogue, waiting.offset, since(commit), since(took));
        true
    }

    /// The held replies of these offsets turn into a refusal.
    pub(super) fn fail_replies(
        &mut self,
        key: Key,
        connection: &mut Connection,
        (from, to): (Offset, Offset),
        refusal: Refusal,
    ) {
        let Connection { link, dialogue, .. } = connection;
        let place = dialogue.place();
        let failed = dialogue.replies.fail(from.get()..to.get(), refusal);
        for _ in 0..failed.holds {
            self.counters.smtp[place].count_rejected(refusal.code(), refusal.reason());
        }
        self.counters.smtp[place].count_replies(refusal.code(), failed.replies as u64);
        link.released = true;
        self.outgoing.touch(key, link);
    }

    /// D5: the segment is left for good.
    fn poisoned(&mut self, segment: u64, error: &io::Error) {
        self.record(Kind::Poisoned, 0, 0, segment);
        tracing::error!(segment, %error, "a write or sync failed: this log segment is closed and \
            a new one is opened");
        if self.tuning.aborts_on_io_error() {
            self.submit(Submission::Abort);
            return;
        }
        if self.commit.is_read_only() {
            tracing::error!("three failures within ten minutes: no more mail is accepted");
            self.shared.published.set_state(ShardState::Failed);
        }
    }
}

/// What moved in the log.
pub(super) enum Moved {
    /// Every 250 below may go.
    Advanced(Offset),
    /// These will never be acknowledged.
    Failed { from: Offset, to: Offset },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Identity, Options};

    /// Retention must not delete what a segment reaches back to before it can know of it.
    #[test]
    fn a_seal_that_is_not_durable_holds_what_it_reaches() {
        let identity = Identity { node: [1; 6], shard: 0 };
        let appender = Appender::new(identity, Options::default(), Offset::new(0));
        let mut commit = Commit::new(appender, Supply::new(1 << 20, 1));
        assert_eq!(commit.needs_from(), u64::MAX);
        commit.sealing.extend([(5, 4), (6, 6)]);
        assert_eq!(commit.needs_from(), 4);
        commit.sealing.retain(|(number, _)| *number != 5);
        assert_eq!(commit.needs_from(), 6);
    }
}
