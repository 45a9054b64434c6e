//! Octets between messages: lines of commands, and which command each is.

use super::{
    super::{
        command::{self, Verb},
        line::{self, Line},
        reply,
        stats::{ProtocolError, RejectReason},
    },
    Context, Event, Progress, Session, State,
};

impl Session {
    pub(super) fn step_new(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Progress {
        if input.is_empty() {
            return (0, Some(Event::NeedInput));
        }
        if !cx.config.greet_check {
            // RFC 5321 §4.3.1 lets us bear it: the octets wait for the greeting.
            return (0, Some(Event::NeedInput));
        }
        cx.stats.count_error(ProtocolError::EarlyTalker);
        (input.len(), Some(self.close_with(cx, reply::EARLY_TALKER)))
    }

    pub(super) fn step_command(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Progress {
        let limits = &cx.config.limits;
        if cx.replies.unsent() >= limits.unsent_replies_bytes {
            return (0, Some(Event::NeedInput));
        }
        // A TLS hello, RDP or SMB: no line end need ever come. CR and LF are for the line reader.
        if let Some(0..=0x08 | 0x0b | 0x0c | 0x0e..=0x1f) = input.first() {
            cx.stats.count_error(ProtocolError::BadSyntax);
            self.stage = Some(Verb::Unknown);
            let event = self.close_with(cx, reply::NOT_SMTP);
            let kept = self.refusals.as_mut().and_then(|all| all.list.last_mut());
            if let Some(refused) = kept.filter(|_| input.starts_with(&[0x16, 0x03])) {
                refused.detail = "a TLS handshake where the session begins in the clear";
            }
            return (input.len(), Some(event));
        }
        match line::next(input, limits.command_line_bytes) {
            Line::Whole { line, used } => {
                self.waiting_since = cx.now;
                let event = self.command(cx, line, used < input.len());
                (used, event.or_else(|| self.check_patience(cx)))
            }
            Line::Partial => (0, Some(Event::NeedInput)),
            Line::BareLf => self.bare_lf(cx, input),
            Line::TooLong => {
                self.errors += 1;
                cx.push(reply::LINE_TOO_LONG);
                self.discard_line(cx, input, limits.command_line_bytes)
            }
        }
    }

    /// Where the next command begins is a matter of opinion after a bare LF, so there is none.
    pub(super) fn bare_lf(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Progress {
        cx.stats.count_error(ProtocolError::BareLf);
        (input.len(), Some(self.close_with(cx, reply::BARE_LF)))
    }

    /// Passes over a line that is too long, up to its end.
    pub(super) fn discard_line(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        used: usize,
    ) -> Progress {
        cx.stats.count_error(ProtocolError::LineTooLong);
        let after_cr = used.checked_sub(1).and_then(|last| input.get(last)) == Some(&b'\r');
        self.state = State::Line { discarded: 0, after_cr };
        (used, None)
    }

    pub(super) fn step_line(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        discarded: u32,
        after_cr: bool,
    ) -> Progress {
        let Some(last) = input.last() else {
            return (0, Some(Event::NeedInput));
        };
        let room = cx.config.limits.discard_line_bytes.saturating_sub(discarded as usize);
        let end = line::past_crlf(input, after_cr);
        if end.unwrap_or(input.len()) > room {
            return (input.len(), Some(self.close_421(cx, "4.7.0", "Line without end")));
        }
        match end {
            Some(end) => {
                self.state = State::Command;
                self.waiting_since = cx.now;
                (end, self.check_patience(cx))
            }
            None => {
                let discarded = discarded + input.len() as u32;
                self.state = State::Line { discarded, after_cr: *last == b'\r' };
                (input.len(), Some(Event::NeedInput))
            }
        }
    }

    /// Ends the session after too many errors or too much junk.
    pub(super) fn check_patience(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        let limits = &cx.config.limits;
        let text = if self.errors >= limits.errors_hard {
            "Too many errors"
        } else if self.junk > limits.junk_max {
            "Too many commands without a message"
        } else {
            return None;
        };
        cx.stats.count_rejected(421, RejectReason::Policy);
        Some(self.close_421(cx, "4.7.0", text))
    }

    /// Runs one command line; `behind` says that more octets were already received after it.
    pub(super) fn command(
        &mut self,
        cx: &mut Context<'_>,
        line: &[u8],
        behind: bool,
    ) -> Option<Event> {
        let line = line::trim_end(line);
        let (verb, rest) = command::split(line);
        cx.stats.count_command(verb);
        self.stage = Some(verb);
        if let Some(refused) = self.not_spoken(cx, verb) {
            return self.refuse(cx, refused);
        }
        let last = verb.ends_group() || self.starts_tls(cx, verb);
        if behind && (last || self.starts_auth(cx, verb)) {
            // RFC 2920 §3.1: EHLO and DATA can only be the last command of a group. So can AUTH
            // (RFC 4954 §4), and STARTTLS (RFC 3207 §4): somebody on the way may have put there
            // what stands behind it.
            cx.stats.count_error(ProtocolError::EarlyTalker);
            return Some(self.close_with(cx, reply::EARLY_TALKER));
        }
        if verb == Verb::Unknown {
            return self.unknown(cx, line);
        }
        if line::has_control(rest) {
            let refused = match verb {
                Verb::Ehlo | Verb::Helo => reply::BAD_EHLO,
                Verb::Lhlo => reply::BAD_LHLO,
                _ => reply::BAD_ARGUMENT,
            };
            return self.refuse(cx, refused);
        }
        if self.needs_tls(cx, verb) {
            return self.refuse(cx, reply::NEEDS_TLS);
        }
        let argument = rest.trim_ascii_start();
        let event = match verb {
            Verb::Mail => self.mail(cx, argument),
            Verb::Rcpt => self.rcpt(cx, argument),
            Verb::Data => self.data(cx, argument),
            Verb::Bdat => self.bdat(cx, argument),
            Verb::Ehlo | Verb::Helo | Verb::Lhlo => self.ehlo(cx, argument, verb),
            Verb::Rset => self.rset(cx, argument),
            Verb::Quit => self.quit(cx, argument),
            Verb::Noop => self.junk(cx, reply::OK),
            Verb::Help => self.help(cx),
            Verb::Vrfy => self.vrfy(cx, argument),
            Verb::Starttls => self.starttls(cx, argument),
            Verb::Xclient => self.xclient(cx, argument),
            Verb::Xforward => self.xforward(cx, argument),
            Verb::Auth => self.auth(cx, argument),
            Verb::Retired => self.refuse(cx, reply::NOT_IMPLEMENTED),
            // ALPACA: a browser made to talk to us must get nothing done, and no reflection.
            Verb::Http => Some(self.close_421(cx, "4.7.0", "This is not a web server")),
            Verb::Unknown => None,
        };
        if self.refusals.is_some() {
            self.note_path(verb, argument);
        }
        event
    }
}
