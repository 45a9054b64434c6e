//! Options and limits of the protocol core. The `config` room fills them; defaults are here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::sasl::Mechanism;

/// Options of the protocol core, one for all sessions of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Our own domain: greeting, EHLO, HELO and every 421 name it (RFC 5321 §4.2).
    ///
    /// Printable ASCII, at most 255 octets. Default `localhost`.
    pub hostname: String,
    /// Limits of a session and of a message.
    pub limits: Limits,
    /// What to do with a bare CR, a bare LF or a NUL in mail data. Default [`LineEnds::Reject`].
    pub line_ends: LineEnds,
    /// Paths by the letter of RFC 5321 alone, see [`super::Lenient`]. Default off.
    pub strict_paths: bool,
    /// EHLO, HELO and LHLO with a domain or an address literal alone. Default off.
    pub strict_helo: bool,
    /// Whether TLS is offered, or demanded. Default [`TlsPolicy::Off`].
    pub tls: TlsPolicy,
    /// What is spoken. Default [`Protocol::Smtp`].
    pub protocol: Protocol,
    /// What AUTH offers (RFC 4954). Default nothing.
    pub auth: Auth,
    /// Whose mail is taken; `None`: anybody's, which is for loopback alone. Default `None`.
    pub recipients: Option<Recipients>,
    /// As whom users may send; `None`: as anybody. Default `None`.
    pub senders: Option<Senders>,
    /// DSN is offered (RFC 3461). Default off.
    pub dsn: bool,
    /// REQUIRETLS is offered under TLS (RFC 8689). Default off.
    pub require_tls: bool,
    /// MT-PRIORITY is offered (RFC 6710). Default off.
    pub mt_priority: bool,
    /// Its mail is refused first under overload. Default off.
    pub low_priority: bool,
    /// Refuse a client that talks before the greeting (RFC 5321 §4.3.1). Default off.
    pub greet_check: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: String::from("localhost"),
            limits: Limits::default(),
            line_ends: LineEnds::default(),
            strict_paths: false,
            strict_helo: false,
            tls: TlsPolicy::default(),
            protocol: Protocol::default(),
            auth: Auth::default(),
            recipients: None,
            senders: None,
            dsn: false,
            require_tls: false,
            mt_priority: false,
            low_priority: false,
            greet_check: false,
        }
    }
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RFC 5321.
    #[default]
    Smtp,
    /// RFC 2033: LHLO, and a reply for each recipient.
    Lmtp,
    /// 521 in place of the greeting (RFC 7504), then nothing but QUIT.
    Refuse,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Smtp, Self::Lmtp, Self::Refuse];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
            Self::Refuse => "refuse",
        }
    }
}

/// Mechanisms of AUTH that are offered, all of them under TLS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Auth {
    /// RFC 4616.
    pub plain: bool,
    /// The de-facto one, older than PLAIN.
    pub login: bool,
    /// RFC 7677.
    pub scram_sha_256: bool,
    /// RFC 7677 with channel binding.
    pub scram_sha_256_plus: bool,
    /// By the client certificate (RFC 4422 appendix A).
    pub external: bool,
    /// 530 5.7.0 to MAIL without AUTH (RFC 4954 §6).
    pub required: bool,
}

impl Auth {
    /// Offers these mechanisms.
    #[must_use]
    pub fn new(offered: &[Mechanism], required: bool) -> Self {
        let offers = |mechanism| offered.contains(&mechanism);
        Self {
            plain: offers(Mechanism::Plain),
            login: offers(Mechanism::Login),
            scram_sha_256: offers(Mechanism::ScramSha256),
            scram_sha_256_plus: offers(Mechanism::ScramSha256Plus),
            external: offers(Mechanism::External),
            required,
        }
    }

    /// Whether this mechanism is offered on a channel that can be bound to, or cannot.
    pub const fn offers(&self, mechanism: Mechanism, binds_channel: bool) -> bool {
        match mechanism {
            Mechanism::Plain => self.plain,
            Mechanism::Login => self.login,
            Mechanism::ScramSha256 => self.scram_sha_256,
            Mechanism::ScramSha256Plus => self.scram_sha_256_plus && binds_channel,
            Mechanism::External => self.external,
        }
    }

    /// Whether any mechanism is offered.
    pub fn is_offered(&self) -> bool {
        Mechanism::ALL.iter().any(|mechanism| self.offers(*mechanism, true))
    }
}

/// Decides whose mail is accepted. Asked at RCPT, on the shard: it must not block.
pub trait RecipientPolicy: Send + Sync {
    /// Judges a forward-path without brackets, source route dropped; `postmaster` may lack its
    /// domain. Called for clients that are not authenticated.
    fn judge(&self, forward_path: &str) -> Recipient;
}

/// Decides as whom users may send. Asked on the shard: it must not block.
pub trait SenderPolicy: Send + Sync {
    /// Whether a user may send with this reverse-path, without brackets and not the null one.
    fn may_send(&self, user: &str, reverse_path: &str) -> bool;

    /// Whether a user may be the author that this header names.
    fn may_write(&self, user: &str, header: &[u8]) -> bool;
}

/// A shared [`SenderPolicy`]; equal where it is the same one.
#[derive(Clone)]
pub struct Senders {
    /// Who decides.
    pub policy: Arc<dyn SenderPolicy>,
    /// Mail of another author is refused; else it is flagged.
    pub refuse_author: bool,
}

impl fmt::Debug for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Senders")
    }
}

impl PartialEq for Senders {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.policy, &other.policy) && self.refuse_author == other.refuse_author
    }
}

impl Eq for Senders {}

/// What a [`RecipientPolicy`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// It is taken.
    Ours,
    /// The domain is ours, nobody there has this name: 550 5.1.1.
    Unknown,
    /// The domain is not ours: 550 5.7.1, we are no relay.
    Foreign,
}

/// A shared [`RecipientPolicy`]; equal where it is the same one.
#[derive(Clone)]
pub struct Recipients(pub Arc<dyn RecipientPolicy>);

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipients")
    }
}

impl PartialEq for Recipients {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Recipients {}

/// What a listener says of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsPolicy {
    /// Not offered: STARTTLS is 502.
    #[default]
    Off,
    /// STARTTLS is offered, and nobody has to take it.
    Offered,
    /// Until STARTTLS has been taken all but NOOP, EHLO, STARTTLS and QUIT is 530. Not for a public
    /// listener (RFC 3207 §4).
    Required,
    /// TLS from the first octet (RFC 8314 §3.3): sessions begin under it.
    Implicit,
}

impl TlsPolicy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Off, Self::Offered, Self::Required, Self::Implicit];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Offered => "starttls",
            Self::Required => "required",
            Self::Implicit => "implicit",
        }
    }
}

/// Treatment of bare CR and bare LF in mail data (RFC 5321 §2.3.8), and of NUL.
///
/// None of them ever ends the data or a line for the purpose of transparency. `BODY=BINARYMIME`
/// messages are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEnds {
    /// Read to the true end, then 550 5.6.0.
    #[default]
    Reject,
    /// Complete each to CRLF, keep NUL, and flag the message.
    Normalize,
    /// Keep the octets as received and flag the message.
    Allow,
}

impl LineEnds {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reject, Self::Normalize, Self::Allow];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Normalize => "normalize",
            Self::Allow => "allow",
        }
    }
}

/// Whether the driver takes new mail at this moment; asked at MAIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Admission {
    /// New messages are welcome.
    #[default]
    Open,
    /// Too little free space: 452 4.3.1.
    DiskFull,
    /// Memory budget spent: 452 4.3.1.
    MemoryFull,
    /// The log takes no records: 451 4.3.0.
    LogFailed,
    /// Overload: 452 4.3.2 to mail of low priority.
    OverloadedLow,
    /// Overload: 451 4.3.2.
    Overloaded,
    /// The server shuts down: 421 4.3.2.
    Draining,
}

/// Whether the driver lets a client in; asked at the greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entry {
    /// The client is greeted; what follows gets 421 in place of the greeting.
    #[default]
    Open,
    /// Memory budget spent: 4.3.2.
    MemoryFull,
    /// The log takes no records: 4.3.0.
    LogFailed,
    /// Too many sessions: 4.3.2.
    Crowded,
    /// Too many sessions of the client's address: 4.7.0.
    AddressFull,
    /// The client's address opens sessions too fast: 4.7.0.
    AddressFast,
    /// Too many failed AUTH commands came from the client's address: 4.7.0.
    Blocked,
    /// Overload: 4.3.2.
    Overloaded,
    /// The server shuts down: 4.3.2.
    Draining,
}

/// Limits of a session and of a message. Their defaults are those of [`Limits::default`] alone, and
/// so are the defaults of the configuration.
///
/// Those marked *spared* do not bind sessions opened as exempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Time to send one whole command (RFC 5321 §4.5.3.2.7: 5 min).
    pub command_wait: Duration,
    /// Time from DATA, or the first BDAT, to the end of the message.
    pub data_time: Duration,
    /// Time the driver may take to answer `EndOfMail`, well under the 10 min that RFC 5321
    /// §4.5.3.2.6 lets the client wait.
    pub commit_wait: Duration,
    /// Time that a TLS handshake may take, from the accept or the 220 to STARTTLS; the driver ends
    /// one that takes longer.
    pub handshake_wait: Duration,
    /// Age at which a session is closed between commands; spared.
    pub session_time: Duration,
    /// MAIL commands per session; spared. Announced as MAILMAX (RFC 9422 §4.1).
    pub session_messages: u32,
    /// RCPT commands per session; spared.
    pub rcpts_per_session: u32,
    /// Largest message in octets, dots unstuffed (RFC 1870 §6); at least 64 KiB.
    pub message_bytes: u64,
    /// Recipients of one message; at least 100 (RFC 5321 §4.5.3.1.8).
    pub recipients_max: usize,
    /// Longest command line in octets with CRLF; at least 512 (RFC 5321 §4.5.3.1.4).
    pub command_line_bytes: usize,
    /// Longest line of mail data in octets without CRLF; at least 998 (RFC 5321 §4.5.3.1.6).
    pub content_line_bytes: usize,
    /// Octets of the header looked at for Received fields.
    pub header_scan_bytes: usize,
    /// Received fields a message may bring (RFC 5321 §6.3 asks for at least 100).
    pub received_max: usize,
    /// BDAT commands of one message.
    pub bdat_chunks_max: u32,
    /// Parameters of one MAIL or RCPT.
    pub parameters_max: usize,
    /// 5yz replies since the last accepted message after which replies are delayed.
    pub errors_soft: u32,
    /// 5yz replies since the last accepted message after which the session ends.
    pub errors_hard: u32,
    /// Failed AUTH commands of a session; the next AUTH gets 421.
    pub auth_failures: u32,
    /// Commands without use (NOOP, RSET, VRFY, HELP, ...) since the last accepted message.
    pub junk_max: u32,
    /// Octets thrown away in search of the CRLF of an over-long line.
    pub discard_line_bytes: usize,
    /// Rendered replies not yet taken at which no further command is read.
    pub unsent_replies_bytes: usize,
    /// Slowest mail data in octets per second, on average; 0 is off; spared.
    pub data_rate_min_bytes: u64,
    /// Time before the rate counts; spared.
    pub data_rate_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_wait: Duration::from_secs(300),
            data_time: Duration::from_secs(30 * 60),
            commit_wait: Duration::from_secs(60),
            handshake_wait: Duration::from_secs(30),
            session_time: Duration::from_secs(60 * 60),
            session_messages: 10_000,
            rcpts_per_session: 10_000,
            message_bytes: 26_214_400,
            recipients_max: 1_000,
            command_line_bytes: 2_048,
            content_line_bytes: 65_536,
            header_scan_bytes: 256 * 1024,
            received_max: 100,
            bdat_chunks_max: 4_096,
            parameters_max: 16,
            errors_soft: 10,
            errors_hard: 20,
            auth_failures: 3,
            junk_max: 100,
            discard_line_bytes: 64 * 1024,
            unsent_replies_bytes: 64 * 1024,
            data_rate_min_bytes: 500,
            data_rate_grace: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The same under stress: what a busy server can no longer afford to wait for or to keep.
    /// Nothing grows, and no limit of the RFCs is undercut but the waits, which RFC 5321 §4.5.3.2
    /// only recommends.
    #[must_use]
    pub fn stressed(&self) -> Self {
        let seconds = Duration::from_secs;
        Self {
            command_wait: self.command_wait.min(seconds(10)),
            data_time: self.data_time.min(seconds(60)),
            commit_wait: self.commit_wait.min(seconds(20)),
            handshake_wait: self.handshake_wait.min(seconds(10)),
            session_time: self.session_time.min(seconds(300)),
            data_rate_min_bytes: match self.data_rate_min_bytes {
                0 => 0,
                rate => rate.max(5_000),
            },
            errors_hard: 1,
            auth_failures: self.auth_failures.min(1),
            junk_max: self.junk_max.min(1),
            discard_line_bytes: 0,
            unsent_replies_bytes: self.unsent_replies_bytes.min(16 * 1024),
            ..self.clone()
        }
    }
}

impl Config {
    /// The same with the limits of [`Limits::stressed`].
    #[must_use]
    pub fn stressed(&self) -> Self {
        Self { limits: self.limits.stressed(), ..self.clone() }
    }
}
