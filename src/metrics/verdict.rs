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
    rejected: IntCounterVec,
    unanswered: IntCounter,
}

impl VerdictMetrics {
    /// All series at 0, from now on among those of DNS. `causes` are those of rejected mail.
    #[must_use]
    pub fn new(dns: &DnsMetrics, causes: &[&str]) -> Self {
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
        let rejected = IntCounterVec::new(
            Opts::new(
                "mailrace_policy_auth_rejected_total",
                "Messages rejected for what was found out about their sender.",
            ),
            &["cause"],
        )
        .expect("a constant name");
        for cause in causes {
            rejected.with_label_values(&[*cause]);
        }
        let unanswered = IntCounter::new(
            "mailrace_policy_auth_unanswered_total",
            "Messages that could not be judged within listener.verify.deadline.",
        )
        .expect("a constant name");
        let collectors: [Box<dyn Collector>; 5] = [
            Box::new(results.clone()),
            Box::new(skipped.clone()),
            Box::new(lag.clone()),
            Box::new(rejected.clone()),
            Box::new(unanswered.clone()),
        ];
        for collector in collectors {
            dns.register(collector);
        }
        Self { results, skipped, lag, rejected, unanswered }
    }

    /// Counts one check.
    pub fn result(&self, method: &str, word: &str) {
        self.results.with_label_values(&[method, word]).inc();
    }

    /// Counts a message that was not judged.
    pub fn skip(&self) {
        self.skipped.inc();
    }

    /// Counts a message that was rejected, by its cause.
    pub fn reject(&self, cause: &str) {
        self.rejected.with_label_values(&[cause]).inc();
    }

    /// Counts a message that was not judged in time.
    pub fn miss_deadline(&self) {
        self.unanswered.inc();
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

    /// Messages that were rejected for this cause.
    #[must_use]
    pub fn rejected(&self, cause: &str) -> u64 {
        self.rejected.with_label_values(&[cause]).get()
    }

    /// Messages that were not judged in time.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered.get()
    }

    /// How often a method had that word.
    #[must_use]
    pub fn count(&self, method: &str, word: &str) -> u64 {
        self.results.with_label_values(&[method, word]).get()
    }
}
