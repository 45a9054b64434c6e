//! What a crash can leave of a segment's tail, exhaustively: walked in memory (DURABILITY T5, D8).

use super::{
    frame::{BLOCK, GROUP_FRAME, GroupFrame, SegmentHeader},
    *,
};

const SECTOR: usize = 512;

/// A segment of 64 records, four a group, and zeros behind it.
struct Sample {
    octets: Vec<u8>,
    /// Where each group begins and the offset there; the last is behind the last group.
    ends: Vec<(usize, u64)>,
}

impl Sample {
    fn new(nonce: u8) -> Self {
        let mut bench = Bench::new();
        bench.next = u64::from(nonce);
        bench.feed();
        for seed in 0..64 {
            let octets = vec![seed as u8; 600 + seed * 5];
            bench.appender.append(&mail("a@x.test"), &[&octets], &[]).unwrap();
            if seed % 4 == 3 {
                bench.run();
            }
        }
        let mut octets = bench.segments.remove(&u64::from(nonce)).unwrap();
        let ends = groups(&octets);
        assert_eq!((ends.len(), ends.last().unwrap().1), (17, 64));
        octets.truncate(ends.last().unwrap().0 + 8 * BLOCK);
        Self { octets, ends }
    }

    /// Start of the last group, its end, and the offsets there.
    fn last(&self) -> (usize, usize) {
        let at = self.ends.len();
        (self.ends[at - 2].0, self.ends[at - 1].0)
    }

    /// Walks what became of the segment and holds it against the groups that are still whole.
    ///
    /// `crash`: nothing but a crash did this, so nothing that was acknowledged is gone.
    fn judge(&self, octets: &[u8], crash: bool, what: &dyn std::fmt::Display) -> Option<Walked> {
        let walked = walk(octets, octets.len() as u64).unwrap();
        let whole =
            |range: std::ops::Range<usize>| octets.get(range.clone()) == self.octets.get(range);
        // Octets 52.. of the header's block are no part of it.
        if !whole(0..52) {
            assert_eq!(walked, None, "{what}");
            return None;
        }
        let walked = walked.unwrap_or_else(|| panic!("{what}: a header"));
        let good = self.ends.windows(2).take_while(|pair| {
            let (start, end) = (pair[0].0, pair[1].0);
            let (frame, _) = GroupFrame::decode(&self.octets[start..]).unwrap();
            // Neither the padding in the frame nor that behind the payload counts, but the file
            // must reach that far.
            octets.len() >= end
                && whole(start..start + 76)
                && whole(start + GROUP_FRAME..start + GROUP_FRAME + frame.payload_bytes as usize)
        });
        let (position, offset) = self.ends[good.count()];
        assert_eq!((walked.end_offset, walked.end_position), (offset, position as u64), "{what}");
        match walked.end {
            End::Damaged { acknowledged } => {
                assert!(!crash, "{what}: a torn tail is no damage");
                assert!(acknowledged > offset && acknowledged <= 64, "{what}: {acknowledged}");
            }
            End::Clean => {
                let rest = octets.get(position..).unwrap_or_default();
                let first = rest.get(..BLOCK).unwrap_or(rest);
                assert!(first.iter().all(|&octet| octet == 0), "{what}: a clean end is zeros");
            }
            End::Torn => {}
        }
        Some(walked)
    }
}

#[test]
fn t5_the_file_ends_anywhere_in_the_last_two_groups() {
    let sample = Sample::new(1);
    let (before, _) = sample.ends[sample.ends.len() - 3];
    let mut cases = 0;
    for cut in before..=sample.last().1 {
        sample.judge(&sample.octets[..cut], true, &format_args!("cut at {cut}"));
        // The same with zeros in place of what is missing: allocated and never written.
        let mut zeros = sample.octets.clone();
        zeros[cut..].fill(0);
        sample.judge(&zeros, true, &format_args!("zeros from {cut}"));
        cases += 2;
    }
    assert!(cases > 16_000, "{cases}");
}

#[test]
fn t5_any_sectors_of_the_last_group_reached_the_disk() {
    let sample = Sample::new(1);
    let (last, end) = sample.last();
    let sectors = (end - last) / SECTOR;
    let varied = sectors.min(12);
    let mut cases = 0;
    // What lies behind the sectors that vary is there, or is not.
    for rest in [true, false] {
        for subset in 0..1_u32 << varied {
            let mut torn = sample.octets.clone();
            for sector in 0..sectors {
                let there = if sector < varied { subset >> sector & 1 == 1 } else { rest };
                if !there {
                    torn[last + sector * SECTOR..][..SECTOR].fill(0);
                }
            }
            sample.judge(&torn, true, &format_args!("sectors {subset:b}, rest {rest}"));
            cases += 1;
        }
        if varied == sectors {
            break;
        }
    }
    assert_eq!((sectors, cases), (16, 2 << 12));
}

#[test]
fn t5_every_bit_of_every_header() {
    let sample = Sample::new(1);
    let starts = sample.ends[..sample.ends.len() - 1].iter().map(|(start, _)| (*start, 76));
    let mut cases = 0;
    for (start, len) in std::iter::once((0, 52)).chain(starts) {
        for bit in 0..len * 8 {
            let mut flipped = sample.octets.clone();
            flipped[start + bit / 8] ^= 1 << (bit % 8);
            let walked = sample.judge(&flipped, false, &format_args!("{start}, bit {bit}"));
            // Damage of acknowledged groups is told: a later group's mark lies beyond it. The
            // last group was the tail when written: nobody can tell whether it was synced.
            let told = walked.is_some_and(|walked| matches!(walked.end, End::Damaged { .. }));
            assert_eq!(told, start > 0 && start < sample.last().0, "{start}, bit {bit}");
            cases += 1;
        }
    }
    assert!(cases > 10_000, "{cases}");
}

#[test]
fn t5_a_flipped_octet_of_any_payload() {
    let sample = Sample::new(1);
    let mut cases = 0;
    for at in (BLOCK..sample.last().1).step_by(37) {
        let mut flipped = sample.octets.clone();
        flipped[at] ^= 0x10;
        sample.judge(&flipped, false, &format_args!("octet {at}"));
        cases += 1;
    }
    assert!(cases > 1_700, "{cases}");
}

#[test]
fn t5_remains_of_an_older_use_of_the_blocks() {
    // A recycled file: what was not written yet holds another segment's blocks. The nonce tells
    // them apart, wherever they lie and however well they are framed.
    let sample = Sample::new(1);
    let older = Sample::new(2);
    assert_eq!(sample.ends, older.ends);
    let (before, _) = sample.ends[sample.ends.len() - 3];
    let end = sample.last().1;
    for cut in (before..=end).step_by(SECTOR) {
        for shift in 0..16 {
            let mut stale = sample.octets.clone();
            let from = BLOCK * (1 + shift);
            let len = (stale.len() - cut).min(older.octets.len() - from);
            stale[cut..cut + len].copy_from_slice(&older.octets[from..from + len]);
            sample.judge(&stale, true, &format_args!("stale from {cut}, block {}", 1 + shift));
        }
    }
    // Blocks of this very segment, as a misdirected write might leave: marks of groups written
    // before cannot lie beyond what is acknowledged, so it is a torn tail.
    for cut in (sample.last().0..=end).step_by(SECTOR) {
        for &(from, _) in &sample.ends[..sample.ends.len() - 2] {
            let mut stale = sample.octets.clone();
            let target = cut.next_multiple_of(BLOCK);
            stale[cut..].fill(0);
            let len = (stale.len() - target).min(sample.last().0 - from);
            stale[target..target + len].copy_from_slice(&sample.octets[from..from + len]);
            sample.judge(&stale, true, &format_args!("group of {from} again at {target}"));
        }
    }
}

#[test]
fn t5_swapped_blocks_are_never_taken() {
    let sample = Sample::new(1);
    let blocks = sample.last().1 / BLOCK;
    let mut cases = 0;
    for one in 0..blocks {
        for other in one + 1..blocks + 2 {
            let mut swapped = sample.octets.clone();
            let (head, tail) = swapped.split_at_mut(other * BLOCK);
            head[one * BLOCK..][..BLOCK].swap_with_slice(&mut tail[..BLOCK]);
            sample.judge(&swapped, false, &format_args!("blocks {one} and {other}"));
            cases += 1;
        }
    }
    assert!(cases > 100, "{cases}");
}

/// What may lie at a block.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Block {
    Zeros,
    Garbage,
    /// A good frame of another nonce, with the highest mark.
    Foreign,
    /// A frame of this nonce that belongs elsewhere, its mark not beyond the break.
    Earlier,
    /// A frame of this nonce whose mark lies beyond the break.
    Later,
}

const BLOCKS: [Block; 5] =
    [Block::Zeros, Block::Garbage, Block::Foreign, Block::Earlier, Block::Later];

#[test]
fn recovery_decides_by_a_table() {
    const NONCE: [u8; 16] = [7; 16];
    let header = SegmentHeader { nonce: NONCE, identity: IDENTITY, number: 1, first_offset: 10 };
    let frame = |nonce, number, high_water_mark, chain| GroupFrame {
        nonce,
        number,
        first_offset: 10,
        high_water_mark,
        written_at: 0,
        records: 3,
        payload_bytes: 8,
        payload_crc: frame::crc(&[0; 8]),
        chain,
    };
    let place = |octets: &mut Vec<u8>, block| {
        let from = octets.len();
        octets.resize(from + BLOCK, 0);
        let at = &mut octets[from..];
        match block {
            Block::Zeros => {}
            Block::Garbage => at[100] = 1,
            Block::Foreign => {
                frame([8; 16], 1, u64::MAX, 0).encode(at);
            }
            Block::Earlier => {
                frame(NONCE, 5, 13, 0).encode(at);
            }
            Block::Later => {
                frame(NONCE, 5, 14, 0).encode(at);
            }
        }
    };
    let mut cases = 0;
    for with_header in [true, false] {
        for good_groups in [0_u64, 1] {
            // At the break, behind it, at the end; or the file ends right there.
            let tails = BLOCKS.iter().flat_map(|&first| {
                BLOCKS.iter().flat_map(move |&second| {
                    BLOCKS.iter().map(move |&third| vec![first, second, third])
                })
            });
            for tail in tails.chain([vec![]]) {
                let mut octets = vec![0; BLOCK];
                let chain = header.encode(&mut octets);
                if !with_header {
                    octets[3] ^= 1;
                }
                for _ in 0..good_groups {
                    let from = octets.len();
                    octets.resize(from + BLOCK, 0);
                    frame(NONCE, 0, 10, chain).encode(&mut octets[from..]);
                }
                for &block in &tail {
                    place(&mut octets, block);
                }
                let end_offset = 10 + 3 * good_groups;
                // A mark of 13 is beyond a break at 10.
                let beyond = |block: &&Block| match block {
                    Block::Earlier => good_groups == 0,
                    block => **block == Block::Later,
                };
                let end = if tail.iter().any(|block| beyond(&block)) {
                    // The highest of the marks.
                    let acknowledged = 13 + u64::from(tail.contains(&Block::Later));
                    End::Damaged { acknowledged }
                } else if tail.contains(&Block::Earlier)
                    || tail.first().is_some_and(|first| *first != Block::Zeros)
                {
                    End::Torn
                } else {
                    End::Clean
                };
                let end_position = (BLOCK * (1 + good_groups as usize)) as u64;
                let wanted = with_header.then_some(Walked {
                    header,
                    end_offset,
                    end_position,
                    high_water_mark: 10 * good_groups,
                    end,
                });
                let walked = walk(octets.as_slice(), octets.len() as u64).unwrap();
                assert_eq!(walked, wanted, "{good_groups} groups, then {tail:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 2 * 2 * 126);
}
