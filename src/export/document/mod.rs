//! A record as consumers see it: a CloudEvent in JSON or protobuf, or the mail data with its
//! envelope in attributes. The schema is in `config/schema`.

use bytes::Bytes;

use super::{DocumentOptions, Encoding, Key, Record};
use crate::log::format_time_micros;

/// A record, ready for a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Media type of the body.
    pub content_type: &'static str,
    /// CloudEvents attributes and, with [`Encoding::Raw`], those of the envelope, as name and
    /// value. A sink writes the former as `ce_id` or `ce-id`, the latter (`mailrace_…`) likewise.
    pub attributes: Vec<(String, String)>,
    /// What is sent.
    pub body: Bytes,
    /// Partition key.
    pub key: Option<String>,
}

/// Encodes a record.
#[must_use]
pub fn encode(record: &Record, options: &DocumentOptions) -> Document {
    let attributes = vec![
        ("specversion".to_owned(), "1.0".to_owned()),
        ("type".to_owned(), EVENT_TYPE.to_owned()),
        ("id".to_owned(), record.id.to_string()),
        ("time".to_owned(), format_time_micros(record.received_at)),
    ];
    let (content_type, body) = match options.encoding {
        Encoding::Raw => ("message/rfc822", record.data.clone()),
        Encoding::Json | Encoding::Protobuf => (
            "application/cloudevents+json",
            Bytes::from(serde_json::json!({ "id": record.id.to_string() }).to_string()),
        ),
    };
    Document { content_type, attributes, body, key: key(record, options.key) }
}

/// `type` of the event.
pub const EVENT_TYPE: &str = "mailrace.message.received.v1";

/// The partition key.
fn key(record: &Record, key: Key) -> Option<String> {
    match key {
        Key::None => None,
        Key::Rcpt => record.rcpt_to.first().cloned(),
        Key::RcptDomain => Some(record.rcpt_domain()),
        Key::MailFrom => Some(record.mail_from.clone()),
        Key::Id => Some(record.id.to_string()),
    }
}
