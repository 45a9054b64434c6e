//! Files of the data directory that are lost or damaged while the server is down: it starts degraded
//! and says so, or refuses with the cure; `mailrace log verify` and `adopt`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use crate::support::{self, Launch, MAILRACE, Server, body, eventually, segments};

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(MAILRACE).args(arguments).arg("--dir").arg(dir).output().expect("it runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn send(server: &Server, count: u64) -> Vec<String> {
    support::send(server, count, 2_000)
}

/// With an exporter that takes all.
fn exporting(dir: &Path) -> Launch {
    Launch::new(dir)
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("export.0.name=hole")
        .set("export.0.type=blackhole")
}

/// First offset after a kill: recovery leaves out what a reader may have seen.
const AFTER_KILL: u64 = 5 + 65_536;

/// Two sealed segments of 5 records each: one left by a kill, one by a stop.
fn sealed(dir: &Path) -> Vec<PathBuf> {
    let server = Server::start(dir);
    send(&server, 5);
    server.kill();
    let server = Server::start(dir);
    send(&server, 5);
    let said = server.stop_and_read();
    assert!(!said.contains("ERROR"), "a kill is no loss: {said}");
    let mut segments = segments(dir);
    // What was made ready and not used is still there.
    segments.truncate(segments.len() - 1);
    segments
}

/// The issue's own example: the first segment is gone, and the server says so wherever one looks.
#[test]
fn a_lost_front_segment_is_reported_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let segments = sealed(dir.path());
    assert_eq!(run(dir.path(), &["log", "verify"]).status.code(), Some(0));
    fs::remove_file(&segments[0]).unwrap();
    let verified = run(dir.path(), &["log", "verify"]);
    assert_eq!(verified.status.code(), Some(3), "{}", out(&verified));
    assert!(out(&verified).contains("is missing, and with it records 0..5"), "{}", out(&verified));
    let server = exporting(dir.path()).start();
    let lost = "is missing, and with it records 0..5";
    server.says(lost);
    let (status, text) = server.page("/readyz");
    assert_eq!(status, 200, "new mail is safe: {text}");
    assert!(text.starts_with("ready, degraded\n") && text.contains(lost), "{text}");
    assert!(server.page("/v1/status").1.contains(lost));
    assert_eq!(server.metric("mailrace_log_faulty_segments", &["missing"]), 1.0);
    assert_eq!(server.metric("mailrace_log_faulty_segments", &["truncated"]), 0.0);
    let lost = ["stage=\"recovery\""];
    assert_eq!(server.metric("mailrace_log_corrupt_records_total", &lost), 5.0);
    // It serves, and the exporter goes on.
    let ids = send(&server, 3);
    assert_eq!(server.get(&ids[2]), body(2, 2_000));
    let delivered = ["exporter=\"hole\"", "result=\"delivered\""];
    eventually("what is left is delivered", Duration::from_secs(20), || {
        server.metric("mailrace_export_records_total", &delivered) == 8.0
    });
    let letters = out(&run(dir.path(), &["group", "dead", "ls", "hole"]));
    assert!(letters.contains("records 0..5 are lost: segment 1 is missing"), "{letters}");
    let read = run(dir.path(), &["log", "cat", "-f", "%o "]);
    assert_eq!(read.status.code(), Some(1));
    let left: String = (AFTER_KILL..AFTER_KILL + 8).map(|offset| format!("{offset} ")).collect();
    assert_eq!(out(&read), left);
    assert_eq!(server.stop(), Some(0));

    // The operator accepts the loss, and it is not reported any more.
    let accepted = run(dir.path(), &["log", "adopt", "--accept-loss"]);
    assert_eq!(accepted.status.code(), Some(0), "{accepted:?}");
    assert!(out(&accepted).contains("records 0..5"), "{}", out(&accepted));
    assert!(!out(&accepted).contains("nothing to do"), "{}", out(&accepted));
    assert_eq!(run(dir.path(), &["log", "verify"]).status.code(), Some(0));
    let server = Server::start(dir.path());
    assert_eq!(server.page("/readyz"), (200, "ready\n".to_owned()));
    let said = server.stop_and_read();
    assert!(!said.contains("ERROR"), "{said}");
}

/// Everything of a shard is lost but where the exporter was: no offset is given out twice.
#[test]
fn an_offset_that_was_exported_is_never_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let launch = exporting(dir.path());
    let server = launch.start();
    send(&server, 5);
    let delivered = ["exporter=\"hole\"", "result=\"delivered\""];
    eventually("it is delivered", Duration::from_secs(20), || {
        server.metric("mailrace_export_records_total", &delivered) == 5.0
    });
    assert_eq!(server.stop(), Some(0), "the offset is committed");
    fs::remove_dir_all(dir.path().join("shard-000")).unwrap();
    let server = launch.start();
    server.says("records 0..5 are missing");
    assert!(server.page("/readyz").1.contains("records 0..5 are missing"));
    let id: mailrace::log::RecordId = send(&server, 1)[0].parse().unwrap();
    assert_eq!(id.offset.get(), 5, "the next offset");
    eventually("it is delivered", Duration::from_secs(20), || {
        server.metric("mailrace_export_records_total", &delivered) == 1.0
    });
    // The offset file is lost as well: all is delivered again, and that is said.
    assert_eq!(server.stop(), Some(0));
    fs::remove_file(dir.path().join("groups/hole/shard-000.offset")).unwrap();
    let server = launch.set("export.0.start=end").start();
    server.says("the offset file is missing or damaged");
    eventually("it is delivered again", Duration::from_secs(20), || {
        server.metric("mailrace_export_records_total", &delivered) == 1.0
    });
}

/// What `log prune` deletes is not missed.
#[test]
fn what_was_pruned_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let segments = sealed(dir.path());
    let pruned = run(dir.path(), &["log", "prune", "--before", "5", "--json"]);
    assert_eq!(pruned.status.code(), Some(0), "{pruned:?}");
    assert!(!segments[0].exists(), "no server runs, so nothing is in progress: {}", out(&pruned));
    let told = out(&run(dir.path(), &["log", "prune", "--before", "end", "--dry-run"]));
    assert!(told.starts_with("shard 0: 1 segment, "), "{told}");
    assert_eq!(run(dir.path(), &["log", "verify"]).status.code(), Some(0));
    let server = Server::start(dir.path());
    assert_eq!(server.page("/readyz"), (200, "ready\n".to_owned()));
    let said = server.heard();
    assert!(!said.contains("ERROR"), "{said}");
    // Beside a running server what is recent stays, unless the server says that nothing of mail that
    // is being received is in it.
    let told = out(&run(dir.path(), &["log", "prune", "--before", "end"]));
    // Its number is 2, or 3 where a spare was ready before the kill.
    let stem = segments[1].file_stem().unwrap().to_str().unwrap();
    let number: u64 = stem.parse().unwrap();
    let records = format!("{AFTER_KILL}..{}", AFTER_KILL + 5);
    let why = format!("segment {number}, records {records}: kept, younger than an hour");
    assert!(told.contains(&why) && told.contains("--force"), "{told}");
    send(&server, 1);
    let told = out(&run(dir.path(), &["log", "prune", "--before", "end"]));
    assert!(told.contains("kept, in use"), "{told}");
    eventually("the server has looked twice", Duration::from_secs(30), || {
        let told = run(dir.path(), &["log", "prune", "--before", "end", "--force", "--json"]);
        out(&told).contains("\"segments\":1")
    });
    assert!(!segments[1].exists());
    assert_eq!(run(dir.path(), &["log", "verify"]).status.code(), Some(0));
    // What a group has not exported stays, and the group is named.
    assert_eq!(server.stop(), Some(0));
    let group = dir.path().join("groups/late");
    fs::create_dir_all(&group).unwrap();
    let told = out(&run(dir.path(), &["log", "prune", "--before", "end", "--force"]));
    assert!(told.contains("kept, not consumed: group late is at 0"), "{told}");
}

#[test]
fn a_lost_node_file_is_written_again_by_adopt() {
    let dir = tempfile::tempdir().unwrap();
    let segments = sealed(dir.path());
    let node = dir.path().join("node");
    let id = fs::read_to_string(&node).unwrap();
    fs::remove_file(&node).unwrap();
    let failure = Launch::new(dir.path()).set("server.shards=1").try_start().err().unwrap();
    assert_eq!(failure.code, Some(1), "{failure}");
    for part in [node.to_str().unwrap(), "is missing", id.trim(), "mailrace log adopt"] {
        assert!(failure.errors.contains(part), "{part:?} is missing: {failure}");
    }
    assert!(!node.exists(), "no new id");
    let read = run(dir.path(), &["log", "ls"]);
    assert_eq!(read.status.code(), Some(1));
    assert!(String::from_utf8(read.stderr).unwrap().contains("mailrace log adopt"));
    let adopted = run(dir.path(), &["log", "adopt"]);
    assert_eq!(adopted.status.code(), Some(0), "{adopted:?}");
    assert!(out(&adopted).contains(id.trim()), "{}", out(&adopted));
    assert_eq!(fs::read_to_string(&node).unwrap(), id);
    assert_eq!(fs::metadata(&node).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(dir.path(), &["log", "verify"]).status.code(), Some(0));
    assert!(out(&run(dir.path(), &["log", "adopt"])).contains("nothing to do"));
    // Segments that do not agree: the operator chooses.
    let other = tempfile::tempdir().unwrap();
    let others = sealed(other.path());
    fs::copy(&others[0], segments[0].with_file_name("0000000900.seg")).unwrap();
    fs::remove_file(&node).unwrap();
    let unsure = run(dir.path(), &["log", "adopt"]);
    assert_eq!(unsure.status.code(), Some(1), "{unsure:?}");
    assert!(String::from_utf8(unsure.stderr).unwrap().contains("--node"));
    assert!(!node.exists());
    // One that no segment has is a slip of the pen.
    let slip = run(dir.path(), &["log", "adopt", "--node", "0123456789ab"]);
    assert_eq!(slip.status.code(), Some(2), "{slip:?}");
    let said = String::from_utf8(slip.stderr).unwrap();
    assert!(said.contains("--node 0123456789ab: no segment") && said.contains(id.trim()), "{said}");
    assert!(!node.exists());
    assert_eq!(run(dir.path(), &["log", "adopt", "--node", id.trim()]).status.code(), Some(0));
    let server = Server::start(dir.path());
    let (_, ready) = server.page("/readyz");
    assert!(ready.contains("0000000900.seg is a segment of node"), "{ready}");
    // A running server's directory is left alone.
    let refused = run(dir.path(), &["log", "adopt"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("in use by another process"));
}

/// A directory made by somebody else, open to all, under an open umask: what holds mail is private.
#[test]
fn files_of_a_directory_that_others_may_enter_are_private() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let launch = exporting(dir.path());
    let server = launch.start();
    send(&server, 3);
    server.says("chmod 700");
    let mut open = Vec::new();
    let mut seen = 0;
    let mut dirs = vec![dir.path().to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let facts = entry.metadata().unwrap();
            seen += 1;
            if facts.permissions().mode() & 0o077 != 0 {
                open.push(entry.path());
            }
            if facts.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    assert!(seen >= 8 && open.is_empty(), "{seen}: {open:?}");
}
