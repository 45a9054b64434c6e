//! The judge: everything that is found out about one mail, in one order.

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use hickory_resolver::{TokioResolver, config::ResolverConfig, net::runtime::TokioRuntimeProvider};
use mail_auth::{AuthenticatedMessage, MessageAuthenticator};
use mailrace_dns::Dns;
use mailrace_log::{AuthWord, Check, Verdict};
use tokio::time::{Instant, timeout_at};

use crate::{
    arc,
    dkim::Dkim,
    dmarc::{self, Spf},
    facts::{self, Author, a_label},
    iprev,
    known::Known,
    letter::{FIELDS_MAX, Letter},
    questions::Questions,
    spf::{self, SpfResult},
};

/// A verdict takes no longer; what is not known then gets temperror.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What judges, as each verdict names it.
pub const ENGINE: &str = concat!("mailrace ", env!("CARGO_PKG_VERSION"), ", mail-auth 0.13.3");

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods {
    /// RFC 7208.
    pub spf: bool,
    /// RFC 6376.
    pub dkim: bool,
    /// RFC 9989; needs one of the two above to pass.
    pub dmarc: bool,
    /// RFC 8617.
    pub arc: bool,
    /// RFC 8601 §2.7.3.
    pub iprev: bool,
}

impl Methods {
    /// All of them.
    pub const ALL: Self = Self { spf: true, dkim: true, dmarc: true, arc: true, iprev: true };
}

/// What is known of a mail besides its octets.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// After PROXY and XCLIENT.
    pub client: IpAddr,
    /// Argument of HELO or EHLO.
    pub helo: &'a str,
    /// Reverse-path without brackets; empty: the null one.
    pub mail_from: &'a str,
    /// The name of this server.
    pub receiver: &'a str,
    /// The client has authenticated: it may use domains of ours.
    pub authenticated: bool,
}

/// Judges mails, any number at a time. Methods are called within a runtime of tokio with a clock.
pub struct Judge {
    dns: Dns,
    /// Has no server: whatever it may ask is in `known`.
    authenticator: MessageAuthenticator,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

impl Judge {
    /// With its DNS.
    ///
    /// # Errors
    /// The library's resolver, which is never used, was not made.
    pub fn new(dns: Dns) -> std::io::Result<Self> {
        let config = ResolverConfig::from_name_servers(Vec::new());
        let resolver =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build();
        let resolver = resolver.map_err(std::io::Error::other)?;
        Ok(Self { dns, authenticator: MessageAuthenticator(resolver) })
    }

    /// As [`Self::judge`], outside of a runtime: waits.
    ///
    /// # Errors
    /// There is no runtime to be had.
    pub fn judge_alone(
        &self,
        envelope: &Envelope<'_>,
        letter: &Letter,
        methods: Methods,
        is_own: &(dyn Fn(&str) -> bool + Sync),
    ) -> std::io::Result<Verdict> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(runtime.block_on(self.judge(envelope, letter, methods, is_own)))
    }

    /// Judges one mail; `is_own` knows the domains of this server, in A-labels and lower case.
    ///
    /// # Cancellation
    /// Queries under way continue for the next that asks.
    pub async fn judge(
        &self,
        envelope: &Envelope<'_>,
        letter: &Letter,
        methods: Methods,
        is_own: &(dyn Fn(&str) -> bool + Sync),
    ) -> Verdict {
        let mut case = Case {
            judge: self,
            questions: Questions::new(self.dns.resolver()),
            until: Instant::now() + DEADLINE,
            envelope,
            verdict: Verdict { engine: ENGINE.to_owned(), ..Verdict::default() },
        };
        let spf = case.spf(methods).await;
        case.content(letter, methods, &spf, is_own).await;
        if methods.iprev {
            let check = case.timed(iprev::check(&case.questions, envelope.client)).await;
            case.verdict.iprev = Some(check.unwrap_or_else(late));
        }
        case.verdict.questions = case.questions.asked();
        case.verdict.judged_at = now();
        case.verdict
    }
}

struct Case<'a> {
    judge: &'a Judge,
    questions: Questions,
    until: Instant,
    envelope: &'a Envelope<'a>,
    verdict: Verdict,
}

impl Case<'_> {
    async fn timed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.until, work).await.ok()
    }

    /// RFC 7208 §2.3, §2.4: HELO always, and MAIL FROM unless that is empty, when HELO stands for it.
    async fn spf(&mut self, methods: Methods) -> Spf {
        let Envelope { client, helo, mail_from, receiver, .. } = *self.envelope;
        let sender = match mail_from.rsplit_once('@') {
            Some((_, domain)) => domain,
            None => helo,
        };
        let mut for_dmarc = Spf { domain: sender.to_owned(), result: mail_auth::SpfResult::None };
        if !methods.spf {
            return for_dmarc;
        }
        let mut identities = vec![("helo", helo, format!("postmaster@{helo}"))];
        if !mail_from.is_empty() {
            identities.insert(0, ("mailfrom", sender, mail_from.to_owned()));
        }
        for (number, (identity, domain, sender)) in identities.into_iter().enumerate() {
            // A name that cannot be one is not looked up (RFC 7208 §4.3).
            let name = a_label(domain).unwrap_or_else(|| domain.to_owned());
            let work = spf::check_host(&self.questions, client, &name, &sender, helo, receiver);
            let checked = self.timed(work).await;
            let result = checked.as_ref().map_or(SpfResult::TempError, |checked| checked.result);
            if number == 0 {
                for_dmarc.result = for_library(result);
            }
            let reason = checked.and_then(|checked| checked.explanation).unwrap_or_default();
            self.verdict.spf.push(Check {
                result: spf_word(result),
                reason,
                domain: crate::dkim::plain(&name),
                identity: identity.to_owned(),
                ..Check::default()
            });
        }
        for_dmarc
    }

    /// What the mail itself says: DKIM, ARC, the author.
    async fn content(
        &mut self,
        letter: &Letter,
        methods: Methods,
        spf: &Spf,
        is_own: &(dyn Fn(&str) -> bool + Sync),
    ) {
        let (facts, mut author) = facts::read(letter.header());
        self.verdict.from = facts;
        if letter.is_too_large() {
            author = Author::Unclear("the header is larger than 1 MiB");
        }
        let mut message = letter.message().unwrap_or_default();
        if message.headers.len() > FIELDS_MAX || letter.is_too_large() {
            if methods.dkim {
                let reason = "the header is too large".to_owned();
                let check = Check { result: AuthWord::Policy, reason, ..Check::default() };
                self.verdict.dkim.push(check);
            }
            message = AuthenticatedMessage::default();
        }
        let authenticator = &self.judge.authenticator;
        let mut known = Known::default();
        if methods.arc {
            let work = arc::check(&message, &self.questions, &mut known, authenticator);
            let check = timeout_at(self.until, work).await;
            self.verdict.arc = check.unwrap_or_else(|_| Some(late()));
        }
        // One reader of headers decides who the author is.
        message.from = match &author {
            Author::Domain(domain) => vec![format!("author@{domain}")],
            Author::Unclear(_) => Vec::new(),
        };
        let mut dkim = Dkim::default();
        if methods.dkim {
            let work = Dkim::prepare(&mut message, &self.questions, &mut known);
            match timeout_at(self.until, work).await {
                Ok(prepared) => dkim = prepared,
                Err(_) => {
                    message.dkim_headers.clear();
                    dkim.checks.push(late());
                }
            }
        }
        if let (Author::Domain(author), true) = (&author, methods.dmarc) {
            let signers: Vec<_> =
                message.dkim_headers.iter().map(|signature| signature.header.d.clone()).collect();
            let work = dmarc::learn(author, &signers, spf, &self.questions, &mut known);
            let _ = timeout_at(self.until, work).await;
        }
        let counted = dkim.verify(&message, letter, &known, authenticator).await;
        if methods.dmarc {
            let work = dmarc::check(
                &author,
                &message,
                &counted,
                spf,
                &self.questions,
                &known,
                authenticator,
            );
            if let Ok(dmarc) = timeout_at(self.until, work).await {
                self.verdict.dmarc = Some(dmarc);
            }
        }
        self.verdict.dkim.append(&mut dkim.checks);
        self.verdict.dkim_ignored = dkim.ignored;
        self.align(&author, &known);
        self.own_domains(is_own);
    }

    fn align(&mut self, author: &Author, known: &Known) {
        let Author::Domain(author) = author else { return };
        for check in &mut self.verdict.spf {
            check.aligned = Some(dmarc::is_aligned(known, &check.domain, author, true));
        }
        for check in self.verdict.dkim.iter_mut().filter(|check| !check.domain.is_empty()) {
            check.aligned = Some(dmarc::is_aligned(known, &check.domain, author, false));
        }
    }

    /// A domain of ours in From, and nothing that says that it is.
    fn own_domains(&mut self, is_own: &(dyn Fn(&str) -> bool + Sync)) {
        let own = self.verdict.from.domains.iter().any(|domain| is_own(domain));
        let first = self.verdict.spf.first();
        let mut checks = first.into_iter().chain(&self.verdict.dkim);
        let proven =
            checks.any(|check| check.result == AuthWord::Pass && check.aligned == Some(true));
        self.verdict.from.own_domain_forged = own && !proven && !self.envelope.authenticated;
    }
}

/// For what was not found out in time.
fn late() -> Check {
    let reason = "DNS did not answer in time".to_owned();
    Check { result: AuthWord::Temperror, reason, ..Check::default() }
}

fn for_library(result: SpfResult) -> mail_auth::SpfResult {
    match result {
        SpfResult::None => mail_auth::SpfResult::None,
        SpfResult::Neutral => mail_auth::SpfResult::Neutral,
        SpfResult::Pass => mail_auth::SpfResult::Pass,
        SpfResult::Fail => mail_auth::SpfResult::Fail,
        SpfResult::SoftFail => mail_auth::SpfResult::SoftFail,
        SpfResult::TempError => mail_auth::SpfResult::TempError,
        SpfResult::PermError => mail_auth::SpfResult::PermError,
    }
}

fn spf_word(result: SpfResult) -> AuthWord {
    match result {
        SpfResult::None => AuthWord::None,
        SpfResult::Neutral => AuthWord::Neutral,
        SpfResult::Pass => AuthWord::Pass,
        SpfResult::Fail => AuthWord::Fail,
        SpfResult::SoftFail => AuthWord::Softfail,
        SpfResult::TempError => AuthWord::Temperror,
        SpfResult::PermError => AuthWord::Permerror,
    }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
