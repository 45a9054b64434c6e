//! Every metric is moved by what it counts: each module drives real servers, causes the real events,
//! and sees the series move. A series that is in no module, nor excused below, fails the check.

mod disk;
mod export;
mod faults;
mod gates;
mod log;
mod overload;
mod process;
mod sessions;
mod starts;
mod watched;

pub use sessions::user_add;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::support::{
    self, Launch, Server,
    servers::{certificates, secure},
};

/// Longest until a metric shows what happened: retention looks each five seconds.
const WAIT: Duration = Duration::from_secs(20);

/// A family without its prefix, a closed label, and its values; `""`: it has none.
type Move = (&'static str, &'static str, &'static [&'static str]);

/// What a module moves.
type Moves = &'static [Move];

/// What is moved elsewhere: file and test. Or by nothing, and why.
const EXCUSED: &[(&str, &str, &[&str], &str)] = &[
    (
        "build_info",
        "",
        &[],
        "always 1; tests/admin/metrics/process.rs a_process_shows_what_it_does",
    ),
    (
        "smtp_messages_rejected_total",
        "reason",
        &["verdict"],
        "tests/verdict/reject.rs forged_mail_is_refused_and_in_no_log",
    ),
    ("smtp_replies_total", "code", &["other"], "nothing: no reply has another code"),
    (
        "smtp_sessions_closed_total",
        "reason",
        &["io_error"],
        "nothing: a panic in a session, or TLS that fails on our side",
    ),
];

/// Labels that say whose series it is, not what happened.
const WHOSE: [&str; 7] = ["listener", "exporter", "group", "shard", "le", "version", "revision"];

/// All series of a scrape.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn of(server: &Server) -> Self {
        let (status, text) = server.page("/metrics");
        assert_eq!(status, 200);
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let mut all = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let twice = all.insert(series.to_owned(), value.parse().unwrap());
            assert!(twice.is_none(), "twice: {series}");
        }
        Self(all)
    }

    /// Sum of a family's series with this label; of a histogram, how many were counted.
    fn sum(&self, family: &str, label: &str) -> f64 {
        let one = |(series, value): (&String, &f64)| {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let name = name.strip_prefix("mailrace_").unwrap_or(name);
            let name = name.strip_suffix("_count").unwrap_or(name);
            (name == family && labels.contains(label)).then_some(*value)
        };
        self.0.iter().filter_map(one).sum()
    }
}

/// Fails unless each of these has another value than before, within a while.
#[track_caller]
fn moved(server: &Server, before: &Scrape, moves: &[Move]) {
    let began = Instant::now();
    loop {
        let now = Scrape::of(server);
        let still = standing(before, &now, moves);
        if still.is_empty() {
            return;
        }
        assert!(began.elapsed() < WAIT, "not moved: {still:?}; stderr: {}", server.errors());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn standing(before: &Scrape, now: &Scrape, moves: &[Move]) -> Vec<String> {
    let mut still = Vec::new();
    for (family, key, values) in moves {
        let labels: Vec<String> = match values {
            [] => vec![String::new()],
            values => values.iter().map(|value| format!("{key}=\"{value}\"")).collect(),
        };
        for label in labels {
            if before.sum(family, &label) == now.sum(family, &label) {
                still.push(format!("{family} {label}"));
            }
        }
    }
    still
}

/// What a series counts: its family, and its closed labels.
fn meanings(text: &str) -> BTreeSet<(String, String)> {
    let histograms: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"))
        .collect();
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let suffixes = ["_bucket", "_sum", "_count"].into_iter();
        let mut family = name;
        for suffix in suffixes {
            match name.strip_suffix(suffix) {
                Some(stem) if histograms.contains(stem) => family = stem,
                _ => {}
            }
        }
        let family = family.strip_prefix("mailrace_").unwrap_or(family).to_owned();
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let closed: Vec<_> = labels
            .filter(|label| !WHOSE.iter().any(|w| label.starts_with(&format!("{w}="))))
            .collect();
        if closed.is_empty() {
            found.insert((family.clone(), String::new()));
        }
        found.extend(closed.into_iter().map(|label| (family.clone(), label.to_owned())));
    }
    found
}

/// A test that is named must be there.
#[track_caller]
fn check_excuse(why: &str) {
    let place = why.rsplit("; ").next().unwrap().trim_start_matches("nothing: ");
    let Some((file, rest)) = place.split_once(".rs ") else {
        assert!(why.starts_with("nothing"), "neither a test nor nothing: {why}");
        return;
    };
    let name = rest.split(' ').next().unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{file}.rs"));
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.contains(&format!("fn {name}(")), "there is no {file}.rs {name}");
}

#[test]
fn every_series_is_moved_by_a_test() {
    let case = secure::Case::with(
        "starttls",
        &["export.0.name=out", "export.0.type=blackhole", "listener.0.dns.reverse=true"],
    );
    let (_, text) = case.server.page("/metrics");
    let lists: &[Moves] = &[
        sessions::MOVES,
        sessions::TLS_MOVES,
        sessions::BUSY_MOVES,
        faults::MOVES,
        gates::MOVES,
        gates::DNS_MOVES,
        gates::DNS_TROUBLE_MOVES,
        disk::MOVES,
        disk::SCRUB_MOVES,
        disk::SCRUB_FAILS,
        overload::MOVES,
        starts::MOVES,
        watched::MOVES,
        log::MOVES,
        log::TROUBLE_MOVES,
        log::REFUSAL_MOVES,
        export::MOVES,
        export::TROUBLE_MOVES,
        export::DROPPED_MOVES,
        process::LIVE,
        process::FAILED,
        process::TAKEN,
        process::LATE,
        process::UNREAD,
    ];
    let lists = lists.iter().copied().flatten().map(|(family, key, values)| (family, key, values));
    let excused = EXCUSED.iter().map(|(family, key, values, why)| {
        check_excuse(why);
        (family, key, values)
    });
    let known: BTreeSet<(String, String)> = lists
        .chain(excused)
        .flat_map(|(family, key, values)| {
            let labels: Vec<String> = match values {
                [] => vec![String::new()],
                values => values.iter().map(|value| format!("{key}=\"{value}\"")).collect(),
            };
            labels.into_iter().map(|label| ((*family).to_owned(), label))
        })
        .collect();
    let rendered = meanings(&text);
    let unmoved: Vec<_> = rendered.difference(&known).collect();
    assert!(unmoved.is_empty(), "nothing moves {unmoved:#?}");
    let gone: Vec<_> = known.difference(&rendered).collect();
    assert!(gone.is_empty(), "nothing renders {gone:#?}");
}

/// The README's own MX example, on ports of this machine: two addresses and a socket a listener.
#[test]
fn no_series_is_there_twice_in_the_readme_example() {
    let readme = include_str!("../../../README.md");
    let block = readme.split("```toml\n").find(|block| block.contains("name = \"submissions\""));
    let block = block.unwrap().split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    certificates::Authority::new().issue(dir.path(), "server");
    std::fs::write(path("recipients"), "bob@example.com\n").unwrap();
    std::fs::write(path("users"), "").unwrap();
    std::fs::write(path("senders"), "ann: ann@example.com\n").unwrap();
    let mut text = block.to_owned();
    for (written, here) in [
        ("/etc/mailrace/tls.crt", path("server.pem")),
        ("credential:tls.key", path("server.key")),
        ("/etc/mailrace/recipients", path("recipients")),
        ("/etc/mailrace/users", path("users")),
        ("/etc/mailrace/senders", path("senders")),
        ("unix:/run/mailrace/lmtp", format!("unix:{}", path("lmtp"))),
        ("\"10.0.0.5:24\"", "\"127.0.0.1:0\"".to_owned()),
        ("\"0.0.0.0:465\"", "\"127.0.0.1:0\"".to_owned()),
        ("trusted = [\"10.0.0.0/8\"]", "trusted = [\"127.0.0.0/8\"]".to_owned()),
    ] {
        assert!(text.contains(written), "{written} is not in the example any more");
        text = text.replace(written, &here);
    }
    std::fs::write(path("mailrace.toml"), text).unwrap();
    let server = Launch::new(&dir.path().join("data"))
        .file(&dir.path().join("mailrace.toml"))
        .set("listener.0.listen=127.0.0.1:0,127.0.0.2:0")
        .set("server.dns.servers=127.0.0.1:1")
        .set("server.shards=2")
        .set("log.segment_size=1MiB")
        .set("export.0.name=out")
        .set("export.0.type=blackhole")
        .start();
    let mut places = Vec::new();
    for line in server.greeting.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["smtp", address, ..] = words.as_slice() {
            places.push(address.parse().unwrap());
        }
    }
    assert_eq!(places.len(), 3, "{}", server.greeting);
    let before = Scrape::of(&server);
    for (at, mails) in [(0, 2), (1, 4)] {
        for _ in 0..mails {
            let mut client = support::Client::connect(places[at]);
            client.ehlo();
            for (line, code) in [
                ("MAIL FROM:<a@client.test>", "250"),
                ("RCPT TO:<bob@example.com>", "250"),
                ("DATA", "354"),
                ("hi\r\n.", "250"),
                ("QUIT", "221"),
            ] {
                let reply = client.say(line);
                assert!(reply.starts_with(code), "{line}: {reply}");
            }
        }
    }
    let after = Scrape::of(&server);
    let received = |scrape: &Scrape| scrape.sum("smtp_messages_received_total", "listener=\"mx\"");
    assert_eq!(received(&after) - received(&before), 6.0);
    let connections = after.sum("smtp_connections_total", "listener=\"mx\"");
    assert_eq!(connections, 6.0);
    // The other detail as well.
    Scrape::parse(&server.page("/metrics?detail=shard").1);
    for page in ["/metrics", "/metrics?detail=shard"] {
        support::machine::promtool(&server.page(page).1);
    }
}
