//! A shard alone: the test carries out its submissions, when and how it wants.

use std::{collections::VecDeque, rc::Rc, sync::Arc, time::Duration};

use super::*;
use crate::{
    log::{GroupBuffer, Identity, Op, Spare},
    metrics::Published,
    policy::{Question, Ticket},
    shard::{Limits, Peers},
};

mod judged;

const SEGMENT: u64 = 1 << 20;
const MILLISECOND: Duration = Duration::from_millis(1);

/// A write or a sync that the shard waits for.
enum LogOp {
    Write { op: u64, buffer: GroupBuffer, then_sync: Option<u64> },
    Sync(u64),
}

/// A shard, the sockets of its clients, and what it has under way.
struct Bench {
    shard: Shard,
    now: Duration,
    home: Rc<Returns>,
    sockets: u32,
    /// Whose each socket is, once it is received from.
    keys: Vec<Option<Key>>,
    /// What was sent to each socket.
    sent: Vec<String>,
    closed: Vec<SocketId>,
    log_ops: VecDeque<LogOp>,
    listening: bool,
    /// Questions to the advisor.
    asked: Vec<(Question, Ticket)>,
    /// No segment is made: what is asked for waits here.
    withholds: bool,
    withheld: Option<Spare>,
}

fn limits() -> Limits {
    Limits {
        exempt: Peers(Arc::new(|_| false)),
        auth_failures_per_address: Some(2),
        ..Limits::trusting(1000)
    }
}

impl Bench {
    fn new(smtp: smtp::Config, gate: Gate) -> Self {
        let identity = Identity { node: [7; 6], shard: 0 };
        let appender = Appender::new(identity, crate::log::Options::default(), Offset::new(0));
        let options = Options::bare(SEGMENT, limits());
        let mut bench = Self {
            shard: Shard::new(Parts {
                listeners: vec![Listener {
                    name: "mx".into(),
                    smtp: Arc::new(smtp),
                    tls: None,
                    gate: Arc::new(gate),
                }],
                appender,
                next_segment: 1,
                shared: Arc::new(SharedState::new(Published::new())),
                options,
                entropy: Box::new(|| Some([1; 18])),
                truncated_bytes: 0,
                lost_records: 0,
            }),
            now: Duration::ZERO,
            home: Rc::default(),
            sockets: 0,
            keys: Vec::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            log_ops: VecDeque::new(),
            listening: false,
            asked: Vec::new(),
            withholds: false,
            withheld: None,
        };
        bench.shard.serve_listeners();
        bench.turn();
        assert!(bench.listening && bench.shard.is_ready(), "a segment was made");
        bench
    }

    fn complete(&mut self, completion: Completion) {
        let now = Now { elapsed: self.now, unix_micros: 0 };
        self.shard.handle_completion(now, completion);
    }

    /// A millisecond later: the turn ends, and everything but the log's operations is carried out.
    fn turn(&mut self) {
        for _ in 0..8 {
            self.one_turn();
        }
    }

    fn carry_out(&mut self, submission: Submission) {
        match submission {
            Submission::Accept { .. } => self.listening = true,
            Submission::CloseListener { .. } | Submission::StopAccepting { .. } => {
                self.listening = false;
            }
            Submission::Receive { key, socket } => self.keys[socket.0 as usize] = Some(key),
            Submission::Send { key, socket, octets } => {
                let text = std::str::from_utf8(&octets).expect("replies are ASCII");
                self.sent[socket.0 as usize].push_str(text);
                let result = Ok(octets.len());
                self.complete(Completion::Sent { key, octets, result });
            }
            Submission::Shut { socket, side: Side::Both } => {
                if let Some(key) = self.keys[socket.0 as usize].take() {
                    self.complete(Completion::Received { key, more: false, result: Ok(None) });
                }
            }
            Submission::Close { socket } => {
                assert!(!self.closed.contains(&socket), "a socket is closed once");
                assert!(self.keys[socket.0 as usize].is_none(), "nothing is under way at it");
                self.closed.push(socket);
            }
            Submission::Log(Op::Write { op, buffer, then_sync, .. }) => {
                self.log_ops.push_back(LogOp::Write { op, buffer, then_sync });
            }
            Submission::Ask(asked) => self.asked.push(*asked),
            Submission::Log(Op::Sync { op, .. }) => self.log_ops.push_back(LogOp::Sync(op)),
            Submission::Prepare { number, bytes } => {
                let spare = Spare { number, nonce: [number as u8; 16], bytes };
                match self.withholds {
                    true => self.withheld = Some(spare),
                    false => self.complete(Completion::Segment(Ok(spare))),
                }
            }
            _ => {}
        }
    }

    /// The oldest operation of the log ends well; a sync that is linked to it comes next.
    fn log_op(&mut self) {
        let took = Duration::ZERO;
        match self.log_ops.pop_front().expect("an operation of the log is under way") {
            LogOp::Write { op, buffer, then_sync } => {
                let result = Ok(buffer.len());
                self.complete(Completion::Written { op, buffer, result, took });
                if let Some(sync) = then_sync {
                    self.log_ops.push_front(LogOp::Sync(sync));
                }
            }
            LogOp::Sync(op) => self.complete(Completion::Synced { op, result: Ok(()), took }),
        }
        self.turn();
    }

    fn connect(&mut self, address: &str) -> usize {
        let client = self.arrive(address);
        self.turn();
        client
    }

    /// A connection is accepted; its turn is still to come.
    fn arrive(&mut self, address: &str) -> usize {
        let socket = SocketId(self.sockets);
        self.sockets += 1;
        self.keys.push(None);
        self.sent.push(String::new());
        let peer = SocketAddr::new(address.parse().expect("an address"), 25);
        let result = Ok(Arrival { socket, peer, talks: false });
        self.complete(Completion::Accepted { listener: 0, more: true, result });
        socket.0 as usize
    }

    /// One turn, of which what the shard submits is carried out.
    fn one_turn(&mut self) {
        self.now += MILLISECOND;
        self.shard.handle_tick(Now { elapsed: self.now, unix_micros: 0 });
        while let Some(submission) = self.shard.poll_submission() {
            self.carry_out(submission);
        }
    }

    /// What is sent to the client from here on.
    fn take(&mut self, client: usize) -> String {
        std::mem::take(&mut self.sent[client])
    }

    fn receive(&mut self, client: usize, octets: &[u8]) {
        let key = self.keys[client].expect("it is received from");
        let buffer = ReceiveBuffer::new(octets.into(), octets.len(), 0, self.home.clone());
        self.complete(Completion::Received { key, more: true, result: Ok(Some(buffer)) });
        self.turn();
    }

    /// The client says something; what it gets.
    fn say(&mut self, client: usize, text: &str) -> String {
        self.receive(client, text.as_bytes());
        self.take(client)
    }

    fn hang_up(&mut self, client: usize) {
        let key = self.keys[client].take().expect("it is received from");
        let result = Err(ReceiveError::Broken);
        self.complete(Completion::Received { key, more: false, result });
        self.turn();
    }

    fn returned(&self) -> usize {
        let mut count = 0;
        self.home.take(|_, _| count += 1);
        count
    }
}

const MAIL: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 2 LAST\r\nhi";

/// D1, as it crosses the seam.
#[test]
fn d1_a_250_goes_behind_the_completion_of_its_sync() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    let client = bench.connect("192.0.2.1");
    assert!(bench.take(client).starts_with("220 "));
    assert!(bench.say(client, "EHLO a\r\n").starts_with("250-"));
    assert_eq!(
        bench.say(client, MAIL),
        "250 2.1.0 Sender ok\r\n250 2.1.5 Recipient ok\r\n",
        "but no third"
    );
    assert_eq!(bench.say(client, "NOOP\r\n"), "", "replies keep their order");
    // The header of the segment, the group, its sync: whatever is under way.
    while !bench.log_ops.is_empty() {
        assert_eq!(bench.take(client), "");
        bench.log_op();
    }
    let said = bench.take(client);
    assert!(said.starts_with("250 2.0.0 Ok: queued as ") && said.ends_with("250 2.0.0 Ok\r\n"));
    assert_eq!(bench.returned(), 3, "every buffer went back");
}

/// A flood of connections makes no turn longer than its share of them.
#[test]
fn connections_begin_in_their_turn() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    let flood: Vec<_> = (0..200).map(|_| bench.arrive("192.0.2.1")).collect();
    let greeted = |bench: &Bench| {
        flood.iter().map(|&client| usize::from(!bench.sent[client].is_empty())).collect::<Vec<_>>()
    };
    for begun in [64, 128, 192, 200] {
        bench.one_turn();
        // In the order in which they came.
        let wanted: Vec<_> = (0..200).map(|client| usize::from(client < begun)).collect();
        assert_eq!(greeted(&bench), wanted);
        let waits = begun < 200;
        assert_eq!(bench.shard.patience().at_most.is_zero(), waits, "no sleep while some wait");
    }
}

/// Whom the shard cannot begin with is left to the kernel's queue, and taken from it later.
#[test]
fn accepting_stops_while_too_many_wait() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    for _ in 0..1023 {
        bench.arrive("192.0.2.1");
    }
    assert!(bench.shard.poll_submission().is_none());
    bench.arrive("192.0.2.1");
    bench.one_turn();
    assert!(!bench.listening, "that is enough");
    let result = Err(AcceptError::Cancelled);
    bench.complete(Completion::Accepted { listener: 0, more: false, result });
    while bench.shard.services.acceptor.has_waiting() {
        assert!(!bench.listening);
        bench.one_turn();
    }
    bench.turn();
    assert!(bench.listening, "nobody waits any more");
    assert_eq!(bench.sent.iter().filter(|text| text.is_empty()).count(), 0, "all were answered");
}

/// Sessions go on while another program is to take the listening sockets over, and they stay open.
#[test]
fn a_shard_that_hands_over_is_quiet_without_sessions() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    let client = bench.connect("192.0.2.1");
    let shared = bench.shard.services.shared.clone();
    shared.set_handing_over(true);
    bench.turn();
    assert!(!bench.listening);
    // One that came before the accept was cancelled is served.
    let late = bench.connect("192.0.2.2");
    let result = Err(AcceptError::Cancelled);
    bench.complete(Completion::Accepted { listener: 0, more: false, result });
    bench.turn();
    assert!(bench.take(late).starts_with("220 ") && bench.take(client).starts_with("220 "));
    assert!(bench.say(client, "EHLO a\r\n").starts_with("250-"));
    for leaving in [client, late] {
        assert!(!shared.is_quiet() && !bench.listening);
        bench.hang_up(leaving);
    }
    assert!(shared.is_quiet());
    // It did not come to it.
    shared.set_handing_over(false);
    bench.turn();
    assert!(bench.listening && !shared.is_quiet());
}

/// Who has nothing under way sleeps longer.
#[test]
fn a_shard_sleeps_by_what_is_under_way() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    while !bench.log_ops.is_empty() {
        bench.log_op();
    }
    let idle = Patience { at_most: IDLE, answers: 0, idle: true };
    assert_eq!(bench.shard.patience(), idle);
    let client = bench.connect("192.0.2.1");
    assert_eq!(bench.shard.patience(), idle, "its octets wake the shard");
    bench.say(client, "EHLO a\r\n");
    bench.say(client, MAIL);
    assert!(!bench.shard.patience().idle && bench.shard.patience().at_most <= TICK);
    while !bench.log_ops.is_empty() {
        bench.log_op();
    }
    assert_eq!(bench.shard.patience(), idle);
    bench.shard.services.shared.ask_to_drain();
    bench.turn();
    assert_eq!(bench.shard.patience().at_most, TICK);
}

/// A peer that is gone is not found by what comes for it later, and nobody else is in its place.
#[test]
fn a_completion_for_a_place_that_is_used_again_finds_nobody() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    let first = bench.connect("192.0.2.1");
    let old = bench.keys[first];
    bench.say(first, "EHLO a\r\n");
    bench.say(first, MAIL);
    bench.hang_up(first);
    assert_eq!(bench.closed, [SocketId(first as u32)]);
    let second = bench.connect("192.0.2.2");
    let (old, new) = (old.expect("it had a key"), bench.keys[second].expect("it has a key"));
    assert_eq!(old.index, new.index, "the place is used again");
    assert_ne!(old.generation, new.generation);
    bench.take(second);
    // The mail of the first becomes durable; its 250 is nobody's.
    while !bench.log_ops.is_empty() {
        bench.log_op();
    }
    let octets = b"250 for the first\r\n".to_vec();
    bench.complete(Completion::Sent { key: old, octets, result: Ok(3) });
    bench.turn();
    assert_eq!(bench.take(second), "");
    assert!(bench.say(second, "NOOP\r\n").starts_with("250 "), "it goes on");
}

/// An address that is shut out is not greeted by way of the wait before the greeting.
#[test]
fn g9_a_blocked_address_does_not_wait_for_its_greeting() {
    let delay = Duration::from_millis(500);
    let gate = Gate { greet_delay: delay, ..Gate::default() };
    let mut bench = Bench::new(smtp::Config::default(), gate);
    let now = bench.now;
    let address = "192.0.2.1".parse().expect("an address");
    for _ in 0..2 {
        bench.shard.services.gatekeeper.note_failure(address, &limits(), now);
    }
    let blocked = bench.connect("192.0.2.1");
    assert!(bench.take(blocked).starts_with("421 4.7.0 "), "at once");
    let other = bench.connect("192.0.2.2");
    assert_eq!(bench.take(other), "");
    bench.now += delay + Duration::from_secs(1);
    bench.turn();
    assert!(bench.take(other).starts_with("220 "));
    assert_eq!(bench.take(blocked), "", "nothing more");
}

/// A commit that does not come is reported to the sender, and does not become a 250 when it comes
/// after all.
#[test]
fn a_commit_that_comes_too_late_is_no_250() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    let client = bench.connect("192.0.2.1");
    bench.say(client, "EHLO a\r\n");
    bench.say(client, MAIL);
    bench.now += smtp::Limits::default().commit_wait;
    bench.turn();
    // Such a wait is overload, too: replies go a little later.
    bench.now += Duration::from_millis(150);
    bench.turn();
    let said = bench.take(client);
    assert!(said.starts_with("451 4.3.0 "), "{said}");
    while !bench.log_ops.is_empty() {
        bench.log_op();
    }
    assert_eq!(bench.take(client), "");
    bench.say(client, "NOOP\r\n");
    bench.now += Duration::from_millis(150);
    bench.turn();
    assert!(bench.take(client).starts_with("250 2.0.0 Ok\r\n"), "it goes on");
}

/// While the log has no room what comes stays in its buffer, and goes back once it was served.
#[test]
fn buffers_are_kept_while_the_log_has_no_room() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    let client = bench.connect("192.0.2.1");
    bench.say(client, "EHLO a\r\n");
    bench.withholds = true;
    let data = ("x".repeat(78) + "\r\n").repeat(3840);
    let large = format!("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT {} LAST\r\n{data}", data.len());
    let mut messages = 0;
    while !bench.shard.services.log_full() {
        assert!(messages < 4, "a segment of 1 MiB holds three");
        bench.receive(client, large.as_bytes());
        messages += 1;
    }
    bench.returned();
    bench.receive(client, b"QUIT\r\n");
    assert_eq!(bench.returned(), 0, "it is kept");
    assert_eq!(bench.take(client).matches("queued as").count(), 0, "nothing is durable yet");
    bench.withholds = false;
    let spare = bench.withheld.take().expect("a segment was asked for");
    bench.complete(Completion::Segment(Ok(spare)));
    bench.turn();
    assert!(!bench.shard.services.log_full());
    assert_eq!(bench.returned(), 1, "it was served");
    while !bench.log_ops.is_empty() {
        bench.log_op();
    }
    let said = bench.take(client);
    assert_eq!(said.matches("queued as").count(), messages, "{said}");
    assert!(said.ends_with("221 2.0.0 Bye\r\n"), "{said}");
    assert_eq!(bench.closed.len(), 1);
    assert!(bench.shard.services.commit.collects_nothing());
}

/// A connection that finds no receive buffer is not overtaken by those that come after it.
#[test]
fn who_finds_no_buffer_is_served_in_turn() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    let clients: Vec<usize> = (0..200).map(|_| bench.connect("192.0.2.1")).collect();
    let starve = |bench: &mut Bench, client: usize| {
        let key = bench.keys[client].take().expect("it is received from");
        let result = Err(ReceiveError::NoBuffer);
        bench.complete(Completion::Received { key, more: false, result });
    };
    for &client in &clients {
        starve(&mut bench, client);
    }
    assert_eq!(bench.shard.patience().at_most, Duration::ZERO, "it does not sleep meanwhile");
    let armed = |bench: &mut Bench| {
        bench.shard.handle_tick(Now { elapsed: bench.now, unix_micros: 0 });
        let mut sockets = Vec::new();
        while let Some(submission) = bench.shard.poll_submission() {
            if let Submission::Receive { socket, .. } = submission {
                sockets.push(socket.0 as usize);
            }
            bench.carry_out(submission);
        }
        sockets
    };
    assert_eq!(armed(&mut bench), clients[..64]);
    // One of them fails again, and waits behind those that came before.
    starve(&mut bench, clients[0]);
    assert_eq!(armed(&mut bench), clients[64..128]);
    assert_eq!(armed(&mut bench), clients[128..192]);
    let last = [&clients[192..], &clients[..1]].concat();
    assert_eq!(armed(&mut bench), last);
    assert!(armed(&mut bench).is_empty());
    assert!(bench.say(clients[0], "NOOP\r\n").ends_with("250 2.0.0 Ok\r\n"));
}

/// D16: what is under way is finished, then the shard is drained and its log sealed.
#[test]
fn d16_a_drain_waits_for_the_mail_in_progress() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    let (busy, idle) = (bench.connect("192.0.2.1"), bench.connect("192.0.2.2"));
    bench.say(busy, "EHLO a\r\n");
    bench.say(busy, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 4 LAST\r\nhi");
    bench.take(idle);
    bench.shard.services.shared.ask_to_drain();
    bench.turn();
    assert!(!bench.listening);
    assert!(bench.take(idle).starts_with("421 4.3.2 "));
    assert_eq!(bench.take(busy), "");
    bench.receive(busy, b"ho");
    while !bench.log_ops.is_empty() {
        assert!(!bench.shard.is_drained());
        bench.log_op();
    }
    let said = bench.take(busy);
    assert!(said.starts_with("250 2.0.0 ") && said.contains("\r\n421 4.3.2 "), "{said}");
    bench.hang_up(busy);
    bench.hang_up(idle);
    bench.turn();
    assert!(bench.shard.is_drained());
    assert!(matches!(bench.shard.finish(), Finished::AtRest(Some(_))));
}

/// Nothing is built for a trace while nobody follows, and nothing waits for somebody who does not
/// read.
#[test]
fn events_are_built_for_those_who_follow() {
    let mut bench = Bench::new(smtp::Config::default(), Gate::default());
    let traces = bench.shard.services.shared.traces.clone();
    let session = |bench: &mut Bench| {
        let client = bench.connect("192.0.2.1");
        bench.say(client, "EHLO a\r\n");
        bench.say(client, "RCPT TO:<x@y>\r\n");
        bench.say(client, MAIL);
        while !bench.log_ops.is_empty() {
            bench.log_op();
        }
        bench.hang_up(client);
    };
    session(&mut bench);
    assert_eq!(traces.built(), 0);
    let following = traces.watch(super::super::trace::Filter::default()).expect("there is room");
    bench.turn();
    session(&mut bench);
    let events = std::iter::from_fn(|| following.poll()).count() as u64;
    // Opened, refused, received, stored, closed.
    assert_eq!((events, traces.built()), (5, 5));
    drop(following);
    bench.turn();
    session(&mut bench);
    assert_eq!(traces.built(), 5);
}
