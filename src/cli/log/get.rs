//! `mailrace log get`

use std::{
    io::{self, Write},
    process::ExitCode,
    str::FromStr,
};

use bytes::Bytes;
use clap::Args;

use super::{
    format::{auth_json, envelope_json},
    text::escape,
};
use crate::{
    export::{Record, saved_hostname, way_out},
    header,
    log::{
        BadRecordId, Facts, Log, MailFlag, Offset, RecordId, RecordView, Verdict,
        format_time_micros,
    },
    smtp::{ReceivedFacts, received_field},
};

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// Record id from the 250 reply, or SHARD:OFFSET
    #[arg(value_name = "ID")]
    record: RecordName,
    /// Print only the header, as it was received
    #[arg(long, conflicts_with = "envelope")]
    headers: bool,
    /// Print the envelope instead of the mail
    #[arg(long)]
    envelope: bool,
    /// Prepend this server's Received field (RFC 5321 §4.4), and Authentication-Results if the listener
    /// tags
    #[arg(long, conflicts_with = "envelope")]
    received: bool,
    /// Server name in the Received field [default: server.hostname, as saved in the data directory]
    #[arg(long, value_name = "NAME", requires = "received")]
    hostname: Option<String>,
}

/// How a user names a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordName {
    Id(RecordId),
    Here(u16, u64),
}

impl FromStr for RecordName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.split_once(':').and_then(|(shard, offset)| {
            let digits = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
            (digits(shard) && digits(offset))
                .then(|| Some(Self::Here(shard.parse().ok()?, offset.parse().ok()?)))?
        });
        match place {
            Some(place) => Ok(place),
            None => text
                .parse()
                .map(Self::Id)
                .map_err(|bad: BadRecordId| format!("{bad}, nor SHARD:OFFSET")),
        }
    }
}

pub(super) fn run(
    log: &Log,
    args: &GetArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    if json && !args.envelope {
        let what = "--json goes with --envelope: mail data is printed as it is";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let id = match args.record {
        RecordName::Id(id) => id,
        RecordName::Here(shard, offset) => {
            RecordId { node: log.node(), shard, offset: Offset::new(offset) }
        }
    };
    log.get(id, |log, record| {
        if args.envelope {
            return envelope(log, id, record, json, out);
        }
        if args.received {
            // Of the server that received it; this may run on another machine.
            let kept = args.hostname.clone().or_else(|| saved_hostname(log.dir()));
            let Some(by) = kept else {
                let what = "the data directory does not hold the server's name yet: give it as \
                            --hostname NAME";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            };
            let trace = received(id, record, &by);
            return print_handed_on(log, id, record, &trace, args.headers, out);
        }
        if args.headers {
            return print_header(log, id.shard, record, out);
        }
        Ok(log.mail_data(id.shard, record, |chunk| out.write_all(chunk))?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn received(id: RecordId, record: RecordView<'_>, by: &str) -> Vec<u8> {
    let mut paths = record.forward_paths();
    // RFC 5321 §7.2: `for` would tell blind recipients of each other.
    let only_forward_path = paths.next().filter(|_| paths.next().is_none());
    let known = record.facts();
    let facts = ReceivedFacts {
        helo: record.helo(),
        esmtp: record.esmtp(),
        lmtp: known.lmtp,
        tls: record.under_tls(),
        tls_cipher: known.tls_cipher,
        authenticated: !known.auth_mechanism.is_empty(),
        smtputf8: record.smtputf8(),
        only_forward_path,
    };
    let mut field = Vec::new();
    let time = record.received_at();
    received_field(&facts, record.client(), by, &id.to_string(), time, &mut field);
    field
}

/// The header of mail data that comes in pieces; it may end across two of them.
#[derive(Default)]
struct Front {
    octets: Vec<u8>,
    searched: usize,
    end: Option<usize>,
}

impl Front {
    /// Whether the header is whole.
    fn push(&mut self, piece: &[u8]) -> bool {
        self.octets.extend_from_slice(piece);
        let rest = self.octets.get(self.searched..).unwrap_or_default();
        self.end = header::end(rest).map(|len| self.searched + len);
        // Whole lines need no second look.
        self.searched += memchr::memrchr(b'\n', rest).map_or(0, |at| at + 1);
        self.end.is_some()
    }

    /// The header, and what was read behind it.
    fn split(&self) -> (&[u8], &[u8]) {
        self.octets.split_at(self.end.unwrap_or(self.octets.len()))
    }
}

/// Prints the header.
fn print_header(
    log: &Log,
    shard: u16,
    record: RecordView<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut front = Front::default();
    log.mail_data(shard, record, |piece| {
        if front.end.is_none() {
            front.push(piece);
        }
        Ok(())
    })?;
    out.write_all(front.split().0)
}

/// Prints a mail, or its header, as it is handed on.
fn print_handed_on(
    log: &Log,
    id: RecordId,
    record: RecordView<'_>,
    trace: &[u8],
    only_header: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let verdict = log.verdict(id.shard, id.offset.get(), record)?.map(Box::new);
    let print = |front: &Front, out: &mut dyn Write| {
        let (header, rest) = front.split();
        let data = Bytes::copy_from_slice(header);
        let head = Record { verdict: verdict.clone(), ..Record::new(id, record, data) };
        out.write_all(&way_out::front(&head, trace))?;
        out.write_all(&way_out::mail_data(&head))?;
        out.write_all(if only_header { b"" } else { rest })
    };
    let mut front = Front::default();
    log.mail_data(id.shard, record, |piece| match front.end {
        None => match front.push(piece) {
            true => print(&front, out),
            false => Ok(()),
        },
        Some(_) if only_header => Ok(()),
        Some(_) => out.write_all(piece),
    })?;
    // A header that nothing ends.
    if front.end.is_none() { print(&front, out) } else { Ok(()) }
}

fn envelope(
    log: &Log,
    id: RecordId,
    record: RecordView<'_>,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    if json {
        let mut value = envelope_json(id, record);
        if let Some(object) = value.as_object_mut() {
            object.insert("auth".to_owned(), auth_json(log, id, record)?);
        }
        return writeln!(out, "{value}");
    }
    writeln!(out, "id        {id}")?;
    writeln!(out, "received  {}", format_time_micros(record.received_at()))?;
    writeln!(out, "listener  {}", escape(record.listener()))?;
    writeln!(out, "client    {}", record.client())?;
    let verb = if record.esmtp() { "ehlo" } else { "helo" };
    writeln!(out, "{verb}      {}", escape(record.helo()))?;
    writeln!(out, "from      <{}>", escape(record.mail_from()))?;
    for (path, params) in record.recipients() {
        let space = if params.is_empty() { "" } else { " " };
        writeln!(out, "to        <{}>{space}{}", escape(path), escape(params))?;
    }
    let utf8 = if record.smtputf8() { " SMTPUTF8" } else { "" };
    writeln!(out, "body      {}{utf8}", record.metadata().body())?;
    writeln!(out, "size      {}", record.bytes())?;
    let flags = MailFlag::names(record.flags()).collect::<Vec<_>>().join(", ");
    if !flags.is_empty() {
        writeln!(out, "flags     {flags}")?;
    }
    facts(&record.facts(), out)?;
    verdict(log.verdict(id.shard, id.offset.get(), record)?.as_ref(), out)
}

/// A line for each check.
fn verdict(verdict: Option<&Verdict>, out: &mut dyn Write) -> io::Result<()> {
    let Some(verdict) = verdict else { return Ok(()) };
    let spf = verdict.spf.iter().map(|check| ("spf", check));
    let dkim = verdict.dkim.iter().map(|check| ("dkim", check));
    let dmarc = verdict.dmarc.iter().map(|dmarc| ("dmarc", &dmarc.check));
    let arc = verdict.arc.iter().map(|check| ("arc", check));
    let iprev = verdict.iprev.iter().map(|check| ("iprev", check));
    for (method, check) in spf.chain(dkim).chain(dmarc).chain(arc).chain(iprev) {
        let words = [check.result.name(), &check.identity, &check.domain, &check.selector];
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let reason = if check.reason.is_empty() { "" } else { ": " };
        writeln!(out, "{method:<9} {}{reason}{}", escape(&words.join(" ")), escape(&check.reason))?;
    }
    match verdict.skipped.as_str() {
        "" => Ok(()),
        why => writeln!(out, "verdict   none: {why}"),
    }
}

/// A line for each of what few records have.
fn facts(facts: &Facts<'_>, out: &mut dyn Write) -> io::Result<()> {
    let proxy = facts.proxy.map(|proxy| proxy.to_string()).unwrap_or_default();
    let score = if facts.list_score == 0 { String::new() } else { facts.list_score.to_string() };
    let priority = facts.mt_priority.map(|priority| priority.to_string()).unwrap_or_default();
    let mut line = |label: &str, value: &str| match value {
        "" => Ok(()),
        _ => writeln!(out, "{label:<9} {}", escape(value)),
    };
    line("protocol", if facts.lmtp { "LMTP" } else { "" })?;
    line("proxy", &proxy)?;
    for texts in facts.texts().chunk_by(|one, next| one.label == next.label) {
        let label = texts.first().map_or("", |fact| fact.label);
        let texts: Vec<_> = texts.iter().map(|fact| fact.text).collect();
        if !label.is_empty() {
            texts.join(" ").trim().lines().try_for_each(|text| line(label, text))?;
        }
    }
    line("score", &score)?;
    line("ret", facts.ret_name().unwrap_or_default())?;
    line("demands", if facts.require_tls { "REQUIRETLS" } else { "" })?;
    line("priority", &priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text that nobody thought of here has its line all the same.
    #[test]
    fn every_fact_has_its_place_in_the_envelope() {
        for (number, fact) in Facts::default().texts().iter().enumerate() {
            let known = Facts::with_text(number, "marker");
            let mut out = Vec::new();
            facts(&known, &mut out).unwrap();
            let line = format!("{:<9} marker\n", fact.label);
            // Shown with the forward-paths.
            let line = if fact.name == "rcpt_params" { String::new() } else { line };
            assert_eq!(String::from_utf8(out).unwrap(), line, "{}", fact.name);
        }
    }

    #[test]
    fn a_record_has_two_names() {
        assert_eq!("3:725".parse(), Ok(RecordName::Here(3, 725)));
        let id = "7f3a9c21b04e-003-00000000000002d5";
        assert_eq!(id.parse(), Ok(RecordName::Id(id.parse().unwrap())));
        for bad in ["", ":", "3:", "x:1", "3:-1", "70000:1", "3", "7f3a"] {
            assert!(bad.parse::<RecordName>().is_err(), "{bad}");
        }
    }
}
