//! The protobuf form: `io.prometheus.client.MetricFamily`, each with its length in front. Its
//! histograms are there twice, with the classic buckets and as native ones; Prometheus takes the one
//! or the other.

use super::{
    Family,
    native::{Native, SCHEMA},
};
use prometheus::proto::{Metric, MetricType};
use prost::Message;

/// Values closer to 0 count as 0: 2^-128, the default of Prometheus' own libraries.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

// The fields that are used here, by their numbers in metrics.proto of prometheus/client_model.

#[derive(Clone, PartialEq, Message)]
struct FamilyMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    /// 0 counter, 1 gauge, 4 histogram.
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metrics: Vec<MetricMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricMessage {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelMessage>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<NumberMessage>,
    #[prost(message, optional, tag = "3")]
    counter: Option<NumberMessage>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<HistogramMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Counter and Gauge.
#[derive(Clone, PartialEq, Message)]
struct NumberMessage {
    #[prost(double, tag = "1")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramMessage {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    buckets: Vec<BucketMessage>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    spans: Vec<SpanMessage>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    deltas: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketMessage {
    #[prost(uint64, tag = "1")]
    cumulative_count: u64,
    #[prost(double, tag = "2")]
    upper_bound: f64,
}

/// Buckets in a row.
#[derive(Clone, PartialEq, Message)]
struct SpanMessage {
    /// Of the first, its number; of the others, how many were left out.
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

/// Writes all families.
pub(super) fn encode(families: &[Family]) -> Vec<u8> {
    let mut octets = Vec::new();
    for family in families {
        octets.extend(message(family).encode_length_delimited_to_vec());
    }
    octets
}

fn message(family: &Family) -> FamilyMessage {
    let kind = family.family.get_field_type();
    let metrics = family.family.get_metric().iter().enumerate();
    FamilyMessage {
        name: family.family.name().to_owned(),
        help: family.family.help().to_owned(),
        kind: match kind {
            MetricType::COUNTER => 0,
            MetricType::HISTOGRAM => 4,
            _ => 1,
        },
        metrics: metrics.map(|(at, metric)| one(metric, kind, family.natives.get(at))).collect(),
    }
}

fn one(metric: &Metric, kind: MetricType, native: Option<&Native>) -> MetricMessage {
    let label = |(name, value): (&str, &str)| LabelMessage {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let labels = metric.get_label().iter().map(|pair| label((pair.name(), pair.value())));
    let mut message = MetricMessage { labels: labels.collect(), ..MetricMessage::default() };
    match kind {
        MetricType::COUNTER => {
            message.counter = Some(NumberMessage { value: metric.get_counter().get_value() });
        }
        MetricType::HISTOGRAM => message.histogram = Some(histogram(metric, native)),
        _ => message.gauge = Some(NumberMessage { value: metric.get_gauge().get_value() }),
    }
    message
}

fn histogram(metric: &Metric, native: Option<&Native>) -> HistogramMessage {
    let classic = metric.get_histogram();
    let buckets = classic.get_bucket().iter().map(|bucket| BucketMessage {
        cumulative_count: bucket.cumulative_count(),
        upper_bound: bucket.upper_bound(),
    });
    let mut message = HistogramMessage {
        count: classic.get_sample_count(),
        sum: classic.get_sample_sum(),
        buckets: buckets.collect(),
        ..HistogramMessage::default()
    };
    let Some(native) = native else { return message };
    message.schema = Some(SCHEMA);
    message.zero_threshold = ZERO_THRESHOLD;
    message.zero_count = native.zero;
    let (mut next, mut last) = (None, 0);
    for &(number, count) in &native.buckets {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        match (next, message.spans.last_mut()) {
            (Some(next), Some(span)) if next == number => span.length += 1,
            _ => {
                let offset = number - next.unwrap_or(0);
                message.spans.push(SpanMessage { offset, length: 1 });
            }
        }
        message.deltas.push(count - last);
        (next, last) = (Some(number + 1), count);
    }
    if message.spans.is_empty() {
        // An empty span says that there is a native histogram that has counted nothing yet.
        message.spans.push(SpanMessage::default());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_in_a_row_are_one_span() {
        let native = Native { zero: 2, buckets: vec![(-3, 5), (-2, 7), (4, 1)] };
        let message = histogram(&Metric::default(), Some(&native));
        let spans: Vec<_> = message.spans.iter().map(|span| (span.offset, span.length)).collect();
        assert_eq!((spans, message.deltas), (vec![(-3, 2), (5, 1)], vec![5, 2, -6]));
        let empty = histogram(&Metric::default(), Some(&Native::default()));
        assert_eq!(empty.spans, [SpanMessage { offset: 0, length: 0 }]);
        assert_eq!(histogram(&Metric::default(), None).schema, None);
    }
}
