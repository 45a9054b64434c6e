//! Mail data that looks like the log's own frames (DURABILITY T18, BAD-INPUTS D31).

use super::{
    frame::{BLOCK, ENTRY_FRAME, EntryFrame, EntryKind, GROUP_FRAME, GroupFrame, SegmentHeader},
    *,
};

const OTHER: [u8; 16] = [0xee; 16];

/// A whole segment with one group and one record, all checksums right.
fn segment(nonce: [u8; 16], number: u64, offset: u64, high_water_mark: u64) -> Vec<u8> {
    let mut octets = vec![0; BLOCK];
    let header = SegmentHeader { nonce, identity: IDENTITY, number, first_offset: offset };
    let chain = header.encode(&mut octets);
    octets.extend(group(nonce, 0, chain, offset, high_water_mark));
    octets
}

fn group(nonce: [u8; 16], number: u64, chain: u32, offset: u64, high_water_mark: u64) -> Vec<u8> {
    let entry = entry(offset);
    let mut octets = vec![0; (GROUP_FRAME + entry.len()).next_multiple_of(BLOCK)];
    octets[GROUP_FRAME..][..entry.len()].copy_from_slice(&entry);
    let frame = GroupFrame {
        nonce,
        number,
        first_offset: offset,
        high_water_mark,
        written_at: 0,
        records: 1,
        payload_bytes: entry.len() as u32,
        payload_crc: frame::crc(&entry),
        chain,
    };
    frame.encode(&mut octets);
    octets
}

fn entry(offset: u64) -> Vec<u8> {
    let mut content = vec![0; 1024];
    let (kind, mail) = (EntryKind::RecordV1, mail("forged@x.test"));
    let bytes = record::write(kind, &mail, &[b"forged"], &[], &mut content).unwrap();
    content.truncate(bytes);
    let frame = EntryFrame { kind, bytes: bytes as u32, offset, crc: frame::crc(&content) };
    let mut octets = vec![0; ENTRY_FRAME];
    frame.encode(&mut octets);
    octets.extend(content);
    octets.resize(frame.span(), 0);
    octets
}

/// Every record of the segments, by its offset; each walked as a reader does.
fn records(segments: &BTreeMap<u64, Vec<u8>>) -> BTreeMap<u64, Vec<u8>> {
    let mut found = BTreeMap::new();
    for octets in segments.values() {
        let Some(walked) = walk(octets.as_slice(), octets.len() as u64).unwrap() else { continue };
        let mut at = BLOCK;
        while (at as u64) < walked.end_position {
            let (frame, _) = GroupFrame::decode(&octets[at..]).unwrap();
            let payload = &octets[at + GROUP_FRAME..][..frame.payload_bytes as usize];
            let mut from = 0;
            while let Some((entry, content)) = payload.get(from..).and_then(EntryFrame::decode) {
                from += entry.span();
                if entry.kind != EntryKind::Fragment {
                    let record = RecordView::new(entry.kind, content).expect("a record");
                    let before = found.insert(entry.offset, record.inline().to_vec());
                    assert_eq!(before, None, "offset {} twice", entry.offset);
                }
            }
            at += frame.span() as usize;
        }
    }
    found
}

#[test]
fn t18_forged_frames_in_bodies_are_mail_data() {
    let mut cases = 0;
    // The nonces of the segments in use are `[1; 16]`, `[2; 16]`...: the forger knows them.
    for nonce in [[1; 16], [2; 16], OTHER] {
        for kind in 0..4 {
            let mut bench = Bench::new();
            bench.feed();
            let mut sent = BTreeMap::new();
            for case in 0..90 {
                let forged = match kind {
                    0 => segment(nonce, 1, case, u64::MAX),
                    1 => group(nonce, case, 0, case, u64::MAX),
                    2 => entry(case),
                    _ => segment(nonce, 2, u64::MAX - 1, case),
                };
                // Where in a block the forged octets come to lie: everywhere, the block's own
                // start among them.
                let lead = match case % 3 {
                    0 => case as usize * 47,
                    _ => lead_to_block(&bench, case as usize % 2),
                };
                let octets = [&vec![b'x'; lead], &forged[..], &forged[..]].concat();
                let offset = bench.appender.append(&mail("a@x.test"), &[&octets], &[]).unwrap();
                sent.insert(offset.get(), octets);
                bench.run();
                cases += 1;
            }
            assert!(bench.appender.is_idle());
            assert_eq!(bench.appender.high_water_mark().get(), 90);
            for octets in bench.segments.values() {
                if let Some(walked) = walk(octets.as_slice(), SEGMENT).unwrap() {
                    assert_eq!(walked.end, End::Clean, "nothing behind the last group");
                }
            }
            assert!(records(&bench.segments) == sent, "all that was sent and nothing else");
        }
    }
    assert!(cases >= 1_000, "{cases}");
}

/// Octets that a body needs before what follows lies at a block's start: the frames before it are
/// of fixed size, since the body is the first field of a record.
fn lead_to_block(bench: &Bench, blocks: usize) -> usize {
    assert!(bench.appender.is_idle(), "the body begins a group");
    BLOCK * (blocks + 1) - GROUP_FRAME - ENTRY_FRAME
}

#[test]
fn t18_forged_frames_at_block_starts_survive_a_torn_tail() {
    // The group with the forged body is torn, so the walk looks at each block behind the break.
    // Frames of other nonces say nothing, whatever mark they claim; true frames of this segment
    // mailed to ourselves claim no mark beyond what was acknowledged when they were copied.
    let mut cases = 0;
    for blocks in 0..4 {
        for own in [false, true] {
            let mut bench = Bench::new();
            bench.feed();
            for seed in 0..6 {
                bench.appender.append(&mail("a@x.test"), &[&body(seed)], &[]).unwrap();
                bench.run();
            }
            let last = groups(&bench.segments[&1]).last().unwrap().0;
            let forged = if own {
                bench.segments[&1][BLOCK..last].to_vec()
            } else {
                [segment(OTHER, 1, 0, u64::MAX), group(OTHER, 1, 0, 7, u64::MAX)].concat()
            };
            let lead = vec![b'x'; lead_to_block(&bench, blocks)];
            bench.appender.append(&mail("a@x.test"), &[&lead, &forged], &[]).unwrap();
            bench.run();
            let whole = &bench.segments[&1];
            let end = groups(whole).last().unwrap().0;
            let at = last + BLOCK * (blocks + 1);
            assert!(GroupFrame::decode(&whole[at..]).is_some() || !own, "it lies at a block");
            // Any one sector of the group is missing, or all up to one.
            for sector in (last..end).step_by(512) {
                for from in [sector, last] {
                    let mut torn = whole.clone();
                    if torn[from..sector + 512].iter().all(|&octet| octet == 0) {
                        continue;
                    }
                    torn[from..sector + 512].fill(0);
                    let walked = walk(torn.as_slice(), SEGMENT).unwrap().unwrap();
                    assert_eq!(walked.end_offset, 6, "{blocks} {own} {from} {sector}");
                    assert!(!matches!(walked.end, End::Damaged { .. }), "{:?}", walked.end);
                    cases += 1;
                }
            }
        }
    }
    assert!(cases > 200, "{cases}");
}

#[test]
fn d31_a_segment_as_body_is_read_back() {
    let mut bench = Bench::new();
    bench.feed();
    let octets = segment([1; 16], 1, 0, 100);
    for _ in 0..3 {
        bench.appender.append(&mail("a@x.test"), &[&octets], &[]).unwrap();
        bench.run();
    }
    let found = records(&bench.segments);
    assert_eq!(found.len(), 3);
    assert!(found.values().all(|found| *found == octets));
}
