//! Redelivery by recipient: a real server, Dovecot over LMTP, and a webhook.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    Launch, MAILRACE, Server, eventually, id_of, machine,
    servers::dovecot::{self, Dovecot},
    succeeded,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Writes each body on a line of a file; the port comes first.
const RECEIVER: &str = r#"
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
out = open(sys.argv[1], 'wb', buffering=0)
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass
    def do_OPTIONS(self): self.answer()
    def do_POST(self):
        out.write(self.rfile.read(int(self.headers['Content-Length'])) + b'\n')
        self.answer()
    def answer(self):
        self.send_response(204)
        self.end_headers()
server = HTTPServer(('127.0.0.1', 0), Handler)
out.write(b'%d\n' % server.server_address[1])
server.serve_forever()
"#;

struct Hook {
    _child: machine::OwnedChild,
    file: PathBuf,
}

impl Hook {
    fn start(dir: &Path) -> Self {
        let file = dir.join("hook");
        let mut command = Command::new("python3");
        command.args(["-c", RECEIVER]).arg(&file).stdin(Stdio::null());
        // SAFETY: the call is one system call.
        unsafe { command.pre_exec(machine::die_with_parent) };
        let hook = Self { _child: machine::OwnedChild(command.spawn().unwrap()), file };
        eventually("the receiver listens", PATIENCE, || !hook.lines().is_empty());
        hook
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }

    fn port(&self) -> String {
        self.lines().remove(0)
    }

    fn events(&self) -> Vec<Value> {
        self.lines().iter().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn send(server: &Server, rcpt: &[&str]) -> String {
    let mut client = server.client();
    client.ehlo();
    assert!(client.say("MAIL FROM:<a@s.test>").starts_with("250"));
    for rcpt in rcpt {
        assert!(client.say(&format!("RCPT TO:<{rcpt}>")).starts_with("250"));
    }
    client.send(b"BDAT 14 LAST\r\nS: x\r\n\r\nbody\r\n");
    id_of(&client.reply())
}

/// A line of JSON for each shard, or group.
fn group(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(MAILRACE);
    command.arg("group").args(arguments).arg("--json").arg("--dir").arg(dir);
    let done = succeeded("mailrace group", command.output().unwrap());
    let text = String::from_utf8(done.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Sum of a number over the lines.
fn sum(lines: &[Value], field: &str) -> u64 {
    lines.iter().map(|line| line[field].as_u64().unwrap()).sum()
}

fn committed(dir: &Path, name: &str) -> Vec<Value> {
    group(dir, &["describe", name]).iter().map(|shard| shard["committed"].clone()).collect()
}

#[test]
fn a_group_is_served_again_by_recipient() {
    if !dovecot::available() || !machine::has("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (dovecot, hook) = (Dovecot::start(None), Hook::start(dir.path()));
    let data = dir.path().join("data");
    let server = Launch::new(&data)
        .set("server.shards=2")
        .set("export.0.name=boxes")
        .set("export.0.type=lmtp")
        .set(&format!("export.0.server={}", dovecot.lmtp))
        .set("export.1.name=hook")
        .set("export.1.type=webhook")
        .set(&format!("export.1.url=http://127.0.0.1:{}/", hook.port()))
        .start();
    for rcpt in
        [&["alice@d.test", "bob@d.test"][..], &["bob@d.test"], &["carol@d.test", "alice@d.test"]]
    {
        send(&server, rcpt);
    }
    let counts = || ["alice", "bob", "carol"].map(|user| dovecot.mails_count(user));
    let settled = |name: &str| {
        let lines = group(&data, &["ls"]);
        let line = lines.iter().find(|line| line["group"] == name).unwrap();
        line["lag"] == 0 && line["dead"] == 0
    };
    eventually("all arrive", PATIENCE, || settled("boxes") && settled("hook"));
    assert_eq!((counts(), hook.events().len()), ([2, 2, 1], 3));
    let before = committed(&data, "boxes");

    // A look changes nothing.
    let look = group(&data, &["replay", "boxes", "--rcpt", "alice@D.test", "--dry-run"]);
    assert_eq!(sum(&look, "redelivered"), 2);
    assert_eq!(sum(&group(&data, &["ls"]), "dead"), 0);
    // To her alone, though her mails have other recipients.
    let done = group(&data, &["replay", "boxes", "--rcpt", "alice@D.test"]);
    assert_eq!(sum(&done, "redelivered"), 2);
    eventually("hers arrive again", PATIENCE, || counts()[0] == 4 && settled("boxes"));
    assert_eq!(counts(), [4, 2, 1]);
    assert_eq!(committed(&data, "boxes"), before, "the offset stays");
    assert_eq!(hook.events().len(), 3, "another group");

    // Who has no transaction gets the whole record, marked.
    let none = group(&data, &["replay", "hook", "--rcpt", "*@other.test"]);
    assert_eq!(sum(&none, "redelivered"), 0);
    let done = group(&data, &["replay", "hook", "--rcpt", "carol@*"]);
    assert_eq!(sum(&done, "redelivered"), 1);
    eventually("it comes again", PATIENCE, || hook.events().len() == 4 && settled("hook"));
    let again = hook.events().remove(3);
    assert_eq!(again["mailracereplay"], true);
    assert_eq!(
        again["data"]["envelope"]["rcpt_to"],
        serde_json::json!(["carol@d.test", "alice@d.test"])
    );

    // What was asked for survives the server, and an exporter that is not there.
    assert_eq!(server.metric("mailrace_export_dead_letters", &["exporter=\"boxes\""]), 0.0);
    assert_eq!(server.stop(), Some(0));
    let done = group(&data, &["replay", "boxes", "--rcpt", "bob@d.test", "-o", "start:end"]);
    assert_eq!(sum(&done, "redelivered"), 2);
    let again = Launch::new(&data)
        .set("server.shards=2")
        .set("export.0.name=boxes")
        .set("export.0.type=lmtp")
        .set(&format!("export.0.server={}", dovecot.lmtp))
        .start();
    eventually("his arrive again", PATIENCE, || counts()[1] == 4 && settled("boxes"));
    assert_eq!(counts(), [4, 4, 1]);
    send(&again, &["carol@d.test"]);
    eventually("new mail arrives", PATIENCE, || counts() == [4, 4, 2]);
    for bad in [
        &["replay", "boxes", "--rcpt", "bob@"][..],
        &["replay", "boxes", "--rcpt", "b@c", "--shard", "9"],
    ] {
        let mut command = Command::new(MAILRACE);
        let done = command.arg("group").args(bad).arg("--dir").arg(&data).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
