//! Every key: its name, the values it takes, its default, what it does. The checks,
//! `config default` and `config schema` all use these tables, so that they cannot drift apart.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::export_keys::EXPORT;
use super::value::{Choice, Kind};
use super::{LogFormat, limits};
use crate::{log::SyncPolicy, smtp};

/// Most listeners; each costs a socket on every shard and a set of metric series.
pub(super) const LISTENERS_MAX: usize = 16;

/// Most exporters; each costs a reader and a batch on every shard.
pub(super) const EXPORTS_MAX: usize = 32;

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

/// Keys of `[server]`, `[log]` and `[limits]`, in the order of the documentation.
static ROOT: LazyLock<Vec<Key>> =
    LazyLock::new(|| [SERVER_AND_LOG, limits::SESSION, limits::SERVER].concat());

const SERVER_AND_LOG: &[Key] = &[
    Key::new(
        "server.hostname",
        Kind::Text,
        "",
        "Name in the greeting and in Received; \"\": the system's host name.",
    )
    .restart(),
    Key::new(
        "server.shards",
        Kind::Integer { least: 1, most: 1024, word: Some("auto") },
        "auto",
        "Worker shards; \"auto\": one for each CPU this process may run on.",
    )
    .restart(),
    Key::new(
        "server.admin.listen",
        Kind::Text,
        "127.0.0.1:2580",
        "Address of /metrics, /healthz and /readyz; \"\": off.",
    )
    .restart(),
    Key::new(
        "server.tls.cert_file",
        Kind::File,
        "",
        "Certificate of the listeners and its chain, PEM; read again when it changes.",
    ),
    Key::new("server.tls.key_file", Kind::File, "", "Its private key, PEM."),
    Key::new(
        "server.admin.token_file",
        Kind::File,
        "",
        "File with the token that admin requests must carry; required unless the address is \
         loopback.",
    )
    .restart(),
    Key::new(
        "server.admin.hosts",
        Kind::List,
        "",
        "Host names under which the stream API answers without a token, such as \
         [\"mail.example.com\"]; it always does under IP addresses and localhost.",
    )
    .restart(),
    Key::new(
        "server.drain.lead",
        Kind::Duration { least: 0, most: 3_600_000, word: None },
        "0s",
        "On SIGTERM and `mailrace drain`: how long mail is still accepted after /readyz turns to \
         503; with a load balancer, a few seconds more than its health checks need.",
    ),
    Key::new(
        "server.log_level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "Lowest level that is logged to stderr; the variable RUST_LOG overrides it.",
    )
    .restart(),
    Key::choice::<LogFormat>(
        "server.log_format",
        "Format of the log lines on stderr; auto: text on a terminal, JSON elsewhere.",
    )
    .restart(),
    Key::new(
        "server.dns.servers",
        Kind::List,
        "",
        "Addresses of DNS servers, such as 127.0.0.1:53; []: those in /etc/resolv.conf.",
    )
    .restart(),
    Key::new("log.dir", Kind::Text, super::DEFAULT_DIR, "Data directory.").restart(),
    Key::choice::<SyncPolicy>(
        "log.sync",
        "group: one sync per batch; each: one sync per message; none: NOT durable.",
    )
    .restart(),
    Key::new(
        "log.segment_size",
        Kind::Size { least: MIB, most: 4096 * MIB, word: None, percent: None },
        "64MiB",
        "Size at which a segment is sealed.",
    )
    .restart(),
    Key::new(
        "log.on_io_error",
        Kind::Choice(&["continue", "abort"]),
        "continue",
        "A failed write or sync ends its segment (continue) or the process (abort).",
    )
    .restart(),
    Key::new(
        "log.retention.age",
        Kind::Duration { least: 1_000, most: 36_500 * DAY, word: Some("") },
        "7d",
        "Delete sealed segments older than this; \"\": no age limit.",
    ),
    Key::new(
        "log.retention.size",
        Kind::Size { least: MIB, most: u64::MAX, word: Some(""), percent: None },
        "",
        "Delete the oldest segments once all shards together exceed this size; \"\": no limit.",
    ),
    Key::new(
        "log.retention.require_consumed",
        Kind::Boolean,
        "true",
        "Keep records that a configured exporter or a group has not committed.",
    ),
    Key::new(
        "log.retention.retain_after_export",
        Kind::Duration { least: 0, most: 365 * DAY, word: None },
        "15m",
        "Keep a segment this long after its last consumer has passed it.",
    ),
    Key::new("log.retention.hold", Kind::Boolean, "false", "Suspend all deletion."),
    Key::new(
        "log.disk.low",
        Kind::Size { least: MIB, most: u64::MAX, word: None, percent: Some(99) },
        "10%",
        "Free space below which the server warns, and deletes consumed segments early.",
    ),
];

/// Keys of one `[[listener]]`, with the defaults of the first.
pub(super) const LISTENER: &[Key] = &[
    Key::new("name", Kind::Text, "smtp", "Unique name: metric label.").restart(),
    Key::new(
        "listen",
        Kind::List,
        super::DEFAULT_LISTEN,
        "Addresses; port 0 lets the system choose; unix:/PATH is a socket for LMTP.",
    )
    .restart(),
    Key::choice::<smtp::Protocol>(
        "protocol",
        "smtp; lmtp: a reply for each recipient (RFC 2033); refuse: 521 to all (RFC 7504).",
    )
    .restart(),
    Key::choice::<smtp::LineEnds>("line_ends", "Bare CR or LF and NUL in mail data."),
    Key::new(
        "paths",
        Kind::Choice(&["lenient", "strict"]),
        "lenient",
        "lenient: dots anywhere in a local part, local parts of up to 255 bytes, _ and a final \
         dot in domains are accepted and counted; strict: refused (RFC 5321).",
    ),
    Key::new(
        "helo",
        Kind::Choice(&["lenient", "strict"]),
        "lenient",
        "lenient: any name in EHLO and HELO is accepted and recorded; strict: only a domain or an \
         address literal.",
    ),
    Key::new(
        "tls_mode",
        Kind::Choice(smtp::TlsPolicy::WORDS),
        // Without a certificate it is off all the same.
        smtp::TlsPolicy::Offered.name(),
        "starttls: offered if there is a certificate; required: no mail without it; implicit: TLS \
         from the first byte; off.",
    )
    .restart(),
    Key::new(
        "tls.cert_file",
        Kind::File,
        "",
        "Default certificate of this listener, unless the client asks for another name; \"\": \
         only that of server.tls.",
    ),
    Key::new("tls.key_file", Kind::File, "", "Its private key, PEM."),
    Key::new(
        "tls.client_ca_file",
        Kind::File,
        "",
        "Require a client certificate issued by these authorities, PEM; \"\": not requested.",
    )
    .restart(),
    Key::new(
        "tls.unknown_name",
        Kind::Choice(&["default", "reject"]),
        "default",
        "Certificate for a client that asks for an unknown name: the default one, or none.",
    )
    .restart(),
    Key::new(
        "auth.mechanisms",
        Kind::List,
        "",
        "PLAIN, LOGIN, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, EXTERNAL; only over TLS.",
    ),
    Key::new("auth.users_file", Kind::File, "", "Users file, written by `mailrace user`."),
    Key::new("auth.required", Kind::Boolean, "false", "No mail without AUTH (port 587)."),
    Key::new(
        "proxy_protocol.mode",
        Kind::Choice(&["off", "required"]),
        "off",
        "required: each connection begins with a PROXY header, version 1 or 2.",
    ),
    Key::new(
        "proxy_protocol.trusted",
        Kind::List,
        "",
        "Networks of the proxies; other connections are closed.",
    ),
    Key::new(
        "xclient.trusted",
        Kind::List,
        "",
        "Networks that may use XCLIENT and XFORWARD; []: none.",
    ),
    Key::new(
        "accept.domains",
        Kind::List,
        "",
        "Domains whose recipients are accepted: example.com, *.example.com for all subdomains; *: \
         all.",
    ),
    Key::new("accept.domains_file", Kind::File, "", "File with more domains, one per line."),
    Key::new(
        "accept.recipients_file",
        Kind::File,
        "",
        "File with the recipients in these domains, one per line; \"\": any.",
    ),
    Key::new(
        "accept.subaddress",
        Kind::Text,
        "+",
        "Delimiter, such as +: user+detail is accepted if user is; \"\": off.",
    ),
    Key::new(
        "dns.lists",
        Kind::List,
        "",
        "DNS lists with weights, such as zen.example=5, allow.example=-3; queried before the \
         greeting.",
    ),
    Key::new(
        "dns.reject_at",
        Kind::Integer { least: 1, most: 1_000_000, word: None },
        "1",
        "Sum of weights from which recipients are refused.",
    ),
    Key::new(
        "dns.deadline",
        Kind::Duration { least: 10, most: 60_000, word: None },
        "2s",
        "Longest wait for DNS; a list that has not answered by then counts as 0.",
    ),
    Key::new("dns.reverse", Kind::Boolean, "false", "Look up the client's host name."),
    Key::new(
        "verify.methods",
        Kind::List,
        "",
        "Checks of the sender: spf, dkim, dmarc, arc, iprev; []: none. The verdict follows the mail.",
    ),
    Key::new(
        "verify.mode",
        Kind::Choice(&["record"]),
        "record",
        "record: mail is accepted whatever the verdict is.",
    ),
    Key::new(
        "greet_delay",
        Kind::Duration { least: 0, most: 60_000, word: None },
        "0s",
        "Delay before the greeting; with greet_check, clients that send anything during it are \
         refused.",
    ),
    Key::new(
        "greet_check",
        Kind::Boolean,
        "false",
        "Refuse clients that send anything before the \
         greeting.",
    ),
    Key::new(
        "priority",
        Kind::Choice(&["normal", "low"]),
        "normal",
        "low: refused first, with 452, when the server is overloaded.",
    ),
    Key::new(
        "dsn",
        Kind::Boolean,
        "false",
        "Offer DSN (RFC 3461); every exporter must pass it on.",
    ),
    Key::new(
        "require_tls",
        Kind::Boolean,
        "false",
        "Offer REQUIRETLS (RFC 8689); every exporter must use verified TLS.",
    ),
    Key::new("mt_priority", Kind::Boolean, "false", "Offer MT-PRIORITY (RFC 6710)."),
];

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
