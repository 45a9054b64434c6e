//! `mailrace health`

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::{ADMIN_OFF, AdminArgs, EXIT_FAILED};
use crate::{admin, config::Config};

/// A probe that hangs is a failed one; container runtimes give it a few seconds.
const WAIT: Duration = Duration::from_secs(3);

/// For `health --help`.
pub(super) const NOTES: &str = "\
Without --ready it asks /healthz: the server runs, and every shard answers. A server that drains, or
whose disk is full, is healthy: a restart would not help it. With --ready it asks /readyz: whether
mail should be sent here.

Exit codes: 0 healthy, or ready; 1 not, or no answer within 3 s";

#[derive(Args, Debug)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Ask whether mail should be sent to it
    #[arg(long)]
    ready: bool,
}

pub(super) fn run(args: &HealthArgs) -> ExitCode {
    match ask(args) {
        Ok(answer) => super::print(&format!("{answer}\n")),
        Err(why) => {
            crate::cli::complain!("mailrace: {why}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// A line: what it says, or why it is not well.
fn ask(args: &HealthArgs) -> Result<String, String> {
    let address = match args.admin.admin {
        Some(address) => address,
        None => {
            let config = &args.admin.config;
            let place = Config::probe_place(config.file.as_deref(), &config.sets);
            let place = place.map_err(|errors| one_line(&errors.to_string()))?;
            place.ok_or_else(|| ADMIN_OFF.to_owned())?
        }
    };
    let (path, good, bad) = match args.ready {
        true => ("/readyz", "ready", "not ready"),
        false => ("/healthz", "healthy", "not healthy"),
    };
    match admin::get(address, None, path, WAIT) {
        Ok(answer) => {
            // "ok", "ready", or "ready, degraded" and the reasons.
            let answer = one_line(&answer);
            Ok(if answer.starts_with("ready,") { answer } else { good.to_owned() })
        }
        Err(admin::ClientError::Refused(why)) => Err(format!("{bad}: {}", one_line(&why))),
        Err(error) => Err(format!("{bad}: {}", one_line(&error.to_string()))),
    }
}

fn one_line(text: &str) -> String {
    text.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
