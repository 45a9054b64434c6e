//! The main job over real sockets: what a 250 named is read back byte by byte.

mod common;

use common::{Server, body, id_of};

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
        assert_eq!(&common::log_get(&dir_path, id), octets, "{id} after the stop");
    }
    let server = Server::start(&dir_path);
    for (id, octets) in &sent {
        assert_eq!(&server.get(id), octets, "{id} after a new start");
    }
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    // DURABILITY T1: I1 acknowledged is there, I2 equal, I4 ids never used again.
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = std::collections::HashMap::new();
    let cycles = if std::env::var_os("CI").is_some() { 50 } else { 10 };
    for cycle in 0..cycles {
        let server = Server::start(dir.path());
        let address = server.smtp;
        let writers: Vec<_> = (0..8_u64)
            .map(|writer| {
                std::thread::spawn(move || {
                    let mut acknowledged = Vec::new();
                    let mut client = common::Client::connect(address);
                    client.ehlo();
                    for turn in 0.. {
                        let seed = cycle << 32 | writer << 16 | turn;
                        let octets = body(seed, 500 + (seed as usize * 7919) % 9_000);
                        let group = format!(
                            "MAIL FROM:<a@c.test>\r\nRCPT TO:<b@s.test>\r\nBDAT {} LAST\r\n",
                            octets.len()
                        );
                        let mut whole = group.into_bytes();
                        whole.extend_from_slice(&octets);
                        if !client.send(&whole) {
                            break;
                        }
                        let replies = (0..3).map_while(|_| client.try_reply()).collect::<Vec<_>>();
                        let Some(last) = replies.get(2) else { break };
                        acknowledged.push((id_of(last), octets));
                    }
                    acknowledged
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(20 + cycle * 37 % 400));
        server.kill();
        for writer in writers {
            for (id, octets) in writer.join().unwrap() {
                assert!(ledger.insert(id, octets).is_none(), "an id was given twice");
            }
        }
    }
    assert!(ledger.len() > 100, "the load was real: {}", ledger.len());
    let server = Server::start(dir.path());
    drop(server);
    let ids = ledger.keys().cloned().collect::<Vec<_>>();
    for id in ids.iter().step_by(1 + ids.len() / 200) {
        assert_eq!(common::log_get(dir.path(), id), ledger[id], "{id}");
    }
}
