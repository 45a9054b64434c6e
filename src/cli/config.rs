//! `mailrace config`

use crate::config::{STARTER, every_default, schema};
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(super) struct ConfigCommandArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print an annotated configuration file to start from
    Init,
    /// Print every key with its default
    Default,
    /// Print a JSON Schema of the configuration file, for editors
    Schema,
}

pub(super) fn run(args: &ConfigCommandArgs) -> ExitCode {
    let text = match args.what {
        What::Init => STARTER.to_owned(),
        What::Default => every_default(),
        What::Schema => format!("{:#}\n", schema()),
    };
    super::print(&text)
}
