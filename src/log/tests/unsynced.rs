//! What a crash leaves of a segment that no sync ever covered; found by the simulator.

use std::collections::BTreeMap;

use super::{
    frame::{BLOCK, GroupFrame},
    *,
};

/// A shard whose only segment was made, and of whose writes only one block behind the header has
/// reached the disk.
fn headless(
    dir: &Path,
    frame: impl FnOnce([u8; 16]) -> GroupFrame,
) -> (std::path::PathBuf, Identity) {
    let data = DataDir::open(dir).unwrap();
    let shard = data.make_shard(0).unwrap();
    let identity = Identity { node: data.node, shard: 0 };
    drop(recover(&shard, identity).unwrap());
    let spare = prepare_segment(&shard, 1, SEGMENT).unwrap();
    let mut block = vec![0; BLOCK];
    frame(spare.nonce).encode(&mut block);
    let file = std::fs::OpenOptions::new().write(true).open(segment_path(&shard, 1)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &block, 3 * BLOCK as u64).unwrap();
    (shard, identity)
}

fn group(nonce: [u8; 16], first_offset: u64, high_water_mark: u64) -> GroupFrame {
    GroupFrame {
        nonce,
        number: 2,
        first_offset,
        high_water_mark,
        written_at: 0,
        records: 1,
        payload_bytes: 8,
        payload_crc: 0,
        chain: 0,
    }
}

#[test]
fn a_segment_whose_header_never_came_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (shard, identity) = headless(dir.path(), |nonce| group(nonce, 5, 5));
    for _ in 0..2 {
        let recovery = recover(&shard, identity).unwrap();
        assert!(recovery.damage.is_empty(), "nothing was acknowledged: {:?}", recovery.damage);
        assert_eq!(recovery.lost_records, 0);
        // A reader may have seen what was written.
        assert!(recovery.next_offset.get() > 65_536, "{:?}", recovery.next_offset);
        assert_eq!(recovery.next_segment, 2);
        assert!(!segment_path(&shard, 1).exists());
    }
}

/// Its recovery is interrupted between the seals of the segment before it and its own: the next one
/// comes to the same end. Found by the simulator (seed 5056).
#[test]
fn a_recovery_that_is_interrupted_between_two_seals_blames_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let written = write_files(dir.path(), 5);
    let end = written.len() as u64;
    let shard = dir.path().join("shard-000");
    // The spare, begun, with a header that never came.
    let mut block = vec![0; BLOCK];
    group([7; 16], end, end).encode(&mut block);
    let file = std::fs::OpenOptions::new().write(true).open(segment_path(&shard, 2)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &block, 3 * BLOCK as u64).unwrap();
    let before = tree(&shard);
    let identity = Identity { node: DataDir::open(dir.path()).unwrap().node, shard: 0 };
    let whole = recover(&shard, identity).unwrap();
    assert!(whole.damage.is_empty(), "{:?}", whole.damage);
    let manifest = std::fs::read(shard.join("manifest")).unwrap();
    // What the first recovery has put down, seal by seal.
    let begun = before["manifest"].len();
    for cut in (begun..=manifest.len()).step_by(64) {
        for (name, octets) in &before {
            std::fs::write(shard.join(name), octets).unwrap();
        }
        std::fs::write(shard.join("manifest"), &manifest[..cut]).unwrap();
        let recovery = recover(&shard, identity).unwrap();
        assert!(recovery.damage.is_empty(), "{cut}: {:?}", recovery.damage);
        assert_eq!(recovery.next_offset, whole.next_offset, "{cut}");
        assert_eq!(recovery.lost_records, 0, "{cut}");
    }
}

/// Files of a directory, by name.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| {
        let octets = std::fs::read(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), octets)
    });
    named.collect()
}

/// What was written last before an orderly end was part of a message that never ended: no sync covers
/// it, and power may take it after the end. Found by the simulator (seeds 4990, 7132).
#[test]
fn an_orderly_end_promises_only_what_was_synced() {
    let mut bench = Bench::new();
    bench.feed();
    bench.appender.append(&mail("a@x.test"), &[b"first"], &[]).unwrap();
    bench.run();
    let mut fragment = bench.appender.new_fragment();
    fragment.push(&[b'x'; 5000]);
    bench.appender.append_fragment(fragment).unwrap();
    bench.run();
    let seal = bench.appender.seal().unwrap();
    assert_eq!((seal.end_position, seal.end_offset), (2 * BLOCK as u64, 1), "{seal:?}");
    // Nothing of the next one was ever synced: nobody is to miss it.
    let mut bench = Bench::new();
    bench.feed();
    let mut fragment = bench.appender.new_fragment();
    fragment.push(&[b'x'; 5000]);
    bench.appender.append_fragment(fragment).unwrap();
    bench.run();
    let seal = bench.appender.seal().unwrap();
    assert!(seal.removed && seal.end_position == 0, "{seal:?}");
}

#[test]
fn t18_a_frame_in_mail_data_of_such_a_segment_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (shard, identity) = headless(dir.path(), |_| group([9; 16], 1 << 40, u64::MAX));
    for _ in 0..2 {
        let recovery = recover(&shard, identity).unwrap();
        assert!(recovery.next_offset.get() < 1 << 20, "{:?}", recovery.next_offset);
        assert!(recovery.lost_records < 1 << 20, "{recovery:?}");
        assert!(segment_path(&shard, 1).exists(), "whatever it is, it is kept");
    }
}

#[test]
fn a_write_that_hangs_in_a_poisoned_segment_holds_nothing_up() {
    let mut bench = Bench::new();
    bench.feed();
    bench.appender.append(&mail("a@x.test"), &[b"first"], &[]).unwrap();
    let mut write = || match bench.appender.poll_op() {
        Some(Op::Write { op, buffer, .. }) => (op, buffer),
        other => panic!("{other:?}"),
    };
    let ((header, buffer), (hangs, kept)) = (write(), write());
    let broken = Err(io::Error::from_raw_os_error(libc::EIO));
    bench.appender.handle_write(header, buffer, broken, Duration::ZERO);
    bench.run();
    let unused = |event: &LogEvent| {
        matches!(event, LogEvent::Sealed(seal) if seal.number == 1 && seal.removed
            && seal.end_position == 0 && seal.next_offset() == 1)
    };
    assert!(bench.events.iter().any(unused), "no header, no seal: {:?}", bench.events);
    // Mail goes on in the next segment, and in those behind it.
    for seed in 0..1_000 {
        let offset = bench.appender.append(&mail("a@x.test"), &[&body(seed)], &[]).unwrap();
        bench.run();
        assert_eq!(bench.appender.high_water_mark(), offset.next());
    }
    assert!(bench.segments.len() > 3, "segments have rolled");
    assert!(!bench.appender.is_idle());
    let len = kept.len();
    bench.appender.handle_write(hangs, kept, Ok(len), Duration::ZERO);
    assert!(bench.appender.is_idle());
}

/// An entry of the index is evidence that something was synced: recovery takes a segment of zeros
/// that has one for wiped.
#[test]
fn an_index_entry_waits_for_the_sync_of_its_group() {
    let mut bench = Bench::new();
    // As long as two steps of the index.
    let bytes = 4 << 20;
    bench.segments.insert(1, vec![0; bytes as usize]);
    bench.next = 2;
    bench.appender.handle_segment(Spare { number: 1, nonce: [1; 16], bytes });
    let indexed = |event: &LogEvent| matches!(event, LogEvent::Indexed(_));
    let mut sync = None;
    for seed in 0..30 {
        let mut fragment = bench.appender.new_fragment();
        fragment.push(&vec![7; 60_000]);
        let at = bench.appender.append_fragment(fragment).unwrap();
        bench.appender.append(&mail("a@x.test"), &[&body(seed)], &[at]).unwrap();
        while let Some(op) = bench.appender.poll_op() {
            match op {
                Op::Write { op, buffer, then_sync, .. } => {
                    let len = buffer.len();
                    bench.appender.handle_write(op, buffer, Ok(len), Duration::ZERO);
                    sync = sync.or(then_sync);
                }
                Op::Sync { op, .. } => sync = Some(op),
            }
        }
    }
    while let Some(event) = bench.appender.poll_event() {
        assert!(!indexed(&event), "nothing was synced: {event:?}");
    }
    bench.appender.handle_sync(sync.expect("a sync is under way"), Ok(()), Duration::ZERO);
    bench.run();
    assert!(bench.events.iter().any(indexed), "{:?}", bench.events);
}

/// Were the record written sooner, it could outlive its mail data when power is lost.
#[test]
fn a_record_is_written_after_the_sync_of_the_segment_with_its_mail_data() {
    let mut bench = Bench::new();
    bench.feed();
    let whole = |bench: &mut Bench, op, buffer: GroupBuffer| {
        let len = buffer.len();
        bench.appender.handle_write(op, buffer, Ok(len), Duration::ZERO);
    };
    let mut parts = Vec::new();
    // Up to the end of segment 1, whose 255 blocks take 17 of them: the record finds no room there.
    for _ in 0..17 {
        let mut fragment = bench.appender.new_fragment();
        fragment.push(&vec![7; 60_000]);
        parts.push(bench.appender.append_fragment(fragment).unwrap());
        while let Some(Op::Write { op, buffer, .. }) = bench.appender.poll_op() {
            whole(&mut bench, op, buffer);
        }
    }
    bench.feed();
    bench.appender.append(&mail("a@x.test"), &[&vec![b'x'; 70_000]], &parts).unwrap();
    let mut synced = false;
    while let Some(op) = bench.appender.poll_op() {
        match op {
            Op::Write { op, buffer, segment, position, then_sync } => {
                assert!(synced || segment == 1 || position == 0, "a record at {position}");
                whole(&mut bench, op, buffer);
                if let Some(sync) = then_sync {
                    bench.appender.handle_sync(sync, Ok(()), Duration::ZERO);
                }
            }
            Op::Sync { op, segment } => {
                synced |= segment == 1;
                bench.appender.handle_sync(op, Ok(()), Duration::ZERO);
            }
        }
    }
    assert_eq!(bench.appender.high_water_mark(), Offset::new(1));
    assert!(synced);
}

/// What is written later says that everything before it was acknowledged; only the seal of the
/// segment whose write failed says what was not.
#[test]
fn after_a_failed_write_the_seal_comes_before_further_writes() {
    let mut bench = Bench::new();
    bench.feed();
    bench.appender.append(&mail("a@x.test"), &[b"first"], &[]).unwrap();
    let Some(Op::Write { op, buffer, .. }) = bench.appender.poll_op() else { panic!("the header") };
    let broken = Err(io::Error::from_raw_os_error(libc::EIO));
    bench.appender.handle_write(op, buffer, broken, Duration::ZERO);
    bench.feed();
    bench.appender.append(&mail("a@x.test"), &[b"second"], &[]).unwrap();
    assert!(bench.appender.poll_op().is_none(), "the seal is not durable");
    bench.appender.handle_sealed(1);
    assert!(matches!(bench.appender.poll_op(), Some(Op::Write { segment: 2, .. })));
}

/// Writes complete in any order. A reader that took the segment without a header for one that was
/// never used would pass over what comes in it.
#[test]
fn a_follower_waits_for_a_header_that_comes_late() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let written = write_files(dir.path(), 1_200);
    let log = Log::open(dir.path()).unwrap();
    let segments = log.segments(0).unwrap();
    assert!(segments.len() > 2, "three segments at least");
    let second = segments[1].base_offset;
    let path = segment_path(&shard_dir(dir.path(), 0), segments[1].number);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut header = vec![0; BLOCK];
    file.read_exact_at(&mut header, 0).unwrap();
    file.write_all_at(&vec![0; BLOCK], 0).unwrap();
    let mut follower = Follower::new(&log, 0, 0).unwrap();
    let mut shown = Vec::new();
    let mut poll = || {
        let damage = follower.poll(&mut |offset, _| {
            shown.push(offset);
            Ok(())
        });
        assert_eq!(damage.unwrap(), []);
        shown.clone()
    };
    assert_eq!(poll(), (0..second).collect::<Vec<_>>(), "up to the segment without a header");
    file.write_all_at(&header, 0).unwrap();
    assert_eq!(poll(), (0..written.len() as u64).collect::<Vec<_>>(), "each once, in their order");
}

/// A reader outside the server goes by the frames. Where power takes all that was not synced nothing
/// shows it: the log ends at a group, at a header, or with a segment that looks never used.
#[test]
fn offsets_that_a_reader_may_have_seen_name_nothing_else() {
    use std::os::unix::fs::FileExt;
    for kept_groups in [None, Some(0), Some(3)] {
        let dir = tempfile::tempdir().unwrap();
        let written = write_files(dir.path(), 6);
        let shard = shard_dir(dir.path(), 0);
        let log = Log::open(dir.path()).unwrap();
        let mut follower = Follower::new(&log, 0, 0).unwrap();
        let mut seen = 0;
        let poll = |follower: &mut Follower, seen: &mut u64| {
            let damage = follower.poll(&mut |offset, _| {
                *seen = offset + 1;
                Ok(())
            });
            assert_eq!(damage.unwrap(), []);
        };
        poll(&mut follower, &mut seen);
        assert_eq!(seen, written.len() as u64);
        let path = segment_path(&shard, 1);
        let octets = std::fs::read(&path).unwrap();
        let (from, end) = match kept_groups {
            None => (0, 0),
            Some(kept) => groups(&octets)[kept],
        };
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; octets.len() - from], from as u64).unwrap();
        let identity = Identity { node: log.node(), shard: 0 };
        let recovery = recover(&shard, identity).unwrap();
        assert_eq!((recovery.damage.as_slice(), recovery.lost_records), (&[][..], 0));
        let next = recovery.next_offset.get();
        assert!(next >= seen, "{kept_groups:?}: offset {next} was seen, up to {seen}");
        assert_eq!(recover(&shard, identity).unwrap().next_offset.get(), next, "and so again");
        // Nothing is pending there, and a reader passes over it.
        let log = Log::open(dir.path()).unwrap();
        assert_eq!(log.pending(0, end, next).unwrap(), None);
        if kept_groups.is_some() {
            let mut later = Follower::new(&log, 0, 0).unwrap();
            let mut shown = 0;
            poll(&mut later, &mut shown);
            assert_eq!((shown, later.next_offset()), (end, next));
            let left_out = log.left_out(0).unwrap();
            assert_eq!((left_out.count(0..u64::MAX), left_out.count(0..end)), (next - end, 0));
            // What is there counts, and nothing else.
            let pending = log.pending(0, 0, next).unwrap();
            assert_eq!(pending.map_or(0, |pending| pending.records), end);
        }
    }
}
