//! A refusal as a CloudEvent: `mailrace.message.refused.v1`. Its schema is in `config/schema`.

use serde::Serialize;

use super::{json::Event, source};
use mailrace_log::{Refusal, RefusalAt, format_time_micros, hex};

/// `type` of the event.
pub const REFUSED_TYPE: &str = "mailrace.message.refused.v1";

#[derive(Serialize)]
struct Data<'a> {
    refused_at: &'a str,
    listener: &'a str,
    client: Client<'a>,
    envelope: Envelope<'a>,
    stage: &'a str,
    reply: Reply<'a>,
    reason: &'a str,
}

#[derive(Serialize)]
struct Client<'a> {
    ip: Option<String>,
    port: Option<u16>,
    helo: &'a str,
}

#[derive(Serialize)]
struct Envelope<'a> {
    mail_from: Option<&'a str>,
    rcpt_to: Option<&'a str>,
}

#[derive(Serialize)]
struct Reply<'a> {
    code: u16,
    enhanced: Option<&'a str>,
    text: &'a str,
}

/// The event as one line without an end. Its id is made of time and place, and stays the same.
#[must_use]
pub fn refused_line(node: [u8; 6], shard: u16, at: RefusalAt, refusal: &Refusal) -> Vec<u8> {
    let node = hex(node);
    let time = format_time_micros(refusal.at);
    let source = source(&node, shard);
    let id = format!("{node}-{shard:03}-r{:016x}-{:x}-{:x}", refusal.at, at.file, at.position);
    let data = Data {
        refused_at: &time,
        listener: &refusal.listener,
        client: Client {
            ip: refusal.client.map(|client| client.ip().to_string()),
            port: refusal.client.map(|client| client.port()),
            helo: &refusal.helo,
        },
        envelope: Envelope {
            mail_from: refusal.mail_from.as_deref(),
            rcpt_to: refusal.rcpt_to.as_deref(),
        },
        stage: &refusal.stage,
        reply: Reply {
            code: refusal.code,
            enhanced: Some(&*refusal.enhanced).filter(|text| !text.is_empty()),
            text: &refusal.text,
        },
        reason: &refusal.reason,
    };
    let event = Event::new(REFUSED_TYPE, [&source, &id, &time], data);
    serde_json::to_vec(&event).expect("every key is a string")
}
