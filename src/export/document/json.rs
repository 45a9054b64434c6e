//! A CloudEvent in the JSON event format (CloudEvents 1.0), `datacontenttype: application/json`.
//!
//! Serialised straight into one buffer. The mail data, which is most of it, comes last and bypasses
//! the serialiser, which would look at each octet of the base64 for something to escape.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use super::{
    EVENT_TYPE, Names,
    header::{Field, Header},
};
use mailrace_header as header;
use mailrace_log::format_time;

use crate::{DocumentOptions, Record};

#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    r#type: &'static str,
    source: &'a str,
    id: &'a str,
    time: &'a str,
    sequence: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitionkey: Option<&'a str>,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataref: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mailracereplay: bool,
    data: Data<'a>,
}

/// `raw` follows, see [`encode`].
#[derive(Serialize)]
struct Data<'a> {
    received_at: &'a str,
    listener: &'a str,
    log: Place<'a>,
    envelope: Envelope<'a>,
    client: Client<'a>,
    tls: Option<Tls<'a>>,
    auth: Option<()>,
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
    smtputf8: bool,
    body: &'static str,
    protocol: &'static str,
    ret: Option<&'static str>,
    envid: Option<&'a str>,
    submitter: Option<&'a str>,
    require_tls: bool,
    mt_priority: Option<i8>,
    rcpt_params: Option<Vec<Option<RcptParams<'a>>>>,
    size_declared: Option<u64>,
}

#[derive(Serialize)]
struct RcptParams<'a> {
    notify: Option<&'a str>,
    orcpt: Option<String>,
}

#[derive(Serialize)]
struct Tls<'a> {
    version: &'a str,
    cipher: &'a str,
    sni: Option<&'a str>,
    client_subject: Option<&'a str>,
}

#[derive(Serialize)]
struct Client<'a> {
    ip: std::net::IpAddr,
    port: u16,
    helo: &'a str,
    rdns: Option<&'a str>,
    proxy_ip: Option<std::net::IpAddr>,
    auth_user: Option<&'a str>,
    auth_mechanism: Option<&'a str>,
    esmtp: bool,
    proxy_port: Option<u16>,
    proxy_facts: Vec<ProxyFact<'a>>,
    list_score: i32,
}

#[derive(Serialize)]
struct ProxyFact<'a> {
    name: &'a str,
    value: &'a str,
}

/// The event as one line without an end.
pub(super) fn encode(record: &Record, options: &DocumentOptions, names: &Names) -> Vec<u8> {
    let header = Header::read(&record.data);
    let facts = &record.facts;
    let sha256 = options.sha256.then(|| super::sha256(&record.data));
    let date = header.summary.date.map(|seconds| format_time(seconds * 1_000_000));
    let event = Event {
        specversion: "1.0",
        r#type: EVENT_TYPE,
        source: &names.source,
        id: &names.id,
        time: &names.time,
        sequence: &names.sequence,
        partitionkey: names.key.as_deref(),
        datacontenttype: "application/json",
        dataref: names.reference.as_deref(),
        mailracereplay: record.replay,
        data: Data {
            received_at: &names.time,
            listener: &record.listener,
            log: Place {
                node: names.node(),
                shard: record.id.shard,
                offset: record.id.offset.get(),
            },
            envelope: Envelope {
                mail_from: &record.mail_from,
                rcpt_to: &record.rcpt_to,
                smtputf8: record.smtputf8,
                body: record.body(),
                protocol: if facts.lmtp { "lmtp" } else { "smtp" },
                ret: facts.ret_name(),
                envid: text(&facts.envid),
                submitter: text(&facts.submitter),
                require_tls: facts.require_tls,
                mt_priority: facts.mt_priority,
                rcpt_params: rcpt_params(record),
                size_declared: record.size_declared,
            },
            client: Client {
                ip: record.client.ip(),
                port: record.client.port(),
                helo: &record.helo,
                rdns: text(&facts.rdns),
                proxy_ip: facts.proxy.map(|proxy| proxy.ip()),
                auth_user: text(&facts.auth_user),
                auth_mechanism: text(&facts.auth_mechanism),
                esmtp: record.esmtp,
                proxy_port: facts.proxy.map(|proxy| proxy.port()),
                proxy_facts: facts
                    .proxy_facts()
                    .map(|(name, value)| ProxyFact { name, value })
                    .collect(),
                list_score: facts.list_score,
            },
            tls: text(&facts.tls_version).map(|version| Tls {
                version,
                cipher: &facts.tls_cipher,
                sni: text(&facts.tls_sni),
                client_subject: text(&facts.tls_client),
            }),
            auth: None,
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
        },
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

/// What is empty is not known.
fn text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// An entry for each forward-path, where any has parameters.
fn rcpt_params(record: &Record) -> Option<Vec<Option<RcptParams<'_>>>> {
    let params = &record.facts.rcpt_params;
    if params.is_empty() {
        return None;
    }
    let of = |at: usize| {
        let params = params.get(at)?;
        let known = RcptParams { notify: params.notify.as_deref(), orcpt: params.orcpt_text() };
        (known.notify.is_some() || known.orcpt.is_some()).then_some(known)
    };
    Some((0..record.rcpt_to.len()).map(of).collect())
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
