//! `mailrace log` over the logs of real servers: every subcommand, exit codes, damage, and a tail
//! while a server is under load.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::Value;

use crate::support::{self, MAILRACE, Server, body, id_of};

fn log(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(MAILRACE)
        .arg("log")
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .output()
        .expect("it runs")
}

fn text(dir: &Path, arguments: &[&str]) -> String {
    String::from_utf8(support::log_command(dir, arguments)).expect("UTF-8")
}

fn json(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    text(dir, arguments).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Sends one mail by BDAT with an envelope of its own.
fn send(server: &Server, from: &str, rcpts: &[&str], mail: &[u8]) -> String {
    let mut client = server.client();
    client.ehlo();
    assert!(client.say(&format!("MAIL FROM:<{from}>")).starts_with("250"));
    for rcpt in rcpts {
        assert!(client.say(&format!("RCPT TO:<{rcpt}>")).starts_with("250"));
    }
    client.send(format!("BDAT {} LAST\r\n", mail.len()).as_bytes());
    client.send(mail);
    id_of(&client.reply())
}

#[test]
fn get_shows_mail_header_envelope_and_trace() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mail = b"Subject: hi\r\n there\r\nTo: x\r\n\r\nbody\r\n";
    let id = send(&server, "a@x.test", &["b@y.test"], mail);
    send(&server, "", &["b@y.test", "c@y.test"], mail);
    let get = |arguments: &[&str]| support::log_command(dir.path(), arguments);
    assert_eq!(get(&["get", &id]), mail);
    assert_eq!(get(&["get", "0:0"]), mail);
    assert_eq!(get(&["get", "--headers", &id]), b"Subject: hi\r\n there\r\nTo: x\r\n");
    let traced = text(dir.path(), &["get", "--received", "--hostname", "mx.test", "0:0"]);
    assert!(traced.starts_with("Received: from client.test ([127.0.0.1])\r\n"), "{traced}");
    assert!(traced.contains(&format!("by mx.test with ESMTP id {id}\r\n\tfor <b@y.test>;")));
    assert!(traced.ends_with(std::str::from_utf8(mail).unwrap()));
    // RFC 5321 §7.2: two recipients are not told of each other.
    let traced = text(dir.path(), &["get", "--received", "0:1"]);
    assert!(!traced.contains("for <"), "{traced}");
    let envelope = text(dir.path(), &["get", "--envelope", "0:1"]);
    assert!(envelope.contains("from      <>\nto        <b@y.test>\nto        <c@y.test>\n"));
    let envelope = &json(dir.path(), &["get", "--envelope", "--json", &id])[0];
    assert_eq!((&envelope["id"], &envelope["offset"]), (&id.clone().into(), &0.into()));
    assert_eq!(envelope["rcpt_to"], serde_json::json!(["b@y.test"]));
    let named = get(&["cat", "-f", "%{offset} %{rcpt_to} %{size} [%{tls_version}]\\n"]);
    assert_eq!(named, b"0 b@y.test 36 []\n1 b@y.test,c@y.test 36 []\n");
    let foreign = format!("0123456789ab{}", &id[12..]);
    for (arguments, code, told) in [
        (&["get", "0:2"][..], 1, "no record"),
        (&["get", "7:0"], 1, "there is no shard 7"),
        (&["get", &foreign], 1, "belongs to node 0123456789ab"),
        (&["get", "nonsense"], 2, "not a record id"),
        (&["get", "0:0", "--json"], 2, "--json goes with --envelope"),
        (&["cat", "-f", "%y"], 2, "unknown letter %y"),
        (&["cat", "-f", "%{y}"], 2, "unknown name %{y}"),
        (&["cat", "-o", "x"], 2, "not a valid range"),
        (&["cat", "-o", "2:1"], 2, "the range is empty"),
        (&["cat", "-o", "1:1"], 2, "the range is empty"),
        (&["stats", "-o", "+1:+0"], 2, "the range is empty"),
        (&["tail", "-o", "@-1h:-2h"], 2, "the range is empty"),
        (&["cat", "-o", "@2026-02-01:2026-01-01"], 2, "the range is empty"),
        (&["cat", "-o", "1000:"], 2, "offset 1000 is beyond the end of the log (shard 0 at 2"),
        (&["cat", "--shard", "7"], 2, "there is no shard 7"),
        (&["ls", "--shard", "0,7"], 2, "there is no shard 7"),
        (&["verify", "--shard", "7"], 2, "there is no shard 7"),
        (&["offsets", "--at", "end", "--shard", "7"], 2, "there is no shard 7"),
        (&["prune", "--before", "end", "--shard", "7"], 2, "there is no shard 7"),
    ] {
        let done = log(dir.path(), arguments);
        let error = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
    let nowhere = log(Path::new("/nonexistent"), &["ls"]);
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn a_large_mail_has_header_and_subject() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mail = body(7, 3 << 20);
    let id = send(&server, "a@x.test", &["b@y.test"], &mail);
    assert_eq!(support::log_get(dir.path(), &id), mail);
    assert_eq!(text(dir.path(), &["get", "--headers", &id]), "Subject: message 7\r\n");
    assert_eq!(text(dir.path(), &["cat", "-f", "%S %Z\\n"]), "message 7 3.0M\n");
    assert_eq!(json(dir.path(), &["verify", "--json"])[0]["records"], 1);
}

#[test]
fn cat_and_tail_select_and_format() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for (from, rcpts) in [
        ("a@x.test", &["b@y.test"][..]),
        ("A@x.test", &["b@y.test"]),
        ("a@X.TEST", &["c@y.test", "b@Y.test"]),
        ("", &["d@y.test"]),
    ] {
        let mail = format!("Subject: to \u{202e}{}\r\n\r\n1\r\n", rcpts.len());
        send(&server, from, rcpts, mail.as_bytes());
    }
    let offsets = |arguments: &[&str]| {
        let mut all = vec!["cat", "-f", "%o "];
        all.extend_from_slice(arguments);
        text(dir.path(), &all)
    };
    assert_eq!(offsets(&[]), "0 1 2 3 ");
    assert_eq!(offsets(&["--from", "a@x.TEST"]), "0 2 ");
    assert_eq!(offsets(&["--to", "b@y.test", "-n", "2"]), "0 1 ");
    assert_eq!(offsets(&["--from", ""]), "3 ");
    assert_eq!(offsets(&["-o", "-2:end"]), "2 3 ");
    assert_eq!(offsets(&["-o", "+1:3"]), "1 2 ");
    assert_eq!(offsets(&["-o", "@-1h:-0s"]), "0 1 2 3 ");
    assert_eq!(offsets(&["-o", "@-2h:-1h"]), "");
    assert_eq!(offsets(&["-o", "@-2h:end", "--shard", "0"]), "0 1 2 3 ");
    let template = text(dir.path(), &["cat", "-o", "2:3", "-f", "%s:%o %F %R %N %z%%\\n"]);
    assert_eq!(template, "0:2 a@X.TEST c@y.test,b@Y.test 2 23%\n");
    let raw = text(dir.path(), &["cat", "-n", "2", "--format", "raw"]);
    assert_eq!(raw, "Subject: to \u{202e}1\r\n\r\n1\r\n".repeat(2));
    // The mark that turns text around is shown, not obeyed.
    let line = text(dir.path(), &["tail", "-n", "1"]);
    assert!(line.ends_with("0:3 23 <> -> d@y.test \"to \\u{202e}1\"\n"), "{line}");
    let line = text(dir.path(), &["cat", "-o", "2:3"]);
    assert!(line.contains(" -> c@y.test (+1) \"to "), "{line}");
    assert_eq!(text(dir.path(), &["tail", "--from", "a@x.test", "-n", "1"]), line);
    let listed = json(dir.path(), &["cat", "--json"]);
    assert_eq!(listed.len(), 4);
    assert_eq!(listed[3]["mail_from"], "");
    assert_eq!(json(dir.path(), &["tail", "--json", "-n", "3"])[0]["offset"], 1);
    let stats = &json(dir.path(), &["stats", "--json", "--to", "b@y.test"])[0];
    assert_eq!((&stats["records"], &stats["mail_bytes"]), (&3.into(), &69.into()));
}

#[test]
fn ls_and_stats_tell_segments() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let server = Server::start(dir.path());
        for seed in 0..3 {
            send(&server, "a@x.test", &["b@y.test"], &body(seed, 2_000));
        }
        server.kill();
    }
    let server = Server::start(dir.path());
    send(&server, "a@x.test", &["b@y.test"], &body(9, 2_000));
    let human = text(dir.path(), &["ls"]);
    let lines: Vec<&str> = human.lines().collect();
    assert!(lines[0].starts_with("SHARD SEGMENT"), "{human}");
    assert_eq!(lines.len(), 4, "{human}");
    assert!(lines[1].ends_with("sealed") && lines[3].ends_with("active"), "{human}");
    let listed = json(dir.path(), &["ls", "--json"]);
    let records: Vec<u64> = listed.iter().map(|line| line["records"].as_u64().unwrap()).collect();
    assert_eq!(records, [3, 3, 1]);
    assert_eq!(listed[0]["base_offset"], 0);
    assert!(listed.iter().all(|line| line["bytes"].as_u64().unwrap() >= 8_192));
    let stats = &json(dir.path(), &["stats", "--json"])[0];
    assert_eq!(stats["records"], 7);
    assert_eq!(stats["segment_table"].as_array().unwrap().len(), 3);
    assert!(text(dir.path(), &["stats"]).contains("\ntotal: 7 records, "));
    // Without a manifest every segment is judged by its frames: the records are found all the same.
    // `verify` cannot say then whether a segment is missing.
    let manifest = dir.path().join("shard-000/manifest");
    let seals = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    let unsure = log(dir.path(), &["verify"]);
    assert_eq!(unsure.status.code(), Some(3));
    let told = String::from_utf8(unsure.stdout).unwrap();
    assert!(told.contains("manifest is missing or empty") && told.contains("7 records"), "{told}");
    for entry in fs::read_dir(dir.path().join("shard-000")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            fs::remove_file(path).unwrap();
        }
    }
    let last = listed[2]["base_offset"].as_u64().unwrap();
    assert_eq!(support::log_get(dir.path(), &format!("0:{last}")), body(9, 2_000));
    assert_eq!(support::log_get(dir.path(), "0:1"), body(1, 2_000));
    // A tail that was never wholly written is told, and is no error.
    fs::write(&manifest, seals).unwrap();
    server.kill();
    let name = format!("shard-000/{:010}.seg", listed[2]["segment"].as_u64().unwrap());
    let file = fs::File::options().write(true).open(dir.path().join(name)).unwrap();
    file.write_all_at(b"torn", listed[2]["bytes"].as_u64().unwrap()).unwrap();
    let told = text(dir.path(), &["verify"]);
    assert!(told.starts_with("note: ") && told.contains("torn tail"), "{told}");
    assert!(told.ends_with("7 records verified\n"), "{told}");
}

/// A log of three runs of a server, all but the last segment sealed; where record 1 lies.
fn sealed_log(dir: &Path) -> (PathBuf, u64) {
    for _ in 0..3 {
        let server = Server::start(dir);
        for seed in 0..4 {
            send(&server, "a@x.test", &["b@y.test"], &body(seed, 3_000));
        }
        server.kill();
    }
    drop(Server::start(dir));
    let segment = dir.join("shard-000/0000000001.seg");
    let octets = fs::read(&segment).expect("a segment");
    let needle = b"Subject: message 1\r\n";
    let at =
        octets.windows(needle.len()).position(|window| window == needle).expect("it lies there");
    (segment, at as u64)
}

#[test]
fn damage_is_found_and_told_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (segment, at) = sealed_log(dir.path());
    assert!(text(dir.path(), &["verify"]).ends_with("12 records verified\n"));
    let file = fs::File::options().read(true).write(true).open(&segment).unwrap();
    let mut octet = [0];
    file.read_exact_at(&mut octet, at + 5).unwrap();
    file.write_all_at(&[octet[0] ^ 1], at + 5).unwrap();
    let done = log(dir.path(), &["verify", "--json"]);
    assert_eq!(done.status.code(), Some(3));
    let found: Vec<Value> = done
        .stdout
        .split(|&octet| octet == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let corrupt: Vec<_> = found.iter().filter(|line| line["kind"] == "corrupt").collect();
    assert_eq!(corrupt.len(), 1, "{found:?}");
    assert_eq!((&corrupt[0]["offset"], &corrupt[0]["segment"]), (&1.into(), &1.into()));
    // The entry's frame of 24 octets lies before the record's archive, which begins with the mail.
    assert_eq!(corrupt[0]["position"], at - 24);
    let told = log(dir.path(), &["verify"]);
    let line = format!("corrupt: 0:1 segment 1 position {}: ", at - 24);
    assert!(String::from_utf8(told.stdout).unwrap().contains(&line), "{line}");
    let read = log(dir.path(), &["cat", "-f", "%o "]);
    assert_eq!(read.status.code(), Some(1));
    let read = String::from_utf8(read.stdout).unwrap();
    assert!(read.starts_with("0 2 3 ") && read.split_whitespace().count() == 11, "{read}");
    let damaged = log(dir.path(), &["get", "0:1"]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(String::from_utf8(damaged.stderr).unwrap().contains(".seg is damaged at position "));
    assert_eq!(support::log_get(dir.path(), "0:2"), body(2, 3_000));
    let tail = log(dir.path(), &["tail", "-n", "2", "-o", "0:4"]);
    assert_eq!(tail.status.code(), Some(1));
    let shown = String::from_utf8(tail.stdout).unwrap();
    assert!(shown.contains("message 2") && shown.contains("message 3"), "{shown}");
    assert_eq!(shown.lines().count(), 2);
    file.write_all_at(&octet, at + 5).unwrap();
    assert!(log(dir.path(), &["verify"]).status.success(), "whole again");
    // A group's frame: the walk goes on at the next.
    file.read_exact_at(&mut octet, 4_096 + 30).unwrap();
    file.write_all_at(&[octet[0] ^ 1], 4_096 + 30).unwrap();
    let done = log(dir.path(), &["verify"]);
    assert_eq!(done.status.code(), Some(3));
    let told = String::from_utf8(done.stdout).unwrap();
    assert!(told.contains("corrupt: 0:0 segment 1 position 4096: "), "{told}");
    let read = String::from_utf8(log(dir.path(), &["cat", "-f", "%o "]).stdout).unwrap();
    assert!(read.starts_with("1 2 3 "), "{read}");
}

#[test]
fn a_missing_segment_and_a_wrong_index_are_told() {
    let dir = tempfile::tempdir().unwrap();
    sealed_log(dir.path());
    // An entry with a good checksum that names a block that is no group.
    let mut entry = [0; 20];
    entry[8..16].copy_from_slice(&4_104_u64.to_le_bytes());
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &entry[..16]) as u32;
    entry[16..].copy_from_slice(&sum.to_le_bytes());
    fs::write(dir.path().join("shard-000/0000000001.idx"), entry).unwrap();
    let done = log(dir.path(), &["verify"]);
    let told = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(0), "{told}");
    assert!(told.contains("warning: 0:0 segment 1 position 4104: 1 wrong index"), "{told}");
    assert_eq!(support::log_get(dir.path(), "0:3"), body(3, 3_000), "the index is advice");
    let listed = json(dir.path(), &["ls", "--json"]);
    let gone = &listed[1];
    let name = format!("shard-000/{:010}.seg", gone["segment"].as_u64().unwrap());
    fs::remove_file(dir.path().join(name)).unwrap();
    let done = log(dir.path(), &["verify"]);
    let told = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(3), "{told}");
    let line = format!("corrupt: 0:{} segment {}: ", gone["base_offset"], gone["segment"]);
    assert!(told.contains(&line) && told.contains("is missing"), "{told}");
    let missing = log(dir.path(), &["get", &format!("0:{}", gone["base_offset"])]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn a_tail_beside_a_server_under_load_shows_every_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=2", "log.segment_size=16MiB"]);
    send(&server, "a@x.test", &["b@y.test"], &body(0, 100));
    let mut tail = Command::new(MAILRACE)
        .args(["log", "tail", "-f", "-o", "start", "--json", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = tail.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).expect("JSON");
            if tell.send(line["id"].as_str().expect("an id").to_owned()).is_err() {
                break;
            }
        }
    });
    let wait = Duration::from_secs(30);
    let mut seen: HashMap<String, u32> = HashMap::new();
    *seen.entry(told.recv_timeout(wait).expect("the first record")).or_default() += 1;
    // Enough for each shard to leave a segment or two behind.
    let address = server.smtp;
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            std::thread::spawn(move || {
                let mut client = support::Client::connect(address);
                client.ehlo();
                let large = body(writer, 400_000);
                let small = body(writer, 3_000);
                let mail = |turn: u64| if turn.is_multiple_of(3) { &large } else { &small };
                (0..120).map(|turn| id_of(&client.bdat(mail(turn)))).collect::<Vec<_>>()
            })
        })
        .collect();
    // Every command is safe meanwhile, and finds no fault.
    for _ in 0..5 {
        let done = log(dir.path(), &["verify"]);
        let told = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(0), "{told}");
        for command in ["ls", "stats", "cat", "tail"] {
            assert!(log(dir.path(), &[command]).status.success(), "{command}");
        }
    }
    let sent: Vec<String> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    while seen.len() < sent.len() + 1 {
        let id = told.recv_timeout(wait).unwrap_or_else(|_| panic!("{} seen", seen.len()));
        *seen.entry(id).or_default() += 1;
    }
    // A fence: once this one is seen on its shard, nothing before it is still to come.
    let fence = send(&server, "a@x.test", &["b@y.test"], &body(1, 100));
    loop {
        let id = told.recv_timeout(wait).expect("the fence");
        let last = id == fence;
        *seen.entry(id).or_default() += 1;
        if last {
            break;
        }
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(sent.iter().all(|id| seen.contains_key(id)));
    assert!(seen.values().all(|&times| times == 1), "each once");
    assert!(json(dir.path(), &["ls", "--json"]).len() > 3, "segments were left");
}

/// The tools look where the server looks, in the same order.
#[test]
fn the_data_directory_comes_from_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    send(&server, "a@x.test", &["b@y.test"], b"Subject: hi\r\n\r\n1\r\n");
    assert_eq!(server.stop(), Some(0));
    let place = format!("[log]\ndir = \"{}\"\n", data.display());
    // A mistake elsewhere does not keep anybody from reading the log.
    let file = dir.path().join("other.toml");
    fs::write(&file, format!("{place}sync = \"nonsense\"\n")).unwrap();
    let run = |arguments: &[&str], variable: Option<&Path>| {
        let mut command = Command::new(MAILRACE);
        command.current_dir(dir.path()).args(arguments).env_remove("MAILRACE_LOG__DIR");
        if let Some(value) = variable {
            command.env("MAILRACE_LOG__DIR", value);
        }
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let one = (Some(0), "1 record verified\n".to_owned());
    let file = file.to_str().unwrap();
    assert_eq!(run(&["log", "verify"], None).0, Some(1), "no directory here");
    assert_eq!(run(&["log", "verify", "-c", file], None), one);
    assert_eq!(run(&["log", "verify"], Some(&data)), one);
    assert_eq!(run(&["group", "ls", "-c", file], None).0, Some(0));
    fs::write(dir.path().join("mailrace.toml"), place).unwrap();
    assert_eq!(run(&["log", "verify"], None), one);
    assert_eq!(run(&["group", "ls"], None).0, Some(0));
    // The variable wins over the file, --dir over both.
    let nowhere = Path::new("/nonexistent");
    assert_eq!(run(&["log", "verify"], Some(nowhere)).0, Some(1));
    let dir = data.to_str().unwrap();
    assert_eq!(run(&["log", "verify", "--dir", dir], Some(nowhere)), one);
    // What is wrong with the file is said, and how to do without.
    let (code, text) = run(&["log", "verify", "-c", "missing.toml"], None);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("missing.toml: there is no such file"), "{text}");
    assert!(text.contains("--dir DIR"), "{text}");
    assert_eq!(run(&["log", "verify", "-c", file, "--dir", dir], None).0, Some(2), "one of both");
}
