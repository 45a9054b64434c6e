//! `mailrace status` and `mailrace health`, against a running server.

use std::{
    io::Read,
    net::TcpListener,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{self, Launch, MAILRACE, Server, eventually, machine::has};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(MAILRACE);
    support::without_settings(&mut command);
    command.args(arguments);
    command
}

fn ask(server: &Server, arguments: &[&str]) -> Output {
    let admin = server.admin.to_string();
    command(&[arguments, &["--admin", &admin]].concat()).output().unwrap()
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Up, then with an address that only the configuration names; draining, it is healthy and not
/// ready; gone, it is neither.
#[test]
fn health_is_an_exit_code_and_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let setting = format!("server.admin.token_file={}", token.display());
    let mut server = Server::start_with(
        &dir.path().join("data"),
        &["server.shards=1", "server.drain.lead=1h", &setting],
    );
    let line = |text: &str| (Some(0), format!("{text}\n"), String::new());
    assert_eq!(told(&ask(&server, &["health"])), line("healthy"), "no token is needed");
    assert_eq!(told(&ask(&server, &["health", "--ready"])), line("ready"));
    let file = dir.path().join("mailrace.toml");
    let listen = server.admin;
    // The token cannot be read here, as a credential cannot; and the file has a mistake elsewhere.
    let text = format!(
        "[server]\nadmin = {{ listen = \"{listen}\", token_file = \"/nowhere\" }}\nshard = 1\n"
    );
    std::fs::write(&file, text).unwrap();
    let by_file = command(&["health", "-c", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(told(&by_file), line("healthy"));

    support::signal(&server.child, libc::SIGTERM);
    eventually("it drains", Duration::from_secs(5), || server.page("/readyz").0 == 503);
    assert_eq!(told(&ask(&server, &["health"])), line("healthy"), "a restart would not help it");
    let why = "mailrace: not ready: draining\n".to_owned();
    assert_eq!(told(&ask(&server, &["health", "--ready"])), (Some(1), String::new(), why));
    support::signal(&server.child, libc::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(10)), Some(0));
    let (code, out, why) = told(&ask(&server, &["health"]));
    assert_eq!((code, out.as_str(), why.lines().count()), (Some(1), "", 1), "{why}");
    assert!(why.starts_with("mailrace: not healthy: no answer from http://127.0.0.1:"), "{why}");

    for bad in ["server.admin.listen=", "server.admin.listen=x"] {
        let (code, out, why) = told(&command(&["health", "--set", bad]).output().unwrap());
        assert_eq!((code, out.as_str(), why.lines().count()), (Some(1), "", 1), "{why}");
        assert!(why.contains("server.admin.listen"), "{why}");
    }
}

/// A server that accepts and never answers.
#[test]
fn a_probe_does_not_hang() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let began = Instant::now();
    let (code, _, why) = told(&command(&["health", "--admin", &address]).output().unwrap());
    assert_eq!(code, Some(1), "{why}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // It did connect.
    let mut first = [0; 12];
    silent.accept().unwrap().0.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"GET /healthz");
}

#[test]
fn status_names_shards_groups_and_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "server.shards=2",
        // The disk of the tests may be fuller than the default likes.
        "log.disk.low=1%",
        "export.0.name=away",
        "export.0.type=webhook",
        "export.0.url=http://127.0.0.1:9/",
        "export.1.name=here",
        "export.1.type=folder",
        "export.1.batch.delay=50ms",
    ];
    let folder = dir.path().join("out");
    std::fs::create_dir(&folder).unwrap();
    let launch = settings.iter().fold(Launch::new(&dir.path().join("data")), |l, s| l.set(s));
    let server = launch.set(&format!("export.1.dir={}", folder.display())).start();
    support::send(&server, 3, 500);
    let mut open = server.client();
    open.ehlo();
    let status = || -> Value {
        let (code, out, err) = told(&ask(&server, &["status", "--json"]));
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str(&out).unwrap()
    };
    eventually("one exporter is at the end, the other is down", Duration::from_secs(20), || {
        let groups = &status()["groups"];
        let of = |at: usize| (groups[at]["up"].as_bool(), groups[at]["lag"].as_u64());
        of(0) == (Some(false), Some(3)) && of(1).1 == Some(0) && status()["sessions"] == 1
    });
    let now = status();
    let marks = now["by_shard"].as_array().unwrap();
    let sum: u64 = marks.iter().map(|at| at["high_water_mark"].as_u64().unwrap()).sum();
    assert_eq!((sum, marks.len(), &now["ready"]), (3, 2, &true.into()), "{now}");
    assert_eq!(now["disk"]["state"], "ok", "{now}");

    let (code, out, err) = told(&ask(&server, &["status"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<Vec<&str>> = out.lines().map(|l| l.split_whitespace().collect()).collect();
    for words in [
        &["SHARD", "STATE", "START", "END", "SESSIONS"][..],
        &["sessions", "1", "open"],
        &["GROUP", "KIND", "STATE", "LAG", "OLDEST-PENDING", "DEAD"],
        &["here", "exporter", "up", "0", "-", "0"],
        &["1", "warning:"],
    ] {
        assert!(lines.iter().any(|line| line == words), "{words:?} is missing in\n{out}");
    }
    assert!(out.lines().any(|line| line.starts_with("away   exporter  down")), "{out}");
    assert!(!out.contains('\x1b'), "colours are for terminals: {out:?}");
}

/// Colours come on a terminal alone, and not where NO_COLOR forbids them.
#[test]
fn colours_are_for_terminals() {
    if !has("script") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let on_terminal = |no_color: &str| {
        let line = format!("{MAILRACE} status --admin {}", server.admin);
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", no_color);
        String::from_utf8(support::succeeded("script", script.output().unwrap()).stdout).unwrap()
    };
    assert!(on_terminal("").contains("\x1b[32mserving\x1b[0m"), "{:?}", on_terminal(""));
    let plain = on_terminal("1");
    assert!(plain.contains("serving") && !plain.contains("\x1b["), "{plain:?}");
}
