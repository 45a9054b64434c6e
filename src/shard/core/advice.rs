//! Questions of sessions, and the answers: some are known here, the others are the advisor's.

use super::{
    Key, Shard, Submission,
    connection::{Connection, Phase},
};
use crate::{
    shard::{Answer, Question, Ticket},
    smtp::{AuthAnswer, AuthQuestion, Nonce},
};

impl Shard {
    /// Takes what sessions want to know to whoever knows it.
    pub(super) fn ask_pending(&mut self) {
        while let Some(key) = self.asking.pop() {
            let Some(mut connection) = self.take(key) else { continue };
            if connection.phase == Phase::Open
                && let Some(question) = connection.session.auth_question()
            {
                self.authenticate(key, &mut connection, question);
            }
            self.arm(key, &mut connection);
            self.put(key, connection);
            self.touch(key);
        }
    }

    fn authenticate(&mut self, key: Key, connection: &mut Connection, question: AuthQuestion) {
        let listener = &self.listeners[usize::from(connection.listener)].name;
        let answer = if self.is_blocked(connection.peer.ip()) {
            AuthAnswer::Blocked
        } else {
            match question {
                AuthQuestion::Password { user, password } => {
                    let listener = listener.as_str().into();
                    self.ask(key, Question::Password { listener, user, password });
                    return;
                }
                AuthQuestion::Credential { user, binding } => {
                    let facts = connection.tls_facts.as_ref().filter(|_| binding);
                    let binding = facts.and_then(|facts| facts.channel_binding());
                    let credential = self.options.advisor.credential(listener, &user);
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
                    let facts = connection.tls_facts.as_ref();
                    let subject = facts.and_then(|facts| facts.client_subject());
                    AuthAnswer::Subject(subject.map(String::from))
                }
            }
        };
        self.resolve_auth(key, connection, answer);
    }

    fn resolve_auth(&mut self, key: Key, connection: &mut Connection, answer: AuthAnswer) {
        self.with_session(connection, |session, context| session.resolve_auth(context, answer));
        self.note_auth_failure(connection);
        // Who did not wait for the reply waits for the next tick.
        if connection.paused.is_none() {
            self.octets(key, connection, &[]);
        }
    }

    /// Asks for a connection; [`Shard::take_answers`] sees the answer.
    pub(super) fn ask(&mut self, key: Key, question: Question) {
        let ticket = Ticket { key, answers: self.shared.answers.clone() };
        self.submit(Submission::Ask { question, ticket });
    }

    /// Hands the answers that have come to their connections.
    pub(super) fn take_answers(&mut self) {
        while let Some((key, answer)) = self.shared.answers.pop() {
            let Some(mut connection) = self.take(key) else { continue };
            match answer {
                Answer::Password(known) if connection.phase == Phase::Open => {
                    let answer = known.map_or(AuthAnswer::Unavailable, AuthAnswer::Password);
                    self.resolve_auth(key, &mut connection, answer);
                    self.arm(key, &mut connection);
                }
                Answer::Password(_) => {}
                Answer::Client(advice) => self.advised(key, &mut connection, advice),
            }
            self.put(key, connection);
            self.touch(key);
        }
    }
}
