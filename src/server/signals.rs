//! Signals that the server handles, and the one with which it ends when something is broken.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::{flight, logging};

/// How long an abort waits for the log's last lines: the thread that writes them looks every 20 ms,
/// and where nobody reads stderr the process is not to hang.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Has SIGABRT wait for the lines logged so far before it ends the process. It is how a process ends
/// by itself: after a panic outside of a session, and for `log.on_io_error = "abort"`.
pub(super) fn flush_before_abort() -> io::Result<()> {
    extern "C" fn flush(signal: libc::c_int) {
        // Loads of atomics, a look at the clock and a sleep; a file that is opened and written: all
        // may be done in a signal handler.
        logging::flush(LAST_WORDS);
        flight::write();
        // SAFETY: both are async-signal-safe. Raised again it ends the process once this returns,
        // also where it came from outside (systemd's watchdog) and not from `abort`.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
    let handler = flush as *const () as libc::sighandler_t;
    // SAFETY: see the handler.
    match unsafe { libc::signal(libc::SIGABRT, handler) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// SIGTERM, SIGINT and SIGPWR (the power is failing), counted, SIGHUP and SIGUSR2, each counted by itself; other
/// signals that would end the process by accident are ignored. SIGQUIT ends it at once, as
/// SIGKILL does.
pub(super) struct Signals;

static SIGNALS: AtomicUsize = AtomicUsize::new(0);
static HANGUPS: AtomicUsize = AtomicUsize::new(0);
static UPGRADES: AtomicUsize = AtomicUsize::new(0);

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        extern "C" fn count(signal: libc::c_int) {
            let counter = match signal {
                libc::SIGHUP => &HANGUPS,
                libc::SIGUSR2 => &UPGRADES,
                _ => &SIGNALS,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let handler = count as *const () as libc::sighandler_t;
        let counted = [libc::SIGTERM, libc::SIGINT, libc::SIGPWR, libc::SIGHUP, libc::SIGUSR2];
        for (signal, action) in counted.map(|signal| (signal, handler)).into_iter().chain(
            // The default of these ends a process. A file that may not grow further (SIGXFSZ) is a
            // failed write then, which has an answer.
            [
                libc::SIGUSR1,
                libc::SIGALRM,
                libc::SIGVTALRM,
                libc::SIGPROF,
                libc::SIGIO,
                libc::SIGXFSZ,
                libc::SIGPIPE,
            ]
            .map(|signal| (signal, libc::SIG_IGN)),
        ) {
            // SAFETY: the handler does nothing but an atomic addition.
            if unsafe { libc::signal(signal, action) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self)
    }

    pub(super) fn hangups(&self) -> usize {
        HANGUPS.load(Ordering::Relaxed)
    }

    /// SIGUSR2 so far.
    pub(super) fn upgrades(&self) -> usize {
        UPGRADES.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) -> usize {
        SIGNALS.load(Ordering::Relaxed)
    }

    pub(super) fn wait(&self, mut ended: impl FnMut() -> bool) {
        while SIGNALS.load(Ordering::Relaxed) == 0 && !ended() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
