//! What does a message cost on its way into the log: serialised, and synced in a group?

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]

use std::{
    fs::{File, OpenOptions},
    hint::black_box,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mailrace::log::{
    Appender, Identity, LogEvent, Mail, Offset, Op, Options, Spare, SyncPolicy, testing,
};

const IDENTITY: Identity = Identity { node: [1; 6], shard: 0 };
const SEGMENT: u64 = 64 << 20;

fn mail() -> Mail<'static> {
    Mail {
        mail_from: "sender@client.example",
        rcpts: "recipient@server.example",
        ..testing::mail("mx")
    }
}

fn appender() -> Appender {
    let options =
        Options { group_bytes_max: 1 << 30, unsynced_bytes_max: 1 << 30, sync: SyncPolicy::Group };
    let mut appender = Appender::new(IDENTITY, options, Offset::new(0));
    appender.handle_segment(Spare { number: 1, nonce: [1; 16], bytes: 1 << 30 });
    appender
}

/// The yardsticks are a copy of the mail data, and a copy with the checksum that a record has.
fn serialise(c: &mut Criterion) {
    for bytes in [1, 4, 64].map(|kib| kib * 1024_usize) {
        let body = vec![b'x'; bytes];
        let mut group = c.benchmark_group(format!("record/{bytes}"));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("append", |b| {
            b.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                let mut left = count;
                let mut warm = appender();
                while left > 0 {
                    // A group of 1 MiB into a buffer that has grown; what follows is not measured.
                    let here = left.min((1 << 20) / bytes as u64);
                    let started = Instant::now();
                    for _ in 0..here {
                        let taken = warm.append(&mail(), &[black_box(&body)], &[]);
                        assert!(taken.is_ok());
                    }
                    spent += started.elapsed();
                    left -= here;
                    assert_eq!(drain(&mut warm), here);
                }
                spent
            });
        });
        let mut room = vec![0; bytes];
        group.bench_function("memcpy", |b| {
            b.iter(|| black_box(&mut room).copy_from_slice(black_box(&body)));
        });
        group.bench_function("memcpy_crc", |b| {
            b.iter(|| {
                black_box(&mut room).copy_from_slice(black_box(&body));
                crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &room)
            });
        });
        group.finish();
    }
}

/// Completes every operation without a disk; says how many records that acknowledged.
fn drain(appender: &mut Appender) -> u64 {
    let before = appender.high_water_mark().get();
    let number = appender.log_end_offset().get() + 2;
    testing::complete(appender, |_, _, _| {});
    if appender.wants_segment() {
        let (nonce, bytes) = ([2; 16], 1 << 30);
        appender.handle_segment(Spare { number, nonce, bytes });
        testing::complete(appender, |_, _, _| {});
    }
    while appender.poll_event().is_some() {}
    appender.high_water_mark().get() - before
}

/// A segment file, zero-filled, to be written with O_DIRECT.
fn zero_filled(path: &Path) -> File {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .expect("the directory takes O_DIRECT");
    let zeros = AlignedZeros::new();
    for position in (0..SEGMENT).step_by(zeros.octets().len()) {
        file.write_all_at(zeros.octets(), position).expect("space");
    }
    file.sync_all().expect("synced");
    file
}

struct AlignedZeros(Vec<u8>, usize);

impl AlignedZeros {
    const BYTES: usize = 1 << 20;

    fn new() -> Self {
        let octets = vec![0; Self::BYTES + 4096];
        let from = octets.as_ptr().align_offset(4096);
        Self(octets, from)
    }

    fn octets(&self) -> &[u8] {
        &self.0[self.1..self.1 + Self::BYTES]
    }
}

/// Runs the appender's operations with plain pwrite and fdatasync: the ring is measured elsewhere.
fn run(appender: &mut Appender, file: &File) -> u64 {
    let mut acknowledged = 0;
    while let Some(op) = appender.poll_op() {
        match op {
            Op::Write { op, position, buffer, then_sync, .. } => {
                let written = file.write_at(buffer.octets(), position);
                appender.handle_write(op, buffer, written, Duration::ZERO);
                if let Some(sync) = then_sync {
                    appender.handle_sync(sync, file.sync_data(), Duration::ZERO);
                }
            }
            Op::Sync { op, .. } => appender.handle_sync(op, file.sync_data(), Duration::ZERO),
        }
        while let Some(event) = appender.poll_event() {
            match event {
                LogEvent::Advanced(to) => acknowledged = to.get(),
                LogEvent::Poisoned { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    }
    acknowledged
}

fn group_commit(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let file = zero_filled(&dir.path().join("segment"));
    let body = vec![b'x'; 4096];
    let mut group = c.benchmark_group("group_commit_4k");
    group.sample_size(20);
    for waiting in [1_u64, 16, 256] {
        // Per message: the time of a group shared by those that wait for it.
        group.throughput(Throughput::Elements(waiting));
        group.bench_function(format!("{waiting}"), |b| {
            b.iter_batched_ref(
                || {
                    // Each time over the same blocks: a zero-filled or recycled file's cost.
                    let mut appender = appender();
                    for _ in 0..waiting {
                        appender.append(&mail(), &[&body], &[]).expect("room");
                    }
                    appender
                },
                |appender| assert_eq!(run(appender, &file), waiting),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, serialise, group_commit);
criterion_main!(benches);
