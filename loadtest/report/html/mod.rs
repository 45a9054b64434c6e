//! The report as one file for a browser: hand-made SVG, no script, nothing is fetched.

mod chart;
mod figures;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::{Distribution, Report, text};
use crate::units::{show_bytes, show_count, show_seconds};

/// A column of text.
const WORDS: &str = "first words";
const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(in super::super) fn html(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let target = escape(&report.target);
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Load test of {target}</title><style>{STYLE}</style></head><body><main>\
         <h1>Load test of {target}</h1>"
    )?;
    write!(out, "<p class=\"sub\">{}</p>", escape(&text::headline(report).join(" · ")))?;
    verdict(out, report)?;
    tiles(out, report)?;
    environment(out, report)?;
    figures::write(out, report)?;
    latencies(out, report)?;
    counts(out, report)?;
    seconds(out, report)?;
    let options = serde_json::to_string_pretty(&report.options).unwrap_or_default();
    write!(out, "<h2>Options</h2><pre>{}</pre></main></body></html>", escape(&options))
}

fn verdict(out: &mut String, report: &Report) -> std::fmt::Result {
    let mut wrong: Vec<String> = Vec::new();
    for reason in &report.generator.invalid_because {
        wrong.push(format!("{reason}: the figures are the generator's, not the server's"));
    }
    if let Some(verify) = report.verify.as_ref().filter(|verify| !verify.holds()) {
        let (lost, corrupt) = (show_count(verify.lost), show_count(verify.corrupt));
        wrong.push(format!(
            "the log does not hold what was acknowledged: {lost} lost, {corrupt} corrupt"
        ));
    }
    wrong.extend(report.failed.iter().cloned());
    if report.totals.acked == 0 {
        wrong.push("no message was acknowledged".to_owned());
    }
    if report.e2e.as_ref().is_some_and(|e2e| e2e.unseen > 0) {
        wrong.push("the consumer did not see all that was acknowledged".to_owned());
    }
    if report.search.as_ref().is_some_and(|tries| !tries.iter().any(|one| one.holds)) {
        wrong.push("no rate that was tried meets the threshold".to_owned());
    }
    let (class, word) = match (report.generator.valid, wrong.is_empty()) {
        (false, _) => (" bad", "INVALID"),
        (true, false) => (" bad", "Failed"),
        (true, true) => ("", "Valid run"),
    };
    let mut words = wrong.join("; ");
    if words.is_empty() {
        words = format!(
            "{} of {} messages acknowledged, response p99 {}",
            show_count(report.totals.acked),
            show_count(report.totals.acked + report.totals.failed + report.totals.late_skipped),
            show_seconds(report.latency.response.p99),
        );
        if let Some(verify) = &report.verify {
            words += &format!("; all {} found in the log", show_count(verify.found));
        }
    }
    write!(out, "<p class=\"verdict{class}\"><b>{word}.</b> {}</p>", escape(&words))
}

fn tiles(out: &mut String, report: &Report) -> std::fmt::Result {
    let (rate, totals, response) = (&report.rate, &report.totals, &report.latency.response);
    let mut tiles = vec![
        ("messages/s", show_count(rate.messages_per_second.round() as u64)),
        ("mail data/s", show_bytes(rate.bytes_per_second)),
        ("acknowledged", show_count(totals.acked)),
        ("failed", show_count(totals.failed)),
        ("late, skipped", show_count(totals.late_skipped)),
        ("response p50", show_seconds(response.p50)),
        ("response p99", show_seconds(response.p99)),
        ("response max", show_seconds(response.max)),
    ];
    if let Some(server) = &report.server {
        tiles.push(("server CPU", format!("{:.0} %", server.cpu_mean * 100.0)));
        tiles.push(("server memory", show_bytes(server.resident_bytes_max as f64)));
    }
    write!(out, "<div class=\"tiles\">")?;
    for (name, value) in tiles {
        write!(out, "<div><b>{}</b><span>{name}</span></div>", escape(&value))?;
    }
    write!(out, "</div>")
}

fn environment(out: &mut String, report: &Report) -> std::fmt::Result {
    let facts = &report.environment;
    let generator = &report.generator;
    let cpus = format!("{} x {}", facts.cpus, facts.cpu);
    let used = format!(
        "{:.0} % of its busiest thread, {:.1} us a message",
        generator.cpu_share * 100.0,
        generator.cpu_us_per_message
    );
    let versions = format!("mailrace {}, Linux {}", facts.version, facts.kernel);
    let mut rows = vec![
        ("Date", facts.time.clone()),
        ("Machine", facts.host.clone()),
        ("CPU", cpus),
        ("Versions", versions),
        ("Generator CPU", used),
    ];
    if let Some(lag) = &generator.schedule_lag {
        let (mean, p99) = (show_seconds(lag.mean), show_seconds(lag.p99));
        rows.push((
            "Schedule lag",
            format!("mean {mean}, p99 {p99}, max {}", show_seconds(lag.max)),
        ));
    }
    if let Some(server) = &report.server {
        rows.push(("Server process", format!("{}, process {}", server.name, server.pid)));
    }
    if let Some(tls) = &report.tls {
        let counts = (show_count(tls.full), show_count(tls.resumed), show_count(tls.failed));
        rows.push((
            "TLS",
            format!(
                "{} {} {}: {} full handshakes, {} resumed, {} failed",
                tls.version, tls.cipher, tls.group, counts.0, counts.1, counts.2
            ),
        ));
    }
    let tags = report.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    if !tags.is_empty() {
        rows.push(("Tags", tags.join(", ")));
    }
    write!(out, "<dl>")?;
    for (name, value) in rows {
        write!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value))?;
    }
    write!(out, "</dl>")
}

fn latencies(out: &mut String, report: &Report) -> std::fmt::Result {
    let latency = &report.latency;
    let mut rows: Vec<(String, &Distribution)> = vec![
        ("response, from the scheduled time".to_owned(), &latency.response),
        ("service, from the actual send".to_owned(), &latency.service),
    ];
    if let Some(e2e) = &report.e2e {
        rows.push(("from the 250 to a consumer".to_owned(), &e2e.latency));
    }
    rows.extend(report.phases().map(|(name, times)| (format!("phase {name}"), times)));
    write!(out, "<h2>Latency</h2>")?;
    let head = ["", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let rows = rows.into_iter().map(|(name, times)| {
        let values = [times.p50, times.p90, times.p99, times.p999, times.p9999, times.max];
        let values = values.map(show_seconds);
        [name, show_count(times.count)].into_iter().chain(values).collect()
    });
    table(out, &head, rows)
}

fn counts(out: &mut String, report: &Report) -> std::fmt::Result {
    if !report.replies.is_empty() {
        write!(out, "<h2>Replies</h2>")?;
        let rows = report.replies.iter().map(|(code, count)| {
            let words = report.errors.samples.get(code).cloned().unwrap_or_default();
            vec![code.to_string(), show_count(*count), words]
        });
        table(out, &["code", "count", WORDS], rows)?;
    }
    if report.errors.total > 0 {
        write!(out, "<h2>Errors</h2>")?;
        let of = |what: &'static str, kinds: &'_ std::collections::BTreeMap<String, u64>| {
            let row = |(name, count): (&String, &u64)| {
                vec![format!("{what}: {name}"), show_count(*count)]
            };
            kinds.iter().map(row).collect::<Vec<_>>()
        };
        let mut rows = of("messages", &report.errors.messages);
        rows.extend(of("connections", &report.errors.connections));
        table(out, &["cause", "count"], rows)?;
    }
    if let Some(tries) = &report.search {
        write!(out, "<h2>Search</h2>")?;
        let rows = tries.iter().map(|one| {
            let rates = [one.asked_per_second, one.got_per_second];
            let [asked, got] = rates.map(|rate| show_count(rate.round() as u64));
            let word = if one.holds { "holds" } else { "missed" };
            vec![asked, got, show_seconds(one.p99), word.to_owned()]
        });
        table(out, &["asked a second", "reached a second", "response p99", "result"], rows)?;
    }
    if let Some(tallies) = &report.scenario {
        write!(out, "<h2>Misbehaving clients</h2>")?;
        let rows = tallies.iter().map(|(name, tally)| {
            let counts = [
                tally.connections,
                tally.acked,
                tally.rejected,
                tally.closed_by_server,
                tally.left,
            ];
            std::iter::once(name.clone()).chain(counts.map(show_count)).collect()
        });
        let head = ["client", "connections", "acked", "rejected", "closed by server", "left"];
        table(out, &head, rows)?;
    }
    Ok(())
}

fn seconds(out: &mut String, report: &Report) -> std::fmt::Result {
    write!(out, "<h2>Second by second</h2>")?;
    let rows = report.intervals.iter().map(|second| {
        let mut row = vec![format!("{:.0}", second.seconds)];
        row.extend([second.acked, second.failed, second.late_skipped].map(show_count));
        row.push(show_bytes(second.bytes as f64));
        row.extend([second.p50, second.p99, second.max].map(show_seconds));
        row
    });
    let head = ["second", "acked", "failed", "late", "mail data", "p50", "p99", "max"];
    table(out, &head, rows)
}

fn table(
    out: &mut String,
    head: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> std::fmt::Result {
    write!(out, "<div class=\"scroll\"><table><thead><tr>")?;
    for name in head {
        write!(out, "<th scope=\"col\"{}>{name}</th>", class(name))?;
    }
    write!(out, "</tr></thead><tbody>")?;
    for row in rows {
        write!(out, "<tr>")?;
        for (name, cell) in head.iter().zip(row) {
            write!(out, "<td{}>{}</td>", class(name), escape(&cell))?;
        }
        write!(out, "</tr>")?;
    }
    write!(out, "</tbody></table></div>")
}

/// Words stand left, numbers right.
fn class(column: &str) -> &'static str {
    if column == WORDS { " class=\"text\"" } else { "" }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
