//! `mailrace backup` and `mailrace restore`, beside servers that run, are killed, and start again
//! over what was restored.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use mailrace::consumer::Group;
use serde_json::Value;

use crate::support::{
    self, Launch, MAILRACE, Server, body, eventually, machine, send, succeeded, verified,
};

fn backup(dir: &Path, to: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(MAILRACE);
    command.arg("backup").arg(to).arg("--dir").arg(dir).args(more);
    command.output().unwrap()
}

fn backed_up(dir: &Path, to: &Path, more: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(more);
    let output = succeeded("backup", backup(dir, to, &all));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn restore(from: &Path, dir: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(MAILRACE);
    command.arg("restore").arg(from).arg("--dir").arg(dir).args(more);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn path_of(made: &Value) -> PathBuf {
    PathBuf::from(made["path"].as_str().unwrap())
}

/// Small segments and an exporter that takes all.
fn launch(dir: &Path) -> Launch {
    Launch::new(dir)
        .set("server.shards=1")
        .set("log.segment_size=1MiB")
        .set("limits.message_size=400KiB")
        .set("export.0.name=hole")
        .set("export.0.type=blackhole")
}

fn delivered(server: &Server, count: f64) {
    let labels = ["exporter=\"hole\"", "result=\"delivered\""];
    eventually("all is delivered", Duration::from_secs(30), || {
        server.metric("mailrace_export_records_total", &labels) == count
    });
}

/// A node moves to another machine while its mail comes in: everything acknowledged before the backup
/// is there under its id, also what lies in the segment in use; groups continue; ids never repeat.
#[test]
fn what_was_acknowledged_before_a_backup_is_restored_under_its_id() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let server = launch(&at("data")).start();
    let ids = send(&server, 30, 90_000);
    delivered(&server, 30.0);
    let group = Group::new(&at("data"), "hole").unwrap();
    eventually("the offset is saved", Duration::from_secs(30), || {
        group.committed(0).unwrap().is_some_and(|committed| committed.offset == 30)
    });
    // Under load: a bench goes on meanwhile.
    let mut bench = Command::new(MAILRACE);
    bench.args(["bench", &format!("smtp://{}", server.smtp), "--no-tui", "-c", "4"]);
    bench.args(["--size", "40k", "-n", "400", "--warmup", "0s"]).stdout(Stdio::null());
    let mut bench = bench.spawn().unwrap();
    let mut backups = 0;
    while bench.try_wait().unwrap().is_none() || backups < 2 {
        let made = backed_up(&at("data"), &at("backups"), &["--keep", "2"]);
        assert!(made["backup"]["shards"][0]["end"].as_u64().unwrap() >= 30, "{made}");
        backups += 1;
    }
    let last = send(&server, 1, 3_000);
    let made = backed_up(&at("data"), &at("backups"), &["--keep", "2"]);
    let end = made["backup"]["shards"][0]["end"].as_u64().unwrap();
    let segments = &made["segments"];
    assert!(segments["kept"].as_u64().unwrap() > 2, "sealed before are not made anew: {made}");
    assert_eq!(segments["copied"], 1, "the segment in use alone is copied: {made}");
    assert_eq!(fs::read_dir(at("backups")).unwrap().count(), 3, "two, and LOCK");
    // Links: no room is taken twice.
    let copy = support::segments(&path_of(&made));
    assert_eq!(fs::metadata(&copy[0]).unwrap().nlink(), 3);
    // Mail that the backup does not have; consumers see it.
    let after = send(&server, 3, 2_000);
    server.kill();

    let restored = restore(&at("backups"), &at("new/data"), &["--json"]);
    let restored = succeeded("restore", restored);
    let told: Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!(told["records"].as_u64(), Some(end), "{told}");
    assert_eq!(verified(&at("new/data")), end);
    let again = restore(&at("backups"), &at("new/data"), &[]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&again).contains("holds a log already"), "{}", said(&again));
    let server = launch(&at("new/data")).start();
    assert_eq!(server.page("/readyz"), (200, "ready\n".to_owned()));
    for (seed, id) in ids.iter().enumerate() {
        assert_eq!(server.get(id), body(seed as u64, 90_000), "{id}");
    }
    assert_eq!(server.get(&last[0]), body(0, 3_000));
    let new = send(&server, 2, 2_000);
    for id in &new {
        assert!(!after.contains(id) && !ids.contains(id), "{id} names two messages");
        assert_eq!(id[..16], ids[0][..16], "the same node and shard");
    }
    assert_eq!(server.get(&new[1]), body(1, 2_000));
    // The group continues from its offset, and passes what was left out.
    eventually("nothing is left to export", Duration::from_secs(30), || {
        server.metric("mailrace_log_consumer_lag_records", &["group=\"hole\""]) == 0.0
    });
    let labels = ["exporter=\"hole\"", "result=\"delivered\""];
    let sent = server.metric("mailrace_export_records_total", &labels);
    assert!(sent < (end + 2) as f64, "not from the start: {sent}");
    let log = server.stop_and_read();
    assert!(!log.contains("ERROR"), "{log}");
}

/// Dead letters and offsets of groups are part of it.
#[test]
fn groups_are_restored_where_they_were() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let server = launch(&at("data")).start();
    send(&server, 5, 2_000);
    delivered(&server, 5.0);
    assert_eq!(server.stop(), Some(0));
    let group = |dir: &Path, arguments: &[&str]| {
        let mut command = Command::new(MAILRACE);
        command.arg("group").args(arguments).arg("--dir").arg(dir);
        String::from_utf8(succeeded("group", command.output().unwrap()).stdout).unwrap()
    };
    group(&at("data"), &["seek", "hole", "--to", "3"]);
    group(&at("data"), &["replay", "hole", "--rcpt", "*", "-o", "1:2"]);
    let letters = group(&at("data"), &["dead", "ls", "hole", "--json"]);
    assert!(letters.contains("replay"), "{letters}");
    backed_up(&at("data"), &at("backups"), &[]);
    succeeded("restore", restore(&at("backups"), &at("copy"), &[]));
    assert_eq!(group(&at("copy"), &["dead", "ls", "hole", "--json"]), letters);
    let described = group(&at("copy"), &["describe", "hole", "--json"]);
    assert!(described.contains("\"committed\":3"), "{described}");
}

/// A damaged segment is named by backup and restore, and what is sound can still be had.
#[test]
fn damage_in_a_backup_is_named_and_not_restored_unasked() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let server = launch(&at("data")).start();
    send(&server, 30, 90_000);
    assert_eq!(server.stop(), Some(0));
    let sound = path_of(&backed_up(&at("data"), &at("backups"), &[]));
    let segment = support::segments(&sound).remove(1);
    // In place, as a disk loses it: both names show it.
    let file = fs::File::options().write(true).open(&segment).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xa5; 64], 200_000).unwrap();
    let name = "segment 2";
    let refused = restore(&at("backups"), &at("copy"), &[]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(said(&refused).contains(name), "{}", said(&refused));
    assert!(said(&refused).contains("nothing was restored"), "{}", said(&refused));
    assert!(!at("copy/node").exists() && !at("copy/shard-000").exists());
    let verify = Command::new(MAILRACE).args(["log", "verify", "--dir"]).arg(&sound).output();
    assert_eq!(verify.unwrap().status.code(), Some(3));
    // A segment of the log itself is lost: the backup has the rest, says so, and the one before stays.
    fs::remove_file(&support::segments(&at("data"))[0]).unwrap();
    let lacking = backup(&at("data"), &at("backups"), &[]);
    assert_eq!(lacking.status.code(), Some(3), "{}", said(&lacking));
    assert!(said(&lacking).contains("segment 1") && said(&lacking).contains("missing"));
    assert!(sound.exists(), "with what the other lacks");
    let partly = restore(&at("backups"), &at("copy"), &["--accept-damage"]);
    assert_eq!(partly.status.code(), Some(3), "{}", said(&partly));
    assert!(at("copy/node").exists());
}

/// Bad places, each with its reason; the log and former backups stay as they are.
#[test]
fn places_that_cannot_be_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let server = launch(&at("data")).start();
    send(&server, 2, 2_000);
    for (to, why) in [
        (at("data/backups"), "is in the data directory"),
        (at("data"), "is in the data directory"),
        (at("not/mounted"), "is its disk mounted?"),
    ] {
        let output = backup(&at("data"), &to, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(why), "{}", said(&output));
    }
    assert!(!at("data/backups").exists());
    let output = backup(&at("nothing"), &at("backups"), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("is not a mailrace data directory"), "{}", said(&output));
    let one = path_of(&backed_up(&at("data"), &at("backups"), &[]));
    // A backup is no place for backups, and a running server is not restored over.
    let output = backup(&at("data"), &one, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let output = restore(&one, &at("data"), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("in use by another process"), "{}", said(&output));
    let output = restore(&at("data"), &at("copy"), &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("holds no backup"), "{}", said(&output));
    // Two at a time.
    let lock = mailrace::log::DirLock::take(&at("backups")).unwrap();
    let output = backup(&at("data"), &at("backups"), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("in use by another process"), "{}", said(&output));
    drop(lock);
    assert!(one.join("backup.json").exists());
    assert_eq!(server.stop(), Some(0));
}

/// To another file system: copied once, linked from then on; one that is too small leaves nothing that
/// looks whole, and the backup before stays.
#[test]
fn a_full_disk_leaves_the_backup_before() {
    if !(machine::is_root() || machine::skip("a file system of one's own needs root")) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let server = launch(&data).start();
    send(&server, 25, 90_000);
    let disk = machine::SmallDisk::tmpfs(6);
    let to = disk.path.join("backups");
    let made = backed_up(&data, &to, &[]);
    assert_eq!(made["segments"]["linked"], 0, "{made}");
    let first = path_of(&made);
    let second = path_of(&backed_up(&data, &to, &["--keep", "2"]));
    let inode = |dir: &Path| fs::metadata(&support::segments(dir)[0]).unwrap().ino();
    assert_eq!(inode(&first), inode(&second), "copied once");
    send(&server, 60, 90_000);
    let full = backup(&data, &to, &["--keep", "2"]);
    assert_eq!(full.status.code(), Some(1), "{}", said(&full));
    assert!(said(&full).contains("No space left on device"), "{}", said(&full));
    assert!(to.join(".incomplete").exists() && second.join("backup.json").exists());
    let restored = succeeded("restore", restore(&to, &place.path().join("copy"), &["--json"]));
    let told: Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!((told["records"].as_u64(), told["from"].as_str()), (Some(25), second.to_str()));
    // Where only an interrupted one is left there is nothing to restore.
    fs::remove_dir_all(&first).unwrap();
    fs::remove_dir_all(&second).unwrap();
    let none = restore(&to, &place.path().join("none"), &[]);
    assert_eq!(none.status.code(), Some(2));
    assert!(said(&none).contains("only one that was interrupted"), "{}", said(&none));
    assert_eq!(server.stop(), Some(0));
}

/// Killed at any moment a backup leaves the one before, and nothing that looks whole; the next one
/// clears up after it.
#[test]
fn a_backup_that_is_killed_leaves_the_one_before() {
    let place = tempfile::tempdir().unwrap();
    let (data, to) = (place.path().join("data"), place.path().join("backups"));
    let server = launch(&data).start();
    send(&server, 200, 90_000);
    let first = path_of(&backed_up(&data, &to, &[]));
    let whole = || {
        let names = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.join("backup.json").exists()).collect::<Vec<_>>()
    };
    let mut killed = 0;
    for pause in 0..12 {
        let mut child = Command::new(MAILRACE)
            .arg("backup")
            .arg(&to)
            .arg("--dir")
            .arg(&data)
            .args(["--keep", "100"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let had = whole().len();
        let mut ended = None;
        eventually("it is at work, or done", Duration::from_secs(30), || {
            ended = child.try_wait().unwrap();
            ended.is_some() || to.join(".incomplete").exists()
        });
        // Somewhere in it: the moment depends on the machine, each is as good.
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        killed += u32::from(!done);
        // The name may have been given just before the end.
        let made = whole().len() - had;
        assert!(made == 1 || made == 0 && !done, "{made} {done}");
        assert!(first.join("backup.json").exists());
    }
    assert!(killed > 0, "it was never killed in the middle");
    let last = path_of(&backed_up(&data, &to, &["--keep", "100"]));
    assert!(!to.join(".incomplete").exists());
    let copy = place.path().join("copy");
    let restored = succeeded("restore", restore(&to, &copy, &["--json"]));
    let told: Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!((told["records"].as_u64(), told["from"].as_str()), (Some(200), last.to_str()));
    assert_eq!(verified(&copy), 200);
    assert_eq!(server.stop(), Some(0));
}
