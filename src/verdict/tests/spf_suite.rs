//! The test suite of SPF (release 2014.04, for RFC 7208), which comes with pyspf.

use serde_json::Value;

use super::{
    Court, NONE, envelope, suite,
    zone::{Data, Zone},
};
use crate::Methods;

/// A zone of the suite: an SPF entry stands for a TXT one, unless the name has TXT entries.
fn zone_of(data: &Value) -> Zone {
    let mut zone = Zone::default();
    for (name, entries) in data.as_object().unwrap() {
        let entries = entries.as_array().unwrap();
        let has_txt = entries.iter().any(|entry| entry.get("TXT").is_some());
        for entry in entries {
            let Some(entry) = entry.as_object() else {
                assert_eq!(entry, "TIMEOUT");
                zone.add(name, Data::Silence);
                continue;
            };
            let (kind, value) = entry.iter().next().unwrap();
            match kind.as_str() {
                "A" => zone.add(name, Data::A(text(value).parse().unwrap())),
                "AAAA" => zone.add(name, Data::Aaaa(text(value).parse().unwrap())),
                "PTR" => zone.add(name, Data::Ptr(text(value))),
                "CNAME" => zone.add(name, Data::Cname(text(value))),
                "MX" => {
                    let preference = text(&value[0]).parse().unwrap();
                    zone.add(name, Data::Mx(preference, text(&value[1])))
                }
                "SPF" if !has_txt => zone.add(name, Data::Txt(strings(value))),
                "TXT" if value != "NONE" => zone.add(name, Data::Txt(strings(value))),
                "SPF" | "TXT" => &mut zone,
                kind => panic!("{kind}"),
            };
        }
    }
    zone
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// Each character is an octet.
fn octets(value: &Value) -> Vec<u8> {
    text(value).chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn strings(value: &Value) -> Vec<Vec<u8>> {
    match value.as_array() {
        Some(values) if values.is_empty() => vec![Vec::new()],
        Some(values) => values.iter().map(octets).collect(),
        None => octets(value).chunks(255).map(<[u8]>::to_vec).collect(),
    }
}

#[test]
fn the_suite_of_spf_is_passed() {
    let Some(path) = suite("spf.json") else { return };
    let documents: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for document in documents.as_array().unwrap() {
        let court = Court::new(zone_of(&document["zonedata"]));
        for (name, test) in document["tests"].as_object().unwrap() {
            count += 1;
            let (helo, sender) = (text(&test["helo"]), text(&test["mailfrom"]));
            let client = text(&test["host"]).parse().unwrap();
            let methods = Methods { spf: true, ..NONE };
            let verdict = court.judge(&envelope(client, &helo, &sender), b"", methods);
            let check = &verdict.spf[0];
            let expected = match test["result"].as_array() {
                Some(several) => several.iter().map(text).collect(),
                None => vec![text(&test["result"])],
            };
            let word = check.result.name();
            // DEFAULT: the domain has no explanation.
            let explained = match test["explanation"].as_str() {
                Some("DEFAULT") => check.reason.is_empty(),
                Some(explanation) => check.reason == explanation,
                None => true,
            };
            if !expected.iter().any(|one| one == word) || !explained {
                wrong.push(format!(
                    "{name}: {word} {:?} instead of {expected:?} {}",
                    check.reason, test["explanation"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(count, 203);
}
