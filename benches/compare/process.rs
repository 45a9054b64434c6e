//! Child processes that run on chosen cores and never outlive the benchmark.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A child that is killed when this is dropped, and by the kernel if we die first: at a panic, at
/// Ctrl-C, at SIGKILL.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM first: Postfix's master then ends its children itself.
        if let Ok(pid) = i32::try_from(self.child.id())
            && !self.has_ended()
        {
            // SAFETY: numbers only; the child is not waited for yet, so the number is its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let began = Instant::now();
        while !self.has_ended() && began.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(5));
        }
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `mailrace serve` with these settings, and none from the environment.
#[allow(dead_code, reason = "each bench uses its part")]
pub(crate) fn serve(program: &Path, settings: &[String]) -> Command {
    let mut command = Command::new(program);
    command.arg("serve");
    for setting in settings {
        command.args(["--set", setting]);
    }
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"MAILRACE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Starts a command on these cores, its stdin closed.
///
/// # Errors
/// Where the program is missing or the cores are.
pub(crate) fn start(command: &mut Command, cores: &[usize]) -> io::Result<Running> {
    pin(command, cores);
    command.stdin(Stdio::null());
    Ok(Running { child: command.spawn()? })
}

/// As [`start`], with stdin and stdout for us.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_piped(command: &mut Command, cores: &[usize]) -> io::Result<Running> {
    pin(command, cores);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(Running { child: command.spawn()? })
}

fn pin(command: &mut Command, cores: &[usize]) {
    // SAFETY: all zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &core in cores {
        // SAFETY: `CPU_SET` ignores a number beyond the set.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    let parent = std::process::id();
    let prepare = move || {
        // SAFETY: system calls that are safe between fork and exec; `set` is the closure's own.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            match libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }
    };
    // SAFETY: `prepare` allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
}

/// A port that is free now.
///
/// # Errors
/// Where the system gives no socket.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Makes the hard limit of descriptors the soft one, for us and our children; tells it.
pub(crate) fn raise_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 1024;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: a limit to read; where it is refused the old one stands.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    limit.rlim_max
}

/// A directory that goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// # Errors
    /// Where it cannot be made.
    pub(crate) fn new(under: &Path, name: &str) -> io::Result<Self> {
        let path = under.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}
