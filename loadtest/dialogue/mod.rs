//! The client's side of one connection, sans-IO: replies in, commands and mail out.
//!
//! Messages in flight are in a queue; replies come in the order of the commands (RFC 2920 §3.1), so
//! each one belongs to the front of it. This module is the connection from the greeting to the
//! QUIT; [`transaction`] is what a message goes through in between.

mod terms;
mod transaction;

use std::collections::VecDeque;

use mailrace_smtp::client::{Failure, Hello, Line, LineReader, Step as HelloStep};

use super::{mail::Carriage, outbox::Outbox};
pub(super) use mailrace_smtp::client::Offer as Extensions;
pub(super) use terms::{Context, Fault, Nanos, Observer, Phase, Security, Style, Ticket};
use transaction::{Flight, Step};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    /// Up to where a message can be sent: see [`Hello`].
    Hello,
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
    hello: Hello,
    /// Among all connections of the run.
    number: u64,
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
            hello: Hello::default(),
            number: 0,
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

    /// Connected, and not yet ready for a message: greeting, EHLO and TLS are under way.
    pub(super) fn is_greeting(&self) -> bool {
        self.state == State::Hello
    }

    /// Greeted, and not quitting yet: it takes messages, or will again.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Resetting)
    }

    /// TLS begins once the outbox is empty, or is under way.
    pub(super) fn wants_tls(&self) -> bool {
        self.state == State::Hello && self.hello.step() == HelloStep::Handshake
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
        *self.hello.offer()
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
        self.hello = match style.security {
            Security::Implicit => Hello::before_tls(),
            Security::Never | Security::Starttls => Hello::new(false),
        };
        self.state = State::Hello;
        self.since = now;
    }

    /// The TLS handshake is over.
    pub(super) fn handle_secured(
        &mut self,
        now: Nanos,
        style: &Style,
        observer: &mut impl Observer,
    ) {
        debug_assert!(self.wants_tls(), "the server has agreed to STARTTLS");
        observer.phase(Phase::Tls, self.begun, now - self.since);
        self.since = now;
        let Self { hello, outbox, number, .. } = self;
        outbox.write(|out| hello.handle_secured(&style.manner(*number), out));
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
            if self.wants_tls() {
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
        let fault = match (self.wants_tls(), fault) {
            (true, Fault::Timeout) => Fault::HandshakeTimeout,
            (true, Fault::Closed | Fault::Socket | Fault::Protocol) => Fault::Handshake,
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
        style.pipelining && self.hello.offer().pipelining
    }

    fn carriage(&self, style: &Style) -> Carriage {
        if style.chunking && self.hello.offer().chunking { Carriage::Bdat } else { Carriage::Data }
    }

    fn handle_line(
        &mut self,
        line: Line<'_>,
        now: Nanos,
        cx: Context<'_>,
        observer: &mut impl Observer,
    ) {
        if !line.is_final {
            if self.state == State::Hello {
                self.handle_hello(line, now, cx.style, observer);
            }
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
            State::Hello => self.handle_hello(line, now, cx.style, observer),
            State::Open => self.handle_reply(line.code, now, cx, observer),
            State::Resetting if positive => {
                self.state = State::Open;
                self.after_message(cx.style, now);
            }
            State::Quitting => self.state = State::Over,
            State::Resetting => self.fail(Fault::Rejected(line.code), now, observer),
            State::Connecting | State::Over => self.fail(Fault::Protocol, now, observer),
        }
    }

    fn after_message(&mut self, style: &Style, now: Nanos) {
        if self.started >= style.messages_max {
            self.quit(now);
        }
    }

    /// A reply line on the way to where a message can be sent.
    fn handle_hello(
        &mut self,
        line: Line<'_>,
        now: Nanos,
        style: &Style,
        observer: &mut impl Observer,
    ) {
        let waited_for = self.hello.step();
        let Self { hello, outbox, number, .. } = self;
        let mut heard = Ok(());
        outbox.write(|out| heard = hello.handle_line(line, &style.manner(*number), out));
        let moved = self.hello.step() != HelloStep::OldHello || heard.is_err();
        let phase = match waited_for {
            HelloStep::Greeting => Some(Phase::Banner),
            HelloStep::Hello => moved.then_some(Phase::Helo),
            HelloStep::OldHello => Some(Phase::Helo),
            HelloStep::Auth => Some(Phase::Auth),
            HelloStep::StartTls | HelloStep::Handshake | HelloStep::Ready => None,
        };
        if let Some(phase) = phase
            && line.is_final
            && !matches!(heard, Err(Failure::Refused(_)))
        {
            observer.phase(phase, self.begun, now - self.since);
        }
        let fault = match heard {
            Ok(()) if self.hello.step() == HelloStep::Ready => return self.state = State::Open,
            Ok(()) => return,
            Err(Failure::NoStartTls) => Fault::Starttls(None),
            Err(Failure::NoAuthPlain | Failure::NoTlsForAuth) => Fault::Auth(None),
            Err(Failure::Refused(HelloStep::StartTls)) => Fault::Starttls(Some(line.code)),
            Err(Failure::Refused(HelloStep::Auth)) => Fault::Auth(Some(line.code)),
            Err(Failure::Refused(_)) if line.code < 400 => Fault::Protocol,
            Err(Failure::Refused(_)) => Fault::Rejected(line.code),
        };
        self.fail(fault, now, observer);
    }
}

#[cfg(test)]
mod tests;
