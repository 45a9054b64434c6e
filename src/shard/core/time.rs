//! Deadlines, drain, the tick.

use std::{mem, time::Duration};

use super::{
    Key, LINGER, SEND_WAIT, Shard, Submission, Waiting,
    connection::{Connection, Phase},
};
use crate::{
    metrics::{CloseReason, RefuseReason, ShardState},
    smtp::{Event, Refusal},
};

impl Shard {
    pub(super) fn tick(&mut self) {
        let passed = self.now.saturating_sub(self.last_tick);
        if self.held_up {
            self.counters.paused(passed, self.log_full());
        }
        self.last_tick = self.now;
        if self.now >= self.accept_at {
            for listener in mem::take(&mut self.accept_again) {
                if self.draining.is_none() {
                    self.accept(listener);
                }
            }
        }
        let mut due = mem::take(&mut self.due);
        self.wheel.advance(self.now, &mut due);
        for key in due.drain(..) {
            let Some(mut connection) = self.take(key) else { continue };
            self.deadline(key, &mut connection);
            self.put(key, connection);
            self.touch(key);
        }
        self.due = due;
        self.tell_suppressed();
        self.take_settings();
        self.weigh(passed);
        // Commit wait: the sender is told to try again long before it gives up by itself.
        self.fail_overdue();
        if !self.paused.is_empty() {
            self.resume();
        }
        if self.shared.drain_wanted() && self.draining.is_none() {
            self.drain();
        }
        self.publish();
    }

    fn fail_overdue(&mut self) {
        // In order of arrival: the first that is in time ends the search.
        let listeners = &self.listeners;
        let late = |w: &&Waiting| {
            let wait = listeners[usize::from(w.listener)].smtp.limits.commit_wait;
            w.ended + wait <= self.now
        };
        let overdue = self.waiting.iter().take_while(late).last().map(|w| w.offset.next());
        if let (Some(to), Some(first)) = (overdue, self.waiting.front().map(|w| w.offset)) {
            self.failed(first, to, Refusal::Timeout);
        }
    }

    pub(super) fn deadline(&mut self, key: Key, connection: &mut Connection) {
        match connection.phase {
            Phase::Dead => return,
            _ if self.now < connection.due => return,
            Phase::Lingering if self.now >= connection.sent_at + LINGER => {
                self.shut(connection);
                return;
            }
            Phase::Lingering => {
                self.enter(key, connection, connection.sent_at + LINGER);
                return;
            }
            Phase::Closing | Phase::Open => {}
        }
        if self.handshake_overdue(connection) || self.header_overdue(connection) {
            return;
        }
        if connection.send_under_way && self.now >= connection.sent_at + SEND_WAIT {
            self.broken(connection, CloseReason::Timeout);
            return;
        }
        self.greet(key, connection);
        // One that waits for its answer is not read either.
        let counts = connection.paused.is_none() || connection.session.is_waiting_for_auth();
        let over =
            self.now >= connection.session.deadline() && counts && connection.greeting.is_none();
        if connection.phase == Phase::Open && over {
            let event =
                self.with_session(connection, |session, context| session.handle_deadline(context));
            if let Event::Close = event {
                self.discard(connection);
                connection.phase = Phase::Closing;
                connection.reason = CloseReason::Timeout;
            }
        }
        let next = if connection.phase == Phase::Open {
            self.due(connection)
        } else {
            self.now + Duration::from_secs(1)
        };
        self.enter(key, connection, next);
    }

    /// A new command or block may have a nearer deadline than the one before it.
    pub(super) fn arm(&mut self, key: Key, connection: &mut Connection) {
        let next = self.due(connection);
        if connection.phase == Phase::Open && next < connection.due {
            self.enter(key, connection, next);
        }
    }

    /// When to look at an open connection again.
    pub(super) fn due(&self, connection: &Connection) -> Duration {
        let own = connection.greeting.as_ref().map_or(connection.session.deadline(), |g| g.at());
        let due = own.min(self.now + SEND_WAIT);
        let others = [self.handshake_deadline(connection), self.header_deadline(connection)];
        others.into_iter().flatten().fold(due, Duration::min)
    }

    pub(super) fn enter(&mut self, key: Key, connection: &mut Connection, due: Duration) {
        connection.due = due;
        self.wheel.enter(key, due);
    }

    /// D16: no new connections, transactions in progress may finish, the rest gets 421.
    pub(super) fn drain(&mut self) {
        self.draining = Some(self.now);
        self.shared.published.set_state(ShardState::Draining);
        self.listeners_close();
    }

    pub(super) fn listeners_close(&mut self) {
        for listener in 0..self.listeners.len() as u32 {
            self.submit(Submission::CloseListener { listener });
        }
    }

    /// Whether a drain has come to its end: every session is over and every record synced, or the
    /// time allowed is used up.
    pub(super) fn drained(&mut self) -> bool {
        let Some(since) = self.draining else { return false };
        let waited = self.now.saturating_sub(since);
        let over = waited >= self.options.drain || self.shared.hurry_wanted();
        for index in 0..self.connections.len() {
            let Some(key) = self.connections[index]
                .as_ref()
                .filter(|c| {
                    c.phase == Phase::Open
                        && (over || !c.session.is_in_mail_data())
                        && c.replies.held() == 0
                })
                .map(|c| Key { index: index as u32, generation: c.generation })
            else {
                continue;
            };
            let Some(mut connection) = self.take(key) else { continue };
            if connection.awaits_header() || connection.greeting.is_some() {
                self.counters.refused(usize::from(connection.listener), RefuseReason::Draining);
            }
            if !connection.awaits_header() {
                self.with_session(&mut connection, |session, context| {
                    session.handle_drain(context);
                });
            }
            self.discard(&mut connection);
            connection.phase = Phase::Closing;
            connection.reason = CloseReason::Draining;
            self.put(key, connection);
            self.touch(key);
        }
        let idle = self.waiting.is_empty() && self.appender.is_idle();
        idle && (self.open == 0 || self.now.saturating_sub(since) >= self.options.drain + LINGER)
    }

    /// Shows other threads how far the shard is.
    pub(super) fn publish(&mut self) {
        // Recovery's mark, before the first commit.
        self.shared.advanced(self.appender.high_water_mark().get());
        let unfinished =
            self.unfinished.first_key_value().map_or(u64::MAX, |(segment, _)| *segment);
        self.shared.needs_segments_from(unfinished.min(self.appender.reach()));
        let certificates = self.listeners.iter().map(|listener| listener.tls.as_ref());
        for (at, config) in certificates.enumerate().filter_map(|(at, tls)| Some((at, tls?))) {
            self.counters.certificate(at, config.not_after());
        }
        let Self { counters, appender, shared, collected_bytes, limits, .. } = self;
        shared.published.beat(|heartbeats| {
            counters.snapshot(appender, *collected_bytes, limits.inflight_bytes, heartbeats)
        });
    }
}
