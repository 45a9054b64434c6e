//! The system calls of the server's rooms, each once, with safe functions around them. Rooms whose
//! trade is the kernel have their own: `log` (files), `shard::io` (rings, sockets).

mod limits;
mod signals;
mod terminal;
mod threads;

use std::io;

pub use limits::{Resource, UNLIMITED, limit, raise_limit};
pub use signals::{count_signal, ignore_signal, on_abort, signals_counted};
pub use terminal::NoEcho;
pub use threads::{ThreadsError, start_threads};

/// The nice value of threads that work for later: export, verdicts, retention. Shards run at 0.
pub const BACKGROUND: i32 = 5;

/// Gives the calling thread this nice value, up to 19, so that others run before it (setpriority(2),
/// which on Linux is about one thread). Where it is refused, nothing changes.
pub fn lower_priority(nice: i32) {
    // SAFETY: numbers only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// Random octets for secrets, of the system's generator (getrandom(2)). It has enough from boot on, so
/// this does not wait.
///
/// # Errors
/// There is no such system call.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "up to here the kernel gives all or nothing") };
    let mut octets = [0; N];
    // SAFETY: room for as many octets as are asked for.
    let got = unsafe { libc::getrandom(octets.as_mut_ptr().cast(), N, 0) };
    if usize::try_from(got) == Ok(N) { Ok(octets) } else { Err(io::Error::last_os_error()) }
}

/// Keeps the process's memory out of huge pages that it did not ask for (prctl(2)).
pub fn refuse_huge_pages() {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Microseconds of CLOCK_MONOTONIC, which counts from boot, and which other processes read alike.
pub fn monotonic_micros() -> Option<u64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the time.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let micros = now.tv_sec.checked_mul(1_000_000)?.checked_add(now.tv_nsec / 1000)?;
    (got == 0).then(|| u64::try_from(micros).ok()).flatten()
}

/// Whether the kernel says that a time service sets its clock (adjtimex(2)).
pub fn clock_is_synchronised() -> bool {
    // SAFETY: an all-zero timex is valid and asks for a reading only.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` is writable; modes = 0 changes nothing.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state >= 0 && state != libc::TIME_ERROR
}

/// CPUs that this thread may run on (affinity, and with it cpusets).
///
/// # Errors
/// More CPUs than a `cpu_set_t` has room for.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable and its size is the one given.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: every index is below CPU_SETSIZE.
    Ok((0..limit).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// The kernel's ticks per second, the unit of times in /proc.
pub fn ticks_per_second() -> f64 {
    // SAFETY: sysconf takes no pointer and has no precondition.
    (unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).max(1) as f64
}

/// Bytes of a page of memory.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf takes no pointer and has no precondition.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_lowered() {
        // SAFETY: numbers only.
        let priority = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = priority();
        let lowered = std::thread::spawn(move || {
            lower_priority(before + 1);
            priority()
        });
        assert_eq!(lowered.join().unwrap_or(-1), (before + 1).min(19));
        assert_eq!(priority(), before);
    }

    #[test]
    fn the_system_answers() {
        let (a, b) = (random::<32>().expect("random octets"), random::<32>().expect("more"));
        assert_ne!(a, b);
        assert!(allowed_cpus().is_ok_and(|cpus| !cpus.is_empty()));
        assert!(monotonic_micros() <= monotonic_micros() && monotonic_micros() > Some(0));
        assert!(page_bytes().is_power_of_two() && ticks_per_second() >= 1.0);
        let (soft, hard) = limit(Resource::OpenFiles).expect("the limit of open files");
        assert!(0 < soft && soft <= hard);
        assert_eq!(raise_limit(Resource::OpenFiles), hard);
        assert_eq!(limit(Resource::OpenFiles), Some((hard, hard)));
    }

    #[test]
    fn threads_are_started_and_ended() {
        assert!(start_threads(8).is_ok());
    }

    #[test]
    fn signals_are_counted_one_by_one() {
        for signal in [libc::SIGUSR1, libc::SIGUSR2] {
            count_signal(signal).expect("a handler");
        }
        // SAFETY: both have handlers now.
        unsafe {
            libc::raise(libc::SIGUSR1);
            libc::raise(libc::SIGUSR1);
            libc::raise(libc::SIGUSR2);
        }
        let counted = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP].map(signals_counted);
        assert_eq!(counted, [2, 1, 0]);
        assert!(count_signal(libc::SIGKILL).is_err());
    }
}
