//! What a start needs before a shard runs: the machine is fit, files are read, the data directory is
//! ours, addresses are bound.

use std::{
    error::Error, fs::OpenOptions, io, net::TcpListener, os::unix::fs::OpenOptionsExt, path::Path,
    sync::Arc, time::Instant,
};

use super::{
    hand_over::Inherited,
    listeners::{Addresses, advise, bind_addresses},
    notify::Notifier,
    preflight,
    recipients::AcceptFiles,
    room::DiskRoom,
    signals::Signals,
    users,
};
use crate::{
    config::Config,
    export,
    log::{self, DataDir, Fault, HighWaterMarks, MarkListener, SyncPolicy},
    metrics::DnsMetrics,
    policy::Advisors,
    sys::{self, Resource},
};

/// See the module's page.
pub(super) struct Prepared {
    pub(super) config: Config,
    pub(super) admin_token: Option<String>,
    pub(super) data: DataDir,
    pub(super) stop: Signals,
    pub(super) notifier: Notifier,
    pub(super) accept_files: AcceptFiles,
    pub(super) addresses: Addresses,
    /// The socket of the admin listener, and another of the same for the next program.
    pub(super) admin: Option<(TcpListener, TcpListener)>,
    /// Logs there are, also of shards that no longer run.
    pub(super) logs: usize,
    pub(super) marks: Arc<HighWaterMarks>,
    pub(super) mark_listener: MarkListener,
    /// In logs of shards that no longer run.
    pub(super) faults: Vec<Fault>,
    pub(super) dns: DnsMetrics,
    pub(super) advisors: Arc<Advisors>,
    pub(super) disk: DiskRoom,
    /// When logs were first looked at.
    pub(super) began: Instant,
}

/// Looks at everything that can keep the server from starting.
pub(super) fn prepare(
    config: Config,
    inherited: Option<&mut Inherited>,
) -> Result<Prepared, Box<dyn Error + Send + Sync>> {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    // First: what threads have allocated stays where it is.
    // A registered buffer that is in a huge page pins all of it: 2 MiB of an ordinary user's 8 MiB of
    // locked memory, three times for each shard.
    sys::refuse_huge_pages();
    check_machine(&config)?;
    let users = config.open_users()?;
    let admin_token = config.admin_token()?;
    let data = open_data(&config)?;
    let stop = Signals::install()?;
    let notifier = Notifier::from_environment()?;
    let accept_files = AcceptFiles::new(&config);
    let mut addresses = bind_addresses(&config, inherited)?;
    let admin = addresses.admin.take();
    let admin = admin.map(|socket| Ok::<_, io::Error>((socket.try_clone()?, socket)));
    let began = Instant::now();
    let left = left_shards(&data.path, config.server.shards)?;
    let logs = left.last().map_or(config.server.shards, |last| usize::from(*last) + 1);
    let (marks, mark_listener) = HighWaterMarks::new(logs);
    let mut faults = Vec::new();
    for &shard in &left {
        faults.extend(log::Log::open(&data.path)?.faults(shard)?);
        marks.publish(shard, log::Log::open(&data.path)?.ends(shard)?.1);
    }
    let dns = DnsMetrics::new();
    let advisors = Arc::new(Advisors::default());
    advise(&advisors, &config, &dns)?;
    advisors.set_users(users::serve(users)?);
    Ok(Prepared {
        admin_token,
        stop,
        notifier,
        accept_files,
        addresses,
        admin: admin.transpose()?,
        logs,
        marks: Arc::new(marks),
        mark_listener,
        faults,
        dns,
        advisors,
        disk: DiskRoom::after_start(&config, &data.path)?,
        began,
        data,
        config,
    })
}

/// Opens the data directory, on a file system that a log can be on.
fn open_data(config: &Config) -> Result<DataDir, Box<dyn Error + Send + Sync>> {
    let data = DataDir::open(&config.log.dir)
        .map_err(|error| preflight::data_dir(&config.log.dir, &error))?;
    // Segments are opened with O_DIRECT whatever `log.sync` says.
    probe_direct_io(&data.path).map_err(|error| preflight::direct_io(&data.path, &error))?;
    for notice in &data.notices {
        tracing::warn!("{notice}");
    }
    export::save_hostname(&data.path, &config.server.hostname)
        .map_err(|error| format!("log.dir: {error}"))?;
    Ok(data)
}

/// Shards of an earlier start that this one does not run: nothing is added to their logs, and what
/// is in them is still exported.
fn left_shards(dir: &Path, running: usize) -> io::Result<Vec<u16>> {
    let mut shards = log::Log::open(dir)?.shards()?;
    shards.retain(|shard| usize::from(*shard) >= running);
    Ok(shards)
}

/// Looks for whatever of the machine keeps the server from running, before anything is started.
fn check_machine(config: &Config) -> Result<(), preflight::StartFailure> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    preflight::kernel(&release)?;
    // Connections are descriptors, and rings lock memory.
    let descriptors = sys::raise_limit(Resource::OpenFiles);
    let memlock = sys::raise_limit(Resource::LockedMemory);
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
