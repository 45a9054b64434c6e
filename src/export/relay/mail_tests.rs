use proptest::prelude::*;

use super::{
    super::{
        dialogue::{Dialogue, Settings},
        trace,
    },
    *,
};

/// A record with this mail data, for `r0@d.test`.
pub(in super::super) fn record(data: &[u8]) -> Record {
    Record {
        id: "7f3a9c21b04e-003-00000000000002d5".parse().unwrap(),
        received_at: 1_795_284_245_123_456,
        listener: "mx".to_owned(),
        mail_from: "a@s.test".to_owned(),
        rcpt_to: vec!["r0@d.test".to_owned()],
        helo: "mx.example".to_owned(),
        client: "192.0.2.10:51234".parse().unwrap(),
        esmtp: true,
        smtputf8: false,
        body_type: 0,
        size_declared: None,
        flags: 0,
        facts: crate::Facts::default(),
        verdict: None,
        verdict_pending: false,
        replay: false,
        data: Bytes::copy_from_slice(data),
    }
}

#[track_caller]
fn refuses(record: &Record, why: &str) {
    let error = Mail::new(record, Vec::new(), false).unwrap_err();
    assert_eq!(error.class, ErrorClass::Refused);
    assert!(error.text.contains(why), "{}", error.text);
}

#[test]
fn rfc5321_2_3_8_bare_cr_bare_lf_and_nul_are_not_sent() {
    for bad in ["\n.\r\n", "\r\n.\n", "x\n.\nx", "\n", "x\r\n\n"] {
        refuses(&record(bad.as_bytes()), "bare LF");
    }
    for bad in ["\r.\r\n", "\r\n.\r", "\r", "x\r\r\n", "\r\n.\r\r\n"] {
        refuses(&record(bad.as_bytes()), "bare CR");
    }
    refuses(&record(b"x\0\r\n"), "NUL");
}

#[test]
fn a_path_cannot_hold_a_command() {
    for bad in ["a@b>\r\nRCPT TO:<c@d", "a>b@c", "<a@b", "\"a\n\"@b", "\"a@b", "a\u{85}@b"] {
        refuses(&Record { mail_from: bad.to_owned(), ..record(b"") }, "a path");
        refuses(&Record { rcpt_to: vec![bad.to_owned()], ..record(b"") }, "a path");
    }
    for good in ["", "\"a>b\"@c", "\"\\\"<\"@c", "Postmaster", "ü@x"] {
        let record = Record { mail_from: good.to_owned(), ..record(b"") };
        assert!(Mail::new(&record, vec![], false).is_ok());
    }
}

#[test]
fn rfc5321_4_4_trace_fields() {
    let id = "X-Mailrace-Id: 7f3a9c21b04e-003-00000000000002d5\r\n";
    let lines = |record: &Record, return_path| {
        String::from_utf8(trace::lines(record, return_path, "relay.test")).unwrap()
    };
    let one = record(b"S: x\r\n");
    let received = "Received: from mx.example ([192.0.2.10])\r\n\tby relay.test with ESMTP id \
         7f3a9c21b04e-003-00000000000002d5\r\n\tfor <r0@d.test>;\r\n\t\
         Sat, 21 Nov 2026 18:04:05 +0000\r\n";
    assert_eq!(lines(&one, false), format!("{id}{received}"));
    assert_eq!(lines(&one, true), format!("Return-Path: <a@s.test>\r\n{id}{received}"));
    let dots = Record {
        mail_from: "a..b@s.test".to_owned(),
        rcpt_to: vec![".r@d.test".to_owned()],
        ..one.clone()
    };
    let text = lines(&dots, true);
    assert!(text.starts_with("Return-Path: <\"a..b\"@s.test>\r\n"), "{text}");
    assert!(text.contains("for <\".r\"@d.test>;"), "{text}");
    let null = Record { mail_from: String::new(), ..one.clone() };
    assert!(lines(&null, true).starts_with("Return-Path: <>\r\n"));
    // RFC 5321 §7.2: blind recipients do not learn of each other.
    let two = Record {
        rcpt_to: vec!["a@d.test".to_owned(), "b@d.test".to_owned()],
        helo: "x\r\nEvil: (".to_owned(),
        client: "[2001:db8::1]:5".parse().unwrap(),
        smtputf8: true,
        ..one
    };
    let text = lines(&two, false);
    assert!(text.contains("from x__Evil:__ ([IPv6:2001:db8::1])"), "{text}");
    assert!(text.contains("with UTF8SMTP id") && !text.contains("for <"), "{text}");
    // White space at the front would continue our line.
    assert_eq!(lines(&record(b" folded\r\n"), false), format!("{id}{received}\r\n"));
}

/// The content as the dialogue sends it, end of mail data included.
fn wire(mail: Mail) -> Vec<u8> {
    let settings =
        Settings { lmtp: false, helo: "relay.test".to_owned(), starttls: false, login: None };
    let mut dialogue = Dialogue::new(settings, false);
    dialogue.handle_input(b"220\r\n", true);
    dialogue.handle_input(b"250-mx\r\n250-8BITMIME\r\n250 PIPELINING\r\n", true);
    dialogue.handle_mail(mail, &[0]).unwrap();
    dialogue.poll_output(&mut Vec::new());
    dialogue.handle_input(b"250\r\n250\r\n354\r\n", true);
    let mut out = Vec::new();
    loop {
        let mut block = Vec::new();
        dialogue.poll_output(&mut block);
        if block.is_empty() {
            return out;
        }
        out.extend(block);
    }
}

/// Lines as the most lenient server cuts them: at CRLF, at CR, at LF.
fn lenient_lines(octets: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = vec![Vec::new()];
    let mut before = 0;
    for octet in octets {
        match octet {
            b'\n' if before == b'\r' => {}
            b'\r' | b'\n' => lines.push(Vec::new()),
            _ => lines.last_mut().unwrap().push(*octet),
        }
        before = *octet;
    }
    lines
}

/// What a strict server takes off again (RFC 5321 §4.5.2).
fn received(wire: &[u8]) -> Vec<u8> {
    let content = wire.strip_suffix(b".\r\n").unwrap();
    let mut out = Vec::new();
    let mut start = true;
    for (at, octet) in content.iter().enumerate() {
        if !(start && *octet == b'.') {
            out.push(*octet);
        }
        start = content[..=at].ends_with(b"\r\n");
    }
    out
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => Just(&b"\r\n"[..]),
        4 => Just(&b"."[..]),
        2 => Just(&b"x"[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b"\r"[..]),
        1 => Just(&b"\n.\r\n"[..]),
        1 => Just(&b"\r.\r\n"[..]),
        1 => Just(&b"\r\n.\n"[..]),
        2 => Just(&b"\r\n.\r\nMAIL FROM:<e@e>\r\n"[..]),
        1 => Just(&b"\0"[..]),
        1 => Just(&b"\xff"[..]),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// No mail data ends before its end, whoever reads it.
    #[test]
    fn nothing_is_smuggled(data in pieces()) {
        // Without the odd octets too, so that long mails get through.
        let clean: Vec<u8> = String::from_utf8_lossy(&data).replace("\r\n", "\u{1}")
            .replace(['\r', '\n', '\0'], "").replace('\u{1}', "\r\n").into_bytes();
        for data in [data, clean] {
            let bare = lenient_lines(&data).len() != data.windows(2).filter(|w| w == b"\r\n").count() + 1;
            let Ok(mail) = Mail::new(&record(&data), b"T: 1\r\n".to_vec(), false) else {
                prop_assert!(bare || data.contains(&0), "refused {data:?}");
                continue;
            };
            prop_assert!(!bare && !data.contains(&0), "sent {data:?}");
            let size = mail.size();
            let wire = wire(mail);
            let lines = lenient_lines(&wire);
            let ends = lines.iter().filter(|line| *line == b".").count();
            prop_assert_eq!(ends, 1, "{:?}", wire);
            prop_assert_eq!(&lines[lines.len() - 2..], [b".".to_vec(), Vec::new()]);
            let end: &[u8] = if data.is_empty() || data.ends_with(b"\r\n") { b"" } else { b"\r\n" };
            let whole = [b"T: 1\r\n", &data[..], end].concat();
            prop_assert_eq!(received(&wire), &whole[..]);
            prop_assert_eq!(size, whole.len() as u64);
        }
    }

    /// Wherever a block ends, the dots are the same.
    #[test]
    fn blocks_do_not_change_dots(data in pieces(), block in 1usize..9) {
        let mut whole = Vec::new();
        push_transparent(&data, &mut true, &mut whole);
        let (mut cut, mut start) = (Vec::new(), true);
        for piece in data.chunks(block) {
            push_transparent(piece, &mut start, &mut cut);
        }
        prop_assert_eq!(cut, whole);
    }
}
