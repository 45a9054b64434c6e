//! Connections: accepted, read, paused, shut.

use std::{io, mem, net::SocketAddr, time::Duration};

use super::{
    AcceptError, Arrival, GENERATION_MASK, Key, Listener, ReceiveBuffer, ReceiveError, Shard, Side,
    Submission,
    addresses::{Network, Refused},
    connection::{Collected, Connection, Phase, UNIX_PEER, Waits},
    overload::Step,
};
use crate::{
    metrics::{CloseReason, RefuseReason},
    smtp::{Admission, Event, Replies, Session, TlsPolicy},
};

/// A listener that could not accept is left alone this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a failing accept is told.
const ACCEPT_TELL: Duration = Duration::from_secs(10);

/// Of what piled up while reading was stopped so much is taken at a time, each with a look at the
/// room: as much as a receive brings.
const STEP_BYTES: usize = 16 * 1024;

impl Shard {
    pub(super) fn accepted(
        &mut self,
        listener: u32,
        more: bool,
        result: Result<Arrival, AcceptError>,
    ) {
        // What overload stopped it takes up again itself.
        if !more && self.ladder.step() != Step::StopAccepting {
            self.accept_again.push(listener);
        }
        let Arrival { socket, peer, talks } = match result {
            Ok(arrival) => arrival,
            Err(AcceptError::Failed(error)) => return self.accept_failed(&error),
            Err(AcceptError::Gone | AcceptError::Cancelled) => return,
        };
        self.counters.connection(usize::from(listener as u16));
        let Some(proxy) = self.judge_proxy(usize::from(listener as u16), peer) else {
            self.submit(Submission::Close { socket });
            return;
        };
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            u32::try_from(self.connections.len() - 1).expect("fewer connections than 2^32")
        });
        let key = Key { index, generation: self.generation };
        let mut connection = Box::new(Connection {
            socket,
            peer,
            generation: self.generation,
            listener: listener as u16,
            talks,
            phase: Phase::Open,
            reason: CloseReason::ClientGone,
            watching: false,
            counted: false,
            receiving: true,
            paused: None,
            ended: false,
            dirty: false,
            waits: Waits::Nothing,
            released: false,
            session: Session::new(self.now, false, &self.listeners[listener as usize].smtp),
            replies: Replies::new(),
            sending: Vec::new(),
            send_under_way: false,
            kept: Vec::new(),
            unread: Vec::new(),
            mail: Collected::default(),
            tls: None,
            proxy,
            tls_facts: None,
            greeting: None,
            advice: None,
            taken: None,
            turned_away: false,
            sent_at: self.now,
            due: Duration::MAX,
        });
        self.open += 1;
        self.submit(Submission::Receive { key, socket });
        if !connection.awaits_header() {
            self.open(key, &mut connection);
        }
        let due = self.due(&connection);
        self.enter(key, &mut connection, due);
        self.connections[index as usize] = Some(connection);
        self.touch(key);
    }

    /// Begins the session, once it is known who the client is.
    pub(super) fn open(&mut self, key: Key, connection: &mut Connection) {
        let Listener { smtp, gate, .. } = &self.listeners[usize::from(connection.listener)];
        let implicit = smtp.tls == TlsPolicy::Implicit;
        if gate.xclient.as_ref().is_some_and(|trusted| trusted.contains(connection.peer.ip())) {
            connection.session.trust_xclient();
        }
        let greeted = self.welcome(key, connection);
        if implicit && greeted {
            self.accept_tls(connection);
        } else if implicit {
            // Whom we do not take costs no handshake, and nothing is said in the clear.
            connection.replies = Replies::new();
        }
    }

    /// Judges a client by its address, and greets it, at once or later, or turns it away; says
    /// whether it stays.
    pub(super) fn welcome(&mut self, key: Key, connection: &mut Connection) -> bool {
        let peer = connection.peer;
        let exempt = peer == UNIX_PEER || self.limits.exempt.contains(peer.ip());
        connection.session.set_exempt(exempt);
        let listener = usize::from(connection.listener);
        let (admission, counted) = self.admit(listener, connection.peer, exempt);
        connection.counted = counted;
        let event = self.greet_or_wait(key, connection, admission);
        let closes = matches!(event, Event::Close);
        if closes {
            connection.turned_away = admission != Admission::Draining;
            connection.phase = Phase::Closing;
            connection.reason = match admission {
                Admission::Draining => CloseReason::Draining,
                _ => CloseReason::ErrorLimit,
            };
        }
        !closes
    }

    /// Its address counts it no longer.
    pub(super) fn uncount(&mut self, connection: &mut Connection) {
        if mem::take(&mut connection.counted) {
            self.addresses.leave(Network::of(connection.peer.ip()));
        }
    }

    /// Descriptors or memory are short: the tick arms the listener again, a little later.
    fn accept_failed(&mut self, error: &io::Error) {
        if self.draining.is_some() {
            return;
        }
        if self.accept_failed.is_none_or(|told| self.now >= told + ACCEPT_TELL) {
            self.accept_failed = Some(self.now);
            tracing::warn!(%error, "accept failed");
        }
        self.accept_at = self.now + ACCEPT_PAUSE;
    }

    pub(super) fn take(&mut self, key: Key) -> Option<Box<Connection>> {
        let slot = self.connections.get_mut(key.index as usize)?;
        if slot.as_ref()?.generation != key.generation {
            return None;
        }
        slot.take()
    }

    /// Puts a connection back after its turn, or lets it go when nothing holds it any more.
    pub(super) fn put(&mut self, key: Key, mut connection: Box<Connection>) {
        if connection.phase == Phase::Dead && !connection.operations() {
            self.discard(&mut connection);
            self.end_tls(&mut connection);
            self.collected_bytes -= connection.mail.accounted;
            connection.kept.clear();
            self.tell_session(&connection);
            self.counters.closed(
                usize::from(connection.listener),
                connection.reason,
                self.now.saturating_sub(connection.session.opened()),
            );
            self.uncount(&mut connection);
            self.open -= 1;
            assert!(self.open > 0 || self.collected_bytes == 0, "what is counted is given back");
            self.free.push(key.index);
            self.submit(Submission::Close { socket: connection.socket });
            return;
        }
        self.connections[key.index as usize] = Some(connection);
    }

    /// What a new client gets, its connection counted already, and whether its address counts it.
    fn admit(&mut self, listener: usize, peer: SocketAddr, exempt: bool) -> (Admission, bool) {
        let mut counted = false;
        let admission = match self.admission() {
            Admission::Draining => Admission::Draining,
            _ if self.open > self.limits.connections_max => Admission::Crowded,
            admission if exempt => admission,
            _ if self.is_blocked(peer.ip()) => Admission::Blocked,
            admission => {
                let network = Network::of(peer.ip());
                match self.addresses.enter(network, self.bounds, self.now) {
                    Ok(()) => {
                        counted = true;
                        admission
                    }
                    Err(Refused::Sessions) => Admission::AddressFull,
                    Err(Refused::Rate) => Admission::AddressFast,
                }
            }
        };
        let reason = match admission {
            Admission::Draining => Some(RefuseReason::Draining),
            Admission::Crowded => Some(RefuseReason::MaxConnections),
            Admission::AddressFull => Some(RefuseReason::PerIp),
            Admission::AddressFast => Some(RefuseReason::Rate),
            Admission::Blocked => Some(RefuseReason::AuthFailures),
            Admission::OverloadedNew => Some(RefuseReason::Overload),
            _ => None,
        };
        if let Some(reason) = reason {
            self.counters.refused(listener, reason);
        }
        (admission, counted)
    }

    pub(super) fn touch(&mut self, key: Key) {
        let slot = self.connections.get_mut(key.index as usize).and_then(Option::as_mut);
        if let Some(connection) = slot.filter(|c| c.generation == key.generation && !c.dirty) {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    pub(super) fn received(
        &mut self,
        key: Key,
        more: bool,
        result: Result<Option<ReceiveBuffer>, ReceiveError>,
    ) {
        let Some(mut connection) = self.take(key) else { return };
        connection.receiving = more;
        match result {
            Ok(Some(buffer)) if self.keeps(&connection) => {
                connection.kept.push(buffer);
                self.held_up = true;
                self.pause(key, &mut connection);
            }
            // What outlives the buffer is copied.
            Ok(Some(mut buffer)) => self.take_in(key, &mut connection, &mut buffer),
            Ok(None) => {
                self.note_truncation(&connection);
                connection.ended = true;
                // What came before it may still wait.
                if !connection.reads_later() {
                    self.end_of_stream(&mut connection);
                }
            }
            // Every buffer is kept: `resume` arms it again.
            Err(ReceiveError::NoBuffer) if self.log_full() => self.pause(key, &mut connection),
            // Out of buffers for a moment, or stopped on purpose.
            Err(ReceiveError::NoBuffer | ReceiveError::Cancelled) => {}
            Err(ReceiveError::Broken) => self.broken(&mut connection, CloseReason::ClientGone),
        }
        self.receive_again(key, &mut connection);
        self.arm(key, &mut connection);
        self.put(key, connection);
        self.touch(key);
    }

    pub(super) fn receive_again(&mut self, key: Key, connection: &mut Connection) {
        let reads =
            connection.paused.is_none() && !connection.ended && connection.phase != Phase::Dead;
        if reads && !connection.receiving {
            if connection.watching {
                self.submit(Submission::StopWatching { key });
            }
            connection.receiving = true;
            self.submit(Submission::Receive { key, socket: connection.socket });
        }
    }

    /// Octets for the session came in.
    pub(super) fn octets(&mut self, key: Key, connection: &mut Connection, octets: &[u8]) {
        if connection.phase != Phase::Open {
            return;
        }
        if self.holds_up(connection) {
            self.held_up = true;
            self.pause(key, connection);
        }
        if connection.session.is_waiting_for_auth() && !octets.is_empty() {
            // Who does not wait for the reply is not read: what it may leave here is bounded.
            self.pause(key, connection);
        }
        if connection.paused.is_some() {
            connection.unread.extend_from_slice(octets);
            return;
        }
        let had_tls = connection.tls.is_some();
        if connection.unread.is_empty() {
            let taken = self.serve(key, connection, octets);
            if let Some(rest) = octets.get(taken..).filter(|rest| !rest.is_empty()) {
                connection.unread.extend_from_slice(rest);
            }
            self.bound_early_talk(key, connection);
            self.guard_upgrade(connection, had_tls);
            return;
        }
        let mut unread = mem::take(&mut connection.unread);
        unread.extend_from_slice(octets);
        let mut at = 0;
        // What piled up while reading was stopped is taken in steps, each with a look at the room.
        loop {
            let step = &unread[at..unread.len().min(at + STEP_BYTES)];
            let taken = self.serve(key, connection, step);
            at += taken;
            if connection.tls.is_some() && !had_tls {
                break;
            }
            if connection.phase != Phase::Open {
                return;
            }
            if taken == 0 || at == unread.len() || connection.paused.is_some() {
                break;
            }
            if self.holds_up(connection) {
                self.held_up = true;
                self.pause(key, connection);
                break;
            }
        }
        unread.drain(..at);
        if !unread.is_empty() {
            connection.unread = unread;
        }
        self.bound_early_talk(key, connection);
        self.guard_upgrade(connection, had_tls);
    }

    /// The stream is dead: nothing more is read or sent; records in the log stay.
    pub(super) fn broken(&mut self, connection: &mut Connection, reason: CloseReason) {
        if connection.phase == Phase::Dead {
            return;
        }
        self.discard(connection);
        connection.reason = reason;
        self.shut(connection);
    }

    pub(super) fn shut(&mut self, connection: &mut Connection) {
        connection.phase = Phase::Dead;
        // Makes the pending receive complete.
        self.submit(Submission::Shut { socket: connection.socket, side: Side::Both });
    }

    /// Stops reading from a connection; `resume` looks at it again with each tick.
    pub(super) fn pause(&mut self, key: Key, connection: &mut Connection) {
        if connection.paused.is_none() {
            connection.paused = Some(self.now);
            self.paused.push(key);
            if !self.log_full() {
                self.stop_receiving(key, connection);
            }
        }
    }

    fn stop_receiving(&mut self, key: Key, connection: &mut Connection) {
        if connection.receiving {
            self.submit(Submission::StopReceiving { key });
        }
        // A peer that is gone must not hold memory as long as we are patient.
        if !connection.watching && connection.phase != Phase::Dead {
            connection.watching = true;
            self.submit(Submission::Watch { key, socket: connection.socket });
        }
    }

    /// Whether what is received for it stays in its buffer: while the log has no room, all is kept
    /// so, and memory stays bounded by the ring. Another reason to stop concerns few, who must not
    /// hold the buffers of all.
    fn keeps(&self, connection: &Connection) -> bool {
        connection.phase == Phase::Open && (self.log_full() || !connection.kept.is_empty())
    }

    /// Serves the octets in kept buffers, as far as nothing holds them up again.
    fn serve_kept(&mut self, key: Key, connection: &mut Connection) {
        self.octets(key, connection, &[]);
        let mut kept = mem::take(&mut connection.kept).into_iter();
        while connection.paused.is_none()
            && let Some(mut buffer) = kept.next()
        {
            self.take_in(key, connection, &mut buffer);
        }
        connection.kept = kept.collect();
        if connection.ended && !connection.reads_later() {
            self.end_of_stream(connection);
        }
    }

    pub(super) fn hung_up(&mut self, key: Key, gone: bool) {
        let Some(mut connection) = self.take(key) else { return };
        connection.watching = false;
        if gone {
            self.broken(&mut connection, CloseReason::ClientGone);
        }
        self.put(key, connection);
    }

    /// Whether what this connection sends has to wait: for memory only a message, for the log all.
    pub(super) fn holds_up(&self, connection: &Connection) -> bool {
        self.log_full() || self.memory_full() && connection.session.is_in_mail_data()
    }

    /// Reads on where the reason to stop is gone; gives up where it does not go.
    pub(super) fn resume(&mut self) {
        let mut held_up = false;
        for key in mem::take(&mut self.paused) {
            let Some(mut connection) = self.take(key) else { continue };
            let since = connection.paused.unwrap_or(self.now);
            let limits = &self.listeners[usize::from(connection.listener)].smtp.limits;
            // A peer that does not take its replies is dealt with by the deadline of its send, one
            // that talked before its greeting by the end of its wait.
            let unsent = connection.replies.unsent() > limits.unsent_replies_bytes / 2
                || connection.greeting.is_some();
            let patience = limits.commit_wait.min(limits.data_time);
            let ours = self.holds_up(&connection);
            let too_long = ours && self.now >= since + patience;
            if connection.phase != Phase::Open {
                connection.paused = None;
                self.serve_kept(key, &mut connection);
                self.receive_again(key, &mut connection);
            } else if too_long {
                if !connection.awaits_header() {
                    self.with_session(&mut connection, |session, context| {
                        session.handle_overload(context);
                    });
                }
                self.discard(&mut connection);
                connection.unread = Vec::new();
                connection.paused = None;
                connection.phase = Phase::Closing;
                connection.reason = CloseReason::Timeout;
                self.serve_kept(key, &mut connection);
                self.receive_again(key, &mut connection);
            } else if unsent || ours || connection.session.is_waiting_for_auth() {
                held_up |= ours;
                if connection.receiving && !self.log_full() {
                    self.stop_receiving(key, &mut connection);
                }
                self.paused.push(key);
            } else {
                connection.paused = None;
                connection.session.postpone(self.now.saturating_sub(since));
                self.serve_kept(key, &mut connection);
                self.receive_again(key, &mut connection);
            }
            self.put(key, connection);
            self.touch(key);
        }
        self.held_up = held_up;
    }
}
