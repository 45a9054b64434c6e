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

/// Half of them are ended for those that come later; probes, scrapes and mail go on.
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
    eventually("those before are ended", Duration::from_secs(20), || {
        let open = descriptors(&server);
        (512..700).contains(&open)
    });
    assert_eq!(server.page("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(server.page("/readyz").0, 200);
    let mut client = server.client();
    client.ehlo();
    id_of(&client.bdat(b"Subject: hello\r\n"));
    assert_eq!(server.metric("mailrace_smtp_messages_received_total", &[]), 1.0);
    let grown = server.status_of("VmRSS").saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB for 1,000 connections");
    // The oldest made room; the newest ends at the deadline of its head.
    for stream in [0, 999].map(|at: usize| idle.swap_remove(at.min(idle.len() - 1))) {
        ended(stream);
    }
    server.says("the admin listener has 512 connections");
    drop(idle);
    eventually("their descriptors are free", Duration::from_secs(20), || {
        descriptors(&server) < 200
    });
}

/// Until the server closes it; whatever it says before.
fn ended(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    String::from_utf8(answer).unwrap()
}

/// Where all have asked something, the next is refused in words.
#[test]
fn one_more_than_there_may_be_gets_a_503() {
    let most = machine::raise_descriptors();
    if most < 1_500 && !skip("too few descriptors for 512 connections") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut at_work = Vec::new();
    let refused = (0..600).find_map(|_| {
        let mut stream = TcpStream::connect(server.admin).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut answer = [0; 128];
        let read = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        at_work.push(stream);
        (!answer.starts_with("HTTP/1.1 200")).then_some(answer)
    });
    let refused = refused.expect("none was refused");
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("too many connections"));
}

/// A head, or a body, that never ends.
#[test]
fn a_request_that_does_not_come_ends_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let open = |octets: &[u8]| {
        let mut stream = TcpStream::connect(server.admin).unwrap();
        stream.write_all(octets).unwrap();
        stream
    };
    let slow = [
        open(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "),
        open(b"POST /v1/groups/g/commit HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"),
        // It had its answer, and asks no more.
        open(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    ];
    let [head, body, after] = slow.map(ended);
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    assert!(after.starts_with("HTTP/1.1 200 "), "{after}");
    assert_eq!(server.page("/healthz"), (200, "ok\n".to_owned()));
    let large = format!(
        "POST /v1/groups/g/commit HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n",
        2 << 20
    );
    let mut stream = open(large.as_bytes());
    // It may be refused before all is sent.
    let _ = stream.write_all(&vec![b'x'; 2 << 20]);
    let answer = ended(stream);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
