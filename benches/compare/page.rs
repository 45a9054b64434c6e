//! A page for browsers: for each case a picture with messages a second and CPU per message.
//!
//! Nothing is loaded from elsewhere. Bars begin at zero, so that their lengths compare.

use std::fmt::Write as _;

use crate::cases::{Case, Kind};
use crate::figures::Figures;
use crate::peers::Peer;
use crate::plot::{colour, escape};
use crate::report::Report;
use crate::table::number;

const NAMES: f64 = 170.0;
const BARS: f64 = 270.0;
/// Behind a bar, for its number.
const NUMBERS: f64 = 70.0;
const WIDTH: f64 = NAMES + 2.0 * (BARS + NUMBERS);
const TOP: f64 = 34.0;
const BAR: f64 = 20.0;

const STYLE: &str = "body{font:14px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
    svg{width:100%;height:auto}h2{margin-bottom:.2em;font-size:1.1em}";

pub(crate) fn html(report: &Report) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <title>Mailrace compared</title>\n<style>{STYLE}</style>\n\
         <h1>Mailrace compared</h1>\n<ul>\n"
    );
    // Writing into a String cannot fail.
    for (name, value) in &report.facts {
        let _ = writeln!(out, "<li>{}: {}</li>", escape(name), escape(value));
    }
    out.push_str("</ul>\n");
    for case in &report.cases {
        if let Some(picture) = picture(report, case) {
            let _ = write!(out, "<h2>{}: {}</h2>\n{picture}", case.id, escape(case.title));
        }
    }
    out.push_str("<h2>On disk before the 250</h2>\n<ul>\n");
    for peer in &report.peers {
        let _ = writeln!(out, "<li>{}: {}</li>", escape(peer.name()), escape(peer.synced()));
    }
    for failure in &report.failures {
        let _ = writeln!(out, "<li>failed: {}</li>", escape(failure));
    }
    out.push_str("</ul>\n</html>\n");
    out
}

/// The picture of a case; `None` where it has no rates, or nobody took part.
fn picture(report: &Report, case: &Case) -> Option<String> {
    if case.kind == Kind::Idle {
        return None;
    }
    let of = |&peer: &Peer| Some((peer, report.of(case.id, peer)?));
    let rows: Vec<(Peer, &Figures)> = report.peers.iter().filter_map(of).collect();
    if rows.is_empty() {
        return None;
    }
    let height = TOP + rows.len() as f64 * BAR + 6.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\" aria-label=\"{}\">\n",
        escape(case.title)
    );
    for (row, (peer, _)) in rows.iter().enumerate() {
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            NAMES - 8.0,
            TOP + row as f64 * BAR + 14.0,
            escape(peer.name())
        );
    }
    let rates: Vec<_> = rows.iter().map(|(peer, figures)| (*peer, figures.rate)).collect();
    let costs: Vec<_> = rows.iter().map(|(peer, figures)| (*peer, figures.cpu_us())).collect();
    panel(&mut out, NAMES, "messages a second (longer is better)", &rates);
    let second = NAMES + BARS + NUMBERS;
    panel(&mut out, second, "server CPU per message, us (shorter is better)", &costs);
    out.push_str("</svg>\n");
    Some(out)
}

fn panel(out: &mut String, left: f64, title: &str, bars: &[(Peer, f64)]) {
    let _ = writeln!(
        out,
        "<text x=\"{left:.0}\" y=\"20\" font-weight=\"bold\" font-size=\"11\">{title}</text>"
    );
    let most = bars.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
    let most = most.fold(0.0, f64::max);
    for (row, (peer, value)) in bars.iter().enumerate() {
        let y = TOP + row as f64 * BAR;
        let length = if *value > 0.0 && most > 0.0 { value / most * BARS } else { 0.0 };
        let _ = writeln!(
            out,
            "<rect x=\"{left:.0}\" y=\"{:.0}\" width=\"{length:.1}\" height=\"{:.0}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            y + 2.0,
            BAR - 4.0,
            colour(*peer),
            left + length + 5.0,
            y + 14.0,
            number(*value)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn figures(rate: f64, user_us: f64) -> Figures {
        Figures { rate, user_us, ..Figures::default() }
    }

    #[test]
    fn a_case_that_ran_has_a_picture_with_both_figures() {
        let mut report = Report {
            facts: vec![("cpu", "a<b".to_owned())],
            cases: cases::all(),
            peers: vec![Peer::Mailrace, Peer::Given("other & co"), Peer::Postfix],
            ..Report::default()
        };
        report.rounds.insert(("mx", Peer::Mailrace), vec![figures(2_000.0, 400.0)]);
        report.rounds.insert(("mx", Peer::Given("other & co")), vec![figures(500.0, 1_600.0)]);
        report.close();
        let page = html(&report);
        assert_eq!(page.matches("<svg").count(), 1, "of the case that ran");
        assert!(page.contains("<h2>mx: MX mix") && page.contains("cpu: a&lt;b"), "{page}");
        for shown in [">2,000<", ">500<", ">400<", ">1,600<", ">other &amp; co<"] {
            assert!(page.contains(shown), "{shown}");
        }
        // Four times the rate, a quarter of the CPU time.
        for length in [270.0, 67.5] {
            assert_eq!(page.matches(&format!("width=\"{length:.1}\"")).count(), 2, "{length}");
        }
    }

    #[test]
    fn an_empty_report_is_still_a_page() {
        let page = html(&Report { cases: cases::all(), ..Report::default() });
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(!page.contains("<svg"));
    }

    #[test]
    fn what_is_not_known_has_no_bar() {
        let mut out = String::new();
        panel(&mut out, 0.0, "t", &[(Peer::Mailrace, f64::NAN), (Peer::Postfix, 0.0)]);
        assert_eq!(out.matches("width=\"0.0\"").count(), 2, "{out}");
    }
}
