//! No `Debug` text reaches people: read off the sources, and off what failing commands print.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use base64::Engine as _;
use regex::Regex;

use crate::support::{self, Launch, MAILRACE, machine};

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
    ("config/units.rs", "name of this machine, {name:?}", "a string"),
    ("config/units.rs", "{repaired:?}; set", "a string"),
    ("config/value.rs", "an integer or {word:?}", "a string"),
    ("config/value.rs", "is needed, not {:?}", "a string"),
    ("config/value.rs", "{error}, or {word:?}", "a string"),
    ("config/value.rs", "{text:?} is not", "a string"),
    ("config/value.rs", "format!(\"{amount:?}\")", "compared, never shown"),
    ("config/value.rs", "format!(\"{time:?}\")", "compared, never shown"),
    ("log/consumer/group.rs", "{name:?} is no", "a string"),
    ("export/nats/stream.rs", "{name:?} is no", "a string"),
    ("export/nats/subject.rs", "{text:?} ", "a string"),
    ("export/options.rs", "{text:?} ", "a string"),
    ("export/replay.rs", "{text:?} is not", "a string"),
    ("log/range.rs", "{:?} is not a valid range", "a string"),
    ("network/mod.rs", "{text:?} is not", "a string"),
    ("policy/accept.rs", "{line:?} is not", "a string"),
    ("policy/senders.rs", "{line:?} is not", "a string"),
    ("policy/senders.rs", "{sender:?} is neither", "a string"),
    ("cli/dmarc/mod.rs", "{:?} is not a domain", "a string"),
    ("cli/dmarc/mod.rs", "{receiver:?} is not", "a string"),
    ("revision/mod.rs", "include_bytes!({path:?})", "a string of Rust source"),
    ("revision/mod.rs", "{:?}}}", "a string of Rust source"),
    ("policy/accept.rs", "{text:?} is not", "a string"),
    ("policy/users.rs", "{name:?} is no", "a string"),
    ("loadtest/condition.rs", "{text:?}: {what}", "a string"),
    ("loadtest/condition.rs", "{value:?} is not", "a string"),
    ("loadtest/options.rs", "{weight:?} is not", "a string"),
    ("loadtest/options.rs", "{item:?} ", "a string"),
    ("loadtest/socket.rs", "{text:?} is not", "a string"),
    ("loadtest/template.rs", "{text:?}", "a string"),
    ("loadtest/units.rs", "{text:?} is not", "a string"),
    // Texts of a broken invariant or of `Debug` itself: nobody but a developer reads them.
    ("export/relay/dialogue.rs", "a transaction in {:?}", "an assertion"),
    ("header/word.rs", "{decoded:?}", "a debug assertion"),
    ("log/sim.rs", "{sync:?}", "the simulation of disks: tests only"),
    ("metrics/render.rs", "{labels:?}", "a debug assertion"),
    ("policy/advisor.rs", "Password of {user:?}", "an implementation of Debug"),
    ("policy/advisor.rs", "Ticket({:?})", "an implementation of Debug"),
    // Names of foreign enumerations, which are turned into words here.
    ("export/kafka/error.rs", "{error:?}", "the name of a code, spelled as Kafka does"),
];

/// The Rust sources in a directory that are more than tests.
pub(crate) fn sources(dir: &Path) -> Vec<PathBuf> {
    let is_test = |name: &str| matches!(name, "tests" | "testing") || name.ends_with("_tests");
    let mut found = files(dir);
    found.retain(|path| {
        let inner = path.strip_prefix(dir).unwrap().with_extension("");
        let rust = path.extension().is_some_and(|extension| extension == "rs");
        rust && !inner.iter().any(|part| is_test(part.to_str().unwrap()))
    });
    found
}

/// All files in a directory; a file is its own.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let mut entries: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.iter().flat_map(|entry| files(entry)).collect()
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // `{:?}` and `{name:?}` with whatever else a format may hold, and `?field` of tracing's macros.
    let formats = Regex::new(r"\{[\w.#]*:[^{}\x22]*\?\}").unwrap();
    let field = Regex::new(r"[(,=]\s*\?[a-z_]").unwrap();
    let (mut wrong, mut used) = (Vec::new(), vec![false; ALLOWED.len()]);
    for path in ["src", "loadtest"].iter().flat_map(|dir| sources(&root.join(dir))) {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(root).unwrap().display().to_string();
        let file = file.strip_prefix("src/").unwrap_or(&file);
        // The simulator speaks to developers, and is in no build but theirs.
        if file.starts_with("sim/") {
            continue;
        }
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

/// A misspelled metric is always 0 in a test, and never there for a reader.
#[test]
fn metrics_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &PathBuf| fs::read(path).map(|octets| String::from_utf8(octets).ok());
    let all = |dirs: &[&str]| -> Vec<(PathBuf, String)> {
        let paths = dirs.iter().flat_map(|dir| files(&root.join(dir)));
        paths.filter_map(|path| text(&path).unwrap().map(|text| (path, text))).collect()
    };
    let known: String = all(&["src", "loadtest"]).into_iter().map(|(_, text)| text).collect();
    let known = known.replace("mailrace_", "").replace("bench_", "");
    let name = Regex::new(r"[\x22`{ (]mailrace_(?:bench_)?([a-z][a-z0-9_]*[a-z0-9])[\x22`{ ,)\[]")
        .unwrap();
    let mut seen = 0;
    for (path, text) in all(&["tests", "README.md", "CHANGELOG.md", "docs", "deploy", "config"]) {
        for found in name.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()) {
            let stem = ["_count", "_sum", "_bucket"].iter().find_map(|end| found.strip_suffix(end));
            let quoted = |name: &str| {
                [format!("\"{name}\""), format!("\"{name} "), format!("\"{name}{{")]
                    .iter()
                    .any(|quoted| known.contains(quoted))
            };
            let exists = quoted(found) || stem.is_some_and(quoted);
            assert!(exists, "{}: there is no mailrace_{found}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen} names");
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

/// Runs commands that fail, each for the reason it is here for, and looks at what they print.
#[track_caller]
fn all_fail_plainly(dir: &Path, commands: &[(&[&str], &str)]) {
    // Neither is a server to be disturbed nor a port to be taken by one that starts.
    let nobody = machine::closed_port();
    for (arguments, reason) in commands {
        let mut command = Command::new(MAILRACE);
        command.current_dir(dir).args(*arguments);
        support::without_settings(&mut command);
        command.env("MAILRACE_SERVER__ADMIN__LISTEN", nobody.address.to_string());
        let output = support::output_of(command);
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success(), "{arguments:?} fails");
        assert!(said.contains(reason), "{arguments:?}: {reason:?} is missing: {said}");
        plain(&format!("{arguments:?}"), &output);
    }
}

#[test]
fn mistakes_in_settings_are_named_in_words() {
    let dir = tempfile::tempdir().unwrap();
    for (setting, reason) in [
        ("server.shards=none", "a number from 1 to"),
        ("server.shards=-1", "a number from 1 to"),
        ("server.shards=99999", "a number from 1 to"),
        ("server.hostname=a b", "is not a host name"),
        ("listener.0.listen=nowhere", "an address is needed"),
        ("listener.0.listen=127.0.0.1:99999", "an address is needed"),
        ("listener.0.protocol=odd", "one of smtp, lmtp"),
        ("listener.0.tls_mode=odd", "one of "),
        ("log.segment_size=huge", "is not a size"),
        ("log.sync=maybe", "one of group, each, none"),
        ("log.dir=", "a directory is needed"),
        ("no.such.key=1", "unknown key"),
        ("export.0.type=odd", "one of kafka, nats"),
        ("export.0.type=kafka", "export.0.brokers (--set): is needed"),
        ("log.retention.age=soon", "is not a duration"),
        ("limits.connections.total=\"\u{1}\"", "is not a number from 1 to"),
        ("server.admin.listen=unix:", "an address is needed"),
    ] {
        for command in ["check", "serve"] {
            let arguments =
                [command, "--set", "log.dir=data", "--set", "listener.0.listen=127.0.0.1:0"];
            let arguments: Vec<_> = arguments.into_iter().chain(["--set", setting]).collect();
            all_fail_plainly(dir.path(), &[(&arguments, reason)]);
        }
    }
    for (name, text, reason) in [
        ("syntax.toml", "[server\nshards = 1\n", "syntax.toml:1: column"),
        ("types.toml", "[server]\nshards = [1]\n", "types.toml:2): "),
        ("number.toml", "[limits]\nconnections.total = true\n", "number.toml:2): "),
        ("tables.toml", "server = 3\nlistener = \"x\"\n", "tables.toml:1): "),
        ("twice.toml", "[log]\ndir = \"a\"\ndir = \"b\"\n", "twice.toml:3: column"),
        ("control.toml", "[server]\nhostname = \"a\\u0001b\"\n", "is not a host name"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
        all_fail_plainly(
            dir.path(),
            &[(&["check", "-c", name], reason), (&["serve", "-c", name], reason)],
        );
    }
    fs::write(dir.path().join("octets.toml"), b"\xff\xfe\x00").unwrap();
    all_fail_plainly(
        dir.path(),
        &[
            (&["check", "-c", "octets.toml"], "line 1 is not UTF-8"),
            (&["check", "-c", "/"], "is a directory"),
        ],
    );
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
            "server.admin.listen = \"127.0.0.1:0\"\nlog.dir = \"data\"\n[[listener]]\nlisten = \
             [\"127.0.0.1:0\"]\ntls_mode = \"starttls\"\ntls.cert_file = \"{cert}\"\ntls.key_file = \
             \"{key}\"\n"
        );
        fs::write(dir.path().join("mailrace.toml"), file).unwrap();
        for name in ["check", "serve", "doctor"] {
            let mut command = Command::new(MAILRACE);
            command.current_dir(dir.path()).args([name, "-c", "mailrace.toml"]);
            support::without_settings(&mut command);
            let output = support::output_of(command);
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
    let (id, range) = ("not a record id", "is not a valid range");
    let nothing = "missing is not a mailrace data directory";
    for (words, reason) in [
        ("log get nonsense", id),
        ("log get 01J0000000000000000000000X", id),
        ("log get ", id),
        ("log get 724cac600504-000-0000000000000000", nothing),
        ("log ls", nothing),
        ("log cat", nothing),
        ("log cat -o @yesterday", range),
        ("log cat -o 5:4:3", range),
        ("log offsets --at @never", range),
        ("log prune --before @never", range),
        ("log prune --before end", nothing),
        ("log stats", nothing),
        ("log verify", nothing),
        ("log adopt", nothing),
        ("log tail", nothing),
        ("group ls", nothing),
        ("group describe none", nothing),
        ("group seek none --to nonsense", range),
        ("group seek none --to end", nothing),
        ("group rm none", nothing),
        ("group dead ls none", nothing),
    ] {
        let arguments: Vec<_> = words.split(' ').chain(["--dir", "missing"]).collect();
        all_fail_plainly(dir.path(), &[(&arguments, reason)]);
    }
    let data = dir.path().join("data");
    assert_eq!(support::Server::start(&data).stop(), Some(0));
    for (words, reason) in [
        ("log get 0:7", "no record "),
        ("log cat -o 7:", "is beyond the end of the log"),
        ("log cat --shard 9", "there is no shard 9"),
        ("group describe none", "there is no group none"),
        ("group seek none --to end", "there is no group none"),
        ("group rm none", "there is no group none"),
        ("group dead ls none", "there is no group none"),
    ] {
        let arguments: Vec<_> = words.split(' ').chain(["--dir", "data"]).collect();
        all_fail_plainly(dir.path(), &[(&arguments, reason)]);
    }
    fs::write(dir.path().join("users"), "").unwrap();
    all_fail_plainly(
        dir.path(),
        &[
            (&["reload"], "no answer from http://127.0.0.1:"),
            (&["drain"], "no answer from http://127.0.0.1:"),
            (&["user", "add", "users", "tim"], "the password is empty"),
            (&["user", "rm", "users", "nobody"], "users: there is no user nobody"),
            (&["user", "rm", "missing", "nobody"], "missing: No such file"),
            (&["user", "ls", "missing"], "missing: No such file"),
            (&["user", "ls", "/"], "Is a directory"),
            (&["no-such-command"], "unrecognized subcommand"),
        ],
    );
}

#[test]
fn limits_are_described_in_words() {
    for (resource, value, reason) in [
        (libc::RLIMIT_MEMLOCK, 64 << 10, "locked-memory limit is"),
        (libc::RLIMIT_MEMLOCK, 0, "locked-memory limit is"),
        (libc::RLIMIT_NOFILE, 24, "limit of open files is"),
    ] {
        for command in ["serve", "doctor"] {
            let home = machine::ordinary_home();
            let launch = Launch::new(&home.data).program(&home.program).user(home.user);
            let output = support::output_of(launch.limit(resource, value).command(command));
            let said = [&output.stdout[..], &output.stderr[..]].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(!output.status.success() && said.contains(reason), "{reason}: {said}");
            plain(command, &output);
        }
    }
    let launch = Launch::new(Path::new("/proc/none"));
    let output = support::output_of(launch.command("serve"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("log.dir"), "{said}");
    plain("serve", &output);
}
