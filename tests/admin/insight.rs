//! `mailrace trace`, `dump`, `flight` and `top --by`, against a real server.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::metrics::user_add;
use crate::support::{
    Client, Launch, MAILRACE, Server, eventually, id_of, segments, send, servers::secure::Case,
    signal, succeeded,
};

/// A command that asks this server.
fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(MAILRACE);
    command.args(arguments).arg(format!("--admin={}", server.admin)).current_dir("/");
    command
}

#[track_caller]
fn run(server: &Server, arguments: &[&str]) -> String {
    let output = command(server, arguments).output().unwrap();
    String::from_utf8(succeeded(&format!("{arguments:?}"), output).stdout).unwrap()
}

/// A trace under way: the server knows of it.
fn follow(server: &Server, arguments: &[&str]) -> impl FnOnce() -> Output {
    let arguments = [&["trace"], arguments].concat();
    let mut command = Command::new("timeout");
    command.args(["60", MAILRACE]).args(arguments).arg(format!("--admin={}", server.admin));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It says so once the shards know of it.
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).unwrap();
    assert_eq!(line, "mailrace: following sessions\n");
    move || child.wait_with_output().unwrap()
}

fn events(output: Output) -> Vec<Value> {
    let text = String::from_utf8(succeeded("trace", output).stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn a_session_is_followed_with_its_times_and_without_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users").display().to_string();
    user_add(&users);
    let case = Case::with(
        "starttls",
        &[&format!("listener.0.auth.users_file={users}"), "listener.0.auth.mechanisms=PLAIN"],
    );
    let waits = follow(&case.server, &["--json", "-n", "7", "--client", "127.0.0.0/8"]);
    let mut client = case.client("starttls");
    let secret = STANDARD.encode("\0tim\0wrong password");
    assert!(client.say(&format!("AUTH PLAIN {secret}")).starts_with("535"));
    assert!(client.say("RCPT TO:<x@server.test>").starts_with("503"));
    let id = id_of(&client.bdat(b"Subject: confidential\r\n\r\nprivate words\r\n"));
    assert!(client.say("QUIT").starts_with("221"));
    let output = waits();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for hidden in ["confidential", "private", "wrong password", &secret] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    let events = events(output);
    assert_eq!(
        names(&events),
        ["opened", "handshake", "refused", "refused", "received", "stored", "closed"]
    );
    let [opened, handshake, login, refused, received, stored, closed] = &events[..] else {
        panic!("{events:#?}");
    };
    assert_eq!((&opened["client"], &opened["listener"]), (&"127.0.0.1".into(), &"smtp".into()));
    assert!(handshake["tls"].as_str().unwrap().starts_with("TLSv1.3 "), "{handshake}");
    assert_eq!((&login["stage"], &login["code"]), (&"auth".into(), &535.into()));
    assert_eq!((&refused["stage"], &refused["code"]), (&"rcpt".into(), &503.into()));
    assert_eq!(received["from"], "a@client.test");
    assert_eq!(received["rcpts"], serde_json::json!(["b@server.test"]));
    assert_eq!((&received["recipients"], &received["bytes"]), (&1.into(), &40.into()));
    assert_eq!(stored["id"], id.as_str());
    assert_eq!((&closed["reason"], &closed["messages"]), (&"quit".into(), &1.into()));
    // Times of phases: none is longer than the session, and the sync took some.
    let seconds = |event: &Value, name: &str| event[name].as_f64().unwrap();
    let whole = seconds(closed, "seconds");
    for event in [handshake, received, stored] {
        let took = seconds(event, "seconds");
        assert!((0.0..=whole).contains(&took), "{event} of {whole}");
    }
    assert!(seconds(stored, "commit_seconds") > 0.0, "{stored}");
    assert!(events.iter().all(|event| event["session"] == opened["session"]));
}

#[test]
fn filters_follow_whom_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let waits = [
        follow(&server, &["--json", "-n", "3", "--from", "*@other.test"]),
        follow(&server, &["--json", "-n", "3", "--rcpt", "CAROL@*", "--listener", "smtp"]),
    ];
    let mut client = server.client();
    client.ehlo();
    let mut deliver = |from: &str, rcpt: &str| {
        for line in [format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{rcpt}>")] {
            assert!(client.say(&line).starts_with("250"), "{line}");
        }
        client.send(b"BDAT 2 LAST\r\n\r\n");
        id_of(&client.reply())
    };
    deliver("a@client.test", "bob@server.test");
    let by_sender = deliver("x@other.test", "bob@server.test");
    let by_recipient = deliver("a@client.test", "carol@server.test");
    assert!(client.say("QUIT").starts_with("221"));
    let [sender, recipient] = waits.map(|waits| events(waits()));
    // From the mail that matches on, the session's.
    assert_eq!(names(&sender), ["received", "stored", "stored"]);
    assert_eq!(sender[1]["id"], by_sender.as_str());
    assert_eq!(names(&recipient), ["received", "stored", "closed"]);
    assert_eq!(recipient[1]["id"], by_recipient.as_str());
    // What cannot be asked for.
    for (arguments, why) in [
        (&["trace", "--client", "300.0.0.0/8"][..], "is not a network such as"),
        (&["trace", "--client", "::1/200"], "is not a network such as"),
    ] {
        let output = command(&server, arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && told.contains(why), "{arguments:?}: {told}");
    }
    assert_eq!(server.page("/v1/trace?nonsense=1").0, 400);
}

/// Begins a trace; the status line that came, and what reads the rest.
fn ask_for_traces(server: &Server) -> (BufReader<std::net::TcpStream>, String) {
    let mut stream = std::net::TcpStream::connect(server.admin).unwrap();
    let request = b"GET /v1/trace HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    std::io::Write::write_all(&mut stream, request).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    (reader, line)
}

/// A reader that reads nothing costs the server what it may hold for it, and no mail.
#[test]
fn a_trace_that_nobody_reads_holds_up_no_mail() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let held: Vec<_> = (0..4)
        .map(|_| {
            let (reader, line) = ask_for_traces(&server);
            assert!(line.contains(" 200 "), "{line}");
            reader
        })
        .collect();
    assert_eq!(server.page("/v1/trace").0, 503, "one too many");
    // Beyond the queue of 8,192 events and the buffers of the sockets.
    send(&server, 20_000, 300);
    drop(held);
    eventually("there is room again", Duration::from_secs(20), || {
        ask_for_traces(&server).1.contains(" 200 ")
    });
}

fn recording(file: &Path) -> Vec<Value> {
    let mut command = Command::new(MAILRACE);
    let output = command.args(["flight", "--json"]).arg(file).output().unwrap();
    let text = String::from_utf8(succeeded("flight", output).stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_flight_recorder_is_written_on_request_and_by_an_abort() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path(), &["server.shards=2", "log.segment_size=1MiB"]);
    let mut client = server.client();
    client.ehlo();
    assert!(client.say("RCPT TO:<x@y.test>").starts_with("503"));
    id_of(&client.bdat(b"Subject: confidential\r\n"));
    assert!(client.say("QUIT").starts_with("221"));
    drop(client);
    eventually("the session is over", Duration::from_secs(10), || {
        server.metric("mailrace_smtp_sessions_active", &[]) == 0.0
    });
    let path = run(&server, &["dump"]);
    let path = Path::new(path.trim_end());
    assert_eq!(path.parent(), Some(dir.path()));
    let events = recording(path);
    let of_session: Vec<_> = events
        .iter()
        .filter(|event| event["event"] != "written" && event["event"] != "synced")
        .collect();
    let names: Vec<_> = of_session.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["opened", "refused", "received", "stored", "closed"]);
    assert_eq!(of_session[0]["value"], 0x7f00_0001);
    assert_eq!((&of_session[1]["code"], &of_session[2]["value"]), (&503.into(), &23.into()));
    let octets = fs::read(path).unwrap();
    assert!(!octets.windows(6).any(|octets| octets == b"y.test"));
    // A text for people, of one shard.
    let shown = |shard: &str| {
        let mut command = Command::new(MAILRACE);
        let output = command.args(["flight", "--shard", shard]).arg(path).output().unwrap();
        String::from_utf8(succeeded("flight", output).stdout).unwrap()
    };
    let both = [shown("0"), shown("1")].concat();
    assert!(both.contains(" opened    session="), "{both}");
    assert!(both.contains("closed ") && both.contains(" reason=quit micros="), "{both}");
    // An abort leaves one by itself.
    send(&server, 1, 500);
    signal(&server.child, libc::SIGABRT);
    assert_eq!(server.ended(Duration::from_secs(20)), None);
    let mut files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let crash = files.find(|path| path.to_str().unwrap().ends_with("-crash.bin")).unwrap();
    assert!(recording(&crash).len() > events.len());
    // It is in nobody's way.
    let server = Server::start_with(dir.path(), &["server.shards=2", "log.segment_size=1MiB"]);
    send(&server, 1, 500);
    assert!(!segments(dir.path()).is_empty());
    // What is none.
    let none = dir.path().join("none");
    fs::write(&none, "hello").unwrap();
    let output = Command::new(MAILRACE).arg("flight").arg(&none).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("not a flight recording"), "{told}");
}

#[test]
fn top_says_who_sends_the_most() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Launch::new(dir.path()).set("server.shards=2").set("log.segment_size=1MiB").start();
    for (domain, mails) in [("big.test", 12), ("Small.test", 3)] {
        for at in 0..mails {
            let mut client = Client::connect(server.smtp);
            client.ehlo();
            for line in
                [format!("MAIL FROM:<a{at}@{domain}>"), "RCPT TO:<b@server.test>".to_owned()]
            {
                assert!(client.say(&line).starts_with("250"), "{line}");
            }
            client.send(b"BDAT 2 LAST\r\n\r\n");
            id_of(&client.reply());
        }
    }
    let hits = |by: &str| -> Value {
        serde_json::from_str(&run(&server, &["top", "--by", by, "--json"])).unwrap()
    };
    let senders = hits("sender-domain");
    assert_eq!(
        senders["hits"],
        serde_json::json!([
            { "key": "big.test", "count": 12, "error": 0 },
            { "key": "small.test", "count": 3, "error": 0 },
        ])
    );
    assert_eq!(hits("rcpt-domain")["hits"][0]["key"], "server.test");
    assert_eq!(
        (&hits("client")["hits"][0]["count"], &hits("client")["total"]),
        (&15.into(), &15.into())
    );
    assert_eq!(hits("reply")["hits"][0]["key"], "250");
    let table = run(&server, &["top", "--by", "sender-domain"]);
    assert!(table.contains("big.test          12  80.0 %        12\n"), "{table}");
    assert_eq!(server.page("/v1/hitters?by=name").0, 400);
    // No series has such a label.
    assert!(!server.page("/metrics").1.contains("big.test"));
}
