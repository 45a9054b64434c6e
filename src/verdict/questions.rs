//! The questions that one mail may put to DNS.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use mailrace_dns::{Found, RecordType, Resolver, dns_name};

/// Questions that one mail may put to DNS: what SPF may at most ask (RFC 7208 §4.6.4), ten
/// signatures, two walks of eight names, and the client's name. Beyond, the answer is temperror.
pub const QUESTIONS_MAX: u32 = 40;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// See [`Found::NoRecord`].
    NoRecord,
    /// See [`Found::NoName`].
    NoName,
    /// DNS does not answer, or not sensibly.
    Failed,
    /// The mail has asked too much already.
    Budget,
}

/// The questions of one mail; what comes from the cache counts as well, so that a verdict does not
/// depend on it.
pub(crate) struct Questions {
    resolver: Resolver,
    asked: AtomicU32,
}

impl Questions {
    pub(crate) fn new(resolver: Resolver) -> Self {
        Self { resolver, asked: AtomicU32::new(0) }
    }

    /// How many there were.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed).min(QUESTIONS_MAX)
    }

    pub(crate) async fn texts(&self, name: &str) -> Result<Arc<[Box<[u8]>]>, NoAnswer> {
        match self.ask(name, RecordType::TXT).await? {
            Found::Texts(texts) => Ok(texts),
            _ => Err(NoAnswer::NoRecord),
        }
    }

    /// A for an IPv4 client, AAAA for one of IPv6.
    pub(crate) async fn addresses(&self, name: &str, v4: bool) -> Result<Arc<[IpAddr]>, NoAnswer> {
        let kind = if v4 { RecordType::A } else { RecordType::AAAA };
        match self.ask(name, kind).await? {
            Found::Addresses(addresses) => Ok(addresses),
            _ => Err(NoAnswer::NoRecord),
        }
    }

    /// Exchangers by preference.
    pub(crate) async fn exchangers(&self, name: &str) -> Result<Arc<[Box<str>]>, NoAnswer> {
        match self.ask(name, RecordType::MX).await? {
            Found::Names(names) => Ok(names),
            _ => Err(NoAnswer::NoRecord),
        }
    }

    /// Names of an address, none of them confirmed.
    pub(crate) async fn names(&self, address: IpAddr) -> Result<Arc<[Box<str>]>, NoAnswer> {
        self.count()?;
        match answer(self.resolver.names_of(address).await)? {
            Found::Names(names) => Ok(names),
            _ => Err(NoAnswer::NoRecord),
        }
    }

    /// A name that cannot be one has no records, and costs no question.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Found, NoAnswer> {
        if dns_name(name).is_none() {
            return Err(NoAnswer::NoName);
        }
        self.count()?;
        answer(self.resolver.ask(name, kind).await)
    }

    fn count(&self) -> Result<(), NoAnswer> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked < QUESTIONS_MAX { Ok(()) } else { Err(NoAnswer::Budget) }
    }
}

fn answer(found: Found) -> Result<Found, NoAnswer> {
    match found {
        Found::NoRecord => Err(NoAnswer::NoRecord),
        Found::NoName => Err(NoAnswer::NoName),
        Found::Failed => Err(NoAnswer::Failed),
        found => Ok(found),
    }
}
