//! What tests and benches of every crate give to sinks (feature `testing`).

use bytes::Bytes;

use super::{DocumentOptions, Encoding, Facts, Key, Record};
use mailrace_log::{Identity, Offset};

/// A small message of one shard.
pub fn record(shard: u16, offset: u64) -> Record {
    Record {
        id: Identity { node: [1, 2, 3, 4, 5, 6], shard }.record_id(Offset::new(offset)),
        received_at: 1_795_370_645_123_456,
        listener: "smtp".into(),
        mail_from: "alice@example.org".into(),
        rcpt_to: vec!["sales@example.com".into()],
        helo: "client.example.org".into(),
        client: ([192, 0, 2, 10], 51_234).into(),
        esmtp: true,
        smtputf8: false,
        body_type: 1,
        size_declared: None,
        flags: 0,
        facts: Facts::default(),
        verdict: None,
        verdict_pending: false,
        replay: false,
        data: Bytes::from(format!("Subject: {offset}\r\n\r\nHello\r\n")),
    }
}

/// JSON documents with small mail data in them.
pub fn document() -> DocumentOptions {
    DocumentOptions {
        encoding: Encoding::Json,
        inline_max: 512 << 10,
        reference_url: String::new(),
        sha256: false,
        key: Key::RcptDomain,
    }
}
