//! HAProxy in front of a server: a configuration of its own on ports of its own.

use std::{
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{eventually, machine, ports::free_address, succeeded};

pub struct Haproxy {
    child: machine::OwnedChild,
    /// Where clients go.
    pub front: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Haproxy {
    /// `bind` and `server` are options of these lines, `backend` lines of the section.
    pub fn start(bind: &str, server: (SocketAddr, &str), backend: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let front = free_address();
        let (address, options) = server;
        let config = format!(
            "global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 5m
    timeout server 5m
listen smtp
    bind {front} {bind}
    unique-id-format %[uuid]
    {backend}
    server one {address} {options}
"
        );
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let check = Command::new("haproxy").arg("-c").arg("-q").arg("-f").arg(&file).output();
        succeeded("haproxy -c", check.unwrap());
        let mut command = Command::new("haproxy");
        // In the foreground, one process.
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: the call is one system call.
        unsafe { command.pre_exec(machine::die_with_parent) };
        let child = machine::OwnedChild(command.stderr(Stdio::null()).spawn().unwrap());
        let haproxy = Self { child, front, _dir: dir };
        eventually("haproxy listens", Duration::from_secs(20), || {
            let listening = std::fs::read_to_string("/proc/net/tcp").unwrap();
            // A connection would be one more for the server behind it.
            listening.contains(&format!("0100007F:{:04X} 00000000:0000 0A", front.port()))
        });
        haproxy
    }
}
