//! The rule between the planes, read off the sources: who may name which runtime, and who may
//! import whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

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
    only_in("tokio::", &["admin/", "dns/", "export/", "policy/", "server.rs", "verdict/"]);
    only_in("axum::", &["admin/"]);
}

/// The kernel's memory and the processor's instructions are reached from few places, each with its
/// SAFETY note.
#[test]
fn unsafe_code_has_its_rooms() {
    let rooms = ["log/", "shard/io/", "smtp/scan/", "sys/"];
    for word in ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"] {
        for file in naming(word) {
            assert!(rooms.iter().any(|room| file.starts_with(room)), "{file} has {word}");
        }
    }
    assert!(!naming("unsafe {").is_empty());
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

/// The words and signs of a source that may be part of a path: no comments, no literals.
fn tokens(text: &str) -> Vec<String> {
    let pattern = concat!(
        r##"//[^\n]*|/\*(?s:.*?)\*/|r#"(?s:.*?)"#|r"[^"]*"|"##,
        r#""(?s:\\.|[^"\\])*"|'(?:\\[^']+|\\'|[^\\'])'|(\w+|::|\S)"#,
    );
    let pattern = Regex::new(pattern).unwrap();
    let found = pattern.captures_iter(text);
    found.filter_map(|found| found.get(1).map(|token| token.as_str().to_owned())).collect()
}

/// Reads the path that begins at a token, with all that its braces hold, and says where it ends.
fn read_path(
    tokens: &[String],
    mut at: usize,
    mut path: Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    let is = |at: usize, wanted: &str| tokens.get(at).is_some_and(|token| token == wanted);
    loop {
        let Some(token) = tokens.get(at) else { return at };
        if token == "{" && !path.is_empty() {
            at += 1;
            while at < tokens.len() && !is(at, "}") {
                at = read_path(tokens, at, path.clone(), found).max(at + 1);
                at += usize::from(is(at, ","));
            }
            return at + 1;
        }
        let is_word = token == "*"
            || token.starts_with(|first: char| first.is_alphanumeric() || first == '_');
        if !is_word {
            return at;
        }
        path.push(token.clone());
        at += 1;
        if !is(at, "::") {
            break;
        }
        at += 1;
    }
    // `use crate as other` hides what follows.
    if is(at, "as") && path == ["crate"] {
        path.push("self".to_owned());
    }
    at += 2 * usize::from(is(at, "as"));
    found.push(path);
    at
}

/// Every path of a source, with the lists in its imports taken apart.
fn paths(text: &str) -> Vec<Vec<String>> {
    let tokens = tokens(text);
    let (mut at, mut found) = (0, Vec::new());
    while at < tokens.len() {
        let begins = at == 0 || tokens[at - 1] != "::";
        let is_word = tokens[at].starts_with(|first: char| first.is_alphabetic() || first == '_');
        let next =
            if begins && is_word { read_path(&tokens, at, Vec::new(), &mut found) } else { at };
        at = next.max(at + 1);
    }
    found
}

/// The rooms that a source names, which lies so many modules deep. `self` and `*` stand for names of
/// the crate's root that nothing tells apart.
fn imports(text: &str, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in paths(text) {
        let mut rest = &path[usize::from(path[0] == "self")..];
        let ups = rest.iter().take_while(|part| *part == "super").count();
        rest = &rest[ups..];
        let first = rest.first().map_or("", String::as_str);
        if ups == 0 && (first == "crate" || first == "mailrace") {
            found.extend(rest.get(1).cloned());
        } else if ups == 0 {
            found.extend(first.strip_prefix("mailrace_").map(str::to_owned));
        } else if ups >= depth {
            found.extend(rest.first().cloned());
        }
    }
    found
}

#[test]
fn imports_are_read() {
    let read = |text: &str| imports(text, 2).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(read("use crate::log::Log;"), "log");
    assert_eq!(read("use crate::{log::{self, a}, tls::b, c};"), "c log tls");
    assert_eq!(
        read("use crate::{\n    log::{a::{b, tls}, c},\n    tls as t,\n};\nx(crate::a::X)"),
        "a log tls"
    );
    assert_eq!(read("use super::{super::log::{a, b}, tls}; use super::super::c;"), "c log");
    assert_eq!(read("use mailrace_smtp::{Reply, a}; mailrace_log::x()"), "log smtp");
    assert_eq!(read("use {crate::log, crate::tls::{b}};"), "log tls");
    assert_eq!(read("use crate as all; use crate::{self as whole}; use crate::*;"), "* self");
    assert_eq!(read("pub(crate) fn f<'a>(x: &'a str) { pub(super) b::<crate::d::T>::new() }"), "d");
    assert_eq!(
        read("/* crate::a */ // crate::b\n \"crate::c\"; r#\"crate::d\"#; '\"'; crate::e"),
        "e"
    );
}

/// The rooms that a manifest depends on, those of its tests aside.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    let names = dependencies.into_iter().flat_map(|dependencies| dependencies.keys());
    names.filter_map(|name| name.strip_prefix("mailrace-").map(str::to_owned)).collect()
}

/// What a room imports, tests aside: by its manifest, where it has one, or by its sources. `None` for
/// `consumer`, which is a part of `log`.
fn imported(room: &str) -> Option<BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    if room == "consumer" {
        return None;
    }
    if let Ok(manifest) = fs::read_to_string(root.join(room).join("Cargo.toml")) {
        return Some(dependencies(&manifest.parse().unwrap()));
    }
    let mut found = BTreeSet::new();
    let mut files = sources(&root.join(room));
    files.extend(Some(root.join(format!("{room}.rs"))).filter(|path| path.exists()));
    assert!(!files.is_empty(), "{room} has sources");
    for path in files {
        let inner = path.strip_prefix(&root).unwrap().with_extension("");
        let parts: Vec<_> = inner.iter().map(|part| part.to_str().unwrap()).collect();
        if parts.iter().any(|part| *part == "tests" || part.ends_with("_tests")) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let named = imports(text, parts.len() - usize::from(parts.ends_with(&["mod"])));
        let whole = named.iter().find(|name| matches!(name.as_str(), "*" | "self"));
        assert!(whole.is_none(), "{} imports the whole crate", path.display());
        found.extend(named);
    }
    Some(found)
}

/// The table of rooms in ARCHITECTURE: every room of the crate, and what it says that each imports.
fn table() -> BTreeMap<String, String> {
    let text = include_str!("../../src/ARCHITECTURE.md");
    let rows = text.split("| room | what it is | imports |").nth(1).unwrap().lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells =
        rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    cells.map(|cells| (cells[0].trim_matches('`').to_owned(), cells[2].to_owned())).collect()
}

#[test]
fn every_room_stands_in_the_table() {
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let library = library.unwrap();
    let pattern = Regex::new(r"(?m)^pub mod (\w+);|^pub use mailrace_(\w+)").unwrap();
    let rooms = pattern.captures_iter(&library);
    let mut rooms: BTreeSet<_> =
        rooms.map(|found| found.get(1).or(found.get(2)).unwrap().as_str()).collect();
    rooms.insert("consumer");
    let table = table();
    assert_eq!(table.keys().map(String::as_str).collect::<BTreeSet<_>>(), rooms);
}

/// A room imports what the table says and nothing else; who is said to be a leaf, nothing.
#[test]
fn rooms_import_what_the_table_says() {
    let table = table();
    let rooms: BTreeSet<String> = table.keys().cloned().collect();
    let named = Regex::new("`([a-z]+)`").unwrap();
    let mut wrong = Vec::new();
    for (room, said) in &table {
        let Some(real) = imported(room).filter(|_| said != "every room") else { continue };
        // Every room may use the hooks, the system calls, and itself.
        let always = [room.clone(), "stage".to_owned(), "sys".to_owned()].into();
        let of_rooms = |set: &BTreeSet<String>| &(set & &rooms) - &always;
        let mut said: BTreeSet<_> =
            named.captures_iter(said).map(|found| found[1].to_owned()).collect();
        if Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room).join("Cargo.toml").exists()
        {
            // In a manifest it is a part of `log`.
            said.remove("consumer");
        }
        let (said, real) = (of_rooms(&said), of_rooms(&real));
        if said != real {
            wrong.push(format!("{room}: the table says {said:?}, its sources {real:?}"));
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE's table of rooms:\n{}", wrong.join("\n"));
}

/// No edit of the table lets two rooms import each other, even by way of others.
#[test]
fn no_room_imports_itself_by_way_of_others() {
    let mut left: BTreeMap<String, BTreeSet<String>> = table()
        .into_keys()
        .map(|room| (room.clone(), imported(&room).unwrap_or_default()))
        .collect();
    for (room, imports) in &mut left {
        imports.remove(room);
    }
    while !left.is_empty() {
        let free =
            left.iter().find(|(_, imports)| !imports.iter().any(|name| left.contains_key(name)));
        let free = free.map(|(room, _)| room.clone());
        let Some(free) = free else { panic!("these import each other: {left:?}") };
        left.remove(&free);
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
        let ours: Vec<_> = dependencies(&manifest).into_iter().collect();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        seen.push((name, ours.join(" ")));
    }
    seen.sort();
    let expected = [
        ("mailrace-dns", "metrics sys"),
        ("mailrace-export", "header log metrics smtp stage sys tls"),
        ("mailrace-header", ""),
        ("mailrace-log", "stage sys"),
        ("mailrace-metrics", "sys"),
        ("mailrace-revision", ""),
        ("mailrace-smtp", "stage"),
        ("mailrace-stage", ""),
        ("mailrace-sys", ""),
        ("mailrace-tls", ""),
        ("mailrace-verdict", "dns header log metrics sys"),
    ];
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
