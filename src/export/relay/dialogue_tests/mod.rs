//! Dialogues as data: `S:` is what the server says, `C:` what this side must have sent by then.
//! Each is fed whole and octet by octet, and must come out the same.

use super::{super::mail::tests::record, *};
use crate::Record;

fn smtp() -> Settings {
    Settings { lmtp: false, helo: "relay.test".to_owned(), starttls: false, login: None }
}

fn lmtp() -> Settings {
    Settings { lmtp: true, ..smtp() }
}

fn mail(record: &Record) -> Mail {
    Mail::new(record, b"T: 1\r\n".to_vec(), false).unwrap()
}

/// A mail with so many recipients, `r0@d.test` and so on.
fn to(recipients: usize) -> Mail {
    let mut record = record(b"S: x\r\n\r\n.dot\r\n");
    record.rcpt_to = (0..recipients).map(|n| format!("r{n}@d.test")).collect();
    mail(&record)
}

fn told(event: &Event) -> String {
    match event {
        Event::Ready => "ready".to_owned(),
        Event::StartTls => "starttls".to_owned(),
        Event::Closed(error) => format!("closed {error}"),
        Event::Done(fates) => {
            let fates = fates.iter().map(|(at, fate)| match fate {
                Fate::Delivered => format!("{at} ok"),
                Fate::Deferred(error) => format!("{at} later {error}"),
                Fate::Refused(error) => format!("{at} never {error}"),
            });
            fates.collect::<Vec<_>>().join(", ")
        }
    }
}

struct Stage {
    dialogue: Dialogue,
    mails: VecDeque<Mail>,
    sent: Vec<u8>,
    events: Vec<String>,
}

impl Stage {
    fn turn(&mut self) {
        loop {
            while let Some(event) = self.dialogue.poll_event() {
                self.events.push(told(&event));
                if event == Event::StartTls {
                    self.dialogue.handle_secured();
                }
            }
            if self.dialogue.is_ready()
                && let Some(mail) = self.mails.pop_front()
            {
                let all: Vec<usize> = (0..mail.forward_paths.len()).collect();
                if let Err(error) = self.dialogue.handle_mail(mail, &all) {
                    self.events.push(format!("cannot {error}"));
                }
                continue;
            }
            let mut out = Vec::new();
            self.dialogue.poll_output(&mut out);
            if out.is_empty() {
                return;
            }
            self.sent.extend(out);
        }
    }
}

/// Plays a script; the events must be `expected`, behind the first "ready" of each.
#[track_caller]
fn check(settings: &Settings, mails: &[Mail], script: &str, expected: &[&str]) {
    for piece in [usize::MAX, 1, 7] {
        play(settings, mails, script, piece, expected);
    }
}

#[track_caller]
fn play(settings: &Settings, mails: &[Mail], script: &str, piece: usize, expected: &[&str]) {
    let mut stage = Stage {
        dialogue: Dialogue::new(settings.clone(), false),
        mails: mails.iter().cloned().collect(),
        sent: Vec::new(),
        events: Vec::new(),
    };
    let mut said = String::new();
    for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()).chain(["C"]) {
        if let Some(text) = line.strip_prefix("S: ") {
            said += &format!("{text}\r\n");
            continue;
        }
        for octets in said.as_bytes().chunks(piece) {
            stage.dialogue.handle_input(octets, true);
            stage.turn();
        }
        said.clear();
        match line {
            "LOST" => stage.dialogue.handle_lost("connection lost"),
            "TIMEOUT" => stage.dialogue.handle_timeout(),
            _ => {
                if let Some(text) = line.strip_prefix("C: ") {
                    let wanted = format!("{text}\r\n").into_bytes();
                    let sent = String::from_utf8_lossy(&stage.sent).into_owned();
                    assert!(stage.sent.starts_with(&wanted), "wanted {text:?}, sent {sent:?}");
                    stage.sent.drain(..wanted.len());
                }
            }
        }
        stage.turn();
    }
    assert_eq!(String::from_utf8_lossy(&stage.sent), "", "sent beyond the script");
    let events: Vec<_> = stage.events.iter().map(String::as_str).collect();
    assert_eq!(events, expected, "in pieces of {piece}");
}

const HELLO: &str = "
    S: 220 mx.test
    C: EHLO relay.test
    S: 250-mx.test
    S: 250 PIPELINING";
const LHLO: &str = "
    S: 220 mx.test
    C: LHLO relay.test
    S: 250-mx.test
    S: 250 PIPELINING";
const CONTENT: &str = "
    C: T: 1
    C: S: x
    C: 
    C: ..dot
    C: .";

/// Scripts put together from pieces.
fn script(pieces: &[&str]) -> String {
    pieces.join("\n")
}

#[test]
fn rfc2920_a_group_of_commands_goes_in_one_piece() {
    let mut dialogue = Dialogue::new(smtp(), false);
    dialogue.handle_input(b"220 mx\r\n", true);
    dialogue.poll_output(&mut Vec::new());
    dialogue.handle_input(b"250-mx\r\n250-SIZE\r\n250 PIPELINING\r\n", true);
    assert_eq!(dialogue.poll_event(), Some(Event::Ready));
    dialogue.handle_mail(to(2), &[0, 1]).unwrap();
    let mut out = Vec::new();
    dialogue.poll_output(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "MAIL FROM:<a@s.test> SIZE=20\r\nRCPT TO:<r0@d.test>\r\nRCPT TO:<r1@d.test>\r\nDATA\r\n"
    );
}

/// RFC 5321 §4.1.2: `a..b` is no Dot-string, and names the mailbox `"a..b"`. RFC 3461 §5.2.1: a
/// server that knows DSN gets the address as it came.
#[test]
fn rfc5321_4_1_2_dots_that_stand_alone_are_quoted() {
    let mut dots = record(b"S: x\r\n\r\n");
    dots.mail_from = "a..b@s.test".to_owned();
    dots.rcpt_to = [".c+d@d.test", "e.@d.test", "f.g@d.test"].map(str::to_owned).to_vec();
    for (offer, orcpt) in [
        ("", ["", ""]),
        ("250-DSN\r\n", [" ORCPT=rfc822;.c+2Bd@d.test", " ORCPT=rfc822;e.@d.test"]),
    ] {
        let mut dialogue = Dialogue::new(smtp(), false);
        dialogue.handle_input(b"220 mx\r\n", true);
        dialogue.poll_output(&mut Vec::new());
        dialogue.handle_input(format!("250-mx\r\n{offer}250 PIPELINING\r\n").as_bytes(), true);
        assert_eq!(dialogue.poll_event(), Some(Event::Ready));
        dialogue.handle_mail(mail(&dots), &[0, 1, 2]).unwrap();
        let mut out = Vec::new();
        dialogue.poll_output(&mut out);
        let [c, e] = orcpt;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "MAIL FROM:<\"a..b\"@s.test>\r\nRCPT TO:<\".c+d\"@d.test>{c}\r\n\
                 RCPT TO:<\"e.\"@d.test>{e}\r\nRCPT TO:<f.g@d.test>\r\nDATA\r\n"
            )
        );
    }
}

#[test]
fn rfc5321_two_messages_through_one_session_without_pipelining() {
    let one = "
        C: MAIL FROM:<a@s.test>
        S: 250 ok
        C: RCPT TO:<r0@d.test>
        S: 250 ok
        C: RCPT TO:<r1@d.test>
        S: 251 forwards
        C: DATA
        S: 354 go";
    let hello = "
        S: 220-mx.test
        S: 220 hello
        C: EHLO relay.test
        S: 250 mx.test";
    let all = script(&[hello, one, CONTENT, "S: 250 a", one, CONTENT, "S: 250 b"]);
    check(&smtp(), &[to(2), to(2)], &all, &["ready", "0 ok, 1 ok", "0 ok, 1 ok"]);
}

#[test]
fn rfc5321_4_1_1_1_helo_where_there_is_no_ehlo() {
    let rest = "
        S: 220 old
        C: EHLO relay.test
        S: 502 what
        C: HELO relay.test
        S: 250 old
        C: MAIL FROM:<a@s.test>
        S: 250 ok
        C: RCPT TO:<r0@d.test>
        S: 250 ok
        C: DATA
        S: 354 go";
    check(&smtp(), &[to(1)], &script(&[rest, CONTENT, "S: 250 ok"]), &["ready", "0 ok"]);
}

const THREE: &str = "
    C: MAIL FROM:<a@s.test>
    C: RCPT TO:<r0@d.test>
    C: RCPT TO:<r1@d.test>
    C: RCPT TO:<r2@d.test>
    C: DATA";

#[test]
fn rfc2033_4_2_a_reply_for_each_recipient_taken() {
    let replies = "
        S: 250 ok
        S: 250 ok
        S: 550 5.1.1 nobody
        S: 250 ok
        S: 354 go";
    let ends = "
        S: 250 2.0.0 saved
        S: 452 4.2.2 full";
    check(
        &lmtp(),
        &[to(3)],
        &script(&[LHLO, THREE, replies, CONTENT, ends]),
        &["ready", "0 ok, 1 never 550 5.1.1 nobody (refused), 2 later 452 4.2.2 full (throttled)"],
    );
}

#[test]
fn in_smtp_the_last_reply_is_for_all_that_were_taken() {
    let replies = "
        S: 250 ok
        S: 250 ok
        S: 450 4.2.1 later
        S: 250 ok
        S: 354 go";
    for (end, fate) in [
        ("S: 250 ok", "0 ok, 1 later 450 4.2.1 later (throttled), 2 ok"),
        (
            "S: 554 5.6.0 no",
            "0 never 554 5.6.0 no (refused), 1 later 450 4.2.1 later (throttled), 2 never 554 5.6.0 no (refused)",
        ),
        (
            "S: 451 4.3.0 oh",
            "0 later 451 4.3.0 oh (throttled), 1 later 450 4.2.1 later (throttled), 2 later 451 4.3.0 oh (throttled)",
        ),
    ] {
        check(&smtp(), &[to(3)], &script(&[HELLO, THREE, replies, CONTENT, end]), &["ready", fate]);
    }
}

#[test]
fn rfc2033_4_2_connection_lost_between_the_last_replies() {
    let replies = "
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 354 go";
    let lost = "connection lost (connect)";
    check(
        &lmtp(),
        &[to(3)],
        &script(&[LHLO, THREE, replies, CONTENT, "S: 250 saved", "LOST"]),
        &["ready", &format!("0 ok, 1 later {lost}, 2 later {lost}"), &format!("closed {lost}")],
    );
}

#[test]
fn a_connection_lost_anywhere_before_a_reply_delivers_nothing() {
    let lost = "0 later connection lost (connect)";
    let group = "
        C: MAIL FROM:<a@s.test>
        C: RCPT TO:<r0@d.test>
        C: DATA";
    let replies = "
        S: 250 ok
        S: 250 ok
        S: 354 go";
    for middle in
        [script(&[group]), script(&[group, "S: 250 ok"]), script(&[group, replies, CONTENT])]
    {
        check(
            &smtp(),
            &[to(1)],
            &script(&[HELLO, &middle, "LOST"]),
            &["ready", lost, "closed connection lost (connect)"],
        );
    }
}

#[test]
fn rfc2920_3_1_all_recipients_refused() {
    let group = "
        C: MAIL FROM:<a@s.test>
        C: RCPT TO:<r0@d.test>
        C: DATA
        S: 250 ok
        S: 550 no";
    let fate = "0 never 550 no (refused)";
    let next = "
        C: RSET
        C: MAIL FROM:<a@s.test>
        C: RCPT TO:<r0@d.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 354 go";
    // The server refuses DATA as well; the next message resets what is left of this one.
    check(
        &smtp(),
        &[to(1), to(1)],
        &script(&[HELLO, group, "S: 554 nobody", next, CONTENT, "S: 250 ok"]),
        &["ready", fate, "0 ok"],
    );
    // Or it does not: an empty message ends that, whatever it says to it.
    for end in ["S: 250 ok", "S: 554 no"] {
        let end = script(&[HELLO, group, "S: 354 go", "C: .", end]);
        check(&smtp(), &[to(1)], &end, &["ready", fate]);
    }
    // In LMTP that would have no reply.
    check(
        &lmtp(),
        &[to(1)],
        &script(&[LHLO, group, "S: 354 go"]),
        &["ready", fate, "closed the server accepted mail data without a recipient (other)"],
    );
}

#[test]
fn without_pipelining_nothing_is_sent_for_nobody() {
    let talk = "
        S: 220 mx
        C: EHLO relay.test
        S: 250 mx
        C: MAIL FROM:<a@s.test>
        S: 250 ok
        C: RCPT TO:<r0@d.test>
        S: 550 no
        C: RSET
        S: 250 ok
        C: MAIL FROM:<a@s.test>
        S: 451 later";
    check(
        &smtp(),
        &[to(1), to(1)],
        talk,
        &["ready", "0 never 550 no (refused)", "0 later 451 later (throttled)"],
    );
}

#[test]
fn a_refused_mail_command_concerns_all_recipients() {
    let group = "
        C: MAIL FROM:<a@s.test>
        C: RCPT TO:<r0@d.test>
        C: RCPT TO:<r1@d.test>
        C: DATA";
    for (reply, fate) in [
        ("S: 550 5.7.1 go away", "never 550 5.7.1 go away (refused)"),
        ("S: 452 4.3.1 no room", "later 452 4.3.1 no room (throttled)"),
        ("S: 530 5.7.0 who", "later 530 5.7.0 who (auth)"),
    ] {
        let rest = "
            S: 503 first MAIL
            S: 503 first MAIL
            S: 503 first MAIL";
        check(
            &smtp(),
            &[to(2)],
            &script(&[HELLO, group, reply, rest]),
            &["ready", &format!("0 {fate}, 1 {fate}")],
        );
    }
}

#[test]
fn rfc5321_3_8_421_ends_the_session_anywhere() {
    let closed = "closed 421 4.3.2 down (throttled)";
    let later = "0 later 421 4.3.2 down (throttled)";
    let group = "
        C: MAIL FROM:<a@s.test>
        C: RCPT TO:<r0@d.test>
        C: DATA";
    let down = "S: 421 4.3.2 down";
    let go = "
        S: 250 ok
        S: 250 ok
        S: 354 go";
    check(&smtp(), &[], down, &["closed greeting: 421 4.3.2 down (throttled)"]);
    for middle in
        [vec![HELLO, group], vec![HELLO, group, "S: 250 ok"], vec![HELLO, group, go, CONTENT]]
    {
        check(
            &smtp(),
            &[to(1)],
            &script(&[&middle[..], &[down]].concat()),
            &["ready", later, closed],
        );
    }
    // While idle it is news, too.
    check(&smtp(), &[], &script(&[HELLO, down]), &["ready", "closed 421 4.3.2 down (connect)"]);
}

#[test]
fn an_idle_session_that_ended_may_be_tried_through_another() {
    let mut dialogue = Dialogue::new(smtp(), false);
    dialogue.handle_input(b"220 mx\r\n", true);
    dialogue.handle_input(b"250-mx\r\n250 PIPELINING\r\n", true);
    dialogue.handle_mail(to(1), &[0]).unwrap();
    dialogue.handle_input(b"421 idle too long\r\n", true);
    assert!(dialogue.is_untouched());

    let mut dialogue = Dialogue::new(smtp(), false);
    dialogue.handle_input(b"220 mx\r\n", true);
    dialogue.handle_input(b"250-mx\r\n250 PIPELINING\r\n", true);
    dialogue.handle_mail(to(1), &[0]).unwrap();
    dialogue.handle_input(b"250 ok\r\n421 down\r\n", true);
    assert!(!dialogue.is_untouched());
}

#[test]
fn replies_out_of_step_deliver_nothing() {
    let group = "
        C: MAIL FROM:<a@s.test>
        C: RCPT TO:<r0@d.test>
        C: DATA";
    // One reply too many: what follows would be taken for the end's.
    let replies = "
        S: 250 ok
        S: 250 ok
        S: 250 ok";
    check(
        &smtp(),
        &[to(1)],
        &script(&[HELLO, group, replies]),
        &["ready", "0 later DATA: 250 ok (other)", "closed DATA: 250 ok (other)"],
    );
    let early = "
        S: 250 ok
        S: 354 go";
    check(
        &smtp(),
        &[to(1)],
        &script(&[HELLO, group, early]),
        &[
            "ready",
            "0 later unexpected reply: 354 go (other)",
            "closed unexpected reply: 354 go (other)",
        ],
    );
}

#[test]
fn a_success_before_all_is_sent_is_none() {
    for (reply, fate) in [
        (
            &b"250 thanks\r\n"[..],
            "0 later the server accepted the message before it was sent completely (other)",
        ),
        (b"552 5.3.4 large\r\n", "0 never 552 5.3.4 large (too_large)"),
    ] {
        let mut dialogue = Dialogue::new(smtp(), false);
        dialogue.handle_input(b"220 mx\r\n", true);
        dialogue.handle_input(b"250-mx\r\n250 PIPELINING\r\n", true);
        assert_eq!(dialogue.poll_event(), Some(Event::Ready));
        dialogue.handle_mail(to(1), &[0]).unwrap();
        dialogue.handle_input(b"250\r\n250\r\n354\r\n", true);
        while dialogue.state != State::Final {
            dialogue.poll_output(&mut Vec::new());
        }
        dialogue.handle_input(reply, false);
        assert_eq!(told(&dialogue.poll_event().unwrap()), fate);
    }
}

#[test]
fn a_refusal_within_the_mail_data_ends_the_session() {
    let mut large = record(&b"x\r\n".repeat(100_000));
    large.rcpt_to = vec!["r0@d.test".to_owned()];
    for (reply, fate) in [
        (&b"552 5.3.4 large\r\n"[..], "0 never 552 5.3.4 large (too_large)"),
        (b"451 4.3.0 oh\r\n", "0 later 451 4.3.0 oh (throttled)"),
        (b"250 thanks\r\n", "0 later during the mail data: 250 thanks (other)"),
    ] {
        let mut dialogue = Dialogue::new(smtp(), false);
        dialogue.handle_input(b"220 mx\r\n", true);
        dialogue.handle_input(b"250-mx\r\n250 PIPELINING\r\n", true);
        assert_eq!(dialogue.poll_event(), Some(Event::Ready));
        dialogue.handle_mail(mail(&large), &[0]).unwrap();
        dialogue.handle_input(b"250\r\n250\r\n354\r\n", true);
        let mut out = Vec::new();
        dialogue.poll_output(&mut out);
        assert_eq!(dialogue.state, State::Content);
        dialogue.handle_input(reply, true);
        assert_eq!(told(&dialogue.poll_event().unwrap()), fate);
        assert!(matches!(dialogue.poll_event(), Some(Event::Closed(_))));
    }
}

#[test]
fn rfc5321_4_5_3_2_how_long_each_reply_may_take() {
    let minutes = |dialogue: &Dialogue| dialogue.patience().as_secs() / 60;
    let mut dialogue = Dialogue::new(smtp(), false);
    assert_eq!(minutes(&dialogue), 5, "greeting");
    dialogue.handle_input(b"220 mx\r\n", true);
    dialogue.handle_input(b"250-mx\r\n250 PIPELINING\r\n", true);
    dialogue.handle_mail(to(1), &[0]).unwrap();
    assert_eq!(minutes(&dialogue), 5, "MAIL");
    dialogue.handle_input(b"250\r\n", true);
    assert_eq!(minutes(&dialogue), 5, "RCPT");
    dialogue.handle_input(b"250\r\n", true);
    assert_eq!(minutes(&dialogue), 2, "DATA");
    dialogue.handle_input(b"354\r\n", true);
    assert_eq!(minutes(&dialogue), 3, "a block");
    while dialogue.state != State::Final {
        dialogue.poll_output(&mut Vec::new());
    }
    assert_eq!(minutes(&dialogue), 10, "the end");
    // A drip of octets is no progress, a reply is.
    let before = dialogue.progress();
    dialogue.handle_input(b"250-more\r\n250-to come", true);
    assert_eq!(dialogue.progress(), before);
    dialogue.handle_timeout();
    let fate = told(&std::iter::from_fn(|| dialogue.poll_event()).nth(1).unwrap());
    assert_eq!(fate, "0 later the server did not finish a reply within 600 s (timeout)");
}
