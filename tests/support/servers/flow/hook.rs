//! A webhook's receiver in Python, see `hook.py`.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::script;
use crate::support::machine::{OwnedChild, die_with_parent};

/// Killed when dropped.
pub struct Hook {
    child: OwnedChild,
    dir: tempfile::TempDir,
    port: u16,
}

impl Hook {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (child, port) = launch(0, dir.path());
        Self { child, dir, port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// A line for each event taken.
    pub fn taken(&self) -> PathBuf {
        self.dir.path().join("taken")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.end();
    }

    /// Again on the same port; what was taken stays.
    pub fn restart(&mut self) {
        (self.child, _) = launch(self.port, self.dir.path());
    }
}

fn launch(port: u16, dir: &Path) -> (OwnedChild, u16) {
    let mut command = Command::new("python3");
    command.arg(script("hook.py")).arg(port.to_string()).arg(dir.join("taken"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    let mut child = OwnedChild(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().parse().expect("it tells its port"))
}
