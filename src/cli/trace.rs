//! `mailrace trace`: sessions of the running server, as they go on.

use std::{
    fmt::Write as _,
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use serde_json::Value;

use super::{AdminArgs, EXIT_FAILED};
use crate::admin;

/// For `trace --help`.
pub(super) const NOTES: &str = "\
Follows all sessions, or those that match every option given. With --from or --rcpt a session is
followed from the first of its messages that matches. Each line has the session's number; `seconds`
is the time since: for `handshake` its start, for `received` MAIL, for `stored` MAIL (and
commit_seconds the end of the mail data), for `closed` the accept. Mail data, subjects and passwords
are never shown. The server waits for nobody: events that are not read in time are dropped, and a
line says how many.";

#[derive(Args, Debug)]
pub(super) struct TraceArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only clients with this address or of this network
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    client: Option<String>,
    /// Only this listener
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Only mail from this sender; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    from: Option<String>,
    /// Only mail to this recipient; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    rcpt: Option<String>,
    /// End after this many events
    #[arg(short = 'n', long, value_name = "EVENTS")]
    count: Option<u64>,
    /// Print JSON, a line for each event
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TraceArgs) -> ExitCode {
    let (address, token) = match args.admin.find() {
        Ok(place) => place,
        Err(code) => return code,
    };
    let wishes = [
        ("client", &args.client),
        ("listener", &args.listener),
        ("from", &args.from),
        ("rcpt", &args.rcpt),
    ];
    let given = wishes.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let pairs: Vec<String> =
        given.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let path = format!("/v1/trace?{}", pairs.join("&"));
    let (mut left, mut written) = (args.count.unwrap_or(u64::MAX), Ok(()));
    let mut begun = false;
    let read = admin::watch_lines(address, token.as_deref(), &path, |line| {
        if !std::mem::replace(&mut begun, true) {
            crate::cli::complain!("mailrace: following sessions");
        }
        if line.is_empty() {
            return left > 0;
        }
        let text = if args.json { line.to_owned() } else { shown(line) };
        let mut out = io::stdout().lock();
        written = writeln!(out, "{text}").and_then(|()| out.flush());
        left = left.saturating_sub(1);
        written.is_ok() && left > 0
    });
    match read {
        Ok(()) => super::finish(written, ExitCode::SUCCESS),
        Err(error) => {
            crate::cli::complain!("mailrace: {}", error.to_string().trim_end());
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// A value of a query (RFC 3986 §2.1).
fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, octet| {
        match octet.is_ascii_alphanumeric() {
            true => text.push(char::from(octet)),
            // Writing to a string cannot fail.
            false => _ = write!(text, "%{octet:02X}"),
        }
        text
    })
}

/// An event for people: its time and what it is, then the rest as `name=value`.
fn shown(line: &str) -> String {
    let Ok(Value::Object(mut event)) = serde_json::from_str(line) else { return line.to_owned() };
    let mut first = |name: &str| match event.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let mut text = format!("{} {:<9}", first("time"), first("event"));
    let order = ["session", "shard", "client", "port", "listener"];
    let known = order.iter().filter_map(|name| Some(((*name).to_owned(), event.remove(*name)?)));
    let known: Vec<(String, Value)> = known.collect();
    for (name, value) in known.into_iter().chain(event) {
        let value = match value {
            Value::Null => continue,
            Value::String(value) if is_plain(&value) => value,
            value => value.to_string(),
        };
        let _ = write!(text, " {name}={value}");
    }
    text.trim().to_owned()
}

/// Whether a text can stand without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"\"=\\".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_shown_on_a_line() {
        let line = r#"{"time":"T","event":"refused","session":7,"client":"192.0.2.1","code":550,"reason":"5.1.1 No\u001b such","from":null,"stage":"rcpt"}"#;
        assert_eq!(
            shown(line),
            r#"T refused   session=7 client=192.0.2.1 code=550 reason="5.1.1 No\u001b such" stage=rcpt"#
        );
        assert_eq!(encoded("*@b.test"), "%2A%40b%2Etest");
    }
}
