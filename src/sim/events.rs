//! What happens to a run's server: operations end, seals are written, retention looks, it dies or
//! drains.

use std::{io, time::Duration};

use super::{
    disk::Outcome,
    ledger::Checked,
    plan::{Death, DiskFault},
    server::{Demand, Server, Under},
    world::{Event, World},
};
use crate::{
    log::{Rules, prepare_segment, segment_path, shard_dir},
    shard::core::{Completion, Finished},
};

impl World {
    /// An event that the server alone is concerned with.
    pub(super) fn server_event(&mut self, event: Event) -> Checked {
        if self.server.is_none() {
            return Ok(());
        }
        match event {
            Event::Socket(socket) => self.socket_event(socket),
            Event::Disk(op) => self.disk_event(op)?,
            Event::Prepare(number, bytes) => self.prepare(number, bytes)?,
            Event::Seal => self.seal(),
            Event::Lane => self.lane()?,
            Event::Retention => self.retention()?,
            Event::Tail => self.tail()?,
            Event::Answer(number) => self.answer(number)?,
            Event::Peer(_) | Event::Tick | Event::Start => {}
        }
        Ok(())
    }

    fn socket_event(&mut self, socket: u32) {
        let (completion, news) = self.net.poll(socket, &mut self.random);
        if news && let Some(peer) = self.net.peer_of(socket) {
            let pause = self.random.between(20, 2_000);
            self.wake_peer(peer, pause);
        }
        let Some(completion) = completion else {
            if news {
                self.at(300, Event::Socket(socket));
            }
            return;
        };
        match &completion {
            Completion::Received { more, result: Ok(Some(buffer)), .. } => {
                let numbers = [u64::from(socket), buffer.len() as u64, u64::from(*more)];
                self.note("socket {}: {} bytes are received, more: {}", &numbers);
            }
            Completion::Received { result, .. } => {
                let numbers = [u64::from(socket), u64::from(result.is_ok())];
                self.note("socket {}: nothing more is received; orderly: {}", &numbers);
            }
            Completion::HungUp { gone, .. } => {
                self.note("socket {}: hung up: {}", &[u64::from(socket), u64::from(*gone)]);
            }
            _ => {}
        }
        self.complete(completion);
        let pause = self.random.between(5, 400);
        self.at(pause, Event::Socket(socket));
    }

    fn disk_event(&mut self, op: u64) -> Checked {
        let Some(under) = self.server.as_mut().and_then(|server| server.under.remove(&op)) else {
            return Ok(());
        };
        match under {
            Under::Write { op, segment, position, buffer, then_sync, since } => {
                self.written += 1;
                let len = buffer.len() as u64;
                let fault = self.writes.remove(&self.written);
                let mut outcome = match fault {
                    None => Outcome::Whole,
                    Some(DiskFault::Short) => Outcome::Short(self.random.below(len / 512) * 512),
                    Some(DiskFault::Error | DiskFault::Full) => Outcome::Failed,
                };
                if self.misdirected.remove(&self.written) && fault.is_none() && position > 0 {
                    outcome = Outcome::Astray(self.random.between(len / 4096, len / 4096 + 9));
                }
                let done =
                    self.segments.complete(op, segment, buffer.octets(), outcome, &mut self.random);
                done.map_err(|error| format!("the simulation's own disk: {error}"))?;
                let result = match (outcome, fault) {
                    (Outcome::Short(some), _) => Ok(some as usize),
                    (_, Some(DiskFault::Full)) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                    (Outcome::Failed, _) => Err(io::Error::from_raw_os_error(libc::EIO)),
                    _ => Ok(buffer.len()),
                };
                let whole = matches!(result, Ok(written) if written as u64 == len);
                self.note("write {} ends; whole: {}", &[op, u64::from(whole)]);
                if let Outcome::Astray(blocks) = outcome {
                    self.note("write {} went astray by {} blocks", &[op, blocks]);
                }
                let took = Duration::from_micros(self.now - since);
                self.complete(Completion::Written { op, buffer, result, took });
                match then_sync {
                    Some(sync) if whole => self.begin_sync(sync, segment),
                    Some(op) => {
                        let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
                        self.complete(Completion::Synced { op, result, took });
                    }
                    None => {}
                }
            }
            Under::Sync { op, segment, began, since } => {
                self.synced += 1;
                let fails = self.syncs.remove(&self.synced);
                self.segments.sync_ends(segment, began, !fails);
                self.note("sync {} ends; works: {}", &[op, u64::from(!fails)]);
                let took = Duration::from_micros(self.now - since);
                let result =
                    if fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) };
                self.complete(Completion::Synced { op, result, took });
            }
        }
        Ok(())
    }

    fn prepare(&mut self, number: u64, bytes: u64) -> Checked {
        let dir = shard_dir(&self.dir, 0);
        self.complete(Completion::Space {
            full: self.is_full,
            room: if self.is_full { 0 } else { 1 << 40 },
        });
        let made = match self.is_full {
            true => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            false => prepare_segment(&dir, number, bytes),
        };
        if let Err(error) = &made
            && error.kind() == io::ErrorKind::AlreadyExists
        {
            // As in production: the name stays taken, and the next number is used.
            self.note("segment {} is there already", &[number]);
            return self.prepare(number + 1, bytes);
        }
        self.note("segment {} is made: {}", &[number, u64::from(made.is_ok())]);
        // One begun is removed where it cannot be made.
        self.check_gone()?;
        if made.is_ok() {
            let added = self.segments.add(number, &segment_path(&dir, number), bytes);
            added.map_err(|error| format!("the simulation's own disk: {error}"))?;
            if let Some(server) = &mut self.server {
                server.next_segment = number + 1;
            }
        }
        self.complete(Completion::Segment(made));
        if self.is_full {
            self.at(1_000_000, Event::Tick);
        }
        Ok(())
    }

    fn seal(&mut self) {
        let Some(server) = &mut self.server else { return };
        let mut done = Vec::new();
        let mut again = false;
        while let Some(seal) = server.seals.pop_front() {
            // As in production: one that cannot be written is tried again a second later.
            if server.manifest.append(&seal).is_err() {
                server.seals.push_front(seal);
                again = true;
                break;
            }
            done.push(seal.number);
        }
        for number in done {
            self.note("segment {} is sealed", &[number]);
            self.complete(Completion::Sealed(number));
        }
        if again {
            self.at(1_000_000, Event::Seal);
        }
    }

    fn retention(&mut self) -> Checked {
        self.at(1_000_000, Event::Retention);
        let by_size = self.plan.keep_segments > 0;
        if !by_size && !self.plan.deletes_by_age {
            return Ok(());
        }
        let rules = Rules {
            age: self.plan.deletes_by_age.then_some(Duration::from_secs(5)),
            size: by_size.then_some(self.plan.keep_segments * self.plan.segment_bytes),
            require_consumed: true,
            retain_after_export: Duration::from_secs(2),
            hold: false,
        };
        let full = self.is_full;
        let Some(server) = &mut self.server else { return Ok(()) };
        let demand = Demand(&server.log, &server.shared);
        let pass = server.retention.pass(&rules, full, &demand);
        let deleted = pass.map_or(0, |pass| pass.deleted.values().sum());
        if deleted > 0 {
            self.note("retention deletes {} segments", &[deleted]);
        }
        self.check_gone()
    }

    /// Dies where somebody asked for it.
    pub(super) fn look_after_death(&mut self) -> Checked {
        if self.dies.is_none() {
            self.dies = self.files.dead();
        }
        match self.dies.take() {
            Some(death) => self.die(death),
            None => Ok(()),
        }
    }

    /// The process, or the machine, dies.
    fn die(&mut self, death: Death) -> Checked {
        self.deaths += 1;
        self.note("the server dies ({})", &[death as u64]);
        let mut under_way = Vec::new();
        if let Some(server) = self.server.take() {
            for under in server.under.values() {
                if let Under::Write { segment, position, buffer, .. } = under {
                    under_way.push((*segment, *position, buffer.octets().to_vec()));
                }
            }
        }
        self.boot += 1;
        self.forget_ticks();
        let disk = self.segments.die(death, &under_way, &mut self.random);
        let files = self.files.die(death, &mut self.random);
        disk.and(files).map_err(|error| format!("the simulation's own disk: {error}"))?;
        self.net.abort(false, &mut self.random);
        self.wake_all();
        self.check_gone()?;
        let pause = self.random.between(1_000, 3_000_000);
        self.at(pause, Event::Start);
        Ok(())
    }

    pub(super) fn wake_all(&mut self) {
        for peer in 0..self.peers.len() {
            if self.peers[peer].socket.is_some() {
                let pause = self.random.below(1_000);
                self.wake_peer(peer, pause);
            }
        }
    }

    /// SIGTERM.
    pub(super) fn ask_to_drain(&mut self) {
        let now = self.now;
        if let Some(server) = &mut self.server {
            server.drain_asked.get_or_insert(now);
            server.shared.ask_to_drain();
        }
    }

    /// Everything is replied to and synced: the orderly end.
    pub(super) fn drained(&mut self) -> Checked {
        let Some(server) = self.server.take() else { return Ok(()) };
        let Server { shard, manifest, seals, next_segment, lane, clock, drain_asked, .. } = server;
        // Whose time is used up may end between a reply and its way to the peer (D4).
        let orderly = drain_asked.is_some_and(|asked| self.now < asked + 30_000_000);
        self.note("the server has drained", &[]);
        if let Some(lane) = lane {
            let _ = lane.stop(&clock);
            self.hear_sink()?;
        }
        let mut manifest = manifest;
        if let Finished::AtRest(seal) = shard.finish() {
            let seals: Vec<_> = seals.into_iter().chain(seal).collect();
            let _ = manifest.append_all(&seals).and_then(|()| {
                let last = manifest.seals().iter().map(|seal| seal.number).max().unwrap_or(0);
                let unused: Vec<u64> = (last + 1..next_segment).collect();
                manifest.remove(&unused)
            });
        }
        self.boot += 1;
        self.forget_ticks();
        self.net.abort(orderly, &mut self.random);
        self.wake_all();
        if self.files.dead().is_none() {
            self.at(10_000, Event::Start);
        }
        Ok(())
    }
}
