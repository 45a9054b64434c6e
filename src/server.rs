//! Builds, starts and drains both planes.

mod reload;

use std::{
    error::Error,
    fs::OpenOptions,
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    admin::{self, AdminState, LogState, Readiness},
    config::{
        AuthMechanism, Config, DEFAULT_DIR, DEFAULT_LISTEN, DiskLow, LineEnds, ListenerConfig,
        Network, Protocol, RetentionConfig, SyncMode, TlsMode,
    },
    export,
    log::{self, DataDir, SyncPolicy},
    metrics::{DiskFacts, DiskState, DnsMetrics, ExportMetrics, Published},
    policy::{Accept, Advisors, dns::ClientAdvisor},
    shard::{self, Gate, Peers, SharedState},
    smtp, tls,
};

/// Of the source, as `build.rs` found it.
const REVISION: &str = env!("BUILD_REVISION");

/// How often the operator is reminded that mail may be lost (D2).
const REMINDER: Duration = Duration::from_secs(60);

/// How often the files of certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(10);

/// How long a client's answer may be on its way from the advisor's deadline to the shard.
const ADVICE_GRACE: Duration = Duration::from_millis(500);

/// How long a drain waits for transactions in progress (D16).
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the server until SIGTERM or SIGINT has been answered by a drain.
///
/// # Errors
/// Whatever keeps it from starting, with the cure where one is known; a shard's failure.
pub fn run(config: Config) -> Result<(), Box<dyn Error + Send + Sync>> {
    let ready = Arc::new(Readiness::default());
    init_tracing(ready.clone());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    require_kernel(&release)?;
    raise_descriptor_limit();
    refuse_huge_pages();
    let data = DataDir::open(&config.log.dir)
        .map_err(|error| format!("log.dir {}: {error}", config.log.dir.display()))?;
    if config.log.sync != SyncMode::None {
        probe_direct_io(&data.path)?;
    }
    let stop = Signals::install()?;
    let addresses = bind_addresses(&config)?;
    ready.set_not_durable(config.log.sync == SyncMode::None);
    let began = Instant::now();
    let left = left_shards(&data.path, config.server.shards)?;
    let logs = left.last().map_or(config.server.shards, |last| usize::from(*last) + 1);
    let (marks, mark_listener) = log::HighWaterMarks::new(logs);
    let marks = Arc::new(marks);
    for &shard in &left {
        marks.publish(shard, log::Log::open(&data.path)?.ends(shard)?.1);
    }
    let dns = DnsMetrics::new();
    let advisors = Arc::new(Advisors::default());
    advise(&advisors, &config, &dns)?;
    let mut shards = Vec::new();
    let mut published = Vec::new();
    for number in 0..config.server.shards {
        let shard = u16::try_from(number).map_err(|_| "too many shards")?;
        let dir = data.make_shard(shard)?;
        let identity = log::Identity { node: data.node, shard };
        let recovery = log::recover(&dir, identity)
            .map_err(|error| format!("recovery of {}: {error}", dir.display()))?;
        for damage in &recovery.damage {
            tracing::error!("{damage}");
        }
        let slot = Published::new();
        marks.publish(shard, recovery.next_offset.get());
        let shared = Arc::new(SharedState::with_marks(slot.clone(), marks.clone(), shard));
        let options = shard::Options {
            log_dir: data.path.clone(),
            shard,
            core: config.server.cpus[number % config.server.cpus.len()],
            segment_bytes: config.log.segment_size,
            limits: limits(&config),
            advisor: advisors.clone(),
            drain: DRAIN,
            sync: match config.log.sync {
                SyncMode::Group => SyncPolicy::Group,
                SyncMode::Each => SyncPolicy::Each,
                SyncMode::None => SyncPolicy::None,
            },
            abort_on_io_error: config.log.abort_on_io_error,
            io_memory: IO_MEMORY,
        };
        let mut listeners = Vec::new();
        for at in &addresses.listeners {
            listeners.push(shard::Listener {
                name: at.name.clone(),
                socket: shard::listen(at.address)?,
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
            Err(error) if !shards.is_empty() && is_memlock(&error.source) => {
                eprintln!(
                    "mailrace: only {number} of {} shards start: the locked-memory limit is used \
                     up ({error}); raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity",
                    config.server.shards
                );
                break;
            }
            Err(error) => return Err(explain(&error).into()),
        }
    }
    let shared: Vec<_> = shards.iter().map(|shard| shard.shared.clone()).collect();
    let watch = shard::Watch::start(shared.clone())?;
    drop(addresses.held);
    ready.set_recovery(began.elapsed());
    ready.set_listening();
    let (metrics, bells) = (ExportMetrics::new(), export::Bells::default());
    let disk_rule = reload::DiskRule::new(config.log.disk_low);
    let keeper = keep(&config, &data.path, &shared, &marks, &metrics, &disk_rule)?;
    let (reloads, wanted_reloads) = crossbeam::channel::bounded(16);
    let admin = match config.server.admin_listen {
        Some(address) => {
            let (dir, low) = (data.path.clone(), disk_rule.clone());
            let shared = shared.clone();
            let state = AdminState {
                published,
                ready: ready.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                revision: REVISION.to_owned(),
                disk: Box::new(move || {
                    disk_facts(&dir, low.get(), shared.iter().any(|s| s.disk_full()))
                }),
                log: LogState {
                    dir: data.path.clone(),
                    marks: marks.clone(),
                    bells: bells.clone(),
                    metrics: metrics.clone(),
                    // Known once it is bound.
                    reference_url: String::new(),
                },
                export: metrics.clone(),
                token: config.server.admin_token_file.as_deref().map(admin_token).transpose()?,
                reloads,
                dns: dns.clone(),
            };
            Some(admin::start(address, state)?)
        }
        None => None,
    };
    let exporters = export::start(export::PlaneOptions {
        log: log::Log::open(&data.path)?,
        shards: u16::try_from(logs)?,
        marks,
        listener: mark_listener,
        exporters: exports(&config, admin.as_ref().map(|admin| admin.address())),
        metrics: metrics.clone(),
        bells,
    })?;
    greet(&config, &data, shards.len(), &addresses.listeners, admin.as_ref().map(|a| a.address()));
    let mut reloader = reload::Reloader {
        started: config.clone(),
        current: config.clone(),
        listeners: addresses.listeners,
        shards: shared.clone(),
        plane: exporters,
        keeper,
        disk_rule,
        admin: admin.as_ref().map(|admin| admin.address()),
        metrics,
        advisors: advisors.clone(),
        dns: dns.clone(),
    };
    reloader.taken_up();
    let mut hangups = stop.hangups();
    let mut reminded = Instant::now();
    let mut looked = Instant::now();
    stop.wait(|| {
        if config.log.sync == SyncMode::None && reminded.elapsed() >= REMINDER {
            reminded = Instant::now();
            tracing::warn!("log.sync = \"none\": NOT durable, a power cut loses acknowledged mail");
        }
        if looked.elapsed() >= CERTIFICATES {
            looked = Instant::now();
            reloader.listeners.iter().for_each(reload_certificates);
        }
        if stop.hangups() != hangups {
            hangups = stop.hangups();
            // What came of it is told in the log.
            let _ = reloader.reload();
        }
        while let Ok(wanted) = wanted_reloads.try_recv() {
            // Whoever asked may be gone.
            let _ = wanted.send(reloader.reload());
        }
        shards.iter().any(|shard| shard.shared.is_finished())
    });
    ready.set_draining();
    for shard in &shards {
        shard.shared.ask_to_drain();
    }
    // A second signal: whoever gave it does not want to wait.
    let wanted = stop.count() + 1;
    while !shared.iter().all(|shard| shard.is_finished()) {
        if stop.count() >= wanted {
            shared.iter().for_each(|shard| shard.ask_to_hurry());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut failed = None;
    for shard in shards {
        if let Err(error) = shard.join() {
            failed.get_or_insert(error);
        }
    }
    drop(watch);
    reloader.shut_down();
    if let Some(admin) = admin {
        admin.shut_down();
    }
    failed.map_or(Ok(()), |error| Err(format!("a shard failed: {error}").into()))
}

/// Shards of an earlier start that this one does not run: nothing is added to their logs, and what
/// is in them is still exported.
fn left_shards(dir: &Path, running: usize) -> io::Result<Vec<u16>> {
    let mut shards = log::Log::open(dir)?.shards()?;
    shards.retain(|shard| usize::from(*shard) >= running);
    Ok(shards)
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
    low: &reload::DiskRule,
) -> io::Result<export::Keeper> {
    let (path, low, shared) = (dir.to_owned(), low.clone(), shared.to_vec());
    export::Keeper::start(export::KeeperOptions {
        log: log::Log::open(dir)?,
        rules: retention(config),
        disk_low: Box::new(move || {
            disk_facts(&path, low.get(), false).is_some_and(|disk| disk.state == DiskState::Low)
        }),
        segments_from: Box::new(move |shard| {
            // A shard that is not there: an earlier start had more of them.
            shared.get(usize::from(shard)).map_or(u64::MAX, |shard| shard.segments_from())
        }),
        marks: marks.clone(),
        told: config.exports.iter().map(|export| export.name.clone()).collect(),
        metrics: metrics.clone(),
    })
}

fn retention(config: &Config) -> log::Rules {
    let RetentionConfig { age, size, require_consumed, retain_after_export, hold } =
        config.log.retention;
    log::Rules { age, size, require_consumed, retain_after_export, hold }
}

/// The token that admin requests must bring.
fn admin_token(file: &Path) -> Result<String, String> {
    let bad = |what: String| format!("server.admin.token_file {}: {what}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(bad("it is empty".to_owned())),
        token => Ok(token.to_owned()),
    }
}

fn greet(
    config: &Config,
    data: &DataDir,
    shards: usize,
    listeners: &[Bound],
    admin: Option<SocketAddr>,
) {
    let mut out = io::stdout().lock();
    let plural = if shards == 1 { "" } else { "s" };
    let _ = writeln!(
        out,
        "mailrace {} ({})   {shards} shard{plural}   io_uring ok   sync={}   data {}{}",
        env!("CARGO_PKG_VERSION"),
        REVISION,
        config.log.sync.name(),
        data.path.display(),
        if data.fresh { " (new)" } else { "" },
    );
    for Bound { address, smtp, accept, .. } in listeners {
        let tls = match smtp.tls {
            smtp::TlsPolicy::Off => "",
            smtp::TlsPolicy::Offered => ", STARTTLS",
            smtp::TlsPolicy::Required => ", STARTTLS required",
            smtp::TlsPolicy::Implicit => ", implicit TLS",
        };
        let what = match (accept, config.file()) {
            (Some(accept), _) => whose_mail(accept),
            (None, Some(_)) => "any recipient accepted".to_owned(),
            (None, None) => {
                "any recipient accepted (no config file: development defaults)".to_owned()
            }
        };
        let _ = writeln!(out, "  smtp    {address}             {what}{tls}");
    }
    if let Some(admin) = admin {
        let _ = writeln!(out, "  admin   http://{admin}/     /metrics, /healthz, /readyz");
    }
    if let Some(Bound { address, .. }) = listeners.first() {
        let swaks = format!("swaks --server {address} --to you@example.test");
        let _ = writeln!(out, "Next:   {swaks:<55} send one message");
        let dir = data.path.display();
        let tail = match &config.log.dir {
            dir if dir == Path::new(DEFAULT_DIR) => "mailrace log tail -f".to_owned(),
            _ => format!("mailrace log --dir {dir} tail -f"),
        };
        let _ = writeln!(out, "        {tail:<55} watch it arrive");
        let bench = match address.to_string().as_str() {
            DEFAULT_LISTEN => "mailrace bench".to_owned(),
            address => format!("mailrace bench smtp://{address}"),
        };
        let _ = writeln!(out, "        {bench:<55} 10 s load test against this server");
    }
    if config.file().is_none() {
        let init = "mailrace config init > mailrace.toml";
        let _ = writeln!(out, "        {init:<55} start a real configuration");
    }
    if config.log.sync == SyncMode::None {
        let _ = writeln!(out, "NOT DURABLE: log.sync = \"none\"; a crash loses acknowledged mail");
    }
    let _ = out.flush();
}

/// `mail for 2 domains, 10 recipients`
fn whose_mail(accept: &Accept) -> String {
    let count =
        |number: usize, what| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let domains = accept.domains().map(|number| count(number, "domain"));
    let recipients = accept.recipients().map(|number| count(number, "recipient"));
    match (domains, recipients) {
        (None, None) => "any recipient accepted".to_owned(),
        (None, Some(recipients)) => format!("mail for {recipients}"),
        (Some(domains), None) => format!("mail for {domains}, any recipient"),
        (Some(domains), Some(recipients)) => format!("mail for {domains}, {recipients}"),
    }
}

struct Addresses {
    listeners: Vec<Bound>,
    /// Keeps the ports the kernel picked until the shards listen there.
    held: Vec<TcpListener>,
}

/// An address that the shards listen on.
struct Bound {
    name: String,
    address: SocketAddr,
    smtp: Arc<smtp::Config>,
    tls: Option<Arc<tls::Config>>,
    gate: Arc<Gate>,
    accept: Option<Arc<Accept>>,
}

fn bind_addresses(config: &Config) -> Result<Addresses, Box<dyn Error + Send + Sync>> {
    let mut found = Addresses { listeners: Vec::new(), held: Vec::new() };
    let accept = config.load_accept()?;
    for (listener, accept) in config.listeners.iter().zip(accept) {
        let certificates = config.certificates(listener);
        let tls = match certificates.as_slice() {
            [] => None,
            files => {
                let tls = tls::Config::new(files, &listener.tls_demands());
                let tls = tls.map_err(|error| format!("listener {}: {error}", listener.name))?;
                Some(Arc::new(tls))
            }
        };
        let (smtp, gate) = listener_settings(config, listener, accept.clone(), tls.is_some());
        let bound = |address| Bound {
            name: listener.name.clone(),
            address,
            smtp: smtp.clone(),
            tls: tls.clone(),
            gate: gate.clone(),
            accept: accept.clone(),
        };
        for address in &listener.listen {
            let bad = |error: io::Error| format!("cannot listen on {address}: {error}");
            if address.port() != 0 {
                // A plain bind tells whether another program has it: SO_REUSEPORT would share it.
                drop(TcpListener::bind(address).map_err(bad)?);
                found.listeners.push(bound(*address));
                continue;
            }
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(*address),
                socket2::Type::STREAM,
                None,
            )
            .and_then(|socket| {
                socket.set_reuse_port(true)?;
                socket.bind(&(*address).into())?;
                Ok(socket)
            })
            .map_err(bad)?;
            let held: TcpListener = socket.into();
            found.listeners.push(bound(held.local_addr().map_err(bad)?));
            found.held.push(held);
        }
    }
    Ok(found)
}

/// What sessions of a listener go by.
fn listener_settings(
    config: &Config,
    listener: &ListenerConfig,
    accept: Option<Arc<Accept>>,
    tls: bool,
) -> (Arc<smtp::Config>, Arc<Gate>) {
    let mut smtp = smtp_config(config, listener, tls);
    smtp.recipients = accept.map(|accept| smtp::Recipients(accept));
    (Arc::new(smtp), Arc::new(gate(config, listener)))
}

fn smtp_config(config: &Config, listener: &ListenerConfig, tls: bool) -> smtp::Config {
    let mut smtp = smtp::Config { hostname: config.server.hostname.clone(), ..Default::default() };
    smtp.limits.message_bytes = config.limits.message_size;
    smtp.limits.recipients_max = config.limits.recipients;
    smtp.limits.command_wait = config.limits.timeout_command;
    smtp.limits.data_time = config.limits.timeout_data;
    smtp.limits.handshake_wait = config.limits.timeout_handshake;
    smtp.limits.session_time = config.limits.timeout_session;
    smtp.limits.commit_wait = config.limits.timeout_commit;
    smtp.limits.session_messages = count(config.limits.session_messages);
    smtp.limits.rcpts_per_session = count(config.limits.session_recipients);
    smtp.limits.errors_soft = count(config.limits.errors_soft);
    smtp.limits.errors_hard = count(config.limits.errors_hard);
    smtp.limits.auth_failures = count(config.limits.auth_failures);
    smtp.limits.junk_max = count(config.limits.junk);
    smtp.limits.data_rate_min_bytes = config.limits.data_rate_min;
    smtp.limits.data_rate_grace = config.limits.data_rate_grace;
    smtp.limits.content_line_bytes = config.limits.content_line as usize;
    smtp.limits.header_scan_bytes = config.limits.header_scan as usize;
    smtp.limits.received_max = config.limits.received;
    smtp.limits.bdat_chunks_max = count(config.limits.bdat_chunks);
    smtp.protocol = match listener.protocol {
        Protocol::Smtp => smtp::Protocol::Smtp,
        Protocol::Lmtp => smtp::Protocol::Lmtp,
        Protocol::Refuse => smtp::Protocol::Refuse,
    };
    let offers = |mechanism| listener.auth.mechanisms.contains(&mechanism);
    smtp.auth = smtp::Auth {
        plain: offers(AuthMechanism::Plain),
        login: offers(AuthMechanism::Login),
        scram_sha_256: offers(AuthMechanism::ScramSha256),
        scram_sha_256_plus: offers(AuthMechanism::ScramSha256Plus),
        external: offers(AuthMechanism::External),
        required: listener.auth.required,
    };
    smtp.greet_check = listener.greet_check;
    smtp.low_priority = listener.low_priority;
    smtp.dsn = listener.dsn;
    smtp.require_tls = listener.require_tls;
    smtp.mt_priority = listener.mt_priority;
    smtp.tls = match listener.tls_mode {
        _ if !tls => smtp::TlsPolicy::Off,
        TlsMode::Off => smtp::TlsPolicy::Off,
        TlsMode::Starttls => smtp::TlsPolicy::Offered,
        TlsMode::Required => smtp::TlsPolicy::Required,
        TlsMode::Implicit => smtp::TlsPolicy::Implicit,
    };
    smtp.line_ends = match listener.line_ends {
        LineEnds::Reject => smtp::LineEnds::Reject,
        LineEnds::Normalize => smtp::LineEnds::Normalize,
        LineEnds::Allow => smtp::LineEnds::Allow,
    };
    smtp
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Serves what is in the files of certificates now.
fn reload_certificates(listener: &Bound) {
    for outcome in listener.tls.iter().flat_map(|tls| tls.reload()) {
        let listener = &listener.name;
        match outcome {
            Ok(files) => {
                let file = files.cert_file.display();
                tracing::info!("listener {listener}: new certificate from {file}");
            }
            Err(error) => tracing::error!(
                "listener {listener}: {error}; the certificate so far is still served"
            ),
        }
    }
}

fn peers(networks: &[Network]) -> Peers {
    let networks = networks.to_vec();
    Peers(Arc::new(move |peer| networks.iter().any(|network| network.contains(peer))))
}

fn limits(config: &Config) -> shard::Limits {
    let shards = config.server.shards;
    shard::Limits {
        connections_max: config.limits.connections_total.div_ceil(shards),
        inflight_bytes: config.limits.inflight_bytes / shards as u64,
        disk_low: disk_low(config),
        exempt: peers(&config.limits.exempt),
        sessions_per_address: config.limits.connections_per_ip.map(count),
        session_rate_per_address: config.limits.connection_rate_per_ip,
        auth_failures_per_address: config.limits.auth_failures_per_ip,
        shards: count(shards),
        handshakes_max: config.limits.handshakes,
    }
}

fn gate(config: &Config, listener: &ListenerConfig) -> Gate {
    Gate {
        proxies: listener.proxies.as_deref().map(peers),
        proxy_wait: config.limits.timeout_proxy,
        xclient: (!listener.xclient.is_empty()).then(|| peers(&listener.xclient)),
        greet_delay: listener.greet_delay,
        asks: !listener.dns.lists.is_empty() || listener.dns.reverse,
        advice_wait: listener.dns.deadline + ADVICE_GRACE,
    }
}

/// Has the advisors go by this configuration; threads are started where it needs them.
fn advise(advisors: &Advisors, config: &Config, dns: &DnsMetrics) -> io::Result<()> {
    let asks = config.listeners.iter().filter(|listener| gate(config, listener).asks);
    let rules: Vec<_> =
        asks.map(|listener| (listener.name.clone(), listener.dns.clone())).collect();
    match advisors.clients() {
        Some(clients) => clients.set_rules(rules),
        None if rules.is_empty() => Ok(()),
        None => {
            let servers = &config.server.dns_servers;
            advisors.set_clients(ClientAdvisor::start(servers, rules, dns.clone())?);
            Ok(())
        }
    }
}

/// D9: room for two segments a shard, and for one and a half messages.
fn disk_low(config: &Config) -> u64 {
    let segments = 2 * config.log.segment_size * config.server.shards as u64;
    segments.max(config.limits.message_size / 2 * 3)
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

/// The rings need DEFER_TASKRUN of Linux 6.1.
fn require_kernel(release: &str) -> Result<(), String> {
    let mut numbers = release.trim().split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 1) => {
            Err(format!("Linux {major}.{minor} is too old: 6.1 or later is needed (io_uring)"))
        }
        _ => Ok(()),
    }
}

fn is_memlock(error: &io::Error) -> bool {
    let text = error.to_string();
    // glommio tells of the second and third as a text only.
    error.raw_os_error() == Some(libc::ENOMEM)
        || text.contains("os error 12")
        || text.contains("MemLockLimit")
}

fn explain(error: &shard::StartError) -> String {
    let cure = match error.source.raw_os_error() {
        Some(libc::EPERM) => {
            "; io_uring is blocked: see sysctl kernel.io_uring_disabled, or allow \
                              io_uring_setup in the container's seccomp profile"
        }
        _ if is_memlock(&error.source) => {
            "; raise the locked-memory limit: ulimit -l unlimited, or LimitMEMLOCK=infinity"
        }
        Some(libc::EINVAL | libc::ENOSYS) => "; Linux 6.1 or newer is needed",
        _ => "",
    };
    format!("{error}{cure}; `mailrace doctor` tells more")
}

/// D2: refuses a file system that cannot write blocks of 4,096 octets with O_DIRECT and sync them.
fn probe_direct_io(dir: &Path) -> Result<(), String> {
    let path = dir.join(".probe");
    let probed = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .and_then(|file| log::fill_zeros(&file, 0, 4096).and_then(|()| file.sync_data()));
    let _ = std::fs::remove_file(&path);
    probed.map_err(|error| {
        let cure = match error.raw_os_error() {
            Some(libc::EINVAL) => {
                "no O_DIRECT in blocks of 4,096 octets there; use a local disk, or log.sync = \
                 \"none\" where loss is allowed"
            }
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                "this user must be able to write there"
            }
            _ => "the disk refuses a first block",
        };
        format!("log.dir {}: {error}: {cure}", dir.display())
    })
}

fn disk_facts(dir: &Path, low: DiskLow, full: bool) -> Option<DiskFacts> {
    let space = log::free_space(dir).ok()?;
    let least = match low {
        DiskLow::Percent(percent) => space.size / 100 * u64::from(percent),
        DiskLow::Bytes(bytes) => bytes,
    };
    let state = match full {
        true => DiskState::Full,
        false if space.free < least => DiskState::Low,
        false => DiskState::Ok,
    };
    Some(DiskFacts { free_bytes: space.free, size_bytes: space.size, state })
}

/// Raises the soft descriptor limit to the hard one: connections are descriptors.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the answer, then a read of it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Logs to stderr, and counts what operators are to look at.
fn init_tracing(ready: Arc<Readiness>) {
    use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};
    // Clients of sinks tell of each connection and of each attempt that fails; an exporter tells
    // the same with its name, and once.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,async_nats=off,rskafka=off,object_store=off"));
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().with_writer(io::stderr))
        .with(Diagnostics(ready))
        .try_init();
}

struct Diagnostics(Arc<Readiness>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Diagnostics {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        match *event.metadata().level() {
            tracing::Level::ERROR => self.0.count_error(),
            tracing::Level::WARN => self.0.count_warning(),
            _ => {}
        }
    }
}

/// SIGTERM and SIGINT, counted, and SIGHUP, counted by itself.
struct Signals;

static SIGNALS: AtomicUsize = AtomicUsize::new(0);
static HANGUPS: AtomicUsize = AtomicUsize::new(0);

impl Signals {
    fn install() -> io::Result<Self> {
        extern "C" fn count(signal: libc::c_int) {
            let counter = if signal == libc::SIGHUP { &HANGUPS } else { &SIGNALS };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: the handler does nothing but an atomic addition.
            let was = unsafe { libc::signal(signal, count as *const () as libc::sighandler_t) };
            if was == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self)
    }

    fn hangups(&self) -> usize {
        HANGUPS.load(Ordering::Relaxed)
    }

    fn count(&self) -> usize {
        SIGNALS.load(Ordering::Relaxed)
    }

    fn wait(&self, mut ended: impl FnMut() -> bool) {
        while SIGNALS.load(Ordering::Relaxed) == 0 && !ended() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_refused_with_a_clear_line() {
        for release in ["6.0.12-generic", "5.15.0-91-generic\n", "4.19"] {
            let refused = require_kernel(release).unwrap_err();
            assert!(refused.contains("6.1 or later is needed"), "{refused}");
        }
        for release in ["6.1.0", "6.18.44-fc-v657", "7.0", "", "unreadable"] {
            assert_eq!(require_kernel(release), Ok(()), "{release}");
        }
    }
}
