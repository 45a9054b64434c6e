//! Configuration: as written, then checked, with the origin of every value.
//!
//! Later sources win: defaults, then `MAILRACE_*` variables (a double underscore stands for the
//! dot), then `--set key=value`. An unknown key, a value out of range or an address that would
//! open a catch-all to the Internet is an error that names where the value was written.

mod machine;
mod raw;
mod units;

pub use machine::Machine;
pub use raw::{ConfigError, ConfigErrors, Origin, Setting};
pub use units::{Network, format_duration, format_size};

use crate::export::ExportOptions;
use raw::Settings;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Address of the first listener where none is configured.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:2525";

/// Data directory where none is configured.
pub const DEFAULT_DIR: &str = "./mailrace-data";

const MIB: u64 = 1 << 20;

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[[listener]]`, at least one, names unique.
    pub listeners: Vec<ListenerConfig>,
    /// `[[export]]`, names unique.
    pub exports: Vec<ExportOptions>,
    settings: Vec<Setting>,
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
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Data directory.
    pub dir: PathBuf,
    /// When a 250 leaves.
    pub sync: SyncMode,
    /// Size at which a segment is sealed, in bytes.
    pub segment_size: u64,
    /// A failed write or sync ends the process; otherwise it ends the segment.
    pub abort_on_io_error: bool,
}

/// What precedes a 250.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// One sync for each batch (default).
    Group,
    /// One sync for each message.
    Each,
    /// No sync: a power cut loses acknowledged mail. Warned about at start.
    None,
}

impl SyncMode {
    /// As written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            SyncMode::Group => "group",
            SyncMode::Each => "each",
            SyncMode::None => "none",
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Bytes of one message, advertised as SIZE.
    pub message_size: u64,
    /// Recipients of one message.
    pub recipients: usize,
    /// Sessions of the whole process.
    pub connections_total: usize,
    /// Bytes received and not yet durable, of the whole process.
    pub inflight_bytes: u64,
    /// Wait for a command.
    pub timeout_command: Duration,
    /// Longest DATA or BDAT.
    pub timeout_data: Duration,
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
    /// What becomes of bare CR, bare LF and NUL in mail data.
    pub line_ends: LineEnds,
}

/// What becomes of bare CR, bare LF and NUL in mail data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// The message is refused (default).
    Reject,
    /// Bare CR and LF become CRLF.
    Normalize,
    /// Kept as received and flagged in the record.
    Allow,
}

impl LineEnds {
    /// As written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            LineEnds::Reject => "reject",
            LineEnds::Normalize => "normalize",
            LineEnds::Allow => "allow",
        }
    }
}

impl Config {
    /// Merges this process's environment and the `--set` flags over the defaults.
    ///
    /// # Errors
    ///
    /// Every mistake found, each with the place where it was written.
    pub fn load(sets: &[String]) -> Result<Config, ConfigErrors> {
        Config::from_sources(std::env::vars_os(), sets, &Machine::detect())
    }

    /// As [`Config::load`], from the given environment and machine.
    ///
    /// # Errors
    ///
    /// Every mistake found, each with the place where it was written.
    pub fn from_sources(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        sets: &[String],
        machine: &Machine,
    ) -> Result<Config, ConfigErrors> {
        let mut settings = Settings::defaults(&machine.hostname);
        settings.add_environment(environment);
        settings.add_flags(sets);
        settings.complete_listeners();
        check(settings, machine)
    }

    /// Every key with its value as written and its origin, in the order of the documentation.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }
}

fn check(mut settings: Settings, machine: &Machine) -> Result<Config, ConfigErrors> {
    let s = &mut settings;
    let server = ServerConfig {
        hostname: s.parse("server.hostname", units::hostname),
        shards: s.parse("server.shards", |text| match text {
            "auto" => Ok(machine.cpus.len().max(1)),
            _ => units::integer(text, 1, 1024).map_err(|error| format!("{error}, or \"auto\"")),
        }),
        cpus: machine.cpus.clone(),
        admin_listen: s.parse("server.admin.listen", |text| match text {
            "" => Ok(None),
            _ => loopback(text, "the admin listener has no token yet").map(Some),
        }),
    };
    let log = LogConfig {
        dir: s
            .parse("log.dir", |text| match text {
                "" => Err("a directory is needed".to_owned()),
                _ => Ok(Some(PathBuf::from(text))),
            })
            .unwrap_or_default(),
        sync: s
            .parse("log.sync", |text| {
                choice(text, &[SyncMode::Group, SyncMode::Each, SyncMode::None], SyncMode::name)
                    .map(Some)
            })
            .unwrap_or(SyncMode::Group),
        segment_size: s.parse("log.segment_size", |text| units::size_within(text, MIB, 4096 * MIB)),
        abort_on_io_error: s.parse("log.on_io_error", |text| match text {
            "continue" => Ok(false),
            "abort" => Ok(true),
            _ => Err("one of continue, abort is needed".to_owned()),
        }),
    };
    // RFC 5321 §4.5.3.1.7: 64K octets must be taken; §4.5.3.1.8: and 100 recipients.
    let message_size =
        s.parse("limits.message_size", |text| units::size_within(text, 1 << 16, 1024 * MIB));
    let inflight_bytes = s.parse("limits.inflight_bytes", |text| {
        let bytes = match text.strip_suffix('%') {
            Some(percent) => {
                machine.memory_bytes / 100 * units::integer(percent.trim(), 1, 90)? as u64
            }
            None => units::size(text)?,
        };
        if bytes < message_size {
            let (bytes, least) = (format_size(bytes), format_size(message_size));
            return Err(format!(
                "{bytes} do not hold one message of limits.message_size ({least})"
            ));
        }
        Ok(bytes)
    });
    let limits = LimitsConfig {
        message_size,
        recipients: s.parse("limits.recipients", |text| units::integer(text, 100, 100_000)),
        connections_total: s.parse("limits.connections.total", |text| match text {
            // 0.8 of the descriptors leaves room for segments; 64 KiB is a session's input buffer.
            "auto" => {
                let by_memory = usize::try_from(inflight_bytes >> 16).unwrap_or(usize::MAX);
                Ok((machine.descriptors_max / 5 * 4).min(by_memory).max(1))
            }
            _ => {
                units::integer(text, 1, 10_000_000).map_err(|error| format!("{error}, or \"auto\""))
            }
        }),
        inflight_bytes,
        timeout_command: s.parse("limits.timeout.command", timeout),
        timeout_data: s.parse("limits.timeout.data", timeout),
        exempt: s.parse("limits.exempt", |text| {
            units::list(text).iter().map(|item| item.parse()).collect::<Result<Vec<Network>, _>>()
        }),
    };
    let listeners: Vec<ListenerConfig> =
        (0..s.listener_count()).map(|index| listener(s, index)).collect();
    for (index, listener) in listeners.iter().enumerate() {
        if listeners.iter().take(index).any(|earlier| earlier.name == listener.name) {
            s.blame(&format!("listener.{index}.name"), "another listener has this name".to_owned());
        }
    }
    let settings = settings.finish()?;
    Ok(Config { server, log, limits, listeners, exports: Vec::new(), settings })
}

fn listener(settings: &mut Settings, index: usize) -> ListenerConfig {
    let key = |field: &str| format!("listener.{index}.{field}");
    ListenerConfig {
        name: settings.parse(&key("name"), units::label),
        listen: settings.parse(&key("listen"), |text| {
            let addresses = units::list(text);
            if addresses.is_empty() {
                return Err("at least one address is needed, for example 127.0.0.1:2525".to_owned());
            }
            let reason = "a recipient policy (`accept`), which does not exist yet, is needed \
                          there, or the server would be a catch-all for the Internet";
            addresses.iter().map(|text| loopback(text, reason)).collect::<Result<Vec<_>, _>>()
        }),
        line_ends: settings
            .parse(&key("line_ends"), |text| {
                let all = [LineEnds::Reject, LineEnds::Normalize, LineEnds::Allow];
                choice(text, &all, LineEnds::name).map(Some)
            })
            .unwrap_or(LineEnds::Reject),
    }
}

fn loopback(text: &str, reason: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("{text} is not an address such as 127.0.0.1:2525"))?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(format!("{text} listens beyond loopback: {reason}"))
}

fn timeout(text: &str) -> Result<Duration, String> {
    units::duration_within(text, Duration::from_secs(1), Duration::from_secs(86_400))
}

fn choice<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|value| name(*value) == text).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|value| name(*value)).collect();
        format!("one of {} is needed", names.join(", "))
    })
}

#[cfg(test)]
mod tests;
