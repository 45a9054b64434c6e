//! Counters of the refusal log. Its thread is no shard, so the `prometheus` collectors themselves are
//! used.

use prometheus::{IntCounter, core::Collector};

use super::DnsMetrics;

/// `log_refusals_*`, shown with `policy_dns_*`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RefusalMetrics {
    written: IntCounter,
    dropped: IntCounter,
}

impl RefusalMetrics {
    /// All series at 0, from now on among those of DNS.
    #[must_use]
    pub fn new(dns: &DnsMetrics) -> Self {
        let counter = |name, help| IntCounter::new(name, help).expect("a constant name");
        let written =
            counter("mailrace_log_refusals_written_total", "Refusals written to the refusal log.");
        let dropped = counter(
            "mailrace_log_refusals_dropped_total",
            "Refusals left out of the refusal log: a flood of them, or a disk that did not take them.",
        );
        let collectors: [Box<dyn Collector>; 2] =
            [Box::new(written.clone()), Box::new(dropped.clone())];
        for collector in collectors {
            dns.register(collector);
        }
        Self { written, dropped }
    }

    /// Counts refusals that are in the refusal log.
    pub fn written(&self, count: u64) {
        self.written.inc_by(count);
    }

    /// Counts refusals that are not.
    pub fn dropped(&self, count: u64) {
        self.dropped.inc_by(count);
    }
}
