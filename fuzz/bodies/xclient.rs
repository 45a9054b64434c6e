//! XCLIENT and XFORWARD of a trusted peer: one outcome however they are cut, and nothing told that
//! could break a line of the record.

use std::time::Duration;

use mailrace::smtp::{Config, Session};

use super::peer::{Outcome, over};

/// The octets are lines; each without a verb is one of XCLIENT's or XFORWARD's.
pub fn run(octets: &[u8]) {
    let mut lines: Vec<Vec<u8>> = vec![b"EHLO proxy\r\n".to_vec()];
    for line in octets.split(|octet| *octet == b'\n').take(40) {
        let verb: &[u8] = match line.first() {
            Some(b'<') => b"XCLIENT ",
            Some(b'>') => b"XFORWARD ",
            _ => b"",
        };
        let line = if verb.is_empty() { line } else { &line[1..] };
        lines.push([verb, line, b"\r\n"].concat());
    }
    let run = |cut: usize| -> Outcome {
        let config = Config::default();
        let mut session = Session::new(Duration::ZERO, false, &config);
        session.trust_xclient();
        over(session, &config, lines.iter().map(Vec::as_slice), || cut)
    };
    let whole = run(usize::MAX);
    assert_eq!(whole, run(1));
    assert_eq!(whole, run(7));
    for item in whole.told.split_terminator('\n') {
        let known = item.starts_with("XCLIENT_") || item.starts_with("XFORWARD_");
        assert!(known && item.contains('=') && item.len() < 1_100, "{item}");
        assert!(!item.contains(char::is_control), "{item}");
    }
}
