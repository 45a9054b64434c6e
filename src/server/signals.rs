//! Signals that the server handles, and the one with which it ends when something is broken.

use std::{io, time::Duration};

use super::{flight, logging};
use crate::sys;

/// How long an abort waits for the log's last lines: the thread that writes them looks every 20 ms,
/// and where nobody reads stderr the process is not to hang.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Has SIGABRT wait for the lines logged so far before it ends the process. It is how a process ends
/// by itself: after a panic outside of a session, and for `log.on_io_error = "abort"`.
pub(super) fn flush_before_abort() -> io::Result<()> {
    fn flush() {
        // Loads of atomics, a look at the clock and a sleep; a file that is opened and written: all
        // may be done in a signal handler.
        logging::flush(LAST_WORDS);
        flight::write();
    }
    sys::on_abort(flush)
}

/// SIGTERM, SIGINT and SIGPWR (the power is failing), counted, SIGHUP and SIGUSR2, each counted by itself; other
/// signals that would end the process by accident are ignored. SIGQUIT ends it at once, as
/// SIGKILL does.
pub(super) struct Signals;

const DRAIN: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGPWR];

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        for signal in DRAIN.into_iter().chain([libc::SIGHUP, libc::SIGUSR2]) {
            sys::count_signal(signal)?;
        }
        // The default of these ends a process. A file that may not grow further (SIGXFSZ) is a
        // failed write then, which has an answer.
        for signal in [
            libc::SIGUSR1,
            libc::SIGALRM,
            libc::SIGVTALRM,
            libc::SIGPROF,
            libc::SIGIO,
            libc::SIGXFSZ,
            libc::SIGPIPE,
        ] {
            sys::ignore_signal(signal)?;
        }
        Ok(Self)
    }

    pub(super) fn hangups(&self) -> usize {
        sys::signals_counted(libc::SIGHUP)
    }

    /// SIGUSR2 so far.
    pub(super) fn upgrades(&self) -> usize {
        sys::signals_counted(libc::SIGUSR2)
    }

    pub(super) fn count(&self) -> usize {
        DRAIN.map(sys::signals_counted).into_iter().sum()
    }

    pub(super) fn wait(&self, mut ended: impl FnMut() -> bool) {
        while self.count() == 0 && !ended() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
