//! A real Prometheus scrapes a real server.

use std::{net::SocketAddr, time::Duration};

use crate::support::{
    self, Server, body, eventually, id_of,
    machine::{has, promtool},
    servers::prometheus::Prometheus,
};

/// What exists of the documented metrics: those of TLS, policy, retention, consumer groups, exporters
/// and reload come with them.
const NAMES: [&str; 44] = [
    "build_info",
    "shards",
    "smtp_connections_total",
    "smtp_connections_refused_total",
    "smtp_sessions_active",
    "smtp_sessions_closed_total",
    "smtp_session_duration_seconds",
    "smtp_commands_total",
    "smtp_replies_total",
    "smtp_protocol_errors_total",
    "smtp_messages_received_total",
    "smtp_received_bytes_total",
    "smtp_messages_rejected_total",
    "smtp_message_size_bytes",
    "smtp_message_recipients",
    "smtp_message_ack_duration_seconds",
    "smtp_transaction_duration_seconds",
    "shard_inflight_bytes",
    "shard_inflight_limit_bytes",
    "shard_backpressure_seconds_total",
    "log_appended_records_total",
    "log_appended_bytes_total",
    "log_append_duration_seconds",
    "log_sync_duration_seconds",
    "log_batch_records",
    "log_start_offset",
    "log_end_offset",
    "log_high_water_mark",
    "log_segments",
    "log_size_bytes",
    "log_errors_total",
    "log_corrupt_records_total",
    "log_truncated_bytes_total",
    "log_disk_free_bytes",
    "log_disk_size_bytes",
    "log_disk_state",
    "shard_busy_seconds_total",
    "shard_stalls_total",
    "server_diagnostics_total",
    "log_recovery_duration_seconds",
    "metrics_scrape_duration_seconds",
    // Of every client library; without our prefix.
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
];

#[test]
fn every_metric_of_the_manual_is_there_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=2"]);
    let (status, text) = server.page("/metrics");
    assert_eq!(status, 200);
    let missing: Vec<_> = NAMES
        .iter()
        .map(|name| match name.starts_with("process_") {
            true => (*name).to_owned(),
            false => format!("mailrace_{name}"),
        })
        .filter(|name| !text.contains(&format!("# TYPE {name} ")))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    // Labelled series stand at 0: a rate over them has a beginning.
    for series in [
        "mailrace_smtp_connections_total{listener=\"smtp\"} 0",
        "mailrace_smtp_messages_received_total{listener=\"smtp\",shard=\"0\"} 0",
        "mailrace_smtp_received_bytes_total{listener=\"smtp\"} 0",
        "mailrace_log_errors_total{op=\"sync\"} 0",
        "mailrace_log_errors_total{op=\"write\"} 0",
        "mailrace_log_corrupt_records_total{stage=\"recovery\"} 0",
        "mailrace_server_diagnostics_total{level=\"error\"} 0",
    ] {
        assert!(text.lines().any(|line| line == series), "{series} is missing in\n{text}");
    }
    for (name, label, values) in [
        ("connections_refused_total", "reason", &["max_connections", "draining"][..]),
        (
            "sessions_closed_total",
            "reason",
            &["quit", "client_gone", "timeout", "error_limit", "io_error", "draining"][..],
        ),
        ("commands_total", "command", &["ehlo", "mail", "rcpt", "data", "bdat", "quit", "other"]),
        (
            "protocol_errors_total",
            "reason",
            &["bare_lf", "line_too_long", "bad_sequence", "bad_syntax", "early_talker"],
        ),
        ("messages_rejected_total", "reason", &["size", "backpressure", "disk_full", "log_error"]),
        ("replies_total", "code", &["220", "250", "354", "421", "452"]),
    ] {
        for value in values {
            let (start, with) = (format!("mailrace_smtp_{name}{{"), format!("{label}=\"{value}\""));
            let found = text
                .lines()
                .find(|line| line.to_ascii_lowercase().starts_with(&start) && line.contains(&with));
            let found = found.unwrap_or_else(|| panic!("{name} {with} is missing in\n{text}"));
            assert!(found.ends_with(" 0"), "{found}");
        }
    }
}

#[test]
fn health_and_readiness_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert_eq!(server.page("/healthz").0, 200);
    assert_eq!(server.page("/readyz").0, 200);
    assert_eq!(server.page("/no-such-page").0, 404);
}

#[test]
fn readiness_ends_with_the_drain() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let mut client = server.client();
    client.ehlo();
    client.begin_data();
    client.send(b"Subject: holds the drain\r\n");
    eventually("the octets arrive", Duration::from_secs(5), || {
        server.metric("mailrace_shard_inflight_bytes", &[]) > 0.0
    });
    support::signal(&server.child, libc::SIGTERM);
    eventually("it is no longer ready", Duration::from_secs(5), || server.page("/readyz").0 == 503);
    assert_eq!(server.page("/healthz").0, 200, "alive: nobody shall kill it now");
    client.send(b".\r\n");
    id_of(&client.reply());
    assert_eq!(server.ended(Duration::from_secs(5)), Some(0));
}

#[test]
fn promtool_has_nothing_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=2"]);
    send(&server, 5);
    promtool(&server.page("/metrics").1);
}

#[test]
fn prometheus_scrapes_what_was_sent() {
    if !has("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A listener of two addresses, one of an address and a socket: two series of one name and
    // labels are one to Prometheus.
    let socket =
        format!("listener.1.listen=127.0.0.1:0,unix:{}", dir.path().join("lmtp").display());
    let settings = [
        "server.shards=2",
        "listener.0.listen=127.0.0.1:0,127.0.0.2:0",
        "listener.1.name=lmtp",
        "listener.1.protocol=lmtp",
        &socket,
    ];
    let mut server = Server::start_with(&dir.path().join("data"), &settings);
    let prometheus = Prometheus::start(dir.path(), server.admin, 200);
    let addresses: Vec<SocketAddr> = server
        .greeting
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("smtp ")?.split_whitespace().next()?.parse().ok()
        })
        .collect();
    assert_eq!(addresses.len(), 2, "{}", server.greeting);
    for address in addresses {
        server.smtp = address;
        send(&server, 20);
    }
    let sent = "sum(mailrace_smtp_messages_received_total)";
    eventually("it sees the 40 messages", Duration::from_secs(20), || {
        value(&prometheus, sent) == Some(40.0)
    });
    assert_eq!(value(&prometheus, "up"), Some(1.0));
    let ack = "mailrace_smtp_message_ack_duration_seconds";
    assert_eq!(value(&prometheus, &format!("sum({ack}_count)")), Some(40.0));
    let p99 = value(&prometheus, &format!("histogram_quantile(0.99, sum by (le) ({ack}_bucket))"));
    assert!(p99.is_some_and(|seconds| seconds > 0.0 && seconds < 10.0), "{p99:?}");
    assert_eq!(value(&prometheus, "sum(mailrace_log_high_water_mark)"), Some(40.0));
    // Killed servers go down, and are seen to.
    server.kill();
    eventually("it is down", Duration::from_secs(20), || value(&prometheus, "up") == Some(0.0));
}

/// Over four sessions.
fn send(server: &Server, count: u64) {
    for session in 0..4 {
        let mut client = server.client();
        client.ehlo();
        for at in (session..count).step_by(4) {
            id_of(&client.bdat(&body(at, 2_000)));
        }
        assert!(client.say("QUIT").starts_with("221"));
    }
}

/// The first value of an instant query; `None` where there is none.
fn value(prometheus: &Prometheus, query: &str) -> Option<f64> {
    prometheus.values(query).first().copied()
}
