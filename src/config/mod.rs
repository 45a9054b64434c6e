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
mod exposure;
mod file;
mod keys;
mod listeners;
mod machine;
mod overlap;
mod promises;
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
pub use units::{Network, duration as parse_duration, format_duration, format_size, plural};
pub use value::Value;

pub use crate::policy::{AcceptOptions as AcceptConfig, dns::ClientRules as DnsConfig};
pub use crate::verdict::Methods;

use crate::export::{ExportOptions, read_secret};
use crate::policy::{Accept, UsersFile};
use crate::tls::{Certificate, Demands, Files, LoadError};
use raw::Settings;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    warnings: Vec<String>,
    source: Source,
}

/// The arguments of [`Config::load`], so that it can be called again.
#[derive(Clone, Debug, Default)]
struct Source {
    named: Option<PathBuf>,
    sets: Vec<String>,
}

/// Form of the lines on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object a line.
    Json,
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
            Self::Percent(percent) => size / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes,
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
            Self::Group => "group",
            Self::Each => "each",
            Self::None => "none",
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
    /// Longest wait for a PROXY header.
    pub timeout_proxy: Duration,
    /// Age at which a session ends between commands.
    pub timeout_session: Duration,
    /// Longest wait for a sync.
    pub timeout_commit: Duration,
    /// Sessions of one address or /64; `None`: no limit.
    pub connections_per_ip: Option<usize>,
    /// New sessions a minute of one address or /64; `None`: no limit.
    pub connection_rate_per_ip: Option<u32>,
    /// TLS handshakes under way on one shard.
    pub handshakes: usize,
    /// MAIL commands of one session.
    pub session_messages: usize,
    /// RCPT commands of one session.
    pub session_recipients: usize,
    /// Errors after which replies are delayed.
    pub errors_soft: usize,
    /// Errors after which the session ends.
    pub errors_hard: usize,
    /// Commands without a message before the session ends.
    pub junk: usize,
    /// Records of a shard that may wait for their verdict.
    pub verify_queue: u64,
    /// Failed AUTH commands of one session.
    pub auth_failures: usize,
    /// Failed AUTH commands a minute of one address; `None`: no limit.
    pub auth_failures_per_ip: Option<u32>,
    /// Slowest mail data, in bytes a second; 0: no limit.
    pub data_rate_min: u64,
    /// Time before the slowest rate counts.
    pub data_rate_grace: Duration,
    /// Longest line of mail data, in bytes without CRLF.
    pub content_line: u64,
    /// Bytes of the header looked at for Received fields.
    pub header_scan: u64,
    /// Received fields of one message.
    pub received: usize,
    /// BDAT commands of one message.
    pub bdat_chunks: usize,
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
    pub tls_mode: TlsMode,
    /// Its own certificate.
    pub tls: Option<Files>,
    /// Authorities of client certificates, which are then required.
    pub tls_client_ca: Option<PathBuf>,
    /// Clients that ask for a name that no certificate has are refused.
    pub tls_reject_unknown_name: bool,
    /// `listener.auth`
    pub auth: AuthConfig,
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

/// `listener.protocol`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321 (default).
    Smtp,
    /// RFC 2033.
    Lmtp,
    /// No mail is taken here (RFC 7504).
    Refuse,
}

/// A mechanism of AUTH (RFC 4954).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMechanism {
    /// RFC 4616.
    Plain,
    /// De-facto, older than PLAIN.
    Login,
    /// RFC 7677.
    ScramSha256,
    /// RFC 7677, bound to the TLS connection (RFC 5802 §6).
    ScramSha256Plus,
    /// By the client certificate (RFC 4422 appendix A).
    External,
}

/// `listener.auth`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// Mechanisms offered; empty: AUTH is not.
    pub mechanisms: Vec<AuthMechanism>,
    /// Users and what proves them.
    pub users_file: Option<PathBuf>,
    /// No mail without AUTH.
    pub required: bool,
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
            Self::Reject => "reject",
            Self::Normalize => "normalize",
            Self::Allow => "allow",
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
    pub fn load(named: Option<&Path>, sets: &[String]) -> Result<Self, ConfigErrors> {
        let config = Self::load_keys(named, sets)?;
        config.check_certificates()?;
        Ok(config)
    }

    /// As [`Config::load`], without a look into the certificate files that it names.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn load_keys(named: Option<&Path>, sets: &[String]) -> Result<Self, ConfigErrors> {
        let file = ConfigFile::find(named)?;
        let mut config = Self::merge(file.as_ref(), std::env::vars_os(), sets, &Machine::detect())?;
        config.source = Source { named: named.map(Path::to_owned), sets: sets.to_vec() };
        Ok(config)
    }

    /// The data directory that a server with this configuration file, or without one, would use:
    /// `log.dir` of the file, or of `MAILRACE_LOG__DIR`. Mistakes in other keys are ignored, so that
    /// the log can be read while somebody edits the file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not TOML, or a mistake in `log.dir`.
    pub fn data_dir(named: Option<&Path>) -> Result<PathBuf, ConfigErrors> {
        let mut settings = Settings::default();
        if let Some(file) = ConfigFile::find(named)? {
            settings.add_file(&file);
        }
        settings.add_environment(std::env::vars_os());
        settings.complete("localhost");
        let dir = log_dir(&mut settings);
        settings.mistakes_of(&["", "log.dir"])?;
        Ok(dir)
    }

    /// Where the admin listener of a server with this configuration is, and the token it asks for.
    /// Mistakes in other keys are ignored, even a file that is not TOML: the running server is to
    /// judge them, and to report them in its log and metrics.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or a mistake in `server.admin.listen` or in its token.
    pub fn admin_place(
        named: Option<&Path>,
        sets: &[String],
    ) -> Result<(Option<SocketAddr>, Option<String>), ConfigErrors> {
        let mut settings = readable(named, sets)?;
        let listen = admin_listen(&mut settings);
        let token = settings.file("server.admin.token_file").map(|file| read_secret(&file));
        let token = token.transpose().unwrap_or_else(|error| {
            settings.blame("server.admin.token_file", error.text);
            None
        });
        settings.mistakes_of(&["server.admin.listen", "server.admin.token_file"])?;
        Ok((listen, token))
    }

    /// Where the admin listener is, for a probe, which needs no token.
    ///
    /// # Errors
    ///
    /// The file cannot be found, or what it says of the admin listener is wrong.
    pub fn probe_place(
        named: Option<&Path>,
        sets: &[String],
    ) -> Result<Option<SocketAddr>, ConfigErrors> {
        let mut settings = readable(named, sets)?;
        let listen = admin_listen(&mut settings);
        settings.mistakes_of(&["server.admin.listen"])?;
        Ok(listen)
    }

    /// Loads it again from the same source.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn load_again(&self) -> Result<Self, ConfigErrors> {
        Self::load(self.source.named.as_deref(), &self.source.sets)
    }

    /// This configuration as far as a server that was started with `running` can take it up: what
    /// needs a restart stays as it is.
    #[must_use]
    pub fn as_taken_by(&self, running: &Self) -> Self {
        let listener = |running: &ListenerConfig| {
            let new = self.listeners.iter().find(|new| new.name == running.name);
            let mut taken = new.unwrap_or(running).clone();
            taken.listen.clone_from(&running.listen);
            taken.listen_unix.clone_from(&running.listen_unix);
            taken.protocol = running.protocol;
            taken.tls_mode = running.tls_mode;
            taken.tls_client_ca.clone_from(&running.tls_client_ca);
            taken.tls_reject_unknown_name = running.tls_reject_unknown_name;
            taken
        };
        Self {
            server: ServerConfig { tls: self.server.tls.clone(), ..running.server.clone() },
            log: LogConfig {
                retention: self.log.retention.clone(),
                disk_low: self.log.disk_low,
                ..running.log.clone()
            },
            listeners: running.listeners.iter().map(listener).collect(),
            ..self.clone()
        }
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
            if let Err(error) = Certificate::load(files) {
                errors.push(self.bad_file(&table, error));
            }
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            if let Err(error) = listener.tls_demands().load() {
                errors.push(self.bad_file(&format!("listener.{index}"), error));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
    }

    /// Reads whose mail each listener takes; `None`: nothing says so, and it takes anybody's.
    /// Listeners that say the same share it. With millions of recipients it takes seconds.
    ///
    /// # Errors
    ///
    /// Files that cannot be read, or have a mistake: with file and line.
    pub fn load_accept(&self) -> Result<Vec<Option<Arc<Accept>>>, ConfigErrors> {
        let mut loaded: Vec<Option<Arc<Accept>>> = Vec::new();
        let mut errors = Vec::new();
        for (index, ListenerConfig { accept, .. }) in self.listeners.iter().enumerate() {
            let before = &self.listeners[..index];
            let same = before.iter().position(|listener| listener.accept == *accept);
            let policy = match same {
                _ if accept.is_empty() => None,
                Some(same) => loaded[same].clone(),
                None => match Accept::load(accept) {
                    Ok(accept) => Some(Arc::new(accept)),
                    Err(found) => {
                        errors.extend(found.into_iter().map(|error| {
                            let key = format!("listener.{index}.accept.{}", error.field);
                            ConfigError { file: error.file, ..self.error(key, error.message) }
                        }));
                        None
                    }
                },
            };
            loaded.push(policy);
        }
        if errors.is_empty() { Ok(loaded) } else { Err(ConfigErrors(errors)) }
    }

    /// The token that admin requests must bring; `None`: none is asked for.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is empty.
    pub fn admin_token(&self) -> Result<Option<String>, ConfigErrors> {
        let Some(file) = &self.server.admin_token_file else { return Ok(None) };
        let error = match read_secret(file) {
            Ok(token) => return Ok(Some(token)),
            Err(error) => error.text,
        };
        Err(ConfigErrors(vec![self.error("server.admin.token_file".to_owned(), error)]))
    }

    /// Reads the users of each listener that has any, by its name. Listeners that name the same file
    /// share it.
    ///
    /// # Errors
    ///
    /// Files that cannot be read, or have a mistake: with file and line.
    pub fn open_users(&self) -> Result<Vec<(String, Arc<UsersFile>)>, ConfigErrors> {
        let mut users: Vec<(String, Arc<UsersFile>)> = Vec::new();
        let mut errors = Vec::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            let Some(path) = &listener.auth.users_file else { continue };
            let same = users.iter().find(|(_, file)| file.path() == path);
            let opened = match same {
                Some((_, file)) => Ok(file.clone()),
                None => UsersFile::open(path).map(Arc::new),
            };
            match opened {
                Ok(file) => users.push((listener.name.clone(), file)),
                Err(error) => {
                    let key = format!("listener.{index}.auth.users_file");
                    let file = Some(path.clone());
                    errors.push(ConfigError { file, ..self.error(key, error.to_string()) });
                }
            }
        }
        if errors.is_empty() { Ok(users) } else { Err(ConfigErrors(errors)) }
    }

    /// The key to blame for a file of a table's TLS.
    fn bad_file(&self, table: &str, error: LoadError) -> ConfigError {
        let (field, message) = match error {
            LoadError::Certificate(text) => ("cert_file", text),
            LoadError::Key(text) => ("key_file", text),
            LoadError::ClientAuthorities(text) => ("client_ca_file", text),
        };
        self.error(format!("{table}.tls.{field}"), message)
    }

    /// A mistake in the value of a key.
    fn error(&self, key: String, message: String) -> ConfigError {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
        ConfigError { key, origin, file: None, message }
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
    ) -> Result<Self, ConfigErrors> {
        Self::merge(None, environment, sets, machine)
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
    ) -> Result<Self, ConfigErrors> {
        let mut settings = Settings::default();
        if let Some(file) = file {
            settings.add_file(file);
        }
        settings.add_environment(environment);
        settings.add_flags(sets);
        let (hostname, renamed) = units::machine_hostname(&machine.hostname);
        settings.complete(&hostname);
        let mut config = check(settings, machine, &hostname)?;
        // Whoever chose a name is not concerned.
        config.warnings.extend(renamed.filter(|_| config.server.hostname == hostname));
        config.file = file.map(|file| file.path.clone());
        Ok(config)
    }

    /// Every key with its value as written and its origin, in the order of the documentation.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Defaults that this machine does not bear and that were replaced, a line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether a listener would take anybody's mail from anybody: asked of what
    /// [`Config::as_taken_by`] makes of two configurations that are fine each.
    ///
    /// # Errors
    ///
    /// Every such listener.
    pub fn check_running(&self) -> Result<(), ConfigErrors> {
        exposure::check_running(&self.listeners, &self.exports)
    }

    /// The file it was read from, as it was named; `None` if there was none.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

fn check(
    mut settings: Settings,
    machine: &Machine,
    hostname: &str,
) -> Result<Config, ConfigErrors> {
    let s = &mut settings;
    let server = ServerConfig {
        hostname: s.parse("server.hostname", |text| match text {
            "" => Ok(hostname.to_owned()),
            _ => units::hostname(text),
        }),
        shards: s.integer("server.shards").unwrap_or(machine.cpus.len()).max(1),
        cpus: if machine.cpus.is_empty() { vec![0] } else { machine.cpus.clone() },
        admin_listen: admin_listen(s),
        admin_token_file: s.file("server.admin.token_file"),
        admin_hosts: s.list("server.admin.hosts", |text| {
            units::hostname(text).map(|name| name.to_lowercase())
        }),
        drain_lead: s.duration("server.drain.lead").unwrap_or_default(),
        log_level: s.choice("server.log_level").to_owned(),
        log_format: match s.choice("server.log_format") {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        },
        dns_servers: s.list("server.dns.servers", address::dns_server),
        tls: files(s, "server.tls"),
    };
    let log = log(s);
    let mut warnings = Vec::new();
    let limits = limits(s, machine, &mut warnings);
    let listeners: Vec<ListenerConfig> =
        (0..s.listener_count()).map(|index| listeners::listener(s, index)).collect();
    for (index, listener) in listeners.iter().enumerate() {
        let demanded = matches!(listener.tls_mode, TlsMode::Required | TlsMode::Implicit);
        let written = s.is_written("server.tls.cert_file")
            || s.is_written(&format!("listener.{index}.tls.cert_file"));
        if demanded && !written {
            let message = "a certificate is needed: server.tls.cert_file and server.tls.key_file";
            s.blame(&format!("listener.{index}.tls_mode"), message.to_owned());
        }
        if listener.tls_client_ca.is_some() && (listener.tls_mode == TlsMode::Off || !written) {
            let message = "client certificates need TLS: set a server certificate and tls_mode";
            s.blame(&format!("listener.{index}.tls.client_ca_file"), message.to_owned());
        }
        if !listener.auth.mechanisms.is_empty() && listener.tls_mode != TlsMode::Off && !written {
            let message = "AUTH is offered only over TLS, which needs server.tls.cert_file and \
                           server.tls.key_file";
            s.blame(&format!("listener.{index}.auth.mechanisms"), message.to_owned());
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
    promises::check(s, &listeners, &exports);
    exposure::check(s, &listeners, &exports);
    overlap::check(s, &listeners, server.admin_listen);
    let settings = settings.finish()?;
    Ok(Config {
        server,
        log,
        limits,
        listeners,
        exports,
        file: None,
        settings,
        warnings,
        source: Source::default(),
    })
}

/// What can be read of the settings, for a command that asks a running server.
fn readable(named: Option<&Path>, sets: &[String]) -> Result<Settings, ConfigErrors> {
    let mut settings = Settings::default();
    if let Some(file) = ConfigFile::find(named)? {
        settings.add_readable(&file);
    }
    settings.add_environment(std::env::vars_os());
    settings.add_flags(sets);
    settings.complete("localhost");
    Ok(settings)
}

fn admin_listen(s: &mut Settings) -> Option<SocketAddr> {
    let has_token = s.is_written("server.admin.token_file");
    s.parse("server.admin.listen", |text| match text {
        "" => Ok(None),
        _ => admin_address(text, has_token).map(Some),
    })
}

fn log_dir(s: &mut Settings) -> PathBuf {
    s.parse("log.dir", |text| match text {
        "" => Err("a directory is needed".to_owned()),
        _ => Ok(PathBuf::from(text)),
    })
}

fn log(s: &mut Settings) -> LogConfig {
    LogConfig {
        dir: log_dir(s),
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

fn limits(s: &mut Settings, machine: &Machine, warnings: &mut Vec<String>) -> LimitsConfig {
    let message_size = s.size("limits.message_size").unwrap_or_default();
    let inflight = s.amount("limits.inflight_bytes");
    let mut inflight_bytes = match inflight {
        Amount::Percent(percent) => machine.memory_bytes / 100 * percent as u64,
        Amount::Bytes(bytes) => bytes,
        Amount::Word => 0,
    };
    if let Amount::Percent(percent) = inflight
        && inflight_bytes < message_size
    {
        // What a share of the memory comes to is the machine's doing.
        warnings.push(format!(
            "limits.inflight_bytes: {percent}% of the memory that this process may use, {} MiB, \
             is less than one message of limits.message_size; using {}; give it more memory, or \
             set a smaller limits.message_size",
            inflight_bytes >> 20,
            format_size(message_size),
        ));
        inflight_bytes = message_size;
    }
    if inflight_bytes < message_size && inflight != Amount::Word {
        let (bytes, least) = (format_size(inflight_bytes), format_size(message_size));
        let message = format!(
            "{bytes} is less than one message of limits.message_size needs \
                               ({least})"
        );
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
        timeout_proxy: s.duration("limits.timeout.proxy").unwrap_or_default(),
        timeout_session: s.duration("limits.timeout.session").unwrap_or_default(),
        timeout_commit: s.duration("limits.timeout.commit").unwrap_or_default(),
        connections_per_ip: s.integer("limits.connections.per_ip"),
        connection_rate_per_ip: s.per_minute("limits.connections.rate_per_ip"),
        handshakes: s.integer("limits.handshakes").unwrap_or_default(),
        session_messages: s.integer("limits.session_messages").unwrap_or_default(),
        session_recipients: s.integer("limits.session_recipients").unwrap_or_default(),
        errors_soft: s.integer("limits.errors.soft").unwrap_or_default(),
        errors_hard: s.integer("limits.errors.hard").unwrap_or_default(),
        junk: s.integer("limits.junk").unwrap_or_default(),
        verify_queue: s.integer("limits.verify_queue").unwrap_or_default() as u64,
        auth_failures: s.integer("limits.auth_failures").unwrap_or_default(),
        auth_failures_per_ip: s.per_minute("limits.auth_failures_per_ip"),
        data_rate_min: s.size("limits.data_rate_min").unwrap_or_default(),
        data_rate_grace: s.duration("limits.data_rate_grace").unwrap_or_default(),
        content_line: s.size("limits.content_line").unwrap_or_default(),
        header_scan: s.size("limits.header_scan").unwrap_or_default(),
        received: s.integer("limits.received").unwrap_or_default(),
        bdat_chunks: s.integer("limits.bdat_chunks").unwrap_or_default(),
        exempt: s.list("limits.exempt", str::parse),
    }
}

/// A certificate with its key.
fn files(settings: &mut Settings, table: &str) -> Option<Files> {
    let [cert, key] = ["cert_file", "key_file"].map(|field| format!("{table}.{field}"));
    for (one, other) in [(&cert, &key), (&key, &cert)] {
        if settings.is_written(one) && !settings.is_written(other) {
            settings.blame(one, format!("requires {other} as well"));
        }
    }
    let (cert_file, key_file) = (settings.file(&cert), settings.file(&key));
    cert_file.zip(key_file).map(|(cert_file, key_file)| Files { cert_file, key_file })
}

fn admin_address(text: &str, has_token: bool) -> Result<SocketAddr, String> {
    let address = address::listen(text)?;
    if has_token || address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(format!("{text} listens beyond loopback: server.admin.token_file is needed for that"))
}

#[cfg(test)]
mod tests;
