//! What is added to a mail, and renamed in its header, on the way out. What the log holds never changes.
//!
//! ```text
//!  Authentication-Results: ours   from the verdict, where the listener tags (RFC 8601)
//!  trace fields                   of the sink, if it writes any (see `trace`)
//!  Date, Message-ID               where a submission has none (RFC 6409 §8)
//!  the mail data                  fields that pretend to be such results of ours are renamed
//! ```
//!
//! * Nothing false is claimed: without a verdict there is no field; `none` is said of a mail that was not
//!   judged and will not be.
//! * A field that claims our authserv-id is not removed, as RFC 8601 §5 allows, but renamed: nobody takes
//!   it for ours, and nothing is lost. In doubt it is renamed: whoever reads it later may be lenient.
//! * It depends on the record and its verdict alone, so a second delivery is the same.
//!
//! Documents (JSON, protobuf, tables) have the mail data as it is stored, and say how many fields would
//! be renamed (`auth.results_renamed`).

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use mailrace_log::{Check, Verdict};

use crate::Record;

/// RFC 8601 §2.2.
const RESULTS: &str = "Authentication-Results";

/// In front of a field's name that is not believed.
const RENAMED: &[u8] = b"X-Original-";

/// RFC 5322 §2.1.1: lines are folded there if they can be.
const LINE: usize = 78;

/// Characters of a value; with what stands around it, a line has at most 998 octets (RFC 5322 §2.1.1).
const VALUE_MAX: usize = 320;

/// What stands in front of mail data: our results, `trace`, what a submission lacks; each field with its
/// CRLF.
#[must_use]
pub fn front(record: &Record, trace: &[u8]) -> Vec<u8> {
    let mut out = results(record).into_bytes();
    out.extend_from_slice(trace);
    complete(record, &mut out);
    // A first line that begins with white space would continue ours. It is no header field, so
    // the header ends before it.
    if !out.is_empty() && matches!(record.data.first(), Some(b' ' | b'\t')) {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Mail data with fields renamed that claim to be ours.
#[must_use]
pub fn mail_data(record: &Record) -> Cow<'_, [u8]> {
    let claims: Vec<_> = claims(record).collect();
    if claims.is_empty() {
        return Cow::Borrowed(&record.data);
    }
    let mut out = Vec::with_capacity(record.data.len() + claims.len() * RENAMED.len());
    let mut from = 0;
    for field in claims {
        out.extend_from_slice(record.data.get(from..field.start).unwrap_or_default());
        out.extend_from_slice(RENAMED);
        from = field.start;
    }
    out.extend_from_slice(record.data.get(from..).unwrap_or_default());
    Cow::Owned(out)
}

/// The whole mail as it leaves, without trace fields.
#[must_use]
pub fn mail(record: &Record) -> Bytes {
    let mut front = front(record, b"");
    match mail_data(record) {
        Cow::Borrowed(_) if front.is_empty() => record.data.clone(),
        data => {
            front.extend_from_slice(&data);
            front.into()
        }
    }
}

/// RFC 6409 §8.1, §8.2: what a submission lacks. By its id and the time when it came: the same whenever
/// it is sent.
fn complete(record: &Record, out: &mut Vec<u8>) {
    let by = &record.facts.submission;
    if by.is_empty() {
        return;
    }
    let has = |name: &str| {
        fields(&record.data).any(|field| {
            let lines = record.data.get(field).unwrap_or_default();
            let colon = memchr::memchr(b':', lines).unwrap_or(0);
            lines
                .get(..colon)
                .unwrap_or_default()
                .trim_ascii()
                .eq_ignore_ascii_case(name.as_bytes())
        })
    };
    if !has("date") {
        let time = mail_parser::DateTime::from_timestamp(record.received_at.div_euclid(1_000_000));
        out.extend_from_slice(format!("Date: {}\r\n", time.to_rfc822()).as_bytes());
    }
    if !has("message-id") {
        let host: String =
            by.chars().filter(|c| c.is_ascii_graphic() && !"<>@".contains(*c)).collect();
        out.extend_from_slice(format!("Message-ID: <{}@{host}>\r\n", record.id).as_bytes());
    }
}

/// How many fields are renamed.
pub(crate) fn renamed(record: &Record) -> u32 {
    u32::try_from(claims(record).count()).unwrap_or(u32::MAX)
}

/// Where fields stand that claim to be ours.
fn claims(record: &Record) -> impl Iterator<Item = Range<usize>> {
    let own = record.facts.authserv_id.as_str();
    let data: &[u8] = if own.is_empty() { b"" } else { &record.data };
    fields(data).filter(move |field| {
        let lines = data.get(field.clone()).unwrap_or_default();
        let colon = memchr::memchr(b':', lines).unwrap_or(0);
        let (name, value) = lines.split_at(colon);
        name.trim_ascii().eq_ignore_ascii_case(RESULTS.as_bytes())
            && claims_to_be(value.get(1..).unwrap_or_default(), own)
    })
}

/// Every field of a header, however long the header is: unlike what people are shown, what is believed
/// must not depend on a bound. A continuation belongs to its field.
fn fields(data: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let line = |at: usize| {
        let rest = data.get(at..).unwrap_or_default();
        memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1)
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = data.get(at..).unwrap_or_default();
        if rest.is_empty() || rest.starts_with(b"\r\n") || rest.starts_with(b"\n") {
            return None;
        }
        let start = at;
        at += line(at);
        while let Some(b' ' | b'\t') = data.get(at) {
            at += line(at);
        }
        Some(start..at)
    })
}

/// Whether somebody may read the value of such a field as ours: its authserv-id, with or without
/// quotes, comments and a dot at its end, in any case. One that cannot be read may be anything.
fn claims_to_be(value: &[u8], own: &str) -> bool {
    let Some(ids) = authserv_ids(value) else { return true };
    ids.iter().any(|id| {
        let id = id.trim_end_matches('.');
        // Another spelling of an internationalised name (RFC 8601 §2.5).
        let spelled = !id.is_ascii() && own.contains("xn--");
        spelled || id.eq_ignore_ascii_case(own.trim_end_matches('.'))
    })
}

/// The authserv-id as readers may see it: a comment separates, or is nothing at all. `None`: a
/// comment or a quote does not end.
fn authserv_ids(value: &[u8]) -> Option<[String; 2]> {
    let (mut separated, mut joined) = (String::new(), String::new());
    let text = String::from_utf8_lossy(value);
    let mut characters = text.chars();
    let (mut depth, mut quoted) = (0_u32, false);
    loop {
        let Some(character) = characters.next() else {
            return (depth == 0 && !quoted).then(|| ids(&separated, &joined));
        };
        match character {
            '\\' if depth > 0 => drop(characters.next()),
            '\\' => {
                let escaped = characters.next()?;
                separated.push(escaped);
                joined.push(escaped);
            }
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth > 0 => {
                depth -= 1;
                separated.push(' ');
            }
            _ if depth > 0 => {}
            '"' => quoted = !quoted,
            ';' if !quoted => return Some(ids(&separated, &joined)),
            // Folding: of a quoted name, too.
            '\r' | '\n' => {}
            character => {
                separated.push(character);
                joined.push(character);
            }
        }
    }
}

fn ids(separated: &str, joined: &str) -> [String; 2] {
    [separated, joined].map(|text| {
        text.split_whitespace().next().unwrap_or_default().trim_end_matches('.').to_owned()
    })
}

/// Our field; empty where there is nothing to say.
fn results(record: &Record) -> String {
    let own = &record.facts.authserv_id;
    let Some(verdict) = record.verdict.as_deref().filter(|_| !own.is_empty()) else {
        return String::new();
    };
    let mut out = Folded { text: format!("{RESULTS}: {}", value(own)), line: 0 };
    out.line = out.text.len();
    let checks = methods(record, verdict);
    if checks.is_empty() {
        out.push(";", "none");
    }
    for items in checks {
        for (nth, item) in items.iter().enumerate() {
            out.push(if nth == 0 { ";" } else { "" }, item);
        }
    }
    out.text + "\r\n"
}

/// Each check, as the items of its resinfo.
fn methods(record: &Record, verdict: &Verdict) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for check in &verdict.spf {
        let (property, whose) = match check.identity.as_str() {
            "helo" => ("smtp.helo", check.domain.clone()),
            _ => ("smtp.mailfrom", mailbox(&record.mail_from, &check.domain)),
        };
        all.push(resinfo("spf", check, &[(property, &whose)]));
    }
    for check in &verdict.dkim {
        let properties = [
            ("header.d", &*check.domain),
            ("header.i", &check.identity),
            ("header.s", &check.selector),
            ("header.a", &check.algorithm),
        ];
        all.push(resinfo("dkim", check, &properties));
    }
    if let Some(dmarc) = &verdict.dmarc {
        let properties = [("header.from", &*dmarc.check.domain), ("policy.dmarc", &dmarc.policy)];
        all.push(resinfo("dmarc", &dmarc.check, &properties));
    }
    let client = record.client.ip().to_canonical().to_string();
    if let Some(arc) = &verdict.arc {
        all.push(resinfo("arc", arc, &[("smtp.remote-ip", &client)]));
    }
    if let Some(iprev) = &verdict.iprev {
        all.push(resinfo("iprev", iprev, &[("policy.iprev", &client)]));
    }
    all
}

fn resinfo(method: &str, check: &Check, properties: &[(&str, &str)]) -> Vec<String> {
    let mut items = vec![format!("{method}={}", check.result.name())];
    if !check.reason.is_empty() {
        items.push(format!("reason={}", value(&check.reason)));
    }
    let known = properties.iter().filter(|(_, text)| !text.is_empty());
    items.extend(known.map(|(name, text)| format!("{name}={}", value(text))));
    items
}

/// The reverse-path where it can be written, else its domain, which was checked.
fn mailbox(path: &str, domain: &str) -> String {
    match path.bytes().all(|octet| octet.is_ascii_graphic()) && path.contains('@') {
        true => path.to_owned(),
        false => domain.to_owned(),
    }
}

/// A value as it may stand there: a plain word or mailbox, else a quoted string. Whatever a sender
/// wrote, it ends neither the string nor the line.
fn value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    let is_word = |text: &str| !text.is_empty() && text.chars().all(plain);
    let (local, domain) = text.rsplit_once('@').unwrap_or(("", text));
    if text.len() <= VALUE_MAX && is_word(domain) && (local.is_empty() || is_word(local)) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for character in text.chars().take(VALUE_MAX) {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' ' | '!'..='~' => out.push(character),
            _ => out.push('?'),
        }
    }
    out + "\""
}

/// A field that is folded between its items.
struct Folded {
    text: String,
    line: usize,
}

impl Folded {
    fn push(&mut self, separator: &str, item: &str) {
        self.text += separator;
        self.line += separator.len();
        // Each check begins a line.
        if !separator.is_empty() || self.line + 1 + item.len() > LINE {
            self.text += "\r\n\t";
            self.line = 8;
        } else {
            self.text.push(' ');
            self.line += 1;
        }
        self.text += item;
        self.line += item.len();
    }
}

#[cfg(test)]
#[path = "way_out_tests.rs"]
mod tests;
