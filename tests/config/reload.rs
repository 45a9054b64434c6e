//! A configuration taken up by a server that runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::support::{
    self, Launch, Server, body, eventually, id_of, servers::certificates, signal,
};

struct Setup {
    dir: tempfile::TempDir,
    file: PathBuf,
    server: Server,
}

impl Setup {
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.toml");
        fs::write(&file, text).unwrap();
        let server = Launch::new(&dir.path().join("data"))
            .file(&file)
            .set("server.shards=2")
            .set("log.segment_size=16MiB")
            .start();
        Self { dir, file, server }
    }

    fn write(&self, text: &str) {
        fs::write(&self.file, text).unwrap();
    }

    /// `mailrace reload`, once the server's log has said what came of it.
    fn reload(&self) -> Output {
        let before = self.logged();
        let output = Command::new(env!("CARGO_BIN_EXE_mailrace"))
            .args(["reload", "-c"])
            .arg(&self.file)
            .args(["--set", &format!("server.admin.listen={}", self.server.admin)])
            .output()
            .unwrap();
        eventually("it was logged", Duration::from_secs(10), || self.logged() > before);
        output
    }

    fn successful(&self) -> f64 {
        self.server.metric("mailrace_config_last_reload_successful", &[])
    }

    /// Reloads that the log has reported: its lines are written a moment after the event.
    fn logged(&self) -> usize {
        let errors = self.server.errors();
        errors.matches("configuration reloaded").count()
            + errors.matches("keeping the previous configuration").count()
    }

    /// Sends SIGHUP; what the last reload came to, once it is over.
    fn hang_up(&self) -> f64 {
        let logged = || self.logged();
        let before = logged();
        signal(&self.server.child, libc::SIGHUP);
        eventually("it was read", Duration::from_secs(10), || logged() > before);
        self.successful()
    }
}

fn size(server: &Server) -> String {
    let reply = server.client().say("EHLO a");
    let size = reply.lines().find_map(|line| line.get(4..)?.strip_prefix("SIZE "));
    size.unwrap().to_owned()
}

#[track_caller]
fn good(output: Output) -> String {
    let output = support::succeeded("mailrace reload", output);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_valid_is_taken_up_by_every_shard_and_sessions_go_on() {
    let setup = Setup::start("");
    let mut session = setup.server.client();
    session.ehlo();
    session.begin_data();
    let before = setup.server.metric("mailrace_config_last_reload_success_timestamp_seconds", &[]);
    assert!(before > 1.6e9, "the start counts: {before}");
    setup.write(
        "limits.message_size = \"1MiB\"\nserver.shards = 7\n[[listener]]\ngreet_check = true",
    );
    let told = good(setup.reload());
    assert!(told.contains("limits.message_size changed\n"), "{told}");
    assert!(told.contains("listener.smtp.greet_check changed\n"), "{told}");
    assert!(!told.contains("server.shards"), "--set wins over the file: {told}");
    for _ in 0..20 {
        assert_eq!(size(&setup.server), "1048576", "whichever shard it is");
    }
    session.send(b"hello\r\n.\r\n");
    let id = id_of(&session.reply());
    assert_eq!(setup.server.get(&id), b"hello\r\n");
    let after = setup.server.metric("mailrace_config_last_reload_success_timestamp_seconds", &[]);
    assert!(after > before);
    // Back again, by the signal.
    setup.write("");
    assert_eq!(setup.hang_up(), 1.0);
    assert_eq!(size(&setup.server), "26214400");
    assert!(good(setup.reload()).contains("no key changed"));
    drop(setup.dir);
}

#[test]
fn a_bad_file_changes_nothing_and_says_so() {
    let setup = Setup::start("limits.message_size = \"2MiB\"");
    for (text, told) in [
        ("limits.message_size = \"1MiB\"\nlimits.recipient = 5", "did you mean limits.recipients?"),
        ("limits.message_size = \"1MiB\"\nlimits.recipients = 5", "m.toml:2"),
        ("limits.message_size = ", "m.toml:1"),
        (
            "limits.message_size = \"1MiB\"\n[[listener]]\naccept.recipients_file = \"/nowhere/r\"",
            "/nowhere/r",
        ),
    ] {
        setup.write(text);
        let said = || setup.server.errors().matches(told).count();
        let before = said();
        let output = setup.reload();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && errors.contains(told), "{errors}");
        // The server itself was asked, so its log and its metric say so.
        assert_eq!(setup.successful(), 0.0, "{text}");
        assert_eq!(said(), before + 1, "{text}");
        setup.write("limits.message_size = \"2MiB\"");
        good(setup.reload());
        assert_eq!(setup.successful(), 1.0, "{text}");
        setup.write(text);
        assert_eq!(setup.hang_up(), 0.0, "{text}");
        assert_eq!(said(), before + 2, "{text}");
        assert_eq!(size(&setup.server), "2097152", "{text}");
    }
    setup.write("limits.message_size = \"3MiB\"");
    assert_eq!(setup.hang_up(), 1.0);
    assert_eq!(size(&setup.server), "3145728");
}

#[test]
fn what_needs_a_restart_is_named_and_waits() {
    let setup = Setup::start("server.hostname = \"one.example\"");
    setup.write(
        "server.hostname = \"two.example\"\nlimits.recipients = 200\n\
         [[listener]]\nname = \"smtp\"\n[[listener]]\nname = \"more\"\nlisten = [\"127.0.0.1:1\"]",
    );
    let told = good(setup.reload());
    assert!(told.contains("server.hostname takes effect with the next restart\n"), "{told}");
    assert!(told.contains("listener.more.listen takes effect with the next restart\n"), "{told}");
    assert!(told.contains("limits.recipients changed\n"), "{told}");
    let greeting = setup.server.client().say("EHLO a");
    assert!(greeting.starts_with("250-one.example\r\n"), "{greeting}");
    assert!(greeting.contains("RCPTMAX=200"), "{greeting}");
    let again = good(setup.reload());
    assert!(
        again.contains("server.hostname takes effect with the next restart\n"),
        "still: {again}"
    );
}

#[test]
fn exporters_come_go_and_change_while_others_go_on() {
    let setup = Setup::start("");
    let folder = |dir: &Path| fs::read_dir(dir).map_or(0, |entries| entries.count());
    let (a, b) = (setup.dir.path().join("a"), setup.dir.path().join("b"));
    let export = |name: &str, dir: &Path| {
        format!(
            "[[export]]\nname = \"{name}\"\ntype = \"files\"\nlayout = \"eml\"\nstart = \"start\"\n\
             dir = {dir:?}\n"
        )
    };
    let mut client = setup.server.client();
    client.ehlo();
    id_of(&client.data(b"one\r\n"));
    setup.write(&export("a", &a));
    assert!(good(setup.reload()).contains("exporter a started"));
    eventually("the first is exported", Duration::from_secs(20), || folder(&a) == 1);
    setup.write(&format!("{}{}", export("a", &a), export("b", &b)));
    let told = good(setup.reload());
    assert!(told.contains("exporter b started") && !told.contains("exporter a "), "{told}");
    id_of(&client.data(b"two\r\n"));
    eventually("both have both", Duration::from_secs(20), || folder(&a) == 2 && folder(&b) == 2);
    // It goes on where it was, in another place.
    let moved = setup.dir.path().join("moved");
    setup.write(&export("b", &moved));
    let told = good(setup.reload());
    assert!(told.contains("exporter a ") && told.contains("exporter b "), "{told}");
    id_of(&client.data(b"three\r\n"));
    eventually("the third alone", Duration::from_secs(20), || folder(&moved) == 1);
    let (_, metrics) = setup.server.page("/metrics");
    assert!(!metrics.contains("exporter=\"a\"") && metrics.contains("exporter=\"b\""));
    assert_eq!((folder(&a), folder(&b)), (2, 2));
}

/// The issue's own: a hundred reloads under load, no session dropped, no mail lost.
#[test]
fn a_hundred_reloads_under_load_lose_nothing() {
    let setup = Setup::start("");
    let stop = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let ids = thread::scope(|scope| {
        let clients: Vec<_> = (0..8_u64)
            .map(|worker| {
                let (server, stop, sent) = (&setup.server, &stop, &sent);
                scope.spawn(move || {
                    // One session for the whole time.
                    let mut client = server.client();
                    client.ehlo();
                    let mut ids = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let seed = worker << 32 | ids.len() as u64;
                        let message = body(seed, 500 + (seed % 60_000) as usize);
                        let reply = match seed % 2 {
                            0 => client.data(&message),
                            _ => client.bdat(&message),
                        };
                        ids.push((id_of(&reply), seed));
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(client.say("QUIT").starts_with("221 "));
                    ids
                })
            })
            .collect();
        let done = support::Raise(&stop);
        for round in 0..100 {
            let before = sent.load(Ordering::Relaxed);
            setup.write(&format!(
                "limits.recipients = {}\nlimits.timeout.command = \"{}s\"\n\
                 [[listener]]\ngreet_check = {}",
                100 + round,
                60 + round,
                round % 2 == 0
            ));
            if round % 2 == 0 {
                good(setup.reload());
            } else {
                assert_eq!(setup.hang_up(), 1.0);
            }
            eventually("mail flows on", Duration::from_secs(20), || {
                sent.load(Ordering::Relaxed) > before
            });
        }
        drop(done);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(ids.len() >= 100, "{}", ids.len());
    assert_eq!(setup.server.metric("mailrace_smtp_sessions_closed_total", &["quit"]), 8.0);
    let data = setup.server.dir.clone();
    assert_eq!(setup.server.stop(), Some(0));
    assert_eq!(support::verified(&data), ids.len() as u64);
    for (id, seed) in ids.iter().step_by(ids.len().div_ceil(200)) {
        assert_eq!(support::log_get(&data, id), body(*seed, 500 + (seed % 60_000) as usize));
    }
}

/// A recipients' file is read anew whether or not the configuration names another one.
#[test]
fn recipients_are_swapped() {
    let setup = Setup::start("");
    let list = setup.dir.path().join("recipients");
    let policy = format!(
        "[[listener]]\naccept = {{ domains = [\"ours.example\"], recipients_file = {list:?} }}"
    );
    let answers = || {
        ["old@ours.example", "new@ours.example", "a@other.example"].map(|recipient| {
            let mut client = setup.server.client();
            client.ehlo();
            assert!(client.say("MAIL FROM:<a@client.test>").starts_with("250 "));
            client.say(&format!("RCPT TO:<{recipient}>"))[..9].to_owned()
        })
    };
    assert_eq!(answers(), ["250 2.1.5", "250 2.1.5", "250 2.1.5"]);
    fs::write(&list, "old@ours.example\n").unwrap();
    setup.write(&policy);
    good(setup.reload());
    assert_eq!(answers(), ["250 2.1.5", "550 5.1.1", "550 5.7.1"]);
    fs::write(&list, "new@ours.example\n").unwrap();
    assert_eq!(setup.hang_up(), 1.0);
    assert_eq!(answers(), ["550 5.1.1", "250 2.1.5", "550 5.7.1"]);
    fs::write(&list, "a@ours.example\nnot an address\n").unwrap();
    assert_eq!(setup.hang_up(), 0.0);
    setup.server.says("recipients:2");
    assert_eq!(answers(), ["550 5.1.1", "250 2.1.5", "550 5.7.1"], "as before");
}

/// Other files for a certificate are served from then on; files that are not good change nothing.
#[test]
fn certificates_are_swapped() {
    let authority = certificates::Authority::new();
    let keys = tempfile::tempdir().unwrap();
    authority.write(keys.path(), "ca");
    authority.issue_for(keys.path(), "one", &["one.test", "localhost"]);
    authority.issue_for(keys.path(), "two", &["two.test", "localhost"]);
    let table = |name: &str| {
        let path = |kind: &str| keys.path().join(format!("{name}.{kind}"));
        format!("server.tls = {{ cert_file = {:?}, key_file = {:?} }}\n", path("pem"), path("key"))
    };
    let setup = Setup::start(&table("one"));
    let shown = || {
        let output = Command::new("openssl")
            .args(["s_client", "-starttls", "smtp", "-connect", &setup.server.smtp.to_string()])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ["one", "two"]
            .into_iter()
            .find(|name| text.contains(&format!("CN = {name}")))
            .map(str::to_owned)
    };
    if !support::machine::has("openssl") {
        return;
    }
    assert_eq!(shown().as_deref(), Some("one"));
    setup.write(&table("two"));
    assert!(good(setup.reload()).contains("server.tls.cert_file changed"));
    assert_eq!(shown().as_deref(), Some("two"));
    setup.write(&table("three"));
    assert_eq!(setup.hang_up(), 0.0);
    assert_eq!(shown().as_deref(), Some("two"), "as before");
    setup.write("");
    let told = good(setup.reload());
    assert!(told.contains("TLS of listener smtp takes effect with the next restart"), "{told}");
    assert_eq!(shown().as_deref(), Some("two"), "it is served until then");
}

/// The metric counts files: not listeners that name one, and not only the first that is wrong.
#[test]
fn files_that_cannot_be_used_are_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let (domains, recipients) = (dir.path().join("domains"), dir.path().join("recipients"));
    fs::write(&domains, "one.test\n").unwrap();
    fs::write(&recipients, "one@x.test\n").unwrap();
    let accept = format!(
        "accept.recipients_file = \"{}\"\naccept.domains_file = \"{}\"\n",
        recipients.display(),
        domains.display()
    );
    // Not the same `accept`, so each listener reads the files for itself.
    let more = "name = \"more\"\nlisten = [\"127.0.0.1:0\"]\naccept.subaddress = \"-\"\n";
    let setup = Setup::start(&format!("[[listener]]\n{accept}[[listener]]\n{more}{accept}"));
    let unusable =
        || setup.server.metric("mailrace_config_files_unusable", &["kind=\"recipients\""]);
    assert_eq!(unusable(), 0.0);
    let wait = Duration::from_secs(20);
    let told = |file: &Path| {
        let place = format!("{}:1: ", file.display());
        eventually("both listeners' reports", wait, || {
            setup.server.errors().matches(&place).count() >= 2
        });
    };
    fs::write(&recipients, "no mailbox\n").unwrap();
    told(&recipients);
    eventually("the metric", wait, || unusable() == 1.0);
    fs::write(&domains, "no domain\n").unwrap();
    told(&domains);
    eventually("the metric", wait, || unusable() == 2.0);
    fs::write(&recipients, "two@x.test\n").unwrap();
    eventually("the metric", wait, || unusable() == 1.0);
    fs::write(&domains, "two.test\n").unwrap();
    eventually("the metric", wait, || unusable() == 0.0);
}

/// As certificates and users: without a signal, and a bad file changes nothing.
#[test]
fn recipients_are_loaded_again_when_their_file_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recipients");
    fs::write(&file, "one@x.test\n").unwrap();
    let setup =
        Setup::start(&format!("[[listener]]\naccept.recipients_file = \"{}\"", file.display()));
    let taken = |recipient: &str| {
        let mut client = setup.server.client();
        client.ehlo();
        client.say("MAIL FROM:<a@b.test>");
        client.say(&format!("RCPT TO:<{recipient}>")).starts_with("250")
    };
    assert!(taken("one@x.test") && !taken("two@x.test"));
    let wait = Duration::from_secs(20);
    fs::write(&file, "one@x.test\ntwo@x.test\n").unwrap();
    eventually("the second recipient", wait, || taken("two@x.test"));
    // A mistake is reported with its line; what was loaded stays, also for those still listed.
    fs::write(&file, "two@x.test\nno mailbox\n").unwrap();
    let place = format!("{}:2: ", file.display());
    eventually("the report", wait, || setup.server.errors().contains(&place));
    assert!(taken("one@x.test") && taken("two@x.test"));
    let unusable =
        || setup.server.metric("mailrace_config_files_unusable", &["kind=\"recipients\""]);
    assert_eq!(unusable(), 1.0);
    fs::remove_file(&file).unwrap();
    eventually("the report", wait, || setup.server.errors().contains("No such file"));
    assert!(taken("one@x.test"));
    // Replaced as a whole, as most programs write it.
    let new = dir.path().join("new");
    fs::write(&new, "three@x.test\n").unwrap();
    fs::rename(&new, &file).unwrap();
    eventually("the third recipient", wait, || taken("three@x.test"));
    eventually("every shard has the new list", wait, || !taken("one@x.test"));
    assert_eq!(unusable(), 0.0);
}
