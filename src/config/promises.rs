//! What a listener offers that exporters have to keep: EHLO promises a sender that its DSN
//! parameters are passed on (RFC 3461 §4), or that its mail travels under TLS only (RFC 8689 §2).

use super::ListenerConfig;
use super::raw::Settings;
use crate::export::{
    Encoding, ExportOptions, FilesLayout, SinkOptions, StoreLayout, StoreOptions, StorePlace,
};

/// Notes each promise of a listener that an exporter would break.
pub(super) fn check(s: &mut Settings, listeners: &[ListenerConfig], exports: &[ExportOptions]) {
    for (index, listener) in listeners.iter().enumerate() {
        let mut blame = |field: &str, message: String| {
            s.blame(&format!("listener.{index}.{field}"), message);
        };
        for export in exports.iter().filter(|export| concerns(export, listener)) {
            if let Some(why) = loses_parameters(export).filter(|_| listener.dsn) {
                let message = format!(
                    "exporter {:?} does not pass DSN parameters on: {why}; relays, json and \
                     protobuf do",
                    export.name
                );
                blame("dsn", message);
            }
            if let Some(cure) = lacks_tls(export).filter(|_| listener.require_tls) {
                let message = format!(
                    "exporter {:?} sends without verified TLS: it needs {cure}",
                    export.name
                );
                blame("require_tls", message);
            }
        }
    }
}

/// Whether mail of this listener goes there.
pub(super) fn concerns(export: &ExportOptions, listener: &ListenerConfig) -> bool {
    let only = &export.filter.listener;
    only.is_empty() || only.contains(&listener.name)
}

/// Why what goes there comes without the parameters.
fn loses_parameters(export: &ExportOptions) -> Option<&'static str> {
    match &export.sink {
        SinkOptions::Relay(_) => None,
        SinkOptions::Kafka(_) | SinkOptions::Nats(_) | SinkOptions::Webhook(_) => {
            (export.document.encoding == Encoding::Raw)
                .then_some("encoding = \"raw\" is the mail data alone")
        }
        SinkOptions::Store(StoreOptions { layout: StoreLayout::Jsonl, .. }) => None,
        SinkOptions::Files(files) if files.layout == FilesLayout::Jsonl => None,
        SinkOptions::Store(_) | SinkOptions::Files(_) => Some("its layout is not \"jsonl\""),
        SinkOptions::Blackhole => Some("it discards everything"),
    }
}

/// What it lacks so that mail leaves the machine under TLS with a verified peer only.
fn lacks_tls(export: &ExportOptions) -> Option<&'static str> {
    let (tls, cure) = match &export.sink {
        SinkOptions::Relay(relay) => (relay.tls.enabled, "starttls or implicit_tls"),
        SinkOptions::Webhook(webhook) => (webhook.tls.enabled, "an https URL"),
        SinkOptions::Nats(nats) => (nats.tls.enabled, "tls.enabled"),
        SinkOptions::Kafka(kafka) => (kafka.tls.enabled, "tls.enabled"),
        SinkOptions::Store(store) => match &store.place {
            StorePlace::S3 { endpoint, .. } => {
                // Amazon's own, where it is empty.
                (endpoint.is_empty() || endpoint.starts_with("https:"), "an https endpoint")
            }
            StorePlace::Folder(_) => return None,
        },
        SinkOptions::Files(_) | SinkOptions::Blackhole => return None,
    };
    (!tls).then_some(cure)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{from_text, wrong};

    /// A listener that offers `offer` and an exporter of these keys.
    fn text(offer: &str, export: &str) -> String {
        format!("[[listener]]\n{offer} = true\n[[export]]\nname = \"out\"\n{export}\n")
    }

    const KAFKA: &str = "type = \"kafka\"\nbrokers = [\"a:1\"]\ntopic = \"t\"\n";
    const NATS: &str = "type = \"nats\"\nservers = [\"nats://a:1\"]\n";
    const S3: &str = "type = \"s3\"\nbucket = \"abc\"\nregion = \"r\"\n";

    #[test]
    fn dsn_wants_exporters_that_keep_the_parameters() {
        let kept = [
            "type = \"smtp\"\nserver = \"a:25\"".to_owned(),
            "type = \"lmtp\"\nserver = \"/run/lmtp\"".to_owned(),
            format!("{KAFKA}encoding = \"protobuf\""),
            NATS.to_owned(),
            "type = \"webhook\"\nurl = \"http://a/\"".to_owned(),
            "type = \"files\"\ndir = \"/d\"\nlayout = \"jsonl\"".to_owned(),
            "type = \"folder\"\ndir = \"/d\"\nlayout = \"jsonl\"".to_owned(),
            format!("{KAFKA}encoding = \"raw\"\nfilter.listener = [\"other\"]"),
        ];
        let other = "[[listener]]\nname = \"other\"\nlisten = [\"127.0.0.1:1\"]\n";
        for export in kept {
            from_text(&(text("dsn", &export) + other)).expect(&export);
        }
        let lost = [
            (format!("{KAFKA}encoding = \"raw\""), "encoding = \"raw\" is the mail data alone"),
            ("type = \"files\"\ndir = \"/d\"".to_owned(), "its layout is not \"jsonl\""),
            (format!("{S3}layout = \"parquet\""), "its layout is not \"jsonl\""),
            ("type = \"blackhole\"".to_owned(), "it discards everything"),
        ];
        for (export, why) in lost {
            let told = format!(
                "listener.0.dsn (m.toml:2): exporter \"out\" does not pass DSN parameters on: \
                 {why}; relays, json and protobuf do"
            );
            wrong(&text("dsn", &export), &[&told]);
            from_text(&text("mt_priority", &export)).expect("nothing was promised");
        }
    }

    #[test]
    fn require_tls_wants_exporters_under_verified_tls() {
        let under_tls = [
            "type = \"smtp\"\nserver = \"a:25\"\nstarttls = true".to_owned(),
            "type = \"lmtp\"\nserver = \"a:24\"\nimplicit_tls = true".to_owned(),
            format!("{KAFKA}tls.enabled = true"),
            format!("{NATS}tls.enabled = true"),
            "type = \"webhook\"\nurl = \"https://a/\"".to_owned(),
            S3.to_owned(),
            format!("{S3}endpoint = \"https://a\""),
            "type = \"files\"\ndir = \"/d\"".to_owned(),
            "type = \"folder\"\ndir = \"/d\"".to_owned(),
            "type = \"blackhole\"".to_owned(),
        ];
        for export in under_tls {
            from_text(&text("require_tls", &export)).expect(&export);
        }
        let clear = [
            ("type = \"smtp\"\nserver = \"a:25\"".to_owned(), "starttls or implicit_tls"),
            (KAFKA.to_owned(), "tls.enabled"),
            (NATS.to_owned(), "tls.enabled"),
            ("type = \"webhook\"\nurl = \"http://a/\"".to_owned(), "an https URL"),
            (format!("{S3}endpoint = \"http://a\""), "an https endpoint"),
        ];
        for (export, cure) in clear {
            let told = format!(
                "listener.0.require_tls (m.toml:2): exporter \"out\" sends without verified TLS: it \
                 needs {cure}"
            );
            wrong(&text("require_tls", &export), &[&told]);
        }
    }
}
