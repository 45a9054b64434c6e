//! One query: what goes out, and what its answer means.

use std::{net::IpAddr, time::Duration, time::Instant};

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
use mailrace_metrics::DnsResult;

use super::{DnsOptions, Found, Key, UNDER_WAY_MAX};

/// How long an answer is kept at least and at most, whatever its TTL: keys and policies change
/// within the hour.
const KEPT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// The same for "there is none" (RFC 2308); without an SOA, the lower bound.
const KEPT_NONE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(900));

/// Records of one answer that are kept; a domain has one SPF record and few keys.
const RECORDS_MAX: usize = 64;

/// Octets of all TXT records of one answer that are kept: a key of 16,384 bits has 2.8 KiB.
const TEXT_BYTES_MAX: usize = 32 << 10;

/// Answers from a name, without its last dot, and a type.
pub(super) type Given = dyn Fn(&str, RecordType) -> Found + Send + Sync;

/// Where answers come from.
pub(super) enum Query {
    /// The servers.
    Network {
        resolver: Box<TokioResolver>,
        /// With all its tries.
        patience: Duration,
        failed_for: Duration,
    },
    /// A function.
    Given(Box<Given>),
}

impl Query {
    /// Within a runtime.
    pub(super) fn new(options: &DnsOptions) -> Result<Self, NetError> {
        if options.servers.is_empty() {
            return Err(NetError::NoConnections);
        }
        let servers = options.servers.iter().map(|server| {
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
        let settings = builder.options_mut();
        settings.timeout = options.attempt;
        settings.attempts = options.retries;
        settings.edns0 = true;
        // Kept here instead, where it is known what was asked.
        settings.cache_size = 0;
        settings.use_hosts_file = ResolveHosts::Never;
        settings.max_active_requests = UNDER_WAY_MAX;
        let tries = u32::try_from(options.retries + 1).unwrap_or(u32::MAX);
        // Over TCP once more, where an answer was cut short.
        let patience = options.attempt.saturating_mul(tries.saturating_add(1));
        let resolver = Box::new(builder.build()?);
        Ok(Self::Network { resolver, patience, failed_for: options.failed_for })
    }

    /// What it found, and for how long that holds.
    pub(super) async fn run(&self, key: &Key) -> (DnsResult, Found, Duration) {
        let (resolver, patience, failed_for) = match self {
            Self::Network { resolver, patience, failed_for } => (resolver, *patience, *failed_for),
            Self::Given(answers) => {
                let name = key.0.to_ascii();
                let found = answers(name.strip_suffix('.').unwrap_or(&name), key.1);
                return (DnsResult::Ok, found, Duration::ZERO);
            }
        };
        let looked = resolver.lookup(key.0.clone(), key.1);
        let answer = tokio::time::timeout(patience, looked).await;
        match answer.unwrap_or(Err(NetError::Timeout)) {
            Ok(lookup) => {
                let ttl = lookup.valid_until().saturating_duration_since(Instant::now());
                match found(&lookup, key.1) {
                    Found::NoRecord => (DnsResult::NxDomain, Found::NoRecord, KEPT_NONE.0),
                    found => (DnsResult::Ok, found, ttl.clamp(KEPT.0, KEPT.1)),
                }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
                let found = match none.response_code {
                    ResponseCode::NXDomain => Found::NoName,
                    _ => Found::NoRecord,
                };
                (DnsResult::NxDomain, found, ttl.clamp(KEPT_NONE.0, KEPT_NONE.1))
            }
            Err(NetError::Timeout) => (DnsResult::Timeout, Found::Failed, failed_for),
            Err(error) => {
                tracing::debug!(name = %key.0, %error, "DNS");
                (DnsResult::ServFail, Found::Failed, failed_for)
            }
        }
    }
}

fn found(lookup: &Lookup, kind: RecordType) -> Found {
    let answers = lookup.answers().iter().map(|record| &record.data);
    match kind {
        RecordType::TXT => {
            let mut octets = 0;
            let texts = answers.filter_map(|data| match data {
                RData::TXT(text) => Some(text.txt_data.concat().into_boxed_slice()),
                _ => None,
            });
            let texts = texts.take(RECORDS_MAX).take_while(|text| {
                octets += text.len();
                octets <= TEXT_BYTES_MAX
            });
            let texts: Vec<_> = texts.collect();
            if texts.is_empty() { Found::NoRecord } else { Found::Texts(texts.into()) }
        }
        RecordType::MX => {
            let exchangers = answers.filter_map(|data| match data {
                RData::MX(mx) => Some((mx.preference, text_of(&mx.exchange))),
                _ => None,
            });
            let mut exchangers: Vec<_> = exchangers.take(RECORDS_MAX).collect();
            exchangers.sort();
            names(exchangers.into_iter().map(|(_, name)| name).collect())
        }
        RecordType::PTR => {
            let all = answers.filter_map(|data| match data {
                RData::PTR(name) => Some(text_of(name)),
                _ => None,
            });
            names(all.take(RECORDS_MAX).collect())
        }
        _ => {
            let addresses = answers.filter_map(|data| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            });
            let addresses: Vec<_> = addresses.take(RECORDS_MAX).collect();
            if addresses.is_empty() { Found::NoRecord } else { Found::Addresses(addresses.into()) }
        }
    }
}

fn names(names: Vec<Box<str>>) -> Found {
    if names.is_empty() { Found::NoRecord } else { Found::Names(names.into()) }
}

/// Label by label: the escapes of a zone file are no part of a name.
fn text_of(name: &Name) -> Box<str> {
    let labels = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase());
    labels.collect::<Vec<_>>().join(".").into()
}
