//! Wakes shards that sleep although they have work.
//!
//! glommio 0.9 may go to sleep without a time limit while tasks are runnable, if its preemption
//! timer fires before the first task queue runs. The executor's own heartbeat bounds such a sleep
//! while its timer has not fired yet. If that has fired already, only another thread can help: it
//! wakes a shard whose heartbeat stands still.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread::JoinHandle,
    time::Duration,
};

use super::segments::background;
use crate::shard::SharedState;

/// So many looks without a heartbeat: the shard may be asleep.
const STILL: u32 = 2;

/// The watching thread; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// How often heartbeats are looked at: an idle shard beats each 25 ms, so a nap ends within three
    /// looks.
    pub(super) const LOOK: Duration = Duration::from_millis(20);

    /// Watches these shards.
    ///
    /// # Errors
    /// Where the thread cannot be made.
    pub fn start(shards: Vec<Arc<SharedState>>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            // Heartbeats, and how many looks found no more of them.
            let mut seen = vec![(0, 0); shards.len()];
            while !told.load(Ordering::Relaxed) {
                std::thread::sleep(Self::LOOK);
                for (shard, seen) in shards.iter().zip(&mut seen) {
                    let beats = shard.published.heartbeats();
                    let still = if beats == seen.0 { seen.1 + 1 } else { 0 };
                    if still >= STILL {
                        shard.waker.wake();
                    }
                    *seen = (beats, still);
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets this shard be woken. A wake makes the executor look at all its queues; there is nothing
/// else to do.
pub(super) fn be_woken(shared: Arc<SharedState>) {
    background(poll_fn(move |context| {
        shared.waker.register(context.waker());
        if shared.is_finished() { Poll::Ready(()) } else { Poll::Pending }
    }));
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;
    use crate::metrics::Published;

    #[test]
    fn a_sleeping_shard_is_woken() {
        let shared = Arc::new(SharedState::new(Published::new()));
        let _watch = Watch::start(vec![shared.clone()]).unwrap();
        let mine = shared.clone();
        let builder =
            LocalExecutorBuilder::new(Placement::Unbound).ring_depth(64).io_memory(64 << 10);
        let woken = builder
            .spawn(move || async move {
                // Nothing here ever becomes ready by itself, and no timer runs.
                let began = Instant::now();
                let mut polls = 0;
                poll_fn(|context| {
                    mine.waker.register(context.waker());
                    polls += 1;
                    if polls > 3 { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                began.elapsed()
            })
            .unwrap()
            .join()
            .unwrap();
        assert!(woken < Duration::from_secs(5), "{woken:?}");
    }
}
