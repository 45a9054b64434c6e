//! In steady state a message costs no allocation: what it needs was kept from the one before.
//! Counted over the whole process by an allocator of its own, so this binary holds one test.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
#![allow(clippy::unwrap_used)]

#[path = "support/ports.rs"]
mod ports;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use mailrace::{
    config::{Config, Machine},
    log::{Appender, Identity, Mail, Offset, Options, RecordId, Spare, testing},
    smtp::{
        self, Envelope, Session,
        testing::{Host, Peer},
    },
};

use ports::free_address;

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations a second of a server that has nothing to do: its timers, and those who look after it.
fn idle_rate() -> f64 {
    let (before, began) = (COUNT.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    (COUNT.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
}

/// Sends messages from another process; returns how often this one allocated meanwhile, beyond what
/// time alone costs it: a busy machine takes longer for the same messages.
fn load(port: u16, messages: u64, idle_rate: f64, options: &[&str]) -> f64 {
    let (before, began) = (COUNT.load(Ordering::Relaxed), Instant::now());
    let status = Command::new(env!("CARGO_BIN_EXE_mailrace"))
        .args(["bench", &format!("smtp://127.0.0.1:{port}"), "-n", &messages.to_string()])
        .args(["-c", "20", "--messages-per-connection", "1000000", "--no-tui"])
        .args(options)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    // 4: this machine was too busy for figures worth anything, which is not the question.
    assert!(matches!(status.code(), Some(0 | 4)), "{status}");
    let count = (COUNT.load(Ordering::Relaxed) - before) as f64;
    count - idle_rate * began.elapsed().as_secs_f64()
}

/// The log as the shard uses it, without files.
struct Shard {
    appender: Appender,
    body: Vec<u8>,
}

impl Host for Shard {
    type Id = RecordId;

    fn mail_data(&mut self, octets: &[u8]) {
        self.body.extend_from_slice(octets);
    }

    fn end_of_mail(&mut self, envelope: &Envelope<'_>) -> Option<(u64, RecordId)> {
        let mail = Mail {
            mail_from: envelope.mail_from,
            rcpts: envelope.forward_paths().next().unwrap(),
            helo: envelope.helo,
            ..testing::mail("mx")
        };
        let offset = self.appender.append(&mail, &[&self.body], &[]).unwrap();
        self.body.clear();
        Some((offset.get(), self.appender.identity().record_id(offset)))
    }

    fn durable(&mut self) -> u64 {
        testing::complete(&mut self.appender, |_, _, _| {});
        while self.appender.poll_event().is_some() {}
        self.appender.high_water_mark().get()
    }
}

/// Session, replies and log as the shard uses them, without its sockets and files.
struct Core(Peer<Shard>);

impl Core {
    fn new() -> Self {
        let mut config = smtp::Config::default();
        config.limits.junk_max = u32::MAX;
        config.limits.errors_hard = u32::MAX;
        let identity = Identity { node: [1; 6], shard: 0 };
        let mut appender = Appender::new(identity, Options::default(), Offset::new(0));
        appender.handle_segment(Spare { number: 1, nonce: [1; 16], bytes: 1 << 40 });
        let session = Session::new(Duration::ZERO, true, &config);
        let mut core = Self(Peer::over(session, config, Shard { appender, body: Vec::new() }));
        core.turn(b"EHLO client.test\r\n");
        core
    }

    /// One receive: everything in it is answered, every message in it is committed.
    fn turn(&mut self, input: &[u8]) {
        self.0.sent.clear();
        assert_eq!(self.0.run(input), input.len());
        assert!(self.0.replies.is_empty() && !self.0.closed);
        drop(self.0.session.take_refusals());
    }
}

fn core_allocates_nothing() {
    let body = "x".repeat(62) + "\r\n";
    let body = body.repeat(64);
    let envelope = "MAIL FROM:<a@client.test>\r\nRCPT TO:<b@server.test>\r\n";
    let bdat = format!("{envelope}BDAT {} LAST\r\n{body}", body.len());
    let window = bdat.repeat(8);
    let (open, data) = (format!("{envelope}DATA\r\n"), format!("{body}.\r\n"));
    let mut core = Core::new();
    for round in 0..2 {
        let before = COUNT.load(Ordering::Relaxed);
        for _ in 0..1_000 {
            core.turn(bdat.as_bytes());
            core.turn(open.as_bytes());
            core.turn(data.as_bytes());
            core.turn(window.as_bytes());
        }
        let count = COUNT.load(Ordering::Relaxed) - before;
        assert!(round == 0 || count == 0, "{count} allocations for 10,000 messages");
    }
    assert_eq!(core.0.host.appender.high_water_mark().get(), 20_000);
}

/// A refusal's line is bounded by a budget; those without a line cost nothing.
fn refusals_without_a_line_allocate_nothing() {
    let mut core = Core::new();
    core.turn(b"MAIL FROM:<a@client.test>\r\n");
    let mut count = |refusals| {
        core.0.notes.refusals = refusals;
        let before = COUNT.load(Ordering::Relaxed);
        for _ in 0..1_000 {
            core.turn(b"RCPT TO:<a b>\r\n");
        }
        COUNT.load(Ordering::Relaxed) - before
    };
    count(true);
    let (kept, counted) = (count(true) as f64 / 1e3, count(false));
    println!("a refusal that is kept: {kept} allocations; 1,000 that are counted: {counted}");
    assert!(kept <= 4.0, "a list of refusals, the sender and the recipient: {kept}");
    assert_eq!(counted, 0);
}

/// One session that asks for recipients who are not ours, 100 at a time.
fn ask_for_foreign_recipients(port: u16, refusals: usize) {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let window = "RCPT TO:<b@foreign.example>\r\n".repeat(100);
    let mut read = [0; 64 << 10];
    let mut exchange = |send: &[u8], replies: usize| {
        client.write_all(send).unwrap();
        let mut left = replies;
        while left > 0 {
            let got = client.read(&mut read).unwrap();
            assert!(got > 0, "the server goes on");
            let lines = read[..got].split_inclusive(|octet| *octet == b'\n');
            left -= lines.filter(|line| line.ends_with(b"\n")).count();
        }
    };
    exchange(b"", 1);
    exchange(b"HELO client.test\r\n", 1);
    exchange(b"MAIL FROM:<a@client.test>\r\n", 1);
    for _ in 0..refusals / 100 {
        exchange(window.as_bytes(), 100);
    }
}

#[test]
fn a_message_costs_no_allocation() {
    core_allocates_nothing();
    refusals_without_a_line_allocate_nothing();
    // With sockets and files around it there are the shard's timers, by time, and the index, by
    // MiB: less than one a message even where a debug build takes its time.
    let dir = tempfile::tempdir().unwrap();
    let (port, refusing) = (free_address().port(), free_address().port());
    let sets = [
        format!("log.dir={}", dir.path().display()),
        "log.segment_size=256MiB".to_owned(),
        format!("listener.0.listen=127.0.0.1:{port}"),
        format!("listener.1.listen=127.0.0.1:{refusing}"),
        "listener.1.accept.domains=ours.example".to_owned(),
        "limits.errors.soft=1000000".to_owned(),
        "limits.errors.hard=1000000".to_owned(),
        "server.admin.listen=".to_owned(),
        "server.shards=1".to_owned(),
        // What it keeps of a refusal is memory of its own, and bounded by its rate.
        "log.refusals.size=".to_owned(),
    ];
    let config = Config::from_sources([], &sets, &Machine::detect()).unwrap();
    let server =
        std::thread::spawn(move || mailrace::server::run(config).map_err(|e| e.to_string()));
    let began = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "it listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    let idle = idle_rate();
    println!("{idle:.0} allocations a second of an idle server");
    for options in [
        &["--size", "4k", "--pipelining", "off"][..],
        &["--size", "1k", "--chunking"],
        &["--size", "1k", "--chunking", "--in-flight", "8"],
    ] {
        // Connections, buffers and tables grow to what this load needs.
        load(port, 4_000, idle, options);
        let few = load(port, 4_000, idle, options);
        let many = load(port, 24_000, idle, options);
        let each = (many - few) / 20_000.0;
        println!("{options:?}: {each:.4} allocations a message");
        assert!(each < 1.0, "{options:?}: {each} allocations a message");
    }
    // A flood of refusals: beyond the budget of lines (100 a second, and 200 at once) they are counted.
    ask_for_foreign_recipients(refusing, 1_000);
    let before = COUNT.load(Ordering::Relaxed);
    ask_for_foreign_recipients(refusing, 9_000);
    let each = (COUNT.load(Ordering::Relaxed) - before) as f64 / 9_000.0;
    println!("{each:.4} allocations a refusal");
    assert!(each < 1.0, "{each} allocations a refusal");
    // SAFETY: the server of this process takes the signal for the end.
    unsafe { libc::raise(libc::SIGTERM) };
    assert_eq!(server.join().unwrap(), Ok(()));
}
