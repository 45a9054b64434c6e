//! The live page's data: a sample of the whole server each second, kept for 15 minutes.
//!
//! One task takes the samples, whether or not anybody watches. `GET /v1/live` sends them as
//! server-sent events: first `history`, the samples kept, then a `sample` each second. A viewer that
//! does not keep up misses samples; it never delays the task, a scrape or a shard. No addresses,
//! senders or content are in them.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus::proto::{MetricFamily, MetricType};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use super::pages::Pages;
use crate::metrics::{DiskFacts, Distribution, ShardStats};

/// Time between two samples.
const EVERY: Duration = Duration::from_secs(1);

/// Samples kept: 15 minutes.
const KEPT: usize = 15 * 60;

/// Samples that a viewer may be behind before it misses some.
const BEHIND_MAX: usize = 8;

/// Viewers at once; the next one gets 503.
const VIEWERS_MAX: usize = 64;

/// Upper bounds of the heat map's rows, in microseconds; a last row holds what is slower.
const HEAT_BOUNDS_US: [u64; 12] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000,
];

/// What the page draws over time. Numbers are of the seconds since the sample before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Point {
    /// Seconds since 1970.
    time: f64,
    /// How long it covers, in seconds.
    seconds: f64,
    /// Messages acknowledged.
    messages: u64,
    /// Bytes of them.
    bytes: u64,
    /// Messages refused.
    rejected: u64,
    /// Last byte received to 250 written, in seconds; absent where no message came.
    p50: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    /// The same times, counted by [`HEAT_BOUNDS_US`]; empty where no message came.
    heat: Vec<u64>,
    /// Free space of the log's disk, for the forecast.
    #[serde(skip)]
    free: Option<u64>,
}

/// A point with the state of everything that is shown as it is now.
#[derive(Debug, Serialize)]
struct Sample<'a> {
    #[serde(flatten)]
    point: &'a Point,
    version: &'a str,
    revision: &'a str,
    uptime: f64,
    ready: bool,
    warnings: Vec<String>,
    sessions: u64,
    shards: Vec<Shard>,
    log: Log,
    disk: Option<Disk>,
    groups: Vec<Group>,
    exporters: Vec<Exporter>,
    /// Since the start.
    replies: BTreeMap<&'a str, u64>,
}

#[derive(Debug, Default, Serialize)]
struct Shard {
    shard: u32,
    state: &'static str,
    messages: u64,
    sessions: u64,
    /// Part of the time that it was busy, 0 to 1.
    busy: f64,
    inflight_bytes: u64,
    unsynced: u64,
}

#[derive(Debug, Default, Serialize)]
struct Log {
    bytes: u64,
    segments: u64,
    /// Age of the oldest record, in seconds; absent where the log is empty.
    oldest_age: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Disk {
    free_bytes: u64,
    size_bytes: u64,
    state: &'static str,
    /// Seconds until it is full at the rate of the last minutes; absent where it does not fill.
    full_in: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Group {
    name: String,
    lag: u64,
    /// Age of the next record that it wants, in seconds; absent where none is pending.
    oldest_age: Option<f64>,
    readers: u64,
}

#[derive(Debug, Serialize)]
struct Exporter {
    name: String,
    up: bool,
    /// Since the start.
    delivered: u64,
    retried: u64,
    dead_letters: u64,
    /// Failed attempts by class, since the start.
    errors: BTreeMap<String, u64>,
}

/// The samples kept, and whoever wants the next.
pub(super) struct Live {
    kept: Mutex<Kept>,
    next: broadcast::Sender<Bytes>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Kept {
    points: VecDeque<Point>,
    /// The last sample as it was sent: what a new viewer sees at once.
    last: Bytes,
}

impl Live {
    pub(super) fn new() -> Self {
        Self {
            kept: Mutex::default(),
            next: broadcast::channel(BEHIND_MAX).0,
            places: Arc::new(Semaphore::new(VIEWERS_MAX)),
        }
    }
}

/// Takes samples until it is aborted.
pub(super) async fn sample(pages: Arc<Pages>) {
    let mut last = Totals::of(pages.copies().await);
    let mut at = Instant::now();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let totals = Totals::of(pages.copies().await);
        let now = Instant::now();
        let took = now.duration_since(at).as_secs_f64();
        let point = Point::between(&last, &totals, unix_seconds(), took);
        (pages.live()).publish(&pages, point, &last, &totals);
        (last, at) = (totals, now);
    }
}

/// What the shards have counted so far.
struct Totals {
    messages: u64,
    bytes: u64,
    rejected: u64,
    ack: Distribution,
    shards: Vec<ShardStats>,
}

impl Totals {
    fn of(shards: Vec<ShardStats>) -> Self {
        let mut all =
            Self { bytes: 0, messages: 0, rejected: 0, ack: Distribution::of_durations(), shards };
        for listener in all.shards.iter().flat_map(|shard| &shard.listeners) {
            all.messages += listener.messages_received;
            all.bytes += listener.received_bytes;
            let refused = [&listener.rejected_transient, &listener.rejected_permanent];
            all.rejected +=
                refused.iter().flat_map(|tally| tally.iter()).map(|(_, n)| n).sum::<u64>();
            all.ack.merge(&listener.ack_duration);
        }
        all
    }

    fn shard(&self, shard: usize) -> Option<&ShardStats> {
        self.shards.iter().find(|stats| stats.shard as usize == shard)
    }
}

impl Point {
    fn between(last: &Totals, now: &Totals, time: f64, seconds: f64) -> Self {
        let ack = now.ack.since(&last.ack);
        let some = ack.count() > 0;
        let quantile = |part| some.then(|| ack.value_at_quantile(part) as f64 / 1e6);
        Self {
            time: (time * 1e3).round() / 1e3,
            seconds: (seconds * 1e3).round() / 1e3,
            messages: now.messages.saturating_sub(last.messages),
            bytes: now.bytes.saturating_sub(last.bytes),
            rejected: now.rejected.saturating_sub(last.rejected),
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            heat: if some { rows(&ack) } else { Vec::new() },
            free: None,
        }
    }
}

/// Counts by [`HEAT_BOUNDS_US`], not cumulative.
fn rows(ack: &Distribution) -> Vec<u64> {
    let mut rows = Vec::with_capacity(HEAT_BOUNDS_US.len() + 1);
    let mut below = 0;
    for upto in ack.cumulative(&HEAT_BOUNDS_US).into_iter().chain([ack.count()]) {
        rows.push(upto - below);
        below = upto;
    }
    rows
}

impl Live {
    fn publish(&self, pages: &Pages, point: Point, last: &Totals, now: &Totals) {
        let disk = pages.disk();
        let point = Point { free: disk.as_ref().map(|disk| disk.free_bytes), ..point };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.points.len() == KEPT {
            kept.points.pop_front();
        }
        let full_in = forecast(&kept.points, &point);
        let sample =
            pages.sample_now(&point, last, now, disk.map(|disk| Disk::new(&disk, full_in)));
        kept.last = event("sample", &sample);
        kept.points.push_back(point);
        // Nobody may be watching.
        let _ = self.next.send(kept.last.clone());
    }

    /// The samples kept and the latest state, for a viewer that has just come; and the next ones.
    fn watch(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = event("history", &kept.points).to_vec();
        first.extend_from_slice(&kept.last);
        (first.into(), self.next.subscribe())
    }
}

/// Seconds until nothing is free, by what was used since the oldest point of at least a minute ago.
fn forecast(kept: &VecDeque<Point>, now: &Point) -> Option<f64> {
    let first = kept.front()?;
    let seconds = now.time - first.time;
    let free = now.free?;
    let used = first.free?.checked_sub(free).filter(|&used| used > 0 && seconds >= 60.0)?;
    Some((free as f64 / (used as f64 / seconds)).round())
}

impl Disk {
    fn new(disk: &DiskFacts, full_in: Option<f64>) -> Self {
        let DiskFacts { free_bytes, size_bytes, state, .. } = *disk;
        Self { free_bytes, size_bytes, state: state.name(), full_in }
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Pages {
    fn sample_now<'a>(
        &'a self,
        point: &'a Point,
        last: &Totals,
        now: &Totals,
        disk: Option<Disk>,
    ) -> Sample<'a> {
        let state = self.state();
        let obstacles = self.obstacles();
        let ready = obstacles.is_empty();
        let mut replies = BTreeMap::new();
        for shard in &now.shards {
            for (code, count) in shard.names.replies.iter().zip(&shard.replies) {
                *replies.entry(*code).or_insert(0) += count;
            }
        }
        replies.retain(|_, count| *count > 0);
        let families = state.export.gather();
        let kept = state.export.log.facts().kept;
        let age = |since: f64| (since > 0.0).then(|| (point.time - since).max(0.0));
        let oldest = value(&families, "mailrace_log_oldest_record_timestamp_seconds", &[]);
        let mut warnings = obstacles;
        warnings.extend(state.ready.faults());
        if state.ready.not_durable.load(Ordering::Relaxed) {
            warnings.push("log.sync = \"none\": a 250 does not mean synced".to_owned());
        }
        Sample {
            point,
            version: &state.version,
            revision: &state.revision,
            uptime: self.uptime().as_secs_f64().round(),
            ready,
            warnings,
            sessions: now.shards.iter().map(ShardStats::sessions).sum(),
            shards: (0..state.published.len())
                .map(|at| self.shard_now(at, point, last, now))
                .collect(),
            log: Log {
                bytes: kept.iter().map(|kept| kept.bytes).sum(),
                segments: kept.iter().map(|kept| kept.segments).sum(),
                oldest_age: oldest.and_then(age),
            },
            disk,
            groups: names(&families, "mailrace_log_consumer_lag_records", "group")
                .into_iter()
                .map(|name| {
                    let of = |family| value(&families, family, &[("group", &name)]);
                    Group {
                        lag: of("mailrace_log_consumer_lag_records").unwrap_or(0.0) as u64,
                        oldest_age: of("mailrace_log_consumer_oldest_pending_timestamp_seconds")
                            .and_then(age),
                        readers: of("mailrace_log_consumer_members").unwrap_or(0.0) as u64,
                        name: name.clone(),
                    }
                })
                .collect(),
            exporters: exporters(&families),
            replies,
        }
    }

    fn shard_now(&self, at: usize, point: &Point, last: &Totals, now: &Totals) -> Shard {
        let state = self.state().published.get(at).map_or("stopped", |slot| slot.state().name());
        let Some(stats) = now.shard(at) else {
            return Shard { shard: at as u32, state, ..Shard::default() };
        };
        let since =
            |of: fn(&ShardStats) -> u64| of(stats).saturating_sub(last.shard(at).map_or(0, of));
        let busy = since(|stats| stats.busy_us) as f64 / 1e6;
        Shard {
            shard: stats.shard,
            state,
            messages: since(ShardStats::messages_received),
            sessions: stats.sessions(),
            busy: (busy / point.seconds.max(0.001)).min(1.0),
            inflight_bytes: stats.inflight_bytes,
            unsynced: stats.log_end_offset.saturating_sub(stats.log_high_water_mark),
        }
    }
}

fn exporters(families: &[MetricFamily]) -> Vec<Exporter> {
    let records = |name: &str, result| {
        let labels = [("exporter", name), ("result", result)];
        value(families, "mailrace_export_records_total", &labels).unwrap_or(0.0) as u64
    };
    let of = |name: String| {
        let gauge = |family| value(families, family, &[("exporter", &name)]).unwrap_or(0.0);
        let classes = names(families, "mailrace_export_errors_total", "class").into_iter();
        let errors = classes.filter_map(|class| {
            let labels = [("exporter", &*name), ("class", &*class)];
            let count = value(families, "mailrace_export_errors_total", &labels)? as u64;
            (count > 0).then_some((class, count))
        });
        Exporter {
            up: gauge("mailrace_export_up") > 0.0,
            delivered: records(&name, "delivered"),
            retried: records(&name, "retried"),
            dead_letters: gauge("mailrace_export_dead_letters") as u64,
            errors: errors.collect(),
            name: name.clone(),
        }
    };
    names(families, "mailrace_export_up", "exporter").into_iter().map(of).collect()
}

/// The values of a label in a family, each once.
fn names(families: &[MetricFamily], family: &str, label: &str) -> Vec<String> {
    let mut names: Vec<String> = families
        .iter()
        .filter(|known| known.name() == family)
        .flat_map(|family| family.get_metric())
        .flat_map(|metric| metric.get_label())
        .filter(|pair| pair.name() == label)
        .map(|pair| pair.value().to_owned())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A counter or gauge with these labels, whatever others it has.
fn value(families: &[MetricFamily], family: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let family = families.iter().find(|known| known.name() == family)?;
    let metric = family.get_metric().iter().find(|metric| {
        labels.iter().all(|(name, value)| {
            metric.get_label().iter().any(|pair| pair.name() == *name && pair.value() == *value)
        })
    })?;
    Some(match family.get_field_type() {
        MetricType::COUNTER => metric.get_counter().get_value(),
        _ => metric.get_gauge().get_value(),
    })
}

/// One server-sent event.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).expect("keys are text and numbers are finite");
    format!("event: {name}\ndata: {json}\n\n").into()
}

/// `GET /v1/live`
pub(super) async fn watch(State(pages): State<Arc<Pages>>) -> Response {
    let Ok(place) = pages.live().places.clone().try_acquire_owned() else {
        let what = "too many viewers of the live page: close one and try again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, what).into_response();
    };
    let (first, next) = pages.live().watch();
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from_stream(events(first, next, place))).into_response()
}

/// The place is free again when the stream is dropped.
fn events(
    first: Bytes,
    next: broadcast::Receiver<Bytes>,
    place: OwnedSemaphorePermit,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    futures_util::stream::unfold(
        (Some(first), next, place),
        |(first, mut next, place)| async move {
            if let Some(first) = first {
                return Some((Ok(first), (None, next, place)));
            }
            loop {
                match next.recv().await {
                    Ok(event) => return Some((Ok(event), (None, next, place))),
                    // It did not keep up: the page shows the gap.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Names;

    fn shard(messages: u64, times_us: &[u64]) -> ShardStats {
        let mut shard = ShardStats::new(0, &["mx"], Names::default());
        shard.listeners[0].messages_received = messages;
        for &time in times_us {
            shard.listeners[0].ack_duration.record(time);
        }
        shard
    }

    #[test]
    fn a_point_is_what_came_since_the_one_before() {
        let before = Totals::of(vec![shard(5, &[100, 100, 100, 100, 9_000_000])]);
        let after = Totals::of(vec![shard(8, &[100, 100, 100, 100, 9_000_000, 700, 700, 30_000])]);
        let point = Point::between(&before, &after, 1_000.0, 1.0);
        assert_eq!((point.messages, point.rejected), (3, 0));
        assert!((0.0006..0.0008).contains(&point.p50.unwrap()), "{point:?}");
        assert!((0.029..0.031).contains(&point.p999.unwrap()), "{point:?}");
        assert_eq!(point.heat, [0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        let idle = Point::between(&after, &after, 1_001.0, 1.0);
        assert_eq!((idle.messages, idle.p99, idle.heat.len()), (0, None, 0));
    }

    #[test]
    fn the_disk_is_forecast_where_it_fills() {
        let at = |second: u64, used: u64| Point {
            time: second as f64,
            free: Some(1_000_000 - used * second),
            ..Point::default()
        };
        let forecast_of = |used, seconds| {
            let kept = (0..seconds).map(|second| at(second, used)).collect();
            forecast(&kept, &at(seconds, used))
        };
        assert_eq!(forecast_of(100, 59), None, "less than a minute");
        // 6,000 of 1,000,000 in 60 s.
        assert_eq!(forecast_of(100, 60), Some(9_940.0));
        assert_eq!(forecast_of(0, 500), None);
        let unknown = VecDeque::from([Point::default()]);
        assert_eq!(forecast(&unknown, &at(90, 1)), None);
        assert_eq!(forecast(&VecDeque::new(), &at(90, 1)), None);
    }

    #[test]
    fn values_are_found_by_their_labels() {
        let metrics = crate::metrics::ExportMetrics::new();
        let one = metrics.exporter("kafka-main", &["timeout"]);
        one.delivered.inc_by(7);
        one.error("timeout");
        one.up.set(1);
        let found = exporters(&metrics.gather());
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].up, found[0].delivered),
            ("kafka-main", true, 7)
        );
        assert_eq!(found[0].errors, BTreeMap::from([("timeout".to_owned(), 1)]));
    }
}
