//! The log: operations under way, marks, failures.

use std::{io, time::Duration};

use super::{Shard, Submission, connection::Phase};
use crate::{
    log::{GroupBuffer, LogEvent, Offset, Op, Spare},
    metrics::ShardState,
    smtp::Refusal,
};

impl Shard {
    pub(super) fn serve_log(&mut self) {
        if self.appender.wants_segment() {
            let (number, failed) = self.supply.want(self.now);
            if failed {
                self.counters.no_segment();
            }
            if let Some(number) = number {
                let bytes = self.supply.bytes();
                self.submit(Submission::Prepare { number, bytes });
            }
        }
        let end = self.appender.log_end_offset().get();
        let released = self.log_events();
        if self.rest.is_under_way() {
            self.rest.after_turn(end);
        } else if released > 0 {
            self.rest.after_commit(released, end);
        }
        if self.rest.is_under_way() {
            return;
        }
        while let Some(op) = self.appender.poll_op() {
            match op {
                Op::Write { op, segment, position, buffer, then_sync } => {
                    if self.supply.hurries(position + buffer.len() as u64) {
                        self.submit(Submission::Hurry);
                    }
                    self.submit(Submission::Write { op, segment, position, buffer, then_sync });
                }
                Op::Sync { op, segment } => self.submit(Submission::Sync { op, segment }),
            }
        }
        self.log_events();
    }

    pub(super) fn written(
        &mut self,
        op: u64,
        buffer: GroupBuffer,
        result: io::Result<usize>,
        took: Duration,
    ) {
        self.counters.written(buffer.len() as u64, took, result.is_ok());
        self.appender.handle_write(op, buffer, result, self.now);
    }

    pub(super) fn synced(&mut self, op: u64, result: io::Result<()>, took: Duration) {
        self.counters.synced(took, result.is_ok());
        self.appender.handle_sync(op, result, self.now);
    }

    /// A segment was made, or could not be.
    pub(super) fn segment_made(&mut self, made: io::Result<Spare>) {
        match self.supply.made(made) {
            Some(spare) => self.appender.handle_segment(spare),
            None => self.shared.disk(self.supply.disk_full),
        }
    }

    /// The free space was looked at.
    pub(super) fn space(&mut self, full: bool, room: u64) {
        self.supply.disk_full = full;
        self.supply.room = room;
        self.shared.disk(full);
    }

    /// Does what the log's events ask for; returns how many replies were let go.
    fn log_events(&mut self) -> u64 {
        let mut released = 0;
        while let Some(event) = self.appender.poll_event() {
            match event {
                LogEvent::Advanced(mark) => released += self.advanced(mark),
                LogEvent::Failed { from, to } => self.failed(from, to, Refusal::LogFailed),
                LogEvent::Sealed(seal) => self.submit(Submission::Seal(seal)),
                LogEvent::Indexed(entry) => self.submit(Submission::Index(entry)),
                LogEvent::Poisoned { segment, error } => {
                    self.poisoned(segment, &error);
                }
            }
        }
        released
    }

    /// The high-water mark moved: every 250 below it may go. Returns how many.
    fn advanced(&mut self, mark: Offset) -> u64 {
        assert!(mark <= self.appender.log_end_offset(), "high-water mark <= log end offset");
        let mut records = 0;
        while let Some(waiting) = self.waiting.pop_front_if(|w| w.offset < mark) {
            // The promise (D1), at the end where the reply is let go.
            assert!(waiting.offset < self.appender.high_water_mark(), "a 250 is a synced record");
            records += 1;
            if waiting.failed {
                continue;
            }
            let Some(mut connection) = self.take(waiting.key) else {
                // The peer is gone: the record stays (RFC 1047 tells of the duplicate it makes).
                self.counters.undelivered(usize::from(waiting.listener));
                continue;
            };
            if connection.phase == Phase::Dead {
                self.counters.undelivered(usize::from(waiting.listener));
                self.put(waiting.key, connection);
                continue;
            }
            connection.replies.release(mark.get());
            connection.released = true;
            let taken = connection.taken.get_or_insert_default();
            taken.messages += 1;
            taken.recipients = taken.recipients.saturating_add(waiting.recipients as u32);
            taken.bytes += waiting.bytes;
            self.counters.received(
                usize::from(connection.listener),
                waiting.bytes,
                waiting.recipients,
                self.now.saturating_sub(waiting.ended),
                self.now.saturating_sub(waiting.began),
            );
            self.put(waiting.key, connection);
            self.touch(waiting.key);
        }
        self.counters.batch(records);
        self.shared.advanced(mark.get());
        records
    }

    /// Offsets `from..to` will never be acknowledged.
    pub(super) fn failed(&mut self, from: Offset, to: Offset, refusal: Refusal) {
        for at in 0..self.waiting.len() {
            let waiting = &mut self.waiting[at];
            if waiting.offset < from || waiting.offset >= to || waiting.failed {
                continue;
            }
            waiting.failed = true;
            let key = waiting.key;
            if let Some(mut connection) = self.take(key) {
                let listener = usize::from(connection.listener);
                for _ in 0..connection.replies.fail(from.get()..to.get(), refusal) {
                    self.counters.smtp[listener].count_rejected(refusal.code(), refusal.reason());
                }
                connection.released = true;
                self.put(key, connection);
                self.touch(key);
            }
        }
        while self.waiting.pop_front_if(|w| w.failed && w.offset < to).is_some() {}
    }

    /// D5: the segment is left for good.
    fn poisoned(&mut self, segment: u64, error: &io::Error) {
        tracing::error!(segment, %error, "log segment poisoned, a new one is opened");
        if self.options.abort_on_io_error {
            self.submit(Submission::Abort);
            return;
        }
        if self.appender.read_only() {
            tracing::error!("three failures within ten minutes: no more mail is taken");
            self.shared.published.set_state(ShardState::Failed);
        }
    }
}
