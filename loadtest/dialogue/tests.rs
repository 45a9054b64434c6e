//! Dialogues as data: `S:` what the server says, `C:` what the client must say, at any split.

use super::*;
use crate::{
    credentials::Credentials,
    mail::{Mail, Sequence, Sizes, tests::options},
    target::Protocol,
};

#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    replies: Vec<u16>,
    phases: Vec<(Phase, Nanos)>,
    acked: Vec<Sequence>,
    failed: Vec<(Sequence, Fault)>,
}

impl Observer for Heard {
    fn reply(&mut self, line: Line<'_>) {
        self.replies.push(line.code);
    }
    fn phase(&mut self, phase: Phase, _: Nanos, took: Nanos) {
        self.phases.push((phase, took));
    }
    fn acked(&mut self, ticket: Ticket, _: Nanos, _: Nanos) {
        self.acked.push(ticket.sequence);
    }
    fn failed(&mut self, ticket: Ticket, fault: Fault, _: Nanos) {
        self.failed.push((ticket.sequence, fault));
    }
}

fn style() -> Style {
    Style {
        protocol: Protocol::Smtp,
        helo: "client.test".to_owned(),
        pipelining: true,
        chunking: false,
        security: Security::Never,
        credentials: Credentials::default(),
        in_flight: 1,
        messages_max: 1,
    }
}

/// A client that starts a message whenever it has room, as a closed loop does.
struct Client {
    style: Style,
    mail: Mail,
    dialogue: Dialogue,
    heard: Heard,
    now: Nanos,
    next: Sequence,
}

impl Client {
    fn new(style: Style, recipients: usize) -> Self {
        let mut options = options(Sizes::Between(256, 256));
        options.recipients = (recipients, recipients);
        let mut client = Self {
            style,
            mail: Mail::new(options, 1),
            dialogue: Dialogue::new(0),
            heard: Heard::default(),
            now: 0,
            next: 0,
        };
        client.dialogue.handle_connected(0, &client.style, &mut client.heard);
        client
    }

    /// What it says after hearing `octets`.
    fn hear(&mut self, octets: &[u8]) -> String {
        let cx = Context { style: &self.style, mail: &self.mail };
        self.now += 10;
        self.dialogue.handle_input(octets, self.now, cx, &mut self.heard);
        while self.dialogue.has_room(cx.style) {
            let ticket = Ticket { sequence: self.next, scheduled: self.now };
            self.next += 1;
            self.dialogue.start(ticket, self.now, cx);
        }
        let mut said = Vec::new();
        while !self.dialogue.outbox.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); 8];
            let count = self.dialogue.outbox.gather(cx.mail, &mut slices);
            let octets =
                slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>();
            self.dialogue.handle_written(octets.len(), self.now, &mut self.heard);
            said.extend_from_slice(&octets);
        }
        // Mail data is as long as it was asked to be; the script names it by its number.
        let mut text = String::from_utf8(said).unwrap();
        for (carriage, mark) in [(Carriage::Data, "."), (Carriage::Bdat, "")] {
            for sequence in 0..self.next {
                struct Whole(Vec<u8>);
                impl super::super::mail::Sink for Whole {
                    fn copy(&mut self, octets: &[u8]) {
                        self.0.extend_from_slice(octets);
                    }
                    fn share(&mut self, _: super::super::mail::Shared) {
                        panic!("short mail data is copied");
                    }
                }
                let mut whole = Whole(Vec::new());
                self.mail.content(sequence, carriage, &mut whole);
                let content = String::from_utf8(whole.0).unwrap();
                text = text.replace(&content, &format!("<{sequence}{mark}>"));
            }
        }
        text.replace("\r\n", "|")
    }
}

/// Plays a script; the server's part in pieces of `step` octets.
fn play(style: &Style, recipients: usize, script: &[&str], step: usize) -> Heard {
    let mut client = Client::new(style.clone(), recipients);
    for pair in script.chunks(2) {
        let octets = pair[0].strip_prefix("S: ").unwrap().replace('|', "\r\n");
        let said: String = octets.as_bytes().chunks(step).map(|part| client.hear(part)).collect();
        let wanted = pair.get(1).map_or("", |line| line.strip_prefix("C: ").unwrap());
        assert_eq!(said, wanted, "after {:?}, {step} octets at a time", pair[0]);
    }
    if client.dialogue.is_over() {
        assert_eq!(client.dialogue.in_flight(), 0);
    }
    client.heard.phases.clear();
    client.heard
}

/// At any cut the client says and hears the same.
fn check(style: &Style, recipients: usize, script: &[&str]) -> Heard {
    let whole = play(style, recipients, script, usize::MAX);
    for step in [1, 2, 3, 7] {
        assert_eq!(play(style, recipients, script, step), whole, "step {step}");
    }
    whole
}

const EHLO: [&str; 4] =
    ["S: 220 mx|", "C: EHLO client.test|", "S: 250-mx|250-CHUNKING|250 PIPELINING|", ""];

fn script<'a>(parts: &[&'a str]) -> Vec<&'a str> {
    // The reply to EHLO and what follows it stand in one pair.
    [&EHLO[..3], parts].concat()
}

#[test]
fn without_pipelining_each_command_waits() {
    let style = Style { pipelining: false, messages_max: 2, ..style() };
    let message = [
        "C: MAIL FROM:<a@client.test>|",
        "S: 250 ok|",
        "C: RCPT TO:<b@server.test>|",
        "S: 250 ok|",
        "C: RCPT TO:<b+1@server.test>|",
        "S: 250 ok|",
        "C: DATA|",
        "S: 354 go|",
    ];
    let lines = script(
        &[
            &message[..],
            &["C: <0.>", "S: 250-first|250 queued|"],
            &message[..],
            &["C: <1.>", "S: 250 queued|", "C: QUIT|", "S: 221 bye|"],
        ]
        .concat(),
    );
    let heard = check(&style, 2, &lines);
    assert_eq!(heard.acked, [0, 1]);
    assert_eq!(heard.replies.iter().filter(|code| **code == 250).count(), 9);
}

#[test]
fn pipelining_groups_the_envelope() {
    // RFC 2920 §3.1: DATA is the last of its group.
    let heard = check(
        &style(),
        1,
        &script(&[
            "C: MAIL FROM:<a@client.test>|RCPT TO:<b@server.test>|DATA|",
            "S: 250 ok|250 ok|354 go|",
            "C: <0.>",
            "S: 250 queued|",
            "C: QUIT|",
            "S: 221 bye|",
        ]),
    );
    assert_eq!(heard.acked, [0]);
}

#[test]
fn chunking_sends_all_at_once() {
    let style = Style { chunking: true, ..style() };
    let heard = check(
        &style,
        1,
        &script(&[
            "C: MAIL FROM:<a@client.test>|RCPT TO:<b@server.test>|BDAT 256 LAST|<0>",
            "S: 250 ok|250 ok|250 queued|",
            "C: QUIT|",
            "S: 221 bye|",
        ]),
    );
    assert_eq!(heard.acked, [0]);
}

#[test]
fn a_window_keeps_messages_in_flight() {
    let style = Style { chunking: true, in_flight: 2, messages_max: 3, ..style() };
    let group = |sequence: u64| {
        format!("MAIL FROM:<a@client.test>|RCPT TO:<b@server.test>|BDAT 256 LAST|<{sequence}>")
    };
    let (first, third) = (format!("C: {}{}", group(0), group(1)), format!("C: {}", group(2)));
    let heard = check(
        &style,
        1,
        &script(&[
            &first,
            "S: 250 ok|250 ok|250 queued|",
            &third,
            "S: 250 ok|250 ok|250 queued|250 ok|250 ok|250 queued|",
            "C: QUIT|",
            "S: 221 bye|",
        ]),
    );
    assert_eq!(heard.acked, [0, 1, 2]);
}

#[test]
fn a_window_with_data_opens_behind_the_mail_data() {
    let style = Style { in_flight: 2, messages_max: 2, ..style() };
    let heard = check(
        &style,
        1,
        &script(&[
            "C: MAIL FROM:<a@client.test>|RCPT TO:<b@server.test>|DATA|",
            "S: 250 ok|250 ok|354 go|",
            "C: <0.>MAIL FROM:<a@client.test>|RCPT TO:<b@server.test>|DATA|",
            "S: 250 queued|250 ok|250 ok|354 go|",
            "C: <1.>",
            "S: 250 queued|",
            "C: QUIT|",
            "S: 221 bye|",
        ]),
    );
    assert_eq!(heard.acked, [0, 1]);
}

#[test]
fn a_refused_recipient_fails_the_message_and_resets() {
    let unpipelined = Style { pipelining: false, messages_max: 1, ..style() };
    let lines = script(&[
        "C: MAIL FROM:<a@client.test>|",
        "S: 250 ok|",
        "C: RCPT TO:<b@server.test>|",
        "S: 550 no|",
        "C: RSET|",
        "S: 250 ok|",
        "C: QUIT|",
        "S: 221 bye|",
    ]);
    let heard = check(&unpipelined, 1, &lines);
    assert_eq!(heard.failed, [(0, Fault::Rejected(550))]);
    let group = "C: MAIL FROM:<a@client.test>|RCPT TO:<b@server.test>|DATA|";
    let refusal = ["S: 250 ok|550 no|503 no recipients|", "C: RSET|", "S: 250 ok|"];
    let end = ["C: QUIT|", "S: 221 bye|"];
    let heard = check(&style(), 1, &script(&[&[group][..], &refusal, &end].concat()));
    assert_eq!(heard.failed, [(0, Fault::Rejected(550))]);
    // RFC 2920 §3.1: 354 in spite of it is answered by a lone dot.
    let dot =
        ["S: 250 ok|550 no|354 go|", "C: .|", "S: 554 no recipients|", "C: RSET|", "S: 250 k|"];
    let heard = check(&style(), 1, &script(&[&[group][..], &dot, &end].concat()));
    assert_eq!(heard.failed, [(0, Fault::Rejected(550))]);
}

#[test]
fn a_server_without_extensions_is_spoken_to_plainly() {
    // RFC 5321 §3.2: a server that refuses EHLO gets HELO.
    let style = Style { chunking: true, ..style() };
    let heard = check(
        &style,
        1,
        &[
            "S: 220 mx|",
            "C: EHLO client.test|",
            "S: 502 what|",
            "C: HELO client.test|",
            "S: 250 mx|",
            "C: MAIL FROM:<a@client.test>|",
            "S: 250 ok|",
            "C: RCPT TO:<b@server.test>|",
            "S: 250 ok|",
            "C: DATA|",
            "S: 354 go|",
            "C: <0.>",
            "S: 250 queued|",
            "C: QUIT|",
        ],
    );
    assert_eq!(heard.acked, [0]);
}

#[test]
fn lmtp_has_a_reply_for_each_recipient() {
    // RFC 2033 §4.2
    let style = Style { protocol: Protocol::Lmtp, ..style() };
    let lines = [
        "S: 220 mx|",
        "C: LHLO client.test|",
        "S: 250-mx|250 PIPELINING|",
        "C: MAIL FROM:<a@client.test>|RCPT TO:<b@server.test>|RCPT TO:<b+1@server.test>|\
         RCPT TO:<b+2@server.test>|DATA|",
        "S: 250 ok|250 ok|250 ok|250 ok|354 go|",
        "C: <0.>",
        "S: 250 ok|250 ok|250 ok|",
        "C: QUIT|",
    ];
    assert_eq!(check(&style, 3, &lines).acked, [0]);
    // One of three was refused: two final replies, and the message counts as failed.
    let mut refused = lines;
    refused[4] = "S: 250 ok|250 ok|550 no|250 ok|354 go|";
    refused[6] = "S: 250 ok|250 ok|";
    refused[7] = "C: RSET|";
    assert_eq!(check(&style, 3, &refused).failed, [(0, Fault::Rejected(550))]);
}

#[test]
fn a_closing_server_fails_what_is_in_flight() {
    // RFC 5321 §3.8: 421 may come at any time.
    let style = Style { chunking: true, in_flight: 2, messages_max: 5, ..style() };
    let mut client = Client::new(style, 1);
    client.hear(b"220 mx\r\n");
    client.hear(b"250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
    assert_eq!(client.dialogue.in_flight(), 2);
    assert_eq!(client.hear(b"421 closing\r\n"), "");
    assert!(client.dialogue.is_over());
    assert_eq!(client.dialogue.fault(), Some(Fault::Rejected(421)));
    let failed = [(0, Fault::Rejected(421)), (1, Fault::Rejected(421))];
    assert_eq!(client.heard.failed, failed);
}

#[test]
fn what_is_no_smtp_ends_the_dialogue() {
    let mut client = Client::new(style(), 1);
    assert_eq!(client.hear(b"HTTP/1.1 400 Bad Request\r\n"), "");
    assert_eq!(client.dialogue.fault(), Some(Fault::Protocol));
    // A reply that nothing asked for.
    let mut client = Client::new(Style { messages_max: 0, ..style() }, 1);
    client.hear(b"220 mx\r\n");
    client.hear(b"250 mx\r\n250 more\r\n");
    assert_eq!(client.dialogue.fault(), Some(Fault::Protocol));
}

#[test]
fn phases_add_up_to_the_service_time() {
    let mut client = Client::new(Style { pipelining: false, ..style() }, 1);
    for reply in
        ["220 mx\r\n", "250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n"]
    {
        client.hear(reply.as_bytes());
    }
    let phases = [
        (Phase::Connect, 0),
        (Phase::Banner, 10),
        (Phase::Helo, 10),
        (Phase::Envelope, 20),
        (Phase::Data, 10),
        (Phase::Ack, 10),
    ];
    assert_eq!(client.heard.phases, phases);
}

/// What a client says that upgrades by STARTTLS and logs in, after hearing these; `None` is the end of
/// the handshake.
fn upgrade(heard: &[Option<&str>]) -> (Vec<String>, Client) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "tim:tanstaaftanstaaf").unwrap();
    let credentials = Credentials::load(file.path()).unwrap();
    let style = Style { security: Security::Starttls, credentials, ..style() };
    let mut client = Client::new(style, 1);
    let said = heard.iter().map(|heard| match heard {
        Some(octets) => client.hear(octets.replace('|', "\r\n").as_bytes()),
        None => {
            client.dialogue.handle_secured(client.now, &client.style, &mut client.heard);
            client.hear(b"")
        }
    });
    (said.collect(), client)
}

#[test]
fn what_is_offered_in_the_clear_is_forgotten() {
    // RFC 3207 §4.2, and the example of RFC 4616 §4.
    let (said, client) = upgrade(&[
        Some("220 mx|"),
        Some("250-mx|250-PIPELINING|250-CHUNKING|250 STARTTLS|"),
        Some("220 go|"),
        None,
        Some("250-mx|250 AUTH LOGIN PLAIN|"),
        Some("235 2.7.0 welcome|"),
    ]);
    let wanted = [
        "EHLO client.test|",
        "STARTTLS|",
        "",
        "EHLO client.test|",
        "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm|",
        "MAIL FROM:<a@client.test>|",
    ];
    assert_eq!(said, wanted);
    let phases = client.heard.phases.iter().map(|(phase, _)| *phase).collect::<Vec<_>>();
    let wanted = [Phase::Connect, Phase::Banner, Phase::Helo, Phase::Tls, Phase::Helo, Phase::Auth];
    assert_eq!(phases, wanted);
}

#[test]
fn an_upgrade_that_fails_says_nothing_more() {
    let greeted = [Some("220 mx|"), Some("250-mx|250 STARTTLS|")];
    let secured = [&greeted[..], &[Some("220 go|"), None]].concat();
    for (before, last, fault) in [
        (&greeted[..1], "250-mx|250 AUTH PLAIN|", Fault::Starttls(None)),
        (&greeted[..1], "502 what|", Fault::Starttls(None)),
        (&greeted, "454 busy|", Fault::Starttls(Some(454))),
        // RFC 3207 §6: a reply in the clear that an attacker put behind the 220.
        (&greeted, "220 go|250 ok|", Fault::Handshake),
        (&secured, "250 mx|", Fault::Auth(None)),
        (&secured, "250-mx|250 AUTH PLAINER|", Fault::Auth(None)),
    ] {
        let mut heard = before.to_vec();
        heard.push(Some(last));
        if last.starts_with("502") {
            heard.push(Some("250 mx|"));
        }
        let (said, client) = upgrade(&heard);
        assert_eq!(client.dialogue.fault(), Some(fault), "{last}");
        assert_eq!(said.last().map(String::as_str), Some(""), "{last}");
    }
    let (_, client) =
        upgrade(&[&secured[..], &[Some("250-mx|250 AUTH PLAIN|"), Some("535 no|")]].concat());
    assert_eq!(client.dialogue.fault(), Some(Fault::Auth(Some(535))));
}
