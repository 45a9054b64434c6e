//! `[[export]]`: from settings to the options of the export room.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::raw::{Origin, Settings};
use super::value::Choice;
use super::{address, units};
use crate::export::{
    self, BatchOptions, DocumentOptions, Encoding, ExportOptions, FileMode, FilesOptions, Filter,
    KafkaOptions, NatsOptions, RelayOptions, RetryOptions, SinkOptions, Start, StoreOptions,
    StorePlace, TlsOptions, WebhookOptions,
};
use crate::log::{self, AuthWord};

/// What exporters refer to in the rest of the configuration.
pub(super) struct Context<'a> {
    pub(super) hostname: &'a str,
    pub(super) admin: Option<SocketAddr>,
    pub(super) listeners: Vec<&'a str>,
    /// A listener's mail is tagged with its verdict.
    pub(super) tags: bool,
}

/// Mail that is to be tagged waits so long for its verdict, where nothing else is said.
const TAG_WAIT: Duration = Duration::from_secs(5);

/// All exporters; mistakes are noted in `settings`.
pub(super) fn exports(settings: &mut Settings, context: &Context<'_>) -> Vec<ExportOptions> {
    let mut exports: Vec<ExportOptions> = Vec::new();
    for index in 0..settings.export_count() {
        let mut table = Table { settings, prefix: format!("export.{index}.") };
        let name = table.parse("name", group_name);
        if exports.iter().any(|earlier| earlier.name == name && !name.is_empty()) {
            table.blame("name", "another exporter has this name");
        }
        let kind = table.choice("type");
        // Without a type nobody knows what the other keys mean; that was told.
        if !kind.is_empty() {
            exports.push(table.export(name, kind, context));
        }
    }
    exports
}

/// One `[[export]]`.
struct Table<'a> {
    settings: &'a mut Settings,
    prefix: String,
}

impl Table<'_> {
    fn export(&mut self, name: String, kind: &str, context: &Context<'_>) -> ExportOptions {
        let sink = match kind {
            "kafka" => SinkOptions::Kafka(self.kafka()),
            "nats" => SinkOptions::Nats(self.nats()),
            "s3" | "folder" => SinkOptions::Store(self.store(kind)),
            "webhook" => SinkOptions::Webhook(self.webhook()),
            "lmtp" | "smtp" => SinkOptions::Relay(self.relay(kind, context.hostname)),
            "files" => SinkOptions::Files(self.files(context.hostname)),
            _ => SinkOptions::Blackhole,
        };
        if let Some(why) = sink.left_out() {
            self.blame("type", &why);
        }
        let retry = RetryOptions {
            initial: self.time("retry.initial"),
            max: self.time("retry.max"),
            give_up_after: self.settings.duration(&self.key("retry.give_up_after")),
        };
        // Zero is no value of it, but what stands in for a mistake.
        if retry.max < retry.initial && !retry.max.is_zero() {
            self.blame("retry.max", "is less than retry.initial");
        }
        let unsaid = self.settings.origin(&self.key("wait_verdict")) == Origin::Default;
        let wait_verdict = match context.tags && unsaid {
            true => Some(TAG_WAIT),
            false => self.settings.duration(&self.key("wait_verdict")),
        };
        ExportOptions {
            name,
            document: self.document(&sink, context),
            sink,
            start: self.parse("start", |text| start(text).map(Some)).unwrap_or(Start::Committed),
            batch: BatchOptions {
                records: self.number("batch.records"),
                bytes: self.size("batch.bytes"),
                delay: self.time("batch.delay"),
            },
            retry,
            in_flight: self.number("in_flight"),
            timeout: self.time("timeout"),
            filter: Filter {
                listener: self.list("filter.listener", |name| {
                    if context.listeners.contains(&name) || context.listeners.contains(&"") {
                        return Ok(name.to_owned());
                    }
                    Err(format!("no listener is named {name:?}: {}", context.listeners.join(", ")))
                }),
                rcpt_domain: self.list("filter.rcpt_domain", address::domain),
                from_domain: self.list("filter.from_domain", address::domain),
                auth: self.auth_filter(wait_verdict.is_some()),
            },
            wait_verdict,
            replay_rate: self.settings.rate(&self.key("replay_rate")),
        }
    }

    /// Words by method. Who asks for a verdict has to wait for it.
    fn auth_filter(&mut self, waits: bool) -> Vec<(&'static str, Vec<AuthWord>)> {
        let mut wanted = Vec::new();
        for (key, method) in
            [("filter.spf", "spf"), ("filter.dkim", "dkim"), ("filter.dmarc", "dmarc")]
        {
            let words = self.settings.list(&self.key(key), |text| {
                let known = AuthWord::ALL.into_iter().find(|known| known.name() == text);
                let all = AuthWord::ALL.map(AuthWord::name).join(", ");
                known.ok_or_else(|| format!("{text:?} is not one of {all}"))
            });
            if words.is_empty() {
                continue;
            }
            if !waits {
                self.blame(key, "requires wait_verdict as well");
            }
            wanted.push((method, words));
        }
        wanted
    }

    fn document(&mut self, sink: &SinkOptions, context: &Context<'_>) -> DocumentOptions {
        let encoding: Encoding = self.choose("encoding");
        let written = self.parse("reference_url", |text| match text {
            "" => Ok(String::new()),
            _ => address::base_url(text),
        });
        let refers = encoding != Encoding::Raw && !matches!(sink, SinkOptions::Blackhole);
        if written.is_empty() && context.admin.is_none() && refers {
            let message = "is needed if server.admin.listen is off: mail data larger than \
                           inline_max is sent by reference";
            self.blame("reference_url", message);
        }
        DocumentOptions {
            encoding,
            inline_max: self.size("inline_max"),
            reference_url: match written.as_str() {
                "" => export::reference_url(context.admin),
                _ => written,
            },
            sha256: self.choice("digest") == "sha256",
            key: self.choose("key"),
        }
    }

    fn kafka(&mut self) -> KafkaOptions {
        let (user, password_file) = self.login(true);
        KafkaOptions {
            brokers: self.list("brokers", address::host_port),
            topic: self.parse("topic", address::topic),
            create_partitions: i32::try_from(self.number("create_partitions")).unwrap_or(0),
            compression: self.choose("compression"),
            user,
            password_file,
            tls: self.switched_tls(),
        }
    }

    fn nats(&mut self) -> NatsOptions {
        // A password without a user is a token.
        let (user, password_file) = self.login(false);
        let credentials_file = self.file("credentials_file");
        if self.has("credentials_file") && self.has("password_file") {
            self.blame("credentials_file", "password_file is set as well: use only one of them");
        }
        NatsOptions {
            servers: self.list("servers", address::nats_server),
            stream: self.parse("stream", address::stream),
            create: self.settings.boolean(&self.key("create")),
            replicas: self.number("replicas"),
            subject: self.parse("subject", address::subject),
            user,
            password_file,
            credentials_file,
            tls: self.switched_tls(),
        }
    }

    fn store(&mut self, kind: &str) -> StoreOptions {
        let place = if kind == "folder" {
            StorePlace::Folder(PathBuf::from(self.text("dir")))
        } else {
            let access_key = self.text("access_key");
            let secret_key_file = self.file("secret_key_file");
            self.needs("secret_key_file", "access_key");
            self.needs("access_key", "secret_key_file");
            StorePlace::S3 {
                bucket: self.parse("bucket", address::bucket),
                endpoint: self.parse("endpoint", |text| match text {
                    "" => Ok(String::new()),
                    _ => address::base_url(text),
                }),
                region: self.parse("region", |text| match text {
                    "" => Err("a region is needed, such as us-east-1".to_owned()),
                    _ => Ok(text.to_owned()),
                }),
                access_key,
                secret_key_file,
            }
        };
        let mode = if kind == "folder" {
            self.parse("mode", FileMode::parse)
        } else {
            FileMode::default()
        };
        StoreOptions {
            place,
            mode,
            prefix: self.parse("prefix", address::prefix),
            layout: self.choose("layout"),
            requests: self.number("requests"),
        }
    }

    fn webhook(&mut self) -> WebhookOptions {
        let url = self.parse("url", address::url);
        // An empty one stands in for a mistake.
        let enabled = url.starts_with("https:") || url.is_empty();
        let (user, password_file) = self.login(true);
        if user.contains(':') {
            self.blame(
                "user",
                "contains a colon, which a user name of HTTP Basic authentication \
                                cannot have (RFC 7617)",
            );
        }
        if self.has("token_file") && self.has("password_file") {
            self.blame("token_file", "password_file is set as well: use only one of them");
        }
        WebhookOptions {
            user,
            password_file,
            secret_file: self.file("secret_file"),
            token_file: self.file("token_file"),
            requests: self.number("requests"),
            tls: self.tls(enabled, "the URL is not https"),
            url,
        }
    }

    fn relay(&mut self, kind: &str, hostname: &str) -> RelayOptions {
        let starttls = self.settings.boolean(&self.key("starttls"));
        let implicit_tls = self.settings.boolean(&self.key("implicit_tls"));
        if starttls && implicit_tls {
            self.blame("implicit_tls", "starttls is set as well: use only one of them");
        }
        let (user, password_file) = self.login(true);
        if !user.is_empty() && !starttls && !implicit_tls {
            // RFC 4954 §4: PLAIN is for encrypted connections.
            self.blame("user", "is sent only over TLS: starttls or implicit_tls is needed");
        }
        let tls = self.tls(starttls || implicit_tls, "neither starttls nor implicit_tls is on");
        RelayOptions {
            lmtp: kind == "lmtp",
            return_path: kind == "lmtp" && self.settings.boolean(&self.key("return_path")),
            by: hostname.to_owned(),
            server: self.parse("server", address::relay_server),
            helo: self.parse("helo", |text| match text {
                "" => Ok(hostname.to_owned()),
                _ => units::hostname(text),
            }),
            connections: self.number("connections"),
            tls,
            implicit_tls,
            user,
            password_file,
        }
    }

    fn files(&mut self, hostname: &str) -> FilesOptions {
        FilesOptions {
            dir: PathBuf::from(self.text("dir")),
            mode: self.parse("mode", FileMode::parse),
            trace: self.settings.boolean(&self.key("trace")).then(|| hostname.to_owned()),
            layout: self.choose("layout"),
        }
    }

    fn login(&mut self, needs_user: bool) -> (String, Option<PathBuf>) {
        let user = self.text("user");
        let password_file = self.file("password_file");
        self.needs("user", "password_file");
        if needs_user {
            self.needs("password_file", "user");
        }
        (user, password_file)
    }

    fn switched_tls(&mut self) -> TlsOptions {
        let enabled = self.settings.boolean(&self.key("tls.enabled"));
        self.tls(enabled, "tls.enabled is not true")
    }

    /// Files that would not be used are a mistake: the mail would travel in the clear.
    fn tls(&mut self, enabled: bool, why_not: &str) -> TlsOptions {
        let [ca_file, cert_file, key_file] =
            ["tls.ca_file", "tls.cert_file", "tls.key_file"].map(|field| {
                if self.has(field) && !enabled {
                    self.blame(field, &format!("TLS is not used: {why_not}"));
                }
                self.file(field)
            });
        self.needs("tls.cert_file", "tls.key_file");
        self.needs("tls.key_file", "tls.cert_file");
        TlsOptions { enabled, ca_file, cert_file, key_file }
    }

    /// Whether something was written there, right or wrong.
    fn has(&self, field: &str) -> bool {
        self.settings.is_written(&self.key(field))
    }

    /// Of two keys that make sense together only.
    fn needs(&mut self, field: &str, other: &str) {
        if self.has(field) && !self.has(other) {
            self.blame(field, &format!("requires {other} as well"));
        }
    }

    fn key(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    fn blame(&mut self, field: &str, message: &str) {
        self.settings.blame(&self.key(field), message.to_owned());
    }

    fn parse<T: Default>(
        &mut self,
        field: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.settings.parse(&self.key(field), parse)
    }

    fn list(&mut self, field: &str, parse: impl Fn(&str) -> Result<String, String>) -> Vec<String> {
        self.settings.list(&self.key(field), parse)
    }

    fn text(&mut self, field: &str) -> String {
        self.settings.text(&self.key(field))
    }

    fn choice(&mut self, field: &str) -> &'static str {
        self.settings.choice(&self.key(field))
    }

    fn choose<T: Choice>(&mut self, field: &str) -> T {
        self.settings.choose(&self.key(field))
    }

    fn file(&mut self, field: &str) -> Option<PathBuf> {
        self.settings.file(&self.key(field))
    }

    /// Of keys without a word in place of a number.
    fn number(&mut self, field: &str) -> usize {
        self.settings.integer(&self.key(field)).unwrap_or_default()
    }

    fn size(&mut self, field: &str) -> u64 {
        self.settings.size(&self.key(field)).unwrap_or_default()
    }

    fn time(&mut self, field: &str) -> Duration {
        self.settings.duration(&self.key(field)).unwrap_or_default()
    }
}

/// It becomes a folder's name, too.
fn group_name(text: &str) -> Result<String, String> {
    if text.starts_with('.') {
        return Err(format!("{text:?} starts with a dot"));
    }
    units::label(text)
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "committed" => return Ok(Start::Committed),
        "start" => return Ok(Start::Start),
        "end" => return Ok(Start::End),
        _ => {}
    }
    let range = text.parse::<log::Range>().ok().filter(|range| range.to.is_none());
    let time = range.and_then(|range| range.from.time(log::unix_micros()));
    time.map(Start::Time).ok_or_else(|| {
        format!(
            "{text:?} is not one of committed, start, end or a time such as @2026-11-22 or @-1h"
        )
    })
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
