//! A message from MAIL to its final reply.

use std::io::Write;

use super::{
    super::{mail::Carriage, target::Protocol},
    Context, Dialogue, Fault, Nanos, Observer, Phase, State, Style, Ticket,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Mail,
    Recipients,
    Data,
    Final,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) ticket: Ticket,
    pub(super) sent: Nanos,
    pub(super) step: Step,
    pub(super) recipients: u16,
    pub(super) answered: u16,
    pub(super) accepted: u16,
    /// Final replies still to come; with LMTP one for each accepted recipient.
    pub(super) finals: u16,
    pub(super) envelope_done: Nanos,
    /// Mail data was put into the outbox.
    pub(super) has_data: bool,
    /// Last octet of mail data gone.
    pub(super) written: Option<Nanos>,
    pub(super) fault: Option<Fault>,
}

impl Dialogue {
    /// Starts a message; needs [`Self::has_room`].
    pub(in super::super) fn start(&mut self, ticket: Ticket, now: Nanos, cx: Context<'_>) {
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
    pub(in super::super) fn handle_written(
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

    /// A reply to the message at the front.
    pub(super) fn handle_reply(
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
}
