//! The mails of a run, each a function of seed and number.

use std::sync::Arc;

use super::random::Random;
use crate::log::staged::forge;

/// One mail.
#[derive(Debug)]
pub(super) struct Mail {
    /// Its octets, dots not stuffed.
    pub(super) data: Vec<u8>,
    pub(super) recipients: usize,
    /// Not lines of text: only BDAT carries it.
    pub(super) binary: bool,
}

/// All of a run; shared with the sink.
pub(super) type Mails = Arc<Vec<Mail>>;

/// What stands at the front of each.
const NAME: &[u8] = b"X-Sim: ";

/// Which mail these octets claim to be.
pub(super) fn number_of(data: &[u8]) -> Option<usize> {
    let digits = data.strip_prefix(NAME)?.get(..8)?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Lines to cut mails from, and where each ends.
fn text(random: &mut Random) -> (Vec<u8>, Vec<usize>) {
    let (mut text, mut ends) = (Vec::with_capacity(1 << 18), vec![0]);
    while text.len() < 1 << 18 {
        if random.one_in(6) {
            text.push(b'.');
        }
        let len = random.skewed(0, 700);
        let first = random.next();
        text.extend(
            (0..len).map(|at| b'!' + ((first.rotate_left(at as u32 % 64) >> 3) % 90) as u8),
        );
        text.extend_from_slice(b"\r\n");
        ends.push(text.len());
    }
    (text, ends)
}

/// Makes them.
pub(super) fn make(seed: u64, count: u64) -> Mails {
    let mut random = Random::new(seed, 4);
    let (text, ends) = text(&mut random);
    let one = |number| {
        let bytes = match random.below(100) {
            0..=2 => random.between(64 << 10, 600 << 10),
            3..=8 => random.between(10 << 10, 80 << 10),
            _ => random.skewed(0, 4_000),
        } as usize;
        let binary = random.one_in(25);
        let mut data = NAME.to_vec();
        data.extend_from_slice(format!("{number:08}\r\n\r\n").as_bytes());
        let head = data.len();
        if binary {
            let mut forged = forge([random.next() as u8; 16], bytes.max(8_192) + head);
            forged[..head].copy_from_slice(&data);
            data = forged;
        }
        while !binary && data.len() < bytes {
            let from = random.below(ends.len() as u64 / 2) as usize;
            let want = ends[from] + bytes - data.len();
            let to = ends.partition_point(|end| *end < want).clamp(from + 1, ends.len() - 1);
            data.extend_from_slice(&text[ends[from]..ends[to]]);
        }
        let recipients = random.skewed(1, 5) as usize;
        Mail { data, recipients, binary }
    };
    Arc::new((0..count).map(one).collect())
}

/// With dots stuffed, and the final one.
pub(super) fn stuffed(data: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(data.len() + 64);
    let mut at_start = true;
    for line in data.split_inclusive(|octet| *octet == b'\n') {
        if at_start && line.first() == Some(&b'.') {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
        at_start = line.last() == Some(&b'\n');
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}
