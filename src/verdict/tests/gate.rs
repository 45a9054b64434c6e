//! The gate: each question is answered once, in time.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::Duration,
};

use mailrace_dns::{Dns, DnsOptions};
use mailrace_metrics::{DnsMetrics, VerdictMetrics};

use super::{
    NONE, dkim,
    zone::{Data, Responder},
};
use crate::{
    Decision, Gate, GateQuestion, GateRules, Judge, ListenerRules, Methods, OwnDomains,
    RejectCause, RejectRules,
};

/// Judges by SPF, DKIM and DMARC.
fn gate(dns: &Responder, deadline: Duration, tempfail: bool) -> (Gate, VerdictMetrics) {
    let counted = DnsMetrics::new();
    let options = DnsOptions { retries: 0, ..DnsOptions::new(vec![dns.address]) };
    let judge = Judge::new(Dns::start(&options, counted.clone()).unwrap()).unwrap();
    let rules = GateRules {
        listener: ListenerRules {
            methods: Methods { spf: true, dkim: true, dmarc: true, ..NONE },
            own: OwnDomains(Arc::new(|domain| domain == "ours.test")),
        },
        reject: RejectRules { causes: RejectCause::ALL.to_vec(), except: Vec::new() },
        deadline,
        tempfail,
    };
    let rules = HashMap::from([("mx".to_owned(), rules)]);
    let metrics = VerdictMetrics::new(&counted, &RejectCause::ALL.map(RejectCause::name));
    let gate = Gate::start(Arc::new(judge), "mx.ours.test".to_owned(), metrics.clone(), rules);
    (gate.unwrap(), metrics)
}

fn ask(gate: &Gate, listener: &str, mail_from: &str, octets: Vec<u8>) -> Decision {
    let (sender, receiver) = mpsc::channel();
    let question = GateQuestion {
        listener: listener.into(),
        client: dkim::CLIENT,
        helo: "mx.signer.test".to_owned(),
        mail_from: mail_from.to_owned(),
        octets,
    };
    gate.ask(question, Box::new(move |decision| sender.send(decision).unwrap()));
    receiver.recv_timeout(Duration::from_secs(60)).unwrap()
}

fn refused(decision: Decision) -> (RejectCause, &'static str) {
    match decision {
        Decision::Reject(rejected) => (rejected.cause, rejected.enhanced),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_signed_is_taken_and_what_is_forged_is_not() {
    let mut zone = dkim::zone();
    zone.txt("_dmarc.signer.test", "v=DMARC1; p=reject");
    let dns = Responder::start(zone);
    let (gate, metrics) = gate(&dns, Duration::from_secs(30), false);
    // Larger than a piece that is hashed at a time.
    let body = "0123456789abcdef\r\n".repeat(200_000);
    let signed = dkim::signed(&body, true);
    assert_eq!(ask(&gate, "mx", "ann@other.test", signed.clone().into_bytes()), Decision::Accept);
    // One octet of its end.
    let broken = format!("{}X\r\n", &signed[..signed.len() - 3]);
    let decision = ask(&gate, "mx", "ann@other.test", broken.into_bytes());
    assert_eq!(refused(decision), (RejectCause::Dmarc, "5.7.26"));
    let own = ask(&gate, "mx", "ann@other.test", b"From: boss@ours.test\r\n\r\nx\r\n".to_vec());
    assert_eq!(refused(own), (RejectCause::OwnDomain, "5.7.1"));
    assert_eq!(refused(ask(&gate, "mx", "", Vec::new())).0, RejectCause::From);
    // Of a listener without rules.
    assert_eq!(ask(&gate, "other", "", Vec::new()), Decision::Accept);
    let rejected = RejectCause::ALL.map(|cause| metrics.rejected(cause.name()));
    assert_eq!((rejected, metrics.unanswered()), ([1, 1, 0, 1], 0));
}

#[test]
fn a_deadline_ends_the_wait() {
    let mut zone = dkim::zone();
    zone.add("silent.test", Data::Silence);
    let dns = Responder::start(zone);
    for (tempfail, wanted) in [(false, Decision::Accept), (true, Decision::TryAgain)] {
        let (gate, metrics) = gate(&dns, Duration::from_millis(50), tempfail);
        let mail = b"From: ann@silent.test\r\n\r\nx\r\n".to_vec();
        assert_eq!(ask(&gate, "mx", "ann@silent.test", mail), wanted);
        assert_eq!(metrics.unanswered(), 1);
    }
}

/// DNS that fails is no reason to refuse, whatever happens to mail that comes too late.
#[test]
fn dns_that_fails_refuses_nothing() {
    let mut zone = dkim::zone();
    zone.add("x.test", Data::Failure).add("_dmarc.x.test", Data::Failure);
    let dns = Responder::start(zone);
    let (gate, _) = gate(&dns, Duration::from_secs(30), true);
    let mail = b"From: ann@x.test\r\n\r\nx\r\n".to_vec();
    assert_eq!(ask(&gate, "mx", "ann@x.test", mail), Decision::Accept);
}
