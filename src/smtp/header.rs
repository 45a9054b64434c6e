//! Counts Received fields while mail data streams by (RFC 5321 §6.3), in bounded time.

use memchr::memchr;

const NAME: &[u8] = b"received:";
/// The line is not, or no longer, a candidate.
const OTHER: u8 = 0xff;
/// The line so far is a lone CR.
const LONE_CR: u8 = 0xfe;

/// State of the count, kept across any cut of the data.
#[derive(Debug, Default)]
pub(super) struct HeaderCount {
    /// Octets of `NAME` seen on this line, or one of the marks above.
    matched: u8,
    done: bool,
    received: u32,
    scanned: u32,
}

impl HeaderCount {
    /// Received fields seen so far.
    pub(super) fn received(&self) -> usize {
        self.received as usize
    }

    /// Takes the next octets; nothing behind the header or the first `max` octets is looked at.
    #[inline]
    pub(super) fn feed(&mut self, octets: &[u8], max: usize) {
        if !self.done {
            self.feed_header(octets, max);
        }
    }

    fn feed_header(&mut self, octets: &[u8], max: usize) {
        let room = max.saturating_sub(self.scanned as usize);
        let mut rest = octets.get(..room).unwrap_or(octets);
        self.scanned += rest.len() as u32;
        self.done = octets.len() >= room;
        while let Some((&octet, tail)) = rest.split_first() {
            if self.matched == OTHER {
                match memchr(b'\n', rest).and_then(|lf| rest.get(lf + 1..)) {
                    Some(next) => (self.matched, rest) = (0, next),
                    None => return,
                }
                continue;
            }
            rest = tail;
            match (octet, self.matched) {
                // An empty line ends the header.
                (b'\n', 0 | LONE_CR) => {
                    self.done = true;
                    return;
                }
                (b'\n', _) => self.matched = 0,
                (b'\r', 0) => self.matched = LONE_CR,
                (_, at) if NAME.get(at as usize) == Some(&octet.to_ascii_lowercase()) => {
                    self.matched += 1;
                    if self.matched as usize == NAME.len() {
                        self.received += 1;
                        self.matched = OTHER;
                    }
                }
                _ => self.matched = OTHER,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a header in receives of 4,096 octets; gives the octets looked at.
    fn scanned(header: &[u8]) -> HeaderCount {
        let mut count = HeaderCount::default();
        for piece in header.chunks(4_096) {
            count.feed(piece, 256 * 1024);
        }
        count
    }

    #[test]
    fn d28_the_scan_is_bounded() {
        let lines = b"X-Line: 1\r\n".repeat(100_000);
        let folded = [&b"X-Long: 1\r\n"[..], &b" x\r\n".repeat(1_000_000)].concat();
        for header in [lines, folded] {
            let count = scanned(&header);
            assert!(count.done && count.scanned == 256 * 1024, "{count:?}");
        }
        // Received fields behind the bound are not counted, those before it are.
        let many = b"Received: x\r\n".repeat(30_000);
        assert_eq!(scanned(&many).received(), (256 * 1024_usize).div_ceil(13));
    }
}
