//! TLS of connections: begun, fed, ended. What passes through it goes to the session as without
//! TLS.

use std::time::Duration;

use super::{
    Key, Services,
    connection::{Connection, Dialogue, Link, Phase, TlsState},
};
use crate::{
    metrics::{CloseReason, HandshakeResult, RefuseReason},
    shard::Limits,
    smtp::Replies,
    tls::Tls,
};

/// Octets of ours that a peer may leave unsent while it goes on sending: it asks for answers (key
/// updates) that it does not take.
const PENDING_BYTES_MAX: usize = 64 << 10;

/// Handshakes under way.
#[derive(Default)]
pub(super) struct Handshakes(usize);

impl Handshakes {
    /// Whether there are as many as may be.
    pub(super) fn are_full(&self, limits: &Limits) -> bool {
        self.0 >= limits.handshakes_max
    }
}

impl Services {
    /// TLS from the first octet, unless too many do so at once.
    pub(super) fn accept_tls(&mut self, connection: &mut Connection) {
        if !self.handshakes.are_full(self.tuning.limits()) {
            self.begin_tls(connection, false);
            return;
        }
        self.counters.refused(connection.dialogue.place(), RefuseReason::MaxConnections);
        connection.dialogue.replies = Replies::new();
        // Nothing was said that a reset could overtake, so there is nothing to linger for.
        self.broken(connection, CloseReason::ErrorLimit);
    }

    /// Everything received from now on is TLS's; with `in_clear` the replies at hand are not.
    pub(super) fn begin_tls(&mut self, connection: &mut Connection, in_clear: bool) {
        let config = &self.listeners[connection.dialogue.place()].tls;
        let config = config.as_ref().expect("sessions offer TLS where their listener has it");
        match Tls::new(config) {
            Ok(tls) => {
                self.handshakes.0 += 1;
                let handshake = Some(self.now);
                connection.tls =
                    Some(Box::new(TlsState { tls, in_clear, handshake, closed: false }));
            }
            Err(error) => {
                tracing::error!(%error, "TLS cannot begin");
                self.broken(connection, CloseReason::IoError);
            }
        }
    }

    /// Octets came in under TLS: what they hold is served record by record, where they lie.
    pub(super) fn decrypt(&mut self, key: Key, connection: &mut Connection, octets: &mut [u8]) {
        let Connection { link, dialogue, tls } = connection;
        let Some(state) = tls.as_deref_mut() else { return };
        if link.phase != Phase::Open {
            return;
        }
        let fed = state.tls.feed(octets, |facts, plain| {
            if dialogue.tls.is_none() {
                dialogue.tls = Some(facts.clone());
            }
            // The session offers no second STARTTLS.
            let _ = self.octets(key, link, dialogue, plain);
        });
        let flooded = state.tls.pending_bytes() > PENDING_BYTES_MAX;
        if fed.is_ok() && state.tls.is_established() {
            // Also where the client has said nothing yet.
            if dialogue.tls.is_none() {
                dialogue.tls = state.tls.facts().cloned();
            }
            self.handshake_over(dialogue, state, HandshakeResult::Ok);
        }
        let closed = state.tls.is_closed_by_peer();
        if let Err(error) = &fed {
            self.handshake_over(dialogue, state, HandshakeResult::Failed);
            self.tls_failed(link, dialogue, error);
        }
        if flooded {
            self.broken(connection, CloseReason::ErrorLimit);
        } else if closed && fed.is_ok() && !link.ended {
            // PROTOCOL §6.4: the end of TLS is the end of the session; nothing behind it is read.
            link.ended = true;
            self.end_if_read(connection);
        }
    }

    /// Puts what may go into `sending`, encrypted; says whether there is any.
    pub(super) fn fill_tls(&mut self, connection: &mut Connection) -> bool {
        let Connection { link, tls: Some(state), dialogue } = connection else { return false };
        let (replies, sending) = (&mut dialogue.replies, &mut link.sending);
        let established = state.tls.is_established();
        let closing = link.phase == Phase::Closing;
        if closing && !established {
            // Who did not finish the handshake is told nothing but its alert.
            *replies = Replies::new();
        }
        let says = established && replies.ready() > 0;
        let ends = established && closing && !state.closed && replies.ready() == replies.unsent();
        if !says && !ends && state.tls.pending_bytes() == 0 {
            return false;
        }
        if sending.capacity() == 0 {
            *sending = self.outgoing.lend();
        }
        sending.clear();
        state.tls.take_pending(sending);
        let mut written = Ok(());
        if says {
            let mut plain = self.outgoing.lend();
            replies.take_ready(&mut plain);
            written = state.tls.encrypt(&plain, sending);
            plain.clear();
            self.outgoing.give_back(plain);
        }
        if ends {
            state.closed = true;
            written = written.and_then(|()| state.tls.close_notify(sending));
        }
        if let Err(error) = written {
            self.tell_trouble(dialogue.listener, dialogue.peer, "tls", &error);
            self.broken(connection, CloseReason::IoError);
            return false;
        }
        true
    }

    /// A stream that ends without a close_notify was cut off, by the peer or by others (RFC 8446
    /// §6.1). If octets still wait unread, that is not known yet.
    pub(super) fn note_truncation(&mut self, connection: &Connection) {
        if let Some(state) = &connection.tls
            && connection.link.phase == Phase::Open
            && connection.link.intake.buffers.is_empty()
            && state.tls.is_established()
            && !state.tls.is_closed_by_peer()
        {
            self.counters.listener(connection.dialogue.place()).truncated += 1;
        }
    }

    /// Lets go of a connection's TLS.
    pub(super) fn end_tls(&mut self, connection: &mut Connection) {
        if let Some(mut state) = connection.tls.take() {
            self.handshake_over(&connection.dialogue, &mut state, HandshakeResult::Failed);
        }
    }

    pub(super) fn handshake_deadline(&self, connection: &Connection) -> Option<Duration> {
        let since = connection.tls.as_ref()?.handshake?;
        let listener = &self.listeners[connection.dialogue.place()];
        Some(since + listener.smtp.limits.handshake_wait)
    }

    /// Ends a connection whose handshake took too long.
    pub(super) fn handshake_overdue(&mut self, connection: &mut Connection) -> bool {
        let over = connection.link.phase == Phase::Open
            && self.handshake_deadline(connection).is_some_and(|deadline| self.now >= deadline);
        if over {
            let dialogue = &connection.dialogue;
            let why = "the handshake took too long";
            self.tell_trouble(dialogue.listener, dialogue.peer, "tls", &why);
            self.broken(connection, CloseReason::Timeout);
        }
        over
    }

    /// Nothing more can be said or read but an alert; what is in the log stays.
    fn tls_failed(
        &mut self,
        link: &mut Link,
        dialogue: &mut Dialogue,
        error: &dyn std::fmt::Display,
    ) {
        self.tell_trouble(dialogue.listener, dialogue.peer, "tls", error);
        if link.phase == Phase::Open {
            self.commit.discard(&mut dialogue.mail);
            link.intake.forget();
            dialogue.replies = Replies::new();
            link.close(CloseReason::ErrorLimit);
        }
    }

    fn handshake_over(
        &mut self,
        dialogue: &Dialogue,
        state: &mut TlsState,
        result: HandshakeResult,
    ) {
        if let Some(since) = state.handshake.take() {
            self.handshakes.0 -= 1;
            if state.tls.has_malformed_name() {
                self.counters.listener(dialogue.place()).malformed_names += 1;
            }
            let took = self.now.saturating_sub(since);
            self.counters.handshake(dialogue.place(), result, took);
            self.handshake_ended(dialogue, result == HandshakeResult::Ok, took);
        }
    }
}
