//! What TLS says about clients, and what it requires of them.

use std::{
    io::BufRead,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{
    self, Launch, id_of,
    servers::{
        certificates::Authority,
        secure::{Case, TlsClient, client_config, launch},
    },
};

/// Reads a reply, or tells why there is none.
fn try_reply(client: &mut TlsClient) -> Result<String, String> {
    let mut line = String::new();
    match client.stream.read_line(&mut line) {
        Ok(0) => Err("the end".to_owned()),
        Ok(_) => Ok(line),
        Err(error) => Err(error.to_string()),
    }
}

/// RFC 8314 §4.3, RFC 3848: what was agreed on is in the record, and in the trace field.
#[test]
fn the_record_tells_of_tls() {
    let case = Case::new("starttls");
    let mut plain = case.server.client();
    plain.ehlo();
    let id = id_of(&plain.bdat(b"hi\r\n"));
    assert_eq!(support::log_envelope(&case.server.dir, &id)["tls_version"], Value::Null);
    let mut client = case.client("starttls");
    for _ in 0..2 {
        let id = id_of(&client.bdat(b"hi\r\n"));
        let told = support::log_envelope(&case.server.dir, &id);
        assert_eq!(told["tls_version"], "TLSv1.3");
        assert_eq!(told["tls_cipher"], "TLS_AES_128_GCM_SHA256");
        assert_eq!((&told["tls_sni"], &told["tls_client"]), (&"localhost".into(), &Value::Null));
        let get = |flag| {
            let told = support::log_command(&case.server.dir, &["get", &id, flag]);
            String::from_utf8(told).unwrap()
        };
        let field = get("--received");
        assert!(field.contains(" with ESMTPS id "), "{field}");
        assert!(field.contains("\r\n\ttls TLS_AES_128_GCM_SHA256;\r\n"), "{field}");
        let lines = get("--envelope");
        assert!(lines.contains("\ntls       TLSv1.3 TLS_AES_128_GCM_SHA256\n"), "{lines}");
        assert!(lines.contains("\nsni       localhost\n"), "{lines}");
    }
}

/// Mail recorded today is not read by the quantum computer of tomorrow: who offers the hybrid group
/// gets it.
#[test]
fn the_hybrid_group_is_negotiated() {
    for mode in ["starttls", "implicit"] {
        let case = Case::new(mode);
        let mut client = case.client(mode);
        assert!(client.say("NOOP").starts_with("250 "));
        let group = client.stream.get_ref().conn.negotiated_key_exchange_group().unwrap();
        assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
    }
}

/// A server that demands certificates of clients, and the places of two of them: of its authority,
/// and of another.
fn demanding(mode: &str) -> (Case, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "ca");
    authority.issue(dir.path(), "server");
    let clients = Authority::new();
    clients.write(dir.path(), "clients");
    clients.issue_for(dir.path(), "client", &["client.test"]);
    Authority::new().issue_for(dir.path(), "stranger", &["stranger.test"]);
    let ca = dir.path().join("clients.pem");
    let server = launch(dir.path(), "server", "server")
        .set(&format!("listener.0.tls_mode={mode}"))
        .set(&format!("listener.0.tls.client_ca_file={}", ca.display()))
        .start();
    let (client, stranger) = (dir.path().join("client"), dir.path().join("stranger"));
    (Case { server, dir }, client, stranger)
}

/// F12: a demanded certificate is verified; without one there is no session.
#[test]
fn f12_clients_show_who_they_are() {
    let (case, known, stranger) = demanding("implicit");
    let connect = |shows: Option<&Path>| {
        let config = client_config(&case.path("ca.pem"), shows);
        TlsClient::with(case.socket(), config, "localhost")
    };
    for (shows, wanted) in [(None, "CertificateRequired"), (Some(&*stranger), "UnknownCA")] {
        let error = try_reply(&mut connect(shows)).unwrap_err();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    for _ in 0..2 {
        let mut client = connect(Some(&known));
        assert!(client.reply().starts_with("220 "));
        assert!(client.say("EHLO a").starts_with("250"));
        let id = id_of(&client.bdat(b"hi\r\n"));
        let told = support::log_envelope(&case.server.dir, &id);
        assert!(told["tls_client"].as_str().unwrap().starts_with("CN=client"), "{told}");
        let handshake = client.stream.get_ref().conn.handshake_kind();
        assert_eq!(handshake, Some(rustls::HandshakeKind::Full), "verified each time");
    }
    assert_eq!(support::verified(&case.server.dir), 2);
}

/// RFC 6066 §3: who asks for a name that is not ours is told so, where the operator wants that.
#[test]
fn f7_an_unknown_name_is_an_alert() {
    for (setting, refused) in [("reject", true), ("default", false)] {
        let case = Case::with("implicit", &[&format!("listener.0.tls.unknown_name={setting}")]);
        let ask = |name| {
            let config = client_config(&case.path("ca.pem"), None);
            try_reply(&mut TlsClient::with(case.socket(), config, name))
        };
        assert!(ask("localhost").unwrap().starts_with("220 "));
        let error = ask("other.test").unwrap_err();
        assert_eq!(error.contains("UnrecognisedName"), refused, "{error}");
        assert_eq!(error.contains("not valid for name"), !refused, "{error}");
    }
}

/// A mistake in the authorities is one of the configuration, and names its key.
#[test]
fn authorities_are_checked_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "ca");
    authority.issue(dir.path(), "server");
    let key = "listener.0.tls.client_ca_file";
    let path = |name: &str| dir.path().join(name).display().to_string();
    let secured = || launch(dir.path(), "server", "server");
    for (launch, file, wanted) in [
        (secured(), "missing.pem", "missing.pem: No such file"),
        (secured(), "server.key", "server.key: no certificate in it"),
        (secured().set("listener.0.tls_mode=off"), "ca.pem", "client certificates need TLS"),
        (Launch::new(&dir.path().join("data")), "ca.pem", "client certificates need TLS"),
    ] {
        let failure = launch.set(&format!("{key}={}", path(file))).try_start().err().unwrap();
        assert_eq!(failure.code, Some(78), "{failure}");
        for wanted in [&*format!("{key} (--set): "), wanted] {
            assert!(failure.errors.contains(wanted), "{wanted}: {failure}");
        }
    }
}
