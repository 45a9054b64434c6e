//! The driver of a shard: one task that submits, reaps and serves every connection of its core.
//!
//! A turn: wait on the ring (5 ms at most), serve every completion, put gathered groups under way
//! (unless the commit [rests](rest)), send every reply that may go, tick. Then other tasks of the executor run (heartbeat, segment
//! preparation). All state lives here, on one thread: no locks, no atomics on the path of a
//! message.

mod advice;
mod commit;
mod events;
mod failures;
mod greeting;
mod mail;
mod proxy;
mod rest;
mod send;
mod serve;
mod settings;
mod sockets;
mod time;
mod tls;

use std::{
    collections::{BTreeMap, VecDeque},
    io, mem,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{events::Throttle, failures::AuthFailures, rest::Rest};
use super::{
    Limits, Listener, SharedState,
    addresses::{Addresses, Bounds},
    connection::{Connection, Key},
    counters::Counters,
    overload::{Ladder, Step},
    ring::{Completion, Ring},
    segments::Segments,
    timer::Wheel,
};
use crate::{
    log::{Appender, Offset},
    metrics::ShardState,
    smtp::{self, Admission, Context, Session},
};

/// Longest sleep of an idle shard, and the width of its tick.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// Octets waiting for a sync at which reading stops, well below the 64 MiB that the log takes: what
/// is being received still finds room. A disk of 1 GB/s writes as much within a sync of 16 ms.
const BACKLOG_BYTES: usize = 16 << 20;

/// Octets that one receive can add to the log: a fragment of a large message that was collected
/// before, and 64 KiB of the smallest messages, which grow sixfold by their envelopes.
const TURN_BYTES: u64 = 1 << 20;

/// A peer that takes nothing of what it is owed for this long is gone.
const SEND_WAIT: Duration = Duration::from_secs(60);

/// How long a connection that was closed on our side may keep sending.
const LINGER: Duration = Duration::from_secs(2);

const ACCEPT: u64 = 1;
const RECEIVE: u64 = 2;
const SEND: u64 = 3;
const CANCEL: u64 = 4;
const LOG_WRITE: u64 = 5;
const LOG_SYNC: u64 = 6;
const HANG_UP: u64 = 7;
const KIND_SHIFT: u32 = 56;
const GENERATION_MASK: u32 = 0x00ff_ffff;

fn token(kind: u64, key: Key) -> u64 {
    kind << KIND_SHIFT | u64::from(key.generation) << 32 | u64::from(key.index)
}

fn log_token(kind: u64, op: u64) -> u64 {
    assert!(op >> KIND_SHIFT == 0, "operation numbers stay below 2^56");
    kind << KIND_SHIFT | op
}

/// What a shard is made with.
pub(super) struct Parts {
    pub(super) ring: Ring,
    pub(super) listeners: Vec<Listener>,
    pub(super) appender: Appender,
    pub(super) segments: Segments,
    pub(super) shared: Arc<SharedState>,
    pub(super) options: super::Options,
    pub(super) started: Instant,
    pub(super) truncated_bytes: u64,
    pub(super) lost_records: u64,
}

/// A message in the log whose 250 is held until its offset lies below the high-water mark.
struct Waiting {
    offset: Offset,
    key: Key,
    listener: u16,
    ended: Duration,
    began: Duration,
    bytes: u64,
    recipients: u64,
    failed: bool,
}

/// See the module's page.
pub(super) struct Driver {
    ring: Ring,
    listeners: Vec<Listener>,
    appender: Appender,
    segments: Segments,
    shared: Arc<SharedState>,
    options: super::Options,
    started: Instant,

    /// `options.limits`, or what is left of them under stress.
    limits: Limits,
    bounds: Bounds,
    /// What sessions of each listener go by when there is no stress.
    calm: Vec<Arc<smtp::Config>>,
    ladder: Ladder,
    addresses: Addresses,
    now: Duration,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    open: usize,
    generation: u32,
    waiting: VecDeque<Waiting>,
    rest: Rest,
    wheel: Wheel<Key>,
    dirty: Vec<Key>,
    deferred: VecDeque<(Duration, Key)>,
    penalties: VecDeque<(Duration, Key)>,
    slowed: VecDeque<(Duration, Key)>,
    /// TLS handshakes under way.
    handshakes: usize,
    /// Sessions that want to know something.
    asking: Vec<Key>,
    failures: AuthFailures,
    events: Throttle,
    paused: Vec<Key>,
    /// Some are paused because memory is full or the log is behind.
    held_up: bool,
    collected_bytes: u64,
    /// Messages in progress that have mail data in the log, by the segment of its first.
    unfinished: BTreeMap<u64, u32>,
    completions: Vec<Completion>,
    due: Vec<Key>,
    packed: String,
    spare_vecs: Vec<Vec<u8>>,
    accept_again: Vec<u32>,
    accept_failed: Option<Duration>,
    accept_at: Duration,
    counters: Counters,
    last_tick: Duration,
    draining: Option<Duration>,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { ring, listeners, appender, segments, shared, options, started, .. } = parts;
        let mut counters = Counters::new(
            options.shard,
            &listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>(),
        );
        counters.recovered(parts.truncated_bytes, parts.lost_records);
        let mut driver = Self {
            ring,
            listeners,
            appender,
            segments,
            shared,
            limits: options.limits.clone(),
            bounds: Bounds::default(),
            calm: Vec::new(),
            ladder: Ladder::default(),
            addresses: Addresses::default(),
            options,
            started,
            now: started.elapsed(),
            connections: Vec::new(),
            free: Vec::new(),
            open: 0,
            generation: 0,
            waiting: VecDeque::new(),
            rest: Rest::default(),
            wheel: Wheel::new(),
            dirty: Vec::new(),
            deferred: VecDeque::new(),
            penalties: VecDeque::new(),
            slowed: VecDeque::new(),
            handshakes: 0,
            asking: Vec::new(),
            failures: AuthFailures::default(),
            events: Throttle::default(),
            paused: Vec::new(),
            held_up: false,
            collected_bytes: 0,
            unfinished: BTreeMap::new(),
            completions: Vec::new(),
            due: Vec::new(),
            packed: String::new(),
            spare_vecs: Vec::new(),
            accept_again: Vec::new(),
            accept_failed: None,
            accept_at: Duration::ZERO,
            counters,
            last_tick: Duration::ZERO,
            draining: None,
        };
        driver.calm = driver.listeners.iter().map(|listener| listener.smtp.clone()).collect();
        driver.apply_limits();
        driver
    }

    fn accept(&mut self, listener: u32) {
        let Some(at) = self.listeners.get(listener as usize) else { return };
        let key = Key { index: listener, generation: 0 };
        self.ring.accept(at.socket.as_raw_fd(), token(ACCEPT, key));
    }

    /// Lends a session what it needs for one call.
    fn with_session<T>(
        &mut self,
        connection: &mut Connection,
        call: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> T {
        let admission = self.admission();
        self.with_admission(connection, admission, call)
    }

    fn with_admission<T>(
        &mut self,
        connection: &mut Connection,
        admission: Admission,
        call: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> T {
        let listener = usize::from(connection.listener);
        let Connection { replies, .. } = connection;
        if !replies.has_memory() {
            replies.lend(self.spare_vecs.pop().unwrap_or_default());
        }
        let binds =
            connection.tls_facts.as_ref().is_some_and(|tls| tls.channel_binding().is_some());
        let Connection { session, replies, .. } = connection;
        let mut context = Context {
            now: self.now,
            config: &self.listeners[listener].smtp,
            replies,
            stats: &mut self.counters.smtp[listener],
            admission,
            room_bytes: self.segments.room(),
            handshakes_full: self.handshakes >= self.limits.handshakes_max,
            binds_channel: binds,
            notes: self.events.notes(),
        };
        let result = call(session, &mut context);
        let notes = context.notes;
        if let Some(octets) = replies.give_back() {
            self.spare_vecs.push(octets);
        }
        if let Some(refusals) = connection.session.take_refusals() {
            self.tell_refusals(connection, &refusals);
        }
        self.events.left_out(notes);
        result
    }

    /// What new work is allowed at this moment.
    fn admission(&self) -> Admission {
        if self.draining.is_some() {
            Admission::Draining
        } else if self.appender.read_only() {
            Admission::LogFailed
        } else if self.segments.disk_full() {
            Admission::DiskFull
        } else if self.memory_full() {
            Admission::MemoryFull
        } else {
            match self.ladder.step() {
                Step::Calm | Step::Stress | Step::Slow => Admission::Open,
                Step::RefuseLow => Admission::OverloadedLow,
                Step::Refuse => Admission::Overloaded,
                Step::CloseNew | Step::StopAccepting => Admission::OverloadedNew,
            }
        }
    }

    fn memory_full(&self) -> bool {
        self.collected_bytes + self.appender.unsynced_bytes() as u64 > self.limits.inflight_bytes
    }

    /// The disk does not keep up: nothing more is read until it has. What was read before still
    /// finds room. Where there will be no room, mail is read and refused.
    fn log_full(&self) -> bool {
        let turn = TURN_BYTES.min(self.options.segment_bytes / 4);
        self.appender.unsynced_bytes() > BACKLOG_BYTES
            || !self.appender.has_room(turn)
                && !self.appender.read_only()
                && !self.segments.disk_full()
    }

    /// One turn. Returns whether there was anything to do.
    ///
    /// # Errors
    /// The ring's own failure, which ends the process.
    pub(super) fn turn(&mut self) -> io::Result<bool> {
        let idle = self.dirty.is_empty();
        let wait = if !idle {
            Duration::ZERO
        } else if self.deferred.is_empty() && !self.segments.busy() {
            TICK
        } else {
            Duration::from_millis(1)
        };
        match self.rest.wait().filter(|_| idle) {
            Some((wait, answers)) => self.ring.wait_for(answers, wait)?,
            None => self.ring.wait(wait)?,
        }
        let woke = self.started.elapsed();
        self.now = woke;
        let mut completions = mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        let worked = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        self.take_answers();
        self.serve_log();
        if self.held_up && !self.log_full() && !self.memory_full() {
            self.resume();
        }
        if self.now.saturating_sub(self.last_tick) >= TICK {
            self.tick();
        }
        self.ask_pending();
        self.flush_waiting();
        self.flush_dirty();
        if worked {
            let end = self.started.elapsed();
            self.counters.turn(end.saturating_sub(woke));
        }
        Ok(worked)
    }

    fn complete(&mut self, completion: Completion) {
        let kind = completion.user_data >> KIND_SHIFT;
        let key = Key {
            index: completion.user_data as u32,
            generation: (completion.user_data >> 32) as u32 & GENERATION_MASK,
        };
        let op = completion.user_data & ((1 << KIND_SHIFT) - 1);
        match kind {
            ACCEPT => self.accepted(key.index, completion),
            RECEIVE => self.received(key, completion),
            SEND => self.sent(key, completion),
            HANG_UP => self.hung_up(key, completion),
            CANCEL => {}
            LOG_WRITE => {
                let result = completion.outcome();
                self.counters.written(op, self.started.elapsed(), result.is_ok());
                self.appender.handle_write(op, result, self.now);
            }
            LOG_SYNC => {
                let result = completion.outcome().map(|_| ());
                self.counters.synced(op, self.started.elapsed(), result.is_ok());
                self.appender.handle_sync(op, result, self.now);
            }
            other => unreachable!("no operation is submitted with kind {other}"),
        }
    }

    /// Closes the log behind the last record; the shard's last act.
    pub(super) fn finish(mut self) {
        if self.appender.is_idle() {
            self.segments.finish(self.appender.seal());
        }
        self.shared.published.set_state(ShardState::Stopped);
        self.shared.finished();
    }

    /// Whether the first segment is at hand.
    pub(super) fn ready(&self) -> bool {
        self.appender.has_segment()
    }

    /// Why the first segment could not be made.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.segments.take_failure()
    }

    /// Begins to take connections.
    pub(super) fn serve_listeners(&mut self) {
        for index in 0..self.listeners.len() {
            self.accept(index as u32);
        }
        self.shared.published.set_state(ShardState::Serving);
    }
}
