//! The judge over what strangers write: records of SPF and DMARC, keys, signatures, ARC sets, From fields.
//! Whatever they are, a verdict comes, within its bounds, and can be written and read.

use std::sync::Arc;

use mailrace::{
    dns::{Dns, Found, RecordType},
    log::Verdict,
    verdict::{Envelope, Judge, Letter, Methods, QUESTIONS_MAX, SIGNATURES_MAX},
};

/// Between the parts.
const BREAK: &[u8] = b"\n--\n";

/// Parts: the SPF record, the key, the DMARC record, and the mail. What is missing is empty, and an empty
/// record does not exist.
pub fn run(octets: &[u8]) {
    if octets.len() > 65_536 {
        return;
    }
    let mut rest = octets;
    let mut part = || {
        let end = rest.windows(BREAK.len()).position(|window| window == BREAK);
        let (part, behind) = match end {
            Some(end) => (&rest[..end], &rest[end + BREAK.len()..]),
            None => (rest, &b""[..]),
        };
        rest = behind;
        part
    };
    let [spf, key, dmarc] = [(); 3].map(|()| part().to_vec());
    let mail = rest.to_vec();
    let dns = Dns::given(move |name, kind| {
        let text = match name {
            _ if kind != RecordType::TXT => {
                return Found::Addresses(Arc::new([[192, 0, 2, 1].into()]));
            }
            _ if name.contains("_domainkey") => &key,
            _ if name.starts_with("_dmarc") => &dmarc,
            _ => &spf,
        };
        match text.is_empty() {
            true => Found::NoName,
            false => Found::Texts(Arc::new([text.clone().into()])),
        }
    });
    let judge = Judge::new(dns.expect("a thread")).expect("a judge");
    let envelope = Envelope {
        client: [192, 0, 2, 1].into(),
        helo: "mx.x.test",
        mail_from: "ann@x.test",
        receiver: "mx.ours.test",
        authenticated: false,
    };
    let own = |domain: &str| domain == "x.test";
    let letter = Letter::of(&mail);
    let verdict = judge.judge_alone(&envelope, &letter, Methods::ALL, &own).expect("a runtime");
    assert!(verdict.questions <= QUESTIONS_MAX);
    // One more says that the header is too large, or that it took too long.
    assert!(verdict.dkim.len() <= SIGNATURES_MAX + 1, "{}", verdict.dkim.len());
    assert!(verdict.spf.len() == 2 && verdict.dmarc.is_some() && verdict.iprev.is_some());
    assert!(verdict.from.domains.len() <= 10);
    let text = serde_json::to_string(&verdict).expect("it can be written");
    assert_eq!(serde_json::from_str::<Verdict>(&text).expect("and read"), verdict);
}
