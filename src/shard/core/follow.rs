//! What a shard tells of its sessions while they go on: a few numbers to the flight recorder, always,
//! and whole events to those who follow sessions, where there are any.

use std::time::Duration;

use super::{
    Key, Services,
    connection::{Connection, Dialogue},
};
use crate::{
    log::Offset,
    metrics::{HitBy, Hitters, Label},
    shard::{
        flight::{self, Event, Kind},
        trace::{RECIPIENTS_MAX, Subject, What},
    },
    smtp::{Refused, Session},
};

/// The number of a connection in what is recorded and followed: its place, which is used again. Three
/// octets, which find room in a connection where four would not.
#[derive(Clone, Copy, Default)]
pub(super) struct Number([u8; 3]);

impl Number {
    pub(super) fn of(key: Key) -> Self {
        let [a, b, c, _] = (key.index + 1).to_le_bytes();
        Self([a, b, c])
    }

    /// From 1; 0 before it has a place.
    pub(super) fn get(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0])
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Services {
    /// Microseconds since 1970.
    pub(super) fn at(&self) -> u64 {
        u64::try_from(self.commit.appender.unix_micros()).unwrap_or(0)
    }

    fn subject<'a>(&'a self, dialogue: &Dialogue) -> Subject<'a> {
        Subject {
            shard: self.tuning.shard(),
            session: u64::from(dialogue.number.get()),
            client: dialogue.peer,
            listener: &self.listeners[dialogue.place()].name,
        }
    }

    /// An event for the flight recorder; `code` and `value` as [`Kind`] has them.
    pub(super) fn record(&self, kind: Kind, session: u32, code: u16, value: u64) {
        self.shared.recorder.note(Event { at: self.at(), kind, code, session, value });
    }

    fn follow(&self, dialogue: &Dialogue, what: impl Fn() -> What) {
        if self.tracer.is_on() {
            self.tracer.tell(self.subject(dialogue), self.at(), what);
        }
    }

    /// It is known who the client is.
    pub(super) fn session_opened(&self, dialogue: &Dialogue) {
        let client = flight::address(dialogue.peer.ip());
        self.record(Kind::Opened, dialogue.number.get(), dialogue.listener, client);
        self.follow(dialogue, || What::Opened);
    }

    /// A TLS handshake is over; without facts it failed.
    pub(super) fn handshake_ended(&self, dialogue: &Dialogue, good: bool, took: Duration) {
        let took = micros(took);
        self.record(Kind::Handshake, dialogue.number.get(), u16::from(good), took);
        self.follow(dialogue, || {
            let tls = dialogue.tls.as_ref().filter(|_| good);
            let tls = tls.map(|tls| format!("{} {}", tls.version, tls.cipher));
            What::Handshake { tls: tls.unwrap_or_default(), took }
        });
    }

    /// A command or a message was refused.
    pub(super) fn step_refused(&self, dialogue: &Dialogue, refused: &Refused) {
        self.record(Kind::Refused, dialogue.number.get(), refused.code, 0);
        self.follow(dialogue, || What::Refused {
            stage: refused.stage,
            code: refused.code,
            reason: format!("{} {}", refused.enhanced, refused.reason).trim_start().to_owned(),
            from: refused.mail_from.as_deref().map(str::to_owned),
            rcpt: refused.rcpt.as_deref().map(str::to_owned),
        });
    }

    /// All of a message has arrived, and is in the log.
    pub(super) fn mail_received(&mut self, dialogue: &Dialogue) {
        let session = &dialogue.session;
        let envelope = session.envelope();
        let recipients = envelope.forward_path_count;
        let code = u16::try_from(recipients).unwrap_or(u16::MAX);
        self.record(Kind::Received, dialogue.number.get(), code, envelope.bytes);
        count(&mut self.counters.hitters, dialogue);
        if !self.tracer.is_on() {
            return;
        }
        let rcpts = || session.envelope().forward_paths();
        let took = micros(self.now.saturating_sub(session.transaction_began()));
        let subject = self.subject(dialogue);
        self.tracer.tell_mail(subject, self.at(), (envelope.mail_from, rcpts), || What::Received {
            from: envelope.mail_from.to_owned(),
            rcpts: rcpts().take(RECIPIENTS_MAX).map(str::to_owned).collect(),
            recipients: recipients as u64,
            bytes: envelope.bytes,
            took,
        });
    }

    /// A message is synced, and its 250 was let go.
    pub(super) fn mail_stored(
        &self,
        dialogue: &Dialogue,
        offset: Offset,
        commit: Duration,
        took: Duration,
    ) {
        let commit = micros(commit);
        self.record(Kind::Stored, dialogue.number.get(), 0, commit);
        self.follow(dialogue, || What::Stored {
            id: self.commit.appender.identity().record_id(offset).to_string(),
            commit,
            took: micros(took),
        });
    }

    /// A connection has ended.
    pub(super) fn session_closed(&self, connection: &Connection) {
        let Connection { link, dialogue, .. } = connection;
        let took = micros(self.now.saturating_sub(dialogue.session.opened()));
        let code = link.reason.index() as u16;
        self.record(Kind::Closed, dialogue.number.get(), code, took);
        self.follow(dialogue, || What::Closed {
            reason: link.reason.name(),
            messages: dialogue.taken.messages,
            took,
        });
    }
}

/// Counts a message by whom it is of and for.
fn count(hitters: &mut Hitters, dialogue: &Dialogue) {
    let session: &Session = &dialogue.session;
    let envelope = session.envelope();
    hitters.client(dialogue.peer.ip());
    hitters.domain(HitBy::SenderDomain, domain(envelope.mail_from));
    for path in envelope.forward_paths() {
        hitters.domain(HitBy::RcptDomain, domain(path));
    }
}

/// The domain of a path; of the null reverse-path and `Postmaster` the whole.
fn domain(path: &str) -> &str {
    match path.rsplit_once('@') {
        Some((_, domain)) => domain,
        None if path.is_empty() => "<>",
        None => path,
    }
}
