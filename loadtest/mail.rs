//! What is sent: envelopes and mail data, each a function of the message's sequence number.
//!
//! Nothing is made per message but a line at the front: the rest is cut from a text prepared once.
//! The verifier computes the same octets again from the sequence number it finds in that line.

use super::{
    corpus::Corpus,
    random::{Weighted, below, mix},
    template::Template,
};

/// Sequence number of a message, from 0.
pub(super) type Sequence = u64;

/// `X-Loadtest: `, run, `-`, sequence number, CRLF.
const ID_FIELD: &[u8] = b"X-Loadtest: ";
/// Octets of the first line of each message.
pub(super) const ID_LINE_BYTES: usize = ID_FIELD.len() + 16 + 1 + 16 + 2;

/// The rest of a made header. Its lines and the first line are all that a made message needs at
/// least (RFC 5322 §3.6 asks for From and Date).
const HEADER: &[u8] = b"From: Load test <loadtest@client.test>\r\n\
    Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nSubject: load test\r\n\r\n";

/// Octets of the smallest message that can be asked for.
pub(super) const SIZE_MIN: usize = 256;

const LINE_BYTES: usize = 80;
const LINES: usize = 1024;
/// Above it mail data is handed to the kernel from where it lies instead of being copied next to
/// the commands: at 16 KiB the copy costs about what one more `iovec` does.
const COPY_MAX: usize = 16 << 10;

/// How large messages are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sizes {
    /// Uniform between two bounds, both included.
    Between(usize, usize),
    Mix(Weighted<usize>),
}

/// The options of mail.
#[derive(Debug)]
pub(super) struct MailOptions {
    pub(super) sizes: Sizes,
    pub(super) corpus: Option<Corpus>,
    /// Bounds, both included.
    pub(super) recipients: (usize, usize),
    pub(super) from: Template,
    pub(super) to: Template,
    /// Replaces what follows the `@` of `to`.
    pub(super) domains: Option<Weighted<String>>,
    pub(super) seed: u64,
}

/// How mail data is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carriage {
    /// Dots stuffed, a lone dot at the end (RFC 5321 §4.5.2).
    Data,
    /// As it is (RFC 3030).
    Bdat,
}

/// A stretch of octets that outlives the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    Text { start: usize, end: usize },
    Corpus { start: usize, end: usize },
}

/// Takes the octets of a message in order.
pub(super) trait Sink {
    fn copy(&mut self, octets: &[u8]);
    fn share(&mut self, shared: Shared);
}

/// The mail of one run.
#[derive(Debug)]
pub(super) struct Mail {
    options: MailOptions,
    run: [u8; 16],
    text: Vec<u8>,
}

impl Mail {
    pub(super) fn new(options: MailOptions, run: u64) -> Self {
        let mut text = Vec::with_capacity(LINE_BYTES * LINES);
        for line in 0..LINES as u64 {
            // The first line begins with a dot, so that every run tries transparency.
            text.push(if line == 0 { b'.' } else { b'L' });
            for column in 1..LINE_BYTES as u64 - 2 {
                let random = mix(line, column);
                text.push(if random.is_multiple_of(7) {
                    b' '
                } else {
                    b'a' + (random >> 32) as u8 % 26
                });
            }
            text.extend_from_slice(b"\r\n");
        }
        Self { options, run: hex(run), text }
    }

    /// How many recipients a message has.
    pub(super) fn recipients(&self, sequence: Sequence) -> usize {
        let (least, most) = self.options.recipients;
        let span = (most - least) as u64 + 1;
        least + below(mix(self.options.seed ^ 1, sequence), span) as usize
    }

    /// Octets of mail data, dots not stuffed.
    pub(super) fn bytes(&self, sequence: Sequence) -> usize {
        let random = mix(self.options.seed ^ 2, sequence);
        if let Some(corpus) = &self.options.corpus {
            return ID_LINE_BYTES + corpus.message(random).plain.len();
        }
        match &self.options.sizes {
            Sizes::Between(least, most) => {
                least + below(random, (most - least) as u64 + 1) as usize
            }
            Sizes::Mix(sizes) => *sizes.choose(random),
        }
    }

    pub(super) fn reverse_path(&self, sequence: Sequence, out: &mut Vec<u8>) {
        self.options.from.expand(sequence, mix(self.options.seed ^ 3, sequence), None, out);
    }

    pub(super) fn forward_path(&self, sequence: Sequence, index: usize, out: &mut Vec<u8>) {
        let number = sequence.wrapping_mul(1 << 16).wrapping_add(index as u64);
        let random = mix(self.options.seed ^ 4, number);
        let domain = self.options.domains.as_ref();
        let domain = domain.map(|domains| domains.choose(mix(random, 1)).as_str());
        self.options.to.expand(sequence, random, domain, out);
        // Recipients of one message differ even where the template does not.
        if index > 0 && !self.options.to.varies() {
            let at = out.iter().rposition(|&octet| octet == b'@').unwrap_or(out.len());
            let mark = format!("+{index}");
            out.splice(at..at, mark.bytes());
        }
    }

    /// Hands out the mail data of a message as it goes over the wire.
    pub(super) fn content(&self, sequence: Sequence, carriage: Carriage, sink: &mut impl Sink) {
        sink.copy(&self.id_line(sequence));
        if let Some(corpus) = &self.options.corpus {
            let message = corpus.message(mix(self.options.seed ^ 2, sequence));
            let range = match carriage {
                Carriage::Bdat => &message.plain,
                Carriage::Data => &message.stuffed,
            };
            sink.share(Shared::Corpus { start: range.start, end: range.end });
        } else {
            sink.copy(HEADER);
            let rest = self.bytes(sequence) - ID_LINE_BYTES - HEADER.len();
            self.body(rest, carriage, sink);
        }
        if carriage == Carriage::Data {
            sink.copy(b".\r\n");
        }
    }

    /// Whole lines of the text, then one of 2 to 81 octets that makes up the size.
    fn body(&self, bytes: usize, carriage: Carriage, sink: &mut impl Sink) {
        let lines = bytes.saturating_sub(2) / LINE_BYTES;
        let mut left = lines * LINE_BYTES;
        let last = bytes - left;
        if left > 0 && carriage == Carriage::Data {
            sink.copy(b".");
        }
        let mut start = 0;
        while left > 0 {
            let end = (start + left).min(self.text.len());
            if bytes <= COPY_MAX {
                sink.copy(&self.text[start..end]);
            } else {
                sink.share(Shared::Text { start, end });
            }
            left -= end - start;
            // Only the first line has a dot to stuff.
            start = LINE_BYTES;
        }
        // An `L` cannot be stuffed either; the slice ends a line of the text.
        let line_end = 2 * LINE_BYTES;
        if last <= LINE_BYTES {
            sink.copy(&self.text[line_end - last..line_end]);
        } else {
            sink.copy(b"x");
            sink.copy(&self.text[line_end - last + 1..line_end]);
        }
    }

    fn id_line(&self, sequence: Sequence) -> [u8; ID_LINE_BYTES] {
        let mut line = [0; ID_LINE_BYTES];
        let (field, rest) = line.split_at_mut(ID_FIELD.len());
        field.copy_from_slice(ID_FIELD);
        rest[..16].copy_from_slice(&self.run);
        rest[16] = b'-';
        rest[17..33].copy_from_slice(&hex(sequence));
        rest[33..].copy_from_slice(b"\r\n");
        line
    }

    /// The octets of a stretch.
    pub(super) fn shared(&self, shared: Shared) -> &[u8] {
        match shared {
            Shared::Text { start, end } => &self.text[start..end],
            Shared::Corpus { start, end } => {
                self.options.corpus.as_ref().map_or(&[], |corpus| &corpus.octets()[start..end])
            }
        }
    }

    /// The mail data that a server must have stored.
    pub(super) fn render(&self, sequence: Sequence, out: &mut Vec<u8>) {
        self.content(sequence, Carriage::Bdat, &mut Whole(self, out));
    }

    /// The sequence number in the first line of mail data; `None` where another run or another
    /// client sent it.
    pub(super) fn sequence_of(&self, mail_data: &[u8]) -> Option<Sequence> {
        let rest = mail_data.strip_prefix(ID_FIELD)?.strip_prefix(&self.run)?;
        let digits = rest.strip_prefix(b"-")?.get(..16)?;
        u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    }
}

/// All octets of mail data in one place.
struct Whole<'a>(&'a Mail, &'a mut Vec<u8>);

impl Sink for Whole<'_> {
    fn copy(&mut self, octets: &[u8]) {
        self.1.extend_from_slice(octets);
    }

    fn share(&mut self, shared: Shared) {
        self.1.extend_from_slice(self.0.shared(shared));
    }
}

fn hex(number: u64) -> [u8; 16] {
    let mut out = [0; 16];
    for (at, digit) in out.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 15];
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn options(sizes: Sizes) -> MailOptions {
        MailOptions {
            sizes,
            corpus: None,
            recipients: (1, 1),
            from: "a@client.test".parse().unwrap(),
            to: "b@server.test".parse().unwrap(),
            domains: None,
            seed: 5,
        }
    }

    #[test]
    fn every_size_is_met_and_survives_stuffing() {
        let sizes = (SIZE_MIN..SIZE_MIN + 200).chain([4096, 16 << 10, 81_920, 100_000, 5 << 20]);
        for size in sizes {
            let mail = Mail::new(options(Sizes::Between(size, size)), 0xabc);
            let mut plain = Vec::new();
            mail.render(7, &mut plain);
            assert_eq!(plain.len(), size);
            assert_eq!(mail.bytes(7), size);
            assert_eq!(mail.sequence_of(&plain), Some(7));
            let mut stuffed = Vec::new();
            for line in plain.split_inclusive(|&octet| octet == b'\n') {
                assert!(line.ends_with(b"\r\n") && line.len() <= 81, "{size}");
                if line[0] == b'.' {
                    stuffed.push(b'.');
                }
                stuffed.extend_from_slice(line);
            }
            stuffed.extend_from_slice(b".\r\n");
            let mut wire = Vec::new();
            mail.content(7, Carriage::Data, &mut Whole(&mail, &mut wire));
            assert!(wire == stuffed, "{size}");
        }
    }

    #[test]
    fn messages_of_others_are_told_apart() {
        let one = Mail::new(options(Sizes::Between(256, 256)), 1);
        let two = Mail::new(options(Sizes::Between(256, 256)), 2);
        let mut octets = Vec::new();
        one.render(3, &mut octets);
        assert_eq!(two.sequence_of(&octets), None);
        assert_eq!(one.sequence_of(b"Subject: x\r\n\r\n"), None);
    }

    #[test]
    fn recipients_of_a_message_differ() {
        let mut options = options(Sizes::Between(256, 1024));
        options.recipients = (1, 5);
        let mail = Mail::new(options, 1);
        let mut seen = [false; 6];
        for sequence in 0..100 {
            seen[mail.recipients(sequence)] = true;
            assert!((256..=1024).contains(&mail.bytes(sequence)));
        }
        assert_eq!(seen, [false, true, true, true, true, true]);
        let path = |index| {
            let mut out = Vec::new();
            mail.forward_path(9, index, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!((path(0).as_str(), path(1).as_str()), ("b@server.test", "b+1@server.test"));
    }
}
