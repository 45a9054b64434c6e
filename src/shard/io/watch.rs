//! Wakes shards that sleep although they have work.
//!
//! glommio 0.9 may go to sleep without a time limit while tasks are runnable, if its preemption
//! timer fires before the first task queue runs. The executor's own heartbeat bounds such a sleep
//! while its timer has not fired yet. If that has fired already, only another thread can help: it
//! wakes a shard whose heartbeat stands still.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    task::{Poll, Waker},
    thread::JoinHandle,
    time::Duration,
};

use super::segments::background;
use crate::shard::SharedState;

/// So many looks without a heartbeat: the shard may be asleep.
const STILL: u32 = 2;

/// Wakes one shard, as often as it takes.
///
/// A woken executor may go to sleep again before it ran any task, by the same fault that it was woken
/// for. So a wake leaves the waker where it is: one that is gone until the shard has answered could
/// be the last.
#[derive(Debug, Default)]
pub(in crate::shard) struct ShardWaker {
    waker: Mutex<Option<Waker>>,
    /// Wakes since the shard last answered.
    unanswered: AtomicU16,
}

impl ShardWaker {
    /// Each wake that waits in glommio's queue counts as a reference to the task, and 32,767 of them
    /// are too many. A shard that answers none of this many hangs elsewhere.
    const UNANSWERED_MAX: u16 = 10_000;

    /// Takes the waker of a task of the shard's, which thereby answers.
    pub(super) fn register(&self, waker: &Waker) {
        let mut kept = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Has the executor look at all its queues.
    pub(super) fn wake(&self) {
        let kept = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waker) = kept.as_ref() else { return };
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        if unanswered < Self::UNANSWERED_MAX {
            self.unanswered.store(unanswered + 1, Ordering::Relaxed);
            waker.wake_by_ref();
        }
    }
}

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
pub(super) fn register_waker(shared: Arc<SharedState>) {
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
    fn a_shard_that_does_not_answer_is_woken_again() {
        struct Count(AtomicU16);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (count, waker) = (Arc::new(Count(AtomicU16::new(0))), ShardWaker::default());
        waker.wake();
        waker.register(&Waker::from(count.clone()));
        for _ in 0..3 {
            waker.wake();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        for _ in 0..60_000 {
            waker.wake();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), ShardWaker::UNANSWERED_MAX, "bounded");
        waker.register(&Waker::from(count.clone()));
        waker.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), ShardWaker::UNANSWERED_MAX + 1);
    }

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
