//! Counts Received fields as mail data streams past (RFC 5321 §6.3), in bounded time.

use memchr::memchr_iter;

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

    /// Takes the next octets; nothing after the header or the first `max` octets is looked at.
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
        while !self.done && !rest.is_empty() {
            rest = if self.matched == OTHER { self.skip_lines(rest) } else { self.step(rest) };
        }
    }

    /// Takes one octet of a line that may still be a Received field.
    fn step<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let Some((&octet, rest)) = octets.split_first() else { return octets };
        match (octet, self.matched) {
            // An empty line ends the header.
            (b'\n', 0 | LONE_CR) => self.done = true,
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
        rest
    }

    /// From within a line: looks at the start of each following one, all lines in one search.
    /// Returns the last line, if there is too little of it to decide.
    fn skip_lines<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        for lf in memchr_iter(b'\n', octets) {
            let line = octets.get(lf + 1..).unwrap_or_default();
            let Some(start) = line.first_chunk::<{ NAME.len() }>() else {
                self.matched = 0;
                return line;
            };
            match start {
                [b'\n', ..] | [b'\r', b'\n', ..] => {
                    self.done = true;
                    return &[];
                }
                [b'r' | b'R', ..] if start.eq_ignore_ascii_case(NAME) => self.received += 1,
                _ => {}
            }
        }
        &[]
    }
}
