//! What is counted of a disk that fails: writes, syncs, no room, damage that the scrub finds.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Move, Moves, Scrape, moved};

use crate::support::{
    Launch, Server, bulk, eventually,
    machine::{self, SmallDisk, has, skip},
    segments, send,
};

pub const MOVES: Moves = &[
    ("log_errors_total", "op", &["write", "sync"]),
    ("smtp_messages_rejected_total", "reason", &["log_error", "disk_full"]),
    ("log_disk_state", "", &[]),
];

fn launch(dir: &Path) -> Launch {
    Launch::new(dir).set("server.shards=1").set("log.segment_size=1MiB")
}

fn own_disks() -> bool {
    let root = machine::is_root() || skip("a file system of one's own needs root");
    root && has("mkfs.ext4") && has("mount")
}

/// A write beyond the limit of a file's size fails like one that the disk refuses. The sync that is
/// linked to it never begins, and is not counted as failed.
#[test]
fn a_write_that_fails_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    send(&server, 1, 1_000);
    let before = Scrape::of(&server);
    machine::limit_of(&server.child, libc::RLIMIT_FSIZE, 4_096);
    let mut client = server.client();
    client.ehlo();
    let reply = client.bdat(&bulk(1, 10));
    assert!(reply.starts_with("451 4.3.0 "), "{reply}");
    let here: &[Move] = &[
        ("log_errors_total", "op", &["write"]),
        ("smtp_messages_rejected_total", "reason", &["log_error"]),
        ("smtp_replies_total", "code", &["451"]),
    ];
    moved(&server, &before, here);
    assert_eq!(Scrape::of(&server).sum("log_errors_total", "op=\"sync\""), 0.0);
}

/// The disk takes what is written to it into a cache that has no room behind it: writes succeed, and
/// the sync fails, as with a device that loses what it was given.
#[test]
fn a_sync_that_fails_is_counted() {
    if !own_disks() {
        return;
    }
    let disk = SmallDisk::hollow(256);
    let server = launch(&disk.path.join("data")).start();
    send(&server, 1, 1_000);
    let before = Scrape::of(&server);
    disk.fill_below();
    let mut client = server.client();
    client.ehlo();
    let sync: &[Move] = &[("log_errors_total", "op", &["sync"])];
    // What was backed before is written again: the first mail may still be stored.
    eventually("a sync fails", super::WAIT, || {
        client.bdat(&bulk(1, 100));
        super::standing(&before, &Scrape::of(&server), sync).is_empty()
    });
}

#[test]
fn a_full_disk_is_counted() {
    if !own_disks() {
        return;
    }
    let disk = SmallDisk::ext4(256);
    let server = launch(&disk.path.join("data")).start();
    let before = Scrape::of(&server);
    machine::allocate(&disk.path.join("foreign"), disk.free() - (2 << 20)).unwrap();
    let mut client = server.client();
    client.ehlo();
    eventually("mail is refused", super::WAIT, || {
        let reply = client.say("MAIL FROM:<a@client.test>");
        client.say("RSET");
        reply.starts_with("452 4.3.1 ")
    });
    let here: &[Move] =
        &[("smtp_messages_rejected_total", "reason", &["disk_full"]), ("log_disk_state", "", &[])];
    moved(&server, &before, here);
    assert_eq!(server.metric("mailrace_log_disk_state", &[]), 2.0);
}

pub const SCRUB_MOVES: Moves = &[
    ("log_scrub_segments_total", "", &[]),
    ("log_scrub_bytes_total", "", &[]),
    ("log_scrub_last_timestamp_seconds", "", &[]),
    ("log_corrupt_records_total", "stage", &["scrub"]),
];

pub const SCRUB_FAILS: Moves = &[("log_errors_total", "op", &["scrub"])];

/// The first scrub is a minute after the start.
const SCRUBBED: Duration = Duration::from_secs(100);

#[track_caller]
fn moved_by_the_scrub(server: &Server, before: &Scrape, moves: Moves) {
    eventually("the scrub is counted", SCRUBBED, || {
        super::standing(before, &Scrape::of(server), moves).is_empty()
    });
}

/// Bits that flipped since the start, in a segment that waits for an exporter.
#[test]
fn damage_that_the_scrub_finds_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    send(&server, 60, 50_000);
    assert_eq!(server.stop(), Some(0));
    let server = launch(dir.path()).start();
    let before = Scrape::of(&server);
    let first: PathBuf = segments(dir.path()).remove(0);
    let mut octets = fs::read(&first).unwrap();
    let at = octets.len() / 2;
    octets[at] ^= 0x40;
    fs::write(&first, octets).unwrap();
    moved_by_the_scrub(&server, &before, SCRUB_MOVES);
}

/// The data directory goes away under the server.
#[test]
fn a_scrub_that_fails_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = launch(&data).start();
    let before = Scrape::of(&server);
    fs::rename(&data, dir.path().join("gone")).unwrap();
    moved_by_the_scrub(&server, &before, SCRUB_FAILS);
}
