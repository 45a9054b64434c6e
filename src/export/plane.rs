//! The export plane: a runtime for each exporter, its lanes, and the thread that tells them of marks.

use std::{fmt, io, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{runtime::Handle, sync::watch};

use super::{
    Blackhole, ErrorClass, ExportOptions, Files, Kafka, Nats, Relay, Sink, SinkError, SinkOptions,
    Store, Webhook,
    bells::Bells,
    exporter::Exporter,
    lane::{self, Parts, lower_priority},
};
use crate::{
    consumer::{Active, Group, GroupError},
    log::{HighWaterMarks, Log, MarkListener},
    metrics::ExportMetrics,
};

/// How long a shutdown waits for requests under way.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Marks are told to lanes at most this often; a batch gathers meanwhile.
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
    /// Who else is to be told of marks.
    pub bells: Bells,
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
    stop: watch::Sender<bool>,
    marks: Arc<HighWaterMarks>,
    bells: Bells,
    lanes: Vec<JoinHandle<()>>,
    crier: Option<JoinHandle<()>>,
    runtimes: Vec<RuntimeThread>,
    active: Vec<Active>,
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plane({} lanes)", self.lanes.len())
    }
}

/// Starts the exporters. A sink that is not there is no error: it is waited for.
///
/// # Errors
/// Options that make no sense, files that cannot be opened; nothing runs then.
pub fn start(options: PlaneOptions) -> Result<Plane, StartError> {
    start_with(options, make_sink)
}

/// As [`start`], with other sinks.
pub(super) fn start_with(
    options: PlaneOptions,
    make_sink: impl Fn(&ExportOptions) -> Result<Box<dyn Sink>, SinkError>,
) -> Result<Plane, StartError> {
    let (stop, stopped) = watch::channel(false);
    let mut plane = Plane {
        stop,
        marks: options.marks.clone(),
        bells: options.bells.clone(),
        lanes: Vec::new(),
        crier: None,
        runtimes: Vec::new(),
        active: Vec::new(),
    };
    for exporter in options.exporters {
        let name = exporter.name.clone();
        let bad = |what: String| StartError::Exporter(name.clone(), what);
        let group = Group::new(options.log.dir(), &name).map_err(|error| bad(error.to_string()))?;
        plane.active.push(group.activate().map_err(|error: GroupError| bad(error.to_string()))?);
        let thread = RuntimeThread::start(&name).map_err(StartError::Io)?;
        let runtime = thread.handle.clone();
        plane.runtimes.push(thread);
        let sink = {
            // Clients start tasks of their own.
            let _entered = runtime.enter();
            make_sink(&exporter).map_err(|error| bad(error.to_string()))?
        };
        let metrics = options.metrics.exporter(&name, &ErrorClass::NAMES);
        let shared = Arc::new(Exporter::new(
            exporter,
            sink,
            metrics,
            options.metrics.group(&name),
            usize::from(options.shards),
        ));
        for shard in 0..options.shards {
            let parts = Parts {
                exporter: shared.clone(),
                log: options.log.clone(),
                group: group.clone(),
                shard,
                marks: options.marks.clone(),
                runtime: runtime.clone(),
                stop: stopped.clone(),
            };
            let lane = lane::start(parts, &plane.bells).map_err(|error| bad(error.to_string()))?;
            plane.lanes.push(lane);
        }
    }
    let (bells, marks) = (plane.bells.clone(), options.marks.clone());
    let listener = options.listener;
    let crier = std::thread::Builder::new()
        .name("marks".to_owned())
        .spawn(move || {
            lower_priority();
            tell(&listener, &marks, &bells, &stopped);
        })
        .map_err(StartError::Io)?;
    plane.crier = Some(crier);
    Ok(plane)
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
            lower_priority();
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
    bells: &Bells,
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
        bells.ring(moved, true);
        before.clone_from(&seen);
        std::thread::sleep(TELL_EVERY);
    }
}

impl Plane {
    /// Stops reading, waits a few seconds for requests under way, saves the offsets (D16).
    pub fn shut_down(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.stop.send_replace(true);
        self.marks.wake();
        self.bells.ring(|_| true, true);
        for thread in self.lanes.drain(..).chain(self.crier.take()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the export plane panicked");
            }
        }
        self.runtimes.clear();
        self.active.clear();
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the sink of an exporter.
fn make_sink(options: &ExportOptions) -> Result<Box<dyn Sink>, SinkError> {
    let (document, timeout) = (&options.document, options.timeout);
    Ok(match &options.sink {
        SinkOptions::Blackhole => Box::new(Blackhole),
        SinkOptions::Nats(nats) => Box::new(Nats::new(nats.clone(), document.clone(), timeout)?),
        SinkOptions::Kafka(kafka) => Box::new(Kafka::new(kafka.clone(), document.clone(), timeout)),
        SinkOptions::Relay(relay) => Box::new(Relay::new(relay)?),
        SinkOptions::Webhook(webhook) => Box::new(Webhook::new(webhook, document, timeout)?),
        SinkOptions::Store(store) => Box::new(Store::new(store.clone(), document.clone())),
        SinkOptions::Files(files) => Box::new(Files::new(files, document.clone())),
    })
}
