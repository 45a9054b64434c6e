//! What is counted of files that are read again when they change, of certificates and their names.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use super::{Moves, Scrape, moved};

use crate::support::{
    eventually,
    machine::has,
    servers::{certificates::Authority, secure, secure::Case},
};

pub const MOVES: Moves = &[
    ("config_files_unusable", "kind", &["certificates", "users", "recipients"]),
    ("tls_certificate_expiry_timestamp_seconds", "", &[]),
    ("tls_malformed_names_total", "", &[]),
];

#[test]
fn files_that_change_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let authority = Authority::new();
    authority.issue(dir.path(), "server");
    super::sessions::user_add(&path("users"));
    fs::write(path("recipients"), "one@x.test\n").unwrap();
    let server = secure::launch(dir.path(), "server", "server")
        .set("listener.0.tls_mode=starttls")
        .set("listener.0.auth.mechanisms=PLAIN")
        .set(&format!("listener.0.auth.users_file={}", path("users")))
        .set(&format!("listener.0.accept.recipients_file={}", path("recipients")))
        .start();
    let before = Scrape::of(&server);
    fs::write(path("server.key"), "half of it").unwrap();
    fs::write(path("users"), "nonsense\n").unwrap();
    fs::write(path("recipients"), "no mailbox\n").unwrap();
    moved(&server, &before, &MOVES[..1]);
    for kind in MOVES[0].2 {
        let kind = format!("kind=\"{kind}\"");
        assert_eq!(server.metric("mailrace_config_files_unusable", &[&kind]), 1.0, "{kind}");
    }
    // A later one: its last second is another.
    eventually("a second passes", super::WAIT, || {
        authority.issue(dir.path(), "server");
        super::standing(&before, &Scrape::of(&server), &MOVES[1..2]).is_empty()
    });
    super::sessions::user_add(&path("other"));
    fs::rename(path("other"), path("users")).unwrap();
    fs::write(path("recipients"), "two@x.test\n").unwrap();
    eventually("all is usable", super::WAIT, || {
        server.metric("mailrace_config_files_unusable", &[]) == 0.0
    });
}

/// A client that asks for `mx:25`, as some do.
#[test]
fn names_that_are_none_are_counted() {
    if !has("openssl") {
        return;
    }
    let case = Case::new("implicit");
    let before = Scrape::of(&case.server);
    let mut client = Command::new("openssl")
        .args(["s_client", "-servername", "mx:25", "-crlf", "-ign_eof"])
        .args(["-connect", &format!("localhost:{}", case.port())])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    client.stdin.take().expect("piped").write_all(b"QUIT\n").unwrap();
    client.wait().unwrap();
    moved(&case.server, &before, &MOVES[2..]);
}
