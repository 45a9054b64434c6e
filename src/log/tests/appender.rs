//! Appending, rolling, and operations that fail (DURABILITY D5).

use std::collections::HashSet;

use super::*;

#[test]
fn a_sync_from_before_the_roll_does_not_seal_the_segment() {
    let mut bench = Bench::new();
    bench.feed();
    bench.appender.append(&mail("a@x.test"), &[b"first"], &[]).unwrap();
    bench.run();
    // A record's write with its sync behind it: the sync is still under way...
    bench.appender.append(&mail("a@x.test"), &[b"second"], &[]).unwrap();
    let Some(Op::Write { op, segment: 1, buffer, then_sync: Some(sync), .. }) =
        bench.appender.poll_op()
    else {
        panic!("a lone group is written with its sync")
    };
    let len = buffer.len();
    bench.appender.handle_write(op, buffer, Ok(len), Duration::ZERO);
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

/// What kind of operation fails, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Write(i32),
    /// Half of the octets are written.
    Short,
    Sync(i32),
}

/// A write that reached the kernel.
struct Written {
    segment: u64,
    position: u64,
    octets: Vec<u8>,
    /// A sync that began after it completed returned without error.
    durable: bool,
}

/// Operation, segment, position, octets, the sync linked behind the write.
type Writing = (u64, u64, u64, GroupBuffer, Option<u64>);

/// A disk whose N-th write or sync fails; completions arrive in any order.
struct FaultyDisk {
    bench: Bench,
    fault: Fault,
    at: u64,
    for_ever: bool,
    writes: u64,
    syncs: u64,
    written: Vec<Written>,
    /// Segment and position of each block written.
    blocks: HashSet<(u64, u64)>,
    /// Records in groups that are durable.
    durable: HashSet<u64>,
    /// Writes under way, each with the sync linked behind it.
    writing: Vec<Writing>,
    /// Syncs under way: segment, and how many of `written` were there when it began.
    syncing: Option<(u64, u64, usize)>,
    /// Segments on which an operation failed: no sync is believed there any more (D5).
    broken: Vec<u64>,
    seed: u64,
    acknowledged: Vec<u64>,
    mark: u64,
    failed: Vec<(u64, u64)>,
}

const SMALL: u64 = 96 * 1024;

impl FaultyDisk {
    fn new(fault: Fault, at: u64, for_ever: bool) -> Self {
        let options = Options { group_bytes_max: SMALL as usize / 3, ..Options::default() };
        let appender = Appender::new(IDENTITY, options, Offset::new(0));
        Self {
            bench: Bench { appender, ..Bench::new() },
            fault,
            at,
            for_ever,
            writes: 0,
            syncs: 0,
            written: Vec::new(),
            blocks: HashSet::new(),
            durable: HashSet::new(),
            writing: Vec::new(),
            syncing: None,
            broken: Vec::new(),
            seed: at * 0x9e37_79b9 + 1,
            acknowledged: Vec::new(),
            mark: 0,
            failed: Vec::new(),
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 8) as usize % below
    }

    fn feed(&mut self) {
        if self.bench.appender.wants_segment() {
            let number = self.bench.next;
            self.bench.next += 1;
            let nonce = [number as u8; 16];
            self.bench.appender.handle_segment(Spare { number, nonce, bytes: SMALL });
        }
    }

    fn fails(&self, count: u64) -> bool {
        count == self.at || (self.for_ever && count > self.at)
    }

    /// Starts what can be started.
    fn start(&mut self) {
        self.feed();
        while let Some(op) = self.bench.appender.poll_op() {
            match op {
                Op::Write { op, segment, position, buffer, then_sync } => {
                    self.writing.push((op, segment, position, buffer, then_sync));
                }
                Op::Sync { op, segment } => self.begin_sync(op, segment),
            }
            self.feed();
        }
        self.events();
    }

    fn begin_sync(&mut self, op: u64, segment: u64) {
        assert!(self.syncing.is_none(), "one sync at a time");
        self.syncing = Some((op, segment, self.written.len()));
    }

    /// Completes one operation under way, any; false when there is none.
    fn complete(&mut self) -> bool {
        let pending = self.writing.len() + usize::from(self.syncing.is_some());
        if pending == 0 {
            return false;
        }
        let chosen = self.random(pending);
        if chosen < self.writing.len() {
            self.complete_write(chosen);
        } else {
            self.complete_sync();
        }
        self.events();
        true
    }

    fn complete_write(&mut self, chosen: usize) {
        let (op, segment, position, buffer, then_sync) = self.writing.swap_remove(chosen);
        let mut octets = buffer.octets().to_vec();
        self.writes += 1;
        let len = octets.len();
        let result = match self.fault {
            Fault::Write(errno) if self.fails(self.writes) => {
                octets.clear();
                Err(io::Error::from_raw_os_error(errno))
            }
            Fault::Short if self.fails(self.writes) => {
                octets.truncate(len / 2);
                Ok(len / 2)
            }
            _ => Ok(len),
        };
        let whole = result.as_ref().is_ok_and(|&written| written == len);
        for block in (position..position + octets.len() as u64).step_by(frame::BLOCK) {
            assert!(self.blocks.insert((segment, block)), "no block is written twice");
        }
        self.written.push(Written { segment, position, octets, durable: false });
        if !whole {
            self.broken.push(segment);
        }
        self.bench.appender.handle_write(op, buffer, result, Duration::ZERO);
        if let Some(sync) = then_sync {
            if whole {
                self.begin_sync(sync, segment);
            } else {
                // Linked behind a write that failed: never started.
                let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
                self.bench.appender.handle_sync(sync, result, Duration::ZERO);
            }
        }
    }

    fn complete_sync(&mut self) {
        let Some((op, segment, covers)) = self.syncing.take() else { return };
        self.syncs += 1;
        let result = match self.fault {
            Fault::Sync(errno) if self.fails(self.syncs) => {
                self.broken.push(segment);
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(()),
        };
        if result.is_ok() && !self.broken.contains(&segment) {
            for written in &mut self.written[..covers] {
                if written.segment != segment || std::mem::replace(&mut written.durable, true) {
                    continue;
                }
                if let Some((group, _)) = frame::GroupFrame::decode(&written.octets) {
                    let end = group.first_offset + u64::from(group.records);
                    self.durable.extend(group.first_offset..end);
                }
            }
        }
        self.bench.appender.handle_sync(op, result, Duration::ZERO);
    }

    /// D1: what is acknowledged lies in a durable group, at the moment it is acknowledged.
    fn events(&mut self) {
        while let Some(event) = self.bench.appender.poll_event() {
            match event {
                LogEvent::Failed { from, to } => {
                    assert!(self.mark <= from.get(), "nothing acknowledged fails");
                    self.failed.push((from.get(), to.get()));
                    self.mark = to.get();
                }
                LogEvent::Advanced(to) => {
                    for offset in self.mark..to.get() {
                        assert!(self.durable.contains(&offset), "offset {offset} is not durable");
                        self.acknowledged.push(offset);
                    }
                    self.mark = to.get();
                }
                LogEvent::Sealed(seal) => self.bench.appender.handle_sealed(seal.number),
                _ => {}
            }
        }
    }

    /// What a crash leaves when of the unsynced writes each is there or not, as `keep` says.
    fn image(&self, keep: impl Fn(usize) -> bool) -> BTreeMap<u64, Vec<u8>> {
        let mut segments = BTreeMap::new();
        for (at, written) in self.written.iter().enumerate() {
            let octets = segments.entry(written.segment).or_insert_with(|| vec![0; SMALL as usize]);
            if written.durable || keep(at) {
                let position = written.position as usize;
                octets[position..position + written.octets.len()].copy_from_slice(&written.octets);
            }
        }
        segments
    }
}

/// The bodies of the records of an image that recovery keeps, by offset.
fn recovered(segments: &BTreeMap<u64, Vec<u8>>) -> BTreeMap<u64, Vec<u8>> {
    let mut found = BTreeMap::new();
    for octets in segments.values() {
        let Some(walked) = walk(octets.as_slice(), SMALL).unwrap() else { continue };
        assert!(!matches!(walked.end, End::Damaged { .. }), "a crash is no damage");
        let mut at = frame::BLOCK;
        while (at as u64) < walked.end_position {
            let (group, _) = frame::GroupFrame::decode(&octets[at..]).unwrap();
            let payload = &octets[at + frame::GROUP_FRAME..][..group.payload_bytes as usize];
            let mut from = 0;
            while let Some((entry, content)) =
                payload.get(from..).and_then(frame::EntryFrame::decode)
            {
                from += entry.span();
                if entry.kind == frame::EntryKind::Fragment {
                    continue;
                }
                let record = RecordView::new(entry.kind, content).unwrap();
                let mut whole = Vec::new();
                for at in record.fragments() {
                    // A record may outlive its fragments only if it was never acknowledged.
                    let lies = segments[&at.segment].get(at.position as usize..);
                    let fragment = lies.and_then(frame::EntryFrame::decode);
                    let data = fragment.filter(|(frame, _)| frame.crc == at.crc);
                    whole.extend_from_slice(data.map_or(b"missing", |(_, data)| data));
                }
                whole.extend_from_slice(record.inline());
                assert!(found.insert(entry.offset, whole).is_none(), "offset twice");
            }
            at += group.span() as usize;
        }
    }
    found
}

/// Appends mail until the fault has struck and some rounds more, then crashes.
fn run_into(fault: Fault, at: u64, for_ever: bool) {
    let mut disk = FaultyDisk::new(fault, at, for_ever);
    let mut sent = BTreeMap::new();
    let mut rounds_left = 12;
    for seed in 0.. {
        let struck = !disk.broken.is_empty();
        if rounds_left == 0 {
            break;
        }
        // Where all fail from here on, the log gives up after the third time.
        rounds_left -= u32::from(struck && (!for_ever || disk.bench.appender.read_only()));
        assert!(seed < 5_000, "{fault:?} {at}: it ends");
        disk.feed();
        for part in 0..1 + disk.random(3) {
            let mut whole = Vec::new();
            let mut fragments = Vec::new();
            let mut lost = false;
            if disk.random(4) == 0 {
                for piece in 0..2 {
                    disk.feed();
                    let mut buffer = disk.bench.appender.new_fragment();
                    let data = body(seed * 11 + piece);
                    assert_eq!(buffer.push(&data), data.len());
                    match disk.bench.appender.append_fragment(buffer) {
                        Ok(at) => fragments.push(at),
                        Err(_) => lost = true,
                    }
                    whole.extend(data);
                    if disk.random(2) == 0 {
                        disk.start();
                    }
                }
            }
            if lost {
                continue;
            }
            let rest = body(seed * 7 + part);
            whole.extend_from_slice(&rest);
            disk.feed();
            match disk.bench.appender.append(&mail("a@x.test"), &[&rest], &fragments) {
                Ok(offset) => {
                    assert!(sent.insert(offset.get(), whole).is_none(), "an offset twice");
                }
                Err(error) => assert!(
                    struck || disk.bench.appender.read_only() || error == AppendError::NoSegment,
                    "{error}"
                ),
            }
            disk.start();
        }
        for _ in 0..disk.random(5) {
            disk.complete();
            disk.start();
        }
    }
    // Half of the cases end with operations under way.
    while at.is_multiple_of(2) && disk.complete() {
        disk.start();
    }
    assert!(!disk.broken.is_empty(), "{fault:?} {at}: the fault struck");
    // Nothing unsynced reached the disk; now and then also: all of it, each second write.
    let keeps: [fn(usize) -> bool; 3] = [|_| false, |_| true, |write| write % 2 == 0];
    for keep in &keeps[..if at % 5 < 2 { 3 } else { 1 }] {
        let image = disk.image(keep);
        let found = recovered(&image);
        for offset in &disk.acknowledged {
            assert!(
                found.get(offset) == sent.get(offset),
                "{fault:?} {at}: {offset} was acknowledged"
            );
        }
        assert!(found.keys().all(|offset| sent.contains_key(offset)), "nothing is invented");
    }
    let refused = |offset: &u64| disk.failed.iter().any(|(from, to)| (*from..*to).contains(offset));
    assert!(disk.acknowledged.iter().all(|offset| !refused(offset)), "answered once");
    if at.is_multiple_of(2) {
        let answered = sent
            .keys()
            .all(|offset| refused(offset) || disk.acknowledged.binary_search(offset).is_ok());
        assert!(answered, "{fault:?} {at}: every message is answered");
    }
    assert!(!for_ever || disk.bench.appender.read_only(), "three failures are enough");
}

#[test]
fn t6_the_nth_write_fails() {
    for fault in [Fault::Write(libc::EIO), Fault::Write(libc::ENOSPC), Fault::Short] {
        (1..=200).for_each(|at| run_into(fault, at, false));
    }
}

#[test]
fn t6_every_write_fails_from_the_nth_on() {
    for fault in [Fault::Write(libc::EIO), Fault::Write(libc::ENOSPC), Fault::Short] {
        (1..=200).for_each(|at| run_into(fault, at, true));
    }
}

#[test]
fn t6_the_nth_sync_fails() {
    for fault in [Fault::Sync(libc::EIO), Fault::Sync(libc::ENOSPC)] {
        (1..=200).for_each(|at| run_into(fault, at, false));
    }
}

#[test]
fn t6_every_sync_fails_from_the_nth_on() {
    for fault in [Fault::Sync(libc::EIO), Fault::Sync(libc::ENOSPC)] {
        (1..=200).for_each(|at| run_into(fault, at, true));
    }
}
