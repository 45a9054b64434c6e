//! DMARC (RFC 9989): does what was checked belong to the author's domain, and what does its owner want?

use mail_auth::{
    AuthenticatedMessage, DkimOutput, DmarcResult, MessageAuthenticator, SpfOutput, SpfResult,
    dmarc::{Alignment, Dmarc as Record, Policy, Psd, Report, verify::DmarcParameters},
};
use mailrace_log::{AuthWord, Check, Dmarc, Published};

use crate::{
    facts::{Author, a_label},
    known::{Known, walk},
    questions::{NoAnswer, Questions},
};

/// Of the identity that SPF speaks for.
pub(crate) struct Spf {
    pub(crate) domain: String,
    pub(crate) result: SpfResult,
}

/// Asks for the policies that are needed: those of the author, and those of what could be aligned.
pub(crate) async fn learn(
    author: &str,
    signers: &[String],
    spf: &Spf,
    questions: &Questions,
    known: &mut Known,
) {
    known.learn_walk(questions, author).await;
    let org = organization(known, author);
    let counts = matches!(spf.result, SpfResult::Pass | SpfResult::TempError);
    let sender = Some(&spf.domain).filter(|_| counts);
    for domain in signers.iter().chain(sender) {
        let Some(domain) = a_label(domain) else { continue };
        if domain != author && is_below(&domain, &org) {
            known.learn_walk(questions, &domain).await;
        }
    }
}

/// What DMARC says of one author.
pub(crate) async fn check(
    author: &Author,
    message: &AuthenticatedMessage<'_>,
    signatures: &[DkimOutput<'_>],
    spf: &Spf,
    questions: &Questions,
    known: &Known,
    authenticator: &MessageAuthenticator,
) -> Dmarc {
    let author = match author {
        Author::Domain(domain) => domain,
        // Fence 3: RFC 9989 §4.10.1 has no policy to apply, but the mail is not one without.
        Author::Unclear(why) => {
            let check = Check {
                result: AuthWord::Permerror,
                reason: (*why).to_owned(),
                ..Check::default()
            };
            return Dmarc { check, ..Dmarc::default() };
        }
    };
    let spf_output = SpfOutput::new(spf.domain.clone()).with_result(spf.result);
    let parameters = DmarcParameters {
        message,
        dkim_output: signatures,
        dkim2_output: None,
        rfc5321_mail_from_domain: &spf.domain,
        spf_output: &spf_output,
    };
    let output = authenticator.verify_dmarc(known.with(parameters)).await;
    let (result, reason) = word(&output.result());
    let check =
        Check { result, reason: reason.to_owned(), domain: author.clone(), ..Check::default() };
    let Some(record) = output.dmarc_record() else {
        return Dmarc { check, ..Dmarc::default() };
    };
    let mut policy = output.policy();
    // Of names that do not exist (`np`): mail-auth sees no addresses, so this is asked here.
    if known.policy(author).is_none()
        && record.p != Policy::Unspecified
        && record.np != record.sp
        && questions.addresses(author, true).await == Err(NoAnswer::NoName)
    {
        policy = match (record.np, record.t) {
            (Policy::Reject, true) => Policy::Quarantine,
            (Policy::Quarantine, true) => Policy::None,
            (np, _) => np,
        };
    }
    let policy = policy.to_string();
    let disposition = match result {
        AuthWord::Fail => policy.clone(),
        _ => "none".to_owned(),
    };
    let domain = match known.policy(author) {
        Some(_) => author.clone(),
        None => organization(known, author),
    };
    Dmarc { check, policy, disposition, published: Some(published(record, domain)) }
}

fn published(record: &Record, domain: String) -> Published {
    let policy = |policy: Policy| match policy {
        Policy::None => "none",
        Policy::Quarantine => "quarantine",
        Policy::Reject => "reject",
        Policy::Unspecified => "",
    };
    let alignment = |alignment: Alignment| match alignment {
        Alignment::Relaxed => "r",
        Alignment::Strict => "s",
    };
    let fo = match record.fo {
        Report::All => "0",
        Report::Any => "1",
        Report::Dkim => "d",
        Report::Spf => "s",
        Report::DkimSpf => "d:s",
    };
    Published {
        domain,
        p: policy(record.p).to_owned(),
        sp: policy(record.sp).to_owned(),
        np: policy(record.np).to_owned(),
        adkim: alignment(record.adkim).to_owned(),
        aspf: alignment(record.aspf).to_owned(),
        testing: record.t,
        fo: fo.to_owned(),
    }
}

fn word(result: &DmarcResult) -> (AuthWord, &'static str) {
    match result {
        DmarcResult::Pass => (AuthWord::Pass, ""),
        DmarcResult::Fail(_) => (AuthWord::Fail, "nothing that passed is of the author's domain"),
        DmarcResult::TempError(_) => (AuthWord::Temperror, "DNS did not answer"),
        DmarcResult::PermError(_) => (AuthWord::Permerror, "the policy is not readable"),
        DmarcResult::None => (AuthWord::None, ""),
    }
}

/// Whether a domain is the author's (RFC 9989 §4.10.2), as far as is known.
pub(crate) fn is_aligned(known: &Known, domain: &str, author: &str, of_spf: bool) -> bool {
    let Some(domain) = a_label(domain) else { return false };
    if domain == author {
        return true;
    }
    let org = organization(known, author);
    let record = known.policy(author).or_else(|| known.policy(&org));
    let mode = record.map(|record| if of_spf { record.aspf } else { record.adkim });
    mode != Some(Alignment::Strict)
        && is_below(&domain, &org)
        // Without any record, a name below belongs to the organization above.
        && (walk(&domain).all(|name| known.policy(name).is_none())
            || organization(known, &domain) == org)
}

/// RFC 9989 §4.10.2, from the records that are known.
fn organization(known: &Known, domain: &str) -> String {
    let mut shortest = domain;
    let mut below = domain;
    for name in walk(domain) {
        if let Some(record) = known.policy(name) {
            match record.psd {
                Psd::No => return name.to_owned(),
                Psd::Yes if name != domain => return below.to_owned(),
                _ => shortest = name,
            }
        }
        below = name;
    }
    shortest.to_owned()
}

fn is_below(domain: &str, org: &str) -> bool {
    domain.strip_suffix(org).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}
