//! DKIM (RFC 6376, 8301, 8463), signature by signature.

use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, DnsError, Error, MessageAuthenticator,
    common::{
        crypto::{Algorithm, CryptoError},
        headers::Header,
    },
    dkim::{Canonicalization, DkimError, Signature},
};
use mailrace_log::{AuthWord, Check};

use crate::{
    body::Wanted,
    known::Known,
    letter::{Letter, NAMES_MAX, SIGNATURES_MAX},
    questions::Questions,
    tags,
};

/// RFC 8301 §3.2.
const KEY_BITS_MIN: usize = 1024;
/// RFC 8301 §3.2 wants 4,096; what is above twice that costs more than a mail is worth.
const KEY_BITS_MAX: usize = 8192;

/// What came of the signatures.
#[derive(Default)]
pub(crate) struct Dkim {
    /// From the top.
    pub(crate) checks: Vec<Check>,
    /// Fence 2: how many more there are.
    pub(crate) ignored: u32,
    /// Which of them mail-auth is to verify, in this order.
    pending: Vec<usize>,
}

impl Dkim {
    /// Looks at the signatures before any is verified: what cannot be right, or is not accepted, gets
    /// its word here and leaves the message.
    pub(crate) async fn prepare(
        message: &mut AuthenticatedMessage<'_>,
        questions: &Questions,
        known: &mut Known,
    ) -> Self {
        let (signatures, ignored) = take_signatures(message);
        let mut dkim = Self { ignored, ..Self::default() };
        for signature in signatures {
            let mut header = match signature {
                Ok(header) => header,
                Err(error) => {
                    dkim.checks.push(check_of(&error, None));
                    continue;
                }
            };
            if !tags::is_list_with(header.value, tags::DKIM) {
                dkim.checks.push(check_of(&Error::MissingParameters, None));
                continue;
            }
            if let Some(check) = refuse(&header.header) {
                dkim.checks.push(check);
                continue;
            }
            let (selector, domain) = (header.header.s.clone(), header.header.d.clone());
            known.learn_key(questions, &selector, &domain).await;
            if let Some(check) = refuse_key(&header.header, known) {
                dkim.checks.push(check);
                continue;
            }
            // RFC 6541 and RFC 6651 ask for more than is wanted here.
            header.header.atps = None;
            header.header.r = false;
            dkim.pending.push(dkim.checks.len());
            dkim.checks.push(check(&header.header, AuthWord::None, ""));
            message.dkim_headers.push(header);
        }
        dkim
    }

    /// Verifies what is left. The answer is what DMARC may count: signatures that pass here as well,
    /// and those whose key could not be had.
    pub(crate) async fn verify<'m>(
        &mut self,
        message: &'m AuthenticatedMessage<'m>,
        letter: &Letter,
        known: &'m Known,
        authenticator: &MessageAuthenticator,
    ) -> Vec<DkimOutput<'m>> {
        let outputs = authenticator.verify_dkim(known.with(message)).await;
        let mut counted = Vec::new();
        for (&at, output) in self.pending.iter().zip(outputs) {
            let Some(check) = self.checks.get_mut(at) else { continue };
            let (word, reason) = word_of(output.result());
            (check.result, check.reason) = (word, reason.to_owned());
            if let (AuthWord::Pass, Some(signature)) = (word, output.signature()) {
                limit(check, signature, letter);
            }
            if matches!(check.result, AuthWord::Pass | AuthWord::Temperror) {
                counted.push(output);
            }
        }
        counted
    }
}

/// The first [`SIGNATURES_MAX`] in the order of the header, out of the message: each one, or why it is
/// none.
#[allow(clippy::type_complexity, reason = "a list and a count")]
fn take_signatures<'x>(
    message: &mut AuthenticatedMessage<'x>,
) -> (Vec<Result<Header<'x, Signature>, Error>>, u32) {
    let good = std::mem::take(&mut message.dkim_headers).into_iter();
    let good = good.map(|header| (header.value.as_ptr() as usize, Ok(header)));
    let (bad, errors) =
        std::mem::take(&mut message.errors).into_iter().partition::<Vec<_>, _>(|error| {
            error.name.trim_ascii().eq_ignore_ascii_case(b"dkim-signature")
        });
    message.errors = errors;
    let bad = bad.into_iter().map(|error| (error.value.as_ptr() as usize, Err(error.header)));
    let mut all: Vec<_> = good.chain(bad).collect();
    all.sort_by_key(|(at, _)| *at);
    let ignored = all.len().saturating_sub(SIGNATURES_MAX);
    let all = all.into_iter().take(SIGNATURES_MAX).map(|(_, signature)| signature).collect();
    (all, u32::try_from(ignored).unwrap_or(u32::MAX))
}

/// What is wrong with a signature, whatever its key.
fn refuse(signature: &Signature) -> Option<Check> {
    let signs_from = signature.h.iter().any(|name| name.eq_ignore_ascii_case("from"));
    let (word, reason) = match signature.a {
        // Fence 4: RFC 8301 §3.1.
        Algorithm::RsaSha1 => (AuthWord::Policy, "rsa-sha1 is not accepted"),
        // RFC 6376 §3.5: `v=` has to be there.
        _ if signature.v != 1 => (AuthWord::Neutral, "no v=1"),
        // RFC 6376 §5.4.
        _ if !signs_from => (AuthWord::Permerror, "From is not signed"),
        _ if signature.h.len() > NAMES_MAX => (AuthWord::Policy, "more than 256 names in h="),
        _ => return None,
    };
    Some(check(signature, word, reason))
}

/// Fence 4: RFC 8301 §3.2.
fn refuse_key(signature: &Signature, known: &Known) -> Option<Check> {
    let key = match known.key(&signature.s, &signature.d)? {
        Ok(key) => key,
        Err(Error::Crypto(_) | Error::Base64) => {
            return Some(check(signature, AuthWord::Permerror, "the key is not readable"));
        }
        // The library gives these their results.
        Err(_) => return None,
    };
    let reason = match (signature.a, key.p.public_key_bits()) {
        (Algorithm::Ed25519Sha256, _) => return None,
        (_, bits) if bits < KEY_BITS_MIN => format!("a key of {bits} bits"),
        // Keys of another type have no bits; that they do not fit is mail-auth's to say.
        (_, usize::MAX) => return None,
        (_, bits) if bits > KEY_BITS_MAX => format!("a key of {bits} bits"),
        _ => return None,
    };
    Some(check(signature, AuthWord::Policy, &reason))
}

/// `l=`: what follows the signed part of a body may be anybody's.
fn limit(check: &mut Check, signature: &Signature, letter: &Letter) {
    let relaxed = signature.cb == Canonicalization::Relaxed;
    let body = letter.hash(Wanted { relaxed, limit: signature.l });
    let Some(body) = body.filter(|_| signature.l > 0) else { return };
    let (word, reason) = match body.bytes.checked_sub(signature.l) {
        Some(0) => return,
        Some(more) => (AuthWord::Policy, format!("{more} bytes of the body are not signed")),
        None => (AuthWord::Fail, "the body is shorter than was signed".to_owned()),
    };
    (check.result, check.reason) = (word, reason);
}

fn check(signature: &Signature, result: AuthWord, reason: &str) -> Check {
    Check {
        result,
        reason: reason.to_owned(),
        domain: plain(&signature.d),
        selector: plain(&signature.s),
        algorithm: signature.a.name().to_owned(),
        identity: plain(&signature.i),
        aligned: None,
    }
}

fn check_of(error: &Error, signature: Option<&Signature>) -> Check {
    let (result, reason) = word_of_error(error);
    match signature {
        Some(signature) => check(signature, result, reason),
        None => Check { result, reason: reason.to_owned(), ..Check::default() },
    }
}

/// What a signer wrote, fit for a line of text.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !c.is_whitespace()).take(253).collect()
}

/// Fence 5: mail-auth's results as words of RFC 8601 §2.7.1. What it calls neutral is often a failure.
pub(crate) fn word_of(result: &DkimResult) -> (AuthWord, &'static str) {
    match result {
        DkimResult::Pass => (AuthWord::Pass, ""),
        DkimResult::None => (AuthWord::None, ""),
        DkimResult::Neutral(error)
        | DkimResult::Fail(error)
        | DkimResult::PermError(error)
        | DkimResult::TempError(error) => word_of_error(error),
    }
}

fn word_of_error(error: &Error) -> (AuthWord, &'static str) {
    match error {
        Error::Dkim(error) => match error {
            DkimError::FailedBodyHashMatch => (AuthWord::Fail, "the body was changed"),
            DkimError::SignatureExpired => (AuthWord::Fail, "the signature has expired"),
            DkimError::FailedAuidMatch => (AuthWord::Permerror, "i= is not within d="),
            DkimError::RevokedPublicKey => (AuthWord::Permerror, "the key was revoked"),
            DkimError::UnsupportedKeyType => {
                (AuthWord::Permerror, "the type of the key is unknown")
            }
            DkimError::SignatureLength => (AuthWord::Policy, "l= is not accepted"),
            DkimError::UnsupportedVersion => (AuthWord::Neutral, "the version is unknown"),
            DkimError::UnsupportedAlgorithm => (AuthWord::Neutral, "the algorithm is unknown"),
            DkimError::UnsupportedCanonicalization => {
                (AuthWord::Neutral, "the canonicalization is unknown")
            }
        },
        // Of an Ed25519 signature, mail-auth says that its library failed.
        Error::Crypto(CryptoError::FailedVerification | CryptoError::Library(_)) => {
            (AuthWord::Fail, "the signature does not match the header")
        }
        Error::Crypto(CryptoError::IncompatibleAlgorithms) => {
            (AuthWord::Permerror, "the key is of another type")
        }
        Error::Io(_) => (AuthWord::Permerror, "the key is not readable"),
        Error::Dns(DnsError::Resolver(_)) => (AuthWord::Temperror, "DNS did not answer"),
        Error::Dns(DnsError::RecordNotFound(_)) => (AuthWord::Permerror, "there is no key"),
        Error::Dns(DnsError::InvalidRecordType) => {
            (AuthWord::Permerror, "the record of the key is none")
        }
        Error::ParseError | Error::MissingParameters | Error::NoHeadersFound | Error::Base64 => {
            (AuthWord::Neutral, "the signature is not readable")
        }
        Error::NotAligned | Error::Arc(_) | Error::Dkim2(_) => (AuthWord::Permerror, "not valid"),
    }
}
