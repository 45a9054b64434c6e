//! What the simulator (feature `sim`) needs from the format.

use super::{
    FragmentAt, RecordView,
    frame::{BLOCK, EntryFrame, GROUP_FRAME, GroupFrame},
};

/// First offset of the records of a group, and the one after them; `None` if no group begins.
#[must_use]
pub fn offsets(octets: &[u8]) -> Option<(u64, u64)> {
    let (frame, _) = GroupFrame::decode(octets)?;
    Some((frame.first_offset, frame.first_offset + u64::from(frame.records)))
}

/// Where the records of a group have mail data outside of it, with their offsets.
#[must_use]
pub fn fragments(octets: &[u8]) -> Vec<(u64, FragmentAt)> {
    let mut found = Vec::new();
    let Some((group, _)) = GroupFrame::decode(octets) else { return found };
    let payload = octets.get(GROUP_FRAME..).unwrap_or_default();
    let mut rest = payload.get(..group.payload_bytes as usize).unwrap_or_default();
    while let Some((entry, content)) = EntryFrame::decode(rest) {
        if let Some(record) = RecordView::new(entry.kind, content) {
            found.extend(record.fragments().map(|fragment| (entry.offset, fragment)));
        }
        rest = rest.get(entry.span()..).unwrap_or_default();
    }
    found
}

/// The offset that forged groups claim.
pub const FORGED: u64 = 1 << 40;

/// Mail data with a frame of a group that was never written, in each place where one could begin if
/// this is the first thing in a group: what a hostile sender might try.
#[must_use]
pub fn forge(nonce: [u8; 16], bytes: usize) -> Vec<u8> {
    // Behind the frames of group and entry.
    const BEFORE: usize = GROUP_FRAME + super::frame::ENTRY_FRAME;
    let mut octets = vec![b'f'; bytes];
    let frame = GroupFrame {
        nonce,
        number: 0,
        first_offset: FORGED,
        high_water_mark: 1 << 41,
        written_at: 0,
        records: 1,
        payload_bytes: 64,
        payload_crc: 0,
        chain: 0,
    };
    for place in octets.get_mut(BLOCK - BEFORE..).unwrap_or_default().chunks_mut(BLOCK) {
        if let Some(place) = place.get_mut(..GROUP_FRAME) {
            frame.encode(place);
        }
    }
    octets
}
