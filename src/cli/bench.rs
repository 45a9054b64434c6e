//! `mailrace bench`: the load tester, whose modules live in `loadtest/`.

#[path = "../../loadtest/mod.rs"]
pub(super) mod loadtest;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser};

use super::{EXIT_CONFIG, EXIT_USAGE, print_errors};
use crate::config::Config;

use loadtest::LoadtestArgs;

/// The load tester beside the server: it finds the data directory as `serve` does.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    load: LoadtestArgs,
    /// Configuration whose log.dir --verify and --e2e read; else that of MAILRACE_LOG__DIR,
    /// ./mailrace.toml or /etc/mailrace/mailrace.toml, as with `mailrace serve` (-c is --connections)
    #[arg(
        long = "config",
        value_name = "FILE",
        help_heading = "Check",
        conflicts_with = "log_dir"
    )]
    file: Option<PathBuf>,
}

/// Runs `mailrace bench`.
pub(super) fn run(args: &BenchArgs) -> ExitCode {
    let find_dir = || {
        Config::data_dir(args.file.as_deref()).map_err(|errors| {
            print_errors(&errors);
            crate::cli::complain!(
                "mailrace: --log-dir DIR names the data directory without a configuration"
            );
            ExitCode::from(EXIT_CONFIG)
        })
    };
    loadtest::run(&args.load, Some(&find_dir))
}

/// Load tester for SMTP and LMTP servers.
#[derive(Debug, Parser)]
#[command(name = "mailrace-loadtest", version)]
struct Standalone {
    #[command(flatten)]
    args: LoadtestArgs,
}

/// Parses the arguments of `mailrace-loadtest` and runs it.
pub fn run_loadtest(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Standalone::try_parse_from(arguments) {
        Ok(standalone) => loadtest::run(&standalone.args, None),
        Err(error) => {
            // A closed stdout is no reason to fail over a help text.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
        }
    }
}
