//! The load tester against the real program and against Postfix's smtp-sink.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod consumer;
mod peer;
mod proxy;
#[path = "../support/mod.rs"]
mod support;
mod threads;
mod tls;
mod view;
mod words;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::Server;

/// The load tester, as the server's program has it.
fn loadtest() -> Command {
    let mut command = Command::new(support::MAILRACE);
    command.arg("bench");
    command
}

fn bench(arguments: &[&str]) -> Output {
    loadtest().args(arguments).output().unwrap()
}

/// Runs it against a server; the report.
#[track_caller]
fn report(server: SocketAddr, arguments: &[&str]) -> Value {
    let (output, report) = outcome(server, arguments);
    assert!(is_made(&output), "{}", String::from_utf8_lossy(&output.stderr));
    report
}

#[track_caller]
fn outcome(server: SocketAddr, arguments: &[&str]) -> (Output, Value) {
    outcome_of(&format!("smtp://{server}"), arguments)
}

#[track_caller]
fn outcome_of(target: &str, arguments: &[&str]) -> (Output, Value) {
    let output = bench(&[&[target, "--format", "json"], arguments].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, report)
}

/// Nothing went wrong. 4: this machine was too busy for figures worth anything, which is not what
/// these tests ask.
fn is_made(output: &Output) -> bool {
    matches!(output.status.code(), Some(0 | 4))
}

fn count(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}"))
}

/// A running smtp-sink.
struct Sink(Child, SocketAddr);

impl Sink {
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// LMTP over a unix socket.
    fn start_unix(path: &Path, backlog: &str) -> Self {
        let address = format!("unix:{}", path.display());
        let child = Self::command().args(["-L", &address, backlog]).spawn().unwrap();
        support::eventually("smtp-sink listens", Duration::from_secs(10), || {
            UnixStream::connect(path).is_ok()
        });
        Self(child, ([0, 0, 0, 0], 0).into())
    }

    fn command() -> Command {
        let mut command = Command::new("smtp-sink");
        // SAFETY: it has no preconditions.
        if unsafe { libc::geteuid() } == 0 {
            command.args(["-u", "nobody"]);
        }
        command.stderr(Stdio::null());
        command
    }

    fn start_with(options: &[&str]) -> Self {
        // It cannot be told to choose a port itself: one that was free a moment ago will do.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Self::command().args(options).args([&port.to_string(), "100"]).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(port).is_err() {
            assert!(Instant::now() < end, "smtp-sink does not listen");
            thread::yield_now();
        }
        Self(child, port)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_way_to_send_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    // One segment takes all: how the server rolls under a burst is not the question here.
    let server = Server::start_with(dir.path(), &["server.shards=1", "log.segment_size=256MiB"]);
    let log = dir.path().to_str().unwrap();
    for arguments in [
        &["--pipelining", "off"][..],
        &["--pipelining", "on", "--recipients", "1..3", "--to", "u{seq}-{rand}@x.test"],
        &["--chunking", "--size", "1k..100k", "--domains", "a.test:75,b.test:25"],
        &["--chunking", "--in-flight", "8", "--size", "mix:2k=70,50k=25,2m=5"],
        &["--in-flight", "4", "--messages-per-connection", "7", "--recipients", "3"],
        &["--client-net", "127.8.0.0/16", "--warmup", "0.1s", "-r", "2k"],
    ] {
        let common = ["-n", "300", "-c", "5", "--verify", "--log-dir", log];
        let report = report(server.smtp, &[&common, arguments].concat());
        assert_eq!(count(&report, "/errors/total"), 0, "{arguments:?}");
        assert_eq!(count(&report, "/verify/found"), 300, "{arguments:?}");
        for none in ["lost", "duplicated", "corrupt", "invented", "unacknowledged"] {
            assert_eq!(count(&report, &format!("/verify/{none}")), 0, "{arguments:?} {none}");
        }
    }
}

#[test]
fn lmtp_is_spoken() {
    let sink = Sink::start_with(&["-L"]);
    let target = format!("lmtp://{}", sink.1);
    let output = bench(&[&target, "-n", "50", "-c", "2", "--recipients", "3", "--format", "json"]);
    assert!(is_made(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(count(&report, "/totals/acked"), 50);
    assert_eq!(count(&report, "/errors/total"), 0);
    // LHLO, MAIL, three RCPT and three final replies each.
    assert_eq!(count(&report, "/replies/250"), 2 + 50 * 7);
}

#[test]
fn lmtp_is_spoken_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    // Its user is nobody by the time it binds.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = dir.path().join("socket");
    // A backlog that 20 connections fill: those that find it full come again.
    let _sink = Sink::start_unix(&path, "2");
    let target = format!("lmtp+unix:{}", path.display());
    let run = ["-n", "200", "-c", "20", "--recipients", "2", "--messages-per-connection", "5"];
    let output = bench(&[&[&target[..], "--format", "json"][..], &run[..]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    assert!(is_made(&output), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(count(&report, "/totals/acked"), 200);
    assert_eq!(report["errors"]["messages"], serde_json::json!({}));
    // MAIL, two RCPT and two final replies each, and LHLO for each greeted connection but those
    // the end of the run came across.
    let greeted = count(&report, "/replies/220");
    let positive = count(&report, "/replies/250");
    assert!(
        (200 * 5 + 20..=200 * 5 + greeted).contains(&positive),
        "{positive}, {greeted} greeted"
    );
}

#[test]
fn a_unix_socket_whose_backlog_is_full_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    // SAFETY: a listening socket of ours; the call only sets its backlog.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            if number == 0 {
                // A server that is slow to begin: two more connections wait, the rest are refused.
                thread::sleep(Duration::from_millis(300));
            }
            let mut out = stream.try_clone().unwrap();
            thread::spawn(move || peer::talk(BufReader::new(stream), &mut out));
        }
    });
    let target = format!("lmtp+unix:{}", path.display());
    let output = bench(&[&target, "-n", "60", "-c", "6", "--format", "json"]);
    assert!(is_made(&output), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(count(&report, "/totals/acked"), 60);
    assert!(count(&report, "/errors/connections/connect") > 0, "it was never full");
}

#[test]
fn a_corpus_arrives_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let mbox = dir.path().join("mbox");
    fs::write(&mbox, "From a\nSubject: 1\n\n.dot\n..\n\nFrom b\nSubject: 2\n\n.\nend\n").unwrap();
    let (data, mbox) = (dir.path().join("data"), mbox.to_str().unwrap().to_owned());
    for chunking in [&["--chunking"][..], &[]] {
        let arguments = ["-n", "50", "-c", "2", "--corpus", &mbox, "--verify", "--log-dir"];
        let report =
            report(server.smtp, &[&arguments[..], &[data.to_str().unwrap()], chunking].concat());
        assert_eq!(count(&report, "/verify/found"), 50);
    }
}

#[test]
fn lost_mail_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (full, empty) = (dir.path().join("full"), dir.path().join("empty"));
    let server = Server::start(&full);
    // A data directory that holds nothing of the run.
    let other = Server::start(&empty);
    let log = empty.to_str().unwrap();
    let (output, report) =
        outcome(server.smtp, &["-n", "20", "-c", "2", "--verify", "--log-dir", log]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(count(&report, "/verify/lost"), 20);
    drop(other);
    // None at all.
    let nowhere = dir.path().join("nowhere");
    let log = nowhere.to_str().unwrap();
    let (output, _) = outcome(server.smtp, &["-n", "5", "-c", "1", "--verify", "--log-dir", log]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let sink = Sink::start();
    let arguments = ["-r", "500", "-z", "2s", "--warmup", "0.5s", "-c", "10", "--size", "1k"];
    let report = report(sink.1, &arguments);
    let acked = count(&report, "/totals/acked");
    assert!((995..=1005).contains(&acked), "{acked}");
    assert!(report["generator"]["schedule_lag"]["p99"].is_f64());
    assert_eq!(report["intervals"].as_array().unwrap().len(), 2);
    let keys = [
        "schema",
        "target",
        "options",
        "environment",
        "totals",
        "rate",
        "latency",
        "intervals",
        "replies",
        "errors",
        "generator",
        "verify",
    ];
    for key in keys {
        assert!(report.get(key).is_some(), "{key}");
    }
    assert!(report["latency"]["phases"]["ack"]["hdr"].as_str().unwrap().starts_with("HIST"));
}

#[test]
fn stages_change_the_rate() {
    let sink = Sink::start();
    let stages = ["--stages", "1s:100,1s:400,1s:200/s", "--warmup", "0.5s", "-c", "10"];
    for threads in ["1", "3"] {
        let report =
            report(sink.1, &[&stages[..], &["--size", "1k", "--threads", threads]].concat());
        assert_eq!(report["options"]["stages"], "1s:100,1s:400,1s:200/s");
        let intervals = report["intervals"].as_array().unwrap();
        assert_eq!(intervals.len(), 3);
        // A reply may come in the second behind its message's.
        for (interval, rate) in intervals.iter().zip([100, 400, 200]) {
            let acked = interval["acked"].as_u64().unwrap();
            assert!(acked.abs_diff(rate) <= 10, "{acked} for {rate}");
        }
        let acked = count(&report, "/totals/acked");
        assert!(acked.abs_diff(700) <= 3, "{acked}");
    }
}

#[test]
fn a_stalled_server_makes_the_response_late() {
    // No coordinated omission: a server that stops for 500 ms delays all that was due meanwhile.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut out = stream.try_clone().unwrap();
        out.write_all(b"220 mx\r\n").unwrap();
        let mut answered = 0;
        let mut is_data = false;
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let reply = match line.as_bytes() {
                b"." => {
                    is_data = false;
                    answered += 1;
                    if answered == 50 {
                        thread::sleep(Duration::from_millis(500));
                    }
                    "250 ok\r\n"
                }
                _ if is_data => continue,
                b"DATA" => {
                    is_data = true;
                    "354 go\r\n"
                }
                _ => "250 ok\r\n",
            };
            if out.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    });
    let arguments = ["-r", "200", "-z", "1.5s", "--warmup", "0s", "-c", "1", "--size", "256"];
    let more = ["--messages-per-connection", "100000"];
    let report = report(address, &[&arguments[..], &more].concat());
    let seconds = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert_eq!(count(&report, "/totals/acked"), 300);
    // About a hundred of the 300 were due during the stall; one was sent.
    assert!(seconds("/latency/response/p90") > 0.2, "{}", seconds("/latency/response/p90"));
    assert!(seconds("/latency/service/p90") < 0.2, "{}", seconds("/latency/service/p90"));
    assert!(seconds("/latency/service/max") > 0.49);
}

#[test]
fn messages_too_late_are_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let arguments =
        ["-r", "200k", "-z", "0.5s", "--warmup", "0s", "-c", "1", "--late-limit", "10ms"];
    let report = report(server.smtp, &arguments);
    let skipped = count(&report, "/totals/late_skipped");
    assert!(skipped > 1_000, "{skipped}");
    let known = skipped + count(&report, "/totals/acked") + count(&report, "/totals/failed");
    assert!((99_000..=100_001).contains(&known), "{known} of 100,000 are accounted for");
}

#[test]
fn thresholds_decide_the_exit_code() {
    let sink = Sink::start();
    let run = ["-n", "50", "-c", "2"];
    let (output, report) = outcome(sink.1, &[&run[..], &["--fail-if", "p99>1us"]].concat());
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("p99>1us"));
    assert_eq!(report["failed"], serde_json::json!(["--fail-if p99>1us"]));
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("failed.json");
    fs::write(&saved, &output.stdout).unwrap();
    let page = bench(&["report", saved.to_str().unwrap(), "--format", "html"]);
    let page = String::from_utf8_lossy(&page.stdout);
    assert!(page.contains("--fail-if p99&gt;1us") && !page.contains("Valid run"), "{page}");
    let (output, _) = outcome(sink.1, &[&run[..], &["--fail-if", "errors>0"]].concat());
    assert!(is_made(&output));
}

#[test]
fn a_search_finds_a_rate() {
    let sink = Sink::start();
    let arguments = ["--search", "rate<3k", "-z", "0.2s", "--warmup", "0s", "-c", "10"];
    let report = report(sink.1, &[&arguments[..], &["--size", "256"]].concat());
    let tries = report["search"].as_array().unwrap();
    assert!(tries.len() >= 3, "{tries:?}");
    assert!(tries.iter().any(|one| one["holds"] == true));
    assert!(tries.iter().any(|one| one["holds"] == false));
    // The report is that of the best try that held.
    let held = tries.iter().filter(|one| one["holds"] == true);
    let best = held.map(|one| one["got_per_second"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(report["rate"]["messages_per_second"].as_f64(), Some(best));
    // The rate is halved until none is left.
    let arguments = ["--search", "p99<1us", "-z", "0.1s", "--warmup", "0s", "-c", "2"];
    let (output, report) = outcome(sink.1, &arguments);
    assert_eq!(output.status.code(), Some(3));
    let tries = report["search"].as_array().unwrap();
    assert!(tries.len() > 5 && tries.iter().all(|one| one["holds"] == false), "{tries:?}");
}

#[test]
fn saved_runs_are_compared_and_shown() {
    let sink = Sink::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let target = format!("smtp://{}", sink.1);
    for (name, rate) in [("a.json", "100"), ("b.json", "200")] {
        let hdr = path("run.hlog");
        let output = bench(&[
            &target,
            "-r",
            rate,
            "-z",
            "3s",
            "--warmup",
            "0s",
            "-c",
            "4",
            "--save",
            &path(name),
            "--hdr-log",
            &hdr,
            "--tag",
            "build=1",
            "--percentiles",
            "full",
        ]);
        assert!(is_made(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with("mailrace bench  smtp://127.0.0.1:"), "{text}");
        assert!(text.contains("percentile"), "{text}");
        let log = fs::read_to_string(&hdr).unwrap();
        assert_eq!(log.lines().filter(|line| line.contains(",HIST")).count(), 3, "{log}");
    }
    let output = bench(&["compare", &path("a.json"), &path("b.json")]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.starts_with("compare   rate 100/s -> 200/s  +"),
        "{text}"
    );
    let html = path("run.html");
    let output = bench(&["report", &path("a.json"), "--format", "html", "-o", &html]);
    assert!(output.status.success());
    assert!(fs::read_to_string(html).unwrap().contains("</svg>"));
    let output = bench(&["report", &path("a.json"), "--format", "csv"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 4);
    assert_eq!(bench(&["report", &path("none.json")]).status.code(), Some(1));
}

#[test]
fn misbehaving_clients_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["server.shards=1", "log.segment_size=256MiB", "limits.message_size=1MiB"];
    let server = Server::start_with(dir.path(), &settings);
    let scenario = dir.path().join("scenario.toml");
    let client = |behaviour: &str, rest: &str| {
        format!("[[client]]\nbehaviour = \"{behaviour}\"\nshare = 0.1\n{rest}\n")
    };
    let text = [
        client("slow", "size = \"1k\"\noctets = 100\npause = \"5ms\""),
        client("aborting", "size = \"100k\"\npause = \"20ms\""),
        client("oversize", "size = \"2m\"\npause = \"50ms\""),
        client("stalling", "silence = \"200ms\""),
        client("early-talking", "pause = \"5ms\""),
    ];
    fs::write(&scenario, text.concat()).unwrap();
    let report = report(
        server.smtp,
        &[
            "-z",
            "2s",
            "--warmup",
            "0s",
            "-c",
            "10",
            "--verify",
            "--log-dir",
            dir.path().to_str().unwrap(),
            "--scenario",
            scenario.to_str().unwrap(),
        ],
    );
    assert_eq!(count(&report, "/errors/total"), 0);
    assert_eq!(count(&report, "/verify/invented"), 0);
    assert!(count(&report, "/scenario/slow/acked") > 0, "{}", report["scenario"]);
    assert!(count(&report, "/scenario/aborting/left") > 0, "{}", report["scenario"]);
    assert_eq!(count(&report, "/scenario/aborting/acked"), 0, "{}", report["scenario"]);
    assert_eq!(count(&report, "/scenario/oversize/acked"), 0, "{}", report["scenario"]);
    assert!(count(&report, "/scenario/stalling/left") > 0, "{}", report["scenario"]);
    assert!(count(&report, "/scenario/early-talking/connections") > 1, "{}", report["scenario"]);
}

#[test]
fn nonsense_is_a_usage_error() {
    let nobody = support::machine::closed_port();
    let target = format!("smtp://{}", nobody.address);
    for arguments in [
        &["-r", "x"][..],
        &["-c", "0"],
        &["--size", "1"],
        &["-z", "0s"],
        &["-n", "5", "-z", "1s"],
        &["--stages", "1s"],
        &["--in-flight", "2", "--pipelining", "off"],
        &["--threads", "0"],
        &["--threads", "6", "-c", "5"],
        &["--fail-if", "p98>1s"],
        &["--recipients", "0"],
        &["--to", "{x}@a.test"],
        &["--scenario", "/nonexistent"],
        &["--corpus", "/nonexistent"],
        &["smtps://"],
        &["smtps://127.0.0.1", "--starttls"],
        &["smtps://127.0.0.1", "--ca-file", "/nonexistent"],
        &["smtps://127.0.0.1", "--ca-file", "/nonexistent", "--insecure"],
        &["smtps://127.0.0.1", "--auth-file", "/nonexistent"],
        &["smtps://127.0.0.1", "--insecure", "--scenario", "loadtest/scenarios/misfits.toml"],
        &["--insecure"],
        &["--no-resumption"],
        &["--ca-file", "x"],
        &["lmtp+unix:/x", "--starttls", "--insecure"],
        &["--proxy-protocol", "v3"],
        &["--client-net", "10.0.0.1"],
        &["--search", "p99<1s", "--e2e", "--log-dir", "x"],
        &["http://127.0.0.1"],
        // RFC 5737: no one's.
        &["smtp://192.0.2.1:25"],
        &["compare", "a.json"],
    ] {
        // Were one of them taken, nobody's server at the default target shall bear the load.
        let has_target = arguments.iter().any(|argument| argument.contains(":/"));
        let target = (!has_target && arguments[0] != "compare").then_some(&target[..]);
        let output = bench(&[arguments, target.as_slice()].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let mut command = Command::new(support::MAILRACE);
    let output = command.args(["bench", "-c", "0", &target]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let nobody = support::machine::closed_port();
    let started = Instant::now();
    let (output, _) = outcome(nobody.address, &["-z", "1s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"));
    assert!(started.elapsed() < Duration::from_secs(5));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let target = format!("lmtp+unix:{}", Path::new(&path).display());
    assert_eq!(bench(&[&target, "-z", "1s"]).status.code(), Some(1));
}
