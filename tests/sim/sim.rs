//! `cargo run --release --features sim --example sim -- --seeds 3000`: see tests/ROBUSTNESS.md.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Parser;
use mailrace::{
    sim::{Found, Mode, Plan, hunt, replay, shrink},
    stage::Bug,
};

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

/// What the runs add up to.
#[derive(Default)]
struct Sums {
    seeds: AtomicU64,
    steps: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    crashes: AtomicU64,
    twice: AtomicU64,
}

/// Runs many seeds, several at a time.
fn many(args: &Args) -> bool {
    let (sums, next, stop) = (Sums::default(), AtomicU64::new(args.from), AtomicBool::new(false));
    let found: Mutex<Vec<(u64, Found)>> = Mutex::default();
    let began = Instant::now();
    let end = args.from + args.seeds;
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let plan = Plan::new(seed, args.mode());
            let summary = replay(&plan, args.plant, false);
            let add = |sum: &AtomicU64, more| sum.fetch_add(more, Ordering::Relaxed);
            add(&sums.steps, summary.steps);
            add(&sums.acknowledged, summary.acknowledged);
            add(&sums.refused, summary.refused);
            add(&sums.crashes, summary.crashes);
            let done = add(&sums.seeds, 1) + 1;
            let mut violation = summary.violation;
            if args.twice > 0 && seed % args.twice == 0 {
                add(&sums.twice, 1);
                let again = replay(&plan, args.plant, false);
                if again.hash != summary.hash && violation.is_none() {
                    violation = Some("the same seed twice: another trace".to_owned());
                }
            }
            if let Some(violation) = violation {
                stop.store(true, Ordering::Relaxed);
                let found_here = (seed, Found { plan, violation });
                found.lock().unwrap_or_else(PoisonError::into_inner).push(found_here);
            }
            if done % 1_000 == 0 {
                eprintln!("{done} seeds, {:.0} s", began.elapsed().as_secs_f64());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let took = began.elapsed().as_secs_f64();
    let get = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
    let seeds = get(&sums.seeds);
    println!(
        "{seeds} seeds ({} of them twice, with the same trace), {} steps, {} mails acknowledged, {} \
         tries refused, {} crashes, {took:.0} s, {:.0} seeds a minute",
        get(&sums.twice),
        get(&sums.steps),
        get(&sums.acknowledged),
        get(&sums.refused),
        get(&sums.crashes),
        seeds as f64 / took * 60.0
    );
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(seed, _)| *seed);
    let Some((_, first)) = found.into_iter().next() else { return true };
    tell(args, first);
    false
}

/// Shrinks a finding and shows it.
fn tell(args: &Args, found: Found) {
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
    let mode = match args.mode() {
        Mode::All => "",
        Mode::Calm => " --calm",
        Mode::Swarm => " --swarm",
    };
    println!(
        "again: cargo run --release --features sim --example sim -- --seed {} --mails {} --only={}{mode}",
        whole.seed,
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
