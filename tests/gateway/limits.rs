//! Limits of a process and of addresses, over sockets.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::support::{Client, Server, eventually, id_of};

const STRANGERS: &str = "limits.exempt=";

/// Of 127.0.0.0/8, as many addresses as one likes.
fn client_from(host: u8, server: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0);
    socket.bind(&source.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream: TcpStream = socket.into();
    Client::over(stream)
}

/// BAD-INPUTS I5: sessions of one address, with one shard to the last.
#[test]
fn i5_an_address_has_so_many_sessions_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["server.shards=1", STRANGERS, "limits.connections.per_ip=5"];
    let server = Server::start_with(dir.path(), &sets);
    let mut open: Vec<_> = (0..5).map(|_| client_from(2, server.smtp)).collect();
    for client in &mut open {
        assert!(client.reply().starts_with("220 "));
    }
    let refused = client_from(2, server.smtp).reply();
    assert!(refused.starts_with("421 4.7.0 ") && refused.contains("your address"), "{refused}");
    assert!(client_from(3, server.smtp).reply().starts_with("220 "), "another address");
    assert_eq!(server.metric("mailrace_smtp_connections_refused_total", &["per_ip"]), 1.0);
    // One goes, one comes.
    assert!(open[0].say("QUIT").starts_with("221 "));
    eventually("a place is free", Duration::from_secs(10), || {
        client_from(2, server.smtp).reply().starts_with("220 ")
    });
}

/// Several shards count alone: at least the limit, at most twice the limit and two a shard.
#[test]
fn the_bound_over_several_shards() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["server.shards=3", STRANGERS, "limits.connections.per_ip=12"];
    let server = Server::start_with(dir.path(), &sets);
    let mut open = Vec::new();
    for _ in 0..200 {
        let mut client = client_from(2, server.smtp);
        if client.reply().starts_with("220 ") {
            open.push(client);
        }
    }
    assert!((12..=30).contains(&open.len()), "{} sessions at a limit of 12", open.len());
}

#[test]
fn an_address_opens_no_more_than_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["server.shards=1", STRANGERS, "limits.connections.rate_per_ip=20/m"];
    let server = Server::start_with(dir.path(), &sets);
    let began = Instant::now();
    let answers: Vec<_> = (0..30).map(|_| client_from(2, server.smtp).reply()).collect();
    let good = answers.iter().filter(|answer| answer.starts_with("220 ")).count();
    // A slow machine earns one more each three seconds.
    let most = 21 + began.elapsed().as_secs() as usize / 3;
    assert!((20..=most).contains(&good), "{good} of 30");
    let refused = answers.iter().find(|answer| !answer.starts_with("220 ")).unwrap();
    assert!(refused.starts_with("421 4.7.0 "), "{refused}");
    assert!(client_from(3, server.smtp).reply().starts_with("220 "));
    assert!(server.metric("mailrace_smtp_connections_refused_total", &["rate"]) >= 1.0);
}

/// Peers of `limits.exempt` meet neither.
#[test]
fn exempt_peers_are_spared() {
    let dir = tempfile::tempdir().unwrap();
    let sets = [
        "server.shards=1",
        "limits.connections.per_ip=1",
        "limits.connections.rate_per_ip=1/m",
        "limits.session_messages=1",
    ];
    let server = Server::start_with(dir.path(), &sets);
    let mut open: Vec<_> = (0..20).map(|_| server.client()).collect();
    open[0].ehlo();
    for _ in 0..3 {
        id_of(&open[0].data(b"hi\r\n"));
    }
}

/// Near the cap of sessions idle ones go after ten seconds, and those at work stay.
#[test]
fn stress_sheds_idle_sessions_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["server.shards=1", "limits.connections.total=10"];
    let server = Server::start_with(dir.path(), &sets);
    let mut idle: Vec<_> = (0..8).map(|_| server.client()).collect();
    let began = Instant::now();
    let mut busy = server.client();
    busy.ehlo();
    let overloaded = |step: &str| server.metric("mailrace_shard_overload_seconds_total", &[step]);
    eventually("it is stress", Duration::from_secs(5), || overloaded("stress") > 0.0);
    for client in &mut idle {
        while client.stream.buffer().is_empty() && began.elapsed() < Duration::from_secs(30) {
            id_of(&busy.data(b"at work\r\n"));
            let waits = client.stream.get_ref();
            waits.set_nonblocking(true).unwrap();
            let _ = std::io::BufRead::fill_buf(&mut client.stream);
            client.stream.get_ref().set_nonblocking(false).unwrap();
        }
        let reply = client.reply();
        assert!(reply.starts_with("421 4.4.2 "), "{reply}");
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(9), "not before ten seconds: {took:?}");
    id_of(&busy.data(b"still here\r\n"));
    server.says("overload: stress");
    eventually("stress ends", Duration::from_secs(20), || {
        server.errors().contains("less overload: calm")
    });
    assert_eq!(overloaded("refuse"), 0.0);
}

/// Memory fills step by step: mail of low priority is refused first, then all, then new sessions.
#[test]
fn the_ladder_is_climbed_by_memory() {
    let dir = tempfile::tempdir().unwrap();
    let sets = [
        "server.shards=1",
        "limits.message_size=1MiB",
        "limits.inflight_bytes=64MiB",
        "listener.0.priority=low",
    ];
    let server = Server::start_with(dir.path(), &sets);
    // Each holds a fragment buffer of some hundred KiB for its unfinished message.
    let mut holders: Vec<Client> = Vec::new();
    let mut seen = Vec::new();
    let began = Instant::now();
    while !seen.contains(&"421") && began.elapsed() < Duration::from_secs(60) {
        let mut holder = Client::open(server.smtp);
        let greeting = holder.reply();
        if greeting.starts_with("421 4.3.2 ") {
            seen.push("421");
            break;
        }
        holder.ehlo();
        let reply = holder.say("MAIL FROM:<a@b.test>");
        if reply.starts_with("250 ") {
            assert!(holder.say("RCPT TO:<c@d.test>").starts_with("250 "));
            assert!(holder.say("DATA").starts_with("354 "));
            assert!(holder.send(&[b"x".repeat(70), b"\r\n".to_vec()].concat().repeat(900)));
            holders.push(holder);
        } else {
            let code = &reply[..9];
            assert!(["452 4.3.2", "451 4.3.2", "452 4.3.1"].contains(&code), "{reply}");
            let code = if code == "452 4.3.2" { "452" } else { "451" };
            if seen.last() != Some(&code) {
                seen.push(code);
            }
            // A message that is under way goes on, and fills what is left.
            for holder in &mut holders {
                holder.send(&[b"x".repeat(70), b"\r\n".to_vec()].concat().repeat(100));
            }
        }
    }
    println!("{seen:?} with {} messages under way", holders.len());
    assert_eq!(seen.first(), Some(&"452"), "low priority first: {seen:?}");
    drop(holders);
    eventually("mail is accepted again", Duration::from_secs(30), || {
        // A session of its own each time: under stress it may say little else.
        let mut asking = Client::open(server.smtp);
        if !asking.reply().starts_with("220 ") {
            return false;
        }
        asking.ehlo();
        asking.say("MAIL FROM:<a@b.test>").starts_with("250 ")
    });
}
