//! Counters of DNS queries. Their thread is not a shard, so the `prometheus` collectors themselves
//! are used.

use super::{Durations, Family, durations::DurationFamily};
use prometheus::{IntCounterVec, Opts, Registry, core::Collector};

/// How a query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsResult {
    /// With records.
    Ok,
    /// There is no such name, or no record of this type.
    NxDomain,
    /// No answer in time.
    Timeout,
    /// The server could not, or did not want to (RFC 1035 §4.1.1).
    ServFail,
    /// Not asked: too many were under way.
    Shed,
}

impl DnsResult {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::NxDomain, Self::Timeout, Self::ServFail, Self::Shed];

    /// Name as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NxDomain => "nxdomain",
            Self::Timeout => "timeout",
            Self::ServFail => "servfail",
            Self::Shed => "shed",
        }
    }
}

/// `policy_dns_*`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DnsMetrics {
    registry: Registry,
    queries: IntCounterVec,
    durations: Durations,
    family: DurationFamily,
}

impl Default for DnsMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl DnsMetrics {
    /// All series, at 0.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let queries = IntCounterVec::new(
            Opts::new(
                "mailrace_policy_dns_queries_total",
                "DNS queries about clients and senders, by result; answers from the cache are not counted.",
            ),
            &["result"],
        )
        .expect("a constant name");
        let name = "mailrace_policy_dns_query_duration_seconds";
        let family =
            DurationFamily::new(name, "Duration of DNS queries about clients and senders.", None);
        let durations = family.of("");
        for result in DnsResult::ALL {
            queries.with_label_values(&[result.name()]);
        }
        registry.register(Box::new(queries.clone())).expect("it is registered once");
        Self { registry, queries, durations, family }
    }

    /// Shows these as well.
    pub(super) fn register(&self, collector: Box<dyn Collector>) {
        self.registry.register(collector).expect("each is registered once");
    }

    /// Counts a query and the seconds that it took.
    pub fn query(&self, result: DnsResult, seconds: f64) {
        self.queries.with_label_values(&[result.name()]).inc();
        if result != DnsResult::Shed {
            self.durations.observe(seconds);
        }
    }

    /// Queries that ended so.
    #[must_use]
    pub fn count(&self, result: DnsResult) -> u64 {
        self.queries.with_label_values(&[result.name()]).get()
    }

    /// What there is to show; `native`: with native histograms.
    #[must_use]
    pub fn families(&self, native: bool) -> Vec<Family> {
        let counters = self.registry.gather().into_iter().map(Family::from);
        counters.chain(self.family.family(native)).collect()
    }
}
