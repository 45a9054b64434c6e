//! Counters of verdicts. Their threads are no shards, so the `prometheus` collectors themselves are
//! used.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, core::Collector};

use super::DnsMetrics;

/// Methods with the words that each may give, as metric labels.
const RESULTS: [(&str, &[&str]); 5] = [
    ("spf", &["none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"]),
    ("dkim", &["pass", "fail", "policy", "neutral", "temperror", "permerror"]),
    ("dmarc", &["none", "pass", "fail", "temperror", "permerror"]),
    ("arc", &["pass", "fail", "temperror"]),
    ("iprev", &["pass", "fail", "temperror", "permerror"]),
];

/// `policy_auth_*`, shown with `policy_dns_*`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct VerdictMetrics {
    results: IntCounterVec,
    skipped: IntCounter,
    lag: IntGaugeVec,
}

impl VerdictMetrics {
    /// All series at 0, from now on among those of DNS.
    #[must_use]
    pub fn new(dns: &DnsMetrics) -> Self {
        let results = IntCounterVec::new(
            Opts::new(
                "mailrace_policy_auth_results_total",
                "Results of checks of the sender, by method and RFC 8601 word.",
            ),
            &["method", "result"],
        )
        .expect("a constant name");
        for (method, words) in RESULTS {
            for word in words {
                results.with_label_values(&[method, word]);
            }
        }
        let skipped = IntCounter::new(
            "mailrace_policy_auth_skipped_total",
            "Messages that were not judged because too many were waiting.",
        )
        .expect("a constant name");
        let lag = IntGaugeVec::new(
            Opts::new(
                "mailrace_policy_auth_lag_records",
                "Committed records of a shard that wait for their verdict.",
            ),
            &["shard"],
        )
        .expect("a constant name");
        let collectors: [Box<dyn Collector>; 3] =
            [Box::new(results.clone()), Box::new(skipped.clone()), Box::new(lag.clone())];
        for collector in collectors {
            dns.register(collector);
        }
        Self { results, skipped, lag }
    }

    /// Counts one check.
    pub fn result(&self, method: &str, word: &str) {
        self.results.with_label_values(&[method, word]).inc();
    }

    /// Counts a message that was not judged.
    pub fn skip(&self) {
        self.skipped.inc();
    }

    /// Records of a shard that wait.
    pub fn set_lag(&self, shard: u16, records: u64) {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        self.lag.with_label_values(&[&shard.to_string()]).set(records);
    }

    /// Messages that were not judged.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.get()
    }

    /// How often a method had that word.
    #[must_use]
    pub fn count(&self, method: &str, word: &str) -> u64 {
        self.results.with_label_values(&[method, word]).get()
    }
}
