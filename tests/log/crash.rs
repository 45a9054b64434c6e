//! DURABILITY T1 and T10: the server is killed under load, again and again, and keeps its word.
//!
//! The senders are threads of the test, outside of the server: their ledger survives every kill.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    thread,
    time::Duration,
};

use mailrace::log::{Log, RecordId, SegmentFacts, WalkEnd};

use crate::support::{self, Client, Launch, bulk, read_bulk};

const SESSIONS: u64 = 64;

/// A message's seed tells its cycle, session and turn.
fn seed_of(cycle: u64, session: u64, turn: u64) -> u64 {
    cycle << 32 | session << 16 | turn
}

/// Small ones mostly; some beyond 256 KiB, which reach the log as fragments, up to 2 MiB.
fn lines_of(seed: u64) -> usize {
    let draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let (kind, size) = (draw % 100, (draw >> 8) as usize);
    match kind {
        0..=79 => 1 + size % 100,
        80..=93 => 100 + size % 1_000,
        94..=98 => 4_000 + size % 2_000,
        _ => 5_000 + size % 27_768,
    }
}

/// What one session knows: the turns it began, and those that were acknowledged.
#[derive(Default)]
struct Told {
    begun: u64,
    refused: u64,
    acknowledged: Vec<(RecordId, u64)>,
}

fn acknowledged(reply: &str) -> RecordId {
    support::id_of(reply).parse().expect("a record id")
}

/// One session sends until the server is gone: by DATA, by BDAT in chunks, or in windows of
/// pipelined messages.
fn session(address: SocketAddr, cycle: u64, session: u64) -> Told {
    let mut told = Told::default();
    // The kill may come before the greeting.
    let Ok(stream) = std::net::TcpStream::connect(address) else { return told };
    let mut client = Client::over(stream);
    let greeted = client.try_reply().is_some_and(|reply| reply.starts_with("220 "));
    if !greeted || !client.send(b"EHLO client.test\r\n") || client.try_reply().is_none() {
        return told;
    }
    let window = match session % 8 {
        0 | 1 => 1,
        2 | 3 => 3,
        _ => 8,
    };
    loop {
        let turns = told.begun..told.begun + window;
        told.begun = turns.end;
        let mut octets = Vec::new();
        // Replies expected, and whose final one each is.
        let mut replies: Vec<Option<u64>> = Vec::new();
        for turn in turns {
            let seed = seed_of(cycle, session, turn);
            let body = bulk(seed, lines_of(seed));
            octets.extend_from_slice(
                format!("MAIL FROM:<{seed}@client.test>\r\nRCPT TO:<b@server.test>\r\n").as_bytes(),
            );
            replies.extend([None, None]);
            if session.is_multiple_of(2) {
                let (first, last) = body.split_at(body.len() / 3);
                octets.extend_from_slice(format!("BDAT {}\r\n", first.len()).as_bytes());
                octets.extend_from_slice(first);
                octets.extend_from_slice(format!("BDAT {} LAST\r\n", last.len()).as_bytes());
                octets.extend_from_slice(last);
                replies.extend([None, Some(seed)]);
            } else {
                octets.extend_from_slice(b"DATA\r\n");
                if !client.send(&octets) {
                    return told;
                }
                octets.clear();
                // RFC 2920 §3.1: DATA ends a group; what lies before it is answered first.
                replies.push(None);
                if !answered(&mut client, &mut replies, &mut told) {
                    return told;
                }
                octets.extend_from_slice(&support::stuffed(&body));
                octets.extend_from_slice(b".\r\n");
                replies.push(Some(seed));
            }
        }
        if !client.send(&octets) || !answered(&mut client, &mut replies, &mut told) {
            return told;
        }
    }
}

fn answered(client: &mut Client, replies: &mut Vec<Option<u64>>, told: &mut Told) -> bool {
    for expected in replies.drain(..) {
        let Some(reply) = client.try_reply() else { return false };
        match expected {
            // Not stored, and told so: the sender would try again later.
            Some(_) if reply.starts_with("451 4.3.0 ") => told.refused += 1,
            Some(seed) => told.acknowledged.push((acknowledged(&reply), seed)),
            None => assert!(reply.starts_with("250") || reply.starts_with("354"), "{reply}"),
        }
    }
    true
}

/// All that was ever sent and acknowledged.
#[derive(Default)]
struct Ledger {
    /// Turns begun, by cycle and session.
    begun: HashMap<(u64, u64), u64>,
    /// Seed by shard and offset, from the 250.
    acknowledged: HashMap<(u16, u64), u64>,
    refused: u64,
}

impl Ledger {
    fn enter(&mut self, cycle: u64, session: u64, told: Told) {
        self.begun.insert((cycle, session), told.begun);
        self.refused += told.refused;
        for (id, seed) in told.acknowledged {
            let before = self.acknowledged.insert((id.shard, id.offset.get()), seed);
            assert_eq!(before, None, "I4: {id} was given twice");
        }
    }

    fn was_sent(&self, seed: u64, lines: usize) -> bool {
        let key = (seed >> 32, seed >> 16 & 0xffff);
        self.begun.get(&key).is_some_and(|&begun| seed & 0xffff < begun) && lines == lines_of(seed)
    }
}

/// What a walk over the recovered log has seen so far; goes on where it stopped.
#[derive(Default)]
struct Auditor {
    /// By shard: first segment not yet walked, first offset not yet seen.
    at: HashMap<u16, (u64, u64)>,
    seeds: HashSet<u64>,
    records: u64,
    fragmented: u64,
    acknowledged: usize,
}

impl Auditor {
    /// Checks I1 to I4 over the segments of these that were not seen before.
    fn audit(&mut self, dir: &Path, segments: &[SegmentFacts], ledger: &Ledger) {
        let log = Log::open(dir).unwrap();
        for segment in segments {
            let shard = segment.shard;
            let (segment_next, mut offset_next) = self.at.get(&shard).copied().unwrap_or((0, 0));
            if segment.number >= segment_next {
                let end = log.walk_segment(segment, None, 0, &mut |offset, record| {
                    assert!(offset >= offset_next, "I4: offset {offset} came again");
                    offset_next = offset + 1;
                    let mut body = Vec::new();
                    log.mail_data(shard, record, |chunk| {
                        body.extend_from_slice(chunk);
                        Ok(())
                    })?;
                    let (seed, lines) = read_bulk(&body)
                        .unwrap_or_else(|| panic!("I2: {shard}:{offset} is nothing we made"));
                    assert!(ledger.was_sent(seed, lines), "I3: {shard}:{offset} was never sent");
                    assert!(self.seeds.insert(seed), "I3: {shard}:{offset} was sent once");
                    assert_eq!(record.mail_from(), format!("{seed}@client.test"));
                    assert_eq!(record.forward_paths().collect::<Vec<_>>(), ["b@server.test"]);
                    if let Some(acknowledged) = ledger.acknowledged.get(&(shard, offset)) {
                        assert_eq!(*acknowledged, seed, "I2: {shard}:{offset} is another message");
                        self.acknowledged += 1;
                    }
                    self.records += 1;
                    self.fragmented += u64::from(record.fragments().next().is_some());
                    Ok(true)
                });
                assert_eq!(end.unwrap(), WalkEnd::End, "shard {shard} segment {}", segment.number);
                self.at.insert(shard, (segment.number + 1, offset_next));
            }
        }
        // Each record stands at one offset, so equal counts mean equal sets.
        assert_eq!(self.acknowledged, ledger.acknowledged.len(), "I1: acknowledged mail is lost");
    }
}

/// The segments that are sealed by now, in order.
fn sealed(dir: &Path) -> Vec<SegmentFacts> {
    let log = Log::open(dir).unwrap();
    let shards = log.shards().unwrap();
    let all = shards.into_iter().flat_map(|shard| log.segments(shard).unwrap());
    all.filter(|segment| segment.seal.is_some()).collect()
}

fn launch(dir: &Path) -> Launch {
    Launch::new(dir).set("server.shards=2").set("log.segment_size=64MiB")
}

/// Loads a server with 64 sessions and kills it after a while.
fn cycle(
    dir: &Path,
    number: u64,
    ledger: &mut Ledger,
    audit: impl FnOnce(&[SegmentFacts], &Ledger),
) {
    let server = launch(dir).start();
    let address = server.smtp;
    // What recovery made of the cycles before; the load below seals segments of its own.
    let recovered = sealed(dir);
    let sessions: Vec<_> =
        (0..SESSIONS).map(|at| thread::spawn(move || session(address, number, at))).collect();
    let draw = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    thread::sleep(Duration::from_millis(20 + draw % 381));
    server.kill();
    audit(&recovered, ledger);
    for (at, session) in sessions.into_iter().enumerate() {
        ledger.enter(number, at as u64, session.join().expect("a session's asserts hold"));
    }
}

#[test]
fn t1_kill_9_under_load_loses_and_invents_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, mut auditor) = (Ledger::default(), Auditor::default());
    let cycles = if support::in_ci() { 50 } else { 10 };
    for number in 0..cycles {
        cycle(dir.path(), number, &mut ledger, |recovered, ledger| {
            auditor.audit(dir.path(), recovered, ledger);
        });
    }
    let server = launch(dir.path()).start();
    auditor.audit(dir.path(), &sealed(dir.path()), &ledger);
    let (sent, kept) = (ledger.acknowledged.len(), auditor.records);
    let (large, refused) = (auditor.fragmented, ledger.refused);
    println!("{cycles} kills: {sent} acknowledged, {kept} kept ({large} large), {refused} refused");
    // Mail that outruns the making of segments waits; nothing here fails.
    assert_eq!(refused, 0, "refused with 451");
    assert!(sent as u64 > cycles * 20, "the load was real: {sent}");
    assert!(auditor.fragmented > cycles / 2, "and its messages large: {}", auditor.fragmented);
    assert_eq!(support::verified(dir.path()), kept);
    assert_eq!(server.stop(), Some(0));
    // Once more over everything at rest, from the front.
    let mut again = Auditor::default();
    again.audit(dir.path(), &sealed(dir.path()), &ledger);
    assert_eq!(again.records, kept);
}

#[test]
fn i7_recovery_killed_and_repeated_gives_the_same_log() {
    let rounds = if support::in_ci() { 8 } else { 3 };
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        let (data, twin) = (dir.path().join("data"), dir.path().join("twin"));
        let mut ledger = Ledger::default();
        for number in 0..2 {
            cycle(&data, round * 10 + number, &mut ledger, |_, _| {});
        }
        support::machine::run("cp", &["-a", "--sparse=always", path(&data), path(&twin)]);
        // The twin's recovery is killed wherever it has come to, five times.
        for attempt in 0..5 {
            let mut child = launch(&twin).spawn();
            thread::sleep(Duration::from_millis(attempt * 4 + round));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(launch(&data).start().stop(), Some(0));
        assert_eq!(launch(&twin).start().stop(), Some(0));
        let once = support::log_command(&data, &["cat", "--json"]);
        assert!(!once.is_empty());
        assert!(once == support::log_command(&twin, &["cat", "--json"]), "round {round}");
        assert_eq!(launch(&data).start().stop(), Some(0));
        assert!(once == support::log_command(&data, &["cat", "--json"]), "round {round}, again");
        Auditor::default().audit(&twin, &sealed(&twin), &ledger);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
