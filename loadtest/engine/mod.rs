//! Runs the load: threads with an `epoll` each, which share connections and schedule out.
//!
//! [`worker`] is such a thread: its loop and the load it takes. [`connections`] is what it does with
//! its connections. The calling thread shows the progress and adds the measures up at the end; while
//! the load runs, threads meet nowhere but in [`common`].

mod common;
mod connections;
mod worker;

use std::{
    collections::BTreeMap,
    io,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    dialogue::{Extensions, Nanos, Style},
    mail::Mail,
    measure::{Measure, Snapshot},
    proxy::Proxy,
    scenario::{Misfit, Tally},
    schedule::Schedule,
    share::Share,
    socket::ClientNet,
    target::Address,
    tls::{Agreed, Secure},
    usage::Usage,
};
use common::Common;
use worker::{Part, Worker};

/// How often time-outs are looked at, and the view is drawn at most.
const TICK: Nanos = 250_000_000;

/// What the engine needs to know.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) address: Address,
    /// Where connections are bound to.
    pub(super) from: Option<ClientNet>,
    pub(super) proxy: Option<Proxy>,
    pub(super) style: Style,
    /// TLS, where the style asks for it.
    pub(super) secure: Option<Secure>,
    /// Invariant: at most as many as connections.
    pub(super) threads: usize,
    pub(super) connections: usize,
    /// `None`: closed loop. Its clock starts once the connections stand.
    pub(super) schedule: Option<Schedule>,
    pub(super) warmup: Nanos,
    /// Behind the warm-up.
    pub(super) length: Nanos,
    pub(super) messages: Option<u64>,
    /// A message that waited so long for a connection is skipped.
    pub(super) late_limit: Nanos,
    /// No reply for so long fails a connection.
    pub(super) reply_wait: Nanos,
    /// How long messages in flight are waited for at the end.
    pub(super) drain: Nanos,
    pub(super) keep_ledger: bool,
    /// The time of each 250.
    pub(super) keep_ack_times: bool,
    /// Misbehaving clients beside the connections.
    pub(super) misfits: Vec<(Misfit, Mail)>,
}

/// What a run gave.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) measure: Measure,
    /// When the measured window began, seconds since the start of the run.
    pub(super) started: f64,
    /// Seconds that were measured.
    pub(super) seconds: f64,
    /// Of each thread in the measured window.
    pub(super) usages: Vec<Usage>,
    pub(super) extensions: Extensions,
    /// By the first TLS handshake.
    pub(super) agreed: Option<Agreed>,
    pub(super) tallies: Option<BTreeMap<String, Tally>>,
    /// Why the run ended before its time.
    pub(super) gave_up: Option<String>,
}

/// Told how far the run is, at most four times a second.
pub(super) trait Progress {
    /// Whether anybody looks; where not, nothing is gathered.
    fn is_watched(&self) -> bool;
    /// `now` is negative during the warm-up; in seconds.
    fn tell(&mut self, snapshot: &Snapshot, now: f64);
}

/// Runs the load.
///
/// # Errors
/// Where the target takes no connection, or the system gives no sockets.
pub(super) fn run(
    plan: &Plan,
    mail: &Arc<Mail>,
    base: Instant,
    progress: &mut dyn Progress,
) -> io::Result<Outcome> {
    let common = Common::new(plan.threads, base);
    let boards: Vec<_> = (0..plan.threads).map(|_| Mutex::new(Snapshot::default())).collect();
    let is_watched = progress.is_watched();
    let parts = thread::scope(|scope| {
        // Nothing is sent: it closes when the last thread has dropped its end.
        let (alive, ended) = mpsc::channel::<()>();
        let mut handles = Vec::with_capacity(plan.threads);
        for (index, board) in boards.iter().enumerate() {
            let (common, alive) = (&common, alive.clone());
            let share = Share { index, of: plan.threads };
            let board = is_watched.then_some(board);
            handles.push(scope.spawn(move || {
                let _alive = alive;
                let worker = Worker::new(plan, mail, share, common, board);
                worker.and_then(Worker::drive).inspect_err(|_| common.stop())
            }));
        }
        drop(alive);
        while ended.recv_timeout(Duration::from_nanos(TICK)) == Err(RecvTimeoutError::Timeout) {
            if let (Some(start), true) = (common.start(), is_watched) {
                let now = common.now() as f64 - (start + plan.warmup) as f64;
                progress.tell(&sum(&boards), now / 1e9);
            }
        }
        let ends = handles.into_iter().map(|handle| handle.join());
        let ends = ends.map(|end| end.unwrap_or_else(|panic| resume_unwind(panic)));
        ends.collect::<io::Result<Vec<Option<Part>>>>()
    })?;
    Ok(merge(parts.into_iter().flatten().collect(), plan, &common))
}

fn sum(boards: &[Mutex<Snapshot>]) -> Snapshot {
    let mut sum = Snapshot::default();
    for board in boards {
        sum.add(&board.lock().unwrap_or_else(PoisonError::into_inner));
    }
    sum
}

/// The threads' measures as one.
fn merge(parts: Vec<Part>, plan: &Plan, common: &Common) -> Outcome {
    let start = common.start().unwrap_or_default() + plan.warmup;
    let end = parts.iter().map(|part| part.end).max().unwrap_or_default().max(start + 1);
    let usages = parts.iter().map(|part| part.usage).collect();
    let mut gave_up = None;
    let mut tallies: Option<BTreeMap<String, Tally>> = None;
    let mut merged: Option<Measure> = None;
    for mut part in parts {
        for (name, tally) in part.tallies.into_iter().flatten() {
            tallies.get_or_insert_default().entry(name).or_default().add(&tally);
        }
        gave_up = gave_up.or(part.gave_up);
        part.measure.finish(end);
        match &mut merged {
            None => merged = Some(part.measure),
            Some(merged) => merged.absorb(part.measure),
        }
    }
    Outcome {
        measure: merged.expect("a run has a thread, and none of them failed"),
        started: start as f64 / 1e9,
        seconds: (end - start) as f64 / 1e9,
        usages,
        extensions: common.extensions().unwrap_or_default(),
        agreed: common.agreed().cloned(),
        tallies,
        gave_up,
    }
}
