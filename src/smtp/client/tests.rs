//! Properties of the client: however a server's octets are cut, and whatever they are.

use proptest::prelude::*;

use super::{BadReply, Failure, Hello, Line, LineReader, Manner, ReplyReader, Step};

/// Code, whether it is the last of its reply, and text.
type Owned = (u16, bool, Vec<u8>);

/// What the lines are, or why they end.
fn lines<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Owned>, Option<BadReply>) {
    let mut reader = LineReader::default();
    let mut lines = Vec::new();
    for mut input in pieces {
        loop {
            match reader.next(&mut input) {
                Ok(Some(Line { code, is_final, text })) => {
                    lines.push((code, is_final, text.to_vec()));
                }
                Ok(None) => break,
                Err(bad) => return (lines, Some(bad)),
            }
        }
        assert!(input.is_empty());
    }
    (lines, None)
}

/// Cut before each of these octets.
fn cut<'a>(octets: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|place| place % (octets.len() + 1)).collect();
    places.sort_unstable();
    places.push(octets.len());
    let mut from = 0;
    let piece = |to: usize| octets.get(std::mem::replace(&mut from, to)..to).unwrap_or_default();
    places.into_iter().map(piece).collect()
}

/// Octets of a server: mostly replies, well formed or nearly so, some of them long.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        8 => "(220|250|235|354|421|500|502)[- ][ -~]{0,40}\r?\n",
        1 => "[0-9]{0,4}[-_ ]?[ -~]{0,10}\r?\n?",
        1 => Just(["250-", &"x".repeat(2_041), "\r\n"].concat()),
        1 => Just(["250-", &"x".repeat(2_043), "\r\n"].concat()),
    ];
    let line = line.prop_map(String::into_bytes);
    let line = prop_oneof![20 => line, 1 => prop::collection::vec(any::<u8>(), 0..60)];
    prop::collection::vec(line, 0..60).prop_map(|lines| lines.concat())
}

/// A session up to where mail can be sent; TLS succeeds at once.
fn greet(wire: &[&[u8]], manner: &Manner<'_>) -> (Vec<u8>, Hello, Result<(), Failure>) {
    let (mut reader, mut hello, mut out) = (LineReader::default(), Hello::new(false), Vec::new());
    for mut input in wire.iter().copied() {
        loop {
            let line = match reader.next(&mut input) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                // Of no use any more.
                Err(_) => return (out, hello, Ok(())),
            };
            if let Err(failure) = hello.handle_line(line, manner, &mut out) {
                return (out, hello, Err(failure));
            }
            if hello.step() == Step::Handshake {
                hello.handle_secured(manner, &mut out);
            }
        }
    }
    (out, hello, Ok(()))
}

proptest! {
    #[test]
    fn lines_are_the_same_at_any_cut(wire in wire(), places: Vec<usize>) {
        let whole = lines([wire.as_slice()].into_iter());
        prop_assert_eq!(&lines(cut(&wire, &places).into_iter()), &whole);
        prop_assert_eq!(&lines(wire.chunks(1)), &whole);
    }

    /// RFC 5321 §4.5.3.1.5: no server fills the memory, whatever it sends.
    #[test]
    fn replies_are_bounded(wire in wire(), step in 1_usize..5_000) {
        let mut reader = ReplyReader::default();
        'wire: for mut input in wire.chunks(step) {
            loop {
                match reader.take(&mut input) {
                    Ok(Some(reply)) => {
                        let octets: usize = reply.lines.iter().map(String::len).sum();
                        prop_assert!((200..600).contains(&reply.code));
                        // Octets that are no UTF-8 take three each.
                        prop_assert!(octets <= 3 * 65_536 && !reply.lines.is_empty());
                        prop_assert!(reply.text().len() <= 303 && !reply.text().contains('\n'));
                    }
                    Ok(None) => break,
                    Err(_) => break 'wire,
                }
            }
        }
    }

    #[test]
    fn a_hello_is_the_same_at_any_cut(
        wire in wire(),
        places: Vec<usize>,
        lmtp: bool,
        starttls: bool,
        login: bool,
    ) {
        let plain = login.then_some("AHUAcA==");
        let manner = Manner { lmtp, name: "client.test", starttls, plain };
        // Past the greeting and STARTTLS, where random replies seldom lead.
        let begin = b"220 mx\r\n250-mx\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n".as_slice();
        for wire in [wire.clone(), [begin, &wire].concat()] {
            let (out, hello, end) = greet(&[&wire], &manner);
            let (out_cut, hello_cut, end_cut) = greet(&cut(&wire, &places), &manner);
            prop_assert_eq!((&out, hello.step(), end), (&out_cut, hello_cut.step(), end_cut));
            prop_assert_eq!(hello.offer(), hello_cut.offer());
            // A password goes through TLS alone.
            let said = String::from_utf8(out).unwrap();
            prop_assert!(!said.contains("AUTH PLAIN") || hello.is_secure());
            prop_assert!(end.is_err() || hello.step() != Step::Ready || !starttls || hello.is_secure());
        }
    }
}

/// `S:` what the server says, `C:` what the client must have said then.
#[track_caller]
fn check(manner: &Manner<'_>, script: &[&str], end: (Step, Result<(), Failure>)) {
    let said: Vec<_> = script.iter().filter_map(|line| line.strip_prefix("C: ")).collect();
    let said = said.concat().replace('|', "\r\n");
    let heard: Vec<_> = script.iter().filter_map(|line| line.strip_prefix("S: ")).collect();
    let heard = heard.concat().replace('|', "\r\n");
    let (out, hello, result) = greet(&[heard.as_bytes()], manner);
    assert_eq!(String::from_utf8_lossy(&out), said);
    assert_eq!((hello.step(), result), end);
}

const PLAIN: Manner<'_> = Manner { lmtp: false, name: "client.test", starttls: false, plain: None };

#[test]
fn rfc5321_4_1_1_1_from_the_greeting_to_ready() {
    let ready = (Step::Ready, Ok(()));
    check(&PLAIN, &["S: 220-mx|220 hi|", "C: EHLO client.test|", "S: 250-mx|250 DSN|"], ready);
    let old = ["S: 220 mx|", "C: EHLO client.test|", "S: 502 ?|", "C: HELO client.test|"];
    check(&PLAIN, &[&old[..], &["S: 250 mx|"]].concat(), ready);
    let lmtp = Manner { lmtp: true, ..PLAIN };
    check(
        &lmtp,
        &["S: 220 mx|", "C: LHLO client.test|", "S: 500 ?|"],
        (Step::Hello, Err(Failure::Refused(Step::Hello))),
    );
    check(&PLAIN, &["S: 554 no|"], (Step::Greeting, Err(Failure::Refused(Step::Greeting))));
}

/// The first line names the server: it is no keyword.
#[test]
fn rfc5321_4_1_1_1_a_server_called_starttls_offers_nothing() {
    let manner = Manner { starttls: true, ..PLAIN };
    let failed = (Step::Hello, Err(Failure::NoStartTls));
    check(&manner, &["S: 220 mx|", "C: EHLO client.test|", "S: 250 STARTTLS|"], failed);
}

#[test]
fn rfc3207_4_2_what_was_offered_in_the_clear_is_forgotten() {
    let manner = Manner { starttls: true, plain: Some("AHUAcA=="), ..PLAIN };
    let secured = [
        "S: 220 mx|",
        "C: EHLO client.test|",
        "S: 250-mx|250-AUTH PLAIN|250 STARTTLS|",
        "C: STARTTLS|",
        "S: 220 go|",
        "C: EHLO client.test|",
    ];
    let with = |more: &[&'static str]| [&secured[..], more].concat();
    check(&manner, &with(&["S: 250 mx|"]), (Step::Hello, Err(Failure::NoAuthPlain)));
    let login = with(&["S: 250-mx|250 AUTH PLAIN|", "C: AUTH PLAIN AHUAcA==|", "S: 235 hi|"]);
    check(&manner, &login, (Step::Ready, Ok(())));
    let clear = Manner { plain: Some("AHUAcA=="), ..PLAIN };
    check(
        &clear,
        &["S: 220 mx|", "C: EHLO client.test|", "S: 250-mx|250 AUTH PLAIN|"],
        (Step::Hello, Err(Failure::NoTlsForAuth)),
    );
}
