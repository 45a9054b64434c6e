//! A CloudEvent in the JSON event format (CloudEvents 1.0), `datacontenttype: application/json`.
//!
//! Serialised straight into one buffer. The mail data, which is most of it, comes last and bypasses
//! the serialiser, which would look at each octet of the base64 for something to escape.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    EVENT_TYPE, Names,
    header::{Field, Header},
};
use mailrace_header as header;
use mailrace_log::{Kind, Metadata, Section, Value, format_time};

use crate::{DocumentOptions, Record};

/// The attributes of an event, around its data.
#[derive(Serialize)]
pub(super) struct Event<'a, Data> {
    specversion: &'static str,
    r#type: &'static str,
    source: &'a str,
    id: &'a str,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitionkey: Option<&'a str>,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataref: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mailracereplay: bool,
    data: Data,
}

impl<'a, Data> Event<'a, Data> {
    /// Without extensions.
    pub(super) fn new(r#type: &'static str, [source, id, time]: [&'a str; 3], data: Data) -> Self {
        Self {
            specversion: "1.0",
            r#type,
            source,
            id,
            time,
            sequence: None,
            partitionkey: None,
            datacontenttype: "application/json",
            dataref: None,
            mailracereplay: false,
            data,
        }
    }
}

/// `raw` follows, see [`encode`].
#[derive(Serialize)]
struct Data<'a> {
    received_at: &'a str,
    listener: &'a str,
    log: Place<'a>,
    envelope: Envelope<'a>,
    client: Facts<'a>,
    tls: Option<Facts<'a>>,
    auth: Option<Facts<'a>>,
    headers: &'a [Field<'a>],
    headers_truncated: bool,
    message_id: Option<&'a str>,
    subject: Option<&'a str>,
    flags: Vec<&'static str>,
    from: Vec<Mailbox<'a>>,
    to: Vec<Mailbox<'a>>,
    cc: Vec<Mailbox<'a>>,
    date: Option<&'a str>,
    content_type: Option<&'a str>,
    file_name: Option<&'a str>,
    size: usize,
    sha256: Option<&'a str>,
}

#[derive(Serialize)]
struct Mailbox<'a> {
    name: Option<&'a str>,
    address: Option<&'a str>,
}

#[derive(Serialize)]
struct Place<'a> {
    node: &'a str,
    shard: u16,
    offset: u64,
}

#[derive(Serialize)]
struct Envelope<'a> {
    mail_from: &'a str,
    rcpt_to: &'a [String],
    #[serde(flatten)]
    facts: Facts<'a>,
}

/// What a section has of a record.
struct Facts<'a> {
    section: Section,
    metadata: &'a Metadata<'a>,
}

impl<'a> Facts<'a> {
    fn new(section: Section, metadata: &'a Metadata<'a>) -> Option<Self> {
        section.is_known(metadata).then_some(Self { section, metadata })
    }
}

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in self.section.fields() {
            let value = field.read(self.metadata);
            map.serialize_entry(
                field.member.name,
                &Shown { kind: field.member.kind, value: &value },
            )?;
        }
        map.end()
    }
}

/// A value, with the names of its members where it is a message.
struct Shown<'a> {
    kind: Kind,
    value: &'a Value<'a>,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Null => serializer.serialize_none(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Signed(number) => serializer.serialize_i32(*number),
            Value::Unsigned(number) => serializer.serialize_u64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(values) => {
                serializer.collect_seq(values.iter().map(|value| Shown { kind: self.kind, value }))
            }
            Value::Message(values) => {
                let members = self.kind.members().iter().zip(values);
                serializer.collect_map(
                    members
                        .map(|(member, value)| (member.name, Shown { kind: member.kind, value })),
                )
            }
        }
    }
}

/// The event as one line without an end.
pub(super) fn encode(record: &Record, options: &DocumentOptions, names: &Names) -> Vec<u8> {
    let header = Header::read(&record.data);
    let metadata = record.metadata();
    let sha256 = options.sha256.then(|| super::sha256(&record.data));
    let date = header.summary.date.map(|seconds| format_time(seconds * 1_000_000));
    let data = Data {
        received_at: &names.time,
        listener: &record.listener,
        log: Place { node: names.node(), shard: record.id.shard, offset: record.id.offset.get() },
        envelope: Envelope {
            mail_from: &record.mail_from,
            rcpt_to: &record.rcpt_to,
            facts: Facts { section: Section::Envelope, metadata: &metadata },
        },
        client: Facts { section: Section::Client, metadata: &metadata },
        tls: Facts::new(Section::Tls, &metadata),
        auth: Facts::new(Section::Auth, &metadata),
        headers: &header.fields,
        headers_truncated: header.truncated,
        message_id: header.summary.message_id.as_deref(),
        subject: header.summary.subject.as_deref(),
        flags: record.flag_names().collect(),
        from: mailboxes(&header.summary.from),
        to: mailboxes(&header.summary.to),
        cc: mailboxes(&header.summary.cc),
        date: date.as_deref(),
        content_type: header.summary.content_type.as_deref(),
        file_name: header.summary.file_name.as_deref(),
        size: record.data.len(),
        sha256: sha256.as_deref(),
    };
    let event = Event {
        sequence: Some(&names.sequence),
        partitionkey: names.key.as_deref(),
        dataref: names.reference.as_deref(),
        mailracereplay: record.replay,
        ..Event::new(EVENT_TYPE, [&names.source, &names.id, &names.time], data)
    };
    let inline = if names.reference.is_some() { 0 } else { record.data.len().div_ceil(3) * 4 };
    let mut out = Vec::with_capacity(3_072 + inline + 32 * record.rcpt_to.len());
    write_value(&mut out, &event);
    // The event and its data are the last to be closed: `raw` is put in front of that.
    out.truncate(out.len() - CLOSING.len());
    match &names.reference {
        None => {
            out.extend_from_slice(br#","raw":{"encoding":"base64","data":""#);
            push_base64(&mut out, &record.data);
            out.push(b'"');
        }
        Some(reference) => {
            out.extend_from_slice(br#","raw":{"ref":"#);
            write_value(&mut out, reference);
            out.extend_from_slice(format!(r#","size":{}"#, record.data.len()).as_bytes());
        }
    }
    out.push(b'}');
    out.extend_from_slice(CLOSING);
    out
}

fn mailboxes(all: &[header::Mailbox]) -> Vec<Mailbox<'_>> {
    all.iter()
        .map(|mailbox| Mailbox {
            name: mailbox.name.as_deref(),
            address: mailbox.address.as_deref(),
        })
        .collect()
}

/// Of data and event.
const CLOSING: &[u8] = b"}}";

fn write_value(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a Vec takes all, and every key is a string");
}

fn push_base64(out: &mut Vec<u8>, data: &[u8]) {
    let at = out.len();
    out.resize(at + data.len().div_ceil(3) * 4, 0);
    let room = out.get_mut(at..).unwrap_or_default();
    STANDARD.encode_slice(data, room).expect("base64 with padding takes 4 octets for each 3");
}
