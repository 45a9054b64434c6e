//! Media type and file name: parameters of MIME fields (RFC 2045 §5.1, RFC 2231).

use std::collections::BTreeMap;

use super::{
    charset::{Charset, undeclared},
    word,
};

/// Octets of a file name at most.
const NAME_BYTES_MAX: usize = 998;

/// `text/plain`, in lower case.
pub(super) fn media_type(value: &[u8]) -> Option<String> {
    let end = memchr::memchr3(b';', b'(', b' ', value).unwrap_or(value.len());
    let token = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&octet);
    let (kind, subtype) = std::str::from_utf8(value.get(..end)?).ok()?.trim().split_once('/')?;
    let fits = |part: &str| (1..=127).contains(&part.len()) && part.bytes().all(token);
    (fits(kind) && fits(subtype)).then(|| format!("{kind}/{subtype}").to_ascii_lowercase())
}

/// A parameter that holds a file name.
pub(super) fn file_name(value: &[u8], wanted: &str) -> Option<String> {
    let mut plain = None;
    let mut sections: BTreeMap<u16, (bool, Vec<u8>)> = BTreeMap::new();
    for (name, content) in parameters(value) {
        let Some(rest) = name.strip_prefix(wanted) else { continue };
        if rest.is_empty() {
            plain.get_or_insert(content);
        } else if let Some(rest) = rest.strip_prefix('*') {
            let (number, encoded) = match rest.strip_suffix('*') {
                Some(number) => (number, true),
                None => (rest, rest.is_empty()),
            };
            let number = if number.is_empty() { Some(0) } else { number.parse().ok() };
            if let Some(number) = number {
                sections.entry(number).or_insert((encoded, content));
            }
        }
    }
    let text = match sections.get(&0) {
        Some(_) => sectioned(&sections),
        None => word::decode(&plain?, NAME_BYTES_MAX),
    };
    let text = word::shorten(word::one_line(text), NAME_BYTES_MAX);
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// RFC 2231 §3, §4: octets of all sections are joined, then decoded.
fn sectioned(sections: &BTreeMap<u16, (bool, Vec<u8>)>) -> String {
    let mut charset = None;
    let mut octets = Vec::new();
    for ((number, (encoded, content)), expected) in sections.iter().zip(0..) {
        if *number != expected {
            break;
        }
        let mut content = content.as_slice();
        if *encoded && *number == 0 {
            let mut parts = content.splitn(3, |&octet| octet == b'\'');
            if let (Some(name), Some(_), Some(text)) = (parts.next(), parts.next(), parts.next()) {
                charset = Charset::named(name);
                content = text;
            }
        }
        if *encoded {
            push_percent(content, &mut octets);
        } else {
            octets.extend_from_slice(content);
        }
    }
    match charset {
        Some(charset) => charset.text(&octets).into_owned(),
        None => undeclared(&octets).into_owned(),
    }
}

fn push_percent(encoded: &[u8], octets: &mut Vec<u8>) {
    let mut rest = encoded;
    while let [first, behind @ ..] = rest {
        rest = behind;
        match (first, behind) {
            (b'%', [high, low, behind @ ..]) => match word::hexadecimal(*high, *low) {
                Some(octet) => {
                    octets.push(octet);
                    rest = behind;
                }
                None => octets.push(b'%'),
            },
            (octet, _) => octets.push(*octet),
        }
    }
}

/// Name in lower case, and value without its quotes. An unquoted value may hold spaces: senders
/// write `filename=My file.pdf`.
fn parameters(value: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut piece = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    let mut split = None;
    // The end closes a quoted string, too.
    for (octet, last) in value.iter().map(|&octet| (octet, false)).chain([(b';', true)]) {
        match octet {
            _ if escaped && !last => {
                piece.push(octet);
                escaped = false;
            }
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted || last => {
                if let Some(at) = split.take() {
                    let (name, content) = piece.split_at(at);
                    let name = String::from_utf8_lossy(name).trim().to_ascii_lowercase();
                    found.push((name, content.trim_ascii().to_vec()));
                }
                piece.clear();
            }
            b'=' if !quoted && split.is_none() => split = Some(piece.len()),
            octet => piece.push(octet),
        }
    }
    found
}
