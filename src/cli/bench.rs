//! `mailrace bench`: the load tester, the crate in `loadtest/`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use mailrace_loadtest::LoadtestArgs;

use super::{EXIT_CONFIG, print_errors};
use crate::config::Config;

/// The load tester beside the server: it finds the data directory as `serve` does.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    load: LoadtestArgs,
    /// Configuration file whose log.dir --verify and --e2e read [default: as with `mailrace serve`;
    /// -c is --connections here]
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
            crate::cli::complain!("mailrace: or name the data directory with --log-dir DIR");
            ExitCode::from(EXIT_CONFIG)
        })
    };
    mailrace_loadtest::run(&args.load, Some(&find_dir))
}
