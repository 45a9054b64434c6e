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
