//! Rows D: mail data and its end.

use super::*;

fn data(text: &str, answer: &str) -> String {
    opened(&format!("C: DATA\nS: 354\nc: {text}\nS: {answer}"))
}

const SMUGGLED: &str = "MAIL FROM:<smuggled@x>\\r\\nRCPT TO:<y@z>\\r\\nDATA\\r\\nx\\r\\n.\\r\\n";

#[test]
fn d1_to_d12_smuggling() {
    for end in [
        "\\n.\\n",
        "\\n.\\r\\n",
        "\\r\\n.\\n",
        "\\r.\\r",
        "\\r.\\n",
        "\\r.\\r\\n",
        "\\n.\\r",
        "\\r\\n.\\rx",
        "\\r\\n\\0.\\r\\n",
        "\\r\\n.\\0\\r\\n",
        "\\r\\n.\\r\\r\\n",
        "\\r\\r\\n.\\r\\r\\n",
    ] {
        check(&data(&format!("text{end}{SMUGGLED}"), "550 5.6.0"));
        for line_ends in [LineEnds::Normalize, LineEnds::Allow] {
            let mut peer = Peer::new(Config { line_ends, ..Config::default() });
            peer.feed(b"EHLO a\r\n");
            peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
            peer.feed(b"DATA\r\n");
            peer.feed(&unescape(&format!("text{end}{SMUGGLED}")));
            assert_eq!(peer.bodies.len(), 1, "{end}");
        }
    }
}
#[test]
fn d13_d14_content() {
    check(
        &(data("a\\r\\n. \\r\\n\\x85.\\x85\\r\\n.\\r\\n", "250")
            + "\nB: a\\r\\n \\r\\n\\x85.\\x85\\r\\n"),
    );
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
fn d21_d22_bare_and_nul() {
    for text in ["a\\nb", "a\\rb", "a\\0b"] {
        check(&data(&format!("{text}\\r\\n.\\r\\n"), "550 5.6.0"));
    }
}
#[test]
fn d23_d24_flags() {
    let mut peer = Peer::new(Config::default());
    peer.feed(b"EHLO a\r\n");
    for (bytes, good) in [(998, true), (999, true), (65_536, true), (65_537, false)] {
        peer.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        peer.feed(b"DATA\r\n");
        peer.answers();
        peer.feed(&[&vec![0xfc; bytes][..], b"\r\n.\r\n"].concat());
        let answer = peer.answers().concat();
        assert!(answer.starts_with(if good { "250" } else { "554 5.6.0" }), "{bytes} {answer}");
        if good {
            let flags = peer.flags.last().expect("a message");
            assert!(flags.eight_bit && flags.long_line == (bytes > 998));
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
fn d27_received_loop() {
    check(&data(&format!("{}\\r\\n.\\r\\n", "Received: x\\r\\n".repeat(101)), "554 5.4.6"));
    let hundred = format!("{}\\r\\nReceived: body\\r\\n", "received: x\\r\\n".repeat(100));
    check(&(data(&format!("{hundred}.\\r\\n"), "250") + "\nB: " + &hundred));
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
            (peer.answers(), peer.bodies.clone(), peer.closed)
        };
        proptest::prop_assert_eq!(run(true), run(false));
    }
}
