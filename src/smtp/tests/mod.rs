//! Dialogue tests: one script a row of docs/BAD-INPUTS.md, named after its id.
//!
//! `C:` is a line of the client (CRLF added), `c:` is sent without CRLF, `S:` the start of a
//! reply's last line, `B:` the body of the next accepted message, `X:` a closed session. Escapes:
//! `\r \n \0 \\ \xNN`. Lines of the client without an `S:` between them are one turn. Every script
//! is fed whole, octet by octet and at random cuts, with one outcome.

mod auth;
mod commands;
mod content;
mod lmtp;
mod parameters;
mod paths;
mod properties;
mod refusals;
mod rfc;
mod sequence;
mod starttls;
mod upstream;

use std::time::Duration;

use super::*;

/// A session with a driver that accepts every message and releases every hold at once.
pub(super) struct Peer {
    pub(super) config: Config,
    pub(super) session: Session,
    pub(super) replies: Replies,
    pub(super) stats: Stats,
    pub(super) admission: Admission,
    pub(super) handshakes_full: bool,
    pub(super) binds_channel: bool,
    /// Which refusals are kept, and how many so far were not.
    pub(super) notes: Notes,
    pub(super) now: Duration,
    pub(super) sent: Vec<u8>,
    pub(super) bodies: Vec<Vec<u8>>,
    pub(super) flags: Vec<MailFlags>,
    /// Reverse-path and forward-paths of each message.
    pub(super) envelopes: Vec<(String, Vec<String>)>,
    /// What few messages ask for, of each message.
    pub(super) parameters: Vec<Option<Parameters>>,
    /// `Discard` events.
    pub(super) discards: usize,
    /// `StartTls` events.
    pub(super) upgrades: usize,
    /// `NewClient` events.
    pub(super) clients: usize,
    /// Calls of `handle_input`.
    pub(super) steps: usize,
    /// Answers `Authenticate`; else the test does.
    pub(super) directory: Option<fn(AuthQuestion) -> AuthAnswer>,
    /// What was asked.
    pub(super) asked: Vec<AuthQuestion>,
    /// Answer `EndOfMail` at once; else the test does.
    pub(super) verdicts: bool,
    pub(super) closed: bool,
    pending: Vec<u8>,
    body: Vec<u8>,
}

impl Peer {
    pub(super) fn new(config: Config) -> Self {
        let session = Session::new(Duration::ZERO, false, &config);
        let mut peer = Self {
            config,
            session,
            replies: Replies::new(),
            stats: Stats::default(),
            admission: Admission::Open,
            handshakes_full: false,
            binds_channel: true,
            notes: Notes::default(),
            now: Duration::ZERO,
            sent: Vec::new(),
            bodies: Vec::new(),
            flags: Vec::new(),
            envelopes: Vec::new(),
            parameters: Vec::new(),
            discards: 0,
            upgrades: 0,
            clients: 0,
            steps: 0,
            directory: Some(auth::directory),
            asked: Vec::new(),
            verdicts: true,
            closed: false,
            pending: Vec::new(),
            body: Vec::new(),
        };
        let event = peer.with(|session, cx| session.handle_open(cx, Entry::Open));
        peer.closed = matches!(event, Event::Close(_));
        peer
    }

    pub(super) fn with<T>(&mut self, call: impl FnOnce(&mut Session, &mut Context<'_>) -> T) -> T {
        let mut cx = Context {
            now: self.now,
            config: &self.config,
            replies: &mut self.replies,
            stats: &mut self.stats,
            admission: self.admission,
            room_bytes: u64::MAX,
            handshakes_full: self.handshakes_full,
            binds_channel: self.binds_channel,
            notes: self.notes,
        };
        let result = call(&mut self.session, &mut cx);
        self.notes = cx.notes;
        result
    }

    /// Feeds one receive.
    pub(super) fn feed(&mut self, octets: &[u8]) {
        self.pending.extend_from_slice(octets);
        let input = std::mem::take(&mut self.pending);
        let mut at = 0;
        while !self.closed {
            let step = self.with(|session, cx| session.handle_input(cx, &input[at..]));
            self.steps += 1;
            match step.event {
                Event::NeedInput => {
                    at += step.consumed;
                    if self.take() == 0 || at == input.len() {
                        break;
                    }
                    continue;
                }
                Event::MailData(range) => {
                    assert!(range.end <= step.consumed, "data lies in what was consumed");
                    self.body.extend_from_slice(&input[at..][range]);
                }
                Event::MailDataStatic(octets) => self.body.extend_from_slice(octets),
                Event::EndOfMail => {
                    let flags = self.session.envelope().flags;
                    assert_eq!(self.session.envelope().bytes, self.body.len() as u64);
                    self.flags.push(flags);
                    let envelope = self.session.envelope();
                    let forward = envelope.forward_paths().map(String::from).collect();
                    self.envelopes.push((envelope.mail_from.into(), forward));
                    self.parameters.push(envelope.parameters.cloned());
                    self.bodies.push(std::mem::take(&mut self.body));
                    let ticket = self.bodies.len() as u64;
                    if self.verdicts {
                        self.with(|session, cx| session.resolve_accepted(cx, ticket, &"id"));
                    }
                }
                Event::Authenticate => {
                    let question = self.session.auth_question().expect("something is asked");
                    self.asked.push(question.clone());
                    if let Some(directory) = self.directory {
                        self.with(|session, cx| session.resolve_auth(cx, directory(question)));
                    }
                }
                Event::Discard => {
                    self.discards += 1;
                    self.body.clear();
                }
                Event::StartTls => {
                    assert_eq!(at + step.consumed, input.len(), "nothing is read over the border");
                    self.upgrades += 1;
                    self.body.clear();
                }
                Event::NewClient => {
                    self.clients += 1;
                    let entry = match self.admission {
                        Admission::Draining => Entry::Draining,
                        _ => Entry::Open,
                    };
                    let event = self.with(|session, cx| session.handle_open(cx, entry));
                    self.closed = matches!(event, Event::Close(_));
                }
                Event::Close(_) => self.closed = true,
            }
            at += step.consumed;
        }
        self.pending = input.get(at..).unwrap_or_default().to_vec();
        self.take();
    }

    /// Greets and opens a transaction with one recipient.
    pub(super) fn open(&mut self) {
        self.feed(b"EHLO a\r\n");
        self.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    }

    /// Octets fed that the session wants presented again.
    pub(super) fn kept(&self) -> usize {
        self.pending.len()
    }

    fn take(&mut self) -> usize {
        let released = self.replies.release(u64::MAX);
        self.stats.count_replies(250, released.replies as u64);
        let before = self.sent.len();
        self.replies.take_ready(&mut self.sent);
        self.sent.len() - before
    }

    /// Last lines of the replies sent since the last call.
    pub(super) fn answers(&mut self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut self.sent)).expect("replies are ASCII");
        text.split_terminator("\r\n")
            .filter(|line| line.as_bytes().get(3) == Some(&b' '))
            .map(String::from)
            .collect()
    }
}

pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        if octet != b'\\' {
            out.push(octet);
            continue;
        }
        out.push(match octets.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let hex = [octets.next().expect("digit"), octets.next().expect("digit")];
                let hex = str::from_utf8(&hex).expect("ascii");
                u8::from_str_radix(hex, 16).expect("hex digits")
            }
            other => panic!("unknown escape {other:?}"),
        });
    }
    out
}

/// A way to cut a turn into receives: the length of the next one, at least 1.
type Cuts<'a> = &'a mut dyn FnMut() -> usize;

fn run(script: &str, config: &Config, cuts: Cuts<'_>) {
    let mut peer = Peer::new(config.clone());
    assert!(peer.take() > 0, "a greeting");
    peer.answers();
    let mut turn = Vec::new();
    let mut answers = std::collections::VecDeque::new();
    let mut bodies = 0;
    let mut lines = script.lines().map(str::trim_start).filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        let (kind, text) = line.split_at(2);
        let text = text.strip_prefix(' ').unwrap_or(text);
        match kind {
            "C:" | "c:" => {
                turn.extend(unescape(text));
                if kind == "C:" {
                    turn.extend(b"\r\n");
                }
                if lines.peek().is_none_or(|next| !next[..2].eq_ignore_ascii_case("c:")) {
                    let mut rest = &turn[..];
                    while !rest.is_empty() {
                        let (head, tail) = rest.split_at(cuts().clamp(1, rest.len()));
                        peer.feed(head);
                        rest = tail;
                    }
                    turn.clear();
                    answers.extend(peer.answers());
                }
            }
            "S:" => {
                let answer = answers.pop_front().unwrap_or_default();
                assert!(answer.starts_with(text), "{line} but got {answer:?} in\n{script}");
            }
            "B:" => {
                let body = peer.bodies.get(bodies).map(|body| body.escape_ascii().to_string());
                let wanted = unescape(text).escape_ascii().to_string();
                assert_eq!(body, Some(wanted), "{script}");
                bodies += 1;
            }
            "X:" => assert!(peer.closed && answers.is_empty(), "{line} {answers:?} in\n{script}"),
            _ => panic!("bad script line {line}"),
        }
    }
    assert!(answers.is_empty(), "unexpected {answers:?} in\n{script}");
    assert_eq!(peer.bodies.len(), bodies, "messages of\n{script}");
    if !script.contains("X:") {
        assert!(!peer.closed, "closed\n{script}");
    }
}

/// Runs a script whole, octet by octet and at random cuts.
pub(super) fn check(script: &str) {
    check_with(script, &Config::default());
}

pub(super) fn check_with(script: &str, config: &Config) {
    check_whole(script, config);
    run(script, config, &mut || 1);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..20 {
        run(script, config, &mut || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize % (2 + round * 3) + 1
        });
    }
}

pub(super) fn check_whole(script: &str, config: &Config) {
    run(script, config, &mut || usize::MAX);
}

/// Puts a greeting before a script.
pub(super) fn greeted(script: &str) -> String {
    format!("C: EHLO a\nS: 250 HELP\n{script}")
}

/// Puts a transaction with one recipient before a script.
pub(super) fn opened(script: &str) -> String {
    greeted(&format!("C: MAIL FROM:<a@b>\nS: 250 2.1.0\nC: RCPT TO:<c@d>\nS: 250 2.1.5\n{script}"))
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 384, "{}", size_of::<Session>());
}
