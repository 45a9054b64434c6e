//! `mailrace dump` and `mailrace flight`: the flight recorder, written and read.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{AdminArgs, EXIT_FAILED};
use crate::{
    admin,
    log::format_time_micros,
    shard::flight::{Event, Recording},
};

/// For `flight --help`.
pub(super) const NOTES: &str = "\
A server keeps the last 4,096 events of each shard in memory. It writes them to flight-TIME.bin in
its data directory after a panic or an abort, and for `mailrace dump`. Events are numbers: there is no
mail data, no address but the client's, and no secret in them.";

#[derive(Args, Debug)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// Has the running server write its flight recorder, and prints the path of the file.
pub(super) fn dump(args: &DumpArgs) -> ExitCode {
    let (address, token) = match args.admin.find() {
        Ok(place) => place,
        Err(code) => return code,
    };
    match admin::post(address, token.as_deref(), "/v1/dump") {
        Ok(path) => super::print(&path),
        Err(error) => {
            crate::cli::complain!("mailrace: {}", error.to_string().trim_end());
            ExitCode::from(EXIT_FAILED)
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct FlightArgs {
    /// A file that a server wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only this shard
    #[arg(long, value_name = "NUMBER")]
    shard: Option<u16>,
    /// Print JSON, a line for each event
    #[arg(long)]
    json: bool,
}

/// Prints the events of a file, all shards together in the order of time.
pub(super) fn flight(args: &FlightArgs) -> ExitCode {
    let failed = |why: &dyn std::fmt::Display| {
        crate::cli::complain!("mailrace: {}: {why}", args.file.display());
        ExitCode::from(EXIT_FAILED)
    };
    let octets = match std::fs::read(&args.file) {
        Ok(octets) => octets,
        Err(error) => return failed(&error),
    };
    let recording = match Recording::read(&octets) {
        Ok(recording) => recording,
        Err(error) => return failed(&error),
    };
    let wanted = |shard: u16| args.shard.is_none_or(|only| only == shard);
    let shards = recording.shards.iter().filter(|(shard, _)| wanted(*shard));
    let mut events: Vec<(u16, &Event)> =
        shards.flat_map(|(shard, events)| events.iter().map(|event| (*shard, event))).collect();
    events.sort_by_key(|(_, event)| event.at);
    let mut text = String::new();
    for (shard, event) in events {
        let time = format_time_micros(i64::try_from(event.at).unwrap_or(i64::MAX));
        // Writing to a string cannot fail.
        let _ = match args.json {
            true => writeln!(text, "{}", line(&time, shard, event)),
            false => writeln!(text, "{time} shard={shard} {event}"),
        };
    }
    super::print(&text)
}

fn line(time: &str, shard: u16, event: &Event) -> serde_json::Value {
    json!({
        "time": time,
        "shard": shard,
        "event": event.kind.name(),
        "session": event.session,
        "code": event.code,
        "value": event.value,
    })
}
