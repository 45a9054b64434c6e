//! DMARC over the whole judge: alignment, policies, and authors that are none.

use std::net::{IpAddr, Ipv4Addr};

use mailrace_log::{AuthWord, Verdict};

use super::{
    Court, dkim, envelope,
    zone::{Data, Zone},
};
use crate::{Envelope, Methods, QUESTIONS_MAX};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn zone() -> Zone {
    let mut zone = dkim::zone();
    zone.txt("_dmarc.signer.test", "v=DMARC1; p=reject; sp=quarantine; np=reject")
        .txt("bounces.signer.test", "v=spf1 ip4:192.0.2.1 -all")
        .txt("mx.signer.test", "v=spf1 a -all")
        .txt("other.test", "v=spf1 ip4:192.0.2.1 -all")
        .txt("_dmarc.strict.test", "v=DMARC1; p=quarantine; aspf=s; adkim=s")
        .txt("sub.strict.test", "v=spf1 ip4:192.0.2.1 -all")
        .txt("_dmarc.trial.test", "v=DMARC1; p=reject; t=y")
        .txt("_dmarc.twice.test", "v=DMARC1; p=reject")
        .txt("_dmarc.twice.test", "v=DMARC1; p=none")
        .add("news.signer.test", Data::A(Ipv4Addr::new(192, 0, 2, 7)))
        .host("mx.signer.test", CLIENT);
    zone
}

fn from(address: &str) -> String {
    format!("From: {address}\r\nSubject: x\r\n\r\nHello\r\n")
}

fn judge(court: &Court, mail_from: &str, mail: &str) -> Verdict {
    court.judge(&envelope(CLIENT, "mx.signer.test", mail_from), mail.as_bytes(), Methods::ALL)
}

/// Word, policy and disposition.
fn dmarc(verdict: &Verdict) -> (&'static str, &str, &str) {
    let dmarc = verdict.dmarc.as_ref().unwrap();
    (dmarc.check.result.name(), &dmarc.policy, &dmarc.disposition)
}

#[test]
fn what_passes_has_to_be_of_the_author() {
    let court = Court::new(zone());
    for (mail_from, author, expected) in [
        ("x@bounces.signer.test", "ann@signer.test", ("pass", "reject", "none")),
        ("x@other.test", "ann@signer.test", ("fail", "reject", "reject")),
        ("x@nowhere.test", "ann@signer.test", ("fail", "reject", "reject")),
        // HELO stands for the null reverse-path.
        ("", "ann@signer.test", ("pass", "reject", "none")),
        ("x@other.test", "ann@news.signer.test", ("fail", "quarantine", "quarantine")),
        ("x@other.test", "ann@gone.signer.test", ("fail", "reject", "reject")),
        ("x@sub.strict.test", "ann@strict.test", ("fail", "quarantine", "quarantine")),
        ("x@other.test", "ann@trial.test", ("fail", "quarantine", "quarantine")),
        ("x@other.test", "ann@twice.test", ("none", "", "")),
        ("x@other.test", "ann@other.test", ("none", "", "")),
    ] {
        let verdict = judge(&court, mail_from, &from(author));
        assert_eq!(dmarc(&verdict), expected, "{mail_from} {author}: {verdict:?}");
    }
    let verdict = judge(&court, "x@other.test", &dkim::signed("Hello\r\n", true));
    assert_eq!(dmarc(&verdict), ("pass", "reject", "none"));
    let aligned = |check: &mailrace_log::Check| (check.result.name(), check.aligned);
    assert_eq!(
        verdict.spf.iter().map(aligned).collect::<Vec<_>>(),
        [("pass", Some(false)), ("pass", Some(true))]
    );
    assert_eq!(aligned(&verdict.dkim[0]), ("pass", Some(true)));
    assert_eq!(verdict.iprev.unwrap().result, AuthWord::Pass);
    assert!(verdict.arc.is_none());
}

/// Fence 3: none of these is a mail whose domain has no policy.
#[test]
fn an_author_that_is_unclear_is_no_author() {
    let court = Court::new(zone());
    for (header, reason) in [
        ("From: a@signer.test\r\nFrom: b@other.test\r\n", "several From fields"),
        ("From: a@signer.test, b@other.test\r\n", "several domains in From"),
        ("From: \"a@signer.test\"\r\n", "the From field is not readable"),
        ("Subject: nothing else\r\n", "no From field"),
        ("", "no From field"),
    ] {
        let verdict = judge(&court, "x@bounces.signer.test", &format!("{header}\r\nHello\r\n"));
        let dmarc = verdict.dmarc.unwrap();
        assert_eq!((dmarc.check.result, &*dmarc.check.reason), (AuthWord::Permerror, reason));
    }
}

#[test]
fn our_own_domain_has_to_prove_itself() {
    let mut zone = zone();
    zone.txt("ours.test", "v=spf1 ip4:192.0.2.1 -all");
    let court = Court::new(zone);
    let forged = |client: &str, mail_from: &str, authenticated: bool| {
        let client = client.parse().unwrap();
        let envelope = Envelope { authenticated, ..envelope(client, "mx.signer.test", mail_from) };
        let mail = from("boss@ours.test");
        court.judge(&envelope, mail.as_bytes(), Methods::ALL).from.own_domain_forged
    };
    assert!(!forged("192.0.2.1", "boss@ours.test", false));
    assert!(forged("192.0.2.2", "boss@ours.test", false));
    assert!(forged("192.0.2.1", "x@other.test", false));
    assert!(!forged("192.0.2.2", "x@other.test", true));
}

/// Fence 6: what there is not is asked for once.
#[test]
fn answers_are_kept_and_so_is_that_there_is_none() {
    let court = Court::new(zone());
    let first = judge(&court, "x@other.test", &from("ann@news.signer.test"));
    let asked = court.dns.asked();
    assert!(asked.contains(&"_dmarc.news.signer.test TXT".to_owned()), "{asked:?}");
    let second = judge(&court, "x@other.test", &from("ann@news.signer.test"));
    assert_eq!(court.dns.asked(), asked, "nothing is asked again");
    assert_eq!(Verdict { judged_at: 0, ..first }, Verdict { judged_at: 0, ..second });
}

/// Fence 7.
#[test]
fn a_mail_asks_no_more_than_its_budget() {
    let mut zone = Zone::default();
    // Two checks of SPF with all that they may ask, and ten signers, each with a walk of its own.
    let terms: Vec<_> = (0..9).map(|n| format!("mx:m{n}.greedy.test")).collect();
    zone.txt("greedy.test", &format!("v=spf1 {} -all", terms.join(" ")));
    for n in 0..9 {
        for exchanger in 0..9 {
            let name = format!("h{exchanger}.m{n}.greedy.test");
            zone.add(&format!("m{n}.greedy.test"), Data::Mx(1, name.clone()));
            zone.add(&name, Data::A(Ipv4Addr::new(198, 51, 100, 7)));
        }
    }
    let signature = |n: u32| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=s{n}.greedy.test; s=x; h=from; bh=YWE=; b=YWE=\r\n"
        )
    };
    let signatures: String = (0..10).map(signature).collect();
    let mail = format!("{signatures}{}", from("ann@a.b.c.d.e.f.greedy.test"));
    let court = Court::new(zone);
    let envelope = envelope(CLIENT, "greedy.test", "x@greedy.test");
    let verdict = court.judge(&envelope, mail.as_bytes(), Methods::ALL);
    assert_eq!(verdict.questions, QUESTIONS_MAX);
    assert!(court.dns.asked().len() <= usize::try_from(QUESTIONS_MAX).unwrap());
    assert_eq!(verdict.spf[0].result, AuthWord::Temperror, "{verdict:?}");
    assert!(verdict.dkim.iter().all(|check| check.result != AuthWord::Pass));
    assert_eq!(dmarc(&verdict).0, "temperror");
}
