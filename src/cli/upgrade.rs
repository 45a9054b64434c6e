//! `mailrace upgrade`

use std::{
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use super::{AdminArgs, EXIT_FAILED};
use crate::{
    admin::{self, ClientError},
    config::{format_duration, parse_duration},
};

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// For one answer.
const WAIT: Duration = Duration::from_secs(5);

/// Beyond the time of sessions: messages in progress may take 30 s, recovery some time.
const PATIENCE: Duration = Duration::from_secs(120);

/// For `upgrade --help`.
pub(super) const NOTES: &str = "\
The running server replaces its program by the one that now lies at the path it was started from, with
the same arguments. Ports stay open: connections that come meanwhile wait for the next program's
greeting, and none is refused. Sessions may go on for --drain, then they get 421 at their next command,
and messages in progress another 30 s. The process number stays, so a service manager sees a reload.

A program that is not Mailrace, or does not accept the configuration, changes nothing. One that cannot
start is replaced by the former again. To go back later, put the former program at the path and upgrade.
SIGUSR2 does the same as this command; the log says what came of it.

Exit codes: 0 the next program serves; 1 it does not, and the former program goes on if it can";

#[derive(Args, Debug)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// How long sessions may go on [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    drain: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &UpgradeArgs) -> ExitCode {
    let (address, token) = match args.admin.find() {
        Ok(place) => place,
        Err(code) => return code,
    };
    let path = match args.drain {
        Some(drain) => format!("/v1/upgrade?drain_ms={}", drain.as_millis()),
        None => "/v1/upgrade".to_owned(),
    };
    let begun: Value = match admin::post(address, token.as_deref(), &path) {
        Ok(answer) => serde_json::from_str(&answer).unwrap_or_default(),
        Err(error) => return failed(args, &error.to_string()),
    };
    let began = Instant::now();
    let drain = Duration::try_from_secs_f64(begun["drain_seconds"].as_f64().unwrap_or_default());
    let patience = PATIENCE + drain.unwrap_or_default();
    while began.elapsed() < patience {
        match outcome(address, token.as_deref(), &begun) {
            Ok(Some(outcome)) if outcome["ok"] == true => {
                let (from, to) = (text(&begun["from"]), text(&begun["to"]));
                let seconds = began.elapsed().as_secs_f64();
                return super::print(&match args.json {
                    true => {
                        let told = json!({
                            "upgraded": true, "from": from, "to": to, "seconds": seconds,
                        });
                        format!("{told}\n")
                    }
                    false => format!("upgraded from {from} to {to} in {seconds:.1} s\n"),
                });
            }
            Ok(Some(outcome)) => return failed(args, text(&outcome["error"])),
            Ok(None) => thread::sleep(ASK_EVERY),
            // Between the programs nobody answers, and the port is open.
            Err(ClientError::Unreachable(..)) if TcpStream::connect(address).is_ok() => {
                thread::sleep(ASK_EVERY);
            }
            Err(ClientError::Unreachable(..)) => {
                return failed(args, "the server has ended; its log says why");
            }
            Err(error) => return failed(args, &error.to_string()),
        }
    }
    failed(args, &format!("no outcome after {}; see the log", format_duration(patience)))
}

/// How this upgrade went, once that is known.
fn outcome(
    address: SocketAddr,
    token: Option<&str>,
    begun: &Value,
) -> Result<Option<Value>, ClientError> {
    let status = admin::get(address, token, "/v1/status", WAIT)?;
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    let upgrade = &status["upgrade"];
    Ok((upgrade["id"] == begun["id"]).then(|| upgrade.clone()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn failed(args: &UpgradeArgs, why: &str) -> ExitCode {
    let why = why.trim_end();
    if args.json {
        let told = json!({ "upgraded": false, "error": why });
        super::print(&format!("{told}\n"));
    } else {
        for line in why.lines() {
            crate::cli::complain!("mailrace: {line}");
        }
    }
    ExitCode::from(EXIT_FAILED)
}
