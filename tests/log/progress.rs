//! Long commands on a terminal say how far they are, and nothing anywhere else.

use std::{path::Path, process::Command};

use crate::support::{MAILRACE, Server, machine::has, send, succeeded};

/// What a terminal gets to see of a command.
fn on_terminal(line: &str, no_color: &str) -> String {
    let mut script = Command::new("script");
    script.args(["-qec", line, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", no_color);
    String::from_utf8(succeeded(line, script.output().unwrap()).stdout).unwrap()
}

fn filled(dir: &Path) {
    let server = Server::start_with(dir, &["server.shards=1"]);
    send(&server, 20, 20_000);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn progress_is_for_terminals() {
    if !has("script") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    filled(&dir);
    let (dir, at) = (dir.display(), place.path().display());
    for (number, (command, word)) in [
        (format!("log verify --dir {dir}"), "verifying ["),
        (format!("log export --to {at}/out --as eml --dir {dir}"), "exporting ["),
        (format!("backup {at}/backups --dir {dir}"), "saving ["),
        (format!("restore {at}/backups --dir {at}/restored"), "restoring ["),
    ]
    .into_iter()
    .enumerate()
    {
        let line = format!("{MAILRACE} {command}");
        let seen = on_terminal(&line, "1");
        assert!(seen.contains(word), "{seen:?}");
        // No colour: the cursor moves, lines are cleared, and that is all.
        assert!(!seen.contains("\x1b[3") && !seen.contains("\x1b[1m"), "{seen:?}");
        if number < 3 {
            let seen = on_terminal(&format!("{line} --json"), "");
            assert!(!seen.contains(word) && !seen.contains('\x1b'), "{seen:?}");
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            let output = succeeded(&line, output);
            let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!told.contains(word) && !told.contains('\x1b'), "{told:?}");
        }
    }
    // Records on the terminal are progress enough; those that go into a file are none.
    let cat = format!("{MAILRACE} log cat --dir {dir}");
    let seen = on_terminal(&cat, "");
    assert!(seen.contains(" -> ") && !seen.contains("reading ["), "{seen:?}");
    let seen = on_terminal(&format!("{cat} > {at}/records"), "");
    assert!(seen.contains("reading [") && !seen.contains(" -> "), "{seen:?}");
    let written = std::fs::read_to_string(place.path().join("records")).unwrap();
    assert!(written.lines().count() == 20 && !written.contains("reading"), "{written}");
    let seen = on_terminal(&format!("{cat} | cat"), "");
    assert!(!seen.contains("reading ["), "{seen:?}");
    // States are coloured, and NO_COLOR holds.
    let list = format!("{MAILRACE} log ls --dir {dir}");
    assert!(on_terminal(&list, "1").contains("sealed"));
    assert!(!on_terminal(&list, "1").contains('\x1b'));
}
