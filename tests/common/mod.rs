//! What the end-to-end tests share: a server of their own on ephemeral ports, a plain client, and
//! the way to read a record back.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// The program under test.
pub const MAILRACE: &str = env!("CARGO_BIN_EXE_mailrace");

/// A running `mailrace serve`.
pub struct Server {
    pub child: Child,
    pub smtp: SocketAddr,
    pub admin: SocketAddr,
    pub dir: PathBuf,
}

impl Server {
    /// Starts a server with one shard over a data directory, on ports the kernel picks.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &["server.shards=1", "log.segment_size=16MiB"])
    }

    pub fn start_with(dir: &Path, settings: &[&str]) -> Self {
        let mut command = Command::new(MAILRACE);
        command
            .arg("serve")
            .args(["--set", "listener.0.listen=127.0.0.1:0"])
            .args(["--set", "server.admin.listen=127.0.0.1:0"])
            .arg("--set")
            .arg(format!("log.dir={}", dir.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.spawn().expect("the server starts");
        let out = child.stdout.take().expect("it was piped");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let (mut smtp, mut admin) = (None, None);
        while smtp.is_none() || admin.is_none() {
            let line = told.recv_timeout(Duration::from_secs(20)).expect("the first-run text");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["smtp", address, ..] => smtp = address.parse().ok(),
                ["admin", url, ..] => {
                    let url = url.trim_start_matches("http://").trim_end_matches('/');
                    admin = url.parse().ok();
                }
                _ => {}
            }
        }
        Self { child, smtp: smtp.expect("seen"), admin: admin.expect("seen"), dir: dir.to_owned() }
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        signal(&self.child, libc::SIGTERM);
        self.child.wait().expect("it ends").code()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it ends");
    }

    pub fn client(&self) -> Client {
        Client::connect(self.smtp)
    }

    /// `mailrace log get`.
    pub fn get(&self, id: &str) -> Vec<u8> {
        log_get(&self.dir, id)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: a signal to a child of ours that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Runs `mailrace log ...` over a data directory and returns what it printed.
pub fn log_command(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(MAILRACE)
        .arg("log")
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .output()
        .expect("it runs");
    assert!(done.status.success(), "log {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

pub fn log_get(dir: &Path, id: &str) -> Vec<u8> {
    log_command(dir, &["get", id])
}

/// A plain SMTP client that says what it is told.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let mut client = Self { stream: BufReader::new(stream) };
        assert!(client.reply().starts_with("220 "));
        client
    }

    /// The next reply, all its lines.
    pub fn reply(&mut self) -> String {
        self.try_reply().expect("a reply")
    }

    pub fn try_reply(&mut self) -> Option<String> {
        let mut reply = String::new();
        loop {
            let at = reply.len();
            if self.stream.read_line(&mut reply).ok()? == 0 {
                return None;
            }
            if reply.as_bytes().get(at + 3) != Some(&b'-') {
                return Some(reply);
            }
        }
    }

    pub fn send(&mut self, octets: &[u8]) -> bool {
        self.stream.get_mut().write_all(octets).is_ok()
    }

    pub fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    pub fn ehlo(&mut self) {
        assert!(self.say("EHLO client.test").starts_with("250-"));
    }

    /// Sends a message by BDAT in one write; the final reply.
    pub fn bdat(&mut self, body: &[u8]) -> String {
        let mut group = format!(
            "MAIL FROM:<a@client.test>\r\nRCPT TO:<b@server.test>\r\nBDAT {} LAST\r\n",
            body.len()
        )
        .into_bytes();
        group.extend_from_slice(body);
        self.send(&group);
        assert!(self.reply().starts_with("250 2.1.0"));
        assert!(self.reply().starts_with("250 2.1.5"));
        self.reply()
    }

    /// Sends a message by DATA, dots stuffed; the final reply.
    pub fn data(&mut self, body: &[u8]) -> String {
        assert!(self.say("MAIL FROM:<a@client.test>").starts_with("250"));
        assert!(self.say("RCPT TO:<b@server.test>").starts_with("250"));
        assert!(self.say("DATA").starts_with("354"));
        let mut stuffed = Vec::new();
        for line in body.split_inclusive(|&octet| octet == b'\n') {
            if line.first() == Some(&b'.') {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(line);
        }
        stuffed.extend_from_slice(b".\r\n");
        self.send(&stuffed);
        self.reply()
    }

    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }
}

/// The record id of a final 250.
pub fn id_of(reply: &str) -> String {
    assert!(reply.starts_with("250 2.0.0 Ok: queued as "), "{reply}");
    reply.split_whitespace().last().expect("an id").to_owned()
}

/// A body that tells who sent it, with dots and length of its own.
pub fn body(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = format!("Subject: message {seed}\r\n\r\n.first\r\n..\r\n").into_bytes();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(format!("{seed}:{state:016x} .{}\r\n", out.len()).as_bytes());
    }
    out
}
