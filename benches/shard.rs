//! What a message costs in `shard::core`: a whole BDAT transaction from the receive to the 250, without
//! kernel and disk.
//!
//! ```text
//! cargo bench --bench shard                  # nanoseconds a message
//! cargo bench --bench shard -- --callgrind   # instructions a message, counted by valgrind
//! ```
//!
//! Instructions are counted of two runs of different length and divided by the messages between
//! them, so that what the start costs is left out. The count is the same from run to run within a few
//! per mille and fails beyond [`MOST`]; what it cannot see is an instruction that stalls.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]

mod callgrind;

use std::{
    hint::black_box,
    net::SocketAddr,
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mailrace::{
    log::{self, Appender, Identity, Offset, Op, Spare},
    metrics::Published,
    shard::{
        Gate, Limits, Options, SharedState,
        core::{
            Arrival, Completion, Key, Listener, Now, Parts, ReceiveBuffer, Returns, Shard, Side,
            SocketId, Submission,
        },
    },
    smtp,
};

/// Messages in flight, and the most instructions that one may cost then. Counted when this was
/// written: 19,082 and 13,368.
const MOST: [(usize, u64); 2] = [(1, 20_600), (8, 14_500)];

const SEGMENT_BYTES: u64 = 64 << 20;

/// A shard with one client, whose operations succeed as soon as they are submitted.
struct Bench {
    shard: Shard,
    now: Duration,
    key: Option<Key>,
    home: Rc<Returns>,
    spare: Vec<Box<[u8]>>,
    /// Ended, and not yet told.
    ended: Vec<Completion>,
    acknowledged: usize,
}

impl Bench {
    fn new() -> Self {
        let identity = Identity { node: [7; 6], shard: 0 };
        let appender = Appender::new(identity, log::Options::default(), Offset::new(0));
        let options = Options::bare(SEGMENT_BYTES, Limits::trusting(10));
        let listener = Listener {
            name: "mx".to_owned(),
            smtp: Arc::new(smtp::Config::default()),
            tls: None,
            gate: Arc::new(Gate::default()),
        };
        let mut bench = Self {
            shard: Shard::new(Parts {
                listeners: vec![listener],
                appender,
                next_segment: 1,
                shared: Arc::new(SharedState::new(Published::new())),
                options,
                entropy: Box::new(|| None),
                truncated_bytes: 0,
                lost_records: 0,
            }),
            now: Duration::ZERO,
            key: None,
            home: Rc::default(),
            spare: Vec::new(),
            ended: Vec::new(),
            acknowledged: 0,
        };
        bench.shard.serve_listeners();
        bench.turn();
        let peer = SocketAddr::from(([127, 0, 0, 1], 25));
        let result = Ok(Arrival { socket: SocketId(0), peer, talks: false });
        bench.ended.push(Completion::Accepted { listener: 0, more: true, result });
        bench.turn();
        bench.say(b"EHLO client.test\r\n");
        bench
    }

    /// A turn each 20 us: what ended is told, what is submitted ends at once.
    fn turn(&mut self) {
        self.now += Duration::from_micros(20);
        let now = Now { elapsed: self.now, unix_micros: 0 };
        for completion in self.ended.drain(..) {
            self.shard.handle_completion(now, completion);
        }
        self.shard.handle_tick(now);
        let took = Duration::ZERO;
        while let Some(submission) = self.shard.poll_submission() {
            match submission {
                Submission::Receive { key, .. } => self.key = Some(key),
                Submission::Send { key, octets, .. } => {
                    let queued = memchr::memmem::find_iter(&octets, b"queued as").count();
                    self.acknowledged += queued;
                    let result = Ok(octets.len());
                    self.ended.push(Completion::Sent { key, octets, result });
                }
                Submission::Log(Op::Write { op, buffer, then_sync, .. }) => {
                    let result = Ok(buffer.len());
                    self.ended.push(Completion::Written { op, buffer, result, took });
                    if let Some(op) = then_sync {
                        self.ended.push(Completion::Synced { op, result: Ok(()), took });
                    }
                }
                Submission::Log(Op::Sync { op, .. }) => {
                    self.ended.push(Completion::Synced { op, result: Ok(()), took });
                }
                Submission::Prepare { number, bytes } => {
                    let spare = Spare { number, nonce: [1; 16], bytes };
                    self.ended.push(Completion::Segment(Ok(spare)));
                }
                Submission::Shut { side: Side::Sending | Side::Both, .. } => {
                    unreachable!("the client stays")
                }
                _ => {}
            }
        }
        let spare = &mut self.spare;
        self.home.take(|_, memory| spare.push(memory));
    }

    fn say(&mut self, octets: &[u8]) {
        let mut memory = self.spare.pop().unwrap_or_else(|| vec![0; 16 << 10].into());
        memory[..octets.len()].copy_from_slice(octets);
        let buffer = ReceiveBuffer::new(memory, octets.len(), 0, self.home.clone());
        let key = self.key.expect("it is received from");
        self.ended.push(Completion::Received { key, more: true, result: Ok(Some(buffer)) });
        self.turn();
    }

    /// Sends `messages` of 1 KiB, `depth` of them in one go, each go once the one before is
    /// acknowledged.
    fn send(&mut self, messages: usize, depth: usize) {
        let data = "x".repeat(1022) + "\r\n";
        let one = format!(
            "MAIL FROM:<loadtest@client.test>\r\nRCPT TO:<user@server.test>\r\nBDAT 1024 LAST\r\n{data}"
        );
        let go = one.repeat(depth);
        self.acknowledged = 0;
        for sent in (depth..=messages).step_by(depth) {
            self.say(black_box(go.as_bytes()));
            for _ in 0..100 {
                if self.acknowledged == sent {
                    break;
                }
                self.turn();
            }
            assert_eq!(self.acknowledged, sent, "each is acknowledged");
        }
    }
}

/// Instructions of a run.
fn counted(messages: usize, depth: usize) -> Result<u64, String> {
    callgrind::count(&["--run", &messages.to_string(), &depth.to_string()])
}

fn compare() -> Result<(), String> {
    const FEW: usize = 2_000;
    const MANY: usize = 10_000;
    let mut broken = Vec::new();
    for (depth, most) in MOST {
        let each = (counted(MANY, depth)? - counted(FEW, depth)?) / (MANY - FEW) as u64;
        println!("BDAT 1 KiB, {depth} in flight: {each} instructions a message (at most {most})");
        if each > most {
            broken.push(format!("{each} instructions with {depth} in flight, at most {most}"));
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--callgrind"] => compare(),
        ["--run", messages, depth] => match (messages.parse(), depth.parse()) {
            (Ok(messages), Ok(depth)) => {
                Bench::new().send(messages, depth);
                Ok(())
            }
            _ => Err("--run takes two numbers".to_owned()),
        },
        [] => {
            for (depth, _) in MOST {
                let mut bench = Bench::new();
                bench.send(20_000, depth);
                let began = Instant::now();
                bench.send(200_000, depth);
                let each = began.elapsed().as_nanos() / 200_000;
                println!("BDAT 1 KiB, {depth} in flight: {each} ns a message");
            }
            Ok(())
        }
        _ => Err("it takes --callgrind or nothing".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench shard: {why}");
            ExitCode::FAILURE
        }
    }
}
