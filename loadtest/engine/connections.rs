//! A thread's connections: from the attempt through its turns to the QUIT.

use std::io::{self, IoSlice};

use mio::{Token, event::Event};

use super::{
    super::{
        dialogue::{Context, Dialogue, Fault, Nanos, Ticket},
        measure::Measure,
        outbox::SLICES_MAX,
        socket::Connection,
        tls::{self, Heard, Tls},
    },
    worker::Worker,
};

/// Before a failed connection is tried again; doubles up to a second.
const RETRY_MIN: Nanos = 50_000_000;
const RETRY_MAX: Nanos = 1_000_000_000;

/// One of the connections, and those that follow it.
#[derive(Debug)]
pub(super) struct Slot {
    connection: Option<Connection>,
    /// From the first octet of TLS on.
    tls: Option<Box<Tls>>,
    pub(super) dialogue: Dialogue,
    /// Stands in `idle`.
    pub(super) is_idle: bool,
    retry_at: Nanos,
    retry_delay: Nanos,
}

impl Worker<'_> {
    /// Begins one more connection.
    pub(super) fn add_slot(&mut self, now: Nanos) {
        self.slots.push(Slot {
            connection: None,
            tls: None,
            dialogue: Dialogue::new(now),
            is_idle: false,
            retry_at: Nanos::MAX,
            retry_delay: RETRY_MIN,
        });
        self.connect(self.slots.len() - 1, now);
    }

    fn connect(&mut self, index: usize, now: Nanos) {
        let slot = &mut self.slots[index];
        let number = self.share.number(self.opened) + 1;
        self.opened += 1;
        slot.connection = None;
        slot.tls = None;
        slot.dialogue.restart(number, now);
        slot.retry_at = Nanos::MAX;
        let registry = self.poll.registry();
        let (address, from) = (&self.plan.address, self.plan.from);
        match Connection::open(address, from, number, registry, Token(index)) {
            Ok(connection) => {
                self.measure.connections += 1;
                if let Some(proxy) = self.plan.proxy {
                    let local = connection.local_address();
                    slot.dialogue.outbox.write(|out| proxy.header(number, local, address, out));
                }
                slot.connection = Some(connection);
            }
            Err(error) => {
                // A unix socket whose backlog is full says so at once; it will have room again.
                if error.kind() != io::ErrorKind::WouldBlock {
                    self.last_error = Some(error);
                }
                self.lose(index, Fault::Connect, now);
            }
        }
    }

    /// The connection broke.
    fn lose(&mut self, index: usize, fault: Fault, now: Nanos) {
        self.slots[index].dialogue.fail(fault, now, &mut self.measure);
        self.close(index, now);
    }

    /// Closes a connection that is over and sees to the next.
    fn close(&mut self, index: usize, now: Nanos) {
        let slot = &mut self.slots[index];
        let fault = slot.dialogue.fault();
        if let (None, Some(tls), Some(connection)) = (fault, &mut slot.tls, &mut slot.connection) {
            // RFC 8446 §6.1: a stream that just ends may have been cut off.
            tls.say_goodbye(connection);
        }
        slot.connection = None;
        slot.tls = None;
        if let Some(fault) = fault {
            self.measure.connection_failed(fault);
            if let Some((text, is_final)) = told(fault, &self.measure) {
                let error = if is_final { &mut self.last_error } else { &mut self.last_trouble };
                error.get_or_insert_with(|| io::Error::other(text));
            }
        }
        if self.is_closing {
            return;
        }
        if fault.is_none() {
            slot.retry_delay = RETRY_MIN;
            self.connect(index, now);
        } else {
            slot.retry_at = now + slot.retry_delay;
            slot.retry_delay = (slot.retry_delay * 2).min(RETRY_MAX);
        }
    }

    /// Takes what the poll says of a connection.
    pub(super) fn handle(&mut self, event: &Event) {
        let index = event.token().0;
        let now = self.common.now();
        let slot = &mut self.slots[index];
        let Some(connection) = &mut slot.connection else { return };
        if slot.dialogue.is_connecting() {
            match connection.error() {
                Ok(None) if event.is_writable() => {
                    slot.dialogue.handle_connected(now, &self.plan.style, &mut self.measure);
                }
                Ok(None) => return,
                Ok(Some(error)) | Err(error) => {
                    self.last_error = Some(error);
                    return self.lose(index, Fault::Connect, now);
                }
            }
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.receive(index, event.is_read_closed());
        }
        // Later than what `receive` saw.
        let now = self.common.now();
        self.pump(index, now);
    }

    fn receive(&mut self, index: usize, to_the_end: bool) {
        let cx = Context { style: &self.plan.style, mail: self.mail };
        loop {
            let slot = &mut self.slots[index];
            let Some(connection) = &mut slot.connection else { return };
            let result = connection.read(&mut self.buffer);
            let now = self.common.now();
            match result {
                Ok(0) => return slot.dialogue.fail(Fault::Closed, now, &mut self.measure),
                Ok(count) => {
                    let octets = &self.buffer[..count];
                    match &slot.tls {
                        None => slot.dialogue.handle_input(octets, now, cx, &mut self.measure),
                        Some(_) => self.receive_tls(index, count, now),
                    }
                    let slot = &self.slots[index];
                    // A short read empties the socket (epoll(7)): no need to ask again.
                    if slot.dialogue.is_over() || count < self.buffer.len() && !to_the_end {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return slot.dialogue.fail(Fault::Socket, now, &mut self.measure),
            }
        }
    }

    /// Gives a connection what it can take, and sends.
    pub(super) fn pump(&mut self, index: usize, now: Nanos) {
        let slot = &mut self.slots[index];
        if self.extensions.is_none() && slot.dialogue.is_fresh() {
            self.extensions = Some(slot.dialogue.extensions());
            self.common.tell_extensions(slot.dialogue.extensions());
        }
        let is_closed_loop = self.schedule.is_none();
        if self.window.is_some() && is_closed_loop && !self.has_ended {
            while self.slots[index].dialogue.has_room(&self.plan.style) {
                let Some(sequence) = self.take_sequence() else { break };
                self.start(index, Ticket { sequence, scheduled: now }, now);
            }
        } else if !slot.is_idle && slot.dialogue.has_room(&self.plan.style) {
            slot.is_idle = true;
            self.idle.push_back(index);
            self.dispatch(now);
        }
        self.flush(index, now);
    }

    /// Begins a message on a connection with room for it.
    pub(super) fn start(&mut self, index: usize, ticket: Ticket, now: Nanos) {
        let cx = Context { style: &self.plan.style, mail: self.mail };
        self.stood_at = now;
        let slot = &mut self.slots[index];
        slot.retry_delay = RETRY_MIN;
        slot.dialogue.start(ticket, now, cx);
        if let Some(ledger) = &mut self.measure.ledger {
            ledger.sent(ticket.sequence);
        }
    }

    /// Sends what the kernel takes.
    pub(super) fn flush(&mut self, index: usize, now: Nanos) {
        let slot = &mut self.slots[index];
        if let Some(connection) = &mut slot.connection
            && slot.tls.is_none()
        {
            while !slot.dialogue.outbox.is_empty() && !slot.dialogue.is_connecting() {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = slot.dialogue.outbox.gather(self.mail, &mut slices);
                let bytes: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                match connection.write(&slices[..count]) {
                    Ok(written) => {
                        slot.dialogue.handle_written(written, now, &mut self.measure);
                        if written < bytes {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => {
                        slot.dialogue.fail(Fault::Socket, now, &mut self.measure);
                        break;
                    }
                }
            }
        }
        if self.plan.secure.is_some() {
            self.begin_tls(index, now);
            self.flush_tls(index, now);
        }
        if self.slots[index].dialogue.is_over() && self.slots[index].connection.is_some() {
            self.close(index, now);
        }
    }

    /// Where TLS is due and all that goes ahead of it is sent, it begins.
    fn begin_tls(&mut self, index: usize, now: Nanos) {
        let slot = &mut self.slots[index];
        let is_due = slot.dialogue.wants_tls() && slot.dialogue.outbox.is_empty();
        if !is_due || slot.tls.is_some() {
            return;
        }
        let client = self.client.as_ref().expect("a style that asks for TLS comes with it");
        match client.begin() {
            Ok(tls) => slot.tls = Some(Box::new(tls)),
            Err(error) => self.fail_tls(index, error, now),
        }
    }

    /// Takes `count` octets of the buffer through TLS.
    fn receive_tls(&mut self, index: usize, count: usize, now: Nanos) {
        let cx = Context { style: &self.plan.style, mail: self.mail };
        let Slot { tls: Some(tls), dialogue, .. } = &mut self.slots[index] else { return };
        let measure = &mut self.measure;
        let mut is_new = false;
        let fed = tls.feed(&self.buffer[..count], |heard| match heard {
            Heard::Secured { resumed } => {
                is_new = true;
                measure.handshakes.count(resumed);
                dialogue.handle_secured(now, cx.style, measure);
            }
            Heard::Plain(octets) => dialogue.handle_input(octets, now, cx, measure),
        });
        if is_new
            && self.common.agreed().is_none()
            && let Some(agreed) = tls.agreed()
        {
            self.common.tell_agreed(agreed);
        }
        if let Err(error) = fed {
            self.fail_tls(index, error, now);
        }
    }

    fn fail_tls(&mut self, index: usize, error: tls::Error, now: Nanos) {
        let slot = &mut self.slots[index];
        if let (Some(tls), Some(connection)) = (&mut slot.tls, &mut slot.connection) {
            // The alert; nobody may be there to hear it.
            let _ = tls.write(connection);
        }
        let fault = match error {
            tls::Error::Certificate(_) => Fault::Certificate,
            tls::Error::Broken(_) => Fault::Protocol,
        };
        slot.dialogue.fail(fault, now, &mut self.measure);
        let error = io::Error::other(error.to_string());
        if fault == Fault::Certificate {
            self.last_error = Some(error);
        } else {
            self.last_trouble = Some(error);
        }
    }

    /// As [`Self::flush`], through TLS.
    fn flush_tls(&mut self, index: usize, now: Nanos) {
        let Slot { connection: Some(connection), tls: Some(tls), dialogue, .. } =
            &mut self.slots[index]
        else {
            return;
        };
        loop {
            let written = tls.write(connection).and_then(|()| {
                // All that was encrypted is in the kernel's hands.
                let taken = std::mem::take(&mut tls.taken);
                if taken > 0 {
                    dialogue.handle_written(taken, now, &mut self.measure);
                }
                if dialogue.outbox.is_empty() || !tls.is_secured() {
                    return Ok(0);
                }
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = dialogue.outbox.gather(self.mail, &mut slices);
                tls.encrypt(&slices[..count])
            });
            match written {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return dialogue.fail(Fault::Socket, now, &mut self.measure),
            }
        }
    }

    /// Time-outs and new attempts.
    pub(super) fn tick(&mut self, now: Nanos) {
        if self.slots.iter().any(|slot| slot.connection.is_some() && slot.dialogue.is_open()) {
            self.stood_at = now;
        }
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.connection.is_none() {
                if now >= slot.retry_at && !self.is_closing {
                    self.connect(index, now);
                }
            } else if let Some(since) = slot.dialogue.waiting_since()
                && now.saturating_sub(since) > self.plan.reply_wait
            {
                self.lose(index, Fault::Timeout, now);
            }
        }
    }

    /// QUIT on every connection with nothing in flight; whether all are gone.
    pub(super) fn say_goodbye(&mut self, now: Nanos) -> bool {
        let mut all_gone = true;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.connection.is_some() {
                if slot.dialogue.is_connecting() || slot.dialogue.is_greeting() {
                    slot.connection = None;
                    continue;
                }
                slot.dialogue.quit(now);
                self.flush(index, now);
                all_gone &= self.slots[index].connection.is_none();
            }
        }
        all_gone
    }
}

/// What is told where no connection comes to stand, and whether there is no use to try again.
fn told(fault: Fault, measure: &Measure) -> Option<(String, bool)> {
    // RFC 5321 §4.2.1: 4yz may be over the next time.
    let is_final = |code: Option<u16>| code.is_none_or(|code| code >= 500);
    let refused = |what: &str, code: Option<u16>| {
        let said = match code {
            Some(code) => format!(": {code} {}", measure.words(code).unwrap_or_default()),
            None => ": it does not offer it".to_owned(),
        };
        Some((format!("the server refuses {what}{}", said.trim_end()), is_final(code)))
    };
    match fault {
        Fault::Rejected(code) => refused("the session", Some(code)),
        Fault::Starttls(code) => refused("STARTTLS", code),
        Fault::Auth(code) => refused("AUTH PLAIN", code),
        Fault::HandshakeTimeout => Some(("the TLS handshake took too long".to_owned(), false)),
        Fault::Handshake => Some(("the TLS handshake failed".to_owned(), false)),
        Fault::Closed => Some(("the server closes the connection".to_owned(), false)),
        Fault::Protocol => Some(("the server does not speak SMTP".to_owned(), false)),
        _ => None,
    }
}
