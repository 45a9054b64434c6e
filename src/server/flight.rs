//! Writes the flight recorder to a file when something is broken: from a panic's hook, and from the
//! handler of SIGABRT, with which a process ends by itself.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    log::{private_file, unix_micros},
    shard::flight::{self, Recorder},
};

/// After a panic that a session survives, the next write is this much later at the earliest: a shard
/// waits for it.
const PAUSE_MICROS: u64 = 10_000_000;

static CRASH: OnceLock<Crash> = OnceLock::new();
static WRITTEN: AtomicU64 = AtomicU64::new(0);

struct Crash {
    /// Made in advance, as nothing may be allocated in a signal handler. The same for the whole
    /// life of the process: what is written later holds what was written before, as far as it is
    /// still in the rings.
    path: PathBuf,
    recorders: Vec<Arc<Recorder>>,
}

/// From now on there is something to write.
pub(super) fn arm(dir: &Path, recorders: Vec<Arc<Recorder>>) {
    let path = dir.join(format!("flight-{}-crash.bin", now()));
    // A second server in one process would be a test's.
    let _ = CRASH.set(Crash { path, recorders });
}

/// After a panic.
pub(super) fn after_panic() {
    let (now, last) = (now(), WRITTEN.load(Ordering::Relaxed));
    if last == 0 || now.saturating_sub(last) > PAUSE_MICROS {
        write();
    }
}

/// Writes the file; what fails, fails. Opens, writes and closes, takes no lock, and allocates nothing
/// where the path is shorter than 384 octets.
pub(super) fn write() {
    let Some(Crash { path, recorders }) = CRASH.get() else { return };
    let now = now();
    WRITTEN.store(now, Ordering::Relaxed);
    let opened: std::io::Result<File> =
        private_file().write(true).create(true).truncate(true).open(path);
    if let Ok(mut file) = opened {
        let _ = flight::write(recorders, now, &mut file);
    }
}

fn now() -> u64 {
    u64::try_from(unix_micros()).unwrap_or(0)
}
