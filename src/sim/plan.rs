//! What a seed means: how much mail comes, how the disk, the peers and the sink behave, and which
//! faults fall when. All of it is drawn before the run, so that a failing run can be shrunk by
//! leaving faults out.

use std::fmt;

use super::random::Random;

/// How a seed becomes a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All kinds of faults.
    #[default]
    All,
    /// None: everything that comes must be taken, acknowledged and exported.
    Calm,
    /// A random subset of the kinds for each seed.
    Swarm,
}

/// A fault, and when it falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process or the machine dies at the n-th submission or completion.
    Crash(u64, Death),
    /// The first recovery behind the n-th crash dies at its m-th file operation.
    RecoveryCrash(u64, u64),
    /// The n-th write fails.
    Write(u64, DiskFault),
    /// The n-th sync fails.
    Sync(u64),
    /// The n-th operation of the disk takes so many milliseconds.
    Slow(u64, u64),
    /// The n-th write lands in another place.
    Misdirect(u64),
    /// From the n-th step on the disk is full, for so many steps.
    Full(u64, u64),
    /// The n-th file operation fails.
    File(u64),
    /// The process dies at the n-th file operation.
    FileCrash(u64, Death),
    /// At the n-th step the wall clock jumps by so many seconds.
    Clock(u64, i64),
    /// A connection's peer does this once it has sent so many octets.
    Peer(u64, u64, PeerFault),
    /// The n-th delivery ends so.
    Sink(u64, SinkFault),
    /// From the n-th delivery on the sink is away, for so many.
    Outage(u64, u64),
    /// At the n-th step the server is drained and started again.
    Drain(u64),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Death {
    /// The process alone: what it has written is there.
    Kill,
    /// Power goes: what was not synced is there or not, 512 octets by 512 octets.
    Power512,
    /// The same by pages of 4,096 octets.
    Power4096,
}

/// How a write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskFault {
    /// EIO.
    Error,
    /// ENOSPC.
    Full,
    /// Less is written than was asked for.
    Short,
}

/// What a peer does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerFault {
    /// RST.
    Reset,
    /// FIN, and it goes on reading.
    HalfClose,
    /// FIN, and nothing is read any more.
    Close,
    /// Nothing more is sent or read.
    Silence,
    /// It reads an octet now and then.
    SlowReader,
}

/// How a delivery goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SinkFault {
    /// All is taken, the answer is lost.
    AckLost,
    /// All is taken, the answer comes after the timeout.
    AckLate,
    /// A part is taken.
    Partial,
    /// One record is refused for good.
    Refused,
    /// There are fewer answers than records.
    FewAnswers,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// Mails.
    pub mails: u64,
    /// Connections at a time.
    pub peers: u64,
    /// Octets of a segment.
    pub segment_bytes: u64,
    /// `log.sync = "each"`.
    pub sync_each: bool,
    /// Base latency of the disk in microseconds.
    pub disk_micros: u64,
    /// Receive buffers, and octets of each.
    pub buffers: (u64, u64),
    /// Octets that may be in flight.
    pub inflight_bytes: u64,
    /// Seconds after which an unanswered message gets 451.
    pub commit_wait: u64,
    /// Records of a batch.
    pub batch_records: u64,
    /// Batches under way.
    pub in_flight: u64,
    /// Segments kept by size, in segments; 0: all.
    pub keep_segments: u64,
    /// Segments are deleted once they are five seconds old and exported, also the last one.
    pub deletes_by_age: bool,
    /// Mail is judged before it is taken.
    pub judges: bool,
    /// Without faults: everything must go well.
    pub calm: bool,
    /// In the order of their kinds.
    pub faults: Vec<Fault>,
}

const KINDS: u64 = 14;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64, mode: Mode) -> Self {
        let mut random = Random::new(seed, 1);
        let mut plan = Self {
            seed,
            mails: random.between(200, 400),
            peers: random.between(2, 24),
            segment_bytes: (1 << 20) * random.between(1, 2),
            sync_each: random.one_in(8),
            disk_micros: random.skewed(20, 4_000),
            buffers: (random.between(3, 40), 1 << random.between(10, 14)),
            inflight_bytes: 1 << random.between(20, 26),
            commit_wait: random.between(5, 60),
            batch_records: random.skewed(1, 100),
            in_flight: if random.one_in(3) { random.between(2, 6) } else { 1 },
            keep_segments: if random.one_in(3) { 0 } else { random.between(1, 3) },
            // Drawn last: seeds without it mean what they meant before there was this rule.
            deletes_by_age: random.one_in(8),
            // By numbers of its own: what else a seed means stays.
            judges: Random::new(seed, 11).one_in(3),
            calm: mode == Mode::Calm,
            faults: Vec::new(),
        };
        if plan.calm {
            plan.inflight_bytes = 64 << 20;
        }
        let mut random = Random::new(seed, 2);
        for kind in 0..KINDS {
            let among = match mode {
                Mode::All => true,
                Mode::Calm => false,
                Mode::Swarm => random.one_in(3),
            };
            if among {
                plan.draw(kind, &mut random);
            }
        }
        plan.faults.sort_unstable();
        plan
    }

    /// Draws the faults of a kind. A run has some ten thousand steps, some hundred writes and syncs.
    fn draw(&mut self, kind: u64, random: &mut Random) {
        let death = |random: &mut Random| match random.below(4) {
            0 => Death::Kill,
            1 | 2 => Death::Power512,
            _ => Death::Power4096,
        };
        let mut times =
            |random: &mut Random, most: u64, fault: &mut dyn FnMut(&mut Random) -> Fault| {
                for _ in 0..random.between(1, most) {
                    let fault = fault(random);
                    self.faults.push(fault);
                }
            };
        let peers = self.mails / 4 + 10;
        match kind {
            0 => times(random, 5, &mut |r| Fault::Crash(r.skewed(1, 12_000), death(r))),
            1 => times(random, 3, &mut |r| Fault::RecoveryCrash(r.between(1, 4), r.between(1, 40))),
            2 if random.one_in(2) => times(random, 2, &mut |r| {
                let fault = match r.below(3) {
                    0 => DiskFault::Error,
                    1 => DiskFault::Full,
                    _ => DiskFault::Short,
                };
                Fault::Write(r.between(1, 300), fault)
            }),
            3 if random.one_in(2) => times(random, 2, &mut |r| Fault::Sync(r.between(1, 200))),
            4 => times(random, 4, &mut |r| Fault::Slow(r.between(1, 400), 1 << r.between(2, 17))),
            5 if random.one_in(6) => times(random, 1, &mut |r| Fault::Misdirect(r.between(1, 300))),
            6 if random.one_in(3) => {
                times(random, 2, &mut |r| Fault::Full(r.between(1, 12_000), r.between(10, 2_000)))
            }
            7 if random.one_in(3) => times(random, 3, &mut |r| Fault::File(r.between(1, 400))),
            8 => times(random, 2, &mut |r| Fault::FileCrash(r.between(1, 400), death(r))),
            9 => times(random, 3, &mut |r| {
                let span = 1_i64 << r.between(1, 28);
                Fault::Clock(r.between(1, 12_000), if r.one_in(2) { span } else { -span })
            }),
            10 => times(random, 12, &mut |r| {
                let fault = match r.below(8) {
                    0..=3 => PeerFault::Reset,
                    4 => PeerFault::HalfClose,
                    5 => PeerFault::Close,
                    6 => PeerFault::Silence,
                    _ => PeerFault::SlowReader,
                };
                Fault::Peer(r.below(peers), r.skewed(0, 400_000), fault)
            }),
            11 => times(random, 8, &mut |r| {
                let fault = match r.below(6) {
                    0 | 1 => SinkFault::AckLost,
                    2 => SinkFault::AckLate,
                    3 => SinkFault::Partial,
                    4 => SinkFault::Refused,
                    _ => SinkFault::FewAnswers,
                };
                Fault::Sink(r.between(1, 150), fault)
            }),
            12 if random.one_in(2) => {
                times(random, 1, &mut |r| Fault::Outage(r.between(1, 100), r.between(1, 8)));
            }
            13 if random.one_in(2) => {
                times(random, 2, &mut |r| Fault::Drain(r.between(500, 10_000)));
            }
            _ => {}
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, mails, peers, segment_bytes, disk_micros, buffers, .. } = self;
        writeln!(
            f,
            "seed {seed}: {mails} mails of {peers} peers, segments of {segment_bytes} bytes, a disk \
             of {disk_micros} us, {} receive buffers of {} bytes{}",
            buffers.0,
            buffers.1,
            if self.sync_each { ", sync = \"each\"" } else { "" }
        )?;
        if self.deletes_by_age {
            writeln!(f, "  segments are deleted once they are five seconds old and exported")?;
        }
        for fault in &self.faults {
            writeln!(f, "  {fault:?}")?;
        }
        Ok(())
    }
}
