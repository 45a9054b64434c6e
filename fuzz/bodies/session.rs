//! The session's states: whatever a client sends, however it is cut, one outcome.

use mailrace::smtp::{Config, LineEnds};

use super::peer::dialogue;

/// The first octet chooses depth and line ends, the second the cuts; the rest is what is sent.
pub fn run(octets: &[u8]) {
    let [mode, step, text @ ..] = octets else { return };
    let line_ends = [LineEnds::Reject, LineEnds::Normalize, LineEnds::Allow][*mode as usize % 3];
    let mut config = Config { line_ends, ..Config::default() };
    if mode & 0x40 != 0 {
        config.limits.message_bytes = 64;
        config.limits.command_line_bytes = 40;
        config.limits.discard_line_bytes = 100;
    }
    let opening: &[&[u8]] = match mode >> 4 & 3 {
        0 => &[],
        1 => &[b"EHLO a\r\n"],
        2 => &[b"EHLO a\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"],
        _ => &[b"EHLO a\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", b"DATA\r\n"],
    };
    let turns: Vec<&[u8]> = opening.iter().copied().chain(turns(text)).collect();
    let whole = dialogue(&config, turns.iter().copied(), || usize::MAX);
    let mut state = usize::from(*step);
    let cut = dialogue(&config, turns.iter().copied(), || {
        state = state.wrapping_mul(75).wrapping_add(74) % 65_537;
        state % 13 + 1
    });
    assert_eq!(whole, cut);
    assert_eq!(whole, dialogue(&config, turns, || 1));
}

/// A turn ends at each LF whose line begins like EHLO or DATA: what stands behind one of these
/// hangs on the receive by rule (RFC 2920 §3.1).
fn turns(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|octet| *octet == b'\n').collect::<Vec<_>>().into_iter()
}
