//! BDAT: its argument, and the chunk under way (RFC 3030 §2).

use super::param::parse_digits;
use super::reply::Reply;

/// Argument of a BDAT command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkSize {
    /// Octets that follow the command line.
    pub(super) bytes: u64,
    pub(super) last: bool,
}

/// Reads `n [LAST]`; `None` when malformed, after which nobody knows where the next command is.
pub(super) fn parse(argument: &str) -> Option<ChunkSize> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let digits = words.next()?.as_bytes();
    let bytes = parse_digits(digits)?;
    // `parse_digits` saturates, and no true count is that large.
    if bytes == u64::MAX {
        return None;
    }
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some(ChunkSize { bytes, last })
}

/// The chunk being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    /// Octets still to come.
    pub(super) left: u64,
    pub(super) last: bool,
    /// Answer of a BDAT that came out of order: its octets are read all the same.
    pub(super) out_of_order: Option<Reply>,
}
