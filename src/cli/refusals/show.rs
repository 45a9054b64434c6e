//! One refusal as a line: columns, or a JSON event.

use std::io::{self, Write};

use super::read::Found;
use crate::{
    cli::log::text::escape,
    export::refused_line,
    log::{Refusal, format_time},
};

/// How refusals are printed.
#[derive(Debug)]
pub(super) struct Printer {
    pub(super) node: [u8; 6],
    pub(super) json: bool,
}

impl Printer {
    /// The names of the columns.
    pub(super) fn head(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        line(out, ["TIME", "CLIENT", "STAGE", "REPLY", "FROM", "TO", "HELO", "REASON"])
    }

    pub(super) fn print(&self, found: &Found, out: &mut dyn Write) -> io::Result<()> {
        let Found { shard, at, refusal } = found;
        if self.json {
            out.write_all(&refused_line(self.node, *shard, *at, refusal))?;
            return out.write_all(b"\n");
        }
        let reply = reply(refusal);
        let from = match refusal.mail_from.as_deref() {
            None => "-".to_owned(),
            Some("") => "<>".to_owned(),
            Some(path) => escape(path),
        };
        let known = |text: &str| if text.is_empty() { "-".to_owned() } else { escape(text) };
        line(
            out,
            [
                &format_time(refusal.at),
                &client(refusal),
                &refusal.stage,
                &reply,
                &from,
                &known(refusal.rcpt_to.as_deref().unwrap_or_default()),
                &known(&refusal.helo),
                &escape(&refusal.reason),
            ],
        )
    }
}

/// `550 5.1.1`
pub(super) fn reply(refusal: &Refusal) -> String {
    format!("{} {}", refusal.code, refusal.enhanced).trim_end().to_owned()
}

fn client(refusal: &Refusal) -> String {
    refusal.client.map_or_else(|| "unix".to_owned(), |client| client.ip().to_string())
}

/// Least widths: a refusal is printed before the next is read. A longer value moves the rest of its
/// own line.
fn line(
    out: &mut dyn Write,
    [time, client, stage, reply, from, to, helo, reason]: [&str; 8],
) -> io::Result<()> {
    writeln!(
        out,
        "{time:<20}  {client:<15}  {stage:<8}  {reply:<9}  {from:<28}  {to:<28}  {helo:<24}  {reason}"
    )
}
