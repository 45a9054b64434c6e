//! RSET, QUIT, VRFY, NOOP, HELP, and lines that are not a command.

use super::super::limits::Protocol;
use super::super::reply::{self, Reply};
use super::{Context, Ending, Event, Session};

impl Session {
    /// RFC 5321 §4.1.1.5: forgets the transaction and nothing else.
    pub(super) fn rset(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        if !argument.is_empty() {
            return self.refuse(cx, reply::NO_ARGUMENT);
        }
        self.junk(cx, reply::OK);
        self.abort()
    }

    /// RFC 5321 §4.1.1.10.
    pub(super) fn quit(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        if !argument.is_empty() {
            return self.refuse(cx, reply::NO_ARGUMENT);
        }
        cx.push(reply::BYE);
        Some(self.close(Ending::Quit))
    }

    /// RFC 5321 §3.5.3: nothing is looked up, whatever the octets.
    pub(super) fn vrfy(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        if argument.is_empty() {
            return self.refuse(cx, reply::BAD_ARGUMENT);
        }
        self.junk(cx, reply::CANNOT_VERIFY)
    }

    /// RFC 5321 §4.1.1.8.
    pub(super) fn help(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        let lmtp = cx.config.protocol == Protocol::Lmtp;
        self.junk(cx, if lmtp { reply::HELP_LMTP } else { reply::HELP })
    }

    /// Answers a command that moves no message.
    pub(super) fn junk(&mut self, cx: &mut Context<'_>, reply: Reply) -> Option<Event> {
        self.junk += 1;
        cx.push(reply);
        None
    }

    /// Answers a line that is no command.
    pub(super) fn unknown(&mut self, cx: &mut Context<'_>, line: &[u8]) -> Option<Event> {
        match line.first() {
            None => self.junk += 1,
            Some(first) if !first.is_ascii_alphabetic() => {
                // Once may be a slip; twice is another protocol.
                if std::mem::replace(&mut self.odd_line, true) {
                    return Some(self.close_421(cx, "4.7.0", "This is not SMTP"));
                }
            }
            Some(_) => {}
        }
        self.refuse(cx, reply::UNKNOWN_COMMAND)
    }
}
