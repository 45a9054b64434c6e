//! The wait before the greeting: a delay, and the advisor's answer about the client.
//!
//! The session stays new during the wait. A client that talks in it is refused by the session if
//! `greet_check` is on (RFC 5321 §4.3.1 requires the client to wait). Otherwise what it sends waits
//! too, up to 64 KiB, after which it is not read. There is no task and no timer for the wait, only
//! an entry in the wheel.
//!
//! With implicit TLS the wait runs alongside the handshake, from the accept on: neither makes the
//! other longer, and the greeting is sent once both are over. Exempt peers do not wait.

use std::{mem, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Key, Listener, Services,
    connection::{Connection, Dialogue, Link, Phase, UNIX_PEER, Wait},
    services::reason_of,
};
use crate::{
    policy::{ClientAdvice, Question},
    smtp::{Entry, Event, Replies, TlsPolicy},
};

/// Octets that are kept of a client that talks before its greeting.
const UNREAD_BYTES_MAX: usize = 64 << 10;

/// What is in the socket already is received within this time.
const RECEIVED: Duration = Duration::from_secs(1);

impl Services {
    /// See [`super::Shard::wants_first_look`].
    pub(super) fn wants_first_look(&self, listener: u32, peer: SocketAddr) -> bool {
        self.listeners.get(listener as usize).is_some_and(|Listener { smtp, gate, .. }| {
            gate.proxies.is_none()
                && gate.greet_delay.is_zero()
                && smtp.greet_check
                && smtp.tls != TlsPolicy::Implicit
                && peer != UNIX_PEER
                && !self.tuning.limits().exempt.contains(peer.ip())
        })
    }

    /// Begins the session, once it is known who the client is.
    pub(super) fn open(&mut self, key: Key, connection: &mut Connection) {
        self.session_opened(&connection.dialogue);
        let Connection { link, dialogue, .. } = connection;
        let Listener { smtp, gate, .. } = &self.listeners[dialogue.place()];
        let implicit = smtp.tls == TlsPolicy::Implicit;
        if gate.xclient.as_ref().is_some_and(|trusted| trusted.contains(dialogue.peer.ip())) {
            dialogue.session.trust_xclient();
        }
        let greeted = self.welcome(key, link, dialogue);
        if implicit && greeted {
            self.accept_tls(connection);
        } else if implicit {
            // Whom we do not take costs no handshake, and nothing is said in the clear.
            dialogue.replies = Replies::new();
        }
    }

    /// Judges a client by its address, and greets it, at once or later, or turns it away; says
    /// whether it stays.
    pub(super) fn welcome(&mut self, key: Key, link: &mut Link, dialogue: &mut Dialogue) -> bool {
        let peer = dialogue.peer;
        let exempt = peer == UNIX_PEER || self.tuning.limits().exempt.contains(peer.ip());
        dialogue.session.set_exempt(exempt);
        let (entry, counted) = self.admit(dialogue);
        dialogue.counted = counted;
        if entry == Entry::Open && self.waits(key, dialogue) {
            return true;
        }
        let event = self.with_session(dialogue, |session, cx| session.handle_open(cx, entry));
        let Event::Close(ending) = event else { return true };
        dialogue.turned_away = entry != Entry::Draining;
        link.close(reason_of(ending));
        false
    }

    /// Whether the greeting has to wait.
    fn waits(&mut self, key: Key, dialogue: &mut Dialogue) -> bool {
        let listener = &self.listeners[dialogue.place()];
        let gate = listener.gate.clone();
        if dialogue.session.is_exempt() {
            return false;
        }
        let talks = gate.greet_delay.is_zero()
            && listener.smtp.greet_check
            && listener.smtp.tls != TlsPolicy::Implicit
            && mem::take(&mut dialogue.talks);
        if !talks && !gate.asks && gate.greet_delay.is_zero() {
            return false;
        }
        let delay = if talks { RECEIVED } else { gate.greet_delay };
        let asks = gate.asks && !talks;
        let answer_by = asks.then_some(self.now + gate.advice_wait);
        dialogue.wait = Some(Box::new(Wait { not_before: self.now + delay, answer_by }));
        if asks {
            let listener = Arc::from(listener.name.as_str());
            self.ask(key, Question::Client { listener, address: dialogue.peer.ip() });
        }
        true
    }

    /// Greets a connection whose wait is over.
    pub(super) fn greet(&mut self, key: Key, connection: &mut Connection) {
        let Connection { link, dialogue, .. } = connection;
        let over = dialogue.wait.take_if(|wait| self.now >= wait.at());
        if over.is_none() || link.phase != Phase::Open {
            return;
        }
        let entry = self.entry();
        let event = self.with_session(dialogue, |session, cx| session.handle_open(cx, entry));
        if let Event::Close(ending) = event {
            link.close(reason_of(ending));
            return;
        }
        // What came in the wait; where reading was stopped, `resume` goes on.
        if !link.intake.is_paused() && !link.intake.unread.is_empty() {
            self.take_plain(key, connection, &[]);
        }
        if !connection.link.intake.is_paused() {
            self.end_if_read(connection);
        }
    }

    /// The advisor has answered. A word that comes too late changes nothing.
    pub(super) fn advised(&mut self, key: Key, connection: &mut Connection, advice: ClientAdvice) {
        let dialogue = &mut connection.dialogue;
        let Some(wait) = &mut dialogue.wait else { return };
        wait.answer_by = None;
        if advice.score != 0 || advice.refused_by.is_some() {
            self.tell_listed(dialogue, &advice);
        }
        if let Some(zone) = &advice.refused_by {
            dialogue.session.refuse_recipients(zone.clone());
        }
        if advice != ClientAdvice::default() {
            dialogue.advice = Some(Box::new(advice));
        }
        self.greet(key, connection);
        self.arm(key, connection);
    }

    /// Stops reading from one who has said too much before the greeting.
    pub(super) fn bound_early_talk(&mut self, key: Key, link: &mut Link, dialogue: &Dialogue) {
        if dialogue.wait.is_some() && link.intake.unread.len() >= UNREAD_BYTES_MAX {
            self.pause(key, link);
        }
    }
}
