//! Rows B: session state, and E: BDAT. Deadlines, holds.

use super::*;

#[test]
fn b1_no_ehlo() {
    check("C: MAIL FROM:<a@b>\nS: 503 5.5.1");
}
#[test]
fn b2_out_of_order() {
    check(&greeted(
        "C: RCPT TO:<a@b>\nS: 503\nC: DATA\nS: 503\nC: BDAT 3\nc: abc\nS: 503\nC: NOOP\nS: 250",
    ));
}
#[test]
fn b3_no_valid_recipient() {
    check(&greeted(
        "C: MAIL FROM:<a@b>\nC: RCPT TO:<>\nC: DATA\nS: 250\nS: 501 5.1.3\nS: 554 5.5.1",
    ));
}
#[test]
fn b4_nested_mail() {
    check(&opened("C: MAIL FROM:<a@b>\nS: 503 5.5.1"));
}
#[test]
fn b5_ehlo_resets() {
    check(&opened("C: EHLO a\nS: 250 HELP\nC: RCPT TO:<a@b>\nS: 503"));
}
#[test]
fn b6_refused_content_clears() {
    check(&opened(
        "C: DATA\nS: 354\nC: a\\nb\nC: .\nS: 550 5.6.0\nC: RCPT TO:<a@b>\nC: DATA\nS: 503\nS: 503",
    ));
}
#[test]
fn b7_bdat_error_then_data() {
    check(&greeted("C: MAIL FROM:<a@b>\nS: 250\nC: BDAT 5\nc: xxxxx\nS: 503\nC: DATA\nS: 503"));
}
#[test]
fn b8_utf8_vrfy() {
    check(&opened("C: VRFY \u{fc}\nS: 252\nC: DATA\nS: 354"));
}
#[test]
fn b12_rset_keeps_ehlo() {
    check(&opened("C: RSET\nS: 250 2.0.0\nC: MAIL FROM:<a@b>\nS: 250"));
}
#[test]
fn b13_disconnect_anywhere() {
    let turns: [&[u8]; 4] =
        [b"EHLO a\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", b"DATA\r\n", b"hi\r\n.\r"];
    let mut peer = Peer::new(Config::default());
    for turn in turns {
        for octet in turn {
            peer.feed(&[*octet]);
            assert!(peer.host.bodies.is_empty());
        }
    }
    assert_eq!(peer.with(|session, cx| session.handle_eof(cx)), Event::Close(Ending::ClientGone));
    peer.feed(b"\n");
    assert!(peer.host.bodies.is_empty() && peer.session.deadline() == Duration::MAX);
}
#[test]
fn b14_gone_behind_the_dot() {
    // A message that is whole is kept though nobody hears of it (RFC 1047); a command that is
    // not whole is not run.
    let mut peer = Peer::new(Config::default());
    peer.host.verdicts = false;
    peer.open();
    peer.feed(b"BDAT 0 LAST\r\nNOOP\r\nNOO");
    assert!(peer.session.is_waiting_for_verdict());
    peer.with(|session, cx| session.handle_eof(cx));
    assert!(peer.session.is_waiting_for_verdict(), "it may still be resolved");
    peer.answers();
    peer.with(|session, cx| session.resolve_accepted(cx, 1, &"id"));
    peer.feed(b"");
    assert_eq!((peer.answers(), peer.closed), (vec!["250 2.0.0 Ok: queued as id".into()], true));
}
#[test]
fn b15_too_many_messages() {
    let mut config = Config::default();
    config.limits.session_messages = 2;
    let one = "C: MAIL FROM:<a@b>\nS: 250\nC: RCPT TO:<a@b>\nS: 250\nC: BDAT 0 LAST\nS: 250\nB:\n";
    check_with(&greeted(&format!("{one}{one}C: MAIL FROM:<a@b>\nS: 421 4.7.0\nX:")), &config);
}
#[test]
fn b16_mail_rset_pairs() {
    let turn = "C: MAIL FROM:<a@b>\nC: RSET\n".repeat(150);
    let answers = "S: 250 2.1.0\nS: 250 2.0.0\n".repeat(101);
    check(&greeted(&format!("{turn}{answers}S: 421 4.7.0\nX:")));
}

#[test]
fn e1_malformed_count() {
    for argument in ["", " abc", " -1", " +5", " 0x10", " 5 LAST x", " 5 x"] {
        check(&opened(&format!("C: BDAT{argument}\nS: 521 5.5.4\nX:")));
    }
}
#[test]
fn e2_huge_count() {
    check(&opened("C: BDAT 18446744073709551616\nS: 521 5.5.4\nX:"));
    check(&opened("C: BDAT 52428801\nS: 552 5.3.4\nX:"));
}
#[test]
fn e3_out_of_order_chunk() {
    check(&greeted("C: BDAT 6\nc: QUIT\\r\\n\nS: 503 5.5.1\nC: NOOP\nS: 250"));
    check(&greeted(
        "C: MAIL FROM:<a@b>\nS: 250\nC: BDAT 6 LAST\nc: QUIT\\r\\n\nS: 503 5.5.1\nC: RCPT TO:<c@d>\nS: 503",
    ));
}
#[test]
fn e4_zero_chunk() {
    check(&opened("C: BDAT 0\nS: 250\nC: BDAT 0 LAST\nS: 250\nB:"));
    let mut config = Config::default();
    config.limits.junk_max = 2;
    let turn = "C: BDAT 0\n".repeat(3) + "S: 250\nS: 250\nS: 421 4.7.0\nX:";
    check_with(&opened(&turn), &config);
}
#[test]
fn e5_zero_last_chunk_alone() {
    check(&opened("C: BDAT 0 LAST\nS: 250\nB:"));
}
#[test]
fn e6_tiny_chunks() {
    let mut config = Config::default();
    config.limits.bdat_chunks_max = 3;
    let turn = "C: BDAT 1\nc: x".to_string();
    let script = [turn.as_str(); 4].join("\n") + "\nS: 250\nS: 250\nS: 250\nS: 421\nX:";
    check_with(&opened(&script), &config);
}
#[test]
fn e7_mixed() {
    check(&opened(
        "C: BDAT 3\nc: abc\nS: 250\nC: DATA\nS: 503\nC: MAIL FROM:<a@b>\nS: 503\nC: RCPT TO:<a@b>\nS: 503\nC: BDAT 0 LAST\nS: 250\nB: abc",
    ));
}
#[test]
fn e8_rset_between_chunks() {
    check(&opened("C: BDAT 3\nc: abc\nS: 250\nC: RSET\nS: 250\nC: BDAT 0 LAST\nS: 503"));
}
#[test]
fn e9_commands_in_chunk() {
    check(&opened(
        "C: BDAT 12 LAST\nc: a\\r\\n.\\r\\nQUIT\\r\\n\nS: 250\nB: a\\r\\n.\\r\\nQUIT\\r\\n",
    ));
}
#[test]
fn e10_bad_command_between_chunks() {
    check(&opened(
        "C: BDAT 1\nc: a\nS: 250\nC: XYZZY\nS: 500\nC: BDAT 1 LAST\nc: b\nS: 250\nB: ab",
    ));
}
#[test]
fn e11_short_chunk() {
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 4 LAST\r\nabc");
    peer.answers();
    // Three octets at 500 a second have earned nothing beyond the 30 s of grace.
    assert_eq!(peer.session.deadline(), Duration::from_secs(30));
    peer.now = peer.session.deadline();
    assert_eq!(peer.with(|session, cx| session.handle_deadline(cx)), Event::Close(Ending::Timeout));
    peer.feed(b"");
    assert_eq!(peer.answers(), ["421 4.4.2 localhost Timeout"]);
    assert!(peer.host.bodies.is_empty());
}
#[test]
fn e13_sum_over_limit() {
    let mut config = Config::default();
    config.limits.message_bytes = 4;
    check_with(
        &opened(
            "C: BDAT 3\nc: abc\nS: 250\nC: BDAT 3\nc: abc\nS: 552 5.3.4\nC: BDAT 1 LAST\nc: x\nS: 552 5.3.4\nC: DATA\nS: 503",
        ),
        &config,
    );
    check_with(&opened("C: BDAT 3\nc: abc\nS: 250\nC: BDAT 6\nS: 552 5.3.4\nX:"), &config);
}
#[test]
fn e14_pipelined_chunks() {
    let turn = "C: BDAT 1\nc: x\n".repeat(1_000);
    let script =
        format!("{turn}C: BDAT 0 LAST\n{}B: {}", "S: 250\n".repeat(1_001), "x".repeat(1_000));
    check(&opened(&script));
}
#[test]
fn e15_lower_case_last() {
    check(&opened("C: bdat 003 last\nc: a\\r\\n\nS: 250\nB: a\\r\\n"));
}
#[test]
fn e16_no_final_crlf() {
    check(&opened("C: BDAT 3 LAST\nc: abc\nS: 250\nB: abc"));
    let mut peer = Peer::new(Config::default());
    for (text, open_end) in [(&b"BDAT 3 LAST\r\nabc"[..], true), (b"BDAT 3 LAST\r\na\r\n", false)] {
        peer.open();
        peer.feed(text);
        assert_eq!(peer.host.flags.last().expect("a message").no_final_crlf, open_end);
    }
}
#[test]
fn e17_binarymime_and_data() {
    check(&greeted(
        "C: MAIL FROM:<a@b> BODY=BINARYMIME\nC: RCPT TO:<a@b>\nC: DATA\nS: 250\nS: 250\nS: 503\nC: BDAT 4 LAST\nc: \\n\\0\\r\\xff\nS: 250\nB: \\n\\0\\r\\xff",
    ));
}
#[test]
fn e18_bare_lf_in_chunk() {
    check(&opened("C: BDAT 3\nc: a\\nb\nS: 250\nC: BDAT 0 LAST\nS: 550 5.6.0"));
    check(&opened("C: BDAT 2 LAST\nc: a\\r\nS: 550 5.6.0"));
}

#[test]
fn holds_keep_the_order_and_fail_in_place() {
    let mut replies = Replies::new();
    let mut out = Vec::new();
    replies.push_held(7, &"A", 1);
    replies.push(reply::OK);
    replies.push_held(9, &"B", 1);
    assert_eq!((replies.ready(), replies.held(), replies.first_held()), (0, 2, Some(7)));
    assert_eq!(replies.release(7).holds, 0);
    assert_eq!(replies.fail(9..10, Refusal::LogFailed).holds, 1);
    assert_eq!(replies.release(8).holds, 1);
    replies.take_ready(&mut out);
    let text = String::from_utf8(out).expect("ascii");
    assert!(text.starts_with("250 2.0.0 Ok: queued as A\r\n250 2.0.0 Ok\r\n451 4.3.0"), "{text}");
    assert!(replies.is_empty());
}

#[test]
fn memory_of_replies_goes_along_with_them_and_is_given_back_without() {
    let mut replies = Replies::new();
    assert!(!replies.has_memory());
    replies.lend(Vec::with_capacity(64));
    assert!(replies.has_memory());
    let memory = replies.give_back().expect("nothing was said");
    replies.lend(memory);
    replies.push(reply::OK);
    assert!(replies.give_back().is_none(), "a reply is in it");
    let mut out = Vec::new();
    replies.take_ready(&mut out);
    assert_eq!((out.as_slice(), out.capacity()), (b"250 2.0.0 Ok\r\n".as_slice(), 64));
    assert!(!replies.has_memory(), "it left with the reply");
    // Octets that are there already stay in front.
    replies.push(reply::OK);
    replies.take_ready(&mut out);
    assert_eq!(out, b"250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n");
    // So do held replies behind those that go.
    replies.push(reply::OK);
    replies.push_held(1, &"A", 1);
    let mut ready = Vec::new();
    replies.take_ready(&mut ready);
    assert_eq!((ready.as_slice(), replies.ready(), replies.held()), (&out[..14], 0, 1));
    replies.release(2);
    ready.clear();
    replies.take_ready(&mut ready);
    assert!(ready.ends_with(b"queued as A\r\n") && replies.is_empty());
}
