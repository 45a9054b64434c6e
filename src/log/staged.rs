//! What the simulator (feature `sim`) needs from the format.

use super::frame::{BLOCK, GROUP_FRAME, GroupFrame};

/// First offset of the records of a group, and the one after them; `None` if no group begins.
#[must_use]
pub fn offsets(octets: &[u8]) -> Option<(u64, u64)> {
    let (frame, _) = GroupFrame::decode(octets)?;
    Some((frame.first_offset, frame.first_offset + u64::from(frame.records)))
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
