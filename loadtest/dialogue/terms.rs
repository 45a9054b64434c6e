//! The inputs and outputs of a dialogue.

use mailrace_smtp::client::{Line, Manner};

use super::super::{
    credentials::Credentials,
    mail::{Mail, Sequence},
    target::Protocol,
};

/// Nanoseconds since the start of the run.
pub(in super::super) type Nanos = u64;

/// Where time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Phase {
    /// `connect` to connected.
    Connect,
    /// The TLS handshake: from connected, or the reply to STARTTLS, to its end.
    Tls,
    /// Connected, or secured, to the greeting.
    Banner,
    /// EHLO to its reply.
    Helo,
    /// AUTH to its reply.
    Auth,
    /// Send of MAIL to the reply to the last RCPT.
    Envelope,
    /// From there to the last octet of mail data in the kernel's hands; where all goes out in one
    /// write, from the send of MAIL.
    Data,
    /// From there to the final reply.
    Ack,
}

impl Phase {
    pub(in super::super) const ALL: [Self; 8] = [
        Self::Connect,
        Self::Tls,
        Self::Banner,
        Self::Helo,
        Self::Auth,
        Self::Envelope,
        Self::Data,
        Self::Ack,
    ];

    /// Of a connection, not of a message.
    pub(in super::super) fn is_of_connection(self) -> bool {
        matches!(self, Self::Connect | Self::Tls | Self::Banner | Self::Helo | Self::Auth)
    }

    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Banner => "banner",
            Self::Helo => "helo",
            Self::Auth => "auth",
            Self::Envelope => "mail+rcpt",
            Self::Data => "data",
            Self::Ack => "ack",
        }
    }
}

/// A message that the schedule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Ticket {
    pub(in super::super) sequence: Sequence,
    pub(in super::super) scheduled: Nanos,
}

/// Why a message or a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fault {
    /// `connect` failed.
    Connect,
    /// Closed by the server before its time.
    Closed,
    /// Reset, or another error of the socket.
    Socket,
    /// No reply in time.
    Timeout,
    /// What came is no SMTP, or a reply nothing asked for.
    Protocol,
    /// The server's certificate is not believed.
    Certificate,
    /// The TLS handshake failed.
    Handshake,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// STARTTLS was refused by this reply; none: it is not offered.
    Starttls(Option<u16>),
    /// The same of AUTH PLAIN.
    Auth(Option<u16>),
    /// A negative reply.
    Rejected(u16),
}

/// Hears what happens.
pub(in super::super) trait Observer {
    fn reply(&mut self, line: Line<'_>);
    /// `since` is when the message was scheduled, or when the connection was begun.
    fn phase(&mut self, phase: Phase, since: Nanos, took: Nanos);
    /// A final 2yz to all of its recipients.
    fn acked(&mut self, ticket: Ticket, sent: Nanos, now: Nanos);
    fn failed(&mut self, ticket: Ticket, fault: Fault, now: Nanos);
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Security {
    Never,
    /// With the first octet (RFC 8314 §3).
    Implicit,
    /// Behind STARTTLS (RFC 3207).
    Starttls,
}

/// How this client talks.
#[derive(Clone, Debug)]
pub(in super::super) struct Style {
    pub(in super::super) protocol: Protocol,
    pub(in super::super) helo: String,
    pub(in super::super) pipelining: bool,
    pub(in super::super) chunking: bool,
    pub(in super::super) security: Security,
    /// Who connections are, in turn; nobody where there are none.
    pub(in super::super) credentials: Credentials,
    /// Messages sent and not answered, at most.
    pub(in super::super) in_flight: usize,
    /// Then QUIT.
    pub(in super::super) messages_max: u64,
}

impl Style {
    /// How the `number`th connection presents itself.
    pub(super) fn manner(&self, number: u64) -> Manner<'_> {
        Manner {
            lmtp: self.protocol == Protocol::Lmtp,
            name: &self.helo,
            starttls: self.security == Security::Starttls,
            plain: self.credentials.of(number),
        }
    }
}

/// What a dialogue refers to.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Context<'a> {
    pub(in super::super) style: &'a Style,
    pub(in super::super) mail: &'a Mail,
}
