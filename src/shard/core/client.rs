//! Who the client is, where a proxy stands between: its PROXY header, and XCLIENT.
//!
//! On a listener with the PROXY protocol a connection is nothing but a wait for its header; then it
//! is [opened](Shard::open) as the client's. Whoever is not trusted, or sends something else, is
//! closed without a word.

use std::{mem, net::SocketAddr, time::Duration};

use super::{
    Key, Shard,
    connection::{Connection, Phase, Proxied},
    proxy::{HEADER_BYTES_MAX, parse},
};
use crate::metrics::{CloseReason, RefuseReason};

impl Shard {
    /// Whether a connection from this peer begins with a header. `None`: the peer may not connect.
    pub(super) fn judge_proxy(
        &mut self,
        listener: usize,
        peer: SocketAddr,
    ) -> Option<Option<Box<Proxied>>> {
        let Some(proxies) = &self.listeners[listener].gate.proxies else { return Some(None) };
        if proxies.contains(peer.ip()) {
            let (header, since, told) = (Some(Vec::new()), self.now, String::new());
            return Some(Some(Box::new(Proxied { peer, header, since, told })));
        }
        self.counters.refused(listener, RefuseReason::ProxyHeader);
        self.counters.closed(listener, CloseReason::ErrorLimit, Duration::ZERO);
        let why = "the peer is not in proxy_protocol.trusted of its listener";
        self.tell_trouble(listener as u16, peer, "proxy", &why);
        None
    }

    /// Octets came in where a header is waited for; what is behind it goes its usual way.
    pub(super) fn take_header(&mut self, key: Key, connection: &mut Connection, octets: &mut [u8]) {
        if connection.phase != Phase::Open {
            return;
        }
        let Some(proxied) = connection.proxy.as_deref_mut() else { return };
        let Some(came) = &mut proxied.header else { return };
        let before = came.len();
        // One octet more than a header can have is not needed: the parser refuses at the limit.
        let taken = octets.len().min(HEADER_BYTES_MAX - before);
        came.extend_from_slice(&octets[..taken]);
        match parse(came) {
            Ok(None) => {}
            Ok(Some((bytes, header))) => {
                proxied.header = None;
                match header.client {
                    Some(client) => {
                        proxied.told = header.told;
                        connection.peer = client;
                    }
                    None => connection.proxy = None,
                }
                let rest = &mut octets[bytes - before..];
                connection.talks = !rest.is_empty();
                self.open(key, connection);
                if !rest.is_empty() {
                    self.take_in(key, connection, rest);
                }
            }
            Err(error) => self.no_header(connection, CloseReason::ErrorLimit, &error),
        }
    }

    pub(super) fn header_deadline(&self, connection: &Connection) -> Option<Duration> {
        let proxied = connection.proxy.as_ref().filter(|proxied| proxied.header.is_some())?;
        let gate = &self.listeners[usize::from(connection.listener)].gate;
        Some(proxied.since + gate.proxy_wait)
    }

    /// Ends a connection whose header took too long, unless it was us who did not read.
    pub(super) fn header_overdue(&mut self, connection: &mut Connection) -> bool {
        let over = connection.phase == Phase::Open
            && connection.paused.is_none()
            && self.header_deadline(connection).is_some_and(|deadline| self.now >= deadline);
        if over {
            let came = connection.proxy.as_ref().and_then(|proxied| proxied.header.as_ref());
            let error = match came.is_some_and(|came| !came.is_empty()) {
                true => "it took too long",
                // The client of SMTP waits for the greeting, and such a proxy for the client.
                false => {
                    "nothing came in limits.timeout.proxy; the proxy must send the header at once, \
                     and not with the client's first bytes"
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
        self.counters.refused(usize::from(connection.listener), RefuseReason::ProxyHeader);
        let error = format_args!("no valid header: {error}");
        self.tell_trouble(connection.listener, connection.peer, "proxy", &error);
        self.broken(connection, reason);
    }

    /// XCLIENT told of another client: it is judged and greeted as if it had come by itself; says
    /// whether it may stay. The peer's right to tell is not judged anew.
    pub(super) fn new_client(&mut self, key: Key, connection: &mut Connection) -> bool {
        self.uncount(connection);
        // What the DNS says is said of the other client.
        connection.advice = None;
        if let Some(client) = connection.session.told_client(connection.peer) {
            let peer = mem::replace(&mut connection.peer, client);
            connection.proxy.get_or_insert_with(|| {
                let (header, since, told) = (None, self.now, String::new());
                Box::new(Proxied { peer, header, since, told })
            });
        }
        self.welcome(key, connection)
    }
}

/// What a proxy told of the client, and of the message at its end.
pub(super) fn told(connection: &Connection) -> String {
    let mut told = match &connection.proxy {
        Some(proxied) => proxied.told.clone(),
        None => String::new(),
    };
    connection.session.push_told(&mut told);
    told
}
