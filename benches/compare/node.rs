//! Haraka and nodemailer's smtp-server, both on node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peers::{self, Certificate};
use crate::python;

const PACKAGES: [&str; 2] = ["Haraka@3.3.4", "smtp-server@3.21.6"];

const SMTP_SERVER: &str = r"const { SMTPServer } = require(process.argv[2]);
new SMTPServer({
  authOptional: true,
  disabledCommands: ['AUTH', 'STARTTLS'],
  disableReverseLookup: true,
  onData(stream, session, done) {
    stream.resume();
    stream.on('end', () => done());
  },
}).listen(Number(process.argv[3]), '127.0.0.1');
";

const ACCEPT: &str = "exports.hook_rcpt = (next) => next(OK);\n\
                      exports.hook_queue = (next) => next(OK);\n";

pub(crate) fn missing(installed: &Path, package: &str) -> Option<String> {
    if peers::find("node").is_none() {
        return Some("node is not in PATH".to_owned());
    }
    let is_there = module(installed, package).is_dir();
    (!is_there).then(|| "not installed; --install puts it into a private directory".to_owned())
}

/// # Errors
/// What npm says.
pub(crate) fn install(installed: &Path) -> io::Result<()> {
    let dir = installed.join("node");
    fs::create_dir_all(&dir)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--omit=optional", "--prefix"]);
    python::run(npm.arg(&dir).args(PACKAGES))
}

/// # Errors
/// Where its script cannot be written.
pub(crate) fn smtp_server(installed: &Path, dir: &Path, port: u16) -> io::Result<Command> {
    let script = dir.join("server.js");
    fs::write(&script, SMTP_SERVER)?;
    let mut command = Command::new("node");
    command.arg(script).arg(module(installed, "smtp-server")).arg(port.to_string());
    Ok(command)
}

/// # Errors
/// Where its configuration cannot be written.
pub(crate) fn haraka(
    installed: &Path,
    dir: &Path,
    port: u16,
    certificate: Option<&Certificate>,
) -> io::Result<Command> {
    let (config, plugins) = (dir.join("config"), dir.join("plugins"));
    fs::create_dir_all(&config)?;
    fs::create_dir_all(&plugins)?;
    // As it is delivered; without these files it does not run.
    for entry in fs::read_dir(module(installed, "Haraka").join("config"))?.flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), config.join(entry.file_name()))?;
        }
    }
    fs::write(plugins.join("accept.js"), ACCEPT)?;
    let mut enabled = "accept\n";
    if let Some(Certificate { cert, key }) = certificate {
        fs::copy(cert, config.join("tls_cert.pem"))?;
        fs::copy(key, config.join("tls_key.pem"))?;
        enabled = "tls\naccept\n";
    }
    fs::write(config.join("plugins"), enabled)?;
    fs::write(config.join("me"), "mx.test\n")?;
    fs::write(config.join("loglevel"), "WARN\n")?;
    fs::write(config.join("smtp.ini"), format!("listen=127.0.0.1:{port}\nnodes=0\n"))?;
    let mut command = Command::new("node");
    command.arg(module(installed, "Haraka").join("bin/haraka")).arg("-c").arg(dir);
    Ok(command)
}

fn module(installed: &Path, package: &str) -> PathBuf {
    installed.join("node/node_modules").join(package)
}
