//! Guesses over sockets, and users that come and go.

use super::*;

use crate::support::{self, eventually};

/// G1, G8 and the record: in the clear, for another, and then with success.
#[test]
fn under_tls_only() {
    let case = Case::new("PLAIN,LOGIN,SCRAM-SHA-256,SCRAM-SHA-256-PLUS");
    let mut clear = case.server.client();
    let list = clear.say("EHLO a");
    assert!(!list.contains("AUTH"), "{list}");
    assert!(clear.say(&plain(USER, PASSWORD)).starts_with("538 5.7.11 "));
    assert!(clear.say("MAIL FROM:<a@b>").starts_with("530 5.7.0 "));
    let mut client = case.client();
    let list = client.say("EHLO a");
    let line = "250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n";
    assert!(list.contains(line), "{list}");
    assert!(client.say("MAIL FROM:<a@b>").starts_with("530 5.7.0 "));
    let other = STANDARD.encode(format!("root\0{USER}\0{PASSWORD}"));
    assert!(client.say(&format!("AUTH PLAIN {other}")).starts_with("535 5.7.8 "));
    assert!(client.say(&plain("nobody", PASSWORD)).starts_with("535 5.7.8 "));
    assert!(client.say(&plain(USER, PASSWORD)).starts_with("235 2.7.0 "));
    client.deliver();
    assert_eq!(case.counted("plain", "ok"), 1.0);
    assert_eq!(case.counted("plain", "failed"), 2.0);
    // All series are there from the start.
    assert_eq!(case.counted("scram-sha-256-plus", "unavailable"), 0.0);
    let (_, text) = case.server.page("/metrics");
    assert_eq!(text.matches("mailrace_smtp_auth_total{").count(), 20);
    assert!(!text.contains(USER), "nobody's name is a label");
    // Refusals say that logins failed, and neither whose nor with which password.
    let refused = support::refusals(&case.server, 5);
    assert_eq!(refused.matches("\"stage\":\"auth\"").count(), 3, "{refused}");
    for secret in ["nobody", USER, PASSWORD, &other, &plain(USER, PASSWORD)[11..]] {
        assert!(!refused.contains(secret), "{secret}: {refused}");
    }
}

/// G9: three a session; so many a minute from an address that it is shut out.
#[test]
fn g9_guessing() {
    let settings = ["limits.exempt=192.0.2.0/24", "limits.auth_failures_per_ip=5/m"];
    let case = Case::with("PLAIN", &settings);
    let mut open = case.client();
    let mut client = case.client();
    for _ in 0..3 {
        assert!(client.say(&plain(USER, "guess")).starts_with("535 5.7.8 "));
    }
    assert!(client.say(&plain(USER, PASSWORD)).starts_with("421 4.7.0 "));
    assert_eq!(client.reply(), "");
    let mut client = case.client();
    for _ in 0..2 {
        assert!(client.say(&plain(USER, "guess")).starts_with("535 5.7.8 "));
    }
    // In sessions that stand, and in place of the greeting.
    assert!(open.say(&plain(USER, PASSWORD)).starts_with("421 4.7.0 "));
    let mut refused = support::Client::open(case.server.smtp);
    let reply = refused.reply();
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    let refused = case
        .server
        .metric("mailrace_smtp_connections_refused_total", &["reason=\"auth_failures\""]);
    assert_eq!(refused, 1.0);
    // By these lines a filter such as fail2ban's acts.
    let failed = regex::Regex::new(
        r"(?m)^\S+ INFO  login failed client=(?P<host>[0-9a-fA-F.:]+) port=\d+ listener=\S+ ",
    )
    .unwrap();
    let lines = || {
        let errors = case.server.errors();
        failed.captures_iter(&errors).filter(|found| &found["host"] == "127.0.0.1").count()
    };
    eventually("each has its line", Duration::from_secs(10), || lines() >= 5);
    let Case { server, dir: _dir } = case;
    let errors = server.stop_and_read();
    assert!(errors.contains(USER), "who it claimed to be: {errors}");
    assert!(!errors.contains("guess") && !errors.contains(PASSWORD), "no secrets: {errors}");
}

/// Who is exempt may guess on, three times a session.
#[test]
fn g9_exempt_peers_are_not_shut_out() {
    let case = Case::with("PLAIN", &["limits.auth_failures_per_ip=2/m"]);
    for _ in 0..2 {
        let mut client = case.client();
        for _ in 0..3 {
            assert!(client.say(&plain(USER, "guess")).starts_with("535 5.7.8 "));
        }
    }
    assert!(case.client().say(&plain(USER, PASSWORD)).starts_with("235 "));
}

/// G11 and A22.
#[test]
fn g11_pipelined() {
    let case = Case::new("PLAIN");
    let mut client = case.client();
    let group = format!("{}\r\nMAIL FROM:<a@b>", plain(USER, PASSWORD));
    assert!(client.say(&group).starts_with("554 5.5.0 "));
    assert_eq!(client.reply(), "");
}

/// The file is looked at every ten seconds; a session goes on with what it has.
#[test]
fn users_come_and_go() {
    let case = Case::new("PLAIN");
    let mut known = case.client();
    assert!(known.say(&plain(USER, PASSWORD)).starts_with("235 "));
    user_add(&case.path("users"), "tom", "other");
    let users = case.file("users");
    succeeded("user rm", run_with(&["user", "rm", &users, USER], ""));
    eventually("the new user is known", Duration::from_secs(20), || {
        case.client().say(&plain("tom", "other")).starts_with("235 ")
    });
    // Although it was right a moment ago.
    assert!(case.client().say(&plain(USER, PASSWORD)).starts_with("535 "));
    known.deliver();
    std::fs::write(case.path("users"), "nonsense\n").unwrap();
    eventually("the mistake is told", Duration::from_secs(20), || {
        case.server.errors().contains("users:1: not NAME:HASH")
    });
    let unusable = || case.server.metric("mailrace_config_files_unusable", &["kind=\"users\""]);
    eventually("the metric", Duration::from_secs(5), || unusable() == 1.0);
    assert!(case.client().say(&plain("tom", "other")).starts_with("235 "));
}

/// A listener whose users are not to be had does not start.
#[test]
fn no_users_no_server() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(dir.path(), "server");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let failure = Launch::new(&dir.path().join("data"))
        .set("server.shards=1")
        .set(&format!("server.tls.cert_file={}", path("server.pem")))
        .set(&format!("server.tls.key_file={}", path("server.key")))
        .set("listener.0.auth.mechanisms=PLAIN")
        .set(&format!("listener.0.auth.users_file={}", path("users")))
        .try_start();
    let failure = failure.err().expect("there is no such file").to_string();
    assert!(failure.contains("`mailrace user add` creates it"), "{failure}");
}
