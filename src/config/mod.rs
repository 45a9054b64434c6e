//! Configuration: as written, then checked, with the origin of every value.
//!
//! Later sources win: defaults, the file, `MAILRACE_*` variables (a double underscore is the
//! dot), then `--set key=value`. An unknown key, a value out of range or an address that would
//! open a catch-all to the Internet is an error that names where the value was written.
//!
//! ```text
//! keys, limits, export_keys   every key: kind, default, doc ----> defaults (config default), schema
//!        |
//! file --+-> raw: Settings, values with origins ---> check, limits, exports: checked options
//! environment, flags                            \-> reload: what differs, what needs a restart
//! ```

mod address;
mod check;
mod defaults;
mod export_keys;
mod exports;
mod exposure;
mod file;
mod key;
mod keys;
mod limits;
mod listener_keys;
mod listeners;
mod machine;
mod options;
mod overlap;
mod promises;
mod raw;
mod reload;
mod schema;
mod server_keys;
mod units;
mod value;

pub use crate::network::Network;
pub use defaults::{STARTER, every_default};
pub use file::{ConfigFile, DEFAULT_FILES};
pub use machine::Machine;
pub use options::{
    AuthConfig, DiskLow, LimitsConfig, ListenerConfig, LogConfig, LogFormat, RejectConfig,
    ServerConfig,
};
pub use raw::{ConfigError, ConfigErrors, Origin, Setting};
pub use reload::Change;
pub use schema::schema;
pub use units::{duration as parse_duration, format_duration, format_size, plural};
pub use value::Value;

pub use crate::policy::{AcceptOptions as AcceptConfig, dns::ClientRules as DnsConfig};
pub use crate::verdict::Methods;

use crate::export::ExportOptions;
use crate::policy::{Accept, Senders, UsersFile};
use crate::smtp::TlsPolicy;
use crate::tls::{Certificate, Files, LoadError, read_secret};
use raw::Settings;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        let dir = check::log_dir(&mut settings);
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
        let listen = check::admin_listen(&mut settings);
        let token = settings.file("server.admin.token_file").map(|file| read_secret(&file));
        let token = token.transpose().unwrap_or_else(|error| {
            settings.blame("server.admin.token_file", error.to_string());
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
        let listen = check::admin_listen(&mut settings);
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
                retention: self.log.retention,
                disk_low: self.log.disk_low,
                ..running.log.clone()
            },
            listeners: running.listeners.iter().map(listener).collect(),
            ..self.clone()
        }
    }

    /// Certificates that a listener shows: its own first, then the server's, each by its names.
    pub fn certificates(&self, listener: &ListenerConfig) -> Vec<Files> {
        if listener.tls_mode == TlsPolicy::Off {
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

    /// Reads as whom users of each listener may send; `None`: as anybody.
    ///
    /// # Errors
    ///
    /// Files that cannot be read, or have a mistake: with file and line.
    pub fn load_senders(&self) -> Result<Vec<Option<Arc<Senders>>>, ConfigErrors> {
        let mut errors = Vec::new();
        let load = |(index, listener): (usize, &ListenerConfig)| {
            let path = listener.senders_file.as_ref()?;
            let key = format!("listener.{index}.senders_file");
            let blame =
                |message| ConfigError { file: Some(path.clone()), ..self.error(key, message) };
            Senders::load(path).map_err(|message| errors.push(blame(message))).ok().map(Arc::new)
        };
        let loaded = self.listeners.iter().enumerate().map(load).collect();
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
            Err(error) => error.to_string(),
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
        let mut config = check::check(settings, machine, &hostname)?;
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

#[cfg(test)]
mod tests;
