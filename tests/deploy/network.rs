//! The files for HAProxy and for the kernel's settings.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    support::{
        self, Client, Server, body, eventually, id_of,
        machine::{self, has},
        ports::free_address,
        succeeded,
    },
    tree,
};

#[test]
fn haproxy_checks_the_server_and_passes_mail_on() {
    if !has("haproxy") {
        return;
    }
    let shipped = tree("deploy/haproxy/haproxy.cfg");
    let check = |file| Command::new("haproxy").args(["-c", "-q", "-f"]).arg(file).output().unwrap();
    succeeded("haproxy -c", check(&shipped));
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(
        &dir.path().join("data"),
        &[
            "listener.0.proxy_protocol.mode=required",
            "listener.0.proxy_protocol.trusted=127.0.0.0/8",
            "listener.0.accept.domains=*",
        ],
    );
    let front = free_address();
    let text = fs::read_to_string(&shipped).unwrap();
    let lines = text.lines().map(|line| match line.trim() {
        "bind :25" => format!("    bind {front}"),
        "server mx1 127.0.0.1:2525" => format!("    server mx1 {}", server.smtp),
        "server mx2 127.0.0.1:2526" => String::new(),
        "maxconn 100000" => "    maxconn 100".to_owned(),
        _ => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert!(!text.contains("2525") && !text.contains("2526"), "{text}");
    let file = dir.path().join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: the call is one system call.
    unsafe { command.pre_exec(machine::die_with_parent) };
    let mut haproxy = command.stderr(Stdio::null()).spawn().unwrap();
    // Four failed checks would have taken the server out.
    eventually("the server is checked", Duration::from_secs(60), || {
        server.metric("mailrace_smtp_commands_total", &["command=\"ehlo\""]) >= 4.0
    });
    let refused =
        server.metric("mailrace_smtp_connections_refused_total", &["reason=\"proxy_header\""]);
    assert_eq!(refused, 0.0, "checks have a PROXY header too");
    let mut client = Client::connect(front);
    client.ehlo();
    let id = id_of(&client.bdat(&body(1, 2_000)));
    assert!(!support::log_get(&dir.path().join("data"), &id).is_empty());
    let _ = haproxy.kill();
    let _ = haproxy.wait();
}

#[test]
fn the_kernel_knows_each_setting() {
    for file in ["deploy/sysctl/mailrace.conf", "deploy/sysctl/load-generator.conf"] {
        for line in fs::read_to_string(tree(file)).unwrap().lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, _) = line.split_once(" = ").unwrap_or_else(|| panic!("{file}: {line}"));
            let known = fs::exists(format!("/proc/sys/{}", key.replace('.', "/"))).unwrap();
            assert!(known, "{file}: the kernel has no {key}");
        }
        if has("sysctl") {
            let mut dry = Command::new("sysctl");
            dry.args(["--dry-run", "-p"]).arg(tree(file));
            let said = succeeded(file, dry.output().unwrap()).stderr;
            assert_eq!(String::from_utf8_lossy(&said), "", "{file}");
        }
    }
}

/// As limits.conf(5) wants it: domain, type, item, value.
#[test]
fn the_limits_are_of_items_that_there_are() {
    let file = "deploy/limits/mailrace.conf";
    let kernel = fs::read_to_string("/proc/self/limits").unwrap();
    let items = [("memlock", "Max locked memory"), ("nofile", "Max open files")];
    let mut set = Vec::new();
    let text = fs::read_to_string(tree(file)).unwrap();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<_> = line.split_whitespace().collect();
        let [domain, kind, item, value] = fields[..] else { panic!("{file}: {line}") };
        assert_eq!((domain, ["-", "soft", "hard"].contains(&kind)), ("mailrace", true), "{line}");
        let known = items.iter().find(|(name, _)| *name == item);
        let (_, of_kernel) = known.unwrap_or_else(|| panic!("{file}: no item {item}"));
        assert!(kernel.contains(of_kernel), "{of_kernel}");
        assert!(value == "unlimited" || value.parse::<u64>().is_ok(), "{file}: {line}");
        set.push(item);
    }
    assert_eq!(set, ["memlock", "nofile"], "what `mailrace doctor` asks for");
}
