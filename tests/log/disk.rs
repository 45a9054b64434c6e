//! Full disks, wrong disks, and directories that cannot be used: each is reported, none loses mail.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{
    Client, Failure, Launch, Server, bulk, eventually, id_of,
    machine::{self, SmallDisk, has, skip},
    troubles, verified,
};

fn root() -> bool {
    machine::is_root() || skip("a file system of one's own needs root")
}

fn on_small_disk(disk: &SmallDisk) -> Server {
    let settings = ["server.shards=2", "log.segment_size=16MiB", "limits.message_size=4MiB"];
    Server::start_with(&disk.path.join("data"), &settings)
}

/// The reply to MAIL; the transaction, if one began, is dropped again.
#[track_caller]
fn mail(client: &mut Client) -> String {
    let reply = client.say("MAIL FROM:<a@client.test>");
    if reply.starts_with("250 ") {
        assert!(client.say("RSET").starts_with("250 "));
    }
    reply
}

/// T8, D9: mail fills the disk until 452; the log is whole; a foreign file that goes makes room.
#[test]
fn t8_a_disk_filled_by_mail_and_drained_again() {
    if !(root() && has("mkfs.ext4") && has("mount")) {
        return;
    }
    let disk = SmallDisk::ext4(256);
    let foreign = disk.path.join("foreign");
    // Taken now and given back later: that is how the disk is drained, as the log keeps its mail.
    machine::allocate(&foreign, 96 << 20).unwrap();
    let server = on_small_disk(&disk);
    let mut sent = Vec::new();
    let mut client = server.client();
    client.ehlo();
    let began = Instant::now();
    let refusal = loop {
        assert!(began.elapsed() < Duration::from_secs(60), "never full: {} free", disk.free());
        let reply = client.say("MAIL FROM:<a@client.test>");
        if !reply.starts_with("250 ") {
            break reply;
        }
        assert!(client.say("RCPT TO:<b@server.test>").starts_with("250 "));
        let seed = sent.len() as u64;
        let message = bulk(seed, (1 << 20) / 64);
        client.send(format!("BDAT {} LAST\r\n", message.len()).as_bytes());
        client.send(&message);
        let reply = client.reply();
        // Between the looks at the disk a message may still find no room.
        match reply.starts_with("250 ") {
            true => sent.push((id_of(&reply), seed)),
            false => assert!(reply.starts_with("452 4.3.1 ") || reply.starts_with("451 4.3.0 ")),
        }
    };
    assert!(refusal.starts_with("452 4.3.1 "), "{refusal}");
    println!("full behind {} messages of 1 MiB, {} MiB free", sent.len(), disk.free() >> 20);
    assert!(sent.len() >= 20, "{} messages", sent.len());
    eventually("the metric tells", Duration::from_secs(5), || {
        server.metric("mailrace_log_disk_state", &[]) == 2.0
    });
    assert!(server.metric("mailrace_smtp_messages_rejected_total", &["disk_full"]) > 0.0);
    let check = |sent: &[(String, u64)]| {
        assert_eq!(verified(&server.dir), sent.len() as u64);
        for (id, seed) in sent.iter().step_by(7) {
            assert!(server.get(id) == bulk(*seed, (1 << 20) / 64), "{id}");
        }
    };
    check(&sent);
    // Full for every session, and the session is none the worse.
    let mut other = server.client();
    other.ehlo();
    eventually("each shard has looked", Duration::from_secs(5), || {
        mail(&mut other).starts_with("452 4.3.1 ")
    });
    assert!(client.say("NOOP").starts_with("250 "));

    fs::remove_file(&foreign).unwrap();
    eventually("mail is accepted again", Duration::from_secs(10), || {
        mail(&mut client).starts_with("250 ")
    });
    for _ in 0..10 {
        let seed = sent.len() as u64;
        sent.push((id_of(&client.bdat(&bulk(seed, (1 << 20) / 64))), seed));
    }
    check(&sent);
    // A stop and a start on the disk as it is.
    assert_eq!(server.stop(), Some(0));
    let server = on_small_disk(&disk);
    assert_eq!(verified(&server.dir), sent.len() as u64);
}

/// A foreign file takes all there is, to the last block, while mail comes in: what was
/// acknowledged stays, what is not gets 4yz. Hysteresis: a little room is not enough.
#[test]
fn t8_a_disk_filled_by_a_foreign_file_under_load() {
    if !(root() && has("mkfs.ext4") && has("mount")) {
        return;
    }
    let disk = SmallDisk::ext4(256);
    let server = on_small_disk(&disk);
    let mut client = server.client();
    client.ehlo();
    let mut sent = vec![(id_of(&client.bdat(&bulk(0, 100))), 0)];
    let foreign = disk.path.join("foreign");
    let filled = fill(&disk, &foreign);
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull, "{filled}");
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(30), "never refused");
        let reply = client.say("MAIL FROM:<a@client.test>");
        if reply.starts_with("452 4.3.1 ") {
            break;
        }
        assert!(reply.starts_with("250 "), "{reply}");
        assert!(client.say("RCPT TO:<b@server.test>").starts_with("250 "));
        let seed = sent.len() as u64;
        let message = bulk(seed, 1_000);
        client.send(format!("BDAT {} LAST\r\n", message.len()).as_bytes());
        client.send(&message);
        let reply = client.reply();
        match reply.starts_with("250 ") {
            true => sent.push((id_of(&reply), seed)),
            false => assert!(reply.starts_with("45"), "{reply}"),
        }
    }
    assert_eq!(verified(&server.dir), sent.len() as u64);

    // The threshold is two segments for each of two shards: 64 MiB; and 80 MiB to go on.
    let small = |free: u64| {
        fs::remove_file(&foreign).unwrap();
        machine::allocate(&foreign, disk.free() - free).unwrap();
    };
    small(72 << 20);
    // Refused on for want of 80 MiB, and not of 64.
    let (status, ready) = server.page("/readyz");
    assert_eq!(status, 503);
    assert!(ready.starts_with("disk full: 7"), "{ready}");
    assert!(ready.ends_with(" MiB free; mail is accepted again above 80 MiB\n"), "{ready}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2_500) {
        assert!(mail(&mut client).starts_with("452 4.3.1 "), "{} free", disk.free());
        std::thread::sleep(Duration::from_millis(100));
    }
    small(100 << 20);
    eventually("mail is accepted again", Duration::from_secs(10), || {
        mail(&mut client).starts_with("250 ")
    });
    sent.push((id_of(&client.bdat(&bulk(9, 10))), 9));
    assert_eq!(verified(&server.dir), sent.len() as u64);
    assert_eq!(server.stop(), Some(0));
}

/// Room enough, and no more files: `/readyz` says so, and not that some MiB are too few.
#[test]
fn a_disk_without_inodes_is_told_as_such() {
    if !(root() && has("mkfs.ext4") && has("mount")) {
        return;
    }
    let disk = SmallDisk::ext4_of_files(256, 1024);
    let server = on_small_disk(&disk);
    assert_eq!(server.page("/readyz").0, 200);
    let full = (0..).find(|number| fs::write(disk.path.join(format!("f{number}")), "").is_err());
    assert!(full > Some(900), "{full:?}");
    eventually("MAIL is refused", Duration::from_secs(10), || {
        let mut client = server.client();
        client.ehlo();
        mail(&mut client).starts_with("452 4.3.1 ")
    });
    let (status, ready) = server.page("/readyz");
    assert_eq!((status, &*ready), (503, "disk full: fewer than 1 % of the inodes are free\n"));
}

/// Takes the disk to its last block.
fn fill(disk: &SmallDisk, path: &Path) -> std::io::Error {
    let _ = machine::allocate(path, disk.free());
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    loop {
        if let Err(error) = std::io::Write::write_all(&mut file, &[1; 65_536]) {
            return error;
        }
        if let Err(error) = file.sync_data() {
            return error;
        }
    }
}

/// A disk on which the server starts and takes no mail: said at the start, by the first probe and
/// the first scrape, and foretold by doctor.
#[test]
fn a_disk_too_small_for_mail_is_told_at_once() {
    if !(root() && has("mkfs.ext4") && has("mount")) {
        return;
    }
    let disk = SmallDisk::ext4(182);
    let data = disk.path.join("data");
    let launch = Launch::new(&data).set("server.shards=1");
    let doctor = |launch: &Launch| {
        let output = launch.command("doctor").arg("--json").output().unwrap();
        let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = findings.as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["probe"] == "space").unwrap()
    };
    let foretold = doctor(&launch);
    assert_eq!(foretold["verdict"], "failed", "{foretold}");
    assert!(foretold["fix"].as_str().unwrap().contains("lower log.segment_size"), "{foretold}");
    let server = launch.start();
    let (status, ready) = server.page("/readyz");
    assert_eq!(status, 503, "{ready}");
    assert!(
        ready.contains("disk full: ") && ready.contains("128 MiB needed: two segments of 64 MiB"),
        "{ready}"
    );
    assert_eq!(server.metric("mailrace_log_disk_state", &[]), 2.0);
    server.says("MAIL gets 452 4.3.1");
    server.says("128 MiB needed: two segments of 64 MiB for 1 shard");
    server.says("lower log.segment_size or server.shards");
    let mut client = server.client();
    client.ehlo();
    let reply = mail(&mut client);
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    assert_eq!(doctor(&launch)["verdict"], "failed");
    // The cure cures.
    assert_eq!(server.stop(), Some(0));
    fs::remove_dir_all(&data).unwrap();
    let launch = launch.set("log.segment_size=16MiB");
    assert_eq!(doctor(&launch)["verdict"], "ok");
    let server = launch.start();
    assert_eq!(server.page("/readyz").0, 200);
    assert_eq!(doctor(&launch)["verdict"], "ok");
    let mut client = server.client();
    client.ehlo();
    id_of(&client.bdat(&bulk(1, 10)));
    assert_eq!(troubles(&server.stop_and_read()), "");
}

/// A disk with no room for a single segment: a clear error, no half a server.
#[test]
fn a_disk_too_small_is_told() {
    if !(root() && has("mkfs.ext4") && has("mount")) {
        return;
    }
    let disk = SmallDisk::ext4(16);
    let failure = refused(&Launch::new(&disk.path.join("data")).set("server.shards=1"));
    assert_eq!(failure.code, Some(1), "{failure}");
    told(&failure, &["space"]);
}

/// D2. tmpfs takes O_DIRECT since Linux 6.6, and forgets: a 250 from there would promise nothing.
#[test]
fn a_tmpfs_is_refused_unless_loss_is_allowed() {
    if !(root() && has("mount")) {
        return;
    }
    let disk = SmallDisk::tmpfs(256);
    let launch = Launch::new(&disk.path.join("data"))
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("limits.message_size=4MiB");
    let failure = refused(&launch);
    assert_eq!(failure.code, Some(78), "{failure}");
    told(&failure, &["tmpfs", "in memory", "local disk", "log.sync"]);
    assert!(!disk.path.join("data").exists(), "nothing was made there");
    let server = launch.set("log.sync=none").start();
    takes_mail(&server);
}

/// Segments are opened with O_DIRECT whatever `log.sync` says: the start says what is missing.
#[test]
fn a_disk_without_direct_io_is_refused_whatever_the_sync() {
    if !(root() && has("mount")) {
        return;
    }
    let disk = SmallDisk::ramfs();
    let launch = Launch::new(&disk.path.join("data")).set("server.shards=1").set("log.sync=none");
    let failure = refused(&launch);
    assert_eq!(failure.code, Some(78), "{failure}");
    told(&failure, &["O_DIRECT", "local disk"]);
}

#[track_caller]
fn takes_mail(server: &Server) {
    let mut client = server.client();
    client.ehlo();
    let message = bulk(1, 100);
    assert_eq!(server.get(&id_of(&client.bdat(&message))), message);
}

#[track_caller]
fn refused(launch: &Launch) -> Failure {
    match launch.try_start() {
        Ok(_) => panic!("it serves"),
        Err(failure) => failure,
    }
}

/// One line for the operator: what is wrong, with no backtrace.
#[track_caller]
fn told(failure: &Failure, words: &[&str]) {
    let line = failure.errors.lines().find(|line| line.starts_with("mailrace: "));
    let line = line.unwrap_or_else(|| panic!("no line of ours: {failure}"));
    for word in words {
        assert!(line.contains(word), "{word:?} is missing: {failure}");
    }
    assert!(!failure.errors.contains("panicked"), "{failure}");
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let failure = refused(&Launch::new(dir.path()).set("server.shards=1"));
    assert_eq!(failure.code, Some(1), "{failure}");
    told(&failure, &[dir.path().to_str().unwrap(), "another process is using it"]);
    // The first was not disturbed.
    takes_mail(&server);
}

#[test]
fn a_read_only_directory_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = machine::ordinary_home();
    fs::create_dir(&home.data).unwrap();
    fs::set_permissions(&home.data, fs::Permissions::from_mode(0o555)).unwrap();
    if let Some(user) = home.user {
        std::os::unix::fs::chown(&home.data, Some(user), Some(user)).unwrap();
    }
    let launch = Launch::new(&home.data).program(&home.program).user(home.user);
    let failure = refused(&launch);
    assert_eq!(failure.code, Some(78), "{failure}");
    told(&failure, &[home.data.to_str().unwrap(), "ermission denied"]);
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    fs::write(&path, "").unwrap();
    let failure = refused(&Launch::new(&path));
    assert_eq!(failure.code, Some(78), "{failure}");
    told(&failure, &[path.to_str().unwrap()]);
}

/// A node's id is part of every record's: a new one in the place of a bad one would rename them.
#[test]
fn a_corrupted_node_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client();
    client.ehlo();
    let message = bulk(1, 100);
    let id = id_of(&client.bdat(&message));
    assert_eq!(server.stop(), Some(0));
    let node = dir.path().join("node");
    let good = fs::read(&node).unwrap();
    for bad in [&b""[..], b"zz3a9c21b04e\n", b"7f3a\n", &[0xff; 4096]] {
        fs::write(&node, bad).unwrap();
        let failure = refused(&Launch::new(dir.path()).set("server.shards=1"));
        assert_eq!(failure.code, Some(1), "{failure}");
        told(&failure, &[node.to_str().unwrap()]);
        assert_eq!(fs::read(&node).unwrap(), bad, "nothing is repaired in silence");
    }
    fs::write(&node, good).unwrap();
    let server = Server::start(dir.path());
    assert_eq!(server.get(&id), message);
}
