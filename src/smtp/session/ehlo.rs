//! EHLO and HELO (RFC 5321 §4.1.1.1), LHLO (RFC 2033 §4.1).

use std::borrow::Cow;
use std::io::Write;

use super::super::command::Verb;
use super::super::path::{Lenient, is_standard_name};
use super::super::{extension, reply};
use super::{Context, Event, Session};

/// RFC 5321 §4.5.3.1.2, in octets.
const NAME_BYTES_MAX: usize = 255;

/// The name as it was given, where it can be kept. Many clients say what is no domain (`mail_gw`,
/// `my pc`, `büro`), and RFC 5321 §4.1.4 forbids refusal for a name that cannot be verified. What
/// is not UTF-8 has U+FFFD in it instead.
fn given_name(name: &[u8]) -> Option<Cow<'_, str>> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let name = String::from_utf8_lossy(name);
    (!name.chars().any(char::is_control)).then_some(name)
}

impl Session {
    /// Greets the client by its name, and cancels what was open: a second EHLO acts as RSET.
    pub(super) fn ehlo(&mut self, cx: &mut Context<'_>, name: &[u8], verb: Verb) -> Option<Event> {
        let name = match given_name(name) {
            Some(name) if is_standard_name(&name) => name,
            Some(name) if !cx.config.strict_helo => {
                cx.stats.count_lenient(Lenient::Helo);
                name
            }
            _ if verb == Verb::Lhlo => return self.refuse(cx, reply::BAD_LHLO),
            _ => return self.refuse(cx, reply::BAD_EHLO),
        };
        if !self.helo.is_empty() {
            self.junk += 1;
        }
        if *self.helo != *name {
            self.helo = (*name).into();
        }
        self.esmtp = verb != Verb::Helo;
        cx.stats.count_reply(250);
        if self.esmtp {
            let client = extension::Client {
                exempt: self.exempt,
                under_tls: self.under_tls,
                binds_channel: cx.binds_channel,
                authenticated: self.is_authenticated(),
                relays: self.upstream.is_some(),
            };
            extension::render_ehlo(cx.config, client, cx.replies.open());
        } else {
            // Writing into a Vec cannot fail.
            let _ = write!(cx.replies.open(), "250 {}\r\n", cx.config.hostname);
        }
        self.abort()
    }
}
