//! The ports between shards and advisors: questions that a shard must not answer itself, because
//! they block or take milliseconds of a core.
//!
//! A session waits for its answer while all others continue. The advisor works on threads of its
//! own; an answer wakes the shard that asked ([`AnswerReceiver`]).

use std::{fmt, net::IpAddr, sync::Arc};

use crate::smtp::{Rejection, ScramCredential};

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
    /// Is this message to be taken? Takes DNS, and time for all of its octets.
    Message(Box<MessageQuestion>),
}

/// A message that is whole, and not taken yet.
pub struct MessageQuestion {
    /// Given back with the answer.
    pub number: u64,
    /// The `listener` label.
    pub listener: Arc<str>,
    /// After PROXY and XCLIENT.
    pub client: IpAddr,
    /// Argument of HELO or EHLO.
    pub helo: String,
    /// Reverse-path without brackets; empty: the null one.
    pub mail_from: String,
    /// The mail data.
    pub octets: Vec<u8>,
}

impl MessageQuestion {
    /// Answers the question of this number.
    pub fn answer(number: u64, ticket: Ticket, judgement: Judgement) {
        ticket.answer(Answer::Message { number, judgement });
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password of {user:?}"),
            Self::Client { address, .. } => write!(f, "Client {address}"),
            Self::Message(message) => write!(f, "Message of {} bytes", message.octets.len()),
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
    /// To [`Question::Message`].
    Message {
        /// The question's.
        number: u64,
        /// Whether it is taken.
        judgement: Judgement,
    },
}

/// Whether a message is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is.
    Accept,
    /// It is not, and this is the reply.
    Reject(Rejection),
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

/// Where answers go: the shard that asked.
pub trait AnswerReceiver: Send + Sync {
    /// Takes the answer to the question that was asked under this number; must not block.
    fn receive(&self, number: u64, answer: Answer);
}

/// Where the answer to one question goes.
pub struct Ticket {
    number: u64,
    receiver: Arc<dyn AnswerReceiver>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?})", self.number)
    }
}

impl Ticket {
    /// For a question that the receiver knows by this number.
    pub fn new(number: u64, receiver: Arc<dyn AnswerReceiver>) -> Self {
        Self { number, receiver }
    }

    /// Answers; the connection may be gone by now, which does no harm.
    pub fn answer(self, answer: Answer) {
        self.receiver.receive(self.number, answer);
    }
}

/// A ticket, and the channel its answer comes by.
#[cfg(test)]
pub(super) fn test_ticket() -> (Ticket, std::sync::mpsc::Receiver<Answer>) {
    struct Sender(std::sync::mpsc::Sender<Answer>);

    impl AnswerReceiver for Sender {
        fn receive(&self, _: u64, answer: Answer) {
            // The test may have ended.
            let _ = self.0.send(answer);
        }
    }

    let (sender, receiver) = std::sync::mpsc::channel();
    (Ticket::new(0, Arc::new(Sender(sender))), receiver)
}
