//! Keys of one `[[export]]`. A name may appear twice with different types of exporters, if these
//! differ in the values it takes or in the default.

use super::keys::Key;
use super::value::Kind;
use crate::export::{Compression, Encoding, FilesLayout, Key as PartitionKey, StoreLayout};

/// Types of exporters.
pub(super) const TYPES: &[&str] =
    &["kafka", "nats", "s3", "folder", "webhook", "lmtp", "smtp", "files", "blackhole"];

const KAFKA: &[&str] = &["kafka"];
const NATS: &[&str] = &["nats"];
const S3: &[&str] = &["s3"];
const FOLDER: &[&str] = &["folder"];
const STORES: &[&str] = &["s3", "folder"];
const WEBHOOK: &[&str] = &["webhook"];
const RELAYS: &[&str] = &["lmtp", "smtp"];
const FILES: &[&str] = &["files"];
const BROKERS: &[&str] = &["kafka", "nats"];
const WITH_USER: &[&str] = &["kafka", "nats", "webhook", "lmtp", "smtp"];
/// What is written in files or objects: few and large ones are wanted there.
const IN_FILES: &[&str] = &["s3", "folder", "files"];
const LOCAL: &[&str] = &["folder", "files"];
const BUT_FILES: &[&str] = &["kafka", "nats", "webhook", "lmtp", "smtp", "blackhole"];
const WITH_TLS: &[&str] = &["kafka", "nats", "webhook", "lmtp", "smtp"];
const BUT_RELAYS: &[&str] = &["kafka", "nats", "s3", "folder", "webhook", "files", "blackhole"];
const BUT_WEBHOOK: &[&str] =
    &["kafka", "nats", "s3", "folder", "lmtp", "smtp", "files", "blackhole"];

/// What a relay sends.
const RAW: &[&str] = &[Encoding::Raw.name()];

const HOUR: u64 = 3_600_000;
const MIB: u64 = 1 << 20;
const TIMEOUT: Kind = Kind::Duration { least: 100, most: HOUR, word: None };
const BATCH_RECORDS: Kind = Kind::Integer { least: 1, most: 100_000, word: None };
const BATCH_BYTES: Kind = Kind::Size { least: 1 << 10, most: 256 * MIB, word: None, percent: None };
const BATCH_BYTES_DOC: &str = "Mail data per batch; a larger message is sent alone.";
const BATCH_DELAY: Kind = Kind::Duration { least: 0, most: HOUR, word: None };
const AT_ONCE: Kind = Kind::Integer { least: 1, most: 64, word: None };

/// In the order of the documentation; `name` and `type` first.
pub(super) const EXPORT: &[Key] = &[
    Key::new("name", Kind::Text, "", "Unique name: metric label and name of the consumer group.")
        .needed("main"),
    Key::new("type", Kind::Choice(TYPES), "", "Where the records are sent.").needed("blackhole"),
    // kafka
    Key::new("brokers", Kind::List, "", "HOST:PORT of one or more brokers.")
        .of(KAFKA)
        .needed("127.0.0.1:9092"),
    Key::new("topic", Kind::Text, "", "Topic.").of(KAFKA).needed("mail.inbound"),
    Key::new(
        "create_partitions",
        Kind::Integer { least: 0, most: 10_000, word: None },
        "0",
        "Create a missing topic with this many partitions; 0: a missing topic is an error.",
    )
    .of(KAFKA),
    Key::choice::<Compression>("compression", "Compression for record batches.").of(KAFKA),
    // nats
    Key::new("servers", Kind::List, "", "nats://HOST:PORT of one or more servers.")
        .of(NATS)
        .needed("nats://127.0.0.1:4222"),
    Key::new("stream", Kind::Text, "MAIL", "JetStream stream.").of(NATS),
    Key::new(
        "create",
        Kind::Boolean,
        "true",
        "Create a missing stream; otherwise a missing \
         stream is an error.",
    )
    .of(NATS),
    Key::new(
        "replicas",
        Kind::Integer { least: 1, most: 5, word: None },
        "1",
        "Replicas of a stream that is created.",
    )
    .of(NATS),
    Key::new(
        "subject",
        Kind::Text,
        "mail.{listener}.{rcpt_domain}",
        "Subject; {listener}, {rcpt_domain} and {shard} are replaced, with dots in them as _.",
    )
    .of(NATS),
    // s3, folder
    Key::new("bucket", Kind::Text, "", "Bucket.").of(S3).needed("mail"),
    Key::new(
        "endpoint",
        Kind::Text,
        "",
        "http(s)://HOST[:PORT]; \"\": Amazon's endpoint for the \
         region.",
    )
    .of(S3),
    Key::new("region", Kind::Text, "us-east-1", "Region.").of(S3),
    Key::new(
        "access_key",
        Kind::Text,
        "",
        "Access key id; \"\": from the environment or the \
         machine's role.",
    )
    .of(S3),
    Key::new("secret_key_file", Kind::File, "", "File with the secret key.").of(S3),
    Key::new("dir", Kind::Text, "", "Folder.").of(FOLDER).needed("./mailrace-export"),
    Key::new("prefix", Kind::Text, "", "Prefix of each object's name.").of(STORES),
    Key::choice::<StoreLayout>(
        "layout",
        "Content of an object: eml: one message; jsonl: a batch of events; parquet: a table.",
    )
    .of(STORES),
    Key::new("requests", AT_ONCE, "8", "Concurrent requests.").of(STORES),
    // webhook
    Key::new("url", Kind::Text, "", "http(s)://...").of(WEBHOOK).needed("http://127.0.0.1:8080/"),
    Key::new("secret_file", Kind::File, "", "File with the signing secret; \"\": not signed.")
        .of(WEBHOOK),
    Key::new("token_file", Kind::File, "", "File with a bearer token.").of(WEBHOOK),
    Key::new(
        "requests",
        AT_ONCE,
        "1",
        "Concurrent requests; with more than 1, records may arrive \
         out of order.",
    )
    .of(WEBHOOK),
    // lmtp, smtp
    Key::new("server", Kind::Text, "", "HOST:PORT, or the path of a unix socket.")
        .of(RELAYS)
        .needed("127.0.0.1:24"),
    Key::new("helo", Kind::Text, "", "Name sent in EHLO or LHLO; \"\": server.hostname.")
        .of(RELAYS),
    Key::new("connections", AT_ONCE, "4", "Connections.").of(RELAYS),
    Key::new(
        "starttls",
        Kind::Boolean,
        "false",
        "Use STARTTLS; if the server does not offer it, \
         nothing is sent.",
    )
    .of(RELAYS),
    Key::new("implicit_tls", Kind::Boolean, "false", "TLS from the first byte.").of(RELAYS),
    Key::new(
        "return_path",
        Kind::Boolean,
        "false",
        "Prepend Return-Path, for a server that does not add it itself.",
    )
    .of(&["lmtp"]),
    // files
    Key::new("dir", Kind::Text, "", "Folder.").of(FILES).needed("./mailrace-export"),
    Key::choice::<FilesLayout>("layout", "Format of the files.").of(FILES),
    Key::new(
        "trace",
        Kind::Boolean,
        "true",
        "eml, maildir, mbox: prepend Return-Path, X-Mailrace-Id and Received to each mail, and \
         remove earlier Return-Path fields; false: mail data exactly as received.",
    )
    .of(FILES),
    // Of several types.
    Key::new(
        "mode",
        Kind::Text,
        "0600",
        "Mode of each file, in octal; new directories also get x for each r.",
    )
    .of(LOCAL),
    Key::new("user", Kind::Text, "", "User; \"\": none.").of(WITH_USER),
    Key::new("password_file", Kind::File, "", "File with the password (nats: or token).")
        .of(WITH_USER),
    Key::new("credentials_file", Kind::File, "", "NATS credentials file.").of(NATS),
    Key::new("tls.enabled", Kind::Boolean, "false", "Use TLS.").of(BROKERS),
    Key::new(
        "tls.ca_file",
        Kind::File,
        "",
        "Trusted certificate authorities, PEM; \"\": the \
         system's.",
    )
    .of(WITH_TLS),
    Key::new("tls.cert_file", Kind::File, "", "Client certificate, PEM.").of(WITH_TLS),
    Key::new("tls.key_file", Kind::File, "", "Its private key, PEM.").of(WITH_TLS),
    // Of all.
    Key::choice::<Encoding>(
        "encoding",
        "A CloudEvent as json or protobuf, or the mail data itself (raw).",
    )
    .of(BUT_RELAYS),
    Key::new("encoding", Kind::Choice(RAW), Encoding::Raw.name(), "The mail data itself.")
        .of(RELAYS),
    Key::new(
        "inline_max",
        Kind::Size { least: 0, most: 1024 * MIB, word: None, percent: None },
        "512KiB",
        "Larger mail data is sent by reference.",
    ),
    Key::new(
        "reference_url",
        Kind::Text,
        "",
        "URL before /v1/messages/ID/raw in references; \"\": server.admin.listen.",
    ),
    Key::new("digest", Kind::Choice(&["", "sha256"]), "", "Add the SHA-256 of the mail data."),
    Key::choice::<PartitionKey>(
        "key",
        "Partition key; rcpt_domain is the domain of the first recipient.",
    ),
    Key::new(
        "start",
        Kind::Text,
        "committed",
        "Where to start if no offset is committed: committed, start, end or @TIME.",
    ),
    Key::new("batch.records", BATCH_RECORDS, "500", "Records per batch.").of(BUT_FILES),
    Key::new("batch.records", BATCH_RECORDS, "100000", "Records per batch.").of(IN_FILES),
    Key::new("batch.bytes", BATCH_BYTES, "1MiB", BATCH_BYTES_DOC).of(BUT_FILES),
    Key::new("batch.bytes", BATCH_BYTES, "64MiB", BATCH_BYTES_DOC).of(IN_FILES),
    Key::new("batch.delay", BATCH_DELAY, "20ms", "How long a batch waits for more records.")
        .of(BUT_FILES),
    Key::new(
        "batch.delay",
        BATCH_DELAY,
        "5m",
        "How long a batch waits for more records; unless set, only 20ms for the eml and maildir \
         layouts.",
    )
    .of(IN_FILES)
    // A file of its own for each message: waiting would make none of them fewer.
    .with_layout(&["eml", "maildir"], "20ms"),
    Key::new(
        "retry.initial",
        Kind::Duration { least: 1, most: HOUR, word: None },
        "500ms",
        "Delay before the first retry, doubled for each further one.",
    ),
    Key::new(
        "retry.max",
        Kind::Duration { least: 1, most: 24 * HOUR, word: None },
        "5m",
        "Longest delay between retries.",
    ),
    Key::new(
        "retry.give_up_after",
        Kind::Duration { least: 1_000, most: 365 * 24 * HOUR, word: Some("never") },
        "never",
        "A record not delivered within this time goes to the dead-letter queue.",
    ),
    Key::new(
        "in_flight",
        AT_ONCE,
        "1",
        "Concurrent batches per shard; with more than 1, records \
         may arrive out of order.",
    ),
    Key::new("timeout", TIMEOUT, "30s", "Timeout of one attempt.").of(BUT_WEBHOOK),
    Key::new("timeout", TIMEOUT, "15s", "Timeout of one attempt.").of(WEBHOOK),
    Key::new("filter.listener", Kind::List, "", "Only mail from these listeners; []: all."),
    Key::new(
        "filter.rcpt_domain",
        Kind::List,
        "",
        "Only mail to a recipient in these domains; \
         []: all.",
    ),
    Key::new(
        "filter.from_domain",
        Kind::List,
        "",
        "Only mail from a sender in these domains; []: \
         all.",
    ),
    Key::new(
        "filter.spf",
        Kind::List,
        "",
        "Only mail whose SPF check of MAIL FROM or HELO has one of these words, such as fail; []: all.",
    ),
    Key::new(
        "filter.dkim",
        Kind::List,
        "",
        "Only mail that has a DKIM signature with one of these words; []: all.",
    ),
    Key::new(
        "filter.dmarc",
        Kind::List,
        "",
        "Only mail whose DMARC check has one of these words; []: all.",
    ),
    Key::new(
        "wait_verdict",
        Kind::Duration { least: 0, most: 3_600_000, word: Some("off") },
        "off",
        "Join the verdict on the sender, and wait this long for it after the mail was received; \
         off: do not look for it. Where a listener has verify.mode = \"tag\", the default is 5s.",
    ),
    Key::new(
        "replay_rate",
        Kind::Rate,
        "",
        "Rate at which records are redelivered after a seek, such as 1000/s; \"\": no limit.",
    ),
];
