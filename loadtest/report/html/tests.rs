use super::{
    super::{
        EndToEnd, Heat, Interval, ServerSample, ServerUsage, Try, csv::csv, tests::sample, text,
    },
    chart::{CHAR, round_step},
    *,
};

/// Height of a label.
const LINE: f64 = 14.0;

/// A run of everything that a page can show, always the same.
fn full(seconds: u32, rate: f64) -> Report {
    let mut report = sample();
    let second = |at: u32| Interval {
        seconds: f64::from(at),
        length: 1.0,
        acked: (rate * (0.9 + 0.1 * f64::from(at % 3))) as u64,
        bytes: 10_240_000,
        p50: 0.000_8,
        p99: 0.004 + 0.001 * f64::from(at % 5),
        max: 0.02,
        e2e_p50: Some(0.001),
        e2e_p99: Some(0.003),
        e2e_max: Some(0.004),
        ..Interval::default()
    };
    report.intervals = (0..seconds).map(second).collect();
    report.options = serde_json::json!({
        "loop": "open", "rate_per_second": rate, "arrivals": "constant", "connections": 50,
        "duration_seconds": f64::from(seconds), "warmup_seconds": 3.0, "size": "10k",
        "search": "p99<50ms",
    });
    let limits: Vec<f64> = (0..=16).map(|at| 1e-4 * 10_f64.powf(f64::from(at) / 8.0)).collect();
    let band = |at: u32, band: u32| u64::from((at * 7 + band * 3) % 11) * 100;
    let counts = (0..seconds).map(|at| (0..16).map(|row| band(at, row)).collect()).collect();
    report.heat = Some(Heat { limits, counts });
    let used = |at: u32| ServerSample {
        seconds: f64::from(at) / 2.0,
        cpu: 0.5 + 0.1 * f64::from(at % 4),
        resident_bytes: (40 << 20) + u64::from(at) * 100_000,
    };
    report.server = Some(ServerUsage {
        pid: 4711,
        name: "mailrace".to_owned(),
        cpu_mean: 0.65,
        resident_bytes_max: 43 << 20,
        samples: (1..2 * seconds).map(used).collect(),
    });
    report.e2e =
        Some(EndToEnd { latency: report.latency.response.clone(), before_ack: 1, unseen: 0 });
    report.replies.insert(554, 12);
    report.errors.samples.insert(554, "5.7.1 <go> away".to_owned());
    report.search =
        Some(vec![Try { asked_per_second: 500.0, got_per_second: 499.0, p99: 0.01, holds: true }]);
    let tally = super::super::Tally { connections: 321, left: 7, ..Default::default() };
    report.scenario = Some([("slow".to_owned(), tally)].into());
    report.latency.phases.insert("ack".to_owned(), report.latency.service.clone());
    report.latency.phases.insert("mail+rcpt".to_owned(), report.latency.service.clone());
    report.latency.phases.insert("auth".to_owned(), Distribution::default());
    report.latency.phases.insert("banner".to_owned(), report.latency.service.clone());
    report
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

/// Left, right, top and bottom of each label of a chart, and what it says.
fn labels(svg: &str) -> Vec<([f64; 4], String)> {
    let texts = svg.split("<text").skip(1).map(|rest| rest.split_once("</text>").unwrap().0);
    texts
        .map(|text| {
            let (tag, label) = text.split_once('>').unwrap();
            let number = |name| attribute(tag, name).unwrap().parse::<f64>().unwrap();
            let (x, y) = (number("x"), number("y"));
            let label = label.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
            let width = label.chars().count() as f64 * CHAR;
            let left = match attribute(tag, "text-anchor").as_deref() {
                Some("end") => x - width,
                Some("middle") => x - width / 2.0,
                _ => x,
            };
            ([left, left + width, y - LINE + 3.0, y + 3.0], label)
        })
        .collect()
}

#[test]
fn no_label_is_cut_and_none_overlaps() {
    for (seconds, rate) in
        [(1, 3.0), (2, 700.0), (7, 12_345.0), (10, 20_000.0), (59, 1e6), (3_600, 1.5e7)]
    {
        let page = html(&full(seconds, rate));
        let charts: Vec<&str> =
            page.split("<svg").skip(1).map(|rest| rest.split_once("</svg>").unwrap().0).collect();
        assert_eq!(charts.len(), 6, "rate, heat map, consumer, percentiles, CPU, memory");
        for svg in charts {
            let view = attribute(&format!(" {svg}"), "viewBox").unwrap();
            let view: Vec<f64> = view.split(' ').map(|one| one.parse().unwrap()).collect();
            let labels = labels(svg);
            assert!(labels.len() > 5, "{labels:?}");
            for (at, (box_, label)) in labels.iter().enumerate() {
                let [left, right, top, bottom] = *box_;
                let inside = left >= 0.0 && right <= view[2] && top >= 0.0 && bottom <= view[3];
                assert!(inside, "{seconds} s: {label:?} at {box_:?} is cut");
                for (other, name) in &labels[at + 1..] {
                    let apart = right <= other[0]
                        || other[1] <= left
                        || bottom <= other[2]
                        || other[3] <= top;
                    assert!(apart, "{seconds} s: {label:?} lies on {name:?}");
                }
            }
        }
    }
}

#[test]
fn ticks_are_round() {
    for (least, step) in [(0.013, 0.02), (1.0, 1.0), (2.1, 5.0), (51.0, 100.0), (3_600.0, 5_000.0)]
    {
        assert!((round_step(least) / step - 1.0).abs() < 1e-9, "{least}: {}", round_step(least));
    }
}

#[test]
fn the_page_has_the_numbers_of_the_json() {
    let report = full(5, 4_321.0);
    let page = html(&report);
    let json = serde_json::to_value(&report).unwrap();
    let texts = text(&report);
    let table = csv(&report);
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert_eq!(rows.len(), json["intervals"].as_array().unwrap().len());
    for (row, second) in rows.iter().zip(json["intervals"].as_array().unwrap()) {
        let acked = second["acked"].as_u64().unwrap();
        assert_eq!(row.split(',').nth(2), Some(acked.to_string().as_str()));
        assert!(page.contains(&format!("<td>{}</td>", show_count(acked))), "{acked}");
    }
    let totals = &json["totals"];
    for what in ["acked", "failed", "late_skipped"] {
        let shown = show_count(totals[what].as_u64().unwrap());
        assert!(page.contains(&format!("<b>{shown}</b>")) && texts.contains(&shown), "{what}");
    }
    for what in ["p50", "p99", "p999", "max"] {
        let shown = show_seconds(json["latency"]["response"][what].as_f64().unwrap());
        assert!(page.contains(&shown) && texts.contains(&shown), "{what} {shown}");
    }
    for words in ["554", "12", "499", "321"] {
        assert!(page.contains(&format!("<td>{words}</td>")) && texts.contains(words), "{words}");
    }
    assert!(page.contains("5.7.1 &lt;go&gt; away") && texts.contains("554 x 12   5.7.1 <go> away"));
    // Phases in their order; what was never gone through is left out.
    let at = |text: &str, name: &str| text.find(name).unwrap_or_else(|| panic!("{name}"));
    assert!(at(&page, "phase banner") < at(&page, "phase mail+rcpt"));
    assert!(at(&page, "phase mail+rcpt") < at(&page, "phase ack") && !page.contains("phase auth"));
    assert!(at(&texts, "banner ") < at(&texts, "mail+rcpt ") && !texts.contains("auth"));
}

#[test]
fn the_page_fetches_nothing_is_dark_where_asked_and_escapes() {
    let mut report = full(5, 1_000.0);
    report.target = "smtp://<b>".to_owned();
    let page = html(&report);
    assert!(page.contains("smtp://&lt;b&gt;") && !page.contains("//<b>"));
    for fetch in ["src=", "href=", "url(", "http:", "https:", "@import", "<script"] {
        assert!(!page.contains(fetch), "{fetch}");
    }
    for style in ["prefers-color-scheme:dark", "@media print", "var(--fg)"] {
        assert!(page.contains(style), "{style}");
    }
    // Each chart has a name and says what it shows.
    let charts = page.matches("<svg").count();
    assert_eq!(page.matches("</desc>").count(), charts);
    assert_eq!(page.matches("role=\"img\" aria-labelledby=").count(), charts);
    assert_eq!(page.matches("<title").count(), charts + 1);
    assert!(page.contains("<b>Valid run.</b>"), "{page}");
    // A threshold that was passed is no valid run.
    report.failed = vec!["--fail-if p99>1ms".to_owned()];
    let page = html(&report);
    assert!(page.contains("<b>Failed.</b> --fail-if p99&gt;1ms<") && !page.contains("Valid run"));
    // The verdict comes first.
    report.generator.valid = false;
    report.generator.invalid_because = vec!["it was busy".to_owned()];
    let page = html(&report);
    let verdict = page.find("<b>INVALID.</b> it was busy").unwrap();
    assert!(verdict < page.find("<svg").unwrap() && verdict < page.find("<table").unwrap());
}

#[test]
fn a_report_without_its_newer_parts_is_still_shown() {
    let mut json = serde_json::to_value(sample()).unwrap();
    for newer in ["heat", "server", "address", "e2e", "tls", "failed"] {
        json.as_object_mut().unwrap().remove(newer);
    }
    let page = html(&serde_json::from_value(json).unwrap());
    assert!(page.contains("Response time over time") && page.ends_with("</html>"));
}
