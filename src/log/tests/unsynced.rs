//! What a crash leaves of a segment that no sync ever covered; found by the simulator.

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
