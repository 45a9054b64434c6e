//! Signals of the process: counted, ignored, and the one by which it ends itself.

use std::{
    ffi::c_int,
    io,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How often each signal came; Linux has 64.
static COUNTED: [AtomicUsize; 65] = [const { AtomicUsize::new(0) }; 65];

/// See [`on_abort`].
static LAST_WORDS: OnceLock<fn()> = OnceLock::new();

/// Counts a signal from now on, instead of what it does by default.
///
/// # Errors
/// There is no such signal, or it cannot be handled.
pub fn count_signal(signal: c_int) -> io::Result<()> {
    extern "C" fn count(signal: c_int) {
        if let Some(counter) = usize::try_from(signal).ok().and_then(|at| COUNTED.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
    set(signal, count as *const () as libc::sighandler_t)
}

/// How often a signal came since it is counted.
pub fn signals_counted(signal: c_int) -> usize {
    let counter = usize::try_from(signal).ok().and_then(|at| COUNTED.get(at));
    counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
}

/// Ignores a signal from now on.
///
/// # Errors
/// There is no such signal, or it cannot be ignored.
pub fn ignore_signal(signal: c_int) -> io::Result<()> {
    set(signal, libc::SIG_IGN)
}

/// Calls a function before SIGABRT ends the process; of two calls the first counts.
///
/// The function runs in a signal handler, wherever the process is: it must do nothing but what
/// signal-safety(7) allows, so take no lock and allocate nothing.
///
/// # Errors
/// The system's.
pub fn on_abort(last_words: fn()) -> io::Result<()> {
    extern "C" fn handle(signal: c_int) {
        // Set before the handler was; reading it is a load.
        if let Some(last_words) = LAST_WORDS.get() {
            last_words();
        }
        // SAFETY: both are async-signal-safe. Raised again it ends the process once this returns,
        // also where it came from outside (systemd's watchdog) and not from `abort`.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
    // The first one stays.
    let _ = LAST_WORDS.set(last_words);
    set(libc::SIGABRT, handle as *const () as libc::sighandler_t)
}

fn set(signal: c_int, action: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: `action` is SIG_IGN or a handler of this file: an atomic addition, or `handle`, whose
    // caller keeps to what a handler may do.
    match unsafe { libc::signal(signal, action) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
