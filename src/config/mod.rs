//! Configuration: as written, then checked, with the origin of every value.
//!
//! Later sources win: defaults, the file, `MAILRACE_*` variables (a double underscore is the
//! dot), then `--set key=value`. An unknown key, a value out of range or an address that would
//! open a catch-all to the Internet is an error that names where the value was written.
//!
//! ```text
//! keys, export_keys   every key: kind, default, doc ----> defaults (config default), schema
//!        |
//! file --+-> raw: Settings, values with origins ---> mod, exports: checked options of the rooms
//! environment, flags                            \-> reload: what differs, what needs a restart
//! ```

mod address;
mod defaults;
mod export_keys;
mod exports;
mod file;
mod keys;
mod machine;
mod raw;
mod reload;
mod schema;
mod units;
mod value;

pub use defaults::{STARTER, every_default};
pub use file::{ConfigFile, DEFAULT_FILES};
pub use machine::Machine;
pub use raw::{ConfigError, ConfigErrors, Origin, Setting};
pub use reload::Change;
pub use schema::schema;
pub use units::{Network, format_duration, format_size};
pub use value::Value;

use crate::export::ExportOptions;
use crate::tls::{Certificate, Files, LoadError};
use raw::Settings;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use value::Amount;

/// Address of the first listener where none is configured.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:2525";

/// Data directory where none is configured.
pub const DEFAULT_DIR: &str = "./mailrace-data";

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
    file: Option<PathBuf>,
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
    /// Certificate of the listeners; `None` if they have none but their own.
    pub tls: Option<Files>,
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
    /// What is deleted when.
    pub retention: RetentionConfig,
    /// Free space below which it warns and deletes what is consumed earlier.
    pub disk_low: DiskLow,
}

/// `log.retention`: a segment goes when age or size ask for it and nothing below forbids it (D12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Age at which a sealed segment may go; `None`: never for its age.
    pub age: Option<Duration>,
    /// Bytes of all shards beyond which the oldest segments may go; `None`: no limit.
    pub size: Option<u64>,
    /// What a configured exporter or a group has not committed stays.
    pub require_consumed: bool,
    /// A segment stays this long after its last consumer has passed it.
    pub retain_after_export: Duration,
    /// Nothing is deleted at all.
    pub hold: bool,
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
            DiskLow::Percent(percent) => size / 100 * u64::from(percent),
            DiskLow::Bytes(bytes) => bytes,
        }
    }
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
    /// Longest TLS handshake.
    pub timeout_handshake: Duration,
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
    /// What it says of TLS; all but `Off` means nothing without a certificate.
    pub tls_mode: TlsMode,
    /// Its own certificate.
    pub tls: Option<Files>,
}

/// `listener.tls_mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// None.
    Off,
    /// STARTTLS is offered where there is a certificate (default).
    Starttls,
    /// Nothing is taken before STARTTLS.
    Required,
    /// From the first octet.
    Implicit,
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
    /// Merges the file (the named one, or the first of [`DEFAULT_FILES`] that exists), this
    /// process's environment and the `--set` flags over the defaults.
    ///
    /// # Errors
    ///
    /// Every mistake found, each with the place where it was written; a file that cannot be read.
    pub fn load(named: Option<&Path>, sets: &[String]) -> Result<Config, ConfigErrors> {
        let file = ConfigFile::find(named)?;
        let config = Config::merge(file.as_ref(), std::env::vars_os(), sets, &Machine::detect())?;
        config.check_certificates()?;
        Ok(config)
    }

    /// Certificates that a listener shows: its own first, then the server's, each by its names.
    pub fn certificates(&self, listener: &ListenerConfig) -> Vec<Files> {
        if listener.tls_mode == TlsMode::Off {
            return Vec::new();
        }
        listener.tls.iter().chain(&self.server.tls).cloned().collect()
    }

    /// Looks into the files that certificates are in.
    fn check_certificates(&self) -> Result<(), ConfigErrors> {
        let of_listeners = self.listeners.iter().enumerate();
        let of_listeners =
            of_listeners.map(|(index, listener)| (format!("listener.{index}"), &listener.tls));
        let mut errors = Vec::new();
        for (table, files) in
            [("server".to_owned(), &self.server.tls)].into_iter().chain(of_listeners)
        {
            let Some(files) = files else { continue };
            let (field, message) = match Certificate::load(files) {
                Ok(_) => continue,
                Err(LoadError::Certificate(text)) => ("cert_file", text),
                Err(LoadError::Key(text)) => ("key_file", text),
            };
            let key = format!("{table}.tls.{field}");
            let setting = self.settings.iter().find(|setting| setting.key == key);
            let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
            errors.push(ConfigError { key, origin, message });
        }
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
    }

    /// As [`Config::load`], without a file and from the given environment and machine.
    ///
    /// # Errors
    ///
    /// Every mistake found, each with the place where it was written.
    pub fn from_sources(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        sets: &[String],
        machine: &Machine,
    ) -> Result<Config, ConfigErrors> {
        Config::merge(None, environment, sets, machine)
    }

    /// As [`Config::load`], from the given file, environment and machine.
    ///
    /// # Errors
    ///
    /// Every mistake found, each with the place where it was written.
    pub fn merge(
        file: Option<&ConfigFile>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        sets: &[String],
        machine: &Machine,
    ) -> Result<Config, ConfigErrors> {
        let mut settings = Settings::default();
        if let Some(file) = file {
            settings.add_file(file);
        }
        settings.add_environment(environment);
        settings.add_flags(sets);
        settings.complete(&machine.hostname);
        let mut config = check(settings, machine)?;
        config.file = file.map(|file| file.path.clone());
        Ok(config)
    }

    /// Every key with its value as written and its origin, in the order of the documentation.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The file it was read from, as it was named; `None` if there was none.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

fn check(mut settings: Settings, machine: &Machine) -> Result<Config, ConfigErrors> {
    let s = &mut settings;
    let server = ServerConfig {
        hostname: s.parse("server.hostname", |text| match text {
            "" => units::hostname(&machine.hostname),
            _ => units::hostname(text),
        }),
        shards: s.integer("server.shards").unwrap_or(machine.cpus.len()).max(1),
        cpus: machine.cpus.clone(),
        admin_listen: s.parse("server.admin.listen", |text| match text {
            "" => Ok(None),
            _ => loopback(text, "the admin listener has no token yet").map(Some),
        }),
        tls: files(s, "server.tls"),
    };
    let log = log(s);
    let limits = limits(s, machine);
    let listeners: Vec<ListenerConfig> =
        (0..s.listener_count()).map(|index| listener(s, index)).collect();
    for (index, listener) in listeners.iter().enumerate() {
        let demanded = matches!(listener.tls_mode, TlsMode::Required | TlsMode::Implicit);
        let written = s.is_written("server.tls.cert_file")
            || s.is_written(&format!("listener.{index}.tls.cert_file"));
        if demanded && !written {
            let message = "a certificate is needed: server.tls.cert_file and server.tls.key_file";
            s.blame(&format!("listener.{index}.tls_mode"), message.to_owned());
        }
        if listeners.iter().take(index).any(|earlier| earlier.name == listener.name) {
            s.blame(&format!("listener.{index}.name"), "another listener has this name".to_owned());
        }
    }
    let context = exports::Context {
        hostname: &server.hostname,
        admin: server.admin_listen,
        listeners: listeners.iter().map(|listener| listener.name.as_str()).collect(),
    };
    let exports = exports::exports(s, &context);
    let settings = settings.finish()?;
    Ok(Config { server, log, limits, listeners, exports, file: None, settings })
}

fn log(s: &mut Settings) -> LogConfig {
    LogConfig {
        dir: s.parse("log.dir", |text| match text {
            "" => Err("a directory is needed".to_owned()),
            _ => Ok(PathBuf::from(text)),
        }),
        sync: match s.choice("log.sync") {
            "each" => SyncMode::Each,
            "none" => SyncMode::None,
            _ => SyncMode::Group,
        },
        segment_size: s.size("log.segment_size").unwrap_or_default(),
        abort_on_io_error: s.choice("log.on_io_error") == "abort",
        retention: RetentionConfig {
            age: s.duration("log.retention.age"),
            size: s.size("log.retention.size"),
            require_consumed: s.boolean("log.retention.require_consumed"),
            retain_after_export: s
                .duration("log.retention.retain_after_export")
                .unwrap_or_default(),
            hold: s.boolean("log.retention.hold"),
        },
        disk_low: match s.amount("log.disk.low") {
            Amount::Percent(percent) => DiskLow::Percent(u8::try_from(percent).unwrap_or(99)),
            Amount::Bytes(bytes) => DiskLow::Bytes(bytes),
            Amount::Word => DiskLow::Bytes(0),
        },
    }
}

fn limits(s: &mut Settings, machine: &Machine) -> LimitsConfig {
    let message_size = s.size("limits.message_size").unwrap_or_default();
    let inflight = s.amount("limits.inflight_bytes");
    let inflight_bytes = match inflight {
        Amount::Percent(percent) => machine.memory_bytes / 100 * percent as u64,
        Amount::Bytes(bytes) => bytes,
        Amount::Word => 0,
    };
    if inflight_bytes < message_size && inflight != Amount::Word {
        let (bytes, least) = (format_size(inflight_bytes), format_size(message_size));
        let message = format!("{bytes} do not hold one message of limits.message_size ({least})");
        s.blame("limits.inflight_bytes", message);
    }
    // 0.8 of the descriptors leaves room for segments; 64 KiB is a session's input buffer.
    let by_memory = usize::try_from(inflight_bytes >> 16).unwrap_or(usize::MAX);
    let automatic = (machine.descriptors_max / 5 * 4).min(by_memory).max(1);
    LimitsConfig {
        message_size,
        recipients: s.integer("limits.recipients").unwrap_or_default(),
        connections_total: s.integer("limits.connections.total").unwrap_or(automatic),
        inflight_bytes,
        timeout_command: s.duration("limits.timeout.command").unwrap_or_default(),
        timeout_data: s.duration("limits.timeout.data").unwrap_or_default(),
        timeout_handshake: s.duration("limits.timeout.handshake").unwrap_or_default(),
        exempt: s.list("limits.exempt", str::parse),
    }
}

fn listener(settings: &mut Settings, index: usize) -> ListenerConfig {
    let key = |field: &str| format!("listener.{index}.{field}");
    let reason = "a recipient policy (`accept`), which does not exist yet, is needed there, or the \
                  server would be a catch-all for the Internet";
    let errors = settings.error_count();
    let listen = settings.list(&key("listen"), |text| loopback(text, reason));
    if listen.is_empty() && settings.error_count() == errors {
        let message = "at least one address is needed, for example 127.0.0.1:2525".to_owned();
        settings.blame(&key("listen"), message);
    }
    ListenerConfig {
        name: settings.parse(&key("name"), units::label),
        listen,
        line_ends: match settings.choice(&key("line_ends")) {
            "normalize" => LineEnds::Normalize,
            "allow" => LineEnds::Allow,
            _ => LineEnds::Reject,
        },
        tls_mode: match settings.choice(&key("tls_mode")) {
            "off" => TlsMode::Off,
            "required" => TlsMode::Required,
            "implicit" => TlsMode::Implicit,
            _ => TlsMode::Starttls,
        },
        tls: files(settings, &key("tls")),
    }
}

/// A certificate with its key.
fn files(settings: &mut Settings, table: &str) -> Option<Files> {
    let [cert, key] = ["cert_file", "key_file"].map(|field| format!("{table}.{field}"));
    for (one, other) in [(&cert, &key), (&key, &cert)] {
        if settings.is_written(one) && !settings.is_written(other) {
            settings.blame(one, format!("{other} is needed with it"));
        }
    }
    let (cert_file, key_file) = (settings.file(&cert), settings.file(&key));
    cert_file.zip(key_file).map(|(cert_file, key_file)| Files { cert_file, key_file })
}

fn loopback(text: &str, reason: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("{text} is not an address such as 127.0.0.1:2525"))?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(format!("{text} listens beyond loopback: {reason}"))
}

#[cfg(test)]
mod tests;
