//! The glommio plane: one shard per core.
//!
//! A shard is an executor pinned to a core with its own listeners, connections, timers, buffers,
//! ring and log. Shards share nothing on the path of a message; what other threads may know of a
//! shard is in [`SharedState`], written by its tick. This room alone names glommio and io_uring.

mod advisor;
mod connection;
mod counters;
mod driver;
mod executor;
mod listener;
pub mod proxy;
mod ring;
mod segments;
#[cfg(test)]
mod tests;
mod timer;
mod watch;

use std::{
    net::{IpAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::task::AtomicWaker;

pub use advisor::{Advisor, Answer, ClientAdvice, NoAdvisor, Question, Ticket};
pub use executor::{Handle, StartError, spawn};
pub use listener::listen;
pub use watch::Watch;

use crate::{
    log::{HighWaterMarks, SyncPolicy},
    metrics::Published,
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
    /// Connections this shard may have open; more get 421.
    pub connections_max: usize,
    /// Octets received and not yet durable; beyond, reading stops and MAIL gets 452.
    pub inflight_bytes: u64,
    /// Tells which peers are spared the limits that guard against strangers.
    pub exempt: Peers,
    /// Answers what must not be found out on the shard.
    pub advisor: Arc<dyn Advisor>,
    /// How long a drain waits for transactions in progress (D16).
    pub drain: Duration,
    /// Free octets under which MAIL is refused (D9), the share of the disk aside.
    pub disk_low: u64,
    /// What comes before a 250.
    pub sync: SyncPolicy,
    /// A failed write or sync ends the process, rather than the segment (D5).
    pub abort_on_io_error: bool,
    /// Octets of memory for glommio's own rings.
    pub io_memory: usize,
}

/// One of the shard's listening sockets.
#[derive(Debug)]
pub struct Listener {
    /// The `listener` label of the metrics.
    pub name: String,
    /// See [`listen`].
    pub socket: TcpListener,
    /// Options of its sessions.
    pub smtp: Arc<smtp::Config>,
    /// Its TLS, the same for all shards; `None` if [`smtp::Config::tls`] is off.
    pub tls: Option<Arc<tls::Config>>,
    /// What comes before the greeting.
    pub gate: Arc<Gate>,
}

/// What a listener asks of a connection before its session.
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
    /// Mail is refused here first under overload.
    pub low_priority: bool,
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

impl Options {
    fn exempt(&self, address: IpAddr) -> bool {
        self.exempt.contains(address)
    }
}

/// What other threads may know of a shard, and ask of it. Both planes.
#[derive(Debug)]
pub struct SharedState {
    /// The shard's counters, on request.
    published: Arc<Published>,
    drain: AtomicU8,
    finished: AtomicBool,
    disk_full: AtomicBool,
    marks: Arc<HighWaterMarks>,
    shard: u16,
    segments_from: AtomicU64,
    waker: AtomicWaker,
    answers: Arc<advisor::Answers>,
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
            segments_from: AtomicU64::new(0),
            drain: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            answers: Arc::default(),
            finished: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
        }
    }

    /// Asks the shard to drain (D16); seen at its next tick.
    pub fn ask_to_drain(&self) {
        self.drain.fetch_max(1, Ordering::Release);
    }

    /// Asks it not to wait for transactions in progress; their clients get 421.
    pub fn ask_to_hurry(&self) {
        self.drain.fetch_max(2, Ordering::Release);
    }

    /// First offset not yet synced.
    #[must_use]
    pub fn high_water_mark(&self) -> u64 {
        self.marks.get(self.shard)
    }

    /// The first segment that holds mail data of messages not yet in a sealed segment: it and those
    /// behind it may not be deleted. `u64::MAX`: there is none.
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
