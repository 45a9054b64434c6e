//! How should a segment file be made? One question: what does write + fdatasync of a 16 KiB group
//! cost in a file that grows, is only allocated, is zero-filled, or is an old one written over?
//!
//! Not criterion's: the tail matters as much as the middle, and each group is written once only.

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

fn main() {
    // `cargo test --benches` runs a few groups only, to see that it works.
    let groups = if std::env::args().any(|argument| argument == "--bench") { 2_000 } else { 8 };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    println!("write + fdatasync of {GROUP} octets, {groups} groups, microseconds");
    let choices = [Choice::Extending, Choice::Allocated, Choice::ZeroFilled, Choice::Recycled];
    for choice in choices {
        let times = measure(dir.path(), choice, groups);
        let at = |share: usize| times[(groups - 1) * share / 1000];
        let name = format!("{choice:?}");
        println!("{name:>10}: p50 {:>6} p90 {:>6} p99 {:>6}", at(500), at(900), at(990));
    }
}
