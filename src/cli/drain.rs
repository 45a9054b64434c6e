//! `mailrace drain`

use super::{ConfigArgs, EXIT_FAILED};
use crate::{admin, config::format_duration};
use clap::Args;
use std::{process::ExitCode, time::Duration};

#[derive(Args, Debug)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running server to drain, and prints when its ports close.
pub(super) fn run(args: &DrainArgs) -> ExitCode {
    let (address, token) = match args.config.admin() {
        Ok(place) => place,
        Err(code) => return code,
    };
    match admin::post(address, token.as_deref(), "/v1/drain") {
        Ok(answer) if args.json => super::print(&answer),
        Ok(answer) => {
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
            let lead = answer["lead_seconds"].as_f64().filter(|lead| *lead > 0.0);
            let when = match lead {
                // Whole milliseconds: the server has counted some down already.
                Some(lead) => {
                    let lead = Duration::from_millis((lead * 1000.0).round() as u64);
                    format!("in {}", format_duration(lead))
                }
                None => "now".to_owned(),
            };
            super::print(&format!(
                "draining: the ports close {when}, open sessions finish, then the server stops\n"
            ))
        }
        Err(error) => {
            for line in error.to_string().lines() {
                crate::cli::complain!("mailrace: {line}");
            }
            ExitCode::from(EXIT_FAILED)
        }
    }
}
