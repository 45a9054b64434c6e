//! Segment headers and group frames, octet by octet. All numbers are little-endian.
//!
//! Segment header, one block of 4,096 octets at position 0:
//!
//! | at | octets | field |
//! |---|---|---|
//! | 0 | 8 | magic `MRSEGM01` |
//! | 8 | 16 | nonce: drawn at random for each segment |
//! | 24 | 6 + 2 | node, shard |
//! | 32 | 8 | segment number |
//! | 40 | 8 | first offset |
//! | 48 | 4 | CRC-32C of octets 0..48 |
//!
//! Group frame, at a multiple of 4,096, followed by its payload and zeros up to the next block:
//!
//! | at | octets | field |
//! |---|---|---|
//! | 0 | 8 | magic `MRGROUP1` |
//! | 8 | 16 | nonce of the segment |
//! | 24 | 8 | group number in the segment, from 0 |
//! | 32 | 8 | first offset |
//! | 40 | 8 | high-water mark when written |
//! | 48 | 8 | time of writing, microseconds since 1970 |
//! | 56 | 4 | records |
//! | 60 | 4 | octets of the payload |
//! | 64 | 4 | CRC-32C of the payload |
//! | 68 | 4 | chain: CRC-32C of the group before (of the segment header for the first) |
//! | 72 | 4 | CRC-32C of octets 0..72 |
//!
//! Entry of a payload, at a multiple of 8 within the block grid:
//!
//! | at | octets | field |
//! |---|---|---|
//! | 0 | 1 | kind: 1 record (version 1), 2 fragment of mail data, 3 record (version 2) |
//! | 4 | 4 | octets of the content |
//! | 8 | 8 | offset of the record; 0 for a fragment |
//! | 16 | 4 | CRC-32C of the content |
//! | 20 | 4 | CRC-32C of octets 0..20 |
//! | 24 | | content, then zeros up to a multiple of 8 |

use super::Identity;

/// The alignment of groups: no block that holds acknowledged octets is written again.
pub(crate) const BLOCK: usize = 4096;

/// Octets of a group frame before its payload.
pub(crate) const GROUP_FRAME: usize = 80;

/// Octets of an entry before its content.
pub(crate) const ENTRY_FRAME: usize = 24;

const SEGMENT_MAGIC: &[u8; 8] = b"MRSEGM01";
const GROUP_MAGIC: &[u8; 8] = b"MRGROUP1";

/// CRC-32C, the checksum of every frame and content.
#[must_use]
pub(crate) fn crc(octets: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, octets) as u32
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Binds groups to this use of the file.
    pub nonce: [u8; 16],
    /// Whose log it is.
    pub identity: Identity,
    /// Number of the segment in its shard's log.
    pub number: u64,
    /// Offset of the first record.
    pub first_offset: u64,
}

impl SegmentHeader {
    /// Writes the header into a zeroed block; returns its checksum, where the chain begins.
    pub fn encode(&self, block: &mut [u8]) -> u32 {
        let block = room::<52>(block);
        block[..8].copy_from_slice(SEGMENT_MAGIC);
        block[8..24].copy_from_slice(&self.nonce);
        block[24..30].copy_from_slice(&self.identity.node);
        block[30..32].copy_from_slice(&self.identity.shard.to_le_bytes());
        block[32..40].copy_from_slice(&self.number.to_le_bytes());
        block[40..48].copy_from_slice(&self.first_offset.to_le_bytes());
        let sum = crc(&block[..48]);
        block[48..52].copy_from_slice(&sum.to_le_bytes());
        sum
    }

    /// Reads a header and its checksum; `None` where it is not one.
    #[must_use]
    pub fn decode(block: &[u8]) -> Option<(Self, u32)> {
        let head: &[u8; 52] = block.first_chunk()?;
        let sum = u32_at(head, 48)?;
        if &head[..8] != SEGMENT_MAGIC || crc(&head[..48]) != sum {
            return None;
        }
        let identity = Identity {
            node: head[24..30].try_into().ok()?,
            shard: u16::from_le_bytes(head[30..32].try_into().ok()?),
        };
        let header = Self {
            nonce: head[8..24].try_into().ok()?,
            identity,
            number: u64_at(head, 32)?,
            first_offset: u64_at(head, 40)?,
        };
        Some((header, sum))
    }
}

/// The frame of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupFrame {
    /// Of the segment.
    pub nonce: [u8; 16],
    /// In the segment, from 0.
    pub number: u64,
    /// Of the first record.
    pub first_offset: u64,
    /// When written.
    pub high_water_mark: u64,
    /// Microseconds since 1970.
    pub written_at: i64,
    /// Records in the payload.
    pub records: u32,
    /// Octets of the payload.
    pub payload_bytes: u32,
    /// Of the payload.
    pub payload_crc: u32,
    /// Checksum of the frame before.
    pub chain: u32,
}

impl GroupFrame {
    /// Octets from this frame to the next, whole blocks.
    #[must_use]
    pub(crate) fn span(&self) -> u64 {
        (GROUP_FRAME as u64 + u64::from(self.payload_bytes)).next_multiple_of(BLOCK as u64)
    }

    /// Writes the frame; returns its checksum, the next one's chain.
    pub(crate) fn encode(&self, at: &mut [u8]) -> u32 {
        let at = room::<GROUP_FRAME>(at);
        at[..8].copy_from_slice(GROUP_MAGIC);
        at[8..24].copy_from_slice(&self.nonce);
        at[24..32].copy_from_slice(&self.number.to_le_bytes());
        at[32..40].copy_from_slice(&self.first_offset.to_le_bytes());
        at[40..48].copy_from_slice(&self.high_water_mark.to_le_bytes());
        at[48..56].copy_from_slice(&self.written_at.to_le_bytes());
        at[56..60].copy_from_slice(&self.records.to_le_bytes());
        at[60..64].copy_from_slice(&self.payload_bytes.to_le_bytes());
        at[64..68].copy_from_slice(&self.payload_crc.to_le_bytes());
        at[68..72].copy_from_slice(&self.chain.to_le_bytes());
        let sum = crc(&at[..72]);
        at[72..76].copy_from_slice(&sum.to_le_bytes());
        at[76..80].fill(0);
        sum
    }

    /// Reads a frame and its checksum; `None` where it is not one.
    #[must_use]
    pub(crate) fn decode(octets: &[u8]) -> Option<(Self, u32)> {
        let head: &[u8; GROUP_FRAME] = octets.first_chunk()?;
        let sum = u32_at(head, 72)?;
        if &head[..8] != GROUP_MAGIC || crc(&head[..72]) != sum {
            return None;
        }
        let frame = Self {
            nonce: head[8..24].try_into().ok()?,
            number: u64_at(head, 24)?,
            first_offset: u64_at(head, 32)?,
            high_water_mark: u64_at(head, 40)?,
            written_at: i64::from_le_bytes(head[48..56].try_into().ok()?),
            records: u32_at(head, 56)?,
            payload_bytes: u32_at(head, 60)?,
            payload_crc: u32_at(head, 64)?,
            chain: u32_at(head, 68)?,
        };
        Some((frame, sum))
    }
}

/// What an entry of a payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A record, schema version 1.
    RecordV1,
    /// A part of a large message's mail data.
    Fragment,
    /// A record, schema version 2.
    RecordV2,
}

impl EntryKind {
    fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::RecordV1),
            2 => Some(Self::Fragment),
            3 => Some(Self::RecordV2),
            _ => None,
        }
    }
}

/// The frame of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryFrame {
    /// What it is.
    pub kind: EntryKind,
    /// Octets of the content.
    pub bytes: u32,
    /// Of the record; 0 for a fragment.
    pub offset: u64,
    /// CRC-32C of the content.
    pub crc: u32,
}

impl EntryFrame {
    /// Octets from this entry to the next.
    #[must_use]
    pub(crate) fn span(&self) -> usize {
        (ENTRY_FRAME + self.bytes as usize).next_multiple_of(8)
    }

    /// Writes the frame.
    pub(crate) fn encode(&self, at: &mut [u8]) {
        let at = room::<ENTRY_FRAME>(at);
        at[..4].fill(0);
        at[0] = match self.kind {
            EntryKind::RecordV1 => 1,
            EntryKind::Fragment => 2,
            EntryKind::RecordV2 => 3,
        };
        at[4..8].copy_from_slice(&self.bytes.to_le_bytes());
        at[8..16].copy_from_slice(&self.offset.to_le_bytes());
        at[16..20].copy_from_slice(&self.crc.to_le_bytes());
        let sum = crc(&at[..20]);
        at[20..24].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads a frame and its content; `None` where either fails its checksum.
    #[must_use]
    pub(crate) fn decode(octets: &[u8]) -> Option<(Self, &[u8])> {
        let frame = Self::decode_frame(octets)?;
        let content = octets.get(ENTRY_FRAME..ENTRY_FRAME.checked_add(frame.bytes as usize)?)?;
        (crc(content) == frame.crc).then_some((frame, content))
    }

    /// The number of a kind that only a newer version knows, where the frame is whole.
    #[must_use]
    pub(crate) fn unknown_kind(octets: &[u8]) -> Option<u8> {
        let head = octets.get(..ENTRY_FRAME)?;
        let &kind = head.first()?;
        let whole = crc(head.get(..20)?) == u32_at(head, 20)?;
        (whole && EntryKind::of(kind).is_none()).then_some(kind)
    }

    /// Reads a frame alone, its content unseen; `None` where it fails its checksum.
    #[must_use]
    pub(crate) fn decode_frame(octets: &[u8]) -> Option<Self> {
        let head: &[u8; ENTRY_FRAME] = octets.first_chunk()?;
        if crc(&head[..20]) != u32_at(head, 20)? {
            return None;
        }
        let kind = EntryKind::of(head[0])?;
        Some(Self {
            kind,
            bytes: u32_at(head, 4)?,
            offset: u64_at(head, 8)?,
            crc: u32_at(head, 16)?,
        })
    }
}

/// Where a frame is written; the caller has made room for it.
fn room<const N: usize>(octets: &mut [u8]) -> &mut [u8; N] {
    octets.first_chunk_mut().expect("the caller made room for the frame")
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(octets: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(octets.get(at..at + 8)?.try_into().ok()?))
}
