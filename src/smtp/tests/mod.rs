//! Dialogue tests: one script a row of docs/BAD-INPUTS.md, named after its id.
//!
//! `C:` is a line of the client (CRLF added), `c:` is sent without CRLF, `S:` the start of a
//! reply's last line, `B:` the body of the next accepted message, `X:` a closed session. Escapes:
//! `\r \n \0 \\ \xNN`. Lines of the client without an `S:` between them are one turn. Every script
//! is fed whole, octet by octet and at random cuts, with one outcome.

mod auth;
mod commands;
mod content;
mod lmtp;
mod parameters;
mod paths;
mod properties;
mod refusals;
mod rfc;
mod sequence;
mod starttls;
mod upstream;

use std::time::Duration;

use super::{
    testing::{Peer, Recorder},
    *,
};

/// A session that was not greeted yet.
fn unopened(config: Config) -> Peer {
    let session = Session::new(Duration::ZERO, false, &config);
    Peer::unopened(session, config, Recorder::default())
}

pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        if octet != b'\\' {
            out.push(octet);
            continue;
        }
        out.push(match octets.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let hex = [octets.next().expect("digit"), octets.next().expect("digit")];
                let hex = str::from_utf8(&hex).expect("ascii");
                u8::from_str_radix(hex, 16).expect("hex digits")
            }
            other => panic!("unknown escape {other:?}"),
        });
    }
    out
}

/// A way to cut a turn into receives: the length of the next one, at least 1.
type Cuts<'a> = &'a mut dyn FnMut() -> usize;

fn run(script: &str, config: &Config, cuts: Cuts<'_>) {
    let mut peer = Peer::new(config.clone());
    assert!(peer.take() > 0, "a greeting");
    peer.answers();
    let mut turn = Vec::new();
    let mut answers = std::collections::VecDeque::new();
    let mut bodies = 0;
    let mut lines = script.lines().map(str::trim_start).filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        let (kind, text) = line.split_at(2);
        let text = text.strip_prefix(' ').unwrap_or(text);
        match kind {
            "C:" | "c:" => {
                turn.extend(unescape(text));
                if kind == "C:" {
                    turn.extend(b"\r\n");
                }
                if lines.peek().is_none_or(|next| !next[..2].eq_ignore_ascii_case("c:")) {
                    let mut rest = &turn[..];
                    while !rest.is_empty() {
                        let (head, tail) = rest.split_at(cuts().clamp(1, rest.len()));
                        peer.feed(head);
                        rest = tail;
                    }
                    turn.clear();
                    answers.extend(peer.answers());
                }
            }
            "S:" => {
                let answer = answers.pop_front().unwrap_or_default();
                assert!(answer.starts_with(text), "{line} but got {answer:?} in\n{script}");
            }
            "B:" => {
                let body = peer.host.bodies.get(bodies).map(|body| body.escape_ascii().to_string());
                let wanted = unescape(text).escape_ascii().to_string();
                assert_eq!(body, Some(wanted), "{script}");
                bodies += 1;
            }
            "X:" => assert!(peer.closed && answers.is_empty(), "{line} {answers:?} in\n{script}"),
            _ => panic!("bad script line {line}"),
        }
    }
    assert!(answers.is_empty(), "unexpected {answers:?} in\n{script}");
    assert_eq!(peer.host.bodies.len(), bodies, "messages of\n{script}");
    if !script.contains("X:") {
        assert!(!peer.closed, "closed\n{script}");
    }
}

/// Runs a script whole, octet by octet and at random cuts.
pub(super) fn check(script: &str) {
    check_with(script, &Config::default());
}

pub(super) fn check_with(script: &str, config: &Config) {
    check_whole(script, config);
    run(script, config, &mut || 1);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..20 {
        run(script, config, &mut || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize % (2 + round * 3) + 1
        });
    }
}

pub(super) fn check_whole(script: &str, config: &Config) {
    run(script, config, &mut || usize::MAX);
}

/// Puts a greeting before a script.
pub(super) fn greeted(script: &str) -> String {
    format!("C: EHLO a\nS: 250 HELP\n{script}")
}

/// Puts a transaction with one recipient before a script.
pub(super) fn opened(script: &str) -> String {
    greeted(&format!("C: MAIL FROM:<a@b>\nS: 250 2.1.0\nC: RCPT TO:<c@d>\nS: 250 2.1.5\n{script}"))
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 384, "{}", size_of::<Session>());
}
