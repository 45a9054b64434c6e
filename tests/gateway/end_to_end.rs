//! The main job over real sockets: what a 250 named is read back byte by byte.

use crate::support::{self, Server, body, id_of};

#[test]
fn mail_by_data_and_bdat_is_read_back_equal() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut sent = Vec::new();
    let mut client = server.client();
    client.ehlo();
    for (seed, bytes) in [(1, 0), (2, 4_096), (3, 70_000), (4, 300_000), (5, 1 << 20), (6, 5 << 20)]
    {
        let data = body(seed, bytes);
        sent.push((id_of(&client.data(&data)), data));
        let chunk = body(seed + 100, bytes);
        sent.push((id_of(&client.bdat(&chunk)), chunk));
    }
    assert!(client.say("QUIT").starts_with("221"));
    for (id, octets) in &sent {
        assert_eq!(&server.get(id), octets, "{id}");
    }
    let dir_path = server.dir.clone();
    assert_eq!(server.stop(), Some(0), "a clean stop");
    for (id, octets) in &sent {
        assert_eq!(&support::log_get(&dir_path, id), octets, "{id} after the stop");
    }
    let server = Server::start(&dir_path);
    for (id, octets) in &sent {
        assert_eq!(&server.get(id), octets, "{id} after a new start");
    }
}

#[test]
fn i3_a_client_that_never_reads_is_bounded_and_others_go_on() {
    // Replies are owed up to a bound, then nothing more is read.
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut greedy = server.client();
    greedy.ehlo();
    let pump = std::thread::spawn(move || {
        // Fresh transactions keep the junk counter out of it.
        let group =
            b"MAIL FROM:<a@c.test>\r\nRCPT TO:<b@s.test>\r\nBDAT 1 LAST\r\nx".repeat(20_000);
        greedy.send(&group);
        let mut good = 0;
        while let Some(reply) = greedy.try_reply() {
            good += u32::from(reply.starts_with("250 2.0.0 Ok: queued"));
            if good == 5_000 {
                break;
            }
        }
        good
    });
    let mut other = server.client();
    other.ehlo();
    for seed in 0..50 {
        let octets = body(seed, 2_000);
        let id = id_of(&other.bdat(&octets));
        assert_eq!(server.get(&id), octets);
    }
    assert_eq!(pump.join().unwrap(), 5_000);
}

#[test]
fn b14_half_a_close_is_answered() {
    // A FIN behind complete commands: they are answered, then we close.
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let group = b"EHLO c.test\r\n";
    let mut stream = std::net::TcpStream::connect(server.smtp).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    stream.write_all(group).unwrap();
    let mut seen = String::new();
    let mut chunk = [0; 4096];
    while !seen.contains("250 HELP") && !seen.ends_with("HELP\r\n") {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
    stream.write_all(b"MAIL FROM:<a@c.test>\r\nRCPT TO:<b@s.test>\r\nBDAT 3 LAST\r\nabc").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    let last = rest.lines().last().unwrap();
    assert_eq!(server.get(&id_of(last)), b"abc");
}

#[test]
fn log_commands_agree_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client();
    client.ehlo();
    for seed in 0..20 {
        id_of(&client.bdat(&body(seed, 1_000)));
    }
    let lines = |arguments: &[&str]| {
        String::from_utf8(support::log_command(dir.path(), arguments)).unwrap().lines().count()
    };
    assert_eq!(lines(&["cat"]), 20);
    assert_eq!(lines(&["cat", "-o", "5:8"]), 3);
    assert_eq!(lines(&["cat", "-o", "-4", "--json"]), 4);
    assert_eq!(lines(&["cat", "-o", "@-1h", "-n", "7"]), 7);
    assert_eq!(lines(&["tail", "-n", "6"]), 6);
    assert_eq!(lines(&["ls"]), 2, "a heading and a segment");
    let stats = support::log_command(dir.path(), &["stats"]);
    assert!(String::from_utf8(stats).unwrap().starts_with("shard 0: offsets 0..20, 1 segment, "));
    let verified = support::log_command(dir.path(), &["verify"]);
    assert_eq!(String::from_utf8(verified).unwrap(), "20 records verified\n");
}
