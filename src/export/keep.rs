//! Retention at work: every few seconds it looks at what may go (D12), and tells how far back the
//! log reaches.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use super::lane::lower_priority;
use crate::{
    consumer::{Group, lowest_needed},
    log::{HighWaterMarks, Log, Needs, Reason, Retention, Rules},
    metrics::ExportMetrics,
};

const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What keeping the log is made from.
pub struct KeeperOptions {
    /// The log.
    pub log: Log,
    /// When segments go.
    pub rules: Rules,
    /// Whether the disk is low.
    pub disk_low: Box<dyn Fn() -> bool + Send>,
    /// First segment of a shard that messages without a seal need.
    pub segments_from: Box<dyn Fn(u16) -> u64 + Send>,
    /// High-water marks.
    pub marks: Arc<HighWaterMarks>,
    /// Groups whose lag somebody else tells: those of exporters.
    pub told: Vec<String>,
    /// Where it counts.
    pub metrics: ExportMetrics,
}

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub struct Keeper {
    live: Arc<Mutex<Live>>,
    metrics: ExportMetrics,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts to look.
    ///
    /// # Errors
    /// What the file system says, or the system about a thread.
    pub fn start(options: KeeperOptions) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut retention = Retention::new(&options.log)?;
        let live = Live { rules: options.rules, told: options.told.clone() };
        let live = Arc::new(Mutex::new(live));
        let (keeper_live, metrics) = (live.clone(), options.metrics.clone());
        tell_age(&metrics, &options.rules);
        let thread = std::thread::Builder::new().name("retention".to_owned()).spawn(move || {
            lower_priority();
            loop {
                let now = live.lock().unwrap_or_else(PoisonError::into_inner).clone();
                look(&mut retention, &options, &now);
                if !matches!(stopped.recv_timeout(LOOK_EVERY), Err(mpsc::RecvTimeoutError::Timeout))
                {
                    return;
                }
            }
        })?;
        Ok(Self { live: keeper_live, metrics, stop: Some(stop), thread: Some(thread) })
    }

    /// Goes by other rules from the next look on, and leaves other groups' lag to be told elsewhere.
    pub fn change(&self, rules: Rules, told: Vec<String>) {
        tell_age(&self.metrics, &rules);
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Live { rules, told };
    }
}

/// What may change while it runs.
#[derive(Clone, Debug)]
struct Live {
    rules: Rules,
    told: Vec<String>,
}

fn tell_age(metrics: &ExportMetrics, rules: &Rules) {
    metrics.retention.set(rules.age.map_or(0.0, |age| age.as_secs_f64()));
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the retention thread panicked");
        }
    }
}

struct Demand<'a>(&'a KeeperOptions);

impl Needs for Demand<'_> {
    fn offset(&self, shard: u16) -> io::Result<Option<u64>> {
        lowest_needed(self.0.log.dir(), shard)
    }

    fn segments_from(&self, shard: u16) -> u64 {
        (self.0.segments_from)(shard)
    }
}

fn look(retention: &mut Retention, options: &KeeperOptions, now: &Live) {
    let low = (options.disk_low)();
    match retention.pass(&now.rules, low, &Demand(options)) {
        Ok(pass) => {
            for (reason, segments) in pass.deleted {
                let (reason, bytes) = (Reason::name(reason), pass.bytes);
                tracing::info!(reason, segments, bytes, "segments deleted");
                options.metrics.deleted(reason, segments);
            }
        }
        Err(error) => tracing::error!(%error, "retention cannot go on for now"),
    }
    if let Err(error) = tell_groups(options, &now.told) {
        tracing::warn!(%error, "the groups' lag cannot be told");
    }
    match options.log.oldest_received() {
        Ok(oldest) => options.metrics.oldest_record.set(oldest.unwrap_or(0) as f64 / 1e6),
        Err(error) => tracing::warn!(%error, "the oldest record cannot be read"),
    }
}

/// Shows how far the groups of the stream's consumers are.
fn tell_groups(options: &KeeperOptions, told: &[String]) -> io::Result<()> {
    let shards = options.log.shards()?;
    for group in Group::list(options.log.dir())? {
        if told.iter().any(|name| name == group.name()) {
            continue;
        }
        let (mut lags, mut oldest) = (Vec::new(), None::<i64>);
        for &shard in &shards {
            let at = group.committed(shard)?.map_or(0, |committed| committed.offset);
            let mark = options.marks.get(shard);
            lags.push(mark.saturating_sub(at));
            if at < mark {
                options.log.walk(shard, at, mark, &mut |_, record| {
                    let received = record.received_at();
                    oldest = Some(oldest.map_or(received, |oldest| oldest.min(received)));
                    Ok(false)
                })?;
            }
        }
        let metrics = options.metrics.group(group.name());
        let signed = |lag: u64| i64::try_from(lag).unwrap_or(i64::MAX);
        metrics.lag.set(signed(lags.iter().sum()));
        metrics.lag_max.set(signed(lags.iter().copied().max().unwrap_or(0)));
        metrics.oldest_pending.set(oldest.unwrap_or(0) as f64 / 1e6);
    }
    Ok(())
}
