//! The client's side of one connection, sans-IO: replies in, commands and mail out.
//!
//! Messages in flight are in a queue; replies come in the order of the commands (RFC 2920 §3.1), so
//! each one belongs to the front of it. This module is the connection from the greeting to the
//! QUIT; [`transaction`] is what a message goes through in between.

mod terms;
mod transaction;

use std::{collections::VecDeque, io::Write};

use super::{
    mail::Carriage,
    outbox::Outbox,
    reply::{Line, LineReader},
    target::Protocol,
};
pub(super) use terms::{
    Context, Extensions, Fault, Nanos, Observer, Phase, Security, Style, Ticket,
};
use transaction::{Flight, Step};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    /// TLS is under way; nothing is said.
    Handshake,
    Banner,
    Helo,
    /// The server did not like EHLO.
    PlainHelo,
    Starttls,
    Auth,
    Open,
    /// RSET after a failed transaction.
    Resetting,
    Quitting,
    Over,
}

/// One connection's dialogue. Call `handle_*` for what happens, then send what the outbox holds.
#[derive(Debug)]
pub(super) struct Dialogue {
    state: State,
    reader: LineReader,
    flights: VecDeque<Flight>,
    pub(super) outbox: Outbox,
    extensions: Extensions,
    /// Among all connections of the run.
    number: u64,
    is_secured: bool,
    started: u64,
    /// Mail data stands in the outbox.
    data_waits: bool,
    needs_reset: bool,
    begun: Nanos,
    since: Nanos,
    fault: Option<Fault>,
    /// First line of a refusal that has several.
    words: Vec<u8>,
}

impl Dialogue {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            state: State::Connecting,
            reader: LineReader::default(),
            flights: VecDeque::new(),
            outbox: Outbox::default(),
            extensions: Extensions::default(),
            number: 0,
            is_secured: false,
            started: 0,
            data_waits: false,
            needs_reset: false,
            begun: now,
            since: now,
            fault: None,
            words: Vec::new(),
        }
    }

    /// Begins anew over the `number`th connection; keeps its buffers.
    pub(super) fn restart(&mut self, number: u64, now: Nanos) {
        debug_assert!(self.flights.is_empty(), "a message was forgotten");
        let mut flights = std::mem::take(&mut self.flights);
        let mut outbox = std::mem::take(&mut self.outbox);
        flights.clear();
        outbox.clear();
        *self = Self { flights, outbox, number, ..Self::new(now) };
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    /// Connected, and not so far that it could take a message.
    pub(super) fn is_unborn(&self) -> bool {
        matches!(
            self.state,
            State::Handshake
                | State::Banner
                | State::Helo
                | State::PlainHelo
                | State::Starttls
                | State::Auth
        )
    }

    /// Greeted, and not quitting yet: it takes messages, or will again.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Resetting)
    }

    /// TLS begins once the outbox is empty, or is under way.
    pub(super) fn wants_tls(&self) -> bool {
        self.state == State::Handshake
    }

    /// Nothing more to say or hear: close the connection.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// What went wrong with the connection, where something did.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    pub(super) fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// Greeted, and no message sent yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.state == State::Open && self.started == 0
    }

    /// Mail data is on its way out.
    pub(super) fn has_data(&self) -> bool {
        self.data_waits
    }

    /// Messages whose outcome is not known.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// When the server was last heard or asked, while a reply is due.
    pub(super) fn waiting_since(&self) -> Option<Nanos> {
        let idle = self.state == State::Open && self.flights.is_empty();
        (!idle && self.state != State::Over).then_some(self.since)
    }

    /// Whether a message can be started now.
    pub(super) fn has_room(&self, style: &Style) -> bool {
        if self.state != State::Open || self.needs_reset || self.started >= style.messages_max {
            return false;
        }
        let Some(last) = self.flights.back() else { return true };
        // RFC 2920 §3.1: DATA is the last command of its group, so the next message can follow
        // only behind its mail data.
        self.pipelines(style)
            && self.flights.len() < style.in_flight
            && (self.carriage(style) == Carriage::Bdat || last.step == Step::Final)
    }

    pub(super) fn handle_connected(
        &mut self,
        now: Nanos,
        style: &Style,
        observer: &mut impl Observer,
    ) {
        debug_assert_eq!(self.state, State::Connecting);
        observer.phase(Phase::Connect, self.begun, now - self.since);
        self.state = match style.security {
            Security::Implicit => State::Handshake,
            Security::Never | Security::Starttls => State::Banner,
        };
        self.since = now;
    }

    /// The TLS handshake is over.
    pub(super) fn handle_secured(
        &mut self,
        now: Nanos,
        style: &Style,
        observer: &mut impl Observer,
    ) {
        debug_assert_eq!(self.state, State::Handshake);
        observer.phase(Phase::Tls, self.begun, now - self.since);
        self.is_secured = true;
        self.since = now;
        if style.security == Security::Implicit {
            self.state = State::Banner;
            return;
        }
        // RFC 3207 §4.2: what the server offered in the clear is forgotten, and asked for anew.
        self.extensions = Extensions::default();
        self.say_helo(style);
    }

    /// Takes what the server sent.
    pub(super) fn handle_input(
        &mut self,
        octets: &[u8],
        now: Nanos,
        cx: Context<'_>,
        observer: &mut impl Observer,
    ) {
        let mut reader = std::mem::take(&mut self.reader);
        let mut rest = octets;
        while self.state != State::Over {
            if self.state == State::Handshake {
                // What comes in the clear where TLS is due is nobody's (RFC 3207 §6).
                if !rest.is_empty() {
                    self.fail(Fault::Protocol, now, observer);
                }
                break;
            }
            match reader.next(&mut rest) {
                Ok(Some(line)) => self.handle_line(line, now, cx, observer),
                Ok(None) => break,
                Err(_) => self.fail(Fault::Protocol, now, observer),
            }
        }
        self.reader = reader;
        self.since = now;
    }

    /// The connection is no more: what was in flight has failed.
    pub(super) fn fail(&mut self, fault: Fault, now: Nanos, observer: &mut impl Observer) {
        let quitting = self.state == State::Quitting;
        let fault = match (self.state, fault) {
            (State::Handshake, Fault::Timeout) => Fault::HandshakeTimeout,
            (State::Handshake, Fault::Closed | Fault::Socket | Fault::Protocol) => Fault::Handshake,
            _ => fault,
        };
        while let Some(flight) = self.flights.pop_front() {
            observer.failed(flight.ticket, flight.fault.unwrap_or(fault), now);
        }
        self.outbox.clear();
        self.data_waits = false;
        self.state = State::Over;
        if !quitting {
            self.fault = Some(fault);
        }
    }

    /// Says QUIT where nothing is in flight.
    pub(super) fn quit(&mut self, now: Nanos) {
        if self.state == State::Open && self.flights.is_empty() {
            self.state = State::Quitting;
            self.outbox.push(b"QUIT\r\n");
            self.since = now;
        }
    }

    fn pipelines(&self, style: &Style) -> bool {
        style.pipelining && self.extensions.pipelining
    }

    fn carriage(&self, style: &Style) -> Carriage {
        if style.chunking && self.extensions.chunking { Carriage::Bdat } else { Carriage::Data }
    }

    fn handle_line(
        &mut self,
        line: Line<'_>,
        now: Nanos,
        cx: Context<'_>,
        observer: &mut impl Observer,
    ) {
        if self.state == State::Helo {
            self.note_keyword(line.text);
        }
        if !line.is_final {
            if line.code >= 400 && self.words.is_empty() {
                self.words.extend_from_slice(line.text);
            }
            return;
        }
        if self.words.is_empty() {
            observer.reply(line);
        } else {
            // The first line of a refusal says most.
            let words = std::mem::take(&mut self.words);
            observer.reply(Line { text: &words, ..line });
        }
        let positive = (200..300).contains(&line.code);
        // RFC 5321 §3.8: 421 may answer any command, and the server closes.
        if line.code == 421 && self.state != State::Quitting {
            return self.fail(Fault::Rejected(421), now, observer);
        }
        match self.state {
            State::Banner if positive => {
                observer.phase(Phase::Banner, self.begun, now - self.since);
                self.say_helo(cx.style);
            }
            State::Helo | State::PlainHelo if positive => {
                observer.phase(Phase::Helo, self.begun, now - self.since);
                self.handle_greeted(now, cx.style, observer);
            }
            State::Starttls if line.code == 220 => self.state = State::Handshake,
            State::Starttls => self.fail(Fault::Starttls(Some(line.code)), now, observer),
            State::Auth if positive => {
                observer.phase(Phase::Auth, self.begun, now - self.since);
                self.state = State::Open;
            }
            State::Auth => self.fail(Fault::Auth(Some(line.code)), now, observer),
            State::Helo if cx.style.protocol == Protocol::Smtp => {
                self.extensions = Extensions::default();
                self.say("HELO", &cx.style.helo);
                self.state = State::PlainHelo;
            }
            State::Open => self.handle_reply(line.code, now, cx, observer),
            State::Resetting if positive => {
                self.state = State::Open;
                self.after_message(cx.style, now);
            }
            State::Quitting => self.state = State::Over,
            State::Banner | State::Helo | State::PlainHelo | State::Resetting => {
                self.fail(Fault::Rejected(line.code), now, observer);
            }
            State::Connecting | State::Handshake | State::Over => {
                self.fail(Fault::Protocol, now, observer)
            }
        }
    }

    fn after_message(&mut self, style: &Style, now: Nanos) {
        if self.started >= style.messages_max {
            self.quit(now);
        }
    }

    /// The server has told what it offers.
    fn handle_greeted(&mut self, now: Nanos, style: &Style, observer: &mut impl Observer) {
        if style.security == Security::Starttls && !self.is_secured {
            if !self.extensions.starttls {
                return self.fail(Fault::Starttls(None), now, observer);
            }
            self.outbox.push(b"STARTTLS\r\n");
            self.state = State::Starttls;
        } else if let Some(response) = style.credentials.of(self.number) {
            debug_assert!(self.is_secured, "a password is not said in the clear");
            if !self.extensions.auth_plain {
                return self.fail(Fault::Auth(None), now, observer);
            }
            // RFC 4954 §4: the initial response saves a round trip.
            self.say("AUTH PLAIN", response);
            self.state = State::Auth;
        } else {
            self.state = State::Open;
        }
    }

    fn say_helo(&mut self, style: &Style) {
        let verb = match style.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        };
        self.say(verb, &style.helo);
        self.state = State::Helo;
    }

    fn say(&mut self, verb: &str, argument: &str) {
        self.outbox.write(|out| {
            // Writing into a Vec cannot fail.
            let _ = write!(out, "{verb} {argument}\r\n");
        });
    }

    fn note_keyword(&mut self, text: &[u8]) {
        if text.eq_ignore_ascii_case(b"PIPELINING") {
            self.extensions.pipelining = true;
        } else if text.eq_ignore_ascii_case(b"CHUNKING") {
            self.extensions.chunking = true;
        } else if text.eq_ignore_ascii_case(b"STARTTLS") {
            self.extensions.starttls = true;
        } else if text.len() > 4 && text[..5].eq_ignore_ascii_case(b"AUTH ") {
            let mut mechanisms = text[5..].split(|octet| *octet == b' ');
            self.extensions.auth_plain =
                mechanisms.any(|mechanism| mechanism.eq_ignore_ascii_case(b"PLAIN"));
        }
    }
}

#[cfg(test)]
mod tests;
