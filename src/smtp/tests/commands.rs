//! Rows A: command lines.

use super::*;

#[test]
fn a1_bare_lf() {
    check("c: EHLO a\\n\nS: 500 5.5.2\nX:");
}
#[test]
fn a2_bare_cr() {
    check(&greeted("C: MAIL FROM:<a@b>\\rRCPT TO:<c@d>\nS: 501 5.5.4"));
}
#[test]
fn a3_doubled_cr() {
    check("C: EHLO a\\r\nS: 501 ");
}
#[test]
fn a4_nul() {
    check(&greeted("C: MAIL FROM:<a\\0@b>\nS: 501 5.5.4"));
}
#[test]
fn a5_eight_bit_verb() {
    check("C: \\x80FAIL\nS: 500 5.5.2");
}
#[test]
fn a6_empty_line() {
    check("C:\nS: 500 5.5.2");
}
#[test]
fn a7_line_without_end() {
    let long = "A".repeat(200_000);
    let script = format!("c: {long}\nS: 500 5.5.2\nS: 421 4.7.0 localhost\nX:");
    check_whole(&script, &Config::default());
    run(&script, &Config::default(), &mut || 1);
    check(&format!("C: {}\nS: 500 5.5.2\nC: NOOP\nS: 250", "A".repeat(5_000)));
}
#[test]
fn a8_long_command() {
    check(&format!("C: NOOP {}\nS: 250 2.0.0", "A".repeat(2_041)));
    check(&format!("C: NOOP {}\nS: 500 5.5.2", "A".repeat(2_042)));
}
#[test]
fn a9_http_get() {
    check("C: GET / HTTP/1.1\nC: Host: x\nS: 421 4.7.0\nX:");
}
#[test]
fn a10_http_post() {
    check("C: POST / HTTP/1.1\nC:\nC: MAIL FROM:<a@b>\nS: 421 4.7.0\nX:");
}
#[test]
fn a11_tls_hello() {
    check("c: \\x16\\x03\\x01\\x02\\x00\\x01\nS: 500 5.5.2\nX:");
}
#[test]
fn a12_rdp() {
    check("c: \\x03\\x00\\x00\\x13\\x0e\nS: 500 5.5.2\nX:");
}
#[test]
fn a13_telnet() {
    check("C: \\xff\\xf4\\xff\\xfd\\x06\nS: 500 5.5.2");
}
#[test]
fn a14_leading_space() {
    check("C:  EHLO a\nS: 500 5.5.2");
}
#[test]
fn a15_tab() {
    check(&greeted("C: MAIL\\tFROM:<a@b>\nS: 501 5.5.4"));
}
#[test]
fn a16_mixed_case() {
    check(&greeted("C: mAiL fRoM:<a@b>\nS: 250 2.1.0"));
}
#[test]
fn a17_trailing_spaces() {
    check("C: QUIT  \nS: 221 2.0.0\nX:");
}
#[test]
fn a18_non_letter() {
    check("C: :;{}\nS: 500 5.5.2\nC: :;{}\nS: 421\nX:");
}
#[test]
fn a19_full_width() {
    check("C: \u{ff2d}\u{ff21}\u{ff29}\u{ff2c} FROM:\nS: 500 5.5.2");
}
#[test]
fn a20_any_split() {
    check(&opened(
        "C: DATA\nS: 354 \nC: hi\nC: .\nS: 250 2.0.0 Ok: queued as id\nB: hi\\r\\n\nC: QUIT\nS: 221\nX:",
    ));
}
#[test]
fn a21_talks_before_greeting() {
    for check in [false, true] {
        let mut peer = unopened(Config { greet_check: check, ..Config::default() });
        let step = peer.with(|session, cx| session.handle_input(cx, b"EHLO a\r\n"));
        if check {
            assert_eq!(step.event, Event::Close(Ending::Refused));
            assert_eq!(peer.stats.protocol_errors[ProtocolError::EarlyTalker as usize], 1);
            continue;
        }
        assert_eq!(step, Step { consumed: 0, event: Event::NeedInput });
        let step = peer.with(|session, cx| {
            session.handle_open(cx, Entry::Open);
            session.handle_input(cx, b"EHLO a\r\n")
        });
        assert_eq!(step.consumed, 8);
    }
}
#[test]
fn a22_pipelines_behind_ehlo_or_data() {
    let config = Config::default();
    check_whole("C: EHLO a\nC: MAIL FROM:<>\nS: 554 5.5.0\nX:", &config);
    check_whole(&opened("C: DATA\nC: hi\nS: 554 5.5.0\nX:"), &config);
}
#[test]
fn a23_twenty_unknown_verbs() {
    let script = "C: XYZZY\n".repeat(25) + &"S: 500 5.5.2\n".repeat(20) + "S: 421 4.7.0\nX:";
    check(&script);
}
#[test]
fn a24_junk() {
    let script = "C: NOOP\n".repeat(200) + &"S: 250 2.0.0\n".repeat(101) + "S: 421 4.7.0\nX:";
    check(&script);
}
#[test]
fn a25_argument_where_none() {
    check(&opened(
        "C: DATA x\nS: 501 5.5.4\nC: RSET x\nS: 501 5.5.4\nC: QUIT x\nS: 501 5.5.4\nC: DATA\nS: 354",
    ));
}
#[test]
fn a26_noop_argument() {
    check("C: NOOP hi\nS: 250 2.0.0");
}
#[test]
fn a27_retired_verbs() {
    for verb in ["TURN", "SEND", "SOML", "SAML", "ETRN #x;'--", "EXPN", "XCLIENT", "XFORWARD"] {
        check(&format!("C: {verb}\nS: 502 5.5.1"));
    }
}
#[test]
fn a28_vrfy() {
    check("C: VRFY root\nS: 252 2.0.0");
}
#[test]
fn a29_behind_quit() {
    check("C: QUIT\nC: MAIL FROM:<a@b>\nS: 221\nX:");
}
