//! No `Debug` text reaches people: read off the sources, and off what failing commands print.

// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use base64::Engine as _;
use common::{Launch, MAILRACE, machine};
use regex::Regex;

/// Where `Debug` formatting is right: file, what is in the line, and why.
const ALLOWED: &[(&str, &str, &str)] = &[
    // Quoted strings: readable, and control characters in them are escaped.
    ("admin/v1/stream.rs", "not {other:?}", "a string"),
    ("admin/v1/stream.rs", "shards: {number:?}", "a string"),
    ("cli/log/export.rs", "{:?}\", state.r#as", "the name of a format as clap knows it"),
    ("config/address.rs", "{text:?} is not", "a string"),
    ("config/defaults.rs", "One of {words:?}", "a list of strings, as TOML has it"),
    ("config/exports.rs", "is named {name:?}", "a string"),
    ("config/exports.rs", "{text:?} ", "a string"),
    ("config/exposure.rs", "exporter {:?} relays", "a string"),
    ("config/file.rs", "{prefix}{name:?}", "a string"),
    ("config/listeners.rs", "{text:?} is n", "a string"),
    ("config/promises.rs", "exporter {:?} ", "a string"),
    ("config/raw.rs", "{name:?} is not", "a string"),
    ("config/units.rs", "{text:?} is not", "a string"),
    ("server/logging.rs", "format!(\"{value:?}\")", "how tracing hands over what has a Display"),
    ("config/units.rs", "is called {name:?}", "a string"),
    ("config/units.rs", "{repaired:?}; set", "a string"),
    ("config/value.rs", "an integer or {word:?}", "a string"),
    ("config/value.rs", "is needed, not {:?}", "a string"),
    ("config/value.rs", "{error}, or {word:?}", "a string"),
    ("config/value.rs", "{text:?} is not", "a string"),
    ("config/value.rs", "format!(\"{amount:?}\")", "compared, never shown"),
    ("config/value.rs", "format!(\"{time:?}\")", "compared, never shown"),
    ("consumer/group.rs", "{name:?} is no", "a string"),
    ("export/nats/stream.rs", "{name:?} is no", "a string"),
    ("export/nats/subject.rs", "{text:?} ", "a string"),
    ("export/options.rs", "{text:?} ", "a string"),
    ("export/replay.rs", "{text:?} is not", "a string"),
    ("log/range.rs", "{:?} is not a valid range", "a string"),
    ("policy/accept.rs", "{line:?} is not", "a string"),
    ("policy/accept.rs", "{text:?} is not", "a string"),
    ("policy/users.rs", "{name:?} is no", "a string"),
    // Texts of a broken invariant or of `Debug` itself: nobody but a developer reads them.
    ("export/relay/dialogue.rs", "a transaction in {:?}", "an assertion"),
    ("header/word.rs", "{decoded:?}", "a debug assertion"),
    ("log/sim.rs", "{sync:?}", "the simulation of disks: tests only"),
    ("metrics/render.rs", "{labels:?}", "a debug assertion"),
    ("shard/advisor.rs", "Password of {user:?}", "an implementation of Debug"),
    ("shard/advisor.rs", "Ticket({:?})", "an implementation of Debug"),
    // Names of foreign enumerations, which are turned into words here.
    ("export/kafka/error.rs", "{error:?}", "the name of a code, spelled as Kafka does"),
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests") {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if name != "tests" && !name.ends_with("_tests") {
                found.push(path);
            }
        }
    }
    found
}

/// The lines of a source that are neither comments nor tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    // A module of tests ends a file; `#[cfg(test)] mod tests;` may stand anywhere.
    let end = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    let lines = lines.into_iter().take(end.unwrap_or(usize::MAX)).enumerate();
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn sources_format_nothing_for_developers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // `{:?}` and `{name:?}` with whatever else a format may hold, and `?field` of tracing's macros.
    let formats = Regex::new(r"\{[\w.#]*:[^{}\x22]*\?\}").unwrap();
    let field = Regex::new(r"[(,=]\s*\?[a-z_]").unwrap();
    let (mut wrong, mut used) = (Vec::new(), vec![false; ALLOWED.len()]);
    for path in sources(&root) {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(&root).unwrap().display().to_string();
        for (at, line) in code(&text) {
            if !(formats.is_match(line) || field.is_match(line)) {
                continue;
            }
            let allowed =
                |(name, snippet, _): &(&str, &str, &str)| *name == file && line.contains(snippet);
            match ALLOWED.iter().position(allowed) {
                Some(number) => used[number] = true,
                None => wrong.push(format!("{file}:{}: {}", at + 1, line.trim())),
            }
        }
    }
    assert!(wrong.is_empty(), "Debug text that may reach people:\n{}", wrong.join("\n"));
    let idle = ALLOWED.iter().zip(used).filter(|(_, used)| !used);
    let idle: Vec<_> = idle.map(|((file, snippet, _), _)| format!("{file}: {snippet}")).collect();
    assert!(idle.is_empty(), "allowed and not there:\n{}", idle.join("\n"));
}

/// A line of these outputs that holds `Debug` text.
fn debug_text(text: &str) -> Option<&str> {
    let pattern = Regex::new(
        r"(?x) \b[A-Z][A-Za-z]+\s?\{\s | \b[A-Z][A-Za-z]+\([A-Z(\x22\[0-9] | \bOs\s\{ | \bSome\(
          | \bNone\b.*\) | Error\( | \[\d+,\ \d+",
    );
    let pattern = pattern.unwrap();
    text.lines().find(|line| pattern.is_match(line))
}

#[test]
fn the_pattern_knows_debug_text() {
    for text in [
        "WARN overload: stress shard=0 load=Load { memory: 0, sessions: 3 }",
        "cert.pem: Other(OtherError(UnsupportedCertVersion))",
        "MemLockLimit(65536/524288)",
        "Os { code: 2, kind: NotFound }",
        "key.pem: illegal section start: [45, 45, 45]",
        "path: Some(\"a\") with fd: None)",
    ] {
        assert!(debug_text(text).is_some(), "{text}");
    }
    for text in ["not a certificate (X.509)", "No such file or directory (os error 2)"] {
        assert_eq!(debug_text(text), None);
    }
}

#[track_caller]
fn plain(what: &str, output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(text);
        assert_eq!(debug_text(&text), None, "{what}: {text}");
    }
}

/// Runs commands that fail, and looks at what they print.
#[track_caller]
fn all_fail_plainly(dir: &Path, commands: &[&[&str]]) {
    for arguments in commands {
        let mut command = Command::new(MAILRACE);
        command.current_dir(dir).args(*arguments).stdin(std::process::Stdio::null());
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{arguments:?} fails");
        assert!(!output.stderr.is_empty() || !output.stdout.is_empty(), "{arguments:?} says why");
        plain(&format!("{arguments:?}"), &output);
    }
}

#[test]
fn mistakes_in_settings_are_named_in_words() {
    let dir = tempfile::tempdir().unwrap();
    for setting in [
        "server.shards=none",
        "server.shards=-1",
        "server.shards=99999",
        "server.hostname=a b",
        "listener.0.listen=nowhere",
        "listener.0.listen=127.0.0.1:99999",
        "listener.0.mode=odd",
        "log.segment_bytes=huge",
        "log.sync=maybe",
        "log.dir=",
        "no.such.key=1",
        "export.x.kind=odd",
        "export.x.kind=kafka",
        "export.x.timeout=soon",
        "limits.connections_max=\"\u{1}\"",
        "server.admin.listen=unix:",
    ] {
        for command in ["check", "serve"] {
            let arguments =
                [command, "--set", "log.dir=data", "--set", "listener.0.listen=127.0.0.1:0"];
            let arguments: Vec<_> = arguments.into_iter().chain(["--set", setting]).collect();
            all_fail_plainly(dir.path(), &[&arguments]);
        }
    }
    for (name, text) in [
        ("syntax.toml", "[server\nshards = 1\n"),
        ("types.toml", "[server]\nshards = [1]\n[limits]\nconnections_max = true\n"),
        ("tables.toml", "server = 3\nlistener = \"x\"\n"),
        ("twice.toml", "[log]\ndir = \"a\"\ndir = \"b\"\n"),
        ("control.toml", "[server]\nhostname = \"a\\u0001b\"\n"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
        all_fail_plainly(dir.path(), &[&["check", "-c", name], &["serve", "-c", name]]);
    }
    fs::write(dir.path().join("octets.toml"), b"\xff\xfe\x00").unwrap();
    all_fail_plainly(dir.path(), &[&["check", "-c", "octets.toml"], &["check", "-c", "/"]]);
}

/// A certificate of version 1, which no library here makes: one of version 3 with another number.
fn version_1(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut der = made.cert.der().to_vec();
    let version = [0xa0, 3, 2, 1, 2];
    let at = der.windows(5).position(|octets| octets == version).unwrap();
    der[at + 4] = 0;
    let base64 = base64::engine::general_purpose::STANDARD.encode(&der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    fs::write(dir.join("v1.pem"), pem).unwrap();
    fs::write(dir.join("good.pem"), made.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn unusable_certificates_and_keys_are_described_in_words() {
    let dir = tempfile::tempdir().unwrap();
    version_1(dir.path());
    fs::write(dir.path().join("start.pem"), "-----BEGIN CERT\nMIIB\n").unwrap();
    fs::write(dir.path().join("end.pem"), "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
    fs::write(
        dir.path().join("base64.pem"),
        "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    fs::write(dir.path().join("empty.pem"), "").unwrap();
    for (cert, key) in [
        ("v1.pem", "key.pem"),
        ("start.pem", "key.pem"),
        ("end.pem", "key.pem"),
        ("base64.pem", "key.pem"),
        ("empty.pem", "key.pem"),
        ("missing.pem", "key.pem"),
        ("good.pem", "good.pem"),
        ("good.pem", "start.pem"),
        ("good.pem", "end.pem"),
        ("good.pem", "base64.pem"),
        ("good.pem", "missing.pem"),
    ] {
        let file = format!(
            "[[listener]]\nlisten = [\"127.0.0.1:0\"]\ntls_mode = \"starttls\"\ntls.cert_file = \
             \"{cert}\"\ntls.key_file = \"{key}\"\n[log]\ndir = \"data\"\n"
        );
        fs::write(dir.path().join("mailrace.toml"), file).unwrap();
        for name in ["check", "serve", "doctor"] {
            let mut command = Command::new(MAILRACE);
            command.current_dir(dir.path()).args([name, "-c", "mailrace.toml"]);
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            assert!(!output.status.success() && text.contains(".pem: "), "{name}: {text}");
            plain(name, &output);
        }
    }
}

#[test]
fn commands_without_what_they_need_fail_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let out = ["--dir", "missing"];
    for words in [
        "log get nonsense",
        "log get 01J0000000000000000000000X",
        "log get ",
        "log ls",
        "log cat @yesterday",
        "log cat 5:4:3",
        "log offsets @never",
        "log stats",
        "log verify",
        "log adopt",
        "log tail",
        "group ls",
        "group describe none",
        "group seek none --to nonsense",
        "group rm none",
        "group dead ls none",
    ] {
        let arguments: Vec<_> = words.split(' ').chain(out).collect();
        all_fail_plainly(dir.path(), &[&arguments]);
    }
    all_fail_plainly(
        dir.path(),
        &[
            &["reload"],
            &["drain"],
            &["user", "add", "a b", "users"],
            &["user", "rm", "nobody", "users"],
            &["user", "ls", "missing"],
            &["user", "ls", "/"],
            &["no-such-command"],
        ],
    );
}

#[test]
fn limits_are_described_in_words() {
    let dir = tempfile::tempdir().unwrap();
    for (resource, value) in
        [(libc::RLIMIT_MEMLOCK, 64 << 10), (libc::RLIMIT_MEMLOCK, 0), (libc::RLIMIT_NOFILE, 24)]
    {
        for command in ["serve", "doctor"] {
            let home = machine::ordinary_home();
            let launch = Launch::new(dir.path()).user(home.user).limit(resource, value);
            let output = launch.command(command).output().unwrap();
            assert!(!output.status.success());
            plain(command, &output);
        }
    }
    let output = Launch::new(&dir.path().join("none/data")).set("log.dir=/proc/none");
    let output = output.command("serve").output().unwrap();
    assert!(!output.status.success());
    plain("serve", &output);
}
