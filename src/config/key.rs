//! One key of a table: its name, the values it takes, its default, what it does.

use std::borrow::Cow;

use super::value::{Choice, Kind};

/// Where a default is said.
#[derive(Clone, Copy, Debug)]
enum Preset {
    /// Here: the room has no default of its own.
    Text(&'static str),
    /// In the room that owns the option.
    Own(fn() -> String),
}

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Dotted, within its table.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    default: Preset,
    /// One line for people.
    pub(super) doc: &'static str,
    /// A change takes effect with the next start only.
    pub(super) restart: bool,
    /// It has no default and must be given; such a value.
    pub(super) example: Option<&'static str>,
    /// Types of exporters that have it; empty: all.
    pub(super) types: &'static [&'static str],
    /// Layouts of its exporter with which the default is another one.
    with_layout: Option<(&'static [&'static str], &'static str)>,
}

impl Key {
    pub(super) const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::with(name, kind, Preset::Text(default), doc)
    }

    /// A choice from an enumeration, whose default is its own.
    pub(super) const fn choice<T: Choice>(name: &'static str, doc: &'static str) -> Self {
        let own = || T::default().name().to_owned();
        Self::with(name, Kind::Choice(T::WORDS), Preset::Own(own), doc)
    }

    /// An option of a room, whose default is said there.
    pub(super) const fn owned(
        name: &'static str,
        kind: Kind,
        default: fn() -> String,
        doc: &'static str,
    ) -> Self {
        Self::with(name, kind, Preset::Own(default), doc)
    }

    const fn with(name: &'static str, kind: Kind, default: Preset, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            default,
            doc,
            restart: false,
            example: None,
            types: &[],
            with_layout: None,
        }
    }

    pub(super) const fn restart(self) -> Self {
        Self { restart: true, ..self }
    }

    pub(super) const fn needed(self, example: &'static str) -> Self {
        Self { example: Some(example), ..self }
    }

    pub(super) const fn of(self, types: &'static [&'static str]) -> Self {
        Self { types, ..self }
    }

    /// The default is this one where the exporter's `layout`, which stands ahead of it, is one of
    /// these.
    pub(super) const fn with_layout(
        self,
        layouts: &'static [&'static str],
        default: &'static str,
    ) -> Self {
        Self { with_layout: Some((layouts, default)), ..self }
    }

    /// The default, as an environment variable would hold it.
    pub(super) fn default(&self) -> Cow<'static, str> {
        match self.default {
            Preset::Text(text) => Cow::Borrowed(text),
            Preset::Own(text) => Cow::Owned(text()),
        }
    }

    /// The default in an exporter of this layout.
    pub(super) fn default_with(&self, layout: &str) -> Cow<'static, str> {
        match self.with_layout {
            Some((layouts, default)) if layouts.contains(&layout) => Cow::Borrowed(default),
            _ => self.default(),
        }
    }

    /// Whether exporters of this type have it.
    pub(super) fn is_of(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.contains(&kind)
    }
}

pub(super) const MIB: u64 = 1 << 20;
pub(super) const DAY: u64 = 86_400_000;
