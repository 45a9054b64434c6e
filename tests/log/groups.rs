//! Exporters, consumer groups and retention of a real server, by configuration and command line.

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;

use crate::support::{self, Launch, MAILRACE, Server, eventually, send, succeeded};

const WAIT: Duration = Duration::from_secs(30);

fn exporting(dir: &Path) -> Launch {
    Launch::new(dir)
        .set("server.shards=1")
        .set("log.segment_size=1MiB")
        .set("export.0.name=hole")
        .set("export.0.type=blackhole")
}

fn mailrace(dir: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new(MAILRACE).args(arguments).arg("--dir").arg(dir).output().unwrap()
}

/// The lines of a command with `--json`.
fn lines(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let output = succeeded(&format!("{arguments:?}"), mailrace(dir, &arguments));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn committed(dir: &Path) -> u64 {
    lines(dir, &["group", "describe", "hole"])[0]["committed"].as_u64().unwrap_or(0)
}

#[test]
fn a_group_is_listed_described_moved_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let server = exporting(dir.path()).start();
    send(&server, 25, 1_000);
    eventually("the commit", WAIT, || committed(dir.path()) == 25);
    let delivered = ["exporter=\"hole\"", "result=\"delivered\""];
    assert_eq!(server.metric("mailrace_export_records_total", &delivered), 25.0);
    assert_eq!(server.metric("mailrace_export_up", &["exporter=\"hole\""]), 1.0);
    assert_eq!(server.metric("mailrace_log_consumer_lag_records", &["group=\"hole\""]), 0.0);
    let listed = &lines(dir.path(), &["group", "ls"])[0];
    assert_eq!(
        (&listed["group"], &listed["lag"], &listed["active"]),
        (&"hole".into(), &0.into(), &true.into())
    );
    let table = succeeded("group ls", mailrace(dir.path(), &["group", "ls"])).stdout;
    assert_eq!(
        String::from_utf8(table).unwrap(),
        "GROUP  LAG  OLDEST-PENDING  DEAD  ACTIVE\n\
         hole     0               -     0  yes\n"
    );
    // A dry run moves nothing; a seek beside the running server is taken up.
    let dry = mailrace(dir.path(), &["group", "seek", "hole", "--to", "start", "--dry-run"]);
    let text = String::from_utf8(succeeded("seek", dry).stdout).unwrap();
    assert_eq!(text, "shard 0: would move from 25 -> 0: 25 records will be redelivered\n");
    assert_eq!(committed(dir.path()), 25);
    let moved = &lines(dir.path(), &["group", "seek", "hole", "--to", "5"])[0];
    assert_eq!(
        moved,
        &serde_json::json!({
            "group": "hole", "shard": 0, "from": 25, "to": 5, "redelivered": 20, "skipped": 0,
            "dry_run": false,
        })
    );
    eventually("twenty again", WAIT, || {
        server.metric("mailrace_export_records_total", &delivered) == 45.0
    });
    eventually("the commit", WAIT, || committed(dir.path()) == 25);
    let busy = mailrace(dir.path(), &["group", "rm", "hole"]);
    assert!(!busy.status.success());
    assert!(String::from_utf8_lossy(&busy.stderr).contains("has an active consumer"));
    assert_eq!(server.stop(), Some(0));
    let none = &lines(dir.path(), &["group", "dead", "requeue", "hole", "--all"])[0];
    assert_eq!(none, &serde_json::json!({ "group": "hole", "requeued": 0 }));
    let removed = &lines(dir.path(), &["group", "rm", "hole"])[0];
    assert_eq!(removed, &serde_json::json!({ "group": "hole", "removed": true }));
    assert!(lines(dir.path(), &["group", "ls"]).is_empty());
    for (arguments, code) in [
        (&["group", "describe", "hole"][..], 1),
        (&["group", "seek", "hole", "--to", "5"], 1),
        (&["group", "describe", "../x"], 2),
        (&["group", "seek", "hole", "--to", "yesterday"], 2),
    ] {
        assert_eq!(mailrace(dir.path(), arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn offsets_and_prune() {
    let dir = tempfile::tempdir().unwrap();
    let server = exporting(dir.path()).start();
    // Each fills a good part of a segment.
    send(&server, 12, 400_000);
    eventually("the commit", WAIT, || committed(dir.path()) == 12);
    assert_eq!(lines(dir.path(), &["log", "offsets", "--at", "@-1h"])[0]["offset"], 0);
    assert_eq!(lines(dir.path(), &["log", "offsets", "--at", "end"])[0]["offset"], 12);
    // Beside a server nothing younger than an hour goes: it may be part of a message in progress.
    let pruned = &lines(dir.path(), &["log", "prune", "--before", "end"])[0];
    assert_eq!(pruned["segments"], 0, "{pruned}");
    assert_eq!(pruned["needed"], 0, "no group needs them: {pruned}");
    assert!(!pruned["kept"].as_array().unwrap().is_empty(), "{pruned}");
    assert_eq!(server.stop(), Some(0));
}

/// D12 in a running server: by size, never what the group has not committed; what is kept is whole.
#[test]
fn retention_by_size_keeps_what_a_group_needs() {
    let dir = tempfile::tempdir().unwrap();
    let launch = exporting(dir.path())
        .set("log.retention.size=3MiB")
        .set("log.retention.retain_after_export=0s");
    // A group that has read nothing needs everything.
    let server = launch.start();
    let group = mailrace::consumer::Group::new(dir.path(), "behind").unwrap();
    group.seek(0, 3).unwrap();
    let ids = send(&server, 30, 400_000);
    eventually("the commit", WAIT, || committed(dir.path()) == 30);
    let deleted = |server: &Server| {
        server.metric("mailrace_log_segments_deleted_total", &["reason=\"size\""])
    };
    let start = || lines(dir.path(), &["group", "describe", "hole"])[0]["start"].as_u64().unwrap();
    // Two looks of the retention thread and the least age of a seal.
    std::thread::sleep(Duration::from_secs(16));
    assert!(start() <= 3, "the group behind keeps its records: {}", start());
    for id in &ids[3..] {
        server.get(id);
    }
    group.seek(0, 30).unwrap();
    eventually("segments go", WAIT, || deleted(&server) > 5.0);
    let first = usize::try_from(start()).unwrap();
    assert!(first > 3 && first < 30);
    // What is left is whole, fragments included.
    for id in &ids[first..] {
        server.get(id);
    }
    assert_eq!(server.stop(), Some(0));
    assert_eq!(support::verified(dir.path()), 30 - first as u64);
    // Offsets go on where they were.
    let server = launch.start();
    let id = send(&server, 1, 100).pop().unwrap();
    assert!(id.ends_with(&format!("{:016x}", 30)), "{id}");
}

#[test]
fn an_unknown_sink_or_a_second_name_is_a_configuration_error() {
    let dir = tempfile::tempdir().unwrap();
    for (settings, told) in [
        (&["export.0.name=a", "export.0.type=carrier-pigeon"][..], "one of kafka, nats"),
        (&["export.0.type=blackhole"], "name"),
        (
            &[
                "export.0.name=a",
                "export.0.type=blackhole",
                "export.1.name=a",
                "export.1.type=blackhole",
            ],
            "export.1.name",
        ),
    ] {
        let mut launch = Launch::new(dir.path());
        for setting in settings {
            launch = launch.set(setting);
        }
        let failure = launch.try_start().err().expect("it does not start");
        assert_eq!(failure.code, Some(78), "{failure}");
        assert!(failure.errors.contains(told), "{failure}");
    }
}

/// Fewer shards than before: what the others have taken is exported all the same.
#[test]
fn logs_of_shards_that_no_longer_run_are_exported() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(dir.path()).set("server.shards=2").start();
    for _ in 0..20 {
        send(&server, 1, 500);
    }
    assert_eq!(server.stop(), Some(0));
    let held = |shard: usize| {
        lines(dir.path(), &["log", "offsets", "--at", "end"])[shard]["offset"].clone()
    };
    assert!(held(1).as_u64().unwrap() > 0, "the second shard took some");
    let server = exporting(dir.path()).start();
    let delivered = ["exporter=\"hole\"", "result=\"delivered\""];
    eventually("all twenty", WAIT, || {
        server.metric("mailrace_export_records_total", &delivered) == 20.0
    });
    assert_eq!(server.stop(), Some(0));
}
