//! The configuration as operators meet it: the file, variables and flags, `check`, `config`, and a
//! server that runs by a file.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    self, Client, MAILRACE, ended, id_of, machine, output_of, signal, without_settings,
};

/// The program in a directory of the test's own, without settings of whoever runs the tests.
fn mailrace(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(MAILRACE);
    command.current_dir(dir).args(arguments);
    without_settings(&mut command);
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(machine::die_with_parent) };
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    output_of(mailrace(dir, arguments))
}

#[track_caller]
fn told(output: &Output, code: i32) -> (String, String) {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Value and origin of a key, as `check --effective --json` tells them.
fn effective(command: &mut Command, key: &str) -> (Value, String) {
    let (out, _) = told(&command.output().unwrap(), 0);
    let told = json(&out);
    let settings = told["settings"].as_array().unwrap();
    let found = settings.iter().find(|setting| setting["key"] == key).unwrap();
    (found["value"].clone(), found["origin"].as_str().unwrap().to_owned())
}

#[test]
fn mistakes_name_file_and_line_and_end_with_78() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("a.toml"),
        "[log]\ndri = \"/x\"\n[limits]\nrecipients = 5\n\n[[export]]\nname = \"k\"\n\
         type = \"kafka\"\nbrokers = [\"a:1\"]\ntopic = \"t\"\npassword = \"hunter2\"\n",
    )
    .unwrap();
    let lines = [
        "mailrace: log.dri (a.toml:2): unknown key; did you mean log.dir?",
        "mailrace: limits.recipients (a.toml:4): \"5\" is not a number from 100 to 100000",
        "mailrace: export.0.password (a.toml:11): a secret must not be written here: \
         put it into a file and set export.0.password_file to its path, or give it to the service \
         manager and set \
         export.0.password_file = \"credential:NAME\"",
    ];
    for subcommand in ["check", "serve", "doctor"] {
        let output = run(dir.path(), &[subcommand, "-c", "a.toml"]);
        let (out, err) = told(&output, 78);
        assert_eq!(err.lines().collect::<Vec<_>>(), lines, "{subcommand}");
        assert_eq!(out, "");
    }
    let (out, err) = told(&run(dir.path(), &["check", "-c", "a.toml", "--json"]), 78);
    assert_eq!(err, "");
    let told = json(&out);
    assert_eq!(told["ok"], false);
    assert_eq!(told["errors"].as_array().unwrap().len(), 3);
    let first = &told["errors"][0];
    assert_eq!((&first["key"], &first["file"]), (&"log.dri".into(), &"a.toml".into()));
    assert_eq!(first["line"], 2);
    assert!(!format!("{out}{lines:?}").contains("hunter2"));
}

#[test]
fn files_that_cannot_be_read_end_with_78() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad.toml"), "[log]\ndir = /x\n").unwrap();
    fs::write(dir.path().join("latin1.toml"), b"# caf\xe9").unwrap();
    for (file, message) in [
        ("none.toml", "mailrace: none.toml: there is no such file\n"),
        (".", "mailrace: .: is a directory; a file is needed\n"),
        ("bad.toml", "mailrace: bad.toml:2: column 7: not TOML: "),
        ("latin1.toml", "mailrace: latin1.toml: line 1 is not UTF-8\n"),
        (
            "/dev/zero",
            "mailrace: /dev/zero: is larger than 10 MiB, too large for a configuration file\n",
        ),
    ] {
        for subcommand in ["check", "serve"] {
            let (_, err) = told(&run(dir.path(), &[subcommand, "-c", file]), 78);
            assert!(err.starts_with(message), "{err}");
        }
    }
    // One that is there counts, named or not.
    fs::rename(dir.path().join("bad.toml"), dir.path().join("mailrace.toml")).unwrap();
    let (_, err) = told(&run(dir.path(), &["check"]), 78);
    assert!(err.starts_with("mailrace: ./mailrace.toml:2: column 7"), "{err}");
}

#[test]
fn flags_win_over_variables_and_these_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[log]\ndir = \"/file\"\nretention.age = \"1d\"\n";
    fs::write(dir.path().join("mailrace.toml"), text).unwrap();
    let check = ["check", "--effective", "--json"];
    let told = effective(&mut mailrace(dir.path(), &check), "log.dir");
    assert_eq!(told, ("/file".into(), "./mailrace.toml:2".to_owned()));
    let mut with_variable = mailrace(dir.path(), &check);
    with_variable.env("MAILRACE_LOG__DIR", "/variable");
    let told = effective(&mut with_variable, "log.dir");
    assert_eq!(told, ("/variable".into(), "environment MAILRACE_LOG__DIR".to_owned()));
    let told = effective(with_variable.args(["--set", "log.dir=/flag"]), "log.dir");
    assert_eq!(told, ("/flag".into(), "--set".to_owned()));
    let told = effective(&mut with_variable, "log.retention.age");
    assert_eq!(told, ("1d".into(), "./mailrace.toml:3".to_owned()));
    let told = effective(&mut with_variable, "limits.recipients");
    assert_eq!(told, (1000.into(), "default".to_owned()));
    // A named file stands in place of the other, and does not lie over it.
    fs::write(dir.path().join("b.toml"), "log.dir = \"/b\"").unwrap();
    let mut named = mailrace(dir.path(), &["check", "--effective", "--json", "-c", "b.toml"]);
    assert_eq!(effective(&mut named, "log.retention.age").1, "default");
}

#[test]
fn check_shows_files_of_secrets_and_not_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kafka.pw"), "hunter2").unwrap();
    fs::write(
        dir.path().join("mailrace.toml"),
        "[[export]]\nname = \"k\"\ntype = \"kafka\"\nbrokers = [\"a:1\"]\ntopic = \"t\"\n\
         user = \"u\"\npassword_file = \"credential:kafka.pw\"\n",
    )
    .unwrap();
    let mut check = mailrace(dir.path(), &["check", "--effective"]);
    let (out, _) = told(&check.env("CREDENTIALS_DIRECTORY", dir.path()).output().unwrap(), 0);
    let line = out.lines().find(|line| line.starts_with("export.0.password_file")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    let place = "./mailrace.toml:7";
    assert_eq!(
        words,
        ["export.0.password_file", "=", "\"credential:kafka.pw\"", "#", place],
        "{line}"
    );
    assert!(!out.contains("hunter2"), "{out}");
    let (_, err) = told(&run(dir.path(), &["check"]), 78);
    assert!(err.contains("CREDENTIALS_DIRECTORY is not set"), "{err}");
}

#[test]
fn files_to_start_from() {
    let dir = tempfile::tempdir().unwrap();
    let (init, _) = told(&run(dir.path(), &["config", "init"]), 0);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/mailrace.toml");
    assert_eq!(init, fs::read_to_string(shipped).unwrap());
    let (default, _) = told(&run(dir.path(), &["config", "default"]), 0);
    let (out, _) = told(&run(dir.path(), &["check"]), 0);
    assert_eq!(out, "configuration ok (no file)\n");
    for text in [init, default] {
        fs::write(dir.path().join("mailrace.toml"), text).unwrap();
        let (out, _) = told(&run(dir.path(), &["check"]), 0);
        assert_eq!(out, "configuration ok (./mailrace.toml)\n");
    }
    let (schema, _) = told(&run(dir.path(), &["config", "schema"]), 0);
    assert_eq!(json(&schema)["properties"]["log"]["properties"]["sync"]["default"], "group");
    told(&run(dir.path(), &["config"]), 2);
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_runs_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (dir.path().join("m.toml"), dir.path().join("data"));
    let text = "[server]\nhostname = \"mx.file.example\"\nshards = 1\nadmin.listen = \"\"\n\
                [log]\ndir = \"data\"\nsegment_size = \"1MiB\"\n\
                [[listener]]\nname = \"mx\"\nlisten = [\"127.0.0.1:0\"]\n";
    fs::write(&config, text).unwrap();
    let mut serve = mailrace(dir.path(), &["serve", "-c", "m.toml"]);
    let mut running = Running(serve.stdout(Stdio::piped()).spawn().unwrap());
    let mut greeting = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let address: SocketAddr = loop {
        // The end of its output would be the end of the server.
        let line = greeting.next().expect("an address").unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["smtp", address, ..] = words.as_slice() {
            assert!(!line.contains("no config file"), "{line}");
            break address.parse().unwrap();
        }
    };
    let mut client = Client::connect(address);
    let reply = client.say("EHLO client.test");
    assert!(reply.starts_with("250-mx.file.example"), "{reply}");
    let id = id_of(&client.bdat(b"Subject: a\r\n\r\nb\r\n"));
    assert!(client.say("QUIT").starts_with("221"));
    signal(&running.0, libc::SIGTERM);
    assert_eq!(ended(&mut running.0, Duration::from_secs(60)), Some(0));
    assert_eq!(support::log_get(&data, &id), b"Subject: a\r\n\r\nb\r\n");
    assert_eq!(support::log_envelope(&data, &id)["listener"], "mx");
}

/// A reader that has seen enough is no failure, and nothing is said of it.
#[test]
fn a_closed_stdout_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["config", "schema"][..],
        &["config", "default"],
        &["config", "init"],
        &["check"],
        &["check", "--effective"],
        &["check", "--json", "--effective"],
        &["doctor", "--json"],
        &["--help"],
    ] {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        use std::os::fd::{FromRawFd, OwnedFd};
        // SAFETY: the call made both, and nobody else has them.
        let [read, write] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        drop(read);
        let output = mailrace(dir.path(), arguments).stdout(write).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.is_empty(), "{arguments:?}: {text}");
        assert_ne!(output.status.code(), Some(101), "{arguments:?}");
        assert!(output.status.code().is_some(), "{arguments:?}: killed by a signal");
    }
}

/// Nor is a stderr that nobody reads: what is wrong still shows in the exit code.
#[test]
fn a_closed_stderr_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    // Not the default one: somebody's own server may be there.
    let nobody = machine::closed_port();
    let admin = format!("server.admin.listen={}", nobody.address);
    for (arguments, code) in [
        (&["check", "--set", "log.sync=x"][..], 78),
        (&["serve", "-c", "missing.toml"], 78),
        (&["log", "ls"], 1),
        (&["group", "ls"], 1),
        (&["reload", "--set", &admin], 1),
        (&["bench", "smtp://127.0.0.1:1", "-z", "1s"], 1),
        (&["user", "rm", "nowhere", "tim"], 1),
    ] {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        use std::os::fd::{FromRawFd, OwnedFd};
        // SAFETY: the call made both, and nobody else has them.
        let [read, write] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        drop(read);
        let status = mailrace(dir.path(), arguments).stderr(write).stdout(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(code), "{arguments:?}");
    }
}
