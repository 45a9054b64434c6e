//! `mailrace check`

use super::{ConfigArgs, EXIT_FAILED};
use crate::config::Config;
use clap::Args;
use std::io::{self, Write};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print every key with its value and origin
    #[arg(long)]
    effective: bool,
    /// Print JSON (with --effective)
    #[arg(long, requires = "effective")]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let printed = match (args.effective, args.json) {
        (false, _) => writeln!(io::stdout(), "configuration ok"),
        (true, false) => print_text(&config),
        (true, true) => print_json(&config),
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}

fn print_text(config: &Config) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for setting in config.settings() {
        let assignment = format!("{} = {:?}", setting.key, setting.value);
        writeln!(out, "{assignment:<48} # {}", setting.origin)?;
    }
    Ok(())
}

fn print_json(config: &Config) -> io::Result<()> {
    let list: Vec<_> = config
        .settings()
        .iter()
        .map(|setting| {
            serde_json::json!({
                "key": setting.key,
                "value": setting.value,
                "origin": setting.origin.to_string(),
            })
        })
        .collect();
    writeln!(io::stdout(), "{}", serde_json::Value::Array(list))
}
