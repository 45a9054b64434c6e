//! `mailrace refusals`: refused at each stage, in a flood, over a restart, and over damaged files.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::support::{Client, Launch, MAILRACE, Server, eventually, log_command, succeeded};

const LIMIT: Duration = Duration::from_secs(20);

const SCHEMA: &str = include_str!("../../config/schema/mailrace.message.refused.v1.schema.json");

fn launch(dir: &Path) -> Launch {
    Launch::new(dir)
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("listener.0.accept.domains=example.com")
        .set("limits.message_size=64KiB")
}

fn output(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(MAILRACE)
        .arg("refusals")
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .output()
        .expect("it runs")
}

fn refusals(dir: &Path, arguments: &[&str]) -> String {
    let done = succeeded(&format!("refusals {arguments:?}"), output(dir, arguments));
    String::from_utf8(done.stdout).unwrap()
}

fn events(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let lines = refusals(dir, &[arguments, &["--json"]].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until so many are written.
#[track_caller]
fn written(server: &Server, count: f64) {
    eventually("they are written", LIMIT, || {
        server.metric("mailrace_log_refusals_written_total", &[]) >= count
    });
}

fn file(dir: &Path) -> PathBuf {
    dir.join("refusals/shard-000/0000000001.ref")
}

/// A refusal of each stage: reverse-path and mail data name what is looked for.
fn refuse_everywhere(server: &Server) {
    let mut early = Client::open(server.smtp);
    early.send(b"GET / HTTP/1.1\r\n\r\n");
    early.rest();
    let mut client = server.client();
    client.dialogue(&[
        ("HELO", "501"),
        ("EHLO mx.sender.example", "250"),
        ("MAIL FROM:<a b>", "501"),
        ("MAIL FROM:<alice@Sender.example>", "250"),
        ("RCPT TO:<bob@else.example>", "550"),
        ("DATA", "554"),
        ("RCPT TO:<bob@example.com>", "250"),
        ("DATA", "354"),
    ]);
    client.send(b"Subject: a secret of the mail data\r\n\r\n");
    client.send(&b"a secret of the mail data\r\n".repeat(4_000));
    client.send(b".\r\n");
    assert!(client.reply().starts_with("552"));
    client.dialogue(&[("MAIL FROM:<>", "250")]);
    client.send(b"BDAT 3 LAST\r\nabc");
    assert!(client.reply().starts_with("503"));
    client.say("QUIT");
}

#[test]
fn each_stage_leaves_its_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    refuse_everywhere(&server);
    written(&server, 7.0);
    let events = events(dir.path(), &["ls"]);
    let validator = jsonschema::draft202012::new(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    for event in &events {
        assert!(validator.is_valid(event), "{event}");
    }
    let ids: std::collections::BTreeSet<_> =
        events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len(), "each has an id of its own");
    let said: Vec<_> = events
        .iter()
        .map(|event| {
            let data = &event["data"];
            assert_eq!(data["client"]["ip"], "127.0.0.1");
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            (
                text(&data["stage"]),
                data["reply"]["code"].as_u64().unwrap(),
                text(&data["client"]["helo"]),
                text(&data["envelope"]["mail_from"]),
                text(&data["envelope"]["rcpt_to"]),
            )
        })
        .collect();
    let sender = "alice@Sender.example";
    let helo = "mx.sender.example";
    let expected = [
        ("http", 421, "", "-", "-"),
        ("helo", 501, "", "-", "-"),
        ("mail", 501, helo, "<a b>", "-"),
        ("rcpt", 550, helo, sender, "bob@else.example"),
        ("data", 554, helo, sender, "-"),
        ("message", 552, helo, sender, "-"),
        ("bdat", 503, helo, "", "-"),
    ];
    let expected = expected.map(|(stage, code, helo, from, to)| {
        (stage.to_owned(), code, helo.to_owned(), from.to_owned(), to.to_owned())
    });
    assert_eq!(said, expected);
    let raw = fs::read_to_string(file(dir.path())).unwrap();
    assert!(!raw.contains("secret of the mail data"));
    columns_and_filters(dir.path());
}

fn columns_and_filters(dir: &Path) {
    let lines = refusals(dir, &["ls"]);
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), 8, "{lines:?}");
    let column = lines[0].find("STAGE").unwrap();
    let stages = ["http", "helo", "mail", "rcpt", "data", "message", "bdat"];
    for (line, stage) in lines[1..].iter().zip(stages) {
        assert!(line[column..].starts_with(stage), "aligned: {line}");
    }
    let count = |arguments: &[&str]| events(dir, &[&["ls"], arguments].concat()).len();
    assert_eq!(count(&["--stage", "RCPT"]), 1);
    assert_eq!(count(&["--client", "127.0.0.0/8"]), 7);
    assert_eq!(count(&["--client", "192.0.2.0/24"]), 0);
    assert_eq!(count(&["--reason", "552"]), 1);
    assert_eq!(count(&["-o", "@-1h:"]), 7);
    assert_eq!(count(&["-o", "@-48h:-24h"]), 0);
    assert_eq!(events(dir, &["tail", "-n", "2"])[0]["data"]["stage"], "message");
    for (bad, word) in [
        (&["ls", "-o", "5:9"][..], "no offsets"),
        (&["ls", "-o", "@-1h:-2h"], "empty"),
        (&["ls", "--shard", "7"], "shard 7 has no refusals"),
        (&["ls", "--client", "nonsense"], "not a network"),
    ] {
        let done = output(dir, bad);
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{bad:?}: {text}");
        assert!(text.contains(word), "{bad:?}: {text}");
    }
    let stats: Value = serde_json::from_str(&refusals(dir, &["stats", "--json"])).unwrap();
    assert_eq!(stats["refusals"], 7);
    assert_eq!(stats["by_stage"].as_array().unwrap().len(), 7);
    assert_eq!(stats["by_client_network"][0]["client_network"], "127.0.0.0/24");
    assert_eq!(stats["by_client_network"][0]["count"], 7);
    assert_eq!(stats["by_sender_domain"][0]["sender_domain"], "sender.example");
    assert_eq!(stats["by_sender_domain"][0]["count"], 3);
    let table = refusals(dir, &["stats", "-n", "1"]);
    assert!(table.contains("COUNT  CLIENT NETWORK\n    7  127.0.0.0/24\n"), "{table}");
}

/// Whom the gate turns away is refused at `connect`.
#[test]
fn who_is_not_greeted_leaves_a_refusal_too() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        launch(dir.path()).set("limits.exempt=").set("limits.connections.per_ip=1").start();
    let held: Vec<_> = (0..3).map(|_| Client::open(server.smtp)).collect();
    written(&server, 1.0);
    drop(held);
    let events = events(dir.path(), &["ls", "--stage", "connect"]);
    assert_eq!(events[0]["data"]["reply"]["code"], 421);
    assert_eq!(events[0]["data"]["envelope"]["mail_from"], Value::Null);
}

/// Marks that turn text around, control characters, octets that are no text and long names are cut and
/// escaped. Of a command with a control character of ASCII nothing is read, and so nothing is kept.
#[test]
fn hostile_values_are_one_short_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    let mut client = server.client();
    for name in [
        &"\u{202e}der\u{9b}".repeat(2).into_bytes()[..],
        &b"\xff\xfe".repeat(200),
        &b"h".repeat(480),
    ] {
        client.send(&[b"HELO ", name, b"\r\n"].concat());
        assert!(client.reply().starts_with("501"));
    }
    client.ehlo();
    client.send(b"MAIL FROM:<\x1b]0;title\x07 \x9b \xe2\x80\xae>\r\n");
    assert!(client.reply().starts_with("501"));
    written(&server, 4.0);
    let events = events(dir.path(), &["ls"]);
    for event in &events {
        assert!(event["data"]["client"]["helo"].as_str().unwrap().len() <= 320, "{event}");
    }
    assert!(events[2]["data"]["client"]["helo"].as_str().unwrap().starts_with("hhhh"));
    let text = refusals(dir.path(), &["ls"]);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains(r"\u{202e}der\u{9b}\u{202e}der\u{9b}"), "{text}");
    let hidden = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!text.contains(hidden), "{text:?}");
}

/// A flood is kept in part and counted; mail goes on, and the files stay within their bound.
#[test]
fn a_flood_is_bounded() {
    const COUNT: usize = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path())
        .set("log.refusals.size=1MiB")
        .set("limits.errors.soft=1000000")
        .set("limits.errors.hard=1000000")
        .start();
    let mut client = server.client();
    client.ehlo();
    client.say("MAIL FROM:<a@b.example>");
    let group = b"RCPT TO:<nobody@else.example>\r\n".repeat(100);
    for _ in 0..COUNT / 100 {
        assert!(client.send(&group));
        for _ in 0..100 {
            assert!(client.reply().starts_with("550"));
        }
    }
    client.say("RSET");
    let mail = [("MAIL FROM:<a@b.example>", "250"), ("RCPT TO:<bob@example.com>", "250")];
    client.dialogue(&mail);
    client.dialogue(&[("DATA", "354"), ("Subject: after the flood\r\n\r\n.", "250")]);
    let counted = |which: &str| server.metric(&format!("mailrace_log_refusals_{which}_total"), &[]);
    eventually("all are counted", LIMIT, || {
        counted("written") + counted("dropped") >= COUNT as f64
    });
    assert_eq!(counted("written") + counted("dropped"), COUNT as f64);
    assert!(counted("written") >= 2_000.0, "{}", counted("written"));
    assert!(counted("dropped") > 0.0);
    let files = fs::read_dir(dir.path().join("refusals/shard-000")).unwrap();
    let held: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(held <= 1 << 20, "{held}");
    assert!(!events(dir.path(), &["ls"]).is_empty());
}

/// What was kept is there after a restart, and what a crash tore is passed over with a word.
#[test]
fn refusals_outlive_restarts_and_damage() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    refuse_everywhere(&server);
    // An orderly stop writes what waits.
    assert_eq!(server.stop(), Some(0));
    assert_eq!(events(dir.path(), &["ls"]).len(), 7);
    let mut torn = fs::OpenOptions::new().append(true).open(file(dir.path())).unwrap();
    torn.write_all(b"0badf00d {\"at\":17").unwrap();
    let done = output(dir.path(), &["ls", "--json"]);
    assert_eq!(String::from_utf8_lossy(&done.stdout).lines().count(), 7);
    let word = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(word.contains("the last 17 bytes are not a whole refusal"), "{word}");
    let server = launch(dir.path()).start();
    let follow = Command::new(MAILRACE)
        .args(["refusals", "tail", "-f", "-n", "1", "--json", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut follow = follow.unwrap();
    refuse_everywhere(&server);
    written(&server, 7.0);
    let done = output(dir.path(), &["ls", "--json"]);
    assert_eq!(String::from_utf8_lossy(&done.stdout).lines().count(), 14);
    let word = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(word.contains("0000000001.ref is damaged: 18 bytes at 1 place,"), "{word}");
    let mut line = String::new();
    BufReader::new(follow.stdout.take().unwrap()).read_line(&mut line).unwrap();
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(line.contains("mailrace.message.refused.v1"), "{line}");
}

/// `log.refusals.size = ""` keeps nothing, and the commands say so.
#[test]
fn refusals_may_be_off() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).set("log.refusals.size=").start();
    refuse_everywhere(&server);
    assert_eq!(server.stop(), Some(0));
    assert!(!dir.path().join("refusals").exists());
    assert_eq!(refusals(dir.path(), &["stats"]), "0 refusals\n");
    assert!(log_command(dir.path(), &["ls"]).len() > 10);
}
