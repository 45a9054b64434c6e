//! What keeps the server from starting, found before anything is started: one cause and one fix.
//! `doctor` uses the same checks, so that both give the same answer.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    config::{Config, format_size},
    log::FileSystem,
    shard::{self, RingError},
    sys::{self, ThreadsError},
};

/// Why the server cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub cure: String,
    /// Something must be changed before another start can succeed (exit code 78).
    pub permanent: bool,
}

impl StartFailure {
    fn new(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { cause: cause.into(), cure: cure.into(), permanent: false }
    }

    fn permanent(self) -> Self {
        Self { permanent: true, ..self }
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cure.as_str() {
            "" => f.write_str(&self.cause),
            cure => write!(f, "{}; {cure}", self.cause),
        }
    }
}

impl std::error::Error for StartFailure {}

/// What the system said, without the number that its text ends in.
pub(crate) fn said(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.rfind(" (os error ")) {
        (Some(_), Some(at)) => text[..at].to_owned(),
        _ => text,
    }
}

pub(super) const MEMLOCK_CURE: &str =
    "raise the locked-memory limit: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit";
const DESCRIPTORS_CURE: &str =
    "raise the limit of open files: ulimit -n 1048576, or LimitNOFILE=1048576 in the unit";
const THREADS_CURE: &str = "raise the limit of processes and threads: ulimit -u, TasksMax= in the \
                            unit, or the container's pids limit";

/// The rings need DEFER_TASKRUN of Linux 6.1.
///
/// # Errors
/// An older kernel; a release that cannot be read passes.
pub fn kernel(release: &str) -> Result<(), StartFailure> {
    let mut numbers = release.trim().split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 1) => Err(StartFailure::new(
            format!("Linux {major}.{minor} is too old: 6.1 or later is needed (io_uring)"),
            "boot a kernel of version 6.1 or later",
        )),
        _ => Ok(()),
    }
}

/// Whether this process may use io_uring.
///
/// # Errors
/// A system call of it that is refused.
pub fn rings() -> Result<(), StartFailure> {
    shard::probe_rings().map_err(|error| {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        ring_failure(&error, disabled.is_ok_and(|value| value.trim() != "0"))
    })
}

fn ring_failure(RingError { call, source }: &RingError, disabled: bool) -> StartFailure {
    let cause = format!("io_uring is not available: {call} failed: {}", said(source));
    let cure = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if disabled => {
            "it is disabled in this kernel: sysctl -w kernel.io_uring_disabled=0"
        }
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
             profile or sandbox"
        }
        Some(libc::ENOMEM) => MEMLOCK_CURE,
        Some(libc::EMFILE | libc::ENFILE) => DESCRIPTORS_CURE,
        Some(libc::EINVAL) => "boot a kernel of version 6.1 or later",
        _ => "see io_uring_setup(2)",
    };
    StartFailure::new(cause, cure)
}

/// Least locked memory that glommio makes an executor with.
pub const MEMLOCK_LEAST: u64 = 512 << 10;

/// Whether a first shard may lock the memory it needs.
///
/// # Errors
/// A limit below [`MEMLOCK_LEAST`]; the soft limit is raised to the hard one before.
pub fn memlock(hard: u64) -> Result<(), StartFailure> {
    if hard >= MEMLOCK_LEAST {
        return Ok(());
    }
    let (limit, least) = (format_size(hard), format_size(MEMLOCK_LEAST));
    Err(StartFailure::new(
        format!("the locked-memory limit is {limit}, and one shard needs {least} at least"),
        MEMLOCK_CURE,
    ))
}

/// Descriptors that a server of this configuration needs before its first connection: measured, and
/// some to spare.
pub fn descriptors_of(config: &Config) -> u64 {
    let places = config.listeners.iter().map(|at| at.listen.len() + at.listen_unix.len());
    let each = 14 + places.sum::<usize>();
    let verifies = config.listeners.iter().any(|listener| listener.verify.is_some());
    let verdicts = if verifies { 8 + config.server.shards * 8 } else { 0 };
    (32 + config.server.shards * each + config.exports.len() * 10 + verdicts) as u64
}

/// Whether there are descriptors enough to start.
///
/// # Errors
/// Too low a limit; the soft limit is raised to the hard one before.
pub fn descriptors(hard: u64, needed: u64) -> Result<(), StartFailure> {
    if hard >= needed {
        return Ok(());
    }
    let cause = format!("the limit of open files is {hard}, and the start alone needs {needed}");
    Err(StartFailure::new(cause, DESCRIPTORS_CURE))
}

/// Threads that a server of this configuration starts.
pub fn threads_needed(config: &Config) -> usize {
    let shards = config.server.shards;
    // A lane for each shard, DNS, and what sessions wait for.
    let verifies = config.listeners.iter().any(|listener| listener.verify.is_some());
    let judges = config.listeners.iter().any(|listener| listener.reject.is_some());
    let verdicts = if verifies { shards + 1 + usize::from(judges) } else { 0 };
    2 * shards + config.exports.len() + verdicts + 15
}

/// Starts that many threads at a time and ends them: a runtime that cannot make one panics.
///
/// # Errors
/// One that cannot be made.
pub fn threads(needed: usize) -> Result<(), StartFailure> {
    let before = threads_now();
    let started = sys::start_threads(needed);
    // A thread that is joined counts to the limit until the kernel has buried it.
    let began = Instant::now();
    while threads_now() > before && began.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(1));
    }
    started.map_err(|error| match error {
        ThreadsError::Pipe(error) => {
            StartFailure::new(format!("cannot make a pipe: {}", said(&error)), DESCRIPTORS_CURE)
        }
        ThreadsError::Thread { started, error } => {
            let cause = format!(
                "only {started} of the {needed} threads that are needed can be started: {}",
                said(&error)
            );
            StartFailure::new(cause, THREADS_CURE)
        }
    })
}

fn threads_now() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// What is wrong with the data directory, of the error of opening or probing it.
pub fn data_dir(dir: &Path, error: &io::Error) -> StartFailure {
    let at = format!("log.dir {}: {}", dir.display(), said(error));
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::WouldBlock, _) => StartFailure::new(
            format!("log.dir {}: another process is using it", dir.display()),
            "stop the other server, or choose another log.dir",
        ),
        (io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory, _) => StartFailure::new(
            format!("log.dir {}: a file is there, and a directory is needed", dir.display()),
            "choose another log.dir, or move the file away",
        )
        .permanent(),
        (_, Some(libc::EACCES | libc::EPERM | libc::EROFS)) => StartFailure::new(
            at,
            "this user must be able to write there: chown the directory, or choose another log.dir",
        )
        .permanent(),
        (_, Some(libc::ENOSPC | libc::EDQUOT)) => {
            StartFailure::new(at, "make room there: a segment for each shard must fit")
        }
        (_, Some(libc::EMFILE | libc::ENFILE)) => StartFailure::new(at, DESCRIPTORS_CURE),
        // A text of our own has its cure in it.
        (_, None) => StartFailure::new(at, ""),
        _ => StartFailure::new(at, "run `mailrace doctor` for details"),
    }
}

/// D2: a 250 promises that the record is on a disk, which memory is not.
///
/// # Errors
/// A file system in memory.
pub fn file_system(dir: &Path) -> Result<(), StartFailure> {
    match FileSystem::of(&existing(dir)) {
        Ok(FileSystem::Memory(name)) => Err(in_memory(dir, name)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The data directory is on this file system, which is none of a disk.
pub fn in_memory(dir: &Path, name: &str) -> StartFailure {
    let at = dir.display();
    StartFailure::new(
        format!("log.dir {at} is on {name}, in memory: a reboot loses acknowledged mail"),
        "put log.dir on a local disk, or set log.sync = \"none\" if loss is acceptable",
    )
    .permanent()
}

/// A directory that may have to be made yet, or the nearest one above it that is there.
pub fn existing(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Why the log cannot be written with O_DIRECT in its directory (D2).
pub fn direct_io(dir: &Path, error: &io::Error) -> StartFailure {
    let at = format!("log.dir {}: {}", dir.display(), said(error));
    match error.raw_os_error() {
        Some(libc::EINVAL) => StartFailure::new(
            format!("{at}: no O_DIRECT in blocks of 4,096 bytes there"),
            "put log.dir on a local disk: ext4, xfs or btrfs",
        )
        .permanent(),
        _ => data_dir(dir, error),
    }
}

/// Why an address cannot be listened at. `key` says so in the configuration.
pub fn address(address: SocketAddr, key: &str, error: &io::Error) -> StartFailure {
    let at = format!("cannot listen on {address} ({key})");
    match error.kind() {
        io::ErrorKind::AddrInUse => StartFailure::new(
            format!("{at}: another program uses it, or one that overlaps it"),
            format!("stop that program (ss -ltnp shows it), or choose another port in {key}"),
        ),
        io::ErrorKind::AddrNotAvailable => StartFailure::new(
            format!("{at}: it is not an address of this machine"),
            format!("choose one that `ip address` shows, or 0.0.0.0, in {key}"),
        ),
        io::ErrorKind::PermissionDenied => StartFailure::new(
            format!("{at}: ports below 1024 need a privilege"),
            "grant CAP_NET_BIND_SERVICE (AmbientCapabilities= in the unit), or choose a port from \
             1024 on",
        )
        .permanent(),
        _ => match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => StartFailure::new(
                format!("{at}: this machine has no IPv6"),
                format!("remove the address from {key}"),
            )
            .permanent(),
            Some(libc::EMFILE | libc::ENFILE) => {
                StartFailure::new(format!("{at}: {}", said(error)), DESCRIPTORS_CURE)
            }
            _ => StartFailure::new(
                format!("{at}: {}", said(error)),
                format!("choose another address in {key}"),
            ),
        },
    }
}

/// Why a unix socket cannot be listened at.
pub fn unix_path(path: &Path, key: &str, error: &io::Error) -> StartFailure {
    let at = format!("cannot listen at unix:{} ({key})", path.display());
    match error.kind() {
        io::ErrorKind::AddrInUse => StartFailure::new(
            format!("{at}: another program listens there"),
            format!("stop that program (ss -lxp shows it), or choose another path in {key}"),
        ),
        io::ErrorKind::AlreadyExists => StartFailure::new(
            format!("{at}: something that is not a socket is there"),
            format!("move it away, or choose another path in {key}"),
        )
        .permanent(),
        io::ErrorKind::NotFound => StartFailure::new(
            format!("{at}: there is no such directory"),
            "make the directory (RuntimeDirectory= in the unit)",
        )
        .permanent(),
        io::ErrorKind::PermissionDenied => StartFailure::new(
            format!("{at}: {}", said(error)),
            "this user must be able to write to the directory",
        )
        .permanent(),
        _ => StartFailure::new(
            format!("{at}: {}", said(error)),
            format!("choose another path in {key}"),
        ),
    }
}

/// Why a shard did not start.
pub(super) fn shard(error: &shard::StartError) -> StartFailure {
    let cause = format!("{}: {}", error.doing, said(&error.source));
    let cure = match error.source.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS) => {
            "allow io_uring in the container's seccomp profile or sandbox"
        }
        _ if is_memlock(&error.source) => MEMLOCK_CURE,
        Some(libc::EMFILE | libc::ENFILE) => DESCRIPTORS_CURE,
        Some(libc::EAGAIN) => THREADS_CURE,
        Some(libc::ENOSPC | libc::EDQUOT) => {
            "make room in log.dir: a segment for each shard must fit"
        }
        _ => "run `mailrace doctor` for details",
    };
    StartFailure::new(cause, cure)
}

pub(super) fn is_memlock(error: &io::Error) -> bool {
    // glommio hands some errors on as a text only.
    error.raw_os_error() == Some(libc::ENOMEM) || error.to_string().contains("os error 12")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_refused_with_a_clear_line() {
        for release in ["6.0.12-generic", "5.15.0-91-generic\n", "4.19"] {
            let refused = kernel(release).unwrap_err().to_string();
            assert!(refused.contains("6.1 or later is needed"), "{refused}");
        }
        for release in ["6.1.0", "6.18.44-fc-v657", "7.0", "", "unreadable"] {
            assert_eq!(kernel(release), Ok(()), "{release}");
        }
    }

    #[test]
    fn causes_have_cures_and_no_debug_text() {
        let ring = |errno, disabled| {
            let source = io::Error::from_raw_os_error(errno);
            ring_failure(&RingError { call: "io_uring_setup", source }, disabled).to_string()
        };
        assert_eq!(
            ring(libc::EPERM, false),
            "io_uring is not available: io_uring_setup failed: Operation not permitted; allow \
             io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
             profile or sandbox"
        );
        assert!(ring(libc::EPERM, true).contains("sysctl -w kernel.io_uring_disabled=0"));
        assert!(ring(libc::ENOSYS, false).contains("seccomp"));
        assert!(ring(libc::ENOMEM, false).contains("ulimit -l"));
        let refused = memlock(64 << 10).unwrap_err().to_string();
        assert!(refused.contains("is 64KiB, and one shard needs 512KiB"), "{refused}");
        assert_eq!(memlock(8 << 20), Ok(()));
        assert!(descriptors(16, 60).unwrap_err().to_string().contains("ulimit -n"));
        assert_eq!(threads(3), Ok(()));
        let error = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        let refused = address("192.0.2.1:25".parse().unwrap(), "listener.mx.listen", &error);
        assert!(refused.to_string().contains("is not an address of this machine"), "{refused}");
    }
}
