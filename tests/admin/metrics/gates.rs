//! What is counted of connections that are turned away, and of the DNS.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use super::{Move, Moves, Scrape, moved};

use crate::support::{
    Client, Launch, Server, eventually,
    servers::{secure::Case, unbound::Unbound},
    signal,
};

pub const MOVES: Moves = &[
    (
        "smtp_connections_refused_total",
        "reason",
        &["max_connections", "per_ip", "rate", "auth_failures", "proxy_header", "draining"],
    ),
    ("smtp_sessions_closed_total", "reason", &["draining"]),
];

fn refused(server: &Server, reason: &str) -> bool {
    let reason = format!("reason=\"{reason}\"");
    server.metric("mailrace_smtp_connections_refused_total", &[&reason]) > 0.0
}

#[test]
fn gates_count_whom_they_turn_away() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(dir.path())
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("limits.exempt=")
        .set("limits.connections.total=12")
        .set("limits.connections.per_ip=2")
        .set("limits.connections.rate_per_ip=8/m")
        .set("listener.1.name=proxied")
        .set("listener.1.listen=127.0.0.1:0")
        .set("listener.1.protocol=lmtp")
        .set("listener.1.accept.domains=server.test")
        .set("listener.1.proxy_protocol.mode=required")
        .set("listener.1.proxy_protocol.trusted=127.0.0.0/8")
        .start();
    let mut held: Vec<_> = (0..6).map(|_| Client::open_from(server.smtp, 2)).collect();
    eventually("one address has too many", super::WAIT, || refused(&server, "per_ip"));
    held.clear();
    for _ in 0..40 {
        Client::open_from(server.smtp, 3).say("QUIT");
    }
    assert!(refused(&server, "rate"));
    let proxied: SocketAddr = server.lmtp[0].parse().unwrap();
    let mut stranger = Client::open(proxied);
    stranger.send(b"LHLO nobody\r\n");
    stranger.rest();
    assert!(refused(&server, "proxy_header"));
    held.extend((10..30).map(|last| Client::open_from(server.smtp, last)));
    eventually("all are too many", super::WAIT, || refused(&server, "max_connections"));
}

#[test]
fn an_address_that_guesses_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    super::sessions::user_add(users.to_str().unwrap());
    let file = format!("listener.0.auth.users_file={}", users.display());
    let case = Case::with(
        "starttls",
        &[
            "limits.exempt=",
            "limits.auth_failures_per_ip=1/m",
            "limits.connections.per_ip=1000",
            "limits.connections.rate_per_ip=60000/m",
            "listener.0.auth.mechanisms=PLAIN",
            &file,
        ],
    );
    let mut client = case.client("starttls");
    for _ in 0..3 {
        client.send(b"AUTH PLAIN AHRpbQB3cm9uZw==\r\n");
        client.reply();
    }
    eventually("it is turned away", super::WAIT, || {
        drop(Client::open(case.server.smtp).try_reply());
        refused(&case.server, "auth_failures")
    });
}

#[test]
fn a_drain_counts_whom_it_ends_and_whom_it_never_greeted() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Launch::new(dir.path())
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("limits.exempt=127.0.0.1/32")
        .set("listener.0.greet_delay=30s")
        .start();
    let before = Scrape::of(&server);
    let mut holds = server.client();
    holds.ehlo();
    holds.begin_data();
    let mut idle = server.client();
    let mut waits = Client::open_from(server.smtp, 2);
    eventually("all are there", super::WAIT, || {
        server.metric("mailrace_smtp_sessions_active", &[]) == 3.0
    });
    signal(&server.child, libc::SIGTERM);
    assert!(idle.reply().starts_with("421"));
    assert!(waits.reply().starts_with("421"));
    drop((idle, waits));
    let draining: &[Move] = &[
        ("smtp_connections_refused_total", "reason", &["draining"]),
        ("smtp_sessions_closed_total", "reason", &["draining"]),
    ];
    moved(&server, &before, draining);
    holds.send(b".\r\n");
    assert!(holds.reply().starts_with("250"));
    assert_eq!(server.ended(Duration::from_secs(10)), Some(0));
}

pub const DNS_MOVES: Moves = &[
    ("policy_dns_queries_total", "result", &["ok", "nxdomain"]),
    ("policy_dns_query_duration_seconds", "", &[]),
];

#[test]
fn queries_count_their_answers() {
    let Some(unbound) = Unbound::start(
        "local-zone: \"bl.test.\" static\n    local-data: \"2.0.0.127.bl.test. 300 IN A 127.0.0.2\"\n",
    ) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(dir.path())
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("limits.exempt=")
        .set(&format!("server.dns.servers={}", unbound.address))
        .set("listener.0.dns.lists=bl.test=1")
        .set("listener.0.dns.reject_at=5")
        .start();
    let before = Scrape::of(&server);
    for last in [2, 3] {
        assert!(Client::open_from(server.smtp, last).reply().starts_with("220"));
    }
    moved(&server, &before, DNS_MOVES);
}

pub const DNS_TROUBLE_MOVES: Moves =
    &[("policy_dns_queries_total", "result", &["timeout", "servfail", "shed"])];

/// A resolver that fails for one zone and is silent for the others, asked for more clients at once
/// than there may be queries under way: 1,024.
#[test]
fn queries_without_an_answer_are_counted() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = resolver.local_addr().unwrap();
    // It ends with the process of the test.
    thread::spawn(move || {
        let mut query = [0; 1_500];
        while let Ok((len, from)) = resolver.recv_from(&mut query) {
            let query = &mut query[..len];
            if query.windows(4).any(|octets| octets == b"fail") {
                // RFC 1035 §4.1.1: a response, and its code.
                query[2] |= 0x80;
                query[3] = 0x82;
                let _ = resolver.send_to(query, from);
            }
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(dir.path())
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("limits.exempt=")
        .set("limits.connections.total=1000")
        .set(&format!("server.dns.servers={address}"))
        .set("listener.0.dns.lists=fail.test=1,a.test=1,b.test=1,c.test=1,d.test=1,e.test=1")
        .set("listener.0.dns.reject_at=9")
        .set("listener.0.dns.deadline=3s")
        .start();
    let before = Scrape::of(&server);
    let held: Vec<_> = (1..=240).map(|last| Client::open_from(server.smtp, last)).collect();
    moved(&server, &before, DNS_TROUBLE_MOVES);
    drop(held);
}
