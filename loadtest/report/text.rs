//! The report for people.

use std::fmt::Write;

use super::{Distribution, Report};
use crate::units::{show_bytes, show_count, show_seconds};

/// The report in lines.
pub(in super::super) fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "mailrace bench  {}", headline(report).join("   "))?;
    let totals = &report.totals;
    let rate = &report.rate;
    let per_hour = rate.messages_per_hour;
    let per_hour = match per_hour {
        rate if rate >= 1e6 => format!("{:.1} M/h", rate / 1e6),
        rate => format!("{}/h", show_count(rate as u64)),
    };
    writeln!(
        out,
        " messages   {} acked   {} failed   {} late-skipped       {}/s   {}   {}/s",
        show_count(totals.acked),
        show_count(totals.failed),
        show_count(totals.late_skipped),
        show_count(rate.messages_per_second.round() as u64),
        per_hour,
        show_bytes(rate.bytes_per_second),
    )?;
    writeln!(out, " response   {}    (from scheduled time)", spread(&report.latency.response))?;
    writeln!(out, " service    {}    (from actual send)", spread(&report.latency.service))?;
    if let Some(e2e) = &report.e2e {
        write!(out, " e2e        {}    (from the 250 to a consumer", spread(&e2e.latency))?;
        if e2e.unseen > 0 {
            write!(out, ", {} never seen", show_count(e2e.unseen))?;
        }
        writeln!(out, ")")?;
    }
    if report.phases().next().is_some() {
        write!(out, " by phase ")?;
        for (name, times) in report.phases() {
            write!(out, "  {name} {}", show_seconds(times.p50))?;
        }
        writeln!(out, "    (p50)")?;
    }
    if let Some(tls) = &report.tls {
        let (full, resumed) = (show_count(tls.full), show_count(tls.resumed));
        let failed = show_count(tls.failed);
        write!(out, " tls        {} {} {}", tls.version, tls.cipher, tls.group)?;
        writeln!(out, "   {full} full   {resumed} resumed   {failed} failed")?;
    }
    let generator = &report.generator;
    write!(out, " generator  cpu {:.0} %", generator.cpu_share * 100.0)?;
    if generator.cpu_shares.len() > 1 {
        write!(out, " (busiest of {} threads)", generator.cpu_shares.len())?;
    }
    write!(out, "   {:.1} us a message", generator.cpu_us_per_message)?;
    if let Some(lag) = &generator.schedule_lag {
        let (mean, max) = (show_seconds(lag.mean), show_seconds(lag.max));
        write!(out, "   schedule lag avg {mean} max {max}")?;
    }
    if let Some(verify) = &report.verify {
        write!(
            out,
            "    verify: {} found, {} lost, {} duplicated, {} corrupt",
            show_count(verify.found),
            show_count(verify.lost),
            show_count(verify.duplicated),
            show_count(verify.corrupt),
        )?;
        if verify.invented > 0 {
            write!(out, ", {} invented", show_count(verify.invented))?;
        }
        if verify.damaged_segments > 0 {
            write!(out, ", {} damaged segments", verify.damaged_segments)?;
        }
    }
    writeln!(out)?;
    if report.errors.total > 0 {
        write!(out, " errors    ")?;
        let kinds =
            [("messages", &report.errors.messages), ("connections", &report.errors.connections)];
        for (what, kind) in kinds {
            for (name, count) in kind {
                write!(out, "  {what} {name} {}", show_count(*count))?;
            }
        }
        writeln!(out)?;
    }
    if let Some(server) = &report.server {
        let memory = show_bytes(server.resident_bytes_max as f64);
        writeln!(
            out,
            " server     cpu {:.0} %   {memory} resident at most    ({}, process {})",
            server.cpu_mean * 100.0,
            server.name,
            server.pid,
        )?;
    }
    for (code, count, text) in report.refusals() {
        writeln!(out, " replies    {code} x {}   {text}", show_count(count))?;
    }
    for (name, tally) in report.scenario.iter().flatten() {
        let count = show_count;
        write!(out, " scenario   {name}: {} connections", count(tally.connections))?;
        write!(out, "   {} acked   {} rejected", count(tally.acked), count(tally.rejected))?;
        write!(out, "   {} closed by the server", count(tally.closed_by_server))?;
        write!(out, "   {} left    replies", count(tally.left))?;
        for (code, number) in &tally.replies {
            write!(out, " {code} x {}", count(*number))?;
        }
        writeln!(out)?;
    }
    for one in report.search.iter().flatten() {
        writeln!(
            out,
            " search     {}/s asked   {}/s reached   p99 {}   {}",
            show_count(one.asked_per_second.round() as u64),
            show_count(one.got_per_second.round() as u64),
            show_seconds(one.p99),
            if one.holds { "holds" } else { "missed" },
        )?;
    }
    if let Some(tries) = &report.search {
        let held = tries.iter().filter(|one| one.holds).map(|one| one.asked_per_second);
        match held.reduce(f64::max) {
            Some(best) => writeln!(
                out,
                " result     {}/s is the highest rate that meets {}",
                show_count(best.round() as u64),
                report.options["search"].as_str().unwrap_or("the threshold"),
            )?,
            None => writeln!(out, " result     no rate that was tried meets the threshold")?,
        }
    }
    for reason in &report.failed {
        writeln!(out, " FAILED     {reason}")?;
    }
    for reason in &generator.invalid_because {
        writeln!(out, " INVALID    {reason}: the figures are the generator's, not the server's")?;
    }
    Ok(())
}

/// What was run, in words.
pub(super) fn headline(report: &Report) -> Vec<String> {
    let options = &report.options;
    let number = |key: &str| options[key].as_f64();
    let mut parts = vec![report.target.clone()];
    if let Some(address) = &report.address
        && !report.target.contains(address.as_str())
    {
        parts[0] += &format!(" ({address})");
    }
    parts.push(match (options["loop"].as_str(), number("rate_per_second")) {
        (Some("open"), Some(rate)) => {
            let arrivals = options["arrivals"].as_str().unwrap_or_default();
            format!("open loop {}/s {arrivals}", show_count(rate.round() as u64))
        }
        (Some("open"), None) => {
            format!("open loop {}", options["stages"].as_str().unwrap_or_default())
        }
        _ => "closed loop".to_owned(),
    });
    let connections = options["connections"].as_u64().unwrap_or(0);
    parts.push(format!("{} connections", show_count(connections)));
    parts.push(match number("duration_seconds") {
        Some(seconds) => {
            let warmup = number("warmup_seconds").unwrap_or(0.0);
            format!("{seconds} s (+{warmup} s warm-up)")
        }
        None => format!("{:.2} s", report.totals.seconds),
    });
    parts.push(options["size"].as_str().unwrap_or("corpus").to_owned());
    parts
}

fn spread(times: &Distribution) -> String {
    let shown = [
        ("p50", times.p50),
        ("p90", times.p90),
        ("p99", times.p99),
        ("p99.9", times.p999),
        ("p99.99", times.p9999),
        ("max", times.max),
    ];
    let shown = shown.map(|(name, value)| format!("{name} {}", show_seconds(value)));
    shown.join("  ")
}
