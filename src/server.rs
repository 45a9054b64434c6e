//! Builds, starts and drains both planes.

mod drain;
mod flight;
mod hand_over;
mod listeners;
mod logging;
mod notify;
pub mod preflight;
mod recipients;
mod reload;
mod revision;
mod room;
mod signals;
mod standing;
mod upgrade;
mod users;
mod verdicts;

use std::{
    error::Error,
    fs::OpenOptions,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    panic,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    hand_over::{HandOver, Inherited},
    listeners::{Bound, Place, advise, bind_addresses, limits},
    revision::revision,
    signals::Signals,
};
pub use self::{revision::set_revision, room::DiskRoom};
use crate::{
    admin::{self, AdminState, LogState, Readiness},
    config::{Config, DEFAULT_DIR, DEFAULT_LISTEN, RetentionConfig, plural},
    export,
    log::{self, DataDir, SyncPolicy},
    metrics::{DiskState, DnsMetrics, ExportMetrics, Published},
    policy::{Accept, Advisors},
    shard::{self, SharedState},
    smtp,
};

/// How often the operator is reminded that mail may be lost (D2).
const REMINDER: Duration = Duration::from_secs(60);

/// How often the files of certificates and users are looked at.
const FILES: Duration = Duration::from_secs(10);

/// How long a drain waits for transactions in progress (D16).
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the server until SIGTERM or SIGINT has been answered by a drain.
///
/// # Errors
/// What keeps it from starting, with the fix if one is known; a shard's failure.
pub fn run(config: Config) -> Result<(), Box<dyn Error + Send + Sync>> {
    let ready = Arc::new(Readiness::default());
    // Before there is any: each that a server needs is counted.
    let needed = preflight::threads_needed(&config);
    preflight::threads(needed)?;
    let logging = logging::start(&config.server, ready.clone())?;
    report_panics();
    signals::flush_before_abort()?;
    let mut inherited = Inherited::from_environment()?;
    let served = panic::AssertUnwindSafe(|| serve(config, ready, &mut inherited));
    // What it was is logged.
    let served = panic::catch_unwind(served)
        .unwrap_or_else(|_| Err("the server ended with an internal error".into()));
    let next = match served {
        Ok(next) => next,
        Err(error) => {
            let Some(inherited) = inherited else { return Err(error) };
            tracing::error!("the upgrade failed: {error}");
            drop(logging);
            return Err(inherited.go_back(&error.to_string()).into());
        }
    };
    drop(logging);
    next.map_or(Ok(()), |next| Err(next.execute().into()))
}

/// This program cannot be started as it was told to: if it came by an upgrade, the former one goes on,
/// and this does not return.
pub fn go_back(why: &str) {
    if let Ok(Some(inherited)) = Inherited::from_environment() {
        let error = inherited.go_back(why);
        let _ = writeln!(io::stderr(), "mailrace: {error}");
    }
}

/// Runs until a signal or the admin API ends it; returns what the next program is to go on with,
/// where one is. What the former program left is taken once this one serves.
fn serve(
    config: Config,
    ready: Arc<Readiness>,
    inherited: &mut Option<Inherited>,
) -> Result<Option<HandOver>, Box<dyn Error + Send + Sync>> {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    // First: what threads have allocated stays where it is.
    refuse_huge_pages();
    check_machine(&config)?;
    let users = config.open_users()?;
    let admin_token = config.admin_token()?;
    let data = DataDir::open(&config.log.dir)
        .map_err(|error| preflight::data_dir(&config.log.dir, &error))?;
    // Segments are opened with O_DIRECT whatever `log.sync` says.
    probe_direct_io(&data.path).map_err(|error| preflight::direct_io(&data.path, &error))?;
    for notice in &data.notices {
        tracing::warn!("{notice}");
    }
    export::save_hostname(&data.path, &config.server.hostname)
        .map_err(|error| format!("log.dir: {error}"))?;
    let stop = Signals::install()?;
    let notifier = notify::Notifier::from_environment()?;
    let accept_files = recipients::AcceptFiles::new(&config);
    let mut addresses = bind_addresses(&config, inherited.as_mut())?;
    let admin_socket = addresses.admin.take();
    let admin_kept = admin_socket.as_ref().map(|socket| socket.try_clone()).transpose()?;
    ready.set_not_durable(config.log.sync == SyncPolicy::None);
    let began = Instant::now();
    let left = left_shards(&data.path, config.server.shards)?;
    let logs = left.last().map_or(config.server.shards, |last| usize::from(*last) + 1);
    let (marks, mark_listener) = log::HighWaterMarks::new(logs);
    let marks = Arc::new(marks);
    let mut faults = Vec::new();
    for &shard in &left {
        faults.extend(log::Log::open(&data.path)?.faults(shard)?);
        marks.publish(shard, log::Log::open(&data.path)?.ends(shard)?.1);
    }
    let dns = DnsMetrics::new();
    let advisors = Arc::new(Advisors::default());
    advise(&advisors, &config, &dns)?;
    advisors.set_users(users::serve(users)?);
    let foretold = DiskRoom::after_start(&config, &data.path)?;
    let mut shards = Vec::new();
    let mut published = Vec::new();
    let traces = Arc::new(shard::trace::Traces::default());
    let mut recovered = Vec::new();
    for fault in &faults {
        tracing::error!("{fault}");
    }
    for number in 0..config.server.shards {
        let shard = u16::try_from(number).map_err(|_| "too many shards")?;
        let dir = data.make_shard(shard)?;
        let identity = log::Identity { node: data.node, shard };
        let recovering = Instant::now();
        let mut recovery = log::recover(&dir, identity)
            .map_err(|error| format!("recovery of {}: {error}", dir.display()))?;
        not_below_committed(&data.path, shard, &mut recovery)?;
        tracing::info!(
            shard,
            records = recovery.next_offset.get(),
            truncated_bytes = recovery.truncated_bytes,
            lost_records = recovery.lost_records,
            seconds = recovering.elapsed().as_millis() as f64 / 1e3,
            "recovered"
        );
        for notice in &recovery.notices {
            tracing::warn!("{notice}");
        }
        for fault in &recovery.damage {
            tracing::error!("{fault}");
        }
        faults.extend(recovery.damage.iter().cloned());
        let slot = Published::new();
        marks.publish(shard, recovery.next_offset.get());
        let shared = SharedState::with_marks(slot.clone(), marks.clone(), shard);
        let shared = Arc::new(shared.traced_by(traces.clone()));
        recovered.push(recovery.next_offset.get());
        let options = shard::Options {
            log_dir: data.path.clone(),
            shard,
            core: config.server.cpus[number % config.server.cpus.len()],
            segment_bytes: config.log.segment_size,
            limits: limits(&config),
            advisor: advisors.clone(),
            drain: DRAIN,
            sync: config.log.sync,
            abort_on_io_error: config.log.abort_on_io_error,
            io_memory: IO_MEMORY,
        };
        let mut listeners = Vec::new();
        let sockets = addresses.sockets_of(number)?;
        for (at, socket) in addresses.listeners.iter().zip(sockets) {
            listeners.push(shard::Listener {
                name: at.name.clone(),
                socket,
                smtp: at.smtp.clone(),
                tls: at.tls.clone(),
                gate: at.gate.clone(),
            });
        }
        match shard::spawn(options, listeners, identity, recovery, shared) {
            Ok(handle) => {
                shards.push(handle);
                published.push(slot);
            }
            Err(error) if !shards.is_empty() && preflight::is_memlock(&error.source) => {
                tracing::error!(
                    "only {number} of {} shards start: the locked-memory limit is used \
                     up ({error}); raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity",
                    config.server.shards
                );
                addresses.forget_shards_from(number);
                break;
            }
            Err(error) => return Err(preflight::shard(&error).into()),
        }
    }
    let shared: Vec<_> = shards.iter().map(|shard| shard.shared.clone()).collect();
    let recorders: Vec<_> = shared.iter().map(|shard| shard.recorder()).collect();
    flight::arm(&data.path, recorders.clone());
    let watch = shard::Watch::start(shared.clone())?;
    drop(addresses.held);
    ready.set_recovery(began.elapsed());
    ready.set_listening();
    let (metrics, bells) = (ExportMetrics::new(), export::Bells::default());
    room::tell_if_short(&config, &data.path, &foretold, &shared);
    let disk_rule = room::DiskRule::new(&config);
    let keeper =
        keep(&config, &data.path, &shared, &marks, &metrics, &disk_rule, (faults, &ready))?;
    let watchdog = notifier.watchdog(published.clone())?;
    let (reloads, wanted_reloads) = crossbeam::channel::bounded(16);
    let (drains, wanted_drains) = crossbeam::channel::bounded(16);
    let (upgrades, wanted_upgrades) = crossbeam::channel::bounded(1);
    let admin = match admin_socket {
        Some(socket) => {
            let (dir, low) = (data.path.clone(), disk_rule.clone());
            let shared = shared.clone();
            let state = AdminState {
                published,
                ready: ready.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                revision: revision().to_owned(),
                disk: Box::new(move || {
                    low.facts(&dir, shared.iter().any(|shard| shard.disk_full()))
                }),
                log: LogState {
                    hosts: match config.server.admin_token_file {
                        Some(_) => admin::Hosts::Any,
                        None => admin::Hosts::Only(config.server.admin_hosts.clone().into()),
                    },
                    dir: data.path.clone(),
                    marks: marks.clone(),
                    bells: bells.clone(),
                    metrics: metrics.clone(),
                    // Known once it is bound.
                    reference_url: String::new(),
                },
                export: metrics.clone(),
                token: admin_token,
                reloads,
                drains,
                upgrades,
                traces,
                recorders,
                dns: dns.clone(),
            };
            Some(admin::start_on(socket, state)?)
        }
        None => None,
    };
    let mut verdicts =
        verdicts::Verdicts::new(&config, &data.path, marks.clone(), recovered, dns.clone())?;
    // Before the exporters, which wait for verdicts that may come.
    verdicts.set(&config, &accepts(&config, &addresses.listeners))?;
    let exporters = export::start(export::PlaneOptions {
        log: log::Log::open(&data.path)?,
        shards: u16::try_from(logs)?,
        marks,
        listener: mark_listener,
        exporters: exports(&config, admin.as_ref().map(|admin| admin.address())),
        metrics: metrics.clone(),
        bells,
        verdicts: verdicts.visible(),
    })?;
    let names = addresses.listeners.iter().map(|at| format!("{} {}", at.name, at.place));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        shards = shards.len(),
        listeners = names.collect::<Vec<_>>().join(", "),
        dir = %data.path.display(),
        sync = config.log.sync.name(),
        "started"
    );
    greet(&config, &data, shards.len(), &addresses.listeners, admin.as_ref().map(|a| a.address()));
    let mut reloader = reload::Reloader {
        started: config.clone(),
        current: config.clone(),
        in_force: config.clone(),
        listeners: addresses.listeners,
        shards: shared.clone(),
        plane: exporters,
        keeper,
        disk_rule,
        admin: admin.as_ref().map(|admin| admin.address()),
        metrics,
        advisors: advisors.clone(),
        dns: dns.clone(),
        accept_files,
        unusable: reload::Unusable::default(),
        accept: Vec::new(),
        verdicts,
        standing: standing::Standing::new(ready.clone()),
        ready: ready.clone(),
    };
    let haste = reloader.plane.haste();
    reloader.taken_up();
    reloader.accepts_at_start();
    let serving = format!("Serving with {}", plural(shards.len() as u64, "shard"));
    let mut hangups = stop.hangups();
    notifier.ready(&serving);
    if let Some(inherited) = inherited.take() {
        let upgraded = inherited.finish();
        match &upgraded.failed {
            None => tracing::info!(from = upgraded.from, "upgraded"),
            Some(why) => tracing::error!("the upgrade failed, the former program goes on: {why}"),
        }
        ready.set_upgraded(upgraded);
    }
    let mut reminded = Instant::now();
    let mut looked = Instant::now();
    let mut housekeeping = || {
        if config.log.sync == SyncPolicy::None && reminded.elapsed() >= REMINDER {
            reminded = Instant::now();
            tracing::warn!("log.sync = \"none\": NOT durable, a power cut loses acknowledged mail");
        }
        if looked.elapsed() >= FILES {
            looked = Instant::now();
            reloader.look_at_files();
            reloader.look_at_standing();
        }
        reloader.look_at_recipients();
        if stop.hangups() != hangups {
            hangups = stop.hangups();
            // What came of it is told in the log.
            let _ = notifier.around_reload(|| reloader.reload());
        }
        while let Ok(wanted) = wanted_reloads.try_recv() {
            // Whoever asked may be gone.
            let _ = wanted.send(notifier.around_reload(|| reloader.reload()));
        }
        reloader.current.server.drain_lead
    };
    let out = drain::Drain {
        stop: &stop,
        shards: &shared,
        asking: wanted_drains,
        stay: Default::default(),
    };
    let upgrades = upgrade::Upgrades {
        stop: &stop,
        shards: &shared,
        asking: wanted_upgrades,
        signals: Default::default(),
        begun: Default::default(),
    };
    let mut lead = config.server.drain_lead;
    let mut ends = || {
        lead = housekeeping();
        out.asked(lead) || shared.iter().any(|shard| shard.is_finished())
    };
    stop.wait(|| ends() || upgrades.asked(&config));
    let upgrade = upgrades.begun.get().is_some().then(|| {
        notifier.upgrading();
        upgrades.wait(&mut ends)
    });
    let upgrade = upgrade.flatten();
    if upgrade.is_some() {
        lead = Duration::ZERO;
    }
    ready.set_draining();
    let begun_to_stay = out.stays();
    if !begun_to_stay && upgrade.is_none() {
        notifier.stopping();
    }
    let stopping = Instant::now();
    tracing::info!(lead_seconds = lead.as_secs_f64(), "draining");
    let enough = out.lead(lead, || {
        housekeeping();
    });
    out.finish(enough);
    ready.set_closed();
    if out.stays() {
        notifier.exporting();
        tracing::info!("drained: exporting what is left until SIGTERM or `mailrace drain`");
        haste.begin();
        out.hold(|| {
            housekeeping();
        });
    }
    if begun_to_stay {
        notifier.stopping();
    }
    let mut failed = None;
    for shard in shards {
        if let Err(error) = shard.join() {
            failed.get_or_insert(error);
        }
    }
    drop(watch);
    let unix_sockets = reloader.shut_down();
    if let Some(admin) = admin {
        admin.shut_down();
    }
    drop(watchdog);
    tracing::info!(seconds = stopping.elapsed().as_millis() as f64 / 1e3, "stopped");
    if let Some(error) = failed {
        return Err(format!("a shard failed: {error}").into());
    }
    let Some(upgrade) = upgrade else { return Ok(None) };
    unix_sockets.into_iter().for_each(|mut socket| socket.leave_file());
    Ok(Some(HandOver {
        program: upgrade::program()?,
        id: upgrade.id,
        sockets: addresses.sockets,
        admin: config.server.admin_listen.zip(admin_kept),
    }))
}

/// Shards of an earlier start that this one does not run: nothing is added to their logs, and what
/// is in them is still exported.
fn left_shards(dir: &Path, running: usize) -> io::Result<Vec<u16>> {
    let mut shards = log::Log::open(dir)?.shards()?;
    shards.retain(|shard| usize::from(*shard) >= running);
    Ok(shards)
}

/// An offset that a group has committed was given out: where the log ends before it, its end is lost,
/// manifest and all, and no offset may come to name something else.
fn not_below_committed(dir: &Path, shard: u16, recovery: &mut log::Recovery) -> io::Result<()> {
    let committed = crate::consumer::highest_committed(dir, shard)?;
    let end = recovery.next_offset.get();
    if committed > end {
        recovery.next_offset = log::Offset::new(committed);
        recovery.damage.push(log::Fault {
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

/// Whose mail each listener takes, in the order of the configuration.
fn accepts(config: &Config, bound: &[Bound]) -> reload::Accepts {
    let of = |name: &str| bound.iter().find(|bound| bound.name == name);
    let listeners = config.listeners.iter();
    listeners.map(|listener| of(&listener.name).and_then(|bound| bound.accept.clone())).collect()
}

/// The exporters, with the port that the admin listener has got where its own was 0.
fn exports(config: &Config, admin: Option<SocketAddr>) -> Vec<export::ExportOptions> {
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
    (faults, ready): (Vec<log::Fault>, &Arc<Readiness>),
) -> io::Result<export::Keeper> {
    let ready = ready.clone();
    let (path, low, shared) = (dir.to_owned(), low.clone(), shared.to_vec());
    export::Keeper::start(export::KeeperOptions {
        log: log::Log::open(dir)?,
        rules: retention(config),
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

fn retention(config: &Config) -> log::Rules {
    let RetentionConfig { age, size, require_consumed, retain_after_export, hold } =
        config.log.retention;
    log::Rules { age, size, require_consumed, retain_after_export, hold }
}

fn greet(
    config: &Config,
    data: &DataDir,
    shards: usize,
    listeners: &[Bound],
    admin: Option<SocketAddr>,
) {
    let mut out = io::stdout().lock();
    let shards = plural(shards as u64, "shard");
    let _ = writeln!(
        out,
        "mailrace {} ({})   {shards}   io_uring ok   sync={}   data {}{}",
        env!("CARGO_PKG_VERSION"),
        revision(),
        config.log.sync.name(),
        data.path.display(),
        if data.fresh { " (new)" } else { "" },
    );
    for Bound { place, smtp, accept, .. } in listeners {
        let tls = match smtp.tls {
            smtp::TlsPolicy::Off => "",
            smtp::TlsPolicy::Offered => ", STARTTLS",
            smtp::TlsPolicy::Required => ", STARTTLS required",
            smtp::TlsPolicy::Implicit => ", implicit TLS",
        };
        let spoken = match smtp.protocol {
            smtp::Protocol::Lmtp => "lmtp",
            smtp::Protocol::Smtp | smtp::Protocol::Refuse => "smtp",
        };
        let what = match (accept, config.file()) {
            _ if smtp.protocol == smtp::Protocol::Refuse => "refuses mail (521)".to_owned(),
            (Some(accept), _) => whose_mail(accept),
            (None, Some(_)) => "any recipient accepted".to_owned(),
            (None, None) => {
                "any recipient accepted (no config file: development defaults)".to_owned()
            }
        };
        let _ = writeln!(out, "  {spoken}    {place}             {what}{tls}");
    }
    if let Some(admin) = admin {
        let _ = writeln!(out, "  admin   http://{admin}/     /metrics, /healthz, /readyz");
    }
    let first = listeners.iter().find_map(|at| match (&at.place, at.smtp.protocol) {
        (Place::Tcp(address), smtp::Protocol::Smtp) => Some(address),
        _ => None,
    });
    let mut next = "Next:";
    let mut tell = |command: String, what: &str| {
        let _ = writeln!(out, "{next:<7} {command:<55} {what}");
        next = "";
    };
    if let Some(address) = first {
        tell(format!("swaks --server {address} --to you@example.test"), "send one message");
    }
    let dir = data.path.display();
    let tail = match &config.log.dir {
        dir if dir == Path::new(DEFAULT_DIR) => "mailrace log tail -f".to_owned(),
        _ => format!("mailrace log --dir {dir} tail -f"),
    };
    tell(tail, "watch it arrive");
    if let Some(address) = first {
        let bench = match address.to_string().as_str() {
            DEFAULT_LISTEN => "mailrace bench".to_owned(),
            address => format!("mailrace bench smtp://{address}"),
        };
        tell(bench, "10 s load test against this server");
    }
    if config.file().is_none() {
        let init = "mailrace config init > mailrace.toml";
        let _ = writeln!(out, "        {init:<55} start a real configuration");
    }
    if config.log.sync == SyncPolicy::None {
        let _ = writeln!(out, "NOT DURABLE: log.sync = \"none\"; a crash loses acknowledged mail");
    }
    let _ = out.flush();
}

/// `mail for 2 domains, 10 recipients`
fn whose_mail(accept: &Accept) -> String {
    let count = |number: usize, what| plural(number as u64, what);
    let domains = accept.domains().map(|number| count(number, "domain"));
    let recipients = accept.recipients().map(|number| count(number, "recipient"));
    match (domains, recipients) {
        (None, None) => "any recipient accepted".to_owned(),
        (None, Some(recipients)) => format!("mail for {recipients}"),
        (Some(domains), None) => format!("mail for {domains}, any recipient"),
        (Some(domains), Some(recipients)) => format!("mail for {domains}, {recipients}"),
    }
}

/// Octets for glommio's registered buffers of one shard. It pins them three times, once for each of
/// its rings, and takes no less; the shard's own ring does without.
const IO_MEMORY: usize = 64 << 10;

/// A registered buffer that lies in a huge page pins all of it: 2 MiB of an ordinary user's 8 MiB
/// of locked memory, three times for each shard.
fn refuse_huge_pages() {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Looks for whatever of the machine keeps the server from running, before anything is started.
fn check_machine(config: &Config) -> Result<(), preflight::StartFailure> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    preflight::kernel(&release)?;
    // Connections are descriptors, and rings lock memory.
    let descriptors = raise_limit(libc::RLIMIT_NOFILE);
    let memlock = raise_limit(libc::RLIMIT_MEMLOCK);
    preflight::descriptors(descriptors, preflight::descriptors_of(config))?;
    preflight::memlock(memlock)?;
    preflight::rings()?;
    if config.log.sync != SyncPolicy::None {
        preflight::file_system(&config.log.dir)?;
    }
    Ok(())
}

/// D2: refuses a file system that cannot write blocks of 4,096 octets with O_DIRECT and sync them.
fn probe_direct_io(dir: &Path) -> io::Result<()> {
    let path = dir.join(".probe");
    let probed = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .and_then(|file| log::fill_zeros(&file, 0, 4096).and_then(|()| file.sync_data()));
    let _ = std::fs::remove_file(&path);
    probed
}

/// Raises a soft limit to the hard one, and returns what it is then.
fn raise_limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the answer, then a read of it.
    unsafe {
        if libc::getrlimit(resource, &raw mut limit) != 0 {
            return u64::MAX;
        }
        let hard = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        match libc::setrlimit(resource, &raw const hard) {
            0 => hard.rlim_cur,
            _ => limit.rlim_cur,
        }
    }
}

/// A panic is a defect of ours: a line in the log, whichever thread it happens on. It does not wait
/// for that line: a session's panic is caught on its shard's thread, which has others to serve
/// (D17). A panic that ends the process does so by SIGABRT, and that one waits.
fn report_panics() {
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("no text");
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!("internal error, please report it: {text} ({at}, thread {thread})");
        flight::after_panic();
    }));
}

#[cfg(test)]
mod tests;
