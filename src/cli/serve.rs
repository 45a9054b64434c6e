//! `mailrace serve`

use super::{ConfigArgs, EXIT_CONFIG, EXIT_FAILED};
use crate::config::{Config, ConfigErrors};
use crate::server::{self, preflight::StartFailure};
use std::process::ExitCode;

/// What signals do, for `serve --help`.
pub(super) const SIGNALS: &str = "\
Signals:
  TERM, INT, PWR  Stop: close the ports after server.drain.lead, finish transactions in progress
                  within 30 s, then exit. Each further signal cuts the current wait short: first
                  the lead, then the wait for transactions
  HUP             Reload the configuration
  USR2            Upgrade: go on with the program that now lies at this one's path
  QUIT, KILL      Exit immediately; no acknowledged message is lost
  USR1, ALRM, VTALRM, PROF, IO, XFSZ, PIPE are ignored

Exit codes: 0 stopped; 1 failed; 78 the configuration, or something it names, is invalid";

/// Why the server did not start, or stopped by itself: a text for the operator with the fix.
pub type ServeError = Box<dyn std::error::Error + Send + Sync>;

/// Starts the server and returns once it has drained.
pub type Serve = fn(Config) -> Result<(), ServeError>;

pub(super) fn run(args: &ConfigArgs, serve: Serve) -> ExitCode {
    let config = match args.load() {
        Ok(config) => config,
        Err(code) => {
            server::go_back("its configuration is refused");
            return code;
        }
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
                super::print_errors(errors);
                return ExitCode::from(EXIT_CONFIG);
            }
            crate::cli::complain!("mailrace: {error}");
            let failure = error.downcast_ref::<StartFailure>();
            match failure.is_some_and(|failure| failure.permanent) {
                true => ExitCode::from(EXIT_CONFIG),
                false => ExitCode::from(EXIT_FAILED),
            }
        }
    }
}
