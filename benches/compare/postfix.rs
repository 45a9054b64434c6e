//! A private Postfix: own configuration, queue and data directories; nothing leaves it.
//!
//! Every message is put on hold by `smtpd`, so no queue manager or delivery runs and the CPU time
//! is that of acceptance: `master`, `smtpd`, `cleanup`, `trivial-rewrite`, `anvil`. Limits that
//! would slow a load test down are lifted; the rest is as delivered.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::peers::{self, Certificate};

const DAEMONS: &str = "/usr/lib/postfix/sbin";

pub(crate) fn missing() -> Option<String> {
    if !Path::new(DAEMONS).join("master").is_file() || peers::find("postfix").is_none() {
        return Some(format!("there is no {DAEMONS}/master (Debian: package postfix)"));
    }
    (!peers::is_root()).then(|| "Postfix starts as root alone".to_owned())
}

/// Writes the configuration and has Postfix make its directories.
///
/// # Errors
/// Where files cannot be written, or Postfix does not like them.
pub(crate) fn command(
    dir: &Path,
    port: u16,
    certificate: Option<&Certificate>,
) -> io::Result<Command> {
    let etc = dir.join("etc");
    let (queue, data) = (dir.join("queue"), dir.join("data"));
    for made in [&etc, &queue, &data] {
        fs::create_dir_all(made)?;
    }
    fs::write(etc.join("main.cf"), main_cf(&queue, &data, certificate))?;
    fs::write(etc.join("master.cf"), master_cf(port))?;
    own_by_postfix(&data)?;
    let mut check = Command::new(peers::find("postfix").unwrap_or_else(|| "postfix".into()));
    let output = check.arg("-c").arg(&etc).arg("check").stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let mut master = Command::new(PathBuf::from(DAEMONS).join("master"));
    master.arg("-c").arg(&etc).arg("-d");
    // As the postfix command would; the daemons refuse to run with a foreign one.
    master.env("MAIL_CONFIG", &etc);
    Ok(master)
}

fn own_by_postfix(data: &Path) -> io::Result<()> {
    let status = Command::new("chown").arg("postfix").arg(data).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("there is no user postfix")) }
}

fn main_cf(queue: &Path, data: &Path, certificate: Option<&Certificate>) -> String {
    let tls = match certificate {
        // Tickets, which its defaults have; its cache of sessions would be a process of its own.
        Some(Certificate { cert, key }) => format!(
            "smtpd_tls_security_level = may\n\
             smtpd_tls_cert_file = {}\n\
             smtpd_tls_key_file = {}\n",
            cert.display(),
            key.display()
        ),
        None => "smtpd_tls_security_level = none\n".to_owned(),
    };
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {}\n\
         data_directory = {}\n\
         daemon_directory = {DAEMONS}\n\
         inet_interfaces = loopback-only\n\
         inet_protocols = ipv4\n\
         myhostname = mx.test\n\
         mydestination =\n\
         relay_domains = server.test\n\
         mynetworks = 127.0.0.0/8\n\
         alias_maps =\n\
         local_recipient_maps =\n\
         smtpd_client_restrictions = static:HOLD\n\
         {tls}\
         default_transport = discard:\n\
         relay_transport = discard:\n\
         default_process_limit = 200\n\
         smtpd_client_connection_count_limit = 0\n\
         smtpd_client_connection_rate_limit = 0\n\
         smtpd_client_message_rate_limit = 0\n\
         smtpd_peername_lookup = no\n\
         in_flow_delay = 0\n\
         message_size_limit = 26214400\n",
        queue.display(),
        data.display()
    )
}

fn master_cf(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd\n\
         cleanup   unix n - n - 0 cleanup\n\
         qmgr      unix n - n 300 1 qmgr\n\
         rewrite   unix - - n - - trivial-rewrite\n\
         bounce    unix - - n - 0 bounce\n\
         defer     unix - - n - 0 bounce\n\
         trace     unix - - n - 0 bounce\n\
         anvil     unix - - n - 1 anvil\n\
         error     unix - - n - - error\n\
         discard   unix - - n - - discard\n"
    )
}
