//! Refusals: counted, sent, and kept for the log.

use super::{
    super::{
        command::Verb,
        refused::{self, Refused},
        reply::Reply,
        stats::ProtocolError,
    },
    Context, Event, Session,
};

impl Session {
    /// Refuses a command; the client's fault counts against it.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, reply: Reply) -> Option<Event> {
        match reply.code() {
            503 => cx.stats.count_error(ProtocolError::BadSequence),
            500..=502 => cx.stats.count_error(ProtocolError::BadSyntax),
            _ => {}
        }
        self.errors += u32::from(reply.is_permanent());
        // Slips in the dialogue are counted; a line each would be the client's to make.
        if matches!(
            self.stage,
            Some(
                Verb::Ehlo
                    | Verb::Helo
                    | Verb::Lhlo
                    | Verb::Mail
                    | Verb::Rcpt
                    | Verb::Auth
                    | Verb::Data
                    | Verb::Bdat
                    | Verb::Starttls
            )
        ) {
            self.note(cx, reply);
        }
        cx.push(reply);
        None
    }

    /// Keeps a refusal for the log. Call before the transaction is cleared.
    pub(super) fn note(&mut self, cx: &mut Context<'_>, reply: Reply) {
        self.note_of(cx, |stage| Refused::of(stage, reply.line()));
    }

    pub(super) fn note_message(&mut self, cx: &mut Context<'_>, reply: Reply) {
        self.note_of(cx, |_| Refused::of("message", reply.line()));
    }

    /// As [`Session::note`], of what is made for the present stage; nothing is where nobody wants it.
    pub(super) fn note_of(
        &mut self,
        cx: &mut Context<'_>,
        make: impl FnOnce(&'static str) -> Refused,
    ) {
        if cx.notes.keeps_refusal() {
            let stage = self.stage.map_or("connect", Verb::name);
            let refused = Refused { mail_from: self.sender(), ..make(stage) };
            self.refusals.get_or_insert_default().note(refused);
        }
    }

    /// Says of the refusal just kept which path it was about.
    pub(super) fn note_path(&mut self, verb: Verb, argument: &[u8]) {
        let Some(refused) = self.refusals.as_mut().and_then(|all| all.list.last_mut()) else {
            return;
        };
        match verb {
            Verb::Mail if refused.stage == Verb::Mail.name() && refused.mail_from.is_none() => {
                refused.mail_from = Some(refused::path_of(argument));
            }
            Verb::Rcpt if refused.stage == Verb::Rcpt.name() && refused.rcpt.is_none() => {
                refused.rcpt = Some(refused::path_of(argument));
            }
            Verb::Ehlo | Verb::Helo | Verb::Lhlo
                if refused.stage == verb.name() && refused.helo.is_none() =>
            {
                refused.helo = Some(refused::name_of(argument));
            }
            _ => {}
        }
    }

    fn sender(&self) -> Option<Box<str>> {
        self.transaction.open.then(|| refused::cut(self.transaction.mail_from()))
    }
}
