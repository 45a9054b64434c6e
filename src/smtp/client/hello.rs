//! From the greeting to where mail can be sent.
//!
//! ```text
//!   Handshake (implicit TLS)
//!       |
//!  --> Greeting -> Hello -> StartTls -> Handshake -> Hello -> Auth -> Ready
//!                    |
//!                    +-> OldHello (HELO) -----------------------------> Ready
//! ```

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    offer::Offer,
    reply::{Line, Reply},
};

/// How a client presents itself.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    /// LHLO instead of EHLO, and no HELO (RFC 2033 §4.1).
    pub lmtp: bool,
    /// Argument of EHLO, HELO or LHLO.
    pub name: &'a str,
    /// TLS by STARTTLS, or no session at all.
    pub starttls: bool,
    /// Initial response of AUTH PLAIN, see [`plain_response`]; `None`: no login.
    pub plain: Option<&'a str>,
}

/// Initial response of AUTH PLAIN (RFC 4616 §2).
#[must_use]
pub fn plain_response(user: &str, password: &str) -> String {
    STANDARD.encode(format!("\0{user}\0{password}"))
}

/// What the client waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// The server's greeting.
    #[default]
    Greeting,
    /// The reply to EHLO or LHLO.
    Hello,
    /// The reply to HELO, for a server that does not know EHLO.
    OldHello,
    /// The reply to STARTTLS.
    StartTls,
    /// The TLS handshake, which is the caller's: then [`Hello::handle_secured`].
    Handshake,
    /// The reply to AUTH.
    Auth,
    /// Nothing: mail can be sent.
    Ready,
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The reply that this step waited for was not the one that leads on.
    Refused(Step),
    /// STARTTLS is required, and not offered.
    NoStartTls,
    /// A password goes through TLS or not at all (RFC 4954 §4, RFC 4616).
    NoTlsForAuth,
    /// AUTH PLAIN is required, and not offered.
    NoAuthPlain,
}

/// See the module's page. Feed it every reply line until it is [`Step::Ready`].
#[derive(Clone, Debug, Default)]
pub struct Hello {
    step: Step,
    secure: bool,
    /// A line of the reply to EHLO has come: the one that names the server.
    named: bool,
    offer: Offer,
}

impl Hello {
    /// A connection that has just been made; `secure` where it is under TLS already.
    #[must_use]
    pub fn new(secure: bool) -> Self {
        Self { secure, ..Self::default() }
    }

    /// A connection that begins with the TLS handshake (RFC 8314 §3).
    #[must_use]
    pub fn before_tls() -> Self {
        Self { step: Step::Handshake, ..Self::default() }
    }

    /// What it waits for.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// The connection is under TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// What the server offers; nothing after HELO.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// TLS is established. All that the server said before is forgotten (RFC 3207 §4.2).
    pub fn handle_secured(&mut self, manner: &Manner<'_>, out: &mut Vec<u8>) {
        debug_assert_eq!(self.step, Step::Handshake);
        // Only a connection that began with the handshake has not been secured in mid-session.
        let greeted = std::mem::take(&mut self.named);
        *self = Self::new(true);
        if greeted {
            self.say_hello(manner, out);
        }
    }

    /// Takes a whole reply, as [`Self::handle_line`] takes its lines.
    ///
    /// # Errors
    /// As [`Self::handle_line`].
    pub fn handle_reply(
        &mut self,
        reply: &Reply,
        manner: &Manner<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let last = reply.lines.len().saturating_sub(1);
        for (at, text) in reply.lines.iter().enumerate() {
            let line = Line { code: reply.code, is_final: at == last, text: text.as_bytes() };
            self.handle_line(line, manner, out)?;
        }
        Ok(())
    }

    /// Takes a reply line; appends the command that follows to `out`.
    ///
    /// # Errors
    /// There will be no session: with the last line of a reply alone.
    pub fn handle_line(
        &mut self,
        line: Line<'_>,
        manner: &Manner<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        // RFC 5321 §4.1.1.1: the keywords follow the line that names the server.
        if self.step == Step::Hello && line.code == 250 && std::mem::replace(&mut self.named, true)
        {
            self.offer.note(&String::from_utf8_lossy(line.text));
        }
        if !line.is_final {
            return Ok(());
        }
        match (self.step, line.code) {
            (Step::Greeting, 220) => self.say_hello(manner, out),
            (Step::Hello | Step::OldHello, 250) => return self.after_hello(manner, out),
            // RFC 5321 §4.1.1.1: the old greeting for servers that know no other.
            (Step::Hello, 500 | 502) if !manner.lmtp => {
                say(out, "HELO", manner.name);
                self.step = Step::OldHello;
            }
            (Step::StartTls, 220) => self.step = Step::Handshake,
            (Step::Auth, 235) => self.step = Step::Ready,
            (step, _) => return Err(Failure::Refused(step)),
        }
        Ok(())
    }

    fn say_hello(&mut self, manner: &Manner<'_>, out: &mut Vec<u8>) {
        say(out, if manner.lmtp { "LHLO" } else { "EHLO" }, manner.name);
        self.step = Step::Hello;
        self.named = false;
    }

    fn after_hello(&mut self, manner: &Manner<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        if manner.starttls && !self.secure {
            if !self.offer.starttls {
                return Err(Failure::NoStartTls);
            }
            out.extend_from_slice(b"STARTTLS\r\n");
            self.step = Step::StartTls;
            return Ok(());
        }
        let Some(response) = manner.plain else {
            self.step = Step::Ready;
            return Ok(());
        };
        if !self.secure {
            return Err(Failure::NoTlsForAuth);
        }
        if !self.offer.auth_plain {
            return Err(Failure::NoAuthPlain);
        }
        // RFC 4954 §4: the initial response saves a round trip.
        say(out, "AUTH PLAIN", response);
        self.step = Step::Auth;
        Ok(())
    }
}

fn say(out: &mut Vec<u8>, verb: &str, argument: &str) {
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{verb} {argument}\r\n");
}
