use mailrace_log::{AuthWord, Dmarc};
use proptest::prelude::*;

use super::*;
use crate::{testing, trace};

const OURS: &str = "mx.ours.test";

fn check(result: AuthWord, domain: &str) -> Check {
    Check { result, domain: domain.to_owned(), ..Check::default() }
}

fn tagged(data: &str, verdict: Option<Verdict>) -> Record {
    let mut record = testing::record(0, 7);
    record.facts.authserv_id = OURS.to_owned();
    record.data = Bytes::copy_from_slice(data.as_bytes());
    record.verdict = verdict.map(Box::new);
    record
}

fn full() -> Verdict {
    let spf =
        |word, identity: &str, domain| Check { identity: identity.into(), ..check(word, domain) };
    Verdict {
        spf: vec![
            spf(AuthWord::Pass, "mailfrom", "example.org"),
            spf(AuthWord::None, "helo", "client.example.org"),
        ],
        dkim: vec![Check {
            selector: "s1".into(),
            identity: "@example.org".into(),
            algorithm: "rsa-sha256".into(),
            ..check(AuthWord::Pass, "example.org")
        }],
        dmarc: Some(Dmarc {
            check: Check { reason: "why; so".into(), ..check(AuthWord::Fail, "example.org") },
            policy: "reject".into(),
            disposition: "reject".into(),
            published: None,
        }),
        iprev: Some(check(AuthWord::Pass, "client.example.org")),
        ..Verdict::default()
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

#[test]
fn rfc8601_2_2_the_field_says_what_the_verdict_says() {
    let record = tagged("Subject: x\r\n\r\nHello\r\n", Some(full()));
    let expected = "Authentication-Results: mx.ours.test;\r\n\
                    \tspf=pass smtp.mailfrom=alice@example.org;\r\n\
                    \tspf=none smtp.helo=client.example.org;\r\n\
                    \tdkim=pass header.d=example.org header.i=@example.org header.s=s1\r\n\
                    \theader.a=rsa-sha256;\r\n\
                    \tdmarc=fail reason=\"why; so\" header.from=example.org\r\n\
                    \tpolicy.dmarc=reject;\r\n\
                    \tiprev=pass policy.iprev=192.0.2.10\r\n";
    assert_eq!(text(&mail(&record)), format!("{expected}Subject: x\r\n\r\nHello\r\n"));
    // Above our own trace fields: who reads below them reads what others wrote.
    let lines = text(&trace::lines(&record, false, OURS));
    assert!(lines.starts_with(&format!("{expected}X-Mailrace-Id: ")), "{lines}");
}

#[test]
fn without_a_verdict_nothing_is_claimed() {
    let data = "Subject: x\r\n\r\nHello\r\n";
    assert_eq!(mail(&tagged(data, None)), data);
    let skipped = Verdict { skipped: "too many".into(), ..Verdict::default() };
    let none = format!("Authentication-Results: {OURS};\r\n\tnone\r\n{data}");
    assert_eq!(text(&mail(&tagged(data, Some(skipped)))), none);
    // A listener that does not tag.
    let mut record = tagged("Authentication-Results: mx.ours.test; spf=pass\r\n\r\n", Some(full()));
    record.facts.authserv_id.clear();
    assert_eq!(mail(&record), record.data);
    assert_eq!(renamed(&record), 0);
}

#[test]
fn rfc8601_5_who_claims_to_be_us_is_renamed() {
    for claim in [
        "mx.ours.test; spf=pass",
        "MX.Ours.TEST; spf=pass",
        "mx.ours.test 1; spf=pass",
        "mx.ours.test.; spf=pass",
        "mx.ours.test",
        "\"mx.ours.test\"; spf=pass",
        "\"mx\\.ours.test\"; spf=pass",
        "(a;b) mx.ours.test; spf=pass",
        "(a(b)\\)) mx.ours.test; spf=pass",
        "mx.(c)ours.test; spf=pass",
        "mx.ours.test(c) 1; spf=pass",
        "\r\n\tmx.ours.test;\r\n\tspf=pass",
        "\"mx.ou\r\n rs.test\"; x",
        "\"mx.ours.test; spf=pass",
        "(mx.ours.test; spf=pass",
    ] {
        for name in ["Authentication-Results", "authentication-RESULTS", "Authentication-Results "]
        {
            let record = tagged(&format!("A: b\r\n{name}: {claim}\r\nC: d\r\n\r\nx"), None);
            let sent = text(&mail(&record));
            let claim = if claim.contains("ou\r\n") { continue } else { claim };
            assert_eq!(sent, format!("A: b\r\nX-Original-{name}: {claim}\r\nC: d\r\n\r\nx"));
            assert_eq!(renamed(&record), 1);
        }
    }
    for other in [
        "Authentication-Results: mx.ours.test.evil.test; spf=pass",
        "Authentication-Results: ours.test; spf=pass",
        "Authentication-Results: mail.test; spf=pass reason=\"mx.ours.test\"",
        "ARC-Authentication-Results: i=1; mx.ours.test; spf=pass",
        "X-Authentication-Results: mx.ours.test; spf=pass",
        "Subject: Authentication-Results: mx.ours.test",
        "A: b\r\n\tAuthentication-Results: mx.ours.test; x",
        "A: b\r\n\r\nAuthentication-Results: mx.ours.test; x",
    ] {
        let data = format!("{other}\r\n\r\n");
        assert_eq!(mail(&tagged(&data, None)), data, "{other}");
    }
}

/// A raw document is what is handed on, and what it says of itself is true of it.
#[test]
fn a_raw_document_is_tagged_with_its_size() {
    let record = tagged("Authentication-Results: mx.ours.test; x\r\n\r\nHello\r\n", Some(full()));
    let options = crate::DocumentOptions {
        encoding: crate::Encoding::Raw,
        inline_max: u64::MAX,
        reference_url: String::new(),
        sha256: false,
        key: crate::Key::None,
    };
    let document = crate::encode(&record, &options);
    assert_eq!(document.body, mail(&record));
    let size = ("mailrace_size".to_owned(), document.body.len().to_string());
    assert!(document.body.len() > record.data.len() && document.attributes.contains(&size));
    // As stored, and marked.
    let event = crate::event_json(&record, &options);
    assert_eq!(event["data"]["size"], record.data.len());
    assert_eq!(event["data"]["auth"]["results_renamed"], 1);
    let other = Record { verdict: None, ..record };
    assert_eq!(crate::event_json(&other, &options)["data"]["auth"]["results_renamed"], 1);
}

/// Behind what people are shown of a header, and behind lines that are none.
#[test]
fn no_length_and_no_torn_line_hides_a_claim() {
    let claim = "Authentication-Results: mx.ours.test; dmarc=pass\r\n";
    let long = format!("A: {}\r\n", "x".repeat(900)).repeat(3_000);
    let torn = format!("From a@b Mon\r\nno field\r\n{long}{claim}");
    let record = tagged(&format!("{torn}\r\nbody\r\n"), None);
    assert!(record.data.len() > mailrace_header::SCAN_BYTES_MAX);
    let sent = text(&mail(&record));
    assert!(sent.contains("\r\nX-Original-Authentication-Results: mx.ours.test; dmarc=pass\r\n"));
    assert_eq!(sent.len(), record.data.len() + "X-Original-".len());
}

/// A first line that is a continuation must not continue our field.
#[test]
fn a_header_of_white_space_does_not_continue_ours() {
    let record = tagged(" ; dmarc=pass\r\nA: b\r\n\r\n", Some(full()));
    assert!(text(&mail(&record)).contains("192.0.2.10\r\n\r\n ; dmarc=pass\r\n"));
}

proptest! {
    /// Whatever a sender gets into a verdict, the field stays one field, of short lines, of ASCII.
    #[test]
    fn nothing_gets_out_of_its_value(
        junk in "\\PC*|[\\r\\n\\t\\\\\"();=@ a-z:\u{0}-\u{1f}]{0,900}",
    ) {
        let mut verdict = full();
        let checks = verdict.spf.iter_mut().chain(&mut verdict.dkim);
        for check in checks.chain(verdict.dmarc.as_mut().map(|dmarc| &mut dmarc.check)) {
            check.reason.clone_from(&junk);
            check.domain.clone_from(&junk);
            check.selector.clone_from(&junk);
            check.algorithm.clone_from(&junk);
        }
        let mut record = tagged("A: b\r\n\r\n", Some(verdict));
        record.mail_from.clone_from(&junk);
        record.facts.authserv_id = format!("x{junk}");
        let field = results(&record);
        let lines: Vec<_> = field.strip_suffix("\r\n").unwrap().split("\r\n").collect();
        prop_assert!(lines.iter().skip(1).all(|line| line.starts_with('\t')));
        prop_assert!(lines.iter().all(|line| line.len() <= 998 && line.is_ascii()));
        prop_assert!(!lines.iter().any(|line| line.trim_ascii_start().chars().any(char::is_control)));
        // Read again by the rules of quoted strings: six checks, and no more.
        let mut checks = 0;
        let (mut quoted, mut escaped) = (false, false);
        for character in field.chars() {
            match character {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ';' if !quoted => checks += 1,
                _ => {}
            }
        }
        prop_assert!(!quoted);
        prop_assert_eq!(checks, 5);
    }
}

#[test]
fn rfc6409_8_a_submission_gets_the_date_and_message_id_it_lacks() {
    let mut record = testing::record(1, 7);
    record.facts.submission = "mx.ours.test".into();
    let id = format!("Message-ID: <{}@mx.ours.test>\r\n", record.id);
    let date = "Date: Sun, 22 Nov 2026 18:04:05 +0000\r\n".to_owned();
    for (data, added) in [
        ("Subject: x\r\n\r\n", date.clone() + &id),
        ("date: x\r\n\r\n", id.clone()),
        ("MESSAGE-ID : <x>\r\n\r\n", date.clone()),
        ("Date: x\r\nMessage-ID: <x>\r\n\r\n", String::new()),
        ("X: y\r\n Date: x\r\nResent-Date: x\r\n\r\nDate: x\r\n", date + &id),
    ] {
        record.data = Bytes::from(data);
        assert_eq!(text(&mail(&record)), added.clone() + data);
        assert_eq!(mail(&record), mail(&record.clone()), "a retry is the same");
        let lines = text(&trace::lines(&record, false, "mx.ours.test"));
        assert!(lines.starts_with("X-Mailrace-Id: ") && lines.ends_with(&added), "{lines}");
    }
    record.facts.submission.clear();
    assert_eq!(mail(&record), record.data);
}
