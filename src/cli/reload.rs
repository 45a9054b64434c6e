//! `mailrace reload`

use super::{ConfigArgs, EXIT_CONFIG, EXIT_FAILED};
use crate::admin;
use std::process::ExitCode;

/// Has the running server read its configuration anew, and prints what came of it.
pub(super) fn run(args: &ConfigArgs) -> ExitCode {
    // Only where the server is asked matters here: its own reading judges the rest.
    let config = match args.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Some(address) = config.server.admin_listen else {
        eprintln!("mailrace: server.admin.listen is off; send the process SIGHUP instead");
        return ExitCode::from(EXIT_FAILED);
    };
    let token = match config.admin_token() {
        Ok(token) => token,
        Err(errors) => {
            super::print_errors(&errors);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match admin::post(address, token.as_deref(), "/v1/reload") {
        Ok(told) => {
            print!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("mailrace: {line}");
            }
            ExitCode::from(EXIT_FAILED)
        }
    }
}
