//! NATS JetStream: a message for each record, each acknowledged by the stream.
//!
//! The id of a record is its `Nats-Msg-Id`, so within its duplicate window JetStream drops what is
//! sent again; only a replay that it would drop is sent as `<id>+<time>`. A lane publishes ahead of
//! the acks, in the order of the records; what is outstanding is bounded in number and octets. Once
//! a record was not accepted, nothing after it is published, and a broken connection takes its
//! queue along (see `connection`), so that what is tried again does not fall behind its successors.

mod connection;
mod stream;
mod subject;

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_nats::{
    HeaderMap, header,
    jetstream::{
        self,
        context::{PublishAckFuture, PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};

use self::{
    connection::{Connection, Connector},
    subject::Template,
};
use super::{
    Document, DocumentOptions, ErrorClass, NatsOptions, Outcome, Record, Sink, SinkError,
    SinkFuture, document,
};

/// Acks a lane lets be outstanding: at a millisecond there and back enough for a million a second.
const ACKS_MAX: usize = 1024;

/// Octets a lane lets be outstanding, if more than one message is: a hundred milliseconds of a
/// gigabit.
const BYTES_MAX: usize = 12 << 20;

/// The sink. Export plane; the lanes of an exporter share its connection.
pub struct Nats {
    connector: Connector,
    template: Template,
    stream: String,
    document: DocumentOptions,
    timeout: Duration,
}

impl Nats {
    /// A sink that is not connected yet. An attempt to deliver takes no longer than `timeout`.
    ///
    /// # Errors
    /// The subject is not a valid template.
    pub fn new(
        options: NatsOptions,
        document: DocumentOptions,
        timeout: Duration,
    ) -> Result<Self, SinkError> {
        let template = Template::parse(&options.subject)?;
        let stream = options.stream.clone();
        let connector = Connector::new(options, stream::Subjects::new(&template), timeout);
        Ok(Self { connector, template, stream, document, timeout })
    }

    /// Publishes and settles; what is undecided when it ends is for the caller.
    async fn publish(
        &self,
        connection: &Connection,
        records: &[Record],
        outcomes: &mut [Option<Outcome>],
    ) -> Result<(), SinkError> {
        let mut known = Vec::new();
        let all = records.iter().enumerate().map(|(index, record)| (index, record.id.to_string()));
        self.publish_as(connection, records, all, outcomes, &mut known).await?;
        // What JetStream remembers it drops, though the message may be gone: purged, or taken off a
        // work queue. A replay was asked for and has to arrive: it goes under a name never used.
        let replays = known.iter().filter(|index| records[**index].replay);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let again: Vec<_> =
            replays.map(|index| (*index, format!("{}+{now}", records[*index].id))).collect();
        for (index, _) in &again {
            outcomes[*index] = None;
        }
        self.publish_as(connection, records, again.into_iter(), outcomes, &mut Vec::new()).await
    }

    /// Publishes some of the records, each under its `Nats-Msg-Id`; `known` gets those that the
    /// stream says it has had.
    async fn publish_as(
        &self,
        connection: &Connection,
        records: &[Record],
        names: impl Iterator<Item = (usize, String)>,
        outcomes: &mut [Option<Outcome>],
        known: &mut Vec<usize>,
    ) -> Result<(), SinkError> {
        let mut window = Window::default();
        for (index, name) in names {
            let record = &records[index];
            let (message, size) = self.message(record, &name);
            while window.is_full(size) {
                self.settle(&mut window, outcomes, known).await?;
            }
            match connection.context.send_publish(self.template.fill(record), message).await {
                Ok(ack) => window.push(index, size, ack),
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    outcomes[index] = Some(Outcome::Refused(publish_error(&error)));
                }
                Err(error) => {
                    // Its predecessors may still be acknowledged.
                    while !window.is_empty() {
                        self.settle(&mut window, outcomes, known).await?;
                    }
                    return Err(publish_error(&error));
                }
            }
        }
        while !window.is_empty() {
            self.settle(&mut window, outcomes, known).await?;
        }
        Ok(())
    }

    /// Waits for the oldest ack. After a failure those after it are collected too, because they may
    /// have been stored; what follows them is not sent.
    async fn settle(
        &self,
        window: &mut Window,
        outcomes: &mut [Option<Outcome>],
        known: &mut Vec<usize>,
    ) -> Result<(), SinkError> {
        let mut failure = None;
        while let Some((index, ack)) = window.pop() {
            let outcome = match ack.await {
                Ok(ack) if ack.stream == self.stream => {
                    // A duplicate has been stored before.
                    if ack.duplicate {
                        known.push(index);
                    }
                    Outcome::Delivered
                }
                Ok(ack) => Outcome::Retry(SinkError::new(
                    ErrorClass::Missing,
                    format!("the stream {} accepted it instead of {}", ack.stream, self.stream),
                )),
                Err(error) => match publish_error(&error) {
                    error if error.class == ErrorClass::TooLarge => Outcome::Refused(error),
                    error => Outcome::Retry(error),
                },
            };
            if let Outcome::Retry(error) = &outcome {
                failure.get_or_insert_with(|| error.clone());
            }
            outcomes[index] = Some(outcome);
            if failure.is_none() {
                return Ok(());
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// A record as a message of this `Nats-Msg-Id`, and about how much it holds.
    fn message(&self, record: &Record, name: &str) -> (PublishMessage, usize) {
        let document = document::encode(record, &self.document);
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, name);
        headers.insert(header::NATS_EXPECTED_STREAM, self.stream.as_str());
        headers.insert("content-type", document.content_type);
        let mut size = document.body.len() + 256;
        if !is_structured(&document) {
            for (name, value) in &document.attributes {
                let name = match name.strip_prefix("mailrace_") {
                    Some(name) => format!("mailrace-{name}"),
                    None => format!("ce-{name}"),
                };
                let value = percent_encoded(value);
                size += name.len() + value.len();
                headers.insert(name, value.as_ref());
            }
        }
        (PublishMessage::build().headers(headers).payload(document.body), size)
    }
}

impl Sink for Nats {
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(self.connector.check())
    }

    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut outcomes = vec![None; records.len()];
            let mut used: Option<Arc<Connection>> = None;
            let work = async {
                let connection = used.insert(self.connector.get().await?);
                connection.or_complaint(self.publish(connection, records, &mut outcomes)).await
            };
            let done = tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| {
                let text = format!("not acknowledged within {} s", self.timeout.as_secs_f64());
                Err(SinkError::new(ErrorClass::Timeout, text))
            });
            let Err(error) = done else {
                return outcomes.into_iter().flatten().collect();
            };
            // A stream that is only full answers over the same connection tomorrow. All else is
            // looked at anew: the connection, the credentials, the stream.
            if let Some(connection) = used
                && error.class != ErrorClass::Throttled
            {
                self.connector.forget(&connection).await;
            }
            let missing = Outcome::Retry(error);
            outcomes.into_iter().map(|known| known.unwrap_or_else(|| missing.clone())).collect()
        })
    }
}

/// Messages that were published and not yet acknowledged, oldest first.
#[derive(Default)]
struct Window {
    outstanding: VecDeque<(usize, usize, PublishAckFuture)>,
    bytes: usize,
}

impl Window {
    /// Whether another message of this size has to wait. The first never does.
    fn is_full(&self, size: usize) -> bool {
        !self.is_empty() && (self.outstanding.len() >= ACKS_MAX || self.bytes + size > BYTES_MAX)
    }

    fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    fn push(&mut self, index: usize, size: usize, ack: PublishAckFuture) {
        self.bytes += size;
        self.outstanding.push_back((index, size, ack));
    }

    fn pop(&mut self) -> Option<(usize, PublishAckFuture)> {
        let (index, size, ack) = self.outstanding.pop_front()?;
        self.bytes -= size;
        Some((index, ack))
    }
}

/// The attributes lie within the body.
fn is_structured(document: &Document) -> bool {
    document.content_type.starts_with("application/cloudevents")
}

/// A header's value as CloudEvents has it over HTTP and NATS (HTTP binding §3.1.3.2): space, quote,
/// percent and all beyond printable ASCII by their UTF-8 octets.
fn percent_encoded(value: &str) -> Cow<'_, str> {
    let plain = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'"' | b'%');
    if value.bytes().all(plain) {
        return Cow::Borrowed(value);
    }
    let mut encoded = String::with_capacity(value.len() * 3);
    for octet in value.bytes() {
        if plain(octet) {
            encoded.push(octet.into());
        } else {
            let _ = write!(encoded, "%{octet:02X}");
        }
    }
    Cow::Owned(encoded)
}

fn publish_error(error: &PublishError) -> SinkError {
    use std::error::Error as _;
    let source = error.source();
    if let Some(cause) = source.and_then(|source| source.downcast_ref::<jetstream::Error>()) {
        return stream::refusal(cause);
    }
    let (class, text) = match error.kind() {
        PublishErrorKind::StreamNotFound => (ErrorClass::Missing, "no stream accepts the subject"),
        PublishErrorKind::BrokenPipe => (ErrorClass::Connect, "the connection broke"),
        PublishErrorKind::TimedOut => (ErrorClass::Timeout, "no ack in time"),
        PublishErrorKind::MaxPayloadExceeded => (ErrorClass::TooLarge, ""),
        _ if error.to_string().contains("channel closed") => {
            (ErrorClass::Connect, "the connection broke")
        }
        _ => (ErrorClass::Other, ""),
    };
    match (text, source) {
        ("", Some(source)) => SinkError::new(class, source),
        ("", None) => SinkError::new(class, error),
        _ => SinkError::new(class, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CloudEvents HTTP binding §3.1.3.2, with its example.
    #[test]
    fn header_values_are_percent_encoded() {
        assert_eq!(percent_encoded("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(percent_encoded("a\"b%c\r\n"), "a%22b%25c%0D%0A");
        assert_eq!(percent_encoded("sales@example.com"), "sales@example.com");
        assert_eq!(percent_encoded(""), "");
    }
}
