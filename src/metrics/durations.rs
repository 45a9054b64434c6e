//! Durations of what is not done on a shard: requests of exporters, queries of the DNS.

use super::{
    Distribution, Family,
    families::{Scale, Value, sample},
};
use prometheus::proto::MetricType;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Durations of one kind. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Durations(Arc<Mutex<Distribution>>);

impl Durations {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Distribution::of_durations())))
    }

    /// Counts one, in seconds.
    pub fn observe(&self, seconds: f64) {
        // As a cast: below 0 and no number count as 0, what is too long as the longest.
        lock(&self.0).record((seconds * 1e6) as u64);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        lock(&self.0).count()
    }
}

/// A histogram of durations for each value of a label, or one without a label.
#[derive(Clone, Debug)]
pub(super) struct DurationFamily {
    name: &'static str,
    help: &'static str,
    label: Option<&'static str>,
    all: Arc<Mutex<BTreeMap<String, Durations>>>,
}

impl DurationFamily {
    pub(super) fn new(name: &'static str, help: &'static str, label: Option<&'static str>) -> Self {
        Self { name, help, label, all: Arc::default() }
    }

    /// Those of one label value, at 0 from now on.
    pub(super) fn of(&self, value: &str) -> Durations {
        lock(&self.all).entry(value.to_owned()).or_insert_with(Durations::new).clone()
    }

    pub(super) fn forget(&self, value: &str) {
        lock(&self.all).remove(value);
    }

    /// `None` where there is no series yet.
    pub(super) fn family(&self, native: bool) -> Option<Family> {
        let all = lock(&self.all);
        let samples = all.iter().map(|(value, durations)| {
            let labels: Vec<_> = self.label.iter().map(|label| (*label, value.as_str())).collect();
            let distribution = lock(&durations.0);
            let value = Value::Histogram(&distribution, Scale::Seconds);
            sample(&labels, None, MetricType::HISTOGRAM, value, native)
        });
        Family::new(self.name, self.help, MetricType::HISTOGRAM, samples.collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
