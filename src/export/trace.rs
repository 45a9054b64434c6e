//! The trace fields in front of a message that is handed on.
//!
//! | where to | Return-Path | X-Mailrace-Id | Received | earlier Return-Path |
//! |---|---|---|---|---|
//! | SMTP | - | yes | yes | kept: a relay changes nothing (RFC 5321 §4.4) |
//! | LMTP | with `return_path = true` | yes | yes | removed |
//! | eml, maildir, mbox | yes | yes | yes | removed |
//! | raw documents, objects | - | - | - | kept: with a separate envelope |
//! | events, `trace = false`, `log get` | - | - | - | kept: exact octets |
//!
//! What `way_out` adds stands around the last two of our lines, and is in all but exact octets.
//!
//! `X-Mailrace-Id` names the record, so that a consumer can drop what was delivered twice (D4). The
//! topmost one counts: a sender may have written others.
//!
//! RFC 5321 §4.4 requires every SMTP server to add a Received field, by which loops are found
//! (§6.3), and the server that makes the final delivery to add a Return-Path, of which there is to
//! be one: it removes those of the sender. Files are a final delivery. A server that speaks LMTP
//! makes the final delivery itself and writes Return-Path from MAIL FROM, so that ours would be a
//! second one.

use std::{borrow::Cow, io::Write, net::IpAddr};

use super::{Record, path::quoted, way_out};
use mailrace_header::{Fields, SCAN_BYTES_MAX};

/// Renders the lines, each with its CRLF; `by` is this server's name.
pub(super) fn lines(record: &Record, return_path: bool, by: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(384);
    // Writing into a Vec cannot fail.
    if return_path {
        let path = quoted(&record.mail_from);
        let path: String = path.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
        let _ = write!(out, "Return-Path: <{path}>\r\n");
    }
    let mut trace = format!("X-Mailrace-Id: {}\r\n", record.id).into_bytes();
    push_received(record, by, &mut trace);
    out.append(&mut way_out::front(record, &trace));
    out
}

/// A message as its final delivery leaves it.
#[cfg(feature = "files")]
pub(super) fn delivered(record: &Record, by: &str) -> Vec<u8> {
    let mut out = lines(record, true, by);
    out.extend_from_slice(&without_return_path(&way_out::mail_data(record)));
    out
}

/// Mail data without the Return-Path fields of its header section.
pub(super) fn without_return_path(data: &[u8]) -> Cow<'_, [u8]> {
    let mut kept = Vec::new();
    let mut from = 0;
    for field in Fields::new(data).filter(|field| field.is("return-path")) {
        // A field is a part of `data`.
        let at = field.lines.as_ptr() as usize - data.as_ptr() as usize;
        let end = at + field.lines.len();
        // One that goes on where nobody looks stays whole.
        if end == SCAN_BYTES_MAX && end < data.len() {
            break;
        }
        kept.extend_from_slice(data.get(from..at).unwrap_or_default());
        from = end;
    }
    match from {
        0 => Cow::Borrowed(data),
        _ => {
            kept.extend_from_slice(data.get(from..).unwrap_or_default());
            Cow::Owned(kept)
        }
    }
}

fn push_received(record: &Record, by: &str, out: &mut Vec<u8>) {
    let _ = write!(out, "Received: from {} ", domain(&record.helo));
    let _ = match record.client.ip().to_canonical() {
        IpAddr::V4(ip) => write!(out, "([{ip}])"),
        IpAddr::V6(ip) => write!(out, "([IPv6:{ip}])"),
    };
    let _ = write!(out, "\r\n\tby {} with {} id {}", domain(by), with(record), record.id);
    // RFC 5321 §7.2: with more than one, each would learn of the others.
    if let [only] = record.rcpt_to.as_slice()
        && only.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>'))
    {
        let _ = write!(out, "\r\n\tfor <{}>", quoted(only));
    }
    // RFC 8314 §4.3.
    let cipher = &record.facts.tls_cipher;
    if !cipher.is_empty() && cipher.bytes().all(|o| o.is_ascii_alphanumeric() || o == b'_') {
        let _ = write!(out, "\r\n\ttls {cipher}");
    }
    let time = mail_parser::DateTime::from_timestamp(record.received_at.div_euclid(1_000_000));
    let _ = write!(out, ";\r\n\t{}\r\n", time.to_rfc822());
}

/// The protocol it came by (RFC 3848, RFC 6531 §4.3).
fn with(record: &Record) -> String {
    let protocol = match (record.smtputf8, record.facts.lmtp) {
        (true, true) => "UTF8LMTP",
        (true, false) => "UTF8SMTP",
        (false, true) => "LMTP",
        (false, false) if record.esmtp => "ESMTP",
        (false, false) => return "SMTP".to_owned(),
    };
    let secure = if record.under_tls() { "S" } else { "" };
    let authenticated = if record.facts.auth_mechanism.is_empty() { "" } else { "A" };
    format!("{protocol}{secure}{authenticated}")
}

/// What a domain or an address literal may hold; the rest becomes `_`, so nothing can be forged.
fn domain(text: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    text.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5321_4_4_earlier_return_paths_go_with_their_continuations() {
        for (data, left) in [
            ("A: b\r\n\r\nx", "A: b\r\n\r\nx"),
            ("Return-Path: <a@b>\r\n\r\nx", "\r\nx"),
            ("A: b\r\nreturn-path :\r\n\t<a@b>\r\n  c\r\nD: e\r\n\r\nx", "A: b\r\nD: e\r\n\r\nx"),
            ("RETURN-PATH:x\nReturn-Path: y\nA: b\n", "A: b\n"),
            (
                "Return-Path-Not: x\r\nX-Return-Path: x\r\n",
                "Return-Path-Not: x\r\nX-Return-Path: x\r\n",
            ),
            ("A: b\r\n\r\nReturn-Path: body\r\n", "A: b\r\n\r\nReturn-Path: body\r\n"),
            ("From a Mon Mar  2\r\nReturn-Path: x\r\nA: b\r\n", "From a Mon Mar  2\r\nA: b\r\n"),
            ("Return-Path: x", ""),
            ("", ""),
        ] {
            let got = without_return_path(data.as_bytes());
            assert_eq!(String::from_utf8_lossy(&got), left, "{data:?}");
        }
    }
}
