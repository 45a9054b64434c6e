//! aiosmtpd, of the system or in a private virtual environment.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const VERSION: &str = "aiosmtpd==1.4.6";

pub(crate) fn missing(installed: &Path) -> Option<String> {
    if interpreter(installed).is_some() {
        return None;
    }
    Some("python3 -m aiosmtpd does not run; --install puts it into a private directory".to_owned())
}

/// # Errors
/// What pip says.
pub(crate) fn install(installed: &Path) -> io::Result<()> {
    let venv = installed.join("python");
    run(Command::new("python3").arg("-m").arg("venv").arg(&venv))?;
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", VERSION]))
}

pub(crate) fn command(installed: &Path, port: u16) -> Command {
    let mut command = Command::new(interpreter(installed).unwrap_or_else(|| "python3".into()));
    command.args(["-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink"]);
    command.args(["-l", &format!("127.0.0.1:{port}")]);
    command
}

fn interpreter(installed: &Path) -> Option<PathBuf> {
    let places = [installed.join("python/bin/python3"), PathBuf::from("python3")];
    places.into_iter().find(|python| {
        let mut probe = Command::new(python);
        probe.args(["-c", "import aiosmtpd"]).stdin(Stdio::null());
        probe.output().is_ok_and(|output| output.status.success())
    })
}

pub(crate) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}
