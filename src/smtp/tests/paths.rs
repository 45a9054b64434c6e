//! Rows C: paths and parameters.

use super::*;

fn mail(argument: &str, answer: &str) {
    check(&greeted(&format!("C: MAIL FROM:{argument}\nS: {answer}")));
}
fn rcpt(argument: &str, answer: &str) {
    check(&greeted(&format!("C: MAIL FROM:<>\nS: 250\nC: RCPT TO:{argument}\nS: {answer}")));
}

/// The path is taken, and kept octet by octet.
fn stored(path: &str) {
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    peer.feed(format!("MAIL FROM:<{path}> SMTPUTF8\r\nRCPT TO:<{path}>\r\n").as_bytes());
    peer.feed(b"BDAT 0 LAST\r\n");
    assert_eq!(peer.host.envelopes, [(path.to_owned(), vec![path.to_owned()])]);
}

#[test]
fn c1_no_brackets() {
    mail("a@b", "501 5.1.7");
}
#[test]
fn c2_space_after_colon() {
    mail(" <a@b>", "250");
}
#[test]
fn c3_null_paths() {
    mail("<>", "250");
    rcpt("<>", "501 5.1.3");
}
#[test]
fn c4_postmaster() {
    rcpt("<Postmaster>", "250");
    rcpt("<root>", "501 5.1.3");
}
/// Takes `known` anywhere at `ours`, and postmaster.
struct Policy;

impl RecipientPolicy for Policy {
    fn judge(&self, forward_path: &str) -> Recipient {
        match forward_path.rsplit_once('@') {
            None => Recipient::Ours,
            Some(("known", "ours")) => Recipient::Ours,
            Some((_, "ours")) => Recipient::Unknown,
            Some(_) => Recipient::Foreign,
        }
    }
}

/// RFC 5321 §3.3: refused at RCPT rather than bounced later; §7.8: no relay.
#[test]
fn recipients_are_judged() {
    let recipients = Some(Recipients(std::sync::Arc::new(Policy)));
    let config = Config { recipients, ..Config::default() };
    check_with(
        &greeted(
            "C: MAIL FROM:<a@b>\nS: 250\nC: RCPT TO:<no@ours>\nS: 550 5.1.1\n\
             C: RCPT TO:<known@theirs>\nS: 550 5.7.1\nC: RCPT TO:<@ours:known@theirs>\nS: 550 5.7.1\n\
             C: DATA\nS: 554 5.5.1\nC: RCPT TO:<Postmaster>\nS: 250 2.1.5\n\
             C: RCPT TO:<@theirs:known@ours>\nS: 250 2.1.5\nC: BDAT 2 LAST\nc: hi\nS: 250\nB: hi\n",
        ),
        &config,
    );
    let mut peer = Peer::new(config);
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<no@ours>\r\nRCPT TO:<a@b>\r\nRCPT TO:<known@ours>\r\n");
    assert_eq!(peer.stats.rejected_5yz[RejectReason::Policy as usize], 2);
    peer.feed(b"BDAT 0 LAST\r\n");
    assert_eq!(peer.host.envelopes, [("a@b".into(), vec!["known@ours".into()])]);
    // As many guesses as other errors.
    for _ in 0..20 {
        peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<no@ours>\r\nRSET\r\n");
    }
    assert!(peer.closed);
}
#[test]
fn c5_source_route() {
    rcpt("<@a,@b:c@d>", "250");
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"MAIL FROM:<@a:x@y>\r\nRCPT TO:<@a,@b:c@d>\r\nBDAT 0 LAST\r\n");
    assert_eq!(peer.host.envelopes, [("x@y".into(), vec!["c@d".into()])], "the route is dropped");
}
#[test]
fn c6_unbalanced() {
    for path in ["<a@b", "a@b>", "<<a@b>>", "<a@b>x", "<a@b><c@d>"] {
        mail(path, "501");
    }
}
/// A dialogue with a listener of `paths = "strict"` and `helo = "strict"`.
fn strictly(script: &str) {
    check_with(script, &strict());
}

fn strict() -> Config {
    Config { strict_paths: true, strict_helo: true, ..Config::default() }
}

/// Taken and counted once as `way` by default; 501 where the listener is strict.
#[track_caller]
fn leniently(path: &str, way: Lenient) {
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    peer.feed(format!("MAIL FROM:<{path}>\r\n").as_bytes());
    let mut counted = [0; Lenient::ALL.len()];
    counted[way as usize] = 1;
    assert_eq!(peer.stats.lenient, counted, "{path}");
    stored(path);
    strictly(&greeted(&format!("C: MAIL FROM:<{path}>\nS: 501 5.1.7")));
    strictly(&opened(&format!("C: RCPT TO:<{path}>\nS: 501 5.1.3")));
}

/// RFC 5321 §4.5.3.1: SRS, VERP and BATV make local parts over 64 octets.
#[test]
fn c7_long_parts() {
    let domain = ["d".repeat(63), "d".repeat(63), "d".repeat(63), "d".repeat(61)].join(".");
    strictly(&greeted(&format!("C: MAIL FROM:<{}@b>\nS: 250", "l".repeat(64))));
    leniently(&format!("{}@b", "l".repeat(65)), Lenient::Long);
    leniently(&format!("{}@b", "l".repeat(255)), Lenient::Long);
    leniently(&format!("a@{}", &domain[..253]), Lenient::Long);
    mail(&format!("<{}@b>", "l".repeat(256)), "501 5.1.7");
    mail(&format!("<\"{}\"@b>", "l".repeat(254)), "501 5.1.7");
    // RFC 5321 §4.5.3.1.2.
    mail(&format!("<a@{domain}dd>"), "250");
    let over = format!("{domain}.dd");
    assert_eq!(over.len(), 256);
    mail(&format!("<a@{over}>"), "501 5.1.7");
    rcpt(&format!("<a@{over}>"), "501 5.1.3");
    mail(&format!("<{}@{domain}d>", "l".repeat(255)), "250");
    mail(&format!("<{}@{domain}dd>", "l".repeat(255)), "501 5.1.7");
}
/// Carriers gave out such local parts; hosts are called `db_1`; programs write the root dot.
#[test]
fn c7a_real_senders() {
    for path in ["a..b@c.d", ".a@c.d", "a.@c.d", "..@c.d"] {
        leniently(path, Lenient::Dots);
    }
    for path in ["root@db_1.example.org", "root@_x.example.org", "root@x_"] {
        leniently(path, Lenient::Underscore);
    }
    leniently("a@c.d.", Lenient::FinalDot);
    mail("<a@c.d..>", "501");
    mail("<a@.>", "501");
    mail("<a@_-.b>", "501");
    // A quoted local-part is what the grammar has for dots.
    strictly(&greeted("C: MAIL FROM:<\"a..b\"@c.d>\nS: 250"));
    // One count for each way, also where a path has several, and for each command.
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"MAIL FROM:<a..b@c_d.>\r\nRCPT TO:<@e_f:.a@c.d>\r\n");
    assert_eq!(peer.stats.lenient, [0, 2, 2, 1, 0]);
    let mut sum = peer.stats.clone();
    sum.merge(&peer.stats);
    assert_eq!(sum.lenient, [0, 4, 4, 2, 0]);
}
/// RFC 5321 §4.1.2: `"a..b"@c.d` is the same mailbox.
#[test]
fn c7a_dots_are_quoted_for_others() {
    for (mailbox, quoted) in [
        ("a..b@c.d", "\"a..b\"@c.d"),
        (".a@c.d", "\".a\"@c.d"),
        ("a.@c.d", "\"a.\"@c.d"),
        (".", "\".\""),
        ("a.b@c.d", "a.b@c.d"),
        ("\"a..b\"@c.d", "\"a..b\"@c.d"),
        ("a@c_d.", "a@c_d."),
        ("", ""),
        ("Postmaster", "Postmaster"),
    ] {
        assert_eq!(quoted_mailbox(mailbox), quoted, "{mailbox}");
        assert_eq!(quoted_mailbox(quoted), quoted, "{quoted}");
    }
}
#[test]
fn c8_quoted() {
    for path in ["\"a b\"@x", "\"a\\\"b\"@x", "\"a@b\"@x"] {
        stored(path);
    }
}
#[test]
fn c9_control_in_quotes() {
    mail("<\"\\x1b[2J\"@x>", "501");
    mail("<\"a\\x7f\"@x>", "501");
}
#[test]
fn c10_shell_text() {
    mail("<;sleep 66;>", "501");
    mail("<${run{x}}@y>", "250");
    mail("<|id@x>", "250");
}
#[test]
fn c11_path_traversal() {
    stored("../../etc/x@y");
}
#[test]
fn c12_source_route_tricks() {
    stored("a%b@c");
    stored("b!a@c");
}
#[test]
fn c13_literals() {
    for good in ["<a@[127.0.0.1]>", "<a@[IPv6:::1]>"] {
        mail(good, "250");
    }
    for bad in ["<a@[IPv6:zz]>", "<a@[1.2.3.4>", "<a@[999.1.1.1]>"] {
        mail(bad, "501");
    }
}
#[test]
fn c14_bad_domains() {
    let label = format!("<a@{}>", "l".repeat(64));
    for path in ["<a@b..c>", "<a@-b>", "<a@b:25>", "<a@>", "<@b>", &label] {
        mail(path, "501");
    }
}
#[test]
fn c15_unknown_parameter() {
    mail("<a@b> FOO=1", "555 5.5.4");
    rcpt("<a@b> FOO", "555 5.5.4");
}
#[test]
fn c16_duplicate_parameter() {
    for twice in ["SIZE=1 SIZE=2", "BODY=7BIT BODY=7BIT", "SMTPUTF8 smtputf8"] {
        mail(&format!("<a@b> {twice}"), "501");
    }
}
#[test]
fn c17_bad_size() {
    for size in ["", "=", "=-1", "=1e3", "=111111111111111111111"] {
        mail(&format!("<a@b> SIZE{size}"), "501");
    }
    mail("<a@b> SIZE=99999999999999999999", "552 5.3.4");
}
#[test]
fn c18_size_over_limit() {
    mail("<a@b> SIZE=26214401", "552 5.3.4");
    mail("<a@b> SIZE=26214400", "250");
}
#[test]
fn c19_body() {
    mail("<a@b> BODY=FOO", "501");
    mail("<a@b> BODY=8bitmime", "250");
}
#[test]
fn c23_many_parameters() {
    mail(&format!("<a@b>{}", " X=1".repeat(50)), "5");
}
#[test]
fn c24_after_helo() {
    check("C: HELO a\nS: 250 localhost\nC: MAIL FROM:<a@b> SIZE=1\nS: 555");
}
#[test]
fn c25_utf8_without_smtputf8() {
    mail("<\u{fc}@x>", "553 5.6.7");
    mail("<\u{fc}@x> SMTPUTF8", "250");
}
#[test]
fn c26_bad_utf8() {
    for bad in ["\\xc0\\x80", "\\xed\\xa0\\x80", "\\xc3", "\\xf4\\x90\\x80\\x80"] {
        mail(&format!("<a{bad}@x> SMTPUTF8"), "501 5.6.7");
    }
}
#[test]
fn c27_invisible() {
    mail("<a\u{202e}@x> SMTPUTF8", "250");
    mail("<a\u{200b}@x>", "553");
}
#[test]
fn c28_no_normalising() {
    stored("\u{e9}@x");
    stored("e\u{301}@x");
}
#[test]
fn c29_punycode() {
    mail("<a@xn--a>", "250");
}
#[test]
fn c30_smtputf8_not_offered() {
    // We always offer it in EHLO; HELO offers nothing.
    check("C: HELO a\nS: 250\nC: MAIL FROM:<a@b> SMTPUTF8\nS: 555 5.5.4");
}
#[test]
fn c31_too_many_recipients() {
    let mut config = Config::default();
    config.limits.recipients_max = 3;
    let turn = "C: RCPT TO:<a@b>\n".repeat(1_004);
    let answers = "S: 250\n".repeat(3) + &"S: 452 4.5.3\n".repeat(1_000) + "S: 421\nX:";
    check_whole(&greeted(&format!("C: MAIL FROM:<>\nS: 250\n{turn}{answers}")), &config);
}
#[test]
fn c32_rcpt_per_session() {
    let mut config = Config::default();
    config.limits.rcpts_per_session = 2;
    check_with(&opened("C: RCPT TO:<a@b>\nS: 250\nC: RCPT TO:<a@b>\nS: 421 4.7.0\nX:"), &config);
}
#[test]
fn c33_same_recipient() {
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"MAIL FROM:<a@b>\r\n");
    peer.answers();
    peer.feed("RCPT TO:<c@d>\r\n".repeat(1_000).as_bytes());
    let answers = peer.answers();
    assert!(answers.len() == 1_000 && answers.iter().all(|answer| answer.starts_with("250 2.1.5")));
    peer.feed(b"RCPT TO:<c@d>\r\nBDAT 0 LAST\r\n");
    assert!(peer.answers().concat().starts_with("452 4.5.3"), "each one counts");
    assert_eq!(
        peer.host.envelopes,
        [("a@b".into(), vec![String::from("c@d"); 1_000])],
        "each is kept"
    );
}
/// RFC 5321 §4.1.4: mail is not refused for a name that cannot be verified.
#[test]
fn c34_ehlo_argument() {
    let long = "a".repeat(256);
    for verb in ["EHLO", "HELO"] {
        for bad in ["", "a\\0b", "a\\x1bb", "a\\tb", "a\\x7fb", "a\u{85}b", &long] {
            check(&format!("C: {verb} {bad}\nS: 501 "));
            strictly(&format!("C: {verb} {bad}\nS: 501 "));
        }
        for good in ["[1.2.3.4]", "[IPv6:::1]", "a.example", "localhost", "xn--a"] {
            check(&format!("C: {verb} {good}\nS: 250"));
            strictly(&format!("C: {verb} {good}\nS: 250"));
            assert_eq!(named(verb, good.as_bytes()), (good.into(), 0));
        }
        for odd in
            ["my pc", "b\u{fc}ro", "mail_gw", "x) (y", "a..b", "a.", "-", "[1.2.3]", "\u{202e}"]
        {
            check(&format!("C: {verb} {odd}\nS: 250"));
            strictly(&format!("C: {verb} {odd}\nS: 501 "));
            assert_eq!(named(verb, odd.as_bytes()), (odd.into(), 1));
        }
    }
    assert_eq!(named("EHLO", b"b\xfcro"), ("b\u{fffd}ro".into(), 1));
    assert_eq!(named("EHLO", &long.as_bytes()[1..]), (long[1..].into(), 1), "a label of 255");
}

/// What is kept of a name, and how often it was counted.
fn named(verb: &str, name: &[u8]) -> (String, u64) {
    let mut peer = Peer::new(Config::default());
    peer.feed(&[verb.as_bytes(), b" ", name, b"\r\n"].concat());
    peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    let kept = peer.session.envelope().helo.to_owned();
    (kept, peer.stats.lenient[Lenient::Helo as usize])
}

/// C34, J1: what EHLO takes is written so that it stays one word.
#[test]
fn j1_names_are_sanitised() {
    for (helo, written) in [
        ("x (y [1.2.3.4]) by z; ", "x_20_28y_20[1.2.3.4]_29_20by_20z_3B_20"),
        ("my pc", "my_20pc"),
        ("b\u{fc}ro", "b_C3_BCro"),
        ("mail_gw", "mail_5Fgw"),
    ] {
        let facts = ReceivedFacts { helo, ..ReceivedFacts::default() };
        let mut out = Vec::new();
        received_field(&facts, ([192, 0, 2, 1], 25).into(), "mx", "7", 0, &mut out);
        let out = String::from_utf8(out).expect("ascii");
        assert_eq!(out.lines().next(), Some(&*format!("Received: from {written} ([192.0.2.1])")));
    }
}
#[test]
fn j1_received_cannot_be_forged() {
    let facts = ReceivedFacts {
        helo: "x;(y",
        esmtp: true,
        only_forward_path: Some("a@b"),
        ..ReceivedFacts::default()
    };
    let mut out = Vec::new();
    let peer = "192.0.2.1:25".parse().expect("address");
    received_field(&facts, peer, "mx", "7", 951_782_400_000_000, &mut out);
    assert_eq!(
        String::from_utf8(out).expect("ascii"),
        "Received: from x_3B_28y ([192.0.2.1])\r\n\tby mx with ESMTP id 7\r\n\tfor <a@b>;\r\n\tTue, 29 Feb 2000 00:00:00 +0000\r\n"
    );
}
