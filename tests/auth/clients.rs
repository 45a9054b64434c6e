//! Foreign clients log in with what they have, and deliver.

use super::*;

use crate::support::{
    self,
    machine::{has, has_swaks_with_tls},
};

/// PLAIN and LOGIN; SCRAM where curl was built with it.
#[test]
fn curl() {
    if !has("curl") {
        return;
    }
    let version = Command::new("curl").arg("--version").output().unwrap();
    let scram = String::from_utf8_lossy(&version.stdout).contains("gsasl");
    for mechanism in ["PLAIN", "LOGIN", "SCRAM-SHA-256"] {
        if mechanism.starts_with("SCRAM") && !scram {
            continue;
        }
        let case = Case::new(mechanism);
        std::fs::write(case.path("message"), "Subject: x\r\n\r\nhi\r\n").unwrap();
        let output = Command::new("curl")
            .args(["-sv", "--ssl-reqd", "--cacert", &case.file("ca.pem")])
            .arg(format!("smtp://{}", case.at()))
            .args(["--user", &format!("{USER}:{PASSWORD}")])
            .args(["--login-options", &format!("AUTH={mechanism}")])
            .args(["--mail-from", "a@example.test", "--mail-rcpt", "b@example.test", "-T"])
            .arg(case.path("message"))
            .output();
        succeeded("curl", output.unwrap());
        case.check(&mechanism.to_lowercase());
    }
}

#[test]
fn swaks() {
    if !has_swaks_with_tls() {
        return;
    }
    for mechanism in ["PLAIN", "LOGIN"] {
        let case = Case::new("PLAIN,LOGIN");
        let output = Command::new("swaks")
            .args(["--server", &case.at(), "--tls", "--auth", mechanism])
            .args(["--auth-user", USER, "--auth-password", PASSWORD])
            .args(["--from", "a@example.test", "--to", "b@example.test"])
            .output();
        succeeded("swaks", output.unwrap());
        case.check(&mechanism.to_lowercase());
    }
}

#[test]
fn smtplib() {
    if !has("python3") {
        return;
    }
    for mechanism in ["PLAIN", "LOGIN"] {
        let case = Case::new("PLAIN,LOGIN");
        let script = format!(
            "import smtplib, ssl, sys
c = ssl.create_default_context(cafile=sys.argv[2])
s = smtplib.SMTP('localhost', int(sys.argv[1]))
s.ehlo()
assert not s.has_extn('auth')
s.starttls(context=c)
s.ehlo()
assert s.has_extn('auth')
try:
    s.sendmail('a@example.test', ['b@example.test'], 'hi')
    assert False
except smtplib.SMTPSenderRefused as error:
    assert error.smtp_code == 530, error
s.user, s.password = sys.argv[3:5]
code, text = s.auth('{mechanism}', s.auth_{})
assert code == 235, text
s.ehlo()
assert not s.has_extn('auth')
s.sendmail('a@example.test', ['b@example.test'], 'hi')
s.quit()",
            mechanism.to_lowercase()
        );
        let output = Command::new("python3")
            .args(["-c", &script, &case.port(), &case.file("ca.pem"), USER, PASSWORD])
            .output();
        succeeded("python3", output.unwrap());
        case.check(&mechanism.to_lowercase());
    }
}

/// What this build of msmtp has, of ours.
#[test]
fn msmtp() {
    if !has("msmtp") {
        return;
    }
    let version = Command::new("msmtp").arg("--version").output().unwrap();
    let built_with = String::from_utf8_lossy(&version.stdout).into_owned();
    for mechanism in ["plain", "login", "scram-sha-256", "scram-sha-256-plus", "external"] {
        let has_it = built_with.lines().any(|line| line.split(' ').any(|word| word == mechanism));
        if !has_it {
            continue;
        }
        let case = Case::new(&mechanism.to_uppercase());
        let mut config = format!(
            "account default\nhost localhost\nport {}\nfrom a@example.test\ntls on\n\
             tls_starttls on\ntls_trust_file {}\nauth {mechanism}\nuser {USER}\n\
             passwordeval \"cat {}\"\n",
            case.port(),
            case.file("ca.pem"),
            case.file("password"),
        );
        if mechanism == "external" {
            // RFC 4422 appendix A: it is whom the certificate stands for, here a host.
            config = config.replace(&format!("user {USER}\n"), "user localhost\n");
            config += &format!(
                "tls_cert_file {}\ntls_key_file {}\n",
                case.file("client.pem"),
                case.file("client.key")
            );
        }
        std::fs::write(case.path("password"), format!("{PASSWORD}\n")).unwrap();
        std::fs::write(case.path("msmtprc"), config).unwrap();
        let mut child = Command::new("msmtp")
            .args(["-C", &case.file("msmtprc"), "--", "b@example.test"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"Subject: x\n\nhi\n").unwrap();
        succeeded(mechanism, child.wait_with_output().unwrap());
        case.check(mechanism);
    }
}

/// GNU SASL, bound to the channel (RFC 9266) and not.
#[test]
fn gsasl() {
    if !has("gsasl") {
        return;
    }
    // Where TLS could bind the channel it does not go without, unless told to.
    for (mechanism, binds) in [("SCRAM-SHA-256", "--no-cb"), ("SCRAM-SHA-256-PLUS", "--verbose")] {
        // With both on the list a client that took the weaker one would be told off (RFC 5802 §6).
        let case = Case::new(mechanism);
        let log_in = |password: &str| {
            Command::new("gsasl")
                .args(["--smtp", "--starttls", "--connect", &case.at()])
                .args(["--x509-ca-file", &case.file("ca.pem"), "--mechanism", mechanism])
                .args(["--authentication-id", USER, "--password", password])
                .arg(binds)
                .stdin(Stdio::null())
                .output()
                .unwrap()
        };
        succeeded(mechanism, log_in(PASSWORD));
        let counter = mechanism.to_lowercase();
        assert_eq!(case.counted(&counter, "ok"), 1.0, "{mechanism}");
        assert!(!log_in("guess").status.success());
        assert_eq!(case.counted(&counter, "failed"), 1.0, "{mechanism}");
    }
}

/// RFC 4616 §2, RFC 5802 §2.2: a password that one keyboard writes with a ligature, a no-break space
/// and an accent apart is the same from another; a client of SCRAM prepares it itself, one of PLAIN
/// sends it as it was typed.
#[test]
fn passwords_are_prepared() {
    if !has("gsasl") || !has("curl") {
        return;
    }
    let case = Case::new("SCRAM-SHA-256,PLAIN");
    user_add(&case.path("users"), USER, "\u{fb01}sh\u{a0}cafe\u{301} \u{2168}");
    support::signal(&case.server.child, libc::SIGHUP);
    support::eventually("the reload", Duration::from_secs(20), || {
        case.server.errors().contains("configuration reloaded")
    });
    let same =
        ["fish caf\u{e9} IX", "\u{fb01}sh\u{2003}caf\u{e9} \u{2168}", "fi\u{ad}sh cafe\u{301} IX"];
    for (count, password) in same.iter().enumerate() {
        let output = Command::new("gsasl")
            .args(["--smtp", "--starttls", "--no-cb", "--connect", &case.at()])
            .args(["--x509-ca-file", &case.file("ca.pem"), "--mechanism", "SCRAM-SHA-256"])
            .args(["--authentication-id", USER, "--password", password])
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output();
        succeeded(password, output.unwrap());
        std::fs::write(case.path("message"), "Subject: x\r\n\r\nhi\r\n").unwrap();
        let output = Command::new("curl")
            .args(["-sv", "--ssl-reqd", "--cacert", &case.file("ca.pem")])
            .arg(format!("smtp://{}", case.at()))
            .args(["--user", &format!("{USER}:{password}"), "--login-options", "AUTH=PLAIN"])
            .args(["--mail-from", "a@example.test", "--mail-rcpt", "b@example.test", "-T"])
            .arg(case.path("message"))
            .output();
        succeeded(password, output.unwrap());
        for mechanism in ["scram-sha-256", "plain"] {
            assert_eq!(case.counted(mechanism, "ok"), count as f64 + 1.0, "{password}");
        }
    }
}
