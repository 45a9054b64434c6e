//! The checked configuration, table by table. Options that a room owns are of its types.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{AcceptConfig, DnsConfig, Methods, Network};
use crate::{
    log::{Rules, SyncPolicy},
    smtp::{self, LineEnds, Mechanism, Protocol, TlsPolicy},
    tls::{Demands, Files},
    verdict::RejectRules,
};

/// Form of the lines on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Text, Self::Json];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Name in the greeting and in Received. Default: the system's host name.
    pub hostname: String,
    /// Worker shards, at least 1. `auto`: one per CPU this process may run on.
    pub shards: usize,
    /// CPUs this process may run on; shard `n` belongs on `cpus[n % cpus.len()]`.
    pub cpus: Vec<usize>,
    /// Address of the admin listener; `None` if off.
    pub admin_listen: Option<SocketAddr>,
    /// File with the token that admin requests must bring.
    pub admin_token_file: Option<PathBuf>,
    /// Names, in lower case, by which the stream API may be asked without a token.
    pub admin_hosts: Vec<String>,
    /// Time between the end of readiness and the close of the ports.
    pub drain_lead: Duration,
    /// Least level of what is logged: `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: String,
    /// Form of the lines on stderr.
    pub log_format: LogFormat,
    /// DNS servers; empty: those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// Certificate of the listeners; `None` if they have none but their own.
    pub tls: Option<Files>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Data directory.
    pub dir: PathBuf,
    /// When a 250 leaves.
    pub sync: SyncPolicy,
    /// Size at which a segment is sealed, in bytes.
    pub segment_size: u64,
    /// A failed write or sync ends the process; otherwise it ends the segment.
    pub abort_on_io_error: bool,
    /// What is deleted when.
    pub retention: Rules,
    /// Bytes that a shard's refusals may have; `None`: they are not kept.
    pub refusals_size: Option<u64>,
    /// Free space below which it warns and deletes what is consumed earlier.
    pub disk_low: DiskLow,
}

/// `log.disk.low`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskLow {
    /// Of the file system's size, 1 to 99.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

impl DiskLow {
    /// In bytes, on a file system of this size.
    pub fn bytes(self, size: u64) -> u64 {
        match self {
            // Divided first: the product might not fit.
            Self::Percent(percent) => size / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Of each session and message.
    pub session: smtp::Limits,
    /// Sessions of the whole process.
    pub connections_total: usize,
    /// Bytes received and not yet durable, of the whole process.
    pub inflight_bytes: u64,
    /// Longest wait for a PROXY header.
    pub timeout_proxy: Duration,
    /// Sessions of one address or /64; `None`: no limit.
    pub connections_per_ip: Option<usize>,
    /// New sessions a minute of one address or /64; `None`: no limit.
    pub connection_rate_per_ip: Option<u32>,
    /// TLS handshakes under way on one shard.
    pub handshakes: usize,
    /// Records of a shard that may wait for their verdict.
    pub verify_queue: u64,
    /// Failed AUTH commands a minute of one address; `None`: no limit.
    pub auth_failures_per_ip: Option<u32>,
    /// Peers spared the limits that guard against abuse.
    pub exempt: Vec<Network>,
}

/// One `[[listener]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The `listener` label of the metrics.
    pub name: String,
    /// Addresses; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Paths of unix sockets.
    pub listen_unix: Vec<PathBuf>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// What becomes of bare CR, bare LF and NUL in mail data.
    pub line_ends: LineEnds,
    /// Paths outside the grammar of RFC 5321 are refused.
    pub strict_paths: bool,
    /// Names in EHLO and HELO that are neither domain nor address literal are refused.
    pub strict_helo: bool,
    /// What it says of TLS; all but `Off` means nothing without a certificate.
    pub tls_mode: TlsPolicy,
    /// Its own certificate.
    pub tls: Option<Files>,
    /// Authorities of client certificates, which are then required.
    pub tls_client_ca: Option<PathBuf>,
    /// Clients that ask for a name that no certificate has are refused.
    pub tls_reject_unknown_name: bool,
    /// `listener.auth`
    pub auth: AuthConfig,
    /// Its clients are users, who hand in their own mail (RFC 6409).
    pub submission: bool,
    /// As whom they may send; `None`: as anybody.
    pub senders_file: Option<PathBuf>,
    /// Mail of an author as whom they may not send is refused.
    pub refuse_author: bool,
    /// Networks of proxies that send a PROXY header; `None`: the PROXY protocol is off.
    pub proxies: Option<Vec<Network>>,
    /// Networks that may use XCLIENT and XFORWARD.
    pub xclient: Vec<Network>,
    /// `listener.accept`
    pub accept: AcceptConfig,
    /// `listener.dns`
    pub dns: DnsConfig,
    /// `listener.verify`; `None`: nothing is checked.
    pub verify: Option<Methods>,
    /// `listener.verify` in mode `reject`; `None`: mail is judged after it was accepted.
    pub reject: Option<RejectConfig>,
    /// `listener.verify.authserv_id` in modes `tag` and `reject`; empty: `server.hostname`. `None`: mail is not tagged.
    pub authserv_id: Option<String>,
    /// Wait before the greeting.
    pub greet_delay: Duration,
    /// Clients that talk before the greeting are refused.
    pub greet_check: bool,
    /// Its mail is refused first under overload.
    pub low_priority: bool,
    /// DSN is offered (RFC 3461).
    pub dsn: bool,
    /// REQUIRETLS is offered (RFC 8689).
    pub require_tls: bool,
    /// MT-PRIORITY is offered (RFC 6710).
    pub mt_priority: bool,
}

impl ListenerConfig {
    /// What it demands of its clients' TLS.
    pub fn tls_demands(&self) -> Demands {
        Demands {
            client_authorities: self.tls_client_ca.clone(),
            known_name: self.tls_reject_unknown_name,
        }
    }
}

/// `listener.verify` in mode `reject`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectConfig {
    /// What is refused.
    pub rules: RejectRules,
    /// Networks whose mail is not judged before it is accepted.
    pub trusted: Vec<Network>,
    /// Longest wait for a verdict.
    pub deadline: Duration,
    /// Mail that is not judged by then gets 451; otherwise it is accepted.
    pub tempfail: bool,
}

/// `listener.auth`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// Mechanisms offered; empty: AUTH is not.
    pub mechanisms: Vec<Mechanism>,
    /// Users and what proves them.
    pub users_file: Option<PathBuf>,
    /// No mail without AUTH.
    pub required: bool,
}
