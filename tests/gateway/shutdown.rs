//! DURABILITY D16: a server that is asked to end finishes what is under way, and ends.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::support::{self, Client, Server, body, eventually, id_of, signal};

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
    let octets = support::stuffed(&message);
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
    assert_eq!(support::verified(dir.path()), 2);
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
    assert_eq!(support::verified(dir.path()), 0);
}

/// The message in progress gets its 421, and the server ends soon.
#[track_caller]
fn is_cut_short(server: &mut Server, client: &mut Client, began: Instant) {
    let reply = client.reply();
    assert!(reply.starts_with("421 4.3.2 "), "{reply}");
    assert_eq!(server.ended(SOON), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// A server, and a client in the middle of a message.
fn in_the_middle(dir: &std::path::Path) -> (Server, Client) {
    let server = Server::start(dir);
    let mut client = server.client();
    client.ehlo();
    client.begin_data();
    client.send(b"Subject: never ends\r\n");
    eventually("the octets arrive", SOON, || {
        server.metric("mailrace_shard_inflight_bytes", &[]) > 0.0
    });
    (server, client)
}

/// A server that was told to drain while a client is in the middle of a message.
fn draining(dir: &std::path::Path) -> (Server, Client, Instant) {
    let (server, client) = in_the_middle(dir);
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
    assert_eq!(support::verified(dir.path()), 0);
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
    assert_eq!(support::verified(dir.path()), 0);
}

/// A server with so long a lead, and a client that came before its end was asked for.
fn leading(dir: &std::path::Path, lead: &str) -> (Server, Client) {
    let lead = format!("server.drain.lead={lead}");
    let server = Server::start_with(dir, &["server.shards=2", "log.segment_size=16MiB", &lead]);
    let mut client = server.client();
    client.ehlo();
    (server, client)
}

/// `mailrace drain` against a server.
fn drain(server: &Server, more: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(support::MAILRACE);
    command.arg("drain").args(["--set", &format!("server.admin.listen={}", server.admin)]);
    command.args(more).output().unwrap()
}

/// Not ready, and yet serving: whoever was sent here meanwhile is served.
fn mail_is_taken_in_the_lead(server: &Server, before: &mut Client) -> Vec<String> {
    eventually("it is no longer ready", SOON, || server.page("/readyz").0 == 503);
    assert!(server.page("/readyz").1.contains("draining"), "{}", server.page("/readyz").1);
    assert_eq!(server.page("/healthz").0, 200);
    let mut late = server.client();
    late.ehlo();
    vec![id_of(&late.bdat(&body(1, 500))), id_of(&before.bdat(&body(2, 500)))]
}

#[test]
fn the_ports_stay_open_for_the_lead() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut client) = leading(dir.path(), "6s");
    let began = Instant::now();
    signal(&server.child, libc::SIGTERM);
    let ids = mail_is_taken_in_the_lead(&server, &mut client);
    let reply = client.reply();
    assert!(reply.starts_with("421 4.3.2 "), "{reply}");
    assert!(began.elapsed() >= Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(server.ended(SOON), Some(0));
    for (id, seed) in ids.iter().zip([1, 2]) {
        assert_eq!(server.get(id), body(seed, 500));
    }
}

/// Two signals that come together are as good as one after the other.
#[test]
fn two_signals_at_once_end_the_drain() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut client) = in_the_middle(dir.path());
    let began = Instant::now();
    // Two of a kind might be delivered as one.
    signal(&server.child, libc::SIGTERM);
    signal(&server.child, libc::SIGINT);
    is_cut_short(&mut server, &mut client, began);
}

/// `serve --help`: each further signal ends the wait under way, first the lead, then that for
/// transactions.
#[test]
fn each_further_signal_ends_a_wait() {
    let help = std::process::Command::new(support::MAILRACE).args(["serve", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = "Each further signal cuts the current wait short: first the lead, then the wait for transactions";
    assert!(help.contains(words), "{help}");
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut client) = leading(dir.path(), "1h");
    client.begin_data();
    client.send(b"Subject: never ends\r\n");
    let began = Instant::now();
    signal(&server.child, libc::SIGTERM);
    eventually("it is no longer ready", SOON, || server.page("/readyz").0 == 503);
    assert!(!refused(&server), "the ports are open");
    signal(&server.child, libc::SIGTERM);
    eventually("new connections are refused", SOON, || refused(&server));
    assert_eq!(server.child.try_wait().unwrap(), None, "it waits for the message");
    signal(&server.child, libc::SIGTERM);
    is_cut_short(&mut server, &mut client, began);
}

/// A lead of less than a second is none that is left out; one line says it.
#[test]
fn the_lead_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, client) = leading(dir.path(), "500ms");
    drop(client);
    signal(&server.child, libc::SIGTERM);
    assert_eq!(server.ended(SOON), Some(0));
    server.says("draining lead_seconds=0.5\n");
    assert_eq!(server.errors().matches(" INFO  draining").count(), 1, "{}", server.errors());
}

/// A second signal ends the lead, not the message in progress.
#[test]
fn a_second_signal_ends_the_lead() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut client) = leading(dir.path(), "1h");
    client.begin_data();
    client.send(b"Subject: in progress\r\n");
    signal(&server.child, libc::SIGTERM);
    eventually("it is no longer ready", SOON, || server.page("/readyz").0 == 503);
    drop(server.client());
    signal(&server.child, libc::SIGTERM);
    eventually("new connections are refused", SOON, || refused(&server));
    client.send(b".\r\n");
    id_of(&client.reply());
    assert_eq!(server.ended(SOON), Some(0));
    assert_eq!(support::verified(dir.path()), 1);
}

/// `mailrace drain` begins what SIGTERM begins. The SIGTERM that a service manager sends behind it
/// is no second wish; another one is.
#[test]
fn a_drain_is_begun_by_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut client) = leading(dir.path(), "1h");
    let told = support::succeeded("drain", drain(&server, &[])).stdout;
    let told = String::from_utf8(told).unwrap();
    assert_eq!(
        told,
        "draining: the ports close in 1h, open sessions finish, then the server stops\n"
    );
    assert_eq!(server.page("/readyz").0, 503, "at once");
    mail_is_taken_in_the_lead(&server, &mut client);
    let again = support::succeeded("drain", drain(&server, &["--json"])).stdout;
    let again: serde_json::Value = serde_json::from_slice(&again).unwrap();
    let left = again["lead_seconds"].as_f64().unwrap();
    assert!(again["draining"] == true && left > 3_500.0 && left < 3_600.0, "{again}");
    signal(&server.child, libc::SIGTERM);
    mail_is_taken_in_the_lead(&server, &mut client);
    signal(&server.child, libc::SIGTERM);
    let reply = client.reply();
    assert!(reply.starts_with("421 4.3.2 "), "{reply}");
    assert_eq!(server.ended(SOON), Some(0));
    assert_eq!(support::verified(dir.path()), 4);
}

/// Without a lead the command ends the server as fast as a signal; where the server asks for a
/// token the command brings it.
#[test]
fn a_drain_needs_the_token_and_no_lead() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let setting = format!("server.admin.token_file={}", token.display());
    let mut server = Server::start_with(&dir.path().join("data"), &["server.shards=1", &setting]);
    let refused = drain(&server, &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("a token is required"),
        "{refused:?}"
    );
    assert_eq!(server.page("/readyz").0, 200);
    let told = support::succeeded("drain", drain(&server, &["--set", &setting])).stdout;
    assert!(String::from_utf8_lossy(&told).contains("the ports close now"), "{told:?}");
    assert_eq!(server.ended(SOON), Some(0));
}
