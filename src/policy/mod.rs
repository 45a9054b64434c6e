//! Who may send, and to whom: recipients that are ours, users and their passwords, what the DNS
//! says of a client. What a shard asks without waiting is a snapshot here; what takes time is done
//! by threads of this room, which answer it (`shard::Advisor`).

mod accept;
pub mod dns;
mod mailbox;
mod names;

pub use accept::{Accept, AcceptError, AcceptOptions};

use std::sync::{Arc, PoisonError, RwLock};

use crate::shard::{Advisor, Answer, ClientAdvice, Question, Ticket};

/// Who answers the questions of shards, each kind by threads of its own.
#[derive(Debug, Default)]
pub struct Advisors {
    /// Those about clients; `None`: no listener asks any.
    clients: RwLock<Option<Arc<dns::ClientAdvisor>>>,
}

impl Advisors {
    /// Who answers those about clients.
    pub fn clients(&self) -> Option<Arc<dns::ClientAdvisor>> {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets questions about clients be answered.
    pub fn set_clients(&self, clients: dns::ClientAdvisor) {
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(clients));
    }
}

impl Advisor for Advisors {
    fn ask(&self, question: Question, ticket: Ticket) {
        match question {
            Question::Client { listener, address } => match self.clients() {
                Some(clients) => clients.ask_client(&listener, address, ticket),
                None => ticket.answer(Answer::Client(ClientAdvice::default())),
            },
            Question::Password { .. } => ticket.answer(Answer::Password(None)),
        }
    }
}
