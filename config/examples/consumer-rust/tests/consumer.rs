//! The example against a log: every message once, also of a large one, and on from where it was.

#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};

use mailrace_log::{DataDir, Facts, Mail, Writer};

fn append(dir: &Path, shard: u16, messages: &[(&str, &[u8])]) {
    let data = DataDir::open(dir).unwrap();
    let mut writer = Writer::open(&data, shard, 4 << 20).unwrap();
    for (mail_from, mail_data) in messages {
        let mail = Mail {
            mail_from,
            rcpts: "a@x.test\nb@x.test",
            helo: "client.test",
            client: ([192, 0, 2, 1], 25).into(),
            received_at: 0,
            listener: "mx",
            esmtp: true,
            smtputf8: false,
            body_type: 0,
            flags: 0,
            size_declared: None,
            facts: Facts::default(),
        };
        writer.append(&mail, mail_data).unwrap();
    }
    writer.commit().unwrap();
}

/// What it prints, without the ids.
fn consume(dir: &Path) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_mailrace-example-consumer"))
        .args([dir.as_os_str(), "billing".as_ref()])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn every_message_once_and_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let large = vec![b'x'; 300_000];
    append(dir.path(), 0, &[("one@y.test", b"Subject: 1\r\n\r\n"), ("two@y.test", &large)]);
    append(dir.path(), 1, &[("", b"Subject: 3\r\n\r\n")]);
    let first = [
        "14 <one@y.test> a@x.test,b@x.test",
        "300000 <two@y.test> a@x.test,b@x.test",
        "14 <> a@x.test,b@x.test",
    ];
    assert_eq!(consume(dir.path()), first);
    assert_eq!(consume(dir.path()), [""; 0]);
    append(dir.path(), 0, &[("four@y.test", b"four")]);
    assert_eq!(consume(dir.path()), ["4 <four@y.test> a@x.test,b@x.test"]);
}

#[test]
fn what_is_no_data_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_mailrace-example-consumer")).arg(dir.path()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(&dir.path().display().to_string()), "{stderr}");
}
