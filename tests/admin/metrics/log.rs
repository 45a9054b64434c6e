//! What is counted and shown of the log, and of what is kept of it.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{Move, Moves, Scrape, moved};

use crate::support::{Client, Launch, Server, body, eventually, log_command, segments, send};

pub const MOVES: Moves = &[
    ("log_appended_records_total", "", &[]),
    ("log_appended_bytes_total", "", &[]),
    ("log_append_duration_seconds", "", &[]),
    ("log_sync_duration_seconds", "", &[]),
    ("log_batch_records", "", &[]),
    ("log_start_offset", "", &[]),
    ("log_end_offset", "", &[]),
    ("log_high_water_mark", "", &[]),
    ("log_segments", "", &[]),
    ("log_size_bytes", "", &[]),
    ("log_oldest_record_timestamp_seconds", "", &[]),
    ("log_segments_deleted_total", "reason", &["size", "disk", "manual", "age"]),
    ("log_truncated_bytes_total", "", &[]),
    ("log_durable", "", &[]),
];

pub const REFUSAL_MOVES: Moves =
    &[("log_refusals_written_total", "", &[]), ("log_refusals_dropped_total", "", &[])];

fn launch(dir: &Path) -> Launch {
    Launch::new(dir)
        .set("server.shards=1")
        .set("log.segment_size=1MiB")
        .set("log.retention.retain_after_export=0s")
}

fn deleted(server: &Server, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    server.metric("mailrace_log_segments_deleted_total", &[&reason])
}

/// What the metrics say against what the directory holds.
fn kept_is_what_is_there(server: &Server) {
    eventually("the metrics are those of the directory", super::WAIT, || {
        let lines = String::from_utf8(log_command(&server.dir, &["ls", "--json"])).unwrap();
        let listing: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let listed = |path: &PathBuf| {
            let number = path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
            listing.iter().any(|segment| segment["segment"] == number)
        };
        let files = segments(&server.dir).into_iter().filter(listed);
        let files: u64 = files.map(|path| fs::metadata(path).map_or(0, |facts| facts.len())).sum();
        let start = listing.first().map_or(0, |first| first["base_offset"].as_u64().unwrap());
        server.metric("mailrace_log_segments", &[]) == listing.len() as f64
            && server.metric("mailrace_log_size_bytes", &[]) == files as f64
            && server.metric("mailrace_log_start_offset", &[]) == start as f64
    });
}

#[test]
fn the_log_counts_what_comes_and_shows_what_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("log.retention.size=3MiB").start();
    let before = Scrape::of(&server);
    assert_eq!(before.sum("log_segments", ""), 0.0);
    send(&server, 12, 400_000);
    let size: &[Move] = &[("log_segments_deleted_total", "reason", &["size"])];
    moved(&server, &before, size);
    let here: &[Move] = &[
        MOVES[0], MOVES[1], MOVES[2], MOVES[3], MOVES[4], MOVES[5], MOVES[6], MOVES[7], MOVES[8],
        MOVES[9], MOVES[10],
    ];
    moved(&server, &before, here);
    assert!(server.metric("mailrace_log_start_offset", &[]) > 0.0);
    kept_is_what_is_there(&server);
    // What somebody else deletes is seen as well.
    let first = segments(dir.path()).remove(0);
    assert_eq!(deleted(&server, "manual"), 0.0);
    fs::remove_file(first).unwrap();
    eventually("it is counted", super::WAIT, || deleted(&server, "manual") == 1.0);
    kept_is_what_is_there(&server);
    // A restart begins where the log begins.
    let start = server.metric("mailrace_log_start_offset", &[]);
    assert_eq!(server.stop(), Some(0));
    let server = launch(dir.path()).start();
    assert_eq!(Scrape::of(&server).sum("log_start_offset", ""), start);
    assert!(Scrape::of(&server).sum("log_segments", "") > 0.0);
}

#[test]
fn a_low_disk_and_a_torn_tail_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch(dir.path())
        .set("log.disk.low=99%")
        .set("export.0.name=out")
        .set("export.0.type=blackhole");
    let server = launch.start();
    send(&server, 12, 400_000);
    eventually("consumed segments go", super::WAIT * 2, || deleted(&server, "disk") > 0.0);
    server.kill();
    // A group that was cut off in the middle of its write: bytes behind the last.
    let is_used = |path: &PathBuf| fs::read(path).unwrap().iter().any(|octet| *octet != 0);
    let newest = segments(dir.path()).into_iter().rfind(is_used).unwrap();
    let octets = fs::read(&newest).unwrap();
    let used = octets.iter().rposition(|octet| *octet != 0).unwrap() / 4096 + 1;
    let mut file = OpenOptions::new().write(true).open(&newest).unwrap();
    file.seek(SeekFrom::Start((used * 4096) as u64)).unwrap();
    // The first group of the segment again: a frame of ours that does not belong there.
    file.write_all(&octets[4096..8192]).unwrap();
    drop(file);
    let server = launch.set("log.sync=none").start();
    assert!(server.metric("mailrace_log_truncated_bytes_total", &[]) > 0.0);
    assert_eq!(server.metric("mailrace_log_durable", &[]), 0.0);
}

pub const TROUBLE_MOVES: Moves = &[
    ("log_errors_total", "op", &["allocate", "read"]),
    ("shard_backpressure_seconds_total", "cause", &["log"]),
];

/// Segments go by their age: the age of their newest record, once they are full.
#[test]
fn old_segments_are_counted_as_they_go() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("log.retention.age=1s").start();
    send(&server, 6, 400_000);
    eventually("the first go", super::WAIT, || deleted(&server, "age") > 0.0);
}

/// The directory of a shard goes away under the server: no segment can be made, none can be read.
#[test]
fn trouble_of_the_disk_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("export.0.name=out").set("export.0.type=blackhole").start();
    send(&server, 1, 1_000);
    let before = Scrape::of(&server);
    fs::rename(dir.path().join("shard-000"), dir.path().join("gone")).unwrap();
    // Those of a message that need another segment are never answered well.
    let mut client = Client::connect(server.smtp);
    client.ehlo();
    for seed in 0..6 {
        client.begin_data_or_not(seed);
    }
    moved(&server, &before, TROUBLE_MOVES);
}

trait Tries {
    fn begin_data_or_not(&mut self, seed: u64);
}

impl Tries for Client {
    /// Sends a message of 400,000 octets; what is answered does not matter.
    fn begin_data_or_not(&mut self, seed: u64) {
        let message = body(seed, 400_000);
        let mut group = format!(
            "MAIL FROM:<a@client.test>\r\nRCPT TO:<b@server.test>\r\nBDAT {} LAST\r\n",
            message.len()
        )
        .into_bytes();
        group.extend_from_slice(&message);
        let socket = self.stream.get_ref();
        socket.set_write_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
        self.send(&group);
    }
}

#[test]
fn a_flood_of_refusals_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path())
        .set("limits.errors.soft=1000000")
        .set("limits.errors.hard=1000000")
        .start();
    let before = Scrape::of(&server);
    let mut client = server.client();
    client.ehlo();
    let group = b"MAIL FROM:<a b>\r\n".repeat(100);
    for _ in 0..400 {
        assert!(client.send(&group));
        for _ in 0..100 {
            assert!(client.reply().starts_with("501"));
        }
    }
    moved(&server, &before, REFUSAL_MOVES);
}
