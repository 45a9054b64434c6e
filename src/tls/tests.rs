//! The server's side against rustls' client, in memory.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

use super::*;

/// A certificate that signed itself, for these names, as `NAME.pem` and `NAME.key`.
fn issue(dir: &Path, name: &str, names: &[&str], years: (i32, i32)) -> (Files, rcgen::Certificate) {
    let mut params =
        rcgen::CertificateParams::new(names.iter().map(|&name| name.into()).collect::<Vec<_>>())
            .unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let files = Files {
        cert_file: dir.join(name).with_extension("pem"),
        key_file: dir.join(name).with_extension("key"),
    };
    std::fs::write(&files.cert_file, certificate.pem()).unwrap();
    std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
    (files, certificate)
}

fn trusting(
    roots: &RootCertStore,
    provider: Arc<CryptoProvider>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth()
}

const VALID: (i32, i32) = (2020, 2090);

struct Case {
    dir: tempfile::TempDir,
    config: Config,
    client: ClientConfig,
    roots: RootCertStore,
}

impl Case {
    fn new() -> Self {
        Self::with(&[&TLS13, &TLS12])
    }

    fn with(versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (a, first) = issue(dir.path(), "a", &["a.test", "*.w.test"], VALID);
        let (b, second) = issue(dir.path(), "b", &["b.test"], VALID);
        let mut roots = RootCertStore::empty();
        roots.add(first.der().clone()).unwrap();
        roots.add(second.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = trusting(&roots, provider, versions);
        Self { config: Config::new(&[a, b], &Demands::default()).unwrap(), dir, client, roots }
    }

    fn files(&self, name: &str) -> Files {
        Files {
            cert_file: self.dir.path().join(name).with_extension("pem"),
            key_file: self.dir.path().join(name).with_extension("key"),
        }
    }

    fn pair(&self, name: &str) -> Pair {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = ClientConnection::new(Arc::new(self.client.clone()), name).unwrap();
        Pair { client, server: Tls::new(&self.config).unwrap(), heard: Vec::new() }
    }
}

struct Pair {
    client: ClientConnection,
    server: Tls,
    /// Plaintext that the server handed out.
    heard: Vec<u8>,
}

impl Pair {
    /// What the client has to say.
    fn octets(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut octets).unwrap();
        }
        octets
    }

    fn pending(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        self.server.take_pending(&mut octets);
        octets
    }

    fn feed(&mut self, octets: &[u8]) -> Result<(), Error> {
        let Self { server, heard, .. } = self;
        server.feed(&mut octets.to_vec(), |_, plain| heard.extend_from_slice(plain))
    }

    fn answer(&mut self, mut octets: &[u8]) -> Result<(), rustls::Error> {
        while !octets.is_empty() {
            self.client.read_tls(&mut octets).unwrap();
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// Passes all there is to say both ways, the client's cut by `cut`.
    fn pass(&mut self, cut: &mut dyn FnMut() -> usize) -> Result<(), String> {
        loop {
            let octets = self.octets();
            let mut rest = &octets[..];
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(cut().clamp(1, rest.len()));
                let fed = self.feed(head);
                let answer = self.pending();
                let heard = self.answer(&answer);
                fed.map_err(|error| error.to_string())?;
                heard.map_err(|error| error.to_string())?;
                rest = tail;
            }
            if octets.is_empty() {
                return Ok(());
            }
        }
    }

    fn shake_hands(&mut self) -> Result<(), String> {
        self.pass(&mut || usize::MAX)
    }

    fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        let mut rest = plain;
        while !rest.is_empty() {
            let count = self.client.writer().write(rest).unwrap();
            rest = &rest[count..];
            octets.extend(self.octets());
        }
        octets
    }

    fn read(&mut self) -> Vec<u8> {
        let mut plain = vec![0; 1 << 20];
        let count = self.client.reader().read(&mut plain).unwrap_or(0);
        plain.truncate(count);
        plain
    }
}

fn random(mut seed: u64, most: usize) -> impl FnMut() -> usize {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize % most + 1
    }
}

/// BAD-INPUTS D16, F4, F5: however its octets are cut, the same plaintext and the same replies.
#[test]
fn f4_cuts_make_no_difference() {
    let text: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    for versions in [[&TLS13], [&TLS12]] {
        let case = Case::with(&versions);
        let mut cuts: Vec<Box<dyn FnMut() -> usize>> =
            vec![Box::new(|| usize::MAX), Box::new(|| 1), Box::new(|| 5)];
        for seed in 1..12 {
            cuts.push(Box::new(random(seed, 30)));
            cuts.push(Box::new(random(seed, 16_384)));
            cuts.push(Box::new(random(seed, 40_000)));
        }
        for cut in &mut cuts {
            let mut pair = case.pair("a.test");
            pair.pass(cut).unwrap();
            assert!(pair.server.is_established());
            let octets = pair.say(&text);
            let mut rest = &octets[..];
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(cut().clamp(1, rest.len()));
                pair.feed(head).unwrap();
                rest = tail;
            }
            assert!(pair.heard == text, "{} of {}", pair.heard.len(), text.len());
            assert_eq!(pair.server.kept_bytes(), 0, "nothing is kept between records");
            let mut replies = Vec::new();
            pair.server.encrypt(b"250 ok\r\n", &mut replies).unwrap();
            pair.server.encrypt(&text[..10_000], &mut replies).unwrap();
            pair.answer(&replies).unwrap();
            let heard = pair.read();
            assert!(heard.starts_with(b"250 ok\r\n") && heard.ends_with(&text[..10_000]));
            assert_eq!(heard.len(), 10_008);
        }
    }
}

/// The ticket of TLS 1.3 was encrypted before the first reply, so it goes ahead of it.
#[test]
fn what_is_pending_goes_ahead() {
    let case = Case::with(&[&TLS13]);
    let mut pair = case.pair("a.test");
    while !pair.server.is_established() {
        let answer = pair.pending();
        pair.answer(&answer).unwrap();
        let octets = pair.octets();
        pair.feed(&octets).unwrap();
    }
    assert!(pair.server.pending_bytes() > 0, "a ticket");
    let mut out = Vec::new();
    pair.server.encrypt(b"220 ok\r\n", &mut out).unwrap();
    pair.answer(&out).unwrap();
    assert_eq!((pair.read(), pair.server.kept_bytes()), (b"220 ok\r\n".to_vec(), 0));
}

#[test]
fn what_was_agreed_on_is_told() {
    let mut case = Case::new();
    let groups = case.config.server.crypto_provider().clone();
    case.client = trusting(&case.roots, groups, &[&TLS13]);
    let mut pair = case.pair("a.test");
    assert_eq!(pair.server.facts(), None);
    pair.shake_hands().unwrap();
    let facts = pair.server.facts().unwrap();
    assert_eq!((facts.version, facts.server_name.as_deref()), ("TLSv1.3", Some("a.test")));
    assert!(facts.cipher.starts_with("TLS_AES_") && !facts.resumed, "{facts:?}");
    assert_eq!(facts.protocol, None);
    let group = pair.client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    let case = Case::with(&[&TLS12]);
    let mut pair = case.pair("b.test");
    pair.shake_hands().unwrap();
    let facts = pair.server.facts().unwrap();
    assert_eq!((facts.version, facts.server_name.as_deref()), ("TLSv1.2", Some("b.test")));
    assert!(facts.cipher.starts_with("TLS_ECDHE_ECDSA_WITH_"), "{facts:?}");
}

/// PROTOCOL §6.8, F13: tickets are one listener's.
#[test]
fn f13_a_ticket_resumes_on_its_listener_alone() {
    for versions in [[&TLS13], [&TLS12]] {
        let case = Case::with(&versions);
        let mut resumed = Vec::new();
        for _ in 0..2 {
            let mut pair = case.pair("a.test");
            pair.shake_hands().unwrap();
            let octets = pair.say(b"x");
            pair.feed(&octets).unwrap();
            resumed.push(pair.server.facts().unwrap().resumed);
        }
        assert_eq!(resumed, [false, true]);
        // Another listener with the same certificate.
        let mut pair = case.pair("a.test");
        let other = Config::new(&[case.files("a"), case.files("b")], &Demands::default()).unwrap();
        pair.server = Tls::new(&other).unwrap();
        pair.shake_hands().unwrap();
        assert!(!pair.server.facts().unwrap().resumed);
    }
}

/// F7: a name selects its certificate, any other gets the first.
#[test]
fn f7_certificates_by_name() {
    let case = Case::new();
    for (name, good) in [("a.test", true), ("x.w.test", true), ("b.test", true), ("c.test", false)]
    {
        let mut pair = case.pair(name);
        let outcome = pair.shake_hands();
        assert_eq!(outcome.is_ok(), good, "{name}: {outcome:?}");
        if let Err(error) = outcome {
            // The default was shown, and the client does not like it.
            assert!(error.contains("not valid for name"), "{error}");
        }
    }
    let mut pair = case.pair("192.0.2.1");
    assert!(pair.shake_hands().unwrap_err().contains("not valid for name"), "no name is sent");
}

/// F8: a client of another protocol gets an alert that says so (ALPACA).
#[test]
fn f8_other_protocols_are_refused() {
    for (protocol, good) in [("smtp", true), ("esmtp", true), ("h2", false), ("http/1.1", false)] {
        let mut case = Case::new();
        case.client.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let mut pair = case.pair("a.test");
        match pair.shake_hands() {
            Ok(()) => {
                let facts = pair.server.facts().unwrap();
                assert_eq!(facts.protocol.as_deref(), Some(protocol));
                assert!(good, "{protocol}");
            }
            Err(error) => {
                assert!(!good && error.contains("any known protocol"), "{protocol}: {error}");
                assert!(!pair.server.is_established());
            }
        }
    }
}

/// F14, F2, F6: what is no TLS, or too old, fails at once, with an alert.
#[test]
fn f14_plain_octets_fail_at_once() {
    let case = Case::new();
    // A hello of TLS 1.0 with one suite.
    let mut old = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x01".to_vec();
    old.extend([7; 32]);
    old.extend(b"\x00\x00\x02\x00\x2f\x01\x00");
    for octets in [&b"EHLO a\r\n"[..], b"QUIT\r\n", b"\x80\x2e\x01\x00\x02", &old] {
        for whole in [true, false] {
            let mut pair = case.pair("a.test");
            let fed = if whole {
                pair.feed(octets)
            } else {
                octets.iter().try_for_each(|octet| pair.feed(&[*octet]))
            };
            fed.unwrap_err();
            let alert = pair.pending();
            assert!(matches!(alert[..], [21, 3, _, 0, 2, 2, _]), "{alert:?}");
            assert_eq!(pair.heard, b"");
            // Failed for good.
            pair.feed(b"more").unwrap();
            assert!(pair.server.encrypt(b"x", &mut Vec::new()).is_err());
        }
    }
}

/// F5: a hello that does not end.
#[test]
fn f5_a_handshake_message_is_bounded() {
    let case = Case::new();
    let mut pair = case.pair("a.test");
    // A client hello that says it has 16 MiB, in records of 1 KiB.
    let mut first = b"\x16\x03\x01\x04\x00\x01\xff\xff\xff".to_vec();
    first.resize(5 + 1024, 0);
    let mut next = b"\x16\x03\x01\x04\x00".to_vec();
    next.resize(5 + 1024, 0);
    let mut fed = pair.feed(&first);
    for _ in 0..200 {
        fed = fed.and_then(|()| pair.feed(&next));
    }
    fed.unwrap_err();
    assert!(pair.server.kept_bytes() < 1 << 10, "{}", pair.server.kept_bytes());
    // Truthful, in records of one octet: 60 KiB would be 360 KiB.
    let mut pair = case.pair("a.test");
    let mut fed = pair.feed(b"\x16\x03\x01\x00\x04\x01\x00\xf0\x00");
    for _ in 0..60_000 {
        fed = fed.and_then(|()| pair.feed(b"\x16\x03\x01\x00\x01\x00"));
        assert!(pair.server.kept_bytes() < 300 << 10);
    }
    fed.unwrap_err();
}

/// F9, F10, E12: close_notify is the end, whatever follows; a FIN alone is none.
#[test]
fn f10_the_end_is_a_close_notify() {
    for versions in [[&TLS13], [&TLS12]] {
        let case = Case::with(&versions);
        let mut pair = case.pair("a.test");
        pair.shake_hands().unwrap();
        let octets = pair.say(b"DATA\r\n");
        pair.feed(&octets).unwrap();
        assert!(!pair.server.is_closed_by_peer());
        pair.client.send_close_notify();
        let mut octets = pair.octets();
        octets.extend(b"QUIT\r\n");
        pair.feed(&octets).unwrap();
        pair.feed(b"NOOP\r\n").unwrap();
        assert!(pair.server.is_closed_by_peer());
        assert_eq!(pair.heard, b"DATA\r\n");
        // What is owed still goes out, and our own end.
        let mut out = Vec::new();
        pair.server.encrypt(b"250 ok\r\n", &mut out).unwrap();
        pair.server.close_notify(&mut out).unwrap();
        pair.answer(&out).unwrap();
        assert_eq!(pair.read(), b"250 ok\r\n");
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
    }
    // In the clear, in the middle of a handshake.
    let case = Case::new();
    let mut pair = case.pair("a.test");
    let octets = pair.octets();
    pair.feed(&octets).unwrap();
    pair.feed(b"\x15\x03\x03\x00\x02\x01\x00").unwrap_err();
    assert!(!pair.server.is_closed_by_peer());
}

/// F11: a changed octet ends the connection; key updates go on.
#[test]
fn f11_bad_records_and_key_updates() {
    let case = Case::with(&[&TLS13]);
    let mut pair = case.pair("a.test");
    pair.shake_hands().unwrap();
    for round in 0..5_u8 {
        pair.client.refresh_traffic_keys().unwrap();
        let octets = pair.say(&[round]);
        pair.feed(&octets).unwrap();
        let mut out = Vec::new();
        pair.server.encrypt(&[round], &mut out).unwrap();
        pair.answer(&out).unwrap();
        assert_eq!(pair.read(), [round]);
    }
    assert_eq!(pair.heard, [0, 1, 2, 3, 4]);
    let mut octets = pair.say(b"forged");
    *octets.last_mut().unwrap() ^= 1;
    pair.feed(&octets).unwrap_err();
    assert_eq!(pair.heard, [0, 1, 2, 3, 4]);
    assert!(pair.server.pending_bytes() > 0, "an alert");
    // Empty records without end.
    let mut pair = case.pair("a.test");
    pair.shake_hands().unwrap();
    let mut fed = Ok(());
    for _ in 0..100 {
        pair.client.refresh_traffic_keys().unwrap();
        let octets = pair.octets();
        fed = fed.and_then(|()| pair.feed(&octets));
    }
    fed.unwrap_err();
}

#[test]
fn files_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let (good, _) = issue(dir.path(), "good", &["a.test"], VALID);
    let (other, _) = issue(dir.path(), "other", &["a.test"], VALID);
    let (expired, _) = issue(dir.path(), "expired", &["a.test"], (2020, 2021));
    let (early, _) = issue(dir.path(), "early", &["a.test"], (2080, 2090));
    let missing = dir.path().join("missing");
    let text = dir.path().join("text");
    std::fs::write(&text, "no PEM").unwrap();
    let broken = dir.path().join("broken");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let with_cert = |cert_file: &Path| Files { cert_file: cert_file.into(), ..good.clone() };
    let with_key = |key_file: &Path| Files { key_file: key_file.into(), ..good.clone() };
    for (files, in_key, wanted) in [
        (with_cert(&missing), false, "missing: No such file"),
        (with_key(&missing), true, "missing: No such file"),
        (with_cert(&text), false, "text: no certificate in it"),
        (with_key(&text), true, "text: no private key in it"),
        (with_key(&good.cert_file), true, "good.pem: no private key in it"),
        (with_cert(&good.key_file), false, "good.key: no certificate in it"),
        (with_cert(&broken), false, "broken: not a certificate"),
        (with_key(&other.key_file), true, "other.key: does not match the certificate in "),
        (expired, false, "expired.pem: expired "),
        (early, false, "early.pem: not valid before "),
    ] {
        let error = Certificate::load(&files).unwrap_err();
        assert_eq!(matches!(error, LoadError::Key(_)), in_key, "{error}");
        assert!(error.to_string().contains(wanted), "{wanted}: {error}");
        assert!(Config::new(&[files], &Demands::default()).is_err());
    }
}

/// PROTOCOL §6.9: what is served follows the files; a bad file changes nothing.
#[test]
fn certificates_are_replaced() {
    let mut case = Case::new();
    let (files, fresh) = issue(case.dir.path(), "new", &["a.test"], (2020, 2080));
    assert_eq!(case.config.reload(), []);
    let old = case.config.not_after();
    let put = |from: &Path, to: &str| std::fs::copy(from, case.dir.path().join(to)).unwrap();
    // Half of a replacement: the pair does not fit.
    put(&files.cert_file, "a.pem");
    let [Err(LoadError::Key(error))] = &case.config.reload()[..] else { panic!("a mismatch") };
    assert!(error.contains("a.key: does not match the certificate"), "{error}");
    assert_eq!(case.config.reload(), [], "told once");
    assert_eq!(case.config.not_after(), old);
    case.pair("a.test").shake_hands().unwrap();
    let mut standing = case.pair("a.test");
    standing.shake_hands().unwrap();
    put(&files.key_file, "a.key");
    assert!(matches!(&case.config.reload()[..], [Ok(files)] if files.cert_file.ends_with("a.pem")));
    assert!(case.config.not_after() < old);
    // Who trusts the old one alone is turned away, who trusts the new one is not.
    case.client.resumption = rustls::client::Resumption::disabled();
    assert!(case.pair("a.test").shake_hands().is_err());
    let octets = standing.say(b"still here");
    standing.feed(&octets).unwrap();
    assert_eq!(standing.heard, b"still here");
    let mut roots = RootCertStore::empty();
    roots.add(fresh.der().clone()).unwrap();
    case.client = trusting(&roots, Arc::new(aws_lc_rs::default_provider()), &[&TLS13]);
    case.pair("a.test").shake_hands().unwrap();
    std::fs::remove_file(case.dir.path().join("a.pem")).unwrap();
    assert!(matches!(&case.config.reload()[..], [Err(LoadError::Certificate(_))]));
    case.pair("a.test").shake_hands().unwrap();
}

/// Whatever a client puts first, it gets AES-128-GCM with SHA-256 where it has that; one that puts
/// ChaCha20-Poly1305 first has no instructions for AES.
#[test]
fn the_suite_is_the_cheapest_that_the_client_has() {
    use aws_lc_rs::cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let of13 = [TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256];
    let of12 = [
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    for (version, [aes_256, aes_128, chacha]) in [(&TLS13, of13), (&TLS12, of12)] {
        let mut case = Case::with(&[version]);
        for (offered, agreed) in [
            (vec![aes_256, chacha, aes_128], aes_128),
            (vec![aes_256, chacha], aes_256),
            (vec![chacha, aes_128, aes_256], chacha),
            (vec![aes_256], aes_256),
            (vec![chacha], chacha),
        ] {
            let provider =
                CryptoProvider { cipher_suites: offered.clone(), ..aws_lc_rs::default_provider() };
            case.client = trusting(&case.roots, Arc::new(provider), &[version]);
            // The second resumes.
            for resumed in [false, true] {
                let mut pair = case.pair("a.test");
                pair.shake_hands().unwrap();
                let octets = pair.say(b"x");
                pair.feed(&octets).unwrap();
                let suite = pair.client.negotiated_cipher_suite().unwrap();
                assert_eq!(suite.suite(), agreed.suite(), "{offered:?}");
                assert_eq!(pair.server.facts().unwrap().resumed, resumed, "{offered:?}");
            }
        }
    }
}

/// RFC 9266: what the client exports is what the server binds to.
#[test]
fn the_channel_binding_is_the_clients() {
    for suite in aws_lc_rs::ALL_CIPHER_SUITES {
        let version = suite.version();
        let mut case = Case::with(&[version]);
        let provider =
            CryptoProvider { cipher_suites: vec![*suite], ..aws_lc_rs::default_provider() };
        if !suite.suite().as_str().unwrap().contains("ECDSA") && version == &TLS12 {
            continue;
        }
        case.client = trusting(&case.roots, Arc::new(provider), &[version]);
        // The second resumes.
        for _ in 0..2 {
            let mut pair = case.pair("a.test");
            assert_eq!(pair.server.channel_binding(), None);
            pair.shake_hands().unwrap();
            let octets = pair.say(b"x");
            pair.feed(&octets).unwrap();
            let exported = pair
                .client
                .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
                .unwrap();
            let expected = (version == &TLS13).then_some(exported);
            assert_eq!(pair.server.channel_binding(), expected, "{suite:?}");
            assert_eq!(pair.server.client_subject(), None);
        }
    }
}

/// An authority, and a client's certificate signed by it for a mailbox.
fn client_certificate(dir: &Path, name: &str) -> (PathBuf, rcgen::Certificate, rcgen::KeyPair) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority of {name}"));
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let file = dir.join(name).with_extension("pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let authority = rcgen::Issuer::new(params, key);
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let mailbox = format!("{name}@a.test").as_str().try_into().unwrap();
    params.subject_alt_names = vec![rcgen::SanType::Rfc822Name(mailbox)];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    (file, certificate, key)
}

/// F12: a certificate that is demanded is verified, at each connection.
#[test]
fn clients_are_who_their_certificate_says() {
    for versions in [[&TLS13], [&TLS12]] {
        let mut case = Case::with(&versions);
        let (authorities, certificate, key) = client_certificate(case.dir.path(), "u");
        let (_, strange, strange_key) = client_certificate(case.dir.path(), "v");
        let demands = Demands { client_authorities: Some(authorities), known_name: false };
        case.config = Config::new(&[case.files("a"), case.files("b")], &demands).unwrap();
        // Who shows none is turned away.
        let outcome = case.pair("a.test").shake_hands();
        assert!(outcome.unwrap_err().contains("no certificates"));
        let shows = |case: &mut Case, certificate: &rcgen::Certificate, key: &rcgen::KeyPair| {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            case.client = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&versions)
                .unwrap()
                .with_root_certificates(case.roots.clone())
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .unwrap();
        };
        shows(&mut case, &strange, &strange_key);
        let mut pair = case.pair("a.test");
        let error = pair.shake_hands().unwrap_err();
        assert!(error.contains("not issued by a trusted authority"), "{error}");
        assert_eq!(pair.server.client_subject(), None);
        shows(&mut case, &certificate, &key);
        for _ in 0..2 {
            let mut pair = case.pair("a.test");
            pair.shake_hands().unwrap();
            let octets = pair.say(b"x");
            pair.feed(&octets).unwrap();
            let facts = pair.server.facts().unwrap();
            assert!(!facts.resumed);
            assert_eq!((facts.client(), facts.client_subject()), (Some("CN=u"), Some("u@a.test")));
        }
    }
}

/// RFC 6066 §3: a name that no certificate has is an alert where that was asked for.
#[test]
fn f7_an_unknown_name_can_be_refused() {
    for files in [&["a"][..], &["a", "b"]] {
        let mut case = Case::new();
        let files: Vec<_> = files.iter().map(|name| case.files(name)).collect();
        let demands = Demands { known_name: true, ..Demands::default() };
        case.config = Config::new(&files, &demands).unwrap();
        case.pair("a.test").shake_hands().unwrap();
        let error = case.pair("c.test").shake_hands().unwrap_err();
        assert!(error.contains("no server certificate"), "{error}");
        let mut pair = case.pair("c.test");
        let hello = pair.octets();
        pair.feed(&hello).unwrap_err();
        let alert = pair.pending();
        let error = pair.answer(&alert).unwrap_err();
        assert!(error.to_string().contains("UnrecognisedName"), "{error}");
        // No name at all is no unknown one.
        let mut pair = case.pair("192.0.2.1");
        assert!(pair.shake_hands().unwrap_err().contains("not valid for name"));
    }
}

/// The first record of a client, with another content of server_name in its hello.
fn with_name(hello: &[u8], content: &[u8]) -> Vec<u8> {
    let name = [&[0, 0, 0, 11, 0, 9, 0, 0, 6][..], b"a.test"].concat();
    let at = hello.windows(name.len()).position(|octets| octets == name).expect("it asks for it");
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut hello = [&hello[..at], &[0, 0], &len, content, &hello[at + name.len()..]].concat();
    // The lengths of record, message and extensions, which stand before the name.
    let sessions = 43 + 1 + usize::from(hello[43]);
    let suites =
        sessions + 2 + usize::from(hello[sessions]) * 256 + usize::from(hello[sessions + 1]);
    let extensions = suites + 1 + usize::from(hello[suites]);
    for (place, before) in [(3, 5), (7, 9), (extensions, extensions + 2)] {
        let len = u16::try_from(hello.len() - before).unwrap();
        hello[place..place + 2].copy_from_slice(&len.to_be_bytes());
    }
    hello
}

/// A list of one name.
fn one_name(name: &[u8]) -> Vec<u8> {
    let len = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
    [&len(name.len() + 3)[..], &[0], &len(name.len()), name].concat()
}

/// F7: rustls ends the handshake for such names. tests/tls/sockets.rs has whole handshakes with them.
#[test]
fn f7_a_name_that_is_none_gets_the_default_certificate_or_unrecognized_name() {
    let mut malformed: Vec<Vec<u8>> = [
        &b"x\\"[..],
        b"[mx.example.org]",
        b"mx:25",
        "b\u{fc}ro.test".as_bytes(),
        b"a\0b.test",
        b"\xff\xfe",
        b"a..test",
        b"-",
        &[b'a'; 256],
        &[b'a'; 4_000],
    ]
    .map(one_name)
    .to_vec();
    // No name, an empty one, one of another type, two, cut ones.
    malformed.push(vec![0, 0]);
    malformed.push(one_name(b""));
    malformed.push(vec![0, 4, 9, 0, 1, b'x']);
    malformed.push(vec![0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b']);
    malformed.extend([vec![], vec![0], vec![0, 9, 0, 0, 6, b'a'], vec![0, 3, 0, 0, 9]]);
    for versions in [[&TLS13], [&TLS12]] {
        let mut case = Case::with(&versions);
        for known_name in [false, true] {
            let demands = Demands { known_name, ..Demands::default() };
            case.config = Config::new(&[case.files("a"), case.files("b")], &demands).unwrap();
            for content in &malformed {
                let mut pair = case.pair("a.test");
                let hello = with_name(&pair.octets(), content);
                let outcome = pair.feed(&hello);
                let answer = pair.pending();
                assert!(pair.server.has_malformed_name(), "{content:?}");
                match known_name {
                    // A handshake record with a ServerHello.
                    false => assert_eq!((answer[0], answer[5], outcome), (22, 2, Ok(()))),
                    true => {
                        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 112], "unrecognized_name");
                        assert!(outcome.unwrap_err().to_string().contains("is not a name"));
                    }
                }
            }
            // A good name, an address and no name are none of these.
            for content in [one_name(b"a.test"), one_name(b"A.Test"), one_name(b"192.0.2.1")] {
                let mut pair = case.pair("a.test");
                let hello = with_name(&pair.octets(), &content);
                pair.feed(&hello).unwrap();
                assert!(!pair.server.has_malformed_name(), "{content:?}");
            }
        }
    }
}

/// However a hello is cut or forged: an alert or a ServerHello, and no panic.
#[test]
fn f7_hellos_are_read_with_care() {
    let case = Case::new();
    let mut hello = with_name(&case.pair("a.test").octets(), &one_name(b"a:test"));
    for at in 0..hello.len() {
        let before = hello[at];
        for value in [0, 1, 0xff, before ^ 0x80, before.wrapping_add(1)] {
            hello[at] = value;
            let mut pair = case.pair("a.test");
            let _ = pair.feed(&hello);
        }
        hello[at] = before;
    }
}

#[test]
fn authorities_that_cannot_be_used() {
    let case = Case::new();
    let empty = case.dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    for (file, wanted) in [
        (case.dir.path().join("missing"), "missing: No such file"),
        (empty, "empty: no certificate in it"),
        (case.dir.path().join("a.key"), "a.key: no certificate in it"),
    ] {
        let demands = Demands { client_authorities: Some(file), known_name: false };
        let error = Config::new(&[case.files("a")], &demands).unwrap_err();
        assert!(matches!(error, LoadError::ClientAuthorities(_)), "{error}");
        assert!(error.to_string().contains(wanted), "{wanted}: {error}");
    }
}
