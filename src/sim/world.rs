//! A run: events in the order of a simulated time, drawn from a seed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    disk::Segments,
    files::Files,
    ledger::{Checked, Ledger},
    mails,
    net::Net,
    peer::{Next, Peer},
    plan::{Death, DiskFault, Fault, PeerFault, Plan, SinkFault},
    random::Random,
    server::Server,
    sink::Scripted,
    trace::Trace,
};
use crate::shard::core::Now;

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A peer moves.
    Peer(usize),
    /// Something may be told of a socket.
    Socket(u32),
    /// An operation of the log ends.
    Disk(u64),
    /// A segment is made, of so many octets.
    Prepare(u64, u64),
    /// The next seal is written.
    Seal,
    /// The shard's turn.
    Tick,
    /// The exporter's turn.
    Lane,
    /// Retention's turn.
    Retention,
    /// A reader outside the server looks.
    Tail,
    /// The advisor answers a question.
    Answer(u64),
    /// The server starts.
    Start,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Summary {
    /// Of all that happened.
    pub hash: u64,
    /// Submissions and completions.
    pub steps: u64,
    /// Mails acknowledged.
    pub acknowledged: u64,
    /// Tries that were refused.
    pub refused: u64,
    /// Crashes, those within recovery among them.
    pub crashes: u64,
    /// Simulated microseconds.
    pub micros: u64,
    /// What happened, where it was asked for.
    pub lines: Vec<String>,
    /// The violation, if there is one.
    pub violation: Option<String>,
}

/// See the module's page.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, u32, Event)>>,
    ordinal: u64,
    /// Counts servers: events of an earlier one are stale.
    pub(super) boot: u32,
    pub(super) steps: u64,
    pub(super) dir: PathBuf,
    pub(super) files: Rc<Files>,
    pub(super) segments: Segments,
    pub(super) net: Net,
    pub(super) peers: Vec<Peer>,
    peer_due: Vec<u64>,
    tick_due: u64,
    pub(super) connections: u64,
    pub(super) questions: u64,
    pub(super) ledger: Ledger,
    pub(super) sink: Scripted,
    pub(super) server: Option<Server>,
    unix_offset: i64,
    /// Faults by what they wait for.
    pub(super) crashes: BTreeMap<u64, Death>,
    pub(super) recovery_crashes: BTreeMap<u64, u64>,
    pub(super) writes: BTreeMap<u64, DiskFault>,
    pub(super) syncs: BTreeSet<u64>,
    pub(super) slow: BTreeMap<u64, u64>,
    pub(super) misdirected: BTreeSet<u64>,
    pub(super) full: BTreeMap<u64, u64>,
    clock: BTreeMap<u64, i64>,
    peer_faults: BTreeMap<u64, (u64, PeerFault)>,
    drains: BTreeSet<u64>,
    pub(super) is_full: bool,
    pub(super) written: u64,
    pub(super) synced: u64,
    pub(super) operations: u64,
    pub(super) deaths: u64,
    /// Set where a step asks for it.
    pub(super) dies: Option<Death>,
    pub(super) tails: bool,
    /// Segments of which a crash has left nothing but what mail data forged.
    pub(super) forged: BTreeSet<u64>,
}

impl World {
    pub(super) fn new(plan: Plan, dir: &Path, text: bool) -> Self {
        let seed = plan.seed;
        let mut random = Random::new(seed, 6);
        let all = mails::make(seed, plan.mails);
        let mut peers: Vec<Peer> = (0..plan.peers).map(|_| Peer::new(VecDeque::new())).collect();
        for mail in 0..all.len() {
            peers[random.below(plan.peers) as usize].mails.push_back(mail);
        }
        let mut world = Self {
            trace: Trace::new(text),
            now: 0,
            queue: BinaryHeap::new(),
            ordinal: 0,
            boot: 0,
            steps: 0,
            dir: dir.join("data"),
            files: Rc::new(Files::new(dir.join("grave"), seed, BTreeSet::new(), BTreeMap::new())),
            segments: Segments::default(),
            net: Net::new(plan.buffers.0, plan.buffers.1),
            peer_due: vec![u64::MAX; peers.len()],
            tick_due: u64::MAX,
            peers,
            connections: 0,
            questions: 0,
            ledger: Ledger::new(all, plan.judges),
            sink: Scripted::new(seed, BTreeMap::new(), Vec::new(), true, true),
            server: None,
            unix_offset: 1_795_000_000_000_000,
            crashes: BTreeMap::new(),
            recovery_crashes: BTreeMap::new(),
            writes: BTreeMap::new(),
            syncs: BTreeSet::new(),
            slow: BTreeMap::new(),
            misdirected: BTreeSet::new(),
            full: BTreeMap::new(),
            clock: BTreeMap::new(),
            peer_faults: BTreeMap::new(),
            drains: BTreeSet::new(),
            is_full: false,
            written: 0,
            synced: 0,
            operations: 0,
            deaths: 0,
            dies: None,
            tails: random.one_in(2),
            forged: BTreeSet::new(),
            random,
            plan,
        };
        world.sort_faults(dir);
        world
    }

    fn sort_faults(&mut self, dir: &Path) {
        let (mut fails, mut deaths) = (BTreeSet::new(), BTreeMap::new());
        let (mut sink, mut outages): (BTreeMap<u64, SinkFault>, _) = (BTreeMap::new(), Vec::new());
        for fault in self.plan.faults.clone() {
            match fault {
                Fault::Crash(at, death) => _ = self.crashes.insert(at, death),
                Fault::RecoveryCrash(crash, at) => _ = self.recovery_crashes.insert(crash, at),
                Fault::Write(at, how) => _ = self.writes.insert(at, how),
                Fault::Sync(at) => _ = self.syncs.insert(at),
                Fault::Slow(at, millis) => _ = self.slow.insert(at, millis * 1_000),
                Fault::Misdirect(at) => _ = self.misdirected.insert(at),
                Fault::Full(at, steps) => _ = self.full.insert(at, at + steps),
                Fault::File(at) => _ = fails.insert(at),
                Fault::FileCrash(at, death) => _ = deaths.insert(at, death),
                Fault::Clock(at, seconds) => _ = self.clock.insert(at, seconds),
                Fault::Peer(connection, at, how) => {
                    _ = self.peer_faults.insert(connection, (at, how));
                }
                Fault::Sink(at, how) => _ = sink.insert(at, how),
                Fault::Outage(from, count) => outages.push((from, from + count)),
                Fault::Drain(at) => _ = self.drains.insert(at),
            }
        }
        let seed = self.plan.seed;
        self.files = Rc::new(Files::new(dir.join("grave"), seed, fails, deaths));
        let ordered = self.plan.in_flight == 1;
        self.sink = Scripted::new(seed, sink, outages, ordered, self.plan.calm);
    }

    /// No fault from now on.
    pub(super) fn be_calm(&mut self) {
        self.crashes.clear();
        self.recovery_crashes.clear();
        self.writes.clear();
        self.syncs.clear();
        self.slow.clear();
        self.misdirected.clear();
        self.full.clear();
        self.clock.clear();
        self.peer_faults.clear();
        self.drains.clear();
        self.files.be_calm();
        self.sink.be_calm();
        self.dies = None;
    }

    pub(super) fn at(&mut self, micros: u64, event: Event) {
        self.ordinal += 1;
        self.queue.push(Reverse((self.now + micros, self.ordinal, self.boot, event)));
    }

    /// Lets a peer move at that time, unless it does sooner.
    pub(super) fn wake_peer(&mut self, peer: usize, micros: u64) {
        if self.now + micros < self.peer_due[peer] {
            self.peer_due[peer] = self.now + micros;
            self.at(micros, Event::Peer(peer));
        }
    }

    pub(super) fn tick_in(&mut self, micros: u64) {
        if self.now + micros < self.tick_due {
            self.tick_due = self.now + micros;
            self.at(micros, Event::Tick);
        }
    }

    pub(super) fn time(&self) -> Now {
        let unix_micros = self.unix_offset.saturating_add_unsigned(self.now);
        let began = self.server.as_ref().map_or(0, |server| server.began);
        let elapsed = std::time::Duration::from_micros(self.now - began);
        Now { elapsed, unix_micros }
    }

    pub(super) fn note(&mut self, what: &'static str, numbers: &[u64]) {
        self.trace.note(self.now, what, numbers);
    }

    /// A submission or a completion: faults fall here.
    pub(super) fn step(&mut self) {
        self.steps += 1;
        let step = self.steps;
        if let Some(death) = self.crashes.remove(&step) {
            self.dies = Some(death);
        }
        if let Some(seconds) = self.clock.remove(&step) {
            self.unix_offset = self.unix_offset.saturating_add(seconds * 1_000_000);
            self.note("the wall clock jumps by {} s (two's complement)", &[seconds as u64]);
        }
        if let Some(until) = self.full.get(&step).copied() {
            self.full.insert(until, 0);
            self.is_full = until > 0;
            self.note("the disk is full: {}", &[u64::from(self.is_full)]);
        }
        if self.drains.remove(&step) && self.server.is_some() {
            self.ask_to_drain();
            self.note("a drain is asked for", &[]);
        }
    }

    /// The whole run.
    pub(super) fn run(&mut self) -> Checked {
        self.at(0, Event::Start);
        for peer in 0..self.peers.len() {
            let pause = self.random.below(100_000);
            self.wake_peer(peer, pause);
        }
        let most = 200_000;
        while !self.is_sent() && self.steps < most {
            self.next()?;
            self.restart_failed()?;
        }
        self.note("no fault falls any more", &[]);
        self.be_calm();
        let until = self.now + 7_200_000_000;
        // What the sink has not answered when the server stops is sent again: not where each record
        // must come once.
        while self.plan.calm && self.is_sent() && !self.is_exported() && self.now < until {
            self.next()?;
        }
        self.restart()?;
        while !self.is_sent() {
            self.next()?;
            if self.now > until {
                return Err("liveness: mails are not taken though nothing is wrong".to_owned());
            }
        }
        while !self.is_exported() {
            self.next()?;
            if self.now > until {
                return Err("liveness: mails are not exported though nothing is wrong".to_owned());
            }
        }
        if self.plan.deletes_by_age {
            self.delete_all()?;
        }
        self.drain_now()?;
        self.check_log()?;
        self.read_dead_letters();
        self.ledger.check_exported()?;
        if self.plan.calm {
            self.check_calm()?;
        }
        Ok(())
    }

    /// A server that nobody sends mail to: retention deletes every segment that holds a record, and
    /// the manifest alone remembers which offsets were given out.
    fn delete_all(&mut self) -> Checked {
        self.restart()?;
        let until = self.now + 20_000_000;
        while self.now < until {
            self.next()?;
        }
        // Dead letters, and a gap at the end of the log, keep a segment.
        let mut kept = self.ledger.offsets.iter().filter(|(_, known)| !known.deleted);
        match kept.next().filter(|_| self.plan.calm) {
            Some((offset, _)) => Err(format!("D12: record {offset} is old, exported, and kept")),
            None => Ok(()),
        }
    }

    /// Nothing went wrong, so nothing was refused, and everything came once.
    fn check_calm(&self) -> Checked {
        if self.ledger.refused > 0 {
            return Err(format!("calm: {} tries were refused", self.ledger.refused));
        }
        if self.ledger.attempts.len() as u64 != self.plan.mails {
            return Err(format!("calm: {} tries", self.ledger.attempts.len()));
        }
        match self.ledger.offsets.iter().find(|(_, known)| known.taken != 1) {
            Some((offset, known)) => {
                Err(format!("I6: record {offset} was exported {} times", known.taken))
            }
            None => Ok(()),
        }
    }

    fn is_sent(&self) -> bool {
        self.peers.iter().all(Peer::is_done)
    }

    /// The next event.
    pub(super) fn next(&mut self) -> Checked {
        let Some(Reverse((at, _, boot, event))) = self.queue.pop() else {
            return Err("liveness: nothing happens any more".to_owned());
        };
        let stale = boot != self.boot && !matches!(event, Event::Peer(_) | Event::Start);
        if stale {
            return Ok(());
        }
        self.now = self.now.max(at);
        self.files.set_time(self.now, self.time().unix_micros);
        match event {
            Event::Peer(peer) if self.peer_due[peer] == at => {
                self.peer_due[peer] = u64::MAX;
                self.peer_moves(peer)?;
            }
            Event::Peer(_) => {}
            Event::Start => self.start()?,
            Event::Tick if self.tick_due != at => {}
            Event::Tick => {
                self.tick_due = u64::MAX;
                self.turn()?;
            }
            event => {
                self.server_event(event)?;
                // Some completions share a turn.
                if self.random.one_in(3) {
                    let pause = self.random.below(60);
                    self.tick_in(pause);
                } else {
                    self.turn()?;
                }
            }
        }
        self.look_after_death()
    }

    /// How long nothing but turns of the shard will happen.
    pub(super) fn quiet(&self) -> u64 {
        self.queue.peek().map_or(0, |Reverse((at, ..))| at.saturating_sub(self.now))
    }

    fn peer_moves(&mut self, peer: usize) -> Checked {
        if self.peers[peer].socket.is_none() {
            if self.peers[peer].is_done() {
                return Ok(());
            }
            let Some(listener) = self.connect(peer) else {
                self.wake_peer(peer, 200_000);
                return Ok(());
            };
            let fault = self.peer_faults.remove(&self.connections);
            let socket = self.net.connect(peer);
            self.note("peer {} connects: socket {}", &[peer as u64, u64::from(socket)]);
            let lmtp = listener == 1;
            self.peers[peer].begin(self.now, socket, lmtp, fault, &mut self.random);
            self.accept(listener, socket)?;
        }
        let Self { peers, net, ledger, random, now, .. } = self;
        let socket = peers[peer].socket;
        let acknowledged = ledger.acknowledged;
        let next = peers[peer].act(*now, net, ledger, random)?;
        if self.ledger.acknowledged > acknowledged {
            self.note("peer {} has {} 250s in all", &[peer as u64, self.ledger.acknowledged]);
        }
        if let Some(socket) = socket {
            let pause = self.random.between(5, 200);
            self.at(pause, Event::Socket(socket));
        }
        match next {
            Next::After(micros) => self.wake_peer(peer, micros),
            Next::Wait => self.wake_peer(peer, 60_000_000),
            Next::Reconnect(micros) => {
                self.note("peer {} comes again", &[peer as u64]);
                self.wake_peer(peer, micros);
            }
            Next::Done => self.note("peer {} is done", &[peer as u64]),
        }
        Ok(())
    }

    pub(super) fn forget_ticks(&mut self) {
        self.tick_due = u64::MAX;
    }

    /// What happened in the run.
    pub(super) fn summary(self, violation: Option<String>) -> Summary {
        Summary {
            hash: self.trace.hash(),
            steps: self.steps,
            acknowledged: self.ledger.acknowledged,
            refused: self.ledger.refused,
            crashes: self.deaths,
            micros: self.now,
            lines: self.trace.into_lines(),
            violation,
        }
    }
}
