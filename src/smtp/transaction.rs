//! The mail transaction: from MAIL to the reply after the data (RFC 5321 §3.3).

use std::num::NonZeroU64;

use super::dsn;
use super::param::{MailParams, RcptParams};

/// Encoding of the body that the client declared with `BODY=` (RFC 6152 §2, RFC 3030 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyType {
    /// `7BIT`, or no parameter.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBit,
    /// `BINARYMIME`: lines mean nothing, BDAT only.
    BinaryMime,
}

/// What a DSN is to hold of the message (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// `FULL`.
    Full = 1,
    /// `HDRS`.
    Headers = 2,
}

/// Parameters of MAIL and RCPT that few messages have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameters {
    /// `RET=` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID=` (RFC 3461 §4.4), decoded, at most 100 octets of printable ASCII; empty: none.
    pub envid: String,
    /// `AUTH=` (RFC 4954 §5), decoded, printable ASCII; `<>` where it was so or not believed; empty:
    /// none.
    pub submitter: String,
    /// `REQUIRETLS` (RFC 8689).
    pub require_tls: bool,
    /// `MT-PRIORITY=` (RFC 6710), -9 to 9.
    pub mt_priority: Option<i8>,
    /// For each forward-path `NOTIFY=` and `ORCPT=`, with a space between, joined by LF; empty where
    /// none has any. Keywords in upper case, the value of ORCPT as given.
    pub recipients: String,
}

/// What was noticed in the mail data. For `BINARYMIME` only `chunked` is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailFlags {
    /// An octet with bit 7 set, declared or not.
    pub eight_bit: bool,
    /// A line of more than 998 octets without CRLF (RFC 5321 §4.5.3.1.6).
    pub long_line: bool,
    /// An LF without its CR, as received.
    pub bare_lf: bool,
    /// A CR without its LF, as received.
    pub bare_cr: bool,
    /// A NUL.
    pub nul: bool,
    /// A message that is not empty and does not end in CRLF (RFC 3030 §3).
    pub no_final_crlf: bool,
    /// Came by BDAT rather than DATA.
    pub chunked: bool,
    /// Its author is nobody as whom the client may send (see [`super::Senders`]).
    pub foreign_author: bool,
}

/// An accepted message's envelope and facts, valid at [`super::Event::EndOfMail`].
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Name the client gave in EHLO or HELO, at most 255 octets there; no control characters,
    /// otherwise unchecked.
    pub helo: &'a str,
    /// Whether the client said EHLO.
    pub esmtp: bool,
    /// Reverse-path without brackets; empty for the null path `<>`.
    pub mail_from: &'a str,
    /// Number of forward-paths, at least 1.
    pub forward_path_count: usize,
    /// Whether SMTPUTF8 was asked for (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// Declared encoding of the body.
    pub body: BodyType,
    /// Declared size in octets (RFC 1870 §5).
    pub size_declared: Option<u64>,
    /// What was noticed in the mail data.
    pub flags: MailFlags,
    /// Octets of mail data handed out.
    pub bytes: u64,
    /// What few messages have.
    pub parameters: Option<&'a Parameters>,
    forward_paths: &'a str,
    forward_path_ends: &'a [u32],
}

impl<'a> Envelope<'a> {
    /// Forward-paths without brackets, in the order given, repeated ones included.
    pub fn forward_paths(&self) -> ForwardPaths<'a> {
        ForwardPaths { paths: self.forward_paths, ends: self.forward_path_ends.iter(), start: 0 }
    }
}

/// Iterator over forward-paths.
#[derive(Debug, Clone)]
pub struct ForwardPaths<'a> {
    paths: &'a str,
    ends: std::slice::Iter<'a, u32>,
    start: usize,
}

impl<'a> Iterator for ForwardPaths<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let end = *self.ends.next()? as usize;
        let path = self.paths.get(self.start..end);
        self.start = end;
        path
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ends.size_hint()
    }
}

impl ExactSizeIterator for ForwardPaths<'_> {}

/// The open transaction of a session. Its memory is kept for the next one while it is small.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// MAIL was accepted.
    pub(super) open: bool,
    pub(super) smtputf8: bool,
    /// A BDAT was accepted: only BDAT, RSET and EHLO may follow (RFC 3030 §2).
    pub(super) chunked: bool,
    pub(super) body: BodyType,
    /// One more than SIZE=: so it is a word.
    size_declared: Option<NonZeroU64>,
    /// Recipients refused for their number.
    pub(super) overshoot: u32,
    /// The reverse-path, then every forward-path.
    paths: String,
    mail_from_end: u32,
    /// Where each forward-path ends, counted from the end of the reverse-path.
    ///
    /// Invariant: `len <= limits.recipients_max` (RFC 5321 §4.5.3.1.8).
    ends: Vec<u32>,
    /// Made by the first parameter that goes there.
    parameters: Option<Box<Parameters>>,
}

/// Capacities an idle session keeps: one message with a few recipients needs no allocation.
const KEPT_PATH_BYTES: usize = 96;
const KEPT_PATHS: usize = 4;

impl Transaction {
    pub(super) fn begin(&mut self, mail_from: &str) {
        self.open = true;
        self.paths.push_str(mail_from);
        self.mail_from_end = mail_from.len() as u32;
    }

    pub(super) fn add(&mut self, forward_path: &str, params: RcptParams<'_>) {
        if self.parameters.is_some() || params != RcptParams::default() {
            self.add_params(params);
        }
        self.paths.push_str(forward_path);
        self.ends.push(self.paths.len() as u32 - self.mail_from_end);
    }

    /// Keeps what MAIL asked for. `believed`: the client may say who submitted the message.
    pub(super) fn keep(&mut self, params: &MailParams<'_>, believed: bool) {
        self.smtputf8 = params.smtputf8;
        self.body = params.body.unwrap_or_default();
        self.size_declared = params.size.map(|size| NonZeroU64::MIN.saturating_add(size));
        if !params.is_rare() {
            return;
        }
        let kept = self.parameters.get_or_insert_default();
        kept.ret = params.ret;
        kept.require_tls = params.require_tls;
        kept.mt_priority = params.mt_priority;
        kept.envid.extend(params.envid.into_iter().flat_map(dsn::xtext));
        match params.auth {
            // RFC 4954 §5: what an untrusted client says is taken as `<>`.
            Some(_) if !believed => kept.submitter.push_str("<>"),
            Some(submitter) => kept.submitter.extend(dsn::xtext(submitter)),
            None => {}
        }
    }

    /// A line for each recipient from the first on that has a parameter.
    fn add_params(&mut self, params: RcptParams<'_>) {
        let lines = &mut self.parameters.get_or_insert_default().recipients;
        if !lines.is_empty() {
            lines.push('\n');
        } else if params != RcptParams::default() {
            lines.extend(std::iter::repeat_n('\n', self.ends.len()));
        }
        if let Some(notify) = params.notify {
            lines.push_str("NOTIFY=");
            notify.push_to(lines);
        }
        if let Some(orcpt) = params.orcpt {
            lines.push_str(if params.notify.is_some() { " ORCPT=" } else { "ORCPT=" });
            lines.push_str(orcpt);
        }
    }

    pub(super) fn mail_from(&self) -> &str {
        self.paths.get(..self.mail_from_end as usize).unwrap_or_default()
    }

    pub(super) fn recipients(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn clear(&mut self) {
        self.paths.clear();
        self.ends.clear();
        if self.paths.capacity() > KEPT_PATH_BYTES {
            self.paths.shrink_to(KEPT_PATH_BYTES);
        }
        if self.ends.capacity() > KEPT_PATHS {
            self.ends.shrink_to(KEPT_PATHS);
        }
        *self = Self {
            paths: std::mem::take(&mut self.paths),
            ends: std::mem::take(&mut self.ends),
            ..Self::default()
        };
    }

    pub(super) fn envelope<'a>(
        &'a self,
        helo: &'a str,
        esmtp: bool,
        flags: MailFlags,
        bytes: u64,
    ) -> Envelope<'a> {
        let (mail_from, forward_paths) =
            self.paths.split_at_checked(self.mail_from_end as usize).unwrap_or_default();
        Envelope {
            helo,
            esmtp,
            mail_from,
            forward_path_count: self.ends.len(),
            smtputf8: self.smtputf8,
            body: self.body,
            size_declared: self.size_declared.map(|size| size.get() - 1),
            flags,
            bytes,
            parameters: self.parameters.as_deref(),
            forward_paths,
            forward_path_ends: &self.ends,
        }
    }
}
