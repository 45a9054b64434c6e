//! What the lanes of one exporter share: the sink, whether it is up, the counters.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{self, Instant};

use super::{ErrorClass, ExportOptions, Sink, SinkError, batch::LargeRecords};
use mailrace_log::unix_micros;
use mailrace_metrics::{Budget, ExporterMetrics, GroupMetrics};

/// The same error is logged again after this long.
const REMIND: Duration = Duration::from_secs(60);

/// See the module's page. Lives as long as the exporter.
pub(super) struct Exporter {
    pub(super) options: ExportOptions,
    pub(super) sink: Box<dyn Sink>,
    pub(super) metrics: ExporterMetrics,
    pub(super) large_records: LargeRecords,
    group: GroupMetrics,
    /// The sink was there when it was last asked. The lock is held while it is asked: once for all
    /// lanes.
    ready: AtomicBool,
    asking: tokio::sync::Mutex<()>,
    gone: AtomicBool,
    told: Mutex<Told>,
    began: Instant,
    letters: Mutex<Letters>,
    places: Mutex<Vec<Place>>,
    /// When the next replayed record may go, in this exporter.
    replay_from: Mutex<Option<Instant>>,
}

/// Lines of dead letters a second, of one exporter; twice as many at once.
const LETTER_LINES: u32 = 10;

/// Dead letters without a line are counted up this long after the last of them.
const QUIET: Duration = Duration::from_secs(5);

/// How many lines of dead letters were written, and left out.
#[derive(Debug, Default)]
struct Letters {
    budget: Budget,
    last: Duration,
}

impl Letters {
    /// Whether this one gets a line, and how many before it had none.
    fn note(&mut self, now: Duration) -> Option<u64> {
        self.last = now;
        self.budget.take(LETTER_LINES, now)
    }

    /// How many had no line, once it is quiet.
    fn sum_up(&mut self, now: Duration, at_once: bool) -> u64 {
        match at_once || now.saturating_sub(self.last) >= QUIET {
            true => std::mem::take(&mut self.budget.suppressed),
            false => 0,
        }
    }
}

/// What was last logged for the operator, and when.
type Told = Option<(ErrorClass, String, Instant)>;

/// How far a lane is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Records not yet settled.
    pub(super) lag: u64,
    /// When the first of them was received, microseconds since 1970.
    pub(super) oldest_pending: Option<i64>,
    /// Dead letters nobody has dealt with.
    pub(super) dead: u64,
}

impl Exporter {
    pub(super) fn new(
        options: ExportOptions,
        sink: Box<dyn Sink>,
        metrics: ExporterMetrics,
        group: GroupMetrics,
        shards: usize,
    ) -> Self {
        Self {
            options,
            sink,
            metrics,
            large_records: LargeRecords::new(),
            group,
            ready: AtomicBool::new(false),
            asking: tokio::sync::Mutex::new(()),
            gone: AtomicBool::new(false),
            told: Mutex::new(None),
            began: Instant::now(),
            letters: Mutex::default(),
            places: Mutex::new(vec![Place::default(); shards]),
            replay_from: Mutex::new(None),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.options.name
    }

    /// Makes sure that the sink is up.
    ///
    /// # Cancellation
    /// Nothing remains: the next call checks again.
    pub(super) async fn ready(&self) -> Result<(), SinkError> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.asking.lock().await;
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let most = self.options.timeout;
        match time::timeout(most, self.sink.check()).await {
            Ok(Ok(())) => {
                self.ready.store(true, Ordering::Release);
                self.succeeded();
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SinkError::new(
                ErrorClass::Timeout,
                format!("no answer for {} s", most.as_secs_f64()),
            )),
        }
    }

    /// The last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_some()
    }

    /// Whether the sink was there when it was last asked.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The sink is asked before the next attempt.
    pub(super) fn unready(&self) {
        self.ready.store(false, Ordering::Release);
    }

    /// Counts a failed attempt and logs it, once a minute for the same error.
    pub(super) fn failed(&self, error: &SinkError) {
        self.metrics.error(error.class.name());
        self.metrics.up.set(0);
        if is_news(&self.told, error) {
            tracing::warn!(exporter = self.name(), class = error.class.name(), "{}", error.text);
        }
    }

    /// Counts a record that the sink refuses. The sink is up: it answered, and takes others.
    pub(super) fn refused(&self, error: &SinkError) {
        self.metrics.error(error.class.name());
        self.metrics.up.set(1);
    }

    /// A record becomes a dead letter: a line for each, as long as they are not too many.
    pub(super) fn dead_letter(&self, record: &dyn std::fmt::Display, error: &SinkError) {
        let mut letters = self.letters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(left_out) = letters.note(self.began.elapsed()) else { return };
        let (exporter, class) = (self.name(), error.class.name());
        let suppressed = (left_out > 0).then_some(left_out);
        tracing::warn!(exporter, class, %record, suppressed, "moved to the dead-letter queue: {}", error.text);
    }

    /// Says how many dead letters had no line, where none comes after them that would say it.
    pub(super) fn sum_up(&self, last: bool) {
        let mut letters = self.letters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let suppressed = letters.sum_up(self.began.elapsed(), last);
        if suppressed > 0 {
            let exporter = self.name();
            tracing::warn!(
                exporter,
                suppressed,
                "more records moved to the dead-letter queue: \
                 see `mailrace group dead`"
            );
        }
    }

    pub(super) fn succeeded(&self) {
        self.metrics.up.set(1);
        self.metrics.last_success.set(unix_micros() as f64 / 1e6);
        let mut told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if told.take().is_some() {
            tracing::info!(exporter = self.name(), "delivery works again");
        }
    }

    /// The sink wants nothing more, ever: the exporter stops and keeps its place.
    pub(super) fn gone(&self, error: &SinkError) {
        self.metrics.error(error.class.name());
        self.metrics.up.set(0);
        if !self.gone.swap(true, Ordering::AcqRel) {
            tracing::error!(exporter = self.name(), "stopped permanently: {}", error.text);
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Tells how far a lane is.
    pub(super) fn place(&self, shard: u16, place: Place) {
        let mut places = self.places.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(slot) = places.get_mut(usize::from(shard)) {
            *slot = place;
        }
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.group.lag.set(signed(places.iter().map(|place| place.lag).sum()));
        self.group.lag_max.set(signed(places.iter().map(|place| place.lag).max().unwrap_or(0)));
        let oldest = places.iter().filter_map(|place| place.oldest_pending).min().unwrap_or(0);
        self.group.oldest_pending.set(oldest as f64 / 1e6);
        self.metrics.dead.set(signed(places.iter().map(|place| place.dead).sum()));
    }

    /// How long a lane waits before it sends so many replayed records.
    pub(super) fn replay_wait(&self, records: u64) -> Duration {
        let Some(rate) = self.options.replay_rate else { return Duration::ZERO };
        let now = Instant::now();
        let mut from = self.replay_from.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let at = from.map_or(now, |from| from.max(now));
        *from = Some(at + Duration::from_secs_f64(records as f64 / f64::from(rate.max(1))));
        at - now
    }
}

/// Whether this was not logged within the last minute; from now on it counts as logged.
fn is_news(told: &Mutex<Told>, error: &SinkError) -> bool {
    let mut told = told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let same = |(class, text, at): &(ErrorClass, String, Instant)| {
        *class == error.class && *text == error.text && at.elapsed() < REMIND
    };
    if told.as_ref().is_some_and(same) {
        return false;
    }
    *told = Some((error.class, error.text.clone(), Instant::now()));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dead_letter_has_a_line_until_they_are_too_many() {
        let mut letters = Letters::default();
        let at = Duration::from_millis;
        let lines = (0..100).filter(|_| letters.note(at(1_000)) == Some(0)).count();
        assert_eq!(lines, 20, "twice the rate at once");
        assert_eq!(letters.sum_up(at(2_000), false), 0, "more may come");
        assert_eq!(letters.note(at(2_000)), Some(80), "the next says it");
        let lines = (0..100).filter(|_| letters.note(at(2_000)).is_some()).count();
        assert_eq!(lines, 9, "what a second brought");
        assert_eq!(letters.sum_up(at(6_999), false), 0);
        assert_eq!(letters.sum_up(at(7_000), false), 91, "it is quiet");
        assert_eq!(letters.sum_up(at(20_000), true), 0, "said once");
        let lines = (0..30).filter(|_| letters.note(at(20_000)).is_some()).count();
        assert_eq!((lines, letters.sum_up(at(20_000), true)), (20, 10), "at a stop");
    }
}
