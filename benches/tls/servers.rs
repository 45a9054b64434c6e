//! The servers: Mailrace with TLS from the first octet or without, and OpenSSL's own.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::process::{self, Running, Scratch};

pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const CLIENT_CORE: usize = 1;

/// Of the only cipher suite that is offered.
pub(crate) const SUITE: &str = "TLS_AES_128_GCM_SHA256";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Ecdsa,
    Rsa,
}

impl Key {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa-p256",
            Self::Rsa => "rsa-2048",
        }
    }
}

/// Where things are.
#[derive(Debug)]
pub(crate) struct Site {
    dir: PathBuf,
    mailrace: PathBuf,
    /// Its version.
    pub(crate) openssl: String,
}

/// A server that listens.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) port: u16,
    _data: Option<Scratch>,
}

impl Site {
    /// Has OpenSSL make a certificate of each kind.
    pub(crate) fn new(dir: PathBuf, mailrace: PathBuf) -> io::Result<Self> {
        let openssl = Command::new("openssl").arg("version").output()?;
        let openssl = String::from_utf8_lossy(&openssl.stdout).trim().to_owned();
        let site = Self { dir, mailrace, openssl };
        for key in [Key::Ecdsa, Key::Rsa] {
            let kind: &[&str] = match key {
                Key::Ecdsa => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
                Key::Rsa => &["-newkey", "rsa:2048"],
            };
            let made = Command::new("openssl")
                .args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost"])
                .args(["-addext", "subjectAltName=DNS:localhost"])
                .args(kind)
                .arg("-keyout")
                .arg(site.file(key, "key"))
                .arg("-out")
                .arg(site.file(key, "pem"))
                .stderr(Stdio::null())
                .status()?;
            if !made.success() {
                return Err(io::Error::other("openssl req failed"));
            }
        }
        Ok(site)
    }

    pub(crate) fn files(&self, key: Key) -> mailrace::tls::Files {
        mailrace::tls::Files { cert_file: self.file(key, "pem"), key_file: self.file(key, "key") }
    }

    fn file(&self, key: Key, kind: &str) -> PathBuf {
        self.dir.join(format!("{}.{kind}", key.name()))
    }

    /// With a key: TLS from the first octet.
    pub(crate) fn mailrace(&self, key: Option<Key>) -> io::Result<Server> {
        let data = Scratch::new(&self.dir, "data")?;
        let port = process::free_port()?;
        let mut settings = vec![
            "server.shards=1".to_owned(),
            "server.admin.listen=127.0.0.1:0".to_owned(),
            format!("listener.0.listen=127.0.0.1:{port}"),
            format!("log.dir={}", data.path().join("log").display()),
            "log.sync=none".to_owned(),
            "limits.message_size=1024MiB".to_owned(),
        ];
        if let Some(key) = key {
            settings.extend([
                format!("server.tls.cert_file={}", self.file(key, "pem").display()),
                format!("server.tls.key_file={}", self.file(key, "key").display()),
                "listener.0.tls_mode=implicit".to_owned(),
            ]);
        }
        let command = process::serve(&self.mailrace, &settings);
        self.start(command, port, Some(data))
    }

    /// `openssl s_server`, one connection at a time.
    pub(crate) fn openssl(&self, key: Key) -> io::Result<Server> {
        let port = process::free_port()?;
        let mut command = Command::new("openssl");
        command
            .args(["s_server", "-quiet", "-www", "-tls1_3", "-num_tickets", "1"])
            .args(["-groups", "X25519", "-ciphersuites", SUITE])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .arg("-cert")
            .arg(self.file(key, "pem"))
            .arg("-key")
            .arg(self.file(key, "key"));
        self.start(command, port, None)
    }

    fn start(&self, mut command: Command, port: u16, data: Option<Scratch>) -> io::Result<Server> {
        let log = File::create(self.dir.join("stderr"))?;
        command.stdout(Stdio::null()).stderr(log);
        let mut process = process::start(&mut command, &[SERVER_CORE])?;
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if process.has_ended() || began.elapsed() > Duration::from_secs(20) {
                let said = fs::read_to_string(self.dir.join("stderr")).unwrap_or_default();
                return Err(io::Error::other(format!("{command:?}: {said}")));
            }
            // Nothing tells when a foreign server has begun to listen.
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Server { process, port, _data: data })
    }
}

/// Keeps this program to its core.
pub(crate) fn pin_here() -> io::Result<()> {
    // SAFETY: all zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `CPU_SET` ignores a number beyond the set.
    unsafe { libc::CPU_SET(CLIENT_CORE, &mut set) };
    // SAFETY: the set lives through the call, and its size is told.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
