//! XCLIENT and XFORWARD, by Postfix's XCLIENT_README and XFORWARD_README.

use super::*;

fn trusted() -> Peer {
    let mut peer = Peer::new(Config::default());
    peer.session.trust_xclient();
    peer.feed(b"EHLO proxy\r\n");
    peer.sent.clear();
    peer
}

impl Peer {
    #[track_caller]
    fn say(&mut self, line: &str) -> String {
        self.feed(format!("{line}\r\n").as_bytes());
        let answers = self.answers();
        assert_eq!(answers.len(), 1, "{line}: {answers:?}");
        answers.into_iter().next().unwrap()
    }

    fn client(&self) -> Option<String> {
        self.session.told_client(OWN.parse().unwrap()).map(|client| client.to_string())
    }

    fn told(&self) -> String {
        let mut told = String::new();
        self.session.push_proxy_facts(&mut told);
        told
    }
}

const OWN: &str = "127.0.0.1:40000";

#[track_caller]
fn is(answer: &str, start: &str) {
    assert!(answer.starts_with(start), "{answer}");
}

/// A27: nobody else gets it, or learns of it.
#[test]
fn a27_only_trusted_peers() {
    let mut stranger = Peer::new(Config::default());
    stranger.feed(b"EHLO a\r\n");
    let listed = String::from_utf8(std::mem::take(&mut stranger.sent)).unwrap();
    assert!(!listed.contains("XCLIENT") && !listed.contains("XFORWARD"), "{listed}");
    is(&stranger.say("XCLIENT ADDR=192.0.2.1"), "502 5.5.1");
    is(&stranger.say("XFORWARD ADDR=192.0.2.1"), "502 5.5.1");
    assert_eq!((stranger.client(), stranger.host.clients), (None, 0));

    let mut peer = Peer::new(Config::default());
    peer.session.trust_xclient();
    peer.feed(b"EHLO a\r\n");
    let listed = String::from_utf8(std::mem::take(&mut peer.sent)).unwrap();
    assert!(listed.contains("250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"));
    assert!(listed.contains("250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n"));
    assert!(listed.ends_with("250 HELP\r\n"), "{listed}");
}

#[test]
fn xclient_begins_anew() {
    let mut peer = trusted();
    is(&peer.say("XCLIENT NAME=spike.test ADDR=192.0.2.9 PORT=12345"), "220 localhost ESMTP");
    assert_eq!(peer.client().as_deref(), Some("192.0.2.9:12345"));
    assert_eq!(peer.host.clients, 1);
    is(&peer.say("MAIL FROM:<a@b>"), "503 5.5.1 Send EHLO");
    peer.open();
    peer.answers();
    is(&peer.say("XCLIENT ADDR=192.0.2.10"), "503 5.5.1 Mail transaction");
    is(&peer.say("BDAT 0 LAST"), "250 2.0.0");
    // The right stays, whoever the client is; what is not told anew stays, too.
    is(&peer.say("xclient addr=ipv6:2001:db8::1 PROTO=esmtp HELO=helo.test LOGIN=bob"), "220 ");
    assert_eq!(peer.client().as_deref(), Some("[2001:db8::1]:12345"));
    assert_eq!(peer.session.auth_user(), Some("bob"));
    assert_eq!(
        peer.told(),
        "XCLIENT_NAME=spike.test\nXCLIENT_PORT=12345\nXCLIENT_ADDR=ipv6:2001:db8::1\n\
         XCLIENT_PROTO=esmtp\nXCLIENT_HELO=helo.test\nXCLIENT_LOGIN=bob"
    );
    // Name and protocol were told: no EHLO is needed.
    is(&peer.say("MAIL FROM:<a@b> BODY=8BITMIME"), "250 2.1.0");
    is(&peer.say("RSET"), "250 2.0.0");
    // Both, and the login, are forgotten with the next.
    is(&peer.say("XCLIENT HELO=other.test DESTADDR=192.0.2.25 DESTPORT=25"), "220 ");
    is(&peer.say("MAIL FROM:<a@b> BODY=8BITMIME"), "555 5.5.4");
    assert_eq!(peer.session.auth_user(), None);
    is(&peer.say("XCLIENT PROTO=SMTP"), "220 ");
    is(&peer.say("MAIL FROM:<a@b>"), "503 5.5.1 Send EHLO");
    assert_eq!(peer.client().as_deref(), Some("[2001:db8::1]:12345"));
}

#[test]
fn xclient_what_is_not_known() {
    let mut peer = trusted();
    is(&peer.say("XCLIENT NAME=[TEMPUNAVAIL] LOGIN=[unavailable]"), "220 ");
    assert_eq!((peer.client(), peer.session.auth_user()), (None, None));
    is(&peer.say("XCLIENT PORT=7"), "220 ");
    assert_eq!(peer.client().as_deref(), Some("127.0.0.1:7"));
    is(&peer.say("XCLIENT PORT=[UNAVAILABLE]"), "220 ");
    assert_eq!(peer.client().as_deref(), Some("127.0.0.1:0"));
    is(&peer.say("XCLIENT ADDR=[UNAVAILABLE] HELO=[UNAVAILABLE]"), "220 ");
    assert_eq!(peer.client().as_deref(), Some("0.0.0.0:0"));
    assert_eq!(peer.told(), "");
}

#[test]
fn xclient_bad_attributes() {
    let long = format!("LOGIN={}", "x".repeat(256));
    for argument in [
        "",
        "ADDR",
        "ADDR=",
        "=192.0.2.1",
        "ADDR=192.0.2.1 ADDR=192.0.2.2",
        "ADDR=192.0.2.1  PORT=1",
        "ADDR=192.0.2.1,PORT=1",
        "ADDR=2001:db8::1",
        "ADDR=IPV6:192.0.2.1",
        "ADDR=IPV6:",
        "ADDR=192.0.2.01",
        "ADDR=192.0.2",
        "ADDR=unknown",
        "DESTADDR=x",
        "PORT=65536",
        "PORT=-1",
        "PORT=",
        "PORT=1x",
        "DESTPORT=x",
        "PROTO=LMTP",
        "PROTO=",
        "NAME=a+20b",
        "HELO=a=b",
        "HELO=+4",
        "HELO=+4g",
        "HELO=+",
        "HELO=\u{fc}",
        "IDENT=1",
        "SOURCE=LOCAL",
        "COLOUR=red",
        "ADDR=192.0.2.1 COLOUR=red",
        &long,
    ] {
        let mut peer = trusted();
        is(&peer.say(&format!("XCLIENT {argument}")), "501 5.5.4");
        assert_eq!((peer.client(), peer.host.clients, peer.told().as_str()), (None, 0, ""));
        is(&peer.say("MAIL FROM:<a@b>"), "250 2.1.0");
    }
    let mut peer = trusted();
    is(&peer.say(&format!("XCLIENT LOGIN={}", "x".repeat(255))), "220 ");
    is(&peer.say("XCLIENT LOGIN=+41+2b=+0A"), "501 ");
    is(&peer.say("XCLIENT LOGIN=+41+2b+3D+0Ax+ff"), "220 ");
    assert_eq!(peer.session.auth_user(), Some("A+=?x?"));
}

/// What Postfix says: two commands, then the transaction; the next message has its own.
#[test]
fn xforward_is_of_one_message() {
    let mut peer = trusted();
    is(&peer.say("XFORWARD NAME=spike.test ADDR=192.0.2.9 PORT=12345"), "250 2.0.0");
    is(&peer.say("XFORWARD PROTO=ESMTP HELO=[UNAVAILABLE] IDENT=4Xy SOURCE=REMOTE"), "250 2.0.0");
    is(&peer.say("XFORWARD PORT=2"), "250 2.0.0");
    assert_eq!((peer.client(), peer.host.clients), (None, 0), "the client is who it was");
    let told = "XFORWARD_NAME=spike.test\nXFORWARD_ADDR=192.0.2.9\nXFORWARD_PROTO=ESMTP\n\
                XFORWARD_IDENT=4Xy\nXFORWARD_SOURCE=REMOTE\nXFORWARD_PORT=2";
    assert_eq!(peer.told(), told);
    is(&peer.say("MAIL FROM:<a@b>"), "250 2.1.0");
    is(&peer.say("XFORWARD PORT=3"), "503 5.5.1 Mail transaction");
    is(&peer.say("RCPT TO:<c@d>"), "250 2.1.5");
    peer.host.verdicts = false;
    peer.feed(b"BDAT 0 LAST\r\n");
    assert_eq!(peer.told(), told, "the driver keeps it at the end of mail");
    peer.with(|session, cx| session.resolve_accepted(cx, 1, &"id"));
    peer.feed(b"");
    peer.answers();
    assert_eq!(peer.told(), "");
    for forgets in ["RSET", "EHLO a", "XCLIENT PORT=[UNAVAILABLE]"] {
        is(&peer.say("XFORWARD PORT=1"), "250 2.0.0");
        assert_eq!(peer.told(), "XFORWARD_PORT=1");
        peer.feed(format!("{forgets}\r\n").as_bytes());
        peer.answers();
        assert_eq!(peer.told(), "", "{forgets}");
    }
    for argument in ["LOGIN=a", "DESTADDR=192.0.2.1", "SOURCE=x", "ADDR=x", "PORT=x", "X=y", ""] {
        is(&peer.say(&format!("XFORWARD {argument}")), "501 5.5.4");
    }
    let answer = peer.say("XFORWARD NAME=a");
    assert!(answer.starts_with("250 ") && peer.told() == "XFORWARD_NAME=a", "{answer}");
}

/// The client is greeted as at the start: not while we shut down.
#[test]
fn xclient_while_draining() {
    let mut peer = trusted();
    peer.admission = Admission::Draining;
    is(&peer.say("XCLIENT ADDR=192.0.2.1"), "421 4.3.2");
    assert!(peer.closed);
}

/// RFC 3207 §4: not ahead of the TLS that is demanded.
#[test]
fn xclient_where_tls_is_required() {
    let mut peer = Peer::new(Config { tls: TlsPolicy::Required, ..Config::default() });
    peer.session.trust_xclient();
    peer.feed(b"");
    peer.answers();
    is(&peer.say("XCLIENT ADDR=192.0.2.1"), "530 5.7.0");
    peer.feed(b"STARTTLS\r\n");
    peer.answers();
    is(&peer.say("XCLIENT ADDR=192.0.2.1"), "220 ");
    assert!(peer.session.is_under_tls(), "TLS is the connection's");
}

/// A login that was told is as good as one of AUTH, until the next client.
#[test]
fn xclient_logs_in() {
    let auth = Auth { plain: true, required: true, ..Auth::default() };
    let mut peer = Peer::new(Config { auth, tls: TlsPolicy::Implicit, ..Config::default() });
    peer.session.trust_xclient();
    peer.feed(b"EHLO a\r\n");
    peer.answers();
    is(&peer.say("MAIL FROM:<a@b>"), "530 5.7.0");
    is(&peer.say("XCLIENT LOGIN=bob HELO=a PROTO=ESMTP"), "220 ");
    assert_eq!((peer.session.auth_user(), peer.session.auth_mechanism()), (Some("bob"), None));
    is(&peer.say("AUTH PLAIN AGEAYg=="), "503 5.5.1");
    is(&peer.say("MAIL FROM:<a@b>"), "250 2.1.0");
    is(&peer.say("RSET"), "250 ");
    is(&peer.say("XCLIENT HELO=a PROTO=ESMTP"), "220 ");
    is(&peer.say("MAIL FROM:<a@b>"), "530 5.7.0");
}

/// The limits are those for the new client's address.
#[test]
fn exemption_is_set_anew() {
    let mut peer = trusted();
    peer.config.limits.session_messages = 1;
    peer.session.set_exempt(true);
    for _ in 0..2 {
        is(&peer.say("MAIL FROM:<a@b>"), "250 ");
        is(&peer.say("RSET"), "250 ");
    }
    is(&peer.say("XCLIENT ADDR=192.0.2.1 HELO=a"), "220 ");
    peer.session.set_exempt(false);
    is(&peer.say("MAIL FROM:<a@b>"), "250 ");
    is(&peer.say("RSET"), "250 ");
    is(&peer.say("MAIL FROM:<a@b>"), "421 4.7.0");
}
