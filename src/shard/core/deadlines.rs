//! Deadlines of connections.

use std::{mem, time::Duration};

use super::{
    Key, LINGER, Services,
    connection::{Connection, Link, Phase},
    services::reason_of,
    wheel::Wheel,
};
use crate::{metrics::CloseReason, smtp::Event};

/// A peer that takes nothing of what it is owed for this long is gone.
const SEND_WAIT: Duration = Duration::from_secs(60);

/// A connection that closes is looked at this often.
const CLOSING_LOOK: Duration = Duration::from_secs(1);

/// When each connection is to be looked at.
pub(super) struct Deadlines {
    wheel: Wheel<Key>,
    due: Vec<Key>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self { wheel: Wheel::new(), due: Vec::new() }
    }

    /// The connection is looked at then; an entry that it had comes up in vain.
    pub(super) fn enter(&mut self, key: Key, link: &mut Link, due: Duration) {
        link.due = due;
        self.wheel.enter(key, due);
    }

    /// Whose time has come, or may have; [`Deadlines::seen`] takes the memory back.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Key> {
        let mut due = mem::take(&mut self.due);
        self.wheel.advance(now, &mut due);
        due
    }

    pub(super) fn seen(&mut self, mut due: Vec<Key>) {
        due.clear();
        self.due = due;
    }
}

impl Services {
    /// The time of a connection may have come.
    pub(super) fn deadline(&mut self, key: Key, connection: &mut Connection) {
        let link = &mut connection.link;
        match link.phase {
            Phase::Dead => return,
            _ if self.now < link.due => return,
            Phase::Lingering if self.now >= link.sent_at + LINGER => {
                self.shut(link);
                return;
            }
            Phase::Lingering => {
                let due = link.sent_at + LINGER;
                self.deadlines.enter(key, link, due);
                return;
            }
            Phase::Closing | Phase::Open => {}
        }
        if self.handshake_overdue(connection) || self.header_overdue(connection) {
            return;
        }
        let link = &connection.link;
        if link.send_under_way && self.now >= link.sent_at + SEND_WAIT {
            self.broken(connection, CloseReason::Timeout);
            return;
        }
        self.greet(key, connection);
        let Connection { link, dialogue, .. } = connection;
        // One that waits for its answer is not read either.
        let counts = !link.intake.is_paused() || dialogue.session.is_waiting_for_answer();
        let over = self.now >= dialogue.session.deadline() && counts && dialogue.wait.is_none();
        if link.phase == Phase::Open && over {
            let event =
                self.with_session(dialogue, |session, context| session.handle_deadline(context));
            if matches!(event, Event::Close(_) | Event::Discard) {
                self.commit.discard(&mut dialogue.mail);
            }
            match event {
                Event::Close(ending) => link.close(reason_of(ending)),
                // A message waited for its answer for too long.
                Event::Discard => self.go_on(key, connection),
                _ => {}
            }
        }
        let next = match connection.link.phase {
            Phase::Open => self.due(connection),
            _ => self.now + CLOSING_LOOK,
        };
        self.deadlines.enter(key, &mut connection.link, next);
        self.outgoing.touch(key, &mut connection.link);
    }

    /// A new command or block may have a nearer deadline than the one before it.
    pub(super) fn arm(&mut self, key: Key, connection: &mut Connection) {
        let next = self.due(connection);
        let link = &mut connection.link;
        if link.phase == Phase::Open && next < link.due {
            self.deadlines.enter(key, link, next);
        }
    }

    /// When to look at an open connection again.
    pub(super) fn due(&self, connection: &Connection) -> Duration {
        let dialogue = &connection.dialogue;
        let own = dialogue.wait.as_ref().map_or(dialogue.session.deadline(), |wait| wait.at());
        let due = own.min(self.now + SEND_WAIT);
        let others = [self.handshake_deadline(connection), self.header_deadline(dialogue)];
        others.into_iter().flatten().fold(due, Duration::min)
    }
}
