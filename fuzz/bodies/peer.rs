//! A session with a driver that accepts every message at once, over the public interface.

use std::time::Duration;

use mailrace::smtp::{
    Admission, AuthAnswer, AuthQuestion, Config, Context, Entry, Event, Nonce, Notes, Replies,
    ScramCredential, Session, Stats,
};

/// What a dialogue left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Reply octets.
    pub sent: Vec<u8>,
    /// Mail data of the accepted messages.
    pub bodies: Vec<Vec<u8>>,
    /// The envelopes' paths.
    pub paths: Vec<String>,
    /// What was told of clients, at the end.
    pub told: String,
    /// The session ended.
    pub closed: bool,
    /// Who the client proved to be.
    pub user: Option<String>,
}

/// Feeds turns, each cut into receives of the length that `cut` gives.
pub fn dialogue<'a>(
    config: &Config,
    turns: impl IntoIterator<Item = &'a [u8]>,
    cut: impl FnMut() -> usize,
) -> Outcome {
    over(Session::new(Duration::ZERO, false, config), config, turns, cut)
}

/// As [`dialogue`], with a session that was not opened yet.
pub fn over<'a>(
    mut session: Session,
    config: &Config,
    turns: impl IntoIterator<Item = &'a [u8]>,
    mut cut: impl FnMut() -> usize,
) -> Outcome {
    let (mut replies, mut stats) = (Replies::new(), Stats::default());
    let mut cx = Context {
        now: Duration::ZERO,
        config,
        replies: &mut replies,
        stats: &mut stats,
        admission: Admission::Open,
        room_bytes: u64::MAX,
        handshakes_full: false,
        binds_channel: true,
        notes: Notes::default(),
    };
    session.handle_open(&mut cx, Entry::Open);
    let mut outcome = Outcome::default();
    let (mut body, mut input) = (Vec::new(), Vec::new());
    for turn in turns {
        let mut rest = turn;
        while !rest.is_empty() && !outcome.closed {
            let (head, tail) = rest.split_at(cut().clamp(1, rest.len()));
            rest = tail;
            input.extend_from_slice(head);
            let mut at = 0;
            loop {
                let step = session.handle_input(&mut cx, &input[at..]);
                assert!(step.consumed <= input.len() - at, "no more than was given");
                match step.event {
                    Event::MailData(range) => {
                        assert!(range.end <= step.consumed);
                        body.extend_from_slice(&input[at..][range]);
                    }
                    Event::MailDataStatic(octets) => body.extend_from_slice(octets),
                    Event::EndOfMail => {
                        let envelope = session.envelope();
                        assert_eq!(envelope.bytes, body.len() as u64);
                        assert!(envelope.forward_path_count > 0);
                        outcome.paths.push(envelope.mail_from.into());
                        outcome.paths.extend(envelope.forward_paths().map(String::from));
                        outcome.bodies.push(std::mem::take(&mut body));
                        let ticket = outcome.bodies.len() as u64;
                        session.resolve_accepted(&mut cx, ticket, &"id");
                    }
                    Event::Discard | Event::StartTls => body.clear(),
                    Event::NewClient => {
                        assert_eq!(session.handle_open(&mut cx, Entry::Open), Event::NeedInput);
                    }
                    Event::Authenticate => {
                        let question = session.auth_question().expect("something is asked");
                        session.resolve_auth(&mut cx, directory(question));
                    }
                    Event::NeedInput => {
                        at += step.consumed;
                        cx.replies.release(u64::MAX);
                        let before = outcome.sent.len();
                        cx.replies.take_ready(&mut outcome.sent);
                        if before == outcome.sent.len() || at == input.len() {
                            break;
                        }
                        continue;
                    }
                    Event::Close(_) => {
                        outcome.closed = true;
                        break;
                    }
                }
                at += step.consumed;
            }
            input.drain(..at.min(input.len()));
            assert!(input.len() <= 65_536, "unparsed input is bounded");
        }
    }
    outcome.user = session.auth_user().map(String::from);
    cx.replies.release(u64::MAX);
    cx.replies.take_ready(&mut outcome.sent);
    session.push_proxy_facts(&mut outcome.told);
    check_replies(&outcome.sent);
    outcome
}

/// Knows one user, whose password is his name, and one certificate.
fn directory(question: AuthQuestion) -> AuthAnswer {
    match question {
        AuthQuestion::Password { user, password } => {
            assert!(!user.contains('\0') && (1..=255).contains(&user.len()));
            AuthAnswer::Password(user == "user" && password == "user")
        }
        AuthQuestion::Credential { user, binding } => AuthAnswer::Credential {
            credential: ScramCredential::derive(user.as_bytes(), b"salt", 1),
            nonce: Nonce::new([7; 18]),
            binding: if binding { vec![1, 2, 3] } else { Vec::new() },
        },
        AuthQuestion::Subject => AuthAnswer::Subject(Some("CN=user".into())),
    }
}

/// RFC 5321 §4.2: each line a code and printable text, at most 512 octets.
fn check_replies(sent: &[u8]) {
    let text = std::str::from_utf8(sent).expect("replies are ASCII");
    assert!(text.is_empty() || text.ends_with("\r\n"));
    for line in text.split_terminator("\r\n") {
        assert!(line.len() <= 510 && line.bytes().all(|octet| matches!(octet, b' '..=b'~')));
        assert!(line.len() > 3 && line.as_bytes()[..3].iter().all(u8::is_ascii_digit), "{line}");
    }
}
