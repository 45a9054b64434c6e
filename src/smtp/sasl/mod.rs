//! SASL mechanisms (RFC 4422), server side, as small state machines: decoded responses and answers
//! in, challenges and outcomes out. A mechanism that needs a password file, a certificate or a
//! random number asks for it.
//!
//! ```text
//!   PLAIN     response --> ask Password ----------------------------------------> Done
//!   LOGIN     response --> challenge --> response --> ask Password -------------> Done
//!   EXTERNAL  response --> ask Subject -----------------------------------------> Done
//!   SCRAM     response --> ask Credential --> challenge --> response
//!                                         --> challenge (v=) --> empty response -> Done
//! ```

mod password;
mod scram;

#[cfg(test)]
pub(crate) use scram::prove;

pub use scram::{Nonce, ScramCredential};

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

use self::scram::Scram;

/// Longest name of a user in octets, decoded (RFC 4616 §2 wants no less).
const USER_BYTES_MAX: usize = 255;

/// A mechanism of AUTH, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 7677, bound to the TLS channel (RFC 9266).
    ScramSha256Plus,
    /// RFC 7677.
    ScramSha256,
    /// By the client certificate (RFC 4422 appendix A).
    External,
    /// RFC 4616.
    Plain,
    /// The de-facto one.
    Login,
}

impl Mechanism {
    /// Every mechanism, in the order of their counters and of EHLO's list.
    pub const ALL: [Self; 5] =
        [Self::ScramSha256Plus, Self::ScramSha256, Self::External, Self::Plain, Self::Login];

    /// Its registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::External => "EXTERNAL",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// Finds a mechanism by its name; case does not matter (RFC 4954 §4).
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The client sends its password as it is.
    pub(crate) const fn tells_password(self) -> bool {
        matches!(self, Self::Plain | Self::Login)
    }
}

/// What a session wants to know during AUTH.
#[derive(Clone, PartialEq, Eq)]
pub enum AuthQuestion {
    /// Is this the password of this user?
    Password {
        /// As the client wrote it.
        user: String,
        /// As the client wrote it; never logged.
        password: String,
    },
    /// What is the credential of this user?
    Credential {
        /// As the client wrote it.
        user: String,
        /// The data of the TLS channel binding `tls-exporter` are wanted as well.
        binding: bool,
    },
    /// Who does the client's verified certificate say it is?
    Subject,
}

impl fmt::Debug for AuthQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Credential { .. } => "Credential",
            Self::Subject => "Subject",
        })
    }
}

/// The answer to an [`AuthQuestion`].
#[derive(Clone, PartialEq, Eq)]
pub enum AuthAnswer {
    /// Whether it is the password.
    Password(bool),
    /// The credential; for an unknown user one that is made up, the same each time.
    Credential {
        /// See [`ScramCredential`].
        credential: ScramCredential,
        /// Random, of this exchange alone.
        nonce: Nonce,
        /// The channel binding data; empty: there are none.
        binding: Vec<u8>,
    },
    /// Who it is; `None`: it has no certificate.
    Subject(Option<String>),
    /// It cannot be found out at present: 454 4.7.0.
    Unavailable,
    /// Too many attempts came from the client's address: 421 4.7.0, and the session ends.
    Blocked,
}

impl fmt::Debug for AuthAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password",
            Self::Credential { .. } => "Credential",
            Self::Subject(_) => "Subject",
            Self::Unavailable => "Unavailable",
            Self::Blocked => "Blocked",
        })
    }
}

/// What comes next in an exchange.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send this challenge, not yet in base64.
    Challenge(Vec<u8>),
    /// Find this out.
    Ask(AuthQuestion),
    /// The client is who it says: the user.
    Done(String),
    /// It is not, or may not be: 535.
    Refused,
    /// No message of this mechanism: 501.
    Malformed,
    /// 454.
    Unavailable,
    /// 421.
    Blocked,
}

/// One exchange, from AUTH to its end.
#[derive(Debug)]
pub(crate) struct Exchange {
    mechanism: Mechanism,
    offers_plus: bool,
    step: Step,
}

enum Step {
    /// The client has said nothing yet.
    First,
    /// LOGIN: the user is known.
    Login(String),
    /// A password was asked about.
    Password(String),
    /// EXTERNAL: who the client wants to be; empty: the owner of the certificate.
    Subject(String),
    Scram(Box<Scram>),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Step")
    }
}

impl Exchange {
    /// `offers_plus`: the list of mechanisms has SCRAM-SHA-256-PLUS.
    pub(crate) fn new(mechanism: Mechanism, offers_plus: bool) -> Self {
        Self { mechanism, offers_plus, step: Step::First }
    }

    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The challenge to a client that gave no initial response.
    pub(crate) fn opening(&self) -> &'static [u8] {
        // The prompts of LOGIN are fixed: some clients look for them.
        if self.mechanism == Mechanism::Login { b"Username:" } else { b"" }
    }

    /// Takes a decoded response.
    pub(crate) fn respond(&mut self, response: &[u8]) -> Next {
        match &mut self.step {
            Step::First => self.first(response),
            Step::Login(user) => {
                let user = std::mem::take(user);
                let Some(password) = password::word(response) else { return Next::Malformed };
                self.step = Step::Password(user.clone());
                Next::Ask(AuthQuestion::Password { user, password })
            }
            Step::Scram(scram) => scram.respond(response),
            // An answer is owed, and no response read.
            Step::Password(_) | Step::Subject(_) => Next::Malformed,
        }
    }

    fn first(&mut self, response: &[u8]) -> Next {
        match self.mechanism {
            Mechanism::Plain => match password::plain(response) {
                Some(plain) if !plain.acts_for_another => {
                    self.step = Step::Password(plain.user.clone());
                    Next::Ask(AuthQuestion::Password { user: plain.user, password: plain.password })
                }
                Some(_) => Next::Refused,
                None => Next::Malformed,
            },
            Mechanism::Login => match password::user(response) {
                Some(user) => {
                    self.step = Step::Login(user);
                    Next::Challenge(b"Password:".to_vec())
                }
                None => Next::Malformed,
            },
            Mechanism::External => match str::from_utf8(response) {
                Ok(wanted) if !wanted.contains('\0') => {
                    self.step = Step::Subject(wanted.to_owned());
                    Next::Ask(AuthQuestion::Subject)
                }
                _ => Next::Malformed,
            },
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                let plus = self.mechanism == Mechanism::ScramSha256Plus;
                match Scram::begin(response, plus, self.offers_plus) {
                    Ok((scram, question)) => {
                        self.step = Step::Scram(Box::new(scram));
                        Next::Ask(question)
                    }
                    Err(next) => next,
                }
            }
        }
    }

    /// Takes the answer to the question asked last.
    pub(crate) fn answer(&mut self, answer: AuthAnswer) -> Next {
        match (&mut self.step, answer) {
            (_, AuthAnswer::Blocked) => Next::Blocked,
            (Step::Password(user), AuthAnswer::Password(true)) => Next::Done(std::mem::take(user)),
            (Step::Password(_), AuthAnswer::Password(false)) => Next::Refused,
            (Step::Subject(wanted), AuthAnswer::Subject(subject)) => match subject {
                // RFC 4422 appendix A: an authorization identity is allowed if it is the same.
                Some(subject) if wanted.is_empty() || *wanted == subject => Next::Done(subject),
                _ => Next::Refused,
            },
            (Step::Scram(scram), AuthAnswer::Credential { credential, nonce, binding }) => {
                scram.challenge(credential, &nonce, &binding)
            }
            _ => Next::Unavailable,
        }
    }
}

/// Decodes a response. RFC 4954 §4: strictly, with its padding, and nothing else in between.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Puts a challenge in base64.
pub(crate) fn encode(challenge: &[u8]) -> String {
    STANDARD.encode(challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_does_not_tell_its_secret() {
        let question = AuthQuestion::Password { user: "u".into(), password: "secret".into() };
        let answer = AuthAnswer::Credential {
            credential: ScramCredential::derive(b"secret", b"salt", 1),
            nonce: Nonce::new([7; 18]),
            binding: b"secret".to_vec(),
        };
        let mut exchange = Exchange::new(Mechanism::Login, false);
        exchange.respond(b"secret");
        let text = format!("{question:?} {answer:?} {exchange:?}");
        assert!(!text.contains("secret") && !text.contains("115"), "{text}");
    }

    #[test]
    fn external_is_who_the_certificate_says() {
        let outcome = |wanted: &[u8], subject: Option<&str>| {
            let mut exchange = Exchange::new(Mechanism::External, false);
            match exchange.respond(wanted) {
                Next::Ask(AuthQuestion::Subject) => {
                    exchange.answer(AuthAnswer::Subject(subject.map(String::from)))
                }
                next => next,
            }
        };
        assert_eq!(outcome(b"", Some("CN=a")), Next::Done("CN=a".into()));
        assert_eq!(outcome(b"CN=a", Some("CN=a")), Next::Done("CN=a".into()));
        assert_eq!(outcome(b"CN=b", Some("CN=a")), Next::Refused);
        assert_eq!(outcome(b"", None), Next::Refused);
        assert_eq!(outcome(b"a\0b", Some("CN=a")), Next::Malformed);
        assert_eq!(outcome(b"\xff", Some("CN=a")), Next::Malformed);
    }

    /// The answer to another question decides nothing.
    #[test]
    fn an_answer_out_of_place_is_none() {
        let mut exchange = Exchange::new(Mechanism::External, false);
        exchange.respond(b"");
        assert_eq!(exchange.answer(AuthAnswer::Password(true)), Next::Unavailable);
        let mut exchange = Exchange::new(Mechanism::Plain, false);
        exchange.respond(b"\0a\0b");
        assert_eq!(exchange.answer(AuthAnswer::Subject(Some("a".into()))), Next::Unavailable);
        assert_eq!(exchange.respond(b"x"), Next::Malformed);
    }
}
