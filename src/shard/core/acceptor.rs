//! Accepting connections.

use std::{io, mem, time::Duration};

use super::{
    AcceptError, Arrival, Key, Services, Submission,
    client::Proxying,
    connection::{Collected, Connection, Dialogue, Link, Taken},
};
use crate::smtp::{Replies, Session};

/// A listener that could not accept is left alone this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a failing accept is logged.
const ACCEPT_TELL: Duration = Duration::from_secs(10);

/// Which listeners are to be armed again, and when.
#[derive(Default)]
pub(super) struct Acceptor {
    again: Vec<u32>,
    /// Not before this: descriptors or memory were short.
    at: Duration,
    failed: Option<Duration>,
}

impl Acceptor {
    /// The listeners to be armed now.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<u32> {
        if now >= self.at { mem::take(&mut self.again) } else { Vec::new() }
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
    pub(super) fn accept(&mut self, listener: u32) {
        self.submit(Submission::Accept { listener });
    }

    /// A listener has something: a connection, where it may stay.
    pub(super) fn accepted(
        &mut self,
        listener: u32,
        more: bool,
        result: Result<Arrival, AcceptError>,
    ) -> Option<Box<Connection>> {
        // What overload stopped it takes up again itself.
        if !more && !self.tuning.stops_accepting() {
            self.acceptor.again.push(listener);
        }
        let Arrival { socket, peer, talks } = match result {
            Ok(arrival) => arrival,
            Err(AcceptError::Failed(error)) if self.draining.is_none() => {
                self.acceptor.failed(&error, self.now);
                return None;
            }
            Err(_) => return None,
        };
        let place = listener as u16;
        self.counters.connection(usize::from(place));
        let proxy = match self.judge_proxy(place, peer) {
            Proxying::Off => None,
            Proxying::Awaits(proxied) => Some(proxied),
            Proxying::Refused => {
                self.submit(Submission::Close { socket });
                return None;
            }
        };
        self.gatekeeper.came();
        let session = Session::new(self.now, false, &self.listeners[usize::from(place)].smtp);
        let dialogue = Dialogue {
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
        self.submit(Submission::Receive { key, socket: connection.link.socket });
        if !connection.dialogue.awaits_header() {
            self.open(key, connection);
        }
        let due = self.due(connection);
        self.deadlines.enter(key, &mut connection.link, due);
        self.outgoing.touch(key, &mut connection.link);
    }
}
