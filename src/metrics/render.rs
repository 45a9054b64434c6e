//! A page of metrics, in any of its forms.

use super::{Extra, Family, Format, ShardStats, families::Families, openmetrics, protobuf};
use prometheus::{TextEncoder, proto::MetricFamily};
use std::collections::BTreeSet;

/// Renders all shards as one page.
#[must_use]
pub fn render(shards: &[ShardStats], extra: &Extra, format: Format) -> Vec<u8> {
    let mut families = Families::new(shards, extra.detail, format == Format::Protobuf);
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
    encode(families.list, format)
}

fn encode(families: Vec<Family>, format: Format) -> Vec<u8> {
    match format {
        Format::Text => {
            let families: Vec<MetricFamily> =
                families.into_iter().map(|family| family.family).collect();
            let text = TextEncoder::new().encode_to_string(&families);
            text.expect("no family is empty, and writing to a string cannot fail").into_bytes()
        }
        Format::OpenMetrics => openmetrics::encode(&families).into_bytes(),
        Format::Protobuf => protobuf::encode(&families),
    }
}

/// A family, or a series of one, that is there twice.
fn doubled(families: &[Family]) -> Option<String> {
    let mut names = BTreeSet::new();
    let families = || families.iter().map(|family| &family.family);
    let twice = families().find(|family| !names.insert(family.name()));
    if let Some(family) = twice {
        return Some(family.name().to_owned());
    }
    families().find_map(|family| {
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
