//! `cargo run --release --features sim --example sim -- --seeds 3000`: see tests/ROBUSTNESS.md.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Parser;
use mailrace::{
    sim::{Batch, Found, Mode, Plan, hunt, replay, shrink},
    stage::Bug,
};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the server's shard, log and exporter in simulations of a disk, a network, a clock and a sink
/// that fail, and checks that nothing acknowledged is lost.
#[derive(Parser, Clone)]
struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Replay one seed, and show what happens in it
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: leave out all faults but these, by their places in the plan (comma-separated)
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<usize>>,
    /// With --seed: send so many mails only
    #[arg(long)]
    mails: Option<u64>,
    /// With --seed: show no more than so many lines, the last ones
    #[arg(long, default_value_t = 400)]
    until: usize,
    /// No faults: everything must be taken, acknowledged and exported
    #[arg(long)]
    calm: bool,
    /// A random subset of the kinds of faults for each seed
    #[arg(long)]
    swarm: bool,
    /// Show that each planted bug is found
    #[arg(long)]
    planted: bool,
    /// Plant this bug
    #[arg(long, value_parser = bug)]
    plant: Option<Bug>,
    /// Seeds at a time
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Run each seed of so many twice, and compare
    #[arg(long, default_value_t = 50)]
    twice: u64,
    /// Go on after a seed that fails: it is printed with its command, and the exit code is 1
    #[arg(long)]
    keep_going: bool,
}

fn bug(name: &str) -> Result<Bug, String> {
    let named = |bug: &&Bug| format!("{bug:?}") == name;
    Bug::ALL.iter().find(named).copied().ok_or_else(|| format!("one of {:?}", Bug::ALL))
}

impl Args {
    fn mode(&self) -> Mode {
        match (self.calm, self.swarm) {
            (true, _) => Mode::Calm,
            (_, true) => Mode::Swarm,
            _ => Mode::All,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let good = match (args.seed, args.planted) {
        (Some(seed), _) => one(&args, seed),
        (None, true) => planted(&args),
        (None, false) => many(&args),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Replays a seed with its trace.
fn one(args: &Args, seed: u64) -> bool {
    let mut plan = Plan::new(seed, args.mode());
    if let Some(only) = &args.only {
        let gone: Vec<_> = (0..plan.faults.len()).filter(|at| !only.contains(at)).collect();
        plan = plan.without(&gone);
    }
    plan.mails = args.mails.unwrap_or(plan.mails);
    let summary = replay(&plan, args.plant, true);
    let skipped = summary.lines.len().saturating_sub(args.until);
    println!("{plan}");
    if skipped > 0 {
        println!("... {skipped} lines");
    }
    for line in &summary.lines[skipped..] {
        println!("{line}");
    }
    match &summary.violation {
        None => println!("nothing is wrong; trace {:016x}", summary.hash),
        Some(violation) => println!("VIOLATION: {violation}; trace {:016x}", summary.hash),
    }
    summary.violation.is_none()
}

/// Runs many seeds, several at a time.
fn many(args: &Args) -> bool {
    let began = Instant::now();
    let done = AtomicU64::new(0);
    let batch = Batch {
        seeds: args.from..args.from + args.seeds,
        mode: args.mode(),
        bug: args.plant,
        jobs: args.jobs,
        twice: args.twice,
        keep_going: args.keep_going,
    };
    let sums = batch.run(&|found| {
        if let Some((found, violation)) = found.filter(|_| args.keep_going) {
            println!("FAILED: seed {found}: {violation}; again: {}", again(args, found));
        }
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(1_000) {
            eprintln!("{done} seeds, {:.0} s", began.elapsed().as_secs_f64());
        }
    });
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} seeds ({} of them twice, with the same trace), {} steps, {} mails acknowledged, {} \
         tries refused, {} crashes, {} seeds failed, {took:.0} s, {:.0} seeds a minute",
        sums.seeds,
        sums.twice,
        sums.steps,
        sums.acknowledged,
        sums.refused,
        sums.crashes,
        sums.found.len(),
        sums.seeds as f64 / took * 60.0
    );
    let good = sums.found.is_empty();
    if let Some(first) = sums.found.into_iter().next().filter(|_| !args.keep_going) {
        show(args, first);
    }
    good
}

/// The command that runs a seed again.
fn again(args: &Args, seed: u64) -> String {
    let mode = match args.mode() {
        Mode::All => "",
        Mode::Calm => " --calm",
        Mode::Swarm => " --swarm",
    };
    format!("cargo run --release --features sim --example sim -- --seed {seed}{mode}")
}

/// Shrinks a finding and shows it.
fn show(args: &Args, found: Found) {
    let whole = Plan::new(found.plan.seed, args.mode());
    println!("seed {}: {}", whole.seed, found.violation);
    let found = shrink(found, args.plant);
    let mut left = found.plan.faults.clone();
    let places: Vec<_> = (0..whole.faults.len())
        .filter(|at| {
            let kept = left.iter().position(|fault| *fault == whole.faults[*at]);
            kept.map(|kept| left.remove(kept)).is_some()
        })
        .map(|at| at.to_string())
        .collect();
    let summary = replay(&found.plan, args.plant, true);
    println!("shrunk: {}", found.plan);
    let from = summary.lines.len().saturating_sub(args.until.min(60));
    for line in &summary.lines[from..] {
        println!("{line}");
    }
    println!("VIOLATION: {}", found.violation);
    println!(
        "again: {} --mails {} --only={}",
        again(args, whole.seed),
        found.plan.mails,
        places.join(",")
    );
}

/// Plants each bug in turn: each must be found.
fn planted(args: &Args) -> bool {
    let next = AtomicU64::new(0);
    let lines: Mutex<Vec<(u64, bool, String)>> = Mutex::default();
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(bug) = Bug::ALL.get(at as usize).copied() else { return };
            let mut tried = 0;
            let seeds = args.from..args.from + args.seeds;
            let found = hunt(seeds, args.mode(), Some(bug), &mut |_, _| tried += 1);
            let line = match &found {
                Some(found) => format!("{bug:?}: found by seed {tried}: {}", found.violation),
                None => format!("{bug:?}: NOT FOUND in {tried} seeds"),
            };
            println!("{line}");
            let entry = (at, found.is_some(), line);
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut lines = lines.into_inner().unwrap_or_else(PoisonError::into_inner);
    lines.sort();
    lines.iter().all(|(_, found, _)| *found)
}
