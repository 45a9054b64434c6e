//! Who the client is when a proxy stands in between: its PROXY header, and XCLIENT.
//!
//! On a listener with the PROXY protocol a connection is only a wait for its header. Then it is
//! [opened](Services::open) as the client's. A peer that is not trusted, or sends something else,
//! is closed without a reply.

use std::{mem, net::SocketAddr, time::Duration};

use super::{
    Key, Services,
    connection::{Connection, Dialogue, Link, Phase, Proxied},
    proxy::{HEADER_BYTES_MAX, parse},
};
use crate::metrics::{CloseReason, RefuseReason};

/// What a proxy has to do with a new connection.
pub(super) enum Proxying {
    /// None may stand between.
    Off,
    /// The connection begins with a header.
    Awaits(Box<Proxied>),
    /// The peer may not connect.
    Refused,
}

impl Services {
    /// Whether a connection from this peer begins with a header.
    pub(super) fn judge_proxy(&mut self, listener: u16, peer: SocketAddr) -> Proxying {
        let place = usize::from(listener);
        let Some(proxies) = &self.listeners[place].gate.proxies else { return Proxying::Off };
        if proxies.contains(peer.ip()) {
            let (since, told) = (self.now, String::new());
            let proxied = Proxied { peer, awaits_header: true, since, told };
            return Proxying::Awaits(Box::new(proxied));
        }
        self.counters.refused(place, RefuseReason::ProxyHeader);
        self.counters.closed(place, CloseReason::ErrorLimit, Duration::ZERO);
        let why = "the peer is not in proxy_protocol.trusted of its listener";
        self.tell_trouble(listener, peer, "proxy", &why);
        Proxying::Refused
    }

    /// Octets arrived where a header is awaited; what follows it is processed as usual.
    pub(super) fn take_header(&mut self, key: Key, connection: &mut Connection, octets: &mut [u8]) {
        let Connection { link, dialogue, .. } = connection;
        if link.phase != Phase::Open {
            return;
        }
        let Some(proxied) = dialogue.proxy.as_deref_mut() else { return };
        let came = &mut link.intake.unread;
        let before = came.len();
        // One octet more than a header can have is not needed: the parser refuses at the limit.
        let taken = octets.len().min(HEADER_BYTES_MAX - before);
        came.extend_from_slice(&octets[..taken]);
        match parse(came) {
            Ok(None) => {}
            Ok(Some((bytes, header))) => {
                link.intake.forget();
                proxied.awaits_header = false;
                match header.client {
                    Some(client) => {
                        proxied.told = header.told;
                        dialogue.peer = client;
                    }
                    None => dialogue.proxy = None,
                }
                let rest = &mut octets[bytes - before..];
                dialogue.talks = !rest.is_empty();
                self.open(key, connection);
                if !rest.is_empty() {
                    self.take_in(key, connection, rest);
                }
            }
            Err(error) => self.no_header(connection, CloseReason::ErrorLimit, &error),
        }
    }

    pub(super) fn header_deadline(&self, dialogue: &Dialogue) -> Option<Duration> {
        let proxied = dialogue.proxy.as_ref().filter(|proxied| proxied.awaits_header)?;
        Some(proxied.since + self.listeners[dialogue.place()].gate.proxy_wait)
    }

    /// Ends a connection whose header took too long, unless it was us who did not read.
    pub(super) fn header_overdue(&mut self, connection: &mut Connection) -> bool {
        let Connection { link, dialogue, .. } = connection;
        let over = link.phase == Phase::Open
            && !link.intake.is_paused()
            && self.header_deadline(dialogue).is_some_and(|deadline| self.now >= deadline);
        if over {
            let error = match link.intake.unread.is_empty() {
                false => "it was not complete in time",
                // The client of SMTP waits for the greeting, and such a proxy for the client.
                true => {
                    "nothing arrived within limits.timeout.proxy; the proxy must send the header \
                     at once, not together with the client's first bytes"
                }
            };
            self.no_header(connection, CloseReason::Timeout, &error);
        }
        over
    }

    fn no_header(
        &mut self,
        connection: &mut Connection,
        reason: CloseReason,
        error: &dyn std::fmt::Display,
    ) {
        let dialogue = &mut connection.dialogue;
        dialogue.turned_away = true;
        self.counters.refused(dialogue.place(), RefuseReason::ProxyHeader);
        let error = format_args!("no valid header: {error}");
        self.tell_trouble(dialogue.listener, dialogue.peer, "proxy", &error);
        self.broken(connection, reason);
    }

    /// XCLIENT named another client: it is judged and greeted as if it had connected itself; says
    /// whether it may stay. The peer's right to use XCLIENT is not judged a second time.
    pub(super) fn new_client(
        &mut self,
        key: Key,
        link: &mut Link,
        dialogue: &mut Dialogue,
    ) -> bool {
        self.uncount(dialogue);
        // What the DNS says is said of the other client.
        dialogue.advice = None;
        if let Some(client) = dialogue.session.told_client(dialogue.peer) {
            let peer = mem::replace(&mut dialogue.peer, client);
            let (since, told) = (self.now, String::new());
            let proxied = Proxied { peer, awaits_header: false, since, told };
            dialogue.proxy.get_or_insert_with(|| Box::new(proxied));
        }
        self.welcome(key, link, dialogue)
    }
}

/// What a proxy said about the client, followed by what it said about the message.
pub(super) fn told(dialogue: &Dialogue) -> String {
    let mut told = match &dialogue.proxy {
        Some(proxied) => proxied.told.clone(),
        None => String::new(),
    };
    dialogue.session.push_proxy_facts(&mut told);
    told
}
