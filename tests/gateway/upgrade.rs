//! `mailrace upgrade`: one program after another in the same process, and nobody is refused.

use std::{
    io::Read,
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::support::{self, Client, Launch, MAILRACE, Server, body, eventually, id_of, signal};

/// Longest that an upgrade may take, the time of sessions aside.
const SOON: Duration = Duration::from_secs(20);

/// A server that runs a copy of the program, which a test can replace.
struct Place {
    dir: tempfile::TempDir,
    program: PathBuf,
    server: Server,
}

impl Place {
    fn with(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("mailrace");
        std::fs::copy(MAILRACE, &program).unwrap();
        let launch = Launch::new(&dir.path().join("data")).program(&program);
        let server = settings.iter().fold(launch, |launch, setting| launch.set(setting)).start();
        Self { dir, program, server }
    }

    /// What a package manager does: a new file under the same name.
    fn replace(&self, script: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, script).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &self.program).unwrap();
    }

    fn replace_by_itself(&self) {
        let new = self.dir.path().join("new");
        std::fs::copy(MAILRACE, &new).unwrap();
        std::fs::rename(&new, &self.program).unwrap();
    }

    fn upgrade(&self, arguments: &[&str]) -> Output {
        upgrade(&self.server, arguments)
    }

    /// The server takes mail and has it in its log.
    #[track_caller]
    fn serves(&self) {
        let mut client = self.server.client();
        client.ehlo();
        let message = body(9, 3_000);
        assert_eq!(self.server.get(&id_of(&client.bdat(&message))), message);
    }

    fn log_dir(&self) -> &Path {
        &self.server.dir
    }
}

fn upgrade(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(MAILRACE);
    support::without_settings(&mut command);
    command.args(["upgrade", "--admin", &server.admin.to_string()]).args(arguments);
    command.output().unwrap()
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(why), "{told}");
}

/// Sends messages, one or a few in each connection, until it is told to end; their ids.
fn load(server: &Server, seed: u64, each: usize, ends: &AtomicBool) -> Vec<String> {
    let mut ids = Vec::new();
    let message = body(seed, 2_000);
    while !ends.load(Ordering::Relaxed) {
        let mut client = Client::connect(server.smtp);
        client.ehlo();
        for _ in 0..each {
            ids.push(id_of(&client.bdat(&message)));
        }
        assert!(client.say("QUIT").starts_with("221 "));
    }
    ids
}

/// Twenty upgrades: no connection is refused, no session ended early, no acknowledged mail lost.
#[test]
fn upgrades_under_load() {
    let place = Place::with(&["server.shards=2", "log.segment_size=16MiB"]);
    let ends = AtomicBool::new(false);
    let ids = thread::scope(|scope| {
        let _over = support::Raise(&ends);
        let (server, ends) = (&place.server, &ends);
        let senders: Vec<_> = [(1, 1), (2, 1), (3, 5), (4, 20)]
            .into_iter()
            .map(|(seed, each)| scope.spawn(move || load(server, seed, each, ends)))
            .collect();
        for _ in 0..20 {
            place.replace_by_itself();
            support::succeeded("upgrade", place.upgrade(&["--drain", "20s"]));
        }
        ends.store(true, Ordering::Relaxed);
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect::<Vec<_>>()
    });
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "an id names one message");
    assert!(ids.len() > 20, "{} messages", ids.len());
    let dir = place.log_dir().to_owned();
    let told = place.server.stop_and_read();
    assert_eq!(told.matches(" upgraded from=").count(), 20, "{told}");
    assert_eq!(support::troubles(&told), "");
    assert_eq!(support::verified(&dir), ids.len() as u64);
}

/// As the load tester counts it: open loop, a few messages a connection, and every 250 is read back.
#[test]
fn bench_counts_no_refusal_during_upgrades() {
    let place = Place::with(&["server.shards=2", "log.segment_size=16MiB"]);
    let mut bench = Command::new(MAILRACE);
    support::without_settings(&mut bench);
    bench.args(["bench", &format!("smtp://{}", place.server.smtp), "-z", "8s", "--warmup", "0s"]);
    bench.args(["-r", "200", "-c", "8", "--messages-per-connection", "5", "--late-limit", "60s"]);
    bench.args(["--no-tui", "--format", "json", "--verify", "--log-dir"]).arg(place.log_dir());
    let bench = bench.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut bench = bench.spawn().unwrap();
    let mut under_load = 0;
    for _ in 0..3 {
        place.replace_by_itself();
        support::succeeded("upgrade", place.upgrade(&["--drain", "20s"]));
        under_load += u32::from(bench.try_wait().unwrap().is_none());
    }
    let output = bench.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert!(under_load > 0, "no upgrade fell into the load");
    assert_eq!(report["errors"]["total"], 0, "{:#}", report["errors"]);
    assert_eq!(report["verify"]["lost"], 0, "{:#}", report["verify"]);
    assert_eq!(report["verify"]["found"], report["verify"]["acked"], "{:#}", report["verify"]);
    assert!(report["verify"]["acked"].as_u64().unwrap() > 0, "{:#}", report["verify"]);
    assert_eq!(place.server.stop(), Some(0));
}

/// A message in progress is finished by the former program, and whoever comes meanwhile is greeted
/// by the next.
#[test]
fn sessions_have_their_time() {
    let place = Place::with(&["server.shards=1"]);
    let mut client = place.server.client();
    client.ehlo();
    client.begin_data();
    client.send(b"Subject: halfway\r\n");
    eventually("the octets arrive", SOON, || {
        place.server.metric("mailrace_shard_inflight_bytes", &[]) > 0.0
    });
    thread::scope(|scope| {
        let upgraded = scope.spawn(|| place.upgrade(&["--drain", "20s", "--json"]));
        place.server.says("upgrade begins");
        // Accepted by the kernel alone.
        let waiting = TcpStream::connect(place.server.smtp).unwrap();
        client.send(b"\r\nthe rest\r\n.\r\n");
        let first = id_of(&client.reply());
        let second = id_of(&client.bdat(b"Subject: one more\r\n\r\nmay come\r\n"));
        assert!(!upgraded.is_finished(), "it waits for the session");
        assert!(client.say("QUIT").starts_with("221 "));
        let mut next = Client::over(waiting);
        assert!(next.reply().starts_with("220 "));
        next.ehlo();
        let third = id_of(&next.bdat(b"Subject: of the next\r\n\r\nprogram\r\n"));
        let output = support::succeeded("upgrade", upgraded.join().unwrap());
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["upgraded"], true);
        assert_eq!(told["from"], env!("CARGO_PKG_VERSION"));
        for (id, text) in [(first, "the rest"), (second, "may come"), (third, "program")] {
            let message = String::from_utf8(place.server.get(&id)).unwrap();
            assert!(message.contains(text), "{message}");
        }
    });
}

/// A session that stays longer than it may gets 421, and no sooner.
#[test]
fn a_session_that_stays_gets_421() {
    let place = Place::with(&["server.shards=1"]);
    let mut client = place.server.client();
    client.ehlo();
    support::succeeded("upgrade", place.upgrade(&["--drain", "100ms"]));
    let reply = client.reply();
    assert!(reply.starts_with("421 4.3.2 "), "{reply}");
    assert_eq!(client.rest(), b"");
    place.serves();
}

/// A program that is not fit changes nothing, and its reason is told.
#[test]
fn a_program_that_is_not_fit() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("mailrace");
    std::fs::copy(MAILRACE, &program).unwrap();
    let server = Launch::new(&dir.path().join("data")).program(&program).file(file.path()).start();
    let place = Place { dir, program, server };
    place.replace("#!/bin/sh\nexit 0\n");
    refused(&place.upgrade(&[]), "is not Mailrace");
    place.replace("#!/bin/sh\necho it is broken >&2\nexit 3\n");
    refused(&place.upgrade(&[]), "it is broken");
    std::fs::remove_file(&place.program).unwrap();
    refused(&place.upgrade(&[]), "cannot run ");
    place.replace_by_itself();
    std::fs::write(file.path(), "[server]\nshard = 3\n").unwrap();
    refused(&place.upgrade(&[]), "server.shard");
    std::fs::write(file.path(), "[[listener]]\nname = \"other\"\nlisten = [\"127.0.0.1:0\"]\n")
        .unwrap();
    refused(&place.upgrade(&[]), "that needs a restart");
    place.server.says("this program goes on");
    place.serves();
    std::fs::write(file.path(), "").unwrap();
    support::succeeded("upgrade", place.upgrade(&[]));
    place.serves();
}

/// A program that passes its check and cannot start: the former goes on, with its listeners.
#[test]
fn a_program_that_cannot_start() {
    let place = Place::with(&["server.shards=2", "server.log_level=info"]);
    let script = format!(
        "#!/bin/sh\ncase $1 in\nserve) shift; exec '{MAILRACE}' serve --set log.dir=/proc/no \"$@\" \
         --set log.dir=/proc/no ;;\nesac\nexec '{MAILRACE}' \"$@\"\n"
    );
    place.replace(&script);
    let held = TcpStream::connect(place.server.smtp).unwrap();
    let mut held = Client::over(held);
    assert!(held.reply().starts_with("220 "));
    refused(&place.upgrade(&["--drain", "100ms"]), "cannot start: ");
    place.server.says("the former program goes on");
    place.serves();
    // It can try again, in the place where it came from.
    place.replace_by_itself();
    support::succeeded("upgrade", place.upgrade(&[]));
    place.serves();
}

/// One at a time; and whoever stops the server meanwhile is obeyed.
#[test]
fn an_upgrade_during_an_upgrade() {
    let mut place = Place::with(&["server.shards=1"]);
    let mut client = place.server.client();
    client.ehlo();
    client.begin_data();
    thread::scope(|scope| {
        let first = scope.spawn(|| place.upgrade(&["--drain", "20s"]));
        place.server.says("upgrade begins");
        refused(&place.upgrade(&[]), "an upgrade is in progress");
        signal(&place.server.child, libc::SIGTERM);
        client.send(b"Subject: last\r\n\r\nlast\r\n.\r\n");
        id_of(&client.reply());
        refused(&first.join().unwrap(), "");
    });
    assert_eq!(place.server.ended(SOON), Some(0));
    assert!(place.server.errors().contains("no upgrade: the server is stopping"));
}

/// SIGUSR2 asks as well; a socket of the file system stays where it is.
#[test]
fn by_signal_and_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lmtp.sock");
    let listen = format!("listener.1.listen=unix:{}", socket.display());
    let lmtp = ["listener.1.name=lmtp", "listener.1.protocol=lmtp", &listen];
    let place = Place::with(&[&["server.shards=2"][..], &lmtp].concat());
    signal(&place.server.child, libc::SIGUSR2);
    place.server.says(" upgraded from=");
    place.serves();
    let mut greeting = [0; 4];
    UnixStream::connect(&socket).unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ");
    assert_eq!(place.server.stop(), Some(0));
    assert!(!socket.exists(), "whoever stops for good removes it");
}
