//! Every key: its name, the values it takes, its default, what it does. The checks,
//! `config default` and `config schema` all use these tables, so that they cannot drift apart.

use std::sync::LazyLock;

pub(super) use super::key::Key;
use super::{export_keys::EXPORT, limits, listener_keys::LISTENER, server_keys::SERVER_AND_LOG};

/// Most listeners; each costs a socket on every shard and a set of metric series.
pub(super) const LISTENERS_MAX: usize = 16;

/// Most exporters; each costs a reader and a batch on every shard.
pub(super) const EXPORTS_MAX: usize = 32;

/// Keys of `[server]`, `[log]` and `[limits]`, in the order of the documentation.
static ROOT: LazyLock<Vec<Key>> =
    LazyLock::new(|| [SERVER_AND_LOG, limits::SESSION, limits::SERVER].concat());

/// Which table a key stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Root,
    Listener(usize),
    Export(usize),
}

impl Table {
    pub(super) fn keys(self) -> &'static [Key] {
        match self {
            Self::Root => &ROOT,
            Self::Listener(_) => LISTENER,
            Self::Export(_) => EXPORT,
        }
    }

    /// In front of its keys' names.
    pub(super) fn prefix(self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Listener(index) => format!("listener.{index}."),
            Self::Export(index) => format!("export.{index}."),
        }
    }
}

/// Names of the arrays of tables, with their most.
pub(super) const ARRAYS: [(&str, usize); 2] =
    [("listener", LISTENERS_MAX), ("export", EXPORTS_MAX)];

/// Splits a dotted key into its table and its name there.
pub(super) fn locate(key: &str) -> (Table, &str) {
    let within = |name: &str, most: usize| {
        let (index, field) = key.strip_prefix(name)?.strip_prefix('.')?.split_once('.')?;
        let canonical = index == "0" || !index.starts_with(['0', '+']);
        let index = index.parse().ok().filter(|index| canonical && *index < most)?;
        Some((index, field))
    };
    if let Some((index, field)) = within("listener", LISTENERS_MAX) {
        return (Table::Listener(index), field);
    }
    if let Some((index, field)) = within("export", EXPORTS_MAX) {
        return (Table::Export(index), field);
    }
    (Table::Root, key)
}

/// The key of this dotted name; of an exporter's that types share, the first.
pub(super) fn find(key: &str) -> Option<&'static Key> {
    let (table, name) = locate(key);
    table.keys().iter().find(|known| known.name == name)
}

/// The key of this dotted name in an exporter of this type.
pub(super) fn find_of(key: &str, kind: &str) -> Option<&'static Key> {
    let (table, name) = locate(key);
    table.keys().iter().find(|known| known.name == name && known.is_of(kind))
}

/// The types of exporters that have this key.
pub(super) fn owners(key: &str) -> Vec<&'static str> {
    let types = super::export_keys::TYPES.iter().copied();
    types.filter(|kind| find_of(key, kind).is_some()).collect()
}

/// Whether keys lie below this dotted name.
pub(super) fn is_table(key: &str) -> bool {
    let below = format!("{key}.x");
    if let (Table::Listener(_) | Table::Export(_), "x") = locate(&below) {
        return true;
    }
    let (table, name) = locate(key);
    table
        .keys()
        .iter()
        .any(|known| known.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// Place in the documentation: the fixed keys, then listeners, then exporters.
pub(super) fn rank(key: &str) -> (usize, usize, usize) {
    let (table, name) = locate(key);
    let place = table.keys().iter().position(|known| known.name == name).unwrap_or(0);
    match table {
        Table::Root => (0, 0, place),
        Table::Listener(index) => (1, index, place),
        Table::Export(index) => (2, index, place),
    }
}

/// The known key nearest to `key`, unless it is too far to be meant.
pub(super) fn suggestion(key: &str) -> Option<String> {
    let (listener, export) = match locate(key).0 {
        Table::Root => (0, 0),
        Table::Listener(index) | Table::Export(index) => (index, index),
    };
    let tables = [Table::Root, Table::Listener(listener), Table::Export(export)];
    let mut known: Vec<String> = ARRAYS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for table in tables {
        for entry in table.keys() {
            let name = format!("{}{}", table.prefix(), entry.name);
            // The tables on the way are names that may be misspelled, too.
            known.extend(name.match_indices('.').map(|(at, _)| name[..at].to_owned()));
            known.push(name);
        }
    }
    known.sort();
    known.dedup();
    let near = known
        .iter()
        .map(|known| (distance(key, known), known))
        .filter(|(distance, known)| *distance <= locate(known).1.len() / 3)
        .min();
    // The right name in the wrong table.
    let last = format!(".{}", key.rsplit('.').next().unwrap_or(key));
    let elsewhere = || known.iter().find(|known| known.ends_with(&last));
    near.map(|(_, known)| known).or_else(elsewhere).cloned()
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
        for (key, known) in [
            ("log.dirr", "log.dir"),
            ("listener.2.lisen", "listener.2.listen"),
            ("export.3.retry.intial", "export.3.retry.initial"),
            ("lisener", "listener"),
            ("limit", "limits"),
            ("log.retension", "log.retention"),
            ("message_size", "limits.message_size"),
            ("log.shards", "server.shards"),
        ] {
            assert_eq!(suggestion(key).as_deref(), Some(known), "{key}");
        }
        assert_eq!(suggestion("completely.other"), None);
    }

    #[test]
    fn keys_are_found_where_they_are() {
        assert_eq!(locate("export.7.tls.ca_file"), (Table::Export(7), "tls.ca_file"));
        for key in ["listener.01.name", "listener.16.name", "export.+1.name", "export.name"] {
            assert_eq!(locate(key).0, Table::Root, "{key}");
            assert!(find(key).is_none(), "{key}");
        }
        for table in ["log", "log.retention", "listener.0", "export.31", "export.0.tls"] {
            assert!(is_table(table), "{table}");
        }
        for other in ["lo", "log.dir", "listener", "listener.16", "export.0.tl", "export.0.x"] {
            assert!(!is_table(other), "{other}");
        }
    }

    #[test]
    fn names_are_unique_for_each_type() {
        for kind in super::super::export_keys::TYPES {
            let mut names: Vec<_> =
                EXPORT.iter().filter(|key| key.is_of(kind)).map(|key| key.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{kind}");
        }
    }
}
