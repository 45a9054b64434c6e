//! The checklist of the receiving server, a test a line, named after the section it comes from.

use super::*;

/// Every fixed reply, taken from the source, so that none can be forgotten.
fn fixed_replies() -> Vec<String> {
    let source = include_str!("../reply.rs");
    let replies: Vec<String> = source
        .split("Reply::new(")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix('"'))
        .filter_map(|rest| rest.split_once("\\r\\n\""))
        .map(|(line, _)| line.to_owned())
        .collect();
    assert!(replies.len() >= 38, "{} replies found", replies.len());
    replies
}

fn ehlo(config: Config, exempt: bool) -> Vec<String> {
    let session = Session::new(Duration::ZERO, exempt, &config);
    let mut peer = Peer::over(session, config, Recorder::default());
    peer.feed(b"");
    peer.lines();
    peer.feed(b"EHLO a\r\n");
    peer.lines()
}

#[test]
fn rfc5321_3_1_the_greeting_names_our_domain() {
    let mut peer = Peer::new(Config { hostname: "mx.example".into(), ..Config::default() });
    peer.feed(b"");
    assert_eq!(peer.lines(), ["220 mx.example ESMTP Mailrace"]);
}
#[test]
fn rfc5321_4_2_every_421_names_our_domain_and_closes() {
    let mut config = Config { hostname: "mx.example".into(), ..Config::default() };
    config.limits.errors_hard = 1;
    config.limits.junk_max = 0;
    config.limits.session_messages = 0;
    for turn in ["XYZZY\r\n", "NOOP\r\n", "GET / HTTP/1.1\r\n", "EHLO a\r\n|MAIL FROM:<>\r\n"] {
        let mut peer = Peer::new(config.clone());
        turn.split('|').for_each(|turn| peer.feed(turn.as_bytes()));
        let last = peer.answers().pop().expect("an answer");
        assert!(last.starts_with("421 4.7.0 mx.example ") && peer.closed, "{turn} {last}");
    }
    let mut peer = Peer::new(config);
    peer.with(|session, cx| session.handle_drain(cx));
    peer.feed(b"");
    let last = peer.answers().pop().expect("an answer");
    assert!(last.starts_with("421 4.3.2 mx.example ") && peer.closed, "{last}");
}
#[test]
fn rfc5321_3_8_no_service_is_told_in_place_of_the_greeting() {
    for entry in [
        Entry::Draining,
        Entry::MemoryFull,
        Entry::Crowded,
        Entry::LogFailed,
        Entry::Overloaded,
        Entry::AddressFull,
        Entry::AddressFast,
    ] {
        let mut peer = unopened(Config::default());
        let ending = if entry == Entry::Draining { Ending::Draining } else { Ending::Refused };
        let event = peer.with(|session, cx| session.handle_open(cx, entry));
        assert_eq!(event, Event::Close(ending));
        peer.take();
        let out = peer.sent;
        let code: &[u8] = match entry {
            Entry::LogFailed => b"421 4.3.0",
            Entry::AddressFull | Entry::AddressFast => b"421 4.7.0",
            _ => b"421 4.3.2",
        };
        assert!(out.starts_with(&[code, b" localhost "].concat()), "{}", out.escape_ascii());
    }
}
#[test]
fn rfc5321_2_4_case_of_verbs_and_keywords_does_not_matter() {
    check(
        "C: ehlo a\nS: 250\nC: mail from:<a@b> size=1 body=8bitmime smtputf8\nS: 250\n\
         C: Rcpt To:<c@d>\nS: 250\nC: rset\nS: 250\nC: noop\nS: 250\nC: vrfy a\nS: 252\n\
         C: help\nS: 214\nC: helo a\nS: 250\nC: quit\nS: 221\nX:",
    );
}
#[test]
fn rfc5321_2_4_case_of_the_local_part_is_kept() {
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"MAIL FROM:<MiXed@B>\r\nRCPT TO:<PostMaster>\r\nBDAT 0 LAST\r\n");
    assert_eq!(peer.host.envelopes, [("MiXed@B".into(), vec!["PostMaster".into()])]);
}
#[test]
fn rfc5321_4_1_4_some_commands_need_no_ehlo() {
    check(
        "C: VRFY a\nS: 252\nC: NOOP\nS: 250\nC: HELP\nS: 214\nC: RSET\nS: 250\nC: EXPN a\nS: 502",
    );
    check("C: RCPT TO:<a@b>\nS: 503\nC: DATA\nS: 503\nC: MAIL FROM:<a@b>\nS: 503");
}
#[test]
fn rfc5321_4_1_4_a_second_ehlo_lists_again_and_resets() {
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    let first = peer.lines();
    peer.open();
    peer.lines();
    peer.feed(b"EHLO b\r\n");
    assert_eq!(peer.lines(), first[1..], "the same list, without the greeting");
    peer.feed(b"RCPT TO:<c@d>\r\n");
    assert!(peer.answers().concat().starts_with("503"));
}
#[test]
fn rfc5321_4_1_3_address_literals_in_ehlo() {
    for literal in ["[192.0.2.1]", "[IPv6:2001:db8::1]"] {
        check(&format!("C: EHLO {literal}\nS: 250\nC: HELO {literal}\nS: 250"));
    }
}
#[test]
fn rfc5321_4_1_1_white_space_before_crlf_is_borne() {
    check(&opened("C: DATA \\t \nS: 354\nC: .\nS: 250\nB:"));
    check("C: EHLO a  \nS: 250\nC: MAIL FROM:<a@b> \\t\nS: 250\nC: RCPT TO:<a@b>\\t\nS: 250");
}
#[test]
fn rfc5321_4_1_1_5_rset_is_harmless_and_clears() {
    check("C: RSET\nS: 250 2.0.0\nC: EHLO a\nS: 250");
    check(&opened("C: RSET\nS: 250\nC: RCPT TO:<c@d>\nS: 503\nC: DATA\nS: 503"));
}
#[test]
fn rfc5321_4_1_1_8_help_is_214() {
    check("C: HELP\nS: 214 2.0.0\nC: HELP MAIL\nS: 214 2.0.0");
}
#[test]
fn rfc5321_3_5_3_vrfy_is_252() {
    check(&opened("C: VRFY root\nS: 252 2.0.0\nC: VRFY <a@b>\nS: 252 2.0.0\nC: VRFY\nS: 501"));
    // RFC 5321 §3.5.2: not listed, since it verifies nothing.
    assert!(ehlo(Config::default(), false).iter().all(|line| !line.contains("VRFY")));
}
#[test]
fn rfc5321_4_2_4_codes_for_bad_commands() {
    check("C: XYZZY\nS: 500 5.5.2\nC: EXPN a\nS: 502 5.5.1\nC: MAIL FROM:<a@b>\nS: 503 5.5.1");
    check(&greeted("C: MAIL FROM\nS: 501 5.5.4\nC: MAIL FROM:<a@b> FOO=1\nS: 555 5.5.4"));
}
#[test]
fn rfc5321_4_1_1_4_a_lost_connection_keeps_what_was_finished() {
    let mut peer = Peer::new(Config::default());
    peer.open();
    peer.feed(b"BDAT 2 LAST\r\nhi");
    peer.open();
    peer.feed(b"BDAT 2\r\nno");
    assert_eq!(peer.with(|session, cx| session.handle_eof(cx)), Event::Close(Ending::ClientGone));
    assert_eq!(peer.host.bodies, [b"hi"]);
}
#[test]
fn rfc5321_4_2_no_reply_is_unasked_for() {
    let mut peer = Peer::new(Config::default());
    peer.open();
    peer.feed(b"BDAT 2\r\nno");
    peer.answers();
    peer.now = peer.session.deadline() - Duration::from_millis(1);
    assert_eq!(peer.with(|session, cx| session.handle_deadline(cx)), Event::NeedInput);
    assert_eq!(peer.with(|session, cx| session.handle_eof(cx)), Event::Close(Ending::ClientGone));
    assert_eq!(
        peer.with(|session, cx| session.handle_deadline(cx)),
        Event::Close(Ending::ClientGone)
    );
    peer.feed(b"NOOP\r\n");
    assert!(peer.answers().is_empty());
}
#[test]
fn rfc5321_4_2_1_lines_of_a_reply_repeat_the_code() {
    // RFC 5321 §4.5.3.1.5: 512 octets, also with the longest domain.
    let config = Config { hostname: "h".repeat(255), ..Config::default() };
    let lines = ehlo(config, false);
    let (last, most) = lines.split_last().expect("lines");
    assert!(last.starts_with("250 ") && most.iter().all(|line| line.starts_with("250-")));
    for line in &lines {
        assert!(line.len() + 2 <= 512 && line.bytes().all(|octet| matches!(octet, b' '..=b'~')));
    }
}
#[test]
fn rfc5321_4_5_3_1_5_fixed_replies_are_short_and_printable() {
    for line in fixed_replies() {
        assert!(line.len() + 2 <= 512 && line.bytes().all(|octet| matches!(octet, b' '..=b'~')));
        let code: u16 = line[..3].parse().expect("digits");
        assert!(REPLY_CODES.contains(&code), "{code} has a counter of its own");
    }
}

#[test]
fn rfc2034_4_every_reply_has_a_code_of_its_class() {
    for line in fixed_replies() {
        let mut words = line.split(' ');
        let code = words.next().expect("a code");
        let text = words.next().expect("a text");
        let enhanced: Vec<&str> = text.split('.').collect();
        if code.starts_with('3') || line.starts_with("501 Syntax: EHLO") {
            assert!(enhanced.len() < 3, "{line}: 3yz and answers to EHLO have none");
            continue;
        }
        assert_eq!(enhanced.len(), 3, "{line}");
        assert_eq!(enhanced[0], &code[..1], "{line}: RFC 3463 §2, same class");
        assert!(enhanced.iter().all(|number| number.parse::<u16>().is_ok()), "{line}");
    }
}

#[test]
fn rfc5321_4_5_1_postmaster_in_any_case() {
    for name in ["Postmaster", "POSTMASTER", "postmaster", "postmaster@any.example"] {
        check(&greeted(&format!("C: MAIL FROM:<>\nS: 250\nC: RCPT TO:<{name}>\nS: 250 2.1.5")));
    }
}
#[test]
fn rfc5321_4_5_3_1_10_earlier_recipients_stay_valid() {
    let mut config = Config::default();
    assert!(config.limits.recipients_max >= 100, "RFC 5321 §4.5.3.1.8");
    config.limits.recipients_max = 1;
    check_with(
        &opened("C: RCPT TO:<e@f>\nS: 452 4.5.3\nC: BDAT 2 LAST\nc: hi\nS: 250\nB: hi"),
        &config,
    );
}
#[test]
fn rfc5321_4_1_1_4_one_final_reply_for_all_recipients() {
    check(&opened("C: RCPT TO:<e@f>\nS: 250\nC: DATA\nS: 354\nC: .\nS: 250 2.0.0\nB:"));
}
#[test]
fn rfc5321_3_3_no_354_without_a_recipient() {
    check(&greeted("C: MAIL FROM:<a@b>\nS: 250\nC: DATA\nS: 554 5.5.1"));
    check(&greeted("C: DATA\nS: 503 5.5.1"));
}
#[test]
fn rfc5321_4_1_1_4_the_250_waits_for_the_log() {
    let mut peer = Peer::new(Config::default());
    peer.host.verdicts = false;
    peer.open();
    peer.feed(b"BDAT 2 LAST\r\nhiNOOP\r\n");
    peer.answers();
    peer.with(|session, cx| session.resolve_accepted(cx, 7, &"id"));
    assert_eq!((peer.replies.ready(), peer.replies.first_held()), (0, Some(7)));
    peer.replies.release(7);
    assert_eq!(peer.replies.ready(), 0, "offset 7 is not below a mark of 7");
    peer.replies.release(8);
    assert!(peer.replies.ready() > 0);
}
#[test]
fn rfc5321_4_1_1_4_our_trouble_is_4yz_and_clears() {
    let all = [
        (Refusal::LogFailed, "451 4.3.0"),
        (Refusal::Timeout, "451 4.3.0"),
        (Refusal::DiskFull, "452 4.3.1"),
        (Refusal::MemoryFull, "452 4.3.1"),
    ];
    for (refusal, answer) in all {
        let mut peer = Peer::new(Config::default());
        peer.host.verdicts = false;
        peer.open();
        peer.feed(b"BDAT 2 LAST\r\nhiDATA\r\n");
        peer.answers();
        peer.with(|session, cx| session.resolve_refused(cx, refusal));
        peer.feed(b"");
        let answers = peer.answers();
        assert!(answers[0].starts_with(answer) && answers[1].starts_with("503"), "{answers:?}");
    }
    let at_mail = [
        (Admission::LogFailed, "451 4.3.0"),
        (Admission::DiskFull, "452 4.3.1"),
        (Admission::MemoryFull, "452 4.3.1"),
        (Admission::Overloaded, "451 4.3.2"),
    ];
    for (admission, answer) in at_mail {
        let mut peer = Peer::new(Config::default());
        peer.open();
        peer.feed(b"RSET\r\n");
        peer.answers();
        peer.admission = admission;
        peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        let answers = peer.answers();
        assert!(answers[0].starts_with(answer) && answers[1].starts_with("503"), "{answers:?}");
    }
}

/// The overload ladder's first refusal is for mail of low priority: of a listener, or by MT-PRIORITY.
#[test]
fn rfc6710_what_can_wait_waits_under_overload() {
    for (low_priority, parameter, answer) in [
        (false, "", "250"),
        (true, "", "452 4.3.2"),
        (false, " MT-PRIORITY=0", "250"),
        (false, " MT-PRIORITY=3", "250"),
        (false, " MT-PRIORITY=-1", "452 4.3.2"),
        (true, " MT-PRIORITY=9", "452 4.3.2"),
    ] {
        let mut peer = Peer::new(Config { low_priority, mt_priority: true, ..Config::default() });
        peer.open();
        peer.feed(b"RSET\r\n");
        peer.answers();
        peer.admission = Admission::OverloadedLow;
        peer.feed(format!("MAIL FROM:<a@b>{parameter}\r\n").as_bytes());
        let answers = peer.answers();
        assert!(answers[0].starts_with(answer), "{low_priority} {parameter}: {answers:?}");
    }
}

/// PROTOCOL §5, the column for stress; nothing is more generous under it.
#[test]
fn limits_under_stress() {
    let (calm, stress) = (Limits::default(), Limits::default().stressed());
    let seconds = Duration::from_secs;
    assert_eq!((stress.command_wait, stress.data_time), (seconds(10), seconds(60)));
    assert_eq!((stress.commit_wait, stress.handshake_wait), (seconds(20), seconds(10)));
    assert_eq!((stress.session_time, stress.data_rate_min_bytes), (seconds(300), 5_000));
    assert_eq!((stress.errors_hard, stress.junk_max, stress.discard_line_bytes), (1, 1, 0));
    assert_eq!(stress.unsent_replies_bytes, 16_384);
    assert_eq!(stress.message_bytes, calm.message_bytes, "what was promised stays");
    assert_eq!(stress.recipients_max, calm.recipients_max);
    // What the operator set lower stays so, and what is off stays off.
    let low = Limits { command_wait: seconds(3), data_rate_min_bytes: 0, ..Limits::default() };
    assert_eq!(low.stressed().command_wait, seconds(3));
    assert_eq!(low.stressed().data_rate_min_bytes, 0);
    // A session feels it with its next call: one error, and it is over.
    let mut peer = Peer::new(Config::default().stressed());
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"FOO\r\n");
    assert!(peer.closed);
}

#[test]
fn rfc5321_4_5_3_1_limits_are_at_least_the_standard_ones() {
    let limits = Limits::default();
    assert_eq!(limits.command_wait, Duration::from_secs(300), "RFC 5321 §4.5.3.2.7");
    assert!(limits.command_line_bytes == 2_048 && limits.content_line_bytes == 65_536);
    assert!(limits.message_bytes == 26_214_400 && limits.recipients_max == 1_000);
    assert!(limits.data_time == Duration::from_secs(1_800));
    assert!(limits.commit_wait == Duration::from_secs(60));
    assert!(limits.session_time == Duration::from_secs(3_600));
    assert!(limits.session_messages == 10_000 && limits.rcpts_per_session == 10_000);
    assert!(limits.header_scan_bytes == 262_144 && limits.received_max == 100);
    assert!(limits.bdat_chunks_max == 4_096 && limits.parameters_max == 16);
    assert!(limits.errors_soft == 10 && limits.errors_hard == 20 && limits.junk_max == 100);
    assert!(limits.discard_line_bytes == 65_536 && limits.unsent_replies_bytes == 65_536);
    assert!(limits.data_rate_min_bytes == 500);
    assert_eq!(limits.data_rate_grace, Duration::from_secs(30));
}
#[test]
fn rfc5321_4_5_3_1_2_a_domain_of_255_octets() {
    let domain = [63, 63, 63, 63].map(|len| "d".repeat(len)).join(".");
    assert_eq!(domain.len(), 255);
    check(&format!("C: EHLO {domain}\nS: 250"));
    check(&format!("C: EHLO {domain}d\nS: 501 "));
}
#[test]
fn rfc5321_4_5_3_1_6_a_stuffed_dot_is_not_counted() {
    for (bytes, long) in [(998, false), (999, true)] {
        let mut peer = Peer::new(Config::default());
        peer.open();
        peer.feed(b"DATA\r\n");
        peer.feed(format!("..{}\r\n.\r\n", "x".repeat(bytes - 1)).as_bytes());
        assert_eq!(peer.host.flags.last().expect("a message").long_line, long, "{bytes}");
    }
}
/// BAD-INPUTS I1, too.
#[test]
fn rfc5321_4_5_3_2_7_command_wait_covers_a_whole_command() {
    let wait = Limits::default().command_wait;
    let mut peer = Peer::new(Config::default());
    assert_eq!(peer.session.deadline(), wait);
    peer.now = Duration::from_secs(200);
    peer.feed(b"NOO");
    assert_eq!(peer.session.deadline(), wait, "octets that trickle in do not move it");
    peer.feed(b"P\r\n");
    assert_eq!(peer.session.deadline(), peer.now + wait);
    peer.now = peer.session.deadline();
    assert_eq!(peer.with(|session, cx| session.handle_deadline(cx)), Event::Close(Ending::Timeout));
    peer.feed(b"");
    assert_eq!(peer.answers().last().expect("an answer"), "421 4.4.2 localhost Timeout");
    assert_eq!(peer.session.deadline(), Duration::MAX);
}
#[test]
fn rfc5321_4_5_3_2_session_time_binds_between_commands_only() {
    let limits = Limits::default();
    let mut peer = Peer::new(Config::default());
    peer.open();
    peer.now = limits.session_time - Duration::from_secs(10);
    peer.feed(b"NOOP\r\n");
    assert_eq!(peer.session.deadline(), limits.session_time);
    peer.feed(b"BDAT 1000\r\n");
    assert_eq!(peer.session.deadline(), peer.now + limits.data_rate_grace);
}
/// BAD-INPUTS I2, too.
#[test]
fn rfc5321_4_5_3_2_5_data_time_and_rate() {
    let limits = Limits::default();
    let start = Duration::from_secs(100);
    let mut peer = Peer::new(Config::default());
    peer.open();
    peer.now = start;
    peer.feed(b"DATA\r\n");
    assert_eq!(peer.session.deadline(), start + limits.data_rate_grace);
    peer.feed(&b"x\r\n".repeat(10_000));
    // 30,000 octets at 500 a second last 60 s.
    assert_eq!(peer.session.deadline(), start + Duration::from_secs(60));
    peer.feed(&b"x\r\n".repeat(1_000_000));
    assert_eq!(peer.session.deadline(), start + limits.data_time, "the whole is bounded");
    // Chunks share the time of the message, each has its own rate.
    peer.feed(b".\r\n");
    peer.open();
    peer.feed(b"BDAT 1\r\nx");
    peer.now = start + Duration::from_secs(1_795);
    peer.feed(b"BDAT 9\r\n");
    assert_eq!(peer.session.deadline(), start + limits.data_time);
}
#[test]
fn rfc5321_4_5_3_2_6_the_verdict_has_its_time() {
    let mut peer = Peer::new(Config::default());
    peer.host.verdicts = false;
    peer.open();
    peer.feed(b"BDAT 2 LAST\r\nhi");
    peer.answers();
    let deadline = peer.session.deadline();
    assert_eq!(deadline, peer.config.limits.commit_wait);
    peer.now = deadline;
    assert_eq!(peer.with(|session, cx| session.handle_deadline(cx)), Event::Discard);
    peer.feed(b"");
    assert!(peer.answers().concat().starts_with("451 4.3.0") && !peer.closed);
    // A late verdict changes nothing.
    peer.with(|session, cx| session.resolve_accepted(cx, 1, &"id"));
    assert!(peer.replies.is_empty());
}
#[test]
fn rfc5321_4_5_3_2_exempt_peers_are_spared() {
    let config = Config::default();
    let mut config = Config { limits: Limits { session_messages: 1, ..config.limits }, ..config };
    config.limits.rcpts_per_session = 1;
    let session = Session::new(Duration::ZERO, true, &config);
    let mut peer = Peer::over(session, config, Recorder::default());
    for _ in 0..3 {
        peer.open();
        peer.feed(b"BDAT 1 LAST\r\nx");
    }
    assert_eq!(peer.host.bodies.len(), 3);
    peer.open();
    peer.feed(b"DATA\r\n");
    assert_eq!(peer.session.deadline(), peer.config.limits.data_time, "no rate");
    peer.feed(b".\r\n");
    peer.now = Duration::from_secs(7_200);
    peer.feed(b"NOOP\r\n");
    assert_eq!(peer.session.deadline(), peer.now + peer.config.limits.command_wait, "no age");
}

/// The field of a message from `helo` for `only`.
fn received(helo: &str, client: &str, esmtp: bool, smtputf8: bool, only: Option<&str>) -> String {
    let facts = ReceivedFacts {
        helo,
        esmtp,
        smtputf8,
        only_forward_path: only,
        ..ReceivedFacts::default()
    };
    let mut out = Vec::new();
    let client = client.parse().expect("an address");
    received_field(&facts, client, "mx.example", "id", 1_000_000, &mut out);
    String::from_utf8(out).expect("UTF-8")
}

/// RFC 3848 and RFC 6531 §4.3: registered names alone.
#[test]
fn rfc3848_names_of_protocols() {
    for (esmtp, smtputf8, lmtp, names) in [
        (false, false, false, ["SMTP", "SMTP", "SMTP", "SMTP"]),
        (true, false, false, ["ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA"]),
        (true, true, false, ["UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA"]),
        (true, false, true, ["LMTP", "LMTPS", "LMTPA", "LMTPSA"]),
        (true, true, true, ["UTF8LMTP", "UTF8LMTPS", "UTF8LMTPA", "UTF8LMTPSA"]),
    ] {
        let facts = ReceivedFacts { esmtp, smtputf8, lmtp, ..ReceivedFacts::default() };
        let secure = ReceivedFacts { tls: true, ..facts };
        let named = [
            facts,
            secure,
            ReceivedFacts { authenticated: true, ..facts },
            ReceivedFacts { authenticated: true, ..secure },
        ]
        .map(|facts| trace::with_protocol(&facts));
        assert_eq!(named, names);
    }
}

/// RFC 8314 §4.3: after the other clauses, and nothing but a name.
#[test]
fn rfc8314_4_3_the_cipher_suite() {
    let facts = ReceivedFacts {
        helo: "a",
        esmtp: true,
        tls: true,
        tls_cipher: "TLS_AES_256_GCM_SHA384;\r\nX:",
        only_forward_path: Some("b@x"),
        ..ReceivedFacts::default()
    };
    let mut out = Vec::new();
    let client = "192.0.2.1:25".parse().expect("an address");
    received_field(&facts, client, "mx", "7", 0, &mut out);
    let out = String::from_utf8(out).expect("ASCII");
    let wanted = "with ESMTPS id 7\r\n\tfor <b@x>\r\n\ttls TLS_AES_256_GCM_SHA384X;\r\n\tThu";
    assert!(out.contains(wanted), "{out}");
}

#[test]
fn rfc5321_4_4_trace_names_client_and_us() {
    let field = received("client", "[2001:db8::1]:25", true, false, None);
    assert_eq!(
        field,
        "Received: from client ([IPv6:2001:db8::1])\r\n\tby mx.example with ESMTP id id;\r\n\t\
         Thu, 01 Jan 1970 00:00:01 +0000\r\n"
    );
    let mapped = received("client", "[::ffff:192.0.2.1]:25", true, false, None);
    assert!(mapped.contains("([192.0.2.1])"), "{mapped}");
}
#[test]
fn rfc3848_trace_says_with_what() {
    for (esmtp, smtputf8, with) in
        [(false, false, "SMTP"), (true, false, "ESMTP"), (true, true, "UTF8SMTP")]
    {
        let field = received("c", "192.0.2.1:25", esmtp, smtputf8, None);
        assert!(field.contains(&format!(" with {with} id ")), "{field}");
    }
}
#[test]
fn rfc5321_7_2_trace_names_a_lone_recipient_only() {
    assert!(received("c", "192.0.2.1:25", true, false, Some("a@b")).contains("for <a@b>;"));
    assert!(!received("c", "192.0.2.1:25", true, false, None).contains("for "));
}

#[test]
fn rfc1870_4_ehlo_says_the_size() {
    let lines = ehlo(Config::default(), false);
    assert!(lines.contains(&"250-SIZE 26214400".into()), "{lines:?}");
}
#[test]
fn rfc1870_6_1_a_declared_size_of_20_digits_is_read() {
    check(&greeted("C: MAIL FROM:<a@b> SIZE=00000000000000000001\nS: 250 2.1.0"));
    check(&greeted("C: MAIL FROM:<a@b> SIZE=000000000000000000001\nS: 501 5.5.4"));
}
#[test]
fn rfc1870_6_3_the_true_size_counts() {
    let mut config = Config::default();
    config.limits.message_bytes = 10;
    let open = "C: MAIL FROM:<a@b> SIZE=1\nS: 250\nC: RCPT TO:<c@d>\nS: 250\nC: DATA\nS: 354\n";
    // Larger than declared: taken. Larger than the limit: 552, though it was declared smaller.
    check_with(&greeted(&format!("{open}C: 12345678\nC: .\nS: 250\nB: 12345678\\r\\n")), &config);
    check_with(&greeted(&format!("{open}C: 123456789\nC: .\nS: 552 5.3.4")), &config);
    // Neither the stuffed dot nor the terminator counts.
    check_with(&greeted(&format!("{open}C: ..234567\nC: .\nS: 250\nB: .234567\\r\\n")), &config);
    check_with(&greeted(&format!("{open}C: ..2345678\nC: .\nS: 250\nB: .2345678\\r\\n")), &config);
}

#[test]
fn rfc2920_3_1_a_group_is_answered_in_order_at_once() {
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    peer.answers();
    peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<>\r\nRCPT TO:<c@d>\r\nVRFY x\r\nDATA\r\n");
    let codes: Vec<String> = peer.answers().iter().map(|line| line[..3].to_owned()).collect();
    assert_eq!(codes, ["250", "501", "250", "252", "354"]);
    // A change of state loses nothing that was received.
    peer.feed(b"x\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 1 LAST\r\nxQUIT\r\n");
    let codes: Vec<String> = peer.answers().iter().map(|line| line[..3].to_owned()).collect();
    assert_eq!(codes, ["250", "250", "250", "250", "221"]);
    assert_eq!(peer.host.bodies, [&b"x\r\n"[..], b"x"]);
}
#[test]
fn rfc2920_3_2_unread_replies_stop_the_reading() {
    let mut config = Config::default();
    config.limits.unsent_replies_bytes = 20;
    config.limits.junk_max = u32::MAX;
    let mut peer = Peer::new(config);
    peer.replies = Replies::new();
    let input = b"NOOP\r\nNOOP\r\nNOOP\r\n";
    let step = peer.with(|session, cx| session.handle_input(cx, input));
    assert_eq!((step.consumed, step.event), (12, Event::NeedInput), "14 octets a reply");
    let mut out = Vec::new();
    peer.replies.take_ready(&mut out);
    let step = peer.with(|session, cx| session.handle_input(cx, &input[12..]));
    assert_eq!(step.consumed, 6);
}

#[test]
fn rfc3030_2_ehlo_and_rset_abort_a_chunked_message() {
    for abort in ["RSET", "EHLO a"] {
        check(&opened(&format!("C: BDAT 1\nc: x\nS: 250\nC: {abort}\nS: 250\nC: DATA\nS: 503")));
    }
}
#[test]
fn rfc3030_2_after_a_failed_chunk_all_fail_until_rset() {
    let mut config = Config::default();
    config.limits.message_bytes = 4;
    let failed = "C: BDAT 5\nc: 12345\nS: 552\nC: BDAT 1\nc: x\nS: 552\n";
    check_with(
        &opened(&format!(
            "{failed}C: RSET\nS: 250\nC: MAIL FROM:<a@b>\nS: 250\nC: RCPT TO:<c@d>\nS: 250\n\
             C: BDAT 1 LAST\nc: x\nS: 250\nB: x"
        )),
        &config,
    );
}
#[test]
fn rfc3030_2_no_354_and_no_dots() {
    check(&opened("C: BDAT 5 LAST\nc: ..\\r\\n.\nS: 250\nB: ..\\r\\n."));
}
#[test]
fn rfc6152_2_body_values() {
    for value in ["7BIT", "8BITMIME", "BINARYMIME"] {
        check(&greeted(&format!("C: MAIL FROM:<a@b> BODY={value}\nS: 250")));
    }
    check(&greeted("C: MAIL FROM:<a@b> BODY\nS: 501\nC: MAIL FROM:<a@b> BODY=9BIT\nS: 501"));
    check(&opened("C: DATA\nS: 354\nC: \\x80\\xff\nC: .\nS: 250\nB: \\x80\\xff\\r\\n"));
}
#[test]
fn rfc6531_3_1_offered_with_8bitmime() {
    let lines = ehlo(Config::default(), false);
    for keyword in ["250-8BITMIME", "250-SMTPUTF8", "250-PIPELINING", "250-CHUNKING"] {
        assert!(lines.contains(&keyword.into()), "{keyword}");
    }
}
#[test]
fn rfc6531_3_4_the_parameter_takes_no_value() {
    check(&greeted("C: MAIL FROM:<a@b> SMTPUTF8=1\nS: 501 5.5.4"));
    check(&greeted("C: MAIL FROM:<a@b>\nS: 250\nC: RCPT TO:<\u{fc}@d>\nS: 553 5.6.7"));
    check(&greeted("C: MAIL FROM:<a@b> SMTPUTF8\nS: 250\nC: RCPT TO:<\u{fc}@d>\nS: 250"));
    check(&greeted("C: MAIL FROM:<a\\xff@b> SMTPUTF8\nS: 501 5.6.7\nC: MAIL FROM:<a@b>\nS: 250"));
}
#[test]
fn rfc9422_4_limits_are_announced_where_they_bind() {
    let limits = |lines: &[String]| {
        lines.iter().find_map(|line| line.strip_prefix("250-LIMITS ").map(String::from))
    };
    let config = Config::default();
    let bound = limits(&ehlo(config.clone(), false));
    assert_eq!(bound.as_deref(), Some("RCPTMAX=1000 MAILMAX=10000"));
    let exempt = limits(&ehlo(config.clone(), true));
    assert_eq!(exempt.as_deref(), Some("RCPTMAX=1000"));
    // At most six digits.
    let mut large = config;
    large.limits.session_messages = 1_000_000;
    large.limits.recipients_max = 1_000_000;
    assert_eq!(limits(&ehlo(large, false)).as_deref(), Some("RCPTMAX=999999"));
}
