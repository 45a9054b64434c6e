//! OpenMetrics 1.0 in text. It differs from Prometheus' own text in the names of counters' families,
//! in how bounds are written, and in its end, without which a page counts as cut off.

use super::Family;
use prometheus::proto::{Metric, MetricFamily, MetricType};
use std::fmt::Write;

/// Writes all families.
pub(super) fn encode(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        // Writing to a string cannot fail.
        let _ = one(&mut text, &family.family);
    }
    text.push_str("# EOF\n");
    text
}

fn one(out: &mut String, family: &MetricFamily) -> std::fmt::Result {
    let kind = family.get_field_type();
    let (name, kind_name) = match kind {
        // The samples keep the suffix, the family has none.
        MetricType::COUNTER => {
            (family.name().strip_suffix("_total").unwrap_or(family.name()), "counter")
        }
        MetricType::HISTOGRAM => (family.name(), "histogram"),
        _ => (family.name(), "gauge"),
    };
    writeln!(out, "# TYPE {name} {kind_name}")?;
    if let Some(unit) = ["seconds", "bytes"].iter().find(|unit| name.ends_with(&format!("_{unit}")))
    {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    writeln!(out, "# HELP {name} {}", escaped(family.help()))?;
    for metric in family.get_metric() {
        match kind {
            MetricType::COUNTER => {
                let value = metric.get_counter().get_value();
                sample(out, &format!("{name}_total"), metric, None, value)?;
            }
            MetricType::HISTOGRAM => histogram(out, name, metric)?,
            _ => sample(out, name, metric, None, metric.get_gauge().get_value())?,
        }
    }
    Ok(())
}

fn histogram(out: &mut String, name: &str, metric: &Metric) -> std::fmt::Result {
    let histogram = metric.get_histogram();
    let (buckets, count) = (format!("{name}_bucket"), histogram.get_sample_count() as f64);
    for bucket in histogram.get_bucket() {
        let bound = canonical(bucket.upper_bound());
        sample(out, &buckets, metric, Some(&bound), bucket.cumulative_count() as f64)?;
    }
    sample(out, &buckets, metric, Some("+Inf"), count)?;
    sample(out, &format!("{name}_count"), metric, None, count)?;
    sample(out, &format!("{name}_sum"), metric, None, histogram.get_sample_sum())
}

fn sample(
    out: &mut String,
    name: &str,
    metric: &Metric,
    bound: Option<&str>,
    value: f64,
) -> std::fmt::Result {
    out.push_str(name);
    let labels = metric.get_label().iter().map(|pair| (pair.name(), pair.value()));
    let mut open = '{';
    for (label, text) in labels.chain(bound.map(|bound| ("le", bound))) {
        write!(out, "{open}{label}=\"{}\"", escaped(text))?;
        open = ',';
    }
    if open == ',' {
        out.push('}');
    }
    writeln!(out, " {value}")
}

/// A bound as Go writes it: the form is part of the series' name, so it has to be always the same.
fn canonical(bound: f64) -> String {
    if bound < 1e6 {
        let text = bound.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    let text = format!("{bound:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => format!("{digits}e+{exponent:0>2}"),
        None => text,
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_go_does() {
        for (bound, wanted) in [
            (0.0001, "0.0001"),
            (1.0, "1.0"),
            (2.5, "2.5"),
            (262_144.0, "262144.0"),
            (1_048_576.0, "1.048576e+06"),
            (67_108_864.0, "6.7108864e+07"),
        ] {
            assert_eq!(canonical(bound), wanted);
        }
    }
}
