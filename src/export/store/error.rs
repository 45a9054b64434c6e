//! What a store's error means to an exporter.

use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};

use crate::{ErrorClass, SinkError};

/// Longest text of a server that is passed on.
const TEXT_CHARS_MAX: usize = 300;

pub(super) fn classify(error: Error) -> SinkError {
    let class = match &error {
        Error::NotFound { .. } => ErrorClass::Missing,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ErrorClass::Auth,
        other => of_request(other),
    };
    SinkError::new(class, text(&error))
}

/// The store does not implement PUT with a condition.
pub(super) fn knows_no_condition(error: &Error) -> bool {
    let refused = || status(&error.to_string()).is_some_and(|status| status == 501);
    matches!(error, Error::NotImplemented { .. } | Error::NotSupported { .. }) || refused()
}

fn of_request(error: &Error) -> ErrorClass {
    if let Some(kind) = http_error(error).map(HttpError::kind) {
        return match kind {
            HttpErrorKind::Timeout => ErrorClass::Timeout,
            _ => ErrorClass::Connect,
        };
    }
    let text = error.to_string();
    match status(&text) {
        Some(429) => ErrorClass::Throttled,
        // S3 says SlowDown with 503; one that is just starting or stopping says it as well.
        Some(503) => ErrorClass::Throttled,
        Some(408 | 504) => ErrorClass::Timeout,
        Some(502) => ErrorClass::Connect,
        Some(401 | 403) => ErrorClass::Auth,
        // S3 answers 400 to an expired or malformed token.
        Some(400) if text.contains("Token") || text.contains("Authorization") => ErrorClass::Auth,
        Some(400) if text.contains("EntityTooLarge") => ErrorClass::TooLarge,
        Some(413) => ErrorClass::TooLarge,
        Some(404) => ErrorClass::Missing,
        _ => ErrorClass::Other,
    }
}

fn http_error(error: &Error) -> Option<&HttpError> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The library gives the status in its text only.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// One line, without what a server wrote at length.
fn text(error: &Error) -> String {
    let mut text = without_times(error.to_string());
    if let Some(cause) = http_error(error).and_then(innermost).map(ToString::to_string)
        && !text.contains(&cause)
    {
        text = format!("{text}: {cause}");
    }
    let mut short: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The library says how long it took and how often it tried: no text would equal that of the
/// attempt before, and each would be logged.
fn without_times(text: String) -> String {
    let parts = text
        .contains("Error performing ")
        .then(|| text.split_once(" in ").zip(text.split_once(" - ")))
        .flatten();
    match parts {
        Some(((what, _), (_, cause))) => format!("{what}: {}", cause.trim_start()),
        None => text,
    }
}

fn innermost(error: &HttpError) -> Option<&(dyn std::error::Error + 'static)> {
    let mut cause = std::error::Error::source(error)?;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Some(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_comes_again_has_the_same_text() {
        let text = |times: &str| {
            let source = format!("Error performing PUT http://a/mail/x {times} - HTTP error: no");
            text(&Error::Generic { store: "S3", source: source.into() })
        };
        let told = text("in 50.1ms, after 1 retries, max_retries: 1, retry_timeout: 10s ");
        assert_eq!(told, "Generic S3 error: Error performing PUT http://a/mail/x: HTTP error: no");
        assert_eq!(told, text("in 7.4s"));
    }

    #[test]
    fn statuses_have_classes() {
        for (answer, class) in [
            ("status code: 503 Service Unavailable: <Code>SlowDown</Code>", ErrorClass::Throttled),
            ("status code: 429 Too Many Requests: ", ErrorClass::Throttled),
            ("status code: 504 Gateway Timeout: ", ErrorClass::Timeout),
            ("status code: 400 Bad Request: <Code>EntityTooLarge</Code>", ErrorClass::TooLarge),
            ("status code: 400 Bad Request: <Code>ExpiredToken</Code>", ErrorClass::Auth),
            ("status code: 400 Bad Request: <Code>InvalidRequest</Code>", ErrorClass::Other),
            ("status code: 500 Internal Server Error", ErrorClass::Other),
            ("something else", ErrorClass::Other),
        ] {
            let error = Error::Generic { store: "S3", source: answer.into() };
            assert_eq!(classify(error).class, class, "{answer}");
        }
        let error = |answer: &str| Error::Generic { store: "S3", source: answer.into() };
        assert!(knows_no_condition(&error("status code: 501 Not Implemented: ")));
        assert!(!knows_no_condition(&error("status code: 500 Internal Server Error")));
    }
}
