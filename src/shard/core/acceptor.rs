//! Accepting connections.

use std::{collections::VecDeque, io, mem, time::Duration};

use super::{
    AcceptError, Arrival, Key, Services, Submission,
    client::Proxying,
    connection::{Collected, Connection, Dialogue, Link, Taken},
    follow::Number,
};
use crate::smtp::{Replies, Session};

/// A listener that could not accept is left alone this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a failing accept is logged.
const ACCEPT_TELL: Duration = Duration::from_secs(10);

/// Connections that begin in a turn. A greeting, a handshake or a refusal costs far more than the
/// kernel's accept: without a bound, one turn could hold a thousand of them, and a message would wait
/// for several such turns before its 250.
const BEGINS_A_TURN: usize = 64;

/// Accepted connections that wait for their turn. Beyond it accepting stops, and the kernel's queue
/// holds the rest.
const WAITING_MAX: usize = 1024;

/// Which listeners are to be armed again, and when; accepted connections that did not begin yet.
#[derive(Default)]
pub(super) struct Acceptor {
    waiting: VecDeque<(u32, Arrival)>,
    again: Vec<u32>,
    /// Accepts under way.
    armed: usize,
    /// Another process goes on with the listening sockets.
    hands_over: bool,
    /// Not before this: descriptors or memory were short.
    at: Duration,
    failed: Option<Duration>,
}

impl Acceptor {
    /// Whether accepted connections wait for their turn.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Those that begin in this turn, the longest waiting first.
    pub(super) fn take_turn(&mut self) -> Vec<(u32, Arrival)> {
        let some = self.waiting.len().min(BEGINS_A_TURN);
        self.waiting.drain(..some).collect()
    }

    /// The listeners to be armed now.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<u32> {
        let may = now >= self.at && !self.hands_over && !self.has_waiting();
        if may { mem::take(&mut self.again) } else { Vec::new() }
    }

    /// Nothing is armed again by itself.
    pub(super) fn stop(&mut self) {
        self.again = Vec::new();
    }

    fn failed(&mut self, error: &io::Error, now: Duration) {
        if self.failed.is_none_or(|told| now >= told + ACCEPT_TELL) {
            self.failed = Some(now);
            tracing::warn!(%error, "accept failed");
        }
        self.at = now + ACCEPT_PAUSE;
    }
}

impl Services {
    /// Takes connections of a listener, once none of another process is to take them.
    pub(super) fn accept(&mut self, listener: u32) {
        if self.acceptor.hands_over {
            self.acceptor.again.push(listener);
            return;
        }
        self.acceptor.armed += 1;
        self.submit(Submission::Accept { listener });
    }

    /// Stops taking connections; those that were taken are served.
    pub(super) fn stop_accepting(&mut self) {
        for listener in 0..self.listeners.len() as u32 {
            self.submit(Submission::StopAccepting { listener });
        }
    }

    /// Begins and ends the time in which another process is to go on with the listening sockets.
    pub(super) fn hand_over_if_wanted(&mut self) {
        let wanted = self.shared.hands_over();
        if wanted != mem::replace(&mut self.acceptor.hands_over, wanted) && wanted {
            self.stop_accepting();
        }
        let quiet = wanted && self.acceptor.armed == 0 && self.gatekeeper.open() == 0;
        self.shared.set_quiet(quiet);
    }

    /// A listener has something: a connection, which waits for its turn.
    pub(super) fn accepted(
        &mut self,
        listener: u32,
        more: bool,
        result: Result<Arrival, AcceptError>,
    ) {
        if !more {
            self.acceptor.armed = self.acceptor.armed.saturating_sub(1);
            // What overload stopped it takes up again itself.
            if !self.tuning.stops_accepting() {
                self.acceptor.again.push(listener);
            }
        }
        match result {
            Ok(arrival) => {
                self.gatekeeper.came();
                self.acceptor.waiting.push_back((listener, arrival));
                if self.acceptor.waiting.len() == WAITING_MAX {
                    self.stop_accepting();
                }
            }
            Err(AcceptError::Failed(error)) if self.draining.is_none() => {
                self.acceptor.failed(&error, self.now);
            }
            Err(_) => {}
        }
    }

    /// The turn of an accepted connection: what it begins with, where it may stay.
    pub(super) fn admit_arrival(
        &mut self,
        listener: u32,
        arrival: Arrival,
    ) -> Option<Box<Connection>> {
        let Arrival { socket, peer, talks } = arrival;
        let place = listener as u16;
        self.counters.connection(usize::from(place));
        let proxy = match self.judge_proxy(place, peer) {
            Proxying::Off => None,
            Proxying::Awaits(proxied) => Some(proxied),
            Proxying::Refused => {
                self.gatekeeper.left();
                self.submit(Submission::Close { socket });
                return None;
            }
        };
        let session = Session::new(self.now, false, &self.listeners[usize::from(place)].smtp);
        let dialogue = Dialogue {
            number: Number::default(),
            session,
            replies: Replies::new(),
            mail: Collected::default(),
            peer,
            listener: place,
            counted: false,
            talks,
            turned_away: false,
            wait: None,
            proxy,
            tls: None,
            advice: None,
            taken: Taken::default(),
        };
        let link = Link::new(socket, self.now);
        Some(Box::new(Connection { link, tls: None, dialogue }))
    }

    /// A connection has its place: its session begins, or its wait for a header.
    pub(super) fn begin(&mut self, key: Key, connection: &mut Connection) {
        connection.dialogue.number = Number::of(key);
        self.submit(Submission::Receive { key, socket: connection.link.socket });
        if !connection.dialogue.awaits_header() {
            self.open(key, connection);
        }
        let due = self.due(connection);
        self.deadlines.enter(key, &mut connection.link, due);
        self.outgoing.touch(key, &mut connection.link);
    }
}
