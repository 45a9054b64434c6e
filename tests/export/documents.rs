//! Documents of odd mails against the published schema, and the protobuf one against its `.proto`.

use crate::support;
use base64::{Engine, engine::general_purpose::STANDARD};
use mailrace::{
    export::{
        DocumentOptions, Encoding, Facts, Key, Record, document::FIELDS_BYTES_MAX, encode,
        event_json, testing,
    },
    log::{self, Field, Kind, Label, MailFlag, Member, Offset, RecordId, Section},
};
use prost_reflect::{Cardinality, FieldDescriptor, Kind as Sent};
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../config/schema/mailrace.message.received.v1.schema.json");
const PROTO: &str = include_str!("../../config/schema/mailrace.v1.proto");

fn record(data: &[u8]) -> Record {
    Record {
        id: RecordId {
            node: [0x7f, 0x3a, 0x9c, 0x21, 0xb0, 0x4e],
            shard: 3,
            offset: Offset::new(725),
        },
        received_at: 1_795_370_645_123_456,
        listener: "mx".into(),
        rcpt_to: vec!["sales@Example.com".into()],
        helo: "mx.example.org".into(),
        data: data.to_vec().into(),
        ..testing::record(3, 725)
    }
}

fn options() -> DocumentOptions {
    DocumentOptions {
        encoding: Encoding::Json,
        inline_max: 512 << 10,
        reference_url: "http://127.0.0.1:2580".into(),
        sha256: false,
        key: Key::RcptDomain,
    }
}

/// All that a message can have.
fn facts() -> Facts {
    Facts {
        lmtp: true,
        tls_cipher: "TLS_AES_256_GCM_SHA384".into(),
        tls_sni: "mx.test".into(),
        tls_client: "CN=client,O=\\#1".into(),
        auth_mechanism: "EXTERNAL".into(),
        auth_user: "u@x.test".into(),
        proxy: Some("192.0.2.99:4711".parse().unwrap()),
        proxy_facts: "authority=mx.test\nunique_id=a=b".into(),
        list_score: -7,
        rdns: "client.test".into(),
        ret: 2,
        envid: "a b".into(),
        submitter: "<>".into(),
        require_tls: true,
        mt_priority: Some(-9),
        rcpt_params: "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x.test\n\n\
            NOTIFY=NEVER ORCPT=utf-8;+FF"
            .into(),
        ..log::Facts::with_text(0, "TLSv1.3").owned()
    }
}

/// Mails and envelopes that trip consumers.
/// With all that a verdict may have.
fn verdict() -> Box<log::Verdict> {
    let check = |result, domain: &str| log::Check {
        result,
        reason: "why".to_owned(),
        domain: domain.to_owned(),
        selector: "s1".to_owned(),
        algorithm: "rsa-sha256".to_owned(),
        identity: "mailfrom".to_owned(),
        aligned: Some(false),
    };
    let bare = log::Check { result: log::AuthWord::Pass, ..log::Check::default() };
    Box::new(log::Verdict {
        engine: "test".to_owned(),
        judged_at: 5,
        questions: 3,
        spf: vec![check(log::AuthWord::Softfail, "a.test"), bare.clone()],
        dkim: vec![bare.clone(), check(log::AuthWord::Policy, "b.test")],
        dkim_ignored: 7,
        dmarc: Some(log::Dmarc {
            check: check(log::AuthWord::Fail, "c.test"),
            policy: "reject".to_owned(),
            disposition: "reject".to_owned(),
            published: None,
        }),
        arc: Some(check(log::AuthWord::Fail, "d.test")),
        iprev: Some(bare),
        from: log::FromFacts {
            fields: 2,
            mailboxes: 3,
            domains: vec!["c.test".to_owned(), "xn--bcher-kva.test".to_owned()],
            unreadable: true,
            misleading_name: true,
            non_ascii: true,
            own_domain_forged: true,
        },
        skipped: "not quite".to_owned(),
    })
}

fn odd_records() -> Vec<(&'static str, Record)> {
    let mail = b"From: a@x.test\r\nSubject: Order\r\nMessage-ID: <a1@example.org>\r\n\r\nhi\r\n";
    let plain = record(mail);
    let huge = [
        "Subject: huge\r\nX: ",
        &"y".repeat(2 * FIELDS_BYTES_MAX),
        "\r\nTo: b@x.test\r\n\r\nbody\r\n",
    ]
    .concat();
    let garbage: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let folded = "Received: from a\r\n\tby b;\r\n Mon, 2 Mar 2026\r\n\
        Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_aus_K=C3=B6ln?=\r\n\r\n";
    let binary =
        [b"Content-Transfer-Encoding: binary\r\nFrom: \xe9\r\n\r\n" as &[u8], &[0, 10, 13, 255]]
            .concat();
    let hundred = (0..100).map(|n| format!("r{n}@h{n}.test")).collect();
    vec![
        ("plain", plain.clone()),
        ("null sender", Record { mail_from: String::new(), ..plain.clone() }),
        (
            "SMTPUTF8",
            Record {
                mail_from: "grün@exämple.test".into(),
                rcpt_to: vec!["用户@例子.test".into()],
                smtputf8: true,
                ..record("Subject: 件名 grün\r\n\r\n".as_bytes())
            },
        ),
        ("a verdict", Record { verdict: Some(verdict()), ..plain.clone() }),
        ("no verdict yet", Record { verdict_pending: true, ..plain.clone() }),
        ("no header", record(b"just text\r\nSubject: of the body\r\n")),
        ("huge header", record(huge.as_bytes())),
        ("octets of all kinds", record(&garbage)),
        ("8-bit field", record(b"Subject: caf\xe9 \xff\r\nX-\xff: bad name\r\n\r\n")),
        ("binary MIME", Record { body_type: 2, ..record(&binary) }),
        ("empty", record(b"")),
        ("only the empty line", record(b"\r\n")),
        ("100 recipients", Record { rcpt_to: hundred, ..plain.clone() }),
        ("Postmaster", Record { rcpt_to: vec!["Postmaster".into()], ..plain.clone() }),
        ("above inline_max", record(&[&mail[..], &vec![b'x'; 600 << 10]].concat())),
        (
            "all facts",
            Record {
                facts: facts(),
                flags: u32::MAX,
                size_declared: Some(4_711),
                rcpt_to: ["a", "b", "c"].map(|local| format!("{local}@x.test")).into(),
                ..plain.clone()
            },
        ),
        (
            "addresses and a file",
            record(
                b"From: =?utf-8?q?J=C3=BC?= <a@x.test>\r\nTo: T: b@x.test, MAILER;\r\nCc: c@x.test\r\n\
                Date: Mon, 2 Mar 26 04:11 EST\r\nContent-Type: Application/PDF\r\n\
                Content-Disposition: attachment; filename*=utf-8''Gr%C3%BCn.pdf\r\n\r\n",
            ),
        ),
        ("replay", Record { replay: true, ..plain.clone() }),
        ("folded and encoded", record(folded.as_bytes())),
        (
            "quotes and controls",
            Record {
                mail_from: "\"a\\\"b,\u{7f}\"@x.test".into(),
                helo: "a\\b\"c\u{1}".into(),
                listener: "mx \"1\"".into(),
                client: "[2001:db8::1]:25".parse().unwrap(),
                ..record(b"Subject: \"\\\x01\x0b\r\n\r\n")
            },
        ),
    ]
}

#[test]
fn documents_follow_the_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for key in [Key::None, Key::Rcpt, Key::RcptDomain, Key::MailFrom, Key::Id] {
        for sha256 in [false, true] {
            for (what, record) in odd_records() {
                let options = DocumentOptions { key, sha256, ..options() };
                let document = encode(&record, &options);
                assert_eq!(document.content_type, "application/cloudevents+json");
                let event: Value = serde_json::from_slice(&document.body).unwrap();
                let errors: Vec<_> =
                    validator.iter_errors(&event).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{what}: {errors:?}");
                assert_eq!(event, event_json(&record, &options));
                assert_eq!(event["partitionkey"].as_str(), document.key.as_deref(), "{what}");
                assert_eq!(event["data"]["sha256"].is_null(), !sha256);
                let raw = &event["data"]["raw"];
                if record.data.len() as u64 > options.inline_max {
                    assert_eq!(event["dataref"], raw["ref"]);
                    assert_eq!(raw["size"], record.data.len());
                } else {
                    assert_eq!(
                        STANDARD.decode(raw["data"].as_str().unwrap()).unwrap(),
                        record.data
                    );
                }
            }
        }
    }
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let good = event_json(&record(b"A: b\r\n\r\n"), &options());
    assert!(validator.is_valid(&good));
    for (pointer, value) in [
        ("/id", json!("7f3a9c21b04e-003-2d5")),
        ("/sequence", json!("725")),
        ("/time", json!("2026-11-22T18:04:05Z")),
        ("/data/raw", json!({"ref": "http://x"})),
        ("/data/raw/data", json!("a_b")),
        ("/data/envelope/rcpt_to", json!([])),
        ("/data/envelope/body", json!("9BIT")),
        ("/data/log/offset", json!(9_007_199_254_740_992_u64)),
        ("/data/tls", json!({})),
        ("/data/envelope/ret", json!("ALL")),
        ("/data/envelope/protocol", json!("esmtp")),
        ("/data/envelope/mt_priority", json!(10)),
        ("/data/envelope/rcpt_params", json!([{"notify": "SOMETIMES", "orcpt": null}])),
        ("/data/headers", json!([{"name": "a b", "value": ""}])),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
}

/// The whole of one event.
#[test]
fn an_event_is_spelled_out() {
    let mail = b"From: Alice <alice@example.org>\r\nSubject: Order\r\n\
        Message-ID: <a1@example.org>\r\n\r\nhi\r\n";
    let body = encode(&record(mail), &options()).body;
    let want = r#"{"specversion":"1.0","type":"mailrace.message.received.v1","source":"/mailrace/7f3a9c21b04e/3","id":"7f3a9c21b04e-003-00000000000002d5","time":"2026-11-22T18:04:05.123456Z","sequence":"00000000000000000725","partitionkey":"example.com","datacontenttype":"application/json","data":{"received_at":"2026-11-22T18:04:05.123456Z","listener":"mx","log":{"node":"7f3a9c21b04e","shard":3,"offset":725},"envelope":{"mail_from":"alice@example.org","rcpt_to":["sales@Example.com"],"smtputf8":false,"body":"8BITMIME","protocol":"smtp","ret":null,"envid":null,"submitter":null,"require_tls":false,"mt_priority":null,"rcpt_params":null,"size_declared":null},"client":{"ip":"192.0.2.10","port":51234,"helo":"mx.example.org","rdns":null,"proxy_ip":null,"auth_user":null,"auth_mechanism":null,"esmtp":true,"proxy_port":null,"proxy_facts":[],"list_score":0},"tls":null,"auth":null,"headers":[{"name":"From","value":"Alice <alice@example.org>"},{"name":"Subject","value":"Order"},{"name":"Message-ID","value":"<a1@example.org>"}],"headers_truncated":false,"message_id":"<a1@example.org>","subject":"Order","flags":[],"from":[{"name":"Alice","address":"alice@example.org"}],"to":[],"cc":[],"date":null,"content_type":null,"file_name":null,"size":85,"sha256":null,"raw":{"encoding":"base64","data":"RnJvbTogQWxpY2UgPGFsaWNlQGV4YW1wbGUub3JnPg0KU3ViamVjdDogT3JkZXINCk1lc3NhZ2UtSUQ6IDxhMUBleGFtcGxlLm9yZz4NCg0KaGkNCg=="}}}"#;
    // Without what is not known: a new fact that this record does not have changes nothing here.
    let text = std::str::from_utf8(&body).unwrap();
    let null = regex::Regex::new(r#","[a-z_]+":null"#).unwrap();
    assert_eq!(null.replace_all(text, ""), null.replace_all(want, ""));
    let long = DocumentOptions { inline_max: 10, ..options() };
    let event = event_json(&Record { replay: true, ..record(mail) }, &long);
    let url = "http://127.0.0.1:2580/v1/messages/7f3a9c21b04e-003-00000000000002d5/raw";
    assert_eq!(event["dataref"], url);
    assert_eq!(event["data"]["raw"], json!({"ref": url, "size": 85}));
    assert_eq!(event["mailracereplay"], true);
}

/// What was found out, where consumers look for it.
#[test]
fn facts_are_told() {
    let known = Record { facts: facts(), rcpt_to: vec!["b@x.test".into(); 3], ..record(b"") };
    let event = event_json(&known, &options());
    let data = &event["data"];
    let tls = ["version", "cipher", "sni", "client_subject"].map(|name| data["tls"][name].clone());
    let known = json!(["TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.test", "CN=client,O=\\#1"]);
    assert_eq!(json!(tls), known);
    assert_eq!(data["client"]["rdns"], "client.test");
    assert_eq!(data["client"]["proxy_ip"], "192.0.2.99");
    assert_eq!(data["client"]["proxy_port"], 4711);
    let said = json!([
        {"name": "authority", "value": "mx.test"}, {"name": "unique_id", "value": "a=b"},
    ]);
    assert_eq!(data["client"]["proxy_facts"], said);
    assert_eq!(data["client"]["list_score"], -7);
    assert_eq!(data["client"]["auth_user"], "u@x.test");
    assert_eq!(data["client"]["auth_mechanism"], "EXTERNAL");
    let envelope = &data["envelope"];
    let told = ["protocol", "ret", "envid", "submitter", "require_tls", "mt_priority"];
    let told = told.map(|name| envelope[name].clone());
    assert_eq!(json!(told), json!(["lmtp", "HDRS", "a b", "<>", true, -9]));
    let params = json!([
        {"notify": "SUCCESS,DELAY", "orcpt": "rfc822;a+b@x.test"},
        null,
        {"notify": "NEVER", "orcpt": "utf-8;+FF"},
    ]);
    assert_eq!(envelope["rcpt_params"], params);
}

#[test]
fn documents_say_who_sent_it() {
    let plain = record(b"A: b\r\n\r\n");
    let judged = Record { verdict: Some(verdict()), ..plain.clone() };
    let auth = event_json(&judged, &options())["data"]["auth"].take();
    assert_eq!(auth["spf"]["result"], "softfail");
    assert_eq!(
        auth["spf_helo"],
        json!({"result": "pass", "domain": null, "selector": null,
        "policy": null, "disposition": null, "algorithm": null, "identity": null, "aligned": null,
        "reason": null})
    );
    assert_eq!((&auth["dkim"][1]["selector"], &auth["dkim_ignored"]), (&json!("s1"), &json!(7)));
    assert_eq!((&auth["dmarc"]["policy"], &auth["pending"]), (&json!("reject"), &json!(false)));
    assert_eq!(auth["from"]["domains"], json!(["c.test", "xn--bcher-kva.test"]));
    assert_eq!(event_json(&plain, &options())["data"]["auth"], Value::Null);
    let pending = Record { verdict_pending: true, ..plain };
    let auth = event_json(&pending, &options())["data"]["auth"].take();
    assert_eq!((&auth["pending"], &auth["spf"]), (&json!(true), &Value::Null));
}

/// Read by the published `.proto`.
#[test]
fn protobuf_tells_the_same_as_json() {
    for (what, record) in odd_records() {
        for sha256 in [false, true] {
            let options = DocumentOptions { encoding: Encoding::Protobuf, sha256, ..options() };
            let document = encode(&record, &options);
            assert_eq!(document.content_type, "application/protobuf");
            let mut read = support::protobuf::message(&document.body);
            let mut event = event_json(&record, &options);
            let mut want = event["data"].take();
            // What is spelled otherwise: the mail data, and what an event has around its data.
            match want["raw"].take() {
                raw if raw["data"].is_string() => want["raw"] = raw["data"].clone(),
                raw => want["raw_ref"] = json!({"url": raw["ref"], "size": raw["size"]}),
            }
            want["id"] = event["id"].take();
            want["replay"] = json!(event["mailracereplay"] == true);
            clean(&mut want);
            clean(&mut read);
            assert_eq!(read, want, "{what}");
            if what == "addresses and a file" {
                let told = json!([want["date"], want["content_type"], want["file_name"]]);
                let file = "Gr\u{fc}n.pdf";
                assert_eq!(told, json!(["2026-03-02T09:11:00Z", "application/pdf", file]));
            }
        }
    }
}

/// Drops what is null or an empty list, which protobuf cannot tell from what is absent; an entry of
/// a list that says nothing is an empty message.
fn clean(value: &mut Value) {
    match value {
        Value::Array(entries) => {
            for entry in entries {
                if entry.is_null() {
                    *entry = json!({});
                }
                clean(entry);
            }
        }
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null() && *member != json!([]));
            members.values_mut().for_each(clean);
        }
        _ => {}
    }
}

/// The table of facts against the published schemas: every fact is in both, under the same name and
/// of the same kind, and they have nothing that no record has.
#[test]
fn every_fact_is_in_both_schemas() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let top = support::protobuf::POOL.get_message_by_name("mailrace.v1.MessageReceived").unwrap();
    for section in Section::ALL {
        let (name, message) = section.names();
        let sent = top.get_field_by_name(name).unwrap().kind();
        let sent = sent.as_message().unwrap();
        assert_eq!(sent.name(), message);
        let paths = if section == Section::Envelope { 2 } else { 0 };
        assert_eq!(sent.fields().len(), section.fields().len() + paths, "{name} in protobuf");
        let properties = &schema["$defs"]["data"]["properties"][name]["properties"];
        let shown = properties.as_object().unwrap();
        assert_eq!(shown.len(), section.fields().len() + paths, "{name} in JSON");
        for Field { member, .. } in section.fields() {
            let in_json = &properties[member.name];
            assert!(in_json.is_object(), "{name}.{} is not in the JSON schema", member.name);
            json_has(member, in_json, &schema);
            let in_proto = sent.get_field(member.number);
            proto_has(member, &in_proto.unwrap_or_else(|| panic!("{name}.{}", member.name)));
        }
    }
}

fn json_has(member: &Member, found: &Value, schema: &Value) {
    let name = member.name;
    let found = match found["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => found,
    };
    let kind = match (member.label, member.kind) {
        (Label::Repeated, _) => "array",
        (_, Kind::Text) => "string",
        (_, Kind::Bool) => "boolean",
        (_, Kind::Sint32 | Kind::Uint32 | Kind::Uint64) => "integer",
        (_, Kind::Message(..)) => "object",
    };
    let types = match (&found["type"], &found["enum"]) {
        (Value::Null, Value::Array(values)) => {
            assert!(values.iter().any(Value::is_string), "{name}");
            json!(
                values
                    .iter()
                    .map(|v| if v.is_null() { "null" } else { "string" })
                    .collect::<Vec<_>>()
            )
        }
        (kind, _) => kind.clone(),
    };
    let has = |kind: &str| {
        types == kind || types.as_array().is_some_and(|all| all.contains(&json!(kind)))
    };
    assert!(has(kind), "{name}: {types}");
    if member.label == Label::Always {
        assert!(!has("null"), "{name} is never null");
    }
    if let (Label::Optional, Kind::Text | Kind::Sint32 | Kind::Uint32 | Kind::Uint64) =
        (member.label, member.kind)
    {
        assert!(has("null"), "{name} may be null");
    }
    let inner = if has("array") { &found["items"] } else { found };
    let inner = match inner["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => inner,
    };
    for member in member.kind.members() {
        json_has(member, &inner["properties"][member.name], schema);
    }
}

fn proto_has(member: &Member, found: &FieldDescriptor) {
    let name = member.name;
    assert_eq!((found.name(), found.number()), (name, member.number));
    let is_message = matches!(member.kind, Kind::Message(..));
    assert_eq!(found.is_list(), member.label == Label::Repeated, "{name}");
    if !found.is_list() {
        assert_eq!(
            found.supports_presence(),
            member.label == Label::Optional || is_message,
            "{name}"
        );
    }
    assert_ne!(found.cardinality(), Cardinality::Required);
    match (member.kind, found.kind()) {
        (Kind::Text, Sent::String)
        | (Kind::Bool, Sent::Bool)
        | (Kind::Sint32, Sent::Sint32)
        | (Kind::Uint32, Sent::Uint32)
        | (Kind::Uint64, Sent::Uint64) => {}
        (Kind::Message(message, members), Sent::Message(sent)) => {
            assert_eq!((sent.name(), sent.fields().len()), (message, members.len()));
            for member in members {
                proto_has(member, &sent.get_field(member.number).unwrap());
            }
        }
        (kind, sent) => panic!("{name}: {kind:?}, but {sent:?} is published"),
    }
}

/// A fact that is a text shows in both documents, wherever the table puts it.
#[test]
fn every_fact_shows_in_the_documents() {
    for (place, fact) in log::Facts::default().texts().into_iter().enumerate() {
        // The marker as the fact's own syntax has it; the other facts of TLS come with a version.
        let text = match fact.name {
            "rcpt_params" => "ORCPT=rfc822;marker",
            "proxy_facts" => "name=marker",
            _ => "marker",
        };
        let mut facts = log::Facts::with_text(place, text).owned();
        if fact.name != "tls_version" && fact.name.starts_with("tls_") {
            facts.tls_version = "TLSv1.3".to_owned();
        }
        let record = Record { facts, ..record(b"") };
        let event = event_json(&record, &options());
        assert!(event.to_string().contains("marker\""), "{} in JSON: {event}", fact.name);
        let options = DocumentOptions { encoding: Encoding::Protobuf, ..options() };
        let read = support::protobuf::message(&encode(&record, &options).body);
        assert!(read.to_string().contains("marker\""), "{} in protobuf: {read}", fact.name);
    }
}

/// Every flag is described where consumers look.
#[test]
fn schemas_name_every_flag() {
    for (_, name) in MailFlag::NAMES {
        assert!(SCHEMA.contains(name) && PROTO.contains(name), "{name}");
    }
}

#[test]
fn raw_has_the_envelope_in_attributes() {
    let options = DocumentOptions { encoding: Encoding::Raw, sha256: true, ..options() };
    for (what, record) in odd_records() {
        let document = encode(&record, &options);
        let of = |name: &str| {
            let found = document.attributes.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        let event = event_json(&record, &options);
        assert_eq!(document.content_type, "message/rfc822");
        for name in ["specversion", "type", "source", "id", "time", "sequence", "partitionkey"] {
            assert_eq!(of(name), event[name].as_str(), "{what}: {name}");
        }
        assert_eq!(of("mailrace_mail_from"), Some(record.mail_from.as_str()));
        assert_eq!(of("mailrace_rcpt_to"), Some(record.rcpt_to.join(", ").as_str()));
        assert_eq!(of("mailrace_sha256"), event["data"]["sha256"].as_str());
        let known = (of("mailrace_tls_cipher"), of("mailrace_auth_user"));
        let tls = &event["data"]["tls"]["cipher"];
        assert_eq!(known, (tls.as_str(), event["data"]["client"]["auth_user"].as_str()));
        let flags: Vec<_> = record.flag_names().collect();
        assert_eq!(of("mailrace_flags").unwrap_or_default(), flags.join(", "));
        assert_eq!(event["data"]["flags"], json!(flags));
        assert_eq!(of("mailracereplay").is_some(), record.replay);
        assert_eq!(of("dataref"), event["dataref"].as_str());
        let inline = of("dataref").is_none();
        assert_eq!(document.body, if inline { record.data.clone() } else { Vec::new().into() });
    }
}
