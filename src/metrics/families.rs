//! What families are made of: a set of samples for each shard or for their sum.

use super::{Detail, Distribution, Label, ListenerStats, ShardStats, Tally, native::Native};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// 100 us to 50 s in 1-2.5-5 steps.
const DURATION_BOUNDS_US: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000,
];
/// 1 KiB to 64 MiB in steps of four; the default message size limit lies in the one before last.
const SIZE_BOUNDS: [u64; 9] =
    [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26];
const COUNT_BOUNDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// One family, and its histograms as native ones as well, where they were asked for: one for each
/// metric then, in their order.
#[derive(Clone, Debug)]
pub struct Family {
    pub(super) family: MetricFamily,
    pub(super) natives: Vec<Native>,
}

impl Family {
    /// `None` without samples, which an encoder takes for an error.
    pub(super) fn new(
        name: &str,
        help: &str,
        kind: MetricType,
        samples: Vec<Sample>,
    ) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        let (metrics, natives): (Vec<_>, Vec<_>) =
            samples.into_iter().map(|sample| (sample.metric, sample.native)).unzip();
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        Some(Self { family, natives: natives.into_iter().flatten().collect() })
    }
}

impl From<MetricFamily> for Family {
    /// One of the crate's own collectors, which know no native histograms.
    fn from(family: MetricFamily) -> Self {
        Self { family, natives: Vec::new() }
    }
}

/// One series, or one histogram.
pub(super) struct Sample {
    metric: Metric,
    native: Option<Native>,
}

/// One sample's value.
pub(super) enum Value<'a> {
    Number(f64),
    Histogram(&'a Distribution, Scale),
}

/// Bounds of a histogram and its unit.
#[derive(Clone, Copy)]
pub(super) enum Scale {
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

pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;
pub(super) type Samples<'a> = Vec<(Labels<'a>, Value<'a>)>;

/// The families of a page, as they come to be.
pub(super) struct Families<'a> {
    pub(super) shards: &'a [ShardStats],
    merged: Option<ShardStats>,
    pub(super) split_all: bool,
    native: bool,
    pub(super) list: Vec<Family>,
}

impl<'a> Families<'a> {
    pub(super) fn new(shards: &'a [ShardStats], detail: Detail, native: bool) -> Self {
        let merged = shards.split_first().map(|(first, rest)| {
            let mut merged = first.clone();
            for stats in rest {
                merged.merge(stats);
            }
            merged
        });
        Families { shards, merged, split_all: detail == Detail::Shard, native, list: Vec::new() }
    }

    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        split: bool,
        of: fn(&ShardStats) -> u64,
    ) {
        self.family(name, help, MetricType::COUNTER, split, |s| {
            vec![(Vec::new(), Value::Number(of(s) as f64))]
        });
    }

    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        split: bool,
        of: fn(&ShardStats) -> u64,
    ) {
        self.family(name, help, MetricType::GAUGE, split, |s| {
            vec![(Vec::new(), Value::Number(of(s) as f64))]
        });
    }

    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        samples: fn(&ShardStats) -> Samples<'_>,
    ) {
        self.family(name, help, MetricType::COUNTER, false, samples);
    }

    pub(super) fn listener_counter(
        &mut self,
        name: &str,
        help: &str,
        of: fn(&ListenerStats) -> u64,
    ) {
        self.family(name, help, MetricType::COUNTER, false, |s| {
            each_listener(s, |l| Value::Number(of(l) as f64))
        });
    }

    pub(super) fn listener_duration(
        &mut self,
        name: &str,
        help: &str,
        of: fn(&ListenerStats) -> &Distribution,
    ) {
        self.family(name, help, MetricType::HISTOGRAM, false, |s| {
            each_listener(s, |l| Value::Histogram(of(l), Scale::Seconds))
        });
    }

    pub(super) fn histogram(
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
    pub(super) fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        split: bool,
        samples: impl for<'s> Fn(&'s ShardStats) -> Samples<'s>,
    ) {
        let mut all = Vec::new();
        if split || self.split_all {
            for stats in self.shards {
                for (labels, value) in samples(stats) {
                    all.push(sample(&labels, Some(stats.shard), kind, value, self.native));
                }
            }
        } else if let Some(merged) = &self.merged {
            for (labels, value) in samples(merged) {
                all.push(sample(&labels, None, kind, value, self.native));
            }
        }
        self.push(&format!("mailrace_{name}"), help, kind, all);
    }

    pub(super) fn plain_gauge(&mut self, name: &str, help: &str, value: f64) {
        let samples = vec![number(&[], None, MetricType::GAUGE, value)];
        self.push(name, help, MetricType::GAUGE, samples);
    }

    pub(super) fn shards_and<L: Label>(
        &mut self,
        name: &str,
        help: &str,
        others: &Tally<L>,
        label: &'static str,
        of: fn(&ShardStats) -> &Tally<L>,
    ) {
        let kind = MetricType::COUNTER;
        let samples = |shard, counts: &Tally<L>| -> Vec<Sample> {
            let each = plain(label, counts.iter()).into_iter();
            each.map(|(labels, value)| sample(&labels, shard, kind, value, false)).collect()
        };
        let mut sum = others.clone();
        let mut all = Vec::new();
        for stats in self.shards {
            sum.merge(of(stats));
            if self.split_all {
                all.extend(samples(Some(stats.shard), of(stats)));
            }
        }
        all.extend(samples(None, if self.split_all { others } else { &sum }));
        self.push(&format!("mailrace_{name}"), help, kind, all);
    }

    pub(super) fn push(&mut self, name: &str, help: &str, kind: MetricType, samples: Vec<Sample>) {
        self.list.extend(Family::new(name, help, kind, samples));
    }
}

pub(super) fn each_listener<'s>(
    stats: &'s ShardStats,
    value: impl Fn(&'s ListenerStats) -> Value<'s>,
) -> Samples<'s> {
    stats.listeners.iter().map(|l| (vec![("listener", &*l.name)], value(l))).collect()
}

pub(super) fn tls_listener<'s>(
    stats: &'s ShardStats,
    value: impl Fn(&'s ListenerStats) -> Value<'s>,
) -> Samples<'s> {
    let listeners = stats.listeners.iter().filter(|l| l.tls);
    listeners.map(|l| (vec![("listener", &*l.name)], value(l))).collect()
}

pub(super) fn by_listener<'s>(
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

pub(super) fn named(
    label: &'static str,
    names: &[&'static str],
    counts: &[u64],
) -> Samples<'static> {
    plain(label, names.iter().copied().zip(counts.iter().copied()))
}

/// One series without a histogram.
pub(super) fn number(
    labels: &[(&'static str, &str)],
    shard: Option<u32>,
    kind: MetricType,
    value: f64,
) -> Sample {
    sample(labels, shard, kind, Value::Number(value), false)
}

/// One series, or one histogram; `native`: as a native one as well.
pub(super) fn sample(
    labels: &[(&'static str, &str)],
    shard: Option<u32>,
    kind: MetricType,
    value: Value<'_>,
    native: bool,
) -> Sample {
    let shard = shard.map(|shard| shard.to_string());
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    let shard = shard.as_deref().map(|shard| ("shard", shard));
    let mut metric = Metric::from_label(labels.iter().copied().chain(shard).map(pair).collect());
    let mut also = None;
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
            also = native.then(|| Native::of(distribution, scale.unit()));
        }
    }
    Sample { metric, native: also }
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
