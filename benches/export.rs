//! What does a record cost on its way to a sink: encoded as JSON, protobuf and raw?

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailrace::{
    export::{DocumentOptions, Encoding, Key, Record, encode, testing},
    log::{Offset, RecordId},
};

/// A mail of so many octets, its header as one from a large mail service looks.
fn record(bytes: usize) -> Record {
    let mut mail = String::new();
    for hop in 0..4 {
        mail += &format!(
            "Received: from mx{hop}.example.org (mx{hop}.example.org [192.0.2.{hop}])\r\n\
             \tby mx.example.com with ESMTPS id 4Xyz{hop}ab (version=TLSv1.3);\r\n\
             \tMon, 2 Mar 2026 10:00:0{hop} +0000\r\n"
        );
    }
    mail += "From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nTo: sales@example.com\r\n\
        Subject: Order 4711\r\nDate: Mon, 02 Mar 2026 10:00:00 +0000\r\n\
        Message-ID: <20260302100000.4711@example.org>\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    while mail.len() < bytes {
        mail += "The quick brown fox jumps over the lazy dog.\r\n";
    }
    mail.truncate(bytes);
    Record {
        id: RecordId { node: [1; 6], shard: 3, offset: Offset::new(725) },
        received_at: 1_795_370_645_123_456,
        listener: "mx".into(),
        mail_from: "j@example.org".into(),
        rcpt_to: vec!["sales@example.com".into()],
        helo: "mx3.example.org".into(),
        data: mail.into(),
        ..testing::record(3, 725)
    }
}

fn documents(c: &mut Criterion) {
    for bytes in [4 << 10, 256 << 10] {
        let record = record(bytes);
        let mut group = c.benchmark_group(format!("document/{bytes}"));
        group.throughput(Throughput::Bytes(bytes as u64));
        for encoding in [Encoding::Json, Encoding::Protobuf, Encoding::Raw] {
            let options = DocumentOptions {
                encoding,
                inline_max: 512 << 10,
                reference_url: "http://127.0.0.1:2580".into(),
                sha256: false,
                key: Key::RcptDomain,
            };
            assert!(encode(&record, &options).body.len() >= bytes);
            group.bench_function(format!("{encoding:?}"), |b| {
                b.iter(|| encode(black_box(&record), &options));
            });
        }
    }
}

criterion_group!(benches, documents);
criterion_main!(benches);
