//! The options as written.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{proxy::Version, schedule::Arrivals, template::Template, units};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Csv,
    Html,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Percentiles {
    /// p50 to p99.99
    Short,
    /// The whole distribution
    Full,
}

/// Of `--help`.
const EXIT_CODES: &str = "Exit codes:\n  0  the run completed and no --fail-if condition holds\n  \
                          1  the run could not start, ended early, or no message was \
                          acknowledged\n  2  the options are invalid\n  3  a --fail-if condition \
                          holds, mail is missing from the log, or no rate met the --search \
                          threshold\n  4  the run is INVALID: the load generator was the \
                          bottleneck, so its figures are not the server's\n 78  the configuration \
                          that names the data directory is invalid";

/// Options of a run.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXIT_CODES)]
pub(super) struct RunArgs {
    /// smtp://HOST:PORT, smtps://HOST:PORT, lmtp://HOST:PORT or lmtp+unix:PATH
    #[arg(default_value = "smtp://127.0.0.1:2525")]
    pub(super) target: String,

    /// Open loop: send messages at this rate, such as 500, 20k/s or 72M/h; without it each
    /// connection sends its next message as soon as the previous one is answered
    #[arg(short, long, value_parser = units::rate, help_heading = "Load")]
    pub(super) rate: Option<f64>,
    /// How the open loop spreads messages
    #[arg(long, value_enum, default_value_t = Arrivals::Constant, help_heading = "Load")]
    pub(super) arrivals: Arrivals,
    /// Open loop in steps of constant rate: 30s:1k,60s:20k,30s:1k
    #[arg(long, value_name = "TIME:RATE,...", conflicts_with_all = ["rate", "duration", "messages"], help_heading = "Load")]
    pub(super) stages: Option<String>,
    /// Find the highest rate that meets a threshold, such as 'p99<50ms'; each try takes one
    /// --duration
    #[arg(long, value_name = "THRESHOLD", conflicts_with_all = ["stages", "messages", "verify", "e2e"], help_heading = "Load")]
    pub(super) search: Option<String>,
    /// Connections
    #[arg(short, long, default_value_t = 50, value_name = "N", help_heading = "Load")]
    pub(super) connections: usize,
    /// Threads that share connections and rate
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Load")]
    pub(super) threads: usize,
    /// How long to measure [default: 10s]
    #[arg(short = 'z', long, value_parser = units::duration, help_heading = "Load")]
    pub(super) duration: Option<Duration>,
    /// Send this many messages instead of measuring for a time
    #[arg(short = 'n', long, value_parser = units::count, value_name = "N", conflicts_with = "duration", help_heading = "Load")]
    pub(super) messages: Option<u64>,
    /// Load before the measured time [default: 3s, with -n 0s]
    #[arg(long, value_parser = units::duration, value_name = "TIME", help_heading = "Load")]
    pub(super) warmup: Option<Duration>,
    /// Messages per connection; after them it is closed with QUIT and a new one is opened
    #[arg(long, default_value_t = 100, value_name = "N", help_heading = "Load")]
    pub(super) messages_per_connection: u64,
    /// Skip, and count, a message that has waited this long for a free connection (open loop)
    #[arg(long, value_parser = units::duration, default_value = "5s", value_name = "TIME", help_heading = "Load")]
    pub(super) late_limit: Duration,
    /// Messages sent but not yet answered on one connection; more than 1 needs pipelining
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Load")]
    pub(super) in_flight: usize,
    /// Close a connection that has received no reply for this long
    #[arg(long, value_parser = units::duration, default_value = "60s", value_name = "TIME", help_heading = "Load")]
    pub(super) timeout: Duration,
    /// How long to wait for outstanding replies at the end
    #[arg(long, value_parser = units::duration, default_value = "10s", value_name = "TIME", help_heading = "Load")]
    pub(super) drain: Duration,

    /// Bytes of a message (k, m and g are powers of 1024): 10k, 1k..100k (uniform) or
    /// mix:2k=70,50k=25,5m=5 (by weight)
    #[arg(long, default_value = "10k", help_heading = "Mail")]
    pub(super) size: String,
    /// Send these messages: a directory of them, or an mbox file
    #[arg(long, value_name = "DIR|MBOX", conflicts_with = "size", help_heading = "Mail")]
    pub(super) corpus: Option<PathBuf>,
    /// Recipients of each message: 3 or 1..5
    #[arg(long, default_value = "1", value_name = "N|N..M", help_heading = "Mail")]
    pub(super) recipients: String,
    /// Reverse-path; {seq} is the message's number, {rand} random
    #[arg(
        long,
        default_value = "loadtest@client.test",
        value_name = "TEMPLATE",
        help_heading = "Mail"
    )]
    pub(super) from: Template,
    /// Forward-path
    #[arg(
        long,
        default_value = "user@server.test",
        value_name = "TEMPLATE",
        help_heading = "Mail"
    )]
    pub(super) to: Template,
    /// Recipient domains by weight: a.test:75,b.test:25
    #[arg(long, value_name = "DOMAIN:WEIGHT,...", help_heading = "Mail")]
    pub(super) domains: Option<String>,
    /// Random seed: the same seed gives the same mail and schedule
    #[arg(long, default_value_t = 1, help_heading = "Mail")]
    pub(super) seed: u64,

    /// Send commands in groups where the server offers it
    #[arg(long, value_enum, default_value_t = Switch::On, help_heading = "SMTP")]
    pub(super) pipelining: Switch,
    /// Send mail data with BDAT
    #[arg(long, help_heading = "SMTP")]
    pub(super) chunking: bool,
    /// Name in EHLO
    #[arg(long, default_value = "client.test", value_name = "NAME", help_heading = "SMTP")]
    pub(super) helo: String,
    /// Use STARTTLS; smtps:// is TLS from the first byte
    #[arg(long, help_heading = "SMTP")]
    pub(super) starttls: bool,
    /// Accept any certificate
    #[arg(long, conflicts_with = "ca_file", help_heading = "SMTP")]
    pub(super) insecure: bool,
    /// Certificate authorities to trust (PEM), instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "SMTP")]
    pub(super) ca_file: Option<PathBuf>,
    /// Do a full handshake for each connection instead of resuming earlier sessions
    #[arg(long, help_heading = "SMTP")]
    pub(super) no_resumption: bool,
    /// Log in with AUTH PLAIN, as the users in this file (lines of user:password), in turn; over
    /// TLS only
    #[arg(long, value_name = "FILE", help_heading = "SMTP")]
    pub(super) auth_file: Option<PathBuf>,
    /// Begin each connection with a PROXY header, as a relaying proxy does
    #[arg(long, value_enum, value_name = "VERSION", help_heading = "SMTP")]
    pub(super) proxy_protocol: Option<Version>,
    /// Client addresses, used in turn: with --proxy-protocol, any network, claimed in the header;
    /// without it, addresses of this machine to connect from, such as 127.0.0.0/8
    #[arg(long, value_name = "NETWORK", help_heading = "SMTP")]
    pub(super) client_net: Option<String>,
    /// Make some of the connections misbehave as described in this TOML file
    #[arg(long, value_name = "FILE", help_heading = "SMTP")]
    pub(super) scenario: Option<PathBuf>,
    /// Allow a target outside loopback and private networks
    #[arg(long, help_heading = "SMTP")]
    pub(super) allow_public_target: bool,

    /// Read the log back and check that it holds each acknowledged message exactly once, byte for
    /// byte
    #[arg(long, help_heading = "Check")]
    pub(super) verify: bool,
    /// Follow the log as a consumer does, and measure how long after its 250 each message is seen
    #[arg(long, help_heading = "Check")]
    pub(super) e2e: bool,
    /// Data directory of the loaded server, for --verify and --e2e [default: with `mailrace bench`,
    /// log.dir of the configuration]
    #[arg(long, value_name = "DIR", help_heading = "Check")]
    pub(super) log_dir: Option<PathBuf>,
    /// Exit with code 3 if the condition holds: 'p99>50ms', 'e2e.p99>1s', 'errors>0'
    #[arg(long, value_name = "CONDITION", help_heading = "Check")]
    pub(super) fail_if: Vec<String>,

    /// Do not show live progress
    #[arg(long, help_heading = "Output")]
    pub(super) no_tui: bool,
    /// Format of the report
    #[arg(long, value_enum, default_value_t = Format::Text, help_heading = "Output")]
    pub(super) format: Format,
    /// Write the report to this file instead of stdout
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub(super) output: Option<PathBuf>,
    /// Also save the report as JSON, for `compare` and `report`
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) save: Option<PathBuf>,
    /// Save the response times of each second as an HdrHistogram log
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) hdr_log: Option<PathBuf>,
    /// How much of the distribution the text report shows
    #[arg(long, value_enum, default_value_t = Percentiles::Short, help_heading = "Output")]
    pub(super) percentiles: Percentiles,
    /// Add a note to the report, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Output")]
    pub(super) tag: Vec<String>,
    /// Serve metrics while running: http://ADDR/metrics
    #[arg(long, value_name = "ADDR", help_heading = "Output")]
    pub(super) metrics_addr: Option<std::net::SocketAddr>,
}
