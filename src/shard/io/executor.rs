//! Starting a shard: a pinned glommio executor around the pump's loop.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use crossbeam::channel::{self, RecvTimeoutError, SendTimeoutError, Sender};
use glommio::{
    ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement, PoolPlacement,
    ReactorErrorKind, timer::sleep,
};

use super::{
    pump::{self, Pump},
    ring::Ring,
    segments::{Segments, background, probe_device},
    watch::{Watch, register_waker},
};
use crate::{
    log::{self, Appender, Recovery},
    shard::{
        Listener, Options, SharedState,
        core::{self, Shard, TICK},
    },
};

/// Why a shard did not start.
#[derive(Debug)]
pub struct StartError {
    /// What was tried.
    pub doing: &'static str,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.source)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A running shard.
pub struct Handle {
    /// What may be known and asked of it.
    pub shared: Arc<SharedState>,
    join: ExecutorJoinHandle<io::Result<()>>,
}

impl Handle {
    /// Waits for the shard's end.
    ///
    /// # Errors
    /// What ended it other than a drain.
    pub fn join(self) -> io::Result<()> {
        match self.join.join() {
            Ok(ended) => ended,
            Err(error) => Err(source_of(error)),
        }
    }
}

/// What the system said, where it is in there; else glommio's words. Those of a panic are `Debug`
/// text, and were logged when it happened.
pub(super) fn source_of<T>(error: GlommioError<T>) -> io::Error {
    match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
        // Its own text is `MemLockLimit(65536/524288)`; callers know the system's error.
        GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(..)) => {
            io::Error::from_raw_os_error(libc::ENOMEM)
        }
        GlommioError::BuilderError(_) => {
            io::Error::other("its thread ended with an internal error")
        }
        GlommioError::ExecutorError(_) => io::Error::other("the executor could not be created"),
        _ => io::Error::other("the executor failed"),
    }
}

/// What a shard starts from.
struct Start {
    options: Options,
    listeners: Vec<Listener>,
    identity: log::Identity,
    recovery: Recovery,
    state: Arc<SharedState>,
    tell: Sender<Result<(), StartError>>,
}

/// How long the thread of a shard may take to its first step, on whatever machine.
const FIRST_STEP: Duration = Duration::from_secs(2);

/// Threads tried for a shard.
const TRIES: u32 = 5;

/// Starts a shard on its core; returns once it serves its listeners.
///
/// # Errors
/// Where the kernel refuses the executor or the ring. Nothing is left running.
pub fn spawn(
    options: Options,
    listeners: Vec<Listener>,
    identity: log::Identity,
    recovery: Recovery,
    shared: Arc<SharedState>,
) -> Result<Handle, StartError> {
    let (tell, told) = channel::bounded(1);
    let (shard, io_memory) = (options.shard, options.io_memory);
    let builder = |_| {
        // `Placement::Fixed` reads /sys, which a sandbox may hide: the thread binds itself.
        LocalExecutorBuilder::new(Placement::Unbound)
            .name(&format!("shard-{shard}"))
            .ring_depth(256)
            .io_memory(io_memory)
            .preempt_timer(Duration::from_millis(1))
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
    };
    let state = shared.clone();
    let start = Start { options, listeners, identity, recovery, state, tell };
    let join = on_executor(builder, start, serve)?;
    match wait_for(&told, &shared) {
        Ok(Ok(())) => Ok(Handle { shared, join }),
        Ok(Err(error)) => {
            let _ = join.join();
            Err(error)
        }
        Err(_) => {
            let ended = match join.join() {
                Ok(Err(source)) => source,
                Ok(Ok(())) => io::Error::other("it ended at once"),
                Err(error) => source_of(error),
            };
            Err(StartError { doing: "cannot start a shard", source: ended })
        }
    }
}

/// Has an executor of its own do `work` on `given`.
///
/// An executor that parks before its first task ever ran (see [`heartbeat`]) cannot be woken, and
/// sleeps forever. So `given` changes hands at the first step: if that does not come, another
/// executor gets it. The sleeper is abandoned, and should it wake after all, it finds nothing to
/// do.
fn on_executor<T: Send + 'static, W: Future<Output = io::Result<()>> + 'static>(
    builder: impl Fn(u32) -> LocalExecutorBuilder,
    mut given: T,
    work: fn(T) -> W,
) -> Result<ExecutorJoinHandle<io::Result<()>>, StartError> {
    for attempt in 0..TRIES {
        // No room in it: sent is taken.
        let (hand, take) = channel::bounded::<T>(0);
        let join = builder(attempt)
            .spawn(move || async move {
                match take.recv() {
                    Ok(given) => work(given).await,
                    Err(channel::RecvError) => Ok(()),
                }
            })
            .map_err(|error| StartError {
                doing: "cannot start a shard's executor",
                source: source_of(error),
            })?;
        match hand.send_timeout(given, FIRST_STEP) {
            Err(SendTimeoutError::Timeout(back)) => {
                tracing::warn!(
                    attempt,
                    "a shard's executor stalled at its start; starting another"
                );
                given = back;
            }
            // Where the executor could not be made, its end tells why.
            Ok(()) | Err(SendTimeoutError::Disconnected(_)) => return Ok(join),
        }
    }
    let source = io::Error::from(io::ErrorKind::TimedOut);
    Err(StartError { doing: "cannot start a shard's executor", source })
}

/// Makes a shard, announces it, and runs it to its end.
async fn serve(start: Start) -> io::Result<()> {
    let Start { options, listeners, identity, recovery, state, tell } = start;
    bind_to_cpu(options.shard, options.core);
    // Whatever happens at the first wait, the shard can be woken: the task that sees to it later may
    // not have run by then.
    poll_fn(|context| {
        state.waker.register(context.waker());
        Poll::Ready(())
    })
    .await;
    // Before anything is awaited: the start may fall asleep like all that follows.
    let pace = Rc::new(Cell::new(TICK));
    heartbeat(state.clone(), pace.clone());
    register_waker(state.clone());
    let ring = match Ring::new() {
        Ok(ring) => ring,
        Err(source) => {
            let _ = tell.send(Err(StartError { doing: "cannot create a shard's ring", source }));
            state.finished();
            return Ok(());
        }
    };
    let dir = log::shard_dir(&options.log_dir, options.shard);
    if let Err(source) = probe_device(&dir).await {
        let _ = tell.send(Err(StartError { doing: "cannot open shard.meta", source }));
        state.finished();
        return Ok(());
    }
    let log_options = log::Options {
        sync: options.sync,
        // A group must fit into a segment.
        group_bytes_max: (options.segment_bytes as usize / 4).min(4 << 20),
        ..log::Options::default()
    };
    let appender = Appender::new(identity, log_options, recovery.next_offset);
    let segments = Segments::new(
        &dir,
        recovery.next_segment,
        recovery.manifest,
        options.limits.disk_low,
        state.clone(),
    );
    let (places, sockets) = listeners.into_iter().map(Listener::split).unzip();
    let advisor = options.advisor.clone();
    let shard = Shard::new(core::Parts {
        listeners: places,
        appender,
        next_segment: recovery.next_segment,
        shared: state.clone(),
        options,
        entropy: Box::new(|| crate::sys::random().ok()),
        truncated_bytes: recovery.truncated_bytes,
        lost_records: recovery.lost_records,
    });
    let parts = pump::Parts { shard, ring, listeners: sockets, segments, shared: state, advisor };
    let mut pump = Pump::new(parts, pace)?;
    // One step of filling, not a whole segment.
    let began = Instant::now();
    while !pump.shard().is_ready() && began.elapsed() < Duration::from_secs(30) {
        pump.turn()?;
        if let Some(source) = pump.shard().take_failure() {
            let told = format!("{}: {source}", dir.display());
            let source = io::Error::new(source.kind(), told);
            let _ = tell.send(Err(StartError { doing: "cannot create a log segment", source }));
            return Ok(());
        }
        glommio::executor().yield_task_queue_now().await;
    }
    if !pump.shard().is_ready() {
        let source = io::Error::from(io::ErrorKind::TimedOut);
        let _ = tell.send(Err(StartError { doing: "cannot create a log segment", source }));
        return Ok(());
    }
    pump.shard().serve_listeners();
    pump.begin_all();
    let _ = tell.send(Ok(()));
    run(pump).await
}

/// Keeps the calling thread on a CPU. A machine that does not let it is slower, and serves.
fn bind_to_cpu(shard: u16, core: usize) {
    // SAFETY: an all-zero cpu_set_t is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core < size_of_val(&set) * 8 {
        // SAFETY: the index lies in the set.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: `set` is readable and its size is the one given.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!("shard {shard} is not bound to CPU {core}: {error}");
    }
}

/// Waits for a shard's word of its start, and wakes it meanwhile.
fn wait_for<T>(told: &channel::Receiver<T>, shared: &SharedState) -> Result<T, RecvTimeoutError> {
    loop {
        match told.recv_timeout(Watch::LOOK) {
            Err(RecvTimeoutError::Timeout) => shared.waker.wake(),
            told => return told,
        }
    }
}

/// glommio can park while tasks are runnable if its preemption timer fires before the first queue
/// runs. A timer that is always pending bounds such a nap to one tick, or the wait of an idle shard; where it has fired already,
/// [`Watch`] helps.
fn heartbeat(shared: Arc<SharedState>, pace: Rc<Cell<Duration>>) {
    background(async move {
        while !shared.is_finished() {
            sleep(pace.get()).await;
        }
    });
}

/// The pump's loop. A panic in it aborts the process: it must not unwind into the commit path
/// (D17).
async fn run(mut pump: Pump) -> io::Result<()> {
    struct Abort;
    impl Drop for Abort {
        fn drop(&mut self) {
            if std::thread::panicking() {
                std::process::abort();
            }
        }
    }
    let _abort = Abort;
    let mut yielded = Instant::now();
    loop {
        let worked = pump.turn()?;
        if pump.shard().is_drained() {
            pump.settle().await;
            pump.finish();
            return Ok(());
        }
        // Other tasks of the executor get their turn when there is nothing to do here, and each
        // millisecond under load.
        if !worked || yielded.elapsed() >= Duration::from_millis(1) {
            glommio::executor().yield_task_queue_now().await;
            yielded = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_that_sleeps_at_its_start_is_replaced() {
        let (tell, told) = channel::bounded(1);
        // Preempted before anything runs, as on a machine that takes the core away at that moment.
        let builder = |attempt| {
            let timer = if attempt == 0 { Duration::ZERO } else { Duration::from_millis(1) };
            LocalExecutorBuilder::new(Placement::Unbound)
                .ring_depth(64)
                .io_memory(64 << 10)
                .preempt_timer(timer)
        };
        let began = Instant::now();
        let work = |tell: Sender<()>| async move { tell.send(()).map_err(io::Error::other) };
        let join = on_executor(builder, tell, work).unwrap();
        told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(began.elapsed() >= FIRST_STEP, "the first did sleep");
        join.join().unwrap().unwrap();
    }
}
