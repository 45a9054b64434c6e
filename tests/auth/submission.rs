//! `role = "submission"`: TLS and a login, as whom a login may send, and what mail lacks.

use std::{path::Path, process::Command, time::Duration};

use super::{
    Case, PASSWORD, USER, plain,
    support::{eventually, id_of, log_command, log_get, machine::has, signal},
};

fn case(senders: &Path, from: &str) -> Case {
    let settings = [
        "server.hostname=mx.ours.test".to_owned(),
        "listener.0.tls_mode=required".to_owned(),
        "listener.0.role=submission".to_owned(),
        "listener.0.auth.required=false".to_owned(),
        format!("listener.0.senders_file={}", senders.display()),
        format!("listener.0.senders_from={from}"),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    Case::with("PLAIN", &settings)
}

#[test]
fn a_login_sends_as_what_is_listed_and_as_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let senders = dir.path().join("senders");
    std::fs::write(&senders, format!("{USER}: {USER} @sales.test\n")).unwrap();
    let case = case(&senders, "reject");
    let mut clear = case.server.client();
    clear.ehlo();
    assert!(clear.say("MAIL FROM:<tim@example.test>").starts_with("530 5.7.0 Must issue"));
    let mut client = case.client();
    assert!(client.say("MAIL FROM:<tim@example.test>").starts_with("530 5.7.0 Authentication"));
    assert!(client.say(&plain(USER, PASSWORD)).starts_with("235"));
    for sender in ["boss@example.test", "tim@sub.sales.test", "postmaster@example.test"] {
        let reply = client.say(&format!("MAIL FROM:<{sender}>"));
        assert_eq!(reply, "553 5.7.1 You may not send as this address\r\n", "{sender}");
    }
    for (sender, header, code) in [
        ("tim@example.test", "From: tim@example.test\r\nSubject: x\r\n", "250"),
        ("any@sales.test", "From: Tim <TIM@Example.test>, any@sales.test\r\n", "250"),
        ("", "From: tim@example.test\r\n", "250"),
        ("tim@example.test", "From: tim@example.test, boss@example.test\r\n", "550 5.7.1 The From"),
        ("tim@example.test", "From: tim@example.test\r\nFrom: b@b.test\r\n", "550 5.7.1 The From"),
        ("tim@example.test", "Subject: nobody's\r\n", "550 5.7.1 The From"),
        ("", "From: boss@example.test\r\n", "550 5.7.1 The From"),
    ] {
        assert!(client.say(&format!("MAIL FROM:<{sender}>")).starts_with("250"), "{sender}");
        assert!(client.say("RCPT TO:<b@far.test>").starts_with("250"));
        assert!(client.say("DATA").starts_with("354"));
        let reply = client.say(&format!("{header}\r\nHello\r\n."));
        assert!(reply.starts_with(code), "{header}: {reply}");
    }
    let labels = ["class=\"5xx\"", "reason=\"policy\""];
    assert_eq!(case.server.metric("mailrace_smtp_messages_rejected_total", &labels), 7.0);
    // The file is read again, and a bad one is told and changes nothing.
    std::fs::write(&senders, format!("# more\n{USER}: boss@example.test nobody\n")).unwrap();
    signal(&case.server.child, libc::SIGHUP);
    eventually("the mistake", Duration::from_secs(20), || {
        case.server.errors().contains("senders:2: ")
    });
    assert!(client.say("MAIL FROM:<boss@example.test>").starts_with("553"));
    std::fs::write(&senders, format!("{USER}: boss@example.test\n")).unwrap();
    signal(&case.server.child, libc::SIGHUP);
    eventually("the new file", Duration::from_secs(20), || {
        case.server.errors().contains("configuration reloaded: ")
    });
    assert!(client.say("MAIL FROM:<boss@example.test>").starts_with("250"));
    assert!(client.say("RSET").starts_with("250"));
    assert!(client.say("MAIL FROM:<tim@example.test>").starts_with("553"));
}

/// What is stored is what was sent; what is handed on has a date and an id, the same each time.
#[test]
fn another_author_is_flagged_and_what_mail_lacks_is_added_on_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let senders = dir.path().join("senders");
    std::fs::write(&senders, format!("{USER}: {USER}\n")).unwrap();
    let case = case(&senders, "record");
    let mut client = case.client();
    assert!(client.say(&plain(USER, PASSWORD)).starts_with("235"));
    let mut send = |mail: &str| {
        assert!(client.say("MAIL FROM:<tim@example.test>").starts_with("250"));
        assert!(client.say("RCPT TO:<b@far.test>").starts_with("250"));
        let chunk = format!("BDAT {} LAST\r\n{mail}", mail.len());
        id_of(&client.say(chunk.strip_suffix("\r\n").unwrap()))
    };
    let mail = "From: boss@example.test\r\n\r\nHello\r\n";
    let foreign = send(mail);
    let own = send("From: tim@example.test\r\nDate: x\r\nMessage-ID: <y>\r\n\r\nHello\r\n");
    let data = &case.server.dir;
    assert_eq!(log_get(data, &foreign), mail.as_bytes());
    let handed_on =
        || String::from_utf8(log_command(data, &["get", &foreign, "--received"])).unwrap();
    let text = handed_on();
    let (_, added) = text.split_once("\r\nDate: ").unwrap();
    let id = format!("\r\nMessage-ID: <{foreign}@mx.ours.test>\r\n{mail}");
    assert!(added.ends_with(&id), "{text}");
    assert_eq!(handed_on(), text);
    let kept = String::from_utf8(log_command(data, &["get", &own, "--received"])).unwrap();
    assert_eq!((kept.matches("Date:").count(), kept.matches("Message-ID:").count()), (1, 1));
    let envelope =
        |id: &str| String::from_utf8(log_command(data, &["get", id, "--envelope"])).unwrap();
    assert!(envelope(&foreign).contains("foreign_author"), "{}", envelope(&foreign));
    assert!(!envelope(&own).contains("foreign_author"));
    assert!(envelope(&own).contains("\nmsa       mx.ours.test\n"));
}

#[test]
fn swaks_may_not_send_as_somebody_else() {
    let tls = Command::new("perl").args(["-MNet::SSLeay", "-e1"]).output();
    if !has("swaks") || !tls.is_ok_and(|output| output.status.success()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let senders = dir.path().join("senders");
    std::fs::write(&senders, format!("{USER}: {USER}\n")).unwrap();
    let case = case(&senders, "reject");
    for (from, code, text) in [
        ("boss@example.test", Some(23), "553 5.7.1 You may not send as this address"),
        (USER, Some(0), "250 2.0.0 Ok"),
    ] {
        let output = Command::new("swaks")
            .args(["--server", &case.at(), "--tls", "--auth", "PLAIN", "--to", "b@far.test"])
            .args(["--auth-user", USER, "--auth-password", PASSWORD, "--from", from])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), code, "{said}");
        assert!(said.contains(text), "{said}");
    }
}
