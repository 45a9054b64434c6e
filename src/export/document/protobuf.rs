//! `mailrace.v1.MessageReceived`: the data of the event in protobuf. Equal to
//! `config/schema/mailrace.v1.proto`, which is for consumers; a test reads by it what is sent.

use bytes::Bytes;
use mailrace_log::{Label, Member, Metadata, Section, Value};
use prost::{
    Message,
    encoding::{WireType, bool, encode_key, encode_varint, sint32, uint64},
};

use super::{Names, header::Header};
use crate::{DocumentOptions, Record};

/// One accepted message.
#[derive(Clone, PartialEq, Message)]
struct MessageReceived {
    /// Record id, the idempotency key.
    #[prost(string, tag = "1")]
    id: String,
    /// When the mail data had been received.
    #[prost(message, optional, tag = "2")]
    received_at: Option<Timestamp>,
    /// Name of the listener.
    #[prost(string, tag = "3")]
    listener: String,
    /// Where it lies.
    #[prost(message, optional, tag = "4")]
    log: Option<LogPlace>,
    /// What was said about it.
    #[prost(bytes = "vec", optional, tag = "5")]
    envelope: Option<Vec<u8>>,
    /// The proxy that said it.
    #[prost(bytes = "vec", optional, tag = "6")]
    client: Option<Vec<u8>>,
    /// Absent: plain text.
    #[prost(bytes = "vec", optional, tag = "7")]
    tls: Option<Vec<u8>>,
    /// Absent: no checks were made.
    #[prost(bytes = "vec", optional, tag = "8")]
    auth: Option<Vec<u8>>,
    /// Header fields in order, unfolded.
    #[prost(message, repeated, tag = "9")]
    headers: Vec<HeaderField>,
    /// There were more, or too large ones.
    #[prost(bool, tag = "10")]
    headers_truncated: bool,
    /// As in the header.
    #[prost(string, optional, tag = "11")]
    message_id: Option<String>,
    /// With RFC 2047 decoded.
    #[prost(string, optional, tag = "12")]
    subject: Option<String>,
    /// Octets of mail data.
    #[prost(uint64, tag = "13")]
    size: u64,
    /// Of the mail data, in hexadecimal; absent unless asked for.
    #[prost(string, optional, tag = "14")]
    sha256: Option<String>,
    /// The mail data, exact; absent if it is passed by reference.
    #[prost(bytes = "bytes", optional, tag = "15")]
    raw: Option<Bytes>,
    /// Where the mail data can be fetched.
    #[prost(message, optional, tag = "16")]
    raw_ref: Option<Reference>,
    /// It was sent before.
    #[prost(bool, tag = "17")]
    replay: bool,
    /// Names of what was noticed in the mail data.
    #[prost(string, repeated, tag = "18")]
    flags: Vec<String>,
    /// Of From fields.
    #[prost(message, repeated, tag = "19")]
    from: Vec<Mailbox>,
    /// Of To fields.
    #[prost(message, repeated, tag = "20")]
    to: Vec<Mailbox>,
    /// Of Cc fields.
    #[prost(message, repeated, tag = "21")]
    cc: Vec<Mailbox>,
    /// The Date field.
    #[prost(message, optional, tag = "22")]
    date: Option<Timestamp>,
    /// Media type, in lower case.
    #[prost(string, optional, tag = "23")]
    content_type: Option<String>,
    /// What the sender calls a mail that is a file as a whole.
    #[prost(string, optional, tag = "24")]
    file_name: Option<String>,
}

/// As `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    seconds: i64,
    /// 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Where a record lies.
#[derive(Clone, PartialEq, Eq, Message)]
struct LogPlace {
    /// 12 hexadecimal digits.
    #[prost(string, tag = "1")]
    node: String,
    /// Shard.
    #[prost(uint32, tag = "2")]
    shard: u32,
    /// Its number in the shard's log.
    #[prost(uint64, tag = "3")]
    offset: u64,
}

/// Of an address field; at least one of the two is there.
#[derive(Clone, PartialEq, Eq, Message)]
struct Mailbox {
    /// Display name or comment, decoded.
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    /// As it was written.
    #[prost(string, optional, tag = "2")]
    address: Option<String>,
}

/// One header field.
#[derive(Clone, PartialEq, Eq, Message)]
struct HeaderField {
    /// As it was written.
    #[prost(string, tag = "1")]
    name: String,
    /// Unfolded, invalid UTF-8 replaced.
    #[prost(string, tag = "2")]
    value: String,
}

/// Claim check.
#[derive(Clone, PartialEq, Eq, Message)]
struct Reference {
    /// Answers with the mail data.
    #[prost(string, tag = "1")]
    url: String,
    /// Octets of it.
    #[prost(uint64, tag = "2")]
    size: u64,
}

/// The record in protobuf.
pub(super) fn encode(record: &Record, options: &DocumentOptions, names: &Names) -> Vec<u8> {
    let header = Header::read(&record.data);
    let size = record.data.len() as u64;
    let metadata = record.metadata();
    let nanos = record.received_at.rem_euclid(1_000_000) * 1_000;
    let raw_ref = names.reference.clone().map(|url| Reference { url, size });
    MessageReceived {
        id: names.id.clone(),
        received_at: Some(Timestamp {
            seconds: record.received_at.div_euclid(1_000_000),
            nanos: i32::try_from(nanos).expect("less than a second"),
        }),
        listener: record.listener.clone(),
        log: Some(LogPlace {
            node: names.node().to_owned(),
            shard: u32::from(record.id.shard),
            offset: record.id.offset.get(),
        }),
        envelope: Some(envelope(record, &metadata)),
        client: section(Section::Client, &metadata),
        tls: section(Section::Tls, &metadata),
        auth: section(Section::Auth, &metadata),
        headers: header
            .fields
            .into_iter()
            .map(|field| HeaderField {
                name: field.name.to_owned(),
                value: field.value.into_owned(),
            })
            .collect(),
        headers_truncated: header.truncated,
        message_id: header.summary.message_id,
        subject: header.summary.subject,
        size,
        sha256: options.sha256.then(|| super::sha256(&record.data)),
        raw: raw_ref.is_none().then(|| record.data.clone()),
        raw_ref,
        replay: record.replay,
        flags: record.flag_names().map(str::to_owned).collect(),
        from: mailboxes(header.summary.from),
        to: mailboxes(header.summary.to),
        cc: mailboxes(header.summary.cc),
        date: header.summary.date.map(|seconds| Timestamp { seconds, nanos: 0 }),
        content_type: header.summary.content_type,
        file_name: header.summary.file_name,
    }
    .encode_to_vec()
}

fn mailboxes(all: Vec<mailrace_header::Mailbox>) -> Vec<Mailbox> {
    let of = |mailrace_header::Mailbox { name, address }| Mailbox { name, address };
    all.into_iter().map(of).collect()
}

/// The paths, then what else the envelope says.
fn envelope(record: &Record, metadata: &Metadata<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    if !record.mail_from.is_empty() {
        put_octets(1, record.mail_from.as_bytes(), &mut out);
    }
    for path in &record.rcpt_to {
        put_octets(2, path.as_bytes(), &mut out);
    }
    put_section(Section::Envelope, metadata, &mut out);
    out
}

fn section(section: Section, metadata: &Metadata<'_>) -> Option<Vec<u8>> {
    section.is_known(metadata).then(|| {
        let mut out = Vec::new();
        put_section(section, metadata, &mut out);
        out
    })
}

fn put_section(section: Section, metadata: &Metadata<'_>, out: &mut Vec<u8>) {
    for field in section.fields() {
        put(&field.member, &field.read(metadata), out);
    }
}

/// Appends a field as proto3 has it: without presence, what is empty or 0 is left out.
fn put(member: &Member, value: &Value<'_>, out: &mut Vec<u8>) {
    let number = member.number;
    let has_presence = member.label != Label::Always;
    match value {
        Value::Null => {}
        Value::Bool(value) if *value || has_presence => bool::encode(number, value, out),
        Value::Signed(value) if *value != 0 || has_presence => sint32::encode(number, value, out),
        // A `uint32` is written like it.
        Value::Unsigned(value) if *value != 0 || has_presence => uint64::encode(number, value, out),
        Value::Text(text) if !text.is_empty() || has_presence => {
            put_octets(number, text.as_bytes(), out);
        }
        Value::Bool(_) | Value::Signed(_) | Value::Unsigned(_) | Value::Text(_) => {}
        Value::List(values) => {
            for value in values {
                match value {
                    // An item that says nothing keeps its place.
                    Value::Null => put_octets(number, &[], out),
                    value => put(member, value, out),
                }
            }
        }
        Value::Message(values) => {
            let mut inner = Vec::new();
            for (member, value) in member.kind.members().iter().zip(values) {
                put(member, value, &mut inner);
            }
            put_octets(number, &inner, out);
        }
    }
}

/// A message on the wire is its length and its octets, as a string is.
fn put_octets(number: u32, octets: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(octets.len() as u64, out);
    out.extend_from_slice(octets);
}
