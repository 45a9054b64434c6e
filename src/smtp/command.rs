//! Command verbs (RFC 5321 §4.1.1): case does not matter.

/// A command verb, as a closed set: what is not known is [`Verb::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each name is its verb.
pub enum Verb {
    Ehlo,
    Helo,
    Lhlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    Starttls,
    Auth,
    Xclient,
    Xforward,
    /// Known by name and not served: TURN, SEND, SOML, SAML, ETRN, EXPN.
    Retired,
    /// A verb of HTTP: the peer takes us for a web server, or makes a browser do so.
    Http,
    /// Anything else.
    Unknown,
}

impl Verb {
    /// Every verb, in the order of their counters.
    pub const ALL: [Self; 19] = [
        Self::Ehlo,
        Self::Helo,
        Self::Lhlo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Bdat,
        Self::Rset,
        Self::Noop,
        Self::Quit,
        Self::Vrfy,
        Self::Help,
        Self::Starttls,
        Self::Auth,
        Self::Xclient,
        Self::Xforward,
        Self::Retired,
        Self::Http,
        Self::Unknown,
    ];

    /// Whether it can only be the last of a pipelined group (RFC 2920 §3.1); STARTTLS can where it
    /// begins TLS.
    pub(super) fn ends_group(self) -> bool {
        matches!(self, Self::Ehlo | Self::Lhlo | Self::Data)
    }

    /// Name as a metric label; what has no name of its own is `other`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ehlo => "ehlo",
            Self::Helo => "helo",
            Self::Lhlo => "lhlo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Bdat => "bdat",
            Self::Rset => "rset",
            Self::Noop => "noop",
            Self::Quit => "quit",
            Self::Vrfy => "vrfy",
            Self::Help => "help",
            Self::Starttls => "starttls",
            Self::Auth => "auth",
            Self::Xclient => "xclient",
            Self::Xforward => "xforward",
            Self::Retired => "retired",
            Self::Http => "http",
            Self::Unknown => "other",
        }
    }
}

/// Packs up to eight octets in upper case, so that a verb is found by one comparison of a word.
const fn key(verb: &[u8]) -> u64 {
    let (mut key, mut left) = (0, verb);
    while let [octet, rest @ ..] = left {
        key = key << 8 | octet.to_ascii_uppercase() as u64;
        left = rest;
    }
    key
}

const EHLO: u64 = key(b"EHLO");
const HELO: u64 = key(b"HELO");
const LHLO: u64 = key(b"LHLO");
const MAIL: u64 = key(b"MAIL");
const RCPT: u64 = key(b"RCPT");
const DATA: u64 = key(b"DATA");
const BDAT: u64 = key(b"BDAT");
const RSET: u64 = key(b"RSET");
const NOOP: u64 = key(b"NOOP");
const QUIT: u64 = key(b"QUIT");
const VRFY: u64 = key(b"VRFY");
const HELP: u64 = key(b"HELP");
const STARTTLS: u64 = key(b"STARTTLS");
const AUTH: u64 = key(b"AUTH");
const TURN: u64 = key(b"TURN");
const SEND: u64 = key(b"SEND");
const SOML: u64 = key(b"SOML");
const SAML: u64 = key(b"SAML");
const ETRN: u64 = key(b"ETRN");
const EXPN: u64 = key(b"EXPN");
const XCLIENT: u64 = key(b"XCLIENT");
const XFORWARD: u64 = key(b"XFORWARD");
const GET: u64 = key(b"GET");
const POST: u64 = key(b"POST");
const HEAD: u64 = key(b"HEAD");
const PUT: u64 = key(b"PUT");
const CONNECT: u64 = key(b"CONNECT");
const OPTIONS: u64 = key(b"OPTIONS");

/// Splits a line into its verb and what follows the letters, white space included.
pub(super) fn split(line: &[u8]) -> (Verb, &[u8]) {
    let letters = line.iter().take(9).take_while(|octet| octet.is_ascii_alphabetic()).count();
    let Some((verb, rest)) = line.split_at_checked(letters) else {
        return (Verb::Unknown, &[]);
    };
    // A verb ends at white space or a control octet (the latter is refused as a bad argument).
    if letters > 8 || rest.first().is_some_and(|octet| *octet > b' ') {
        return (Verb::Unknown, rest);
    }
    let verb = match key(verb) {
        EHLO => Verb::Ehlo,
        HELO => Verb::Helo,
        LHLO => Verb::Lhlo,
        MAIL => Verb::Mail,
        RCPT => Verb::Rcpt,
        DATA => Verb::Data,
        BDAT => Verb::Bdat,
        RSET => Verb::Rset,
        NOOP => Verb::Noop,
        QUIT => Verb::Quit,
        VRFY => Verb::Vrfy,
        HELP => Verb::Help,
        STARTTLS => Verb::Starttls,
        AUTH => Verb::Auth,
        XCLIENT => Verb::Xclient,
        XFORWARD => Verb::Xforward,
        TURN | SEND | SOML | SAML | ETRN | EXPN => Verb::Retired,
        GET | POST | HEAD | PUT | CONNECT | OPTIONS => Verb::Http,
        _ => Verb::Unknown,
    };
    (verb, rest)
}
