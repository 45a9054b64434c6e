//! The stream: checked or created; and what JetStream's errors mean here.

use std::{error::Error as _, time::Duration};

use async_nats::jetstream::{
    self, Context, ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind, RequestError, RequestErrorKind},
    stream::{Config, StorageType},
};

use super::subject::{Coverage, Template, coverage};
use crate::{ErrorClass, NatsOptions, SinkError};

/// Shortest time in which JetStream should drop what comes twice: the retries of an outage that
/// lasts as long as a restart (D4).
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// What a template asks of the stream.
pub(super) struct Subjects {
    /// All it can give.
    pattern: String,
    /// What a stream made for it takes.
    taken: String,
}

impl Subjects {
    pub(super) fn new(template: &Template) -> Self {
        Self { pattern: template.pattern(), taken: template.stream_subject() }
    }
}

/// Looks the stream up, and makes it where that is wanted.
///
/// # Errors
/// It is missing, takes none of the template's subjects, or JetStream refuses to make it.
pub(super) async fn ensure(
    context: &Context,
    options: &NatsOptions,
    subjects: &Subjects,
) -> Result<(), SinkError> {
    let name = &options.stream;
    let error = match context.get_stream(name).await {
        Ok(stream) => return check(&stream.cached_info().config, subjects),
        Err(error) => error,
    };
    match error.kind() {
        GetStreamErrorKind::JetStream(cause)
            if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
        {
            if options.create {
                return create(context, options, subjects).await;
            }
            let text = format!("the stream {name} is missing, and create is not set");
            Err(SinkError::new(ErrorClass::Missing, text))
        }
        GetStreamErrorKind::JetStream(cause) => Err(refusal(&cause)),
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
            Err(SinkError::new(ErrorClass::Other, format!("{name:?} is not a stream name")))
        }
        GetStreamErrorKind::Request => {
            let cause = error.source().and_then(|source| source.downcast_ref::<RequestError>());
            Err(request_error(cause.map(async_nats::error::Error::kind), &error))
        }
    }
}

/// Whether a stream that is there takes what the template gives.
fn check(config: &Config, subjects: &Subjects) -> Result<(), SinkError> {
    let Subjects { pattern, .. } = subjects;
    let taken = config.subjects.join(", ");
    match coverage(&config.subjects, pattern) {
        Coverage::None => {
            let text = format!("the stream {} accepts {taken} but not {pattern}", config.name);
            return Err(SinkError::new(ErrorClass::Missing, text));
        }
        Coverage::Some => {
            tracing::warn!(
                stream = config.name,
                taken,
                pattern,
                "the stream may not accept every subject"
            );
        }
        Coverage::All => {}
    }
    if config.no_ack {
        let text = format!("the stream {} acknowledges nothing (no_ack)", config.name);
        return Err(SinkError::new(ErrorClass::Other, text));
    }
    if config.duplicate_window < DUPLICATE_WINDOW {
        let window = config.duplicate_window.as_secs();
        tracing::warn!(
            stream = config.name,
            window,
            "the stream's duplicate window is short: a late retry may be stored twice"
        );
    }
    Ok(())
}

async fn create(
    context: &Context,
    options: &NatsOptions,
    subjects: &Subjects,
) -> Result<(), SinkError> {
    let config = Config {
        name: options.stream.clone(),
        subjects: vec![subjects.taken.clone()],
        storage: StorageType::File,
        num_replicas: options.replicas,
        duplicate_window: DUPLICATE_WINDOW,
        description: Some("mail accepted by Mailrace".to_owned()),
        ..Config::default()
    };
    let error = match context.create_stream(config).await {
        Ok(_) => {
            tracing::info!(stream = options.stream, subject = subjects.taken, "stream created");
            return Ok(());
        }
        Err(error) => error,
    };
    let cause = match error.kind() {
        CreateStreamErrorKind::JetStream(cause) => refusal(&cause),
        CreateStreamErrorKind::TimedOut => request_error(Some(RequestErrorKind::TimedOut), &error),
        CreateStreamErrorKind::JetStreamUnavailable => {
            request_error(Some(RequestErrorKind::NoResponders), &error)
        }
        _ => SinkError::new(ErrorClass::Other, &error),
    };
    let text = format!("creating the stream {}: {}", options.stream, cause.text);
    Err(SinkError { text, ..cause })
}

/// What JetStream's own errors mean, those of a PubAck among them.
pub(super) fn refusal(error: &jetstream::Error) -> SinkError {
    let class = match error.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        | ErrorCode::NO_ACCOUNT
        | ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::STREAM_NOT_MATCH
        | ErrorCode::STREAM_MISMATCH => ErrorClass::Missing,
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            ErrorClass::TooLarge
        }
        // Room that is full: retention or an operator makes some.
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED
        | ErrorCode::MAXIMUM_STREAMS_LIMIT
        | ErrorCode::STREAM_LIMITS
        | ErrorCode::STREAM_TOO_MANY_REQUESTS => ErrorClass::Throttled,
        _ => ErrorClass::Other,
    };
    SinkError::new(class, format!("JetStream: {error}"))
}

fn request_error(kind: Option<RequestErrorKind>, error: &dyn std::fmt::Display) -> SinkError {
    match kind {
        Some(RequestErrorKind::NoResponders) => {
            SinkError::new(ErrorClass::Missing, "JetStream is not enabled on the server")
        }
        Some(RequestErrorKind::TimedOut) => {
            SinkError::new(ErrorClass::Timeout, "JetStream did not answer")
        }
        _ => SinkError::new(ErrorClass::Connect, format!("looking up the stream: {error}")),
    }
}
