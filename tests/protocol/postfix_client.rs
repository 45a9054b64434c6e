//! Postfix delivers to us: by SMTP, pipelined and under verified TLS, and by LMTP over TCP and a unix
//! socket. Its smtp(8) has no BDAT, which its smtpd(8) alone knows, so messages come by DATA.

use std::{collections::BTreeSet, net::SocketAddr, os::unix::fs::PermissionsExt, time::Duration};

use crate::support::{
    self, Client, Launch, Server, eventually,
    servers::{
        certificates::Authority,
        postfix::{self, Postfix},
    },
};

/// Bounds each wait of these tests.
const PATIENCE: Duration = Duration::from_secs(90);

/// Its first field tells where it begins, behind what Postfix puts in front.
fn message(number: usize) -> Vec<u8> {
    let mut text = format!("X-Number: {number}\r\nFrom: <a@s.test>\r\nTo: <b@out.test>\r\n")
        + "Date: Mon, 02 Mar 2026 10:00:00 +0100\r\n"
        + &format!("Message-ID: <{number}@s.test>\r\nSubject: {number}\r\n folded\r\n\r\n")
        + &format!(".\r\n..\r\n.dot {number}\r\n \r\ntrailing  \r\n\r\n");
    for line in 0..number % 97 {
        text += &format!("{}{line} {}\r\n", ".".repeat(line % 3), "x".repeat(60));
    }
    text.into_bytes()
}

/// Gives Postfix messages over one connection.
fn submit(address: SocketAddr, numbers: std::ops::Range<usize>, rcpts: &[&str]) {
    let mut client = Client::connect(address);
    client.ehlo();
    for number in numbers {
        assert!(client.say("MAIL FROM:<a@s.test>").starts_with("250 "));
        for rcpt in rcpts {
            let reply = client.say(&format!("RCPT TO:<{rcpt}>"));
            assert!(reply.starts_with("250 "), "{reply}");
        }
        assert!(client.say("DATA").starts_with("354 "));
        client.send(&[support::stuffed(&message(number)), b".\r\n".to_vec()].concat());
        let reply = client.reply();
        assert!(reply.starts_with("250 "), "{reply}");
    }
}

/// A record: its envelope, and the mail data from `X-Number` on.
fn records(server: &Server) -> Vec<(serde_json::Value, Vec<u8>)> {
    let cat = support::log_command(&server.dir, &["cat", "--json"]);
    let text = String::from_utf8(cat).unwrap();
    let one = |line: &str| {
        let envelope: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut data = server.get(envelope["id"].as_str().unwrap());
        let ours = data.windows(10).position(|octets| octets == b"X-Number: ").unwrap();
        let data = data.split_off(ours);
        (envelope, data)
    };
    text.lines().map(one).collect()
}

fn received(server: &Server) -> u64 {
    server.metric("mailrace_smtp_messages_received_total", &[]) as u64
}

#[test]
fn a_thousand_messages_by_smtp_under_verified_tls() {
    if !postfix::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "ca");
    authority.issue(dir.path(), "server");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let server = Launch::new(&dir.path().join("data"))
        .set("log.segment_size=16MiB")
        .set("server.shards=2")
        .set("listener.0.tls_mode=required")
        .set(&format!("server.tls.cert_file={}", at("server.pem")))
        .set(&format!("server.tls.key_file={}", at("server.key")))
        .start();
    let nexthop = format!("[localhost]:{}", server.smtp.port());
    let more = format!(
        "smtp_tls_security_level = secure\nsmtp_tls_CAfile = {}\n\
         smtp_tls_secure_cert_match = hostname\nsmtp_host_lookup = native\n",
        at("ca.pem")
    );
    let postfix = Postfix::sender(&format!("smtp:{nexthop}"), &more);
    std::thread::scope(|scope| {
        for part in 0..4 {
            let address = postfix.smtp;
            scope.spawn(move || submit(address, part * 250..(part + 1) * 250, &["b@out.test"]));
        }
    });
    let began = std::time::Instant::now();
    while received(&server) < 1_000 {
        assert!(began.elapsed() < PATIENCE, "{} of 1,000; {}", received(&server), postfix.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let records = records(&server);
    assert_eq!(records.len(), 1_000);
    let found: BTreeSet<Vec<u8>> = records.iter().map(|(_, data)| data.clone()).collect();
    let sent: BTreeSet<Vec<u8>> = (0..1_000).map(message).collect();
    assert!(found == sent, "each message is there, octet by octet");
    for (envelope, _) in &records {
        assert_eq!(envelope["mail_from"], "a@s.test");
        assert_eq!(envelope["rcpt_to"], serde_json::json!(["b@out.test"]));
    }
    let commands = |verb: &str| {
        server.metric("mailrace_smtp_commands_total", &[&format!("command=\"{verb}\"")]) as u64
    };
    assert!(commands("starttls") > 0 && commands("data") == 1_000);
    assert!(postfix.log().contains("Verified TLS connection established"), "{}", postfix.log());
}

/// One message for three, of which one is refused: two have it, and one comes back.
#[test]
fn by_lmtp_with_a_recipient_refused() {
    if !postfix::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = dir.path().join("lmtp");
    let server = Launch::new(&dir.path().join("data"))
        .set("log.segment_size=16MiB")
        .set("server.shards=2")
        .set("listener.1.name=lmtp")
        .set("listener.1.protocol=lmtp")
        // So that a local part of 65 octets is refused.
        .set("listener.1.paths=strict")
        .set(&format!("listener.1.listen=127.0.0.1:0,unix:{}", socket.display()))
        .start();
    // Postfix runs as a user of its own.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let tcp: SocketAddr = server.lmtp[0].parse().unwrap();
    let long = format!("{}@out.test", "x".repeat(65));
    let nexthops = [
        format!("lmtp:inet:[127.0.0.1]:{}", tcp.port()),
        format!("lmtp:unix:{}", socket.display()),
    ];
    for (number, nexthop) in nexthops.iter().enumerate() {
        let postfix = Postfix::sender(nexthop, "");
        let rcpts = ["b@out.test", &long, "c@out.test", "d@out.test"];
        submit(postfix.smtp, number..number + 1, &rcpts);
        eventually("Postfix has done with all four", PATIENCE, || {
            let log = postfix.log();
            let refused = |line: &str| line.contains(&long) && line.contains("status=bounced");
            log.matches("status=sent").count() == 3 && log.lines().any(refused)
        });
        let log = postfix.log();
        // A reply of its own for each.
        assert_eq!(log.matches("status=sent (250 2.0.0 Ok: queued as ").count(), 3, "{log}");
        assert!(log.contains("said: 501 5.1.3"), "{log}");
        let records = records(&server);
        assert_eq!(records.len(), number + 1, "one record");
        let last = records.iter().find(|(_, data)| *data == message(number));
        let (envelope, _) = last.expect("octet by octet");
        let mut rcpts: Vec<String> = serde_json::from_value(envelope["rcpt_to"].clone()).unwrap();
        rcpts.sort();
        assert_eq!(rcpts, ["b@out.test", "c@out.test", "d@out.test"]);
    }
}
