//! What a record says about its message, in the shape that documents show it.
//!
//! [`Metadata`] is the one view: records of the log and of exporters both give it. The tables in
//! `facts.rs` say what can be read off it and where documents show it: JSON, protobuf and the
//! published schemas follow from them, or are compared with them by a test.

use std::{borrow::Cow, net::SocketAddr};

use super::{
    Verdict,
    facts::{AUTH, CLIENT, ENVELOPE, Facts, TLS},
};

/// What a record says about its message, borrowed, without paths and mail data.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    /// Argument of HELO or EHLO.
    pub helo: &'a str,
    /// Where the connection came from.
    pub client: SocketAddr,
    /// EHLO was used.
    pub esmtp: bool,
    /// SMTPUTF8 was asked for (RFC 6531).
    pub smtputf8: bool,
    /// 0 7BIT, 1 8BITMIME, 2 BINARYMIME.
    pub body_type: u8,
    /// SIZE= of MAIL.
    pub size_declared: Option<u64>,
    /// What few records have.
    pub facts: Facts<'a>,
    /// Who sent it, where that was found out.
    pub verdict: Option<&'a Verdict>,
    /// A verdict was waited for and had not come.
    pub verdict_pending: bool,
    /// Fields that claim to be Authentication-Results of ours, renamed on the way out.
    pub results_renamed: u32,
}

impl Metadata<'_> {
    /// `7BIT`, `8BITMIME` or `BINARYMIME`.
    #[must_use]
    pub fn body(&self) -> &'static str {
        match self.body_type {
            0 => "7BIT",
            1 => "8BITMIME",
            _ => "BINARYMIME",
        }
    }
}

/// A part of the document, a message of its own in protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// RFC 5321 §2.3.1.
    Envelope,
    /// The peer.
    Client,
    /// TLS of the session.
    Tls,
    /// RFC 8601.
    Auth,
}

impl Section {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Envelope, Self::Client, Self::Tls, Self::Auth];

    /// Its name in JSON, and its message in protobuf.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Envelope => ("envelope", "Envelope"),
            Self::Client => ("client", "Client"),
            Self::Tls => ("tls", "Tls"),
            Self::Auth => ("auth", "Auth"),
        }
    }

    /// What is in it, in the order of the numbers.
    #[must_use]
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Self::Envelope => ENVELOPE,
            Self::Client => CLIENT,
            Self::Tls => TLS,
            Self::Auth => AUTH,
        }
    }

    /// Whether the document has it: `tls` is absent in the clear, `auth` without checks.
    #[must_use]
    pub fn is_known(self, metadata: &Metadata<'_>) -> bool {
        match self {
            Self::Envelope | Self::Client => true,
            Self::Tls => !metadata.facts.tls_version.is_empty(),
            Self::Auth => {
                metadata.verdict.is_some()
                    || metadata.verdict_pending
                    || metadata.results_renamed > 0
                    || !metadata.facts.authserv_id.is_empty()
            }
        }
    }
}

/// One thing that documents show, and how it is read.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// How it is shown.
    pub member: Member,
    read: Read,
}

/// Reads a value off a record.
pub(super) type Read = for<'a> fn(&Metadata<'a>) -> Value<'a>;

impl Field {
    pub(super) const fn new(
        number: u32,
        name: &'static str,
        label: Label,
        kind: Kind,
        read: Read,
    ) -> Self {
        Self { member: Member { number, name, label, kind }, read }
    }

    /// Its value in a record.
    #[must_use]
    pub fn read<'a>(&self, metadata: &Metadata<'a>) -> Value<'a> {
        (self.read)(metadata)
    }
}

/// A member of an object in JSON, a field of a message in protobuf.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Of the field in protobuf: never given to another.
    pub number: u32,
    /// The same in both.
    pub name: &'static str,
    /// Whether it is always there.
    pub label: Label,
    /// What it holds.
    pub kind: Kind,
}

/// Whether a member is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Never null.
    Always,
    /// Null in JSON and absent in protobuf, where it is not known.
    Optional,
    /// A list.
    Repeated,
}

/// What a member holds, as protobuf spells it.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `string`
    Text,
    /// `bool`
    Bool,
    /// `sint32`
    Sint32,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// A message of this name, and its fields.
    Message(&'static str, &'static [Member]),
}

impl Kind {
    /// Of a message, else none.
    #[must_use]
    pub const fn members(&self) -> &'static [Member] {
        match self {
            Self::Message(_, members) => members,
            _ => &[],
        }
    }
}

/// The value of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Not known.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number that may be negative.
    Signed(i32),
    /// One that is not.
    Unsigned(u64),
    /// Text.
    Text(Cow<'a, str>),
    /// Of a repeated member.
    List(Vec<Self>),
    /// Of a message: one for each of its members, in their order.
    Message(Vec<Self>),
}

impl<'a> Value<'a> {
    /// Text that is there in any case.
    pub(super) const fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// Text that is not known where it is empty.
    pub(super) const fn known(text: &'a str) -> Self {
        if text.is_empty() { Self::Null } else { Self::text(text) }
    }

    /// A value that may be missing.
    pub(super) fn optional(value: Option<impl Into<Self>>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<&'static str> for Value<'_> {
    fn from(text: &'static str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i8> for Value<'_> {
    fn from(number: i8) -> Self {
        Self::Signed(number.into())
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}
