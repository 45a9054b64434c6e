//! The session: states, and the calls that move them. One file for each group of commands.
//!
//! ```text
//!   New --handle_open--> Command <---> Line (discarding an over-long one)
//!                         |   ^
//!                 DATA or |   | reply after the data
//!                   BDAT  v   |
//!                    Data, Chunk --end of mail--> Verdict --resolve_*--> Command
//!   Command --AUTH--> Auth (a response) <---> Asking (the driver owes an answer) --> Command
//!   any --QUIT, 421, abuse--> Closed
//! ```

mod auth;
mod content;
mod drain;
mod ehlo;
mod lmtp;
mod mail;
mod other;
mod refuse;
mod starttls;
mod step;
mod submission;
mod upstream;

use std::fmt::Display;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use self::auth::AuthState;
use super::chunking::Chunk;
use super::command::Verb;
use super::data::{Offence, TextReader};
use super::header::HeaderCount;
use super::limits::{Admission, Config, Entry, Limits, TlsPolicy};
use super::refused::{Notes, Refusals, Refused};
use super::reply::{Refusal, Rejection, Replies, Reply};
use super::stats::{RejectReason, Stats};
use super::transaction::{Envelope, Transaction};
use upstream::Upstream;

/// What the driver lends a session for one call.
///
/// Times are durations since the shard started, on a monotonic clock.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time of this call.
    pub now: Duration,
    /// Options of the listener.
    pub config: &'a Config,
    /// Where the connection's replies go.
    pub replies: &'a mut Replies,
    /// The shard's counters.
    pub stats: &'a mut Stats,
    /// Whether new mail is taken at this moment.
    pub admission: Admission,
    /// Octets that a message may declare at this moment for want of free space; `u64::MAX` where
    /// there is plenty.
    pub room_bytes: u64,
    /// As many TLS handshakes as may be are under way: STARTTLS gets 454.
    pub handshakes_full: bool,
    /// The connection is under TLS and can be bound to (RFC 9266): SCRAM-SHA-256-PLUS may be
    /// offered.
    pub binds_channel: bool,
    /// Which refusals are kept for [`Session::take_refusals`].
    pub notes: Notes,
}

impl Context<'_> {
    fn push(&mut self, reply: Reply) {
        self.stats.count_reply(reply.code());
        self.replies.push(reply);
    }

    fn push_times(&mut self, reply: Reply, times: usize) {
        for _ in 0..times {
            self.push(reply);
        }
    }

    /// Renders `421 <enhanced> <our domain> <text>` (RFC 5321 §4.2 wants the domain).
    fn push_421(&mut self, enhanced: &str, text: &str) {
        self.stats.count_reply(421);
        let hostname = &self.config.hostname;
        // Writing into a Vec cannot fail.
        let _ = write!(self.replies.open(), "421 {enhanced} {hostname} {text}\r\n");
    }
}

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Send what is ready, then call again with more octets.
    ///
    /// The unconsumed rest of the input is presented again. If [`Replies::unsent`] has reached
    /// [`Limits::unsent_replies_bytes`], call again after a send, without reading more.
    NeedInput,
    /// Append these octets of the `input` just given to the message.
    MailData(Range<usize>),
    /// Append these octets to the message: they do not lie in the input.
    MailDataStatic(&'static [u8]),
    /// The message is whole: answer with [`Session::resolve_accepted`],
    /// [`Session::resolve_refused`] or [`Session::resolve_rejected`]. Until then no further command
    /// is read.
    EndOfMail,
    /// AUTH asks [`Session::auth_question`]: answer with [`Session::resolve_auth`], then call again.
    /// Until then no further command is read.
    Authenticate,
    /// Drop the octets collected for the message so far, and go on calling.
    Discard,
    /// Drop what was collected, send all replies in the clear, then begin TLS. Everything received
    /// from now on is TLS's, everything said behind these replies goes under it.
    StartTls,
    /// The peer named another client, for which the session begins again: ask
    /// [`Session::told_client`] for its address, call [`Session::handle_open`] again, and continue.
    NewClient,
    /// Drop what was collected, send all replies (held ones when released), then close.
    Close(Ending),
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client said QUIT.
    Quit,
    /// We would not go on: a 421 or 554 says why.
    Refused,
    /// The client took too long.
    Timeout,
    /// The client's side of the stream has ended.
    ClientGone,
    /// The server shuts down.
    Draining,
}

/// Outcome of [`Session::handle_input`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Octets at the front of the input that need not be presented again.
    pub consumed: usize,
    /// What to do next.
    pub event: Event,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The greeting was not sent yet.
    New,
    Command,
    /// Throwing away the rest of an over-long line.
    Line {
        discarded: u32,
        after_cr: bool,
    },
    Data,
    Chunk(Chunk),
    /// The driver owes an answer; `closing` once the peer is gone.
    Verdict {
        closing: bool,
    },
    /// A response of an exchange of AUTH is awaited.
    Auth,
    /// The driver owes an answer to AUTH.
    Asking,
    Closed(Ending),
}

/// A time in a word: a `Duration` takes two, and idle sessions are many.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Progress of one state: octets used, and an event unless the loop is to go on.
type Progress = (usize, Option<Event>);

/// One SMTP session: the dialogue, not the connection under it.
///
/// Life cycle: from accept to close, on one shard.
#[derive(Debug)]
pub struct Session {
    state: State,
    exempt: bool,
    esmtp: bool,
    under_tls: bool,
    /// A line that began with no letter was seen once (BAD-INPUTS A18).
    odd_line: bool,
    /// Octets of the message under way were handed out and not dropped.
    handed_out: bool,
    offence: Option<Offence>,
    helo: Box<str>,
    /// The peer may speak for clients; what it said about them.
    upstream: Option<Box<Upstream>>,
    /// Nothing until the first AUTH.
    auth: Option<Box<AuthState>>,
    transaction: Transaction,
    started: Duration,
    /// When the present wait for a command began.
    waiting_since: Duration,
    /// When the present transaction's MAIL came.
    mail_since_us: u64,
    /// When the message's data began.
    data_since_us: u64,
    /// When the present DATA or chunk began.
    block_since: Duration,
    /// Octets of the present DATA or chunk, as received.
    block_bytes: u64,
    /// Octets of the message, dots unstuffed.
    bytes: u64,
    reader: TextReader,
    header: HeaderCount,
    chunks: u32,
    errors: u32,
    junk: u32,
    messages: u32,
    rcpts: u32,
    /// What [`Session::deadline`] says; kept by `settle` at the end of every call.
    deadline: Duration,
    penalised: bool,
    /// The list that has the client: no recipient is taken.
    refused_by: Option<Box<Arc<str>>>,
    /// The command at hand, for the log of refusals.
    stage: Option<Verb>,
    /// Nothing until something is refused.
    refusals: Option<Box<Refusals>>,
}

impl Session {
    /// A session at the moment its connection was accepted.
    ///
    /// `exempt` spares it the limits that [`Limits`] marks so.
    pub fn new(now: Duration, exempt: bool, config: &Config) -> Self {
        let mut session = Self {
            state: State::New,
            exempt,
            esmtp: false,
            under_tls: config.tls == TlsPolicy::Implicit,
            odd_line: false,
            handed_out: false,
            offence: None,
            helo: Box::default(),
            upstream: None,
            auth: None,
            transaction: Transaction::default(),
            started: now,
            waiting_since: now,
            mail_since_us: 0,
            data_since_us: micros(now),
            block_since: now,
            block_bytes: 0,
            bytes: 0,
            reader: TextReader::default(),
            header: HeaderCount::default(),
            chunks: 0,
            errors: 0,
            junk: 0,
            messages: 0,
            rcpts: 0,
            deadline: now,
            penalised: false,
            refused_by: None,
            stage: None,
            refusals: None,
        };
        session.settle(config);
        session
    }

    /// Says whether it is spared the limits that [`Limits`] marks so, ahead of
    /// [`Session::handle_open`].
    pub fn set_exempt(&mut self, exempt: bool) {
        self.exempt = exempt;
    }

    /// Greets (RFC 5321 §4.3.1), or says why not and closes.
    pub fn handle_open(&mut self, cx: &mut Context<'_>, entry: Entry) -> Event {
        let event = self.greet(cx, entry);
        self.settle(cx.config);
        event
    }

    fn greet(&mut self, cx: &mut Context<'_>, entry: Entry) -> Event {
        if !matches!(self.state, State::New) {
            return self.idle_event();
        }
        self.waiting_since = cx.now;
        self.stage = None;
        match entry {
            Entry::Draining => self.end_with_421(cx, Ending::Draining, "4.3.2", "Shutting down"),
            Entry::MemoryFull => {
                cx.stats.count_rejected(421, RejectReason::Backpressure);
                self.close_421(cx, "4.3.2", "Out of memory, try again later")
            }
            Entry::LogFailed => {
                cx.stats.count_rejected(421, RejectReason::LogError);
                self.close_421(cx, "4.3.0", "Message store unavailable, try again later")
            }
            Entry::Crowded => {
                cx.stats.count_rejected(421, RejectReason::Policy);
                self.close_421(cx, "4.3.2", "Too many connections, try again later")
            }
            Entry::Blocked => {
                cx.stats.count_rejected(421, RejectReason::Auth);
                self.close_421(cx, "4.7.0", auth::BLOCKED)
            }
            Entry::AddressFull => {
                cx.stats.count_rejected(421, RejectReason::Policy);
                self.close_421(cx, "4.7.0", "Too many connections from your address")
            }
            Entry::AddressFast => {
                cx.stats.count_rejected(421, RejectReason::Policy);
                self.close_421(cx, "4.7.0", "Too many new connections from your address")
            }
            Entry::Overloaded => {
                cx.stats.count_rejected(421, RejectReason::Backpressure);
                self.close_421(cx, "4.3.2", "Overloaded, try again later")
            }
            Entry::Open => {
                Self::welcome(cx);
                self.state = State::Command;
                Event::NeedInput
            }
        }
    }

    /// Takes one step over `input`: consumes as many whole commands as it can, until something
    /// needs the driver.
    ///
    /// Call until it says [`Event::NeedInput`] or [`Event::Close`], each time with the rest that
    /// was not consumed, even if that is empty.
    pub fn handle_input(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Step {
        let step = self.step(cx, input);
        self.settle(cx.config);
        step
    }

    fn step(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Step {
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let (used, event) = match self.state {
                State::New => self.step_new(cx, rest),
                State::Command => self.step_command(cx, rest),
                State::Line { discarded, after_cr } => {
                    self.step_line(cx, rest, discarded, after_cr)
                }
                State::Data => self.step_data(cx, rest),
                State::Chunk(chunk) => self.step_chunk(cx, rest, chunk),
                State::Auth => self.step_auth(cx, rest),
                State::Verdict { .. } | State::Asking => (0, Some(Event::NeedInput)),
                State::Closed(ending) => (rest.len(), Some(Event::Close(ending))),
            };
            let base = consumed;
            consumed += used;
            match event {
                None => {}
                Some(Event::MailData(range)) => {
                    let range = base + range.start..base + range.end;
                    return Step { consumed, event: Event::MailData(range) };
                }
                Some(event) => return Step { consumed, event },
            }
        }
    }

    /// The peer will send no more: the open transaction is cancelled (RFC 5321 §4.1.1.4).
    ///
    /// A message that waits for its answer is not: it was whole, and may still be resolved.
    pub fn handle_eof(&mut self, cx: &mut Context<'_>) -> Event {
        match &mut self.state {
            State::Verdict { closing } => *closing = true,
            _ => {
                self.clear_transaction();
                self.state = State::Closed(Ending::ClientGone);
            }
        }
        self.settle(cx.config);
        Event::Close(Ending::ClientGone)
    }

    /// Call when the time has reached [`Session::deadline`]; a premature call does nothing.
    pub fn handle_deadline(&mut self, cx: &mut Context<'_>) -> Event {
        if cx.now < self.deadline_under(&cx.config.limits) {
            return self.idle_event();
        }
        let event = match self.state {
            State::Closed(ending) => Event::Close(ending),
            State::Verdict { .. } => {
                self.resolve_refused(cx, Refusal::Timeout);
                Event::Discard
            }
            _ => self.end_with_421(cx, Ending::Timeout, "4.4.2", "Timeout"),
        };
        self.settle(cx.config);
        event
    }

    /// The next moment at which [`Session::handle_deadline`] has something to do.
    ///
    /// It covers a whole command or block, so octets that trickle in do not move it; only the
    /// minimum data rate follows them. [`Duration::MAX`] when closed.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Call where the limits have changed: brings [`Session::deadline`] up to date.
    pub fn refresh(&mut self, config: &Config) {
        self.settle(config);
    }

    /// Whether it is spared the limits that [`Limits`] marks so.
    pub fn is_exempt(&self) -> bool {
        self.exempt
    }

    /// Moves the deadlines by a time in which it was us who did not read.
    pub fn postpone(&mut self, by: Duration) {
        self.waiting_since += by;
        self.data_since_us += micros(by);
        self.block_since += by;
        self.deadline = self.deadline.saturating_add(by);
    }

    /// Brings up to date what is asked for without a context.
    fn settle(&mut self, config: &Config) {
        self.deadline = self.deadline_under(&config.limits);
        self.penalised = self.errors >= config.limits.errors_soft;
    }

    fn deadline_under(&self, limits: &Limits) -> Duration {
        match self.state {
            State::Closed(_) => Duration::MAX,
            State::Verdict { .. } => self.waiting_since.saturating_add(limits.commit_wait),
            State::Data | State::Chunk(_) => {
                let since = Duration::from_micros(self.data_since_us);
                let whole = since.saturating_add(limits.data_time);
                if self.exempt || limits.data_rate_min_bytes == 0 {
                    return whole;
                }
                // `bytes < rate * time` is the same as `time > bytes / rate`.
                let earned = self.block_bytes.saturating_mul(1_000) / limits.data_rate_min_bytes;
                let slow = limits.data_rate_grace.max(Duration::from_millis(earned));
                whole.min(self.block_since.saturating_add(slow))
            }
            State::New | State::Command | State::Line { .. } | State::Auth | State::Asking => {
                let command = self.waiting_since.saturating_add(limits.command_wait);
                if self.exempt {
                    return command;
                }
                command.min(self.started.saturating_add(limits.session_time))
            }
        }
    }

    /// The envelope of the message that just ended; valid from `EndOfMail` until it is resolved.
    pub fn envelope(&self) -> Envelope<'_> {
        let transaction = &self.transaction;
        let mut flags = self.reader.flags(transaction.body, transaction.chunked, self.bytes);
        flags.foreign_author = self.auth.as_ref().is_some_and(|auth| auth.head.foreign);
        transaction.envelope(&self.helo, self.esmtp, flags, self.bytes)
    }

    /// When its connection was accepted.
    pub fn opened(&self) -> Duration {
        self.started
    }

    /// When the present transaction's MAIL came.
    pub fn transaction_began(&self) -> Duration {
        Duration::from_micros(self.mail_since_us)
    }

    /// Answers `EndOfMail`: the message is in the log under `ticket` and not yet synced.
    ///
    /// Its 250 is rendered now and held in [`Replies`]; commands after it continue.
    pub fn resolve_accepted(&mut self, cx: &mut Context<'_>, ticket: u64, id: &dyn Display) {
        let replies = self.final_replies(cx.config);
        if !self.leave_verdict(cx.now) {
            return;
        }
        cx.replies.push_held(ticket, id, replies);
        self.errors = 0;
        self.junk = 0;
        self.settle(cx.config);
    }

    /// Answers `EndOfMail`: the message was not taken.
    pub fn resolve_refused(&mut self, cx: &mut Context<'_>, refusal: Refusal) {
        let replies = self.final_replies(cx.config);
        let State::Verdict { .. } = self.state else { return };
        // Ahead of the end of the transaction, which forgets whose message it was.
        self.note_message(cx, refusal.reply());
        self.leave_verdict(cx.now);
        cx.stats.count_rejected(refusal.code(), refusal.reason());
        cx.push_times(refusal.reply(), replies);
        self.settle(cx.config);
    }

    /// Answers `EndOfMail`: the message is refused for what was found in it. With code 550 it counts
    /// as an error of the client, like any other content that is refused, and may end the session.
    pub fn resolve_rejected(&mut self, cx: &mut Context<'_>, rejection: &Rejection) {
        let replies = self.final_replies(cx.config);
        let State::Verdict { .. } = self.state else { return };
        let (code, enhanced, words) = (rejection.code, rejection.enhanced, rejection.words());
        // Ahead of the end of the transaction, which forgets whose message it was.
        self.note_of(cx, |_| Refused::new("message", code, enhanced, words.clone()));
        self.leave_verdict(cx.now);
        cx.stats.count_rejected(code, RejectReason::Verdict);
        self.errors += u32::from(code >= 500);
        for _ in 0..replies {
            cx.stats.count_reply(code);
            // Writing into a Vec cannot fail.
            let _ = write!(cx.replies.open(), "{code} {enhanced} {words}\r\n");
        }
        if matches!(self.state, State::Command) {
            self.check_patience(cx);
        }
        self.settle(cx.config);
    }

    /// Delay the driver owes this peer before each reply, after too many errors.
    pub fn penalty(&self) -> Duration {
        if self.penalised { Duration::from_secs(1) } else { Duration::ZERO }
    }

    /// Whether the session waits for an answer to `EndOfMail`.
    pub fn is_waiting_for_verdict(&self) -> bool {
        matches!(self.state, State::Verdict { .. })
    }

    /// Whether the driver owes it an answer: until then no further command is read.
    pub fn is_waiting_for_answer(&self) -> bool {
        self.is_waiting_for_verdict() || self.is_waiting_for_auth()
    }

    fn leave_verdict(&mut self, now: Duration) -> bool {
        let State::Verdict { closing } = self.state else {
            return false;
        };
        self.clear_transaction();
        self.waiting_since = now;
        self.state = match closing {
            true => State::Closed(Ending::ClientGone),
            false => State::Command,
        };
        true
    }

    fn idle_event(&self) -> Event {
        match self.state {
            State::Closed(ending) => Event::Close(ending),
            _ => Event::NeedInput,
        }
    }

    /// Forgets sender, recipients and data; says whether octets were handed out for it.
    fn clear_transaction(&mut self) -> bool {
        self.transaction.clear();
        self.offence = None;
        self.bytes = 0;
        self.chunks = 0;
        self.reader = TextReader::default();
        self.header = HeaderCount::default();
        self.forget_forwarded();
        std::mem::take(&mut self.handed_out)
    }

    /// Cancels the transaction in answer to a command.
    fn abort(&mut self) -> Option<Event> {
        self.clear_transaction().then_some(Event::Discard)
    }

    fn close(&mut self, ending: Ending) -> Event {
        self.clear_transaction();
        self.state = State::Closed(ending);
        Event::Close(ending)
    }

    fn close_with(&mut self, cx: &mut Context<'_>, reply: Reply) -> Event {
        if reply.code() >= 400 {
            self.note(cx, reply);
        }
        cx.push(reply);
        self.close(Ending::Refused)
    }

    /// Refuses to go on, and says so in the log.
    fn close_421(
        &mut self,
        cx: &mut Context<'_>,
        enhanced: &'static str,
        text: &'static str,
    ) -> Event {
        self.note_of(cx, |stage| Refused::new(stage, 421, enhanced, text));
        self.end_with_421(cx, Ending::Refused, enhanced, text)
    }

    /// As [`Session::close_421`], where the line of the session's end says enough: it took too long,
    /// or we go.
    fn end_with_421(
        &mut self,
        cx: &mut Context<'_>,
        ending: Ending,
        enhanced: &str,
        text: &str,
    ) -> Event {
        cx.push_421(enhanced, text);
        self.close(ending)
    }

    /// What was refused since the last call.
    pub fn take_refusals(&mut self) -> Option<Box<Refusals>> {
        self.refusals.take()
    }

    /// The name of the last EHLO or HELO; empty before it.
    pub fn helo(&self) -> &str {
        &self.helo
    }
}
