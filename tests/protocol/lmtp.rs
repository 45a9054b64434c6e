//! LMTP (RFC 2033) over TCP and unix sockets: foreign clients, our loader, and listeners that take no
//! mail (RFC 7504).

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use crate::support::{
    self, Launch, MAILRACE, Server, body, eventually, log_envelope, machine::has, signal, succeeded,
};

/// A server that speaks LMTP at an address and at a unix socket.
struct Case {
    server: Server,
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lmtp");
        let listen = format!("listener.1.listen=127.0.0.1:0,unix:{}", socket.display());
        let data = dir.path().join("data");
        let launch = ["server.shards=2", "log.segment_size=16MiB", "listener.1.name=lmtp"]
            .into_iter()
            .chain(["listener.1.protocol=lmtp", &listen])
            .chain(settings.iter().copied())
            .fold(Launch::new(&data), Launch::set);
        let server = launch.start();
        assert_eq!(server.lmtp.len(), 2, "{}", server.greeting);
        Self { server, dir }
    }

    fn address(&self) -> &str {
        &self.server.lmtp[0]
    }

    fn port(&self) -> &str {
        self.address().rsplit(':').next().unwrap()
    }

    fn socket(&self) -> PathBuf {
        let path = self.server.lmtp[1].strip_prefix("unix:").expect("a unix socket");
        PathBuf::from(path)
    }

    fn file(&self, text: &[u8]) -> String {
        let path = self.dir.path().join("message");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Of all records: forward-paths and mail data, in the order of arrival.
    fn records(&self) -> Vec<(Vec<String>, Vec<u8>)> {
        let cat = support::log_command(&self.server.dir, &["cat", "--json"]);
        let lines = String::from_utf8(cat).unwrap();
        let one = |line: &str| {
            let envelope: serde_json::Value = serde_json::from_str(line).unwrap();
            let id = envelope["id"].as_str().unwrap();
            let rcpts = log_envelope(&self.server.dir, id)["rcpt_to"].clone();
            (serde_json::from_value(rcpts).unwrap(), self.server.get(id))
        };
        lines.lines().map(one).collect()
    }
}

const RCPTS: [&str; 3] = ["b@example.test", "c@example.test", "b@example.test"];

fn python(case: &Case, place: &str, message: &[u8]) -> Output {
    let script = "import smtplib, sys
place = sys.argv[1]
s = smtplib.LMTP(place) if place[0] == '/' else smtplib.LMTP('127.0.0.1', int(place))
assert s.ehlo()[0] == 250
for name in 'pipelining', 'enhancedstatuscodes', '8bitmime', 'chunking', 'limits':
    assert s.has_extn(name), name
s.mail('a@example.test')
codes = [s.rcpt(rcpt)[0] for rcpt in sys.argv[3:]]
print(codes)
first = s.data(open(sys.argv[2], 'rb').read())
print(first[0], *[s.getreply()[0] for _ in range(codes.count(250) - 1)])
assert s.noop()[0] == 250, 'no reply is over'
s.quit()";
    let output = Command::new("python3")
        .args(["-c", script, place, &case.file(message)])
        // One that is refused stands between: its reply is missed by nobody.
        .args([RCPTS[0], "x@-example.test", RCPTS[1], RCPTS[2]])
        .output();
    succeeded("python3", output.unwrap())
}

#[test]
fn python_smtplib_over_tcp_and_a_unix_socket() {
    if !has("python3") {
        return;
    }
    let case = Case::new();
    let socket = case.socket().display().to_string();
    for (number, place) in [case.port(), &socket].into_iter().enumerate() {
        let message = body(number as u64, 3_000);
        let output = python(&case, place, &message);
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(told, "[250, 501, 250, 250]\n250 250 250\n");
        let records = case.records();
        assert_eq!(records.len(), number + 1, "a message is one record");
        assert!(records.contains(&(RCPTS.map(String::from).to_vec(), message)));
    }
    let cat =
        String::from_utf8(support::log_command(&case.server.dir, &["cat", "--json"])).unwrap();
    // A peer at a unix socket has no address: it stands as this machine without a port.
    assert_eq!(cat.matches("\"127.0.0.1:0\"").count(), 1, "{cat}");
}

#[test]
fn swaks_over_tcp_and_a_unix_socket() {
    if !has("swaks") {
        return;
    }
    let case = Case::new();
    let message = "Subject: swaks\n\n.\n..\nbody\n";
    let socket = case.socket().display().to_string();
    let places = [["--server", case.address()], ["--socket", &socket]];
    for place in places {
        let output = Command::new("swaks")
            .args(place)
            .args(["--protocol", "LMTP", "--from", "a@example.test", "--to", &RCPTS.join(",")])
            .args(["--data", &format!("@{}", case.file(message.as_bytes()))])
            .output();
        let output = succeeded("swaks", output.unwrap());
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(told.matches("250 2.0.0 Ok: queued as ").count(), 3, "{told}");
    }
    let records = case.records();
    assert_eq!(records.len(), 2);
    for (rcpts, data) in records {
        assert_eq!(rcpts, RCPTS);
        let text = String::from_utf8(data).unwrap();
        assert!(text.starts_with(&message.replace('\n', "\r\n")), "{text:?}");
    }
}

#[test]
fn the_loader_over_tcp_and_a_unix_socket() {
    let case = Case::new();
    let socket = case.socket().display().to_string();
    let data = case.server.dir.display().to_string();
    for (style, target) in [
        (&["--pipelining", "off"][..], format!("lmtp://{}", case.address())),
        (&["--chunking"], format!("lmtp+unix:{socket}")),
        (&[], format!("lmtp+unix:{socket}")),
    ] {
        let output = Command::new(MAILRACE)
            .args([
                "bench",
                &target,
                "-n",
                "300",
                "-c",
                "8",
                "--recipients",
                "1..5",
                "--size",
                "2k",
            ])
            .args(["--no-tui", "--verify", "--log-dir", &data])
            .args(style)
            .output();
        let output = output.unwrap();
        // 4: this machine was too busy for figures worth anything, which is not the question.
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 4)), "{errors}");
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains("300"), "{told}");
    }
    assert_eq!(support::verified(&case.server.dir), 900);
}

#[test]
fn the_socket_is_for_its_group_and_goes_with_the_server() {
    let mut case = Case::new();
    let path = case.socket();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // Whoever comes second is told, and leaves the first alone.
    let second = Launch::new(&case.dir.path().join("second"))
        .set("listener.1.name=lmtp")
        .set("listener.1.protocol=lmtp")
        .set(&format!("listener.1.listen=unix:{}", path.display()))
        .try_start();
    let failure = second.err().expect("the socket is taken");
    assert!(failure.errors.contains("another program listens there"), "{failure}");
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    signal(&case.server.child, libc::SIGTERM);
    assert_eq!(case.server.ended(Duration::from_secs(20)), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_socket_that_a_crash_left_is_taken_over() {
    let case = Case::new();
    let (path, dir) = (case.socket(), case.dir);
    case.server.kill();
    assert!(path.exists());
    let server = Launch::new(&dir.path().join("data"))
        .set("listener.1.name=lmtp")
        .set("listener.1.protocol=lmtp")
        .set(&format!("listener.1.listen=unix:{}", path.display()))
        .start();
    eventually("it listens", Duration::from_secs(10), || {
        std::os::unix::net::UnixStream::connect(&path).is_ok()
    });
    drop(server);
}

#[test]
fn a_listener_that_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=1", "listener.0.protocol=refuse"]);
    assert!(server.greeting.contains("refuses mail (521)"), "{}", server.greeting);
    let mut client = support::Client::open(server.smtp);
    let greeting = client.reply();
    assert!(greeting.starts_with("521 ") && greeting.ends_with(" does not accept mail\r\n"));
    assert_eq!(client.say("EHLO a"), "503 5.5.1 No mail is accepted here\r\n");
    assert_eq!(client.say("QUIT"), "221 2.0.0 Bye\r\n");
    assert!(client.rest().is_empty());
}
