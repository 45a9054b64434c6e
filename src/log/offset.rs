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

    /// The offset behind it.
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

/// Names one record for ever: `7f3a9c21b04e-003-00000000000002d5`.
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
        for octet in self.node {
            write!(f, "{octet:02x}")?;
        }
        write!(f, "-{:03}-{:016x}", self.shard, self.offset.get())
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
    let number = u64::from_str_radix(text, 16).ok()?.to_be_bytes();
    number[2..].try_into().ok()
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
