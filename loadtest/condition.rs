//! Thresholds: `p99>50ms`, `errors>0`, `rate<1k`.

use std::{fmt, str::FromStr};

use super::{
    report::{Distribution, Report},
    units,
};

#[derive(Clone, Copy, Debug)]
enum Quantity {
    /// Of the response times, by name; of others with `service.` or `e2e.` before it.
    Latency {
        times: Times,
        of: fn(&Distribution) -> f64,
    },
    Errors,
    Failed,
    LateSkipped,
    Rate,
    CpuShare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Response,
    Service,
    EndToEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Above,
    Below,
    AtLeast,
    AtMost,
}

/// A comparison of something measured with a number.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    text: String,
    quantity: Quantity,
    relation: Relation,
    bound: f64,
}

impl Condition {
    /// Whether it is so in this report.
    pub(super) fn holds(&self, report: &Report) -> bool {
        let value = match self.quantity {
            Quantity::Latency { times: Times::Response, of } => of(&report.latency.response),
            Quantity::Latency { times: Times::Service, of } => of(&report.latency.service),
            // What was not measured is neither above nor below anything.
            Quantity::Latency { times: Times::EndToEnd, of } => {
                report.e2e.as_ref().map_or(f64::NAN, |e2e| of(&e2e.latency))
            }
            Quantity::Errors => report.errors.total as f64,
            Quantity::Failed => report.totals.failed as f64,
            Quantity::LateSkipped => report.totals.late_skipped as f64,
            Quantity::Rate => report.rate.messages_per_second,
            Quantity::CpuShare => report.generator.cpu_share,
        };
        match self.relation {
            Relation::Above => value > self.bound,
            Relation::Below => value < self.bound,
            Relation::AtLeast => value >= self.bound,
            Relation::AtMost => value <= self.bound,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |what: &str| {
            format!(
                "{text:?}: {what}; write NAME>VALUE with >, <, >= or <=, NAME one of p50 p90 p99 \
                 p99.9 p99.99 max mean, these also with service. or e2e. before them, errors, failed, late, rate, cpu"
            )
        };
        let at = text.find(['<', '>']).ok_or_else(|| bad("it has no comparison"))?;
        let (name, rest) = text.split_at(at);
        let (relation, value) = if let Some(value) = rest.strip_prefix(">=") {
            (Relation::AtLeast, value)
        } else if let Some(value) = rest.strip_prefix("<=") {
            (Relation::AtMost, value)
        } else if let Some(value) = rest.strip_prefix('>') {
            (Relation::Above, value)
        } else {
            (Relation::Below, &rest[1..])
        };
        let quantity = quantity(name.trim()).ok_or_else(|| bad("unknown name"))?;
        let value = value.trim();
        let bound = match quantity {
            Quantity::Latency { .. } => units::duration(value).map(|time| time.as_secs_f64()),
            Quantity::Rate => units::rate(value),
            Quantity::CpuShare => value
                .trim_end_matches(['%', ' '])
                .parse::<f64>()
                .map(|percent| percent / 100.0)
                .map_err(|_| format!("{value:?} is not a percentage")),
            _ => units::count(value).map(|count| count as f64),
        };
        let bound = bound.map_err(|what| bad(&what))?;
        Ok(Self { text: text.to_owned(), quantity, relation, bound })
    }
}

fn quantity(name: &str) -> Option<Quantity> {
    let (times, latency) = match name.split_once('.') {
        Some(("response", rest)) => (Times::Response, rest),
        Some(("service", rest)) => (Times::Service, rest),
        Some(("e2e", rest)) => (Times::EndToEnd, rest),
        _ => (Times::Response, name),
    };
    let of: fn(&Distribution) -> f64 = match latency {
        "p50" => |times| times.p50,
        "p90" => |times| times.p90,
        "p99" => |times| times.p99,
        "p99.9" => |times| times.p999,
        "p99.99" => |times| times.p9999,
        "max" => |times| times.max,
        "mean" => |times| times.mean,
        _ => {
            return match name {
                "errors" => Some(Quantity::Errors),
                "failed" => Some(Quantity::Failed),
                "late" => Some(Quantity::LateSkipped),
                "rate" => Some(Quantity::Rate),
                "cpu" => Some(Quantity::CpuShare),
                _ => None,
            };
        }
    };
    Some(Quantity::Latency { times, of })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn conditions_are_judged() {
        // A response p99 of 7 ms, a service p99 of 6 ms, 2 errors, 1,000 messages a second.
        let report = sample();
        for (text, holds) in [
            ("p99>50ms", false),
            ("p99<50ms", true),
            ("p99 >= 7ms", true),
            ("service.p99<=5ms", false),
            ("response.p99>6ms", true),
            ("errors>0", true),
            ("errors>2", false),
            ("rate<1k/s", false),
            ("rate<=1000", true),
            ("cpu<50%", true),
            ("late>0", false),
            // There was no consumer.
            ("e2e.p99>0s", false),
            ("e2e.p99<=1h", false),
        ] {
            assert_eq!(text.parse::<Condition>().unwrap().holds(&report), holds, "{text}");
        }
        for bad in ["", "p99", "p98>1ms", "p99>x", "errors>1ms", "p99=1ms", ">1"] {
            assert!(bad.parse::<Condition>().is_err(), "{bad}");
        }
    }
}
