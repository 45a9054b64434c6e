//! XCLIENT and XFORWARD: a trusted peer says whose mail it brings. De-facto commands of Postfix,
//! according to its XCLIENT_README and XFORWARD_README.
//!
//! XCLIENT makes the session that of another client, from the greeting on. XFORWARD only says where
//! the next message comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::super::attribute::{self, Attribute, Kind};
use super::super::proxy_facts::push_proxy_fact;
use super::super::reply;
use super::{Context, Event, Session, State};

/// What a peer that may speak for clients has said.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    /// By XCLIENT: a value holds until the next one is given, HELO, PROTO and LOGIN until the next
    /// command.
    client: Vec<Attribute>,
    /// By XFORWARD, of the next message.
    forwarded: Vec<Attribute>,
}

/// Puts new values in the place of old ones.
fn merge(into: &mut Vec<Attribute>, new: Vec<Attribute>) {
    into.retain(|(old, _)| new.iter().all(|(name, _)| name != old));
    into.extend(new);
}

/// `None`: it was not mentioned. `Some(None)`: it is not known.
fn find(attributes: &[Attribute], kind: Kind) -> Option<Option<&str>> {
    attributes.iter().find(|(told, _)| *told == kind).map(|(_, value)| value.as_deref())
}

impl Session {
    /// Lets the peer use XCLIENT and XFORWARD for the whole session, whichever client it names.
    pub fn trust_xclient(&mut self) {
        self.upstream.get_or_insert_default();
    }

    /// Address and port of the client given by XCLIENT, if there was one; what it left out is taken
    /// from `peer`, if it means the same client. An address that is not known is 0.0.0.0.
    pub fn told_client(&self, peer: SocketAddr) -> Option<SocketAddr> {
        let told = &self.upstream.as_ref()?.client;
        let address = find(told, Kind::Addr);
        let port = find(told, Kind::Port);
        if address.is_none() && port.is_none() {
            return None;
        }
        let other_port = if address.is_some() { 0 } else { peer.port() };
        let address = address.map_or(peer.ip(), |address| {
            let known = address.and_then(attribute::parse_address);
            known.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        });
        let port =
            port.map_or(other_port, |port| port.and_then(attribute::parse_port).unwrap_or(0));
        Some(SocketAddr::new(address, port))
    }

    /// The user that authenticated to the peer, according to XCLIENT.
    pub(super) fn told_login(&self) -> Option<&str> {
        find(&self.upstream.as_ref()?.client, Kind::Login).flatten()
    }

    /// Appends to `items` what was said about the client and the present message, as [`push_proxy_fact`]
    /// does.
    pub fn push_proxy_facts(&self, items: &mut String) {
        let Some(upstream) = &self.upstream else { return };
        for (prefix, told) in [("XCLIENT_", &upstream.client), ("XFORWARD_", &upstream.forwarded)] {
            for (name, value) in told {
                if let Some(value) = value {
                    push_proxy_fact(items, prefix, name.text(), value.as_bytes());
                }
            }
        }
    }

    /// Word of a message does not outlive its transaction.
    pub(super) fn forget_forwarded(&mut self) {
        if let Some(upstream) = &mut self.upstream {
            upstream.forwarded.clear();
        }
    }

    pub(super) fn xclient(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        let told = match self.attributes(argument, Kind::XCLIENT) {
            Ok(told) => told,
            Err(reply) => return self.refuse(cx, reply),
        };
        let (helo, proto) = (find(&told, Kind::Helo).flatten(), find(&told, Kind::Proto).flatten());
        let esmtp = match proto {
            Some(proto) if proto.eq_ignore_ascii_case("ESMTP") => true,
            Some(proto) if !proto.eq_ignore_ascii_case("SMTP") => {
                return self.refuse(cx, reply::BAD_ARGUMENT);
            }
            _ => false,
        };
        self.restart(cx.now, helo.unwrap_or_default(), esmtp);
        if let Some(upstream) = &mut self.upstream {
            upstream
                .client
                .retain(|(name, _)| !matches!(name, Kind::Helo | Kind::Proto | Kind::Login));
            merge(&mut upstream.client, told);
        }
        Some(Event::NewClient)
    }

    pub(super) fn xforward(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        match self.attributes(argument, Kind::XFORWARD) {
            Ok(told) => {
                if let Some(upstream) = &mut self.upstream {
                    merge(&mut upstream.forwarded, told);
                }
                cx.push(reply::OK);
                None
            }
            Err(reply) => self.refuse(cx, reply),
        }
    }

    fn attributes(&self, argument: &[u8], names: &[Kind]) -> Result<Vec<Attribute>, reply::Reply> {
        if self.upstream.is_none() {
            // BAD-INPUTS A27: as if there were no such commands.
            return Err(reply::NOT_IMPLEMENTED);
        }
        if self.transaction.open {
            return Err(reply::IN_TRANSACTION);
        }
        attribute::parse(argument, names).ok_or(reply::BAD_ARGUMENT)
    }

    /// Another client: nothing of the one before is left, but TLS and the right to speak for others.
    fn restart(&mut self, now: Duration, helo: &str, esmtp: bool) {
        self.clear_transaction();
        self.state = State::New;
        self.helo = helo.into();
        self.esmtp = esmtp;
        self.odd_line = false;
        self.auth = None;
        self.refused_by = None;
        self.started = now;
        (self.errors, self.junk, self.messages, self.rcpts) = (0, 0, 0, 0);
    }
}
