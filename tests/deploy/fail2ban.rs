//! The filter for fail2ban over lines that a real server has logged.

use std::{fs, process::Command, time::Duration};

use crate::{
    support::{
        MAILRACE, Server, eventually, machine::has, servers::certificates::Authority, succeeded,
    },
    tree,
};

/// How many lines of a file the filter takes for a client to be banned.
fn matched(log: &std::path::Path, mode: &str) -> usize {
    let filter = format!("{}[mode={mode}]", tree("deploy/fail2ban/filter.conf").display());
    let done = Command::new("fail2ban-regex").arg(log).arg(filter).output().unwrap();
    let said = String::from_utf8(succeeded("fail2ban-regex", done).stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("Lines: ")).expect("a summary");
    let count = line.split(", ").find_map(|part| part.strip_suffix(" matched"));
    count.expect("a count").parse().unwrap()
}

#[test]
fn failed_logins_and_refusals_are_seen_in_both_forms_of_the_log() {
    if !has("fail2ban-regex") || !has("swaks") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    Authority::new().issue(dir.path(), "tls");
    fs::write(path("password"), "a long password\n").unwrap();
    let mut user = Command::new(MAILRACE);
    user.args(["user", "add", &path("users"), "bob"]);
    user.stdin(fs::File::open(path("password")).unwrap());
    succeeded("user add", user.output().unwrap());
    for format in ["text", "json"] {
        let settings = [
            format!("server.tls.cert_file={}", path("tls.pem")),
            format!("server.tls.key_file={}", path("tls.key")),
            format!("server.log_format={format}"),
            format!("listener.0.auth.users_file={}", path("users")),
            "listener.0.auth.mechanisms=PLAIN".to_owned(),
            "listener.0.accept.domains=example.com".to_owned(),
        ];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let server = Server::start_with(&dir.path().join(format), &settings);
        let to = server.smtp.to_string();
        // The name of a user, which a client chooses, is made to look like another client's line.
        let user = "x login failed client=192.0.2.1 port=1 ";
        let login = ["--tls", "--auth", "PLAIN", "--auth-user", user, "--auth-password", "wrong"];
        for (recipient, login) in
            [("a@example.com", &login[..]), ("a@other.example", &[]), ("a@example.com", &[])]
        {
            let mut swaks = Command::new("swaks");
            swaks.args(["--server", &to, "--helo", "t.example", "--to", recipient]);
            // That it is refused is a failure to it.
            swaks.args(login).output().unwrap();
        }
        eventually("all three sessions are logged", Duration::from_secs(20), || {
            server.errors().matches("session ended").count() == 3
        });
        let log = dir.path().join("log");
        fs::write(&log, server.errors()).unwrap();
        assert_eq!(matched(&log, "auth"), 1, "{}", server.errors());
        assert_eq!(matched(&log, "aggressive"), 2, "{}", server.errors());
        let filter = tree("deploy/fail2ban/filter.conf");
        let done = Command::new("fail2ban-regex").args(["-o", "ip"]).arg(&log).arg(filter).output();
        let said = String::from_utf8(succeeded("fail2ban-regex", done.unwrap()).stdout).unwrap();
        assert_eq!(said.trim(), "127.0.0.1", "no address that a client wrote");
    }
}
