//! A peer: a client that sends its mails in one of many ways, notes every reply, and may misbehave.

use std::collections::VecDeque;

use super::{
    ledger::{Checked, Ledger},
    mails::{Mail, stuffed},
    net::{Arrived, Net},
    plan::PeerFault,
    random::Random,
};

/// A client that hears nothing for this long gives the connection up.
const PATIENCE: u64 = 400_000_000;

/// What is to be said next.
#[derive(Debug)]
pub(super) enum Say {
    Line(Vec<u8>, Expect),
    /// The mail data, once the 354 is there.
    Content(usize),
}

/// What the next reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Greeting,
    Hello,
    Mail(usize),
    Rcpt(usize),
    Data(usize),
    Chunk(usize),
    Final(usize),
    Quit,
}

/// A mail on its way over this connection.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) attempt: usize,
    pub(super) mail: usize,
    pub(super) accepted: usize,
    /// The 354 came.
    pub(super) data: bool,
    pub(super) failed: bool,
    /// Replies that are still to come for it, and the first of them.
    pub(super) finals: Option<(usize, u16, Option<u64>)>,
}

/// How a connection speaks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    pub(super) lmtp: bool,
    /// Each command waits for the reply to the one before.
    pub(super) lockstep: bool,
    /// Mails that are sent ahead of their replies.
    pub(super) window: usize,
    /// Its first octets come one by one.
    pub(super) trickles: bool,
    /// Octets of a write, at most.
    pub(super) burst: u64,
    /// Microseconds between mails, at most.
    pub(super) think: u64,
    /// Microseconds between writes, at most.
    pub(super) pause: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) mails: VecDeque<usize>,
    pub(super) socket: Option<u32>,
    pub(super) style: Style,
    pub(super) say: VecDeque<Say>,
    pub(super) out: VecDeque<u8>,
    pub(super) queued: u64,
    pub(super) sent: u64,
    /// Where attempts are complete.
    pub(super) ends: VecDeque<(u64, usize)>,
    pub(super) expects: VecDeque<Expect>,
    pub(super) line: Vec<u8>,
    pub(super) flights: VecDeque<Flight>,
    pub(super) greeted: bool,
    /// It sends no further mail over this connection.
    pub(super) leaving: bool,
    pub(super) quitting: bool,
    pub(super) closing: bool,
    pub(super) fault: Option<(u64, PeerFault)>,
    pub(super) silent: bool,
    pub(super) slow: bool,
    pub(super) finished: bool,
    pub(super) heard: u64,
    /// Begins no mail before.
    pub(super) thinks_until: u64,
    pub(super) misbehaved: bool,
}

/// What a peer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Something, after so many microseconds.
    After(u64),
    /// It waits to hear something.
    Wait,
    /// Its connection is over; the next one after so long.
    Reconnect(u64),
    /// It has sent all.
    Done,
}

impl Peer {
    pub(super) fn new(mails: VecDeque<usize>) -> Self {
        Self {
            mails,
            socket: None,
            style: Style::default(),
            say: VecDeque::new(),
            out: VecDeque::new(),
            queued: 0,
            sent: 0,
            ends: VecDeque::new(),
            expects: VecDeque::new(),
            line: Vec::new(),
            flights: VecDeque::new(),
            greeted: false,
            leaving: false,
            quitting: false,
            closing: false,
            fault: None,
            silent: false,
            slow: false,
            finished: false,
            heard: 0,
            thinks_until: 0,
            misbehaved: false,
        }
    }

    /// A connection begins.
    pub(super) fn begin(
        &mut self,
        now: u64,
        socket: u32,
        lmtp: bool,
        fault: Option<(u64, PeerFault)>,
        random: &mut Random,
    ) {
        let mails = std::mem::take(&mut self.mails);
        *self = Self::new(mails);
        let lockstep = random.one_in(2);
        self.style = Style {
            lmtp,
            lockstep,
            window: if lockstep { 1 } else { random.between(1, 8) as usize },
            trickles: random.one_in(12),
            burst: random.skewed(200, 64 << 10),
            think: random.skewed(1_000, 2_000_000),
            pause: random.skewed(1, 20_000),
        };
        self.socket = Some(socket);
        self.fault = fault;
        self.heard = now;
        self.expects.push_back(Expect::Greeting);
    }

    /// Whether anything of its is still to come.
    pub(super) fn is_done(&self) -> bool {
        self.mails.is_empty() && self.socket.is_none()
    }

    /// What one mail takes in words.
    fn script(&mut self, number: usize, mail: &Mail, attempt: usize, random: &mut Random) {
        let body = if mail.binary { " BODY=BINARYMIME" } else { "" };
        let line = format!("MAIL FROM:<s{number}@from.test>{body}\r\n");
        self.say.push_back(Say::Line(line.into_bytes(), Expect::Mail(attempt)));
        for recipient in 0..mail.recipients {
            let line = format!("RCPT TO:<r{recipient}@to.test>\r\n");
            self.say.push_back(Say::Line(line.into_bytes(), Expect::Rcpt(attempt)));
        }
        if !mail.binary && random.one_in(2) {
            self.say.push_back(Say::Line(b"DATA\r\n".to_vec(), Expect::Data(attempt)));
            self.say.push_back(Say::Content(attempt));
        } else {
            let chunks = if self.style.lmtp { 1 } else { random.skewed(1, 6) };
            let mut rest = mail.data.as_slice();
            for chunk in 1..=chunks {
                let last = chunk == chunks;
                let len =
                    if last { rest.len() } else { random.below(rest.len() as u64 + 1) as usize };
                let mut line =
                    format!("BDAT {len}{}\r\n", if last { " LAST" } else { "" }).into_bytes();
                line.extend_from_slice(&rest[..len]);
                rest = &rest[len..];
                let expect = if last { Expect::Final(attempt) } else { Expect::Chunk(attempt) };
                self.say.push_back(Say::Line(line, expect));
            }
        }
        let mail = number;
        self.flights.push_back(Flight {
            attempt,
            mail,
            accepted: 0,
            data: false,
            failed: false,
            finals: None,
        });
    }

    pub(super) fn queue(&mut self, octets: &[u8]) {
        self.out.extend(octets);
        self.queued += octets.len() as u64;
    }

    /// Says what may be said now.
    fn speak(&mut self, now: u64, ledger: &mut Ledger, random: &mut Random) {
        while self.greeted && !self.closing && self.out.len() < 32 << 10 {
            match self.say.front() {
                Some(Say::Line(..)) => {
                    if self.style.lockstep && !self.expects.is_empty() {
                        return;
                    }
                    let Some(Say::Line(line, expect)) = self.say.pop_front() else { return };
                    self.queue(&line);
                    if let Expect::Final(attempt) = expect {
                        self.ends.push_back((self.queued, attempt));
                    }
                    self.expects.push_back(expect);
                }
                Some(&Say::Content(attempt)) => {
                    let Some(flight) = self.flights.iter().find(|f| f.attempt == attempt) else {
                        self.say.pop_front();
                        continue;
                    };
                    if !flight.data {
                        return;
                    }
                    self.say.pop_front();
                    let mails = ledger.mails.clone();
                    let mail = flight.mail;
                    self.queue(&stuffed(&mails[mail].data));
                    self.ends.push_back((self.queued, attempt));
                    self.expects.push_back(Expect::Final(attempt));
                }
                None if self.flights.len() < self.style.window && !self.quitting => {
                    if now < self.thinks_until {
                        return;
                    }
                    let next = if self.leaving { None } else { self.mails.pop_front() };
                    let Some(number) = next else {
                        if !self.flights.is_empty() {
                            return;
                        }
                        self.quitting = true;
                        self.say.push_back(Say::Line(b"QUIT\r\n".to_vec(), Expect::Quit));
                        continue;
                    };
                    if self.style.lockstep || random.one_in(4) {
                        self.thinks_until = now + random.below(self.style.think);
                    }
                    let attempt = ledger.begin(number);
                    let mails = ledger.mails.clone();
                    self.script(number, &mails[number], attempt, random);
                }
                None => return,
            }
        }
    }

    /// One move of the peer's.
    pub(super) fn act(
        &mut self,
        now: u64,
        net: &mut Net,
        ledger: &mut Ledger,
        random: &mut Random,
    ) -> Checked<Next> {
        let Some(socket) = self.socket else {
            return Ok(if self.mails.is_empty() { Next::Done } else { Next::Reconnect(1_000) });
        };
        if self.silent {
            return match now > self.heard + PATIENCE {
                true => {
                    net.reset(socket, random);
                    Ok(self.end(net, ledger, random))
                }
                false => Ok(Next::After(PATIENCE / 4)),
            };
        }
        let most = if self.slow { random.between(1, 9) as usize } else { 64 << 10 };
        match net.pull(socket, most) {
            Arrived::Octets(octets) => {
                if !octets.is_empty() {
                    self.heard = now;
                }
                for part in octets.split_inclusive(|octet| *octet == b'\n') {
                    self.line.extend_from_slice(part);
                    if part.ends_with(b"\n") {
                        let line = std::mem::take(&mut self.line);
                        self.hear(&line, ledger, random)?;
                    }
                }
            }
            Arrived::End => {
                self.check_end(ledger)?;
                return Ok(self.end(net, ledger, random));
            }
            Arrived::Broken => return Ok(self.end(net, ledger, random)),
        }
        // Whom the server turns away waits for its end, but not for long.
        let patience = if self.closing && !self.finished { 10_000_000 } else { PATIENCE };
        if now > self.heard + patience {
            net.reset(socket, random);
            return Ok(self.end(net, ledger, random));
        }
        self.speak(now, ledger, random);
        let trickles = self.style.trickles && self.sent < 1_500;
        let mut most = random.between(1, if trickles { 9 } else { self.style.burst }) as usize;
        let fault = self.fault.filter(|(at, _)| *at <= self.sent + most as u64);
        if let Some((at, _)) = fault {
            most = at.saturating_sub(self.sent) as usize;
        }
        let pushed = net.push(socket, &mut self.out, most);
        self.sent += pushed as u64;
        while self.ends.front().is_some_and(|(end, _)| *end <= self.sent) {
            if let Some((_, attempt)) = self.ends.pop_front() {
                ledger.completed(attempt);
            }
        }
        if let Some((at, fault)) = fault
            && self.sent >= at
        {
            self.fault = None;
            self.misbehaved = true;
            match fault {
                PeerFault::Reset => {
                    net.reset(socket, random);
                    return Ok(self.end(net, ledger, random));
                }
                PeerFault::HalfClose => {
                    net.fin(socket);
                    (self.finished, self.closing) = (true, true);
                    self.out.clear();
                }
                PeerFault::Close => {
                    net.fin(socket);
                    return Ok(self.end(net, ledger, random));
                }
                PeerFault::Silence => self.silent = true,
                PeerFault::SlowReader => self.slow = true,
            }
        }
        if self.finished {
            self.out.clear();
        }
        Ok(match (self.out.is_empty(), self.slow) {
            (_, true) => Next::After(50_000),
            (false, _) if pushed == 0 => Next::After(2_000),
            (false, _) => Next::After(random.between(1, self.style.pause)),
            (true, _) if self.closing => Next::After(3_000_000),
            (true, _) if now < self.thinks_until => Next::After(self.thinks_until - now),
            (true, _) => Next::Wait,
        })
    }

    /// The server has ended an orderly conversation: what was complete was answered.
    fn check_end(&self, ledger: &Ledger) -> Checked {
        if self.misbehaved || self.closing {
            return Ok(());
        }
        let waits = |flight: &&Flight| {
            let attempt = ledger.attempts[flight.attempt];
            flight.data && attempt.complete && attempt.answer.is_none()
        };
        match self.flights.iter().find(waits) {
            Some(flight) => Err(format!(
                "D16: mail {} was sent whole, and its connection closed without an answer",
                flight.mail
            )),
            None => Ok(()),
        }
    }

    /// The connection is over; what is not answered is tried again.
    fn end(&mut self, net: &mut Net, ledger: &Ledger, random: &mut Random) -> Next {
        if let Some(socket) = self.socket.take() {
            // Whoever goes leaves a FIN at least.
            net.fin(socket);
            net.leave(socket);
        }
        for flight in self.flights.drain(..) {
            if ledger.attempts[flight.attempt].answer != Some(250) {
                self.mails.push_back(flight.mail);
            }
        }
        match self.mails.is_empty() {
            true => Next::Done,
            false => Next::Reconnect(random.skewed(100, 2_000_000)),
        }
    }
}
