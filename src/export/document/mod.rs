//! A record as consumers see it: a CloudEvent in JSON or protobuf, or the mail data with its
//! envelope in attributes. The schema is in `config/schema`.

mod attributes;
mod header;
mod json;
mod protobuf;
mod refused;

use std::fmt::Write as _;

use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use attributes::percent_encode;
pub use header::{FIELDS_BYTES_MAX, FIELDS_MAX};
pub use refused::{REFUSED_TYPE, refused_line};

use super::{DocumentOptions, Encoding, Key, Record, way_out};
use mailrace_log::format_time_micros;

/// A record, ready for a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Media type of the body.
    pub content_type: &'static str,
    /// CloudEvents attributes and, with [`Encoding::Raw`], those of the envelope, as name and
    /// value. A sink writes the former as `ce_id` or `ce-id`, the latter (`mailrace_…`) as they
    /// are; along with a body in JSON, which holds them too, none is needed. Values are any text:
    /// [`percent_encode`] makes them fit for HTTP and NATS.
    pub attributes: Vec<(String, String)>,
    /// What is sent. Empty where mail data beyond `inline_max` would be sent raw: then the
    /// attribute `dataref` says where it is.
    pub body: Bytes,
    /// Partition key; never empty.
    pub key: Option<String>,
}

/// `type` of the event.
pub const EVENT_TYPE: &str = "mailrace.message.received.v1";

/// Encodes a record.
#[must_use]
pub fn encode(record: &Record, options: &DocumentOptions) -> Document {
    encode_within(record, options, attributes::ENVELOPE_BYTES_MAX)
}

/// As [`encode`], with the shortest envelope among the attributes: for a receiver that found the
/// other too long.
#[must_use]
pub fn encode_small(record: &Record, options: &DocumentOptions) -> Document {
    encode_within(record, options, attributes::ENVELOPE_BYTES_SMALL)
}

fn encode_within(record: &Record, options: &DocumentOptions, envelope_bytes: usize) -> Document {
    let names = Names::new(record, options);
    let (content_type, body) = match options.encoding {
        Encoding::Json => {
            ("application/cloudevents+json", json::encode(record, options, &names).into())
        }
        Encoding::Protobuf => {
            ("application/protobuf", protobuf::encode(record, options, &names).into())
        }
        Encoding::Raw if names.reference.is_some() => ("message/rfc822", Bytes::new()),
        Encoding::Raw => ("message/rfc822", way_out::mail(record)),
    };
    let sent = if body.is_empty() { &record.data } else { &body };
    let attributes = attributes::attributes(record, options, &names, envelope_bytes, sent);
    Document { content_type, attributes, body, key: names.key }
}

/// The CloudEvent in JSON alone, whatever `encoding` says: one line without an end.
#[must_use]
pub fn event_line(record: &Record, options: &DocumentOptions) -> Vec<u8> {
    json::encode(record, options, &Names::new(record, options))
}

/// `mailrace.v1.MessageReceived` alone, whatever `encoding` says; no length in front.
#[must_use]
pub fn event_protobuf(record: &Record, options: &DocumentOptions) -> Vec<u8> {
    protobuf::encode(record, options, &Names::new(record, options))
}

/// As [`event_line`], to look into.
#[must_use]
pub fn event_json(record: &Record, options: &DocumentOptions) -> serde_json::Value {
    serde_json::from_slice(&event_line(record, options)).expect("what was just written is JSON")
}

/// What a record is called in every form.
struct Names {
    id: String,
    source: String,
    time: String,
    sequence: String,
    key: Option<String>,
    /// Where the mail data is, if not within the document.
    reference: Option<String>,
}

impl Names {
    fn new(record: &Record, options: &DocumentOptions) -> Self {
        let id = record.id.to_string();
        let node = id.get(..NODE_DIGITS).unwrap_or_default();
        let reference = (record.data.len() as u64 > options.inline_max)
            .then(|| format!("{}/v1/messages/{id}/raw", options.reference_url));
        Self {
            source: source(node, record.id.shard),
            time: format_time_micros(record.received_at),
            sequence: format!("{:020}", record.id.offset.get()),
            // The partitioning extension of CloudEvents wants a non-empty one.
            key: key(record, options.key).filter(|key| !key.is_empty()).map(short_key),
            reference,
            id,
        }
    }

    fn node(&self) -> &str {
        self.id.get(..NODE_DIGITS).unwrap_or_default()
    }
}

/// The `source` of a shard's events.
fn source(node: &str, shard: u16) -> String {
    format!("/mailrace/{node}/{shard}")
}

/// Of a node's id.
const NODE_DIGITS: usize = 12;

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

/// A key that a client made longer than brokers and receivers like is named by its hash: records
/// of one key still meet in one partition.
fn short_key(key: String) -> String {
    match key.len() > KEY_BYTES_MAX {
        true => format!("sha256:{}", sha256(key.as_bytes())),
        false => key,
    }
}

/// Longest partition key that stands as it is: a local part of 64, a domain of 255 octets, and some.
const KEY_BYTES_MAX: usize = 512;

/// CloudEvents, one a line.
#[cfg(any(feature = "files", feature = "store"))]
pub(crate) fn jsonl(records: &[Record], options: &DocumentOptions) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        out.append(&mut event_line(record, options));
        out.push(b'\n');
    }
    out
}

fn sha256(data: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for octet in Sha256::digest(data) {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{octet:02x}");
    }
    hex
}
