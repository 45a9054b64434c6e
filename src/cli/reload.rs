//! `mailrace reload`

use super::{ConfigArgs, EXIT_FAILED};
use crate::admin;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running server to reload its configuration, and prints what it answers. A file with
/// mistakes is sent to it as well: only so do its log and `config_last_reload_successful` say so.
pub(super) fn run(args: &ReloadArgs) -> ExitCode {
    let (address, token) = match args.config.admin() {
        Ok(place) => place,
        Err(code) => return code,
    };
    match admin::post(address, token.as_deref(), "/v1/reload") {
        Ok(answer) if args.json => {
            let changes: Vec<&str> = answer.lines().collect();
            super::print(&format!("{}\n", json!({ "reloaded": true, "changes": changes })))
        }
        Ok(answer) => super::print(&answer),
        Err(admin::ClientError::Refused(answer)) if args.json => {
            let errors: Vec<&str> = answer.lines().collect();
            super::print(&format!("{}\n", json!({ "reloaded": false, "errors": errors })));
            ExitCode::from(EXIT_FAILED)
        }
        Err(error) => {
            for line in error.to_string().lines() {
                crate::cli::complain!("mailrace: {line}");
            }
            ExitCode::from(EXIT_FAILED)
        }
    }
}
