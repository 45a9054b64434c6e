//! What do the gates cost a message? Recipients of a file and counters of addresses, against none.
//!
//! ```text
//! cargo bench --bench gates                                # 3 rounds
//! cargo bench --bench gates -- --rounds 5 --json gates.json
//! ```
//!
//! One machine, one go: the server on core 0, the loader on core 1, a fresh server with fresh data
//! for each run, both kinds in turn within each round. Both get the same load over 50 connections:
//! 4 KiB by DATA and 1 KiB by BDAT, each message to another of the recipients. CPU time of the
//! server's process (/proc) by the messages sent; the trial before it warms the server up.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
#![allow(unused_imports, dead_code)]

#[path = "../compare/facts.rs"]
mod facts;
#[path = "../compare/median.rs"]
mod median;
#[path = "../compare/process.rs"]
mod process;
#[path = "../compare/procfs.rs"]
mod procfs;
#[path = "../compare/table.rs"]
mod table;

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use median::median;
use process::{Running, Scratch};
use serde_json::{Value, json};
use table::{Table, number};

/// CPU a message with every gate on, against none, at most.
const RATIO_MAX: f64 = 1.1;

const SERVER_CORE: usize = 0;
const LOADER_CORE: usize = 1;

/// A clock tick and what is accounted late.
const SETTLE: Duration = Duration::from_millis(100);

/// Name, and what the loader is told.
const CASES: [(&str, &[&str]); 2] =
    [("DATA 4 KiB", &["--size", "4k"]), ("BDAT 1 KiB", &["--size", "1k", "--chunking"])];

#[derive(Debug, Parser)]
struct Options {
    /// Each case is measured so often; medians are told
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Of one measurement
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// In the file
    #[arg(long, default_value_t = 1_000_000)]
    recipients: u64,
    /// The program to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_mailrace"))]
    mailrace: PathBuf,
    /// Where data goes, on a real disk
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// cargo bench says so
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gates {
    /// Loopback is exempt, and every recipient is ours.
    Off,
    On,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gates: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let scratch = Scratch::new(&options.dir, &format!("gates-{}", std::process::id()))?;
    let file = scratch.path().join("recipients");
    write_recipients(&file, options.recipients)?;
    // Microseconds a message, without and with gates.
    let mut found = CASES.map(|_| (Vec::new(), Vec::new()));
    for round in 0..options.rounds {
        for ((name, load), (off, on)) in CASES.iter().zip(&mut found) {
            let both = [(Gates::Off, off), (Gates::On, on)];
            for (gates, into) in both {
                let spent = measure(options, scratch.path(), &file, gates, load)?;
                eprintln!("round {} {name} gates {gates:?}: {spent:.2} us", round + 1);
                into.push(spent);
            }
        }
    }
    let facts = facts::all(scratch.path());
    for (name, value) in &facts {
        println!(" {name}: {value}");
    }
    let mut table = Table::new(&["us CPU a message", "no gate", "every gate", "ratio"]);
    let mut told = Vec::new();
    let mut worst = 0.0_f64;
    for ((name, _), (off, on)) in CASES.iter().zip(&found) {
        let ratio = median(on.iter().copied()) / median(off.iter().copied());
        worst = worst.max(ratio);
        let cells = [median(off.iter().copied()), median(on.iter().copied()), ratio].map(number);
        table.rows.push([vec![(*name).to_owned()], cells.to_vec()].concat());
        told.push(json!({"case": name, "off_us": off, "on_us": on, "ratio": ratio}));
    }
    print!("\n{}", table.text());
    let verdict = if worst <= RATIO_MAX { "holds" } else { "MISSED" };
    println!(" goal: at most {RATIO_MAX} {verdict}");
    if let Some(path) = &options.json {
        let facts: serde_json::Map<_, _> =
            facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let document = json!({"facts": facts, "cases": told, "goal": RATIO_MAX});
        fs::write(path, format!("{document:#}\n"))?;
    }
    Ok(())
}

/// As the loader makes them of `user{seq}@server.test`.
fn write_recipients(path: &Path, count: u64) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for number in 0..count {
        writeln!(out, "user{number}@server.test")?;
    }
    out.flush()
}

/// Microseconds of the server's CPU a message.
fn measure(
    options: &Options,
    dir: &Path,
    file: &Path,
    gates: Gates,
    load: &[&str],
) -> io::Result<f64> {
    let data = Scratch::new(dir, "data")?;
    let (process, port) = start(options, data.path(), file, gates)?;
    let send = |count: u64| -> io::Result<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailrace"));
        command
            .arg("bench")
            .arg(format!("smtp://127.0.0.1:{port}"))
            .args(["-n", &count.to_string(), "-c", "50", "--to", "user{seq}@server.test"])
            .args(["--format", "json", "--no-tui"])
            .args(load)
            .stderr(Stdio::inherit());
        let mut loader = process::start_piped(&mut command, &[LOADER_CORE])?;
        let mut told = String::new();
        loader.child().stdout.take().expect("it is piped").read_to_string(&mut told)?;
        let told: Value = serde_json::from_str(&told)?;
        // A refusal is cheaper than a message: nothing is told of a run that had one.
        match (told["totals"]["acked"].as_u64(), told["errors"]["total"].as_u64()) {
            (Some(acked), Some(0)) if acked == count => Ok(()),
            _ => Err(io::Error::other(format!("gates {gates:?}: {}", told["errors"]))),
        }
    };
    let count = options.messages.min(options.recipients);
    send(count / 10)?;
    thread::sleep(SETTLE);
    let before = procfs::cpu(process.pid());
    send(count)?;
    thread::sleep(SETTLE);
    Ok(procfs::cpu(process.pid()).since(before).total() * 1e6 / count as f64)
}

fn start(options: &Options, data: &Path, file: &Path, gates: Gates) -> io::Result<(Running, u16)> {
    let port = process::free_port()?;
    let mut settings = vec![
        "server.shards=1".to_owned(),
        "server.admin.listen=127.0.0.1:0".to_owned(),
        format!("listener.0.listen=127.0.0.1:{port}"),
        format!("log.dir={}", data.join("log").display()),
        "log.sync=group".to_owned(),
    ];
    if gates == Gates::On {
        settings.extend([
            "listener.0.accept.domains=server.test".to_owned(),
            format!("listener.0.accept.recipients_file={}", file.display()),
            "limits.exempt=".to_owned(),
            "limits.connections.per_ip=10000".to_owned(),
            "limits.connections.rate_per_ip=10000000/m".to_owned(),
        ]);
    }
    let mut command = process::serve(&options.mailrace, &settings);
    let log = data.join("stderr");
    command.stdout(Stdio::null()).stderr(File::create(&log)?);
    let mut process = process::start(&mut command, &[SERVER_CORE])?;
    let began = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if process.has_ended() || began.elapsed() > Duration::from_secs(60) {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(io::Error::other(format!("the server does not start: {said}")));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok((process, port))
}
