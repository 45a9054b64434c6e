//! One message as it goes to a server: checked, with its trace lines, in transfer form.
//!
//! Nothing may be smuggled outward. Mail data that DATA carries has no NUL, and CR and LF only as
//! CRLF: what a lenient server treats as a line end is one here too, so each dot at a line start is
//! doubled and only our own end ends the data (RFC 5321 §4.5.2). A record that does have bare ones
//! (its listener has `line_ends = "allow"`) is refused and becomes a dead letter: rewriting them
//! would break signatures silently, and sending them would pass the harm on.

use std::borrow::Cow;

use bytes::Bytes;

use super::super::{
    ErrorClass, Record, SinkError, path::quoted, trace::without_return_path, way_out,
};
use mailrace_header as header;
use mailrace_log::{RcptParams, xtext};

/// A message and its envelope, ready for any server.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    /// Without brackets, as it is sent; empty for the null one.
    pub(super) reverse_path: String,
    /// All of the record; a transaction names some of them.
    pub(super) forward_paths: Vec<String>,
    /// What the mail data holds.
    pub(super) body: Body,
    /// SMTPUTF8 was asked for on the way in.
    pub(super) smtputf8: bool,
    /// A path has characters beyond ASCII, or so has the header section and SMTPUTF8 was asked for:
    /// without that, an 8-bit header is a mail client's old fault and goes as any 8-bit octets.
    pub(super) beyond_ascii: bool,
    /// The next hop must be as safe (RFC 8689).
    pub(super) require_tls: bool,
    /// Of MAIL for a server that knows DSN, each with a space in front.
    pub(super) dsn: String,
    /// The same of RCPT for each forward-path; none where no forward-path has any.
    rcpt_dsn: Vec<String>,
    trace: Bytes,
    data: Bytes,
    end: &'static [u8],
}

/// What a server must be able to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Lines of ASCII.
    SevenBit,
    /// Lines of octets (RFC 6152).
    EightBit,
    /// Any octets (RFC 3030).
    Binary,
}

impl Mail {
    /// Takes a record; `trace` is put in front of its mail data, lines with CRLF. For its final
    /// delivery earlier Return-Path fields are left out.
    ///
    /// # Errors
    /// No server may get it: its class is `Refused`.
    pub(super) fn new(record: &Record, trace: Vec<u8>, is_final: bool) -> Result<Self, SinkError> {
        let paths = || record.rcpt_to.iter().chain([&record.mail_from]);
        // The session let none in; but what is read from a disk is believed nowhere.
        if !paths().all(|path| is_path(path)) {
            return Err(refused("a path with control characters or brackets"));
        }
        let body = match record.body_type {
            0 | 1 => check_lines(&record.data).map_err(refused)?,
            _ => Body::Binary,
        };
        // RFC 6152 §3: a client that declared 8BITMIME is passed on as it was.
        let body =
            if body == Body::SevenBit && record.body_type == 1 { Body::EightBit } else { body };
        let plain_paths = paths().all(|path| path.is_ascii());
        let plain_header = !record.smtputf8 || header::section(&record.data).is_ascii();
        let data = match way_out::mail_data(record) {
            Cow::Owned(data) => Bytes::from(data),
            Cow::Borrowed(_) => record.data.clone(),
        };
        let data = match without_return_path(&data) {
            Cow::Owned(data) if is_final => Bytes::from(data),
            _ => data.clone(),
        };
        let end: &[u8] = match body {
            Body::Binary => b"",
            _ if data.is_empty() || data.ends_with(b"\r\n") => b"",
            _ => b"\r\n",
        };
        Ok(Self {
            reverse_path: quoted(&record.mail_from).into_owned(),
            forward_paths: record.rcpt_to.iter().map(|path| quoted(path).into_owned()).collect(),
            body,
            smtputf8: record.smtputf8,
            beyond_ascii: !(plain_paths && plain_header),
            require_tls: record.facts.require_tls,
            dsn: mail_dsn(record),
            rcpt_dsn: rcpt_dsns(record),
            trace: trace.into(),
            data,
            end,
        })
    }

    /// RFC 1870 §5: octets with CRLF, without doubled dots and the end of mail data.
    pub(super) fn size(&self) -> u64 {
        (self.trace.len() + self.data.len() + self.end.len()) as u64
    }

    /// Parameters of RCPT for a server that knows DSN.
    pub(super) fn rcpt_dsn(&self, forward_path: usize) -> &str {
        self.rcpt_dsn.get(forward_path).map(String::as_str).unwrap_or_default()
    }

    /// There is an octet beyond ASCII: a declared 8BITMIME alone may be dropped.
    pub(super) fn has_eight_bit(&self) -> bool {
        !self.data.is_ascii()
    }

    /// A place in its octets.
    pub(super) fn start(&self) -> Place {
        Place { pieces: [self.trace.clone(), self.data.clone(), Bytes::from_static(self.end)] }
    }
}

/// Where the sending of a message stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pieces: [Bytes; 3],
}

impl Place {
    /// Takes at most `octets`, none at the end.
    pub(super) fn take(&mut self, octets: usize) -> Bytes {
        let piece = self.pieces.iter_mut().find(|piece| !piece.is_empty());
        piece.map(|piece| piece.split_to(octets.min(piece.len()))).unwrap_or_default()
    }
}

/// Appends octets with each dot at a line start doubled (RFC 5321 §4.5.2).
pub(super) fn push_transparent(octets: &[u8], line_start: &mut bool, out: &mut Vec<u8>) {
    let mut rest = octets;
    while let Some(first) = rest.first() {
        if *line_start && *first == b'.' {
            out.push(b'.');
        }
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        out.extend_from_slice(line);
        *line_start = line.ends_with(b"\n");
        rest = behind;
    }
}

/// RET and ENVID (RFC 3461 §5.2.1: as they were given to us).
fn mail_dsn(record: &Record) -> String {
    let mut dsn = String::new();
    if let Some(ret) = record.facts.ret_name() {
        dsn += &format!(" RET={ret}");
    }
    if !record.facts.envid.is_empty() {
        dsn += &format!(" ENVID={}", xtext::encode(&record.facts.envid));
    }
    dsn
}

/// Of each forward-path; none where no forward-path has any.
fn rcpt_dsns(record: &Record) -> Vec<String> {
    let mut params = record.facts.rcpt_params();
    let rewritten = |path: &String| matches!(quoted(path), Cow::Owned(_));
    if record.facts.rcpt_params.is_empty() && !record.rcpt_to.iter().any(rewritten) {
        return Vec::new();
    }
    let of = |path: &String| {
        let params = params.next().unwrap_or_default();
        let mut dsn = rcpt_dsn(&params);
        // RFC 3461 §5.2.1: who asked for nothing may be given the address as it came to us, and
        // here another spelling of it goes on.
        if params.orcpt.is_none() && rewritten(path) && path.is_ascii() {
            dsn += &format!(" ORCPT=rfc822;{}", xtext::encode(path));
        }
        dsn
    };
    record.rcpt_to.iter().map(of).collect()
}

/// NOTIFY and ORCPT. What could not have come through a command is left out.
fn rcpt_dsn(params: &RcptParams) -> String {
    let fits = |value: &&String| !value.is_empty() && value.bytes().all(|o| o.is_ascii_graphic());
    let mut dsn = String::new();
    for (name, value) in [("NOTIFY", &params.notify), ("ORCPT", &params.orcpt)] {
        if let Some(value) = value.as_ref().filter(fits) {
            dsn += &format!(" {name}={value}");
        }
    }
    dsn
}

/// Lines of a record that DATA can carry.
fn check_lines(data: &[u8]) -> Result<Body, &'static str> {
    if memchr::memchr(0, data).is_some() {
        return Err("mail data with NUL, which SMTP cannot carry (RFC 5321 §4.5.2)");
    }
    for at in memchr::memchr2_iter(b'\r', b'\n', data) {
        let before = at.checked_sub(1).and_then(|before| data.get(before));
        match data.get(at) {
            Some(b'\r') if data.get(at + 1) != Some(&b'\n') => {
                return Err("mail data with a bare CR (RFC 5321 §2.3.8)");
            }
            Some(b'\n') if before != Some(&b'\r') => {
                return Err("mail data with a bare LF (RFC 5321 §2.3.8)");
            }
            _ => {}
        }
    }
    Ok(if data.is_ascii() { Body::SevenBit } else { Body::EightBit })
}

/// No control characters, and brackets within a quoted local-part only (RFC 5321 §4.1.2).
fn is_path(path: &str) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    for character in path.chars() {
        match character {
            _ if character.is_control() => return false,
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' | '>' if !quoted => return false,
            _ => {}
        }
    }
    !quoted
}

fn refused(why: &str) -> SinkError {
    SinkError::new(ErrorClass::Refused, format_args!("not sent: {why}"))
}

#[cfg(test)]
#[path = "mail_tests.rs"]
pub(super) mod tests;
