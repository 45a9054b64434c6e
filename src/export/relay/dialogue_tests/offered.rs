//! What a server offers, and what a mail needs of it.

use super::*;

#[test]
fn rfc3207_starttls() {
    let tls = Settings { starttls: true, ..smtp() };
    let offered = "
        S: 220 mx
        C: EHLO relay.test
        S: 250-mx
        S: 250-PIPELINING
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 go";
    // What was offered before TLS is forgotten: no PIPELINING here.
    let again = "
        C: EHLO relay.test
        S: 250 mx
        C: MAIL FROM:<a@s.test>
        S: 451 no";
    check(
        &tls,
        &[to(1)],
        &script(&[offered, again]),
        &["starttls", "ready", "0 later 451 no (throttled)"],
    );
    check(&tls, &[], HELLO, &["closed the server offers no STARTTLS (other)"]);
    let refused = offered.replace("220 go", "454 4.7.0 not now");
    check(&tls, &[], &refused, &["closed STARTTLS: 454 4.7.0 not now (throttled)"]);
}

#[test]
fn rfc3207_6_octets_behind_starttls_are_an_injection() {
    let mut dialogue = Dialogue::new(Settings { starttls: true, ..smtp() }, false);
    dialogue.handle_input(b"220 mx\r\n", true);
    dialogue.handle_input(b"250-mx\r\n250 STARTTLS\r\n", true);
    dialogue.handle_input(b"220 go\r\n250-evil\r\n", true);
    let events: Vec<_> = std::iter::from_fn(|| dialogue.poll_event()).map(|e| told(&e)).collect();
    let closed = "closed the server sent bytes between STARTTLS and TLS (other)";
    assert_eq!(events.last().unwrap(), closed);
}

#[test]
fn rfc4954_auth_plain_under_tls_only() {
    let login = Some(("user".to_owned(), "secret".to_owned()));
    let offered = "
        S: 220 mx
        C: EHLO relay.test
        S: 250-mx
        S: 250-STARTTLS
        S: 250 AUTH PLAIN";
    let plain = Settings { login: login.clone(), ..smtp() };
    check(&plain, &[], offered, &["closed a user is set, but AUTH needs TLS (auth)"]);
    let tls = Settings { starttls: true, ..plain };
    let secured = "
        C: STARTTLS
        S: 220 go
        C: EHLO relay.test
        S: 250-mx
        S: 250 AUTH LOGIN PLAIN
        C: AUTH PLAIN AHVzZXIAc2VjcmV0";
    check(&tls, &[], &script(&[offered, secured, "S: 235 ok"]), &["starttls", "ready"]);
    for reply in ["535 5.7.8 wrong", "454 4.7.0 later", "334 "] {
        let told = format!("closed AUTH PLAIN: {} (auth)", reply.trim_end());
        let talk = script(&[offered, secured, &format!("S: {reply}")]);
        check(&tls, &[], &talk, &["starttls", &told]);
    }
    let none = "
        C: STARTTLS
        S: 220 go
        C: EHLO relay.test
        S: 250-mx
        S: 250 AUTH LOGIN";
    let told = "closed the server offers no AUTH PLAIN (auth)";
    check(&tls, &[], &script(&[offered, none]), &["starttls", told]);
}

#[test]
fn a_greeting_may_refuse_us() {
    check(&smtp(), &[], "S: 554 no", &["closed greeting: 554 no (other)"]);
    check(
        &smtp(),
        &[],
        "S: SSH-2.0-x",
        &["closed the server sent something that is not an SMTP reply (other)"],
    );
    check(&smtp(), &[], "TIMEOUT", &["closed the server made no progress within 300 s (timeout)"]);
    let talk = "
        S: 220 mx
        C: LHLO relay.test
        S: 500 what";
    check(&lmtp(), &[], talk, &["closed LHLO: 500 what (other)"]);
}

/// A session up to where the mail would be sent.
#[track_caller]
fn offered(keywords: &str, mail: &Mail, expected: Result<&str, &str>) {
    let mut dialogue = Dialogue::new(smtp(), false);
    dialogue.handle_input(b"220 mx\r\n", true);
    let keywords = keywords.replace(' ', "\r\n250-").replace('=', " ");
    dialogue.handle_input(format!("250-mx\r\n250-{keywords}\r\n250 END\r\n").as_bytes(), true);
    dialogue.poll_output(&mut Vec::new());
    let began = dialogue.handle_mail(mail.clone(), &[0]).map_err(|error| error.to_string());
    let mut out = Vec::new();
    dialogue.poll_output(&mut out);
    let command = String::from_utf8(out).unwrap();
    match expected {
        Ok(parameters) => assert_eq!(command, format!("MAIL FROM:<a@s.test>{parameters}\r\n")),
        Err(text) => {
            assert_eq!(command, "");
            assert_eq!(began.unwrap_err(), text);
        }
    }
}

#[test]
fn rfc1870_size_is_declared_and_kept() {
    // 6 octets of trace, 13 of mail data without a final CRLF.
    let mail = mail(&record(b"S: x\r\n\r\n.dot"));
    offered("HELP", &mail, Ok(""));
    offered("SIZE", &mail, Ok(" SIZE=20"));
    offered("SIZE=0", &mail, Ok(" SIZE=20"));
    offered("SIZE=20", &mail, Ok(" SIZE=20"));
    offered("SIZE=19", &mail, Err("20 bytes; the server accepts at most 19 (SIZE) (too_large)"));
}

#[test]
fn rfc6152_eight_bit_mail_needs_8bitmime() {
    let eight = mail(&record("S: x\r\n\r\nä\r\n".as_bytes()));
    offered("8BITMIME", &eight, Ok(" BODY=8BITMIME"));
    offered("HELP", &eight, Err("8-bit mail; the server offers no 8BITMIME (refused)"));
    // Declared, and then not so: it can go anywhere.
    let declared = mail(&Record { body_type: 1, ..record(b"S: x\r\n\r\n") });
    offered("8BITMIME", &declared, Ok(" BODY=8BITMIME"));
    offered("HELP", &declared, Ok(""));
    offered("8BITMIME", &mail(&record(b"S: x\r\n\r\n")), Ok(""));
}

#[test]
fn rfc6531_internationalized_mail_needs_smtputf8() {
    let asked = Record { smtputf8: true, ..record("S: ä\r\n\r\n".as_bytes()) };
    offered("8BITMIME SMTPUTF8", &mail(&asked), Ok(" BODY=8BITMIME SMTPUTF8"));
    let none = "5.6.7 internationalized mail; the server offers no SMTPUTF8 (refused)";
    offered("8BITMIME", &mail(&asked), Err(none));
    let path = Record { rcpt_to: vec!["ä@d.test".to_owned()], ..record(b"S: x\r\n\r\n") };
    offered("8BITMIME", &mail(&path), Err(none));
    // Asked for and not needed; and an 8-bit header as old programs write it.
    let plain = Record { smtputf8: true, ..record("S: x\r\n\r\nä\r\n".as_bytes()) };
    offered("8BITMIME", &mail(&plain), Ok(" BODY=8BITMIME"));
    offered("8BITMIME", &mail(&record("S: ä\r\n\r\n".as_bytes())), Ok(" BODY=8BITMIME"));
}

#[test]
fn rfc3030_binary_mail_goes_in_one_chunk_or_not_at_all() {
    let binary = mail(&Record {
        body_type: 2,
        rcpt_to: vec!["r0@d.test".to_owned(), "r1@d.test".to_owned()],
        ..record(b"S: x\r\n\r\n\0\n.\n\r.")
    });
    let none = "binary mail; the server offers no BINARYMIME with CHUNKING (refused)";
    offered("CHUNKING 8BITMIME", &binary, Err(none));
    offered("BINARYMIME", &binary, Err(none));
    let mut dialogue = Dialogue::new(lmtp(), false);
    dialogue.handle_input(b"220 mx\r\n", true);
    dialogue.poll_output(&mut Vec::new());
    let offer = b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n";
    dialogue.handle_input(offer, true);
    dialogue.poll_output(&mut Vec::new());
    assert_eq!(dialogue.poll_event(), Some(Event::Ready));
    dialogue.handle_mail(binary, &[0, 1]).unwrap();
    let mut out = Vec::new();
    dialogue.poll_output(&mut out);
    let group =
        "MAIL FROM:<a@s.test> BODY=BINARYMIME\r\nRCPT TO:<r0@d.test>\r\nRCPT TO:<r1@d.test>\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), group);
    dialogue.handle_input(b"250\r\n250\r\n250\r\n", true);
    let mut out = Vec::new();
    while dialogue.state != State::Final {
        let mut more = Vec::new();
        dialogue.poll_output(&mut more);
        out.extend(more);
    }
    assert_eq!(out, b"BDAT 20 LAST\r\nT: 1\r\nS: x\r\n\r\n\0\n.\n\r.");
    dialogue.handle_input(b"250 a\r\n550 b\r\n", true);
    assert_eq!(told(&dialogue.poll_event().unwrap()), "0 ok, 1 never 550 b (refused)");
}

#[test]
fn rfc9422_limits_of_the_server() {
    let mut dialogue = Dialogue::new(smtp(), false);
    dialogue.handle_input(b"220 mx\r\n", true);
    dialogue.handle_input(b"250-mx\r\n250 LIMITS RCPTMAX=5 MAILMAX=1\r\n", true);
    assert_eq!(dialogue.recipients_max(), 5);
    assert!(dialogue.is_ready());
    dialogue.handle_mail(to(1), &[0]).unwrap();
    dialogue.handle_input(b"550 no\r\n", true);
    assert_eq!(dialogue.state, State::Ready);
    assert!(!dialogue.is_ready(), "one message and no more");
}

#[test]
fn rfc5321_4_5_5_the_null_reverse_path() {
    let null = mail(&Record { mail_from: String::new(), ..record(b"S: x\r\n\r\n") });
    let talk = "
        C: MAIL FROM:<>
        C: RCPT TO:<r0@d.test>
        C: DATA
        S: 451 no
        S: 503 no
        S: 503 no";
    check(&smtp(), &[null], &script(&[HELLO, talk]), &["ready", "0 later 451 no (throttled)"]);
}

/// RFC 3461 §5.2.1: what the sender asked for goes on to a server that knows DSN, and to no other.
#[test]
fn rfc3461_5_2_parameters_go_on_where_dsn_is_offered() {
    let mut asked = record(b"S: x\r\n\r\n.dot\r\n");
    asked.rcpt_to = vec!["a@d.test".to_owned(), "b@d.test".to_owned()];
    asked.facts.ret = 2;
    asked.facts.envid = "id=1 +".to_owned();
    asked.facts.rcpt_params =
        "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@o.test\nNOTIFY=x\u{7f}".to_owned();
    let asked = mail(&asked);
    let script = format!(
        "{HELLO}
        C: MAIL FROM:<a@s.test>
        C: RCPT TO:<a@d.test>
        C: RCPT TO:<b@d.test>
        C: DATA
        S: 250
        S: 250
        S: 250
        S: 354
        {CONTENT}
        S: 250"
    );
    check(&smtp(), std::slice::from_ref(&asked), &script, &["ready", "0 ok, 1 ok"]);
    let script = script
        .replace("PIPELINING", "PIPELINING\n    S: 250 DSN")
        .replacen("S: 250 PIPELINING", "S: 250-PIPELINING", 1)
        .replace("FROM:<a@s.test>", "FROM:<a@s.test> RET=HDRS ENVID=id+3D1+20+2B")
        .replace("<a@d.test>", "<a@d.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@o.test");
    check(&smtp(), &[asked], &script, &["ready", "0 ok, 1 ok"]);
}

/// RFC 8689 §4.2.1: under TLS to a server that promises the same, or not at all.
#[test]
fn rfc8689_4_2_1_requiretls_goes_to_its_like_alone() {
    let mut strict = record(b"S: x\r\n\r\n.dot\r\n");
    strict.facts.require_tls = true;
    let strict = mail(&strict);
    let clear = format!("{HELLO}\n").replace("S: 250 PIPELINING", "S: 250 REQUIRETLS");
    let needs_tls = "cannot 5.7.30 the mail needs TLS (REQUIRETLS) (refused)";
    check(&smtp(), std::slice::from_ref(&strict), &clear, &["ready", needs_tls]);
    let secured = |keyword: &str| {
        format!(
            "S: 220 mx.test
            C: EHLO relay.test
            S: 250-mx.test
            S: 250 STARTTLS
            C: STARTTLS
            S: 220
            C: EHLO relay.test
            S: 250-mx.test
            S: 250 {keyword}"
        )
    };
    let starttls = Settings { starttls: true, ..smtp() };
    let not_offered =
        "cannot 5.7.30 the mail needs REQUIRETLS; the server does not offer it (refused)";
    let outcome = ["starttls", "ready", not_offered];
    check(&starttls, std::slice::from_ref(&strict), &secured("SIZE"), &outcome);
    let script = format!(
        "{}
        C: MAIL FROM:<a@s.test> REQUIRETLS
        S: 250
        C: RCPT TO:<r0@d.test>
        S: 250
        C: DATA
        S: 354
        {CONTENT}
        S: 250",
        secured("REQUIRETLS")
    );
    check(&starttls, &[strict], &script, &["starttls", "ready", "0 ok"]);
}
