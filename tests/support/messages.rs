//! Messages from which one can see who sent them.

/// The record id of a final 250.
#[track_caller]
pub fn id_of(reply: &str) -> String {
    assert!(reply.starts_with("250 2.0.0 Ok: queued as "), "{reply}");
    reply.split_whitespace().last().expect("an id").to_owned()
}

/// A body that tells who sent it, with dots and length of its own.
pub fn body(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = format!("Subject: message {seed}\r\n\r\n.first\r\n..\r\n").into_bytes();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(format!("{seed}:{state:016x} .{}\r\n", out.len()).as_bytes());
    }
    out
}

/// Octets of a [`bulk`] body's first line, and of each further one.
const LINE: usize = 64;

/// A body made fast: a line with seed and line count, then lines of letters that follow from the
/// seed, some of which begin with a dot. `lines` is its length in lines of 64 octets, at least 1.
pub fn bulk(seed: u64, lines: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(lines.max(1) * LINE);
    out.extend_from_slice(format!("X-Bulk: {seed:016x} {:08x} ", lines.max(1)).as_bytes());
    out.resize(LINE - 2, b'-');
    out.extend_from_slice(b"\r\n");
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 1..lines {
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // '.' and the fifteen octets behind it: dots are frequent.
            let word = |nibbles: u64| (0x2e2e_2e2e_2e2e_2e2e + nibbles).to_le_bytes();
            out.extend_from_slice(&word(state & 0x0f0f_0f0f_0f0f_0f0f));
            out.extend_from_slice(&word(state >> 4 & 0x0f0f_0f0f_0f0f_0f0f));
        }
        out.truncate(out.len() - 2);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Seed and line count of a body that [`bulk`] made; `None` if a single octet differs.
pub fn read_bulk(body: &[u8]) -> Option<(u64, usize)> {
    let first = std::str::from_utf8(body.get(..LINE)?).ok()?;
    let mut words = first.strip_prefix("X-Bulk: ")?.split(' ');
    let seed = u64::from_str_radix(words.next()?, 16).ok()?;
    let lines = usize::from_str_radix(words.next()?, 16).ok()?;
    (body.len() == lines * LINE && body == bulk(seed, lines)).then_some((seed, lines))
}
