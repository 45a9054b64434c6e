//! STARTTLS (RFC 3207).

use super::super::command::Verb;
use super::super::limits::TlsPolicy;
use super::super::reply;
use super::{Context, Event, Session};

impl Session {
    /// Whether what is said from now on is said under TLS.
    pub fn is_under_tls(&self) -> bool {
        self.under_tls
    }

    /// Answers 220 and forgets the client, or says why not.
    pub(super) fn starttls(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        let refused = if cx.config.tls == TlsPolicy::Off {
            Some(reply::NOT_IMPLEMENTED)
        } else if self.under_tls {
            Some(reply::UNDER_TLS)
        } else if self.transaction.open {
            Some(reply::IN_TRANSACTION)
        } else if !argument.is_empty() {
            Some(reply::NO_ARGUMENT)
        } else if cx.handshakes_full {
            Some(reply::TLS_BUSY)
        } else {
            None
        };
        if let Some(reply) = refused {
            return self.refuse(cx, reply);
        }
        cx.push(reply::START_TLS);
        // RFC 3207 §4.2: what was learned in the clear, its name included, may be forged.
        self.clear_transaction();
        self.helo = Box::default();
        self.auth = None;
        self.esmtp = false;
        self.odd_line = false;
        self.under_tls = true;
        Some(Event::StartTls)
    }

    /// Whether this command would begin TLS.
    pub(super) fn starts_tls(&self, cx: &Context<'_>, verb: Verb) -> bool {
        verb == Verb::Starttls && !self.under_tls && cx.config.tls != TlsPolicy::Off
    }

    /// Whether TLS is demanded and not there.
    pub(super) fn lacks_tls(&self, cx: &Context<'_>) -> bool {
        cx.config.tls == TlsPolicy::Required && !self.under_tls
    }

    /// RFC 3207 §4: what a client may say before the TLS that is demanded of it. BDAT gets the same
    /// answer once its octets have been read.
    pub(super) fn needs_tls(&self, cx: &Context<'_>, verb: Verb) -> bool {
        self.lacks_tls(cx)
            && !matches!(
                verb,
                Verb::Noop
                    | Verb::Ehlo
                    | Verb::Lhlo
                    | Verb::Starttls
                    | Verb::Quit
                    | Verb::Bdat
                    | Verb::Http
            )
    }
}
