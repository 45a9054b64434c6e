//! Questions to the advisor, and its answers.

use super::Driver;
use crate::shard::{Answer, Question, Ticket, connection::Key};

impl Driver {
    /// Asks for a connection; [`Driver::take_answers`] sees the answer.
    pub(super) fn ask(&self, key: Key, question: Question) {
        let ticket = Ticket { key, answers: self.shared.answers.clone() };
        self.options.advisor.ask(question, ticket);
    }

    /// Hands the answers that have come to their connections.
    pub(super) fn take_answers(&mut self) {
        while let Some((key, answer)) = self.shared.answers.pop() {
            let Some(mut connection) = self.take(key) else { continue };
            match answer {
                Answer::Client(advice) => self.advised(key, &mut connection, advice),
                Answer::Password(_) => {}
            }
            self.put(key, connection);
            self.touch(key);
        }
    }
}
