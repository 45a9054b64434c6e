//! Mode `tag`: what is handed on carries Authentication-Results; what is stored does not.

use std::{path::Path, time::Duration};

use crate::{
    record::{events, judged, launch, zone},
    support::{
        eventually, id_of, log_command, log_get,
        servers::{
            dovecot::{self, Dovecot},
            zone::Responder,
        },
        stuffed,
    },
};

const RESULTS: &str = "Authentication-Results: ours.test;\r\n\
                       \tspf=pass smtp.mailfrom=ann@x.test;\r\n";

/// With a field that claims to be ours, one of another, and one that lies beyond what people are shown.
fn mail() -> String {
    let filler = format!("X-Filler: {}\r\n", "f".repeat(900)).repeat(400);
    format!(
        "Authentication-Results: OURS.test (x) 1; dmarc=pass header.from=bank.test\r\n\
         Authentication-Results: other.test; spf=pass\r\nFrom: ann@x.test\r\nSubject: x\r\n\
         {filler}Authentication-Results: ours.test;\r\n\tspf=pass\r\n\r\n.Hello\r\n"
    )
}

fn expected(stored: &str) -> String {
    let renamed = "X-Original-Authentication-Results: ";
    stored
        .replace("Authentication-Results: OURS.test", &format!("{renamed}OURS.test"))
        .replace("Authentication-Results: ours.test;", &format!("{renamed}ours.test;"))
}

fn files(dir: &Path, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(std::fs::read_to_string(path).unwrap());
        }
    }
    found
}

#[test]
fn what_is_handed_on_is_tagged_and_what_is_stored_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let dns = Responder::start(zone());
    let data = dir.path().join("data");
    let dovecot = dovecot::available().then(|| Dovecot::start(None));
    let out = |name: &str| dir.path().join(name);
    let mut launch = launch(&data, &dns)
        .set("server.hostname=ours.test")
        .set("listener.0.accept.domains=ours.test, d.test")
        .set("listener.0.verify.mode=tag");
    let exports = [
        vec!["name=eml", "type=files", "layout=eml"],
        vec!["name=exact", "type=files", "layout=eml", "trace=false"],
        vec!["name=folder", "type=folder", "layout=eml"],
        vec!["name=events", "type=files", "layout=jsonl"],
    ];
    for (number, export) in exports.iter().enumerate() {
        let name = export[0].trim_start_matches("name=");
        std::fs::create_dir(out(name)).unwrap();
        launch = launch
            .set(&format!("export.{number}.batch.delay=10ms"))
            .set(&format!("export.{number}.dir={}", out(name).display()));
        for setting in export {
            launch = launch.set(&format!("export.{number}.{setting}"));
        }
    }
    if let Some(dovecot) = &dovecot {
        for setting in ["name=box", "type=lmtp", "batch.delay=10ms"] {
            launch = launch.set(&format!("export.4.{setting}"));
        }
        launch = launch.set(&format!("export.4.server={}", dovecot.lmtp));
    }
    let server = launch.start();
    let mail = mail();
    let mut client = server.client();
    client.ehlo();
    for command in ["MAIL FROM:<ann@x.test>", "RCPT TO:<alice@d.test>"] {
        assert!(client.say(command).starts_with("250"), "{command}");
    }
    assert!(client.say("DATA").starts_with("354"));
    client.send(&[&stuffed(mail.as_bytes())[..], b".\r\n"].concat());
    let id = id_of(&client.reply());
    judged(&data, &id);
    eventually("all are exported", Duration::from_secs(30), || {
        ["eml", "exact", "folder"].iter().all(|name| files(&out(name), "eml").len() == 1)
            && events(&out("events")).len() == 1
    });
    // The log has what came.
    assert_eq!(String::from_utf8(log_get(&data, &id)).unwrap(), mail);
    // What is handed on has our field on top, and those of others do not look like it.
    let sent = files(&out("folder"), "eml").remove(0);
    let (head, rest) = sent.split_at(sent.find("X-Original-").unwrap());
    let found = head.starts_with(RESULTS) && head.contains("\tdmarc=pass header.from=x.test");
    assert!(found, "{head}");
    assert_eq!(rest, expected(&mail));
    // Who asks for exact octets gets them.
    assert_eq!(files(&out("exact"), "eml"), std::slice::from_ref(&mail));
    let sent = files(&out("eml"), "eml").remove(0);
    let top = format!("Return-Path: <ann@x.test>\r\n{RESULTS}");
    assert!(sent.starts_with(&top) && sent.ends_with(&expected(&mail)), "{}", &sent[..600]);
    let (results, received) =
        (sent.find("Authentication-").unwrap(), sent.find("Received:").unwrap());
    assert!(results < received);
    let by_hand = String::from_utf8(log_command(&data, &["get", &id, "--received"])).unwrap();
    assert!(by_hand.starts_with(RESULTS) && by_hand.ends_with(&expected(&mail)));
    let header = log_command(&data, &["get", &id, "--received", "--headers"]);
    let header = String::from_utf8(header).unwrap();
    assert!(by_hand.starts_with(&header));
    assert!(header.ends_with("X-Original-Authentication-Results: ours.test;\r\n\tspf=pass\r\n"));
    // The document keeps what came, and marks it.
    let event = events(&out("events")).remove(&id).unwrap();
    let auth = &event["data"]["auth"];
    assert_eq!(auth["authserv_id"], "ours.test");
    assert_eq!(auth["results_renamed"], 2);
    assert_eq!(event["data"]["size"], mail.len());
    // By LMTP, with the sizes that were announced.
    if let Some(dovecot) = &dovecot {
        eventually("the mailbox", Duration::from_secs(30), || dovecot.stored("alice").len() == 1);
        let stored = dovecot.stored("alice").remove(0).replace('\n', "\r\n");
        assert!(
            stored.contains(RESULTS) && stored.ends_with(&expected(&mail)),
            "{}",
            &stored[..900]
        );
    }
}
