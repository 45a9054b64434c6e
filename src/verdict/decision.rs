//! Whether a mail is refused for its verdict: a function of the verdict and the rules of its listener.

use std::fmt;

use mailrace_log::{AuthWord, Verdict};

/// What mail is refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectCause {
    /// DMARC fails, and the owner of the domain wants such mail rejected (RFC 9989).
    Dmarc,
    /// A domain of ours in From, and nothing that proves it.
    OwnDomain,
    /// SPF fails, and DMARC does not pass (RFC 7208 §8.4).
    Spf,
    /// From is not one readable field of one domain, so that DMARC has no author to ask about.
    From,
}

impl RejectCause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Dmarc, Self::OwnDomain, Self::Spf, Self::From];

    /// As the configuration names it, and as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dmarc => "dmarc",
            Self::OwnDomain => "own_domain",
            Self::Spf => "spf",
            Self::From => "from",
        }
    }
}

/// `listener.verify` in mode `reject`: what of a listener's mail is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RejectRules {
    /// For what.
    pub causes: Vec<RejectCause>,
    /// Mail of these authors never is: `example.com` or `*.example.com`, in A-labels and lower case.
    pub except: Vec<String>,
}

impl RejectRules {
    fn excepts(&self, domain: &str) -> bool {
        self.except.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(above) => domain
                .strip_suffix(above)
                .is_some_and(|front| front.len() > 1 && front.ends_with('.')),
            None => pattern == domain,
        })
    }
}

/// A refusal, as the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// For what.
    pub cause: RejectCause,
    /// Enhanced status code (RFC 7372, RFC 3463).
    pub enhanced: &'static str,
    text: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a mail of this verdict is refused; the first cause in the order of the rules counts.
///
/// What could not be found out refuses nothing.
#[must_use]
pub fn decide(verdict: &Verdict, rules: &RejectRules) -> Option<Rejected> {
    let excepted = matches!(verdict.from.domains.as_slice(), [author] if rules.excepts(author));
    if excepted || !verdict.skipped.is_empty() {
        return None;
    }
    rules.causes.iter().find_map(|cause| match cause {
        RejectCause::Dmarc => dmarc(verdict),
        RejectCause::OwnDomain => own_domain(verdict),
        RejectCause::Spf => spf(verdict),
        RejectCause::From => from(verdict),
    })
}

fn dmarc(verdict: &Verdict) -> Option<Rejected> {
    let dmarc = verdict.dmarc.as_ref()?;
    let fails = dmarc.check.result == AuthWord::Fail && dmarc.disposition == "reject";
    // RFC 7372 §3.3: more than one check failed. Otherwise one passed, for another domain.
    let passed = checks(verdict).any(|word| word == AuthWord::Pass);
    fails.then(|| Rejected {
        cause: RejectCause::Dmarc,
        enhanced: if passed { "5.7.1" } else { "5.7.26" },
        text: format!("Message rejected per DMARC policy of {}", dmarc.check.domain),
    })
}

fn own_domain(verdict: &Verdict) -> Option<Rejected> {
    let unknown = checks(verdict).any(|word| word == AuthWord::Temperror);
    let forged = verdict.from.own_domain_forged && !unknown;
    forged.then(|| Rejected {
        cause: RejectCause::OwnDomain,
        enhanced: "5.7.1",
        text:
            "From has a domain of this server, and neither SPF nor DKIM proves it; log in to send"
                .to_owned(),
    })
}

fn spf(verdict: &Verdict) -> Option<Rejected> {
    let check = verdict.spf.first().filter(|check| check.result == AuthWord::Fail)?;
    let proven = verdict.dmarc.as_ref().is_some_and(|dmarc| dmarc.check.result == AuthWord::Pass);
    // RFC 7372 §3.2.
    (!proven).then(|| Rejected {
        cause: RejectCause::Spf,
        enhanced: "5.7.23",
        text: format!("SPF validation failed: {} does not allow this client", check.domain),
    })
}

fn from(verdict: &Verdict) -> Option<Rejected> {
    let facts = &verdict.from;
    let clear = facts.fields == 1 && !facts.unreadable && facts.domains.len() == 1;
    (!clear).then(|| Rejected {
        cause: RejectCause::From,
        enhanced: "5.7.1",
        text: "From must be one field that names one domain".to_owned(),
    })
}

/// The words of the checks that prove a domain.
fn checks(verdict: &Verdict) -> impl Iterator<Item = AuthWord> {
    verdict.spf.first().into_iter().chain(&verdict.dkim).map(|check| check.result)
}

#[cfg(test)]
mod tests {
    use mailrace_log::{Check, Dmarc, FromFacts};

    use super::*;

    fn check(result: AuthWord, domain: &str) -> Check {
        Check { result, domain: domain.to_owned(), ..Check::default() }
    }

    /// Everything fails that can: a mail of `x.test`, which wants it rejected.
    fn forged() -> Verdict {
        Verdict {
            spf: vec![check(AuthWord::Fail, "x.test")],
            dmarc: Some(Dmarc {
                check: check(AuthWord::Fail, "x.test"),
                policy: "reject".to_owned(),
                disposition: "reject".to_owned(),
                published: None,
            }),
            from: FromFacts {
                fields: 1,
                mailboxes: 1,
                domains: vec!["x.test".to_owned()],
                own_domain_forged: true,
                ..FromFacts::default()
            },
            ..Verdict::default()
        }
    }

    fn decided(verdict: &Verdict, causes: &[RejectCause]) -> Option<(RejectCause, &'static str)> {
        let rules = RejectRules { causes: causes.to_vec(), except: Vec::new() };
        decide(verdict, &rules).map(|rejected| (rejected.cause, rejected.enhanced))
    }

    #[test]
    fn each_cause_is_switched_on_by_itself() {
        let verdict = forged();
        assert_eq!(decided(&verdict, &[]), None);
        for (cause, enhanced) in [
            (RejectCause::Dmarc, "5.7.26"),
            (RejectCause::OwnDomain, "5.7.1"),
            (RejectCause::Spf, "5.7.23"),
        ] {
            assert_eq!(decided(&verdict, &[cause]), Some((cause, enhanced)));
        }
        assert_eq!(decided(&verdict, &[RejectCause::From]), None);
        assert_eq!(decided(&verdict, &RejectCause::ALL).unwrap().0, RejectCause::Dmarc);
    }

    #[test]
    fn what_is_not_known_refuses_nothing() {
        let mut verdict = forged();
        verdict.dmarc.as_mut().unwrap().check.result = AuthWord::Temperror;
        verdict.spf[0].result = AuthWord::Temperror;
        assert_eq!(decided(&verdict, &RejectCause::ALL), None);
        let skipped = Verdict { skipped: "too many".to_owned(), ..forged() };
        assert_eq!(decided(&skipped, &RejectCause::ALL), None);
    }

    #[test]
    fn the_owner_says_what_fails() {
        let mut verdict = forged();
        for disposition in ["none", "quarantine", ""] {
            verdict.dmarc.as_mut().unwrap().disposition = disposition.to_owned();
            assert_eq!(decided(&verdict, &[RejectCause::Dmarc]), None, "{disposition}");
        }
        let mut verdict = forged();
        verdict.dkim = vec![check(AuthWord::Pass, "other.test")];
        let unaligned = decided(&verdict, &[RejectCause::Dmarc]);
        assert_eq!(unaligned, Some((RejectCause::Dmarc, "5.7.1")), "something passed");
    }

    #[test]
    fn a_signature_of_the_author_outweighs_spf() {
        let mut verdict = forged();
        verdict.dmarc.as_mut().unwrap().check.result = AuthWord::Pass;
        assert_eq!(decided(&verdict, &[RejectCause::Spf, RejectCause::Dmarc]), None);
        verdict.dmarc = None;
        assert_eq!(decided(&verdict, &[RejectCause::Spf]).unwrap().0, RejectCause::Spf);
    }

    #[test]
    fn an_author_is_one() {
        let facts = |fields, unreadable, domains: &[&str]| Verdict {
            from: FromFacts {
                fields,
                unreadable,
                domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
                ..FromFacts::default()
            },
            ..Verdict::default()
        };
        let refused = |verdict| decided(&verdict, &[RejectCause::From]).is_some();
        assert!(refused(facts(0, false, &[])) && refused(facts(2, false, &["x.test"])));
        assert!(
            refused(facts(1, true, &["x.test"])) && refused(facts(1, false, &["x.test", "y.test"]))
        );
        assert!(!refused(facts(1, false, &["x.test"])));
    }

    #[test]
    fn authors_are_excepted() {
        let with = |except: &[&str]| {
            let except = except.iter().map(|&domain| domain.to_owned()).collect();
            decide(&forged(), &RejectRules { causes: RejectCause::ALL.to_vec(), except }).is_some()
        };
        assert!(!with(&["x.test"]) && !with(&["y.test", "*.test"]));
        assert!(with(&["y.test"]) && with(&["*.x.test"]) && with(&["*.est"]));
    }
}
