//! Who may send, as whom, and to whom: our recipients, senders, users and their passwords, what DNS
//! says about a client. What a shard needs at once is a snapshot; what takes time is done by threads of this
//! room, which answer the shard ([`Advisor`]).

mod accept;
mod advisor;
pub mod dns;
mod mailbox;
mod names;
mod saslprep;
mod senders;
mod users;
mod users_edit;
mod workers;

pub use accept::{Accept, AcceptError, AcceptOptions};
pub use advisor::{
    Advisor, Answer, AnswerReceiver, ClientAdvice, Judgement, MessageQuestion, NoAdvisor, Question,
    Ticket,
};
pub use senders::Senders;
pub use users::{Users, UsersError, UsersFile};
pub use users_edit::{Edit, EditError, Listed, edit_users, list_users};
pub use workers::Workers;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use crate::smtp::ScramCredential;

/// Answers the questions of shards, each kind on threads of its own.
#[derive(Debug, Default)]
pub struct Advisors {
    /// Those about clients; `None`: no listener asks any.
    clients: RwLock<Option<Arc<dns::ClientAdvisor>>>,
    /// Those about users; `None`: no listener has any.
    users: RwLock<Option<Arc<Workers>>>,
    /// Those about messages; `None`: no listener has them judged before it takes them.
    messages: RwLock<Option<Arc<dyn MessageAdvisor>>>,
}

/// Says whether messages are taken.
pub trait MessageAdvisor: Send + Sync + fmt::Debug {
    /// As [`Advisor::ask`]; must not block.
    fn ask(&self, question: Box<MessageQuestion>, ticket: Ticket);
}

impl Advisors {
    /// What answers questions about clients.
    pub fn clients(&self) -> Option<Arc<dns::ClientAdvisor>> {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets questions about clients be answered.
    pub fn set_clients(&self, clients: dns::ClientAdvisor) {
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(clients));
    }

    /// What answers questions about users.
    pub fn users(&self) -> Option<Arc<Workers>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets questions about users be answered, by others than before where there were any.
    pub fn set_users(&self, users: Option<Workers>) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users.map(Arc::new);
    }

    /// Lets questions about messages be answered.
    pub fn set_messages(&self, messages: Arc<dyn MessageAdvisor>) {
        *self.messages.write().unwrap_or_else(PoisonError::into_inner) = Some(messages);
    }
}

impl Advisor for Advisors {
    fn ask(&self, question: Question, ticket: Ticket) {
        match question {
            Question::Client { listener, address } => match self.clients() {
                Some(clients) => clients.ask_client(&listener, address, ticket),
                None => ticket.answer(Answer::Client(ClientAdvice::default())),
            },
            Question::Message(message) => {
                let messages = self.messages.read().unwrap_or_else(PoisonError::into_inner);
                match messages.clone() {
                    Some(messages) => messages.ask(message, ticket),
                    None => MessageQuestion::answer(message.number, ticket, Judgement::Accept),
                }
            }
            question @ Question::Password { .. } => match self.users() {
                Some(users) => users.ask(question, ticket),
                None => ticket.answer(Answer::Password(None)),
            },
        }
    }

    fn credential(&self, listener: &str, user: &str) -> Option<ScramCredential> {
        self.users()?.credential(listener, user)
    }
}
