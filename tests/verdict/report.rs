//! `mailrace dmarc report`.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use flate2::read::GzDecoder;

use crate::{
    record::{judged, launch},
    support::{
        MAILRACE, Server, id_of, machine, output_of,
        servers::zone::{Responder, Zone},
    },
};

fn send(server: &Server, mail_from: &str, helo: &str, from: &str) -> String {
    let mut client = server.client();
    client.say(&format!("EHLO {helo}"));
    assert!(client.say(&format!("MAIL FROM:<{mail_from}>")).starts_with("250"));
    assert!(client.say("RCPT TO:<b@ours.test>").starts_with("250"));
    assert!(client.say("DATA").starts_with("354"));
    id_of(&client.say(&format!("From: {from}\r\nSubject: x\r\n\r\nHello\r\n.")))
}

fn report(data: &Path, to: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(MAILRACE);
    command.args(["dmarc", "report", "--dir"]).arg(data).arg("--to").arg(to).args(arguments);
    let done = output_of(command);
    let text = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8(text).unwrap())
}

/// Of the files in a folder, sorted by name.
fn reports(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mut xml = String::new();
        GzDecoder::new(std::fs::File::open(&path).unwrap()).read_to_string(&mut xml).unwrap();
        found.push((path.file_name().unwrap().to_str().unwrap().to_owned(), xml));
    }
    found.sort();
    found
}

fn check_against_schema(xml: &str) {
    if !machine::has("xmllint") {
        return;
    }
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dmarc-2.0.xsd");
    let mut child = Command::new("xmllint")
        .args(["--noout", "--nonet", "--schema", schema, "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(xml.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}\n{xml}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_was_seen_of_a_domain_is_reported_and_fits_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let mut zone = Zone::default();
    zone.txt("x.test", "v=spf1 ip4:127.0.0.1 -all")
        .txt("_dmarc.x.test", "v=DMARC1; p=reject; sp=quarantine; adkim=s; fo=1")
        .txt("_dmarc.y.test", "v=DMARC1; p=none");
    let dns = Responder::start(zone);
    let data = dir.path().join("data");
    let server = launch(&data, &dns).set("server.hostname=mx.ours.test").start();
    let mut ids = vec![
        send(&server, "ann@x.test", "h.test", "ann@x.test"),
        send(&server, "ann@x.test", "h.test", "ann@x.test"),
        send(&server, "", "a&b<c>\"'", "ann@x.test"),
        send(&server, "eve@z.test", "h.test", "ann@sub.x.test"),
        send(&server, "eve@z.test", "h.test", "ann@y.test"),
    ];
    ids.push(send(&server, "eve@z.test", "h.test", "ann@none.test"));
    for id in &ids {
        judged(&data, id);
    }
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let (code, text) = report(&data, &out, &["--domain", "X.test.", "-o", "@-24h:"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with(": 4 messages\n"), "{text}");
    let found = reports(&out);
    let [(name, xml)] = &found[..] else { panic!("{found:?}") };
    let parts: Vec<_> = name.strip_suffix(".xml.gz").unwrap().split('!').collect();
    assert_eq!(parts[..2], ["mx.ours.test", "x.test"]);
    let (begin, end) = (parts[2].parse::<i64>().unwrap(), parts[3].parse::<i64>().unwrap());
    assert!(end - begin == 86_400 && parts.len() == 4, "{name}");
    check_against_schema(xml);
    for line in [
        "<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">",
        "<email>postmaster@mx.ours.test</email>",
        &format!("<begin>{begin}</begin>"),
        "<p>reject</p>",
        "<sp>quarantine</sp>",
        "<adkim>s</adkim>",
        "<fo>1</fo>",
        "<count>2</count>",
        "<source_ip>127.0.0.1</source_ip>",
        "<disposition>pass</disposition>",
        "<type>local_policy</type>",
        "<header_from>sub.x.test</header_from>",
        "<envelope_from>z.test</envelope_from>",
        "<scope>mfrom</scope>",
    ] {
        assert!(xml.contains(line), "{line} in {xml}");
    }
    assert_eq!(xml.matches("<record>").count(), 3, "{xml}");
    assert!(!xml.contains("y.test") && !xml.contains("<c>"), "{xml}");
    // Again is the same, but for the time that is meant.
    let range = "start:end";
    for _ in 0..2 {
        assert_eq!(report(&data, &out, &["--domain", "y.test", "-o", range]).0, Some(0));
    }
    assert_eq!(reports(&out).len(), 2);
    check_against_schema(&reports(&out)[1].1);
    let (code, text) = report(&data, &out, &["--domain", "none.test"]);
    assert_eq!(
        (code, &*text),
        (Some(0), "no mail that names a policy of none.test in this range\n")
    );
    let (code, text) = report(&data, &out, &["--domain", "../x"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("\"../x\" is not a domain such as example.com"), "{text}");
}

/// A policy that changes in between is another report.
#[test]
fn each_policy_has_its_report() {
    let dir = tempfile::tempdir().unwrap();
    let policy = |text: &str| {
        let mut zone = Zone::default();
        zone.txt("_dmarc.x.test", text);
        zone
    };
    let dns = Responder::start(policy("v=DMARC1; p=none"));
    let server = launch(dir.path(), &dns).start();
    judged(dir.path(), &send(&server, "ann@x.test", "h.test", "ann@x.test"));
    drop(server);
    dns.set(policy("v=DMARC1; p=reject; t=y"));
    let server = launch(dir.path(), &dns).start();
    judged(dir.path(), &send(&server, "ann@x.test", "h.test", "ann@x.test"));
    let out = tempfile::tempdir().unwrap();
    let (code, text) = report(dir.path(), out.path(), &["--domain", "x.test"]);
    assert_eq!(code, Some(0), "{text}");
    let found = reports(out.path());
    assert_eq!(found.len(), 2, "{text}");
    for ((name, xml), (end, policy, testing)) in
        found.iter().zip([("!1.xml.gz", "none", "n"), ("!2.xml.gz", "reject", "y")])
    {
        assert!(name.ends_with(end), "{name}");
        assert!(xml.contains(&format!("<p>{policy}</p>")), "{xml}");
        assert!(xml.contains(&format!("<testing>{testing}</testing>")), "{xml}");
        check_against_schema(xml);
    }
}
