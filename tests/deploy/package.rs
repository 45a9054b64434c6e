//! The Debian package, installed by dpkg and run by a real systemd.

use std::{fs, process::Command};

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
    let Some(machine) = Machine::boot(dir.path()) else { return };
    machine.run(&["dpkg", "-i", "/mailrace.deb"]);
    assert_eq!(machine.show("ActiveState"), "active", "it starts with its own configuration");
    machine.run(&["mailrace", "doctor", "-c", "/etc/mailrace/mailrace.toml"]);
    let to = ["--server", "127.0.0.1:2525", "--to", "a@example.com", "--helo", "t.example"];
    machine.run(&[&["swaks"], &to[..]].concat());

    // Over a configuration that an operator has broken an upgrade leaves the server as it is.
    machine.run(&["sed", "-i", "s/^recipients/recipient/", "/etc/mailrace/mailrace.toml"]);
    let before = machine.show("MainPID");
    machine.run(&["dpkg", "-i", "/mailrace.deb"]);
    assert_eq!(machine.show("MainPID"), before);
    machine.run(&["sed", "-i", "s/^recipient /recipients /", "/etc/mailrace/mailrace.toml"]);
    machine.run(&["dpkg", "-i", "/mailrace.deb"]);
    assert_ne!(machine.show("MainPID"), before, "the new program runs");

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
