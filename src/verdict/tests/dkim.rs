//! DKIM: samples of RFCs, data of dkimpy, signatures broken in each field, and the fences.

use std::net::{IpAddr, Ipv4Addr};

use mail_auth::{
    common::{
        crypto::{RsaKey, Sha256},
        headers::HeaderWriter,
    },
    dkim::{Canonicalization, DkimSigner},
};
use mailrace_log::{AuthWord, Check, Verdict};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, pem::PemObject};

use super::{Court, NONE, envelope, suite, zone::Zone};
use crate::{Methods, SIGNATURES_MAX};

pub(super) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const DKIM: Methods = Methods { dkim: true, ..NONE };
const BODY: &str = "Hello  there,\r\n\r\nthis is it.\r\n";

pub(super) fn zone() -> Zone {
    let mut zone = Zone::default();
    let record = format!("v=DKIM1; k=rsa; p={}", include_str!("keys/rsa2048.pub"));
    zone.txt("big._domainkey.signer.test", &record);
    zone
}

fn key(pem: &str) -> RsaKey<Sha256> {
    let der = PrivatePkcs1KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    RsaKey::from_key_der(PrivateKeyDer::Pkcs1(der)).unwrap()
}

fn header() -> String {
    "From: Ann <ann@signer.test>\r\nTo: bob@ours.test\r\nSubject: hello\r\n".to_owned()
}

/// A mail signed over From, To and Subject.
pub(super) fn signed(body: &str, relaxed: bool) -> String {
    let kind = if relaxed { Canonicalization::Relaxed } else { Canonicalization::Simple };
    let mail = format!("{}\r\n{body}", header());
    let signer = DkimSigner::from_key(key(include_str!("keys/rsa2048.pem")))
        .domain("signer.test")
        .selector("big")
        .headers(["From", "To", "Subject"])
        .header_canonicalization(kind)
        .body_canonicalization(kind);
    let signature = signer.sign(mail.as_bytes()).unwrap();
    format!("{}{mail}", signature.to_header())
}

fn judge(court: &Court, mail: &[u8]) -> Verdict {
    court.judge(&envelope(CLIENT, "mx.signer.test", "ann@signer.test"), mail, DKIM)
}

fn words(verdict: &Verdict) -> Vec<&'static str> {
    verdict.dkim.iter().map(|check| check.result.name()).collect()
}

fn only(mail: &str) -> Check {
    let verdict = judge(&Court::new(zone()), mail.as_bytes());
    let [check] = &verdict.dkim[..] else { panic!("{:?}", verdict.dkim) };
    check.clone()
}

#[test]
fn a_signature_is_what_it_says() {
    for relaxed in [true, false] {
        let check = only(&signed(BODY, relaxed));
        assert_eq!(check.result, AuthWord::Pass, "{check:?}");
        assert_eq!((&*check.domain, &*check.selector), ("signer.test", "big"));
        assert_eq!(check.algorithm, "rsa-sha256");
        assert_eq!(check.aligned, Some(true));
    }
}

/// Fence 5: words of RFC 8601, where the library says neutral for most.
#[test]
fn what_is_broken_has_its_word() {
    let good = signed(BODY, true);
    for (from, to, word, reason) in [
        ("this is it", "this is not", "fail", "the body was changed"),
        ("Subject: hello", "Subject: hallo", "fail", "the signature does not match the header"),
        ("Ann <ann@", "Ann <eve@", "fail", "the signature does not match the header"),
        ("s=big", "s=other", "permerror", "there is no key"),
        ("d=signer.test", "d=nowhere.test", "permerror", "there is no key"),
        ("a=rsa-sha256", "a=rsa-sha3", "neutral", "the algorithm is unknown"),
        ("v=1", "v=2", "neutral", "the version is unknown"),
        ("bh=", "x=", "neutral", "the signature is not readable"),
        ("h=Subject:To:From", "h=Subject:To:To", "permerror", "From is not signed"),
        ("v=1;", "v=1; i=@other.test;", "permerror", "i= is not within d="),
        ("v=1;", "v=1; x=2;", "fail", "the signature has expired"),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        let check = only(&good.replacen(from, to, 1));
        assert_eq!((check.result.name(), &*check.reason), (word, reason), "{from} -> {to}");
    }
}

/// Fence 1: an honest mail whose body ends in lines of blanks.
#[test]
fn lines_of_blanks_at_the_end_of_a_body_do_not_count() {
    let good = signed(BODY, true);
    for end in [" \r\n", "\t \r\n\r\n", "\r\n \r\n"] {
        let check = only(&format!("{good}{end}"));
        assert_eq!(check.result, AuthWord::Pass, "{end:?} {check:?}");
    }
    // The library alone says otherwise, which is why there is a fence.
    let mail = format!("{good} \r\n");
    let message = mail_auth::AuthenticatedMessage::parse(mail.as_bytes()).unwrap();
    let theirs = &message.body_hashes[0].3;
    assert_ne!(theirs, &message.dkim_headers[0].header.bh, "the fence can go");
}

/// Fence 2.
#[test]
fn ten_signatures_are_looked_at_and_the_rest_is_counted() {
    let good = signed(BODY, true);
    let junk = "DKIM-Signature: v=1; a=rsa-sha256; d=junk.test; s=x; h=from; bh=YWE=; b=YWE=\r\n";
    let court = Court::new(zone());
    let first = judge(&court, format!("{}{good}", junk.repeat(9)).as_bytes());
    assert_eq!((first.dkim.len(), first.dkim_ignored), (SIGNATURES_MAX, 0));
    assert_eq!(words(&first).last(), Some(&"pass"));
    let beyond = judge(&court, format!("{}{good}", junk.repeat(99)).as_bytes());
    assert_eq!((beyond.dkim.len(), beyond.dkim_ignored), (SIGNATURES_MAX, 90));
    assert!(words(&beyond).iter().all(|word| *word != "pass"), "{beyond:?}");
    // In the order of the header, whether they can be read or not.
    let mixed = format!("DKIM-Signature: nonsense\r\n{good}");
    assert_eq!(words(&judge(&court, mixed.as_bytes())), ["neutral", "pass"]);
}

/// DER of a public key with so many bits.
fn public_key(bits: usize) -> String {
    let der = |tag: u8, content: &[u8]| {
        let len = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, len[0], len[1]], content].concat()
    };
    let mut modulus = vec![0; bits / 8 + 1];
    modulus[1..].fill(0xc5);
    let numbers = [der(2, &modulus), vec![2, 3, 1, 0, 1]].concat();
    let key = [vec![0], der(0x30, &numbers)].concat();
    let rsa = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let info = der(0x30, &[&rsa[..], &der(3, &key)].concat());
    base64(&info)
}

fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in octets.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let digit = usize::try_from(number >> (18 - 6 * place) & 63).unwrap();
            text.push(if place <= group.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    text
}

/// Fence 4: RFC 8301.
#[test]
fn weak_algorithms_and_keys_are_not_accepted() {
    let sha1 = signed(BODY, true).replacen("a=rsa-sha256", "a=rsa-sha1", 1);
    let check = only(&sha1);
    assert_eq!((check.result, &*check.reason), (AuthWord::Policy, "rsa-sha1 is not accepted"));
    for bits in [512, 16_384] {
        let mut zone = zone();
        let record = format!("v=DKIM1; k=rsa; p={}", public_key(bits));
        zone.txt("odd._domainkey.signer.test", &record);
        let mail = signed(BODY, true).replacen("s=big", "s=odd", 1);
        let verdict = judge(&Court::new(zone), mail.as_bytes());
        let reason = format!("a key of {bits} bits");
        let check = &verdict.dkim[0];
        assert_eq!((check.result, &*check.reason), (AuthWord::Policy, &*reason));
    }
}

/// What is beyond `l=` may be anybody's.
#[test]
fn a_body_that_is_signed_in_part_is_not_a_pass() {
    let mail = format!("{}\r\n{BODY}", header());
    let signer = DkimSigner::from_key(key(include_str!("keys/rsa2048.pem")))
        .domain("signer.test")
        .selector("big")
        .headers(["From"])
        .body_canonicalization(Canonicalization::Simple)
        .body_length(true);
    let signature = signer.sign(mail.as_bytes()).unwrap().to_header();
    let good = format!("{signature}{mail}");
    assert!(good.contains("l="), "{good}");
    assert_eq!(only(&good).result, AuthWord::Pass);
    let longer = only(&format!("{good}Buy this.\r\n"));
    assert_eq!(longer.result, AuthWord::Policy, "{longer:?}");
    assert_eq!(longer.reason, "11 bytes of the body are not signed");
}

/// RFC 8463 §A, keys of 1,024 bits among them, and mails that other programs signed, out of dkimpy's data.
#[test]
fn signatures_of_others_verify() {
    let Some(data) = suite("dkimpy-1.1.8/dkim/tests/data") else { return };
    let text = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    let mut zone = Zone::default();
    let rfc8463 = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    zone.txt("brisbane._domainkey.football.example.com", rfc8463);
    let rsa = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";
    zone.txt("test._domainkey.football.example.com", rsa);
    zone.txt("sed._domainkey.test.ex", text("eximtest.dns").trim());
    let court = Court::new(zone);
    for (name, expected) in [
        ("rfc6376.signed.msg", &["pass", "pass"][..]),
        ("rfc6376.signed.rsa.msg", &["pass"]),
        ("ed25519test2.msg", &["pass"]),
    ] {
        let mail = text(name).replace("\r\n", "\n").replace('\n', "\r\n");
        let verdict = judge(&court, mail.as_bytes());
        assert_eq!(words(&verdict), expected, "{name}: {:?}", verdict.dkim);
        let broken = mail.replacen("From:", "From: Me and", 1);
        let verdict = judge(&court, broken.as_bytes());
        assert!(words(&verdict).iter().all(|word| *word == "fail"), "{name} {:?}", verdict.dkim);
    }
}
