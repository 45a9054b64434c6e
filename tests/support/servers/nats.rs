//! nats-server with JetStream, on a port and in a directory of its own.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
};

use super::lane::PATIENCE;
use mailrace::export::{NatsOptions, TlsOptions};

use crate::support::machine::{OwnedChild, die_with_parent, has};

/// Killed when dropped.
pub struct NatsServer {
    child: OwnedChild,
    dir: tempfile::TempDir,
    pub port: u16,
}

impl NatsServer {
    /// One with JetStream and no accounts; `None`: nats-server is not installed.
    pub fn start() -> Option<Self> {
        Self::with("jetstream { store_dir: \"DIR/store\" }")
    }

    /// One with these lines of configuration; `DIR` becomes its directory.
    pub fn with(config: &str) -> Option<Self> {
        Self::in_dir(tempfile::tempdir().unwrap(), config)
    }

    /// As [`Self::with`], in a directory where files already are.
    pub fn in_dir(dir: tempfile::TempDir, config: &str) -> Option<Self> {
        if !has("nats-server") {
            return None;
        }
        let lines = config.replace("DIR", &dir.path().display().to_string());
        std::fs::write(dir.path().join("nats.conf"), lines).unwrap();
        let (child, port) = launch(dir.path(), -1);
        Some(Self { child, dir, port })
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A sink into the stream `MAIL`, which it makes.
    pub fn options(url: &str) -> NatsOptions {
        NatsOptions {
            servers: vec![url.to_owned()],
            stream: "MAIL".into(),
            create: true,
            replicas: 1,
            subject: "mail.{listener}.{rcpt_domain}".into(),
            user: String::new(),
            password_file: None,
            credentials_file: None,
            tls: TlsOptions::default(),
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.end();
    }

    /// Again on the same port, over the same store.
    pub fn restart(&mut self) {
        (self.child, _) = launch(self.dir.path(), i32::from(self.port));
    }
}

/// Starts a server and waits until it says that it is ready; port -1 is one of its choice.
fn launch(dir: &Path, port: i32) -> (OwnedChild, u16) {
    let mut command = Command::new(program());
    command
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-c"])
        .arg(dir.join("nats.conf"))
        .stderr(Stdio::piped());
    // SAFETY: a single system call, which may be made between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    let mut child = OwnedChild(command.spawn().unwrap());
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (ready, wait) = mpsc::channel();
    // Reads to the end, for the server would stop at a full pipe.
    std::thread::spawn(move || {
        let mut said = String::new();
        let mut port = None;
        for line in lines.map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("Listening for client connections on ") {
                port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            }
            said = said + &line + "\n";
            if line.contains("Server is ready") {
                let _ = ready.send(port.ok_or(said.clone()));
            }
        }
        let _ = ready.send(Err(said));
    });
    let port = wait.recv_timeout(PATIENCE).expect("nats-server says something");
    (child, port.unwrap_or_else(|said| panic!("nats-server did not start:\n{said}")))
}

/// Debian has it outside an ordinary user's PATH.
fn program() -> PathBuf {
    let path = Path::new("/usr/sbin/nats-server");
    if path.is_file() { path.to_owned() } else { "nats-server".into() }
}
