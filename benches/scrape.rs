//! What does a scrape cost with 32 shards, 2 listeners and 4 exporters, in each form? The copies of
//! the shards' counters are made for each scrape, as a shard makes them.
//!
//! `cargo bench --bench scrape`

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use mailrace::metrics::{
    Detail, DnsMetrics, ExportMetrics, Extra, Format, Names, ShardStats, render,
};

const NAMES: Names = Names {
    commands: &["ehlo", "mail", "rcpt", "data", "bdat", "rset", "noop", "quit", "other"],
    replies: &["220", "221", "250", "354", "421", "451", "452", "500", "550", "554", "other"],
    protocol_errors: &["bare_lf", "line_too_long", "bad_sequence", "bad_syntax", "early_talker"],
    lenient: &["long", "dots", "underscore", "final_dot", "helo"],
    auth_mechanisms: &["plain", "login", "scram-sha-256", "scram-sha-256-plus", "external"],
};

/// A shard after some load: its histograms have many slots in use.
fn shard(number: u32) -> ShardStats {
    let mut stats = ShardStats::new(number, &["mx", "submission"], NAMES);
    for at in 0..20_000_u64 {
        let time = Duration::from_micros(50 + at * at % 900_007);
        for listener in &mut stats.listeners {
            listener.tls = true;
            listener.messages_received += 1;
            listener.ack_duration.record_duration(time);
            listener.transaction_duration.record_duration(time * 2);
            listener.session_duration.record_duration(time * 9);
            listener.handshake_duration.record_duration(time);
        }
        stats.message_size.record(at * 71);
        stats.message_recipients.record(1 + at % 9);
        stats.log_append_duration.record_duration(time);
        stats.log_sync_duration.record_duration(time);
        stats.log_batch_records.record(at % 60);
    }
    stats
}

fn scrape(c: &mut Criterion) {
    let shards: Vec<_> = (0..32).map(shard).collect();
    let (export, dns) = (ExportMetrics::new(), DnsMetrics::new());
    for name in ["kafka", "nats", "s3", "webhook"] {
        let exporter = export.exporter(name, &["connect", "timeout", "refused"]);
        let _ = export.group(name);
        (1..5_000).for_each(|at| exporter.requests.observe(f64::from(at) / 1e4));
    }
    let mut group = c.benchmark_group("scrape of 32 shards");
    for format in Format::ALL {
        let name = format.content_type().split(';').next().unwrap_or_default();
        group.bench_function(name, |b| {
            b.iter(|| {
                let copies: Vec<ShardStats> = shards.clone();
                let native = format == Format::Protobuf;
                let more = [export.families(native), dns.families(native)].concat();
                let extra = Extra { more, detail: Detail::Summed, ..Extra::default() };
                let page = render(&copies, &extra, format);
                assert!(page.len() > 10_000);
                black_box(page)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, scrape);
criterion_main!(benches);
