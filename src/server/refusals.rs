//! The thread that writes refusal logs: it takes what the shards' queues hold, and never holds a shard
//! up. What the disk does not take is left out and counted, as is what a flood brings.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::channel::Receiver;

use crate::{
    log::{Refusal, RefusalWriter},
    metrics::RefusalMetrics,
    shard::RefusalQueue,
    sys::{BACKGROUND, lower_priority},
};

/// How often it looks: nobody wakes it, so that a refusal costs a shard no system call. A queue holds
/// what four seconds bring.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often an error of the disk is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Refusals written at a time.
const BATCH: usize = 1_024;

/// The running thread. Dropping it writes what is left.
#[derive(Debug)]
pub(super) struct RefusalLog {
    queues: Vec<Arc<RefusalQueue>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RefusalLog {
    /// For so many shards, each with a bound in bytes; none: nothing is kept.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn start(
        dir: &Path,
        shards: usize,
        bytes_max: Option<u64>,
        metrics: RefusalMetrics,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let Some(bytes_max) = bytes_max else {
            return Ok(Self { queues: Vec::new(), stop, thread: None });
        };
        let (mut queues, mut lanes) = (Vec::new(), Vec::new());
        for shard in 0..shards {
            let (queue, receiver) = RefusalQueue::new();
            queues.push(queue.clone());
            lanes.push(Lane {
                shard: u16::try_from(shard).map_err(io::Error::other)?,
                queue,
                receiver,
                writer: None,
                complained: None,
            });
        }
        let (dir, asked) = (dir.to_owned(), stop.clone());
        let thread = thread::Builder::new().name("refusals".to_owned()).spawn(move || {
            lower_priority(BACKGROUND);
            loop {
                // Read ahead of the queues: what came before the end is written.
                let last = asked.load(Ordering::Acquire);
                for lane in &mut lanes {
                    lane.write(&dir, bytes_max, &metrics);
                }
                if last {
                    break;
                }
                thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(Self { queues, stop, thread: Some(thread) })
    }

    /// Where a shard puts its refusals.
    pub(super) fn queue(&self, shard: usize) -> Option<Arc<RefusalQueue>> {
        self.queues.get(shard).cloned()
    }
}

impl Drop for RefusalLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the refusal log panicked");
        }
    }
}

/// One shard's.
struct Lane {
    shard: u16,
    queue: Arc<RefusalQueue>,
    receiver: Receiver<Refusal>,
    /// Opened with the first refusal, and again after an error.
    writer: Option<RefusalWriter>,
    complained: Option<Instant>,
}

impl Lane {
    fn write(&mut self, dir: &Path, bytes_max: u64, metrics: &RefusalMetrics) {
        loop {
            let batch: Vec<Refusal> = self.receiver.try_iter().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let count = batch.len() as u64;
            match self.append(dir, bytes_max, &batch) {
                Ok(()) => metrics.written(count),
                Err(error) => {
                    self.writer = None;
                    metrics.dropped(count);
                    self.complain(&error);
                }
            }
        }
        metrics.dropped(self.queue.take_dropped());
    }

    fn append(&mut self, dir: &Path, bytes_max: u64, batch: &[Refusal]) -> io::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            writer => writer.insert(RefusalWriter::open(dir, self.shard, bytes_max)?),
        };
        writer.append(batch)
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            let shard = self.shard;
            tracing::warn!(shard, %error, "refusals are not kept; mail is not affected");
        }
    }
}
