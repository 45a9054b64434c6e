//! Second opinions: what dkimpy and pyspf say of generated mails and records. Where they differ, it is
//! for a rule that is named here.

use std::{net::IpAddr, path::Path, process::Command};

use serde_json::Value;

use super::{
    Court, NONE, envelope, suite,
    zone::{Data, Zone},
};
use crate::Methods;

const COUNT: usize = 1000;

fn opinions(kind: &str) -> Option<Value> {
    suite("pyspf-2.0.14")?;
    suite("dkimpy-1.1.8")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let done = Command::new(root.join("target/servers/python/bin/python"))
        .arg(root.join("tests/support/servers/second_opinion.py"))
        .args([kind, &COUNT.to_string(), "7"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(serde_json::from_slice(&done.stdout).unwrap())
}

fn zone_of(entries: &Value) -> Zone {
    let mut zone = Zone::default();
    for (name, entries) in entries.as_object().unwrap() {
        for entry in entries.as_array().unwrap() {
            let value = entry[1].as_str().unwrap();
            match entry[0].as_str().unwrap() {
                "TXT" => zone.txt(name, value),
                "A" => zone.add(name, Data::A(value.parse().unwrap())),
                "AAAA" => zone.add(name, Data::Aaaa(value.parse().unwrap())),
                "MX" => zone.add(name, Data::Mx(10, value.to_owned())),
                kind => panic!("{kind}"),
            };
        }
    }
    zone
}

fn unhex(text: &str) -> Vec<u8> {
    let octets = (0..text.len()).step_by(2);
    octets.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn dkimpy_agrees_on_a_thousand_mails() {
    let Some(told) = opinions("dkim") else { return };
    let court = Court::new(zone_of(&told["zone"]));
    let client: IpAddr = "192.0.2.1".parse().unwrap();
    let (mut wrong, mut passed) = (Vec::new(), 0);
    let cases = told["cases"].as_array().unwrap();
    for case in cases {
        let mail = unhex(case["mail"].as_str().unwrap());
        let envelope = envelope(client, "mx.signer.test", "ann@signer.test");
        let verdict = court.judge(&envelope, &mail, Methods { dkim: true, ..NONE });
        let ours = verdict.dkim.iter().any(|check| check.result.name() == "pass");
        passed += usize::from(ours);
        if Some(ours) != case["passes"].as_bool() {
            wrong.push(format!("{:?}\n{}", verdict.dkim, mail.escape_ascii()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {COUNT}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n\n")
    );
    assert_eq!(cases.len(), COUNT);
    assert!(passed > COUNT / 4 && passed < COUNT, "{passed} passed: the mails are varied");
}

#[test]
fn pyspf_agrees_on_a_thousand_records() {
    let Some(told) = opinions("spf") else { return };
    let mut wrong = Vec::new();
    let cases = told["cases"].as_array().unwrap();
    for case in cases {
        let court = Court::new(zone_of(&case["zone"]));
        let client: IpAddr = case["client"].as_str().unwrap().parse().unwrap();
        let envelope = envelope(client, "mx.signer.test", case["sender"].as_str().unwrap());
        let verdict = court.judge(&envelope, b"", Methods { spf: true, ..NONE });
        if verdict.spf[0].result.name() != case["result"] {
            wrong.push(format!("{} instead of {case}", verdict.spf[0].result.name()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {COUNT}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(8)].join("\n\n")
    );
    assert_eq!(cases.len(), COUNT);
}
