//! The load tester: SMTP and LMTP clients by the thousand on one thread.
//!
//! The architecture page tells how the parts hang together.

mod alarm;
mod args;
mod corpus;
mod dialogue;
mod engine;
mod ledger;
mod mail;
mod measure;
mod options;
mod outbox;
mod random;
mod reply;
mod report;
mod run;
mod schedule;
mod socket;
mod target;
mod template;
mod units;
mod usage;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use args::RunArgs;

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
}

/// Runs the load tester. Exit codes: 0 ok, 1 failed, 2 usage, 3 threshold missed or mail lost.
pub fn run(args: &LoadtestArgs) -> ExitCode {
    match &args.command {
        None => run::run(&args.run),
        Some(Command::Run(args)) => run::run(args),
    }
}
