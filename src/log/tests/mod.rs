//! The log over files and over memory. This module holds what the tests share.

mod appender;
mod files;
mod fixture;
mod forged;
mod lost;
mod read_errors;
mod records;
mod torn_tail;
mod unsynced;

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use super::*;

const IDENTITY: Identity = Identity { node: [1, 2, 3, 4, 5, 6], shard: 0 };
const SEGMENT: u64 = 1 << 20;

fn mail(from: &str) -> Mail<'_> {
    Mail {
        mail_from: from,
        rcpts: "b@x.test\nc@x.test",
        received_at: 1_700_000_000_000_000,
        body_type: 1,
        flags: 5,
        size_declared: Some(9),
        ..testing::mail("mx")
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
            while let Some(event) = self.appender.poll_event() {
                if let LogEvent::Sealed(seal) = &event {
                    self.appender.handle_sealed(seal.number);
                }
                self.events.push(event);
            }
            let Some(op) = self.appender.poll_op() else { break };
            match op {
                Op::Write { op, segment, position, buffer, then_sync } => {
                    let len = buffer.len();
                    assert_eq!((position % 4096, len % 4096), (0, 0));
                    let written = self.result();
                    let failed = written.is_err();
                    if !failed {
                        let file = self.segments.get_mut(&segment).unwrap();
                        let at = position as usize;
                        assert!(file[at..at + len].iter().all(|&o| o == 0), "written once only");
                        file[at..at + len].copy_from_slice(buffer.octets());
                    }
                    let written = written.map(|()| len);
                    self.appender.handle_write(op, buffer, written, Duration::ZERO);
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

/// Runs an appender over files, which dies at the end.
pub(super) fn write_files(dir: &Path, count: usize) -> Vec<(RecordId, Vec<u8>)> {
    write_and(dir, count, |_, _, _| {})
}

/// The same with an orderly end.
pub(super) fn write_and_close(dir: &Path, count: usize) -> Vec<(RecordId, Vec<u8>)> {
    write_and(dir, count, |mut appender, mut manifest, next| {
        manifest.close(appender.seal().as_slice(), next).unwrap();
    })
}

fn write_and(
    dir: &Path,
    count: usize,
    end: impl FnOnce(Appender, Manifest, u64),
) -> Vec<(RecordId, Vec<u8>)> {
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
        testing::complete(&mut appender, |segment, position, buffer| {
            let path = segment_path(&shard, segment);
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, buffer.octets(), position).unwrap();
        });
        while let Some(event) = appender.poll_event() {
            if let LogEvent::Indexed(entry) = event {
                append_index(&shard, &entry).unwrap();
            }
        }
    }
    end(appender, recovery.manifest, next);
    written
}

/// A log of so many records of 60,000 octets in segments of 1 MiB, and its mark.
pub(crate) fn written(dir: &Path, records: usize) -> (DataDir, u64) {
    let data = DataDir::open(dir).unwrap();
    let mut writer = Writer::open(&data, 0, 1 << 20).unwrap().without_sync();
    for _ in 0..records {
        writer.append(&mail(""), &[b'x'; 60_000]).unwrap();
        writer.commit().unwrap();
    }
    let mark = writer.high_water_mark();
    writer.close().unwrap();
    (data, mark)
}
