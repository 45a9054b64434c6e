//! Many connections to the admin listener that say nothing, or half of a request.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::support::{
    Server, eventually, id_of,
    machine::{self, skip},
};

/// As the kernel lists them.
fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count()
}

/// They cost a descriptor and some memory each; probes, scrapes and mail go on.
#[test]
fn a_thousand_idle_connections_disturb_nobody() {
    let most = machine::raise_descriptors();
    if most < 2_500 && !skip("too few descriptors for 1,000 connections") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let before = server.status_of("VmRSS");
    let mut idle: Vec<_> = (0..1_000)
        .map(|at| {
            let mut stream = TcpStream::connect(server.admin).unwrap();
            if at % 2 == 1 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0").unwrap();
            }
            stream
        })
        .collect();
    eventually("all are accepted", Duration::from_secs(20), || descriptors(&server) >= 1_000);
    assert_eq!(server.page("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(server.page("/readyz").0, 200);
    let mut client = server.client();
    client.ehlo();
    id_of(&client.bdat(b"Subject: hello\r\n"));
    assert_eq!(server.metric("mailrace_smtp_messages_received_total", &[]), 1.0);
    let grown = server.status_of("VmRSS").saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB for 1,000 connections");
    // One of them goes on, late, and is answered.
    let late = idle.last_mut().unwrap();
    late.write_all(b".0.1\r\nConnection: close\r\n\r\n").unwrap();
    late.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(idle);
    eventually("their descriptors are free", Duration::from_secs(20), || {
        descriptors(&server) < 200
    });
}
