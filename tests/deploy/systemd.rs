//! The unit under a real systemd, which runs as the first process of its own namespaces.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use crate::{
    notify::StoppedThread,
    support::{
        self, MAILRACE, eventually,
        machine::{has, is_root, skip},
        servers::certificates::Authority,
        signal, succeeded,
    },
    tree,
};

/// systemd's own judgement of the unit, from 0 (confined) to 10; 1.7 as the file stands.
const EXPOSURE_MAX: f64 = 2.0;

const CONFIG: &str = r#"
[server]
shards = 1
tls = { cert_file = "credential:tls.crt", key_file = "credential:tls.key" }
[log]
dir = "/var/lib/mailrace"
segment_size = "16MiB"
[limits]
message_size = "1MiB"
[[listener]]
name = "smtp"
listen = ["127.0.0.1:25"]
"#;

const UNIT: &str = "etc/systemd/system/mailrace.service.d";

#[test]
fn systemd_judges_the_unit_well_confined() {
    if !has("systemd-analyze") {
        return;
    }
    let unit = tree("deploy/systemd/mailrace.service");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--threshold=100", "--no-pager"]).arg(unit);
    let said = succeeded("systemd-analyze security", command.output().unwrap()).stdout;
    let said = String::from_utf8(said).unwrap();
    let last = said.lines().last().unwrap();
    let level = last.split_once("mailrace.service: ").and_then(|(_, rest)| rest.split(' ').next());
    let level: f64 = level.unwrap_or_else(|| panic!("{last}")).parse().unwrap();
    assert!(level <= EXPOSURE_MAX, "{said}");
}

#[test]
fn the_unit_starts_reloads_is_watched_and_stops() {
    if !has("systemd-run") || !has("swaks") || !(is_root() || skip("needs root")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    install(&files);
    let Some(machine) = Machine::boot(dir.path()) else { return };
    machine.run(&["systemd-sysusers", "/usr/lib/sysusers.d/mailrace.conf"]);
    machine.run(&["systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/mailrace.conf"]);
    machine.run(&["chgrp", "-R", "mailrace", "/etc/mailrace/mailrace.toml"]);

    // It returns once the server has sent READY.
    machine.run(&["systemctl", "start", "mailrace"]);
    assert_eq!(machine.show("ActiveState"), "active");
    assert_eq!(machine.show("StatusText"), "Serving with 1 shard");
    let owner = machine.run(&["ps", "-o", "user=", "-p", &machine.show("MainPID")]);
    assert_eq!(owner.trim(), "mailrace");
    // Port 25, and a certificate whose key is a credential.
    machine.mail();

    machine.run(&["sed", "-i", "s/1MiB/2MiB/", "/etc/mailrace/mailrace.toml"]);
    machine.run(&["systemctl", "reload", "mailrace"]);
    eventually("the new limit is offered", Duration::from_secs(20), || {
        machine.mail().contains("SIZE 2097152")
    });
    assert_eq!(machine.show("StatusText"), "Serving, the configuration was reloaded");
    machine.run(&["sed", "-i", "s/message_size/mesage_size/", "/etc/mailrace/mailrace.toml"]);
    assert!(!machine.command(&["systemctl", "reload", "mailrace"]).status.success());
    assert_eq!(machine.show("ActiveState"), "active", "a bad configuration changes nothing");
    machine.run(&["sed", "-i", "s/mesage_size/message_size/", "/etc/mailrace/mailrace.toml"]);

    // A shard that stands still: the watchdog ends the server, and it comes again.
    let before = machine.show("MainPID");
    let inner = machine.run(&["pgrep", "-x", "mailrace"]);
    assert_eq!(inner.trim(), before);
    let stopped = StoppedThread::of(machine.outside(&before), "shard");
    eventually("the watchdog sees it", Duration::from_secs(60), || {
        machine.run(&["journalctl", "-u", "mailrace"]).contains("Watchdog timeout")
    });
    drop(stopped);
    eventually("it runs again", Duration::from_secs(60), || {
        machine.show("ActiveState") == "active" && machine.show("MainPID") != before
    });
    machine.mail();

    machine.run(&["systemctl", "stop", "mailrace"]);
    assert_eq!(machine.show("Result"), "success");
    let verified = machine.run(&["mailrace", "log", "verify", "--dir", "/var/lib/mailrace"]);
    assert!(verified.contains("verified"), "{verified}");

    // What only a change can heal is not tried again.
    machine.run(&["sed", "-i", "s/message_size/mesage_size/", "/etc/mailrace/mailrace.toml"]);
    assert!(!machine.command(&["systemctl", "start", "mailrace"]).status.success());
    assert_eq!(machine.show("ActiveState"), "failed");
}

/// What a package would install.
fn install(files: &Path) {
    for (from, to) in [
        (Path::new(MAILRACE), "usr/bin/mailrace"),
        (&tree("deploy/systemd/mailrace.service"), "usr/lib/systemd/system/mailrace.service"),
        (&tree("deploy/systemd/sysusers.conf"), "usr/lib/sysusers.d/mailrace.conf"),
        (&tree("deploy/systemd/tmpfiles.conf"), "usr/lib/tmpfiles.d/mailrace.conf"),
        (&tree("deploy/systemd/credentials.conf"), &format!("{UNIT}/credentials.conf")),
    ] {
        let to = files.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    fs::write(files.join(UNIT).join("test.conf"), "[Service]\nWatchdogSec=10\n").unwrap();
    let credentials = files.join("etc/mailrace/credentials");
    fs::create_dir_all(&credentials).unwrap();
    Authority::new().issue(&credentials, "tls");
    fs::rename(credentials.join("tls.pem"), credentials.join("tls.crt")).unwrap();
    fs::write(files.join("etc/mailrace/mailrace.toml"), CONFIG).unwrap();
}

/// A systemd of its own.
pub struct Machine {
    boot: Child,
    first: String,
}

impl Machine {
    /// `None` where the kernel or the container this runs in does not let it.
    pub fn boot(dir: &Path) -> Option<Self> {
        let mut command = Command::new(tree("tests/deploy/boot-systemd"));
        command.arg(dir).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut boot = command.spawn().unwrap();
        let mut first = String::new();
        BufReader::new(boot.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let machine = Self { boot, first: first.trim().to_owned() };
        if machine.first.is_empty() {
            skip("no systemd can be started here");
            return None;
        }
        eventually("systemd has booted", Duration::from_secs(60), || {
            let state = machine.command(&["systemctl", "is-system-running"]).stdout;
            ["running", "degraded"].contains(&String::from_utf8_lossy(&state).trim())
        });
        Some(machine)
    }

    pub fn command(&self, command: &[&str]) -> Output {
        let mut entered = Command::new("nsenter");
        entered.args(["-t", &self.first, "-p", "-m", "-u", "-i", "-C", "-n", "-r", "-w"]);
        entered.args(command).stdin(Stdio::null());
        support::output_of(entered)
    }

    #[track_caller]
    pub fn run(&self, command: &[&str]) -> String {
        let output = self.command(command);
        if !output.status.success() {
            let log = self.command(&["journalctl", "-u", "mailrace", "--no-pager"]).stdout;
            eprintln!("{}", String::from_utf8_lossy(&log));
        }
        String::from_utf8(succeeded(&command.join(" "), output).stdout).unwrap()
    }

    pub fn show(&self, property: &str) -> String {
        let text = self.run(&["systemctl", "show", "-P", property, "mailrace"]);
        text.trim().to_owned()
    }

    /// Sends one under TLS; the dialogue.
    fn mail(&self) -> String {
        let to = ["--server", "127.0.0.1:25", "--to", "a@example.com", "--helo", "t.example"];
        self.run(&[&["swaks", "--tls"], &to[..]].concat())
    }

    /// The process id of one of its processes, as it is seen from here.
    fn outside(&self, inside: &str) -> u32 {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(&self.first);
        let is = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("NSpid:"));
            line.and_then(|line| line.split_whitespace().last()) == Some(inside)
                && namespace(&pid.to_string()) == ours
        };
        numbers.into_iter().find(is).expect("the process is there")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        signal(&self.boot, libc::SIGTERM);
        let _ = self.boot.wait();
    }
}
