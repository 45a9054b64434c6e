//! Start and restart of a run's server: recovery, and the checks of the log after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    sync::Arc,
    time::Duration,
};

use super::{
    ledger::Checked,
    plan::Death,
    server::{NODE, Server},
    world::{Event, World},
};
use crate::{
    consumer::Reader,
    export::staged::{Clock, Export, StagedLane},
    log::{
        Appender, DataDir, Fault, FaultKind, HighWaterMarks, Log, Offset, Options, Recovery,
        Retention, SyncPolicy, recover, segment_path, shard_dir,
        staged::{FORGED, offsets},
    },
    metrics::{ExportMetrics, Published, ShardState},
    policy::NoAdvisor,
    shard::{
        self, Gate, Limits, Peers, SharedState,
        core::{Listener, Parts, Shard},
    },
    smtp::{self, Protocol},
};

/// Whether a forged group is among these octets. In a segment that lost its header and all of its own
/// groups nobody can tell what it is: it is kept, and named, which is right.
fn is_forged(octets: &[u8]) -> bool {
    octets.chunks(4096).any(|block| offsets(block).is_some_and(|(first, _)| first == FORGED))
}

fn own(error: impl std::fmt::Display) -> String {
    format!("the simulation's own disk: {error}")
}

impl World {
    /// The server starts; where a fault keeps it from that, it is started again.
    pub(super) fn start(&mut self) -> Checked {
        if self.server.is_some() {
            return Ok(());
        }
        if let Some(at) = self.recovery_crashes.remove(&self.deaths) {
            self.files.die_in(at, Death::Power512);
            self.note("recovery dies at its file operation {}", &[at]);
        }
        match self.recover_and_serve() {
            Ok(Ok(())) => Ok(()),
            // As a process manager does.
            Ok(Err(error)) => {
                self.server = None;
                if self.files.dead().is_none() && !self.files.take_failed() {
                    return Err(format!("the server does not start: {error}"));
                }
                self.trace.text(self.now, || format!("the start fails: {error}"));
                if self.files.dead().is_none() {
                    self.boot += 1;
                    self.at(1_000_000, Event::Start);
                }
                Ok(())
            }
            Err(violation) => Err(violation),
        }
    }

    /// The outer result is a violation, the inner one what the file system said.
    fn recover_and_serve(&mut self) -> Checked<io::Result<()>> {
        let data = match DataDir::open(&self.dir) {
            Ok(data) => data,
            Err(error) => return Ok(Err(error)),
        };
        let recovered = data.make_shard(0).and_then(|dir| {
            let first = recover(&dir, Self::identity())?;
            let again = recover(&dir, Self::identity())?;
            Ok((first, again))
        });
        self.segments.hear_synced(&self.files.take_synced());
        let (first, recovery) = match recovered {
            Ok(both) => both,
            Err(error) => return Ok(Err(error)),
        };
        self.check_recovery(&first, &recovery)?;
        self.check_gone()?;
        self.check_log()?;
        let server = match self.serve(data, recovery) {
            Ok(server) => server,
            Err(error) => return Ok(Err(error)),
        };
        self.server = Some(server);
        self.check_commit()?;
        for event in [Event::Lane, Event::Retention, Event::Tail] {
            let pause = self.random.below(50_000);
            self.at(pause, event);
        }
        self.turn()?;
        Ok(Ok(()))
    }

    fn check_recovery(&mut self, first: &Recovery, again: &Recovery) -> Checked {
        let numbers = [first.next_offset.get(), first.next_segment, first.truncated_bytes];
        self.note("recovered: next offset {}, next segment {}, {} bytes torn", &numbers);
        let same = first.next_offset == again.next_offset
            && first.next_segment == again.next_segment
            && first.lost_records == again.lost_records;
        if !same {
            return Err(format!(
                "I7: the first recovery says {:?} {} {}, the second {:?} {} {}",
                first.next_offset,
                first.next_segment,
                first.lost_records,
                again.next_offset,
                again.next_segment,
                again.lost_records
            ));
        }
        for damage in again.damage.iter().filter(|damage| damage.kind == FaultKind::Header) {
            let path = segment_path(&shard_dir(&self.dir, 0), damage.segment);
            if fs::read(path).is_ok_and(|octets| is_forged(&octets)) {
                self.forged.insert(damage.segment);
            }
        }
        let excused = |damage: &&Fault| !self.forged.contains(&damage.segment);
        if self.segments.astray.is_empty()
            && let Some(damage) = again.damage.iter().find(excused)
        {
            return Err(format!("recovery reports damage where there is none: {damage}"));
        }
        if again.next_offset.get() < self.ledger.end() {
            return Err(format!(
                "I4: the next offset is {:?}, and {} was seen",
                again.next_offset,
                self.ledger.end() - 1
            ));
        }
        self.excuse();
        Ok(())
    }

    /// What a write that went astray may have lost.
    pub(super) fn excuse(&mut self) {
        if !self.segments.astray.is_empty() {
            for (offset, known) in &mut self.ledger.offsets {
                known.excused |= self.segments.is_astray(*offset);
            }
        }
    }

    /// Reads the whole log and holds it against the ledger.
    pub(super) fn check_log(&mut self) -> Checked {
        let log = Log::open(&self.dir).map_err(own)?;
        let mut found = BTreeSet::new();
        let mut broken = None;
        let mut data = Vec::new();
        let mut last = None;
        let astray = !self.segments.astray.is_empty();
        let ledger = &mut self.ledger;
        let walked = log.walk(0, 0, u64::MAX, &mut |offset, record| {
            data.clear();
            let whole = log.mail_data(0, record, |chunk| {
                data.extend_from_slice(chunk);
                Ok(())
            });
            let checked = match whole {
                Err(_) if astray => return Ok(true),
                Err(error) => Err(format!("I2: the mail data of record {offset}: {error}")),
                Ok(()) if last.is_some_and(|last| last >= offset) => {
                    Err(format!("I4: record {offset} comes behind a later one"))
                }
                Ok(()) => ledger.seen(offset, &data).map(|_| ()),
            };
            last = Some(offset);
            found.insert(offset);
            broken = checked.err();
            Ok(broken.is_none())
        });
        if let Some(broken) = broken {
            return Err(broken);
        }
        let damage = walked.map_err(|error| format!("the log cannot be read: {error}"))?;
        let excused = |(segment, _): &&(u64, _)| !self.forged.contains(segment);
        if !astray && let Some((segment, end)) = damage.iter().find(excused) {
            return Err(format!("segment {segment} is damaged, and nothing damaged it: {end:?}"));
        }
        self.note("the log holds {} records", &[found.len() as u64]);
        self.ledger.check_recovered(&found)
    }

    fn serve(&mut self, data: DataDir, recovery: Recovery) -> io::Result<Server> {
        let plan = &self.plan;
        let next = recovery.next_offset;
        let (marks, _) = HighWaterMarks::new(1);
        let marks = Arc::new(marks);
        marks.publish(0, next.get());
        let published = Published::new();
        let shared = Arc::new(SharedState::with_marks(published.clone(), marks.clone(), 0));
        let options = shard::Options {
            log_dir: self.dir.clone(),
            shard: 0,
            core: 0,
            segment_bytes: plan.segment_bytes,
            limits: Limits {
                connections_max: 1_000,
                inflight_bytes: plan.inflight_bytes,
                disk_low: 0,
                exempt: Peers(Arc::new(|_| false)),
                sessions_per_address: None,
                session_rate_per_address: None,
                auth_failures_per_address: None,
                shards: 1,
                handshakes_max: 1,
            },
            advisor: Arc::new(NoAdvisor),
            drain: Duration::from_secs(30),
            sync: if plan.sync_each { SyncPolicy::Each } else { SyncPolicy::Group },
            abort_on_io_error: false,
            io_memory: 0,
        };
        let log_options = Options {
            sync: options.sync,
            group_bytes_max: (plan.segment_bytes as usize / 4).min(4 << 20),
            ..Options::default()
        };
        let listener = |protocol, name: &str| {
            let mut config = smtp::Config { protocol, ..smtp::Config::default() };
            config.limits.commit_wait = Duration::from_secs(plan.commit_wait);
            config.limits.data_time = Duration::from_secs(120);
            config.limits.command_wait = Duration::from_secs(120);
            let smtp = Arc::new(config);
            let judges = plan.judges.then(|| Peers(Arc::new(|_| false)));
            let gate = Arc::new(Gate { judges, ..Gate::default() });
            Listener { name: name.to_owned(), smtp, tls: None, gate }
        };
        let appender = Appender::new(Self::identity(), log_options, next);
        let mut shard = Shard::new(Parts {
            listeners: vec![listener(Protocol::Smtp, "mx"), listener(Protocol::Lmtp, "lmtp")],
            appender,
            next_segment: recovery.next_segment,
            shared: shared.clone(),
            options,
            entropy: Box::new(|| Some([7; 18])),
            truncated_bytes: recovery.truncated_bytes,
            lost_records: recovery.lost_records,
        });
        shard.serve_listeners();
        let log = Log::open(&self.dir)?;
        let clock = Clock::new()?;
        self.sink.restart();
        let export = Export {
            options: self.export_options(),
            sink: Box::new(self.sink.clone()),
            log: log.clone(),
            marks: marks.clone(),
            metrics: ExportMetrics::new(),
        };
        let lane = StagedLane::start(&clock, export)?;
        let retention = Retention::new(&log)?;
        let tail = match self.tails {
            true => Some(Reader::open(&self.dir, 0, next.get())?),
            false => None,
        };
        Ok(Server {
            shard,
            shared,
            published,
            marks,
            manifest: recovery.manifest,
            seals: Default::default(),
            next_segment: recovery.next_segment,
            lane: Some(lane),
            clock,
            clock_at: self.now,
            retention,
            log,
            tail,
            under: Default::default(),
            accepting: vec![false; 2],
            backlog: vec![Default::default(); 2],
            closed: false,
            began: self.now,
            failed_at: None,
            drain_asked: None,
            asked: BTreeMap::new(),
            _data: data,
        })
    }

    /// Segments that were deleted were not needed.
    pub(super) fn check_gone(&mut self) -> Checked {
        for number in self.files.take_gone() {
            if let Some(held) = self.segments.held.get(&number).copied() {
                self.note("segment {} is deleted", &[number]);
                self.ledger.check_deleted(number, held)?;
            }
        }
        Ok(())
    }

    /// Whether the exporter has come to the end of the log.
    pub(super) fn is_exported(&self) -> bool {
        let needed = |known: &&super::ledger::Known| known.acknowledged && !known.excused;
        let mut known = self.ledger.offsets.range(self.ledger.committed..);
        self.server.is_some() && !known.any(|(_, known)| needed(&known))
    }

    /// An orderly end and a new start.
    pub(super) fn restart(&mut self) -> Checked {
        let boot = self.boot;
        let until = self.now + 600_000_000;
        let mut asked = false;
        while self.boot == boot || self.server.is_none() {
            if self.server.is_some() && !asked {
                self.ask_to_drain();
                asked = true;
            }
            self.next()?;
            if self.now > until {
                return Err("liveness: the server does not come to an end".to_owned());
            }
        }
        Ok(())
    }

    /// An orderly end, for good.
    pub(super) fn drain_now(&mut self) -> Checked {
        let until = self.now + 600_000_000;
        self.ask_to_drain();
        while self.server.is_some() {
            self.next()?;
            if self.now > until {
                return Err("liveness: the server does not come to an end".to_owned());
            }
        }
        let data = DataDir::open(&self.dir).map_err(own)?;
        let dir = data.make_shard(0).map_err(own)?;
        let first = recover(&dir, Self::identity()).map_err(own)?;
        let again = recover(&dir, Self::identity()).map_err(own)?;
        self.check_commit()?;
        self.check_recovery(&first, &again)
    }

    /// An operator starts a server again that takes nothing any more.
    pub(super) fn restart_failed(&mut self) -> Checked {
        let now = self.now;
        let Some(server) = &mut self.server else { return Ok(()) };
        if server.published.state() != ShardState::Failed {
            return Ok(());
        }
        if now > *server.failed_at.get_or_insert(now) + 2_000_000 {
            self.note("an operator starts the server again", &[]);
            return self.restart();
        }
        Ok(())
    }
}

const _: () = assert!(NODE.len() == 6);
const _: fn(u64) -> Offset = Offset::new;
