//! What the main thread does while the server serves, and how the server ends.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use super::{
    drain::Drain,
    hand_over::HandOver,
    notify::Notifier,
    reload::Reloader,
    signals::Signals,
    start::Running,
    upgrade::{self, Begun, Upgrades},
};
use crate::{
    admin::{Readiness, ReloadRequests},
    log::SyncPolicy,
};

/// How often the operator is reminded that mail may be lost (D2).
const REMINDER: Duration = Duration::from_secs(60);

/// How often the files of certificates and users are looked at.
const FILES: Duration = Duration::from_secs(10);

/// What is looked at in each turn: files, wishes for a reload.
struct Housekeeping<'a> {
    reloader: &'a mut Reloader,
    notifier: &'a Notifier,
    stop: &'a Signals,
    reloads: &'a ReloadRequests,
    hangups: usize,
    reminded: Instant,
    looked: Instant,
}

impl<'a> Housekeeping<'a> {
    fn new(
        reloader: &'a mut Reloader,
        notifier: &'a Notifier,
        stop: &'a Signals,
        reloads: &'a ReloadRequests,
        hangups: usize,
    ) -> Self {
        let now = Instant::now();
        Self { reloader, notifier, stop, reloads, hangups, reminded: now, looked: now }
    }

    /// Returns `server.drain.lead` as it is now.
    fn turn(&mut self) -> Duration {
        let not_durable = self.reloader.started.log.sync == SyncPolicy::None;
        if not_durable && self.reminded.elapsed() >= REMINDER {
            self.reminded = Instant::now();
            tracing::warn!("log.sync = \"none\": NOT durable, a power cut loses acknowledged mail");
        }
        if self.looked.elapsed() >= FILES {
            self.looked = Instant::now();
            self.reloader.look_at_files();
            self.reloader.look_at_standing();
        }
        self.reloader.look_at_recipients();
        if self.stop.hangups() != self.hangups {
            self.hangups = self.stop.hangups();
            // What came of it is told in the log.
            let _ = self.notifier.around_reload(|| self.reloader.reload());
        }
        while let Ok(wanted) = self.reloads.try_recv() {
            // Whoever asked may be gone.
            let _ = wanted.send(self.notifier.around_reload(|| self.reloader.reload()));
        }
        self.reloader.current.server.drain_lead
    }
}

/// Runs until a signal or the admin API ends the server, then drains it. Returns what the next
/// program is to go on with, where one is.
pub(super) fn supervise(
    mut running: Running,
) -> Result<Option<HandOver>, Box<dyn Error + Send + Sync>> {
    let stop = &running.stop;
    let out = Drain {
        stop,
        shards: &running.shared,
        asking: running.drains.clone(),
        stay: Default::default(),
    };
    let upgrades = Upgrades {
        stop,
        shards: &running.shared,
        asking: running.upgrades.clone(),
        signals: Default::default(),
        begun: Default::default(),
    };
    let mut keeping = Housekeeping::new(
        &mut running.reloader,
        &running.notifier,
        stop,
        &running.reloads,
        running.hangups,
    );
    let mut lead = running.config.server.drain_lead;
    let mut ends = || {
        lead = keeping.turn();
        out.asked(lead) || running.shared.iter().any(|shard| shard.is_finished())
    };
    stop.wait(|| ends() || upgrades.asked(&running.config));
    let upgrade = upgrades.begun.get().is_some().then(|| {
        running.notifier.upgrading();
        upgrades.wait(&mut ends)
    });
    let upgrade = upgrade.flatten();
    if upgrade.is_some() {
        lead = Duration::ZERO;
    }
    let stopping = Instant::now();
    drain(&running.ready, &out, &mut keeping, lead, upgrade.is_some());
    end(running, stopping, upgrade)
}

/// Takes the server out of service, and waits until what is open is finished.
fn drain(
    ready: &Readiness,
    out: &Drain<'_>,
    keeping: &mut Housekeeping<'_>,
    lead: Duration,
    upgrading: bool,
) {
    ready.set_draining();
    let begun_to_stay = out.stays();
    if !begun_to_stay && !upgrading {
        keeping.notifier.stopping();
    }
    tracing::info!(lead_seconds = lead.as_secs_f64(), "draining");
    let enough = out.lead(lead, || {
        keeping.turn();
    });
    out.finish(enough);
    ready.set_closed();
    if out.stays() {
        keeping.notifier.exporting();
        tracing::info!("drained: exporting what is left until SIGTERM or `mailrace drain`");
        keeping.reloader.plane.flush().begin();
        out.hold(|| {
            keeping.turn();
        });
    }
    if begun_to_stay {
        keeping.notifier.stopping();
    }
}

/// Stops what still runs, the data directory's lock last.
fn end(
    running: Running,
    stopping: Instant,
    upgrade: Option<Begun>,
) -> Result<Option<HandOver>, Box<dyn Error + Send + Sync>> {
    let mut failed = None;
    for shard in running.shards {
        if let Err(error) = shard.join() {
            failed.get_or_insert(error);
        }
    }
    drop(running.watch);
    let unix_sockets = running.reloader.shut_down();
    if let Some(admin) = running.admin {
        admin.shut_down();
    }
    drop(running.watchdog);
    // The next program takes its lock.
    drop(running.data);
    tracing::info!(seconds = stopping.elapsed().as_millis() as f64 / 1e3, "stopped");
    if let Some(error) = failed {
        return Err(format!("a shard failed: {error}").into());
    }
    let Some(upgrade) = upgrade else { return Ok(None) };
    unix_sockets.into_iter().for_each(|mut socket| socket.leave_file());
    Ok(Some(HandOver {
        program: upgrade::program()?,
        id: upgrade.id,
        sockets: running.sockets,
        admin: running.config.server.admin_listen.zip(running.admin_kept),
    }))
}
