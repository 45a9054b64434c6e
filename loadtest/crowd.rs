//! Drives the misbehaving clients of a scenario on the engine's loop.

use std::{collections::BTreeMap, io, io::IoSlice};

use mio::{Registry, Token, event::Event};

use super::{
    dialogue::{Context, Dialogue, Fault, Nanos, Style, Ticket},
    engine::Plan,
    mail::Mail,
    outbox::SLICES_MAX,
    scenario::{Behaviour, Misfit, Tally},
    share::Share,
    socket::Connection,
};

/// Tokens from here on are theirs.
pub(super) const FIRST_TOKEN: usize = 1 << 32;

const READ_BYTES: usize = 4096;
/// Before a connection that failed by itself is tried again.
const RETRY: Nanos = 100_000_000;

#[derive(Debug)]
struct Client {
    kind: usize,
    connection: Option<Connection>,
    dialogue: Dialogue,
    /// Its next deed: another write, the end of its silence, a new connection.
    wake_at: Nanos,
    /// Stopped listening and talking.
    is_silent: bool,
    /// What a vanishing client still sends.
    sends_max: usize,
}

impl Client {
    /// Its connection broke.
    fn lost(&mut self, now: Nanos, tally: &mut Tally) {
        tally.closed_by_server += 1;
        self.dialogue.fail(Fault::Socket, now, tally);
    }
}

/// The misbehaving clients of a thread.
#[derive(Debug)]
pub(super) struct Crowd<'a> {
    plan: &'a Plan,
    share: Share,
    misfits: &'a [(Misfit, Mail)],
    tallies: Vec<Tally>,
    clients: Vec<Client>,
    style: Style,
    /// Messages that were begun, and connections.
    sent: u64,
    opened: u64,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(plan: &'a Plan, share: Share) -> Self {
        let misfits = &plan.misfits[..];
        let mut clients = Vec::new();
        for (kind, (misfit, _)) in misfits.iter().enumerate() {
            clients.extend((0..share.part(misfit.connections)).map(|_| Client {
                kind,
                connection: None,
                dialogue: Dialogue::new(0),
                wake_at: 0,
                is_silent: false,
                sends_max: usize::MAX,
            }));
        }
        Self {
            plan,
            share,
            misfits,
            tallies: vec![Tally::default(); misfits.len()],
            clients,
            style: Style {
                pipelining: false,
                chunking: false,
                in_flight: 1,
                messages_max: 1,
                ..plan.style.clone()
            },
            sent: 0,
            opened: 0,
        }
    }

    /// What each kind met.
    pub(super) fn tallies(&self) -> BTreeMap<String, Tally> {
        let kinds = self.misfits.iter().zip(&self.tallies);
        let named = |kind: &Misfit| kind.behaviour.name().to_owned();
        kinds.map(|((kind, _), tally)| (named(kind), tally.clone())).collect()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Nanos, registry: &Registry) {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if now < client.wake_at {
                continue;
            }
            if client.connection.is_none() {
                self.connect(index, now, registry);
            } else if client.is_silent {
                self.tallies[client.kind].left += 1;
                self.leave(index, now);
            } else {
                self.send(index, now);
            }
        }
    }

    pub(super) fn handle(&mut self, event: &Event, now: Nanos) {
        let index = event.token().0 - FIRST_TOKEN;
        let client = &mut self.clients[index];
        let tally = &mut self.tallies[client.kind];
        let Some(connection) = &mut client.connection else { return };
        if client.dialogue.is_connecting() {
            match connection.error() {
                Ok(None) if event.is_writable() => {
                    client.dialogue.handle_connected(now, &self.style, tally);
                    if self.misfits[client.kind].0.behaviour == Behaviour::EarlyTalking {
                        client.dialogue.outbox.push(b"EHLO early.test\r\n");
                    }
                }
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => {
                    client.dialogue.fail(Fault::Connect, now, tally);
                    client.connection = None;
                    client.wake_at = now + RETRY;
                    return;
                }
            }
        }
        self.receive(index, now);
        self.send(index, now);
    }

    fn connect(&mut self, index: usize, now: Nanos, registry: &Registry) {
        let number = self.share.number(self.opened) + 1;
        self.opened += 1;
        let token = Token(FIRST_TOKEN + index);
        let opened = Connection::open(&self.plan.address, self.plan.from, number, registry, token);
        let client = &mut self.clients[index];
        client.dialogue.restart(number, now);
        client.is_silent = false;
        client.sends_max = usize::MAX;
        client.wake_at = Nanos::MAX;
        match opened {
            Ok(connection) => {
                self.tallies[client.kind].connections += 1;
                if let Some(proxy) = self.plan.proxy {
                    let (local, to) = (connection.local_address(), &self.plan.address);
                    client.dialogue.outbox.write(|out| proxy.header(number, local, to, out));
                }
                client.connection = Some(connection);
            }
            Err(_) => client.wake_at = now + RETRY,
        }
    }

    fn receive(&mut self, index: usize, now: Nanos) {
        let client = &mut self.clients[index];
        let tally = &mut self.tallies[client.kind];
        let cx = Context { style: &self.style, mail: &self.misfits[client.kind].1 };
        let mut buffer = [0; READ_BYTES];
        loop {
            let Some(connection) = &mut client.connection else { return };
            match connection.read(&mut buffer) {
                Ok(0) => {
                    tally.closed_by_server += u64::from(!client.dialogue.is_over());
                    client.dialogue.fail(Fault::Closed, now, tally);
                    break;
                }
                Ok(_) if client.is_silent => {}
                Ok(count) => {
                    client.dialogue.handle_input(&buffer[..count], now, cx, tally);
                    if client.dialogue.has_room(cx.style) {
                        let sequence = self.share.number(self.sent);
                        self.sent += 1;
                        let ticket = Ticket { sequence, scheduled: now };
                        client.dialogue.start(ticket, now, cx);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    client.lost(now, tally);
                    break;
                }
            }
        }
    }

    fn send(&mut self, index: usize, now: Nanos) {
        let client = &mut self.clients[index];
        let (misfit, mail) = &self.misfits[client.kind];
        let tally = &mut self.tallies[client.kind];
        let has_data = client.dialogue.has_data();
        if misfit.behaviour == Behaviour::Aborting && has_data && client.sends_max == usize::MAX {
            client.sends_max = client.dialogue.outbox.bytes() / 2;
        }
        let is_slow = misfit.behaviour == Behaviour::Slow && has_data;
        if is_slow && now < client.wake_at && client.wake_at != Nanos::MAX {
            return;
        }
        while !client.dialogue.outbox.is_empty() {
            let Some(connection) = &mut client.connection else { return };
            let most = if is_slow { misfit.octets } else { client.sends_max };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = client.dialogue.outbox.gather(mail, &mut slices);
            let first = &slices[0];
            let result = if most < first.len() {
                connection.write(&[IoSlice::new(&first[..most])])
            } else {
                connection.write(&slices[..if most == usize::MAX { count } else { 1 }])
            };
            match result {
                Ok(written) => {
                    client.dialogue.handle_written(written, now, tally);
                    if client.sends_max != usize::MAX {
                        client.sends_max -= written;
                    }
                    if is_slow {
                        client.wake_at = now + misfit.pause;
                        break;
                    }
                    if client.sends_max == 0 {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => client.lost(now, tally),
            }
        }
        if client.sends_max == 0 {
            if let Some(connection) = &client.connection {
                connection.reset_on_close();
            }
            tally.left += 1;
            self.leave(index, now);
        } else if client.dialogue.is_over() {
            self.leave(index, now);
        } else if misfit.behaviour == Behaviour::Stalling
            && client.dialogue.in_flight() > 0
            && !client.is_silent
        {
            client.is_silent = true;
            client.wake_at = now.saturating_add(misfit.silence);
        }
    }

    fn leave(&mut self, index: usize, now: Nanos) {
        let client = &mut self.clients[index];
        client.dialogue.fail(Fault::Closed, now, &mut self.tallies[client.kind]);
        client.connection = None;
        client.wake_at = now + self.misfits[client.kind].0.pause;
    }
}
