//! AUTH (RFC 4954): under TLS only, once in a session, outside of transactions.
//!
//! Of a failed exchange only the user's name is logged, and no type here shows a secret.

use std::io::Write;

use super::super::command::Verb;
use super::super::line::{self, Line};
use super::super::refused::{self, Refused};
use super::super::reply::{self, Reply};
use super::super::sasl::{self, AuthAnswer, AuthQuestion, Exchange, Mechanism, Next};
use super::super::stats::{AuthResult, ProtocolError, RejectReason};
use super::submission::Head;
use super::{Context, Event, Progress, Session, State};

/// Longest response in octets without CRLF (RFC 4954 §4). The AUTH command itself is a command line
/// like any other.
const RESPONSE_BYTES_MAX: usize = 12_288;

/// To an address from which too many attempts failed.
pub(super) const BLOCKED: &str = "Too many failed authentications, try again later";

/// What a session keeps of AUTH from the first one on.
#[derive(Debug, Default)]
pub(super) struct AuthState {
    failures: u32,
    /// A failure that the driver has not taken yet.
    failed: bool,
    exchange: Option<Exchange>,
    question: Option<AuthQuestion>,
    identity: Option<(Mechanism, Box<str>)>,
    /// Whom the exchange at hand was asked about.
    asked: Box<str>,
    /// Where the listener says as whom users may send.
    pub(super) head: Head,
}

impl Session {
    /// Whether AUTH has succeeded, here or where XCLIENT says so.
    pub fn is_authenticated(&self) -> bool {
        self.auth_user().is_some()
    }

    /// Who the client has proved to be.
    pub fn auth_user(&self) -> Option<&str> {
        self.identity().map(|(_, user)| &**user).or_else(|| self.told_login())
    }

    /// How it did so; `None` also where only XCLIENT says so.
    pub fn auth_mechanism(&self) -> Option<Mechanism> {
        self.identity().map(|(mechanism, _)| *mechanism)
    }

    fn identity(&self) -> Option<&(Mechanism, Box<str>)> {
        self.auth.as_ref()?.identity.as_ref()
    }

    /// What [`Event::Authenticate`] asks; given once.
    pub fn auth_question(&mut self) -> Option<AuthQuestion> {
        self.auth.as_mut()?.question.take()
    }

    /// Whether the session waits for the answer to [`Event::Authenticate`].
    pub fn is_waiting_for_auth(&self) -> bool {
        matches!(self.state, State::Asking)
    }

    /// Whether an AUTH has failed for its credentials since the last call.
    pub fn take_auth_failure(&mut self) -> bool {
        self.auth.as_mut().is_some_and(|auth| std::mem::take(&mut auth.failed))
    }

    /// Answers [`Event::Authenticate`]; call [`Session::handle_input`] afterwards. An answer that
    /// is not awaited does nothing.
    pub fn resolve_auth(&mut self, cx: &mut Context<'_>, answer: AuthAnswer) {
        if !self.is_waiting_for_auth() {
            return;
        }
        self.state = State::Command;
        self.waiting_since = cx.now;
        let exchange = self.auth.as_mut().and_then(|auth| auth.exchange.as_mut());
        let next = exchange.map_or(Next::Unavailable, |exchange| exchange.answer(answer));
        if self.proceed(cx, next).is_none() {
            self.check_patience(cx);
        }
        self.settle(cx.config);
    }

    /// Whether this command would begin an exchange.
    pub(super) fn starts_auth(&self, cx: &Context<'_>, verb: Verb) -> bool {
        verb == Verb::Auth
            && self.under_tls
            && cx.config.auth.is_offered()
            && !self.is_authenticated()
    }

    pub(super) fn auth(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        let refused = if !cx.config.auth.is_offered() {
            Some(reply::NOT_IMPLEMENTED)
        } else if !self.under_tls {
            Some(reply::AUTH_NEEDS_TLS)
        } else if self.helo.is_empty() || !self.esmtp {
            Some(reply::EHLO_FIRST)
        } else if self.is_authenticated() {
            Some(reply::AUTH_AGAIN)
        } else if self.transaction.open {
            Some(reply::AUTH_IN_MAIL)
        } else {
            None
        };
        if let Some(reply) = refused {
            return self.refuse(cx, reply);
        }
        let failures = self.auth.as_ref().map_or(0, |auth| auth.failures);
        if failures >= cx.config.limits.auth_failures {
            cx.stats.count_rejected(421, RejectReason::Auth);
            return Some(self.close_421(cx, "4.7.0", "Too many failed authentications"));
        }
        let (name, initial) = match argument.iter().position(|octet| *octet == b' ') {
            Some(at) => {
                let (name, initial) = argument.split_at(at);
                (name, Some(initial.trim_ascii_start()))
            }
            None => (argument, None),
        };
        if name.is_empty() || initial.is_some_and(|initial| initial.contains(&b' ')) {
            return self.refuse(cx, reply::BAD_ARGUMENT);
        }
        let auth = &cx.config.auth;
        let mechanism = match Mechanism::parse(name) {
            Some(mechanism) if auth.offers(mechanism, cx.binds_channel) => mechanism,
            // RFC 4954 §6: weaker than what is asked for here.
            Some(weak)
                if weak.tells_password() && (auth.scram_sha_256 || auth.scram_sha_256_plus) =>
            {
                return self.refuse(cx, reply::WEAK_MECHANISM);
            }
            _ => return self.refuse(cx, reply::UNKNOWN_MECHANISM),
        };
        let offers_plus = auth.offers(Mechanism::ScramSha256Plus, cx.binds_channel);
        let exchange = Exchange::new(mechanism, offers_plus);
        let opening = exchange.opening();
        self.auth.get_or_insert_default().exchange = Some(exchange);
        match initial {
            None => self.challenge(cx, opening),
            // RFC 4954 §4: an empty initial response.
            Some(b"=") => self.respond(cx, b""),
            Some(text) => self.response(cx, text),
        }
    }

    /// Takes one line of an exchange.
    pub(super) fn step_auth(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Progress {
        if cx.replies.unsent() >= cx.config.limits.unsent_replies_bytes {
            return (0, Some(Event::NeedInput));
        }
        let max = RESPONSE_BYTES_MAX + 2;
        match line::next(input, max) {
            Line::Whole { line, used } => {
                self.waiting_since = cx.now;
                if used < input.len() {
                    // RFC 2920 §3.1, as behind AUTH itself: a reply is to be waited for.
                    cx.stats.count_error(ProtocolError::EarlyTalker);
                    return (input.len(), Some(self.close_with(cx, reply::EARLY_TALKER)));
                }
                self.state = State::Command;
                let event = if line == b"*" {
                    self.give_up(cx, AuthResult::Aborted, reply::AUTH_CANCELLED)
                } else {
                    self.response(cx, line)
                };
                (used, event.or_else(|| self.check_patience(cx)))
            }
            Line::Partial => (0, Some(Event::NeedInput)),
            Line::BareLf => self.bare_lf(cx, input),
            Line::TooLong => {
                self.give_up(cx, AuthResult::Aborted, reply::AUTH_LINE_TOO_LONG);
                self.discard_line(cx, input, max)
            }
        }
    }

    /// Takes a response in base64.
    fn response(&mut self, cx: &mut Context<'_>, text: &[u8]) -> Option<Event> {
        match sasl::decode(text) {
            Some(octets) => self.respond(cx, &octets),
            None => self.give_up(cx, AuthResult::Aborted, reply::BAD_AUTH),
        }
    }

    fn respond(&mut self, cx: &mut Context<'_>, response: &[u8]) -> Option<Event> {
        let exchange = self.auth.as_mut().and_then(|auth| auth.exchange.as_mut());
        let next = exchange.map_or(Next::Unavailable, |exchange| exchange.respond(response));
        self.proceed(cx, next)
    }

    fn proceed(&mut self, cx: &mut Context<'_>, next: Next) -> Option<Event> {
        match next {
            Next::Challenge(text) => self.challenge(cx, &text),
            Next::Ask(question) => {
                let auth = self.auth.get_or_insert_default();
                auth.asked = match &question {
                    AuthQuestion::Password { user, .. } | AuthQuestion::Credential { user, .. } => {
                        refused::cut(user)
                    }
                    AuthQuestion::Subject => Box::default(),
                };
                auth.question = Some(question);
                self.state = State::Asking;
                Some(Event::Authenticate)
            }
            Next::Done(user) => {
                let auth = self.auth.get_or_insert_default();
                if let Some(exchange) = auth.exchange.take() {
                    cx.stats.count_auth(exchange.mechanism(), AuthResult::Ok);
                    auth.identity = Some((exchange.mechanism(), user.into()));
                    cx.push(reply::AUTHENTICATED);
                }
                None
            }
            Next::Refused => {
                let auth = self.auth.get_or_insert_default();
                auth.failures += 1;
                auth.failed = true;
                let login = Some(std::mem::take(&mut auth.asked));
                if cx.notes.keeps_login() {
                    let line = reply::BAD_CREDENTIALS.line();
                    let refused = Refused { login, ..Refused::of(Verb::Auth.name(), line) };
                    self.refusals.get_or_insert_default().note(refused);
                }
                // Said above already.
                self.stage = None;
                self.give_up(cx, AuthResult::Failed, reply::BAD_CREDENTIALS)
            }
            Next::Malformed => self.give_up(cx, AuthResult::Aborted, reply::BAD_AUTH),
            Next::Unavailable => self.give_up(cx, AuthResult::Unavailable, reply::AUTH_UNAVAILABLE),
            Next::Blocked => {
                self.end_exchange(cx, AuthResult::Unavailable);
                cx.stats.count_rejected(421, RejectReason::Auth);
                Some(self.close_421(cx, "4.7.0", BLOCKED))
            }
        }
    }

    fn challenge(&mut self, cx: &mut Context<'_>, text: &[u8]) -> Option<Event> {
        cx.stats.count_reply(334);
        // Writing into a Vec cannot fail.
        let _ = write!(cx.replies.open(), "334 {}\r\n", sasl::encode(text));
        self.state = State::Auth;
        None
    }

    fn give_up(&mut self, cx: &mut Context<'_>, result: AuthResult, reply: Reply) -> Option<Event> {
        self.end_exchange(cx, result);
        self.refuse(cx, reply)
    }

    fn end_exchange(&mut self, cx: &mut Context<'_>, result: AuthResult) {
        if let Some(exchange) = self.auth.as_mut().and_then(|auth| auth.exchange.take()) {
            cx.stats.count_auth(exchange.mechanism(), result);
        }
    }
}
