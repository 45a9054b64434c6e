//! `mailrace verify`.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    MAILRACE, output_of,
    servers::zone::{Responder, Zone},
};

fn zone() -> Zone {
    let mut zone = Zone::default();
    zone.txt("x.test", "v=spf1 ip4:192.0.2.1 -all")
        .txt("_dmarc.x.test", "v=DMARC1; p=reject")
        .host("mx.x.test", "192.0.2.1".parse().unwrap());
    zone
}

/// Exit code, what it printed, and what it complained about.
fn verify(arguments: &[&str]) -> (Option<i32>, String, String) {
    let dns = Responder::start(zone());
    let mut command = Command::new(MAILRACE);
    command.arg("verify").args(arguments).args(["--resolver", &dns.address.to_string()]);
    let done = output_of(command);
    let text = |octets| String::from_utf8(octets).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[test]
fn a_mail_is_judged_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let mail = dir.path().join("mail.eml");
    std::fs::write(&mail, "From: \"boss@y.test\" <ann@x.test>\nSubject: x\n\nHello\n").unwrap();
    let mail = mail.to_str().unwrap();
    let who = [mail, "--helo", "mx.x.test", "--own", "x.test", "--from", "<ann@x.test>"];
    let (code, text, errors) = verify(&[&who[..], &["--ip", "192.0.2.1", "--json"]].concat());
    assert_eq!(code, Some(0), "{errors}");
    let verdict: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(verdict["spf"][0]["result"], "pass");
    assert_eq!(verdict["spf"][0]["identity"], "mailfrom");
    assert_eq!(verdict["dmarc"]["result"], "pass");
    assert_eq!(verdict["dmarc"]["policy"], "reject");
    assert_eq!(verdict["dmarc"]["disposition"], "none");
    assert_eq!(verdict["iprev"]["result"], "pass");
    assert_eq!(verdict["from"]["misleading_name"], true);
    assert!(verdict["engine"].as_str().unwrap().starts_with("mailrace "));
    // The same mail from elsewhere.
    let (code, text, errors) = verify(&[&who[..], &["--ip", "192.0.2.2"]].concat());
    assert_eq!(code, Some(0), "{errors}");
    for line in ["spf     fail       x.test", "dmarc   fail       x.test", "iprev   permerror"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.contains("policy reject, disposition reject"), "{text}");
    assert!(text.contains("your domain, and nothing proves it"), "{text}");
}

#[test]
fn a_mail_that_cannot_be_read_is_not_judged() {
    let who = ["/nowhere/mail.eml", "--ip", "192.0.2.1", "--from", "", "--helo", "x"];
    let (code, text, errors) = verify(&who);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(errors.contains("/nowhere/mail.eml: No such file"), "{errors}");
    let (code, _, errors) = verify(&["x.eml", "--ip", "300.1.1.1", "--from", "", "--helo", "x"]);
    assert_eq!(code, Some(2), "{errors}");
}
