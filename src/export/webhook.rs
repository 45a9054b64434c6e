//! `webhook`: a POST for each record, signed according to Standard Webhooks.
//!
//! A CloudEvent in JSON is sent as it is (structured mode of the CloudEvents HTTP binding). With
//! `encoding = "raw"` or `"protobuf"` the body is the content of the document, and its attributes
//! are `ce-*` headers (binary mode).
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | delivered |
//! | 3xx | tried again: redirects are not followed, the URL must be corrected |
//! | 401, 403, 407 | tried again: credentials |
//! | 404 | tried again: the address |
//! | 408, 425, 5xx | tried again |
//! | 410 | the exporter stops |
//! | 413 | refused: too large |
//! | 429, 503 | tried again, not before `Retry-After` |
//! | other 4xx | refused |
//!
//! 400, 413 and 431 may be caused by our own size: before the record is refused it is sent once
//! more in a smaller form, if it has one. The envelope in headers is then cut to a kilobyte (see
//! `document::attributes`), and at 413 the mail data goes by reference, whatever `inline_max` says.
//!
//! With `requests = 1` order holds: after a record that has to wait, none is sent. With more, an
//! answer that concerns all (no connection, credentials, throttling) stops what has not begun.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, stream};
use hmac::{Hmac, Mac};
use reqwest::{
    Client, Method, StatusCode, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use sha2::Sha256;

use mailrace_tls::client_config;

use super::{
    Document, DocumentOptions, ErrorClass, Outcome, Record, SinkError, TlsOptions, WebhookOptions,
    encode, encode_small,
    sink::{Sink, SinkFuture},
};

/// Octets of an answer's body that are read, so that its connection can be used again.
const ANSWER_OCTETS_MAX: usize = 65_536;
/// Longest that a receiver may put us off.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// See the module's page. Export plane.
pub struct Webhook {
    client: Client,
    url: Url,
    document: DocumentOptions,
    secret: Option<Vec<u8>>,
    authorization: Option<HeaderValue>,
    requests: usize,
    timeout: Duration,
}

impl Webhook {
    /// Reads secret, token and certificates; connects nowhere yet. `timeout` is for one request,
    /// from connecting to the end of the answer.
    ///
    /// # Errors
    /// A URL that is none, a file that cannot be read, a secret that is no base64.
    pub fn new(
        options: &WebhookOptions,
        document: &DocumentOptions,
        timeout: Duration,
    ) -> Result<Self, SinkError> {
        let url = Url::parse(&options.url)
            .map_err(|error| other(format_args!("{}: {error}", options.url)))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(other(format_args!("{}: not http or https", options.url)));
        }
        // reqwest wants a configuration even for http: one that believes nobody is enough there.
        let tls = match url.scheme() {
            "https" => client_config(&TlsOptions { enabled: true, ..options.tls.clone() })?,
            _ => client_config(&TlsOptions::default())?,
        };
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("mailrace/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .timeout(timeout)
            .build()
            .map_err(|error| other(chain(&error)))?;
        Ok(Self {
            client,
            url,
            document: document.clone(),
            secret: options.secret_file.as_deref().map(secret).transpose()?,
            authorization: authorization(options)?,
            requests: options.requests.clamp(1, 64),
            timeout,
        })
    }

    async fn post(&self, record: &Record) -> Outcome {
        let document = encode(record, &self.document);
        let sent = (document.body.len(), header_bytes(&document));
        let (status, outcome) = match self.post_document(record, document).await {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        let Some(smaller) = self.smaller(record, status, sent) else { return outcome };
        match self.post_document(record, smaller).await {
            Ok((_, outcome)) | Err(outcome) => outcome,
        }
    }

    /// What to send where a document of this size, body and attributes, got this answer; `None`
    /// where its size was not the cause, or no smaller form is there.
    fn smaller(
        &self,
        record: &Record,
        status: StatusCode,
        sent: (usize, usize),
    ) -> Option<Document> {
        if !matches!(status.as_u16(), 400 | 413 | 431) {
            return None;
        }
        let by_reference = status == StatusCode::PAYLOAD_TOO_LARGE
            && !self.document.reference_url.is_empty()
            && !record.data.is_empty();
        let options = match by_reference {
            true => DocumentOptions { inline_max: 0, ..self.document.clone() },
            false => self.document.clone(),
        };
        let document = encode_small(record, &options);
        let size = (document.body.len(), header_bytes(&document));
        (size.0 < sent.0 || size.1 < sent.1).then_some(document)
    }

    /// The answer's status and meaning.
    ///
    /// # Errors
    /// There was no answer.
    async fn post_document(
        &self,
        record: &Record,
        document: Document,
    ) -> Result<(StatusCode, Outcome), Outcome> {
        let headers = self.headers(record, &document, SystemTime::now());
        let headers = headers.map_err(Outcome::Refused)?;
        let request = self.client.post(self.url.clone()).headers(headers).body(document.body);
        let mut answer =
            request.send().await.map_err(|error| Outcome::Retry(self.failed(&error)))?;
        let status = answer.status();
        let outcome = judge(status, answer.headers(), SystemTime::now());
        let mut octets = 0;
        while octets < ANSWER_OCTETS_MAX
            && let Ok(Some(piece)) = answer.chunk().await
        {
            octets += piece.len();
        }
        Ok((status, outcome))
    }

    /// Sends nothing once an earlier record of the batch has stopped the others.
    async fn post_unless(&self, record: &Record, stop: &Mutex<Option<SinkError>>) -> Outcome {
        let stopped = stop.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(error) = stopped {
            return Outcome::Retry(error);
        }
        let outcome = self.post(record).await;
        if let Outcome::Retry(error) = &outcome
            && (self.requests == 1 || concerns_all(error.class))
        {
            *stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
        outcome
    }

    fn headers(
        &self,
        record: &Record,
        document: &Document,
        now: SystemTime,
    ) -> Result<HeaderMap, SinkError> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(document.content_type));
        if document.body.is_empty() {
            // RFC 9110 §8.6: a POST says so; the client leaves it out, which some answer with 411.
            headers.insert("content-length", HeaderValue::from_static("0"));
        }
        if !is_structured(document) {
            for (name, value) in &document.attributes {
                // CloudEvents HTTP binding §3.1.1: this one is Content-Type.
                if name != "datacontenttype" {
                    headers.append(header_name(name)?, header_value(value)?);
                }
            }
        }
        let id = record.id.to_string();
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        if let Some(secret) = &self.secret {
            let signature = signature(secret, &id, &timestamp, &document.body);
            headers.insert("webhook-signature", header_value(&signature)?);
        }
        headers.insert("webhook-id", header_value(&id)?);
        headers.insert("webhook-timestamp", header_value(&timestamp)?);
        if let Some(authorization) = &self.authorization {
            headers.insert("authorization", authorization.clone());
        }
        Ok(headers)
    }

    fn failed(&self, error: &reqwest::Error) -> SinkError {
        if error.is_timeout() {
            let seconds = self.timeout.as_secs_f32();
            return SinkError::new(ErrorClass::Timeout, format_args!("no answer in {seconds} s"));
        }
        // A connection that breaks before the answer shows as a failed request.
        let class = match error.is_connect() || error.is_request() {
            true => ErrorClass::Connect,
            false => ErrorClass::Other,
        };
        SinkError::new(class, chain(error))
    }
}

impl Sink for Webhook {
    /// Any answer will do: what a POST would get cannot be known without one.
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(async {
            let request = self.client.request(Method::OPTIONS, self.url.clone());
            request.send().await.map(drop).map_err(|error| self.failed(&error))
        })
    }

    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let stop = Mutex::new(None::<SinkError>);
            let outcomes: Vec<_> =
                records.iter().map(|record| self.post_unless(record, &stop)).collect();
            stream::iter(outcomes).buffered(self.requests).collect().await
        })
    }
}

/// The attributes are within the body.
fn is_structured(document: &Document) -> bool {
    document.content_type.starts_with("application/cloudevents")
}

/// About what the attributes take as headers.
fn header_bytes(document: &Document) -> usize {
    match is_structured(document) {
        true => 0,
        false => document.attributes.iter().map(|(name, value)| name.len() + value.len()).sum(),
    }
}

/// The next record would fare no better.
fn concerns_all(class: ErrorClass) -> bool {
    !matches!(class, ErrorClass::Other | ErrorClass::Refused | ErrorClass::TooLarge)
}

/// What an answer means; the module's page has the table.
fn judge(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Outcome {
    let error = |class| SinkError::new(class, format_args!("the receiver answered {status}"));
    let retry = |class| Outcome::Retry(error(class));
    match status.as_u16() {
        200..300 => Outcome::Delivered,
        300..400 => {
            let text = format!("the receiver answered {status}; redirects are not followed");
            Outcome::Retry(SinkError::new(ErrorClass::Other, text))
        }
        401 | 403 | 407 => retry(ErrorClass::Auth),
        404 => retry(ErrorClass::Missing),
        408 => retry(ErrorClass::Timeout),
        410 => retry(ErrorClass::Gone),
        413 => Outcome::Refused(error(ErrorClass::TooLarge)),
        425 => retry(ErrorClass::Other),
        429 | 503 => Outcome::Retry(SinkError {
            retry_after: retry_after(headers, now),
            ..error(ErrorClass::Throttled)
        }),
        400..500 => Outcome::Refused(error(ErrorClass::Refused)),
        _ => retry(ErrorClass::Other),
    }
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    let wait = match value.bytes().all(|octet| octet.is_ascii_digit()) && !value.is_empty() {
        true => Duration::from_secs(value.parse().unwrap_or(u64::MAX)),
        false => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`.
fn signature(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    for piece in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(piece);
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// `id` is `ce-id`, `mailrace_rcpt_to` is `mailrace-rcpt-to`: proxies drop names with `_`.
fn header_name(attribute: &str) -> Result<HeaderName, SinkError> {
    let name = match attribute.starts_with("mailrace_") {
        true => attribute.replace('_', "-"),
        false => format!("ce-{attribute}"),
    };
    HeaderName::try_from(name).map_err(|error| other(format_args!("{attribute}: {error}")))
}

/// CloudEvents HTTP binding §3.1.3.2: percent-encoded but for printable ASCII without `"` and `%`.
fn header_value(value: &str) -> Result<HeaderValue, SinkError> {
    let mut encoded = String::with_capacity(value.len());
    for octet in value.bytes() {
        match octet {
            b'"' | b'%' => encoded += &format!("%{octet:02X}"),
            0x21..=0x7e => encoded.push(char::from(octet)),
            _ => encoded += &format!("%{octet:02X}"),
        }
    }
    HeaderValue::try_from(encoded).map_err(other)
}

/// Signing secret: `whsec_` and base64, or the file's first line as it is.
fn secret(file: &Path) -> Result<Vec<u8>, SinkError> {
    let text = mailrace_tls::read_secret(file)?;
    match text.strip_prefix("whsec_") {
        Some(encoded) => STANDARD
            .decode(encoded)
            .map_err(|_| other(format_args!("{}: no base64 after whsec_", file.display()))),
        None => Ok(text.into_bytes()),
    }
}

/// A bearer token (RFC 6750), or user and password (RFC 7617).
fn authorization(options: &WebhookOptions) -> Result<Option<HeaderValue>, SinkError> {
    let (text, file) = match (&options.token_file, &options.password_file) {
        (Some(file), _) => (format!("Bearer {}", mailrace_tls::read_secret(file)?), file),
        (None, Some(file)) => {
            let login = format!("{}:{}", options.user, mailrace_tls::read_secret(file)?);
            (format!("Basic {}", STANDARD.encode(login)), file)
        }
        (None, None) => return Ok(None),
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| other(format_args!("{}: no token", file.display())))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// An error with its causes: reqwest's own text alone says little. Its URL is left out, for it may
/// hold a password.
fn chain(error: &reqwest::Error) -> String {
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_builder() {
        "cannot be used"
    } else {
        "request failed"
    };
    let mut text = what.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn other(text: impl std::fmt::Display) -> SinkError {
    SinkError::new(ErrorClass::Other, text)
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
