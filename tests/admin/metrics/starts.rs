//! What does not move while a server runs: another start shows other values.

use super::{Moves, Scrape};

use crate::support::{
    Launch,
    machine::{self, SmallDisk, has, skip},
    send,
};

pub const MOVES: Moves = &[
    ("shards", "", &[]),
    ("log_recovery_duration_seconds", "", &[]),
    ("log_disk_size_bytes", "", &[]),
    ("process_max_fds", "", &[]),
    ("process_start_time_seconds", "", &[]),
];

/// On another disk, with other limits, after a kill.
#[test]
fn another_start_shows_other_values() {
    let root = machine::is_root() || skip("a file system of one's own needs root");
    if !(root && has("mkfs.ext4") && has("mount")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let launch = |dir: &std::path::Path| Launch::new(dir).set("log.segment_size=1MiB");
    let first = launch(dir.path()).set("server.shards=1").start();
    let before = Scrape::of(&first);
    let disk = SmallDisk::ext4(256);
    let data = disk.path.join("data");
    let killed = launch(&data).set("server.shards=2").start();
    send(&killed, 20, 100_000);
    killed.kill();
    let second = launch(&data).set("server.shards=2").limit(libc::RLIMIT_NOFILE, 4_000).start();
    let now = Scrape::of(&second);
    assert_eq!(super::standing(&before, &now, MOVES), [""; 0]);
    assert_eq!([before.sum("shards", ""), now.sum("shards", "")], [1.0, 2.0]);
    assert_eq!(now.sum("process_max_fds", ""), 4_000.0);
    // The file system's own records take some of the 256 MiB.
    let size = now.sum("log_disk_size_bytes", "") / f64::from(1 << 20);
    assert!((200.0..=256.0).contains(&size), "{size} MiB");
    assert!(
        now.sum("process_start_time_seconds", "") > before.sum("process_start_time_seconds", "")
    );
}
