//! What the service manager hears of the server: the notify protocol of sd_notify(3).
//!
//! ```text
//!   READY=1 --> [RELOADING=1 --> READY=1]* --> STOPPING=1
//!          WATCHDOG=1 for as long as every shard makes progress
//! ```
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent. A datagram that cannot be sent is no
//! reason to stop taking mail, so it is logged and the server goes on.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};

use crate::{
    metrics::{Published, ShardState},
    sys,
};

/// The service manager's socket, where there is one.
#[derive(Clone, Debug)]
pub(super) struct Notifier {
    socket: Option<Arc<UnixDatagram>>,
}

impl Notifier {
    /// Connects to the socket that `NOTIFY_SOCKET` names.
    ///
    /// # Errors
    /// A socket that is named and cannot be reached: the service manager would wait for a message
    /// that never comes.
    pub(super) fn from_environment() -> Result<Self, String> {
        match env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) {
            None => Ok(Self { socket: None }),
            Some(name) => Self::connect(&name).map_err(|error| {
                format!(
                    "NOTIFY_SOCKET: cannot reach the service manager at {}: {error}",
                    name.display()
                )
            }),
        }
    }

    /// A name that begins with `@` is in the abstract namespace.
    fn connect(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                let what = "want a path that begins with '/', or '@' and an abstract name";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A service manager that does not read must not hold up the server.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some(Arc::new(socket)) })
    }

    /// The listeners are open.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// Says that a reload is under way, and once it has ended that the server serves, whatever came
    /// of it.
    pub(super) fn around_reload<T, E>(
        &self,
        reload: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.reloading();
        let outcome = reload();
        self.ready(match outcome {
            Ok(_) => "Serving, the configuration was reloaded",
            Err(_) => "Serving with the previous configuration: the reload failed, see the log",
        });
        outcome
    }

    fn reloading(&self) {
        let mut state = "RELOADING=1\n".to_owned();
        // By it the service manager knows which reload this is (Type=notify-reload).
        if let Some(now) = sys::monotonic_micros() {
            let _ = writeln!(state, "MONOTONIC_USEC={now}");
        }
        self.send(&state);
    }

    /// Another program is to go on in this process: to the service manager it is a reload.
    pub(super) fn upgrading(&self) {
        self.reloading();
        self.send("STATUS=Upgrading\n");
    }

    /// The ports close, and the server stays: it is not stopping, or the service manager would end it.
    pub(super) fn exporting(&self) {
        self.send("STATUS=Drained: takes no mail, exports what is left\n");
    }

    /// The drain begins.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Draining\n");
    }

    fn send(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(state.as_bytes()) {
            let line = state.lines().next().unwrap_or_default();
            tracing::warn!("cannot send {line} to the service manager: {error}");
        }
    }

    /// Sends `WATCHDOG=1` while every shard makes progress, if the service manager asks for it.
    pub(super) fn watchdog(&self, shards: Vec<Arc<Published>>) -> io::Result<Option<Watchdog>> {
        let pid = env::var("WATCHDOG_PID").ok();
        let interval = env::var("WATCHDOG_USEC").ok();
        let Some(interval) = watchdog_interval(interval.as_deref(), pid.as_deref()) else {
            return Ok(None);
        };
        if self.socket.is_none() {
            return Ok(None);
        }
        let (end, ended) = bounded::<()>(0);
        let notifier = self.clone();
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            let mut progress = Progress::of(shards);
            loop {
                if progress.everywhere() {
                    notifier.send("WATCHDOG=1\n");
                }
                match ended.recv_timeout(interval / 4) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return,
                }
            }
        })?;
        Ok(Some(Watchdog { end: Some(end), thread: Some(thread) }))
    }
}

/// Sends until it is dropped.
pub(super) struct Watchdog {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Within which time the service manager wants a message: none where it wants none, or wants it of
/// another process.
fn watchdog_interval(micros: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(process::id())) {
        return None;
    }
    micros?.parse().ok().filter(|micros| *micros > 0).map(Duration::from_micros)
}

/// Whether shards go on, seen by their heartbeats. A shard that has ended in order needs to make no
/// progress; one that failed is found by who waits for its end.
struct Progress {
    shards: Vec<(Arc<Published>, Option<u64>)>,
}

impl Progress {
    fn of(shards: Vec<Arc<Published>>) -> Self {
        Self { shards: shards.into_iter().map(|shard| (shard, None)).collect() }
    }

    /// Whether each shard's heart has beaten since the last call.
    fn everywhere(&mut self) -> bool {
        let mut all = true;
        for (shard, last) in &mut self.shards {
            let now = shard.heartbeats();
            let moved = last.replace(now) != Some(now);
            all &= moved || shard.state() == ShardState::Stopped;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_stands_still_stops_the_watchdog() {
        let shards = [Published::new(), Published::new()];
        let beat = |at: usize| shards[at].beat(|_| unreachable!("nobody asked for a copy"));
        let mut progress = Progress::of(shards.to_vec());
        assert!(progress.everywhere());
        beat(0);
        beat(1);
        assert!(progress.everywhere());
        beat(0);
        assert!(!progress.everywhere(), "shard 1 stood still");
        beat(0);
        shards[1].set_state(ShardState::Stopped);
        assert!(progress.everywhere(), "one that has ended is not waited for");
        assert!(!progress.everywhere(), "shard 0 stood still");
    }

    #[test]
    fn the_watchdog_is_for_the_process_it_names() {
        let own = process::id().to_string();
        let wanted = Some(Duration::from_secs(30));
        assert_eq!(watchdog_interval(Some("30000000"), Some(&own)), wanted);
        assert_eq!(watchdog_interval(Some("30000000"), None), wanted);
        assert_eq!(watchdog_interval(Some("30000000"), Some("1")), None);
        for micros in [None, Some("0"), Some("soon"), Some("")] {
            assert_eq!(watchdog_interval(micros, Some(&own)), None, "{micros:?}");
        }
    }

    #[test]
    fn both_kinds_of_address_are_reached_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("mailrace-notify-{}", process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (name, heard) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{abstract_name}").into(), UnixDatagram::bind_addr(&address).unwrap()),
        ] {
            heard.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            Notifier::connect(&name).unwrap().ready("Serving");
            let mut octets = [0; 100];
            let length = heard.recv(&mut octets).unwrap();
            assert_eq!(&octets[..length], b"READY=1\nSTATUS=Serving\n");
        }
        for name in ["notify", "vsock:2:1234", "/nowhere/at/all"] {
            assert!(Notifier::connect(OsStr::new(name)).is_err(), "{name}");
        }
    }
}
