//! unbound with zones of the test's own, on a port and in a directory of its own. It asks nobody.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, UdpSocket},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::support::machine::{OwnedChild, die_with_parent, has};

/// Killed when dropped.
pub struct Unbound {
    child: OwnedChild,
    dir: tempfile::TempDir,
    pub address: SocketAddr,
}

impl Unbound {
    /// One that knows these lines of its `server:` clause; `None`: it is not installed.
    pub fn start(zones: &str) -> Option<Self> {
        if !has("unbound") || !has("unbound-control") {
            return None;
        }
        // Another may take the port between here and unbound's bind.
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            std::fs::write(dir.path().join("unbound.conf"), config(dir.path(), free, zones))
                .unwrap();
            if let Some(child) = launch(dir.path()) {
                return Some(Self { child, dir, address: free });
            }
        }
        panic!("unbound does not start");
    }

    /// Queries it has got.
    pub fn queries(&self) -> u64 {
        let done = Command::new("/usr/sbin/unbound-control")
            .arg("-c")
            .arg(self.dir.path().join("unbound.conf"))
            .arg("stats_noreset")
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("total.num.queries="));
        count.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    }
}

fn config(dir: &Path, address: SocketAddr, zones: &str) -> String {
    let dir = dir.display();
    let port = address.port();
    format!(
        "server:\n\
         interface: 127.0.0.1@{port}\n\
         directory: \"{dir}\"\nchroot: \"\"\nusername: \"\"\npidfile: \"\"\n\
         use-syslog: no\nlogfile: \"\"\nverbosity: 1\nnum-threads: 1\n\
         module-config: \"iterator\"\nlocal-zone: \".\" static\n{zones}\n\
         remote-control:\n\
         control-enable: yes\ncontrol-interface: \"{dir}/control\"\ncontrol-use-cert: no\n"
    )
}

/// `None`: it ended.
fn launch(dir: &Path) -> Option<OwnedChild> {
    let mut command = Command::new("/usr/sbin/unbound");
    command.args(["-d", "-c"]).arg(dir.join("unbound.conf")).stderr(Stdio::piped());
    // SAFETY: a single system call, which may be made between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    let mut child = OwnedChild(command.spawn().unwrap());
    let said = BufReader::new(child.stderr.take().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            eprintln!("unbound: {line}");
            let _ = tell.send(line);
        }
    });
    loop {
        match told.recv_timeout(Duration::from_secs(20)) {
            Ok(line) if line.contains("start of service") => return Some(child),
            Ok(_) => {}
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}
