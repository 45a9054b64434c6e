//! EHLO and HELO (RFC 5321 §4.1.1.1), LHLO (RFC 2033 §4.1).

use std::io::Write;

use super::super::command::Verb;
use super::super::{extension, reply};
use super::{Context, Event, Session};

/// RFC 5321 §4.5.3.1.2, in octets.
const NAME_BYTES_MAX: usize = 255;

impl Session {
    /// Greets the client by its name, and cancels what was open: a second EHLO acts as RSET.
    pub(super) fn ehlo(&mut self, cx: &mut Context<'_>, name: &[u8], verb: Verb) -> Option<Event> {
        // Anything printable in one word is taken: many clients send names outside the grammar,
        // and RFC 5321 §4.1.4 forbids refusal for a name that cannot be verified. The Received
        // field copies only what the grammar allows.
        let printable = name.iter().all(|octet| matches!(octet, 0x21..=0x7e));
        let name = match str::from_utf8(name) {
            Ok(name) if printable && !name.is_empty() && name.len() <= NAME_BYTES_MAX => name,
            _ if verb == Verb::Lhlo => return self.refuse(cx, reply::BAD_LHLO),
            _ => return self.refuse(cx, reply::BAD_EHLO),
        };
        if !self.helo.is_empty() {
            self.junk += 1;
        }
        if *self.helo != *name {
            self.helo = name.into();
        }
        self.esmtp = verb != Verb::Helo;
        cx.stats.count_reply(250);
        if self.esmtp {
            let client = extension::Client {
                exempt: self.exempt,
                under_tls: self.under_tls,
                authenticated: self.is_authenticated(),
            };
            extension::render_ehlo(cx.config, client, cx.replies.open());
        } else {
            // Writing into a Vec cannot fail.
            let _ = write!(cx.replies.open(), "250 {}\r\n", cx.config.hostname);
        }
        self.abort()
    }
}
