use super::super::Config;
use super::super::tests::{from_text, merged, wrong};
use super::*;

#[test]
fn tables_dotted_keys_and_inline_tables_are_the_same() {
    let ways = [
        "[log]\nretention = { age = \"1d\", hold = true }\n[limits]\ntimeout.data = \"1m\"\n",
        "log.retention.age = \"1d\"\nlog.retention.hold = true\nlimits.timeout.data = \"1m\"",
        "[log.retention]\r\nage = '1d'\r\nhold = true\r\n[limits.timeout]\r\ndata = \"1m\"\r\n",
        "\u{feff}log = { retention = { age = \"1d\", hold = true } }\nlimits.timeout.data = \"1m\"",
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    for way in ways {
        fs::write(&path, way).unwrap();
        let file = ConfigFile::find(Some(&path)).unwrap().unwrap();
        let config = from_text(&file.text).unwrap();
        assert_eq!(config.log.retention.age.unwrap().as_secs(), 86_400, "{way}");
        assert!(config.log.retention.hold, "{way}");
        assert_eq!(config.limits.session.data_time.as_secs(), 60, "{way}");
    }
}

#[test]
fn each_origin_is_the_line_of_its_key() {
    let text = "[server]\n# a comment\nshards = 2\n\n[limits]\n\
                exempt = [\n  \"10.0.0.0/8\",\n]\nrecipients = 0x100\n";
    let config = from_text(text).unwrap();
    let line = |key: &str| {
        let setting = config.settings().iter().find(|setting| setting.key == key).unwrap();
        format!("{} {}", setting.origin, setting.value)
    };
    assert_eq!(line("server.shards"), "m.toml:3 2");
    assert_eq!(line("limits.exempt"), "m.toml:6 [\"10.0.0.0/8\"]");
    assert_eq!(line("limits.recipients"), "m.toml:9 256");
    assert_eq!(line("log.dir"), "default \"./mailrace-data\"");
}

#[test]
fn tables_of_an_array_count_from_zero() {
    let text = "[[listener]]\nlisten = [\"127.0.0.1:1\", \"[::1]:1\"]\n\
                [[listener]]\nname = \"b\"\nlisten = [\"127.0.0.1:2\"]\n";
    let names = |config: &Config| {
        config.listeners.iter().map(|listener| listener.name.clone()).collect::<Vec<_>>()
    };
    let config = from_text(text).unwrap();
    assert_eq!(names(&config), ["smtp", "b"]);
    assert_eq!(config.listeners[0].listen.len(), 2);
    let config = merged(text, &[("MAILRACE_LISTENER__1__NAME", "c")], &[]).unwrap();
    assert_eq!(names(&config), ["smtp", "c"]);
    let inline = "listener = [{ name = \"x\", listen = [\"127.0.0.1:1\"] }]";
    assert_eq!(names(&from_text(inline).unwrap()), ["x"]);
    let many = "[[listener]]\nline_ends = \"allow\"\n".repeat(17);
    wrong(&many, &["listener (m.toml:1): at most 16 are possible, not 17"]);
}

#[test]
fn unknown_keys_have_a_line_and_a_suggestion() {
    wrong(
        "[log]\ndir = \"/x\"\ndri = \"/y\"\n[limit]\nmessage_size = \"1MiB\"\nrecipients = 5\n",
        &[
            "log.dri (m.toml:3): unknown key; did you mean log.dir?",
            "limit (m.toml:4): unknown key; did you mean limits?",
        ],
    );
    wrong(
        "hostname = \"a\"\n[log.retension]\nage = \"1d\"\n[[exports]]\nname = \"a\"\n",
        &[
            "hostname (m.toml:1): unknown key; did you mean server.hostname?",
            "log.retension (m.toml:2): unknown key; did you mean log.retention?",
            "exports (m.toml:4): unknown key; did you mean export?",
        ],
    );
    wrong(
        "\"log.dir\" = \"/x\"\n[[listener]]\nlissen = []\n",
        &[
            "\"log.dir\" (m.toml:1): unknown key; did you mean log.dir?",
            "listener.0.lissen (m.toml:3): unknown key; did you mean listener.0.listen?",
        ],
    );
    wrong(
        "completely = { other = 1 }",
        &["completely (m.toml:1): unknown key; `mailrace config default` lists all"],
    );
}

#[test]
fn types_are_those_of_toml() {
    for (line, message) in [
        ("log.dir = 5", "a string is needed, not an integer"),
        ("log.dir = []", "a string is needed, not an array"),
        ("log.dir.x = 1", "a string is needed, not a table"),
        ("log.dir = 2026-11-22", "a string is needed, not a date"),
        (
            "log.segment_size = 1.5",
            "a string such as \"64MiB\" or a number of bytes is needed, not a float",
        ),
        (
            "limits.timeout.data = 5",
            "5 is not a duration: it needs a unit, as in \"5s\"; ms, s, m, h, d or w",
        ),
        ("limits.recipients = \"100\"", "an integer is needed, not a string"),
        ("limits.recipients = 99999999999999999999", "the number is too large"),
        ("server.shards = \"all\"", "an integer or \"auto\" is needed, not a string"),
        ("server.shards = true", "an integer or \"auto\" is needed, not a boolean"),
        ("limits.exempt = \"::1\"", "an array of strings is needed, not a string"),
        ("limits.exempt = [1]", "an array of strings is needed, not an array of other values"),
        ("log.retention.hold = \"true\"", "true or false is needed, not a string"),
    ] {
        let key = line.split([' ', '=']).next().unwrap().trim_end_matches(".x");
        wrong(line, &[&format!("{key} (m.toml:1): {message}")]);
    }
    assert!(from_text("server.shards = \"auto\"\nlimits.connections.total = \"auto\"").is_ok());
    wrong(
        "log.retention = \"7d\"",
        &["log.retention (m.toml:1): a table is needed: [log.retention]"],
    );
    wrong("[[log]]\ndir = \"\"", &["log (m.toml:1): a table is needed: [log]"]);
    for text in ["[listener]\nname = \"a\"", "[listener.0]", "listener = 1", "listener = [1]"] {
        wrong(text, &["listener (m.toml:1): an array of tables is needed: [[listener]]"]);
    }
    wrong("[[export]]", &["export.0 (m.toml:1): the table is empty"]);
}

#[test]
fn values_are_judged_where_they_stand() {
    wrong(
        "\n[limits]\nrecipients = -5\ninflight_bytes = \"95%\"\n",
        &[
            "limits.recipients (m.toml:3): \"-5\" is not a number from 100 to 100000",
            "limits.inflight_bytes (m.toml:4): \"95\" is not a number from 1 to 90",
        ],
    );
    // Nothing in a value is a variable.
    let config = from_text("log.dir = \"/a/${HOME}/$HOME\"").unwrap();
    assert_eq!(config.log.dir, Path::new("/a/${HOME}/$HOME"));
}

#[test]
fn syntax_errors_have_line_and_column() {
    for (text, place) in [
        ("[log]\ndir = /x\n", "m.toml:2: column 7: not TOML: "),
        ("[log]\nä = 1\n", "m.toml:2: column 1: not TOML: "),
        ("[log]\n\"ä\" = 1x\n", "m.toml:2: column 7: not TOML: "),
        ("[log\n", "m.toml:1: column "),
        ("log.dir = \"/x", "m.toml:1: column "),
        ("[log]\ndir = \"a\"\ndir = \"b\"\n", "m.toml:3: column 1: not TOML: duplicate key"),
        ("[log]\ndir = \"a\"\n[log]\nsync = \"each\"\n", "m.toml:3: column "),
    ] {
        let error = from_text(text).unwrap_err();
        assert_eq!(error.0.len(), 1, "{error}");
        assert!(error.to_string().starts_with(place), "{error}");
    }
    let error = from_text("secret = hunter2\nx = \"hunter2\n").unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    let deep = format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(from_text(&deep).unwrap_err().to_string().contains("recurs"));
    let deep = format!("{}x = 1", "x.".repeat(100_000));
    assert!(from_text(&deep).unwrap_err().to_string().contains("recurs"));
}

#[test]
fn a_file_of_something_else_ends_soon() {
    let text: String = (0..100_000).map(|number| format!("key{number} = 1\n")).collect();
    assert_eq!(from_text(&text).unwrap_err().0.len(), 100);
}

fn unreadable(path: &Path) -> String {
    ConfigFile::find(Some(path)).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    let name = path.display();
    assert_eq!(unreadable(&path), format!("{name}: there is no such file"));
    let is_a_directory = format!("{}: is a directory; a file is needed", dir.path().display());
    assert_eq!(unreadable(dir.path()), is_a_directory);
    fs::write(&path, b"[log]\n# caf\xe9\n").unwrap();
    assert_eq!(unreadable(&path), format!("{name}: line 2 is not UTF-8"));
    fs::write(&path, vec![b'\n'; 10 << 20]).unwrap();
    assert!(ConfigFile::find(Some(&path)).is_ok());
    fs::write(&path, vec![b'\n'; (10 << 20) + 1]).unwrap();
    assert_eq!(
        unreadable(&path),
        format!("{name}: is larger than 10 MiB, too large for a configuration file")
    );
    assert!(unreadable(Path::new("/dev/zero")).contains("larger than 10 MiB"));
}

#[test]
fn the_first_default_file_that_exists_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
    let found = || ConfigFile::find_among(None, [&a, &b]);
    assert_eq!(found().unwrap(), None);
    fs::write(&b, "x").unwrap();
    assert_eq!(found().unwrap().unwrap().path, b);
    fs::write(&a, "x").unwrap();
    assert_eq!(found().unwrap().unwrap().path, a);
    fs::remove_file(&a).unwrap();
    // Not passed over: it was meant to be read.
    std::os::unix::fs::symlink("nowhere", &a).unwrap();
    assert!(found().unwrap_err().to_string().contains("a.toml: there is no such file"));
}
