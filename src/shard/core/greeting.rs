//! The wait before the greeting: a delay, and the advisor's word on the client.
//!
//! The session stays new meanwhile. Who talks in the wait is refused by the session where
//! `greet_check` is on (RFC 5321 §4.3.1 has the client wait); else what he says waits too, up to
//! 64 KiB, then he is not read. There is no task and no timer for it: an entry in the wheel.
//!
//! With implicit TLS the wait runs beside the handshake, from the accept on: neither makes the
//! other longer, and the greeting goes once both are over. Exempt peers wait for nothing.

use std::{mem, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Key, Listener, Shard,
    connection::{Connection, Greeting, Phase, UNIX_PEER},
};
use crate::{
    metrics::CloseReason,
    shard::{ClientAdvice, Question},
    smtp::{Admission, Event, TlsPolicy},
};

/// Octets of an early talker that are kept for him (PROTOCOL §5, unparsed input).
const UNREAD_BYTES_MAX: usize = 64 << 10;

/// What is in the socket already is received within this time.
const RECEIVED: Duration = Duration::from_secs(1);

impl Shard {
    /// Whether it matters for a connection of this peer that it has sent something before it is
    /// greeted: [`super::Arrival::talks`].
    pub fn wants_first_look(&self, listener: u32, peer: SocketAddr) -> bool {
        self.listeners.get(listener as usize).is_some_and(|Listener { smtp, gate, .. }| {
            gate.proxies.is_none()
                && gate.greet_delay.is_zero()
                && smtp.greet_check
                && smtp.tls != TlsPolicy::Implicit
                && peer != UNIX_PEER
                && !self.limits.exempt.contains(peer.ip())
        })
    }

    /// Greets a new connection, or begins its wait.
    pub(super) fn greet_or_wait(
        &mut self,
        key: Key,
        connection: &mut Connection,
        admission: Admission,
    ) -> Event {
        let listener = &self.listeners[usize::from(connection.listener)];
        let gate = listener.gate.clone();
        let takes = !matches!(
            admission,
            Admission::Draining
                | Admission::Crowded
                | Admission::AddressFull
                | Admission::AddressFast
                | Admission::MemoryFull
                | Admission::LogFailed
                | Admission::OverloadedNew
        );
        let guarded = takes && !connection.session.is_exempt();
        let talks = guarded
            && gate.greet_delay.is_zero()
            && listener.smtp.greet_check
            && listener.smtp.tls != TlsPolicy::Implicit
            && mem::take(&mut connection.talks);
        if guarded && (talks || gate.asks || !gate.greet_delay.is_zero()) {
            let delay = if talks { RECEIVED } else { gate.greet_delay };
            let asks = gate.asks && !talks;
            let answer_by = asks.then_some(self.now + gate.advice_wait);
            connection.greeting =
                Some(Box::new(Greeting { not_before: self.now + delay, answer_by }));
            if asks {
                let listener = Arc::from(listener.name.as_str());
                self.ask(key, Question::Client { listener, address: connection.peer.ip() });
            }
            return Event::NeedInput;
        }
        self.with_admission(connection, admission, |session, context| session.handle_open(context))
    }

    /// Greets a connection whose wait is over.
    pub(super) fn greet(&mut self, key: Key, connection: &mut Connection) {
        let over = connection.greeting.take_if(|greeting| self.now >= greeting.at());
        if over.is_none() || connection.phase != Phase::Open {
            return;
        }
        let event = self.with_session(connection, |session, context| session.handle_open(context));
        if let Event::Close = event {
            connection.phase = Phase::Closing;
            connection.reason = match self.draining {
                Some(_) => CloseReason::Draining,
                None => CloseReason::ErrorLimit,
            };
            return;
        }
        // What came in the wait; where reading was stopped, `resume` goes on.
        if connection.paused.is_none() && !connection.unread.is_empty() {
            self.octets(key, connection, &[]);
        }
        if connection.ended && connection.paused.is_none() {
            self.end_of_stream(connection);
        }
    }

    /// The advisor has answered. A word that comes too late changes nothing.
    pub(super) fn advised(&mut self, key: Key, connection: &mut Connection, advice: ClientAdvice) {
        let Some(greeting) = &mut connection.greeting else { return };
        greeting.answer_by = None;
        if advice.score != 0 || advice.refused_by.is_some() {
            self.events.tell_listed(self.now, &self.listeners, connection, &advice);
        }
        if let Some(zone) = &advice.refused_by {
            connection.session.refuse_recipients(zone.clone());
        }
        if advice != ClientAdvice::default() {
            connection.advice = Some(Box::new(advice));
        }
        self.greet(key, connection);
        self.arm(key, connection);
    }

    /// Stops reading from one who has said too much before the greeting.
    pub(super) fn bound_early_talk(&mut self, key: Key, connection: &mut Connection) {
        if connection.greeting.is_some() && connection.unread.len() >= UNREAD_BYTES_MAX {
            self.pause(key, connection);
        }
    }
}
