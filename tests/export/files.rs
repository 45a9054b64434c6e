//! Records as files: what foreign programs read back, what two runs leave, and what a killed one
//! leaves.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use mailrace::{
    export::{FileMode, Files, FilesLayout, FilesOptions, Outcome, Record, Sink, testing},
    log::{Offset, RecordId},
};
use parquet::{
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::{ListAccessor, RowAccessor},
};
use serde_json::Value;

use crate::support::{
    self, MAILRACE, Server, bulk, id_of,
    machine::{has, skip},
    succeeded,
};

const LAYOUTS: [(FilesLayout, &str); 5] = [
    (FilesLayout::Eml, "eml"),
    (FilesLayout::Maildir, "maildir"),
    (FilesLayout::Mbox, "mbox"),
    (FilesLayout::Jsonl, "jsonl"),
    (FilesLayout::Parquet, "parquet"),
];

/// Mails that trip mailboxes.
fn mails() -> Vec<Vec<u8>> {
    [
        &b"Subject: plain\r\nMessage-ID: <1@x>\r\n\r\nhi\r\n"[..],
        b"From: a\r\n\r\nFrom the start\r\n>From quoted\r\n>>From twice\r\n> From not\r\nFromage\r\n",
        b"",
        b"\r\n",
        b"Subject: no end",
        b"From somebody Mon Mar  2 10:00:00 2026\r\nA: b\r\n\r\n",
        b"Subject: blank lines\r\n\r\n\r\n\r\nFrom x\r\n\r\n",
        b"Subject: \xff\x00\r\n\r\n\x00\r\xe9\r\r\n",
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n.\r\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

fn records() -> Vec<Record> {
    let of = |(number, data): (usize, Vec<u8>)| Record {
        id: RecordId { node: [7; 6], shard: 1, offset: Offset::new(100 + number as u64) },
        received_at: 1_795_370_645_123_456 + number as i64,
        listener: "mx".into(),
        mail_from: ["alice@x.test", "", "\"a b\"@x.test"][number % 3].into(),
        rcpt_to: (0..=number % 3).map(|n| format!("r{n}@y.test")).collect(),
        helo: "client.test".into(),
        client: "192.0.2.1:25".parse().unwrap(),
        body_type: 0,
        data: data.into(),
        ..testing::record(1, 0)
    };
    mails().into_iter().enumerate().map(of).collect()
}

fn files(dir: &Path, layout: FilesLayout) -> Files {
    let (dir, mode) = (dir.to_owned(), FileMode::default());
    Files::new(&FilesOptions { dir, layout, mode, trace: None }, testing::document())
}

/// With trace fields, as it is unless told otherwise.
fn traced(dir: &Path, layout: FilesLayout, mode: &str) -> Files {
    let options = FilesOptions {
        dir: dir.to_owned(),
        layout,
        mode: FileMode::parse(mode).unwrap(),
        trace: Some("mx.example.org".to_owned()),
    };
    Files::new(&options, testing::document())
}

/// Trace fields of a record as `mx.example.org` writes them.
fn trace(record: &Record) -> String {
    let only = match &record.rcpt_to[..] {
        [only] => format!("\r\n\tfor <{only}>"),
        _ => String::new(),
    };
    format!(
        "Return-Path: <{}>\r\nX-Mailrace-Id: {}\r\nReceived: from client.test ([192.0.2.1])\r\n\t\
         by mx.example.org with ESMTP id {}{only};\r\n\tSun, 22 Nov 2026 18:04:05 +0000\r\n",
        record.mail_from, record.id, record.id
    )
}

/// RFC 5321 §4.4: files are a final delivery. One Return-Path, on top; those of a sender are gone.
#[test]
fn mails_in_files_carry_their_trace() {
    let forged = b"Return-Path: <forged@evil.test>\r\nSubject: x\r\nreturn-path:\r\n <b@c>\r\n\r\n\
        Return-Path: stays in the body\r\n";
    let clean = "Subject: x\r\n\r\nReturn-Path: stays in the body\r\n";
    let records: Vec<Record> = records()
        .into_iter()
        .map(|record| Record { data: forged.to_vec().into(), ..record })
        .collect();
    let whole = |record: &Record| format!("{}{clean}", trace(record));
    for again in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        for layout in [FilesLayout::Eml, FilesLayout::Maildir, FilesLayout::Mbox] {
            for _ in 0..=usize::from(again) {
                let sink = traced(dir.path(), layout, "0600");
                block_on(sink.check()).unwrap();
                block_on(sink.deliver(&records));
            }
        }
        let found = tree(dir.path());
        assert_eq!(found.len(), 2 * records.len() + 1);
        let mbox = found.iter().find(|(path, _)| path.extension().is_some_and(|e| e == "mbox"));
        let mbox = String::from_utf8(mbox.unwrap().1.clone()).unwrap();
        for record in &records {
            let eml = &found[Path::new(&format!("{}.eml", record.id))];
            assert_eq!(String::from_utf8_lossy(eml), whole(record));
            let stored = whole(record).replace("\r\n", "\n");
            let name = format!("new/{}.{}.mailrace", 1_795_370_645, record.id);
            assert_eq!(String::from_utf8_lossy(&found[Path::new(&name)]), stored);
            assert!(mbox.contains(&format!("\n{stored}\n")), "{mbox}");
        }
    }
}

/// Whatever the umask is, and whoever made the top directory: mail is for its owner, unless told.
#[test]
fn files_have_the_mode_they_are_told() {
    for (mode, file, made) in
        [("0600", 0o600, 0o700), ("0640", 0o640, 0o750), ("0666", 0o666, 0o777)]
    {
        for (layout, name) in LAYOUTS {
            let dir = tempfile::tempdir().unwrap();
            // As an operator, or systemd, makes it.
            let top = dir.path().join("top");
            fs::create_dir(&top).unwrap();
            fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
            let sink = traced(&top.join("a/b"), layout, mode);
            block_on(sink.check()).unwrap();
            let delivered = block_on(sink.deliver(&records()));
            assert!(delivered.iter().all(|outcome| *outcome == Outcome::Delivered));
            assert_eq!(mode_of(&top), 0o755, "what is there stays");
            assert_modes(&top, file, made, name);
        }
    }
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Of everything below a directory.
#[track_caller]
fn assert_modes(top: &Path, file: u32, dir: u32, what: &str) {
    let mut left: Vec<PathBuf> =
        fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut files = 0;
    while let Some(path) = left.pop() {
        if path.is_dir() {
            assert_eq!(mode_of(&path), dir, "{what}: {}", path.display());
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !path.ends_with(".mailrace-export.json") {
            assert_eq!(mode_of(&path), file, "{what}: {}", path.display());
            files += 1;
        }
    }
    assert!(files > 0, "{what}");
}

/// The machine that runs the tool is not the server that received the mail.
#[test]
fn an_export_names_the_server_and_keeps_others_out() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("data");
    let server = Server::start_with(&log, &["server.hostname=mx7.example.org"]);
    let mail = b"Return-Path: <f@x>\r\nSubject: x\r\n\r\nx\r\n";
    let id = send(&server, "a..b@x.test", "c@y.test", mail);
    drop(server);
    for (layout, name) in LAYOUTS {
        let to = dir.path().join(name);
        assert_eq!(exported(&log, &to, &["--as", name]), 1);
        assert_modes(&to, 0o600, 0o700, name);
        assert_eq!(mode_of(&to), 0o700, "{name}");
        if matches!(layout, FilesLayout::Jsonl | FilesLayout::Parquet) {
            continue;
        }
        let text = String::from_utf8(tree(&to).into_values().next().unwrap()).unwrap();
        assert!(text.contains("Return-Path: <\"a..b\"@x.test>"), "{text}");
        assert!(text.contains(&format!("by mx7.example.org with ESMTP id {id}")), "{text}");
        assert!(!text.contains("<f@x>"), "{text}");
    }
    let exact = dir.path().join("exact");
    assert_eq!(exported(&log, &exact, &["--as", "eml", "--exact", "--mode", "0640"]), 1);
    assert_eq!(tree(&exact)[Path::new(&format!("{id}.eml"))], mail);
    assert_modes(&exact, 0o640, 0o750, "exact");
    assert_eq!(mode_of(&exact), 0o750);
    let mixed = export(&log, &exact, &["--as", "eml"]).output().unwrap();
    assert_eq!(mixed.status.code(), Some(2));
    assert!(String::from_utf8(mixed.stderr).unwrap().contains("--as eml --exact"));
    let bad = export(&log, &exact, &["--as", "eml", "--mode", "0755"]).output().unwrap();
    assert_eq!(bad.status.code(), Some(2));
    // `log get` is exact, and with --received names the server likewise.
    assert_eq!(support::log_command(&log, &["get", &id]), mail);
    let received = support::log_command(&log, &["get", "--received", &id]);
    let text = String::from_utf8(received).unwrap();
    assert!(text.contains("by mx7.example.org"), "{text}");
    assert!(text.ends_with(str::from_utf8(mail).unwrap()), "{text}");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Every file below a folder with its content, but for the state of `log export`.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = support::tree(dir);
    found.retain(|path, _| !path.ends_with(".mailrace-export.json"));
    found
}

fn lf(mail: &[u8]) -> Vec<u8> {
    let mut out = mail.to_vec();
    let mut at = 0;
    while at + 1 < out.len() {
        if out[at..].starts_with(b"\r\n") {
            out.remove(at);
        }
        at += 1;
    }
    out
}

/// What Python's mailbox module reads: a mail a line, in hexadecimal, behind what the script adds.
fn python(script: &str, path: &Path) -> Vec<(String, Vec<u8>)> {
    let script = format!("import mailbox, sys\n{script}");
    let done = Command::new("python3").args(["-c", &script]).arg(path).output().unwrap();
    let text = String::from_utf8(succeeded("python3", done).stdout).unwrap();
    let line = |line: &str| {
        let (what, hex) = line.rsplit_once('\t').unwrap();
        let octet = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (what.to_owned(), (0..hex.len()).step_by(2).map(octet).collect())
    };
    text.lines().map(line).collect()
}

#[test]
fn a_sink_delivers_once_however_often_it_is_asked() {
    for (layout, name) in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let sink = files(&dir.path().join("new/er"), layout);
        block_on(sink.check()).unwrap();
        let records = records();
        let delivered = vec![Outcome::Delivered; records.len()];
        assert_eq!(block_on(sink.deliver(&records)), delivered, "{name}");
        let first = tree(dir.path());
        let count = if matches!(name, "eml" | "maildir") { records.len() } else { 1 };
        assert_eq!(first.len(), count, "{name}: {:?}", first.keys());
        assert_eq!(block_on(sink.deliver(&records)), delivered);
        assert_eq!(tree(dir.path()), first, "{name}: the same process again");
        let other = files(&dir.path().join("new/er"), layout);
        block_on(other.check()).unwrap();
        assert_eq!(block_on(other.deliver(&records)), delivered);
        assert_eq!(tree(dir.path()), first, "{name}: another process");
        assert!(block_on(sink.deliver(&[])).is_empty());
    }
}

#[test]
fn a_missing_or_forbidden_folder_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("file");
    fs::write(&place, "").unwrap();
    for (layout, _) in LAYOUTS {
        let sink = files(&place, layout);
        assert!(block_on(sink.check()).is_err());
        let outcomes = block_on(sink.deliver(&records()));
        assert_eq!(outcomes.len(), records().len());
        for outcome in outcomes {
            let Outcome::Retry(error) = outcome else { panic!("{outcome:?}") };
            assert_eq!(error.class.name(), "missing", "{error}");
        }
    }
}

#[test]
fn eml_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    let sink = files(dir.path(), FilesLayout::Eml);
    block_on(sink.deliver(&records()));
    for record in records() {
        let path = dir.path().join(format!("{}.eml", record.id));
        assert_eq!(fs::read(&path).unwrap(), record.data);
        // One that was cut short by others is made whole.
        fs::write(&path, "x").unwrap();
    }
    block_on(files(dir.path(), FilesLayout::Eml).deliver(&records()));
    let whole = tree(dir.path()).into_values().collect::<Vec<_>>();
    assert_eq!(whole, records().into_iter().map(|record| record.data).collect::<Vec<_>>());
}

#[test]
fn python_reads_the_mbox() {
    if !has("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sink = files(dir.path(), FilesLayout::Mbox);
    block_on(sink.deliver(&records()));
    let name = "070707070707-001-0000000000000064-000000000000006c.mbox";
    let script = "import re
for key, mail in mailbox.mbox(sys.argv[1], create=False).iteritems():
    octets = mailbox.mbox(sys.argv[1]).get_bytes(key)
    print(mail.get_from(), re.sub(rb'(?m)^>(>*From )', rb'\\1', octets).hex(), sep='\\t')";
    let read = python(script, &dir.path().join(name));
    assert_eq!(read.len(), records().len());
    for ((from, octets), record) in read.iter().zip(records()) {
        let sender = match record.mail_from.as_str() {
            "" => "MAILER-DAEMON".to_owned(),
            path => path.replace(' ', "_"),
        };
        assert_eq!(from, &format!("{sender} Sun Nov 22 18:04:05 2026"));
        let mut want = lf(&record.data);
        if !want.ends_with(b"\n") && !want.is_empty() {
            want.push(b'\n');
        }
        assert_eq!(octets, &want, "{}", String::from_utf8_lossy(octets));
    }
}

#[test]
fn python_reads_the_maildir_and_what_was_read_stays_read() {
    if !has("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sink = files(dir.path(), FilesLayout::Maildir);
    block_on(sink.check()).unwrap();
    block_on(sink.deliver(&records()));
    // Reads all, and marks the first as seen, as mail programs do.
    let script = "box = mailbox.Maildir(sys.argv[1], create=False)
for n, key in enumerate(sorted(box.keys())):
    print(key, box.get_bytes(key).hex(), sep='\\t')
    if n == 0:
        mail = box[key]; mail.set_subdir('cur'); mail.add_flag('S'); box[key] = mail";
    let read = python(script, dir.path());
    assert_eq!(read.len(), records().len());
    for ((key, octets), record) in read.iter().zip(records()) {
        assert!(key.contains(&record.id.to_string()), "{key}");
        assert_eq!(octets, &lf(&record.data));
    }
    assert_eq!(fs::read_dir(dir.path().join("cur")).unwrap().count(), 1);
    let before = tree(dir.path());
    block_on(files(dir.path(), FilesLayout::Maildir).deliver(&records()));
    assert_eq!(tree(dir.path()), before, "a message that was read is not delivered again");
}

#[test]
fn jsonl_and_parquet_hold_the_records() {
    let dir = tempfile::tempdir().unwrap();
    block_on(files(dir.path(), FilesLayout::Jsonl).deliver(&records()));
    block_on(files(dir.path(), FilesLayout::Parquet).deliver(&records()));
    let name = "070707070707-001-0000000000000064-000000000000006c";
    let lines = fs::read_to_string(dir.path().join(format!("{name}.jsonl"))).unwrap();
    let events: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let file = fs::File::open(dir.path().join(format!("{name}.parquet"))).unwrap();
    let table = SerializedFileReader::new(file).unwrap();
    let rows: Vec<_> = table.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!((events.len(), rows.len()), (records().len(), records().len()));
    for ((event, row), record) in events.iter().zip(&rows).zip(records()) {
        assert_eq!(event["id"], record.id.to_string());
        assert_eq!(row.get_string(0).unwrap(), &record.id.to_string());
        assert_eq!(row.get_int(1).unwrap(), 1);
        assert_eq!(row.get_long(2).unwrap(), record.id.offset.get() as i64);
        assert_eq!(row.get_timestamp_micros(3).unwrap(), record.received_at);
        assert_eq!(row.get_string(4).unwrap(), &record.listener);
        assert_eq!(row.get_string(5).unwrap(), &record.mail_from);
        let paths = row.get_list(6).unwrap();
        let paths: Vec<_> =
            (0..paths.len()).map(|n| paths.get_string(n).unwrap().clone()).collect();
        assert_eq!(paths, record.rcpt_to);
        let text = |column| row.get_string(column).ok().map(String::as_str);
        assert_eq!(text(7), event["data"]["subject"].as_str());
        assert_eq!(text(8), event["data"]["message_id"].as_str());
        assert_eq!(row.get_long(9).unwrap(), record.data.len() as i64);
        assert_eq!(row.get_bytes(10).unwrap().data(), &record.data[..]);
    }
}

#[test]
fn duckdb_reads_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let python = root.join(target).join("servers/moto/bin/python");
    if !python.exists() {
        skip("DuckDB is missing: run tests/support/servers/s3.sh");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    block_on(files(dir.path(), FilesLayout::Parquet).deliver(&records()));
    let columns = "id, shard, \"offset\", epoch_us(received_at), listener, mail_from, rcpt_to, \
        subject, size, hex(raw)";
    let table = dir.path().join("*.parquet");
    let query = format!("select {columns} from '{}' order by \"offset\"", table.display());
    let script = "import duckdb, json, sys; print(json.dumps(duckdb.sql(sys.argv[1]).fetchall()))";
    let done = Command::new(python).args(["-c", script, &query]).output().unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&succeeded("duckdb", done).stdout).unwrap();
    assert_eq!(rows.len(), records().len());
    for (row, record) in rows.iter().zip(records()) {
        let hex: String = record.data.iter().map(|octet| format!("{octet:02X}")).collect();
        let want = serde_json::json!([
            record.id.to_string(),
            1,
            record.id.offset.get(),
            record.received_at,
            record.listener,
            record.mail_from,
            record.rcpt_to,
            row[7],
            record.data.len(),
            hex
        ]);
        assert_eq!(row, &want);
    }
    assert_eq!(rows[8][7], "Grüße");
    assert_eq!(rows[2][7], Value::Null);
}

/// Sends one mail by BDAT.
fn send(server: &Server, from: &str, rcpt: &str, mail: &[u8]) -> String {
    let mut client = server.client();
    client.ehlo();
    assert!(client.say(&format!("MAIL FROM:<{from}>")).starts_with("250"));
    assert!(client.say(&format!("RCPT TO:<{rcpt}>")).starts_with("250"));
    client.send(format!("BDAT {} LAST\r\n", mail.len()).as_bytes());
    client.send(mail);
    id_of(&client.reply())
}

fn export(log: &Path, to: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(MAILRACE);
    command.args(["log", "export", "--dir"]).arg(log).arg("--to").arg(to).args(arguments);
    command
}

#[track_caller]
fn exported(log: &Path, to: &Path, arguments: &[&str]) -> u64 {
    let done = export(log, to, arguments).arg("--json").output().unwrap();
    let told = succeeded("log export", done).stdout;
    serde_json::from_slice::<Value>(&told).unwrap()["records"].as_u64().unwrap()
}

#[test]
fn an_export_is_continued_and_selects() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("data");
    let server = Server::start(&log);
    let mail = |n: u64| format!("Subject: {n}\r\n\r\n{n}\r\n").into_bytes();
    let mut ids: Vec<String> =
        (0..6).map(|n| send(&server, "a@x.test", "b@y.test", &mail(n))).collect();
    for (_, name) in LAYOUTS {
        let to = dir.path().join(name);
        assert_eq!(exported(&log, &to, &["--as", name, "-o", "2:4"]), 2, "{name}");
        assert_eq!(exported(&log, &to, &["--as", name]), 4);
        let before = tree(&to);
        assert_eq!(exported(&log, &to, &["--as", name]), 0);
        assert_eq!(tree(&to), before);
    }
    // Only what is new is added.
    ids.push(send(&server, "", "c@y.test", &mail(6)));
    for (_, name) in LAYOUTS {
        let to = dir.path().join(name);
        let before = tree(&to);
        assert_eq!(exported(&log, &to, &["--as", name, "-o", "3:end"]), 1);
        let after = tree(&to);
        assert_eq!(after.len(), before.len() + 1);
        assert!(before.iter().all(|(path, octets)| after.get(path) == Some(octets)));
    }
    let emls = tree(&dir.path().join("eml"));
    for (n, id) in ids.iter().enumerate() {
        let eml = &emls[Path::new(&format!("{id}.eml"))];
        assert!(eml.starts_with(b"Return-Path: <") && eml.ends_with(&mail(n as u64)));
    }
    // Filters; and a folder answers one question.
    let to = dir.path().join("filtered");
    assert_eq!(exported(&log, &to, &["--as", "eml", "--from", ""]), 1);
    assert_eq!(exported(&log, &dir.path().join("rcpt"), &["--as", "eml", "--rcpt", "b@Y.test"]), 6);
    for arguments in [&["--as", "eml"][..], &["--as", "mbox", "--from", ""]] {
        let refused = export(&log, &to, arguments).output().unwrap();
        assert_eq!(refused.status.code(), Some(2));
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(told.contains("holds an export of node"), "{told}");
    }
    drop(server);
}

/// Kills exports wherever they are, and has them continued: what lies under a final name is whole
/// at any time, and in the end nothing tells that they were killed.
#[test]
fn a_killed_export_leaves_no_half_file_and_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("data");
    let server = Server::start(&log);
    // Three files of 32 MiB, and messages of their own.
    for n in 0..36 {
        send(&server, "a@x.test", "b@y.test", &bulk(n, (2 << 20) / 64));
    }
    drop(server);
    for (_, name) in LAYOUTS {
        let whole = dir.path().join(format!("{name}-whole"));
        assert_eq!(exported(&log, &whole, &["--as", name]), 36, "{name}");
        let want = tree(&whole);
        let to = dir.path().join(name);
        let mut kills = 0;
        // Each run is left to come a step further before it dies.
        for steps in 1.. {
            let seen = steps_in(&to);
            let mut run = export(&log, &to, &["--as", name]).stdout(Stdio::null()).spawn().unwrap();
            let ended = loop {
                if let Some(status) = run.try_wait().unwrap() {
                    break Some(status);
                }
                if steps_in(&to) > seen + usize::from(steps % 3 > 0) {
                    break None;
                }
                std::thread::sleep(Duration::from_micros(200));
            };
            let _ = run.kill();
            run.wait().unwrap();
            for (path, octets) in final_files(&to) {
                assert!(want.get(&path) == Some(&octets), "{name}: {} is half", path.display());
            }
            if let Some(status) = ended {
                assert!(status.success(), "{status}");
                break;
            }
            kills += 1;
            assert!(kills < 500, "it comes to an end");
        }
        assert!(kills >= 3, "{name} was killed {kills} times");
        assert!(tree(&to) == want, "{name}: {:?}", tree(&to).keys());
        assert_eq!(exported(&log, &to, &["--as", name]), 0);
        fs::remove_dir_all(&to).unwrap();
        fs::remove_dir_all(&whole).unwrap();
    }
}

/// Under their final names.
fn final_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = tree(dir);
    all.retain(|path, _| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        !hidden && !path.starts_with("tmp")
    });
    all
}

/// A number that grows with what an export does: files of any name.
fn steps_in(dir: &Path) -> usize {
    let count = |dir: &Path| fs::read_dir(dir).map_or(0, Iterator::count);
    count(dir) + count(&dir.join("tmp")) + 2 * count(&dir.join("new"))
}
