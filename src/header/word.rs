//! Encoded words (RFC 2047) and the text between them.
//!
//! More is accepted than the grammar allows, because senders write it: words longer than 75 octets,
//! in the middle of other text, with white space inside, base64 without padding or padded in the
//! middle. White space between two words is dropped, and the octets of words in one charset are
//! joined before they are decoded, because many senders cut in the middle of a character.

use std::ops::Range;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::charset::{Charset, undeclared};

/// Octets of the name of a charset with its language, at most.
const CHARSET_BYTES_MAX: usize = 80;

/// Padding and the bits that no octet needs are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The text of an unfolded value: one line without control characters, of at most `bytes_max`
/// octets.
#[must_use]
pub fn decode(value: &[u8], bytes_max: usize) -> String {
    let mut text = String::new();
    let mut done = 0;
    let mut run: Option<(Charset, Vec<u8>)> = None;
    let mut words = Words { value, at: 0, close: 0 };
    while text.len() <= bytes_max
        && let Some(word) = words.next()
    {
        let between = value.get(done..word.start).unwrap_or_default();
        done = word.end;
        match &mut run {
            Some((charset, octets)) if between.trim_ascii().is_empty() => {
                if charset.is_same(word.charset) {
                    word.push_octets(octets);
                    continue;
                }
                text += &charset.text(octets);
            }
            Some((charset, octets)) => {
                text += &charset.text(octets);
                text += &undeclared(between);
            }
            None => text += &undeclared(between),
        }
        let mut octets = Vec::new();
        word.push_octets(&mut octets);
        run = Some((word.charset, octets));
    }
    if let Some((charset, octets)) = run {
        text += &charset.text(&octets);
    }
    if text.len() <= bytes_max {
        text += &undeclared(value.get(done..).unwrap_or_default());
    }
    shorten(one_line(text), bytes_max)
}

/// Where the encoded words of an unfolded value lie, in order.
pub(super) fn places(value: &[u8]) -> Vec<Range<usize>> {
    let mut words = Words { value, at: 0, close: 0 };
    std::iter::from_fn(|| words.next()).map(|word| word.start..word.end).collect()
}

/// One encoded word.
struct Word<'a> {
    charset: Charset,
    base64: bool,
    encoded: &'a [u8],
    /// Where it lies.
    start: usize,
    end: usize,
}

impl Word<'_> {
    fn push_octets(&self, octets: &mut Vec<u8>) {
        if self.base64 {
            push_base64(self.encoded, octets);
        } else {
            push_quoted(self.encoded, octets);
        }
    }
}

/// Finds encoded words, each octet looked at a bounded number of times whatever the value is.
struct Words<'a> {
    value: &'a [u8],
    at: usize,
    /// Where the next `?=` is, as far as it was searched for.
    close: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<Word<'a>> {
        loop {
            let rest = self.value.get(self.at..)?;
            let start = self.at + memchr::memmem::find(rest, b"=?")?;
            self.at = start + 2;
            let Some((charset, base64, from)) = self.opening(start + 2) else { continue };
            let close = self.closing(from)?;
            let encoded = self.value.get(from..close)?;
            // A word that is not closed ends where the next begins.
            if let Some(next) = reopened(encoded) {
                self.at = from + next;
                continue;
            }
            self.at = close + 2;
            if let Some(charset) = Charset::named(charset) {
                return Some(Word { charset, base64, encoded, start, end: close + 2 });
            }
        }
    }

    /// Charset, encoding, and where the encoded text begins: `utf-8?q?`.
    fn opening(&self, at: usize) -> Option<(&'a [u8], bool, usize)> {
        let rest = self.value.get(at..)?;
        let rest = rest.get(..CHARSET_BYTES_MAX + 3).unwrap_or(rest);
        let len = memchr::memchr(b'?', rest)?;
        let charset = rest.get(..len)?;
        if charset.is_empty() || !charset.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let [b'?', encoding, b'?', ..] = rest.get(len..)? else { return None };
        let base64 = match encoding {
            b'b' | b'B' => true,
            b'q' | b'Q' => false,
            _ => return None,
        };
        Some((charset, base64, at + len + 3))
    }

    fn closing(&mut self, from: usize) -> Option<usize> {
        if self.close < from {
            let found = memchr::memmem::find(self.value.get(from..)?, b"?=");
            self.close = found.map_or(usize::MAX, |at| from + at);
        }
        Some(self.close).filter(|&close| close != usize::MAX)
    }
}

/// Where another word begins after white space.
fn reopened(encoded: &[u8]) -> Option<usize> {
    let mut words = memchr::memmem::find_iter(encoded, b"=?");
    words.find(|&at| matches!(encoded.get(at.wrapping_sub(1)), Some(b' ' | b'\t')))
}

/// RFC 2047 §4.1: octets outside of the alphabet are passed over. Padding ends a group, and more may
/// follow.
fn push_base64(encoded: &[u8], octets: &mut Vec<u8>) {
    for group in encoded.split(|&octet| octet == b'=') {
        let mut digits: Vec<u8> = group
            .iter()
            .copied()
            .filter(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/'))
            .collect();
        // Six bits alone are no octet.
        if digits.len() % 4 == 1 {
            digits.pop();
        }
        let decoded = BASE64.decode_vec(&digits, octets);
        debug_assert!(decoded.is_ok(), "{decoded:?}");
    }
}

/// RFC 2047 §4.2. An equals sign without two hexadecimal digits stands for itself.
fn push_quoted(encoded: &[u8], octets: &mut Vec<u8>) {
    let mut rest = encoded;
    while let [first, behind @ ..] = rest {
        rest = behind;
        match (first, behind) {
            (b'_', _) => octets.push(b' '),
            (b'=', [high, low, behind @ ..]) => match hexadecimal(*high, *low) {
                Some(octet) => {
                    octets.push(octet);
                    rest = behind;
                }
                None => octets.push(b'='),
            },
            (octet, _) => octets.push(*octet),
        }
    }
}

/// The octet that two hexadecimal digits stand for.
pub(super) fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// Each run of control characters, and of the two that Unicode has for line ends, becomes a space.
pub(super) fn one_line(text: String) -> String {
    let breaks =
        |character: char| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
    if !text.contains(breaks) {
        return match text.trim() {
            trimmed if trimmed.len() == text.len() => text,
            trimmed => trimmed.to_owned(),
        };
    }
    let mut line = String::with_capacity(text.len());
    for part in text.split(breaks).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(part);
    }
    line.trim().to_owned()
}

/// Cut at a character.
pub(super) fn shorten(mut text: String, bytes_max: usize) -> String {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
