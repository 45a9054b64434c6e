//! Mail that is judged before it is taken: asked about once it is whole, and appended once the answer
//! says so.

use super::{
    Key, Services,
    commit::Commit,
    connection::{Collected, Connection, Dialogue, JudgedMail, Phase},
    mail::Spans,
};
use crate::{
    policy::{Judgement, MessageQuestion, Question},
    smtp::Admission,
    stage::{Bug, planted},
};

impl Services {
    /// Notes ahead of a message whether it will be judged: it is kept whole then.
    pub(super) fn begin_judging(&mut self, dialogue: &mut Dialogue) {
        let Some(trusted) = &self.listeners[dialogue.place()].gate.judges else { return };
        let mail = &mut dialogue.mail;
        let begun = mail.large.is_some() || !mail.heap.is_empty();
        // Who has logged in is judged by what the login may do.
        if begun || dialogue.session.is_authenticated() || trusted.contains(dialogue.peer.ip()) {
            return;
        }
        mail.large.get_or_insert_default().judged = Some(JudgedMail::default());
    }

    /// The message is whole: its octets go with the question.
    pub(super) fn ask_for_verdict(&mut self, key: Key, dialogue: &mut Dialogue) {
        let number = u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX);
        let place = dialogue.place();
        let Some(octets) = self.commit.lend(&mut dialogue.mail, number) else { return };
        let envelope = dialogue.session.envelope();
        let question = MessageQuestion {
            number,
            listener: self.listeners[place].name.as_str().into(),
            client: dialogue.peer.ip(),
            helo: envelope.helo.to_owned(),
            mail_from: envelope.mail_from.to_owned(),
            octets,
        };
        self.ask(key, Question::Message(Box::new(question)));
    }

    /// The answer: the message becomes a record, or is refused. One that comes too late changes nothing.
    pub(super) fn judged(
        &mut self,
        key: Key,
        connection: &mut Connection,
        number: u64,
        judgement: Judgement,
    ) {
        let Connection { link, dialogue, .. } = connection;
        let asked = dialogue.mail.judged().and_then(|mail| mail.question);
        let is_its_own = asked == Some(number) || planted(Bug::LateAnswerTaken);
        let awaited = asked.is_some() && is_its_own && dialogue.session.is_waiting_for_verdict();
        if link.phase != Phase::Open || !awaited {
            return;
        }
        match judgement {
            Judgement::Accept => {
                self.end_of_mail(key, dialogue, &[], &mut Spans::default());
            }
            Judgement::Reject(rejection) => {
                self.with_admission(dialogue, Admission::Open, |session, context| {
                    session.resolve_rejected(context, &rejection);
                });
                self.commit.discard(&mut dialogue.mail);
            }
        }
        self.go_on(key, connection);
        self.arm(key, connection);
    }

    /// The session has its answer: what came meanwhile is processed.
    pub(super) fn go_on(&mut self, key: Key, connection: &mut Connection) {
        // Who did not wait for the reply waits for the next tick.
        if !connection.link.intake.is_paused() {
            self.take_plain(key, connection, &[]);
            self.end_if_read(connection);
        }
    }
}

impl Commit {
    /// A copy of a message that is to be judged; asked for once.
    fn lend(&mut self, mail: &mut Collected, number: u64) -> Option<Vec<u8>> {
        let before = mail.memory();
        let large = mail.large.as_mut()?;
        let judged = large.judged.as_mut().filter(|judged| judged.question.is_none())?;
        let mut octets = std::mem::take(&mut judged.copy);
        octets.extend_from_slice(match &large.filling {
            Some(buffer) => buffer.data(),
            None => &mail.heap,
        });
        judged.lent_bytes = octets.capacity() as u64;
        judged.question = Some(number);
        self.account(before, mail);
        Some(octets)
    }
}
