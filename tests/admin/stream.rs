//! The stream API over a real server: what a consumer in any language sees, with curl, Python and
//! TypeScript.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::support::{
    Launch, Server, body, eventually, id_of,
    machine::{has, skip},
    protobuf, succeeded,
};

/// Sends messages over a few connections, so that more than one shard gets some.
fn send(server: &Server, seeds: std::ops::Range<u64>, bytes: usize) -> BTreeMap<String, Vec<u8>> {
    let mut sent = BTreeMap::new();
    for seed in seeds {
        let mut client = server.client();
        client.ehlo();
        let octets = body(seed, bytes);
        sent.insert(id_of(&client.bdat(&octets)), octets);
    }
    sent
}

fn two_shards(dir: &Path) -> Server {
    Launch::new(dir).set("server.shards=2").set("log.segment_size=16MiB").start()
}

fn curl(server: &Server, path: &str, more: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "-N", "--max-time", "60"]).args(more);
    command.arg(format!("http://{}{path}", server.admin));
    command
}

fn get(server: &Server, path: &str) -> (u16, Value) {
    let (status, text) = server.page(path);
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}")))
}

fn raw(event: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(event["data"]["raw"]["data"].as_str().unwrap()).unwrap()
}

fn post(server: &Server, path: &str, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.admin).unwrap();
    let (host, len) = (server.admin, text.len());
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{text}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// A stream that is read line by line.
struct Follow {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Follow {
    fn start(server: &Server, query: &str) -> Self {
        let mut command = curl(server, &format!("/v1/stream?{query}"), &[]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "the stream ended");
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn curl_reads_what_is_there_and_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let server = two_shards(dir.path());
    let mut sent = send(&server, 0..40, 3_000);
    // Not following: everything, then the end.
    let output = curl(&server, "/v1/stream?start=start", &[]).output().unwrap();
    let text = String::from_utf8(succeeded("curl", output).stdout).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let read: BTreeMap<String, Vec<u8>> =
        events.iter().map(|event| (event["id"].as_str().unwrap().to_owned(), raw(event))).collect();
    assert!(read == sent, "{} read, {} sent", read.len(), sent.len());
    let shards: BTreeSet<u64> =
        events.iter().map(|event| event["data"]["log"]["shard"].as_u64().unwrap()).collect();
    assert_eq!(shards.len(), 2, "both shards took part");
    // Following: what is there, then what comes.
    let mut follow = Follow::start(&server, "start=start&follow=1");
    let mut seen: BTreeSet<String> =
        (0..40).map(|_| follow.next()["id"].as_str().unwrap().to_owned()).collect();
    let later = send(&server, 40..45, 100);
    for _ in 0..5 {
        seen.insert(follow.next()["id"].as_str().unwrap().to_owned());
    }
    sent.extend(later);
    assert_eq!(seen, sent.into_keys().collect::<BTreeSet<_>>());
}

#[test]
fn protobuf_is_length_delimited() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let sent = send(&server, 0..20, 2_000);
    let accept = ["-H", "Accept: application/x-protobuf"];
    let output = curl(&server, "/v1/stream?start=start", &accept).output().unwrap();
    let octets = succeeded("curl", output).stdout;
    let mut rest = octets.as_slice();
    let mut read = BTreeMap::new();
    while !rest.is_empty() {
        let length = prost::decode_length_delimiter(&mut rest).unwrap();
        let message = protobuf::message(rest.split_off(..length).unwrap());
        let raw = BASE64_STANDARD.decode(message["raw"].as_str().unwrap()).unwrap();
        read.insert(message["id"].as_str().unwrap().to_owned(), raw);
    }
    assert!(read == sent);
}

#[test]
fn a_group_goes_on_from_its_commit_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, 0..30, 200);
    let mut follow = Follow::start(&server, "group=app&follow=1");
    for offset in 0..30 {
        assert_eq!(follow.next()["data"]["log"]["offset"], offset);
    }
    assert_eq!(server.metric("mailrace_log_consumer_members", &["group=\"app\""]), 1.0);
    assert_eq!(post(&server, "/v1/groups/app/commit", r#"{"0":12}"#).0, 200);
    let (status, text) = post(&server, "/v1/groups/app/commit", r#"{"0":31}"#);
    assert!(status == 409 && text.contains("beyond the high-water mark 30"), "{status} {text}");
    assert_eq!(post(&server, "/v1/groups/app/commit", r#"{"7":0}"#).0, 404);
    assert_eq!(post(&server, "/v1/groups/app/commit", "nonsense").0, 400);
    drop(follow);
    server.kill();
    let server = Server::start(dir.path());
    let mut follow = Follow::start(&server, "group=app&follow=1");
    assert_eq!(follow.next()["data"]["log"]["offset"], 12);
    let (_, groups) = get(&server, "/v1/groups/app");
    assert_eq!(
        (&groups["shards"][0]["committed"], &groups["shards"][0]["lag"]),
        (&12.into(), &18.into())
    );
    eventually("the group's lag is told", Duration::from_secs(15), || {
        server.metric("mailrace_log_consumer_lag_records", &["group=\"app\""]) == 18.0
    });
    drop(follow);
    eventually("the reader has left", Duration::from_secs(10), || {
        server.metric("mailrace_log_consumer_members", &["group=\"app\""]) == 0.0
    });
}

#[test]
fn what_is_in_flight_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, 0..30, 200);
    let mut follow = Follow::start(&server, "group=slow&follow=1&max_inflight=10");
    for offset in 0..10 {
        assert_eq!(follow.next()["data"]["log"]["offset"], offset);
    }
    assert_eq!(post(&server, "/v1/groups/slow/commit", r#"{"0":4}"#).0, 200);
    for offset in 10..14 {
        assert_eq!(follow.next()["data"]["log"]["offset"], offset);
    }
    // Nothing more comes: the next line is the one that the next commit lets go.
    assert_eq!(post(&server, "/v1/groups/slow/commit", r#"{"0":5}"#).0, 200);
    assert_eq!(follow.next()["data"]["log"]["offset"], 14);
}

#[test]
fn members_share_the_shards() {
    let dir = tempfile::tempdir().unwrap();
    let server = two_shards(dir.path());
    let sent = send(&server, 0..40, 200);
    let mut seen = BTreeSet::new();
    for member in 0..2 {
        let path = format!("/v1/stream?group=shared&member={member}&members=2");
        let output = succeeded("curl", curl(&server, &path, &[]).output().unwrap());
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["data"]["log"]["shard"], member);
            assert!(seen.insert(event["id"].as_str().unwrap().to_owned()), "shown once");
        }
    }
    assert_eq!(seen, sent.into_keys().collect::<BTreeSet<_>>());
}

#[test]
fn messages_by_their_id() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    // The second is stored in fragments.
    for (seed, bytes) in [(1, 4_000), (2, 3 << 20)] {
        let (id, octets) = send(&server, seed..seed + 1, bytes).pop_first().unwrap();
        let (status, event) = get(&server, &format!("/v1/messages/{id}"));
        assert_eq!((status, event["id"].as_str()), (200, Some(id.as_str())));
        assert!(raw(&event) == octets);
        let path = format!("/v1/messages/{id}/raw");
        let whole = succeeded("curl", curl(&server, &path, &[]).output().unwrap()).stdout;
        assert!(whole == octets);
        let part = curl(&server, &path, &["-r", "1000-1999"]).output().unwrap();
        assert!(succeeded("curl", part).stdout == octets[1_000..2_000]);
        let tail = curl(&server, &path, &["-r", "-10"]).output().unwrap();
        assert!(succeeded("curl", tail).stdout == octets[octets.len() - 10..]);
    }
    assert_eq!(get(&server, "/v1/messages/nonsense").0, 400);
    let (status, answer) = get(&server, "/v1/messages/000000000000-000-0000000000000000");
    assert!(status == 404 && answer["error"].as_str().unwrap().contains("node"), "{answer}");
    let (_, shards) = get(&server, "/v1/shards");
    assert_eq!(shards["shards"][0]["high_water_mark"], 2);
    assert_eq!(get(&server, "/v1/status").1["ready"], true);
}

#[test]
fn mistakes_get_a_clear_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for (query, told) in [
        ("group=..", "not a group name"),
        ("group=a/b", "not a group name"),
        ("start=tomorrow", "is not a valid range"),
        ("shards=9", "no shard 9"),
        ("member=2&members=2", "member less than members"),
        ("max_inflight=5", "it needs group=NAME"),
        ("group=g&max_inflight=0", "at least 1"),
        ("follow=perhaps", "0 or 1"),
        ("folow=1", "unknown field"),
    ] {
        let (status, text) = server.page(&format!("/v1/stream?{query}"));
        assert!(status == 400 && text.contains(told), "{query}: {status} {text}");
    }
    let output = curl(&server, "/v1/shards", &["-H", "Host: evil.test", "-w", "%{http_code}"]);
    let text = String::from_utf8({ output }.output().unwrap().stdout).unwrap();
    assert!(text.ends_with("421"), "a name in Host is refused: {text}");
    assert!(text.contains("server.admin.hosts"), "the cure is named: {text}");
}

/// By name: one that is configured, or any with the token.
#[test]
fn a_known_name_or_the_token_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let status = |server: &Server, more: &[&str]| {
        let mut command = curl(server, "/v1/shards", &["-o", "/dev/null", "-w", "%{http_code}"]);
        let output = succeeded("curl", command.args(more).output().unwrap());
        String::from_utf8(output.stdout).unwrap()
    };
    let server = Launch::new(dir.path()).set("server.admin.hosts=[\"MX.test\"]").start();
    assert_eq!(status(&server, &["-H", "Host: mx.test:2580"]), "200");
    assert_eq!(status(&server, &["-H", "Host: evil.test"]), "421");
    assert_eq!(server.stop(), Some(0));
    let token = dir.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let setting = format!("server.admin.token_file={}", token.display());
    let server = Launch::new(dir.path()).set(&setting).start();
    let bearer = ["-H", "Authorization: Bearer secret"];
    assert_eq!(status(&server, &[&["-H", "Host: evil.test"], &bearer[..]].concat()), "200");
    assert_eq!(status(&server, &["-H", "Host: evil.test"]), "401");
}

/// Both ends of a range count, and a stream that has reached the end of its range ends.
#[test]
fn a_stream_ends_with_its_range() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(dir.path()).set("server.shards=1").start();
    send(&server, 0..6, 200);
    let offsets = |query: &str| {
        let output = curl(&server, &format!("/v1/stream?{query}"), &[]).output().unwrap();
        let text = String::from_utf8(succeeded(query, output).stdout).unwrap();
        let offset = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["data"]["log"]["offset"].as_u64().unwrap()
        };
        text.lines().map(offset).collect::<Vec<_>>()
    };
    assert_eq!(offsets("start=1:3"), [1, 2]);
    assert_eq!(offsets("start=1:3&follow=1"), [1, 2], "it ends though it follows");
    assert_eq!(offsets("start=4:6&follow=1"), [4, 5], "also at the end of the log");
    assert_eq!(offsets("start=:2"), [0, 1]);
    assert_eq!(offsets("start=-2"), [4, 5]);
    assert_eq!(offsets("start=%2B4"), [4, 5]);
    assert_eq!(offsets("start=+4"), [4, 5], "an unescaped plus");
    let (status, text) = server.page("/v1/stream?start=3:1");
    assert!(status == 400 && text.contains("the range is empty"), "{status} {text}");
    let (status, text) = server.page("/v1/stream?start=+x");
    assert!(status == 400 && text.contains("+x"), "{status} {text}");
}

#[test]
fn the_python_example_consumes() {
    let dir = tempfile::tempdir().unwrap();
    let server = two_shards(dir.path());
    // One is large enough to be fetched by reference.
    let mut sent = send(&server, 0..249, 500);
    sent.extend(send(&server, 249..250, 700_000));
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/consumer.py")).args([
        "--url",
        &format!("http://{}", server.admin),
        "--group",
        "py",
        "--count",
        "250",
    ]);
    check_example(&server, command, "py", &sent);
}

#[test]
fn the_typescript_example_consumes() {
    let dir = tempfile::tempdir().unwrap();
    let installed =
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/servers/typescript.sh"))
            .output()
            .unwrap();
    if !has("node") || (!installed.status.success() && skip("no TypeScript compiler")) {
        return;
    }
    let tsc = String::from_utf8(installed.stdout).unwrap().trim().to_owned();
    let types = Path::new(&tsc).ancestors().nth(2).unwrap().join("@types");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/consumer.ts");
    let compiled = Command::new(&tsc)
        .args(["--strict", "--module", "es2022", "--moduleResolution", "bundler"])
        .args(["--target", "es2022", "--types", "node", "--typeRoots"])
        .arg(types)
        .arg("--outDir")
        .arg(dir.path())
        .arg(example)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&compiled.stdout).into_owned();
    assert!(compiled.status.success(), "{said}");
    let module = dir.path().join("consumer.mjs");
    std::fs::rename(dir.path().join("consumer.js"), &module).unwrap();
    let server = two_shards(&dir.path().join("data"));
    let mut sent = send(&server, 0..249, 500);
    sent.extend(send(&server, 249..250, 700_000));
    let mut command = Command::new("node");
    command.arg(module).arg(format!("http://{}", server.admin)).args(["ts", "250"]);
    check_example(&server, command, "ts", &sent);
}

/// Each line of an example begins with id and length; its group has committed everything.
#[track_caller]
fn check_example(
    server: &Server,
    mut command: Command,
    group: &str,
    sent: &BTreeMap<String, Vec<u8>>,
) {
    let output = succeeded(group, command.output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    let read: BTreeMap<String, usize> = text
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let id = words.next().unwrap().to_owned();
            (id, words.next().unwrap().parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect();
    let wanted = sent.iter().map(|(id, octets)| (id.clone(), octets.len())).collect();
    assert_eq!(read, wanted);
    let (_, described) = get(server, &format!("/v1/groups/{group}"));
    for shard in described["shards"].as_array().unwrap() {
        assert_eq!(shard["lag"], 0, "{described}");
    }
}
