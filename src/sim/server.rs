//! The server of a run: the production shard, lane, retention and recovery over the simulated disk,
//! network and sink. It starts, serves, drains and dies.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    sync::Arc,
};

use super::{
    ledger::Checked,
    plan::Death,
    world::{Event, World},
};
use crate::{
    consumer::{Reader, lowest_needed},
    export::staged::{Clock, StagedLane},
    log::{
        DataDir, GroupBuffer, HighWaterMarks, Identity, Log, Manifest, Needs, Op, Retention, Seal,
        append_index, shard_dir,
    },
    metrics::Published,
    policy::{Judgement, MessageQuestion, Question, Ticket},
    shard::{
        SharedState,
        core::{AcceptError, Arrival, Completion, Shard, SocketId, Submission},
    },
    smtp::Rejection,
};

/// The node of every simulated log.
pub(super) const NODE: [u8; 6] = *b"sim\0\0\x01";

/// An operation of the log that is under way.
pub(super) enum Under {
    Write {
        op: u64,
        segment: u64,
        position: u64,
        buffer: GroupBuffer,
        then_sync: Option<u64>,
        since: u64,
    },
    Sync {
        op: u64,
        segment: u64,
        began: u64,
        since: u64,
    },
}

/// What a process of the server holds.
pub(super) struct Server {
    pub(super) shard: Shard,
    pub(super) shared: Arc<SharedState>,
    pub(super) published: Arc<Published>,
    pub(super) marks: Arc<HighWaterMarks>,
    pub(super) manifest: Manifest,
    pub(super) seals: VecDeque<Seal>,
    pub(super) next_segment: u64,
    pub(super) lane: Option<StagedLane>,
    pub(super) clock: Clock,
    /// Time that has not passed for the lane yet.
    pub(super) clock_at: u64,
    pub(super) retention: Retention,
    pub(super) log: Log,
    pub(super) tail: Option<Reader>,
    pub(super) under: BTreeMap<u64, Under>,
    /// By listener: whether it is accepted at, and who waits.
    pub(super) accepting: Vec<bool>,
    pub(super) backlog: Vec<VecDeque<u32>>,
    pub(super) closed: bool,
    pub(super) began: u64,
    /// When the log gave up.
    pub(super) failed_at: Option<u64>,
    /// When a drain was asked for.
    pub(super) drain_asked: Option<u64>,
    /// Messages that wait for an answer, with the mail that each is.
    pub(super) asked: BTreeMap<u64, (usize, Box<MessageQuestion>, Ticket)>,
    pub(super) _data: DataDir,
}

/// What retention must keep.
pub(super) struct Demand<'a>(pub(super) &'a Log, pub(super) &'a SharedState);

impl Needs for Demand<'_> {
    fn offset(&self, shard: u16) -> io::Result<Option<u64>> {
        Ok(lowest_needed(self.0.dir(), shard)?)
    }

    fn segments_from(&self, _: u16) -> u64 {
        self.1.segments_from()
    }
}

impl World {
    /// One turn of the shard, and what it submits.
    pub(super) fn turn(&mut self) -> Checked {
        let now = self.time();
        let Some(server) = &mut self.server else { return Ok(()) };
        server.shard.handle_tick(now);
        self.submissions()?;
        let Some(server) = &mut self.server else { return Ok(()) };
        if server.shard.is_drained() {
            return self.drained();
        }
        let patience = server.shard.patience().at_most.as_micros() as u64;
        // A long wait for nothing is walked through in longer steps.
        let stride = match self.quiet() {
            quiet if patience >= 5_000 && quiet > 100_000 => quiet / 4,
            _ => patience,
        };
        self.tick_in(stride.max(1));
        Ok(())
    }

    pub(super) fn submissions(&mut self) -> Checked {
        while self.dies.is_none()
            && let Some(server) = &mut self.server
            && let Some(submission) = server.shard.poll_submission()
        {
            self.step();
            self.submit(submission)?;
        }
        Ok(())
    }

    pub(super) fn complete(&mut self, completion: Completion) {
        self.step();
        let now = self.time();
        if let Some(server) = &mut self.server
            && self.dies.is_none()
        {
            server.shard.handle_completion(now, completion);
        }
    }

    /// Time for the disk to do something.
    fn disk_time(&mut self) -> u64 {
        self.operations += 1;
        let slow = self.slow.remove(&self.operations).unwrap_or(0);
        if slow > 0 {
            self.note("operation {} of the disk takes {} us", &[self.operations, slow]);
        }
        self.random.between(1, self.plan.disk_micros * 2) + slow
    }

    fn submit(&mut self, submission: Submission) -> Checked {
        let pause = self.random.between(1, 50);
        let Some(server) = &mut self.server else { return Ok(()) };
        match submission {
            Submission::Accept { listener } => {
                server.accepting[listener as usize] = true;
                self.accept_waiting(listener);
            }
            Submission::StopAccepting { listener } | Submission::CloseListener { listener } => {
                server.closed |= matches!(submission, Submission::CloseListener { .. });
                if std::mem::take(&mut server.accepting[listener as usize]) {
                    let result = Err(AcceptError::Cancelled);
                    self.complete(Completion::Accepted { listener, more: false, result });
                }
            }
            Submission::Receive { key, socket } => {
                self.net.receive(key, socket);
                self.at(pause, Event::Socket(socket.0));
            }
            Submission::StopReceiving { key } => {
                self.net.stop_receiving(key);
                self.look_at(key, pause);
            }
            Submission::Watch { key, socket } => {
                self.net.watch(key, socket);
                self.at(pause, Event::Socket(socket.0));
            }
            Submission::StopWatching { key } => {
                self.net.stop_watching(key);
                self.look_at(key, pause);
            }
            Submission::Send { key, socket, octets } => {
                self.check_sent(&octets)?;
                self.note(
                    "socket {}: {} bytes are sent",
                    &[u64::from(socket.0), octets.len() as u64],
                );
                let text = String::from_utf8_lossy(&octets).into_owned();
                self.trace
                    .text(self.now, || format!("  {}", text.trim_end().replace("\r\n", " | ")));
                self.net.send(key, socket, octets)?;
                self.at(pause, Event::Socket(socket.0));
            }
            Submission::Shut { socket, side } => {
                self.net.shut(socket, side);
                self.at(pause, Event::Socket(socket.0));
                if let Some(peer) = self.net.peer_of(socket.0) {
                    self.wake_peer(peer, pause);
                }
            }
            Submission::Close { socket } => {
                self.note("socket {} is closed", &[u64::from(socket.0)]);
                self.net.close(socket)?;
                if let Some(peer) = self.net.peer_of(socket.0) {
                    self.wake_peer(peer, pause);
                }
            }
            Submission::Log(Op::Write { op, segment, position, buffer, then_sync }) => {
                self.segments.begin(op, segment, position, buffer.octets())?;
                let numbers = [op, segment, position, buffer.len() as u64];
                self.note("write {} begins: segment {} at {}, {} bytes", &numbers);
                let since = self.now;
                let under = Under::Write { op, segment, position, buffer, then_sync, since };
                self.begin(op, under);
            }
            Submission::Log(Op::Sync { op, segment }) => self.begin_sync(op, segment),
            Submission::Prepare { number, bytes } => {
                let time = self.disk_time();
                self.at(time, Event::Prepare(number, bytes));
            }
            Submission::Seal(seal) => {
                server.seals.push_back(*seal);
                let time = self.disk_time();
                self.at(time, Event::Seal);
            }
            Submission::Index(entry) => {
                let dir = shard_dir(&self.dir, 0);
                let _ = append_index(&dir, &entry);
            }
            Submission::Abort => self.dies = Some(Death::Kill),
            Submission::Ask(asked) => {
                if let (Question::Message(message), ticket) = *asked {
                    self.ask(message, ticket)?;
                }
            }
            Submission::Hurry | Submission::DiskLow(_) => {}
        }
        Ok(())
    }

    /// A message is to be judged: it is whole, and the answer takes its time. Some never come.
    fn ask(&mut self, message: Box<MessageQuestion>, ticket: Ticket) -> Checked {
        let mail = self.ledger.compare("the question", &message.octets)?;
        let micros = match self.random.below(40) {
            0 if !self.plan.calm => return Ok(()),
            1 | 2 if !self.plan.calm => self.random.between(1, 90_000_000),
            _ => self.random.skewed(10, 300_000),
        };
        self.questions += 1;
        self.note("question {} is asked, about mail {}", &[self.questions, mail as u64]);
        if let Some(server) = &mut self.server {
            server.asked.insert(self.questions, (mail, message, ticket));
        }
        self.at(micros, Event::Answer(self.questions));
        Ok(())
    }

    pub(super) fn answer(&mut self, question: u64) -> Checked {
        let Some(server) = &mut self.server else { return Ok(()) };
        let Some((mail, message, ticket)) = server.asked.remove(&question) else { return Ok(()) };
        let takes = self.plan.calm || !self.random.one_in(10);
        self.note("question {} is answered: {}", &[question, u64::from(takes)]);
        let judgement = match takes {
            true => {
                self.ledger.approve(mail);
                Judgement::Accept
            }
            false => Judgement::Reject(Rejection {
                code: 550,
                enhanced: "5.7.1",
                text: "Not this one".to_owned(),
            }),
        };
        MessageQuestion::answer(message.number, ticket, judgement);
        self.turn()
    }

    fn look_at(&mut self, key: crate::shard::core::Key, pause: u64) {
        if let Some(socket) = self.net.of(key) {
            self.at(pause, Event::Socket(socket));
        }
    }

    fn begin(&mut self, op: u64, under: Under) {
        let time = self.disk_time();
        if let Some(server) = &mut self.server {
            server.under.insert(op, under);
        }
        self.at(time, Event::Disk(op));
    }

    pub(super) fn begin_sync(&mut self, op: u64, segment: u64) {
        self.note("sync {} begins: segment {}", &[op, segment]);
        let (began, since) = (self.segments.sync_begins(), self.now);
        self.begin(op, Under::Sync { op, segment, began, since });
    }

    /// D1 where the reply leaves: each record that a 250 names is durable.
    fn check_sent(&mut self, octets: &[u8]) -> Checked {
        let text = String::from_utf8_lossy(octets);
        for (at, _) in text.match_indices("queued as ") {
            let id = text[at..].split("\r\n").next().unwrap_or_default();
            let digits = id.rsplit('-').next().unwrap_or_default();
            let offset =
                u64::from_str_radix(digits, 16).map_err(|_| format!("no record id: {id}"))?;
            if !self.segments.is_durable(offset) && !self.segments.is_astray(offset) {
                return Err(format!("D1: the 250 of record {offset} leaves before it is durable"));
            }
        }
        Ok(())
    }

    /// A peer's connection reaches a listener; `None`: nobody listens.
    pub(super) fn connect(&mut self, peer: usize) -> Option<u32> {
        let server = self.server.as_ref()?;
        if server.closed || server.accepting.is_empty() {
            return None;
        }
        self.connections += 1;
        Some((peer % server.accepting.len()) as u32)
    }

    pub(super) fn accept(&mut self, listener: u32, socket: u32) -> Checked {
        if let Some(server) = &mut self.server {
            server.backlog[listener as usize].push_back(socket);
        }
        self.accept_waiting(listener);
        self.turn()
    }

    fn accept_waiting(&mut self, listener: u32) {
        let at = listener as usize;
        while let Some(server) = &mut self.server
            && server.accepting[at]
            && let Some(socket) = server.backlog[at].pop_front()
        {
            let more = !self.random.one_in(10);
            server.accepting[at] = more;
            let peer = self.net.peer_of(socket).unwrap_or(0) as u8;
            let peer = ([192, 0, 2, peer], 1_024 + (socket % 60_000) as u16).into();
            let result = Ok(Arrival { socket: SocketId(socket), peer, talks: false });
            self.complete(Completion::Accepted { listener, more, result });
        }
    }

    /// The log's identity.
    pub(super) fn identity() -> Identity {
        Identity { node: NODE, shard: 0 }
    }

    pub(super) fn make_dir(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::create_dir_all(self.dir.with_file_name("grave"))?;
        crate::log::write_node(&self.dir, NODE)
    }
}
