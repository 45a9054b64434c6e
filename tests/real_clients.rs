//! Foreign clients deliver to the real program; each message is read back from the log.

// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mailrace");

/// A running server on ports of the system's choice.
struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--set", "listener.0.listen=127.0.0.1:0"])
            .args(["--set", "server.admin.listen=127.0.0.1:0", "--set", "server.shards=1"])
            .args(["--set", &format!("log.dir={}", dir.path().display())])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The banner: `  smtp    127.0.0.1:2525   ...`
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next().filter(|word| *word == "smtp")?;
            words.next()?.rsplit_once(':')?.1.parse().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        let port = port.expect("the banner names the SMTP address");
        Server { child, port, dir }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The message with this id, byte for byte.
    fn message(&self, id: &str) -> Vec<u8> {
        let dir = self.dir.path();
        let output = Command::new(PROGRAM).args(["log", "get", id, "--dir"]).arg(dir).output();
        succeeded("mailrace log get", output.unwrap()).stdout
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn succeeded(what: &str, output: Output) -> Output {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {} {text}", output.status);
    output
}

/// The id in `250 2.0.0 Ok: queued as <id>`.
#[track_caller]
fn queued_id(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let (_, rest) = text.split_once("queued as ").unwrap_or_else(|| panic!("no id in {text}"));
    rest.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '-').collect()
}

#[track_caller]
fn contains(message: &[u8], text: &str) {
    let message = String::from_utf8_lossy(message);
    assert!(message.contains(text), "{text:?} is missing in {message:?}");
}

#[test]
fn curl() {
    let server = Server::start();
    let mut child = Command::new("curl")
        .args(["-sv", &format!("smtp://{}", server.address()), "--mail-from", "a@example.test"])
        .args(["--mail-rcpt", "b@example.test", "-T", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Subject: curl\r\n\r\n.dot\r\n").unwrap();
    let output = succeeded("curl", child.wait_with_output().unwrap());
    contains(&server.message(&queued_id(&output)), "Subject: curl\r\n\r\n.dot\r\n");
}

#[test]
fn swaks() {
    let server = Server::start();
    let output = Command::new("swaks")
        .args(["--server", &server.address(), "--from", "a@example.test"])
        .args(["--to", "b@example.test", "--header", "Subject: swaks"])
        .output();
    let output = succeeded("swaks", output.unwrap());
    contains(&server.message(&queued_id(&output)), "Subject: swaks\r\n");
}

#[test]
fn python_smtplib() {
    let server = Server::start();
    let script = "import smtplib, sys
s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))
s.ehlo()
s.mail('a@example.test')
s.rcpt('b@example.test')
print(s.data('Subject: smtplib\\r\\n\\r\\n.dot\\r\\n')[1].decode())
s.quit()";
    let output = Command::new("python3").args(["-c", script, &server.port.to_string()]).output();
    let output = succeeded("smtplib", output.unwrap());
    contains(&server.message(&queued_id(&output)), "Subject: smtplib\r\n\r\n.dot\r\n");
}

#[test]
fn smtp_source() {
    let server = Server::start();
    let output = Command::new("smtp-source")
        .args(["-s", "5", "-m", "100", "-l", "4096", "-f", "a@example.test"])
        .args(["-t", "b@example.test", &server.address()])
        .output();
    succeeded("smtp-source", output.unwrap());
    let dir = server.dir.path();
    let verified = Command::new(PROGRAM).args(["log", "verify", "--dir"]).arg(dir).output();
    let verified = succeeded("mailrace log verify", verified.unwrap());
    assert_eq!(String::from_utf8_lossy(&verified.stdout), "100 records verified\n");
}
