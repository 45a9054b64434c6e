//! What exporters and consumer groups count, against a webhook whose answers are scripted.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use super::{Move, Moves, Scrape, moved};

use crate::support::{Launch, eventually, machine, segments, send, signal};

pub const MOVES: Moves = &[
    ("export_records_total", "result", &["delivered", "retried", "dead_lettered", "filtered"]),
    (
        "export_errors_total",
        "class",
        &[
            "connect",
            "auth",
            "missing",
            "timeout",
            "throttled",
            "too_large",
            "refused",
            "gone",
            "other",
        ],
    ),
    ("export_bytes_total", "", &[]),
    ("export_request_duration_seconds", "", &[]),
    ("export_up", "", &[]),
    ("export_last_success_timestamp_seconds", "", &[]),
    ("export_dead_letters", "", &[]),
    ("log_consumer_lag_records", "", &[]),
    ("log_consumer_lag_records_max", "", &[]),
    ("log_consumer_members", "", &[]),
    ("log_consumer_oldest_pending_timestamp_seconds", "", &[]),
];

/// Answers each POST with the next status of the script, and 200 behind its end.
struct Webhook {
    address: SocketAddr,
    script: Arc<Mutex<VecDeque<u16>>>,
}

impl Webhook {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(VecDeque::new()));
        let answers = script.clone();
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = answers.clone();
                thread::spawn(move || answer(stream, &answers));
            }
        });
        Self { address, script }
    }

    fn say(&self, codes: &[u16]) {
        self.script.lock().unwrap().extend(codes);
    }
}

fn answer(stream: TcpStream, script: &Mutex<VecDeque<u16>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut len, mut method) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let head = line.trim_end().to_ascii_lowercase();
            if method.is_empty() {
                method = head.split(' ').next()?.to_owned();
            }
            if let Some(value) = head.strip_prefix("content-length:") {
                len = value.trim().parse().ok()?;
            }
            if head.is_empty() {
                break;
            }
        }
        let mut content = vec![0; len];
        reader.read_exact(&mut content).ok()?;
        let code = match method.as_str() {
            "post" => script.lock().unwrap().pop_front().unwrap_or(200),
            _ => 200,
        };
        write!(reader.get_mut(), "HTTP/1.1 {code} x\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}

fn launch(dir: &Path, url: &str) -> Launch {
    Launch::new(dir)
        .set("server.shards=1")
        .set("log.segment_size=1MiB")
        .set("export.0.name=hook")
        .set("export.0.type=webhook")
        .set(&format!("export.0.url={url}"))
        .set("export.0.retry.initial=50ms")
        .set("export.0.retry.max=100ms")
        .set("export.0.batch.delay=10ms")
        .set("export.1.name=none")
        .set("export.1.type=blackhole")
        .set("export.1.filter.rcpt_domain=nobody.test")
}

#[test]
fn exporters_count_what_becomes_of_records() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Webhook::start();
    hook.say(&[503, 422]);
    let server = launch(dir.path(), &format!("http://{}/", hook.address)).start();
    let before = Scrape::of(&server);
    send(&server, 3, 500);
    let delivered: &[Move] = &[
        MOVES[0],
        ("export_errors_total", "class", &["refused"]),
        MOVES[2],
        MOVES[3],
        MOVES[4],
        MOVES[5],
        MOVES[6],
    ];
    moved(&server, &before, delivered);
    assert_eq!(server.metric("mailrace_export_dead_letters", &["hook"]), 1.0);
    // A consumer that is connected, and one that has read nothing yet.
    let mut stream = TcpStream::connect(server.admin).unwrap();
    write!(stream, "GET /v1/stream?group=reader&follow=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .unwrap();
    let reader: &[Move] = &[MOVES[7], MOVES[8], MOVES[9], MOVES[10]];
    moved(&server, &before, reader);
    assert_eq!(server.metric("mailrace_log_consumer_members", &["reader"]), 1.0);
    // The lag of a group without an exporter is measured every few seconds.
    eventually("the reader's lag", super::WAIT, || {
        server.metric("mailrace_log_consumer_lag_records", &["reader"]) == 3.0
    });
    drop(stream);
    eventually("it is gone", super::WAIT, || {
        server.metric("mailrace_log_consumer_members", &["reader"]) == 0.0
    });
}

#[test]
fn a_sink_that_is_not_there_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Webhook::start();
    let nobody = machine::closed_port();
    let server = launch(dir.path(), &format!("http://{}/", nobody.address)).start();
    let before = Scrape::of(&server);
    send(&server, 1, 500);
    let down: &[Move] =
        &[("export_errors_total", "class", &["connect"]), ("log_consumer_lag_records", "", &[])];
    moved(&server, &before, down);
    assert_eq!(server.metric("mailrace_export_up", &["hook"]), 0.0);
    assert!(
        server.metric("mailrace_log_consumer_oldest_pending_timestamp_seconds", &["hook"]) > 0.0
    );
    drop(hook);
}

/// What each answer of a webhook that is no success counts as.
const ANSWERS: [(u16, &[&str]); 8] = [
    (401, &["auth"]),
    (404, &["missing"]),
    (408, &["timeout"]),
    (410, &["gone"]),
    (413, &["too_large"]),
    (422, &["refused"]),
    (429, &["throttled"]),
    (500, &["other"]),
];

#[test]
fn trouble_is_counted_by_its_class() {
    for (code, class) in ANSWERS {
        let dir = tempfile::tempdir().unwrap();
        let hook = Webhook::start();
        // A refusal is asked for again before it is believed.
        hook.say(&[code; 5]);
        let server = launch(dir.path(), &format!("http://{}/", hook.address)).start();
        let before = Scrape::of(&server);
        send(&server, 1, 500);
        moved(&server, &before, &[("export_errors_total", "class", class)]);
    }
}

/// A batch may gather for hours: its sink is asked meanwhile.
#[test]
fn a_sink_that_is_not_there_is_down_before_a_batch_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = machine::closed_port();
    let launch = launch(dir.path(), &format!("http://{}/", nobody.address));
    let server = launch.set("export.0.batch.delay=10m").start();
    send(&server, 1, 500);
    eventually("the trouble is counted", super::WAIT, || {
        server.metric("mailrace_export_errors_total", &["hook", "connect"]) > 0.0
    });
    assert_eq!(server.metric("mailrace_export_up", &["hook"]), 0.0);
}

pub const TROUBLE_MOVES: Moves =
    &[("export_corrupt_records_total", "", &[]), ("log_corrupt_records_total", "stage", &["read"])];

/// Flipped bits in a sealed segment, met by an exporter that comes later.
#[test]
fn damage_that_an_exporter_meets_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (dir.path().join("mailrace.toml"), dir.path().join("data"));
    fs::write(&config, "").unwrap();
    let server = Launch::new(&data)
        .file(&config)
        .set("server.shards=1")
        .set("log.segment_size=1MiB")
        .start();
    send(&server, 60, 50_000);
    let before = Scrape::of(&server);
    let first = segments(&data).remove(0);
    let mut octets = fs::read(&first).unwrap();
    let at = octets.len() / 2;
    octets[at] ^= 0x40;
    fs::write(&first, octets).unwrap();
    fs::write(&config, "[[export]]\nname = \"late\"\ntype = \"blackhole\"\n").unwrap();
    signal(&server.child, libc::SIGHUP);
    moved(&server, &before, TROUBLE_MOVES);
}

pub const DROPPED_MOVES: Moves = &[("export_records_total", "result", &["dropped"])];

/// Retention does not wait for the exporter, and its sink is away until the records are gone.
#[test]
fn records_deleted_before_their_delivery_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Webhook::start();
    hook.say(&[503; 10_000]);
    let server = launch(dir.path(), &format!("http://{}/", hook.address))
        .set("log.retention.require_consumed=false")
        .set("log.retention.retain_after_export=0s")
        .set("log.retention.size=1MiB")
        .start();
    let before = Scrape::of(&server);
    send(&server, 12, 400_000);
    eventually("segments are gone", super::WAIT, || {
        server.metric("mailrace_log_segments_deleted_total", &["reason=\"size\""]) > 0.0
    });
    hook.script.lock().unwrap().clear();
    moved(&server, &before, DROPPED_MOVES);
}
