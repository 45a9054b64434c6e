//! `[limits]`: keys, and the limits that they set.
//!
//! A limit of a session belongs to `smtp`, which says its default. Here it has one line: its key, the
//! field it sets, what values it takes, what it does.

use std::time::Duration;

use super::key::{DAY, Key, MIB};
use super::options::LimitsConfig;
use super::raw::Settings;
use super::value::{Amount, Kind};
use super::{Machine, format_duration, format_size};
use crate::smtp;

/// Of waits for a peer.
const TIMEOUT: Kind = Kind::Duration { least: 1_000, most: DAY, word: None };

const COUNT: Kind = Kind::Integer { least: 1, most: 1_000_000_000, word: None };

const fn size(least: u64, most: u64) -> Kind {
    Kind::Size { least, most, word: None, percent: None }
}

macro_rules! session_limits {
    ($($key:literal $field:ident $kind:expr, $doc:literal;)*) => {
        /// Keys of the limits of sessions.
        pub(super) const SESSION: &[Key] = &[$(
            Key::owned($key, $kind, || smtp::Limits::default().$field.written($kind), $doc),
        )*];

        /// As configured, the others as `smtp` has them.
        fn session(s: &mut Settings) -> smtp::Limits {
            let mut limits = smtp::Limits::default();
            $(limits.$field.read(s, $key, $kind);)*
            limits
        }
    };
}

session_limits! {
    // RFC 5321 §4.5.3.1.7: 64K octets must be taken.
    "limits.message_size" message_bytes size(1 << 16, 1024 * MIB),
        "Largest message, advertised as SIZE.";
    // RFC 5321 §4.5.3.1.8: at least 100.
    "limits.recipients" recipients_max Kind::Integer { least: 100, most: 100_000, word: None },
        "Recipients per message.";
    "limits.timeout.command" command_wait TIMEOUT, "Longest wait for a command.";
    "limits.timeout.data" data_time TIMEOUT, "Longest duration of DATA or BDAT.";
    "limits.timeout.handshake" handshake_wait TIMEOUT, "Longest TLS handshake.";
    "limits.timeout.session" session_time TIMEOUT, "Age at which a session ends between commands.";
    "limits.timeout.commit" commit_wait TIMEOUT, "Longest wait for a sync, then 451.";
    "limits.session_messages" session_messages COUNT, "MAIL commands per session.";
    "limits.session_recipients" rcpts_per_session COUNT, "RCPT commands per session.";
    "limits.errors.soft" errors_soft COUNT,
        "Errors since the last accepted message after which replies are delayed.";
    "limits.errors.hard" errors_hard COUNT, "Errors after which the session ends.";
    "limits.junk" junk_max COUNT, "Commands without a message before the session ends.";
    "limits.auth_failures" auth_failures COUNT, "Failed AUTH commands per session.";
    "limits.data_rate_min" data_rate_min_bytes size(0, MIB),
        "Lowest average rate of mail data, in bytes per second; 0B: no limit.";
    "limits.data_rate_grace" data_rate_grace TIMEOUT, "Time before the lowest rate applies.";
    // RFC 5321 §4.5.3.1.6.
    "limits.content_line" content_line_bytes size(998, 16 * MIB),
        "Longest line of mail data without CRLF.";
    "limits.header_scan" header_scan_bytes size(1 << 12, 16 * MIB),
        "Bytes of the header searched for Received fields.";
    // RFC 5321 §6.3.
    "limits.received" received_max Kind::Integer { least: 100, most: 100_000, word: None },
        "Received fields above which a message counts as a mail loop.";
    "limits.bdat_chunks" bdat_chunks_max COUNT, "BDAT commands per message.";
}

/// Keys of the limits of the process, its shards and addresses.
pub(super) const SERVER: &[Key] = &[
    Key::new(
        "limits.connections.total",
        Kind::Integer { least: 1, most: 10_000_000, word: Some("auto") },
        "auto",
        "Concurrent sessions of the process; \"auto\": as file descriptors and memory allow.",
    ),
    Key::new(
        "limits.inflight_bytes",
        Kind::Size { least: 0, most: u64::MAX, word: None, percent: Some(90) },
        "50%",
        "Memory for mail received and not yet durable; a percentage is of RAM or of the cgroup's \
         limit.",
    ),
    Key::new("limits.timeout.proxy", TIMEOUT, "3s", "Longest wait for a PROXY header."),
    Key::new(
        "limits.connections.per_ip",
        Kind::Integer { least: 1, most: 10_000_000, word: Some("") },
        "50",
        "Sessions per IPv4 address or IPv6 /64; \"\": no limit.",
    ),
    Key::new(
        "limits.connections.rate_per_ip",
        Kind::PerMinute,
        "600/m",
        "New sessions per IPv4 address or IPv6 /64; \"\": no limit.",
    ),
    Key::new("limits.handshakes", COUNT, "256", "Concurrent TLS handshakes per shard."),
    Key::new(
        "limits.verify_queue",
        COUNT,
        "100000",
        "Messages per shard that may wait for their verdict; those beyond are not judged.",
    )
    .restart(),
    Key::new(
        "limits.auth_failures_per_ip",
        Kind::PerMinute,
        "30/m",
        "Failed AUTH commands per address before it is blocked for 5 minutes; \"\": no limit.",
    ),
    Key::new(
        "limits.exempt",
        Kind::List,
        "127.0.0.0/8, ::1",
        "Networks exempt from the limits that guard against abuse.",
    ),
];

/// A limit of a room, as text and from settings.
trait Limit {
    /// As an environment variable would hold it.
    fn written(self, kind: Kind) -> String;

    /// Takes the value of a key; a mistake is noted and leaves the default.
    fn read(&mut self, s: &mut Settings, key: &str, kind: Kind);
}

impl Limit for Duration {
    fn written(self, _: Kind) -> String {
        format_duration(self)
    }

    fn read(&mut self, s: &mut Settings, key: &str, _: Kind) {
        *self = s.duration(key).unwrap_or(*self);
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Limit for $number {
            fn written(self, kind: Kind) -> String {
                match kind {
                    Kind::Size { .. } => format_size(self as u64),
                    _ => self.to_string(),
                }
            }

            fn read(&mut self, s: &mut Settings, key: &str, kind: Kind) {
                let read = match kind {
                    Kind::Size { .. } => s.size(key),
                    _ => s.integer(key).map(|number| number as u64),
                };
                *self = read.map_or(*self, |number| Self::try_from(number).unwrap_or(Self::MAX));
            }
        }
    )*};
}

numbers!(u32, u64, usize);

pub(super) fn limits(
    s: &mut Settings,
    machine: &Machine,
    warnings: &mut Vec<String>,
) -> LimitsConfig {
    let session = session(s);
    let inflight_bytes = inflight(s, machine, session.message_bytes, warnings);
    // 0.8 of the descriptors leaves room for segments; 64 KiB is a session's input buffer.
    let by_memory = usize::try_from(inflight_bytes >> 16).unwrap_or(usize::MAX);
    let automatic = (machine.descriptors_max / 5 * 4).min(by_memory).max(1);
    LimitsConfig {
        session,
        connections_total: s.integer("limits.connections.total").unwrap_or(automatic),
        inflight_bytes,
        timeout_proxy: s.duration("limits.timeout.proxy").unwrap_or_default(),
        connections_per_ip: s.integer("limits.connections.per_ip"),
        connection_rate_per_ip: s.per_minute("limits.connections.rate_per_ip"),
        handshakes: s.integer("limits.handshakes").unwrap_or_default(),
        verify_queue: s.integer("limits.verify_queue").unwrap_or_default() as u64,
        auth_failures_per_ip: s.per_minute("limits.auth_failures_per_ip"),
        exempt: s.list("limits.exempt", str::parse),
    }
}

/// `limits.inflight_bytes`, which has room for one message at least.
fn inflight(
    s: &mut Settings,
    machine: &Machine,
    message_bytes: u64,
    warnings: &mut Vec<String>,
) -> u64 {
    let bytes = match s.amount("limits.inflight_bytes") {
        // Noted as a mistake.
        Amount::Word => return 0,
        Amount::Bytes(bytes) => bytes,
        Amount::Percent(percent) => {
            let bytes = machine.memory_bytes / 100 * percent as u64;
            if bytes < message_bytes {
                // What a share of the memory comes to is the machine's doing.
                warnings.push(format!(
                    "limits.inflight_bytes: {percent}% of the memory that this process may use, \
                     {} MiB, is less than one message of limits.message_size; using {}; give it \
                     more memory, or set a smaller limits.message_size",
                    bytes >> 20,
                    format_size(message_bytes),
                ));
            }
            return bytes.max(message_bytes);
        }
    };
    if bytes < message_bytes {
        let (bytes, least) = (format_size(bytes), format_size(message_bytes));
        let message =
            format!("{bytes} is less than one message of limits.message_size needs ({least})");
        s.blame("limits.inflight_bytes", message);
    }
    bytes
}
