//! `mailrace doctor` against the truth: what it calls a failure keeps the server from running, and
//! what runs is not one.

use std::{fs, net::TcpListener, path::Path, process::Command};

use serde_json::Value;

use crate::support::{
    Launch, MAILRACE, Server, machine, output_of, servers::certificates::Authority,
    without_settings,
};

/// The findings of a probe: verdict and what was seen.
fn findings(report: &Value, probe: &str) -> Vec<(String, String)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let all = report.as_array().unwrap().iter();
    all.filter(|finding| finding["probe"] == probe)
        .map(|finding| (text(finding, "verdict"), text(finding, "seen")))
        .collect()
}

/// Runs `doctor --json`; exit code and report.
fn doctor(arguments: &[String]) -> (i32, Value) {
    let mut command = Command::new(MAILRACE);
    command.args(["doctor", "--json"]).args(arguments);
    without_settings(&mut command);
    let output = output_of(command);
    let text = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    (output.status.code().unwrap(), report)
}

fn sets(settings: &[String]) -> Vec<String> {
    settings.iter().flat_map(|setting| ["--set".to_owned(), setting.clone()]).collect()
}

/// Settings of a server in this directory, at addresses that are free.
fn settings(dir: &Path) -> Vec<String> {
    vec![
        format!("log.dir={}", dir.display()),
        "listener.0.listen=127.0.0.1:0".to_owned(),
        "server.admin.listen=127.0.0.1:0".to_owned(),
    ]
}

#[test]
fn a_running_server_is_no_fault_and_a_foreign_program_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let own = vec![
        format!("log.dir={}", dir.path().display()),
        format!("listener.0.listen={}", server.smtp),
        format!("server.admin.listen={}", server.admin),
    ];
    let (code, report) = doctor(&sets(&own));
    let ports = findings(&report, "port");
    let served = |(verdict, seen): &(String, String)| {
        verdict == "ok" && seen.contains("is served by the running server, pid")
    };
    assert!(ports.len() == 2 && ports.iter().all(served), "{report:#}");
    let lock = findings(&report, "log.dir");
    assert!(lock[0].0 == "ok" && lock[0].1.contains("in use by the running server"), "{report:#}");
    assert_eq!(code, 0, "{report:#}");
    // The same server, and a port that another program has.
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut other = own.clone();
    other[1] = format!("listener.0.listen={}", foreign.local_addr().unwrap());
    let (code, report) = doctor(&sets(&other));
    assert_eq!((code, findings(&report, "port")[0].0.as_str()), (1, "failed"), "{report:#}");
    // The directory held by a program that is not mailrace.
    assert_eq!(server.stop(), Some(0));
    let lock = fs::File::open(dir.path().join("LOCK")).unwrap();
    lock.lock().unwrap();
    let (code, report) = doctor(&sets(&settings(dir.path())));
    let found = &findings(&report, "log.dir")[0];
    assert!(code == 1 && found.1.contains("which is not mailrace"), "{report:#}");
}

#[test]
fn certificates_users_and_recipients_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(dir.path(), "one");
    authority.issue(dir.path(), "two");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let tls = |cert: &str, key: &str| {
        let mut settings = settings(&dir.path().join("data"));
        settings.push(format!("server.tls.cert_file={}", path(cert)));
        settings.push(format!("server.tls.key_file={}", path(key)));
        settings
    };
    let (code, report) = doctor(&sets(&tls("one.pem", "one.key")));
    let found = &findings(&report, "tls")[0];
    assert!(found.0 == "ok" && found.1.contains("valid for 8"), "{report:#}");
    assert_eq!(code, 0, "{report:#}");
    let (code, report) = doctor(&sets(&tls("one.pem", "two.key")));
    let found = &findings(&report, "tls")[0];
    assert!(code == 1 && found.1.contains("does not match the certificate"), "{report:#}");
    let (code, report) = doctor(&sets(&tls("none.pem", "two.key")));
    assert!(code == 1 && findings(&report, "tls")[0].0 == "failed", "{report:#}");
    fs::write(path("recipients"), "a@b@c\n").unwrap();
    fs::write(path("users"), "nonsense\n").unwrap();
    let mut with_files = tls("one.pem", "one.key");
    with_files.push(format!("listener.0.accept.recipients_file={}", path("recipients")));
    with_files.push("listener.0.auth.mechanisms=[\"PLAIN\"]".to_owned());
    with_files.push(format!("listener.0.auth.users_file={}", path("users")));
    let (code, report) = doctor(&sets(&with_files));
    assert_eq!(code, 1);
    for (probe, file) in [("users", "users"), ("accept", "recipients")] {
        let found = &findings(&report, probe)[0];
        assert!(found.0 == "failed" && found.1.contains(&path(file)), "{report:#}");
    }
}

#[test]
fn sinks_are_asked() {
    let dir = tempfile::tempdir().unwrap();
    let closed = machine::closed_port();
    let out = dir.path().join("out");
    let mut settings = settings(&dir.path().join("data"));
    settings.extend([
        "export.0.name=broker".to_owned(),
        "export.0.type=nats".to_owned(),
        format!("export.0.servers=[\"nats://{}\"]", closed.address),
        "export.0.stream=MAIL".to_owned(),
        "export.1.name=disk".to_owned(),
        "export.1.type=files".to_owned(),
        format!("export.1.dir={}", out.display()),
    ]);
    let (code, report) = doctor(&sets(&settings));
    let found = findings(&report, "sink");
    assert!(found[0].0 == "warning" && found[0].1.starts_with("broker: "), "{report:#}");
    assert!(found[1].0 == "ok" && found[1].1.starts_with("disk is reachable"), "{report:#}");
    assert_eq!(code, 0, "records wait in the log: the server runs");
    let (_, report) = doctor(&[sets(&settings), vec!["--offline".to_owned()]].concat());
    assert!(findings(&report, "sink").is_empty(), "{report:#}");
}

#[test]
fn a_disk_in_memory_is_a_failure_and_a_warning_where_loss_is_allowed() {
    if !Path::new("/dev/shm").is_dir() {
        machine::skip("there is no /dev/shm");
        return;
    }
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let launch = Launch::new(&dir.path().join("data"));
    let mut settings = settings(&dir.path().join("data"));
    let (code, report) = doctor(&sets(&settings));
    let found = &findings(&report, "disk")[0];
    assert!(code == 1 && found.0 == "failed" && found.1.contains("tmpfs"), "{report:#}");
    // The truth, in the same words.
    let Err(failure) = launch.try_start() else { panic!("it serves") };
    assert!(failure.errors.contains(&found.1), "{failure}");
    settings.push("log.sync=none".to_owned());
    let (code, report) = doctor(&sets(&settings));
    let found = &findings(&report, "disk")[0];
    assert!(code == 0 && found.0 == "warning" && found.1.contains("tmpfs"), "{report:#}");
    let server = launch.set("log.sync=none").start();
    assert_eq!(server.stop(), Some(0));
}

/// Each has its line of cure, in both forms of the report.
#[test]
fn a_directory_that_cannot_take_the_log_is_a_failure() {
    // Not even root may make a file in sysfs.
    let (code, report) = doctor(&sets(&settings(Path::new("/sys/mailrace"))));
    let found = findings(&report, "log.dir");
    assert!(code == 1 && found.iter().any(|(verdict, _)| verdict == "failed"), "{report:#}");
    let cures = report.as_array().unwrap().iter().filter(|one| one["verdict"] != "ok");
    for finding in cures {
        let fix = finding["fix"].as_str().unwrap_or_default();
        assert!(!fix.is_empty() && !fix.contains('\n'), "{finding}");
    }
}

#[test]
fn a_certificate_that_has_expired_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().issue_expired(dir.path(), "old");
    let mut settings = settings(&dir.path().join("data"));
    for (key, file) in [("cert_file", "old.pem"), ("key_file", "old.key")] {
        settings.push(format!("server.tls.{key}={}", dir.path().join(file).display()));
    }
    let (code, report) = doctor(&sets(&settings));
    let found = &findings(&report, "tls")[0];
    assert!(code == 1 && found.0 == "failed" && found.1.contains("expired"), "{report:#}");
}

/// On real file systems: one without O_DIRECT, one whose syncs flush nothing, one that is nearly full.
#[test]
fn disks_that_break_the_promise_are_named() {
    if !(machine::is_root() || machine::skip("a file system of one's own needs root")) {
        return;
    }
    let memory = machine::SmallDisk::ramfs();
    let mut lossy = settings(&memory.path.join("data"));
    lossy.push("log.sync=none".to_owned());
    let (code, report) = doctor(&sets(&lossy));
    let found = findings(&report, "o_direct");
    assert!(code == 1 && found[0].0 == "failed", "{report:#}");
    let disk = machine::SmallDisk::ext4(300);
    let on_disk = || {
        let mut settings = settings(&disk.path.join("data"));
        settings.push("server.shards=1".to_owned());
        settings.push("log.segment_size=64MiB".to_owned());
        doctor(&sets(&settings))
    };
    let (_, report) = on_disk();
    assert!(findings(&report, "cache").iter().all(|found| found.0 == "ok"), "{report:#}");
    // Two segments of 64 MiB are kept free, and two are made at the start.
    let found = &findings(&report, "space")[0];
    assert!(found.0 == "warning" && found.1.contains("nearly full"), "{report:#}");
    machine::run("mount", &["-o", "remount,nobarrier", &disk.path.display().to_string()]);
    let (_, report) = on_disk();
    let found = &findings(&report, "cache")[0];
    assert!(found.0 == "warning" && found.1.contains("nobarrier"), "{report:#}");
    machine::allocate(&disk.path.join("foreign"), 100 << 20).unwrap();
    let (code, report) = on_disk();
    assert!(code == 1 && findings(&report, "space")[0].0 == "failed", "{report:#}");
}
