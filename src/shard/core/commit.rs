//! The log: operations under way, marks, failures.

use super::{Driver, LOG_SYNC, LOG_WRITE, log_token};
use crate::{
    log::{LogEvent, Offset, Op},
    metrics::ShardState,
    shard::connection::Phase,
    smtp::Refusal,
};

impl Driver {
    pub(super) fn serve_log(&mut self) {
        while let Some(spare) = self.segments.poll_spare() {
            self.appender.handle_segment(spare);
        }
        if self.appender.wants_segment() && self.segments.want(self.now) {
            self.counters.no_segment();
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
                Op::Write { op, segment, position, ptr, len, then_sync } => {
                    let file = self.segments.file(segment);
                    let at = self.started.elapsed();
                    self.counters.began(op, at, len as u64);
                    if let Some(sync) = then_sync {
                        self.counters.began(sync, at, 0);
                    }
                    self.segments.written_to(position + len as u64);
                    let len = u32::try_from(len).expect("a group is smaller than 4 GiB");
                    let then_sync = then_sync.map(|sync| log_token(LOG_SYNC, sync));
                    // SAFETY: the appender keeps the buffer until `handle_write`.
                    unsafe {
                        self.ring.write(
                            file,
                            position,
                            ptr,
                            len,
                            log_token(LOG_WRITE, op),
                            then_sync,
                        );
                    }
                }
                Op::Sync { op, segment } => {
                    let file = self.segments.file(segment);
                    self.counters.began(op, self.started.elapsed(), 0);
                    self.ring.sync(file, log_token(LOG_SYNC, op));
                }
            }
        }
        self.log_events();
    }

    /// Does what the log's events ask for; returns how many replies were let go.
    fn log_events(&mut self) -> u64 {
        let mut released = 0;
        while let Some(event) = self.appender.poll_event() {
            match event {
                LogEvent::Advanced(mark) => released += self.advanced(mark),
                LogEvent::Failed { from, to } => self.failed(from, to, Refusal::LogFailed),
                LogEvent::Sealed(seal) => self.segments.sealed(seal),
                LogEvent::Indexed(entry) => self.segments.index(entry),
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
            taken.recipients += waiting.recipients as u32;
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
    fn poisoned(&mut self, segment: u64, error: &std::io::Error) {
        tracing::error!(segment, %error, "log segment poisoned, a new one is opened");
        if self.options.abort_on_io_error {
            tracing::error!("log.on_io_error = \"abort\": the process ends");
            // The thread that writes the log takes these lines within this time.
            std::thread::sleep(std::time::Duration::from_millis(200));
            std::process::abort();
        }
        if self.appender.read_only() {
            tracing::error!("three failures within ten minutes: no more mail is taken");
            self.shared.published.set_state(ShardState::Failed);
        }
    }
}
