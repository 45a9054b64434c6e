//! What belongs to the process: its shards at work, reloads, diagnostics, the disk.

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use super::{Move, Moves, Scrape, moved};

use crate::support::{Client, Launch, body, eventually, id_of, signal};

/// Under load.
pub const LIVE: Moves = &[
    ("shard_inflight_bytes", "", &[]),
    ("shard_busy_seconds_total", "", &[]),
    ("shard_stalls_total", "", &[]),
    ("shard_heartbeats_total", "", &[]),
    ("log_disk_free_bytes", "", &[]),
    ("metrics_scrape_duration_seconds", "", &[]),
    ("process_cpu_seconds_total", "", &[]),
    ("process_resident_memory_bytes", "", &[]),
    ("process_open_fds", "", &[]),
];

/// By a configuration that cannot be used.
pub const FAILED: Moves = &[
    ("config_last_reload_successful", "", &[]),
    ("server_diagnostics_total", "level", &["error"]),
];

/// By one that can.
pub const TAKEN: Moves = &[
    ("shard_inflight_limit_bytes", "", &[]),
    ("config_last_reload_success_timestamp_seconds", "", &[]),
    ("log_retention_seconds", "", &[]),
];

/// By one with an exporter that finds nobody.
pub const LATE: Moves = &[
    ("process_threads", "", &[]),
    ("process_virtual_memory_bytes", "", &[]),
    ("server_diagnostics_total", "level", &["warning"]),
];

/// Where nobody reads stderr.
pub const UNREAD: Moves = &[("server_log_lines_dropped_total", "", &[])];

#[test]
fn lines_that_nobody_reads_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(dir.path()).set("server.shards=1").set("log.segment_size=1MiB");
    let server = launch.set("limits.exempt=127.0.0.0/8").unread().start();
    let before = Scrape::of(&server);
    // 64 KiB of a pipe and a queue of 8,192 lines: a session with mail has one.
    let mail = b"MAIL FROM:<>\r\nRCPT TO:<a@x.test>\r\nBDAT 4 LAST\r\na:\r\nQUIT\r\n";
    eventually("lines are dropped", Duration::from_secs(60), || {
        for _ in 0..300 {
            let mut client = server.client();
            client.ehlo();
            client.send(mail);
            client.rest();
        }
        super::standing(&before, &Scrape::of(&server), UNREAD).is_empty()
    });
}

/// Beats of each 5 ms, whether anybody scrapes or not.
#[test]
fn heartbeats_are_of_the_shard_and_not_of_scrapes() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Launch::new(dir.path()).set("server.shards=1").set("log.segment_size=1MiB").start();
    let beats = || server.metric("mailrace_shard_heartbeats_total", &[]);
    let (began, first) = (Instant::now(), beats());
    std::thread::sleep(Duration::from_millis(500));
    let second = beats();
    let most = began.elapsed().as_secs_f64() / 0.005 + 2.0;
    let counted = second - first;
    assert!((10.0..=most).contains(&counted), "{counted} in {:?}", began.elapsed());
}

#[test]
fn a_process_shows_what_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (dir.path().join("mailrace.toml"), dir.path().join("data"));
    let good = "[limits]\ninflight_bytes = \"64MiB\"\n[log]\nretention = { age = \"1d\" }\n";
    fs::write(&config, "[limits]\ninflight_bytes = \"32MiB\"\n").unwrap();
    let server = Launch::new(&data)
        .file(&config)
        .set("server.shards=1")
        .set("log.segment_size=1MiB")
        .start();
    let before = Scrape::of(&server);
    for one in ["shards", "build_info", "config_last_reload_successful"] {
        assert_eq!(before.sum(one, ""), 1.0, "{one}");
    }
    for some in ["log_recovery_duration_seconds", "log_disk_size_bytes", "process_max_fds"] {
        assert!(before.sum(some, "") > 0.0, "{some}");
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let start = before.sum("process_start_time_seconds", "");
    assert!((now - 60.0..now + 2.0).contains(&start), "{start} {now}");
    let mut client = server.client();
    client.ehlo();
    client.begin_data();
    client.send(&body(1, 300_000));
    // Memory and descriptors of forty more; stopped in the middle of a turn, a shard stalls.
    let held: Vec<_> = (0..40).map(|_| server.client()).collect();
    let stalls: &[Move] = &[LIVE[2]];
    let until = Instant::now() + super::WAIT;
    while super::standing(&before, &Scrape::of(&server), stalls) != [""; 0] {
        assert!(Instant::now() < until, "no turn was stopped");
        let mut loud = Client::connect(server.smtp);
        let octets = [b"EHLO x\r\n".to_vec(), b"NOOP\r\n".repeat(20_000)].concat();
        let mut writer = loud.stream.get_ref().try_clone().unwrap();
        let writing = std::thread::spawn(move || drop(writer.write_all(&octets)));
        for _ in 0..10 {
            signal(&server.child, libc::SIGSTOP);
            std::thread::sleep(Duration::from_millis(15));
            signal(&server.child, libc::SIGCONT);
            std::thread::sleep(Duration::from_millis(1));
        }
        loud.rest();
        writing.join().unwrap();
    }
    fs::write(dir.path().join("ballast"), vec![1; 8 << 20]).unwrap();
    moved(&server, &before, LIVE);
    drop(held);
    // A bad file changes nothing and says so, a good one is taken.
    fs::write(&config, "[limits]\nnonsense = 1\n").unwrap();
    signal(&server.child, libc::SIGHUP);
    moved(&server, &before, FAILED);
    fs::write(&config, good).unwrap();
    signal(&server.child, libc::SIGHUP);
    moved(&server, &before, TAKEN);
    assert_eq!(Scrape::of(&server).sum("log_retention_seconds", ""), 86_400.0);
    client.send(b".\r\n");
    id_of(&client.reply());
    // An exporter that finds nobody warns; it brings a thread and a lane of its own.
    let more = format!(
        "{good}[[export]]\nname = \"out\"\ntype = \"nats\"\nservers = [\"nats://127.0.0.1:1\"]\n"
    );
    fs::write(&config, more).unwrap();
    signal(&server.child, libc::SIGHUP);
    moved(&server, &before, LATE);
}

#[test]
fn a_low_disk_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(dir.path()).set("server.shards=1").set("log.segment_size=1MiB");
    let server = launch.set("log.disk.low=99%").start();
    assert_eq!(server.metric("mailrace_log_disk_state", &[]), 1.0);
}
