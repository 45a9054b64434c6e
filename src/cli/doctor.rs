//! `mailrace doctor`: whether this system can run the server as it is configured. A probe checks
//! the same as the start of the server does, so that what passes here does not fail there.

mod cache;
mod machine;
mod owner;

use super::{ConfigArgs, EXIT_FAILED};
use crate::config::{Config, format_size};
use crate::log::FileSystem;
use crate::server::DiskRoom;
use crate::server::preflight::{self, StartFailure};
use crate::sys::{self, Resource};
use crate::tls::Certificate;
use crate::{export, log, shard};
use clap::Args;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not connect to the sinks of exporters
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// The server runs, but worse than it could.
    Warning,
    /// The server does not run.
    Failed,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One finding: what was seen, and what to do about it.
#[derive(Debug)]
struct Finding {
    probe: &'static str,
    verdict: Verdict,
    seen: String,
    fix: Option<String>,
}

impl Finding {
    fn ok(probe: &'static str, seen: String) -> Self {
        Self { probe, verdict: Verdict::Ok, seen, fix: None }
    }

    fn warning(probe: &'static str, seen: String, fix: &str) -> Self {
        Self { probe, verdict: Verdict::Warning, seen, fix: Some(fix.to_owned()) }
    }

    fn failed(probe: &'static str, seen: String, fix: &str) -> Self {
        Self { probe, verdict: Verdict::Failed, seen, fix: Some(fix.to_owned()) }
    }
}

pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    // Certificates are a probe of their own: a bad one must not hide the others.
    let config = match args.config.load_keys() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let findings = examine(&config, args.offline);
    let printed = if args.json { print_json(&findings) } else { print_text(&findings) };
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
    let code = if failed { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS };
    super::finish(printed, code)
}

fn examine(config: &Config, offline: bool) -> Vec<Finding> {
    let mut findings = vec![kernel(), io_uring(), memlock(), nofile(config), threads(config)];
    findings.extend(disk(&config.log.dir));
    findings.push(file_system(config));
    findings.extend(cache::look(&preflight::existing(&config.log.dir)));
    let running = owner::of_lock(&config.log.dir);
    findings.extend(running.map(|pid| lock(&config.log.dir, pid)));
    findings.push(space(config, running.is_some()));
    findings.push(machine::somaxconn());
    findings.push(machine::clock());
    for listener in &config.listeners {
        let key = format!("listener.{}.listen", listener.name);
        let probed = |at: &SocketAddr| port(*at, &key, running, shard::probe_address(*at));
        findings.extend(listener.listen.iter().map(probed));
        findings.extend(listener.listen_unix.iter().filter_map(|path| unix_path(path, &key)));
    }
    if let Some(address) = config.server.admin_listen {
        let bound = TcpListener::bind(address).map(drop);
        findings.push(port(address, "server.admin.listen", running, bound));
    }
    findings.extend(certificates(config));
    findings.extend(files(config));
    if !offline {
        findings.extend(config.exports.iter().map(sink));
    }
    findings
}

fn print_text(findings: &[Finding]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for Finding { probe, verdict, seen, fix } in findings {
        writeln!(out, "{:<8} {probe:<10} {seen}", verdict.name())?;
        if let Some(fix) = fix {
            writeln!(out, "         fix: {fix}")?;
        }
    }
    Ok(())
}

fn print_json(findings: &[Finding]) -> io::Result<()> {
    let list: Vec<_> = findings
        .iter()
        .map(|Finding { probe, verdict, seen, fix }| {
            serde_json::json!({
                "probe": probe, "verdict": verdict.name(), "seen": seen, "fix": fix,
            })
        })
        .collect();
    writeln!(io::stdout(), "{}", serde_json::Value::Array(list))
}

fn read_line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What `serve` would say of it, in the same words.
fn asked(probe: &'static str, seen: String, answer: Result<(), StartFailure>) -> Finding {
    match answer {
        Ok(()) => Finding::ok(probe, seen),
        Err(StartFailure { cause, cure, .. }) => Finding::failed(probe, cause, &cure),
    }
}

fn kernel() -> Finding {
    let release = read_line("/proc/sys/kernel/osrelease").unwrap_or_default();
    let answer = preflight::kernel(&release);
    asked("kernel", release, answer)
}

fn io_uring() -> Finding {
    asked("io_uring", "SINGLE_ISSUER and DEFER_TASKRUN".to_owned(), preflight::rings())
}

/// Those that the server starts with at least.
fn threads(config: &Config) -> Finding {
    let needed = preflight::threads_needed(config);
    asked("threads", format!("{needed} can be started"), preflight::threads(needed))
}

fn memlock() -> Finding {
    // The server raises the soft limit to the hard one.
    let Some((_, hard)) = sys::limit(Resource::LockedMemory) else {
        return Finding::warning("memlock", "unknown".to_owned(), "see getrlimit(2)");
    };
    if hard == sys::UNLIMITED {
        return Finding::ok("memlock", "unlimited".to_owned());
    }
    let seen = format_size(hard);
    if !(preflight::MEMLOCK_LEAST..8 << 20).contains(&hard) {
        return asked("memlock", seen, preflight::memlock(hard));
    }
    let fix = "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit";
    Finding::warning("memlock", seen, fix)
}

fn nofile(config: &Config) -> Finding {
    let Some((soft, hard)) = sys::limit(Resource::OpenFiles) else {
        return Finding::warning("nofile", "unknown".to_owned(), "see getrlimit(2)");
    };
    let seen = format!("soft {soft}, hard {hard} (the server raises soft to hard)");
    let needed = preflight::descriptors_of(config);
    if hard < needed {
        return asked("nofile", seen, preflight::descriptors(hard, needed));
    }
    if hard >= 65_536 {
        return Finding::ok("nofile", seen);
    }
    let fix = "ulimit -Hn 1048576, or LimitNOFILE=1048576 in the unit";
    Finding::warning("nofile", seen, fix)
}

/// A probe file, deleted again.
struct ProbeFile(PathBuf);

impl Drop for ProbeFile {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}

/// O_DIRECT and the duration of fdatasync, in the data directory or the nearest one that exists.
fn disk(dir: &Path) -> Vec<Finding> {
    if dir.exists() && !dir.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotADirectory);
        return vec![asked("log.dir", String::new(), Err(preflight::data_dir(dir, &error)))];
    }
    let existing = &preflight::existing(dir);
    let path = existing.join(format!(".mailrace-doctor-{}", std::process::id()));
    let probe = ProbeFile(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = match options.custom_flags(libc::O_DIRECT).open(&probe.0) {
        Ok(file) => file,
        Err(error) => return vec![unwritable(dir, &error)],
    };
    match time_syncs(&file) {
        Ok((median, worst)) => {
            let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
            let (median_ms, worst_ms) = (millis(median), millis(worst));
            let seen = format!(
                "median {median_ms:.2} ms, worst {worst_ms:.2} ms of {SYNCS}: a 250 waits for one sync"
            );
            vec![
                Finding::ok("o_direct", existing.display().to_string()),
                match median > SYNC_SLOW {
                    false => Finding::ok("fdatasync", seen),
                    true => Finding::warning("fdatasync", seen, "put log.dir on a faster disk"),
                },
            ]
        }
        Err(error) => vec![unwritable(dir, &error)],
    }
}

/// The probe's file cannot be opened, written or synced.
fn unwritable(dir: &Path, error: &io::Error) -> Finding {
    let probe = match error.raw_os_error() {
        Some(libc::EINVAL) => "o_direct",
        _ => "log.dir",
    };
    asked(probe, String::new(), Err(preflight::direct_io(dir, error)))
}

const SYNCS: usize = 32;
/// Beyond, the disk rather than the network decides how long clients wait.
const SYNC_SLOW: Duration = Duration::from_millis(20);
const BLOCK: usize = 4096;

/// A block aligned as O_DIRECT wants it.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

/// Writes and syncs one block after the other; returns the median and the worst sync.
fn time_syncs(file: &File) -> io::Result<(Duration, Duration)> {
    let block = Box::new(Block([0; BLOCK]));
    let mut durations = Vec::with_capacity(SYNCS);
    for index in 0..SYNCS {
        file.write_all_at(&block.0, (index * BLOCK) as u64)?;
        let started = Instant::now();
        file.sync_data()?;
        durations.push(started.elapsed());
    }
    durations.sort_unstable();
    let at = |index: usize| durations.get(index).copied().unwrap_or_default();
    Ok((at(SYNCS / 2), at(SYNCS - 1)))
}

/// D2: what a 250 promises needs a disk that keeps what it said it synced.
fn file_system(config: &Config) -> Finding {
    let existing = preflight::existing(&config.log.dir);
    let at = existing.display();
    match FileSystem::of(&existing) {
        Ok(FileSystem::Local) => Finding::ok("disk", format!("{at} is on a local file system")),
        Ok(FileSystem::Memory(name)) if config.log.sync != log::SyncPolicy::None => {
            asked("disk", String::new(), Err(preflight::in_memory(&config.log.dir, name)))
        }
        Ok(FileSystem::Memory(name)) => Finding::warning(
            "disk",
            format!("{at} is on {name}, in memory: a reboot or power cut loses acknowledged mail"),
            "put log.dir on a disk: ext4, xfs or btrfs",
        ),
        Ok(FileSystem::Remote(name)) => Finding::warning(
            "disk",
            format!(
                "{at} is on {name}: whether a synced record survives depends on the remote server"
            ),
            "put log.dir on a local disk: ext4, xfs or btrfs",
        ),
        Err(error) => Finding::failed("disk", format!("{at}: {error}"), "see statfs(2)"),
    }
}

/// Room for mail, as the server judges it: now where one runs, else behind its start.
fn space(config: &Config, running: bool) -> Finding {
    let dir = preflight::existing(&config.log.dir);
    let (measured, when) = match running {
        true => (DiskRoom::now(config, &dir), ""),
        false => (DiskRoom::after_start(config, &dir), ", after startup has created its segments"),
    };
    match measured {
        Ok(room) if room.is_full() => {
            let seen = format!("{}: {room}{when}; MAIL gets 452 4.3.1", dir.display());
            Finding::failed("space", seen, &room.cure())
        }
        Ok(room) if room.is_nearly_full() => {
            let seen = format!("{}: nearly full: {room}{when}", dir.display());
            Finding::warning("space", seen, &room.cure())
        }
        Ok(room) => Finding::ok("space", format!("{}: {room}{when}", dir.display())),
        Err(error) => {
            Finding::failed("space", format!("{}: {error}", dir.display()), "see statvfs(3)")
        }
    }
}

/// Somebody works in the data directory already.
fn lock(dir: &Path, pid: u32) -> Finding {
    let dir = dir.display();
    match is_mailrace(pid) {
        true => Finding::ok("log.dir", format!("{dir} is in use by the running server, pid {pid}")),
        false => Finding::failed(
            "log.dir",
            format!("{dir} is locked by process {pid}, which is not mailrace"),
            "stop that process, or choose another log.dir",
        ),
    }
}

/// By the name of its program, which may have been replaced on disk since.
fn is_mailrace(pid: u32) -> bool {
    let ours = std::env::current_exe().ok();
    let ours = ours.as_deref().and_then(Path::file_name);
    let theirs = fs::read_link(format!("/proc/{pid}/exe")).ok();
    match theirs.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()) {
        Some(name) => {
            let name = name.strip_suffix(" (deleted)").unwrap_or(name);
            name == "mailrace" || ours.is_some_and(|ours| ours == name)
        }
        // The process belongs to another user: its short name is all there is.
        None => read_line(&format!("/proc/{pid}/comm")).is_some_and(|name| name == "mailrace"),
    }
}

/// A certificate that ends within this time should have been renewed: two thirds of the way through
/// a life of 90 days is when clients of ACME do it.
const RENEWAL: Duration = Duration::from_secs(14 * 86_400);

/// Every certificate that the server would load, with its key.
fn certificates(config: &Config) -> Vec<Finding> {
    let mut all: Vec<_> = config.server.tls.iter().collect();
    all.extend(config.listeners.iter().filter_map(|listener| listener.tls.as_ref()));
    let judge = |files: &crate::tls::Files| {
        let name = files.cert_file.display().to_string();
        let certificate = match Certificate::load(files) {
            Ok(certificate) => certificate,
            Err(error) => {
                let fix = "use a PEM file with a certificate chain that is valid today, and its \
                           private key";
                return Finding::failed("tls", error.to_string(), fix);
            }
        };
        let now = log::unix_micros() / 1_000_000;
        let left = Duration::from_secs(u64::try_from(certificate.not_after - now).unwrap_or(0));
        let days = left.as_secs() / 86_400;
        let seen = format!("{name} matches its key and is valid for {days} more days");
        match left < RENEWAL {
            true => Finding::warning(
                "tls",
                seen,
                "renew it: the server loads the new files automatically",
            ),
            false => Finding::ok("tls", seen),
        }
    };
    all.into_iter().map(judge).collect()
}

/// Files that the configuration names: users, recipients, the admin token.
fn files(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |probe, read: Result<(), crate::config::ConfigErrors>, named: bool| match read {
        Ok(()) if named => findings.push(Finding::ok(probe, "readable and valid".to_owned())),
        Ok(()) => {}
        Err(errors) => {
            let fix = "correct the file, or let this user read it";
            findings.extend(
                errors.0.iter().map(|error| Finding::failed(probe, error.to_string(), fix)),
            );
        }
    };
    let has =
        |named: &dyn Fn(&crate::config::ListenerConfig) -> bool| config.listeners.iter().any(named);
    let users = has(&|listener| listener.auth.users_file.is_some());
    note("users", config.open_users().map(drop), users);
    let recipients = has(&|listener| !listener.accept.is_empty());
    note("accept", config.load_accept().map(drop), recipients);
    note("token", config.admin_token().map(drop), config.server.admin_token_file.is_some());
    findings
}

/// Connects as the exporter would before its first record.
fn sink(options: &export::ExportOptions) -> Finding {
    let name = &options.name;
    match export::probe(options) {
        Ok(()) => Finding::ok("sink", format!("{name} is reachable and accepts records")),
        Err(error) => Finding::warning(
            "sink",
            format!("{name}: {error}"),
            "start the sink or correct its table [[export]]; until then records wait in the log",
        ),
    }
}

/// `running`: the server that works in the configured data directory.
fn port(address: SocketAddr, key: &str, running: Option<u32>, probed: io::Result<()>) -> Finding {
    match probed {
        Ok(()) => Finding::ok("port", format!("{address} is free")),
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
            && let Some(pid) = running
            // Of a server of another user nothing better is known.
            && owner::listens(pid, address).unwrap_or(true) =>
        {
            Finding::ok("port", format!("{address} is served by the running server, pid {pid}"))
        }
        Err(error) => asked("port", String::new(), Err(preflight::address(address, key, &error))),
    }
}

/// The directory of a unix socket must be there.
fn unix_path(path: &Path, key: &str) -> Option<Finding> {
    let error = match path.parent() {
        Some(dir) if !dir.is_dir() => io::Error::from(io::ErrorKind::NotFound),
        _ => return None,
    };
    Some(asked("port", String::new(), Err(preflight::unix_path(path, key, &error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_fails_and_names_the_fix() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let finding = port(address, "listener.mx.listen", None, shard::probe_address(address));
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.fix.is_some());
        // The same port is no fault where the running server listens there.
        let finding = port(address, "", Some(std::process::id()), shard::probe_address(address));
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
    }

    #[test]
    fn the_disk_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let findings = disk(&dir.path().join("not/yet"));
        assert!(!findings.is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// In the words of the start that it foretells.
    #[test]
    fn a_directory_that_cannot_be_written_is_told_as_at_the_start() {
        let dir = Path::new("/var/lib/mailrace");
        for (errno, probe) in [(libc::EINVAL, "o_direct"), (libc::EROFS, "log.dir")] {
            let error = io::Error::from_raw_os_error(errno);
            let finding = unwritable(dir, &error);
            assert_eq!((finding.probe, finding.verdict), (probe, Verdict::Failed));
            let refused = preflight::direct_io(dir, &error).to_string();
            let told = format!("{}; {}", finding.seen, finding.fix.unwrap());
            assert_eq!(told, refused);
        }
    }
}
