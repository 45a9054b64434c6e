//! What the end-to-end tests share: a server of their own on ephemeral ports, a plain client,
//! messages that tell who sent them, and the way to read a record back.
#![allow(dead_code, reason = "each test binary uses its part")]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

pub mod machine;
pub mod ports;
pub mod protobuf;
pub mod servers;

mod client;
mod messages;
mod server;

#[allow(unused_imports, reason = "each test binary uses its part")]
pub use {
    client::{Client, stuffed},
    messages::{body, bulk, id_of, read_bulk},
    server::{Failure, Launch, MAILRACE, Server, ended, signal, troubles, without_settings},
};

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// So many sessions, each of which is asked for the mail data of a message.
#[track_caller]
pub fn in_data(server: &Server, count: usize) -> Vec<Client> {
    let begin = |_| {
        let mut client = server.client();
        client.ehlo();
        client.begin_data();
        client
    };
    (0..count).map(begin).collect()
}

/// Raises a flag when it is dropped, by a panic too: threads that wait for it never outlive a test
/// that failed.
pub struct Raise<'a>(pub &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends so many messages of about so many bytes over one session; their ids.
pub fn send(server: &Server, count: u64, bytes: usize) -> Vec<String> {
    let mut client = server.client();
    client.ehlo();
    (0..count).map(|seed| id_of(&client.bdat(&body(seed, bytes)))).collect()
}

/// Runs `mailrace log ...` over a data directory and returns what it printed.
pub fn log_command(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(MAILRACE)
        .arg("log")
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .output()
        .expect("it runs");
    succeeded(&format!("log {arguments:?}"), done).stdout
}

/// What `mailrace refusals ls --json` prints once so many are written.
#[track_caller]
pub fn refusals(server: &Server, count: usize) -> String {
    eventually("refusals are written", Duration::from_secs(20), || {
        server.metric("mailrace_log_refusals_written_total", &[]) >= count as f64
    });
    let mut command = Command::new(MAILRACE);
    command.args(["refusals", "ls", "--json", "--dir"]).arg(&server.dir);
    let text = String::from_utf8(output_of(command).stdout).expect("JSON");
    assert_eq!(text.lines().count(), count, "{text}");
    text
}

pub fn log_get(dir: &Path, id: &str) -> Vec<u8> {
    log_command(dir, &["get", id])
}

/// The segment files of the first shard, in their order.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("shard-000")).expect("a shard");
    let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    found.sort();
    found
}

/// The envelope of a record: `log get --envelope --json`.
pub fn log_envelope(dir: &Path, id: &str) -> serde_json::Value {
    let line = log_command(dir, &["get", id, "--envelope", "--json"]);
    serde_json::from_slice(&line).expect("a JSON line")
}

/// How many records `log verify` finds sound; fails where one is not.
pub fn verified(dir: &Path) -> u64 {
    let told = String::from_utf8(log_command(dir, &["verify"])).unwrap();
    // Notes may come before it: of offsets that a torn tail left out, say.
    let count = told.lines().last().and_then(|last| last.strip_suffix(" verified"));
    let count = count.and_then(|count| count.split_once(" record")).map(|(count, _)| count.parse());
    count.and_then(Result::ok).unwrap_or_else(|| panic!("{told}"))
}

#[track_caller]
pub fn succeeded(what: &str, output: Output) -> Output {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {} {text}", output.status);
    output
}

/// Runs it to its end, which must come by itself: a server that starts against all expectation
/// fails the test instead of stopping it.
#[track_caller]
pub fn output_of(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let (out, err) = (thread::spawn(|| all_of(out)), thread::spawn(|| all_of(err)));
    let began = Instant::now();
    let mut status = child.try_wait().expect("a child of ours");
    while status.is_none() && began.elapsed() < Duration::from_secs(40) {
        thread::sleep(Duration::from_millis(10));
        status = child.try_wait().expect("a child of ours");
    }
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let [stdout, stderr] = [out, err].map(|reader| reader.join().expect("it only reads"));
    let Some(status) = status else {
        let said = [stdout, stderr].concat();
        panic!("it does not end: {command:?}: {}", String::from_utf8_lossy(&said));
    };
    Output { status, stdout, stderr }
}

fn all_of(mut pipe: impl Read) -> Vec<u8> {
    let mut octets = Vec::new();
    let _ = pipe.read_to_end(&mut octets);
    octets
}

/// Waits until something holds; asks often, so it takes no longer than the thing itself.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Every file below a folder by its path there.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Whether the counts are those of a CI run: `CI` is set.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// A count that may be chosen by hand through the environment.
pub fn count_from(variable: &str, else_: usize) -> usize {
    let text = std::env::var(variable).ok();
    text.map_or(else_, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}
