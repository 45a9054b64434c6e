//! DNS queries: each sent once for all waiting clients, bounded in number and time, their answers
//! cached within bounds.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use tokio::{sync::watch, task, time};

use crate::metrics::{DnsMetrics, DnsResult};

/// Queries under way, each with a socket of its own; beyond, they fail at once. A server that
/// answers within 20 ms takes 50,000 a second so.
const UNDER_WAY_MAX: usize = 1024;

/// One try, and how many follow where a packet is lost.
const TRY: Duration = Duration::from_secs(1);
const RETRIES: usize = 2;

/// One query with all its tries: nobody waits longer, and most not as long.
const QUERY_MAX: Duration = Duration::from_secs(10);

/// Answers kept, in two halves: some 150 octets each.
const CACHE_MAX: usize = 131_072;

/// How long an answer is kept at least and at most, whatever its TTL: lists change within minutes.
const KEPT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// The same for "there is none" (RFC 2308); without an SOA, the lower bound.
const KEPT_NONE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));

/// Records of one answer that are looked at.
const RECORDS_MAX: usize = 16;

/// What is asked: name and type.
type Key = (Name, RecordType);

/// What is answered; cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Records(Rc<[Record]>),
    /// There is no such name or record.
    Nothing,
    /// It could not be found out.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Name(Name),
}

/// Cheap to clone; of the DNS thread alone.
#[derive(Clone)]
pub(super) struct Lookups {
    resolver: TokioResolver,
    metrics: DnsMetrics,
    cache: Rc<RefCell<Cache>>,
    under_way: Rc<RefCell<HashMap<Key, watch::Receiver<Option<Found>>>>>,
}

impl Lookups {
    pub(super) fn new(servers: &[SocketAddr], metrics: DnsMetrics) -> Result<Self, NetError> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TRY;
        options.attempts = RETRIES;
        // Kept here instead, where it is known what was asked.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = UNDER_WAY_MAX;
        Ok(Self {
            resolver: builder.build()?,
            metrics,
            cache: Rc::default(),
            under_way: Rc::default(),
        })
    }

    /// Sends a query, unless the answer is cached or the query under way.
    ///
    /// # Cancellation
    /// The query continues for the next client that asks.
    pub(super) async fn ask(&self, name: Name, kind: RecordType) -> Found {
        let key = (name, kind);
        if let Some(found) = self.cache.borrow_mut().get(&key, Instant::now()) {
            return found;
        }
        let under_way = self.under_way.borrow().get(&key).cloned();
        let mut answer = match under_way {
            Some(answer) => answer,
            None if self.under_way.borrow().len() >= UNDER_WAY_MAX => {
                self.metrics.query(DnsResult::Shed, 0.0);
                return Found::Failed;
            }
            None => self.begin(key),
        };
        let found = answer.wait_for(Option::is_some).await;
        found.ok().and_then(|found| found.clone()).unwrap_or(Found::Failed)
    }

    fn begin(&self, key: Key) -> watch::Receiver<Option<Found>> {
        let (tell, told) = watch::channel(None);
        self.under_way.borrow_mut().insert(key.clone(), told.clone());
        let lookups = self.clone();
        task::spawn_local(async move {
            let found = lookups.query(&key).await;
            lookups.under_way.borrow_mut().remove(&key);
            tell.send_replace(Some(found));
        });
        told
    }

    async fn query(&self, key: &Key) -> Found {
        let began = Instant::now();
        let looked = self.resolver.lookup(key.0.clone(), key.1);
        let answer = time::timeout(QUERY_MAX, looked).await.unwrap_or(Err(NetError::Timeout));
        let now = Instant::now();
        let (result, found, ttl) = match &answer {
            Ok(lookup) => match records(lookup) {
                found if found.is_empty() => {
                    (DnsResult::NxDomain, Found::Nothing, Some(KEPT_NONE.0))
                }
                found => {
                    let ttl = lookup.valid_until().saturating_duration_since(now);
                    let ttl = ttl.clamp(KEPT.0, KEPT.1);
                    (DnsResult::Ok, Found::Records(found.into()), Some(ttl))
                }
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
                let ttl = ttl.clamp(KEPT_NONE.0, KEPT_NONE.1);
                (DnsResult::NxDomain, Found::Nothing, Some(ttl))
            }
            Err(NetError::Timeout) => (DnsResult::Timeout, Found::Failed, None),
            Err(error) => {
                tracing::debug!(name = %key.0, %error, "DNS");
                (DnsResult::ServFail, Found::Failed, None)
            }
        };
        self.metrics.query(result, (now - began).as_secs_f64());
        if let Some(ttl) = ttl {
            self.cache.borrow_mut().put(key.clone(), found.clone(), now + ttl);
        }
        found
    }
}

fn records(lookup: &Lookup) -> Vec<Record> {
    let records = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::A(address) => Some(Record::Address(IpAddr::V4(address.0))),
        RData::AAAA(address) => Some(Record::Address(IpAddr::V6(address.0))),
        RData::PTR(name) => Some(Record::Name(name.0.clone())),
        _ => None,
    });
    records.take(RECORDS_MAX).collect()
}

/// Two halves: what is asked for stays in the young one, and when that is full the old one goes. So
/// it is bounded, and nothing is searched for what to throw out.
#[derive(Default)]
struct Cache {
    young: HashMap<Key, (Instant, Found)>,
    old: HashMap<Key, (Instant, Found)>,
}

impl Cache {
    fn get(&mut self, key: &Key, now: Instant) -> Option<Found> {
        if let Some((until, found)) = self.young.get(key) {
            return (now < *until).then(|| found.clone());
        }
        let (until, found) = self.old.remove(key).filter(|(until, _)| now < *until)?;
        self.put(key.clone(), found.clone(), until);
        Some(found)
    }

    fn put(&mut self, key: Key, found: Found, until: Instant) {
        if self.young.len() >= CACHE_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (until, found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_forgets_what_is_old_and_is_bounded() {
        let key = |number: usize| (Name::from_ascii(format!("n{number}.")).unwrap(), RecordType::A);
        let mut cache = Cache::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        cache.put(key(0), Found::Nothing, later);
        assert!(cache.get(&key(0), now).is_some());
        assert!(cache.get(&key(0), later).is_none());
        assert!(cache.get(&key(1), now).is_none());
        for number in 1..CACHE_MAX * 2 {
            cache.put(key(number), Found::Nothing, later);
            if number % 1000 == 0 {
                assert!(cache.get(&key(0), now).is_some(), "what is asked for stays, {number}");
            }
        }
        assert!(cache.young.len() + cache.old.len() <= CACHE_MAX);
        assert!(cache.get(&key(1), now).is_none(), "the others go");
    }
}
