//! A private Dovecot: LMTP over TCP and a unix socket, and an authentication socket for Postfix.
//! Own configuration, users and mail; the service of the system is not touched.
//!
//! Users: `alice`, `bob`, `carol` take mail; `full` is over quota (552 5.2.2 behind the mail data);
//! `later` has no mailbox yet and gets 451 until [`Dovecot::make_room_for_later`]; any other is
//! unknown (550 5.1.1 to RCPT).

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{eventually, machine, ports::free_address};

/// Whom the mail belongs to.
const NOBODY: u32 = 65_534;

pub struct Dovecot {
    dir: tempfile::TempDir,
    child: Child,
    pub lmtp: SocketAddr,
}

/// Whether it can be started here.
pub fn available() -> bool {
    machine::has("dovecot")
        && (Path::new("/usr/lib/dovecot/lmtp").is_file()
            || machine::skip("dovecot-lmtpd is not installed"))
        && (machine::is_root() || machine::skip("Dovecot needs root to store mail as another user"))
}

impl Dovecot {
    /// `certificate`: PEM files of it and of its key, for STARTTLS.
    pub fn start(certificate: Option<(&Path, &Path)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Others must get to the mail and the sockets.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mail = dir.path().join("mail");
        fs::create_dir(&mail).unwrap();
        own(&mail);
        // Not nobody's: its mailbox cannot be made.
        fs::create_dir(dir.path().join("later")).unwrap();
        let lmtp = free_address();
        fs::write(dir.path().join("users"), users(dir.path())).unwrap();
        fs::write(dir.path().join("conf"), conf(dir.path(), lmtp, certificate)).unwrap();
        let child = spawn(dir.path());
        let mut dovecot = Self { dir, child, lmtp };
        dovecot.await_start();
        dovecot
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("lmtp.sock")
    }

    /// Where `smtpd_sasl_path` leads: user `alice`, password `secret`.
    pub fn auth(&self) -> PathBuf {
        self.dir.path().join("auth.sock")
    }

    /// A user's messages, CRLF for each line end as it was on the wire, without the lines Dovecot
    /// put in front.
    pub fn mails(&self, user: &str) -> Vec<Vec<u8>> {
        let dir = match user {
            "later" => self.dir.path().join("later/box/new"),
            _ => self.dir.path().join("mail").join(user).join("Maildir/new"),
        };
        super::read_maildir(&dir)
    }

    /// A user's messages as they are stored.
    pub fn stored(&self, user: &str) -> Vec<String> {
        let dir = self.dir.path().join("mail").join(user).join("Maildir/new");
        let entries = fs::read_dir(dir).into_iter().flatten();
        entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    /// How many messages a user has.
    pub fn mails_count(&self, user: &str) -> usize {
        let dir = self.dir.path().join("mail").join(user).join("Maildir/new");
        fs::read_dir(dir).map_or(0, Iterator::count)
    }

    pub fn make_room_for_later(&self) {
        own(&self.dir.path().join("later"));
    }

    /// SIGKILL for all its processes, as a crash.
    pub fn kill(&mut self) {
        // SAFETY: numbers only; the group is the one that `spawn` made.
        unsafe { libc::killpg(self.child.id() as i32, libc::SIGKILL) };
        self.child.wait().unwrap();
    }

    /// Once more on the same port, after [`Self::kill`].
    pub fn restart(&mut self) {
        // Its processes let go of the port and the sockets one after the other.
        eventually("the killed one is gone", Duration::from_secs(20), || {
            std::net::TcpStream::connect(self.lmtp).is_err()
        });
        self.child = spawn(self.dir.path());
        self.await_start();
    }

    /// One that ends at once found something of its predecessor's, and is started again.
    fn await_start(&mut self) {
        eventually("dovecot listens", Duration::from_secs(20), || {
            if self.child.try_wait().unwrap().is_some() {
                self.child = spawn(self.dir.path());
            }
            std::net::TcpStream::connect(self.lmtp).is_ok()
        });
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.kill();
    }
}

fn own(path: &Path) {
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

fn spawn(dir: &Path) -> Child {
    let mut command = Command::new("dovecot");
    command.arg("-F").arg("-c").arg(dir.join("conf"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    // SAFETY: the call is one system call.
    unsafe { command.pre_exec(machine::die_with_parent) };
    command.spawn().unwrap()
}

fn users(dir: &Path) -> String {
    let dir = dir.display();
    let user = |name: &str, more: &str| {
        format!("{name}:{{PLAIN}}secret:{NOBODY}:{NOBODY}::{dir}/mail/{name}::{more}\n")
    };
    let plain = ["alice", "bob", "carol"].map(|name| user(name, "")).concat();
    let full = user("full", "userdb_quota_rule=*:bytes=10");
    plain + &full + &user("later", &format!("userdb_mail=maildir:{dir}/later/box"))
}

fn conf(dir: &Path, lmtp: SocketAddr, certificate: Option<(&Path, &Path)>) -> String {
    let tls = certificate.map_or("ssl = no\n".to_owned(), |(certificate, key)| {
        format!("ssl = yes\nssl_cert = <{}\nssl_key = <{}\n", certificate.display(), key.display())
    });
    let (port, dir) = (lmtp.port(), dir.display());
    format!(
        "protocols = lmtp
base_dir = {dir}/run
log_path = {dir}/log
{tls}mail_location = maildir:~/Maildir
auth_username_format = %n
mail_fsync = never
disable_plaintext_auth = no
passdb {{
  driver = passwd-file
  args = {dir}/users
}}
userdb {{
  driver = passwd-file
  args = {dir}/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener {dir}/lmtp.sock {{
    mode = 0666
  }}
}}
service auth {{
  unix_listener {dir}/auth.sock {{
    mode = 0666
  }}
}}
protocol lmtp {{
  mail_plugins = quota
}}
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
"
    )
}
