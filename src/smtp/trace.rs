//! The Received field (RFC 5321 §4.4), rendered when a message is read out.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// What the envelope says to the Received field.
#[derive(Debug, Default, Clone, Copy)]
pub struct ReceivedFacts<'a> {
    /// Name from EHLO or HELO, as given.
    pub helo: &'a str,
    /// Whether the client said EHLO.
    pub esmtp: bool,
    /// Whether it came by LMTP.
    pub lmtp: bool,
    /// Whether it came under TLS.
    pub tls: bool,
    /// Cipher suite by its IANA name; empty where it is not known.
    pub tls_cipher: &'a str,
    /// Whether the client authenticated.
    pub authenticated: bool,
    /// Whether SMTPUTF8 was asked for.
    pub smtputf8: bool,
    /// The forward-path if there is exactly one; more would disclose blind recipients to each
    /// other.
    pub only_forward_path: Option<&'a str>,
}

/// Appends one Received field with its final CRLF to `out`.
///
/// `by` is our own domain, `id` the message's name, the time counts microseconds since 1970.
/// Of the client's words only characters of the grammar are copied, so nothing can be forged.
pub fn received_field(
    facts: &ReceivedFacts<'_>,
    peer: SocketAddr,
    by: &str,
    id: &str,
    time_unix_micros: i64,
    out: &mut Vec<u8>,
) {
    let with = with_protocol(facts);
    out.extend_from_slice(b"Received: from ");
    push_domain(facts.helo, out);
    // Writing into a Vec cannot fail.
    let _ = match peer.ip().to_canonical() {
        IpAddr::V4(ip) => write!(out, " ([{ip}])"),
        IpAddr::V6(ip) => write!(out, " ([IPv6:{ip}])"),
    };
    out.extend_from_slice(b"\r\n\tby ");
    push_domain(by, out);
    let _ = write!(out, " with {with} id ");
    push_domain(id, out);
    if let Some(path) = facts.only_forward_path {
        out.extend_from_slice(b"\r\n\tfor <");
        for character in path.chars() {
            let keep = !character.is_control()
                && !matches!(character, '<' | '>' | '\u{2028}' | '\u{2029}')
                && (character.is_ascii() || facts.smtputf8);
            let mut utf8 = [0; 4];
            let kept = if keep { character } else { '?' }.encode_utf8(&mut utf8);
            out.extend_from_slice(kept.as_bytes());
        }
        out.push(b'>');
    }
    if !facts.tls_cipher.is_empty() {
        // RFC 8314 §4.3; the clause comes behind those of RFC 5321.
        out.extend_from_slice(b"\r\n\ttls ");
        let name = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'_';
        out.extend(facts.tls_cipher.bytes().filter(name));
    }
    out.extend_from_slice(b";\r\n\t");
    push_date(time_unix_micros, out);
    out.extend_from_slice(b"\r\n");
}

/// The `with` of a trace field (RFC 3848, RFC 6531 §4.3). What came after HELO has no other name.
pub(super) fn with_protocol(facts: &ReceivedFacts<'_>) -> String {
    let protocol = match (facts.smtputf8, facts.lmtp) {
        (true, true) => "UTF8LMTP",
        (true, false) => "UTF8SMTP",
        (false, true) => "LMTP",
        (false, false) if facts.esmtp => "ESMTP",
        (false, false) => return "SMTP".to_owned(),
    };
    let secure = if facts.tls { "S" } else { "" };
    let authenticated = if facts.authenticated { "A" } else { "" };
    format!("{protocol}{secure}{authenticated}")
}

/// Copies what a domain or an address literal may hold; other octets become `_` and their hex.
fn push_domain(text: &str, out: &mut Vec<u8>) {
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b':' | b'[' | b']' => {
                out.push(octet);
            }
            _ => {
                let _ = write!(out, "_{octet:02X}");
            }
        }
    }
}

/// Appends a date-time of RFC 5322 §3.3, always in `+0000`.
fn push_date(time_unix_micros: i64, out: &mut Vec<u8>) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = time_unix_micros.div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from a day count, with years that begin in March so that the leap day comes
    // last. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    let _ = write!(
        out,
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} +0000",
        DAYS.get(days.rem_euclid(7) as usize).copied().unwrap_or_default(),
        MONTHS.get(month as usize).copied().unwrap_or_default(),
        second / 3_600,
        second / 60 % 60,
        second % 60,
    );
}
