//! The chain of ARC (RFC 8617). It is recorded and decides nothing: ARC is being declared historic.

use mail_auth::{
    AuthenticatedMessage, DkimResult, Error, MessageAuthenticator, arc::ArcError,
    common::crypto::Algorithm,
};
use mailrace_log::{AuthWord, Check};

use crate::{
    dkim::{plain, word_of},
    known::Known,
    letter::NAMES_MAX,
    questions::Questions,
    tags,
};

/// RFC 8617 §4.2.1.
const SETS_MAX: usize = 50;

/// `None`: the mail has no chain.
pub(crate) async fn check(
    message: &AuthenticatedMessage<'_>,
    questions: &Questions,
    known: &mut Known,
    authenticator: &MessageAuthenticator,
) -> Option<Check> {
    let signatures = message.ams_headers.iter().map(|set| &set.header);
    let seals = message.as_headers.iter().map(|set| &set.header);
    let sets = signatures.len().max(seals.len()).max(message.aar_headers.len());
    if sets == 0 && !message.has_arc_errors {
        return None;
    }
    let last = signatures.clone().max_by_key(|signature| signature.i);
    let signer = last.map(|last| Check {
        domain: plain(&last.d),
        selector: plain(&last.s),
        algorithm: last.a.name().to_owned(),
        ..Check::default()
    });
    let signer = signer.unwrap_or_default();
    let fail = |reason: &str| Check {
        result: AuthWord::Fail,
        reason: reason.to_owned(),
        ..signer.clone()
    };
    if sets > SETS_MAX {
        return Some(fail("more than 50 sets"));
    }
    // mail-auth calls a chain without signatures no chain.
    if signatures.len() != seals.len() && !message.has_arc_errors {
        return Some(fail("a set is not complete"));
    }
    let readable = message.ams_headers.iter().map(|set| (set.value, tags::ARC_SIGNATURE));
    let mut readable =
        readable.chain(message.as_headers.iter().map(|set| (set.value, tags::ARC_SEAL)));
    if !readable.all(|(value, required)| tags::is_list_with(value, required)) {
        return Some(fail("a set is not readable"));
    }
    // RFC 8617 §4.1.2.
    let signs_seal = |name: &String| name.eq_ignore_ascii_case("arc-seal");
    if signatures.clone().any(|signature| signature.h.iter().any(signs_seal)) {
        return Some(fail("h= names ARC-Seal"));
    }
    if last.is_some_and(|last| last.h.len() > NAMES_MAX) {
        return Some(fail("more than 256 names in h="));
    }
    let sha1 = signatures.clone().any(|one| one.a == Algorithm::RsaSha1)
        || seals.clone().any(|one| one.a == Algorithm::RsaSha1);
    if sha1 {
        return Some(fail("rsa-sha1 is not accepted"));
    }
    let last = last.into_iter().map(|one| (&one.s, &one.d));
    for (selector, domain) in last.chain(seals.map(|seal| (&seal.s, &seal.d))) {
        known.learn_key(questions, selector, domain).await;
    }
    let output = authenticator.verify_arc(known.with(message)).await;
    let (result, reason) = word(output.result());
    Some(Check { result, reason: reason.to_owned(), ..signer })
}

/// RFC 8617 §5.2: a chain passes or fails; what could not be found out yet is neither.
fn word(result: &DkimResult) -> (AuthWord, &'static str) {
    let error = match result {
        DkimResult::Pass | DkimResult::None => return word_of(result),
        DkimResult::Neutral(error)
        | DkimResult::Fail(error)
        | DkimResult::PermError(error)
        | DkimResult::TempError(error) => error,
    };
    match error {
        Error::Arc(error) => (
            AuthWord::Fail,
            match error {
                ArcError::ChainTooLong => "more than 50 sets",
                ArcError::InvalidInstance(_) => "an instance is missing or there twice",
                ArcError::InvalidCV => "a seal says that the chain was broken",
                ArcError::HasHeaderTag => "a seal with h=",
                ArcError::BrokenChain => "a set is not complete",
                ArcError::FailedBodyHashMatch => "the body was changed",
                ArcError::SignatureExpired => "the signature has expired",
                ArcError::SignatureLength => "l= is not accepted",
            },
        ),
        _ => match word_of(result) {
            (AuthWord::Temperror, reason) => (AuthWord::Temperror, reason),
            (_, reason) => (AuthWord::Fail, reason),
        },
    }
}
