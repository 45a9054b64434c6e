//! Answers of advisors on their way to a shard, and what wakes it.

use std::{fmt, fs::File, io::Write as _, sync::OnceLock};

use crossbeam::queue::SegQueue;

use super::core::Key;
use crate::policy::{Answer, AnswerReceiver};

/// Answers on their way to a shard, and what wakes it.
#[derive(Default)]
pub(super) struct Answers {
    queue: SegQueue<(Key, Answer)>,
    wake: OnceLock<File>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answers({})", self.queue.len())
    }
}

impl Answers {
    /// The next one.
    pub(super) fn pop(&self) -> Option<(Key, Answer)> {
        self.queue.pop()
    }

    /// Has the shard woken by an eventfd(2) from now on.
    pub(super) fn wake_by(&self, event: File) {
        // There is one for each shard.
        let _ = self.wake.set(event);
    }

    /// The shard's next turn comes at once.
    pub(super) fn wake(&self) {
        if let Some(mut event) = self.wake.get() {
            // Full: it is awake.
            let _ = event.write(&1_u64.to_ne_bytes());
        }
    }
}

impl AnswerReceiver for Answers {
    fn receive(&self, number: u64, answer: Answer) {
        self.queue.push((Key::from_number(number), answer));
        self.wake();
    }
}
