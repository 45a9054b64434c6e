//! The lines in front of a relayed message.
//!
//! `X-Mailrace-Id` names the record, so that a consumer can drop what was delivered twice (D4). The
//! topmost one counts: a sender may have written others.
//!
//! RFC 5321 §4.4 has every SMTP server that takes mail for relaying add a Received field, and loops
//! are found by it (§6.3): towards SMTP there is one. Towards LMTP there is none. A delivery agent
//! behind LMTP is the final system, writes Return-Path and mostly a Received field of its own, and
//! gets the message as it was received.

use std::{io::Write, net::IpAddr};

use super::super::Record;

/// Renders the lines, each with its CRLF; `by` is what this side calls itself.
pub(super) fn lines(record: &Record, lmtp: bool, by: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    // Writing into a Vec cannot fail.
    let _ = write!(out, "X-Mailrace-Id: {}\r\n", record.id);
    if !lmtp {
        push_received(record, by, &mut out);
    }
    // A first line that begins with white space would continue ours. It is no header field, so
    // the header ends before it.
    if matches!(record.data.first(), Some(b' ' | b'\t')) {
        out.extend_from_slice(b"\r\n");
    }
    out
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
        let _ = write!(out, "\r\n\tfor <{only}>");
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
