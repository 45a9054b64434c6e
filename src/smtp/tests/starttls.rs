//! RFC 3207 and the rows F1, F3 and F15 of docs/BAD-INPUTS.md.

use super::*;

fn config(tls: TlsPolicy) -> Config {
    Config { tls, ..Config::default() }
}

/// What EHLO lists.
fn extensions(peer: &mut Peer) -> String {
    peer.feed(b"EHLO a\r\n");
    String::from_utf8(std::mem::take(&mut peer.sent)).unwrap()
}

/// RFC 3207 §4.2: listed where it can be had and is not there yet.
#[test]
fn rfc3207_4_2_the_keyword() {
    for (tls, listed) in [
        (TlsPolicy::Off, false),
        (TlsPolicy::Offered, true),
        (TlsPolicy::Required, true),
        (TlsPolicy::Implicit, false),
    ] {
        let mut peer = Peer::new(config(tls));
        let list = extensions(&mut peer);
        assert_eq!(list.contains("250-STARTTLS\r\n"), listed, "{tls:?}: {list}");
        assert!(list.ends_with("250 HELP\r\n"), "{list}");
        if listed {
            peer.feed(b"STARTTLS\r\n");
            assert_eq!((peer.host.upgrades, peer.session.is_under_tls()), (1, true));
            assert!(!extensions(&mut peer).contains("STARTTLS"));
        }
    }
}

/// F3, RFC 3207 §4.2: name, transaction and mail data are forgotten.
#[test]
fn f3_nothing_is_carried_over() {
    let offered = config(TlsPolicy::Offered);
    check_with(
        &greeted(
            "C: STARTTLS\nS: 220 2.0.0 Ready to start TLS\n\
             C: MAIL FROM:<a@b>\nS: 503 5.5.1 Send EHLO\nC: RCPT TO:<a@b>\nS: 503 5.5.1\n\
             C: EHLO a\nS: 250 HELP\nC: RCPT TO:<a@b>\nS: 503 5.5.1\nC: BDAT 0 LAST\nS: 503\n\
             C: MAIL FROM:<a@b>\nS: 250 2.1.0\nC: RCPT TO:<c@d>\nS: 250 2.1.5\n\
             C: BDAT 2 LAST\nc: hi\nS: 250 2.0.0 Ok\nB: hi",
        ),
        &offered,
    );
}

/// B10: not in a transaction, which goes on; not in a chunked message either.
#[test]
fn b10_not_in_a_transaction() {
    let offered = config(TlsPolicy::Offered);
    check_with(
        &opened(
            "C: STARTTLS\nS: 503 5.5.1\nC: BDAT 2\nc: hi\nS: 250 2.0.0 Chunk\n\
             C: STARTTLS\nS: 503 5.5.1\nC: BDAT 0 LAST\nS: 250 2.0.0 Ok\nB: hi\n\
             C: STARTTLS\nS: 220 2.0.0",
        ),
        &offered,
    );
}

/// B9.
#[test]
fn b9_not_twice() {
    check_with(
        &greeted(
            "C: STARTTLS\nS: 220 2.0.0\nC: STARTTLS\nS: 503 5.5.1 TLS already\n\
             C: EHLO a\nS: 250 HELP\nC: STARTTLS\nS: 503 5.5.1 TLS already",
        ),
        &config(TlsPolicy::Offered),
    );
}

/// F1 (CVE-2011-0411): anybody may have sent what follows it. Whole writes only.
#[test]
fn f1_octets_behind_it_are_fatal() {
    for tls in [TlsPolicy::Offered, TlsPolicy::Required] {
        for behind in ["C: EHLO evil", "c: x", "c: \\x16\\x03\\x01"] {
            let script = format!("C: STARTTLS\n{behind}\nS: 554 5.5.0\nX:");
            // The script's turn is one write.
            let script = script.replacen("C: STARTTLS\nc:", "c: STARTTLS\\r\\n", 1);
            let script = script.replace("\\r\\n ", "\\r\\n");
            check_whole(&greeted(&script), &config(tls));
        }
    }
    let mut peer = Peer::new(config(TlsPolicy::Offered));
    peer.feed(b"STARTTLS\r\nQUIT\r\n");
    assert!(peer.closed && peer.host.upgrades == 0);
    assert!(!peer.session.is_under_tls());
}

#[test]
fn rfc3207_4_what_is_refused() {
    check_with(
        &greeted(
            "C: STARTTLS now\nS: 501 5.5.4\nC: STARTTLS\nS: 220 2.0.0\nC: STARTTLS\n\
             S: 503 5.5.1\nC: EHLO a\nS: 250 HELP\nC: STARTTLS\nS: 503 5.5.1 TLS already",
        ),
        &config(TlsPolicy::Offered),
    );
    check_with(&greeted("C: STARTTLS\nS: 503 5.5.1"), &config(TlsPolicy::Implicit));
    let mut peer = Peer::new(config(TlsPolicy::Offered));
    peer.handshakes_full = true;
    peer.feed(b"STARTTLS\r\n");
    peer.handshakes_full = false;
    peer.feed(b"STARTTLS\r\n");
    let answers = peer.answers();
    assert!(answers[1].starts_with("454 4.7.0 "), "{answers:?}");
    assert!(answers[2].starts_with("220 2.0.0 "), "{answers:?}");
}

/// F15.
#[test]
fn f15_without_a_certificate() {
    check(&greeted("C: STARTTLS\nS: 502 5.5.1\nC: STARTTLS x\nS: 502 5.5.1"));
}

/// RFC 3207 §4: all but NOOP, EHLO, STARTTLS and QUIT; a chunk is read all the same.
#[test]
fn rfc3207_4_where_it_is_required() {
    let needs = "S: 530 5.7.0 Must issue a STARTTLS command first\n";
    let mut script = "C: NOOP\nS: 250 2.0.0\n".to_owned();
    for command in [
        "HELO a",
        "MAIL FROM:<a@b>",
        "RCPT TO:<a@b>",
        "DATA",
        "RSET",
        "VRFY a",
        "HELP",
        "AUTH PLAIN",
        "ETRN a",
    ] {
        script += &format!("C: {command}\n{needs}");
    }
    script += &format!("C: BDAT 6 LAST\nc: QUIT\\r\\n\n{needs}C: NONSENSE\nS: 500 5.5.2\n");
    script += "C: STARTTLS\nS: 220 2.0.0\nC: EHLO a\nS: 250 HELP\n";
    script += "C: MAIL FROM:<a@b>\nS: 250 2.1.0\nC: QUIT\nS: 221\nX:";
    check_with(&greeted(&script), &config(TlsPolicy::Required));
    check_with("C: QUIT\nS: 221\nX:", &config(TlsPolicy::Required));
}
