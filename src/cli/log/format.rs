//! A record as a line, as JSON, as its mail data, or by a template.

use std::{
    fmt::Write as _,
    io::{self, Write},
    str::FromStr,
};

use clap::ValueEnum;

use super::text::{escape, human_size, quote_subject};
use crate::{
    header,
    log::{
        Identity, Log, MailFlag, Offset, ReadError, RecordId, RecordView, format_time,
        format_time_micros,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Named {
    /// Time, shard:offset, size, addresses, subject
    Short,
    /// One JSON object per line
    Json,
    /// Mail data only, without separators: exact, but records can no longer be separated; use -n 1
    Raw,
}

/// How records are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Named(Named),
    Template(Template),
}

impl Format {
    pub(super) fn new(named: Option<Named>, template: Option<&Template>, json: bool) -> Self {
        match (template, named) {
            (Some(template), _) => Self::Template(template.clone()),
            (None, Some(named)) => Self::Named(named),
            (None, None) if json => Self::Named(Named::Json),
            (None, None) => Self::Named(Named::Short),
        }
    }

    /// Prints one record.
    pub(super) fn print(
        &self,
        log: &Log,
        shard: u16,
        offset: u64,
        record: RecordView<'_>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let id = Identity { node: log.node(), shard }.record_id(Offset::new(offset));
        match self {
            Self::Named(Named::Raw) => {
                Ok(log.mail_data(shard, record, |chunk| out.write_all(chunk))?)
            }
            Self::Named(Named::Short) => short(log, id, record, out),
            Self::Named(Named::Json) => {
                let mut value = envelope_json(id, record);
                if let Some(object) = value.as_object_mut() {
                    object.insert("subject".to_owned(), subject_of(log, shard, record)?.into());
                }
                writeln!(out, "{value}")
            }
            Self::Template(template) => template.print(log, id, record, out),
        }
    }
}

/// `2026-11-22T18:04:05Z 3:725 18.2K alice@example.org -> sales@example.com (+2) "Order"`
fn short(log: &Log, id: RecordId, record: RecordView<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut paths = record.forward_paths();
    let first = paths.next().unwrap_or_default();
    let more = match paths.count() {
        0 => String::new(),
        more => format!(" (+{more})"),
    };
    let subject = subject_of(log, id.shard, record)?.unwrap_or_default();
    writeln!(
        out,
        "{} {}:{} {} {} -> {}{more} {}",
        format_time(record.received_at()),
        id.shard,
        id.offset,
        human_size(record.bytes()),
        sender(record),
        escape(first),
        quote_subject(&subject),
    )
}

/// The reverse-path, the null one as `<>`.
fn sender(record: RecordView<'_>) -> String {
    match record.mail_from() {
        "" => "<>".to_owned(),
        from => escape(from),
    }
}

/// The subject of a record's mail, decoded.
fn subject_of(log: &Log, shard: u16, record: RecordView<'_>) -> io::Result<Option<String>> {
    if record.fragments().next().is_none() {
        return Ok(header::subject(record.inline()));
    }
    // Of a large mail as much is read as may be looked at: the visitor breaks off then.
    let mut front = Vec::new();
    let read = log.mail_data(shard, record, |chunk| {
        let room = header::SCAN_BYTES_MAX - front.len();
        front.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
        if front.len() < header::SCAN_BYTES_MAX {
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::Interrupted))
    });
    match read {
        Ok(()) | Err(ReadError::Visitor(_)) => Ok(header::subject(&front)),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn body_name(record: RecordView<'_>) -> &'static str {
    match record.body_type() {
        0 => "7BIT",
        1 => "8BITMIME",
        _ => "BINARYMIME",
    }
}

/// Of RET (RFC 3461 §4.3).
pub(super) fn ret_name(ret: u8) -> Option<&'static str> {
    match ret {
        1 => Some("FULL"),
        2 => Some("HDRS"),
        _ => None,
    }
}

pub(super) fn envelope_json(id: RecordId, record: RecordView<'_>) -> serde_json::Value {
    let facts = record.facts();
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let params = text(facts.rcpt_params)
        .map(|_| record.recipients().map(|(_, params)| text(params)).collect::<Vec<_>>());
    let mut value = serde_json::json!({
        "id": id.to_string(),
        "shard": id.shard,
        "offset": id.offset.get(),
        "received_at": format_time_micros(record.received_at()),
        "listener": record.listener(),
        "mail_from": record.mail_from(),
        "rcpt_to": record.forward_paths().collect::<Vec<_>>(),
        "smtputf8": record.smtputf8(),
        "body": body_name(record),
        "esmtp": record.esmtp(),
        "helo": record.helo(),
        "client": record.client().to_string(),
        "size": record.bytes(),
        "size_declared": record.size_declared(),
        "flags": MailFlag::names(record.flags()).collect::<Vec<_>>(),
        "protocol": if facts.lmtp { "lmtp" } else { "smtp" },
    });
    let more = serde_json::json!({
        "tls_version": text(facts.tls_version),
        "tls_cipher": text(facts.tls_cipher),
        "tls_sni": text(facts.tls_sni),
        "tls_client": text(facts.tls_client),
        "auth_mechanism": text(facts.auth_mechanism),
        "auth_user": text(facts.auth_user),
        "proxy": facts.proxy.map(|proxy| proxy.to_string()),
        "proxy_facts": text(facts.proxy_facts),
        "rdns": text(facts.rdns),
        "list_score": facts.list_score,
        "ret": ret_name(facts.ret),
        "envid": text(facts.envid),
        "submitter": text(facts.submitter),
        "require_tls": facts.require_tls,
        "mt_priority": facts.mt_priority,
        "rcpt_params": params,
    });
    if let (Some(value), serde_json::Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

/// A template: text with `%` letters, and `\n \t \\ \0` as in C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Letter(char),
}

/// The letters and what they stand for.
pub(super) const LETTERS: &str = "\
Letters of a template:
  %s  shard                            %o  offset
  %i  record id                        %t  time received, RFC 3339 in UTC
  %F  reverse-path (<> for the null)   %R  forward-paths, comma-separated
  %N  number of forward-paths          %z  bytes of mail data
  %Z  the same, rounded (18.2K)        %S  subject
  %H  argument of HELO or EHLO         %C  client address and port
  %L  listener                         %f  flags of the mail data, comma-separated
  %%  a percent sign
  \\n \\t \\0 \\\\  line feed, tab, NUL, backslash
Text that a client chose is escaped, so that it prints as one line.";

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '%' => match characters.next() {
                    Some('%') => plain.push('%'),
                    Some(letter) if "soitFRNzZSHCLf".contains(letter) => {
                        if !plain.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut plain)));
                        }
                        pieces.push(Piece::Letter(letter));
                    }
                    Some(letter) => return Err(format!("unknown letter %{letter}")),
                    None => return Err("a lone % at the end".to_owned()),
                },
                '\\' => plain.push(match characters.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('0') => '\0',
                    Some('\\') => '\\',
                    Some(other) => return Err(format!("unknown escape \\{other}")),
                    None => return Err("a lone \\ at the end".to_owned()),
                }),
                _ => plain.push(character),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

impl Template {
    fn print(
        &self,
        log: &Log,
        id: RecordId,
        record: RecordView<'_>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        for piece in &self.0 {
            let text = match piece {
                Piece::Text(text) => text.clone(),
                Piece::Letter('S') => {
                    escape(&subject_of(log, id.shard, record)?.unwrap_or_default())
                }
                Piece::Letter(letter) => expand(*letter, id, record),
            };
            out.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

fn expand(letter: char, id: RecordId, record: RecordView<'_>) -> String {
    match letter {
        's' => id.shard.to_string(),
        'o' => id.offset.to_string(),
        'i' => id.to_string(),
        't' => format_time(record.received_at()),
        'F' => sender(record),
        'R' => {
            let mut all = String::new();
            for path in record.forward_paths() {
                // Writing into a String cannot fail.
                let _ = write!(all, "{}{}", if all.is_empty() { "" } else { "," }, escape(path));
            }
            all
        }
        'N' => record.forward_paths().count().to_string(),
        'z' => record.bytes().to_string(),
        'Z' => human_size(record.bytes()),
        'H' => escape(record.helo()),
        'C' => record.client().to_string(),
        'L' => escape(record.listener()),
        'f' => MailFlag::names(record.flags()).collect::<Vec<_>>().join(","),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read() {
        let template: Template = r"%s:%o 100%% %F\n".parse().unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        let want = [
            Piece::Letter('s'),
            text(":"),
            Piece::Letter('o'),
            text(" 100% "),
            Piece::Letter('F'),
            text("\n"),
        ];
        assert_eq!(template.0, want);
        for bad in ["%x", "%", "a\\", "\\q", "%é"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_letter_is_told_of() {
        for letter in "soitFRNzZSHCLf".chars() {
            assert!(LETTERS.contains(&format!("%{letter}  ")), "%{letter}");
        }
    }
}
