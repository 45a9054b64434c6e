//! A fast sender, and what it knows of what it sent: the ledger that sinks are held against.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::support::{Client, Raise, bulk, eventually, id_of};

/// Connections of a load.
const CONNECTIONS: usize = 4;

/// Messages that a connection sends before it reads replies.
const WINDOW: u64 = 16;

/// Lines of the largest message: 2 MiB.
const LINES_MAX: usize = 32_768;

/// Domain of one recipient in twenty: one of a Dovecot user.
pub const FEW: &str = "few.test";

/// Whether a message goes to [`FEW`].
pub fn is_of_few(seed: u64) -> bool {
    seed % 20 == 11
}

/// Lines of 64 octets: 1 to 4 KiB mostly, one in a thousand 100 KiB, one in 2,500 2 MiB.
pub fn lines_of(seed: u64) -> usize {
    match (seed % 2_500, seed % 1_000) {
        (11, _) => LINES_MAX,
        (_, 7) => 1_600,
        _ => 16 + (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % 48,
    }
}

fn recipient(seed: u64) -> String {
    if is_of_few(seed) { format!("alice@{FEW}") } else { format!("b@d{}.test", seed % 7) }
}

/// Messages sent, one a seed from 0 on. Shared by its connections, and by loads one after another.
#[derive(Default)]
pub struct Load {
    /// How many times as large as usual they are, up to 2 MiB; 0 is 1.
    scale: usize,
    /// How long each connection rests before it sends more.
    rest: Duration,
    next: AtomicU64,
    acked: AtomicU64,
    /// What ran beside a load failed: it ends, so that the failure is told.
    given_up: AtomicBool,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    /// SHA-256 of what was begun, by seed.
    begun: BTreeMap<u64, String>,
    /// Seed by record id, of each 250.
    acked: HashMap<String, u64>,
}

impl Load {
    /// Messages so many times as large as usual, up to 2 MiB.
    pub fn scaled(scale: usize) -> Self {
        Self { scale, ..Self::default() }
    }

    /// Messages at a few thousand a second, however fast the server is.
    pub fn steady() -> Self {
        Self { rest: Duration::from_millis(25), ..Self::default() }
    }

    /// Sends the seeds below `end` that were not sent; every one is acknowledged.
    #[track_caller]
    pub fn send_to(&self, address: SocketAddr, end: u64) {
        let began = Instant::now();
        let from = self.acked();
        self.send_until(address, end, || {});
        let (count, took) = (self.acked() - from, began.elapsed());
        assert_eq!(self.acked(), end, "each message is taken");
        println!("sent {count} in {took:.1?}, {:.0}/s", count as f64 / took.as_secs_f64());
    }

    /// Sends so many more, all of which are acknowledged, after loads that were broken off.
    #[track_caller]
    pub fn send_more(&self, address: SocketAddr, count: u64) {
        let (from, next) = (self.acked(), self.next.load(Ordering::SeqCst));
        self.send_until(address, next + count, || {});
        assert_eq!(self.acked(), from + count, "each message is taken");
    }

    /// Sends the seeds below `end`, and runs `meanwhile` beside. A connection that breaks sends
    /// nothing more.
    pub fn send_until(&self, address: SocketAddr, end: u64, meanwhile: impl FnOnce()) {
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| self.connection(address, end));
            }
            let failed = Raise(&self.given_up);
            meanwhile();
            mem::forget(failed);
        });
        // Seeds taken beyond the end were not sent.
        self.next.fetch_min(end, Ordering::SeqCst);
    }

    /// Sends one message at a time, over a few connections in turn, until one is refused; that
    /// reply.
    #[track_caller]
    pub fn fill(&self, address: SocketAddr) -> String {
        let began = Instant::now();
        let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| Client::connect(address)).collect();
        clients.iter_mut().for_each(Client::ehlo);
        loop {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is refused");
            let seed = self.next.load(Ordering::SeqCst);
            let client = &mut clients[seed as usize % CONNECTIONS];
            let reply = client.say(&format!("MAIL FROM:<{seed}@client.test>"));
            if !reply.starts_with("250 ") {
                return reply;
            }
            let reply = client.say(&format!("RCPT TO:<{}>", recipient(seed)));
            assert!(reply.starts_with("250 "), "{reply}");
            let body = self.begin(seed);
            self.next.store(seed + 1, Ordering::SeqCst);
            client.send(format!("BDAT {} LAST\r\n", body.len()).as_bytes());
            client.send(&body);
            let reply = client.reply();
            // Between the looks at the disk a message may still find no room.
            match reply.starts_with("45") {
                true => return reply,
                false => self.acknowledge(id_of(&reply), seed),
            }
        }
    }

    /// Messages acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    #[track_caller]
    pub fn await_acked(&self, count: u64) {
        eventually("so many are acknowledged", Duration::from_secs(60), || self.acked() >= count);
    }

    /// Record ids acknowledged, and their seeds.
    pub fn ids(&self) -> Vec<(String, u64)> {
        let ledger = self.ledger.lock().unwrap();
        ledger.acked.iter().map(|(id, seed)| (id.clone(), *seed)).collect()
    }

    fn connection(&self, address: SocketAddr, end: u64) -> Option<()> {
        let mut client = Client::over(TcpStream::connect(address).ok()?);
        client.stream.get_ref().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.try_reply().filter(|reply| reply.starts_with("220 "))?;
        client.send(b"EHLO client.test\r\n");
        client.try_reply()?;
        while !self.given_up.load(Ordering::Relaxed) {
            thread::sleep(self.rest);
            let first = self.next.fetch_add(WINDOW, Ordering::SeqCst);
            let seeds = first..(first + WINDOW).min(end);
            if seeds.is_empty() {
                return Some(());
            }
            let mut octets = Vec::new();
            for seed in seeds.clone() {
                let body = self.begin(seed);
                let to = recipient(seed);
                let commands = format!(
                    "MAIL FROM:<{seed}@client.test>\r\nRCPT TO:<{to}>\r\nBDAT {} LAST\r\n",
                    body.len()
                );
                octets.extend_from_slice(commands.as_bytes());
                octets.extend_from_slice(&body);
            }
            if !client.send(&octets) {
                return None;
            }
            for seed in seeds {
                for _ in 0..2 {
                    let reply = client.try_reply()?;
                    assert!(reply.starts_with("250 2.1."), "{reply}");
                }
                self.acknowledge(id_of(&client.try_reply()?), seed);
            }
        }
        None
    }

    /// The body of a message that is about to be sent.
    fn begin(&self, seed: u64) -> Vec<u8> {
        let body = bulk(seed, (lines_of(seed) * self.scale.max(1)).min(LINES_MAX));
        let digest = format!("{:x}", Sha256::digest(&body));
        self.ledger.lock().unwrap().begun.insert(seed, digest);
        body
    }

    fn acknowledge(&self, id: String, seed: u64) {
        let before = self.ledger.lock().unwrap().acked.insert(id, seed);
        assert_eq!(before, None, "an id was given twice");
        self.acked.fetch_add(1, Ordering::SeqCst);
    }

    /// Holds what was read from a sink (id and SHA-256 of each message) against what was sent:
    /// nothing acknowledged is missing if `wanted`, nothing else is there, and each octet is right.
    /// Returns the ids that came again, once for each time.
    #[track_caller]
    pub fn check(
        &self,
        sink: &str,
        read: &[(String, String)],
        wanted: impl Fn(u64) -> bool,
    ) -> Vec<String> {
        // Another sink's check may have failed.
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let begun: HashMap<&str, u64> =
            ledger.begun.iter().map(|(seed, digest)| (digest.as_str(), *seed)).collect();
        let mut seen = HashSet::new();
        let mut again = Vec::new();
        for (id, digest) in read {
            let seed = *begun
                .get(digest.as_str())
                .unwrap_or_else(|| panic!("{sink}: {id} is nothing that was sent: {digest}"));
            if let Some(acked) = ledger.acked.get(id) {
                assert_eq!(*acked, seed, "{sink}: {id} is another message");
            }
            assert!(wanted(seed), "{sink}: {id} was not meant for it");
            if !seen.insert(id) {
                again.push(id.clone());
            }
        }
        let missing: Vec<_> = ledger
            .acked
            .iter()
            .filter(|(id, seed)| wanted(**seed) && !seen.contains(id))
            .map(|(id, _)| id)
            .collect();
        let (count, some) = (missing.len(), &missing[..missing.len().min(3)]);
        assert_eq!(
            count,
            0,
            "{sink}: of {} acknowledged are missing: {some:?}",
            ledger.acked.len()
        );
        println!("{sink}: {} messages, {} of them again", read.len(), again.len());
        again
    }
}
