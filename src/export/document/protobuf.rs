//! `mailrace.v1.MessageReceived`: the data of the event in protobuf. Equal to
//! `config/schema/mailrace.v1.proto`, which is for consumers; a test compares them.

use bytes::Bytes;
use prost::Message;

use super::{Names, header::Header};
use crate::{DocumentOptions, Record};

/// One accepted message.
#[derive(Clone, PartialEq, Message)]
pub struct MessageReceived {
    /// Record id, the idempotency key.
    #[prost(string, tag = "1")]
    pub id: String,
    /// When the mail data had been received.
    #[prost(message, optional, tag = "2")]
    pub received_at: Option<Timestamp>,
    /// Name of the listener.
    #[prost(string, tag = "3")]
    pub listener: String,
    /// Where it lies.
    #[prost(message, optional, tag = "4")]
    pub log: Option<LogPlace>,
    /// What was said about it.
    #[prost(message, optional, tag = "5")]
    pub envelope: Option<Envelope>,
    /// The proxy that said it.
    #[prost(message, optional, tag = "6")]
    pub client: Option<Client>,
    /// Absent: plain text.
    #[prost(message, optional, tag = "7")]
    pub tls: Option<Tls>,
    /// Absent: no checks were made.
    #[prost(message, optional, tag = "8")]
    pub auth: Option<Auth>,
    /// Header fields in order, unfolded.
    #[prost(message, repeated, tag = "9")]
    pub headers: Vec<HeaderField>,
    /// There were more, or too large ones.
    #[prost(bool, tag = "10")]
    pub headers_truncated: bool,
    /// As in the header.
    #[prost(string, optional, tag = "11")]
    pub message_id: Option<String>,
    /// With RFC 2047 decoded.
    #[prost(string, optional, tag = "12")]
    pub subject: Option<String>,
    /// Octets of mail data.
    #[prost(uint64, tag = "13")]
    pub size: u64,
    /// Of the mail data, in hexadecimal; absent unless asked for.
    #[prost(string, optional, tag = "14")]
    pub sha256: Option<String>,
    /// The mail data, exact; absent if it is passed by reference.
    #[prost(bytes = "bytes", optional, tag = "15")]
    pub raw: Option<Bytes>,
    /// Where the mail data can be fetched.
    #[prost(message, optional, tag = "16")]
    pub raw_ref: Option<Reference>,
    /// It was sent before.
    #[prost(bool, tag = "17")]
    pub replay: bool,
    /// Names of what was noticed in the mail data.
    #[prost(string, repeated, tag = "18")]
    pub flags: Vec<String>,
    /// Of From fields.
    #[prost(message, repeated, tag = "19")]
    pub from: Vec<Mailbox>,
    /// Of To fields.
    #[prost(message, repeated, tag = "20")]
    pub to: Vec<Mailbox>,
    /// Of Cc fields.
    #[prost(message, repeated, tag = "21")]
    pub cc: Vec<Mailbox>,
    /// The Date field.
    #[prost(message, optional, tag = "22")]
    pub date: Option<Timestamp>,
    /// Media type, in lower case.
    #[prost(string, optional, tag = "23")]
    pub content_type: Option<String>,
    /// What the sender calls a mail that is a file as a whole.
    #[prost(string, optional, tag = "24")]
    pub file_name: Option<String>,
}

/// As `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// Where a record lies.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogPlace {
    /// 12 hexadecimal digits.
    #[prost(string, tag = "1")]
    pub node: String,
    /// Shard.
    #[prost(uint32, tag = "2")]
    pub shard: u32,
    /// Its number in the shard's log.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
}

/// RFC 5321 §2.3.1.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Envelope {
    /// Reverse-path without brackets; empty for the null one.
    #[prost(string, tag = "1")]
    pub mail_from: String,
    /// Forward-paths without brackets.
    #[prost(string, repeated, tag = "2")]
    pub rcpt_to: Vec<String>,
    /// SMTPUTF8 was asked for.
    #[prost(bool, tag = "3")]
    pub smtputf8: bool,
    /// `7BIT`, `8BITMIME` or `BINARYMIME`.
    #[prost(string, tag = "4")]
    pub body: String,
    /// `smtp` or `lmtp`.
    #[prost(string, tag = "5")]
    pub protocol: String,
    /// `FULL` or `HDRS`.
    #[prost(string, optional, tag = "6")]
    pub ret: Option<String>,
    /// ENVID, decoded.
    #[prost(string, optional, tag = "7")]
    pub envid: Option<String>,
    /// AUTH= of MAIL, decoded.
    #[prost(string, optional, tag = "8")]
    pub submitter: Option<String>,
    /// REQUIRETLS was asked for.
    #[prost(bool, tag = "9")]
    pub require_tls: bool,
    /// -9 to 9.
    #[prost(sint32, optional, tag = "10")]
    pub mt_priority: Option<i32>,
    /// One for each forward-path; none if no forward-path has any.
    #[prost(message, repeated, tag = "11")]
    pub rcpt_params: Vec<RcptParams>,
    /// SIZE= of MAIL.
    #[prost(uint64, optional, tag = "12")]
    pub size_declared: Option<u64>,
}

/// RFC 3461 §4.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RcptParams {
    /// `NEVER`, or keywords joined by commas.
    #[prost(string, optional, tag = "1")]
    pub notify: Option<String>,
    /// Type and address, joined by a semicolon; xtext decoded.
    #[prost(string, optional, tag = "2")]
    pub orcpt: Option<String>,
}

/// The peer.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Client {
    /// Address.
    #[prost(string, tag = "1")]
    pub ip: String,
    /// Port.
    #[prost(uint32, tag = "2")]
    pub port: u32,
    /// Argument of HELO or EHLO.
    #[prost(string, tag = "3")]
    pub helo: String,
    /// Name of the address.
    #[prost(string, optional, tag = "4")]
    pub rdns: Option<String>,
    /// Address of the proxy in between.
    #[prost(string, optional, tag = "5")]
    pub proxy_ip: Option<String>,
    /// The user that logged in.
    #[prost(string, optional, tag = "6")]
    pub auth_user: Option<String>,
    /// SASL mechanism.
    #[prost(string, optional, tag = "7")]
    pub auth_mechanism: Option<String>,
    /// EHLO was used.
    #[prost(bool, tag = "8")]
    pub esmtp: bool,
    /// Port of the proxy in between.
    #[prost(uint32, optional, tag = "9")]
    pub proxy_port: Option<u32>,
    /// What else the proxy said about the client.
    #[prost(message, repeated, tag = "10")]
    pub proxy_facts: Vec<ProxyFact>,
    /// Sum of the weights of DNS lists.
    #[prost(sint32, tag = "11")]
    pub list_score: i32,
}

/// What a proxy said of the client, by PROXY, XCLIENT or XFORWARD.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProxyFact {
    /// Of the attribute.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Printable, cut after 255 characters.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// TLS of the session.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Tls {
    /// `TLSv1.3`
    #[prost(string, tag = "1")]
    pub version: String,
    /// Cipher suite.
    #[prost(string, tag = "2")]
    pub cipher: String,
    /// Name the client asked for.
    #[prost(string, optional, tag = "3")]
    pub sni: Option<String>,
    /// Subject of the client's verified certificate.
    #[prost(string, optional, tag = "4")]
    pub client_subject: Option<String>,
}

/// RFC 8601
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Auth {
    /// RFC 7208
    #[prost(message, optional, tag = "1")]
    pub spf: Option<Checked>,
    /// RFC 6376, one a signature.
    #[prost(message, repeated, tag = "2")]
    pub dkim: Vec<Checked>,
    /// RFC 7489
    #[prost(message, optional, tag = "3")]
    pub dmarc: Option<Checked>,
}

/// Outcome of one check.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Checked {
    /// `pass`, `fail`, …
    #[prost(string, tag = "1")]
    pub result: String,
    /// Domain that was checked.
    #[prost(string, optional, tag = "2")]
    pub domain: Option<String>,
    /// DKIM only.
    #[prost(string, optional, tag = "3")]
    pub selector: Option<String>,
    /// DMARC only.
    #[prost(string, optional, tag = "4")]
    pub policy: Option<String>,
}

/// Of an address field; at least one of the two is there.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mailbox {
    /// Display name or comment, decoded.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// As it was written.
    #[prost(string, optional, tag = "2")]
    pub address: Option<String>,
}

/// One header field.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HeaderField {
    /// As it was written.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Unfolded, invalid UTF-8 replaced.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Claim check.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Reference {
    /// Answers with the mail data.
    #[prost(string, tag = "1")]
    pub url: String,
    /// Octets of it.
    #[prost(uint64, tag = "2")]
    pub size: u64,
}

/// The record in protobuf.
pub(super) fn encode(record: &Record, options: &DocumentOptions, names: &Names) -> Vec<u8> {
    let header = Header::read(&record.data);
    let size = record.data.len() as u64;
    let facts = &record.facts;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
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
        envelope: Some(Envelope {
            mail_from: record.mail_from.clone(),
            rcpt_to: record.rcpt_to.clone(),
            smtputf8: record.smtputf8,
            body: record.body().to_owned(),
            protocol: if facts.lmtp { "lmtp" } else { "smtp" }.to_owned(),
            ret: facts.ret_name().map(str::to_owned),
            envid: text(&facts.envid),
            submitter: text(&facts.submitter),
            require_tls: facts.require_tls,
            mt_priority: facts.mt_priority.map(i32::from),
            rcpt_params: rcpt_params(record),
            size_declared: record.size_declared,
        }),
        client: Some(Client {
            ip: record.client.ip().to_string(),
            port: u32::from(record.client.port()),
            helo: record.helo.clone(),
            rdns: text(&facts.rdns),
            proxy_ip: facts.proxy.map(|proxy| proxy.ip().to_string()),
            auth_user: text(&facts.auth_user),
            auth_mechanism: text(&facts.auth_mechanism),
            esmtp: record.esmtp,
            proxy_port: facts.proxy.map(|proxy| u32::from(proxy.port())),
            proxy_facts: facts
                .proxy_facts()
                .map(|(name, value)| ProxyFact { name: name.to_owned(), value: value.to_owned() })
                .collect(),
            list_score: facts.list_score,
        }),
        tls: text(&facts.tls_version).map(|version| Tls {
            version,
            cipher: facts.tls_cipher.clone(),
            sni: text(&facts.tls_sni),
            client_subject: text(&facts.tls_client),
        }),
        auth: None,
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

/// One for each forward-path, where any has parameters.
fn rcpt_params(record: &Record) -> Vec<RcptParams> {
    let params = &record.facts.rcpt_params;
    let count = if params.is_empty() { 0 } else { record.rcpt_to.len() };
    let of = |at: usize| {
        params.get(at).map_or_else(RcptParams::default, |params| RcptParams {
            notify: params.notify.clone(),
            orcpt: params.orcpt_text(),
        })
    };
    (0..count).map(of).collect()
}
