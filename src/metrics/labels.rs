//! Closed label sets. No label ever carries an address, a domain or an error text.

use std::marker::PhantomData;

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// Place of this value in [`Label::ALL`].
    fn index(self) -> usize;
    /// The value as written in the exposition.
    fn name(self) -> &'static str;
}

/// Most values a label set may have.
const LABELS_MAX: usize = 9;

macro_rules! label_set {
    ($(#[$doc:meta])* $set:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $set { $($(#[$value_doc])* $value,)+ }

        impl Label for $set {
            const ALL: &'static [Self] = &[$($set::$value),+];
            fn index(self) -> usize { self as usize }
            fn name(self) -> &'static str { match self { $($set::$value => $text),+ } }
        }

        const _: () = assert!(<$set as Label>::ALL.len() <= LABELS_MAX);
    };
}

label_set! {
    /// Why a connection was refused at its greeting.
    RefuseReason {
        /// The sessions' limit is reached: `421 4.3.2`.
        MaxConnections => "max_connections",
        /// One address has too many sessions.
        PerIp => "per_ip",
        /// One address opens sessions too fast.
        Rate => "rate",
        /// Too many failed AUTH commands came from one address: `421 4.7.0`.
        AuthFailures => "auth_failures",
        /// No valid PROXY header arrived.
        ProxyHeader => "proxy_header",
        /// The server is shutting down.
        Draining => "draining",
        /// The overload ladder closes new sessions: `421 4.3.2`.
        Overload => "overload",
    }
}

label_set! {
    /// Why a session ended.
    CloseReason {
        /// The client said QUIT.
        Quit => "quit",
        /// The client closed or reset the connection.
        ClientGone => "client_gone",
        /// A deadline passed.
        Timeout => "timeout",
        /// Too many errors or junk commands, or a breach that closes.
        ErrorLimit => "error_limit",
        /// Our side of the connection failed.
        IoError => "io_error",
        /// The server is shutting down.
        Draining => "draining",
    }
}

label_set! {
    /// How a TLS handshake ended.
    HandshakeResult {
        /// Established.
        Ok => "ok",
        /// Refused by either side, abandoned, or too slow.
        Failed => "failed",
    }
}

label_set! {
    /// What became of an AUTH command.
    AuthResult {
        /// The client is who it says: `235`.
        Ok => "ok",
        /// It is not: `535`.
        Failed => "failed",
        /// It cancelled the exchange, or broke the protocol: `500`, `501`.
        Aborted => "aborted",
        /// It could not be found out: `421`, `454`.
        Unavailable => "unavailable",
    }
}

label_set! {
    /// Whether a refused message may be tried again.
    RejectClass {
        /// Transient.
        Transient => "4xx",
        /// Permanent.
        Permanent => "5xx",
    }
}

label_set! {
    /// Why a message was refused.
    RejectReason {
        /// Larger than `limits.message_size`.
        Size => "size",
        /// More than `limits.recipients`.
        Recipients => "recipients",
        /// Policy said no.
        Policy => "policy",
        /// Authentication is missing or failed.
        Auth => "auth",
        /// Out of memory for messages in flight, or the log is too slow.
        Backpressure => "backpressure",
        /// The disk is full.
        DiskFull => "disk_full",
        /// Writing or syncing the log failed.
        LogError => "log_error",
        /// The mail data itself: bare line ends, lines too long, a mail loop.
        Content => "content",
        /// What was found out about its sender.
        Verdict => "verdict",
    }
}

impl RejectReason {
    /// The classes it comes with: our own trouble is always transient, and mail data that is not
    /// mail stays so.
    #[must_use]
    pub const fn classes(self) -> &'static [RejectClass] {
        match self {
            Self::Policy | Self::Auth | Self::Verdict => {
                &[RejectClass::Transient, RejectClass::Permanent]
            }
            Self::Size | Self::Content => &[RejectClass::Permanent],
            Self::Recipients | Self::Backpressure | Self::DiskFull | Self::LogError => {
                &[RejectClass::Transient]
            }
        }
    }
}

label_set! {
    /// What kept a shard from reading.
    BackpressureCause {
        /// `limits.inflight_bytes` is reached.
        Memory => "memory",
        /// The log has too much waiting for a sync, or no segment at hand. A full disk is no
        /// reason to stop reading: mail is read and refused then.
        Log => "log",
    }
}

label_set! {
    /// A step of the overload ladder; each does what those before it do as well.
    OverloadStep {
        /// Shorter limits.
        Stress => "stress",
        /// Replies are delayed.
        Slow => "slow",
        /// Mail of low priority is refused with 452.
        RefuseLow => "refuse_low",
        /// All mail is refused with 451.
        Refuse => "refuse",
        /// New sessions get 421.
        CloseNew => "close_new",
        /// No connection is accepted.
        StopAccepting => "stop_accepting",
    }
}

label_set! {
    /// The log operation that failed.
    LogOp {
        /// Writing a group, or an exporter's committed offset.
        Write => "write",
        /// fdatasync.
        Sync => "sync",
        /// Making a segment: its file, its blocks, its zeros.
        Allocate => "allocate",
        /// Reading records or segments, by an exporter, a consumer of the stream or retention.
        Read => "read",
        /// By the scrub, once a day.
        Scrub => "scrub",
    }
}

label_set! {
    /// Where damage was found.
    CorruptStage {
        /// At start.
        Recovery => "recovery",
        /// While reading records, by an exporter or a consumer of the stream.
        Read => "read",
        /// By the scrub, once a day.
        Scrub => "scrub",
    }
}

/// One counter for each value of a closed label set.
#[derive(Debug)]
pub struct Tally<L> {
    counts: [u64; LABELS_MAX],
    label: PhantomData<L>,
}

impl<L> Clone for Tally<L> {
    fn clone(&self) -> Self {
        Self { counts: self.counts, label: PhantomData }
    }
}

impl<L> Default for Tally<L> {
    fn default() -> Self {
        Self { counts: [0; LABELS_MAX], label: PhantomData }
    }
}

impl<L: Label> Tally<L> {
    /// Counts one.
    #[inline]
    pub fn increment(&mut self, label: L) {
        self.add(label, 1);
    }

    /// Counts `amount`.
    #[inline]
    pub fn add(&mut self, label: L, amount: u64) {
        self.counts[label.index()] += amount;
    }

    /// The counter of one value.
    pub fn count(&self, label: L) -> u64 {
        self.counts[label.index()]
    }

    /// Every value with its counter, those at 0 too.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        L::ALL.iter().map(|label| (label.name(), self.count(*label)))
    }

    /// Adds another shard's counters.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
    }
}
