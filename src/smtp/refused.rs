//! What a session refused, kept for the log of events until the driver takes it. While nothing is
//! refused nothing is stored: a good session costs one empty pointer. Nor is anything stored when
//! no line would be written: in a flood of refusals most are only counted.

use std::borrow::Cow;

use super::path;

/// Refusals kept between two calls of the driver's; those beyond are only counted.
const KEPT_MAX: usize = 32;

/// Octets kept of what the client sent.
const TEXT_BYTES_MAX: usize = 320;

/// Which refusals the driver wants to be kept, and how many the session did not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notes {
    /// Refusals are kept; otherwise they are only counted, which allocates nothing.
    pub refusals: bool,
    /// The same of failed logins.
    pub logins: bool,
    /// Refusals that were only counted.
    pub refusals_left_out: u64,
    /// Failed logins that were only counted.
    pub logins_left_out: u64,
}

impl Default for Notes {
    /// All are kept.
    fn default() -> Self {
        Self { refusals: true, logins: true, refusals_left_out: 0, logins_left_out: 0 }
    }
}

impl Notes {
    /// Whether a refusal is to be kept; counts it if not.
    pub(super) fn keeps_refusal(&mut self) -> bool {
        self.refusals_left_out += u64::from(!self.refusals);
        self.refusals
    }

    /// Whether a failed login is to be kept; counts it if not.
    pub(super) fn keeps_login(&mut self) -> bool {
        self.logins_left_out += u64::from(!self.logins);
        self.logins
    }
}

/// A refusal, as its log line wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `connect`, a command's name, or `message`.
    pub stage: &'static str,
    /// Reply code.
    pub code: u16,
    /// Enhanced status code (RFC 3463); empty where the reply has none.
    pub enhanced: Cow<'static, str>,
    /// The reply's words.
    pub reason: Cow<'static, str>,
    /// What the reply does not say.
    pub detail: &'static str,
    /// Reverse-path of the transaction, once there is one. Empty: the null path.
    pub mail_from: Option<Box<str>>,
    /// The recipient that was refused.
    pub rcpt: Option<Box<str>>,
    /// The name that was refused.
    pub helo: Option<Box<str>>,
    /// The credentials of this user were wrong; empty where it named nobody.
    pub login: Option<Box<str>>,
}

impl Refused {
    /// Of a reply line without its CRLF.
    pub(super) fn of(stage: &'static str, line: &'static str) -> Self {
        let (code, rest) = line.split_at_checked(3).unwrap_or_default();
        let rest = rest.trim_start();
        let is_enhanced = |word: &str| {
            word.len() >= 5 && word.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.')
        };
        let (enhanced, reason) = match rest.split_once(' ') {
            Some((word, reason)) if is_enhanced(word) => (word, reason),
            _ => ("", rest),
        };
        Self::new(stage, code.parse().unwrap_or_default(), enhanced, reason.trim_end())
    }

    /// Of the parts of a reply.
    pub(super) fn new(
        stage: &'static str,
        code: u16,
        enhanced: &'static str,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            stage,
            code,
            enhanced: enhanced.into(),
            reason: reason.into(),
            detail: "",
            mail_from: None,
            rcpt: None,
            helo: None,
            login: None,
        }
    }
}

/// Refusals that the driver has not taken yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// The first ones, in order.
    pub list: Vec<Refused>,
    /// How many followed.
    pub more: u64,
}

impl Refusals {
    pub(super) fn note(&mut self, refused: Refused) {
        if self.list.len() < KEPT_MAX {
            self.list.push(refused);
        } else {
            self.more += 1;
        }
    }
}

/// What a client sent for a path in `FROM:<path> params`, cut to a sane length.
pub(super) fn path_of(argument: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(argument.get(..TEXT_BYTES_MAX).unwrap_or(argument));
    let behind = text.split_once(':').map_or(&*text, |(_, behind)| behind).trim();
    match path::parse(behind) {
        Some(path) => path.mailbox.into(),
        None => behind.into(),
    }
}

/// What a client sent for its name, cut to a sane length.
pub(super) fn name_of(argument: &[u8]) -> Box<str> {
    String::from_utf8_lossy(argument.get(..TEXT_BYTES_MAX).unwrap_or(argument)).into()
}

/// A name that a client gave, cut to a sane length.
pub(super) fn cut(text: &str) -> Box<str> {
    text.split_at(text.floor_char_boundary(TEXT_BYTES_MAX)).0.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_taken_apart() {
        let refused = Refused::of("RCPT", "550 5.1.1 No such user here\r\n");
        assert_eq!((refused.code, &*refused.enhanced), (550, "5.1.1"));
        assert_eq!(&*refused.reason, "No such user here");
        let refused = Refused::of("EHLO", "501 Syntax: EHLO or HELO and one domain\r\n");
        assert_eq!((refused.code, &*refused.enhanced), (501, ""));
        assert_eq!(&*refused.reason, "Syntax: EHLO or HELO and one domain");
    }

    #[test]
    fn memory_for_what_was_refused_is_bounded() {
        let mut refusals = Refusals::default();
        for _ in 0..1_000 {
            refusals.note(Refused::of("RCPT", "550 5.1.1 No such user"));
        }
        assert_eq!((refusals.list.len() as u64) + refusals.more, 1_000);
        assert_eq!(refusals.list.len(), KEPT_MAX);
        assert!(path_of(&[b'x'; 10_000]).len() <= TEXT_BYTES_MAX);
        assert_eq!(&*path_of(b"TO:<a@b.example> NOTIFY=NEVER"), "a@b.example");
        assert_eq!(&*path_of(b"TO:a b"), "a b");
    }
}
