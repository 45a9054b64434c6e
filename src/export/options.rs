//! Options of an exporter. `config` fills these from `[[export]]` tables, tests by hand.
//!
//! Secrets are read from their files when the exporter starts, so that the next start uses a
//! changed one and none is held in the configuration.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use mailrace_log::AuthWord;
use mailrace_tls::TlsOptions;

/// One `[[export]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Its name, also that of its consumer group; unique.
    pub name: String,
    /// Where the records go.
    pub sink: SinkOptions,
    /// What a record looks like there.
    pub document: DocumentOptions,
    /// Where an exporter without a committed offset begins, or that this start moves it.
    pub start: Start,
    /// How much goes at once.
    pub batch: BatchOptions,
    /// What happens when the sink does not take it.
    pub retry: RetryOptions,
    /// Batches of one shard that are under way at once, 1 to 64. With more than 1 the order within a
    /// shard (D13) is that of the attempts, not of the successes.
    pub in_flight: usize,
    /// Longest that one attempt may take.
    pub timeout: Duration,
    /// Which records are exported; the others are skipped and count as exported.
    pub filter: Filter,
    /// How long a record waits for its verdict, from when it was received; `None`: verdicts are not
    /// looked for.
    pub wait_verdict: Option<Duration>,
    /// Records a second while records are sent again after a seek (replay); `None`: no limit.
    pub replay_rate: Option<u32>,
}

/// `type` of an exporter, with what is particular to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkOptions {
    /// `nats`
    Nats(NatsOptions),
    /// `kafka`
    Kafka(KafkaOptions),
    /// `s3`, and `folder` for a local one.
    Store(StoreOptions),
    /// `webhook`
    Webhook(WebhookOptions),
    /// `lmtp` and `smtp`
    Relay(RelayOptions),
    /// `files`
    Files(FilesOptions),
    /// `blackhole`: takes all and keeps nothing, for measuring.
    Blackhole,
}

impl SinkOptions {
    /// Why this program cannot have the sink: its feature was left out when it was compiled.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        let (feature, is_compiled) = match self {
            Self::Nats(_) => ("nats", cfg!(feature = "nats")),
            Self::Kafka(_) => ("kafka", cfg!(feature = "kafka")),
            Self::Store(_) => ("store", cfg!(feature = "store")),
            Self::Webhook(_) => ("webhook", cfg!(feature = "webhook")),
            Self::Relay(_) => ("relay", cfg!(feature = "relay")),
            Self::Files(_) => ("files", cfg!(feature = "files")),
            Self::Blackhole => return None,
        };
        (!is_compiled).then(|| {
            format!("was left out of this program: compile it with the feature \"{feature}\"")
        })
    }
}

/// How a record becomes octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentOptions {
    /// `encoding`
    pub encoding: Encoding,
    /// Largest mail data that is part of the document; larger is passed by reference (claim check).
    pub inline_max: u64,
    /// In front of `/v1/messages/<id>/raw` in a reference; the admin listener's address as consumers
    /// reach it. No `/` at the end.
    pub reference_url: String,
    /// `digest = "sha256"`: the document contains the mail data's SHA-256.
    pub sha256: bool,
    /// `key`: what decides the partition.
    pub key: Key,
}

/// `encoding` of an exporter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// A CloudEvent in JSON.
    #[default]
    Json,
    /// The same in protobuf.
    Protobuf,
    /// The mail data itself, its envelope in headers.
    Raw,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Protobuf, Self::Raw];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Raw => "raw",
        }
    }
}

/// What decides the partition, or the order within one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// No key.
    None,
    /// First forward-path.
    Rcpt,
    /// Its domain, in lower case.
    #[default]
    RcptDomain,
    /// Reverse-path.
    MailFrom,
    /// The record's id.
    Id,
}

impl Key {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Rcpt, Self::RcptDomain, Self::MailFrom, Self::Id];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rcpt => "rcpt",
            Self::RcptDomain => "rcpt_domain",
            Self::MailFrom => "mail_from",
            Self::Id => "id",
        }
    }
}

/// Where an exporter begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At its committed offset; at the log start where there is none.
    Committed,
    /// As `Committed`, but at the log start of now where there is none.
    Start,
    /// As `Committed`, but at the log end where there is none.
    End,
    /// As `Committed`, but at this time (microseconds since 1970) where there is none.
    Time(i64),
}

/// `batch` of an exporter: whichever is reached first sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Records, 1 to 100,000.
    pub records: usize,
    /// Octets of mail data; a larger record goes alone.
    pub bytes: u64,
    /// How long a batch waits for more.
    pub delay: Duration,
}

/// `retry` of an exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// Wait before the second attempt; doubled each time, with jitter.
    pub initial: Duration,
    /// Longest wait.
    pub max: Duration,
    /// After this long a record becomes a dead letter; `None`: never.
    pub give_up_after: Option<Duration>,
}

/// Which records are meant; an empty list means any. Domains in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Names of listeners.
    pub listener: Vec<String>,
    /// Domains of forward-paths: one is enough.
    pub rcpt_domain: Vec<String>,
    /// Domains of the reverse-path.
    pub from_domain: Vec<String>,
    /// Words of a verdict, by method: each method that has some needs one of them. Without a verdict
    /// a record has none of them.
    pub auth: Vec<(&'static str, Vec<AuthWord>)>,
}

/// `nats`: JetStream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsOptions {
    /// `nats://HOST:PORT`, at least one.
    pub servers: Vec<String>,
    /// Name of the stream.
    pub stream: String,
    /// Create a missing stream; otherwise that is an error.
    pub create: bool,
    /// Copies of the stream that is made.
    pub replicas: usize,
    /// Subject with `{listener}`, `{rcpt_domain}`, `{shard}`; dots of a value become `_`.
    pub subject: String,
    /// User.
    pub user: String,
    /// File with the password, or with a token if there is no user.
    pub password_file: Option<PathBuf>,
    /// NATS credentials file.
    pub credentials_file: Option<PathBuf>,
    /// TLS.
    pub tls: TlsOptions,
}

/// `kafka`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `HOST:PORT`, at least one.
    pub brokers: Vec<String>,
    /// Topic.
    pub topic: String,
    /// Create a missing topic with this many partitions; 0: that is an error.
    pub create_partitions: i32,
    /// `none`, `gzip`, `lz4`, `snappy`.
    pub compression: Compression,
    /// SASL PLAIN user; empty: none.
    pub user: String,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// TLS.
    pub tls: TlsOptions,
}

/// Of record batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// gzip
    Gzip,
    /// LZ4
    Lz4,
    /// Snappy
    Snappy,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Gzip, Self::Lz4, Self::Snappy];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
        }
    }
}

/// `s3`, or `folder`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Where the bucket is.
    pub place: StorePlace,
    /// In front of each object's name.
    pub prefix: String,
    /// What an object holds.
    pub layout: StoreLayout,
    /// Requests under way at once, 1 to 64.
    pub requests: usize,
    /// Of the files in a local folder.
    pub mode: FileMode,
}

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// A local folder.
    Folder(PathBuf),
    /// S3.
    S3 {
        /// Bucket.
        bucket: String,
        /// `http(s)://HOST[:PORT]`; empty: Amazon's of the region.
        endpoint: String,
        /// Region.
        region: String,
        /// Access key id; empty: from the environment or the machine's role.
        access_key: String,
        /// File with the secret key.
        secret_key_file: Option<PathBuf>,
    },
}

/// What an object holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreLayout {
    /// One message, as `<id>.eml`.
    Eml,
    /// A batch of CloudEvents, one a line.
    #[default]
    Jsonl,
    /// A batch, as a Parquet table.
    Parquet,
}

impl StoreLayout {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Eml, Self::Jsonl, Self::Parquet];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eml => "eml",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }
}

/// `webhook`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookOptions {
    /// `http(s)://…`
    pub url: String,
    /// File with the signing secret (`whsec_…` or plain); none: requests are not signed.
    pub secret_file: Option<PathBuf>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// User of Basic authentication (RFC 7617); empty: none.
    pub user: String,
    /// File with its password.
    pub password_file: Option<PathBuf>,
    /// Requests under way at once, 1 to 64; with more than 1 the order is that of the attempts.
    pub requests: usize,
    /// TLS; `enabled` follows the URL.
    pub tls: TlsOptions,
}

/// `lmtp` and `smtp`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayOptions {
    /// RFC 2033 instead of RFC 5321.
    pub lmtp: bool,
    /// `HOST:PORT`, or the path of a unix socket: that has a `/`.
    pub server: String,
    /// What this side calls itself.
    pub helo: String,
    /// The server's name in the Received field (`server.hostname`).
    pub by: String,
    /// LMTP: write Return-Path, for a server that does not.
    pub return_path: bool,
    /// Connections, 1 to 64.
    pub connections: usize,
    /// `enabled`: TLS is used, and what does not offer it gets nothing. By STARTTLS, unless
    /// `implicit_tls`.
    pub tls: TlsOptions,
    /// TLS from the first octet on.
    pub implicit_tls: bool,
    /// AUTH PLAIN user, under TLS only; empty: none.
    pub user: String,
    /// File with the password.
    pub password_file: Option<PathBuf>,
}

/// `files`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesOptions {
    /// Folder.
    pub dir: PathBuf,
    /// What is written there.
    pub layout: FilesLayout,
    /// Of the files; directories that are made get x for each r.
    pub mode: FileMode,
    /// With trace fields on top of each mail (`eml`, `maildir`, `mbox`), as this server
    /// (`server.hostname`); `None`: mail data exactly as it was received.
    pub trace: Option<String>,
}

/// Permissions of a file that holds mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

impl Default for FileMode {
    /// 0600: mail is for its owner.
    fn default() -> Self {
        Self(0o600)
    }
}

impl FileMode {
    /// Reads an octal mode, such as `0640`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let octal =
            (3..=4).contains(&text.len()) && text.bytes().all(|o| (b'0'..=b'7').contains(&o));
        let mode = if octal { u32::from_str_radix(text, 8).ok() } else { None };
        match mode {
            None => Err(format!("{text:?} is not a file mode in octal, such as 0600 or 0640")),
            Some(mode) if mode & !0o666 != 0 => {
                Err(format!("{text:?} has bits other than read and write; use 0600 or 0640"))
            }
            Some(mode) if mode & 0o600 != 0o600 => {
                Err(format!("{text:?} would prevent the server from reading and writing the file"))
            }
            Some(mode) => Ok(Self(mode)),
        }
    }

    /// Of a file.
    #[must_use]
    pub fn of_file(self) -> u32 {
        self.0
    }

    /// Mode of a directory made for such files: those who may read the files may also enter it.
    #[must_use]
    pub fn of_dir(self) -> u32 {
        self.0 | (self.0 & 0o444) >> 2
    }
}

/// What a `files` exporter, or `log export`, writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilesLayout {
    /// `<id>.eml`
    #[default]
    Eml,
    /// Maildir, the id in the file's name.
    Maildir,
    /// One mbox (mboxrd) a shard and range.
    Mbox,
    /// CloudEvents, one a line.
    Jsonl,
    /// Parquet tables.
    Parquet,
}

impl FilesLayout {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Eml, Self::Maildir, Self::Mbox, Self::Jsonl, Self::Parquet];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eml => "eml",
            Self::Maildir => "maildir",
            Self::Mbox => "mbox",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }
}

/// Where the admin listener answers, as a reference (claim check) names it.
#[must_use]
pub fn reference_url(admin: Option<SocketAddr>) -> String {
    admin.map(|address| format!("http://{address}")).unwrap_or_default()
}
