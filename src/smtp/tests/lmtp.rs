//! LMTP (RFC 2033), and listeners that take no mail (RFC 7504).

use proptest::{collection::vec, prelude::*};

use super::*;

fn lmtp() -> Config {
    Config { protocol: Protocol::Lmtp, ..Config::default() }
}

fn refuse() -> Config {
    Config { protocol: Protocol::Refuse, ..Config::default() }
}

/// Puts the greeting and a transaction with two recipients, one of them refused between, before a
/// script.
fn two(script: &str) -> String {
    format!(
        "C: LHLO a\nS: 250 HELP\nC: MAIL FROM:<a@b>\nC: RCPT TO:<c@d>\nC: RCPT TO:<>\n\
         C: RCPT TO:<e@f>\nS: 250 2.1.0\nS: 250 2.1.5\nS: 501 5.1.3\nS: 250 2.1.5\n{script}"
    )
}

#[test]
fn rfc2033_4_1_lhlo_alone() {
    check_with("C: HELO a\nS: 500 5.5.2\nC: EHLO a\nS: 500 5.5.2\nC: LHLO a\nS: 250 HELP", &lmtp());
    check_with("C: MAIL FROM:<a@b>\nS: 503 5.5.1 Send LHLO first", &lmtp());
    check_with("C: LHLO\nS: 501 5.5.4\nC: LHLO a\\0\nS: 501 5.5.4\nC: lhlo a\nS: 250", &lmtp());
    check_with("C: HELP\nS: 214 2.0.0 LHLO MAIL", &lmtp());
    check("C: LHLO a\nS: 500 5.5.2");
    check(&opened("C: LHLO a\nS: 500 5.5.2\nC: DATA\nS: 354"));
}
#[test]
fn rfc2033_4_1_lhlo_resets_and_ends_its_group() {
    check_with(&two("C: LHLO a\nS: 250 HELP\nC: RCPT TO:<c@d>\nS: 503 5.5.1"), &lmtp());
    check_whole("C: LHLO a\nC: NOOP\nS: 554 5.5.0\nX:", &lmtp());
}
#[test]
fn rfc2033_5_extensions() {
    let mut peer = Peer::new(lmtp());
    peer.feed(b"");
    assert_eq!(peer.sent, b"220 localhost LMTP Mailrace\r\n");
    peer.feed(b"LHLO a\r\n");
    let lines = String::from_utf8(std::mem::take(&mut peer.sent)).expect("ASCII");
    for keyword in
        ["PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "CHUNKING", "SIZE 26214400", "LIMITS "]
    {
        assert!(lines.contains(&format!("\r\n250-{keyword}")), "{keyword}: {lines}");
    }
}
#[test]
fn rfc2033_4_2_a_reply_for_each_recipient() {
    let queued = "S: 250 2.0.0 Ok: queued as id\n";
    let data = "C: DATA\nS: 354\nC: x\nC: .\n";
    let sent = format!("{data}{queued}{queued}B: x\\r\\n\n");
    check_with(&two(&format!("{sent}C: NOOP\nS: 250 2.0.0 Ok")), &lmtp());
    let chunks = "C: BDAT 1\nc: x\nS: 250 2.0.0 Chunk\nC: BDAT 0 LAST\n";
    check_with(&two(&format!("{chunks}{queued}{queued}B: x\nC: QUIT\nS: 221\nX:")), &lmtp());
}
#[test]
fn rfc2033_4_2_a_refusal_for_each_recipient() {
    let bad = "S: 550 5.6.0\n".repeat(2);
    let data = format!("C: DATA\nS: 354\nC: a\\nb\nC: .\n{bad}");
    check_with(&two(&format!("{data}C: RCPT TO:<c@d>\nS: 503")), &lmtp());
    check_with(&two(&format!("C: BDAT 2 LAST\nc: a\\n\n{bad}C: NOOP\nS: 250 2.0.0")), &lmtp());
    let mut config = lmtp();
    config.limits.message_bytes = 4;
    let big = "S: 552 5.3.4\n";
    // A chunk that is not the last has one reply, whatever it is.
    let chunks = format!("C: BDAT 6\nc: abcdef\n{big}C: BDAT 0 LAST\n{big}{big}C: NOOP\nS: 250");
    check_with(&two(&chunks), &config);
}
#[test]
fn rfc2033_4_2_no_recipient() {
    let begun = "C: LHLO a\nS: 250\nC: MAIL FROM:<a@b>\nC: RCPT TO:<>\nC: DATA\nS: 250\nS: 501\n";
    check_with(&format!("{begun}S: 503 5.5.1\nC: BDAT 1 LAST\nc: x\nS: 503 5.5.1"), &lmtp());
}
#[test]
fn rfc2033_4_2_a_recipient_twice() {
    let mut peer = Peer::new(lmtp());
    peer.feed(b"LHLO a\r\n");
    peer.feed(&[b"MAIL FROM:<a@b>\r\n".as_slice(), &b"RCPT TO:<c@d>\r\n".repeat(100)].concat());
    peer.answers();
    peer.feed(b"BDAT 1 LAST\r\nx");
    assert_eq!(peer.answers(), vec!["250 2.0.0 Ok: queued as id"; 100]);
    assert_eq!(peer.host.envelopes[0].1.len(), 100);
    assert_eq!(peer.stats.replies[REPLY_CODES.iter().position(|c| *c == 250).expect("there")], 202);
}
#[test]
fn every_refusal_of_the_driver_goes_to_each_recipient() {
    for refusal in [Refusal::LogFailed, Refusal::DiskFull, Refusal::MemoryFull, Refusal::Timeout] {
        let mut peer = Peer::new(lmtp());
        peer.host.verdicts = false;
        peer.feed(b"LHLO a\r\n");
        peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nBDAT 0 LAST\r\n");
        peer.answers();
        if refusal == Refusal::Timeout {
            peer.now = peer.session.deadline();
            assert_eq!(peer.with(|session, cx| session.handle_deadline(cx)), Event::Discard);
        } else {
            peer.with(|session, cx| session.resolve_refused(cx, refusal));
        }
        peer.feed(b"NOOP\r\n");
        let line = refusal.reply();
        let wanted = peer.answers();
        assert_eq!(wanted.len(), 3, "{wanted:?}");
        let code = line.code().to_string();
        assert!(wanted[..2].iter().all(|answer| answer.starts_with(&code)), "{wanted:?}");
        assert_eq!(wanted[2], "250 2.0.0 Ok");
    }
}

/// One transaction of a generated dialogue.
#[derive(Clone, Debug)]
struct Transaction {
    /// Whether each RCPT is to be accepted.
    recipients: Vec<bool>,
    chunked: bool,
    /// With a bare LF in it.
    bad: bool,
    /// The log fails under it.
    fails: bool,
}

fn transactions() -> impl Strategy<Value = Vec<Transaction>> {
    let one = (vec(any::<bool>(), 0..7), any::<bool>(), prop::bool::weighted(0.2), any::<bool>());
    let one = one.prop_map(|(recipients, chunked, bad, fails)| Transaction {
        recipients,
        chunked,
        bad,
        fails,
    });
    vec(one, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// RFC 2033 §4.2: as many final replies as recipients were accepted, all alike, and none more;
    /// a log that fails turns all of them into 451.
    #[test]
    fn as_many_replies_as_recipients(
        transactions in transactions(),
        cuts in vec(1_usize..40, 1..20),
    ) {
        let mut config = lmtp();
        config.limits.errors_hard = u32::MAX;
        let mut peer = Peer::new(config);
        peer.host.verdicts = false;
        peer.feed(b"LHLO a\r\n");
        peer.answers();
        let mut lengths = cuts.iter().cycle().copied();
        let mut feed = |peer: &mut Peer, octets: &[u8]| {
            let mut rest = octets;
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(lengths.next().unwrap_or(1).min(rest.len()));
                peer.feed(head);
                rest = tail;
            }
        };
        for (ticket, Transaction { recipients, chunked, bad, fails }) in (1..).zip(transactions) {
            let mut envelope = String::from("MAIL FROM:<a@b>\r\n");
            let mut wanted = vec!["250 2.1.0"];
            for good in &recipients {
                envelope += if *good { "RCPT TO:<c@d>\r\n" } else { "RCPT TO:<>\r\n" };
                wanted.push(if *good { "250 2.1.5" } else { "501 5.1.3" });
            }
            let accepted = recipients.iter().filter(|good| **good).count();
            let body = if bad { "a\nb\r\n" } else { "a\r\nb\r\n" };
            if chunked {
                envelope += &format!("BDAT {} LAST\r\n{body}", body.len());
                feed(&mut peer, envelope.as_bytes());
            } else {
                feed(&mut peer, (envelope + "DATA\r\n").as_bytes());
                wanted.push(if accepted == 0 { "503 5.5.1" } else { "354" });
                if accepted > 0 {
                    feed(&mut peer, format!("{body}.\r\n").as_bytes());
                }
            }
            let whole = accepted > 0 && !bad;
            prop_assert_eq!(peer.session.is_waiting_for_verdict(), whole);
            if whole {
                peer.with(|session, cx| session.resolve_accepted(cx, ticket, &ticket));
                prop_assert_eq!(peer.replies.held(), 1, "one record, one hold");
                if fails {
                    let failed = peer.replies.fail(ticket..ticket + 1, Refusal::LogFailed);
                    prop_assert_eq!((failed.holds, failed.replies), (1, accepted));
                }
            }
            peer.feed(b"");
            let queued = format!("250 2.0.0 Ok: queued as {ticket}");
            let last = match (whole, fails) {
                (true, true) => "451 4.3.0",
                (true, false) => &queued,
                (false, _) if accepted == 0 => "503 5.5.1",
                (false, _) => "550 5.6.0",
            };
            // Without a recipient BDAT has one reply, and DATA has had it.
            let times = if accepted == 0 { usize::from(chunked) } else { accepted };
            wanted.extend(std::iter::repeat_n(last, times));
            let answers = peer.answers();
            prop_assert_eq!(answers.len(), wanted.len(), "{:?} {:?}", &answers, &wanted);
            for (answer, start) in answers.iter().zip(wanted) {
                prop_assert!(answer.starts_with(start), "{} {}", answer, start);
            }
            peer.feed(b"RSET\r\n");
            prop_assert_eq!(peer.answers(), ["250 2.0.0 Ok"]);
        }
    }
}

#[test]
fn rfc7504_3_no_mail_is_accepted() {
    let config = Config { hostname: "mx.example".into(), ..refuse() };
    let mut peer = Peer::new(config);
    peer.feed(b"");
    assert_eq!(peer.answers(), ["521 mx.example does not accept mail"]);
    for line in ["EHLO a", "HELO a", "LHLO a", "MAIL FROM:<a@b>", "DATA", "STARTTLS", "XYZZY", ""] {
        peer.feed(format!("{line}\r\n").as_bytes());
        assert_eq!(peer.answers(), ["503 5.5.1 No mail is accepted here"], "{line}");
    }
    peer.feed(b"QUIT\r\n");
    assert_eq!((peer.answers(), peer.closed), (vec!["221 2.0.0 Bye".into()], true));
    check_with("C: EHLO a\nC: MAIL FROM:<a@b>\nS: 503\nS: 503\nC: QUIT\nS: 221\nX:", &refuse());
    check_with(&format!("{}S: 421 4.7.0\nX:", "C: NOOP\nS: 503 5.5.1\n".repeat(20)), &refuse());
}
#[test]
fn a_rejection_is_one_line_for_each_recipient() {
    for (config, hello, replies) in [(lmtp(), "LHLO", 2), (Config::default(), "EHLO", 1)] {
        let mut peer = Peer::new(config);
        peer.host.verdicts = false;
        peer.feed(b"");
        peer.feed(format!("{hello} a\r\n").as_bytes());
        peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nBDAT 0 LAST\r\nNOOP\r\n");
        assert!(peer.session.is_waiting_for_answer());
        peer.answers();
        let text = format!("x\r\n250 2.0.0 \u{e9}{}", "y".repeat(1000));
        let rejection = Rejection { code: 550, enhanced: "5.7.26", text };
        peer.with(|session, cx| session.resolve_rejected(cx, &rejection));
        peer.with(|session, cx| session.resolve_rejected(cx, &rejection));
        peer.feed(b"");
        let answers = peer.answers();
        let line = format!("550 5.7.26 x250 2.0.0 {}", "y".repeat(400 - 11));
        assert_eq!(answers, [vec![line; replies], vec!["250 2.0.0 Ok".to_owned()]].concat());
        assert!(!peer.session.is_waiting_for_answer());
        let refusals = peer.session.take_refusals().unwrap();
        assert_eq!((refusals.list[0].stage, refusals.list[0].code), ("message", 550));
    }
}
#[test]
fn rejections_are_errors_and_deferrals_are_not() {
    let hard = Config::default().limits.errors_hard as usize;
    for (code, stays) in [(550, false), (451, true)] {
        let mut peer = Peer::new(Config::default());
        peer.host.verdicts = false;
        peer.feed(b"");
        peer.feed(b"EHLO a\r\n");
        for number in 1..=hard {
            peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 0 LAST\r\n");
            assert!(peer.session.is_waiting_for_answer(), "{number}");
            let rejection = Rejection { code, enhanced: "4.7.0", text: "No".to_owned() };
            peer.with(|session, cx| session.resolve_rejected(cx, &rejection));
            peer.feed(b"");
        }
        let last = peer.answers().pop().unwrap();
        assert_eq!((!peer.closed, !last.starts_with("421 4.7.0")), (stays, stays), "{last}");
    }
}
