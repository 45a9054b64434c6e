use super::*;
use crate::metrics::{DiskState, Names, ShardState, ShardStats};
use std::io::{Read, Write};
use std::net::TcpStream;

struct Server {
    admin: AdminHandle,
    published: Arc<Published>,
    ready: Arc<Readiness>,
    disk_full: Arc<AtomicBool>,
    stop_shard: Arc<AtomicBool>,
    shard: Option<JoinHandle<()>>,
}

impl Server {
    /// An admin plane beside a thread that beats like a shard.
    fn start() -> Self {
        Self::start_with(None)
    }

    /// With a token; reloads are answered by what the first line of a text says.
    fn start_with(token: Option<&str>) -> Self {
        let (reloads, wanted) = crossbeam::channel::bounded(1);
        std::thread::spawn(move || {
            let outcomes = [Ok(vec!["a changed".to_owned()]), Err(vec!["bad key".to_owned()])];
            for (wanted, outcome) in wanted.iter().zip(outcomes) {
                let wanted: oneshot::Sender<ReloadOutcome> = wanted;
                let _ = wanted.send(outcome);
            }
        });
        let (drains, asking): (_, DrainRequests) = crossbeam::channel::bounded(1);
        std::thread::spawn(move || {
            for asking in asking {
                let _ = asking.answer.send(Some(Duration::from_millis(2500)));
            }
        });
        let published = Published::new();
        let ready = Arc::new(Readiness::default());
        let disk_full = Arc::new(AtomicBool::new(false));
        let full = Arc::clone(&disk_full);
        let state = AdminState {
            published: vec![Arc::clone(&published)],
            ready: Arc::clone(&ready),
            version: "1.2.3".to_owned(),
            revision: "abc".to_owned(),
            disk: Box::new(move || {
                let full = full.load(Ordering::Relaxed);
                let state = if full { DiskState::Full } else { DiskState::Ok };
                Some(DiskFacts {
                    free_bytes: 1 << 20,
                    size_bytes: 9 << 20,
                    state,
                    reason: "1 MiB free, 3 MiB needed".to_owned(),
                })
            }),
            export: ExportMetrics::new(),
            dns: DnsMetrics::new(),
            log: no_log(),
            token: token.map(str::to_owned),
            reloads,
            traces: Arc::default(),
            recorders: Vec::new(),
            drains,
            upgrades: crossbeam::channel::bounded(1).0,
        };
        let admin = start("127.0.0.1:0".parse().unwrap(), state).unwrap();
        let stop_shard = Arc::new(AtomicBool::new(false));
        let (slot, stop) = (Arc::clone(&published), Arc::clone(&stop_shard));
        let shard = std::thread::spawn(move || {
            let mut stats = ShardStats::new(0, &["smtp"], Names::default());
            stats.listeners[0].messages_received = 42;
            while !stop.load(Ordering::Relaxed) {
                slot.beat(|_| Box::new(stats.clone()));
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { admin, published, ready, disk_full, stop_shard, shard: Some(shard) }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn stop_shard(&mut self) {
        self.stop_shard.store(true, Ordering::Relaxed);
        if let Some(shard) = self.shard.take() {
            shard.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_shard();
    }
}

fn no_log() -> LogState {
    LogState {
        hosts: Hosts::Any,
        dir: std::path::PathBuf::from("/nonexistent"),
        marks: Arc::new(crate::log::HighWaterMarks::new(1).0),
        waiters: crate::log::Waiters::default(),
        metrics: ExportMetrics::new(),
        reference_url: String::new(),
    }
}

#[track_caller]
fn check(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn metrics_come_from_the_shard() {
    let mut server = Server::start();
    let line = "mailrace_smtp_messages_received_total{listener=\"smtp\",shard=\"0\"} 42\n";
    let text = server.get("/metrics");
    check(&text, &["HTTP/1.1 200 OK\r\n", "content-type: text/plain; version=0.0.4", line]);
    check(&text, &["mailrace_build_info{version=\"1.2.3\",revision=\"abc\"} 1"]);
    let detail = "mailrace_smtp_connections_total{listener=\"smtp\",shard=\"0\"} 0\n";
    check(&server.get("/metrics?detail=shard"), &[detail]);
    // A shard that does not answer is shown as last seen.
    server.stop_shard();
    check(&server.get("/metrics"), &[line]);
}

#[test]
fn readiness_names_the_obstacle() {
    let server = Server::start();
    check(&server.get("/readyz"), &["503", "shard 0 is recovering", "not listening"]);
    server.published.set_state(ShardState::Serving);
    server.ready.set_listening();
    check(&server.get("/readyz"), &["HTTP/1.1 200 OK\r\n", "ready\n"]);
    server.disk_full.store(true, Ordering::Relaxed);
    check(&server.get("/readyz"), &["503", "disk full: 1 MiB free, 3 MiB needed"]);
    server.disk_full.store(false, Ordering::Relaxed);
    server.ready.set_standing(vec!["listener mx: nobody".to_owned()]);
    check(&server.get("/readyz"), &["503", "listener mx: nobody"]);
    server.ready.set_standing(Vec::new());
    check(&server.get("/readyz"), &["HTTP/1.1 200 OK\r\n"]);
    server.ready.set_draining();
    check(&server.get("/readyz"), &["503", "draining"]);
}

#[test]
fn health_follows_the_heartbeat() {
    let mut server = Server::start();
    check(&server.get("/healthz"), &["HTTP/1.1 200 OK\r\n", "ok\n"]);
    check(&server.get("/"), &["mailrace 1.2.3 (abc)", "/metrics", "text/plain"]);
    check(&server.get("/other"), &["404"]);
    server.stop_shard();
    std::thread::sleep(Duration::from_millis(5_700));
    check(&server.get("/healthz"), &["503", "shard 0 has not answered for 5 s"]);
}

/// Of a server without shards.
fn nothing() -> AdminState {
    AdminState {
        published: Vec::new(),
        ready: Arc::default(),
        version: String::new(),
        revision: String::new(),
        disk: Box::new(|| None),
        export: ExportMetrics::new(),
        dns: DnsMetrics::new(),
        log: no_log(),
        token: None,
        reloads: crossbeam::channel::bounded(1).0,
        traces: Arc::default(),
        recorders: Vec::new(),
        drains: crossbeam::channel::bounded(1).0,
        upgrades: crossbeam::channel::bounded(1).0,
    }
}

#[test]
fn a_taken_address_is_a_clear_error() {
    let server = Server::start();
    let error = start(server.admin.address(), nothing()).expect_err("taken").to_string();
    check(&error, &["cannot listen on 127.0.0.1:", "server.admin.listen"]);
}

#[test]
fn shutting_down_frees_the_address() {
    let admin = start("127.0.0.1:0".parse().unwrap(), nothing()).unwrap();
    let address = admin.address();
    admin.shut_down();
    assert!(TcpStream::connect(address).is_err());
}

/// What curl would send.
fn ask(server: &Server, method: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(server.admin.address()).unwrap();
    let host = "Host: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n";
    write!(stream, "{method} {path} HTTP/1.1\r\n{host}{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_token_is_demanded_of_all_but_probes() {
    let server = Server::start_with(Some("s3cret"));
    for (method, path) in
        [("GET", "/metrics"), ("GET", "/"), ("GET", "/v1/shards"), ("POST", "/v1/reload")]
    {
        check(&ask(&server, method, path, ""), &["401", "www-authenticate: Bearer"]);
        check(&ask(&server, method, path, "Authorization: Bearer s3cre\r\n"), &["401"]);
        check(&ask(&server, method, path, "Authorization: Basic s3cret\r\n"), &["401"]);
    }
    check(&ask(&server, "GET", "/healthz", ""), &["200"]);
    let token = "Authorization: Bearer s3cret\r\n";
    check(&ask(&server, "GET", "/metrics", token), &["200", "mailrace_build_info"]);
    check(&ask(&server, "POST", "/v1/reload", token), &["200", "a changed"]);
    let error = post(server.admin.address(), Some("s3cret"), "/v1/reload").unwrap_err();
    assert_eq!(error.to_string(), "bad key\n");
    let error = post(server.admin.address(), None, "/v1/reload").unwrap_err();
    assert!(error.to_string().contains("a token is required"), "{error}");
}

#[test]
fn a_drain_ends_readiness_before_its_answer() {
    let server = Server::start_with(Some("s3cret"));
    server.published.set_state(ShardState::Serving);
    server.ready.set_listening();
    check(&ask(&server, "POST", "/v1/drain", ""), &["401"]);
    check(&ask(&server, "GET", "/readyz", ""), &["200"]);
    let answer = post(server.admin.address(), Some("s3cret"), "/v1/drain").unwrap();
    assert_eq!(answer, "{\"draining\":true,\"lead_seconds\":2.5}\n");
    check(&ask(&server, "GET", "/readyz", ""), &["503", "draining"]);
}

#[test]
fn a_web_page_orders_nothing() {
    let server = Server::start();
    check(&ask(&server, "POST", "/v1/drain", "Origin: http://evil.example\r\n"), &["403"]);
    check(&ask(&server, "POST", "/v1/reload", "Origin: http://evil.example\r\n"), &["403"]);
    check(&ask(&server, "POST", "/v1/reload", ""), &["200", "a changed"]);
    check(&ask(&server, "GET", "/v1/reload", ""), &["405"]);
}

#[test]
fn nobody_there_is_a_clear_error() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = post(address, None, "/v1/reload").unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("no answer from http://{address} (server.admin")),
        "{error}"
    );
}

/// The page holds nothing: a browser loads it without the token, which its data demand.
#[test]
fn the_page_is_loaded_without_the_token_and_its_data_are_not() {
    let server = Server::start_with(Some("s3cret"));
    let html = "Accept: text/html,*/*\r\n";
    let page = ask(&server, "GET", "/", html);
    check(&page, &["200 OK", "content-security-policy: default-src 'none'; script-src 'self'"]);
    assert!(!page.contains("1.2.3"), "{page}");
    check(&ask(&server, "GET", "/page/live.js", ""), &["200 OK", "text/javascript", "nosniff"]);
    for none in ["/page/other.js", "/page/..%2fmod.rs", "/page/"] {
        check(&ask(&server, "GET", none, ""), &["404"]);
    }
    check(&ask(&server, "GET", "/v1/live", html), &["401"]);
    check(&ask(&server, "GET", "/metrics", html), &["401"]);
}

/// Reads what a viewer of `/v1/live` gets until it has seen `wanted`.
fn view(server: &Server, wanted: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.admin.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET /v1/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut got = String::new();
    let mut chunk = [0; 4096];
    while !got.contains(wanted) {
        let len = stream.read(&mut chunk).unwrap();
        assert!(len > 0, "it ended: {got}");
        got.push_str(&String::from_utf8_lossy(&chunk[..len]));
    }
    (stream, got)
}

#[test]
fn viewers_get_samples_and_are_bounded() {
    let server = Server::start();
    let (first, got) = view(&server, "event: sample");
    check(&got, &["text/event-stream", "event: history\ndata: [", "\"version\":\"1.2.3\""]);
    check(&got, &["\"messages\":0", "\"state\":\"recovering\"", "\"free_bytes\":1048576"]);
    // Nobody reads these.
    let idle: Vec<_> = (1..64).map(|_| view(&server, "200 OK")).collect();
    check(&server.get("/v1/live"), &["503", "too many viewers"]);
    check(&server.get("/metrics"), &["200 OK"]);
    drop((first, idle));
    // A place is free once the server has written to a connection that is gone.
    let began = std::time::Instant::now();
    while server.get("/healthz").contains("503") || is_full(&server) {
        assert!(began.elapsed() < Duration::from_secs(10), "their places are free");
        std::thread::yield_now();
    }
}

fn is_full(server: &Server) -> bool {
    let mut stream = TcpStream::connect(server.admin.address()).unwrap();
    write!(stream, "GET /v1/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    status.ends_with(b"503")
}
