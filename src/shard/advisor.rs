//! Questions that a shard must not answer itself, because they block or take milliseconds of a
//! core.
//!
//! A session waits for its answer while all others continue. The advisor works on threads of its
//! own; an answer wakes the shard.

use std::{
    fmt,
    fs::File,
    io::Write as _,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use crossbeam::queue::SegQueue;

use super::core::Key;
use crate::smtp::ScramCredential;

/// What is asked.
pub enum Question {
    /// Is this the password of this user? Hashing takes tens of milliseconds.
    Password {
        /// The `listener` label.
        listener: Arc<str>,
        /// As the client wrote it.
        user: String,
        /// As the client wrote it; never logged.
        password: String,
    },
    /// What is known of this client: its name, DNS lists.
    Client {
        /// The `listener` label.
        listener: Arc<str>,
        /// After PROXY.
        address: IpAddr,
    },
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password of {user:?}"),
            Self::Client { address, .. } => write!(f, "Client {address}"),
        }
    }
}

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Password`]: whether it is; `None`: it could not be found out, try again.
    Password(Option<bool>),
    /// To [`Question::Client`].
    Client(ClientAdvice),
}

/// What is known of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientAdvice {
    /// Its name, confirmed by its address; empty: none, or not asked for.
    pub name: String,
    /// Sum of the weights of the lists that have it.
    pub score: i32,
    /// The zone to name in the reply, where its mail is to be refused.
    pub refused_by: Option<Arc<str>>,
}

/// Answers questions, off the shards.
pub trait Advisor: Send + Sync + fmt::Debug {
    /// Takes a question; must not block. A ticket that is dropped is never answered: the session's
    /// deadline ends its wait.
    fn ask(&self, question: Question, ticket: Ticket);

    /// What is stored for SCRAM of a user of this listener; must not block. For an unknown user it
    /// makes a credential up, the same each time. `None`: it cannot be found out, try again.
    fn credential(&self, listener: &str, user: &str) -> Option<ScramCredential> {
        let _ = (listener, user);
        None
    }
}

/// For shards that ask nothing: what is asked all the same gets no answer.
#[derive(Debug)]
pub struct NoAdvisor;

impl Advisor for NoAdvisor {
    fn ask(&self, _: Question, _: Ticket) {}
}

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

/// Where the answer to one question goes.
pub struct Ticket {
    pub(super) key: Key,
    pub(super) answers: Arc<Answers>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?})", self.key)
    }
}

impl Ticket {
    /// Answers; the connection may be gone by now, which does no harm.
    pub fn answer(self, answer: Answer) {
        self.answers.queue.push((self.key, answer));
        self.answers.wake();
    }
}

/// A ticket, and a way to wait for its answer.
#[cfg(test)]
pub(crate) fn test_ticket() -> (Ticket, impl Fn(std::time::Duration) -> Answer) {
    let answers = Arc::<Answers>::default();
    let ticket = Ticket { key: Key { index: 0, generation: 0 }, answers: answers.clone() };
    let wait = move |limit| {
        let began = std::time::Instant::now();
        loop {
            if let Some((_, answer)) = answers.pop() {
                return answer;
            }
            assert!(began.elapsed() < limit, "no answer");
            std::thread::yield_now();
        }
    };
    (ticket, wait)
}
