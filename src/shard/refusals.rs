//! Refusals on their way from a shard to its refusal log: a bounded queue that the shard never waits
//! for, and whose reader looks by itself, so that a refusal costs no system call.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::log::Refusal;

/// Refusals a second that a shard keeps; twice as many at once. The rest of a flood is counted.
pub(super) const RATE: u32 = 1_000;

/// Refusals that wait: more than may come between two looks of the reader.
const QUEUE_MAX: usize = 4 * RATE as usize;

/// The shard's end, and how many were left out. Both planes.
#[derive(Debug)]
pub struct RefusalQueue {
    sender: Sender<Refusal>,
    dropped: AtomicU64,
}

impl RefusalQueue {
    /// With the end that is read.
    #[must_use]
    pub fn new() -> (Arc<Self>, Receiver<Refusal>) {
        let (sender, receiver) = bounded(QUEUE_MAX);
        (Arc::new(Self { sender, dropped: AtomicU64::new(0) }), receiver)
    }

    /// Refusals left out since the last call.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    pub(super) fn push(&self, refusal: Refusal) {
        if self.sender.try_send(refusal).is_err() {
            self.left_out(1);
        }
    }

    pub(super) fn left_out(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_left_out_and_counted() {
        let (queue, receiver) = RefusalQueue::new();
        let refusal = Refusal {
            at: 1,
            listener: "mx".to_owned(),
            client: None,
            helo: String::new(),
            mail_from: None,
            rcpt_to: None,
            stage: "connect".to_owned(),
            code: 421,
            enhanced: String::new(),
            text: String::new(),
            reason: String::new(),
        };
        for _ in 0..QUEUE_MAX + 7 {
            queue.push(refusal.clone());
        }
        assert_eq!((queue.take_dropped(), queue.take_dropped()), (7, 0));
        assert_eq!(receiver.try_iter().count(), QUEUE_MAX);
        drop(receiver);
        queue.push(refusal);
        assert_eq!(queue.take_dropped(), 1, "nobody writes any more");
    }
}
