//! The running program's part of an upgrade: is the program at our path fit to go on, and do the
//! sessions end in time? See [`super::hand_over`] for the rest.

use std::{
    cell::Cell,
    env,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::signals::Signals;
use crate::{
    admin::{UpgradeBegun, UpgradeRequests},
    config::{Config, format_duration},
    log::unix_micros,
    shard::SharedState,
};

/// How long sessions may go on where the request does not say.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the new program may take to check the configuration.
const CHECK: Duration = Duration::from_secs(30);

/// One at a time.
const UNDER_WAY: &str = "an upgrade is in progress";

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// See the module's page.
pub(super) struct Upgrades<'a> {
    pub(super) stop: &'a Signals,
    pub(super) shards: &'a [Arc<SharedState>],
    pub(super) asking: UpgradeRequests,
    /// SIGUSR2 so far.
    pub(super) signals: Cell<usize>,
    pub(super) begun: Cell<Option<Begun>>,
}

/// An upgrade under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) id: i64,
    drain: Duration,
}

impl Upgrades<'_> {
    /// Whether an upgrade is asked for that can be. `running` is the configuration of the start.
    pub(super) fn asked(&self, running: &Config) -> bool {
        if self.stop.upgrades() != self.signals.replace(self.stop.upgrades()) {
            // What came of it is told in the log.
            let _ = self.begin(running, None);
        }
        while let Ok(asking) = self.asking.try_recv() {
            // The client may be gone.
            let _ = asking.answer.send(self.begin(running, asking.drain));
        }
        self.begun.get().is_some()
    }

    fn begin(&self, running: &Config, drain: Option<Duration>) -> Result<UpgradeBegun, String> {
        if self.begun.get().is_some() {
            return Err(UNDER_WAY.to_owned());
        }
        let drain = drain.unwrap_or(DRAIN);
        let to = check(running).inspect_err(|error| {
            tracing::error!("no upgrade: {error}; this program goes on");
        })?;
        let id = unix_micros();
        self.begun.set(Some(Begun { id, drain }));
        tracing::info!(to, drain_seconds = drain.as_secs_f64(), "upgrade begins");
        Ok(UpgradeBegun { id, to, drain })
    }

    /// Has the shards take no new connections, and waits until their sessions are over, or have had
    /// their time. `None`: the server is to stop, or a shard has failed; there is no upgrade then.
    pub(super) fn wait(&self, mut meanwhile: impl FnMut() -> bool) -> Option<Begun> {
        let begun = self.begun.get()?;
        self.shards.iter().for_each(|shard| shard.set_handing_over(true));
        let began = Instant::now();
        while !self.shards.iter().all(|shard| shard.is_quiet()) && began.elapsed() < begun.drain {
            while let Ok(other) = self.asking.try_recv() {
                // The client may be gone.
                let _ = other.answer.send(Err(UNDER_WAY.to_owned()));
            }
            if meanwhile() || self.stop.count() > 0 {
                self.shards.iter().for_each(|shard| shard.set_handing_over(false));
                self.begun.set(None);
                tracing::warn!("no upgrade: the server is stopping");
                return None;
            }
            thread::sleep(LOOK_EVERY);
        }
        Some(begun)
    }
}

/// Where the program is that goes on: where this one was started from, whatever lies there now.
pub(super) fn program() -> std::io::Result<PathBuf> {
    let path = env::current_exe()?;
    let text = path.to_string_lossy();
    // The kernel says so of a file that was replaced.
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

/// Looks whether the program at our path can go on with the configuration as it is now; its version.
fn check(running: &Config) -> Result<String, String> {
    let new = running.load_again().map_err(|errors| {
        errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })?;
    same_sockets(running, &new)?;
    let program = program().map_err(|error| format!("this program's path is unknown: {error}"))?;
    let version = answer_of(&program, &["--version".into()])?;
    let version = version.trim();
    let Some(version) = version.strip_prefix("mailrace ") else {
        return Err(format!("{} is not Mailrace", program.display()));
    };
    // `serve` takes what `check` takes.
    let mut arguments = vec!["check".into()];
    arguments.extend(env::args_os().skip(2));
    answer_of(&program, &arguments)?;
    Ok(version.to_owned())
}

/// The sockets of the shards are handed over as they are.
fn same_sockets(running: &Config, new: &Config) -> Result<(), String> {
    let addresses = |config: &Config| {
        let of = config.listeners.iter().map(|listener| {
            (listener.name.clone(), listener.listen.clone(), listener.listen_unix.clone())
        });
        (config.server.shards, config.server.admin_listen, of.collect::<Vec<_>>())
    };
    if addresses(running) == addresses(new) {
        return Ok(());
    }
    Err("the configuration has other listening addresses or another server.shards than this \
         program was started with; that needs a restart"
        .to_owned())
}

/// Runs a program to its end; what it printed.
fn answer_of(program: &Path, arguments: &[std::ffi::OsString]) -> Result<String, String> {
    let name = program.display();
    let cannot = |error: std::io::Error| format!("cannot run {name}: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let read = |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            // What was read before an error is told.
            let _ = from.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let printed = child.stdout.take().map(|out| read(Box::new(out)));
    let complained = child.stderr.take().map(|out| read(Box::new(out)));
    let began = Instant::now();
    let status = loop {
        match child.try_wait().map_err(cannot)? {
            Some(status) => break status,
            None if began.elapsed() < CHECK => thread::sleep(LOOK_EVERY),
            None => {
                // It may have ended just now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{name} did not answer within {}", format_duration(CHECK)));
            }
        }
    };
    let text = |thread: Option<thread::JoinHandle<String>>| {
        thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    };
    let (printed, complained) = (text(printed), text(complained));
    if status.success() {
        return Ok(printed);
    }
    let words = arguments.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    Err(format!("{name} {words}: {status}\n{}", complained.trim_end()).trim_end().to_owned())
}
