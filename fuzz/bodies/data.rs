//! DATA's transparency and BDAT against a plain model.

use mailrace::smtp::{Config, LineEnds};

use super::peer::dialogue;

const OPENING: [&[u8]; 2] = [b"EHLO a\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"];

/// The mail data up to the end of mail data, dots unstuffed (RFC 5321 §4.5.2); line by line.
fn model(text: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let line_start = at == 0 || text[..at].ends_with(b"\r\n");
        if line_start && text[at..].starts_with(b".\r\n") {
            return Some(body);
        }
        if !(line_start && text[at] == b'.') {
            body.push(text[at]);
        }
        at += 1;
    }
    None
}

/// The first octet chooses the cuts; the rest is mail data.
pub fn run(octets: &[u8]) {
    let [step, text @ ..] = octets else { return };
    if text.len() > 16_384 {
        return;
    }
    let config = Config { line_ends: LineEnds::Allow, ..Config::default() };
    let text = [text, b"\r\n.\r\n"].concat();
    let cut = usize::from(*step) % 17 + 1;
    let data = [OPENING[0], OPENING[1], b"DATA\r\n", &text];
    let outcome = dialogue(&config, data, || cut);
    let wanted = model(&text).expect("the end was put there");
    assert_eq!(outcome.bodies.first(), Some(&wanted));

    // The same octets as chunks: taken as they are, whatever they look like.
    let (head, tail) = text.split_at(text.len() / 2);
    let first = format!("BDAT {}\r\n", head.len());
    let last = format!("BDAT {} LAST\r\n", tail.len());
    let chunks = [first.as_bytes(), head, last.as_bytes(), tail].concat();
    let outcome = dialogue(&config, [OPENING[0], OPENING[1], &chunks], || cut);
    assert_eq!(outcome.bodies, [text]);
    assert!(!outcome.closed);
}
