//! Starts what was prepared: the shards, retention, the admin plane, the exporters.

use std::{
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    flight,
    greeting::greet,
    hand_over::{Inherited, Sockets},
    listeners::{Bound, limits},
    notify::{Notifier, Watchdog},
    preflight,
    prepare::Prepared,
    refusals::RefusalLog,
    reload,
    retention::{Keeper, KeeperOptions},
    revision::revision,
    room,
    signals::Signals,
    standing::Standing,
    verdicts::Verdicts,
};
use crate::{
    admin::{
        self, AdminHandle, AdminState, DrainRequests, LogState, Readiness, ReloadRequests,
        UpgradeRequests,
    },
    config::{Config, plural},
    export,
    log::{self, DataDir, Fault, SyncPolicy},
    metrics::{DiskState, ExportMetrics, Published, RefusalMetrics},
    shard::{self, SharedState, trace::Traces},
};

/// How long a drain waits for transactions in progress (D16).
const DRAIN: Duration = Duration::from_secs(30);

/// Octets for glommio's registered buffers of one shard. It pins them three times, once for each of
/// its rings, and takes no less; the shard's own ring does without.
const IO_MEMORY: usize = 64 << 10;

/// A server that serves.
pub(super) struct Running {
    /// As it was started.
    pub(super) config: Config,
    pub(super) ready: Arc<Readiness>,
    pub(super) stop: Signals,
    pub(super) notifier: Notifier,
    pub(super) shards: Vec<shard::Handle>,
    pub(super) shared: Vec<Arc<SharedState>>,
    pub(super) watch: shard::Watch,
    pub(super) watchdog: Option<Watchdog>,
    pub(super) admin: Option<AdminHandle>,
    pub(super) reloader: reload::Reloader,
    pub(super) reloads: ReloadRequests,
    pub(super) drains: DrainRequests,
    pub(super) upgrades: UpgradeRequests,
    /// SIGHUP until it was ready: those after it ask for a reload.
    pub(super) hangups: usize,
    /// For the next program.
    pub(super) sockets: Vec<Sockets>,
    pub(super) admin_kept: Option<TcpListener>,
    /// The lock of the data directory.
    pub(super) data: DataDir,
}

impl Running {
    /// Says that the server serves; what the former program of this process left is taken.
    pub(super) fn report_ready(&mut self, inherited: Option<Inherited>) {
        self.reloader.taken_up();
        self.reloader.accepts_at_start();
        self.hangups = self.stop.hangups();
        let shards = plural(self.shards.len() as u64, "shard");
        self.notifier.ready(&format!("Serving with {shards}"));
        let Some(inherited) = inherited else { return };
        let upgraded = inherited.finish();
        match &upgraded.failed {
            None => tracing::info!(from = upgraded.from, "upgraded"),
            Some(why) => tracing::error!("the upgrade failed, the former program goes on: {why}"),
        }
        self.ready.set_upgraded(upgraded);
    }
}

/// Starts everything; the server serves when this returns.
pub(super) fn start(
    ready: Arc<Readiness>,
    mut prepared: Prepared,
) -> Result<Running, Box<dyn Error + Send + Sync>> {
    ready.set_not_durable(prepared.config.log.sync == SyncPolicy::None);
    let mut verdicts = verdicts_of(&prepared)?;
    let refusals = RefusalLog::start(
        &prepared.data.path,
        prepared.config.server.shards,
        prepared.config.log.refusals_size,
        RefusalMetrics::new(&prepared.dns),
    )?;
    let Shards { shards, published, traces, recovered, faults } =
        start_shards(&mut prepared, &refusals)?;
    verdicts.recovered(recovered);
    let Prepared { config, data, marks, dns, advisors, addresses, .. } = prepared;
    let shared: Vec<_> = shards.iter().map(|shard| shard.shared.clone()).collect();
    let recorders: Vec<_> = shared.iter().map(|shard| shard.recorder()).collect();
    flight::arm(&data.path, recorders.clone());
    let watch = shard::Watch::start(shared.clone())?;
    drop(addresses.held);
    ready.set_recovery(prepared.began.elapsed());
    ready.set_listening();
    let (metrics, waiters) = (ExportMetrics::new(), log::Waiters::default());
    room::tell_if_short(&config, &data.path, &prepared.disk, &shared);
    let disk_rule = room::DiskRule::new(&config);
    let keeper =
        keep(&config, &data.path, &shared, &marks, &metrics, &disk_rule, (faults, &ready))?;
    let watchdog = prepared.notifier.watchdog(published.clone())?;
    let (reloads, wanted_reloads) = crossbeam::channel::bounded(16);
    let (drains, wanted_drains) = crossbeam::channel::bounded(16);
    let (upgrades, wanted_upgrades) = crossbeam::channel::bounded(1);
    let (admin_kept, admin_socket) = prepared.admin.unzip();
    let (dir, low, probed) = (data.path.clone(), disk_rule.clone(), shared.clone());
    let state = AdminState {
        published,
        ready: ready.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: revision().to_owned(),
        disk: Box::new(move || low.facts(&dir, probed.iter().any(|shard| shard.disk_full()))),
        log: LogState {
            hosts: match config.server.admin_token_file {
                Some(_) => admin::Hosts::Any,
                None => admin::Hosts::Only(config.server.admin_hosts.clone().into()),
            },
            dir: data.path.clone(),
            marks: marks.clone(),
            waiters: waiters.clone(),
            metrics: metrics.clone(),
            // Known once it is bound.
            reference_url: String::new(),
        },
        export: metrics.clone(),
        token: prepared.admin_token,
        reloads,
        drains,
        upgrades,
        traces,
        recorders,
        dns: dns.clone(),
    };
    let admin = admin_socket.map(|socket| admin::start_on(socket, state)).transpose()?;
    let admin_address = admin.as_ref().map(|admin| admin.address());
    // Before the exporters, which wait for verdicts that may come.
    verdicts.set(&config, &accepts(&config, &addresses.listeners), &advisors)?;
    let plane = export::start(export::PlaneOptions {
        log: log::Log::open(&data.path)?,
        shards: u16::try_from(prepared.logs)?,
        marks,
        listener: prepared.mark_listener,
        exporters: exports(&config, admin_address),
        metrics: metrics.clone(),
        waiters,
        verdicts: verdicts.visible(),
    })?;
    greet(&config, &data, shards.len(), &addresses.listeners, admin_address);
    let reloader = reload::Reloader {
        started: config.clone(),
        current: config.clone(),
        in_force: config.clone(),
        listeners: addresses.listeners,
        shards: shared.clone(),
        plane,
        keeper,
        disk_rule,
        admin: admin_address,
        metrics,
        advisors,
        dns,
        accept_files: prepared.accept_files,
        unusable: reload::Unusable::default(),
        accept: Vec::new(),
        verdicts,
        refusals,
        standing: Standing::new(ready.clone()),
        ready: ready.clone(),
    };
    Ok(Running {
        config,
        ready,
        stop: prepared.stop,
        notifier: prepared.notifier,
        shards,
        shared,
        watch,
        watchdog,
        admin,
        reloader,
        reloads: wanted_reloads,
        drains: wanted_drains,
        upgrades: wanted_upgrades,
        hangups: 0,
        sockets: addresses.sockets,
        admin_kept,
        data,
    })
}

/// What judges mail. Sessions may wait for it as soon as there are any.
fn verdicts_of(prepared: &Prepared) -> io::Result<Verdicts> {
    let Prepared { config, data, marks, dns, advisors, addresses, .. } = prepared;
    let mut verdicts = Verdicts::new(config, &data.path, marks.clone(), dns.clone())?;
    verdicts.set_gate(config, &accepts(config, &addresses.listeners), advisors)?;
    Ok(verdicts)
}

/// Shards that run.
struct Shards {
    shards: Vec<shard::Handle>,
    published: Vec<Arc<Published>>,
    traces: Arc<Traces>,
    /// Ends of the logs before they take mail.
    recovered: Vec<u64>,
    /// Of all logs.
    faults: Vec<Fault>,
}

/// Recovers each shard's log, then starts the shard.
fn start_shards(
    prepared: &mut Prepared,
    refusals: &RefusalLog,
) -> Result<Shards, Box<dyn Error + Send + Sync>> {
    let mut faults = std::mem::take(&mut prepared.faults);
    for fault in &faults {
        tracing::error!("{fault}");
    }
    let (mut shards, mut published) = (Vec::new(), Vec::new());
    let traces = Arc::new(Traces::default());
    let mut recovered = Vec::new();
    let configured = prepared.config.server.shards;
    for number in 0..configured {
        let shard = u16::try_from(number).map_err(|_| "too many shards")?;
        let dir = prepared.data.make_shard(shard)?;
        let identity = log::Identity { node: prepared.data.node, shard };
        let recovery = recover(&prepared.data, &dir, identity)?;
        faults.extend(recovery.damage.iter().cloned());
        let slot = Published::new();
        let marks = &prepared.marks;
        marks.publish(shard, recovery.next_offset.get());
        let shared = SharedState::with_marks(slot.clone(), marks.clone(), shard);
        let shared = shared.traced_by(traces.clone()).keeps_refusals(refusals.queue(number));
        let shared = Arc::new(shared);
        recovered.push(recovery.next_offset.get());
        let options = options_of(prepared, shard, number);
        let listeners = listeners_of(prepared, number)?;
        match shard::spawn(options, listeners, identity, recovery, shared) {
            Ok(handle) => {
                shards.push(handle);
                published.push(slot);
            }
            Err(error) if !shards.is_empty() && preflight::is_memlock(&error.source) => {
                tracing::error!(
                    "only {number} of {configured} shards start: the locked-memory limit is used \
                     up ({error}); raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity",
                );
                prepared.addresses.forget_shards_from(number);
                break;
            }
            Err(error) => return Err(preflight::shard(&error).into()),
        }
    }
    Ok(Shards { shards, published, traces, recovered, faults })
}

/// Recovers the log of a shard, and reports what it found.
fn recover(
    data: &DataDir,
    dir: &Path,
    identity: log::Identity,
) -> Result<log::Recovery, Box<dyn Error + Send + Sync>> {
    let began = Instant::now();
    let mut recovery = log::recover(dir, identity)
        .map_err(|error| format!("recovery of {}: {error}", dir.display()))?;
    not_below_committed(&data.path, identity.shard, &mut recovery)?;
    tracing::info!(
        shard = identity.shard,
        next_offset = recovery.next_offset.get(),
        truncated_bytes = recovery.truncated_bytes,
        lost_records = recovery.lost_records,
        seconds = began.elapsed().as_millis() as f64 / 1e3,
        "recovered"
    );
    for notice in &recovery.notices {
        tracing::warn!("{notice}");
    }
    for fault in &recovery.damage {
        tracing::error!("{fault}");
    }
    Ok(recovery)
}

fn options_of(prepared: &Prepared, shard: u16, number: usize) -> shard::Options {
    let config = &prepared.config;
    shard::Options {
        log_dir: prepared.data.path.clone(),
        shard,
        core: config.server.cpus[number % config.server.cpus.len()],
        segment_bytes: config.log.segment_size,
        limits: limits(config),
        advisor: prepared.advisors.clone(),
        drain: DRAIN,
        sync: config.log.sync,
        abort_on_io_error: config.log.abort_on_io_error,
        io_memory: IO_MEMORY,
    }
}

/// What a shard listens with.
fn listeners_of(
    prepared: &mut Prepared,
    number: usize,
) -> Result<Vec<shard::Listener>, preflight::StartFailure> {
    let sockets = prepared.addresses.sockets_of(number)?;
    let listeners = prepared.addresses.listeners.iter().zip(sockets);
    let listeners = listeners.map(|(at, socket)| shard::Listener {
        name: at.name.clone(),
        socket,
        smtp: at.smtp.clone(),
        tls: at.tls.clone(),
        gate: at.gate.clone(),
    });
    Ok(listeners.collect())
}

/// Whose mail each listener takes, in the order of the configuration.
pub(super) fn accepts(config: &Config, bound: &[Bound]) -> reload::Accepts {
    let of = |name: &str| bound.iter().find(|bound| bound.name == name);
    let listeners = config.listeners.iter();
    listeners.map(|listener| of(&listener.name).and_then(|bound| bound.accept.clone())).collect()
}

/// The exporters, with the port that the admin listener has got where its own was 0.
pub(super) fn exports(config: &Config, admin: Option<SocketAddr>) -> Vec<export::ExportOptions> {
    let written = export::reference_url(config.server.admin_listen);
    let mut exports = config.exports.clone();
    for export in &mut exports {
        if export.document.reference_url == written {
            export.document.reference_url = export::reference_url(admin);
        }
    }
    exports
}

/// Starts retention.
fn keep(
    config: &Config,
    dir: &Path,
    shared: &[Arc<SharedState>],
    marks: &Arc<log::HighWaterMarks>,
    metrics: &ExportMetrics,
    low: &room::DiskRule,
    (faults, ready): (Vec<Fault>, &Arc<Readiness>),
) -> io::Result<Keeper> {
    let ready = ready.clone();
    let (path, low, shared) = (dir.to_owned(), low.clone(), shared.to_vec());
    Keeper::start(KeeperOptions {
        log: log::Log::open(dir)?,
        rules: config.log.retention,
        disk_low: Box::new(move || {
            low.facts(&path, false).is_some_and(|disk| disk.state != DiskState::Ok)
        }),
        segments_from: Box::new(move |shard| {
            // A shard that is not there: an earlier start had more of them.
            shared.get(usize::from(shard)).map_or(u64::MAX, |shard| shard.segments_from())
        }),
        marks: marks.clone(),
        told: config.exports.iter().map(|export| export.name.clone()).collect(),
        metrics: metrics.clone(),
        faults,
        report: Box::new(move |faults| {
            ready.set_faults(faults.iter().map(ToString::to_string).collect());
        }),
    })
}

/// An offset that a group has committed was given out: where the log ends before it, its end is lost,
/// manifest and all, and no offset may come to name something else.
fn not_below_committed(dir: &Path, shard: u16, recovery: &mut log::Recovery) -> io::Result<()> {
    let committed = crate::consumer::highest_committed(dir, shard)?;
    let end = recovery.next_offset.get();
    if committed > end {
        recovery.next_offset = log::Offset::new(committed);
        recovery.damage.push(Fault {
            shard,
            segment: 0,
            offset: end,
            kind: log::FaultKind::Missing,
            what: format!(
                "the log ends at offset {end}, but a consumer group has committed {committed}: \
                 records {end}..{committed} are missing; new mail gets offsets from {committed} on"
            ),
        });
    }
    Ok(())
}
