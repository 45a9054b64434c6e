//! The result of a run: one document, kept as JSON and shown as text, CSV or HTML.

use std::collections::BTreeMap;

use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    consumer::Seen,
    dialogue::Phase,
    engine::Outcome,
    measure::{Faults, Interval, Measure, unpack},
    options::Options,
    scenario::Tally,
    units::show_seconds,
};

mod csv;
mod environment;
mod hdr;
mod html;
mod text;

pub(super) use csv::csv;
pub(super) use environment::Environment;
pub(super) use hdr::{full_percentiles, hdr_log};
pub(super) use html::html;
pub(super) use text::text;

/// Of the JSON document. Fields are added under the same name; anything else is a new number.
const SCHEMA: &str = "mailrace.bench.v1";

/// CPU share of its thread above which the generator is taken for the bottleneck.
const CPU_MAX: f64 = 0.9;
/// Of a shorter run the share says nothing: the kernel may count CPU time in ticks of 4 to 10 ms.
const CPU_SECONDS_MIN: f64 = 0.1;
/// The same for the schedule lag's p99, as a part of the response's p99.
const LAG_MAX: f64 = 0.1;
/// Seconds of schedule lag that are never the generator's fault: a timer of an idle Linux machine
/// fires up to its slack late (50 us, prctl(2) PR_SET_TIMERSLACK), and the processor then takes
/// 100 us and more to leave a deep sleep. A server that answers in 300 us would otherwise make every
/// run invalid.
const LAG_FLOOR: f64 = 250e-6;
/// Limits of the heat map's bands a factor of ten.
const BANDS_A_DECADE: i32 = 8;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) schema: String,
    pub(super) target: String,
    /// The address of the target that was loaded.
    #[serde(default)]
    pub(super) address: Option<String>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) options: Value,
    pub(super) environment: Environment,
    pub(super) totals: Totals,
    pub(super) rate: Rate,
    pub(super) latency: Latency,
    /// `null` without TLS.
    #[serde(default)]
    pub(super) tls: Option<TlsHandshakes>,
    pub(super) intervals: Vec<Interval>,
    /// Reply codes and how often each came, also of warm-up and connections; `errors.samples` has
    /// the first words of each refusal.
    pub(super) replies: BTreeMap<u16, u64>,
    pub(super) errors: Errors,
    pub(super) generator: Generator,
    /// Thresholds of `--fail-if` that were passed, and why the run ended before its time.
    #[serde(default)]
    pub(super) failed: Vec<String>,
    /// `null` where it was not asked for.
    pub(super) verify: Option<Verify>,
    /// From the 250 to a consumer; `null` where it was not asked for.
    #[serde(default)]
    pub(super) e2e: Option<EndToEnd>,
    /// What misbehaving clients met, by their names; `null` without a scenario.
    pub(super) scenario: Option<BTreeMap<String, Tally>>,
    /// The tries of a search; `null` without one.
    pub(super) search: Option<Vec<Try>>,
    /// Response times over time.
    #[serde(default)]
    pub(super) heat: Option<Heat>,
    /// What the server used; `null` where it does not run on this machine, or is not ours to see.
    #[serde(default)]
    pub(super) server: Option<ServerUsage>,
}

/// How many messages were answered within each band of response times, second by second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Heat {
    /// Limits of the bands, in seconds; one more than there are bands.
    pub(super) limits: Vec<f64>,
    /// A row for each interval, a number for each band.
    pub(super) counts: Vec<Vec<u64>>,
}

/// The server's process in the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ServerUsage {
    pub(super) pid: u32,
    pub(super) name: String,
    /// Processors kept busy, of all its threads; 1 is one of them.
    pub(super) cpu_mean: f64,
    pub(super) resident_bytes_max: u64,
    pub(super) samples: Vec<ServerSample>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ServerSample {
    /// From the start of the measured window.
    pub(super) seconds: f64,
    pub(super) cpu: f64,
    pub(super) resident_bytes: u64,
}

/// One rate tried by a search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Try {
    pub(super) asked_per_second: f64,
    pub(super) got_per_second: f64,
    pub(super) p99: f64,
    pub(super) holds: bool,
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
    /// Of TLS handshakes; `null` without TLS.
    #[serde(default)]
    pub(super) tls: Option<Distribution>,
}

/// TLS handshakes, also of the warm-up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct TlsHandshakes {
    pub(super) full: u64,
    /// By a ticket of an earlier connection.
    pub(super) resumed: u64,
    pub(super) failed: u64,
    /// Of the first: `TLSv1.3`.
    pub(super) version: String,
    pub(super) cipher: String,
    /// Of the key exchange.
    pub(super) group: String,
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
    /// The whole distribution, nanoseconds; `None` where a saved report was tampered with.
    pub(super) fn histogram(&self) -> Option<Histogram<u64>> {
        decode(&self.hdr)
    }

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

fn decode(text: &str) -> Option<Histogram<u64>> {
    use base64::Engine as _;
    let octets = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Deserializer::new().deserialize(&mut &octets[..]).ok()
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
    /// Of all of the generator's threads in the measured time.
    pub(super) cpu_user_seconds: f64,
    pub(super) cpu_system_seconds: f64,
    /// Of the busiest thread; 1 is the whole of it.
    pub(super) cpu_share: f64,
    /// Of each thread.
    #[serde(default)]
    pub(super) cpu_shares: Vec<f64>,
    pub(super) cpu_us_per_message: f64,
    /// Seconds; none in a closed loop.
    pub(super) schedule_lag: Option<Distribution>,
    pub(super) valid: bool,
    /// Why the figures are the generator's and not the server's.
    pub(super) invalid_because: Vec<String>,
}

/// What a consumer of the log saw of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EndToEnd {
    /// From the 250 to the consumer, seconds; zero where it saw the message before the client read
    /// its 250.
    pub(super) latency: Distribution,
    pub(super) before_ack: u64,
    /// Acknowledged messages that the consumer never saw.
    pub(super) unseen: u64,
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
        let is_tls = options.plan.secure.is_some();
        let phases = phases.filter(|(phase, _)| **phase != Phase::Tls);
        let mut told = options.told.clone();
        told["server_offers"] = serde_json::json!({
            "pipelining": outcome.extensions.pipelining,
            "chunking": outcome.extensions.chunking,
        });
        Self {
            schema: SCHEMA.to_owned(),
            target: options.target.to_string(),
            address: Some(options.plan.address.to_string()),
            tags: options.tags.clone(),
            options: told,
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
                tls: is_tls.then(|| Distribution::of(&measure.phases[Phase::Tls as usize])),
            },
            tls: is_tls.then(|| handshakes(outcome)),
            intervals: measure.intervals.clone(),
            replies: measure.replies().collect(),
            errors: Errors {
                total: measure.faults.total() + measure.connection_faults.total(),
                messages: named(&measure.faults),
                connections: named(&measure.connection_faults),
                samples: measure.samples.iter().cloned().collect(),
            },
            generator: generator(options, outcome),
            failed: outcome.gave_up.iter().cloned().collect(),
            verify: None,
            e2e: None,
            scenario: outcome.tallies.clone(),
            search: None,
            heat: heat(measure),
            server: None,
        }
    }

    /// The phases that were gone through, in their order.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&'static str, &Distribution)> {
        let times = |phase: Phase| match phase {
            Phase::Tls => self.latency.tls.as_ref(),
            _ => self.latency.phases.get(phase.name()),
        };
        let all =
            Phase::ALL.into_iter().filter_map(move |phase| Some((phase.name(), times(phase)?)));
        all.filter(|(_, times)| times.count > 0)
    }

    /// Refusals: code, how often it came, and its words.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (u16, u64, &str)> {
        self.errors.samples.iter().map(|(code, text)| {
            (*code, self.replies.get(code).copied().unwrap_or(0), text.as_str())
        })
    }

    pub(super) fn commonest_refusal(&self) -> Option<(u16, &str)> {
        let commonest = self.refusals().max_by_key(|(_, count, _)| *count);
        commonest.map(|(code, _, text)| (code, text))
    }

    /// Adds what a consumer saw.
    pub(super) fn tell_seen(&mut self, seen: &Seen) {
        for (interval, times) in self.intervals.iter_mut().zip(&seen.intervals) {
            let seconds = |nanos: u64| (!times.is_empty()).then_some(nanos as f64 / 1e9);
            interval.e2e_p50 = seconds(times.value_at_quantile(0.5));
            interval.e2e_p99 = seconds(times.value_at_quantile(0.99));
            interval.e2e_max = seconds(times.max());
        }
        self.e2e = Some(EndToEnd {
            latency: Distribution::of(&seen.latency),
            before_ack: seen.before_ack,
            unseen: seen.unseen,
        });
    }
}

/// Bands of equal width on a logarithmic scale, from the quickest answer to the slowest.
fn heat(measure: &Measure) -> Option<Heat> {
    let histograms: Vec<_> = measure.interval_histograms.iter().map(|one| unpack(one)).collect();
    let answered = || histograms.iter().filter(|histogram| !histogram.is_empty());
    let least = answered().map(Histogram::min).min()?.max(1) as f64;
    let most = answered().map(Histogram::max).max()?.max(1) as f64;
    let step = f64::from(BANDS_A_DECADE);
    let first = (least.log10() * step).floor() as i32;
    let last = ((most.log10() * step).floor() as i32).max(first) + 1;
    let limit = |at: i32| 10_f64.powf(f64::from(at) / step);
    let counts = histograms.iter().map(|histogram| {
        let mut bands = vec![0; (last - first) as usize];
        for value in histogram.iter_recorded() {
            let at = (value.value_iterated_to().max(1) as f64).log10() * step;
            let band = (at.floor() as i32 - first).clamp(0, last - first - 1);
            bands[band as usize] += value.count_at_value();
        }
        bands
    });
    let counts = counts.collect();
    Some(Heat { limits: (first..=last).map(|at| limit(at) / 1e9).collect(), counts })
}

fn handshakes(outcome: &Outcome) -> TlsHandshakes {
    let counted = &outcome.measure.handshakes;
    let (version, cipher, group) = match outcome.agreed.clone() {
        Some(agreed) => (agreed.version, agreed.cipher, agreed.group),
        None => Default::default(),
    };
    let failed = outcome.measure.connection_faults.handshakes();
    TlsHandshakes { full: counted.full, resumed: counted.resumed, failed, version, cipher, group }
}

fn named(faults: &Faults) -> BTreeMap<String, u64> {
    let counted = faults.named().into_iter().filter(|(_, count)| *count > 0);
    counted.map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Whether the generator was so late that the response times are its own.
fn is_too_late(lag_p99: f64, response_p99: f64) -> bool {
    lag_p99 > (LAG_MAX * response_p99).max(LAG_FLOOR)
}

fn generator(options: &Options, outcome: &Outcome) -> Generator {
    let measure = &outcome.measure;
    let shares = outcome.usages.iter().map(|usage| usage.total() / outcome.seconds.max(1e-9));
    let shares = shares.collect::<Vec<_>>();
    let worst = shares.iter().copied().fold(0.0, f64::max);
    let lag = options.plan.schedule.is_some().then(|| Distribution::of(&measure.lag));
    let response_p99 = measure.response.value_at_quantile(0.99) as f64 / 1e9;
    let mut invalid_because = Vec::new();
    if worst > CPU_MAX && outcome.seconds >= CPU_SECONDS_MIN {
        let percent = worst * 100.0;
        let which =
            if shares.len() > 1 { "a thread of the generator" } else { "the generator's thread" };
        invalid_because.push(format!("{which} was busy for {percent:.0} %"));
    }
    if let Some(lag) = &lag
        && lag.count > 0
        && is_too_late(lag.p99, response_p99)
    {
        let percent = lag.p99 / response_p99.max(1e-9) * 100.0;
        let (lag, response) = (show_seconds(lag.p99), show_seconds(response_p99));
        invalid_because.push(format!(
            "schedule lag p99 ({lag}) is {percent:.0} % of response p99 ({response})"
        ));
    }
    let messages = (measure.acked + measure.failed).max(1);
    let user = outcome.usages.iter().map(|usage| usage.user).sum::<f64>();
    let system = outcome.usages.iter().map(|usage| usage.system).sum::<f64>();
    Generator {
        cpu_user_seconds: user,
        cpu_system_seconds: system,
        cpu_share: worst,
        cpu_shares: shares,
        cpu_us_per_message: (user + system) * 1e6 / messages as f64,
        schedule_lag: lag,
        valid: invalid_because.is_empty(),
        invalid_because,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A response p99 of 7 ms, a service p99 of 6 ms, 2 errors, 1,000 messages a second.
    pub(in super::super) fn sample() -> Report {
        let times = |p99: u64| {
            let mut histogram = super::super::measure::histogram();
            histogram.record_n(p99 * 1_000_000, 100).unwrap();
            let mut times = Distribution::of(&histogram);
            times.p99 = p99 as f64 / 1e3;
            times
        };
        let second = |seconds| Interval {
            seconds,
            length: 1.0,
            acked: 1_000,
            p50: 0.005,
            p99: 0.007,
            max: 0.008,
            ..Interval::default()
        };
        Report {
            schema: SCHEMA.to_owned(),
            target: "smtp://127.0.0.1:25".to_owned(),
            address: None,
            tags: BTreeMap::new(),
            options: serde_json::json!({"loop": "closed", "connections": 1}),
            environment: Environment::detect(&Value::Null),
            totals: Totals {
                seconds: 2.0,
                acked: 2_000,
                failed: 1,
                late_skipped: 0,
                bytes: 2_000_000,
                connections: 1,
            },
            rate: Rate {
                messages_per_second: 1_000.0,
                messages_per_hour: 3_600_000.0,
                bytes_per_second: 1e6,
            },
            latency: Latency {
                response: times(7),
                service: times(6),
                phases: BTreeMap::new(),
                tls: None,
            },
            tls: None,
            intervals: vec![second(0.0), second(1.0)],
            replies: BTreeMap::from([(250, 2_000)]),
            errors: Errors {
                total: 2,
                messages: BTreeMap::from([("rejected".to_owned(), 2)]),
                connections: BTreeMap::new(),
                samples: BTreeMap::new(),
            },
            generator: Generator {
                cpu_user_seconds: 0.1,
                cpu_system_seconds: 0.1,
                cpu_share: 0.1,
                cpu_shares: vec![0.1],
                cpu_us_per_message: 100.0,
                schedule_lag: None,
                valid: true,
                invalid_because: Vec::new(),
            },
            failed: Vec::new(),
            verify: None,
            e2e: None,
            scenario: None,
            search: None,
            heat: None,
            server: None,
        }
    }

    #[test]
    fn a_report_is_read_as_it_is_written() {
        let report = sample();
        let json = serde_json::to_string(&report).unwrap();
        let again: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
        let histogram = again.latency.response.histogram().unwrap();
        assert_eq!(histogram.len(), 100);
        assert_eq!(Distribution { hdr: "x".into(), ..Distribution::default() }.histogram(), None);
    }

    #[test]
    fn a_lag_of_an_idle_machine_is_no_bottleneck() {
        // 73 us of 300 us are 24 %.
        assert!(!is_too_late(73e-6, 300e-6));
        assert!(is_too_late(300e-6, 400e-6));
        assert!(!is_too_late(300e-6, 4e-3));
        assert!(is_too_late(500e-6, 4e-3));
    }

    #[test]
    fn the_text_says_what_is_wrong() {
        let mut report = sample();
        report.generator.invalid_because = vec!["it was busy".to_owned()];
        report.failed = vec!["--fail-if p99>1ms".to_owned()];
        report.verify = Some(Verify { found: 1_999, lost: 1, ..Verify::default() });
        assert!(!report.verify.as_ref().unwrap().holds());
        let text = text(&report);
        assert!(text.contains("INVALID    it was busy"), "{text}");
        assert!(text.contains("FAILED     --fail-if p99>1ms\n"), "{text}");
        assert!(text.contains("verify: 1,999 found, 1 lost, 0 duplicated, 0 corrupt"), "{text}");
        assert!(text.contains("messages rejected 2"), "{text}");
        assert!(text.contains("3.6 M/h"), "{text}");
    }
}
