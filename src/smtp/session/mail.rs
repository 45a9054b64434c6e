//! MAIL and RCPT (RFC 5321 §4.1.1.2, §4.1.1.3).

use std::io::Write;
use std::sync::Arc;

use super::super::limits::{Admission, Recipient};
use super::super::param::{self, Offer};
use super::super::path::{self, Path};
use super::super::refused::Refused;
use super::super::reply::{self, Refusal, Reply};
use super::super::stats::RejectReason;
use super::{Context, Ending, Event, Session};

/// Recipients refused for their number before the session ends (Postfix has the same number).
const OVERSHOOT_MAX: u32 = 1_000;

/// Splits `FROM:<path> params`; spaces after the colon are allowed.
fn parse<'a>(
    cx: &mut Context<'_>,
    argument: &'a [u8],
    keyword: &str,
    bad_path: Reply,
) -> Result<Path<'a>, Reply> {
    // RFC 3629: no overlong form, no surrogate, nothing cut or beyond U+10FFFF.
    let argument = str::from_utf8(argument).map_err(|_| reply::BAD_UTF8)?;
    let (word, path) = argument.split_at_checked(keyword.len()).ok_or(reply::BAD_ARGUMENT)?;
    if !word.eq_ignore_ascii_case(keyword) {
        return Err(reply::BAD_ARGUMENT);
    }
    let path = path::parse(path.trim_start_matches(' ')).ok_or(bad_path)?;
    if !path.rest.is_empty() && !path.rest.starts_with(' ') {
        return Err(reply::BAD_ARGUMENT);
    }
    if !path.lenient.is_empty() {
        if cx.config.strict_paths {
            return Err(bad_path);
        }
        path.lenient.iter().for_each(|way| cx.stats.count_lenient(way));
    }
    Ok(path)
}

impl Session {
    pub(super) fn mail(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        if self.helo.is_empty() {
            return self.refuse(cx, Self::hello_first(cx));
        }
        if self.transaction.open {
            return self.refuse(cx, reply::NESTED_MAIL);
        }
        if cx.config.auth.required && !self.is_authenticated() {
            cx.stats.count_rejected(530, RejectReason::Auth);
            return self.refuse(cx, reply::NEEDS_AUTH);
        }
        if cx.admission == Admission::Draining {
            return Some(self.end_with_421(cx, Ending::Draining, "4.3.2", "Shutting down"));
        }
        let limits = &cx.config.limits;
        // RFC 9422 §4.1: every MAIL counts, accepted or not.
        self.messages = self.messages.saturating_add(1);
        if !self.exempt && self.messages > limits.session_messages {
            cx.stats.count_rejected(421, RejectReason::Policy);
            return Some(self.close_421(cx, "4.7.0", "Too many messages in one session"));
        }
        let parsed = parse(cx, argument, "FROM:", reply::BAD_REVERSE_PATH).and_then(|path| {
            if path.no_domain {
                return Err(reply::BAD_REVERSE_PATH);
            }
            let params = param::parse_mail(path.rest, self.offer(cx))?;
            Ok((path, params))
        });
        let (path, params) = match parsed {
            Ok(parsed) => parsed,
            Err(reply) => return self.refuse(cx, reply),
        };
        // RFC 6531 §3.5.
        if !params.smtputf8 && !path.mailbox.is_ascii() {
            return self.refuse(cx, reply::NEEDS_SMTPUTF8);
        }
        if !self.may_send(cx, path.mailbox) {
            cx.stats.count_rejected(553, RejectReason::Policy);
            return self.refuse(cx, reply::NOT_YOUR_SENDER);
        }
        // RFC 1870 §6.1.
        if params.size.is_some_and(|size| size > limits.message_bytes) {
            cx.stats.count_rejected(552, RejectReason::Size);
            return self.refuse(cx, reply::TOO_BIG);
        }
        // RFC 6710 §4: below 0 is what can wait.
        let low = cx.config.low_priority || params.mt_priority.is_some_and(|level| level < 0);
        let refusal = match cx.admission {
            // RFC 1870 §6.1: a temporary shortage is told by 452.
            Admission::Open if params.size.is_some_and(|size| size > cx.room_bytes) => {
                Some(Refusal::DiskFull)
            }
            Admission::OverloadedLow if low => Some(Refusal::OverloadedLow),
            Admission::Overloaded => Some(Refusal::Overloaded),
            Admission::Open | Admission::OverloadedLow | Admission::Draining => None,
            Admission::DiskFull => Some(Refusal::DiskFull),
            Admission::MemoryFull => Some(Refusal::MemoryFull),
            Admission::LogFailed => Some(Refusal::LogFailed),
        };
        if let Some(refusal) = refusal {
            cx.stats.count_rejected(refusal.code(), refusal.reason());
            return self.refuse(cx, refusal.reply());
        }
        self.transaction.begin(path.mailbox);
        self.forget_head();
        self.mail_since_us = super::micros(cx.now);
        self.transaction.keep(&params, self.is_authenticated());
        cx.push(reply::SENDER_OK);
        None
    }

    pub(super) fn rcpt(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        if !self.transaction.open {
            return self.refuse(cx, reply::MAIL_FIRST);
        }
        if self.transaction.chunked {
            return self.refuse(cx, reply::CHUNKING);
        }
        let limits = &cx.config.limits;
        self.rcpts = self.rcpts.saturating_add(1);
        if !self.exempt && self.rcpts > limits.rcpts_per_session {
            cx.stats.count_rejected(421, RejectReason::Policy);
            return Some(self.close_421(cx, "4.7.0", "Too many recipients in one session"));
        }
        let parsed = parse(cx, argument, "TO:", reply::BAD_FORWARD_PATH).and_then(|path| {
            // RFC 5321 §4.5.1: postmaster alone needs no domain. The null path is no recipient.
            let alone = path.no_domain && !path.mailbox.eq_ignore_ascii_case("postmaster");
            if path.mailbox.is_empty() || alone {
                return Err(reply::BAD_FORWARD_PATH);
            }
            let smtputf8 = self.transaction.smtputf8;
            let params = param::parse_rcpt(path.rest, self.offer(cx), smtputf8)?;
            Ok((path, params))
        });
        let (path, params) = match parsed {
            Ok(path) => path,
            Err(reply) => return self.refuse(cx, reply),
        };
        if !self.transaction.smtputf8 && !path.mailbox.is_ascii() {
            return self.refuse(cx, reply::NEEDS_SMTPUTF8);
        }
        // RFC 5321 §4.5.3.1.10: 452, and the recipients so far stay valid. Not counted as an error.
        if self.transaction.recipients() >= limits.recipients_max {
            self.transaction.overshoot += 1;
            if self.transaction.overshoot > OVERSHOOT_MAX {
                cx.stats.count_rejected(421, RejectReason::Recipients);
                return Some(self.close_421(cx, "4.5.3", "Too many recipients"));
            }
            cx.stats.count_rejected(452, RejectReason::Recipients);
            return self.refuse(cx, reply::TOO_MANY_RECIPIENTS);
        }
        if let Some(zone) = self.refused_by.as_deref().cloned()
            && !self.may_relay()
            && !is_postmaster(path.mailbox)
        {
            return self.refuse_listed(cx, &zone);
        }
        if let Some(policy) = &cx.config.recipients
            && !self.may_relay()
        {
            let refusal = match policy.0.judge(path.mailbox) {
                Recipient::Ours => None,
                Recipient::Unknown => Some(reply::NO_SUCH_USER),
                Recipient::Foreign => Some(reply::NO_RELAY),
            };
            if let Some(refusal) = refusal {
                cx.stats.count_rejected(refusal.code(), RejectReason::Policy);
                return self.refuse(cx, refusal);
            }
        }
        self.transaction.add(path.mailbox, params);
        cx.push(reply::RECIPIENT_OK);
        None
    }
    /// Takes no recipient but postmaster from this client, which is on a list: 554 names the zone,
    /// printable ASCII of at most 255 octets.
    pub fn refuse_recipients(&mut self, zone: Arc<str>) {
        self.refused_by = Some(Box::new(zone));
    }

    fn refuse_listed(&mut self, cx: &mut Context<'_>, zone: &str) -> Option<Event> {
        cx.stats.count_rejected(554, RejectReason::Policy);
        cx.stats.count_reply(554);
        self.errors += 1;
        let text = "Service unavailable; client listed by";
        self.note_of(cx, |stage| Refused::new(stage, 554, "5.7.1", format!("{text} {zone}")));
        // Writing into a Vec cannot fail.
        let _ = write!(cx.replies.open(), "554 5.7.1 {text} {zone}\r\n");
        None
    }

    /// Whether this client may send to anybody.
    fn may_relay(&self) -> bool {
        self.is_authenticated()
    }

    fn offer<'a>(&self, cx: &'a Context<'_>) -> Offer<'a> {
        Offer { config: cx.config, esmtp: self.esmtp, under_tls: self.under_tls }
    }
}

/// The mailbox to which errors of ours are reported (RFC 5321 §4.5.1), in any domain.
fn is_postmaster(mailbox: &str) -> bool {
    let local = mailbox.rsplit_once('@').map_or(mailbox, |(local, _)| local);
    local.eq_ignore_ascii_case("postmaster")
}
