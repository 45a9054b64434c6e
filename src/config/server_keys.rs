//! Keys of `[server]` and `[log]`.

use super::{
    LogFormat,
    key::{DAY, Key, MIB},
    value::Kind,
};
use crate::log::SyncPolicy;

/// In the order of the documentation; those of `[limits]` follow.
pub(super) const SERVER_AND_LOG: &[Key] = &[
    Key::new(
        "server.hostname",
        Kind::Text,
        "",
        "Name in the greeting and in Received; \"\": the system's host name.",
    )
    .restart(),
    Key::new(
        "server.shards",
        Kind::Integer { least: 1, most: 1024, word: Some("auto") },
        "auto",
        "Worker shards; \"auto\": one for each CPU this process may run on.",
    )
    .restart(),
    Key::new(
        "server.admin.listen",
        Kind::Text,
        "127.0.0.1:2580",
        "Address of /metrics, /healthz and /readyz; \"\": off.",
    )
    .restart(),
    Key::new(
        "server.tls.cert_file",
        Kind::File,
        "",
        "Certificate of the listeners and its chain, PEM; read again when it changes.",
    ),
    Key::new("server.tls.key_file", Kind::File, "", "Its private key, PEM."),
    Key::new(
        "server.admin.token_file",
        Kind::File,
        "",
        "File with the token that admin requests must carry; required unless the address is \
         loopback.",
    )
    .restart(),
    Key::new(
        "server.admin.hosts",
        Kind::List,
        "",
        "Host names under which the stream API answers without a token, such as \
         [\"mail.example.com\"]; it always does under IP addresses and localhost.",
    )
    .restart(),
    Key::new(
        "server.drain.lead",
        Kind::Duration { least: 0, most: 3_600_000, word: None },
        "0s",
        "On SIGTERM and `mailrace drain`: how long mail is still accepted after /readyz turns to \
         503; with a load balancer, a few seconds more than its health checks need.",
    ),
    Key::new(
        "server.log_level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "Lowest level that is logged to stderr; the variable RUST_LOG overrides it.",
    )
    .restart(),
    Key::choice::<LogFormat>(
        "server.log_format",
        "Format of the log lines on stderr; auto: text on a terminal, JSON elsewhere.",
    )
    .restart(),
    Key::new(
        "server.dns.servers",
        Kind::List,
        "",
        "Addresses of DNS servers, such as 127.0.0.1:53; []: those in /etc/resolv.conf.",
    )
    .restart(),
    Key::new("log.dir", Kind::Text, super::DEFAULT_DIR, "Data directory.").restart(),
    Key::choice::<SyncPolicy>(
        "log.sync",
        "group: one sync per batch; each: one sync per message; none: NOT durable.",
    )
    .restart(),
    Key::new(
        "log.segment_size",
        Kind::Size { least: MIB, most: 4096 * MIB, word: None, percent: None },
        "64MiB",
        "Size at which a segment is sealed.",
    )
    .restart(),
    Key::new(
        "log.on_io_error",
        Kind::Choice(&["continue", "abort"]),
        "continue",
        "A failed write or sync ends its segment (continue) or the process (abort).",
    )
    .restart(),
    Key::new(
        "log.retention.age",
        Kind::Duration { least: 1_000, most: 36_500 * DAY, word: Some("") },
        "7d",
        "Delete sealed segments older than this; \"\": no age limit.",
    ),
    Key::new(
        "log.retention.size",
        Kind::Size { least: MIB, most: u64::MAX, word: Some(""), percent: None },
        "",
        "Delete the oldest segments once all shards together exceed this size; \"\": no limit.",
    ),
    Key::new(
        "log.retention.require_consumed",
        Kind::Boolean,
        "true",
        "Keep records that a configured exporter or a group has not committed.",
    ),
    Key::new(
        "log.retention.retain_after_export",
        Kind::Duration { least: 0, most: 365 * DAY, word: None },
        "15m",
        "Keep a segment this long after its last consumer has passed it.",
    ),
    Key::new("log.retention.hold", Kind::Boolean, "false", "Suspend all deletion."),
    Key::new(
        "log.refusals.size",
        Kind::Size { least: MIB, most: u64::MAX, word: Some(""), percent: None },
        "64MiB",
        "Size of each shard's log of refused commands and messages; \"\": they are not kept.",
    )
    .restart(),
    Key::new(
        "log.disk.low",
        Kind::Size { least: MIB, most: u64::MAX, word: None, percent: Some(99) },
        "10%",
        "Free space below which the server warns, and deletes consumed segments early.",
    ),
];
