//! The report as one file for a browser: hand-made SVG, nothing is fetched.

use std::fmt::Write;

use super::{Report, text};
use crate::cli::bench::loadtest::units::{show_count, show_seconds};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 24.0;
const COLOURS: [&str; 3] = ["#2563eb", "#d97706", "#dc2626"];

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>mailrace bench</title><style>\
body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2rem auto;padding:0 1rem;\
color-scheme:light dark}pre{overflow-x:auto;font-size:12px}svg{width:100%;height:auto}\
svg text{font-size:11px;fill:currentColor}svg .grid{stroke:currentColor;opacity:.15}\
table{border-collapse:collapse}td,th{padding:.15rem .8rem;text-align:right}\
td:first-child,th:first-child{text-align:left}</style></head><body>";

/// A line of points with a name.
struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// The whole page.
pub(in super::super) fn html(report: &Report) -> String {
    let mut out = String::from(HEAD);
    // Writing into a String cannot fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    write!(out, "<h1>{}</h1><pre>{}</pre>", escape(&report.target), escape(&text(report)))?;
    let seconds = |of: fn(&super::Interval) -> f64| -> Vec<(f64, f64)> {
        report.intervals.iter().map(|second| (second.seconds, of(second))).collect()
    };
    let rate = Series {
        name: "acked a second",
        points: seconds(|second| second.acked as f64 / second.length.max(1e-9)),
    };
    let count = |value: f64| show_count(value.round() as u64);
    let axis = |value: f64| format!("{value:.0} s");
    plot(out, "Rate", &[rate], count, axis)?;
    let latencies = [
        Series { name: "p50", points: seconds(|second| second.p50) },
        Series { name: "p99", points: seconds(|second| second.p99) },
        Series { name: "max", points: seconds(|second| second.max) },
    ];
    plot(out, "Response time", &latencies, show_seconds, axis)?;
    let e2e = report.e2e.as_ref().map(|e2e| ("e2e", &e2e.latency));
    if e2e.is_some() {
        let latencies = [
            Series { name: "p50", points: seconds(|second| second.e2e_p50.unwrap_or(0.0)) },
            Series { name: "p99", points: seconds(|second| second.e2e_p99.unwrap_or(0.0)) },
            Series { name: "max", points: seconds(|second| second.e2e_max.unwrap_or(0.0)) },
        ];
        plot(out, "From the 250 to a consumer", &latencies, show_seconds, axis)?;
    }
    let mut curves = Vec::new();
    let latency = &report.latency;
    let measured = [("response", &latency.response), ("service", &latency.service)];
    for (name, times) in measured.into_iter().chain(e2e) {
        if let Some(histogram) = times.histogram() {
            // One step to the right is one nine more.
            let points = (0..=50).map(|step| f64::from(step) / 10.0).map(|nines| {
                let quantile = 1.0 - 10_f64.powf(-nines);
                (nines, histogram.value_at_quantile(quantile) as f64 / 1e9)
            });
            curves.push(Series { name, points: points.collect() });
        }
    }
    let nines = |value: f64| match value.round() as usize {
        0 => "min".to_owned(),
        1 => "p90".to_owned(),
        2 => "p99".to_owned(),
        nines => format!("p99.{}", "9".repeat(nines - 2)),
    };
    plot(out, "Distribution", &curves, show_seconds, nines)?;
    write!(out, "<h2>Phases</h2><table><tr><th>phase<th>p50<th>p99<th>max")?;
    let tls = report.latency.tls.iter().map(|times| ("tls", times));
    let phases = report.latency.phases.iter().map(|(name, times)| (name.as_str(), times));
    for (name, times) in phases.chain(tls) {
        let [p50, p99, max] = [times.p50, times.p99, times.max].map(show_seconds);
        write!(out, "<tr><td>{}<td>{p50}<td>{p99}<td>{max}", escape(name))?;
    }
    let environment = &report.environment;
    write!(
        out,
        "</table><h2>Environment</h2><p>{}, {}, {} CPUs of {}, Linux {}, load tester {}</p>",
        escape(&environment.time),
        escape(&environment.host),
        environment.cpus,
        escape(&environment.cpu),
        escape(&environment.kernel),
        escape(&environment.version),
    )?;
    let options = serde_json::to_string_pretty(&report.options).unwrap_or_default();
    write!(out, "<h2>Options</h2><pre>{}</pre></body></html>", escape(&options))
}

fn plot(
    out: &mut String,
    title: &str,
    series: &[Series],
    show_y: impl Fn(f64) -> String,
    show_x: impl Fn(f64) -> String,
) -> std::fmt::Result {
    let points = || series.iter().flat_map(|series| &series.points);
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let (x_max, y_max) = (
        largest(&mut points().map(|point| point.0)).max(1.0),
        largest(&mut points().map(|point| point.1)).max(1e-9) * 1.05,
    );
    let x = |value: f64| LEFT + value / x_max * (WIDTH - LEFT - 8.0);
    let y = |value: f64| (HEIGHT - BOTTOM) * (1.0 - value / y_max) + 4.0;
    write!(
        out,
        "<h2>{title}</h2><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{title}\">",
        HEIGHT + 20.0
    )?;
    for step in 0..=4 {
        let value = y_max * f64::from(step) / 4.0;
        let at = y(value);
        write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            show_y(value),
        )?;
    }
    for step in 0..=5 {
        let value = x_max * f64::from(step) / 5.0;
        write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(value).min(WIDTH - 20.0),
            HEIGHT - 4.0,
            show_x(value),
        )?;
    }
    for (number, line) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        write!(out, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"")?;
        for (at, value) in &line.points {
            write!(out, "{:.1},{:.1} ", x(*at), y(*value))?;
        }
        write!(
            out,
            "\"/><text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">{}</text>",
            LEFT + 120.0 * number as f64,
            HEIGHT + 14.0,
            line.name,
        )?;
    }
    write!(out, "</svg>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_fetches_nothing_and_escapes() {
        let mut report = super::super::tests::sample();
        report.target = "smtp://<b>".to_owned();
        let page = html(&report);
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(page.contains("smtp://&lt;b&gt;") && !page.contains("<b>"));
        for fetch in ["src=", "href=", "url(", "http:", "https:", "@import"] {
            assert!(!page.contains(fetch), "{fetch}");
        }
    }
}
