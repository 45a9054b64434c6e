//! The readers of a run's log: the exporter's lane, and a reader outside the server.

use std::time::Duration;

use super::{
    ledger::Checked,
    sink::Told,
    world::{Event, World},
};
use crate::{
    consumer::Group,
    export::{
        BatchOptions, DocumentOptions, Encoding, ExportOptions, Filter, Key, RetryOptions,
        SinkOptions, Start,
    },
};

/// The exporter's group.
const GROUP: &str = "main";

impl World {
    pub(super) fn export_options(&self) -> ExportOptions {
        ExportOptions {
            name: GROUP.to_owned(),
            sink: SinkOptions::Blackhole,
            document: DocumentOptions {
                encoding: Encoding::Json,
                inline_max: 1 << 19,
                reference_url: String::new(),
                sha256: false,
                key: Key::RcptDomain,
            },
            start: Start::Committed,
            batch: BatchOptions {
                records: self.plan.batch_records as usize,
                bytes: 1 << 18,
                delay: Duration::from_millis(self.plan.disk_micros / 40),
            },
            retry: RetryOptions {
                initial: Duration::from_millis(20),
                max: Duration::from_millis(800),
                give_up_after: None,
            },
            in_flight: self.plan.in_flight as usize,
            timeout: Duration::from_millis(300),
            filter: Filter::default(),
            wait_verdict: None,
            replay_rate: None,
        }
    }

    /// The exporter's turn.
    pub(super) fn lane(&mut self) -> Checked {
        let Some(server) = &mut self.server else { return Ok(()) };
        let Some(lane) = &mut server.lane else { return Ok(()) };
        let passed = self.now - std::mem::replace(&mut server.clock_at, self.now);
        server.clock.pass(Duration::from_micros(passed));
        let turned = lane.turn(&server.clock);
        let sleep = server.clock.sleep().as_micros() as u64;
        let behind = server.marks.get(0) > self.ledger.committed;
        let pause = match (turned, behind) {
            (Err(_), _) => 1_000_000,
            (Ok(()), true) => sleep.min(self.random.between(1_000, 40_000)),
            (Ok(()), false) => sleep.min(200_000),
        };
        self.at(pause.max(50), Event::Lane);
        self.hear_sink()?;
        self.check_commit()?;
        // Elsewhere a batch may wait for one record of it, and a commit may fail.
        if self.plan.calm {
            self.ledger.check_commit_age(self.now)?;
        }
        Ok(())
    }

    /// What the sink did goes into the ledger.
    pub(super) fn hear_sink(&mut self) -> Checked {
        for told in self.sink.take()? {
            match told {
                Told::Taken(offset, data) => {
                    self.note("the sink takes record {}", &[offset]);
                    self.ledger.seen(offset, &data)?.taken += 1;
                }
                Told::Answered(offset) => {
                    self.note("the sink has answered for record {}", &[offset]);
                    let now = self.now;
                    if let Some(known) = self.ledger.offsets.get_mut(&offset) {
                        known.told.get_or_insert(now);
                    }
                }
                Told::Refused(offset) => self.note("the sink refuses record {}", &[offset]),
            }
        }
        Ok(())
    }

    /// What the group has committed is settled.
    pub(super) fn check_commit(&mut self) -> Checked {
        let group = Group::new(&self.dir, GROUP).map_err(|error| error.to_string())?;
        let committed = group
            .committed(0)
            .map_err(|error| error.to_string())?
            .map_or(0, |committed| committed.offset);
        if committed == self.ledger.committed {
            return Ok(());
        }
        self.note("the group has committed {}", &[committed]);
        self.excuse();
        let mut dead = || {
            let letters = group.dead_letters(0);
            letters.map_or(Vec::new(), |l| l.pending().map(|letter| letter.offset).collect())
        };
        self.ledger.check_committed(committed, &mut dead)
    }

    /// What became a dead letter before its 250 was read by the peer.
    pub(super) fn read_dead_letters(&mut self) {
        let letters =
            Group::new(&self.dir, GROUP).ok().and_then(|group| group.dead_letters(0).ok());
        self.ledger
            .dead
            .extend(letters.iter().flat_map(|l| l.pending()).map(|letter| letter.offset));
    }

    /// A reader outside the server, which goes by the frames.
    pub(super) fn tail(&mut self) -> Checked {
        let pause = self.random.between(10_000, 800_000);
        self.at(pause, Event::Tail);
        let astray = !self.segments.astray.is_empty();
        let Self { server: Some(server), ledger, forged, .. } = self else {
            return Ok(());
        };
        let Some(tail) = &mut server.tail else { return Ok(()) };
        let mut broken = None;
        let polled = tail.poll(&mut |log, offset, record| {
            let mut data = Vec::new();
            let whole = log.mail_data(0, record, |chunk| {
                data.extend_from_slice(chunk);
                Ok(())
            });
            if whole.is_ok() && broken.is_none() {
                broken = ledger.seen(offset, &data).err();
            }
            Ok(crate::log::Visit::More)
        });
        if let Some(broken) = broken {
            return Err(format!("seen by a reader outside: {broken}"));
        }
        match polled {
            Ok(damage) if !astray => {
                match damage.iter().find(|damage| !forged.contains(&damage.segment)) {
                    Some(damage) => Err(format!("a reader outside meets damage: {damage}")),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
