//! s3rver: an S3 server that keeps all on disk. Knows no conditions: an object put again is replaced.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use super::PATIENCE;
use crate::support::machine::{OwnedChild, die_with_parent, has, skip};

/// Killed when dropped.
pub struct S3rver {
    child: OwnedChild,
    dir: tempfile::TempDir,
    address: SocketAddr,
}

impl S3rver {
    /// With a bucket `mail`; `None`: it is not installed.
    pub fn start() -> Option<Self> {
        let there = program().is_file() || skip("no s3rver: run tests/support/servers/s3.sh");
        if !(there && has("node")) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (child, address) = launch(dir.path(), 0);
        std::fs::write(dir.path().join("secret"), "S3RVER").unwrap();
        Some(Self { child, dir, address })
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn secret_file(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    /// Where the bucket's objects lie.
    pub fn bucket(&self) -> PathBuf {
        self.dir.path().join("objects/mail")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.end();
    }

    /// Again on the same port, over the same objects.
    pub fn restart(&mut self) {
        (self.child, _) = launch(self.dir.path(), self.address.port());
    }
}

fn program() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
    root.join("servers/s3rver/node_modules/s3rver/bin/s3rver.js")
}

fn launch(dir: &Path, port: u16) -> (OwnedChild, SocketAddr) {
    let mut command = Command::new("node");
    command.arg(program()).arg("-d").arg(dir.join("objects")).args(["-a", "127.0.0.1"]);
    command.args(["-p", &port.to_string(), "-s", "--configure-bucket", "mail"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    let mut child = OwnedChild(command.spawn().unwrap());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let at = line.find("127.0.0.1:").and_then(|at| line[at..].trim().parse().ok());
            if let Some(address) = at {
                let _ = tell.send(address);
            }
        }
    });
    (child, told.recv_timeout(PATIENCE).expect("it tells its address"))
}
