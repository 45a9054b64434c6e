//! Address lists (RFC 5322 §3.4): who a mail claims to be from and to.
//!
//! Groups yield their members. What the grammar has no place for is skipped, and an encoded word
//! never becomes part of an address.

use super::{charset::undeclared, word};

/// Mailboxes of one kind of field that are shown at most.
pub const MAILBOXES_MAX: usize = 100;
/// RFC 5322 §2.1.1: octets of a name or an address at most.
const TEXT_BYTES_MAX: usize = 998;

/// One mailbox; at least one of the two is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// Display name, else a comment, decoded: one line without control characters.
    pub name: Option<String>,
    /// As it was written, without comments and the white space outside of quotes.
    pub address: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Angle {
    #[default]
    None,
    Open,
    Closed,
}

/// What was read of a mailbox.
#[derive(Debug, Default)]
struct Item {
    phrase: Vec<u8>,
    address: Vec<u8>,
    comment: Vec<u8>,
    angle: Angle,
    gap: bool,
    /// An address without angle brackets is complete.
    whole: bool,
}

impl Item {
    /// An octet of a name or an address.
    fn push(&mut self, octets: &[u8], plain: &[u8]) {
        match self.angle {
            Angle::Closed => {}
            Angle::Open => self.address.extend_from_slice(octets),
            Angle::None => {
                self.phrase.extend_from_slice(plain);
                // RFC 5322 §4.4: white space around dots and the at sign was once allowed.
                let joins = |octet: Option<&u8>| matches!(octet, Some(b'@' | b'.'));
                if std::mem::take(&mut self.gap)
                    && !joins(self.address.last())
                    && !joins(octets.first())
                {
                    self.whole = self.address.contains(&b'@');
                    if !self.whole {
                        self.address.clear();
                    }
                }
                if !self.whole {
                    self.address.extend_from_slice(octets);
                }
            }
        }
    }

    fn space(&mut self) {
        if self.angle == Angle::None {
            self.gap = true;
            if !self.phrase.is_empty() && !self.phrase.ends_with(b" ") {
                self.phrase.push(b' ');
            }
        }
    }

    fn finish(&mut self, all: &mut Vec<Mailbox>) {
        let item = std::mem::take(self);
        let mut address = undeclared(&item.address).into_owned();
        address.retain(|character| !character.is_control());
        let bare = item.angle == Angle::None;
        let is_address = !address.is_empty()
            && address.len() <= TEXT_BYTES_MAX
            && (!bare || address.trim_matches('@').contains('@'));
        let name = |octets: &[u8]| {
            Some(word::decode(octets, TEXT_BYTES_MAX)).filter(|name| !name.is_empty())
        };
        let phrase = if bare && is_address { None } else { name(&item.phrase) };
        let name = phrase.or_else(|| name(&item.comment));
        let address = is_address.then_some(address);
        if all.len() < MAILBOXES_MAX && (name.is_some() || address.is_some()) {
            all.push(Mailbox { name, address });
        }
    }
}

/// Appends the mailboxes of an unfolded value.
pub(super) fn push_mailboxes(value: &[u8], all: &mut Vec<Mailbox>) {
    let mut words = word::places(value).into_iter().peekable();
    let mut item = Item::default();
    let mut at = 0;
    // Each is searched for to the end once only.
    let (mut quotes, mut comments) = (true, true);
    while let Some(&octet) = value.get(at) {
        while words.next_if(|word| word.start < at).is_some() {}
        let here = words.next_if(|word| word.start == at && item.angle == Angle::None);
        if let Some(word) = here.and_then(|word| Some((value.get(word.clone())?, word.end)))
            && !word.0.contains(&b'<')
        {
            // What a word hides is no address.
            item.push(b"", word.0);
            at = word.1;
            continue;
        }
        at += 1;
        match octet {
            b'"' if quotes => {
                let mut content = Vec::new();
                match closed(value, at, 0, b'"', &mut content) {
                    Some(end) => {
                        item.push(value.get(at - 1..end).unwrap_or_default(), &content);
                        at = end;
                    }
                    None => {
                        quotes = false;
                        item.push(&[octet], &[octet]);
                    }
                }
            }
            b'(' if comments => {
                let mut content = Vec::new();
                match closed(value, at, b'(', b')', &mut content) {
                    Some(end) => {
                        item.comment = content;
                        at = end;
                        item.space();
                    }
                    None => {
                        comments = false;
                        item.push(&[octet], &[octet]);
                    }
                }
            }
            b'[' => {
                let rest = value.get(at..).unwrap_or_default();
                let end = memchr::memchr2(b']', b',', rest).map_or(at, |len| at + len);
                let literal = value.get(at - 1..end).unwrap_or_default();
                item.push(literal, literal);
                at = end;
            }
            b'<' => {
                if item.angle != Angle::None {
                    item.finish(all);
                }
                item.address.clear();
                item.angle = Angle::Open;
            }
            b'>' if item.angle == Angle::Open => item.angle = Angle::Closed,
            // A source route (RFC 5322 §4.4) ends, or a group's name.
            b':' if item.angle == Angle::Open => item.address.clear(),
            b':' => item = Item::default(),
            b',' if item.angle == Angle::Open && item.address.starts_with(b"@") => {}
            b',' | b';' => item.finish(all),
            b' ' | b'\t' => item.space(),
            octet => item.push(&[octet], &[octet]),
        }
    }
    item.finish(all);
}

/// Where what was opened before `at` ends, backslashes resolved; `open` nests.
fn closed(value: &[u8], at: usize, open: u8, close: u8, content: &mut Vec<u8>) -> Option<usize> {
    let mut depth = 0_usize;
    let mut escaped = false;
    for (octet, end) in value.get(at..)?.iter().zip(at + 1..) {
        match *octet {
            b'\\' if !escaped => {
                escaped = true;
                continue;
            }
            octet if octet == close && !escaped => match depth.checked_sub(1) {
                Some(outer) => depth = outer,
                None => return Some(end),
            },
            octet if octet == open && open != 0 && !escaped => depth += 1,
            _ => {}
        }
        escaped = false;
        content.push(*octet);
    }
    None
}
