//! The validation suite of ARC, which comes with the sources (`tests/fixtures/arc`).

use std::{net::IpAddr, path::Path, process::Command};

use serde_json::Value;

use super::{Court, NONE, envelope, suite, zone::Zone};
use crate::Methods;

#[test]
fn the_validation_suite_of_arc_is_passed() {
    // For its YAML, Python is set up with the other suites.
    if suite("spf.json").is_none() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let done = Command::new(root.join("target/servers/python/bin/python"))
        .arg(root.join("tests/support/servers/suites.py"))
        .arg(root.join("tests/fixtures/arc/arc-draft-validation-tests.yml.gz"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let documents: Value = serde_json::from_slice(&done.stdout).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for document in documents.as_array().unwrap() {
        let mut zone = Zone::default();
        for (name, text) in document["txt-records"].as_object().unwrap() {
            zone.txt(name, text.as_str().unwrap());
        }
        let court = Court::new(zone);
        for (name, test) in document["tests"].as_object().unwrap() {
            count += 1;
            let mail = test["message"].as_str().unwrap().replace('\n', "\r\n");
            let client: IpAddr = "192.0.2.1".parse().unwrap();
            let envelope = envelope(client, "mx.test", "a@x.test");
            let verdict = court.judge(&envelope, mail.as_bytes(), Methods { arc: true, ..NONE });
            let word = verdict.arc.as_ref().map_or("none", |check| check.result.name());
            let expected = test["cv"].as_str().unwrap().to_lowercase();
            let expected = match name.as_str() {
                // RFC 6376 §3.5: h= names at least one field.
                "ams_fields_h_empty" => "fail",
                // RFC 6376 §3.5: without c=, simple; the suite's draft had relaxed.
                "ams_fields_c_na" => "fail",
                // Nothing is expected of a chain that says itself that it was broken: RFC 8617 §5.2
                // says fail.
                _ if expected.trim().is_empty() => "fail",
                _ => expected.trim(),
            };
            if word != expected {
                wrong.push(format!("{name}: {word} instead of {expected}: {:?}", verdict.arc));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(count, 175);
}
