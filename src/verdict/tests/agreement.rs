//! Second opinions: what dkimpy and pyspf say of generated mails and records. Where they differ, it is
//! for a rule that is named here.

use std::{collections::BTreeMap, net::IpAddr, path::Path, process::Command};

use mailrace_dns::{Dns, Found, RecordType};
use serde_json::Value;

use super::{
    Court, NONE, envelope, suite,
    zone::{Data, Zone},
};
use crate::{Judge, Letter, Methods};

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

/// Why dkimpy may say otherwise.
fn rule(mail: &[u8]) -> Option<&'static str> {
    let body = mail.windows(4).position(|window| window == b"\r\n\r\n").map(|at| &mail[at + 4..]);
    if mailrace_header::Fields::new(mail).filter(|field| field.is("from")).count() > 1 {
        // It refuses the mail as a whole; RFC 6376 §8.15 leaves that to who reads the verdict, and here
        // it is DMARC's permerror and a fact.
        return Some("several From fields");
    }
    if body.is_some_and(|body| !body.is_empty() && !body.ends_with(b"\r\n")) {
        // RFC 6376 §3.4.3, §3.4.4: a body that does not end in CRLF gets one, which it leaves out.
        return Some("no CRLF at the end");
    }
    None
}

#[test]
fn dkimpy_agrees_on_a_thousand_mails() {
    let Some(told) = opinions("dkim") else { return };
    let court = Court::new(zone_of(&told["zone"]));
    let client: IpAddr = "192.0.2.1".parse().unwrap();
    let (mut wrong, mut passed) = (Vec::new(), 0);
    let mut settled = BTreeMap::new();
    let cases = told["cases"].as_array().unwrap();
    for case in cases {
        let mail = unhex(case["mail"].as_str().unwrap());
        let envelope = envelope(client, "mx.signer.test", "ann@signer.test");
        let verdict = court.judge(&envelope, &mail, Methods { dkim: true, ..NONE });
        let ours = verdict.dkim.iter().any(|check| check.result.name() == "pass");
        passed += usize::from(ours);
        match rule(&mail) {
            _ if Some(ours) == case["passes"].as_bool() => {}
            Some(rule) => *settled.entry(rule).or_insert(0) += 1,
            None => wrong.push(format!("{:?}\n{}", verdict.dkim, mail.escape_ascii())),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {COUNT}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n\n")
    );
    eprintln!("settled by rule: {settled:?}");
    assert_eq!(settled.len(), 2, "each rule is needed: {settled:?}");
    assert_eq!(cases.len(), COUNT);
    assert!(passed > COUNT / 4 && passed < COUNT, "{passed} passed: the mails are varied");
}

/// What a zone says, without a network: a thousand of them.
fn found(zone: &Value, name: &str, kind: RecordType) -> Found {
    let Some(entries) = zone.get(name) else { return Found::NoName };
    let wanted = kind.to_string();
    let values: Vec<_> = entries
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry[0] == *wanted)
        .map(|entry| entry[1].as_str().unwrap())
        .collect();
    match kind {
        _ if values.is_empty() => Found::NoRecord,
        RecordType::TXT => Found::Texts(values.iter().map(|text| text.as_bytes().into()).collect()),
        RecordType::MX => Found::Names(values.iter().map(|name| (*name).into()).collect()),
        _ => Found::Addresses(values.iter().map(|address| address.parse().unwrap()).collect()),
    }
}

fn includes_itself(zone: &Value) -> bool {
    zone.as_object().unwrap().iter().any(|(name, entries)| {
        entries.as_array().unwrap().iter().any(|entry| {
            // Names of a zone are N.test, so the second is the record's own name as well.
            let own = [
                "include:%{d}".to_owned(),
                "include:%{d1r}.test".to_owned(),
                format!("include:{name}"),
            ];
            let terms = entry[1].as_str().unwrap().split(' ');
            terms
                .map(|term| term.trim_start_matches(['+', '-', '~', '?']))
                .any(|term| own.iter().any(|own| own == term))
        })
    })
}

#[test]
fn pyspf_agrees_on_a_thousand_records() {
    let Some(told) = opinions("spf") else { return };
    let (mut wrong, mut settled) = (Vec::new(), 0);
    let cases = told["cases"].as_array().unwrap();
    for case in cases {
        let zone = case["zone"].clone();
        let dns = Dns::given(move |name, kind| found(&zone, name, kind)).unwrap();
        let client: IpAddr = case["client"].as_str().unwrap().parse().unwrap();
        let envelope = envelope(client, "mx.signer.test", case["sender"].as_str().unwrap());
        let judge = Judge::new(dns).unwrap();
        let methods = Methods { spf: true, ..NONE };
        let verdict = judge.judge_alone(&envelope, &Letter::of(b""), methods, &|_| false).unwrap();
        let word = verdict.spf[0].result.name();
        // It looks for a record that includes itself before it begins; RFC 7208 §4.6.2 and §5.2 have
        // what stands before decide, if it matches.
        if word != case["result"] && case["result"] == "permerror" && includes_itself(&case["zone"])
        {
            settled += 1;
        } else if word != case["result"] {
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
    assert!(settled > 0 && settled < 20, "{settled} by the rule");
}
