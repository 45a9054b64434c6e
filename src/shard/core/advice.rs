//! Questions of sessions and their answers: some are known here, the others come from the advisor.

use super::{
    Key, Services, Submission,
    connection::{Connection, Dialogue, Phase},
};
use crate::{
    policy::{Answer, Question, Ticket},
    smtp::{AuthAnswer, AuthQuestion, Nonce},
};

impl Services {
    /// Passes a session's question on to where the answer is known.
    pub(super) fn ask_for(&mut self, key: Key, connection: &mut Connection) {
        if connection.dialogue.session.is_waiting_for_verdict() {
            self.ask_for_verdict(key, &mut connection.dialogue);
        }
        if connection.link.phase == Phase::Open
            && let Some(question) = connection.dialogue.session.auth_question()
            && let Some(answer) = self.authenticate(key, &connection.dialogue, question)
        {
            self.resolve_auth(key, connection, answer);
        }
        self.arm(key, connection);
        self.outgoing.touch(key, &mut connection.link);
    }

    /// The answer to a question, where it is known here; else the advisor is asked.
    fn authenticate(
        &mut self,
        key: Key,
        dialogue: &Dialogue,
        question: AuthQuestion,
    ) -> Option<AuthAnswer> {
        if self.is_blocked(dialogue) {
            return Some(AuthAnswer::Blocked);
        }
        let listener = &self.listeners[dialogue.place()].name;
        Some(match question {
            AuthQuestion::Password { user, password } => {
                let listener = listener.as_str().into();
                self.ask(key, Question::Password { listener, user, password });
                return None;
            }
            AuthQuestion::Credential { user, binding } => {
                let facts = dialogue.tls.as_ref().filter(|_| binding);
                let binding = facts.and_then(|facts| facts.channel_binding());
                let credential = self.advisor.credential(listener, &user);
                match credential.zip((self.entropy)()) {
                    Some((credential, random)) => AuthAnswer::Credential {
                        credential,
                        nonce: Nonce::new(random),
                        binding: binding.map(Vec::from).unwrap_or_default(),
                    },
                    None => AuthAnswer::Unavailable,
                }
            }
            AuthQuestion::Subject => {
                let subject = dialogue.tls.as_ref().and_then(|facts| facts.client_subject());
                AuthAnswer::Subject(subject.map(String::from))
            }
        })
    }

    fn resolve_auth(&mut self, key: Key, connection: &mut Connection, answer: AuthAnswer) {
        let dialogue = &mut connection.dialogue;
        self.with_session(dialogue, |session, context| session.resolve_auth(context, answer));
        self.note_auth_failure(dialogue);
        // Who did not wait for the reply waits for the next tick.
        if !connection.link.intake.is_paused() {
            self.take_plain(key, connection, &[]);
        }
    }

    /// Asks for a connection; [`Services::answered`] sees the answer.
    pub(super) fn ask(&mut self, key: Key, question: Question) {
        let ticket = Ticket::new(key.number(), self.shared.answers.clone());
        self.submit(Submission::Ask(Box::new((question, ticket))));
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, key: Key, connection: &mut Connection, answer: Answer) {
        match answer {
            Answer::Password(known) if connection.link.phase == Phase::Open => {
                let answer = known.map_or(AuthAnswer::Unavailable, AuthAnswer::Password);
                self.resolve_auth(key, connection, answer);
                self.arm(key, connection);
            }
            Answer::Password(_) => {}
            Answer::Client(advice) => self.advised(key, connection, advice),
            Answer::Message { number, judgement } => {
                self.judged(key, connection, number, judgement)
            }
        }
        self.outgoing.touch(key, &mut connection.link);
    }
}
