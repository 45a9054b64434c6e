//! Settings as written: values under dotted keys, each with its origin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::keys::{self, Key, Table};
use super::value::{Amount, Choice, Kind, Value};

/// Prefix of the variables that are settings.
const PREFIX: &str = "MAILRACE_";

/// Last names of keys that would hold a secret; there are none, but people will try.
const SECRETS: [&str; 5] = ["password", "secret", "token", "secret_key", "credentials"];

/// Where a value was written. Later ones win.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: the built-in default.
    Default,
    /// The configuration file.
    File {
        /// As it was named.
        path: PathBuf,
        /// From 1; 0: the file as a whole.
        line: usize,
    },
    /// This environment variable.
    Environment(String),
    /// A `--set` flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// One key with its value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// Value as written.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, as written; empty where it is the file that is wrong.
    pub key: String,
    /// Where it was written.
    pub origin: Origin,
    /// The file that is wrong, where it is one that the key names.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, origin, message, .. } = self;
        match key.as_str() {
            "" => write!(f, "{origin}: {message}"),
            _ => write!(f, "{key} ({origin}): {message}"),
        }
    }
}

/// All mistakes of a configuration, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The merged sources and the mistakes found in them so far.
#[derive(Default)]
pub(super) struct Settings {
    values: BTreeMap<String, (Value, Origin)>,
    errors: Vec<ConfigError>,
    /// `$CREDENTIALS_DIRECTORY`: where a service manager puts what `credential:` names.
    credentials: Option<PathBuf>,
}

impl Settings {
    /// Lays `MAILRACE_*` over what is there.
    pub(super) fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) {
        for (name, value) in environment {
            let Some(name) = name.to_str() else { continue };
            if name == "CREDENTIALS_DIRECTORY" {
                self.credentials = Some(PathBuf::from(value));
                continue;
            }
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            if is_service_link(name) {
                continue;
            }
            let key = key.replace("__", ".").to_ascii_lowercase();
            let origin = Origin::Environment(name.to_owned());
            match value.into_string() {
                Ok(value) => self.add_text(&key, &value, origin),
                Err(_) => self.error(&key, origin, "the value is not UTF-8".to_owned()),
            }
        }
    }

    /// Lays `--set key=value` over what is there.
    pub(super) fn add_flags(&mut self, sets: &[String]) {
        for text in sets {
            match text.split_once('=') {
                Some((key, value)) => self.add_text(key.trim(), value.trim(), Origin::Flag),
                None => self.error(text, Origin::Flag, "key=value is needed".to_owned()),
            }
        }
    }

    fn add_text(&mut self, key: &str, text: &str, origin: Origin) {
        match keys::find(key) {
            Some(known) => self.add(key, known.kind.read(text), origin),
            None => self.unknown(key, origin),
        }
    }

    /// Lays the value of a known key over what is there.
    pub(super) fn add(&mut self, key: &str, value: Value, origin: Origin) {
        self.values.insert(key.to_owned(), (value, origin));
    }

    /// Notes a key that does not exist.
    pub(super) fn unknown(&mut self, key: &str, origin: Origin) {
        let message = match (secret_file(key), keys::suggestion(key)) {
            (Some(file), _) => format!(
                "a secret must not be written here: put it into a file and set {file} to its \
                 path, or give it to the service manager and set {file} = \"credential:NAME\""
            ),
            (None, Some(known)) => format!("unknown key; did you mean {known}?"),
            (None, None) => "unknown key; `mailrace config default` lists all".to_owned(),
        };
        self.error(key, origin, message);
    }

    /// Gives every table all its keys. What the other keys of an exporter mean depends on its type,
    /// so it is looked at here.
    pub(super) fn complete(&mut self, hostname: &str) {
        let hostname = Value::Text(hostname.to_owned());
        self.values.entry("server.hostname".to_owned()).or_insert((hostname, Origin::Default));
        self.add_defaults(Table::Root, |_| true);
        for index in 0..self.listener_count() {
            self.add_defaults(Table::Listener(index), |_| true);
        }
        for index in 0..self.export_count() {
            self.complete_export(index);
        }
    }

    fn add_defaults(&mut self, table: Table, is_meant: impl Fn(&Key) -> bool) {
        for key in table.keys().iter().filter(|key| key.example.is_none() && is_meant(key)) {
            let default = match (table, key.name) {
                (Table::Listener(index @ 1..), "name") => format!("{}{index}", key.default()),
                (Table::Listener(1..), "listen") => String::new(),
                _ => {
                    let layout = self.values.get(&format!("{}layout", table.prefix()));
                    let layout = layout.map(|(layout, _)| layout.text()).unwrap_or_default();
                    key.default_with(&layout).into_owned()
                }
            };
            self.values
                .entry(format!("{}{}", table.prefix(), key.name))
                .or_insert((key.kind.read(&default), Origin::Default));
        }
    }

    fn complete_export(&mut self, index: usize) {
        let table = Table::Export(index);
        let prefix = table.prefix();
        let written: Vec<String> =
            self.values.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
        let first = written.first().and_then(|key| self.values.get(key));
        let somewhere = first.map_or(Origin::Default, |(_, origin)| origin.clone());
        let Some(kind) = self.values.get(&format!("{prefix}type")).map(|(value, _)| value.text())
        else {
            let message = format!("is needed: one of {}", super::export_keys::TYPES.join(", "));
            self.error(&format!("{prefix}type"), somewhere, message);
            return;
        };
        if !super::export_keys::TYPES.contains(&kind.as_str()) {
            // Told where the type is read.
            return;
        }
        for key in written {
            if keys::find_of(&key, &kind).is_none() {
                let owners = keys::owners(&key);
                let message = format!(
                    "is a key of type {}, but this exporter is of type {kind}",
                    owners.join(", ")
                );
                self.blame(&key, message);
                self.values.remove(&key);
            }
        }
        for key in table.keys().iter().filter(|key| key.is_of(&kind)) {
            let name = format!("{prefix}{}", key.name);
            if let Some(example) = key.example.filter(|_| !self.values.contains_key(&name)) {
                let origin = self.origin(&format!("{prefix}type"));
                let example = key.kind.read(example);
                let message = format!("is needed for type {kind}, for example {example}");
                self.error(&name, origin, message);
            }
        }
        self.add_defaults(table, |key| key.is_of(&kind));
    }

    /// Listeners: one more than the highest index, at least one.
    pub(super) fn listener_count(&self) -> usize {
        self.count(|table| match table {
            Table::Listener(index) => index + 1,
            _ => 1,
        })
        .max(1)
    }

    /// Exporters: one more than the highest index.
    pub(super) fn export_count(&self) -> usize {
        self.count(|table| match table {
            Table::Export(index) => index + 1,
            _ => 0,
        })
    }

    fn count(&self, count: impl Fn(Table) -> usize) -> usize {
        self.values.keys().map(|key| count(keys::locate(key).0)).max().unwrap_or(0)
    }

    /// Reads one value; a mistake is noted and the type's default is used until `finish`. A missing
    /// key was reported by `complete`.
    fn take<T: Default>(
        &mut self,
        key: &str,
        read: impl FnOnce(Kind, &Value) -> Result<T, String>,
    ) -> T {
        let (Some((value, _)), Some(known)) = (self.values.get(key), self.known(key)) else {
            return T::default();
        };
        let read = match value {
            Value::Text(text) if text.is_empty() && known.example.is_some() => {
                Err("must not be empty".to_owned())
            }
            Value::List(items) if items.is_empty() && known.example.is_some() => {
                Err("must not be empty".to_owned())
            }
            value => read(known.kind, value),
        };
        read.unwrap_or_else(|message| {
            self.blame(key, message);
            T::default()
        })
    }

    fn known(&self, key: &str) -> Option<&'static Key> {
        let kind = match keys::locate(key).0 {
            Table::Export(index) => self.values.get(&format!("export.{index}.type")),
            _ => None,
        };
        kind.and_then(|(kind, _)| keys::find_of(key, &kind.text())).or_else(|| keys::find(key))
    }

    /// Parses a string.
    pub(super) fn parse<T: Default>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.take(key, |_, value| parse(&value.text()))
    }

    pub(super) fn text(&mut self, key: &str) -> String {
        self.parse(key, |text| Ok(text.to_owned()))
    }

    /// Parses each string of an array.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.take(key, |_, value| match value {
            Value::List(items) => items.iter().map(|item| parse(item)).collect(),
            _ => Err("an array of strings is needed".to_owned()),
        })
    }

    pub(super) fn boolean(&mut self, key: &str) -> bool {
        self.take(key, |kind, value| kind.boolean(value))
    }

    pub(super) fn choice(&mut self, key: &str) -> &'static str {
        self.take(key, |kind, value| kind.choice(value))
    }

    /// One of an enumeration.
    pub(super) fn choose<T: Choice>(&mut self, key: &str) -> T {
        self.take(key, |kind, value| Ok(T::named(kind.choice(value)?).unwrap_or_default()))
    }

    /// `None`: the word that stands in place of a number.
    pub(super) fn integer(&mut self, key: &str) -> Option<usize> {
        self.take(key, |kind, value| kind.integer(value))
    }

    pub(super) fn amount(&mut self, key: &str) -> Amount {
        self.take(key, |kind, value| kind.amount(value))
    }

    /// A size in bytes; `None`: the word that stands in place of one.
    pub(super) fn size(&mut self, key: &str) -> Option<u64> {
        match self.amount(key) {
            Amount::Bytes(bytes) => Some(bytes),
            Amount::Word | Amount::Percent(_) => None,
        }
    }

    /// `None`: the word that stands in place of a duration.
    pub(super) fn duration(&mut self, key: &str) -> Option<Duration> {
        self.take(key, |kind, value| kind.duration(value))
    }

    pub(super) fn rate(&mut self, key: &str) -> Option<u32> {
        self.take(key, |kind, value| kind.rate(value))
    }

    pub(super) fn per_minute(&mut self, key: &str) -> Option<u32> {
        self.take(key, |kind, value| kind.per_minute(value))
    }

    /// A path; `credential:NAME` is one below `$CREDENTIALS_DIRECTORY`.
    pub(super) fn file(&mut self, key: &str) -> Option<PathBuf> {
        let credentials = self.credentials.clone();
        self.parse(key, |text| {
            let Some(name) = text.strip_prefix("credential:") else {
                return Ok((!text.is_empty()).then(|| PathBuf::from(text)));
            };
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                return Err(format!("{name:?} is not the name of a credential"));
            }
            match credentials {
                Some(dir) => Ok(Some(dir.join(name))),
                None => Err(format!(
                    "{text}: CREDENTIALS_DIRECTORY is not set; the service manager sets it where \
                     the unit has LoadCredential={name}:FILE"
                )),
            }
        })
    }

    /// Whether its value is not empty.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|(value, _)| !value.text().is_empty())
    }

    /// Notes a mistake in the value of `key`.
    pub(super) fn blame(&mut self, key: &str, message: String) {
        let origin = self.origin(key);
        self.error(key, origin, message);
    }

    pub(super) fn origin(&self, key: &str) -> Origin {
        self.values.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// Notes a mistake.
    pub(super) fn error(&mut self, key: &str, origin: Origin, message: String) {
        self.errors.push(ConfigError { key: key.to_owned(), origin, file: None, message });
    }

    pub(super) fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// Whether a mistake was found in a key that begins so.
    pub(super) fn has_mistake_below(&self, prefix: &str) -> bool {
        self.errors.iter().any(|error| error.key.starts_with(prefix))
    }

    /// Whether it is another kind of file altogether, so that more mistakes help nobody.
    pub(super) fn has_too_many_errors(&self) -> bool {
        self.errors.len() >= 100
    }

    /// What is wrong with these keys, "" for the file as a whole; mistakes elsewhere are left out.
    pub(super) fn mistakes_of(mut self, keys: &[&str]) -> Result<(), ConfigErrors> {
        self.errors.retain(|error| keys.contains(&error.key.as_str()));
        if self.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(self.errors)) }
    }

    /// All settings, or all mistakes.
    pub(super) fn finish(mut self) -> Result<Vec<Setting>, ConfigErrors> {
        if !self.errors.is_empty() {
            self.errors.sort_by_key(|error| error.origin.clone());
            return Err(ConfigErrors(self.errors));
        }
        let mut settings: Vec<Setting> = self
            .values
            .into_iter()
            .map(|(key, (value, origin))| Setting { key, value, origin })
            .collect();
        settings.sort_by_key(|setting| keys::rank(&setting.key));
        Ok(settings)
    }
}

/// The key of the file in which the secret of this key belongs.
fn secret_file(key: &str) -> Option<String> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let file = format!("{key}_file");
    (SECRETS.contains(&last) && keys::find(&file).is_some()).then_some(file)
}

/// Whether Kubernetes has set this variable, as it does for each service of a namespace: one named
/// `mailrace` makes `MAILRACE_SERVICE_HOST` and `MAILRACE_PORT_25_TCP`. Settings have `__` in them.
fn is_service_link(name: &str) -> bool {
    let ends_as_port = |(_, rest): (&str, &str)| {
        rest.is_empty()
            || rest.starts_with("_") && rest[1..].starts_with(|c: char| c.is_ascii_digit())
    };
    !name.contains("__")
        && (name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || name.split_once("_PORT").is_some_and(ends_as_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_are_no_settings() {
        for name in [
            "MAILRACE_SERVICE_HOST",
            "MAILRACE_SERVICE_PORT",
            "MAILRACE_SERVICE_PORT_SMTP",
            "MAILRACE_PORT",
            "MAILRACE_PORT_25_TCP",
            "MAILRACE_PORT_25_TCP_PORT",
            "MAILRACE_PORT_25_TCP_ADDR",
            "MAILRACE_ADMIN_PORT_2580_TCP_PROTO",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for name in ["MAILRACE_LOG__DIR", "MAILRACE_LOG_DIR", "MAILRACE_PORTS", "MAILRACE_X"] {
            assert!(!is_service_link(name), "{name}");
        }
    }

    #[test]
    fn origins_rank_as_the_sources_do() {
        let file = |line| Origin::File { path: PathBuf::from("a.toml"), line };
        let origins =
            [Origin::Default, file(2), file(10), Origin::Environment("A".to_owned()), Origin::Flag];
        assert!(origins.is_sorted());
        assert_eq!(file(10).to_string(), "a.toml:10");
        assert_eq!(file(0).to_string(), "a.toml");
    }
}
