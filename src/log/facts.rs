//! Facts that few records have: about TLS, authentication, the proxy, parameters of MAIL and RCPT.
//!
//! A new fact is a text: a line in `text_facts!` and one in the table of the section that shows it.
//! How facts lie on disk is in `facts_v2.rs`, which a new one leaves alone.

use std::net::SocketAddr;

use super::metadata::{
    Field, Kind,
    Label::{Always, Optional, Repeated},
    Member, Value,
};
use super::{Check, Dmarc, FromFacts, xtext};

/// Of a fact that is a text: its number on disk, never given to another; its name; and its label in
/// `log get --envelope`, where those that share one stand on one line.
macro_rules! text_facts {
    ($($(#[$doc:meta])* $number:literal $name:ident $label:literal;)*) => {
        /// What is known of a session and an envelope besides what every message has. Empty for mail
        /// from an unknown client in the clear. Borrowed as [`Facts`], owned with `String`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct FactsOf<T> {
            $($(#[$doc])* pub $name: T,)*
            /// It came by LMTP (RFC 2033).
            pub lmtp: bool,
            /// The peer of the connection, if [`super::Mail::client`] came from PROXY or XCLIENT.
            pub proxy: Option<SocketAddr>,
            /// Sum of the weights of DNS lists.
            pub list_score: i32,
            /// RET= of MAIL (RFC 3461 §4.3): 0 none, 1 FULL, 2 HDRS.
            pub ret: u8,
            /// REQUIRETLS of MAIL (RFC 8689).
            pub require_tls: bool,
            /// MT-PRIORITY= of MAIL (RFC 6710), -9 to 9.
            pub mt_priority: Option<i8>,
        }

        pub(super) const TEXTS: usize = [$($number),*].len();

        impl<T: AsRef<str>> FactsOf<T> {
            /// Whether nothing is known. Asked of every message, so by lengths and numbers alone:
            /// `==` would compare each empty text by a call of `memcmp`, at an address that is no
            /// memory, and with glibc's masked loads one such call takes 80 ns on some machines.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                // All of them by name: a fact that is added and forgotten here would be lost.
                let Self { $($name,)* lmtp, proxy, list_score, ret, require_tls, mt_priority } = self;
                $($name.as_ref().is_empty() &&)*
                proxy.is_none()
                    && mt_priority.is_none()
                    && *list_score == 0
                    && *ret == 0
                    && !*lmtp
                    && !*require_tls
            }

            /// Every fact that is a text, empty where it is not known.
            pub fn texts(&self) -> [TextFact<'_>; TEXTS] {
                [$(TextFact {
                    number: $number,
                    name: stringify!($name),
                    label: $label,
                    text: self.$name.as_ref(),
                },)*]
            }

            /// With the texts made anything else.
            fn map<'a, U>(&'a self, text: impl Fn(&'a str) -> U) -> FactsOf<U> {
                FactsOf {
                    $($name: text(self.$name.as_ref()),)*
                    lmtp: self.lmtp,
                    proxy: self.proxy,
                    list_score: self.list_score,
                    ret: self.ret,
                    require_tls: self.require_tls,
                    mt_priority: self.mt_priority,
                }
            }
        }

        impl<T> FactsOf<T> {
            /// Puts in a text by its number; one of a later version is passed over.
            pub(super) fn set(&mut self, number: u8, text: T) {
                match number {
                    $($number => self.$name = text,)*
                    _ => {}
                }
            }
        }
    };
}

text_facts! {
    /// TLS version by its IANA name; empty in the clear.
    1 tls_version "tls";
    /// Cipher suite by its IANA name.
    2 tls_cipher "tls";
    /// Name the client asked for; empty: none.
    3 tls_sni "sni";
    /// Subject of the client's verified certificate; empty: none.
    4 tls_client "cert";
    /// SASL mechanism, or `XCLIENT` where a proxy says so; empty: the client did not authenticate.
    5 auth_mechanism "auth";
    /// Who it proved to be.
    6 auth_user "auth";
    /// What else the proxy, or the peer that used XCLIENT or XFORWARD, said: `KEY=value` items
    /// joined by LF.
    7 proxy_facts "proxy";
    /// Confirmed name of the client; empty: not looked up, or none.
    8 rdns "rdns";
    /// ENVID= of MAIL, xtext decoded; empty: none.
    9 envid "envid";
    /// AUTH= of MAIL (RFC 4954 §5), xtext decoded; `<>` where it was so or not believed; empty:
    /// none.
    10 submitter "submitter";
    /// For each forward-path `NOTIFY=` and `ORCPT=` as given, joined by LF; empty where no
    /// recipient has any. Shown with the forward-paths.
    11 rcpt_params "";
    /// As whom the listener states results (RFC 8601 §2.5); empty: it does not.
    12 authserv_id "authserv";
    /// Who adds Date and Message-ID where they are missing (RFC 6409 §8); empty: nobody.
    13 submission "msa";
}

/// As they lie in the log, or in the session that learnt them.
pub type Facts<'a> = FactsOf<&'a str>;

/// A fact that is a text.
#[derive(Clone, Copy, Debug)]
pub struct TextFact<'a> {
    /// On disk.
    pub(super) number: u8,
    /// Its name.
    pub name: &'static str,
    /// The line of `log get --envelope` that shows it; empty: none of its own.
    pub label: &'static str,
    /// Empty: not known.
    pub text: &'a str,
}

/// Shown as `envelope`, after `mail_from` and `rcpt_to`.
pub(super) const ENVELOPE: &[Field] =
    &[
        Field::new(3, "smtputf8", Always, Kind::Bool, |of| Value::Bool(of.smtputf8)),
        Field::new(4, "body", Always, Kind::Text, |of| Value::text(of.body())),
        Field::new(5, "protocol", Always, Kind::Text, |of| Value::text(of.facts.protocol())),
        Field::new(6, "ret", Optional, Kind::Text, |of| Value::optional(of.facts.ret_name())),
        Field::new(7, "envid", Optional, Kind::Text, |of| Value::known(of.facts.envid)),
        Field::new(8, "submitter", Optional, Kind::Text, |of| Value::known(of.facts.submitter)),
        Field::new(9, "require_tls", Always, Kind::Bool, |of| Value::Bool(of.facts.require_tls)),
        Field::new(10, "mt_priority", Optional, Kind::Sint32, |of| {
            Value::optional(of.facts.mt_priority)
        }),
        Field::new(11, "rcpt_params", Repeated, Kind::Message("RcptParams", RCPT_PARAMS), |of| {
            match of.facts.rcpt_params {
                "" => Value::Null,
                _ => Value::List(of.facts.rcpt_params().map(RcptParams::shown).collect()),
            }
        }),
        Field::new(12, "size_declared", Optional, Kind::Uint64, |of| {
            Value::optional(of.size_declared)
        }),
        Field::new(13, "submission", Optional, Kind::Text, |of| Value::known(of.facts.submission)),
    ];

/// Shown as `client`.
pub(super) const CLIENT: &[Field] = &[
    Field::new(1, "ip", Always, Kind::Text, |of| of.client.ip().to_string().into()),
    Field::new(2, "port", Always, Kind::Uint32, |of| of.client.port().into()),
    Field::new(3, "helo", Always, Kind::Text, |of| Value::text(of.helo)),
    Field::new(4, "rdns", Optional, Kind::Text, |of| Value::known(of.facts.rdns)),
    Field::new(5, "proxy_ip", Optional, Kind::Text, |of| {
        Value::optional(of.facts.proxy.map(|proxy| proxy.ip().to_string()))
    }),
    Field::new(6, "auth_user", Optional, Kind::Text, |of| Value::known(of.facts.auth_user)),
    Field::new(7, "auth_mechanism", Optional, Kind::Text, |of| {
        Value::known(of.facts.auth_mechanism)
    }),
    Field::new(8, "esmtp", Always, Kind::Bool, |of| Value::Bool(of.esmtp)),
    Field::new(9, "proxy_port", Optional, Kind::Uint32, |of| {
        Value::optional(of.facts.proxy.map(|proxy| proxy.port()))
    }),
    Field::new(10, "proxy_facts", Repeated, Kind::Message("ProxyFact", PROXY_FACT), |of| {
        let shown = |(name, value)| Value::Message(vec![Value::text(name), Value::text(value)]);
        Value::List(pairs(of.facts.proxy_facts).map(shown).collect())
    }),
    Field::new(11, "list_score", Always, Kind::Sint32, |of| Value::Signed(of.facts.list_score)),
];

/// Shown as `tls`, absent in the clear.
pub(super) const TLS: &[Field] = &[
    Field::new(1, "version", Always, Kind::Text, |of| Value::text(of.facts.tls_version)),
    Field::new(2, "cipher", Always, Kind::Text, |of| Value::text(of.facts.tls_cipher)),
    Field::new(3, "sni", Optional, Kind::Text, |of| Value::known(of.facts.tls_sni)),
    Field::new(4, "client_subject", Optional, Kind::Text, |of| Value::known(of.facts.tls_client)),
];

/// Shown as `auth`, absent where nothing was checked: no check is made yet.
pub(super) const AUTH: &[Field] = &[
    Field::new(1, "spf", Optional, Kind::Message("Checked", CHECKED), |of| {
        Value::check(of.verdict.and_then(|verdict| verdict.spf.first()))
    }),
    Field::new(2, "dkim", Repeated, Kind::Message("Checked", CHECKED), |of| {
        let checks = of.verdict.map(|verdict| verdict.dkim.as_slice()).unwrap_or_default();
        Value::List(checks.iter().map(|check| Value::check(Some(check))).collect())
    }),
    Field::new(3, "dmarc", Optional, Kind::Message("Checked", CHECKED), |of| {
        Value::dmarc(of.verdict.and_then(|verdict| verdict.dmarc.as_ref()))
    }),
    Field::new(4, "spf_helo", Optional, Kind::Message("Checked", CHECKED), |of| {
        Value::check(of.verdict.and_then(|verdict| verdict.spf.get(1)))
    }),
    Field::new(5, "arc", Optional, Kind::Message("Checked", CHECKED), |of| {
        Value::check(of.verdict.and_then(|verdict| verdict.arc.as_ref()))
    }),
    Field::new(6, "iprev", Optional, Kind::Message("Checked", CHECKED), |of| {
        Value::check(of.verdict.and_then(|verdict| verdict.iprev.as_ref()))
    }),
    Field::new(7, "dkim_ignored", Always, Kind::Uint32, |of| {
        Value::Unsigned(of.verdict.map_or(0, |verdict| verdict.dkim_ignored.into()))
    }),
    Field::new(8, "from", Optional, Kind::Message("FromFacts", FROM), |of| {
        Value::from_facts(of.verdict.map(|verdict| &verdict.from))
    }),
    Field::new(9, "engine", Optional, Kind::Text, |of| {
        Value::known(of.verdict.map_or("", |verdict| &verdict.engine))
    }),
    Field::new(10, "skipped", Optional, Kind::Text, |of| {
        Value::known(of.verdict.map_or("", |verdict| &verdict.skipped))
    }),
    Field::new(11, "pending", Always, Kind::Bool, |of| Value::Bool(of.verdict_pending)),
    Field::new(12, "authserv_id", Optional, Kind::Text, |of| Value::known(of.facts.authserv_id)),
    Field::new(13, "results_renamed", Always, Kind::Uint32, |of| {
        Value::Unsigned(of.results_renamed.into())
    }),
];

const RCPT_PARAMS: &[Member] = &[
    Member { number: 1, name: "notify", label: Optional, kind: Kind::Text },
    Member { number: 2, name: "orcpt", label: Optional, kind: Kind::Text },
];

const PROXY_FACT: &[Member] = &[
    Member { number: 1, name: "name", label: Always, kind: Kind::Text },
    Member { number: 2, name: "value", label: Always, kind: Kind::Text },
];

const CHECKED: &[Member] = &[
    Member { number: 1, name: "result", label: Always, kind: Kind::Text },
    Member { number: 2, name: "domain", label: Optional, kind: Kind::Text },
    Member { number: 3, name: "selector", label: Optional, kind: Kind::Text },
    Member { number: 4, name: "policy", label: Optional, kind: Kind::Text },
    Member { number: 5, name: "disposition", label: Optional, kind: Kind::Text },
    Member { number: 6, name: "algorithm", label: Optional, kind: Kind::Text },
    Member { number: 7, name: "identity", label: Optional, kind: Kind::Text },
    Member { number: 8, name: "aligned", label: Optional, kind: Kind::Bool },
    Member { number: 9, name: "reason", label: Optional, kind: Kind::Text },
];

const FROM: &[Member] = &[
    Member { number: 1, name: "fields", label: Always, kind: Kind::Uint32 },
    Member { number: 2, name: "mailboxes", label: Always, kind: Kind::Uint32 },
    Member { number: 3, name: "domains", label: Repeated, kind: Kind::Text },
    Member { number: 4, name: "unreadable", label: Always, kind: Kind::Bool },
    Member { number: 5, name: "misleading_name", label: Always, kind: Kind::Bool },
    Member { number: 6, name: "non_ascii", label: Always, kind: Kind::Bool },
    Member { number: 7, name: "own_domain_forged", label: Always, kind: Kind::Bool },
];

/// In the order of [`CHECKED`] and [`FROM`].
impl<'a> Value<'a> {
    fn check(check: Option<&'a Check>) -> Self {
        check.map_or(Self::Null, |check| Self::checked(check, "", ""))
    }

    fn dmarc(dmarc: Option<&'a Dmarc>) -> Self {
        dmarc.map_or(Self::Null, |dmarc| {
            Self::checked(&dmarc.check, &dmarc.policy, &dmarc.disposition)
        })
    }

    fn checked(check: &'a Check, policy: &'a str, disposition: &'a str) -> Self {
        Self::Message(vec![
            Self::text(check.result.name()),
            Self::known(&check.domain),
            Self::known(&check.selector),
            Self::known(policy),
            Self::known(disposition),
            Self::known(&check.algorithm),
            Self::known(&check.identity),
            check.aligned.map_or(Self::Null, Self::Bool),
            Self::known(&check.reason),
        ])
    }

    fn from_facts(facts: Option<&'a FromFacts>) -> Self {
        let Some(facts) = facts else { return Self::Null };
        Self::Message(vec![
            Self::Unsigned(facts.fields.into()),
            Self::Unsigned(facts.mailboxes.into()),
            Self::List(facts.domains.iter().map(|domain| Self::text(domain)).collect()),
            Self::Bool(facts.unreadable),
            Self::Bool(facts.misleading_name),
            Self::Bool(facts.non_ascii),
            Self::Bool(facts.own_domain_forged),
        ])
    }
}

impl<T: AsRef<str>> FactsOf<T> {
    /// Borrowed from where they are kept.
    pub fn borrowed(&self) -> Facts<'_> {
        self.map(|text| text)
    }

    /// `lmtp` or `smtp`.
    #[must_use]
    pub const fn protocol(&self) -> &'static str {
        if self.lmtp { "lmtp" } else { "smtp" }
    }

    /// `FULL` or `HDRS`.
    #[must_use]
    pub const fn ret_name(&self) -> Option<&'static str> {
        match self.ret {
            1 => Some("FULL"),
            2 => Some("HDRS"),
            _ => None,
        }
    }

    /// DSN parameters of each forward-path; nothing where none has any.
    pub fn rcpt_params(&self) -> impl Iterator<Item = RcptParams> {
        let given = self.rcpt_params.as_ref();
        given.split('\n').filter(|_| !given.is_empty()).map(RcptParams::new)
    }
}

impl<'a> Facts<'a> {
    /// One text alone, by its place in [`FactsOf::texts`]: for tests that go through all of them.
    #[must_use]
    pub fn with_text(place: usize, text: &'a str) -> Self {
        let mut facts = Self::default();
        let number = facts.texts().get(place).map_or(0, |fact| fact.number);
        facts.set(number, text);
        facts
    }

    /// Copied, to outlive the record.
    #[must_use]
    pub fn owned(&self) -> FactsOf<String> {
        // Most records have none, and `String` of nothing allocates nothing.
        if self.is_empty() { FactsOf::default() } else { self.map(str::to_owned) }
    }
}

/// What a proxy said, as name and value.
fn pairs(facts: &str) -> impl Iterator<Item = (&str, &str)> {
    facts.lines().map(|fact| fact.split_once('=').unwrap_or((fact, "")))
}

/// Of RCPT (RFC 3461 §4.1, §4.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParams {
    /// NOTIFY: `NEVER`, or keywords joined by commas.
    pub notify: Option<String>,
    /// ORCPT, type and address joined by a semicolon, as given.
    pub orcpt: Option<String>,
}

impl RcptParams {
    fn new(given: &str) -> Self {
        let mut params = Self::default();
        for (name, value) in given.split(' ').filter_map(|param| param.split_once('=')) {
            if name.eq_ignore_ascii_case("NOTIFY") {
                params.notify = Some(value.to_ascii_uppercase());
            } else if name.eq_ignore_ascii_case("ORCPT") {
                params.orcpt = Some(value.to_owned());
            }
        }
        params
    }

    /// ORCPT with its xtext decoded.
    fn orcpt_text(&self) -> Option<String> {
        let given = self.orcpt.as_deref()?;
        Some(xtext::decode(given).unwrap_or_else(|| given.to_owned()))
    }

    fn shown<'a>(self) -> Value<'a> {
        if self == Self::default() {
            return Value::Null;
        }
        let orcpt = self.orcpt_text();
        Value::Message(vec![Value::optional(self.notify), Value::optional(orcpt)])
    }
}
