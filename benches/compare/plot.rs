//! CPU per message as bars, one group a case, as SVG.

use std::fmt::Write as _;

use crate::cases::Kind;
use crate::figures::Figures;
use crate::peers::Peer;
use crate::report::Report;
use crate::table::number;

const LEFT: f64 = 250.0;
const WIDTH: f64 = 560.0;
const RIGHT: f64 = 80.0;
const TOP: f64 = 56.0;
const BAR: f64 = 15.0;
const GAP: f64 = 14.0;

/// The plot; its scale is logarithmic, as servers differ by factors of a hundred.
pub(crate) fn svg(report: &Report) -> String {
    let bars = |case: &str| -> Vec<(Peer, f64)> {
        let of = |&peer: &Peer| Some((peer, report.of(case, peer).map(Figures::cpu_us)?));
        report.peers.iter().filter_map(of).filter(|(_, cpu)| *cpu > 0.0).collect()
    };
    let groups: Vec<_> = report
        .cases
        .iter()
        .filter(|case| case.kind == Kind::Load)
        .map(|case| (case, bars(case.id)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let values = || groups.iter().flat_map(|(_, bars)| bars.iter().map(|(_, cpu)| *cpu));
    let least = values().fold(f64::INFINITY, f64::min);
    let most = values().fold(0.0, f64::max);
    let scale = Scale::around(least, most);
    let rows: usize = groups.iter().map(|(_, bars)| bars.len() + 1).sum();
    let height = TOP + rows as f64 * BAR + groups.len() as f64 * GAP + 20.0;
    let width = LEFT + WIDTH + RIGHT;
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"20\" font-size=\"14\" font-weight=\"bold\">Server CPU per message, \
         microseconds (logarithmic; shorter is better)</text>\n"
    );
    for tick in scale.ticks() {
        let x = LEFT + scale.place(tick) * WIDTH;
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {:.1}V{height:.0}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{}</text>",
            TOP - 6.0,
            TOP - 10.0,
            number(tick)
        );
    }
    let mut y = TOP;
    for (case, bars) in &groups {
        y += BAR;
        let title = escape(case.title);
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>",
            y - 3.0
        );
        for (peer, cpu) in bars {
            let length = scale.place(*cpu) * WIDTH;
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" \
                 fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                y + BAR - 4.0,
                escape(peer.name()),
                y + 1.0,
                BAR - 3.0,
                colour(*peer),
                LEFT + length + 4.0,
                y + BAR - 4.0,
                number(*cpu)
            );
            y += BAR;
        }
        y += GAP;
    }
    out.push_str("</svg>\n");
    out
}

pub(crate) fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Mailrace | Peer::MailraceTwo => "#d1495b",
        Peer::Before => "#e9a3ad",
        Peer::Echo => "#9aa0a6",
        _ => "#30638e",
    }
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Logarithmic, from a power of ten to a power of ten.
struct Scale {
    from: i32,
    to: i32,
}

impl Scale {
    fn around(least: f64, most: f64) -> Self {
        if !(least > 0.0 && most.is_finite() && most >= least) {
            return Self { from: 0, to: 1 };
        }
        let from = least.log10().floor() as i32;
        Self { from, to: (most.log10().ceil() as i32).max(from + 1) }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.from..=self.to).map(|power| 10_f64.powi(power))
    }

    /// 0 at the left, 1 at the right.
    fn place(&self, value: f64) -> f64 {
        (value.log10() - f64::from(self.from)) / f64::from(self.to - self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_spans_powers_of_ten() {
        let scale = Scale::around(3.0, 450.0);
        assert_eq!(scale.ticks().collect::<Vec<_>>(), [1.0, 10.0, 100.0, 1000.0]);
        assert!((scale.place(1.0)).abs() < 1e-9 && (scale.place(1000.0) - 1.0).abs() < 1e-9);
        assert_eq!(Scale::around(f64::INFINITY, 0.0).ticks().count(), 2);
    }

    #[test]
    fn an_empty_report_is_still_a_picture() {
        let text = svg(&Report::default());
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        assert_eq!(escape("a<b & c"), "a&lt;b &amp; c");
    }
}
