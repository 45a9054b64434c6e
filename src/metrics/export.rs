//! Counters of exporters and retention. On the export plane shared atomics are fine, so the
//! `prometheus` collectors themselves are used.

use super::{Durations, Family, LogCounts, durations::DurationFamily};
use prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    proto::MetricFamily,
};

/// Results of `export_records_total`.
const RESULTS: [&str; 5] = ["delivered", "retried", "dead_lettered", "dropped", "filtered"];

/// Kinds of files that a running server reads again when they change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchedFiles {
    /// Certificates and their keys.
    Certificates,
    /// Users that may authenticate.
    Users,
    /// Domains and recipients.
    Recipients,
}

impl WatchedFiles {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Certificates, Self::Users, Self::Recipients];

    fn name(self) -> &'static str {
        match self {
            Self::Certificates => "certificates",
            Self::Users => "users",
            Self::Recipients => "recipients",
        }
    }
}

/// Reasons of `log_segments_deleted_total`.
const REASONS: [&str; 4] = ["age", "size", "disk", "manual"];

/// The families of all exporters, groups and of retention. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ExportMetrics {
    registry: Registry,
    records: IntCounterVec,
    bytes: IntCounterVec,
    errors: IntCounterVec,
    requests: DurationFamily,
    up: IntGaugeVec,
    last_success: GaugeVec,
    dead: IntGaugeVec,
    lag: IntGaugeVec,
    lag_max: IntGaugeVec,
    members: IntGaugeVec,
    oldest_pending: GaugeVec,
    deleted: IntCounterVec,
    faulty: IntGaugeVec,
    /// `log_scrub_segments_total`
    pub scrub_segments: IntCounter,
    /// `log_scrub_bytes_total`
    pub scrub_bytes: IntCounter,
    /// `log_scrub_last_timestamp_seconds`
    pub scrub_last: Gauge,
    /// `log_oldest_record_timestamp_seconds`
    pub oldest_record: Gauge,
    /// `log_retention_seconds`
    pub retention: Gauge,
    /// `export_corrupt_records_total`
    pub corrupt: IntCounter,
    /// What is kept of the log, and counted of it away from its shards.
    pub log: LogCounts,
    /// `config_last_reload_successful`
    pub reload_ok: IntGauge,
    /// `config_last_reload_success_timestamp_seconds`
    pub reloaded: Gauge,
    unusable: IntGaugeVec,
}

/// Those of one exporter.
#[derive(Clone, Debug)]
pub struct ExporterMetrics {
    /// Records delivered.
    pub delivered: IntCounter,
    /// Attempts that are repeated.
    pub retried: IntCounter,
    /// Records among the dead letters.
    pub dead_lettered: IntCounter,
    /// Records that retention deleted before they were delivered.
    pub dropped: IntCounter,
    /// Records skipped by the filter.
    pub filtered: IntCounter,
    /// Damaged places passed, of all exporters.
    pub corrupt: IntCounter,
    /// See [`ExportMetrics::log`].
    pub log: LogCounts,
    /// Octets of mail data delivered.
    pub bytes: IntCounter,
    /// Time of one delivery.
    pub requests: Durations,
    /// 1 where the last attempt succeeded.
    pub up: IntGauge,
    /// When one did.
    pub last_success: Gauge,
    /// Dead letters that are not settled.
    pub dead: IntGauge,
    errors: IntCounterVec,
    name: String,
}

/// Those of one consumer group.
#[derive(Clone, Debug)]
pub struct GroupMetrics {
    /// Sum over the shards.
    pub lag: IntGauge,
    /// The worst shard's.
    pub lag_max: IntGauge,
    /// Readers connected.
    pub members: IntGauge,
    /// When the next record was received; 0: none is pending.
    pub oldest_pending: Gauge,
}

impl Default for ExportMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ExportMetrics {
    /// Families without samples.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let opts = |name: &str, help: &str| Opts::new(format!("mailrace_{name}"), help);
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(opts(name, help), labels).expect("a constant name")
        };
        let gauge = |name: &str, help: &str, label: &str| {
            IntGaugeVec::new(opts(name, help), &[label]).expect("a constant name")
        };
        let float = |name: &str, help: &str, label: &str| {
            GaugeVec::new(opts(name, help), &[label]).expect("a constant name")
        };
        let plain =
            |name: &str, help: &str| Gauge::with_opts(opts(name, help)).expect("a constant name");
        let count = |name: &str, help: &str| {
            IntCounter::with_opts(opts(name, help)).expect("a constant name")
        };
        let metrics = Self {
            records: counter(
                "export_records_total",
                "Records by outcome.",
                &["exporter", "result"],
            ),
            bytes: counter("export_bytes_total", "Mail data delivered.", &["exporter"]),
            errors: counter(
                "export_errors_total",
                "Failed attempts, by class.",
                &["exporter", "class"],
            ),
            requests: DurationFamily::new(
                "mailrace_export_request_duration_seconds",
                "Duration of one request or batch.",
                Some("exporter"),
            ),
            up: gauge(
                "export_up",
                "Whether the last attempt succeeded (1) or failed (0).",
                "exporter",
            ),
            last_success: float(
                "export_last_success_timestamp_seconds",
                "When an attempt last succeeded.",
                "exporter",
            ),
            dead: gauge("export_dead_letters", "Records in the dead-letter queue.", "exporter"),
            lag: gauge("log_consumer_lag_records", "Records not yet committed.", "group"),
            lag_max: gauge(
                "log_consumer_lag_records_max",
                "Records not yet committed, on the shard \
                 with the most.",
                "group",
            ),
            members: gauge("log_consumer_members", "Readers connected.", "group"),
            oldest_pending: float(
                "log_consumer_oldest_pending_timestamp_seconds",
                "When the next pending record was received; 0: none is pending.",
                "group",
            ),
            deleted: counter("log_segments_deleted_total", "Segments deleted.", &["reason"]),
            faulty: gauge(
                "log_faulty_segments",
                "Segments that are missing, unreadable or damaged, by what is wrong.",
                "kind",
            ),
            scrub_segments: count("log_scrub_segments_total", "Segments that the scrub checked."),
            scrub_bytes: count("log_scrub_bytes_total", "Bytes that the scrub checked."),
            scrub_last: plain(
                "log_scrub_last_timestamp_seconds",
                "When the scrub last checked all that was due; 0: not since the start.",
            ),
            oldest_record: plain(
                "log_oldest_record_timestamp_seconds",
                "When the oldest record in the log was received; 0: there is none.",
            ),
            retention: plain(
                "log_retention_seconds",
                "Age after which records are deleted; 0: never.",
            ),
            corrupt: IntCounter::with_opts(opts(
                "export_corrupt_records_total",
                "Damaged places that exporters skipped.",
            ))
            .expect("a constant name"),
            log: LogCounts::default(),
            reload_ok: IntGauge::with_opts(opts(
                "config_last_reload_successful",
                "Whether the last reload of the configuration succeeded.",
            ))
            .expect("a constant name"),
            reloaded: plain(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration was last loaded.",
            ),
            unusable: IntGaugeVec::new(
                opts(
                    "config_files_unusable",
                    "Changed files that cannot be used: their previous contents stay in use.",
                ),
                &["kind"],
            )
            .expect("a constant name"),
            registry,
        };
        for reason in REASONS {
            metrics.deleted.with_label_values(&[reason]);
        }
        for kind in WatchedFiles::ALL {
            metrics.files_unusable(kind, 0);
        }
        metrics.register();
        metrics
    }

    fn register(&self) {
        let collectors: [Box<dyn prometheus::core::Collector>; 21] = [
            Box::new(self.records.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.errors.clone()),
            Box::new(self.up.clone()),
            Box::new(self.last_success.clone()),
            Box::new(self.dead.clone()),
            Box::new(self.lag.clone()),
            Box::new(self.lag_max.clone()),
            Box::new(self.members.clone()),
            Box::new(self.oldest_pending.clone()),
            Box::new(self.deleted.clone()),
            Box::new(self.faulty.clone()),
            Box::new(self.scrub_segments.clone()),
            Box::new(self.scrub_bytes.clone()),
            Box::new(self.scrub_last.clone()),
            Box::new(self.oldest_record.clone()),
            Box::new(self.retention.clone()),
            Box::new(self.corrupt.clone()),
            Box::new(self.reload_ok.clone()),
            Box::new(self.reloaded.clone()),
            Box::new(self.unusable.clone()),
        ];
        for collector in collectors {
            self.registry.register(collector).expect("each is registered once");
        }
    }

    /// Sets how many files of a kind cannot be used as they are now.
    pub fn files_unusable(&self, kind: WatchedFiles, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.unusable.with_label_values(&[kind.name()]).set(count);
    }

    /// Forgets an exporter that no longer exists, and its group's lag.
    pub fn forget(&self, name: &str, classes: &[&str]) {
        // What was never counted is not there to be removed.
        for result in RESULTS {
            let _ = self.records.remove_label_values(&[name, result]);
        }
        for class in classes {
            let _ = self.errors.remove_label_values(&[name, class]);
        }
        let _ = self.bytes.remove_label_values(&[name]);
        self.requests.forget(name);
        let _ = self.last_success.remove_label_values(&[name]);
        for gauge in [&self.up, &self.dead, &self.lag, &self.lag_max, &self.members] {
            let _ = gauge.remove_label_values(&[name]);
        }
        let _ = self.oldest_pending.remove_label_values(&[name]);
    }

    /// Those of one exporter, at 0 from now on; `classes` are those of its errors.
    #[must_use]
    pub fn exporter(&self, name: &str, classes: &[&str]) -> ExporterMetrics {
        for result in RESULTS {
            self.records.with_label_values(&[name, result]);
        }
        for class in classes {
            self.errors.with_label_values(&[name, class]);
        }
        let records = |result| self.records.with_label_values(&[name, result]);
        ExporterMetrics {
            delivered: records("delivered"),
            retried: records("retried"),
            dead_lettered: records("dead_lettered"),
            dropped: records("dropped"),
            filtered: records("filtered"),
            corrupt: self.corrupt.clone(),
            log: self.log.clone(),
            bytes: self.bytes.with_label_values(&[name]),
            requests: self.requests.of(name),
            up: self.up.with_label_values(&[name]),
            last_success: self.last_success.with_label_values(&[name]),
            dead: self.dead.with_label_values(&[name]),
            errors: self.errors.clone(),
            name: name.to_owned(),
        }
    }

    /// Whether an exporter's last attempt succeeded.
    #[must_use]
    pub fn is_up(&self, name: &str) -> bool {
        self.up.with_label_values(&[name]).get() == 1
    }

    /// Those of one group, at 0 from now on.
    #[must_use]
    pub fn group(&self, name: &str) -> GroupMetrics {
        GroupMetrics {
            lag: self.lag.with_label_values(&[name]),
            lag_max: self.lag_max.with_label_values(&[name]),
            members: self.members.with_label_values(&[name]),
            oldest_pending: self.oldest_pending.with_label_values(&[name]),
        }
    }

    /// Forgets a group that is gone.
    pub fn forget_group(&self, name: &str) {
        for family in [&self.lag, &self.lag_max, &self.members] {
            let _ = family.remove_label_values(&[name]);
        }
        let _ = self.oldest_pending.remove_label_values(&[name]);
    }

    /// Counts deleted segments.
    pub fn deleted(&self, reason: &str, segments: u64) {
        self.deleted.with_label_values(&[reason]).inc_by(segments);
    }

    /// Shows how many segments have what is wrong, each kind by its name.
    pub fn faulty(&self, kinds: impl IntoIterator<Item = (&'static str, i64)>) {
        for (kind, segments) in kinds {
            self.faulty.with_label_values(&[kind]).set(segments);
        }
    }

    /// What there is to show, durations aside.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// All that there is to show; `native`: with native histograms.
    #[must_use]
    pub fn families(&self, native: bool) -> Vec<Family> {
        let others = self.gather().into_iter().map(Family::from);
        others.chain(self.requests.family(native)).collect()
    }
}

impl ExporterMetrics {
    /// Counts a failed attempt.
    pub fn error(&self, class: &str) {
        self.errors.with_label_values(&[&self.name, class]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_exist_from_the_start_and_go_with_their_group() {
        let metrics = ExportMetrics::new();
        let exporter = metrics.exporter("main", &["connect"]);
        metrics.group("main").lag.set(7);
        exporter.error("connect");
        let text = prometheus::TextEncoder::new().encode_to_string(&metrics.gather()).unwrap();
        for line in [
            "mailrace_export_records_total{exporter=\"main\",result=\"delivered\"} 0\n",
            "mailrace_export_errors_total{class=\"connect\",exporter=\"main\"} 1\n",
            "mailrace_log_consumer_lag_records{group=\"main\"} 7\n",
            "mailrace_log_segments_deleted_total{reason=\"age\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        metrics.forget_group("main");
        let text = prometheus::TextEncoder::new().encode_to_string(&metrics.gather()).unwrap();
        assert!(!text.contains("lag_records{"), "{text}");
    }
}
