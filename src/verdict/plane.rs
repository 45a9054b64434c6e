//! The verdict plane: a lane for each shard, all with one judge.
//!
//! ```text
//!  shard --mark--> lane: records behind the mark --> judge, several at a time --> journal --> synced
//!                   |  listeners without `verify`, and what came with an older record, get none
//!                   +- too many wait: the verdict says that the mail was not judged
//! ```
//!
//! It reads what is committed and writes next to the segments, so it never holds a shard up. What it
//! promises after a crash is in `log::verdicts`.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use mailrace_log::{HighWaterMarks, Log, VerdictMarks};
use mailrace_metrics::VerdictMetrics;

use crate::{Judge, Methods, lane};

/// Whether a domain, in A-labels and lower case, is one of this server's.
#[derive(Clone)]
pub struct OwnDomains(pub Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl fmt::Debug for OwnDomains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnDomains")
    }
}

/// `listener.verify`: what is checked of a listener's mail.
#[derive(Clone, Debug)]
pub struct ListenerRules {
    /// What is checked.
    pub methods: Methods,
    /// Domains that have to prove themselves.
    pub own: OwnDomains,
}

/// What the plane is made from.
#[derive(Debug)]
pub struct PlaneOptions {
    /// The log, its data directory locked by this process.
    pub log: Log,
    /// Shards, from 0.
    pub shards: u16,
    /// Their marks.
    pub marks: Arc<HighWaterMarks>,
    /// Of each shard, where a journal begins that is not there yet; none: at its mark.
    pub begin: Vec<u64>,
    /// Where readers see how far verdicts are.
    pub visible: Arc<VerdictMarks>,
    /// Judges all.
    pub judge: Arc<Judge>,
    /// The name of this server.
    pub receiver: String,
    /// Records of a shard that may wait; what came before them is not judged.
    pub queue_max: u64,
    /// Where it counts.
    pub metrics: VerdictMetrics,
    /// Rules of the listeners that verify, by their names.
    pub rules: HashMap<String, ListenerRules>,
}

/// What lanes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) marks: Arc<HighWaterMarks>,
    pub(crate) judge: Arc<Judge>,
    pub(crate) receiver: String,
    pub(crate) queue_max: u64,
    pub(crate) metrics: VerdictMetrics,
    pub(crate) visible: Arc<VerdictMarks>,
    pub(crate) stop: AtomicBool,
    rules: RwLock<Arc<HashMap<String, ListenerRules>>>,
}

impl Shared {
    pub(crate) fn rules(&self) -> Arc<HashMap<String, ListenerRules>> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// The running plane. Dropping it stops it: verdicts under way are given up, and found again after the
/// next start.
#[derive(Debug)]
pub struct Plane {
    shared: Arc<Shared>,
    lanes: Vec<JoinHandle<()>>,
}

impl Plane {
    /// Starts a lane for each shard.
    ///
    /// # Errors
    /// A journal that cannot be opened, or no thread; nothing runs then.
    pub fn start(options: PlaneOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            marks: options.marks,
            judge: options.judge,
            receiver: options.receiver,
            queue_max: options.queue_max,
            metrics: options.metrics,
            visible: options.visible,
            stop: AtomicBool::new(false),
            rules: RwLock::new(Arc::new(options.rules)),
        });
        let mut plane = Self { shared, lanes: Vec::new() };
        for shard in 0..options.shards {
            let begin = options.begin.get(usize::from(shard)).copied();
            plane.lanes.push(lane::start(plane.shared.clone(), &options.log, shard, begin)?);
        }
        Ok(plane)
    }

    /// Other rules from now on.
    pub fn set_rules(&self, rules: HashMap<String, ListenerRules>) {
        *self.shared.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// How far verdicts are visible, for readers of this process.
    #[must_use]
    pub fn visible(&self) -> Arc<VerdictMarks> {
        self.shared.visible.clone()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for lane in self.lanes.drain(..) {
            if lane.join().is_err() {
                tracing::error!("a lane of the verdict plane panicked");
            }
        }
    }
}
