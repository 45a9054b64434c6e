//! A real server with every kind of exporter at once, the servers they send to, and the way to read
//! each back without our code.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

pub mod hook;
pub mod load;
pub mod s3rver;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hook::Hook;
use load::{FEW, Load, is_of_few};
use s3rver::S3rver;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    dovecot::{self, Dovecot},
    kafka::KafkaServer,
    nats::NatsServer,
};
use crate::support::{
    Launch, MAILRACE, Server,
    machine::{has, skip},
    succeeded,
};

/// Longest that a server may take to start, and a request to be answered.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Records of a batch: also the most that comes twice from a shard for each kill of its sink.
pub const BATCH: usize = 500;

/// Shards of the gateway.
pub const SHARDS: usize = 2;

/// The servers behind a gateway's exporters; those not installed are left out.
pub struct Sinks {
    pub nats: Option<NatsServer>,
    pub kafka: Option<KafkaServer>,
    pub s3: Option<S3rver>,
    pub lmtp: Option<Dovecot>,
    pub hook: Option<Hook>,
    dir: tempfile::TempDir,
}

impl Sinks {
    pub fn start() -> Self {
        let peer = peer_available();
        Self {
            // As much as a message of the load has, and its header.
            nats: peer
                .then(|| {
                    NatsServer::with("max_payload: 8MB\njetstream { store_dir: \"DIR/store\" }")
                })
                .flatten(),
            kafka: peer.then(KafkaServer::start).flatten(),
            s3: S3rver::start(),
            lmtp: dovecot::available().then(|| Dovecot::start(None)),
            hook: has("python3").then(Hook::start),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// A gateway over a data directory with an exporter to each.
    pub fn gateway(&self, dir: &Path) -> Launch {
        let mut exporters: Vec<(&str, Vec<String>)> = Vec::new();
        let mut exporter = |name, settings: &[String]| exporters.push((name, settings.to_vec()));
        if let Some(nats) = &self.nats {
            let servers = format!("servers={}", nats.url());
            exporter("nats", &["encoding=raw".into(), "inline_max=4MiB".into(), servers]);
        }
        if let Some(kafka) = &self.kafka {
            // Mail data beyond 512 KiB goes by reference.
            let brokers = format!("brokers={}", kafka.address());
            exporter("kafka", &[brokers, "topic=mail".into(), "create_partitions=3".into()]);
        }
        if let Some(s3) = &self.s3 {
            let endpoint = format!("endpoint={}", s3.endpoint());
            let secret = format!("secret_key_file={}", s3.secret_file().display());
            let fixed = ["bucket=mail", "access_key=S3RVER", "inline_max=4MiB"].map(str::to_owned);
            exporter("s3", &[&[endpoint, secret], &fixed[..]].concat());
        }
        if let Some(lmtp) = &self.lmtp {
            let server = format!("server={}", lmtp.lmtp);
            exporter("lmtp", &[server, format!("filter.rcpt_domain={FEW}")]);
        }
        if let Some(hook) = &self.hook {
            exporter("webhook", &[format!("url={}", hook.url()), "requests=8".into()]);
        }
        let folder = |name: &str| format!("dir={}", self.dir.path().join(name).display());
        let few = format!("filter.rcpt_domain={FEW}");
        exporter("folder", &[folder("folder"), "layout=eml".into(), few]);
        let layout = "layout=jsonl".into();
        exporter("files", &[folder("files"), layout, "inline_max=4MiB".into()]);
        let mut launch =
            Launch::new(dir).set(&format!("server.shards={SHARDS}")).set("log.segment_size=64MiB");
        for (at, (name, settings)) in exporters.into_iter().enumerate() {
            let retry = ["retry.initial=50ms".to_owned(), "retry.max=500ms".to_owned()];
            let named = [format!("name={name}"), format!("type={name}")];
            let batch = [format!("batch.records={BATCH}"), "batch.delay=20ms".to_owned()];
            for setting in named.iter().chain(&settings).chain(&retry).chain(&batch) {
                launch = launch.set(&format!("export.{at}.{setting}"));
            }
        }
        launch
    }

    /// The exporters' names.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            ("nats", self.nats.is_some()),
            ("kafka", self.kafka.is_some()),
            ("s3", self.s3.is_some()),
            ("lmtp", self.lmtp.is_some()),
            ("webhook", self.hook.is_some()),
            ("folder", true),
            ("files", true),
        ];
        all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
    }

    /// SIGKILL for a sink's server.
    pub fn kill(&mut self, name: &str) {
        match name {
            "nats" => self.nats.as_mut().unwrap().kill(),
            "kafka" => self.kafka.as_mut().unwrap().kill(),
            "s3" => self.s3.as_mut().unwrap().kill(),
            "lmtp" => self.lmtp.as_mut().unwrap().kill(),
            "webhook" => self.hook.as_mut().unwrap().kill(),
            _ => panic!("{name}"),
        }
    }

    /// Again on the same port, with what it keeps on disk.
    pub fn restart(&mut self, name: &str) {
        match name {
            "nats" => self.nats.as_mut().unwrap().restart(),
            "kafka" => self.kafka.as_mut().unwrap().restart(),
            "s3" => self.s3.as_mut().unwrap().restart(),
            "lmtp" => self.lmtp.as_mut().unwrap().restart(),
            "webhook" => self.hook.as_mut().unwrap().restart(),
            _ => panic!("{name}"),
        }
    }

    /// Id and SHA-256 of each message that a sink has.
    fn read(&self, name: &str, server: &Server) -> Vec<(String, String)> {
        let dir = |name: &str| self.dir.path().join(name).display().to_string();
        match name {
            "nats" => read_nats(&self.nats.as_ref().unwrap().url(), "MAIL", server),
            "kafka" => read_kafka(self.kafka.as_ref().unwrap(), "mail", server),
            "s3" => read_s3(self.s3.as_ref().unwrap(), server),
            "lmtp" => {
                let mails = self.lmtp.as_ref().unwrap().mails("alice");
                mails.into_iter().map(|mail| relayed(&mail)).collect()
            }
            "webhook" => {
                let taken = self.hook.as_ref().unwrap().taken();
                resolved(&std::fs::read_to_string(taken).unwrap(), server)
            }
            "folder" => resolved(&peer(&["eml", &dir("folder")]), server),
            "files" => resolved(&peer(&["jsonl", &dir("files"), ".jsonl"]), server),
            _ => panic!("{name}"),
        }
    }

    /// Reads every sink and holds it against what was sent. Returns what came again, by sink.
    #[track_caller]
    pub fn check(&self, load: &Load, server: &Server) -> Vec<(&'static str, Vec<String>)> {
        let check = |name: &'static str| {
            let few = matches!(name, "lmtp" | "folder");
            load.check(name, &self.read(name, server), |seed| !few || is_of_few(seed))
        };
        std::thread::scope(|scope| {
            let checks: Vec<_> = self
                .names()
                .into_iter()
                .map(|name| (name, scope.spawn(move || check(name))))
                .collect();
            checks
                .into_iter()
                .map(|(name, check)| (name, check.join().expect("the check holds")))
                .collect()
        })
    }
}

/// A mail as Dovecot had it: the id of its first line, and what follows our Received field.
fn relayed(mail: &[u8]) -> (String, String) {
    let end = mail.iter().position(|octet| *octet == b'\n').unwrap() + 1;
    let line = std::str::from_utf8(&mail[..end]).unwrap();
    let id = line.strip_prefix("X-Mailrace-Id: ").expect("the line of the id").trim_end();
    let rest = &mail[end..];
    assert!(rest.starts_with(b"Received: from "));
    let end = memchr::memmem::find_iter(rest, b"\r\n")
        .map(|at| at + 2)
        .find(|at| !matches!(rest.get(*at), Some(b' ' | b'\t')))
        .unwrap();
    (id.to_owned(), format!("{:x}", Sha256::digest(&rest[end..])))
}

/// What a JetStream stream has.
pub fn read_nats(url: &str, stream: &str, server: &Server) -> Vec<(String, String)> {
    resolved(&peer(&["nats", url, stream]), server)
}

/// What a topic has.
pub fn read_kafka(kafka: &KafkaServer, topic: &str, server: &Server) -> Vec<(String, String)> {
    resolved(&peer(&["kafka", &kafka.address(), topic]), server)
}

/// What a bucket of events has.
pub fn read_s3(s3: &S3rver, server: &Server) -> Vec<(String, String)> {
    let bucket = s3.bucket().display().to_string();
    resolved(&peer(&["jsonl", &bucket, "._S3rver_object"]), server)
}

/// Lines of the peer, those of a claim check by the server's answer.
fn resolved(lines: &str, server: &Server) -> Vec<(String, String)> {
    let pairs = lines.lines().map(|line| {
        let (id, content) = line.split_once(' ').unwrap();
        let digest = match content.split_once("/v1/") {
            None => content.to_owned(),
            Some((_, path)) => {
                let url = format!("http://{}/v1/{path}", server.admin);
                let output = Command::new("curl").args(["-sSf", "--max-time", "30", &url]).output();
                format!("{:x}", Sha256::digest(succeeded("curl", output.unwrap()).stdout))
            }
        };
        (id.to_owned(), digest)
    });
    pairs.collect()
}

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/servers/flow").join(name)
}

fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/python/bin/python")
}

/// Whether clients of NATS and Kafka are there.
pub fn peer_available() -> bool {
    (python().is_file() || skip("no clients: run tests/support/servers/nats.sh and kafka.sh"))
        && has("curl")
}

/// Runs `peer.py`.
#[track_caller]
pub fn peer(arguments: &[&str]) -> String {
    let output = Command::new(python()).arg(script("peer.py")).args(arguments).output().unwrap();
    String::from_utf8(succeeded(&format!("{arguments:?}"), output).stdout).unwrap()
}

/// Waits until these exporters have committed all there is.
#[track_caller]
pub fn await_drained(server: &Server, names: &[&str], limit: Duration) {
    let began = std::time::Instant::now();
    loop {
        let (status, text) = server.page("/v1/groups");
        assert_eq!(status, 200, "{text}");
        let groups: Value = serde_json::from_str(&text).unwrap();
        let groups = groups["groups"].as_array().expect("groups");
        let drained = |name: &&str| {
            let group = groups.iter().find(|group| group["group"] == **name);
            let shards = group.and_then(|group| group["shards"].as_array());
            shards.is_some_and(|shards| {
                shards.len() == SHARDS
                    && shards.iter().all(|shard| shard["committed"] == shard["end"])
            })
        };
        if names.iter().all(drained) {
            break;
        }
        assert!(began.elapsed() < limit, "not drained within {limit:?}: {text}");
        // The answer walks files: not too often.
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("drained {:.1?} later", began.elapsed());
}

/// A count of an exporter by the metrics.
pub fn count(server: &Server, name: &str, result: &str) -> f64 {
    let labels = [format!("exporter=\"{name}\""), format!("result=\"{result}\"")];
    server.metric("mailrace_export_records_total", &labels.each_ref().map(String::as_str))
}

pub fn errors(server: &Server, name: &str, class: &str) -> f64 {
    let labels = [format!("exporter=\"{name}\""), format!("class=\"{class}\"")];
    server.metric("mailrace_export_errors_total", &labels.each_ref().map(String::as_str))
}

pub fn is_up(server: &Server, name: &str) -> bool {
    server.metric("mailrace_export_up", &[&format!("exporter=\"{name}\"")]) == 1.0
}

/// `mailrace group ... --json`: its lines.
#[track_caller]
pub fn group(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(MAILRACE)
        .arg("group")
        .args(arguments)
        .arg("--json")
        .arg("--dir")
        .arg(dir)
        .output()
        .unwrap();
    let output = succeeded(&format!("group {arguments:?}"), output);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
