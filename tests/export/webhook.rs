//! Webhooks to a real HTTP server: Python's, which verifies each signature on its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mailrace::{
    export::{
        DocumentOptions, Encoding, ErrorClass, Key, Outcome, Record, Sink, TlsOptions, Webhook,
        WebhookOptions, testing,
    },
    log::{Identity, Offset},
};

use crate::support::{self, machine};

/// Bounds each test.
const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Prints its port, then a line of JSON for each request; answers as the path says.
const RECEIVER: &str = r#"
import base64, email.utils, hashlib, hmac, json, os, socketserver, ssl, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
secret, certificate, key = sys.argv[1:4]
secret = base64.b64decode(secret[6:]) if secret.startswith('whsec_') else secret.encode()
lock, seen, busy, most = threading.Lock(), {}, 0, 0

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass
    def answer(self, code, headers=(), body=b'ok'):
        self.send_response(code)
        for name, value in headers: self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_OPTIONS(self): self.answer(405)
    def do_GET(self):
        print(json.dumps({'path': 'GET ' + self.path}), flush=True)
        self.answer(200)
    def do_POST(self):
        global busy, most
        body = self.rfile.read(int(self.headers['Content-Length']))
        h = self.headers
        signed = f"{h['webhook-id']}.{h['webhook-timestamp']}.".encode() + body
        right = 'v1,' + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        with lock:
            busy += 1; most = max(most, busy)
            times = seen[h['webhook-id']] = seen.get(h['webhook-id'], 0) + 1
            print(json.dumps({
                'path': self.path, 'headers': {k.lower(): v for k, v in h.items()},
                'body': base64.b64encode(body).decode(), 'port': self.client_address[1],
                'signed': hmac.compare_digest(right, h['webhook-signature'] or ''),
                'fresh': abs(time.time() - int(h['webhook-timestamp'])) < 60,
                'most': most}), flush=True)
        path = self.path.strip('/')
        try:
            if path == 'ok': self.answer(204, body=b'')
            elif path == 'basic':
                right = 'Basic ' + base64.b64encode('fünf:s:cret'.encode()).decode()
                if h['authorization'] == right: self.answer(204, body=b'')
                else: self.answer(401, [('WWW-Authenticate', 'Basic realm="mail"')])
            elif path.startswith('lines'):
                # As many servers have it: so many bytes of header lines in all.
                size = sum(len(k) + len(v) + 4 for k, v in h.items())
                self.answer(int(path[6:9]) if size > int(path[10:]) else 204, body=b'')
            elif path.startswith('body'):
                self.answer(413 if len(body) > int(path[5:]) else 204, body=b'')
            elif path == 'endless':
                self.send_response(200); self.send_header('Content-Length', str(1 << 40)); self.end_headers()
                while True: self.wfile.write(b'x' * 65536)
            elif path == 'meet':
                # Answered once four are here at once.
                end = time.time() + 10
                while most < 4 and time.time() < end: time.sleep(0.01)
                self.answer(200)
            elif path == 'seconds': self.answer(429, [('Retry-After', '7')])
            elif path == 'date':
                self.answer(503, [('Retry-After', email.utils.formatdate(time.time() + 90, usegmt=True))])
            elif path == 'moved': self.answer(307, [('Location', '/ok')])
            elif path == 'once': self.answer(500 if times == 1 else 200)
            elif path == 'slow': time.sleep(30)
            elif path == 'drip':
                self.send_response(200); self.send_header('Content-Length', '100000'); self.end_headers()
                while True: self.wfile.write(b'x'); self.wfile.flush(); time.sleep(0.05)
            elif path == 'garbage': self.wfile.write(b'220 mx.test ESMTP\r\n'); self.close_connection = True
            elif path == 'drop': self.close_connection = True
            else: self.answer(int(path))
        finally:
            with lock: busy -= 1

class Server(ThreadingHTTPServer):
    daemon_threads = True
    def handle_error(self, *args): pass
server = Server(('127.0.0.1', 0), Handler)
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

struct Receiver {
    _child: machine::OwnedChild,
    url: String,
    requests: mpsc::Receiver<serde_json::Value>,
}

impl Receiver {
    fn start(secret: &str, certificate: Option<(&Path, &Path)>) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", RECEIVER, secret]);
        match certificate {
            Some((certificate, key)) => command.arg(certificate).arg(key),
            None => command.args(["", ""]),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: the call is one system call.
        unsafe { command.pre_exec(machine::die_with_parent) };
        let mut child = machine::OwnedChild(command.spawn().unwrap());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port: u16 = lines.next().unwrap().unwrap().parse().unwrap();
        let (told, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = told.send(serde_json::from_str(&line).unwrap());
            }
        });
        let scheme = if certificate.is_some() { "https" } else { "http" };
        Self { _child: child, url: format!("{scheme}://127.0.0.1:{port}"), requests }
    }

    fn next(&self) -> serde_json::Value {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }

    /// Nothing more was asked. The receiver prints before it answers, so all is there.
    fn assert_quiet(&self) {
        let more: Vec<_> = self.requests.try_iter().collect();
        assert!(more.is_empty(), "{more:?}");
    }
}

struct Case {
    receiver: Receiver,
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Option<Self> {
        machine::has("python3").then(|| Self {
            receiver: Receiver::start(SECRET, None),
            dir: tempfile::tempdir().unwrap(),
        })
    }

    fn file(&self, name: &str, text: &str) -> Option<PathBuf> {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    }

    fn options(&self, path: &str) -> WebhookOptions {
        let plain = plain_options(&format!("{}/{path}", self.receiver.url));
        WebhookOptions { secret_file: self.file("secret", SECRET), ..plain }
    }

    fn sink(&self, path: &str) -> Webhook {
        sink(&self.options(path))
    }
}

fn sink(options: &WebhookOptions) -> Webhook {
    Webhook::new(options, &document(Encoding::Json), Duration::from_secs(15)).unwrap()
}

fn document(encoding: Encoding) -> DocumentOptions {
    DocumentOptions {
        encoding,
        inline_max: 1 << 20,
        reference_url: "http://127.0.0.1:2580".to_owned(),
        sha256: false,
        key: Key::RcptDomain,
    }
}

fn records(count: u64) -> Vec<Record> {
    let identity = Identity { node: [0x7f, 0x3a, 0x9c, 0x21, 0xb0, 0x4e], shard: 3 };
    let records = (0..count).map(|number| Record {
        id: identity.record_id(Offset::new(number)),
        listener: "mx".to_owned(),
        mail_from: "a@s.test".to_owned(),
        rcpt_to: vec!["b@d.test".to_owned()],
        data: Bytes::from(format!("Subject: {number}\r\n\r\nGrüße\0\r\n")),
        ..testing::record(3, number)
    });
    records.collect()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("in time") })
}

fn deliver(sink: &Webhook, records: &[Record]) -> Vec<Outcome> {
    let outcomes = run(sink.deliver(records));
    assert_eq!(outcomes.len(), records.len());
    outcomes
}

/// `delivered`, or what it is and its class.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered => "delivered".to_owned(),
        Outcome::Retry(error) => format!("retry {}", error.class.name()),
        Outcome::Refused(error) => format!("refused {}", error.class.name()),
    }
}

fn body(request: &serde_json::Value) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(request["body"].as_str().unwrap()).unwrap()
}

#[test]
fn each_record_is_a_signed_post_in_order_over_one_connection() {
    let Some(case) = Case::new() else { return };
    let records = records(100);
    let options =
        WebhookOptions { token_file: case.file("token", "t0k3n\n"), ..case.options("ok") };
    let outcomes = run(async {
        let sink = sink(&options);
        sink.check().await.unwrap();
        sink.deliver(&records).await
    });
    assert_eq!(outcomes, vec![Outcome::Delivered; 100]);
    let mut ports = Vec::new();
    for record in &records {
        let request = case.receiver.next();
        assert_eq!(request["path"], "/ok");
        let headers = &request["headers"];
        assert_eq!(headers["webhook-id"], record.id.to_string());
        assert_eq!(headers["content-type"], "application/cloudevents+json");
        assert_eq!(headers["authorization"], "Bearer t0k3n");
        assert_eq!(headers["user-agent"], format!("mailrace/{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(headers.get("ce-id"), None);
        assert!(request["signed"] == true && request["fresh"] == true, "{request}");
        let event: serde_json::Value = serde_json::from_slice(&body(&request)).unwrap();
        assert_eq!(event["id"], record.id.to_string());
        ports.push(request["port"].as_u64().unwrap());
    }
    ports.dedup();
    assert_eq!(ports.len(), 1, "connections");
    case.receiver.assert_quiet();
}

#[test]
fn raw_mail_with_its_envelope_in_headers() {
    let Some(case) = Case::new() else { return };
    let records = records(2);
    let sink = Webhook::new(&case.options("ok"), &document(Encoding::Raw), Duration::from_secs(15))
        .unwrap();
    assert_eq!(deliver(&sink, &records), vec![Outcome::Delivered; 2]);
    for record in &records {
        let request = case.receiver.next();
        assert_eq!(request["headers"]["content-type"], "message/rfc822");
        assert_eq!(request["headers"]["ce-id"], record.id.to_string());
        assert_eq!(request["headers"]["ce-specversion"], "1.0");
        assert_eq!(request["headers"]["ce-type"], "mailrace.message.received.v1");
        assert_eq!(request["signed"], true);
        assert!(body(&request) == record.data);
    }
}

#[test]
fn a_plain_secret_and_none() {
    if !machine::has("python3") {
        return;
    }
    let receiver = Receiver::start("plain words", None);
    let case = Case { receiver, dir: tempfile::tempdir().unwrap() };
    let records = records(1);
    let plain =
        WebhookOptions { secret_file: case.file("plain", "plain words\n"), ..case.options("ok") };
    assert_eq!(deliver(&sink(&plain), &records), [Outcome::Delivered]);
    assert_eq!(case.receiver.next()["signed"], true);
    assert_eq!(deliver(&case.sink("ok"), &records), [Outcome::Delivered]);
    assert_eq!(case.receiver.next()["signed"], false, "another secret");
    let none = WebhookOptions { secret_file: None, ..case.options("ok") };
    assert_eq!(deliver(&sink(&none), &records), [Outcome::Delivered]);
    let request = case.receiver.next();
    assert_eq!(request["headers"].get("webhook-signature"), None);
    assert_eq!(request["headers"].get("authorization"), None);
}

/// With one request at a time, what comes behind a record that has to wait is not sent.
#[test]
fn each_answer_has_its_outcome() {
    let Some(case) = Case::new() else { return };
    let records = records(3);
    for (path, expected, posts) in [
        ("200", "delivered", 3),
        ("400", "refused refused", 3),
        ("413", "refused too_large", 3),
        ("401", "retry auth", 1),
        ("403", "retry auth", 1),
        ("404", "retry missing", 1),
        ("408", "retry timeout", 1),
        ("410", "retry gone", 1),
        ("500", "retry other", 1),
        ("502", "retry other", 1),
        ("moved", "retry other", 1),
        ("seconds", "retry throttled", 1),
        ("date", "retry throttled", 1),
        ("garbage", "retry connect", 1),
        ("drop", "retry connect", 1),
    ] {
        let outcomes = deliver(&case.sink(path), &records);
        assert_eq!(outcomes.iter().map(told).collect::<Vec<_>>(), [expected; 3], "{path}");
        for _ in 0..posts {
            assert_eq!(case.receiver.next()["path"], format!("/{path}"));
        }
        case.receiver.assert_quiet();
        let Outcome::Retry(error) = &outcomes[0] else { continue };
        match path {
            "seconds" => assert_eq!(error.retry_after, Some(Duration::from_secs(7))),
            "date" => {
                let seconds = error.retry_after.unwrap().as_secs();
                assert!((60..=91).contains(&seconds), "{seconds}");
            }
            "moved" => assert!(error.text.contains("redirects are not followed"), "{error}"),
            _ => assert_eq!(error.retry_after, None),
        }
    }
}

#[test]
fn a_slow_receiver_is_waited_for_so_long() {
    let Some(case) = Case::new() else { return };
    for path in ["slow", "drip"] {
        let timeout = Duration::from_millis(700);
        let sink = Webhook::new(&case.options(path), &document(Encoding::Json), timeout).unwrap();
        let began = Instant::now();
        let outcomes = deliver(&sink, &records(5));
        let waited = began.elapsed();
        match path {
            // Only the first is sent; the others would wait as long.
            "slow" => {
                assert_eq!(outcomes.iter().map(told).collect::<Vec<_>>(), ["retry timeout"; 5])
            }
            // The status has come: the record is delivered, whatever the body does.
            _ => assert_eq!(outcomes, vec![Outcome::Delivered; 5]),
        }
        assert!(waited >= timeout && waited < Duration::from_secs(15), "{path}: {waited:?}");
    }
}

#[test]
fn no_more_than_a_little_of_an_answer_is_read() {
    let Some(case) = Case::new() else { return };
    let began = Instant::now();
    assert_eq!(deliver(&case.sink("endless"), &records(3)), vec![Outcome::Delivered; 3]);
    assert!(began.elapsed() < Duration::from_secs(10), "read for {:?}", began.elapsed());
}

#[test]
fn several_requests_at_once_with_outcomes_in_order() {
    let Some(case) = Case::new() else { return };
    let records = records(40);
    let options = WebhookOptions { requests: 4, ..case.options("meet") };
    assert_eq!(deliver(&sink(&options), &records), vec![Outcome::Delivered; 40]);
    let most = (0..40).map(|_| case.receiver.next()["most"].as_u64().unwrap()).max();
    assert_eq!(most, Some(4));

    // Each fails the first time; then each is taken, and none twice.
    let sink = sink(&WebhookOptions { requests: 4, ..case.options("once") });
    let later = &self::records(60)[40..];
    let outcomes = deliver(&sink, later);
    assert_eq!(outcomes.iter().map(told).collect::<Vec<_>>(), vec!["retry other"; 20]);
    assert_eq!(deliver(&sink, later), vec![Outcome::Delivered; 20]);
    for _ in 0..40 {
        assert_eq!(case.receiver.next()["path"], "/once");
    }
    case.receiver.assert_quiet();
}

#[test]
fn a_receiver_that_is_not_there() {
    let Some(case) = Case::new() else { return };
    let options = case.options("ok");
    drop(case.receiver);
    let sink = sink(&options);
    let error = run(sink.check()).unwrap_err();
    assert_eq!(error.class, ErrorClass::Connect);
    assert!(!error.text.contains("127.0.0.1"), "a URL may hold a password: {error}");
    let outcomes = deliver(&sink, &records(100));
    assert_eq!(outcomes.iter().map(told).collect::<Vec<_>>(), vec!["retry connect"; 100]);
}

#[test]
fn https_with_authorities_of_its_own() {
    if !machine::has("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (crt, key) = (dir.path().join(format!("{name}.crt")), dir.path().join("key"));
        fs::write(&crt, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (crt, key)
    };
    let (stranger, _) = make("stranger");
    let (certificate, key) = make("right");
    let receiver = Receiver::start(SECRET, Some((&certificate, &key)));
    let case = Case { receiver, dir: tempfile::tempdir().unwrap() };
    for (believed, expected) in [(&certificate, "delivered"), (&stranger, "retry connect")] {
        let tls = TlsOptions { ca_file: Some(believed.clone()), ..TlsOptions::default() };
        let sink = sink(&WebhookOptions { tls, ..case.options("ok") });
        assert_eq!(told(&deliver(&sink, &records(1))[0]), expected);
    }
    assert_eq!(case.receiver.next()["signed"], true);
    case.receiver.assert_quiet();
}

/// What the environment says of proxies goes past us: mail must not.
#[test]
fn no_proxy_from_the_environment() {
    let Some(case) = Case::new() else { return };
    let proxied = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "webhook::as_it_runs_below_a_proxy", "--nocapture"])
        .env("http_proxy", "http://127.0.0.1:9")
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("ALL_PROXY", "http://127.0.0.1:9")
        .env("no_proxy", "")
        .env("MAILRACE_TEST_URL", &case.receiver.url)
        .output()
        .unwrap();
    support::succeeded("below a proxy", proxied);
    assert_eq!(case.receiver.next()["path"], "/ok");
}

fn plain_options(url: &str) -> WebhookOptions {
    WebhookOptions {
        url: url.to_owned(),
        secret_file: None,
        token_file: None,
        user: String::new(),
        password_file: None,
        requests: 1,
        tls: TlsOptions::default(),
    }
}

/// The other half of the test above; alone it has nothing to do.
#[test]
fn as_it_runs_below_a_proxy() {
    let Ok(url) = std::env::var("MAILRACE_TEST_URL") else { return };
    let options = plain_options(&format!("{url}/ok"));
    assert_eq!(deliver(&sink(&options), &records(1)), [Outcome::Delivered]);
}

#[test]
fn options_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |options: &WebhookOptions| {
        let made = Webhook::new(options, &document(Encoding::Json), PATIENCE);
        made.err().expect("it cannot be").text
    };
    assert!(fails(&plain_options("localhost")).contains("localhost"));
    assert!(fails(&plain_options("ftp://localhost/")).contains("not http or https"));
    let missing = dir.path().join("missing");
    for options in [
        WebhookOptions { secret_file: Some(missing.clone()), ..plain_options("http://localhost/") },
        WebhookOptions { token_file: Some(missing.clone()), ..plain_options("http://localhost/") },
        WebhookOptions {
            tls: TlsOptions { ca_file: Some(missing.clone()), ..TlsOptions::default() },
            ..plain_options("https://localhost/")
        },
    ] {
        assert!(fails(&options).contains("missing"));
    }
}

/// RFC 7617, against a receiver that demands it. A wrong password is mended by the operator: the
/// mail waits, and no record becomes a dead letter.
#[test]
fn basic_authentication_from_a_file() {
    let Some(case) = Case::new() else { return };
    let login = |user: &str, password: &str| WebhookOptions {
        user: user.to_owned(),
        password_file: case.file(password, &format!("{password}\n")),
        ..case.options("basic")
    };
    let records = records(3);
    let outcomes = deliver(&sink(&login("fünf", "s:cret")), &records);
    assert_eq!(outcomes, vec![Outcome::Delivered; 3]);
    for _ in 0..3 {
        assert_eq!(case.receiver.next()["signed"], true);
    }
    for options in [login("fünf", "wrong"), case.options("basic")] {
        let outcomes = deliver(&sink(&options), &records);
        assert_eq!(outcomes.iter().map(told).collect::<Vec<_>>(), ["retry auth"; 3]);
        assert_eq!(case.receiver.next()["path"], "/basic");
        case.receiver.assert_quiet();
    }
}

/// 300 recipients: one header line would have 14 KB.
#[test]
fn the_headers_of_many_recipients_stay_below_what_servers_take() {
    let Some(case) = Case::new() else { return };
    let mut many = records(1);
    many[0].rcpt_to =
        (0..300).map(|n| format!("somebody.with.a.name.{n:03}@department.d.test")).collect();
    let raw =
        DocumentOptions { reference_url: "https://m.test".to_owned(), ..document(Encoding::Raw) };
    let sink =
        |path: &str| Webhook::new(&case.options(path), &raw, Duration::from_secs(15)).unwrap();
    // What nearly every server takes is taken at once.
    assert_eq!(deliver(&sink("lines/431/8192"), &many), [Outcome::Delivered]);
    let headers = case.receiver.next()["headers"].clone();
    assert_eq!(headers["mailrace-rcpt-count"], "300");
    assert_eq!(headers["mailrace-truncated"], "rcpt_to");
    let id = many[0].id.to_string();
    assert_eq!(headers["mailrace-envelope"], format!("https://m.test/v1/messages/{id}"));
    case.receiver.assert_quiet();
    // What a stricter one refuses comes once more, smaller; any of its answers may mean that.
    for status in [400, 413, 431] {
        let path = format!("lines/{status}/2600");
        assert_eq!(deliver(&sink(&path), &many), [Outcome::Delivered], "{status}");
        let (first, second) = (case.receiver.next(), case.receiver.next());
        assert_eq!(first["headers"]["webhook-id"], second["headers"]["webhook-id"]);
        assert_eq!(second["headers"]["mailrace-rcpt-count"], "300");
        assert!(second["signed"] == true, "{second}");
        case.receiver.assert_quiet();
    }
    // Too strict for both, and too strict for what is small anyway: a dead letter.
    assert_eq!(told(&deliver(&sink("lines/431/100"), &many)[0]), "refused refused");
    (0..2).for_each(|_| drop(case.receiver.next()));
    case.receiver.assert_quiet();
}

/// 413: the mail data goes by reference, in every encoding, before the record is a dead letter.
#[test]
fn a_body_that_is_too_large_goes_by_reference() {
    let Some(case) = Case::new() else { return };
    let mut large = records(1);
    large[0].data = Bytes::from(vec![b'x'; 20_000]);
    for encoding in [Encoding::Json, Encoding::Protobuf, Encoding::Raw] {
        let with_url =
            DocumentOptions { reference_url: "https://m.test".to_owned(), ..document(encoding) };
        let options = case.options("body/8000");
        let sink = Webhook::new(&options, &with_url, Duration::from_secs(15)).unwrap();
        assert_eq!(deliver(&sink, &large), [Outcome::Delivered], "{encoding:?}");
        let (first, second) = (case.receiver.next(), case.receiver.next());
        assert!(body(&first).len() > 8_000 && body(&second).len() <= 8_000);
        assert!(second["signed"] == true, "{second}");
        let reference = format!("https://m.test/v1/messages/{}/raw", large[0].id);
        match encoding {
            Encoding::Json => {
                let event: serde_json::Value = serde_json::from_slice(&body(&second)).unwrap();
                assert_eq!(event["dataref"], reference);
            }
            _ => assert_eq!(second["headers"]["ce-dataref"], reference),
        }
        // Nowhere to refer to.
        let without = DocumentOptions { reference_url: String::new(), ..document(encoding) };
        let sink = Webhook::new(&options, &without, Duration::from_secs(15)).unwrap();
        assert_eq!(told(&deliver(&sink, &large)[0]), "refused too_large");
        case.receiver.next();
        case.receiver.assert_quiet();
    }
}
