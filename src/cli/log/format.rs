//! A record as a line, as JSON, as its mail data, or by a template.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write},
    str::FromStr,
};

use clap::ValueEnum;

use super::text::{escape, human_size, quote_subject};
use crate::{
    header,
    log::{
        Facts, Identity, Log, MailFlag, Offset, ReadError, RecordId, RecordView, Verdict,
        format_time, format_time_micros,
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
                    object.insert("auth".to_owned(), auth_json(log, id, record)?);
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

/// Reads a value of the envelope.
type Read = fn(RecordId, RecordView<'_>) -> serde_json::Value;

/// What the envelope has besides the facts that are texts.
const FIELDS: &[(&str, Read)] = &[
    ("id", |id, _| id.to_string().into()),
    ("shard", |id, _| id.shard.into()),
    ("offset", |id, _| id.offset.get().into()),
    ("received_at", |_, record| format_time_micros(record.received_at()).into()),
    ("listener", |_, record| record.listener().into()),
    ("mail_from", |_, record| record.mail_from().into()),
    ("rcpt_to", |_, record| record.forward_paths().collect::<Vec<_>>().into()),
    ("rcpt_params", |_, record| match record.facts().rcpt_params {
        "" => serde_json::Value::Null,
        _ => record.recipients().map(|(_, params)| known(params)).collect::<Vec<_>>().into(),
    }),
    ("smtputf8", |_, record| record.smtputf8().into()),
    ("body", |_, record| record.metadata().body().into()),
    ("esmtp", |_, record| record.esmtp().into()),
    ("helo", |_, record| record.helo().into()),
    ("client", |_, record| record.client().to_string().into()),
    ("size", |_, record| record.bytes().into()),
    ("size_declared", |_, record| record.size_declared().into()),
    ("flags", |_, record| MailFlag::names(record.flags()).collect::<Vec<_>>().into()),
    ("protocol", |_, record| record.facts().protocol().into()),
    ("proxy", |_, record| record.facts().proxy.map(|proxy| proxy.to_string()).into()),
    ("list_score", |_, record| record.facts().list_score.into()),
    ("ret", |_, record| record.facts().ret_name().into()),
    ("require_tls", |_, record| record.facts().require_tls.into()),
    ("mt_priority", |_, record| record.facts().mt_priority.into()),
];

/// What is kept next to the log: the words of the verdict, `spf=pass dmarc=fail`.
const AUTH: &str = "auth";

/// What is empty is not known.
fn known(text: &str) -> serde_json::Value {
    Some(text).filter(|text| !text.is_empty()).into()
}

/// Names of the envelope's values, as `--json` and templates have them.
fn names() -> BTreeSet<&'static str> {
    let texts = Facts::default().texts().map(|fact| fact.name);
    FIELDS.iter().map(|(name, _)| *name).chain(texts).chain([AUTH]).collect()
}

pub(super) fn envelope_json(id: RecordId, record: RecordView<'_>) -> serde_json::Value {
    let facts = record.facts();
    let texts = facts.texts().map(|fact| (fact.name.to_owned(), known(fact.text)));
    let mut all: serde_json::Map<_, _> = texts.into_iter().collect();
    all.extend(FIELDS.iter().map(|(name, read)| ((*name).to_owned(), read(id, record))));
    all.into()
}

/// The verdict on the sender; null where there is none.
pub(super) fn auth_json(
    log: &Log,
    id: RecordId,
    record: RecordView<'_>,
) -> io::Result<serde_json::Value> {
    let verdict = log.verdict(id.shard, id.offset.get(), record)?;
    Ok(verdict.map_or(serde_json::Value::Null, |verdict| {
        serde_json::to_value(verdict).unwrap_or(serde_json::Value::Null)
    }))
}

/// `spf=pass dkim=fail dmarc=pass`
fn words(log: &Log, id: RecordId, record: RecordView<'_>) -> io::Result<String> {
    let verdict = log.verdict(id.shard, id.offset.get(), record)?;
    let words = verdict.iter().flat_map(Verdict::words);
    let words = words.map(|(method, word)| format!("{method}={}", word.name()));
    Ok(words.collect::<Vec<_>>().join(" "))
}

/// One value of the envelope.
fn value(name: &str, id: RecordId, record: RecordView<'_>) -> serde_json::Value {
    if let Some((_, read)) = FIELDS.iter().find(|(known, _)| *known == name) {
        return read(id, record);
    }
    let facts = record.facts();
    known(facts.texts().iter().find(|fact| fact.name == name).map_or("", |fact| fact.text))
}

/// A value of the envelope as text: a list with commas, nothing where it is not known.
fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => escape(text),
        serde_json::Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A template: text with `%` letters, and `\n \t \\ \0` as in C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Letter(char),
    /// A value of the envelope by its name.
    Named(&'static str),
}

/// The letters, what they stand for, and the names.
pub(super) fn help() -> String {
    let mut text = LETTERS.to_owned();
    let mut line = String::new();
    for name in names() {
        if line.len() + name.len() > LINE_CHARACTERS {
            text = text + "\n " + &std::mem::take(&mut line);
        }
        line = line + " " + name;
    }
    text = text + "\n " + &line;
    text
}

/// Of a list in the help.
const LINE_CHARACTERS: usize = 90;

const LETTERS: &str = "\
Letters of a template:
  %s  shard                            %o  offset
  %i  record id                        %t  time received, RFC 3339 in UTC
  %F  reverse-path (<> for the null)   %R  forward-paths, comma-separated
  %N  number of forward-paths          %z  bytes of mail data
  %Z  the same, rounded (18.2K)        %S  subject
  %H  argument of HELO or EHLO         %C  client address and port
  %L  listener                         %f  flags of the mail data, comma-separated
  %%  a percent sign                   %{NAME}  a value of the envelope, see below
  \\n \\t \\0 \\\\  line feed, tab, NUL, backslash
Text that a client chose is escaped, so that it prints as one line.
Values of the envelope, as in --json, empty if unknown:";

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
                    Some('{') => {
                        let name: String = characters.by_ref().take_while(|c| *c != '}').collect();
                        let known = names().into_iter().find(|known| *known == name);
                        let known = known.ok_or_else(|| format!("unknown name %{{{name}}}"))?;
                        if !plain.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut plain)));
                        }
                        pieces.push(Piece::Named(known));
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
                Piece::Named(AUTH) => words(log, id, record)?,
                Piece::Named(name) => shown(&value(name, id, record)),
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
        for bad in ["%x", "%", "a\\", "\\q", "%é", "%{", "%{nothing}"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }

    /// A fact that nobody thought of here has its name all the same.
    #[test]
    fn every_fact_has_a_name_in_templates() {
        for fact in Facts::default().texts() {
            let template: Template = format!("%{{{}}}", fact.name).parse().unwrap();
            assert_eq!(template.0, [Piece::Named(fact.name)]);
            assert!(help().contains(fact.name), "{}", fact.name);
        }
        assert!(help().lines().all(|line| line.len() <= 100), "{}", help());
    }

    #[test]
    fn every_letter_is_told_of() {
        for letter in "soitFRNzZSHCLf".chars() {
            assert!(LETTERS.contains(&format!("%{letter}  ")), "%{letter}");
        }
    }
}
