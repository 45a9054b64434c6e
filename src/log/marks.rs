//! The shards' high-water marks, where other threads see them: besides files, the only thing that
//! the two planes share.
//!
//! A shard stores its mark and, only if a thread sleeps, wakes that one: a consumer costs the shard
//! one relaxed load for each commit, whether it is idle or busy. The woken thread ([`Listener`])
//! then wakes all who wait.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    time::Duration,
};

use crossbeam::{
    sync::{Parker, Unparker},
    utils::CachePadded,
};

/// See the module's page. Lives as long as the server; both planes.
#[derive(Debug)]
pub struct HighWaterMarks {
    marks: Box<[CachePadded<AtomicU64>]>,
    /// The listener sleeps, or is about to.
    sleeping: CachePadded<AtomicBool>,
    unparker: Unparker,
}

/// Waits for a mark to move. There is one.
#[derive(Debug)]
pub struct Listener {
    parker: Parker,
}

impl HighWaterMarks {
    /// Marks of `shards` shards, all 0, and the one listener.
    #[must_use]
    pub fn new(shards: usize) -> (Self, Listener) {
        let parker = Parker::new();
        let marks = (0..shards).map(|_| CachePadded::new(AtomicU64::new(0))).collect();
        let sleeping = CachePadded::new(AtomicBool::new(false));
        (Self { marks, sleeping, unparker: parker.unparker().clone() }, Listener { parker })
    }

    /// First offset of a shard that is not yet synced; 0 for a shard that is not there.
    #[must_use]
    pub fn get(&self, shard: u16) -> u64 {
        self.marks.get(usize::from(shard)).map_or(0, |mark| mark.load(Ordering::Acquire))
    }

    /// Advances a shard's mark.
    ///
    /// # Panics
    /// Where it would go back: a mark only grows.
    pub fn publish(&self, shard: u16, mark: u64) {
        let Some(slot) = self.marks.get(usize::from(shard)) else { return };
        let before = slot.load(Ordering::Relaxed);
        if before == mark {
            return;
        }
        assert!(before < mark, "the high-water mark only grows");
        slot.store(mark, Ordering::Release);
        // Either this sees the sleeper, or the sleeper sees the mark.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.unparker.unpark();
        }
    }

    /// Ends a wait early.
    pub fn wake(&self) {
        self.unparker.unpark();
    }
}

impl Listener {
    /// Waits until a mark differs from what `seen` holds, or for `timeout`; then copies all marks
    /// to `seen`. True if one has moved.
    pub fn wait(&self, marks: &HighWaterMarks, seen: &mut Vec<u64>, timeout: Duration) -> bool {
        seen.resize(marks.marks.len(), 0);
        marks.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !look(marks, seen) {
            self.parker.park_timeout(timeout);
        } else {
            marks.sleeping.store(false, Ordering::Relaxed);
            return true;
        }
        marks.sleeping.store(false, Ordering::Relaxed);
        look(marks, seen)
    }
}

/// Copies the marks; says whether one has moved.
fn look(marks: &HighWaterMarks, seen: &mut [u64]) -> bool {
    let mut moved = false;
    for (seen, mark) in seen.iter_mut().zip(&marks.marks) {
        let mark = mark.load(Ordering::Acquire);
        moved |= mark != *seen;
        *seen = mark;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread, time::Instant};

    #[test]
    fn a_sleeper_misses_no_mark() {
        let (marks, listener) = HighWaterMarks::new(2);
        let marks = Arc::new(marks);
        let writer = {
            let marks = marks.clone();
            thread::spawn(move || {
                for mark in 1..=20_000 {
                    marks.publish((mark % 2) as u16, mark);
                }
            })
        };
        let began = Instant::now();
        let mut seen = Vec::new();
        while seen != [20_000, 19_999] {
            listener.wait(&marks, &mut seen, Duration::from_secs(10));
            assert!(began.elapsed() < Duration::from_secs(9), "a wake was lost at {seen:?}");
        }
        writer.join().unwrap();
        assert!(!listener.wait(&marks, &mut seen, Duration::from_millis(1)), "nothing has moved");
    }

    #[test]
    #[should_panic(expected = "only grows")]
    fn a_mark_never_goes_back() {
        let (marks, _listener) = HighWaterMarks::new(1);
        marks.publish(0, 5);
        marks.publish(0, 4);
    }
}
