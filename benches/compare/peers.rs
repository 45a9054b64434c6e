//! The servers that are compared, and how each is started.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{self, Running, Scratch};
use crate::smtp::{self, Offer};
use crate::{node, postfix, python};

/// Slow starters are Postfix and node.
const START_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Mailrace,
    /// Another build of Mailrace, of `--before`.
    Before,
    /// Mailrace with two shards on both cores; in one case only.
    MailraceTwo,
    SmtpSink,
    Postfix,
    Aiosmtpd,
    Haraka,
    SmtpServer,
    /// One of `--peer`, by its name.
    Given(&'static str),
    /// The limit, no server of mail.
    Echo,
    /// The limit of a connection alone: accepts, says a reply and closes; in one case only.
    EchoClose,
}

impl Peer {
    /// Those that can be asked for.
    pub(crate) const SERVERS: [Self; 7] = [
        Self::Mailrace,
        Self::Before,
        Self::SmtpSink,
        Self::Postfix,
        Self::Haraka,
        Self::SmtpServer,
        Self::Aiosmtpd,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mailrace => "mailrace",
            Self::Before => "before",
            Self::MailraceTwo => "mailrace, 2 shards",
            Self::SmtpSink => "smtp-sink",
            Self::Postfix => "postfix",
            Self::Aiosmtpd => "aiosmtpd",
            Self::Haraka => "haraka",
            Self::SmtpServer => "smtp-server",
            Self::Given(name) => name,
            Self::Echo => "echo",
            Self::EchoClose => "echo, accept-reply-close",
        }
    }

    /// What it had on disk before it answered 250.
    pub(crate) fn synced(self) -> &'static str {
        match self {
            Self::Mailrace | Self::Before | Self::MailraceTwo => {
                "record written and synced (fdatasync, in groups)"
            }
            Self::SmtpSink => "nothing: discards",
            Self::Postfix => "queue file written and synced (fsync, each); left in the hold queue",
            Self::Aiosmtpd => "nothing: handler Sink discards",
            Self::Haraka => "nothing: a plugin of two lines accepts and discards",
            Self::SmtpServer => "nothing: the callback reads the stream and discards",
            Self::Given(_) => "not known here: it was started by somebody else",
            Self::Echo => "nothing: no SMTP, answers fixed octets",
            Self::EchoClose => "nothing: no SMTP, says a fixed reply to each connection, closes it",
        }
    }
}

/// A server that was started by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Whose CPU time, with that of its children, is the server's.
    pub(crate) pid: u32,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Has OpenSSL make one.
    ///
    /// # Errors
    /// What it says.
    pub(crate) fn make(dir: &Path) -> io::Result<Self> {
        let made = Self { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        let mut openssl = Command::new("openssl");
        openssl
            .args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .arg("-keyout")
            .arg(&made.key)
            .arg("-out")
            .arg(&made.cert);
        python::run(&mut openssl)?;
        Ok(made)
    }
}

/// Where things are, and what may be done.
#[derive(Debug)]
pub(crate) struct Site {
    /// Data of servers, on a real disk.
    pub(crate) scratch: PathBuf,
    /// The program of [`Peer::Before`].
    pub(crate) before: Option<PathBuf>,
    /// Servers that run already.
    pub(crate) given: Vec<Given>,
    /// Of the servers, in cases with TLS; all of them have the same.
    pub(crate) certificate: Option<Certificate>,
    /// What `--install` put there.
    pub(crate) installed: PathBuf,
    pub(crate) server_core: usize,
    pub(crate) loader_core: usize,
}

/// A server that greets.
#[derive(Debug)]
pub(crate) struct Server {
    // Dropped in this order: the process before its data.
    _process: Option<Running>,
    _scratch: Option<Scratch>,
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    /// Of Mailrace alone.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) offer: Offer,
}

/// Why a peer cannot run here; `None` if it can.
pub(crate) fn missing(peer: Peer, site: &Site) -> Option<String> {
    match peer {
        Peer::Mailrace | Peer::MailraceTwo | Peer::Echo | Peer::EchoClose | Peer::Given(_) => None,
        Peer::Before => match &site.before {
            Some(_) => None,
            None => Some("--before names no other build".to_owned()),
        },
        Peer::SmtpSink => match find("smtp-sink") {
            Some(_) => None,
            None => Some("smtp-sink is not in PATH (Debian: package postfix)".to_owned()),
        },
        Peer::Postfix => postfix::missing(),
        Peer::Aiosmtpd => python::missing(&site.installed),
        Peer::Haraka => node::missing(&site.installed, "Haraka"),
        Peer::SmtpServer => node::missing(&site.installed, "smtp-server"),
    }
}

/// Starts a peer with fresh data, or looks at one that runs, and waits for its greeting.
///
/// # Errors
/// Where it does not come up; a text for the user.
pub(crate) fn start(peer: Peer, site: &Site, tls: bool) -> Result<Server, String> {
    if let Peer::Given(name) = peer {
        return running(name, site);
    }
    let certificate = site.certificate.as_ref().filter(|_| tls);
    let told = |what: &str, error: &dyn std::fmt::Display| {
        format!("{} does not start: {what}: {error}", peer.name())
    };
    let scratch = Scratch::new(&site.scratch, "server").map_err(|e| told("its directory", &e))?;
    let dir = scratch.path().to_owned();
    let port = process::free_port().map_err(|e| told("a port", &e))?;
    let mut admin = None;
    let mut command = match peer {
        Peer::Mailrace | Peer::Before | Peer::MailraceTwo => {
            let at = process::free_port().map_err(|e| told("a port", &e))?;
            admin = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, at)));
            let before = site.before.as_deref().filter(|_| peer == Peer::Before);
            let program = before.unwrap_or(Path::new(env!("CARGO_BIN_EXE_mailrace")));
            mailrace(program, peer, &dir, (port, at), certificate)
        }
        Peer::SmtpSink => smtp_sink(port),
        Peer::Postfix => {
            postfix::command(&dir, port, certificate).map_err(|e| told("its files", &e))?
        }
        Peer::Aiosmtpd => python::command(&site.installed, port),
        Peer::Haraka => {
            let made = node::haraka(&site.installed, &dir, port, certificate);
            made.map_err(|e| told("its files", &e))?
        }
        Peer::SmtpServer => {
            node::smtp_server(&site.installed, &dir, port).map_err(|e| told("its files", &e))?
        }
        Peer::Echo | Peer::EchoClose | Peer::Given(_) => {
            return Err(format!("{} is not started here", peer.name()));
        }
    };
    let log = dir.join("stderr");
    let open = || -> io::Result<(File, File)> {
        let file = File::create(&log)?;
        Ok((file.try_clone()?, file))
    };
    let (out, err) = open().map_err(|e| told("its log", &e))?;
    command.stdout(out).stderr(err);
    let both = [site.server_core, site.loader_core];
    let cores = if peer == Peer::MailraceTwo { &both[..] } else { &both[..1] };
    let mut process = process::start(&mut command, cores).map_err(|e| told("the program", &e))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let offer = smtp::wait_for(address, START_MAX).map_err(|error| {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let ended = if process.has_ended() { " (it has ended)" } else { "" };
        told("no greeting", &format!("{error}{ended}\n{said}"))
    })?;
    let pid = process.pid();
    Ok(Server { _process: Some(process), _scratch: Some(scratch), pid, address, admin, offer })
}

fn running(name: &str, site: &Site) -> Result<Server, String> {
    let found = site.given.iter().find(|given| given.name == name);
    let Given { address, pid, .. } = *found.ok_or("it was not named by --peer")?;
    if !Path::new(&format!("/proc/{pid}")).exists() {
        return Err(format!("{name}: there is no process {pid}"));
    }
    let told = |error| format!("{name} does not greet at {address}: {error}");
    let offer = smtp::wait_for(address, START_MAX).map_err(told)?;
    Ok(Server { _process: None, _scratch: None, pid, address, admin: None, offer })
}

/// Starts the echo with a pattern.
///
/// # Errors
/// Where it does not come up.
pub(crate) fn start_echo(pattern: &str, site: &Site) -> io::Result<(Running, u16)> {
    let port = process::free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["echo", pattern, &port.to_string()]).stdout(Stdio::null());
    let process = process::start(&mut command, &[site.server_core])?;
    Ok((process, port))
}

/// A program's place in PATH or where Debian keeps programs of root.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let root = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    std::env::split_paths(&path)
        .chain(root)
        .map(|dir| dir.join(program))
        .find(|place| place.is_file())
}

pub(crate) fn is_root() -> bool {
    // SAFETY: it cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn mailrace(
    program: &Path,
    peer: Peer,
    dir: &Path,
    (port, admin): (u16, u16),
    certificate: Option<&Certificate>,
) -> Command {
    let shards = if peer == Peer::MailraceTwo { 2 } else { 1 };
    let mut settings = vec![
        format!("server.shards={shards}"),
        format!("server.admin.listen=127.0.0.1:{admin}"),
        format!("listener.0.listen=127.0.0.1:{port}"),
        format!("log.dir={}", dir.join("log").display()),
        "log.sync=group".to_owned(),
    ];
    if let Some(Certificate { cert, key }) = certificate {
        settings.push(format!("server.tls.cert_file={}", cert.display()));
        settings.push(format!("server.tls.key_file={}", key.display()));
    }
    process::serve(program, &settings)
}

fn smtp_sink(port: u16) -> Command {
    let mut command = Command::new(find("smtp-sink").unwrap_or_else(|| "smtp-sink".into()));
    if is_root() {
        command.args(["-u", "nobody"]);
    }
    // Without -m it takes 256 sessions.
    command.args(["-m", "1000000", &format!("127.0.0.1:{port}"), "4096"]);
    command
}
