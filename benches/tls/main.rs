//! What does TLS cost the server, a handshake, an octet and an idle connection?
//!
//! ```text
//! cargo bench --bench tls                      # everything, 3 rounds
//! cargo bench --bench tls -- --only handshakes --rounds 1 --json r.json
//! ```
//!
//! One machine, one go: servers on core 0, this program, which is the client, on core 1; servers in
//! turn within each round. What counts is the CPU time of the server's process (/proc), as the
//! client is what limits the rate.
//!
//! * A handshake is: connect, TLS 1.3, the ticket and, of Mailrace, the greeting, close. The client
//!   meets `openssl s_server -www` alike, which greets nobody and sends as many tickets.
//! * Octets of one connection are poured into BDAT. `received` are those of a chunk that no MAIL
//!   went before: read, decrypted, thrown away. `alone` is what rustls needs to decrypt as many in
//!   memory, in its cache; the goal looks at what TLS adds to the same octets in the clear.
//! * Idle connections were greeted and then say nothing.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
#![allow(unused_imports, dead_code)]

mod alone;
mod client;
#[path = "../compare/facts.rs"]
mod facts;
mod measure;
#[path = "../compare/median.rs"]
mod median;
#[path = "../compare/process.rs"]
mod process;
#[path = "../compare/procfs.rs"]
mod procfs;
mod servers;
#[path = "../compare/table.rs"]
mod table;

use std::{fs, io, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};

use measure::{Figures, Part};

#[derive(Debug, Parser)]
struct Options {
    /// One of the questions
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Each case is measured so often; medians are told
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Of handshakes in one measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// MiB poured in one measurement
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    #[arg(long, default_value_t = 2000)]
    idle: usize,
    /// The program to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_mailrace"))]
    mailrace: PathBuf,
    /// Where data and certificates go, on a real disk
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// cargo bench says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    process::raise_descriptors();
    servers::pin_here()?;
    let scratch = process::Scratch::new(&options.dir, &format!("tls-{}", std::process::id()))?;
    let site = servers::Site::new(scratch.path().to_owned(), options.mailrace.clone())?;
    let figures = measure::all(options, &site)?;
    let mut told = facts::all(scratch.path());
    told.push(("openssl", site.openssl.clone()));
    for (name, value) in &told {
        println!(" {name}: {value}");
    }
    print!("{}", figures.text());
    if let Some(path) = &options.json {
        let facts: serde_json::Map<_, _> =
            told.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        let document = serde_json::json!({"facts": facts, "figures": figures.json()});
        fs::write(path, format!("{document:#}\n"))?;
    }
    Ok(())
}
