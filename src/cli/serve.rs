//! `mailrace serve`

use super::{ConfigArgs, EXIT_CONFIG, EXIT_FAILED};
use crate::config::{Config, ConfigErrors};
use std::process::ExitCode;

/// Why the server did not start, or stopped by itself: a text for the operator with the fix.
pub type ServeError = Box<dyn std::error::Error + Send + Sync>;

/// Starts the server and returns once it has drained.
pub type Serve = fn(Config) -> Result<(), ServeError>;

pub(super) fn run(args: &ConfigArgs, serve: Serve) -> ExitCode {
    let config = match args.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ConfigErrors>() => {
            eprintln!("mailrace: {error}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(error) => {
            eprintln!("mailrace: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
