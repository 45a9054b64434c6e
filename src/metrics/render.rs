//! Prometheus text format 0.0.4.

use super::{
    Distribution, KeptLog, Label, ListenerStats, LogFacts, ProcessFacts, RejectClass, RejectReason,
    ShardStats, Tally,
};
use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Content-Type of what [`render`] makes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// 100 us to 50 s in 1-2.5-5 steps.
const DURATION_BOUNDS_US: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000,
];
/// 1 KiB to 64 MiB in steps of four; the default message size limit lies in the one before last.
const SIZE_BOUNDS: [u64; 9] =
    [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26];
const COUNT_BOUNDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// Which families carry the `shard` label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Those where the shards' balance matters; the rest is summed.
    #[default]
    Summed,
    /// All that a shard counts.
    Shard,
}

/// Room on the log's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskState {
    /// Enough.
    #[default]
    Ok = 0,
    /// Below the warning threshold.
    Low = 1,
    /// Mail is answered 452 4.3.1.
    Full = 2,
}

impl DiskState {
    /// Its name in pages and documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Low => "low",
            Self::Full => "full",
        }
    }
}

/// The log's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskFacts {
    /// Bytes free for this process.
    pub free_bytes: u64,
    /// Bytes of the whole file system.
    pub size_bytes: u64,
    /// Judged by the log's thresholds.
    pub state: DiskState,
    /// Why mail is refused; empty where it is not.
    pub reason: String,
}

/// What belongs to the process, not to one shard.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// Version of the program.
    pub version: String,
    /// Source revision, or `unknown`.
    pub revision: String,
    /// The log's disk, if it could be asked.
    pub disk: Option<DiskFacts>,
    /// `log.sync = "none"`: a 250 does not mean synced.
    pub not_durable: bool,
    /// How long the last start's recovery took.
    pub recovery: Option<Duration>,
    /// Warnings logged.
    pub warnings: u64,
    /// Lines of the log that nobody took in time.
    pub log_lines_dropped: u64,
    /// Errors logged.
    pub errors: u64,
    /// `process_*`.
    pub process: ProcessFacts,
    /// When the scrape began, for `metrics_scrape_duration_seconds`.
    pub scrape_started: Option<Instant>,
    /// Which families carry the `shard` label.
    pub detail: Detail,
    /// What is kept of the log, and counted of it by others than shards.
    pub log: LogFacts,
    /// Families of exporters, groups and retention, complete.
    pub more: Vec<MetricFamily>,
}

/// Upper bounds of a duration's buckets, in seconds.
pub(super) fn duration_buckets() -> Vec<f64> {
    DURATION_BOUNDS_US.iter().map(|&bound| bound as f64 / 1e6).collect()
}

/// Renders all shards as one exposition.
///
/// Names and labels are the contract of the program's users: see the tests.
pub fn render(shards: &[ShardStats], extra: &Extra) -> String {
    let mut families = Families::new(shards, extra.detail);
    families.process_wide(shards.len(), extra);
    families.sessions();
    families.tls();
    families.messages();
    families.shard();
    families.log();
    families.kept(&extra.log);
    families.log_trouble(&extra.log);
    families.process(&extra.process);
    families.list.extend(extra.more.iter().cloned());
    if let Some(started) = extra.scrape_started {
        let name = "mailrace_metrics_scrape_duration_seconds";
        families.plain_gauge(name, "Duration of this scrape.", started.elapsed().as_secs_f64());
    }
    debug_assert_eq!(doubled(&families.list), None, "Prometheus keeps one of two equal series");
    TextEncoder::new()
        .encode_to_string(&families.list)
        .expect("no family is empty, and writing to a string cannot fail")
}

/// A family, or a series of one, that is there twice.
fn doubled(families: &[MetricFamily]) -> Option<String> {
    let mut names = BTreeSet::new();
    let twice = families.iter().find(|family| !names.insert(family.name()));
    if let Some(family) = twice {
        return Some(family.name().to_owned());
    }
    families.iter().find_map(|family| {
        let mut seen = BTreeSet::new();
        let series = family.get_metric().iter().map(|metric| {
            let mut labels: Vec<_> =
                metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            labels.sort_unstable();
            labels
        });
        let twice = series.into_iter().find(|labels| !seen.insert(labels.clone()));
        twice.map(|labels| format!("{} {labels:?}", family.name()))
    })
}

/// One sample's value.
enum Value<'a> {
    Number(f64),
    Histogram(&'a Distribution, Scale),
}

/// Bounds of a histogram and its unit.
#[derive(Clone, Copy)]
enum Scale {
    Seconds,
    Bytes,
    Count,
}

impl Scale {
    fn bounds(self) -> &'static [u64] {
        match self {
            Self::Seconds => &DURATION_BOUNDS_US,
            Self::Bytes => &SIZE_BOUNDS,
            Self::Count => &COUNT_BOUNDS,
        }
    }

    fn unit(self) -> f64 {
        match self {
            Self::Seconds => 1e6,
            Self::Bytes | Self::Count => 1.0,
        }
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;
type Samples<'a> = Vec<(Labels<'a>, Value<'a>)>;

/// A number of one shard's log.
type OfKept = fn(&KeptLog) -> u64;

struct Families<'a> {
    shards: &'a [ShardStats],
    merged: Option<ShardStats>,
    split_all: bool,
    list: Vec<MetricFamily>,
}

impl<'a> Families<'a> {
    fn new(shards: &'a [ShardStats], detail: Detail) -> Self {
        let merged = shards.split_first().map(|(first, rest)| {
            let mut merged = first.clone();
            for stats in rest {
                merged.merge(stats);
            }
            merged
        });
        Families { shards, merged, split_all: detail == Detail::Shard, list: Vec::new() }
    }

    fn process_wide(&mut self, shards: usize, extra: &Extra) {
        let labels = vec![("version", &*extra.version), ("revision", &*extra.revision)];
        let info = vec![sample(&labels, None, MetricType::GAUGE, Value::Number(1.0))];
        self.push("mailrace_build_info", "Always 1.", MetricType::GAUGE, info);
        self.plain_gauge("mailrace_shards", "Worker shards.", shards as f64);
        let diagnostics = [("warning", extra.warnings), ("error", extra.errors)]
            .map(|(level, count)| {
                let value = Value::Number(count as f64);
                sample(&[("level", level)], None, MetricType::COUNTER, value)
            })
            .into();
        let name = "mailrace_server_diagnostics_total";
        self.push(name, "Warnings and errors logged.", MetricType::COUNTER, diagnostics);
        let name = "mailrace_server_log_lines_dropped_total";
        let dropped = Value::Number(extra.log_lines_dropped as f64);
        let dropped = vec![sample(&[], None, MetricType::COUNTER, dropped)];
        let help = "Log lines dropped because nothing read stderr.";
        self.push(name, help, MetricType::COUNTER, dropped);
        if let Some(recovery) = extra.recovery {
            let name = "mailrace_log_recovery_duration_seconds";
            self.plain_gauge(name, "Recovery at the last start.", recovery.as_secs_f64());
        }
        if let Some(disk) = &extra.disk {
            let free = disk.free_bytes as f64;
            self.plain_gauge("mailrace_log_disk_free_bytes", "Free space on the log's disk.", free);
            let size = disk.size_bytes as f64;
            self.plain_gauge("mailrace_log_disk_size_bytes", "Size of the log's disk.", size);
            let state = f64::from(disk.state as u8);
            self.plain_gauge("mailrace_log_disk_state", "0 ok, 1 low, 2 full.", state);
        }
        let help = "1 if a 250 means synced, 0 with log.sync = none.";
        self.plain_gauge("mailrace_log_durable", help, f64::from(u8::from(!extra.not_durable)));
    }

    fn sessions(&mut self) {
        self.listener_counter("smtp_connections_total", "Connections accepted.", |l| l.connections);
        self.counters("smtp_connections_refused_total", "Connections refused.", |s| {
            by_listener(s, "reason", |l| l.refused.iter().collect())
        });
        self.family("smtp_sessions_active", "Open sessions.", MetricType::GAUGE, true, |s| {
            each_listener(s, |l| Value::Number(l.sessions_active as f64))
        });
        self.counters("smtp_sessions_closed_total", "Sessions ended.", |s| {
            by_listener(s, "reason", |l| l.closed.iter().collect())
        });
        let name = "smtp_session_duration_seconds";
        self.listener_duration(name, "Duration of ended sessions.", |l| &l.session_duration);
        self.counters("smtp_commands_total", "Commands by verb.", |s| {
            named("command", s.names.commands, &s.commands)
        });
        self.counters("smtp_replies_total", "Replies sent by code.", |s| {
            named("code", s.names.replies, &s.replies)
        });
        self.counters("smtp_protocol_errors_total", "Protocol errors of clients.", |s| {
            named("reason", s.names.protocol_errors, &s.protocol_errors)
        });
        let help = "Arguments of MAIL, RCPT, EHLO and HELO accepted although they violate RFC \
                    5321.";
        self.counters("smtp_lenient_arguments_total", help, |s| {
            named("kind", s.names.lenient, &s.lenient)
        });
        self.counters("smtp_auth_total", "AUTH commands by mechanism and result.", |s| {
            let mechanisms = s.names.auth_mechanisms.iter().zip(&s.auth);
            let each = mechanisms.flat_map(|(mechanism, results)| {
                results.iter().map(|(result, count)| {
                    let labels = vec![("mechanism", *mechanism), ("result", result)];
                    (labels, Value::Number(count as f64))
                })
            });
            each.collect()
        });
    }

    /// Of listeners that have TLS.
    fn tls(&mut self) {
        self.counters("tls_handshakes_total", "TLS handshakes ended.", |s| {
            by_listener(s, "result", |l| if l.tls { l.handshakes.iter().collect() } else { vec![] })
        });
        let name = "tls_handshake_duration_seconds";
        let help = "Duration of established handshakes.";
        self.family(name, help, MetricType::HISTOGRAM, false, |s| {
            tls_listener(s, |l| Value::Histogram(&l.handshake_duration, Scale::Seconds))
        });
        let name = "tls_truncated_total";
        let help = "TLS sessions that ended without a close_notify.";
        self.family(name, help, MetricType::COUNTER, false, |s| {
            tls_listener(s, |l| Value::Number(l.truncated as f64))
        });
        let name = "tls_malformed_names_total";
        let help = "Clients that asked for a server name (SNI) that is not a name.";
        self.family(name, help, MetricType::COUNTER, false, |s| {
            tls_listener(s, |l| Value::Number(l.malformed_names as f64))
        });
        let name = "tls_certificate_expiry_timestamp_seconds";
        let help = "When the certificate in use expires.";
        self.family(name, help, MetricType::GAUGE, false, |s| {
            tls_listener(s, |l| Value::Number(l.certificate_not_after as f64))
        });
    }

    fn messages(&mut self) {
        let name = "smtp_messages_received_total";
        self.family(name, "Messages acknowledged with 250.", MetricType::COUNTER, true, |s| {
            each_listener(s, |l| Value::Number(l.messages_received as f64))
        });
        let name = "smtp_replies_undelivered_total";
        let help = "Records whose client disconnected before its 250 could be sent.";
        self.listener_counter(name, help, |l| l.replies_undelivered);
        let name = "smtp_received_bytes_total";
        self.listener_counter(name, "Bytes of acknowledged messages.", |l| l.received_bytes);
        self.counters("smtp_messages_rejected_total", "Messages refused.", |s| {
            let mut samples = Samples::new();
            for l in &s.listeners {
                let classes = [
                    (RejectClass::Transient, &l.rejected_transient),
                    (RejectClass::Permanent, &l.rejected_permanent),
                ];
                for (class, tally) in classes {
                    // A pair that cannot come would stand at 0 for ever.
                    let comes = |reason: &RejectReason| {
                        reason.classes().contains(&class) || tally.count(*reason) > 0
                    };
                    for reason in RejectReason::ALL.iter().copied().filter(comes) {
                        let (class, name) = (class.name(), reason.name());
                        let labels =
                            vec![("listener", &*l.name), ("class", class), ("reason", name)];
                        samples.push((labels, Value::Number(tally.count(reason) as f64)));
                    }
                }
            }
            samples
        });
        let help = "Size of acknowledged messages.";
        self.histogram("smtp_message_size_bytes", help, Scale::Bytes, |s| &s.message_size);
        let help = "Recipients of acknowledged messages.";
        self.histogram("smtp_message_recipients", help, Scale::Count, |s| &s.message_recipients);
        let help = "Last message byte received to 250 written.";
        self.listener_duration("smtp_message_ack_duration_seconds", help, |l| &l.ack_duration);
        let name = "smtp_transaction_duration_seconds";
        self.listener_duration(name, "MAIL to the final reply.", |l| &l.transaction_duration);
    }

    fn shard(&mut self) {
        let help = "Message bytes received, not yet durable.";
        self.gauge("shard_inflight_bytes", help, true, |s| s.inflight_bytes);
        let help = "Limit of message bytes in flight.";
        self.gauge("shard_inflight_limit_bytes", help, false, |s| s.inflight_limit_bytes);
        self.counters("shard_overload_seconds_total", "Time at each step of overload.", |s| {
            let seconds = |(step, us)| (vec![("step", step)], Value::Number(us as f64 / 1e6));
            s.overload_us.iter().map(seconds).collect()
        });
        self.counters("shard_backpressure_seconds_total", "Time reading was paused.", |s| {
            let seconds = |(cause, us)| (vec![("cause", cause)], Value::Number(us as f64 / 1e6));
            s.backpressure_us.iter().map(seconds).collect()
        });
        let name = "shard_busy_seconds_total";
        self.family(name, "Time running tasks.", MetricType::COUNTER, true, |s| {
            vec![(Vec::new(), Value::Number(s.busy_us as f64 / 1e6))]
        });
        self.counter("shard_stalls_total", "Loop turns over 10 ms.", true, |s| s.stalls);
        self.counter("shard_heartbeats_total", "Heartbeats.", true, |s| s.heartbeats);
    }

    fn log(&mut self) {
        let help = "Records appended.";
        self.counter("log_appended_records_total", help, false, |s| s.log_appended_records);
        let help = "Bytes appended.";
        self.counter("log_appended_bytes_total", help, false, |s| s.log_appended_bytes);
        let name = "log_append_duration_seconds";
        self.histogram(name, "Duration of writes.", Scale::Seconds, |s| &s.log_append_duration);
        let name = "log_sync_duration_seconds";
        self.histogram(name, "Duration of syncs.", Scale::Seconds, |s| &s.log_sync_duration);
        let name = "log_batch_records";
        self.histogram(name, "Records per sync.", Scale::Count, |s| &s.log_batch_records);
        self.gauge("log_end_offset", "Next offset assigned.", true, |s| s.log_end_offset);
        let help = "First offset not yet synced.";
        self.gauge("log_high_water_mark", help, true, |s| s.log_high_water_mark);
        let help = "Bytes of torn tails dropped at start.";
        self.counter("log_truncated_bytes_total", help, false, |s| s.log_truncated_bytes);
    }

    /// What the directories hold, shards that do not run any more among them.
    fn kept(&mut self, log: &LogFacts) {
        let families: [(&str, &str, bool, OfKept); 3] = [
            ("log_start_offset", "First offset kept.", true, |kept| kept.start_offset),
            ("log_segments", "Segments kept.", false, |kept| kept.segments),
            ("log_size_bytes", "Bytes of the segments kept.", false, |kept| kept.bytes),
        ];
        for (name, help, split, of) in families {
            let kind = MetricType::GAUGE;
            let number = |shard, value| sample(&[], shard, kind, Value::Number(value as f64));
            let samples = match split || self.split_all {
                true => log.kept.iter().map(|kept| number(Some(kept.shard), of(kept))).collect(),
                false => vec![number(None, log.kept.iter().map(of).sum::<u64>())],
            };
            self.push(&format!("mailrace_{name}"), help, kind, samples);
        }
    }

    /// Of shards, and of those who read their logs: the latter is of no shard.
    fn log_trouble(&mut self, log: &LogFacts) {
        let (name, help) = ("log_errors_total", "Failed log operations.");
        self.shards_and(name, help, &log.errors, "op", |s| &s.log_errors);
        let (name, help) = ("log_corrupt_records_total", "Damaged records found.");
        self.shards_and(name, help, &log.corrupt, "stage", |s| &s.log_corrupt_records);
    }

    fn shards_and<L: Label>(
        &mut self,
        name: &str,
        help: &str,
        others: &Tally<L>,
        label: &'static str,
        of: fn(&ShardStats) -> &Tally<L>,
    ) {
        let kind = MetricType::COUNTER;
        let samples = |shard, counts: &Tally<L>| -> Vec<Metric> {
            let each = plain(label, counts.iter()).into_iter();
            each.map(|(labels, value)| sample(&labels, shard, kind, value)).collect()
        };
        let mut sum = others.clone();
        let mut metrics = Vec::new();
        for stats in self.shards {
            sum.merge(of(stats));
            if self.split_all {
                metrics.extend(samples(Some(stats.shard), of(stats)));
            }
        }
        metrics.extend(samples(None, if self.split_all { others } else { &sum }));
        self.push(&format!("mailrace_{name}"), help, kind, metrics);
    }

    fn process(&mut self, facts: &ProcessFacts) {
        if let Some(seconds) = facts.cpu_seconds {
            let value = Value::Number(seconds);
            let samples = vec![sample(&[], None, MetricType::COUNTER, value)];
            let name = "process_cpu_seconds_total";
            self.push(name, "User and system time.", MetricType::COUNTER, samples);
        }
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory.", facts.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory.", facts.virtual_bytes),
            ("process_open_fds", "Open descriptors.", facts.open_fds),
            ("process_max_fds", "Limit of descriptors.", facts.max_fds),
            ("process_threads", "Threads.", facts.threads),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                self.plain_gauge(name, help, value as f64);
            }
        }
        if let Some(start) = facts.start_time_seconds {
            let name = "process_start_time_seconds";
            self.plain_gauge(name, "Start time since the epoch.", start);
        }
    }

    fn counter(&mut self, name: &str, help: &str, split: bool, of: fn(&ShardStats) -> u64) {
        self.family(name, help, MetricType::COUNTER, split, |s| {
            vec![(Vec::new(), Value::Number(of(s) as f64))]
        });
    }

    fn gauge(&mut self, name: &str, help: &str, split: bool, of: fn(&ShardStats) -> u64) {
        self.family(name, help, MetricType::GAUGE, split, |s| {
            vec![(Vec::new(), Value::Number(of(s) as f64))]
        });
    }

    fn counters(&mut self, name: &str, help: &str, samples: fn(&ShardStats) -> Samples<'_>) {
        self.family(name, help, MetricType::COUNTER, false, samples);
    }

    fn listener_counter(&mut self, name: &str, help: &str, of: fn(&ListenerStats) -> u64) {
        self.family(name, help, MetricType::COUNTER, false, |s| {
            each_listener(s, |l| Value::Number(of(l) as f64))
        });
    }

    fn listener_duration(
        &mut self,
        name: &str,
        help: &str,
        of: fn(&ListenerStats) -> &Distribution,
    ) {
        self.family(name, help, MetricType::HISTOGRAM, false, |s| {
            each_listener(s, |l| Value::Histogram(of(l), Scale::Seconds))
        });
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        scale: Scale,
        of: fn(&ShardStats) -> &Distribution,
    ) {
        self.family(name, help, MetricType::HISTOGRAM, false, |s| {
            vec![(Vec::new(), Value::Histogram(of(s), scale))]
        });
    }

    /// Adds one family: a sample set for each shard if `split`, else one for their sum.
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        split: bool,
        samples: impl for<'s> Fn(&'s ShardStats) -> Samples<'s>,
    ) {
        let mut metrics = Vec::new();
        if split || self.split_all {
            for stats in self.shards {
                for (labels, value) in samples(stats) {
                    metrics.push(sample(&labels, Some(stats.shard), kind, value));
                }
            }
        } else if let Some(merged) = &self.merged {
            for (labels, value) in samples(merged) {
                metrics.push(sample(&labels, None, kind, value));
            }
        }
        self.push(&format!("mailrace_{name}"), help, kind, metrics);
    }

    fn plain_gauge(&mut self, name: &str, help: &str, value: f64) {
        let samples = vec![sample(&[], None, MetricType::GAUGE, Value::Number(value))];
        self.push(name, help, MetricType::GAUGE, samples);
    }

    fn push(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        // The encoder takes a family without samples for an error.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.list.push(family);
    }
}

fn each_listener<'s>(
    stats: &'s ShardStats,
    value: impl Fn(&'s ListenerStats) -> Value<'s>,
) -> Samples<'s> {
    stats.listeners.iter().map(|l| (vec![("listener", &*l.name)], value(l))).collect()
}

fn tls_listener<'s>(
    stats: &'s ShardStats,
    value: impl Fn(&'s ListenerStats) -> Value<'s>,
) -> Samples<'s> {
    let listeners = stats.listeners.iter().filter(|l| l.tls);
    listeners.map(|l| (vec![("listener", &*l.name)], value(l))).collect()
}

fn by_listener<'s>(
    stats: &'s ShardStats,
    label: &'static str,
    counts: impl Fn(&'s ListenerStats) -> Vec<(&'static str, u64)>,
) -> Samples<'s> {
    let mut samples = Samples::new();
    for l in &stats.listeners {
        samples.extend(counts(l).into_iter().map(|(text, count)| {
            (vec![("listener", &*l.name), (label, text)], Value::Number(count as f64))
        }));
    }
    samples
}

fn plain(
    label: &'static str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> Samples<'static> {
    counts.map(|(text, count)| (vec![(label, text)], Value::Number(count as f64))).collect()
}

fn named(label: &'static str, names: &[&'static str], counts: &[u64]) -> Samples<'static> {
    plain(label, names.iter().copied().zip(counts.iter().copied()))
}

fn sample(
    labels: &[(&'static str, &str)],
    shard: Option<u32>,
    kind: MetricType,
    value: Value<'_>,
) -> Metric {
    let shard = shard.map(|shard| shard.to_string());
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    let shard = shard.as_deref().map(|shard| ("shard", shard));
    let mut metric = Metric::from_label(labels.iter().copied().chain(shard).map(pair).collect());
    match value {
        Value::Number(number) if kind == MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(number);
            metric.set_counter(counter);
        }
        Value::Number(number) => {
            let mut gauge = Gauge::default();
            gauge.set_value(number);
            metric.set_gauge(gauge);
        }
        Value::Histogram(distribution, scale) => {
            metric.set_histogram(histogram(distribution, scale));
        }
    }
    metric
}

fn histogram(distribution: &Distribution, scale: Scale) -> Histogram {
    let bounds = scale.bounds();
    let buckets = distribution.cumulative(bounds).into_iter().zip(bounds).map(|(count, bound)| {
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(count);
        bucket.set_upper_bound(*bound as f64 / scale.unit());
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.count());
    histogram.set_sample_sum(distribution.sum() as f64 / scale.unit());
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BackpressureCause, CloseReason, CorruptStage, HandshakeResult, LogOp, Names, RefuseReason,
    };

    const NAMES: Names = Names {
        commands: &["ehlo", "other"],
        replies: &["250", "451"],
        protocol_errors: &["bare_lf"],
        lenient: &["dots"],
        auth_mechanisms: &["plain", "login"],
    };

    fn two_shards() -> Vec<ShardStats> {
        let mut shards =
            vec![ShardStats::new(0, &["mx"], NAMES), ShardStats::new(1, &["mx"], NAMES)];
        for (stats, amount) in shards.iter_mut().zip([1, 10]) {
            let listener = &mut stats.listeners[0];
            listener.connections = amount;
            listener.sessions_active = amount;
            listener.messages_received = amount;
            listener.refused.add(RefuseReason::MaxConnections, amount);
            listener.closed.add(CloseReason::Quit, amount);
            listener.record_rejected(RejectClass::Transient, RejectReason::LogError);
            listener.ack_duration.record_duration(Duration::from_micros(250 * amount));
            stats.commands[1] = amount;
            stats.replies[0] = amount;
            stats.message_size.record(1024 * amount);
            stats.backpressure_us.add(BackpressureCause::Log, 500_000);
            stats.log_errors.increment(LogOp::Sync);
            stats.log_end_offset = 7 * amount;
            stats.busy_us = 250_000;
        }
        shards
    }

    #[track_caller]
    fn check(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|have| have == *line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn shards_are_summed() {
        let extra = Extra { version: "0.1.0".into(), revision: "abc".into(), ..Extra::default() };
        check(
            &render(&two_shards(), &extra),
            &[
                r#"mailrace_build_info{version="0.1.0",revision="abc"} 1"#,
                "mailrace_shards 2",
                "# TYPE mailrace_smtp_connections_total counter",
                r#"mailrace_smtp_connections_total{listener="mx"} 11"#,
                r#"mailrace_smtp_connections_refused_total{listener="mx",reason="max_connections"} 11"#,
                r#"mailrace_smtp_sessions_closed_total{listener="mx",reason="quit"} 11"#,
                r#"mailrace_smtp_commands_total{command="other"} 11"#,
                r#"mailrace_smtp_replies_total{code="250"} 11"#,
                r#"mailrace_smtp_messages_rejected_total{listener="mx",class="4xx",reason="log_error"} 2"#,
                "mailrace_shard_backpressure_seconds_total{cause=\"log\"} 1",
                r#"mailrace_log_errors_total{op="sync"} 2"#,
            ],
        );
    }

    /// Every family is there once, every series of it too, in both details.
    #[test]
    fn nothing_is_there_twice() {
        let exports = crate::ExportMetrics::new();
        for name in ["main", "archive"] {
            let _ = (exports.exporter(name, &["connect"]), exports.group(name));
        }
        let dns = crate::DnsMetrics::new();
        for detail in [Detail::Summed, Detail::Shard] {
            let more = [exports.gather(), dns.gather()].concat();
            let log = LogFacts { kept: kept(), ..LogFacts::default() };
            let extra = Extra { detail, more, log, ..Extra::default() };
            let text = render(&two_shards(), &extra);
            let mut seen = BTreeSet::new();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let series = line.rsplit_once(' ').expect("a value").0;
                assert!(seen.insert(series), "twice: {series}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "mailrace_smtp_connections_total")]
    fn two_listeners_of_one_name_are_an_error() {
        render(&[ShardStats::new(0, &["mx", "mx"], NAMES)], &Extra::default());
    }

    fn kept() -> Vec<KeptLog> {
        let kept = |shard, start_offset, segments| KeptLog {
            shard,
            start_offset,
            segments,
            bytes: segments * 100,
        };
        // Shard 2 is of an earlier start.
        vec![kept(0, 10, 3), kept(1, 0, 1), kept(2, 7, 2)]
    }

    #[test]
    fn what_is_kept_is_measured_of_all_logs() {
        let log = LogFacts { kept: kept(), ..LogFacts::default() };
        let text = render(&two_shards(), &Extra { log, ..Extra::default() });
        check(
            &text,
            &[
                r#"mailrace_log_start_offset{shard="0"} 10"#,
                r#"mailrace_log_start_offset{shard="2"} 7"#,
                "mailrace_log_segments 6",
                "mailrace_log_size_bytes 600",
            ],
        );
    }

    #[test]
    fn trouble_of_readers_counts_with_the_shards() {
        let counts = crate::LogCounts::default();
        counts.error(LogOp::Read);
        counts.corrupt(CorruptStage::Read);
        let mut extra = Extra { log: counts.facts(), ..Extra::default() };
        let summed = [
            r#"mailrace_log_errors_total{op="read"} 1"#,
            r#"mailrace_log_errors_total{op="sync"} 2"#,
        ];
        check(&render(&two_shards(), &extra), &summed);
        extra.detail = Detail::Shard;
        let split = [
            r#"mailrace_log_errors_total{op="read"} 1"#,
            r#"mailrace_log_errors_total{op="sync",shard="1"} 1"#,
            r#"mailrace_log_corrupt_records_total{stage="read"} 1"#,
        ];
        check(&render(&two_shards(), &extra), &split);
    }

    #[test]
    fn some_families_carry_the_shard() {
        check(
            &render(&two_shards(), &Extra::default()),
            &[
                "# TYPE mailrace_smtp_sessions_active gauge",
                r#"mailrace_smtp_sessions_active{listener="mx",shard="0"} 1"#,
                r#"mailrace_smtp_messages_received_total{listener="mx",shard="1"} 10"#,
                r#"mailrace_log_end_offset{shard="1"} 70"#,
                r#"mailrace_shard_busy_seconds_total{shard="0"} 0.25"#,
            ],
        );
    }

    #[test]
    fn detail_splits_all() {
        let extra = Extra { detail: Detail::Shard, ..Extra::default() };
        let text = render(&two_shards(), &extra);
        check(&text, &[r#"mailrace_smtp_connections_total{listener="mx",shard="1"} 10"#]);
        assert!(!text.contains("mailrace_smtp_connections_total{listener=\"mx\"} "));
    }

    #[test]
    fn labelled_series_exist_at_zero() {
        check(
            &render(&two_shards(), &Extra::default()),
            &[
                r#"mailrace_smtp_connections_refused_total{listener="mx",reason="draining"} 0"#,
                r#"mailrace_smtp_messages_rejected_total{listener="mx",class="5xx",reason="auth"} 0"#,
                r#"mailrace_smtp_commands_total{command="ehlo"} 0"#,
                r#"mailrace_smtp_protocol_errors_total{reason="bare_lf"} 0"#,
                r#"mailrace_log_corrupt_records_total{stage="read"} 0"#,
                "mailrace_log_truncated_bytes_total 0",
            ],
        );
    }

    #[test]
    fn histograms_have_the_promised_buckets() {
        let text = render(&two_shards(), &Extra::default());
        check(
            &text,
            &[
                "# TYPE mailrace_smtp_message_ack_duration_seconds histogram",
                r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="0.0001"} 0"#,
                r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="0.00025"} 1"#,
                r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="0.0025"} 2"#,
                r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="50"} 2"#,
                r#"mailrace_smtp_message_ack_duration_seconds_bucket{listener="mx",le="+Inf"} 2"#,
                r#"mailrace_smtp_message_ack_duration_seconds_sum{listener="mx"} 0.00275"#,
                r#"mailrace_smtp_message_ack_duration_seconds_count{listener="mx"} 2"#,
                r#"mailrace_smtp_message_size_bytes_bucket{le="1024"} 1"#,
                r#"mailrace_smtp_message_size_bytes_bucket{le="16384"} 2"#,
            ],
        );
    }

    #[test]
    fn tls_families_are_of_listeners_that_have_it() {
        let mut shards = two_shards();
        assert!(!render(&shards, &Extra::default()).contains("mailrace_tls_"));
        for stats in &mut shards {
            let listener = &mut stats.listeners[0];
            listener.tls = true;
            listener.certificate_not_after = 2_000_000_000;
            listener.handshakes.increment(HandshakeResult::Ok);
            listener.handshake_duration.record_duration(Duration::from_micros(300));
            listener.truncated += 1;
            listener.malformed_names += 2;
        }
        check(
            &render(&shards, &Extra::default()),
            &[
                r#"mailrace_tls_handshakes_total{listener="mx",result="ok"} 2"#,
                r#"mailrace_tls_handshakes_total{listener="mx",result="failed"} 0"#,
                r#"mailrace_tls_handshake_duration_seconds_count{listener="mx"} 2"#,
                r#"mailrace_tls_truncated_total{listener="mx"} 2"#,
                r#"mailrace_tls_malformed_names_total{listener="mx"} 4"#,
                r#"mailrace_tls_certificate_expiry_timestamp_seconds{listener="mx"} 2000000000"#,
            ],
        );
    }

    #[test]
    fn no_shard_still_renders() {
        let extra = Extra {
            disk: Some(DiskFacts {
                free_bytes: 5,
                size_bytes: 9,
                state: DiskState::Full,
                reason: String::new(),
            }),
            process: ProcessFacts::read(),
            ..Extra::default()
        };
        let text = render(&[], &extra);
        check(&text, &["mailrace_shards 0", "mailrace_log_disk_state 2"]);
        assert!(text.contains("# TYPE process_cpu_seconds_total counter"));
    }
}
