//! Rows C15 to C24 and C30 where parameters are offered: DSN (RFC 3461), REQUIRETLS (RFC 8689),
//! MT-PRIORITY (RFC 6710), AUTH= (RFC 4954 §5).

use super::*;

/// Offers everything, under TLS.
fn all() -> Config {
    let auth = Auth { plain: true, ..Auth::default() };
    let tls = TlsPolicy::Implicit;
    Config { dsn: true, require_tls: true, mt_priority: true, auth, tls, ..Config::default() }
}

fn mail(config: &Config, argument: &str, answer: &str) {
    check_with(&greeted(&format!("C: MAIL FROM:<a@b> {argument}\nS: {answer}")), config);
}

fn rcpt(config: &Config, argument: &str, answer: &str) {
    let open = "C: MAIL FROM:<a@b>\nS: 250\n";
    check_with(&greeted(&format!("{open}C: RCPT TO:<c@d> {argument}\nS: {answer}")), config);
}

/// What is kept of a message that came so.
fn kept(config: Config, mail: &str, rcpts: &[&str]) -> Option<Parameters> {
    let mut peer = Peer::new(config);
    peer.feed(b"EHLO a\r\n");
    let mut turn = format!("MAIL FROM:<a@b> {mail}\r\n");
    for rcpt in rcpts {
        turn += &format!("RCPT TO:<c@d> {rcpt}\r\n");
    }
    peer.feed((turn + "BDAT 0 LAST\r\n").as_bytes());
    assert_eq!(peer.host.bodies.len(), 1, "{:?}", peer.answers());
    peer.host.parameters.remove(0)
}

#[test]
fn c15_what_is_not_offered_is_unknown() {
    let off = Config::default();
    let under_tls = Config { tls: TlsPolicy::Implicit, ..Config::default() };
    for config in [&off, &under_tls] {
        for argument in ["RET=FULL", "ENVID=x", "REQUIRETLS", "MT-PRIORITY=1", "AUTH=<>", "RET=X"] {
            mail(config, argument, "555 5.5.4");
        }
        rcpt(config, "NOTIFY=NEVER", "555 5.5.4");
        rcpt(config, "ORCPT=rfc822;a@b", "555 5.5.4");
    }
    mail(&all(), "FOO=1", "555 5.5.4");
    mail(&all(), "NOTIFY=NEVER", "555 5.5.4");
    rcpt(&all(), "RET=FULL", "555 5.5.4");
    // RFC 4954 §4: AUTH is offered under TLS only, and its parameter with it.
    mail(&Config { tls: TlsPolicy::Offered, ..all() }, "AUTH=<>", "555 5.5.4");
}
#[test]
fn c16_once_each() {
    for twice in [
        "RET=FULL ret=FULL",
        "ENVID=a ENVID=a",
        "REQUIRETLS REQUIRETLS",
        "MT-PRIORITY=1 MT-PRIORITY=1",
    ] {
        mail(&all(), twice, "501 5.5.4");
    }
    mail(&all(), "AUTH=<> AUTH=<>", "501 5.5.4");
    rcpt(&all(), "NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4");
    rcpt(&all(), "ORCPT=rfc822;a ORCPT=rfc822;a", "501 5.5.4");
}
#[test]
fn c20_auth_with_coded_line_break() {
    for bad in ["a+0AX", "+00", "a+0D+0A", "+7F", "+80", "+4", "+", "a+4z", "+4a", "\\xc3\\xbc"] {
        mail(&all(), &format!("AUTH={bad}"), "501 5.5.4");
    }
    mail(&all(), "AUTH", "501 5.5.4");
    mail(&all(), "AUTH=", "501 5.5.4");
    for good in ["<>", "e+3Dmc2@example.com", "a+20b"] {
        mail(&all(), &format!("AUTH={good}"), "250 2.1.0");
        // RFC 4954 §5: nobody has proved who it is.
        let kept = kept(all(), &format!("AUTH={good}"), &[""]).expect("kept");
        assert_eq!(kept, Parameters { submitter: "<>".into(), ..Parameters::default() });
    }
}
#[test]
fn c21_control_octets_in_xtext() {
    for bad in ["+00", "+0D+0A", "a+0Ab", "a+1Bb", "+7f", "\\xc3\\xa9"] {
        mail(&all(), &format!("ENVID={bad}"), "501 5.5.4");
        rcpt(&all(), &format!("ORCPT=rfc822;{bad}"), "501 5.5.4");
    }
    rcpt(&all(), "ORCPT=utf-8;a+0Ab", "501 5.5.4");
    rcpt(&all(), "ORCPT=utf-8;\\xc3\\xa9@x", "501 5.5.4");
}
#[test]
fn c22_limits_of_dsn() {
    mail(&all(), &format!("ENVID={}", "x".repeat(100)), "250");
    mail(&all(), &format!("ENVID={}", "x".repeat(101)), "501 5.5.4");
    // They count as decoded.
    mail(&all(), &format!("ENVID={}", "+2B".repeat(100)), "250");
    mail(&all(), &format!("ENVID={}", "+2B".repeat(101)), "501 5.5.4");
    rcpt(&all(), &format!("ORCPT=rfc822;{}", "x".repeat(493)), "250");
    rcpt(&all(), &format!("ORCPT=rfc822;{}", "x".repeat(494)), "501 5.5.4");
    for bad in ["NEVER,SUCCESS", "SUCCESS,NEVER", "", ",", "SUCCESS,", "SOMETIMES", "SUCCESS;DELAY"]
    {
        rcpt(&all(), &format!("NOTIFY={bad}"), "501 5.5.4");
    }
    for bad in ["NOTIFY", "ORCPT", "ORCPT=a@b", "ORCPT=;a@b", "ORCPT=rfc822;", "ORCPT=rfc 822;a"] {
        rcpt(&all(), bad, "501 5.5.4");
    }
    for bad in ["RET=X", "RET", "RET=", "RET=FULL,HDRS", "ENVID", "ENVID="] {
        mail(&all(), bad, "501 5.5.4");
    }
}
#[test]
fn c23_as_many_parameters_as_a_line_holds() {
    let mut config = all();
    config.limits.parameters_max = 1_000;
    mail(&config, &"X=1 ".repeat(480), "555 5.5.4");
    mail(&all(), &format!("ENVID={}", "x".repeat(2_100)), "500 5.5.2");
    // RFC 3461 §4.2, §4.4, RFC 4954 §5: the longest that each may be, on one line.
    let longest = format!("RET=FULL ENVID={} AUTH={}", "+2B".repeat(100), "x".repeat(500));
    mail(&all(), &format!("{longest} SIZE=1 BODY=8BITMIME SMTPUTF8 REQUIRETLS"), "250");
}
#[test]
fn c24_no_parameters_after_helo() {
    let config = all();
    for argument in ["RET=FULL", "ENVID=x", "REQUIRETLS", "MT-PRIORITY=1", "AUTH=<>"] {
        let script = format!("C: HELO a\nS: 250\nC: MAIL FROM:<a@b> {argument}\nS: 555 5.5.4");
        check_with(&script, &config);
    }
    let open = "C: HELO a\nS: 250\nC: MAIL FROM:<a@b>\nS: 250\n";
    check_with(&format!("{open}C: RCPT TO:<a@b> NOTIFY=NEVER\nS: 555 5.5.4"), &config);
}
#[test]
fn c30_utf8_in_parameters_needs_smtputf8() {
    let open = "C: MAIL FROM:<a@b> SMTPUTF8\nS: 250\n";
    let rcpt = |argument: &str| format!("{open}C: RCPT TO:<c@d> {argument}\n");
    check_with(&greeted(&(rcpt("ORCPT=utf-8;\\xc3\\xa9@x") + "S: 250")), &all());
    check_with(&greeted(&(rcpt("ORCPT=rfc822;\\xc3\\xa9@x") + "S: 501")), &all());
    check_with(&greeted(&(rcpt("ORCPT=utf-8;\\xc2\\x85") + "S: 501")), &all());
    check_with(&greeted(&(rcpt("NOTIFY=\\xc3\\xa9") + "S: 501")), &all());
}

#[test]
fn rfc3461_4_what_is_asked_for_is_kept() {
    let orcpt = "ORCPT=rfc822;c+2Bx@d";
    let asked = kept(
        all(),
        "RET=hdrs ENVID=QQ+20314+3D",
        &[
            "",
            &format!("notify=delay,SUCCESS  {orcpt}"),
            "",
            "orcpt=utf-8;a\\x{E9}@d",
            "NOTIFY=never",
        ],
    );
    let lines = format!("\nNOTIFY=SUCCESS,DELAY {orcpt}\n\nORCPT=utf-8;a\\x{{E9}}@d\nNOTIFY=NEVER");
    let wanted = Parameters {
        ret: Some(Ret::Headers),
        envid: "QQ 314=".into(),
        recipients: lines,
        ..Parameters::default()
    };
    assert_eq!(asked, Some(wanted));
    let first = kept(all(), "", &["NOTIFY=FAILURE", "", ""]).expect("kept");
    assert_eq!(first.recipients, "NOTIFY=FAILURE\n\n");
    assert_eq!(kept(all(), "SIZE=3 BODY=8BITMIME SMTPUTF8", &["", ""]), None, "nothing to keep");
    // A recipient that is refused leaves nothing.
    let refused = kept(all(), "", &["NOTIFY=NEVER", "NOTIFY=X", "ORCPT=rfc822;x"]).expect("kept");
    assert_eq!(refused.recipients, "NOTIFY=NEVER\nORCPT=rfc822;x");
}
#[test]
fn rfc3461_4_nothing_is_left_for_the_next_message() {
    let mut peer = Peer::new(all());
    peer.feed(b"EHLO a\r\n");
    for mail in ["MAIL FROM:<a@b> RET=FULL ENVID=x REQUIRETLS MT-PRIORITY=-3", "MAIL FROM:<a@b>"] {
        peer.feed(format!("{mail}\r\nRCPT TO:<c@d>\r\nBDAT 0 LAST\r\n").as_bytes());
    }
    let first = Parameters {
        ret: Some(Ret::Full),
        envid: "x".into(),
        require_tls: true,
        mt_priority: Some(-3),
        ..Parameters::default()
    };
    assert_eq!(peer.host.parameters, [Some(first), None]);
}
#[test]
fn rfc8689_2_requiretls_is_for_sessions_under_tls() {
    mail(&all(), "REQUIRETLS", "250");
    mail(&all(), "REQUIRETLS=yes", "501 5.5.4");
    let clear = Config { tls: TlsPolicy::Offered, ..all() };
    mail(&clear, "REQUIRETLS", "523 5.7.10");
    mail(&Config { require_tls: false, ..clear }, "REQUIRETLS", "555");
}
#[test]
fn rfc6710_5_priorities() {
    for (text, priority) in [("-9", -9), ("-1", -1), ("0", 0), ("9", 9)] {
        let kept = kept(all(), &format!("MT-PRIORITY={text}"), &[""]).expect("kept");
        assert_eq!(kept.mt_priority, Some(priority));
    }
    for bad in ["", "-", "-0", "+1", "10", "01", "-10", "x", "1.0"] {
        mail(&all(), &format!("MT-PRIORITY={bad}"), "501 5.5.4");
    }
}
#[test]
fn each_is_listed_where_it_is_offered() {
    let listed = |config: Config| {
        let mut peer = Peer::new(config);
        peer.feed(b"EHLO a\r\n");
        let text = String::from_utf8(peer.sent).expect("ASCII");
        ["DSN", "REQUIRETLS", "MT-PRIORITY"]
            .map(|keyword| text.contains(&format!("-{keyword}\r\n")))
    };
    assert_eq!(listed(Config::default()), [false; 3]);
    assert_eq!(listed(all()), [true; 3]);
    assert_eq!(listed(Config { tls: TlsPolicy::Offered, ..all() }), [true, false, true]);
    assert_eq!(listed(Config { dsn: false, mt_priority: false, ..all() }), [false, true, false]);
}
