//! The one harness of a session, for the tests, benches and fuzz targets of every crate (feature
//! `testing`): a [`Peer`] feeds octets, and a [`Host`] stands where the shard does.

use std::{fmt::Display, time::Duration};

use super::{
    Admission, AuthAnswer, AuthQuestion, Config, Context, Entry, Envelope, Event, MailFlags, Nonce,
    Notes, Parameters, Replies, ScramCredential, Session, Stats,
};

/// What a session's events lead to.
pub trait Host {
    /// What an accepted message is called in its reply.
    type Id: Display;

    /// Octets of mail data.
    fn mail_data(&mut self, octets: &[u8]);

    /// A message is complete. `Some`: it is accepted under this ticket; `None`: the test answers.
    fn end_of_mail(&mut self, envelope: &Envelope<'_>) -> Option<(u64, Self::Id)>;

    /// The ticket up to which messages are durable: their replies may go.
    fn durable(&mut self) -> u64 {
        u64::MAX
    }

    /// A message is not completed.
    fn discard(&mut self) {}

    /// TLS begins.
    fn start_tls(&mut self) {}

    /// The peer is a proxy: another client begins.
    fn new_client(&mut self) {}

    /// A question about a user. `None`: the test answers.
    fn authenticate(&mut self, question: AuthQuestion) -> Option<AuthAnswer> {
        let _ = question;
        None
    }
}

/// A session with what it needs around it: the client's octets go in, replies gather in `sent`.
#[derive(Debug)]
pub struct Peer<H = Recorder> {
    /// See [`Context`], as the fields that follow.
    pub config: Config,
    /// The session itself.
    pub session: Session,
    /// Its replies that were not sent.
    pub replies: Replies,
    /// What it counted.
    pub stats: Stats,
    /// Whether messages are taken.
    pub admission: Admission,
    /// Whether STARTTLS is put off.
    pub handshakes_full: bool,
    /// Whether the transport has a channel binding.
    pub binds_channel: bool,
    /// Which refusals are kept, and how many so far were not.
    pub notes: Notes,
    /// The time.
    pub now: Duration,
    /// Octets that the client received.
    pub sent: Vec<u8>,
    /// The session has ended.
    pub closed: bool,
    /// Calls of `handle_input`.
    pub steps: usize,
    /// What its events lead to.
    pub host: H,
    pending: Vec<u8>,
}

impl Peer {
    /// A session of a stranger, opened, whose messages are all accepted and durable at once.
    pub fn new(config: Config) -> Self {
        let session = Session::new(Duration::ZERO, false, &config);
        Self::over(session, config, Recorder::default())
    }
}

impl<H: Host> Peer<H> {
    /// Opens a session.
    pub fn over(session: Session, config: Config, host: H) -> Self {
        let mut peer = Self::unopened(session, config, host);
        peer.begin(Entry::Open);
        peer
    }

    /// A session that is not opened yet.
    pub fn unopened(session: Session, config: Config, host: H) -> Self {
        Self {
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
            closed: false,
            steps: 0,
            host,
            pending: Vec::new(),
        }
    }

    fn begin(&mut self, entry: Entry) {
        let event = self.with(|session, cx| session.handle_open(cx, entry));
        self.closed = matches!(event, Event::Close(_));
    }

    /// Calls the session, with its context.
    pub fn with<T>(&mut self, call: impl FnOnce(&mut Session, &mut Context<'_>) -> T) -> T {
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

    /// Feeds one receive; what the session does not consume is presented again with the next.
    pub fn feed(&mut self, octets: &[u8]) {
        self.pending.extend_from_slice(octets);
        let input = std::mem::take(&mut self.pending);
        let consumed = self.run(&input);
        self.pending = input.get(consumed..).unwrap_or_default().to_vec();
    }

    /// As [`Peer::feed`] without a copy: returns how many octets the session consumed.
    pub fn run(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while !self.closed {
            let rest = input.get(at..).unwrap_or_default();
            let step = self.with(|session, cx| session.handle_input(cx, rest));
            self.steps += 1;
            assert!(step.consumed <= rest.len(), "no more than was given");
            at += step.consumed;
            match step.event {
                Event::NeedInput => {
                    // Replies that wait to be sent may have stopped it.
                    if at == input.len() || self.take() == 0 {
                        break;
                    }
                }
                Event::MailData(range) => {
                    assert!(range.end <= step.consumed, "data is within what was consumed");
                    self.host.mail_data(rest.get(range).unwrap_or_default());
                }
                Event::MailDataStatic(octets) => self.host.mail_data(octets),
                Event::EndOfMail => {
                    let accepted = self.host.end_of_mail(&self.session.envelope());
                    if let Some((ticket, id)) = accepted {
                        self.with(|session, cx| session.resolve_accepted(cx, ticket, &id));
                    }
                }
                Event::Authenticate => {
                    let question = self.session.auth_question().expect("something is asked");
                    if let Some(answer) = self.host.authenticate(question) {
                        self.with(|session, cx| session.resolve_auth(cx, answer));
                    }
                }
                Event::Discard => self.host.discard(),
                Event::StartTls => {
                    assert_eq!(at, input.len(), "nothing is read over the border");
                    self.host.start_tls();
                }
                Event::NewClient => {
                    self.host.new_client();
                    self.begin(match self.admission {
                        Admission::Draining => Entry::Draining,
                        _ => Entry::Open,
                    });
                }
                Event::Close(_) => self.closed = true,
            }
        }
        self.take();
        at
    }

    /// Sends what may be sent; says how many octets that were.
    pub fn take(&mut self) -> usize {
        let released = self.replies.release(self.host.durable());
        self.stats.count_replies(250, released.replies as u64);
        let before = self.sent.len();
        self.replies.take_ready(&mut self.sent);
        self.sent.len() - before
    }

    /// Greets and opens a transaction with one recipient.
    pub fn open(&mut self) {
        self.feed(b"EHLO a\r\n");
        self.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    }

    /// Octets fed that the session wants presented again.
    pub fn kept(&self) -> usize {
        self.pending.len()
    }

    /// What was sent since the last call, every line.
    pub fn lines(&mut self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut self.sent)).expect("replies are ASCII");
        assert!(text.is_empty() || text.ends_with("\r\n"), "{text:?}");
        text.split_terminator("\r\n").map(String::from).collect()
    }

    /// Last lines of the replies sent since the last call.
    pub fn answers(&mut self) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| line.as_bytes().get(3) == Some(&b' '));
        lines
    }
}

/// Accepts every message, and keeps all that happens.
#[derive(Debug)]
pub struct Recorder {
    /// Mail data of the messages.
    pub bodies: Vec<Vec<u8>>,
    /// Flags of each.
    pub flags: Vec<MailFlags>,
    /// Reverse-path and forward-paths of each.
    pub envelopes: Vec<(String, Vec<String>)>,
    /// What few messages ask for, of each.
    pub parameters: Vec<Option<Parameters>>,
    /// `Discard` events.
    pub discards: usize,
    /// `StartTls` events.
    pub upgrades: usize,
    /// `NewClient` events.
    pub clients: usize,
    /// Answers `Authenticate`; else the test does.
    pub directory: Option<fn(AuthQuestion) -> AuthAnswer>,
    /// What was asked.
    pub asked: Vec<AuthQuestion>,
    /// Whether a message is accepted when it is complete; else the test answers.
    pub verdicts: bool,
    body: Vec<u8>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            bodies: Vec::new(),
            flags: Vec::new(),
            envelopes: Vec::new(),
            parameters: Vec::new(),
            discards: 0,
            upgrades: 0,
            clients: 0,
            directory: Some(directory),
            asked: Vec::new(),
            verdicts: true,
            body: Vec::new(),
        }
    }
}

impl Host for Recorder {
    type Id = &'static str;

    fn mail_data(&mut self, octets: &[u8]) {
        self.body.extend_from_slice(octets);
    }

    fn end_of_mail(&mut self, envelope: &Envelope<'_>) -> Option<(u64, Self::Id)> {
        assert_eq!(envelope.bytes, self.body.len() as u64);
        let forward: Vec<_> = envelope.forward_paths().map(String::from).collect();
        assert!(!forward.is_empty());
        self.flags.push(envelope.flags);
        self.envelopes.push((envelope.mail_from.into(), forward));
        self.parameters.push(envelope.parameters.cloned());
        self.bodies.push(std::mem::take(&mut self.body));
        self.verdicts.then_some((self.bodies.len() as u64, "id"))
    }

    fn discard(&mut self) {
        self.discards += 1;
        self.body.clear();
    }

    fn start_tls(&mut self) {
        self.upgrades += 1;
        self.body.clear();
    }

    fn new_client(&mut self) {
        self.clients += 1;
    }

    fn authenticate(&mut self, question: AuthQuestion) -> Option<AuthAnswer> {
        self.asked.push(question.clone());
        self.directory.map(|directory| directory(question))
    }
}

/// One user, `tim`, with the password `tanstaaf`; one certificate, of `CN=tim`.
pub fn directory(question: AuthQuestion) -> AuthAnswer {
    match question {
        AuthQuestion::Password { user, password } => {
            AuthAnswer::Password(user == "tim" && password == "tanstaaf")
        }
        AuthQuestion::Credential { user, binding } => {
            let password: &[u8] = if user == "tim" { b"tanstaaf" } else { b"\0" };
            AuthAnswer::Credential {
                credential: ScramCredential::derive(password, b"salt", 1),
                nonce: Nonce::new([7; 18]),
                binding: if binding { b"channel".to_vec() } else { Vec::new() },
            }
        }
        AuthQuestion::Subject => AuthAnswer::Subject(Some("CN=tim".into())),
    }
}
