//! Mail that Debian's opendkim has signed: it passes, and once it is broken in any field it does not.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Court, NONE, dkim::zone, envelope};
use crate::Methods;

const HEADER: &str = "From: Ann <ann@signer.test>\nTo: bob@ours.test\n\
                      Date: Mon, 2 Mar 2026 10:00:00 +0000\nSubject: hello";
const BODY: &str = "Hello  there,\n\nthis is it.\n";

/// A signer; killed when it is dropped.
struct OpenDkim {
    dir: tempfile::TempDir,
    child: Child,
}

impl Drop for OpenDkim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OpenDkim {
    /// `None`: it is not installed, which CI does not allow.
    fn start(canonicalization: &str) -> Option<Self> {
        let program = "/usr/sbin/opendkim";
        if !Path::new(program).exists() {
            assert!(std::env::var_os("CI").is_none(), "opendkim is not installed");
            eprintln!("skipped: opendkim is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(path("key.pem"), include_str!("keys/rsa2048.pem")).unwrap();
        fs::set_permissions(path("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        let conf = format!(
            "Mode s\nDomain signer.test\nSelector big\nKeyFile {}\nBackground no\n\
             SignatureAlgorithm rsa-sha256\nRequireSafeKeys false\nCanonicalization {canonicalization}\n",
            path("key.pem")
        );
        fs::write(path("conf"), conf).unwrap();
        let child = Command::new(program)
            .args(["-f", "-x", &path("conf"), "-p", &format!("local:{}", path("socket"))])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { dir, child })
    }

    /// The mail with its signature.
    fn sign(&self) -> String {
        let socket = self.dir.path().join("socket");
        let until = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < until, "opendkim does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let done = Command::new("python3")
            .arg(root.join("tests/support/servers/opendkim_sign.py"))
            .arg(&socket)
            .args([HEADER, BODY])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let signature = String::from_utf8(done.stdout).unwrap();
        format!("{signature}{HEADER}\n\n{BODY}").replace('\n', "\r\n")
    }
}

#[test]
fn what_opendkim_signs_passes_until_any_field_is_broken() {
    for canonicalization in ["relaxed/relaxed", "simple/simple", "relaxed/simple", "simple/relaxed"]
    {
        let Some(signer) = OpenDkim::start(canonicalization) else { return };
        let good = signer.sign();
        let court = Court::new(zone());
        let envelope = envelope("192.0.2.1".parse().unwrap(), "mx.signer.test", "ann@signer.test");
        let word = |mail: &str| {
            let verdict = court.judge(&envelope, mail.as_bytes(), Methods { dkim: true, ..NONE });
            verdict.dkim.first().map_or("none", |check| check.result.name())
        };
        assert_eq!(word(&good), "pass", "{canonicalization}\n{good}");
        let signature = &good[..good.find("From: ").unwrap()];
        // Each tag, each field that is signed, and the body.
        for tag in ["v=1", "a=rsa", "c=", "d=signer", "s=big", "t=1", "bh=", "h=From", "b="] {
            let at = signature
                .match_indices(tag)
                .find(|(at, _)| signature[..*at].ends_with([' ', '\t', ';']));
            let (at, _) = at.unwrap_or_else(|| panic!("{tag} in {signature}"));
            let (front, behind) = good.split_at(at + tag.len());
            assert_ne!(word(&format!("{front}9{behind}")), "pass", "{canonicalization} {tag}");
        }
        for field in ["From: ", "To: ", "Date: ", "Subject: "] {
            let broken = good.replacen(&format!("\n{field}"), &format!("\n{field}x"), 1);
            assert_eq!(word(&broken), "fail", "{canonicalization} {field}");
            let gone = good.replacen(&format!("\n{field}"), "\nX-Other: ", 1);
            assert_ne!(word(&gone), "pass", "{canonicalization} {field}");
        }
        assert_eq!(word(&good.replace("this is", "that is")), "fail");
        assert_eq!(word(&format!("{good}more\r\n")), "fail");
    }
}
