//! Command lines: only CRLF ends one (RFC 5321 §2.3.8).

use memchr::memchr;

/// What stands at the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A whole line without its CRLF; `used` counts the CRLF.
    Whole { line: &'a [u8], used: usize },
    /// No LF yet, and still room for one.
    Partial,
    /// An LF without its CR.
    BareLf,
    /// No LF within the limit.
    TooLong,
}

/// Looks for a line of at most `max` octets, CRLF included, at the front of `input`.
///
/// The outcome hangs on the first `max` octets only, never on where the input was cut.
pub(super) fn next(input: &[u8], max: usize) -> Line<'_> {
    let window = input.get(..max).unwrap_or(input);
    match memchr(b'\n', window) {
        Some(lf) => match window.get(..lf).and_then(|line| line.strip_suffix(b"\r")) {
            Some(line) => Line::Whole { line, used: lf + 1 },
            None => Line::BareLf,
        },
        None if input.len() >= max => Line::TooLong,
        None => Line::Partial,
    }
}

/// Finds the octet after the first CRLF of `input`; `after_cr` says that a CR preceded it.
pub(super) fn past_crlf(input: &[u8], mut after_cr: bool) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = input.get(from..).and_then(|rest| memchr(b'\n', rest)) {
        let lf = from + at;
        if lf > 0 {
            after_cr = input.get(lf - 1) == Some(&b'\r');
        }
        if after_cr {
            return Some(lf + 1);
        }
        from = lf + 1;
    }
    None
}

/// Cuts spaces and tabs from the end of a line (RFC 5321 §4.1.1: a receiver should bear them).
pub(super) fn trim_end(line: &[u8]) -> &[u8] {
    let mut line = line;
    while let Some((b' ' | b'\t', head)) = line.split_last() {
        line = head;
    }
    line
}

/// Tells whether a line holds an octet no command may hold.
pub(super) fn has_control(line: &[u8]) -> bool {
    // No early exit, so that it becomes vector code: lines are short.
    line.iter().fold(false, |found, &octet| found | (octet < 0x20) | (octet == 0x7f))
}
