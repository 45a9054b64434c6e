//! DURABILITY D16: a server that is told to end finishes what is under way, and ends.

// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    time::{Duration, Instant},
};

use common::{Client, Server, body, eventually, id_of, signal};

/// Longest that a server with nothing left to do may take to end.
const SOON: Duration = Duration::from_secs(5);

/// Refused by the kernel, or told to come back: a connection that nobody answers is neither.
fn refused(server: &Server) -> bool {
    let Ok(mut stream) = TcpStream::connect(server.smtp) else { return true };
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut told = String::new();
    match stream.read_to_string(&mut told) {
        Ok(_) => told.starts_with("421 4.3.2 "),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn a_message_in_progress_is_finished(signal_number: i32) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path(), &["server.shards=2"]);
    let (mut data, mut chunks, mut idle, mut fresh) =
        (server.client(), server.client(), server.client(), server.client());
    for client in [&mut data, &mut chunks, &mut idle] {
        client.ehlo();
    }
    let message = body(1, 400_000);
    let octets = common::stuffed(&message);
    let (first, last) = octets.split_at(octets.len() / 2);
    data.begin_data();
    data.send(first);
    let (chunk, rest) = message.split_at(1_000);
    chunks.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@server.test>\r\nBDAT 1000\r\n");
    chunks.send(chunk);
    for code in ["250 2.1.0", "250 2.1.5", "250 2.0.0"] {
        let reply = chunks.reply();
        assert!(reply.starts_with(code), "{reply}");
    }
    chunks.send(format!("BDAT {} LAST\r\n", rest.len()).as_bytes());
    chunks.send(&rest[..100]);
    eventually("the octets arrive", SOON, || {
        server.metric("mailrace_shard_inflight_bytes", &[]) >= 100_000.0
    });

    signal(&server.child, signal_number);
    // Sessions without a message are told to go, whether they had said EHLO or not.
    for client in [&mut idle, &mut fresh] {
        let reply = client.reply();
        assert!(reply.starts_with("421 4.3.2 "), "{reply}");
        assert_eq!(client.rest(), b"");
    }
    eventually("new connections are refused", SOON, || refused(&server));
    assert_eq!(server.child.try_wait().unwrap(), None, "it waits for the messages");

    data.send(last);
    data.send(b".\r\n");
    let by_data = id_of(&data.reply());
    chunks.send(&rest[100..]);
    let by_bdat = id_of(&chunks.reply());
    for client in [&mut data, &mut chunks] {
        let reply = client.reply();
        assert!(reply.starts_with("421 4.3.2 "), "{reply}");
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(server.ended(SOON), Some(0));
    for id in [by_data, by_bdat] {
        assert_eq!(server.get(&id), message);
    }
    assert_eq!(common::verified(dir.path()), 2);
}

#[test]
fn sigterm_lets_messages_in_progress_finish() {
    a_message_in_progress_is_finished(libc::SIGTERM);
}

#[test]
fn sigint_lets_messages_in_progress_finish() {
    a_message_in_progress_is_finished(libc::SIGINT);
}

#[test]
fn an_idle_server_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path(), &["server.shards=2"]);
    signal(&server.child, libc::SIGTERM);
    assert_eq!(server.ended(SOON), Some(0));
    assert_eq!(common::verified(dir.path()), 0);
}

/// A server that was told to drain while a client is in the middle of a message.
fn draining(dir: &std::path::Path) -> (Server, Client, Instant) {
    let server = Server::start(dir);
    let mut client = server.client();
    client.ehlo();
    client.begin_data();
    client.send(b"Subject: never ends\r\n");
    eventually("the octets arrive", SOON, || {
        server.metric("mailrace_shard_inflight_bytes", &[]) > 0.0
    });
    let began = Instant::now();
    signal(&server.child, libc::SIGTERM);
    eventually("new connections are refused", SOON, || refused(&server));
    (server, client, began)
}

/// Whoever signals twice does not want to wait: the message in progress gets its 421 at once.
#[test]
fn a_second_signal_ends_the_drain() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut client, began) = draining(dir.path());
    signal(&server.child, libc::SIGTERM);
    let reply = client.reply();
    assert!(reply.starts_with("421 4.3.2 "), "{reply}");
    assert_eq!(server.ended(SOON), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(common::verified(dir.path()), 0);
}

/// A peer that never ends its message does not keep the server for ever: 30 s and a little.
#[test]
fn a_drain_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut client, began) = draining(dir.path());
    client.stream.get_ref().set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let reply = client.reply();
    assert!(reply.starts_with("421 4.3.2 "), "{reply}");
    assert!(began.elapsed() >= Duration::from_secs(29), "{:?}", began.elapsed());
    assert_eq!(server.ended(SOON), Some(0));
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    assert_eq!(common::verified(dir.path()), 0);
}
