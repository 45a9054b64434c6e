//! The notify protocol, heard by a stand-in for the service manager.

use std::{
    io, iter,
    os::unix::net::UnixDatagram,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::support::{self, Launch, eventually};

/// What a server with this interval in `WATCHDOG_USEC` sends.
struct Heard {
    socket: UnixDatagram,
}

impl Heard {
    fn next(&self) -> io::Result<String> {
        let mut octets = [0; 1_000];
        let length = self.socket.recv(&mut octets)?;
        Ok(String::from_utf8(octets[..length].to_vec()).unwrap())
    }

    /// The next message that is none for the watchdog.
    fn state(&self) -> String {
        iter::from_fn(|| Some(self.next().expect("a message")))
            .find(|text| !text.starts_with("WATCHDOG"))
            .unwrap()
    }

    /// How many messages for the watchdog come within a time.
    fn watchdogs(&self, within: Duration) -> usize {
        let until = Instant::now() + within;
        let mut count = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return count;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            count += usize::from(self.next().is_ok_and(|text| text.starts_with("WATCHDOG=1")));
        }
    }
}

fn launch(dir: &std::path::Path) -> (Launch, Heard) {
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let launch = Launch::new(&dir.join("data"))
        .variable("NOTIFY_SOCKET", path.to_str().unwrap())
        .variable("WATCHDOG_USEC", "800000");
    (launch, Heard { socket })
}

#[test]
fn ready_reload_and_stop_are_announced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mailrace.toml");
    std::fs::write(&file, "[limits]\nrecipients = 500\n").unwrap();
    let (launch, heard) = launch(dir.path());
    let mut server = launch.set("server.shards=1").file(&file).start();
    assert_eq!(heard.state(), "READY=1\nSTATUS=Serving with 1 shard\n");
    server.client().ehlo();
    for (text, status) in [
        ("[limits]\nrecipients = 600\n", "Serving, the configuration was reloaded"),
        (
            "[limits]\nrecipient = 600\n",
            "Serving with the previous configuration: the reload failed, see the log",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        support::signal(&server.child, libc::SIGHUP);
        let reloading = heard.state();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(str::trim_end);
        assert!(
            time.is_some_and(|time| time.parse::<u64>().is_ok_and(|time| time > 0)),
            "{reloading}"
        );
        assert_eq!(heard.state(), format!("READY=1\nSTATUS={status}\n"));
    }
    support::signal(&server.child, libc::SIGTERM);
    assert_eq!(heard.state(), "STOPPING=1\nSTATUS=Draining\n");
    assert_eq!(server.ended(Duration::from_secs(20)), Some(0));
}

/// A server that says STOPPING=1 is ended by the service manager after `TimeoutStopSec=`: one that
/// stays for its exporters does not say so, and its watchdog is fed.
#[test]
fn a_server_that_stays_to_export_is_not_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let (launch, heard) = launch(dir.path());
    let mut server = launch.set("server.shards=2").start();
    assert!(heard.state().starts_with("READY=1"));
    let mut drain = Command::new(support::MAILRACE);
    drain.args(["drain", "--until-exported", "--admin", &server.admin.to_string()]);
    support::succeeded("drain", drain.output().unwrap());
    assert_eq!(heard.state(), "STATUS=Drained: takes no mail, exports what is left\n");
    assert!(heard.watchdogs(Duration::from_secs(2)) > 1);
    heard.socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    support::signal(&server.child, libc::SIGTERM);
    assert_eq!(heard.state(), "STOPPING=1\nSTATUS=Draining\n");
    assert_eq!(server.ended(Duration::from_secs(20)), Some(0));
}

#[test]
fn the_watchdog_is_fed_only_while_every_shard_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (launch, heard) = launch(dir.path());
    let server = launch.set("server.shards=2").start();
    assert!(heard.state().starts_with("READY=1"));
    eventually("the watchdog is fed", Duration::from_secs(20), || {
        heard.watchdogs(Duration::from_secs(1)) > 0
    });
    let stopped = StoppedThread::of(server.child.id(), "shard");
    eventually("the watchdog is not fed", Duration::from_secs(20), || {
        heard.watchdogs(Duration::from_secs(2)) == 0
    });
    drop(stopped);
    eventually("it is fed again", Duration::from_secs(20), || {
        heard.watchdogs(Duration::from_secs(1)) > 0
    });
    assert_eq!(server.stop(), Some(0));
}

/// A thread of another process that stands still until this is dropped.
pub struct StoppedThread {
    end: Option<mpsc::Sender<()>>,
    tracer: Option<thread::JoinHandle<()>>,
}

impl StoppedThread {
    /// Stops the first thread whose name begins so.
    pub fn of(process: u32, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let paths: Vec<_> = tasks.map(|task| task.unwrap().path()).collect();
        let named = |path: &std::path::PathBuf| std::fs::read_to_string(path.join("comm")).unwrap();
        let names: Vec<_> = paths.iter().map(named).collect();
        let at = names.iter().position(|comm| comm.starts_with(name));
        let at = at.unwrap_or_else(|| panic!("no thread {name}: {names:?}"));
        let thread: i32 = paths[at].file_name().unwrap().to_str().unwrap().parse().unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let (stopped, is_stopped) = mpsc::channel();
        // The kernel lets go of the thread when the one that traces it ends.
        let tracer = thread::spawn(move || {
            let none = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: neither request reads or writes memory of this process.
            let done = unsafe {
                libc::ptrace(libc::PTRACE_SEIZE, thread, none, none) == 0
                    && libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none) == 0
            };
            stopped.send(done.then_some(()).ok_or_else(io::Error::last_os_error)).unwrap();
            let _ = ended.recv();
        });
        is_stopped.recv().unwrap().expect("the thread can be traced");
        Self { end: Some(end), tracer: Some(tracer) }
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        self.end.take();
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}
