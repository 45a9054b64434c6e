//! How should a segment file be made, and a group be committed? What does write + fdatasync of a
//! 16 KiB group cost in a file that grows, is only allocated, is zero-filled, or is an old one
//! written over? And by which way: two blocking calls, write and sync linked on a ring of our own,
//! or glommio's `DmaFile`?
//!
//! Not criterion's: the tail matters as much as the middle, and each group is written once only.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]

use std::{
    fs::{File, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    time::Instant,
};

const GROUP: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
enum Choice {
    Extending,
    Allocated,
    ZeroFilled,
    Recycled,
}

struct Block(Vec<u8>, usize);

impl Block {
    fn new(octet: u8) -> Self {
        let octets = vec![octet; GROUP + 4096];
        let from = octets.as_ptr().align_offset(4096);
        Self(octets, from)
    }

    fn octets(&self) -> &[u8] {
        &self.0[self.1..self.1 + GROUP]
    }
}

fn prepare(path: &Path, choice: Choice, groups: usize) -> File {
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .expect("the directory takes O_DIRECT");
    let bytes = (groups * GROUP) as libc::off_t;
    let fill = match choice {
        Choice::Extending => None,
        Choice::Allocated => {
            // SAFETY: a descriptor of ours.
            assert_eq!(unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes) }, 0);
            None
        }
        Choice::ZeroFilled => Some(0),
        Choice::Recycled => Some(b'o'),
    };
    if let Some(octet) = fill {
        let block = Block::new(octet);
        for at in 0..groups {
            file.write_all_at(block.octets(), (at * GROUP) as u64).expect("space");
        }
    }
    file.sync_all().expect("synced");
    file
}

/// Microseconds of each group's write and sync, sorted.
fn measure(dir: &Path, choice: Choice, groups: usize) -> Vec<u128> {
    let path = dir.join(format!("{choice:?}"));
    let file = prepare(&path, choice, groups);
    let block = Block::new(b'n');
    let mut times = Vec::with_capacity(groups);
    for at in 0..groups {
        let started = Instant::now();
        let written = file.write_at(block.octets(), (at * GROUP) as u64).expect("written");
        file.sync_data().expect("synced");
        times.push(started.elapsed().as_micros());
        assert_eq!(written, GROUP);
    }
    assert_eq!(file.metadata().expect("facts").size(), (groups * GROUP) as u64);
    let mut last = Block::new(0);
    let from = last.1;
    let read = file.read_at(&mut last.0[from..from + GROUP], ((groups - 1) * GROUP) as u64);
    assert!(read.is_ok_and(|read| read == GROUP) && last.octets() == block.octets());
    times.sort_unstable();
    times
}

/// The same on a zero-filled file with the sync linked behind the write, as the shards do.
fn measure_ring(dir: &Path, groups: usize) -> Vec<u128> {
    use io_uring::{IoUring, opcode, squeue, types};
    let file = prepare(&dir.join("Ring"), Choice::ZeroFilled, groups);
    let block = Block::new(b'n');
    let mut builder = IoUring::builder();
    let mut ring: IoUring =
        builder.setup_single_issuer().setup_defer_taskrun().build(8).expect("a ring");
    let fd = types::Fd(file.as_raw_fd());
    let mut times = Vec::with_capacity(groups);
    for at in 0..groups {
        let started = Instant::now();
        let write = opcode::Write::new(fd, block.octets().as_ptr(), GROUP as u32)
            .offset((at * GROUP) as u64)
            .build()
            .flags(squeue::Flags::IO_LINK);
        let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: the block outlives both completions, which are awaited below.
        unsafe { ring.submission().push_multiple(&[write, sync]).expect("room for two") };
        ring.submit_and_wait(2).expect("both complete");
        times.push(started.elapsed().as_micros());
        let results: Vec<i32> = ring.completion().map(|entry| entry.result()).collect();
        assert_eq!(results, [GROUP as i32, 0]);
    }
    times.sort_unstable();
    times
}

/// The same through glommio's file, on an executor with nothing else to do.
fn measure_glommio(dir: &Path, groups: usize) -> Vec<u128> {
    use glommio::{LocalExecutorBuilder, Placement, io::DmaFile};
    // Rule of glommio 0.9: the first file of an executor exists and is a block long.
    let path = dir.join("Glommio");
    drop(prepare(&path, Choice::ZeroFilled, groups));
    let work = move || async move {
        let file = DmaFile::open(&path).await.expect("it was just made");
        file.close().await.expect("closed");
        let options = {
            let mut options = glommio::io::OpenOptions::new();
            options.read(true).write(true);
            options
        };
        let file = options.dma_open(&path).await.expect("opened");
        let mut times = Vec::with_capacity(groups);
        for at in 0..groups {
            let started = Instant::now();
            let mut buffer = file.alloc_dma_buffer(GROUP);
            buffer.as_bytes_mut().fill(b'n');
            let written = file.write_at(buffer, (at * GROUP) as u64).await.expect("written");
            file.fdatasync().await.expect("synced");
            times.push(started.elapsed().as_micros());
            assert_eq!(written, GROUP);
        }
        file.close().await.expect("closed");
        times.sort_unstable();
        times
    };
    LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(64)
        .io_memory(64 << 10)
        .preempt_timer(std::time::Duration::from_millis(1))
        .spawn(work)
        .expect("an executor")
        .join()
        .expect("it ends")
}

fn print(name: &str, times: &[u128]) {
    let at = |share: usize| times[(times.len() - 1) * share / 1000];
    println!("{name:>12}: p50 {:>6} p90 {:>6} p99 {:>6}", at(500), at(900), at(990));
}

fn main() {
    // `cargo test --benches` runs a few groups only, to see that it works.
    let groups = if std::env::args().any(|argument| argument == "--bench") { 2_000 } else { 8 };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    println!("write + fdatasync of {GROUP} octets, {groups} groups, microseconds");
    let choices = [Choice::Extending, Choice::Allocated, Choice::ZeroFilled, Choice::Recycled];
    for choice in choices {
        print(&format!("{choice:?}"), &measure(dir.path(), choice, groups));
    }
    println!("zero-filled, by way");
    print("linked ring", &measure_ring(dir.path(), groups));
    print("glommio", &measure_glommio(dir.path(), groups));
}
