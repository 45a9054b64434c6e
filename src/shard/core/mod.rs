//! A shard without a kernel: every connection of a core and its log, sans-IO.
//!
//! Completions and the time come in, submissions go out (`seam`). A turn: every completion is served,
//! then [`Shard::handle_tick`] puts gathered groups under way (unless the commit [rests](rest)), looks
//! at the deadlines and sends every reply that may go. All state lives here, on one thread: no locks,
//! no atomics on the path of a message. Names no runtime, no clock, no system call.

mod addresses;
mod advice;
mod buffer;
mod client;
mod commit;
pub(super) mod connection;
mod counters;
mod events;
mod failures;
mod greeting;
mod mail;
mod overload;
pub mod proxy;
mod rest;
mod seam;
mod send;
mod serve;
mod settings;
mod sockets;
mod supply;
mod time;
mod timer;
mod tls;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use self::{
    addresses::{Addresses, Bounds},
    connection::Connection,
    counters::Counters,
    events::Throttle,
    failures::AuthFailures,
    overload::{Ladder, Step},
    rest::Rest,
    supply::Supply,
    timer::Wheel,
};
pub use self::{
    buffer::{ReceiveBuffer, Returns},
    connection::UNIX_PEER,
    seam::{AcceptError, Arrival, Completion, Key, Now, ReceiveError, Side, SocketId, Submission},
};
use super::{Gate, Limits, Options, SharedState};
use crate::{
    log::{Appender, Offset, Seal},
    metrics::ShardState,
    smtp::{self, Admission, Context, Session},
};

/// Longest sleep of an idle shard, and the width of its tick.
pub const TICK: Duration = Duration::from_millis(5);

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

/// Generations go round at this many.
const GENERATION_MASK: u32 = 0x00ff_ffff;

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

/// How long whoever runs a shard may sleep before its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// At most this long.
    pub at_most: Duration,
    /// Until so many operations have ended, beside those that are submitted with it.
    pub answers: usize,
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
pub struct Shard {
    submissions: VecDeque<Submission>,
    listeners: Vec<Listener>,
    appender: Appender,
    supply: Supply,
    shared: Arc<SharedState>,
    options: Options,
    entropy: Entropy,

    /// `options.limits`, or what is left of them under stress.
    limits: Limits,
    bounds: Bounds,
    /// What sessions of each listener go by when there is no stress.
    calm: Vec<Arc<smtp::Config>>,
    ladder: Ladder,
    addresses: Addresses,
    now: Duration,
    unix_micros: i64,
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
    due: Vec<Key>,
    packed: String,
    spare_vecs: Vec<Vec<u8>>,
    accept_again: Vec<u32>,
    accept_failed: Option<Duration>,
    accept_at: Duration,
    counters: Counters,
    last_tick: Duration,
    draining: Option<Duration>,
    is_drained: bool,
}

impl Shard {
    /// A shard that takes no connections yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { listeners, appender, shared, options, entropy, .. } = parts;
        let mut counters = Counters::new(
            options.shard,
            &listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>(),
        );
        counters.recovered(parts.truncated_bytes, parts.lost_records);
        let mut shard = Self {
            submissions: VecDeque::new(),
            listeners,
            appender,
            supply: Supply::new(options.segment_bytes, parts.next_segment),
            shared,
            entropy,
            limits: options.limits.clone(),
            bounds: Bounds::default(),
            calm: Vec::new(),
            ladder: Ladder::default(),
            addresses: Addresses::default(),
            options,
            now: Duration::ZERO,
            unix_micros: 0,
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
            due: Vec::new(),
            packed: String::new(),
            spare_vecs: Vec::new(),
            accept_again: Vec::new(),
            accept_failed: None,
            accept_at: Duration::ZERO,
            counters,
            last_tick: Duration::ZERO,
            draining: None,
            is_drained: false,
        };
        shard.calm = shard.listeners.iter().map(|listener| listener.smtp.clone()).collect();
        shard.apply_limits();
        shard
    }

    fn submit(&mut self, submission: Submission) {
        self.submissions.push_back(submission);
    }

    /// The next operation that is to be done. Ask until there is none.
    pub fn poll_submission(&mut self) -> Option<Submission> {
        self.submissions.pop_front()
    }

    fn accept(&mut self, listener: u32) {
        self.submit(Submission::Accept { listener });
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
            room_bytes: self.supply.room,
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
        } else if self.supply.disk_full {
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
            || !self.appender.has_room(turn) && !self.appender.read_only() && !self.supply.disk_full
    }

    fn set_time(&mut self, now: Now) {
        self.now = now.elapsed;
        self.unix_micros = now.unix_micros;
        self.appender.set_unix_micros(now.unix_micros);
    }

    /// How long to sleep before the next turn, once all submissions are taken.
    #[must_use]
    pub fn patience(&self) -> Patience {
        let idle = self.dirty.is_empty();
        if let Some((at_most, answers)) = self.rest.wait().filter(|_| idle) {
            return Patience { at_most, answers };
        }
        let at_most = match (idle, self.deferred.is_empty()) {
            (false, _) => Duration::ZERO,
            (true, true) => TICK,
            (true, false) => Duration::from_millis(1),
        };
        Patience { at_most, answers: 0 }
    }

    /// An operation ended. [`Shard::handle_tick`] comes behind all that have.
    pub fn handle_completion(&mut self, now: Now, completion: Completion) {
        self.set_time(now);
        match completion {
            Completion::Accepted { listener, more, result } => {
                self.accepted(listener, more, result);
            }
            Completion::Received { key, more, result } => self.received(key, more, result),
            Completion::Sent { key, octets, result } => self.sent(key, octets, result),
            Completion::HungUp { key, gone } => self.hung_up(key, gone),
            Completion::Written { op, buffer, result, took } => {
                self.written(op, buffer, result, took);
            }
            Completion::Synced { op, result, took } => self.synced(op, result, took),
            Completion::Segment(made) => self.segment_made(made),
            Completion::Space { full, room } => self.space(full, room),
        }
    }

    /// The end of a turn: the log's operations, deadlines, replies that may go. At least once each
    /// [`TICK`].
    pub fn handle_tick(&mut self, now: Now) {
        self.set_time(now);
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
        self.is_drained = self.drained();
    }

    /// A turn with something to do took so long.
    pub fn note_turn(&mut self, took: Duration) {
        self.counters.turn(took);
    }

    /// Whether a drain has come to its end: [`Shard::finish`] is next.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Closes the log behind the last record; the shard's last act. What goes into the manifest
    /// then: `Some(None)` where there is no segment to seal, `None` where the log is not at rest.
    pub fn finish(mut self) -> Option<Option<Seal>> {
        self.appender.is_idle().then(|| self.appender.seal())
    }

    /// Whether the first segment is at hand.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.appender.has_segment()
    }

    /// Why the last segment could not be made.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.supply.take_failure()
    }

    /// Begins to take connections.
    pub fn serve_listeners(&mut self) {
        for index in 0..self.listeners.len() {
            self.accept(index as u32);
        }
        self.shared.published.set_state(ShardState::Serving);
    }
}
