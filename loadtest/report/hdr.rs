//! HdrHistogram's forms: the interval log and the percentile list.

use std::fmt::Write;

use base64::Engine as _;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use super::Report;
use crate::{
    measure::{Measure, unpack},
    units::show_seconds,
};

/// An HdrHistogram log, version 1.3: a compressed histogram of nanoseconds for each second.
pub(in super::super) fn hdr_log(measure: &Measure) -> String {
    let mut out = String::from(
        "#[Histogram log format version 1.3]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
    );
    for (interval, histogram) in measure.intervals.iter().zip(&measure.interval_histograms) {
        let mut octets = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&unpack(histogram), &mut octets)
            .expect("a histogram of our bounds fits its form, and memory takes it");
        let histogram = base64::engine::general_purpose::STANDARD.encode(octets);
        // Writing into a String cannot fail; the largest value is told in milliseconds.
        let _ = writeln!(
            out,
            "{:.3},{:.3},{:.3},{histogram}",
            interval.seconds,
            interval.length,
            interval.max * 1e3,
        );
    }
    out
}

/// Response times, each line halving what is left above it.
pub(in super::super) fn full_percentiles(report: &Report) -> String {
    let mut out = String::from("\n response    percentile        count\n");
    let Some(histogram) = report.latency.response.histogram() else { return out };
    for step in histogram.iter_quantiles(1) {
        let value = show_seconds(step.value_iterated_to() as f64 / 1e9);
        let quantile = step.quantile_iterated_to() * 100.0;
        let count = histogram.count_between(0, step.value_iterated_to());
        // Writing into a String cannot fail.
        let _ = writeln!(out, " {value:>9} {quantile:>13.6} {count:>12}");
    }
    out
}
