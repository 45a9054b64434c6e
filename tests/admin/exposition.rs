//! The forms of `/metrics`: what a client gets by its Accept field, and whether others can read it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use crate::support::{
    Launch, Server, eventually,
    machine::{has, skip},
    send,
    servers::prometheus::Prometheus,
    succeeded,
};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTO: &str = "application/vnd.google.protobuf; \
                     proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Content-Type and content.
fn fetch(server: &Server, accept: &[&str]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(server.admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let fields: String = accept.iter().map(|accept| format!("Accept: {accept}\r\n")).collect();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{fields}\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|octets| octets == b"\r\n\r\n").expect("a header");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    assert_eq!(field("vary: "), Some("accept"), "{head}");
    let kind = field("content-type: ").expect("a Content-Type").to_owned();
    (kind, answer[end + 4..].to_vec())
}

fn launch(dir: &std::path::Path) -> Server {
    Launch::new(dir)
        .set("server.shards=2")
        .set("log.segment_size=1MiB")
        .set("export.0.name=out")
        .set("export.0.type=blackhole")
        .set("export.0.batch.delay=10ms")
        .start()
}

#[test]
fn the_form_goes_by_accept() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path());
    for (accept, wanted) in [
        (&[][..], TEXT),
        (&["*/*"], TEXT),
        (&["application/openmetrics-text;version=1.0.0,text/plain;q=0.5"], OPEN),
        (&["text/plain;q=0.5", "application/openmetrics-text"], OPEN),
        (&["application/vnd.google.protobuf;encoding=delimited;q=0.9,text/plain;q=0.8"], PROTO),
        (&["\u{e9}", "nonsense;q=x", ";;,,"], TEXT),
    ] {
        let (kind, content) = fetch(&server, accept);
        assert_eq!(kind, wanted, "{accept:?}");
        match wanted {
            TEXT => assert!(content.starts_with(b"# HELP mailrace_build_info ")),
            OPEN => assert!(content.ends_with(b"\n# EOF\n")),
            // The first family: its length, its name.
            _ => assert_eq!(content.get(1..23), Some(&b"\x0a\x13mailrace_build_info\x12"[..])),
        }
    }
}

/// Python's reference parsers read both texts: the same series, and the same values where nothing
/// moves by itself.
const COMPARE: &str = r#"
import re, sys
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
def series(families):
    found = {}
    for family in families:
        for sample in family.samples:
            labels = {k: float(v) if k == "le" else v for k, v in sample.labels.items()}
            found[(sample.name, tuple(sorted(labels.items(), key=lambda pair: pair[0])))] = sample.value
    return found
old = series(parser.text_string_to_metric_families(open(sys.argv[1]).read()))
new = series(open_families(open(sys.argv[2]).read()))
assert old.keys() == new.keys(), old.keys() ^ new.keys()
assert len(old) > 300, len(old)
still = [key for key in old if "_smtp_message" in key[0]]
assert still and all(old[key] == new[key] for key in still)
print(sum(value for key, value in new.items() if key[0] == "mailrace_smtp_messages_received_total"))
"#;

#[test]
fn openmetrics_is_read_by_the_reference_parser() {
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/servers/python/bin/python");
    if !(python.exists() || skip("run tests/support/servers/deploy.sh")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = launch(&dir.path().join("data"));
    send(&server, 7, 5_000_000);
    send(&server, 1, 500);
    let files: Vec<_> = [("text", "*/*"), ("open", "application/openmetrics-text")]
        .into_iter()
        .map(|(name, accept)| {
            let path = dir.path().join(name);
            std::fs::write(&path, fetch(&server, &[accept]).1).unwrap();
            path
        })
        .collect();
    let output = Command::new(python).arg("-c").arg(COMPARE).args(files).output().unwrap();
    let told = String::from_utf8(succeeded("the parsers", output).stdout).unwrap();
    assert_eq!(told.trim_end().parse(), Ok(8.0));
}

/// A Prometheus that takes native histograms asks for protobuf, and answers from them.
#[test]
fn prometheus_stores_native_histograms() {
    if !has("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = launch(&dir.path().join("data"));
    let flags = ["--enable-feature=native-histograms"];
    let prometheus = Prometheus::start_with(dir.path(), server.admin, 200, &flags);
    send(&server, 20, 3_000);
    let sum = |query: &str| prometheus.values(query).iter().sum::<f64>();
    for name in ["smtp_message_ack_duration_seconds", "smtp_message_size_bytes"] {
        eventually(name, Duration::from_secs(20), || {
            sum(&format!("histogram_count(mailrace_{name})")) == 20.0
        });
        // It has no classic buckets of them.
        assert_eq!(prometheus.values(&format!("mailrace_{name}_bucket")), [0.0; 0], "{name}");
    }
    let median = sum("histogram_quantile(0.5, mailrace_smtp_message_size_bytes)");
    // All have the same size: the bucket is found, of which each is 9 % wide.
    assert!((2_700.0..3_400.0).contains(&median), "{median}");
    let all = sum("histogram_sum(mailrace_smtp_message_size_bytes)");
    assert_eq!(all, sum("sum(mailrace_smtp_received_bytes_total)"));
    let fraction = sum("histogram_fraction(0, 50, mailrace_smtp_message_ack_duration_seconds)");
    assert_eq!(fraction, 1.0);
    eventually("the exporter's requests", Duration::from_secs(20), || {
        sum("histogram_count(mailrace_export_request_duration_seconds)") > 0.0
    });
    assert_eq!(sum("up"), 1.0);
}
