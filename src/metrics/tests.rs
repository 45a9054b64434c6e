//! Pages of metrics: names, labels and values.

use crate::{
    BackpressureCause, CloseReason, CorruptStage, Detail, DiskFacts, DiskState, Extra, Format,
    HandshakeResult, KeptLog, LogFacts, LogOp, Names, ProcessFacts, RefuseReason, RejectClass,
    RejectReason, ShardStats, render,
};
use std::{collections::BTreeSet, time::Duration};

fn text(shards: &[ShardStats], extra: &Extra) -> String {
    String::from_utf8(render(shards, extra, Format::Text)).expect("text")
}

const NAMES: Names = Names {
    commands: &["ehlo", "other"],
    replies: &["250", "451"],
    protocol_errors: &["bare_lf"],
    lenient: &["dots"],
    auth_mechanisms: &["plain", "login"],
};

fn two_shards() -> Vec<ShardStats> {
    let mut shards = vec![ShardStats::new(0, &["mx"], NAMES), ShardStats::new(1, &["mx"], NAMES)];
    for (stats, amount) in shards.iter_mut().zip([1, 10]) {
        let listener = &mut stats.listeners[0];
        listener.connections = amount;
        listener.sessions_active = amount;
        listener.messages_received = amount;
        listener.refused.add(RefuseReason::MaxConnections, amount);
        listener.closed.add(CloseReason::Quit, amount);
        listener.record_rejected(RejectClass::Transient, RejectReason::LogError);
        listener.ack_duration.record_duration(Duration::from_micros(250 * amount));
        stats.commands[1] = amount;
        stats.replies[0] = amount;
        stats.message_size.record(1024 * amount);
        stats.backpressure_us.add(BackpressureCause::Log, 500_000);
        stats.log_errors.increment(LogOp::Sync);
        stats.log_end_offset = 7 * amount;
        stats.busy_us = 250_000;
    }
    shards
}

#[track_caller]
fn check(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|have| have == *line), "{line} is missing in\n{text}");
    }
}

#[test]
fn shards_are_summed() {
    let extra = Extra { version: "0.1.0".into(), revision: "abc".into(), ..Extra::default() };
    check(
        &text(&two_shards(), &extra),
        &[
            r#"mailrace_build_info{version="0.1.0",revision="abc"} 1"#,
            "mailrace_shards 2",
            "# TYPE mailrace_smtp_connections_total counter",
            r#"mailrace_smtp_connections_total{listener="mx"} 11"#,
            r#"mailrace_smtp_connections_refused_total{listener="mx",reason="max_connections"} 11"#,
            r#"mailrace_smtp_sessions_closed_total{listener="mx",reason="quit"} 11"#,
            r#"mailrace_smtp_commands_total{command="other"} 11"#,
            r#"mailrace_smtp_replies_total{code="250"} 11"#,
            r#"mailrace_smtp_messages_rejected_total{listener="mx",class="4xx",reason="log_error"} 2"#,
            "mailrace_shard_backpressure_seconds_total{cause=\"log\"} 1",
            r#"mailrace_log_errors_total{op="sync"} 2"#,
        ],
    );
}

/// Every family is there once, every series of it too, in both details.
#[test]
fn nothing_is_there_twice() {
    let exports = crate::ExportMetrics::new();
    for name in ["main", "archive"] {
        let _ = (exports.exporter(name, &["connect"]), exports.group(name));
    }
    let dns = crate::DnsMetrics::new();
    for detail in [Detail::Summed, Detail::Shard] {
        let more = [exports.families(false), dns.families(false)].concat();
        let log = LogFacts { kept: kept(), ..LogFacts::default() };
        let extra = Extra { detail, more, log, ..Extra::default() };
        let page = text(&two_shards(), &extra);
        let mut seen = BTreeSet::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let series = line.rsplit_once(' ').expect("a value").0;
            assert!(seen.insert(series), "twice: {series}");
        }
    }
}

#[test]
#[should_panic(expected = "mailrace_smtp_connections_total")]
fn two_listeners_of_one_name_are_an_error() {
    text(&[ShardStats::new(0, &["mx", "mx"], NAMES)], &Extra::default());
}

fn kept() -> Vec<KeptLog> {
    let kept = |shard, start_offset, segments| KeptLog {
        shard,
        start_offset,
        segments,
        bytes: segments * 100,
    };
    // Shard 2 is of an earlier start.
    vec![kept(0, 10, 3), kept(1, 0, 1), kept(2, 7, 2)]
}

#[test]
fn what_is_kept_is_measured_of_all_logs() {
    let log = LogFacts { kept: kept(), ..LogFacts::default() };
    let page = text(&two_shards(), &Extra { log, ..Extra::default() });
    check(
        &page,
        &[
            r#"mailrace_log_start_offset{shard="0"} 10"#,
            r#"mailrace_log_start_offset{shard="2"} 7"#,
            "mailrace_log_segments 6",
            "mailrace_log_size_bytes 600",
        ],
    );
}

#[test]
fn trouble_of_readers_counts_with_the_shards() {
    let counts = crate::LogCounts::default();
    counts.error(LogOp::Read);
    counts.corrupt(CorruptStage::Read);
    let mut extra = Extra { log: counts.facts(), ..Extra::default() };
    let summed =
        [r#"mailrace_log_errors_total{op="read"} 1"#, r#"mailrace_log_errors_total{op="sync"} 2"#];
    check(&text(&two_shards(), &extra), &summed);
    extra.detail = Detail::Shard;
    let split = [
        r#"mailrace_log_errors_total{op="read"} 1"#,
        r#"mailrace_log_errors_total{op="sync",shard="1"} 1"#,
        r#"mailrace_log_corrupt_records_total{stage="read"} 1"#,
    ];
    check(&text(&two_shards(), &extra), &split);
}

#[test]
fn some_families_carry_the_shard() {
    check(
        &text(&two_shards(), &Extra::default()),
        &[
            "# TYPE mailrace_smtp_sessions_active gauge",
            r#"mailrace_smtp_sessions_active{listener="mx",shard="0"} 1"#,
            r#"mailrace_smtp_messages_received_total{listener="mx",shard="1"} 10"#,
            r#"mailrace_log_end_offset{shard="1"} 70"#,
            r#"mailrace_shard_busy_seconds_total{shard="0"} 0.25"#,
        ],
    );
}

#[test]
fn detail_splits_all() {
    let extra = Extra { detail: Detail::Shard, ..Extra::default() };
    let page = text(&two_shards(), &extra);
    check(&page, &[r#"mailrace_smtp_connections_total{listener="mx",shard="1"} 10"#]);
    assert!(!page.contains("mailrace_smtp_connections_total{listener=\"mx\"} "));
}

#[test]
fn labelled_series_exist_at_zero() {
    check(
        &text(&two_shards(), &Extra::default()),
        &[
            r#"mailrace_smtp_connections_refused_total{listener="mx",reason="draining"} 0"#,
            r#"mailrace_smtp_messages_rejected_total{listener="mx",class="5xx",reason="auth"} 0"#,
            r#"mailrace_smtp_commands_total{command="ehlo"} 0"#,
            r#"mailrace_smtp_protocol_errors_total{reason="bare_lf"} 0"#,
            r#"mailrace_log_corrupt_records_total{stage="read"} 0"#,
            "mailrace_log_truncated_bytes_total 0",
        ],
    );
}

#[test]
fn histograms_have_the_promised_buckets() {
    let page = text(&two_shards(), &Extra::default());
    check(
        &page,
        &[
            "# TYPE mailrace_smtp_message_ack_duration_seconds histogram",
            r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="0.0001"} 0"#,
            r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="0.00025"} 1"#,
            r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="0.0025"} 2"#,
            r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="50"} 2"#,
            r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="+Inf"} 2"#,
            r#"mailrace_smtp_message_ack_duration_seconds_sum{listener="mx"} 0.00275"#,
            r#"mailrace_smtp_message_ack_duration_seconds_count{listener="mx"} 2"#,
            r#"mailrace_smtp_message_size_bytes_bucket{le="1024"} 1"#,
            r#"mailrace_smtp_message_size_bytes_bucket{le="16384"} 2"#,
        ],
    );
}

#[test]
fn tls_families_are_of_listeners_that_have_it() {
    let mut shards = two_shards();
    assert!(!text(&shards, &Extra::default()).contains("mailrace_tls_"));
    for stats in &mut shards {
        let listener = &mut stats.listeners[0];
        listener.tls = true;
        listener.certificate_not_after = 2_000_000_000;
        listener.handshakes.increment(HandshakeResult::Ok);
        listener.handshake_duration.record_duration(Duration::from_micros(300));
        listener.truncated += 1;
        listener.malformed_names += 2;
    }
    check(
        &text(&shards, &Extra::default()),
        &[
            r#"mailrace_tls_handshakes_total{listener="mx",result="ok"} 2"#,
            r#"mailrace_tls_handshakes_total{listener="mx",result="failed"} 0"#,
            r#"mailrace_tls_handshake_duration_seconds_count{listener="mx"} 2"#,
            r#"mailrace_tls_truncated_total{listener="mx"} 2"#,
            r#"mailrace_tls_malformed_names_total{listener="mx"} 4"#,
            r#"mailrace_tls_certificate_expiry_timestamp_seconds{listener="mx"} 2000000000"#,
        ],
    );
}

#[test]
fn no_shard_still_renders() {
    let extra = Extra {
        disk: Some(DiskFacts {
            free_bytes: 5,
            size_bytes: 9,
            state: DiskState::Full,
            reason: String::new(),
        }),
        process: ProcessFacts::read(),
        ..Extra::default()
    };
    let page = text(&[], &extra);
    check(&page, &["mailrace_shards 0", "mailrace_log_disk_state 2"]);
    assert!(page.contains("# TYPE process_cpu_seconds_total counter"));
}
