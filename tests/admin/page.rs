//! The live page in a real browser: headless Chromium with its console, its policy reports and axe-core.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::support::{
    self, Server,
    machine::{has, skip},
    succeeded,
};

/// What tests/support/servers/browser.sh installs.
fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/browser")
}

/// What the browser saw of the page, under load.
fn watch(server: &Server, token: &str, dir: &Path) -> serde_json::Value {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                support::send(server, 20, 4_096);
            }
        });
        let _over = support::Raise(&stop);
        let output = Command::new("timeout")
            .args(["120", "node"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admin/page.mjs"))
            .arg(modules())
            .arg(format!("http://{}/", server.admin))
            .arg(token)
            .arg(dir.join("page"))
            .output()
            .unwrap();
        let output = succeeded("node tests/admin/page.mjs", output);
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

fn is_there() -> bool {
    has("chromium")
        && has("node")
        && (modules().join("node_modules/axe-core").is_dir()
            || skip("puppeteer-core is not installed"))
}

#[test]
fn the_live_page_in_chromium() {
    if !is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=1"]);
    // Kept after the test, to be looked at.
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("live-page");
    std::fs::create_dir_all(&shots).unwrap();
    let seen = watch(&server, "", &shots);
    for chart in ["rate", "bytes", "ack", "heat"] {
        let pixels = |when: &str| seen[when][chart].as_u64().unwrap();
        assert!(pixels("drawn") > pixels("empty") + 200, "{chart}: {seen}");
    }
    for nothing in ["console", "violations", "axe"] {
        assert_eq!(seen[nothing].as_array().map(Vec::len), Some(0), "{nothing}: {seen}");
    }
    let own = format!("http://{}/", server.admin);
    let requests = seen["requests"].as_array().unwrap();
    assert!(requests.iter().all(|url| url.as_str().unwrap().starts_with(&own)), "{requests:?}");
    assert_eq!(seen["state"], "ready");
    assert_ne!(seen["tiles"]["Messages/s"], "0");
    assert_eq!(seen["tiles"]["Refused"], "0.0 %");
    let tables = seen["tables"].to_string();
    assert!(tables.contains("Shards") && tables.contains("Replies by code"), "{tables}");
    assert!(seen["readout"].as_str().unwrap().contains("Acknowledged "), "{seen}");
    for name in ["page-light.png", "page-dark.png"] {
        assert!(std::fs::metadata(shots.join(name)).unwrap().len() > 20_000, "{name}");
    }
}

/// A browser cannot send a token by itself: the page asks for it, and shows nothing before.
#[test]
fn the_live_page_asks_for_the_token() {
    if !is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let setting = format!("server.admin.token_file={}", token.display());
    let server = Server::start_with(dir.path(), &[&setting, "server.shards=1"]);
    let seen = watch(&server, "s3cret", dir.path());
    assert_eq!(seen["refused"], "That is not the token.");
    assert_eq!(seen["state"], "ready", "{seen}");
    for nothing in ["console", "violations", "axe"] {
        assert_eq!(seen[nothing].as_array().map(Vec::len), Some(0), "{nothing}: {seen}");
    }
}

/// The pictures of the README are made by their command.
#[test]
fn pictures_are_made() {
    if !is_there() || !has("tmux") {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut make = Command::new(root.join("docs/pictures/make"));
    support::without_settings(&mut make);
    make.arg(env!("CARGO_BIN_EXE_mailrace")).arg(dir.path());
    succeeded("docs/pictures/make", make.output().unwrap());
    for name in ["page-light.png", "report.png", "top.txt"] {
        assert!(readme.contains(&format!("docs/pictures/{name}")), "{name}");
        assert!(root.join("docs/pictures").join(name).is_file(), "{name} is not in the tree");
        let made = std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(made > if name == "top.txt" { 200 } else { 20_000 }, "{name}: {made} bytes");
    }
    let top = std::fs::read_to_string(dir.path().join("top.txt")).unwrap();
    assert!(top.contains("serving") && !top.contains('\u{1b}'), "{top}");
}
