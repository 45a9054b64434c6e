//! Foreign clients deliver to the real program; each message is read back from the log, equal
//! octet by octet, with its envelope.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use crate::support::{self, Server, log_envelope, machine::has, succeeded};

/// A complete message with all that trips clients: lines of dots, white space at line ends, a
/// folded header, a long line, octets beyond ASCII, empty lines at the end.
fn message(client: &str) -> Vec<u8> {
    let long = "x".repeat(900);
    format!(
        "From: A <a@example.test>\r\nTo: B <b@example.test>, C <c@example.test>\r\n\
         Date: Mon, 02 Mar 2026 10:00:00 +0100\r\nMessage-ID: <{client}@example.test>\r\n\
         Subject: {client}\r\n folded\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         .\r\n..\r\n.dot\r\n...\r\n \r\ntrailing  \r\n\ttab\t\r\nQUIT\r\nRSET\r\n\
         Grüße, 日本語, 😀\r\n{long}\r\nFrom the start of a line\r\n-- \r\n.\r\nend\r\n\r\n"
    )
    .into_bytes()
}

/// A server, and a message in a file with the line ends a client wants.
struct Case {
    server: Server,
    dir: tempfile::TempDir,
    message: Vec<u8>,
}

impl Case {
    fn new(client: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("data"));
        Self { server, dir, message: message(client) }
    }

    fn file(&self, line_end: &str) -> PathBuf {
        let path = self.dir.path().join("message");
        let text = String::from_utf8(self.message.clone()).unwrap();
        std::fs::write(&path, text.replace("\r\n", line_end)).unwrap();
        path
    }

    /// For clients that put CRLF behind each line, and behind what follows the last LF too.
    fn file_of_joined_lines(&self) -> PathBuf {
        let path = self.file("\n");
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, text.strip_suffix(b"\n").unwrap()).unwrap();
        path
    }

    /// The one record there is: equal to the message, with the envelope that was given.
    #[track_caller]
    fn check(&self, output: &Output) {
        let id = queued_id(output);
        let stored = self.server.get(&id);
        assert!(
            stored == self.message,
            "sent {:?}\nread {:?}",
            String::from_utf8_lossy(&self.message),
            String::from_utf8_lossy(&stored)
        );
        self.check_envelope(&id);
        assert_eq!(support::verified(&self.server.dir), 1);
    }

    #[track_caller]
    fn check_envelope(&self, id: &str) {
        let envelope = log_envelope(&self.server.dir, id);
        assert_eq!(envelope["id"], id);
        assert_eq!(envelope["mail_from"], "a@example.test");
        let rcpts = serde_json::json!(["b@example.test", "c@example.test"]);
        assert_eq!(envelope["rcpt_to"], rcpts);
        assert_eq!(envelope["size"], self.message.len());
        assert_eq!(envelope["listener"], "smtp");
        assert!(envelope["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{envelope}");
        assert_ne!(envelope["helo"], "");
    }
}

/// The id in `250 2.0.0 Ok: queued as <id>`.
#[track_caller]
fn queued_id(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let (_, rest) = text.split_once("queued as ").unwrap_or_else(|| panic!("no id in {text}"));
    rest.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '-').collect()
}

#[test]
fn curl() {
    if !has("curl") {
        return;
    }
    let case = Case::new("curl");
    let output = Command::new("curl")
        .args(["-sv", &format!("smtp://{}", case.server.smtp), "--mail-from", "a@example.test"])
        .args(["--mail-rcpt", "b@example.test", "--mail-rcpt", "c@example.test", "-T"])
        .arg(case.file("\r\n"))
        .output();
    case.check(&succeeded("curl", output.unwrap()));
}

#[test]
fn swaks() {
    if !has("swaks") {
        return;
    }
    let case = Case::new("swaks");
    let output = Command::new("swaks")
        .args(["--server", &case.server.smtp.to_string(), "--from", "a@example.test"])
        .args(["--to", "b@example.test,c@example.test", "--data"])
        .arg(format!("@{}", case.file_of_joined_lines().display()))
        .output();
    case.check(&succeeded("swaks", output.unwrap()));
}

#[test]
fn msmtp() {
    if !has("msmtp") {
        return;
    }
    let case = Case::new("msmtp");
    let log = case.dir.path().join("log");
    let port = case.server.smtp.port().to_string();
    // The message has From and Date: msmtp adds no field of its own.
    let mut child = Command::new("msmtp")
        .args(["-C", "/dev/null", "--host=127.0.0.1", &format!("--port={port}")])
        .args(["--tls=off", "--auth=off", "--from=a@example.test"])
        .arg(format!("--logfile={}", log.display()))
        .args(["--", "b@example.test", "c@example.test"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = std::fs::read(case.file("\n")).unwrap();
    child.stdin.take().unwrap().write_all(&text).unwrap();
    let mut output = succeeded("msmtp", child.wait_with_output().unwrap());
    output.stdout = std::fs::read(log).unwrap();
    case.check(&output);
}

#[test]
fn python_smtplib() {
    python(
        "smtplib",
        "import smtplib, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.ehlo()
s.mail('a@example.test', ['BODY=8BITMIME'])
s.rcpt('b@example.test')
s.rcpt('c@example.test')
print(s.data(open(sys.argv[2], 'rb').read())[1].decode())
s.quit()",
    );
}

/// A client in Python that has been greeted.
const GREETED: &str = "import re, socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
f = s.makefile('rb')
def reply():
    line = f.readline()
    while line[3:4] == b'-': line = f.readline()
    return line
assert reply().startswith(b'220 ')
";

/// RFC 2920: the whole envelope and DATA in one write, then content, end and QUIT in another.
#[test]
fn a_pipelining_client() {
    python(
        "pipelining",
        &[
            GREETED,
            "s.sendall(b'EHLO pipelining.test\\r\\n')
assert reply().startswith(b'250 ')
s.sendall(b'MAIL FROM:<a@example.test>\\r\\nRCPT TO:<b@example.test>\\r\\n'
          b'RCPT TO:<c@example.test>\\r\\nDATA\\r\\n')
for code in b'250', b'250', b'250', b'354': assert reply().startswith(code)
body = open(sys.argv[2], 'rb').read()
s.sendall(re.sub(rb'(?m)^\\.', b'..', body) + b'.\\r\\nQUIT\\r\\n')
print(reply().decode())
assert reply().startswith(b'221 ')
assert f.read() == b''",
        ]
        .concat(),
    );
}

/// RFC 3030: chunks of odd sizes, the message's lines cut anywhere.
#[test]
fn a_bdat_client() {
    python(
        "bdat",
        &[
            GREETED,
            "s.sendall(b'EHLO bdat.test\\r\\n')
assert reply().startswith(b'250 ')
s.sendall(b'MAIL FROM:<a@example.test> BODY=8BITMIME\\r\\nRCPT TO:<b@example.test>\\r\\n'
          b'RCPT TO:<c@example.test>\\r\\n')
for _ in range(3): assert reply().startswith(b'250')
body = open(sys.argv[2], 'rb').read()
while body:
    chunk, body = body[:397], body[397:]
    s.sendall(b'BDAT %d%s\\r\\n' % (len(chunk), b'' if body else b' LAST') + chunk)
    last = reply()
    assert last.startswith(b'250'), last
print(last.decode())
s.sendall(b'QUIT\\r\\n')
assert reply().startswith(b'221 ')",
        ]
        .concat(),
    );
}

#[track_caller]
fn python(client: &str, script: &str) {
    if !has("python3") {
        return;
    }
    let case = Case::new(client);
    let output = Command::new("python3")
        .args(["-c", script, &case.server.smtp.port().to_string()])
        .arg(case.file("\r\n"))
        .output();
    case.check(&succeeded("python3", output.unwrap()));
}

/// Every one of a hundred messages from five sessions is there and holds the file's octets; one
/// forward-path each, as smtp-source has it.
#[test]
fn smtp_source_with_a_message_file() {
    if !has("smtp-source") {
        return;
    }
    let case = Case::new("smtp-source");
    let file = case.file_of_joined_lines();
    let output = Command::new("smtp-source")
        .args(["-s", "5", "-m", "100", "-f", "a@example.test", "-t", "b@example.test", "-F"])
        .arg(file)
        .arg(case.server.smtp.to_string())
        .output();
    succeeded("smtp-source", output.unwrap());
    assert_eq!(support::verified(&case.server.dir), 100);
    let cat =
        String::from_utf8(support::log_command(&case.server.dir, &["cat", "--json"])).unwrap();
    for line in cat.lines() {
        let envelope: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(envelope["mail_from"], "a@example.test");
        assert_eq!(envelope["rcpt_to"], serde_json::json!(["b@example.test"]));
        assert!(case.server.get(envelope["id"].as_str().unwrap()) == case.message, "{line}");
    }
    assert_eq!(cat.lines().count(), 100);
}

/// Its own messages: a header of smtp-source's making, then numbered lines of 78 octets to the
/// length asked for.
#[test]
fn smtp_source_plain() {
    if !has("smtp-source") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let output = Command::new("smtp-source")
        .args(["-s", "5", "-m", "100", "-l", "4096", "-f", "a@example.test"])
        .args(["-t", "b@example.test", &server.smtp.to_string()])
        .output();
    succeeded("smtp-source", output.unwrap());
    let mut expected = vec![b'X'; 4_096];
    for (at, line) in expected.chunks_exact_mut(80).enumerate() {
        line[0] = b'0' + (at as u8 + 1) % 10;
        line[78..].copy_from_slice(b"\r\n");
    }
    expected.extend_from_slice(b"\r\n");
    let cat = String::from_utf8(support::log_command(dir.path(), &["cat", "--json"])).unwrap();
    for line in cat.lines() {
        let envelope: serde_json::Value = serde_json::from_str(line).unwrap();
        let stored = server.get(envelope["id"].as_str().unwrap());
        assert_eq!(envelope["size"], stored.len());
        let (header, content) = stored.split_at(stored.len() - expected.len());
        assert!(content == expected, "{}", String::from_utf8_lossy(&stored));
        let header = std::str::from_utf8(header).unwrap();
        let fields: Vec<_> = header.split("\r\n").collect();
        let [from, to, date, id, "", ""] = fields[..] else { panic!("{header:?}") };
        assert_eq!((from, to), ("From: <a@example.test>", "To: <b@example.test>"));
        assert!(date.starts_with("Date: ") && id.starts_with("Message-Id: <"), "{header}");
    }
    assert_eq!(cat.lines().count(), 100);
    assert_eq!(support::verified(dir.path()), 100);
}
