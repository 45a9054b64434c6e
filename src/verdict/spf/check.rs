//! `check_host()` (RFC 7208 §4).

use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc};

use ipnet::IpNet;

use super::{
    macros::{Template, Values},
    record::{Mechanism, Prefix, Qualifier, Record, is_spf},
};
use crate::questions::{NoAnswer, Questions};

/// Terms that ask DNS (RFC 7208 §4.6.4), of one check with all that it includes.
const TERMS_MAX: u32 = 10;
/// Questions without an answer: a third one is permerror.
const VOIDS_MAX: u32 = 2;
/// Exchangers of one `mx`, and names of a client that are looked at.
const NAMES_MAX: usize = 10;
/// Octets of an explanation that are kept.
const EXPLANATION_MAX: usize = 512;

/// RFC 7208 §2.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpfResult {
    None,
    Neutral,
    Pass,
    Fail,
    SoftFail,
    TempError,
    PermError,
}

impl From<Qualifier> for SpfResult {
    fn from(qualifier: Qualifier) -> Self {
        match qualifier {
            Qualifier::Pass => Self::Pass,
            Qualifier::Fail => Self::Fail,
            Qualifier::SoftFail => Self::SoftFail,
            Qualifier::Neutral => Self::Neutral,
        }
    }
}

/// A result, and what the domain says to those it refuses (RFC 7208 §6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) result: SpfResult,
    pub(crate) explanation: Option<String>,
}

/// Is this client allowed to use this domain? `sender` is the reverse-path, or `postmaster@` and the
/// name of HELO.
pub(crate) async fn check_host(
    questions: &Questions,
    ip: IpAddr,
    domain: &str,
    sender: &str,
    helo: &str,
    receiver: &str,
) -> Checked {
    let ip = ip.to_canonical();
    let sender = match sender.rsplit_once('@') {
        // RFC 7208 §4.3.
        Some(("", domain)) => format!("postmaster@{domain}"),
        Some(_) => sender.to_owned(),
        None => format!("postmaster@{sender}"),
    };
    let mut check = Check { questions, ip, sender: &sender, helo, receiver, terms: 0, voids: 0 };
    let end = check.domain(domain.to_owned(), true).await;
    let (result, explanation) = match end {
        Ok(end) => end,
        Err(trouble) => (trouble, None),
    };
    Checked { result, explanation }
}

/// RFC 7208 §4.3: it has labels, more than one, and none is too long.
fn is_domain(domain: &str) -> bool {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let label = |label: &str| (1..=63).contains(&label.len());
    domain.len() <= 253
        && domain.contains('.')
        && domain.split('.').all(label)
        && !domain.starts_with('[')
}

struct Check<'a> {
    questions: &'a Questions,
    ip: IpAddr,
    sender: &'a str,
    helo: &'a str,
    receiver: &'a str,
    terms: u32,
    voids: u32,
}

type End = Result<(SpfResult, Option<String>), SpfResult>;

impl<'a> Check<'a> {
    fn values<'v>(&'v self, name: &'v str) -> Values<'v> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Values {
            ip: self.ip,
            sender: self.sender,
            helo: self.helo,
            receiver: self.receiver,
            now: now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX)),
            name,
        }
    }

    /// Boxed, since `include` and `redirect` come back here: at most [`TERMS_MAX`] deep.
    fn domain<'s>(
        &'s mut self,
        domain: String,
        explain: bool,
    ) -> Pin<Box<dyn Future<Output = End> + Send + 's>> {
        Box::pin(async move {
            if !is_domain(&domain) {
                return Ok((SpfResult::None, None));
            }
            let Some(record) = self.record(&domain).await? else {
                return Ok((SpfResult::None, None));
            };
            for (qualifier, mechanism) in &record.mechanisms {
                if self.matches(mechanism, &domain).await? {
                    let result = SpfResult::from(*qualifier);
                    let explained = match (result, &record.exp) {
                        (SpfResult::Fail, Some(exp)) if explain => {
                            self.explanation(exp, &domain).await
                        }
                        _ => None,
                    };
                    return Ok((result, explained));
                }
            }
            let Some(redirect) = &record.redirect else { return Ok((SpfResult::Neutral, None)) };
            self.term()?;
            let target = self.target(Some(redirect), &domain).await?;
            match self.domain(target, explain).await? {
                // RFC 7208 §6.1.
                (SpfResult::None, _) => Err(SpfResult::PermError),
                end => Ok(end),
            }
        })
    }

    /// RFC 7208 §4.4, §4.5.
    async fn record(&self, domain: &str) -> Result<Option<Record>, SpfResult> {
        let texts = match self.questions.texts(domain).await {
            Ok(texts) => texts,
            Err(NoAnswer::NoName | NoAnswer::NoRecord) => return Ok(None),
            Err(NoAnswer::Failed | NoAnswer::Budget) => return Err(SpfResult::TempError),
        };
        let mut records = texts.iter().filter(|text| is_spf(text));
        let Some(first) = records.next() else { return Ok(None) };
        if records.next().is_some() {
            return Err(SpfResult::PermError);
        }
        Record::parse(first).map(Some).map_err(|_| SpfResult::PermError)
    }

    fn term(&mut self) -> Result<(), SpfResult> {
        self.terms += 1;
        if self.terms > TERMS_MAX { Err(SpfResult::PermError) } else { Ok(()) }
    }

    fn void(&mut self) -> Result<(), SpfResult> {
        self.voids += 1;
        if self.voids > VOIDS_MAX { Err(SpfResult::PermError) } else { Ok(()) }
    }

    /// The name a term is about.
    async fn target(
        &mut self,
        template: Option<&Template>,
        domain: &str,
    ) -> Result<String, SpfResult> {
        let Some(template) = template else { return Ok(domain.to_owned()) };
        let name = match template.needs_name() {
            true => self.validated_name(domain).await,
            false => String::new(),
        };
        Ok(template.name(&self.values(&name), domain))
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, SpfResult> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, len) => Ok(is_within(self.ip, IpAddr::V4(*network), *len)),
            Mechanism::Ip6(network, len) => Ok(is_within(self.ip, IpAddr::V6(*network), *len)),
            Mechanism::Include(template) => {
                self.term()?;
                let target = self.target(Some(template), domain).await?;
                match self.domain(target, false).await?.0 {
                    SpfResult::Pass => Ok(true),
                    SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral => Ok(false),
                    SpfResult::TempError => Err(SpfResult::TempError),
                    SpfResult::None | SpfResult::PermError => Err(SpfResult::PermError),
                }
            }
            Mechanism::A(template, prefix) => {
                self.term()?;
                let target = self.target(template.as_ref(), domain).await?;
                let addresses = self.addresses(&target).await?;
                Ok(addresses.iter().any(|address| self.is_near(*address, *prefix)))
            }
            Mechanism::Mx(template, prefix) => {
                self.term()?;
                let target = self.target(template.as_ref(), domain).await?;
                self.mx(&target, *prefix).await
            }
            Mechanism::Ptr(template) => {
                self.term()?;
                let target = self.target(template.as_ref(), domain).await?;
                Ok(self.ptr(&target).await)
            }
            Mechanism::Exists(template) => {
                self.term()?;
                let target = self.target(Some(template), domain).await?;
                // RFC 7208 §5.7: A, whatever the client uses.
                let answer = self.questions.addresses(&target, true).await;
                Ok(!self.counted(answer)?.is_empty())
            }
        }
    }

    async fn mx(&mut self, target: &str, prefix: Prefix) -> Result<bool, SpfResult> {
        let answer = self.questions.exchangers(target).await;
        let exchangers = match answer {
            Ok(exchangers) => exchangers,
            Err(NoAnswer::NoName | NoAnswer::NoRecord) => {
                self.void()?;
                return Ok(false);
            }
            Err(NoAnswer::Failed | NoAnswer::Budget) => return Err(SpfResult::TempError),
        };
        if exchangers.len() > NAMES_MAX {
            return Err(SpfResult::PermError);
        }
        for exchanger in exchangers.iter() {
            let addresses = self.addresses(exchanger).await?;
            if addresses.iter().any(|address| self.is_near(*address, prefix)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// RFC 7208 §5.5: trouble is no match.
    async fn ptr(&mut self, target: &str) -> bool {
        let names = self.validated_names().await;
        names.iter().any(|name| is_below(name, target))
    }

    /// Names of the client that lead back to it.
    async fn validated_names(&mut self) -> Vec<Box<str>> {
        let Ok(names) = self.questions.names(self.ip).await else { return Vec::new() };
        let mut validated = Vec::new();
        for name in names.iter().take(NAMES_MAX) {
            let addresses = self.questions.addresses(name, self.ip.is_ipv4()).await;
            if addresses.is_ok_and(|addresses| addresses.contains(&self.ip)) {
                validated.push(name.clone());
            }
        }
        validated
    }

    /// RFC 7208 §7.3: the domain itself before a name below it, before any other.
    async fn validated_name(&mut self, domain: &str) -> String {
        let names = self.validated_names().await;
        let same = names.iter().find(|name| name.eq_ignore_ascii_case(domain));
        let best = same.or_else(|| names.iter().find(|name| is_below(name, domain)));
        best.or(names.first()).map_or_else(|| "unknown".to_owned(), |name| name.to_string())
    }

    async fn addresses(&mut self, name: &str) -> Result<Arc<[IpAddr]>, SpfResult> {
        let answer = self.questions.addresses(name, self.ip.is_ipv4()).await;
        self.counted(answer)
    }

    fn counted(
        &mut self,
        answer: Result<Arc<[IpAddr]>, NoAnswer>,
    ) -> Result<Arc<[IpAddr]>, SpfResult> {
        match answer {
            Ok(addresses) => Ok(addresses),
            Err(NoAnswer::NoName | NoAnswer::NoRecord) => {
                self.void()?;
                Ok(Arc::new([]))
            }
            Err(NoAnswer::Failed | NoAnswer::Budget) => Err(SpfResult::TempError),
        }
    }

    fn is_near(&self, address: IpAddr, prefix: Prefix) -> bool {
        let len = if address.is_ipv4() { prefix.v4 } else { prefix.v6 };
        is_within(self.ip, address, len)
    }

    /// RFC 7208 §6.2: whatever is wrong with it, there is none.
    async fn explanation(&mut self, exp: &Template, domain: &str) -> Option<String> {
        let target = self.target(Some(exp), domain).await.ok()?;
        let texts = self.questions.texts(&target).await.ok()?;
        let [text] = &*texts else { return None };
        let text = str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
        let template = Template::parse_explanation(text).ok()?;
        let name = match template.needs_name() {
            true => self.validated_name(domain).await,
            false => String::new(),
        };
        let mut text = template.expand(&self.values(&name), domain);
        // What macros stand for is the client's, and goes into lines of others.
        text.retain(|c| c == ' ' || c.is_ascii_graphic());
        text.truncate(EXPLANATION_MAX);
        (!text.is_empty()).then_some(text)
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let Some(front) = name.len().checked_sub(domain.len()) else { return false };
    let (above, same) = name.as_bytes().split_at(front);
    same.eq_ignore_ascii_case(domain.as_bytes()) && (above.is_empty() || above.ends_with(b"."))
}

fn is_within(ip: IpAddr, network: IpAddr, len: u8) -> bool {
    IpNet::new(network, len).is_ok_and(|network| network.contains(&ip))
}
