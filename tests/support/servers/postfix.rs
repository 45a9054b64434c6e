//! A private Postfix that delivers to Maildirs, and `smtp-sink`, which misbehaves to order.
//!
//! Recipients of Postfix: `alice` and `bob` take mail; `later` gets 450 to RCPT; any other is
//! unknown (550 5.1.1).

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{eventually, machine, ports::free_address, succeeded};

const DAEMONS: &str = "/usr/lib/postfix/sbin";

pub struct Postfix {
    dir: tempfile::TempDir,
    child: Child,
    pub smtp: SocketAddr,
    /// TLS from the first octet on, where there is a certificate.
    pub smtps: SocketAddr,
}

/// Whether it can be started here.
pub fn available() -> bool {
    machine::has("postfix") && (machine::is_root() || machine::skip("Postfix starts as root alone"))
}

impl Postfix {
    /// `certificate`: PEM files of it and of its key; TLS is then a must. `auth`: the socket of
    /// Dovecot's authentication, which is then a must as well.
    pub fn start(certificate: Option<(&Path, &Path)>, auth: Option<&Path>) -> Self {
        Self::start_as(certificate, |dir| main_cf(dir, certificate, auth))
    }

    /// Sends all mail on to a server of this machine, and tells it by XFORWARD where it came from.
    pub fn relay(to: SocketAddr) -> Self {
        let more = format!(
            "relayhost = [{}]:{}\nsmtp_dns_support_level = disabled\nsmtp_host_lookup = native\n\
             smtp_send_xforward_command = yes\n",
            to.ip(),
            to.port()
        );
        Self::start_as(None, |dir| main_cf(dir, None, None) + &more)
    }

    /// Sends on what it is given for `out.test`: `transport` as in transport(5), with more lines of
    /// its configuration.
    pub fn sender(transport: &str, more: &str) -> Self {
        let out = format!("transport_maps = inline:{{ {{ out.test = {transport} }} }}\n");
        let more = format!("relay_domains = out.test\n{out}smtp_tls_loglevel = 1\n{more}");
        Self::start_as(None, |dir| main_cf(dir, None, None) + &more)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn start_as(certificate: Option<(&Path, &Path)>, main_cf: impl Fn(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (smtp, smtps) = (free_address(), free_address());
        let at = |name: &str| dir.path().join(name);
        for made in ["etc", "queue", "data", "mail"] {
            fs::create_dir(at(made)).unwrap();
        }
        std::os::unix::fs::chown(at("mail"), Some(65_534), Some(65_534)).unwrap();
        machine::run("chown", &["postfix", at("data").to_str().unwrap()]);
        fs::write(at("etc/main.cf"), main_cf(dir.path())).unwrap();
        let implicit = certificate.is_some().then_some(smtps);
        fs::write(at("etc/master.cf"), master_cf(smtp, implicit)).unwrap();
        let check = Command::new("postfix").arg("-c").arg(at("etc")).arg("check").output();
        succeeded("postfix check", check.unwrap());
        let mut command = Command::new(PathBuf::from(DAEMONS).join("master"));
        command.arg("-c").arg(at("etc")).arg("-d").env("MAIL_CONFIG", at("etc"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: the call is one system call.
        unsafe { command.pre_exec(machine::die_with_parent) };
        let child = command.spawn().unwrap();
        let postfix = Self { dir, child, smtp, smtps };
        eventually("postfix listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(smtp).is_ok()
        });
        postfix
    }

    /// A user's messages, CRLF for each line end as it was on the wire, without the lines Postfix
    /// put in front.
    pub fn mails(&self, user: &str) -> Vec<Vec<u8>> {
        super::read_maildir(&self.dir.path().join("mail").join(user).join("new"))
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Its master ends the others. SAFETY: numbers only.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

fn main_cf(dir: &Path, certificate: Option<(&Path, &Path)>, auth: Option<&Path>) -> String {
    let mut more = String::new();
    if let Some((certificate, key)) = certificate {
        more += &format!(
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {}\n\
             smtpd_tls_key_file = {}\nsmtpd_tls_auth_only = yes\n",
            certificate.display(),
            key.display()
        );
    }
    if let Some(auth) = auth {
        more += &format!(
            "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {}\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject\n",
            auth.display()
        );
    }
    let dir = dir.display();
    format!(
        "compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
daemon_directory = {DAEMONS}
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = mx.test
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = d.test
virtual_mailbox_base = {dir}/mail
virtual_mailbox_maps = inline:{{ alice@d.test=alice/ bob@d.test=bob/ later@d.test=later/ }}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ later@d.test = 450 4.2.1 later }} }}
smtpd_peername_lookup = no
local_header_rewrite_clients =
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
in_flow_delay = 0
message_size_limit = 52428800
virtual_mailbox_limit = 0
{more}"
    )
}

fn master_cf(smtp: SocketAddr, implicit: Option<SocketAddr>) -> String {
    let smtps = implicit.map_or(String::new(), |address| {
        format!("{address} inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes\n")
    });
    format!(
        "{smtp} inet n - n - - smtpd
{smtps}cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
anvil     unix - - n - 1 anvil
proxymap  unix - - n - - proxymap
tlsmgr    unix - - n 1000? 1 tlsmgr
error     unix - - n - - error
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
lmtp      unix - - n - - lmtp
scache    unix - - n - 1 scache
verify    unix - - n - 1 verify
virtual   unix - n n - - virtual
postlog   unix-dgram n - n - 1 postlogd
"
    )
}

/// A server that takes all and keeps nothing, or refuses and breaks off as its options say.
pub struct SmtpSink {
    child: Child,
    pub address: SocketAddr,
}

impl SmtpSink {
    pub fn start(options: &[&str]) -> Self {
        let address = free_address();
        let mut command = Command::new("smtp-sink");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(options);
        if machine::is_root() {
            command.args(["-u", "nobody"]);
        }
        command.arg(address.to_string()).arg("100");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: the call is one system call.
        unsafe { command.pre_exec(machine::die_with_parent) };
        let child = command.spawn().unwrap();
        eventually("smtp-sink listens", Duration::from_secs(10), || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Self { child, address }
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
