//! A running `mailrace serve`.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{Client, eventually, log_get, machine};

/// The program under test.
pub const MAILRACE: &str = env!("CARGO_BIN_EXE_mailrace");

/// How a server is to be started.
pub struct Launch {
    program: PathBuf,
    dir: PathBuf,
    file: Option<PathBuf>,
    settings: Vec<String>,
    variables: Vec<(String, String)>,
    limits: Vec<(machine::Resource, u64)>,
    unread: bool,
    user: Option<u32>,
}

/// A server that did not come up.
#[derive(Debug)]
pub struct Failure {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it said on stderr.
    pub errors: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {:?}: {}", self.code, self.errors)
    }
}

impl Launch {
    /// Over a data directory, on ports the kernel picks, the defaults for the rest.
    pub fn new(dir: &Path) -> Self {
        Self {
            program: PathBuf::from(MAILRACE),
            dir: dir.to_owned(),
            file: None,
            settings: Vec::new(),
            variables: Vec::new(),
            limits: Vec::new(),
            unread: false,
            user: None,
        }
    }

    /// With a configuration file under the settings.
    pub fn file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// With a variable in its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs a copy of the program.
    pub fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// Without privileges: no capability is left after the change of user.
    pub fn user(mut self, user: Option<u32>) -> Self {
        self.user = user;
        self
    }

    /// Soft and hard limit, as `ulimit` sets them.
    pub fn limit(mut self, resource: machine::Resource, value: u64) -> Self {
        self.limits.push((resource, value));
        self
    }

    /// Nobody reads its stderr.
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// A command of the program's with this user and these limits.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(subcommand)
            .args(["--set", "listener.0.listen=127.0.0.1:0"])
            .args(["--set", "server.admin.listen=127.0.0.1:0"])
            // Tests look for words; `tests/gateway/logging.rs` is about the other form.
            .args(["--set", "server.log_format=text"])
            .arg("--set")
            .arg(format!("log.dir={}", self.dir.display()));
        if let Some(file) = &self.file {
            command.arg("-c").arg(file);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        without_settings(&mut command);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            // Changing the user as root clears the groups and drops every capability.
            command.uid(user).gid(user);
        }
        // However a test ends, its server ends with it.
        // SAFETY: one system call between fork and exec.
        unsafe { command.pre_exec(machine::die_with_parent) };
        for &(resource, value) in &self.limits {
            // SAFETY: one system call between fork and exec.
            unsafe { command.pre_exec(move || machine::set_limit(resource, value)) };
        }
        command
    }

    /// Starts it and waits for the first-run text.
    #[track_caller]
    pub fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// As [`Launch::start`]; a server that ends before it serves is no failure of the test.
    pub fn try_start(&self) -> Result<Server, Failure> {
        let mut command = self.command("serve");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let out = child.stdout.take().expect("it was piped");
        let err = child.stderr.take().expect("it was piped");
        let (err, unread) = if self.unread { (None, Some(err)) } else { (Some(err), None) };
        let errors = Arc::new(Mutex::new(String::new()));
        let heard = errors.clone();
        let hearing = thread::spawn(move || {
            let Some(err) = err else { return };
            let mut err = BufReader::new(err);
            let mut line = Vec::new();
            while err.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                eprint!("{text}");
                heard.lock().unwrap().push_str(&text);
                line.clear();
            }
        });
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let (mut smtp, mut admin, mut greeting) = (None, None, String::new());
        let mut lmtp = Vec::new();
        while smtp.is_none() || admin.is_none() {
            let line = match told.recv_timeout(Duration::from_secs(40)) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("no first-run text; stderr: {}", errors.lock().unwrap());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let code = child.wait().expect("it ends").code();
                    hearing.join().expect("it only reads");
                    let errors = errors.lock().unwrap().clone();
                    return Err(Failure { code, errors });
                }
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["smtp", address, ..] => smtp = address.parse().ok(),
                ["lmtp", place, ..] => lmtp.push((*place).to_owned()),
                ["admin", url, ..] => {
                    let url = url.trim_start_matches("http://").trim_end_matches('/');
                    admin = url.parse().ok();
                }
                _ => {}
            }
            greeting.push_str(&line);
            greeting.push('\n');
        }
        let (smtp, admin) = (smtp.expect("seen"), admin.expect("seen"));
        let (dir, hearing) = (self.dir.clone(), Some(hearing));
        Ok(Server {
            child: machine::OwnedChild(child),
            smtp,
            lmtp,
            admin,
            dir,
            greeting,
            errors,
            hearing,
            _unread: unread,
        })
    }

    /// Starts it without waiting for anything.
    pub fn spawn(&self) -> Child {
        let mut command = self.command("serve");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the server starts")
    }
}

/// See the module's page. Killed when dropped.
pub struct Server {
    pub child: machine::OwnedChild,
    pub smtp: SocketAddr,
    /// Where it speaks LMTP: `ADDRESS:PORT`, `unix:/PATH`.
    pub lmtp: Vec<String>,
    pub admin: SocketAddr,
    pub dir: PathBuf,
    /// The first-run text as far as the addresses.
    pub greeting: String,
    errors: Arc<Mutex<String>>,
    hearing: Option<thread::JoinHandle<()>>,
    /// Its stderr, where nobody reads it.
    _unread: Option<ChildStderr>,
}

impl Server {
    /// Starts a server with one shard over a data directory, on ports the kernel picks.
    #[track_caller]
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &["server.shards=1", "log.segment_size=16MiB"])
    }

    #[track_caller]
    pub fn start_with(dir: &Path, settings: &[&str]) -> Self {
        settings.iter().fold(Launch::new(dir), |launch, setting| launch.set(setting)).start()
    }

    /// Waits for a text in the log: its lines come a moment after what they report.
    #[track_caller]
    pub fn says(&self, text: &str) {
        eventually(text, Duration::from_secs(10), || self.errors().contains(text));
    }

    /// What it has said on stderr so far. Its lines come a moment after what they report: what is
    /// not there may still come, unless the server has ended or [`Server::heard`] waited for it.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// SIGTERM, and the exit code.
    #[track_caller]
    pub fn stop(mut self) -> Option<i32> {
        signal(&self.child, libc::SIGTERM);
        self.ended(STOPPED)
    }

    /// SIGTERM, and all that it said on stderr.
    #[track_caller]
    pub fn stop_and_read(mut self) -> String {
        signal(&self.child, libc::SIGTERM);
        assert_eq!(self.ended(STOPPED), Some(0));
        self.errors()
    }

    /// The exit code of a server that was told to end; what it said is complete then.
    #[track_caller]
    pub fn ended(&mut self, limit: Duration) -> Option<i32> {
        let code = ended(&mut self.child, limit);
        if let Some(hearing) = self.hearing.take() {
            hearing.join().expect("it only reads");
        }
        code
    }

    /// What it has said on stderr, all up to this moment: a session of its own was logged meanwhile.
    #[track_caller]
    pub fn heard(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mark-{}.test", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut client = self.client();
        client.say(&format!("EHLO {name}"));
        client.say("QUIT");
        self.says(&format!(" helo={name} "));
        self.errors()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.end();
    }

    pub fn client(&self) -> Client {
        Client::connect(self.smtp)
    }

    /// `mailrace log get`.
    pub fn get(&self, id: &str) -> Vec<u8> {
        log_get(&self.dir, id)
    }

    /// Status and content of a page of the admin listener.
    pub fn page(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, content) = answer.split_once("\r\n\r\n").expect("a header");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), content.to_owned())
    }

    /// Sum of a metric's series, those with all of these labels.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        // Of no such metric the sum would always be 0; `tests/tree/words.rs` knows the names.
        assert!(name.starts_with("mailrace_"), "{name} lacks the prefix");
        let (status, text) = self.page("/metrics");
        assert_eq!(status, 200);
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, with) = series.split_once('{').unwrap_or((series, ""));
            (found == name && labels.iter().all(|label| with.contains(label)))
                .then(|| value.parse::<f64>().expect("a number"))
        });
        series.sum()
    }

    /// A line of `/proc/PID/status`, in its own unit.
    pub fn status_of(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("a count")
    }

    /// Processor time used so far, user and system.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, rest) = text.rsplit_once(") ").expect("a name in parentheses");
        let ticks: u64 =
            rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        // USER_HZ is 100 on every architecture we build for.
        Duration::from_millis(ticks * 10)
    }
}

/// Warnings and errors among the lines of a log.
pub fn troubles(log: &str) -> String {
    let trouble = |line: &&str| [" WARN ", " ERROR "].iter().any(|level| line.contains(level));
    log.lines().filter(trouble).collect()
}

/// Longest that a server may take to end once it was told to: its clients are gone by then.
const STOPPED: Duration = Duration::from_secs(60);

/// The exit code of a program that ends by itself, `None` if a signal ended it.
#[track_caller]
pub fn ended(child: &mut Child, limit: Duration) -> Option<i32> {
    let mut status = None;
    eventually("the program ends", limit, || {
        status = child.try_wait().expect("a child of ours");
        status.is_some()
    });
    status.expect("seen").code()
}

/// The settings of whoever runs the tests are none of the test's.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"MAILRACE_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env_remove("CREDENTIALS_DIRECTORY");
}

pub fn signal(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: a signal to a child of ours that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}
