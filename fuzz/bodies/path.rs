//! Paths and parameters: whatever is accepted is stored as it was written and holds no octet that
//! could break a line.

use mailrace::smtp::Config;

use super::peer::dialogue;

/// The octets are the argument of MAIL and of RCPT.
pub fn run(octets: &[u8]) {
    if octets.contains(&b'\n') || octets.len() > 1_900 {
        return;
    }
    let config = Config::default();
    let mail = [b"MAIL FROM:", octets, b"\r\nRCPT TO:<c@d>\r\n"].concat();
    let rcpt = [b"RCPT TO:", octets, b"\r\nBDAT 0 LAST\r\n"].concat();
    let outcome = dialogue(&config, [b"EHLO a\r\n", &mail[..], &rcpt[..]], || usize::MAX);
    for path in &outcome.paths {
        assert!(path.is_empty() || path == "c@d" || contains(octets, path.as_bytes()), "{path}");
        assert!(path.len() <= 510 && path.chars().all(|found| found >= ' ' && found != '\u{7f}'));
    }
}

fn contains(octets: &[u8], path: &[u8]) -> bool {
    octets.windows(path.len()).any(|window| window == path)
}
