//! Where LMTP (RFC 2033) and a listener that accepts no mail (RFC 7504) differ from SMTP.

use std::io::Write;

use super::super::command::Verb;
use super::super::limits::{Config, Protocol};
use super::super::reply::{self, Reply};
use super::super::stats::RejectReason;
use super::{Context, Session};

impl Session {
    /// Greets, or says that no mail is taken here.
    pub(super) fn welcome(cx: &mut Context<'_>) {
        let (code, text) = match cx.config.protocol {
            Protocol::Smtp => (220, "ESMTP Mailrace"),
            Protocol::Lmtp => (220, "LMTP Mailrace"),
            // RFC 7504 §3.2: the session goes on until the client says QUIT.
            Protocol::Refuse => {
                cx.stats.count_rejected(521, RejectReason::Policy);
                (521, "does not accept mail")
            }
        };
        cx.stats.count_reply(code);
        // Writing into a Vec cannot fail.
        let _ = write!(cx.replies.open(), "{code} {} {text}\r\n", cx.config.hostname);
    }

    /// The refusal of a verb that is not part of what this listener speaks.
    pub(super) fn not_spoken(&self, cx: &Context<'_>, verb: Verb) -> Option<Reply> {
        match (cx.config.protocol, verb) {
            // RFC 2033 §4.1: LHLO in place of HELO and EHLO, which get 500.
            (Protocol::Lmtp, Verb::Ehlo | Verb::Helo) | (Protocol::Smtp, Verb::Lhlo) => {
                Some(reply::UNKNOWN_COMMAND)
            }
            (Protocol::Refuse, verb) if !matches!(verb, Verb::Quit | Verb::Http) => {
                Some(reply::NO_MAIL)
            }
            _ => None,
        }
    }

    /// Replies that the end of the message at hand is owed: with LMTP one for each recipient that
    /// was accepted, a repeated one included (RFC 2033 §4.2).
    pub(super) fn final_replies(&self, config: &Config) -> usize {
        match config.protocol {
            Protocol::Lmtp => self.transaction.recipients(),
            Protocol::Smtp | Protocol::Refuse => 1,
        }
    }

    /// What to say to a client that has not said who it is.
    pub(super) fn hello_first(cx: &Context<'_>) -> Reply {
        match cx.config.protocol {
            Protocol::Lmtp => reply::LHLO_FIRST,
            Protocol::Smtp | Protocol::Refuse => reply::EHLO_FIRST,
        }
    }
}
