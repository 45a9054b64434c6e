//! Documents of odd mails against the published schema, and the protobuf one against its `.proto`.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use mailrace::{
    export::{
        DocumentOptions, Encoding, Facts, Key, RcptParams, Record, document::FIELDS_BYTES_MAX,
        document::protobuf::MessageReceived, encode, event_json,
    },
    log::{MailFlag, Offset, RecordId, format_time},
};
use prost::Message;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../config/schema/mailrace.message.received.v1.schema.json");
const PROTO: &str = include_str!("../../config/schema/mailrace.v1.proto");
const PROST: &str = include_str!("../../src/export/document/protobuf.rs");

fn record(data: &[u8]) -> Record {
    Record {
        id: RecordId {
            node: [0x7f, 0x3a, 0x9c, 0x21, 0xb0, 0x4e],
            shard: 3,
            offset: Offset::new(725),
        },
        received_at: 1_795_370_645_123_456,
        listener: "mx".into(),
        mail_from: "alice@example.org".into(),
        rcpt_to: vec!["sales@Example.com".into()],
        helo: "mx.example.org".into(),
        client: "192.0.2.10:51234".parse().unwrap(),
        esmtp: true,
        smtputf8: false,
        body_type: 1,
        size_declared: None,
        flags: 0,
        facts: Facts::default(),
        replay: false,
        data: data.to_vec().into(),
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
    let text = |text: &str| Some(text.to_owned());
    Facts {
        lmtp: true,
        tls_version: "TLSv1.3".into(),
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
        rcpt_params: vec![
            RcptParams { notify: text("SUCCESS,DELAY"), orcpt: text("rfc822;a+2Bb@x.test") },
            RcptParams { notify: None, orcpt: None },
            RcptParams { notify: text("NEVER"), orcpt: text("utf-8;+FF") },
        ],
    }
}

/// Mails and envelopes that trip consumers.
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
    assert_eq!(std::str::from_utf8(&body).unwrap(), want);
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
    let tls = json!({
        "version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "sni": "mx.test",
        "client_subject": "CN=client,O=\\#1",
    });
    assert_eq!(data["tls"], tls);
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
fn protobuf_tells_the_same_as_json() {
    for (what, record) in odd_records() {
        let options = DocumentOptions { encoding: Encoding::Protobuf, sha256: true, ..options() };
        let document = encode(&record, &options);
        assert_eq!(document.content_type, "application/protobuf");
        let event = event_json(&record, &options);
        let data = &event["data"];
        let read = MessageReceived::decode(document.body).unwrap();
        let envelope = read.envelope.unwrap();
        let place = read.log.unwrap();
        let client = read.client.unwrap();
        let time = read.received_at.unwrap();
        let headers: Vec<_> =
            read.headers.iter().map(|f| json!({"name": f.name, "value": f.value})).collect();
        assert_eq!(time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000, record.received_at);
        assert_eq!(json!(read.id), event["id"], "{what}");
        assert_eq!(json!(read.listener), data["listener"]);
        assert_eq!(
            json!({"node": place.node, "shard": place.shard, "offset": place.offset}),
            data["log"]
        );
        assert_eq!(json!(envelope.mail_from), data["envelope"]["mail_from"]);
        assert_eq!(json!(envelope.rcpt_to), data["envelope"]["rcpt_to"]);
        assert_eq!(json!(envelope.smtputf8), data["envelope"]["smtputf8"]);
        assert_eq!(json!(envelope.body), data["envelope"]["body"]);
        assert_eq!(json!(envelope.protocol), data["envelope"]["protocol"]);
        assert_eq!(json!(envelope.ret), data["envelope"]["ret"]);
        assert_eq!(json!(envelope.envid), data["envelope"]["envid"]);
        assert_eq!(json!(envelope.submitter), data["envelope"]["submitter"]);
        assert_eq!(json!(envelope.require_tls), data["envelope"]["require_tls"]);
        assert_eq!(json!(envelope.mt_priority), data["envelope"]["mt_priority"]);
        let params: Vec<_> = envelope
            .rcpt_params
            .iter()
            .map(|params| match (&params.notify, &params.orcpt) {
                (None, None) => Value::Null,
                (notify, orcpt) => json!({"notify": notify, "orcpt": orcpt}),
            })
            .collect();
        let params = if params.is_empty() { Value::Null } else { json!(params) };
        assert_eq!(params, data["envelope"]["rcpt_params"]);
        let tls = read.tls.map(|tls| {
            json!({
                "version": tls.version, "cipher": tls.cipher, "sni": tls.sni,
                "client_subject": tls.client_subject,
            })
        });
        assert_eq!(json!(tls), data["tls"]);
        assert_eq!(json!(client.rdns), data["client"]["rdns"]);
        assert_eq!(json!(client.proxy_ip), data["client"]["proxy_ip"]);
        assert_eq!(json!(client.auth_user), data["client"]["auth_user"]);
        assert_eq!(json!(client.auth_mechanism), data["client"]["auth_mechanism"]);
        assert_eq!(json!(client.ip), data["client"]["ip"]);
        assert_eq!(json!(client.port), data["client"]["port"]);
        assert_eq!(json!(client.helo), data["client"]["helo"]);
        assert_eq!(json!(headers), data["headers"]);
        assert_eq!(json!(read.headers_truncated), data["headers_truncated"]);
        assert_eq!(json!(read.message_id), data["message_id"]);
        assert_eq!(json!(read.subject), data["subject"]);
        assert_eq!(json!(read.size), data["size"]);
        assert_eq!(json!(read.sha256), data["sha256"]);
        assert_eq!(json!(read.flags), data["flags"]);
        for (name, all) in [("from", read.from), ("to", read.to), ("cc", read.cc)] {
            let all = all.iter().map(|m| json!({"name": m.name, "address": m.address}));
            assert_eq!(json!(all.collect::<Vec<_>>()), data[name], "{what}");
        }
        let date = read.date.map(|date| format_time(date.seconds * 1_000_000));
        assert_eq!(json!(date), data["date"], "{what}");
        assert_eq!(json!(read.content_type), data["content_type"]);
        assert_eq!(json!(read.file_name), data["file_name"]);
        if what == "addresses and a file" {
            let want = json!(["2026-03-02T09:11:00Z", "application/pdf", "Gr\u{fc}n.pdf"]);
            assert_eq!(json!([data["date"], data["content_type"], data["file_name"]]), want);
        }
        assert_eq!(json!(envelope.size_declared), data["envelope"]["size_declared"]);
        assert_eq!(json!(client.esmtp), data["client"]["esmtp"]);
        assert_eq!(json!(client.proxy_port), data["client"]["proxy_port"]);
        assert_eq!(json!(client.list_score), data["client"]["list_score"]);
        let said = client.proxy_facts.iter();
        let said: Vec<_> = said.map(|f| json!({"name": f.name, "value": f.value})).collect();
        assert_eq!(json!(said), data["client"]["proxy_facts"]);
        assert_eq!(
            json!(read.replay),
            event.get("mailracereplay").cloned().unwrap_or(json!(false))
        );
        match read.raw_ref {
            None => assert_eq!(read.raw.unwrap(), record.data),
            Some(raw) => assert_eq!(json!({"ref": raw.url, "size": raw.size}), data["raw"]),
        }
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

/// Messages by name, each with its fields: (number, (name, kind)).
type Messages = BTreeMap<String, BTreeMap<u32, (String, String)>>;

fn of_proto(text: &str) -> Messages {
    let mut messages = Messages::new();
    let mut current = String::new();
    for line in text.lines().map(|line| line.split("//").next().unwrap().trim()) {
        if let Some(rest) = line.strip_prefix("message ") {
            current = rest.trim_end_matches(" {").to_owned();
        } else if let Some((field, number)) = line.split_once(" = ")
            && let Ok(number) = number.trim_end_matches(';').parse()
        {
            let words: Vec<_> = field.split(' ').collect();
            let (name, kind) = words.split_last().unwrap();
            let kind = kind.join(" ").replace("google.protobuf.", "");
            let fields = messages.entry(current.clone()).or_default();
            assert!(fields.insert(number, ((*name).to_owned(), kind)).is_none(), "{line}");
        }
    }
    messages
}

/// Kinds as the `.proto` spells them.
fn of_prost(text: &str) -> Messages {
    let mut messages = Messages::new();
    let (mut current, mut pending) = (String::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            current = rest.trim_end_matches(" {").to_owned();
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            let (words, tag) = rest.trim_end_matches(")]").split_once(", tag = ").unwrap();
            let words: Vec<_> = words.split(", ").map(str::to_owned).collect();
            pending = Some((words, tag.trim_matches('"').parse().unwrap()));
        } else if let Some(rest) = line.strip_prefix("pub ")
            && let Some((words, number)) = pending.take()
        {
            let (name, rust) = rest.trim_end_matches(',').split_once(": ").unwrap();
            let inner = rust.rsplit('<').next().unwrap().trim_end_matches('>');
            let base = match words[0].as_str() {
                "message" => inner,
                "bytes = \"bytes\"" => "bytes",
                scalar => scalar,
            };
            let label = match words.get(1).map(String::as_str) {
                Some("optional") if words[0] != "message" => "optional ",
                Some("repeated") => "repeated ",
                _ => "",
            };
            let kind = format!("{label}{base}");
            messages.entry(current.clone()).or_default().insert(number, (name.to_owned(), kind));
        }
    }
    messages.remove("Timestamp");
    messages
}

#[test]
fn the_proto_file_is_what_is_sent() {
    let (published, sent) = (of_proto(PROTO), of_prost(PROST));
    assert!(published["MessageReceived"].len() >= 17);
    assert_eq!(published, sent);
}
