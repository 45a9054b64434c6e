//! Transparency and the end of mail data (RFC 5321 §4.5.2, §4.1.1.4), and what both DATA and BDAT
//! notice in the text.
//!
//! ```text
//!          dot at line start      CR               LF
//!   Text ----------------> Dot ---------> DotCr --------> end of mail data
//!    ^                      | other        | other
//!    |<-- dot was stuffed --+              |
//!    |<-- give back the CR, now bare ------+
//! ```
//!
//! The CRLF before the dot belongs to the mail data and is returned at once. Only the dot and the
//! CR after it are held back, as a state, so nothing is ever buffered.

use super::limits::{Config, LineEnds};
use super::reply::{self, Reply};
use super::scan::{Stop, Stops, TextScan};
use super::stats::{ProtocolError, RejectReason};
use super::transaction::{BodyType, MailFlags};

/// Longest line before `long_line` is set, RFC 5321 §4.5.3.1.6 less its CRLF.
const LONG_LINE_BYTES: u64 = 998;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Text,
    Dot,
    DotCr,
}

/// One piece of mail data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The first octets of the input.
    Octets(usize),
    /// Octets that do not lie in the input.
    Static(&'static [u8]),
    /// The end of mail data.
    End,
    /// Nothing to hand out yet.
    Nothing,
}

/// Reader of mail data, for one message.
#[derive(Debug, Default)]
pub(super) struct TextReader {
    at: At,
    text: TextScan,
}

impl TextReader {
    /// Takes the next piece from the front of `input`, which is not empty; says how much it used.
    pub(super) fn next(&mut self, input: &[u8], dots: bool, normalize: bool) -> (usize, Piece) {
        let first = input.first().copied();
        match self.at {
            At::Text => self.next_text(input, Stops { dot: dots, bare: normalize }),
            At::Dot if first == Some(b'\r') => {
                self.at = At::DotCr;
                (1, Piece::Nothing)
            }
            At::Dot => {
                self.at = At::Text;
                self.text.at_line_start = false;
                (0, Piece::Nothing)
            }
            At::DotCr if first == Some(b'\n') => (1, Piece::End),
            At::DotCr => {
                self.at = At::Text;
                self.text.at_line_start = false;
                self.text.after_cr = true;
                self.text.line_bytes = 1;
                (0, Piece::Static(b"\r"))
            }
        }
    }

    fn next_text(&mut self, input: &[u8], stops: Stops) -> (usize, Piece) {
        let (passed, stop) = self.text.scan(input, stops);
        if stop == Stop::Dot {
            self.at = At::Dot;
            let piece = if passed > 0 { Piece::Octets(passed) } else { Piece::Nothing };
            return (passed + 1, piece);
        }
        if passed > 0 {
            return (passed, Piece::Octets(passed));
        }
        // The completed line end is one to readers only: it never makes the next dot special
        // (BAD-INPUTS D1 to D8 end nothing), hence `at_line_start` stays off.
        let text = &mut self.text;
        text.longest = text.longest.max(text.line_bytes - u64::from(text.after_cr));
        text.line_bytes = 0;
        text.at_line_start = false;
        text.after_cr = false;
        if stop == Stop::BareLf {
            text.bare_lf = true;
            (1, Piece::Static(b"\r\n"))
        } else {
            text.bare_cr = true;
            (0, Piece::Static(b"\n"))
        }
    }

    /// Why the text is refused, as far as it was seen.
    pub(super) fn offence(&self, config: &Config) -> Option<Offence> {
        let text = &self.text;
        if config.line_ends == LineEnds::Reject && (text.bare_cr || text.bare_lf || text.nul) {
            return Some(if text.bare_lf { Offence::BareLf } else { Offence::BareCrOrNul });
        }
        (text.longest > config.limits.content_line_bytes as u64).then_some(Offence::LongLine)
    }

    /// Closes the text at the end of the message.
    pub(super) fn finish(&mut self) {
        self.text.finish();
    }

    pub(super) fn flags(&self, body: BodyType, chunked: bool, bytes: u64) -> MailFlags {
        if body == BodyType::BinaryMime {
            return MailFlags { chunked, ..MailFlags::default() };
        }
        let text = &self.text;
        MailFlags {
            eight_bit: text.eight_bit,
            long_line: text.longest > LONG_LINE_BYTES,
            bare_lf: text.bare_lf,
            bare_cr: text.bare_cr,
            nul: text.nul,
            no_final_crlf: bytes > 0 && !text.at_line_start,
            chunked,
            foreign_author: false,
        }
    }
}

/// What makes a message unacceptable while it arrives. The first one found answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offence {
    BareLf,
    BareCrOrNul,
    LongLine,
    Loop,
    Size,
    /// The author is nobody as whom the client may send.
    Author,
}

impl Offence {
    pub(super) const fn reply(self) -> Reply {
        match self {
            Self::BareLf | Self::BareCrOrNul => reply::BAD_CONTENT,
            Self::LongLine => reply::LONG_CONTENT_LINE,
            Self::Loop => reply::MAIL_LOOP,
            Self::Size => reply::TOO_BIG,
            Self::Author => reply::NOT_YOUR_AUTHOR,
        }
    }

    pub(super) const fn reason(self) -> RejectReason {
        match self {
            Self::Size => RejectReason::Size,
            Self::Author => RejectReason::Policy,
            _ => RejectReason::Content,
        }
    }

    pub(super) const fn protocol_error(self) -> Option<ProtocolError> {
        match self {
            Self::BareLf => Some(ProtocolError::BareLf),
            Self::LongLine => Some(ProtocolError::LineTooLong),
            Self::BareCrOrNul => Some(ProtocolError::BadSyntax),
            Self::Loop | Self::Size | Self::Author => None,
        }
    }
}
