//! The client's side of SMTP (RFC 5321) and LMTP (RFC 2033), sans-IO: octets of the server in,
//! octets to the server and events out.
//!
//! ```text
//!  Hello (smtp::client) -> Ready <-> Envelope -> Content
//!                            ^                      |
//!                            +------- Final <-------+
//! ```
//!
//! The caller polls events first, then output, then waits for input, for room to write or for the
//! deadline, whichever comes first. A reply belongs to the oldest command not yet answered. A reply
//! to nothing, or a success that comes too early, means that both sides are out of step, and ends
//! the session without a delivery: better twice than not at all.

use std::{collections::VecDeque, time::Duration};

use super::{
    super::{ErrorClass, SinkError},
    fate::{Answered, Fate, fate},
    mail::{Body, Mail, Place, push_transparent},
};
use mailrace_smtp::client::{
    BadReply, Failure, Hello, Manner, Reply, ReplyReader, Step, plain_response,
};

/// Mail data taken at once; bounds what stands unsent in memory.
const BLOCK_OCTETS: usize = 65_536;

/// How this side presents itself.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// LHLO, and a reply for each recipient after the mail data.
    pub(super) lmtp: bool,
    /// Argument of EHLO or LHLO.
    pub(super) helo: String,
    /// TLS by STARTTLS, or nothing at all.
    pub(super) starttls: bool,
    /// User and password for AUTH PLAIN.
    pub(super) login: Option<(String, String)>,
}

impl Settings {
    fn manner<'a>(&'a self, plain: Option<&'a str>) -> Manner<'a> {
        let Self { lmtp, helo, starttls, .. } = self;
        Manner { lmtp: *lmtp, name: helo, starttls: *starttls, plain }
    }
}

/// What the caller learns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Messages can be sent.
    Ready,
    /// The caller does the TLS handshake, then calls [`Dialogue::handle_secured`].
    StartTls,
    /// The transaction is over: the fate of each forward-path it had, by index.
    Done(Vec<(usize, Fate)>),
    /// The session is over; where it was in a transaction, `Done` came before.
    Closed(SinkError),
}

/// A command whose reply has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// End of mail data; in LMTP one for each recipient taken, by its index among them.
    End(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Up to where a message can be sent: see [`Hello`].
    Hello,
    Ready,
    /// MAIL, RCPT, DATA are under way.
    Envelope,
    /// Mail data goes out.
    Content,
    /// It is out; `Command::End` are awaited.
    Final,
    Quit,
    Closed,
}

/// A mail transaction under way.
#[derive(Debug)]
struct Transaction {
    mail: Mail,
    /// Of MAIL.
    parameters: String,
    /// With BDAT instead of DATA.
    binary: bool,
    /// Forward-paths by index, and what became of them.
    recipients: Vec<(usize, Option<Fate>)>,
    /// Places in `recipients` of those the server took.
    accepted: Vec<usize>,
    /// Commands not yet sent: without PIPELINING one goes at a time.
    unsent: VecDeque<Command>,
    mail_refused: bool,
    place: Place,
    line_start: bool,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Dialogue {
    settings: Settings,
    state: State,
    /// Initial response of AUTH PLAIN.
    response: Option<String>,
    hello: Hello,
    reader: ReplyReader,
    out: Vec<u8>,
    events: VecDeque<Event>,
    awaited: VecDeque<Command>,
    transaction: Option<Transaction>,
    /// The server holds a transaction that we gave up.
    reset_needed: bool,
    mails: usize,
    progress: u64,
    untouched: bool,
}

impl Dialogue {
    /// A session that has just been connected; `secure` with TLS already.
    pub(super) fn new(settings: Settings, secure: bool) -> Self {
        let login = settings.login.as_ref();
        Self {
            response: login.map(|(user, password)| plain_response(user, password)),
            settings,
            state: State::Hello,
            hello: Hello::new(secure),
            reader: ReplyReader::default(),
            out: Vec::new(),
            events: VecDeque::new(),
            awaited: VecDeque::new(),
            transaction: None,
            reset_needed: false,
            mails: 0,
            progress: 0,
            untouched: true,
        }
    }

    /// Most recipients that may go into one transaction.
    pub(super) fn recipients_max(&self) -> usize {
        // RFC 5321 §4.5.3.1.8: each server takes 100; RFC 9422 §4 says how many this one does.
        self.hello.offer().rcpt_max.unwrap_or(100)
    }

    /// Another message may be sent through this session.
    pub(super) fn is_ready(&self) -> bool {
        // RFC 9422 §4: MAILMAX.
        self.state == State::Ready
            && self.hello.offer().mail_max.is_none_or(|most| self.mails < most)
    }

    /// Changes whenever there was progress: the deadline starts again.
    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    /// The last transaction failed before the server answered any of it: it can go through another
    /// session at once.
    pub(super) fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// How long to wait for what is awaited now (RFC 5321 §4.5.3.2): the whole reply, so that a slow
    /// drip of octets gains nothing.
    pub(super) fn patience(&self) -> Duration {
        let minutes = match (&self.state, self.awaited.front()) {
            (State::Content, _) => 3,
            (State::Envelope, Some(Command::Data)) => 2,
            (State::Final, _) => 10,
            (State::Quit, _) => return Duration::from_secs(2),
            _ => 5,
        };
        Duration::from_secs(minutes * 60)
    }

    /// Begins a transaction with some of a mail's forward-paths.
    ///
    /// # Errors
    /// This server cannot take the message for any recipient; nothing was sent.
    ///
    /// # Panics
    /// Where the session is not ready.
    pub(super) fn handle_mail(
        &mut self,
        mail: Mail,
        recipients: &[usize],
    ) -> Result<(), SinkError> {
        assert!(self.state == State::Ready, "a transaction in {:?}", self.state);
        let parameters = self.parameters(&mail)?;
        let binary = mail.body == Body::Binary;
        let mut unsent = VecDeque::new();
        if std::mem::take(&mut self.reset_needed) {
            unsent.push_back(Command::Reset);
        }
        unsent.push_back(Command::Mail);
        unsent.extend((0..recipients.len()).map(Command::Rcpt));
        if !binary {
            unsent.push_back(Command::Data);
        }
        self.transaction = Some(Transaction {
            place: mail.start(),
            binary,
            recipients: recipients.iter().map(|index| (*index, None)).collect(),
            accepted: Vec::new(),
            unsent,
            mail_refused: false,
            line_start: true,
            parameters,
            mail,
        });
        self.state = State::Envelope;
        self.mails += 1;
        self.progress += 1;
        self.untouched = true;
        self.push_commands();
        Ok(())
    }

    /// Says goodbye, where the session is in a state for that.
    pub(super) fn handle_quit(&mut self) -> bool {
        let is_time = self.state == State::Ready;
        if is_time {
            self.out.extend_from_slice(b"QUIT\r\n");
            self.state = State::Quit;
        }
        is_time
    }

    /// Takes octets of the server. `flushed`: all that was polled has been written.
    pub(super) fn handle_input(&mut self, mut octets: &[u8], flushed: bool) {
        while !octets.is_empty() && self.state != State::Closed {
            // RFC 3207 §6: what follows the reply in plain text was put there by another.
            if self.hello.step() == Step::Handshake {
                self.close(ErrorClass::Other, "the server sent bytes between STARTTLS and TLS");
                break;
            }
            match self.reader.take(&mut octets) {
                Ok(Some(reply)) => {
                    self.progress += 1;
                    self.handle_reply(&reply, flushed);
                }
                Ok(None) => {}
                Err(error) => self.close(ErrorClass::Other, BadReply::text(error)),
            }
        }
    }

    /// TLS is established.
    pub(super) fn handle_secured(&mut self) {
        let Self { hello, settings, response, out, .. } = self;
        hello.handle_secured(&settings.manner(response.as_deref()), out);
    }

    /// Nothing came in time.
    pub(super) fn handle_timeout(&mut self) {
        let seconds = self.patience().as_secs();
        let what = match self.reader.is_inside() {
            true => "the server did not finish a reply",
            false => "the server made no progress",
        };
        self.close(ErrorClass::Timeout, &format!("{what} within {seconds} s"));
    }

    /// The connection is gone.
    pub(super) fn handle_lost(&mut self, why: &str) {
        self.close(ErrorClass::Connect, why);
    }

    /// What happened, oldest first.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends what is to be sent next: a group of commands or a block of mail data.
    pub(super) fn poll_output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
        if self.state == State::Content && out.is_empty() {
            self.push_content(out);
        }
    }

    /// Parameters of MAIL that the message needs (RFC 5321 §4.1.1.2).
    fn parameters(&self, mail: &Mail) -> Result<String, SinkError> {
        let refused = |text: &str| Err(SinkError::new(ErrorClass::Refused, text));
        let offer = self.hello.offer();
        let mut parameters = String::new();
        if let Some(limit) = offer.size {
            let size = mail.size();
            if let Some(limit) = limit.filter(|limit| size > *limit) {
                let text = format!("{size} bytes; the server accepts at most {limit} (SIZE)");
                return Err(SinkError::new(ErrorClass::TooLarge, text));
            }
            parameters += &format!(" SIZE={size}");
        }
        // RFC 6152 §3: a hop that takes 7 bits would need a conversion, and we change no octet.
        match mail.body {
            Body::Binary if offer.chunking && offer.binarymime => parameters += " BODY=BINARYMIME",
            Body::Binary => {
                return refused("binary mail; the server offers no BINARYMIME with CHUNKING");
            }
            Body::EightBit if offer.eight_bit => parameters += " BODY=8BITMIME",
            Body::EightBit if mail.has_eight_bit() => {
                return refused("8-bit mail; the server offers no 8BITMIME");
            }
            Body::EightBit | Body::SevenBit => {}
        }
        // RFC 6531 §3.2: what has no character beyond ASCII can do without.
        if offer.smtputf8 && (mail.smtputf8 || mail.beyond_ascii) {
            parameters += " SMTPUTF8";
        } else if mail.beyond_ascii {
            return refused("5.6.7 internationalized mail; the server offers no SMTPUTF8");
        }
        if offer.dsn {
            parameters += &mail.dsn;
        }
        // RFC 8689 §4.2.1: a verified server (ours all are) that promises the same, or nobody.
        match (mail.require_tls, self.hello.is_secure(), offer.require_tls) {
            (false, ..) => {}
            (true, true, true) => parameters += " REQUIRETLS",
            (true, false, _) => return refused("5.7.30 the mail needs TLS (REQUIRETLS)"),
            (true, true, false) => {
                return refused("5.7.30 the mail needs REQUIRETLS; the server does not offer it");
            }
        }
        Ok(parameters)
    }

    /// Sends commands: all of them at once with PIPELINING (RFC 2920), one without.
    fn push_commands(&mut self) {
        let Some(transaction) = &mut self.transaction else { return };
        while let Some(command) = transaction.unsent.pop_front() {
            match command {
                Command::Reset => self.out.extend_from_slice(b"RSET\r\n"),
                Command::Mail => {
                    let (path, more) = (&transaction.mail.reverse_path, &transaction.parameters);
                    self.out.extend_from_slice(format!("MAIL FROM:<{path}>{more}\r\n").as_bytes());
                }
                Command::Rcpt(place) => {
                    let mail = &transaction.mail;
                    let index = transaction.recipients.get(place).map_or(0, |(index, _)| *index);
                    let path = mail.forward_paths.get(index).map_or("", String::as_str);
                    let more = if self.hello.offer().dsn { mail.rcpt_dsn(index) } else { "" };
                    self.out.extend_from_slice(format!("RCPT TO:<{path}>{more}\r\n").as_bytes());
                }
                Command::Data => self.out.extend_from_slice(b"DATA\r\n"),
                Command::End(_) => unreachable!("the end is no command"),
            }
            self.awaited.push_back(command);
            if !self.hello.offer().pipelining {
                break;
            }
        }
    }

    fn push_content(&mut self, out: &mut Vec<u8>) {
        let Some(transaction) = &mut self.transaction else { return };
        self.progress += 1;
        let block = transaction.place.take(BLOCK_OCTETS);
        if transaction.binary {
            out.extend_from_slice(&block);
        } else {
            push_transparent(&block, &mut transaction.line_start, out);
        }
        if !block.is_empty() {
            return;
        }
        if !transaction.binary {
            out.extend_from_slice(b".\r\n");
        }
        self.end_content();
    }

    fn end_content(&mut self) {
        let Some(transaction) = &self.transaction else { return };
        // RFC 2033 §4.2: a reply for each recipient that was taken, in their order.
        let replies = if self.settings.lmtp { transaction.accepted.len() } else { 1 };
        self.awaited.extend((0..replies).map(Command::End));
        self.state = State::Final;
    }

    fn handle_reply(&mut self, reply: &Reply, flushed: bool) {
        match self.state {
            State::Hello => self.handle_hello(reply),
            State::Envelope => self.handle_envelope(reply),
            State::Content => self.handle_early(reply),
            State::Final => self.handle_final(reply, flushed),
            State::Quit => self.close(ErrorClass::Other, "the session has ended"),
            State::Ready => self.close(ErrorClass::Connect, &reply.text()),
            State::Closed => {}
        }
    }

    fn handle_hello(&mut self, reply: &Reply) {
        let Self { hello, settings, response, out, .. } = self;
        let heard = hello.handle_reply(reply, &settings.manner(response.as_deref()), out);
        let (class, text) = match heard {
            Ok(()) => {
                return match self.hello.step() {
                    Step::Ready => self.become_ready(),
                    Step::Handshake => self.events.push_back(Event::StartTls),
                    _ => {}
                };
            }
            Err(Failure::NoStartTls) => (ErrorClass::Other, "the server offers no STARTTLS".into()),
            Err(Failure::NoTlsForAuth) => {
                (ErrorClass::Auth, "a user is set, but AUTH needs TLS".into())
            }
            Err(Failure::NoAuthPlain) => {
                (ErrorClass::Auth, "the server offers no AUTH PLAIN".into())
            }
            Err(Failure::Refused(step)) => {
                let class = match (step, reply.class()) {
                    (Step::Auth, _) => ErrorClass::Auth,
                    (_, 4) => ErrorClass::Throttled,
                    _ => ErrorClass::Other,
                };
                let what = match step {
                    Step::Greeting => "greeting",
                    Step::StartTls => "STARTTLS",
                    Step::Auth => "AUTH PLAIN",
                    _ if self.settings.lmtp => "LHLO",
                    _ => "EHLO",
                };
                (class, format!("{what}: {}", reply.text()))
            }
        };
        self.close(class, &text);
    }

    fn become_ready(&mut self) {
        self.state = State::Ready;
        self.events.push_back(Event::Ready);
    }

    fn handle_envelope(&mut self, reply: &Reply) {
        let (Some(command), Some(transaction)) =
            (self.awaited.pop_front(), self.transaction.as_mut())
        else {
            return self.close(ErrorClass::Other, "the server sent an unsolicited reply");
        };
        // In answer to the first command it may be an old session's end that crossed with it.
        if reply.code == 421 {
            return self.close(ErrorClass::Throttled, &reply.text());
        }
        self.untouched = false;
        if reply.class() == 3 && (command, reply.code) != (Command::Data, 354) {
            return self.close(ErrorClass::Other, &format!("unexpected reply: {}", reply.text()));
        }
        match command {
            Command::Reset if reply.class() != 2 => {
                return self.close(ErrorClass::Other, &format!("RSET: {}", reply.text()));
            }
            Command::Reset => {}
            Command::Mail if reply.class() == 2 => {}
            Command::Mail => {
                transaction.settle_open(&fate(reply, Answered::Mail));
                transaction.mail_refused = true;
                transaction.unsent.clear();
            }
            Command::Rcpt(place) => {
                let answer = (reply.class() != 2).then(|| fate(reply, Answered::Rcpt));
                transaction.settle_recipient(place, answer);
            }
            Command::Data => return self.handle_data(reply),
            Command::End(_) => unreachable!("no content is out"),
        }
        self.continue_envelope();
    }

    /// The next command where replies are waited for, or the end of the envelope.
    fn continue_envelope(&mut self) {
        let Some(transaction) = &mut self.transaction else { return };
        if !self.awaited.is_empty() {
            return;
        }
        let nobody = transaction.accepted.is_empty();
        match transaction.unsent.front() {
            Some(Command::Data) if nobody => self.finish(true),
            Some(_) => self.push_commands(),
            None if nobody => {
                let refused = transaction.mail_refused;
                self.finish(!refused);
            }
            // RFC 3030 §2: one chunk, which is the last.
            None => {
                let size = transaction.mail.size();
                self.out.extend_from_slice(format!("BDAT {size} LAST\r\n").as_bytes());
                self.state = State::Content;
            }
        }
    }

    fn handle_data(&mut self, reply: &Reply) {
        let Some(transaction) = &mut self.transaction else { return };
        let nobody = transaction.accepted.is_empty();
        match reply.class() {
            3 if !nobody => self.state = State::Content,
            // RFC 2920 §3.1: the server took DATA with nobody to deliver to: an empty message. In
            // LMTP that has no reply to wait for.
            3 if self.settings.lmtp => {
                self.close(ErrorClass::Other, "the server accepted mail data without a recipient");
            }
            3 => {
                self.out.extend_from_slice(b".\r\n");
                self.end_content();
            }
            2 => self.close(ErrorClass::Other, &format!("DATA: {}", reply.text())),
            _ => {
                transaction.settle_open(&fate(reply, Answered::Content));
                let refused = transaction.mail_refused;
                self.finish(!refused);
            }
        }
    }

    /// A reply before the mail data has ended: only a refusal can be meant.
    fn handle_early(&mut self, reply: &Reply) {
        if matches!(reply.class(), 4 | 5)
            && let Some(transaction) = &mut self.transaction
        {
            transaction.settle_open(&fate(reply, Answered::Content));
        }
        self.close(ErrorClass::Other, &format!("during the mail data: {}", reply.text()));
    }

    fn handle_final(&mut self, reply: &Reply, flushed: bool) {
        let (Some(Command::End(nth)), Some(transaction)) =
            (self.awaited.pop_front(), self.transaction.as_mut())
        else {
            return self.close(ErrorClass::Other, "the server sent an unsolicited reply");
        };
        let answer = match reply.class() {
            2 if !flushed => {
                return self.close(
                    ErrorClass::Other,
                    "the server accepted the message before it \
                     was sent completely",
                );
            }
            2 => Fate::Delivered,
            3 => return self.close(ErrorClass::Other, &format!("end of data: {}", reply.text())),
            _ => fate(reply, Answered::Content),
        };
        if self.settings.lmtp {
            if let Some(place) = transaction.accepted.get(nth).copied() {
                transaction.settle(place, answer);
            }
        } else {
            transaction.settle_open(&answer);
        }
        if reply.code == 421 {
            return self.close(ErrorClass::Throttled, &reply.text());
        }
        if self.awaited.is_empty() {
            self.finish(false);
        }
    }

    /// Ends the transaction. `open`: the server still has it.
    fn finish(&mut self, open: bool) {
        self.report(&Fate::Deferred(SinkError::new(ErrorClass::Other, "no reply")));
        self.reset_needed = open;
        self.state = State::Ready;
    }

    /// Ends the session; recipients without a reply are in doubt, and so deferred (D4).
    fn close(&mut self, class: ErrorClass, text: &str) {
        if self.state == State::Closed {
            return;
        }
        let error = SinkError::new(class, text);
        self.state = State::Closed;
        self.awaited.clear();
        self.out.clear();
        self.report(&Fate::Deferred(error.clone()));
        self.events.push_back(Event::Closed(error));
    }

    fn report(&mut self, otherwise: &Fate) {
        if let Some(transaction) = self.transaction.take() {
            let fates = transaction.recipients.into_iter();
            let fates = fates.map(|(index, fate)| (index, fate.unwrap_or(otherwise.clone())));
            self.events.push_back(Event::Done(fates.collect()));
        }
    }
}

impl Transaction {
    /// The server has answered RCPT; `None`: it takes the recipient.
    fn settle_recipient(&mut self, place: usize, answer: Option<Fate>) {
        if self.mail_refused {
            return;
        }
        match answer {
            None => self.accepted.push(place),
            Some(fate) => self.settle(place, fate),
        }
    }

    fn settle(&mut self, place: usize, fate: Fate) {
        if let Some((_, known)) = self.recipients.get_mut(place) {
            known.get_or_insert(fate);
        }
    }

    /// All that have no fate get this one.
    fn settle_open(&mut self, fate: &Fate) {
        for (_, known) in &mut self.recipients {
            known.get_or_insert_with(|| fate.clone());
        }
    }
}

#[cfg(test)]
#[path = "dialogue_tests/mod.rs"]
mod tests;
