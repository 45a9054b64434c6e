//! The configuration file: TOML to settings, each with its line.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::raw::{ConfigError, ConfigErrors, Origin, Settings};
use super::units;
use super::value::{Kind, Value};

/// Looked for where no file is named, in this order.
pub const DEFAULT_FILES: [&str; 2] = ["./mailrace.toml", "/etc/mailrace/mailrace.toml"];

/// Largest file: what is larger is no configuration.
const BYTES_MAX: u64 = 10 << 20;

/// The text of a configuration file and its name in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// As it was named.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

impl ConfigFile {
    /// Reads the named file; without a name the first of [`DEFAULT_FILES`] that exists.
    ///
    /// # Errors
    /// A file that is named, or is there, and cannot be read: a default file is never passed over
    /// because of its rights.
    pub fn find(named: Option<&Path>) -> Result<Option<Self>, ConfigErrors> {
        Self::find_among(named, DEFAULT_FILES.map(Path::new))
    }

    fn find_among(
        named: Option<&Path>,
        defaults: [&Path; 2],
    ) -> Result<Option<Self>, ConfigErrors> {
        if let Some(path) = named {
            return Self::read(path).map(Some);
        }
        // Of the link itself: one that leads nowhere is a mistake and no absent file.
        let exists = |path: &&Path| match fs::symlink_metadata(path) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        };
        defaults.into_iter().find(exists).map(Self::read).transpose()
    }

    fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let bad = |message: String| {
            let origin = Origin::File { path: path.to_owned(), line: 0 };
            ConfigErrors(vec![ConfigError { key: String::new(), origin, file: None, message }])
        };
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => bad("there is no such file".to_owned()),
            _ => bad(format!("cannot be opened: {error}")),
        })?;
        if file.metadata().is_ok_and(|facts| facts.is_dir()) {
            return Err(bad("is a directory; a file is needed".to_owned()));
        }
        let mut octets = Vec::new();
        file.take(BYTES_MAX + 1)
            .read_to_end(&mut octets)
            .map_err(|error| bad(format!("cannot be read: {error}")))?;
        if octets.len() as u64 > BYTES_MAX {
            return Err(
                bad("is larger than 10 MiB, too large for a configuration file".to_owned()),
            );
        }
        let text = String::from_utf8(octets).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line =
                1 + error.as_bytes().iter().take(valid).filter(|octet| **octet == b'\n').count();
            bad(format!("line {line} is not UTF-8"))
        })?;
        // Editors of other systems put a mark there.
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(Self { path: path.to_owned(), text })
    }
}

impl Settings {
    /// As [`Settings::add_file`], where a file that is not TOML gives what can be read of it.
    pub(super) fn add_readable(&mut self, file: &ConfigFile) {
        let ends = file.text.match_indices('\n').map(|(at, _)| at).collect();
        let mut reader = Reader { file, line_ends: ends, settings: self };
        reader.table("", DeTable::parse_recoverable(&file.text).0.get_ref());
    }

    /// Lays a file over what is there.
    pub(super) fn add_file(&mut self, file: &ConfigFile) {
        let ends = file.text.match_indices('\n').map(|(at, _)| at).collect();
        let mut reader = Reader { file, line_ends: ends, settings: self };
        match DeTable::parse(&file.text) {
            Ok(table) => reader.table("", table.get_ref()),
            Err(error) => reader.syntax_error(&error),
        }
    }
}

struct Reader<'a> {
    file: &'a ConfigFile,
    /// Where its lines end.
    line_ends: Vec<usize>,
    settings: &'a mut Settings,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            if self.settings.has_too_many_errors() {
                return;
            }
            let origin = self.origin(name.span().start);
            let name = name.get_ref();
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let key = match prefix {
                _ if name.is_empty() || !name.chars().all(plain) => {
                    // A dot in quotes would be taken for one between names.
                    self.settings.unknown(&format!("{prefix}{name:?}"), origin);
                    continue;
                }
                "" => name.to_string(),
                _ => format!("{prefix}{name}"),
            };
            self.entry(&key, value.get_ref(), origin);
        }
    }

    fn entry(&mut self, key: &str, value: &DeValue<'_>, origin: Origin) {
        if let Some(most) = keys::ARRAYS.iter().find(|(name, _)| *name == key).map(|(_, most)| most)
        {
            return self.array(key, *most, value, origin);
        }
        match (keys::find(key), value) {
            (Some(known), value) => match take(known.kind, value) {
                Ok(value) => self.settings.add(key, value, origin),
                Err(message) => self.settings.error(key, origin, message),
            },
            (None, DeValue::Table(table)) if keys::is_table(key) => {
                self.table(&format!("{key}."), table);
            }
            (None, _) if keys::is_table(key) => {
                let message = format!("a table is needed: [{key}]");
                self.settings.error(key, origin, message);
            }
            (None, _) => self.settings.unknown(key, origin),
        }
    }

    fn array(&mut self, key: &str, most: usize, value: &DeValue<'_>, origin: Origin) {
        let message = format!("an array of tables is needed: [[{key}]]");
        let DeValue::Array(items) = value else {
            return self.settings.error(key, origin, message);
        };
        if items.len() > most {
            let message = format!("at most {most} are possible, not {}", items.len());
            return self.settings.error(key, origin, message);
        }
        for (index, item) in items.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) if table.is_empty() => {
                    let origin = self.origin(item.span().start);
                    let message = "the table is empty".to_owned();
                    self.settings.error(&format!("{key}.{index}"), origin, message);
                }
                DeValue::Table(table) => self.table(&format!("{key}.{index}."), table),
                _ => self.settings.error(key, self.origin(item.span().start), message.clone()),
            }
        }
    }

    /// The line is reported without its text, which may be a secret that somebody wrote there.
    fn syntax_error(&mut self, error: &toml::de::Error) {
        let at = error.span().map_or(self.file.text.len(), |span| span.start);
        let before = self.file.text.get(..at).unwrap_or(&self.file.text);
        let column = 1 + before.rsplit('\n').next().unwrap_or("").chars().count();
        let message = format!("column {column}: not TOML: {}", error.message());
        self.settings.error("", self.origin(at), message);
    }

    fn origin(&self, at: usize) -> Origin {
        let line = 1 + self.line_ends.partition_point(|end| *end < at);
        Origin::File { path: self.file.path.clone(), line }
    }
}

/// A value of the type that a key of this kind takes.
fn take(kind: Kind, value: &DeValue<'_>) -> Result<Value, String> {
    let wrong = |found: &str| Err(format!("{} is needed, not {found}", kind.toml_type()));
    match (kind, value) {
        (Kind::Boolean, DeValue::Boolean(value)) => Ok(Value::Boolean(*value)),
        (Kind::Integer { .. }, DeValue::Integer(number)) => {
            i64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Integer)
                .map_err(|_| "the number is too large".to_owned())
        }
        (Kind::List, DeValue::Array(items)) => {
            let items = items.iter().map(Spanned::get_ref).map(DeValue::as_str);
            let items: Option<Vec<_>> = items.map(|item| item.map(str::to_owned)).collect();
            items.map_or_else(|| wrong("an array of other values"), |items| Ok(Value::List(items)))
        }
        (Kind::Integer { word: Some(word), .. }, DeValue::String(text)) if *text == word => {
            Ok(Value::Text(word.to_owned()))
        }
        (Kind::Boolean | Kind::Integer { .. } | Kind::List, DeValue::String(_)) => {
            wrong("a string")
        }
        (_, DeValue::String(text)) => Ok(Value::Text(text.to_string())),
        (Kind::Size { .. }, DeValue::Integer(number)) => {
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(bytes) if bytes >= 0 => Ok(Value::Integer(bytes)),
                Ok(_) => wrong("a negative number"),
                Err(_) => Err("the number is too large".to_owned()),
            }
        }
        (Kind::Duration { .. }, DeValue::Integer(number)) => {
            Err(units::unitless_duration(number.as_str()))
        }
        (_, DeValue::Integer(_)) => wrong("an integer"),
        (_, DeValue::Float(_)) => wrong("a float"),
        (_, DeValue::Boolean(_)) => wrong("a boolean"),
        (_, DeValue::Datetime(_)) => wrong("a date"),
        (_, DeValue::Array(_)) => wrong("an array"),
        (_, DeValue::Table(_)) => wrong("a table"),
    }
}

#[cfg(test)]
mod tests;
