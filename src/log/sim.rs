//! The appender on a simulated disk: operations complete in any order, a sync makes durable what
//! had been written in full before it was started, and power fails at any moment. Everything
//! follows from a seed.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    time::Duration,
};

use super::{
    recovery::{End, walk},
    testing::mail,
    *,
};

const SEGMENT: u64 = 256 << 10;
const IDENTITY: Identity = Identity { node: [7; 6], shard: 1 };

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// An operation under way. A linked sync starts once its write is through.
enum Under {
    Write { op: u64, segment: u64, position: u64, buffer: GroupBuffer, then_sync: Option<u64> },
    Sync { op: u64, segment: u64, covers: Vec<u8> },
}

/// See the module's page.
struct Disk {
    appender: Appender,
    /// What was written, and what of it is durable.
    written: BTreeMap<u64, Vec<u8>>,
    durable: BTreeMap<u64, Vec<u8>>,
    under: Vec<Under>,
    random: Random,
    /// In a thousand.
    faults: u64,
    next_segment: u64,
    acknowledged: u64,
    failed: Vec<(u64, u64)>,
    /// Seals that are not written yet.
    unsealed: Vec<u64>,
    sent: HashMap<u64, Vec<u8>>,
    now: Duration,
}

impl Disk {
    fn new(seed: u64, faults: u64, sync: SyncPolicy) -> Self {
        let options = Options { sync, group_bytes_max: 64 << 10, ..Options::default() };
        Self {
            appender: Appender::new(IDENTITY, options, Offset::new(0)),
            written: BTreeMap::new(),
            durable: BTreeMap::new(),
            under: Vec::new(),
            random: Random(seed),
            faults,
            next_segment: 1,
            acknowledged: 0,
            failed: Vec::new(),
            unsealed: Vec::new(),
            sent: HashMap::new(),
            now: Duration::ZERO,
        }
    }

    fn supply(&mut self) {
        if self.appender.wants_segment() && self.random.below(3) > 0 {
            let number = self.next_segment;
            self.next_segment += 1;
            self.written.insert(number, vec![0; SEGMENT as usize]);
            self.durable.insert(number, vec![0; SEGMENT as usize]);
            let nonce = [number as u8; 16];
            self.appender.handle_segment(Spare { number, nonce, bytes: SEGMENT });
        }
    }

    fn append(&mut self) {
        let seed = self.random.below(1 << 30);
        let octets: Vec<u8> =
            (0..self.random.below(3_000)).map(|at| (at * 31 + seed) as u8).collect();
        let mut fragments = Vec::new();
        let mut whole = Vec::new();
        while self.random.below(3) == 0 {
            let mut buffer = self.appender.new_fragment();
            let part: Vec<u8> =
                (0..self.random.below(30_000)).map(|at| (at * 7 + seed) as u8).collect();
            assert_eq!(buffer.push(&part), part.len());
            let Ok(at) = self.appender.append_fragment(buffer) else { return };
            fragments.push(at);
            whole.extend_from_slice(&part);
            self.step();
        }
        whole.extend_from_slice(&octets);
        let mail = mail("mx");
        if let Ok(offset) = self.appender.append(&mail, &[&octets], &fragments) {
            assert!(self.sent.insert(offset.get(), whole).is_none(), "an offset is given once");
        }
    }

    /// Starts what may start, completes one of what is under way.
    fn step(&mut self) {
        self.supply();
        if self.random.below(4) > 0 {
            while let Some(op) = self.appender.poll_op() {
                self.start(op);
            }
        }
        if self.random.below(4) == 0
            && let Some(number) = self.unsealed.pop()
        {
            self.appender.handle_sealed(number);
        }
        if !self.under.is_empty() && self.random.below(4) > 0 {
            let at = self.random.below(self.under.len() as u64) as usize;
            let under = self.under.swap_remove(at);
            self.complete(under);
        }
        while let Some(event) = self.appender.poll_event() {
            match event {
                LogEvent::Advanced(mark) => {
                    self.acknowledged = mark.get();
                    if self.random.below(4) == 0 {
                        self.check();
                    }
                }
                LogEvent::Failed { from, to } => self.failed.push((from.get(), to.get())),
                LogEvent::Sealed(seal) => self.unsealed.push(seal.number),
                _ => {}
            }
        }
    }

    fn start(&mut self, op: Op) {
        self.under.push(match op {
            Op::Write { op, segment, position, buffer, then_sync } => {
                Under::Write { op, segment, position, buffer, then_sync }
            }
            Op::Sync { op, segment } => {
                Under::Sync { op, segment, covers: self.written[&segment].clone() }
            }
        });
    }

    fn fails(&mut self) -> bool {
        self.random.below(1_000) < self.faults
    }

    fn complete(&mut self, under: Under) {
        self.now += Duration::from_secs(100);
        let broken = || io::Error::from_raw_os_error(libc::EIO);
        match under {
            Under::Write { op, segment, position, buffer, then_sync } => {
                let octets = buffer.octets();
                let failed = self.fails();
                let at = position as usize;
                if !failed {
                    let file = self.written.get_mut(&segment).unwrap();
                    assert!(file[at..at + octets.len()].iter().all(|&octet| octet == 0));
                    file[at..at + octets.len()].copy_from_slice(octets);
                }
                let result = if failed { Err(broken()) } else { Ok(octets.len()) };
                self.appender.handle_write(op, buffer, result, self.now);
                match then_sync {
                    Some(sync) if failed => {
                        self.appender.handle_sync(sync, Err(broken()), self.now);
                    }
                    Some(op) => {
                        let covers = self.written[&segment].clone();
                        self.under.push(Under::Sync { op, segment, covers });
                    }
                    None => {}
                }
            }
            Under::Sync { op, segment, covers } => {
                if self.fails() {
                    self.appender.handle_sync(op, Err(broken()), self.now);
                } else {
                    // Only what had been written before the sync began.
                    self.durable.insert(segment, covers);
                    self.appender.handle_sync(op, Ok(()), self.now);
                }
            }
        }
    }

    /// I1, I2 at this very moment: were the power to go now, every acknowledged record is there.
    fn check(&self) {
        let mut found = HashMap::new();
        for octets in self.durable.values() {
            if let Some(walked) = walk(octets.as_slice(), SEGMENT).unwrap() {
                assert!(!matches!(walked.end, End::Damaged { .. }), "nothing was damaged");
                self.collect(octets, walked.end_position, &mut found);
            }
        }
        for (offset, octets) in &self.sent {
            let lost = self.failed.iter().any(|(from, to)| (*from..*to).contains(offset));
            if *offset < self.acknowledged && !lost {
                assert_eq!(found.get(offset), Some(octets), "record {offset} was acknowledged");
            }
        }
    }

    fn collect(&self, octets: &[u8], end: u64, found: &mut HashMap<u64, Vec<u8>>) {
        let mut position = frame::BLOCK;
        while position < end as usize {
            let (group, _) = frame::GroupFrame::decode(&octets[position..]).unwrap();
            let payload = &octets[position + frame::GROUP_FRAME..][..group.payload_bytes as usize];
            let mut at = 0;
            while let Some((entry, content)) = payload.get(at..).and_then(frame::EntryFrame::decode)
            {
                at += entry.span();
                if entry.kind == frame::EntryKind::Fragment {
                    continue;
                }
                let record = RecordView::new(entry.kind, content).unwrap();
                let mut whole = Vec::new();
                for part in record.fragments() {
                    let there = &self.durable[&part.segment][part.position as usize..];
                    let (_, data) = frame::EntryFrame::decode(there).expect("a durable fragment");
                    whole.extend_from_slice(data);
                }
                whole.extend_from_slice(record.inline());
                found.insert(entry.offset, whole);
            }
            position += group.span() as usize;
        }
    }
}

fn run(seed: u64, faults: u64, sync: SyncPolicy) -> u64 {
    let mut disk = Disk::new(seed, faults, sync);
    for _ in 0..60 {
        disk.append();
        for _ in 0..disk.random.below(6) {
            disk.step();
        }
    }
    for _ in 0..3_000 {
        disk.step();
    }
    assert!(disk.appender.is_idle(), "seed {seed} {sync:?}: all comes to its end");
    assert_eq!(
        disk.acknowledged.max(disk.failed.last().map_or(0, |(_, to)| *to)),
        disk.appender.log_end_offset().get()
    );
    disk.acknowledged
}

#[test]
fn t4_any_order_of_completions_acknowledges_only_what_is_durable() {
    let mut acknowledged = 0;
    for seed in 0..200 {
        acknowledged += run(seed, 0, SyncPolicy::Group);
        acknowledged += run(seed, 0, SyncPolicy::Each);
    }
    assert!(acknowledged > 10_000, "{acknowledged}");
}

#[test]
fn t4_the_same_with_failing_writes_and_syncs() {
    for seed in 0..200 {
        run(seed, 20 + seed % 60, SyncPolicy::Group);
        run(seed, 20 + seed % 60, SyncPolicy::Each);
    }
}
