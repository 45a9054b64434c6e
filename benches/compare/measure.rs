//! One run: a server, a load, and what the server spent on it.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::cases::{Case, Kind};
use crate::figures::Figures;
use crate::pattern::Pattern;
use crate::peers::{self, Peer, Server, Site};
use crate::{process, procfs, scrape};

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) seconds: f64,
    /// To find out how many messages fill the seconds; warms the server up too.
    pub(crate) trial: f64,
    pub(crate) idle: usize,
}

/// A run that gave no figures.
#[derive(Debug)]
pub(crate) enum Left {
    /// The peer cannot do the case.
    Out(&'static str),
    Failed(String),
}

impl From<io::Error> for Left {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Sockets close and logs end within it.
const SETTLE: Duration = Duration::from_millis(100);
/// A connection a message: more would use up the ports that wait for stray octets.
const CONNECTS_MAX: f64 = 200_000.0;

/// Runs a case on a peer; `rate` is the half of the peak that [`Kind::HalfPeak`] wants.
pub(crate) fn run(
    case: &Case,
    peer: Peer,
    site: &Site,
    effort: Effort,
    rate: f64,
) -> Result<Figures, Left> {
    if matches!(peer, Peer::Echo | Peer::EchoClose) {
        let pattern = if peer == Peer::Echo { case.pattern() } else { case.close_pattern() };
        let pattern = pattern.ok_or(Left::Out("no counterpart"))?;
        return echo(case, &pattern, site, effort);
    }
    if peer == Peer::Postfix && case.kind == Kind::Idle {
        return Err(Left::Out("a process for each connection"));
    }
    let server = peers::start(peer, site, case.starttls).map_err(Left::Failed)?;
    if let Some(lack) = case.lacks(server.offer) {
        return Err(Left::Out(lack));
    }
    match case.kind {
        Kind::Idle => idle(&server, site, effort),
        Kind::HalfPeak => half(case, &server, site, effort, rate),
        Kind::Load | Kind::Shards => load(case, &server, site, effort),
    }
}

fn load(case: &Case, server: &Server, site: &Site, effort: Effort) -> Result<Figures, Left> {
    let time = format!("{}ms", (effort.trial * 1e3).round());
    let trial = loader(case, server, site, effort, &["-z", &time, "--warmup", "0s"])?;
    let rate = number(&trial, "/rate/messages_per_second")?;
    let count = messages(rate, case, effort);
    let before = procfs::cpu(server.pid);
    let told = loader(case, server, site, effort, &["-n", &count.to_string()])?;
    thread::sleep(SETTLE);
    let spent = procfs::cpu(server.pid).since(before);
    let mut figures = figures(&told, spent)?;
    let failed = number(&told, "/totals/failed")?;
    if failed > 0.0 {
        figures.more.push(("failed", failed));
    }
    Ok(figures)
}

fn messages(rate: f64, case: &Case, effort: Effort) -> u64 {
    let most = CONNECTS_MAX * case.per_connection as f64;
    let least = 4 * case.connections * case.depth;
    (rate * effort.seconds).min(most).max(least as f64) as u64
}

fn half(
    case: &Case,
    server: &Server,
    site: &Site,
    effort: Effort,
    rate: f64,
) -> Result<Figures, Left> {
    let admin = server.admin.ok_or(Left::Out("no metrics"))?;
    let syncs = |admin: SocketAddr| -> io::Result<scrape::Buckets> {
        Ok(scrape::buckets(&scrape::metrics(admin)?, "mailrace_log_sync_duration_seconds"))
    };
    let count = (rate * effort.seconds).max(1.0) as u64;
    let (earlier, before) = (syncs(admin)?, procfs::cpu(server.pid));
    let options = ["-n", &count.to_string(), "--rate", &format!("{rate:.0}")];
    let told = loader(case, server, site, effort, &options)?;
    let spent = procfs::cpu(server.pid).since(before);
    let later = syncs(admin)?;
    let mut figures = figures(&told, spent)?;
    let sync = |at| scrape::quantile(&earlier, &later, at).unwrap_or(f64::NAN);
    figures.more = vec![
        ("ack_p50", number(&told, "/latency/phases/ack/p50")?),
        ("ack_p99", number(&told, "/latency/phases/ack/p99")?),
        ("sync_p50", sync(0.5)),
        ("sync_p99", sync(0.99)),
    ];
    Ok(figures)
}

fn idle(server: &Server, site: &Site, effort: Effort) -> Result<Figures, Left> {
    let pid = server.pid;
    let resident = procfs::resident(pid);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["idle", &server.address.to_string(), &effort.idle.to_string()]);
    let mut holder = process::start_piped(command.stderr(Stdio::piped()), &[site.loader_core])?;
    let out = holder.child().stdout.take().expect("it is piped");
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    if !line.starts_with("ready") {
        let mut said = String::new();
        holder.child().stderr.take().expect("it is piped").read_to_string(&mut said)?;
        return Err(Left::Failed(said.trim().to_owned()));
    }
    thread::sleep(SETTLE * 5);
    let grown = procfs::resident(pid).saturating_sub(resident) as f64;
    let before = procfs::cpu(pid);
    let watched = Duration::from_secs_f64(effort.seconds.max(1.0));
    thread::sleep(watched);
    let spent = procfs::cpu(pid).since(before);
    Ok(Figures {
        more: vec![
            ("connections", effort.idle as f64),
            ("bytes_each", grown / effort.idle as f64),
            ("cpu_ms_per_second", spent.total() * 1e3 / watched.as_secs_f64()),
        ],
        ..Figures::default()
    })
}

fn echo(case: &Case, pattern: &Pattern, site: &Site, effort: Effort) -> Result<Figures, Left> {
    let (server, port) = peers::start_echo(&pattern.to_string(), site)?;
    wait_for_port(port)?;
    let drive = |count: u64| -> Result<Value, Left> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["drive", &pattern.to_string()]);
        command.args(
            [u64::from(port), case.connections as u64, case.depth as u64, count]
                .map(|number| number.to_string()),
        );
        talk(&mut command, site)
    };
    let trial = drive((100_000_000 / pattern.octets() as u64).clamp(200, 20_000))?;
    let rate = number(&trial, "/messages")? / number(&trial, "/seconds")?;
    let before = procfs::cpu(server.pid());
    let told = drive(messages(rate, case, effort))?;
    thread::sleep(SETTLE);
    let spent = procfs::cpu(server.pid()).since(before);
    let messages = number(&told, "/messages")?;
    let seconds = number(&told, "/seconds")?;
    Ok(Figures {
        rate: messages / seconds,
        user_us: spent.user * 1e6 / messages,
        system_us: spent.system * 1e6 / messages,
        p50: number(&told, "/p50")?,
        p99: number(&told, "/p99")?,
        p999: number(&told, "/p999")?,
        loader: f64::NAN,
        messages,
        seconds,
        more: Vec::new(),
    })
}

fn wait_for_port(port: u16) -> io::Result<()> {
    let mut last = Ok(());
    for _ in 0..200 {
        match std::net::TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => return Ok(()),
            Err(error) => last = Err(error),
        }
        // The echo says nothing when it listens: it should do nothing that a run could count.
        thread::sleep(Duration::from_millis(10));
    }
    last
}

fn loader(
    case: &Case,
    server: &Server,
    site: &Site,
    effort: Effort,
    options: &[&str],
) -> Result<Value, Left> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailrace"));
    command.arg("bench").arg(format!("smtp://{}", server.address));
    command.args(case.options()).args(options).args(["--format", "json", "--no-tui"]);
    command.args(["--drain", &format!("{}s", (effort.seconds * 4.0).ceil() + 10.0)]);
    talk(&mut command, site)
}

/// Runs a client on the loader's core and reads what it tells.
fn talk(command: &mut Command, site: &Site) -> Result<Value, Left> {
    command.stderr(Stdio::piped());
    let mut client = process::start_piped(command, &[site.loader_core])?;
    let mut told = String::new();
    client.child().stdout.take().expect("it is piped").read_to_string(&mut told)?;
    let mut said = String::new();
    client.child().stderr.take().expect("it is piped").read_to_string(&mut said)?;
    serde_json::from_str(&told).map_err(|error| {
        Left::Failed(if said.is_empty() { error.to_string() } else { said.trim().to_owned() })
    })
}

fn figures(told: &Value, spent: procfs::Cpu) -> Result<Figures, Left> {
    let messages = number(told, "/totals/acked")?;
    if messages == 0.0 {
        return Err(Left::Failed(format!("no message was acknowledged: {}", told["errors"])));
    }
    Ok(Figures {
        rate: number(told, "/rate/messages_per_second")?,
        user_us: spent.user * 1e6 / messages,
        system_us: spent.system * 1e6 / messages,
        p50: number(told, "/latency/response/p50")?,
        p99: number(told, "/latency/response/p99")?,
        p999: number(told, "/latency/response/p999")?,
        loader: number(told, "/generator/cpu_share")?,
        messages,
        seconds: number(told, "/totals/seconds")?,
        more: Vec::new(),
    })
}

fn number(told: &Value, pointer: &str) -> Result<f64, Left> {
    let value = told.pointer(pointer).and_then(Value::as_f64);
    value.ok_or_else(|| Left::Failed(format!("the loader does not tell {pointer}")))
}
