//! The client's side of one connection, sans-IO: replies in, commands and mail out.
//!
//! Messages in flight stand in a queue; replies come in the order of the commands (RFC 2920 §3.1),
//! so each one belongs to the front of it.

use std::{collections::VecDeque, io::Write};

use super::{
    mail::{Carriage, Mail, Sequence},
    outbox::Outbox,
    reply::{Line, LineReader},
    target::Protocol,
};

/// Nanoseconds since the start of the run.
pub(super) type Nanos = u64;

/// Where time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// `connect` to connected.
    Connect,
    /// Connected to the greeting.
    Banner,
    /// EHLO to its reply.
    Helo,
    /// Send of MAIL to the reply to the last RCPT.
    Envelope,
    /// From there to the last octet of mail data in the kernel's hands; where all goes out in one
    /// write, from the send of MAIL.
    Data,
    /// From there to the final reply.
    Ack,
}

impl Phase {
    pub(super) const ALL: [Self; 6] =
        [Self::Connect, Self::Banner, Self::Helo, Self::Envelope, Self::Data, Self::Ack];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Banner => "banner",
            Self::Helo => "helo",
            Self::Envelope => "mail+rcpt",
            Self::Data => "data",
            Self::Ack => "ack",
        }
    }
}

/// A message that the schedule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) sequence: Sequence,
    pub(super) scheduled: Nanos,
}

/// Why a message or a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `connect` failed.
    Connect,
    /// Closed by the server before its time.
    Closed,
    /// Reset, or another error of the socket.
    Socket,
    /// No reply in time.
    Timeout,
    /// What came is no SMTP, or a reply nothing asked for.
    Protocol,
    /// A negative reply.
    Rejected(u16),
}

/// Hears what happens.
pub(super) trait Observer {
    fn reply(&mut self, line: Line<'_>);
    /// `since` is when the message was scheduled, or when the connection was begun.
    fn phase(&mut self, phase: Phase, since: Nanos, took: Nanos);
    /// A final 2yz to all of its recipients.
    fn acked(&mut self, ticket: Ticket, sent: Nanos, now: Nanos);
    fn failed(&mut self, ticket: Ticket, fault: Fault, now: Nanos);
}

/// How this client talks.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub(super) protocol: Protocol,
    pub(super) helo: String,
    pub(super) pipelining: bool,
    pub(super) chunking: bool,
    /// Messages sent and not answered, at most.
    pub(super) in_flight: usize,
    /// Then QUIT.
    pub(super) messages_max: u64,
}

/// What a dialogue refers to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) style: &'a Style,
    pub(super) mail: &'a Mail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Banner,
    Helo,
    /// The server did not like EHLO.
    PlainHelo,
    Open,
    /// RSET after a failed transaction.
    Resetting,
    Quitting,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Mail,
    Recipients,
    Data,
    Final,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    ticket: Ticket,
    sent: Nanos,
    step: Step,
    recipients: u16,
    answered: u16,
    accepted: u16,
    /// Final replies still to come; with LMTP one for each accepted recipient.
    finals: u16,
    envelope_done: Nanos,
    /// Mail data was put into the outbox.
    has_data: bool,
    /// Last octet of mail data gone.
    written: Option<Nanos>,
    fault: Option<Fault>,
}

/// Service extensions that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) pipelining: bool,
    pub(super) chunking: bool,
}

/// One connection's dialogue. Call `handle_*` for what happens, then send what the outbox holds.
#[derive(Debug)]
pub(super) struct Dialogue {
    state: State,
    reader: LineReader,
    flights: VecDeque<Flight>,
    pub(super) outbox: Outbox,
    extensions: Extensions,
    started: u64,
    /// Mail data stands in the outbox.
    data_waits: bool,
    needs_reset: bool,
    begun: Nanos,
    since: Nanos,
    fault: Option<Fault>,
}

impl Dialogue {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            state: State::Connecting,
            reader: LineReader::default(),
            flights: VecDeque::new(),
            outbox: Outbox::default(),
            extensions: Extensions::default(),
            started: 0,
            data_waits: false,
            needs_reset: false,
            begun: now,
            since: now,
            fault: None,
        }
    }

    /// Begins anew over a new connection; keeps its buffers.
    pub(super) fn restart(&mut self, now: Nanos) {
        debug_assert!(self.flights.is_empty(), "a message was forgotten");
        let mut flights = std::mem::take(&mut self.flights);
        let mut outbox = std::mem::take(&mut self.outbox);
        flights.clear();
        outbox.clear();
        *self = Self { flights, outbox, ..Self::new(now) };
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    /// Connected, not greeted yet.
    pub(super) fn is_unborn(&self) -> bool {
        matches!(self.state, State::Banner | State::Helo | State::PlainHelo)
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

    pub(super) fn handle_connected(&mut self, now: Nanos, observer: &mut impl Observer) {
        debug_assert_eq!(self.state, State::Connecting);
        observer.phase(Phase::Connect, self.begun, now - self.since);
        self.state = State::Banner;
        self.since = now;
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
            match reader.next(&mut rest) {
                Ok(Some(line)) => self.handle_line(line, now, cx, observer),
                Ok(None) => break,
                Err(_) => self.fail(Fault::Protocol, now, observer),
            }
        }
        self.reader = reader;
        self.since = now;
    }

    /// Starts a message; needs [`Self::has_room`].
    pub(super) fn start(&mut self, ticket: Ticket, now: Nanos, cx: Context<'_>) {
        debug_assert!(self.has_room(cx.style));
        self.started += 1;
        self.since = now;
        let recipients = cx.mail.recipients(ticket.sequence) as u16;
        let mut flight = Flight {
            ticket,
            sent: now,
            step: Step::Mail,
            recipients,
            answered: 0,
            accepted: 0,
            finals: 1,
            envelope_done: now,
            has_data: false,
            written: None,
            fault: None,
        };
        self.outbox.write(|out| {
            out.extend_from_slice(b"MAIL FROM:<");
            cx.mail.reverse_path(ticket.sequence, out);
            out.extend_from_slice(b">\r\n");
        });
        if self.pipelines(cx.style) {
            for index in 0..recipients {
                self.say_rcpt(&flight, index, cx);
            }
            self.say_data(&mut flight, cx);
        }
        self.flights.push_back(flight);
    }

    /// Takes note that so many octets of the outbox went to the kernel.
    pub(super) fn handle_written(
        &mut self,
        bytes: usize,
        now: Nanos,
        observer: &mut impl Observer,
    ) {
        self.outbox.advance(bytes);
        if !self.data_waits || !self.outbox.is_empty() {
            return;
        }
        self.data_waits = false;
        for flight in &mut self.flights {
            if flight.has_data && flight.written.is_none() {
                flight.written = Some(now);
                let took = now - flight.envelope_done;
                observer.phase(Phase::Data, flight.ticket.scheduled, took);
            }
        }
    }

    /// The connection is no more: what was in flight has failed.
    pub(super) fn fail(&mut self, fault: Fault, now: Nanos, observer: &mut impl Observer) {
        let quitting = self.state == State::Quitting;
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
            return;
        }
        observer.reply(line);
        let positive = (200..300).contains(&line.code);
        // RFC 5321 §3.8: 421 may answer any command, and the server closes.
        if line.code == 421 && self.state != State::Quitting {
            return self.fail(Fault::Rejected(421), now, observer);
        }
        match self.state {
            State::Banner if positive => {
                observer.phase(Phase::Banner, self.begun, now - self.since);
                self.state = State::Helo;
                let verb = match cx.style.protocol {
                    Protocol::Smtp => "EHLO",
                    Protocol::Lmtp => "LHLO",
                };
                self.say_helo(verb, cx.style);
            }
            State::Helo | State::PlainHelo if positive => {
                observer.phase(Phase::Helo, self.begun, now - self.since);
                self.state = State::Open;
            }
            State::Helo if cx.style.protocol == Protocol::Smtp => {
                self.extensions = Extensions::default();
                self.state = State::PlainHelo;
                self.say_helo("HELO", cx.style);
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
            State::Connecting | State::Over => self.fail(Fault::Protocol, now, observer),
        }
    }

    fn handle_reply(
        &mut self,
        code: u16,
        now: Nanos,
        cx: Context<'_>,
        observer: &mut impl Observer,
    ) {
        let pipelines = self.pipelines(cx.style);
        let Some(mut flight) = self.flights.pop_front() else {
            return self.fail(Fault::Protocol, now, observer);
        };
        let positive = (200..300).contains(&code);
        let fault = flight.fault.or(Some(Fault::Rejected(code)));
        match flight.step {
            Step::Mail => {
                flight.step = Step::Recipients;
                if positive && !pipelines {
                    self.say_rcpt(&flight, 0, cx);
                } else if !positive {
                    flight.fault = fault;
                    if !pipelines {
                        return self.finish(flight, now, cx, observer);
                    }
                }
            }
            Step::Recipients => {
                flight.answered += 1;
                flight.accepted += u16::from(positive);
                if !positive {
                    flight.fault = fault;
                }
                if flight.answered < flight.recipients {
                    if !pipelines {
                        self.say_rcpt(&flight, flight.answered, cx);
                    }
                } else {
                    let since = flight.ticket.scheduled;
                    observer.phase(Phase::Envelope, since, now - flight.sent);
                    if !flight.has_data {
                        flight.envelope_done = now;
                    }
                    if cx.style.protocol == Protocol::Lmtp {
                        flight.finals = flight.accepted.max(1);
                    }
                    if pipelines {
                        flight.step = self.step_behind_envelope(cx.style);
                    } else if flight.accepted == 0 {
                        return self.finish(flight, now, cx, observer);
                    } else {
                        self.say_data(&mut flight, cx);
                        flight.step = self.step_behind_envelope(cx.style);
                    }
                }
            }
            Step::Data => {
                if code != 354 {
                    flight.fault = fault;
                    return self.finish(flight, now, cx, observer);
                }
                flight.step = Step::Final;
                if flight.accepted > 0 {
                    cx.mail.content(flight.ticket.sequence, Carriage::Data, &mut self.outbox);
                    flight.has_data = true;
                    self.data_waits = true;
                } else {
                    // RFC 2920 §3.1: a server may say 354 though no recipient is left; the client
                    // then sends a lone dot.
                    self.outbox.push(b".\r\n");
                }
            }
            Step::Final => {
                flight.finals -= 1;
                if !positive {
                    flight.fault = fault;
                }
                if flight.finals == 0 {
                    return self.finish(flight, now, cx, observer);
                }
            }
        }
        self.flights.push_front(flight);
    }

    fn step_behind_envelope(&self, style: &Style) -> Step {
        match self.carriage(style) {
            Carriage::Data => Step::Data,
            Carriage::Bdat => Step::Final,
        }
    }

    fn finish(
        &mut self,
        flight: Flight,
        now: Nanos,
        cx: Context<'_>,
        observer: &mut impl Observer,
    ) {
        if let Some(fault) = flight.fault {
            observer.failed(flight.ticket, fault, now);
            self.needs_reset = true;
        } else {
            let since = flight.ticket.scheduled;
            observer.phase(Phase::Ack, since, now - flight.written.unwrap_or(flight.sent));
            observer.acked(flight.ticket, flight.sent, now);
        }
        if self.needs_reset && self.flights.is_empty() {
            self.needs_reset = false;
            self.state = State::Resetting;
            self.outbox.push(b"RSET\r\n");
        } else {
            self.after_message(cx.style, now);
        }
    }

    fn after_message(&mut self, style: &Style, now: Nanos) {
        if self.started >= style.messages_max {
            self.quit(now);
        }
    }

    fn say_helo(&mut self, verb: &str, style: &Style) {
        self.outbox.write(|out| {
            // Writing into a Vec cannot fail.
            let _ = write!(out, "{verb} {}\r\n", style.helo);
        });
    }

    fn say_rcpt(&mut self, flight: &Flight, index: u16, cx: Context<'_>) {
        self.outbox.write(|out| {
            out.extend_from_slice(b"RCPT TO:<");
            cx.mail.forward_path(flight.ticket.sequence, usize::from(index), out);
            out.extend_from_slice(b">\r\n");
        });
    }

    /// DATA, or BDAT with the mail data behind it.
    fn say_data(&mut self, flight: &mut Flight, cx: Context<'_>) {
        match self.carriage(cx.style) {
            Carriage::Data => self.outbox.push(b"DATA\r\n"),
            Carriage::Bdat => {
                let bytes = cx.mail.bytes(flight.ticket.sequence);
                self.outbox.write(|out| {
                    // Writing into a Vec cannot fail.
                    let _ = write!(out, "BDAT {bytes} LAST\r\n");
                });
                cx.mail.content(flight.ticket.sequence, Carriage::Bdat, &mut self.outbox);
                flight.has_data = true;
                self.data_waits = true;
            }
        }
    }

    fn note_keyword(&mut self, text: &[u8]) {
        if text.eq_ignore_ascii_case(b"PIPELINING") {
            self.extensions.pipelining = true;
        } else if text.eq_ignore_ascii_case(b"CHUNKING") {
            self.extensions.chunking = true;
        }
    }
}

#[cfg(test)]
mod tests;
