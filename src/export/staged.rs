//! The simulator's way to an exporter (feature `sim`): one lane on the calling thread, turn by
//! turn. The time of its runtime stands still until it is moved.

use std::{cell::RefCell, io, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::yield_now,
    time::advance,
};

use super::{
    ErrorClass, ExportOptions, Sink,
    exporter::Exporter,
    lane::{Lane, Parts},
};
use mailrace_log::consumer::Group;
use mailrace_log::{HighWaterMarks, Log, Waiters};
use mailrace_metrics::ExportMetrics;

thread_local! {
    /// The clock and tasks of this thread's simulation.
    static RUNTIME: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
    /// What the lane wanted to sleep in its last turn.
    static SLEEP: RefCell<Duration> = const { RefCell::new(Duration::ZERO) };
}

/// Time, and the tasks of exporters, on the calling thread. One at a time on a thread.
pub struct Clock(Rc<Runtime>);

impl Clock {
    /// Time stands still from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        let runtime =
            Rc::new(Builder::new_current_thread().enable_time().start_paused(true).build()?);
        RUNTIME.set(Some(runtime.clone()));
        Ok(Self(runtime))
    }

    /// Lets the time pass, and everything happen that is due by then.
    pub fn pass(&self, time: Duration) {
        pass_on(&self.0, time);
    }

    /// How long the lane would sleep now.
    #[must_use]
    pub fn sleep(&self) -> Duration {
        SLEEP.take()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        RUNTIME.set(None);
    }
}

/// In steps: what is due after something else must not find that its own time is over.
fn pass_on(runtime: &Runtime, time: Duration) {
    let mut step = Duration::from_millis(20).max(time / 100);
    let mut left = time;
    runtime.block_on(async {
        loop {
            step = step.min(left);
            advance(step).await;
            // A task that wakes another needs a round of its own.
            for _ in 0..3 {
                yield_now().await;
            }
            left -= step;
            if left.is_zero() {
                return;
            }
        }
    });
}

/// Lets time pass where a lane would wait for its tasks; false on a thread without a simulation.
pub(super) fn pass(time: Duration) -> bool {
    let runtime = RUNTIME.with_borrow(Clone::clone);
    runtime.is_some_and(|runtime| {
        pass_on(&runtime, time);
        true
    })
}

/// Notes a lane's sleep; false on a thread without a simulation.
pub(super) fn sleep(most: Duration) -> bool {
    let staged = RUNTIME.with_borrow(Option::is_some);
    if staged {
        SLEEP.set(most);
    }
    staged
}

/// Runs a future on this thread's simulation, whose time moves on by itself meanwhile.
pub(super) fn block_on<T, F: Future<Output = T>>(work: F) -> Result<T, F> {
    match RUNTIME.with_borrow(Clone::clone) {
        Some(runtime) => Ok(runtime.block_on(work)),
        None => Err(work),
    }
}

/// What an exporter is made from.
pub struct Export {
    /// Its settings; their `sink` is not looked at.
    pub options: ExportOptions,
    /// Where the records go.
    pub sink: Box<dyn Sink>,
    /// The log.
    pub log: Log,
    /// Marks of its shards.
    pub marks: Arc<HighWaterMarks>,
    /// Where it counts.
    pub metrics: ExportMetrics,
}

/// The lane of an exporter in shard 0.
pub struct StagedLane {
    lane: Lane,
    stop: watch::Sender<bool>,
    _active: mailrace_log::consumer::Active,
}

impl StagedLane {
    /// Starts where the group is.
    ///
    /// # Errors
    /// What the file system says.
    pub fn start(clock: &Clock, export: Export) -> io::Result<Self> {
        let Export { options, sink, log, marks, metrics } = export;
        let name = options.name.clone();
        let group = Group::new(log.dir(), &name).map_err(io::Error::other)?;
        let active = group.activate().map_err(io::Error::other)?;
        let counts = metrics.exporter(&name, &ErrorClass::NAMES);
        let exporter = Exporter::new(options, sink, counts, metrics.group(&name), 1);
        let (stop, stopped) = watch::channel(false);
        let waiter = Waiters::default().register(&[0]);
        let runtime = clock.0.handle().clone();
        let parts = Parts {
            exporter: Arc::new(exporter),
            log,
            group,
            shard: 0,
            marks,
            verdicts: Arc::default(),
            runtime,
            stop: stopped,
            flush: super::Flush::default(),
        };
        let _time = clock.0.enter();
        Ok(Self { lane: Lane::new(parts, waiter)?, stop, _active: active })
    }

    /// One turn.
    ///
    /// # Errors
    /// What the file system says: the lane goes on after a pause.
    pub fn turn(&mut self, clock: &Clock) -> io::Result<()> {
        let _time = clock.0.enter();
        self.lane.turn()
    }

    /// An orderly stop.
    ///
    /// # Errors
    /// What the file system says.
    pub fn stop(mut self, clock: &Clock) -> io::Result<()> {
        let _ = self.stop.send(true);
        for _ in 0..1_000 {
            clock.pass(Duration::from_millis(10));
            let _time = clock.0.enter();
            self.lane.look();
            if !self.lane.is_under_way() {
                break;
            }
        }
        self.lane.end()
    }
}

/// A sink's time.
pub async fn rest(time: Duration) {
    tokio::time::sleep(time).await;
}
