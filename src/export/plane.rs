//! The export plane: a runtime for each exporter, its lanes, and the thread that announces marks to
//! them.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch};

use super::{
    Blackhole, ErrorClass, ExportOptions, Sink, SinkError, SinkOptions,
    exporter::Exporter,
    lane::{self, Parts},
};
use mailrace_log::consumer::{Active, Group, GroupError};
use mailrace_log::{HighWaterMarks, Log, MarkListener, VerdictMarks, Waiters};
use mailrace_metrics::ExportMetrics;

/// How long a shutdown waits for requests under way.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Marks are announced to lanes at most this often; a batch gathers in between.
const TELL_EVERY: Duration = Duration::from_millis(1);

/// What the export plane is made from.
pub struct PlaneOptions {
    /// The log, its data directory locked by this process.
    pub log: Log,
    /// Shards, from 0.
    pub shards: u16,
    /// Their marks: recovery's are there already.
    pub marks: Arc<HighWaterMarks>,
    /// The marks' one listener.
    pub listener: MarkListener,
    /// The exporters, names unique.
    pub exporters: Vec<ExportOptions>,
    /// Where they count.
    pub metrics: ExportMetrics,
    /// Others to whom marks are announced.
    pub waiters: Waiters,
    /// Where verdicts are; nobody writes any: none is waited for.
    pub verdicts: Arc<VerdictMarks>,
}

/// Why the plane did not start.
#[derive(Debug)]
pub enum StartError {
    /// An exporter's options, or its files.
    Exporter(String, String),
    /// The runtime or a thread.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exporter(name, what) => write!(f, "exporter {name}: {what}"),
            Self::Io(error) => write!(f, "the export plane does not start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The running plane. Dropping it stops it, as [`Plane::shut_down`] does.
pub struct Plane {
    log: Log,
    shards: u16,
    marks: Arc<HighWaterMarks>,
    verdicts: Arc<VerdictMarks>,
    waiters: Waiters,
    metrics: ExportMetrics,
    exporters: Vec<Running>,
    stop: watch::Sender<bool>,
    waker: Option<JoinHandle<()>>,
    flush: Flush,
}

/// Has the lanes wait for no full batch. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Flush(Arc<AtomicBool>);

impl Flush {
    /// The log has ended: what is gathered is sent at once from now on. Lanes see it within a second.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plane({} exporters)", self.exporters.len())
    }
}

/// Makes the sink of an exporter, within its runtime.
pub(super) type MakeSink = dyn Fn(&ExportOptions) -> Result<Box<dyn Sink>, SinkError>;

/// Starts the exporters. A sink that is down is not an error: it is waited for.
///
/// # Errors
/// Options that are invalid, files that cannot be opened; nothing runs then.
pub fn start(options: PlaneOptions) -> Result<Plane, StartError> {
    start_with(options, &make_sink)
}

/// As [`start`], with other sinks.
pub(super) fn start_with(options: PlaneOptions, make_sink: &MakeSink) -> Result<Plane, StartError> {
    let (stop, stopped) = watch::channel(false);
    let mut plane = Plane {
        log: options.log,
        shards: options.shards,
        marks: options.marks.clone(),
        verdicts: options.verdicts,
        waiters: options.waiters.clone(),
        metrics: options.metrics,
        exporters: Vec::new(),
        stop,
        waker: None,
        flush: Flush::default(),
    };
    plane.replace_with(options.exporters, make_sink)?;
    let (waiters, marks) = (options.waiters, options.marks);
    let listener = options.listener;
    let waker = std::thread::Builder::new()
        .name("marks".to_owned())
        .spawn(move || {
            mailrace_sys::lower_priority(mailrace_sys::BACKGROUND);
            tell(&listener, &marks, &waiters, &stopped);
        })
        .map_err(StartError::Io)?;
    plane.waker = Some(waker);
    Ok(plane)
}

/// An exporter that can run: its options make sense, and its threads are there.
struct Prepared {
    options: ExportOptions,
    group: Group,
    runtime: RuntimeThread,
    sink: Box<dyn Sink>,
}

impl Prepared {
    fn new(log: &Log, options: ExportOptions, make_sink: &MakeSink) -> Result<Self, StartError> {
        let bad = |what: String| StartError::Exporter(options.name.clone(), what);
        let group = Group::new(log.dir(), &options.name).map_err(|error| bad(error.to_string()))?;
        let runtime = RuntimeThread::start(&options.name).map_err(StartError::Io)?;
        let sink = {
            // Clients start tasks of their own.
            let _entered = runtime.handle.enter();
            make_sink(&options).map_err(|error| bad(error.to_string()))?
        };
        Ok(Self { options, group, runtime, sink })
    }

    /// Runs it; `active` is its group's claim, where one that stopped had it before.
    fn start(self, plane: &Plane, active: Option<Active>) -> Result<Running, StartError> {
        let Self { options, group, runtime, sink } = self;
        let name = options.name.clone();
        let bad = |what: String| StartError::Exporter(name.clone(), what);
        let active = match active {
            Some(active) => active,
            None => group.activate().map_err(|error: GroupError| bad(error.to_string()))?,
        };
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Exporter::new(
            options.clone(),
            sink,
            plane.metrics.exporter(&name, &ErrorClass::NAMES),
            plane.metrics.group(&name),
            usize::from(plane.shards),
        ));
        let mut running = Running { options, stop, lanes: Vec::new(), runtime, active };
        for shard in 0..plane.shards {
            let parts = Parts {
                exporter: shared.clone(),
                log: plane.log.clone(),
                group: group.clone(),
                shard,
                marks: plane.marks.clone(),
                verdicts: plane.verdicts.clone(),
                runtime: running.runtime.handle.clone(),
                stop: stopped.clone(),
                flush: plane.flush.clone(),
            };
            match lane::start(parts, &plane.waiters) {
                Ok(lane) => running.lanes.push(lane),
                Err(error) => {
                    running.stop(plane);
                    return Err(bad(error.to_string()));
                }
            }
        }
        Ok(running)
    }
}

/// An exporter at work.
struct Running {
    options: ExportOptions,
    stop: watch::Sender<bool>,
    lanes: Vec<JoinHandle<()>>,
    runtime: RuntimeThread,
    active: Active,
}

impl Running {
    /// Stops reading, waits a few seconds for requests under way, saves the offsets (D16).
    fn stop(self, plane: &Plane) -> Active {
        self.stop.send_replace(true);
        plane.wake();
        for lane in self.lanes {
            if lane.join().is_err() {
                tracing::error!("a lane of exporter {} panicked", self.options.name);
            }
        }
        drop(self.runtime);
        self.active
    }
}

/// A runtime with a thread of its own: an exporter costs one core at most, and none waits for another.
struct RuntimeThread {
    handle: Handle,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl RuntimeThread {
    fn start(exporter: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, mut stopped) = watch::channel(false);
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name(exporter.to_owned()).spawn(move || {
            mailrace_sys::lower_priority(mailrace_sys::BACKGROUND);
            // An error means that the plane is gone.
            let _ = runtime.block_on(stopped.wait_for(|stop| *stop));
            runtime.shutdown_timeout(SHUTDOWN);
        })?;
        Ok(Self { handle, stop, thread: Some(thread) })
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("an exporter's runtime panicked");
        }
    }
}

/// Rings the lanes of shards whose mark has moved.
fn tell(
    listener: &MarkListener,
    marks: &HighWaterMarks,
    waiters: &Waiters,
    stopped: &watch::Receiver<bool>,
) {
    let mut seen = Vec::new();
    let mut before = Vec::new();
    while !*stopped.borrow() {
        if !listener.wait(marks, &mut seen, Duration::from_secs(1)) {
            continue;
        }
        let moved = |shard: u16| {
            let at = usize::from(shard);
            seen.get(at) != before.get(at)
        };
        waiters.wake(moved, true);
        before.clone_from(&seen);
        std::thread::sleep(TELL_EVERY);
    }
}

impl Plane {
    /// Lets exactly these exporters run: those whose options are the same continue undisturbed, the
    /// others stop, save their offsets, and start again. Returns the names of those that changed,
    /// came or went.
    ///
    /// # Errors
    /// Options that make no sense: nothing is changed then. Files that cannot be opened, which is
    /// seen too late to go back: that exporter does not run.
    pub fn replace(&mut self, exporters: Vec<ExportOptions>) -> Result<Vec<String>, StartError> {
        self.replace_with(exporters, &make_sink)
    }

    pub(super) fn replace_with(
        &mut self,
        exporters: Vec<ExportOptions>,
        make_sink: &MakeSink,
    ) -> Result<Vec<String>, StartError> {
        let names: Vec<String> = exporters.iter().map(|options| options.name.clone()).collect();
        let mut fresh = Vec::new();
        for options in &exporters {
            if !self.exporters.iter().any(|running| running.options == *options) {
                fresh.push(Prepared::new(&self.log, options.clone(), make_sink)?);
            }
        }
        let (stay, go) = std::mem::take(&mut self.exporters)
            .into_iter()
            .partition(|running: &Running| exporters.contains(&running.options));
        self.exporters = stay;
        let mut touched = Vec::new();
        // All at once: each may take seconds.
        for running in &go {
            running.stop.send_replace(true);
        }
        let mut claims = Vec::new();
        for running in go {
            let name = running.options.name.clone();
            let active = running.stop(self);
            if names.contains(&name) {
                claims.push((name, active));
            } else {
                self.metrics.forget(&name, &ErrorClass::NAMES);
                touched.push(name);
            }
        }
        let mut failed = None;
        for prepared in fresh {
            let name = prepared.options.name.clone();
            let claim = claims.iter().position(|(of, _)| *of == name);
            let claim = claim.map(|at| claims.swap_remove(at).1);
            match prepared.start(self, claim) {
                Ok(running) => self.exporters.push(running),
                Err(error) => failed = Some(error),
            }
            touched.push(name);
        }
        failed.map_or(Ok(touched), Err)
    }

    /// For the end of the log.
    #[must_use]
    pub fn flush(&self) -> Flush {
        self.flush.clone()
    }

    /// Stops reading, waits a few seconds for requests under way, saves the offsets (D16).
    pub fn shut_down(mut self) {
        self.stop();
    }

    fn wake(&self) {
        self.marks.wake();
        self.waiters.wake(|_| true, true);
    }

    fn stop(&mut self) {
        let exporters = std::mem::take(&mut self.exporters);
        for running in &exporters {
            running.stop.send_replace(true);
        }
        for running in exporters {
            running.stop(self);
        }
        self.stop.send_replace(true);
        self.wake();
        if self.waker.take().is_some_and(|waker| waker.join().is_err()) {
            tracing::error!("a thread of the export plane panicked");
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the sink of an exporter.
pub(super) fn make_sink(options: &ExportOptions) -> Result<Box<dyn Sink>, SinkError> {
    #[allow(unused_variables, reason = "which sinks there are is a matter of features")]
    let (document, timeout) = (&options.document, options.timeout);
    Ok(match &options.sink {
        SinkOptions::Blackhole => Box::new(Blackhole),
        #[cfg(feature = "nats")]
        SinkOptions::Nats(nats) => {
            Box::new(super::Nats::new(nats.clone(), document.clone(), timeout)?)
        }
        #[cfg(feature = "kafka")]
        SinkOptions::Kafka(kafka) => {
            Box::new(super::Kafka::new(kafka.clone(), document.clone(), timeout))
        }
        #[cfg(feature = "relay")]
        SinkOptions::Relay(relay) => Box::new(super::Relay::new(relay)?),
        #[cfg(feature = "webhook")]
        SinkOptions::Webhook(webhook) => Box::new(super::Webhook::new(webhook, document, timeout)?),
        #[cfg(feature = "store")]
        SinkOptions::Store(store) => Box::new(super::Store::new(store.clone(), document.clone())),
        #[cfg(feature = "files")]
        SinkOptions::Files(files) => Box::new(super::Files::new(files, document.clone())),
        #[allow(unreachable_patterns, reason = "with all features nothing is left")]
        left_out => {
            return Err(SinkError::new(ErrorClass::Other, left_out.left_out().unwrap_or_default()));
        }
    })
}
