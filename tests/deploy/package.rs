//! The Debian package, installed by dpkg and run by a real systemd.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    support::{
        MAILRACE,
        machine::{has, is_root, skip},
        succeeded,
    },
    systemd::Machine,
    tree,
};

#[test]
fn the_package_installs_serves_keeps_its_mail_and_is_purged() {
    if !has("dpkg-deb") || !has("systemd-run") || !(is_root() || skip("needs root")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    let mut build = Command::new(tree("deploy/package/deb"));
    // A debug build is large; how well it packs is not the question here.
    build.arg(MAILRACE).arg(&files).env("COMPRESSION", "0");
    succeeded("deploy/package/deb", build.output().unwrap());
    let built = fs::read_dir(&files).unwrap().next().expect("a package").unwrap().path();
    fs::rename(built, files.join("mailrace.deb")).unwrap();
    documented(&files.join("mailrace.deb"));
    let Some(machine) = Machine::boot(dir.path()) else { return };
    let began = Instant::now();
    machine.run(&["dpkg", "-i", "/mailrace.deb"]);
    assert_eq!(machine.show("ActiveState"), "active", "it starts with its own configuration");
    let documents = machine.show("Documentation");
    assert!(documents.contains("man:mailrace(1)"), "{documents}");
    assert!(documents.contains("file:///usr/share/doc/mailrace/RUNBOOK.md"), "{documents}");
    machine.run(&["mailrace", "doctor", "-c", "/etc/mailrace/mailrace.toml"]);
    let to = ["--server", "127.0.0.1:2525", "--to", "a@example.com", "--helo", "t.example"];
    machine.run(&[&["swaks"], &to[..]].concat());
    // Of 60 s that an operator may expect; a machine that builds beside it is slower.
    let took = began.elapsed();
    println!("the first mail was stored {took:.1?} after dpkg -i began, doctor included");
    assert!(took < Duration::from_secs(60), "{took:?}");

    // Over a configuration that an operator has broken an upgrade leaves the server as it is.
    machine.run(&["sed", "-i", "s/^recipients/recipient/", "/etc/mailrace/mailrace.toml"]);
    let before = machine.show("MainPID");
    machine.run(&["dpkg", "-i", "/mailrace.deb"]);
    assert_eq!(machine.show("MainPID"), before);
    machine.run(&["sed", "-i", "s/^recipient /recipients /", "/etc/mailrace/mailrace.toml"]);
    machine.run(&["dpkg", "-i", "/mailrace.deb"]);
    assert_eq!(machine.show("MainPID"), before, "the process stays");
    let status = machine.run(&["mailrace", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["upgrade"]["ok"], true, "the new program runs: {status}");

    machine.run(&["cp", "/usr/bin/mailrace", "/root/mailrace"]);
    machine.run(&["dpkg", "-r", "mailrace"]);
    assert!(!machine.command(&["systemctl", "is-active", "mailrace"]).status.success());
    let verify = ["/root/mailrace", "log", "verify", "--dir", "/var/lib/mailrace"];
    let verified = machine.run(&verify);
    assert!(verified.contains("1 record verified"), "{verified}");
    machine.run(&["dpkg", "-P", "mailrace"]);
    assert_eq!(machine.run(&["find", "/var/lib/mailrace", "-mindepth", "1"]), "");
    assert!(!machine.command(&["test", "-e", "/etc/mailrace"]).status.success());
}

/// Manual pages and completions lie where man(1) and the shells look for them, as the program prints
/// them. A machine may leave them out (`path-exclude` of dpkg), so the package itself is looked into.
fn documented(package: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let mut unpack = Command::new("dpkg-deb");
    succeeded("dpkg-deb", unpack.arg("-x").arg(package).arg(dir.path()).output().unwrap());
    let share = dir.path().join("usr/share");
    let printed = |arguments: &[&str]| {
        succeeded("mailrace", Command::new(MAILRACE).args(arguments).output().unwrap()).stdout
    };
    for (shell, place) in [
        ("bash", "bash-completion/completions/mailrace"),
        ("zsh", "zsh/vendor-completions/_mailrace"),
        ("fish", "fish/vendor_completions.d/mailrace.fish"),
    ] {
        let script = fs::read(share.join(place)).expect(place);
        assert!(script == printed(&["completions", shell]), "{place}");
    }
    let page = share.join("man/man1/mailrace.1.gz");
    let page = succeeded("zcat", Command::new("zcat").arg(page).output().unwrap()).stdout;
    assert!(page == printed(&["man"]), "mailrace(1)");
    let pages = fs::read_dir(share.join("man/man1")).unwrap().flatten();
    let all = pages.inspect(|page| {
        assert!(page.file_name().to_str().unwrap().ends_with(".1.gz"), "{page:?}");
    });
    assert!(all.count() > 40, "a page for each subcommand");
}
