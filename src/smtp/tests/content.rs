//! Rows D: mail data and its end.

use super::*;

fn data(text: &str, answer: &str) -> String {
    opened(&format!("C: DATA\nS: 354\nc: {text}\nS: {answer}"))
}

const SMUGGLED: &str = "MAIL FROM:<smuggled@x>\\r\\nRCPT TO:<y@z>\\r\\nDATA\\r\\nx\\r\\n.\\r\\n";

/// Whatever the end looks like, the smuggled transaction is content of the first message.
fn smuggle(end: &str) {
    check(&data(&format!("text{end}{SMUGGLED}"), "550 5.6.0"));
    for line_ends in [LineEnds::Normalize, LineEnds::Allow] {
        let mut peer = Peer::new(Config { line_ends, ..Config::default() });
        peer.open();
        peer.feed(b"DATA\r\n");
        peer.feed(&unescape(&format!("text{end}{SMUGGLED}")));
        assert_eq!(peer.host.bodies.len(), 1, "{end}");
    }
}

#[test]
fn d1_lf_dot_lf() {
    smuggle("\\n.\\n");
}
#[test]
fn d2_lf_dot_crlf() {
    smuggle("\\n.\\r\\n");
}
#[test]
fn d3_crlf_dot_lf() {
    smuggle("\\r\\n.\\n");
}
#[test]
fn d4_cr_dot_cr() {
    smuggle("\\r.\\r");
}
#[test]
fn d5_cr_dot_lf() {
    smuggle("\\r.\\n");
}
#[test]
fn d6_cr_dot_crlf() {
    smuggle("\\r.\\r\\n");
}
#[test]
fn d7_lf_dot_cr() {
    smuggle("\\n.\\r");
}
#[test]
fn d8_crlf_dot_cr() {
    smuggle("\\r\\n.\\rx");
}
#[test]
fn d9_nul_before_dot() {
    smuggle("\\r\\n\\0.\\r\\n");
}
#[test]
fn d10_nul_after_dot() {
    smuggle("\\r\\n.\\0\\r\\n");
}
#[test]
fn d11_extra_cr_after_dot() {
    smuggle("\\r\\n.\\r\\r\\n");
}
#[test]
fn d12_extra_cr_both_sides() {
    smuggle("\\r\\r\\n.\\r\\r\\n");
}
#[test]
fn d13_blank_behind_the_dot() {
    for blank in [" ", "\\t"] {
        check(
            &(data(&format!("a\\r\\n.{blank}\\r\\n.\\r\\n"), "250")
                + &format!("\nB: a\\r\\n{blank}\\r\\n")),
        );
    }
}
#[test]
fn d14_unicode_line_ends() {
    for end in ["\\x85", "\u{2028}", "\\x0b", "\\x0c"] {
        check(
            &(data(&format!("a{end}.{end}\\r\\n.\\r\\n"), "250")
                + &format!("\nB: a{end}.{end}\\r\\n")),
        );
    }
}
#[test]
fn d16_end_split_at_each_cut() {
    const END: &[u8] = b"\r\n.\r\n";
    for cut in 1..END.len() {
        let mut peer = Peer::new(Config::default());
        peer.open();
        peer.feed(b"DATA\r\n");
        peer.answers();
        let (head, tail) = END.split_at(cut);
        peer.feed(&[b"text", head].concat());
        assert!(peer.host.bodies.is_empty() && peer.answers().is_empty(), "cut {cut}");
        peer.feed(&[tail, b"NOOP\r\n"].concat());
        assert_eq!(peer.host.bodies, [b"text\r\n"], "cut {cut}");
        assert_eq!(peer.answers(), ["250 2.0.0 Ok: queued as id", "250 2.0.0 Ok"], "cut {cut}");
    }
}
#[test]
fn d17_empty_message() {
    check(&(data(".\\r\\n", "250") + "\nB:"));
}
#[test]
fn d18_commands_behind() {
    check(&(data("a\\r\\n.\\r\\nQUIT\\r\\n", "250") + "\nS: 221\nX:\nB: a\\r\\n"));
}
#[test]
fn d20_transparency() {
    check(&(data("..\\r\\n...a\\r\\n.a\\r\\n.\\r\\n", "250") + "\nB: .\\r\\n..a\\r\\na\\r\\n"));
}
#[test]
fn d19_no_end() {
    let mut peer = Peer::new(Config::default());
    peer.open();
    peer.feed(b"DATA\r\n");
    peer.answers();
    peer.feed(b"text\r\n");
    assert_eq!(peer.with(|session, cx| session.handle_eof(cx)), Event::Close(Ending::ClientGone));
    peer.feed(b".\r\n");
    assert!(peer.host.bodies.is_empty() && peer.answers().is_empty());
}
#[test]
fn d21_bare_line_ends() {
    for text in ["a\\nb", "a\\rb"] {
        check(&data(&format!("{text}\\r\\n.\\r\\n"), "550 5.6.0"));
    }
}
#[test]
fn d22_nul_in_8bitmime() {
    check(&greeted(
        "C: MAIL FROM:<a@b> BODY=8BITMIME\nC: RCPT TO:<c@d>\nC: DATA\nS: 250\nS: 250\nS: 354\nC: a\\0b\nC: .\nS: 550 5.6.0",
    ));
}
#[test]
fn d23_eight_bit_undeclared() {
    let mut peer = Peer::new(Config::default());
    for (text, eight_bit) in [("plain\r\n.\r\n", false), ("\u{fc}\r\n.\r\n", true)] {
        peer.open();
        peer.feed(b"DATA\r\n");
        peer.feed(text.as_bytes());
        assert_eq!(peer.host.flags.last().expect("a message").eight_bit, eight_bit);
    }
}
#[test]
fn d24_long_lines() {
    let mut peer = Peer::new(Config::default());
    let lengths = [(998, true), (999, true), (65_536, true), (65_537, false), (10_000_000, false)];
    for (bytes, good) in lengths {
        peer.open();
        peer.feed(b"DATA\r\n");
        peer.answers();
        peer.feed(&[&vec![b'x'; bytes][..], b"\r\n.\r\n"].concat());
        let answer = peer.answers().concat();
        assert!(answer.starts_with(if good { "250" } else { "554 5.6.0" }), "{bytes} {answer}");
        if good {
            assert_eq!(peer.host.flags.last().expect("a message").long_line, bytes > 998);
        }
    }
}
#[test]
fn d25_size_limit() {
    let mut config = Config::default();
    config.limits.message_bytes = 5;
    check_with(&(data("...a\\r\\n.\\r\\n", "250") + "\nB: ..a\\r\\n"), &config);
    check_with(&data("...ab\\r\\n.\\r\\n", "552 5.3.4"), &config);
    check_with(&data("0123456789x", "421 4.7.0\nX:"), &config);
}
#[test]
fn d26_aborted_bodies() {
    // The core keeps none of a body, so an abort leaves a session as large as it was; what the
    // driver collected it is told to drop.
    for turn in [&b"RSET\r\n"[..], b"EHLO a\r\n"] {
        let mut peer = Peer::new(Config::default());
        for _ in 0..50 {
            peer.open();
            for _ in 0..8 {
                peer.feed(&[b"BDAT 65536\r\n", &[b'x'; 65_536][..]].concat());
                assert!(peer.kept() <= 64, "{} octets kept", peer.kept());
            }
            let dropped = peer.host.discards;
            peer.feed(turn);
            assert_eq!(peer.host.discards, dropped + 1, "the driver drops what it has");
        }
        assert!(peer.host.bodies.is_empty() && !peer.closed);
    }
    let mut peer = Peer::new(Config::default());
    peer.open();
    peer.feed(b"BDAT 26214400 LAST\r\n");
    for _ in 0..26 {
        peer.feed(&vec![b'x'; 1_000_000]);
        assert_eq!(peer.kept(), 0);
    }
    assert_eq!(peer.with(|session, cx| session.handle_eof(cx)), Event::Close(Ending::ClientGone));
    assert!(peer.host.bodies.is_empty());
}
#[test]
fn d27_received_loop() {
    check(&data(&format!("{}\\r\\n.\\r\\n", "Received: x\\r\\n".repeat(101)), "554 5.4.6"));
    let hundred = format!("{}\\r\\nReceived: body\\r\\n", "received: x\\r\\n".repeat(100));
    check(&(data(&format!("{hundred}.\\r\\n"), "250") + "\nB: " + &hundred));
}
#[test]
fn d28_huge_headers() {
    let many = "X-Line: 1\r\n".repeat(100_000);
    let folded = format!("X-Long: 1\r\n{}", " x\r\n".repeat(1_000_000));
    for header in [many, folded] {
        let text = format!("{header}\r\nbody\r\n");
        let mut peer = Peer::new(Config::default());
        peer.open();
        peer.feed(b"DATA\r\n");
        peer.steps = 0;
        for piece in format!("{text}.\r\n").as_bytes().chunks(65_536) {
            peer.feed(piece);
        }
        assert!(peer.host.bodies == [text.as_bytes()], "stored as it came");
        // Each receive is passed over once: its data, and the wish for more.
        assert!(peer.steps <= 2 * (text.len() / 65_536 + 3), "{} steps", peer.steps);
    }
}
#[test]
fn d29_no_header() {
    for text in
        ["just text\\r\\n", "no colon\\r\\n\\r\\nx\\r\\n", "   \\r\\n\\t\\r\\n", "\\r\\n\\r\\n"]
    {
        check(&(data(&format!("{text}.\\r\\n"), "250") + "\nB: " + text));
    }
}
#[test]
fn d30_nested_mime() {
    let mut text = String::new();
    for depth in 0..10_000 {
        text += &format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n");
    }
    let mut peer = Peer::new(Config::default());
    peer.open();
    peer.feed(b"DATA\r\n");
    peer.feed(format!("{text}.\r\n").as_bytes());
    assert!(peer.host.bodies == [text.as_bytes()], "never parsed, stored as it came");
}
#[test]
fn d31_a_segment_as_body() {
    // The log's side is in `log::tests`. Here: every octet value passes in BINARYMIME, and text
    // with its NULs is refused.
    let segment = [&b"MRSEGM01"[..], &[0; 44], &(0..=255).collect::<Vec<u8>>()].concat();
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    peer.feed(b"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<c@d>\r\n");
    peer.feed(format!("BDAT {} LAST\r\n", segment.len()).as_bytes());
    peer.feed(&segment);
    assert_eq!(peer.host.bodies, [segment.as_slice()]);
    peer.open();
    peer.answers();
    peer.feed(format!("BDAT {} LAST\r\n", segment.len()).as_bytes());
    peer.feed(&segment);
    assert!(peer.answers().concat().starts_with("550 5.6.0"));
}
#[test]
fn d32_commands_in_body() {
    check(&(data("QUIT\\r\\nRSET\\r\\n.\\r\\n", "250") + "\nB: QUIT\\r\\nRSET\\r\\n"));
}

/// The plain model: the body after transparency, and what is left behind the end of mail data.
fn model(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let line_start = at == 0 || text[..at].ends_with(b"\r\n");
        if line_start && text[at..].starts_with(b".\r\n") {
            return Some((body, &text[at + 3..]));
        }
        if !(line_start && text[at] == b'.') {
            body.push(text[at]);
        }
        at += 1;
    }
    None
}

#[test]
fn d15_every_short_string() {
    let mut count = 0;
    for len in 1..=8_u32 {
        for number in 0..4_usize.pow(len) {
            let middle = (0..len).map(|place| b"\r\n.\0"[number >> (2 * place) & 3]);
            let text: Vec<u8> = [b'a'].into_iter().chain(middle).chain(*b"b").collect();
            let mut reader = data::TextReader::default();
            let (mut body, mut at, mut ended) = (Vec::<u8>::new(), 0, false);
            while at < text.len() && !ended {
                let cut = text.len().min(at + 1 + number % 3);
                let (used, piece) = reader.next(&text[at..cut], true, false);
                match piece {
                    data::Piece::Octets(octets) => body.extend(&text[at..at + octets]),
                    data::Piece::Static(octets) => body.extend(octets),
                    data::Piece::End => ended = true,
                    data::Piece::Nothing => {}
                }
                at += used;
            }
            match model(&text) {
                Some((wanted, rest)) => {
                    assert!(ended && body == wanted && rest == &text[at..], "{text:?}")
                }
                None => assert!(!ended, "{text:?}"),
            }
            count += 1;
        }
    }
    assert_eq!(count, 87_380);
}

proptest::proptest! {
    /// Any cut of any mail data gives the same replies and the same bodies.
    #[test]
    fn any_split_is_the_same(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec!["\r\n", "\r", "\n", ".", "\0", "abc", "\u{fc}", "\r\n.\r\n", "QUIT"]),
            0..40,
        ),
        cuts in proptest::collection::vec(1_usize..9, 1..20),
        mode in 0_usize..3,
    ) {
        let text = pieces.concat() + "\r\n.\r\nNOOP\r\n";
        let line_ends = [LineEnds::Reject, LineEnds::Normalize, LineEnds::Allow][mode];
        let run = |whole: bool| {
            let mut peer = Peer::new(Config { line_ends, ..Config::default() });
            peer.feed(b"EHLO a\r\n");
            peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
            peer.feed(b"DATA\r\n");
            let mut rest = text.as_bytes();
            let mut lengths = cuts.iter().cycle();
            while !rest.is_empty() {
                let len = if whole { rest.len() } else { *lengths.next().unwrap_or(&1) };
                let (head, tail) = rest.split_at(len.min(rest.len()));
                peer.feed(head);
                rest = tail;
            }
            (peer.answers(), peer.host.bodies.clone(), peer.closed)
        };
        proptest::prop_assert_eq!(run(true), run(false));
    }
}
