//! TLS of connections: begun, fed, ended. What goes through it is the session's as ever.

use std::time::Duration;

use super::{
    Key, Shard,
    connection::{Connection, Phase, TlsState},
};
use crate::{
    metrics::{CloseReason, HandshakeResult, RefuseReason},
    smtp::Replies,
    tls::Tls,
};

/// Octets of ours that a peer may leave unsent while it goes on sending: it asks for answers (key
/// updates) that it does not take.
const PENDING_BYTES_MAX: usize = 64 << 10;

impl Shard {
    /// TLS from the first octet, unless too many do so at once.
    pub(super) fn accept_tls(&mut self, connection: &mut Connection) {
        if self.handshakes < self.limits.handshakes_max {
            self.begin_tls(connection, false);
            return;
        }
        self.counters.refused(usize::from(connection.listener), RefuseReason::MaxConnections);
        connection.replies = Replies::new();
        connection.phase = Phase::Closing;
        connection.reason = CloseReason::ErrorLimit;
    }

    /// Everything received from now on is TLS's; with `in_clear` the replies at hand are not.
    pub(super) fn begin_tls(&mut self, connection: &mut Connection, in_clear: bool) {
        let config = &self.listeners[usize::from(connection.listener)].tls;
        let config = config.as_ref().expect("sessions offer TLS where their listener has it");
        match Tls::new(config) {
            Ok(tls) => {
                self.handshakes += 1;
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

    /// RFC 3207 §4: octets in the clear behind STARTTLS are nobody's, and end the connection. The
    /// session refuses those it sees; these waited while nothing was read.
    pub(super) fn guard_upgrade(&mut self, connection: &mut Connection, had_tls: bool) {
        if connection.tls.is_some() && !had_tls && !connection.unread.is_empty() {
            connection.unread = Vec::new();
            self.broken(connection, CloseReason::ErrorLimit);
        }
    }

    /// Octets came in from the socket.
    pub(super) fn take_in(&mut self, key: Key, connection: &mut Connection, octets: &mut [u8]) {
        if connection.awaits_header() {
            self.take_header(key, connection, octets);
            return;
        }
        let Some(mut state) = connection.tls.take() else {
            self.octets(key, connection, octets);
            return;
        };
        if connection.phase != Phase::Open {
            connection.tls = Some(state);
            return;
        }
        let fed = state.tls.feed(octets, |facts, plain| {
            // Where the session is served, `connection.tls` is taken out.
            if connection.tls_facts.is_none() {
                connection.tls_facts = Some(facts.clone());
            }
            self.octets(key, connection, plain);
        });
        let flooded = state.tls.pending_bytes() > PENDING_BYTES_MAX;
        if fed.is_ok() && state.tls.is_established() {
            self.handshake_over(connection, &mut state, HandshakeResult::Ok);
        }
        let closed = state.tls.is_closed_by_peer();
        if let Err(error) = &fed {
            self.tls_failed(connection, &mut state, error);
        }
        connection.tls = Some(state);
        if flooded {
            self.broken(connection, CloseReason::ErrorLimit);
        } else if closed && fed.is_ok() && !connection.ended {
            // PROTOCOL: the end of TLS is the end of the session; nothing behind it is read.
            connection.ended = true;
            if !connection.reads_later() {
                self.end_of_stream(connection);
            }
        }
    }

    /// Puts what may go into `sending`, encrypted; says whether there is any.
    pub(super) fn fill_tls(&mut self, connection: &mut Connection) -> bool {
        let Connection { tls: Some(state), replies, sending, phase, .. } = connection else {
            return false;
        };
        let established = state.tls.is_established();
        let closing = *phase == Phase::Closing;
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
            *sending = self.spare_vecs.pop().unwrap_or_default();
        }
        sending.clear();
        state.tls.take_pending(sending);
        let mut written = Ok(());
        if says {
            let mut plain = self.spare_vecs.pop().unwrap_or_default();
            replies.take_ready(&mut plain);
            written = state.tls.encrypt(&plain, sending);
            plain.clear();
            self.spare_vecs.push(plain);
        }
        if ends {
            state.closed = true;
            written = written.and_then(|()| state.tls.close_notify(sending));
        }
        if let Err(error) = written {
            self.tell_trouble(connection.listener, connection.peer, "tls", &error);
            self.broken(connection, CloseReason::IoError);
            return false;
        }
        true
    }

    /// A stream that ends without a close_notify was cut off, by whoever (RFC 8446 §6.1). Where
    /// octets wait unread nobody knows yet.
    pub(super) fn note_truncation(&mut self, connection: &Connection) {
        if let Some(state) = &connection.tls
            && connection.phase == Phase::Open
            && connection.kept.is_empty()
            && state.tls.is_established()
            && !state.tls.is_closed_by_peer()
        {
            self.counters.truncated(usize::from(connection.listener));
        }
    }

    /// Lets go of a connection's TLS.
    pub(super) fn end_tls(&mut self, connection: &mut Connection) {
        if let Some(mut state) = connection.tls.take() {
            self.handshake_over(connection, &mut state, HandshakeResult::Failed);
        }
    }

    pub(super) fn handshake_deadline(&self, connection: &Connection) -> Option<Duration> {
        let since = connection.tls.as_ref()?.handshake?;
        let listener = &self.listeners[usize::from(connection.listener)];
        Some(since + listener.smtp.limits.handshake_wait)
    }

    /// Ends a connection whose handshake took too long.
    pub(super) fn handshake_overdue(&mut self, connection: &mut Connection) -> bool {
        let over = connection.phase == Phase::Open
            && self.handshake_deadline(connection).is_some_and(|deadline| self.now >= deadline);
        if over {
            self.tell_trouble(
                connection.listener,
                connection.peer,
                "tls",
                &"the handshake took too long",
            );
            self.broken(connection, CloseReason::Timeout);
        }
        over
    }

    /// Nothing more can be said or read but an alert; what is in the log stays.
    fn tls_failed(
        &mut self,
        connection: &mut Connection,
        state: &mut TlsState,
        error: &dyn std::fmt::Display,
    ) {
        self.tell_trouble(connection.listener, connection.peer, "tls", error);
        self.handshake_over(connection, state, HandshakeResult::Failed);
        if connection.phase == Phase::Open {
            self.discard(connection);
            connection.unread = Vec::new();
            connection.replies = Replies::new();
            connection.phase = Phase::Closing;
            connection.reason = CloseReason::ErrorLimit;
        }
    }

    fn handshake_over(
        &mut self,
        connection: &Connection,
        state: &mut TlsState,
        result: HandshakeResult,
    ) {
        if let Some(since) = state.handshake.take() {
            self.handshakes -= 1;
            if state.tls.has_malformed_name() {
                self.counters.malformed_name(usize::from(connection.listener));
            }
            let took = self.now.saturating_sub(since);
            self.counters.handshake(usize::from(connection.listener), result, took);
        }
    }
}
