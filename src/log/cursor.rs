//! A cursor over the groups of one segment, which checks frames and payloads.
//!
//! Order of calls: [`Cursor::peek`] names the group at the cursor; [`Cursor::payload`] reads and
//! checks it, if it is wanted; [`Cursor::pass`] moves on to the next. In a sealed segment, a
//! payload whose checksum fails is read from the disk once more before that counts (D10). In a
//! segment without a seal it is the end of what was written so far.

use std::path::Path;

use super::{
    ReadError, Seal,
    buffer::AlignedBuffer,
    chunk::ChunkReader,
    frame::{BLOCK, ENTRY_FRAME, EntryFrame, GROUP_FRAME, GroupFrame, SegmentHeader, crc},
};

/// What lies at the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A group whose frame holds; its payload is not yet looked at.
    Group(GroupFrame),
    /// The end of what was written: by the seal, or the first block that is no group.
    End,
    /// No group, though the seal says that there is one.
    Corrupt,
}

/// See the module's page. Reads only; lives for a walk or as long as a tail follows.
#[derive(Debug)]
pub(super) struct Cursor {
    chunks: ChunkReader,
    header: SegmentHeader,
    bytes: u64,
    seal: Option<Seal>,
    position: u64,
    /// Number and chain that the next group must have; unknown after a jump.
    expected: Option<(u64, u32)>,
    /// Checksum of the frame that was peeked at.
    sum: u32,
    /// Behind the records of the groups passed.
    next: u64,
}

impl Cursor {
    /// Opens a segment at its front; `None` where it has no header (yet). The buffer is lost then.
    pub(super) fn open(
        path: &Path,
        seal: Option<Seal>,
        buffer: AlignedBuffer,
    ) -> Result<Option<Self>, ReadError> {
        let mut chunks = ChunkReader::open(path, buffer)?;
        let mut decoded = SegmentHeader::decode(chunks.read(0, BLOCK)?);
        if decoded.is_none() && seal.is_some() {
            chunks.forget_cached(0, BLOCK as u64);
            decoded = SegmentHeader::decode(chunks.read(0, BLOCK)?);
        }
        let Some((header, sum)) = decoded else { return Ok(None) };
        // Not the segment that was sealed: nothing in it is what the seal speaks of.
        if seal.is_some_and(|seal| seal.nonce != header.nonce) {
            return Ok(None);
        }
        let bytes = chunks.bytes()?;
        if seal.is_some() {
            chunks.sealed();
        }
        Ok(Some(Self {
            chunks,
            header,
            bytes,
            seal,
            position: BLOCK as u64,
            expected: Some((0, sum)),
            sum: 0,
            next: header.first_offset,
        }))
    }

    pub(super) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Of the group at the cursor.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Behind the records passed.
    pub(super) fn next_offset(&self) -> u64 {
        self.next
    }

    /// Its segment's seal.
    pub(super) fn seal(&self) -> Option<Seal> {
        self.seal
    }

    /// Takes notice of a seal that came while the cursor was open.
    pub(super) fn set_seal(&mut self, seal: Seal) {
        self.seal = Some(seal);
    }

    /// Behind the last group that may be there.
    pub(super) fn end(&self) -> u64 {
        self.seal.map_or(self.bytes, |seal| seal.end_position.min(self.bytes))
    }

    /// Octets of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Jumps to a position from the sparse index; stays where no group lies there.
    pub(super) fn jump(&mut self, position: u64) -> Result<(), ReadError> {
        let nonce = self.header.nonce;
        let frame = GroupFrame::decode(self.chunks.read(position, GROUP_FRAME)?);
        if frame.is_some_and(|(frame, _)| frame.nonce == nonce) {
            self.position = position;
            self.expected = None;
        }
        Ok(())
    }

    /// What lies here.
    pub(super) fn peek(&mut self) -> Result<Step, ReadError> {
        if self.position >= self.end() {
            let short = self.seal.is_some_and(|seal| self.position < seal.end_position);
            return Ok(if short { Step::Corrupt } else { Step::End });
        }
        let mut found = self.frame()?;
        if found.is_none() && self.seal.is_some() {
            self.chunks.forget_cached(self.position, BLOCK as u64);
            found = self.frame()?;
        }
        Ok(match found {
            Some((frame, sum)) => {
                self.sum = sum;
                Step::Group(frame)
            }
            None if self.seal.is_some() => Step::Corrupt,
            None => Step::End,
        })
    }

    fn frame(&mut self) -> Result<Option<(GroupFrame, u32)>, ReadError> {
        let octets = self.chunks.read(self.position, GROUP_FRAME)?;
        Ok(GroupFrame::decode(octets).filter(|(frame, _)| {
            frame.nonce == self.header.nonce
                && self
                    .expected
                    .is_none_or(|(number, chain)| frame.number == number && frame.chain == chain)
                && self.position + frame.span() <= self.bytes
        }))
    }

    /// The payload of the group at the cursor, and whether its checksum holds.
    pub(super) fn payload(&mut self, frame: &GroupFrame) -> Result<(&[u8], bool), ReadError> {
        let (position, len) = (self.position + GROUP_FRAME as u64, frame.payload_bytes as usize);
        let holds = |octets: &[u8]| octets.len() == len && crc(octets) == frame.payload_crc;
        let mut good = holds(self.chunks.read(position, len)?);
        if !good && self.seal.is_some() {
            self.chunks.forget_cached(self.position, frame.span());
            good = holds(self.chunks.read(position, len)?);
        }
        Ok((self.chunks.read(position, len)?, good))
    }

    /// Moves past the group that was peeked at.
    pub(super) fn pass(&mut self, frame: &GroupFrame) {
        self.next = self.next.max(frame.first_offset + u64::from(frame.records));
        self.expected = Some((frame.number + 1, self.sum));
        self.position += frame.span();
    }

    /// Behind a break: moves on to the next group of this segment. False where there is none.
    pub(super) fn resync(&mut self) -> Result<bool, ReadError> {
        let end = self.end();
        let mut position = self.position + BLOCK as u64;
        while position < end {
            let octets = self.chunks.read(position, GROUP_FRAME)?;
            let nonce = self.header.nonce;
            let good = GroupFrame::decode(octets)
                .is_some_and(|(frame, _)| frame.nonce == nonce && frame.first_offset >= self.next);
            if good {
                self.position = position;
                self.expected = None;
                return Ok(true);
            }
            position += BLOCK as u64;
        }
        Ok(false)
    }

    /// Looks at a block without moving.
    pub(super) fn block_at(&mut self, position: u64) -> Result<&[u8], ReadError> {
        self.chunks.read(position, BLOCK)
    }

    /// Sees what was written since.
    pub(super) fn refresh(&mut self) {
        self.chunks.forget();
    }

    /// The memory, for the next cursor.
    pub(super) fn into_buffer(self) -> AlignedBuffer {
        self.chunks.into_buffer()
    }
}

/// One entry of a payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// In the payload.
    pub(super) at: usize,
    /// `None` if the frame itself fails: nothing after it can be found.
    pub(super) frame: Option<EntryFrame>,
    /// `None` where its checksum fails.
    pub(super) content: Option<&'a [u8]>,
}

/// The entries of a payload, damaged ones marked as such.
pub(super) fn entries(payload: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = payload.get(at..).filter(|rest| !rest.is_empty())?;
        let frame = EntryFrame::decode_frame(rest)
            .filter(|frame| rest.len() >= ENTRY_FRAME + frame.bytes as usize);
        let content = frame.and_then(|frame| {
            let content = rest.get(ENTRY_FRAME..ENTRY_FRAME + frame.bytes as usize)?;
            (crc(content) == frame.crc).then_some(content)
        });
        let entry = Entry { at, frame, content };
        at = frame.map_or(payload.len(), |frame| at + frame.span());
        Some(entry)
    })
}
