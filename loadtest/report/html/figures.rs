//! The charts of the page.

use super::{
    super::Report,
    chart::{Axis, Chart},
};
use crate::{
    options::parse_stages,
    units::{show_bytes, show_count, show_seconds},
};

const HEIGHT: f64 = 260.0;
const LOW: f64 = 190.0;
/// Columns of the heat map; longer runs have several seconds in one.
const COLUMNS_MAX: usize = 160;
const MIB: f64 = 1_048_576.0;

pub(super) fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    if !report.intervals.is_empty() {
        rate(out, report)?;
        heat(out, report)?;
        e2e(out, report)?;
    }
    percentiles(out, report)?;
    server(out, report)
}

fn end(report: &Report) -> f64 {
    report.intervals.last().map_or(1.0, |last| last.seconds + last.length)
}

/// What the schedule asked for, as stretches of constant rate; empty in a closed loop.
fn offered(report: &Report) -> Vec<(f64, f64, f64)> {
    let options = &report.options;
    if options["loop"].as_str() != Some("open") {
        return Vec::new();
    }
    if let Some(rate) = options["rate_per_second"].as_f64() {
        return vec![(0.0, end(report), rate)];
    }
    let stages = options["stages"].as_str().and_then(|text| parse_stages(text).ok());
    let mut at = 0.0;
    let mut steps = Vec::new();
    for stage in stages.unwrap_or_default() {
        let to = at + stage.length / 1e9;
        steps.push((at, to.min(end(report)), stage.rate));
        at = to;
    }
    steps.retain(|(from, to, _)| from < to);
    steps
}

fn rate(out: &mut String, report: &Report) -> std::fmt::Result {
    // A few milliseconds at the end make no rate.
    let is_long = |length: f64| length > 0.2 || report.intervals.len() == 1;
    let seconds = report.intervals.iter().filter(|second| is_long(second.length));
    let achieved: Vec<_> = seconds
        .map(|second| {
            let rate = second.acked as f64 / second.length.max(1e-9);
            (second.seconds, second.seconds + second.length, rate)
        })
        .collect();
    let offered = offered(report);
    let most = achieved.iter().chain(&offered).map(|step| step.2).fold(0.0, f64::max);
    let show = |value: f64| show_count(value.round() as u64);
    let chart = Chart {
        id: "rate",
        title: "Messages acknowledged per second",
        description: format!(
            "On average {} messages per second were acknowledged; {}. The table below has the \
             numbers for each second.",
            show(report.rate.messages_per_second),
            if offered.is_empty() {
                "a closed loop offers no rate"
            } else {
                "the offered rate is the dashed line"
            },
        ),
        height: HEIGHT,
        x: Axis::time(end(report)),
        y: Axis::linear(most, 5.0, show),
    };
    let legend = [("a", "acknowledged"), ("b dash", "offered by the schedule")];
    chart.open(out, if offered.is_empty() { &legend[..1] } else { &legend })?;
    chart.steps(out, "a", &achieved)?;
    if !offered.is_empty() {
        chart.steps(out, "b dash", &offered)?;
    }
    chart.close(out)
}

fn heat(out: &mut String, report: &Report) -> std::fmt::Result {
    let Some(heat) = &report.heat else { return lines(out, report) };
    let (Some(least), Some(most)) = (heat.limits.first(), heat.limits.last()) else {
        return Ok(());
    };
    let p99: Vec<_> = report
        .intervals
        .iter()
        .filter(|second| second.acked > 0)
        .map(|second| (second.seconds + second.length / 2.0, second.p99))
        .collect();
    let response = &report.latency.response;
    let chart = Chart {
        id: "heat",
        title: "Response time over time",
        description: format!(
            "Heat map: the darker a field, the more messages were answered in that time; p50 {}, \
             p99 {}, max {}.",
            show_seconds(response.p50),
            show_seconds(response.p99),
            show_seconds(response.max),
        ),
        height: HEIGHT + 40.0,
        x: Axis::time(end(report)),
        y: Axis::log(*least, *most, 14, tick_seconds),
    };
    chart.open(
        out,
        &[("b", "p99 of each second"), ("heatkey", "the more messages, the stronger the colour")],
    )?;
    let group = report.intervals.len().div_ceil(COLUMNS_MAX).max(1);
    let columns = report.intervals.chunks(group).zip(heat.counts.chunks(group));
    let columns: Vec<_> = columns
        .map(|(seconds, counts)| {
            let from = seconds[0].seconds;
            let last = &seconds[seconds.len() - 1];
            let mut sum = vec![0; heat.limits.len().saturating_sub(1)];
            for counts in counts {
                for (sum, count) in sum.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
            (from, last.seconds + last.length, sum)
        })
        .collect();
    let most = columns.iter().flat_map(|column| &column.2).copied().max().unwrap_or(1).max(1);
    for (from, to, sum) in &columns {
        for (band, count) in sum.iter().enumerate().filter(|(_, count)| **count > 0) {
            // One message must be seen beside ten thousand.
            let share = (1.0 + *count as f64).ln() / (1.0 + most as f64).ln();
            chart.cell(out, (*from, *to), (heat.limits[band], heat.limits[band + 1]), share)?;
        }
    }
    chart.line(out, "b", p99)?;
    chart.close(out)
}

/// Of reports saved before there was a heat map.
fn lines(out: &mut String, report: &Report) -> std::fmt::Result {
    let of = |value: fn(&super::super::Interval) -> f64| -> Vec<(f64, f64)> {
        let seconds = report.intervals.iter().filter(|second| second.acked > 0);
        seconds.map(|second| (second.seconds + second.length / 2.0, value(second))).collect()
    };
    let lines = [of(|second| second.p50), of(|second| second.p99), of(|second| second.max)];
    quantile_lines(out, report, "response", "Response time over time", &lines)
}

fn e2e(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.e2e.is_none() {
        return Ok(());
    }
    let of = |value: fn(&super::super::Interval) -> Option<f64>| -> Vec<(f64, f64)> {
        let middle = |second: &super::super::Interval| second.seconds + second.length / 2.0;
        let seconds = report.intervals.iter();
        seconds.filter_map(|second| Some((middle(second), value(second)?))).collect()
    };
    let lines =
        [of(|second| second.e2e_p50), of(|second| second.e2e_p99), of(|second| second.e2e_max)];
    quantile_lines(out, report, "e2e", "From the 250 to a consumer", &lines)
}

/// Least and greatest of the values that a logarithmic scale can show.
fn extent<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Option<(f64, f64)> {
    let values = points.map(|point| point.1).filter(|value| *value > 0.0);
    values.fold(None, |extent, value| {
        let (least, most) = extent.unwrap_or((value, value));
        Some((least.min(value), most.max(value)))
    })
}

fn quantile_lines(
    out: &mut String,
    report: &Report,
    id: &str,
    title: &str,
    lines: &[Vec<(f64, f64)>; 3],
) -> std::fmt::Result {
    let Some((least, most)) = extent(lines.iter().flatten()) else { return Ok(()) };
    let chart = Chart {
        id,
        title,
        description: format!(
            "p50, p99 and the longest of each second, between {} and {}.",
            show_seconds(least),
            show_seconds(most)
        ),
        height: HEIGHT,
        x: Axis::time(end(report)),
        y: Axis::log(least, most, 12, tick_seconds),
    };
    let legend = [("a", "p50"), ("b", "p99"), ("c", "max")];
    chart.open(out, &legend)?;
    for (line, (class, _)) in lines.iter().zip(legend) {
        chart.line(out, class, line.iter().copied())?;
    }
    chart.close(out)
}

fn percentiles(out: &mut String, report: &Report) -> std::fmt::Result {
    let latency = &report.latency;
    let mut curves = Vec::new();
    let e2e = report.e2e.as_ref().map(|e2e| ("c", "from the 250 to a consumer", &e2e.latency));
    let times = [("a", "response", &latency.response), ("b dash", "service", &latency.service)];
    let mut nines_max = 1_f64;
    for (class, name, times) in times.into_iter().chain(e2e) {
        let Some(histogram) = times.histogram().filter(|times| !times.is_empty()) else { continue };
        // A part smaller than one message is none. One step to the right is one nine more.
        let nines = (histogram.len() as f64).log10().clamp(1.0, 5.0);
        nines_max = nines_max.max(nines);
        let points = (0..=100).map(|step| f64::from(step) / 100.0 * nines).map(|nines| {
            let quantile = 1.0 - 10_f64.powf(-nines);
            (nines, histogram.value_at_quantile(quantile) as f64 / 1e9)
        });
        curves.push((class, name, points.collect::<Vec<_>>()));
    }
    let points = curves.iter().flat_map(|curve| &curve.2);
    let Some((least, most)) = extent(points) else { return Ok(()) };
    let names = [
        (0.0, "min"),
        (0.301, "p50"),
        (1.0, "p90"),
        (2.0, "p99"),
        (3.0, "p99.9"),
        (4.0, "p99.99"),
        (5.0, "p99.999"),
    ];
    let ticks = names.into_iter().filter(|(at, _)| *at <= nines_max + 0.001);
    let ticks = ticks.map(|(at, name)| (at, name.to_owned())).collect();
    let response = &latency.response;
    let chart = Chart {
        id: "percentiles",
        title: "Latency by percentile",
        description: format!(
            "Response time: p50 {}, p90 {}, p99 {}, p99.9 {}, max {}.",
            show_seconds(response.p50),
            show_seconds(response.p90),
            show_seconds(response.p99),
            show_seconds(response.p999),
            show_seconds(response.max),
        ),
        height: HEIGHT,
        x: Axis::named(nines_max, ticks),
        y: Axis::log(least, most, 12, tick_seconds),
    };
    let legend: Vec<_> = curves.iter().map(|(class, name, _)| (*class, *name)).collect();
    chart.open(out, &legend)?;
    for (class, _, points) in curves {
        chart.line(out, class, points)?;
    }
    chart.close(out)
}

fn server(out: &mut String, report: &Report) -> std::fmt::Result {
    let Some(server) = report.server.as_ref().filter(|server| !server.samples.is_empty()) else {
        return Ok(());
    };
    let samples = &server.samples;
    let end = samples.iter().map(|sample| sample.seconds).fold(end(report), f64::max);
    let most = samples.iter().map(|sample| sample.cpu * 100.0).fold(0.0, f64::max);
    let chart = Chart {
        id: "cpu",
        title: "Server CPU (100 % is one processor)",
        description: format!("{:.0} % on average, {most:.0} % at most.", server.cpu_mean * 100.0),
        height: LOW,
        x: Axis::time(end),
        y: Axis::linear(most, 4.0, |value| format!("{} %", round(value))),
    };
    chart.open(out, &[("d", "all threads of the server")])?;
    chart.line(out, "d", samples.iter().map(|sample| (sample.seconds, sample.cpu * 100.0)))?;
    chart.close(out)?;
    let most = server.resident_bytes_max as f64 / MIB;
    let chart = Chart {
        id: "memory",
        title: "Server memory",
        description: format!("{} resident at most.", show_bytes(most * MIB)),
        height: LOW,
        x: Axis::time(end),
        y: Axis::linear(most, 4.0, |value| format!("{} MiB", round(value))),
    };
    chart.open(out, &[("c", "resident")])?;
    let points = samples.iter().map(|one| (one.seconds, one.resident_bytes as f64 / MIB));
    chart.line(out, "c", points)?;
    chart.close(out)
}

/// A round number without digits that say nothing.
fn round(value: f64) -> String {
    if value >= 1_000.0 {
        show_count(value.round() as u64)
    } else {
        format!("{}", (value * 1e3).round() / 1e3)
    }
}

/// `500us`, `2ms`, `1s`: ticks are round.
fn tick_seconds(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.000_99 => (s * 1e6, "us"),
        s if s < 0.99 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{} {unit}", round(value))
}
