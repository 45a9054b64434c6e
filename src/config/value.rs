//! A value as written, and the kinds of values that keys take.

use std::fmt;
use std::time::Duration;

use super::{LogFormat, units};
use crate::{export, log::SyncPolicy, smtp};

/// A value as written, after its type was looked at and before its meaning was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string; sizes and durations too.
    Text(String),
    /// An integer.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// An array of strings.
    List(Vec<String>),
}

impl fmt::Display for Value {
    /// As TOML writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &str| toml::Value::String(text.to_owned());
        match self {
            Self::Text(value) => text(value).fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Boolean(value) => value.fmt(f),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| text(item).to_string()).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

impl Value {
    /// As JSON writes it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Integer(number) => (*number).into(),
            Self::Boolean(value) => (*value).into(),
            Self::List(items) => items.as_slice().into(),
        }
    }

    /// As an environment variable would hold it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::List(items) => items.join(", "),
        }
    }
}

/// What a key takes. Bounds are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any string; its grammar is checked where it is used.
    Text,
    /// A path, or `credential:NAME`; empty: none.
    File,
    Boolean,
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A number, or a word in place of one.
    Integer {
        least: usize,
        most: usize,
        word: Option<&'static str>,
    },
    /// A size, or a word, or a percentage from 1 to `percent`.
    Size {
        least: u64,
        most: u64,
        word: Option<&'static str>,
        percent: Option<usize>,
    },
    /// A duration with bounds in milliseconds, or a word.
    Duration {
        least: u64,
        most: u64,
        word: Option<&'static str>,
    },
    /// `1000/s`; empty: none.
    Rate,
    /// `600/m`; empty: none.
    PerMinute,
}

/// An enumeration of a room, or of this one, that a key chooses from.
pub(super) trait Choice: Copy + Default + 'static {
    /// All of them.
    const ALL: &'static [Self];
    /// Their names, in the same order.
    const WORDS: &'static [&'static str];

    fn name(self) -> &'static str;

    /// The one of this name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|choice| choice.name() == name)
    }
}

macro_rules! choices {
    ($($choice:ty),* $(,)?) => {$(
        impl Choice for $choice {
            const ALL: &'static [Self] = &<$choice>::ALL;
            const WORDS: &'static [&'static str] = &{
                let mut words = [""; <$choice>::ALL.len()];
                let mut at = 0;
                while at < words.len() {
                    words[at] = <$choice>::ALL[at].name();
                    at += 1;
                }
                words
            };

            fn name(self) -> &'static str {
                <$choice>::name(self)
            }
        }
    )*};
}

choices! {
    LogFormat,
    smtp::LineEnds,
    smtp::Protocol,
    smtp::TlsPolicy,
    SyncPolicy,
    export::Compression,
    export::Encoding,
    export::FilesLayout,
    export::Key,
    export::StoreLayout,
}

/// A size as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Amount {
    /// The word that stands in place of a size.
    #[default]
    Word,
    Bytes(u64),
    Percent(usize),
}

impl Kind {
    /// Reads what an environment variable or a flag holds; what does not fit is reported by the
    /// check.
    pub(super) fn read(self, text: &str) -> Value {
        let kept = || Value::Text(text.to_owned());
        match self {
            Self::List => Value::List(units::list(text).into_iter().map(str::to_owned).collect()),
            Self::Boolean => text.parse().map_or_else(|_| kept(), Value::Boolean),
            Self::Integer { .. } => text.parse().map_or_else(|_| kept(), Value::Integer),
            _ => kept(),
        }
    }

    /// The TOML type, for people.
    pub(super) fn toml_type(self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::List => "an array of strings".to_owned(),
            Self::Integer { word: None, .. } => "an integer".to_owned(),
            Self::Integer { word: Some(word), .. } => format!("an integer or {word:?}"),
            Self::Size { .. } => "a string such as \"64MiB\" or a number of bytes".to_owned(),
            Self::Duration { .. } => "a string such as \"10s\"".to_owned(),
            Self::Rate => "a string such as \"1000/s\"".to_owned(),
            Self::PerMinute => "a string such as \"600/m\"".to_owned(),
            Self::Text | Self::File | Self::Choice(_) => "a string".to_owned(),
        }
    }

    pub(super) fn boolean(self, value: &Value) -> Result<bool, String> {
        match value {
            Value::Boolean(value) => Ok(*value),
            other => Err(format!("true or false is needed, not {:?}", other.text())),
        }
    }

    /// The word as the table holds it.
    pub(super) fn choice(self, value: &Value) -> Result<&'static str, String> {
        let Self::Choice(words) = self else { return Err("no choice".to_owned()) };
        let text = value.text();
        words
            .iter()
            .copied()
            .find(|word| *word == text)
            .ok_or_else(|| format!("one of {} is needed", words.join(", ")))
    }

    /// The number; `None`: the word that stands in place of one.
    pub(super) fn integer(self, value: &Value) -> Result<Option<usize>, String> {
        let Self::Integer { least, most, word } = self else { return Err("no number".to_owned()) };
        let text = value.text();
        match word {
            Some(word) if text == word => Ok(None),
            Some(word) => units::integer(&text, least, most)
                .map(Some)
                .map_err(|error| format!("{error}, or {word:?}")),
            None => units::integer(&text, least, most).map(Some),
        }
    }

    pub(super) fn amount(self, value: &Value) -> Result<Amount, String> {
        let Self::Size { least, most, word, percent } = self else {
            return Err("no size".to_owned());
        };
        let text = value.text();
        if word.is_some_and(|word| word == text) {
            return Ok(Amount::Word);
        }
        if let (Some(most), Some(number)) = (percent, text.strip_suffix('%')) {
            return units::integer(number.trim(), 1, most).map(Amount::Percent);
        }
        units::size_within(&text, least, most).map(Amount::Bytes)
    }

    /// The duration; `None`: the word that stands in place of one.
    pub(super) fn duration(self, value: &Value) -> Result<Option<Duration>, String> {
        let Self::Duration { least, most, word } = self else {
            return Err("no duration".to_owned());
        };
        let text = value.text();
        if word.is_some_and(|word| word == text) {
            return Ok(None);
        }
        let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
        units::duration_within(&text, least, most).map(Some)
    }

    /// So many a second; `None`: no limit.
    pub(super) fn rate(self, value: &Value) -> Result<Option<u32>, String> {
        let text = value.text();
        if text.is_empty() {
            return Ok(None);
        }
        let number = text.strip_suffix("/s").and_then(|number| number.parse::<u32>().ok());
        match number.filter(|number| *number > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{text:?} is not a rate such as \"1000/s\"")),
        }
    }

    /// So many a minute; `None`: no limit.
    pub(super) fn per_minute(self, value: &Value) -> Result<Option<u32>, String> {
        let text = value.text();
        if text.is_empty() {
            return Ok(None);
        }
        let number = text.strip_suffix("/m").and_then(|number| number.parse::<u32>().ok());
        match number.filter(|number| *number > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{text:?} is not a rate such as \"600/m\"")),
        }
    }

    /// The same for values that mean the same, such as `60s` and `1m`.
    pub(super) fn canonical(self, value: &Value) -> String {
        let meaning = match self {
            Self::Size { .. } => self.amount(value).map(|amount| format!("{amount:?}")),
            Self::Duration { .. } => self.duration(value).map(|time| format!("{time:?}")),
            _ => Ok(value.to_string()),
        };
        meaning.unwrap_or_else(|_| value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_toml_and_read_back() {
        for value in [
            Value::Text("a \"b\" \\ \n\u{7f} ü".to_owned()),
            Value::Text(String::new()),
            Value::Integer(-3),
            Value::Boolean(true),
            Value::List(vec!["[::1]:25".to_owned(), "a, b".to_owned()]),
            Value::List(Vec::new()),
        ] {
            let table: toml::Table = format!("x = {value}").parse().unwrap();
            let read = serde_json::to_value(&table["x"]).unwrap();
            assert_eq!(read, value.to_json(), "{value}");
        }
    }

    #[test]
    fn rates() {
        let rate = |text: &str| Kind::Rate.rate(&Value::Text(text.to_owned()));
        assert_eq!(rate(""), Ok(None));
        assert_eq!(rate("1000/s"), Ok(Some(1000)));
        for text in ["0/s", "1000", "/s", "-1/s", "10/m"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_a_minute() {
        let rate = |text: &str| Kind::PerMinute.per_minute(&Value::Text(text.to_owned()));
        assert_eq!(rate(""), Ok(None));
        assert_eq!(rate("600/m"), Ok(Some(600)));
        for text in ["0/m", "600", "/m", "-1/m", "10/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_that_mean_the_same() {
        let same = |kind: Kind, a: &str, b: &str| {
            let text = |text: &str| kind.canonical(&Value::Text(text.to_owned()));
            text(a) == text(b)
        };
        let size = Kind::Size { least: 0, most: 1 << 30, word: Some(""), percent: Some(50) };
        let time = Kind::Duration { least: 0, most: 1 << 30, word: Some("never") };
        assert!(same(size, "1MiB", "1024KiB") && !same(size, "1MiB", "1MB"));
        assert!(same(time, "60s", "1m") && !same(time, "never", "1m"));
        assert!(!same(Kind::Text, "60s", "1m"));
    }
}
