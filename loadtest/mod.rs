//! The load tester: thousands of SMTP and LMTP clients on a few threads.
//!
//! The architecture page shows how the parts fit together.

/// Writes a line to stderr, for people; see [`view::say`].
macro_rules! complain {
    ($($text:tt)*) => { crate::view::say(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `complain`, without the end of the line.
macro_rules! complain_on {
    ($($text:tt)*) => { crate::view::say(format_args!($($text)*)) };
}

pub(crate) use complain;
pub(crate) use complain_on;

mod alarm;
mod args;
mod compare;
mod condition;
mod consumer;
mod corpus;
mod credentials;
mod crowd;
mod dialogue;
mod engine;
mod ledger;
mod mail;
mod measure;
mod options;
mod outbox;
mod proxy;
mod random;
mod report;
mod run;
mod scenario;
mod schedule;
mod search;
mod server;
mod share;
mod socket;
mod target;
mod template;
mod tls;
mod units;
mod usage;
mod verify;
mod view;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use args::{Format, RunArgs};

/// Arguments of the load tester: a run without a word of its own, or a subcommand.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LoadtestArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a server (the default)
    Run(Box<RunArgs>),
    /// Compare saved runs with the first of them
    Compare {
        /// Files of --save
        #[arg(num_args = 2.., required = true, value_name = "RUN.json")]
        runs: Vec<PathBuf>,
    },
    /// Show a saved run
    Report {
        /// File of --save
        #[arg(value_name = "RUN.json")]
        run: PathBuf,
        /// Format of the report
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Write it to this file instead of stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Load tester for SMTP and LMTP servers.
#[derive(Debug, Parser)]
#[command(name = "mailrace-loadtest", version)]
struct Standalone {
    #[command(flatten)]
    args: LoadtestArgs,
}

/// Parses the arguments of `mailrace-loadtest` and runs it.
pub fn run_program(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Standalone::try_parse_from(arguments) {
        Ok(standalone) => run(&standalone.args, None),
        Err(error) => {
            // A closed stdout is no reason to fail over a help text.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { run::EXIT_USAGE } else { 0 })
        }
    }
}

/// Finds the data directory of the loaded server where no flag names it.
pub type FindDir<'a> = &'a dyn Fn() -> Result<PathBuf, ExitCode>;

/// Runs the load tester. Exit codes: 0 ok, 1 failed, 2 usage, 3 threshold missed or mail lost,
/// 4 the generator was the bottleneck.
pub fn run(args: &LoadtestArgs, find_dir: Option<FindDir<'_>>) -> ExitCode {
    match &args.command {
        None => run::run(&args.run, find_dir),
        Some(Command::Run(args)) => run::run(args, find_dir),
        Some(Command::Compare { runs }) => run::compare(runs),
        Some(Command::Report { run, format, output }) => run::show(run, *format, output.as_deref()),
    }
}
