//! What mail-auth sees of DNS: answers that were asked for before, within the mail's budget.
//!
//! Fence 6: its lookups go to the network where a cache does not have the answer, and caches of its
//! kind cannot hold "there is none". Fence 7: it walks many names. So it gets every answer from here,
//! and its own resolver has no server.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use hickory_resolver::proto::op::ResponseCode;
use mail_auth::{
    DnsError, Error, MX, Parameters, RecordSet, ResolverCache, Txt,
    common::{parse::TxtRecordParser, verify::DomainKey},
    dmarc::Dmarc,
};

use crate::questions::{NoAnswer, Questions};

/// Texts of one mail, by name.
#[derive(Default)]
pub(crate) struct Known {
    texts: HashMap<Box<str>, Txt>,
}

/// mail-auth's set of parameters, with what is known.
pub(crate) type With<'x, P> = Parameters<'x, P, Known, Nothing, Nothing, Nothing, Nothing>;

impl Known {
    pub(crate) fn with<P>(&self, params: P) -> With<'_, P> {
        Parameters {
            params,
            cache_txt: Some(self),
            cache_mx: Some(&Nothing),
            cache_ptr: Some(&Nothing),
            cache_ipv4: Some(&Nothing),
            cache_ipv6: Some(&Nothing),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.texts.contains_key(name)
    }

    /// Asks for a key (RFC 6376 §3.6.2): the first of several records that is one.
    pub(crate) async fn learn_key(&mut self, questions: &Questions, selector: &str, domain: &str) {
        let name = key_name(selector, domain);
        if self.has(&name) {
            return;
        }
        let answer = questions.texts(&name).await;
        let key = answer.map_err(error_of).and_then(|texts| {
            let mut last = Err(Error::Dns(DnsError::InvalidRecordType));
            for text in texts.iter() {
                last = DomainKey::parse(text);
                if last.is_ok() {
                    break;
                }
            }
            last
        });
        self.texts.insert(name.into(), key.into());
    }

    /// Asks for the policies of a name and of all above it (RFC 9989 §4.10).
    pub(crate) async fn learn_walk(&mut self, questions: &Questions, domain: &str) {
        for name in walk(domain) {
            let key = dmarc_name(name);
            if self.has(&key) {
                continue;
            }
            let answer = questions.texts(&key).await;
            let policy = answer.map_err(error_of).and_then(|texts| {
                let mut policies = texts.iter().filter(|text| text.starts_with(b"v=DMARC1"));
                match (policies.next(), policies.next()) {
                    (Some(one), None) => Dmarc::parse(one),
                    // RFC 9989 §4.10: none, or several, which are as good as none.
                    _ => Err(Error::Dns(DnsError::InvalidRecordType)),
                }
            });
            let policy = match policy {
                // What is no record is none, as the walk has it.
                Err(Error::Dns(error)) => Err(Error::Dns(error)),
                Err(_) => Err(Error::Dns(DnsError::InvalidRecordType)),
                policy => policy,
            };
            self.texts.insert(key.into(), policy.into());
        }
    }

    pub(crate) fn key(
        &self,
        selector: &str,
        domain: &str,
    ) -> Option<Result<Arc<DomainKey>, Error>> {
        match self.texts.get(key_name(selector, domain).as_str())? {
            Txt::DomainKey(key) => Some(Ok(key.clone())),
            Txt::Error(error) => Some(Err(error.clone())),
            _ => None,
        }
    }

    pub(crate) fn policy(&self, domain: &str) -> Option<&Dmarc> {
        match self.texts.get(dmarc_name(domain).as_str())? {
            Txt::Dmarc(policy) => Some(policy),
            _ => None,
        }
    }
}

/// Names of a walk (RFC 9989 §4.10), the longest first: eight at most, and none of them a single
/// label's name alone.
pub(crate) fn walk(domain: &str) -> impl Iterator<Item = &str> {
    let labels = domain.split('.').filter(|label| !label.is_empty()).count();
    let above = std::iter::successors(Some(domain), |name| name.split_once('.').map(|(_, up)| up));
    let is_asked = move |depth: usize| depth == 0 || labels - depth <= 7;
    let asked = above.take(labels).enumerate().filter(move |(depth, _)| is_asked(*depth));
    asked.map(|(_, name)| name).filter(move |_| labels >= 2)
}

/// As mail-auth asks: fully qualified, in lower case. It takes a signer's name as it stands, so a name
/// beyond ASCII is asked for as an A-label and kept as it stands.
fn key_name(selector: &str, domain: &str) -> String {
    format!("{selector}._domainkey.{domain}.").to_lowercase()
}

fn dmarc_name(domain: &str) -> String {
    format!("_dmarc.{domain}.")
}

fn error_of(answer: NoAnswer) -> Error {
    Error::Dns(match answer {
        NoAnswer::NoName => DnsError::RecordNotFound(ResponseCode::NXDomain),
        NoAnswer::NoRecord => DnsError::RecordNotFound(ResponseCode::NoError),
        NoAnswer::Failed => DnsError::Resolver("no answer".to_owned()),
        NoAnswer::Budget => DnsError::Resolver("too many questions".to_owned()),
    })
}

impl ResolverCache<Box<str>, Txt> for Known {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // What was not asked for could not be found out: temperror, and no query.
        let unknown = || Txt::Error(Error::Dns(DnsError::Resolver("not asked".to_owned())));
        Some(self.texts.get(name).cloned().unwrap_or_else(unknown))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

/// Every other record: there is none. Only DMARC asks, whether the author's domain exists, and that is
/// asked again afterwards (`dmarc`).
pub(crate) struct Nothing;

macro_rules! nothing {
    ($key:ty, $value:ty) => {
        impl ResolverCache<$key, RecordSet<$value>> for Nothing {
            fn get<Q>(&self, _: &Q) -> Option<RecordSet<$value>>
            where
                $key: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                Some(RecordSet { rrset: Arc::new([]), dnssec_status: Default::default() })
            }

            fn remove<Q>(&self, _: &Q) -> Option<RecordSet<$value>>
            where
                $key: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                None
            }

            fn insert(&self, _: $key, _: RecordSet<$value>, _: Instant) {}
        }
    };
}

nothing!(Box<str>, MX);
nothing!(Box<str>, Ipv4Addr);
nothing!(Box<str>, Ipv6Addr);
nothing!(IpAddr, Box<str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_asks_eight_names_at_most() {
        let names: Vec<_> = walk("a.b.c.d.e.f.g.h.i.j.test").collect();
        assert_eq!(names.len(), 8);
        assert_eq!((names[0], names[1]), ("a.b.c.d.e.f.g.h.i.j.test", "e.f.g.h.i.j.test"));
        assert_eq!(walk("mail.x.test").collect::<Vec<_>>(), ["mail.x.test", "x.test", "test"]);
        assert_eq!(walk("test").count(), 0);
        assert_eq!(walk("").count(), 0);
    }
}
