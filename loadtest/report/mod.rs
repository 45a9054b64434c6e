//! What a run says: one document, kept as JSON and shown as text, CSV or HTML.

use std::collections::BTreeMap;

use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2Serializer},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    dialogue::Phase,
    engine::Outcome,
    measure::{Faults, Interval},
    options::Options,
};

mod environment;
mod text;

pub(super) use environment::Environment;
pub(super) use text::text;

/// Of the JSON document. Fields are added under the same name; anything else is a new number.
const SCHEMA: &str = "mailrace.bench.v1";

/// CPU share of its thread above which the generator is taken for the bottleneck.
const CPU_MAX: f64 = 0.9;
/// The same for the schedule lag's p99, as a part of the response's p99.
const LAG_MAX: f64 = 0.1;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) schema: String,
    pub(super) target: String,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) options: Value,
    pub(super) environment: Environment,
    pub(super) totals: Totals,
    pub(super) rate: Rate,
    pub(super) latency: Latency,
    pub(super) intervals: Vec<Interval>,
    /// Reply codes, also of warm-up and connections.
    pub(super) replies: BTreeMap<u16, u64>,
    pub(super) errors: Errors,
    pub(super) generator: Generator,
    /// `null` where it was not asked for.
    pub(super) verify: Option<Verify>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Totals {
    /// Measured time.
    pub(super) seconds: f64,
    pub(super) acked: u64,
    pub(super) failed: u64,
    pub(super) late_skipped: u64,
    /// Of mail data, acknowledged.
    pub(super) bytes: u64,
    /// Opened, also in the warm-up.
    pub(super) connections: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Rate {
    pub(super) messages_per_second: f64,
    pub(super) messages_per_hour: f64,
    pub(super) bytes_per_second: f64,
}

/// All in seconds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Latency {
    /// From the scheduled time; in a closed loop the same as `service`.
    pub(super) response: Distribution,
    /// From the actual send.
    pub(super) service: Distribution,
    pub(super) phases: BTreeMap<String, Distribution>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Distribution {
    pub(super) count: u64,
    pub(super) min: f64,
    pub(super) mean: f64,
    pub(super) stdev: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) p9999: f64,
    pub(super) max: f64,
    /// HdrHistogram V2 of nanoseconds, base64.
    pub(super) hdr: String,
}

impl Distribution {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self { hdr: encode(histogram), ..Self::default() };
        }
        let quantile = |at: f64| histogram.value_at_quantile(at) as f64 / 1e9;
        Self {
            count: histogram.len(),
            min: histogram.min() as f64 / 1e9,
            mean: histogram.mean() / 1e9,
            stdev: histogram.stdev() / 1e9,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            p9999: quantile(0.9999),
            max: histogram.max() as f64 / 1e9,
            hdr: encode(histogram),
        }
    }
}

fn encode(histogram: &Histogram<u64>) -> String {
    use base64::Engine as _;
    let mut octets = Vec::new();
    V2Serializer::new()
        .serialize(histogram, &mut octets)
        .expect("a histogram of our bounds fits its form, and memory takes it");
    base64::engine::general_purpose::STANDARD.encode(octets)
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Errors {
    /// Failed messages and connections.
    pub(super) total: u64,
    pub(super) messages: BTreeMap<String, u64>,
    pub(super) connections: BTreeMap<String, u64>,
    /// Reply code and text of the first refusal of each code.
    pub(super) samples: BTreeMap<u16, String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Generator {
    /// Of the generator's thread in the measured time.
    pub(super) cpu_user_seconds: f64,
    pub(super) cpu_system_seconds: f64,
    /// 1 is the whole thread.
    pub(super) cpu_share: f64,
    pub(super) cpu_us_per_message: f64,
    /// Seconds; none in a closed loop.
    pub(super) schedule_lag: Option<Distribution>,
    pub(super) valid: bool,
    /// Why the figures are the generator's and not the server's.
    pub(super) invalid_because: Vec<String>,
}

/// What the log holds of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verify {
    /// Messages that got a 250.
    pub(super) acked: u64,
    /// Of those, in the log.
    pub(super) found: u64,
    pub(super) lost: u64,
    /// Records beyond the first of a message.
    pub(super) duplicated: u64,
    /// Mail data or envelope differs.
    pub(super) corrupt: u64,
    /// Records of this run that were never sent.
    pub(super) invented: u64,
    /// In the log though no 250 came: the server may keep what it could not tell about.
    pub(super) unacknowledged: u64,
    /// Segments that fail their checks.
    pub(super) damaged_segments: u64,
}

impl Verify {
    pub(super) fn holds(&self) -> bool {
        self.lost + self.duplicated + self.corrupt + self.invented + self.damaged_segments == 0
    }
}

impl Report {
    pub(super) fn new(options: &Options, outcome: &Outcome) -> Self {
        let measure = &outcome.measure;
        let per_second = |count: u64| count as f64 / outcome.seconds.max(1e-9);
        let rate = per_second(measure.acked);
        let phases = Phase::ALL.iter().zip(&measure.phases);
        Self {
            schema: SCHEMA.to_owned(),
            target: options.target.to_string(),
            tags: options.tags.clone(),
            options: options.told.clone(),
            environment: Environment::detect(&options.told),
            totals: Totals {
                seconds: outcome.seconds,
                acked: measure.acked,
                failed: measure.failed,
                late_skipped: measure.late_skipped,
                bytes: measure.bytes,
                connections: measure.connections,
            },
            rate: Rate {
                messages_per_second: rate,
                messages_per_hour: rate * 3_600.0,
                bytes_per_second: per_second(measure.bytes),
            },
            latency: Latency {
                response: Distribution::of(&measure.response),
                service: Distribution::of(&measure.service),
                phases: phases
                    .map(|(phase, times)| (phase.name().to_owned(), Distribution::of(times)))
                    .collect(),
            },
            intervals: measure.intervals.clone(),
            replies: measure.replies().collect(),
            errors: Errors {
                total: measure.faults.total() + measure.connection_faults.total(),
                messages: named(&measure.faults),
                connections: named(&measure.connection_faults),
                samples: measure.samples.iter().cloned().collect(),
            },
            generator: generator(options, outcome),
            verify: None,
        }
    }
}

fn named(faults: &Faults) -> BTreeMap<String, u64> {
    let counted = faults.named().into_iter().filter(|(_, count)| *count > 0);
    counted.map(|(name, count)| (name.to_owned(), count)).collect()
}

fn generator(options: &Options, outcome: &Outcome) -> Generator {
    let measure = &outcome.measure;
    let share = outcome.usage.total() / outcome.seconds.max(1e-9);
    let lag = options.plan.schedule.is_some().then(|| Distribution::of(&measure.lag));
    let response_p99 = measure.response.value_at_quantile(0.99) as f64 / 1e9;
    let mut invalid_because = Vec::new();
    if share > CPU_MAX {
        let percent = share * 100.0;
        invalid_because.push(format!("the generator's thread was busy for {percent:.0} %"));
    }
    if let Some(lag) = &lag {
        if lag.p99 > LAG_MAX * response_p99 && lag.count > 0 {
            let percent = lag.p99 / response_p99.max(1e-9) * 100.0;
            invalid_because.push(format!("schedule lag p99 is {percent:.0} % of response p99"));
        }
    }
    let messages = (measure.acked + measure.failed).max(1);
    Generator {
        cpu_user_seconds: outcome.usage.user,
        cpu_system_seconds: outcome.usage.system,
        cpu_share: share,
        cpu_us_per_message: outcome.usage.total() * 1e6 / messages as f64,
        schedule_lag: lag,
        valid: invalid_because.is_empty(),
        invalid_because,
    }
}
