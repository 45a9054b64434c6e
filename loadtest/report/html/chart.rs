//! Charts as SVG. Every label is placed by its measured width, so that none is cut or overlaps.

use std::fmt::Write;

use super::escape;

const WIDTH: f64 = 880.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 34.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 34.0;
/// Width of a character of the labels' font, at most on average: 12 px system fonts measure 6 to 7.
pub(super) const CHAR: f64 = 7.0;

/// A direction of a chart: from values to pixels, and the values that get a label.
pub(super) struct Axis {
    from: f64,
    to: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to the next round number, in round steps.
    pub(super) fn linear(most: f64, steps: f64, show: impl Fn(f64) -> String) -> Self {
        let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
        let step = round_step(most / steps);
        let count = (most / step - 1e-9).ceil().max(1.0) as u32;
        let ticks = (0..=count).map(|at| f64::from(at) * step).map(|at| (at, show(at))).collect();
        Self { from: 0.0, to: f64::from(count) * step, is_log: false, ticks }
    }

    /// From zero to the end of the run.
    pub(super) fn time(seconds: f64) -> Self {
        let to = if seconds > 0.0 { seconds } else { 1.0 };
        let step = round_step(to / 10.0);
        let count = (to / step + 1e-9).floor() as u32;
        let places = usize::from(step < 1.0) + usize::from(step < 0.1);
        let show = |at: f64| format!("{at:.places$} s");
        let ticks = (0..=count).map(|at| f64::from(at) * step).map(|at| (at, show(at))).collect();
        Self { from: 0.0, to, is_log: false, ticks }
    }

    /// Factors of ten are equally long; `room` is how many labels fit.
    pub(super) fn log(least: f64, most: f64, room: usize, show: impl Fn(f64) -> String) -> Self {
        let from = least.max(1e-9);
        let to = most.max(from * 1.5);
        let decades = from.log10().floor() as i32 - 1..=to.log10().ceil() as i32;
        let of = |digits: &[f64]| {
            let all = decades.clone().flat_map(|power| {
                digits.iter().map(move |digit| digit * 10_f64.powi(power)).collect::<Vec<_>>()
            });
            all.filter(|at| (from * 0.999..=to * 1.001).contains(at)).collect::<Vec<_>>()
        };
        // 5 and 1 are nearest to each other: a factor of two, 0.3 of a decade.
        let fine = of(&[1.0, 2.0, 5.0]);
        let narrow = 0.3 / (to / from).log10() * room as f64;
        let ticks = if narrow >= 1.0 { fine } else { of(&[1.0]) };
        let ticks = ticks.into_iter().map(|at| (at, show(at))).collect();
        Self { from: from.log10(), to: to.log10(), is_log: true, ticks }
    }

    /// With ticks of the caller's.
    pub(super) fn named(to: f64, ticks: Vec<(f64, String)>) -> Self {
        Self { from: 0.0, to, is_log: false, ticks }
    }

    /// 0 at its start, 1 at its end.
    fn place(&self, value: f64) -> f64 {
        let value = if self.is_log { value.max(1e-12).log10() } else { value };
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
pub(super) fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= least * 0.999);
    digit.unwrap_or(10.0) * power
}

/// A chart under construction.
pub(super) struct Chart<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// For those who cannot see it.
    pub(super) description: String,
    pub(super) height: f64,
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Chart<'_> {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (1.0 - self.y.place(value)) * (self.height - TOP - BOTTOM)
    }

    /// Opens the figure and draws axes and legend: a CSS class and a name for each series.
    pub(super) fn open(&self, out: &mut String, legend: &[(&str, &str)]) -> std::fmt::Result {
        let (id, title) = (self.id, escape(self.title));
        write!(
            out,
            "<figure><figcaption>{title}</figcaption><div class=\"scroll\">\
             <svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{}</desc>",
            self.height,
            escape(&self.description),
        )?;
        let bottom = self.height - BOTTOM;
        for (value, label) in &self.y.ticks {
            let at = self.y(*value);
            write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                escape(label),
            )?;
        }
        for (value, label) in &self.x.ticks {
            let at = self.x(*value);
            write!(
                out,
                "<path class=\"tick\" d=\"M{at:.1} {bottom:.1}v5\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 20.0,
                escape(label),
            )?;
        }
        let mut at = LEFT;
        for (class, name) in legend {
            write!(
                out,
                "<path class=\"line {class}\" d=\"M{at:.1} 14h18\"/>\
                 <text x=\"{:.1}\" y=\"18\">{}</text>",
                at + 24.0,
                escape(name),
            )?;
            at += 24.0 + name.chars().count() as f64 * CHAR + 24.0;
        }
        Ok(())
    }

    /// A line through points.
    pub(super) fn line(
        &self,
        out: &mut String,
        class: &str,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> std::fmt::Result {
        write!(out, "<path class=\"line {class}\" d=\"")?;
        for (number, (x, y)) in points.into_iter().enumerate() {
            let verb = if number == 0 { 'M' } else { 'L' };
            write!(out, "{verb}{:.1} {:.1}", self.x(x), self.y(y))?;
        }
        write!(out, "\"/>")
    }

    /// A level for each stretch of time: start, end, value.
    pub(super) fn steps(
        &self,
        out: &mut String,
        class: &str,
        steps: &[(f64, f64, f64)],
    ) -> std::fmt::Result {
        let points = steps.iter().flat_map(|&(from, to, value)| [(from, value), (to, value)]);
        self.line(out, class, points)
    }

    /// A field of a heat map; `share` is 0 to 1.
    pub(super) fn cell(
        &self,
        out: &mut String,
        x: (f64, f64),
        y: (f64, f64),
        share: f64,
    ) -> std::fmt::Result {
        let (left, right) = (self.x(x.0), self.x(x.1));
        let (top, bottom) = (self.y(y.1), self.y(y.0));
        write!(
            out,
            "<rect class=\"heat\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             fill-opacity=\"{:.2}\"/>",
            (right - left).max(0.5),
            (bottom - top).max(0.5),
            0.08 + 0.92 * share.clamp(0.0, 1.0),
        )
    }

    pub(super) fn close(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "</svg></div></figure>")
    }
}
