//! Plain counters of the protocol core; the driver publishes them.

use super::command::Verb;
use super::path::Lenient;
use super::sasl::Mechanism;

/// Reply codes with a counter of their own; every other code is counted last.
pub const REPLY_CODES: [u16; 28] = [
    214, 220, 221, 235, 250, 252, 334, 354, 421, 451, 452, 454, 500, 501, 502, 503, 504, 521, 523,
    530, 534, 535, 538, 550, 552, 553, 554, 555,
];

/// Ways in which a peer breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// A command or a message with an LF that has no CR.
    BareLf,
    /// A command line or a line of mail data over its limit.
    LineTooLong,
    /// A command out of order.
    BadSequence,
    /// A command or an argument outside the grammar.
    BadSyntax,
    /// Octets before the greeting, or after EHLO or DATA.
    EarlyTalker,
}

impl ProtocolError {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 5] =
        [Self::BareLf, Self::LineTooLong, Self::BadSequence, Self::BadSyntax, Self::EarlyTalker];

    /// Name as a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::LineTooLong => "line_too_long",
            Self::BadSequence => "bad_sequence",
            Self::BadSyntax => "bad_syntax",
            Self::EarlyTalker => "early_talker",
        }
    }
}

/// Why a message, a recipient or a session was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// Over the message size.
    Size,
    /// Over the number of recipients, or none.
    Recipients,
    /// Over a limit of the session.
    Policy,
    /// Authentication.
    Auth,
    /// Memory full, or the commit took too long.
    Backpressure,
    /// Too little free space.
    DiskFull,
    /// The log failed.
    LogError,
    /// The mail data itself.
    Content,
    /// What was found out about its sender.
    Verdict,
}

impl RejectReason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::Size,
        Self::Recipients,
        Self::Policy,
        Self::Auth,
        Self::Backpressure,
        Self::DiskFull,
        Self::LogError,
        Self::Content,
        Self::Verdict,
    ];

    /// Name as a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Recipients => "recipients",
            Self::Policy => "policy",
            Self::Auth => "auth",
            Self::Backpressure => "backpressure",
            Self::DiskFull => "disk_full",
            Self::LogError => "log_error",
            Self::Content => "content",
            Self::Verdict => "verdict",
        }
    }
}

/// What became of an exchange of AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthResult {
    /// 235.
    Ok,
    /// 535.
    Failed,
    /// The client cancelled it, or broke the protocol: 500, 501.
    Aborted,
    /// It could not be found out: 421, 454.
    Unavailable,
}

impl AuthResult {
    /// Every result, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Aborted, Self::Unavailable];
}

/// Counters of all sessions of one shard since it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Commands, by place in [`Verb::ALL`].
    pub commands: [u64; Verb::ALL.len()],
    /// Replies rendered, by place in [`REPLY_CODES`]; the last counts all other codes.
    pub replies: [u64; REPLY_CODES.len() + 1],
    /// Protocol errors, by place in [`ProtocolError::ALL`].
    pub protocol_errors: [u64; ProtocolError::ALL.len()],
    /// Arguments taken that are outside the grammar, by place in [`Lenient::ALL`].
    pub lenient: [u64; Lenient::ALL.len()],
    /// Refusals with 4yz, by place in [`RejectReason::ALL`].
    pub rejected_4yz: [u64; RejectReason::ALL.len()],
    /// Refusals with 5yz, by place in [`RejectReason::ALL`].
    pub rejected_5yz: [u64; RejectReason::ALL.len()],
    /// Exchanges of AUTH, by place in [`Mechanism::ALL`], then in [`AuthResult::ALL`].
    pub auth: [[u64; AuthResult::ALL.len()]; Mechanism::ALL.len()],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            commands: [0; Verb::ALL.len()],
            replies: [0; REPLY_CODES.len() + 1],
            protocol_errors: [0; ProtocolError::ALL.len()],
            lenient: [0; Lenient::ALL.len()],
            rejected_4yz: [0; RejectReason::ALL.len()],
            rejected_5yz: [0; RejectReason::ALL.len()],
            auth: [[0; AuthResult::ALL.len()]; Mechanism::ALL.len()],
        }
    }
}

impl Stats {
    /// Adds the counters of `other` to these.
    pub fn merge(&mut self, other: &Self) {
        fn add(into: &mut [u64], from: &[u64]) {
            for (into, from) in into.iter_mut().zip(from) {
                *into += from;
            }
        }
        add(&mut self.commands, &other.commands);
        add(&mut self.replies, &other.replies);
        add(&mut self.protocol_errors, &other.protocol_errors);
        add(&mut self.lenient, &other.lenient);
        add(&mut self.rejected_4yz, &other.rejected_4yz);
        add(&mut self.rejected_5yz, &other.rejected_5yz);
        add(self.auth.as_flattened_mut(), other.auth.as_flattened());
    }

    /// Counts a refusal under `code`, by its class. The driver does so for failed holds.
    pub fn count_rejected(&mut self, code: u16, reason: RejectReason) {
        let class = if code < 500 { &mut self.rejected_4yz } else { &mut self.rejected_5yz };
        count(class, reason as usize, 1);
    }

    pub(super) fn count_auth(&mut self, mechanism: Mechanism, result: AuthResult) {
        if let Some(results) = self.auth.get_mut(mechanism as usize) {
            count(results, result as usize, 1);
        }
    }

    pub(super) fn count_command(&mut self, verb: Verb) {
        count(&mut self.commands, verb as usize, 1);
    }

    pub(super) fn count_reply(&mut self, code: u16) {
        self.count_replies(code, 1);
    }

    /// Counts replies with this code.
    pub fn count_replies(&mut self, code: u16, times: u64) {
        let place = REPLY_CODES.iter().position(|known| *known == code);
        count(&mut self.replies, place.unwrap_or(REPLY_CODES.len()), times);
    }

    pub(super) fn count_lenient(&mut self, way: Lenient) {
        count(&mut self.lenient, way as usize, 1);
    }

    pub(super) fn count_error(&mut self, error: ProtocolError) {
        count(&mut self.protocol_errors, error as usize, 1);
    }
}

/// A place beyond the counters, of which there is none, would not be counted.
fn count(counters: &mut [u64], at: usize, times: u64) {
    if let Some(counter) = counters.get_mut(at) {
        *counter += times;
    }
}
