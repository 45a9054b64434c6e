//! Settings as written: text under dotted keys, each with its origin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// Keys in the order of the documentation, with their defaults. Empty listener fields are filled by
/// [`Settings::complete_listeners`].
const KEYS: [(&str, &str); 14] = [
    ("server.hostname", ""),
    ("server.shards", "auto"),
    ("server.admin.listen", "127.0.0.1:2580"),
    ("log.dir", super::DEFAULT_DIR),
    ("log.sync", "group"),
    ("log.segment_size", "64MiB"),
    ("log.on_io_error", "continue"),
    ("limits.message_size", "25MiB"),
    ("limits.recipients", "1000"),
    ("limits.connections.total", "auto"),
    ("limits.inflight_bytes", "50%"),
    ("limits.timeout.command", "5m"),
    ("limits.timeout.data", "30m"),
    ("limits.exempt", "127.0.0.0/8, ::1"),
];

/// Fields of one listener, with the defaults of the first.
const LISTENER_FIELDS: [(&str, &str); 3] =
    [("name", "smtp"), ("listen", super::DEFAULT_LISTEN), ("line_ends", "reject")];

/// Most listeners; each costs a socket on every shard and a set of metric series.
const LISTENERS_MAX: usize = 16;

/// Prefix of the variables that are settings.
const PREFIX: &str = "MAILRACE_";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: the built-in default.
    Default,
    /// This environment variable.
    Environment(String),
    /// A `--set` flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag => f.write_str("--set"),
        }
    }
}

/// One key with its value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// Value as written.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, as written.
    pub key: String,
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.origin, self.message)
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
pub(super) struct Settings {
    values: BTreeMap<String, (String, Origin)>,
    errors: Vec<ConfigError>,
}

impl Settings {
    /// The defaults, with the system's host name.
    pub(super) fn defaults(hostname: &str) -> Self {
        let mut values = BTreeMap::new();
        for (key, value) in KEYS {
            let value = if key == "server.hostname" { hostname } else { value };
            values.insert(key.to_owned(), (value.to_owned(), Origin::Default));
        }
        Settings { values, errors: Vec::new() }
    }

    /// Lays `MAILRACE_*` over what is there.
    pub(super) fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) {
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let key = name[PREFIX.len()..].replace("__", ".").to_ascii_lowercase();
            let origin = Origin::Environment(name.to_owned());
            match value.into_string() {
                Ok(value) => self.add(key, value, origin),
                Err(_) => self.error(&key, origin, "the value is not UTF-8".to_owned()),
            }
        }
    }

    /// Lays `--set key=value` over what is there.
    pub(super) fn add_flags(&mut self, sets: &[String]) {
        for text in sets {
            match text.split_once('=') {
                Some((key, value)) => {
                    self.add(key.trim().to_owned(), value.trim().to_owned(), Origin::Flag);
                }
                None => self.error(text, Origin::Flag, "key=value is needed".to_owned()),
            }
        }
    }

    fn add(&mut self, key: String, value: String, origin: Origin) {
        if is_known(&key) {
            self.values.insert(key, (value, origin));
        } else {
            let message = match suggestion(&key) {
                Some(known) => format!("unknown key; did you mean {known}?"),
                None => "unknown key; `mailrace check --effective` lists all".to_owned(),
            };
            self.error(&key, origin, message);
        }
    }

    /// Gives every listener all its fields.
    pub(super) fn complete_listeners(&mut self) {
        for index in 0..self.listener_count() {
            for (field, default) in LISTENER_FIELDS {
                let default = match (index, field) {
                    (0, _) | (_, "line_ends") => default.to_owned(),
                    (_, "name") => format!("{default}{index}"),
                    _ => String::new(),
                };
                self.values
                    .entry(format!("listener.{index}.{field}"))
                    .or_insert((default, Origin::Default));
            }
        }
    }

    /// Listeners: one more than the highest index, at least one.
    pub(super) fn listener_count(&self) -> usize {
        let indices =
            self.values.keys().filter_map(|key| listener_key(key)).map(|(index, _)| index);
        indices.max().map_or(1, |highest| highest + 1)
    }

    /// Parses one value; a mistake is noted and the type's default stands in until `finish`.
    pub(super) fn parse<T: Default>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let (value, _) = self.values.get(key).expect("only known keys, all of which have defaults");
        match parse(value) {
            Ok(value) => value,
            Err(message) => {
                self.blame(key, message);
                T::default()
            }
        }
    }

    /// Notes a mistake in the value of `key`.
    pub(super) fn blame(&mut self, key: &str, message: String) {
        let origin = self.values.get(key).map_or(Origin::Default, |(_, origin)| origin.clone());
        self.error(key, origin, message);
    }

    fn error(&mut self, key: &str, origin: Origin, message: String) {
        self.errors.push(ConfigError { key: key.to_owned(), origin, message });
    }

    /// All settings, or all mistakes.
    pub(super) fn finish(self) -> Result<Vec<Setting>, ConfigErrors> {
        if !self.errors.is_empty() {
            return Err(ConfigErrors(self.errors));
        }
        let mut settings: Vec<Setting> = self
            .values
            .into_iter()
            .map(|(key, (value, origin))| Setting { key, value, origin })
            .collect();
        settings.sort_by_key(|setting| rank(&setting.key));
        Ok(settings)
    }
}

/// Splits `listener.<index>.<field>`.
fn listener_key(key: &str) -> Option<(usize, &str)> {
    let (index, field) = key.strip_prefix("listener.")?.split_once('.')?;
    let canonical = index == "0" || !index.starts_with(['0', '+']);
    let index = index.parse().ok().filter(|index| canonical && *index < LISTENERS_MAX)?;
    Some((index, field))
}

fn is_known(key: &str) -> bool {
    KEYS.iter().any(|(known, _)| *known == key)
        || listener_key(key)
            .is_some_and(|(_, field)| LISTENER_FIELDS.iter().any(|(known, _)| *known == field))
}

/// Place in the documentation: the fixed keys, then the listeners.
fn rank(key: &str) -> (usize, usize) {
    let fixed = KEYS.iter().position(|(known, _)| *known == key).map(|place| (place, 0));
    fixed.unwrap_or_else(|| {
        let (index, field) = listener_key(key).unwrap_or((0, ""));
        let place = LISTENER_FIELDS.iter().position(|(known, _)| *known == field);
        (KEYS.len() + index, place.unwrap_or(0))
    })
}

/// The known key nearest to `key`, unless it is too far to be meant.
fn suggestion(key: &str) -> Option<String> {
    let listeners = LISTENER_FIELDS.iter().map(|(field, _)| {
        let index = listener_key(key).map_or(0, |(index, _)| index);
        format!("listener.{index}.{field}")
    });
    KEYS.iter()
        .map(|(known, _)| (*known).to_owned())
        .chain(listeners)
        .map(|known| (distance(key, &known), known))
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let above = *cell;
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "abc", 3), ("abc", "", 3), ("log.dri", "log.dir", 2), ("same", "same", 0)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn suggestions() {
        assert_eq!(suggestion("log.dirr").as_deref(), Some("log.dir"));
        assert_eq!(suggestion("listener.2.lisen").as_deref(), Some("listener.2.listen"));
        assert_eq!(suggestion("completely.other"), None);
    }
}
