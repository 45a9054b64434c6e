//! A shard without a kernel: every connection of a core and its log, sans-IO.
//!
//! Completions and the time come in, submissions go out (`seam`). In a turn every completion is
//! processed, then [`Shard::handle_tick`] starts the writes of gathered groups (unless the commit
//! rests), looks at the deadlines and sends every reply that may be sent. All state lives here, on
//! one thread: no locks and no atomics on the path of a message. This room names no runtime, no
//! clock and no system call.

mod acceptor;
mod addresses;
mod advice;
mod buffer;
mod client;
mod commit;
mod connection;
mod counters;
mod deadlines;
mod drain;
mod events;
mod failures;
mod follow;
mod gatekeeper;
mod greeting;
mod intake;
mod judged;
mod mail;
mod outgoing;
mod overload;
pub mod proxy;
mod rest;
mod seam;
mod serve;
mod services;
mod slab;
mod supply;
#[cfg(test)]
mod tests;
mod tls;
mod tuning;
mod wheel;

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use self::{
    acceptor::Acceptor,
    commit::{Commit, Moved},
    connection::Connection,
    counters::Counters,
    deadlines::Deadlines,
    events::Throttle,
    gatekeeper::Gatekeeper,
    intake::Starved,
    outgoing::Outgoing,
    services::Services,
    slab::Slab,
    supply::Supply,
    tls::Handshakes,
    tuning::{Retuned, Tuning},
};
pub use self::{
    buffer::{ReceiveBuffer, Returns},
    commit::Finished,
    connection::UNIX_PEER,
    seam::{AcceptError, Arrival, Completion, Key, Now, ReceiveError, Side, SocketId, Submission},
};
use super::{Gate, Options, SharedState, flight::Kind, trace::Tracer};
use crate::{
    log::{Appender, Offset},
    metrics::ShardState,
    smtp::{self, Refusal},
};

/// Width of a tick, and the longest sleep of a shard that has mail under way.
pub const TICK: Duration = Duration::from_millis(5);

/// Longest sleep of a shard with nothing under way. What comes from clients and advisors wakes it;
/// only deadlines, counts of slots of 250 ms, and its heartbeat wait for it.
pub const IDLE: Duration = Duration::from_millis(25);

/// A turn that takes longer stands in the flight recorder.
const STALL: Duration = Duration::from_millis(10);

/// How long a connection that was closed on our side may keep sending.
const LINGER: Duration = Duration::from_secs(2);

/// What a shard is made with.
pub struct Parts {
    /// Places that are listened at, by their numbers in the seam.
    pub listeners: Vec<Listener>,
    /// Its log.
    pub appender: Appender,
    /// Number of the first segment to be made.
    pub next_segment: u64,
    /// What others may know of it, and ask.
    pub shared: Arc<SharedState>,
    /// See [`Options`].
    pub options: Options,
    /// Random octets for secrets; `None`: there are none.
    pub entropy: Entropy,
    /// Octets that recovery cut off.
    pub truncated_bytes: u64,
    /// Records that recovery found to be lost.
    pub lost_records: u64,
}

/// Random octets for secrets.
pub type Entropy = Box<dyn FnMut() -> Option<[u8; 18]>>;

/// A place that is listened at.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The `listener` label of the metrics.
    pub name: String,
    /// Options of its sessions.
    pub smtp: Arc<smtp::Config>,
    /// Its TLS; `None` if [`smtp::Config::tls`] is off.
    pub tls: Option<Arc<crate::tls::Config>>,
    /// What comes before the greeting.
    pub gate: Arc<Gate>,
}

/// How long the driver of a shard may sleep before its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// At most this long.
    pub at_most: Duration,
    /// Until this many operations have ended, in addition to those that are submitted with it.
    pub answers: usize,
    /// Nothing is being written or synced.
    pub idle: bool,
}

/// See the module's page.
pub struct Shard {
    connections: Slab,
    services: Services,
    last_tick: Duration,
}

impl Shard {
    /// A shard that takes no connections yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { listeners, appender, shared, options, entropy, .. } = parts;
        let names: Vec<_> = listeners.iter().map(|listener| listener.name.as_str()).collect();
        let mut counters = Counters::new(options.shard, &names);
        counters.recovered(parts.truncated_bytes, parts.lost_records);
        let supply = Supply::new(options.segment_bytes, parts.next_segment);
        let tuning = Tuning::new(&options, &listeners);
        let tracer = Tracer::new(shared.traces.clone());
        let events = Throttle::new(shared.refusals.clone());
        let mut services = Services {
            tracer,
            now: Duration::ZERO,
            submissions: VecDeque::new(),
            listeners,
            shared,
            advisor: options.advisor,
            entropy,
            acceptor: Acceptor::default(),
            gatekeeper: Gatekeeper::default(),
            starved: Starved::default(),
            outgoing: Outgoing::default(),
            commit: Commit::new(appender, supply),
            deadlines: Deadlines::new(),
            tuning,
            handshakes: Handshakes::default(),
            counters,
            events,
            asking: Vec::new(),
            draining: None,
        };
        services.apply_limits();
        Self { connections: Slab::default(), services, last_tick: Duration::ZERO }
    }

    /// Begins to take connections.
    pub fn serve_listeners(&mut self) {
        for listener in 0..self.services.listeners.len() as u32 {
            self.services.accept(listener);
        }
        self.services.shared.published.set_state(ShardState::Serving);
    }

    /// The next operation that is to be done. Ask until there is none.
    pub fn poll_submission(&mut self) -> Option<Submission> {
        self.services.submissions.pop_front()
    }

    /// How long to sleep before the next turn, once all submissions are taken.
    #[must_use]
    pub fn patience(&self) -> Patience {
        let Services { outgoing, commit, starved, acceptor, tuning, draining, .. } = &self.services;
        let idle = commit.is_idle();
        let waits = !outgoing.is_dirty() && starved.is_empty() && !acceptor.has_waiting();
        if let Some((at_most, answers)) = commit.rests().filter(|_| waits) {
            return Patience { at_most, answers, idle };
        }
        let still = idle && !tuning.holds_any() && draining.is_none();
        let at_most = match (waits, outgoing.defers()) {
            (false, _) => Duration::ZERO,
            (true, true) => Duration::from_millis(1),
            (true, false) if still => IDLE,
            (true, false) => TICK,
        };
        Patience { at_most, answers: 0, idle }
    }

    /// Whether it matters for a connection of this peer that it has sent something before it is
    /// greeted: [`Arrival::talks`].
    #[must_use]
    pub fn wants_first_look(&self, listener: u32, peer: SocketAddr) -> bool {
        self.services.wants_first_look(listener, peer)
    }

    /// An operation ended. [`Shard::handle_tick`] follows once all completions are handed over.
    pub fn handle_completion(&mut self, now: Now, completion: Completion) {
        self.set_time(now);
        let services = &mut self.services;
        match completion {
            Completion::Accepted { listener, more, result } => {
                services.accepted(listener, more, result);
            }
            Completion::Received { key, more, result } => {
                self.with(key, |services, connection| {
                    services.received(key, connection, more, result);
                });
            }
            Completion::Sent { key, octets, result } => {
                self.with(key, |services, connection| {
                    services.sent(key, connection, octets, result);
                });
            }
            Completion::HungUp { key, gone } => {
                self.with(key, |services, connection| services.hung_up(connection, gone));
            }
            Completion::Written { op, buffer, result, took } => {
                services.written(op, buffer, result, took);
            }
            Completion::Synced { op, result, took } => services.synced(op, result, took),
            Completion::Sealed(number) => {
                services.commit.appender.handle_sealed(number);
                services.commit.sealing.retain(|(sealing, _)| *sealing != number);
            }
            Completion::Segment(made) => services.segment_made(made),
            Completion::Space { full, room } => services.space(full, room),
        }
    }

    /// The end of a turn: the log's operations, deadlines, replies that may go. At least once each
    /// [`TICK`].
    pub fn handle_tick(&mut self, now: Now) {
        self.set_time(now);
        while let Some((key, answer)) = self.services.shared.answers.pop() {
            self.with(key, |services, connection| services.answered(key, connection, answer));
        }
        for (listener, arrival) in self.services.acceptor.take_turn() {
            if let Some(connection) = self.services.admit_arrival(listener, arrival) {
                let key = self.connections.insert(connection);
                self.with(key, |services, connection| services.begin(key, connection));
            }
        }
        self.serve_log();
        let services = &self.services;
        if services.tuning.held_up && !services.log_full() && !services.memory_full() {
            self.resume();
        }
        if self.services.now.saturating_sub(self.last_tick) >= TICK {
            self.tick();
        }
        while let Some(key) = self.services.asking.pop() {
            self.with(key, |services, connection| services.ask_for(key, connection));
        }
        for key in self.services.starved.take_turn() {
            self.with(key, |services, connection| {
                services.receive_again(key, &mut connection.link);
            });
        }
        self.flush();
        if self.services.draining.is_some() {
            let over = self.services.drain_is_over();
            self.each(|services, key, connection| services.drain_one(key, connection, over));
        }
    }

    /// A turn with something to do took so long.
    pub fn note_turn(&mut self, took: Duration) {
        self.services.counters.turn(took);
        if took > STALL {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.services.record(Kind::Stalled, 0, 0, micros);
        }
    }

    /// Whether a drain has come to its end: [`Shard::finish`] is next.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.services.is_drained()
    }

    /// Closes the log after the last record; the shard's last act.
    #[must_use]
    pub fn finish(self) -> Finished {
        self.services.commit.finish()
    }

    /// Whether the first segment is at hand.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.services.commit.has_segment()
    }

    /// Why the last segment could not be made.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.services.commit.take_failure()
    }

    fn set_time(&mut self, now: Now) {
        self.services.now = now.elapsed;
        self.services.commit.appender.set_unix_micros(now.unix_micros);
    }

    /// Serves one connection, and lets it go where nothing holds it any more. `None`: it was gone.
    fn with<T>(
        &mut self,
        key: Key,
        serve: impl FnOnce(&mut Services, &mut Connection) -> T,
    ) -> Option<T> {
        let connection = self.connections.get(key)?;
        let served = serve(&mut self.services, connection);
        if connection.is_over()
            && let Some(connection) = self.connections.remove(key)
        {
            self.services.bury(connection);
        }
        Some(served)
    }

    /// Serves every connection.
    fn each(&mut self, mut serve: impl FnMut(&mut Services, Key, &mut Connection)) {
        for place in 0..self.connections.places() {
            if let Some(key) = self.connections.key_at(place) {
                self.with(key, |services, connection| serve(services, key, connection));
            }
        }
    }

    fn serve_log(&mut self) {
        self.services.order_segment();
        let released = self.log_events();
        if self.services.commit.may_write(released) {
            self.services.write_groups();
            self.log_events();
        }
    }

    /// Does what the log's events ask for; returns how many replies were let go.
    fn log_events(&mut self) -> u64 {
        let mut released = 0;
        while let Some(event) = self.services.commit.appender.poll_event() {
            match self.services.log_event(event) {
                Some(Moved::Advanced(mark)) => released += self.advanced(mark),
                Some(Moved::Failed { from, to }) => self.failed(from, to, Refusal::LogFailed),
                None => {}
            }
        }
        released
    }

    /// The high-water mark moved: every 250 below it may go. Returns how many.
    fn advanced(&mut self, mark: Offset) -> u64 {
        let mut records = 0;
        while let Some(waiting) = self.services.commit.pop_below(mark) {
            records += 1;
            if waiting.failed {
                continue;
            }
            let released = self.with(waiting.key, |services, connection| {
                services.release(connection, waiting, mark)
            });
            if released != Some(true) {
                // The record is in the log, and its 250 found nobody.
                let listener = self.services.counters.listener(usize::from(waiting.listener));
                listener.replies_undelivered += 1;
            }
        }
        self.services.counters.batch(records);
        self.services.shared.advanced(mark.get());
        records
    }

    /// Offsets `from..to` will never be acknowledged.
    fn failed(&mut self, from: Offset, to: Offset, refusal: Refusal) {
        let mut at = 0;
        while let Some(key) = self.services.commit.fail_next(&mut at, from, to) {
            self.with(key, |services, connection| {
                services.fail_replies(key, connection, (from, to), refusal);
            });
        }
        self.services.commit.drop_failed(to);
    }

    /// What is looked at each [`TICK`].
    fn tick(&mut self) {
        let services = &mut self.services;
        let now = services.now;
        let passed = now.saturating_sub(self.last_tick);
        self.last_tick = now;
        if services.tuning.held_up {
            let log = services.log_full();
            services.counters.paused(passed, log);
        }
        for listener in services.acceptor.take_due(now) {
            if services.draining.is_none() {
                services.accept(listener);
            }
        }
        let due = services.deadlines.take_due(now);
        for &key in &due {
            self.with(key, |services, connection| services.deadline(key, connection));
        }
        let services = &mut self.services;
        services.deadlines.seen(due);
        services.tell_suppressed();
        services.tracer.renew();
        let retuned = [services.take_settings(), services.weigh(passed)];
        if retuned.contains(&Retuned::Yes) {
            self.each(|services, key, connection| services.refresh(key, connection));
        }
        // Commit wait: the sender is told to try again long before it gives up by itself.
        if let Some((from, to)) = self.services.overdue() {
            self.failed(from, to, Refusal::Timeout);
        }
        if !self.services.tuning.paused.is_empty() {
            self.resume();
        }
        self.services.hand_over_if_wanted();
        self.services.drain_if_wanted();
        self.services.publish();
    }

    /// Reads on where the reason to stop is gone.
    fn resume(&mut self) {
        self.services.tuning.held_up = false;
        for key in std::mem::take(&mut self.services.tuning.paused) {
            self.with(key, |services, connection| services.resume(key, connection));
        }
    }

    /// Sends what may go.
    fn flush(&mut self) {
        let now = self.services.now;
        while let Some(key) = self.services.outgoing.pop_due(now) {
            self.with(key, |services, connection| services.flush_due(key, connection));
        }
        let dirty = self.services.outgoing.take_dirty();
        for &key in &dirty {
            self.with(key, |services, connection| services.flush_touched(key, connection));
        }
        self.services.outgoing.flushed(dirty);
    }
}

impl Services {
    /// The offsets whose messages have waited too long for their commit.
    fn overdue(&self) -> Option<(Offset, Offset)> {
        self.commit.overdue(|waiting| {
            let limits = &self.listeners[usize::from(waiting.listener)].smtp.limits;
            waiting.ended + limits.commit_wait <= self.now
        })
    }

    /// Shows other threads how far the shard is.
    fn publish(&mut self) {
        let Self { commit, counters, shared, tuning, .. } = self;
        // Recovery's mark, before the first commit.
        shared.advanced(commit.appender.high_water_mark().get());
        shared.needs_segments_from(commit.needs_from());
        let certificates = self.listeners.iter().map(|listener| listener.tls.as_ref());
        for (at, config) in certificates.enumerate().filter_map(|(at, tls)| Some((at, tls?))) {
            counters.certificate(at, config.not_after());
        }
        let limit = tuning.limits().inflight_bytes;
        shared.published.beat(|heartbeats| {
            counters.snapshot(&commit.appender, commit.collected_bytes, limit, heartbeats)
        });
        shared.published.show_hitters(|| Box::new(counters.hitters.clone()));
    }
}
