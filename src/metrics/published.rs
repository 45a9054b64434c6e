//! How a scraper gets a copy of a shard's counters.

use super::{Hitters, ShardStats};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What a shard is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// Started, the log not yet recovered.
    Recovering = 0,
    /// Recovered and listening.
    Serving = 1,
    /// Refuses new sessions and finishes the open ones.
    Draining = 2,
    /// Ended.
    Stopped = 3,
    /// The log gave up after repeated failures (D5): nothing is taken until a restart.
    Failed = 4,
}

impl ShardState {
    /// Its name in pages and documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// Where one shard and the scraper meet.
///
/// The shard calls [`Published::beat`] at each heartbeat: one relaxed store and one load. Only when
/// a copy is wanted does it make one. The scraper calls [`Published::request`], then looks for the
/// copy with [`Published::take`]. One scraper at a time; a late copy is dropped at the next request.
#[derive(Debug)]
pub struct Published {
    wanted: AtomicBool,
    state: AtomicU8,
    heartbeats: AtomicU64,
    sender: Sender<Box<ShardStats>>,
    receiver: Receiver<Box<ShardStats>>,
    hitters_wanted: AtomicBool,
    hitters: (Sender<Box<Hitters>>, Receiver<Box<Hitters>>),
}

impl Published {
    /// A slot for one shard, in state [`ShardState::Recovering`].
    pub fn new() -> Arc<Self> {
        let (sender, receiver) = bounded(1);
        Arc::new(Self {
            wanted: AtomicBool::new(false),
            state: AtomicU8::new(ShardState::Recovering as u8),
            heartbeats: AtomicU64::new(0),
            sender,
            receiver,
            hitters_wanted: AtomicBool::new(false),
            hitters: bounded(1),
        })
    }

    /// Shard: marks it alive and, if a copy is wanted, sends the one that `copy` makes, which is
    /// given the number of heartbeats so far.
    #[inline]
    pub fn beat(&self, copy: impl FnOnce(u64) -> Box<ShardStats>) {
        // The shard is the only writer, so no read-modify-write is needed.
        let heartbeats = self.heartbeats.load(Ordering::Relaxed).wrapping_add(1);
        self.heartbeats.store(heartbeats, Ordering::Relaxed);
        if self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::Acquire) {
            // A full slot holds an equally late copy: losing this one costs the scraper nothing.
            drop(self.sender.try_send(copy(heartbeats)));
        }
    }

    /// Shard: with each heartbeat, a copy of its sketches where one is wanted.
    #[inline]
    pub fn show_hitters(&self, copy: impl FnOnce() -> Box<Hitters>) {
        if self.hitters_wanted.load(Ordering::Relaxed)
            && self.hitters_wanted.swap(false, Ordering::Acquire)
        {
            drop(self.hitters.0.try_send(copy()));
        }
    }

    /// Reader: asks for a copy of the sketches, as [`Published::request`] does for the counters.
    pub fn request_hitters(&self) {
        drop(self.hitters.1.try_recv());
        self.hitters_wanted.store(true, Ordering::Release);
    }

    /// Reader: the copy, if the shard has sent it.
    pub fn take_hitters(&self) -> Option<Box<Hitters>> {
        self.hitters.1.try_recv().ok()
    }

    /// Shard: publishes what it is doing.
    pub fn set_state(&self, state: ShardState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// What the shard is doing.
    pub fn state(&self) -> ShardState {
        match self.state.load(Ordering::Acquire) {
            0 => ShardState::Recovering,
            1 => ShardState::Serving,
            2 => ShardState::Draining,
            4 => ShardState::Failed,
            _ => ShardState::Stopped,
        }
    }

    /// Heartbeats so far.
    pub fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }

    /// Scraper: asks for a copy and drops one that came too late for the last request.
    pub fn request(&self) {
        drop(self.receiver.try_recv());
        self.wanted.store(true, Ordering::Release);
    }

    /// Scraper: the copy, if the shard has sent it.
    pub fn take(&self) -> Option<Box<ShardStats>> {
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Names;

    #[test]
    fn a_copy_is_made_only_when_wanted() {
        let published = Published::new();
        published.beat(|_| unreachable!("nobody asked"));
        assert!(published.take().is_none());
        published.request();
        published.beat(|_| Box::new(ShardStats::new(3, &["mx"], Names::default())));
        published.beat(|_| unreachable!("answered already"));
        assert_eq!(published.take().expect("sent").shard, 3);
        assert_eq!(published.heartbeats(), 3);
    }

    #[test]
    fn a_late_copy_is_dropped() {
        let published = Published::new();
        published.request();
        published.beat(|_| Box::new(ShardStats::new(0, &[], Names::default())));
        published.request();
        assert!(published.take().is_none());
        published.set_state(ShardState::Draining);
        assert_eq!(published.state(), ShardState::Draining);
    }
}
