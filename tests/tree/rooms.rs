//! The rule between the planes, read off the sources: who may name which runtime, and who may
//! import whom.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Files of src/ whose code, comments aside, holds a word.
fn naming(word: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for path in sources(&root) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        if code.into_iter().any(|line| line.contains(word)) {
            found.push(path.strip_prefix(&root).unwrap().display().to_string());
        }
    }
    found
}

#[track_caller]
fn only_in(word: &str, rooms: &[&str]) {
    let found = naming(word);
    assert!(!found.is_empty(), "{word} is named somewhere");
    for file in found {
        assert!(rooms.iter().any(|room| file.starts_with(room)), "{file} names {word}");
    }
}

#[test]
fn each_runtime_has_its_rooms() {
    only_in("glommio::", &["shard/io/"]);
    only_in("io_uring::", &["shard/io/"]);
    only_in("tokio::", &["admin/", "export/", "policy/", "server.rs"]);
    only_in("axum::", &["admin/"]);
}

/// The shard is sans-IO: whatever it knows of the world comes over its seam.
#[test]
fn the_core_of_a_shard_has_no_kernel() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/shard/core");
    for path in sources(&root) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            // As the shard was told it.
            let line = line.replace("appender.unix_micros()", "");
            for word in [
                "libc::",
                "Instant",
                "SystemTime",
                "std::fs",
                "os::fd",
                "TcpStream",
                "TcpListener",
                "std::thread",
                "std::process",
                "unsafe ",
                "shard::io",
                "unix_micros()",
                "random()",
            ] {
                assert!(!line.contains(word), "{} names {word}: {line}", path.display());
            }
        }
    }
}

#[test]
fn leaves_import_nothing_and_nobody_imports_upwards() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (room, allowed) in [
        ("metrics", &[][..]),
        ("tls", &[]),
        ("header", &[]),
        ("shard", &["smtp", "tls", "log", "metrics", "shard"]),
        ("policy", &["smtp", "shard", "metrics"]),
        ("export", &["consumer", "header", "log", "metrics", "tls"]),
        ("admin", &["metrics", "log", "consumer", "export"]),
    ] {
        for path in sources(&root.join(room)) {
            let text = fs::read_to_string(&path).unwrap();
            // `use crate::{a, b}` spans lines: looked at as one text without white space.
            let code: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .flat_map(|line| line.split_whitespace())
                .collect();
            for other in [
                "smtp", "log", "metrics", "shard", "admin", "config", "cli", "server", "consumer",
                "export", "tls", "policy", "header",
            ] {
                let named = code.contains(&format!("crate::{other}"))
                    || code.contains(&format!("crate::{{{other}"));
                let fine = other == room || allowed.contains(&other);
                assert!(!named || fine, "{} imports {other}", path.display());
            }
        }
    }
}

/// A room that is a crate imports what its manifest names, which the compiler holds it to.
#[test]
fn crates_depend_on_what_they_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = Vec::new();
    for entry in fs::read_dir(&root).unwrap() {
        let Ok(manifest) = fs::read_to_string(entry.unwrap().path().join("Cargo.toml")) else {
            continue;
        };
        let manifest: toml::Table = manifest.parse().unwrap();
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        let mut ours: Vec<String> = dependencies
            .into_iter()
            .flat_map(|dependencies| dependencies.keys())
            .filter_map(|name| name.strip_prefix("mailrace-").map(str::to_owned))
            .collect();
        ours.sort();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        seen.push((name, ours.join(" ")));
    }
    seen.sort();
    let expected = [("mailrace-log", "stage"), ("mailrace-smtp", "stage"), ("mailrace-stage", "")];
    let seen: Vec<_> = seen.iter().map(|(name, ours)| (name.as_str(), ours.as_str())).collect();
    assert_eq!(seen, expected);
}

/// Readers and groups stand on the log, never the other way round.
#[test]
fn the_log_knows_no_consumer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/log");
    for path in sources(&root) {
        let text = fs::read_to_string(&path).unwrap();
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let is_free = path.starts_with(root.join("consumer"))
            || !code.any(|line| line.contains("consumer::") || line.contains("{consumer"));
        assert!(is_free, "{} imports consumer", path.display());
    }
}
