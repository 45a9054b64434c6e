//! Bad input: mails that are made to cost, and DNS that lies, is silent or loops.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use mailrace_log::{AuthWord, Verdict};

use super::{
    Court, dkim, envelope,
    zone::{Data, Zone},
};
use crate::{FIELDS_MAX, HEADER_BYTES_MAX, Methods};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn judge(court: &Court, mail: &[u8]) -> Verdict {
    court.judge(&envelope(CLIENT, "mx.x.test", "a@x.test"), mail, Methods::ALL)
}

/// Every method has a word, and the mail costs no more than a bound, which is far above what it takes.
#[test]
fn a_mail_that_is_made_to_cost_gets_its_words() {
    let court = Court::new(dkim::zone());
    let signature = |names: usize| {
        let names = vec!["x"; names].join(":");
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=signer.test; s=big; h=from:{names}; bh=YWE=; b=YWE=\r\n"
        )
    };
    let good = dkim::signed("Hello\r\n", true);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a hundred signatures", [signature(1).repeat(100), good.clone()].concat().into()),
        ("a signature of many names", [signature(50_000), good.clone()].concat().into()),
        (
            "many fields and names",
            [signature(250).repeat(10), "x:\r\n".repeat(4000), good.clone()].concat().into(),
        ),
        (
            "a thousand Received fields",
            ["Received: from x by y\r\n".repeat(1000), good.clone()].concat().into(),
        ),
        ("a header of 1 MiB", ["X-Long: y\r\n".repeat(100_000), good.clone()].concat().into()),
        (
            "one field of 2 MiB",
            [format!("X: {}\r\n", "y".repeat(2 << 20)), good.clone()].concat().into(),
        ),
        (
            "octets beyond ASCII",
            [&b"From: \xff\xfe <\xff@\xff>\r\nDKIM-Signature: \xff=\xff\r\n\r\n"[..], b"x"]
                .concat(),
        ),
        ("no From", b"Subject: x\r\n\r\nx".to_vec()),
        ("no body", b"From: a@x.test\r\nDate: never\r\n".to_vec()),
        ("nothing", Vec::new()),
        ("an empty line", b"\r\n".to_vec()),
        ("a body alone", b"hello".to_vec()),
        ("a NUL", b"From: a\0@x.test\r\nDKIM-Signature: v=1\0\r\n\r\n\0".to_vec()),
    ];
    for (name, mail) in cases {
        let began = Instant::now();
        let verdict = judge(&court, &mail);
        assert!(began.elapsed() < Duration::from_secs(10), "{name} took {:?}", began.elapsed());
        assert!(verdict.dkim.len() <= 10, "{name}");
        assert!(verdict.dmarc.is_some() && verdict.iprev.is_some(), "{name}");
        for check in &verdict.dkim {
            assert!(!check.reason.contains(['\r', '\n']), "{name}: {check:?}");
        }
    }
    let many = format!("{}{good}", "x: y\r\n".repeat(FIELDS_MAX));
    let verdict = judge(&court, many.as_bytes());
    assert_eq!(
        (verdict.dkim[0].result, &*verdict.dkim[0].reason),
        (AuthWord::Policy, "the header is too large")
    );
    let large = format!("X: {}\r\n{good}", "y".repeat(HEADER_BYTES_MAX));
    let verdict = judge(&court, large.as_bytes());
    assert_eq!(verdict.dkim[0].reason, "the header is too large");
    let dmarc = verdict.dmarc.unwrap().check;
    assert_eq!(
        (dmarc.result, &*dmarc.reason),
        (AuthWord::Permerror, "the header is larger than 1 MiB")
    );
}

/// An answer that is not to be believed is no answer, and no answer is temperror.
#[test]
fn dns_that_lies_is_not_believed() {
    let lies = [
        Data::Silence,
        Data::Failure,
        Data::WrongId,
        Data::WrongPort,
        Data::Garbage,
        Data::Truncated,
    ];
    for lie in lies {
        let mut zone = Zone::default();
        for name in ["x.test", "mx.x.test", "_dmarc.x.test", "big._domainkey.signer.test"] {
            zone.add(name, lie.clone());
        }
        let court = Court::new(zone);
        let mail = dkim::signed("Hello\r\n", true).replacen("ann@signer.test", "ann@x.test", 1);
        let verdict = judge(&court, mail.as_bytes());
        assert_eq!(verdict.spf[0].result, AuthWord::Temperror, "{lie:?} {verdict:?}");
        assert_eq!(verdict.dkim[0].result, AuthWord::Temperror, "{lie:?} {verdict:?}");
        assert_eq!(verdict.dmarc.unwrap().check.result, AuthWord::Temperror, "{lie:?}");
    }
    let mut zone = Zone::default();
    zone.add("x.test", Data::WrongName);
    let verdict = judge(&Court::new(zone), b"From: a@x.test\r\n\r\n");
    assert_ne!(verdict.spf[0].result, AuthWord::Pass, "{verdict:?}");
}

#[test]
fn names_that_lead_in_circles_end() {
    let mut zone = Zone::default();
    zone.add("x.test", Data::Cname("y.test".to_owned()))
        .add("y.test", Data::Cname("x.test".to_owned()))
        .txt("mx.x.test", "v=spf1 include:mx.x.test -all");
    let verdict = judge(&Court::new(zone), b"From: a@x.test\r\n\r\n");
    assert_ne!(verdict.spf[0].result, AuthWord::Pass, "{verdict:?}");
    assert_eq!(verdict.spf[1].result, AuthWord::Permerror, "{verdict:?}");
}

/// Nobody answers at all: the words are temperror, and the mail is not held up for long.
#[test]
fn an_outage_is_temperror() {
    let court = Court::new(Zone::default());
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = mailrace_dns::DnsOptions {
        attempt: Duration::from_millis(50),
        retries: 0,
        ..mailrace_dns::DnsOptions::new(vec![server.local_addr().unwrap()])
    };
    let dns = mailrace_dns::Dns::start(&options, mailrace_metrics::DnsMetrics::new()).unwrap();
    let judge = crate::Judge::new(dns).unwrap();
    let letter = crate::Letter::of(dkim::signed("Hello\r\n", true).as_bytes());
    let envelope = envelope(CLIENT, "mx.x.test", "a@x.test");
    let work = judge.judge(&envelope, &letter, Methods::ALL, &|_| false);
    let verdict = court.runtime.block_on(work);
    let words: Vec<_> = verdict.words().map(|(method, word)| (method, word.name())).collect();
    assert_eq!(
        words,
        [
            ("spf", "temperror"),
            ("spf", "temperror"),
            ("dkim", "temperror"),
            ("dmarc", "temperror"),
            ("iprev", "temperror")
        ]
    );
}

/// A long record comes over TCP.
#[test]
fn a_record_that_does_not_fit_into_a_datagram_is_asked_for_again() {
    let mut zone = Zone::default();
    let many: Vec<_> = (0..200).map(|n| format!("ip4:198.51.100.{n}")).collect();
    zone.txt("x.test", &format!("v=spf1 {} ip4:192.0.2.1 -all", many.join(" ")));
    let verdict = judge(&Court::new(zone), b"From: a@x.test\r\n\r\n");
    assert_eq!(verdict.spf[0].result, AuthWord::Pass, "{verdict:?}");
}
