//! What a new configuration changes in a running server, and which changes need a restart.

use super::keys::{self, Key, Table};
use super::{Config, Origin, Setting, Value};

/// One key that two configurations disagree about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Dotted key; listeners and exporters appear by name, as in `export.kafka-main.topic`.
    pub key: String,
    /// Value so far; `None`: there was no such listener or exporter, or it had no such key.
    pub old: Option<Value>,
    /// Value from now on; `None`: there is no such listener or exporter, or key, any more.
    pub new: Option<Value>,
    /// Where the new value was written.
    pub origin: Origin,
    /// It takes effect with the next start only.
    pub restart: bool,
}

impl Config {
    /// The keys in which `new` means something else than this configuration, in the order of the
    /// documentation, those that are gone last. Neither the order of listeners and exporters
    /// counts, nor how a size or duration is written, nor where.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let (old, new) = (named(&self.settings), named(&new.settings));
        let find =
            |list: &[Named<'_>], name: &str| list.iter().position(|named| named.name == name);
        let mut changes = Vec::new();
        for after in &new {
            let before = find(&old, &after.name).and_then(|at| old.get(at));
            if before.is_some_and(|before| before.meaning() == after.meaning()) {
                continue;
            }
            changes.push(Change {
                key: after.name.clone(),
                old: before.map(|before| before.setting.value.clone()),
                new: Some(after.setting.value.clone()),
                origin: after.setting.origin.clone(),
                restart: after.key.restart || comes_or_goes(&old, &after.name),
            });
        }
        for before in old.iter().filter(|before| find(&new, &before.name).is_none()) {
            changes.push(Change {
                key: before.name.clone(),
                old: Some(before.setting.value.clone()),
                new: None,
                origin: Origin::Default,
                restart: before.key.restart || comes_or_goes(&new, &before.name),
            });
        }
        changes
    }
}

/// Whether it is of a listener that the other configuration has not: sockets are opened at the
/// start.
fn comes_or_goes(other: &[Named<'_>], name: &str) -> bool {
    let Some((listener, _)) = name.strip_prefix("listener.").and_then(|name| name.split_once('.'))
    else {
        return false;
    };
    let prefix = format!("listener.{listener}.");
    !other.iter().any(|named| named.name.starts_with(&prefix))
}

/// A setting by a name that is the same in another configuration.
struct Named<'a> {
    name: String,
    key: &'static Key,
    setting: &'a Setting,
}

impl Named<'_> {
    fn meaning(&self) -> String {
        self.key.kind.canonical(&self.setting.value)
    }
}

fn named<'a>(settings: &'a [Setting]) -> Vec<Named<'a>> {
    let text = |key: &str| {
        let setting = settings.iter().find(|setting| setting.key == key);
        setting.map(|setting| setting.value.text()).unwrap_or_default()
    };
    let entry = |setting: &'a Setting| {
        let key = &setting.key;
        let (table, field) = keys::locate(key);
        let (array, known) = match table {
            Table::Root => {
                return Some(Named { name: key.clone(), key: keys::find(key)?, setting });
            }
            Table::Listener(_) => ("listener", keys::find(key)?),
            Table::Export(_) => {
                ("export", keys::find_of(key, &text(&format!("{}type", table.prefix())))?)
            }
        };
        let name = text(&format!("{}name", table.prefix()));
        Some(Named { name: format!("{array}.{name}.{field}"), key: known, setting })
    };
    settings.iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::from_text;

    /// `key: old -> new`, with `!` where a restart is needed.
    fn changes(old: &str, new: &str) -> Vec<String> {
        let show = |value: Option<super::Value>| value.map_or("-".to_owned(), |v| v.to_string());
        from_text(old)
            .unwrap()
            .changes(&from_text(new).unwrap())
            .into_iter()
            .map(|change| {
                let mark = if change.restart { "!" } else { "" };
                format!("{}{mark}: {} -> {}", change.key, show(change.old), show(change.new))
            })
            .collect()
    }

    #[test]
    fn what_means_the_same_is_no_change() {
        let old = "log.segment_size = \"64MiB\"\nlimits.timeout.command = \"5m\"";
        let new =
            "\n\n[log]\nsegment_size = \"65536KiB\"\n[limits]\ntimeout = {command = \"300s\"}";
        assert_eq!(changes(old, new), [""; 0]);
        assert_eq!(changes("", ""), [""; 0]);
        let a = "[[export]]\nname = \"a\"\ntype = \"blackhole\"\n";
        let b = "[[export]]\nname = \"b\"\ntype = \"blackhole\"\nstart = \"end\"\n";
        assert_eq!(changes(&format!("{a}{b}"), &format!("{b}{a}")), [""; 0]);
    }

    #[test]
    fn only_some_keys_need_a_restart() {
        let new = r#"
            [server]
            hostname = "b.example"
            shards = 2
            admin.listen = ""
            [log]
            dir = "/x"
            sync = "each"
            segment_size = "1MiB"
            on_io_error = "abort"
            disk.low = "1GiB"
            [log.retention]
            age = ""
            size = "1GiB"
            require_consumed = false
            retain_after_export = "1h"
            hold = true
            [limits]
            message_size = "1MiB"
            recipients = 100
            connections.total = 5
            inflight_bytes = "1GiB"
            timeout = { command = "1s", data = "2s" }
            exempt = []
            [[listener]]
            listen = ["127.0.0.1:25"]
            line_ends = "allow"
        "#;
        let found = changes("", new);
        let keys: Vec<_> = found.iter().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(
            keys,
            [
                "server.hostname!",
                "server.shards!",
                "server.admin.listen!",
                "log.dir!",
                "log.sync!",
                "log.segment_size!",
                "log.on_io_error!",
                "log.retention.age",
                "log.retention.size",
                "log.retention.require_consumed",
                "log.retention.retain_after_export",
                "log.retention.hold",
                "log.disk.low",
                "limits.message_size",
                "limits.recipients",
                "limits.timeout.command",
                "limits.timeout.data",
                "limits.connections.total",
                "limits.inflight_bytes",
                "limits.exempt",
                "listener.smtp.listen!",
                "listener.smtp.line_ends",
            ]
        );
        assert_eq!(found[0], "server.hostname!: \"host.example\" -> \"b.example\"");
        assert_eq!(found[19], "limits.exempt: [\"127.0.0.0/8\", \"::1\"] -> []");
    }

    #[test]
    fn exporters_go_by_their_names() {
        let a = "[[export]]\nname = \"a\"\ntype = \"blackhole\"\n";
        let b = "[[export]]\nname = \"b\"\ntype = \"files\"\ndir = \"/x\"\n";
        let c = "[[export]]\nname = \"b\"\ntype = \"folder\"\ndir = \"/y\"\n";
        let added = changes(a, &format!("{b}{a}"));
        assert!(added.iter().all(|line| line.starts_with("export.b.")), "{added:?}");
        assert!(added.contains(&"export.b.dir: - -> \"/x\"".to_owned()), "{added:?}");
        assert!(changes(b, "").contains(&"export.b.name: \"b\" -> -".to_owned()));
        let retyped = changes(b, c);
        for line in ["export.b.dir: \"/x\" -> \"/y\"", "export.b.requests: - -> 8"] {
            assert!(retyped.contains(&line.to_owned()), "{line} in {retyped:?}");
        }
        assert!(!retyped.iter().any(|line| line.starts_with("export.b.timeout")), "{retyped:?}");
    }

    #[test]
    fn listeners_need_a_restart() {
        let one = "[[listener]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\n";
        let two = "[[listener]]\nname = \"b\"\nlisten = [\"127.0.0.1:2\"]\n";
        let added = changes(one, &format!("{one}{two}"));
        assert_eq!(added.len(), super::super::listener_keys::LISTENER.len(), "{added:?}");
        assert!(added.iter().all(|line| line.starts_with("listener.b.") && line.contains('!')));
    }
}
