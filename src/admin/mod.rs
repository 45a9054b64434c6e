//! HTTP for operators: `/metrics`, `/healthz`, `/readyz`, and a live page for browsers.
//!
//! It runs on a thread of its own with a current-thread tokio runtime and never waits for a shard
//! for long: a shard that does not answer is shown as it was last seen.

mod client;
mod connections;
mod drain;
mod guard;
mod insight;
mod live;
mod page;
mod pages;
mod status;
mod survey;
mod upgrade;
mod v1;

pub use client::{ClientError, get, post, watch_lines, watch_live};
pub use drain::{DrainRequest, DrainRequests};
pub use survey::Awaited;
pub use upgrade::{UpgradeBegun, UpgradeRequest, UpgradeRequests, Upgraded};
pub use v1::{Hosts, LogState};

use crate::metrics::{DiskFacts, DnsMetrics, ExportMetrics, Published};
use crate::shard;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Asks for the state of the log's disk, at each scrape and readiness probe.
pub type DiskProbe = Box<dyn Fn() -> Option<DiskFacts> + Send + Sync>;

/// What the pages are made from.
pub struct AdminState {
    /// One slot for each shard.
    pub published: Vec<Arc<Published>>,
    /// What the server knows and no shard does.
    pub ready: Arc<Readiness>,
    /// Version of the program.
    pub version: String,
    /// Source revision, or `unknown`.
    pub revision: String,
    /// State of the log's disk.
    pub disk: DiskProbe,
    /// What exporters and retention count.
    pub export: ExportMetrics,
    /// What is counted of DNS.
    pub dns: DnsMetrics,
    /// The log, for the stream API.
    pub log: LogState,
    /// What requests must bring as `Authorization: Bearer`, probes aside; `None`: nothing.
    pub token: Option<String>,
    /// Where wishes for a reload go.
    pub reloads: Reloads,
    /// Who follows sessions.
    pub traces: Arc<shard::trace::Traces>,
    /// The last events of each shard.
    pub recorders: Vec<Arc<shard::flight::Recorder>>,
    /// Where wishes for a drain go.
    pub drains: crossbeam::channel::Sender<DrainRequest>,
    /// Where wishes for an upgrade go.
    pub upgrades: crossbeam::channel::Sender<UpgradeRequest>,
}

/// What a reload changed, or why it was refused; a line each.
pub type ReloadOutcome = Result<Vec<String>, Vec<String>>;

/// Wishes for a reload, each with the place for its outcome.
pub type Reloads = crossbeam::channel::Sender<oneshot::Sender<ReloadOutcome>>;

/// Where the server takes them.
pub type ReloadRequests = crossbeam::channel::Receiver<oneshot::Sender<ReloadOutcome>>;

/// Facts the server sets and the admin plane reads.
#[derive(Debug, Default)]
pub struct Readiness {
    listening: AtomicBool,
    draining: AtomicBool,
    closed: AtomicBool,
    awaited: Mutex<Awaited>,
    not_durable: AtomicBool,
    recovery_us: AtomicU64,
    warnings: AtomicU64,
    errors: AtomicU64,
    lines_dropped: AtomicU64,
    standing: Mutex<Vec<String>>,
    faults: Mutex<Vec<String>>,
    upgraded: Mutex<Option<Upgraded>>,
}

impl Readiness {
    /// What is wrong with the log: mail is taken all the same.
    pub fn set_faults(&self, faults: Vec<String>) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the upgrade went by which this program came to run.
    pub fn set_upgraded(&self, upgraded: Upgraded) {
        *self.upgraded.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgraded);
    }

    fn upgraded(&self) -> Option<Upgraded> {
        self.upgraded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All listeners of all shards are bound.
    pub fn set_listening(&self) {
        self.listening.store(true, Ordering::Release);
    }

    /// The server has begun to shut down.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Every shard has ended: no record comes any more.
    pub fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whom a drain waits for that ends once all is exported.
    pub fn set_awaited(&self, awaited: Awaited) {
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = awaited;
    }

    fn awaited(&self) -> Awaited {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What makes every message refused though nothing has failed, a line each.
    pub fn set_standing(&self, obstacles: Vec<String>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = obstacles;
    }

    fn standing(&self) -> Vec<String> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a 250 does not mean synced.
    pub fn set_not_durable(&self, not_durable: bool) {
        self.not_durable.store(not_durable, Ordering::Relaxed);
    }

    /// How long the slowest shard's recovery took.
    pub fn set_recovery(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // 0 stands for "not yet".
        self.recovery_us.store(us.max(1), Ordering::Release);
    }

    /// Counts a warning that was logged.
    pub fn count_warning(&self) {
        self.warnings.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error that was logged.
    pub fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts lines of the log that nobody took in time.
    pub fn count_dropped_lines(&self, lines: u64) {
        self.lines_dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn recovery(&self) -> Option<Duration> {
        let us = self.recovery_us.load(Ordering::Acquire);
        (us > 0).then(|| Duration::from_micros(us))
    }
}

/// The admin plane could not start.
#[derive(Debug)]
pub enum AdminError {
    /// The address is taken, not ours, or forbidden.
    Bind(SocketAddr, io::Error),
    /// The thread or its runtime could not be made.
    Start(io::Error),
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address, error) => {
                write!(f, "cannot listen on {address} (server.admin.listen): {error}")?;
                if error.kind() == io::ErrorKind::AddrInUse {
                    f.write_str("; choose another with --set server.admin.listen=127.0.0.1:0")?;
                }
                Ok(())
            }
            Self::Start(error) => write!(f, "cannot start the admin thread: {error}"),
        }
    }
}

impl std::error::Error for AdminError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(_, error) | Self::Start(error) => Some(error),
        }
    }
}

/// The running admin plane. Dropping it stops it, as [`AdminHandle::shut_down`] does.
#[derive(Debug)]
pub struct AdminHandle {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminHandle {
    /// The bound address, with the port the system chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, drops open requests and waits for the thread to end.
    pub fn shut_down(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The receiver is gone only if the thread has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked");
        }
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Binds `address` and answers there until the handle is shut down.
///
/// # Errors
///
/// [`AdminError`]; nothing runs then.
pub fn start(address: SocketAddr, state: AdminState) -> Result<AdminHandle, AdminError> {
    // A std listener sets SO_REUSEADDR, so a restart does not wait for TIME_WAIT.
    let listener = std::net::TcpListener::bind(address);
    start_on(listener.map_err(|error| AdminError::Bind(address, error))?, state)
}

/// As [`start`], on a socket that listens already.
///
/// # Errors
///
/// [`AdminError::Start`]; nothing runs then.
pub fn start_on(
    listener: std::net::TcpListener,
    mut state: AdminState,
) -> Result<AdminHandle, AdminError> {
    let ready = || {
        listener.set_nonblocking(true)?;
        listener.local_addr()
    };
    let bound = ready().map_err(AdminError::Start)?;
    if state.log.reference_url.is_empty() {
        state.log.reference_url = format!("http://{bound}");
    }
    let (stop, stopped) = oneshot::channel();
    let (started, outcome) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || run(listener, state, stopped, &started))
        .map_err(AdminError::Start)?;
    let handle = AdminHandle { address: bound, stop: Some(stop), thread: Some(thread) };
    let gone = || Err(io::Error::other("the thread ended at once"));
    outcome.recv().unwrap_or_else(|_| gone()).map_err(AdminError::Start)?;
    Ok(handle)
}

/// Body of the admin thread.
fn run(
    listener: std::net::TcpListener,
    state: AdminState,
    stopped: oneshot::Receiver<()>,
    started: &mpsc::SyncSender<io::Result<()>>,
) {
    let built = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    runtime.block_on(async move {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let pages = Arc::new(pages::Pages::new(state));
        let watch = tokio::spawn(pages::watch_heartbeats(Arc::clone(&pages)));
        let samples = tokio::spawn(live::sample(Arc::clone(&pages)));
        let _ = started.send(Ok(()));
        tokio::select! {
            () = connections::serve(listener, pages::router(pages)) => {}
            // Also when the handle is gone without a word.
            _ = stopped => {}
        }
        watch.abort();
        samples.abort();
    });
}

#[cfg(test)]
mod tests;
