//! Offsets, and the names of nodes, shards and records.

use std::{fmt, str::FromStr};

/// Number of a record in one shard's log. Marks are half-open: "the next one".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The offset with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next offset.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which shard of which node a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn at random when the data directory was made.
    pub node: [u8; 6],
    /// From 0.
    pub shard: u16,
}

impl Identity {
    /// The id of a record of this log.
    #[must_use]
    pub fn record_id(self, offset: Offset) -> RecordId {
        RecordId { node: self.node, shard: self.shard, offset }
    }
}

/// Names one record permanently: `7f3a9c21b04e-003-00000000000002d5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId {
    /// The node.
    pub node: [u8; 6],
    /// The shard.
    pub shard: u16,
    /// The record's number in the shard's log.
    pub offset: Offset,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand, into one piece: it is in every 250, and the formatter's padding took 5 % of a
        // small message.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut len = 0;
        // Each is below its base.
        let digit = |value: usize| DIGITS.get(value).copied().unwrap_or(b'0');
        let mut push = |octet| {
            if let Some(at) = text.get_mut(len) {
                *at = octet;
            }
            len += 1;
        };
        for octet in self.node {
            push(digit(usize::from(octet >> 4)));
            push(digit(usize::from(octet & 15)));
        }
        push(b'-');
        for power in [10_000, 1_000, 100, 10, 1] {
            if power <= 100 || self.shard >= power {
                push(digit(usize::from(self.shard / power % 10)));
            }
        }
        push(b'-');
        for octet in self.offset.get().to_be_bytes() {
            push(digit(usize::from(octet >> 4)));
            push(digit(usize::from(octet & 15)));
        }
        f.write_str(text.get(..len).and_then(|text| str::from_utf8(text).ok()).ok_or(fmt::Error)?)
    }
}

/// A text that names no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRecordId;

impl fmt::Display for BadRecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a record id (NODE-SHARD-OFFSET, as in the 250 reply)")
    }
}

impl std::error::Error for BadRecordId {}

impl FromStr for RecordId {
    type Err = BadRecordId;

    fn from_str(text: &str) -> Result<Self, BadRecordId> {
        let mut parts = text.split('-');
        let (Some(node), Some(shard), Some(offset), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadRecordId);
        };
        if offset.len() != 16 {
            return Err(BadRecordId);
        }
        Ok(Self {
            node: parse_node(node).ok_or(BadRecordId)?,
            shard: shard.parse().map_err(|_| BadRecordId)?,
            offset: Offset(u64::from_str_radix(offset, 16).map_err(|_| BadRecordId)?),
        })
    }
}

/// Reads a node's 12 hexadecimal digits.
#[must_use]
pub fn parse_node(text: &str) -> Option<[u8; 6]> {
    if text.len() != 12 || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return None;
    }
    let [_, _, node @ ..] = u64::from_str_radix(text, 16).ok()?.to_be_bytes();
    Some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let text = "7f3a9c21b04e-003-00000000000002d5";
        let id: RecordId = text.parse().unwrap();
        assert_eq!((id.shard, id.offset.get()), (3, 725));
        assert_eq!(id.to_string(), text);
        for shard in [0, 9, 10, 99, 100, 999, 1_000, 12_345, u16::MAX] {
            let id = RecordId { shard, offset: Offset::new(u64::MAX - 5), ..id };
            assert_eq!(id.to_string(), format!("7f3a9c21b04e-{shard:03}-fffffffffffffffa"));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for bad in [
            "",
            "7f",
            "7f3a9c21b04e-003",
            "7f3a9c21b04e-003-2d5",
            "zz3a9c21b04e-003-00000000000002d5",
        ] {
            assert_eq!(bad.parse::<RecordId>(), Err(BadRecordId), "{bad}");
        }
    }
}
