//! `mailrace doctor`

use super::{ConfigArgs, EXIT_FAILED};
use crate::config::{Config, format_size};
use clap::Args;
use io_uring::{Builder, IoUring};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
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
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
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
        Finding { probe, verdict: Verdict::Ok, seen, fix: None }
    }

    fn warning(probe: &'static str, seen: String, fix: &str) -> Self {
        Finding { probe, verdict: Verdict::Warning, seen, fix: Some(fix.to_owned()) }
    }

    fn failed(probe: &'static str, seen: String, fix: &str) -> Self {
        Finding { probe, verdict: Verdict::Failed, seen, fix: Some(fix.to_owned()) }
    }
}

pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let findings = examine(&config);
    let printed = if args.json { print_json(&findings) } else { print_text(&findings) };
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
    if failed || printed.is_err() { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS }
}

fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![kernel(), io_uring(), memlock(), nofile()];
    findings.extend(disk(&config.log.dir));
    findings.push(somaxconn());
    findings.push(clock());
    let listeners = config.listeners.iter().flat_map(|listener| &listener.listen);
    findings.extend(listeners.chain(&config.server.admin_listen).map(port));
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

/// 6.1: SINGLE_ISSUER came with 6.0, DEFER_TASKRUN with 6.1.
fn kernel() -> Finding {
    let release = read_line("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 1) {
        return Finding::ok("kernel", release);
    }
    Finding::failed("kernel", release, "boot a kernel of version 6.1 or later")
}

fn io_uring() -> Finding {
    let mut builder: Builder = IoUring::builder();
    let made = builder.setup_single_issuer().setup_defer_taskrun().build(8);
    let error = match made {
        Ok(_) => return Finding::ok("io_uring", "SINGLE_ISSUER and DEFER_TASKRUN".to_owned()),
        Err(error) => error,
    };
    let disabled = read_line("/proc/sys/kernel/io_uring_disabled");
    let fix = match error.raw_os_error() {
        Some(libc::EPERM) if disabled.is_some_and(|value| value != "0") => {
            "sysctl -w kernel.io_uring_disabled=0"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile"
        }
        Some(libc::ENOSYS) => "allow io_uring in the sandbox, or boot a kernel built with it",
        Some(libc::ENOMEM) => "raise the limit of locked memory: ulimit -l unlimited",
        Some(libc::EINVAL) => "boot a kernel of version 6.1 or later",
        _ => "see io_uring_setup(2)",
    };
    Finding::failed("io_uring", error.to_string(), fix)
}

fn memlock() -> Finding {
    let Some((soft, _)) = limit(libc::RLIMIT_MEMLOCK) else {
        return Finding::warning("memlock", "unknown".to_owned(), "see getrlimit(2)");
    };
    if soft == libc::RLIM_INFINITY {
        return Finding::ok("memlock", "unlimited".to_owned());
    }
    // Since 5.12 rings count to the cgroup's memory, but registered buffers still to this limit.
    let seen = format_size(soft);
    if soft >= 8 << 20 {
        return Finding::ok("memlock", seen);
    }
    let fix = "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit";
    Finding::warning("memlock", seen, fix)
}

fn nofile() -> Finding {
    let Some((soft, hard)) = limit(libc::RLIMIT_NOFILE) else {
        return Finding::warning("nofile", "unknown".to_owned(), "see getrlimit(2)");
    };
    let seen = format!("soft {soft}, hard {hard} (the server raises soft to hard)");
    if hard >= 65_536 {
        return Finding::ok("nofile", seen);
    }
    let fix = "ulimit -Hn 1048576, or LimitNOFILE=1048576 in the unit";
    Finding::warning("nofile", seen, fix)
}

fn limit(resource: libc::__rlimit_resource_t) -> Option<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a writable rlimit.
    let result = unsafe { libc::getrlimit(resource, &mut limit) };
    (result == 0).then_some((limit.rlim_cur, limit.rlim_max))
}

/// A probe file, deleted again.
struct ProbeFile(PathBuf);

impl Drop for ProbeFile {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}

/// O_DIRECT and the duration of fdatasync, in the log's directory or the nearest one that exists.
fn disk(dir: &Path) -> Vec<Finding> {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let existing = absolute.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let path = existing.join(format!(".mailrace-doctor-{}", std::process::id()));
    let probe = ProbeFile(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = match options.custom_flags(libc::O_DIRECT).open(&probe.0) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let seen = format!("the file system of {} refuses it", existing.display());
            let fix = "put log.dir on ext4, xfs or btrfs";
            return vec![Finding::failed("o_direct", seen, fix)];
        }
        Err(error) => {
            let seen = format!("{}: {error}", existing.display());
            let fix = "make log.dir a directory this user may write to";
            return vec![Finding::failed("log.dir", seen, fix)];
        }
    };
    match time_syncs(&file) {
        Ok((median, worst)) => {
            let seen = format!("median {median:.1?}, worst {worst:.1?} of {SYNCS}");
            vec![
                Finding::ok("o_direct", existing.display().to_string()),
                if median <= Duration::from_millis(20) {
                    Finding::ok("fdatasync", seen)
                } else {
                    let fix = "put log.dir on a faster disk: each 250 waits for one sync";
                    Finding::warning("fdatasync", seen, fix)
                },
            ]
        }
        Err(error) => {
            let seen = format!("{}: {error}", existing.display());
            let fix = "put log.dir on a local file system with room: ext4 or xfs";
            vec![Finding::failed("o_direct", seen, fix)]
        }
    }
}

const SYNCS: usize = 32;
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

fn somaxconn() -> Finding {
    let seen = read_line("/proc/sys/net/core/somaxconn").unwrap_or_default();
    if seen.parse::<u32>().is_ok_and(|count| count >= 1024) {
        return Finding::ok("somaxconn", seen);
    }
    Finding::warning("somaxconn", seen, "sysctl -w net.core.somaxconn=4096")
}

/// A clock before this program was written is wrong; so is one the kernel says is not set by NTP.
fn clock() -> Finding {
    let fix = "start a time service, for example systemd-timesyncd or chrony";
    // 2026-01-01T00:00:00Z
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    if SystemTime::now() < written {
        return Finding::failed("clock", "lies before 2026".to_owned(), fix);
    }
    // SAFETY: an all-zero timex is valid and asks for a reading only.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` is writable; modes = 0 changes nothing.
    let state = unsafe { libc::adjtimex(&mut timex) };
    if state < 0 || state == libc::TIME_ERROR {
        return Finding::warning("clock", "not synchronised".to_owned(), fix);
    }
    Finding::ok("clock", "synchronised".to_owned())
}

fn port(address: &SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{address} is free")),
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::AddrInUse => "stop what listens there (ss -ltnp), or choose another",
                io::ErrorKind::PermissionDenied => "grant CAP_NET_BIND_SERVICE, or use 1024 and up",
                _ => "choose an address of this machine",
            };
            Finding::failed("port", format!("{address}: {error}"), fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_fails_and_names_the_fix() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let finding = port(&taken.local_addr().unwrap());
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.fix.is_some());
    }

    #[test]
    fn the_disk_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let findings = disk(&dir.path().join("not/yet"));
        assert!(!findings.is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
