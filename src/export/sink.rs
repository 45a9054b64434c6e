//! What every sink does, and what it may answer.

use mailrace_tls::SecretError;
use std::{fmt, future::Future, pin::Pin, time::Duration};

use super::record::Record;

/// A future of a sink; boxed, because there is only one for each batch.
pub type SinkFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A system that takes records. Export plane; one for each exporter, shared by its shards' lanes.
///
/// The runner calls `check` before the first batch and after every failure to connect, and
/// `deliver` with records of one shard in the order of their offsets. It repeats what was not
/// taken, keeps the committed offset, and writes dead letters; a sink keeps connections and no
/// positions.
pub trait Sink: Send + Sync {
    /// Connects where there is no connection, and finds out whether the sink could take a record:
    /// credentials, stream, topic, bucket.
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>>;

    /// Delivers records; an [`Outcome`] for each, in their order. `Delivered` is said only once the
    /// sink has promised durability (D11).
    ///
    /// # Cancellation
    /// A dropped future leaves records that may or may not have been taken: they count as not taken.
    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>>;
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has it, durably.
    Delivered,
    /// Not now; it is tried again.
    Retry(SinkError),
    /// Never: the sink refuses this record for good. It becomes a dead letter.
    Refused(SinkError),
}

/// Why a sink did not take something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkError {
    /// For metrics and alerts.
    pub class: ErrorClass,
    /// For people; no secrets, no mail data.
    pub text: String,
    /// The sink said when to come again.
    pub retry_after: Option<Duration>,
}

/// A closed set: the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// No connection, or it broke.
    Connect,
    /// Credentials or rights.
    Auth,
    /// Stream, topic, bucket or address is missing.
    Missing,
    /// No answer in time.
    Timeout,
    /// The sink asks for patience.
    Throttled,
    /// The record is too large for it.
    TooLarge,
    /// It refuses the record for another reason.
    Refused,
    /// It asked the exporter to stop for good (webhook: 410).
    Gone,
    /// Everything else.
    Other,
}

impl ErrorClass {
    /// Every name, as the metrics spell it.
    pub const NAMES: [&'static str; 9] = [
        "connect",
        "auth",
        "missing",
        "timeout",
        "throttled",
        "too_large",
        "refused",
        "gone",
        "other",
    ];

    /// As the metrics spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Auth => "auth",
            Self::Missing => "missing",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Other => "other",
        }
    }
}

impl From<SecretError> for SinkError {
    fn from(error: SecretError) -> Self {
        Self::new(ErrorClass::Auth, error)
    }
}

impl SinkError {
    /// An error without a time to come again.
    pub fn new(class: ErrorClass, text: impl fmt::Display) -> Self {
        // Whatever library it comes from, it may hold an error of rustls.
        Self { class, text: mailrace_tls::plain_text(text.to_string()), retry_after: None }
    }
}

impl From<mailrace_tls::ClientConfigError> for SinkError {
    fn from(error: mailrace_tls::ClientConfigError) -> Self {
        Self::new(ErrorClass::Other, error)
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.class.name())
    }
}

impl std::error::Error for SinkError {}

/// The same answer for each of `records`.
#[must_use]
pub fn all(records: &[Record], outcome: &Outcome) -> Vec<Outcome> {
    records.iter().map(|_| outcome.clone()).collect()
}
