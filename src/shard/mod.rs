//! The glommio plane: one shard for each core.
//!
//! A shard is an executor pinned to a core with its own listeners, connections, timers, buffers,
//! ring and log. Shards share nothing on the path of a message; what other threads may know of a
//! shard is in [`SharedState`], written by its tick. `core` is the whole shard without a kernel,
//! `io` runs it on glommio and io_uring.

mod answers;
pub mod core;
pub mod flight;
mod io;
mod refusals;
#[cfg(test)]
mod tests;
pub mod trace;

use std::{
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

pub use self::{
    core::proxy,
    io::{
        Handle, RingError, StartError, UnixSocket, Watch, forget_inherited, inherited_file,
        inherited_socket, keep_over_exec, listen, listen_unix, probe_address, probe_rings,
        retry_in_use, spawn,
    },
    refusals::RefusalQueue,
};

use crate::{
    log::{HighWaterMarks, SyncPolicy},
    metrics::Published,
    policy::{Advisor, NoAdvisor},
    smtp, tls,
};

/// What a shard needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of all shards' logs.
    pub log_dir: PathBuf,
    /// This shard's number, from 0.
    pub shard: u16,
    /// The core it is pinned to.
    pub core: usize,
    /// Octets of a segment file.
    pub segment_bytes: u64,
    /// What it may use, and let others use.
    pub limits: Limits,
    /// Answers what must not be found out on the shard.
    pub advisor: Arc<dyn Advisor>,
    /// How long a drain waits for transactions in progress (D16).
    pub drain: Duration,
    /// What comes before a 250.
    pub sync: SyncPolicy,
    /// A failed write or sync ends the process, rather than the segment (D5).
    pub abort_on_io_error: bool,
    /// Octets of memory for glommio's own rings.
    pub io_memory: usize,
}

impl Options {
    /// Of a shard that has no directory and asks nobody, as in tests and benches of its core.
    #[must_use]
    pub fn bare(segment_bytes: u64, limits: Limits) -> Self {
        Self {
            log_dir: PathBuf::new(),
            shard: 0,
            core: 0,
            segment_bytes,
            limits,
            advisor: Arc::new(NoAdvisor),
            drain: Duration::from_secs(1),
            sync: SyncPolicy::Group,
            abort_on_io_error: false,
            io_memory: 0,
        }
    }
}

/// What a shard may use, and let a peer use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections this shard may have open; more get 421.
    pub connections_max: usize,
    /// Octets received and not yet durable; beyond, reading stops and MAIL gets 452.
    pub inflight_bytes: u64,
    /// Free octets under which MAIL is refused (D9), the share of the disk aside.
    pub disk_low: u64,
    /// Tells which peers are spared the limits that guard against strangers.
    pub exempt: Peers,
    /// Sessions of one address or /64 in the whole process; `None`: no limit.
    pub sessions_per_address: Option<u32>,
    /// New sessions a minute of one address or /64 in the whole process; `None`: no limit.
    pub session_rate_per_address: Option<u32>,
    /// Failed AUTH commands within a minute of one address or /64 in the whole process, after which
    /// it is shut out for a while; `None`: no limit.
    pub auth_failures_per_address: Option<u32>,
    /// Shards of the process.
    pub shards: u32,
    /// TLS handshakes under way at a time.
    pub handshakes_max: usize,
}

impl Limits {
    /// Of the one shard of a server that trusts each of its peers, as in tests and benches.
    #[must_use]
    pub fn trusting(connections_max: usize) -> Self {
        Self {
            connections_max,
            inflight_bytes: 1 << 30,
            disk_low: 0,
            exempt: Peers(Arc::new(|_| true)),
            sessions_per_address: None,
            session_rate_per_address: None,
            auth_failures_per_address: None,
            shards: 1,
            handshakes_max: 256,
        }
    }

    /// PROTOCOL §5, the column for stress.
    fn stressed(&self) -> Self {
        Self {
            sessions_per_address: self.sessions_per_address.map(|most| most.min(10)),
            session_rate_per_address: self.session_rate_per_address.map(|rate| rate.min(60)),
            handshakes_max: self.handshakes_max.min(64),
            ..self.clone()
        }
    }
}

/// New settings for a shard that runs: for each of its listeners, in their order, and for itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings of each listener's sessions from now on, and what comes before their greeting.
    pub listeners: Vec<(Arc<smtp::Config>, Arc<Gate>)>,
    /// Bounds of the shard.
    pub limits: Limits,
}

/// One of the shard's listening sockets.
#[derive(Debug)]
pub struct Listener {
    /// The `listener` label of the metrics.
    pub name: String,
    /// See [`listen`] and [`listen_unix`].
    pub socket: OwnedFd,
    /// Options of its sessions.
    pub smtp: Arc<smtp::Config>,
    /// Its TLS, the same for all shards; `None` if [`smtp::Config::tls`] is off.
    pub tls: Option<Arc<tls::Config>>,
    /// What comes before the greeting.
    pub gate: Arc<Gate>,
}

impl Listener {
    /// What the shard knows of it, and its socket.
    fn split(self) -> (core::Listener, OwnedFd) {
        let Self { name, socket, smtp, tls, gate } = self;
        (core::Listener { name, smtp, tls, gate }, socket)
    }
}

/// What a listener asks of a connection before its session, and notes on its mail.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// Peers that begin with a PROXY header; all others are closed. `None`: the protocol is off.
    pub proxies: Option<Peers>,
    /// How long a PROXY header may take.
    pub proxy_wait: Duration,
    /// Peers that may use XCLIENT and XFORWARD; `None`: nobody.
    pub xclient: Option<Peers>,
    /// Wait before the greeting.
    pub greet_delay: Duration,
    /// The advisor is asked about each client that is not exempt, and its answer waited for.
    pub asks: bool,
    /// How long at most: a moment more than the advisor itself waits for others.
    pub advice_wait: Duration,
    /// Mail is judged before it is taken, but for clients that log in and for these; `None`: none is.
    pub judges: Option<Peers>,
    /// As whom exporters state results for its mail (RFC 8601); empty: they do not.
    pub authserv_id: String,
    /// Who completes its mail on the way out (RFC 6409 §8); empty: it is no submission.
    pub submission: String,
}

/// Tells whether an address belongs to some peers.
#[derive(Clone)]
pub struct Peers(pub Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl Peers {
    /// Whether this address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        (self.0)(address)
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peers")
    }
}

/// What other threads may know of a shard, and ask of it. Both planes.
#[derive(Debug)]
pub struct SharedState {
    /// The shard's counters, on request.
    published: Arc<Published>,
    drain: AtomicU8,
    hand_over: AtomicBool,
    quiet: AtomicBool,
    finished: AtomicBool,
    disk_full: AtomicBool,
    marks: Arc<HighWaterMarks>,
    shard: u16,
    segments_from: AtomicU64,
    waker: io::ShardWaker,
    answers: Arc<answers::Answers>,
    /// Settings to be taken; counted, so that the shard need not lock to see that there are none.
    settings: Mutex<Option<Arc<Settings>>>,
    settings_given: AtomicU64,
    settings_taken: AtomicU64,
    recorder: Arc<flight::Recorder>,
    traces: Arc<trace::Traces>,
    /// `None`: refusals are not kept.
    refusals: Option<Arc<RefusalQueue>>,
}

impl SharedState {
    /// For a shard about to start that nobody reads.
    #[must_use]
    pub fn new(published: Arc<Published>) -> Self {
        Self::with_marks(published, Arc::new(HighWaterMarks::new(1).0), 0)
    }

    /// For a shard about to start whose high-water mark is published.
    #[must_use]
    pub fn with_marks(published: Arc<Published>, marks: Arc<HighWaterMarks>, shard: u16) -> Self {
        Self {
            published,
            marks,
            shard,
            recorder: flight::Recorder::new(shard),
            traces: Arc::default(),
            refusals: None,
            segments_from: AtomicU64::new(0),
            drain: AtomicU8::new(0),
            hand_over: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            waker: io::ShardWaker::default(),
            answers: Arc::default(),
            settings: Mutex::new(None),
            settings_given: AtomicU64::new(0),
            settings_taken: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
        }
    }

    /// With the traces of the whole server.
    #[must_use]
    pub fn traced_by(self, traces: Arc<trace::Traces>) -> Self {
        Self { traces, ..self }
    }

    /// With a log of refusals.
    #[must_use]
    pub fn keeps_refusals(self, refusals: Option<Arc<RefusalQueue>>) -> Self {
        Self { refusals, ..self }
    }

    /// Its last events.
    #[must_use]
    pub fn recorder(&self) -> Arc<flight::Recorder> {
        self.recorder.clone()
    }

    /// Gives the shard new settings, which it takes at its next tick. Sessions go on under them.
    pub fn give_settings(&self, settings: Arc<Settings>) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
        self.settings_given.fetch_add(1, Ordering::Release);
        self.answers.wake();
    }

    /// Whether the settings last given are taken.
    #[must_use]
    pub fn has_taken_settings(&self) -> bool {
        self.settings_taken.load(Ordering::Acquire) == self.settings_given.load(Ordering::Acquire)
    }

    fn take_settings(&self) -> Option<Arc<Settings>> {
        let given = self.settings_given.load(Ordering::Acquire);
        if given == self.settings_taken.load(Ordering::Relaxed) {
            return None;
        }
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.settings_taken.store(given, Ordering::Release);
        settings
    }

    /// Asks the shard to drain (D16); seen at its next tick.
    pub fn ask_to_drain(&self) {
        self.drain.fetch_max(1, Ordering::Release);
        self.answers.wake();
    }

    /// Asks it not to wait for transactions in progress; their clients get 421.
    pub fn ask_to_hurry(&self) {
        self.drain.fetch_max(2, Ordering::Release);
        self.answers.wake();
    }

    /// Whether the shard takes no new connections and leaves its listening sockets open, as another
    /// process will go on with them; seen at its next tick. Sessions go on. With `false` it takes
    /// connections again.
    pub fn set_handing_over(&self, handing_over: bool) {
        self.hand_over.store(handing_over, Ordering::Release);
        self.answers.wake();
    }

    /// Whether a shard that hands over has no session left, and nothing of a listening socket is
    /// under way.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire)
    }

    fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Release);
    }

    fn hands_over(&self) -> bool {
        self.hand_over.load(Ordering::Acquire)
    }

    /// First offset not yet synced.
    #[must_use]
    pub fn high_water_mark(&self) -> u64 {
        self.marks.get(self.shard)
    }

    /// The first segment that holds mail data of messages not yet in a sealed segment: it and later
    /// ones may not be deleted. `u64::MAX`: there is none.
    #[must_use]
    pub fn segments_from(&self) -> u64 {
        self.segments_from.load(Ordering::Acquire)
    }

    fn needs_segments_from(&self, segment: u64) {
        self.segments_from.store(segment, Ordering::Release);
    }

    /// Whether new mail is refused for want of space.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Whether the shard has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    fn drain_wanted(&self) -> bool {
        self.drain.load(Ordering::Acquire) > 0
    }

    fn hurry_wanted(&self) -> bool {
        self.drain.load(Ordering::Acquire) > 1
    }

    /// Tells consumers how far the log is synced.
    fn advanced(&self, high_water_mark: u64) {
        self.marks.publish(self.shard, high_water_mark);
    }

    fn disk(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    fn finished(&self) {
        self.finished.store(true, Ordering::Release);
    }
}
