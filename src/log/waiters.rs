//! Wakes those who wait for a shard's high-water mark to move: lanes, and readers of the stream.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, bounded};

/// All of them. Cheap to clone; export and admin plane.
#[derive(Clone, Debug, Default)]
pub struct Waiters(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    number: u64,
    /// Empty: any shard.
    shards: Vec<u16>,
    wake: Sender<()>,
}

/// One who waits; dropping it unregisters it. A wake-up that was not noticed yet counts for later
/// waits.
#[derive(Debug)]
pub struct Waiter {
    number: u64,
    waiters: Waiters,
    /// A wake-up arrives here.
    pub woken: Receiver<()>,
}

impl Waiters {
    /// Waits for some shards; none: for all.
    #[must_use]
    pub fn register(&self, shards: &[u16]) -> Waiter {
        let (wake, woken) = bounded(1);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = entries.iter().map(|entry| entry.number).max().map_or(0, |last| last + 1);
        entries.push(Entry { number, shards: shards.to_vec(), wake });
        drop(entries);
        Waiter { number, waiters: self.clone(), woken }
    }

    /// Wakes those who wait for a shard.
    pub fn wake(&self, moved: impl Fn(u16) -> bool, any: bool) {
        for entry in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if (any && entry.shards.is_empty()) || entry.shards.iter().any(|&shard| moved(shard)) {
                // Full: a wake-up is there already.
                let _ = entry.wake.try_send(());
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut entries = self.waiters.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_reach_those_who_wait() {
        let waiters = Waiters::default();
        let (one, all) = (waiters.register(&[1]), waiters.register(&[]));
        waiters.wake(|shard| shard == 0, true);
        assert!(one.woken.try_recv().is_err());
        assert!(all.woken.try_recv().is_ok());
        waiters.wake(|shard| shard == 1, true);
        waiters.wake(|shard| shard == 1, true);
        assert!(one.woken.try_recv().is_ok());
        assert!(one.woken.try_recv().is_err(), "wake-ups do not pile up");
        drop(one);
        assert_eq!(waiters.0.lock().unwrap().len(), 1);
    }
}
