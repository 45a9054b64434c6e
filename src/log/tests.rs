//! The log over files and over memory: round trips, torn tails, failures.

use std::{collections::BTreeMap, io, time::Duration};

use super::*;

const IDENTITY: Identity = Identity { node: [1, 2, 3, 4, 5, 6], shard: 0 };
const SEGMENT: u64 = 1 << 20;

fn mail<'a>(from: &'a str) -> Mail<'a> {
    Mail {
        mail_from: from,
        rcpts: "b@x.test\nc@x.test",
        helo: "client.test",
        client: "127.0.0.1:25".parse().unwrap(),
        received_at: 1_700_000_000_000_000,
        listener: "mx",
        esmtp: true,
        smtputf8: false,
        body_type: 1,
        flags: 5,
        size_declared: Some(9),
    }
}

/// Runs an appender over memory; what a sync covered is `durable`.
struct Bench {
    appender: Appender,
    segments: BTreeMap<u64, Vec<u8>>,
    next: u64,
    events: Vec<LogEvent>,
    fail: Option<(u64, i32)>,
    ops: u64,
}

impl Bench {
    fn new() -> Self {
        let appender = Appender::new(IDENTITY, Options::default(), Offset::new(0));
        Self {
            appender,
            segments: BTreeMap::new(),
            next: 1,
            events: Vec::new(),
            fail: None,
            ops: 0,
        }
    }

    fn feed(&mut self) {
        if self.appender.wants_segment() {
            let number = self.next;
            self.next += 1;
            self.segments.insert(number, vec![0; SEGMENT as usize]);
            self.appender.handle_segment(Spare {
                number,
                nonce: [number as u8; 16],
                bytes: SEGMENT,
            });
        }
    }

    fn result(&mut self) -> io::Result<()> {
        self.ops += 1;
        match self.fail {
            Some((at, errno)) if at == self.ops => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn run(&mut self) {
        loop {
            self.feed();
            let Some(op) = self.appender.poll_op() else { break };
            match op {
                Op::Write { op, segment, position, ptr, len, then_sync } => {
                    assert_eq!((position % 4096, len % 4096), (0, 0));
                    // SAFETY: the appender keeps the buffer until `handle_write`.
                    let octets = unsafe { std::slice::from_raw_parts(ptr, len) };
                    let written = self.result();
                    let failed = written.is_err();
                    if !failed {
                        let file = self.segments.get_mut(&segment).unwrap();
                        let at = position as usize;
                        assert!(file[at..at + len].iter().all(|&o| o == 0), "written once only");
                        file[at..at + len].copy_from_slice(octets);
                    }
                    self.appender.handle_write(op, written.map(|()| len), Duration::ZERO);
                    if let Some(sync) = then_sync {
                        let result = if failed {
                            Err(io::Error::from_raw_os_error(libc::ECANCELED))
                        } else {
                            self.result()
                        };
                        self.appender.handle_sync(sync, result, Duration::ZERO);
                    }
                }
                Op::Sync { op, .. } => {
                    let result = self.result();
                    self.appender.handle_sync(op, result, Duration::ZERO);
                }
            }
        }
        while let Some(event) = self.appender.poll_event() {
            self.events.push(event);
        }
    }
}

fn body(seed: usize) -> Vec<u8> {
    (0..100 + seed * 37 % 5_000).map(|at| (at * 31 + seed) as u8).collect()
}

/// Ends of the groups of a segment, and the end offset there.
fn groups(octets: &[u8]) -> Vec<(usize, u64)> {
    let mut at = 4096;
    let mut ends = vec![(at, 0)];
    while let Some((frame, _)) = octets.get(at..).and_then(frame::GroupFrame::decode) {
        at += frame.span() as usize;
        ends.push((at, frame.first_offset + u64::from(frame.records)));
    }
    ends
}

#[test]
fn a_mark_moves_over_what_was_synced_and_segments_roll() {
    let mut bench = Bench::new();
    bench.feed();
    for seed in 0..2_000 {
        bench.appender.append(&mail("a@x.test"), &[&body(seed)], &[]).unwrap();
        if seed % 3 == 0 {
            bench.run();
        }
    }
    bench.run();
    assert_eq!(bench.appender.high_water_mark().get(), 2_000);
    assert!(bench.appender.is_idle());
    let sealed = bench.events.iter().filter(|event| matches!(event, LogEvent::Sealed(_))).count();
    assert!(sealed >= 4, "{sealed} segments were left");
    let mut next = 0;
    for octets in bench.segments.values() {
        let Some(walked) = walk(octets.as_slice(), SEGMENT).unwrap() else { continue };
        assert_eq!((walked.header.first_offset, walked.end), (next, End::Clean));
        next = walked.end_offset;
    }
    assert_eq!(next, 2_000);
}

#[test]
fn a_sync_from_before_the_roll_does_not_seal_the_segment() {
    let mut bench = Bench::new();
    bench.feed();
    bench.appender.append(&mail("a@x.test"), &[b"first"], &[]).unwrap();
    bench.run();
    // A record's write with its sync behind it: the sync is still under way...
    bench.appender.append(&mail("a@x.test"), &[b"second"], &[]).unwrap();
    let Some(Op::Write { op, segment: 1, len, then_sync: Some(sync), .. }) =
        bench.appender.poll_op()
    else {
        panic!("a lone group is written with its sync")
    };
    bench.appender.handle_write(op, Ok(len), Duration::ZERO);
    // ...while fragments fill the segment and roll it.
    loop {
        bench.feed();
        let mut fragment = bench.appender.new_fragment();
        fragment.push(&[b'x'; 100_000]);
        if bench.appender.append_fragment(fragment).unwrap().segment == 2 {
            break;
        }
    }
    bench.appender.handle_sync(sync, Ok(()), Duration::ZERO);
    while let Some(event) = bench.appender.poll_event() {
        assert!(!matches!(event, LogEvent::Sealed(_)), "its last writes are still to come");
    }
    bench.run();
    assert!(bench.events.iter().any(|event| matches!(event, LogEvent::Sealed(s) if s.number == 1)));
}

#[test]
fn every_failed_operation_fails_its_records_and_no_others() {
    // D5: whatever operation fails, what was synced before stays, what was not is told, and no
    // offset is used twice.
    for fail in 1..40 {
        for errno in [libc::EIO, libc::ENOSPC] {
            let mut bench = Bench::new();
            bench.feed();
            bench.fail = Some((fail, errno));
            for seed in 0..60 {
                // At most one failure: the log goes on in its next segment.
                bench.feed();
                bench.appender.append(&mail("a@x.test"), &[&body(seed)], &[]).unwrap();
                bench.run();
            }
            let failed: Vec<(u64, u64)> = bench
                .events
                .iter()
                .filter_map(|event| match event {
                    LogEvent::Failed { from, to } => Some((from.get(), to.get())),
                    _ => None,
                })
                .collect();
            assert!(failed.len() <= 1, "{failed:?}");
            let lost = failed.first().map_or(0, |(from, to)| to - from);
            let mut found = 0;
            for octets in bench.segments.values() {
                if let Some(walked) = walk(octets.as_slice(), SEGMENT).unwrap() {
                    found += walked.end_offset - walked.header.first_offset;
                }
            }
            assert!(found + lost >= 60, "operation {fail}: {found} found, {lost} told lost");
            assert_eq!(bench.appender.log_end_offset().get(), 60);
        }
    }
}

#[test]
fn three_failures_within_ten_minutes_make_the_log_read_only() {
    let mut bench = Bench::new();
    for round in 0..3 {
        assert!(!bench.appender.read_only());
        bench.fail = Some((bench.ops + 1 + round % 2, libc::EIO));
        bench.feed();
        bench.appender.append(&mail("a@x.test"), &[b"x"], &[]).unwrap();
        bench.run();
    }
    assert!(bench.appender.read_only());
    let refused = bench.appender.append(&mail("a@x.test"), &[b"x"], &[]);
    assert_eq!(refused, Err(AppendError::Failed));
}

#[test]
fn t5_a_torn_tail_leaves_the_acknowledged_and_invents_nothing() {
    let mut bench = Bench::new();
    bench.feed();
    for seed in 0..64 {
        bench.appender.append(&mail("a@x.test"), &[&body(seed)], &[]).unwrap();
        if seed % 4 == 3 {
            bench.run();
        }
    }
    let ends = groups(&bench.segments[&1]);
    let whole = bench.segments[&1][..ends[ends.len() - 1].0 + 32_768].to_vec();
    let bytes = whole.len() as u64;
    assert_eq!(ends.last().unwrap().1, 64);
    let (before, acknowledged) = ends[ends.len() - 3];
    let (last, synced) = ends[ends.len() - 2];
    let end = ends[ends.len() - 1].0;
    let mut cases = 0;
    // The file ends anywhere within its last two groups.
    for cut in before..end {
        let walked = walk(&whole[..cut], cut as u64).unwrap().unwrap();
        let want = if cut >= last { synced } else { acknowledged };
        assert_eq!(walked.end_offset, want, "cut at {cut}");
        cases += 1;
    }
    // Any subset of the last group's sectors reached the disk.
    let sectors = (end - last) / 512;
    for subset in 0..1_u64 << sectors.min(12) {
        let mut torn = whole.clone();
        for sector in 0..sectors {
            if subset >> (sector % 12) & 1 == 0 {
                torn[last + sector * 512..][..512].fill(0);
            }
        }
        let walked = walk(torn.as_slice(), bytes).unwrap().unwrap();
        let whole_group = torn[last..end] == whole[last..end];
        assert_eq!(walked.end_offset, if whole_group { 64 } else { synced }, "subset {subset}");
        assert!(!matches!(walked.end, End::Damaged { .. }), "a torn tail is no damage");
        cases += 1;
    }
    // Every bit of every group's frame.
    for (at, (start, _)) in ends[..ends.len() - 1].iter().enumerate() {
        for bit in 0..76 * 8 {
            let mut flipped = whole.clone();
            flipped[start + bit / 8] ^= 1 << (bit % 8);
            let walked = walk(flipped.as_slice(), bytes).unwrap().unwrap();
            assert_eq!(walked.end_offset, ends[at].1, "group {at}, bit {bit}");
            // Later groups tell that records behind the break were acknowledged.
            let told = matches!(walked.end, End::Damaged { .. });
            assert_eq!(told, at + 1 < ends.len() - 1, "group {at}");
            cases += 1;
        }
    }
    // Remains of an older use of the blocks.
    let mut stale = whole.clone();
    let older: Vec<u8> = whole[before..last].to_vec();
    stale[last..last + older.len()].copy_from_slice(&older);
    let walked = walk(stale.as_slice(), bytes).unwrap().unwrap();
    assert_eq!(walked.end_offset, synced);
    assert!(cases > 10_000, "{cases}");
}

#[test]
fn t18_forged_frames_in_a_body_are_mail_data() {
    let mut bench = Bench::new();
    bench.feed();
    bench.appender.append(&mail("a@x.test"), &[&body(1)], &[]).unwrap();
    bench.run();
    let forged = bench.segments[&1][..16_384].to_vec();
    for shift in 0..64 {
        let mut octets = vec![b'x'; shift * 67];
        octets.extend_from_slice(&forged);
        bench.appender.append(&mail("a@x.test"), &[&octets], &[]).unwrap();
        bench.run();
    }
    let mut records = 0;
    for octets in bench.segments.values() {
        if let Some(walked) = walk(octets.as_slice(), SEGMENT).unwrap() {
            assert_eq!(walked.end, End::Clean);
            records += walked.end_offset - walked.header.first_offset;
        }
    }
    assert_eq!(records, 65);
}

/// Runs an appender over files.
fn write_files(dir: &std::path::Path, count: usize) -> Vec<(RecordId, Vec<u8>)> {
    let data = DataDir::open(dir).unwrap();
    let shard = data.make_shard(0).unwrap();
    let identity = Identity { node: data.node, shard: 0 };
    let recovery = recover(&shard, identity).unwrap();
    assert!(recovery.damage.is_empty());
    let mut next = recovery.next_segment;
    let mut appender = Appender::new(identity, Options::default(), recovery.next_offset);
    let mut written = Vec::new();
    for seed in 0..count {
        if appender.wants_segment() {
            appender.handle_segment(prepare_segment(&shard, next, SEGMENT).unwrap());
            next += 1;
        }
        let octets = body(seed * 3);
        // Every tenth is a large one: two fragments and a rest.
        let mut fragments = Vec::new();
        let mut whole = Vec::new();
        if seed % 10 == 0 {
            for part in 0..2 {
                let mut buffer = appender.new_fragment();
                let data = body(seed * 5 + part);
                assert_eq!(buffer.push(&data), data.len());
                whole.extend_from_slice(&data);
                fragments.push(appender.append_fragment(buffer).unwrap());
            }
        }
        whole.extend_from_slice(&octets);
        let offset = appender.append(&mail("a@x.test"), &[&octets], &fragments).unwrap();
        written.push((identity.record_id(offset), whole));
        while let Some(op) = appender.poll_op() {
            match op {
                Op::Write { op, segment, position, ptr, len, then_sync } => {
                    let path = segment_path(&shard, segment);
                    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                    // SAFETY: the appender keeps the buffer until `handle_write`.
                    let octets = unsafe { std::slice::from_raw_parts(ptr, len) };
                    std::os::unix::fs::FileExt::write_all_at(&file, octets, position).unwrap();
                    appender.handle_write(op, Ok(len), Duration::ZERO);
                    if let Some(sync) = then_sync {
                        appender.handle_sync(sync, Ok(()), Duration::ZERO);
                    }
                }
                Op::Sync { op, .. } => appender.handle_sync(op, Ok(()), Duration::ZERO),
            }
            while let Some(event) = appender.poll_event() {
                if let LogEvent::Indexed(entry) = event {
                    append_index(&shard, &entry).unwrap();
                }
            }
        }
    }
    written
}

#[test]
fn what_was_written_is_read_back_over_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for _ in 0..3 {
        written.extend(write_files(dir.path(), 200));
    }
    let log = Log::open(dir.path()).unwrap();
    assert_eq!(log.shards().unwrap(), [0]);
    for (id, octets) in &written {
        let read = log
            .get(*id, |log, record| {
                assert_eq!(record.mail_from(), "a@x.test");
                assert_eq!(record.forward_paths().collect::<Vec<_>>(), ["b@x.test", "c@x.test"]);
                assert_eq!(record.bytes(), octets.len() as u64);
                let mut read = Vec::new();
                log.mail_data(id.shard, record, |chunk| {
                    read.extend_from_slice(chunk);
                    Ok(())
                })?;
                Ok(read)
            })
            .unwrap();
        assert_eq!(&read, octets, "{id}");
    }
    let missing = RecordId { offset: Offset::new(1 << 40), ..written[0].0 };
    assert!(log.get(missing, |_, _| Ok(())).is_err());
    let mut seen = 0;
    for segment in log.segments(0).unwrap() {
        let end = log.walk_segment(&segment, None, 0, &mut |_, _| {
            seen += 1;
            Ok(true)
        });
        assert_eq!(end.unwrap(), WalkEnd::End);
    }
    assert_eq!(seen, written.len());
}

#[test]
fn a_second_server_is_refused_and_a_second_recovery_agrees() {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path(), 50);
    let data = DataDir::open(dir.path()).unwrap();
    let second = DataDir::open(dir.path()).unwrap_err();
    assert!(second.to_string().contains("in use by another process"), "{second}");
    let shard = data.make_shard(0).unwrap();
    let identity = Identity { node: data.node, shard: 0 };
    let first = recover(&shard, identity).unwrap();
    let again = recover(&shard, identity).unwrap();
    assert_eq!(first.next_offset, again.next_offset);
    // Without the manifest the verdict is the same: it was never anything but a note of it.
    std::fs::remove_file(shard.join("manifest")).unwrap();
    let anew = recover(&shard, identity).unwrap();
    assert_eq!(first.next_offset, anew.next_offset);
}
