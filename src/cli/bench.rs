//! `mailrace bench`: the load tester, whose modules live in `loadtest/`.

#[path = "../../loadtest/mod.rs"]
pub(super) mod loadtest;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use super::EXIT_USAGE;

pub(super) use loadtest::{LoadtestArgs as BenchArgs, run};

/// Load tester for SMTP and LMTP servers.
#[derive(Debug, Parser)]
#[command(name = "mailrace-loadtest", version)]
struct Standalone {
    #[command(flatten)]
    args: BenchArgs,
}

/// Parses the arguments of `mailrace-loadtest` and runs it.
pub fn run_loadtest(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Standalone::try_parse_from(arguments) {
        Ok(standalone) => run(&standalone.args),
        Err(error) => {
            // A closed stdout is no reason to fail over a help text.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
        }
    }
}
