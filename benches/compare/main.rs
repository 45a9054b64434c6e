//! How does Mailrace compare with other servers, and with what the kernel alone costs?
//!
//! ```text
//! cargo bench --bench compare                       # everything that is installed, 3 rounds
//! cargo bench --bench compare -- --quick --cases bdat-1k --peers mailrace,smtp-sink
//! cargo bench --bench compare -- --install --json r.json --page r.html --markdown r.md
//! cargo bench --bench compare -- --cases mx,mx-plain,mx-keep --peers postfix \
//!     --peer stalwart=127.0.0.1:2525:4711     # one that runs, whatever it is
//! ```
//!
//! One machine, one go: the server on one core, the loader (`mailrace bench`) on another, a
//! fresh server with fresh data for each run, the servers in turn within each round so that what
//! else the machine does meets all alike. Each run first tries for a moment how fast the server is,
//! then sends a fixed number of messages and divides by it the CPU time that the server, its
//! threads and its children used in between. CPU per message hardly depends on what else the
//! machine does; messages a second and latency do, and both say more about the loader where its
//! core is busy. Work that the kernel does in threads of its own (disk) is nobody's CPU time.
//!
//! The echo ([`echo`]) is the yardstick: the same exchanges and octets without SMTP and disk.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// Cargo sets `test` for a bench without harness too, but without harness no test runs: those of the
// modules are in the test target `compare` (tests.rs).
#![allow(unused_imports, dead_code)]

mod cases;
mod drive;
mod echo;
mod facts;
mod figures;
mod goals;
mod idle;
mod measure;
mod median;
mod node;
mod options;
mod page;
mod pattern;
mod peers;
mod plot;
mod postfix;
mod process;
mod procfs;
mod python;
mod report;
mod scrape;
mod smtp;
mod table;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use cases::{Case, HALF_OF, Kind};
use drive::Drive;
use measure::{Effort, Left};
use options::{Command, Options};
use peers::{Certificate, Peer, Site};
use report::Report;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.command {
        Some(Command::Echo { pattern, port }) => {
            echo::serve(pattern, *port).map_err(|error| error.to_string())
        }
        Some(Command::Drive { pattern, port, connections, depth, messages }) => {
            let drive = Drive {
                pattern: pattern.clone(),
                port: *port,
                connections: *connections,
                depth: *depth,
                messages: *messages,
            };
            drive::run(&drive).map(|told| println!("{told}")).map_err(|error| error.to_string())
        }
        Some(Command::Idle { address, count }) => {
            idle::hold(*address, *count).map_err(|error| error.to_string())
        }
        None => compare(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), String> {
    let mut site = site(options)?;
    site.given = options.given().to_vec();
    let descriptors = process::raise_descriptors();
    // Some for the program itself.
    let idle = options.idle.min(usize::try_from(descriptors).unwrap_or(usize::MAX) - 100);
    let effort =
        Effort { seconds: options.seconds(), trial: if options.quick { 0.5 } else { 1.0 }, idle };
    if options.install {
        for (what, done) in [
            ("aiosmtpd", python::install(&site.installed)),
            ("npm", node::install(&site.installed)),
        ] {
            if let Err(error) = done {
                eprintln!("compare: {what} could not be installed: {error}");
            }
        }
    }
    let mut report =
        Report { facts: facts::all(&site.scratch), cases: options.cases()?, ..Report::default() };
    report.facts.push((
        "method",
        format!(
            "{} rounds of {} s, medians; server on core {}, loader on core {}; clock tick {:?}",
            options.rounds(),
            effort.seconds,
            site.server_core,
            site.loader_core,
            procfs::tick()
        ),
    ));
    report.facts.push((
        "fdatasync",
        "mailrace_log_sync_duration_seconds of the same run, straight line within a bucket"
            .to_owned(),
    ));
    for peer in options.peers()? {
        match peers::missing(peer, &site) {
            None => report.peers.push(peer),
            Some(why) => report.missing.push((peer, why)),
        }
    }
    if report.cases.iter().any(|case| case.starttls) {
        let made = Certificate::make(&site.scratch);
        site.certificate = Some(made.map_err(|error| format!("openssl: {error}"))?);
    }
    for round in 0..options.rounds() {
        run_round(round, &site, effort, &mut report);
    }
    report.close();
    if let Some(Certificate { cert, key }) = &site.certificate {
        let _ = (fs::remove_file(cert), fs::remove_file(key));
    }
    // Empty by now; a run that was killed leaves it to the next.
    let _ = fs::remove_dir(&site.scratch);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    report.facts.push(("load average after", load.trim().to_owned()));
    print!("{}", report.text());
    write(options.json.as_deref(), || format!("{:#}\n", report.json()))?;
    write(options.page.as_deref(), || page::html(&report))?;
    write(options.svg.as_deref(), || plot::svg(&report))?;
    write(options.markdown.as_deref(), || report.markdown())
}

fn run_round(round: usize, site: &Site, effort: Effort, report: &mut Report) {
    let mut peak = None;
    for case in report.cases.clone() {
        for peer in takers(&case, &report.peers) {
            if !report.peers.contains(&peer) {
                report.peers.push(peer);
            }
            eprint!("round {} {} {} ... ", round + 1, case.id, peer.name());
            let rate = peak.unwrap_or(0.0) / 2.0;
            if case.kind == Kind::HalfPeak && peak.is_none() {
                eprintln!("needs {HALF_OF}");
                report.left_out.insert((case.id, peer), format!("needs {HALF_OF}"));
                continue;
            }
            match measure::run(&case, peer, site, effort, rate) {
                Ok(figures) => {
                    if (case.id, peer) == (HALF_OF, Peer::Mailrace) {
                        peak = Some(figures.rate);
                    }
                    eprintln!("{:.0}/s, {:.2} us", figures.rate, figures.cpu_us());
                    if let Some(failed) = figures.more("failed") {
                        let what = format!("{} {}: {failed} messages failed", case.id, peer.name());
                        report.failures.push(what);
                    }
                    report.rounds.entry((case.id, peer)).or_default().push(figures);
                }
                Err(Left::Out(why)) => {
                    eprintln!("{why}");
                    report.left_out.insert((case.id, peer), why.to_owned());
                }
                Err(Left::Failed(why)) => {
                    eprintln!("failed: {why}");
                    let brief = why.lines().next().unwrap_or_default();
                    report.failures.push(format!("{} {}: {brief}", case.id, peer.name()));
                }
            }
        }
    }
}

/// Who runs a case, of those who are asked for.
fn takers(case: &Case, asked: &[Peer]) -> Vec<Peer> {
    let ours = asked.contains(&Peer::Mailrace);
    let mut takers: Vec<Peer> = match case.kind {
        Kind::Load => asked.to_vec(),
        Kind::Idle => asked.iter().copied().filter(|peer| *peer != Peer::Echo).collect(),
        Kind::HalfPeak if ours => vec![Peer::Mailrace],
        Kind::Shards if ours => vec![Peer::Mailrace, Peer::MailraceTwo],
        Kind::HalfPeak | Kind::Shards => Vec::new(),
    };
    takers.retain(|peer| *peer != Peer::EchoClose);
    if takers.contains(&Peer::Echo) && case.close_pattern().is_some() {
        takers.push(Peer::EchoClose);
    }
    if case.kind != Kind::Shards {
        takers.retain(|peer| *peer != Peer::MailraceTwo);
    }
    takers
}

fn site(options: &Options) -> Result<Site, String> {
    let told = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare");
    let dir = options.dir.clone().unwrap_or_else(|| base.clone());
    let scratch = dir.join(format!("mailrace-compare-{}", std::process::id()));
    let installed = base.join("installed");
    for made in [&dir, &installed] {
        fs::create_dir_all(made).map_err(|error| told(made, error))?;
    }
    // Left over where a run was killed.
    for entry in fs::read_dir(&dir).map_err(|error| told(&dir, error))?.flatten() {
        if is_left_over(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    fs::create_dir_all(&scratch).map_err(|error| told(&scratch, error))?;
    let scratch = fs::canonicalize(&scratch).map_err(|error| told(&scratch, error))?;
    let (server_core, loader_core) = options.cores;
    let before = options.before.clone();
    let (given, certificate) = (Vec::new(), None);
    Ok(Site { scratch, before, given, certificate, installed, server_core, loader_core })
}

fn is_left_over(name: &str) -> bool {
    let pid = name.strip_prefix("mailrace-compare-").and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, text()).map_err(|error| format!("{}: {error}", path.display()))
}
